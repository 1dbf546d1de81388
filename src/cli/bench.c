/* bench.c - `pare bench`: how fast this machine runs a model, and how much of the machine that is. */
#include "cli/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "model/synth.h"

static int run(int argc, char **argv);

const command command_bench = {
    .name = "bench",
    .summary = "tokens per second of a model on this machine",
    .run = run,
    .help =
        "Usage: pare bench (--model FILE | --shape NAME [--type TYPE] | --roofline) [OPTIONS]\n\n"
        "Measures a model: load and first token, prefill of one prompt, decode of 1 to 64 sequences that step "
        "together,\n"
        "the first token of a long prompt cold and with its beginning in the cache. Each test runs several times and "
        "the\n"
        "median counts. The machine itself (read bandwidth, peaks of arithmetic) is measured before, within and after\n"
        "each test, and the result is given as a share of the median of these readings:\n\n"
        "  of bandwidth  bytes of weights that a step reads (all matrices but an embedding that is not also the "
        "output),\n"
        "                times steps a second, of what all threads can read from memory\n"
        "  of int8       2 x parameters (all, as the model's name counts) x tokens a second, of the int8 peak; for "
        "F16,\n"
        "                BF16 and F32 weights too, which do not multiply in int8\n\n"
        "What to measure:\n"
        "  --model FILE     a GGUF file\n"
        "  --shape NAME     random weights in a real model's shape, see `pare synth --shape list`; the file is made "
        "in\n"
        "                   $TMPDIR and removed afterwards\n"
        "  --type TYPE      of --shape (default q4_0), see `pare synth --type list`\n"
        "  --roofline       the machine; alone, or beside a model\n"
        "  --only LIST      some of load,prefill,decode,first-token,mixed,shared,embed (default: the first four; of "
        "an\n"
        "                   encoder, which writes no text, load and embed: --batch texts together)\n"
        "  --mixed          also: the time between tokens of 8 streams, before and while a prompt of 4000 tokens (or\n"
        "                   what the context holds) is read\n"
        "  --shared N       also: decode of N sequences under one prefix of 2000 tokens (or what the context holds), "
        "and\n"
        "                   the blocks of the cache they hold together\n\n"
        "How:\n"
        "  --prompt N       tokens of prefill (default 512), or of each text of embed (default 128)\n"
        "  --context N      tokens in each sequence's cache before it decodes (default 0)\n"
        "  --batch N,N,..   sequences that decode together (default 1,2,4,8,16,32,64)\n"
        "  --steps N        decode steps a run (default 32)\n"
        "  --runs N         runs of each test (default 5)\n"
        "  --kv TYPE        the cache: f16 (default), f32, q8_0 or q4_0\n"
        "  --longest N      take the model's context to be N tokens, for this measurement only: the speed is right, "
        "what\n"
        "                   the model would say is not\n"
        "  --threads N      default one a core\n"
        "  --json           one JSON object a line\n\n"
        "Examples:\n"
        "  pare bench --roofline\n"
        "  pare bench --shape llama-1b --type q4_0\n"
        "  pare bench --model m.gguf --only decode --batch 8 --context 512\n"
        "  pare bench --shape llama-1b --longest 8192 --only mixed,shared\n"};

static const struct {
    const char *name;
    unsigned    test;
} test_names[] = {{"load", BENCH_LOAD},         {"prefill", BENCH_PREFILL}, {"decode", BENCH_DECODE},
                  {"first-token", BENCH_FIRST}, {"mixed", BENCH_MIXED},     {"shared", BENCH_SHARED},
                  {"embed", BENCH_EMBED}};

#define TESTS          (sizeof test_names / sizeof *test_names)
#define USUAL_TESTS    (BENCH_LOAD | BENCH_PREFILL | BENCH_DECODE | BENCH_FIRST)
#define MOST_SEQUENCES 1024
#define SHARED_USUALLY 8

/* An encoder writes no text: what is not asked for by name becomes what it can do. */
static bool suit_model(bench *b, err *e) {
    const unsigned can = BENCH_LOAD | BENCH_EMBED;
    if (!b->m->shape.headless) {
        return true;
    }
    b->tests = b->usual ? can : b->tests;
    return !(b->tests & ~can) ||
           err_set(e, ERR_UNSUPPORTED,
                   "%s is an encoder and writes no text; of such a model --only takes load and embed.", b->m->name);
}

static bool measure(bench *b, err *e) {
    bool ok = bench_load(b, e) && suit_model(b, e);
    for (int i = 0; ok && (b->tests & BENCH_EMBED) && i < b->n_batches; i++) {
        ok = bench_embed(b, b->batches[i], e);
    }
    if (ok && (b->tests & BENCH_PREFILL)) {
        ok = bench_prefill(b, e);
    }
    for (int i = 0; ok && (b->tests & BENCH_DECODE) && i < b->n_batches; i++) {
        ok = bench_decode(b, b->batches[i], e);
    }
    if (ok && (b->tests & BENCH_SHARED)) {
        ok = bench_shared(b, e);
    }
    if (ok && (b->tests & BENCH_FIRST)) {
        ok = bench_first_token(b, e);
    }
    if (ok && (b->tests & BENCH_MIXED)) {
        ok = bench_mixed(b, e);
    }
    if (ok) {
        bench_print_memory(b);
    }
    model_close(b->m);
    return ok;
}

static bool bench_all(bench *b, err *e) {
    b->p = pool_new(b->threads, e);
    bool ok = b->p && bench_reading(b, e) && (!b->path || measure(b, e));
    if (ok) {
        roofline machine = bench_machine_since(b, 0);
        bench_print_machine(b, &machine, b->n_readings);
    }
    cli_progress_end();
    pool_free(b->p);
    return ok;
}

/* ---- random weights ---- */

static char made[4096], part[4096 + 32]; /* the file, and what it is called while it is being written */

static void clear_up(int number) {
    unlink(part);
    unlink(made);
    signal(number, SIG_DFL);
    raise(number);
}

static void progress(void *arg, int64_t done, int64_t total) {
    (void)arg;
    cli_progress("making the model", total > 0 ? (double)done / (double)total : 0);
}

static bool with_shape(bench *b, const char *shape, err *e) {
    const char *tmp = getenv("TMPDIR");
    int         n = snprintf(made, sizeof made, "%s/pare-bench-%ld.gguf", tmp && *tmp ? tmp : "/tmp", (long)getpid());
    if (n < 0 || (size_t)n >= sizeof made) {
        return err_set(e, ERR_INVALID, "TMPDIR is too long a path.");
    }
    snprintf(part, sizeof part, "%s.part%ld", made, (long)getpid()); /* as gguf_write.c calls it */
    signal(SIGINT, clear_up);
    signal(SIGTERM, clear_up);
    bool ok = synth_write(shape, b->type, 1, made, progress, NULL, e);
    cli_progress_end();
    b->path = made;
    ok = ok && bench_all(b, e);
    unlink(made);
    return ok;
}

/* ---- options ---- */

/* The next item of a list with commas; false at its end. */
static bool next_item(const char **list, char *item, size_t size) {
    if (!*list) {
        return false;
    }
    size_t n = strcspn(*list, ",");
    snprintf(item, size, "%.*s", (int)(n < size ? n : size - 1), *list);
    *list = (*list)[n] ? *list + n + 1 : NULL;
    return true;
}

static bool read_tests(bench *b, const char *list) {
    char item[64];
    while (next_item(&list, item, sizeof item)) {
        size_t i = 0;
        while (i < TESTS && strcmp(test_names[i].name, item) != 0) {
            i++;
        }
        if (i == TESTS) {
            cli_usage(&command_bench,
                      "--only takes load, prefill, decode, first-token, mixed, shared and embed, not \"%s\".", item);
            return false;
        }
        b->tests |= test_names[i].test;
    }
    return true;
}

static bool read_batches(bench *b, const char *list) {
    char item[64], *end;
    b->n_batches = 0;
    while (next_item(&list, item, sizeof item)) {
        errno = 0;
        long n = strtol(item, &end, 10);
        if (errno || end == item || *end || n < 1 || n > MOST_SEQUENCES || b->n_batches == BENCH_MAX_BATCHES) {
            cli_usage(&command_bench, "--batch takes up to %d numbers from 1 to %d with commas between, not \"%s\".",
                      BENCH_MAX_BATCHES, MOST_SEQUENCES, item);
            return false;
        }
        b->batches[b->n_batches++] = (int)n;
    }
    return true;
}

typedef struct choices { /* options as they are written */
    const char *model, *shape, *type, *kv, *batch, *only;
    int64_t     prompt, context, steps, runs, threads, longest, shared;
    bool        json, mixed, roofline;
} choices;

static bool understand(const choices *c, bench *b) {
    if ((c->model && c->shape) || (!c->model && !c->shape && !c->roofline)) {
        cli_usage(&command_bench, "Name either --model or --shape, or --roofline for the machine alone.");
        return false;
    }
    if (c->type && !c->shape) {
        cli_usage(&command_bench, "--type says of which type the weights of --shape are; it needs --shape.");
        return false;
    }
    if (!kv_type_named(c->kv, &b->kv)) {
        cli_usage(&command_bench, "--kv takes f16, f32, q8_0 or q4_0, not \"%s\".", c->kv);
        return false;
    }
    if (!read_batches(b, c->batch) || (c->only && !read_tests(b, c->only))) {
        return false;
    }
    b->tests |= (c->only ? 0 : USUAL_TESTS) | (c->mixed ? BENCH_MIXED : 0) | (c->shared ? BENCH_SHARED : 0);
    b->usual = !c->only && !c->mixed && !c->shared;
    b->path = c->model;
    b->type = c->shape && !c->type ? "q4_0" : c->type;
    b->prompt = (int)c->prompt;
    b->context = (int)c->context;
    b->steps = (int)c->steps;
    b->runs = (int)c->runs;
    b->threads = (int)c->threads;
    b->longest = (int)c->longest;
    b->shared = c->shared ? (int)c->shared : SHARED_USUALLY;
    b->json = c->json;
    return true;
}

static int run(int argc, char **argv) {
    static bench     b;
    choices          c = {.kv = "f16", .batch = "1,2,4,8,16,32,64", .steps = 32, .runs = 5};
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--model", OPTION_TEXT, &c.model},
                               {"--shape", OPTION_TEXT, &c.shape},
                               {"--type", OPTION_TEXT, &c.type},
                               {"--roofline", OPTION_FLAG, &c.roofline},
                               {"--only", OPTION_TEXT, &c.only},
                               {"--mixed", OPTION_FLAG, &c.mixed},
                               {"--shared", OPTION_INT, &c.shared, 1, MOST_SEQUENCES},
                               {"--prompt", OPTION_INT, &c.prompt, 1, 1 << 20},
                               {"--context", OPTION_INT, &c.context, 0, 1 << 20},
                               {"--batch", OPTION_TEXT, &c.batch},
                               {"--steps", OPTION_INT, &c.steps, 1, 1 << 16},
                               {"--runs", OPTION_INT, &c.runs, 1, BENCH_MAX_RUNS},
                               {"--kv", OPTION_TEXT, &c.kv},
                               {"--longest", OPTION_INT, &c.longest, 16, 1 << 20},
                               {"--threads", OPTION_INT, &c.threads, 0, 512},
                               {"--json", OPTION_FLAG, &c.json},
                               {0}};
    if (!cli_options(&command_bench, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (!understand(&c, &b)) {
        return EXIT_USAGE;
    }
    err  e = {0};
    bool ok = c.shape ? with_shape(&b, c.shape, &e) : bench_all(&b, &e);
    return ok ? EXIT_DONE : cli_fail(&e);
}
