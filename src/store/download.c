/* download.c - a file fetched in parts, taken up again after a break, checked, and named. */
#include "store/download.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/download_parts.h"

#define MAX_RESTARTS  3
#define FIRST_TRIES   3          /* before the server has answered at all */
#define LEFT_ON_DISK  (64 << 20) /* a body without a length ends here, lest it fill the disk */
#define TELL_EVERY_US 100000
#define READ_BYTES    (1 << 20)

static int64_t or_default(int64_t value, int64_t usual) {
    return value > 0 ? value : usual;
}

/* ---- the disk ---- */

static char *folder_of(const char *path) {
    char *copy = strdup(path);
    char *folder = copy ? strdup(dirname(copy)) : NULL;
    free(copy);
    return folder;
}

static bool free_bytes(int fd, int64_t *out) {
    struct statvfs v;
    if (fstatvfs(fd, &v) != 0) {
        return false;
    }
    *out = v.f_bavail > INT64_MAX / (v.f_frsize ? v.f_frsize : 1) ? INT64_MAX : (int64_t)(v.f_bavail * v.f_frsize);
    return true;
}

bool download_room(const download *d, err *e) {
    int64_t     room;
    struct stat at;
    if (!free_bytes(d->fd, &room) || fstat(d->fd, &at) != 0) {
        return true; /* then writing will tell */
    }
    if (d->state.size < 0) {
        return room >= LEFT_ON_DISK ||
               err_set(e, ERR_LIMIT, "The disk under %s has %.2f GB left, and the file's length is not known.",
                       d->o->path, (double)room / 1e9);
    }
    int64_t need = d->state.size - (int64_t)at.st_blocks * 512;
    return need <= room ||
           err_set(e, ERR_LIMIT,
                   "The file has %.2f GB, and the disk under %s has %.2f GB left; make room for %.2f GB more.",
                   (double)d->state.size / 1e9, d->o->path, (double)room / 1e9, (double)(need - room) / 1e9);
}

static bool no_write(const download *d, int error, err *e) {
    bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    if (full && d->ranges) {
        return err_set(
            e, ERR_LIMIT,
            "The disk under %s is full (%s) after %.1f of %.1f MB. What is there is kept: make room and pull "
            "again.",
            d->o->path, strerror(error), (double)state_done(&d->state) / 1e6, (double)d->state.size / 1e6);
    }
    return err_set(e, full ? ERR_LIMIT : ERR_IO, "%s cannot be written: %s.", d->part_path, strerror(error));
}

bool download_put(download *d, segment *s, const char *bytes, size_t n, err *e) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = pwrite(d->fd, bytes + done, n - done, (off_t)(s->at + (int64_t)done));
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return no_write(d, k == 0 ? EIO : errno, e);
        }
        done += (size_t)k;
    }
    if (s->at == d->hashed) {
        sha256_add(d->hash, bytes, n);
        d->hashed += (int64_t)n;
    }
    s->at += (int64_t)n;
    d->fetched += (int64_t)n;
    return true;
}

/* The data before the state that vouches for it. */
static void save(download *d) {
    bool worth = d->known && d->ranges && state_done(&d->state) > 0;
    if (worth && fdatasync(d->fd) == 0) {
        state_save(d->state_path, d->source, d->o->sha256, &d->state);
    }
    d->saved_us = clock_us();
}

/* ---- beginning ---- */

static bool rehash(download *d, err *e) {
    if (d->hash) {
        sha256_end(d->hash);
    }
    d->hash = sha256_begin();
    d->hashed = 0;
    return d->hash || err_set(e, ERR_MEMORY, "Out of memory.");
}

static bool start_over(download *d, err *e) {
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        transfer *t = &d->slots[i];
        int       failures = i == 0 ? t->failures : 0;
        int64_t   wait = i == 0 ? t->wait_until_us : 0;
        transfer_drop(t);
        free(t->url);
        *t = (transfer){.d = d, .failures = failures, .wait_until_us = wait};
    }
    state_begin(&d->state, d->o->size);
    d->known = d->ranges = false;
    unlink(d->state_path);
    if (ftruncate(d->fd, 0) != 0) {
        return err_set(e, ERR_IO, "%s: %s.", d->part_path, strerror(errno));
    }
    return rehash(d, e);
}

/* What a call before this one left, when it can be trusted to be of the same file. */
static bool take_up(download *d) {
    download_state s = {0};
    struct stat    at;
    if (!state_load(d->state_path, d->source, d->o->sha256, &s) || fstat(d->fd, &at) != 0) {
        return false;
    }
    for (int i = 0; i < s.n; i++) {
        if (s.segments[i].at > s.segments[i].begin && s.segments[i].at > at.st_size) {
            return false;
        }
    }
    if ((d->o->size > 0 && d->o->size != s.size) || (!s.etag[0] && !s.modified[0] && !d->o->sha256)) {
        return false;
    }
    d->state = s;
    d->known = d->ranges = true;
    return true;
}

/* One process a file. Another may give the file its name between our opening and locking it: then it is not the part
 * any more, and the next round makes a new one. */
static bool lock_part(download *d, err *e) {
    for (int round = 0; round < 10; round++) {
        struct stat mine, named;
        int         fd = open(d->part_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0) {
            return err_set(e, ERR_IO, "%s cannot be made: %s.", d->part_path, strerror(errno));
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            close(fd);
            break;
        }
        if (fstat(fd, &mine) == 0 && stat(d->part_path, &named) == 0 && mine.st_ino == named.st_ino) {
            d->fd = fd;
            return true;
        }
        close(fd);
    }
    return err_set(e, ERR_BUSY, "%s is being fetched by another process; wait for it.", d->o->path);
}

static bool open_part(download *d, err *e) {
    if (asprintf(&d->part_path, "%s.part", d->o->path) < 0 ||
        asprintf(&d->state_path, "%s.part.json", d->o->path) < 0) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    if (!lock_part(d, e)) {
        return false;
    }
    d->multi = curl_multi_init();
    if (!d->multi) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        d->slots[i].d = d;
    }
    return take_up(d) ? rehash(d, e) : start_over(d, e);
}

/* ---- the loop ---- */

static int wanted_parts(const download *d) {
    int64_t above = or_default(d->o->parallel_above, INT64_C(64) << 20);
    int64_t parts = or_default(d->o->parts, 4);
    if (!d->known || !d->ranges || d->state.size <= above) {
        return 1;
    }
    return parts < DOWNLOAD_MAX_PARTS ? (int)parts : DOWNLOAD_MAX_PARTS;
}

static bool owned(const download *d, const segment *s) {
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        if (d->slots[i].segment == s) {
            return true;
        }
    }
    return false;
}

static void hand_out(download *d) {
    int wanted = wanted_parts(d);
    state_split(&d->state, wanted, or_default(d->o->parallel_above, INT64_C(64) << 20) / 8);
    int next = 0;
    for (int i = 0; i < wanted; i++) {
        for (; !d->slots[i].segment && next < d->state.n; next++) {
            segment *s = &d->state.segments[next];
            if (s->at < s->end && !owned(d, s)) {
                d->slots[i].segment = s;
                d->slots[i].failures = i == 0 ? d->slots[i].failures : 0;
            }
        }
    }
}

static bool start_due(download *d, err *e) {
    int64_t now = clock_us();
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        transfer *t = &d->slots[i];
        if (t->segment && !t->easy && t->wait_until_us <= now && !transfer_start(t, e)) {
            return false;
        }
    }
    return true;
}

static bool again(download *d, transfer *t, err *e) {
    int64_t most = or_default(d->o->retries, 8);
    most = d->known || most < FIRST_TRIES ? most : FIRST_TRIES;
    if (t->failures > most) {
        *e = t->why;
        return false;
    }
    /* Without ranges a broken stream cannot be taken up where it broke. */
    return d->ranges || start_over(d, e);
}

static bool settle(download *d, transfer *t, CURLcode code, err *e) {
    switch (transfer_end(t, code)) {
    case VERDICT_TAKE:
        t->segment = NULL;
        return true;
    case VERDICT_SAME:
        d->same = true;
        return true;
    case VERDICT_AGAIN:
        return again(d, t, e);
    case VERDICT_CHANGED:
        if (d->restarts++ == MAX_RESTARTS) {
            *e = t->why;
            return false;
        }
        return start_over(d, e);
    case VERDICT_NO_RANGE:
        d->no_ranges = true;
        return start_over(d, e);
    case VERDICT_REDIRECT:
        return true; /* started again at once, there */
    default:
        *e = t->why;
        return false;
    }
}

static bool finished_transfers(download *d, err *e) {
    CURLMsg *m;
    int      left;
    /* One at a time: settling may drop all transfers, and with them the messages that wait. */
    while ((m = curl_multi_info_read(d->multi, &left))) {
        transfer *t = NULL;
        CURLcode  code = m->data.result;
        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        if (!settle(d, t, code, e)) {
            return false;
        }
    }
    return true;
}

static bool tell(download *d, bool verifying, int64_t done, err *e) {
    int64_t now = clock_us();
    if (!d->o->progress || now - d->told_us < TELL_EVERY_US) {
        return true;
    }
    download_progress p = {.verifying = verifying, .done = done, .total = d->state.size};
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        p.connections += d->slots[i].easy != NULL;
    }
    d->told_us = now;
    return d->o->progress(d->o->ctx, &p) || err_set(e, ERR_CANCELLED, "Stopped.");
}

static bool look_after(download *d, err *e) {
    if (clock_us() - d->saved_us >= or_default(d->o->save_us, 1000000)) {
        save(d);
        if (d->known && d->state.size < 0 && !download_room(d, e)) {
            return false;
        }
    }
    return tell(d, false, state_done(&d->state), e);
}

static int pause_ms(const download *d) {
    int64_t now = clock_us(), wait = 100000;
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        const transfer *t = &d->slots[i];
        if (t->segment && !t->easy && t->wait_until_us - now < wait) {
            wait = t->wait_until_us > now ? t->wait_until_us - now : 0;
        }
    }
    return (int)(wait / 1000) + (wait % 1000 != 0);
}

static bool fetch(download *d, err *e) {
    d->saved_us = clock_us();
    while (!state_complete(&d->state)) {
        int running;
        hand_out(d);
        if (!start_due(d, e)) {
            return false;
        }
        CURLMcode code = curl_multi_perform(d->multi, &running);
        if (code != CURLM_OK) {
            return err_set(e, ERR_INTERNAL, "The HTTP client failed: %s.", curl_multi_strerror(code));
        }
        if (!finished_transfers(d, e)) {
            return false;
        }
        if (d->same) {
            return true;
        }
        if (!look_after(d, e)) {
            return false;
        }
        curl_multi_poll(d->multi, NULL, 0, pause_ms(d), NULL);
    }
    return true;
}

/* ---- the end ---- */

static bool hash_rest(download *d, err *e) {
    char *bytes = malloc(READ_BYTES);
    bool  ok = bytes || err_set(e, ERR_MEMORY, "Out of memory.");
    while (ok && d->hashed < d->state.size) {
        int64_t left = d->state.size - d->hashed;
        ssize_t n = pread(d->fd, bytes, left < READ_BYTES ? (size_t)left : READ_BYTES, (off_t)d->hashed);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            ok = err_set(e, ERR_IO, "%s cannot be read back: %s.", d->part_path, n < 0 ? strerror(errno) : "too short");
            break;
        }
        sha256_add(d->hash, bytes, (size_t)n);
        d->hashed += n;
        ok = tell(d, true, d->hashed, e);
    }
    free(bytes);
    return ok;
}

static bool right_digest(download *d, download_result *out, err *e) {
    sha256 digest = sha256_end(d->hash);
    d->hash = NULL;
    hex_encode(digest.bytes, sizeof digest.bytes, out->sha256);
    if (!d->o->sha256 || strcasecmp(d->o->sha256, out->sha256) == 0) {
        return true;
    }
    download_forget(d->o->path); /* which bytes are wrong is not known, so none of them is of use */
    return err_set(
        e, ERR_INVALID,
        "The file's SHA-256 is %s, it should be %.64s: it came damaged, or it is another file. It was thrown "
        "away; pull again.",
        out->sha256, d->o->sha256);
}

/* The first bytes once more, from the disk: a resumed download did not see them come. */
static bool right_start(download *d, err *e) {
    char   start[16];
    size_t n = d->o->magic ? strlen(d->o->magic) : 0;
    if (n == 0 ||
        (n <= sizeof start && pread(d->fd, start, n, 0) == (ssize_t)n && memcmp(start, d->o->magic, n) == 0)) {
        return true;
    }
    download_forget(d->o->path);
    return err_set(e, ERR_INVALID, "%s is not a %s file; it was thrown away.", d->o->path, d->o->magic);
}

static bool sync_folder(const char *path) {
    char *folder = folder_of(path);
    int   fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool  ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    free(folder);
    return ok;
}

static bool finish(download *d, download_result *out, err *e) {
    const download_options *o = d->o;
    save(d);
    if (!right_start(d, e) || !hash_rest(d, e) || !right_digest(d, out, e)) {
        return false;
    }
    if (o->check && !o->check(o->ctx, d->part_path, o->sha256 != NULL, e)) {
        download_forget(o->path);
        return false;
    }
    out->size = d->state.size;
    snprintf(out->etag, sizeof out->etag, "%s", d->state.etag);
    if (fsync(d->fd) != 0 || rename(d->part_path, o->path) != 0) {
        return err_set(e, ERR_IO, "%s cannot be given its name: %s.", o->path, strerror(errno));
    }
    unlink(d->state_path);
    return sync_folder(o->path) ||
           err_set(e, ERR_IO, "The folder of %s cannot be synced: %s.", o->path, strerror(errno));
}

static void close_download(download *d) {
    for (int i = 0; i < DOWNLOAD_MAX_PARTS; i++) {
        transfer_drop(&d->slots[i]);
        free(d->slots[i].url);
    }
    if (d->multi) {
        curl_multi_cleanup(d->multi);
    }
    if (d->fd >= 0) {
        close(d->fd);
    }
    if (d->hash) {
        sha256_end(d->hash);
    }
    free(d->part_path);
    free(d->state_path);
}

/* What can be taken up again is kept; the rest is not left lying about. */
static void leave(download *d) {
    bool validated = d->state.etag[0] || d->state.modified[0] || d->o->sha256;
    bool there = access(d->part_path, F_OK) == 0;
    if (there && !d->same && d->known && d->ranges && validated && state_done(&d->state) > 0) {
        save(d);
    } else {
        download_forget(d->o->path);
    }
}

void download_forget(const char *path) {
    static const char *const ends[] = {".part", ".part.json", ".part.json.new"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *name = NULL;
        if (asprintf(&name, "%s%s", path, ends[i]) >= 0) {
            unlink(name);
            free(name);
        }
    }
}

static bool right_options(const download_options *o, err *e) {
    uint8_t digest[32];
    if (!url_plain_or_tls(o->url)) {
        return err_set(e, ERR_INVALID, "\"%.200s\" is not an http or https address.", o->url);
    }
    return !o->sha256 || hex_decode(o->sha256, digest, sizeof digest) ||
           err_set(e, ERR_INVALID, "A SHA-256 has 64 hex digits; \"%.80s\" is none.", o->sha256);
}

bool download_file(const download_options *o, download_result *out, err *e) {
    char source[512];
    *out = (download_result){0};
    if (!right_options(o, e)) {
        return false;
    }
    url_shown(o->url, source, sizeof source);
    download d = {.o = o, .fd = -1, .source = o->source ? o->source : source};
    bool     ok = open_part(&d, e);
    out->resumed = ok ? state_done(&d.state) : 0;
    ok = ok && (!d.known || download_room(&d, e)) && fetch(&d, e);
    out->fetched = d.fetched;
    if (ok && d.same) {
        out->unchanged = true;
        out->size = o->have_size;
    } else if (ok) {
        ok = finish(&d, out, e);
    }
    if (d.fd >= 0 && (!ok || d.same)) {
        leave(&d);
    }
    close_download(&d);
    return ok;
}
