/* split_match_stages.c - the short expressions that several-stage patterns (falcon, starcoder, deepseek) begin with. */
#include "model/tokenizer/chars.h"
#include "model/tokenizer/split_match.h"

typedef const uint8_t *place;

typedef bool (*in_set)(unsigned class, uint32_t cp);

/* [set]+ , after an optional white space when `space`. */
static inline size_t set_run(place p, place end, in_set in, bool space, split_found *matched) {
    place    start = p;
    size_t   first = 0;
    size_t   n = 0;
    uint32_t cp;
    if (space && (chars_at(p, end, &n) & CHAR_SPACE)) {
        first = n;
        start = p + n;
    }
    place q = start;
    while (q < end) {
        cp = *q;
        n = 1;
        if (cp >= 0x80 && (n = utf8_decode((const char *)q, (size_t)(end - q), &cp)) == 1) {
            break; /* a wrong byte is in no set */
        }
        if (!in(chars_class(cp), cp)) {
            break;
        }
        q += n;
    }
    if (q == p) {
        first = n;
    }
    *matched = q > start;
    return *matched ? (size_t)(q - p) : first;
}

static bool is_number(unsigned class, uint32_t cp) {
    (void)cp;
    return class & CHAR_NUMBER;
}

static bool is_letter(unsigned class, uint32_t cp) {
    (void)cp;
    return class & CHAR_LETTER;
}

static bool is_punctuation(unsigned class, uint32_t cp) {
    (void)cp;
    return class & CHAR_PUNCTUATION;
}

static bool is_default_mark(unsigned class, uint32_t cp) {
    return (class & CHAR_PUNCTUATION) || cp == '$' || cp == '+' || (cp >= '<' && cp <= '>') || cp == '^' || cp == '~' ||
           cp == '|';
}

static bool is_falcon_mark(unsigned class, uint32_t cp) {
    return is_default_mark(class, cp) || cp == '`';
}

/* The third range of the expression ends at U+4E00 and thereby takes the second in; written as published. */
static bool is_cjk(unsigned class, uint32_t cp) {
    (void)class;
    return (cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x800 && cp <= 0x4E00) || (cp >= 0xAC00 && cp <= 0xD7FF);
}

static bool is_cjk_or_kana(unsigned class, uint32_t cp) {
    (void)class;
    return (cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x3040 && cp <= 0x30FF);
}

static bool is_bloom(unsigned class, uint32_t cp) {
    switch (cp) {
    case '(':
    case ')':
    case '|':
    case '.':
    case ',':
    case '!':
    case '?':
    case 0x2026: /* … */
    case 0x3002: /* 。 */
    case 0xFF0C: /* ， */
    case 0x3001: /* 、 */
    case 0x0964: /* । */
    case 0x06D4: /* ۔ */
    case 0x060C: /* ، */
        return false;
    default:
        return !(class & CHAR_SPACE);
    }
}

/* U+3000 stands at the start of the last published range, but is white space first, in the reference. */
static bool is_deepseek_mark(unsigned class, uint32_t cp) {
    (void)class;
    return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '~') || (cp >= 0xFF01 && cp <= 0xFF0F) ||
           (cp >= 0xFF1A && cp <= 0xFF5E) || (cp >= 0x2018 && cp <= 0x201F) || (cp >= 0x3001 && cp <= 0x3002);
}

/* The cased letters as deepseek-llm's tokenizer.json lists them: an older Unicode's, with gaps of its own. */
static const uint32_t cased[][2] = {
    {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},       {0xF8, 0x1BA},      {0x1BC, 0x1BF},
    {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x377},     {0x37B, 0x37D},
    {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},     {0x38C, 0x38C},     {0x38E, 0x3A1},
    {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},     {0x531, 0x556},     {0x10A0, 0x10C5},
    {0x13A0, 0x13F5},   {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},
    {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},
    {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},
    {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},   {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},
    {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},
    {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212A, 0x212D},
    {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},   {0x2145, 0x2149},   {0x214E, 0x214E},
    {0x2183, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},
    {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},
    {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},
    {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2},
    {0x118A0, 0x118DF}, {0x1E900, 0x1E943}};

static bool is_cased(unsigned class, uint32_t cp) {
    if (cp < 0x80 || !(class & CHAR_LETTER)) {
        return class & CHAR_LETTER;
    }
    size_t low = 0;
    size_t high = sizeof(cased) / sizeof(cased[0]);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cp > cased[middle][1]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < sizeof(cased) / sizeof(cased[0]) && cp >= cased[low][0];
}

SPLIT_MATCH(match_numbers) {
    return set_run(p, end, is_number, false, matched);
}

SPLIT_MATCH(match_punctuation) {
    return set_run(p, end, is_default_mark, false, matched);
}

SPLIT_MATCH(match_falcon_marks) {
    return set_run(p, end, is_falcon_mark, false, matched);
}

SPLIT_MATCH(match_cjk) {
    return set_run(p, end, is_cjk, false, matched);
}

SPLIT_MATCH(match_cjk_kana) {
    return set_run(p, end, is_cjk_or_kana, false, matched);
}

SPLIT_MATCH(match_space_letters) {
    return set_run(p, end, is_letter, true, matched);
}

SPLIT_MATCH(match_space_punctuation) {
    return set_run(p, end, is_punctuation, true, matched);
}

SPLIT_MATCH(match_space_cased) {
    return set_run(p, end, is_cased, true, matched);
}

SPLIT_MATCH(match_space_marks) {
    return set_run(p, end, is_deepseek_mark, true, matched);
}

SPLIT_MATCH(match_bloom) {
    size_t n = set_run(p + (*p == ' '), end, is_bloom, false, matched);
    return *matched ? n + (*p == ' ') : *p == ' ' ? 1 : n;
}

SPLIT_MATCH(match_number) {
    size_t n;
    *matched = (chars_at(p, end, &n) & CHAR_NUMBER) != 0;
    return n;
}

SPLIT_MATCH(match_numbers_3) {
    size_t n;
    place  q = p;
    for (int i = 0; i < 3 && (chars_at(q, end, &n) & CHAR_NUMBER); i++) {
        q += n;
    }
    *matched = q > p;
    return *matched ? (size_t)(q - p) : n;
}

SPLIT_MATCH(match_three_digits) {
    size_t n = 0;
    while (n < 3 && p + n < end && p[n] >= '0' && p[n] <= '9') {
        n++;
    }
    *matched = n == 3;
    return n > 0 ? n : 1; /* bytes of a longer character are skipped one by one; none of them is a digit */
}

SPLIT_MATCH(match_newline) {
    (void)end;
    *matched = *p == '\r' || *p == '\n';
    return 1;
}

SPLIT_MATCH(match_trailing_space) {
    size_t n;
    place  q = p;
    while (chars_at(q, end, &n) & CHAR_SPACE) {
        q += n;
    }
    *matched = q == end;
    return q > p ? (size_t)(q - p) : n;
}
