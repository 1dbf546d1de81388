/* Tokenizers of model folders. Real vocabularies are written back as tokenizer.json or tokenizer.model and must come out
 * token by token; small ones show each rule. */
#include "model/test_import_bed.h"

#include "model/tokenizer/tokenizer.h"

#define VOCABS "../shared/conformance/tokenizers/ggml-vocab-"

/* A model whose only purpose is its embedding of `vocab` rows. */
static void folder(bed *b, const char *class, const char *more, int64_t vocab) {
    char    text[1200];
    st_file s = {0};
    bed_open(b);
    snprintf(text, sizeof text,
             "{\"architectures\":[\"%s\"],\"hidden_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
             "\"intermediate_size\":4,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5%s}",
             class, more);
    bed_text(b, "config.json", text);
    static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    st_numbers(&s, "model.embed_tokens.weight", "F16", vocab, 4, 1);
    st_numbers(&s, "model.norm.weight", "F16", 0, 4, 1);
    st_numbers(&s, "model.layers.0.input_layernorm.weight", "F16", 0, 4, 1);
    st_numbers(&s, "model.layers.0.post_attention_layernorm.weight", "F16", 0, 4, 1);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[100];
        snprintf(name, sizeof name, "model.layers.0.%s.weight", parts[i]);
        st_numbers(&s, name, "F16", 4, 4, 1);
    }
    st_save(&s, b, "model.safetensors");
}

static gguf *taken(const bed *b, import_report *r) {
    err   e = {0};
    gguf *g = bed_import(b, (import_options){0}, r, &e);
    assert_ok(g, e);
    return g;
}

static void done(bed *b, gguf *g, import_report *r) {
    gguf_close(g);
    import_report_free(r);
    bed_close(b);
}

static void refused(bed *b, const char *says) {
    import_report r;
    err           e = {0};
    if (bed_import(b, (import_options){0}, &r, &e))
        fail_msg("taken instead of \"%s\"", says);
    assert_says(e, says);
    import_report_free(&r);
    bed_close(b);
}

static void token_is(const gguf *g, size_t i, const char *text, int type) {
    gguf_str s = gguf_array_string(g, "tokenizer.ggml.tokens", i);
    if (s.len != strlen(text) || memcmp(s.data, text, s.len) != 0)
        fail_msg("token %zu is \"%.*s\", not \"%s\"", i, (int)s.len, s.data, text);
    if ((int)gguf_array_number(g, "tokenizer.ggml.token_type", i) != type)
        fail_msg("token %zu is of type %g, not %d", i, gguf_array_number(g, "tokenizer.ggml.token_type", i), type);
}

static void text_is(const gguf *g, const char *key, const char *expected) {
    gguf_str s;
    err      e = {0};
    assert_ok(gguf_string(g, key, &s, &e), e);
    if (s.len != strlen(expected) || memcmp(s.data, expected, s.len) != 0)
        fail_msg("%s is \"%.*s\", not \"%s\"", key, (int)s.len, s.data, expected);
}

static int64_t whole(const gguf *g, const char *key) {
    int64_t v = -1;
    err     e = {0};
    assert_ok(gguf_int(g, key, 0, INT64_MAX, &v, &e), e);
    return v;
}

static bool flag(const gguf *g, const char *key) {
    bool v = false;
    err  e = {0};
    assert_ok(gguf_bool(g, key, &v, &e), e);
    return v;
}

/* ---- real vocabularies ---- */

#define CL100K(digits)                                                                                                 \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|" \
    "'d)|"                                                                                                             \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}" digits                                                          \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"                         \
    "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":"    \
    "false}]}"

static const struct {
    const char *name, *class, *pre_tokenizer, *pre;
    bool        ignore_merges, pairs;
} real_ones[] = {
    {"gpt-2", "Qwen2ForCausalLM", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "gpt-2", false, false},
    {"qwen2", "Qwen2ForCausalLM", CL100K(""), "qwen2", false, true},
    {"llama-bpe", "LlamaForCausalLM", CL100K("{1,3}"), "llama-bpe", true, false},
    {"starcoder", "Qwen2ForCausalLM",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}",
     "starcoder", false, true},
};

static void write_json(const bed *b, const gguf *g, size_t count, size_t i) {
    str       s = {0};
    gguf_kind kind;
    size_t    merges = 0;
    err       e = {0};
    str_addf(&s, "{\"added_tokens\":[");
    for (size_t t = 0, n = 0; t < count; t++) {
        int type = (int)gguf_array_number(g, "tokenizer.ggml.token_type", t);
        if (type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED)
            continue;
        gguf_str text = gguf_array_string(g, "tokenizer.ggml.tokens", t);
        str_addf(&s, "%s{\"id\":%zu,\"special\":%s,\"content\":", n++ ? "," : "", t,
                 type == TOKEN_CONTROL ? "true" : "false");
        str_json(&s, text.data, text.len);
        str_addc(&s, '}');
    }
    str_addf(&s, "],\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\",\"ignore_merges\":%s,\"vocab\":{",
             real_ones[i].pre_tokenizer, real_ones[i].ignore_merges ? "true" : "false");
    for (size_t t = 0, n = 0; t < count; t++) {
        if ((int)gguf_array_number(g, "tokenizer.ggml.token_type", t) != TOKEN_NORMAL)
            continue;
        gguf_str text = gguf_array_string(g, "tokenizer.ggml.tokens", t);
        str_adds(&s, n++ ? "," : "");
        str_json(&s, text.data, text.len);
        str_addf(&s, ":%zu", t);
    }
    str_adds(&s, "},\"merges\":[");
    assert_ok(gguf_array(g, "tokenizer.ggml.merges", &kind, &merges, &e), e);
    for (size_t m = 0; m < merges; m++) {
        gguf_str    text = gguf_array_string(g, "tokenizer.ggml.merges", m);
        const char *space = memchr(text.data, ' ', text.len);
        str_adds(&s, m ? "," : "");
        if (!real_ones[i].pairs) {
            str_json(&s, text.data, text.len);
            continue;
        }
        str_addc(&s, '[');
        str_json(&s, text.data, (size_t)(space - text.data));
        str_addc(&s, ',');
        str_json(&s, space + 1, text.len - (size_t)(space - text.data) - 1);
        str_addc(&s, ']');
    }
    str_adds(&s, "]}}");
    assert_false(s.failed);
    bed_file(b, "tokenizer.json", s.data, s.len);
    str_free(&s);
}

static void same_strings(const gguf *a, const gguf *c, const char *key, size_t count) {
    for (size_t i = 0; i < count; i++) {
        gguf_str x = gguf_array_string(a, key, i), y = gguf_array_string(c, key, i);
        if (x.len != y.len || memcmp(x.data, y.data, x.len) != 0)
            fail_msg("%s[%zu] is \"%.*s\", was \"%.*s\"", key, i, (int)y.len, y.data, (int)x.len, x.data);
    }
}

static void real_byte_level(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof real_ones / sizeof *real_ones; i++) {
        char          path[160];
        err           e = {0};
        bed           b;
        import_report r;
        gguf_kind     kind;
        size_t        count, merges, now;
        snprintf(path, sizeof path, VOCABS "%s.gguf", real_ones[i].name);
        gguf *was = gguf_open(path, &e);
        if (!was) {
            print_message("%s is not here: skipped\n", path);
            continue;
        }
        assert_ok(gguf_array(was, "tokenizer.ggml.tokens", &kind, &count, &e), e);
        assert_ok(gguf_array(was, "tokenizer.ggml.merges", &kind, &merges, &e), e);
        folder(&b, real_ones[i].class, "", (int64_t)count);
        write_json(&b, was, count, i);
        gguf *is = taken(&b, &r);
        text_is(is, "tokenizer.ggml.model", "gpt2");
        text_is(is, "tokenizer.ggml.pre", real_ones[i].pre);
        assert_ok(gguf_array(is, "tokenizer.ggml.tokens", &kind, &now, &e), e);
        assert_int_equal(now, count);
        same_strings(was, is, "tokenizer.ggml.tokens", count);
        assert_ok(gguf_array(is, "tokenizer.ggml.merges", &kind, &now, &e), e);
        assert_int_equal(now, merges);
        same_strings(was, is, "tokenizer.ggml.merges", merges);
        for (size_t t = 0; t < count; t++)
            if (gguf_array_number(was, "tokenizer.ggml.token_type", t) == TOKEN_CONTROL)
                assert_true(gguf_array_number(is, "tokenizer.ggml.token_type", t) == TOKEN_CONTROL);
        gguf_close(was);
        done(&b, is, &r);
    }
}

/* ---- SentencePiece ---- */

static void put_varint(str *s, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        str_addc(s, (char)(v | 0x80));
    str_addc(s, (char)v);
}

static void put_piece(str *s, const char *text, size_t n, float score, int type) {
    str p = {0};
    put_varint(&p, 1 << 3 | 2);
    put_varint(&p, n);
    str_add(&p, text, n);
    put_varint(&p, 2 << 3 | 5);
    str_add(&p, &score, 4);
    if (type != TOKEN_NORMAL) { /* left out, as protobuf does with a default */
        put_varint(&p, 3 << 3);
        put_varint(&p, (uint64_t)type);
    }
    put_varint(s, 1 << 3 | 2);
    put_varint(s, p.len);
    str_add(s, p.data, p.len);
    str_free(&p);
}

static void put_end(str *s, int model_type, bool dummy_prefix) {
    put_varint(s, 2 << 3 | 2);
    put_varint(s, 2);
    put_varint(s, 3 << 3);
    put_varint(s, (uint64_t)model_type);
    put_varint(s, 3 << 3 | 2);
    put_varint(s, 4);
    put_varint(s, 3 << 3);
    put_varint(s, dummy_prefix);
    put_varint(s, 4 << 3);
    put_varint(s, 0);
}

static void real_sentencepiece(void **state) {
    (void)state;
    err           e = {0};
    bed           b;
    import_report r;
    gguf_kind     kind;
    size_t        count;
    str           s = {0};
    gguf         *was = gguf_open(VOCABS "llama-spm.gguf", &e);
    if (!was) {
        skip();
        return;
    }
    assert_ok(gguf_array(was, "tokenizer.ggml.tokens", &kind, &count, &e), e);
    for (size_t t = 0; t < count; t++) {
        gguf_str text = gguf_array_string(was, "tokenizer.ggml.tokens", t);
        put_piece(&s, text.data, text.len, (float)gguf_array_number(was, "tokenizer.ggml.scores", t),
                  (int)gguf_array_number(was, "tokenizer.ggml.token_type", t));
    }
    put_end(&s, 2, true);
    folder(&b, "LlamaForCausalLM", ",\"bos_token_id\":1,\"eos_token_id\":2", (int64_t)count + 3);
    bed_file(&b, "tokenizer.model", s.data, s.len);
    bed_text(&b, "tokenizer_config.json", "{\"add_bos_token\":true,\"add_eos_token\":false,\"unk_token\":\"<unk>\"}");
    bed_text(&b, "added_tokens.json", "{\"<pad>\":32000,\"marked\\u2581word\":32001}");
    gguf *is = taken(&b, &r);
    text_is(is, "tokenizer.ggml.model", "llama");
    same_strings(was, is, "tokenizer.ggml.tokens", count);
    for (size_t t = 0; t < count; t++) {
        assert_true(gguf_array_number(was, "tokenizer.ggml.scores", t) ==
                    gguf_array_number(is, "tokenizer.ggml.scores", t));
        assert_true(gguf_array_number(was, "tokenizer.ggml.token_type", t) ==
                    gguf_array_number(is, "tokenizer.ggml.token_type", t));
    }
    token_is(is, 32000, "<pad>", TOKEN_CONTROL);
    token_is(is, 32001, "marked word", TOKEN_USER_DEFINED);
    token_is(is, 32002, "[PAD32002]", TOKEN_UNUSED);
    assert_int_equal(whole(is, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(whole(is, "tokenizer.ggml.eos_token_id"), 2);
    assert_int_equal(whole(is, "tokenizer.ggml.unknown_token_id"), 0);
    assert_true(flag(is, "tokenizer.ggml.add_bos_token"));
    assert_false(flag(is, "tokenizer.ggml.add_eos_token"));
    assert_true(flag(is, "tokenizer.ggml.add_space_prefix"));
    str_free(&s);
    gguf_close(was);
    done(&b, is, &r);
}

typedef struct split_merge {
    float    score;
    size_t   token, left; /* bytes of the left half */
    gguf_str text;
} split_merge;

static int by_score(const void *a, const void *b) {
    const split_merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->token != y->token ? (x->token > y->token) - (x->token < y->token)
                                : (x->left > y->left) - (x->left < y->left);
}

/* Llama 2's vocabulary as tokenizers writes it: merges for every way to make a token of two, in the order of scores.
 * The scores that the import makes of them must encode a text as the scores that they were made of. */
static void real_pieces_of_json(void **state) {
    (void)state;
    err           e = {0};
    bed           b;
    import_report r;
    gguf_kind     kind;
    size_t        count, merges = 0;
    str           s = {0};
    gguf         *was = gguf_open(VOCABS "llama-spm.gguf", &e);
    if (!was) {
        skip();
        return;
    }
    assert_ok(gguf_array(was, "tokenizer.ggml.tokens", &kind, &count, &e), e);
    tokenizer   *before = tokenizer_open(was, &e);
    split_merge *list = malloc(count * 64 * sizeof *list);
    str_adds(&s, "{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},\"added_tokens\":[{\"id\":0,"
                 "\"special\":true,\"content\":\"<unk>\"},{\"id\":1,\"special\":true,\"content\":\"<s>\"},{\"id\":2,"
                 "\"special\":true,\"content\":\"</s>\"}],\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
                 "\"unk_token\":\"<unk>\",\"vocab\":{");
    for (size_t t = 0; t < count; t++) {
        gguf_str text = gguf_array_string(was, "tokenizer.ggml.tokens", t);
        str_adds(&s, t ? "," : "");
        str_json(&s, text.data, text.len);
        str_addf(&s, ":%zu", t);
        for (size_t at = 1; t >= 259 && at < text.len; at++)
            if (((unsigned char)text.data[at] & 0xc0) != 0x80 && tokenizer_find(before, text.data, at) >= 0 &&
                tokenizer_find(before, text.data + at, text.len - at) >= 0)
                list[merges++] = (split_merge){(float)gguf_array_number(was, "tokenizer.ggml.scores", t), t, at, text};
    }
    qsort(list, merges, sizeof *list, by_score);
    str_adds(&s, "},\"merges\":[");
    for (size_t i = 0; i < merges; i++) {
        str_adds(&s, i ? ",[" : "[");
        str_json(&s, list[i].text.data, list[i].left);
        str_addc(&s, ',');
        str_json(&s, list[i].text.data + list[i].left, list[i].text.len - list[i].left);
        str_addc(&s, ']');
    }
    str_adds(&s, "]}}");
    folder(&b, "LlamaForCausalLM", "", (int64_t)count);
    bed_file(&b, "tokenizer.json", s.data, s.len);
    gguf      *is = taken(&b, &r);
    tokenizer *after = tokenizer_open(is, &e);
    assert_ok(after, e);
    static const char text[] = "Hello, world! The quick brown fox said:\n\n  \xe2\x80\x9cSchr\xc3\xb6"
                               "dinger\xe2\x80\x9d 12345 "
                               "\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\xa6\x99 internationalisation unbelievable";
    token_ids         x = {0}, y = {0};
    assert_ok(tokenizer_encode(before, text, sizeof text - 1, (encode_options){false, false}, &x, &e), e);
    assert_ok(tokenizer_encode(after, text, sizeof text - 1, (encode_options){false, false}, &y, &e), e);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++)
        if (x.ids[i] != y.ids[i])
            fail_msg("token %zu is %d (%s), was %d (%s)", i, y.ids[i], tokenizer_text(after, y.ids[i]), x.ids[i],
                     tokenizer_text(before, x.ids[i]));
    token_ids_free(&x);
    token_ids_free(&y);
    tokenizer_close(before);
    tokenizer_close(after);
    free(list);
    str_free(&s);
    gguf_close(was);
    done(&b, is, &r);
}

static void unigram_model(void **state) {
    (void)state;
    bed           b;
    import_report r;
    str           s = {0};
    put_piece(&s, "<unk>", 5, 0, TOKEN_UNKNOWN);
    put_piece(&s, "a", 1, -1.5f, TOKEN_NORMAL);
    put_end(&s, 1, false);
    folder(&b, "LlamaForCausalLM", "", 2);
    bed_file(&b, "tokenizer.model", s.data, s.len);
    gguf *g = taken(&b, &r);
    text_is(g, "tokenizer.ggml.model", "t5");
    token_is(g, 1, "a", TOKEN_NORMAL);
    assert_true(gguf_array_number(g, "tokenizer.ggml.scores", 1) == -1.5);
    assert_false(flag(g, "tokenizer.ggml.add_space_prefix"));
    assert_false(flag(g, "tokenizer.ggml.remove_extra_whitespaces"));
    str_free(&s);
    done(&b, g, &r);
}

/* Each cut of a small model file, and each byte of it changed. */
static void hostile_model(void **state) {
    (void)state;
    bed b;
    str s = {0};
    put_piece(&s, "<unk>", 5, 0, TOKEN_UNKNOWN);
    put_piece(&s, "ab", 2, -1, TOKEN_NORMAL);
    put_end(&s, 2, true);
    folder(&b, "LlamaForCausalLM", "", 2);
    int bad = 0;
    for (size_t at = 0; at < s.len; at++)
        for (int how = 0; how < 4; how++) {
            import_report r;
            err           e = {0};
            char         *copy = malloc(s.len);
            memcpy(copy, s.data, s.len);
            copy[at] = (char)(how == 1 ? 0xff : how == 2 ? copy[at] ^ 0x10 : how == 3 ? 0 : copy[at]);
            bed_file(&b, "tokenizer.model", copy, how ? s.len : at);
            import_options o = {.dir = b.dir, .out = b.out, .dry_run = true};
            if (!import_folder(&o, &r, &e)) {
                bad++;
                assert_true(strlen(e.text) > 20);
                assert_int_not_equal(e.code, ERR_INTERNAL);
            }
            import_report_free(&r);
            free(copy);
        }
    assert_true(bad > (int)s.len);
    str_free(&s);
    bed_close(&b);
}

/* ---- tokenizer.json, small ---- */

/* Llama 2's kind: scores by the order of merges. */
static void pieces_of_json(void **state) {
    (void)state;
    bed           b;
    import_report r;
    folder(&b, "LlamaForCausalLM", "", 9);
    bed_text(
        &b, "tokenizer.json",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\","
        "\"special\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
        "\"\\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":"
        "0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},"
        "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,"
        "\"<0x41>\":2,\"a\":3,\"b\":4,\"\\u2581\":5,\"ab\":6,\"\\u2581a\":7},\"merges\":[\"\\u2581 a\",\"a b\"]}}");
    bed_text(&b, "tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"},\"unk_token\":\"<unk>\"}");
    gguf *g = taken(&b, &r);
    text_is(g, "tokenizer.ggml.model", "llama");
    token_is(g, 0, "<unk>", TOKEN_UNKNOWN);
    token_is(g, 1, "<s>", TOKEN_CONTROL);
    token_is(g, 2, "<0x41>", TOKEN_BYTE);
    token_is(g, 7,
             "\xe2\x96\x81"
             "a",
             TOKEN_NORMAL);
    token_is(g, 8, "[PAD8]", TOKEN_UNUSED);
    assert_true(gguf_array_number(g, "tokenizer.ggml.scores", 7) == 0);
    assert_true(gguf_array_number(g, "tokenizer.ggml.scores", 6) == -1);
    assert_true(gguf_array_number(g, "tokenizer.ggml.scores", 3) < -1);
    assert_true(flag(g, "tokenizer.ggml.add_space_prefix"));
    assert_true(flag(g, "tokenizer.ggml.add_bos_token"));
    assert_int_equal(whole(g, "tokenizer.ggml.bos_token_id"), 1);
    done(&b, g, &r);
}

#define SMALL(pre, more)                                                                                               \
    "{\"pre_tokenizer\":" pre ",\"added_tokens\":[{\"id\":4,\"content\":\"<|im_end|>\",\"special\":false},{\"id\":5,"  \
    "\"content\":\"<tool>\",\"special\":false},{\"id\":6,\"content\":\"<eos>\",\"special\":true}]" more                \
    ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"\\u0120\":2,\"ab\":3},\"merges\":[[\"a\",\"b\"]]}}"

static void special_and_templates(void **state) {
    (void)state;
    bed           b;
    import_report r;
    folder(&b, "Qwen2ForCausalLM", ",\"eos_token_id\":4,\"bos_token_id\":6", 8);
    bed_text(&b, "tokenizer.json", SMALL(CL100K(""), ""));
    bed_text(
        &b, "tokenizer_config.json",
        "{\"eos_token\":\"<eos>\",\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},{\"name\":\"tool use\","
        "\"template\":\"T\"}]}");
    bed_text(&b, "generation_config.json", "{\"eos_token_id\":[6,4]}");
    gguf *g = taken(&b, &r);
    token_is(g, 4, "<|im_end|>", TOKEN_CONTROL); /* by its looks */
    token_is(g, 5, "<tool>", TOKEN_USER_DEFINED);
    token_is(g, 6, "<eos>", TOKEN_CONTROL);
    token_is(g, 7, "[PAD7]", TOKEN_UNUSED);
    assert_int_equal(whole(g, "tokenizer.ggml.eos_token_id"), 6); /* the tokenizer's word goes before config.json's */
    assert_int_equal(whole(g, "tokenizer.ggml.bos_token_id"), 6);
    assert_int_equal(whole(g, "tokenizer.ggml.eot_token_id"), 4);
    assert_false(flag(g, "tokenizer.ggml.add_bos_token"));
    text_is(g, "tokenizer.chat_template", "D");
    text_is(g, "tokenizer.chat_template.tool_use", "T");
    gguf_close(g);
    import_report_free(&r);
    bed_text(&b, "chat_template.jinja", "J");
    g = taken(&b, &r);
    text_is(g, "tokenizer.chat_template", "J");
    done(&b, g, &r);
}

static void json_refusals(void **state) {
    static const struct {
        const char *json, *says;
    } rows[] = {
        {SMALL("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x+\"},\"behavior\":\"Isolated\"}", ""),
         "cuts words by an expression that pare does not know: x+"},
        {SMALL("{\"type\":\"Whitespace\"}", ""), "a part that pare does not know: Whitespace"},
        {SMALL("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", ""), "adds a space before the text"},
        {SMALL("{\"type\":\"ByteLevel\"}", ",\"normalizer\":{\"type\":\"Lowercase\"}"), "the normalizer Lowercase"},
        {"{\"model\":{\"type\":\"WordLevel\"}}", "neither BPE, WordPiece nor Unigram"},
        {"{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"}}", "marks the ends of words"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},"
         "\"merges\":[]}}",
         "two tokens have the id 0"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99},\"merges\":[]}}",
         "but the embedding has 8 rows"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
         "has the id -1"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":["
         "\"ab\"]}}",
         "a merge has no two halves"},
        {"{\"model\":", "tokenizer.json: not JSON"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bed b;
        folder(&b, "Qwen2ForCausalLM", "", 8);
        bed_text(&b, "tokenizer.json", rows[i].json);
        refused(&b, rows[i].says);
    }
    bed b;
    folder(&b, "Qwen2ForCausalLM", "", 8);
    refused(&b, "holds no tokenizer");
}

static void older_files(void **state) {
    (void)state;
    bed           b;
    import_report r;
    folder(&b, "Qwen2ForCausalLM", "", 4);
    bed_text(&b, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}");
    bed_text(&b, "merges.txt", "#version: 0.2\na b\n");
    gguf *g = taken(&b, &r);
    text_is(g, "tokenizer.ggml.pre", "qwen2");
    gguf_str merge = gguf_array_string(g, "tokenizer.ggml.merges", 0);
    assert_int_equal(merge.len, 3);
    assert_memory_equal(merge.data, "a b", 3);
    done(&b, g, &r);
}

static void bert_folder(bed *b) {
    st_file s = {0};
    bed_open(b);
    bed_text(b, "config.json",
             "{\"architectures\":[\"BertModel\"],\"hidden_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
             "\"intermediate_size\":4,\"max_position_embeddings\":8,\"layer_norm_eps\":1e-5,\"type_vocab_size\":2}");
    static const char *const parts[] = {"attention.self.query",   "attention.self.key", "attention.self.value",
                                        "attention.output.dense", "intermediate.dense", "output.dense"};
    st_numbers(&s, "bert.embeddings.word_embeddings.weight", "F32", 7, 4, 1);
    st_numbers(&s, "bert.embeddings.position_embeddings.weight", "F32", 8, 4, 1);
    st_numbers(&s, "bert.embeddings.token_type_embeddings.weight", "F32", 2, 4, 1);
    st_numbers(&s, "bert.embeddings.LayerNorm.gamma", "F32", 0, 4, 1);
    st_numbers(&s, "bert.pooler.dense.weight", "F32", 4, 4, 1);
    st_numbers(&s, "bert.encoder.layer.0.attention.output.LayerNorm.weight", "F32", 0, 4, 1);
    st_numbers(&s, "bert.encoder.layer.0.output.LayerNorm.weight", "F32", 0, 4, 1);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[100];
        snprintf(name, sizeof name, "bert.encoder.layer.0.%s.weight", parts[i]);
        st_numbers(&s, name, "F32", 4, 4, 1);
    }
    st_save(&s, b, "model.safetensors");
}

static void word_pieces(void **state) {
    (void)state;
    bed           b;
    import_report r;
    bert_folder(&b);
    bed_text(&b, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n##s\n");
    gguf *g = taken(&b, &r);
    text_is(g, "tokenizer.ggml.model", "bert");
    token_is(g, 2, "[CLS]", TOKEN_CONTROL);
    token_is(g, 5, "\xe2\x96\x81word", TOKEN_NORMAL);
    token_is(g, 6, "s", TOKEN_NORMAL);
    assert_int_equal(whole(g, "tokenizer.ggml.token_type_count"), 2);
    assert_non_null(gguf_tensor_named(g, "token_embd_norm.weight")); /* from gamma */
    gguf_close(g);
    import_report_free(&r);
    bed_text(
        &b, "tokenizer.json",
        "{\"added_tokens\":[{\"id\":0,\"content\":\"[PAD]\",\"special\":true},{\"id\":1,\"content\":\"[UNK]\","
        "\"special\":"
        "true},{\"id\":2,\"content\":\"[CLS]\",\"special\":true},{\"id\":3,\"content\":\"[SEP]\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":false},\"model\":{\"type\":\"WordPiece\",\"vocab\":{"
        "\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"[MASK]\":4,\"word\":5,\"##s\":6}}}");
    bed_text(&b, "tokenizer_config.json",
             "{\"cls_token\":\"[CLS]\",\"sep_token\":\"[SEP]\",\"pad_token\":\"[PAD]\",\"unk_token\":\"[UNK]\"}");
    g = taken(&b, &r);
    token_is(g, 6, "s", TOKEN_NORMAL);
    assert_int_equal(whole(g, "tokenizer.ggml.cls_token_id"), 2);
    assert_int_equal(whole(g, "tokenizer.ggml.bos_token_id"), 2);
    assert_int_equal(whole(g, "tokenizer.ggml.seperator_token_id"), 3);
    assert_int_equal(whole(g, "tokenizer.ggml.padding_token_id"), 0);
    assert_false(flag(g, "tokenizer.ggml.normalizer.lowercase"));
    done(&b, g, &r);
}

static void unigram_json(void **state) {
    (void)state;
    bed           b;
    import_report r;
    folder(&b, "LlamaForCausalLM", "", 3);
    bed_text(
        &b, "tokenizer.json",
        "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAECAwQ=\"},\"pre_tokenizer\":{\"type\":"
        "\"Metaspace\",\"prepend_scheme\":\"always\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>"
        "\",0],"
        "[\"x\",-2.5],[\"y\",-3]]}}");
    gguf     *g = taken(&b, &r);
    gguf_kind kind;
    size_t    n;
    err       e = {0};
    text_is(g, "tokenizer.ggml.model", "t5");
    token_is(g, 0, "<unk>", TOKEN_UNKNOWN);
    assert_true(gguf_array_number(g, "tokenizer.ggml.scores", 1) == -2.5);
    assert_ok(gguf_array(g, "tokenizer.ggml.precompiled_charsmap", &kind, &n, &e), e);
    assert_int_equal(n, 5);
    for (size_t i = 0; i < 5; i++)
        assert_true(gguf_array_number(g, "tokenizer.ggml.precompiled_charsmap", i) == (double)i);
    done(&b, g, &r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_byte_level),       cmocka_unit_test(real_sentencepiece),
                                       cmocka_unit_test(real_pieces_of_json),   cmocka_unit_test(unigram_model),
                                       cmocka_unit_test(hostile_model),         cmocka_unit_test(pieces_of_json),
                                       cmocka_unit_test(special_and_templates), cmocka_unit_test(json_refusals),
                                       cmocka_unit_test(older_files),           cmocka_unit_test(word_pieces),
                                       cmocka_unit_test(unigram_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
