/* bpe_raw.c - BPE over characters: vocabularies in SentencePiece's writing that come with merges (Gemma 4 and others).
 *
 * As in spm.c a text falls apart where two bytes meet that no token contains: no merge can join what is left and right
 * of them. What merges to no token becomes <0xXX> tokens.                                                            */
#include <utf8proc.h>

#include "base/utf8.h"
#include "model/tokenizer/chars.h"
#include "model/tokenizer/internal.h"

/* A symbol that no merge knows. */
#define NOTHING UINT32_MAX

static uint32_t symbol_of(const tokenizer *t, const char *text, size_t n) {
    int64_t       extra;
    const int32_t id = vocab_find(&t->vocab, text, n);
    if (id >= 0) {
        return (uint32_t)id;
    }
    return map_get(t->bpe.extra, text, n, &extra) ? (uint32_t)extra : NOTHING;
}

static bool encode_part(encoder *c, const char *text, size_t n) {
    size_t count = 0;
    if (text[0] == '\n') { /* a run of line feeds is looked up whole first */
        const int32_t id = vocab_find(&c->t->vocab, text, n);
        if (id >= 0) {
            return token_ids_add(c->out, id);
        }
    }
    for (size_t at = 0, len; at < n; at += len, count++) {
        uint32_t cp;
        len = utf8_decode(text + at, n - at, &cp);
        if (!merge_space_symbols(&c->space, count + 1)) {
            return false;
        }
        c->space.symbols[count] =
            (merge_symbol){.id = symbol_of(c->t, text + at, len), .at = (uint32_t)at, .len = (uint32_t)len};
    }
    return bpe_merge(c, count, text, pieces_add_bytes);
}

/* Encodes c->text and empties it. */
static bool flush(encoder *c) {
    const size_t before = c->out->count;
    const size_t n = c->text.len;
    word         key;
    if (n == 0) {
        return true;
    }
    c->text.len = 0;
    word *slot = words_slot(&c->words, &key, c->text.data, n);
    if (slot && word_is(slot, &key)) {
        return token_ids_append(c->out, slot->ids, slot->count);
    }
    if (!encode_part(c, c->text.data, n)) {
        return false;
    }
    if (slot) {
        word_keep(slot, &key, c->out->ids + before, c->out->count - before);
    }
    return true;
}

static bool add_char(encoder *c, const char *bytes, size_t n) {
    str *text = &c->text;
    if (text->len > 0) {
        const bool line_ends = (text->data[text->len - 1] == '\n') != (bytes[0] == '\n');
        const bool apart = line_ends || pieces_apart(&c->t->pieces, text, bytes[0]) || text->len + n > MERGE_MAX;
        if (apart && !flush(c)) {
            return false;
        }
    }
    return text_add_few(text, bytes, n);
}

bool bpe_raw_encode(encoder *c, const char *text, size_t n) {
    const bool words = c->t->bpe.pattern->raw == SPLIT_RAW_WORDS;
    c->text.len = 0;
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t    cp = (uint8_t)text[at];
        const char *bytes = text + at;
        char        low[4];
        len = cp < 0x80 ? 1 : utf8_decode(text + at, n - at, &cp);
        size_t     out = len;
        const bool valid = len > 1 || (uint8_t)text[at] < 0x80;
        if (words && valid && chars_class(cp) & CHAR_SPACE) {
            if (!flush(c)) {
                return false;
            }
            continue;
        }
        if (!words && cp == ' ') {
            bytes = SPACE_MARK;
            out = 3;
        } else if (c->t->bpe.lower && valid) {
            out = utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), low);
            bytes = low;
        }
        if (!add_char(c, bytes, out)) {
            return false;
        }
    }
    return flush(c);
}
