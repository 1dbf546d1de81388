/* The methods that cut strings: split, rsplit, splitlines, partition, rpartition. */
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

static bool piece(render *r, gather *g, const text *of, size_t from, size_t to) {
    value v = {0};
    return jinja_text_share(r, of->bytes + from, to - from, of->markup, &v) && jinja_gather(r, g, v);
}

/* ---- without a separator: words between runs of blanks; the rest after `most` cuts keeps its far end ---- */

static bool words(render *r, const text *t, int64_t most, gather *g) {
    size_t at = 0;
    while (true) {
        for (size_t n; (n = jinja_space(t->bytes + at, t->n - at)) > 0;) {
            at += n;
        }
        if (at >= t->n) {
            return true;
        }
        if (most-- == 0) {
            return piece(r, g, t, at, t->n);
        }
        size_t end = at;
        while (end < t->n && jinja_space(t->bytes + end, t->n - end) == 0) {
            end += jinja_char(t->bytes + end, t->n - end);
        }
        if (!piece(r, g, t, at, end)) {
            return false;
        }
        at = end;
    }
}

static bool words_from_right(render *r, const text *t, int64_t most, gather *g) {
    size_t end = t->n;
    while (true) {
        for (size_t n; (n = jinja_space_before(t->bytes, end)) > 0;) {
            end -= n;
        }
        if (end == 0) {
            return true;
        }
        if (most-- == 0) {
            return piece(r, g, t, 0, end);
        }
        size_t at = end;
        while (at > 0 && jinja_space_before(t->bytes, at) == 0) {
            do {
                at--;
            } while (at > 0 && ((unsigned char)t->bytes[at] & 0xC0) == 0x80);
        }
        if (!piece(r, g, t, at, end)) {
            return false;
        }
        end = at;
    }
}

/* ---- by a separator ---- */

static bool pieces(render *r, const text *t, const text *by, int64_t most, gather *g) {
    size_t at = 0;
    for (; most != 0; most--) {
        size_t found = jinja_find_bytes(t, by, at);
        if (found == SIZE_MAX) {
            break;
        }
        if (!piece(r, g, t, at, found)) {
            return false;
        }
        at = found + by->n;
    }
    return piece(r, g, t, at, t->n);
}

static bool pieces_from_right(render *r, const text *t, const text *by, int64_t most, gather *g) {
    size_t end = t->n;
    for (; most != 0; most--) {
        size_t found;
        if (!jinja_rfind_bytes(r, t, by, 0, end, &found)) {
            return false;
        }
        if (found == SIZE_MAX) {
            break;
        }
        if (!piece(r, g, t, found + by->n, end)) {
            return false;
        }
        end = found;
    }
    return piece(r, g, t, 0, end);
}

static void turn_round(gather *g) {
    for (size_t i = 0; i < g->n / 2; i++) {
        value last = g->items[g->n - 1 - i];
        g->items[g->n - 1 - i] = g->items[i];
        g->items[i] = last;
    }
}

static bool split(render *r, value self, const args *a, bool from_right, value *out) {
    const text *t = self.as.string;
    value       by = value_none();
    int64_t     most = -1;
    gather      g = {0};
    jinja_arg(a, 0, "sep", &by);
    if (!jinja_arg_int(r, a, 1, "maxsplit", &most) || !jinja_spend(r, t->n)) {
        return false;
    }
    if (by.kind != V_NONE && by.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "split: the separator must be a string, not a %s", jinja_type_name(by));
    }
    if (by.kind == V_STRING && by.as.string->n == 0) {
        return jinja_fail(r, ERR_INVALID, "split: the separator is empty");
    }
    bool ok;
    if (by.kind == V_NONE) {
        ok = from_right ? words_from_right(r, t, most, &g) : words(r, t, most, &g);
    } else {
        ok = from_right ? pieces_from_right(r, t, by.as.string, most, &g) : pieces(r, t, by.as.string, most, &g);
    }
    if (from_right) {
        turn_round(&g);
    }
    return ok && jinja_gathered(r, &g, V_LIST, out);
}

static bool str_split(render *r, value self, const args *a, value *out) {
    return split(r, self, a, false, out);
}

static bool str_rsplit(render *r, value self, const args *a, value *out) {
    return split(r, self, a, true, out);
}

static bool str_splitlines(render *r, value self, const args *a, value *out) {
    const text *t = self.as.string;
    bool        keep_ends = jinja_arg_truth(a, 0, "keepends", false);
    gather      g = {0};
    for (size_t at = 0; at < t->n;) {
        size_t end = at;
        size_t newline = 0;
        while (end < t->n && (newline = jinja_newline(t->bytes + end, t->n - end)) == 0) {
            end++;
        }
        if (!piece(r, &g, t, at, end + (keep_ends ? newline : 0))) {
            return false;
        }
        at = end + newline;
    }
    return jinja_spend(r, t->n) && jinja_gathered(r, &g, V_LIST, out);
}

/* Before the separator, the separator, behind it. */
static bool partition(render *r, value self, const args *a, bool last, value *out) {
    const text *t = self.as.string;
    const text *by = NULL;
    size_t      found;
    gather      g = {0};
    if (!jinja_arg_text(r, a, 0, NULL, &by) || !jinja_spend(r, t->n)) {
        return false;
    }
    if (!by || by->n == 0) {
        return jinja_fail(r, ERR_INVALID, "partition needs a separator");
    }
    if (!last) {
        found = jinja_find_bytes(t, by, 0);
    } else if (!jinja_rfind_bytes(r, t, by, 0, t->n, &found)) {
        return false;
    }
    size_t before = found != SIZE_MAX ? found : last ? 0 : t->n;
    size_t behind = found != SIZE_MAX ? found + by->n : before;
    return piece(r, &g, t, 0, before) && piece(r, &g, t, before, behind) && piece(r, &g, t, behind, t->n) &&
           jinja_gathered(r, &g, V_TUPLE, out);
}

static bool str_partition(render *r, value self, const args *a, value *out) {
    return partition(r, self, a, false, out);
}

static bool str_rpartition(render *r, value self, const args *a, value *out) {
    return partition(r, self, a, true, out);
}

static const builtin methods[] = {{"split", str_split},
                                  {"rsplit", str_rsplit},
                                  {"splitlines", str_splitlines},
                                  {"partition", str_partition},
                                  {"rpartition", str_rpartition}};

const builtin *jinja_split_method(const char *name, size_t n) {
    return jinja_find(methods, sizeof(methods) / sizeof(methods[0]), name, n);
}
