#include "learn/statistics.h"

#include <math.h>
#include <stdlib.h>

#define Z95 1.959963984540054 /* 97.5 % of a normal distribution lie below */

static int top_of(const float *x, int n) {
    int top = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[top])
            top = i;
    return top;
}

/* ln of the sum of exp(x), taken from the largest so that nothing overflows. */
static double log_sum(const float *x, int n, double largest) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

double nll_of(const float *logits, int n, int id) {
    return log_sum(logits, n, (double)logits[top_of(logits, n)]) - (double)logits[id];
}

divergence divergence_of(const float *p, const float *q, int n, int id) {
    divergence d = {.p_top = top_of(p, n), .q_top = top_of(q, n)};
    double     p_log = log_sum(p, n, (double)p[d.p_top]), q_log = log_sum(q, n, (double)q[d.q_top]);
    for (int i = 0; i < n; i++) {
        double lp = (double)p[i] - p_log, lq = (double)q[i] - q_log;
        d.kl += exp(lp) * (lp - lq);
    }
    d.kl = d.kl < 0 ? 0 : d.kl; /* what rounding leaves of nothing */
    d.p_id = exp((double)p[id] - p_log);
    d.q_id = exp((double)q[id] - q_log);
    return d;
}

void running_add(running *r, double x) {
    double before = x - r->mean;
    r->mean += before / (double)++r->n;
    r->squares += before * (x - r->mean);
}

double running_error(const running *r) {
    return r->n < 2 ? 0 : sqrt(r->squares / (double)(r->n - 1) / (double)r->n);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void sort_numbers(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_size);
}

double quantile(const double *sorted, size_t n, double share) {
    if (n == 0)
        return NAN;
    double place = share * (double)(n - 1);
    size_t below = (size_t)place;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (place - (double)below) * (sorted[below + 1] - sorted[below]);
}

interval wilson(int64_t hits, int64_t n) {
    if (n < 1)
        return (interval){0, 1};
    double count = (double)n, p = (double)hits / count, z2 = Z95 * Z95;
    double middle = p + z2 / (2 * count), width = Z95 * sqrt(p * (1 - p) / count + z2 / (4 * count * count));
    double low = (middle - width) / (1 + z2 / count), high = (middle + width) / (1 + z2 / count);
    return (interval){hits == 0 ? 0 : low, hits == n ? 1 : high};
}

deviation deviation_of(const float *a, const float *b, int n) {
    deviation d = {.first = -1};
    double    sum = 0;
    for (int i = 0; i < n; i++) {
        if (a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
            continue;
        double size = fabs((double)a[i] - (double)b[i]);
        d.first = d.first < 0 ? i : d.first;
        sum += size * size;
        if (!(size <= d.largest)) { /* so written that a NaN is the largest */
            d.largest = size;
            d.at = i;
        }
    }
    d.rms = sqrt(sum / n);
    return d;
}
