/* forward_parts.h - the inside of a forward pass, for its own files: forward.c walks the layers, forward_memory.c takes
 * the memory, rope.c turns heads by their positions, experts.c is the feed-forward part with experts.                */
#ifndef PARE_ENGINE_FORWARD_PARTS_H
#define PARE_ENGINE_FORWARD_PARTS_H

#include "engine/attention.h"
#include "engine/forward.h"
#include "tensor/kernels.h"

#define ROW_GRAIN 4 /* rows of element-wise work worth waking a thread for */

/* Layers with a window may turn in another way. */
enum { TURN_FAR, TURN_LOCAL, TURNS };

typedef struct expert_rows { /* scratch of experts.c; [max_tokens * used] rows, sorted by expert */
    float       *scores;     /* [max_tokens][experts] */
    float       *shares;     /* [max_tokens][used] of the chosen experts */
    int         *chosen;     /* [max_tokens][used] */
    int         *place;      /* [max_tokens][used] row of the token's piece of work */
    int         *begin;      /* [experts + 1] first row of each expert */
    float       *in;         /* [dim] */
    float       *gate, *up;  /* [expert_ffn] */
    float       *out;        /* [dim] */
    matrix_part *parts;      /* [2 * experts] */
} expert_rows;

struct forward {
    const model   *m;
    pool          *p;
    const kernels *k;
    int            max_tokens, max_logits;
    double        *frequency; /* [TURNS][rope_dim/2] radians a position */
    int            turns;     /* of TURNS that the model needs */
    activations   *input;

    /* Rows of scratch, all [max_tokens][...]. */
    float *x;      /* [dim] the residual stream */
    float *normed; /* [dim] */
    float *q, *k_new, *v_new;
    float *mixed;     /* [heads*head_dim] what attention gives */
    float *projected; /* [dim] what a block adds to x */
    float *gate, *up; /* [ffn] */
    float *turn;      /* [turns][rope_dim/2][2] cosine and sine of the row's position */
    float *logits;    /* [max_logits][vocab] */

    expert_rows  work;
    activations *expert_input; /* of work.in, and then of work.gate */

    attention *plan; /* who attends to what in this step */

    char  *memory; /* all of the above but for activations and the plan, one mapping; pages are touched when used */
    size_t memory_bytes;

    /* The batch at hand; rows[] maps a row to its token once rows have been dropped. */
    kv_cache            *kv;
    const forward_token *tokens;
    int                 *rows;
    int                  n;
    int                  layer;
};

static inline float *row_of(float *base, int row, int width) {
    return base + (size_t)row * (size_t)width;
}

/* Takes the scratch; false when the system has none. */
bool forward_map(forward *f);

/* What the rows' next matrices read: x itself where no norm stands before. */
static inline float *block_input(forward *f) {
    norm_place at = f->m->shape.arch->place;
    return at == NORM_AFTER || at == NORM_SUM ? f->x : f->normed;
}

/* y[i] = w[i] x for matrices that share their input of f->n rows. */
void forward_project(forward *f, const float *x, int cols, int count, const matrix *const *w, float *const *y);

/* fn(f, begin, end, thread) for all rows. */
void forward_each_row(forward *f, pool_fn fn);

/* gate = act(gate) * up, or up = act(up) in a plain one; with biases. Returns what goes down. */
float *forward_activate(const forward *f, const ffn_weights *w, float *gate, float *up, int n);

/* ---- rope.c ---- */

/* Fills f->frequency for contexts of this length. */
void rope_frequencies(forward *f, int context);
/* Cosines and sines of a position, f->turns of them. */
void rope_turns(const forward *f, int position, float *turn);
/* Turns `count` heads of one row in the layer at hand. */
void rope_heads(const forward *f, float *heads, int count, const float *turn);

/* ---- experts.c ---- */

/* projected = what the experts (and the shared one) say to the rows of block_input. */
void experts_run(forward *f);

#endif
