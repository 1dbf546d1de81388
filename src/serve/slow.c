#include "serve/slow.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/clock.h"

#define SLOTS  16384 /* a power of two */
#define PROBES 8

typedef struct slot {
    const struct bufferevent *of;
    int64_t                   since_us; /* of the first byte of a request that is not whole yet; 0: none */
    size_t                    bytes;
    bool                      answering;
} slot;

struct slow_table {
    int64_t grace_us;
    slot    slots[SLOTS];
};

/* evbuffer's callbacks carry one pointer, which is the connection. */
static _Thread_local slow_table *here;

slow_table *slow_new(int64_t grace_us) {
    slow_table *t = calloc(1, sizeof *t); /* pages are touched as connections come */
    if (t) {
        t->grace_us = grace_us > 0 ? grace_us : SLOW_GRACE_S * 1000000LL;
    }
    return t;
}

void slow_free(slow_table *t) {
    free(t);
}

void slow_here(slow_table *t) {
    here = t;
}

/* Its own, else a free one, else the one that has waited longest. */
static slot *slot_of(const struct bufferevent *b) {
    uint64_t h = (uint64_t)(uintptr_t)b * 0x9E3779B97F4A7C15u >> 50;
    slot    *best = NULL;
    for (uint64_t i = 0; i < PROBES; i++) {
        slot *s = &here->slots[(h + i) % SLOTS];
        if (s->of == b) {
            return s;
        }
        if (!best || !s->of || (best->of && s->since_us < best->since_us)) {
            best = s;
        }
        if (!s->of) {
            break;
        }
    }
    *best = (slot){.of = b};
    return best;
}

static void on_bytes(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg) {
    (void)buffer;
    struct bufferevent *b = arg;
    if (info->n_added == 0 || !here) {
        return;
    }
    slot   *s = slot_of(b);
    int64_t now = clock_us();
    if (s->answering) {
        return;
    }
    if (s->since_us == 0) {
        s->since_us = now;
        s->bytes = 0;
    }
    s->bytes += info->n_added;
    int64_t took_us = now - s->since_us;
    if (took_us > here->grace_us && s->bytes < (uint64_t)took_us * SLOW_RATE / 1000000) {
        s->since_us = 0;
        bufferevent_trigger_event(b, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, BEV_TRIG_DEFER_CALLBACKS);
    }
}

void slow_watch(struct bufferevent *b) {
    if (here) {
        *slot_of(b) = (slot){.of = b};
        evbuffer_add_cb(bufferevent_get_input(b), on_bytes, b);
    }
}

static void set(struct bufferevent *b, bool answering) {
    if (here) {
        *slot_of(b) = (slot){.of = b, .answering = answering};
    }
}

void slow_answering(struct bufferevent *b) {
    set(b, true);
}

void slow_idle(struct bufferevent *b) {
    set(b, false);
}
