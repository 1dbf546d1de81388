/* group_keep.c - events that are kept for later: their texts live only as long as the call that tells them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/group_parts.h"

bool group_says(const event *ev) {
    return ev->kind != EVENT_DELTA || ev->text_len > 0 || ev->reasoning_len > 0 || ev->refusal_len > 0 ||
           ev->signature_len > 0 || ev->tool_calls || ev->logprobs || ev->finish;
}

static const char *place(char **at, const char *text, size_t n) {
    char *here = *at;
    if (!text) {
        return NULL;
    }
    memcpy(here, text, n);
    here[n] = '\0';
    *at += n + 1;
    return here;
}

group_held *group_hold(const event *ev) {
    size_t      id = ev->id ? strlen(ev->id) : 0, model = ev->model ? strlen(ev->model) : 0;
    group_held *h = malloc(sizeof *h + ev->raw_len + id + model + 3);
    if (!h) {
        return NULL;
    }
    char *at = h->bytes;
    h->next = NULL;
    h->ev = (event){.kind = ev->kind,
                    .choice = ev->choice,
                    .created = ev->created,
                    .raw_len = ev->raw_len,
                    .raw_dialect = ev->raw_dialect};
    h->ev.raw = place(&at, ev->raw, ev->raw_len);
    h->ev.id = place(&at, ev->id, id);
    h->ev.model = place(&at, ev->model, model);
    h->ev.text = ev->text ? "" : NULL; /* "" beside a role is not the same as nothing */
    h->ev.reasoning = ev->reasoning ? "" : NULL;
    h->ev.refusal = ev->refusal ? "" : NULL;
    h->ev.signature = ev->signature ? "" : NULL;
    if (ev->usage) {
        h->usage = *ev->usage;
        h->ev.usage = &h->usage;
    }
    return h;
}

group_kept *group_keep(const event *ev) {
    group_kept *k = calloc(1, sizeof *k);
    if (!k) {
        return NULL;
    }
    k->ev = (event){.kind = ev->kind,
                    .status = ev->status,
                    .raw_dialect = ev->raw_dialect,
                    .queued_us = ev->queued_us,
                    .by = ev->by,
                    .by_kind = ev->by_kind,
                    .by_model = ev->by_model};
    if (ev->error) {
        k->error = *ev->error;
        k->ev.error = &k->error;
    }
    if (ev->usage) {
        k->usage = *ev->usage;
        k->ev.usage = &k->usage;
    }
    if (ev->kv) {
        k->kv = *ev->kv;
        k->ev.kv = &k->kv;
    }
    if (ev->body && (k->body = malloc(ev->body_len + 1))) {
        memcpy(k->body, ev->body, ev->body_len);
        k->body[ev->body_len] = '\0';
        snprintf(k->type, sizeof k->type, "%s", ev->body_type ? ev->body_type : "");
        k->ev.body = k->body;
        k->ev.body_len = ev->body_len;
        k->ev.body_type = k->type;
    }
    if (ev->retry_after) {
        snprintf(k->retry_after, sizeof k->retry_after, "%s", ev->retry_after);
        k->ev.retry_after = k->retry_after;
    }
    return k;
}

void group_kept_free(group_kept *k) {
    if (k) {
        free(k->body);
        free(k);
    }
}
