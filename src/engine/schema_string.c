/* schema_string.c - strings: lengths, patterns and formats. A character is one of Unicode, or an escape of one; escapes of
 * surrogates and of NUL are left out, so that every string is one that all readers take.                             */
#include <stdio.h>
#include <string.h>

#include "engine/schema_parts.h"

#define SHARED_KEY 300

#define NAME "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define HOST NAME "(\\." NAME "){0,4}"
#define DATE                                                                                                           \
    "[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"                      \
    "02-(0[1-9]|1[0-9]|2[0-8]))"
#define CLOCK "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

/* Each allows a part of what the format does: what is in use, and valid for sure (no leap days). Sources: RFC 3339, 4122,
 * 5321, 1123, 3986, 2673, 4291. */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^(" DATE ")$"},
    {"time", "^(" CLOCK ")$"},
    {"date-time", "^(" DATE "T" CLOCK ")$"},
    {"duration", "^P([0-9]{1,4}W|[0-9]{1,4}D(T[0-9]{1,4}H)?|T([0-9]{1,4}H([0-9]{1,2}M([0-9]{1,2}S)?)?|"
                 "[0-9]{1,4}M([0-9]{1,2}S)?|[0-9]{1,4}S))$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"email", "^[A-Za-z0-9_%+-]{1,20}(\\.[A-Za-z0-9_%+-]{1,20}){0,2}@(" NAME "\\.){1,4}[A-Za-z]{2,24}$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^(" OCTET "\\.){3}" OCTET "$"},
    {"ipv6", "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$"},
    {"uri", "^https?://" HOST "(:[1-9][0-9]{0,3})?(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)*"
            "(\\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*)?(#([A-Za-z0-9._~-])*)?$"},
};

static const expr *range(schema *s, int lo, int hi) {
    return expr_range(s->r, lo, hi);
}

static const expr *either(schema *s, const expr *a, const expr *b) {
    return expr_alt(s->r, (const expr *[]){a, b}, 2);
}

/* Beginnings that go on alike are put together before what they go on with, so that a character takes few states: a string
 * of limited length has those of one character as many times as it may be long. */
static const expr *begun(schema *s, const expr *const *beginnings, int n, const expr *rest) {
    return expr_pair(s->r, expr_alt(s->r, beginnings, n), rest);
}

/* A character beyond ASCII, in UTF-8 (RFC 3629, section 4). */
static const expr *beyond_ascii(schema *s) {
    const expr *tail = range(s, 0x80, 0xBF);
    const expr *four[] = {expr_pair(s->r, range(s, 0xF0, 0xF0), range(s, 0x90, 0xBF)),
                          expr_pair(s->r, range(s, 0xF1, 0xF3), tail),
                          expr_pair(s->r, range(s, 0xF4, 0xF4), range(s, 0x80, 0x8F))};
    const expr *two_left[] = {range(s, 0xE1, 0xEC), range(s, 0xEE, 0xEF), expr_alt(s->r, four, 3)};
    const expr *one_left[] = {expr_pair(s->r, range(s, 0xE0, 0xE0), range(s, 0xA0, 0xBF)),
                              expr_pair(s->r, range(s, 0xED, 0xED), range(s, 0x80, 0x9F)), begun(s, two_left, 3, tail),
                              range(s, 0xC2, 0xDF)};
    return begun(s, one_left, 4, tail);
}

/* Four digits that are neither 0000 nor D800 to DFFF. */
static const expr *hex_code(schema *s) {
    const expr *all[] = {range(s, '0', '9'), range(s, 'a', 'f'), range(s, 'A', 'F')};
    const expr *some[] = {range(s, '1', '9'), range(s, 'a', 'f'), range(s, 'A', 'F')};
    const expr *plain[] = {range(s, '1', '9'), range(s, 'a', 'c'), range(s, 'A', 'C'), range(s, 'e', 'f'),
                           range(s, 'E', 'F')};
    const expr *digit = expr_alt(s->r, all, 3), *not_zero = expr_alt(s->r, some, 3);
    const expr *zero = range(s, '0', '0');
    const expr *two[] = {expr_pair(s->r, expr_alt(s->r, plain, 5), digit),
                         expr_pair(s->r, either(s, range(s, 'd', 'd'), range(s, 'D', 'D')), range(s, '0', '7')),
                         expr_pair(s->r, zero, not_zero)};
    const expr *three[] = {begun(s, two, 3, digit), expr_seq(s->r, (const expr *[]){zero, zero, not_zero}, 3)};
    return either(s, begun(s, three, 2, digit), expr_seq(s->r, (const expr *[]){zero, zero, zero, not_zero}, 4));
}

const expr *schema_char(schema *s) {
    static const char marks[] = "\"\\/bfnrt";
    if (!s->chr) {
        const expr *one[sizeof(marks)];
        for (size_t i = 0; i + 1 < sizeof(marks); i++) {
            one[i] = range(s, marks[i], marks[i]);
        }
        one[sizeof(marks) - 1] = expr_pair(s->r, range(s, 'u', 'u'), hex_code(s));
        s->chr =
            expr_alt(s->r,
                     (const expr *[]){range(s, 0x20, 0x21), range(s, 0x23, 0x5B), range(s, 0x5D, 0x7F), beyond_ascii(s),
                                      expr_pair(s->r, range(s, '\\', '\\'), expr_alt(s->r, one, sizeof(marks)))},
                     5);
    }
    return s->chr;
}

static const expr *quoted(schema *s, const expr *inside) {
    return expr_seq(s->r, (const expr *[]){schema_word(s, "\""), inside, schema_word(s, "\"")}, 3);
}

const expr *schema_plain_string(schema *s) {
    if (s->string < 0 && (s->string = rules_add(s->r, "a string")) >= 0) {
        s->r->rule[s->string].body = quoted(s, expr_repeat(s->r, schema_char(s), 0, GRAMMAR_NO_MAX));
        s->r->rule[s->string].apart = true;
    }
    return expr_rule(s->r, s->string);
}

static const char *pattern_of(schema *s, const cJSON *node) {
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(node, "format");
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(node, "pattern");
    if ((format && !cJSON_IsString(format)) || (pattern && !cJSON_IsString(pattern))) {
        schema_wrong(s, ERR_INVALID, "pattern and format must be strings");
        return NULL;
    }
    if (format && pattern) {
        schema_wrong(s, ERR_UNSUPPORTED, "pattern and format in one schema are not supported");
        return NULL;
    }
    for (size_t i = 0; format && i < sizeof(formats) / sizeof(*formats); i++) {
        if (strcmp(formats[i].name, format->valuestring) == 0) {
            return formats[i].pattern;
        }
    }
    if (format) {
        schema_wrong(s, ERR_UNSUPPORTED, "the format \"%.40s\" is not supported", format->valuestring);
    }
    return pattern ? pattern->valuestring : NULL;
}

static const expr *of_pattern(schema *s, const char *pattern, int least, int most) {
    int         shortest = 0, longest = -1;
    const expr *x = schema_regex(s, pattern, &shortest, &longest);
    if (!s->r->failed && (shortest < least || (most >= 0 && (longest < 0 || longest > most)))) {
        schema_wrong(
            s, ERR_UNSUPPORTED,
            "minLength and maxLength beside a pattern or format whose own length they change are not supported; "
            "write the lengths into the pattern");
    }
    return s->r->failed ? NULL : schema_apart(s, "a pattern", quoted(s, x));
}

const expr *schema_string(schema *s, const cJSON *node) {
    int         least = schema_count(s, node, "minLength", 0), most = schema_count(s, node, "maxLength", -1);
    const char *pattern = pattern_of(s, node);
    if (s->r->failed) {
        return NULL;
    }
    if (most >= 0 && most < least) {
        schema_wrong(s, ERR_INVALID, "maxLength is below minLength");
        return NULL;
    }
    if (!pattern && least == 0 && most < 0) {
        return schema_plain_string(s);
    }
    char    key[SHARED_KEY];
    int64_t rule;
    int     n = snprintf(key, sizeof(key), "%d %d %s", least, most, pattern ? pattern : "");
    bool    fits = n < SHARED_KEY;
    if (fits &&
        map_get(s->rule_of, key, (size_t)n, &rule)) { /* strings of one kind are one rule, and share their masks */
        return expr_rule(s->r, (int)rule);
    }
    const expr *x = pattern ? of_pattern(s, pattern, least, most)
                            : schema_apart(s, "a string", quoted(s, expr_repeat(s->r, schema_char(s), least, most)));
    if (fits && x && !map_put(s->rule_of, key, (size_t)n, x->rule)) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    return x;
}
