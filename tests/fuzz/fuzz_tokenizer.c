/* fuzz_tokenizer.c - any bytes as a text, through small vocabularies of all kinds and every pre-tokenizer; when they
 * begin like a GGUF file, as a file with a tokenizer in it; and when they begin with "MAP!", as Unigram's normaliser.
 *
 *   cmake -B build/fuzz -DPARE_FUZZ=ON -DCMAKE_C_COMPILER=clang && ninja -C build/fuzz fuzz_tokenizer
 *   build/fuzz/fuzz_tokenizer -max_len=4096 -rss_limit_mb=1024 CORPUS_DIR                                            */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "base/utf8.h"
#include "model/gguf_write.h"
#include "model/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *model, *pre;
} kinds[] = {{"gpt2", "gpt-2"},
             {"gpt2", "llama-bpe"},
             {"gpt2", "qwen2"},
             {"gpt2", "qwen35"},
             {"gpt2", "starcoder"},
             {"gpt2", "falcon"},
             {"gpt2", "default"},
             {"gpt2", "deepseek-coder"},
             {"gpt2", "deepseek-llm"},
             {"gpt2", "deepseek-v3"},
             {"gpt2", "tekken"},
             {"gpt2", "gpt-4o"},
             {"gpt2", "viking"},
             {"gpt2", "jais-2"},
             {"gpt2", "minicpm5"},
             {"gpt2", "seed-coder"},
             {"gpt2", "ufakzeka"},
             {"gpt2", "laguna"},
             {"gpt2", "exaone-moe"},
             {"gpt2", "spark2_5"},
             {"gpt2", "afmoe"},
             {"gpt2", "tiny_aya"},
             {"gpt2", "youtu"},
             {"gpt2", "kimi-k2"},
             {"gpt2", "superbpe"},
             {"gpt2", "chameleon"},
             {"llama", "default"},
             {"gemma4", ""},
             {"whitespace", ""},
             {"t5", ""},
             {"bert", ""}};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), TOKENS = 256 + 10 };

/* The 256 bytes (as <0xXX>, for byte-level BPE in its own alphabet) and a few longer tokens. `map` may be NULL. */
static tokenizer *build(const char *model, const char *pre, const uint8_t *map, size_t n_map) {
    const bool     spm = strcmp(model, "gpt2") != 0;
    static char    text[TOKENS][24];
    static int32_t types[TOKENS];
    static float   scores[TOKENS];
    gguf_str       tokens[TOKENS];
    const char    *more[] = {"<s>", "</s>", "<|end|>",        "aa", "ab", spm ? "▁▁" : "ĠĠ", spm ? "▁a" : "Ġa",
                             "<x>", "12",   spm ? "▁" : "ĠĠa"};
    uint32_t       next = 0x100;
    for (uint32_t i = 0; i < TOKENS; i++) {
        types[i] = TOKEN_NORMAL;
        scores[i] = (float)-(int)i;
        if (i >= 256) {
            strcpy(text[i], more[i - 256]);
            types[i] = i < 259 ? TOKEN_CONTROL : i == 263 ? TOKEN_USER_DEFINED : TOKEN_NORMAL;
        } else if (spm) {
            static const char digits[] = "0123456789ABCDEF";
            memcpy(text[i], (char[]){'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'}, 6);
            types[i] = TOKEN_BYTE;
        } else {
            bool printable = (i >= 0x21 && i <= 0x7E) || (i >= 0xA1 && i != 0xAD);
            text[i][utf8_encode(printable ? i : next++, text[i])] = 0;
        }
        tokens[i] = (gguf_str){text[i], strlen(text[i])};
    }
    static const gguf_str merges[] = {{"a a", 3}, {"a b", 3}, {"Ġ Ġ", 5}, {"Ġ a", 4}, {"1 2", 3}, {"aa b", 4}};
    str                   file = {0};
    err                   e;
    gguf_writer          *w = gguf_write_open_memory(&file, &e);
    gguf_write_text(w, "tokenizer.ggml.model", model);
    gguf_write_text(w, "tokenizer.ggml.pre", pre);
    gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, TOKENS);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, TOKENS);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, TOKENS);
    gguf_write_strings(w, "tokenizer.ggml.merges", merges, sizeof(merges) / sizeof(merges[0]));
    gguf_write_int(w, "tokenizer.ggml.bos_token_id", GGUF_U32, 256);
    gguf_write_int(w, "tokenizer.ggml.eos_token_id", GGUF_U32, 257);
    gguf_write_int(w, "tokenizer.ggml.unknown_token_id", GGUF_U32, 256);
    if (map) {
        gguf_write_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, map, n_map);
        gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", true);
    }
    gguf      *g = gguf_write_finish(w, &e) ? gguf_open_memory("fuzz", file.data, file.len, &e) : NULL;
    tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
    if (!t && !map) {
        abort();
    }
    gguf_close(g);
    str_free(&file);
    return t;
}

/* Every byte has a token, so that the text comes back whole (in SPM as long as it has no U+2581, which means a space). */
static void encode(const tokenizer *t, const char *text, size_t n, bool must_return) {
    for (int o = 0; o < 4; o++) {
        token_ids ids = {0};
        str       back = {0};
        err       e = {0};
        if (!tokenizer_encode(t, text, n, (encode_options){o & 1, o & 2}, &ids, &e)) {
            abort();
        }
        for (size_t i = 0; i < ids.count; i++) {
            const char *piece;
            size_t      len = tokenizer_piece(t, ids.ids[i], true, &piece);
            str_add(&back, piece, len);
        }
        size_t skip = tokenizer_strips_first_space(t) && n > 0;
        if (must_return && o == 0 && (back.len != n + skip || (n > 0 && memcmp(back.data + skip, text, n) != 0))) {
            bool user_defined = memmem(text, n, "<x>", 3); /* SPM puts a space after it */
            if (!user_defined) {
                abort();
            }
        }
        str_free(&back);
        token_ids_free(&ids);
    }
}

/* Whether the bytes come back: not from WordPiece, which drops and lowers, nor from Unigram, whose text is always UTF-8,
 * nor where white space is lost; and U+2581 means a space in all but byte-level BPE. */
static bool returns(size_t kind, const char *text, size_t n) {
    const char *model = kinds[kind].model;
    return strcmp(model, "gpt2") == 0 ||
           ((strcmp(model, "llama") == 0 || strcmp(model, "gemma4") == 0) && !memmem(text, n, "\xE2\x96\x81", 3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tokenizer *built[KINDS];
    const char       *text = (const char *)data;
    for (size_t i = 0; i < KINDS; i++) {
        if (!built[i]) {
            built[i] = build(kinds[i].model, kinds[i].pre, NULL, 0);
        }
        if (size < 200 || i % 4 == size % 4) { /* long texts through a part of them: all would be slow */
            encode(built[i], text, size, returns(i, text, size));
        }
    }
    if (size > 4 && memcmp(data, "MAP!", 4) == 0) {
        tokenizer *t = build("t5", "", data + 4, size - 4);
        if (t) {
            encode(t, text, size, false);
        }
        tokenizer_close(t);
    }
    if (size > 4 && memcmp(data, "GGUF", 4) == 0) {
        err        e = {0};
        gguf      *g = gguf_open_memory("fuzz", data, size, &e);
        tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
        if (t) {
            encode(t, text, size < 500 ? size : 500, false);
        } else if (!e.text[0]) {
            abort(); /* a refusal without a sentence is a bug too */
        }
        tokenizer_close(t);
        gguf_close(g);
    }
    return 0;
}
