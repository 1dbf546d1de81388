/* synth.h - model files with a real model's shape and seeded random weights, for benchmarks and tests.
 *
 * Speed does not depend on what the weights say. Every matrix, the embedding and the output included, is in the given
 * type; norms are F32. Weights have a mean of zero and a standard deviation near 1 / sqrt(columns), so that activations
 * and logits stay finite. The vocabulary is SPM with invented tokens (bytes, ASCII, strings of letters): any engine can
 * load the file and encode any text. The same shape, type and seed give the same bytes. */
#ifndef PARE_MODEL_SYNTH_H
#define PARE_MODEL_SYNTH_H

#include "base/err.h"
#include "tensor/block.h"

/* Called now and then from the writing thread; may be NULL. */
typedef void (*synth_progress)(void *arg, int64_t done_bytes, int64_t total_bytes);

/* `shape`: a name of synth_shapes. The file appears under `path` when it is whole. */
bool synth_write(const char *shape, const block_format *type, uint64_t seed, const char *path, synth_progress progress,
                 void *arg, err *e);

/* The i-th shape's name and what it is, for --help; NULL past the last. */
const char *synth_shape_name(int i);
const char *synth_shape_about(int i);

#endif
