/* Operators on values: Python's arithmetic, within 64-bit integers.
 *
 * __builtin_*_overflow are gcc's and clang's: C17 has no arithmetic that tells of an overflow (C23 has).             */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

static bool wrong_types(render *r, const char *op, value a, value b) {
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) {
        const text *name = a.kind == V_UNDEFINED ? a.as.missing : b.as.missing;
        return jinja_fail(r, ERR_INVALID, "'%.*s' is undefined, so '%s' has nothing to work with",
                          !name          ? 5
                          : name->n > 80 ? 80
                                         : (int)name->n,
                          name ? name->bytes : "value", op);
    }
    return jinja_fail(r, ERR_INVALID, "'%s' does not work between '%s' and '%s'", op, jinja_type_name(a),
                      jinja_type_name(b));
}

static bool overflow(render *r) {
    return jinja_fail(r, ERR_LIMIT, "an integer leaves 64 bits");
}

/* ---- sums ---- */

/* Text beside markup is escaped, as markupsafe does it. */
static bool add_texts(render *r, const text *a, const text *b, value *out) {
    size_t mark = r->out->len;
    bool   markup = a->markup || b->markup;
    bool   ok = (markup && !a->markup ? jinja_emit_escaped(r, a) : jinja_emit(r, a->bytes, a->n)) &&
              (markup && !b->markup ? jinja_emit_escaped(r, b) : jinja_emit(r, b->bytes, b->n)) &&
              jinja_take(r, mark, out);
    if (ok) {
        out->as.string->markup = markup;
    }
    return ok;
}

static bool add_lists(render *r, value a, value b, value *out) {
    size_t n = a.as.list->n;
    list  *l = jinja_list(r, n + b.as.list->n);
    if (!l) {
        return false;
    }
    if (n) {
        memcpy(l->items, a.as.list->items, n * sizeof(value));
    }
    if (b.as.list->n) {
        memcpy(l->items + n, b.as.list->items, b.as.list->n * sizeof(value));
    }
    *out = value_list((value_kind)a.kind, l);
    return true;
}

bool jinja_add(render *r, value a, value b, value *out) {
    if (a.kind == V_STRING && b.kind == V_STRING) {
        return add_texts(r, a.as.string, b.as.string, out);
    }
    if ((a.kind == V_LIST || a.kind == V_TUPLE) && a.kind == b.kind) {
        return add_lists(r, a, b, out);
    }
    if (value_is_integral(a) && value_is_integral(b)) {
        int64_t sum;
        if (__builtin_add_overflow(value_integer(a), value_integer(b), &sum)) {
            return overflow(r);
        }
        *out = value_int(sum);
        return true;
    }
    if (value_is_number(a) && value_is_number(b)) {
        *out = value_float(value_double(a) + value_double(b));
        return true;
    }
    return wrong_types(r, "+", a, b);
}

/* ---- products ---- */

static bool repeat(render *r, value v, int64_t times, value *out) {
    size_t n = v.kind == V_STRING ? v.as.string->n : v.as.list->n;
    size_t total;
    if (times < 0) {
        times = 0;
    }
    if (__builtin_mul_overflow(n, (size_t)times, &total) || total > TEMPLATE_MAX_MEMORY) {
        return jinja_fail(r, ERR_LIMIT, "a repetition needs more than %zu MiB", TEMPLATE_MAX_MEMORY >> 20);
    }
    if (v.kind != V_STRING) {
        list *l = jinja_list(r, total);
        for (size_t i = 0; l && i < total; i++) {
            l->items[i] = v.as.list->items[i % n];
        }
        if (l) {
            *out = value_list((value_kind)v.kind, l);
        }
        return l != NULL;
    }
    char *bytes = jinja_alloc(r, total, 1);
    if (!bytes || !jinja_spend(r, total)) {
        return false;
    }
    for (size_t at = 0; n && at < total; at += n) {
        memcpy(bytes + at, v.as.string->bytes, n);
    }
    return jinja_text_share(r, bytes, total, v.as.string->markup, out);
}

static bool multiply(render *r, value a, value b, value *out) {
    if (value_is_integral(b) && (a.kind == V_STRING || a.kind == V_LIST || a.kind == V_TUPLE)) {
        return repeat(r, a, value_integer(b), out);
    }
    if (value_is_integral(a) && (b.kind == V_STRING || b.kind == V_LIST || b.kind == V_TUPLE)) {
        return repeat(r, b, value_integer(a), out);
    }
    if (value_is_integral(a) && value_is_integral(b)) {
        int64_t product;
        if (__builtin_mul_overflow(value_integer(a), value_integer(b), &product)) {
            return overflow(r);
        }
        *out = value_int(product);
        return true;
    }
    if (value_is_number(a) && value_is_number(b)) {
        *out = value_float(value_double(a) * value_double(b));
        return true;
    }
    return wrong_types(r, "*", a, b);
}

/* Python rounds quotients down, so that a remainder has the sign of the divisor. */
static bool divide_whole(render *r, operator_kind op, int64_t a, int64_t b, value *out) {
    if (b == -1) { /* INT64_MIN / -1 overflows */
        return op == OP_MOD ? (*out = value_int(0), true) : jinja_binary(r, OP_SUB, value_int(0), value_int(a), out);
    }
    int64_t quotient = a / b;
    int64_t rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    *out = value_int(op == OP_MOD ? rest : quotient);
    return true;
}

static bool divide(render *r, operator_kind op, value a, value b, value *out) {
    static const char *const signs[] = {[OP_DIV] = "/", [OP_FLOORDIV] = "//", [OP_MOD] = "%"};
    if (!value_is_number(a) || !value_is_number(b)) {
        return wrong_types(r, signs[op], a, b);
    }
    double x = value_double(a);
    double y = value_double(b);
    if (y == 0) {
        return jinja_fail(r, ERR_INVALID, "division by zero");
    }
    if (op == OP_DIV) {
        *out = value_float(x / y);
        return true;
    }
    if (value_is_integral(a) && value_is_integral(b)) {
        return divide_whole(r, op, value_integer(a), value_integer(b), out);
    }
    double rest = fmod(x, y);
    if (rest != 0 && (rest < 0) != (y < 0)) {
        rest += y;
    }
    *out = value_float(op == OP_MOD ? rest : floor((x - rest) / y + 0.5));
    return true;
}

static bool power(render *r, value a, value b, value *out) {
    if (!value_is_number(a) || !value_is_number(b)) {
        return wrong_types(r, "**", a, b);
    }
    if (!value_is_integral(a) || !value_is_integral(b) || value_integer(b) < 0) {
        if (value_double(a) == 0 && value_double(b) < 0) {
            return jinja_fail(r, ERR_INVALID, "division by zero");
        }
        *out = value_float(pow(value_double(a), value_double(b)));
        return true;
    }
    int64_t base = value_integer(a);
    int64_t exponent = value_integer(b);
    int64_t result = 1;
    while (exponent > 0) { /* by squaring; the last square may overflow unused */
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) {
            return overflow(r);
        }
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
            return overflow(r);
        }
    }
    *out = value_int(result);
    return true;
}

static bool subtract(render *r, value a, value b, value *out) {
    if (value_is_integral(a) && value_is_integral(b)) {
        int64_t difference;
        if (__builtin_sub_overflow(value_integer(a), value_integer(b), &difference)) {
            return overflow(r);
        }
        *out = value_int(difference);
        return true;
    }
    if (value_is_number(a) && value_is_number(b)) {
        *out = value_float(value_double(a) - value_double(b));
        return true;
    }
    return wrong_types(r, "-", a, b);
}

bool jinja_binary(render *r, operator_kind op, value a, value b, value *out) {
    bool truth = false;
    int  order = 0;
    switch (op) {
    case OP_SUB:
        return subtract(r, a, b, out);
    case OP_MUL:
        return multiply(r, a, b, out);
    case OP_MOD:
        if (a.kind == V_STRING) {
            return jinja_format_percent(r, a, b, out);
        }
        return divide(r, op, a, b, out);
    case OP_DIV:
    case OP_FLOORDIV:
        return divide(r, op, a, b, out);
    case OP_POW:
        return power(r, a, b, out);
    case OP_EQ:
    case OP_NE:
        if (!jinja_equal(r, a, b, &truth)) {
            return false;
        }
        *out = value_bool(truth == (op == OP_EQ));
        return true;
    case OP_IN:
    case OP_NOT_IN:
        if (!jinja_contains(r, b, a, &truth)) {
            return false;
        }
        *out = value_bool(truth == (op == OP_IN));
        return true;
    default:
        if (!jinja_compare(r, a, b, &order)) {
            return false;
        }
        *out = value_bool(order != 2 && (op == OP_LT   ? order < 0
                                         : op == OP_LE ? order <= 0
                                         : op == OP_GT ? order > 0
                                                       : order >= 0));
        return true;
    }
}

/* ---- slices ---- */

static bool slice_bound(value v, int64_t otherwise, int64_t n, int64_t low, int64_t high, int64_t *out) {
    if (v.kind == V_NONE) {
        *out = otherwise;
        return true;
    }
    if (!value_is_integral(v)) {
        return false;
    }
    int64_t at = value_integer(v);
    if (at < 0 && __builtin_add_overflow(at, n, &at)) {
        at = low;
    }
    *out = at < low ? low : at > high ? high : at;
    return true;
}

static bool slice_text(render *r, const text *t, int64_t from, int64_t step, int64_t count, value *out) {
    if (!jinja_spend(r, t->n)) {
        return false;
    }
    if (step == 1 || count == 0) {
        size_t start = count ? jinja_offset(t, from) : 0;
        size_t end = count ? jinja_offset(t, from + count) : 0;
        return jinja_text_share(r, t->bytes + start, end - start, t->markup, out);
    }
    int64_t   n = jinja_chars(t);
    uint32_t *offsets = jinja_alloc(r, (size_t)n, sizeof(*offsets));
    size_t    mark = r->out->len;
    if (!offsets || t->n > UINT32_MAX) {
        return offsets != NULL && jinja_fail(r, ERR_LIMIT, "a string of more than 4 GiB");
    }
    for (size_t i = 0, at = 0; i < (size_t)n; i++) {
        offsets[i] = (uint32_t)at;
        at += jinja_char(t->bytes + at, t->n - at);
    }
    for (int64_t i = 0; i < count; i++) {
        size_t at = offsets[from + i * step];
        if (!jinja_emit(r, t->bytes + at, jinja_char(t->bytes + at, t->n - at))) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

bool jinja_slice(render *r, value of, const value bounds[3], value *out) {
    int64_t n;
    int64_t step = 1;
    int64_t from;
    int64_t to;
    if (of.kind != V_STRING && of.kind != V_LIST && of.kind != V_TUPLE && of.kind != V_RANGE) {
        return jinja_fail(r, ERR_INVALID, "'%s' object cannot be sliced", jinja_type_name(of));
    }
    if (!jinja_length(r, of, &n)) {
        return false;
    }
    if (value_is_integral(bounds[2])) {
        step = value_integer(bounds[2]);
    }
    if (step == 0) {
        return jinja_fail(r, ERR_INVALID, "the step of a slice cannot be zero");
    }
    int64_t low = step < 0 ? -1 : 0;
    int64_t high = step < 0 ? n - 1 : n;
    if ((bounds[2].kind != V_NONE && !value_is_integral(bounds[2])) ||
        !slice_bound(bounds[0], step < 0 ? high : low, n, low, high, &from) ||
        !slice_bound(bounds[1], step < 0 ? low : high, n, low, high, &to)) {
        return jinja_fail(r, ERR_INVALID, "the bounds of a slice must be integers");
    }
    uint64_t span = step > 0 ? (to > from ? (uint64_t)(to - from) : 0) : (from > to ? (uint64_t)(from - to) : 0);
    uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step;
    int64_t  count = (int64_t)((span + stride - 1 < span ? UINT64_MAX : span + stride - 1) / stride);
    if (of.kind == V_STRING) {
        return slice_text(r, of.as.string, from, count > 1 ? step : 1, count, out);
    }
    list *l = jinja_list(r, (size_t)count);
    for (int64_t i = 0; l && i < count; i++) {
        l->items[i] = of.as.list->items[from + i * step];
    }
    if (l) {
        *out = value_list(of.kind == V_TUPLE ? V_TUPLE : V_LIST, l);
    }
    return l != NULL;
}

/* ---- "%s" % values ---- */

typedef struct directive {
    char flags[8];
    int  width;
    int  precision; /* -1: none */
    char type;
    bool by_name;
    text name;
} directive;

static bool read_number(const text *f, size_t *i, int *out) {
    int n = 0;
    for (; *i < f->n && f->bytes[*i] >= '0' && f->bytes[*i] <= '9'; (*i)++) {
        n = n * 10 + (f->bytes[*i] - '0');
        if (n > 9999) { /* a wider field is an attack on memory */
            return false;
        }
    }
    *out = n;
    return true;
}

/* At the character behind "%". */
static bool read_directive(const text *f, size_t *i, directive *d) {
    *d = (directive){.precision = -1};
    if (*i < f->n && f->bytes[*i] == '(') {
        const char *end = memchr(f->bytes + *i, ')', f->n - *i);
        if (!end) {
            return false;
        }
        d->by_name = true;
        d->name = (text){.bytes = f->bytes + *i + 1, .n = (size_t)(end - f->bytes) - *i - 1, .chars = -1};
        *i = (size_t)(end - f->bytes) + 1;
    }
    for (size_t k = 0; *i < f->n && f->bytes[*i] && strchr("-+ #0", f->bytes[*i]); (*i)++) {
        if (k + 1 == sizeof(d->flags)) {
            return false;
        }
        d->flags[k++] = f->bytes[*i];
    }
    if (!read_number(f, i, &d->width)) {
        return false;
    }
    if (*i < f->n && f->bytes[*i] == '.') {
        (*i)++;
        if (!read_number(f, i, &d->precision)) {
            return false;
        }
    }
    d->type = *i < f->n ? f->bytes[(*i)++] : 0;
    return d->type && strchr("sridufFeEgGxXoc%", d->type);
}

static bool pad(render *r, int n) {
    for (; n > 0; n--) {
        if (!jinja_emit(r, " ", 1)) {
            return false;
        }
    }
    return true;
}

static bool emit_text_field(render *r, const directive *d, value v) {
    size_t mark = r->out->len;
    value  s = {0};
    if (!(d->type == 'r' ? jinja_repr(r, v) : jinja_print(r, v)) || !jinja_take(r, mark, &s)) {
        return false;
    }
    text   *t = s.as.string;
    int64_t chars = jinja_chars(t);
    if (d->precision >= 0 && chars > d->precision) {
        t->n = jinja_offset(t, d->precision);
        chars = d->precision;
    }
    int  missing = chars < d->width ? d->width - (int)chars : 0;
    bool left = strchr(d->flags, '-') != NULL;
    return pad(r, left ? 0 : missing) && jinja_emit(r, t->bytes, t->n) && pad(r, left ? missing : 0);
}

static bool emit_number_field(render *r, const directive *d, value v) {
    char format[64];
    char buffer[512];
    bool whole = strchr("diuxXo", d->type) != NULL;
    if (!value_is_number(v) || d->width > 400 || d->precision > 60) {
        return jinja_fail(r, ERR_INVALID, "%%%c format: a number is required, not %s", d->type, jinja_type_name(v));
    }
    char precision[16] = "";
    if (d->precision >= 0) {
        snprintf(precision, sizeof(precision), ".%d", d->precision);
    }
    char width[16] = "";
    if (d->width) {
        snprintf(width, sizeof(width), "%d", d->width);
    }
    snprintf(format, sizeof(format), "%%%s%s%s%s%c", d->flags, width, precision, whole ? "ll" : "",
             d->type == 'u' ? 'd' : d->type);
    int n;
    if (whole) {
        double f = value_double(v);
        if (v.kind == V_FLOAT && !(f > -9e18 && f < 9e18)) {
            return overflow(r);
        }
        n = snprintf(buffer, sizeof(buffer), format, (long long)(v.kind == V_FLOAT ? (int64_t)f : value_integer(v)));
    } else {
        n = snprintf(buffer, sizeof(buffer), format, value_double(v));
    }
    return jinja_emit(r, buffer, n < (int)sizeof(buffer) ? (size_t)n : sizeof(buffer) - 1);
}

bool jinja_format_percent(render *r, value format, value with, value *out) {
    const text *f = format.as.string;
    size_t      mark = r->out->len;
    size_t      used = 0;
    bool        tuple = with.kind == V_TUPLE;
    size_t      from = 0;
    for (size_t i = 0; i < f->n;) {
        if (f->bytes[i] != '%') {
            i++;
            continue;
        }
        directive d;
        if (!jinja_emit(r, f->bytes + from, i - from)) {
            return false;
        }
        i++;
        if (!read_directive(f, &i, &d)) {
            return jinja_fail(r, ERR_INVALID, "a format that %% does not know");
        }
        from = i;
        value v = with;
        bool  found = true;
        if (d.type == '%') {
            if (!jinja_emit(r, "%", 1)) {
                return false;
            }
            continue;
        }
        if (d.by_name) {
            found = with.kind == V_DICT;
            if (found && !jinja_dict_get(r, with.as.dict, value_string(&d.name), &v, &found)) {
                return false;
            }
        } else {
            found = tuple ? used < with.as.list->n : used == 0;
            v = tuple && found ? with.as.list->items[used] : with;
            used++;
        }
        if (!found) {
            return jinja_fail(r, ERR_INVALID, "not enough values for the format");
        }
        if (!(strchr("src", d.type) ? emit_text_field(r, &d, v) : emit_number_field(r, &d, v))) {
            return false;
        }
    }
    bool container = with.kind == V_DICT || with.kind == V_LIST || with.kind == V_UNDEFINED; /* Python: may go unused */
    if (tuple ? used < with.as.list->n : used == 0 && !container) {
        return jinja_fail(r, ERR_INVALID, "more values than the format takes");
    }
    return jinja_emit(r, f->bytes + from, f->n - from) && jinja_take(r, mark, out);
}
