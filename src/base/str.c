#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the lowest byte of a word is the first in memory");

/* Makes room for `more` bytes and a NUL. Apart from its callers so that these stay short where room is left. */
static bool grow(str *s, size_t more) {
    if (s->failed) {
        return false;
    }
    if (more >= SIZE_MAX / 2 - s->len) {
        s->failed = true;
        return false;
    }
    size_t need = s->len + more + 1;
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

/* len is below cap, or both are 0 */
static bool has_room(const str *s, size_t more) {
    return more < s->cap - s->len && !s->failed;
}

bool str_reserve(str *s, size_t more) {
    return has_room(s, more) || grow(s, more);
}

bool str_add(str *s, const void *bytes, size_t n) {
    if (!has_room(s, n) && !grow(s, n)) {
        return false;
    }
    if (n) {
        memcpy(s->data + s->len, bytes, n);
    }
    s->len += n;
    s->data[s->len] = '\0';
    return true;
}

bool str_addi(str *s, long long value) {
    char               digits[24];
    char              *at = digits + sizeof(digits);
    unsigned long long left = value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value;
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0) {
        *--at = '-';
    }
    return str_add(s, at, (size_t)(digits + sizeof(digits) - at));
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

/* The top bit of each byte that is a quote, a backslash or below 0x20. A byte of x with its top bit clear is zero where
 * x - 1 has it set (after Mycroft 1987); a borrow can add a false alarm only above a true one. */
static uint64_t special_bytes(uint64_t w) {
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x8080808080808080u;
    return (((w ^ ones * '"') - ones) | ((w ^ ones * '\\') - ones) | (w - ones * 0x20)) & ~w & tops;
}

/* The same for many bytes, written so that a compiler makes vectors of it. */
#define BLOCK 64
static bool plain_block(const char *bytes) {
    unsigned char special = 0;
    for (int i = 0; i < BLOCK; i++) {
        unsigned char c = (unsigned char)bytes[i];
        special |= (unsigned char)((((c ^ '"') - 1) | ((c ^ '\\') - 1) | (c - 0x20)) & ~c);
    }
    return special < 0x80;
}

/* Not inlined (gcc and clang): preparing its vectors costs more than a short string. */
__attribute__((noinline)) static size_t plain_blocks(const char *bytes, size_t n) {
    size_t at = 0;
    while (n - at >= BLOCK && plain_block(bytes + at)) {
        at += BLOCK;
    }
    return at;
}

/* How many of the eight bytes come before the first special one. */
static size_t plain_in_word(const char *bytes) {
    uint64_t w;
    memcpy(&w, bytes, 8);
    uint64_t special = special_bytes(w);
    return special ? (size_t)__builtin_ctzll(special) / 8 : 8; /* gcc and clang: the lowest bit that is set */
}

size_t str_json_plain(const char *bytes, size_t n) {
    size_t at = 0;
    while (n - at >= 8) {
        size_t plain = plain_in_word(bytes + at);
        at += plain;
        if (plain < 8) {
            return at;
        }
        if (at == 32) { /* a long one */
            at += plain_blocks(bytes + at, n - at);
        }
    }
    if (n >= 8) { /* the last eight, of which some are known to be plain */
        return n - 8 + plain_in_word(bytes + n - 8);
    }
    while (at < n && bytes[at] != '"' && bytes[at] != '\\' && (unsigned char)bytes[at] >= 0x20) {
        at++;
    }
    return at;
}

/* The escape of one byte, which is none that str_json_plain lets through. */
static bool add_escape(str *s, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    char              e = escape_of(c);
    char              code[6] = {'\\', e, '0', '0', hex[c >> 4], hex[c & 15]};
    return str_add(s, code, e == 'u' ? 6 : 2);
}

bool str_json(str *s, const char *bytes, size_t n) {
    if (n > SIZE_MAX - 2 || !str_reserve(s, n + 2)) { /* exact for most texts */
        s->failed = true;
        return false;
    }
    size_t at = str_json_plain(bytes, n);
    s->data[s->len++] = '"';
    if (at) {
        memcpy(s->data + s->len, bytes, at);
        s->len += at;
    }
    while (at < n) {
        add_escape(s, (unsigned char)bytes[at++]);
        size_t plain = str_json_plain(bytes + at, n - at);
        str_add(s, bytes + at, plain);
        at += plain;
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
    unsigned           rest = (unsigned)(amount % 1000000);
    char               fraction[7] = {'.'};
    for (int i = 6; i > 0; i--) {
        fraction[i] = (char)('0' + rest % 10);
        rest /= 10;
    }
    if (micro_usd < 0) {
        str_addc(s, '-');
    }
    str_addi(s, (long long)(amount / 1000000));
    return str_add(s, fraction, sizeof(fraction));
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
