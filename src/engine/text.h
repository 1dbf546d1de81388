/* text.h - from token pieces to text that may be shown.
 *
 * A token's bytes may be a part of a character or of a stop string, so a little is held back: bytes of an unfinished
 * character, and the longest tail that is still the beginning of a stop string. What comes out is always valid UTF-8;
 * bytes that can never become a character turn into U+FFFD. Stop strings are followed by Knuth-Morris-Pratt automata
 * (SIAM J. Comput. 6(2), 1977): constant time a byte whatever the strings are. One thread.                           */
#ifndef PARE_ENGINE_TEXT_H
#define PARE_ENGINE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"

#define TEXT_MAX_STOP 16

typedef struct text_stop {
    const char *bytes;
    int         len;
    int32_t    *fall; /* [len + 1] length of the longest proper border of each prefix */
    int         matched;
} text_stop;

typedef struct text_out {
    text_stop stop[TEXT_MAX_STOP];
    int       n_stop;
    bool      drop_space; /* the first byte, if it is a space (SPM adds one when it encodes) */
    str       held;       /* [0, given) was handed out and goes with the next call */
    size_t    given;
    str       clean; /* what is handed out when `held` is not valid UTF-8 */
} text_out;

typedef struct text_span { /* lives until the next call */
    const char *text;
    size_t      len;
} text_span;

/* Copies the stop strings into `memory`; empty ones are ignored. False when memory runs out. */
bool text_begin(text_out *t, const char *const *stop, int n_stop, bool drop_space, arena *memory);
void text_free(text_out *t);

/* Adds one piece; *out is what may be shown now. Returns the number of the stop string that it completes, or -1; text
 * from the beginning of that string on is dropped. Of two that end at the same byte the longer counts. */
int text_add(text_out *t, const char *bytes, size_t n, text_span *out);

/* The rest, at the end of the answer. */
text_span text_end(text_out *t);

bool text_failed(const text_out *t); /* memory ran out */

#endif
