#include "model/template/text.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

bool jinja_is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F ||
           cp == 0x3000;
}

/* Goes by lead bytes alone, so that counting and walking agree on bytes that are no UTF-8, too. */
size_t jinja_char(const char *bytes, size_t n) {
    size_t i = 1;
    while (i < n && ((unsigned char)bytes[i] & 0xC0) == 0x80) {
        i++;
    }
    return i;
}

size_t jinja_space(const char *bytes, size_t n) {
    if (n == 0) {
        return 0;
    }
    unsigned char first = (unsigned char)bytes[0];
    if (first < 0x80) {
        return jinja_is_space(first) ? 1 : 0;
    }
    uint32_t cp;
    size_t   used = utf8_decode(bytes, n, &cp);
    return jinja_is_space(cp) ? used : 0;
}

size_t jinja_space_before(const char *bytes, size_t n) {
    size_t i = n;
    while (i > 0) {
        i--;
        if (((unsigned char)bytes[i] & 0xC0) != 0x80) {
            break;
        }
    }
    return i < n && jinja_space(bytes + i, n - i) == n - i ? n - i : 0;
}

size_t jinja_newline(const char *bytes, size_t n) {
    if (n == 0) {
        return 0;
    }
    unsigned char c = (unsigned char)bytes[0];
    if (c < 0x80) {
        return c == '\r' && n > 1 && bytes[1] == '\n' ? 2 : (c >= 10 && c <= 13) || (c >= 28 && c <= 30);
    }
    uint32_t cp;
    size_t   used = utf8_decode(bytes, n, &cp);
    return cp == 0x85 || cp == 0x2028 || cp == 0x2029 ? used : 0;
}

int64_t jinja_chars(const text *t) {
    if (t->chars >= 0) {
        return t->chars;
    }
    int64_t chars = t->n > 0 && ((unsigned char)t->bytes[0] & 0xC0) == 0x80;
    for (size_t i = 0; i < t->n; i++) {
        chars += ((unsigned char)t->bytes[i] & 0xC0) != 0x80;
    }
    return chars;
}

size_t jinja_offset(const text *t, int64_t at) {
    if ((uint64_t)jinja_chars(t) == t->n) {
        return (size_t)at;
    }
    size_t offset = 0;
    while (at > 0 && offset < t->n) {
        offset += jinja_char(t->bytes + offset, t->n - offset);
        at--;
    }
    return offset;
}

size_t jinja_find_bytes(const text *in, const text *what, size_t from) {
    if (from > in->n || what->n > in->n - from) {
        return SIZE_MAX;
    }
    if (what->n == 0) {
        return from;
    }
    const char *found = memmem(in->bytes + from, in->n - from, what->bytes, what->n);
    return found ? (size_t)(found - in->bytes) : SIZE_MAX;
}

bool jinja_rfind_bytes(render *r, const text *in, const text *what, size_t from, size_t to, size_t *found) {
    *found = SIZE_MAX;
    if (from > to || what->n > to - from) {
        return true;
    }
    size_t work = 0;
    for (size_t at = to - what->n + 1; at-- > from;) {
        if (what->n == 0 || (in->bytes[at] == what->bytes[0] && memcmp(in->bytes + at, what->bytes, what->n) == 0)) {
            *found = at;
            break;
        }
        work += in->bytes[at] == what->bytes[0] ? 1 + what->n : 1;
        if (work > 1 << 16) {
            if (!jinja_spend(r, work)) {
                return false;
            }
            work = 0;
        }
    }
    return jinja_spend(r, work);
}

static bool emit_cased(render *r, uint32_t cp, letter_case to) {
    if (cp == 0xDF && to != CASE_LOWER) { /* one letter that becomes two */
        return jinja_emit(r, to == CASE_UPPER ? "SS" : "Ss", 2);
    }
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    c = to == CASE_UPPER ? utf8proc_toupper(c) : to == CASE_LOWER ? utf8proc_tolower(c) : utf8proc_totitle(c);
    char bytes[4];
    return jinja_emit(r, bytes, utf8_encode((uint32_t)c, bytes));
}

bool jinja_emit_case(render *r, const char *bytes, size_t n, letter_case to) {
    size_t i = 0;
    while (i < n) {
        char   ascii[64];
        size_t k = 0;
        while (i < n && k < sizeof(ascii) && (unsigned char)bytes[i] < 0x80) {
            char c = bytes[i++];
            if (to == CASE_LOWER) {
                c = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
            } else {
                c = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
            }
            ascii[k++] = c;
        }
        if (k > 0 && !jinja_emit(r, ascii, k)) {
            return false;
        }
        if (i < n && (unsigned char)bytes[i] >= 0x80) {
            uint32_t cp;
            i += utf8_decode(bytes + i, n - i, &cp);
            if (!emit_cased(r, cp, to)) {
                return false;
            }
        }
    }
    return true;
}

bool jinja_emit_escaped(render *r, const text *t) {
    size_t from = 0;
    for (size_t i = 0; i < t->n; i++) {
        const char *entity = NULL;
        switch (t->bytes[i]) {
        case '&':
            entity = "&amp;";
            break;
        case '<':
            entity = "&lt;";
            break;
        case '>':
            entity = "&gt;";
            break;
        case '\'':
            entity = "&#39;";
            break;
        case '"':
            entity = "&#34;";
            break;
        default:
            continue;
        }
        if (!jinja_emit(r, t->bytes + from, i - from) || !jinja_emit(r, entity, strlen(entity))) {
            return false;
        }
        from = i + 1;
    }
    return jinja_emit(r, t->bytes + from, t->n - from);
}

/* Python: replacing "" puts `with` before every character and at the end. */
static bool replace_between(render *r, const text *in, const text *with, int64_t count) {
    size_t at = 0;
    for (; count != 0; count--) {
        if (!jinja_emit(r, with->bytes, with->n)) {
            return false;
        }
        if (at == in->n) {
            return true;
        }
        size_t n = jinja_char(in->bytes + at, in->n - at);
        if (!jinja_spend(r, 0) || !jinja_emit(r, in->bytes + at, n)) {
            return false;
        }
        at += n;
    }
    return jinja_emit(r, in->bytes + at, in->n - at);
}

bool jinja_replace(render *r, const text *in, const text *old, const text *with, int64_t count, value *out) {
    if (!jinja_spend(r, in->n)) {
        return false;
    }
    size_t mark = r->out->len;
    if (old->n == 0) {
        return replace_between(r, in, with, count) && jinja_take(r, mark, out);
    }
    size_t at = 0;
    for (; count != 0; count--) {
        size_t found = jinja_find_bytes(in, old, at);
        if (found == SIZE_MAX) {
            break;
        }
        if (!jinja_spend(r, 0) || !jinja_emit(r, in->bytes + at, found - at) || !jinja_emit(r, with->bytes, with->n)) {
            return false;
        }
        at = found + old->n;
    }
    if (at == 0) {
        return jinja_text_share(r, in->bytes, in->n, false, out);
    }
    return jinja_emit(r, in->bytes + at, in->n - at) && jinja_take(r, mark, out);
}

static bool among(const text *chars, const char *bytes, size_t n) {
    for (size_t i = 0; i < chars->n;) {
        size_t k = jinja_char(chars->bytes + i, chars->n - i);
        if (k == n && memcmp(chars->bytes + i, bytes, n) == 0) {
            return true;
        }
        i += k;
    }
    return false;
}

bool jinja_strip(render *r, const text *t, const text *chars, bool left, bool right, value *out) {
    size_t from = 0;
    size_t to = t->n;
    while (left && from < to) {
        size_t n = chars ? jinja_char(t->bytes + from, to - from) : jinja_space(t->bytes + from, to - from);
        if (n == 0 || (chars && (!jinja_spend(r, chars->n) || !among(chars, t->bytes + from, n)))) {
            break;
        }
        from += n;
    }
    while (right && from < to) {
        size_t n = jinja_space_before(t->bytes + from, to - from);
        if (chars) {
            for (n = 1; n < to - from && ((unsigned char)t->bytes[to - n] & 0xC0) == 0x80;) {
                n++;
            }
        }
        if (n == 0 || (chars && (!jinja_spend(r, chars->n) || !among(chars, t->bytes + to - n, n)))) {
            break;
        }
        to -= n;
    }
    return jinja_spend(r, t->n - (to - from)) && jinja_text_share(r, t->bytes + from, to - from, t->markup, out);
}

bool jinja_gather(render *r, gather *g, value v) {
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 8;
        value *items = jinja_alloc(r, cap, sizeof(value));
        if (!items) {
            return false;
        }
        if (g->n) {
            memcpy(items, g->items, g->n * sizeof(value));
        }
        g->items = items;
        g->cap = cap;
    }
    g->items[g->n++] = v;
    return jinja_spend(r, 0);
}

bool jinja_gathered(render *r, const gather *g, value_kind kind, value *out) {
    list *l = jinja_list(r, 0);
    if (!l) {
        return false;
    }
    l->items = g->items;
    l->n = g->n;
    *out = value_list(kind, l);
    return true;
}
