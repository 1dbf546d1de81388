/* The fault run: six providers that fail at random, behind models with several targets, fallbacks, retries and hedges, and
 * sixteen clients of two APIs. Each request is answered right, or fails with a clear error: a status with a sentence, or an
 * error event where a stream had begun. At the end the ledger has each request once, what it says the answers cost is
 * what the providers billed for the answers that arrived, nothing is in flight and memory has not grown.
 *
 * PARE_FAULT_SECONDS says how long (default 8; `make faults`: 600). What happens is drawn by chance from a fixed seed; in
 * which order the threads come is not fixed.                                                                         */
#include "bed.h"

#define CLIENTS   16
#define PROVIDERS 6
#define ANSWERS   (1 << 18) /* of one provider; a row of the table below */
#define MESSAGES  "/v1/messages"

/* ---- providers ---- */

/* What a provider billed for each of its answers, in nano-dollars; the top bit: a client has it whole. */
#define ARRIVED 0x80000000u
static _Atomic uint32_t billed[PROVIDERS][ANSWERS];
static atomic_int       answers[PROVIDERS];
static upstream         ups[PROVIDERS];
static _Atomic uint64_t dice = 1;
static atomic_int       played[12]; /* how often each part was played */

static uint64_t roll(uint64_t n) {
    uint64_t state = atomic_fetch_add(&dice, 0x9E3779B97F4A7C15u);
    return test_random(&state) % n;
}

/* Provider i takes i + 1 dollars a million tokens in and twice as much for those out. */
static uint32_t bill(int provider, int prompt, int completion) {
    return (uint32_t)((provider + 1) * 1000 * (prompt + 2 * completion));
}

typedef struct good_answer {
    int  prompt, completion;
    char text[80];
} good_answer;

/* It says who answered, and which answer it was: "from 3 number 17 of 40 and 12 end". */
static good_answer new_answer(const upstream *u) {
    int         provider = (int)(u - ups), number = atomic_fetch_add(&answers[provider], 1);
    good_answer a = {.prompt = 1 + (int)roll(1000), .completion = 1 + (int)roll(200)};
    if (number < ANSWERS) {
        atomic_store(&billed[provider][number], bill(provider, a.prompt, a.completion));
    }
    snprintf(a.text, sizeof a.text, "from %d number %d of %d and %d end", provider, number, a.prompt, a.completion);
    return a;
}

static void write_usage(const good_answer *a, str *out) {
    str_addf(out, "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}", a->prompt,
             a->completion, a->prompt + a->completion);
}

static void write_whole(const good_answer *a, str *out) {
    str_addf(out,
             "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,"
             "\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],",
             a->text);
    write_usage(a, out);
    str_addc(out, '}');
}

/* Payloads of a stream: the text in pieces of seven bytes, the end, the usage. */
static void write_pieces(const good_answer *a, size_t most, str *out) {
    size_t n = strlen(a->text);
    for (size_t at = 0; at < n && at < most; at += 7) {
        str_addf(out,
                 "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{"
                 "\"index\":0,\"delta\":{\"content\":\"%.7s\"},\"finish_reason\":null}]}\n\n",
                 a->text + at);
    }
}

static void write_end(const good_answer *a, str *out) {
    str_adds(out, EVENT(END_DELTA) "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],");
    write_usage(a, out);
    str_adds(out, "}\n\n" DONE);
}

static void say_framed(int fd, const char *head, const str *body, size_t promised) {
    str out = {0};
    str_addf(&out, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", head, promised);
    str_add(&out, body->data ? body->data : "", body->len);
    send_all(fd, out.data, out.len);
    str_free(&out);
}

static void answer_whole(upstream *u, int fd) {
    good_answer a = new_answer(u);
    str         body = {0};
    write_whole(&a, &body);
    say_framed(fd, JSON_HEAD, &body, body.len);
    str_free(&body);
}

static void answer_stream(upstream *u, int fd) {
    good_answer a = new_answer(u);
    str         body = {0};
    write_pieces(&a, sizeof a.text, &body);
    write_end(&a, &body);
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (size_t at = 0; at < body.len; at += 200) { /* in bites, some of which take a moment */
        send_all(fd, body.data + at, body.len - at < 200 ? body.len - at : 200);
        if (roll(8) == 0) {
            nap(2);
        }
    }
    str_free(&body);
}

/* Half of what was promised, and then: the connection is reset, just ends, or nothing more comes. */
static void break_off(upstream *u, int fd, bool stream, int how) {
    good_answer a = {.prompt = 5, .completion = 5, .text = "this will never come to its end"};
    str         body = {0};
    if (stream) {
        write_pieces(&a, 15, &body);
        str_adds(&body, roll(2) ? "" : "data: {\"choices\":[{\"ind");
        say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
        send_all(fd, body.data, body.len);
    } else {
        write_whole(&a, &body);
        size_t n = body.len;
        body.len /= 2;
        say_framed(fd, JSON_HEAD, &body, n);
    }
    str_free(&body);
    nap(5); /* the other side has it before the reset takes it away */
    if (how == 0) {
        reset_connection(fd);
    } else if (how == 1) {
        peer_left(u, fd, 5000);
    }
}

static void refuse(int fd, const char *head, const char *sentence) {
    str body = {0};
    str_addf(&body, "{\"error\":{\"message\":\"%s\",\"type\":\"t\"}}", sentence);
    say_framed(fd, head, &body, body.len);
    str_free(&body);
}

/* An error inside an answer that has begun well. */
static void fail_inside(int fd, bool stream) {
    good_answer a = {.text = "some words"};
    str         body = {0};
    if (!stream) {
        refuse(fd, JSON_HEAD, "the model is asleep");
        return;
    }
    write_pieces(&a, 14, &body);
    str_adds(&body, "data: {\"error\":{\"message\":\"the model fell asleep\"}}\n\n");
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    send_all(fd, body.data, body.len);
    str_free(&body);
}

static void play(upstream *u, int fd, bool stream) {
    uint64_t part = roll(20);
    atomic_fetch_add(&played[part > 9 ? 11 : part], 1);
    switch (part) {
    case 0: /* refuses: no byte of an answer */
        reset_connection(fd);
        return;
    case 1:
        break_off(u, fd, stream, 0);
        return;
    case 2:
        break_off(u, fd, stream, 1);
        return;
    case 3:
        break_off(u, fd, stream, 2);
        return;
    case 4:
        refuse(fd,
               roll(2) ? "429 Busy\r\nContent-Type: application/json\r\nRetry-After: 1"
                       : "429 Busy\r\nContent-Type: application/json",
               "too many of you");
        return;
    case 5:
        refuse(fd, roll(2) ? "500 Oops\r\nContent-Type: application/json" : "503 No\r\nContent-Type: text/html",
               "oops");
        return;
    case 6: /* hangs past the limit */
        peer_left(u, fd, 5000);
        return;
    case 7:
        say(fd, roll(2) ? "SSH-2.0-OpenSSH_9.2\r\n" : "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<h1>hello");
        return;
    case 8:
        fail_inside(fd, stream);
        return;
    case 9: /* slow, but within the limit */
        nap(20 + (int)roll(150));
        break;
    default:
        break;
    }
    if (stream) {
        answer_stream(u, fd);
    } else {
        answer_whole(u, fd);
    }
}

static void play_whole(upstream *u, int fd) {
    play(u, fd, false);
}

static void play_stream(upstream *u, int fd) {
    play(u, fd, true);
}

static const script scripts[] = {
    {"whole", NULL, NULL, RAW, CLOSE, play_whole}, {"stream", NULL, NULL, RAW, CLOSE, play_stream}, {0}};

/* ---- the house ---- */

static bed the;

/* "s_row" and "w_row" and so on: a model answers streams or whole answers, which its name at the providers tells them. */
static void write_models(const char *form, str *out) {
    const char *at = strcmp(form, "s") == 0 ? "@stream" : "@whole";
    const char *more = "retries: 3, pause: 5ms, longest_pause: 60ms, circuit: {failures: 4, open: 200ms}";
#define TARGET(i, weight) "{backend: u" #i ", model: '%1$s', price: p" #i ", weight: " #weight "}"
    str_addf(
        out,
        "  %2$s_row: {targets: [" TARGET(0, 3) ", " TARGET(1, 1) ", " TARGET(
            2,
            1) "], "
               "fallbacks: [{backend: u3, model: '%1$s', price: p3}, {backend: u4, model: '%1$s', price: p4}], %3$s}\n"
               "  %2$s_quick: {targets: [" TARGET(3, 1) ", " TARGET(4, 1) ", " TARGET(
                   5, 1) "], balance: latency, "
                         "hedge: {percent: 50, after: 40ms}, %3$s}\n"
                         "  %2$s_gone: {targets: [{backend: nobody, model: '%1$s', price: p0}], "
                         "fallbacks: [{backend: u5, model: '%1$s', price: p5}], %3$s}\n"
                         "  %2$s_alone: {backend: u2, model: '%1$s', price: p2, retries: 0}\n",
        at, form, more);
#undef TARGET
}

static void open_house(void) {
    str models = {0}, prices = {0}, backends = {0};
    write_models("w", &models);
    write_models("s", &models);
    for (int i = 0; i < PROVIDERS; i++) {
        assert_true(upstream_start(&ups[i], scripts));
        str_addf(&prices, "  p%d: {input: %d, output: %d}\n", i, i + 1, 2 * (i + 1));
        str_addf(&backends,
                 "  u%d: {base_url: \"http://127.0.0.1:%d/v1\", "
                 "timeouts: {connect: 1s, first: 400ms, between: 400ms, total: 4s}}\n",
                 i, ups[i].port);
    }
    str_adds(&backends, "  nobody: {base_url: \"http://127.0.0.1:1/v1\"}\ncache: {size: 2MiB}\n"); /* soon full */
    the.model_line = models.data;
    the.price_lines = prices.data;
    bed_open_with(&the, scripts, backends.data);
    str_free(&models);
    str_free(&prices);
    str_free(&backends);
}

/* ---- clients ---- */

typedef struct caller {
    pthread_t thread;
    uint64_t  random;
    int       fd, number;
    int64_t   sent, good, refused, broken;
    int64_t   cost; /* of the good ones, nano-dollars, from what they say of themselves */
    reply     r;
    char      wrong[600]; /* the first thing that was not as it must be */
} caller;

static atomic_int over;

static uint64_t pick(caller *c, uint64_t n) {
    return test_random(&c->random) % n;
}

static void complain(caller *c, const char *what) {
    if (!c->wrong[0]) {
        snprintf(c->wrong, sizeof c->wrong, "%s: status %d, %s: %.400s", what, c->r.status,
                 c->r.complete ? "complete" : "cut", c->r.body.data ? c->r.body.data : "");
    }
}

static void connect_again(caller *c) {
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = client_connect(the.port);
    str_free(&c->r.rest);
}

/* The answer's words: of a stream, of all its deltas, in either API. */
static void words_of(const reply *r, str *out) {
    static const char *const keys[] = {"\"content\":\"", "\"text\":\""};
    for (const char *line = r->body.data; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        size_t n = strcspn(line, "\n");
        for (size_t i = 0; i < 2; i++) {
            const char *at = memmem(line, n, keys[i], strlen(keys[i]));
            if (at) {
                at += strlen(keys[i]);
                str_add(out, at, strcspn(at, "\""));
            }
        }
    }
}

/* A good answer is whole, was given once and to one client, and its usage is the provider's. */
static void check_good(caller *c, bool anthropic) {
    int  provider, number, prompt, completion, end = 0;
    char said[64];
    str  words = {0};
    words_of(&c->r, &words);
    bool read = words.data && sscanf(words.data, "from %d number %d of %d and %d end%n", &provider, &number, &prompt,
                                     &completion, &end) == 4;
    if (!read || end != (int)words.len || provider < 0 || provider >= PROVIDERS || number < 0) {
        complain(c, "not what the provider said");
    } else {
        uint32_t cost = bill(provider, prompt, completion);
        snprintf(said, sizeof said, anthropic ? "\"input_tokens\":%d," : "\"prompt_tokens\":%d,", prompt);
        if (number < ANSWERS && atomic_fetch_or(&billed[provider][number], ARRIVED) != cost) {
            complain(c, "this answer was another one's, or came twice");
        }
        if (!body_has(&c->r, said)) {
            complain(c, "the usage is not the provider's");
        }
        c->good++;
        c->cost += cost;
    }
    str_free(&words);
}

static bool has_sentence(const reply *r) {
    const char *at = r->body.data ? strstr(r->body.data, "\"message\":\"") : NULL;
    return at && strcspn(at + strlen("\"message\":\""), "\"") > 3 && body_has(r, "\"error\":");
}

static void check(caller *c, bool anthropic, bool stream) {
    const reply *r = &c->r;
    const char  *end = anthropic ? "data: {\"type\":\"message_stop\"}\n\n" : DONE;
    size_t       n = strlen(end);
    bool         ended = r->body.len >= n && memcmp(r->body.data + r->body.len - n, end, n) == 0;
    bool         error = body_has(r, anthropic ? "\nevent: error\n" : "data: {\"error\":");
    if (!r->complete) {
        complain(c, "cut off");
    } else if (r->status == 200 && (!stream || (ended && !error))) {
        check_good(c, anthropic);
    } else if (r->status == 200) {
        c->broken++;
        if (ended || !error || !has_sentence(r) || body_has(r, "[DONE]") || body_has(r, "message_stop")) {
            complain(c, "neither a clean end nor an error");
        }
    } else {
        c->refused++;
        bool known = r->status == 429 || (r->status >= 500 && r->status <= 504);
        if (!known || !(has_sentence(r) || r->status == 503)) {
            complain(c, "an error that says nothing");
        }
    }
}

static void one_call(caller *c) {
    static const char *const models[] = {"row", "row", "quick", "gone", "alone"};
    bool                     stream = pick(c, 2), anthropic = pick(c, 3) == 0;
    char                     body[512];
    if (pick(c, 20) == 0) {
        connect_again(c);
    }
    snprintf(body, sizeof body,
             "{\"model\":\"%s_%s\",\"max_tokens\":300,\"messages\":[{\"role\":\"user\",\"content\":\"%d %llu\"}]%s%s}",
             stream ? "s" : "w", models[pick(c, 5)], c->number, (unsigned long long)test_random(&c->random),
             stream ? ",\"stream\":true" : "",
             stream && !anthropic ? ",\"stream_options\":{\"include_usage\":true}" : "");
    c->sent++;
    send_post(c->fd, anthropic ? MESSAGES : CHAT, "anthropic-version: 2023-06-01\r\n", body);
    read_reply(c->fd, &c->r, false);
    check(c, anthropic, stream);
    if (!c->r.complete || c->r.closed) {
        connect_again(c);
    }
}

static void *call_on(void *arg) {
    caller *c = arg;
    c->fd = -1;
    connect_again(c);
    while (!atomic_load(&over)) {
        one_call(c);
        nap((int)pick(c, 3));
    }
    close(c->fd);
    return NULL;
}

/* ---- the run ---- */

static long resident_kib(void) {
    char  line[256];
    long  kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && kib == 0 && fgets(line, sizeof line, f)) {
        kib = strncmp(line, "VmRSS:", 6) == 0 ? strtol(line + 6, NULL, 10) : 0;
    }
    if (f) {
        fclose(f);
    }
    return kib;
}

static int64_t billed_and_arrived(void) {
    int64_t sum = 0;
    for (int i = 0; i < PROVIDERS; i++) {
        for (int k = 0; k < ANSWERS; k++) {
            uint32_t nano = atomic_load(&billed[i][k]);
            sum += nano & ARRIVED ? nano & ~ARRIVED : 0;
        }
    }
    return sum;
}

static caller run_clients(int seconds, long *warm) {
    static caller all[CLIENTS];
    caller        sum = {0};
    for (int i = 0; i < CLIENTS; i++) {
        all[i] = (caller){.number = i, .random = (uint64_t)i + 77};
        assert_int_equal(pthread_create(&all[i].thread, NULL, call_on, &all[i]), 0);
    }
    nap(seconds * 400);
    *warm = resident_kib();
    nap(seconds * 600);
    atomic_store(&over, 1);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].wrong[0]) {
            fail_msg("client %d: %s", i, all[i].wrong);
        }
        sum.sent += all[i].sent;
        sum.good += all[i].good;
        sum.refused += all[i].refused;
        sum.broken += all[i].broken;
        sum.cost += all[i].cost;
        reply_free(&all[i].r);
    }
    return sum;
}

static int64_t rows(const char *where) {
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM ledger WHERE %s", where);
    return ledger_number(&the, sql);
}

static void test_faults(void **state) {
    (void)state;
    const char *asked = getenv("PARE_FAULT_SECONDS");
    int         seconds = asked && atoi(asked) > 0 ? atoi(asked) : 8;
    long        warm;
    memset(billed, 0, sizeof billed); /* its pages are there before memory is looked at */
    open_house();
    caller sum = run_clients(seconds, &warm);
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
    long end = resident_kib();
    bed_stop(&the, 5000000);
    for (int i = 0; i < PROVIDERS; i++) {
        upstream_stop(&ups[i]);
    }
    int64_t tries = rows("attempt > 0");
    int64_t cost = ledger_number(&the, "SELECT sum(cost_nano) FROM ledger WHERE attempt = 0 AND outcome = 'ok'");
    print_message("%d s: %lld requests: %lld answered, %lld refused, %lld streams broken; %lld further tries billed; "
                  "$%.6f; RSS %ld -> %ld MiB\n",
                  seconds, (long long)sum.sent, (long long)sum.good, (long long)sum.refused, (long long)sum.broken,
                  (long long)tries, (double)cost / 1e9, warm / 1024, end / 1024);
    assert_int_equal(sum.good + sum.refused + sum.broken, sum.sent);
    assert_int_equal(rows("attempt = 0"), sum.sent);
    assert_int_equal(ledger_number(&the, "SELECT count(DISTINCT request_id) FROM ledger"), sum.sent);
    assert_int_equal(rows("attempt = 0 AND outcome = 'ok' AND status = 200"), sum.good);
    assert_int_equal(rows("attempt = 0 AND outcome = 'error'"), sum.refused + sum.broken);
    assert_int_equal(rows("attempt = 0 AND outcome = 'ok' AND counted"), 0); /* every good answer said its usage */
    assert_int_equal(cost, sum.cost);
    assert_int_equal(cost, billed_and_arrived());
    assert_true(sum.good > sum.sent / 2 && sum.refused > 0 && sum.broken > 0 && tries > 0);
    for (int i = 0; i < 10; i++) { /* everything happened */
        assert_true(atomic_load(&played[i]) > 0);
    }
    long bound = seconds < 30 ? warm + 65536 : warm + warm / 5 + 16384;
    if (end > bound) {
        fail_msg("memory grew from %ld to %ld KiB; %ld is the bound", warm, end, bound);
    }
    bed_close(&the);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
