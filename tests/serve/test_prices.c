/* The table of prices: what a row of YAML becomes, what is refused and how, and that the built-in one holds together. */
#include "check.h"

#include <unistd.h>

#include "serve/settings.h"

#define USD 1000000000LL /* a dollar per million tokens */

static settings *s;

static int open_settings(void **state) {
    (void)state;
    err e = {0};
    s = settings_new(&e);
    return s ? 0 : -1;
}

static int close_settings(void **state) {
    (void)state;
    settings_free(s);
    return 0;
}

static bool reads(const char *prices, err *e) {
    char path[] = "/tmp/pare-prices-XXXXXX";
    int  fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "prices:\n", 8) == 8 &&
                write(fd, prices, strlen(prices)) == (ssize_t)strlen(prices));
    close(fd);
    *e = (err){0};
    bool ok = settings_read(s, path, e);
    unlink(path);
    return ok;
}

static const setting_price *row(const char *name) {
    const setting_price *p = settings_price(s, name);
    assert_non_null(p);
    return p;
}

static void test_every_member(void **state) {
    (void)state;
    err e;
    assert_ok(reads("  a: {input: 1, cached_input: 2, cache_write: 3, cache_write_1h: 4, output: 5, reasoning: 6,\n"
                    "      audio_input: 7, cached_audio_input: 8, image_input: 9, audio_output: 10, search: 11,\n"
                    "      max_output: 12, source: here, date: 2026-11-21}\n"
                    "  b: {input: 0.0028, output: 0}\n  c: {search: 2}\n",
                    &e),
              e);
    const price_rates all = {.input = 1 * USD,
                             .cached = 2 * USD,
                             .write_5m = 3 * USD,
                             .write_1h = 4 * USD,
                             .output = 5 * USD,
                             .reasoning = 6 * USD,
                             .audio_in = 7 * USD,
                             .audio_cached = 8 * USD,
                             .image_in = 9 * USD,
                             .audio_out = 10 * USD,
                             .search = 11 * USD * 1000};
    assert_memory_equal(&row("a")->price.standard, &all, sizeof all);
    assert_memory_equal(&row("a")->price.priority, &all, sizeof all);
    assert_int_equal(row("a")->max_output, 12);
    assert_string_equal(row("a")->source, "here");
    assert_string_equal(row("a")->date, "2026-11-21");
    assert_int_equal(row("b")->price.standard.input, 2800000);
    assert_int_equal(row("b")->price.standard.cached, -1); /* as input */
    assert_int_equal(price_of(&row("c")->price, &(usage){.searches = 3}), 6000000);
}

static void test_tiers(void **state) {
    (void)state;
    err e;
    assert_ok(reads("  a: {input: 4, cached_input: 1, output: 10, search: 10, batch: 0.5, flex: {output: 6},\n"
                    "      priority: {input: 8, long: {input: 16}}, long: {from: 1000, input: 6, output: 12}}\n",
                    &e),
              e);
    const price *p = &row("a")->price;
    assert_int_equal(p->long_from, 1000);
    assert_true(p->batch.input == 2 * USD && p->batch.cached == USD / 2 && p->batch.output == 5 * USD);
    assert_int_equal(p->batch.search, 10 * USD * 1000); /* pieces are not discounted */
    assert_int_equal(p->batch.write_5m, -1);
    assert_true(p->longer_batch.input == 3 * USD && p->longer_batch.output == 6 * USD);
    assert_true(p->flex.input == 4 * USD && p->flex.cached == USD && p->flex.output == 6 * USD);
    assert_int_equal(p->longer_flex.output, 12 * USD); /* a mapping without long is for short prompts alone */
    assert_true(p->priority.input == 8 * USD && p->priority.output == 10 * USD);
    assert_true(p->longer_priority.input == 16 * USD && p->longer_priority.output == 12 * USD);
    assert_true(p->longer.input == 6 * USD && p->longer.cached == USD);
}

static void test_later_rows_win(void **state) {
    (void)state;
    err e;
    assert_int_equal(row("gpt-4o")->price.standard.input, 2500000000);
    assert_true(row("gpt-4o") < s->prices + s->n_built_in);
    assert_ok(reads("  gpt-4o: {input: 7, output: 8}\n", &e), e);
    assert_int_equal(row("gpt-4o")->price.standard.input, 7 * USD);
    assert_int_equal(row("gpt-4o")->price.standard.cached, -1); /* the whole row is another */
    assert_true(row("gpt-4o") >= s->prices + s->n_built_in);
}

static void refuses(const char *prices, const char *says, const char *also) {
    err e;
    if (reads(prices, &e)) {
        fail_msg("%s was accepted", prices);
    }
    if (!strstr(e.text, says) || !strstr(e.text, also)) {
        fail_msg("%s: \"%s\" does not say \"%s\" and \"%s\"", prices, e.text, says, also);
    }
}

static void test_wrong_rows(void **state) {
    (void)state;
    refuses("  a: {input: 1, output: 2, cashed_input: 1}\n", "cashed_input", "cached_input");
    refuses("  a: {input: 1, output: 2, long: {form: 3}}\n", "form", "from");
    refuses("  a: {input: 1, output: 2, batch: {imput: 3}}\n", "imput", "input");
    refuses("  a: {input: 1, output: 2, batch: {from: 3}}\n", "from", "");
    refuses("  a: {input: 1, output: 2, long: {input: 3}}\n", "needs from", "");
    refuses("  a: {input: 1}\n", "needs input and output", "search");
    refuses("  a: {input: , output: 3}\n", "needs input and output", "");
    refuses("  a: {input: -1, output: 2}\n", "input", "");
    refuses("  a: {input: much, output: 2}\n", "input", "much");
    refuses("  a: {input: 1, output: 2, batch: half}\n", "batch", "half");
    refuses("  a: {input: 1, output: 2, long: 5}\n", "long", "mapping");
    refuses("  a: {input: 1, output: 2, date: yesterday}\n", "yesterday", "2026-11-21");
    refuses("  a: {input: 1e9, output: 2}\n", "input", "");
    refuses("  a: 5\n", "mapping", "");
}

/* Each row says where it is from and when, and no part costs more than it may: a slip of a digit would show here. */
static void test_the_built_in_table(void **state) {
    (void)state;
    assert_true(s->n_built_in >= 20);
    for (int i = 0; i < s->n_built_in; i++) {
        const setting_price *p = &s->prices[i];
        const price_rates   *r = &p->price.standard;
        if (!p->source || !p->date || settings_price(s, p->name) != p) {
            fail_msg("%s has no source or no date, or stands twice", p->name);
        }
        if (r->cached > r->input || r->output < r->input || (r->write_1h >= 0 && r->write_1h < r->write_5m) ||
            (r->write_5m >= 0 && r->write_5m < r->input) || (p->price.long_from && p->price.longer.input < r->input) ||
            p->price.batch.input > r->input) {
            fail_msg("the rates of %s are out of order", p->name);
        }
    }
}

static void test_how_long_rows_are_kept(void **state) {
    (void)state;
    err e;
    assert_int_equal(s->ledger_keep_us, 0);
    assert_ok(reads("  a: {search: 1}\nledger: {keep: 400d}\n", &e), e);
    assert_int_equal(s->ledger_keep_us, 400LL * 86400 * 1000000);
    refuses("  a: {search: 1}\nledger: {kept: 400d}\n", "kept", "keep");
    refuses("  a: {search: 1}\nledger: {keep: long}\n", "keep", "long");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_settings, close_settings)
    const struct CMUnitTest tests[] = {T(test_every_member),       T(test_tiers),
                                       T(test_later_rows_win),     T(test_wrong_rows),
                                       T(test_the_built_in_table), T(test_how_long_rows_are_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
