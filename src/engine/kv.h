/* kv.h - keys and values of the running sequences.
 *
 * First form: a fixed number of slots, each with room for `context` positions of every layer. All memory is taken at
 * once and touched when used. Layout per layer, slot and K/V head: [position][head_dim], so that attention reads one
 * head's history in a straight line.                                                                                 */
#ifndef PARE_ENGINE_KV_H
#define PARE_ENGINE_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/arch.h"
#include "tensor/kernels.h"

typedef struct kv_cache kv_cache;

kv_cache *kv_open(const model_shape *shape, int slots, int context, kv_type type, err *e);
void      kv_close(kv_cache *kv);
kv_type   kv_type_of(const kv_cache *kv);
int       kv_slots(const kv_cache *kv);
int       kv_context(const kv_cache *kv);
size_t    kv_bytes(const kv_cache *kv);

/* Stores k and v [kv_heads * head_dim] of one position. */
void        kv_write(kv_cache *kv, int layer, int slot, int position, const float *k, const float *v);
/* Where position 0 of a head begins; *stride in values. */
const void *kv_keys(const kv_cache *kv, int layer, int slot, int head, int64_t *stride);
const void *kv_values(const kv_cache *kv, int layer, int slot, int head, int64_t *stride);

#endif
