/* tensors.c - from the names of the folder to the tensors of the file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/import/internal.h"

enum { MAX_TENSOR_NAME = 256 };

/* ---- names without prefixes ---- */

/* "transformer.h.0" -> "h.0", "model.language_model.layers.0" -> "model.layers.0", "layers.0" -> "model.layers.0";
 * BERTs of TensorFlow's days call weight and bias gamma and beta. False: too long, or no memory. */
static bool plain_name(const importer *m, const char *name, char *out, size_t size) {
    char        copy[640];
    const char *add = "", *suffix = "";
    snprintf(copy, sizeof copy, "%s", name); /* names have at most 512 bytes */
    for (const char *p = m->arch->strip; *p;) {
        size_t n = strcspn(p, "|");
        char  *at = strncmp(copy, p, n) == 0 ? copy : NULL;
        if (!at && n && strncmp(copy, "model.", 6) == 0 && strncmp(copy + 6, p, n) == 0)
            at = copy + 6;
        if (at)
            memmove(at, at + n, strlen(at + n) + 1);
        p += n + (p[n] == '|');
    }
    size_t n = strlen(copy);
    if (m->arch->traits & ARCH_ENCODER && n > 6 && strcmp(copy + n - 6, ".gamma") == 0) {
        copy[n - 6] = '\0';
        suffix = ".weight";
    } else if (m->arch->traits & ARCH_ENCODER && n > 5 && strcmp(copy + n - 5, ".beta") == 0) {
        copy[n - 5] = '\0';
        suffix = ".bias";
    }
    if (m->arch->traits & ARCH_ADD_MODEL &&
        (strncmp(copy, "layers.", 7) == 0 || strncmp(copy, "embed_tokens.", 13) == 0 ||
         strcmp(copy, "norm.weight") == 0))
        add = "model.";
    return (size_t)snprintf(out, size, "%s%s%s", add, copy, suffix) < size;
}

static bool index_names(importer *m) {
    m->names = map_new(shards_count(m->weights) + 1);
    if (!m->names)
        return import_no_memory(m);
    for (size_t i = 0; i < shards_count(m->weights); i++) {
        const st_tensor *t = shards_at(m->weights, i)->t;
        char             name[700];
        int64_t          other;
        if (!plain_name(m, t->name, name, sizeof name))
            return err_set(m->e, ERR_INVALID, "the name of tensor %.100s is too long", t->name);
        if (map_get(m->names, name, strlen(name), &other))
            return err_set(m->e, ERR_INVALID, "the tensors %.150s and %.150s mean the same", t->name,
                           shards_at(m->weights, (size_t)other)->t->name);
        if (!map_put(m->names, name, strlen(name), (int64_t)i))
            return import_no_memory(m);
    }
    return true;
}

static shard_tensor *source(importer *m, const char *name) {
    int64_t i;
    return map_get(m->names, name, strlen(name), &i) ? shards_at(m->weights, (size_t)i) : NULL;
}

/* ---- one tensor of the file ---- */

static out_tensor *new_tensor(importer *m, const char *name) {
    if (m->tensor_count == m->tensor_cap) {
        size_t      cap = m->tensor_cap ? 2 * m->tensor_cap : 256;
        out_tensor *grown = realloc(m->tensors, cap * sizeof *grown);
        if (!grown) {
            import_no_memory(m);
            return NULL;
        }
        m->tensors = grown;
        m->tensor_cap = cap;
    }
    out_tensor *t = &m->tensors[m->tensor_count];
    memset(t, 0, sizeof *t);
    t->name = arena_strdup(m->memory, name);
    if (!t->name) {
        import_no_memory(m);
        return NULL;
    }
    m->tensor_count++;
    return t;
}

bool tensors_add_values(importer *m, const char *name, const float *values, int64_t n) {
    out_tensor *t = new_tensor(m, name);
    if (!t)
        return false;
    t->format = block_format_of(BLOCK_F32);
    t->dims = 1;
    t->shape[0] = n;
    t->values = values;
    return true;
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), e = strlen(end);
    return n >= e && strcmp(name + n - e, end) == 0;
}

/* The types that llama.cpp's converter chooses: vectors, norms, routers and learned positions stay float32. */
static const block_format *format_for(importer *m, const char *name, int dims, int64_t row) {
    size_t unused;
    if (dims < 2 || !ends_with(name, ".weight") || ends_with(name, "_norm.weight") ||
        ends_with(name, "ffn_gate_inp.weight") || ends_with(name, "ffn_gate_inp_shexp.weight") ||
        strcmp(name, "position_embd.weight") == 0 || strcmp(name, "token_types.weight") == 0)
        return block_format_of(BLOCK_F32);
    if (block_row_bytes(m->format, row, &unused))
        return m->format;
    import_note(m, "%s has rows of %" PRId64 " values, which do not divide into %s blocks: it is stored as f16", name,
                row, m->format->name);
    return block_format_of(BLOCK_F16);
}

static int64_t rows_of(const st_tensor *t) {
    int64_t rows = 1;
    for (int d = 0; d + 1 < t->dims; d++)
        rows *= t->shape[d];
    return rows;
}

static bool usable(importer *m, const shard_tensor *s) {
    const st_tensor *t = s->t;
    const char      *file = safetensors_name(s->file);
    if (t->type < 0)
        return err_set(m->e, ERR_UNSUPPORTED, "%.200s: tensor %.120s is %s; pare imports F32, F16 and BF16%s", file,
                       t->name, t->dtype,
                       strncmp(t->dtype, "F8", 2) == 0 ? " (take the model that was not quantised to 8 bits)" : "");
    if (t->dims < 1 || t->dims > 3 || t->bytes == 0)
        return err_set(m->e, ERR_INVALID, "%.200s: tensor %.120s has %d dimensions and %llu bytes: no weight", file,
                       t->name, t->dims, (unsigned long long)t->bytes);
    return true;
}

static bool bad_shape(importer *m, const shard_tensor *s, const char *why) {
    return err_set(m->e, ERR_INVALID, "%.200s: tensor %.120s %s", safetensors_name(s->file), s->t->name, why);
}

/* The shape that the change leaves, in GGUF's order. */
static bool set_shape(importer *m, out_tensor *out, const shard_tensor *s) {
    const st_tensor *t = s->t;
    out->dims = t->dims;
    for (int d = 0; d < t->dims; d++)
        out->shape[d] = t->shape[t->dims - 1 - d];
    switch (out->change) {
    case PAIR_Q:
    case PAIR_K:
        out->heads = out->change == PAIR_Q ? m->h.heads : m->h.kv_heads;
        if (t->dims > 2 || t->shape[0] % (2 * out->heads))
            return bad_shape(m, s, "has a number of rows that is no multiple of twice the heads");
        break;
    case TRANSPOSE:
        if (t->dims != 2)
            return bad_shape(m, s, "is no matrix");
        out->shape[0] = t->shape[0];
        out->shape[1] = t->shape[1];
        break;
    case FUSED_GATE:
    case FUSED_UP:
        if (t->dims != 3 || t->shape[1] % 2)
            return bad_shape(m, s, "is not [experts, 2 x ffn, dim]");
        out->shape[1] /= 2;
        break;
    case KEEP:
    case PLUS_ONE:
        break;
    }
    return true;
}

static bool one_part(importer *m, out_tensor *out, shard_tensor *s) {
    const bool fused = out->change == FUSED_GATE || out->change == FUSED_UP;
    const int  count = fused ? (int)s->t->shape[0] : 1;
    if (fused && s->t->shape[0] != m->h.experts)
        return bad_shape(m, s, "holds another number of experts than config.json says");
    out->parts = arena_zero(m->memory, (size_t)count, sizeof *out->parts);
    if (!out->parts)
        return import_no_memory(m);
    out->part_count = count;
    for (int i = 0; i < count; i++) {
        int64_t half = fused ? s->t->shape[1] / 2 : 0;
        out->parts[i] = fused ? (tensor_part){s, (2 * i + (out->change == FUSED_UP)) * half, half}
                              : (tensor_part){s, 0, rows_of(s->t)};
    }
    s->used = true;
    return true;
}

static bool add_tensor(importer *m, const tensor_rule *rule, const char *name, shard_tensor *s) {
    if (!usable(m, s))
        return false;
    out_tensor *out = new_tensor(m, name);
    if (!out)
        return false;
    out->change = rule->change == TRANSPOSE && s->t->dims == 1 ? KEEP : rule->change; /* a Conv1D's bias */
    if (!set_shape(m, out, s) || !one_part(m, out, s))
        return false;
    out->format = format_for(m, name, out->dims, out->shape[0]);
    return true;
}

/* ---- rules ---- */

/* Writes the rule's name for a layer and an expert. */
static void fill(const char *pattern, int64_t layer, int64_t expert, const char *suffix, char *out, size_t size) {
    size_t n = 0;
    for (const char *p = pattern; *p && n + 24 < size; p++) {
        if (*p == '#' || *p == '@')
            n += (size_t)snprintf(out + n, size - n, "%" PRId64, *p == '#' ? layer : expert);
        else
            out[n++] = *p;
    }
    snprintf(out + n, size - n, "%s", suffix);
}

static bool absent(importer *m, const char *name) {
    return err_set(m->e, ERR_INVALID, "%.200s: tensor %.120s is missing (or the folder is not a whole %s)", m->o->dir,
                   name, m->arch->hf);
}

/* Experts one by one, stacked. */
static bool stack_experts(importer *m, const tensor_rule *rule, int64_t layer) {
    char name[MAX_TENSOR_NAME];
    fill(rule->hf, layer, 0, ".weight", name, sizeof name);
    shard_tensor *first = source(m, name);
    if (!first)
        return rule->flags & MAY_BE_ABSENT || absent(m, name);
    tensor_part *parts = arena_zero(m->memory, (size_t)m->h.experts, sizeof *parts);
    if (!parts)
        return import_no_memory(m);
    for (int64_t x = 0; x < m->h.experts; x++) {
        fill(rule->hf, layer, x, ".weight", name, sizeof name);
        shard_tensor *s = source(m, name);
        if (!s)
            return absent(m, name);
        if (!usable(m, s))
            return false;
        if (s->t->dims != 2 || s->t->shape[0] != first->t->shape[0] || s->t->shape[1] != first->t->shape[1])
            return bad_shape(m, s, "has not the shape of the first expert");
        parts[x] = (tensor_part){s, 0, s->t->shape[0]};
        s->used = true;
    }
    fill(rule->gguf, layer, 0, ".weight", name, sizeof name);
    out_tensor *out = new_tensor(m, name);
    if (!out)
        return false;
    out->dims = 3;
    out->shape[0] = first->t->shape[1];
    out->shape[1] = first->t->shape[0];
    out->shape[2] = m->h.experts;
    out->parts = parts;
    out->part_count = (int)m->h.experts;
    out->format = format_for(m, name, 3, out->shape[0]);
    return true;
}

/* transformers 5 leaves ".weight" off where all experts are one parameter. */
static shard_tensor *weight_of(importer *m, const tensor_rule *rule, int64_t layer, char *name, size_t size) {
    fill(rule->hf, layer, 0, ".weight", name, size);
    shard_tensor *s = source(m, name);
    if (!s && rule->flags & INSTEAD) {
        char bare[MAX_TENSOR_NAME];
        fill(rule->hf, layer, 0, "", bare, sizeof bare);
        s = source(m, bare);
    }
    return s;
}

static bool apply_rule(importer *m, const tensor_rule *rule, int64_t layer) {
    char name[MAX_TENSOR_NAME], bias[MAX_TENSOR_NAME], to[MAX_TENSOR_NAME];
    if (strchr(rule->hf, '@'))
        return stack_experts(m, rule, layer);
    fill(rule->gguf, layer, 0, ".weight", to, sizeof to);
    if (rule->flags & INSTEAD && m->tensor_count && strcmp(m->tensors[m->tensor_count - 1].name, to) == 0)
        return true;
    shard_tensor *s = weight_of(m, rule, layer, name, sizeof name);
    if (!s)
        return rule->flags & MAY_BE_ABSENT || absent(m, name);
    if (!add_tensor(m, rule, to, s))
        return false;
    if (!(rule->flags & MAY_HAVE_BIAS))
        return true;
    fill(rule->hf, layer, 0, ".bias", bias, sizeof bias);
    fill(rule->gguf, layer, 0, ".bias", to, sizeof to);
    s = source(m, bias);
    return !s || add_tensor(m, rule, to, s);
}

/* The output matrix: a model that ties it has no use for a copy. */
static bool output_rule(importer *m, const tensor_rule *rule) {
    shard_tensor *s = source(m, "lm_head.weight");
    if (m->h.tied && s && (m->h.tied_said || m->arch->traits & ARCH_TIED)) {
        s->used = true;
        return true;
    }
    if (!s && m->h.tied_said && !m->h.tied)
        return absent(m, "lm_head.weight");
    return !s || apply_rule(m, rule, 0);
}

static bool all_used(importer *m) {
    for (size_t i = 0; i < shards_count(m->weights); i++) {
        shard_tensor *s = shards_at(m->weights, i);
        char          name[700];
        if (s->used || !plain_name(m, s->t->name, name, sizeof name) || import_left_out(m->arch, name))
            continue;
        return err_set(
            m->e, ERR_UNSUPPORTED,
            "%.200s: tensor %.120s has no place in GGUF's %s; without it the model would compute something else",
            safetensors_name(s->file), s->t->name, m->arch->gguf);
    }
    return true;
}

/* auto: what the first matrix is. */
static bool choose_format(importer *m) {
    const char *type = m->o->type ? m->o->type : "auto";
    if (strcmp(type, "auto") == 0) {
        m->format = block_format_of(BLOCK_F32);
        for (size_t i = 0; i < shards_count(m->weights); i++) {
            const st_tensor *t = shards_at(m->weights, i)->t;
            if (t->dims >= 2 && t->type >= 0) {
                m->format = block_format_of(t->type);
                break;
            }
        }
    } else {
        m->format = block_format_named(type);
    }
    if (!m->format || (m->format->type != BLOCK_F32 && m->format->type != BLOCK_F16 && m->format->type != BLOCK_BF16 &&
                       m->format->type != BLOCK_Q8_0))
        return err_set(m->e, ERR_INVALID, "--type %.40s is not one of f32, f16, bf16, q8_0, auto", type);
    return true;
}

bool tensors_plan(importer *m) {
    const tensor_rule *rules = m->arch->tensors, *per_layer = rules;
    if (!choose_format(m) || !index_names(m))
        return false;
    while (per_layer->hf && !strchr(per_layer->hf, '#')) /* what comes before the layers */
        if (!apply_rule(m, per_layer++, 0))
            return false;
    const tensor_rule *after = per_layer;
    while (after->hf && strchr(after->hf, '#'))
        after++;
    for (int64_t layer = 0; layer < m->h.layers; layer++)
        for (const tensor_rule *r = per_layer; r < after; r++)
            if (!apply_rule(m, r, layer))
                return false;
    for (; after->hf; after++)
        if (!(strcmp(after->gguf, "output") == 0 ? output_rule(m, after) : apply_rule(m, after, 0)))
            return false;
    for (size_t i = 0; i < m->tensor_count; i++)
        if (strcmp(m->tensors[i].name, "token_embd.weight") == 0) {
            m->rows = m->tensors[i].shape[1];
            if (m->tensors[i].dims != 2 || m->tensors[i].shape[0] != m->h.dim)
                return err_set(m->e, ERR_INVALID, "%.200s: the embedding's rows do not have hidden_size values",
                               m->o->dir);
        }
    return all_used(m);
}

bool tensors_declare(importer *m) {
    for (size_t i = 0; i < m->tensor_count; i++) {
        const out_tensor *t = &m->tensors[i];
        size_t            row = 0;
        int64_t           rows = 1;
        for (int d = 1; d < t->dims; d++)
            rows *= t->shape[d];
        if (!block_row_bytes(t->format, t->shape[0], &row))
            return err_set(m->e, ERR_INVALID, "tensor %s cannot be stored as %s", t->name, t->format->name);
        m->total += (int64_t)row * rows;
        m->r->parameters += t->shape[0] * rows;
        if (m->w)
            gguf_write_tensor(m->w, t->name, t->format, t->dims, t->shape);
    }
    m->r->tensors = (int64_t)m->tensor_count;
    m->r->bytes = m->total;
    return true;
}
