/* kv_disk_file.h - the file under kv_disk: its format, its lock, and single slots read and written.
 *
 * No lock of its own and no thread: kv_disk.c opens it and then uses it from one thread.                             */
#ifndef PARE_ENGINE_KV_DISK_FILE_H
#define PARE_ENGINE_KV_DISK_FILE_H

#include "engine/kv_disk.h"

typedef struct kv_file {
    char    *path;
    int      fd;
    size_t   payload; /* bytes of a block */
    size_t   stride;  /* the same with padding */
    int      slots;   /* that the limit allows; the file grows as they are used */
    uint64_t bytes;   /* of the file, when it was opened */
} kv_file;

typedef struct kv_file_slot { /* what a slot's header says */
    kv_disk_key key;
    uint64_t    sum; /* of the payload */
    uint64_t    age; /* the larger, the more recently used */
} kv_file_slot;

/* Makes the directory and the file when they are missing, locks the file, sets a foreign or damaged one aside.
 * kv_file_close is due in any case. */
bool kv_file_open(kv_file *f, const kv_disk_options *o, err *e);
void kv_file_close(kv_file *f);

typedef enum kv_file_state { KV_SLOT_EMPTY, KV_SLOT_FULL, KV_SLOT_BAD } kv_file_state;

/* Calls `visit` for all slots from 0 on; `is` counts only with KV_SLOT_FULL. */
typedef void (*kv_file_visit)(void *ctx, int slot, kv_file_state state, const kv_file_slot *is);
bool kv_file_scan(kv_file *f, kv_file_visit visit, void *ctx, err *e);

/* payload [f->payload]. Writing sets is->sum; when it fails, errno says why and the slot holds nothing. Reading fails
 * with `why` when the payload is not the one that was written. */
bool kv_file_write(const kv_file *f, int slot, kv_file_slot *is, const void *payload);
bool kv_file_read(const kv_file *f, int slot, const kv_file_slot *is, void *payload, const char **why);
bool kv_file_mark(const kv_file *f, int slot, const kv_file_slot *is); /* its header alone, for a new age */
bool kv_file_erase(const kv_file *f, int slot);

uint64_t kv_file_end(const kv_file *f, int slot); /* bytes of a file that ends with this slot */

#endif
