/* pare.yaml and the flags of `pare serve`: how local models run. */
#include "check.h"

#include <unistd.h>

#include "serve/settings.h"

static settings *s;

static int open_settings(void **state) {
    (void)state;
    err e = {0};
    s = settings_new(&e);
    return s ? 0 : -1;
}

static int close_settings(void **state) {
    (void)state;
    settings_free(s);
    return 0;
}

static bool reads(const char *yaml, err *e) {
    char path[] = "/tmp/pare-settings-XXXXXX";
    int  fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml));
    close(fd);
    *e = (err){0};
    bool ok = settings_read(s, path, e) && settings_check(s, e);
    unlink(path);
    return ok;
}

static void test_all_of_them(void **state) {
    (void)state;
    err e;
    assert_ok(reads("data: /tmp/x\nmodels:\n  a:\n    file: a.gguf\n    sequences: 4\n    context: 1024\n    queue: 7\n"
                    "    step_tokens: 64\n    step_ms: 40\n    kv: Q8_0\n    kv_memory: 2G\n    kv_disk: /var/tmp/kv\n"
                    "    kv_disk_size: 512MiB\n    overflow: slide\n    share_prefixes: all\n"
                    "  b: {file: b.gguf, kv: f32, overflow: error, share_prefixes: key}\n  c: {file: c.gguf}\n",
                    &e),
              e);
    const local_options *a = &s->models[0].local, *b = &s->models[1].local, *c = &s->models[2].local;
    assert_true(a->sequences == 4 && a->context == 1024 && a->queue == 7 && a->step_tokens == 64 && a->step_ms == 40);
    assert_int_equal(a->kv, KV_Q8_0);
    assert_int_equal(a->kv_bytes, INT64_C(2) << 30);
    assert_int_equal(a->kv_disk_bytes, 512 << 20);
    assert_string_equal(a->kv_disk, "/var/tmp/kv");
    assert_true(a->slide && a->share_all);
    assert_true(b->kv == KV_F32 && !b->slide && !b->share_all && !b->kv_disk);
    assert_int_equal(c->kv, KV_F16);
    assert_true(c->sequences == 0 && c->kv_bytes == 0 && !c->slide && !c->share_all);
}

static void refuses(const char *member, const char *says, const char *also) {
    char yaml[512];
    err  e;
    settings_free(s);
    s = settings_new(&e);
    snprintf(yaml, sizeof yaml, "data: /tmp/x\nmodels:\n  a:\n    file: a.gguf\n    %s\n", member);
    if (reads(yaml, &e)) {
        fail_msg("%s was taken", member);
    }
    assert_says(e, says);
    assert_says(e, also);
}

static void test_wrong_values(void **state) {
    (void)state;
    refuses("kv: q8_1", ":5: kv must be f16, f32, q8_0 or q4_0, not \"q8_1\"", "did you mean q8_0?");
    refuses("kv: bf17", ":5: kv must be", "bf17");
    refuses("kv_memory: lots", ":5: kv_memory must be a size", "lots");
    refuses("kv_memory: 1K", "at least 1MiB", "1K");
    refuses("kv_disk: ''", ":5: kv_disk must be a directory", "empty");
    refuses("kv_disk_size: 8G", "kv_disk_size but no kv_disk", "a ");
    refuses("step_ms: 0", "step_ms must be a whole number from 1 to 60000", "\"0\"");
    refuses("sequences: 5x", "sequences must be a whole number", "5x");
    refuses("context: 99999999999999999999", "context must be a whole number", "9999");
    refuses("overflow: slied", "overflow must be error or slide", "did you mean slide?");
    refuses("share_prefixes: everybody", "share_prefixes must be key or all", "everybody");
    refuses("share_prefixes: [all]", "share_prefixes", ":5");
    refuses("kv_memmory: 2G", "kv_memmory", "kv_memory");
    refuses("kvdisk: x", "kvdisk", "kv_disk");
}

static void test_not_for_remote_models(void **state) {
    (void)state;
    err e;
    assert_false(reads("data: /tmp/x\nbackends:\n  up: {base_url: 'http://127.0.0.1:1/v1'}\nmodels:\n"
                       "  far:\n    backend: up\n    kv: f32\n",
                       &e));
    assert_says(e, ":7: kv is for models with a file");
}

/* The command line wins over the file, for all local models and for no other. */
static void test_flags(void **state) {
    (void)state;
    err e = {0};
    assert_ok(settings_local_flag(s, "kv", "q4_0", &e), e);
    assert_ok(settings_local_flag(s, "kv_disk", "/var/tmp/kv", &e), e);
    assert_ok(settings_local_flag(s, "overflow", "slide", &e), e);
    assert_ok(reads("data: /tmp/x\nbackends:\n  up: {base_url: 'http://127.0.0.1:1/v1'}\nmodels:\n"
                    "  a: {file: a.gguf, kv: f32, context: 99}\n  far: {backend: up}\n  b: {file: b.gguf}\n",
                    &e),
              e);
    for (int i = 0; i < 3; i += 2) {
        const local_options *o = &s->models[i].local;
        assert_int_equal(o->kv, KV_Q4_0);
        assert_string_equal(o->kv_disk, "/var/tmp/kv");
        assert_true(o->slide && !o->share_all);
    }
    assert_int_equal(s->models[0].local.context, 99);
    assert_null(s->models[1].local.kv_disk);
    assert_false(settings_local_flag(s, "kv", "q5", &e));
    assert_says(e, "f16, f32, q8_0 or q4_0");
}

static void test_flags_reach_the_bundled_model(void **state) {
    (void)state;
    err e = {0};
    assert_ok(settings_local_flag(s, "kv_memory", "64MiB", &e), e);
    assert_ok(reads("data: /tmp/x\n", &e), e);
    assert_string_equal(s->models[0].file, "bundled");
    assert_int_equal(s->models[0].local.kv_bytes, 64 << 20);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_settings, close_settings)
    const struct CMUnitTest tests[] = {T(test_all_of_them), T(test_wrong_values), T(test_not_for_remote_models),
                                       T(test_flags), T(test_flags_reach_the_bundled_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
