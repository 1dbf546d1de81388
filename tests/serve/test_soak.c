/* Everything at once for a while: hits, misses, streams, failures, clients that leave, dashboards; a remote provider and
 * the bundled model. At the end nothing is in flight, memory has not grown, and the ledger has one row a request.
 *
 * PARE_SOAK_SECONDS says how long (default 5; `make soak`). What each client does is decided by its number.            */
#include "bed.h"

#include "serve/assets.h"

#define CLIENTS 8

static void run_tokens(upstream *u, int fd) { /* a stream of about 20 ms */
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        if (peer_left(u, fd, 1) || !say(fd, EVENT(DELTA("tok")))) {
            return;
        }
    }
    say(fd, EVENT(END_DELTA) EVENT(USAGE_CHUNK) DONE);
}

static const script scripts[] = {
    {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"tokens", NULL, NULL, RAW, CLOSE, run_tokens},
    {"trickle", NULL, NULL, RAW, CLOSE, run_trickle},
    {"silent", "", NULL, RAW, HANG, NULL},
    {"oops", "500 Oops\r\nContent-Type: application/json", "{\"error\":{\"message\":\"oops\"}}", LENGTH, KEEP, NULL},
    {"busy", "429 Busy\r\nRetry-After: 1\r\nContent-Type: application/json", "{\"error\":{\"message\":\"later\"}}",
     LENGTH, KEEP, NULL},
    {"cut", SSE_HEAD, EVENT(DELTA("hel")), CHUNKED, KEEP, NULL},
    {"reset", SSE_HEAD, EVENT(DELTA("hel")), HALF_CHUNK, RESET, NULL},
    {"closes", "", NULL, RAW, CLOSE, NULL},
    {"page", "200 OK\r\nContent-Type: text/html", "<h1>no</h1>", LENGTH, KEEP, NULL},
    {0}};

typedef struct soaker {
    pthread_t thread;
    uint64_t  random;
    int       fd, number;
    int64_t   exchanges, recalled, aborted, failed, others;
    reply     r;
    char      wrong[300]; /* the first thing that was not as it must be */
} soaker;

static bed        the;
static atomic_int over;

static uint64_t pick(soaker *s, uint64_t n) {
    return test_random(&s->random) % n;
}

static void complain(soaker *s, const char *what) {
    if (!s->wrong[0]) {
        snprintf(s->wrong, sizeof s->wrong, "%s: status %d, %s: %.150s", what, s->r.status,
                 s->r.complete ? "complete" : "cut", s->r.body.data ? s->r.body.data : "");
    }
}

static void connect_again(soaker *s) {
    if (s->fd >= 0) {
        close(s->fd);
    }
    s->fd = client_connect(the.port);
    str_free(&s->r.rest);
}

/* A question; popular ones come again and again. */
static void question(soaker *s, char *body, size_t size, const char *name, bool popular, bool stream) {
    char salt[64];
    if (popular) {
        snprintf(salt, sizeof salt, "popular %d", (int)pick(s, 40));
    } else {
        snprintf(salt, sizeof salt, "%d %llu", s->number, (unsigned long long)test_random(&s->random));
    }
    chat_body(body, size, name, salt, stream);
    s->exchanges++;
}

static void ask_whole(soaker *s, const char *name, bool popular) {
    char body[512];
    bool stream = pick(s, 2);
    question(s, body, sizeof body, name, popular, stream);
    send_post(s->fd, CHAT, pick(s, 50) ? "" : "Cache-Control: no-cache\r\n", body);
    read_reply(s->fd, &s->r, false);
    if (s->r.status != 200 || !s->r.complete || (stream && !body_has(&s->r, DONE))) {
        complain(s, name);
        connect_again(s);
    }
    s->recalled += answered_by(&s->r, "recall.exact");
}

static void ask_failing(soaker *s) {
    static const char *const names[] = {"oops", "busy", "cut", "reset", "closes", "page"};
    static const int         status[] = {500, 429, 502, 502, 502, 502};
    int                      which = (int)pick(s, 6);
    char                     body[512];
    bool                     stream = pick(s, 2), begun = stream && (which == 2 || which == 3);
    question(s, body, sizeof body, names[which], pick(s, 2), stream);
    send_post(s->fd, CHAT, "", body);
    read_reply(s->fd, &s->r, false);
    if (s->r.status != (begun ? 200 : status[which]) || !s->r.complete || body_has(&s->r, "[DONE]") ||
        !body_has(&s->r, "\"error\"")) {
        complain(s, names[which]);
        connect_again(s);
    }
    s->failed++;
}

/* Leaves while it waits, in the middle of a stream, or with the answer on its way. */
static void ask_and_leave(soaker *s) {
    static const char *const names[] = {"silent", "trickle", "tokens", "stream", "whole"};
    char                     body[512];
    str                      in = {0};
    question(s, body, sizeof body, names[pick(s, 5)], pick(s, 2), pick(s, 4) > 0);
    send_post(s->fd, CHAT, "", body);
    if (pick(s, 2)) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, (int)pick(s, 30)) > 0) {
            receive(s->fd, &in);
        }
    }
    str_free(&in);
    s->aborted++;
    connect_again(s);
}

static void ask_model(soaker *s) {
    char body[512];
    bool stream = pick(s, 2), leaves = pick(s, 3) == 0;
    snprintf(body, sizeof body,
             "{\"model\":\"storyteller\",\"messages\":[{\"role\":\"user\",\"content\":\"%d\"}],\"max_tokens\":%d,"
             "\"seed\":1,\"stream\":%s}",
             (int)pick(s, 2000), leaves ? 200 : 3, stream ? "true" : "false");
    s->exchanges++;
    send_post(s->fd, CHAT, "", body);
    if (leaves) {
        nap((int)pick(s, 20));
        s->aborted++;
        connect_again(s);
        return;
    }
    read_reply(s->fd, &s->r, false);
    if (s->r.status != 200 && s->r.status != 429) { /* 429: its queue is full */
        complain(s, "storyteller");
        connect_again(s);
    }
}

static void ask_other(soaker *s) {
    static const char *const paths[] = {"/metrics", "/api/stats?window=1h", "/api/cache",
                                        "/health",  "/v1/models",           "/x"};
    char                     text[256];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[pick(s, 6)]);
    say(s->fd, text);
    read_reply(s->fd, &s->r, false);
    if (!s->r.complete || (s->r.status != 200 && s->r.status != 404)) {
        complain(s, text);
        connect_again(s);
    }
    s->others++;
}

static void watch_dashboard(soaker *s) {
    str in = {0};
    say(s->fd, "GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n");
    if (pick(s, 2)) {
        receive(s->fd, &in);
    }
    str_free(&in);
    nap((int)pick(s, 50));
    s->others++;
    connect_again(s);
}

static void one_step(soaker *s) {
    uint64_t what = pick(s, 100);
    if (what < 45) {
        ask_whole(s, pick(s, 2) ? "whole" : "stream", true);
    } else if (what < 65) {
        static const char *const names[] = {"whole", "stream", "tokens"};
        ask_whole(s, names[pick(s, 3)], false);
    } else if (what < 75) {
        ask_failing(s);
    } else if (what < 88) {
        ask_and_leave(s);
    } else if (what < 92 && the.with_model) {
        ask_model(s);
    } else if (what < 98) {
        ask_other(s);
    } else if (what < 99) {
        watch_dashboard(s);
    } else {
        connect_again(s);
    }
}

static void *soak(void *arg) {
    soaker *s = arg;
    s->fd = -1;
    connect_again(s);
    while (!atomic_load(&over)) {
        one_step(s);
        nap((int)pick(s, 4));
    }
    close(s->fd);
    return NULL;
}

static long resident_kib(void) {
    char  line[256];
    long  kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kib = strtol(line + 6, NULL, 10);
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    return kib;
}

static void wait_ms(int64_t ms) {
    for (int64_t end = clock_us() + ms * 1000; clock_us() < end;) {
        nap(50);
    }
}

static void test_soak(void **state) {
    (void)state;
    const char *asked = getenv("PARE_SOAK_SECONDS");
    int         seconds = asked ? (int)strtol(asked, NULL, 10) : 5;
    soaker      all[CLIENTS] = {{0}};
    soaker      sum = {0};
    the.with_model = asset_find("models/storyteller.gguf") != NULL;
    bed_open_with(&the, scripts, "cache: {size: 2MiB}\n");
    for (int i = 0; i < CLIENTS; i++) {
        all[i].number = i;
        all[i].random = (uint64_t)i + 1;
        assert_int_equal(pthread_create(&all[i].thread, NULL, soak, &all[i]), 0);
    }
    wait_ms((int64_t)seconds * 400); /* pools, caches and the sanitizers' own memory have filled by then */
    long warm = resident_kib();
    wait_ms((int64_t)seconds * 600);
    atomic_store(&over, 1);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].wrong[0]) {
            fail_msg("client %d: %s", i, all[i].wrong);
        }
        sum.exchanges += all[i].exchanges;
        sum.recalled += all[i].recalled;
        sum.aborted += all[i].aborted;
        sum.failed += all[i].failed;
        sum.others += all[i].others;
        reply_free(&all[i].r);
    }
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
    long end = resident_kib();
    bed_stop(&the, 5000000);
    int64_t rows = ledger_number(&the, "SELECT count(*) FROM ledger");
    print_message("%d s: %lld requests (%lld recalled, %lld left early, %lld failed upstream, model: %s), %lld others; "
                  "%lld rows; RSS %ld -> %ld MiB\n",
                  seconds, (long long)sum.exchanges, (long long)sum.recalled, (long long)sum.aborted,
                  (long long)sum.failed, the.with_model ? "yes" : "no", (long long)sum.others, (long long)rows,
                  warm / 1024, end / 1024);
    assert_int_equal(rows, sum.exchanges);
    assert_int_equal(ledger_number(&the, "SELECT count(DISTINCT request_id) FROM ledger"), rows);
    assert_true(sum.recalled > 0 && sum.aborted > 0 && sum.failed > 0);
    if (seconds >= 30 && end > warm + warm / 5 + 16384) {
        fail_msg("memory grew from %ld to %ld KiB", warm, end);
    }
    bed_close(&the);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_soak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
