/* spm.c - SentencePiece's BPE: characters joined by the score of the token they make, bytes for what has no token.
 *
 * Spaces are written U+2581. There is no normalisation and no cutting into words; but most texts fall apart where two
 * bytes meet that no token contains, and the parts are looked up whole first. Source: Kudo and Richardson 2018,
 * arXiv:1808.06226.                                                                                                  */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer/internal.h"

/* The higher the score, the lower the rank: the bits of a float, turned so that they count downwards. A score that is
 * not a number comes last. */
static uint32_t rank_of_score(float score) {
    uint32_t bits;
    if (isnan(score)) {
        return MERGE_NO_RANK - 1;
    }
    score += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof(bits));
    uint32_t upwards = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~upwards;
}

bool spm_open(tokenizer *t, const gguf *g, err *e) {
    if (!pieces_open(t, g, e)) {
        return false;
    }
    t->spm.rank = malloc(t->vocab.count * sizeof(*t->spm.rank));
    if (!t->spm.rank) {
        return err_set(e, ERR_MEMORY, "out of memory for %u scores", t->vocab.count);
    }
    for (uint32_t i = 0; i < t->vocab.count; i++) {
        t->spm.rank[i] = rank_of_score(t->pieces.score[i]);
    }
    t->adds_bos = true;
    t->space_prefix = true;
    return key_bool(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, e);
}

void spm_close(tokenizer *t) {
    free(t->spm.rank);
}

/* ---- Encoding ---- */

typedef struct part { /* what is being merged */
    const tokenizer *t;
    const char      *text;
} part;

static uint32_t rank_of(const void *model, const merge_symbol *left, const merge_symbol *right, uint32_t *id) {
    const part *p = model;
    int32_t     found = vocab_find(&p->t->vocab, p->text + left->at, (size_t)left->len + right->len);
    if (found < 0 || p->t->vocab.kinds[found] == TOKEN_CONTROL) { /* text never becomes a control token by chance */
        return MERGE_NO_RANK;
    }
    *id = (uint32_t)found;
    return p->t->spm.rank[found];
}

static bool merge_part(encoder *c, const char *text, size_t n) {
    size_t count = 0;
    for (size_t at = 0, len; at < n; at += len, count++) {
        uint32_t cp;
        len = utf8_decode(text + at, n - at, &cp);
        if (!merge_space_symbols(&c->space, count + 1)) {
            return false;
        }
        c->space.symbols[count] = (merge_symbol){.id = UINT32_MAX, .at = (uint32_t)at, .len = (uint32_t)len};
    }
    const part p = {c->t, text};
    count = merge_run(&c->space, count, rank_of, &p);
    for (size_t i = 0; i < count; i++) {
        const merge_symbol *s = &c->space.symbols[i];
        int32_t             id = s->id == UINT32_MAX ? vocab_find(&c->t->vocab, text + s->at, s->len) : (int32_t)s->id;
        if (id >= 0 ? !token_ids_add(c->out, id) : !pieces_add_bytes(c, text + s->at, s->len)) {
            return false;
        }
    }
    return count > 0;
}

/* What the text becomes, looked up whole first. */
static bool encode_part(encoder *c) {
    const tokenizer *t = c->t;
    int32_t          id = vocab_find(&t->vocab, c->text.data, c->text.len);
    int              whole = id < 0 ? WHOLE_NO : atomic_load_explicit(&t->whole[id], memory_order_relaxed);
    if (whole == WHOLE_YES) {
        return token_ids_add(c->out, id);
    }
    const size_t before = c->out->count;
    if (!merge_part(c, c->text.data, c->text.len)) {
        return false;
    }
    if (whole == WHOLE_UNKNOWN) {
        bool alone = c->out->count == before + 1 && c->out->ids[before] == id;
        atomic_store_explicit(&t->whole[id], alone ? WHOLE_YES : WHOLE_NO, memory_order_relaxed);
    }
    return true;
}

/* Encodes c->text and empties it. */
static bool flush(encoder *c) {
    word         key;
    word        *slot = words_slot(&c->words, &key, c->text.data, c->text.len);
    const size_t before = c->out->count;
    if (c->text.len == 0) {
        return true;
    }
    if (slot && word_is(slot, &key)) {
        c->text.len = 0;
        return token_ids_append(c->out, slot->ids, slot->count);
    }
    if (!encode_part(c)) {
        return false;
    }
    if (slot) {
        word_keep(slot, &key, c->out->ids + before, c->out->count - before);
    }
    c->text.len = 0;
    return true;
}

/* Adds one character, n bytes, after encoding what stands before it if nothing can join the two. */
static inline bool add_char(encoder *c, const char *bytes, size_t n) {
    str *text = &c->text;
    if (text->len > 0 && (pieces_apart(&c->t->pieces, text, bytes[0]) || text->len + n > MERGE_MAX) && !flush(c)) {
        return false;
    }
    return text_add_few(text, bytes, n);
}

bool spm_encode(encoder *c, const char *text, size_t n, bool first) {
    c->text.len = 0;
    if (first && c->t->space_prefix && !add_char(c, SPACE_MARK, 3)) {
        return false;
    }
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t cp;
        len = (uint8_t)text[at] < 0x80 ? 1 : utf8_decode(text + at, n - at, &cp);
        bool ok = text[at] == ' ' ? add_char(c, SPACE_MARK, 3) : add_char(c, text + at, len);
        if (!ok) {
            return false;
        }
    }
    return flush(c);
}
