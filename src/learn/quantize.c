/* quantize.c - the plan: what becomes of each tensor, and why. */
#include "learn/quantize.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "learn/quantize_mix.h"

enum { TINY_VALUES = 1024 };

const char *quantize_type_name(int i) {
    const mix *m = mix_at(i);
    return m ? mix_name(m) : NULL;
}

const char *quantize_type_about(int i) {
    const mix *m = mix_at(i);
    return m ? mix_about(m) : NULL;
}

static const mix *type_named(const char *name, err *e) {
    const mix *m = mix_named(name);
    if (m)
        return m;
    char   known[300];
    size_t n = 0;
    for (int i = 0; mix_at(i) && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s, ", mix_name(mix_at(i)));
    err_set(e, ERR_INVALID,
            "\"%.40s\" is no type; there are %sand every block format by its name (f32, f16, bf16, q8_0, q4_0, q4_k, "
            "q6_k and so on)",
            name, known);
    return NULL;
}

/* ---- what stays precise ---- */

typedef struct precise {
    const char *part; /* of a name */
    const char *why;
} precise;

/* llama.cpp leaves the same ones alone (src/llama-quant.cpp): small, and the whole model hangs on them. */
static const precise kept[] = {
    {"_norm.weight", "norm"},
    {"ffn_gate_inp", "router of experts"},
    {"position_embd", "positions"},
    {"token_types", "token types"},
    {"attn_rel_b", "positions"},
    {"rope_", "positions"},
    {"altup", "small projection"},
    {"laurel", "small projection"},
    {"per_layer_model_proj", "small projection"},
    {"ssm_conv1d", "recurrent part"},
    {"shortconv.conv", "recurrent part"},
    {"time_mix_first", "recurrent part"},
    {"time_mix_w", "recurrent part"},
    {"time_mix_v", "recurrent part"},
    {"time_mix_a", "recurrent part"},
    {"time_mix_g", "recurrent part"},
    {"time_mix_lerp", "recurrent part"},
    {"time_mix_decay", "recurrent part"},
};

static int64_t values_of(const gguf_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]; /* gguf.c has checked that it fits */
}

static bool one_dimension(const gguf_tensor *t) {
    return values_of(t) == t->shape[0];
}

/* Why the tensor keeps its precision; NULL: it is a matrix like others. */
static const char *precise_why(const gguf_tensor *t) {
    size_t n = strlen(t->name);
    if (one_dimension(t))
        return "one dimension";
    if (n < 6 || strcmp(t->name + n - 6, "weight") != 0)
        return "not a weight";
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(t->name, kept[i].part))
            return kept[i].why;
    return values_of(t) < TINY_VALUES ? "tiny" : NULL;
}

/* ---- the plan ---- */

typedef struct maker {
    const gguf             *g;
    const quantize_options *o;
    const mix              *type;
    mix_facts               facts;
    bool                   *matched; /* [rule_count] */
    err                    *e;
} maker;

static bool is_float(const block_format *f) {
    return f->values == 1;
}

/* A pattern spares what is kept precise; a full name says that it is meant. */
static const quantize_rule *rule_for(maker *m, const gguf_tensor *t, bool precise) {
    const quantize_rule *found = NULL;
    for (size_t i = 0; i < m->o->rule_count; i++) {
        const quantize_rule *r = &m->o->rules[i];
        bool                 named = strcmp(r->pattern, t->name) == 0;
        if (!named && fnmatch(r->pattern, t->name, 0) != 0)
            continue;
        m->matched[i] = true;
        if (named || !precise || !r->to)
            found = r;
    }
    return found;
}

static const block_format *embedding_format(const maker *m, const gguf_tensor *t) {
    bool embedding = strcmp(t->name, "token_embd.weight") == 0;
    if (embedding && m->o->embedding)
        return m->o->embedding;
    if (strcmp(t->name, "output.weight") == 0 || (embedding && m->facts.tied))
        return m->o->output;
    return NULL;
}

static const block_format *precise_format(const maker *m, const gguf_tensor *t) {
    bool f32 = one_dimension(t) || mix_type(m->type, &m->facts, t) == BLOCK_F32;
    return f32 && is_float(t->format) ? block_format_of(BLOCK_F32) : t->format;
}

static void choose(maker *m, quantize_item *x) {
    const gguf_tensor   *t = x->from;
    const char          *precise = precise_why(t);
    const quantize_rule *r = rule_for(m, t, precise != NULL);
    const block_format  *named = precise ? NULL : embedding_format(m, t);
    x->why = r ? (r->to ? "rule" : "kept") : precise ? precise : named ? "option" : "";
    if (r)
        x->wanted = r->to ? r->to : t->format;
    else if (precise)
        x->wanted = precise_format(m, t);
    else
        x->wanted = named ? named : block_format_of((int)mix_type(m->type, &m->facts, t));
    x->to = block_format_of((int)mix_fallback(x->wanted->type, t->shape[0]));
}

static bool check_source(const maker *m, const quantize_item *x) {
    const gguf_tensor *t = x->from;
    if (x->to == t->format || is_float(t->format) || is_float(x->to) || m->o->allow_requantize)
        return true;
    return err_set(
        m->e, ERR_INVALID,
        "%.150s: tensor %.80s is quantised already (%s). Quantising it again to %s adds a second error to the "
        "first, and the result is worse than from the original in F32, F16 or BF16; take that one, or "
        "--allow-requantize",
        gguf_name(m->g), t->name, t->format->name, x->to->name);
}

static bool plan_tensor(maker *m, quantize_plan *plan, size_t i) {
    quantize_item     *x = &plan->items[i];
    const gguf_tensor *t = x->from = gguf_tensor_at(m->g, i);
    size_t             row;
    if (!t->format)
        return err_set(m->e, ERR_UNSUPPORTED, "%.150s: tensor %.80s is of the GGUF type %d, which pare does not know",
                       gguf_name(m->g), t->name, t->type);
    choose(m, x);
    if (!check_source(m, x))
        return false;
    size_t rows = (size_t)(values_of(t) / t->shape[0]);
    if (!block_row_bytes(x->to, t->shape[0], &row) || row > (size_t)INT64_MAX / rows)
        return err_set(m->e, ERR_LIMIT, "tensor %.80s is too large as %s", t->name, x->to->name);
    x->bytes = row * rows;
    plan->fallbacks += x->to != x->wanted;
    plan->from_bytes += t->bytes;
    plan->bytes += x->bytes;
    plan->values += values_of(t);
    return true;
}

static bool check_rules(const maker *m) {
    for (size_t i = 0; i < m->o->rule_count; i++)
        if (!m->matched[i])
            return err_set(m->e, ERR_INVALID,
                           "%.150s: no tensor has a name like \"%.80s\"; pare show --tensors lists them",
                           gguf_name(m->g), m->o->rules[i].pattern);
    return true;
}

/* One part of a file that was split holds some of the tensors only. */
static bool check_whole(const gguf *g, err *e) {
    int64_t parts = 1, tensors;
    if (!gguf_int(g, "split.count", 2, INT32_MAX, &parts, NULL))
        return true;
    if (gguf_int(g, "split.tensors.count", 0, INT32_MAX, &tensors, NULL) && (size_t)tensors == gguf_tensor_count(g))
        return true;
    return err_set(e, ERR_UNSUPPORTED, "%.200s is one of %lld parts of a model; merge them into one file first",
                   gguf_name(g), (long long)parts);
}

quantize_plan *quantize_plan_new(const gguf *g, const quantize_options *o, err *e) {
    maker m = {.g = g, .o = o, .type = type_named(o->type, e), .e = e};
    if (!m.type || !check_whole(g, e))
        return NULL;
    m.facts = mix_facts_of(g);
    m.matched = calloc(o->rule_count + 1, sizeof *m.matched);
    quantize_plan *plan = calloc(1, sizeof *plan);
    size_t         count = gguf_tensor_count(g);
    if (plan)
        plan->items = calloc(count + 1, sizeof *plan->items);
    bool ok = m.matched && plan && plan->items;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for the list of %zu tensors", count);
    } else {
        plan->g = g;
        plan->count = count;
        plan->file_type = mix_file_type(m.type);
    }
    for (size_t i = 0; ok && i < count; i++)
        ok = plan_tensor(&m, plan, i);
    ok = ok && check_rules(&m);
    free(m.matched);
    if (!ok) {
        quantize_plan_free(plan);
        return NULL;
    }
    return plan;
}

void quantize_plan_free(quantize_plan *plan) {
    if (plan)
        free(plan->items);
    free(plan);
}
