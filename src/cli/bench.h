/* bench.h - what the files of `pare bench` share.
 *
 * bench.c reads the command line, bench_machine.c measures the machine beside each test, bench_model.c runs the forward
 * pass alone, bench_serve.c the engine with its scheduler, bench_embed.c the embedder, bench_print.c writes lines.   */
#ifndef PARE_CLI_BENCH_H
#define PARE_CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/kv.h"
#include "model/model.h"
#include "tensor/pool.h"
#include "tensor/roofline.h"

#define BENCH_MAX_RUNS     101
#define BENCH_MAX_BATCHES  32
#define BENCH_MAX_READINGS (2 * BENCH_MAX_BATCHES + 16) /* two a test and one before */

enum {
    BENCH_LOAD = 1,
    BENCH_PREFILL = 2,
    BENCH_DECODE = 4,
    BENCH_FIRST = 8,
    BENCH_MIXED = 16,
    BENCH_SHARED = 32,
    BENCH_EMBED = 64
};

typedef struct bench {
    /* asked for */
    unsigned    tests; /* of the above */
    const char *path, *type;
    kv_type     kv;
    int         threads, runs, steps, context, shared;
    int         prompt; /* 0: 512, or what fits */
    int         batches[BENCH_MAX_BATCHES], n_batches;
    int         longest;     /* 0: the model's context */
    bool        json, usual; /* usual: no test was asked for by name */

    /* at hand */
    pool    *p;
    model   *m;
    double   parameters, step_bytes; /* of all matrices and vectors; of the matrices that one step reads */
    size_t   kv_bytes;               /* the largest cache so far */
    int64_t  peak_bytes;             /* of memory, outside readings of the machine */
    bool     headed, embed_headed;   /* the tables' heads are printed */
    roofline readings[BENCH_MAX_READINGS];
    int      n_readings;
} bench;

/* ---- bench_machine.c ---- */

bool     bench_reading(bench *b, err *e);             /* one more */
roofline bench_machine_since(const bench *b, int at); /* medians of readings [at, now) */
int64_t  bench_peak(bench *b);                        /* of resident memory so far; bytes */
double   bench_median(double *values, int n);         /* sorts them */

/* One run of a test: the seconds that count, which may be less than it takes. */
typedef bool (*bench_run)(void *arg, double *seconds, err *e);

/* A run to warm up, then b->runs of them, with a reading of the machine before, in the middle and after. */
bool bench_repeat(bench *b, const char *what, bench_run run, void *arg, double *seconds, roofline *machine, err *e);

/* ---- bench_model.c ---- */

int32_t bench_token(const bench *b, int64_t i); /* some id: speed does not depend on which */
void    bench_size_up(bench *b);                /* parameters, step_bytes */
bool    bench_prefill(bench *b, err *e);
bool    bench_decode(bench *b, int batch, err *e);
bool    bench_shared(bench *b, err *e);

/* ---- bench_serve.c ---- */

bool bench_load(bench *b, err *e); /* opens b->m */
bool bench_first_token(bench *b, err *e);
bool bench_mixed(bench *b, err *e);

/* ---- bench_embed.c ---- */

bool bench_embed(bench *b, int texts, err *e); /* so many in a request */

/* ---- bench_print.c ---- */

typedef struct bench_rate { /* prefill, decode and shared */
    const char *test;
    int         tokens, batch, context, steps; /* tokens of the whole run in so many passes of the model */
    double      seconds;
    roofline    machine;
    int64_t     blocks_held, blocks_apart; /* shared: of the cache; what they would be without sharing */
} bench_rate;

typedef struct bench_wait { /* of a prompt for its first token */
    int    prompt, cached;
    double cold_s, cached_s, again_s; /* again: the very same prompt once more */
} bench_wait;

typedef struct bench_gaps { /* seconds between the tokens of one stream */
    int    streams, prompt;
    double before_p50, before_p99, during_p50, during_p99;
    double first_s;        /* the prompt's time to its first token */
    int    before, during; /* gaps counted */
} bench_gaps;

typedef struct bench_texts { /* embed */
    int      texts, length;  /* of a request; tokens of each */
    double   steps;          /* passes of the model that a request takes */
    double   multiplied;     /* parameters that each token is multiplied with */
    double   step_bytes;     /* of the matrices that a pass reads */
    double   seconds;
    roofline machine;
} bench_texts;

void bench_print_machine(const bench *b, const roofline *machine, int readings);
void bench_print_load(const bench *b, double load_s, double first_s); /* first_s < 0: the model writes no text */
void bench_print_rate(bench *b, const bench_rate *r);
void bench_print_texts(bench *b, const bench_texts *t);
void bench_print_wait(bench *b, const bench_wait *w);
void bench_print_gaps(bench *b, const bench_gaps *g);
void bench_print_memory(bench *b);

#endif
