/* values.h - answers to embeddings and rerank that came from other APIs, brought into OpenAI's form; for this
 * room, and values_finish for backends.
 *
 * A list of vectors has a million numbers in no time: nothing here builds a tree of them. The bytes are a provider's and
 * nobody has checked them, so the reader below takes nothing for granted.                                             */
#ifndef PARE_DIALECT_VALUES_H
#define PARE_DIALECT_VALUES_H

#include "dialect/dialect.h"

/* ---- a walk over JSON text ---- */

/* `bad` stays set once the text was not JSON; every call then says no. */
typedef struct values_reader {
    const char *at, *end;
    bool        bad;
    bool        fresh; /* behind an opening bracket: no comma yet */
} values_reader;

/* Goes into the object or array that begins here; false: it is another kind of value. */
bool values_enter(values_reader *v, char bracket);
/* The next member of the object, whose value begins at v->at; false behind the last one. Keys with escapes match nothing
 * that is asked for. Each value must be skipped or walked. */
bool values_member(values_reader *v, const char **key, size_t *n);
bool values_item(values_reader *v); /* the same of an array */
bool values_skip(values_reader *v); /* behind the value */
bool values_key(const char *key, size_t n, const char *name);
/* The next number of an array of numbers, one at a time; false behind the last one. */
bool values_number(values_reader *v, double *out);

/* The value of a member of the object `text`: its bytes, or NULL. */
const char *values_find(const char *text, size_t n, const char *name, size_t *length);
/* A small value as a tree (usage and the like); NULL: absent, or no JSON. The caller frees. */
cJSON      *values_tree(const char *text, size_t n, const char *name);

/* ---- OpenAI's form ---- */

/* {"object":"list","data":[ ... ],"model":"","usage":...}. The numbers of a vector go over as they stand, or, when the
 * vector is not of length 1 and `unit` asks for it, divided by their length. vectors: v is in front of the array. */
bool values_begin(str *out);
bool values_vector(values_reader *v, int index, bool unit, str *out);
bool values_end(const usage *u, str *out);

/* Puts a raw answer in OpenAI's form into the shape that the request asked for, where the provider could not: vectors as
 * base64 (encoding_format), the documents' texts beside their scores (return_documents), and the model's name where it is
 * empty. What is so already stays. */
bool values_adapt(const request *r, const char *raw, size_t n, str *out);

/* The same to an answer that was just read, in place, where it is one of values; others stay as they are. */
bool values_finish(const request *r, answer *a, err *e);

/* Takes the text over as answer.raw of OpenAI's dialect; frees it on failure. */
bool values_keep(str *text, answer *out, err *e);

#endif
