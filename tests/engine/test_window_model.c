/* Models whose layers keep only their window: the bits that they have when every layer keeps all, in any chunks, after a
 * stored prefix and among others in an engine; and the memory that is foretold for them. */
#include "check.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/footprint.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "engine/reference_archs.h"
#include "jobs.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNDER_SANITIZER
#endif
#endif

enum { LENGTH = 400, CONTEXT = 1024, VOCAB = SPEC_VOCAB };

typedef struct bed {
    spec    s;
    str     file;
    pool   *p;
    model  *m;
    int32_t ids[LENGTH];
} bed;

static void load(bed *b, void (*more)(const random_model *)) {
    err      e = {0};
    uint64_t seed = 3;
    assert_ok(random_model_build(&b->s, more, 42, &b->file, &e), e);
    b->p = pool_new(2, &e);
    b->m = model_open(NULL, b->file.data, b->file.len, b->p, &e);
    assert_ok(b->m, e);
    assert_true(b->m->shape.window > 0);
    for (int i = 0; i < LENGTH; i++) {
        b->ids[i] = (int32_t)(test_random(&seed) % VOCAB);
    }
}

static void unload(bed *b) {
    model_close(b->m);
    pool_free(b->p);
    str_free(&b->file);
}

static kv_cache *open_cache(const bed *b, int sequences, int step, bool windows) {
    err        e = {0};
    kv_options o = {.type = KV_F16, .sequences = sequences, .context = CONTEXT, .step_tokens = windows ? step : 0};
    kv_cache  *kv = kv_open(&b->m->shape, &o, &e);
    assert_ok(kv, e);
    assert_true((kv_usage_read(kv).panes > 0) == windows);
    return kv;
}

/* The logits of ids[from .. LENGTH), `chunk` tokens a pass, into their places of out. */
static void compute(const bed *b, forward *f, kv_cache *kv, const int32_t *ids, int from, int chunk, float *out) {
    static forward_token batch[LENGTH];
    err                  e = {0};
    for (int at = from, n; at < LENGTH; at += n) {
        n = LENGTH - at < chunk ? LENGTH - at : chunk;
        assert_true(kv_reserve(kv, 0, at + n));
        for (int t = 0; t < n; t++) {
            batch[t] = (forward_token){ids[at + t], 0, at + t, true};
        }
        memcpy(out + (size_t)at * VOCAB, forward_run(f, kv, batch, n), (size_t)n * VOCAB * sizeof(float));
        kv_commit(kv, 0, at + n);
        assert_ok(kv_check(kv, &e), e);
    }
    (void)b;
}

static void begin(kv_cache *kv, const int32_t *ids, bool reuse) {
    kv_release(kv, 0);
    kv_begin(kv, 0, (kv_scope){{1}}, ids, LENGTH, reuse);
    assert_false(kv_loading(kv, 0));
}

static void same_bits(const bed *b, const float *want, const float *got, int from, const char *what, int n) {
    if (memcmp(want + (size_t)from * VOCAB, got + (size_t)from * VOCAB,
               (size_t)(LENGTH - from) * VOCAB * sizeof(float)) != 0) {
        fail_msg("%s: other bits %s %d", b->s.name, what, n);
    }
}

/* A prompt that begins as a stored one does and then goes on in its own way. */
static void after_prefix(const bed *b, forward *f, const float *whole, float *want, float *got) {
    const int shared[] = {390, 256, 161};
    int32_t   ids[LENGTH];
    kv_cache *all = open_cache(b, 1, 64, false), *windowed = open_cache(b, 4, 64, true);
    begin(windowed, b->ids, true);
    compute(b, f, windowed, b->ids, 0, 64, got);
    same_bits(b, whole, got, 0, "with reuse in chunks of", 64);
    for (int i = 0; i < 3; i++) {
        memcpy(ids, b->ids, sizeof ids);
        for (int t = shared[i]; t < LENGTH; t++) {
            ids[t] = (b->ids[t] + 1) % VOCAB;
        }
        begin(all, ids, false);
        compute(b, f, all, ids, 0, 200, want);
        begin(windowed, ids, true);
        int from = kv_found(windowed, 0).tokens;
        assert_true(from > shared[i] - KV_TOKENS && from <= shared[i]);
        compute(b, f, windowed, ids, from, 64, got);
        same_bits(b, want, got, from, "after a stored prefix of", from);
    }
    kv_close(all);
    kv_close(windowed);
}

static void test_same_bits(void **state) {
    (void)state;
    const int    chunks[] = {200, 64, 7, 1};
    const size_t bytes = (size_t)LENGTH * VOCAB * sizeof(float);
    int          tried = 0;
    float       *whole = malloc(bytes), *want = malloc(bytes), *got = malloc(bytes);
    assert_true(whole && want && got);
    for (size_t i = 0; i < REFERENCE_CASES; i++) {
        bed b = {.s = reference_cases[i].s};
        err e = {0};
        if (!b.s.window || b.s.both_ways) {
            continue;
        }
        b.s.context = CONTEXT;
        load(&b, reference_cases[i].more);
        forward *f = forward_new(b.m, b.p, LENGTH, LENGTH, &e);
        assert_ok(f, e);
        kv_cache *all = open_cache(&b, 1, 0, false);
        begin(all, b.ids, false);
        compute(&b, f, all, b.ids, 0, LENGTH, whole);
        kv_close(all);
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks - (b.s.layers > 10);
             c++) { /* by ones the deep ones last */
            kv_cache *windowed = open_cache(&b, 1, chunks[c], true);
            begin(windowed, b.ids, false);
            compute(&b, f, windowed, b.ids, 0, chunks[c], got);
            same_bits(&b, whole, got, 0, "in chunks of", chunks[c]);
            kv_close(windowed);
        }
        after_prefix(&b, f, whole, want, got);
        forward_free(f);
        unload(&b);
        tried++;
    }
    assert_in_range(tried, 5, 100);
    free(whole);
    free(want);
    free(got);
}

/* ---- an engine ---- */

static engine_request request(const int32_t *ids, int n, bool alone) {
    engine_request r = {.tokens = ids, .n_tokens = n, .max_tokens = 40, .ignore_eos = true, .no_reuse = alone};
    r.sampling = sampling_default();
    r.sampling.temperature = 0;
    return r;
}

/* Jobs with three beginnings, each with an end of its own; asked alone and without reuse, then all at once, twice, with
 * little room. */
static void test_engine(void **state) {
    (void)state;
    enum { JOBS = 24 };
    static int32_t prompts[JOBS][LENGTH];
    static answer *alone[JOBS], *together[JOBS];
    err            e = {0};
    bed            b = {0};
    int            lengths[JOBS], cached = 0;
    for (size_t i = 0; i < REFERENCE_CASES; i++) {
        if (strcmp(reference_cases[i].s.name, "gemma3") == 0) {
            b.s = reference_cases[i].s;
        }
    }
    b.s.context = CONTEXT;
    load(&b, NULL);
    for (int j = 0; j < JOBS; j++) {
        lengths[j] = 330 + j % 5 * 15;
        for (int t = 0; t < lengths[j]; t++) {
            prompts[j][t] = t < 300 ? (b.ids[t] + j % 3) % VOCAB : (b.ids[t] + 11 * j) % VOCAB;
        }
    }
    engine_options o = {.sequences = 1, .context = CONTEXT, .step_tokens = 48};
    for (int round = 0; round < 3; round++) {
        o.kv_bytes = round == 2 ? kv_bytes_of(&b.m->shape, KV_F16, CONTEXT) : 0;
        engine *g = engine_open(b.m, b.p, &o, &e);
        assert_ok(g, e);
        for (int j = 0; j < JOBS; j++) {
            answer **a = round ? &together[j] : &alone[j];
            *a = new_answer();
            assert_ok(submit(g, *a, request(prompts[j], lengths[j], !round), &e), e);
        }
        for (int j = 0; j < JOBS; j++) {
            wait_for(round ? together[j] : alone[j]);
            assert_int_equal(alone[j]->n, 40);
            if (round) {
                assert_int_equal(together[j]->n, 40);
                assert_memory_equal(together[j]->ids, alone[j]->ids, 40 * sizeof(int32_t));
                cached += together[j]->result.cached_tokens;
                free_answer(together[j]);
            }
        }
        engine_stats s;
        engine_stats_read(g, &s);
        print_message("%d sequences: %lld blocks, %lld panes, %lld and %lld evicted, %lld preempted\n", o.sequences,
                      (long long)s.kv.blocks, (long long)s.kv.panes, (long long)s.kv.evicted,
                      (long long)s.kv.panes_evicted, (long long)s.preempted);
        assert_true(s.kv.panes > 0 && s.kv.panes < s.kv.blocks);
        engine_close(g);
        o.sequences = 6;
        o.step_tokens = round ? 24 : 0;
    }
    assert_true(cached > JOBS * 200);
    for (int j = 0; j < JOBS; j++) {
        free_answer(alone[j]);
    }
    unload(&b);
}

/* ---- memory ---- */

static size_t resident_bytes(const char *path, const char *key) {
    char   line[200];
    size_t kb = 0;
    FILE  *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            sscanf(line + strlen(key), " %zu", &kb);
        }
    }
    fclose(f);
    return kb * 1024;
}

/* In a process of its own: loads the model, fills a chat's context and tells what that took. */
static void fill(const char *path, int context, int *out) {
    static int32_t ids[8192];
    err            e = {0};
    size_t         before = resident_bytes("/proc/self/status", "VmRSS:"), taken = 0;
    pool          *p = pool_new(2, &e);
    model         *m = model_open(path, NULL, 0, p, &e);
    engine        *g = m ? engine_open(m, p, &(engine_options){.sequences = 1, .context = context}, &e) : NULL;
    if (g) {
        answer *a = new_answer();
        for (int i = 0; i < context; i++) {
            ids[i] = (i * 7 + i / 100) % VOCAB;
        }
        engine_request r = request(ids, context - 4, false);
        r.max_tokens = 4;
        if (submit(g, a, r, &e)) {
            wait_for(a);
            taken = resident_bytes("/proc/self/status", "VmHWM:") - before;
        }
    }
    _exit(write(out[1], &taken, sizeof taken) != sizeof taken);
}

static void test_foretold(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(UNDER_SANITIZER)
    print_message("skipped: sanitizers take memory of their own\n");
    skip();
#endif
    /* the pattern and the window of Gemma 3 1B, fewer and narrower layers */
    bed       b = {.s = {.name = "gemma3",
                         GEMMA3,
                         .layers = 18,
                         .dim = 128,
                         .heads = 4,
                         .kv_heads = 4,
                         .head_dim = 128,
                         .ffn = 256,
                         .context = 8192,
                         .embedding_scale = 11.313708498984761}};
    const int contexts[] = {8192, 2048};
    char      path[] = "/tmp/pare-test-window-XXXXXX";
    err       e = {0};
    b.s.window = 512;
    assert_ok(random_model_build(&b.s, NULL, 42, &b.file, &e), e);
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, b.file.data, b.file.len) == (ssize_t)b.file.len);
    close(fd);
    for (int i = 0; i < 2; i++) {
        int       out[2];
        footprint f;
        size_t    taken = 0;
        gguf     *file = gguf_open(path, &e);
        assert_ok(file, e);
        engine_options o = {.sequences = 1, .context = contexts[i]};
        model_shape    s;
        assert_ok(footprint_of_engine(file, &o, &f, &e) && model_shape_read(file, &s, &e), e);
        assert_int_equal(pipe(out), 0);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            fill(path, contexts[i], out);
        }
        int status = 1;
        close(out[1]);
        assert_true(read(out[0], &taken, sizeof taken) == sizeof taken);
        waitpid(child, &status, 0);
        assert_int_equal(status, 0);
        close(out[0]);
        size_t whole = kv_bytes_of(&s, KV_F16, contexts[i]);
        print_message("%d tokens: foretold %.1f MB (%.1f of keys and values; all positions would be %.1f), taken %.1f "
                      "MB (%+.1f %%)\n",
                      contexts[i], (double)footprint_sum(&f) / 1e6, (double)f.kv / 1e6, (double)whole / 1e6,
                      (double)taken / 1e6, 100 * ((double)footprint_sum(&f) / (double)taken - 1));
        assert_true(f.kv * 10 < whole * (contexts[i] == 8192 ? 4 : 8));
        assert_true(fabs((double)footprint_sum(&f) / (double)taken - 1) < 0.05);
        gguf_close(file);
    }
    unlink(path);
    str_free(&b.file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_foretold), cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_engine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
