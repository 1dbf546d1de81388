#include "model/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "model/gguf_write.h"

typedef struct synth_shape {
    const char *name, *about;
    int         dim, layers, heads, kv_heads, ffn, vocab, context;
    float       rope_base;
    bool        encoder; /* BERT with WordPiece, whose rows are embeddings; else llama with SPM */
} synth_shape;

static const synth_shape shapes[] = {
    {"llama-tiny", "0.2 million parameters, for tests", 64, 2, 4, 2, 192, 512, 256, 10000},
    {"llama-small", "1.3 million parameters, for tests of blocks of 256", 256, 2, 4, 2, 512, 512, 512, 10000},
    {"llama-160m", "162 million parameters (LLaMA-160M)", 768, 12, 12, 12, 3072, 32000, 2048, 10000},
    {"llama-1b", "1.1 billion parameters (TinyLlama-1.1B)", 2048, 22, 32, 4, 5632, 32000, 2048, 10000},
    {"llama-8b", "8.0 billion parameters (Llama 3 8B)", 4096, 32, 32, 8, 14336, 128256, 8192, 500000},
    {"bert-tiny", "0.2 million parameters, an encoder for tests", 64, 2, 4, 4, 256, 1024, 128, 0, true},
    {"minilm", "23 million parameters, an encoder (all-MiniLM-L6)", 384, 6, 12, 12, 1536, 30522, 512, 0, true},
};

/* A mixture has its sensitive matrices in `finer`. `file_type` is GGUF's number for general.file_type. */
typedef struct synth_type {
    const char *name;
    block_type  main, finer;
    int         file_type;
} synth_type;

static const synth_type types[] = {
    {"f32", BLOCK_F32, BLOCK_F32, 0},           {"f16", BLOCK_F16, BLOCK_F16, 1},
    {"bf16", BLOCK_BF16, BLOCK_BF16, 32},       {"q8_0", BLOCK_Q8_0, BLOCK_Q8_0, 7},
    {"q4_0", BLOCK_Q4_0, BLOCK_Q4_0, 2},        {"q4_1", BLOCK_Q4_1, BLOCK_Q4_1, 3},
    {"q5_0", BLOCK_Q5_0, BLOCK_Q5_0, 8},        {"q5_1", BLOCK_Q5_1, BLOCK_Q5_1, 9},
    {"q2_k", BLOCK_Q2_K, BLOCK_Q2_K, 10},       {"q3_k", BLOCK_Q3_K, BLOCK_Q3_K, 11},
    {"q4_k", BLOCK_Q4_K, BLOCK_Q4_K, 14},       {"q5_k", BLOCK_Q5_K, BLOCK_Q5_K, 16},
    {"q6_k", BLOCK_Q6_K, BLOCK_Q6_K, 18},       {"q4_k_m", BLOCK_Q4_K, BLOCK_Q6_K, 15},
    {"q5_k_m", BLOCK_Q5_K, BLOCK_Q6_K, 17},     {"iq4_nl", BLOCK_IQ4_NL, BLOCK_IQ4_NL, 25},
    {"iq4_xs", BLOCK_IQ4_XS, BLOCK_IQ4_XS, 30}, {"mxfp4", BLOCK_MXFP4, BLOCK_MXFP4, 38},
};

enum {
    SHAPES = sizeof shapes / sizeof *shapes,
    TYPES = sizeof types / sizeof *types,
    PIECE_VALUES = 1 << 16, /* a multiple of every block */
    PROGRESS_BYTES = 16 << 20
};

const char *synth_shape_name(int i) {
    return i >= 0 && i < SHAPES ? shapes[i].name : NULL;
}

const char *synth_shape_about(int i) {
    return i >= 0 && i < SHAPES ? shapes[i].about : NULL;
}

const char *synth_type_name(int i) {
    return i >= 0 && i < TYPES ? types[i].name : NULL;
}

/* "a, b, c" of what there is, for a sentence that refuses a name. */
static void list_names(const char *(*name_at)(int i), char *out, size_t size) {
    size_t n = 0;
    for (int i = 0; name_at(i) && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", name_at(i));
}

static const synth_shape *shape_named(const char *name, err *e) {
    char known[400];
    for (int i = 0; i < SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    list_names(synth_shape_name, known, sizeof known);
    err_set(e, ERR_NOT_FOUND, "there is no shape \"%.60s\"; there are %s", name, known);
    return NULL;
}

static const synth_type *type_named(const char *name, err *e) {
    char known[400];
    for (int i = 0; i < TYPES; i++)
        if (strcasecmp(types[i].name, name) == 0)
            return &types[i];
    list_names(synth_type_name, known, sizeof known);
    err_set(e, ERR_NOT_FOUND, "\"%.60s\" is not a type of synthetic models; there are %s", name, known);
    return NULL;
}

/* ---- random numbers: xorshift64* (Vigna, arXiv:1402.6246) ---- */

static uint64_t next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

/* Uniform in [-1, 1). */
static float uniform(uint64_t *state) {
    return (float)(int32_t)(next(state) >> 32) * 0x1p-31f;
}

/* ---- weights ---- */

static void put_u16(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}

/* A Q4_0 block { f16 scale, 16 bytes of nibbles }: nibbles uniform over 1..15, that is -7..7, with 0 drawn twice: a
 * mean of zero and a deviation of 4.2 scales. */
static void random_q4_0(uint64_t *state, float deviation, uint8_t *out, int64_t n) {
    const uint64_t ones = 0x1111111111111111ULL;
    for (; n > 0; n -= 32, out += 18) {
        put_u16(out, f32_to_f16(deviation / 4.18f * (1 + 0.5f * uniform(state))));
        for (int half = 0; half < 2; half++) {
            uint64_t r = next(state);
            uint64_t zero = ~(r | r >> 1 | r >> 2 | r >> 3) & ones; /* nibbles of -8 become 0 */
            r |= zero << 3;
            memcpy(out + 2 + 8 * half, &r, sizeof r);
        }
    }
}

/* A Q8_0 block { f16 scale, 32 signed bytes }: uniform, a deviation of 74 scales. */
static void random_q8_0(uint64_t *state, float deviation, uint8_t *out, int64_t n) {
    for (; n > 0; n -= 32, out += 34) {
        put_u16(out, f32_to_f16(deviation / 73.9f * (1 + 0.5f * uniform(state))));
        for (int part = 0; part < 4; part++) {
            uint64_t r = next(state);
            memcpy(out + 2 + 8 * part, &r, sizeof r);
        }
    }
}

static void random_bytes(uint64_t *state, uint8_t *out, int n) {
    for (int i = 0; i < n; i += 8) {
        uint64_t r = next(state);
        memcpy(out + i, &r, n - i < 8 ? (size_t)(n - i) : sizeof r);
    }
}

/* Blocks { f16 d, f16 dmin, 12 bytes of scales and mins, 128 bytes of nibbles } of Q4_K, and of Q5_K, with 32 bytes more;
 * value = d scale q - dmin min: scales and mins uniform over 32..63 (their highest bits are bits 5 and 7 of the first eight
 * bytes), q over 0..15 or 0..31, and dmin = 7.5 d or 15.5 d: a mean of zero and a deviation of 244 d or 490 d. */
static void random_ranges(uint64_t *state, float deviation, bool five, uint8_t *out, int64_t n) {
    const int bytes = five ? 176 : 144;
    for (; n > 0; n -= 256, out += bytes) {
        float d = deviation / (five ? 490.5f : 243.6f) * (1 + 0.5f * uniform(state));
        put_u16(out, f32_to_f16(d));
        put_u16(out + 2, f32_to_f16((five ? 15.5f : 7.5f) * d));
        random_bytes(state, out + 4, bytes - 4);
        for (int i = 0; i < 8; i++)
            out[4 + i] |= 0xa0;
    }
}

/* A Q6_K block { 128 bytes of low and 64 of high bits, 16 int8 scales, f16 d }, value = d scale (q - 32): q uniform over
 * 0..63, scales over 64..127 with a sign, which takes the mean of q - 32 to zero; a deviation of 1798 d. */
static void random_q6_k(uint64_t *state, float deviation, uint8_t *out, int64_t n) {
    for (; n > 0; n -= 256, out += 210) {
        random_bytes(state, out, 192 + 16);
        for (int i = 192; i < 208; i++) {
            int scale = 64 + (out[i] & 63);
            out[i] = (uint8_t)(out[i] & 64 ? -scale : scale);
        }
        put_u16(out + 208, f32_to_f16(deviation / 1797.5f * (1 + 0.5f * uniform(state))));
    }
}

/* Formats whose blocks may have any bits, but for their halves: where d and the half for what is least lie (-1: there is
 * none), the deviation of values that all bits give when d is 1, and what the latter must be for their mean to be zero.
 * Where there is no such half, the sign of d takes the mean to zero. */
static const struct {
    block_type type;
    int        d, least;
    float      deviation, middle;
} random_formats[] = {
    {BLOCK_Q4_1, 0, 2, 4.61f, -7.5f},  {BLOCK_Q5_0, 0, -1, 9.25f, 0},   {BLOCK_Q5_1, 0, 2, 9.23f, -15.5f},
    {BLOCK_Q2_K, 80, 82, 13.9f, 1.5f}, {BLOCK_Q3_K, 108, -1, 43.3f, 0}, {BLOCK_IQ4_NL, 0, -1, 67.4f, 0},
    {BLOCK_IQ4_XS, 0, -1, 1246, 0},
};

static bool random_halves(uint64_t *state, block_type type, float deviation, uint8_t *out, int64_t n) {
    const block_format *f = block_format_of((int)type);
    size_t              i = 0;
    while (i < sizeof random_formats / sizeof *random_formats && random_formats[i].type != type)
        i++;
    if (i == sizeof random_formats / sizeof *random_formats)
        return false;
    for (; n > 0; n -= f->values, out += f->bytes) {
        float d = deviation / random_formats[i].deviation * (1 + 0.5f * uniform(state));
        random_bytes(state, out, f->bytes);
        if (random_formats[i].least >= 0)
            put_u16(out + random_formats[i].least, f32_to_f16(random_formats[i].middle * d));
        else if (next(state) >> 63)
            d = -d;
        put_u16(out + random_formats[i].d, f32_to_f16(d));
    }
    return true;
}

/* An MXFP4 block { exponent e, 16 bytes of nibbles }: a deviation of 5.85 2^(e - 128). Of the two exponents about the wanted
 * deviation each comes as often as makes the mean of the squares right. */
static void random_mxfp4(uint64_t *state, float deviation, uint8_t *out, int64_t n) {
    int   e;
    float part = 2 * frexpf(deviation / 5.852f, &e); /* 1 .. 2, times 2^(e - 1) */
    for (; n > 0; n -= 32, out += 17) {
        bool upper = 0.5f + 0.5f * uniform(state) < (part * part - 1) / 3;
        out[0] = (uint8_t)(128 + e - 1 + upper);
        random_bytes(state, out + 1, 16);
    }
}

typedef struct synth {
    const synth_shape *shape;
    const synth_type  *type;
    uint64_t           state;
    gguf_writer       *w;
    arena             *memory; /* texts of the vocabulary */
    float             *values; /* [PIECE_VALUES] */
    uint8_t           *blocks; /* the same, as blocks of up to 4 bytes a value */
    int64_t            total, done, told;
    synth_progress     progress;
    void              *arg;
    err               *e;
} synth;

static void random_blocks(synth *s, block_type type, float deviation, int64_t n) {
    if (type == BLOCK_Q4_0) {
        random_q4_0(&s->state, deviation, s->blocks, n);
    } else if (type == BLOCK_Q8_0) {
        random_q8_0(&s->state, deviation, s->blocks, n);
    } else if (type == BLOCK_Q4_K || type == BLOCK_Q5_K) {
        random_ranges(&s->state, deviation, type == BLOCK_Q5_K, s->blocks, n);
    } else if (type == BLOCK_Q6_K) {
        random_q6_k(&s->state, deviation, s->blocks, n);
    } else if (type == BLOCK_MXFP4) {
        random_mxfp4(&s->state, deviation, s->blocks, n);
    } else if (!random_halves(&s->state, type, deviation, s->blocks, n)) {
        for (int64_t i = 0; i < n; i++)
            s->values[i] = uniform(&s->state) * deviation * 1.7320508f;
        block_from_f32(type, s->values, s->blocks, n);
    }
}

static bool write_matrix(synth *s, const block_format *type, int64_t rows, int64_t cols) {
    float   deviation = 1 / sqrtf((float)cols);
    int64_t left = rows * cols;
    while (left > 0) {
        int64_t n = left < PIECE_VALUES ? left : PIECE_VALUES;
        size_t  bytes = 0;
        random_blocks(s, type->type, deviation, n);
        if (!block_row_bytes(type, n, &bytes) || !gguf_write_data(s->w, s->blocks, bytes))
            return false;
        left -= n;
        s->done += (int64_t)bytes;
        if (s->progress && (s->done - s->told >= PROGRESS_BYTES || s->done == s->total)) {
            s->told = s->done;
            s->progress(s->arg, s->done, s->total);
        }
    }
    return true;
}

static bool write_norm(synth *s, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        s->values[i] = 1 + 0.1f * uniform(&s->state);
    return gguf_write_data(s->w, s->values, (size_t)n * sizeof *s->values);
}

/* ---- tensors: one walk declares them, a second one writes them ---- */

/* `rows` 0: a norm of `cols` values. */
static bool tensor(synth *s, bool declare, const char *name, block_type matrix_type, int64_t rows, int64_t cols) {
    const block_format *type = block_format_of(rows ? (int)matrix_type : BLOCK_F32);
    int64_t             shape[2] = {cols, rows};
    size_t              bytes;
    if (!declare)
        return rows ? write_matrix(s, type, rows, cols) : write_norm(s, cols);
    if (!block_row_bytes(type, cols, &bytes))
        return err_set(s->e, ERR_UNSUPPORTED,
                       "%s has rows of %lld values, which do not divide into %s blocks of %d: take another type or a "
                       "larger shape than %s",
                       name, (long long)cols, type->name, type->values, s->shape->name);
    gguf_write_tensor(s->w, name, type, rows ? 2 : 1, shape);
    if (rows)
        s->total += (int64_t)bytes * rows;
    return true;
}

static bool layer_tensor(synth *s, bool declare, int layer, const char *part, block_type type, int64_t rows,
                         int64_t cols) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    return tensor(s, declare, name, type, rows, cols);
}

/* Where common Q4_K_M files have attn_v and ffn_down in the finer type: the first and the last eighth of the layers, and
 * every third between. */
static bool sensitive_layer(int i, int n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static bool layer(synth *s, bool declare, int i) {
    const synth_shape *m = s->shape;
    int64_t            kv = (int64_t)m->dim / m->heads * m->kv_heads;
    block_type         type = s->type->main, finer = sensitive_layer(i, m->layers) ? s->type->finer : type;
    return layer_tensor(s, declare, i, "attn_norm", type, 0, m->dim) &&
           layer_tensor(s, declare, i, "attn_q", type, m->dim, m->dim) &&
           layer_tensor(s, declare, i, "attn_k", type, kv, m->dim) &&
           layer_tensor(s, declare, i, "attn_v", finer, kv, m->dim) &&
           layer_tensor(s, declare, i, "attn_output", type, m->dim, m->dim) &&
           layer_tensor(s, declare, i, "ffn_norm", type, 0, m->dim) &&
           layer_tensor(s, declare, i, "ffn_gate", type, m->ffn, m->dim) &&
           layer_tensor(s, declare, i, "ffn_up", type, m->ffn, m->dim) &&
           layer_tensor(s, declare, i, "ffn_down", finer, m->dim, m->ffn);
}

/* Vectors of an encoder: "NAME.weight", about one, and "NAME.bias", about zero; `weight` false: the bias alone. */
static bool vectors(synth *s, bool declare, int layer, const char *part, bool weight, int64_t n) {
    char name[64];
    bool ok = true;
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    else
        snprintf(name, sizeof name, "%s.weight", part);
    if (weight)
        ok = tensor(s, declare, name, BLOCK_F32, 0, n);
    memcpy(strrchr(name, '.'), ".bias", sizeof ".bias");
    if (declare)
        return ok && tensor(s, declare, name, BLOCK_F32, 0, n);
    for (int64_t i = 0; i < n; i++)
        s->values[i] = 0.05f * uniform(&s->state);
    return ok && gguf_write_data(s->w, s->values, (size_t)n * sizeof *s->values);
}

static bool encoder_layer(synth *s, bool declare, int i) {
    const synth_shape *m = s->shape;
    block_type         type = s->type->main;
    return layer_tensor(s, declare, i, "attn_q", type, m->dim, m->dim) &&
           vectors(s, declare, i, "attn_q", false, m->dim) &&
           layer_tensor(s, declare, i, "attn_k", type, m->dim, m->dim) &&
           vectors(s, declare, i, "attn_k", false, m->dim) &&
           layer_tensor(s, declare, i, "attn_v", type, m->dim, m->dim) &&
           vectors(s, declare, i, "attn_v", false, m->dim) &&
           layer_tensor(s, declare, i, "attn_output", type, m->dim, m->dim) &&
           vectors(s, declare, i, "attn_output", false, m->dim) &&
           vectors(s, declare, i, "attn_output_norm", true, m->dim) &&
           layer_tensor(s, declare, i, "ffn_up", type, m->ffn, m->dim) &&
           vectors(s, declare, i, "ffn_up", false, m->ffn) &&
           layer_tensor(s, declare, i, "ffn_down", type, m->dim, m->ffn) &&
           vectors(s, declare, i, "ffn_down", false, m->dim) &&
           vectors(s, declare, i, "layer_output_norm", true, m->dim);
}

static bool encoder_tensors(synth *s, bool declare) {
    const synth_shape *m = s->shape;
    bool               ok = tensor(s, declare, "token_embd.weight", s->type->main, m->vocab, m->dim) &&
              tensor(s, declare, "position_embd.weight", BLOCK_F32, m->context, m->dim) &&
              tensor(s, declare, "token_types.weight", BLOCK_F32, 2, m->dim) &&
              vectors(s, declare, -1, "token_embd_norm", true, m->dim);
    for (int i = 0; ok && i < m->layers; i++)
        ok = encoder_layer(s, declare, i);
    return ok;
}

static bool tensors(synth *s, bool declare) {
    const synth_shape *m = s->shape;
    if (m->encoder)
        return encoder_tensors(s, declare);
    bool ok = tensor(s, declare, "token_embd.weight", s->type->main, m->vocab, m->dim);
    for (int i = 0; ok && i < m->layers; i++)
        ok = layer(s, declare, i);
    return ok && tensor(s, declare, "output_norm.weight", s->type->main, 0, m->dim) &&
           tensor(s, declare, "output.weight", s->type->finer, m->vocab, m->dim);
}

/* ---- vocabulary ---- */

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, how SPM writes a space */

/* GGUF's numbers of token types. */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6, FIRST_BYTE = 3, FIRST_NORMAL = FIRST_BYTE + 256, ASCII = 94 };

/* The i-th string of letters, shortest first: a .. z, aa .. zz, aaa .. */
static void letters(int i, char *out) {
    int length = 1, count = 26;
    while (i >= count) {
        i -= count;
        count *= 26;
        length++;
    }
    out[length] = 0;
    while (length > 0) {
        out[--length] = (char)('a' + i % 26);
        i /= 26;
    }
}

/* Token i: <unk>, <s>, </s>, the bytes, the space mark, printable ASCII, then strings of two and more letters, each
 * without and with the space mark before it. */
static void token_text(int i, char *out, size_t size) {
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    if (i < FIRST_BYTE)
        snprintf(out, size, "%s", first[i]);
    else if (i < FIRST_NORMAL)
        snprintf(out, size, "<0x%02X>", i - FIRST_BYTE);
    else if (i == FIRST_NORMAL)
        snprintf(out, size, SPACE_MARK);
    else if (i <= FIRST_NORMAL + ASCII)
        snprintf(out, size, "%c", '!' + i - FIRST_NORMAL - 1);
    else {
        char text[12];
        int  word = i - FIRST_NORMAL - ASCII - 1;
        letters(26 + word / 2, text);
        snprintf(out, size, "%s%s", word % 2 ? SPACE_MARK : "", text);
    }
}

static bool write_vocabulary(synth *s) {
    int       n = s->shape->vocab;
    gguf_str *texts = arena_zero(s->memory, (size_t)n, sizeof *texts);
    float    *scores = arena_zero(s->memory, (size_t)n, sizeof *scores);
    int32_t  *types = arena_zero(s->memory, (size_t)n, sizeof *types);
    if (!texts || !scores || !types)
        return false;
    for (int i = 0; i < n; i++) {
        char text[32];
        token_text(i, text, sizeof text);
        texts[i] = (gguf_str){arena_strdup(s->memory, text), strlen(text)};
        if (!texts[i].data)
            return false;
        types[i] = i == 0 ? UNKNOWN : i < FIRST_BYTE ? CONTROL : i < FIRST_NORMAL ? BYTE : NORMAL;
        scores[i] = i < FIRST_NORMAL ? 0 : (float)(FIRST_NORMAL - i);
    }
    gguf_write_text(s->w, "tokenizer.ggml.model", "llama");
    gguf_write_text(s->w, "tokenizer.ggml.pre", "default");
    gguf_write_strings(s->w, "tokenizer.ggml.tokens", texts, (size_t)n);
    gguf_write_array(s->w, "tokenizer.ggml.scores", GGUF_F32, scores, (size_t)n);
    gguf_write_array(s->w, "tokenizer.ggml.token_type", GGUF_I32, types, (size_t)n);
    gguf_write_int(s->w, "tokenizer.ggml.bos_token_id", GGUF_U32, 1);
    gguf_write_int(s->w, "tokenizer.ggml.eos_token_id", GGUF_U32, 2);
    gguf_write_int(s->w, "tokenizer.ggml.unknown_token_id", GGUF_U32, 0);
    gguf_write_bool(s->w, "tokenizer.ggml.add_bos_token", true);
    gguf_write_bool(s->w, "tokenizer.ggml.add_eos_token", false);
    return true;
}

/* An encoder's vocabulary: the special tokens, printable ASCII as a word's beginning and as a further piece (lower case,
 * as the tokenizer makes it), then strings of letters in the same two forms. */
static bool write_pieces(synth *s) {
    static const char *const first[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    enum { SPECIAL = sizeof first / sizeof *first };
    int       n = s->shape->vocab;
    gguf_str *texts = arena_zero(s->memory, (size_t)n, sizeof *texts);
    int32_t  *types = arena_zero(s->memory, (size_t)n, sizeof *types);
    if (!texts || !types)
        return false;
    for (int i = 0; i < n; i++) {
        char text[32], word[16] = "";
        int  at = (i - SPECIAL) / 2;
        if (i >= SPECIAL && at < ASCII)
            snprintf(word, sizeof word, "%c", '!' + at);
        else if (i >= SPECIAL)
            letters(26 + at - ASCII, word);
        snprintf(text, sizeof text, "%s%s", (i - SPECIAL) % 2 ? "" : SPACE_MARK, word);
        texts[i].data = arena_strdup(s->memory, i < SPECIAL ? first[i] : text);
        if (!texts[i].data)
            return false;
        texts[i].len = strlen(texts[i].data);
        types[i] = i == 1 ? UNKNOWN : i < SPECIAL ? CONTROL : NORMAL;
    }
    gguf_write_text(s->w, "tokenizer.ggml.model", "bert");
    gguf_write_text(s->w, "tokenizer.ggml.pre", "default");
    gguf_write_strings(s->w, "tokenizer.ggml.tokens", texts, (size_t)n);
    gguf_write_array(s->w, "tokenizer.ggml.token_type", GGUF_I32, types, (size_t)n);
    gguf_write_int(s->w, "tokenizer.ggml.padding_token_id", GGUF_U32, 0);
    gguf_write_int(s->w, "tokenizer.ggml.unknown_token_id", GGUF_U32, 1);
    gguf_write_int(s->w, "tokenizer.ggml.cls_token_id", GGUF_U32, 2);
    gguf_write_int(s->w, "tokenizer.ggml.seperator_token_id", GGUF_U32, 3);
    gguf_write_int(s->w, "tokenizer.ggml.mask_token_id", GGUF_U32, 4);
    return true;
}

/* ---- the file ---- */

static void write_encoder_keys(synth *s) {
    const synth_shape *m = s->shape;
    gguf_write_int(s->w, "bert.context_length", GGUF_U32, m->context);
    gguf_write_int(s->w, "bert.embedding_length", GGUF_U32, m->dim);
    gguf_write_int(s->w, "bert.block_count", GGUF_U32, m->layers);
    gguf_write_int(s->w, "bert.feed_forward_length", GGUF_U32, m->ffn);
    gguf_write_int(s->w, "bert.attention.head_count", GGUF_U32, m->heads);
    gguf_write_float(s->w, "bert.attention.layer_norm_epsilon", GGUF_F32, 1e-12);
    gguf_write_bool(s->w, "bert.attention.causal", false);
    gguf_write_int(s->w, "bert.pooling_type", GGUF_U32, 1);
}

static void write_keys(synth *s) {
    const synth_shape *m = s->shape;
    char               name[80];
    snprintf(name, sizeof name, "%s %s (random weights)", m->name, s->type->name);
    gguf_write_text(s->w, "general.architecture", m->encoder ? "bert" : "llama");
    gguf_write_text(s->w, "general.name", name);
    gguf_write_int(s->w, "general.file_type", GGUF_U32, s->type->file_type);
    gguf_write_int(s->w, "general.quantization_version", GGUF_U32, 2);
    if (m->encoder) {
        write_encoder_keys(s);
        return;
    }
    gguf_write_int(s->w, "llama.vocab_size", GGUF_U32, m->vocab);
    gguf_write_int(s->w, "llama.context_length", GGUF_U32, m->context);
    gguf_write_int(s->w, "llama.embedding_length", GGUF_U32, m->dim);
    gguf_write_int(s->w, "llama.block_count", GGUF_U32, m->layers);
    gguf_write_int(s->w, "llama.feed_forward_length", GGUF_U32, m->ffn);
    gguf_write_int(s->w, "llama.attention.head_count", GGUF_U32, m->heads);
    gguf_write_int(s->w, "llama.attention.head_count_kv", GGUF_U32, m->kv_heads);
    gguf_write_float(s->w, "llama.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-5);
    gguf_write_float(s->w, "llama.rope.freq_base", GGUF_F32, (double)m->rope_base);
    gguf_write_int(s->w, "llama.rope.dimension_count", GGUF_U32, m->dim / m->heads);
}

bool synth_write(const char *shape, const char *type, uint64_t seed, const char *path, synth_progress progress,
                 void *arg, err *e) {
    synth s = {.shape = shape_named(shape, e), .progress = progress, .arg = arg, .e = e};
    s.type = s.shape ? type_named(type, e) : NULL;
    if (!s.type)
        return false;
    s.state = (seed + 1) * 0x9e3779b97f4a7c15ULL; /* a state of zero would stay zero */
    s.state = s.state ? s.state : 1;
    s.w = gguf_write_open(path, e);
    if (!s.w)
        return false;
    s.memory = arena_new(1 << 16);
    s.values = malloc(PIECE_VALUES * sizeof *s.values);
    s.blocks = malloc((size_t)PIECE_VALUES * 4); /* no type takes more than four bytes a value */
    bool ok = s.memory && s.values && s.blocks;
    if (ok) {
        write_keys(&s);
        ok = s.shape->encoder ? write_pieces(&s) : write_vocabulary(&s);
    }
    if (!ok)
        err_set(e, ERR_MEMORY, "out of memory for a synthetic model");
    ok = ok && tensors(&s, true);
    if (!ok) {
        gguf_write_abandon(s.w);
    } else {
        tensors(&s, false); /* what fails here, the writer remembers */
        ok = gguf_write_finish(s.w, e);
    }
    free(s.blocks);
    free(s.values);
    arena_free(s.memory);
    return ok;
}
