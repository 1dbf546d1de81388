/* The folder of models, and where models come from: names of strangers, listings of the hub and manifests of the registry
 * from a local server. */
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"

#include "store/download_server.h"
#include "store/models.h"

static char data[64];

static void put(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/models", data);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/models/%s", data, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static bool there(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/models/%s", data, name);
    return access(path, F_OK) == 0;
}

static int empty(void **unused) {
    (void)unused;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/models", data);
    return system(command);
}

/* ---- names ---- */

static void names(void **unused) {
    (void)unused;
    static const char *const good[] = {"a", "Llama-3.2-1B-Instruct-Q4_K_M", "_x", "a..b", "a+b", NULL};
    static const char *const bad[] = {"",     ".",         "..",  ".hidden",  "-rf", "a/b", "../a",
                                      "a\nb", "a\x1b[31m", "a b", "\xc3\xa9", "a:b", NULL};
    for (int i = 0; good[i]; i++) {
        assert_true(models_name_ok(good[i]));
    }
    for (int i = 0; bad[i]; i++) {
        err  e = {0};
        char path[256];
        assert_false(models_name_ok(bad[i]));
        assert_false(models_path(data, bad[i], path, sizeof path, &e));
    }
    char long_name[400];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_false(models_name_ok(long_name));
}

static void names_of_strangers(void **unused) {
    (void)unused;
    static const char *const pairs[][2] = {{"m.gguf", "m"},
                                           {"dir/m.Q4_0.GGUF", "m.Q4_0"},
                                           {"../../etc/passwd", "passwd"},
                                           {"x/..", NULL},
                                           {"x/.", NULL},
                                           {"", NULL},
                                           {"a/", NULL},
                                           {".gguf", NULL},
                                           {".bashrc", "_bashrc"},
                                           {"-rf.gguf", "_rf"},
                                           {"a b\n\x1b[31m.gguf", "a_b___31m"},
                                           {"llama3:8b", "llama3_8b"},
                                           {NULL, NULL}};
    for (int i = 0; pairs[i][0]; i++) {
        char out[MODEL_NAME];
        bool ok = models_name_from(pairs[i][0], out, sizeof out);
        assert_int_equal(ok, pairs[i][1] != NULL);
        if (ok) {
            assert_string_equal(out, pairs[i][1]);
            assert_true(models_name_ok(out));
        }
    }
    uint64_t seed = 7;
    for (int round = 0; round < 20000; round++) {
        char   text[300], out[MODEL_NAME];
        size_t n = test_random(&seed) % (sizeof text - 1);
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)(1 + test_random(&seed) % 255);
        }
        text[n] = '\0';
        assert_true(!models_name_from(text, out, sizeof out) || models_name_ok(out));
    }
}

static void types(void **unused) {
    (void)unused;
    static const char *const pairs[][2] = {{"m.Q4_K_M.gguf", "Q4_K_M"},
                                           {"m-q4_0.gguf", "Q4_0"},
                                           {"m-UD-Q4_K_XL.gguf", "Q4_K_XL"},
                                           {"ggml-model-f16.gguf", "F16"},
                                           {"m-bf16.gguf", "BF16"},
                                           {"m.IQ4_XS.gguf", "IQ4_XS"},
                                           {"Q4_0/m.gguf", ""},
                                           {"mQ4_0.gguf", ""},
                                           {"m-Q4_K_MX.gguf", ""},
                                           {"m.gguf", ""},
                                           {NULL, NULL}};
    for (int i = 0; pairs[i][0]; i++) {
        char out[32];
        model_type_of(pairs[i][0], out, sizeof out);
        assert_string_equal(out, pairs[i][1]);
    }
}

/* ---- the folder ---- */

static void note(const char *name, const char *source, int64_t size) {
    err        e = {0};
    model_file m = {.size = size};
    snprintf(m.name, sizeof m.name, "%s", name);
    snprintf(m.source, sizeof m.source, "%s", source);
    snprintf(m.sha256, sizeof m.sha256, "%064d", 1);
    assert_ok(models_note(data, &m, &e), e);
}

static void the_list(void **unused) {
    (void)unused;
    err        e = {0};
    model_list l;
    assert_ok(models_list(data, &l, &e), e);
    assert_int_equal(l.n, 0);
    put("zeta.gguf", "GGUFz");
    put("alpha.gguf", "GGUF");
    put("alpha.json", "{ not json");
    put("half.gguf.part", "GG");
    put("half.gguf.part.json", "{}");
    put("readme.txt", "no model");
    put("bad name.gguf", "GGUF");
    put(".gguf", "GGUF");
    note("zeta", "ollama:zeta:latest", 5);
    assert_ok(models_list(data, &l, &e), e);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.items[0].name, "alpha");
    assert_string_equal(l.items[0].source, "");
    assert_int_equal(l.items[0].size, 4);
    assert_string_equal(l.items[1].name, "half");
    assert_true(l.items[1].partial);
    assert_string_equal(l.items[2].source, "ollama:zeta:latest");
    models_list_free(&l);
    put("zeta.gguf", "GGUF of another size"); /* then the manifest is not about this file */
    assert_ok(models_list(data, &l, &e), e);
    assert_string_equal(l.items[2].source, "");
    models_list_free(&l);
}

static void found_by_name(void **unused) {
    (void)unused;
    err  e = {0};
    char path[256], want[128];
    assert_false(models_find(data, "llama", path, sizeof path, &e));
    assert_says(e, "none was pulled");
    put("llama3.2-1b.gguf", "GGUF");
    put("tiny.Q4_0.gguf", "GGUF");
    put("tiny.Q8_0.gguf", "GGUF");
    put("half.gguf.part", "GG");
    note("llama3.2-1b", "ollama:llama3.2:1b", 4);
    note("tiny.Q4_0", "hf:some/tiny-GGUF:tiny.Q4_0.gguf", 4);
    note("tiny.Q8_0", "hf:some/tiny-GGUF:tiny.Q8_0.gguf", 4);
    static const char *const good[][2] = {{"llama3.2-1b", "llama3.2-1b"},
                                          {"llama3.2-1b.gguf", "llama3.2-1b"},
                                          {"llama3.2:1b", "llama3.2-1b"},
                                          {"ollama:llama3.2:1b", "llama3.2-1b"},
                                          {"hf:some/tiny-GGUF:tiny.Q8_0.gguf", "tiny.Q8_0"},
                                          {"hf:some/tiny-GGUF:q4_0", "tiny.Q4_0"},
                                          {NULL, NULL}};
    for (int i = 0; good[i][0]; i++) {
        snprintf(want, sizeof want, "%s/models/%s.gguf", data, good[i][1]);
        assert_ok(models_find(data, good[i][0], path, sizeof path, &e), e);
        assert_string_equal(path, want);
    }
    static const char *const bad[] = {"hf:some/tiny-GGUF", "half", "../models/llama3.2-1b", "", "hf:some/tiny", NULL};
    for (int i = 0; bad[i]; i++) {
        assert_false(models_find(data, bad[i], path, sizeof path, &e));
        assert_int_equal(e.code, ERR_NOT_FOUND);
    }
    assert_false(models_find(data, "lama3.2-1b", path, sizeof path, &e));
    assert_says(e, "did you mean llama3.2-1b?");
    note("llama3.2-1b", "ollama:llama3.2:latest", 4);
    assert_ok(models_find(data, "llama3.2", path, sizeof path, &e), e);
}

static void removed(void **unused) {
    (void)unused;
    err        e = {0};
    model_file m;
    put("one.gguf", "GGUF");
    put("one.gguf.part", "GG");
    note("one", "u", 4);
    put("two.gguf.part", "GG");
    put("two.gguf.part.json", "{}");
    put("three.gguf", "GGUF");
    assert_false(models_remove(data, "../models/three", &m, &e));
    assert_false(models_remove(data, "thre", &m, &e));
    assert_says(e, "did you mean three?");
    assert_ok(models_remove(data, "one", &m, &e), e);
    assert_false(there("one.gguf") || there("one.json") || there("one.gguf.part"));
    assert_ok(models_remove(data, "two", &m, &e), e);
    assert_true(m.partial);
    assert_false(there("two.gguf.part") || there("two.gguf.part.json"));
    assert_true(there("three.gguf"));
}

/* ---- sources ---- */

#define HEX           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define COMMIT        "0123456789abcdef0123456789abcdef01234567"
#define FILE_OF(name) "{\"rfilename\":\"" name "\",\"size\":1000,\"lfs\":{\"sha256\":\"" HEX "\",\"size\":1000}}"
#define LISTING(files)                                                                                                 \
    "{\"id\":\"x\",\"sha\":\"" COMMIT "\",\"siblings\":[{\"rfilename\":\"README.md\",\"size\":3}," files "]}"
#define API(repository) "/api/models/" repository "/revision/main?blobs=true"
#define LAYER(type)     "{\"mediaType\":\"" type "\",\"digest\":\"sha256:" HEX "\",\"size\":4242}"
#define MODEL_TYPE      "application/vnd.ollama.image.model"

static const rule rules[] = {
    {.path = API("o/many"),
     .text = LISTING(FILE_OF("m.Q2_K.gguf") "," FILE_OF("m.Q8_0.gguf") "," FILE_OF("sub dir/m.Q4_K_M.gguf") "," FILE_OF(
         "mmproj-m-f16.gguf") "," FILE_OF("m.imatrix.gguf"))},
    {.path = API("o/single"), .text = LISTING(FILE_OF("odd name.gguf"))},
    {.path = API("o/two"), .text = LISTING(FILE_OF("a.Q4_0.gguf") "," FILE_OF("b.Q4_0.gguf"))},
    {.path = API("o/unusual"), .text = LISTING(FILE_OF("a.gguf") "," FILE_OF("b.gguf"))},
    {.path = API("o/split"),
     .text = LISTING(FILE_OF("m-Q8_0-00001-of-00002.gguf") "," FILE_OF("m-Q8_0-00002-of-00002.gguf") "," FILE_OF(
         "m-Q2_K-00001-of-00001.gguf"))},
    {.path = API("o/only_split"),
     .text = LISTING(FILE_OF("m-00001-of-00002.gguf") "," FILE_OF("m-00002-of-00002.gguf"))},
    {.path = API("o/none"), .text = LISTING("{\"rfilename\":\"model.safetensors\",\"size\":9}")},
    {.path = API("o/small"), .text = LISTING("{\"rfilename\":\"t.gguf\",\"size\":9}")},
    {.path = API("o/hostile"),
     .text = LISTING("{\"rfilename\":\"../../../x/..\",\"size\":9},{\"rfilename\":7},{\"rfilename\":\"..\\u001b.gguf\","
                     "\"size\":12}")},
    {.path = API("o/bad_digest"), .text = LISTING("{\"rfilename\":\"t.gguf\",\"size\":9,\"lfs\":{\"sha256\":\"zz\"}}")},
    {.path = API("o/bad_size"), .text = LISTING("{\"rfilename\":\"t.gguf\",\"size\":-9}")},
    {.path = API("o/no_json"), .text = "<html>"},
    {.path = API("o/private"), .status = 401},
    {.path = "/api/models/o/many/revision/v1%2Fx?blobs=true", .text = LISTING(FILE_OF("old.gguf"))},
    {.path = "/v2/library/llama3.2/manifests/1b",
     .text = "{\"layers\":[" LAYER("application/vnd.ollama.image.template") "," LAYER(MODEL_TYPE) "]}"},
    {.path = "/v2/library/llama3.2/manifests/latest", .text = "{\"layers\":[" LAYER(MODEL_TYPE) "]}"},
    {.path = "/v2/me/mine/manifests/latest", .text = "{\"layers\":[" LAYER(MODEL_TYPE) "]}"},
    {.path = "/v2/library/tensors/manifests/latest",
     .text = "{\"layers\":[" LAYER("application/vnd.ollama.image.tensor") "]}"},
    {.path = "/v2/library/two/manifests/latest", .text = "{\"layers\":[" LAYER(MODEL_TYPE) "," LAYER(MODEL_TYPE) "]}"},
    {.path = "/v2/library/odd/manifests/latest",
     .text = "{\"layers\":[{\"mediaType\":\"" MODEL_TYPE "\",\"digest\":\"md5:1\",\"size\":1}]}"},
    {.path = "/v2/library/empty/manifests/latest", .text = "{}"},
    {0}};

static server web;
static char   base[64];

static void assert_source(const char *what, const char *name, const char *path, const char *source) {
    err          e = {0};
    model_source s;
    char         url[256];
    assert_ok(model_source_find(what, &s, &e), e);
    snprintf(url, sizeof url, "%s%s", base, path);
    assert_string_equal(s.name, name);
    assert_string_equal(s.url, url);
    assert_string_equal(s.source, source);
    assert_true(models_name_ok(s.name));
    model_source_free(&s);
}

static void assert_refused(const char *what, const char *sentence) {
    err          e = {0};
    model_source s;
    assert_false(model_source_find(what, &s, &e));
    assert_says(e, sentence);
    assert_null(s.url);
}

static void on_the_hub(void **unused) {
    (void)unused;
    const char *many = "/o/many/resolve/" COMMIT;
    char        url[256];
    snprintf(url, sizeof url, "%s/sub%%20dir/m.Q4_K_M.gguf", many);
    assert_source("hf:o/many", "m.Q4_K_M", url, "hf:o/many:sub dir/m.Q4_K_M.gguf");
    assert_source("hf:o/many:q4_k_m", "m.Q4_K_M", url, "hf:o/many:sub dir/m.Q4_K_M.gguf");
    assert_source("hf:o/many:m.Q4_K_M.gguf", "m.Q4_K_M", url, "hf:o/many:sub dir/m.Q4_K_M.gguf");
    assert_source("hf:o/many:sub dir/m.Q4_K_M.gguf", "m.Q4_K_M", url, "hf:o/many:sub dir/m.Q4_K_M.gguf");
    snprintf(url, sizeof url, "%s/m.Q2_K.gguf", many);
    assert_source("hf:o/many:Q2_K", "m.Q2_K", url, "hf:o/many:m.Q2_K.gguf");
    snprintf(url, sizeof url, "%s/mmproj-m-f16.gguf", many);
    assert_source("hf:o/many:mmproj-m-f16.gguf", "mmproj-m-f16", url, "hf:o/many:mmproj-m-f16.gguf");
    assert_source("hf:o/many@v1/x", "old", "/o/many/resolve/" COMMIT "/old.gguf", "hf:o/many:old.gguf");
    assert_source("hf:o/single", "odd_name", "/o/single/resolve/" COMMIT "/odd%20name.gguf",
                  "hf:o/single:odd name.gguf");
    assert_source("hf:o/split", "m-Q2_K-00001-of-00001", "/o/split/resolve/" COMMIT "/m-Q2_K-00001-of-00001.gguf",
                  "hf:o/split:m-Q2_K-00001-of-00001.gguf");
    err          e = {0};
    model_source s;
    assert_ok(model_source_find("hf:o/hostile", &s, &e), e);
    assert_string_equal(s.name, ""); /* a name must be given */
    assert_null(strchr(s.source, 0x1b));
    snprintf(url, sizeof url, "%s/o/hostile/resolve/" COMMIT "/..%%1B.gguf", base);
    assert_string_equal(s.url, url);
    model_source_free(&s);
}

static void not_on_the_hub(void **unused) {
    (void)unused;
    assert_refused("hf:o/many:Q5_K_M", "there is: m.Q2_K.gguf, m.Q8_0.gguf, sub dir/m.Q4_K_M.gguf");
    assert_refused("hf:o/two", "a.Q4_0.gguf, b.Q4_0.gguf");
    assert_refused("hf:o/two:Q4_0", "a.Q4_0.gguf, b.Q4_0.gguf");
    assert_refused("hf:o/unusual", "a.gguf, b.gguf");
    assert_refused("hf:o/split:Q8_0", "several files");
    assert_refused("hf:o/split:m-Q8_0-00001-of-00002.gguf", "several files");
    assert_refused("hf:o/only_split", "several files");
    assert_refused("hf:o/none", "no GGUF file");
    assert_refused("hf:o/none:model.safetensors", "not a GGUF file");
    assert_refused("hf:o/bad_digest", "SHA-256");
    assert_refused("hf:o/bad_size", "size");
    assert_refused("hf:o/no_json", "cannot be read");
    assert_refused("hf:o/missing", "404");
    assert_refused("hf:o", "hf:OWNER/REPO");
    assert_refused("hf:", "hf:OWNER/REPO");
    assert_refused("hf:a/b/c", "hf:OWNER/REPO");
    assert_refused("hf:../x", "hf:OWNER/REPO");
    assert_refused("hf:a/b?x=1", "hf:OWNER/REPO");
    assert_refused("hf:a/b@../x", "hf:OWNER/REPO");
    assert_refused("llama", "hf:OWNER/REPO");
    assert_refused("file:///etc/passwd", "http(s)");
}

static void tokens(void **unused) {
    (void)unused;
    err          e = {0};
    model_source s;
    assert_refused("hf:o/private", "set HF_TOKEN");
    assert_int_equal(atomic_load(&web.authorized), 0);
    setenv("HF_TOKEN", "hf_secret", 1);
    assert_refused("hf:o/private", "HF_TOKEN does not open it");
    assert_int_equal(atomic_load(&web.authorized), 1);
    server_quiet(&web);
    assert_string_equal(web.authorization, "Bearer hf_secret");
    assert_ok(model_source_find("hf:o/many", &s, &e), e);
    assert_string_equal(s.token.token, "hf_secret");
    assert_string_equal(s.sha256, HEX);
    assert_int_equal(s.size, 1000);
    model_source_free(&s);
    server_clear(&web);
    assert_ok(model_source_find("ollama:llama3.2", &s, &e), e); /* it is not this registry's */
    assert_null(s.token.token);
    assert_int_equal(atomic_load(&web.authorized), 0);
    model_source_free(&s);
    unsetenv("HF_TOKEN");
    assert_ok(model_source_find("hf:o/small", &s, &e), e); /* in git, not in its large file storage: no digest */
    assert_string_equal(s.sha256, "");
    model_source_free(&s);
}

static void in_the_registry(void **unused) {
    (void)unused;
    assert_source("ollama:llama3.2:1b", "llama3.2-1b", "/v2/library/llama3.2/blobs/sha256:" HEX, "ollama:llama3.2:1b");
    assert_source("ollama:llama3.2", "llama3.2", "/v2/library/llama3.2/blobs/sha256:" HEX, "ollama:llama3.2:latest");
    assert_source("ollama:me/mine", "mine", "/v2/me/mine/blobs/sha256:" HEX, "ollama:me/mine:latest");
    assert_refused("ollama:tensors", "no GGUF file");
    assert_refused("ollama:empty", "no GGUF file");
    assert_refused("ollama:two", "several files");
    assert_refused("ollama:odd", "SHA-256");
    assert_refused("ollama:missing", "404");
    assert_refused("ollama:", "ollama:NAME");
    assert_refused("ollama:a/b/c", "ollama:NAME");
    assert_refused("ollama:../x", "ollama:NAME");
    assert_refused("ollama:a:b/c", "ollama:NAME");
}

static void addresses(void **unused) {
    (void)unused;
    err          e = {0};
    model_source s;
    assert_ok(model_source_find("https://u:p@h.example/a/m.Q4_0.gguf?sig=secret#x", &s, &e), e);
    assert_string_equal(s.name, "m.Q4_0");
    assert_string_equal(s.source, "https://h.example/a/m.Q4_0.gguf");
    assert_string_equal(s.url, "https://u:p@h.example/a/m.Q4_0.gguf?sig=secret#x");
    model_source_free(&s);
    assert_ok(model_source_find("http://h.example/", &s, &e), e);
    assert_string_equal(s.name, "");
    model_source_free(&s);
    setenv("HF_ENDPOINT", "nonsense", 1);
    assert_refused("hf:o/many", "HF_ENDPOINT");
    setenv("HF_ENDPOINT", base, 1);
}

static int open_bed(void **unused) {
    (void)unused;
    snprintf(data, sizeof data, "/tmp/pare-test-models-XXXXXX");
    if (!mkdtemp(data) || !server_start(&web, rules, 64)) {
        return -1;
    }
    snprintf(base, sizeof base, "http://127.0.0.1:%d", web.port);
    setenv("HF_ENDPOINT", base, 1);
    setenv("OLLAMA_REGISTRY", base, 1);
    unsetenv("HF_TOKEN");
    return 0;
}

static int close_bed(void **unused) {
    empty(unused);
    server_stop(&web);
    return rmdir(data);
}

#define TEST(name) cmocka_unit_test_setup(name, empty)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(names),           TEST(names_of_strangers), TEST(types),
                                       TEST(the_list),        TEST(found_by_name),      TEST(removed),
                                       TEST(on_the_hub),      TEST(not_on_the_hub),     TEST(tokens),
                                       TEST(in_the_registry), TEST(addresses)};
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
