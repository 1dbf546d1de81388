/* wordpiece.c - BERT's tokenizer: words between white space and punctuation, lower-cased and without accents, each cut
 * into the longest pieces of the vocabulary from the left; a word that cannot be cut is one unknown token.
 *
 * GGUF's vocabularies write a word's first piece with U+2581 before it and the others without "##". There is no limit
 * to a word's length (the published code gives up after 100 characters), as in llama.cpp. Sources: Devlin et al. 2018,
 * arXiv:1810.04805, and its tokenization.py for the classes of characters.                                           */
#include <pthread.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/tokenizer/chars.h"
#include "model/tokenizer/internal.h"

enum { IN_WORD, BETWEEN_WORDS, ALONE, DROPPED };

/* ---- Characters ---- */

static bool is_chinese(uint32_t cp) {
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) || (cp >= 0x20000 && cp <= 0x2A6DF) ||
           (cp >= 0x2A700 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x2F800 && cp <= 0x2FA1F);
}

static uint8_t role_of(uint32_t cp) {
    const int category = utf8proc_category((utf8proc_int32_t)cp);
    if (cp == '\t' || cp == '\n' || cp == '\r') {
        return BETWEEN_WORDS;
    }
    if (cp == 0 || cp == 0xFFFD || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF) {
        return DROPPED;
    }
    const unsigned class = chars_class(cp);
    if (class & CHAR_SPACE) {
        return BETWEEN_WORDS;
    }
    if (class & CHAR_PUNCTUATION || (cp < 0x80 && class & CHAR_SYMBOL) || is_chinese(cp)) {
        return ALONE;
    }
    return IN_WORD;
}

static uint8_t roles[0x10000]; /* the first plane; read-only after fill_roles */

static void fill_roles(void) {
    for (uint32_t cp = 0; cp < sizeof(roles); cp++) {
        roles[cp] = role_of(cp);
    }
}

static uint8_t role(uint32_t cp) {
    return cp < sizeof(roles) ? roles[cp] : role_of(cp);
}

/* ---- The vocabulary ---- */

static int32_t unknown_token(const tokenizer *t, const gguf *g) {
    int64_t id;
    if (gguf_int(g, "tokenizer.ggml.unknown_token_id", 0, (int64_t)t->vocab.count - 1, &id, NULL)) {
        return (int32_t)id;
    }
    id = vocab_find(&t->vocab, "[UNK]", 5);
    return (int32_t)(id >= 0 ? id : vocab_find(&t->vocab, "<unk>", 5));
}

bool wordpiece_open(tokenizer *t, const gguf *g, err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    chars_init();
    pthread_once(&once, fill_roles);
    wordpiece *w = &t->wordpiece;
    w->lower = true;
    if (!key_bool(g, "tokenizer.ggml.normalizer.lowercase", &w->lower, e)) {
        return false;
    }
    w->strip_accents = w->lower;
    if (!key_bool(g, "tokenizer.ggml.normalizer.strip_accents", &w->strip_accents, e)) {
        return false;
    }
    if (unknown_token(t, g) < 0) {
        return err_set(e, ERR_INVALID,
                       "%s: a WordPiece vocabulary must have an unknown token: neither "
                       "tokenizer.ggml.unknown_token_id nor [UNK] names one",
                       gguf_name(g));
    }
    t->space_prefix = true;
    return trie_of_vocab(&w->tokens, &t->vocab, 0, gguf_name(g), e) && vocab_pieces(&t->vocab, pieces_decode, e);
}

void wordpiece_close(tokenizer *t) {
    trie_close(&t->wordpiece.tokens);
}

/* ---- Encoding ---- */

/* Cuts a word; each place costs at most the longest token. */
static bool cut_word(encoder *c, const char *word, size_t n) {
    const trie  *tokens = &c->t->wordpiece.tokens;
    const size_t before = c->out->count;
    for (size_t at = 0, stop = 0; at < n; at = stop) {
        uint32_t node = 0;
        int32_t  id = -1;
        for (size_t i = at; i < n && (node = trie_step(tokens, node, (uint8_t)word[i])) != 0; i++) {
            if (tokens->value[node] >= 0) {
                id = tokens->value[node];
                stop = i + 1;
            }
        }
        if (id < 0) {
            c->out->count = before;
            return token_ids_add(c->out, c->t->unknown);
        }
        if (!token_ids_add(c->out, id)) {
            return false;
        }
    }
    return true;
}

/* Encodes the word in c->text, which begins with the mark, and leaves the mark. */
static bool flush(encoder *c) {
    const size_t mark = sizeof(SPACE_MARK) - 1;
    const size_t n = c->text.len;
    const size_t before = c->out->count;
    word         key;
    if (n == mark) {
        return true;
    }
    c->text.len = mark;
    word *slot = words_slot(&c->words, &key, c->text.data, n);
    if (slot && word_is(slot, &key)) {
        return token_ids_append(c->out, slot->ids, slot->count);
    }
    if (!cut_word(c, c->text.data, n)) {
        return false;
    }
    if (slot) {
        word_keep(slot, &key, c->out->ids + before, c->out->count - before);
    }
    return true;
}

/* A character after normalisation, `as` what it does to the word. */
static bool add_char(encoder *c, uint32_t cp, uint8_t as) {
    char         bytes[4];
    const size_t n = utf8_encode(c->t->wordpiece.lower ? (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp) : cp, bytes);
    if (as == IN_WORD) {
        return text_add_few(&c->text, bytes, n);
    }
    return flush(c) && text_add_few(&c->text, bytes, n) && flush(c);
}

static bool add_normalized(encoder *c, uint32_t cp) {
    const uint8_t as = role(cp);
    if (as == DROPPED) {
        return true;
    }
    if (as == BETWEEN_WORDS) {
        return flush(c);
    }
    if (!c->t->wordpiece.strip_accents) {
        return add_char(c, cp, as);
    }
    utf8proc_int32_t parts[32]; /* canonical decomposition; the longest has 4 characters */
    int              boundary = 0;
    const long       n = (long)utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 32, UTF8PROC_DECOMPOSE, &boundary);
    if (n < 1 || n > 32) {
        return add_char(c, cp, as);
    }
    for (long i = 0; i < n; i++) {
        if (utf8proc_category(parts[i]) != UTF8PROC_CATEGORY_MN &&
            !add_char(c, (uint32_t)parts[i], as == ALONE ? ALONE : role((uint32_t)parts[i]))) {
            return false;
        }
    }
    return true;
}

/* A byte that is not UTF-8 reads as U+FFFD and is dropped. */
bool wordpiece_encode(encoder *c, const char *text, size_t n, bool first) {
    const uint8_t upper_bit = c->t->wordpiece.lower ? 0x20 : 0;
    (void)first;
    c->text.len = 0;
    if (!text_add_few(&c->text, SPACE_MARK, sizeof(SPACE_MARK) - 1)) {
        return false;
    }
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t cp = (uint8_t)text[at];
        len = 1;
        if (cp < 0x80 && roles[cp] == IN_WORD) {
            const char low = (char)(cp >= 'A' && cp <= 'Z' ? cp | upper_bit : cp);
            if (!text_add_few(&c->text, &low, 1)) {
                return false;
            }
            continue;
        }
        if (cp >= 0x80) {
            len = utf8_decode(text + at, n - at, &cp);
        }
        if (!add_normalized(c, cp)) {
            return false;
        }
    }
    return flush(c);
}
