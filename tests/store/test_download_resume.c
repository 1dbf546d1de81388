/* Downloads that stop and go on: changed files, damaged states, kill -9, two at a time, full disks. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "store/download_bed.h"

/* ---- going on ---- */

static void changed_meanwhile(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/changes");
    b.o.parallel_above = PARALLEL;
    assert_ok(get(&b, &e), e);
    assert_file(web.second);
    /* And between two calls: the state of the first speaks of another ETag. */
    begin(NULL);
    b = bed_of("/rationed");
    b.o.retries = 1;
    atomic_store(&web.ration, 300000);
    assert_false(get(&b, &e));
    atomic_store(&web.ration, 2 * SIZE);
    assert_true(there(part) && there(state) && !there(path));
    char  *text = NULL;
    size_t n = 0;
    FILE  *f = fopen(state, "r");
    assert_true(getline(&text, &n, f) > 0);
    fclose(f);
    char *etag = strstr(text, "\\\"one");
    assert_non_null(etag);
    memcpy(etag + 2, "six", 3);
    f = fopen(state, "w");
    fputs(text, f);
    fclose(f);
    free(text);
    assert_ok(get(&b, &e), e);
    assert_true(b.out.resumed > 0);
    assert_int_equal(b.out.fetched, SIZE); /* from the start */
    assert_file(web.file);
}

static void goes_on(void **unused) {
    (void)unused;
    for (int parts = 1; parts <= 4; parts += 3) {
        err e;
        bed b = bed_of("/rationed");
        begin(NULL);
        b.o.parallel_above = PARALLEL;
        b.o.parts = parts;
        b.o.retries = 1;
        int64_t fetched = 0;
        for (int round = 0; round < 4; round++) {
            atomic_store(&web.ration, 600000);
            assert_false(get(&b, &e));
            assert_int_equal(b.out.resumed, fetched);
            fetched += b.out.fetched;
            assert_true(fetched == 0 || (there(part) && there(state)));
            assert_false(there(path));
        }
        assert_true(fetched > 0);
        atomic_store(&web.ration, 4LL * SIZE);
        assert_ok(get(&b, &e), e);
        assert_int_equal(b.out.resumed, fetched);
        assert_int_equal(fetched + b.out.fetched, SIZE);
        assert_file(web.file);
    }
}

static void stopped(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/slower");
    b.stop_at = 1;
    b.o.save_us = 0;
    assert_false(get(&b, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    assert_true(there(part) && there(state) && !there(path));
    b.stop_at = 0;
    assert_ok(get(&b, &e), e);
    assert_true(b.out.resumed > 0);
    assert_int_equal(b.out.resumed + b.out.fetched, SIZE);
    assert_file(web.file);
}

static void write_text(const char *name, const char *text) {
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* States that do not fit, and states of strangers, count as none: the file comes from the start, and is right. */
static void states_that_do_not_fit(void **unused) {
    (void)unused;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,10,3000000]]}",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,10,20],[30,40,3000001]]}",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,-5,3000001]]}",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,1e300,3000001]]}",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,2000000,3000001]]}", /* the part file is shorter */
        "{\"source\":\"s\",\"sha256\":null,\"size\":-1,\"etag\":\"\",\"modified\":\"\",\"segments\":[]}",
        "{\"source\":\"other\",\"sha256\":null,\"size\":3000001,\"etag\":\"\\\"one\\\"\",\"modified\":\"\","
        "\"segments\":[[0,4,3000001]]}",
        "{\"source\":\"s\",\"sha256\":null,\"size\":3000001,\"etag\":\"\",\"modified\":\"\","
        "\"segments\":[[0,4,3000001]]}", /* nothing to know the file again by */
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        err e;
        bed b = bed_of("/good");
        begin(NULL);
        b.o.source = "s";
        write_text(part, "XXXXXXXXXXXXXXXXXXXXXXXXXXXX");
        write_text(state, texts[i]);
        assert_ok(get(&b, &e), e);
        assert_int_equal(b.out.resumed, 0);
        assert_file(web.file);
    }
}

static void killed(void **unused) {
    (void)unused;
    char hex[65];
    good_digest(hex);
    for (int parts = 1; parts <= 4; parts += 3) {
        int  kills = 0;
        bool done = false;
        begin(NULL);
        for (int round = 0; round < 40 && !done; round++) {
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                err e;
                bed b = bed_of("/slower");
                b.o.parallel_above = PARALLEL;
                b.o.parts = parts;
                b.o.sha256 = hex;
                _exit(get(&b, &e) ? 0 : 1);
            }
            int status = 0;
            for (int ms = 0; ms < 60 + 10 * round && waitpid(child, &status, WNOHANG) == 0; ms++) {
                nap_us(1000);
            }
            if (kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child) {
                kills++;
            }
            done = there(path);
            assert_true(done || there(part));
        }
        if (!done) {
            err e;
            bed b = bed_of("/slower");
            b.o.parallel_above = PARALLEL;
            b.o.parts = parts;
            b.o.sha256 = hex;
            assert_ok(get(&b, &e), e);
            assert_true(b.out.resumed > 0);
        }
        assert_true(kills >= 2);
        if (there(state)) { /* killed between the last two steps: what is left behind confuses nobody */
            err e;
            bed b = bed_of("/good");
            b.o.sha256 = hex;
            assert_ok(get(&b, &e), e);
        }
        assert_file(web.file);
        /* What was sent twice is at most what came between two looks and lay in the sockets' buffers. */
        assert_true(atomic_load(&web.sent) < 3LL * SIZE);
    }
}

static void one_at_a_time(void **unused) {
    (void)unused;
    err e;
    int fd = open(part, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    pid_t child = fork();
    if (child == 0) {
        bed b = bed_of("/slow");
        _exit(get(&b, &e) ? 0 : 1);
    }
    bed b = bed_of("/good");
    for (int i = 0; i < 2000 && atomic_load(&web.requests) == 0; i++) {
        nap_us(1000);
    }
    assert_false(get(&b, &e));
    assert_int_equal(e.code, ERR_BUSY);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(fd);
    assert_file(web.file);
}

/* ---- the disk ---- */

static void no_room(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/huge");
    assert_false(get(&b, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    assert_says(e, "1125899.91 GB");
    assert_says(e, "left; make room");
    assert_nothing();
}

/* A limit on the size of files stands in for a full disk; what was fetched is kept and taken up again. */
static void disk_full(void **unused) {
    (void)unused;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        err           e;
        struct rlimit limit = {1000000, 1000000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        bed b = bed_of("/good");
        _exit(!get(&b, &e) && e.code == ERR_LIMIT && strstr(e.text, "is full") && strstr(e.text, "kept") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(there(part) && there(state) && !there(path));
    err e;
    bed b = bed_of("/good");
    assert_ok(get(&b, &e), e);
    assert_true(b.out.resumed > 0);
    assert_int_equal(b.out.resumed + b.out.fetched, SIZE);
    assert_file(web.file);
}

static void bad_folder(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/good");
    b.o.path = "/nonexistent/folder/x.gguf";
    assert_false(get(&b, &e));
    assert_int_equal(e.code, ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(changed_meanwhile),
                                       TEST(goes_on),
                                       TEST(stopped),
                                       TEST(states_that_do_not_fit),
                                       TEST(killed),
                                       TEST(one_at_a_time),
                                       TEST(no_room),
                                       TEST(disk_full),
                                       TEST(bad_folder)};
    forget_proxies();
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
