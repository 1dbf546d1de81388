/* fuzz_template.c - any template over any input.
 *
 *   build/fuzz/fuzz_template -max_len=8000 -timeout=20 CORPUS_DIR
 *
 * The first two bytes, little-endian, say how long the template is; the rest is the JSON, or stands for none.        */
#include <stdint.h>
#include <string.h>

#include "base/json.h"
#include "model/template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char talk[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xa9llo\"},{\"role\":\"assistant\","
                           "\"content\":[{\"type\":\"text\",\"text\":\"x\"}],\"tool_calls\":[{\"id\":1.5}]}],"
                           "\"tools\":null,\"add_generation_prompt\":true,\"bos_token\":\"<s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    size_t length = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    n -= 2;
    length = length < n ? length : n;
    err            e = {0};
    chat_template *t = template_compile((const char *)data, length, &e);
    if (!t) {
        return 0;
    }
    cJSON *input = json_parse((const char *)data + length, n - length, JSON_MAX_DEPTH, &e);
    if (!input) { /* a mutated template still meets a sensible input */
        input = json_parse(talk, sizeof(talk) - 1, JSON_MAX_DEPTH, &e);
    }
    str out = {0};
    template_render(t, input, 1795211545, &out, &e);
    str_free(&out);
    cJSON_Delete(input);
    template_free(t);
    return 0;
}
