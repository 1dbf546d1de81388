/* grammar.h - what an answer may look like: a context-free grammar over bytes, compiled once and then read-only.
 *
 * From llama.cpp's GBNF, from a JSON Schema, or for any JSON object. A grammar is counted: whoever keeps it holds it, and
 * it goes with its last holder; any number of threads and engines use one. Compiling takes bounded time and memory
 * whatever the text is, and belongs on a worker's thread: what is too large is refused with a sentence.
 *
 * The language is the grammar's, but for nesting: derivations deeper than GRAMMAR_MOST_DEPTH pending rules are left out.
 * Text is UTF-8.                                                                                                     */
#ifndef PARE_ENGINE_GRAMMAR_H
#define PARE_ENGINE_GRAMMAR_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define GRAMMAR_MOST_DEPTH 256

typedef struct grammar grammar;

grammar *grammar_hold(grammar *g); /* returns g */
void     grammar_free(grammar *g); /* gives one hold back; NULL is fine */

/* llama.cpp's dialect; the sentence names line and column. The answer is what the rule `root` derives. Left recursion
 * is refused. */
grammar *grammar_from_gbnf(const char *text, size_t n, err *e);

typedef enum json_space {                      /* after each comma and colon; nowhere else */
                          JSON_SPACE_OPTIONAL, /* one or none, as the model likes */
                          JSON_SPACE_NONE,
                          JSON_SPACE_ONE /* the longest forced stretches in a spelling that models know */
} json_space;

typedef struct schema_options {
    json_space space;
    bool       open; /* objects that name properties and not additionalProperties take others too (JSON Schema's own
                        default); without it they take none */
} schema_options;

/* JSON Schema 2020-12, the part that schema.c lists; a keyword that it does not know is refused by its name, with the
 * place in e->param. Every text of the grammar is valid under the schema. */
grammar *grammar_from_schema(const cJSON *schema, const schema_options *o, err *e);
grammar *grammar_json_object(const schema_options *o, err *e);

typedef struct grammar_call { /* a text, a value, a text: {"name": "f", "arguments":  ...  } */
    const char  *before;
    const cJSON *schema; /* NULL: any object */
    const char  *after;
} grammar_call;

/* One to `most` calls, each any of `calls`, with `between` between two. For tools: a schema's "#" is its own. */
grammar *grammar_from_calls(const grammar_call *calls, int n, const char *between, int most, const schema_options *o,
                            err *e);

#endif
