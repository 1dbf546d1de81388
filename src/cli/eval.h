/* eval.h - what the parts of `pare eval` share: one or two models that read the same tokens window by window. */
#ifndef PARE_CLI_EVAL_H
#define PARE_CLI_EVAL_H

#include "base/err.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "model/model.h"
#include "tensor/pool.h"

typedef struct eval_options {
    const char *model, *reference; /* of diff: the second and the first file */
    const char *text, *tokens;
    int         context, stride, threads; /* 0: by default */
    kv_type     kv;
    double      tolerance;
    bool        json;
} eval_options;

typedef struct eval_side {
    model   *m;
    forward *f;
} eval_side;

typedef struct eval_list { /* one text */
    int32_t *ids;
    int      n;
} eval_list;

typedef struct eval {
    const eval_options *o;
    pool               *p;
    eval_side           sides[2]; /* [0] is the reference where there are two */
    int                 n_sides, vocab;
    int                 context, stride;
    int32_t             bos; /* stands before each window of a text; -1: none */
    eval_list          *lists;
    int                 n_lists;
    int64_t             tokens, done; /* to be read in all windows, for progress */
} eval;

/* A run of positions of one window, in order; logits[side] is [n][vocab]. */
typedef struct eval_rows {
    int            n, list, position; /* of the first row in its list, -1 of BOS */
    const int32_t *next;              /* [n] the token that came after the row, -1: the list ends here */
    const float   *logits[2];
} eval_rows;

typedef bool (*eval_take)(void *arg, const eval_rows *rows, err *e);

/* Opens the models of `paths`, reads the tokens and chooses the window. Close in any case. */
bool eval_open(eval *v, const eval_options *o, const char *const *paths, int n, err *e);
void eval_close(eval *v);

/* Each token once, seen with what the window holds before it: the first window of a list scores all its tokens, each further
 * one begins `stride` tokens later and scores those that the one before has not. */
bool eval_windows(eval *v, eval_take take, void *arg, err *e);
/* Every row of each list, which must fit into the context, in one window without BOS of its own. */
bool eval_whole(eval *v, eval_take take, void *arg, err *e);

/* Spreads rows over the pool. */
void eval_each(const eval *v, int n, pool_fn fn, void *arg);

/* Bytes of the text of a token; 0 without a tokenizer. */
size_t eval_token_bytes(const eval *v, int32_t id);

bool eval_perplexity(const eval_options *o, err *e);
bool eval_kld(const eval_options *o, err *e);
bool eval_diff(const eval_options *o, bool *differ, err *e);

#endif
