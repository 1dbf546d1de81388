/* quantize.c - `pare quantize`: a model file with smaller weights. */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "learn/quantize.h"

static int run(int argc, char **argv);

const command command_quantize = {
    .name = "quantize",
    .summary = "make a model file smaller",
    .run = run,
    .help =
        "Usage: pare quantize IN.gguf OUT.gguf --type TYPE [OPTIONS]\n\n"
        "Writes the model again with its matrices in TYPE. What must stay precise does: norms and other tensors of "
        "one\n"
        "dimension are F32; routers of experts, positions, token types, small recurrent parts and tensors of fewer "
        "than\n"
        "1024 values stay as they are. Rows that TYPE's block does not divide take the nearest type that fits. The "
        "file\n"
        "is read back and compared with the source, and appears under its name when it is good; Ctrl-C leaves "
        "nothing.\n\n"
        "  --type TYPE            a mixture as llama.cpp has it: q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s "
        "q5_k_m\n"
        "                         mxfp4_moe; or one format for every matrix: f32 f16 bf16 q8_0 q6_k q5_k q4_k q3_k\n"
        "                         q5_1 q5_0 q4_1 q4_0 iq4_nl iq4_xs mxfp4. Usual: q4_k_m, q8_0 to lose almost nothing\n"
        "  --tensor PATTERN=TYPE  other types for the tensors whose name matches (* ? [] as in a shell); may be "
        "repeated,\n"
        "                         the last one that matches counts. A full name also reaches what stays precise\n"
        "  --keep PATTERN         leaves tensors as they are in IN, bit for bit; may be repeated, wins over --tensor\n"
        "  --output-type TYPE     of output.weight (of the embedding, where it is the output too)\n"
        "  --embedding-type TYPE  of token_embd.weight\n"
        "  --allow-requantize     takes a source that is quantised already; worse than from the original\n"
        "  --no-verify            does not read the file back\n"
        "  --dry-run              says what would become of each tensor, and the size; writes nothing (no OUT needed)\n"
        "  --threads N            default one a core\n"
        "  --json                 one JSON object\n\n"
        "Examples:\n"
        "  pare quantize llama-f16.gguf llama-q4.gguf --type q4_k_m\n"
        "  pare quantize in.gguf out.gguf --type q4_k_m --tensor 'blk.0.*=q8_0' --tensor '*ffn_down*=q6_k'\n"
        "  pare quantize in.gguf --type q3_k_m --dry-run\n"};

typedef struct choices {
    const char *in, *out, *type, *output, *embedding;
    option_list tensors, keeps;
    bool        requantize, no_verify, dry_run, json;
    int64_t     threads;
} choices;

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t stopped; /* the signal's number */

static void stop(int number) {
    stopped = number;
}

static bool progress(void *arg, const char *what, double done) {
    (void)arg;
    cli_progress(what, done);
    return stopped == 0;
}

/* ---- rules ---- */

static bool format_named(const char *option, const char *name, const block_format **out, err *e) {
    *out = name ? block_format_named(name) : NULL;
    return !name || *out ||
           err_set(e, ERR_INVALID, "%s takes a block format such as q8_0, q6_k or f16, not \"%.60s\".", option, name);
}

typedef struct rules {
    quantize_rule list[2 * 64];
    char         *patterns[64]; /* of --tensor */
    int           n;
} rules;

static bool read_rules(const choices *c, rules *r, err *e) {
    for (int i = 0; i < c->tensors.n; i++) {
        const char *equals = strrchr(c->tensors.texts[i], '=');
        if (!equals || equals == c->tensors.texts[i]) {
            return err_set(e, ERR_INVALID, "--tensor takes PATTERN=TYPE, not \"%.100s\".", c->tensors.texts[i]);
        }
        quantize_rule *rule = &r->list[r->n];
        r->patterns[i] = strndup(c->tensors.texts[i], (size_t)(equals - c->tensors.texts[i]));
        if (!r->patterns[i]) {
            return err_set(e, ERR_MEMORY, "Out of memory.");
        }
        rule->pattern = r->patterns[i];
        r->n++;
        if (!format_named("--tensor", equals + 1, &rule->to, e)) {
            return false;
        }
    }
    for (int i = 0; i < c->keeps.n; i++) {
        r->list[r->n++] = (quantize_rule){.pattern = c->keeps.texts[i]};
    }
    return true;
}

/* ---- telling ---- */

static int64_t values_of(const gguf_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

static void shape_text(const gguf_tensor *t, char *out, size_t size) {
    size_t n = 0;
    for (int d = 0; d < t->dims && n < size; d++) {
        n += (size_t)snprintf(out + n, size - n, "%s%" PRId64, d ? " x " : "", t->shape[d]);
    }
}

static double bits(const quantize_plan *plan, uint64_t bytes) {
    return plan->values ? 8.0 * (double)bytes / (double)plan->values : 0;
}

static void print_plan(const quantize_plan *plan) {
    size_t wide = 6;
    for (size_t i = 0; i < plan->count; i++) {
        size_t n = strlen(plan->items[i].from->name);
        wide = n > wide ? n : wide;
    }
    printf("%-*s  %-22s %-7s %-7s %13s\n", (int)wide, "tensor", "shape", "from", "to", "bytes");
    for (size_t i = 0; i < plan->count; i++) {
        const quantize_item *x = &plan->items[i];
        char                 shape[100];
        shape_text(x->from, shape, sizeof shape);
        printf("%-*s  %-22s %-7s %-7s %13zu", (int)wide, x->from->name, shape, x->from->format->name, x->to->name,
               x->bytes);
        if (x->why[0]) {
            printf("  (%s)", x->why);
        }
        if (x->to != x->wanted) {
            printf("  (rows of %" PRId64 " do not divide into %s)", x->from->shape[0], x->wanted->name);
        }
        putchar('\n');
    }
}

/* "f32 9, q4_k 12, ..." and what fell back. */
static void print_types(const quantize_plan *plan) {
    const char *comma = "";
    printf("  %zu tensors:", plan->count);
    for (int type = 0; type < 256; type++) {
        size_t n = 0;
        for (size_t i = 0; i < plan->count; i++) {
            n += (int)plan->items[i].to->type == type;
        }
        if (n) {
            printf("%s %s %zu", comma, block_format_of(type)->name, n);
            comma = ",";
        }
    }
    putchar('\n');
    for (size_t i = 0, told = 0; plan->fallbacks && i < plan->count; i++) {
        const quantize_item *x = &plan->items[i];
        if (x->to == x->wanted) {
            continue;
        }
        if (told++ == 8) {
            printf("  and %zu more\n", plan->fallbacks - 8);
            break;
        }
        printf("  %s became %s: its rows of %" PRId64 " values do not divide into blocks of %s\n", x->from->name,
               x->to->name, x->from->shape[0], x->wanted->name);
    }
}

/* Over all tensors that changed, and the worst of them; -1: none did. */
static double overall(const quantize_plan *plan, const quantize_error *errors, int *worst) {
    double error = 0, source = 0;
    *worst = -1;
    for (size_t i = 0; i < plan->count; i++) {
        const quantize_item *x = &plan->items[i];
        double               n = (double)values_of(x->from);
        if (x->to == x->from->format) {
            continue;
        }
        error += errors[i].rms * errors[i].rms * n;
        source += errors[i].source_rms * errors[i].source_rms * n;
        if (*worst < 0 || quantize_relative(&errors[i]) > quantize_relative(&errors[*worst])) {
            *worst = (int)i;
        }
    }
    return source > 0 ? sqrt(error / source) : 0;
}

static void print_summary(const choices *c, const quantize_plan *plan, const quantize_error *errors) {
    printf("%s: %.1f MB of weights, %.2f bits a weight; %s: %.1f MB, %.2f bits\n", c->in,
           (double)plan->from_bytes / 1e6, bits(plan, plan->from_bytes), c->dry_run ? c->type : c->out,
           (double)plan->bytes / 1e6, bits(plan, plan->bytes));
    print_types(plan);
    int worst;
    if (errors) {
        double all = overall(plan, errors, &worst);
        printf("  verified: RMS error %.3f %% of the weights' RMS", 100 * all);
        if (worst >= 0) {
            printf("; worst %s (%s) %.3f %%", plan->items[worst].from->name, plan->items[worst].to->name,
                   100 * quantize_relative(&errors[worst]));
        }
        putchar('\n');
    }
}

static void add_json_tensor(str *s, const quantize_item *x, const quantize_error *q) {
    str_adds(s, "{\"name\":");
    str_jsons(s, x->from->name);
    str_adds(s, ",\"shape\":[");
    for (int d = 0; d < x->from->dims; d++) {
        str_addf(s, "%s%" PRId64, d ? "," : "", x->from->shape[d]);
    }
    str_addf(s, "],\"from\":\"%s\",\"to\":\"%s\",\"wanted\":\"%s\",\"bytes\":%zu,\"reason\":\"%s\"",
             x->from->format->name, x->to->name, x->wanted->name, x->bytes, x->why);
    if (q) {
        str_addf(s, ",\"rms\":%.9g,\"source_rms\":%.9g,\"largest\":%.9g", q->rms, q->source_rms, q->largest);
        if (isfinite(quantize_relative(q))) {
            str_addf(s, ",\"relative\":%.9g", quantize_relative(q));
        }
    }
    str_adds(s, "}");
}

static void print_json(const choices *c, const quantize_plan *plan, const quantize_error *errors) {
    str s = {0};
    int worst;
    str_adds(&s, "{\"in\":");
    str_jsons(&s, c->in);
    str_adds(&s, ",\"out\":");
    str_jsons(&s, c->dry_run ? NULL : c->out);
    str_addf(&s,
             ",\"type\":\"%s\",\"file_type\":%d,\"values\":%" PRId64 ",\"from_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64
             ",\"bits_per_weight\":%.4f,\"fallbacks\":%zu,\"verified\":%s",
             c->type, plan->file_type, plan->values, plan->from_bytes, plan->bytes, bits(plan, plan->bytes),
             plan->fallbacks, errors ? "true" : "false");
    if (errors) {
        str_addf(&s, ",\"relative_rms\":%.9g", overall(plan, errors, &worst));
        str_adds(&s, ",\"worst\":");
        str_jsons(&s, worst < 0 ? NULL : plan->items[worst].from->name);
    }
    str_adds(&s, ",\"tensors\":[");
    for (size_t i = 0; i < plan->count; i++) {
        str_adds(&s, i ? "," : "");
        add_json_tensor(&s, &plan->items[i], errors ? &errors[i] : NULL);
    }
    str_adds(&s, "]}\n");
    fwrite(s.data ? s.data : "", 1, s.len, stdout);
    str_free(&s);
}

/* ---- the work ---- */

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool write_out(const choices *c, const quantize_plan *plan, quantize_error *errors, err *e) {
    struct sigaction catch = {.sa_handler = stop}, before[3];
    const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    pool     *p = pool_new((int)c->threads, e);
    if (!p) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        sigaction(signals[i], &catch, &before[i]);
    }
    quantize_job job = {.p = p, .progress = progress, .errors = errors};
    bool         ok = quantize_write(plan, c->out, &job, e);
    cli_progress_end();
    for (int i = 0; i < 3; i++) {
        sigaction(signals[i], &before[i], NULL);
    }
    pool_free(p);
    if (stopped && !ok) {
        raise(stopped); /* who started us sees that a signal ended it */
    }
    return ok;
}

static bool carry_out(const choices *c, const quantize_plan *plan, err *e) {
    quantize_error *errors = NULL;
    if (c->dry_run) {
        if (c->json) {
            print_json(c, plan, NULL);
        } else {
            print_plan(plan);
            print_summary(c, plan, NULL);
        }
        return true;
    }
    if (!c->no_verify) {
        errors = calloc(plan->count + 1, sizeof *errors);
        if (!errors) {
            return err_set(e, ERR_MEMORY, "Out of memory.");
        }
    }
    bool ok = write_out(c, plan, errors, e);
    if (ok) {
        (c->json ? print_json : print_summary)(c, plan, errors);
    }
    free(errors);
    return ok;
}

static bool quantize(const choices *c, err *e) {
    rules            r = {0};
    quantize_options o = {.type = c->type, .rules = r.list, .allow_requantize = c->requantize};
    bool             ok = read_rules(c, &r, e) && format_named("--output-type", c->output, &o.output, e) &&
              format_named("--embedding-type", c->embedding, &o.embedding, e);
    o.rule_count = (size_t)r.n;
    gguf          *g = ok ? gguf_open(c->in, e) : NULL;
    quantize_plan *plan = g ? quantize_plan_new(g, &o, e) : NULL;
    if (plan && !c->dry_run && same_file(c->in, c->out)) {
        ok = err_set(e, ERR_INVALID, "%s is the source itself; name another file to write.", c->out);
    } else {
        ok = plan && carry_out(c, plan, e);
    }
    quantize_plan_free(plan);
    gguf_close(g);
    for (int i = 0; i < c->tensors.n; i++) {
        free(r.patterns[i]);
    }
    return ok;
}

static int run(int argc, char **argv) {
    static choices   c;
    const char      *words[2];
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--type", OPTION_TEXT, &c.type},
                               {"--tensor", OPTION_LIST, &c.tensors},
                               {"--keep", OPTION_LIST, &c.keeps},
                               {"--output-type", OPTION_TEXT, &c.output},
                               {"--embedding-type", OPTION_TEXT, &c.embedding},
                               {"--allow-requantize", OPTION_FLAG, &c.requantize},
                               {"--no-verify", OPTION_FLAG, &c.no_verify},
                               {"--dry-run", OPTION_FLAG, &c.dry_run},
                               {"--threads", OPTION_INT, &c.threads, 0, 512},
                               {"--json", OPTION_FLAG, &c.json},
                               {0}};
    if (!cli_options(&command_quantize, argc, argv, rows, words, 2, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    c.in = n_words > 0 ? words[0] : NULL;
    c.out = n_words > 1 ? words[1] : NULL;
    if (!c.in || (!c.out && !c.dry_run) || !c.type) {
        return cli_usage(&command_quantize, "A source, a file to write and --type are needed.");
    }
    err e = {0};
    return quantize(&c, &e) ? EXIT_DONE : cli_fail(&e);
}
