/* The methods of strings, as Python's str has them. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/template/render.h"
#include "model/template/text.h"

/* ---- changing ---- */

static bool strip(render *r, value self, const args *a, bool left, bool right, value *out) {
    value chars = value_none();
    jinja_arg(a, 0, NULL, &chars);
    if (chars.kind != V_NONE && chars.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "strip: the characters must be a string, not a %s", jinja_type_name(chars));
    }
    return jinja_strip(r, self.as.string, chars.kind == V_STRING ? chars.as.string : NULL, left, right, out);
}

static bool str_strip(render *r, value self, const args *a, value *out) {
    return strip(r, self, a, true, true, out);
}

static bool str_lstrip(render *r, value self, const args *a, value *out) {
    return strip(r, self, a, true, false, out);
}

static bool str_rstrip(render *r, value self, const args *a, value *out) {
    return strip(r, self, a, false, true, out);
}

static bool by_filter(render *r, const char *name, value self, const args *a, value *out) {
    return jinja_text_filter(name, strlen(name))->run(r, self, a, out);
}

static bool str_upper(render *r, value self, const args *a, value *out) {
    return by_filter(r, "upper", self, a, out);
}

static bool str_lower(render *r, value self, const args *a, value *out) {
    return by_filter(r, "lower", self, a, out);
}

static bool str_capitalize(render *r, value self, const args *a, value *out) {
    return by_filter(r, "capitalize", self, a, out);
}

static bool is_letter(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

/* str.title, unlike the filter: a word begins behind everything that is no letter. */
static bool str_title(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    size_t      mark = r->out->len;
    bool        begins = true;
    (void)a;
    for (size_t i = 0; i < t->n;) {
        uint32_t cp;
        size_t   n = utf8_decode(t->bytes + i, t->n - i, &cp);
        if (!jinja_emit_case(r, t->bytes + i, n, begins ? CASE_TITLE : CASE_LOWER)) {
            return false;
        }
        begins = !is_letter(cp);
        i += n;
    }
    return jinja_take(r, mark, out);
}

static bool str_swapcase(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    size_t      mark = r->out->len;
    (void)a;
    for (size_t i = 0; i < t->n;) {
        uint32_t cp;
        size_t   n = utf8_decode(t->bytes + i, t->n - i, &cp);
        bool     upper = utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LU;
        if (!jinja_emit_case(r, t->bytes + i, n, upper ? CASE_LOWER : CASE_UPPER)) {
            return false;
        }
        i += n;
    }
    return jinja_take(r, mark, out);
}

static bool str_replace(render *r, value self, const args *a, value *out) {
    const text *old = NULL;
    const text *with = NULL;
    int64_t     count = -1;
    if (!jinja_arg_text(r, a, 0, NULL, &old) || !jinja_arg_text(r, a, 1, NULL, &with) ||
        !jinja_arg_int(r, a, 2, "count", &count)) {
        return false;
    }
    if (!old || !with) {
        return jinja_fail(r, ERR_INVALID, "replace needs two strings");
    }
    return jinja_replace(r, self.as.string, old, with, count, out);
}

static bool remove_affix(render *r, value self, const args *a, bool prefix, value *out) {
    const text *t = self.as.string;
    const text *affix = NULL;
    if (!jinja_arg_text(r, a, 0, NULL, &affix)) {
        return false;
    }
    *out = self;
    if (!affix || affix->n > t->n ||
        memcmp(prefix ? t->bytes : t->bytes + t->n - affix->n, affix->bytes, affix->n) != 0) {
        return affix || jinja_fail(r, ERR_INVALID, "removeprefix and removesuffix need a string");
    }
    return jinja_text_share(r, t->bytes + (prefix ? affix->n : 0), t->n - affix->n, t->markup, out);
}

static bool str_removeprefix(render *r, value self, const args *a, value *out) {
    return remove_affix(r, self, a, true, out);
}

static bool str_removesuffix(render *r, value self, const args *a, value *out) {
    return remove_affix(r, self, a, false, out);
}

/* ---- padding ---- */

static bool pad(render *r, value self, const args *a, int left_share, char otherwise, value *out) {
    const text *t = self.as.string;
    const text *with = NULL;
    int64_t     width = 0;
    int64_t     chars = jinja_chars(t);
    size_t      mark = r->out->len;
    if (!jinja_arg_int(r, a, 0, NULL, &width) || !jinja_arg_text(r, a, 1, NULL, &with)) {
        return false;
    }
    text own = {.bytes = &otherwise, .n = 1, .chars = 1};
    with = with ? with : &own;
    if (jinja_chars(with) != 1) {
        return jinja_fail(r, ERR_INVALID, "the fill character must be one character");
    }
    int64_t missing = width > chars ? width - chars : 0;
    int64_t left = left_share == 2 ? missing : left_share == 0 ? 0 : missing / 2 + (missing & width & 1);
    for (int64_t i = 0; i <= missing; i++) {
        if ((i == left && !jinja_emit(r, t->bytes, t->n)) || (i < missing && !jinja_emit(r, with->bytes, with->n))) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

static bool str_center(render *r, value self, const args *a, value *out) {
    return pad(r, self, a, 1, ' ', out);
}

static bool str_ljust(render *r, value self, const args *a, value *out) {
    return pad(r, self, a, 0, ' ', out);
}

static bool str_rjust(render *r, value self, const args *a, value *out) {
    return pad(r, self, a, 2, ' ', out);
}

static bool str_zfill(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    int64_t     width = 0;
    size_t      mark = r->out->len;
    bool        sign = t->n && (t->bytes[0] == '-' || t->bytes[0] == '+');
    if (!jinja_arg_int(r, a, 0, NULL, &width) || !jinja_emit(r, t->bytes, sign)) {
        return false;
    }
    for (int64_t chars = jinja_chars(t); chars < width; chars++) {
        if (!jinja_emit(r, "0", 1)) {
            return false;
        }
    }
    return jinja_emit(r, t->bytes + sign, t->n - sign) && jinja_take(r, mark, out);
}

/* ---- looking ---- */

/* The part of the string that optional start and end arguments (from place 1) choose, as byte offsets. */
static bool window(render *r, const text *t, const args *a, size_t *from, size_t *to) {
    int64_t chars = jinja_chars(t);
    int64_t bounds[2] = {0, chars};
    for (int i = 0; i < 2; i++) {
        value v = {0};
        if (!jinja_arg(a, 1 + i, NULL, &v) || v.kind == V_NONE) {
            continue;
        }
        if (!value_is_integral(v)) {
            return jinja_fail(r, ERR_INVALID, "start and end must be integers");
        }
        int64_t at = value_integer(v);
        at += at < 0 ? chars : 0;
        bounds[i] = at < 0 ? 0 : at > chars ? i ? chars : chars + 1 : at;
    }
    *from = bounds[0] > chars ? SIZE_MAX : jinja_offset(t, bounds[0]);
    *to = jinja_offset(t, bounds[1]);
    return jinja_spend(r, t->n);
}

static bool affixed(render *r, value self, const args *a, bool prefix, value *out) {
    const text *t = self.as.string;
    value       what = {0};
    size_t      from;
    size_t      to;
    if (!jinja_arg(a, 0, NULL, &what) || (what.kind != V_STRING && what.kind != V_TUPLE)) {
        return jinja_fail(r, ERR_INVALID, "startswith and endswith need a string or a tuple of strings");
    }
    if (a->n > 1 ? !window(r, t, a, &from, &to) : (from = 0, to = t->n, false)) {
        return false;
    }
    const value *all = what.kind == V_TUPLE ? what.as.list->items : &what;
    size_t       n = what.kind == V_TUPLE ? what.as.list->n : 1;
    bool         found = false;
    for (size_t i = 0; i < n && !found; i++) {
        if (all[i].kind != V_STRING) {
            return jinja_fail(r, ERR_INVALID, "startswith and endswith need strings, not a %s",
                              jinja_type_name(all[i]));
        }
        const text *x = all[i].as.string;
        found = from <= to && x->n <= to - from &&
                memcmp(prefix ? t->bytes + from : t->bytes + to - x->n, x->bytes, x->n) == 0;
    }
    *out = value_bool(found);
    return jinja_spend(r, n);
}

static bool str_startswith(render *r, value self, const args *a, value *out) {
    return affixed(r, self, a, true, out);
}

static bool str_endswith(render *r, value self, const args *a, value *out) {
    return affixed(r, self, a, false, out);
}

/* Byte offset of `what` in the window, the last one with `last`; SIZE_MAX when it is not there. */
static bool find(render *r, value self, const args *a, bool last, size_t *found) {
    const text *t = self.as.string;
    const text *what = NULL;
    size_t      from;
    size_t      to;
    *found = SIZE_MAX;
    if (!jinja_arg_text(r, a, 0, NULL, &what) || !window(r, t, a, &from, &to)) {
        return false;
    }
    if (!what) {
        return jinja_fail(r, ERR_INVALID, "find needs a string");
    }
    if (from > to || what->n > to - from) {
        return true;
    }
    text part = {.bytes = t->bytes, .n = to};
    if (last) {
        return jinja_rfind_bytes(r, t, what, from, to, found);
    }
    *found = jinja_find_bytes(&part, what, from);
    return true;
}

static bool find_char(render *r, value self, const args *a, bool last, bool required, value *out) {
    size_t at;
    if (!find(r, self, a, last, &at)) {
        return false;
    }
    if (at == SIZE_MAX) {
        *out = value_int(-1);
        return !required || jinja_fail(r, ERR_INVALID, "index: the text is not in the string");
    }
    text before = {.bytes = self.as.string->bytes, .n = at, .chars = -1};
    *out = value_int(jinja_chars(&before));
    return true;
}

static bool str_find(render *r, value self, const args *a, value *out) {
    return find_char(r, self, a, false, false, out);
}

static bool str_rfind(render *r, value self, const args *a, value *out) {
    return find_char(r, self, a, true, false, out);
}

static bool str_index(render *r, value self, const args *a, value *out) {
    return find_char(r, self, a, false, true, out);
}

static bool str_rindex(render *r, value self, const args *a, value *out) {
    return find_char(r, self, a, true, true, out);
}

static bool str_count(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    const text *what = NULL;
    size_t      from;
    size_t      to;
    int64_t     n = 0;
    if (!jinja_arg_text(r, a, 0, NULL, &what) || !window(r, t, a, &from, &to)) {
        return false;
    }
    if (!what) {
        return jinja_fail(r, ERR_INVALID, "count needs a string");
    }
    text part = {.bytes = t->bytes, .n = to, .chars = -1};
    if (what->n == 0 && from <= to) {
        text inside = {.bytes = t->bytes + from, .n = to - from, .chars = -1};
        n = jinja_chars(&inside) + 1;
    } else if (from <= to) {
        for (size_t at; (at = jinja_find_bytes(&part, what, from)) != SIZE_MAX; from = at + what->n) {
            n++;
        }
    }
    *out = value_int(n);
    return true;
}

/* ---- what kind of characters ---- */

typedef bool (*char_test)(uint32_t cp);

static bool is_digit(uint32_t cp) {
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

static bool is_alnum(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return is_letter(cp) || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

static bool is_ascii(uint32_t cp) {
    return cp < 0x80;
}

static bool all_chars(render *r, value self, char_test test, bool of_nothing, value *out) {
    const text *t = self.as.string;
    bool        all = t->n > 0 || of_nothing;
    for (size_t i = 0; all && i < t->n;) {
        uint32_t cp;
        i += utf8_decode(t->bytes + i, t->n - i, &cp);
        all = test(cp);
    }
    *out = value_bool(all);
    return jinja_spend(r, t->n);
}

static bool str_isspace(render *r, value self, const args *a, value *out) {
    (void)a;
    return all_chars(r, self, jinja_is_space, false, out);
}

static bool str_isdigit(render *r, value self, const args *a, value *out) {
    (void)a;
    return all_chars(r, self, is_digit, false, out);
}

static bool str_isalpha(render *r, value self, const args *a, value *out) {
    (void)a;
    return all_chars(r, self, is_letter, false, out);
}

static bool str_isalnum(render *r, value self, const args *a, value *out) {
    (void)a;
    return all_chars(r, self, is_alnum, false, out);
}

static bool str_isascii(render *r, value self, const args *a, value *out) {
    (void)a;
    return all_chars(r, self, is_ascii, true, out);
}

static bool str_islower(render *r, value self, const args *a, value *out) {
    return jinja_test("lower", 5)->run(r, self, a, out);
}

static bool str_isupper(render *r, value self, const args *a, value *out) {
    return jinja_test("upper", 5)->run(r, self, a, out);
}

/* ---- joining and formatting ---- */

static bool str_join(render *r, value self, const args *a, value *out) {
    value over = {0};
    list  items;
    if (!jinja_arg(a, 0, NULL, &over)) {
        return jinja_fail(r, ERR_INVALID, "join needs a list of strings");
    }
    if (!jinja_iterate(r, over, &items)) {
        return false;
    }
    size_t mark = r->out->len;
    for (size_t i = 0; i < items.n; i++) {
        if (items.items[i].kind != V_STRING) {
            return jinja_fail(r, ERR_INVALID, "join: item %zu is a %s, not a string", i,
                              jinja_type_name(items.items[i]));
        }
        if ((i && !jinja_print(r, self)) || !jinja_print(r, items.items[i])) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

/* The value of one replacement field of str.format: "", "0" or "name". */
static bool field(render *r, const args *a, const char *name, size_t n, int *next, value *out) {
    bool number = true;
    int  place = 0;
    for (size_t i = 0; i < n; i++) {
        number &= name[i] >= '0' && name[i] <= '9';
        place = number && place < 10000 ? place * 10 + (name[i] - '0') : place;
    }
    if (number) {
        place = n ? place : (*next)++;
        return jinja_arg(a, place, NULL, out) || jinja_fail(r, ERR_INVALID, "format: there is no argument %d", place);
    }
    for (int i = 0; i < a->n_named; i++) {
        if (text_is(a->names[i], name, n)) {
            *out = a->named[i];
            return true;
        }
    }
    return jinja_fail(r, ERR_UNSUPPORTED, "format: only {}, {number} and {name} of an argument are supported");
}

static bool str_format(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    size_t      mark = r->out->len;
    int         next = 0;
    for (size_t i = 0; i < t->n; i++) {
        char c = t->bytes[i];
        if ((c != '{' && c != '}') || (i + 1 < t->n && t->bytes[i + 1] == c)) {
            i += c == '{' || c == '}';
            if (!jinja_emit(r, t->bytes + i, 1)) {
                return false;
            }
            continue;
        }
        const char *end = c == '{' ? memchr(t->bytes + i, '}', t->n - i) : NULL;
        value       v = {0};
        if (!end) {
            return jinja_fail(r, ERR_INVALID, "format: a single brace");
        }
        size_t n = (size_t)(end - t->bytes) - i - 1;
        if (!field(r, a, t->bytes + i + 1, n, &next, &v) || !jinja_print(r, v)) {
            return false;
        }
        i += n + 1;
    }
    return jinja_take(r, mark, out);
}

static const builtin methods[] = {
    {"strip", str_strip},
    {"lstrip", str_lstrip},
    {"rstrip", str_rstrip},
    {"startswith", str_startswith},
    {"endswith", str_endswith},
    {"replace", str_replace},
    {"upper", str_upper},
    {"lower", str_lower},
    {"casefold", str_lower},
    {"title", str_title},
    {"capitalize", str_capitalize},
    {"swapcase", str_swapcase},
    {"removeprefix", str_removeprefix},
    {"removesuffix", str_removesuffix},
    {"join", str_join},
    {"format", str_format},
    {"find", str_find},
    {"rfind", str_rfind},
    {"index", str_index},
    {"rindex", str_rindex},
    {"count", str_count},
    {"center", str_center},
    {"ljust", str_ljust},
    {"rjust", str_rjust},
    {"zfill", str_zfill},
    {"isspace", str_isspace},
    {"isdigit", str_isdigit},
    {"isdecimal", str_isdigit},
    {"isnumeric", str_isdigit},
    {"isalpha", str_isalpha},
    {"isalnum", str_isalnum},
    {"isascii", str_isascii},
    {"islower", str_islower},
    {"isupper", str_isupper},
};

const builtin *jinja_string_method(const char *name, size_t n) {
    const builtin *found = jinja_find(methods, sizeof(methods) / sizeof(methods[0]), name, n);
    return found ? found : jinja_split_method(name, n);
}
