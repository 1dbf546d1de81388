/* A safetensors file from bytes: opened, and every byte of every tensor read. */
#include <stdint.h>
#include <stdlib.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    err          e = {0};
    safetensors *s = safetensors_open_memory("fuzz", data, size, &e);
    if (!s) {
        if (!e.text[0])
            abort(); /* a refusal without a sentence is a bug too */
        return 0;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const st_tensor *t = safetensors_at(s, i);
        char             piece[64];
        for (uint64_t at = 0; at < t->bytes; at += sizeof piece) {
            size_t n = t->bytes - at < sizeof piece ? (size_t)(t->bytes - at) : sizeof piece;
            if (!safetensors_read(s, t, at, piece, n, &e))
                abort(); /* what was checked can be read */
        }
        total += t->bytes;
        if (!safetensors_named(s, t->name))
            abort();
    }
    if (total > size)
        abort(); /* tensors overlap */
    safetensors_close(s);
    return 0;
}
