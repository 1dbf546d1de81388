/* shards.h - all tensors of a folder, whether they lie in one safetensors file or in many with an index. */
#ifndef PARE_MODEL_IMPORT_SHARDS_H
#define PARE_MODEL_IMPORT_SHARDS_H

#include "model/safetensors.h"

typedef struct shards shards;

typedef struct shard_tensor {
    const safetensors *file;
    const st_tensor   *t;
    bool               used; /* for the reader: it has gone somewhere */
} shard_tensor;

shards       *shards_open(const char *dir, err *e);
void          shards_close(shards *s);
size_t        shards_count(const shards *s);
shard_tensor *shards_at(const shards *s, size_t i);

#endif
