/* Random use of a tiny cache against a model that keeps every stored prefix as a plain list of tokens: what is found, who
 * is evicted, who waits for whom, all counters, and the contents of every block. */
#include "engine/kv_bed.h"

enum { SEQUENCES = 5, CONTEXT = 100, BLOCKS = 22, STEPS = 12000, PER_SEQUENCE = (CONTEXT + 15) / 16 };

typedef struct stored { /* a node: its whole prefix */
    bool    live;
    int     scope, n, holders;
    int32_t tokens[CONTEXT];
    int64_t rested, added;
} stored;

typedef struct run {
    bool    begun, reuse;
    int     scope, n, committed, blocks;
    int     nodes[PER_SEQUENCE]; /* of the committed whole blocks, with reuse */
    int64_t rank;
    int32_t tokens[CONTEXT];
} run;

typedef struct lost { /* every node that was ever evicted */
    uint64_t chain[100000];
    int      n;
} lost;

typedef struct model {
    stored   nodes[BLOCKS];
    run      runs[SEQUENCES];
    lost     lost;
    int64_t  clock;
    kv_usage want;
} model;

static uint64_t chain_of(int scope, const int32_t *tokens, int n) {
    uint64_t chain = bed_root(&bed_scopes[scope]);
    for (int i = 0; i < n; i++) {
        chain = bed_chain(chain, tokens[i]);
    }
    return chain;
}

static int find(const model *m, int scope, const int32_t *tokens, int n) {
    for (int i = 0; i < BLOCKS; i++) {
        const stored *s = &m->nodes[i];
        if (s->live && s->scope == scope && s->n == n && memcmp(s->tokens, tokens, sizeof(*tokens) * (size_t)n) == 0) {
            return i;
        }
    }
    return -1;
}

static int own_blocks(const run *r) {
    return r->blocks - (r->reuse ? r->committed / KV_TOKENS : 0);
}

static int free_blocks(const model *m) {
    int free = BLOCKS;
    for (int i = 0; i < BLOCKS; i++) {
        free -= m->nodes[i].live;
    }
    for (int i = 0; i < SEQUENCES; i++) {
        free -= own_blocks(&m->runs[i]);
    }
    return free;
}

static bool has_child(const model *m, const stored *s) {
    for (int i = 0; i < BLOCKS; i++) {
        const stored *c = &m->nodes[i];
        if (c->live && c->scope == s->scope && c->n == s->n + KV_TOKENS &&
            memcmp(c->tokens, s->tokens, sizeof(*s->tokens) * (size_t)s->n) == 0) {
            return true;
        }
    }
    return false;
}

static bool make_room(model *m) {
    stored *oldest = NULL;
    if (free_blocks(m) > 0) {
        return true;
    }
    for (int i = 0; i < BLOCKS; i++) {
        stored *s = &m->nodes[i];
        if (s->live && !s->holders && (!oldest || s->rested < oldest->rested) && !has_child(m, s)) {
            oldest = s;
        }
    }
    if (oldest) {
        oldest->live = false;
        m->want.evicted++;
        assert_true(m->lost.n < 100000);
        m->lost.chain[m->lost.n++] = chain_of(oldest->scope, oldest->tokens, oldest->n);
    }
    return oldest != NULL;
}

static int available(const model *m) {
    int n = free_blocks(m);
    for (int i = 0; i < BLOCKS; i++) {
        n += m->nodes[i].live && !m->nodes[i].holders;
    }
    return n;
}

static void let_go(model *m, int node) {
    if (--m->nodes[node].holders == 0) {
        m->nodes[node].rested = ++m->clock;
    }
}

static void model_match(model *m, run *r, int limit) {
    while ((r->committed / KV_TOKENS + 1) * KV_TOKENS <= limit) {
        int node = find(m, r->scope, r->tokens, r->committed + KV_TOKENS);
        if (node < 0) {
            break;
        }
        m->nodes[node].holders++;
        r->nodes[r->committed / KV_TOKENS] = node;
        if (r->blocks == r->committed / KV_TOKENS) {
            r->blocks++;
        }
        r->committed += KV_TOKENS;
    }
}

/* The node that shares most tokens after the committed ones; of several, the youngest. */
static int model_nearest(const model *m, const run *r, int limit, int *common) {
    int best = -1;
    *common = 0;
    for (int i = 0; i < BLOCKS; i++) {
        const stored *s = &m->nodes[i];
        int           same = 0;
        if (!s->live || s->scope != r->scope || s->n != r->committed + KV_TOKENS) {
            continue;
        }
        while (same < s->n && same < limit && s->tokens[same] == r->tokens[same]) {
            same++;
        }
        same -= r->committed;
        if (same > 0 && (same > *common || (same == *common && s->added > m->nodes[best].added))) {
            *common = same;
            best = i;
        }
    }
    return best;
}

static bool was_lost(const model *m, int scope, const int32_t *tokens, int n) {
    uint64_t chain = chain_of(scope, tokens, n);
    for (int i = 0; i < m->lost.n; i++) {
        if (m->lost.chain[i] == chain) {
            return true;
        }
    }
    return false;
}

static void model_begin(model *m, run *r, kv_match got, int *evicted_told) {
    int limit = r->n - 1, common = 0;
    if (!r->reuse) {
        assert_int_equal(got.miss, KV_MISS_OFF);
        assert_int_equal(got.tokens, 0);
        return;
    }
    model_match(m, r, limit);
    int whole = r->committed, rest = limit - whole < KV_TOKENS ? limit - whole : KV_TOKENS;
    int near = model_nearest(m, r, limit, &common);
    if (common >= KV_TOKENS / 4) {
        m->nodes[near].holders++;
        if (make_room(m)) {
            r->blocks++;
            r->committed += common;
            m->want.copied++;
        }
        let_go(m, near);
    }
    m->want.lookup_tokens += limit;
    m->want.hit_tokens += r->committed;
    assert_int_equal(got.tokens, r->committed);
    assert_int_equal(got.from_disk, 0);
    bool known = r->committed > 0 || common >= (rest < 4 ? rest : 4);
    if (r->committed == limit || (limit - r->committed < KV_TOKENS && r->committed > 0)) {
        assert_int_equal(got.miss, KV_MISS_NONE);
    } else if (got.miss == KV_MISS_EVICTED) {
        assert_true(r->n >= whole + KV_TOKENS && was_lost(m, r->scope, r->tokens, whole + KV_TOKENS));
        ++*evicted_told;
    } else {
        assert_int_equal(got.miss, known ? KV_MISS_DIVERGE : KV_MISS_NEW);
    }
}

static void model_commit(model *m, run *r, int to) {
    while (r->reuse && (r->committed / KV_TOKENS + 1) * KV_TOKENS <= to) {
        int n = (r->committed / KV_TOKENS + 1) * KV_TOKENS;
        int node = find(m, r->scope, r->tokens, n);
        for (int i = 0; node < 0 && i < BLOCKS; i++) {
            if (!m->nodes[i].live) {
                m->nodes[i] = (stored){.live = true, .scope = r->scope, .n = n, .added = ++m->clock};
                memcpy(m->nodes[i].tokens, r->tokens, sizeof(*r->tokens) * (size_t)n);
                node = i;
            }
        }
        assert_true(node >= 0);
        m->nodes[node].holders++;
        r->nodes[n / KV_TOKENS - 1] = node;
        r->committed = n;
    }
    r->committed = to;
    r->n = to > r->n ? to : r->n;
}

static void model_release(model *m, run *r) {
    for (int i = r->committed / KV_TOKENS - 1; r->reuse && i >= 0; i--) {
        let_go(m, r->nodes[i]);
    }
    r->begun = r->reuse = false;
    r->n = r->committed = r->blocks = 0;
}

static bool model_awaits(const model *m, const run *r) {
    int end = r->committed + KV_TOKENS;
    for (int i = 0; i < SEQUENCES; i++) {
        const run *o = &m->runs[i];
        if (r->begun && r->reuse && r->committed % KV_TOKENS == 0 && end <= r->n - 1 && o->begun && o->reuse &&
            o->rank < r->rank && o->scope == r->scope && o->committed < end && end <= o->n &&
            memcmp(o->tokens, r->tokens, sizeof(*r->tokens) * (size_t)end) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- both side by side ---- */

static void compare(const model *m, const kv_cache *kv) {
    kv_usage want = m->want, got = kv_usage_read(kv);
    for (int i = 0; i < BLOCKS; i++) {
        const stored *s = &m->nodes[i];
        want.held += s->live && s->holders > 0;
        want.shared += s->live && s->holders > 1;
        want.cached += s->live && !s->holders;
    }
    for (int i = 0; i < SEQUENCES; i++) {
        const run *r = &m->runs[i];
        want.held += own_blocks(r);
        assert_int_equal(kv_awaits(kv, i, r->committed), model_awaits(m, r));
        int64_t room = (r->blocks + available(m)) * KV_TOKENS;
        assert_int_equal(kv_room(kv, i), (room < CONTEXT ? room : CONTEXT) - r->committed);
    }
    assert_int_equal(got.held, want.held);
    assert_int_equal(got.shared, want.shared);
    assert_int_equal(got.cached, want.cached);
    assert_int_equal(got.evicted, want.evicted);
    assert_int_equal(got.copied, want.copied);
    assert_int_equal(got.lookup_tokens, want.lookup_tokens);
    assert_int_equal(got.hit_tokens, want.hit_tokens);
    bed_check(kv);
}

static void verify_all(const model *m, const kv_cache *kv) {
    for (int i = 0; i < SEQUENCES; i++) {
        bed_verify(kv, i, &bed_scopes[m->runs[i].scope], m->runs[i].tokens, m->runs[i].committed);
    }
}

/* One of a few texts up to a random place, then something else: many prefixes in common, at any offset. */
static void choose_tokens(run *r, uint64_t *seed) {
    int32_t text = (int32_t)(test_random(seed) % 4);
    int     shared = (int)(test_random(seed) % CONTEXT);
    for (int i = 0; i < CONTEXT; i++) {
        r->tokens[i] = i < shared ? text * (i >= 24 || text > 1) : (int32_t)(test_random(seed) % 2) + 10;
    }
    r->n = 1 + (int)(test_random(seed) % (CONTEXT - 4));
}

static void step_begin(model *m, kv_cache *kv, int i, uint64_t *seed, int *evicted_told) {
    run *r = &m->runs[i];
    *r = (run){.begun = true,
               .reuse = test_random(seed) % 10 != 0,
               .scope = (int)(test_random(seed) % 2),
               .rank = (int64_t)(test_random(seed) % 1000)};
    choose_tokens(r, seed);
    kv_rank(kv, i, r->rank);
    kv_begin(kv, i, bed_scopes[r->scope], r->tokens, r->n, r->reuse);
    assert_false(kv_loading(kv, i));
    model_begin(m, r, kv_found(kv, i), evicted_told);
}

static void step_compute(model *m, kv_cache *kv, int i, uint64_t *seed) {
    run *r = &m->runs[i];
    int  to = r->committed + 1 + (int)(test_random(seed) % 40);
    to = to > CONTEXT ? CONTEXT : to;
    bool room = true;
    for (int blocks = (to + 15) / 16; room && r->blocks < blocks;) {
        room = make_room(m);
        r->blocks += room;
    }
    assert_int_equal(kv_reserve(kv, i, to), room);
    if (room && test_random(seed) % 8) { /* else: reserved and not used yet */
        bed_write(kv, i, &bed_scopes[r->scope], r->tokens, r->committed, to);
        kv_commit(kv, i, to);
        model_commit(m, r, to);
    }
}

static void step_advance(model *m, kv_cache *kv, int i) {
    run *r = &m->runs[i];
    int  before = r->committed;
    if (r->reuse && r->committed % KV_TOKENS == 0) {
        model_match(m, r, r->n - 1);
        m->want.hit_tokens += r->committed - before;
    }
    assert_int_equal(kv_advance(kv, i, before), r->committed);
}

static void test_against_model(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, SEQUENCES, CONTEXT, BLOCKS);
    model    *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    uint64_t seed = 42;
    int      evicted_told = 0, shared = 0;
    for (int step = 0; step < STEPS; step++) {
        int  i = (int)(test_random(&seed) % SEQUENCES), what = (int)(test_random(&seed) % 8);
        run *r = &m->runs[i];
        if (!r->begun) {
            step_begin(m, kv, i, &seed, &evicted_told);
        } else if (what == 0 || r->committed == CONTEXT) {
            kv_release(kv, i);
            model_release(m, r);
        } else if (what < 3) {
            step_advance(m, kv, i);
        } else {
            step_compute(m, kv, i, &seed);
        }
        compare(m, kv);
        shared += kv_usage_read(kv).shared > 0;
        if (step % 6 == 0) {
            verify_all(m, kv);
        }
    }
    /* The walk came by everything that it is meant to test. */
    assert_true(m->want.evicted > 1000);
    assert_true(m->want.copied > 100);
    assert_true(m->want.hit_tokens > 10000);
    assert_true(evicted_told > 50);
    assert_true(shared > 1000);
    kv_close(kv);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
