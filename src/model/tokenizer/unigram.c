/* unigram.c - SentencePiece's unigram model: of all ways to cut a text into tokens, the one whose scores (logarithms of
 * probabilities) have the greatest sum.
 *
 * The text is normalised, its spaces become U+2581, and the best way is found from left to right (Viterbi), each place
 * costing at most the longest token. Where no token has two bytes that meet, every way has a cut: the parts between
 * such places are worked out on their own and most are remembered. Source: Kudo 2018, arXiv:1804.10959; what the
 * normaliser does at spaces, and the price of an unknown character, are SentencePiece's.                             */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/tokenizer/internal.h"

static const double unknown_penalty = 10.0; /* below the worst token */

static void find_unknown_score(tokenizer *t) {
    double worst = INFINITY;
    for (uint32_t i = 0; i < t->vocab.count; i++) {
        if (t->vocab.kinds[i] == TOKEN_NORMAL) {
            worst = fmin(worst, (double)t->pieces.score[i]);
        }
    }
    t->unigram.unknown_score = (isfinite(worst) ? worst : 0) - unknown_penalty;
}

static bool has_byte_tokens(const tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        const int32_t id = t->pieces.byte_token[b];
        if (id < 0 || t->vocab.kinds[id] != TOKEN_BYTE) {
            return false;
        }
    }
    return true;
}

bool unigram_open(tokenizer *t, const gguf *g, err *e) {
    const uint32_t skip = 1u << TOKEN_CONTROL | 1u << TOKEN_UNKNOWN | 1u << TOKEN_UNUSED | 1u << TOKEN_BYTE;
    unigram       *u = &t->unigram;
    t->adds_eos = true;
    if (!pieces_open(t, g, e) || !trie_of_vocab(&u->tokens, &t->vocab, skip, gguf_name(g), e) ||
        !charsmap_open(&u->map, g, e) || !key_bool(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, e) ||
        !key_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &u->drops_extra_spaces, e)) {
        return false;
    }
    for (uint32_t i = 0; i < t->vocab.count; i++) {
        if (!isfinite(t->pieces.score[i])) {
            return err_set(e, ERR_INVALID, "%s: tokenizer.ggml.scores[%u] is not a number", gguf_name(g), i);
        }
    }
    find_unknown_score(t);
    u->byte_fallback = has_byte_tokens(t);
    return true;
}

void unigram_close(tokenizer *t) {
    trie_close(&t->unigram.tokens);
    charsmap_close(&t->unigram.map);
}

/* ---- The best way through a part ---- */

static void improve(lattice_node *node, double score, uint32_t from, int32_t id) {
    if (score > node->score) {
        *node = (lattice_node){score, from, id};
    }
}

static void find_ways(const tokenizer *t, lattice_node *best, const char *text, size_t n) {
    const trie *tokens = &t->unigram.tokens;
    for (size_t i = 0; i <= n; i++) {
        best[i].score = i == 0 ? 0 : -INFINITY;
    }
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t     cp;
        uint32_t     node = 0;
        bool         whole_char = false;
        const double so_far = best[at].score;
        len = (uint8_t)text[at] < 0x80 ? 1 : utf8_decode(text + at, n - at, &cp);
        for (size_t i = at; i < n && (node = trie_step(tokens, node, (uint8_t)text[i])) != 0; i++) {
            const int32_t id = tokens->value[node];
            if (id >= 0) {
                const double score = t->vocab.kinds[id] == TOKEN_USER_DEFINED ? 0 : (double)t->pieces.score[id];
                improve(&best[i + 1], so_far + score, (uint32_t)at, id);
                whole_char |= i + 1 - at == len;
            }
        }
        if (!whole_char) {
            improve(&best[at + len], so_far + t->unigram.unknown_score, (uint32_t)at, -1);
        }
    }
}

static void reverse(int32_t *ids, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        const int32_t id = ids[i];
        ids[i] = ids[n - 1 - i];
        ids[n - 1 - i] = id;
    }
}

/* From the end to the beginning, then turned round. A run of unknown characters is one token, or all their bytes. */
static bool add_way(encoder *c, const char *text, size_t n) {
    const tokenizer *t = c->t;
    const size_t     before = c->out->count;
    bool             in_run = false;
    bool             ok = true;
    for (size_t at = n; at > 0 && ok; at = c->lattice[at].from) {
        const lattice_node *node = &c->lattice[at];
        if (node->id >= 0) {
            ok = token_ids_add(c->out, node->id);
        } else if (t->unigram.byte_fallback) {
            for (size_t i = at; ok && i > node->from; i--) {
                ok = token_ids_add(c->out, t->pieces.byte_token[(uint8_t)text[i - 1]]);
            }
        } else if (!in_run && t->unknown >= 0) {
            ok = token_ids_add(c->out, t->unknown);
        }
        in_run = node->id < 0;
    }
    reverse(c->out->ids + before, c->out->count - before);
    return ok;
}

static bool encode_part(encoder *c, const char *text, size_t n) {
    if (c->lattice_cap < n + 1) {
        const size_t  cap = n + n / 2 + 64;
        lattice_node *grown = realloc(c->lattice, cap * sizeof(*grown));
        if (!grown) {
            return false;
        }
        c->lattice = grown;
        c->lattice_cap = cap;
    }
    find_ways(c->t, c->lattice, text, n);
    return add_way(c, text, n);
}

/* An unknown token after another is the same run. */
static bool add_part(encoder *c, const int32_t *ids, size_t count) {
    const int32_t unknown = c->t->unknown;
    if (count == 0) {
        return true;
    }
    const size_t skip = c->after_unknown && ids[0] == unknown;
    c->after_unknown = ids[count - 1] == unknown;
    return token_ids_append(c->out, ids + skip, count - skip);
}

/* Encodes c->text and empties it. */
static bool flush(encoder *c) {
    const size_t before = c->out->count;
    const size_t n = c->text.len;
    word         key;
    if (n == 0) {
        return true;
    }
    c->text.len = 0;
    word *slot = words_slot(&c->words, &key, c->text.data, n);
    if (slot && word_is(slot, &key)) {
        return add_part(c, slot->ids, slot->count);
    }
    if (!encode_part(c, c->text.data, n)) {
        return false;
    }
    const size_t count = c->out->count - before;
    if (slot) {
        word_keep(slot, &key, c->out->ids + before, count);
    }
    c->out->count = before; /* add_part moves them to where they are, or one to the left */
    return add_part(c, c->out->ids + before, count);
}

/* ---- Normalising ---- */

typedef struct spaces { /* of the text so far */
    bool   after_space; /* more are dropped */
    size_t waiting;     /* marks that are dropped if the text ends here */
} spaces;

static bool add_char(encoder *c, const char *bytes, size_t n) {
    str *text = &c->text;
    if (text->len > 0 && (pieces_apart(&c->t->pieces, text, bytes[0]) || text->len + n > MERGE_MAX) && !flush(c)) {
        return false;
    }
    return text_add_few(text, bytes, n);
}

static bool add_marks(encoder *c, spaces *s) {
    for (; s->waiting > 0; s->waiting--) {
        if (!add_char(c, SPACE_MARK, sizeof(SPACE_MARK) - 1)) {
            return false;
        }
    }
    return true;
}

/* What one match of the normaliser became. A mark in the text itself counts as a space at the end, too. */
static bool add_normalized(encoder *c, spaces *s, const char *text, size_t n) {
    const bool drops = c->t->unigram.drops_extra_spaces;
    size_t     at = 0;
    while (s->after_space && at < n && text[at] == ' ') {
        at++;
    }
    if (at < n) {
        s->after_space = drops && text[n - 1] == ' ';
    }
    for (size_t len; at < n; at += len) {
        uint32_t cp = (uint8_t)text[at];
        len = cp < 0x80 ? 1 : utf8_decode(text + at, n - at, &cp);
        if (cp == ' ' || cp == 0x2581) {
            s->waiting++;
        } else if (!add_marks(c, s) || !add_char(c, text + at, len)) {
            return false;
        }
    }
    return true;
}

/* The next piece of the text as the normaliser writes it; returns the bytes it stands for. */
static size_t normalize(const charsmap *m, const char *text, size_t n, const char **out, size_t *len) {
    if (n > 1 && (uint8_t)text[0] < 0x80 && !charsmap_may(m, (uint8_t)text[0], (uint8_t)text[1])) {
        *out = text;
        *len = 1;
        return 1;
    }
    const size_t used = charsmap_match(m, text, n, out, len);
    if (used > 0) {
        return used;
    }
    uint32_t cp;
    *len = utf8_decode(text, n, &cp);
    *out = text;
    if (cp == 0xFFFD && *len == 1) { /* not UTF-8 */
        *out = "\xEF\xBF\xBD";
        *len = 3;
        return 1;
    }
    return *len;
}

bool unigram_encode(encoder *c, const char *text, size_t n, bool first) {
    const tokenizer *t = c->t;
    const bool       drops = t->unigram.drops_extra_spaces;
    spaces           s = {.after_space = drops, .waiting = first && t->space_prefix};
    c->text.len = 0;
    c->after_unknown = false;
    for (size_t at = 0, used; at < n; at += used) {
        const char *out;
        size_t      len;
        used = normalize(&t->unigram.map, text + at, n - at, &out, &len);
        if (!add_normalized(c, &s, out, len)) {
            return false;
        }
    }
    return (drops || add_marks(c, &s)) && flush(c);
}
