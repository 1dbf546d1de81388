/* pooling.h - from the last rows of a text to one vector. */
#ifndef PARE_ENGINE_POOLING_H
#define PARE_ENGINE_POOLING_H

#include <stdbool.h>

#include "model/arch.h"

/* rows [n][dim] of a text's tokens in order, n >= 1: their mean, the first or the last. */
void pooling_rows(pooling how, const float *rows, int n, int dim, float *out);

/* Which of a text's rows the pooling reads. */
bool pooling_wants(pooling how, int token, int n);

/* Length 1 (Euclidean), so that a dot product is the cosine. A vector of zeros stays one. */
void pooling_unit(float *v, int n);

bool        pooling_named(const char *name, pooling *out); /* "mean", "cls", "last" */
const char *pooling_name(pooling how);

#endif
