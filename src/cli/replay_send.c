/* replay_send.c - the transfers of `pare replay`: libcurl multi, one thread, a fixed number under way. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/replay.h"
#include "dialect/sse.h"

#define MAX_BODY ((size_t)64 << 20)

typedef struct transfer {
    CURL          *easy;
    replay_result *result; /* NULL: free */
    sse_reader     sse;
    str            body;
    int64_t        begun_us;
    bool           done_mark; /* "[DONE]" came */
    bool           streaming;
} transfer;

typedef struct sender {
    const replay_plan *plan;
    replay_run        *run;
    CURLM             *multi;
    struct curl_slist *headers;
    transfer          *slots;
    char              *chat_url, *completion_url;
    int                next, under_way, finished;
    int64_t            began_us;
} sender;

static int64_t micro_of(const char *dollars) {
    char  *end;
    double value = strtod(dollars, &end);
    return (int64_t)(value * 1e6 + 0.5);
}

static void take_usage(replay_result *r, const cJSON *json) {
    const cJSON *u = cJSON_GetObjectItemCaseSensitive(json, "usage");
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(u, "prompt_tokens");
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(u, "completion_tokens");
    if (cJSON_IsNumber(p) && cJSON_IsNumber(c)) {
        r->prompt_tokens = (int64_t)p->valuedouble;
        r->completion_tokens = (int64_t)c->valuedouble;
    }
}

static void take_error(replay_result *r, const cJSON *json) {
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "error"), "message");
    if (cJSON_IsString(m)) {
        snprintf(r->error, sizeof r->error, "%s", m->valuestring);
    }
}

static bool on_payload(void *arg, const char *data, size_t n) {
    transfer *t = arg;
    if (n == 6 && memcmp(data, "[DONE]", 6) == 0) {
        t->done_mark = true;
        return true;
    }
    err    ignored = {0};
    cJSON *json = json_parse(data, n, JSON_MAX_DEPTH, &ignored);
    take_usage(t->result, json);
    take_error(t->result, json);
    cJSON_Delete(json);
    return true;
}

/* What follows `name` on its line, in the raw bytes of a stream; false when the line is not there or not whole yet. */
static bool comment(const char *bytes, size_t n, const char *name, char *out, size_t size) {
    size_t      length = strlen(name);
    const char *at = memmem(bytes, n, name, length);
    const char *end = at ? memchr(at, '\n', n - (size_t)(at - bytes)) : NULL;
    if (!end || (size_t)(end - at) - length >= size) {
        return false;
    }
    snprintf(out, size, "%.*s", (int)(end - at - (ptrdiff_t)length), at + length);
    return true;
}

/* Streams tell price and tokens in comments, which the reader of events passes over. */
static void take_comments(transfer *t, const char *bytes, size_t n) {
    char text[64];
    if (comment(bytes, n, ": x-pare-cost-usd ", text, sizeof text)) {
        t->result->cost_micro = micro_of(text);
    }
    if (comment(bytes, n, ": x-pare-saved-usd ", text, sizeof text)) {
        t->result->saved_micro = micro_of(text);
    }
    if (comment(bytes, n, ": x-pare-tokens ", text, sizeof text)) {
        char *end;
        t->result->prompt_tokens = strtoll(text, &end, 10);
        t->result->completion_tokens = strtoll(end, NULL, 10);
    }
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    transfer *t = arg;
    size_t    n = size * count;
    err       ignored = {0};
    if (t->result->first_us == 0) {
        t->result->first_us = clock_us() - t->begun_us;
    }
    if (t->streaming) {
        str_add(&t->body, bytes, n); /* a tail is enough to find comments split over two pieces */
        take_comments(t, t->body.data, t->body.len);
        if (t->body.len > 256) {
            memmove(t->body.data, t->body.data + t->body.len - 128, 128);
            t->body.len = 128;
        }
        return sse_feed(&t->sse, bytes, n, on_payload, t, &ignored) ? n : 0;
    }
    return t->body.len + n <= MAX_BODY && str_add(&t->body, bytes, n) ? n : 0;
}

static bool header_is(const char *line, size_t n, const char *name, char *out, size_t size) {
    size_t length = strlen(name);
    if (n < length + 2 || strncasecmp(line, name, length) != 0 || line[length] != ':') {
        return false;
    }
    const char *from = line + length + 1;
    while (*from == ' ') {
        from++;
    }
    snprintf(out, size, "%.*s", (int)strcspn(from, "\r\n"), from);
    return true;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
    transfer      *t = arg;
    replay_result *r = t->result;
    size_t         n = size * count;
    char           value[96];
    if (header_is(bytes, n, "x-pare-cost-usd", value, sizeof value)) {
        r->cost_micro = micro_of(value);
    } else if (header_is(bytes, n, "x-pare-saved-usd", value, sizeof value)) {
        r->saved_micro = micro_of(value);
    } else if (header_is(bytes, n, "x-pare-answered-by", value, sizeof value)) {
        snprintf(r->answered_by, sizeof r->answered_by, "%.79s", value);
    } else if (header_is(bytes, n, "content-type", value, sizeof value)) {
        t->streaming = strncasecmp(value, "text/event-stream", 17) == 0;
    }
    return n;
}

static bool start(sender *s, transfer *t) {
    const replay_request *q = &s->plan->requests[s->next];
    t->result = &s->run->results[s->next++];
    t->begun_us = clock_us();
    t->done_mark = t->streaming = false;
    t->result->stream = q->stream;
    str_clear(&t->body);
    sse_clear(&t->sse);
    curl_easy_setopt(t->easy, CURLOPT_URL, q->completion ? s->completion_url : s->chat_url);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, q->body);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(q->body));
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, 600000L);
    s->under_way++;
    return curl_multi_add_handle(s->multi, t->easy) == CURLM_OK;
}

static void finish(sender *s, transfer *t, CURLcode code) {
    replay_result *r = t->result;
    long           status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    r->total_us = clock_us() - t->begun_us;
    r->status = (int)status;
    r->ok = code == CURLE_OK && status == 200 && (!t->streaming || (t->done_mark && !r->error[0]));
    if (!t->streaming && t->body.len > 0) {
        err    ignored = {0};
        cJSON *json = json_parse(t->body.data, t->body.len, JSON_MAX_DEPTH, &ignored);
        take_usage(r, json);
        take_error(r, json);
        cJSON_Delete(json);
    }
    if (!r->ok && !r->error[0]) {
        snprintf(r->error, sizeof r->error, "%s",
                 code != CURLE_OK ? curl_easy_strerror(code)
                 : t->streaming   ? "the stream broke off"
                                  : "unexpected answer");
    }
    t->result = NULL;
    s->under_way--;
    s->finished++;
}

static bool may_start(const sender *s) {
    if (s->next >= s->plan->count) {
        return false;
    }
    return s->run->rate <= 0 || (double)(clock_us() - s->began_us) / 1e6 * s->run->rate >= s->next;
}

static bool fill(sender *s) {
    for (int i = 0; i < s->run->concurrency && may_start(s); i++) {
        if (!s->slots[i].result && !start(s, &s->slots[i])) {
            return false;
        }
    }
    return true;
}

static bool drive(sender *s, err *e) {
    while (s->finished < s->plan->count) {
        int      running, left;
        CURLMsg *m;
        if (!fill(s)) {
            return err_set(e, ERR_MEMORY, "A request could not be started.");
        }
        curl_multi_perform(s->multi, &running);
        while ((m = curl_multi_info_read(s->multi, &left))) {
            if (m->msg == CURLMSG_DONE) {
                transfer *t = NULL;
                CURLcode  code = m->data.result;
                curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
                curl_multi_remove_handle(s->multi, m->easy_handle);
                finish(s, t, code);
            }
        }
        if (!s->run->quiet) {
            cli_progress("replaying", (double)s->finished / s->plan->count);
        }
        if (s->finished == 0 && s->next >= 1 && s->under_way == 0) {
            return err_set(e, ERR_IO, "Nothing was sent.");
        }
        if (!may_start(s) || s->under_way == s->run->concurrency) {
            curl_multi_poll(s->multi, NULL, 0, s->run->rate > 0 ? 1 : 100, NULL);
        }
    }
    return true;
}

static bool prepare(sender *s, err *e) {
    str url = {0}, line = {0};
    str_addf(&url, "%s/v1/chat/completions", s->run->url);
    s->chat_url = str_take(&url);
    str_addf(&url, "%s/v1/completions", s->run->url);
    s->completion_url = str_take(&url);
    s->headers = curl_slist_append(NULL, "Content-Type: application/json");
    s->headers = curl_slist_append(s->headers, "Expect:");
    if (s->run->key) {
        str_addf(&line, "Authorization: Bearer %s", s->run->key);
        s->headers = curl_slist_append(s->headers, line.data ? line.data : "");
        str_free(&line);
    }
    s->multi = curl_multi_init();
    s->slots = calloc((size_t)s->run->concurrency, sizeof *s->slots);
    bool ok = s->multi && s->slots && s->chat_url && s->completion_url;
    for (int i = 0; ok && i < s->run->concurrency; i++) {
        s->slots[i].easy = curl_easy_init();
        ok = s->slots[i].easy != NULL;
    }
    return ok || err_set(e, ERR_MEMORY, "Out of memory.");
}

bool replay_go(const replay_plan *p, replay_run *r, err *e) {
    sender s = {.plan = p, .run = r};
    bool   ok = prepare(&s, e);
    s.began_us = clock_us();
    ok = ok && drive(&s, e);
    r->wall_us = clock_us() - s.began_us;
    cli_progress_end();
    for (int i = 0; s.slots && i < r->concurrency; i++) {
        if (s.slots[i].easy) {
            curl_multi_remove_handle(s.multi, s.slots[i].easy);
            curl_easy_cleanup(s.slots[i].easy);
        }
        str_free(&s.slots[i].body);
        sse_clear(&s.slots[i].sse);
    }
    if (s.multi) {
        curl_multi_cleanup(s.multi);
    }
    curl_slist_free_all(s.headers);
    free(s.slots);
    free(s.chat_url);
    free(s.completion_url);
    return ok;
}
