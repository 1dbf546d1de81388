/* Filters over text. */
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "model/template/render.h"
#include "model/template/text.h"

static bool filter_trim(render *r, value v, const args *a, value *out) {
    value chars = value_none();
    value s = {0};
    jinja_arg(a, 0, "chars", &chars);
    if (chars.kind != V_NONE && chars.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "trim: the characters must be a string, not a %s", jinja_type_name(chars));
    }
    return jinja_string(r, v, &s) &&
           jinja_strip(r, s.as.string, chars.kind == V_STRING ? chars.as.string : NULL, true, true, out);
}

static bool filter_string(render *r, value v, const args *a, value *out) {
    (void)a;
    return jinja_string(r, v, out);
}

static bool change_case(render *r, value v, letter_case to, value *out) {
    value  s = {0};
    size_t mark = r->out->len;
    if (!jinja_string(r, v, &s) || !jinja_emit_case(r, s.as.string->bytes, s.as.string->n, to) ||
        !jinja_take(r, mark, out)) {
        return false;
    }
    out->as.string->markup = s.as.string->markup;
    return true;
}

static bool filter_upper(render *r, value v, const args *a, value *out) {
    (void)a;
    return change_case(r, v, CASE_UPPER, out);
}

static bool filter_lower(render *r, value v, const args *a, value *out) {
    (void)a;
    return change_case(r, v, CASE_LOWER, out);
}

static bool filter_capitalize(render *r, value v, const args *a, value *out) {
    value  s = {0};
    size_t mark = r->out->len;
    (void)a;
    if (!jinja_string(r, v, &s)) {
        return false;
    }
    const text *t = s.as.string;
    size_t      first = t->n ? jinja_char(t->bytes, t->n) : 0;
    return jinja_emit_case(r, t->bytes, first, CASE_TITLE) &&
           jinja_emit_case(r, t->bytes + first, t->n - first, CASE_LOWER) && jinja_take(r, mark, out);
}

/* jinja2's own title: a word begins behind blanks, "-" and opening brackets only. */
static bool filter_title(render *r, value v, const args *a, value *out) {
    value  s = {0};
    size_t mark = r->out->len;
    (void)a;
    if (!jinja_string(r, v, &s)) {
        return false;
    }
    const text *t = s.as.string;
    bool        begins = true;
    for (size_t i = 0; i < t->n;) {
        size_t n = jinja_char(t->bytes + i, t->n - i);
        if (!jinja_emit_case(r, t->bytes + i, n, begins ? CASE_UPPER : CASE_LOWER)) {
            return false;
        }
        begins = jinja_space(t->bytes + i, t->n - i) || (n == 1 && t->bytes[i] && strchr("-({[<", t->bytes[i]));
        i += n;
    }
    return jinja_take(r, mark, out);
}

static bool filter_replace(render *r, value v, const args *a, value *out) {
    value old = {0};
    value with = {0};
    value s = {0};
    value count = value_none();
    if (!jinja_arg(a, 0, "old", &old) || !jinja_arg(a, 1, "new", &with)) {
        return jinja_fail(r, ERR_INVALID, "replace needs two strings");
    }
    jinja_arg(a, 2, "count", &count);
    return jinja_string(r, v, &s) && jinja_string(r, old, &old) && jinja_string(r, with, &with) &&
           jinja_replace(r, s.as.string, old.as.string, with.as.string,
                         value_is_integral(count) ? value_integer(count) : -1, out);
}

static bool filter_join(render *r, value v, const args *a, value *out) {
    list  items;
    value separator = value_none();
    value path = {0};
    bool  separated = jinja_arg(a, 0, "d", &separator);
    bool  by_attribute = jinja_arg(a, 1, "attribute", &path) && path.kind != V_NONE;
    if (!jinja_iterate(r, v, &items) || (separated && !jinja_string(r, separator, &separator))) {
        return false;
    }
    size_t mark = r->out->len;
    for (size_t i = 0; i < items.n; i++) {
        value item = items.items[i];
        if (by_attribute && !jinja_item(r, item, path, &item)) {
            return false;
        }
        if ((i && separated && !jinja_print(r, separator)) || !jinja_print(r, item)) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

/* Adds the lines of t, those after the first (or all, with `first`) behind `by`; blank ones only with `blank`. */
static bool indent_lines(render *r, const text *t, const text *by, bool first, bool blank) {
    for (size_t at = 0, line = 0; at <= t->n; line++) {
        size_t end = at;
        size_t newline = 0;
        while (end < t->n && (newline = jinja_newline(t->bytes + end, t->n - end)) == 0) {
            end++;
        }
        bool last = newline == 0; /* the quirk of jinja2: a final newline stays, line ends become \n */
        bool indented = line == 0 ? first : blank || end > at;
        if ((line && !jinja_emit(r, "\n", 1)) || (indented && !jinja_emit(r, by->bytes, by->n)) ||
            !jinja_emit(r, t->bytes + at, end - at)) {
            return false;
        }
        if (last) {
            break;
        }
        at = end + newline;
    }
    return true;
}

/* `width`: a number of blanks, or the text itself. */
static bool indentation(render *r, value width, value *out) {
    if (width.kind == V_STRING) {
        *out = width;
        return true;
    }
    text blank = {.bytes = " ", .n = 1, .chars = 1};
    return jinja_binary(r, OP_MUL, value_string(&blank), width, out);
}

static bool filter_indent(render *r, value v, const args *a, value *out) {
    value s = {0};
    value by = value_int(4);
    bool  first = jinja_arg_truth(a, 1, "first", false);
    bool  blank = jinja_arg_truth(a, 2, "blank", false);
    jinja_arg(a, 0, "width", &by);
    if (v.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "indent: '%s' is not a string", jinja_type_name(v));
    }
    if (!jinja_string(r, v, &s) || !indentation(r, by, &by)) {
        return false;
    }
    size_t mark = r->out->len;
    return indent_lines(r, s.as.string, by.as.string, first, blank) && jinja_take(r, mark, out);
}

static bool filter_safe(render *r, value v, const args *a, value *out) {
    value s = {0};
    (void)a;
    return jinja_string(r, v, &s) && jinja_text_share(r, s.as.string->bytes, s.as.string->n, true, out);
}

static bool filter_escape(render *r, value v, const args *a, value *out) {
    value  s = {0};
    size_t mark = r->out->len;
    (void)a;
    if (!jinja_string(r, v, &s)) {
        return false;
    }
    if (s.as.string->markup) {
        *out = s;
        return true;
    }
    if (!jinja_emit_escaped(r, s.as.string) || !jinja_take(r, mark, out)) {
        return false;
    }
    out->as.string->markup = true;
    return true;
}

static bool filter_format(render *r, value v, const args *a, value *out) {
    value s = {0};
    list *values = jinja_list(r, 0);
    if (!values || !jinja_string(r, v, &s)) {
        return false;
    }
    *values = (list){.items = a->values, .n = (size_t)a->n};
    return jinja_format_percent(r, s, value_list(V_TUPLE, values), out);
}

static bool filter_wordcount(render *r, value v, const args *a, value *out) {
    value   s = {0};
    int64_t words = 0;
    (void)a;
    if (!jinja_string(r, v, &s) || !jinja_spend(r, s.as.string->n)) {
        return false;
    }
    const text *t = s.as.string;
    bool        inside = false;
    for (size_t i = 0; i < t->n;) {
        size_t   n = jinja_char(t->bytes + i, t->n - i);
        uint32_t cp;
        utf8_decode(t->bytes + i, t->n - i, &cp);
        bool word = cp >= 0x80 ? !jinja_is_space(cp)
                               : cp == '_' || (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z');
        words += word && !inside;
        inside = word;
        i += n;
    }
    *out = value_int(words);
    return true;
}

/* ---- JSON ---- */

/* json.dumps(x, ensure_ascii, indent, separators, sort_keys), as transformers calls it. */
static bool filter_tojson(render *r, value v, const args *a, value *out) {
    static const text comma = {.bytes = ", ", .n = 2};
    static const text colon = {.bytes = ": ", .n = 2};
    static const text bare_comma = {.bytes = ",", .n = 1};
    json_style        style = {.item_separator = &comma, .key_separator = &colon};
    value             indent = value_none();
    value             separators = value_none();
    style.ascii = jinja_arg_truth(a, 0, "ensure_ascii", false);
    style.sort_keys = jinja_arg_truth(a, 3, "sort_keys", false);
    /* By place, transformers' order is ensure_ascii, indent; but jinja2's own filter takes the indent first. */
    if (a->n == 1 && a->values[0].kind == V_INT) {
        indent = a->values[0];
        style.ascii = false;
    } else {
        jinja_arg(a, 1, "indent", &indent);
    }
    jinja_arg(a, 2, "separators", &separators);
    if (indent.kind != V_NONE) {
        if (!indentation(r, indent, &indent)) {
            return false;
        }
        style.indent = indent.as.string;
        style.item_separator = &bare_comma;
    }
    if (separators.kind == V_LIST || separators.kind == V_TUPLE) {
        const list *l = separators.as.list;
        if (l->n != 2 || l->items[0].kind != V_STRING || l->items[1].kind != V_STRING) {
            return jinja_fail(r, ERR_INVALID, "tojson: separators must be two strings");
        }
        style.item_separator = l->items[0].as.string;
        style.key_separator = l->items[1].as.string;
    }
    size_t mark = r->out->len;
    return jinja_json(r, v, &style) && jinja_take(r, mark, out);
}

/* Copies what cJSON holds, since the tree is freed before the rendering ends. */
static bool keep(render *r, value *v, int depth) {
    if (!jinja_spend(r, 0) || depth > TEMPLATE_MAX_NEST) {
        return false;
    }
    if (v->kind == V_STRING) {
        return jinja_text(r, v->as.string->bytes, v->as.string->n, v);
    }
    for (size_t i = 0; v->kind == V_LIST && i < v->as.list->n; i++) {
        if (!keep(r, &v->as.list->items[i], depth + 1)) {
            return false;
        }
    }
    for (size_t i = 0; v->kind == V_DICT && i < v->as.dict->n; i++) {
        if (!keep(r, &v->as.dict->entries[i].key, depth + 1) || !keep(r, &v->as.dict->entries[i].item, depth + 1)) {
            return false;
        }
    }
    return true;
}

/* Not jinja2's, but DeepSeek's templates use it for arguments that come as text. */
static bool filter_from_json(render *r, value v, const args *a, value *out) {
    err reason = {0};
    (void)a;
    if (v.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "from_json: '%s' is not a string", jinja_type_name(v));
    }
    if (!jinja_spend(r, v.as.string->n)) {
        return false;
    }
    cJSON *json = json_parse(v.as.string->bytes, v.as.string->n, JSON_MAX_DEPTH, &reason);
    if (!json) {
        return jinja_fail(r, ERR_INVALID, "from_json: %s", reason.text);
    }
    bool ok = jinja_from_json(r, json, out) && keep(r, out, 0);
    cJSON_Delete(json);
    return ok;
}

static const builtin filters[] = {
    {"trim", filter_trim},           {"string", filter_string},       {"upper", filter_upper},
    {"lower", filter_lower},         {"title", filter_title},         {"capitalize", filter_capitalize},
    {"replace", filter_replace},     {"join", filter_join},           {"indent", filter_indent},
    {"safe", filter_safe},           {"escape", filter_escape},       {"e", filter_escape},
    {"format", filter_format},       {"wordcount", filter_wordcount}, {"tojson", filter_tojson},
    {"from_json", filter_from_json},
};

const builtin *jinja_text_filter(const char *name, size_t n) {
    return jinja_find(filters, sizeof(filters) / sizeof(filters[0]), name, n);
}
