#include "backend/circuit.h"

#include <stddef.h>

#define LONGEST_US 300000000LL /* open, however often probes have failed */

/* The word, from its low end: state (2 bits), doublings of the open time (6), failures in a row (16), and until when it is
 * open, in milliseconds of clock_us (40: enough for 34 years). */
typedef struct parts {
    circuit_state state;
    unsigned      doubled, failures;
    int64_t       until_ms;
} parts;

static parts unpack(uint64_t word) {
    return (parts){.state = (circuit_state)(word & 3),
                   .doubled = word >> 2 & 63,
                   .failures = word >> 8 & 0xffff,
                   .until_ms = (int64_t)(word >> 24)};
}

static uint64_t pack(parts p) {
    return (uint64_t)p.state | (uint64_t)p.doubled << 2 | (uint64_t)p.failures << 8 | (uint64_t)p.until_ms << 24;
}

static bool change(circuit *c, uint64_t *seen, parts to) {
    return atomic_compare_exchange_weak(&c->word, seen, pack(to));
}

circuit_entry circuit_enter(circuit *c, int64_t now_us) {
    uint64_t seen = atomic_load(&c->word);
    for (;;) {
        parts p = unpack(seen);
        if (p.state == CIRCUIT_CLOSED) {
            return CIRCUIT_NORMAL;
        }
        if (p.state == CIRCUIT_PROBING || now_us / 1000 < p.until_ms) {
            return CIRCUIT_REFUSED;
        }
        p.state = CIRCUIT_PROBING;
        if (change(c, &seen, p)) {
            return CIRCUIT_PROBE;
        }
    }
}

/* Calls that were let in before it opened say nothing new: only the probe's word counts then. */
void circuit_well(circuit *c, circuit_entry how) {
    uint64_t seen = atomic_load(&c->word);
    while (seen != 0) {
        parts p = unpack(seen);
        if (p.state != CIRCUIT_CLOSED && !(p.state == CIRCUIT_PROBING && how == CIRCUIT_PROBE)) {
            return;
        }
        if (change(c, &seen, (parts){0})) {
            return;
        }
    }
}

static void open_until(parts *p, const circuit_limits *o, int64_t now_us) {
    int64_t most = o->open_us > LONGEST_US ? o->open_us : LONGEST_US, us = o->open_us;
    for (unsigned i = 0; i < p->doubled && us < most; i++) {
        us *= 2;
    }
    p->state = CIRCUIT_OPEN;
    p->failures = 0;
    p->until_ms = (now_us + (us < most ? us : most) + 999) / 1000;
}

bool circuit_ill(circuit *c, const circuit_limits *o, circuit_entry how, int64_t now_us) {
    uint64_t seen = atomic_load(&c->word);
    for (;;) {
        parts p = unpack(seen);
        if (p.state == CIRCUIT_PROBING && how == CIRCUIT_PROBE) {
            p.doubled += p.doubled < 63;
            open_until(&p, o, now_us);
        } else if (p.state != CIRCUIT_CLOSED) {
            return false;
        } else if (++p.failures >= (unsigned)o->failures) {
            p.doubled = 0;
            open_until(&p, o, now_us);
        }
        if (change(c, &seen, p)) {
            return p.state == CIRCUIT_OPEN;
        }
    }
}

void circuit_leave(circuit *c, circuit_entry how, int64_t now_us) {
    uint64_t seen = atomic_load(&c->word);
    while (how == CIRCUIT_PROBE) {
        parts p = unpack(seen);
        if (p.state != CIRCUIT_PROBING) {
            return;
        }
        p.state = CIRCUIT_OPEN;
        p.until_ms = now_us / 1000;
        if (change(c, &seen, p)) {
            return;
        }
    }
}

circuit_state circuit_now(const circuit *c) {
    return unpack(atomic_load(&c->word)).state;
}

int64_t circuit_wait(const circuit *c, const circuit_limits *o, int64_t now_us) {
    parts p = unpack(atomic_load(&c->word));
    if (p.state == CIRCUIT_CLOSED) {
        return 0;
    }
    int64_t left = p.until_ms * 1000 - now_us;
    return p.state == CIRCUIT_PROBING ? o->open_us : left > 0 ? left : 0;
}

void circuit_busy(circuit *c, int64_t until_us) {
    int64_t seen = atomic_load(&c->busy_until_us);
    while (seen < until_us && !atomic_compare_exchange_weak(&c->busy_until_us, &seen, until_us)) {
    }
}

int64_t circuit_busy_for(const circuit *c, int64_t now_us) {
    int64_t left = atomic_load(&c->busy_until_us) - now_us;
    return left > 0 ? left : 0;
}
