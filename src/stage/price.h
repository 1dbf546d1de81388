/* price.h - what tokens cost.
 *
 * Inside, money is nano-dollars in int64_t: one token at $1 per million is 1000. A price is nano-dollars per million tokens
 * (or pieces), so that a cost is a sum of products divided once, rounded half up.                                      */
#ifndef PARE_STAGE_PRICE_H
#define PARE_STAGE_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#include "dialect/dialect.h"

typedef struct price_rates { /* per million; -1: as the one named behind it */
    int64_t input, output;
    int64_t cached;       /* input */
    int64_t write_5m;     /* input */
    int64_t write_1h;     /* write_5m */
    int64_t reasoning;    /* output */
    int64_t audio_in;     /* input */
    int64_t audio_cached; /* cached */
    int64_t image_in;     /* input */
    int64_t audio_out;    /* output */
    int64_t search;       /* a piece of the provider's own tools; 0 */
} price_rates;

typedef struct price {
    price_rates standard;
    price_rates batch, flex, priority; /* as standard, or what the table says */
    price_rates longer;                /* for prompts of more than long_from tokens, all tokens of the request */
    price_rates longer_batch, longer_flex, longer_priority; /* as longer, or what the table says */
    int64_t     long_from;                                  /* 0: no such */
    bool        known;
} price;

/* A known price with the same rates in every tier and at every length. */
price price_flat(price_rates rates);

/* Nano-dollars, at most PRICE_MOST. 0 when the price is not known. */
int64_t price_of(const price *p, const usage *u);
/* The most that a request can cost: `prompt` tokens at the dearest way to read them and `output` at the dearest to write,
 * in the dearest tier (a provider's account may choose it). Pieces (searches) are not in it: nobody knows how many. */
int64_t price_most(const price *p, int64_t prompt, int64_t output);

/* `a` becomes a price that is nowhere lower than `b` either: what one of several may cost. Both are known. */
void price_raise(price *a, const price *b);

/* A million dollars: counts that would cost more are a provider's mistake, and must not overflow sums. */
#define PRICE_MOST 1000000000000000LL

#endif
