/* slots.h - which tensors a model has, and where each goes; for weights.c, which loads them. */
#ifndef PARE_MODEL_SLOTS_H
#define PARE_MODEL_SLOTS_H

#include "model/model.h"

/* A tensor of the file, or a run of its rows, and its place in the model: a matrix [rows, cols], or a vector of `cols`
 * floats. */
typedef struct slot {
    char    name[64];
    matrix *m;
    float **vector;
    int64_t rows, cols;
    int64_t first;  /* row, or value of a vector, of the tensor that the slot begins with */
    int64_t all;    /* rows, or values of a vector, that the tensor has */
    int64_t planes; /* of experts: the tensor has the shape [cols, all / planes, planes]; 0: two dimensions */
    bool    optional;
    const gguf_tensor *tensor;    /* NULL: optional and absent */
    size_t             at, bytes; /* in the mapping */
} slot;

typedef struct slots {
    slot  *list; /* malloc'd */
    size_t count, cap;
} slots;

/* All that the model's shape and traits ask for. Allocates m->layers and m->experts, too. */
bool slots_list(model *m, const gguf *g, slots *s, err *e);

#endif
