/* synth.h - model files with a real model's shape and seeded random weights, for benchmarks and tests.
 *
 * Speed does not depend on what the weights say. Every matrix, the embedding and the output included, is in the given
 * type, or in one of a mixture's two; norms are F32. Weights have a mean of zero and a standard deviation near
 * 1 / sqrt(columns), so that activations and logits stay finite. The vocabulary is SPM with invented tokens (bytes,
 * ASCII, strings of letters), or WordPiece for encoders: any engine can load the file and encode any text. The same shape, type and seed give the
 * same bytes. */
#ifndef PARE_MODEL_SYNTH_H
#define PARE_MODEL_SYNTH_H

#include <stdint.h>

#include "base/err.h"

/* Called now and then from the writing thread; may be NULL. */
typedef void (*synth_progress)(void *arg, int64_t done_bytes, int64_t total_bytes);

/* `shape` is a name of synth_shape_name and `type` one of synth_type_name, in small letters or capitals. The file appears
 * under `path` when it is whole. */
bool synth_write(const char *shape, const char *type, uint64_t seed, const char *path, synth_progress progress,
                 void *arg, err *e);

/* The i-th shape's name and what it is, for --help; NULL past the last. */
const char *synth_shape_name(int i);
const char *synth_shape_about(int i);

/* The i-th type's name ("q4_0", "q4_k_m"); NULL past the last. */
const char *synth_type_name(int i);

#endif
