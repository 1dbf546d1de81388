/* otlp_trace.c - where an exchange stands in a trace, and its spans: one for the request, and below it one for the call of
 * the backend, whose id is what the provider gets as its parent.                                                      */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "serve/otlp_parts.h"

#define SAMPLED       0x01
#define KIND_INTERNAL 1
#define KIND_SERVER   2
#define KIND_CLIENT   3
#define STATUS_ERROR  2
/* Span.flags: the low byte is the trace's; two bits say whether the parent is known to be of another process. */
#define FLAGS_KNOWN   0x100
#define FLAGS_REMOTE  0x200

/* ---- context ---- */

static bool lower_hex(const char *text, size_t n) {
    return strspn(text, "0123456789abcdef") >= n;
}

static bool all_zero(const uint8_t *bytes, size_t n) {
    static const uint8_t zero[16];
    return memcmp(bytes, zero, n) == 0;
}

static bool take_hex(const char *text, void *out, size_t n) {
    char part[33];
    memcpy(part, text, 2 * n);
    part[2 * n] = '\0';
    return lower_hex(part, 2 * n) && hex_decode(part, out, n);
}

/* version "-" trace-id "-" parent-id "-" flags; a later version may add what begins with "-". Anything else is as if the
 * header were not there. Source: W3C Trace Context, 3.2. */
bool trace_parent_read(const char *text, uint8_t id[16], uint8_t parent[8], uint8_t *flags) {
    uint8_t version;
    size_t  n = strlen(text);
    if (n < 55 || n > 512 || text[2] != '-' || text[35] != '-' || text[52] != '-') {
        return false;
    }
    if (!take_hex(text, &version, 1) || version == 0xff || (version == 0 && n != 55) || (n > 55 && text[55] != '-')) {
        return false;
    }
    return take_hex(text + 3, id, 16) && take_hex(text + 36, parent, 8) && take_hex(text + 53, flags, 1) &&
           !all_zero(id, 16) && !all_zero(parent, 8);
}

static bool state_fits(const char *text) {
    size_t n = strlen(text);
    if (n == 0 || n > OTLP_STATE) {
        return false;
    }
    for (const char *p = text; *p; p++) {
        if ((*p < ' ' && *p != '\t') || *p >= 0x7F) {
            return false;
        }
    }
    return true;
}

/* Numbers that do not come again: a counter under a hash whose seed is drawn at the start of the process. */
static uint64_t fresh(void) {
    static _Atomic uint64_t count;
    uint64_t                n[2] = {atomic_fetch_add_explicit(&count, 1, memory_order_relaxed), 0x7261636570617265u};
    uint64_t                id = hash64(n, sizeof n, hash_seed());
    return id ? id : 1;
}

static void put_number(uint8_t *out, uint64_t n) {
    for (int i = 7; i >= 0; i--, n >>= 8) {
        out[i] = (uint8_t)n;
    }
}

/* The last 56 bits of the id decide, so that everybody who samples at this rate chooses the same traces. Source:
 * OpenTelemetry's consistent probability sampling. */
static bool chosen(const uint8_t id[16], double part) {
    uint64_t low = 0;
    for (int i = 9; i < 16; i++) {
        low = low << 8 | id[i];
    }
    return (double)low >= (1.0 - part) * 72057594037927936.0; /* 2^56 */
}

void trace_begin(const otlp_options *o, exchange *x, const char *traceparent, const char *tracestate) {
    trace *t = arena_zero(x->memory, 1, sizeof *t);
    if (!t) {
        return;
    }
    uint8_t flags = 0;
    t->remote = traceparent && trace_parent_read(traceparent, t->id, t->parent, &flags);
    if (t->remote) {
        t->sampled = flags & SAMPLED;
        t->state = tracestate && state_fits(tracestate) ? arena_strdup(x->memory, tracestate) : NULL;
    } else {
        memset(t->parent, 0, sizeof t->parent);
        put_number(t->id, fresh());
        put_number(t->id + 8, fresh());
        t->sampled = chosen(t->id, o->sample);
    }
    put_number(t->span, fresh());
    put_number(t->call, fresh());
    x->trace = t;
    if (o->propagate) {
        char id[33], span[17];
        hex_encode(t->id, 16, id);
        hex_encode(t->call, 8, span);
        x->traceparent = arena_printf(x->memory, "00-%s-%s-%02x", id, span, t->sampled ? SAMPLED : 0);
        x->tracestate = t->state;
    }
}

/* ---- a finished exchange ---- */

bool otlp_host(const char *url, char *host, size_t size, int *port) {
    const char *from = strstr(url, "://");
    bool        tls = strncmp(url, "https:", 6) == 0;
    if (!from) {
        return false;
    }
    from += 3;
    size_t      n = strcspn(from, "/?#");
    const char *at = memrchr(from, '@', n); /* a name and a password are nobody's business */
    if (at) {
        n -= (size_t)(at + 1 - from);
        from = at + 1;
    }
    const char *end = from + n, *colon = NULL;
    if (n > 0 && *from == '[') {
        const char *close = memchr(from, ']', n);
        if (!close) {
            return false;
        }
        colon = close + 1 < end && close[1] == ':' ? close + 1 : NULL;
        from++;
        n = (size_t)(close - from);
    } else {
        colon = memchr(from, ':', n);
        n = colon ? (size_t)(colon - from) : n;
    }
    *port = tls ? 443 : 80;
    for (const char *p = colon ? colon + 1 : end; p < end; p++) {
        *port = p == colon + 1 ? 0 : *port;
        if (*p < '0' || *p > '9' || *port > 6553) {
            return false;
        }
        *port = *port * 10 + (*p - '0');
    }
    if (n == 0 || n >= size) {
        return false;
    }
    memcpy(host, from, n);
    host[n] = '\0';
    return true;
}

static const char *operation_of(request_kind kind) {
    switch (kind) {
    case REQUEST_CHAT:
        return "chat";
    case REQUEST_COMPLETION:
        return "text_completion";
    case REQUEST_EMBEDDINGS:
        return "embeddings";
    case REQUEST_RERANK:
        return "rerank"; /* the conventions have no word for it */
    }
    return "chat";
}

static void fill_answer(otlp_span *s, const exchange *x) {
    const answer *a = &x->answer;
    bool          own = s->local && x->asked_us && x->result == OUTCOME_OK;
    utf8_copy(s->response_model, sizeof s->response_model, x->said_model ? x->said_model : own ? a->model : "");
    utf8_copy(s->response_id, sizeof s->response_id, x->said_id ? x->said_id : own ? a->id : "");
    for (int i = 0; i < a->n_choices && s->n_finish < 4; i++) {
        if (a->choices[i].finish[0]) {
            utf8_copy(s->finish[s->n_finish++], sizeof s->finish[0], a->choices[i].finish);
        }
    }
}

static void fill_names(otlp_span *s, const exchange *x, const otlp_peer *peer) {
    utf8_copy(s->model, sizeof s->model, x->target ? x->target->name : "");
    if (x->asked_us && x->target) {
        utf8_copy(s->upstream, sizeof s->upstream, x->by_model ? x->by_model : x->target->upstream);
    }
    utf8_copy(s->key, sizeof s->key, x->key ? x->key->name : "");
    utf8_copy(s->stage, sizeof s->stage, x->answered_stage);
    utf8_copy(s->backend, sizeof s->backend, x->answered_by);
    utf8_copy(s->request_id, sizeof s->request_id, x->id);
    if (x->asked_us && (!peer->base_url || !otlp_host(peer->base_url, s->address, sizeof s->address, &s->port))) {
        s->address[0] = '\0';
    }
}

void otlp_span_fill(otlp_span *s, const exchange *x, const otlp_peer *peer) {
    int64_t wall = x->arrived_wall_us;
    *s = (otlp_span){.operation = operation_of(x->kind),
                     .provider = peer->provider,
                     .error = x->failed.code == ERR_NONE ? NULL : err_word(x->failed.code),
                     .kind = x->kind,
                     .begun_ns = wall * 1000,
                     .asked_ns = x->asked_us ? (wall + x->asked_us - x->arrived_us) * 1000 : 0,
                     .ended_ns = (wall + x->done_us - x->arrived_us) * 1000,
                     .first_us = x->first_us ? x->first_us - x->arrived_us : -1,
                     .local = !peer->base_url,
                     .stream = x->request.stream,
                     .failed = x->result == OUTCOME_ERROR,
                     .call_failed = x->failed.code != ERR_NONE && x->failed.code != ERR_CANCELLED,
                     .has_seed = x->request.has_seed,
                     .seed = x->request.seed,
                     .n = x->request.n,
                     .max_tokens = x->target ? x->request.max_tokens : -1,
                     .status = x->failed.code == ERR_NONE ? 200 : x->status,
                     .usage = x->answer.usage,
                     .n_attempts = x->n_attempts,
                     .queue_us = x->queue_us,
                     .cost_nano = x->cost_nano,
                     .saved_nano = x->saved_nano};
    if (x->trace) {
        s->trace = *x->trace;
        utf8_copy(s->state, sizeof s->state, x->trace->state);
        s->trace.state = NULL;
    }
    fill_names(s, x, peer);
    fill_answer(s, x);
}

/* ---- as JSON ---- */

static void add_id(str *out, const char *name, const uint8_t *bytes, size_t n) {
    char hex[33];
    hex_encode(bytes, n, hex);
    str_addf(out, "\"%s\":\"%s\",", name, hex);
}

static void span_head(const otlp_span *s, str *out, const uint8_t *id, const uint8_t *parent, bool remote, int kind) {
    str_addc(out, '{');
    add_id(out, "traceId", s->trace.id, 16);
    add_id(out, "spanId", id, 8);
    if (!all_zero(parent, 8)) {
        add_id(out, "parentSpanId", parent, 8);
    }
    if (s->state[0]) {
        str_adds(out, "\"traceState\":");
        otlp_text(out, s->state);
        str_addc(out, ',');
    }
    str name = {0};
    str_addf(&name, "%s%s%s", s->operation, s->model[0] ? " " : "", s->model);
    str_addf(out, "\"flags\":%d,\"kind\":%d,\"name\":", SAMPLED | FLAGS_KNOWN | (remote ? FLAGS_REMOTE : 0), kind);
    otlp_text(out, name.failed ? s->operation : name.data);
    str_free(&name);
}

static void times(str *out, int64_t begun_ns, int64_t ended_ns) {
    str_addf(out, ",\"startTimeUnixNano\":\"%lld\",\"endTimeUnixNano\":\"%lld\",\"attributes\":[", (long long)begun_ns,
             (long long)(ended_ns > begun_ns ? ended_ns : begun_ns));
}

static void finish_reasons(const otlp_span *s, str *out) {
    if (s->n_finish == 0) {
        return;
    }
    str_adds(out, ",{\"key\":\"gen_ai.response.finish_reasons\",\"value\":{\"arrayValue\":{\"values\":[");
    for (int i = 0; i < s->n_finish; i++) {
        str_adds(out, i ? ",{\"stringValue\":" : "{\"stringValue\":");
        otlp_text(out, s->finish[i]);
        str_addc(out, '}');
    }
    str_adds(out, "]}}}");
}

static void usage_attributes(const otlp_span *s, str *out) {
    const usage *u = &s->usage;
    if (!u->known) {
        return;
    }
    otlp_attribute_int(out, "gen_ai.usage.input_tokens", u->prompt);
    otlp_attribute_int(out, "gen_ai.usage.output_tokens", u->completion);
    if (u->cached > 0) {
        otlp_attribute_int(out, "gen_ai.usage.cache_read.input_tokens", u->cached);
    }
    if (u->write_5m + u->write_1h > 0) {
        otlp_attribute_int(out, "gen_ai.usage.cache_creation.input_tokens", u->write_5m + u->write_1h);
    }
    if (u->reasoning > 0) {
        otlp_attribute_int(out, "gen_ai.usage.reasoning.output_tokens", u->reasoning);
    }
}

static void request_attributes(const otlp_span *s, str *out) {
    if (s->max_tokens >= 0) {
        otlp_attribute_int(out, "gen_ai.request.max_tokens", s->max_tokens);
    }
    if (s->n > 1) {
        otlp_attribute_int(out, "gen_ai.request.choice.count", s->n);
    }
    if (s->has_seed) {
        otlp_attribute_int(out, "gen_ai.request.seed", s->seed);
    }
    if (s->stream) {
        otlp_attribute_bool(out, "gen_ai.request.stream", true);
    }
}

/* What both spans say; `model` as who was asked knows it. */
static void common_attributes(const otlp_span *s, const char *model, str *out) {
    otlp_attribute(out, "gen_ai.operation.name", s->operation);
    otlp_attribute(out, "gen_ai.provider.name", s->provider);
    otlp_attribute(out, "gen_ai.request.model", model);
    otlp_attribute(out, "gen_ai.response.model", s->response_model);
    otlp_attribute(out, "gen_ai.response.id", s->response_id);
    otlp_attribute(out, "error.type", s->error);
    request_attributes(s, out);
    usage_attributes(s, out);
    finish_reasons(s, out);
}

/* An error is what the server could not do, not what a client did wrong or gave up (conventions for HTTP). */
static void span_end(bool error, str *out) {
    if (error) {
        str_addf(out, "],\"status\":{\"code\":%d}}", STATUS_ERROR);
    } else {
        str_adds(out, "],\"status\":{}}");
    }
}

static void server_span(const otlp_span *s, str *out) {
    span_head(s, out, s->trace.span, s->trace.parent, s->trace.remote, KIND_SERVER);
    times(out, s->begun_ns, s->ended_ns);
    common_attributes(s, s->model, out);
    if (s->first_us >= 0 && s->stream) {
        otlp_attribute_double(out, "gen_ai.response.time_to_first_chunk", (double)s->first_us / 1e6);
    }
    otlp_attribute_int(out, "http.response.status_code", s->status);
    otlp_attribute(out, "pare.request_id", s->request_id);
    otlp_attribute(out, "pare.key", s->key);
    otlp_attribute(out, "pare.stage", s->stage);
    otlp_attribute(out, "pare.answered_by", s->backend);
    otlp_attribute_double(out, "pare.cost_usd", (double)s->cost_nano / 1e9);
    otlp_attribute_double(out, "pare.saved_usd", (double)s->saved_nano / 1e9);
    span_end(s->failed, out);
}

static void call_span(const otlp_span *s, str *out) {
    span_head(s, out, s->trace.call, s->trace.span, false, s->local ? KIND_INTERNAL : KIND_CLIENT);
    times(out, s->asked_ns, s->ended_ns);
    common_attributes(s, s->upstream, out);
    int64_t first_ns = s->begun_ns + s->first_us * 1000 - s->asked_ns;
    if (s->first_us >= 0 && s->stream && first_ns >= 0) {
        otlp_attribute_double(out, "gen_ai.response.time_to_first_chunk", (double)first_ns / 1e9);
    }
    if (s->address[0]) {
        otlp_attribute(out, "server.address", s->address);
        otlp_attribute_int(out, "server.port", s->port);
    }
    otlp_attribute(out, "pare.answered_by", s->backend);
    if (s->n_attempts > 0) {
        otlp_attribute_int(out, "pare.further_attempts", s->n_attempts);
    }
    if (s->local) {
        otlp_attribute_double(out, "pare.queue_seconds", (double)s->queue_us / 1e6);
    }
    span_end(s->call_failed, out);
}

void otlp_span_write(const otlp_span *s, str *out) {
    server_span(s, out);
    if (s->asked_ns > 0) {
        str_addc(out, ',');
        call_span(s, out);
    }
}
