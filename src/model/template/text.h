/* text.h - strings as Python sees them: counted in code points, with Unicode's blanks and cases. */
#ifndef PARE_MODEL_TEMPLATE_TEXT_H
#define PARE_MODEL_TEMPLATE_TEXT_H

#include "model/template/render.h"

bool   jinja_is_space(uint32_t cp);              /* str.isspace */
size_t jinja_char(const char *bytes, size_t n);  /* bytes of the character that begins here, at least 1 (n > 0) */
size_t jinja_space(const char *bytes, size_t n); /* bytes of the blank that begins here, or 0 */
size_t jinja_space_before(const char *bytes, size_t n); /* bytes of the blank that ends at n, or 0 */
size_t jinja_newline(const char *bytes, size_t n); /* bytes of the line end that begins here (str.splitlines), or 0 */

int64_t jinja_chars(const text *t);
size_t  jinja_offset(const text *t, int64_t at); /* byte offset of character `at` (0 .. chars) */

/* First occurrence at or after `from`, in bytes; SIZE_MAX when there is none. */
size_t jinja_find_bytes(const text *in, const text *what, size_t from);

/* Last occurrence within bytes from .. to; spends steps, since the search compares at every place. */
bool jinja_rfind_bytes(render *r, const text *in, const text *what, size_t from, size_t to, size_t *found);

typedef enum letter_case { CASE_UPPER, CASE_LOWER, CASE_TITLE } letter_case;
bool jinja_emit_case(render *r, const char *bytes, size_t n, letter_case to);
bool jinja_emit_escaped(render *r, const text *t); /* & < > ' " as HTML entities */
bool jinja_replace(render *r, const text *in, const text *old, const text *with, int64_t count, value *out);
bool jinja_strip(render *r, const text *t, const text *chars, bool left, bool right, value *out);

/* Collects values when their number is not known before. */
typedef struct gather {
    value *items;
    size_t n;
    size_t cap;
} gather;
bool jinja_gather(render *r, gather *g, value v);
bool jinja_gathered(render *r, const gather *g, value_kind kind, value *out);

#endif
