/* str.h - a growing byte string.
 *
 * Zero-initialise (`str s = {0}`), add, read `data` (always NUL-terminated once something was added), free. When memory
 * runs out `failed` stays set and further additions do nothing, so that a long build needs one check at its end.    */
#ifndef PARE_BASE_STR_H
#define PARE_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct str {
    char  *data;
    size_t len;
    size_t cap;
    bool   failed;
} str;

bool str_add(str *s, const void *bytes, size_t n);
bool str_addi(str *s, long long value); /* in decimal */
bool str_addf(str *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool str_reserve(str *s, size_t more); /* room for `more` bytes beyond len */

/* Inline, so that a character costs a few instructions where there is room, and the compiler counts the length of a text
 * that stands in the source. */
static inline bool str_addc(str *s, char c) {
    if (s->cap - s->len < 2 || s->failed) { /* len is below cap, or both are 0 */
        return str_add(s, &c, 1);
    }
    s->data[s->len++] = c;
    s->data[s->len] = '\0';
    return true;
}

static inline bool str_adds(str *s, const char *text) {
    return str_add(s, text, strlen(text));
}

/* Adds a JSON string literal with its quotes. The bytes must be UTF-8 (checked at the border, not here). */
bool str_json(str *s, const char *bytes, size_t n);
bool str_jsons(str *s, const char *text); /* NULL adds null */

/* How many of these bytes, from the first on, a JSON string literal takes as they are: up to the first quote, backslash
 * or control character. */
size_t str_json_plain(const char *bytes, size_t n);

/* Adds a label's value as Prometheus has it, with its quotes: backslash, quote and line feed are escaped. Source: the text
 * exposition format, version 0.0.4. */
bool str_label(str *s, const char *text);

/* Micro-dollars as a decimal number of dollars: 1234567 -> 1.234567 */
bool str_usd(str *s, long long micro_usd);

void  str_clear(str *s); /* keeps the memory */
void  str_free(str *s);
char *str_take(str *s); /* hands the malloc'd bytes over and zeroes s; NULL when failed or empty */

#endif
