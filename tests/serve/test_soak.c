/* Everything at once for a while: hits, misses, streams, failures, clients that leave, dashboards; a remote provider and
 * the bundled model. Then the bundled model alone, asked by many more than it can serve at once, with too little memory
 * for them. At the end nothing is in flight, no block is held, memory has not grown, and the ledger has one row a
 * request.
 *
 * PARE_SOAK_SECONDS says how long (default 8; `make soak`); each of the two has half of it; PARE_SOAK_TEST=test_model_soak
 * leaves the other out. What each client does is decided by its number.                                               */
#include "bed.h"

#include "serve/assets.h"

#define CLIENTS 8
#define READERS 64 /* clients of the model */

#define PATIENCE_MS 60000

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

static int half_of_the_time(void) {
    const char *asked = getenv("PARE_SOAK_SECONDS");
    int         seconds = asked ? (int)strtol(asked, NULL, 10) : 8;
    return seconds > 2 ? seconds / 2 : 1;
}

static void test_soak(void **state) {
    (void)state;
    int    seconds = half_of_the_time();
    soaker all[CLIENTS] = {{0}};
    soaker sum = {0};
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

/* ---- the model alone ---- */

/* Conversations that begin alike: four system messages, then any number of words. */
static void story_body(soaker *s, str *out, bool stream) {
    static const char *const systems[] = {
        "You tell stories to children. Your stories are short and friendly, and animals in them can speak.",
        "You tell stories to children. Your stories are long and sad, and nobody in them ever says a word.",
        "Tell about the sea, the wind and the old man who lives in the house with the blue door. Be brief.", "Go on."};
    static const char *const words[] = {"dog", "cat", "fox", "the", "a", "and", "sea", "little", "ran", "old"};
    str_adds(out, "{\"model\":\"storyteller\",\"messages\":[{\"role\":\"system\",\"content\":\"");
    str_adds(out, systems[pick(s, 4)]);
    str_adds(out, "\"},{\"role\":\"user\",\"content\":\"");
    int most = pick(s, 30) ? (int)(pick(s, 4) ? pick(s, 20) : pick(s, 140)) : 700; /* 700: too long for the context */
    for (int i = 0; i <= most; i++) {
        str_addf(out, "%s ", words[pick(s, 3) ? (size_t)i % 10 : pick(s, 10)]);
    }
    str_addf(out, "\"}],\"max_tokens\":%d,\"seed\":%d,\"priority\":%d,\"ignore_eos\":true",
             1 + (int)pick(s, pick(s, 8) ? 24 : 200), (int)pick(s, 1000), (int)pick(s, 5) - 2);
    str_addf(out, "%s%s}", pick(s, 20) ? "" : ",\"cache_prompt\":false",
             stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
}

static int64_t number_in(const soaker *s, const char *name) {
    const char *at = s->r.body.data ? strstr(s->r.body.data, name) : NULL;
    return at ? atoll(at + strlen(name)) : -1;
}

static void check_story(soaker *s, bool stream) {
    if (s->r.status == 400) {
        s->failed++;
        if (!body_has(&s->r, "context_length_exceeded")) {
            complain(s, "refused");
        }
        return;
    }
    int64_t prompt = number_in(s, "\"prompt_tokens\":"), found = number_in(s, "\"cached_tokens\":");
    if (s->r.status != 200 || !s->r.complete || (stream && !body_has(&s->r, DONE)) || found < 0 || found >= prompt) {
        complain(s, "story");
        connect_again(s);
    }
}

/* Reads to the end, or leaves while it waits, in the middle of a stream, or with the answer on its way. */
static void one_story(soaker *s) {
    bool stream = pick(s, 2), leaves = pick(s, 3) == 0;
    str  body = {0}, in = {0};
    story_body(s, &body, stream);
    s->exchanges++;
    send_post(s->fd, CHAT,
              s->number % 2 ? "Authorization: Bearer anna-secret\r\n" : "Authorization: Bearer ben-secret\r\n",
              body.data);
    str_free(&body);
    if (!leaves) {
        /* The least urgent wait for all others, and sanitizers are slow. */
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, PATIENCE_MS) <= 0) {
            str_clear(&s->r.body);
            complain(s, "no answer in time");
            connect_again(s);
            return;
        }
        read_reply(s->fd, &s->r, false);
        check_story(s, stream);
        return;
    }
    if (pick(s, 2)) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, (int)pick(s, 100)) > 0) {
            receive(s->fd, &in);
        }
    } else {
        nap((int)pick(s, 20));
    }
    str_free(&in);
    s->aborted++;
    connect_again(s);
}

static void *read_stories(void *arg) {
    soaker *s = arg;
    s->fd = -1;
    connect_again(s);
    while (!atomic_load(&over)) {
        one_story(s);
    }
    close(s->fd);
    return NULL;
}

/* From /metrics, as an operator reads it; -1: not there. */
static double metric(const char *name) {
    char  line[128];
    reply r = {0};
    int   fd = client_connect(the.port);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer boss-secret\r\n\r\n");
    read_reply(fd, &r, false);
    close(fd);
    snprintf(line, sizeof line, "\npare_engine_%s{model=\"storyteller\"} ", name);
    const char *at = r.body.data ? strstr(r.body.data, line) : NULL;
    double      value = at ? strtod(at + strlen(line), NULL) : -1;
    reply_free(&r);
    return value;
}

static void nothing_is_held(void) {
    until(in_flight(&the) == 0 && metric("running") == 0 && metric("waiting") == 0 && metric("kv_held_blocks") == 0);
    assert_int_equal(in_flight(&the), 0);
    assert_true(metric("running") == 0 && metric("waiting") == 0 && metric("backlog_tokens") == 0);
    assert_true(metric("kv_held_blocks") == 0 && metric("kv_shared_blocks") == 0);
    assert_true(metric("kv_cached_blocks") > 0);
}

static void open_stories(char *kv_dir) {
    char line[256];
    assert_non_null(mkdtemp(kv_dir));
    /* 51 blocks: less than two full contexts for twelve sequences, so that memory is short all the time. */
    snprintf(line, sizeof line,
             "  storyteller: {file: bundled, sequences: 12, kv_memory: 2MiB, kv_disk: %s, kv_disk_size: 8MiB}\n",
             kv_dir);
    the.with_model = false;
    the.model_line = line;
    bed_open_with(&the, scripts,
                  "cache: {size: 2MiB}\nkeys:\n  - {name: anna, key: anna-secret}\n  - {name: ben, key: ben-secret}\n"
                  "  - {name: boss, key: boss-secret, admin: true}\n");
    the.model_line = NULL;
}

static void test_model_soak(void **state) {
    (void)state;
    static soaker all[READERS];
    soaker        sum = {0};
    int           seconds = half_of_the_time();
    char          kv_dir[] = "/tmp/pare-soak-kv-XXXXXX";
    if (!asset_find("models/storyteller.gguf")) {
        print_message("skipped: the bundled model is not here\n");
        skip();
    }
    open_stories(kv_dir);
    atomic_store(&over, 0);
    for (int i = 0; i < READERS; i++) {
        all[i] = (soaker){.number = i, .random = (uint64_t)i + 1000};
        assert_int_equal(pthread_create(&all[i].thread, NULL, read_stories, &all[i]), 0);
    }
    wait_ms((int64_t)seconds * 500);
    long middle = resident_kib();
    wait_ms((int64_t)seconds * 500);
    atomic_store(&over, 1);
    for (int i = 0; i < READERS; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].wrong[0]) {
            fail_msg("reader %d: %s", i, all[i].wrong);
        }
        sum.exchanges += all[i].exchanges;
        sum.aborted += all[i].aborted;
        sum.failed += all[i].failed;
        reply_free(&all[i].r);
    }
    nothing_is_held();
    long   end = resident_kib();
    double hits = metric("kv_hit_tokens_total"), lookups = metric("kv_lookup_tokens_total");
    print_message("%d s: %lld requests of %d clients (%lld left early, %lld too long), %.0f %% of prompt tokens found, "
                  "%.0f preempted, %.0f blocks evicted, %.0f from disk; RSS %ld -> %ld MiB\n",
                  seconds, (long long)sum.exchanges, READERS, (long long)sum.aborted, (long long)sum.failed,
                  100 * hits / lookups, metric("preempted_total"), metric("kv_evicted_blocks_total"),
                  metric("kv_disk_read_blocks_total"), middle / 1024, end / 1024);
    assert_true(hits > 0 && hits < lookups && sum.aborted > 0);
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), sum.exchanges);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE cached_tokens > prompt_tokens"), 0);
    /* A short run still fills its pools in the second half: 64 MiB. A long one has: 16 MiB and a twentieth. */
    long bound = seconds < 30 ? middle + 65536 : middle + middle / 20 + 16384;
    if (end > bound) {
        fail_msg("memory grew from %ld to %ld KiB; %ld is the bound", middle, end, bound);
    }
    bed_close(&the);
    nftw(kv_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_soak), cmocka_unit_test(test_model_soak)};
    const char             *only = getenv("PARE_SOAK_TEST");
    if (only) {
        cmocka_set_test_filter(only);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
