/* speech.h - what a model says, told apart: text, reasoning and tool calls.
 *
 * Models write their reasoning and their tool calls into the one text they generate, each family between marks of its
 * own. A speech takes that text in pieces of any size and tells it on as deltas. It holds back only what may still turn
 * out to be a mark, and the beginning of a call until it is known to be one: a call is told as soon as its name is
 * known and its arguments begin, and the arguments follow as they come. What begins like a call and is none stays text,
 * every byte of it. Time is linear in the text, memory in the longest piece that is held.
 *
 * The marks are read off the model's chat template, which writes earlier calls as the model was trained to write them.
 * A speech belongs to one thread at a time.                                                                          */
#ifndef PARE_DIALECT_SPEECH_H
#define PARE_DIALECT_SPEECH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/str.h"

#define SPEECH_MAX_MARKS 12
#define SPEECH_MAX_CALLS 128 /* in one answer; what follows stays text */

typedef struct speech_style speech_style; /* how a family of models writes tool calls */

typedef struct speech_format {
    const char         *think_open, *think_close; /* NULL: does not reason in the open */
    const speech_style *calls;                    /* NULL: none that pare knows */
} speech_format;

speech_format speech_format_of(const char *chat_template);
const char   *speech_calls_name(const speech_format *f); /* "hermes", "llama3", "mistral" ...; "none" */

/* Texts that may be control tokens of a vocabulary, which must reach the speech as text; those of reasoning first, their
 * number in *n_think. Returns how many. */
int speech_marks(const speech_format *f, const char *marks[SPEECH_MAX_MARKS], int *n_think);

/* The format of an answer that must call: the family's own where that is one object of JSON between marks, else such an
 * object without marks, which is read as if it stood behind speech_call_mark. */
speech_format speech_format_held(const speech_format *f);
/* What stands before and after the arguments when the model calls `name`; `marked`: with the marks around. False when the
 * family's way is not one object of JSON (or memory ran out). */
bool          speech_call_text(const speech_format *f, const char *name, bool marked, str *before, str *after);
bool          speech_calls_unmarked(const speech_format *f); /* the model itself does not write the mark */
bool          speech_calls_many(const speech_format *f);     /* several calls may follow each other */
const char   *speech_call_mark(const speech_format *f);      /* that opens a call; NULL: none is needed */

/* Does a prompt that ends like this leave the answer inside the model's reasoning? */
bool speech_prompt_thinks(const speech_format *f, const char *prompt, size_t n);

typedef enum speech_kind {
    SPEECH_TEXT,
    SPEECH_REASONING,
    SPEECH_CALL,     /* call `index` begins: id, name */
    SPEECH_ARGUMENTS /* of the call that began last: a piece of the text of a JSON object */
} speech_kind;

typedef struct speech_delta {
    speech_kind kind;
    int         index;
    const char *id, *name;
    const char *text;
    size_t      len;
} speech_delta;

typedef struct speech_options {
    const cJSON *tools;  /* in OpenAI's form, outlives the speech; NULL: calls stay text */
    bool         thinks; /* the answer begins inside the model's reasoning */
    uint64_t     salt;   /* of the calls' ids */
    void (*tell)(void *ctx, const speech_delta *d);
    void *ctx;
} speech_options;

typedef struct speech speech;

speech *speech_new(const speech_format *f, const speech_options *o); /* NULL: out of memory */
/* Deltas gather until their kind changes, speech_flush or speech_end. False: memory ran out, now or earlier. */
bool    speech_add(speech *s, const char *bytes, size_t n);
void    speech_flush(speech *s);       /* tells what has gathered */
bool    speech_end(speech *s);         /* tells what was held, too */
int     speech_count(const speech *s); /* calls so far */
bool    speech_thinking(const speech *s);
void    speech_free(speech *s);

#endif
