/* pieces.c - what SPM and Unigram have in common: scores, byte tokens, how a piece reads in running text. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer/internal.h"

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

size_t pieces_decode(const char *text, size_t n, token_kind kind, char *out) {
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
        if (n - i >= 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
            out[len++] = ' ';
            i += 3;
        } else {
            out[len++] = text[i++];
        }
    }
    return len;
}

static bool read_scores(tokenizer *t, const gguf *g, err *e) {
    t->pieces.score = calloc(t->vocab.count, sizeof(*t->pieces.score));
    if (!t->pieces.score) {
        return err_set(e, ERR_MEMORY, "out of memory for %u scores", t->vocab.count);
    }
    return !gguf_has(g, "tokenizer.ggml.scores") ||
           gguf_array_floats(g, "tokenizer.ggml.scores", t->pieces.score, t->vocab.count, e);
}

bool pieces_open(tokenizer *t, const gguf *g, err *e) {
    const vocab *v = &t->vocab;
    pieces      *p = &t->pieces;
    if (!read_scores(t, g, e)) {
        return false;
    }
    for (uint32_t i = 0; i < v->count; i++) {
        size_t         n;
        const uint8_t *text = (const uint8_t *)vocab_text(v, i, &n);
        for (size_t k = 1; k < n; k++) {
            uint32_t bit = (uint32_t)text[k - 1] << 8 | text[k];
            p->together[bit / 64] |= (uint64_t)1 << bit % 64;
        }
    }
    for (int b = 0; b < 256; b++) {
        static const char digits[] = "0123456789ABCDEF";
        const char        text[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
        const char        raw = (char)b;
        p->byte_token[b] = vocab_find(v, text, 6);
        if (p->byte_token[b] < 0) {
            p->byte_token[b] = vocab_find(v, &raw, 1);
        }
    }
    return vocab_pieces(&t->vocab, pieces_decode, e);
}

void pieces_close(tokenizer *t) {
    free(t->pieces.score);
}

bool pieces_add_bytes(encoder *c, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int32_t id = c->t->pieces.byte_token[(uint8_t)text[i]];
        id = id >= 0 ? id : c->t->unknown;
        if (id >= 0 && !token_ids_add(c->out, id)) {
            return false;
        }
    }
    return true;
}
