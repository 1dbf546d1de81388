/* price.c - tokens times rates.
 *
 * How the providers count, so that nothing is billed twice (sources: the usage objects of OpenAI's chat completions,
 * Anthropic's messages and Gemini's usageMetadata):
 *   a prompt is   what was read from a cache + what was written to one (5 minutes, 1 hour) + sound + images + the rest
 *   an answer is  reasoning + sound + the rest
 * Sound may have been cached, and is told apart (audio_cached). Of images nobody says how many were cached: as many as
 * fit are taken for fresh, since they stand behind the part of a prompt that is the same each time.                  */
#include "stage/price.h"

/* 128 bits: a price of $1000 per million and 2^53 tokens must not wrap. A standard type of gcc and clang on every 64-bit
 * target; __extension__ says that we know. */
__extension__ typedef __int128 wide;

static int64_t or_else(int64_t rate, int64_t otherwise) {
    return rate >= 0 ? rate : otherwise;
}

/* Every rate that is "as another one" becomes that one. */
static price_rates settled(const price_rates *r) {
    price_rates s = *r;
    s.input = or_else(r->input, 0);
    s.output = or_else(r->output, 0);
    s.cached = or_else(r->cached, s.input);
    s.write_5m = or_else(r->write_5m, s.input);
    s.write_1h = or_else(r->write_1h, s.write_5m);
    s.reasoning = or_else(r->reasoning, s.output);
    s.audio_in = or_else(r->audio_in, s.input);
    s.audio_cached = or_else(r->audio_cached, s.cached);
    s.image_in = or_else(r->image_in, s.input);
    s.audio_out = or_else(r->audio_out, s.output);
    s.search = or_else(r->search, 0);
    return s;
}

static const price_rates *rates_for(const price *p, const usage *u) {
    bool longer = p->long_from > 0 && u->prompt > p->long_from;
    switch (u->tier) {
    case TIER_BATCH:
        return longer ? &p->longer_batch : &p->batch;
    case TIER_FLEX:
        return longer ? &p->longer_flex : &p->flex;
    case TIER_PRIORITY:
        return longer ? &p->longer_priority : &p->priority;
    case TIER_STANDARD:
        break;
    }
    return longer ? &p->longer : &p->standard;
}

/* At most n of what is left, and never less than none: parts that exceed the whole are a provider's mistake. */
static int64_t take(int64_t *left, int64_t n) {
    n = n < 0 ? 0 : n > *left ? *left : n;
    *left -= n;
    return n;
}

static wide cost_of_prompt(const price_rates *r, const usage *u) {
    int64_t left = u->prompt > 0 ? u->prompt : 0;
    int64_t cached = take(&left, u->cached);
    int64_t write_5m = take(&left, u->write_5m);
    int64_t write_1h = take(&left, u->write_1h);
    int64_t audio_cached = take(&cached, u->audio_cached);
    int64_t audio = take(&left, u->audio_in - audio_cached);
    int64_t image = take(&left, u->image_in);
    return (wide)left * r->input + (wide)cached * r->cached + (wide)write_5m * r->write_5m +
           (wide)write_1h * r->write_1h + (wide)audio_cached * r->audio_cached + (wide)audio * r->audio_in +
           (wide)image * r->image_in;
}

static wide cost_of_answer(const price_rates *r, const usage *u) {
    int64_t left = u->completion > 0 ? u->completion : 0;
    int64_t reasoning = take(&left, u->reasoning);
    int64_t audio = take(&left, u->audio_out);
    return (wide)left * r->output + (wide)reasoning * r->reasoning + (wide)audio * r->audio_out;
}

static int64_t per_million(wide sum) {
    wide nano = (sum + 500000) / 1000000;
    return nano > PRICE_MOST ? PRICE_MOST : (int64_t)nano;
}

int64_t price_of(const price *p, const usage *u) {
    if (!p->known) {
        return 0;
    }
    price_rates r = settled(rates_for(p, u));
    return per_million(cost_of_prompt(&r, u) + cost_of_answer(&r, u) +
                       (wide)(u->searches > 0 ? u->searches : 0) * r.search);
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t price_most(const price *p, int64_t prompt, int64_t output) {
    if (!p->known) {
        return 0;
    }
    const price_rates *rows[] = {&p->standard, &p->batch,        &p->flex,        &p->priority,
                                 &p->longer,   &p->longer_batch, &p->longer_flex, &p->longer_priority};
    /* The prompt's length is an estimate (estimate.h: up to 15 % off), and the higher price begins with one token. */
    bool               may_be_long = p->long_from > 0 && prompt > p->long_from - p->long_from / 4;
    int64_t            read = 0, write = 0;
    /* A rate that is as another one (-1) adds nothing: the other is in the same list. */
    for (int i = 0; i < (may_be_long ? 8 : 4); i++) {
        const price_rates *r = rows[i];
        int64_t            writes = larger(r->write_5m, r->write_1h), audio = larger(r->audio_in, r->audio_cached);
        read = larger(read, larger(larger(r->input, r->cached), larger(writes, larger(audio, r->image_in))));
        write = larger(write, larger(r->output, larger(r->reasoning, r->audio_out)));
    }
    return per_million((wide)larger(prompt, 0) * read + (wide)larger(output, 0) * write);
}

price price_flat(price_rates rates) {
    return (price){.standard = rates,
                   .batch = rates,
                   .flex = rates,
                   .priority = rates,
                   .longer = rates,
                   .longer_batch = rates,
                   .longer_flex = rates,
                   .longer_priority = rates,
                   .known = true};
}

/* All members are rates. */
static void raise_rates(price_rates *a, const price_rates *b) {
    int64_t       *to[] = {&a->input,    &a->output,       &a->cached,   &a->write_5m,  &a->write_1h, &a->reasoning,
                           &a->audio_in, &a->audio_cached, &a->image_in, &a->audio_out, &a->search};
    const int64_t *from[] = {&b->input,    &b->output,       &b->cached,   &b->write_5m,  &b->write_1h, &b->reasoning,
                             &b->audio_in, &b->audio_cached, &b->image_in, &b->audio_out, &b->search};
    for (size_t i = 0; i < sizeof to / sizeof to[0]; i++) {
        *to[i] = *from[i] > *to[i] ? *from[i] : *to[i];
    }
}

void price_raise(price *a, const price *b) {
    bool long_a = a->long_from > 0, long_b = b->long_from > 0;
    /* A price that knows no long prompts has its usual rates there. */
    if (!long_a) {
        a->longer = a->standard, a->longer_batch = a->batch, a->longer_flex = a->flex, a->longer_priority = a->priority;
    }
    raise_rates(&a->longer, long_b ? &b->longer : &b->standard);
    raise_rates(&a->longer_batch, long_b ? &b->longer_batch : &b->batch);
    raise_rates(&a->longer_flex, long_b ? &b->longer_flex : &b->flex);
    raise_rates(&a->longer_priority, long_b ? &b->longer_priority : &b->priority);
    raise_rates(&a->standard, &b->standard);
    raise_rates(&a->batch, &b->batch);
    raise_rates(&a->flex, &b->flex);
    raise_rates(&a->priority, &b->priority);
    if (long_b && (!long_a || b->long_from < a->long_from)) {
        a->long_from = b->long_from;
    }
}
