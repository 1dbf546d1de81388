/* Caches whose layers with windows keep no more than them: what they take, what is found again, and random use in which
 * everything that a layer may read must be what was written for those very tokens. */
#include "engine/kv_bed.h"

#include "tensor/attend.h"

enum { WINDOW = 40, STEP = 64 };

/* Two of three layers have a window; all have one. */
static const model_shape mixed = {.layers = BED_LAYERS,
                                  .kv_heads = BED_HEADS,
                                  .head_dim = BED_DIM,
                                  .window = WINDOW,
                                  .window_every = BED_LAYERS},
                         local = {.layers = BED_LAYERS,
                                  .kv_heads = BED_HEADS,
                                  .head_dim = BED_DIM,
                                  .window = WINDOW,
                                  .window_every = 1};
static const kv_scope *house = &bed_scopes[0];

static kv_cache *open_cache(const model_shape *shape, kv_options o) {
    err e = {0};
    o.type = KV_F32;
    kv_cache *kv = kv_open(shape, &o, &e);
    assert_ok(kv, e);
    return kv;
}

/* Where attention begins to read for the token at `position`. */
static int first_read(const model_shape *shape, int layer, int position) {
    int low = model_window(shape, layer) ? position + 1 - shape->window : 0;
    return low > 0 ? low / ATTEND_GROUP * ATTEND_GROUP : 0;
}

/* All that the tokens from `position` on may read of what is before `to`. */
static void verify_from(const kv_cache *kv, const model_shape *shape, int sequence, const kv_scope *scope,
                        const int32_t *tokens, int position, int to) {
    for (int layer = 0; layer < BED_LAYERS; layer++) {
        bed_verify_layer(kv, layer, sequence, scope, tokens, first_read(shape, layer, position), to);
    }
}

/* Positions [from, to) in steps, each with what it may read looked at before it is committed. */
static void compute(kv_cache *kv, const model_shape *shape, int sequence, const int32_t *tokens, int from, int to) {
    for (int at = from, end; at < to; at = end) {
        end = at + STEP < to ? at + STEP : to;
        assert_true(kv_reserve(kv, sequence, end));
        bed_write(kv, sequence, house, tokens, at, end);
        verify_from(kv, shape, sequence, house, tokens, at, end);
        kv_commit(kv, sequence, end);
        bed_check(kv);
    }
}

static kv_match begin(kv_cache *kv, const model_shape *shape, int sequence, const int32_t *tokens, int n, bool reuse) {
    kv_begin(kv, sequence, *house, tokens, n, reuse);
    assert_false(kv_loading(kv, sequence));
    bed_check(kv);
    kv_match found = kv_found(kv, sequence);
    verify_from(kv, shape, sequence, house, tokens, found.tokens, found.tokens);
    return found;
}

/* A whole sequence, released: how much of it was found. */
static kv_match run(kv_cache *kv, const model_shape *shape, const int32_t *tokens, int prompt, int n) {
    kv_match found = begin(kv, shape, 0, tokens, prompt, true);
    compute(kv, shape, 0, tokens, found.tokens, n);
    kv_release(kv, 0);
    bed_check(kv);
    return found;
}

/* ---- sizes ---- */

static void test_sizes(void **state) {
    (void)state;
    /* Gemma 3 1B: 26 layers, one in six sees everything, the others 512 tokens */
    const model_shape gemma = {
        .layers = 26, .kv_heads = 1, .head_dim = 256, .window = 512, .window_every = 6, .context = 32768};
    kv_options   o = {.type = KV_F16, .sequences = 1, .context = 32768, .step_tokens = 128};
    const size_t whole = kv_bytes_of(&gemma, KV_F16, 32768), taken = kv_bytes_taken(&gemma, &o);
    print_message("gemma3-1b, 32768 tokens: %.1f MB, with all positions %.1f MB\n", (double)taken / 1e6,
                  (double)whole / 1e6);
    /* 4 layers whole; of 22 the window of 512, what surrounds it and a step, and the same again */
    size_t panes = 2 * ((512 + 78) / 16 + 3 + 128 / 16);
    assert_true(taken <= whole / 26 * 4 + panes * (whole / 2048 / 26) * 22);
    assert_true(taken > whole / 26 * 4 + panes / 2 * (whole / 2048 / 26) * 22);

    o.step_tokens = 0; /* not taken by steps */
    assert_int_equal(kv_bytes_taken(&gemma, &o), whole);
    o.step_tokens = 128;
    o.disk = "somewhere";
    assert_int_equal(kv_bytes_taken(&gemma, &o), whole);
    o.disk = NULL;
    o.context = 512; /* no longer than its window */
    assert_int_equal(kv_bytes_taken(&gemma, &o), kv_bytes_of(&gemma, KV_F16, 512));
    o.context = 32768;
    o.step_tokens = INT32_MAX;
    assert_int_equal(kv_bytes_taken(&gemma, &o), whole);

    /* given bytes buy more blocks, and never cost more than was given */
    for (size_t mb = 30; mb < 4000; mb += mb / 3) {
        o = (kv_options){.type = KV_F16, .sequences = 4, .context = 8192, .step_tokens = 128, .bytes = mb << 20};
        size_t got = kv_bytes_taken(&gemma, &o), block = kv_bytes_of(&gemma, KV_F16, 16);
        bool   enough = mb << 20 >= 512 * block / 26 * 4 + 4 * (590 / 16 + 3 + 2) * (block / 26 * 22);
        assert_true(!enough || got > 0);
        assert_true(got <= o.bytes && (!got || got > o.bytes - 2 * block || got > o.bytes / 2));
        assert_true(!got || kv_bytes_of(&gemma, KV_F16, 8192) <= o.bytes || got < kv_bytes_of(&gemma, KV_F16, 8192));
    }

    /* bytes for so many positions give them */
    const model_shape *shapes[] = {&gemma, &mixed, &local, &bed_shape};
    for (int i = 0; i < 4; i++) {
        for (int tokens = 16; tokens < 100000; tokens += tokens / 2 + 3) {
            o = (kv_options){.type = KV_F16, .sequences = 3, .context = 1000, .step_tokens = STEP};
            o.bytes = kv_bytes_for(shapes[i], &o, tokens);
            err       e = {0};
            kv_cache *sized = kv_open(shapes[i], &o, &e);
            assert_ok(sized, e);
            int blocks = (tokens > 1000 ? tokens + 15 : 1000 + 15) / 16;
            assert_in_range(kv_usage_read(sized).blocks, blocks, blocks + blocks / 3 + 1);
            assert_true(kv_usage_read(sized).bytes <= o.bytes);
            kv_close(sized);
        }
    }

    /* every layer with a window: the blocks themselves take nothing, and there is an end to them */
    kv_options all = {.sequences = 2, .context = 800, .step_tokens = STEP};
    kv_cache  *kv = open_cache(&local, all);
    kv_usage   u = kv_usage_read(kv);
    assert_int_equal(u.blocks, 100);
    assert_int_equal(u.bytes, (size_t)u.panes * bed_block_bytes(KV_F32));
    assert_true(u.panes < 50);
    kv_close(kv);
    all.bytes = 1 << 20;
    kv = open_cache(&local, all);
    assert_in_range(kv_usage_read(kv).blocks, 50, 1 << 13);
    kv_close(kv);
}

static void refused(const model_shape *shape, kv_options o, const char *part) {
    err e = {0};
    assert_null(kv_open(shape, &o, &e));
    assert_says(e, part);
}

static void test_least_size(void **state) {
    (void)state;
    const size_t piece = bed_block_bytes(KV_F32) / BED_LAYERS;
    /* 50 blocks whole; 3 windows of (40 + 78) / 16 + 3 and 4 of a step */
    const size_t windows = 3 * (118 / 16 + 3) + 4, least = 50 * piece + windows * 2 * piece;
    kv_options   o = {.type = KV_F32, .sequences = 3, .context = 800, .step_tokens = STEP, .bytes = least - 1};
    refused(&mixed, o, "with the windows of the others");
    o.bytes = least;
    kv_cache *kv = open_cache(&mixed, o);
    assert_int_equal(kv_usage_read(kv).blocks, 50);
    assert_int_equal(kv_usage_read(kv).panes, windows);
    assert_int_equal(kv_usage_read(kv).bytes, least);
    kv_close(kv);
    o.sequences = INT32_MAX;
    o.context = INT32_MAX;
    o.bytes = SIZE_MAX;
    err e = {0};
    assert_null(kv_open(&mixed, &o, &e));
}

/* ---- what is found again ---- */

static void test_identical_prompt(void **state) {
    (void)state;
    static int32_t     tokens[800];
    const model_shape *shapes[] = {&mixed, &local};
    for (int i = 0; i < 2; i++) {
        kv_cache *kv = open_cache(shapes[i], (kv_options){.sequences = 1, .context = 800, .step_tokens = STEP});
        bed_fill(tokens, 800, 100);
        assert_int_equal(run(kv, shapes[i], tokens, 600, 600).tokens, 0);
        kv_match found = run(kv, shapes[i], tokens, 600, 700); /* and an answer of 100 tokens */
        assert_int_equal(found.tokens, 592);                   /* whole blocks */
        assert_int_equal(found.miss, KV_MISS_NONE);
        found = run(kv, shapes[i], tokens, 600, 700);
        assert_int_equal(found.tokens, 599); /* and a part of one that is whole now */
        assert_int_equal(found.miss, KV_MISS_NONE);
        assert_int_equal(run(kv, shapes[i], tokens, 800, 800).tokens, 688); /* the next turn */
        assert_int_equal(run(kv, shapes[i], tokens, 700, 700).tokens, 699); /* the turn before, asked again */
        kv_close(kv);
    }
}

static void test_shared_beginning(void **state) {
    (void)state;
    static int32_t a[800], b[800];
    kv_cache      *kv = open_cache(&mixed, (kv_options){.sequences = 1, .context = 800, .step_tokens = STEP});
    bed_fill(a, 800, 100);
    for (int i = 0; i < 5; i++) {
        memcpy(b, a, sizeof(a));
        bed_fill(b + 400, 400, 10000 * (i + 1));
        kv_match found = run(kv, &mixed, b, 450, 500);
        assert_int_equal(found.tokens, i ? 400 : 0);
        assert_int_equal(found.miss, i ? KV_MISS_DIVERGE : KV_MISS_NEW);
    }
    kv_close(kv);
}

/* A long prompt goes by without driving out where others come back to; a prefix that it did drive out is known to be
 * wanted once it was looked for, and stays the second time. */
static void test_long_prompts(void **state) {
    (void)state;
    static int32_t chat[2000], text[2000];
    kv_cache      *kv = open_cache(&mixed, (kv_options){.sequences = 4, .context = 2000, .step_tokens = STEP});
    bed_fill(chat, 2000, 100);
    run(kv, &mixed, chat, 400, 624);
    for (int i = 0; i < 3; i++) {
        bed_fill(text, 2000, 10000 * (i + 1));
        assert_int_equal(run(kv, &mixed, text, 2000, 2000).tokens, 0);
    }
    bed_fill(chat + 600, 1400, 5000); /* the next turn, told a little otherwise than it was said */
    assert_int_equal(run(kv, &mixed, chat, 700, 700).tokens, 600);
    assert_int_equal(run(kv, &mixed, chat, 800, 800).tokens, 688);

    /* text is the last long one; its beginning was passed long ago */
    static int32_t other[2000];
    memcpy(other, text, sizeof(text));
    bed_fill(other + 500, 1500, 50000);
    kv_match found = run(kv, &mixed, other, 1900, 1900);
    assert_true(found.tokens < 500);
    assert_int_equal(found.miss, KV_MISS_EVICTED);
    bed_fill(other + 500, 1500, 60000);
    found = run(kv, &mixed, other, 1900, 1900);
    assert_int_equal(found.tokens, 500);
    assert_int_equal(found.miss, KV_MISS_DIVERGE);
    kv_close(kv);
}

/* However many ends of chats rest, the last long beginning is found by the next one who has it. */
static void test_new_beginnings(void **state) {
    (void)state;
    static int32_t chat[300], text[800];
    kv_cache      *kv = open_cache(&mixed, (kv_options){.sequences = 4, .context = 2000, .step_tokens = STEP});
    for (int i = 0; i < 30; i++) {
        bed_fill(chat, 300, 1000 * (i + 1));
        run(kv, &mixed, chat, 300, 300);
    }
    assert_true(kv_usage_read(kv).panes_evicted > 50);
    bed_fill(text, 800, 100);
    run(kv, &mixed, text, 640, 640);
    bed_fill(text + 400, 400, 50000);
    assert_int_equal(run(kv, &mixed, text, 640, 640).tokens, 400);
    assert_int_equal(run(kv, &mixed, chat, 300, 300).tokens, 288); /* nor did it drive out the last chat */
    kv_close(kv);
}

/* A sequence without reuse holds its window and a step, however long it is. */
static void test_held(void **state) {
    (void)state;
    static int32_t tokens[4000];
    kv_cache      *kv = open_cache(&mixed, (kv_options){.sequences = 2, .context = 4000, .step_tokens = STEP});
    bed_fill(tokens, 4000, 5);
    begin(kv, &mixed, 1, tokens, 4000, false);
    for (int at = 0; at < 4000; at += 50) {
        compute(kv, &mixed, 1, tokens, at, at + 50);
        assert_true(kv_usage_read(kv).panes_held <= 118 / 16 + 3);
    }
    assert_int_equal(kv_usage_read(kv).held, 250);
    assert_int_equal(kv_usage_read(kv).panes_evicted, 0);
    kv_release(kv, 1);
    assert_int_equal(kv_usage_read(kv).panes_held, 0);
    bed_check(kv);
    kv_close(kv);
}

/* Sequences that begin together: one computes, the others follow step by step. */
static void test_followers(void **state) {
    (void)state;
    static int32_t tokens[3][1000];
    kv_cache      *kv = open_cache(&mixed, (kv_options){.sequences = 3, .context = 1000, .step_tokens = STEP});
    for (int s = 0; s < 3; s++) {
        bed_fill(tokens[s], 1000, 7);
        bed_fill(tokens[s] + 640, 360, 1000 * (s + 1));
        kv_rank(kv, s, s);
        begin(kv, &mixed, s, tokens[s], 1000, true);
    }
    for (int at = 0; at < 640; at += STEP) {
        for (int s = 1; s < 3; s++) {
            assert_int_equal(kv_advance(kv, s, at), at);
            assert_true(kv_awaits(kv, s, at));
        }
        compute(kv, &mixed, 0, tokens[0], at, at + STEP);
        for (int s = 1; s < 3; s++) {
            assert_int_equal(kv_advance(kv, s, at), at + STEP);
            bed_check(kv);
            verify_from(kv, &mixed, s, house, tokens[s], at + STEP, at + STEP);
        }
    }
    for (int s = 0; s < 3; s++) {
        assert_false(kv_awaits(kv, s, 640));
        compute(kv, &mixed, s, tokens[s], 640, 1000);
        kv_release(kv, s);
    }
    kv_close(kv);
}

/* ---- random use ---- */

enum { SEQUENCES = 5, CONTEXT = 900, STEPS = 5000 };

typedef struct one { /* what a sequence should be */
    bool    begun, reuse;
    int     scope, n, committed, reserved;
    int64_t rank;
    int32_t tokens[CONTEXT];
} one;

typedef struct walk {
    const model_shape *shape;
    kv_cache          *kv;
    one                all[SEQUENCES];
    uint64_t           seed;
    int                open; /* tokens reserved and not committed */
    int                begun, hits, cut, short_of_blocks, advanced;
    int32_t            stored[4000][2]; /* scope and length of what was ever committed */
    int                n_stored;
    int32_t (*texts)[CONTEXT];
} walk;

static int random_below(walk *w, int n) {
    return (int)(test_random(&w->seed) % (uint64_t)n);
}

/* Nothing is found that was never committed in this scope. */
static int longest_stored(const walk *w, const one *s) {
    int longest = 0;
    for (int i = 0; i < w->n_stored; i++) {
        int same = 0, most = w->stored[i][1] < s->n ? w->stored[i][1] : s->n;
        while (w->stored[i][0] == s->scope && same < most && w->texts[i][same] == s->tokens[same]) {
            same++;
        }
        longest = same > longest ? same : longest;
    }
    return longest;
}

static void store(walk *w, const one *s) {
    if (s->reuse && s->committed > 0) {
        int i = w->n_stored++ % 4000;
        w->n_stored = w->n_stored > 4000 ? 4000 : w->n_stored;
        w->stored[i][0] = s->scope;
        w->stored[i][1] = s->committed;
        memcpy(w->texts[i], s->tokens, sizeof(s->tokens));
    }
}

static void verify_one(const walk *w, int i) {
    const one *s = &w->all[i];
    verify_from(w->kv, w->shape, i, &bed_scopes[s->scope], s->tokens, s->committed, s->committed);
}

static void random_begin(walk *w, int i) {
    one *s = &w->all[i];
    *s = (one){.begun = true,
               .reuse = random_below(w, 8) != 0,
               .scope = random_below(w, 2),
               .rank = random_below(w, 1000),
               .n = 1 + random_below(w, CONTEXT - 1)};
    int text = random_below(w, 3) ? 20 + w->begun / 12 : random_below(w, 3),
        shared = random_below(w, 2) ? CONTEXT : random_below(w, CONTEXT);
    for (int t = 0; t < CONTEXT; t++) {
        s->tokens[t] = t < shared ? text * (t >= 100) : 10 + random_below(w, 2);
    }
    const one *twin = &w->all[random_below(w, SEQUENCES)];
    if (twin->begun && twin != s && random_below(w, 2)) {
        s->scope = twin->scope;
        memcpy(s->tokens, twin->tokens, sizeof(s->tokens));
    }
    kv_rank(w->kv, i, s->rank);
    kv_begin(w->kv, i, bed_scopes[s->scope], s->tokens, s->n, s->reuse);
    assert_false(kv_loading(w->kv, i));
    kv_match found = kv_found(w->kv, i);
    assert_true(found.tokens < s->n && found.tokens <= (s->reuse ? longest_stored(w, s) : 0));
    s->committed = s->reserved = found.tokens;
    w->begun++;
    w->hits += found.tokens > WINDOW;
    w->cut += found.miss == KV_MISS_EVICTED;
}

static void random_compute(walk *w, int i) {
    one *s = &w->all[i];
    int  most = STEP - w->open + (s->reserved - s->committed);
    int  to = s->committed + 1 + random_below(w, most > 0 ? most : 1);
    to = to > CONTEXT ? CONTEXT : to;
    to = random_below(w, 2) && to / KV_TOKENS * KV_TOKENS > s->committed ? to / KV_TOKENS * KV_TOKENS : to;
    if (most <= 0 || to < s->reserved) {
        return;
    }
    int64_t before = kv_room(w->kv, i);
    bool    room = kv_reserve(w->kv, i, to);
    assert_int_equal(room, to - s->committed <= before);
    if (!room) { /* blocks may be short, panes never */
        kv_usage u = kv_usage_read(w->kv);
        assert_true(u.held == u.blocks && u.panes_held <= u.panes);
        w->short_of_blocks++;
        return;
    }
    w->open += to - (s->reserved > s->committed ? s->reserved : s->committed);
    s->reserved = to;
    if (random_below(w, 6)) {
        bed_write(w->kv, i, &bed_scopes[s->scope], s->tokens, s->committed, to);
        verify_from(w->kv, w->shape, i, &bed_scopes[s->scope], s->tokens, s->committed, to);
        kv_commit(w->kv, i, to);
        w->open -= to - s->committed;
        s->committed = to;
        s->n = to > s->n ? to : s->n;
        store(w, s);
    }
}

static void random_advance(walk *w, int i) {
    one *s = &w->all[i];
    if (s->committed % KV_TOKENS == 0 && s->reuse) {
        int at = kv_advance(w->kv, i, s->committed);
        w->advanced += at > s->committed;
        int still = s->reserved > at ? s->reserved : at;
        w->open -= s->reserved - s->committed - (still - at);
        s->committed = at;
        s->reserved = still;
    }
}

static void random_walk(const model_shape *shape, size_t bytes, int steps, walk *w) {
    *w = (walk){.shape = shape, .seed = 7, .texts = w->texts};
    w->kv = open_cache(shape,
                       (kv_options){.sequences = SEQUENCES, .context = CONTEXT, .step_tokens = STEP, .bytes = bytes});
    assert_true(kv_usage_read(w->kv).panes > 0);
    for (int step = 0; step < steps; step++) {
        int  i = random_below(w, SEQUENCES), what = random_below(w, 12);
        one *s = &w->all[i];
        if (!s->begun) {
            random_begin(w, i);
        } else if (what == 0 || s->committed == CONTEXT) {
            w->open -= s->reserved - s->committed;
            kv_release(w->kv, i);
            s->begun = false;
            s->committed = s->reserved = 0;
        } else if (what < 4) {
            random_advance(w, i);
        } else {
            random_compute(w, i);
        }
        bed_check(w->kv);
        verify_one(w, i);
        if (step % 20 == 0) {
            for (int k = 0; k < SEQUENCES; k++) {
                verify_one(w, k);
            }
        }
    }
    kv_usage u = kv_usage_read(w->kv);
    print_message("%lld blocks, %lld panes: %d begun, %d found much, %d lacked panes or blocks, %d advanced, %d short; "
                  "%lld and %lld evicted, %lld copied\n",
                  (long long)u.blocks, (long long)u.panes, w->begun, w->hits, w->cut, w->advanced, w->short_of_blocks,
                  (long long)u.evicted, (long long)u.panes_evicted, (long long)u.copied);
    assert_true(w->begun > 100 && w->hits > 20 && w->advanced > 20 && u.copied > 10 && u.panes_evicted > 100);
    kv_close(w->kv);
}

static void test_random_use(void **state) {
    (void)state;
    walk *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->texts = malloc(4000 * sizeof(*w->texts));
    assert_non_null(w->texts);
    const size_t piece = bed_block_bytes(KV_F32) / BED_LAYERS;
    random_walk(&mixed, 0, STEPS, w);
    assert_int_equal(w->short_of_blocks, 0);
    random_walk(&local, 0, STEPS, w);
    /* little room: one sequence at full length, and the windows of all */
    const size_t blocks = (CONTEXT + 15) / 16, windows = SEQUENCES * (118 / 16 + 3) + 4;
    random_walk(&mixed, blocks * piece + windows * 2 * piece, STEPS, w);
    assert_true(w->short_of_blocks > 10);
    free(w->texts);
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_least_size),
        cmocka_unit_test(test_identical_prompt),
        cmocka_unit_test(test_shared_beginning),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_new_beginnings),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_followers),
        cmocka_unit_test(test_random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
