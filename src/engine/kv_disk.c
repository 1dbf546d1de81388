/* kv_disk.c - the index of the file in memory, and the thread that reads and writes.
 *
 * The file itself is described in kv_disk_file.c. A slot is unused, used (in the index, ordered by use) or, while it is
 * being written, neither. The thread alone moves slots between these; the engine's thread only looks and touches. So a
 * slot that the thread has found stays while it is read without the lock.                                            */
#include "engine/kv_disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/kv_disk_file.h"

enum {
    PAUSE_US = 1000000, /* after a failed write */
    NONE = -1
};

typedef struct slot {
    kv_file_slot is;
    int32_t      before, after; /* in `unused` or `used` */
    int32_t      chain;         /* next of the same bucket, when used */
    bool         touched;       /* its age in the file is older */
} slot;

typedef struct list {
    int32_t first, last;
} list;

typedef struct chain { /* jobs, oldest first */
    kv_disk_job *first, *last;
} chain;

struct kv_disk {
    /* set in kv_disk_open and then only read */
    kv_disk_options o; /* its strings are the caller's and not used later */
    kv_file         file;
    uint32_t        mask; /* buckets - 1 */
    uint64_t        seed;
    pthread_t       thread;
    bool            running;

    /* the thread's own */
    uint8_t *buffer;                  /* one payload: is checked here before it goes to the cache */
    int64_t  grow_after, write_after; /* clock_us() */
    bool     told_write, told_bad;

    pthread_mutex_t lock; /* never held while the file is read or written */
    pthread_cond_t  filled;
    chain           waiting, done;
    bool            closing;
    slot           *slots;
    int32_t        *buckets;
    list            unused, used; /* least recently used first */
    uint64_t        age;          /* the last one given */
    kv_disk_usage   usage;
};

/* ---- the index: lists and buckets, under the lock ---- */

static void unlink_slot(kv_disk *d, list *l, int32_t i) {
    slot *s = &d->slots[i];
    *(s->before == NONE ? &l->first : &d->slots[s->before].after) = s->after;
    *(s->after == NONE ? &l->last : &d->slots[s->after].before) = s->before;
}

static void append_slot(kv_disk *d, list *l, int32_t i) {
    d->slots[i].before = l->last;
    d->slots[i].after = NONE;
    *(l->last == NONE ? &l->first : &d->slots[l->last].after) = i;
    l->last = i;
}

static int32_t *bucket_of(const kv_disk *d, const kv_disk_key *key) {
    return &d->buckets[hash64(key->bytes, sizeof key->bytes, d->seed) & d->mask];
}

static int32_t find(const kv_disk *d, const kv_disk_key *key) {
    int32_t i = *bucket_of(d, key);
    while (i != NONE && memcmp(d->slots[i].is.key.bytes, key->bytes, sizeof key->bytes) != 0) {
        i = d->slots[i].chain;
    }
    return i;
}

/* A slot that is in no list becomes the most recently used one. Its age is set. */
static void insert(kv_disk *d, int32_t i) {
    int32_t *bucket = bucket_of(d, &d->slots[i].is.key);
    d->slots[i].chain = *bucket;
    *bucket = i;
    append_slot(d, &d->used, i);
    d->usage.used++;
}

static void remove_used(kv_disk *d, int32_t i) {
    int32_t *at = bucket_of(d, &d->slots[i].is.key);
    while (*at != i) {
        at = &d->slots[*at].chain;
    }
    *at = d->slots[i].chain;
    unlink_slot(d, &d->used, i);
    d->usage.used--;
}

static void touch(kv_disk *d, int32_t i) {
    unlink_slot(d, &d->used, i);
    append_slot(d, &d->used, i);
    d->slots[i].is.age = ++d->age;
    d->slots[i].touched = true;
}

/* The slot that is written next, out of its list; NONE when writing rests. While the file cannot grow (the disk is
 * full), slots that have their space already are used again. */
static int32_t take_slot(kv_disk *d, bool *grows) {
    int64_t now = clock_us();
    int32_t i = d->unused.first;
    *grows = i != NONE && now >= d->grow_after;
    if (*grows) {
        unlink_slot(d, &d->unused, i);
        return i;
    }
    i = now >= d->write_after ? d->used.first : NONE;
    if (i != NONE) {
        remove_used(d, i);
    }
    return i;
}

static void drop(kv_disk *d, int32_t i) {
    remove_used(d, i);
    append_slot(d, &d->unused, i);
    d->usage.bad++;
}

/* ---- jobs, on the thread ---- */

static void tell_once(const kv_disk *d, bool *told, const char *what, const char *why) {
    if (!*told) {
        *told = true;
        log_warn("%s: %s (%s); pare goes on without it and will not tell again", d->file.path, what, why);
    }
}

/* Copies the block's pieces to or from d->buffer. */
static void gather(const kv_disk *d, int block, bool back) {
    for (int p = 0; p < d->o.pieces; p++) {
        char    *piece = d->o.memory + (size_t)p * d->o.piece_step + (size_t)block * d->o.piece_bytes;
        uint8_t *at = d->buffer + (size_t)p * d->o.piece_bytes;
        if (back) {
            memcpy(piece, at, d->o.piece_bytes);
        } else {
            memcpy(at, piece, d->o.piece_bytes);
        }
    }
}

static void keep_written(kv_disk *d, int32_t i, const kv_file_slot *is) {
    int64_t end = (int64_t)kv_file_end(&d->file, i);
    pthread_mutex_lock(&d->lock);
    d->slots[i] = (slot){.is = *is};
    insert(d, i);
    d->usage.written++;
    d->usage.bytes = end > d->usage.bytes ? end : d->usage.bytes;
    pthread_mutex_unlock(&d->lock);
}

static void give_back(kv_disk *d, int32_t i, bool grows, int why) {
    *(grows ? &d->grow_after : &d->write_after) = clock_us() + PAUSE_US;
    tell_once(d, &d->told_write, "a block of keys and values cannot be written", strerror(why));
    pthread_mutex_lock(&d->lock);
    append_slot(d, &d->unused, i);
    pthread_mutex_unlock(&d->lock);
}

static bool store(kv_disk *d, const kv_disk_job *job) {
    kv_file_slot is = {.key = job->key};
    int32_t      i = NONE;
    bool         grows = false;
    pthread_mutex_lock(&d->lock);
    int32_t here = find(d, &job->key);
    if (here != NONE) { /* the same tokens: the same block */
        touch(d, here);
    } else {
        i = take_slot(d, &grows);
        is.age = ++d->age;
    }
    pthread_mutex_unlock(&d->lock);
    if (i == NONE) {
        return here != NONE;
    }
    gather(d, job->block, false);
    if (!kv_file_write(&d->file, i, &is, d->buffer)) {
        give_back(d, i, grows, errno);
        return false;
    }
    keep_written(d, i, &is);
    return true;
}

/* Writes the slot's new age at once, so that a kill does not lose who was used last. Failing costs no more than that. */
static void mark(kv_disk *d, int32_t i, bool read) {
    pthread_mutex_lock(&d->lock);
    if (read) {
        touch(d, i);
        d->usage.read++;
    }
    kv_file_slot is = d->slots[i].is;
    d->slots[i].touched = false;
    pthread_mutex_unlock(&d->lock);
    kv_file_mark(&d->file, i, &is);
}

static bool fetch(kv_disk *d, const kv_disk_job *job) {
    const char  *why;
    kv_file_slot is = {0};
    pthread_mutex_lock(&d->lock);
    int32_t i = find(d, &job->key);
    if (i != NONE) {
        is = d->slots[i].is;
    }
    pthread_mutex_unlock(&d->lock);
    if (i == NONE) {
        return false;
    }
    if (!kv_file_read(&d->file, i, &is, d->buffer, &why)) {
        tell_once(d, &d->told_bad, "a block of keys and values is damaged", why);
        pthread_mutex_lock(&d->lock);
        drop(d, i);
        pthread_mutex_unlock(&d->lock);
        kv_file_erase(&d->file, i); /* when this fails, the checksum says the same the next time */
        return false;
    }
    gather(d, job->block, true);
    mark(d, i, true);
    return true;
}

static void chain_add(chain *c, kv_disk_job *job) {
    job->next = NULL;
    *(c->last ? &c->last->next : &c->first) = job;
    c->last = job;
}

/* The oldest job, waited for; NULL: closing, and all is done. */
static kv_disk_job *next_job(kv_disk *d, bool *closing) {
    pthread_mutex_lock(&d->lock);
    while (!d->waiting.first && !d->closing) {
        pthread_cond_wait(&d->filled, &d->lock);
    }
    kv_disk_job *job = d->waiting.first;
    if (job) {
        d->waiting.first = job->next;
        d->waiting.last = job->next ? d->waiting.last : NULL;
    }
    *closing = d->closing;
    pthread_mutex_unlock(&d->lock);
    return job;
}

static void finish(kv_disk *d, kv_disk_job *job) {
    pthread_mutex_lock(&d->lock);
    chain_add(&d->done, job);
    bool wake = d->o.wake && !d->closing;
    pthread_mutex_unlock(&d->lock);
    if (wake) {
        d->o.wake(d->o.wake_arg);
    }
}

/* Writes that wait when the disk is closed are done; nobody waits for a read any more. */
static void *work(void *arg) {
    kv_disk     *d = arg;
    kv_disk_job *job;
    bool         closing;
    while ((job = next_job(d, &closing))) {
        bool known = job->block >= 0 && job->block < d->o.blocks;
        job->ok = known && (job->write ? store(d, job) : !closing && fetch(d, job));
        finish(d, job);
    }
    for (int32_t i = d->used.first; i != NONE; i = d->slots[i].after) { /* nobody else is here any more */
        if (d->slots[i].touched) {
            mark(d, i, false);
        }
    }
    return NULL;
}

/* ---- opening and closing ---- */

typedef struct found { /* slots that hold a block, by age */
    kv_disk *d;
    int32_t *list;
    int      count;
} found;

static void see_slot(void *ctx, int i, kv_file_state state, const kv_file_slot *is) {
    found   *f = ctx;
    kv_disk *d = f->d;
    if (state == KV_SLOT_FULL) {
        d->slots[i].is = *is;
        f->list[f->count++] = i;
        return;
    }
    append_slot(d, &d->unused, i);
    if (state == KV_SLOT_BAD) {
        d->usage.bad++;
        kv_file_erase(&d->file, i);
    }
}

static int by_age(const void *a, const void *b, void *slots) {
    const slot *x = (const slot *)slots + *(const int32_t *)a, *y = (const slot *)slots + *(const int32_t *)b;
    return (x->is.age > y->is.age) - (x->is.age < y->is.age);
}

static bool read_index(kv_disk *d, err *e) {
    found f = {d, malloc((size_t)d->file.slots * sizeof(int32_t)), 0};
    if (!f.list) {
        return err_set(e, ERR_MEMORY, "out of memory for the index of %s", d->file.path);
    }
    bool ok = kv_file_scan(&d->file, see_slot, &f, e);
    if (ok) {
        qsort_r(f.list, (size_t)f.count, sizeof *f.list, by_age, d->slots);
    }
    for (int k = 0; ok && k < f.count; k++) {
        int32_t twin = find(d, &d->slots[f.list[k]].is.key);
        if (twin != NONE) { /* never written so: the file was tampered with. The younger one stays */
            drop(d, twin);
            kv_file_erase(&d->file, twin);
        }
        insert(d, f.list[k]);
        d->age = d->slots[f.list[k]].is.age;
    }
    free(f.list);
    if (d->usage.bad) {
        log_warn("%s: %lld blocks of keys and values were damaged and are dropped", d->file.path,
                 (long long)d->usage.bad);
    }
    return ok;
}

static bool take_memory(kv_disk *d, err *e) {
    size_t buckets = 16, slots = (size_t)d->file.slots;
    while (buckets < slots) {
        buckets *= 2;
    }
    d->mask = (uint32_t)buckets - 1;
    d->seed = hash_seed();
    d->buffer = malloc(d->file.payload);
    d->slots = calloc(slots, sizeof *d->slots);
    d->buckets = malloc(buckets * sizeof *d->buckets);
    if (!d->buffer || !d->slots || !d->buckets) {
        return err_set(e, ERR_MEMORY, "out of memory for the index of %zu blocks on disk", slots);
    }
    for (size_t i = 0; i < buckets; i++) {
        d->buckets[i] = NONE;
    }
    return true;
}

static bool start(kv_disk *d, err *e) {
    d->running = thread_start(&d->thread, work, d, "its thread", e);
    return d->running || err_prefix(e, "%s", d->file.path);
}

static bool open_parts(kv_disk *d, const kv_disk_options *o, err *e) {
    if (!kv_file_open(&d->file, o, e) || !take_memory(d, e) || !read_index(d, e)) {
        return false;
    }
    d->usage.slots = d->file.slots;
    d->usage.bytes = (int64_t)d->file.bytes;
    return start(d, e);
}

kv_disk *kv_disk_open(const kv_disk_options *o, err *e) {
    kv_disk *d = malloc(sizeof *d);
    if (!d) {
        err_set(e, ERR_MEMORY, "out of memory for keys and values on disk");
        return NULL;
    }
    *d = (kv_disk){.o = *o, .file.fd = -1, .unused = {NONE, NONE}, .used = {NONE, NONE}};
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->filled, NULL);
    if (!open_parts(d, o, e)) {
        kv_disk_close(d);
        return NULL;
    }
    return d;
}

void kv_disk_close(kv_disk *d) {
    if (!d) {
        return;
    }
    if (d->running) {
        pthread_mutex_lock(&d->lock);
        d->closing = true;
        pthread_cond_signal(&d->filled);
        pthread_mutex_unlock(&d->lock);
        pthread_join(d->thread, NULL);
    }
    kv_file_close(&d->file);
    pthread_cond_destroy(&d->filled);
    pthread_mutex_destroy(&d->lock);
    free(d->buckets);
    free(d->slots);
    free(d->buffer);
    free(d);
}

/* ---- for the engine ---- */

bool kv_disk_has(kv_disk *d, const kv_disk_key *key) {
    pthread_mutex_lock(&d->lock);
    int32_t i = find(d, key);
    if (i != NONE) {
        touch(d, i);
    }
    pthread_mutex_unlock(&d->lock);
    return i != NONE;
}

void kv_disk_put(kv_disk *d, kv_disk_job *job) {
    job->ok = false;
    pthread_mutex_lock(&d->lock);
    chain_add(&d->waiting, job);
    pthread_cond_signal(&d->filled);
    pthread_mutex_unlock(&d->lock);
}

kv_disk_job *kv_disk_take(kv_disk *d) {
    pthread_mutex_lock(&d->lock);
    kv_disk_job *jobs = d->done.first;
    d->done = (chain){0};
    pthread_mutex_unlock(&d->lock);
    return jobs;
}

kv_disk_usage kv_disk_usage_read(kv_disk *d) {
    pthread_mutex_lock(&d->lock);
    kv_disk_usage usage = d->usage;
    pthread_mutex_unlock(&d->lock);
    return usage;
}
