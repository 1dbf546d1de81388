/* values_read.c - a walk over JSON text, member by member and number by number; see values.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/values.h"

static bool fail(values_reader *v) {
    v->bad = true;
    return false;
}

/* In front of the next byte that is no blank; false at the end of the text. */
static bool skip_blanks(values_reader *v) {
    while (v->at < v->end && (*v->at == ' ' || *v->at == '\t' || *v->at == '\n' || *v->at == '\r')) {
        v->at++;
    }
    return !v->bad && v->at < v->end;
}

static bool skip_string(values_reader *v) {
    for (v->at++; v->at < v->end; v->at++) {
        if (*v->at == '"') {
            v->at++;
            return true;
        }
        v->at += *v->at == '\\' && v->at + 1 < v->end;
    }
    return fail(v);
}

static bool ends_scalar(char c) {
    return c == ',' || c == '}' || c == ']' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool values_skip(values_reader *v) {
    int depth = 0;
    do {
        if (!skip_blanks(v)) {
            return fail(v);
        }
        char c = *v->at;
        bool inner = c == '}' || c == ']' || c == ',' || c == ':';
        if (inner && depth == 0) {
            return fail(v);
        }
        if (c == '"') {
            if (!skip_string(v)) {
                return false;
            }
        } else if (inner || c == '{' || c == '[') {
            depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
            v->at++;
        } else {
            while (v->at < v->end && !ends_scalar(*v->at)) {
                v->at++;
            }
        }
    } while (depth > 0);
    return true;
}

bool values_enter(values_reader *v, char bracket) {
    if (!skip_blanks(v) || *v->at != bracket) {
        return false;
    }
    v->at++;
    v->fresh = true;
    return true;
}

/* In front of the next member or item; false at the closing bracket, which is taken. */
static bool go_on(values_reader *v, char closing) {
    bool first = v->fresh;
    v->fresh = false;
    if (!skip_blanks(v)) {
        return fail(v);
    }
    if (*v->at == closing) {
        v->at++;
        return false;
    }
    if (first) {
        return true;
    }
    bool comma = *v->at == ',';
    v->at += comma;
    return (comma && skip_blanks(v) && *v->at != closing) || fail(v);
}

bool values_member(values_reader *v, const char **key, size_t *n) {
    if (!go_on(v, '}')) {
        return false;
    }
    if (*v->at != '"') {
        return fail(v);
    }
    *key = v->at + 1;
    if (!skip_string(v)) {
        return false;
    }
    *n = (size_t)(v->at - 1 - *key);
    if (!skip_blanks(v) || *v->at != ':') {
        return fail(v);
    }
    v->at++;
    return skip_blanks(v) || fail(v);
}

bool values_item(values_reader *v) {
    return go_on(v, ']');
}

bool values_key(const char *key, size_t n, const char *name) {
    return n == strlen(name) && memcmp(key, name, n) == 0;
}

/* ---- numbers ---- */

/* Digits into the mantissa as long as it holds them; *dropped counts the others. */
static const char *read_digits(const char *p, const char *end, uint64_t *mantissa, int *dropped) {
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        if (*mantissa < UINT64_MAX / 10 - 1) {
            *mantissa = *mantissa * 10 + (uint64_t)(*p - '0');
        } else {
            (*dropped)++;
        }
    }
    return p;
}

static double by_library(const char *from, size_t n) {
    char text[400]; /* more digits than these say nothing more */
    n = n < sizeof text ? n : sizeof text - 1;
    memcpy(text, from, n);
    text[n] = '\0';
    return strtod(text, NULL);
}

/* A mantissa below 2^53 and a power of ten up to 10^22 are exact doubles, and so their product or quotient is the nearest
 * one (Clinger 1990); everything else goes to the library. */
static double value_of(const char *from, size_t n, uint64_t mantissa, int exponent) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (mantissa >= (uint64_t)1 << 53 || exponent > 22 || exponent < -22) {
        return by_library(from, n);
    }
    double x = exponent < 0 ? (double)mantissa / powers[-exponent] : (double)mantissa * powers[exponent];
    return *from == '-' ? -x : x;
}

bool values_number(values_reader *v, double *out) {
    if (!go_on(v, ']')) {
        return false;
    }
    const char *from = v->at, *p = from + (*from == '-'), *digits = p;
    uint64_t    mantissa = 0;
    int         dropped = 0, after = 0, exponent = 0;
    p = read_digits(p, v->end, &mantissa, &dropped);
    bool good = p > digits && (p - digits == 1 || *digits != '0');
    if (good && p < v->end && *p == '.') {
        int before = dropped;
        digits = ++p;
        p = read_digits(p, v->end, &mantissa, &dropped);
        after = (int)(p - digits) - (dropped - before); /* digits behind the point that are in the mantissa */
        good = p > digits;
    }
    if (good && p < v->end && (*p == 'e' || *p == 'E')) {
        bool minus = ++p < v->end && *p == '-';
        p += p < v->end && (*p == '-' || *p == '+');
        digits = p;
        for (; p < v->end && *p >= '0' && *p <= '9'; p++) {
            exponent = exponent < 100000 ? exponent * 10 + (*p - '0') : exponent;
        }
        good = p > digits;
        exponent = minus ? -exponent : exponent;
    }
    if (!good || p >= v->end || !ends_scalar(*p)) {
        return fail(v);
    }
    size_t n = (size_t)(p - from);
    *out = dropped ? by_library(from, n) : value_of(from, n, mantissa, exponent - after);
    v->at = p;
    return isfinite(*out) || fail(v); /* past a double: JSON's readers would refuse it */
}

/* ---- members by name ---- */

const char *values_find(const char *text, size_t n, const char *name, size_t *length) {
    values_reader v = {.at = text, .end = text + n};
    const char   *key;
    size_t        key_n;
    if (!values_enter(&v, '{')) {
        return NULL;
    }
    while (values_member(&v, &key, &key_n)) {
        const char *from = v.at;
        if (!values_skip(&v)) {
            return NULL;
        }
        if (values_key(key, key_n, name)) {
            *length = (size_t)(v.at - from);
            return from;
        }
    }
    return NULL;
}

cJSON *values_tree(const char *text, size_t n, const char *name) {
    size_t      length;
    const char *value = values_find(text, n, name, &length);
    return value ? json_parse(value, length, 16, NULL) : NULL;
}
