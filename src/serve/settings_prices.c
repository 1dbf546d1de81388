/* settings_prices.c - the table of prices, built in and in pare.yaml.
 *
 * Dollars per million tokens in the file (search: per thousand pieces), nano-dollars per million inside. What a row does
 * not say is as price.h has it: cached_input, cache_write, audio_input and image_input cost what input costs, and so on.
 * batch, flex and priority are a factor (0.5) or a mapping of the rates that differ; long the same behind `from` tokens. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "serve/settings_parts.h"

#define MOST_USD 1e6 /* a million tokens, or a thousand pieces */

static const struct {
    const char *name;
    size_t      at;    /* in price_rates */
    double      scale; /* nano-dollars per million of what a dollar in the file is */
} rates[] = {
    {"input", offsetof(price_rates, input), 1e9},
    {"cached_input", offsetof(price_rates, cached), 1e9},
    {"cache_write", offsetof(price_rates, write_5m), 1e9},
    {"cache_write_1h", offsetof(price_rates, write_1h), 1e9},
    {"output", offsetof(price_rates, output), 1e9},
    {"reasoning", offsetof(price_rates, reasoning), 1e9},
    {"audio_input", offsetof(price_rates, audio_in), 1e9},
    {"cached_audio_input", offsetof(price_rates, audio_cached), 1e9},
    {"image_input", offsetof(price_rates, image_in), 1e9},
    {"audio_output", offsetof(price_rates, audio_out), 1e9},
    {"search", offsetof(price_rates, search), 1e12}, /* per thousand pieces */
};
#define N_RATES ((int)(sizeof rates / sizeof rates[0]))

static int64_t *rate_at(price_rates *r, int i) {
    return (int64_t *)((char *)r + rates[i].at);
}

static bool read_rates(const config *c, const config_node *n, price_rates *r, err *e) {
    for (int i = 0; i < N_RATES; i++) {
        double dollars = -1;
        if (!config_number(c, n, rates[i].name, 0, MOST_USD, &dollars, e)) {
            return false;
        }
        if (dollars >= 0) {
            *rate_at(r, i) = llround(dollars * rates[i].scale);
        }
    }
    return true;
}

/* The names of the rates, and what else may stand there. */
static bool known(const config *c, const config_node *n, const char *const *more, err *e) {
    const char *names[N_RATES + 12];
    int         count = 0;
    for (; count < N_RATES; count++) {
        names[count] = rates[count].name;
    }
    while (*more) {
        names[count++] = *more++;
    }
    names[count] = NULL;
    return config_known(c, n, names, e);
}

static bool must_map(const config *c, const config_node *n, const char *what, const char *name, err *e) {
    return config_kind_of(n) == CONFIG_MAPPING ||
           config_fail(c, n, e, "%s of the price of %s must be a mapping", what, name);
}

/* Everything but pieces: providers discount tokens. */
static void discount(price_rates *r, double factor) {
    for (int i = 0; i < N_RATES; i++) {
        int64_t *rate = rate_at(r, i);
        if (*rate > 0 && rates[i].at != offsetof(price_rates, search)) {
            *rate = llround((double)*rate * factor);
        }
    }
}

/* One tier: at any length, and behind long.from. Without a `long` of its own a mapping is for short prompts alone. */
static bool read_tier(const config *c, const config_node *n, const char *tier, const char *name, price_rates *rate,
                      price_rates *longer, err *e) {
    static const char *const more[] = {"long", NULL}, *const none[] = {NULL};
    const config_node *own = config_get(n, tier);
    double             factor = 1;
    if (!own) {
        return true;
    }
    if (config_kind_of(own) == CONFIG_SCALAR) {
        if (!config_number(c, n, tier, 0, 100, &factor, e)) {
            return false;
        }
        discount(rate, factor);
        discount(longer, factor);
        return true;
    }
    const config_node *far = config_get(own, "long");
    return must_map(c, own, tier, name, e) && known(c, own, more, e) && read_rates(c, own, rate, e) &&
           (!far || (must_map(c, far, "long", name, e) && known(c, far, none, e) && read_rates(c, far, longer, e)));
}

static bool read_long(const config *c, const config_node *n, const char *name, price *p, err *e) {
    static const char *const more[] = {"from", NULL};
    const config_node       *far = config_get(n, "long");
    p->longer = p->standard;
    if (!far) {
        return true;
    }
    if (!must_map(c, far, "long", name, e) || !known(c, far, more, e) ||
        !config_int(c, far, "from", 1, 1LL << 40, &p->long_from, e) || !read_rates(c, far, &p->longer, e)) {
        return false;
    }
    return p->long_from > 0 ||
           config_fail(c, far, e, "long of the price of %s needs from: the prompt's tokens above which it holds", name);
}

static bool is_date(const char *text) {
    static const char form[] = "dddd-dd-dd";
    for (size_t i = 0; i < sizeof form; i++) {
        if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i]) {
            return false;
        }
    }
    return true;
}

static bool read_words(settings *s, const config *c, const config_node *n, setting_price *row, err *e) {
    if (!settings_string(s, c, n, "source", &row->source, e) || !settings_string(s, c, n, "date", &row->date, e) ||
        !config_int(c, n, "max_output", 1, 1LL << 40, &row->max_output, e)) {
        return false;
    }
    return !row->date || is_date(row->date) ||
           config_fail(c, n, e, "the date of the price of %s is \"%s\"; write it like 2026-11-21", row->name,
                       row->date);
}

static bool read_price(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    static const char *const more[] = {"batch", "flex", "priority", "long", "max_output", "source", "date", NULL};
    price_rates              unset;
    if (config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "the price of %s must be a mapping", name);
    }
    if (!known(c, n, more, e)) {
        return false;
    }
    for (int i = 0; i < N_RATES; i++) {
        *rate_at(&unset, i) = -1;
    }
    setting_price row = {.name = settings_keep(s, name), .price = price_flat(unset)};
    price        *p = &row.price;
    if (!row.name) {
        return settings_no_memory(e);
    }
    if (!read_rates(c, n, &p->standard, e)) {
        return false;
    }
    if (p->standard.search < 0 && (p->standard.input < 0 || p->standard.output < 0)) {
        return config_fail(
            c, n, e,
            "the price of %s needs input and output (dollars per million tokens), or search (dollars per "
            "thousand)",
            name);
    }
    if (!read_long(c, n, name, p, e) || !read_words(s, c, n, &row, e)) {
        return false;
    }
    p->batch = p->flex = p->priority = p->standard;
    p->longer_batch = p->longer_flex = p->longer_priority = p->longer;
    if (!read_tier(c, n, "batch", name, &p->batch, &p->longer_batch, e) ||
        !read_tier(c, n, "flex", name, &p->flex, &p->longer_flex, e) ||
        !read_tier(c, n, "priority", name, &p->priority, &p->longer_priority, e)) {
        return false;
    }
    s->prices = settings_more(s, s->prices, s->n_prices, sizeof *s->prices);
    if (!s->prices) {
        return settings_no_memory(e);
    }
    s->prices[s->n_prices++] = row;
    return true;
}

bool settings_read_prices(settings *s, const config *c, const config_node *n, err *e) {
    if (n && config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "prices must be a mapping of model names");
    }
    for (size_t i = 0; n && i < config_count(n); i++) {
        if (!read_price(s, c, config_key(n, i), config_item(n, i), e)) {
            return false;
        }
    }
    return true;
}

const setting_price *settings_price(const settings *s, const char *name) {
    for (int i = s->n_prices - 1; name && i >= 0; i--) {
        if (strcmp(s->prices[i].name, name) == 0) {
            return &s->prices[i];
        }
    }
    return NULL;
}
