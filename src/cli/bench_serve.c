/* bench_serve.c - the engine with its scheduler: the first token after a start, of a cold prompt and of one whose
 * beginning is cached; and how a long prompt disturbs those who are being answered.                                  */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "engine/engine.h"

#define FIRST_PROMPT  2000
#define MIXED_PROMPT  4000
#define MIXED_STREAMS 8
#define OWN_TOKENS    16 /* at a prompt's end, which differ from request to request */
#define WARM_TOKENS   4  /* of each stream, before its gaps count */
#define LEAST_GAPS    32 /* of each stream, before the long prompt comes */

/* ---- one request, waited for ---- */

typedef struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    bool            done;
    int64_t         ended_us, first_us;
    int             cached, generated;
    err             why; /* ERR_NONE: it went well */
} waiter;

static void ended(void *ctx, const engine_result *r) {
    waiter *w = ctx;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->ended_us = clock_us();
    w->first_us = r->first_us;
    w->cached = r->cached_tokens;
    w->generated = r->completion_tokens;
    if (r->error) {
        w->why = *r->error;
    }
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void ignore_piece(void *ctx, const engine_piece *p) {
    (void)ctx;
    (void)p;
}

static bool wait_for(waiter *w, err *e) {
    pthread_mutex_lock(&w->lock);
    while (!w->done) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    if (w->why.code != ERR_NONE) {
        *e = w->why;
        return false;
    }
    return w->generated > 0 || err_set(e, ERR_INTERNAL, "The engine ended a request without a token.");
}

static engine_request request(const int32_t *ids, int n, int max_tokens) {
    engine_request r = {.tokens = ids, .n_tokens = n, .max_tokens = max_tokens, .ignore_eos = true};
    r.sampling = sampling_default();
    r.sampling.temperature = 0;
    r.sampling.top_logprobs = -1;
    return r;
}

/* The first token of a prompt, greedy. */
static bool first_token(engine *g, const int32_t *ids, int n, uint32_t scope, waiter *w, err *e) {
    *w = (waiter){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    engine_request r = request(ids, n, 1);
    memcpy(r.scope.bytes, &scope, sizeof scope);
    r.piece = ignore_piece;
    r.done = ended;
    r.ctx = w;
    return engine_submit(g, &r, e) && wait_for(w, e);
}

static engine *open_engine(bench *b, int sequences, int context, int64_t cached_tokens, err *e) {
    engine_options o = {.sequences = sequences, .context = context, .kv = b->kv};
    o.kv_bytes = kv_bytes_of(&b->m->shape, b->kv, cached_tokens);
    engine *g = engine_open(b->m, b->p, &o, e);
    if (g) {
        engine_stats s;
        engine_stats_read(g, &s);
        b->kv_bytes = s.kv.bytes > b->kv_bytes ? s.kv.bytes : b->kv_bytes;
    }
    return g;
}

/* ---- load ---- */

static bool after_load(bench *b, waiter *w, err *e) {
    int32_t id = bench_token(b, 0);
    engine *g = open_engine(b, 1, 2 * KV_TOKENS, 4 * KV_TOKENS, e);
    bool    ok = g && first_token(g, &id, 1, 0, w, e);
    engine_close(g);
    return ok;
}

bool bench_load(bench *b, err *e) {
    int64_t began = clock_us();
    cli_progress("loading", -1);
    b->m = model_open(b->path, NULL, 0, b->p, e);
    cli_progress_end();
    if (!b->m) {
        return false;
    }
    int64_t loaded = clock_us();
    waiter  w = {.ended_us = loaded};
    if (!b->type) {
        const block_format *f = block_format_of((int)b->m->layers[0].q.type);
        b->type = f ? f->name : "?";
    }
    if (b->longest) {
        b->m->shape.context = b->longest;
    }
    bench_size_up(b);
    bool writes = !b->m->shape.headless;
    if (writes && (b->tests & BENCH_LOAD) && !after_load(b, &w, e)) {
        return false;
    }
    bench_print_load(b, (double)(loaded - began) / 1e6, writes ? (double)(w.ended_us - began) / 1e6 : -1);
    return true;
}

/* ---- first token, cold and cached ---- */

/* Each run has a scope of its own, in which nothing is stored yet; the second prompt differs in its last tokens,
 * the third is the second once more. */
static bool wait_twice(bench *b, engine *g, int32_t *ids, bench_wait *out, err *e) {
    double times[3][BENCH_MAX_RUNS];
    waiter w;
    int    own = out->prompt / 2 < OWN_TOKENS ? out->prompt / 2 : OWN_TOKENS;
    for (int r = -1; r < b->runs; r++) { /* the first warms up */
        cli_progress("first token", (double)(r + 1) / (b->runs + 1));
        for (int part = 0; part < 3; part++) {
            for (int i = 0; i < out->prompt; i++) {
                ids[i] = bench_token(b, i < out->prompt - own ? i : i + 1009 * (part ? 2 : 1));
            }
            if (!first_token(g, ids, out->prompt, (uint32_t)(r + 2), &w, e)) {
                return false;
            }
            if (r >= 0) {
                times[part][r] = (double)w.first_us / 1e6;
            }
            if (part == 1) {
                out->cached = w.cached;
            }
            if (part == 0 && w.cached != 0) {
                return err_set(e, ERR_INTERNAL, "%d tokens of a prompt that nobody sent before came from the cache.",
                               w.cached);
            }
        }
    }
    out->cold_s = bench_median(times[0], b->runs);
    out->cached_s = bench_median(times[1], b->runs);
    out->again_s = bench_median(times[2], b->runs);
    return true;
}

bool bench_first_token(bench *b, err *e) {
    int        room = b->m->shape.context - 1;
    bench_wait wait = {.prompt = room < FIRST_PROMPT ? room : FIRST_PROMPT};
    if (wait.prompt < 2) {
        return err_set(e, ERR_INVALID, "A context of %d tokens is too short for a prompt.", b->m->shape.context);
    }
    int32_t *ids = calloc((size_t)wait.prompt, sizeof *ids);
    engine  *g = ids ? open_engine(b, 1, wait.prompt + 1, 3 * (int64_t)wait.prompt, e) : NULL;
    bool     ok = ids ? g && wait_twice(b, g, ids, &wait, e) : err_set(e, ERR_MEMORY, "Out of memory.");
    cli_progress_end();
    engine_close(g);
    free(ids);
    if (ok) {
        bench_print_wait(b, &wait);
    }
    return ok;
}

/* ---- a long prompt beside streams ---- */

typedef enum mix_phase { MIX_WARMS, MIX_BEFORE, MIX_DURING, MIX_AFTER } mix_phase;

typedef struct mix {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    mix_phase       phase;
    int             warm, ready, ended; /* streams */
    int             wanted;             /* gaps of each stream before the long prompt comes */
    double         *gaps[2];            /* seconds; before and during */
    int             n_gaps[2], most;
    err             why;
} mix;

typedef struct stream {
    mix    *all;
    int64_t last_us;
    int     tokens, gaps;
} stream;

/* Every stream is past its own prompt before the first gap counts. */
static void piece_came(void *ctx, const engine_piece *p) {
    stream *s = ctx;
    mix    *m = s->all;
    int64_t now = clock_us();
    (void)p;
    pthread_mutex_lock(&m->lock);
    int which = m->phase == MIX_BEFORE ? 0 : m->phase == MIX_DURING ? 1 : -1;
    if (which >= 0 && m->n_gaps[which] < m->most) {
        m->gaps[which][m->n_gaps[which]++] = (double)(now - s->last_us) / 1e6;
    }
    if (which == 0 && ++s->gaps == m->wanted && ++m->ready == MIXED_STREAMS) {
        pthread_cond_signal(&m->changed);
    }
    if (++s->tokens == WARM_TOKENS && ++m->warm == MIXED_STREAMS) {
        m->phase = MIX_BEFORE;
    }
    s->last_us = now;
    pthread_mutex_unlock(&m->lock);
}

static void stream_ended(void *ctx, const engine_result *r) {
    mix *m = ((stream *)ctx)->all;
    pthread_mutex_lock(&m->lock);
    m->ended++;
    if (r->error) {
        m->why = *r->error;
    }
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

static bool begin_streams(bench *b, engine *g, stream *streams, mix *m, int32_t *ids, int own, int most, err *e) {
    for (int s = 0; s < MIXED_STREAMS; s++) {
        for (int i = 0; i < own; i++) {
            ids[i] = bench_token(b, i + 31 * (s + 1));
        }
        streams[s] = (stream){.all = m};
        engine_request r = request(ids, own, most);
        r.piece = piece_came;
        r.done = stream_ended;
        r.ctx = &streams[s];
        if (!engine_submit(g, &r, e)) {
            return false;
        }
    }
    pthread_mutex_lock(&m->lock);
    while (m->ready < MIXED_STREAMS && m->ended == 0) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    bool ok = m->ready == MIXED_STREAMS;
    if (!ok && m->why.code != ERR_NONE) {
        *e = m->why;
    } else if (!ok) {
        err_set(e, ERR_INVALID, "The streams filled their context of %d tokens before there were enough to count.",
                engine_context(g));
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

static void enter(mix *m, mix_phase phase) {
    pthread_mutex_lock(&m->lock);
    m->phase = phase;
    pthread_mutex_unlock(&m->lock);
}

static double percentile(double *sorted, int n, double share) {
    int at = (int)ceil(share * n) - 1;
    return sorted[at < 0 ? 0 : at];
}

static bool sum_up(mix *m, bench_gaps *out, err *e) {
    if (m->n_gaps[0] == 0 || m->n_gaps[1] == 0) {
        return err_set(e, ERR_INVALID, "The prompt was read before any stream had a token; take a longer context.");
    }
    bench_median(m->gaps[0], m->n_gaps[0]); /* sorts */
    bench_median(m->gaps[1], m->n_gaps[1]);
    out->before = m->n_gaps[0];
    out->during = m->n_gaps[1];
    out->before_p50 = percentile(m->gaps[0], out->before, 0.5);
    out->before_p99 = percentile(m->gaps[0], out->before, 0.99);
    out->during_p50 = percentile(m->gaps[1], out->during, 0.5);
    out->during_p99 = percentile(m->gaps[1], out->during, 0.99);
    return true;
}

typedef struct mix_sizes {
    int context, own, wanted, most; /* tokens; of a stream: its prompt, gaps before, tokens at most */
} mix_sizes;

static bool run_mix(bench *b, mix *m, const mix_sizes *z, int32_t *ids, bench_gaps *out, err *e) {
    stream  streams[MIXED_STREAMS];
    waiter  w;
    int64_t cached = (int64_t)MIXED_STREAMS * (z->own + z->most + 2 * KV_TOKENS) + out->prompt + 2 * KV_TOKENS;
    engine *g = open_engine(b, MIXED_STREAMS + 1, z->context, cached, e);
    cli_progress("streams beside a long prompt", -1);
    bool ok = g && begin_streams(b, g, streams, m, ids, z->own, z->most, e);
    if (ok) {
        for (int i = 0; i < out->prompt; i++) {
            ids[i] = bench_token(b, i + 100003);
        }
        enter(m, MIX_DURING);
        ok = first_token(g, ids, out->prompt, 0, &w, e);
        enter(m, MIX_AFTER);
        out->first_s = (double)w.first_us / 1e6;
    }
    engine_close(g); /* ends the streams */
    cli_progress_end();
    return ok && sum_up(m, out, e);
}

bool bench_mixed(bench *b, err *e) {
    enum { MOST_GAPS = 1 << 16, DURING_TOKENS = 1024 };
    int        most = b->m->shape.context;
    bench_gaps gaps = {.streams = MIXED_STREAMS, .prompt = most - 1 < MIXED_PROMPT ? most - 1 : MIXED_PROMPT};
    mix_sizes  z = {.own = b->context > OWN_TOKENS ? b->context : OWN_TOKENS};
    z.wanted = b->steps > LEAST_GAPS ? b->steps : LEAST_GAPS;
    z.most = WARM_TOKENS + z.wanted + DURING_TOKENS;
    z.most = z.own + z.most < most ? z.most : most - z.own;
    z.context = gaps.prompt + 1 > z.own + z.most ? gaps.prompt + 1 : z.own + z.most;
    if (z.most < WARM_TOKENS + z.wanted + 1) {
        return err_set(e, ERR_INVALID, "--mixed needs %d tokens of context, and the model's has %d; see --longest.",
                       z.own + WARM_TOKENS + z.wanted + 1, most);
    }
    mix      m = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .wanted = z.wanted};
    int32_t *ids = calloc((size_t)z.context, sizeof *ids);
    m.most = MOST_GAPS;
    m.gaps[0] = malloc(MOST_GAPS * sizeof(double));
    m.gaps[1] = malloc(MOST_GAPS * sizeof(double));
    bool ok =
        ids && m.gaps[0] && m.gaps[1] ? run_mix(b, &m, &z, ids, &gaps, e) : err_set(e, ERR_MEMORY, "Out of memory.");
    free(m.gaps[0]);
    free(m.gaps[1]);
    free(ids);
    if (ok) {
        bench_print_gaps(b, &gaps);
    }
    return ok;
}
