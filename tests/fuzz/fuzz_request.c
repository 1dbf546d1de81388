/* A request from anybody: never a crash; the cache key is a fixed point; what goes to a provider reads as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/dialect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void same(const str *a, const str *b) {
    must(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
}

static void check_key(request_kind kind, const request *r, arena *memory) {
    size_t  prefix = kind == REQUEST_CHAT ? strlen("chat ") : strlen("completion ");
    str     key = {0};
    str     again = {0};
    request q;
    err     e = {0};
    must(dialect_openai.canonical(r, &key) && key.len > prefix);
    must(dialect_openai.read_request(kind, key.data + prefix, key.len - prefix, memory, &q, &e));
    must(dialect_openai.canonical(&q, &again));
    same(&key, &again);
    request_free(&q);
    str_free(&key);
    str_free(&again);
}

static void check_write(request_kind kind, const request *r, arena *memory) {
    str     once = {0};
    str     twice = {0};
    str     direct = {0};
    request q;
    err     e = {0};
    must(dialect_openai.write_request(r, "y\"", true, &once, NULL));
    must(dialect_openai.read_request(kind, once.data, once.len, memory, &q, &e));
    must(strcmp(q.model, "y\"") == 0 && q.include_usage == q.stream);
    must(dialect_openai.write_request(&q, "z", true, &twice, NULL));
    must(dialect_openai.write_request(r, "z", true, &direct, NULL));
    same(&twice, &direct);
    request_free(&q);
    str_free(&once);
    str_free(&twice);
    str_free(&direct);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const request_kind kinds[] = {REQUEST_CHAT, REQUEST_COMPLETION};
    for (int i = 0; i < 2; i++) {
        arena  *memory = arena_new(1024);
        request r;
        err     e = {0};
        must(memory != NULL);
        if (dialect_openai.read_request(kinds[i], (const char *)data, n, memory, &r, &e)) {
            check_key(kinds[i], &r, memory);
            check_write(kinds[i], &r, memory);
        } else {
            str s = {0};
            must(e.text[0] != '\0' && r.body == NULL && dialect_openai.write_error(&e, 0, &s));
            cJSON *error = json_parse(s.data, s.len, 8, &e);
            must(error != NULL);
            cJSON_Delete(error);
            str_free(&s);
        }
        request_free(&r);
        arena_free(memory);
    }
    return 0;
}
