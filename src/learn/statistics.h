/* statistics.h - what an evaluation counts: how likely a model finds a text, and how far two models' predictions are apart.
 *
 * Logits are one row of `n` float32 each; sums are double. Rows must be finite, else the results are NaN.              */
#ifndef PARE_LEARN_STATISTICS_H
#define PARE_LEARN_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

/* -ln p(id) after a softmax over the row. */
double nll_of(const float *logits, int n, int id);

typedef struct divergence { /* of a row q from a row p that is taken to be right */
    double kl;              /* sum of p ln(p / q), in nats; >= 0 */
    double p_id, q_id;      /* probabilities of the token that came */
    int    p_top, q_top;    /* the most likely token of each; the first one of equals */
} divergence;
divergence divergence_of(const float *p, const float *q, int n, int id);

typedef struct running { /* mean and variance as values come. Source: Welford, Technometrics 4(3), 1962 */
    int64_t n;
    double  mean, squares; /* sum of squared deviations from the mean */
} running;
void   running_add(running *r, double x);
double running_error(const running *r); /* standard error of the mean; 0 with fewer than two values */

/* The value below which a share of the values lies, between neighbours by line; `sorted` ascends. NaN when n is 0. */
double quantile(const double *sorted, size_t n, double share);
void   sort_numbers(double *values, size_t n);

typedef struct interval {
    double low, high;
} interval;
/* Of `hits` of n, 95 %. Source: Wilson, JASA 22(158), 1927. */
interval wilson(int64_t hits, int64_t n);

typedef struct deviation { /* of a row from another */
    double rms, largest;
    int    at;    /* of the largest; the first one of equals */
    int    first; /* that differs, -1: none; +0 and -0 are equal, and so are two NaN */
} deviation;
deviation deviation_of(const float *a, const float *b, int n);

#endif
