#include "engine/text.h"

#include <limits.h>
#include <string.h>

#include "base/utf8.h"

#define ROOM_FOR_PIECES 512 /* bytes; taken at the start, so that ordinary pieces need no memory later */
#define MOST_PER_BYTE   3   /* a wrong byte is shown as U+FFFD, which has three */

static bool prepare(text_stop *s, const char *text, size_t len, arena *memory) {
    s->len = (int)len;
    s->bytes = arena_memdup(memory, text, len);
    s->fall = arena_zero(memory, len + 1, sizeof(*s->fall));
    if (!s->bytes || !s->fall) {
        return false;
    }
    int border = 0;
    for (int i = 1; i < s->len; i++) {
        while (border > 0 && s->bytes[i] != s->bytes[border]) {
            border = s->fall[border];
        }
        border += s->bytes[i] == s->bytes[border];
        s->fall[i + 1] = border;
    }
    return true;
}

bool text_begin(text_out *t, const char *const *stop, int n_stop, bool drop_space, arena *memory) {
    *t = (text_out){.drop_space = drop_space};
    size_t longest = 0;
    for (int i = 0; i < n_stop && t->n_stop < TEXT_MAX_STOP; i++) {
        size_t len = stop[i] ? strlen(stop[i]) : 0;
        if (len == 0) {
            continue;
        }
        if (len > INT_MAX / 2 || !prepare(&t->stop[t->n_stop], stop[i], len, memory)) {
            return false;
        }
        t->n_stop++;
        longest = len > longest ? len : longest;
    }
    return str_reserve(&t->held, longest + ROOM_FOR_PIECES) &&
           str_reserve(&t->clean, MOST_PER_BYTE * (longest + ROOM_FOR_PIECES));
}

void text_free(text_out *t) {
    str_free(&t->held);
    str_free(&t->clean);
}

bool text_failed(const text_out *t) {
    return t->held.failed || t->clean.failed;
}

/* Feeds one byte to all automata. Returns the longest stop string that ends here, or -1. */
static int follow(text_out *t, char c) {
    int hit = -1;
    for (int i = 0; i < t->n_stop; i++) {
        text_stop *s = &t->stop[i];
        while (s->matched > 0 && c != s->bytes[s->matched]) {
            s->matched = s->fall[s->matched];
        }
        s->matched += c == s->bytes[s->matched];
        if (s->matched == s->len && (hit < 0 || s->len > t->stop[hit].len)) {
            hit = i;
        }
    }
    return hit;
}

static void forget_given(text_out *t) {
    if (t->given > 0) {
        memmove(t->held.data, t->held.data + t->given, t->held.len - t->given);
        t->held.len -= t->given;
        t->given = 0;
    }
}

/* Hands out the first n held bytes. */
static text_span give(text_out *t, size_t n) {
    t->given = n;
    const char *bytes = t->held.data ? t->held.data : "";
    if (utf8_valid(bytes, n, NULL)) {
        return (text_span){bytes, n};
    }
    str_clear(&t->clean);
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        char     out[4];
        at += utf8_decode(bytes + at, n - at, &cp);
        str_add(&t->clean, out, utf8_encode(cp, out));
    }
    return t->clean.failed ? (text_span){"", 0} : (text_span){t->clean.data, t->clean.len};
}

static size_t may_be_shown(const text_out *t) {
    int back = 0;
    for (int i = 0; i < t->n_stop; i++) {
        back = t->stop[i].matched > back ? t->stop[i].matched : back;
    }
    return t->held.len > 0 ? utf8_whole(t->held.data, t->held.len - (size_t)back) : 0;
}

int text_add(text_out *t, const char *bytes, size_t n, text_span *out) {
    forget_given(t);
    if (t->drop_space && n > 0) {
        t->drop_space = false;
        if (bytes[0] == ' ') {
            bytes++;
            n--;
        }
    }
    size_t old = t->held.len;
    *out = (text_span){"", 0};
    if (!str_add(&t->held, bytes, n)) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        int hit = follow(t, bytes[i]);
        if (hit >= 0) {
            t->held.len = old + i + 1 - (size_t)t->stop[hit].len;
            *out = give(t, t->held.len);
            return hit;
        }
    }
    *out = give(t, may_be_shown(t));
    return -1;
}

text_span text_end(text_out *t) {
    forget_given(t);
    return give(t, t->held.len);
}
