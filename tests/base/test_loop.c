/* queue and loop: where threads meet. Run under TSan as well (make tsan). */
#include "check.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"
#include "base/queue.h"

#define PUTTERS 4
#define EACH    20000

typedef struct item {
    queue_item link;
    int        putter;
    int        number;
} item;

typedef struct putter {
    queue *q;
    int    index;
    item  *items;
} putter;

static void *put_all(void *arg) {
    putter *p = arg;
    for (int i = 0; i < EACH; i++) {
        p->items[i] = (item){.putter = p->index, .number = i};
        queue_put(p->q, &p->items[i].link);
    }
    return NULL;
}

/* Everything arrives once, and what one thread put stays in its order. */
static void test_queue_threads(void **state) {
    (void)state;
    queue    *q = queue_new(NULL, NULL);
    pthread_t threads[PUTTERS];
    putter    putters[PUTTERS];
    int       next[PUTTERS] = {0};
    for (int i = 0; i < PUTTERS; i++) {
        putters[i] = (putter){q, i, malloc(sizeof(item) * EACH)};
        pthread_create(&threads[i], NULL, put_all, &putters[i]);
    }
    for (int taken = 0; taken < PUTTERS * EACH;) {
        queue_item *chain = taken % 3 == 0 ? queue_take(q) : queue_wait_all(q, 5000000);
        if (!chain && taken % 3 != 0) {
            fail_msg("nothing came for 5 seconds after %d items", taken);
        }
        for (; chain; chain = chain->next) {
            const item *it = (const item *)chain;
            assert_int_equal(it->number, next[it->putter]++);
            taken++;
        }
    }
    for (int i = 0; i < PUTTERS; i++) {
        pthread_join(threads[i], NULL);
        free(putters[i].items);
    }
    assert_int_equal(queue_count(q), 0);
    queue_free(q);
}

static void count_wake(void *arg) {
    ++*(int *)arg;
}

static void test_queue_alone(void **state) {
    (void)state;
    int    wakes = 0;
    queue *q = queue_new(count_wake, &wakes);
    item   items[3];
    assert_null(queue_take(q));
    assert_null(queue_take_all(q));
    assert_null(queue_wait_all(q, 0));
    int64_t start = clock_us();
    assert_null(queue_wait_all(q, 30000));
    assert_true(clock_us() - start >= 30000);
    for (int i = 0; i < 3; i++) {
        queue_put(q, &items[i].link);
    }
    assert_int_equal(wakes, 1); /* only the first found it empty */
    assert_int_equal(queue_count(q), 3);
    assert_ptr_equal(queue_take(q), &items[0]);
    assert_ptr_equal(queue_take(q), &items[1]);
    queue_put(q, &items[0].link);
    queue_item *chain = queue_take_all(q);
    assert_ptr_equal(chain, &items[2]);
    assert_ptr_equal(chain->next, &items[0]);
    assert_null(chain->next->next);
    queue_put(q, &items[1].link);
    assert_int_equal(wakes, 2);
    assert_ptr_equal(queue_take(q), &items[1]);
    assert_null(queue_take(q));
    queue_free(q);
    queue_free(NULL);
}

typedef struct job {
    loop_task   task;
    loop       *l;
    pthread_t   loop_thread;
    atomic_int *ran;
    int         again;
} job;

static void run_job(loop_task *task) {
    job *j = (job *)task;
    assert_true(pthread_equal(pthread_self(), j->loop_thread));
    atomic_fetch_add(j->ran, 1);
    if (j->again-- > 0) {
        loop_post(j->l, task);
    } else {
        free(j);
    }
}

static void *run_loop(void *arg) {
    err e = {0};
    return loop_run(arg, &e) ? arg : NULL;
}

typedef struct poster {
    loop       *l;
    pthread_t   loop_thread;
    atomic_int *ran;
} poster;

static void *post_all(void *arg) {
    poster *p = arg;
    for (int i = 0; i < EACH / 4; i++) {
        job *j = malloc(sizeof(*j));
        *j = (job){.task = {.run = run_job}, .l = p->l, .loop_thread = p->loop_thread, .ran = p->ran, .again = 2};
        loop_post(p->l, &j->task);
    }
    return NULL;
}

static void on_release(void *client) {
    *(bool *)client = true;
}

static void test_endings(void **state) {
    (void)state;
    err   e = {0};
    bool  released[3] = {false};
    loop *l = loop_new(0, &e);
    assert_ok(l, e);
    for (int i = 0; i < 3; i++) {
        assert_true(loop_at_end(l, on_release, &released[i]));
    }
    loop_not_at_end(l, on_release, &released[1]);
    loop_not_at_end(l, on_release, &released[1]); /* nothing is left to take back */
    loop_free(l);
    assert_true(released[0] && !released[1] && released[2]);
}

static void test_loop_threads(void **state) {
    (void)state;
    err        e = {0};
    atomic_int ran = 0;
    bool       released = false;
    loop      *l = loop_new(3, &e);
    assert_ok(l, e);
    assert_int_equal(loop_index(l), 3);
    assert_non_null(loop_base(l));
    loop_set_client(l, &released, on_release);
    assert_ptr_equal(loop_client(l), &released);
    pthread_t loop_thread;
    pthread_create(&loop_thread, NULL, run_loop, l);
    poster    p = {l, loop_thread, &ran};
    pthread_t posters[PUTTERS];
    for (int i = 0; i < PUTTERS; i++) {
        pthread_create(&posters[i], NULL, post_all, &p);
    }
    for (int i = 0; i < PUTTERS; i++) {
        pthread_join(posters[i], NULL);
    }
    loop_stop(l); /* all was posted before: all of it still runs, and what it posts in turn */
    void *result;
    pthread_join(loop_thread, &result);
    assert_ptr_equal(result, l);
    assert_int_equal(atomic_load(&ran), PUTTERS * (EACH / 4) * 3);
    loop_free(l);
    assert_true(released);
    loop_free(NULL);
}

typedef struct ticking {
    int   ticks;
    loop *l;
    job  *endless;
} ticking;

static void on_tick(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    ticking *t = arg;
    if (++t->ticks == 5) {
        t->endless->again = 0;
        loop_stop(t->l);
    }
}

/* A task that posts itself for ever does not starve the timers. */
static void test_loop_fair(void **state) {
    (void)state;
    err        e = {0};
    atomic_int ran = 0;
    loop      *l = loop_new(0, &e);
    job       *j = malloc(sizeof(*j));
    *j = (job){.task = {.run = run_job}, .l = l, .loop_thread = pthread_self(), .ran = &ran, .again = 1 << 30};
    ticking        t = {.l = l, .endless = j};
    struct event  *tick = event_new(loop_base(l), -1, EV_PERSIST, on_tick, &t);
    struct timeval every = {0, 2000};
    event_add(tick, &every);
    loop_post(l, &j->task);
    assert_ok(loop_run(l, &e), e);
    assert_int_equal(t.ticks, 5);
    assert_true(atomic_load(&ran) > 5);
    event_free(tick);
    loop_free(l);
}

static void test_stop_first(void **state) {
    (void)state;
    err   e = {0};
    loop *l = loop_new(0, &e);
    loop_stop(l); /* a stop before the start is not lost */
    assert_ok(loop_run(l, &e), e);
    loop_free(l);
}

/* ---- loop_write_soon ---- */

#define LARGE ((size_t)3 << 20)

typedef struct writing {
    loop_task           task;
    loop               *l;
    struct bufferevent *b;
    int                 peer;
    size_t              length; /* to be written */
    size_t              got;
    bool                at_once, drop, settled;
    struct event       *next, *readable;
} writing;

static char byte_at(size_t i) {
    return (char)(i * 2654435761u >> 13);
}

static void take_all(writing *w) {
    char    piece[8192];
    ssize_t n;
    while ((n = recv(w->peer, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            assert_int_equal(piece[i], byte_at(w->got++));
        }
    }
}

/* Runs in the same turn as what has called loop_write_soon. */
static void on_next(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    writing *w = arg;
    take_all(w);
    w->at_once = w->got > 0;
    if (w->length <= 5 || w->drop) {
        loop_stop(w->l);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    writing *w = arg;
    take_all(w);
    if (w->got == w->length) {
        loop_stop(w->l);
    }
}

static void run_writing(loop_task *task) {
    writing *w = (writing *)task;
    if (!w->settled) { /* in this turn the socket has said that it can be written to, and by the next that is over */
        w->settled = true;
        loop_post(w->l, task);
        return;
    }
    char *bytes = malloc(w->length + 1);
    for (size_t i = 0; i < w->length; i++) {
        bytes[i] = byte_at(i);
    }
    loop_write_soon(w->b); /* nothing to write: nothing happens */
    bufferevent_write(w->b, bytes, w->length);
    free(bytes);
    loop_write_soon(w->b);
    if (w->drop) {
        bufferevent_free(w->b);
        w->b = NULL;
    }
    event_active(w->next, 0, 0);
}

static void write_soon(writing *w) {
    err e = {0};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    w->l = loop_new(0, &e);
    assert_non_null(w->l);
    w->task.run = run_writing;
    w->peer = pair[1];
    w->b = bufferevent_socket_new(loop_base(w->l), pair[0], BEV_OPT_CLOSE_ON_FREE);
    bufferevent_enable(w->b, EV_READ | EV_WRITE);
    w->next = event_new(loop_base(w->l), -1, 0, on_next, w);
    w->readable = event_new(loop_base(w->l), pair[1], EV_READ | EV_PERSIST, on_readable, w);
    if (w->length > 5) {
        event_add(w->readable, NULL);
    }
    loop_post(w->l, &w->task);
    assert_ok(loop_run(w->l, &e), e);
    event_free(w->next);
    event_free(w->readable);
    if (w->b) {
        assert_int_equal(evbuffer_get_length(bufferevent_get_output(w->b)), 0);
        bufferevent_free(w->b);
    }
    close(pair[1]);
    loop_free(w->l);
}

static void test_write_soon(void **state) {
    (void)state;
    writing small = {.length = 5};
    write_soon(&small);
    assert_true(small.at_once);
    assert_int_equal(small.got, 5);
    writing large = {.length = LARGE}; /* more than the socket takes at once: the rest follows by itself */
    write_soon(&large);
    assert_true(large.at_once);
    assert_int_equal(large.got, LARGE);
    writing dropped = {.length = 5, .drop = true};
    write_soon(&dropped);
    assert_int_equal(dropped.got, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_queue_threads), cmocka_unit_test(test_queue_alone),
                                       cmocka_unit_test(test_endings),       cmocka_unit_test(test_loop_threads),
                                       cmocka_unit_test(test_loop_fair),     cmocka_unit_test(test_stop_first),
                                       cmocka_unit_test(test_write_soon)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
