/* speech_write.c - how a family of models writes one tool call around its arguments, for those that can be held to it: an
 * object with a name and arguments, between the family's marks. Source: the families' published chat templates.      */
#include <stdio.h>

#include "dialect/speech_parts.h"

typedef struct writing {
    const char *style;
    const char *before, *after; /* of {"name": ..., "arguments": ...}, after the opening mark */
    const char *arguments;      /* that member's name */
    bool        many;           /* several may follow each other, each with its mark */
} writing;

/* No model's own. */
static const speech_style plain = {
    .name = "plain", .open = {"<tool_call>"}, .close = "</tool_call>", .shape = SHAPE_JSON};

static const writing writings[] = {
    {"plain", "", "", "arguments", false},     {"hermes", "\n", "\n", "arguments", true},
    {"llama3", "", "", "parameters", false}, /* bare: without its mark, which stands for Python */
    {"mistral", "[", "]", "arguments", false}, {"granite", "[", "]", "arguments", false},
    {"apriel", "[", "]", "arguments", false},  {"firefunction", "[", "]", "arguments", false},
};

static const writing *writing_of(const speech_format *f) {
    for (size_t i = 0; f->calls && i < sizeof(writings) / sizeof(writings[0]); i++) {
        if (strcmp(writings[i].style, f->calls->name) == 0) {
            return &writings[i];
        }
    }
    return NULL;
}

speech_format speech_format_held(const speech_format *f) {
    speech_format held = *f;
    held.calls = writing_of(f) ? f->calls : &plain;
    return held;
}

bool speech_call_text(const speech_format *f, const char *name, bool marked, str *before, str *after) {
    const speech_style *s = f->calls;
    const writing      *w = writing_of(f);
    if (!w) {
        return false;
    }
    if (marked && !s->bare) {
        str_adds(before, s->open[0]);
    }
    str_adds(before, w->before);
    str_adds(before, "{\"name\": ");
    str_jsons(before, name);
    str_addf(before, ", \"%s\": ", w->arguments);
    str_addf(after, "}%s", w->after);
    if (marked && s->close) {
        str_adds(after, s->close);
    }
    return !before->failed && !after->failed;
}

bool speech_calls_many(const speech_format *f) {
    const writing *w = writing_of(f);
    return w && w->many;
}

bool speech_calls_unmarked(const speech_format *f) {
    return f->calls == &plain;
}

const char *speech_call_mark(const speech_format *f) {
    return f->calls && !f->calls->bare ? f->calls->open[0] : NULL;
}
