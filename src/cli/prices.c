/* prices.c - `pare prices`: the table that costs are reckoned with, its sources, and how old they are. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "serve/settings.h"

static int run(int argc, char **argv);

const command command_prices = {
    .name = "prices",
    .summary = "what tokens cost: the price table with sources and dates",
    .run = run,
    .help = "Usage: pare prices [NAME]... [--config FILE] [--json]\n\n"
            "The built-in price table and, with --config, what pare.yaml adds to it or overrides. Dollars per million\n"
            "tokens; searches per thousand. A row in use by a model of the configuration has a * before it.\n\n"
            "  NAME           only these rows\n"
            "  --config FILE  a pare.yaml\n"
            "  --json         for scripts, with every rate\n\n"
            "Prices change and this table does not know. Override a row in pare.yaml:\n"
            "  prices:\n"
            "    gpt-4o: {input: 2.50, cached_input: 1.25, output: 10, batch: 0.5, date: 2026-11-21}\n\n"
            "Examples:\n"
            "  pare prices\n"
            "  pare prices gpt-4o claude-opus-4-5 --json\n"
            "  pare prices --config pare.yaml\n"};

static const struct {
    const char *name, *label; /* in JSON; in the table's last column */
    size_t      at;
    double      unit; /* nano-dollars per million in what people call a dollar */
} rates[] = {
    {"input", NULL, offsetof(price_rates, input), 1e9},
    {"cached_input", NULL, offsetof(price_rates, cached), 1e9},
    {"output", NULL, offsetof(price_rates, output), 1e9},
    {"cache_write", "write", offsetof(price_rates, write_5m), 1e9},
    {"cache_write_1h", "write 1h", offsetof(price_rates, write_1h), 1e9},
    {"reasoning", "reasoning", offsetof(price_rates, reasoning), 1e9},
    {"audio_input", "audio in", offsetof(price_rates, audio_in), 1e9},
    {"cached_audio_input", "cached audio", offsetof(price_rates, audio_cached), 1e9},
    {"image_input", "image in", offsetof(price_rates, image_in), 1e9},
    {"audio_output", "audio out", offsetof(price_rates, audio_out), 1e9},
    {"search", "search", offsetof(price_rates, search), 1e12},
};
#define N_RATES (sizeof rates / sizeof rates[0])

static int64_t rate_of(const price_rates *r, size_t i) {
    return *(const int64_t *)(const void *)((const char *)r + rates[i].at);
}

static void add_rate(str *out, const price_rates *r, size_t i) {
    str_addf(out, "%.9g", (double)rate_of(r, i) / rates[i].unit);
}

static bool same(const price_rates *a, const price_rates *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- rows ---- */

/* Is this the row that a model of the configuration is priced by? In the order in which the house looks for it. */
static bool priced_by(const settings *s, const setting_model *m, const setting_target *t, const char *row) {
    const char *own = t && t->price_name ? t->price_name : m->price_name;
    const char *upstream = t && t->upstream ? t->upstream : m->upstream;
    const char *names[] = {own, upstream, m->file ? NULL : m->name};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i] && settings_price(s, names[i])) {
            return strcmp(names[i], row) == 0;
        }
    }
    return false;
}

static bool uses(const settings *s, const setting_model *m, const char *row) {
    bool found = m->n_targets == 0 && priced_by(s, m, NULL, row);
    for (int i = 0; i < m->n_targets; i++) {
        found = found || priced_by(s, m, &m->targets[i], row);
    }
    return found || (m->stands_in_for && strcmp(m->stands_in_for, row) == 0);
}

static bool in_use(const settings *s, const char *name) {
    for (int i = 0; i < s->n_models; i++) {
        if (uses(s, &s->models[i], name)) {
            return true;
        }
    }
    return false;
}

/* Later rows of a name override earlier ones. */
static bool holds(const settings *s, int i) {
    return settings_price(s, s->prices[i].name) == &s->prices[i];
}

static bool wanted(const settings *s, int i, const char **names, int n_names) {
    for (int k = 0; k < n_names; k++) {
        if (strcmp(names[k], s->prices[i].name) == 0) {
            return holds(s, i);
        }
    }
    return n_names == 0 && holds(s, i);
}

/* Whole days since the row was read; -1: it does not say when. */
static int64_t age_of(const setting_price *p) {
    struct tm at = {0};
    if (!p->date || !strptime(p->date, "%Y-%m-%d", &at)) {
        return -1;
    }
    int64_t days = ((int64_t)time(NULL) - (int64_t)timegm(&at)) / 86400;
    return days < 0 ? 0 : days;
}

/* ---- the table ---- */

static void add_tier(str *out, const char *name, const price_rates *tier, const price_rates *standard) {
    if (!same(tier, standard)) {
        str_addf(out, "%s%s ", out->len ? "; " : "", name);
        add_rate(out, tier, 0);
        str_addc(out, '/');
        add_rate(out, tier, 2);
    }
}

static void add_extras(str *out, const price *p) {
    for (size_t i = 3; i < N_RATES; i++) {
        if (rate_of(&p->standard, i) >= 0) {
            str_addf(out, "%s%s ", out->len ? "; " : "", rates[i].label);
            add_rate(out, &p->standard, i);
        }
    }
    add_tier(out, "batch", &p->batch, &p->standard);
    add_tier(out, "flex", &p->flex, &p->standard);
    add_tier(out, "priority", &p->priority, &p->standard);
    if (p->long_from > 0) {
        str_addf(out, "%sover %" PRId64 " tokens ", out->len ? "; " : "", p->long_from);
        add_rate(out, &p->longer, 0);
        str_addc(out, '/');
        add_rate(out, &p->longer, 2);
    }
}

static void print_rate(const price_rates *r, size_t i) {
    str text = {0};
    if (rate_of(r, i) >= 0) {
        add_rate(&text, r, i);
    }
    printf(" %9s", text.data ? text.data : "-");
    str_free(&text);
}

static void print_row(const settings *s, const setting_price *p, int width) {
    str     extras = {0};
    int64_t age = age_of(p);
    printf("%c %-*s", in_use(s, p->name) ? '*' : ' ', width, p->name);
    for (size_t i = 0; i < 3; i++) {
        print_rate(&p->price.standard, i);
    }
    printf("  %-10s ", p->date ? p->date : "-");
    if (age >= 0) {
        printf("%5" PRId64 " d", age);
    } else {
        printf("%7s", "-");
    }
    add_extras(&extras, &p->price);
    printf("  %s%s%s\n",
           p->source                       ? p->source
           : p < s->prices + s->n_built_in ? "built in"
                                           : "pare.yaml",
           extras.len ? "\n      " : "", extras.data ? extras.data : "");
    str_free(&extras);
}

static void print_table(const settings *s, const char **names, int n_names) {
    int width = (int)strlen("model");
    for (int i = 0; i < s->n_prices; i++) {
        int n = (int)strlen(s->prices[i].name);
        width = wanted(s, i, names, n_names) && n > width ? n : width;
    }
    printf("  %-*s %9s %9s %9s  %-10s %7s  %s\n", width, "model", "input", "cached", "output", "read on", "age",
           "source");
    for (int i = 0; i < s->n_prices; i++) {
        if (wanted(s, i, names, n_names)) {
            print_row(s, &s->prices[i], width);
        }
    }
}

/* ---- JSON ---- */

static void json_rates(str *out, const price_rates *r) {
    const char *comma = "";
    str_addc(out, '{');
    for (size_t i = 0; i < N_RATES; i++) {
        if (rate_of(r, i) >= 0) {
            str_addf(out, "%s\"%s\":", comma, rates[i].name);
            add_rate(out, r, i);
            comma = ",";
        }
    }
    str_addc(out, '}');
}

static void json_tier(str *out, const char *name, const price_rates *tier, const price_rates *as) {
    if (!same(tier, as)) {
        str_addf(out, ",\"%s\":", name);
        json_rates(out, tier);
    }
}

static void json_models(const settings *s, const setting_price *p, str *out) {
    const char *comma = "";
    str_adds(out, ",\"models\":[");
    for (int i = 0; i < s->n_models; i++) {
        if (uses(s, &s->models[i], p->name)) {
            str_adds(out, comma);
            str_jsons(out, s->models[i].name);
            comma = ",";
        }
    }
    str_addc(out, ']');
}

static void json_row(const settings *s, const setting_price *row, str *out) {
    const price *p = &row->price;
    int64_t      age = age_of(row);
    str_adds(out, "{\"name\":");
    str_jsons(out, row->name);
    str_adds(out, ",\"rates\":");
    json_rates(out, &p->standard);
    json_tier(out, "batch", &p->batch, &p->standard);
    json_tier(out, "flex", &p->flex, &p->standard);
    json_tier(out, "priority", &p->priority, &p->standard);
    if (p->long_from > 0) {
        str_addf(out, ",\"long_from\":%" PRId64 ",\"long\":", p->long_from);
        json_rates(out, &p->longer);
        json_tier(out, "long_batch", &p->longer_batch, &p->longer);
        json_tier(out, "long_flex", &p->longer_flex, &p->longer);
        json_tier(out, "long_priority", &p->longer_priority, &p->longer);
    }
    str_adds(out, ",\"source\":");
    str_jsons(out, row->source);
    str_adds(out, ",\"date\":");
    str_jsons(out, row->date);
    if (age >= 0) {
        str_addf(out, ",\"age_days\":%" PRId64, age);
    }
    if (row->max_output > 0) {
        str_addf(out, ",\"max_output\":%" PRId64, row->max_output);
    }
    str_addf(out, ",\"built_in\":%s", row < s->prices + s->n_built_in ? "true" : "false");
    json_models(s, row, out);
    str_addc(out, '}');
}

static bool print_json(const settings *s, const char **names, int n_names, err *e) {
    str         out = {0};
    const char *comma = "";
    str_addc(&out, '[');
    for (int i = 0; i < s->n_prices; i++) {
        if (wanted(s, i, names, n_names)) {
            str_addf(&out, "%s\n", comma);
            json_row(s, &s->prices[i], &out);
            comma = ",";
        }
    }
    str_adds(&out, "]\n");
    if (!out.failed) {
        fputs(out.data, stdout);
    }
    bool good = !out.failed || err_set(e, ERR_MEMORY, "Out of memory for the table.");
    str_free(&out);
    return good;
}

/* ---- the command ---- */

static bool check_names(const settings *s, const char **names, int n_names, err *e) {
    for (int k = 0; k < n_names; k++) {
        if (settings_price(s, names[k])) {
            continue;
        }
        const char **known = calloc((size_t)s->n_prices + 1, sizeof *known);
        for (int i = 0; known && i < s->n_prices; i++) {
            known[i] = s->prices[i].name;
        }
        const char *near = known ? nearest_name(names[k], known) : NULL;
        err_set(e, ERR_NOT_FOUND, "There is no price of \"%.100s\"%s%.100s%s Add it under prices in pare.yaml.",
                names[k], near ? "; did you mean " : ".", near ? near : "", near ? "?" : "");
        free(known);
        return false;
    }
    return true;
}

static int run(int argc, char **argv) {
    const char      *config = NULL, *names[64];
    int              n_names = 0;
    bool             json = false, helped = false;
    err              e = {0};
    const option_row options[] = {{"--config", OPTION_TEXT, &config}, {"--json", OPTION_FLAG, &json}, {NULL}};
    if (!cli_options(&command_prices, argc, argv, options, names, 64, &n_names, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    settings *s = settings_new(&e);
    bool      good = s && (!config || settings_read(s, config, &e)) && check_names(s, names, n_names, &e);
    if (good && json) {
        good = print_json(s, names, n_names, &e);
    } else if (good) {
        print_table(s, names, n_names);
    }
    settings_free(s);
    return good ? EXIT_DONE : cli_fail(&e);
}
