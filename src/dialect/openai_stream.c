/* openai_stream.c - a stream towards a client, as server-sent events. */
#include <string.h>

#include "dialect/openai.h"

/* A provider may spread one payload over several data lines; it came joined by LF, and is parted there again. */
static bool write_data(const char *json, size_t n, str *out) {
    const char *end = json + n, *line_end;
    for (const char *at = json; at <= end; at = line_end + 1) {
        line_end = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        line_end = line_end ? line_end : end;
        str_adds(out, "data: ");
        str_add(out, at, (size_t)(line_end - at));
        str_addc(out, '\n');
    }
    return str_addc(out, '\n');
}

static bool says(const event *ev) {
    return ev->text || ev->reasoning || ev->refusal || ev->signature || ev->tool_calls || ev->logprobs || ev->finish;
}

/* Of a provider's payload: pare asks for usage; this client may not have. */
bool openai_write_raw(const request *r, void *state, const event *ev, str *out) {
    openai_writing *w = state;
    if (ev->usage && !says(ev) && !r->include_usage) {
        return true;
    }
    w->usage_sent = w->usage_sent || (ev->usage && ev->usage->known);
    return write_data(ev->raw, ev->raw_len, out);
}

/* Other dialects say some of the usage early and all of it late: it is written at the end. Their frames without words
 * have no place here. */
bool openai_write_event(const request *r, void *state, const answer *head, const event *ev, str *out) {
    openai_writing *w = state;
    if (!says(ev)) {
        return true;
    }
    bool first = false;
    if (ev->choice >= 0 && ev->choice < 128) {
        uint64_t *word = &w->begun[ev->choice / 64], bit = (uint64_t)1 << ev->choice % 64;
        first = !(*word & bit);
        *word |= bit;
    }
    str_adds(out, "data: ");
    openai_write_chunk(r->kind, head, ev, first, out);
    return str_adds(out, "\n\n");
}

bool openai_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments, str *out) {
    (void)passed; /* "[DONE]" never is: it is no payload */
    openai_writing *w = state;
    if (r->include_usage && !w->usage_sent && head->usage.known) {
        str_adds(out, "data: ");
        openai_write_usage(r->kind, head, &head->usage, out);
        str_adds(out, "\n\n");
    }
    str_adds(out, comments);
    return str_adds(out, comments[0] ? "\ndata: [DONE]\n\n" : "data: [DONE]\n\n");
}

bool openai_write_break(const request *r, void *state, const err *e, int status, str *out) {
    (void)r;
    (void)state;
    str_adds(out, "data: ");
    openai_write_error(e, status, out);
    return str_adds(out, "\n\n");
}
