/* kv_disk.h - blocks of keys and values that rest in a file and survive a restart.
 *
 * One file a model and layout, DIR/kv-KEY.pare, of slots of one size: each holds a block, the chain of tokens that leads
 * to it, and a checksum. KEY is a hash of the model's fingerprint, its shape, the KV type and the format's version, all
 * of which the file's header states again. A header that does not fit (foreign, truncated, of another version) is
 * refused with a sentence and the file begun anew; a slot whose checksum fails is dropped and counted. The slot's header
 * is written after its payload, so a kill at any moment loses the slot that was being written and no other. When the
 * file is full, the least recently used slot goes.
 *
 * One thread does all reading and writing. It reads and writes the cache's blocks where they lie: the caller keeps them
 * unchanged (write) or untouched (read) until the job comes back.                                                   */
#ifndef PARE_ENGINE_KV_DISK_H
#define PARE_ENGINE_KV_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct kv_disk kv_disk;

typedef struct kv_disk_key { /* SHA-256 of (scope, all tokens up to the block's end), chained block by block */
    uint8_t bytes[32];
} kv_disk_key;

typedef struct kv_disk_options {
    const char *directory;
    size_t      bytes;       /* most that the file may take */
    const char *fingerprint; /* of the model and everything that changes what a block means, as text */
    char       *memory;      /* block b lies in `pieces` pieces: at memory + piece * piece_step + b * piece_bytes */
    int         pieces;
    size_t      piece_step, piece_bytes;
    int         blocks;      /* numbers 0 .. blocks-1 */
    void (*wake)(void *arg); /* called by the disk's thread when a job is done; may be NULL */
    void *wake_arg;
} kv_disk_options;

/* Reads the slots' headers. ERR_BUSY: another engine, here or in another process, has the file. */
kv_disk *kv_disk_open(const kv_disk_options *o, err *e);
/* Does the writes that wait, not the reads. No `wake` comes any more; all jobs are the caller's again. */
void     kv_disk_close(kv_disk *d);

typedef struct kv_disk_job {
    struct kv_disk_job *next;
    kv_disk_key         key;
    int                 block;
    bool                write;
    bool                ok; /* set when it comes back */
} kv_disk_job;

bool kv_disk_has(kv_disk *d, const kv_disk_key *key); /* marks it as used; false for slots still being written */
void kv_disk_put(kv_disk *d, kv_disk_job *job);       /* the job is the disk's until kv_disk_take gives it back */
kv_disk_job *kv_disk_take(kv_disk *d);                /* finished jobs, a chain; NULL: none */

typedef struct kv_disk_usage {
    int64_t slots, used, bytes, written, read, bad;
} kv_disk_usage;
kv_disk_usage kv_disk_usage_read(kv_disk *d);

#endif
