/* pace.h - how much of a prompt a step may take without making those who are answering wait.
 *
 * A step of n decoding sequences and p prompt tokens is taken to last D(n) + c p. D is measured by steps without
 * prefill, c by the rest of the others; both follow slowly, and one measurement moves them by a bounded share, because
 * another process may take the core at any moment. Chunks grow by doubling (as TCP's slow start does, RFC 5681), so a
 * wrong first guess costs one step. Not thread safe.                                                               */
#ifndef PARE_ENGINE_PACE_H
#define PARE_ENGINE_PACE_H

#include <stdint.h>

#include "base/err.h"

#define PACE_LEAST 4 /* prompt tokens a step takes at least, so that a prompt always gets on */

typedef struct pace pace;

/* step_us: how long a step with decoding sequences may last; 0: 1.8 D(n), at least 20 ms; and 250 ms while
 * several prompts are read and at most four times as many sequences answer (one prompt: twice as many): small chunks would
 * keep many waiting for few. */
pace *pace_new(int sequences, int64_t step_us, err *e);
void  pace_free(pace *p);

/* Prompt tokens for a step with `decoding` others, at most `most`; `prompts` are being read. 0 only in the few steps that
 * measure D(n). */
int  pace_prefill(pace *p, int decoding, int prompts, int most);
void pace_note(pace *p, int decoding, int prefill, int64_t us);

/* Microseconds of step a prompt token has taken lately, all included; 0: none yet. */
double pace_token_us(const pace *p);

#endif
