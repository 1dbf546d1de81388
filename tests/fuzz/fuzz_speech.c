/* What a model might say, in random pieces: never a crash, and the same deltas as in one piece. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/speech.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const forms[] = {
    "<tool_call></think>",
    "<|python_tag|>",
    "[TOOL_CALLS][THINK]",
    "<tool_call><function=<parameter=",
    "<tool_call><arg_key><arg_value></think>",
    "<|tool_call_begin|><|tool_call_argument_begin|>",
    "<\xEF\xBD\x9Ctool\xE2\x96\x81"
    "call\xE2\x96\x81"
    "begin\xEF\xBD\x9C><\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>",
    "<function=",
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

static const char tools_text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
                                 "\"a\":{\"type\":\"string\"}}}}}]";

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void hear(void *ctx, const speech_delta *d) {
    str *heard = ctx;
    if (d->kind == SPEECH_CALL) {
        must(d->name[0] && d->id[0]);
        str_addf(heard, "\n%d %s ", d->index, d->name);
        return;
    }
    must(d->len > 0);
    /* pieces of one kind stand in a row: what tells them apart is the letter where the kind changes */
    char letter = d->kind == SPEECH_TEXT ? 't' : d->kind == SPEECH_REASONING ? 'r' : 'a';
    for (size_t i = 0; i < d->len; i++) {
        char pair[2] = {letter, d->text[i]};
        str_add(heard, pair, 2);
    }
}

static str listen(const uint8_t *data, size_t n, const cJSON *tools, unsigned form, uint32_t seed) {
    str            heard = {0};
    speech_format  f = speech_format_of(forms[form % FORMS]);
    speech_options o = {.tools = tools, .thinks = form / FORMS % 2, .salt = 1, .tell = hear, .ctx = &heard};
    speech        *s = speech_new(&f, &o);
    must(s != NULL);
    for (size_t at = 0; at < n;) {
        size_t piece = n;
        if (seed) {
            seed = seed * 1664525u + 1013904223u;
            piece = 1 + (seed >> 24) % 9;
        }
        piece = piece < n - at ? piece : n - at;
        must(speech_add(s, (const char *)data + at, piece));
        if (seed) {
            speech_flush(s);
        }
        at += piece;
    }
    must(speech_end(s));
    speech_free(s);
    return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static cJSON *tools;
    if (!tools) {
        tools = cJSON_Parse(tools_text);
    }
    if (n < 2) {
        return 0;
    }
    const cJSON *given = data[1] % 4 ? tools : NULL;
    str whole = listen(data + 2, n - 2, given, data[0], 0), cut = listen(data + 2, n - 2, given, data[0], 1u + data[1]);
    must(whole.len == cut.len && (whole.len == 0 || memcmp(whole.data, cut.data, whole.len) == 0));
    str_free(&whole);
    str_free(&cut);
    return 0;
}
