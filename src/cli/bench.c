/* bench.c - `pare bench`: how fast this machine runs a model: prefill, and decode at several batch sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "model/synth.h"

static int run(int argc, char **argv);

const command command_bench = {
    .name = "bench",
    .summary = "tokens per second of a model on this machine",
    .run = run,
    .help =
        "Usage: pare bench (--model FILE | --shape NAME --type TYPE) [OPTIONS]\n\n"
        "Measures prefill of one prompt and decode of 1 to 32 sequences that step together, each several times, and\n"
        "prints the median. --shape makes a file with random weights first and removes it afterwards.\n\n"
        "  --model FILE   a GGUF file\n"
        "  --shape NAME   see `pare synth --shape list`\n"
        "  --type TYPE    f32, f16, bf16, q8_0 or q4_0 (default q4_0)\n"
        "  --prompt N     tokens of prefill (default 512)\n"
        "  --context N    tokens already in each sequence's cache while decoding (default 0)\n"
        "  --batch N      only this many sequences (default 1, 2, 4, 8, 16 and 32)\n"
        "  --steps N      decode steps a run (default 32)\n"
        "  --runs N       runs of each, of which the median counts (default 5)\n"
        "  --threads N    default one a core\n"
        "  --json         one JSON object a line\n\n"
        "Example:\n"
        "  pare bench --shape llama-1b --type q4_0\n"};

typedef struct bench {
    const char *path;
    int64_t     prompt, context, batch, steps, runs, threads;
    bool        json;
    pool       *p;
    model      *m;
    double      load_s;
} bench;

#define MAX_RUNS    101
#define STEP_TOKENS 256

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void print(const bench *b, const char *test, int tokens, int batch, int context, double seconds) {
    double rate = tokens / seconds;
    if (b->json) {
        printf("{\"test\":\"%s\",\"tokens\":%d,\"batch\":%d,\"context\":%d,\"tokens_per_s\":%.3f,\"threads\":%d}\n",
               test, tokens, batch, context, rate, pool_threads(b->p));
    } else {
        printf("%-8s %6d tokens %4d sequences %6d context %10.1f tokens/s\n", test, tokens, batch, context, rate);
    }
    fflush(stdout);
}

static int32_t token(const bench *b, int64_t i) {
    return (int32_t)((i * 7919 + 13) % b->m->shape.vocab); /* any ids do: speed does not depend on them */
}

/* Fills `count` positions of a slot from `at`, in steps of the engine's usual size. */
static void prefill(const bench *b, forward *f, kv_cache *kv, int slot, int at, int count) {
    forward_token batch[STEP_TOKENS];
    for (int done = 0; done < count;) {
        int n = count - done < STEP_TOKENS ? count - done : STEP_TOKENS;
        for (int i = 0; i < n; i++) {
            int position = at + done + i;
            batch[i] = (forward_token){.id = token(b, position + slot), .sequence = slot, .position = position};
        }
        batch[n - 1].logits = done + n == count;
        forward_run(f, kv, batch, n);
        done += n;
    }
}

static bool bench_prefill(const bench *b, err *e) {
    double    times[MAX_RUNS];
    forward  *f = forward_new(b->m, b->p, STEP_TOKENS, 1, e);
    kv_cache *kv = f ? kv_open(&b->m->shape, 1, (int)b->prompt, KV_F16, e) : NULL;
    if (kv) {
        prefill(b, f, kv, 0, 0, (int)b->prompt); /* warm up: pages, caches */
        for (int r = 0; r < b->runs; r++) {
            int64_t began = clock_us();
            prefill(b, f, kv, 0, 0, (int)b->prompt);
            times[r] = (double)(clock_us() - began) / 1e6;
        }
        print(b, "prefill", (int)b->prompt, 1, 0, median(times, (int)b->runs));
        kv_close(kv);
    }
    forward_free(f);
    return kv != NULL;
}

static bool bench_decode(const bench *b, int batch, err *e) {
    double         times[MAX_RUNS];
    int            steps = (int)b->steps, context = (int)b->context;
    int            width = batch > STEP_TOKENS ? batch : STEP_TOKENS;
    forward       *f = forward_new(b->m, b->p, width, batch, e);
    kv_cache      *kv = f ? kv_open(&b->m->shape, batch, context + steps + 1, KV_F16, e) : NULL;
    forward_token *tokens = kv ? calloc((size_t)batch, sizeof *tokens) : NULL;
    if (tokens) {
        for (int s = 0; s < batch && context > 0; s++) {
            prefill(b, f, kv, s, 0, context);
        }
        for (int r = -1; r < b->runs; r++) { /* the first run warms up */
            int64_t began = clock_us();
            for (int i = 0; i < steps; i++) {
                for (int s = 0; s < batch; s++) {
                    tokens[s] = (forward_token){
                        .id = token(b, i + s * 31), .sequence = s, .position = context + i, .logits = true};
                }
                forward_run(f, kv, tokens, batch);
            }
            if (r >= 0) {
                times[r] = (double)(clock_us() - began) / 1e6;
            }
        }
        print(b, "decode", steps * batch, batch, context, median(times, (int)b->runs));
    } else if (kv) {
        err_set(e, ERR_MEMORY, "Out of memory.");
    }
    bool ok = tokens != NULL;
    free(tokens);
    kv_close(kv);
    forward_free(f);
    return ok;
}

static bool bench_model(bench *b, err *e) {
    int64_t began = clock_us();
    b->p = pool_new((int)b->threads, e);
    b->m = b->p ? model_open(b->path, NULL, 0, b->p, e) : NULL;
    b->load_s = (double)(clock_us() - began) / 1e6;
    bool ok = b->m != NULL;
    if (ok && !b->json) {
        printf("%s: %.1f MB of weights, loaded in %.3f s, %d threads, %s\n", b->m->name,
               (double)b->m->weight_bytes / 1e6, b->load_s, pool_threads(b->p), kernels_get()->name);
    } else if (ok) {
        printf("{\"test\":\"load\",\"seconds\":%.6f,\"weight_bytes\":%zu,\"isa\":\"%s\"}\n", b->load_s,
               b->m->weight_bytes, kernels_get()->name);
    }
    ok = ok && bench_prefill(b, e);
    static const int sizes[] = {1, 2, 4, 8, 16, 32};
    for (size_t i = 0; ok && i < sizeof sizes / sizeof sizes[0]; i++) {
        if (b->batch == 0 || i == 0) {
            ok = bench_decode(b, b->batch ? (int)b->batch : sizes[i], e);
        }
    }
    if (ok) {
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        if (b->json) {
            printf("{\"test\":\"memory\",\"peak_rss_bytes\":%lld}\n", (long long)u.ru_maxrss * 1024);
        } else {
            printf("peak memory %.1f MB\n", (double)u.ru_maxrss / 1024);
        }
    }
    model_close(b->m);
    if (b->p) {
        pool_free(b->p);
    }
    return ok;
}

static void progress(void *arg, int64_t done, int64_t total) {
    (void)arg;
    cli_progress("making the model", total > 0 ? (double)done / (double)total : 0);
}

static bool with_shape(bench *b, const char *shape, const char *type, err *e) {
    const block_format *f = block_format_named(type);
    const char         *tmp = getenv("TMPDIR");
    char                path[4096];
    if (!f) {
        return err_set(e, ERR_INVALID, "\"%s\" is not a type that pare writes (f32, f16, bf16, q8_0, q4_0).", type);
    }
    snprintf(path, sizeof path, "%s/pare-bench-%d.gguf", tmp && *tmp ? tmp : "/tmp", (int)getpid());
    b->path = path;
    bool ok = synth_write(shape, f, 1, path, progress, NULL, e);
    cli_progress_end();
    ok = ok && bench_model(b, e);
    unlink(path);
    b->path = NULL;
    return ok;
}

static int run(int argc, char **argv) {
    bench            b = {.prompt = 512, .steps = 32, .runs = 5};
    const char      *shape = NULL, *type = "q4_0";
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--model", OPTION_TEXT, &b.path},
                               {"--shape", OPTION_TEXT, &shape},
                               {"--type", OPTION_TEXT, &type},
                               {"--prompt", OPTION_INT, &b.prompt, 1, 1 << 20},
                               {"--context", OPTION_INT, &b.context, 0, 1 << 20},
                               {"--batch", OPTION_INT, &b.batch, 1, 1024},
                               {"--steps", OPTION_INT, &b.steps, 1, 1 << 16},
                               {"--runs", OPTION_INT, &b.runs, 1, MAX_RUNS},
                               {"--threads", OPTION_INT, &b.threads, 0, 512},
                               {"--json", OPTION_FLAG, &b.json},
                               {0}};
    if (!cli_options(&command_bench, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (!b.path == !shape) {
        return cli_usage(&command_bench, "Name either --model or --shape.");
    }
    err  e = {0};
    bool ok = shape ? with_shape(&b, shape, type, &e) : bench_model(&b, &e);
    return ok ? EXIT_DONE : cli_fail(&e);
}
