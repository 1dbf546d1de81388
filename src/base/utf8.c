#include "base/utf8.h"

#include <string.h>

/* Looks at the character that begins at bytes[0] (n > 0). Returns its length when it is whole and valid, 0 when it can
 * never become valid, and -1 when it is valid as far as it goes and needs more bytes.
 * Source: the table of well-formed sequences, Unicode standard, table 3-7. */
static int look(const unsigned char *b, size_t n) {
    if (b[0] < 0x80) {
        return 1;
    }
    int           len;
    unsigned char low = 0x80; /* bounds of the second byte */
    unsigned char high = 0xBF;
    if (b[0] < 0xC2) {
        return 0;
    } else if (b[0] < 0xE0) {
        len = 2;
    } else if (b[0] < 0xF0) {
        len = 3;
        low = b[0] == 0xE0 ? 0xA0 : 0x80;  /* overlong */
        high = b[0] == 0xED ? 0x9F : 0xBF; /* surrogates */
    } else if (b[0] < 0xF5) {
        len = 4;
        low = b[0] == 0xF0 ? 0x90 : 0x80;  /* overlong */
        high = b[0] == 0xF4 ? 0x8F : 0xBF; /* past U+10FFFF */
    } else {
        return 0;
    }
    if (n > 1 && (b[1] < low || b[1] > high)) {
        return 0;
    }
    for (int i = 2; i < len && (size_t)i < n; i++) {
        if ((b[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return n < (size_t)len ? -1 : len;
}

/* Written so that a compiler makes vectors of it. */
#define BLOCK 128
static bool ascii_block(const unsigned char *b) {
    unsigned char any = 0;
    for (int i = 0; i < BLOCK; i++) {
        any |= b[i];
    }
    return any < 0x80;
}

/* How many of these bytes are ASCII, in whole words. */
static size_t skip_ascii(const unsigned char *b, size_t n) {
    size_t at = 0;
    while (n - at >= BLOCK && ascii_block(b + at)) {
        at += BLOCK;
    }
    for (; n - at >= 8; at += 8) {
        uint64_t w;
        memcpy(&w, b + at, 8);
        if (w & 0x8080808080808080u) {
            break;
        }
    }
    return at;
}

bool utf8_valid(const char *bytes, size_t n, size_t *bad) {
    const unsigned char *b = (const unsigned char *)bytes;
    size_t               i = 0;
    while (i < n) {
        i += skip_ascii(b + i, n - i);
        while (i < n && b[i] < 0x80) {
            i++;
        }
        while (i < n && b[i] >= 0x80) {
            int len = look(b + i, n - i);
            if (len <= 0) {
                if (bad) {
                    *bad = i;
                }
                return false;
            }
            i += (size_t)len;
        }
    }
    return true;
}

size_t utf8_whole(const char *bytes, size_t n) {
    const unsigned char *b = (const unsigned char *)bytes;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = b[n - back];
        if ((c & 0xC0) == 0x80) {
            continue; /* a continuation: the lead byte is further back */
        }
        return look(b + n - back, back) < 0 ? n - back : n;
    }
    return n;
}

size_t utf8_decode(const char *bytes, size_t n, uint32_t *cp) {
    *cp = 0xFFFD;
    if (n == 0) {
        return 0;
    }
    const unsigned char *b = (const unsigned char *)bytes;
    switch (look(b, n)) {
    case 1:
        *cp = b[0];
        return 1;
    case 2:
        *cp = (uint32_t)(b[0] & 0x1F) << 6 | (b[1] & 0x3F);
        return 2;
    case 3:
        *cp = (uint32_t)(b[0] & 0x0F) << 12 | (uint32_t)(b[1] & 0x3F) << 6 | (b[2] & 0x3F);
        return 3;
    case 4:
        *cp = (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3F) << 12 | (uint32_t)(b[2] & 0x3F) << 6 |
              (b[3] & 0x3F);
        return 4;
    default:
        return 1;
    }
}

size_t utf8_encode(uint32_t cp, char out[4]) {
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) {
        cp = 0xFFFD;
    }
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

void utf8_copy(char *to, size_t size, const char *from) {
    const char *text = from ? from : "";
    size_t      n = strnlen(text, size);
    n = n < size ? n : utf8_whole(text, size - 1);
    memcpy(to, text, n);
    to[n] = '\0';
}
