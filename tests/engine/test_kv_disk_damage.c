/* Damaged and foreign files of blocks: what comes back is right, the rest is dropped and counted. */
#include "base/str.h"
#include "engine/kv_disk_bed.h"

/* Opens with what is warned about in `said`. */
static void open_listening(bed *b, str *said) {
    char path[128], buffer[2048];
    snprintf(path, sizeof path, "%s/stderr", b->directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), before = dup(STDERR_FILENO);
    assert_true(fd >= 0 && before >= 0);
    dup2(fd, STDERR_FILENO);
    log_setup(LOG_WARN, false);
    b->d = kv_disk_open(&b->o, NULL);
    log_setup(LOG_OFF, false);
    dup2(before, STDERR_FILENO);
    close(before);
    ssize_t n = pread(fd, buffer, sizeof buffer - 1, 0);
    close(fd);
    assert_non_null(b->d);
    assert_true(n >= 0);
    buffer[n] = '\0';
    str_clear(said);
    str_adds(said, buffer);
}

static void set_aside(bed *b, const void *data, size_t n, const char *sentence) {
    str said = {0};
    unlink(b->bad);
    save(b->path, data, n);
    open_listening(b, &said);
    if (!strstr(said.data, sentence) || !strstr(said.data, b->path) || !strstr(said.data, ".bad")) {
        fail_msg("\"%s\" does not say \"%s\"", said.data, sentence);
    }
    image aside = load(b->bad);
    assert_int_equal(aside.n, n);
    assert_memory_equal(aside.data, data, n);
    free(aside.data);
    str_free(&said);
    assert_int_equal(kv_disk_usage_read(b->d).used, 0);
    assert_true(write_block(b, 1)); /* and the new one works */
    assert_true(read_block(b, 1, 3));
    close_bed(b);
}

static void test_foreign_files_are_set_aside(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 4);
    close_bed(b);
    find_file(b);
    image m = load(b->path);
    set_aside(b, m.data, 100, "ends after 100 bytes");
    set_aside(b, "GGUF", 4, "ends after 4 bytes");
    m.data[100] ^= 1;
    set_aside(b, m.data, m.n, "checksum");
    m.data[100] ^= 1;
    m.data[0] = 'P';
    set_aside(b, m.data, m.n, "does not begin like");
    m.data[0] = 'p';
    m.data[8] = 2;
    uint64_t sum = hash64(m.data, HEADER - 8, SEED);
    memcpy(m.data + HEADER - 8, &sum, 8);
    set_aside(b, m.data, m.n, "version 2");
    m.data[8] = 1;
    m.data[36] = 'M'; /* "Model-a" */
    sum = hash64(m.data, HEADER - 8, SEED);
    memcpy(m.data + HEADER - 8, &sum, 8);
    set_aside(b, m.data, m.n, "another model");
    save(b->path, "", 0); /* nothing in it: nothing to tell */
    unlink(b->bad);
    open_bed(b);
    assert_int_not_equal(access(b->bad, F_OK), 0);
    free(m.data);
}

static void test_truncated_anywhere(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 6);
    close_bed(b);
    find_file(b);
    image                  m = load(b->path);
    static const long long edges[] = {0,    8,           36,           HEADER - 8,           HEADER,
                                      4160, HEADER + 32, HEADER + 320, HEADER + TABLE / 2,   HEADER + TABLE,
                                      4224, 8192,        STRIDE * 17,  HEADER + TABLE + 3000};
    int                    tried = 0;
    for (size_t i = 0; i < sizeof edges / sizeof *edges + 12; i++) {
        size_t    k = i - sizeof edges / sizeof *edges;
        long long edge = i < sizeof edges / sizeof *edges
                             ? edges[i]
                             : HEADER + TABLE + (long long)(k / 2) * STRIDE + (k % 2 ? PAYLOAD : 0);
        for (long long n = edge - 2; n <= edge + 2; n++) {
            if (n < 0 || n > (long long)m.n) {
                continue;
            }
            save(b->path, m.data, (size_t)n);
            open_bed(b);
            int whole = 0;
            for (int id = 0; id < 6; id++) {
                whole += HEADER + TABLE + id * STRIDE + PAYLOAD <= n;
            }
            assert_int_equal(kv_disk_usage_read(b->d).used, whole);
            assert_int_equal(count_read(b, 0, 6), whole);
            assert_true(write_block(b, 9));
            assert_true(read_block(b, 9, 0));
            close_bed(b);
            open_bed(b); /* what was bad is told once */
            assert_int_equal(kv_disk_usage_read(b->d).bad, 0);
            close_bed(b);
            tried++;
        }
    }
    assert_true(tried > 100);
    free(m.data);
}

/* A flipped bit anywhere costs at most the slot it is in, or all when it is in the header. */
static void test_flipped_bits(void **state) {
    bed     *b = *state;
    uint64_t random = 1;
    int      slots = 6, lost = 0;
    open_bed(b);
    write_blocks(b, 0, slots);
    close_bed(b);
    find_file(b);
    image m = load(b->path);
    for (int round = 0; round < 2400; round++) {
        int    hit = (int)(test_random(&random) % (uint64_t)slots), flips = 1 + (int)(test_random(&random) % 3);
        size_t from =
            round % 3 == 0 ? 0 : (size_t)(round % 3 == 1 ? HEADER + hit * SLOT : HEADER + TABLE + hit * STRIDE);
        size_t n = round % 3 == 0 ? HEADER : round % 3 == 1 ? SLOT : PAYLOAD;
        image  copy = {malloc(m.n), m.n};
        memcpy(copy.data, m.data, m.n);
        for (int k = 0; k < flips; k++) {
            copy.data[from + test_random(&random) % n] ^= (uint8_t)(1u << test_random(&random) % 8);
        }
        bool same = memcmp(copy.data, m.data, m.n) == 0; /* two flips of one bit */
        save(b->path, copy.data, copy.n);
        free(copy.data);
        open_bed(b);
        int back = count_read(b, 0, slots); /* fails when one comes back wrong */
        assert_int_equal(back, same ? slots : round % 3 == 0 ? 0 : slots - 1);
        assert_int_equal(kv_disk_usage_read(b->d).bad, !same && round % 3 != 0);
        lost += !same;
        close_bed(b);
    }
    assert_true(lost > 2000);
    free(m.data);
}

/* Many bytes wrong at once, anywhere: nothing is said of how much survives, but what comes back is right. */
static void test_noise(void **state) {
    bed     *b = *state;
    uint64_t random = 2;
    int      back = 0;
    open_bed(b);
    write_blocks(b, 0, 8);
    close_bed(b);
    find_file(b);
    image m = load(b->path);
    for (int round = 0; round < 300; round++) {
        image copy = {malloc(m.n), m.n};
        memcpy(copy.data, m.data, m.n);
        size_t at = HEADER + test_random(&random) % (m.n - HEADER);
        size_t n = 1 + test_random(&random) % (m.n - at < 8000 ? m.n - at : 8000);
        for (size_t i = 0; i < n; i++) {
            copy.data[at + i] = round % 2 ? (uint8_t)test_random(&random) : m.data[test_random(&random) % m.n];
        }
        save(b->path, copy.data, copy.n);
        free(copy.data);
        open_bed(b);
        back += count_read(b, 0, 8);
        write_blocks(b, 8, 12);
        assert_int_equal(count_read(b, 8, 12), 4);
        close_bed(b);
    }
    assert_true(back > 300 && back < 2400);
    free(m.data);
}

/* Valid parts in wrong places. */
static void test_moved_slots(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 4);
    close_bed(b);
    find_file(b);
    image m = load(b->path);
    memcpy(m.data + HEADER + SLOT, m.data + HEADER, SLOT); /* slot 1's header is slot 0's */
    memcpy(m.data + HEADER + TABLE + 2 * STRIDE, m.data + HEADER + TABLE + 3 * STRIDE, PAYLOAD);
    save(b->path, m.data, m.n);
    open_bed(b);
    assert_int_equal(kv_disk_usage_read(b->d).bad, 1);
    assert_true(read_block(b, 0, 0));
    assert_false(has(b, 1));
    assert_true(has(b, 2));
    assert_false(read_block(b, 2, 0));
    assert_false(has(b, 2));
    assert_true(read_block(b, 3, 0));
    assert_int_equal(kv_disk_usage_read(b->d).bad, 2);
    close_bed(b);

    /* Two slots of one key, both valid: the younger one counts. */
    uint8_t *h = m.data + HEADER + 2 * SLOT;
    memcpy(h, m.data + HEADER + 3 * SLOT, SLOT);
    uint64_t age = 99, sum;
    memcpy(h + 48, &age, 8);
    sum = hash64(h, 56, SEED + 2);
    memcpy(h + 56, &sum, 8);
    save(b->path, m.data, m.n);
    open_bed(b);
    kv_disk_usage u = kv_disk_usage_read(b->d);
    assert_int_equal(u.used, 2);
    assert_int_equal(u.bad, 2);
    assert_true(read_block(b, 3, 0));
    free(m.data);
}

static void test_file_shrinks_while_open(void **state) {
    bed *b = *state;
    open_bed(b);
    write_blocks(b, 0, 4);
    find_file(b);
    assert_int_equal(truncate(b->path, HEADER + TABLE + 2 * STRIDE + 5), 0);
    assert_int_equal(count_read(b, 0, 4), 2);
    assert_int_equal(kv_disk_usage_read(b->d).bad, 2);
    write_blocks(b, 2, 4);
    assert_int_equal(count_read(b, 0, 4), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_foreign_files_are_set_aside, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_truncated_anywhere, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_flipped_bits, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_noise, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_moved_slots, make_bed, remove_bed),
        cmocka_unit_test_setup_teardown(test_file_shrinks_while_open, make_bed, remove_bed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
