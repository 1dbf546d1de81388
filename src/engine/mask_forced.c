/* mask_forced.c - what is bound to come need not be computed token by token.
 *
 * The bytes are spelled by the model's own tokenizer, so that it sees its text as it learned it. Where a byte stretch ends
 * before the answer does, its last tokens may be spelled otherwise once more bytes are known: the stretch is spelled again
 * with bytes that may follow, only tokens that are the same in all spellings count, and the last one never does.     */
#include <string.h>

#include "engine/mask_parts.h"

#define MOST_BYTES 256
#define PROBES     8

typedef struct stretch {
    char   bytes[2 + MOST_BYTES + 1]; /* what goes before, for SPM; the stretch; one byte that may follow */
    size_t before, n;
    int    state;
    bool   whole; /* nothing follows it */
} stretch;

/* The only byte that may come, or -1. */
static int only_byte(const matcher *m, int state) {
    const item *items;
    int         n = machine_items(&m->m, state, &items), byte = -1;
    if (machine_flags(&m->m, state) & STATE_ENDS) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        const grammar_node *node = &m->g->node[items[i].node];
        const byte_edge    *d = &m->g->bytes[node->first_byte];
        if (node->n_bytes != 1 || d->lo != d->hi || (byte >= 0 && byte != d->lo)) {
            return -1;
        }
        byte = d->lo;
    }
    return byte;
}

static void find_stretch(matcher *m, stretch *s) {
    const item *items;
    s->state = m->state;
    for (int byte; s->n < MOST_BYTES && (byte = only_byte(m, s->state)) >= 0;) {
        int to = machine_step(&m->m, s->state, m->g->class_of[byte]);
        if (to == STATE_DEAD) { /* out of memory */
            return;
        }
        s->bytes[s->before + s->n++] = (char)byte;
        s->state = to;
    }
    s->whole = machine_flags(&m->m, s->state) & STATE_ENDS && machine_items(&m->m, s->state, &items) == 0;
}

/* Spells the stretch and `more` bytes after it; leaves out the tokens before it. False when their border is not one. */
static bool spell(const matcher *m, const stretch *s, size_t more, token_ids *out) {
    out->count = 0;
    if (!tokenizer_encode(m->v->t, s->bytes, s->before + s->n + more, (encode_options){0}, out, NULL)) {
        return false;
    }
    const char *piece;
    size_t      skipped = 0, at = 0;
    while (s->before > 0 && at < out->count && (at == 0 || piece[skipped - 1] != '\n')) {
        skipped = tokenizer_piece(m->v->t, out->ids[at++], false, &piece);
        if (skipped == 0 || memchr(piece, '\n', skipped - 1)) {
            return false;
        }
    }
    memmove(out->ids, out->ids + at, (out->count - at) * sizeof(*out->ids));
    out->count -= at;
    return true;
}

/* How many of the first tokens stay when one more byte follows. */
static size_t settled(matcher *m, stretch *s, const token_ids *ids) {
    token_ids other = {0};
    size_t    same = ids->count > 0 ? ids->count - 1 : 0;
    int       probes = 0, step = m->g->n_classes / PROBES + 1;
    for (int i = 0; i < m->g->n_classes && probes < PROBES && same > 0; i++) {
        int cl = (int)(((int64_t)i * step) % m->g->n_classes + (int64_t)i * step / m->g->n_classes) % m->g->n_classes;
        uint8_t byte = m->g->byte_of[cl];
        if (byte >= 0x80 || machine_step(&m->m, s->state, cl) == STATE_DEAD) {
            continue;
        }
        probes++;
        s->bytes[s->before + s->n] = (char)byte;
        size_t k = 0;
        if (spell(m, s, 1, &other)) {
            while (k < same && k < other.count && other.ids[k] == ids->ids[k]) {
                k++;
            }
        }
        same = k;
    }
    token_ids_free(&other);
    return same;
}

int matcher_forced(matcher *m, int32_t *out, int room) {
    stretch   s = {.n = 0};
    token_ids ids = {0};
    int       n = 0;
    if (m->trigger || m->ended || room < 1) {
        return 0;
    }
    if (tokenizer_strips_first_space(m->v->t)) { /* its space goes before the line's end, which no token spans */
        s.bytes[s.before++] = '\n';
    }
    find_stretch(m, &s);
    if (s.n > 1 && spell(m, &s, 0, &ids)) {
        size_t count = s.whole ? ids.count : settled(m, &s, &ids), at = 0;
        room = room < MASK_FORCED ? room : MASK_FORCED;
        for (size_t i = 0; i < count && n < room; i++) {
            const char *piece;
            size_t      length = tokenizer_piece(m->v->t, ids.ids[i], false, &piece);
            if (length == 0 || length > s.n - at || memcmp(piece, s.bytes + s.before + at, length) != 0) {
                break;
            }
            at += length;
            out[n++] = ids.ids[i];
        }
    }
    token_ids_free(&ids);
    return n;
}
