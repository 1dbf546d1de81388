/* schema_number.c - numbers, and numbers within bounds, digit by digit.
 *
 * A number is written with at most 15 digits before the point and 15 after it within bounds, 18 and 17 without; an
 * exponent only where there are no bounds. Bounds are walked like a trie: while all digits so far are those of a bound,
 * the next one is held by it; then anything goes. With multipleOf the remainder of the digits so far is carried along. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/schema_parts.h"

#define WHOLE    15 /* digits before the point */
#define FRACTION 15 /* and after it */
#define BEYOND   1e15

typedef struct bound {                /* of a magnitude: no sign */
    char digit[WHOLE + FRACTION + 1]; /* '0'..'9'; WHOLE of them before the point, zeros in front */
    bool inclusive;
} bound;

typedef struct multiple { /* of step / 10^places */
    int64_t step;         /* 1: of any number with so many places */
    int     places;
} multiple;

typedef struct span { /* magnitudes between two bounds, with as many whole digits as `begin` leaves */
    schema  *s;
    bound    lo, hi;
    int      begin; /* the first digit that is written */
    multiple of;
} span;

static const expr *digits(schema *s, int least, int most) {
    return expr_repeat(s->r, expr_range(s->r, '0', '9'), least, most);
}

static bool rest_is_zero(const bound *b, int at) {
    while (at < WHOLE + FRACTION && b->digit[at] == '0') {
        at++;
    }
    return at == WHOLE + FRACTION;
}

/* The remainder, with digit d at `at` and zeros behind it, of what left `rest` with zeros from there on. */
static int64_t remainder_with(const span *r, int at, int64_t rest, int d) {
    int64_t worth = 1 % r->of.step;
    for (int i = at + 1; r->of.step > 1 && i < WHOLE + r->of.places; i++) {
        worth = worth * 10 % r->of.step;
    }
    return (rest + d * worth) % r->of.step;
}

/* Whether digits from `at` on can make the remainder 0: together they are at most 99..9. */
static bool may_divide(const span *r, int at, int64_t rest) {
    int64_t missing = (r->of.step - rest) % r->of.step, beyond = 1;
    for (int i = at; i < WHOLE + r->of.places && beyond <= missing; i++) {
        beyond *= 10;
    }
    return missing < beyond;
}

/* Any digits from `at` on that make the remainder 0, as a rule; NULL: there are none. All schemas share these rules, so there
 * are as many as remainders that can be reached and mended, for each place. */
static const expr *dividing(const span *r, int at, int64_t rest) {
    schema *s = r->s;
    int     last = WHOLE + r->of.places;
    struct {
        int64_t step, rest;
        int32_t places, at;
    } key = {r->of.step, rest, r->of.places, at};
    const expr *item[11];
    int64_t     rule;
    int         n = 0;
    if (!may_divide(r, at, rest) || s->r->failed) {
        return NULL;
    }
    if (map_get(s->rule_of, &key, sizeof(key), &rule)) {
        return expr_rule(s->r, (int)rule);
    }
    rule = rules_add(s->r, "a multiple");
    if (rule < 0 || !map_put(s->rule_of, &key, sizeof(key), rule)) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    if (at >= WHOLE && rest == 0) {
        item[n++] = schema_word(s, "");
    }
    for (int d = 0; at < last && d <= 9; d++) {
        const expr *more = dividing(r, at + 1, remainder_with(r, at, rest, d));
        if (more) {
            const expr *x = expr_pair(s->r, expr_range(s->r, '0' + d, '0' + d), more);
            item[n++] = at == WHOLE ? expr_pair(s->r, schema_word(s, "."), x) : x;
        }
    }
    const expr *body = s->r->failed ? NULL : expr_alt(s->r, item, n);
    if (!s->r->failed) {
        s->r->rule[rule].body = body;
    }
    return s->r->failed ? NULL : expr_rule(s->r, (int)rule);
}

/* Whether the number may stop before digit `at`, from where on it would be all zeros. */
static bool may_stop(const span *r, int at, bool on_lo, bool on_hi) {
    bool above = !on_lo || (rest_is_zero(&r->lo, at) && r->lo.inclusive);
    bool below = !on_hi || !rest_is_zero(&r->hi, at) || r->hi.inclusive;
    return above && below;
}

/* Any digits from `at` on. */
static const expr *any_digits(const span *r, int at) {
    schema     *s = r->s;
    const expr *point = r->of.places ? expr_pair(s->r, schema_word(s, "."), digits(s, 1, r->of.places)) : NULL;
    if (at > WHOLE) {
        return digits(s, 0, WHOLE + r->of.places - at);
    }
    const expr *whole = digits(s, WHOLE - at, WHOLE - at);
    return point ? expr_pair(s->r, whole, expr_optional(s->r, point)) : whole;
}

/* Digits from `at` on; NULL: there is no way to go on. `on_lo`, `on_hi`: all digits so far were those of the bound. `rest`:
 * the remainder of those so far. */
static const expr *between(const span *r, int at, bool on_lo, bool on_hi, int64_t rest) {
    schema     *s = r->s;
    const expr *item[12];
    int         n = 0, last = WHOLE + r->of.places;
    if (!on_lo && !on_hi) {
        return r->of.step > 1 ? dividing(r, at, rest) : any_digits(r, at);
    }
    if (at >= WHOLE && rest == 0 && may_stop(r, at, on_lo, on_hi)) {
        item[n++] = schema_word(s, "");
    }
    int least = on_lo ? r->lo.digit[at < last ? at : 0] : '0', most = on_hi ? r->hi.digit[at < last ? at : 0] : '9';
    if (at == r->begin && at < WHOLE - 1 && least == '0') {
        least = '1'; /* the first of several digits */
    }
    for (int d = least; at < last && d <= most;) {
        bool low = on_lo && d == r->lo.digit[at], high = on_hi && d == r->hi.digit[at];
        int  to = d;
        while (r->of.step == 1 && !low && !high && to < most - (on_hi ? 1 : 0)) {
            to++; /* those that go on alike */
        }
        const expr *more = between(r, at + 1, low, high, remainder_with(r, at, rest, d - '0'));
        if (more) {
            const expr *x = expr_pair(s->r, expr_range(s->r, d, to), more);
            item[n++] = at == WHOLE ? expr_pair(s->r, schema_word(s, "."), x) : x;
        }
        d = to + 1;
    }
    return n == 0 || s->r->failed ? NULL : expr_alt(s->r, item, n);
}

static int compare(const bound *a, const bound *b) {
    return memcmp(a->digit, b->digit, WHOLE + FRACTION);
}

/* All magnitudes from lo to hi; NULL when there is none. */
static const expr *magnitudes(schema *s, bound lo, bound hi, multiple of) {
    const expr *item[WHOLE];
    int         n = 0;
    if (compare(&lo, &hi) > 0) {
        return NULL;
    }
    for (int begin = WHOLE - 1; begin >= 0; begin--) {
        span r = {s, lo, hi, begin, of};
        bool lo_longer = false, hi_longer = false;
        for (int i = 0; i < begin; i++) {
            lo_longer = lo_longer || lo.digit[i] != '0';
            hi_longer = hi_longer || hi.digit[i] != '0';
        }
        if (lo_longer) {
            continue; /* too small with so few digits */
        }
        const expr *x = between(&r, begin, true, !hi_longer, 0);
        if (x) {
            item[n++] = x;
        }
    }
    return n == 0 || s->r->failed ? NULL : expr_alt(s->r, item, n);
}

/* The digits of a magnitude below BEYOND, if it has no more than FRACTION after the point. */
static bool to_digits(schema *s, double value, bool inclusive, bound *out) {
    char text[64];
    for (int places = 0; places <= FRACTION; places++) {
        snprintf(text, sizeof(text), "%0*.*f", WHOLE + (places ? places + 1 : 0), places, value);
        if (strtod(text, NULL) == value) {
            break;
        }
        if (places == FRACTION) {
            schema_wrong(s, ERR_UNSUPPORTED, "the bound %.17g has more than %d digits after the point", value,
                         FRACTION);
            return false;
        }
    }
    memset(out->digit, '0', sizeof(out->digit));
    memcpy(out->digit, text, WHOLE);
    if (text[WHOLE] == '.') {
        memcpy(out->digit + WHOLE, text + WHOLE + 1, strlen(text + WHOLE + 1));
    }
    out->inclusive = inclusive;
    return true;
}

typedef struct limits {
    double lo, hi;
    bool   lo_in, hi_in; /* inclusive */
    bool   any;          /* there are bounds */
} limits;

static bool read_limit(schema *s, const cJSON *node, const char *key, double *out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(node, key);
    if (v && !cJSON_IsNumber(v)) {
        schema_wrong(s, ERR_INVALID, "%s must be a number", key);
    }
    if (v && !s->r->failed) {
        *out = v->valuedouble;
    }
    return v && !s->r->failed;
}

static limits read_limits(schema *s, const cJSON *node) {
    limits l = {-BEYOND, BEYOND, false, false, false};
    double v = 0;
    if (read_limit(s, node, "minimum", &v)) {
        l.any = true;
        l.lo_in = v > l.lo || l.lo_in;
        l.lo = v > l.lo ? v : l.lo;
    }
    if (read_limit(s, node, "exclusiveMinimum", &v)) {
        l.any = true;
        l.lo_in = l.lo_in && v < l.lo;
        l.lo = v > l.lo ? v : l.lo;
    }
    if (read_limit(s, node, "maximum", &v)) {
        l.any = true;
        l.hi_in = v < l.hi || l.hi_in;
        l.hi = v < l.hi ? v : l.hi;
    }
    if (read_limit(s, node, "exclusiveMaximum", &v)) {
        l.any = true;
        l.hi_in = l.hi_in && v > l.hi;
        l.hi = v < l.hi ? v : l.hi;
    }
    return l;
}

/* Below zero the magnitude runs the other way. Zero is written without a sign. */
static const expr *bounded(schema *s, limits l, multiple of) {
    const expr *item[2];
    int         n = 0;
    bound       lo, hi;
    if (l.lo >= BEYOND || l.hi <= -BEYOND || l.lo > l.hi) {
        schema_wrong(s, ERR_UNSUPPORTED, "no number of at most %d digits lies within the bounds", WHOLE);
        return NULL;
    }
    double most = nextafter(BEYOND, 0); /* its digits are 999999999999999.875 */
    if (l.hi >= 0 && to_digits(s, l.lo > 0 ? l.lo : 0, l.lo < 0 || l.lo_in, &lo) &&
        to_digits(s, l.hi < BEYOND ? l.hi : most, l.hi_in, &hi)) {
        item[n] = magnitudes(s, lo, hi, of);
        n += item[n] != NULL;
    }
    if (!s->r->failed && l.lo < 0 && to_digits(s, l.hi < 0 ? -l.hi : 0, l.hi < 0 && l.hi_in, &lo) &&
        to_digits(s, l.lo > -BEYOND ? -l.lo : most, l.lo_in, &hi)) {
        const expr *x = magnitudes(s, lo, hi, of);
        if (x) {
            item[n++] = expr_pair(s->r, schema_word(s, "-"), x);
        }
    }
    if (n == 0 && !s->r->failed) {
        schema_wrong(s, ERR_INVALID, "no number lies within the bounds");
    }
    return s->r->failed ? NULL : schema_apart(s, "a number within bounds", expr_alt(s->r, item, n));
}

static const expr *plain(schema *s, bool integer) {
    const expr *sign = expr_optional(s->r, schema_word(s, "-"));
    const expr *several = expr_pair(s->r, expr_range(s->r, '1', '9'), digits(s, 0, 17));
    const expr *zero = schema_word(s, "0");
    if (integer) {
        const expr *both[] = {zero, expr_pair(s->r, sign, several)};
        return expr_alt(s->r, both, 2);
    }
    const expr *whole[] = {zero, several};
    const expr *signs =
        expr_optional(s->r, expr_alt(s->r, (const expr *[]){schema_word(s, "+"), schema_word(s, "-")}, 2));
    const expr *mark = expr_alt(s->r, (const expr *[]){schema_word(s, "e"), schema_word(s, "E")}, 2);
    const expr *power[] = {mark, signs, digits(s, 1, 2)};
    const expr *all[] = {sign, expr_alt(s->r, whole, 2),
                         expr_optional(s->r, expr_pair(s->r, schema_word(s, "."), digits(s, 1, 17))),
                         expr_optional(s->r, expr_seq(s->r, power, 3))};
    return expr_seq(s->r, all, 4);
}

/* ---- multipleOf ---- */

#define MOST_STEP   64 /* times a power of ten */
#define MOST_TENS   6
#define MOST_PLACES 9

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The value as a whole number over a power of ten, the way it is written; false when that takes too many digits. */
static bool as_fraction(double value, multiple *out) {
    int64_t tens = 1;
    for (int places = 0; places <= MOST_PLACES; places++, tens *= 10) {
        double step = nearbyint(value * (double)tens);
        if (step >= 1 && step <= MOST_STEP * 1e6 && step / (double)tens == value) {
            *out = (multiple){(int64_t)step, places};
            return true;
        }
    }
    return false;
}

/* What the digits of a number have to be: any, or multiples. */
static multiple multiples(schema *s, const cJSON *node, bool integer) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(node, "multipleOf");
    multiple     of = {1, integer ? 0 : FRACTION};
    if (!v) {
        return of;
    }
    if (!cJSON_IsNumber(v) || !(v->valuedouble > 0)) {
        schema_wrong(s, ERR_INVALID, "multipleOf must be a number above 0");
        return of;
    }
    bool    ok = as_fraction(v->valuedouble, &of);
    int64_t least = of.step, tens = 1;
    for (int i = 0; i < MOST_TENS && least % 10 == 0; i++) {
        least /= 10;
    }
    if (!ok || least > MOST_STEP) {
        schema_wrong(
            s, ERR_UNSUPPORTED,
            "multipleOf %.17g is not supported, but whole numbers to %d, with zeros behind them or divided by a "
            "power of ten",
            v->valuedouble, MOST_STEP);
    }
    if (integer) { /* whole multiples of 5/2 are those of 5 */
        for (; of.places > 0; of.places--) {
            tens *= 10;
        }
        of.step /= common_divisor(of.step, tens);
    }
    return of;
}

const expr *schema_number(schema *s, const cJSON *node, bool integer) {
    limits   l = read_limits(s, node);
    multiple of = multiples(s, node, integer);
    if (s->r->failed) {
        return NULL;
    }
    integer = of.places == 0;
    if (l.any || of.step > 1 || of.places % FRACTION != 0) {
        return bounded(s, l, of);
    }
    int *shared = integer ? &s->integer : &s->number;
    if (*shared < 0 && (*shared = rules_add(s->r, integer ? "an integer" : "a number")) >= 0) {
        s->r->rule[*shared].body = plain(s, integer);
        s->r->rule[*shared].apart = true;
    }
    return expr_rule(s->r, *shared);
}
