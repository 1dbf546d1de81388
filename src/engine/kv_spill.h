/* kv_spill.h - which blocks go to the disk and come from it: kv_disk.h with the cache's blocks and keys.
 *
 * A block with a job under way is pinned: it keeps its contents and its place, whether a sequence holds it or not. Few
 * writes are under way at a time, so that reads need not wait for many; a block that is passed over is written when a
 * sequence that holds it ends, or when the cache is closed. Made only when a disk is configured; nothing is allocated
 * later but by OpenSSL, for the time of a SHA-256. One thread.                                                       */
#ifndef PARE_ENGINE_KV_SPILL_H
#define PARE_ENGINE_KV_SPILL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/kv.h"
#include "engine/kv_disk.h"
#include "engine/kv_index.h"

typedef struct kv_spill kv_spill;

/* `o` without wake. The index outlives it. */
kv_spill *kv_spill_open(kv_index *x, const kv_disk_options *o, err *e);
/* Writes the nodes that are not on disk, as far as there is room for them without dropping others, and waits. */
void      kv_spill_close(kv_spill *p);

/* Keys: of the KV_TOKENS tokens that follow block `parent`, whose key is known, or begin the scope (KV_NONE). */
kv_disk_key        kv_spill_key(const kv_spill *p, const kv_scope *scope, int parent, const int32_t *tokens);
void               kv_spill_name(kv_spill *p, int block, const kv_disk_key *key);
const kv_disk_key *kv_spill_key_of(const kv_spill *p, int block);
bool               kv_spill_has(kv_spill *p, const kv_disk_key *key);

/* Writes a node that has a key, unless it is there or too much is under way. */
void kv_spill_write(kv_spill *p, int block);

typedef enum kv_read { KV_READ_DONE, KV_READING, KV_READ_FAILED } kv_read;

/* Reads the block of this key into a taken block and names it. */
void    kv_spill_read(kv_spill *p, int block, const kv_disk_key *key);
kv_read kv_spill_state(const kv_spill *p, int block);

void kv_spill_poll(kv_spill *p); /* takes what is finished */
/* Waits until something is finished and polls; false: nothing is under way. */
bool kv_spill_wait(kv_spill *p);

kv_disk_usage kv_spill_usage(const kv_spill *p); /* any thread */

#endif
