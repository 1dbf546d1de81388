/* bpe.c - byte-level BPE: cut the text by the pattern, look each piece up whole, else merge it.
 *
 * Texts in the vocabulary write each byte as a character of its own (byte_to_char below). Merges become a table from
 * two symbols to a third, so that encoding compares integers only. Sources: GPT-2 (Radford et al. 2019) for the bytes,
 * Sennrich et al. 2016 for the merges.                                                                               */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/map.h"
#include "model/tokenizer/chars.h"
#include "model/tokenizer/internal.h"

/* Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, for U+0100 and on. */
static bool is_printable(uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

typedef struct byte_char { /* the character of a byte, in UTF-8 */
    char    text[2];
    uint8_t len;
} byte_char;

static byte_char byte_to_char[256];
static int16_t   char_to_byte[0x144]; /* by code point; -1: none */

static void fill_bytes(void) {
    memset(char_to_byte, -1, sizeof(char_to_byte));
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t cp = is_printable(b) ? b : next++;
        char     text[4];
        byte_to_char[b].len = (uint8_t)utf8_encode(cp, text);
        memcpy(byte_to_char[b].text, text, 2);
        char_to_byte[cp] = (int16_t)b;
    }
}

/* Characters outside the alphabet (in added tokens) stand for themselves. */
static size_t decode(const char *text, size_t n, token_kind kind, char *out) {
    if (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN || kind == TOKEN_USER_DEFINED) {
        memcpy(out, text, n);
        return n;
    }
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t   step = utf8_decode(text + i, n - i, &cp);
        if (cp < sizeof(char_to_byte) / sizeof(char_to_byte[0]) && char_to_byte[cp] >= 0) {
            out[len++] = (char)char_to_byte[cp];
        } else {
            memcpy(out + len, text + i, step);
            len += step;
        }
        i += step;
    }
    return len;
}

/* ---- The table of merges ---- */

static uint64_t pair_slot(const bpe *b, uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) ^ b->seed;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    return (h ^ h >> 32) & b->mask;
}

static const bpe_pair *pair_find(const bpe *b, uint32_t left, uint32_t right) {
    uint64_t i = pair_slot(b, left, right);
    while (b->pairs[i].rank != MERGE_NO_RANK && (b->pairs[i].left != left || b->pairs[i].right != right)) {
        i = (i + 1) & b->mask;
    }
    return &b->pairs[i];
}

/* A symbol for a text: its token or, from `extra`, a number past the tokens. False when out of memory. */
static bool symbol_of(const vocab *v, map *extra, const char *text, size_t n, uint32_t *symbol) {
    int32_t id = vocab_find(v, text, n);
    if (id >= 0) {
        *symbol = (uint32_t)id;
        return true;
    }
    int64_t known;
    if (map_get(extra, text, n, &known)) {
        *symbol = (uint32_t)known;
        return true;
    }
    *symbol = v->count + (uint32_t)map_count(extra);
    return map_put(extra, text, n, *symbol);
}

/* "left right": the first blank after the first byte parts them. A line without one is skipped, as in the reference;
 * of a merge that stands twice the first counts. */
static bool add_merge(tokenizer *t, map *extra, str *joined, gguf_str line, uint32_t rank) {
    const char *blank = line.len > 1 ? memchr(line.data + 1, ' ', line.len - 1) : NULL;
    if (!blank || blank + 1 == line.data + line.len) {
        return true;
    }
    const size_t left_len = (size_t)(blank - line.data);
    const size_t right_len = line.len - left_len - 1;
    uint32_t     left, right, id;
    str_clear(joined);
    str_add(joined, line.data, left_len);
    if (!str_add(joined, blank + 1, right_len) || !symbol_of(&t->vocab, extra, line.data, left_len, &left) ||
        !symbol_of(&t->vocab, extra, blank + 1, right_len, &right) ||
        !symbol_of(&t->vocab, extra, joined->data, joined->len, &id)) {
        return false;
    }
    bpe_pair *pair = (bpe_pair *)pair_find(&t->bpe, left, right);
    if (pair->rank == MERGE_NO_RANK) {
        *pair = (bpe_pair){left, right, rank, id};
    }
    return true;
}

static bool read_merges(tokenizer *t, const gguf *g, err *e) {
    map        *extra = t->bpe.extra;
    const char *key = "tokenizer.ggml.merges";
    gguf_kind   kind;
    size_t      count;
    if (!gguf_array(g, key, &kind, &count, e)) {
        return false;
    }
    if (kind != GGUF_STRING || count > (size_t)4 * VOCAB_MAX) {
        return err_set(e, ERR_INVALID, "%s: %s must be an array of at most %d strings", gguf_name(g), key,
                       4 * VOCAB_MAX);
    }
    uint64_t slots = 16;
    while (slots < 2 * (uint64_t)count) {
        slots *= 2;
    }
    bpe      *b = &t->bpe;
    gguf_str *lines = malloc((count + 1) * sizeof(*lines));
    str       joined = {0};
    b->pairs = malloc(slots * sizeof(*b->pairs));
    b->mask = slots - 1;
    b->seed = hash_seed();
    bool ok = lines && b->pairs;
    if (ok) {
        memset(b->pairs, 0xFF, slots * sizeof(*b->pairs)); /* every rank MERGE_NO_RANK */
    }
    for (uint32_t i = 0; ok && i < 256; i++) {
        ok = symbol_of(&t->vocab, extra, byte_to_char[i].text, byte_to_char[i].len, &b->byte_symbol[i]);
        b->byte_token[i] = vocab_find(&t->vocab, byte_to_char[i].text, byte_to_char[i].len);
    }
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for %zu merges", count);
    } else if ((ok = count == 0 || gguf_array_strings(g, key, lines, count, e))) {
        for (size_t i = 0; ok && i < count; i++) {
            ok = add_merge(t, extra, &joined, lines[i], (uint32_t)i) ||
                 err_set(e, ERR_MEMORY, "out of memory for %zu merges", count);
        }
    }
    free(lines);
    str_free(&joined);
    return ok;
}

/* The file's name of the pattern; tokenizer.ggml.model itself may be one (gemma4, whitespace). */
static bool find_pattern(tokenizer *t, const gguf *g, err *e) {
    gguf_str model;
    gguf_str name = {"", 0};
    if (!gguf_string(g, "tokenizer.ggml.model", &model, e)) {
        return false;
    }
    if (model.len != 4 || memcmp(model.data, "gpt2", 4) != 0) {
        name = model;
    } else if (gguf_has(g, "tokenizer.ggml.pre") && !gguf_string(g, "tokenizer.ggml.pre", &name, e)) {
        return false;
    }
    t->bpe.pattern = split_named(name.data, name.len);
    if (!t->bpe.pattern) {
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.pre is \"%.*s\", a pre-tokenizer that this version does not know",
                       gguf_name(g), (int)(name.len < 60 ? name.len : 60), name.data);
    }
    return true;
}

bool bpe_open(tokenizer *t, const gguf *g, err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_bytes);
    chars_init();
    if (!find_pattern(t, g, e) || !key_bool(g, "tokenizer.ggml.normalizer.lowercase", &t->bpe.lower, e)) {
        return false;
    }
    t->adds_bos = t->bpe.pattern->adds_bos;
    t->bpe.extra = map_new(64);
    if (!t->bpe.extra) {
        return err_set(e, ERR_MEMORY, "out of memory for the merges");
    }
    if (!read_merges(t, g, e)) {
        return false;
    }
    return t->bpe.pattern->raw == SPLIT_RAW_NOT ? vocab_pieces(&t->vocab, decode, e) : pieces_open(t, g, e);
}

void bpe_close(tokenizer *t) {
    free(t->bpe.pairs);
    map_free(t->bpe.extra);
}

/* ---- Encoding ---- */

static uint32_t rank_of(const void *model, const merge_symbol *left, const merge_symbol *right, uint32_t *id) {
    const bpe_pair *pair = pair_find(model, left->id, right->id);
    *id = pair->joined;
    return pair->rank;
}

bool bpe_merge(encoder *c, size_t count, const char *text, bool (*missing)(encoder *c, const char *text, size_t n)) {
    count = merge_run(&c->space, count, rank_of, &c->t->bpe);
    for (size_t i = 0; i < count; i++) {
        const merge_symbol *s = &c->space.symbols[i];
        const bool          is_token = s->id < c->t->vocab.count;
        if (is_token ? !token_ids_add(c->out, (int32_t)s->id) : !missing(c, text + s->at, s->len)) {
            return false;
        }
    }
    return count > 0;
}

/* What the vocabulary lacks becomes the tokens of its bytes; a byte without a token is lost, as in the reference. */
static bool add_bytes(encoder *c, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int32_t id = c->t->bpe.byte_token[(uint8_t)text[i]];
        if (id >= 0 && !token_ids_add(c->out, id)) {
            return false;
        }
    }
    return true;
}

static bool encode_merged(encoder *c, const uint8_t *word, size_t n) {
    const bpe *b = &c->t->bpe;
    if (!merge_space_symbols(&c->space, n)) {
        return false;
    }
    merge_symbol *symbols = c->space.symbols;
    for (size_t i = 0; i < n; i++) {
        symbols[i].id = b->byte_symbol[word[i]];
        symbols[i].at = (uint32_t)i;
        symbols[i].len = 1;
    }
    return bpe_merge(c, n, (const char *)word, add_bytes);
}

/* The token whose text is the whole piece; -1: none. False when out of memory. */
static bool whole_piece(encoder *c, const uint8_t *word, size_t n, int32_t *id) {
    *id = -1;
    if (n > c->t->vocab.longest) {
        return true;
    }
    str_clear(&c->text);
    if (!str_reserve(&c->text, 2 * n)) {
        return false;
    }
    char *out = c->text.data;
    for (size_t i = 0; i < n; i++) {
        const byte_char *ch = &byte_to_char[word[i]];
        memcpy(out, ch->text, 2);
        out += ch->len;
    }
    *id = vocab_find(&c->t->vocab, c->text.data, (size_t)(out - c->text.data));
    return true;
}

static bool encode_new(encoder *c, const uint8_t *word, size_t n) {
    const tokenizer *t = c->t;
    int32_t          id;
    if (!whole_piece(c, word, n, &id)) {
        return false;
    }
    const bool ordinary = id >= 0 && t->vocab.kinds[id] != TOKEN_CONTROL && t->vocab.kinds[id] != TOKEN_UNKNOWN;
    int        whole = id < 0 ? WHOLE_NO : atomic_load_explicit(&t->whole[id], memory_order_relaxed);
    if (whole == WHOLE_YES || (ordinary && t->bpe.pattern->whole_first)) {
        return token_ids_add(c->out, id);
    }
    const size_t before = c->out->count;
    for (size_t at = 0; at < n; at += MERGE_MAX) {
        if (!encode_merged(c, word + at, n - at < MERGE_MAX ? n - at : MERGE_MAX)) {
            return false;
        }
    }
    if (whole == WHOLE_UNKNOWN) {
        bool alone = c->out->count == before + 1 && c->out->ids[before] == id;
        atomic_store_explicit(&t->whole[id], alone ? WHOLE_YES : WHOLE_NO, memory_order_relaxed);
    }
    return true;
}

static bool encode_word(void *arg, const uint8_t *bytes, size_t n) {
    encoder     *c = arg;
    const size_t before = c->out->count;
    word         key;
    word        *slot = words_slot(&c->words, &key, (const char *)bytes, n);
    if (slot && word_is(slot, &key)) {
        return token_ids_append(c->out, slot->ids, slot->count);
    }
    if (!encode_new(c, bytes, n)) {
        return false;
    }
    if (slot) {
        word_keep(slot, &key, c->out->ids + before, c->out->count - before);
    }
    return true;
}

bool bpe_encode(encoder *c, const char *text, size_t n, bool first) {
    const split_pattern *pattern = c->t->bpe.pattern;
    (void)first;
    return pattern->raw == SPLIT_RAW_NOT ? split_text(pattern, (const uint8_t *)text, n, encode_word, c)
                                         : bpe_raw_encode(c, text, n);
}
