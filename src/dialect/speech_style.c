/* speech_style.c - how the families of models mark their reasoning and write their tool calls.
 *
 * Source: their published chat templates, which write earlier calls of a conversation in the model's own form. The
 * first row whose hints the template holds counts.                                                                    */
#include <string.h>

#include "dialect/speech_parts.h"

#define SEP             "<\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>" /* of DeepSeek: wide bars, and U+2581 for spaces */
#define DEEPSEEK(words) "<\xEF\xBD\x9C" words "\xEF\xBD\x9C>"
#define U               "\xE2\x96\x81"

static const speech_style styles[] = {
    {.name = "seed",
     .hints = {"<seed:tool_call>", "<function="},
     .open = {"<seed:tool_call>"},
     .close = "</seed:tool_call>",
     .shape = SHAPE_PARAMS},
    {.name = "deepseek",
     .hints = {DEEPSEEK("tool" U "call" U "begin"), SEP},
     .open = {DEEPSEEK("tool" U "call" U "begin")},
     .close = DEEPSEEK("tool" U "call" U "end"),
     .around = {DEEPSEEK("tool" U "calls" U "begin"), DEEPSEEK("tool" U "calls" U "end")},
     .inner = {SEP},
     .shape = SHAPE_NAMED,
     .head = HEAD_DEEPSEEK},
    {.name = "kimi",
     .hints = {"<|tool_call_begin|>", "<|tool_call_argument_begin|>"},
     .open = {"<|tool_call_begin|>"},
     .close = "<|tool_call_end|>",
     .around = {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"},
     .inner = {"<|tool_call_argument_begin|>"},
     .shape = SHAPE_NAMED,
     .head = HEAD_KIMI},
    {.name = "mistral",
     .hints = {"[TOOL_CALLS]"},
     .open = {"[TOOL_CALLS]"},
     .inner = {"[ARGS]", "[CALL_ID]"},
     .shape = SHAPE_EITHER,
     .head = HEAD_MISTRAL,
     .short_ids = true},
    {.name = "cohere",
     .hints = {"<|START_ACTION|>"},
     .open = {"<|START_ACTION|>"},
     .close = "<|END_ACTION|>",
     .shape = SHAPE_JSON},
    {.name = "apriel",
     .hints = {"<tool_calls>["},
     .open = {"<tool_calls>"},
     .close = "</tool_calls>",
     .shape = SHAPE_JSON},
    {.name = "glm",
     .hints = {"<tool_call>", "<arg_key>", "<arg_value>"},
     .open = {"<tool_call>"},
     .close = "</tool_call>",
     .inner = {"<arg_key>", "<arg_value>"},
     .shape = SHAPE_PARAMS},
    {.name = "qwen3-coder",
     .hints = {"<tool_call>", "<function=", "<parameter="},
     .open = {"<tool_call>", "<function="},
     .close = "</tool_call>",
     .shape = SHAPE_PARAMS},
    {.name = "hermes", .hints = {"<tool_call>"}, .open = {"<tool_call>"}, .close = "</tool_call>", .shape = SHAPE_JSON},
    {.name = "granite", .hints = {"<|tool_call|>"}, .open = {"<|tool_call|>"}, .shape = SHAPE_JSON},
    {.name = "functionary",
     .hints = {"<function="},
     .open = {"<function="},
     .close = "</function>",
     .shape = SHAPE_NAMED,
     .head = HEAD_PLAIN},
    {.name = "firefunction", .hints = {"functools["}, .open = {"functools"}, .shape = SHAPE_JSON},
    {.name = "llama3", .hints = {"<|python_tag|>"}, .open = {"<|python_tag|>"}, .shape = SHAPE_JSON, .bare = true},
    {.name = "llama3",
     .hints = {"\"name\": function name", "\"parameters\": "},
     .open = {"<|python_tag|>"},
     .shape = SHAPE_JSON,
     .bare = true},
};

static const char *const thoughts[][2] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
};

static bool has_all(const char *text, const char *const hints[3]) {
    for (int i = 0; i < 3 && hints[i]; i++) {
        if (!strstr(text, hints[i])) {
            return false;
        }
    }
    return true;
}

speech_format speech_format_of(const char *chat_template) {
    speech_format f = {0};
    for (size_t i = 0; i < sizeof(thoughts) / sizeof(thoughts[0]) && !f.think_open; i++) {
        if (strstr(chat_template, thoughts[i][1]) || strstr(chat_template, thoughts[i][0])) {
            f.think_open = thoughts[i][0];
            f.think_close = thoughts[i][1];
        }
    }
    for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]) && !f.calls; i++) {
        f.calls = has_all(chat_template, styles[i].hints) ? &styles[i] : NULL;
    }
    return f;
}

const char *speech_calls_name(const speech_format *f) {
    return f->calls ? f->calls->name : "none";
}

int speech_marks(const speech_format *f, const char *marks[SPEECH_MAX_MARKS], int *n_think) {
    int n = 0;
    if (f->think_open) {
        marks[n++] = f->think_open;
        marks[n++] = f->think_close;
    }
    *n_think = n;
    if (f->calls) {
        const speech_style *c = f->calls;
        const char *const   all[] = {c->open[0],   c->open[1],  c->close,   c->around[0],
                                     c->around[1], c->inner[0], c->inner[1]};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
            if (all[i]) {
                marks[n++] = all[i];
            }
        }
    }
    return n;
}

bool speech_prompt_thinks(const speech_format *f, const char *prompt, size_t n) {
    size_t len = f->think_open ? strlen(f->think_open) : 0;
    while (n > 0 && (prompt[n - 1] == ' ' || prompt[n - 1] == '\n' || prompt[n - 1] == '\t')) {
        n--;
    }
    return len > 0 && n >= len && memcmp(prompt + n - len, f->think_open, len) == 0;
}
