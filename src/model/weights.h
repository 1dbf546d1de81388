/* weights.h - the tensors of a file, checked against the shape and packed for the kernels.
 *
 * A list of slots says which tensor goes where, with which shape; the file must hold exactly those. Used by model.c. */
#ifndef PARE_MODEL_WEIGHTS_H
#define PARE_MODEL_WEIGHTS_H

#include <stdatomic.h>

#include "model/model.h"

/* Fills the weights of `m`, whose shape is set, from `g`: m->memory (one mapping that weights_free gives back) holds
 * all of them. Takes no more memory than the tensors' bytes in the file, the padding of rows to panels and float32
 * norms make of it. `p` may be NULL. `stop`, where it is given, ends the work within some milliseconds once somebody has
 * set it: false with ERR_CANCELLED. */
bool weights_load(model *m, const gguf *g, pool *p, const atomic_bool *stop, err *e);
void weights_free(model *m);

#endif
