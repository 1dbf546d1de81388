/* kv.c - the sequences and the blocks that they hold.
 *
 * Invariant of a sequence with reuse: the blocks of its first committed / KV_TOKENS table entries are nodes of the index,
 * each the child of the one before; all later ones are its own. So two sequences of a scope have the same tokens up to
 * the end of entry i exactly when they have the same number there.
 *
 * With panes (kv_panes.h) a node may lack what the layers with windows have of it: what is found ends where the panes of
 * a whole window are there. What is computed again then gives its panes to the nodes that lack them.                  */
#include "engine/kv.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kv_blocks.h"
#include "engine/kv_index.h"
#include "engine/kv_panes.h"
#include "engine/kv_spill.h"
#include "engine/kv_window.h"

#define DEFAULT_DISK_BYTES ((size_t)4 << 30)
#define MAX_FINGERPRINT    1024
#define LEAST_COPY         (KV_TOKENS / 4)

typedef struct sequence {
    const int32_t *tokens;
    int32_t       *table;
    int64_t        rank;
    kv_scope       scope;
    kv_match       found;
    int            n;         /* tokens known */
    int            blocks;    /* held: entries of the table */
    int            committed; /* tokens whose keys and values are there */
    int            load_from; /* while loading: entries from here on are being read */
    kv_window      window;    /* with panes */
    bool           begun, reuse, loading, read_failed;
    bool           cut_short; /* more of its beginning is stored, without the panes to go on from there */
} sequence;

struct kv_cache {
    kv_blocks blocks;
    int       context;
    sequence *sequences;
    int       n_sequences;
    int32_t  *tables;  /* blocks.per_sequence entries a sequence */
    int32_t  *windows; /* the same of panes */
    int32_t  *chain;   /* nodes that were just found, by entry */
    int       window;
    kv_index *index;
    kv_panes *panes; /* NULL: all layers keep all positions */
    kv_spill *spill; /* NULL: no disk */

    _Atomic int64_t copied, lookup_tokens, hit_tokens, disk_hit_tokens;
};

static void count(_Atomic int64_t *counter, int64_t by) { /* one thread writes, others read */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

static int64_t read_count(const _Atomic int64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- opening and closing ---- */

static bool take_windows(kv_cache *kv, size_t entries, err *e) {
    size_t all = entries * (size_t)kv->n_sequences;
    kv->windows = malloc(all * sizeof(*kv->windows));
    if (!kv->windows) {
        return err_set(e, ERR_MEMORY, "no memory for the windows of %d sequences of %d tokens; lower one of them",
                       kv->n_sequences, kv->context);
    }
    memset(kv->windows, 0xFF, all * sizeof(*kv->windows)); /* KV_NONE */
    for (int i = 0; i < kv->n_sequences; i++) {
        kv->sequences[i].window.table = kv->windows + (size_t)i * entries;
    }
    kv->panes = kv_panes_new(kv->blocks.panes, kv->blocks.count, e);
    return kv->panes != NULL;
}

static bool take_memory(kv_cache *kv, err *e) {
    size_t entries = (size_t)kv->blocks.per_sequence; /* times sequences fits: kv_blocks_open checks */
    kv->sequences = calloc((size_t)kv->n_sequences, sizeof(*kv->sequences));
    kv->tables = calloc(entries * (size_t)kv->n_sequences, sizeof(*kv->tables));
    kv->chain = calloc(entries, sizeof(*kv->chain));
    if (!kv->sequences || !kv->tables || !kv->chain) {
        return err_set(e, ERR_MEMORY, "no memory for the tables of %d sequences of %d tokens; lower one of them",
                       kv->n_sequences, kv->context);
    }
    for (int i = 0; i < kv->n_sequences; i++) {
        kv->sequences[i].table = kv->tables + (size_t)i * entries;
    }
    kv->index = kv_index_new(kv->blocks.count, e);
    return kv->index && (!kv->blocks.panes || take_windows(kv, entries, e));
}

/* What changes the meaning of a block's bytes: the model and how the cache lays them out. */
static bool open_disk(kv_cache *kv, const model_shape *shape, const kv_options *o, err *e) {
    char fingerprint[MAX_FINGERPRINT];
    if (!o->model || !o->model[0]) {
        return err_set(e, ERR_INVALID, "keys and values on disk (%s) need the fingerprint of the model they belong to",
                       o->disk);
    }
    int n = snprintf(fingerprint, sizeof(fingerprint), "%s layers %d heads %d dim %d type %s tokens %d", o->model,
                     shape->layers, shape->kv_heads, shape->head_dim, kv_type_name(o->type), KV_TOKENS);
    if (n < 0 || (size_t)n >= sizeof(fingerprint)) {
        return err_set(e, ERR_INVALID,
                       "the model's fingerprint has %zu characters; with the cache's shape %d are the most",
                       strlen(o->model), MAX_FINGERPRINT - 1);
    }
    kv_disk_options d = {.directory = o->disk,
                         .bytes = o->disk_bytes ? o->disk_bytes : DEFAULT_DISK_BYTES,
                         .fingerprint = fingerprint,
                         .memory = kv->blocks.memory,
                         .pieces = kv->blocks.layers,
                         .piece_step = kv->blocks.piece_step,
                         .piece_bytes = kv->blocks.piece_bytes,
                         .blocks = kv->blocks.count};
    kv->spill = kv_spill_open(kv->index, &d, e);
    return kv->spill != NULL;
}

kv_cache *kv_open(const model_shape *shape, const kv_options *o, err *e) {
    kv_cache *kv = calloc(1, sizeof(*kv));
    if (!kv) {
        err_set(e, ERR_MEMORY, "no memory for a key/value cache");
        return NULL;
    }
    kv->context = o->context;
    kv->n_sequences = o->sequences;
    kv->window = shape->window;
    if (!kv_blocks_open(&kv->blocks, shape, o, e) || !take_memory(kv, e) || (o->disk && !open_disk(kv, shape, o, e))) {
        kv_close(kv);
        return NULL;
    }
    return kv;
}

void kv_close(kv_cache *kv) {
    if (!kv) {
        return;
    }
    kv_spill_close(kv->spill);
    kv_index_free(kv->index);
    kv_panes_free(kv->panes);
    kv_blocks_close(&kv->blocks);
    free(kv->chain);
    free(kv->windows);
    free(kv->tables);
    free(kv->sequences);
    free(kv);
}

/* ---- finding what is stored ---- */

static bool same_scope(const kv_scope *a, const kv_scope *b) {
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static int parent_of(const sequence *s, int entry) {
    return entry ? s->table[entry - 1] : KV_NONE;
}

/* The last token known is always computed: its logits are wanted. */
static int limit_of(const sequence *s) {
    return s->n > 0 ? s->n - 1 : 0;
}

/* A block that the caller holds; what it had in a window is gone. */
static int take_free(kv_cache *kv) {
    int b = kv_index_take(kv->index);
    if (b != KV_NONE && kv->panes) {
        kv_panes_forget(kv->panes, b);
    }
    return b;
}

static int find_node(const kv_cache *kv, const sequence *s, int parent, int entry) {
    return kv_index_find(kv->index, &s->scope, parent, s->tokens + (size_t)entry * KV_TOKENS);
}

/* kv->chain from `entry` on: the nodes that continue the sequence's first `entry` blocks. Returns the entry after the
 * last. */
static int find_chain(kv_cache *kv, const sequence *s, int entry) {
    int limit = limit_of(s) / KV_TOKENS, parent = parent_of(s, entry);
    for (; entry < limit; entry++) {
        parent = find_node(kv, s, parent, entry);
        if (parent == KV_NONE) {
            break;
        }
        kv->chain[entry] = parent;
    }
    return entry;
}

/* The sequence takes the nodes that continue its first `entry` blocks, instead of blocks of its own that are not written
 * yet, as far as it can go on from there. */
static void take_chain(kv_cache *kv, sequence *s, int entry) {
    int end = find_chain(kv, s, entry), found = end;
    if (kv->panes) {
        end = kv_window_usable(kv->panes, kv->window, kv->chain, s->window.low, entry, end);
        s->cut_short = end < found;
        s->window.wanted[1] = s->cut_short || entry == 0 ? found : s->window.wanted[1];
    }
    if (kv->panes && end > entry) {
        kv_window_cut(&s->window, kv->panes, entry, entry);
    }
    for (int i = entry; i < end; i++) {
        kv_index_hold(kv->index, kv->chain[i]);
        if (i < s->blocks) {
            kv_index_drop(kv->index, s->table[i]);
        } else {
            s->blocks++;
        }
        s->table[i] = kv->chain[i];
    }
    if (kv->panes && end > entry) {
        kv_window_enter(&s->window, kv->panes, kv->window, s->table, end);
    }
    s->committed = end * KV_TOKENS;
}

static void give_back_from(kv_cache *kv, sequence *s, int entry) { /* the last first: parents outlive their children */
    if (kv->panes) {
        kv_window_cut(&s->window, kv->panes, entry, s->committed / KV_TOKENS);
    }
    while (s->blocks > entry) {
        int b = s->table[--s->blocks];
        s->table[s->blocks] = 0;
        kv_index_drop(kv->index, b);
    }
}

/* The block of this table entry is full: it becomes a node, or an equal one is taken instead. */
static void publish(kv_cache *kv, sequence *s, int entry) {
    const int32_t *tokens = s->tokens + (size_t)entry * KV_TOKENS;
    int            parent = parent_of(s, entry), own = s->table[entry];
    int            same = kv_index_find(kv->index, &s->scope, parent, tokens);
    if (same != KV_NONE) {
        kv_index_hold(kv->index, same);
        if (kv->panes) {
            kv_window_replace(&s->window, kv->panes, entry, own, same);
        }
        kv_index_drop(kv->index, own);
        s->table[entry] = same;
        return;
    }
    kv_index_add(kv->index, &s->scope, parent, tokens, own);
    if (kv->spill) {
        kv_disk_key key = kv_spill_key(kv->spill, &s->scope, parent, tokens);
        kv_spill_name(kv->spill, own, &key);
        kv_spill_write(kv->spill, own);
    }
}

/* ---- from the disk ---- */

static bool reads_under_way(const kv_cache *kv, const sequence *s) {
    for (int i = s->load_from; i < s->blocks; i++) {
        if (kv_spill_state(kv->spill, s->table[i]) == KV_READING) {
            return true;
        }
    }
    return false;
}

/* Another sequence is reading this very block: it will be in the index soon. */
static bool other_reads(const kv_cache *kv, const sequence *s, int entry, const kv_disk_key *key) {
    for (int i = 0; i < kv->n_sequences; i++) {
        const sequence *t = &kv->sequences[i];
        if (t != s && t->loading && t->load_from <= entry && entry < t->blocks &&
            memcmp(kv_spill_key_of(kv->spill, t->table[entry]), key, sizeof(*key)) == 0) {
            return true;
        }
    }
    return false;
}

/* Begins to read what follows the sequence's blocks. True: there is something to wait for. */
static bool start_reads(kv_cache *kv, sequence *s) {
    int limit = limit_of(s) / KV_TOKENS;
    s->load_from = s->blocks;
    while (kv->spill && !s->read_failed && s->blocks < limit) {
        int         entry = s->blocks;
        kv_disk_key key =
            kv_spill_key(kv->spill, &s->scope, parent_of(s, entry), s->tokens + (size_t)entry * KV_TOKENS);
        if (other_reads(kv, s, entry, &key)) {
            return true;
        }
        int b = kv_spill_has(kv->spill, &key) ? take_free(kv) : KV_NONE;
        if (b == KV_NONE) {
            break;
        }
        s->table[s->blocks++] = b;
        kv_spill_read(kv->spill, b, &key);
    }
    return s->blocks > s->load_from;
}

/* All reads have come back; the first that failed ends what was found. */
static void end_reads(kv_cache *kv, sequence *s) {
    int i = s->load_from;
    while (i < s->blocks && kv_spill_state(kv->spill, s->table[i]) == KV_READ_DONE) {
        publish(kv, s, i++);
        s->found.from_disk += KV_TOKENS;
    }
    s->read_failed = i < s->blocks;
    give_back_from(kv, s, i);
}

/* ---- beginning ---- */

/* The copy of a pane, for the new block that follows the sequence's others. */
static bool copy_pane(kv_cache *kv, sequence *s, int source) {
    int entry = s->blocks;
    kv_panes_hold(kv->panes, source);
    bool ok = kv_window_grow(&s->window, kv->panes, s->table, entry + 1);
    if (ok) {
        kv_panes_copy(&kv->blocks, source, s->window.table[entry]);
    }
    kv_panes_drop(kv->panes, source, KV_REST_WANTED);
    return ok;
}

/* Copies a block of which the first `tokens` are wanted; the others are written again before they are read. */
static void copy_part(kv_cache *kv, sequence *s, int source, int tokens) {
    int pane = kv->panes ? kv_panes_of(kv->panes, source) : KV_NONE;
    if (kv->panes && pane == KV_NONE) {
        return;
    }
    kv_index_hold(kv->index, source); /* or it might be the one that goes */
    int b = take_free(kv);
    if (b != KV_NONE) {
        s->table[s->blocks] = b;
        if (!kv->panes || copy_pane(kv, s, pane)) {
            kv_blocks_copy(&kv->blocks, source, b);
            s->blocks++;
            s->committed += tokens;
            count(&kv->copied, 1);
        } else {
            s->table[s->blocks] = 0;
            kv_index_drop(kv->index, b);
        }
    }
    kv_index_drop(kv->index, source);
}

/* The sequence holds all whole blocks that are stored: looks for a part of the next, and says why there is no more. */
static void end_match(kv_cache *kv, sequence *s) {
    int entry = s->blocks, limit = limit_of(s), common = 0;
    int rest = limit - s->committed < KV_TOKENS ? limit - s->committed : KV_TOKENS;
    if (rest > 0) {
        const int32_t *tokens = s->tokens + (size_t)entry * KV_TOKENS;
        int            parent = parent_of(s, entry);
        int            nearest = kv_index_nearest(kv->index, &s->scope, parent, tokens, rest, &common);
        bool           whole = s->n - s->committed >= KV_TOKENS;
        bool           lost = s->cut_short || (whole && kv_index_lost(kv->index, &s->scope, parent, tokens));
        if (common >= LEAST_COPY) {
            copy_part(kv, s, nearest, common);
        }
        bool known = s->committed > 0 || common >= (rest < LEAST_COPY ? rest : LEAST_COPY);
        bool tail = limit - s->committed < KV_TOKENS && s->committed > 0; /* less than a block is no miss */
        s->found.miss = s->committed == limit || tail ? KV_MISS_NONE
                        : lost                        ? KV_MISS_EVICTED
                        : known                       ? KV_MISS_DIVERGE
                                                      : KV_MISS_NEW;
    }
    s->found.tokens = s->committed;
    count(&kv->lookup_tokens, limit);
    count(&kv->hit_tokens, s->found.tokens);
    count(&kv->disk_hit_tokens, s->found.from_disk);
}

static void poll_disk(kv_cache *kv) {
    if (kv->spill) {
        kv_spill_poll(kv->spill);
    }
}

void kv_begin(kv_cache *kv, int sequence_number, kv_scope scope, const int32_t *tokens, int n, bool reuse) {
    sequence *s = &kv->sequences[sequence_number];
    kv_release(kv, sequence_number);
    s->tokens = tokens;
    s->n = n < kv->context ? n : kv->context;
    s->scope = scope;
    s->found = (kv_match){.miss = reuse ? KV_MISS_NONE : KV_MISS_OFF};
    s->begun = true;
    s->reuse = reuse;
    kv_window_begin(&s->window, reuse);
    if (!reuse) {
        return;
    }
    poll_disk(kv);
    s->window.wanted[0] = limit_of(s) / KV_TOKENS;
    take_chain(kv, s, 0);
    s->loading = start_reads(kv, s);
    if (!s->loading) {
        end_match(kv, s);
    }
}

bool kv_loading(kv_cache *kv, int sequence_number) {
    sequence *s = &kv->sequences[sequence_number];
    if (!s->loading) {
        return false;
    }
    kv_spill_poll(kv->spill);
    if (reads_under_way(kv, s)) {
        return true;
    }
    end_reads(kv, s);
    take_chain(kv, s, s->blocks); /* what others have stored meanwhile */
    s->loading = start_reads(kv, s);
    if (!s->loading) {
        end_match(kv, s);
    }
    return s->loading;
}

kv_match kv_found(const kv_cache *kv, int sequence_number) {
    return kv->sequences[sequence_number].found;
}

/* ---- sequences that begin together ---- */

int kv_advance(kv_cache *kv, int sequence_number, int position) {
    sequence *s = &kv->sequences[sequence_number];
    if (!s->begun || !s->reuse || s->loading || position != s->committed || position % KV_TOKENS) {
        return position;
    }
    take_chain(kv, s, position / KV_TOKENS);
    count(&kv->hit_tokens, s->committed - position);
    return s->committed;
}

/* Same tokens in [0, end), which is at least one block past what either has committed of them in common. */
static bool same_tokens(const sequence *s, const sequence *t, int end) {
    int common = (s->committed < t->committed ? s->committed : t->committed) / KV_TOKENS;
    if (common && s->table[common - 1] != t->table[common - 1]) {
        return false;
    }
    size_t from = (size_t)common * KV_TOKENS;
    return memcmp(s->tokens + from, t->tokens + from, ((size_t)end - from) * sizeof(*s->tokens)) == 0;
}

bool kv_awaits(const kv_cache *kv, int sequence_number, int position) {
    const sequence *s = &kv->sequences[sequence_number];
    int             end = position / KV_TOKENS * KV_TOKENS + KV_TOKENS;
    if (!s->begun || !s->reuse || position != s->committed || position % KV_TOKENS || end > limit_of(s)) {
        return false;
    }
    for (int i = 0; i < kv->n_sequences; i++) {
        const sequence *t = &kv->sequences[i];
        if (t->begun && t->reuse && t->rank < s->rank && t->committed < end && end <= t->n &&
            same_scope(&s->scope, &t->scope) && same_tokens(s, t, end)) {
            return true;
        }
    }
    return false;
}

void kv_rank(kv_cache *kv, int sequence_number, int64_t rank) {
    kv->sequences[sequence_number].rank = rank;
}

/* ---- growing and ending ---- */

/* What is neither held nor free is pinned by the disk, for a few milliseconds at most: worth waiting for, where the
 * alternative is to throw away a sequence's work. */
static int take_block(kv_cache *kv) {
    int b = take_free(kv);
    while (b == KV_NONE && kv->spill && kv_index_count(kv->index).held < kv->blocks.count && kv_spill_wait(kv->spill)) {
        b = take_free(kv);
    }
    return b;
}

bool kv_reserve(kv_cache *kv, int sequence_number, int length) {
    sequence *s = &kv->sequences[sequence_number];
    if (!s->begun || length > kv->context) {
        return false;
    }
    poll_disk(kv);
    int wanted = length > 0 ? kv_blocks_for(length) : 0;
    while (s->blocks < wanted) {
        int b = take_block(kv);
        if (b == KV_NONE) {
            return false;
        }
        s->table[s->blocks++] = b;
    }
    return !kv->panes || kv_window_grow(&s->window, kv->panes, s->table, wanted);
}

/* Entries that are ready to be written. */
static int reserved_entries(const kv_cache *kv, const sequence *s) {
    return kv->panes && s->window.high < s->blocks ? s->window.high : s->blocks;
}

int kv_room(const kv_cache *kv, int sequence_number) {
    const sequence *s = &kv->sequences[sequence_number];
    int64_t         most = ((int64_t)s->blocks + kv_index_available(kv->index)) * KV_TOKENS;
    if (kv->panes) {
        int64_t panes = ((int64_t)s->window.high + kv_panes_available(kv->panes)) * KV_TOKENS;
        most = panes < most ? panes : most;
    }
    return (int)(most < kv->context ? most : kv->context) - s->committed;
}

void kv_commit(kv_cache *kv, int sequence_number, int length) {
    sequence *s = &kv->sequences[sequence_number];
    int64_t   reserved = (int64_t)reserved_entries(kv, s) * KV_TOKENS;
    length = length > reserved ? (int)reserved : length;
    if (!s->begun || s->loading || length <= s->committed) {
        return;
    }
    poll_disk(kv);
    for (int entry = s->committed / KV_TOKENS; s->reuse && entry < length / KV_TOKENS; entry++) {
        publish(kv, s, entry);
    }
    s->committed = length;
    s->n = s->n < length ? length : s->n;
    if (kv->panes) {
        kv_window_pass(&s->window, kv->panes, kv->window, length / KV_TOKENS);
    }
}

void kv_release(kv_cache *kv, int sequence_number) {
    sequence *s = &kv->sequences[sequence_number];
    poll_disk(kv);
    for (int i = 0; kv->spill && s->reuse && i < s->committed / KV_TOKENS; i++) {
        kv_spill_write(kv->spill, s->table[i]); /* passed over before, or dropped from the disk meanwhile */
    }
    give_back_from(kv, s, 0);
    s->tokens = NULL;
    s->n = s->committed = s->load_from = 0;
    s->begun = s->reuse = s->loading = s->read_failed = s->cut_short = false;
}

/* ---- for the forward pass ---- */

void kv_write(kv_cache *kv, int layer, int sequence_number, int position, const float *k, const float *v) {
    int number = kv_layer_table(kv, layer, sequence_number)[position / KV_TOKENS];
    kv_blocks_put(&kv->blocks, layer, number, position % KV_TOKENS, k, v);
}

kv_view kv_head(const kv_cache *kv, int layer, int head) {
    const kv_blocks *k = &kv->blocks;
    return (kv_view){.layout = &k->layout,
                     .blocks = kv_piece(k, layer, 0) + (size_t)head * k->head_bytes,
                     .block_bytes = k->piece_bytes,
                     .values_at = k->layout.key_bytes};
}

const int32_t *kv_table(const kv_cache *kv, int sequence_number) {
    return kv->sequences[sequence_number].table;
}

const int32_t *kv_layer_table(const kv_cache *kv, int layer, int sequence_number) {
    const sequence *s = &kv->sequences[sequence_number];
    return kv_has_panes(&kv->blocks, layer) ? s->window.table : s->table;
}

/* ---- telling ---- */

kv_usage kv_usage_read(const kv_cache *kv) {
    kv_index_counts c = kv_index_count(kv->index);
    kv_usage        u = {.blocks = kv->blocks.count,
                         .held = c.held,
                         .cached = c.cached,
                         .evicted = c.evicted,
                         .copied = read_count(&kv->copied),
                         .shared = c.shared,
                         .lookup_tokens = read_count(&kv->lookup_tokens),
                         .hit_tokens = read_count(&kv->hit_tokens),
                         .disk_hit_tokens = read_count(&kv->disk_hit_tokens),
                         .bytes = kv->blocks.bytes,
                         .block_tokens = KV_TOKENS};
    if (kv->panes) {
        kv_panes_counts p = kv_panes_count(kv->panes);
        u.panes = kv->blocks.panes;
        u.panes_held = p.held;
        u.panes_evicted = p.evicted;
    }
    if (kv->spill) {
        kv_disk_usage d = kv_spill_usage(kv->spill);
        u.disk_bytes = d.bytes;
        u.disk_written = d.written;
        u.disk_read = d.read;
        u.disk_bad = d.bad;
    }
    return u;
}

static bool check_window(const kv_cache *kv, int number, int32_t *holders, err *e) {
    const sequence  *s = &kv->sequences[number];
    const kv_window *w = &s->window;
    if (w->low > kv_window_low(kv->window, s->committed / KV_TOKENS) || w->high < kv_blocks_for(s->committed) ||
        w->high > s->blocks || w->low < 0 || w->low > w->high) {
        return err_set(e, ERR_INTERNAL, "sequence %d holds the panes %d to %d for %d tokens in %d blocks", number,
                       w->low, w->high, s->committed, s->blocks);
    }
    for (int i = 0; i < kv->blocks.per_sequence; i++) {
        bool held = w->low <= i && i < w->high;
        int  wanted = held ? kv_panes_of(kv->panes, s->table[i]) : KV_NONE;
        if (w->table[i] != wanted || (held && wanted == KV_NONE)) {
            return err_set(e, ERR_INTERNAL, "sequence %d has pane %d at entry %d, and should have %d", number,
                           w->table[i], i, wanted);
        }
        if (held) {
            holders[wanted]++;
        }
    }
    return true;
}

static bool check_panes(const kv_cache *kv, err *e) {
    int32_t *holders = calloc((size_t)kv->blocks.panes, sizeof(*holders));
    bool     ok = holders || err_set(e, ERR_MEMORY, "out of memory for checking %d panes", kv->blocks.panes);
    for (int i = 0; ok && i < kv->n_sequences; i++) {
        ok = check_window(kv, i, holders, e);
    }
    ok = ok && kv_panes_check(kv->panes, kv->index, holders, e);
    free(holders);
    return ok;
}

static bool check_sequence(const kv_cache *kv, int number, int32_t *holders, err *e) {
    const sequence *s = &kv->sequences[number];
    if (s->blocks < kv_blocks_for(s->committed) || s->blocks > kv->blocks.per_sequence || (!s->begun && s->blocks)) {
        return err_set(e, ERR_INTERNAL, "sequence %d holds %d blocks for %d tokens", number, s->blocks, s->committed);
    }
    for (int i = 0; i < kv->blocks.per_sequence; i++) {
        int  b = s->table[i];
        bool stored = s->reuse && i < s->committed / KV_TOKENS;
        if (b < 0 || b >= kv->blocks.count || (i >= s->blocks && b != 0)) {
            return err_set(e, ERR_INTERNAL, "sequence %d has block %d at entry %d", number, b, i);
        }
        if (i < s->blocks) {
            holders[b]++;
            if (stored ? find_node(kv, s, parent_of(s, i), i) != b : kv_index_is_node(kv->index, b)) {
                return err_set(e, ERR_INTERNAL, "sequence %d: block %d at entry %d is %s", number, b, i,
                               stored ? "not the node of its tokens" : "a node, and not full");
            }
        }
    }
    return true;
}

bool kv_check(const kv_cache *kv, err *e) {
    int32_t *holders = calloc((size_t)kv->blocks.count, sizeof(*holders));
    if (!holders) {
        return err_set(e, ERR_MEMORY, "out of memory for checking %d blocks", kv->blocks.count);
    }
    bool ok = true;
    for (int i = 0; ok && i < kv->n_sequences; i++) {
        ok = check_sequence(kv, i, holders, e);
    }
    for (int b = 0; ok && b < kv->blocks.count; b++) {
        if (holders[b] > 1 && !kv_index_is_node(kv->index, b)) {
            ok = err_set(e, ERR_INTERNAL, "block %d is held %d times and is not in the index", b, holders[b]);
        }
    }
    ok = ok && kv_index_check(kv->index, holders, e) && (!kv->panes || check_panes(kv, e));
    free(holders);
    return ok;
}
