/* bench_model.c - the forward pass alone: prefill, decode, and decode of sequences that share a prefix. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "engine/forward.h"

#define STEP_TOKENS   128 /* of a step of prefill, as the engine's */
#define PROMPT        512
#define SHARED_PREFIX 2000

int32_t bench_token(const bench *b, int64_t i) {
    return (int32_t)((i * 7919 + 13) % b->m->shape.vocab);
}

static void count_matrix(bench *b, const matrix *w, bool read) {
    b->parameters += (double)w->rows * w->cols;
    if (read) {
        b->step_bytes += (double)w->panel_bytes * w->panels;
    }
}

static void count_vector(bench *b, const float *v, double n) {
    b->parameters += v ? n : 0;
}

static void count_ffn(bench *b, const ffn_weights *w, bool read) {
    count_matrix(b, &w->gate, read);
    count_matrix(b, &w->up, read);
    count_matrix(b, &w->down, read);
}

/* Of experts a step of one token reads those that it uses. */
static void count_layer(bench *b, const layer_weights *l) {
    const model_shape  *s = &b->m->shape;
    const double        q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const matrix *const all[] = {&l->q, &l->k, &l->v, &l->o, &l->router};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        count_matrix(b, all[k], true);
    }
    count_ffn(b, &l->ffn, true);
    for (int i = 0; i < s->experts; i++) {
        count_ffn(b, &l->experts[i], i < s->experts_used);
    }
    count_vector(b, l->attn_norm.weight, s->dim);
    count_vector(b, l->ffn_norm.weight, s->dim);
    count_vector(b, l->attn_after.weight, s->dim);
    count_vector(b, l->ffn_after.weight, s->dim);
    count_vector(b, l->q_bias, q);
    count_vector(b, l->k_bias, kv);
    count_vector(b, l->v_bias, kv);
    count_vector(b, l->o_bias, s->dim);
}

/* All parameters, as a model's name counts them. A step reads every matrix, but of an embedding that is not also the
 * output only a few rows. */
void bench_size_up(bench *b) {
    const model_shape *s = &b->m->shape;
    b->parameters = s->dim; /* the output's norm */
    b->step_bytes = 0;
    if (!s->tied) {
        count_matrix(b, &b->m->embedding, false);
    }
    count_matrix(b, &b->m->output, true);
    for (int i = 0; i < s->layers; i++) {
        count_layer(b, &b->m->layers[i]);
    }
}

/* ---- sequences in a cache ---- */

typedef struct rig {
    bench         *b;
    forward       *pass;
    kv_cache      *kv;
    int            sequences, context, length; /* context: tokens before those that are measured; length: all */
    bool           one_prefix;                 /* the context is the same in all sequences */
    int            salt;                       /* makes the measured tokens of each run new */
    bool          *begun;                      /* [sequences] */
    int32_t       *ids;                        /* [sequences][length] */
    forward_token *step;                       /* [max(sequences, STEP_TOKENS)] */
} rig;

static void rig_close(rig *r) {
    for (int s = 0; r->kv && r->begun && s < r->sequences; s++) {
        if (r->begun[s]) {
            kv_release(r->kv, s);
        }
    }
    kv_close(r->kv);
    forward_free(r->pass);
    free(r->begun);
    free(r->ids);
    free(r->step);
}

/* A cache larger than the machine would be taken page by page until the system ends the process. */
static bool fits_machine(size_t bytes, err *e) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0 && (double)bytes > 0.9 * (double)pages * (double)page) {
        return err_set(e, ERR_LIMIT,
                       "The cache for this needs %.1f GB, and the machine has %.1f GB; lower --context or --batch, or "
                       "try --kv q8_0.",
                       (double)bytes / 1e9, (double)pages * (double)page / 1e9);
    }
    return true;
}

static bool rig_open(rig *r, bench *b, err *e) {
    int        width = r->sequences > STEP_TOKENS ? r->sequences : STEP_TOKENS;
    int        length = (r->length + 2 * KV_TOKENS) / KV_TOKENS * KV_TOKENS;
    kv_options o = {.type = b->kv, .sequences = r->sequences, .context = r->length, .step_tokens = width};
    int64_t    tokens = (int64_t)length * r->sequences + 2 * KV_TOKENS;
    if (r->one_prefix) { /* the room that sharing needs, and some: without sharing it would not do */
        tokens = 2 * (int64_t)length + (int64_t)(r->length - r->context + 3 * KV_TOKENS) * r->sequences;
    }
    o.bytes = kv_bytes_for(&b->m->shape, &o, tokens);
    r->b = b;
    if (!fits_machine(o.bytes, e)) {
        return false;
    }
    r->pass = forward_new(b->m, b->p, width, r->sequences, e);
    r->kv = r->pass ? kv_open(&b->m->shape, &o, e) : NULL;
    if (!r->kv) {
        return false;
    }
    r->begun = calloc((size_t)r->sequences, sizeof *r->begun);
    r->ids = calloc((size_t)r->sequences * (size_t)r->length, sizeof *r->ids);
    r->step = calloc((size_t)width, sizeof *r->step);
    if (!r->begun || !r->ids || !r->step) {
        return err_set(e, ERR_MEMORY, "Out of memory for %d sequences.", r->sequences);
    }
    size_t bytes = kv_usage_read(r->kv).bytes;
    b->kv_bytes = bytes > b->kv_bytes ? bytes : b->kv_bytes;
    return true;
}

static int32_t *ids_of(const rig *r, int s) {
    return r->ids + (size_t)s * (size_t)r->length;
}

static bool reserve(rig *r, int s, int length, err *e) {
    return kv_reserve(r->kv, s, length) ||
           err_set(e, ERR_INTERNAL, "The cache has no room for %d tokens of sequence %d.", length, s);
}

/* The model runs as in the engine: with its turn at the pool held, so that threads wait awake for the next job. */
static void pass(rig *r, int n) {
    pool_take(r->b->p);
    forward_run(r->pass, r->kv, r->step, n);
    pool_give(r->b->p);
}

/* Positions [at, end) of a sequence, in steps. */
static bool feed(rig *r, int s, int at, int end, err *e) {
    while (at < end) {
        int n = end - at < STEP_TOKENS ? end - at : STEP_TOKENS;
        if (!reserve(r, s, at + n, e)) {
            return false;
        }
        for (int i = 0; i < n; i++) {
            r->step[i] = (forward_token){.id = ids_of(r, s)[at + i], .sequence = s, .position = at + i};
        }
        r->step[n - 1].logits = at + n == end;
        pass(r, n);
        at += n;
        kv_commit(r->kv, s, at);
    }
    return true;
}

static void choose_ids(rig *r, int s) {
    int32_t *ids = ids_of(r, s);
    for (int i = 0; i < r->length; i++) {
        bool own = !r->one_prefix || i >= r->context;
        ids[i] = bench_token(r->b, i + (own ? 31 * (s + 1) : 0) + (i >= r->context ? 1009 * r->salt : 0));
    }
}

/* Begins a sequence anew, with its context in the cache: what the last run left there is taken, the rest computed. */
static bool begin(rig *r, int s, err *e) {
    static const kv_scope scope = {{0}};
    if (r->begun[s]) {
        kv_release(r->kv, s);
    }
    choose_ids(r, s);
    kv_begin(r->kv, s, scope, ids_of(r, s), r->context + 1, true);
    r->begun[s] = true;
    while (kv_loading(r->kv, s)) {
    }
    return feed(r, s, kv_found(r->kv, s).tokens, r->context, e);
}

/* ---- prefill ---- */

static bool prefill_once(void *arg, double *seconds, err *e) {
    static const kv_scope scope = {{0}};
    rig                  *r = arg;
    choose_ids(r, 0);
    int64_t began = clock_us();
    if (r->begun[0]) {
        kv_release(r->kv, 0);
    }
    kv_begin(r->kv, 0, scope, r->ids, r->length, false);
    r->begun[0] = true;
    while (kv_loading(r->kv, 0)) {
    }
    bool ok = feed(r, 0, 0, r->length, e);
    *seconds = (double)(clock_us() - began) / 1e6;
    return ok;
}

bool bench_prefill(bench *b, err *e) {
    int        most = b->m->shape.context;
    int        prompt = b->prompt ? b->prompt : most < PROMPT ? most : PROMPT;
    rig        r = {.sequences = 1, .length = prompt};
    bench_rate rate = {.test = "prefill", .tokens = prompt, .batch = 1};
    if (prompt > most) {
        return err_set(e, ERR_INVALID, "--prompt %d is more than the %d tokens of the model's context; see --longest.",
                       prompt, most);
    }
    rate.steps = (prompt + STEP_TOKENS - 1) / STEP_TOKENS;
    bool ok = rig_open(&r, b, e) && bench_repeat(b, "prefill", prefill_once, &r, &rate.seconds, &rate.machine, e);
    rig_close(&r);
    if (ok) {
        bench_print_rate(b, &rate);
    }
    return ok;
}

/* ---- decode ---- */

static bool decode_once(void *arg, double *seconds, err *e) {
    rig *r = arg;
    r->salt++;
    for (int s = 0; s < r->sequences; s++) {
        if (!begin(r, s, e)) {
            return false;
        }
    }
    int64_t began = clock_us();
    for (int at = r->context; at < r->length; at++) {
        for (int s = 0; s < r->sequences; s++) {
            if (!reserve(r, s, at + 1, e)) {
                return false;
            }
            r->step[s] = (forward_token){.id = ids_of(r, s)[at], .sequence = s, .position = at, .logits = true};
        }
        pass(r, r->sequences);
        for (int s = 0; s < r->sequences; s++) {
            kv_commit(r->kv, s, at + 1);
        }
    }
    *seconds = (double)(clock_us() - began) / 1e6;
    return true;
}

static bool decode(bench *b, rig *r, bench_rate *rate, err *e) {
    int  most = b->m->shape.context;
    char what[64];
    if (r->length > most) {
        return err_set(e, ERR_INVALID,
                       "%d tokens of context and %d steps are more than the %d tokens that the model's context holds; "
                       "see --longest.",
                       r->context, b->steps, most);
    }
    snprintf(what, sizeof what, "%s of %d", rate->test, r->sequences);
    rate->steps = b->steps;
    rate->batch = r->sequences;
    rate->tokens = b->steps * r->sequences;
    rate->context = r->context;
    if (!rig_open(r, b, e) || !bench_repeat(b, what, decode_once, r, &rate->seconds, &rate->machine, e)) {
        return false;
    }
    rate->blocks_held = kv_usage_read(r->kv).held;
    return true;
}

bool bench_decode(bench *b, int batch, err *e) {
    rig        r = {.sequences = batch, .context = b->context, .length = b->context + b->steps};
    bench_rate rate = {.test = "decode"};
    bool       ok = decode(b, &r, &rate, e);
    rig_close(&r);
    if (ok) {
        bench_print_rate(b, &rate);
    }
    return ok;
}

bool bench_shared(bench *b, err *e) {
    int        room = b->m->shape.context - b->steps;
    int        prefix = room < SHARED_PREFIX ? room : SHARED_PREFIX;
    rig        r = {.sequences = b->shared, .context = prefix, .length = prefix + b->steps, .one_prefix = true};
    bench_rate rate = {.test = "shared"};
    if (prefix < 1) {
        return err_set(e, ERR_INVALID, "%d steps leave no room for a shared prefix in a context of %d tokens.",
                       b->steps, b->m->shape.context);
    }
    bool ok = decode(b, &r, &rate, e);
    rate.blocks_apart = (int64_t)b->shared * ((r.length + KV_TOKENS - 1) / KV_TOKENS);
    rig_close(&r);
    if (ok) {
        bench_print_rate(b, &rate);
    }
    return ok;
}
