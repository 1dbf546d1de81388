/* slide.h - going on when a context is full: the beginning and the newest tokens stay, the middle goes.
 *
 * The first `keep` tokens and the newest half of the rest of a full context remain; what remains is computed again, so
 * that positions are dense and the answer does not depend on what was dropped when.                                 */
#ifndef PARE_ENGINE_SLIDE_H
#define PARE_ENGINE_SLIDE_H

#include <stdint.h>
#include <string.h>

/* How many tokens at the beginning stay: as asked, but something must go. The context is 2 at least. */
static inline int slide_keep(int asked, int context) {
    int least = context / 8 > 2 ? context / 8 : 2;
    int most = context - least;
    return asked < 0 ? 0 : asked < most ? asked : most;
}

/* Tokens that stay of a context that is full. */
static inline int slide_left(int keep, int context) {
    return keep + (context - keep) / 2;
}

/* From tokens[0 .. n), n >= context, to out[0 .. slide_left); the two may be the same. */
static inline void slide_tokens(int32_t *out, const int32_t *tokens, int n, int keep, int context) {
    int newest = slide_left(keep, context) - keep;
    memmove(out, tokens, (size_t)keep * sizeof(*out));
    memmove(out + keep, tokens + (n - newest), (size_t)newest * sizeof(*out));
}

#endif
