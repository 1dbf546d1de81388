#include "engine/pooling.h"

#include <math.h>
#include <string.h>

enum { TILE = 64 }; /* columns whose sums stay in registers and the nearest cache */

/* Sums in double: a mean over thousands of rows keeps the precision of a single one. */
static void mean(const float *rows, int n, int dim, float *out) {
    for (int from = 0; from < dim; from += TILE) {
        double sum[TILE] = {0};
        int    width = dim - from < TILE ? dim - from : TILE;
        for (int row = 0; row < n; row++) {
            const float *x = rows + (size_t)row * (size_t)dim + from;
            for (int i = 0; i < width; i++) {
                sum[i] += (double)x[i];
            }
        }
        for (int i = 0; i < width; i++) {
            out[from + i] = (float)(sum[i] / n);
        }
    }
}

void pooling_rows(pooling how, const float *rows, int n, int dim, float *out) {
    if (how == POOLING_MEAN) {
        mean(rows, n, dim, out);
        return;
    }
    size_t row = how == POOLING_LAST ? (size_t)n - 1 : 0;
    memcpy(out, rows + row * (size_t)dim, (size_t)dim * sizeof(*out));
}

bool pooling_wants(pooling how, int token, int n) {
    return how == POOLING_MEAN || token == (how == POOLING_LAST ? n - 1 : 0);
}

void pooling_unit(float *v, int n) {
    double squares = 0;
    for (int i = 0; i < n; i++) {
        squares += (double)v[i] * (double)v[i];
    }
    double scale = squares > 0 ? 1 / sqrt(squares) : 0;
    for (int i = 0; i < n; i++) {
        v[i] = (float)((double)v[i] * scale);
    }
}

static const char *const names[] = {[POOLING_NONE] = "none",
                                    [POOLING_MEAN] = "mean",
                                    [POOLING_CLS] = "cls",
                                    [POOLING_LAST] = "last",
                                    [POOLING_RANK] = "rank"};

bool pooling_named(const char *name, pooling *out) {
    for (int i = POOLING_MEAN; i <= POOLING_LAST; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (pooling)i;
            return true;
        }
    }
    return false;
}

const char *pooling_name(pooling how) {
    return names[how];
}
