#include "engine/kv_spill.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"

#define MOST_WRITES 64
#define WAIT_NS     10000000 /* looks again after this, should a call of wake go unheard */

typedef struct item { /* one a block */
    kv_disk_job job;  /* its key is the block's, also when no job is under way */
    bool        busy;
    kv_read     read;
} item;

struct kv_spill {
    kv_index *index;
    kv_disk  *disk;
    item     *items;
    int       blocks, most_writes;
    int       writes, reads; /* under way */

    pthread_mutex_t lock;
    pthread_cond_t  woken;
    bool            finished; /* something was, since the last look */
};

/* ---- opening and closing ---- */

static void on_finished(void *arg) {
    kv_spill *p = arg;
    pthread_mutex_lock(&p->lock);
    p->finished = true;
    pthread_cond_signal(&p->woken);
    pthread_mutex_unlock(&p->lock);
}

kv_spill *kv_spill_open(kv_index *x, const kv_disk_options *o, err *e) {
    kv_spill *p = calloc(1, sizeof(*p));
    item     *items = calloc((size_t)o->blocks, sizeof(*items));
    if (!p || !items) {
        free(p);
        free(items);
        err_set(e, ERR_MEMORY, "no memory for the jobs of %d blocks on disk; make the cache smaller", o->blocks);
        return NULL;
    }
    /* No more than an eighth of a small cache: what is being written cannot be evicted. */
    int eighth = (o->blocks + 7) / 8;
    *p = (kv_spill){
        .index = x, .items = items, .blocks = o->blocks, .most_writes = eighth < MOST_WRITES ? eighth : MOST_WRITES};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->woken, NULL);
    kv_disk_options with_wake = *o;
    with_wake.wake = on_finished;
    with_wake.wake_arg = p;
    p->disk = kv_disk_open(&with_wake, e);
    if (!p->disk) {
        kv_spill_close(p);
        return NULL;
    }
    return p;
}

static void put_write(kv_spill *p, int block) {
    item *it = &p->items[block];
    it->busy = true;
    it->job.block = block;
    it->job.write = true;
    p->writes++;
    kv_index_pin(p->index, block);
    kv_disk_put(p->disk, &it->job);
}

static void write_rest(kv_spill *p) {
    kv_disk_usage usage = kv_disk_usage_read(p->disk);
    int64_t       room = usage.slots - usage.used - p->writes;
    for (int b = 0; b < p->blocks && room > 0; b++) {
        if (kv_index_is_node(p->index, b) && !p->items[b].busy && !kv_disk_has(p->disk, &p->items[b].job.key)) {
            put_write(p, b);
            room--;
        }
    }
}

void kv_spill_close(kv_spill *p) {
    if (!p) {
        return;
    }
    if (p->disk) {
        kv_spill_poll(p);
        write_rest(p);
        kv_disk_close(p->disk);
    }
    pthread_cond_destroy(&p->woken);
    pthread_mutex_destroy(&p->lock);
    free(p->items);
    free(p);
}

/* ---- keys ---- */

kv_disk_key kv_spill_key(const kv_spill *p, const kv_scope *scope, int parent, const int32_t *tokens) {
    uint8_t     text[sizeof(kv_disk_key) + KV_TOKENS * sizeof(int32_t)];
    size_t      n = parent == KV_NONE ? sizeof(*scope) : sizeof(kv_disk_key);
    kv_disk_key key;
    memcpy(text, parent == KV_NONE ? scope->bytes : p->items[parent].job.key.bytes, n);
    memcpy(text + n, tokens, KV_TOKENS * sizeof(int32_t));
    sha256 digest = sha256_of(text, n + KV_TOKENS * sizeof(int32_t));
    memcpy(key.bytes, digest.bytes, sizeof(key.bytes));
    return key;
}

void kv_spill_name(kv_spill *p, int block, const kv_disk_key *key) {
    p->items[block].job.key = *key;
}

const kv_disk_key *kv_spill_key_of(const kv_spill *p, int block) {
    return &p->items[block].job.key;
}

bool kv_spill_has(kv_spill *p, const kv_disk_key *key) {
    return kv_disk_has(p->disk, key);
}

/* ---- jobs ---- */

void kv_spill_write(kv_spill *p, int block) {
    item *it = &p->items[block];
    if (!it->busy && p->writes < p->most_writes && !kv_disk_has(p->disk, &it->job.key)) {
        put_write(p, block);
    }
}

void kv_spill_read(kv_spill *p, int block, const kv_disk_key *key) {
    item *it = &p->items[block];
    it->job = (kv_disk_job){.key = *key, .block = block};
    it->busy = true;
    it->read = KV_READING;
    p->reads++;
    kv_index_pin(p->index, block);
    kv_disk_put(p->disk, &it->job);
}

kv_read kv_spill_state(const kv_spill *p, int block) {
    return p->items[block].read;
}

void kv_spill_poll(kv_spill *p) {
    kv_disk_job *next = NULL;
    for (kv_disk_job *job = kv_disk_take(p->disk); job; job = next) {
        next = job->next;
        item *it = &p->items[job->block];
        it->busy = false;
        if (job->write) {
            p->writes--;
        } else {
            p->reads--;
            it->read = job->ok ? KV_READ_DONE : KV_READ_FAILED;
        }
        kv_index_unpin(p->index, job->block);
    }
}

bool kv_spill_wait(kv_spill *p) {
    if (!p->writes && !p->reads) {
        return false;
    }
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&p->lock);
    if (!p->finished) {
        pthread_cond_timedwait(&p->woken, &p->lock, &until);
    }
    p->finished = false;
    pthread_mutex_unlock(&p->lock);
    kv_spill_poll(p);
    return true;
}

kv_disk_usage kv_spill_usage(const kv_spill *p) {
    return kv_disk_usage_read(p->disk);
}
