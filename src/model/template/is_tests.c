/* What follows `is`. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/template/render.h"
#include "model/template/text.h"

/* Most tests look at the kind alone. */
#define KIND_TEST(name, condition)                                                                                     \
    static bool name(render *r, value v, const args *a, value *out) {                                                  \
        (void)r;                                                                                                       \
        (void)a;                                                                                                       \
        *out = value_bool(condition);                                                                                  \
        return true;                                                                                                   \
    }

KIND_TEST(is_defined, v.kind != V_UNDEFINED)
KIND_TEST(is_undefined, v.kind == V_UNDEFINED)
KIND_TEST(is_none, v.kind == V_NONE)
KIND_TEST(is_string, v.kind == V_STRING)
KIND_TEST(is_mapping, v.kind == V_DICT)
KIND_TEST(is_iterable,
          v.kind == V_UNDEFINED || v.kind == V_STRING || v.kind == V_DICT || v.kind == V_LOOP || value_is_listy(v))
KIND_TEST(is_sequence, v.kind == V_UNDEFINED || v.kind == V_STRING || v.kind == V_DICT || v.kind == V_LIST ||
                           v.kind == V_TUPLE || v.kind == V_RANGE)
KIND_TEST(is_number, value_is_number(v))
KIND_TEST(is_integer, v.kind == V_INT)
KIND_TEST(is_float, v.kind == V_FLOAT)
KIND_TEST(is_boolean, v.kind == V_BOOL)
KIND_TEST(is_true, v.kind == V_BOOL && v.as.truth)
KIND_TEST(is_false, v.kind == V_BOOL && !v.as.truth)
KIND_TEST(is_callable, v.kind >= V_LOOP || v.kind == V_UNDEFINED)
KIND_TEST(is_escaped, v.kind == V_STRING && v.as.string->markup)

static bool operand(render *r, const args *a, value *out) {
    return jinja_arg(a, 0, NULL, out) || jinja_fail(r, ERR_INVALID, "this test needs something to compare with");
}

static bool compared(render *r, operator_kind op, value v, const args *a, value *out) {
    value with = {0};
    return operand(r, a, &with) && jinja_binary(r, op, v, with, out);
}

#define COMPARE_TEST(name, op)                                                                                         \
    static bool name(render *r, value v, const args *a, value *out) {                                                  \
        return compared(r, op, v, a, out);                                                                             \
    }

COMPARE_TEST(is_eq, OP_EQ)
COMPARE_TEST(is_ne, OP_NE)
COMPARE_TEST(is_lt, OP_LT)
COMPARE_TEST(is_le, OP_LE)
COMPARE_TEST(is_gt, OP_GT)
COMPARE_TEST(is_ge, OP_GE)
COMPARE_TEST(is_in, OP_IN)

static bool is_sameas(render *r, value v, const args *a, value *out) {
    value with = {0};
    if (!operand(r, a, &with)) {
        return false;
    }
    bool simple = v.kind < V_STRING;
    bool same = v.kind == with.kind;
    if (same && simple) {
        return jinja_binary(r, OP_EQ, v, with, out);
    }
    *out = value_bool(same && v.as.list == with.as.list);
    return true;
}

static bool divisible(render *r, value v, value by, value expected, value *out) {
    value rest = {0};
    return jinja_binary(r, OP_MOD, v, by, &rest) && jinja_binary(r, OP_EQ, rest, expected, out);
}

static bool is_even(render *r, value v, const args *a, value *out) {
    (void)a;
    return divisible(r, v, value_int(2), value_int(0), out);
}

static bool is_odd(render *r, value v, const args *a, value *out) {
    (void)a;
    return divisible(r, v, value_int(2), value_int(1), out);
}

static bool is_divisibleby(render *r, value v, const args *a, value *out) {
    value by = {0};
    return operand(r, a, &by) && divisible(r, v, by, value_int(0), out);
}

/* str.islower, str.isupper: there is a letter with a case, and none with the other one. */
static bool cased(render *r, value v, bool upper, value *out) {
    value s = {0};
    if (!jinja_string(r, v, &s) || !jinja_spend(r, s.as.string->n)) {
        return false;
    }
    const text *t = s.as.string;
    bool        right = false;
    bool        wrong = false;
    for (size_t i = 0; i < t->n;) {
        uint32_t cp;
        i += utf8_decode(t->bytes + i, t->n - i, &cp);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)cp);
        bool                is_upper = category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT;
        right |= upper ? is_upper : category == UTF8PROC_CATEGORY_LL;
        wrong |= upper ? category == UTF8PROC_CATEGORY_LL : is_upper;
    }
    *out = value_bool(right && !wrong);
    return true;
}

static bool is_lower(render *r, value v, const args *a, value *out) {
    (void)a;
    return cased(r, v, false, out);
}

static bool is_upper(render *r, value v, const args *a, value *out) {
    (void)a;
    return cased(r, v, true, out);
}

static bool is_filter(render *r, value v, const args *a, value *out) {
    (void)r;
    (void)a;
    *out = value_bool(v.kind == V_STRING && jinja_filter(v.as.string->bytes, v.as.string->n));
    return true;
}

static bool is_test(render *r, value v, const args *a, value *out) {
    (void)r;
    (void)a;
    *out = value_bool(v.kind == V_STRING && jinja_test(v.as.string->bytes, v.as.string->n));
    return true;
}

static const builtin tests[] = {
    {"defined", is_defined},
    {"undefined", is_undefined},
    {"none", is_none},
    {"string", is_string},
    {"mapping", is_mapping},
    {"iterable", is_iterable},
    {"sequence", is_sequence},
    {"number", is_number},
    {"integer", is_integer},
    {"float", is_float},
    {"boolean", is_boolean},
    {"true", is_true},
    {"false", is_false},
    {"callable", is_callable},
    {"escaped", is_escaped},
    {"eq", is_eq},
    {"equalto", is_eq},
    {"==", is_eq},
    {"ne", is_ne},
    {"!=", is_ne},
    {"lt", is_lt},
    {"lessthan", is_lt},
    {"<", is_lt},
    {"le", is_le},
    {"<=", is_le},
    {"gt", is_gt},
    {"greaterthan", is_gt},
    {">", is_gt},
    {"ge", is_ge},
    {">=", is_ge},
    {"in", is_in},
    {"sameas", is_sameas},
    {"even", is_even},
    {"odd", is_odd},
    {"divisibleby", is_divisibleby},
    {"lower", is_lower},
    {"upper", is_upper},
    {"filter", is_filter},
    {"test", is_test},
};

const builtin *jinja_test(const char *name, size_t n) {
    return jinja_find(tests, sizeof(tests) / sizeof(tests[0]), name, n);
}
