/* chars.h - what kind of character a code point is, for the split patterns.
 *
 * General categories from utf8proc (Unicode 15), white space by the White_Space property. The table is filled once, by
 * chars_init; afterwards any thread reads it.                                                                        */
#ifndef PARE_MODEL_TOKENIZER_CHARS_H
#define PARE_MODEL_TOKENIZER_CHARS_H

#include <stddef.h>
#include <stdint.h>

#include "base/utf8.h"

enum {
    CHAR_LETTER = 1,      /* L* */
    CHAR_NUMBER = 2,      /* N* */
    CHAR_PUNCTUATION = 4, /* P* */
    CHAR_SYMBOL = 8,      /* S* */
    CHAR_MARK = 16,       /* M* */
    CHAR_SPACE = 32,      /* White_Space, whatever the category */
    CHAR_UPPER = 64,      /* Lu Lt */
    CHAR_LOWER = 128      /* Ll */
};

enum { CHARS_TABLE = 0x20000 }; /* planes 0 and 1; the rest is looked up each time */

extern uint8_t chars_table[CHARS_TABLE];

void     chars_init(void); /* from any thread, any number of times; before the first read */
unsigned chars_far(uint32_t cp);

static inline unsigned chars_class(uint32_t cp) {
    return cp < CHARS_TABLE ? chars_table[cp] : chars_far(cp);
}

/* The class of the character at p and its length in bytes. At the end: class 0, length 0. A byte that is not UTF-8 is
 * a character of no class, one byte long. */
static inline unsigned chars_at(const uint8_t *p, const uint8_t *end, size_t *len) {
    if (p >= end) {
        *len = 0;
        return 0;
    }
    if (*p < 0x80) {
        *len = 1;
        return chars_table[*p];
    }
    uint32_t cp;
    *len = utf8_decode((const char *)p, (size_t)(end - p), &cp);
    return *len == 1 ? 0 : chars_class(cp);
}

#endif
