#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool str_reserve(str *s, size_t more) {
    if (s->failed) {
        return false;
    }
    if (more >= SIZE_MAX / 2 - s->len) {
        s->failed = true;
        return false;
    }
    size_t need = s->len + more + 1;
    if (need <= s->cap) {
        return true;
    }
    size_t cap = s->cap < 32 ? 64 : s->cap + s->cap / 2;
    if (cap < need) {
        cap = need;
    }
    char *data = realloc(s->data, cap);
    if (!data) {
        s->failed = true;
        return false;
    }
    data[s->len] = '\0';
    s->data = data;
    s->cap = cap;
    return true;
}

bool str_add(str *s, const void *bytes, size_t n) {
    if (!str_reserve(s, n)) {
        return false;
    }
    if (n) {
        memcpy(s->data + s->len, bytes, n);
    }
    s->len += n;
    s->data[s->len] = '\0';
    return true;
}

bool str_adds(str *s, const char *text) {
    return str_add(s, text, strlen(text));
}

bool str_addc(str *s, char c) {
    return str_add(s, &c, 1);
}

bool str_addf(str *s, const char *format, ...) {
    if (!str_reserve(s, 64)) {
        return false;
    }
    size_t  room = s->cap - s->len;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->data + s->len, room, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n >= room && str_reserve(s, (size_t)n)) {
        va_start(args, format);
        n = vsnprintf(s->data + s->len, s->cap - s->len, format, args);
        va_end(args);
    }
    if (n < 0 || s->failed) {
        s->data[s->len] = '\0';
        s->failed = true;
        return false;
    }
    s->len += (size_t)n;
    return true;
}

/* What follows the backslash for a byte that JSON wants escaped; 'u' for \u00XX. */
static char escape_of(unsigned char c) {
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 'u';
    }
}

size_t str_json_plain(const char *bytes, size_t n) {
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x8080808080808080u;
    size_t         at = 0;
    for (; n - at >= 8; at += 8) {
        uint64_t w;
        memcpy(&w, bytes + at, 8);
        /* A byte of x is zero where (x - ones) & ~x has its top bit (Mycroft 1987); a borrow can add a false alarm only
         * behind a true one, which the loop below sorts out. */
        uint64_t quote = w ^ ones * '"';
        uint64_t slash = w ^ ones * '\\';
        uint64_t hit = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((w - ones * 0x20) & ~w);
        if (hit & tops) {
            break;
        }
    }
    while (at < n && bytes[at] != '"' && bytes[at] != '\\' && (unsigned char)bytes[at] >= 0x20) {
        at++;
    }
    return at;
}

bool str_json(str *s, const char *bytes, size_t n) {
    static const char hex[] = "0123456789abcdef";
    if (n > SIZE_MAX - 2 || !str_reserve(s, n + 2)) { /* exact for most texts */
        s->failed = true;
        return false;
    }
    str_addc(s, '"');
    for (size_t i = 0; i < n; i++) {
        size_t plain = str_json_plain(bytes + i, n - i);
        str_add(s, bytes + i, plain);
        i += plain;
        if (i == n) {
            break;
        }
        unsigned char c = (unsigned char)bytes[i];
        char          e = escape_of(c);
        if (e == 'u') {
            char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            str_add(s, code, sizeof(code));
        } else {
            char code[2] = {'\\', e};
            str_add(s, code, sizeof(code));
        }
    }
    return str_addc(s, '"');
}

bool str_jsons(str *s, const char *text) {
    return text ? str_json(s, text, strlen(text)) : str_adds(s, "null");
}

bool str_label(str *s, const char *text) {
    str_addc(s, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') {
            str_addc(s, '\\');
        }
        str_adds(s, *text == '\n' ? "\\n" : (char[]){*text, '\0'});
    }
    return str_addc(s, '"');
}

bool str_usd(str *s, long long micro_usd) {
    unsigned long long amount = micro_usd < 0 ? 0ULL - (unsigned long long)micro_usd : (unsigned long long)micro_usd;
    return str_addf(s, "%s%llu.%06llu", micro_usd < 0 ? "-" : "", amount / 1000000, amount % 1000000);
}

void str_clear(str *s) {
    s->len = 0;
    s->failed = false;
    if (s->data) {
        s->data[0] = '\0';
    }
}

void str_free(str *s) {
    free(s->data);
    *s = (str){0};
}

char *str_take(str *s) {
    char *data = s->failed || s->len == 0 ? NULL : s->data;
    if (!data) {
        free(s->data);
    }
    *s = (str){0};
    return data;
}
