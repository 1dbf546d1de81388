/* group_judge.c - what a failure means: for the request, for the member, and for what is tried next. */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "backend/group_parts.h"
#include "base/clock.h"
#include "base/log.h"

#define FAULT_US     5000000 /* a failure counts as such a slow answer: it must not look quick */
#define LONGEST_BUSY 86400   /* seconds; no Retry-After is believed beyond */

group_choice group_choice_of(const group_call *c) {
    group_choice q = {.without = c->tried | c->never};
    int          fallbacks = 0;
    for (int i = c->g->n_row; i < c->g->n; i++) {
        fallbacks += !(q.without >> i & 1);
    }
    q.row_last = c->begun > 0 && !c->wrapped && c->left <= fallbacks;
    return q;
}

/* 408, 409, 429 and 5xx are what providers' own clients try again (openai-python and anthropic-sdk, _base_client.py). */
verdict group_judge(const event *ev) {
    err_code code = ev->error ? ev->error->code : ERR_INTERNAL;
    int      status = ev->status ? ev->status : error_status(code);
    if (code == ERR_CANCELLED) {
        return THE_ANSWER;
    }
    switch (status) {
    case 401:
    case 402:
    case 403:
        return ELSEWHERE;
    case 408:
    case 409:
        return AGAIN;
    case 429:
        return BUSY;
    default:
        return code == ERR_UNSUPPORTED ? ELSEWHERE : status >= 500 ? FAULT : THE_ANSWER;
    }
}

/* Seconds or a date (RFC 9110, 10.2.3). 0: nothing said, or nothing that can be read. */
static int64_t retry_after_us(const char *text) {
    char     *end;
    long long seconds = text ? strtoll(text, &end, 10) : 0;
    if (!text || *text == '-' || (end != text && *end != '\0' && *end != '.')) {
        return 0;
    }
    if (end == text) {
        time_t at = curl_getdate(text, NULL);
        seconds = at < 0 ? 0 : (long long)at - clock_wall_us() / 1000000;
    }
    return (seconds < 0 ? 0 : seconds < LONGEST_BUSY ? seconds : LONGEST_BUSY) * 1000000;
}

/* What the circuit and the counters learn. */
void group_learn(group_call *c, group_try *t, const event *ev, verdict v) {
    member *m = t->m;
    int64_t now = clock_us(), busy = retry_after_us(ev->retry_after);
    if (ev->error && ev->error->code == ERR_CANCELLED) {
        circuit_leave(&m->state->circuit, t->how, now);
        return;
    }
    if (v == THE_ANSWER) {
        circuit_well(&m->state->circuit, t->how);
        return;
    }
    atomic_fetch_add(&m->state->failures, 1);
    if (busy > 0) {
        circuit_busy(&m->state->circuit, now + busy);
    }
    if (v != FAULT) { /* it answers, if not what one would like */
        circuit_well(&m->state->circuit, t->how);
        return;
    }
    latency_note(&m->state->latency, now - t->begun_us > FAULT_US ? now - t->begun_us : FAULT_US, now);
    if (circuit_ill(&m->state->circuit, &c->g->limits, t->how, now)) {
        log_warn("%s (%s, %s) keeps failing and is left alone for %.1f s: %s", m->backend->name, c->g->name, m->model,
                 (double)circuit_wait(&m->state->circuit, &c->g->limits, now) / 1e6, ev->error ? ev->error->text : "");
    }
}

/* Before the next try: half to all of a pause that doubles, so that those who failed together do not come back together. */
static int64_t backoff(group_call *c) {
    int64_t us = c->g->o.pause_us;
    for (int i = 1; i < c->begun && us < c->g->o.longest_us; i++) {
        us *= 2;
    }
    us = us < c->g->o.longest_us ? us : c->g->o.longest_us;
    return (int64_t)((double)us * (0.5 + 0.5 * group_random(c->g)));
}

/* How long to wait for the next try; -1: there is none. */
int64_t group_plan(group_call *c, const member *failed, verdict v) {
    group       *g = c->g;
    int64_t      now = clock_us(), pause = backoff(c);
    group_choice q = group_choice_of(c);
    if (c->left <= 0) {
        return -1;
    }
    int i = group_peek(g, &q, now);
    if (i >= 0) { /* another host is not ill because this one is, another key has its own limit */
        bool same = strcmp(g->members[i].backend->fingerprint, failed->backend->fingerprint) == 0;
        return same && (v == FAULT || v == AGAIN) ? pause : 0;
    }
    c->tried = 0;
    c->wrapped = true;
    int64_t wait = group_wait(g, c->never, now);
    if (wait > g->o.longest_us) {
        return -1;
    }
    /* A little later than was said: not everybody to whom it was said at the same moment. */
    return wait > 0 ? wait + (int64_t)((double)g->o.pause_us * 0.5 * group_random(g)) : pause;
}
