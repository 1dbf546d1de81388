/* WordPiece, BPE over characters, and which tokens end a text: small vocabularies, the ids worked out by hand. */
#include "model/vocab_files.h"

#include "model/gguf_write.h"

typedef struct small { /* a file: tokens by their texts, up to the first NULL */
    const char *model, *pre, *name;
    const char *tokens[64];
    const char *merges[16];
    const char *control;    /* these first characters make a token control */
    int         lower;      /* 1: yes, -1: no, 0: the file does not say */
    int         strip;      /* accents; the same */
    int64_t     bos_1;      /* id + 1 */
    bool        no_add_bos; /* the file says so */
} small;

typedef struct opened {
    str        file;
    gguf      *g;
    tokenizer *t;
} opened;

static opened open_small(const small *s) {
    opened       o = {0};
    err          e = {0};
    gguf_str     tokens[64], merges[16];
    int32_t      types[64];
    size_t       n = 0, m = 0;
    gguf_writer *w = gguf_write_open_memory(&o.file, &e);
    for (; s->tokens[n]; n++) {
        const char *text = s->tokens[n];
        const bool  control = s->control && strchr(s->control, text[0]) && strlen(text) > 1;
        tokens[n] = (gguf_str){text, strlen(text)};
        types[n] = strncmp(text, "<0x", 3) == 0 ? TOKEN_BYTE : control ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    for (; s->merges[m]; m++) {
        merges[m] = (gguf_str){s->merges[m], strlen(s->merges[m])};
    }
    gguf_write_text(w, "tokenizer.ggml.model", s->model);
    if (s->pre) {
        gguf_write_text(w, "tokenizer.ggml.pre", s->pre);
    }
    if (s->name) {
        gguf_write_text(w, "general.name", s->name);
    }
    gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, n);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, n);
    gguf_write_strings(w, "tokenizer.ggml.merges", merges, m);
    if (s->lower) {
        gguf_write_bool(w, "tokenizer.ggml.normalizer.lowercase", s->lower > 0);
    }
    if (s->strip) {
        gguf_write_bool(w, "tokenizer.ggml.normalizer.strip_accents", s->strip > 0);
    }
    if (s->bos_1) {
        gguf_write_int(w, "tokenizer.ggml.bos_token_id", GGUF_U32, s->bos_1 - 1);
    }
    if (s->no_add_bos) {
        gguf_write_bool(w, "tokenizer.ggml.add_bos_token", false);
    }
    assert_ok(gguf_write_finish(w, &e), e);
    o.g = gguf_open_memory("small", o.file.data, o.file.len, &e);
    assert_ok(o.g, e);
    o.t = tokenizer_open(o.g, &e);
    assert_ok(o.t, e);
    return o;
}

static void close_small(opened *o) {
    tokenizer_close(o->t);
    gguf_close(o->g);
    str_free(&o->file);
}

/* `want`: the tokens' texts, a blank after each. */
static void check(const opened *o, const char *text, encode_options how, const char *want) {
    token_ids ids = encode(o->t, text, strlen(text), how);
    str       got = {0};
    str_add(&got, "", 0);
    for (size_t i = 0; i < ids.count; i++) {
        str_addf(&got, "%s ", tokenizer_text(o->t, ids.ids[i]));
    }
    assert_string_equal(got.data, want);
    str_free(&got);
    token_ids_free(&ids);
}

static const encode_options plain = {0};
static const encode_options both = {true, true};

/* ---- WordPiece ---- */

static const small words = {.model = "bert",
                            .tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁un", "aff", "able", "▁a", "ble",
                                       "▁,",    "▁日",   "▁ca",   "fe",    "a",   "b",   "▁ß",   "▁É", "▁É",
                                       "▁é",    "▁$",    "▁€",    "▁cafe", "▁A",  "s",   "▁i"},
                            .control = "["};

static void test_wordpiece(void **state) {
    (void)state;
    opened o = open_small(&words);
    check(&o, "unaffable", plain, "▁un aff able ");
    check(&o, "Unaffable,unaffableb", plain, "▁un aff able ▁, ▁un aff able b ");
    check(&o, "unaffablex a", plain, "[UNK] ▁a "); /* one place without a piece: the whole word is unknown */
    check(&o, "x", plain, "[UNK] ");
    check(&o, " \t\n ", plain, "");
    check(&o, "", both, "[CLS] [SEP] ");
    check(&o, "a[SEP]a", both, "[CLS] ▁a [SEP] ▁a [SEP] ");
    check(&o, "[CLS]", plain, "[UNK] [UNK] [UNK] "); /* ordinary text: bracket, word, bracket */
    check(&o, "日日a", plain, "▁日 ▁日 ▁a ");        /* each is a word of its own */
    check(&o, "CAFÉ cafe\xCC\x81 Café", plain, "▁cafe ▁cafe ▁cafe ");
    check(&o,
          "ca\xC2\xAD"
          "fe\x01",
          plain, "▁cafe "); /* a soft hyphen and a control character are dropped */
    check(&o, "İ $€", plain, "▁i ▁$ ▁€ ");
    check(&o, "$a€", plain, "▁$ [UNK] ");      /* only ASCII's symbols stand alone */
    check(&o, "a\xFF\xC3 a", plain, "▁a ▁a "); /* not UTF-8: dropped */
    assert_true(tokenizer_adds_bos(o.t));
    assert_int_equal(tokenizer_bos(o.t), 2);
    close_small(&o);
}

static void test_wordpiece_cased(void **state) {
    (void)state;
    small  s = words;
    opened o;
    s.lower = -1;
    o = open_small(&s);
    check(&o, "A a É é", plain, "▁A ▁a ▁É ▁é "); /* without lower case accents stay, too */
    close_small(&o);
    s.lower = -1;
    s.strip = 1;
    o = open_small(&s);
    check(&o, "A cafés", plain, "▁A ▁cafe s ");
    close_small(&o);
    s.lower = 1;
    s.strip = -1;
    o = open_small(&s);
    check(&o, "A É", plain, "▁a ▁é ");
    close_small(&o);
}

/* The published vocabulary; ids from BERT's own documentation and code. */
static void test_bge(void **state) {
    (void)state;
    vocab_file o = {0};
    if (!vocab_file_open("bert-bge", &o)) {
        skip();
    }
    token_ids     ids = encode(o.t, "Hello, y'all! How are you 😁 ?", 32, both);
    const int32_t want[] = {101, 7592, 1010, 1061, 1005, 2035, 999, 2129, 2024, 2017, 100, 1029, 102};
    assert_int_equal(ids.count, sizeof(want) / sizeof(want[0]));
    assert_memory_equal(ids.ids, want, sizeof(want));
    str back = decode(o.t, &ids, false);
    assert_string_equal(back.data, " hello , y ' all ! how are you ?");
    str_free(&back);
    token_ids_free(&ids);
    vocab_file_close(&o);
}

/* ---- BPE over characters ---- */

static const small lines = {.model = "gemma4",
                            .tokens = {"<pad>", "<bos>", "<eos>", "▁", "a", "b", "▁a", "ab", "▁ab", "\n", "\n\n", "▁▁",
                                       "é", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "日"},
                            .merges = {"▁ a", "a b", "▁a b", "▁ ▁", "é \n", "日 x"},
                            .control = "<",
                            .bos_1 = 2,
                            .no_add_bos = true};

static void test_characters(void **state) {
    (void)state;
    opened o = open_small(&lines);
    check(&o, "ab ab", plain, "ab ▁ab "); /* no space is put in front */
    check(&o, "aab", plain, "a ab ");     /* "▁ a" is not here; "a b" joins the last two */
    check(&o, "  ab", plain, "▁ ▁ab ");   /* "▁ a" has the lowest rank */
    check(&o, "  b", plain, "▁▁ b ");
    check(&o, "a\n\nb", plain, "a \n\n b "); /* a run of line feeds is looked up whole: no merge makes it */
    check(&o, "é\n\n\n", plain, "é \n \n \n ");
    check(&o, "😀", plain, "<0xF0> <0x9F> <0x98> <0x80> ");
    check(&o, "日x", plain, "日 ");   /* a merge whose parts are no tokens; x has no byte token here */
    check(&o, "a", both, "<bos> a "); /* gemma's texts begin with it, whatever the file says */
    assert_false(tokenizer_strips_first_space(o.t));
    const char *piece;
    assert_int_equal(tokenizer_piece(o.t, 13, false, &piece), 1);
    assert_int_equal((uint8_t)*piece, 0xF0);
    assert_int_equal(tokenizer_piece(o.t, 8, false, &piece), 3);
    assert_memory_equal(piece, " ab", 3);
    close_small(&o);
}

static void test_white_space_words(void **state) {
    (void)state;
    small  s = {.model = "gpt2", .pre = "whitespace", .tokens = {"a", "b", "ab", "A", "é", " "}, .merges = {"a b"}};
    opened o = open_small(&s);
    check(&o, " a b\tab\xE3\x80\x80 A", plain, "a b ab A ");
    close_small(&o);
    s.lower = 1;
    o = open_small(&s);
    check(&o, "AB É", plain, "ab é ");
    close_small(&o);
}

/* ---- Which tokens end a text ---- */

static bool ends(const opened *o, const char *text) {
    const int32_t id = tokenizer_find(o->t, text, strlen(text));
    assert_true(id >= 0);
    return tokenizer_ends(o->t, id);
}

static void test_ends(void **state) {
    (void)state;
    small  s = {.model = "gpt2", .pre = "gpt-4o", .control = "<", .tokens = {"a", "<|end|>", "<|return|>", "<|call|>"}};
    opened o = open_small(&s);
    assert_true(ends(&o, "<|return|>") && ends(&o, "<|call|>"));
    assert_false(ends(&o, "<|end|>") || ends(&o, "a")); /* a message's end, where there are ends of a turn */
    close_small(&o);
    s = (small){.model = "gpt2", .pre = "gpt-4o", .tokens = {"a", "<|end|>", "</s>"}};
    o = open_small(&s);
    assert_true(ends(&o, "<|end|>"));
    assert_false(ends(&o, "</s>")); /* not control in this file */
    assert_int_equal(tokenizer_kind(o.t, 1), TOKEN_CONTROL);
    close_small(&o);
}

/* HF's lstrip, which files do not carry. */
static void test_mask_takes_space(void **state) {
    (void)state;
    small  s = {.model = "gpt2", .pre = "jina-v2-de", .control = "<", .tokens = {"a", "Ġ", "<mask>", "[MASK]"}};
    opened o = open_small(&s);
    check(&o, "a  <mask> a", both, "a <mask> Ġ a ");
    close_small(&o);
    s.pre = "modern-bert";
    s.name = "Modern-BERT base";
    s.control = "[";
    o = open_small(&s);
    check(&o, "a  [MASK] a", both, "a [MASK] Ġ a ");
    close_small(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordpiece),        cmocka_unit_test(test_wordpiece_cased),   cmocka_unit_test(test_bge),
        cmocka_unit_test(test_characters),       cmocka_unit_test(test_white_space_words), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_mask_takes_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
