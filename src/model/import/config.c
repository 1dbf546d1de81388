#include "model/import/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/import/folder.h"

/* Members that change nothing about what the model computes when it answers: training, generation defaults (pare's
 * requests say those), bookkeeping. Sources: transformers' PretrainedConfig and the models' own configurations. A name
 * that ends with a star stands for all that begin so, one that begins with it for all that end so. */
static const char *const harmless[] = {"architectures",
                                       "model_type",
                                       "transformers_version",
                                       "transformers.js_config",
                                       "auto_map",
                                       "torch_dtype",
                                       "dtype",
                                       "_*",
                                       "*dropout",
                                       "*dropout_prob",
                                       "*_pdrop",
                                       "*dropout_rate",
                                       "*_dropout_p",
                                       "*_token_id",
                                       "*_token_ids",
                                       "*_token_index",
                                       "initializer_*",
                                       "init_*",
                                       "*_init_std",
                                       "use_cache",
                                       "cache_implementation",
                                       "tokenizer_class",
                                       "return_dict*",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "output_scores",
                                       "output_router_logits",
                                       "torchscript",
                                       "use_bfloat16",
                                       "tf_legacy_loss",
                                       "pruned_heads",
                                       "chunk_size_feed_forward",
                                       "is_encoder_decoder",
                                       "tie_encoder_decoder",
                                       "max_length",
                                       "min_length",
                                       "do_sample",
                                       "early_stopping",
                                       "num_beams",
                                       "num_beam_groups",
                                       "diversity_penalty",
                                       "temperature",
                                       "top_k",
                                       "top_p",
                                       "min_p",
                                       "typical_p",
                                       "repetition_penalty",
                                       "length_penalty",
                                       "no_repeat_ngram_size",
                                       "encoder_no_repeat_ngram_size",
                                       "bad_words_ids",
                                       "num_return_sequences",
                                       "remove_invalid_values",
                                       "exponential_decay_length_penalty",
                                       "suppress_tokens",
                                       "begin_suppress_tokens",
                                       "finetuning_task",
                                       "id2label",
                                       "label2id",
                                       "num_labels",
                                       "prefix",
                                       "task_specific_params",
                                       "problem_type",
                                       "summary_*",
                                       "gradient_checkpointing",
                                       "pretraining_tp",
                                       "attention_bias",
                                       "mlp_bias",
                                       "qkv_bias",
                                       "use_bias",
                                       "router_aux_loss_coef",
                                       "router_jitter_noise",
                                       "unsloth_*",
                                       "attn_implementation",
                                       "flash_attn*",
                                       "use_flash_attn*",
                                       "is_llama_config",
                                       "bos_token",
                                       "eos_token",
                                       "pad_token",
                                       "reorder_and_upcast_attn",
                                       "attention_softmax_in_fp32",
                                       "scale_attention_softmax_in_fp32",
                                       "vision_config",
                                       "mm_tokens_per_image",
                                       "keys_to_ignore_at_inference",
                                       "use_xentropy",
                                       "fused_bias_fc",
                                       "fused_dropout_add_ln",
                                       "pad_vocab_size_multiple",
                                       "dense_seq_output",
                                       "max_trained_positions",
                                       "license",
                                       "name_or_path",
                                       "model_name",
                                       "rescale_attn",
                                       "fused_*",
                                       "vocab_file",
                                       "loss_type",
                                       "use_memory_efficient_attention",
                                       "unpad_inputs",
                                       "layer_norm_type",
                                       "hidden_size_per_head"};

enum { HARMLESS = sizeof harmless / sizeof *harmless };

bool config_open(config *c, arena *memory, const char *dir, err *e) {
    *c = (config){.memory = memory, .e = e};
    c->where = arena_printf(memory, "%s/config.json", dir);
    c->asked = map_new(64);
    if (!c->where || !c->asked)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (!folder_json(memory, dir, "config.json", &c->root, e))
        return false;
    if (!c->root)
        return err_set(e, ERR_NOT_FOUND, "%.300s is missing: is this a Hugging Face model folder?", c->where);
    if (!tree_is(c->root, TREE_OBJECT))
        return err_set(e, ERR_INVALID, "%.300s is %s, must be an object", c->where, tree_kind_name(c->root));
    c->text = tree_value(c->root, "text_config");
    if (c->text && !tree_is(c->text, TREE_OBJECT))
        return config_refuse(c, "text_config", "must be an object");
    return true;
}

void config_close(config *c) {
    map_free(c->asked);
    c->asked = NULL;
}

bool config_refuse(config *c, const char *key, const char *why) {
    return err_set(c->e, ERR_UNSUPPORTED, "%.200s: %.80s %s", c->where, key, why);
}

const tree *config_find(config *c, const char *keys, const char **name) {
    const tree *found = NULL;
    for (const char *p = keys; *p;) {
        size_t      n = strcspn(p, "|");
        const char *key = arena_memdup(c->memory, p, n);
        if (!key || !map_put(c->asked, key, n, 1))
            return NULL; /* out of memory: the member counts as missing or as unknown, and is refused later */
        if (!found) {
            found = tree_value(c->text, key);
            found = found ? found : tree_value(c->root, key);
            if (found && name)
                *name = key;
        }
        p += n + (p[n] == '|');
    }
    return found;
}

static bool wrong_kind(config *c, const char *name, const char *wanted, const tree *got) {
    return err_set(c->e, ERR_INVALID, "%.200s: %.80s is %s, must be %s", c->where, name, tree_kind_name(got), wanted);
}

bool hf_int(config *c, const char *keys, int64_t min, int64_t max, int64_t *out) {
    const char *name = keys;
    const tree *t = config_find(c, keys, &name);
    if (!t)
        return true;
    if (!tree_is(t, TREE_NUMBER) || (!t->integer && (fabs(t->u.number) > 0x1p53 || t->u.number != floor(t->u.number))))
        return wrong_kind(c, name, "a whole number", t);
    int64_t value = t->integer ? t->whole : (int64_t)t->u.number; /* some write 4096.0 */
    if (value < min || value > max)
        return err_set(c->e, ERR_INVALID, "%.200s: %.80s is %lld, must be %lld to %lld", c->where, name,
                       (long long)value, (long long)min, (long long)max);
    *out = value;
    return true;
}

static bool number_in(config *c, const char *name, const tree *t, double min, double max, double *out) {
    if (!tree_is(t, TREE_NUMBER))
        return wrong_kind(c, name, "a number", t);
    if (!(t->u.number >= min && t->u.number <= max))
        return err_set(c->e, ERR_INVALID, "%.200s: %.80s is %g, must be %g to %g", c->where, name, t->u.number, min,
                       max);
    *out = t->u.number;
    return true;
}

bool hf_number(config *c, const char *keys, double min, double max, double *out) {
    const char *name = keys;
    const tree *t = config_find(c, keys, &name);
    return !t || number_in(c, name, t, min, max, out);
}

bool config_member_number(config *c, const tree *object, const char *key, double min, double max, double *out) {
    const tree *t = tree_value(object, key);
    return !t || number_in(c, key, t, min, max, out);
}

bool hf_bool(config *c, const char *keys, bool *out) {
    const char *name = keys;
    const tree *t = config_find(c, keys, &name);
    if (!t)
        return true;
    if (!tree_is(t, TREE_BOOL))
        return wrong_kind(c, name, "true or false", t);
    *out = t->yes;
    return true;
}

bool config_text(config *c, const char *keys, const char **out) {
    const char *name = keys;
    const tree *t = config_find(c, keys, &name);
    if (!t)
        return true;
    if (!tree_is(t, TREE_STRING))
        return wrong_kind(c, name, "a string", t);
    *out = tree_text(c->memory, t);
    return *out || err_set(c->e, ERR_MEMORY, "out of memory");
}

/* ---- what nobody asked for ---- */

static bool matches(const char *pattern, const char *name, size_t n) {
    size_t p = strlen(pattern);
    if (pattern[p - 1] == '*')
        return n >= p - 1 && memcmp(name, pattern, p - 1) == 0;
    if (pattern[0] == '*')
        return n >= p - 1 && memcmp(name + n - (p - 1), pattern + 1, p - 1) == 0;
    return n == p && memcmp(name, pattern, n) == 0;
}

/* Nothing asked for: null, false, zero, "" and empty lists switch nothing on. */
static bool is_off(const tree *t) {
    return t->kind == TREE_NULL || (t->kind == TREE_BOOL && !t->yes) || (t->kind == TREE_NUMBER && t->u.number == 0) ||
           ((t->kind == TREE_STRING || t->kind == TREE_ARRAY || t->kind == TREE_OBJECT) && t->count == 0);
}

static bool is_known(const config *c, const tree *m, const char *const *ignore, int ignore_count) {
    int64_t unused;
    if (is_off(m) || map_get(c->asked, m->key, m->key_len, &unused))
        return true;
    for (int i = 0; i < HARMLESS; i++)
        if (matches(harmless[i], m->key, m->key_len))
            return true;
    for (int i = 0; i < ignore_count; i++)
        if (tree_key_is(m, ignore[i]))
            return true;
    return false;
}

bool config_all_known(config *c, const char *const *ignore, int ignore_count) {
    const tree *objects[] = {c->text, c->root};
    for (int o = 0; o < 2; o++)
        for (const tree *m = tree_first(objects[o]); m; m = m->next) {
            if (m == c->text || is_known(c, m, ignore, ignore_count))
                continue;
            int n = (int)(m->key_len < 60 ? m->key_len : 60);
            return err_set(c->e, ERR_UNSUPPORTED,
                           "%.200s: %.*s is a setting that pare does not know for this architecture, and it will not "
                           "guess what it changes; if it changes nothing, say --ignore %.*s",
                           c->where, n, m->key, n, m->key);
        }
    return true;
}
