/* traits.c - which tokens begin and end a text, from the file's keys and from well-known names. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "model/tokenizer/internal.h"

/* Ends of a turn or a text. The first group is control, whatever the file says (converters have got it wrong); the
 * reference does the same. */
static const char *const ends[] = {
    "<|eot_id|>", "<|im_end|>",  "<|end|>",      "<end_of_turn>",         "<|endoftext|>",
    "<|eom_id|>", "<EOT>",       "_<EOT>",       "<｜end▁of▁sentence｜>", "<|fim_pad|>",
    "<fim-pad>",  "<PAD>",       "<|fim_repo|>", "<|repo_name|>",         "<fim-repo>",
    "<REPO>",     "<|file_sep|>"};
/* Ends only where the file makes them control. */
static const char *const ends_if_control[] = {"</s>",          "<|end_of_text|>", "<|return|>", "<|call|>",
                                              "<|endofturn|>", "<|eot|>",         "<eos>"};
/* Fill-in-the-middle marks: control, too. */
static const char *const marks[] = {"<|fim_prefix|>", "<fim-prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
                                    "<|fim_suffix|>", "<fim-suffix>", "<｜fim▁hole｜>",  "<SUF>", "▁<SUF>",
                                    "<|fim_middle|>", "<fim-middle>", "<｜fim▁end｜>",   "<MID>", "▁<MID>"};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static int32_t named(const tokenizer *t, const char *text) {
    return vocab_find(&t->vocab, text, strlen(text));
}

/* An id of the file; -1 when it names none, or one past the vocabulary (which some converters write for "none"). */
static int32_t id_key(const tokenizer *t, const gguf *g, const char *key) {
    int64_t id;
    if (!gguf_has(g, key)) {
        return -1;
    }
    if (!gguf_int(g, key, 0, (int64_t)t->vocab.count - 1, &id, NULL)) {
        log_warn("%s: %s is no token of this vocabulary and is ignored", gguf_name(g), key);
        return -1;
    }
    return (int32_t)id;
}

static void mark_end(tokenizer *t, int32_t id) {
    if (id >= 0) {
        t->traits[id] |= TRAIT_END;
    }
}

static int32_t control_named(const tokenizer *t, const char *text) {
    int32_t id = named(t, text);
    return id >= 0 && t->vocab.kinds[id] == TOKEN_CONTROL ? id : -1;
}

static void known_names(tokenizer *t) {
    for (size_t i = 0; i < COUNT(ends); i++) {
        int32_t id = named(t, ends[i]);
        if (id >= 0) {
            t->vocab.kinds[id] = TOKEN_CONTROL;
            t->traits[id] |= TRAIT_END;
        }
    }
    for (size_t i = 0; i < COUNT(ends_if_control); i++) {
        mark_end(t, control_named(t, ends_if_control[i]));
    }
    for (size_t i = 0; i < COUNT(marks); i++) {
        int32_t id = named(t, marks[i]);
        if (id >= 0) {
            t->vocab.kinds[id] = TOKEN_CONTROL;
        }
    }
}

/* Phi-3's special tokens take the white space after them along; its file does not say so, the model's name does. */
static bool is_phi3(const gguf *g) {
    gguf_str name;
    if (!gguf_string(g, "general.name", &name, NULL)) {
        return false;
    }
    for (size_t i = 0; i + 4 <= name.len; i++) {
        if (strncasecmp(name.data + i, "phi3", 4) == 0 ||
            (i + 5 <= name.len && strncasecmp(name.data + i, "phi-3", 5) == 0)) {
            return true;
        }
    }
    return false;
}

static void phi3_spaces(tokenizer *t) {
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (uint32_t i = 0; i < t->vocab.count; i++) {
        uint8_t kind = t->vocab.kinds[i];
        if (kind == TOKEN_CONTROL || kind == TOKEN_USER_DEFINED || kind == TOKEN_UNKNOWN) {
            t->traits[i] |= TRAIT_EATS_SPACE_AFTER;
        }
    }
    for (size_t i = 0; i < COUNT(others); i++) {
        int32_t id = named(t, others[i]);
        if (id >= 0) {
            t->traits[id] &= (uint8_t)~TRAIT_EATS_SPACE_AFTER;
        }
    }
}

bool traits_open(tokenizer *t, const gguf *g, err *e) {
    t->traits = calloc(t->vocab.count, 1);
    if (!t->traits) {
        return err_set(e, ERR_MEMORY, "out of memory for %u tokens", t->vocab.count);
    }
    t->bos = id_key(t, g, "tokenizer.ggml.bos_token_id");
    t->eos = id_key(t, g, "tokenizer.ggml.eos_token_id");
    t->unknown = id_key(t, g, "tokenizer.ggml.unknown_token_id");
    if (t->is_spm) { /* SentencePiece's own names */
        t->bos = t->bos >= 0 ? t->bos : control_named(t, "<s>");
        t->eos = t->eos >= 0 ? t->eos : control_named(t, "</s>");
        t->unknown = t->unknown >= 0 ? t->unknown : named(t, "<unk>");
    }
    if ((gguf_has(g, "tokenizer.ggml.add_bos_token") &&
         !gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, e)) ||
        (gguf_has(g, "tokenizer.ggml.add_eos_token") &&
         !gguf_bool(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, e))) {
        return false;
    }
    known_names(t);
    mark_end(t, t->eos);
    mark_end(t, id_key(t, g, "tokenizer.ggml.eot_token_id"));
    mark_end(t, id_key(t, g, "tokenizer.ggml.eom_token_id"));
    if (is_phi3(g)) {
        phi3_spaces(t);
    }
    gguf_str pre;
    if (gguf_string(g, "tokenizer.ggml.pre", &pre, NULL) && pre.len >= 7 && memcmp(pre.data, "jina-v2", 7) == 0) {
        int32_t id = named(t, "<mask>");
        if (id >= 0) {
            t->traits[id] |= TRAIT_EATS_SPACE_BEFORE;
        }
    }
    return true;
}
