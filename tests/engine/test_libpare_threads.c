/* libpare: one model, many threads; and cancelling from another one. */
#include "libpare_bed.h"

#include <stdatomic.h>

#define THREADS 6
#define ROUNDS  3

static pare_model *shared;

static int open_shared(void **state) {
    (void)state;
    shared = open_storyteller(&(pare_options){.pooling = "mean", .sequences = 4});
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    pare_close(shared);
    return 0;
}

/* ---- the same answers alone and among others ---- */

typedef struct work {
    int   number;
    char *text;
    float vector[256];
} work;

static void do_work(work *w) {
    static const char *const words[THREADS] = {"The king", "A fox", "Once", "In the sea", "She said", "No"};
    const char              *word = words[w->number];
    const pare_request       r = {.max_tokens = 16, .temperature = 0.7f, .seed = 3};
    if (w->number % 2) {
        pare_chat *c = pare_chat_new(shared, NULL, 0);
        if (c && pare_chat_add(c, "user", word, NULL, NULL, 0) && pare_chat_answer(c, &r, NULL, NULL, NULL, NULL, 0)) {
            w->text = strdup(pare_chat_content(c, 1));
        }
        pare_chat_free(c);
    } else {
        w->text = pare_generate_text(shared, word, &r, NULL, NULL, 0);
    }
    if (!pare_embed(shared, &word, 1, NULL, w->vector, NULL, NULL, 0)) {
        w->vector[0] = 2;
    }
}

static void *work_thread(void *arg) {
    do_work(arg);
    return NULL;
}

static void test_together(void **state) {
    (void)state;
    work alone[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        alone[i].number = i;
        do_work(&alone[i]);
        assert_non_null(alone[i].text);
        assert_true(alone[i].vector[0] < 2);
    }
    for (int round = 0; round < ROUNDS; round++) {
        work      both[THREADS] = {0};
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            both[i].number = i;
            assert_int_equal(pthread_create(&threads[i], NULL, work_thread, &both[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            assert_non_null(both[i].text);
            assert_string_equal(both[i].text, alone[i].text);
            assert_memory_equal(both[i].vector, alone[i].vector, sizeof(both[i].vector));
            free(both[i].text);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        free(alone[i].text);
    }
}

/* ---- cancelling ---- */

typedef struct long_call {
    pare_canceller *stop;
    atomic_int      pieces;
    pare_usage      usage;
    int             ok;
} long_call;

static int count_piece(void *user, const char *text, size_t length) {
    (void)text, (void)length;
    atomic_fetch_add(&((long_call *)user)->pieces, 1);
    return 0;
}

static void *call_thread(void *arg) {
    long_call   *c = arg;
    pare_request r = {.canceller = c->stop, .grammar = "root ::= ([a-z]+ \" \")*"}; /* the model rarely ends it */
    c->ok = pare_generate(shared, "Once", &r, count_piece, c, &c->usage, NULL, 0);
    return NULL;
}

/* Two calls have the canceller. Whether it comes before their end is the scheduler's affair, so it is tried a few times. */
static void test_cancel(void **state) {
    (void)state;
    pare_canceller *stop = pare_canceller_new();
    assert_non_null(stop);
    int cancelled = 0;
    for (int i = 0; i < 20 && cancelled < 4; i++) {
        long_call calls[2] = {{.stop = stop}, {.stop = stop}};
        pthread_t threads[2];
        pare_canceller_reset(stop);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(pthread_create(&threads[k], NULL, call_thread, &calls[k]), 0);
        }
        for (int wait = 0; wait < 5000 && (i > 3 ? 0 : !atomic_load(&calls[0].pieces)); wait++) {
            usleep(500);
        }
        pare_cancel(stop); /* from the fifth time on before or while they are submitted */
        for (int k = 0; k < 2; k++) {
            pthread_join(threads[k], NULL);
            assert_int_equal(calls[k].ok, 1);
            cancelled += calls[k].usage.finish == PARE_FINISH_CANCELLED;
            assert_true(calls[k].usage.completion_tokens < 512);
        }
    }
    assert_true(cancelled > 0);

    /* it stays cancelled until it is reset */
    pare_usage usage = {0};
    char      *text = pare_generate_text(shared, "Once", &(pare_request){.canceller = stop}, &usage, NULL, 0);
    assert_string_equal(text, "");
    assert_int_equal(usage.finish, PARE_FINISH_CANCELLED);
    pare_free(text);
    pare_canceller_reset(stop);
    text = pare_generate_text(shared, "Once", &(pare_request){.canceller = stop, .max_tokens = 4}, &usage, NULL, 0);
    assert_int_equal(usage.finish, PARE_FINISH_LENGTH);
    pare_free(text);
    pare_canceller_free(stop);
    pare_canceller_free(NULL);
    pare_cancel(NULL);
    pare_canceller_reset(NULL);
}

/* A callback that takes its time holds up nobody: the other call is over while it still waits. */
static int wait_for_other(void *user, const char *text, size_t length) {
    (void)text, (void)length;
    atomic_int *over = user;
    for (int i = 0; i < 20000 && !atomic_load(over); i++) {
        usleep(500);
    }
    return 1;
}

static void *short_call(void *arg) {
    pare_generate(shared, "The fox", &(pare_request){.max_tokens = 8}, NULL, NULL, NULL, NULL, 0);
    atomic_store((atomic_int *)arg, 1);
    return NULL;
}

static void test_slow_callback(void **state) {
    (void)state;
    atomic_int over = 0;
    pthread_t  other;
    assert_int_equal(pthread_create(&other, NULL, short_call, &over), 0);
    pare_generate(shared, "The king", NULL, wait_for_other, &over, NULL, NULL, 0);
    assert_int_equal(atomic_load(&over), 1);
    pthread_join(other, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_slow_callback),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
