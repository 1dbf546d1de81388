#include "model/synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "model/gguf_write.h"

typedef struct synth_shape {
    const char *name, *about;
    int         dim, layers, heads, kv_heads, ffn, vocab, context;
    float       rope_base;
} synth_shape;

static const synth_shape shapes[] = {
    {"llama-tiny", "0.2 million parameters, for tests", 64, 2, 4, 2, 192, 512, 256, 10000},
    {"llama-160m", "162 million parameters (LLaMA-160M)", 768, 12, 12, 12, 3072, 32000, 2048, 10000},
    {"llama-1b", "1.1 billion parameters (TinyLlama-1.1B)", 2048, 22, 32, 4, 5632, 32000, 2048, 10000},
    {"llama-8b", "8.0 billion parameters (Llama 3 8B)", 4096, 32, 32, 8, 14336, 128256, 8192, 500000},
};

enum { SHAPES = sizeof shapes / sizeof *shapes, PIECE_VALUES = 1 << 16, PROGRESS_BYTES = 16 << 20 };

const char *synth_shape_name(int i) {
    return i >= 0 && i < SHAPES ? shapes[i].name : NULL;
}

const char *synth_shape_about(int i) {
    return i >= 0 && i < SHAPES ? shapes[i].about : NULL;
}

static const synth_shape *shape_named(const char *name, err *e) {
    char   known[200];
    size_t n = 0;
    for (int i = 0; i < SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
        if (n < sizeof known)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", shapes[i].name);
    }
    err_set(e, ERR_NOT_FOUND, "there is no shape \"%.60s\"; there are %s", name, known);
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

typedef struct synth {
    const synth_shape  *shape;
    const block_format *type;
    uint64_t            state;
    gguf_writer        *w;
    arena              *memory; /* texts of the vocabulary */
    float              *values; /* [PIECE_VALUES] */
    uint8_t            *blocks; /* the same, as blocks of up to 4 bytes a value */
    int64_t             total, done, told;
    synth_progress      progress;
    void               *arg;
} synth;

static void random_blocks(synth *s, float deviation, int64_t n) {
    if (s->type->type == BLOCK_Q4_0) {
        random_q4_0(&s->state, deviation, s->blocks, n);
    } else if (s->type->type == BLOCK_Q8_0) {
        random_q8_0(&s->state, deviation, s->blocks, n);
    } else {
        for (int64_t i = 0; i < n; i++)
            s->values[i] = uniform(&s->state) * deviation * 1.7320508f;
        block_from_f32(s->type->type, s->values, s->blocks, n);
    }
}

static bool write_matrix(synth *s, int64_t rows, int64_t cols) {
    float   deviation = 1 / sqrtf((float)cols);
    int64_t left = rows * cols;
    while (left > 0) {
        int64_t n =
            left < PIECE_VALUES ? left : PIECE_VALUES; /* a multiple of the block: the whole and the piece are */
        size_t bytes = 0;
        random_blocks(s, deviation, n);
        if (!block_row_bytes(s->type, n, &bytes) || !gguf_write_data(s->w, s->blocks, bytes))
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

static bool tensor(synth *s, bool declare, const char *name, int64_t rows, int64_t cols) {
    if (!declare)
        return rows ? write_matrix(s, rows, cols) : write_norm(s, cols);
    int64_t             shape[2] = {cols, rows};
    const block_format *type = rows ? s->type : block_format_of(BLOCK_F32);
    size_t              bytes;
    gguf_write_tensor(s->w, name, type, rows ? 2 : 1, shape);
    if (rows && block_row_bytes(type, cols, &bytes))
        s->total += (int64_t)bytes * rows;
    return true;
}

/* `rows` 0: a norm of `cols` values. */
static bool layer_tensor(synth *s, bool declare, int layer, const char *part, int64_t rows, int64_t cols) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part);
    return tensor(s, declare, name, rows, cols);
}

static bool tensors(synth *s, bool declare) {
    const synth_shape *m = s->shape;
    int64_t            kv = (int64_t)m->dim / m->heads * m->kv_heads;
    bool               ok = tensor(s, declare, "token_embd.weight", m->vocab, m->dim);
    for (int i = 0; ok && i < m->layers; i++)
        ok = layer_tensor(s, declare, i, "attn_norm", 0, m->dim) &&
             layer_tensor(s, declare, i, "attn_q", m->dim, m->dim) &&
             layer_tensor(s, declare, i, "attn_k", kv, m->dim) && layer_tensor(s, declare, i, "attn_v", kv, m->dim) &&
             layer_tensor(s, declare, i, "attn_output", m->dim, m->dim) &&
             layer_tensor(s, declare, i, "ffn_norm", 0, m->dim) &&
             layer_tensor(s, declare, i, "ffn_gate", m->ffn, m->dim) &&
             layer_tensor(s, declare, i, "ffn_up", m->ffn, m->dim) &&
             layer_tensor(s, declare, i, "ffn_down", m->dim, m->ffn);
    return ok && tensor(s, declare, "output_norm.weight", 0, m->dim) &&
           tensor(s, declare, "output.weight", m->vocab, m->dim);
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

/* ---- the file ---- */

/* general.file_type: "mostly this", by GGUF's numbers; -1 where there is none. */
static int file_type(block_type type) {
    switch (type) {
    case BLOCK_F32:
        return 0;
    case BLOCK_F16:
        return 1;
    case BLOCK_Q4_0:
        return 2;
    case BLOCK_Q8_0:
        return 7;
    case BLOCK_BF16:
        return 32;
    }
    return -1;
}

static void write_keys(synth *s) {
    const synth_shape *m = s->shape;
    char               name[80];
    snprintf(name, sizeof name, "%s %s (random weights)", m->name, s->type->name);
    gguf_write_text(s->w, "general.architecture", "llama");
    gguf_write_text(s->w, "general.name", name);
    if (file_type(s->type->type) >= 0)
        gguf_write_int(s->w, "general.file_type", GGUF_U32, file_type(s->type->type));
    gguf_write_int(s->w, "general.quantization_version", GGUF_U32, 2);
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

bool synth_write(const char *shape, const block_format *type, uint64_t seed, const char *path, synth_progress progress,
                 void *arg, err *e) {
    synth s = {.shape = shape_named(shape, e), .type = type, .progress = progress, .arg = arg};
    if (!s.shape)
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
        ok = write_vocabulary(&s);
    }
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for a synthetic model");
        gguf_write_abandon(s.w);
    } else {
        tensors(&s, true);
        tensors(&s, false); /* what fails here, the writer remembers */
        ok = gguf_write_finish(s.w, e);
    }
    free(s.blocks);
    free(s.values);
    arena_free(s.memory);
    return ok;
}
