#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/spare.h"

void json_use_spare(void) {
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = spare_malloc, .free_fn = spare_free});
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

cJSON *json_member(const cJSON *object, const char *key) {
    cJSON *m = object ? object->child : NULL;
    while (m && m->string && (m->string[0] != key[0] || strcmp(m->string, key) != 0)) {
        m = m->next;
    }
    return m && m->string ? m : NULL;
}

/* NULL when the member is missing or null: the caller then leaves its default alone. */
static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *value = json_member(object, key);
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
    if (d != floor(d)) {
        place p = place_of(path, key);
        return err_at(e, ERR_INVALID, p.text, "%s must be an integer, not %g", p.text, d);
    }
    /* 2^63 is a double, 2^63 - 1 is not: compare as doubles first so that the conversion is defined. */
    if (d < -0x1p63 || d >= 0x1p63 || (int64_t)d < min || (int64_t)d > max) {
        place p = place_of(path, key);
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

/* A number of at most 15 digits with at most 9 of them behind the point, without formatting: the decimal found is the only
 * one of 15 digits that reads back as d, and so what "%.15g" gives. Integers and what %g writes with an exponent are not
 * for this function. */
static bool write_short(double d, str *out) {
    double tens = 1;
    double scaled;
    int    fraction = 0;
    do {
        tens *= 10;
        scaled = rint(fabs(d) * tens);
        fraction++;
    } while (fraction < 9 && scaled / tens != fabs(d));
    if (scaled / tens != fabs(d) || scaled >= 1e15 || fabs(d) < 1e-4) {
        return false;
    }
    char      digits[16];
    char     *at = digits + sizeof(digits);
    long long left = (long long)scaled;
    for (int i = 0; i < fraction; i++) {
        *--at = (char)('0' + left % 10);
        left /= 10;
    }
    *--at = '.';
    if (d < 0) {
        str_addc(out, '-');
    }
    str_addi(out, left);
    str_add(out, at, (size_t)(digits + sizeof(digits) - at));
    return true;
}

static bool write_number(const cJSON *value, str *out) {
    double d = value->valuedouble;
    if (!isfinite(d)) {
        return str_adds(out, "null"); /* as JavaScript does */
    }
    if (value->valuestring &&
        strtod(value->valuestring, NULL) == d) { /* see keep_digits of json_parse.c; the value may have been set */
        return str_adds(out, value->valuestring);
    }
    if (d == floor(d) && fabs(d) <= 0x1p53) {
        return str_addi(out, (long long)d);
    }
    if (write_short(d, out)) {
        return !out->failed;
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

/* Most objects have a few members, for which qsort's preparations cost more than the comparing. */
static void sort_members(const cJSON **members, size_t count) {
    if (count > 8) {
        qsort(members, count, sizeof(*members), by_key);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        const cJSON *m = members[i];
        size_t       at = i;
        for (; at > 0 && strcmp(members[at - 1]->string, m->string) > 0; at--) {
            members[at] = members[at - 1];
        }
        members[at] = m;
    }
}

static void write_member(const cJSON *value, bool first, bool sorted, str *out) {
    if (!first) {
        str_addc(out, ',');
    }
    str_jsons(out, value->string);
    str_addc(out, ':');
    write_value(value, sorted, out);
}

static void write_sorted(const cJSON *object, str *out) {
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
            return;
        }
    }
    size_t i = 0;
    cJSON_ArrayForEach(m, object) {
        members[i++] = m;
    }
    sort_members(members, count);
    for (i = 0; i < count; i++) {
        write_member(members[i], i == 0, true, out);
    }
    if (members != few) {
        free(members);
    }
}

static bool write_object(const cJSON *value, bool sorted, str *out) {
    const cJSON *child;
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

static bool write_array(const cJSON *value, bool sorted, str *out) {
    const cJSON *child;
    str_addc(out, '[');
    cJSON_ArrayForEach(child, value) {
        if (child != value->child) {
            str_addc(out, ',');
        }
        write_value(child, sorted, out);
    }
    return str_addc(out, ']');
}

static bool write_value(const cJSON *value, bool sorted, str *out) {
    switch (value ? value->type & 0xFF : cJSON_NULL) {
    case cJSON_String:
        return str_jsons(out, value->valuestring);
    case cJSON_Number:
        return write_number(value, out);
    case cJSON_True:
        return str_adds(out, "true");
    case cJSON_False:
        return str_adds(out, "false");
    case cJSON_Array:
        return write_array(value, sorted, out);
    case cJSON_Object:
        return write_object(value, sorted, out);
    case cJSON_Raw:
        return str_adds(out, value->valuestring ? value->valuestring : "null");
    default:
        return str_adds(out, "null");
    }
}

bool json_canonical(const cJSON *value, str *out) {
    return write_value(value, true, out);
}

bool json_write(const cJSON *value, str *out) {
    return write_value(value, false, out);
}
