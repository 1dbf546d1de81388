/* Any bytes as JSON: json_parse takes what its plain reference takes and gives the same tree, and what pare writes of it
 * reads back as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../base/json_plain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void write_and_read(const cJSON *value) {
    str    ordinary = {0};
    str    sorted = {0};
    str    again = {0};
    err    e = {0};
    cJSON *back = NULL;
    must(json_write(value, &ordinary) && json_canonical(value, &sorted));
    back = json_parse(ordinary.data, ordinary.len, JSON_MAX_DEPTH, &e);
    must(back && json_canonical(back, &again));
    must(again.len == sorted.len && memcmp(again.data, sorted.data, again.len) == 0);
    cJSON_Delete(back);
    str_free(&ordinary);
    str_free(&sorted);
    str_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0) {
        return 0;
    }
    int         max_depth = 1 + data[0] % JSON_MAX_DEPTH;
    const char *text = (const char *)data + 1;
    err         e = {0};
    cJSON      *want = plain_parse(text, n - 1, max_depth);
    cJSON      *got = json_parse(text, n - 1, max_depth, &e);
    must(!want == !got && (!want || plain_same(got, want)));
    must(got || (e.code != ERR_NONE && e.text[0]));
    if (got) {
        write_and_read(got);
    }
    cJSON_Delete(want);
    cJSON_Delete(got);
    return 0;
}
