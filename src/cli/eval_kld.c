/* eval_kld.c - how far a model's predictions are from a reference's, both reading the same text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/eval.h"
#include "learn/statistics.h"

typedef struct sum {
    const eval      *v;
    const eval_rows *rows;
    divergence       of[64]; /* a chunk's rows */
    double           nll[2][64];
    running          kl, nats[2], difference; /* difference: of the probability of the token that came */
    double           squares, largest_difference;
    int64_t          same_top;
    double          *all; /* every kl */
    size_t           n, cap;
} sum;

static void compare(void *arg, int begin, int end, int thread) {
    sum *s = arg;
    (void)thread;
    size_t vocab = (size_t)s->v->vocab;
    for (int i = begin; i < end; i++) {
        const float *p = s->rows->logits[0] + (size_t)i * vocab, *q = s->rows->logits[1] + (size_t)i * vocab;
        s->of[i] = divergence_of(p, q, (int)vocab, s->rows->next[i]);
        s->nll[0][i] = nll_of(p, (int)vocab, s->rows->next[i]);
        s->nll[1][i] = nll_of(q, (int)vocab, s->rows->next[i]);
    }
}

static bool keep(sum *s, double kl, err *e) {
    if (s->n == s->cap) {
        size_t  cap = s->cap ? 2 * s->cap : 4096;
        double *all = realloc(s->all, cap * sizeof *all);
        if (!all) {
            return err_set(e, ERR_MEMORY, "Out of memory for the divergence of %zu tokens.", cap);
        }
        s->all = all;
        s->cap = cap;
    }
    s->all[s->n++] = kl;
    return true;
}

static bool take(void *arg, const eval_rows *rows, err *e) {
    sum *s = arg;
    s->rows = rows;
    eval_each(s->v, rows->n, compare, s);
    for (int i = 0; i < rows->n; i++) {
        const divergence *d = &s->of[i];
        double            difference = fabs(d->q_id - d->p_id);
        if (!isfinite(d->kl) || !isfinite(s->nll[0][i]) || !isfinite(s->nll[1][i])) {
            return err_set(e, ERR_INVALID, "The logits of position %d are no finite numbers; a model is broken.",
                           rows->position + i);
        }
        running_add(&s->kl, d->kl);
        running_add(&s->nats[0], s->nll[0][i]);
        running_add(&s->nats[1], s->nll[1][i]);
        running_add(&s->difference, difference);
        s->squares += difference * difference;
        s->largest_difference = fmax(s->largest_difference, difference);
        s->same_top += d->p_top == d->q_top;
        if (!keep(s, d->kl, e)) {
            return false;
        }
    }
    char what[64];
    snprintf(what, sizeof what, "KL divergence %.6f", s->kl.mean);
    cli_progress(what, (double)s->v->done / (double)s->v->tokens);
    return true;
}

static void print_json(const eval *v, const sum *s) {
    interval top = wilson(s->same_top, s->kl.n);
    double   n = (double)s->kl.n;
    printf("{\"kl\":{\"mean\":%.9g,\"standard_error\":%.9g,\"median\":%.9g,\"p90\":%.9g,\"p99\":%.9g,\"max\":%.9g},",
           s->kl.mean, running_error(&s->kl), quantile(s->all, s->n, 0.5), quantile(s->all, s->n, 0.9),
           quantile(s->all, s->n, 0.99), quantile(s->all, s->n, 1));
    printf("\"top1\":{\"agreement\":%.9g,\"low\":%.9g,\"high\":%.9g},", (double)s->same_top / n, top.low, top.high);
    printf("\"probability\":{\"mean_abs_diff\":%.9g,\"rms_diff\":%.9g,\"max_diff\":%.9g},", s->difference.mean,
           sqrt(s->squares / n), s->largest_difference);
    printf("\"perplexity\":%.9g,\"reference_perplexity\":%.9g,\"tokens\":%lld,\"context\":%d,\"stride\":%d}\n",
           exp(s->nats[1].mean), exp(s->nats[0].mean), (long long)s->kl.n, v->context, v->stride);
}

static void print_people(const eval *v, const sum *s) {
    interval top = wilson(s->same_top, s->kl.n);
    double   n = (double)s->kl.n;
    printf("KL divergence   mean %.6f +- %.6f nats; median %.6f, 90 %% %.6f, 99 %% %.6f, largest %.6f\n", s->kl.mean,
           running_error(&s->kl), quantile(s->all, s->n, 0.5), quantile(s->all, s->n, 0.9),
           quantile(s->all, s->n, 0.99), quantile(s->all, s->n, 1));
    printf("same top token  %.3f %% (95 %% interval %.3f to %.3f)\n", 100 * (double)s->same_top / n, 100 * top.low,
           100 * top.high);
    printf("probability of the next token  differs by %.4f %% on average, RMS %.4f %%, at most %.3f %%\n",
           100 * s->difference.mean, 100 * sqrt(s->squares / n), 100 * s->largest_difference);
    printf("perplexity      %.4f, reference %.4f\n", exp(s->nats[1].mean), exp(s->nats[0].mean));
    printf("%lld tokens in windows of %d, stride %d\n", (long long)s->kl.n, v->context, v->stride);
}

bool eval_kld(const eval_options *o, err *e) {
    eval              v;
    sum               s = {.v = &v};
    const char *const paths[2] = {o->reference, o->model};
    bool              ok = eval_open(&v, o, paths, 2, e) && eval_windows(&v, take, &s, e);
    cli_progress_end();
    if (ok) {
        sort_numbers(s.all, s.n);
        (o->json ? print_json : print_people)(&v, &s);
    }
    free(s.all);
    eval_close(&v);
    return ok;
}
