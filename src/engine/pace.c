#include "engine/pace.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define GOAL_FACTOR   1.8   /* leaves room to the 2 that nobody should notice */
#define GOAL_LEAST_US 20000 /* 50 tokens a second: faster than anybody reads */
#define BURST_US      250000
#define BURST_SHARE   4 /* sequences that answer to a prompt that is read, where there are several */
#define FIRST_CHUNK   16
#define STALE_STEPS   64  /* with prefill in all of them: D(n) is measured again */
#define EAGER_STEPS   8   /* the same while D(n) is not known well */
#define DOUBT         7   /* a step that took too long counts for so many more: perhaps D(n) has changed */
#define FIRST_SAMPLES 3   /* the smallest of these begins an estimate: the first steps touch cold memory */
#define LATE          1.1 /* times the goal: more than noise */
#define WEIGHT        (1.0 / 4)
#define FORGET        (1 - 1.0 / 32)

typedef struct estimate {
    double us, last[2]; /* the samples before this one */
    int    samples;     /* counted up to FIRST_SAMPLES */
} estimate;

struct pace {
    int       sequences;
    int64_t   step_us;
    int       chunk;              /* most tokens beside decoding sequences, as far as we dared to go */
    bool      burst;              /* the last step was planned so */
    int       unmeasured;         /* steps with both since D was last measured */
    estimate  token;              /* c */
    double    all_us, all_tokens; /* sums that forget, for pace_token_us */
    estimate *decode;             /* [sequences + 1] D */
};

pace *pace_new(int sequences, int64_t step_us, err *e) {
    pace *p = calloc(1, sizeof(*p));
    if (p) {
        *p = (pace){.sequences = sequences, .step_us = step_us, .chunk = FIRST_CHUNK};
        p->decode = calloc((size_t)sequences + 1, sizeof(*p->decode));
    }
    if (!p || !p->decode) {
        pace_free(p);
        err_set(e, ERR_MEMORY, "out of memory for the step times of %d sequences", sequences);
        return NULL;
    }
    return p;
}

void pace_free(pace *p) {
    if (p) {
        free(p->decode);
        free(p);
    }
}

static double median(double a, double b, double c) {
    return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

/* Of three samples in a row the middle one counts, so a single outlier does not; it moves the estimate by at most
 * `weight` of itself. A lasting change is followed. */
static void follow(estimate *e, double us, double weight) {
    if (e->samples < FIRST_SAMPLES) {
        e->us = e->samples == 0 ? us : fmin(e->us, us);
        e->samples++;
    } else {
        double off = median(us, e->last[0], e->last[1]) - e->us;
        e->us += weight * fmax(fmin(off, e->us), -e->us / 2);
    }
    e->last[1] = e->last[0];
    e->last[0] = us;
}

/* D(n), or that of the nearest number which is known: the smaller one of two, which promises less time. */
static estimate *decode_time(const pace *p, int n) {
    for (int off = 0; off <= p->sequences; off++) {
        if (n - off >= 1 && n - off <= p->sequences && p->decode[n - off].samples) {
            return &p->decode[n - off];
        }
        if (n + off <= p->sequences && p->decode[n + off].samples) {
            return &p->decode[n + off];
        }
    }
    return NULL;
}

static double goal_us(const pace *p, const estimate *decode) {
    return p->step_us > 0 ? (double)p->step_us : fmax(GOAL_FACTOR * decode->us, p->burst ? BURST_US : GOAL_LEAST_US);
}

/* Whether it is time to take a step without prefill. */
static bool must_measure(const pace *p, int decoding, const estimate *known) {
    bool sure = p->decode[decoding].samples >= FIRST_SAMPLES;
    return !known || p->unmeasured >= (sure ? STALE_STEPS : EAGER_STEPS);
}

int pace_prefill(pace *p, int decoding, int prompts, int most) {
    p->burst = prompts > 1 ? BURST_SHARE * prompts >= decoding : 2 * prompts >= decoding;
    if (decoding <= 0) {
        return most;
    }
    decoding = decoding < p->sequences ? decoding : p->sequences;
    const estimate *decode = decode_time(p, decoding);
    if (must_measure(p, decoding, decode)) {
        return 0;
    }
    int    chunk = p->chunk < most ? p->chunk : most;
    double left = goal_us(p, decode) - decode->us;
    if (p->token.samples && left < p->token.us * chunk) {
        chunk = (int)(left / p->token.us);
    }
    chunk = chunk < PACE_LEAST ? PACE_LEAST : chunk;
    return chunk < most ? chunk : most;
}

static void note_mixed(pace *p, int decoding, int prefill, double us) {
    p->unmeasured++;
    estimate *decode = decode_time(p, decoding);
    if (!decode) {
        return;
    }
    if (us < decode->us && decode <= &p->decode[decoding]) {
        decode->us = us; /* no more streams and no prefill cannot take longer; outliers only ever are too long */
    }
    if (us > decode->us) { /* what a token costs is known the worse the fewer there were */
        follow(&p->token, (us - decode->us) / prefill, WEIGHT * fmin(1, prefill / 16.0));
    }
    double goal = goal_us(p, decode);
    if (us > goal * LATE) {
        p->chunk = prefill / 2 > PACE_LEAST ? prefill / 2 : PACE_LEAST;
        p->unmeasured += DOUBT;
    } else if (us <= goal && p->chunk < 2 * prefill) {
        p->chunk = 2 * prefill;
    }
}

void pace_note(pace *p, int decoding, int prefill, int64_t us) {
    double time = us > 1 ? (double)us : 1;
    decoding = decoding < p->sequences ? decoding : p->sequences;
    if (prefill > 0) {
        p->all_us = p->all_us * FORGET + time;
        p->all_tokens = p->all_tokens * FORGET + prefill;
    }
    if (decoding > 0 && prefill > 0) {
        note_mixed(p, decoding, prefill, time);
    } else if (decoding > 0) {
        p->unmeasured = 0;
        follow(&p->decode[decoding], time, WEIGHT);
    } else if (prefill >= FIRST_CHUNK && p->token.samples < FIRST_SAMPLES) {
        follow(&p->token, time / prefill, WEIGHT); /* a first guess: too large by the weights' reading */
    }
}

double pace_token_us(const pace *p) {
    return p->all_tokens > 0 ? p->all_us / p->all_tokens : 0;
}
