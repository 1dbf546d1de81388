/* A model of our own behind the gateway: stored prefixes and whose they are, blocks on disk, full contexts, what the
 * headers, /metrics and /api/stats say of it. On the bundled model.                                                  */
#include "bed.h"

#include <math.h>

#include "base/json.h"
#include "serve/assets.h"

#define KEYS                                                                                                           \
    "keys:\n  - {name: anna, key: anna-secret}\n  - {name: ben, key: ben-secret}\n"                                    \
    "  - {name: boss, key: boss-secret, admin: true}\n"
#define ANNA "Authorization: Bearer anna-secret\r\n"
#define BEN  "Authorization: Bearer ben-secret\r\n"
#define BOSS "Authorization: Bearer boss-secret\r\n"

#define LONG                                                                                                           \
    "You tell stories to children. Your stories are short and friendly, and animals in them can speak. Never let "     \
    "anything bad happen to a dog. End each story with a sentence that begins with the words: And so."

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL}, {0}};

static bed   the;
static reply r;

static bool has_model(void) {
    if (!asset_find("models/storyteller.gguf")) {
        print_message("skipped: the bundled model is not here\n");
        return false;
    }
    return true;
}

/* A bed with the storyteller, set up by `settings` ("kv: q8_0, context: 128"), and further YAML at the root. */
static void open_story(const char *settings, const char *more) {
    char line[256];
    if (!has_model()) {
        skip();
    }
    snprintf(line, sizeof line, "  storyteller: {file: bundled, stands_in_for: gpt%s%s}\n", settings[0] ? ", " : "",
             settings);
    the.model_line = line;
    bed_open_with(&the, scripts, more);
    the.model_line = NULL;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    if (the.settings) {
        bed_close(&the);
        the = (bed){0};
    }
    return 0;
}

/* A chat with a system message, the user's words and further members (`, "priority": 1`). */
static void tell(const char *headers, const char *system, const char *user, const char *more) {
    char body[4096];
    snprintf(body, sizeof body,
             "{\"model\":\"storyteller\",\"max_tokens\":4,\"temperature\":0,\"messages\":[{\"role\":\"system\","
             "\"content\":\"%s\"},{\"role\":\"user\",\"content\":\"%s\"}]%s}",
             system, user, more);
    post(the.port, CHAT, headers, body, &r);
}

static void get(const char *path, const char *headers) {
    char text[256];
    int  fd = client_connect(the.port);
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, headers);
    reply_free(&r);
    say(fd, text);
    read_reply(fd, &r, false);
    close(fd);
    assert_int_equal(r.status, 200);
}

static int number_after(const char *text, const char *name) {
    const char *at = text ? strstr(text, name) : NULL;
    if (!at) {
        fail_msg("no %s in %s", name, text ? text : "nothing");
        return -1;
    }
    return atoi(at + strlen(name));
}

static int cached_tokens(void) {
    if (r.status != 200) {
        fail_msg("%d %s", r.status, r.body.data ? r.body.data : "");
    }
    return number_after(r.body.data, "\"cached_tokens\":");
}

static int prompt_tokens(void) {
    return number_after(r.body.data, "\"prompt_tokens\":");
}

/* A gauge or counter of the model; -1: not there. */
static double metric(const char *name, const char *headers) {
    char line[128];
    get("/metrics", headers);
    snprintf(line, sizeof line, "\npare_engine_%s{model=\"storyteller\"} ", name);
    const char *at = strstr(r.body.data, line);
    return at ? atof(at + strlen(line)) : -1;
}

/* ---- prefixes ---- */

static void test_cached_tokens(void **state) {
    (void)state;
    char kv[128], want[128];
    open_story("", "");
    tell("", LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    assert_true(header_of(&r, "x-pare-kv", kv, sizeof kv));
    snprintf(want, sizeof want, "cached=0/%d miss=new", prompt_tokens());
    assert_string_equal(kv, want);

    tell("x-pare-debug: 1\r\n", LONG, "A cat.", "");
    int found = cached_tokens(), all = prompt_tokens();
    assert_in_range(found, 32, all - 1);
    assert_true(header_of(&r, "x-pare-kv", kv, sizeof kv));
    snprintf(want, sizeof want, "cached=%d/%d miss=none", found, all);
    assert_string_equal(kv, want);

    tell("", LONG, "A cat.", ""); /* from memory: no model was asked */
    assert_true(answered_by(&r, "recall.exact"));
    assert_false(header_of(&r, "x-pare-kv", kv, sizeof kv));

    tell("Cache-Control: no-cache\r\nx-pare-debug: 1\r\n", LONG, "A cat.",
         ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    assert_true(cached_tokens() >= found);
    assert_true(body_has(&r, "\n: x-pare-kv cached="));
    assert_true(strstr(r.body.data, ": x-pare-kv ") < strstr(r.body.data, DONE));

    tell("Cache-Control: no-cache\r\n", LONG, "A cat.", ",\"cache_prompt\":false");
    assert_int_equal(cached_tokens(), 0);
    assert_true(header_of(&r, "x-pare-kv", kv, sizeof kv) && strstr(kv, "miss=off"));

    until(ledger_count(&the) == 5);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE cached_tokens > 0"), 2);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE cached_tokens >= prompt_tokens"), 0);
}

static void test_quiet_unless_asked(void **state) {
    (void)state;
    char        kv[128];
    const char *ids = "{\"model\":\"storyteller\",\"max_tokens\":20,\"ignore_eos\":true,\"prompt\":[%s]}";
    char        list[256] = "50", body[512];
    open_story("", "");
    for (int i = 1; i < 33; i++) { /* 33 tokens: two blocks and the one that is always computed */
        snprintf(list + strlen(list), sizeof list - strlen(list), ",%d", 50 + i);
    }
    snprintf(body, sizeof body, ids, list);
    post(the.port, "/v1/completions", "", body, &r);
    post(the.port, "/v1/completions", "Cache-Control: no-cache\r\n", body, &r);
    assert_int_equal(cached_tokens(), 32);
    assert_false(header_of(&r, "x-pare-kv", kv, sizeof kv)); /* all was found: nothing to say */
    post(the.port, "/v1/completions", "Cache-Control: no-cache\r\nx-pare-debug: 1\r\n", body, &r);
    assert_true(has_header(&r, "x-pare-kv", "cached=32/33 miss=none"));
}

static void test_several_prompts(void **state) {
    (void)state;
    open_story("", "");
    static const char *const body =
        "{\"model\":\"storyteller\",\"max_tokens\":2,\"prompt\":[\"" LONG "\",\"" LONG "\",\"Short.\"]}";
    post(the.port, "/v1/completions", "", body, &r);
    int all = prompt_tokens();
    assert_in_range(cached_tokens(), 0, all - 3); /* the second may wait for the first */
    post(the.port, "/v1/completions", "Cache-Control: no-cache\r\n", body, &r);
    assert_int_equal(prompt_tokens(), all);
    assert_in_range(cached_tokens(), 64, all - 3);
}

static void test_keys_do_not_share(void **state) {
    (void)state;
    open_story("", KEYS);
    tell(ANNA, LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    tell(BEN, LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    assert_true(strstr(r.head.data, "miss=new") != NULL);
    tell(ANNA, LONG, "A fox.", "");
    assert_true(cached_tokens() >= 32);
    tell(BEN, LONG, "A fox.", "");
    assert_true(cached_tokens() >= 32);
}

static void test_keys_share_where_configured(void **state) {
    (void)state;
    open_story("share_prefixes: all", KEYS);
    tell(ANNA, LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    tell(BEN, LONG, "A dog.", "");
    assert_true(answered_by(&r, "local:storyteller")); /* stored answers stay each key's own */
    assert_true(cached_tokens() >= 32);
}

static void test_one_space_shares(void **state) {
    (void)state;
    open_story("",
               "keys:\n  - {name: anna, key: anna-secret, space: us}\n  - {name: ben, key: ben-secret, space: us}\n");
    tell(ANNA, LONG, "A dog.", "");
    tell(BEN, LONG, "A fox.", "");
    assert_true(cached_tokens() >= 32);
}

static void test_disk_survives_a_restart(void **state) {
    (void)state;
    char settings[128], dir[64] = "/tmp/pare-kv-XXXXXX";
    assert_non_null(mkdtemp(dir));
    snprintf(settings, sizeof settings, "kv_disk: %s, kv_disk_size: 64MiB", dir);
    open_story(settings, KEYS);
    tell(ANNA, LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    until(metric("kv_disk_written_blocks_total", BOSS) >= 3);
    bed_close(&the);

    open_story(settings, KEYS); /* a new data directory: no stored answer */
    tell(BEN, LONG, "A dog.", "");
    assert_int_equal(cached_tokens(), 0);
    tell(ANNA, LONG, "A fox.", "");
    assert_true(cached_tokens() >= 32);
    assert_true(metric("kv_disk_hit_tokens_total", BOSS) >= 32);
    bed_close(&the);
    the = (bed){0};
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- contexts and requests ---- */

static void test_overflow(void **state) {
    (void)state;
    char user[1600] = "";
    open_story("context: 128", "");
    for (int i = 0; i < 150; i++) {
        strcat(user, "dog ");
    }
    tell("", "Be kind.", user, "");
    assert_int_equal(r.status, 400);
    assert_true(body_has(&r, "\"code\":\"context_length_exceeded\"") && body_has(&r, "\"param\":\"messages\""));
    assert_true(body_has(&r, "holds 128") && number_after(r.body.data, "the prompt has ") > 150);
    char body[2048];
    snprintf(body, sizeof body, "{\"model\":\"storyteller\",\"prompt\":\"%s\"}", user);
    post(the.port, "/v1/completions", "", body, &r);
    assert_int_equal(r.status, 400);
    assert_true(body_has(&r, "\"code\":\"context_length_exceeded\"") && body_has(&r, "\"param\":\"prompt\""));
    until(ledger_count(&the) == 2);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'refused'"), 2);
}

static void test_slide(void **state) {
    (void)state;
    char user[1600] = "", kv[128];
    open_story("context: 128, overflow: slide", "");
    for (int i = 0; i < 150; i++) {
        strcat(user, "dog ");
    }
    tell("", "Be kind.", user, "");
    assert_int_equal(r.status, 200);
    assert_true(prompt_tokens() > 150);
    assert_true(header_of(&r, "x-pare-kv", kv, sizeof kv));
    assert_in_range(number_after(kv, " slid="), prompt_tokens() - 128, prompt_tokens() - 1);
}

static void test_priority(void **state) {
    (void)state;
    open_story("", "");
    static const char *const wrong[] = {",\"priority\":\"high\"", ",\"priority\":101", ",\"priority\":0.5",
                                        ",\"cache_prompt\":1"};
    for (int i = 0; i < 4; i++) {
        tell("", LONG, "A dog.", wrong[i]);
        assert_int_equal(r.status, 400);
        assert_true(body_has(&r, i < 3 ? "\"param\":\"priority\"" : "\"param\":\"cache_prompt\""));
    }
    tell("", LONG, "A dog.", ",\"priority\":-100");
    assert_true(r.status == 200 && answered_by(&r, "local:storyteller"));
    tell("", LONG, "A dog.", ",\"priority\":100");
    assert_true(answered_by(&r, "recall.exact"));
    post(the.port, CHAT, "",
         "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"@whole x\"}],"
         "\"priority\":\"high\"}",
         &r);
    assert_int_equal(r.status, 200); /* for a provider to judge */
}

static void test_kv_types(void **state) {
    (void)state;
    static const char *const types[] = {"kv: f32, kv_memory: 64MiB", "kv: q8_0, step_ms: 50", "kv: q4_0"};
    for (int i = 0; i < 3; i++) {
        open_story(types[i], "");
        tell("", LONG, "A dog.", "");
        tell("", LONG, "A cat.", "");
        assert_true(cached_tokens() >= 32);
        double bytes = metric("kv_bytes", ""), tokens = metric("kv_tokens", "");
        assert_true(bytes > 0 && tokens >= 512);
        if (i == 0) {
            assert_true(bytes <= 64 << 20);
        }
        bed_close(&the);
        the = (bed){0};
    }
}

/* ---- what is told ---- */

typedef struct family { /* of metrics: all its lines stand together */
    char name[96], type[16];
    bool help;
    int  samples;
} family;

/* "name{label="...",le="0.1"} 12": the name without a histogram's suffix is the family's. */
static void check_sample(const char *line, const family *f) {
    size_t n = strcspn(line, "{ "), base = strlen(f->name);
    bool   histogram = strcmp(f->type, "histogram") == 0;
    if (n < base || strncmp(line, f->name, base) != 0) {
        fail_msg("%s stands below %s", line, f->name);
    }
    const char *suffix = line + base;
    if (histogram ? strncmp(suffix, "_bucket{", 8) != 0 && strncmp(suffix, "_sum", 4) != 0 &&
                        strncmp(suffix, "_count", 6) != 0
                  : n != base) {
        fail_msg("%s is no sample of %s", line, f->name);
    }
    const char *at = line + n;
    if (*at == '{') { /* quotes may be escaped */
        while (*at != '}') {
            at += strcspn(at, "\"}");
            if (*at == '"') {
                for (at++; *at != '"'; at++) {
                    assert_true(*at && *at != '\n');
                    at += *at == '\\';
                }
                at++;
            }
            assert_true(*at != '\0');
        }
        at++;
    }
    char  *end;
    double value = *at == ' ' ? strtod(at + 1, &end) : NAN;
    if (!isfinite(value) || *end) {
        fail_msg("%s has no value", line);
    }
}

static void check_line(char *line, family *all, int *n) {
    char name[96], type[16];
    if (sscanf(line, "# HELP %95s", name) == 1) {
        for (int i = 0; i < *n; i++) {
            if (strcmp(all[i].name, name) == 0) {
                fail_msg("%s comes twice", line);
            }
        }
        assert_true(*n < 200);
        all[*n] = (family){.help = true};
        strcpy(all[(*n)++].name, name);
        assert_int_equal(line[strlen(line) - 1], '.'); /* a sentence */
    } else if (sscanf(line, "# TYPE %95s %15s", name, type) == 2) {
        family *f = &all[*n - 1];
        assert_true(*n > 0 && f->help && !f->type[0]);
        assert_string_equal(f->name, name);
        assert_true(strcmp(type, "gauge") == 0 || strcmp(type, "counter") == 0 || strcmp(type, "histogram") == 0);
        assert_int_equal(strcmp(type, "counter") == 0, strlen(name) > 6 && !strcmp(name + strlen(name) - 6, "_total"));
        strcpy(f->type, type);
    } else {
        assert_true(*n > 0 && all[*n - 1].type[0]);
        check_sample(line, &all[*n - 1]);
        all[*n - 1].samples++;
    }
}

static void check_histogram(const char *text, const char *model, const char *name) {
    char   line[160];
    double last = -1, bucket = 0;
    int    buckets = 0;
    snprintf(line, sizeof line, "\npare_engine_%s_bucket{model=\"%s\",le=\"", name, model);
    for (const char *at = text; (at = strstr(at, line)); at += strlen(line)) {
        bucket = atof(strchr(strchr(at + strlen(line), '}'), ' '));
        assert_true(bucket >= last);
        last = bucket;
        buckets++;
    }
    assert_true(buckets > 5);
    snprintf(line, sizeof line, "\npare_engine_%s_count{model=\"%s\"} ", name, model);
    assert_int_equal(number_after(text, line), (int)bucket); /* the last one is +Inf */
    assert_true(bucket > 0);
    snprintf(line, sizeof line, "\npare_engine_%s_sum{model=\"%s\"} ", name, model);
    assert_non_null(strstr(text, line));
}

static void test_metrics(void **state) {
    (void)state;
    static family all[200];
    int           n = 0;
    open_story("", "");
    bed_close(&the);
    the = (bed){0};
    char two[256];
    snprintf(two, sizeof two, "  storyteller: {file: bundled}\n  'quo\"ted\\': {file: bundled}\n");
    the.model_line = two;
    bed_open_with(&the, scripts, "");
    the.model_line = NULL;
    tell("", LONG, "A dog.", "");
    tell("", LONG, "A cat.", "");
    get("/metrics", "");
    char *copy = strdup(r.body.data), *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) && (*line || rest)) {
        check_line(line, all, &n);
    }
    free(copy);
    assert_int_equal(r.body.data[r.body.len - 1], '\n');
    int engines = 0;
    for (int i = 0; i < n; i++) {
        bool of_events =
            strncmp(all[i].name, "pare_unanswered_", 16) == 0 || strncmp(all[i].name, "pare_model_", 11) == 0;
        assert_true(all[i].samples > 0 || of_events); /* these have a series for each thing that has happened */
        engines += strncmp(all[i].name, "pare_engine_", 12) == 0;
    }
    print_message("%d metrics, %d of engines\n", n, engines);
    assert_true(engines >= 30);
    static const char *const histograms[] = {"first_token_seconds", "inter_token_seconds", "queue_seconds",
                                             "step_seconds", "batch_tokens"};
    for (int i = 0; i < 5; i++) {
        check_histogram(r.body.data, "storyteller", histograms[i]);
    }
    assert_true(body_has(&r, "pare_engine_running{model=\"quo\\\"ted\\\\\"} 0\n"));
    double lookups = metric("kv_lookup_tokens_total", ""), hits = metric("kv_hit_tokens_total", "");
    assert_true(hits >= 32 && lookups > hits);
    assert_true(metric("kv_blocks", "") > 0 && metric("kv_cached_blocks", "") > 0);
    assert_true(metric("kv_held_blocks", "") == 0 && metric("waiting", "") == 0 && metric("backlog_tokens", "") == 0);
}

static void test_stats(void **state) {
    (void)state;
    err e = {0};
    open_story("", "");
    tell("", LONG, "A dog.", "");
    get("/api/stats?window=1h", "");
    cJSON *stats = json_parse(r.body.data, r.body.len, JSON_MAX_DEPTH, &e);
    assert_ok(stats, e);
    const cJSON *engines = cJSON_GetObjectItem(stats, "engines"), *one = cJSON_GetArrayItem(engines, 0);
    assert_int_equal(cJSON_GetArraySize(engines), 1); /* the provider has none */
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(one, "model")), "storyteller");
    static const char *const numbers[] = {"running", "waiting",   "sequences",     "backlog_s", "kv_blocks",
                                          "kv_held", "kv_cached", "lookup_tokens", "hit_tokens"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_true(cJSON_IsNumber(cJSON_GetObjectItem(one, numbers[i])));
    }
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(one, "kv_cached")) > 0);
    cJSON_Delete(stats);
    get("/health", "");
    assert_true(body_has(&r, "\"status\":\"ok\""));
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, close_bed)
    const struct CMUnitTest tests[] = {T(test_cached_tokens),
                                       T(test_quiet_unless_asked),
                                       T(test_several_prompts),
                                       T(test_keys_do_not_share),
                                       T(test_keys_share_where_configured),
                                       T(test_one_space_shares),
                                       T(test_disk_survives_a_restart),
                                       T(test_overflow),
                                       T(test_slide),
                                       T(test_priority),
                                       T(test_kv_types),
                                       T(test_metrics),
                                       T(test_stats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
