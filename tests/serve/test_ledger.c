/* A ledger that equals the invoice: every file of tests/ledger/ holds what a provider says of an answer, in the form that
 * it documents, a price, and the amount worked out by hand. Each goes the whole way: client, pare, a provider that says
 * just that, the row in the database.
 *
 *   source      where the provider documents the shape
 *   dialect     the provider's; default openai.      path: the client's; default chat completions
 *   price       as in pare.yaml.                     model: targets of the model, for tries
 *   answer      what the provider sends: JSON, or a stream of server-sent events
 *   answers     the same by the provider's name of the model; "!cut" breaks off, "!429" has that status, with "!late"
 *               whoever asks first hears nothing
 *   status      the provider's; default 200.         ending: "reset" or "hang" behind the answer
 *   client      "leaves" when the first token has come
 *   rows        columns of the rows that the ledger must have, in order                                             */
#include <dirent.h>
#include <sys/stat.h>

#include "bed.h"

#define DIRECTORY "tests/ledger"
#define MAX_CASES 64

typedef struct ledger_case {
    char               name[64];
    config            *file;
    const config_node *root;
} ledger_case;

static ledger_case cases[MAX_CASES];
static int         n_cases;
static script      scripts[2 * MAX_CASES + 1];
static int         n_scripts;
static bed         the;

static const char *text_in(const ledger_case *c, const config_node *n, const char *key, const char *otherwise) {
    const char *text = otherwise;
    err         e = {0};
    assert_ok(config_string(c->file, n, key, &text, &e), e);
    return text;
}

static const char *text_of(const ledger_case *c, const char *key, const char *otherwise) {
    return text_in(c, c->root, key, otherwise);
}

static const char *late_body;
static atomic_int  late_asked;

/* Whoever asks first waits for nothing; the next one is answered. */
static void run_late(upstream *u, int fd) {
    str out = {0};
    if (atomic_fetch_add(&late_asked, 1) == 0) {
        peer_left(u, fd, 20000);
        return;
    }
    str_addf(&out, "HTTP/1.1 " JSON_HEAD "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(late_body),
             late_body);
    send_all(fd, out.data, out.len);
    str_free(&out);
}

/* Half of it, and then the connection is gone. */
static void add_cut(script *s, const char *body) {
    *s = (script){.name = s->name, .head = JSON_HEAD, .body = body, .framing = TOO_LONG, .ending = CLOSE};
}

static void add_script(const char *name, const char *body, int status, const char *ending) {
    script *s = &scripts[n_scripts++];
    char   *head = NULL, *sent = NULL;
    bool    stream = strncmp(body, "data:", 5) == 0 || strncmp(body, "event:", 6) == 0;
    assert_true(n_scripts < (int)(sizeof scripts / sizeof scripts[0]));
    *s = (script){.name = name};
    if (strncmp(body, "!late ", 6) == 0) {
        late_body = body + 6;
        s->run = run_late;
        return;
    }
    if (strncmp(body, "!cut ", 5) == 0) {
        add_cut(s, body + 5);
        return;
    }
    if (body[0] == '!') {
        char *end;
        status = (int)strtol(body + 1, &end, 10);
        body = end + 1;
    }
    assert_true(
        asprintf(&head, "%d Said\r\nContent-Type: %s", status, stream ? "text/event-stream" : "application/json") > 0);
    assert_true(asprintf(&sent, "%s%s", body, stream ? "\n" : "") > 0); /* the block's end has eaten the empty line */
    s->head = head;
    s->body = sent;
    s->framing = strcmp(ending, "") != 0 ? UNENDED : stream ? CHUNKED : LENGTH;
    s->ending = strcmp(ending, "reset") == 0 ? RESET : strcmp(ending, "hang") == 0 ? HANG : KEEP;
}

static void add_scripts(const ledger_case *c) {
    err         e = {0};
    int64_t     status = 200;
    const char *answer = text_of(c, "answer", NULL);
    assert_ok(config_int(c->file, c->root, "status", 100, 599, &status, &e), e);
    if (answer) {
        add_script(c->name, answer, (int)status, text_of(c, "ending", ""));
    }
    const config_node *more = config_get(c->root, "answers");
    for (size_t i = 0; i < config_count(more); i++) {
        add_script(config_key(more, i), text_in(c, more, config_key(more, i), ""), 200, "");
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ledger_case *)a)->name, ((const ledger_case *)b)->name);
}

static void read_cases(void) {
    DIR *dir = opendir(DIRECTORY);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t n = strlen(entry->d_name);
        char   path[320];
        err    e = {0};
        if (n < 6 || strcmp(entry->d_name + n - 5, ".yaml") != 0) {
            continue;
        }
        ledger_case *c = &cases[n_cases++];
        assert_true(n_cases <= MAX_CASES && n - 5 < sizeof c->name);
        snprintf(c->name, sizeof c->name, "%.*s", (int)(n - 5), entry->d_name);
        snprintf(path, sizeof path, DIRECTORY "/%s", entry->d_name);
        c->file = config_load(path, &e);
        assert_ok(c->file, e);
        c->root = config_root(c->file);
        static const char *const known[] = {"source", "dialect", "path",   "price",      "model", "answer",  "answers",
                                            "status", "ending",  "client", "arithmetic", "rows",  "request", NULL};
        assert_ok(config_known(c->file, c->root, known, &e), e);
    }
    closedir(dir);
    qsort(cases, (size_t)n_cases, sizeof cases[0], by_name);
}

static int setup(void **state) {
    (void)state;
    str models = {0}, prices = {0};
    read_cases();
    str_adds(&prices, "  dear: {input: 3, output: 9}\n");
    for (int i = 0; i < n_cases; i++) {
        const ledger_case *c = &cases[i];
        const char        *dialect = text_of(c, "dialect", "openai"), *own = text_of(c, "model", NULL);
        add_scripts(c);
        str_addf(&prices, "  %s: %s\n", c->name, text_of(c, "price", NULL));
        str_addf(&models, "  %s: {price: %s, ", c->name, c->name);
        if (own) {
            str_addf(&models, "%s\n", own + 1);
        } else {
            str_addf(&models, "backend: %s, retries: 0}\n", strcmp(dialect, "openai") == 0 ? "up" : dialect);
        }
    }
    the = (bed){.model_line = models.data, .price_lines = prices.data};
    bed_open(&the, scripts);
    str_free(&models);
    str_free(&prices);
    return 0;
}

/* The file is gone with the bed: what it must say is read before. */
static int teardown(void **state) {
    (void)state;
    bed_close(&the);
    for (int i = 0; i < n_cases; i++) {
        config_free(cases[i].file);
    }
    for (int i = 0; i < n_scripts; i++) {
        if (scripts[i].framing != TOO_LONG && !scripts[i].run) {
            free((char *)(uintptr_t)scripts[i].head);
            free((char *)(uintptr_t)scripts[i].body);
        }
    }
    return 0;
}

/* ---- the way ---- */

static void leave_early(const char *path, const char *body) {
    str in = {0};
    int fd = client_connect(the.port);
    assert_true(fd >= 0 && send_post(fd, path, "", body));
    until((in.data && (strstr(in.data, "Once upon"))) || !receive(fd, &in));
    assert_non_null(in.data);
    assert_non_null(strstr(in.data, "Once upon"));
    close(fd);
    str_free(&in);
}

/* What the client is told: the sum of the rows, rounded half up to millionths. */
static void check_header(const ledger_case *c, const reply *r) {
    int64_t            nano = 0;
    char               expected[64], told[64];
    const config_node *rows = config_get(c->root, "rows");
    for (size_t i = 0; i < config_count(rows); i++) {
        nano += atoll(text_in(c, config_item(rows, i), "cost_nano", ""));
    }
    int64_t micro = (nano + 500) / 1000;
    snprintf(expected, sizeof expected, "%lld.%06lld", (long long)(micro / 1000000), (long long)(micro % 1000000));
    if (r->status != 200) {
        return;
    }
    if (!header_of(r, "x-pare-cost-usd", told, sizeof told)) { /* of a stream: a comment at its end, where it has one */
        static const char mark[] = ": x-pare-cost-usd ";
        const char       *at = r->body.data ? strstr(r->body.data, mark) : NULL;
        at = at ? at + sizeof mark - 1 : expected;
        snprintf(told, sizeof told, "%.*s", (int)strcspn(at, "\n"), at);
    }
    if (strcmp(told, expected) != 0) {
        fail_msg("%s: the client is told $%s, not $%s", c->name, told, expected);
    }
}

static void go(const ledger_case *c) {
    const char *path = text_of(c, "path", CHAT), *body = text_of(c, "request", NULL);
    int64_t     before = ledger_count(&the);
    reply       r = {0};
    if (strcmp(text_of(c, "client", ""), "leaves") == 0) {
        leave_early(path, body);
    } else {
        post(the.port, path, "", body, &r);
        check_header(c, &r);
    }
    int64_t rows = (int64_t)config_count(config_get(c->root, "rows"));
    until(in_flight(&the) == 0 && ledger_count(&the) >= before + rows);
    if (in_flight(&the) != 0 || ledger_count(&the) != before + rows) {
        fail_msg("%s: %lld rows instead of %lld; the client got %d %.500s", c->name,
                 (long long)(ledger_count(&the) - before), (long long)rows, r.status, r.body.data ? r.body.data : "");
    }
    reply_free(&r);
}

/* ---- what the ledger says ---- */

static void column(sqlite3 *db, const ledger_case *c, int row, const char *name, char *out, size_t size) {
    sqlite3_stmt *s = NULL;
    char          sql[256];
    snprintf(sql, sizeof sql, "SELECT %.60s FROM ledger WHERE model = '%.64s' ORDER BY id LIMIT 1 OFFSET %d", name,
             c->name, row);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    bool there = sqlite3_step(s) == SQLITE_ROW;
    snprintf(out, size, "%s", there ? (const char *)sqlite3_column_text(s, 0) : "(no row)");
    sqlite3_finalize(s);
}

static int check_rows(sqlite3 *db, const ledger_case *c) {
    int                wrong = 0;
    const config_node *rows = config_get(c->root, "rows");
    for (size_t i = 0; i < config_count(rows); i++) {
        const config_node *row = config_item(rows, i);
        assert_non_null(config_get(row, "cost_nano"));
        for (size_t k = 0; k < config_count(row); k++) {
            char        found[128];
            const char *expected = text_in(c, row, config_key(row, k), "");
            column(db, c, (int)i, config_key(row, k), found, sizeof found);
            if (strcmp(found, expected) != 0) {
                print_error("%s, row %zu: %s is %s, not %s\n", c->name, i, config_key(row, k), found, expected);
                wrong++;
            }
        }
    }
    return wrong;
}

static void test_every_shape(void **state) {
    (void)state;
    char     path[128];
    sqlite3 *db = NULL;
    int      wrong = 0;
    assert_true(n_cases >= 20);
    for (int i = 0; i < n_cases; i++) {
        go(&cases[i]);
    }
    bed_stop(&the, 5000000);
    snprintf(path, sizeof path, "%s/pare.db", the.dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    for (int i = 0; i < n_cases; i++) {
        wrong += check_rows(db, &cases[i]);
    }
    sqlite3_close(db);
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_shape)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
