/* sentencepiece.c - tokenizer.model: a protobuf, read by hand.
 *
 * The messages, by field number (source: sentencepiece's sentencepiece_model.proto):
 *
 *   ModelProto       1 pieces*   2 trainer_spec   3 normalizer_spec
 *   SentencePiece    1 piece (string)   2 score (float)   3 type (enum, 1 when absent)
 *   TrainerSpec      3 model_type: 1 unigram, 2 BPE, 3 word, 4 char
 *   NormalizerSpec   2 precompiled_charsmap (bytes)   3 add_dummy_prefix   4 remove_extra_whitespaces
 *
 * A field is a varint of number << 3 | wire type; wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four. */
#include <string.h>

#include "base/utf8.h"
#include "model/import/folder.h"
#include "model/import/tokens.h"

enum { MAX_MODEL = 64 << 20, MAX_PIECE = 4096, MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

typedef struct wire {
    const uint8_t *at, *end;
    tokens        *t;
} wire;

typedef struct field {
    uint32_t number;
    int      type;
    uint64_t value; /* of types 0, 1 and 5 */
    wire     bytes; /* of type 2 */
} field;

static bool damaged(const wire *w, const char *what) {
    return err_set(w->t->m->e, ERR_INVALID, "%.200s/tokenizer.model: %s: not a SentencePiece model", w->t->dir, what);
}

static bool varint(wire *w, uint64_t *out) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end)
            return damaged(w, "it ends inside a number");
        uint8_t b = *w->at++;
        value |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *out = value;
            return true;
        }
    }
    return damaged(w, "a number has more than 64 bits");
}

static bool fixed(wire *w, size_t n, uint64_t *out) {
    if ((size_t)(w->end - w->at) < n)
        return damaged(w, "it ends inside a number");
    *out = 0;
    memcpy(out, w->at, n); /* little-endian on both sides */
    w->at += n;
    return true;
}

static bool next_field(wire *w, field *f) {
    uint64_t key, n;
    if (!varint(w, &key))
        return false;
    f->type = (int)(key & 7);
    if (key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return damaged(w, "a field has an impossible number");
    f->number = (uint32_t)(key >> 3);
    switch (f->type) {
    case 0:
        return varint(w, &f->value);
    case 1:
        return fixed(w, 8, &f->value);
    case 5:
        return fixed(w, 4, &f->value);
    case 2:
        if (!varint(w, &n))
            return false;
        if (n > (uint64_t)(w->end - w->at))
            return damaged(w, "a field is longer than what holds it");
        f->bytes = (wire){w->at, w->at + n, w->t};
        w->at += n;
        return true;
    default:
        return damaged(w, "a field is of an unknown kind");
    }
}

static float as_float(uint64_t bits) {
    uint32_t low = (uint32_t)bits;
    float    f;
    memcpy(&f, &low, sizeof f);
    return f;
}

/* ---- pieces ---- */

static bool user_text(tokens *t, const char **text, size_t *n) {
    str out = {0};
    for (size_t i = 0; i < *n;) {
        bool mark = *n - i >= 3 && memcmp(*text + i, "\xe2\x96\x81", 3) == 0;
        str_addc(&out, mark ? ' ' : (*text)[i]);
        i += mark ? 3 : 1;
    }
    *n = out.len;
    *text = out.failed ? NULL : arena_memdup(t->m->memory, out.data ? out.data : "", out.len);
    str_free(&out);
    return *text || import_no_memory(t->m);
}

static bool read_piece(wire w, int64_t id) {
    tokens     *t = w.t;
    const char *text = "";
    size_t      n = 0;
    float       score = 0;
    uint64_t    type = TYPE_NORMAL;
    field       f;
    while (w.at < w.end) {
        if (!next_field(&w, &f))
            return false;
        if (f.number == 1 && f.type == 2) {
            text = (const char *)f.bytes.at;
            n = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 2 && f.type == 5) {
            score = as_float(f.value);
        } else if (f.number == 3 && f.type == 0) {
            type = f.value;
        }
    }
    if (type < TYPE_NORMAL || type > TYPE_BYTE)
        return damaged(&w, "a piece is of an unknown type");
    if (n > MAX_PIECE || !utf8_valid(text, n, NULL))
        return damaged(&w, "a piece is too long or no UTF-8");
    if (!(score > -1e30f && score < 1e30f))
        return damaged(&w, "a piece's score is no number");
    if (type == TYPE_USER && !user_text(t, &text, &n))
        return false;
    return tokens_set(t, id, text, n, score, (int)type, false);
}

/* ---- the two specifications ---- */

static bool read_trainer(wire w, uint64_t *model_type) {
    field f;
    while (w.at < w.end) {
        if (!next_field(&w, &f))
            return false;
        if (f.number == 3 && f.type == 0)
            *model_type = f.value;
    }
    return true;
}

static bool read_normalizer(wire w) {
    field f;
    while (w.at < w.end) {
        if (!next_field(&w, &f))
            return false;
        if (f.number == 2 && f.type == 2) {
            w.t->charsmap = (const char *)f.bytes.at;
            w.t->charsmap_len = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 3 && f.type == 0) {
            w.t->space_prefix = f.value != 0;
        } else if (f.number == 4 && f.type == 0) {
            w.t->remove_spaces = f.value != 0;
        }
    }
    return true;
}

static bool read_model(tokens *t, wire w, uint64_t *model_type) {
    int64_t id = 0;
    field   f;
    while (w.at < w.end) {
        if (!next_field(&w, &f))
            return false;
        if (f.type == 2 && f.number <= 3 &&
            !(f.number == 1   ? read_piece(f.bytes, id++)
              : f.number == 2 ? read_trainer(f.bytes, model_type)
                              : read_normalizer(f.bytes)))
            return false;
    }
    return id > 0 || damaged(&(wire){.t = t}, "it has no pieces");
}

bool sentencepiece_read(tokens *t) {
    const char *data;
    size_t      n;
    uint64_t    model_type = MODEL_UNIGRAM; /* the format's default */
    if (!folder_read(t->m->memory, t->dir, "tokenizer.model", MAX_MODEL, &data, &n, t->m->e))
        return false;
    t->space_prefix = 1; /* defaults of the format, too */
    t->remove_spaces = 1;
    if (!read_model(t, (wire){(const uint8_t *)data, (const uint8_t *)data + n, t}, &model_type))
        return false;
    if (model_type != MODEL_UNIGRAM && model_type != MODEL_BPE)
        return err_set(t->m->e, ERR_UNSUPPORTED,
                       "%.200s/tokenizer.model: is of the type %llu; pare imports unigram (1) and BPE (2)", t->dir,
                       (unsigned long long)model_type);
    t->model = model_type == MODEL_BPE ? "llama" : "t5";
    t->pre = "default";
    t->with_scores = true;
    const tree *prefix = tree_value(t->settings, "add_prefix_space");
    if (tree_is(prefix, TREE_BOOL))
        t->space_prefix = prefix->yes;
    if (model_type == MODEL_BPE) { /* GGUF's "llama" knows neither */
        if (t->charsmap_len)
            import_note(t->m,
                        "tokenizer.model normalises characters, which GGUF's kind of it does not: rare characters may "
                        "be encoded otherwise");
        t->charsmap_len = 0;
        t->remove_spaces = -1;
    }
    return tokens_added(t);
}
