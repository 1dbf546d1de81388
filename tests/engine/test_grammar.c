/* GBNF: what it derives against the plain reference, what it refuses, and hostile texts. */
#include "check.h"

#include "base/clock.h"
#include "engine/mask_machine.h"
#include "grammar_reference.h"

static const char *const grammars[] = {
    "root ::= \"yes\" | \"no\"",
    "root ::= [a-c]+ \"x\"? # comment\n",
    "root ::= a (\",\" a)*\na ::= [0-9]{1,3} |\n  \"-\" [0-9]{2}\n",
    "root ::= \"(\" root \")\" | \"\"",
    "root ::= \"(\" root \")\" root | \"a\"",
    "root ::= item root | item\nitem ::= \"a\" | \"b\" | \"ab\"",
    "root ::= x x x\nx ::= y?\ny ::= \"a\" | \"b\" x",
    "root ::= [^\\x00-\\x60\\u0080-\\u07ff] [\\u00e9\\u4e00-\\u9fff]* .",
    "root ::= (\"a\"{0,5} \"b\"){2,} \"c\"{3}",
    "root ::= (((\"a\"* \"b\"?)* \"c\")* \"d\"){,2}",
    "root ::= s\ns ::= \"\\\"\" ch* \"\\\"\"\nch ::= [^\"\\\\] | \"\\\\\" [nt\"\\\\]",
    "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"\"",
    ("root ::= v\nv ::= \"[\" (v (\",\" v)*)? \"]\" | o | \"1\"\n"
     "o ::= \"{\" (k \":\" v)? \"}\"\nk ::= \"'\" [a-z]* \"'\""),
    "root ::= e\ne ::= t (\"+\" t)*\nt ::= f (\"*\" f)*\nf ::= \"(\" e \")\" | [0-9]",
    "root ::= p q\np ::= \"a\"*\nq ::= p \"b\" | p \"c\"",
    "root ::= [ab]* \"a\" [ab]{6}",
    "root ::= a b c\na::=\"x\"|\nb::=\"y\"|\nc::=\"z\"|",
};

static uint64_t random_state = 1;

/* Goes through random bytes that the reference or the machine like, and compares the two after each. */
static void walk_one(machine *m, const rules *r, int root) {
    static const char alphabet[] = "abcdxyzno[]{}(),:'\"\\+*-0123 es\xc3\xa9\xe4\xb8\x80\xf0";
    char              text[64];
    int               state = machine_begin(m);
    for (size_t n = 0; n < sizeof(text); n++) {
        int good[256], n_good = 0;
        for (int b = 0; b < 256; b++) {
            bool whole, viable;
            if (!memchr(alphabet, b, sizeof(alphabet) - 1) && b % 16 != (int)(n % 16)) {
                continue;
            }
            text[n] = (char)b;
            viable = reference_reads(r, root, text, n + 1, &whole);
            int to = machine_step(m, state, m->g->class_of[b]);
            if (viable != (to != STATE_DEAD) || whole != !!(machine_flags(m, to) & STATE_ENDS)) {
                fail_msg("\"%.*s\": %d %d, the reference says %d %d", (int)n + 1, text, to != STATE_DEAD,
                         machine_flags(m, to), viable, whole);
            }
            if (viable) {
                good[n_good++] = b;
            }
        }
        if (n_good == 0) {
            return;
        }
        text[n] = (char)good[test_random(&random_state) % (uint64_t)n_good];
        state = machine_step(m, state, m->g->class_of[(uint8_t)text[n]]);
    }
}

static void test_as_reference(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof(grammars) / sizeof(*grammars); i++) {
        err     e = {0};
        rules   r;
        machine m;
        int     root;
        assert_ok(rules_begin(&r, &e), e);
        assert_ok(gbnf_read(grammars[i], strlen(grammars[i]), &r, &root, &e), e);
        grammar *g = grammar_from_gbnf(grammars[i], strlen(grammars[i]), &e);
        assert_ok(g, e);
        assert_ok(machine_init(&m, g, &e), e);
        for (int k = 0; k < 12; k++) {
            walk_one(&m, &r, root);
        }
        machine_free(&m);
        grammar_free(g);
        rules_end(&r);
    }
}

static bool accepts(const char *gbnf, const char *text, size_t n) {
    err      e = {0};
    machine  m;
    grammar *g = grammar_from_gbnf(gbnf, strlen(gbnf), &e);
    assert_ok(g, e);
    assert_ok(machine_init(&m, g, &e), e);
    int state = machine_begin(&m);
    for (size_t i = 0; i < n; i++) {
        state = machine_tidy(&m, machine_step(&m, state, g->class_of[(uint8_t)text[i]]));
    }
    bool ends = machine_flags(&m, state) & STATE_ENDS;
    machine_free(&m);
    grammar_free(g);
    return ends;
}

/* x{0,n} and x{n} with blocks: exactly the counts that are asked for. */
static void test_long_repetitions(void **unused) {
    (void)unused;
    char *text = malloc(20001);
    memset(text, 'a', 20001);
    assert_true(accepts("root ::= \"a\"{0,20000}", text, 20000));
    assert_false(accepts("root ::= \"a\"{0,20000}", text, 20001));
    assert_true(accepts("root ::= \"a\"{0,20000}", text, 0));
    assert_true(accepts("root ::= \"a\"{0,20000}", text, 7777));
    assert_true(accepts("root ::= \"a\"{20000}", text, 20000));
    assert_false(accepts("root ::= \"a\"{20000}", text, 19999));
    assert_false(accepts("root ::= \"a\"{20000}", text, 20001));
    assert_true(accepts("root ::= \"a\"{9000,20000}", text, 9000));
    assert_false(accepts("root ::= \"a\"{9000,20000}", text, 8999));
    assert_true(accepts("root ::= \"a\"{9000,}", text, 20001));
    assert_true(accepts("root ::= \"a\"{9000,20000}", text, 19999));
    free(text);
}

static void test_depth(void **unused) {
    (void)unused;
    static const char nest[] = "root ::= \"[\" root \"]\" | \"1\"";
    char              text[2 * GRAMMAR_MOST_DEPTH + 3];
    int               n = GRAMMAR_MOST_DEPTH + 1; /* one pending rule for each */
    memset(text, '[', (size_t)n);
    text[n] = '1';
    memset(text + n + 1, ']', (size_t)n);
    assert_false(accepts(nest, text, 2 * (size_t)n + 1));
    assert_true(accepts(nest, text + 1, 2 * (size_t)(n - 1) + 1));
}

static void test_refused(void **unused) {
    (void)unused;
    static const char *const bad[][2] = {
        {"root ::= \"a", "line 1, column 10"},
        {"root ::= [a", "closing ]"},
        {"root ::= (\"a\"", "closing )"},
        {"root ::= \"a\" )", "without its ("},
        {"root ::= \n  b", "line 2, column 3: the rule \"b\""},
        {"rot ::= \"b\"", "no rule named \"root\""},
        {"root ::= \"\\q\"", "unknown escape"},
        {"root ::= \"\\ud800\"", "no character"},
        {"root ::= \"a\"{2,1}", "below its smallest"},
        {"root ::= \"a\"{x}", "a repetition is"},
        {"root ::= \"a\"{1000001}", "1000000"},
        {"root ::= [z-a]", "backwards"},
        {"root ::= root \"a\" | \"b\"", "\"root\" may begin with itself"},
        {"root ::= x\nx ::= y? x \"a\" | \"b\"\ny ::= \"c\"", "\"x\" may begin with itself"},
        {"root ::= \"a\" root", "finite"},
        {"root ::= []", "finite"},
        {"root ::= \"a\"\nroot ::= \"b\"", "before"},
        {"root = \"a\"", "expected a rule"},
        {"", "root"},
        {"root ::= \"\xff\"", "UTF-8"},
        {"root ::= ((((((((\"a\"{1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000})", "too large"},
        {"root ::= ([ab]* \"a\" [ab]{25}){3} \"c\"", "too large"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err     e = {0};
        int64_t begun = clock_us();
        if (grammar_from_gbnf(bad[i][0], strlen(bad[i][0]), &e)) {
            fail_msg("\"%s\" is taken", bad[i][0]);
        }
        assert_says(e, bad[i][1]);
        assert_true(clock_us() - begun < 5000000); /* a second, and a sanitizer's time */
    }
}

static void test_hostile(void **unused) {
    (void)unused;
    size_t n = 200000;
    char  *text = malloc(n + 64);
    err    e = {0};
    memcpy(text, "root ::= ", 9);
    memset(text + 9, '(', n);
    assert_null(grammar_from_gbnf(text, n, &e));
    assert_says(e, "200 deep");
    memcpy(text, "root ::= \"a\"", 12);
    memset(text + 12, '*', n);
    assert_null(grammar_from_gbnf(text, n, &e));
    assert_says(e, "nested");
    size_t at = 0; /* a chain of rules, each of which may be empty */
    for (int i = 0; i < 9000; i++) {
        at += (size_t)sprintf(text + at, "r%x::=r%x?\n", i, i + 1);
    }
    at += (size_t)sprintf(text + at, "r%x::=\"a\"\nroot::=r0", 9000);
    int64_t  begun = clock_us();
    grammar *g = grammar_from_gbnf(text, at, &e);
    assert_true(clock_us() - begun < 5000000);
    grammar_free(g);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_reference), cmocka_unit_test(test_long_repetitions), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
