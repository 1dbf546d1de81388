/* kv_disk_file.c - the file's format, byte by byte; all numbers are little-endian. Version 1.
 *
 * A header, then segments. Segments let the limit change without the file being begun anew, and opening reads their
 * tables only.
 *
 *   0            header, 4096 bytes
 *   4096 + k*S   segment k, S = 65536 + 1024 * stride bytes (the last one shorter):
 *                    a table of 1024 slot headers, 64 bytes each
 *                    1024 payloads, one every `stride` bytes
 *
 *   header    0   8  "pareKV\r\n"
 *             8   4  version, 1
 *            12   4  pieces of a block
 *            16   8  bytes of a piece
 *            24   8  stride: a payload (pieces * bytes of a piece), rounded up to 4096
 *            32   4  bytes of the fingerprint, at most 4052
 *            36      the fingerprint, then zeros
 *          4088   8  hash64 of the bytes before, seed SEED
 *
 *   slot      0  32  key
 *   header   32   8  bytes of the payload, always pieces * bytes of a piece
 *            40   8  hash64 of the payload, seed SEED
 *            48   8  age: the larger, the more recently used
 *            56   8  hash64 of the bytes before, seed SEED + the slot's number (from 0, through all segments)
 *            All zeros: the slot is empty.
 *
 *   payload      the block's pieces, one after another, as they lie in memory
 *
 * The header says nothing that changes, so a file fits or does not, byte by byte, and KEY in its name is the first half
 * of the header's SHA-256. What lies past the end of the file counts as zeros.
 *
 * A slot is written in three steps: its header is zeroed, the payload is written, the header is written. A process that
 * is killed between them leaves an empty slot. Nothing is synced: after a power cut the steps may have reached the disk
 * in any order or in part, and the checksums drop what does not fit together.
 *
 * hash64 is not cryptographic, and need not be: it guards against damage; whoever can write the file (mode 0600) could
 * change the model as well. It takes 45 us for the 352 KiB of a block of a 1.1B model where SHA-256 takes 800 us.   */
#include "engine/kv_disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"

/* Payloads are the memory of this machine, and hash64 reads words in its byte order. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");

enum {
    VERSION = 1,
    PAGE = 4096,
    HEADER_BYTES = PAGE,
    FINGERPRINT_AT = 36,
    HEADER_SUM_AT = HEADER_BYTES - 8,
    SLOT_BYTES = 64,
    SLOT_SUM_AT = SLOT_BYTES - 8,
    SEGMENT_SLOTS = 1024,
    TABLE_BYTES = SEGMENT_SLOTS * SLOT_BYTES,
    MAX_SLOTS = 1 << 20 /* bounds the index in memory; with blocks of 352 KiB a file of 352 GiB */
};

#define SEED    UINT64_C(0x706172654b563031) /* "pareKV01"; any number would do */
#define MAX_AGE (UINT64_MAX / 2)             /* one more each use: never reached */

static const uint8_t magic[8] = {'p', 'a', 'r', 'e', 'K', 'V', '\r', '\n'}; /* as PNG's: shows a change of line ends */

/* ---- little-endian numbers ---- */

static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static void put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_u64(const uint8_t *p) {
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

/* ---- the file's parts ---- */

static uint64_t segment_bytes(size_t stride) {
    return TABLE_BYTES + (uint64_t)SEGMENT_SLOTS * stride;
}

static uint64_t segment_at(const kv_file *f, int segment) {
    return HEADER_BYTES + (uint64_t)segment * segment_bytes(f->stride);
}

static uint64_t slot_at(const kv_file *f, int i) {
    return segment_at(f, i / SEGMENT_SLOTS) + (uint64_t)(i % SEGMENT_SLOTS) * SLOT_BYTES;
}

static uint64_t payload_at(const kv_file *f, int i) {
    return segment_at(f, i / SEGMENT_SLOTS) + TABLE_BYTES + (uint64_t)(i % SEGMENT_SLOTS) * f->stride;
}

/* Slots of a file that may take `bytes`. */
static int slots_in(uint64_t bytes, size_t stride) {
    if (bytes < HEADER_BYTES) {
        return 0;
    }
    uint64_t segment = segment_bytes(stride), whole = (bytes - HEADER_BYTES) / segment;
    uint64_t rest = (bytes - HEADER_BYTES) % segment;
    uint64_t part = rest > TABLE_BYTES ? (rest - TABLE_BYTES) / stride : 0;
    return whole < MAX_SLOTS / SEGMENT_SLOTS ? (int)(whole * SEGMENT_SLOTS + part) : MAX_SLOTS;
}

static bool write_at(int fd, const void *data, size_t n, uint64_t at) {
    const char *p = data;
    while (n) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done ? errno : EIO;
            return false;
        }
        p += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return true;
}

/* Up to n bytes; fewer at the end of the file; -1: the system said no. */
static ssize_t read_at(int fd, void *out, size_t n, uint64_t at) {
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)out + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static void make_header(const kv_disk_options *o, size_t stride, uint8_t *h) {
    size_t n = strlen(o->fingerprint);
    memset(h, 0, HEADER_BYTES);
    memcpy(h, magic, sizeof magic);
    put_u32(h + 8, VERSION);
    put_u32(h + 12, (uint32_t)o->pieces);
    put_u64(h + 16, o->piece_bytes);
    put_u64(h + 24, stride);
    put_u32(h + 32, (uint32_t)n);
    memcpy(h + FINGERPRINT_AT, o->fingerprint, n);
    put_u64(h + HEADER_SUM_AT, hash64(h, HEADER_SUM_AT, SEED));
}

/* ---- slots ---- */

static void make_slot_header(const kv_file *f, int i, const kv_file_slot *is, uint8_t *h) {
    memcpy(h, is->key.bytes, sizeof is->key.bytes);
    put_u64(h + 32, f->payload);
    put_u64(h + 40, is->sum);
    put_u64(h + 48, is->age);
    put_u64(h + SLOT_SUM_AT, hash64(h, SLOT_SUM_AT, SEED + (uint64_t)i));
}

static bool is_zero(const uint8_t *h) {
    for (int i = 0; i < SLOT_BYTES; i++) {
        if (h[i]) {
            return false;
        }
    }
    return true;
}

static kv_file_state read_slot_header(const kv_file *f, int i, const uint8_t *h, kv_file_slot *is) {
    if (is_zero(h)) {
        return KV_SLOT_EMPTY;
    }
    if (get_u64(h + SLOT_SUM_AT) != hash64(h, SLOT_SUM_AT, SEED + (uint64_t)i) || get_u64(h + 32) != f->payload ||
        get_u64(h + 48) > MAX_AGE || payload_at(f, i) + f->payload > f->bytes) {
        return KV_SLOT_BAD;
    }
    memcpy(is->key.bytes, h, sizeof is->key.bytes);
    is->sum = get_u64(h + 40);
    is->age = get_u64(h + 48);
    return KV_SLOT_FULL;
}

bool kv_file_scan(kv_file *f, kv_file_visit visit, void *ctx, err *e) {
    uint8_t *table = malloc(TABLE_BYTES);
    if (!table) {
        return err_set(e, ERR_MEMORY, "out of memory for the index of %s", f->path);
    }
    bool ok = true;
    for (int i = 0; ok && i < f->slots; i += SEGMENT_SLOTS) {
        int     slots = f->slots - i < SEGMENT_SLOTS ? f->slots - i : SEGMENT_SLOTS;
        ssize_t got = slot_at(f, i) < f->bytes ? read_at(f->fd, table, (size_t)slots * SLOT_BYTES, slot_at(f, i)) : 0;
        if (got < 0) {
            ok = err_set(e, ERR_IO, "%s cannot be read: %s", f->path, strerror(errno));
            break;
        }
        memset(table + got, 0, TABLE_BYTES - (size_t)got);
        for (int k = 0; k < slots; k++) {
            kv_file_slot  is = {0};
            kv_file_state state = read_slot_header(f, i + k, table + (size_t)k * SLOT_BYTES, &is);
            visit(ctx, i + k, state, &is);
        }
    }
    free(table);
    return ok;
}

bool kv_file_erase(const kv_file *f, int slot) {
    static const uint8_t zeros[SLOT_BYTES];
    return write_at(f->fd, zeros, sizeof zeros, slot_at(f, slot));
}

bool kv_file_mark(const kv_file *f, int slot, const kv_file_slot *is) {
    uint8_t h[SLOT_BYTES];
    make_slot_header(f, slot, is, h);
    return write_at(f->fd, h, sizeof h, slot_at(f, slot));
}

bool kv_file_write(const kv_file *f, int slot, kv_file_slot *is, const void *payload) {
    is->sum = hash64(payload, f->payload, SEED);
    return kv_file_erase(f, slot) && write_at(f->fd, payload, f->payload, payload_at(f, slot)) &&
           kv_file_mark(f, slot, is);
}

bool kv_file_read(const kv_file *f, int slot, const kv_file_slot *is, void *payload, const char **why) {
    ssize_t got = read_at(f->fd, payload, f->payload, payload_at(f, slot));
    if (got < 0) {
        *why = strerror(errno);
        return false;
    }
    *why = (size_t)got < f->payload ? "the file became shorter" : "its checksum does not fit";
    return (size_t)got == f->payload && hash64(payload, f->payload, SEED) == is->sum;
}

uint64_t kv_file_end(const kv_file *f, int slot) {
    return payload_at(f, slot) + f->payload;
}

/* ---- opening ---- */

static bool make_directory(const char *path, err *e) {
    struct stat at;
    if (stat(path, &at) == 0) {
        return true; /* when it is no directory, opening the file says so */
    }
    char *part = strdup(path);
    if (!part) {
        return err_set(e, ERR_MEMORY, "out of memory for the path of the keys and values");
    }
    bool ok = true;
    for (size_t i = 1, n = strlen(part); ok && i <= n; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            part[i] = '\0';
            ok = mkdir(part, 0700) == 0 || errno == EEXIST || (err_set(e, ERR_IO, "%s: %s", part, strerror(errno)));
            part[i] = path[i];
        }
    }
    free(part);
    return ok;
}

/* What a lock needs to be sure of; `moved`: the name went to another file meanwhile. */
static bool lock(const kv_file *f, int fd, uint64_t *bytes, bool *moved, err *e) {
    struct stat is, named;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK
                   ? err_set(e, ERR_BUSY,
                             "%s is in use by another engine (the same model with the same cache type, in this or "
                             "another process); give this one a directory of its own",
                             f->path)
                   : err_set(e, ERR_IO, "%s cannot be locked: %s", f->path, strerror(errno));
    }
    if (fstat(fd, &is) != 0) {
        return err_set(e, ERR_IO, "%s: %s", f->path, strerror(errno));
    }
    if (!S_ISREG(is.st_mode)) {
        return err_set(e, ERR_INVALID, "%s is not a plain file; move it away", f->path);
    }
    if ((is.st_mode & 077) && fchmod(fd, 0600) != 0) {
        return err_set(e, ERR_IO, "%s is open to others, and its mode cannot be changed: %s", f->path, strerror(errno));
    }
    *moved = stat(f->path, &named) != 0 || named.st_dev != is.st_dev || named.st_ino != is.st_ino;
    *bytes = (uint64_t)is.st_size;
    return true;
}

/* Sets f->fd and f->bytes; another process may be setting the file aside meanwhile. */
static bool open_and_lock(kv_file *f, err *e) {
    for (int tries = 0; tries < 8; tries++) {
        bool moved = false;
        int  fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
        if (fd < 0) {
            return err_set(e, ERR_IO, "%s cannot be opened: %s", f->path, strerror(errno));
        }
        bool ok = lock(f, fd, &f->bytes, &moved, e);
        if (ok && !moved) {
            f->fd = fd;
            return true;
        }
        close(fd);
        if (!ok) {
            return false;
        }
    }
    return err_set(e, ERR_BUSY, "%s keeps being replaced by another process", f->path);
}

static bool header_fits(const kv_file *f, const uint8_t *wanted, err *why) {
    uint8_t h[HEADER_BYTES];
    ssize_t got = read_at(f->fd, h, sizeof h, 0);
    if (got < 0) {
        return err_set(why, ERR_IO, "cannot be read (%s)", strerror(errno));
    }
    if (got < HEADER_BYTES) {
        return err_set(why, ERR_INVALID, "ends after %zd bytes, within its header (truncated)", got);
    }
    if (memcmp(h, magic, sizeof magic) != 0) {
        return err_set(why, ERR_INVALID, "does not begin like a file of keys and values");
    }
    if (get_u64(h + HEADER_SUM_AT) != hash64(h, HEADER_SUM_AT, SEED)) {
        return err_set(why, ERR_INVALID, "has a header that does not fit its checksum (damaged)");
    }
    if (get_u32(h + 8) != VERSION) {
        return err_set(why, ERR_INVALID, "is of version %u; this pare writes version %d", (unsigned)get_u32(h + 8),
                       VERSION);
    }
    return memcmp(h, wanted, sizeof h) == 0 ||
           err_set(why, ERR_INVALID, "belongs to another model or another shape of the cache");
}

static bool rename_bad(const kv_file *f, const char *why, err *e) {
    char *aside;
    if (asprintf(&aside, "%s.bad", f->path) < 0) {
        return err_set(e, ERR_MEMORY, "out of memory for the path of the keys and values");
    }
    bool ok = rename(f->path, aside) == 0;
    if (ok) {
        log_warn("%s %s; it is set aside as %s and a new one begun", f->path, why, aside);
    } else {
        err_set(e, ERR_IO, "%s %s, and cannot be renamed: %s", f->path, why, strerror(errno));
    }
    free(aside);
    return ok;
}

/* The old file stays locked until the new one is. */
static bool set_aside(kv_file *f, const char *why, err *e) {
    int old = f->fd;
    f->fd = -1;
    bool ok = rename_bad(f, why, e) && open_and_lock(f, e);
    close(old);
    if (ok && f->bytes > 0) {
        return err_set(e, ERR_BUSY, "%s is being made by another process", f->path);
    }
    return ok;
}

/* The limit may be lower than the last time: slots above it go, their headers first. */
static bool shorten(kv_file *f, uint64_t most, err *e) {
    static const uint8_t zeros[TABLE_BYTES];
    size_t               kept = (size_t)((f->slots - 1) % SEGMENT_SLOTS + 1) * SLOT_BYTES;
    uint64_t             at = slot_at(f, f->slots - 1) + SLOT_BYTES;
    f->bytes = most;
    return (write_at(f->fd, zeros, TABLE_BYTES - kept, at) && ftruncate(f->fd, (off_t)most) == 0) ||
           err_set(e, ERR_IO, "%s cannot be made shorter: %s", f->path, strerror(errno));
}

/* Leaves a file whose header fits. */
static bool prepare(kv_file *f, const uint8_t *header, err *e) {
    err why = {0};
    if (!open_and_lock(f, e) || (f->bytes > 0 && !header_fits(f, header, &why) && !set_aside(f, why.text, e))) {
        return false;
    }
    if (f->bytes == 0) {
        f->bytes = HEADER_BYTES;
        return write_at(f->fd, header, HEADER_BYTES, 0) ||
               err_set(e, ERR_IO, "%s cannot be written: %s", f->path, strerror(errno));
    }
    uint64_t most = payload_at(f, f->slots - 1) + f->stride;
    return f->bytes <= most || shorten(f, most, e);
}

static bool check_options(kv_file *f, const kv_disk_options *o, err *e) {
    if (!o->directory || !o->directory[0] || !o->fingerprint || !o->memory || o->pieces < 1 || o->piece_bytes < 1 ||
        o->blocks < 1) {
        return err_set(e, ERR_INTERNAL, "kv_disk_open was called without a directory, a fingerprint or blocks");
    }
    if (strlen(o->fingerprint) > HEADER_SUM_AT - FINGERPRINT_AT) {
        return err_set(e, ERR_INVALID, "the model's fingerprint is longer than %d characters",
                       HEADER_SUM_AT - FINGERPRINT_AT);
    }
    if (o->piece_bytes > (SIZE_MAX >> 24) / (size_t)o->pieces) { /* segment_bytes must not overflow */
        return err_set(e, ERR_LIMIT, "a block of %d pieces of %zu bytes is too large for a file", o->pieces,
                       o->piece_bytes);
    }
    f->payload = (size_t)o->pieces * o->piece_bytes;
    f->stride = (f->payload + PAGE - 1) / PAGE * PAGE;
    f->slots = slots_in(o->bytes < INT64_MAX ? o->bytes : INT64_MAX, f->stride); /* off_t is signed */
    return f->slots > 0 ||
           err_set(e, ERR_INVALID, "%zu bytes on disk hold no block of keys and values; the least is %zu", o->bytes,
                   HEADER_BYTES + TABLE_BYTES + f->stride);
}

bool kv_file_open(kv_file *f, const kv_disk_options *o, err *e) {
    uint8_t header[HEADER_BYTES];
    char    name[33];
    *f = (kv_file){.fd = -1};
    if (!check_options(f, o, e)) {
        return false;
    }
    make_header(o, f->stride, header);
    sha256 digest = sha256_of(header, sizeof header);
    hex_encode(digest.bytes, 16, name);
    if (asprintf(&f->path, "%s/kv-%s.pare", o->directory, name) < 0) {
        f->path = NULL;
        return err_set(e, ERR_MEMORY, "out of memory for the path of the keys and values");
    }
    return make_directory(o->directory, e) && prepare(f, header, e);
}

void kv_file_close(kv_file *f) {
    if (f->fd >= 0) {
        close(f->fd); /* gives up the lock */
    }
    free(f->path);
    *f = (kv_file){.fd = -1};
}
