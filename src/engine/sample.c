/* sample.c - filters as thresholds.
 *
 * No vocabulary is ever sorted. Top-k and top-p both ask for a threshold: the value at which a count, or a probability
 * mass, is reached from above. A radix select finds it in three passes over histograms (11, 11 and 10 bits of the
 * float's order-preserving key), linear in the candidates for any input. Candidates stay in the order of their ids, so
 * every sum is taken in the same order and the same seed gives the same token.                                       */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/kernels.h"

#define BUCKETS   2048
#define EXTREME   1e30f /* logits are held within: infinities of a broken model must not make NaN */
#define IN_PROMPT 0x80000000u

struct sampler {
    int            vocab;
    const kernels *k;
    sampling       how;
    uint64_t       stream; /* the seed, mixed */
    uint64_t       drawn;

    float   *value;  /* [vocab] logits after penalties, of the candidates */
    float   *weight; /* [vocab] their probabilities, as far as they are needed */
    int32_t *id;     /* [vocab] candidates, rising */
    int      n;

    uint32_t *count; /* [vocab] times generated; IN_PROMPT is set when the prompt has it */
    int32_t  *seen;  /* ids with a count, so that clearing and penalising cost what was used */
    int       n_seen;

    int32_t bucket_count[BUCKETS];
    double  bucket_mass[BUCKETS];
};

sampling sampling_default(void) {
    return (sampling){.temperature = 1, .top_p = 1, .repeat_penalty = 1, .top_logprobs = -1};
}

sampler *sampler_new(int vocab, err *e) {
    sampler *s = vocab > 0 ? calloc(1, sizeof(*s)) : NULL;
    if (s) {
        size_t n = (size_t)vocab;
        s->vocab = vocab;
        s->k = kernels_get();
        s->value = calloc(n, sizeof(*s->value));
        s->weight = calloc(n, sizeof(*s->weight));
        s->id = calloc(n, sizeof(*s->id));
        s->count = calloc(n, sizeof(*s->count));
        s->seen = calloc(n, sizeof(*s->seen));
    }
    if (!s || !s->value || !s->weight || !s->id || !s->count || !s->seen) {
        sampler_free(s);
        err_set(e, ERR_MEMORY, "out of memory for a sampler over %d tokens", vocab);
        return NULL;
    }
    return s;
}

void sampler_free(sampler *s) {
    if (s) {
        free(s->value);
        free(s->weight);
        free(s->id);
        free(s->count);
        free(s->seen);
        free(s);
    }
}

/* ---- random numbers ---- */

/* The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the n-th number needs no state but n. */
static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* In [0, 1), 53 bits. */
static double next_uniform(sampler *s) {
    uint64_t bits = mix(s->stream + ++s->drawn * 0x9E3779B97F4A7C15u);
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- penalties ---- */

static bool penalises(const sampling *how) {
    return how->presence_penalty != 0 || how->frequency_penalty != 0 || how->repeat_penalty != 1;
}

static void remember(sampler *s, int32_t id, uint32_t flag_or_one) {
    if (!penalises(&s->how)) {
        return;
    }
    if (s->count[id] == 0) {
        s->seen[s->n_seen++] = id;
    }
    if (flag_or_one == IN_PROMPT) {
        s->count[id] |= IN_PROMPT;
    } else {
        s->count[id]++;
    }
}

void sampler_begin(sampler *s, const sampling *how, const int32_t *prompt, int n) {
    for (int i = 0; i < s->n_seen; i++) {
        s->count[s->seen[i]] = 0;
    }
    s->n_seen = 0;
    s->how = *how;
    if (!(s->how.repeat_penalty > 0)) {
        s->how.repeat_penalty = 1;
    }
    s->stream = mix(how->seed + 0x9E3779B97F4A7C15u);
    s->drawn = 0;
    for (int i = 0; i < n; i++) {
        if (prompt[i] >= 0 && prompt[i] < s->vocab) {
            remember(s, prompt[i], IN_PROMPT);
        }
    }
}

/* Repetition first (Keskar et al., arXiv:1909.05858), then OpenAI's two. */
static void penalise(sampler *s) {
    for (int i = 0; i < s->n_seen; i++) {
        int32_t  id = s->seen[i];
        uint32_t times = s->count[id] & ~IN_PROMPT;
        float    v = s->value[id];
        v = v > 0 ? v / s->how.repeat_penalty : v * s->how.repeat_penalty;
        if (times) {
            v -= s->how.presence_penalty + s->how.frequency_penalty * (float)times;
        }
        s->value[id] = v;
    }
}

/* ---- candidates ---- */

static void load(sampler *s, const float *logits) {
    for (int i = 0; i < s->vocab; i++) {
        float v = logits[i];
        v = v > -EXTREME ? v : -EXTREME; /* NaN too */
        s->value[i] = v < EXTREME ? v : EXTREME;
    }
}

static void number_candidates(sampler *s) {
    for (int i = 0; i < s->vocab; i++) {
        s->id[i] = i;
    }
    s->n = s->vocab;
}

/* Probabilities of the candidates at a temperature, into weight[]. */
static void weigh(sampler *s, float temperature) {
    float best = s->value[s->k->argmax(s->value, s->n)];
    for (int i = 0; i < s->n; i++) {
        s->weight[i] = (s->value[i] - best) / temperature;
    }
    s->k->softmax(s->weight, s->n);
}

/* ---- radix select ---- */

/* Unsigned order of the keys is falling order of the floats. */
static uint32_t falling_key(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

typedef struct threshold {
    uint32_t key;     /* candidates with a smaller key are in */
    int      of_ties; /* and so many of those with this very key, lowest ids first */
} threshold;

typedef struct digit { /* of a key */
    int      shift;
    uint32_t mask;
} digit;

static const digit digits[] = {{21, 2047}, {10, 2047}, {0, 1023}};

static void fill_buckets(sampler *s, uint32_t prefix, uint32_t mask, digit d) {
    memset(s->bucket_count, 0, sizeof(s->bucket_count));
    memset(s->bucket_mass, 0, sizeof(s->bucket_mass));
    for (int i = 0; i < s->n; i++) {
        uint32_t key = falling_key(s->value[i]);
        if ((key & mask) == prefix) {
            uint32_t bucket = (key >> d.shift) & d.mask;
            s->bucket_count[bucket]++;
            s->bucket_mass[bucket] += (double)s->weight[i];
        }
    }
}

/* The bucket, from above, at which `*need` is reached; what lies above it is subtracted. */
static int reach(const sampler *s, double *need, bool by_mass) {
    int last = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        if (s->bucket_count[bucket] == 0) {
            continue;
        }
        double has = by_mass ? s->bucket_mass[bucket] : s->bucket_count[bucket];
        if (has >= *need) {
            return bucket;
        }
        *need -= has;
        last = bucket;
    }
    *need = s->bucket_mass[last]; /* rounding: the mass of all is a hair less than asked for */
    return last;
}

/* The threshold at which `need` is reached from above: a number of candidates, or (by_mass) a sum of weights. */
static threshold select_from_above(sampler *s, double need, bool by_mass) {
    uint32_t prefix = 0, mask = 0;
    int      bucket = 0;
    for (size_t i = 0; i < sizeof(digits) / sizeof(*digits); i++) {
        digit d = digits[i];
        fill_buckets(s, prefix, mask, d);
        bucket = reach(s, &need, by_mass);
        prefix |= (uint32_t)bucket << d.shift;
        mask |= d.mask << d.shift;
    }
    int    ties = s->bucket_count[bucket];
    double of_ties = by_mass ? ceil(need / (s->bucket_mass[bucket] / ties)) : need;
    if (!(of_ties >= 1)) {
        of_ties = 1;
    }
    return (threshold){.key = prefix, .of_ties = of_ties < ties ? (int)of_ties : ties};
}

static void keep_above(sampler *s, threshold t) {
    int kept = 0;
    for (int i = 0; i < s->n; i++) {
        uint32_t key = falling_key(s->value[i]);
        if (key < t.key || (key == t.key && t.of_ties-- > 0)) {
            s->id[kept] = s->id[i];
            s->value[kept++] = s->value[i];
        }
    }
    s->n = kept;
}

/* ---- filters ---- */

static void filter_top_k(sampler *s, int k) {
    if (k > 0 && k < s->n) {
        keep_above(s, select_from_above(s, k, false));
    }
}

/* The fewest candidates whose probabilities reach p. Source: Holtzman et al., arXiv:1904.09751. */
static void filter_top_p(sampler *s, float p) {
    if (p < 1 && s->n > 1) {
        weigh(s, 1);
        keep_above(s, select_from_above(s, p > 0 ? (double)p : 0, true));
    }
}

/* Candidates at least min_p times as likely as the best. Source: arXiv:2407.01082. */
static void filter_min_p(sampler *s, float min_p) {
    if (min_p <= 0 || s->n < 2) {
        return;
    }
    float least = s->value[s->k->argmax(s->value, s->n)] + logf(min_p < 1 ? min_p : 1);
    int   kept = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->value[i] >= least) {
            s->id[kept] = s->id[i];
            s->value[kept++] = s->value[i];
        }
    }
    s->n = kept;
}

static int32_t draw(sampler *s) {
    weigh(s, s->how.temperature);
    double total = 0;
    for (int i = 0; i < s->n; i++) {
        total += (double)s->weight[i];
    }
    double left = next_uniform(s) * total;
    int    last = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->weight[i] > 0) {
            last = i;
            left -= (double)s->weight[i];
            if (left < 0) {
                break;
            }
        }
    }
    return s->id[last];
}

/* Only what the mask allows stays a candidate. */
static void number_allowed(sampler *s, const uint64_t *mask) {
    s->n = 0;
    for (int base = 0; base < s->vocab; base += 64) {
        for (uint64_t word = mask[base / 64]; word; word &= word - 1) {
            int id = base + __builtin_ctzll(word); /* gcc and clang: the lowest bit that is set */
            if (id < s->vocab) {
                s->id[s->n] = id;
                s->value[s->n++] = s->value[id];
            }
        }
    }
}

static int32_t choose(sampler *s, const float *logits, const uint64_t *mask) {
    bool greedy = !(s->how.temperature > 0);
    load(s, logits);
    penalise(s);
    if (greedy && !mask) {
        return s->k->argmax(s->value, s->vocab);
    }
    if (mask) {
        number_allowed(s, mask);
    } else {
        number_candidates(s);
    }
    if (s->n == 0) {
        return -1;
    }
    if (greedy) {
        return s->id[s->k->argmax(s->value, s->n)];
    }
    filter_top_k(s, s->how.top_k);
    filter_top_p(s, s->how.top_p);
    filter_min_p(s, s->how.min_p);
    return draw(s);
}

/* ---- log-probabilities ---- */

/* The largest few by insertion: the list is at most 20 long, and most tokens fail the first comparison. */
static void find_top(sampler *s, int n, sampled *out) {
    out->n_top = 0;
    for (int i = 0; i < s->vocab; i++) {
        float v = s->value[i];
        if (out->n_top == n && v <= out->top[n - 1].logprob) {
            continue;
        }
        int at = out->n_top < n ? out->n_top++ : n - 1;
        for (; at > 0 && out->top[at - 1].logprob < v; at--) {
            out->top[at] = out->top[at - 1];
        }
        out->top[at] = (token_logprob){.id = i, .logprob = v};
    }
}

/* Under the model's own distribution. Must come before `choose`, which reuses the buffers. Returns the log of the
 * softmax's denominator, so that log p(i) = logits[i] - it. */
static float report_top(sampler *s, const float *logits, sampled *out) {
    load(s, logits);
    s->n = s->vocab;
    int best = s->k->argmax(s->value, s->vocab);
    weigh(s, 1);
    float log_total = s->value[best] - logf(s->weight[best]);
    int   n = s->how.top_logprobs < SAMPLE_MAX_TOP ? s->how.top_logprobs : SAMPLE_MAX_TOP;
    if (n > s->vocab) {
        n = s->vocab;
    }
    if (n > 0) {
        find_top(s, n, out);
    }
    for (int i = 0; i < out->n_top; i++) {
        out->top[i].logprob -= log_total;
    }
    return log_total;
}

void sampler_note(sampler *s, int32_t id) {
    if (id >= 0 && id < s->vocab) {
        remember(s, id, 1);
    }
}

void sampler_next(sampler *s, const float *logits, sampled *out) {
    sampler_next_of(s, logits, NULL, out);
}

void sampler_next_of(sampler *s, const float *logits, const uint64_t *mask, sampled *out) {
    out->n_top = 0;
    bool  logprobs = s->how.top_logprobs >= 0;
    bool  plain = !mask && !(s->how.temperature > 0) && s->n_seen == 0;
    float log_total = logprobs ? report_top(s, logits, out) : 0;
    int   id = plain && !logprobs ? s->k->argmax(logits, s->vocab) : choose(s, logits, mask);
    if (id < 0 && mask) {
        out->token = (token_logprob){.id = -1};
        return;
    }
    if (id < 0 || id >= s->vocab) { /* an arg-max over nothing but NaN */
        id = 0;
    }
    float v = logits[id] > -EXTREME ? logits[id] : -EXTREME;
    out->token = (token_logprob){.id = id, .logprob = logprobs ? (v < EXTREME ? v : EXTREME) - log_total : 0};
    remember(s, id, 1);
}
