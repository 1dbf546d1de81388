/* kv_disk_bed.h - a kv_disk in a directory of its own, blocks whose content their key gives, and files as bytes. */
#ifndef PARE_TESTS_ENGINE_KV_DISK_BED_H
#define PARE_TESTS_ENGINE_KV_DISK_BED_H

#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "engine/kv_disk.h"

/* The format as kv_disk_file.c describes it. */
enum {
    HEADER = 4096,
    SLOT = 64,
    TABLE = 1024 * SLOT,
    PIECES = 3,
    PIECE = 1000,
    PAYLOAD = PIECES * PIECE,
    STRIDE = 4096,
    BLOCKS = 8,
    STEP = BLOCKS * PIECE + 40, /* a gap between the pieces, which nothing may write */
    GAP = 0x5A
};
#define SEED UINT64_C(0x706172654b563031)

typedef struct bed {
    char            directory[64], inner[80], path[160], bad[192];
    kv_disk_options o;
    kv_disk        *d;
} bed;

static inline kv_disk_key key_of(int id) {
    kv_disk_key key;
    sha256      digest = sha256_of(&id, sizeof id);
    memcpy(key.bytes, digest.bytes, sizeof key.bytes);
    return key;
}

static inline char *piece_of(const kv_disk_options *o, int block, int piece) {
    return o->memory + (size_t)piece * o->piece_step + (size_t)block * o->piece_bytes;
}

/* What the block of this key holds: all bytes depend on the key and on their place. */
static inline void fill(const kv_disk_options *o, int block, int id) {
    for (int p = 0; p < o->pieces; p++) {
        uint64_t state = (uint64_t)id * 1000 + (uint64_t)p;
        char    *at = piece_of(o, block, p);
        for (size_t i = 0; i < o->piece_bytes; i += 8) {
            uint64_t value = test_random(&state);
            memcpy(at + i, &value, o->piece_bytes - i < 8 ? o->piece_bytes - i : 8);
        }
    }
}

static inline bool holds(const kv_disk_options *o, int block, int id) {
    for (int p = 0; p < o->pieces; p++) {
        uint64_t    state = (uint64_t)id * 1000 + (uint64_t)p;
        const char *at = piece_of(o, block, p);
        for (size_t i = 0; i < o->piece_bytes; i += 8) {
            uint64_t value = test_random(&state);
            if (memcmp(at + i, &value, o->piece_bytes - i < 8 ? o->piece_bytes - i : 8) != 0) {
                return false;
            }
        }
    }
    return true;
}

static inline size_t bytes_for(int slots) {
    return HEADER + TABLE + (size_t)slots * STRIDE;
}

static inline int make_bed(void **state) {
    log_setup(LOG_OFF, false);
    bed *b = calloc(1, sizeof *b);
    assert_non_null(b);
    snprintf(b->directory, sizeof b->directory, "/tmp/pare-test-kv-XXXXXX");
    assert_non_null(mkdtemp(b->directory));
    snprintf(b->inner, sizeof b->inner, "%s/made/here", b->directory);
    b->o = (kv_disk_options){.directory = b->inner,
                             .bytes = bytes_for(8),
                             .fingerprint = "model-a f16",
                             .memory = malloc(STEP * PIECES),
                             .pieces = PIECES,
                             .piece_step = STEP,
                             .piece_bytes = PIECE,
                             .blocks = BLOCKS};
    assert_non_null(b->o.memory);
    memset(b->o.memory, GAP, STEP * PIECES);
    *state = b;
    return 0;
}

static inline int remove_bed(void **state) {
    bed *b = *state;
    char command[96];
    kv_disk_close(b->d);
    snprintf(command, sizeof command, "rm -r %s", b->directory);
    int status = system(command);
    free(b->o.memory);
    free(b);
    return status;
}

/* The one file of the directory that ends with .pare, into b->path. */
static inline void find_file(bed *b) {
    char  command[160];
    char *end;
    snprintf(command, sizeof command, "ls %s/kv-*.pare", b->inner);
    FILE *names = popen(command, "r");
    assert_non_null(names);
    assert_non_null(fgets(b->path, sizeof b->path, names));
    char more[8];
    assert_null(fgets(more, sizeof more, names));
    pclose(names);
    end = strchr(b->path, '\n');
    assert_non_null(end);
    *end = '\0';
    snprintf(b->bad, sizeof b->bad, "%s.bad", b->path);
}

static inline void open_bed(bed *b) {
    err e = {0};
    b->d = kv_disk_open(&b->o, &e);
    assert_ok(b->d != NULL, e);
}

static inline void close_bed(bed *b) {
    kv_disk_close(b->d);
    b->d = NULL;
}

/* One job, waited for. */
static inline bool run(kv_disk *d, int id, int block, bool write) {
    kv_disk_job job = {.key = key_of(id), .block = block, .write = write};
    kv_disk_put(d, &job);
    kv_disk_job *back;
    while (!(back = kv_disk_take(d))) {
        usleep(20);
    }
    assert_ptr_equal(back, &job);
    assert_null(back->next);
    return job.ok;
}

static inline bool write_block(bed *b, int id) {
    fill(&b->o, id % b->o.blocks, id);
    return run(b->d, id, id % b->o.blocks, true);
}

/* True when the block came back; then it is the right one. */
static inline bool read_block(bed *b, int id, int block) {
    kv_disk_job job = {.key = key_of(id)};
    for (int p = 0; p < b->o.pieces; p++) {
        memset(piece_of(&b->o, block, p), 0xEE, b->o.piece_bytes);
    }
    if (!run(b->d, id, block, false)) {
        return false;
    }
    if (!holds(&b->o, block, id)) {
        fail_msg("block %d came back wrong", id);
    }
    assert_true(kv_disk_has(b->d, &job.key));
    return true;
}

static inline bool has(const bed *b, int id) {
    kv_disk_key key = key_of(id);
    return kv_disk_has(b->d, &key);
}

static inline void write_blocks(bed *b, int from, int to) {
    for (int id = from; id < to; id++) {
        assert_true(write_block(b, id));
    }
}

static inline int count_read(bed *b, int from, int to) {
    int n = 0;
    for (int id = from; id < to; id++) {
        n += read_block(b, id, id % b->o.blocks);
    }
    return n;
}

/* ---- files as bytes ---- */

typedef struct image {
    uint8_t *data;
    size_t   n;
} image;

static inline image load(const char *path) {
    image       m = {0};
    struct stat at;
    int         fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &at) == 0);
    m.n = (size_t)at.st_size;
    m.data = malloc(m.n + 1);
    assert_non_null(m.data);
    assert_int_equal(read(fd, m.data, m.n), m.n);
    close(fd);
    return m;
}

static inline void save(const char *path, const void *data, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    close(fd);
}

static inline uint64_t u64_at(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
