/* The cache in memory against a simple model, at its bounds, and from several threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/cache.h"

static sha256 key_of(int i) {
    return sha256_of(&i, sizeof i);
}

static cached *entry(int i, size_t body, int64_t expires_us) {
    cached *e = cached_new(body);
    assert_non_null(e);
    e->key = key_of(i);
    e->expires_us = expires_us;
    e->prompt_tokens = i;
    snprintf(e->model, sizeof e->model, "model-%d", i % 3);
    snprintf(e->space, sizeof e->space, "space-%d", i % 2);
    memset(e->body, 'a' + i % 26, body);
    return e;
}

static void put(cache *c, int i, size_t body, int64_t expires_us) {
    cached *e = entry(i, body, expires_us);
    cache_put(c, e);
    cached_release(e);
}

static bool has(cache *c, int i, int64_t now_us) {
    sha256        key = key_of(i);
    const cached *e = cache_get(c, &key, now_us);
    if (e) {
        assert_int_equal(e->prompt_tokens, i);
        assert_true(e->len == 0 || e->body[0] == 'a' + i % 26);
        assert_int_equal(e->body[e->len], 0);
        cached_release(e);
    }
    return e != NULL;
}

/* One entry of this body costs this much: asked of the cache itself. */
static size_t cost_of(size_t body) {
    cache      *c = cache_new(1 << 20, NULL);
    cache_stats s;
    put(c, 1, body, 100);
    cache_stats_read(c, &s);
    cache_free(c);
    return s.bytes;
}

static void test_get_put_expire(void **state) {
    (void)state;
    cache      *c = cache_new(1 << 20, NULL);
    cache_stats s;
    put(c, 1, 10, 100);
    put(c, 2, 10, 200);
    assert_true(has(c, 1, 99));
    assert_false(has(c, 1, 100));
    assert_false(has(c, 1, 0)); /* gone for good */
    assert_true(has(c, 2, 100));
    assert_false(has(c, 3, 0));
    cache_stats_read(c, &s);
    assert_int_equal(s.entries, 1);
    assert_int_equal(s.hits, 2);
    assert_int_equal(s.misses, 3);
    assert_int_equal(s.expired, 1);
    assert_int_equal(s.stored, 2);
    sha256 key = key_of(2);
    assert_true(cache_remove(c, &key));
    assert_false(cache_remove(c, &key));
    cache_stats_read(c, &s);
    assert_int_equal(s.entries, 0);
    assert_int_equal(s.bytes, 0);
    cache_free(c);
}

static void test_a_reader_keeps_what_is_evicted(void **state) {
    (void)state;
    cache *c = cache_new(2 * cost_of(100), NULL);
    put(c, 1, 100, 100);
    sha256        key = key_of(1);
    const cached *held = cache_get(c, &key, 0);
    put(c, 2, 100, 100);
    put(c, 3, 100, 100);
    assert_false(has(c, 1, 0));
    cache_free(c);
    assert_int_equal(held->len, 100);
    assert_int_equal(held->body[99], 'b');
    cached_release(held);
}

static void test_replace_and_too_large(void **state) {
    (void)state;
    size_t      max = 4 * cost_of(100);
    cache      *c = cache_new(max, NULL);
    cache_stats s;
    for (int i = 0; i < 10; i++) {
        put(c, 7, 100, 100);
    }
    cache_stats_read(c, &s);
    assert_int_equal(s.entries, 1);
    assert_int_equal(s.bytes, cost_of(100));
    put(c, 8, max, 100);
    assert_false(has(c, 8, 0));
    assert_true(has(c, 7, 0));
    cache_free(c);
    c = cache_new(0, NULL); /* a cache of no bytes holds nothing and harms nobody */
    put(c, 1, 1, 100);
    assert_false(has(c, 1, 0));
    cache_free(c);
}

static void test_purge(void **state) {
    (void)state;
    cache *c = cache_new(64 << 20, NULL);
    for (int i = 0; i < 600; i++) {
        put(c, i, 10, 100);
    }
    assert_int_equal(cache_purge(c, "model-1", NULL), 200);
    assert_false(has(c, 1, 0));
    assert_true(has(c, 2, 0));
    assert_int_equal(cache_purge(c, "model-2", "space-0"), 100);
    assert_int_equal(cache_purge(c, NULL, "space-1"), 200);
    assert_int_equal(cache_purge(c, NULL, NULL), 100);
    cache_stats s;
    cache_stats_read(c, &s);
    assert_int_equal(s.bytes, 0);
    cache_free(c);
}

/* ---- the model: an array in order of last use ---- */

#define MODEL_MAX 256

typedef struct model {
    struct {
        int     key;
        size_t  cost;
        int64_t expires_us;
    } at[MODEL_MAX]; /* newest last */
    int    n;
    size_t bytes, max_bytes;
} model;

static void model_drop(model *m, int place) {
    m->bytes -= m->at[place].cost;
    memmove(&m->at[place], &m->at[place + 1], (size_t)(m->n - place - 1) * sizeof m->at[0]);
    m->n--;
}

static int model_find(const model *m, int key) {
    int i = m->n - 1;
    while (i >= 0 && m->at[i].key != key) {
        i--;
    }
    return i;
}

static void model_put(model *m, int key, size_t cost, int64_t expires_us) {
    if (cost > m->max_bytes) {
        return;
    }
    int i = model_find(m, key);
    if (i >= 0) {
        model_drop(m, i);
    }
    while (m->bytes + cost > m->max_bytes) {
        model_drop(m, 0);
    }
    m->at[m->n].key = key;
    m->at[m->n].cost = cost;
    m->at[m->n++].expires_us = expires_us;
    m->bytes += cost;
}

static bool model_get(model *m, int key, int64_t now_us) {
    int i = model_find(m, key);
    if (i < 0) {
        return false;
    }
    size_t  cost = m->at[i].cost;
    int64_t expires_us = m->at[i].expires_us;
    model_drop(m, i);
    if (expires_us <= now_us) {
        return false;
    }
    model_put(m, key, cost, expires_us);
    return true;
}

static void test_against_a_model(void **state) {
    (void)state;
    size_t   base = cost_of(0);
    size_t   max = 60 * (base + 200);
    cache   *c = cache_new(max, NULL);
    model    m = {.max_bytes = max};
    unsigned seed = 7;
    for (int step = 0; step < 200000; step++) {
        int     key = (int)(rand_r(&seed) % 200);
        int64_t now = step;
        switch (rand_r(&seed) % 8) {
        case 0:
        case 1:
        case 2: {
            size_t  body = rand_r(&seed) % 400;
            int64_t expires = now + rand_r(&seed) % 2000;
            put(c, key, body, expires);
            model_put(&m, key, base + body, expires);
            break;
        }
        case 3: {
            sha256 k = key_of(key);
            int    i = model_find(&m, key);
            assert_int_equal(cache_remove(c, &k), i >= 0);
            if (i >= 0) {
                model_drop(&m, i);
            }
            break;
        }
        default:
            assert_int_equal(has(c, key, now), model_get(&m, key, now));
        }
        cache_stats s;
        cache_stats_read(c, &s);
        assert_int_equal(s.entries, m.n);
        assert_int_equal(s.bytes, m.bytes);
        assert_true(s.bytes <= max);
    }
    cache_free(c);
}

/* ---- threads ---- */

static void *hammer(void *arg) {
    cache   *c = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 30000; i++) {
        int    key = (int)(rand_r(&seed) % 3000);
        sha256 k = key_of(key);
        switch (rand_r(&seed) % 16) {
        case 0: {
            cached *e = cached_new(20000);
            if (e) {
                e->key = k;
                e->expires_us = 1000;
                e->prompt_tokens = key;
                memset(e->body, 'a' + key % 26, 20000);
                cache_put(c, e);
                cached_release(e);
            }
            break;
        }
        case 1:
            cache_remove(c, &k);
            break;
        case 2:
            if (key < 3) {
                cache_purge(c, "", "nobody");
            }
            break;
        default: {
            const cached *e = cache_get(c, &k, 0);
            if (e) {
                if (e->prompt_tokens != key || e->body[19999] != 'a' + key % 26) {
                    cached_release(e);
                    return "a wrong answer";
                }
                cached_release(e);
            }
        }
        }
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    cache    *c = cache_new(17 << 20, NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, c), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    cache_stats s;
    cache_stats_read(c, &s);
    assert_true(s.bytes <= s.max_bytes);
    assert_true(s.hits > 0 && s.evicted > 0);
    cache_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_put_expire),        cmocka_unit_test(test_a_reader_keeps_what_is_evicted),
        cmocka_unit_test(test_replace_and_too_large), cmocka_unit_test(test_purge),
        cmocka_unit_test(test_against_a_model),       cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
