/* rank.c - score = output tanh(dense row); a model may lack the dense part. Source: the classification heads of BERT and
 * RoBERTa as published (a dense layer, tanh, one output), which GGUF calls cls and cls.output. One row a text: plain
 * loops over float32 are less than a thousandth of the pass that made the row.                                       */
#include "engine/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rank_head {
    int          dim;
    float       *dense;                    /* [dim in][dim out], so that the inner loop adds whole rows; NULL: none */
    float       *output;                   /* [dim] */
    float       *scratch;                  /* [dim] */
    const float *dense_bias, *output_bias; /* the model's; NULL: none */
};

rank_head *rank_open(const model *m, err *e) {
    size_t     dim = (size_t)m->shape.dim;
    rank_head *h = calloc(1, sizeof(*h));
    if (!h || !(h->output = malloc(2 * dim * sizeof(float))) ||
        (m->rank_dense.rows && !(h->dense = malloc(dim * dim * sizeof(float))))) {
        rank_close(h);
        err_set(e, ERR_MEMORY, "out of memory for the head of a model that ranks");
        return NULL;
    }
    h->dim = m->shape.dim;
    h->scratch = h->output + dim;
    h->dense_bias = m->rank_dense_bias;
    h->output_bias = m->rank_output_bias;
    for (int row = 0; row < m->rank_dense.rows; row++) {
        matrix_row(&m->rank_dense, row, h->scratch);
        for (size_t i = 0; i < dim; i++) {
            h->dense[i * dim + (size_t)row] = h->scratch[i];
        }
    }
    matrix_row(&m->rank_output, 0, h->output);
    return h;
}

void rank_close(rank_head *h) {
    if (h) {
        free(h->dense);
        free(h->output);
        free(h);
    }
}

float rank_score(const rank_head *h, const float *row) {
    float sum = h->output_bias ? h->output_bias[0] : 0;
    if (h->dense) {
        memset(h->scratch, 0, (size_t)h->dim * sizeof(float));
        for (int i = 0; i < h->dim; i++) {
            const float *w = h->dense + (size_t)i * (size_t)h->dim;
            for (int o = 0; o < h->dim; o++) {
                h->scratch[o] += row[i] * w[o];
            }
        }
        for (int o = 0; o < h->dim; o++) {
            h->scratch[o] = tanhf(h->scratch[o] + (h->dense_bias ? h->dense_bias[o] : 0));
        }
        row = h->scratch;
    }
    for (int i = 0; i < h->dim; i++) {
        sum += h->output[i] * row[i];
    }
    return sum;
}
