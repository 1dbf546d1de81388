#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct kv_cache {
    kv_type type;
    int     layers, slots, heads, dim, context;
    size_t  value_bytes;
    size_t  half; /* bytes of all keys; the values follow */
    size_t  bytes;
    char   *memory;
};

static bool multiply(size_t *total, int64_t factor) {
    return factor > 0 && !__builtin_mul_overflow(*total, (size_t)factor, total);
}

/* Pages come from the system when they are first written, so that a large context costs nothing until it is used. */
static char *reserve(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

kv_cache *kv_open(const model_shape *shape, int slots, int context, kv_type type, err *e) {
    size_t value_bytes = type == KV_F16 ? sizeof(uint16_t) : sizeof(float);
    size_t half = value_bytes;
    if (!multiply(&half, shape->layers) || !multiply(&half, slots) || !multiply(&half, shape->kv_heads) ||
        !multiply(&half, context) || !multiply(&half, shape->head_dim) || half > SIZE_MAX / 4) {
        err_set(e, ERR_INVALID, "a key/value cache of %d sequences of %d tokens cannot be addressed; lower one of them",
                slots, context);
        return NULL;
    }
    kv_cache *kv = calloc(1, sizeof(*kv));
    char     *memory = kv ? reserve(half * 2) : NULL;
    if (!memory) {
        free(kv);
        err_set(e, ERR_MEMORY,
                "no memory for a key/value cache of %d sequences of %d tokens (%zu MiB); lower one of them", slots,
                context, half >> 19);
        return NULL;
    }
    *kv = (kv_cache){.type = type,
                     .layers = shape->layers,
                     .slots = slots,
                     .heads = shape->kv_heads,
                     .dim = shape->head_dim,
                     .context = context,
                     .value_bytes = value_bytes,
                     .half = half,
                     .bytes = half * 2,
                     .memory = memory};
    return kv;
}

void kv_close(kv_cache *kv) {
    if (kv) {
        munmap(kv->memory, kv->bytes);
        free(kv);
    }
}

kv_type kv_type_of(const kv_cache *kv) {
    return kv->type;
}

int kv_slots(const kv_cache *kv) {
    return kv->slots;
}

int kv_context(const kv_cache *kv) {
    return kv->context;
}

size_t kv_bytes(const kv_cache *kv) {
    return kv->bytes;
}

static char *head_start(const kv_cache *kv, int layer, int slot, int head) {
    size_t history = ((size_t)layer * (size_t)kv->slots + (size_t)slot) * (size_t)kv->heads + (size_t)head;
    return kv->memory + history * (size_t)kv->context * (size_t)kv->dim * kv->value_bytes;
}

static void store(const kv_cache *kv, char *at, const float *values) {
    if (kv->type == KV_F16) {
        kernels_get()->to_f16(values, (uint16_t *)(void *)at, kv->dim);
    } else {
        memcpy(at, values, (size_t)kv->dim * sizeof(float));
    }
}

void kv_write(kv_cache *kv, int layer, int slot, int position, const float *k, const float *v) {
    size_t row = (size_t)kv->dim * kv->value_bytes;
    for (int head = 0; head < kv->heads; head++) {
        char *at = head_start(kv, layer, slot, head) + (size_t)position * row;
        store(kv, at, k + (size_t)head * (size_t)kv->dim);
        store(kv, at + kv->half, v + (size_t)head * (size_t)kv->dim);
    }
}

const void *kv_keys(const kv_cache *kv, int layer, int slot, int head, int64_t *stride) {
    *stride = kv->dim;
    return head_start(kv, layer, slot, head);
}

const void *kv_values(const kv_cache *kv, int layer, int slot, int head, int64_t *stride) {
    *stride = kv->dim;
    return head_start(kv, layer, slot, head) + kv->half;
}
