/* The cache with a disk: what comes back after a restart, what is damaged, and who waits for what is being read. */
#include "engine/kv_bed.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const kv_scope *house = &bed_scopes[0], *other = &bed_scopes[1];

enum { DISK_BYTES = 8 << 20, SMALL_DISK = 1 << 20 }; /* some 300 and 40 blocks */

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/pare-test-spill-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

/* The only file in it; "" when there is none. */
static void file_in_directory(char *path, size_t n) {
    DIR *d = opendir(directory);
    assert_non_null(d);
    path[0] = '\0';
    for (struct dirent *f = readdir(d); f; f = readdir(d)) {
        if (f->d_name[0] != '.') {
            assert_true((size_t)snprintf(path, n, "%s/%s", directory, f->d_name) < n);
        }
    }
    closedir(d);
}

static int remove_directory(void **state) {
    (void)state;
    char path[512];
    for (file_in_directory(path, sizeof(path)); path[0]; file_in_directory(path, sizeof(path))) {
        if (unlink(path) != 0) {
            return -1;
        }
    }
    return rmdir(directory);
}

static kv_cache *open_cache(int sequences, int context, int blocks) {
    return bed_open_disk(KV_F32, sequences, context, blocks, directory, DISK_BYTES);
}

static void wait_for(kv_cache *kv, int sequence) {
    for (int i = 0; kv_loading(kv, sequence); i++) {
        bed_check(kv);
        usleep(200);
        assert_true(i < 50000);
    }
    bed_check(kv);
}

static kv_match begin(kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int n) {
    kv_begin(kv, sequence, *scope, tokens, n, true);
    wait_for(kv, sequence);
    return kv_found(kv, sequence);
}

/* Leaves these tokens on disk. */
static void store(const int32_t *tokens, int n) {
    kv_cache *kv = open_cache(1, n, (n + 15) / 16);
    bed_run(kv, 0, house, tokens, n);
    kv_release(kv, 0);
    kv_close(kv);
}

static void test_restart(void **state) {
    (void)state;
    int32_t tokens[100];
    bed_fill(tokens, 100, 7);
    store(tokens, 100);
    kv_cache *kv = open_cache(2, 128, 20);
    kv_begin(kv, 0, *house, tokens, 100, true);
    assert_true(kv_loading(kv, 0) || kv_found(kv, 0).tokens); /* asynchronous */
    wait_for(kv, 0);
    kv_match found = kv_found(kv, 0);
    assert_int_equal(found.tokens, 96);
    assert_int_equal(found.from_disk, 96);
    assert_int_equal(found.miss, KV_MISS_NONE); /* the last tokens were no whole block */
    bed_verify(kv, 0, house, tokens, 96);
    bed_compute(kv, 0, house, tokens, 96, 100);
    bed_verify(kv, 0, house, tokens, 100);
    kv_usage u = kv_usage_read(kv);
    assert_int_equal(u.disk_read, 6);
    assert_int_equal(u.disk_hit_tokens, 96);
    assert_int_equal(u.hit_tokens, 96);
    assert_int_equal(u.disk_bad, 0);
    assert_true(u.disk_bytes > 0);
    /* Now it is in memory, and not written again. */
    found = begin(kv, 1, house, tokens, 96);
    assert_int_equal(found.tokens, 95); /* with a part of the block from disk, copied */
    assert_int_equal(found.from_disk, 0);
    assert_int_equal(found.miss, KV_MISS_NONE);
    kv_release(kv, 1);
    kv_release(kv, 0);
    assert_int_equal(kv_usage_read(kv).disk_written, 0);
    kv_close(kv);
}

static void test_part_in_memory_part_on_disk(void **state) {
    (void)state;
    int32_t tokens[100], head[50];
    bed_fill(tokens, 100, 7);
    bed_fill(head, 50, 7);
    store(tokens, 100);
    kv_cache *kv = open_cache(2, 128, 20);
    assert_int_equal(begin(kv, 0, house, head, 50).tokens, 48);
    kv_match found = begin(kv, 1, house, tokens, 100);
    assert_int_equal(found.tokens, 96);
    assert_int_equal(found.from_disk, 48);
    assert_memory_equal(kv_table(kv, 0), kv_table(kv, 1), 3 * sizeof(int32_t));
    bed_verify(kv, 1, house, tokens, 96);
    kv_close(kv);
}

static void test_what_is_not_there(void **state) {
    (void)state;
    int32_t tokens[100];
    bed_fill(tokens, 100, 7);
    store(tokens, 100);
    kv_cache *kv = open_cache(1, 128, 20);
    kv_match  found = begin(kv, 0, other, tokens, 100);
    assert_int_equal(found.tokens, 0);
    assert_int_equal(found.miss, KV_MISS_NEW);
    kv_begin(kv, 0, *house, tokens, 100, false);
    assert_false(kv_loading(kv, 0));
    assert_int_equal(kv_found(kv, 0).tokens, 0);
    tokens[20] = 1;
    found = begin(kv, 0, house, tokens, 100);
    assert_int_equal(found.tokens, 16);
    kv_close(kv);
    /* The same model with other blocks. */
    kv = bed_open_disk(KV_F16, 1, 128, 20, directory, DISK_BYTES);
    assert_int_equal(begin(kv, 0, house, tokens, 100).tokens, 0);
    kv_close(kv);
}

static void damage(const char *sought, size_t n) {
    char        path[512];
    struct stat st;
    file_in_directory(path, sizeof(path));
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    char *all = malloc((size_t)st.st_size);
    assert_non_null(all);
    assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    char *at = memmem(all, (size_t)st.st_size, sought, n);
    assert_non_null(at);
    char wrong = (char)(at[0] ^ 1);
    assert_int_equal(pwrite(fd, &wrong, 1, at - all), 1);
    free(all);
    close(fd);
}

static void test_damaged_block(void **state) {
    (void)state;
    int32_t   tokens[100];
    char      fourth[256];
    kv_cache *kv = open_cache(1, 128, 20);
    bed_fill(tokens, 100, 7);
    bed_run(kv, 0, house, tokens, 100);
    kv_view view = kv_head(kv, 1, 0);
    memcpy(fourth, view.blocks + (size_t)kv_table(kv, 0)[3] * view.block_bytes, sizeof(fourth));
    kv_release(kv, 0);
    kv_close(kv);
    damage(fourth, sizeof(fourth));

    kv = open_cache(1, 128, 20);
    kv_match found = begin(kv, 0, house, tokens, 100);
    assert_int_equal(found.tokens, 48);
    assert_int_equal(found.from_disk, 48);
    bed_verify(kv, 0, house, tokens, 48);
    assert_int_equal(kv_usage_read(kv).disk_bad, 1);
    assert_int_equal(kv_usage_read(kv).held, 3);
    bed_compute(kv, 0, house, tokens, 48, 100);
    kv_release(kv, 0);
    kv_close(kv);
    kv = open_cache(1, 128, 20); /* it was written again */
    assert_int_equal(begin(kv, 0, house, tokens, 100).tokens, 96);
    bed_verify(kv, 0, house, tokens, 96);
    kv_close(kv);
}

/* Sequences that begin together read what they share once, also where one goes on further. */
static void test_read_once(void **state) {
    (void)state;
    enum { N = 4 };
    int32_t tokens[N][200];
    for (int i = 0; i < N; i++) {
        bed_fill(tokens[i], 200, 7);
    }
    store(tokens[0], 200);
    kv_cache *kv = open_cache(N, 208, 60);
    for (int i = 0; i < N; i++) {
        kv_begin(kv, i, *house, tokens[i], i % 2 ? 200 : 100, true);
    }
    for (int i = N - 1; i >= 0; i--) {
        wait_for(kv, 0);
        wait_for(kv, i);
        assert_int_equal(kv_found(kv, i).tokens, i % 2 ? 192 : 96);
    }
    assert_int_equal(kv_usage_read(kv).disk_read, 12);
    assert_int_equal(kv_usage_read(kv).disk_hit_tokens, 192);
    for (int i = 0; i < N; i++) {
        bed_verify(kv, i, house, tokens[i], kv_found(kv, i).tokens);
    }
    kv_close(kv);
}

static void test_release_while_loading(void **state) {
    (void)state;
    enum { N = 300 };
    static int32_t tokens[N];
    bed_fill(tokens, N, 7);
    store(tokens, N);
    kv_cache *kv = open_cache(2, N, 19);
    for (int round = 0; round < 50; round++) {
        kv_begin(kv, round % 2, *house, tokens, N, true);
        bed_check(kv);
        kv_release(kv, round % 2);
        bed_check(kv);
    }
    kv_begin(kv, 1, *other, tokens, N, true);
    assert_true(kv_reserve(kv, 1, N)); /* takes back what is still being read: all blocks of the cache */
    bed_check(kv);
    kv_release(kv, 1);
    kv_match found = begin(kv, 0, house, tokens, N);
    bed_verify(kv, 0, house, tokens, found.tokens);
    kv_close(kv);
}

static void test_close_while_loading(void **state) {
    (void)state;
    int32_t tokens[100];
    bed_fill(tokens, 100, 7);
    store(tokens, 100);
    for (int i = 0; i < 20; i++) {
        kv_cache *kv = open_cache(2, 128, 20);
        kv_begin(kv, 0, *house, tokens, 100, true);
        kv_begin(kv, 1, *house, tokens, 90, true);
        kv_close(kv);
    }
    kv_cache *kv = open_cache(1, 128, 20);
    assert_int_equal(begin(kv, 0, house, tokens, 100).tokens, 96);
    bed_verify(kv, 0, house, tokens, 96);
    kv_close(kv);
}

/* More blocks at once than may be on their way: none is forgotten. */
static void test_many_at_once(void **state) {
    (void)state;
    enum { N = 2400 };
    static int32_t tokens[N];
    bed_fill(tokens, N, 7);
    store(tokens, N);
    kv_cache *kv = open_cache(1, N, 150);
    assert_int_equal(begin(kv, 0, house, tokens, N).tokens, N - 16);
    bed_verify(kv, 0, house, tokens, N - 16);
    kv_close(kv);
}

/* What is being written is nobody's, and yet one sequence always has room for its full length. */
static void test_room_while_writing(void **state) {
    (void)state;
    int32_t   tokens[128];
    kv_cache *kv = open_cache(1, 128, 8);
    for (int i = 0; i < 200; i++) {
        bed_fill(tokens, 128, 1000 * i);
        bed_run(kv, 0, house, tokens, 128);
        kv_release(kv, 0);
        bed_check(kv);
    }
    kv_close(kv);
}

static void test_one_cache_a_directory(void **state) {
    (void)state;
    kv_cache  *kv = open_cache(1, 128, 8);
    kv_options o = {.type = KV_F32, .sequences = 1, .context = 128, .disk = directory, .model = "test"};
    err        e = {0};
    assert_null(kv_open(&bed_shape, &o, &e));
    assert_says(e, "in use");
    o.model = NULL;
    assert_null(kv_open(&bed_shape, &o, &e));
    assert_says(e, "fingerprint");
    char long_name[3000];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    o.model = long_name;
    assert_null(kv_open(&bed_shape, &o, &e));
    assert_says(e, "2999 characters");
    kv_close(kv);
}

/* Random use of a cache and a disk that are both too small, through restarts: whatever is found is right. */
typedef struct run {
    bool            begun, loading;
    int             n, at;
    int32_t         tokens[100];
    const kv_scope *scope;
} run;

static void random_step(kv_cache *kv, run *r, int i, uint64_t *seed) {
    int what = (int)(test_random(seed) % 8);
    if (!r->begun) {
        *r = (run){.begun = true, .loading = true, .n = 1 + (int)(test_random(seed) % 96)};
        r->scope = &bed_scopes[test_random(seed) % 2];
        int text = (int)(test_random(seed) % 6), shared = (int)(test_random(seed) % 100);
        for (int p = 0; p < 100; p++) {
            r->tokens[p] = p < shared ? text : (int32_t)(test_random(seed) % 2) + 10;
        }
        kv_begin(kv, i, *r->scope, r->tokens, r->n, test_random(seed) % 10 != 0);
    } else if (r->loading && what) {
        r->loading = kv_loading(kv, i);
        r->at = kv_found(kv, i).tokens;
    } else if (what == 0 || r->at == 100) {
        kv_release(kv, i);
        r->begun = false;
    } else if (what == 1) {
        r->at = kv_advance(kv, i, r->at);
    } else {
        int to = r->at + 1 + (int)(test_random(seed) % 40);
        to = to > 100 ? 100 : to;
        if (kv_reserve(kv, i, to)) {
            bed_write(kv, i, r->scope, r->tokens, r->at, to);
            kv_commit(kv, i, to);
            r->at = to;
        }
    }
}

static void test_random_use(void **state) {
    (void)state;
    enum { SEQUENCES = 3, STEPS = 700, RESTARTS = 8 };
    uint64_t seed = 5;
    int64_t  from_disk = 0, evicted = 0;
    for (int restart = 0; restart < RESTARTS; restart++) {
        kv_cache *kv = bed_open_disk(KV_F32, SEQUENCES, 100, 14, directory, SMALL_DISK);
        run       runs[SEQUENCES] = {0};
        for (int step = 0; step < STEPS; step++) {
            int i = (int)(test_random(&seed) % SEQUENCES);
            random_step(kv, &runs[i], i, &seed);
            bed_check(kv);
            for (int k = 0; step % 3 == 0 && k < SEQUENCES; k++) {
                bed_verify(kv, k, runs[k].scope ? runs[k].scope : house, runs[k].tokens,
                           runs[k].begun ? runs[k].at : 0);
            }
        }
        kv_usage u = kv_usage_read(kv);
        assert_int_equal(u.disk_bad, 0);
        from_disk += u.disk_hit_tokens;
        evicted += u.evicted;
        kv_close(kv);
    }
    assert_true(from_disk > 1000);
    assert_true(evicted > 1000);
}

#define with_directory(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_directory(test_restart),
        with_directory(test_part_in_memory_part_on_disk),
        with_directory(test_what_is_not_there),
        with_directory(test_damaged_block),
        with_directory(test_read_once),
        with_directory(test_release_while_loading),
        with_directory(test_close_while_loading),
        with_directory(test_many_at_once),
        with_directory(test_room_while_writing),
        with_directory(test_one_cache_a_directory),
        with_directory(test_random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
