#include "serve/assets.h"

#include <stdint.h>
#include <string.h>

/* From the generated assets.S. */
extern const asset    asset_table[];
extern const uint64_t asset_count;

_Static_assert(sizeof(asset) == 32 && sizeof(void *) == 8, "the assembly writes four 64-bit words an asset");

const asset *asset_find(const char *path) {
    for (uint64_t i = 0; i < asset_count; i++) {
        if (strcmp(asset_table[i].path, path) == 0) {
            return &asset_table[i];
        }
    }
    return NULL;
}
