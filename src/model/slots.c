#include "model/slots.h"

#include <stdio.h>
#include <stdlib.h>

enum { SLOTS_A_LAYER = 48, SLOTS_AN_EXPERT = 3, SLOTS_BESIDE = 16 };

/* Where slots are being added: the tensors of a layer, or (layer -1) those beside. */
typedef struct place {
    slots             *s;
    const model_shape *shape;
    int                layer;
} place;

static slot *add(const place *p, const char *name) {
    if (p->s->count == p->s->cap)
        return &p->s->list[p->s->cap]; /* one more than counts: never read */
    slot *x = &p->s->list[p->s->count++];
    if (p->layer < 0)
        snprintf(x->name, sizeof x->name, "%s", name);
    else
        snprintf(x->name, sizeof x->name, "blk.%d.%s", p->layer, name);
    return x;
}

static slot *want_matrix(const place *p, const char *name, matrix *m, int64_t rows, int64_t cols) {
    slot *x = add(p, name);
    x->m = m;
    x->rows = x->all = rows;
    x->cols = cols;
    return x;
}

static slot *want_vector(const place *p, const char *name, float **v, int64_t n) {
    slot *x = add(p, name);
    x->vector = v;
    x->rows = 1;
    x->cols = x->all = n;
    return x;
}

static void want_optional(const place *p, const char *name, float **v, int64_t n) {
    want_vector(p, name, v, n)->optional = true;
}

/* "NAME.weight" and perhaps "NAME.bias". */
static void want_norm(const place *p, const char *name, norm_weights *w, int64_t n) {
    char full[32];
    if (p->shape->arch->traits & TRAIT_NO_NORM_WEIGHT)
        return;
    snprintf(full, sizeof full, "%s.weight", name);
    want_vector(p, full, &w->weight, n);
    if (p->shape->arch->norm == NORM_RMS)
        return;
    snprintf(full, sizeof full, "%s.bias", name);
    want_optional(p, full, &w->bias, n);
}

/* ---- attention ---- */

static void want_separate(const place *p, layer_weights *l, int64_t q_rows, int64_t kv_rows) {
    bool need = arch_has(p->shape, TRAIT_QKV_BIAS);
    want_matrix(p, "attn_q.weight", &l->q, q_rows, p->shape->dim);
    want_matrix(p, "attn_k.weight", &l->k, kv_rows, p->shape->dim);
    want_matrix(p, "attn_v.weight", &l->v, kv_rows, p->shape->dim);
    want_vector(p, "attn_q.bias", &l->q_bias, q_rows)->optional = !need;
    want_vector(p, "attn_k.bias", &l->k_bias, kv_rows)->optional = !need;
    want_vector(p, "attn_v.bias", &l->v_bias, kv_rows)->optional = !need;
}

/* The rows of q, then those of k and v. */
static void want_fused(const place *p, layer_weights *l, int64_t q_rows, int64_t kv_rows) {
    matrix *const matrices[] = {&l->q, &l->k, &l->v};
    float **const biases[] = {&l->q_bias, &l->k_bias, &l->v_bias};
    const int64_t rows[] = {q_rows, kv_rows, kv_rows}, all = q_rows + 2 * kv_rows;
    for (int i = 0, first = 0; i < 3; first += (int)rows[i++]) {
        slot *w = want_matrix(p, "attn_qkv.weight", matrices[i], rows[i], p->shape->dim);
        slot *b = want_vector(p, "attn_qkv.bias", biases[i], rows[i]);
        b->optional = !arch_has(p->shape, TRAIT_QKV_BIAS);
        w->first = b->first = first;
        w->all = b->all = all;
    }
}

static void want_attention(const place *p, layer_weights *l) {
    const model_shape *m = p->shape;
    int64_t            q_rows = (int64_t)m->heads * m->head_dim, kv_rows = (int64_t)m->kv_heads * m->head_dim;
    if (m->fused_qkv)
        want_fused(p, l, q_rows, kv_rows);
    else
        want_separate(p, l, q_rows, kv_rows);
    want_matrix(p, "attn_output.weight", &l->o, m->dim, q_rows);
    want_optional(p, "attn_output.bias", &l->o_bias, m->dim);
    if (m->arch->qk != QK_NORM_NONE) {
        bool whole = m->arch->qk == QK_NORM_WHOLE;
        want_norm(p, "attn_q_norm", &l->q_norm, whole ? q_rows : m->head_dim);
        want_norm(p, "attn_k_norm", &l->k_norm, whole ? kv_rows : m->head_dim);
    }
}

/* ---- the feed-forward part ---- */

static void want_ffn(const place *p, ffn_weights *f, int64_t ffn) {
    const int64_t dim = p->shape->dim;
    if (arch_has(p->shape, TRAIT_FUSED_GATE)) {
        want_matrix(p, "ffn_up.weight", &f->gate, ffn, dim)->all = 2 * ffn;
        slot *up = want_matrix(p, "ffn_up.weight", &f->up, ffn, dim);
        up->first = ffn;
        up->all = 2 * ffn;
    } else {
        if (!arch_has(p->shape, TRAIT_PLAIN_FFN)) {
            want_matrix(p, "ffn_gate.weight", &f->gate, ffn, dim);
            want_optional(p, "ffn_gate.bias", &f->gate_bias, ffn);
        }
        want_matrix(p, "ffn_up.weight", &f->up, ffn, dim);
        want_optional(p, "ffn_up.bias", &f->up_bias, ffn);
    }
    want_matrix(p, "ffn_down.weight", &f->down, dim, ffn);
    want_optional(p, "ffn_down.bias", &f->down_bias, dim);
}

/* The `part`-th of the `parts` runs of rows that expert i has in the tensor of all experts. */
static void want_expert(const place *p, const char *name, matrix *m, int i, int part, int parts, int64_t rows,
                        int64_t cols) {
    slot *x = want_matrix(p, name, m, rows, cols);
    x->planes = p->shape->experts;
    x->first = (i * parts + part) * rows;
    x->all = rows * parts * x->planes;
}

static void want_experts(const place *p, layer_weights *l) {
    const model_shape *m = p->shape;
    want_matrix(p, "ffn_gate_inp.weight", &l->router, m->experts, m->dim);
    for (int i = 0; i < m->experts; i++) {
        if (m->fused_experts) {
            want_expert(p, "ffn_gate_up_exps.weight", &l->experts[i].gate, i, 0, 2, m->expert_ffn, m->dim);
            want_expert(p, "ffn_gate_up_exps.weight", &l->experts[i].up, i, 1, 2, m->expert_ffn, m->dim);
        } else {
            want_expert(p, "ffn_gate_exps.weight", &l->experts[i].gate, i, 0, 1, m->expert_ffn, m->dim);
            want_expert(p, "ffn_up_exps.weight", &l->experts[i].up, i, 0, 1, m->expert_ffn, m->dim);
        }
        want_expert(p, "ffn_down_exps.weight", &l->experts[i].down, i, 0, 1, m->dim, m->expert_ffn);
    }
    if (!m->shared_ffn)
        return;
    want_matrix(p, "ffn_gate_shexp.weight", &l->ffn.gate, m->shared_ffn, m->dim);
    want_matrix(p, "ffn_up_shexp.weight", &l->ffn.up, m->shared_ffn, m->dim);
    want_matrix(p, "ffn_down_shexp.weight", &l->ffn.down, m->dim, m->shared_ffn);
    if (arch_has(m, TRAIT_SHARED_GATE))
        want_vector(p, "ffn_gate_inp_shexp.weight", &l->shared_gate, m->dim);
}

/* ---- layers, and what is beside them ---- */

static void want_norms(const place *p, layer_weights *l) {
    const model_shape *m = p->shape;
    const norm_place   at = m->arch->place;
    if (at == NORM_BEFORE || at == NORM_AROUND) {
        want_norm(p, "attn_norm", &l->attn_norm, m->dim);
        size_t first = p->s->count;
        want_norm(p, "ffn_norm", &l->ffn_norm, m->dim);
        for (size_t i = first; m->parallel && i < p->s->count; i++)
            p->s->list[i].optional = true; /* both parts may share a norm */
    }
    if (at == NORM_AROUND || at == NORM_AFTER) {
        want_norm(p, "post_attention_norm", &l->attn_after, m->dim);
        want_norm(p, "post_ffw_norm", &l->ffn_after, m->dim);
    }
    if (at == NORM_SUM) {
        want_norm(p, "attn_output_norm", &l->attn_after, m->dim);
        want_norm(p, "layer_output_norm", &l->ffn_after, m->dim);
    }
}

static void want_layer(const place *p, layer_weights *l) {
    want_norms(p, l);
    want_attention(p, l);
    if (p->shape->experts)
        want_experts(p, l);
    else
        want_ffn(p, &l->ffn, p->shape->ffn);
}

/* The head of a model that ranks; see engine/rank.c. */
static void want_rank(const place *p, model *m) {
    const int64_t dim = p->shape->dim;
    want_matrix(p, "cls.weight", &m->rank_dense, dim, dim)->optional = true;
    want_optional(p, "cls.bias", &m->rank_dense_bias, dim);
    want_matrix(p, "cls.output.weight", &m->rank_output, 1, dim);
    want_optional(p, "cls.output.bias", &m->rank_output_bias, 1);
}

static void want_beside(const place *p, model *m) {
    const model_shape *s = p->shape;
    want_matrix(p, "token_embd.weight", &m->embedding, s->vocab, s->dim);
    if (arch_has(s, TRAIT_POSITIONS))
        want_matrix(p, "position_embd.weight", &m->positions, s->positions, s->dim);
    if (arch_has(s, TRAIT_TOKEN_TYPES)) {
        want_matrix(p, "token_types.weight", &m->token_types, s->token_types, s->dim)->optional = true;
        want_norm(p, "token_embd_norm", &m->embedding_norm, s->dim);
    }
    if (s->arch->place != NORM_SUM)
        want_norm(p, "output_norm", &m->output_norm, s->dim);
    if (!s->headless && !s->tied)
        want_matrix(p, "output.weight", &m->output, s->vocab, s->dim);
    if (!s->headless)
        want_optional(p, "output.bias", &m->output_bias, s->vocab);
    if (s->pooling == POOLING_RANK)
        want_rank(p, m);
    if (s->rope_dim)
        want_optional(p, "rope_freqs.weight", &m->rope_factors, s->rope_dim / 2);
    if (arch_has(s, TRAIT_LONG_ROPE)) {
        want_optional(p, "rope_factors_long.weight", &m->rope_long, s->rope_dim / 2);
        want_optional(p, "rope_factors_short.weight", &m->rope_short, s->rope_dim / 2);
    }
}

/* Before memory is taken for what a file of some bytes merely claims. */
static bool are_there(const model_shape *s, const gguf *g, err *e) {
    if ((size_t)s->layers > gguf_tensor_count(g))
        return err_set(e, ERR_INVALID, "a tensor of layer %d is missing: the file has %zu tensors for %d layers",
                       s->layers - 1, gguf_tensor_count(g), s->layers);
    const gguf_tensor *t = gguf_tensor_named(g, "blk.0.ffn_down_exps.weight");
    return s->experts == 0 || (t && t->shape[2] == s->experts) ||
           err_set(e, ERR_INVALID, "tensor blk.0.ffn_down_exps.weight is %s, must hold %d experts",
                   t ? "of another number of experts" : "missing", s->experts);
}

bool slots_list(model *m, const gguf *g, slots *s, err *e) {
    const model_shape *shape = &m->shape;
    size_t             layers = (size_t)shape->layers, experts = (size_t)shape->experts;
    if (!are_there(shape, g, e))
        return false;
    s->cap = layers * (SLOTS_A_LAYER + experts * SLOTS_AN_EXPERT) + SLOTS_BESIDE;
    s->list = calloc(s->cap + 1, sizeof *s->list);
    m->layers = calloc(layers, sizeof *m->layers);
    m->experts = experts ? calloc(layers * experts, sizeof *m->experts) : NULL;
    if (!s->list || !m->layers || (experts && !m->experts))
        return err_set(e, ERR_MEMORY, "out of memory for the list of tensors");
    want_beside(&(place){s, shape, -1}, m);
    for (int i = 0; i < shape->layers; i++) {
        if (experts)
            m->layers[i].experts = m->experts + (size_t)i * experts;
        want_layer(&(place){s, shape, i}, &m->layers[i]);
    }
    return true;
}
