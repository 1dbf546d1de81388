/* Every architecture against reference.h: small random models, whole sequences. A table of mutants shows that each
 * trait matters: the reference without it is far from the reference with it, so a model run without it would fail. */
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

#include "engine/forward.h"
#include "engine/kv.h"
#include "engine/reference.h"
#include "engine/reference_archs.h"
#include "model/arch.h"
#include "tensor/kernels.h"

enum { TOKENS = 60 };
#define CLOSE 1e-4 /* the largest deviation, relative to the size of all values */
#define FAR   1e-3

/* ---- mutants ---- */

static void no_rope(spec *s) {
    s->rotate = ROTATE_NONE;
}
static void other_rope(spec *s) {
    s->rotate = s->rotate == ROTATE_HALVES ? ROTATE_NEIGHBOURS : ROTATE_HALVES;
}
static void other_base(spec *s) {
    s->rope_base *= 2;
}
static void whole_rope(spec *s) {
    s->rope_dim = s->head_dim;
}
static void no_scaling(spec *s) {
    s->scaling = STRETCH_NONE;
}
static void linear(spec *s) {
    s->scaling = STRETCH_LINEAR;
}
static void no_yarn_length(spec *s) {
    s->rope_attn = 1 / (1 + 0.1 * log(s->factor));
}
static void other_betas(spec *s) {
    s->beta_fast *= 8;
}
static void no_freqs(spec *s) {
    s->rope_freqs = false;
}
static void other_factors(spec *s) {
    s->used_context = s->used_context > s->original ? s->original : s->original + 1;
}
static void no_rope_length(spec *s) {
    s->rope_attn = 1;
}
static void same_base(spec *s) {
    s->local_base = 0;
}
static void scale_all(spec *s) {
    s->local_plain = false;
}
static void rope_everywhere(spec *s) {
    s->no_rope_every = 0;
}
static void no_window(spec *s) {
    s->window = 0;
}
static void wider_window(spec *s) {
    s->window++;
}
static void all_windows(spec *s) {
    s->window_every = 1;
}
static void no_attn_cap(spec *s) {
    s->attn_cap = 0;
}
static void no_logit_cap(spec *s) {
    s->logit_cap = 0;
}
static void no_embedding_scale(spec *s) {
    s->embedding_scale = 1;
}
static void no_residual_scale(spec *s) {
    s->residual_scale = 1;
}
static void no_logit_scale(spec *s) {
    s->logit_scale = 1;
}
static void no_query_scale(spec *s) {
    s->query_scale = 0;
}
static void no_clamp(spec *s) {
    s->clamp = 0;
}
static void no_qk_norm(spec *s) {
    s->qk = HEADS_PLAIN;
}
static void no_qkv_bias(spec *s) {
    s->qkv_bias = false;
}
static void no_o_bias(spec *s) {
    s->o_bias = false;
}
static void no_ffn_bias(spec *s) {
    s->ffn_bias = false;
}
static void no_output_bias(spec *s) {
    s->output_bias = false;
}
static void no_norm_bias(spec *s) {
    s->norm_bias = false;
}
static void rms(spec *s) {
    s->layer_norm = false;
}
static void other_renorm(spec *s) {
    s->renorm = !s->renorm;
}
static void one_expert(spec *s) {
    s->used = 1;
}
static void no_shared(spec *s) {
    s->shared_ffn = 0;
}
static void no_shared_gate(spec *s) {
    s->shared_gate = false;
}
static void other_order(spec *s) {
    s->parallel = !s->parallel;
}
static void other_act(spec *s) {
    s->act = s->act == USE_SILU ? USE_GELU_ERF : USE_SILU;
}
static void other_gelu(spec *s) {
    s->act = s->act == USE_GELU_ERF ? USE_GELU_TANH : USE_GELU_ERF;
}
static void gelu(spec *s) {
    s->act = USE_GELU_ERF;
}
static void no_norm_around(spec *s) {
    s->norms = NORMS_BEFORE;
}
static void no_positions(spec *s) {
    s->positions = false;
}
static void no_types(spec *s) {
    s->token_types = false;
}
static void one_window_more(spec *s) { /* the global layer one too late */
    s->window_every++;
}

typedef struct mutant {
    const char *name; /* of the case */
    const char *what;
    void (*change)(spec *);
    double far; /* 0: FAR */
} mutant;

#define GELUS 4e-4 /* the two kinds of GELU differ by 5e-4 at most */

static const mutant mutants[] = {
    {"llama", "other rope", other_rope},
    {"llama", "other base", other_base},
    {"llama-bias", "no q, k, v biases", no_qkv_bias},
    {"llama-bias", "no o bias", no_o_bias},
    {"llama-bias", "no biases in the feed-forward part", no_ffn_bias},
    {"llama-fused", "no rope", no_rope},
    {"llama-linear", "no scaling", no_scaling},
    {"llama-yarn", "no scaling", no_scaling},
    {"llama-yarn", "linear", linear},
    {"llama-yarn", "no attention factor", no_yarn_length},
    {"llama-yarn", "another beta_fast", other_betas},
    {"llama-3.1", "no factors", no_freqs},
    {"mixtral", "shares not renormalised", other_renorm},
    {"mixtral", "one expert", one_expert},
    {"qwen2", "no biases", no_qkv_bias},
    {"qwen2", "other rope", other_rope},
    {"qwen2-yarn", "no attention factor", no_yarn_length},
    {"qwen2-yarn", "linear", linear},
    {"qwen3", "no norm of heads", no_qk_norm},
    {"qwen3", "other rope", other_rope},
    {"qwen2moe", "shares renormalised", other_renorm},
    {"qwen2moe", "no shared expert", no_shared},
    {"qwen2moe", "no gate of the shared expert", no_shared_gate},
    {"qwen2moe", "no biases", no_qkv_bias},
    {"qwen3moe", "shares not renormalised", other_renorm},
    {"qwen3moe", "no norm of heads", no_qk_norm},
    {"qwen3moe-fused", "one expert", one_expert},
    {"gemma", "no scale of embeddings", no_embedding_scale},
    {"gemma", "silu", other_act},
    {"gemma", "other rope", other_rope},
    {"gemma2", "no window", no_window},
    {"gemma2", "a window one wider", wider_window},
    {"gemma2", "windows everywhere", all_windows},
    {"gemma2", "no cap of scores", no_attn_cap},
    {"gemma2", "no cap of logits", no_logit_cap},
    {"gemma2", "no norms after", no_norm_around},
    {"gemma2", "no scale of embeddings", no_embedding_scale},
    {"gemma2-27b", "the usual scale of queries", no_query_scale},
    {"gemma3", "no norm of heads", no_qk_norm},
    {"gemma3", "no window", no_window},
    {"gemma3", "a window one wider", wider_window},
    {"gemma3", "windows everywhere", all_windows},
    {"gemma3", "the global layer one later", one_window_more},
    {"gemma3", "one base", same_base},
    {"gemma3", "scaling everywhere", scale_all},
    {"gemma3", "no scaling", no_scaling},
    {"gemma3-27b", "the usual scale of queries", no_query_scale},
    {"phi3", "no window", no_window},
    {"phi3", "a window one wider", wider_window},
    {"phi3-long", "the short factors", other_factors},
    {"phi3-long", "no attention factor", no_rope_length},
    {"phi3-long", "other rope", other_rope},
    {"phi3-short", "the long factors", other_factors},
    {"gpt2", "no positions", no_positions},
    {"gpt2", "the other gelu", other_gelu, GELUS},
    {"gpt2", "RMS norms", rms},
    {"gpt2", "no biases of norms", no_norm_bias},
    {"starcoder", "no positions", no_positions},
    {"starcoder", "no q, k, v biases", no_qkv_bias},
    {"starcoder2", "no window", no_window},
    {"starcoder2", "no o bias", no_o_bias},
    {"starcoder2", "silu", other_act},
    {"olmo", "RMS norms", rms},
    {"olmo", "no clamp", no_clamp},
    {"olmo2", "no norm of heads", no_qk_norm},
    {"olmo2", "other rope", other_rope},
    {"olmo3", "no window", no_window},
    {"olmo3", "windows everywhere", all_windows},
    {"olmo3", "scaling everywhere", scale_all},
    {"olmo3", "no attention factor", no_yarn_length},
    {"olmoe", "shares renormalised", other_renorm},
    {"olmoe", "no norm of heads", no_qk_norm},
    {"smollm3", "rope everywhere", rope_everywhere},
    {"granite", "no scale of embeddings", no_embedding_scale},
    {"granite", "no scale of residuals", no_residual_scale},
    {"granite", "no scale of logits", no_logit_scale},
    {"granite", "no scale of scores", no_query_scale},
    {"granite-4", "no scale of residuals", no_residual_scale},
    {"granitemoe", "no shared expert", no_shared},
    {"granitemoe", "shares not renormalised", other_renorm},
    {"granitemoe", "no scale of residuals", no_residual_scale},
    {"internlm2", "other rope", other_rope},
    {"exaone", "other rope", other_rope},
    {"exaone", "no factors", no_freqs},
    {"qwen", "no biases", no_qkv_bias},
    {"qwen", "other rope", other_rope},
    {"stablelm", "parallel", other_order},
    {"stablelm", "whole heads turn", whole_rope},
    {"stablelm-12b", "sequential", other_order},
    {"phi2", "sequential", other_order},
    {"phi2", "whole heads turn", whole_rope},
    {"phi2", "no bias of logits", no_output_bias},
    {"phi2-separate", "no q, k, v biases", no_qkv_bias},
    {"gptneox", "sequential", other_order},
    {"gptneox", "the other gelu", other_gelu, GELUS},
    {"gptneox-sequential", "parallel", other_order},
    {"gptneox-sequential", "whole heads turn", whole_rope},
    {"command-r", "sequential", other_order},
    {"command-r", "no scale of logits", no_logit_scale},
    {"command-r", "RMS norms", rms},
    {"command-r", "other rope", other_rope},
    {"nemotron", "gelu", gelu},
    {"nemotron", "whole heads turn", whole_rope},
    {"bert", "no positions", no_positions},
    {"bert", "no token types", no_types},
    {"bert", "the other gelu", other_gelu, GELUS},
    {"bert-fused", "no q, k, v biases", no_qkv_bias},
    {"nomic-bert", "no rope", no_rope},
    {"nomic-bert", "no token types", no_types},
    {"nomic-bert", "gelu", gelu},
};

/* ---- running ---- */

typedef struct bed {
    const spec *s;
    str         file;
    gguf       *g;
    int         ids[TOKENS], width;
} bed;

static void open_bed(bed *b, const reference_case *c) {
    err      e = {0};
    uint64_t seed = 7;
    *b = (bed){.s = &c->s, .width = c->s.both_ways ? c->s.dim : SPEC_VOCAB};
    assert_ok(random_model_build(&c->s, c->more, 42, &b->file, &e), e);
    b->g = gguf_open_memory(c->s.name, b->file.data, b->file.len, &e);
    assert_ok(b->g, e);
    for (int i = 0; i < TOKENS; i++)
        b->ids[i] = (int)(test_random(&seed) % SPEC_VOCAB);
}

static void close_bed(bed *b) {
    gguf_close(b->g);
    str_free(&b->file);
}

/* NaN when one of them is. */
static double larger(double a, double b) {
    return a >= b || isnan(a) ? a : b;
}

/* The largest deviation, relative to the root mean square of what is expected. */
static double deviation(const double *want, const double *got, size_t n) {
    double square = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        square += want[i] * want[i] / (double)n;
        most = larger(most, fabs(want[i] - got[i]));
    }
    return most / sqrt(square);
}

/* Rows as doubles, `chunk` tokens a pass. */
static void run_chunks(const bed *b, forward *f, kv_cache *kv, int n, int chunk, double *out) {
    forward_token batch[TOKENS];
    for (int at = 0, some; at < n; at += some) {
        some = n - at < chunk ? n - at : chunk;
        for (int i = 0; i < some; i++)
            batch[i] = (forward_token){b->ids[at + i], 0, at + i, true};
        const float *rows = forward_run(f, kv, batch, some);
        for (size_t i = 0; i < (size_t)some * (size_t)b->width; i++)
            *out++ = (double)rows[i];
    }
}

/* What the engine gives for the first n tokens, malloc'd; NULL when it refuses the model. */
static double *run_engine(const bed *b, int n, int chunk) {
    err     e = {0};
    pool   *p = pool_new(1, &e);
    model  *m = model_open(NULL, b->file.data, b->file.len, p, &e);
    int32_t ids[TOKENS];
    if (!m) {
        print_message("%s: %s\n", b->s->name, e.text);
        pool_free(p);
        return NULL;
    }
    kv_cache *kv = kv_open(&m->shape, &(kv_options){.type = KV_F32, .sequences = 1, .context = TOKENS}, &e);
    forward  *f = forward_new(m, p, TOKENS, TOKENS, &e);
    assert_ok(kv && f, e);
    for (int i = 0; i < n; i++)
        ids[i] = b->ids[i];
    if (b->s->used_context)
        forward_set_context(f, b->s->used_context);
    kv_begin(kv, 0, (kv_scope){{1}}, ids, n, false);
    assert_true(kv_reserve(kv, 0, n));
    double *out = malloc((size_t)n * (size_t)b->width * sizeof *out);
    assert_non_null(out);
    run_chunks(b, f, kv, n, chunk, out);
    forward_free(f);
    kv_close(kv);
    model_close(m);
    pool_free(p);
    return out;
}

static void engine_gives_what_the_reference_gives(void **state) {
    (void)state;
    static const int lengths[] = {1, 17, TOKENS, TOKENS}, chunks[] = {1, 17, TOKENS, 11};
    int              wrong = 0;
    double           most = 0;
    for (size_t i = 0; i < REFERENCE_CASES; i++) {
        bed b;
        open_bed(&b, &reference_cases[i]);
        double worst = 0;
        for (size_t l = 0; l < 4; l++) {
            double *want = ref_run(b.s, b.g, b.ids, lengths[l]),
                   *got = run_engine(&b, lengths[l], b.s->both_ways ? TOKENS : chunks[l]);
            double off = got ? deviation(want, got, (size_t)lengths[l] * (size_t)b.width) : INFINITY;
            worst = larger(worst, off);
            free(want);
            free(got);
        }
        if (!(worst <= CLOSE)) {
            print_message("%s, %s: the deviation is %.1e\n", b.s->name, kernels_get()->name, worst);
            wrong++;
        }
        most = larger(most, worst);
        close_bed(&b);
    }
    print_message("%zu models, %s: the largest deviation is %.1e\n", REFERENCE_CASES, kernels_get()->name, most);
    assert_int_equal(wrong, 0);
}

/* ---- the reference itself ---- */

static void every_trait_matters(void **state) {
    (void)state;
    int vain = 0;
    for (size_t i = 0; i < REFERENCE_CASES; i++) {
        bed b;
        int tried = 0;
        open_bed(&b, &reference_cases[i]);
        double *want = ref_run(b.s, b.g, b.ids, TOKENS);
        for (size_t k = 0; k < sizeof mutants / sizeof *mutants; k++) {
            if (strcmp(mutants[k].name, b.s->name) != 0)
                continue;
            spec changed = *b.s;
            mutants[k].change(&changed);
            double *got = ref_run(&changed, b.g, b.ids, TOKENS);
            double  far = deviation(want, got, (size_t)TOKENS * (size_t)b.width);
            if (!(far > (mutants[k].far > 0 ? mutants[k].far : FAR))) {
                print_message("%s, %s: the deviation is only %.1e\n", b.s->name, mutants[k].what, far);
                vain++;
            }
            free(got);
            tried++;
        }
        free(want);
        if (!tried)
            fail_msg("%s has no mutant", b.s->name);
        close_bed(&b);
    }
    assert_int_equal(vain, 0);
}

static void every_architecture_has_a_case(void **state) {
    (void)state;
    for (int i = 0; arch_at(i); i++) {
        bool found = false;
        for (size_t c = 0; c < REFERENCE_CASES; c++)
            found |= strcmp(reference_cases[c].s.arch, arch_at(i)->name) == 0;
        if (!found)
            fail_msg("%s has no case", arch_at(i)->name);
    }
}

/* ---- what files say, and what they leave out ---- */

static const reference_case *case_named(const char *name) {
    for (size_t i = 0; i < REFERENCE_CASES; i++)
        if (strcmp(reference_cases[i].s.name, name) == 0)
            return &reference_cases[i];
    fail_msg("no case %s", name);
    return NULL;
}

/* NULL when it is refused; the sentence is in *e. */
static model *open_case(const spec *s, void (*more)(const random_model *), err *e) {
    str file = {0};
    assert_ok(random_model_build(s, more, 1, &file, e), *e);
    model *m = model_open(NULL, file.data, file.len, NULL, e);
    str_free(&file);
    return m;
}

/* Older files do not tell the window that their models have. */
static void windows_that_files_leave_out(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int         layers, context, window;
    } cases[] = {
        {"gemma2", 3, 8192, 4096}, {"starcoder2", 3, 16384, 4096}, {"phi3", 32, 4096, 2047}, {"phi3", 40, 4096, 2047},
        {"phi3", 32, 16384, 0},    {"gemma3", 3, 8192, 0},         {"olmo3", 5, 8192, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err  e = {0};
        spec s = case_named(cases[i].name)->s;
        s.layers = cases[i].layers;
        s.context = cases[i].context;
        s.window_unsaid = true;
        model *m = open_case(&s, NULL, &e);
        assert_ok(m, e);
        assert_int_equal(m->shape.window, cases[i].window);
        model_close(m);
    }
}

static void keys_no_window(const random_model *m) {
    random_int(m, "attention.sliding_window", 0); /* Phi-4 */
}

static void a_window_of_none_is_none(void **state) {
    (void)state;
    static const char *const names[] = {"gemma2", "starcoder2", "phi3", "olmo3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        err  e = {0};
        spec s = case_named(names[i])->s;
        s.window_unsaid = true;
        model *m = open_case(&s, keys_no_window, &e);
        assert_ok(m, e);
        assert_int_equal(m->shape.window, 0);
        model_close(m);
    }
}

static void keys_dense(const random_model *m) { /* of a converter that asks every config.json for experts */
    random_int(m, "vocab_size", SPEC_VOCAB);
    random_int(m, "expert_count", 0);
    random_int(m, "expert_used_count", 2);
    random_int(m, "expert_group_count", 0);
    random_int(m, "expert_group_used_count", 0);
    gguf_write_text(m->w, random_key(m, "rope.scaling.type"), "none");
}

static void keys_swa(const random_model *m) {
    gguf_write_float(m->w, random_key(m, "rope.freq_base_swa"), GGUF_F32, 10000);
    random_int(m, "attention.sliding_window_pattern", 6);
}

static void keys_labels(const random_model *m) {
    const gguf_str label = {"LABEL_0", 7};
    gguf_write_bool(m->w, random_key(m, "attention.causal"), false);
    gguf_write_strings(m->w, random_key(m, "classifier.output_labels"), &label, 1);
}

static void keys_long(const random_model *m) {
    random_int(m, "attention.sliding_window", 262144);
    gguf_write_text(m->w, random_key(m, "rope.scaling.type"), "longrope");
}

static void keys_yarn(const random_model *m) {
    gguf_write_float(m->w, random_key(m, "rope.scaling.yarn_ext_factor"), GGUF_F32, 1);
    gguf_write_float(m->w, random_key(m, "rope.scaling.yarn_attn_factor"), GGUF_F32, 1);
    gguf_write_float(m->w, random_key(m, "rope.scaling.yarn_log_multiplier"), GGUF_F32, 0);
    gguf_write_bool(m->w, random_key(m, "rope.scaling.finetuned"), false);
}

static void keys_softmax(const random_model *m) {
    random_int(m, "expert_gating_func", 1);
    gguf_write_bool(m->w, random_key(m, "expert_weights_norm"), true);
    gguf_write_float(m->w, random_key(m, "expert_weights_scale"), GGUF_F32, 1);
}

static void settings_of_files_in_use_are_taken(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*more)(const random_model *);
    } cases[] = {
        {"llama", keys_dense},     {"qwen2", keys_dense},      {"qwen3", keys_dense},     {"gemma3", keys_swa},
        {"bert", keys_labels},     {"phi3-long", keys_long},   {"llama-yarn", keys_yarn}, {"qwen2-yarn", keys_yarn},
        {"mixtral", keys_softmax}, {"qwen3moe", keys_softmax},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err  e = {0};
        spec s = case_named(cases[i].name)->s;
        s.both_ways = false; /* the key stands in keys_labels */
        if (strcmp(s.arch, "bert") == 0)
            s.tied = true; /* no output */
        model *m = open_case(&s, cases[i].more, &e);
        if (!m)
            fail_msg("%s: %s", cases[i].name, e.text);
        model_close(m);
    }
}

static void keys_nope(const random_model *m) {
    keys_granite(m);
    gguf_write_bool(m->w, random_key(m, "rope.scaling.finetuned"), false);
}

static void keys_uneven(const random_model *m) {
    const int32_t kv[] = {6, 3, 6};
    keys_granite(m);
    gguf_write_array(m->w, random_key(m, "attention.head_count_kv"), GGUF_I32, kv, 3);
}

static void keys_short(const random_model *m) {
    const int32_t kv[] = {6, 6};
    keys_granite(m);
    gguf_write_array(m->w, random_key(m, "attention.head_count_kv"), GGUF_I32, kv, 2);
}

static void keys_none(const random_model *m) {
    keys_granite(m);
    gguf_write_array(m->w, random_key(m, "attention.head_count_kv"), GGUF_I32, NULL, 0);
}

static void what_changes_the_answer_is_refused(void **state) {
    (void)state;
    static const struct {
        void (*more)(const random_model *);
        const char *why;
    } cases[] = {{keys_nope, "no rope"},
                 {keys_uneven, "from layer to layer"},
                 {keys_short, "for each layer"},
                 {keys_none, "for each layer"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err e = {0};
        assert_null(open_case(&case_named("granite-4")->s, cases[i].more, &e));
        assert_says(e, cases[i].why);
    }
}

/* The kernels are chosen once in a process, so each instruction set has its own. */
static int in_child(const char *isa) {
    pid_t child = fork();
    if (child == 0) {
        setenv("PARE_ISA", isa, 1);
        const struct CMUnitTest tests[] = {cmocka_unit_test(engine_gives_what_the_reference_gives)};
        exit(cmocka_run_group_tests_name(isa, tests, NULL, NULL));
    }
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void) {
    static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
    const struct CMUnitTest  tests[] = {
         cmocka_unit_test(every_architecture_has_a_case),      cmocka_unit_test(every_trait_matters),
         cmocka_unit_test(windows_that_files_leave_out),       cmocka_unit_test(a_window_of_none_is_none),
         cmocka_unit_test(settings_of_files_in_use_are_taken), cmocka_unit_test(what_changes_the_answer_is_refused)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (kernels_named(sets[i]))
            failed += in_child(sets[i]);
    return failed;
}
