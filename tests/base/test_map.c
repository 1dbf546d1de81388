#include "check.h"

#include "base/hash.h"
#include "base/map.h"

#define KEYS 3000

/* Key i: lengths from 0 to 40 bytes, so that both the inline and the heap form are in play. */
static size_t key_bytes(int i, char out[64]) {
    if (i == 0) {
        return 0;
    }
    int n = snprintf(out, 64, "%d", i);
    for (; n < i % 41; n++) {
        out[n] = '.';
    }
    return (size_t)n;
}

/* Random puts and deletes against a plain array. */
static void test_against_array(void **state) {
    (void)state;
    map     *m = map_new(0);
    bool     present[KEYS] = {false};
    int64_t  values[KEYS] = {0};
    size_t   count = 0;
    uint64_t random = 3;
    char     key[64];
    for (int step = 0; step < 200000; step++) {
        int     i = (int)(test_random(&random) % KEYS);
        size_t  n = key_bytes(i, key);
        int64_t value = -1;
        bool    deleting = test_random(&random) % 100 < (step / 20000 % 2 ? 70u : 30u); /* it grows and shrinks */
        assert_int_equal(map_get(m, key, n, &value), present[i]);
        if (present[i]) {
            assert_int_equal(value, values[i]);
        }
        if (deleting) {
            assert_int_equal(map_del(m, key, n), present[i]);
            count -= present[i];
            present[i] = false;
        } else {
            values[i] = (int64_t)test_random(&random);
            assert_true(map_put(m, key, n, values[i]));
            count += !present[i];
            present[i] = true;
        }
        assert_int_equal(map_count(m), count);
    }
    for (int i = 0; i < KEYS; i++) {
        assert_int_equal(map_get(m, key, key_bytes(i, key), NULL), present[i]);
    }
    size_t      at = 0;
    size_t      seen = 0;
    const void *found;
    size_t      n;
    int64_t     value;
    while (map_next(m, &at, &found, &n, &value)) {
        int64_t again;
        assert_true(map_get(m, found, n, &again));
        assert_int_equal(value, again);
        seen++;
    }
    assert_int_equal(seen, count);
    map_free(m);
    map_free(NULL);
}

static void test_sizes(void **state) {
    (void)state;
    assert_null(map_new(SIZE_MAX));
    map *m = map_new(100000);
    for (uint32_t i = 0; i < 200000; i++) {
        assert_true(map_put(m, &i, sizeof(i), i));
    }
    for (uint32_t i = 0; i < 200000; i++) {
        int64_t value;
        assert_true(map_get(m, &i, sizeof(i), &value));
        assert_int_equal(value, i);
    }
    assert_int_equal(map_count(m), 200000);
    map_free(m);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Flipping any one bit, or the length, changes the hash, and about half its bits. */
static void test_hash64(void **state) {
    (void)state;
    unsigned char bytes[80] = {0};
    uint64_t     *all = malloc(sizeof(*all) * 80 * 81 * 8);
    size_t        count = 0;
    double        flipped = 0;
    for (size_t n = 0; n <= 80; n++) {
        uint64_t plain = hash64(bytes, n, 1);
        all[count++] = plain;
        assert_int_not_equal(plain, hash64(bytes, n, 2));
        for (size_t bit = 0; bit < n * 8; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            all[count] = hash64(bytes, n, 1);
            flipped += __builtin_popcountll(all[count] ^ plain);
            count++;
            bytes[bit / 8] = 0;
        }
    }
    qsort(all, count, sizeof(*all), by_value);
    for (size_t i = 1; i < count; i++) {
        assert_true(all[i] != all[i - 1]);
    }
    flipped /= (double)(count - 81);
    assert_true(flipped > 31 && flipped < 33);
    free(all);
    assert_true(hash_seed() == hash_seed());
}

static void test_sha256(void **state) {
    (void)state;
    static const char *const vectors[][2] = {
        /* FIPS 180-2, appendix B, and the empty text */
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[65];
    for (size_t i = 0; i < 3; i++) {
        sha256 d = sha256_of(vectors[i][0], strlen(vectors[i][0]));
        hex_encode(d.bytes, 32, hex);
        assert_string_equal(hex, vectors[i][1]);
    }
    sha256_state *s = sha256_begin();
    for (int i = 0; i < 10000; i++) { /* a million times 'a' */
        char block[100];
        memset(block, 'a', sizeof(block));
        sha256_add(s, block, sizeof(block));
    }
    sha256 d = sha256_end(s);
    hex_encode(d.bytes, 32, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha256 back;
    assert_true(hex_decode(hex, back.bytes, 32));
    assert_true(secret_equal(back.bytes, d.bytes, 32));
    back.bytes[31] ^= 1;
    assert_false(secret_equal(back.bytes, d.bytes, 32));
}

static void test_hex(void **state) {
    (void)state;
    unsigned char b[4];
    assert_true(hex_decode("00fFA57e", b, 4));
    assert_memory_equal(b, "\x00\xFF\xA5\x7E", 4);
    assert_false(hex_decode("00ffa57", b, 4));
    assert_false(hex_decode("00ffa57ee", b, 4));
    assert_false(hex_decode("00ffa57g", b, 4));
    assert_false(hex_decode("", b, 4));
    unsigned char r[2][64] = {{0}};
    assert_true(random_bytes(r[0], 64) && random_bytes(r[1], 64));
    assert_memory_not_equal(r[0], r[1], 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_array), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_hash64), cmocka_unit_test(test_sha256),
                                       cmocka_unit_test(test_hex)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
