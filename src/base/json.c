#include "base/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/utf8.h"

/* ---- The pass before cJSON: what cJSON lets through and we do not. ---- */

typedef struct scan {
    const char *text;
    size_t      n;
    size_t      at;
    int         depth;
    int         max_depth;
    size_t      values; /* an upper bound of cJSON nodes */
    bool        long_integers;
} scan;

/* Digits from which on an integer may not be a double. */
#define LONG_INTEGER 16

/* s->at is at a backslash and a u. cJSON reads wrong digits as zero, which would end the text there. */
static bool scan_escape(const scan *s, err *e) {
    for (size_t i = 2; i < 6; i++) {
        if (s->at + i >= s->n || !isxdigit((unsigned char)s->text[s->at + i])) {
            return err_set(e, ERR_INVALID, "not JSON: \\u needs four hex digits at byte %zu", s->at);
        }
    }
    if (memcmp(s->text + s->at + 2, "0000", 4) == 0) {
        return err_set(e, ERR_INVALID, "the text holds a NUL character (\\u0000) at byte %zu, which pare refuses",
                       s->at);
    }
    return true;
}

/* s->at is behind the opening quote; moves behind the closing one. */
static bool scan_string(scan *s, err *e) {
    size_t start = s->at - 1;
    for (;;) {
        s->at += str_json_plain(s->text + s->at, s->n - s->at);
        if (s->at >= s->n) {
            return err_set(e, ERR_INVALID, "not JSON: the string that begins at byte %zu has no end", start);
        }
        char c = s->text[s->at];
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c != '\\') {
            return err_set(e, ERR_INVALID, "not JSON: unescaped control character at byte %zu", s->at);
        }
        if (s->n - s->at < 2) {
            return err_set(e, ERR_INVALID, "not JSON: the string that begins at byte %zu has no end", start);
        }
        if (s->text[s->at + 1] == 'u' && !scan_escape(s, e)) {
            return false;
        }
        s->at += 2; /* cJSON checks the other escapes */
    }
}

static size_t digits(const scan *s, size_t at) {
    while (at < s->n && s->text[at] >= '0' && s->text[at] <= '9') {
        at++;
    }
    return at;
}

/* cJSON takes 01, 1. and 1.e5 for numbers; JSON does not. */
static bool scan_number(scan *s, err *e) {
    size_t start = s->at;
    size_t at = start + (s->text[start] == '-');
    size_t end = digits(s, at);
    bool   good = end > at && !(s->text[at] == '0' && end - at > 1);
    if (good && end < s->n && s->text[end] == '.') {
        at = end + 1;
        end = digits(s, at);
        good = end > at;
    }
    if (good && end < s->n && (s->text[end] == 'e' || s->text[end] == 'E')) {
        at = end + 1;
        at += at < s->n && (s->text[at] == '+' || s->text[at] == '-');
        end = digits(s, at);
        good = end > at;
    }
    if (!good || end - start > 60) { /* cJSON reads at most 63 characters of a number */
        return err_set(e, ERR_INVALID, "not JSON: bad number at byte %zu", start);
    }
    s->long_integers = s->long_integers || end - start >= LONG_INTEGER;
    s->at = end;
    return true;
}

static bool scan_token(scan *s, err *e) {
    unsigned char c = (unsigned char)s->text[s->at];
    if (c == '"') {
        s->at++;
        return scan_string(s, e);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_number(s, e);
    }
    if (c == '{' || c == '[') {
        s->values++;
        if (++s->depth > s->max_depth) {
            return err_set(e, ERR_LIMIT, "JSON nested deeper than %d levels at byte %zu", s->max_depth, s->at);
        }
    } else if (c == '}' || c == ']') {
        s->depth--;
    } else if (c == ',') {
        if (++s->values > JSON_MAX_VALUES) {
            return err_set(e, ERR_LIMIT, "JSON with more than %d values", JSON_MAX_VALUES);
        }
    } else if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c >= 0x7F) {
        return err_set(e, ERR_INVALID, "not JSON: unexpected byte 0x%02x at byte %zu", c, s->at);
    }
    s->at++;
    return true;
}

static bool scan_text(const char *text, size_t n, int max_depth, bool *long_integers, err *e) {
    scan   s = {.text = text, .n = n, .max_depth = max_depth};
    size_t bad;
    if (!utf8_valid(text, n, &bad)) {
        return err_set(e, ERR_INVALID, "not JSON: byte %zu is not UTF-8", bad);
    }
    while (s.at < n) {
        if (!scan_token(&s, e)) {
            return false;
        }
    }
    *long_integers = s.long_integers;
    return true;
}

/* ---- Integers that a double cannot hold ---- */

/* The next number in the text, which scan_text has accepted. */
static size_t next_number(scan *s, const char **at) {
    err ignored;
    while (s->at < s->n) {
        char   c = s->text[s->at];
        size_t from = s->at;
        if (!scan_token(s, &ignored)) {
            break;
        }
        if (c == '-' || (c >= '0' && c <= '9')) {
            *at = s->text + from;
            return s->at - from;
        }
    }
    return 0;
}

/* The tree has its numbers in the order of the text. cJSON leaves a number's valuestring alone, and frees and copies it as
 * it does a string's: there we keep the digits of an integer that the double has lost some of. */
static bool keep_digits(cJSON *value, scan *s) {
    cJSON *child;
    if (cJSON_IsNumber(value)) {
        const char *at = NULL;
        size_t      n = next_number(s, &at);
        bool        whole = n >= LONG_INTEGER && !memchr(at, '.', n) && !memchr(at, 'e', n) && !memchr(at, 'E', n);
        if (whole && fabs(value->valuedouble) >= 0x1p53) {
            value->valuestring = cJSON_malloc(n + 1);
            if (!value->valuestring) {
                return false;
            }
            memcpy(value->valuestring, at, n);
            value->valuestring[n] = '\0';
        }
        return true;
    }
    cJSON_ArrayForEach(child, value) {
        if (!keep_digits(child, s)) {
            return false;
        }
    }
    return true;
}

/* ---- The pass after it: what only the tree shows. ---- */

static bool duplicate(const cJSON *key, err *e) {
    return err_set(e, ERR_INVALID, "the key \"%.80s\" stands twice in one JSON object", key->string);
}

/* Two readers of one body could each believe another of two equal keys; refusing them is the only safe reading. */
static bool keys_differ(const cJSON *object, err *e) {
    size_t       count = 0;
    const cJSON *a;
    cJSON_ArrayForEach(a, object) {
        if (++count > 16) {
            break;
        }
        for (const cJSON *b = object->child; b != a; b = b->next) {
            if (strcmp(a->string, b->string) == 0) {
                return duplicate(a, e);
            }
        }
    }
    if (!a) {
        return true;
    }
    map *seen = map_new(64); /* many keys: comparing each with each would be a gift to an attacker */
    if (!seen) {
        return err_set(e, ERR_MEMORY, "out of memory while reading JSON");
    }
    bool good = true;
    cJSON_ArrayForEach(a, object) {
        size_t n = strlen(a->string);
        if (map_get(seen, a->string, n, NULL)) {
            good = duplicate(a, e);
            break;
        }
        if (!map_put(seen, a->string, n, 1)) {
            good = err_set(e, ERR_MEMORY, "out of memory while reading JSON");
            break;
        }
    }
    map_free(seen);
    return good;
}

/* Recursion is bounded: scan_text has counted the depth. */
static bool check_tree(const cJSON *value, err *e) {
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble)) {
        return err_set(e, ERR_INVALID, "the JSON holds a number too large for a double");
    }
    if (cJSON_IsObject(value) && !keys_differ(value, e)) {
        return false;
    }
    const cJSON *child;
    cJSON_ArrayForEach(child, value) {
        if (!check_tree(child, e)) {
            return false;
        }
    }
    return true;
}

cJSON *json_parse(const char *text, size_t n, int max_depth, err *e) {
    bool long_integers = false;
    if (!scan_text(text, n, max_depth, &long_integers, e)) {
        return NULL;
    }
    /* cJSON's "require a terminating NUL" would read the byte behind our text, which need not be there; so look at
     * where it ended instead. Only blanks may follow: scan_text let no other byte up to 0x20 through. */
    const char *end = NULL;
    cJSON      *value = cJSON_ParseWithLengthOpts(text, n, &end, false);
    size_t      at = end ? (size_t)(end - text) : 0;
    if (value) {
        while (at < n && (unsigned char)text[at] <= ' ') {
            at++;
        }
    }
    if (!value || at < n) {
        cJSON_Delete(value);
        if (n == 0) {
            err_set(e, ERR_INVALID, "not JSON: the text is empty");
        } else {
            err_set(e, ERR_INVALID, "not JSON: something is wrong at or before byte %zu", at);
        }
        return NULL;
    }
    scan again = {.text = text, .n = n, .max_depth = max_depth};
    bool kept =
        !long_integers || keep_digits(value, &again) || err_set(e, ERR_MEMORY, "out of memory while reading JSON");
    if (!kept || !check_tree(value, e)) {
        cJSON_Delete(value);
        return NULL;
    }
    return value;
}

/* ---- Getters ---- */

const char *json_kind(const cJSON *value) {
    if (!value || cJSON_IsInvalid(value)) {
        return "nothing";
    }
    if (cJSON_IsNull(value)) {
        return "null";
    }
    if (cJSON_IsBool(value)) {
        return "a boolean";
    }
    if (cJSON_IsNumber(value)) {
        return "a number";
    }
    if (cJSON_IsString(value)) {
        return "a string";
    }
    if (cJSON_IsArray(value)) {
        return "an array";
    }
    return cJSON_IsObject(value) ? "an object" : "raw JSON";
}

/* NULL when the member is missing or null: the caller then leaves its default alone. */
static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

typedef struct place {
    char text[112];
} place;

static place place_of(const char *path, const char *key) {
    place p;
    snprintf(p.text, sizeof(p.text), "%s%s%s", path, *path ? "." : "", key);
    return p;
}

static bool wrong_kind(const char *path, const char *key, const char *wanted, const cJSON *value, err *e) {
    place p = place_of(path, key);
    return err_at(e, ERR_INVALID, p.text, "%s must be %s, not %s", p.text, wanted, json_kind(value));
}

bool json_get_bool(const cJSON *object, const char *path, const char *key, bool *out, err *e) {
    const cJSON *value = member(object, key);
    if (!value) {
        return true;
    }
    if (!cJSON_IsBool(value)) {
        return wrong_kind(path, key, "true or false", value, e);
    }
    *out = cJSON_IsTrue(value);
    return true;
}

bool json_get_int(const cJSON *object, const char *path, const char *key, int64_t min, int64_t max, int64_t *out,
                  err *e) {
    const cJSON *value = member(object, key);
    if (!value) {
        return true;
    }
    if (!cJSON_IsNumber(value)) {
        return wrong_kind(path, key, "an integer", value, e);
    }
    double d = value->valuedouble;
    place  p = place_of(path, key);
    if (d != floor(d)) {
        return err_at(e, ERR_INVALID, p.text, "%s must be an integer, not %g", p.text, d);
    }
    /* 2^63 is a double, 2^63 - 1 is not: compare as doubles first so that the conversion is defined. */
    if (d < -0x1p63 || d >= 0x1p63 || (int64_t)d < min || (int64_t)d > max) {
        return err_at(e, ERR_INVALID, p.text, "%s must lie between %lld and %lld, not %.17g", p.text, (long long)min,
                      (long long)max, d);
    }
    *out = (int64_t)d;
    return true;
}

bool json_get_number(const cJSON *object, const char *path, const char *key, double min, double max, double *out,
                     err *e) {
    const cJSON *value = member(object, key);
    if (!value) {
        return true;
    }
    if (!cJSON_IsNumber(value)) {
        return wrong_kind(path, key, "a number", value, e);
    }
    double d = value->valuedouble;
    if (!(d >= min && d <= max)) {
        place p = place_of(path, key);
        return err_at(e, ERR_INVALID, p.text, "%s must lie between %g and %g, not %g", p.text, min, max, d);
    }
    *out = d;
    return true;
}

bool json_get_string(const cJSON *object, const char *path, const char *key, const char **out, err *e) {
    const cJSON *value = member(object, key);
    if (!value) {
        return true;
    }
    if (!cJSON_IsString(value)) {
        return wrong_kind(path, key, "a string", value, e);
    }
    *out = value->valuestring;
    return true;
}

/* ---- Writing ---- */

static bool write_value(const cJSON *value, bool sorted, str *out);

static bool write_number(const cJSON *value, str *out) {
    double d = value->valuedouble;
    if (!isfinite(d)) {
        return str_adds(out, "null"); /* as JavaScript does */
    }
    if (value->valuestring &&
        strtod(value->valuestring, NULL) == d) { /* see keep_digits; the value may have been set */
        return str_adds(out, value->valuestring);
    }
    if (d == floor(d) && fabs(d) <= 0x1p53) {
        return str_addf(out, "%lld", (long long)d);
    }
    char text[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(text, sizeof(text), "%.*g", precision, d);
        if (strtod(text, NULL) == d) {
            break;
        }
    }
    return str_adds(out, text);
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

static bool write_member(const cJSON *value, bool first, bool sorted, str *out) {
    if (!first) {
        str_addc(out, ',');
    }
    str_jsons(out, value->string);
    str_addc(out, ':');
    return write_value(value, sorted, out);
}

static bool write_sorted(const cJSON *object, str *out) {
    const cJSON  *few[24]; /* most objects are small */
    const cJSON **members = few;
    size_t        count = 0;
    const cJSON  *m;
    cJSON_ArrayForEach(m, object) {
        count++;
    }
    if (count > sizeof(few) / sizeof(few[0])) {
        members = malloc(count * sizeof(*members));
        if (!members) {
            out->failed = true;
            return false;
        }
    }
    size_t i = 0;
    cJSON_ArrayForEach(m, object) {
        members[i++] = m;
    }
    qsort(members, count, sizeof(*members), by_key);
    for (i = 0; i < count; i++) {
        write_member(members[i], i == 0, true, out);
    }
    if (members != few) {
        free(members);
    }
    return !out->failed;
}

static bool write_value(const cJSON *value, bool sorted, str *out) {
    const cJSON *child;
    if (cJSON_IsString(value)) {
        return str_jsons(out, value->valuestring);
    }
    if (cJSON_IsNumber(value)) {
        return write_number(value, out);
    }
    if (cJSON_IsBool(value)) {
        return str_adds(out, cJSON_IsTrue(value) ? "true" : "false");
    }
    if (cJSON_IsArray(value)) {
        str_addc(out, '[');
        cJSON_ArrayForEach(child, value) {
            if (child != value->child) {
                str_addc(out, ',');
            }
            write_value(child, sorted, out);
        }
        return str_addc(out, ']');
    }
    if (cJSON_IsObject(value)) {
        str_addc(out, '{');
        if (sorted) {
            write_sorted(value, out);
        } else {
            cJSON_ArrayForEach(child, value) {
                write_member(child, child == value->child, false, out);
            }
        }
        return str_addc(out, '}');
    }
    return str_adds(out, cJSON_IsRaw(value) && value->valuestring ? value->valuestring : "null");
}

bool json_canonical(const cJSON *value, str *out) {
    return write_value(value, true, out);
}

bool json_write(const cJSON *value, str *out) {
    return write_value(value, false, out);
}
