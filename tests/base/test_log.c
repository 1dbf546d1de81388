/* The log: one event is one line whatever is in it, JSON that parses, logfmt that reads back, and a stderr that nobody
 * reads stops nobody. */
#include "check.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"

static int  kept = -1, ends[2];
static char said[4 << 20];

/* stderr becomes a pipe until heard() or close_pipe(). */
static void open_pipe(void) {
    assert_int_equal(pipe(ends), 0);
    kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
}

static void restore(void) {
    dup2(kept, STDERR_FILENO);
    close(kept);
}

/* All that was written, and its length. */
static size_t heard(void) {
    size_t n = 0;
    restore();
    for (ssize_t k; (k = read(ends[0], said + n, sizeof said - 1 - n)) > 0;) {
        n += (size_t)k;
    }
    close(ends[0]);
    said[n] = '\0';
    return n;
}

static int lines_of(const char *text) {
    int n = 0;
    for (; *text; text++) {
        n += *text == '\n';
    }
    return n;
}

static const char hostile[] = "a\nlevel=error b\r\x1b[31m\"c\" \\d \xc2\x9b"
                              "31m \xe2\x80\xae x=y \xff\xfe \xe2\x80\xa8 end\x7f";

static void write_hostile(bool json) {
    log_field f[] = {
        {.name = "model", .kind = LOG_TEXT, .text = hostile},    {.name = "none", .kind = LOG_TEXT},
        {.name = "empty", .kind = LOG_TEXT, .text = ""},         {.name = "plain", .kind = LOG_TEXT, .text = "gpt-4.1"},
        {.name = "n", .kind = LOG_NUMBER, .number = -7},         {.name = "ms", .kind = LOG_MILLI, .number = 12345},
        {.name = "cost", .kind = LOG_MICRO, .number = -1000001}, {.name = "stream", .kind = LOG_FLAG, .number = 1}};
    log_setup(LOG_INFO, json);
    open_pipe();
    log_event(LOG_INFO, "request", f, (int)(sizeof f / sizeof f[0]));
    log_event(LOG_DEBUG, "not wanted", f, 1);
    log_warn("the name is %s", hostile);
    heard();
}

static bool clean(const char *text) { /* printable, but for line feeds; and UTF-8 */
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if ((*p < 0x20 && *p != '\n') || *p == 0x7F || (*p == 0xC2 && p[1] < 0xA0) ||
            strncmp((const char *)p, "\u202e", 3) == 0) {
            return false;
        }
    }
    return utf8_valid(text, strlen(text), NULL);
}

static void test_json(void **state) {
    (void)state;
    write_hostile(true);
    assert_int_equal(lines_of(said), 2);
    *strchr(said, '\n') = '\0';
    cJSON *root = cJSON_Parse(said);
    assert_non_null(root);
    assert_string_equal(cJSON_GetObjectItem(root, "message")->valuestring, "request");
    assert_string_equal(cJSON_GetObjectItem(root, "level")->valuestring, "info");
    const char *model = cJSON_GetObjectItem(root, "model")->valuestring;
    assert_non_null(strstr(model, "a\nlevel=error b\r\x1b[31m\"c\" \\d "));
    assert_non_null(strstr(model, "\xef\xbf\xbd\xef\xbf\xbd")); /* U+FFFD for each byte that was none */
    assert_null(cJSON_GetObjectItem(root, "none"));
    assert_string_equal(cJSON_GetObjectItem(root, "empty")->valuestring, "");
    assert_int_equal(cJSON_GetObjectItem(root, "n")->valueint, -7);
    assert_non_null(strstr(said, "\"ms\":12.345,\"cost\":-1.000001,\"stream\":true}"));
    assert_true(clean(said));
    assert_true(clean(said + strlen(said) + 1));
    cJSON_Delete(root);
}

static void test_logfmt(void **state) {
    (void)state;
    write_hostile(false);
    assert_int_equal(lines_of(said), 2);
    assert_true(clean(said));
    assert_non_null(
        strstr(said, " request model=\"a\\nlevel=error b\\u000d\\u001b[31m\\\"c\\\" \\\\d \\u009b31m \\u202e x=y"));
    assert_non_null(strstr(said, " empty=\"\" plain=gpt-4.1 n=-7 ms=12.345 cost=-1.000001 stream=true\n"));
}

/* Any bytes give one clean line, and in JSON one that parses. */
static void test_random_bytes(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 400; round++) {
        char      text[65];
        size_t    n = test_random(&seed) % 64;
        log_field f = {.name = "t", .kind = LOG_TEXT, .text = text};
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)(1 + test_random(&seed) % 255);
        }
        text[n] = '\0';
        log_setup(LOG_INFO, round & 1);
        open_pipe();
        log_event(LOG_INFO, "m", &f, 1);
        log_info("%s", text);
        heard();
        assert_int_equal(lines_of(said), 2);
        assert_true(clean(said));
        if (round & 1) {
            *strchr(said, '\n') = '\0';
            cJSON *root = cJSON_Parse(said);
            assert_non_null(root);
            cJSON_Delete(root);
        }
    }
}

/* ---- the thread ---- */

#define WRITERS 4
#define LINES   2000

static void *write_many(void *arg) {
    for (int i = 0; i < LINES; i++) {
        log_info("%s %d end", (const char *)arg, i);
    }
    return NULL;
}

static void *drain(void *arg) {
    size_t *n = arg;
    for (ssize_t k; (k = read(ends[0], said + *n, sizeof said - 1 - *n)) > 0;) {
        *n += (size_t)k;
    }
    said[*n] = '\0';
    return NULL;
}

/* Every line whole, those of one thread in their order, none lost. */
static void test_many_writers(void **state) {
    (void)state;
    static char names[WRITERS][2] = {"a", "b", "c", "d"};
    err         e = {0};
    pthread_t   threads[WRITERS], reader;
    size_t      n = 0;
    int         next[WRITERS] = {0};
    log_setup(LOG_INFO, false);
    open_pipe();
    assert_int_equal(pthread_create(&reader, NULL, drain, &n), 0);
    assert_ok(log_start(&e), e);
    assert_false(log_start(&e));
    int64_t dropped = log_dropped();
    for (int i = 0; i < WRITERS; i++) {
        pthread_create(&threads[i], NULL, write_many, names[i]);
    }
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    log_stop(5000000);
    restore();
    pthread_join(reader, NULL);
    close(ends[0]);
    assert_int_equal(log_dropped(), dropped);
    for (char *line = said, *end; (end = strchr(line, '\n')); line = end + 1) {
        char who;
        int  i;
        assert_int_equal(sscanf(line, "%*s info %c %d end", &who, &i), 2);
        assert_int_equal(i, next[who - 'a']++);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(next[i], LINES);
    }
}

/* Nobody reads: who logs goes on at once, what is too much is dropped, counted and told, and the end does not wait. */
static void test_stuck_stderr(void **state) {
    (void)state;
    err    e = {0};
    size_t n = 0;
    char   filler[801];
    memset(filler, 'x', 800);
    filler[800] = '\0';
    log_setup(LOG_INFO, false);
    open_pipe();
    assert_ok(log_start(&e), e);
    int64_t before = log_dropped(), slowest = 0, began = clock_us();
    int     written = 0;
    for (; written < 20000 && log_dropped() < before + 100; written++) {
        int64_t at = clock_us();
        log_info("%05d %s", written, filler);
        at = clock_us() - at;
        slowest = at > slowest ? at : slowest;
    }
    printf("%d lines of 830 bytes into a pipe that nobody reads: %.1f ms, the slowest %.3f ms\n", written,
           (double)(clock_us() - began) / 1e3, (double)slowest / 1e3);
    int64_t dropped = log_dropped() - before;
    assert_int_equal(dropped, 100);
    assert_true(clock_us() - began < 2000000);

    pthread_t reader; /* somebody reads again: what waited comes, and how many did not */
    pthread_create(&reader, NULL, drain, &n);
    log_stop(5000000);
    restore();
    pthread_join(reader, NULL);
    close(ends[0]);
    assert_non_null(strstr(said, "100 lines of the log were dropped"));
    assert_int_equal(lines_of(said), written - 100 + 1);
    assert_int_equal(log_dropped() - before, 100);

    open_pipe(); /* and when nobody ever does, the end comes all the same */
    assert_ok(log_start(&e), e);
    for (int i = 0; i < 400; i++) {
        log_info("%05d %s", i, filler);
    }
    began = clock_us();
    log_stop(100000);
    int64_t took = clock_us() - began;
    assert_true(took < 2000000);
    assert_true(log_dropped() > before + 100);
    assert_ok(log_start(&e), e); /* it can begin again */
    log_stop(0);
    heard();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),         cmocka_unit_test(test_logfmt),       cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_many_writers), cmocka_unit_test(test_stuck_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
