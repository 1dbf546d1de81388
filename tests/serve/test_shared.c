/* Limits that two nodes share through a real Redis: never passed together; and a Redis that dies, hangs, forgets and comes
 * back. Skipped where redis-server is not installed. */
#include "bed.h"

#include <sys/wait.h>

#include "stage/shared.h"

static bed one, two, *const nodes[] = {&one, &two};
static reply r;
static pid_t redis_pid;
static int   redis_port;

/* ---- Redis ---- */

static int free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static bool redis_answers(void) {
    char answer[16] = "";
    int  fd = client_connect(redis_port);
    bool good = fd >= 0 && say(fd, "AUTH s%cret\r\nPING\r\n") && recv(fd, answer, 5, 0) == 5;
    if (fd >= 0) {
        close(fd);
    }
    return good;
}

static void start_redis(void) {
    char port[16];
    snprintf(port, sizeof port, "%d", redis_port);
    redis_pid = fork();
    if (redis_pid == 0) {
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly",
               "no", "--requirepass", "s%cret", "--loglevel", "warning", "--logfile", "/dev/null", (char *)NULL);
        _exit(127);
    }
    until(redis_answers());
}

static void kill_redis(void) {
    if (redis_pid > 0) {
        kill(redis_pid, SIGKILL);
        waitpid(redis_pid, NULL, 0);
        redis_pid = 0;
    }
}

/* Something that is said to Redis outside pare. */
static void tell_redis(const char *text) {
    char answer[256];
    int  fd = client_connect(redis_port);
    assert_true(fd >= 0);
    say(fd, "AUTH s%cret\r\nSELECT 3\r\n");
    say(fd, text);
    assert_true(recv(fd, answer, sizeof answer, 0) > 0);
    nap(50);
    close(fd);
}

/* ---- two nodes ---- */

static void run_endless(upstream *u, int fd) {
    str twenty = {0};
    for (int i = 0; i < 20; i++) {
        str_adds(&twenty, EVENT(DELTA("tok ")));
    }
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 5000 && !atomic_load(&u->stop) && send_all(fd, twenty.data, twenty.len); i++) {
        nap(20);
    }
    str_free(&twenty);
}

/* Long enough for a hedge to go out. */
static void run_late(upstream *u, int fd) {
    char head[128];
    (void)u;
    nap(300);
    snprintf(head, sizeof head, "HTTP/1.1 " JSON_HEAD "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
             strlen(WHOLE));
    say(fd, head);
    say(fd, WHOLE);
}

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"endless", NULL, NULL, RAW, CLOSE, run_endless},
                                 {"late", NULL, NULL, RAW, CLOSE, run_late},
                                 {"half", JSON_HEAD, WHOLE, TOO_LONG, CLOSE, NULL},
                                 {0}};

static void open_nodes(const char *rules) {
    char more[512];
    redis_port = free_port();
    start_redis();
    snprintf(more, sizeof more,
             "groups:\n  team: {%s}\nkeys:\n  - {name: k, key: secret-k-1, group: team, streams: 500}\n"
             "shared: {redis: 'redis://:s%%25cret@127.0.0.1:%d/3', share: 0.25}\n",
             rules, redis_port);
    for (int i = 0; i < 2; i++) {
        *nodes[i] = (bed){
            .model_line = "  n: {backend: second, model: gpt, retries: 0}\n"
                          "  again: {backend: second, model: gpt, retries: 2, pause: 1ms, circuit: {failures: 99}}\n"
                          "  twice: {backend: second, model: gpt, retries: 0, hedge: {percent: 100, "
                          "after: 30ms}}\n"};
        bed_open_with(nodes[i], scripts, more);
    }
    until(shared_up(nodes[0]->house->shared) && shared_up(nodes[1]->house->shared));
    assert_true(shared_up(nodes[0]->house->shared) && shared_up(nodes[1]->house->shared));
}

static void check_settled(void) {
    for (int k = 0; k < 2; k++) {
        account_state all[8];
        until(in_flight(nodes[k]) == 0);
        int n = limits_states(nodes[k]->house->limits, all, 8, clock_wall_us());
        for (int i = 0; i < n; i++) {
            assert_int_equal(all[i].held, 0);
            assert_int_equal(all[i].streams, 0);
        }
    }
}

static int check_redis(void **state) {
    (void)state;
    if (system("command -v redis-server >/dev/null 2>&1") != 0) {
        print_message("redis-server is not installed (apt-get install redis-server): skipped\n");
        skip();
    }
    return 0;
}

static int close_nodes(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (nodes[i]->settings) { /* else this test did not come so far */
            bed_close(nodes[i]);
            *nodes[i] = (bed){0};
        }
    }
    kill_redis();
    reply_free(&r);
    return 0;
}

#define KEY "Authorization: Bearer secret-k-1\r\nCache-Control: no-cache\r\n"

static int chat_with(int node, const char *model, const char *name, const char *more) {
    char body[256];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"@%s\"}]%s}", model,
             name, more);
    post(nodes[node]->port, CHAT, KEY, body, &r);
    return r.status;
}

static int chat(int node, const char *name, const char *more) {
    return chat_with(node, "n", name, more);
}

static bool health_says(int node, const char *part) {
    int fd = client_connect(nodes[node]->port);
    reply_free(&r);
    say(fd, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    read_reply(fd, &r, false);
    close(fd);
    return r.status == 200 && body_has(&r, part);
}

static void test_one_budget(void **state) {
    (void)state;
    enum { EACH = 60 };
    static int fds[2][EACH];
    char       body[256];
    int        ended[2] = {0}, refused = 0;
    int64_t    budget = 20000000; /* about two thirds of what is asked for */
    open_nodes("money_day: 0.02");
    for (int i = 0; i < 2 * EACH; i++) {
        snprintf(body, sizeof body,
                 "{\"model\":\"n\",\"stream\":true,\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":"
                 "\"@endless %d\"}]}",
                 i);
        fds[i % 2][i / 2] = client_connect(nodes[i % 2]->port);
        assert_true(send_post(fds[i % 2][i / 2], CHAT, KEY, body));
    }
    for (int i = 0; i < 2 * EACH; i++) {
        reply_free(&r);
        read_reply(fds[i % 2][i / 2], &r, false);
        close(fds[i % 2][i / 2]);
        refused += r.status == 402;
        ended[i % 2] +=
            r.status == 200 && r.complete && body_has(&r, "[DONE]") && body_has(&r, "\"finish_reason\":\"length\"");
    }
    assert_int_equal(refused + ended[0] + ended[1], 2 * EACH);
    check_settled();
    bed_stop(nodes[0], 5000000);
    bed_stop(nodes[1], 5000000);
    int64_t sum = ledger_number(nodes[0], "SELECT sum(cost_nano) FROM ledger") +
                  ledger_number(nodes[1], "SELECT sum(cost_nano) FROM ledger");
    print_message("%d and %d streams, %d refused: %lld of %lld nano-dollars\n", ended[0], ended[1], refused,
                  (long long)sum, (long long)budget);
    assert_true(sum <= budget && sum >= budget / 10 * 9);
    assert_true(ended[0] > 5 && ended[1] > 5 && refused > 0);
}

static void test_one_minute(void **state) {
    (void)state;
    int passed = 0;
    open_nodes("requests_minute: 7");
    while (clock_wall_us() / 1000000 % 60 > 55) {
        nap(200);
    }
    for (int i = 0; i < 16; i++) {
        int status = chat(i % 2, "whole", "");
        assert_true(status == 200 || status == 429);
        passed += status == 200;
    }
    assert_int_equal(passed, 7);
    assert_true(body_has(&r, "group team"));
}

/* 13000 nano-dollars an answer; the whole answer of 16 tokens has to be covered beforehand. */
static void test_killed_and_back(void **state) {
    (void)state;
    int passed = 0;
    open_nodes("money_day: 0.001");
    assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    assert_int_equal(chat(1, "whole", ",\"max_tokens\":16"), 200);
    assert_true(health_says(0, "\"limits\":\"shared\""));
    kill_redis();
    for (int i = 0; i < 40; i++) { /* go on, with a quarter of the budget: 250000 */
        int64_t began = clock_us();
        int     status = chat(0, "whole", ",\"max_tokens\":16");
        assert_true(status == 200 || status == 402);
        assert_true(clock_us() - began < 2000000);
        passed += status == 200;
    }
    assert_in_range(passed, 12, 18); /* (250000 - 13000) / 13000, less what the last must cover */
    assert_true(health_says(0, "\"limits\":\"local\"") && health_says(0, "\"status\":\"ok\""));
    start_redis(); /* with nothing in it */
    until(health_says(0, "\"limits\":\"shared\"") && health_says(1, "\"limits\":\"shared\""));
    assert_true(health_says(0, "\"limits\":\"shared\"") && health_says(1, "\"limits\":\"shared\""));
    assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"),
                     200); /* node 0 may have all of it again, and says what it spent */
    int more = 0;
    for (int i = 0; i < 80; i++) {
        more += chat(1, "whole", ",\"max_tokens\":16") == 200;
    }
    check_settled();
    int64_t spent = (passed + more + 3) * 13000LL;
    assert_true(spent <= 1000000 && spent > 900000);
}

static void test_hung(void **state) {
    (void)state;
    open_nodes("money_day: 0.01");
    assert_int_equal(chat(0, "whole", ""), 200);
    kill(redis_pid, SIGSTOP);
    int64_t began = clock_us();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    }
    assert_true(clock_us() - began < 5000000); /* the first waits for 50 ms, the others for nothing */
    assert_true(health_says(0, "\"limits\":\"local\""));
    kill(redis_pid, SIGCONT);
    until(health_says(0, "\"limits\":\"shared\""));
    assert_true(health_says(0, "\"limits\":\"shared\""));
    assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    check_settled();
}

static void test_forgotten_scripts(void **state) {
    (void)state;
    open_nodes("money_day: 0.01");
    assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    tell_redis("SCRIPT FLUSH\r\n");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    }
    until(health_says(0, "\"limits\":\"shared\""));
    assert_true(health_says(0, "\"limits\":\"shared\""));
    tell_redis("SET pare:g:team:h nonsense\r\n"); /* somebody else's hand: an error of the script */
    assert_int_equal(chat(0, "whole", ",\"max_tokens\":16"), 200);
    tell_redis("DEL pare:g:team:h\r\n");
    until(health_says(0, "\"limits\":\"shared\""));
    check_settled();
}

/* max_tokens of a request of which one try fits into what both nodes have left of 0.002 dollars, and a second does not:
 * its prompt is held as about 15000 nano-dollars, a token and its margin as 2400. */
static const char *most_of_the_rest(void) {
    static char text[64];
    int64_t     left = 2000000;
    check_settled();
    for (int k = 0; k < 2; k++) {
        account_state all[8];
        int           n = limits_states(nodes[k]->house->limits, all, 8, clock_wall_us());
        for (int i = 0; i < n; i++) {
            left -= all[i].kind == 'g' ? all[i].nano_day : 0;
        }
    }
    snprintf(text, sizeof text, ",\"max_tokens\":%d", (int)((left * 3 / 4 - 15000) / 2400));
    return text;
}

static int tries_of(const char *model, const char *name, const char *more, int status) {
    int before = atomic_load(&nodes[0]->up.requests);
    assert_int_equal(chat_with(0, model, name, more), status);
    return atomic_load(&nodes[0]->up.requests) - before;
}

/* What the other node has spent counts for further tries too. */
static void test_further_tries(void **state) {
    (void)state;
    open_nodes("money_day: 0.002");
    assert_int_equal(tries_of("twice", "late", ",\"max_tokens\":100", 200), 2);
    assert_int_equal(tries_of("again", "half", ",\"max_tokens\":100", 502), 3);
    for (int i = 0; i < 5; i++) { /* 200000 nano-dollars each */
        assert_int_equal(chat(1, "endless", ",\"max_tokens\":100,\"stream\":true"), 200);
    }
    assert_int_equal(tries_of("twice", "late", most_of_the_rest(), 200), 1);
    assert_int_equal(tries_of("again", "half", most_of_the_rest(), 502), 1);
    assert_true(body_has(&r, "not tried again"));
    assert_true(shared_up(nodes[0]->house->shared));
    check_settled();
}

/* Redis dies and comes back while requests run at both nodes: none fails. */
static void test_under_way(void **state) {
    (void)state;
    int failed = 0;
    open_nodes("money_day: 1");
    for (int round = 0; round < 3; round++) {
        int fds[40];
        for (int i = 0; i < 40; i++) {
            char body[256];
            snprintf(body, sizeof body,
                     "{\"model\":\"n\",\"stream\":true,\"max_tokens\":60,\"messages\":[{\"role\":\"user\",\"content\":"
                     "\"@endless %d %d\"}]}",
                     round, i);
            fds[i] = client_connect(nodes[i % 2]->port);
            send_post(fds[i], CHAT, KEY, body);
            if (i == 20) {
                kill_redis();
            }
        }
        start_redis();
        for (int i = 0; i < 40; i++) {
            reply_free(&r);
            read_reply(fds[i], &r, false);
            close(fds[i]);
            failed += !(r.status == 200 && r.complete && body_has(&r, "[DONE]"));
        }
        until(health_says(0, "\"limits\":\"shared\"") && health_says(1, "\"limits\":\"shared\""));
    }
    assert_int_equal(failed, 0);
    check_settled();
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, check_redis, close_nodes)
    const struct CMUnitTest tests[] = {T(test_one_budget), T(test_one_minute),        T(test_killed_and_back),
                                       T(test_hung),       T(test_forgotten_scripts), T(test_further_tries),
                                       T(test_under_way)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
