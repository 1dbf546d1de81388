/* circuit.h - whether somebody who keeps failing is asked at all: closed, open, or half open with a single probe.
 *
 * Closed: asked. After so many failures in a row it opens, and nobody asks for a while; then one call, the probe, finds out
 * whether to close again or to stay open for twice as long. Apart from that it keeps until when somebody who said
 * "too many requests" wants to be left alone, which is no failure. Any thread, without locks: the whole state is one
 * word. Source: Nygard, Release It! (2007), chapter 5.2.                                                              */
#ifndef PARE_BACKEND_CIRCUIT_H
#define PARE_BACKEND_CIRCUIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct circuit { /* zeros: closed */
    _Atomic uint64_t word;
    _Atomic int64_t  busy_until_us; /* by clock_us */
} circuit;

typedef struct circuit_limits {
    int     failures; /* in a row, that open it */
    int64_t open_us;  /* how long, the first time; doubled while probes fail */
} circuit_limits;

typedef enum circuit_state { CIRCUIT_CLOSED, CIRCUIT_OPEN, CIRCUIT_PROBING } circuit_state;
typedef enum circuit_entry { CIRCUIT_REFUSED, CIRCUIT_NORMAL, CIRCUIT_PROBE } circuit_entry;

/* Who is let in says later, once, how it went: well, ill or neither (circuit_leave). */
circuit_entry circuit_enter(circuit *c, int64_t now_us);
void          circuit_well(circuit *c, circuit_entry how);
/* True when this opened it, for the log. */
bool          circuit_ill(circuit *c, const circuit_limits *o, circuit_entry how, int64_t now_us);
void          circuit_leave(circuit *c, circuit_entry how, int64_t now_us); /* a probe that learned nothing */

circuit_state circuit_now(const circuit *c);
/* Time until somebody would be let in; 0: now. While a probe runs nobody can say: then it is one `open_us`. */
int64_t       circuit_wait(const circuit *c, const circuit_limits *o, int64_t now_us);

void    circuit_busy(circuit *c, int64_t until_us); /* the later of what was said */
int64_t circuit_busy_for(const circuit *c, int64_t now_us);

#endif
