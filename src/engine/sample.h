/* sample.h - from logits to the next token.
 *
 * Order: the mask, penalties, then (temperature 0) the arg-max, or top-k, top-p, min-p, temperature and a draw. The random
 * numbers depend on the seed and on the number of tokens drawn so far, on nothing else: same seed, same answer,
 * whatever else is in the batch.                                                                                     */
#ifndef PARE_ENGINE_SAMPLE_H
#define PARE_ENGINE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define SAMPLE_MAX_TOP 20

typedef struct sampling {
    float    temperature;      /* 0: greedy */
    int      top_k;            /* 0: off */
    float    top_p;            /* 1: off */
    float    min_p;            /* 0: off */
    float    presence_penalty; /* OpenAI's two, over generated tokens */
    float    frequency_penalty;
    float    repeat_penalty; /* 1: off; over prompt and generated tokens */
    uint64_t seed;
    int      top_logprobs; /* alternatives to report; -1: no logprobs at all */
} sampling;

typedef struct token_logprob {
    int32_t id;
    float   logprob; /* natural log under the model's own distribution (before penalties and temperature) */
} token_logprob;

typedef struct sampled {
    token_logprob token;
    int           n_top;
    token_logprob top[SAMPLE_MAX_TOP]; /* falling */
} sampled;

sampling sampling_default(void); /* temperature 1, nothing else */

typedef struct sampler sampler; /* one a running sequence; reused, so that nothing is allocated in a decode step */

sampler *sampler_new(int vocab, err *e);
void     sampler_free(sampler *s);
/* Starts a sequence; the prompt counts for repeat_penalty. */
void     sampler_begin(sampler *s, const sampling *how, const int32_t *prompt, int n);
/* Chooses and remembers one token. `logits` [vocab] is not changed. */
void     sampler_next(sampler *s, const float *logits, sampled *out);
/* The same among the tokens whose bit is set in `mask` (mask.h), before all filters; id -1 when there is none. NULL: any.
 * Log-probabilities stay the model's own, over all tokens. */
void     sampler_next_of(sampler *s, const float *logits, const uint64_t *mask, sampled *out);
/* Remembers a token that was not drawn, for the penalties. */
void     sampler_note(sampler *s, int32_t id);

#endif
