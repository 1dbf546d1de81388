/* Blocks at rest: they come back as they were or not at all, whoever else comes and whenever the process is killed. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "engine/kv_disk_bed.h"

static void test_comes_back(void **state) {
    bed        *b = *state;
    struct stat at;
    open_bed(b);
    assert_false(has(b, 0));
    assert_false(read_block(b, 0, 0));
    write_blocks(b, 0, 5);
    for (int round = 0; round < 2; round++) {
        for (int id = 0; id < 5; id++) {
            assert_true(has(b, id));
            assert_true(read_block(b, id, 7 - id)); /* into other blocks than they came from */
        }
        assert_false(has(b, 5));
        kv_disk_usage u = kv_disk_usage_read(b->d);
        assert_int_equal(u.slots, 8);
        assert_int_equal(u.used, 5);
        assert_int_equal(u.written, round ? 0 : 5);
        assert_int_equal(u.read, 5);
        assert_int_equal(u.bad, 0);
        assert_int_equal(u.bytes, HEADER + TABLE + 4 * STRIDE + PAYLOAD);
        close_bed(b);
        open_bed(b);
    }
    for (int p = 0; p < PIECES; p++) {
        for (int i = BLOCKS * PIECE; i < STEP; i++) {
            assert_int_equal(b->o.memory[p * STEP + i], GAP);
        }
    }
    find_file(b);
    assert_int_equal(stat(b->path, &at), 0);
    assert_int_equal(at.st_mode & 0777, 0600);
    assert_int_equal(at.st_size, kv_disk_usage_read(b->d).bytes);
    assert_int_equal(stat(b->inner, &at), 0);
    assert_int_equal(at.st_mode & 0777, 0700);
}

/* The bytes are where the description says. */
static void test_format(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 2);
    close_bed(b);
    find_file(b);
    image       m = load(b->path);
    const char *fingerprint = b->o.fingerprint;
    assert_memory_equal(m.data, "pareKV\r\n\1\0\0\0\3\0\0\0", 16);
    assert_int_equal(u64_at(m.data + 16), PIECE);
    assert_int_equal(u64_at(m.data + 24), STRIDE);
    assert_int_equal(m.data[32], strlen(fingerprint));
    assert_memory_equal(m.data + 36, fingerprint, strlen(fingerprint) + 1);
    assert_int_equal(u64_at(m.data + HEADER - 8), hash64(m.data, HEADER - 8, SEED));
    for (int id = 0; id < 2; id++) {
        const uint8_t *h = m.data + HEADER + id * SLOT, *payload = m.data + HEADER + TABLE + id * STRIDE;
        kv_disk_key    key = key_of(id);
        assert_memory_equal(h, key.bytes, 32);
        assert_int_equal(u64_at(h + 32), PAYLOAD);
        assert_int_equal(u64_at(h + 40), hash64(payload, PAYLOAD, SEED));
        assert_int_equal(u64_at(h + 48), id + 1);
        assert_int_equal(u64_at(h + 56), hash64(h, 56, SEED + (uint64_t)id));
        for (int p = 0; p < PIECES; p++) {
            assert_memory_equal(payload + p * PIECE, piece_of(&b->o, id, p), PIECE);
        }
    }
    sha256 digest = sha256_of(m.data, HEADER);
    char   name[64], hex[33];
    hex_encode(digest.bytes, 16, hex);
    snprintf(name, sizeof name, "/kv-%s.pare", hex);
    assert_string_equal(b->path + strlen(b->inner), name);
    free(m.data);
}

static void test_same_key_is_written_once(void **state) {
    bed *b = *state;
    open_bed(b);
    for (int i = 0; i < 3; i++) {
        assert_true(write_block(b, 1));
    }
    kv_disk_usage u = kv_disk_usage_read(b->d);
    assert_int_equal(u.used, 1);
    assert_int_equal(u.written, 1);
}

static void test_least_recently_used_goes(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 8);
    assert_true(has(b, 0));
    assert_true(read_block(b, 1, 1));
    assert_true(write_block(b, 2)); /* there already: that is a use */
    write_blocks(b, 8, 9);          /* 3 goes */
    close_bed(b);
    open_bed(b);
    write_blocks(b, 9, 12); /* 4, 5 and 6: the order outlives a restart */
    static const int left[] = {0, 1, 2, 7, 8, 9, 10, 11};
    for (int i = 0; i < 8; i++) {
        assert_true(read_block(b, left[i], i));
    }
    for (int id = 3; id < 7; id++) {
        assert_false(has(b, id));
        assert_false(read_block(b, id, 0));
    }
    kv_disk_usage u = kv_disk_usage_read(b->d);
    assert_int_equal(u.used, 8);
    assert_int_equal(u.bytes, HEADER + TABLE + 7 * STRIDE + PAYLOAD);
}

/* The limit may change between two runs; more than one table's slots. */
static void test_limit_changes(void **state) {
    bed *b = *state;
    b->o.bytes = HEADER + TABLE + (size_t)1024 * STRIDE + TABLE + (size_t)40 * STRIDE + 77;
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).slots, 1064);
    write_blocks(b, 0, 1064);
    close_bed(b);
    open_bed(b);
    assert_int_equal(count_read(b, 0, 1064), 1064);
    close_bed(b);
    b->o.bytes = HEADER + TABLE + (size_t)1024 * STRIDE + TABLE; /* a table without slots is none */
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).slots, 1024);
    assert_int_equal(count_read(b, 0, 1064), 1024);
    close_bed(b);
    b->o.bytes = bytes_for(5);
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).slots, 5);
    assert_int_equal(count_read(b, 0, 5), 5);
    assert_false(has(b, 5));
    assert_true(kv_disk_usage_read(b->d).bytes <= (int64_t)b->o.bytes);
    close_bed(b);
    b->o.bytes = bytes_for(7);
    open_bed(b);
    write_blocks(b, 2000, 2002); /* the two new ones: nothing goes */
    assert_int_equal(count_read(b, 0, 5), 5);
    assert_int_equal(kv_disk_usage_read(b->d).bad, 0);
}

static void test_other_models_have_other_files(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 4);
    close_bed(b);
    kv_disk_options first = b->o;
    for (int i = 0; i < 3; i++) {
        b->o = first;
        b->o.fingerprint = i == 0 ? "model-a f1" : first.fingerprint;
        b->o.piece_bytes = i == 1 ? PIECE - 8 : first.piece_bytes;
        b->o.pieces = i == 2 ? PIECES - 1 : first.pieces;
        open_bed(b);
        assert_false(has(b, 0));
        close_bed(b);
    }
    b->o = first;
    open_bed(b);
    assert_int_equal(count_read(b, 0, 4), 4);
}

/* ---- who may open what ---- */

static void refused(bed *b, err_code code, const char *sentence) {
    err e = {0};
    assert_null(kv_disk_open(&b->o, &e));
    assert_int_equal(e.code, code);
    assert_says(e, sentence);
}

static void test_refuses(void **state) {
    bed            *b = *state;
    kv_disk_options good = b->o;
    b->o.bytes = bytes_for(1) - 1;
    refused(b, ERR_INVALID, "hold no block");
    b->o.bytes = 0;
    refused(b, ERR_INVALID, "hold no block");
    b->o = good;
    b->o.piece_bytes = SIZE_MAX / 2;
    refused(b, ERR_LIMIT, "too large");
    b->o = good;
    char long_text[4096];
    memset(long_text, 'x', 4053);
    long_text[4053] = '\0';
    b->o.fingerprint = long_text;
    refused(b, ERR_INVALID, "fingerprint");
    b->o = good;
    open_bed(b);
    close_bed(b);
    find_file(b);
    b->o.directory = b->path; /* a file */
    refused(b, ERR_IO, "Not a directory");
    b->o = good;
    unlink(b->path);
    assert_int_equal(mkfifo(b->path, 0600), 0);
    refused(b, ERR_INVALID, "not a plain file");
    unlink(b->path);
    assert_int_equal(symlink("/dev/null", b->path), 0);
    refused(b, ERR_IO, "cannot be opened");
    unlink(b->path);
    assert_int_equal(mkdir(b->path, 0700), 0);
    refused(b, ERR_IO, "cannot be opened");
}

static void test_one_at_a_time(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 2);
    refused(b, ERR_BUSY, "in use by another engine");
    pid_t child = fork();
    if (child == 0) {
        err e = {0};
        _exit(!kv_disk_open(&b->o, &e) && e.code == ERR_BUSY ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(read_block(b, 1, 0)); /* the first one is not disturbed */
    close_bed(b);
    open_bed(b);
    assert_int_equal(count_read(b, 0, 2), 2);
}

static void test_mode_is_mended(void **state) {
    bed        *b = *state;
    struct stat at;
    open_bed(b);
    close_bed(b);
    find_file(b);
    assert_int_equal(chmod(b->path, 0644), 0);
    open_bed(b);
    assert_int_equal(stat(b->path, &at), 0);
    assert_int_equal(at.st_mode & 0777, 0600);
}

/* ---- a full disk ---- */

/* A limit for the size of files stands for a full disk: the same calls fail, with EFBIG in place of ENOSPC. */
static void test_full_disk(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 4);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = HEADER + TABLE + 4 * STRIDE + 1000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    bool fifth = write_block(b, 4);
    bool present = has(b, 4);
    bool sixth = write_block(b, 5); /* in the place of 0, which has its space already */
    bool seventh = write_block(b, 6);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(fifth);
    assert_false(present);
    assert_true(sixth);
    assert_true(seventh);
    assert_int_equal(kv_disk_usage_read(b->d).used, 4);
    assert_false(has(b, 0));
    assert_false(has(b, 1));
    assert_int_equal(count_read(b, 2, 7), 4);
    usleep(1100 * 1000); /* the disk has room again: the pause is one second */
    write_blocks(b, 7, 9);
    assert_int_equal(kv_disk_usage_read(b->d).used, 6);
    close_bed(b);
    open_bed(b);
    assert_int_equal(count_read(b, 0, 9), 6);
    assert_int_equal(kv_disk_usage_read(b->d).bad, 0);
}

/* ---- many jobs ---- */

static atomic_int woken;

static void on_wake(void *arg) {
    assert_ptr_equal(arg, &woken);
    atomic_fetch_add(&woken, 1);
}

typedef struct watcher {
    kv_disk    *d;
    atomic_bool stop;
    bool        sane;
} watcher;

static void *watch(void *arg) {
    watcher *w = arg;
    w->sane = true;
    while (!atomic_load(&w->stop)) {
        kv_disk_usage u = kv_disk_usage_read(w->d);
        w->sane = w->sane && u.used <= u.slots && u.bad == 0;
        usleep(100);
    }
    return NULL;
}

static void test_many_jobs(void **state) {
    enum { JOBS = 3000, KEYS = 20 };
    bed        *b = *state;
    kv_disk_job jobs[BLOCKS];
    int         ids[BLOCKS], put = 0, back = 0, hits = 0;
    uint64_t    random = 3;
    b->o.wake = on_wake;
    b->o.wake_arg = &woken;
    atomic_store(&woken, 0);
    open_bed(b);
    watcher   w = {.d = b->d};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
    for (; put < BLOCKS; put++) { /* every block has one job under way at any time */
        ids[put] = put;
        fill(&b->o, put, ids[put]);
        jobs[put] = (kv_disk_job){.key = key_of(ids[put]), .block = put, .write = true};
        kv_disk_put(b->d, &jobs[put]);
    }
    while (back < put) {
        for (kv_disk_job *job = kv_disk_take(b->d), *next; job; job = next) {
            next = job->next;
            int block = job->block;
            assert_ptr_equal(job, &jobs[block]);
            assert_true(job->ok || !job->write);
            if (job->ok && !holds(&b->o, block, ids[block])) {
                fail_msg("block %d came back wrong", ids[block]);
            }
            hits += job->ok && !job->write;
            back++;
            if (put < JOBS) {
                ids[block] = (int)(test_random(&random) % KEYS);
                job->key = key_of(ids[block]);
                job->write = !kv_disk_has(b->d, &job->key);
                if (job->write) {
                    fill(&b->o, block, ids[block]);
                }
                kv_disk_put(b->d, job);
                put++;
            }
        }
        usleep(10);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_true(w.sane);
    close_bed(b); /* the last wake may come after the last job was taken */
    assert_int_equal(back, JOBS);
    assert_int_equal(atomic_load(&woken), JOBS);
    assert_true(hits > JOBS / 10);
}

static void test_close_with_jobs(void **state) {
    bed        *b = *state;
    kv_disk_job writes[BLOCKS], reads[BLOCKS];
    open_bed(b);
    for (int i = 0; i < BLOCKS; i++) {
        fill(&b->o, i, i);
        writes[i] = (kv_disk_job){.key = key_of(i), .block = i, .write = true};
        reads[i] = (kv_disk_job){.key = key_of(i), .block = i};
        kv_disk_put(b->d, &writes[i]);
    }
    for (int i = 0; i < BLOCKS; i++) {
        kv_disk_put(b->d, &reads[i]);
    }
    close_bed(b);
    for (int i = 0; i < BLOCKS; i++) {
        assert_true(writes[i].ok);
        assert_true(holds(&b->o, i, i));
    }
    open_bed(b);
    assert_int_equal(count_read(b, 0, BLOCKS), BLOCKS);
}

static void test_bad_block_number(void **state) {
    bed *b = *state;
    open_bed(b);
    assert_false(run(b->d, 1, BLOCKS, true));
    assert_false(run(b->d, 1, -1, true));
    assert_false(has(b, 1));
}

/* ---- kill -9 ---- */

enum { KILL_SLOTS = 10, KILL_PIECES = 8, KILL_PIECE = 20000 };

/* Writes blocks from `id` on until it is killed, and tells each that is done. */
static void write_forever(bed *b, int id, int out) {
    b->d = kv_disk_open(&b->o, NULL);
    while (b->d) {
        if (!write_block(b, id) || write(out, &id, sizeof id) != sizeof id) {
            break;
        }
        id++;
    }
    _exit(1);
}

/* Everything that was written is there, but for the oldest, whose slot was perhaps being written. Returns the last. */
static int check_after_kill(bed *b, int told) {
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).bad, 0);
    int last = told + 1; /* done, and killed before it was told */
    while (last >= 0 && !has(b, last)) {
        last--;
    }
    assert_true(last >= told);
    int first = last < KILL_SLOTS ? 0 : last - KILL_SLOTS + 1;
    for (int id = first; id <= last; id++) { /* the oldest first, which keeps the order of use */
        assert_true(read_block(b, id, 0) || id == last - KILL_SLOTS + 1);
    }
    assert_false(has(b, last + 1));
    assert_int_equal(kv_disk_usage_read(b->d).bad, 0); /* a half written slot is empty, not damaged */
    close_bed(b);
    return last;
}

static void test_kill(void **state) {
    bed     *b = *state;
    uint64_t random = 4;
    int      last = -1;
    b->o.pieces = KILL_PIECES;
    b->o.piece_bytes = KILL_PIECE;
    b->o.piece_step = KILL_PIECE * BLOCKS;
    free(b->o.memory);
    b->o.memory = malloc(KILL_PIECES * KILL_PIECE * BLOCKS);
    assert_non_null(b->o.memory);
    b->o.bytes = HEADER + TABLE + (size_t)KILL_SLOTS * 163840; /* 160000 in whole pages */
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).slots, KILL_SLOTS);
    close_bed(b);
    for (int round = 0; round < 40; round++) {
        int ends[2], told = last, id;
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            write_forever(b, last + 1, ends[1]);
        }
        close(ends[1]);
        if (round % 4) { /* a random moment after some blocks: while the next one is written, mostly */
            for (int wait = 1 + (int)(test_random(&random) % 3); wait; wait--) {
                assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
                told = id;
            }
            usleep((useconds_t)(test_random(&random) % 1000));
        } else { /* any moment, the opening's too */
            usleep((useconds_t)(test_random(&random) % 5000));
        }
        kill(child, SIGKILL);
        while (read(ends[0], &id, sizeof id) == sizeof id) {
            told = id;
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(ends[0]);
        last = check_after_kill(b, told);
    }
    assert_true(last >= 30 - 1); /* at least one block in each round that waited */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_format, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_same_key_is_written_once, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_least_recently_used_goes, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_limit_changes, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_other_models_have_other_files, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_refuses, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_one_at_a_time, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_mode_is_mended, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_full_disk, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_many_jobs, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_close_with_jobs, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_bad_block_number, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_kill, make_bed, remove_bed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
