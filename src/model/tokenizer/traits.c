/* traits.c - which tokens begin and end a text, from the file's keys and from well-known names. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "model/tokenizer/internal.h"

/* Ends of a turn or a text. The first group is control, whatever the file says (converters have got it wrong); the
 * reference does the same. */
static const char *const ends[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>",     "<end_of_turn>",         "<|endoftext|>",      "<|eom_id|>",
    "<EOT>",      "_<EOT>",     "[EOT]",       "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|fim_pad|>",
    "<fim-pad>",  "<fim_pad>",  "<PAD>",       "<|fim_repo|>",          "<|repo_name|>",      "<fim-repo>",
    "<REPO>",     "<reponame>", "<|file_sep|>"};
/* Ends only where the file makes them control. */
static const char *const ends_if_control[] = {
    "</s>", "<|end_of_text|>", "<|return|>", "<|call|>", "<|endofturn|>",   "<|eot|>", "<eos>", "[EOS]",
    "[e~[", "<|flush|>",       "<|calls|>",  "<turn|>",  "<|tool_response>"};
/* Fill-in-the-middle marks: control, too. */
static const char *const marks[] = {
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>",  "<SUF>", "▁<SUF>", "<|code_suffix|>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>",   "<MID>", "▁<MID>", "<|code_middle|>"};

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

/* o200k_harmony (gpt-oss) and solar-open end a turn with other tokens and a message, of which a turn has several, with
 * <|end|>; gemma4's </s> is text of its own. */
static void not_ends(tokenizer *t) {
    const bool    harmony = named(t, "<|return|>") >= 0 && named(t, "<|call|>") >= 0;
    const bool    solar = named(t, "<|flush|>") >= 0 && (named(t, "<|calls|>") >= 0 || named(t, "<|call|>") >= 0);
    const int32_t message_end = named(t, "<|end|>");
    if ((harmony || solar) && message_end >= 0) {
        t->traits[message_end] &= (uint8_t)~TRAIT_END;
    }
    const int32_t other = named(t, "</s>");
    if (named(t, "<|tool_response>") >= 0 && other >= 0 && other != t->eos) {
        t->traits[other] &= (uint8_t)~TRAIT_END;
    }
}

static bool value_has(const gguf *g, const char *key, const char *part) {
    gguf_str     value;
    const size_t n = strlen(part);
    if (!gguf_string(g, key, &value, NULL)) {
        return false;
    }
    for (size_t i = 0; i + n <= value.len; i++) {
        if (strncasecmp(value.data + i, part, n) == 0) {
            return true;
        }
    }
    return false;
}

/* Files do not say which tokens take the white space beside them along (HF's lstrip and rstrip); names of models do. */
static bool is_phi3(const gguf *g) {
    return value_has(g, "general.name", "phi3") || value_has(g, "general.name", "phi-3");
}

static void mask_eats_space(tokenizer *t, const gguf *g) {
    static const char *const of_pre[] = {"jina-v2-de", "jina-v2-es", "jina-v2-code"};
    static const char *const of_architecture[] = {"nomic-bert-moe", "jina-bert-v3"};
    const char              *mask = value_has(g, "general.name", "modern-bert") ? "[MASK]" : NULL;
    for (size_t i = 0; i < COUNT(of_pre); i++) {
        mask = value_has(g, "tokenizer.ggml.pre", of_pre[i]) ? "<mask>" : mask;
    }
    for (size_t i = 0; i < COUNT(of_architecture); i++) {
        mask = value_has(g, "general.architecture", of_architecture[i]) ? "<mask>" : mask;
    }
    const int32_t id = mask ? named(t, mask) : -1;
    if (id >= 0) {
        t->traits[id] |= TRAIT_EATS_SPACE_BEFORE;
    }
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

/* Where the file names none: SentencePiece's and BERT's own names. */
static void default_ids(tokenizer *t, const gguf *g) {
    if (t->kind == KIND_SPM || t->kind == KIND_UNIGRAM) {
        t->bos = t->bos >= 0 ? t->bos : control_named(t, "<s>");
        t->eos = t->eos >= 0 ? t->eos : control_named(t, "</s>");
        t->unknown = t->unknown >= 0 ? t->unknown : named(t, "<unk>");
    } else if (t->kind == KIND_WORDPIECE) { /* every text stands between [CLS] and [SEP], whatever the file adds */
        const int32_t sep = id_key(t, g, "tokenizer.ggml.seperator_token_id"); /* the key's own spelling */
        t->bos = t->bos >= 0 ? t->bos : id_key(t, g, "tokenizer.ggml.cls_token_id");
        t->bos = t->bos >= 0 ? t->bos : named(t, "[CLS]");
        t->eos = sep >= 0 ? sep : t->eos;
        t->eos = t->eos >= 0 ? t->eos : named(t, "[SEP]");
        t->unknown = t->unknown >= 0 ? t->unknown : named(t, "[UNK]");
        t->unknown = t->unknown >= 0 ? t->unknown : named(t, "<unk>");
        t->adds_bos = t->adds_eos = true;
    }
}

bool traits_open(tokenizer *t, const gguf *g, err *e) {
    t->traits = calloc(t->vocab.count, 1);
    if (!t->traits) {
        return err_set(e, ERR_MEMORY, "out of memory for %u tokens", t->vocab.count);
    }
    if (!key_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, e) ||
        !key_bool(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, e)) {
        return false;
    }
    t->adds_bos |= t->kind == KIND_BPE && t->bpe.pattern->always_bos;
    t->bos = id_key(t, g, "tokenizer.ggml.bos_token_id");
    t->eos = id_key(t, g, "tokenizer.ggml.eos_token_id");
    t->unknown = id_key(t, g, "tokenizer.ggml.unknown_token_id");
    default_ids(t, g);
    known_names(t);
    mark_end(t, t->eos);
    mark_end(t, id_key(t, g, "tokenizer.ggml.eot_token_id"));
    mark_end(t, id_key(t, g, "tokenizer.ggml.eom_token_id"));
    not_ends(t);
    if (is_phi3(g)) {
        phi3_spaces(t);
    }
    mask_eats_space(t, g);
    return true;
}
