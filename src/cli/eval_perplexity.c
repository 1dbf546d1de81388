/* eval_perplexity.c - how likely a model finds a text. */
#include <math.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/eval.h"
#include "learn/statistics.h"

#define Z95 1.959963984540054

typedef struct sum {
    const eval      *v;
    const eval_rows *rows;
    double           nll[64]; /* of a chunk's rows */
    running          nats;
    size_t           bytes;
} sum;

static void score(void *arg, int begin, int end, int thread) {
    sum *s = arg;
    (void)thread;
    for (int i = begin; i < end; i++) {
        s->nll[i] = nll_of(s->rows->logits[0] + (size_t)i * (size_t)s->v->vocab, s->v->vocab, s->rows->next[i]);
    }
}

static bool take(void *arg, const eval_rows *rows, err *e) {
    sum *s = arg;
    s->rows = rows;
    eval_each(s->v, rows->n, score, s);
    for (int i = 0; i < rows->n; i++) {
        if (!isfinite(s->nll[i])) {
            return err_set(e, ERR_INVALID, "The logits of position %d are no finite numbers; the model is broken.",
                           rows->position + i);
        }
        running_add(&s->nats, s->nll[i]);
        s->bytes += eval_token_bytes(s->v, rows->next[i]);
    }
    char what[64];
    snprintf(what, sizeof what, "perplexity %.4f", exp(s->nats.mean));
    cli_progress(what, (double)s->v->done / (double)s->v->tokens);
    return true;
}

static void print(const eval *v, const sum *s) {
    double mean = s->nats.mean, error = running_error(&s->nats);
    double low = exp(mean - Z95 * error), high = exp(mean + Z95 * error);
    double bits = s->bytes ? mean * (double)s->nats.n / log(2) / (double)s->bytes : 0;
    if (v->o->json) {
        printf("{\"perplexity\":%.9g,\"low\":%.9g,\"high\":%.9g,\"nll\":%.12g,\"standard_error\":%.9g,\"tokens\":%lld,"
               "\"context\":%d,\"stride\":%d,\"bos\":%s",
               exp(mean), low, high, mean, error, (long long)s->nats.n, v->context, v->stride,
               v->bos >= 0 ? "true" : "false");
        if (s->bytes) {
            printf(",\"bits_per_byte\":%.9g,\"bytes\":%zu", bits, s->bytes);
        }
        puts("}");
        return;
    }
    printf("perplexity %.4f (95 %% interval %.4f to %.4f)\n", exp(mean), low, high);
    printf("%.5f +- %.5f nats a token; %lld tokens in windows of %d, stride %d\n", mean, error, (long long)s->nats.n,
           v->context, v->stride);
    if (s->bytes) {
        printf("%.4f bits a byte; %zu bytes\n", bits, s->bytes);
    }
}

bool eval_perplexity(const eval_options *o, err *e) {
    eval v;
    sum  s = {.v = &v};
    bool ok = eval_open(&v, o, &o->model, 1, e) && eval_windows(&v, take, &s, e);
    cli_progress_end();
    if (ok) {
        print(&v, &s);
    }
    eval_close(&v);
    return ok;
}
