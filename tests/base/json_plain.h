/* json_plain.h - the plain reference of json_parse: a pass that refuses what cJSON lets through, then cJSON's own reader,
 * then a pass over its tree. For tests only: many passes, and no sentences.                                         */
#ifndef PARE_TESTS_BASE_JSON_PLAIN_H
#define PARE_TESTS_BASE_JSON_PLAIN_H

#include <cjson/cJSON.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

typedef struct plain_scan {
    const char *text;
    size_t      n;
    size_t      at;
    int         depth;
    int         max_depth;
    size_t      values;
} plain_scan;

static inline bool plain_string(plain_scan *s) {
    for (s->at++; s->at < s->n; s->at++) {
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20) {
            return false;
        }
        if (c != '\\') {
            continue;
        }
        if (++s->at >= s->n) {
            return false;
        }
        if (s->text[s->at] == 'u') { /* cJSON reads wrong digits as zero, and its strings end at \u0000 */
            for (size_t i = 1; i <= 4; i++) {
                if (s->at + i >= s->n || !isxdigit((unsigned char)s->text[s->at + i])) {
                    return false;
                }
            }
            if (memcmp(s->text + s->at + 1, "0000", 4) == 0) {
                return false;
            }
        }
    }
    return false;
}

static inline size_t plain_digits(const plain_scan *s, size_t at) {
    while (at < s->n && s->text[at] >= '0' && s->text[at] <= '9') {
        at++;
    }
    return at;
}

/* The length of the number at s->at, 0 when it is not as JSON spells it. cJSON takes 01, 1. and 1.e5. */
static inline size_t plain_number(const plain_scan *s) {
    size_t at = s->at + (s->text[s->at] == '-');
    size_t end = plain_digits(s, at);
    bool   good = end > at && !(s->text[at] == '0' && end - at > 1);
    if (good && end < s->n && s->text[end] == '.') {
        at = end + 1;
        end = plain_digits(s, at);
        good = end > at;
    }
    if (good && end < s->n && (s->text[end] == 'e' || s->text[end] == 'E')) {
        at = end + 1;
        at += at < s->n && (s->text[at] == '+' || s->text[at] == '-');
        end = plain_digits(s, at);
        good = end > at;
    }
    return good && end - s->at <= 60 ? end - s->at : 0;
}

static inline bool plain_token(plain_scan *s) {
    unsigned char c = (unsigned char)s->text[s->at];
    if (c == '"') {
        return plain_string(s);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        size_t n = plain_number(s);
        s->at += n;
        return n > 0;
    }
    s->at++;
    if (c == '{' || c == '[') {
        s->values++;
        return ++s->depth <= s->max_depth;
    }
    if (c == '}' || c == ']') {
        s->depth--;
    }
    if (c == ',') {
        return ++s->values <= JSON_MAX_VALUES;
    }
    return (c >= 0x20 && c < 0x7F) || c == '\n' || c == '\r' || c == '\t';
}

/* The tree has its numbers in the order of the text; the digits of integers that a double loses are kept. */
static inline bool plain_numbers(cJSON *value, plain_scan *s) {
    if (!cJSON_IsNumber(value)) {
        for (cJSON *child = value->child; child; child = child->next) {
            if (!plain_numbers(child, s)) {
                return false;
            }
        }
        return true;
    }
    while (s->text[s->at] != '-' && !isdigit((unsigned char)s->text[s->at])) {
        plain_token(s);
    }
    const char *from = s->text + s->at;
    size_t      n = plain_number(s);
    s->at += n;
    bool whole = n >= 16 && !memchr(from, '.', n) && !memchr(from, 'e', n) && !memchr(from, 'E', n);
    if (whole && fabs(value->valuedouble) >= 0x1p53) {
        value->valuestring = cJSON_malloc(n + 1);
        memcpy(value->valuestring, from, n);
        value->valuestring[n] = '\0';
    }
    return isfinite(value->valuedouble);
}

static inline bool plain_keys_differ(const cJSON *value) {
    for (const cJSON *a = value->child; a; a = a->next) {
        for (const cJSON *b = value->child; cJSON_IsObject(value) && b != a; b = b->next) {
            if (strcmp(a->string, b->string) == 0) {
                return false;
            }
        }
        if (!plain_keys_differ(a)) {
            return false;
        }
    }
    return true;
}

static inline cJSON *plain_parse(const char *text, size_t n, int max_depth) {
    plain_scan  s = {.text = text, .n = n, .max_depth = max_depth};
    const char *end = NULL;
    if (n == 0 || !utf8_valid(text, n, NULL)) {
        return NULL;
    }
    while (s.at < n) {
        if (!plain_token(&s)) {
            return NULL;
        }
    }
    cJSON *value = cJSON_ParseWithLengthOpts(text, n, &end, false);
    while (value && end < text + n && (unsigned char)*end <= ' ') {
        end++;
    }
    plain_scan again = {.text = text, .n = n, .max_depth = max_depth};
    if (!value || end < text + n || !plain_numbers(value, &again) || !plain_keys_differ(value)) {
        cJSON_Delete(value);
        return NULL;
    }
    return value;
}

static inline bool plain_same_text(const char *a, const char *b) {
    return !a == !b && (!a || strcmp(a, b) == 0);
}

/* Every field, and the links between the nodes; only where a key's memory lies may differ. */
static inline bool plain_same(const cJSON *a, const cJSON *b) {
    bool same = (a->type & 0xFF) == (b->type & 0xFF) && !(a->type & cJSON_IsReference) && a->valueint == b->valueint &&
                memcmp(&a->valuedouble, &b->valuedouble, sizeof(a->valuedouble)) == 0 &&
                plain_same_text(a->valuestring, b->valuestring) && plain_same_text(a->string, b->string);
    const cJSON *x = a->child;
    const cJSON *y = b->child;
    const cJSON *last = NULL;
    for (; same && x && y; x = x->next, y = y->next) {
        same = plain_same(x, y) && (!last || x->prev == last);
        last = x;
    }
    return same && !x && !y && (!last || a->child->prev == last);
}

#endif
