/* pare.yaml: who answers for remote models, and what happens when they fail. */
#include "check.h"

#include <unistd.h>

#include "serve/settings.h"

static settings *s;

static int close_settings(void **state) {
    (void)state;
    settings_free(s);
    s = NULL;
    return 0;
}

static bool reads(const char *yaml, err *e) {
    char path[] = "/tmp/pare-settings-XXXXXX";
    int  fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml));
    close(fd);
    *e = (err){0};
    settings_free(s);
    s = settings_new(e);
    bool ok = s && settings_read(s, path, e) && settings_check(s, e);
    unlink(path);
    return ok;
}

#define HEAD                                                                                                           \
    "data: /tmp/x\nbackends:\n  up: {base_url: 'http://127.0.0.1:1/v1'}\n  b: {base_url: 'http://127.0.0.1:2'}\n"

static void test_targets(void **state) {
    (void)state;
    err e;
    assert_ok(reads(HEAD
                    "prices:\n  dear: {input: 5, output: 9}\nmodels:\n  smart:\n    targets: [{backend: up, model: "
                    "big, weight: 3, price: dear}, {backend: b}]\n    fallbacks: [{backend: b, model: small}]\n"
                    "    balance: latency\n    retries: 4\n    pause: 100ms\n    longest_pause: 2s\n"
                    "    hedge: {percent: 7, after: 300ms}\n    circuit: {failures: 9, open: 3s}\n"
                    "    max_output: 8192\n",
                    &e),
              e);
    const setting_model *m = &s->models[0];
    assert_int_equal(m->n_targets, 3);
    assert_string_equal(m->targets[0].backend, "up");
    assert_string_equal(m->targets[0].upstream, "big");
    assert_string_equal(m->targets[0].price_name, "dear");
    assert_int_equal(m->targets[0].weight, 3);
    assert_int_equal(m->targets[1].weight, 1);
    assert_null(m->targets[1].upstream);
    assert_true(m->targets[2].fallback && !m->targets[1].fallback);
    assert_int_equal(m->group.balance, BALANCE_LATENCY);
    assert_int_equal(m->group.retries, 4);
    assert_int_equal(m->group.pause_us, 100000);
    assert_int_equal(m->group.longest_us, 2000000);
    assert_true(m->group.hedge && m->group.hedge_percent == 7 && m->group.hedge_after_us == 300000);
    assert_true(m->group.break_failures == 9 && m->group.break_us == 3000000);
    assert_int_equal(m->max_output, 8192);
}

static void test_defaults(void **state) {
    (void)state;
    err e;
    assert_ok(reads(HEAD
                    "models:\n  a: {backend: up}\n  b: {backend: up, retries: 0}\n  c: {backend: up, hedge: true}\n"
                    "  d: {backend: up, fallbacks: [{backend: b}, {backend: b, model: x}, {backend: b, model: y}]}\n"
                    "  e: {backend: up, retries: 0, fallbacks: [{backend: b}]}\n"
                    "  f: {backend: up, retries: 0, hedge: false}\n",
                    &e),
              e);
    const setting_model *m = s->models;
    assert_true(m[0].group.retries == GROUP_RETRIES && !m[0].alone && !m[0].group.hedge);
    assert_true(m[1].group.retries == 0 && m[1].alone);
    assert_true(m[2].group.hedge && m[2].group.hedge_percent == 0 && m[2].group.hedge_after_us == 0);
    assert_true(m[3].group.retries == 3 && m[3].n_targets == 4); /* each fallback has its turn */
    assert_true(m[4].group.retries == 0 && !m[4].alone);
    assert_true(m[5].alone && m[5].n_targets == 1);
}

static void test_backends(void **state) {
    (void)state;
    err e;
    setenv("PARE_TEST_KEY", "sk-1", 1);
    assert_ok(reads("data: /tmp/x\nbackends:\n"
                    "  a: {base_url: 'http://h', api_keys: ['${PARE_TEST_KEY}', {key: k2, weight: 5}]}\n"
                    "  z: {base_url: 'http://h', dialect: azure, api_version: '2024-10-21', api_key: k}\n"
                    "  c: {base_url: 'http://h', dialect: anthropic}\n"
                    "  g: {base_url: 'http://h', dialect: gemini}\n  r: {base_url: 'http://h', dialect: cohere}\n"
                    "  o: {base_url: 'http://h', dialect: openai}\nmodels:\n  m: {backend: a}\n",
                    &e),
              e);
    const setting_backend *b = s->backends;
    assert_int_equal(s->n_backends, 7);
    assert_string_equal(b[0].name, "a#1");
    assert_string_equal(b[1].name, "a#2");
    assert_string_equal(b[1].of, "a");
    assert_string_equal(b[0].remote.api_key, "sk-1");
    assert_string_equal(b[1].remote.api_key, "k2");
    assert_true(b[0].weight == 1 && b[1].weight == 5);
    assert_string_equal(b[2].name, "z");
    assert_string_equal(b[2].remote.api_version, "2024-10-21");
    assert_ptr_equal(b[2].remote.speaks, &dialect_azure);
    assert_ptr_equal(b[3].remote.speaks, &dialect_anthropic);
    assert_ptr_equal(b[4].remote.speaks, &dialect_gemini);
    assert_ptr_equal(b[5].remote.speaks, &dialect_cohere);
    assert_ptr_equal(b[6].remote.speaks, &dialect_openai);
}

/* `member` of a model m that up answers. */
static void refuses(const char *member, const char *says) {
    char yaml[1024];
    err  e;
    snprintf(yaml, sizeof yaml, HEAD "models:\n  m:\n    %s\n", member);
    if (reads(yaml, &e)) {
        fail_msg("%s was taken", member);
    }
    assert_says(e, says);
}

static void refuses_backend(const char *member, const char *says) {
    char yaml[1024];
    err  e;
    snprintf(yaml, sizeof yaml, "data: /tmp/x\nbackends:\n  up:\n    base_url: http://h\n    %s\n", member);
    if (reads(yaml, &e)) {
        fail_msg("%s was taken", member);
    }
    assert_says(e, says);
}

static void test_wrong_values(void **state) {
    (void)state;
    refuses("backend: up\n    targets: [{backend: b}]", "needs either file");
    refuses("fallbacks: [{backend: b}]", "needs either file");
    refuses("file: a.gguf\n    retries: 3", ":8: retries is for models that a backend answers");
    refuses("file: a.gguf\n    hedge: true", "hedge is for models that a backend answers");
    refuses("targets: [{backend: up}]\n    kv: f16", "kv is for models with a file");
    refuses("targets: []", "targets must be a list");
    refuses("targets: {backend: up}", "targets must be a list");
    refuses("targets: [up]", "a target is like");
    refuses("targets: [{model: x}]", "needs a backend");
    refuses("targets: [{backend: nobody}]", "nobody, which is not under backends");
    refuses("targets: [{backend: up, wieght: 2}]", "weight");
    refuses("targets: [{backend: up, weight: 0}]", "weight must lie between 1 and 1000");
    refuses("backend: up\n    fallbacks: [{backend: b, weight: 2}]", "weight");
    refuses("targets: [{backend: up, price: lots}]", "price of lots");
    refuses("targets: [{backend: up, model: m}, {backend: up}]", "the target up (m) twice");
    refuses("backend: up\n    balance: best", "balance must be weighted or latency, not \"best\"");
    refuses("backend: up\n    retries: 21", "retries must lie between 0 and 20");
    refuses("backend: up\n    retries: -1", "retries must");
    refuses("backend: up\n    pause: soon", "pause must be a duration");
    refuses("backend: up\n    hedge: maybe", "hedge must be");
    refuses("backend: up\n    hedge: {percent: 101}", "percent must");
    refuses("backend: up\n    hedge: {precent: 5}", "percent");
    refuses("backend: up\n    circuit: {failures: 0}", "failures must");
    refuses("backend: up\n    circuit: {closed: 5s}", "closed");
    refuses("backend: up\n    max_output: 0", "max_output must");
    refuses("backend: up\n    retrys: 1", "did you mean \"retries\"?");
    refuses_backend("dialect: antropic", ":5: dialect must be openai, azure, anthropic, gemini or cohere, not "
                                         "\"antropic\"; did you mean anthropic?");
    refuses_backend("dialect: [openai]", "dialect");
    refuses_backend("api_keys: x", "api_keys must be a list");
    refuses_backend("api_keys: []", "api_keys must be a list");
    refuses_backend("api_keys: [{weight: 2}]", "each of api_keys is a key");
    refuses_backend("api_keys: ['']", "each of api_keys is a key");
    refuses_backend("api_keys: [{key: k, weight: 0}]", "weight must");
    refuses_backend("api_keys: [a]\n    api_key: b", "both api_key and api_keys");
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, close_settings)
    const struct CMUnitTest tests[] = {T(test_targets), T(test_defaults), T(test_backends), T(test_wrong_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
