/* json.h - JSON from strangers, read with care.
 *
 * The trees are cJSON's; the reader is our own, for it checks what cJSON's does not: valid UTF-8, bounds on depth and on the
 * number of values, numbers as JSON spells them and within a double, no raw control characters, nothing after the value, no
 * \u0000 (cJSON's strings end at NUL, so such a text would be cut silently), no key twice in one object. Typed getters name
 * the place of a wrong value in `e->param` ("messages[2].content").                                                 */
#ifndef PARE_BASE_JSON_H
#define PARE_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define JSON_MAX_DEPTH  64
#define JSON_MAX_VALUES (512 * 1024) /* a value takes 80 bytes of memory and two of text: bounds a hostile body */

/* The caller frees with cJSON_Delete. NULL with a sentence that names the byte offset (or the key that stands twice).
 * `text` needs no NUL at its end. */
cJSON *json_parse(const char *text, size_t n, int max_depth, err *e);

/* From now on cJSON's memory is spare.h's, which is cheaper for the many small pieces of a tree. Call it before another
 * thread runs: cJSON reads its hooks without a lock. */
void json_use_spare(void);

/* The member of an object, NULL when it has none: cJSON_GetObjectItemCaseSensitive at a third of its cost. */
cJSON *json_member(const cJSON *object, const char *key);

/* Getters. `path` is the place of `object` ("" at the root). A missing or null member leaves *out alone and returns
 * true; a wrong type or a value out of range fails. cJSON keeps numbers as doubles: integers past 2^53 are rounded here
 * (but are written with all their digits). A string that is handed out lives as long as `object`. */
bool json_get_bool(const cJSON *object, const char *path, const char *key, bool *out, err *e);
bool json_get_int(const cJSON *object, const char *path, const char *key, int64_t min, int64_t max, int64_t *out,
                  err *e);
bool json_get_number(const cJSON *object, const char *path, const char *key, double min, double max, double *out,
                     err *e);
bool json_get_string(const cJSON *object, const char *path, const char *key, const char **out, err *e);

/* What a value is, for sentences: "a string", "null", "an array". */
const char *json_kind(const cJSON *value);

/* Adds the value so that the same value always gives the same bytes: members sorted by key, no blanks, integers up to
 * 2^53 without a fraction, longer ones of json_parse in their own digits, other numbers in the fewest digits (15 to 17)
 * that read back the same. */
bool json_canonical(const cJSON *value, str *out);

/* Adds the value in ordinary writing: member order kept, no blanks. */
bool json_write(const cJSON *value, str *out);

#endif
