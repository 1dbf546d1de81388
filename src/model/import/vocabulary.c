/* vocabulary.c - the vocabularies of tokenizer.json, and of the files that older models have instead. */
#include <stdlib.h>
#include <string.h>

#include "model/import/folder.h"
#include "model/import/tokens.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

enum { MAX_TEXT = 64 << 20, MAX_TOKEN = 8192 };

static bool refuse(tokens *t, const char *what) {
    return err_set(t->m->e, ERR_UNSUPPORTED, "%.200s/tokenizer.json: %s", t->dir, what);
}

static bool invalid(tokens *t, const char *what) {
    return err_set(t->m->e, ERR_INVALID, "%.200s/tokenizer.json: %s", t->dir, what);
}

static bool is_byte(const char *s, size_t n) {
    return n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && strspn(s + 3, "0123456789ABCDEFabcdef") >= 2;
}

/* {"text": id} */
static bool read_vocab(tokens *t, const tree *vocab) {
    if (!tree_is(vocab, TREE_OBJECT) || vocab->count == 0)
        return invalid(t, "the vocabulary is no object of ids by text");
    for (const tree *v = tree_first(vocab); v; v = v->next) {
        if (!tree_is(v, TREE_NUMBER) || !v->integer || v->key_len > MAX_TOKEN)
            return invalid(t, "an entry of the vocabulary has no whole number as its id, or too long a text");
        if (!tokens_set(t, v->whole, v->key, v->key_len, 0, TYPE_NORMAL, false))
            return false;
    }
    return true;
}

/* ---- merges ---- */

/* Half of a merge: spaces cannot stand in GGUF's form, which has one between the halves. */
static void add_half(str *out, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] == ' ')
            str_adds(out, "\xc4\xa0"); /* U+0120, how the byte-level alphabet writes a space */
        else
            str_addc(out, s[i]);
}

/* "a b" or ["a", "b"]: the two halves. */
static bool merge_halves(tokens *t, const tree *m, const char **left, size_t *n_left, const char **right,
                         size_t *n_right) {
    if (tree_is(m, TREE_STRING)) {
        const char *space = m->count > 2 ? memchr(m->u.text + 1, ' ', m->count - 2) : NULL;
        if (!space)
            return invalid(t, "a merge has no two halves");
        *left = m->u.text;
        *n_left = (size_t)(space - m->u.text);
        *right = space + 1;
        *n_right = m->count - *n_left - 1;
        return true;
    }
    const tree *a = tree_first(m), *b = a ? a->next : NULL;
    if (!tree_is(m, TREE_ARRAY) || m->count != 2 || !tree_is(a, TREE_STRING) || !tree_is(b, TREE_STRING) || !a->count ||
        !b->count)
        return invalid(t, "a merge is neither \"a b\" nor [\"a\", \"b\"]");
    *left = a->u.text;
    *n_left = a->count;
    *right = b->u.text;
    *n_right = b->count;
    return true;
}

static bool read_merges(tokens *t, const tree *merges) {
    if (!tree_is(merges, TREE_ARRAY))
        return invalid(t, "model.merges must be a list");
    t->merges = arena_zero(t->m->memory, (size_t)merges->count + 1, sizeof *t->merges);
    if (!t->merges)
        return import_no_memory(t->m);
    str one = {0};
    for (const tree *m = tree_first(merges); m; m = m->next) {
        const char *left, *right;
        size_t      n_left, n_right;
        if (!merge_halves(t, m, &left, &n_left, &right, &n_right)) {
            str_free(&one);
            return false;
        }
        str_clear(&one);
        add_half(&one, left, n_left);
        str_addc(&one, ' ');
        add_half(&one, right, n_right);
        const char *copy = one.failed ? NULL : arena_memdup(t->m->memory, one.data, one.len);
        if (!copy) {
            str_free(&one);
            return import_no_memory(t->m);
        }
        t->merges[t->merge_count++] = (gguf_str){copy, one.len};
    }
    str_free(&one);
    return true;
}

/* SentencePiece's BPE has scores instead of merges: the pair whose joined piece has the highest score goes first. So the
 * rank of the first merge that makes a piece gives its score. */
static bool scores_of_merges(tokens *t, const tree *merges) {
    float rank = 0;
    str   joined = {0};
    if (!tree_is(merges, TREE_ARRAY))
        return invalid(t, "model.merges must be a list");
    for (size_t i = 0; i < t->count; i++)
        t->scores[i] = t->types[i] == TYPE_NORMAL ? -1e6f : 0; /* made by no merge: never wanted for one */
    bool ok = true;
    for (const tree *m = tree_first(merges); ok && m; m = m->next) {
        const char *left, *right;
        size_t      n_left, n_right;
        int64_t     id;
        ok = merge_halves(t, m, &left, &n_left, &right, &n_right);
        if (!ok)
            break;
        str_clear(&joined);
        str_add(&joined, left, n_left);
        str_add(&joined, right, n_right);
        if (joined.failed)
            ok = import_no_memory(t->m);
        else if (!map_get(t->ids, joined.data, joined.len, &id) || id < 0 || (size_t)id >= t->count)
            ok = invalid(t, "a merge makes a text that is no token");
        else if (t->scores[id] == -1e6f)
            t->scores[id] = -rank;
        rank += 1;
    }
    str_free(&joined);
    return ok;
}

/* ---- normalizers ---- */

/* What the parts of a normalizer do, as far as GGUF can say it. */
typedef struct normal {
    bool        prepend, replace_space, lowercase, strips, nfc, squeezes;
    const tree *charsmap;
} normal;

static bool read_normalizer(tokens *t, const tree *n, normal *out, int depth) {
    const tree *type = tree_value(n, "type");
    if (!n)
        return true;
    if (tree_text_is(type, "Sequence")) {
        for (const tree *p = tree_first(tree_value(n, "normalizers")); p; p = p->next)
            if (depth > 3 || !read_normalizer(t, p, out, depth + 1))
                return depth > 3 ? refuse(t, "the normalizer is nested too deep") : false;
        return true;
    }
    if (tree_text_is(type, "NFC") || tree_text_is(type, "NFKC"))
        return out->nfc = true;
    if (tree_text_is(type, "Prepend") && tree_text_is(tree_value(n, "prepend"), SPACE_MARK))
        return out->prepend = true;
    const tree *pattern = tree_value(n, "pattern");
    if (tree_text_is(type, "Replace") && tree_text_is(tree_value(pattern, "String"), " ") &&
        tree_text_is(tree_value(n, "content"), SPACE_MARK))
        return out->replace_space = true;
    if (tree_text_is(type, "Replace") && tree_text_is(tree_value(pattern, "Regex"), " {2,}"))
        return out->squeezes = true;
    if (tree_text_is(type, "Precompiled")) {
        out->charsmap = tree_value(n, "precompiled_charsmap");
        return true;
    }
    if (tree_text_is(type, "BertNormalizer")) {
        const tree *lower = tree_value(n, "lowercase"), *strip = tree_value(n, "strip_accents");
        out->lowercase = !lower || lower->yes;
        out->strips = strip ? strip->yes : out->lowercase; /* BERT's own rule where it is not said */
        return true;
    }
    const char *name = tree_text(t->m->memory, type);
    return err_set(t->m->e, ERR_UNSUPPORTED,
                   "%.200s/tokenizer.json: the normalizer %.60s is one that GGUF cannot say here", t->dir,
                   name ? name : "without a type");
}

/* ---- kinds of models ---- */

static bool flag(const tree *object, const char *key) {
    const tree *f = tree_value(object, key);
    return tree_is(f, TREE_BOOL) && f->yes;
}

static bool text_set(const tree *object, const char *key) {
    const tree *f = tree_value(object, key);
    return tree_is(f, TREE_STRING) && f->count > 0;
}

static bool byte_level(tokens *t, const tree *model, const normal *n) {
    if (n->prepend || n->replace_space || n->squeezes || n->lowercase || n->charsmap)
        return refuse(t, "its normalizer changes the text before a byte-level BPE, which GGUF cannot say");
    if (n->nfc)
        import_note(t->m, "the tokenizer composes characters first (NFC), GGUF's readers do not: decomposed texts are "
                          "encoded as they are");
    t->model = "gpt2";
    t->pre = pre_name(t, tree_value(t->json, "pre_tokenizer"), flag(model, "ignore_merges"));
    t->add_bos = 0; /* readers add one by default for some; post_processor says when it is wanted */
    return t->pre && read_vocab(t, tree_value(model, "vocab")) && read_merges(t, tree_value(model, "merges")) &&
           tokens_added(t);
}

/* Whether the text gets a space before it. */
static int prefix_of(tokens *t, const normal *n) {
    const tree *pre = tree_value(t->json, "pre_tokenizer"), *said = tree_value(t->settings, "add_prefix_space");
    const tree *parts = tree_value(pre, "pretokenizers");
    if (tree_is(said, TREE_BOOL))
        return said->yes;
    if (n->prepend)
        return 1;
    for (const tree *p = parts ? tree_first(parts) : pre; p; p = parts ? p->next : NULL)
        if (tree_text_is(tree_value(p, "type"), "Metaspace")) {
            const tree *scheme = tree_value(p, "prepend_scheme"), *add = tree_value(p, "add_prefix_space");
            return scheme ? !tree_text_is(scheme, "never") : !add || add->yes;
        }
    return 0;
}

static void mark_bytes(tokens *t) {
    for (size_t i = 0; i < t->count; i++)
        if (t->texts[i].data && t->types[i] == TYPE_NORMAL && is_byte(t->texts[i].data, t->texts[i].len))
            t->types[i] = TYPE_BYTE;
}

/* Llama 2, Gemma: SentencePiece's BPE as tokenizers writes it. */
static bool pieces(tokens *t, const tree *model, const normal *n) {
    int64_t     id;
    const tree *unknown = tree_value(model, "unk_token");
    if (n->lowercase || n->charsmap || n->squeezes)
        return refuse(t, "its normalizer changes the text before a BPE of pieces, which GGUF cannot say");
    t->model = "llama";
    t->pre = "default";
    t->with_scores = true;
    t->space_prefix = prefix_of(t, n);
    if (!read_vocab(t, tree_value(model, "vocab")))
        return false;
    mark_bytes(t);
    if (!scores_of_merges(t, tree_value(model, "merges")) || !tokens_added(t))
        return false;
    if (tree_is(unknown, TREE_STRING) && map_get(t->ids, unknown->u.text, unknown->count, &id) && id >= 0 &&
        (size_t)id < t->count)
        t->types[id] = TYPE_UNKNOWN;
    return true;
}

static bool word_pieces(tokens *t, const tree *vocab, int lowercase, int strips) {
    t->model = "bert";
    t->pre = "bert-bge"; /* of BERT's own splitting, whatever the model */
    t->lowercase = lowercase;
    t->strip_accents = strips;
    return !vocab || (read_vocab(t, vocab) && tokens_added(t));
}

/* GGUF's form of word pieces: a word's beginning has a space mark, and the rest of it no "##". */
static bool phantom_spaces(tokens *t) {
    static const char mark[3] = {'\xe2', '\x96', '\x81'}; /* U+2581 */
    for (size_t i = 0; i < t->count; i++) {
        gguf_str *s = &t->texts[i];
        if (!s->data || t->types[i] == TYPE_CONTROL)
            continue;
        if (s->len >= 2 && memcmp(s->data, "##", 2) == 0) {
            *s = (gguf_str){s->data + 2, s->len - 2};
            continue;
        }
        char *marked = arena_alloc(t->m->memory, s->len + 4);
        if (!marked)
            return import_no_memory(t->m);
        memcpy(marked, mark, sizeof mark);
        memcpy(marked + sizeof mark, s->data, s->len);
        *s = (gguf_str){marked, s->len + sizeof mark};
    }
    return true;
}

static int base64_digit(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static bool decode_charsmap(tokens *t, const tree *text) {
    uint32_t bits = 0, have = 0;
    size_t   n = 0;
    if (!tree_is(text, TREE_STRING))
        return invalid(t, "precompiled_charsmap is no string");
    char *out = arena_alloc(t->m->memory, (size_t)text->count + 1);
    if (!out)
        return import_no_memory(t->m);
    for (uint32_t i = 0; i < text->count && text->u.text[i] != '='; i++) {
        int digit = base64_digit(text->u.text[i]);
        if (digit < 0)
            return invalid(t, "precompiled_charsmap is not base64");
        bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have & 0xff);
        }
    }
    t->charsmap = out;
    t->charsmap_len = n;
    return true;
}

/* [[text, score], ..] */
static bool unigram(tokens *t, const tree *model, const normal *n) {
    const tree *vocab = tree_value(model, "vocab"), *unknown = tree_value(model, "unk_id");
    int64_t     id = 0;
    if (n->lowercase)
        return refuse(t, "its normalizer changes the text before a unigram model, which GGUF cannot say");
    if (!tree_is(vocab, TREE_ARRAY) || vocab->count == 0)
        return invalid(t, "the vocabulary is no list of pieces and scores");
    t->model = "t5";
    t->pre = "default";
    t->with_scores = true;
    t->space_prefix = prefix_of(t, n);
    const tree *parts = tree_value(tree_value(t->json, "pre_tokenizer"), "pretokenizers");
    t->remove_spaces = n->squeezes || tree_text_is(tree_value(tree_first(parts), "type"), "WhitespaceSplit");
    for (const tree *v = tree_first(vocab); v; v = v->next, id++) {
        const tree *text = tree_first(v), *score = text ? text->next : NULL;
        if (!tree_is(text, TREE_STRING) || !tree_is(score, TREE_NUMBER) || text->count > MAX_TOKEN)
            return invalid(t, "an entry of the vocabulary is no piece with a score");
        if (!tokens_set(t, id, text->u.text, text->count, (float)score->u.number, TYPE_NORMAL, false))
            return false;
    }
    if (flag(model, "byte_fallback"))
        mark_bytes(t);
    if (!tokens_added(t) || (n->charsmap && !decode_charsmap(t, n->charsmap)))
        return false;
    if (tree_is(unknown, TREE_NUMBER) && unknown->integer && unknown->whole >= 0 && unknown->whole < id)
        t->types[unknown->whole] = TYPE_UNKNOWN;
    return true;
}

bool vocabulary_json(tokens *t) {
    const tree *model = tree_value(t->json, "model"), *type = tree_value(model, "type");
    normal      n = {0};
    if (!tree_is(model, TREE_OBJECT))
        return invalid(t, "has no model");
    if (!read_normalizer(t, tree_value(t->json, "normalizer"), &n, 0))
        return false;
    if (tree_text_is(type, "WordPiece")) {
        if (text_set(model, "continuing_subword_prefix") &&
            !tree_text_is(tree_value(model, "continuing_subword_prefix"), "##"))
            return refuse(t, "continues words with another mark than \"##\"");
        return word_pieces(t, tree_value(model, "vocab"), n.lowercase, n.strips) && phantom_spaces(t);
    }
    if (tree_text_is(type, "Unigram"))
        return unigram(t, model, &n);
    if (type && !tree_text_is(type, "BPE")) /* GPT-2's file has no type */
        return refuse(t, "its model is neither BPE, WordPiece nor Unigram");
    if (text_set(model, "continuing_subword_prefix") || text_set(model, "end_of_word_suffix"))
        return refuse(t, "marks the ends of words, which GGUF cannot say for BPE");
    return flag(model, "byte_fallback") ? pieces(t, model, &n) : byte_level(t, model, &n);
}

/* ---- older files ---- */

/* The next line without its end; false at the end of the text. */
static bool next_line(const char **at, const char *end, const char **line, size_t *n) {
    if (*at >= end)
        return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    while (*n && (*line)[*n - 1] == '\r')
        --*n;
    return true;
}

static bool merges_txt(tokens *t) {
    const char *text, *line;
    size_t      n, len, cap = 1;
    if (!folder_read(t->m->memory, t->dir, "merges.txt", MAX_TEXT, &text, &n, t->m->e))
        return false;
    const char *at = text, *end = text + n;
    for (size_t i = 0; i < n; i++)
        cap += text[i] == '\n';
    t->merges = arena_zero(t->m->memory, cap + 1, sizeof *t->merges);
    if (!t->merges)
        return import_no_memory(t->m);
    for (bool first = true; next_line(&at, end, &line, &len); first = false) {
        if (len == 0 || (first && line[0] == '#')) /* "#version: 0.2" */
            continue;
        const char *space = memchr(line, ' ', len);
        if (!space || space == line || space == line + len - 1)
            return err_set(t->m->e, ERR_INVALID, "%.200s/merges.txt: line \"%.*s\" has no two halves", t->dir,
                           (int)(len < 60 ? len : 60), line);
        t->merges[t->merge_count++] = (gguf_str){line, len};
    }
    return true;
}

static bool vocab_txt(tokens *t) {
    const char *text, *line, *at;
    size_t      n, len;
    int64_t     id = 0;
    const tree *lower = tree_value(t->settings, "do_lower_case"), *strip = tree_value(t->settings, "strip_accents");
    int         lowercase = !tree_is(lower, TREE_BOOL) || lower->yes;
    word_pieces(t, NULL, lowercase, tree_is(strip, TREE_BOOL) ? strip->yes : lowercase);
    if (!folder_read(t->m->memory, t->dir, "vocab.txt", MAX_TEXT, &text, &n, t->m->e))
        return false;
    for (at = text; next_line(&at, text + n, &line, &len); id++) {
        const bool special = len > 2 && line[0] == '[' && line[len - 1] == ']' && len <= 6 + 2;
        const bool known =
            special && (!memcmp(line, "[PAD]", 5) || !memcmp(line, "[UNK]", 5) || !memcmp(line, "[CLS]", 5) ||
                        !memcmp(line, "[SEP]", 5) || (len == 6 && !memcmp(line, "[MASK]", 6)));
        if (len > MAX_TOKEN)
            return err_set(t->m->e, ERR_INVALID, "%.200s/vocab.txt: line %lld is too long", t->dir, (long long)id + 1);
        if (!tokens_set(t, id, line, len, 0, known ? TYPE_CONTROL : TYPE_NORMAL, false))
            return false;
    }
    static const char *const names[SPECIALS] = {NULL, NULL, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
    for (int i = 0; i < SPECIALS; i++)
        if (names[i] && !map_get(t->ids, names[i], strlen(names[i]), &t->special[i]))
            t->special[i] = -1;
    return tokens_added(t) && phantom_spaces(t);
}

bool vocabulary_files(tokens *t, bool *found) {
    const tree *vocab;
    *found = true;
    if (folder_has(t->dir, "vocab.json") && folder_has(t->dir, "merges.txt")) {
        if (!t->m->arch->pre)
            return err_set(
                t->m->e, ERR_UNSUPPORTED,
                "%.200s: vocab.json and merges.txt do not say how %s cuts words; tokenizer.json does, and is "
                "missing",
                t->dir, t->m->arch->hf);
        t->model = "gpt2";
        t->pre = t->m->arch->pre;
        t->add_bos = 0;
        return folder_json(t->m->memory, t->dir, "vocab.json", &vocab, t->m->e) && read_vocab(t, vocab) &&
               merges_txt(t) && tokens_added(t);
    }
    if (folder_has(t->dir, "vocab.txt"))
        return vocab_txt(t);
    *found = false;
    return true;
}
