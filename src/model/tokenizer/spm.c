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

static const char space_mark[] = "\xE2\x96\x81"; /* U+2581 */

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The value of "<0xXX>"; -1: the text is something else. */
static int byte_value(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = hex_value(text[3]);
    int low = hex_value(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static size_t decode(const char *text, size_t n, token_kind kind, char *out) {
    if (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN || kind == TOKEN_USER_DEFINED) {
        memcpy(out, text, n);
        return n;
    }
    int byte = kind == TOKEN_BYTE ? byte_value(text, n) : -1;
    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(text + i, space_mark, 3) == 0) {
            out[len++] = ' ';
            i += 3;
        } else {
            out[len++] = text[i++];
        }
    }
    return len;
}

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

static bool read_scores(tokenizer *t, const gguf *g, err *e) {
    const uint32_t count = t->vocab.count;
    float         *scores = calloc(count, sizeof(*scores));
    t->spm.rank = malloc(count * sizeof(*t->spm.rank));
    bool ok = scores && t->spm.rank;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for %u scores", count);
    } else if (gguf_has(g, "tokenizer.ggml.scores")) {
        ok = gguf_array_floats(g, "tokenizer.ggml.scores", scores, count, e);
    }
    for (uint32_t i = 0; ok && i < count; i++) {
        t->spm.rank[i] = rank_of_score(scores[i]);
    }
    free(scores);
    return ok;
}

bool spm_open(tokenizer *t, const gguf *g, err *e) {
    if (!read_scores(t, g, e)) {
        return false;
    }
    const vocab *v = &t->vocab;
    for (uint32_t i = 0; i < v->count; i++) {
        size_t         n;
        const uint8_t *text = (const uint8_t *)vocab_text(v, i, &n);
        for (size_t k = 1; k < n; k++) {
            uint32_t bit = (uint32_t)text[k - 1] << 8 | text[k];
            t->spm.together[bit / 64] |= (uint64_t)1 << bit % 64;
        }
    }
    for (int b = 0; b < 256; b++) {
        static const char digits[] = "0123456789ABCDEF";
        const char        text[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
        const char        raw = (char)b;
        t->spm.byte_token[b] = vocab_find(v, text, 6);
        if (t->spm.byte_token[b] < 0) {
            t->spm.byte_token[b] = vocab_find(v, &raw, 1);
        }
    }
    t->adds_bos = true;
    t->space_prefix = true;
    if (gguf_has(g, "tokenizer.ggml.add_space_prefix") &&
        !gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, e)) {
        return false;
    }
    return vocab_pieces(&t->vocab, decode, e);
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

static bool add_bytes(encoder *c, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int32_t id = c->t->spm.byte_token[(uint8_t)text[i]];
        id = id >= 0 ? id : c->t->unknown;
        if (id >= 0 && !token_ids_add(c->out, id)) {
            return false;
        }
    }
    return true;
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
        if (id >= 0 ? !token_ids_add(c->out, id) : !add_bytes(c, text + s->at, s->len)) {
            return false;
        }
    }
    return count > 0;
}

/* Encodes c->text and empties it. */
static bool flush(encoder *c) {
    const tokenizer *t = c->t;
    if (c->text.len == 0) {
        return true;
    }
    int32_t id = vocab_find(&t->vocab, c->text.data, c->text.len);
    int     whole = id < 0 ? WHOLE_NO : atomic_load_explicit(&t->whole[id], memory_order_relaxed);
    if (whole == WHOLE_YES) {
        c->text.len = 0;
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
    c->text.len = 0;
    return true;
}

/* Adds one character, n bytes, after encoding what stands before it if nothing can join the two. */
static inline bool add_char(encoder *c, const char *bytes, size_t n) {
    str *text = &c->text;
    if (text->len > 0) {
        uint32_t bit = (uint32_t)(uint8_t)text->data[text->len - 1] << 8 | (uint8_t)bytes[0];
        bool     apart = !(c->t->spm.together[bit / 64] >> bit % 64 & 1);
        if ((apart || text->len + n > MERGE_MAX) && !flush(c)) {
            return false;
        }
    }
    if (text->cap - text->len < 8 && !str_reserve(text, text->len + 256)) {
        return false;
    }
    memcpy(text->data + text->len, bytes, n);
    text->len += n;
    return true;
}

bool spm_encode(encoder *c, const char *text, size_t n, bool prefix) {
    c->text.len = 0;
    if (prefix && !add_char(c, space_mark, 3)) {
        return false;
    }
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t cp;
        len = (uint8_t)text[at] < 0x80 ? 1 : utf8_decode(text + at, n - at, &cp);
        bool ok = text[at] == ' ' ? add_char(c, space_mark, 3) : add_char(c, text + at, len);
        if (!ok) {
            return false;
        }
    }
    return flush(c);
}
