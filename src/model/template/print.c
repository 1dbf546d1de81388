/* How values look: str(), repr() and json.dumps(), as Python writes them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/template/render.h"
#include "model/template/text.h"

static bool emits(render *r, const char *text) {
    return jinja_emit(r, text, strlen(text));
}

static bool emit_int(render *r, int64_t i) {
    char buffer[24];
    return jinja_emit(r, buffer, (size_t)snprintf(buffer, sizeof(buffer), "%lld", (long long)i));
}

/* The fewest digits that read back the same, placed as Python places them: an exponent below 1e-4 and from 1e16. */
static bool emit_float(render *r, double d) {
    char scientific[40];
    char digits[24] = {0};
    int  n = 0;
    if (isnan(d)) {
        return emits(r, "nan");
    }
    if (isinf(d)) {
        return emits(r, d > 0 ? "inf" : "-inf");
    }
    for (int precision = 0; precision <= 16; precision++) {
        snprintf(scientific, sizeof(scientific), "%.*e", precision, d);
        if (strtod(scientific, NULL) == d) {
            break;
        }
    }
    const char *at = scientific;
    if (*at == '-') {
        at++;
    }
    for (; *at && *at != 'e'; at++) {
        if (*at != '.') {
            digits[n++] = *at;
        }
    }
    int  power = (int)strtol(at + 1, NULL, 10);
    char out[64];
    int  w = 0;
    if (scientific[0] == '-') {
        out[w++] = '-';
    }
    if (power < -4 || power >= 16) {
        w += snprintf(out + w, sizeof(out) - (size_t)w, "%c%s%.*se%c%02d", digits[0], n > 1 ? "." : "", n - 1,
                      digits + 1, power < 0 ? '-' : '+', abs(power));
    } else if (power < 0) {
        w += snprintf(out + w, sizeof(out) - (size_t)w, "0.%.*s%.*s", -power - 1, "0000", n, digits);
    } else {
        for (int i = 0; i < n || i <= power + 1; i++) {
            if (i == power + 1) {
                out[w++] = '.';
            }
            out[w++] = i < n ? digits[i] : '0';
        }
    }
    return jinja_emit(r, out, (size_t)w);
}

/* ---- repr ---- */

static bool printable(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return cp == ' ';
    default:
        return true;
    }
}

static bool repr_text(render *r, const text *t) {
    bool single = memchr(t->bytes, '\'', t->n) != NULL;
    bool both = single && memchr(t->bytes, '"', t->n);
    char quote = single && !both ? '"' : '\'';
    if (!jinja_spend(r, t->n) || (t->markup && !emits(r, "Markup(")) || !jinja_emit(r, &quote, 1)) {
        return false;
    }
    for (size_t i = 0; i < t->n;) {
        uint32_t cp;
        size_t   used = utf8_decode(t->bytes + i, t->n - i, &cp);
        char     escape[16];
        int      n = 0;
        if (cp == (uint32_t)quote || cp == '\\') {
            n = snprintf(escape, sizeof(escape), "\\%c", (char)cp);
        } else if (cp == '\n' || cp == '\r' || cp == '\t') {
            n = snprintf(escape, sizeof(escape), "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        } else if (!printable(cp)) {
            n = snprintf(escape, sizeof(escape), cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        }
        if (!jinja_emit(r, n ? escape : t->bytes + i, n ? (size_t)n : used)) {
            return false;
        }
        i += used;
    }
    return jinja_emit(r, &quote, 1) && (!t->markup || emits(r, ")"));
}

static bool repr(render *r, value v, int depth);

static bool repr_list(render *r, value v, int depth) {
    const list *l = v.as.list;
    bool        tuple = v.kind == V_TUPLE;
    if (v.kind == V_RANGE) {
        return emits(r, l->label);
    }
    if (v.kind == V_GENERATOR) {
        return emits(r, "<generator object>");
    }
    if (v.kind == V_VIEW && !(emits(r, l->label) && emits(r, "("))) {
        return false;
    }
    if (!emits(r, tuple ? "(" : "[")) {
        return false;
    }
    for (size_t i = 0; i < l->n; i++) {
        if ((i && !emits(r, ", ")) || !repr(r, l->items[i], depth + 1)) {
            return false;
        }
    }
    return emits(r, tuple ? l->n == 1 ? ",)" : ")" : "]") && (v.kind != V_VIEW || emits(r, ")"));
}

static bool repr_dict(render *r, value v, int depth) {
    const dict *d = v.as.dict;
    if (!emits(r, v.kind == V_NAMESPACE ? "<Namespace {" : "{")) {
        return false;
    }
    for (size_t i = 0; i < d->n; i++) {
        if ((i && !emits(r, ", ")) || !repr(r, d->entries[i].key, depth + 1) || !emits(r, ": ") ||
            !repr(r, d->entries[i].item, depth + 1)) {
            return false;
        }
    }
    return emits(r, v.kind == V_NAMESPACE ? "}>" : "}");
}

static bool repr(render *r, value v, int depth) {
    if (depth > TEMPLATE_MAX_NEST) {
        return jinja_fail(r, ERR_LIMIT, "a value nests deeper than %d levels", TEMPLATE_MAX_NEST);
    }
    switch (v.kind) {
    case V_UNDEFINED:
        return emits(r, depth ? "Undefined" : "");
    case V_NONE:
        return emits(r, "None");
    case V_BOOL:
        return emits(r, v.as.truth ? "True" : "False");
    case V_INT:
        return emit_int(r, v.as.integer);
    case V_FLOAT:
        return emit_float(r, v.as.number);
    case V_STRING:
        return repr_text(r, v.as.string);
    case V_DICT:
    case V_NAMESPACE:
        return repr_dict(r, v, depth);
    case V_LOOP:
        return emits(r, "<LoopContext ") && emit_int(r, (int64_t)v.as.loop->at + 1) && emits(r, "/") &&
               emit_int(r, (int64_t)v.as.loop->items.n) && emits(r, ">");
    case V_MACRO:
        return emits(r, "<Macro>");
    case V_FUNCTION:
        return emits(r, "<function ") && emits(r, v.as.function->name) && emits(r, ">");
    case V_METHOD:
        return emits(r, "<built-in method ") && emits(r, v.as.method->what->name) && emits(r, ">");
    default:
        return repr_list(r, v, depth);
    }
}

bool jinja_repr(render *r, value v) {
    return v.kind == V_UNDEFINED ? emits(r, "Undefined") : repr(r, v, 0);
}

bool jinja_print(render *r, value v) {
    if (v.kind == V_STRING) {
        return jinja_emit(r, v.as.string->bytes, v.as.string->n);
    }
    return repr(r, v, 0);
}

bool jinja_string(render *r, value v, value *out) {
    if (v.kind == V_STRING) {
        *out = v;
        return true;
    }
    size_t mark = r->out->len;
    return jinja_print(r, v) && jinja_take(r, mark, out);
}

/* ---- JSON ---- */

static bool json_escape(render *r, uint32_t cp) {
    char escape[16];
    int  n;
    if (cp > 0xFFFF) {
        cp -= 0x10000;
        n = snprintf(escape, sizeof(escape), "\\u%04x\\u%04x", 0xD800 + (cp >> 10), 0xDC00 + (cp & 0x3FF));
    } else {
        const char *at = cp ? strchr("\"\\\n\r\t\b\f", (int)cp) : NULL;
        if (cp < 0x80 && at) {
            n = snprintf(escape, sizeof(escape), "\\%c", "\"\\nrtbf"[at - "\"\\\n\r\t\b\f"]);
        } else {
            n = snprintf(escape, sizeof(escape), "\\u%04x", cp);
        }
    }
    return jinja_emit(r, escape, (size_t)n);
}

static bool json_text(render *r, const text *t, bool ascii) {
    size_t from = 0;
    if (!jinja_spend(r, t->n) || !emits(r, "\"")) {
        return false;
    }
    for (size_t i = 0; i < t->n;) {
        unsigned char c = (unsigned char)t->bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || !ascii) && !(c == 0x7F && ascii)) {
            i++;
            continue;
        }
        uint32_t cp;
        size_t   used = utf8_decode(t->bytes + i, t->n - i, &cp);
        if (!jinja_emit(r, t->bytes + from, i - from) ||
            !(cp == 0x7F ? jinja_emit(r, t->bytes + i, 1) : json_escape(r, cp))) {
            return false;
        }
        i += used;
        from = i;
    }
    return jinja_emit(r, t->bytes + from, t->n - from) && emits(r, "\"");
}

static bool json_newline(render *r, const json_style *s, int depth) {
    if (!s->indent) {
        return true;
    }
    if (!emits(r, "\n")) {
        return false;
    }
    for (int i = 0; i < depth; i++) {
        if (!jinja_emit(r, s->indent->bytes, s->indent->n)) {
            return false;
        }
    }
    return true;
}

static bool json_value(render *r, value v, const json_style *s, int depth);

static bool json_separator(render *r, const json_style *s, size_t i, int depth) {
    return (i == 0 || jinja_emit(r, s->item_separator->bytes, s->item_separator->n)) && json_newline(r, s, depth);
}

static bool json_list(render *r, const list *l, const json_style *s, int depth) {
    if (l->n == 0) {
        return emits(r, "[]");
    }
    if (!emits(r, "[")) {
        return false;
    }
    for (size_t i = 0; i < l->n; i++) {
        if (!json_separator(r, s, i, depth + 1) || !json_value(r, l->items[i], s, depth + 1)) {
            return false;
        }
    }
    return json_newline(r, s, depth) && emits(r, "]");
}

static bool json_key(render *r, value key, const json_style *s) {
    if (key.kind == V_STRING) {
        return json_text(r, key.as.string, s->ascii);
    }
    if (key.kind > V_FLOAT || key.kind == V_UNDEFINED) {
        return jinja_fail(r, ERR_INVALID, "tojson: a %s cannot be the key of a JSON object", jinja_type_name(key));
    }
    return emits(r, "\"") && json_value(r, key, s, 0) && emits(r, "\"");
}

/* Merge sort of entry numbers: stable, and no more than n log n comparisons whatever the keys. */
static bool sort_keys(render *r, const dict *d, size_t *order, size_t *spare, size_t n) {
    if (n < 2) {
        return true;
    }
    size_t half = n / 2;
    if (!sort_keys(r, d, order, spare, half) || !sort_keys(r, d, order + half, spare, n - half)) {
        return false;
    }
    memcpy(spare, order, half * sizeof(*order));
    for (size_t i = 0, j = half, w = 0; i < half; w++) {
        int before = -1;
        if (j < n && !jinja_compare(r, d->entries[order[j]].key, d->entries[spare[i]].key, &before)) {
            return false;
        }
        order[w] = j < n && before < 0 ? order[j++] : spare[i++];
    }
    return true;
}

static bool json_dict(render *r, const dict *d, const json_style *s, int depth) {
    size_t *order = NULL;
    if (d->n == 0) {
        return emits(r, "{}");
    }
    if (s->sort_keys) {
        order = jinja_alloc(r, 2 * d->n, sizeof(*order));
        for (size_t i = 0; order && i < d->n; i++) {
            order[i] = i;
        }
        if (!order || !sort_keys(r, d, order, order + d->n, d->n)) {
            return false;
        }
    }
    if (!emits(r, "{")) {
        return false;
    }
    for (size_t i = 0; i < d->n; i++) {
        const dict_entry *entry = &d->entries[order ? order[i] : i];
        if (!json_separator(r, s, i, depth + 1) || !json_key(r, entry->key, s) ||
            !jinja_emit(r, s->key_separator->bytes, s->key_separator->n) || !json_value(r, entry->item, s, depth + 1)) {
            return false;
        }
    }
    return json_newline(r, s, depth) && emits(r, "}");
}

static bool json_value(render *r, value v, const json_style *s, int depth) {
    if (depth > TEMPLATE_MAX_NEST) {
        return jinja_fail(r, ERR_LIMIT, "a value nests deeper than %d levels", TEMPLATE_MAX_NEST);
    }
    if (!jinja_spend(r, 0)) {
        return false;
    }
    switch (v.kind) {
    case V_NONE:
        return emits(r, "null");
    case V_BOOL:
        return emits(r, v.as.truth ? "true" : "false");
    case V_INT:
        return emit_int(r, v.as.integer);
    case V_FLOAT:
        if (isnan(v.as.number) || isinf(v.as.number)) {
            return emits(r, isnan(v.as.number) ? "NaN" : v.as.number > 0 ? "Infinity" : "-Infinity");
        }
        return emit_float(r, v.as.number);
    case V_STRING:
        return json_text(r, v.as.string, s->ascii);
    case V_LIST:
    case V_TUPLE:
        return json_list(r, v.as.list, s, depth);
    case V_DICT:
        return json_dict(r, v.as.dict, s, depth);
    default:
        return jinja_fail(r, ERR_INVALID, "tojson: object of type %s is not JSON serializable", jinja_type_name(v));
    }
}

bool jinja_json(render *r, value v, const json_style *style) {
    return json_value(r, v, style, 0);
}
