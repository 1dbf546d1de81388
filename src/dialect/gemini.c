/* gemini.c - Google's Gemini API as a dialect, for providers alone; the work is in gemini_*.c. */
#include "dialect/gemini.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/url.h"

gemini_place gemini_at(const char *format, ...) {
    gemini_place p;
    va_list      args;
    va_start(args, format);
    vsnprintf(p.text, sizeof p.text, format, args);
    va_end(args);
    return p;
}

bool gemini_drop(gemini_writer *w, const char *name) {
    return drop_member(w->r->drops, name, GEMINI_TARGET, w->e);
}

/* A name may stand with its collection, as the API lists it: "models/gemini-2.5-flash", "tunedModels/mine". */
static const char *write_collection(const char *model, str *out) {
    if (strncmp(model, "models/", 7) == 0) {
        model += 7;
    } else if (strncmp(model, "tunedModels/", 12) == 0) {
        str_adds(out, "/tunedModels/");
        return model + 12;
    }
    str_adds(out, "/models/");
    return model;
}

static bool write_url(const place_of *p, str *out) {
    if (p->kind != REQUEST_CHAT && p->kind != REQUEST_EMBEDDINGS) {
        return false;
    }
    str_adds(out, p->base);
    url_segment(out, write_collection(p->model, out));
    return str_adds(out, p->kind == REQUEST_EMBEDDINGS ? ":batchEmbedContents"
                         : p->stream                   ? ":streamGenerateContent?alt=sse"
                                                       : ":generateContent");
}

/* "gemini-3-pro" and what follows; also "gemini-flash-latest", which moves with the newest. Other families that the API
 * serves (gemma) are none. */
static bool is_modern(const char *model) {
    const char *at = strstr(model, "gemini-");
    if (!at) {
        return false;
    }
    at += 7;
    size_t n = strlen(at), tail = strlen("-latest");
    return *at >= '0' && *at <= '9' ? strtol(at, NULL, 10) >= 3 : n > tail && strcmp(at + n - tail, "-latest") == 0;
}

static bool write_tier(gemini_writer *w) {
    const char *tier = neutral_text(w->r->body, "service_tier");
    if (!tier || strcmp(tier, "auto") == 0 || strcmp(tier, "default") == 0) {
        return true;
    }
    if (strcmp(tier, "flex") != 0 && strcmp(tier, "priority") != 0) {
        return gemini_drop(w, "service_tier");
    }
    str_adds(w->out, ",\"service_tier\":");
    return str_jsons(w->out, tier);
}

static bool write_chat(gemini_writer *w) {
    static const char *const carried[] = {"model",
                                          "messages",
                                          "tools",
                                          "tool_choice",
                                          "response_format",
                                          "stream",
                                          "temperature",
                                          "top_p",
                                          "top_k",
                                          "stop",
                                          "seed",
                                          "n",
                                          "max_tokens",
                                          "presence_penalty",
                                          "stream_options",
                                          "logprobs",
                                          "top_logprobs",
                                          "thinking",
                                          "modalities",
                                          "service_tier",
                                          "reasoning_effort",
                                          "cache_control",
                                          "frequency_penalty",
                                          "max_completion_tokens",
                                          NULL};
    if (!neutral_carried(w->r, carried, GEMINI_TARGET, w->e)) {
        return false;
    }
    if (neutral_get(w->r->body, "cache_control")) {
        drop_hint(w->r->drops, "cache_control");
    }
    w->names = map_new(16);
    if (!w->names) {
        return err_set(w->e, ERR_MEMORY, "The request could not be written: out of memory.");
    }
    str_addc(w->out, '{');
    bool good = gemini_write_contents(w) && gemini_write_tools(w) && gemini_write_config(w) && write_tier(w);
    map_free(w->names);
    str_addc(w->out, '}');
    return good;
}

static bool write_request(const request *r, const char *model, bool ask_usage, str *out, err *e) {
    (void)ask_usage; /* it is always told */
    gemini_writer w = {.r = r, .model = model, .modern = is_modern(model), .out = out, .e = e};
    if (r->kind != REQUEST_CHAT && r->kind != REQUEST_EMBEDDINGS) {
        return err_set(e, ERR_UNSUPPORTED, GEMINI_TARGET " has chats and embeddings, not requests of this kind.");
    }
    if (!(r->kind == REQUEST_CHAT ? write_chat(&w) : gemini_write_embed(&w))) {
        return false;
    }
    return !out->failed || err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
}

const dialect dialect_gemini = {
    .name = "gemini",
    .write_url = write_url,
    .key_header = "x-goog-api-key: ",
    .write_request = write_request,
    .read_answer = gemini_read_answer,
    .reading = sizeof(gemini_reading),
    .read_chunk = gemini_read_chunk,
};
