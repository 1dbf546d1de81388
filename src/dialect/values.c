/* values.c - the answers to embeddings and rerank in OpenAI's form; see values.h. */
#include "dialect/values.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a list of vectors ---- */

bool values_begin(str *out) {
    return str_adds(out, "{\"object\":\"list\",\"data\":[");
}

/* |x| at most 1, to twelve decimals: more than a float32 of an embedding holds. */
static void write_part(double x, str *out) {
    char     text[16];
    uint64_t n = (uint64_t)(fabs(x) * 1e12 + 0.5);
    size_t   length = 12;
    str_adds(out, x < 0 && n > 0 ? "-" : "");
    str_addf(out, "%d", (int)(n / 1000000000000u));
    n %= 1000000000000u;
    for (int i = 11; i >= 0; i--, n /= 10) {
        text[i] = (char)('0' + n % 10);
    }
    while (length > 0 && text[length - 1] == '0') {
        length--;
    }
    if (length > 0) {
        str_addc(out, '.');
        str_add(out, text, length);
    }
}

/* What the numbers are to be divided by; 1: nothing. A vector cut short by its provider is no longer of length 1. */
static double divisor(values_reader v, bool unit) {
    double sum = 0, x;
    if (!unit) {
        return 1;
    }
    while (values_number(&v, &x)) {
        sum += x * x;
    }
    double length = sqrt(sum);
    return isfinite(length) && length > 0 && fabs(length - 1) > 1e-3 ? length : 1;
}

bool values_vector(values_reader *v, int index, bool unit, str *out) {
    if (!values_enter(v, '[')) {
        v->bad = true;
        return false;
    }
    double      by = divisor(*v, unit), x;
    const char *from = v->at;
    str_addf(out, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":[", index ? "," : "", index);
    for (bool first = true; values_number(v, &x); first = false) {
        if (by != 1) {
            str_adds(out, first ? "" : ",");
            write_part(x / by, out);
        }
    }
    if (by == 1 && !v->bad) {
        str_add(out, from, (size_t)(v->at - 1 - from)); /* the bracket was taken */
    }
    str_adds(out, "]}");
    return !v->bad && !out->failed;
}

bool values_end(const usage *u, str *out) {
    return str_addf(out, "],\"model\":\"\",\"usage\":{\"prompt_tokens\":%" PRId64 ",\"total_tokens\":%" PRId64 "}}",
                    u->prompt, u->prompt);
}

bool values_keep(str *text, answer *out, err *e) {
    size_t n = text->len;
    char  *raw = str_take(text);
    if (!raw) {
        str_free(text);
        return err_set(e, ERR_MEMORY, "Out of memory while reading an answer.");
    }
    out->raw = raw;
    out->raw_len = n;
    out->raw_dialect = &dialect_openai;
    return true;
}

/* ---- the shape that was asked for ---- */

typedef struct adapting {
    const request *r;
    values_reader  v;
    const char    *copied; /* the raw bytes before this are in `out` */
    str           *out;
} adapting;

static void copy_to(adapting *a, const char *to) {
    str_add(a->out, a->copied, (size_t)(to - a->copied));
    a->copied = to;
}

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The array in front of a->v as a string of base64 of little-endian float32. */
static bool write_base64(adapting *a) {
    uint32_t held = 0; /* bits that have come and have no letter yet */
    int      bits = 0;
    size_t   count = 0;
    double   x;
    copy_to(a, a->v.at);
    str_addc(a->out, '"');
    values_enter(&a->v, '[');
    while (values_number(&a->v, &x)) {
        float    value = (float)x;
        uint32_t word;
        char     text[8];
        size_t   n = 0;
        memcpy(&word, &value, sizeof word);
        for (int byte = 0; byte < 4; byte++) {
            held = held << 8 | (word >> 8 * byte & 255);
            for (bits += 8; bits >= 6; bits -= 6) {
                text[n++] = letters[held >> (bits - 6) & 63];
            }
        }
        str_add(a->out, text, n);
        count += n;
    }
    if (bits > 0) {
        str_addc(a->out, letters[held << (6 - bits) & 63]);
        count++;
    }
    str_add(a->out, "===", (4 - count % 4) % 4);
    str_addc(a->out, '"');
    a->copied = a->v.at;
    return !a->v.bad;
}

static bool adapt_vector(adapting *a) {
    const char *key;
    size_t      n;
    if (!values_enter(&a->v, '{')) {
        return values_skip(&a->v);
    }
    while (values_member(&a->v, &key, &n)) {
        bool list = values_key(key, n, "embedding") && *a->v.at == '[';
        if (!(list ? write_base64(a) : values_skip(&a->v))) {
            return false;
        }
    }
    return !a->v.bad;
}

static bool adapt_result(adapting *a) {
    const char *key, *from;
    size_t      n;
    int64_t     index = -1;
    bool        there = false, empty = true;
    if (!values_enter(&a->v, '{')) {
        return values_skip(&a->v);
    }
    while (values_member(&a->v, &key, &n)) {
        from = a->v.at;
        if (!values_skip(&a->v)) {
            return false;
        }
        empty = false;
        there = there || values_key(key, n, "document");
        if (values_key(key, n, "index") && *from >= '0' && *from <= '9' && a->v.at < a->v.end) {
            index = strtoll(from, NULL, 10); /* something follows, which is no digit */
        }
    }
    if (!a->v.bad && !there && !empty && index >= 0 && index < a->r->n_prompts && a->r->prompts[index].text) {
        copy_to(a, a->v.at - 1);
        str_adds(a->out, ",\"document\":{\"text\":");
        str_jsons(a->out, a->r->prompts[index].text);
        str_addc(a->out, '}');
    }
    return !a->v.bad;
}

/* Providers of other APIs do not say the model's name again: it is empty then. */
static bool adapt_model(adapting *a) {
    const char *from = a->v.at;
    bool        good = values_skip(&a->v);
    if (good && a->v.at - from == 2 && a->r->model) {
        copy_to(a, from);
        str_jsons(a->out, a->r->model);
        a->copied = a->v.at;
    }
    return good;
}

static bool adapt_list(adapting *a) {
    bool good = true;
    while (good && values_item(&a->v)) {
        good = a->r->kind == REQUEST_EMBEDDINGS ? adapt_vector(a) : adapt_result(a);
    }
    return good && !a->v.bad;
}

bool values_adapt(const request *r, const char *raw, size_t n, str *out) {
    bool        vectors = r->kind == REQUEST_EMBEDDINGS;
    bool        wanted = vectors ? r->base64 : r->return_documents;
    adapting    a = {.r = r, .v = {.at = raw, .end = raw + n}, .copied = raw, .out = out};
    size_t      before = out->len, key_n;
    const char *key;
    bool        good = values_enter(&a.v, '{');
    while (good && values_member(&a.v, &key, &key_n)) {
        if (values_key(key, key_n, "model") && *a.v.at == '"') {
            good = adapt_model(&a);
        } else if (wanted && values_key(key, key_n, vectors ? "data" : "results") && values_enter(&a.v, '[')) {
            good = adapt_list(&a);
        } else {
            good = values_skip(&a.v);
        }
    }
    if (!good || a.v.bad) { /* not to be understood: as it stands */
        out->len = before;
        a.copied = raw;
    }
    copy_to(&a, raw + n);
    return !out->failed;
}

bool values_finish(const request *r, answer *a, err *e) {
    str shaped = {0};
    if ((r->kind != REQUEST_EMBEDDINGS && r->kind != REQUEST_RERANK) || !a->raw || a->raw_dialect != &dialect_openai) {
        return true;
    }
    if (!values_adapt(r, a->raw, a->raw_len, &shaped)) {
        str_free(&shaped);
        return err_set(e, ERR_MEMORY, "Out of memory while reading an answer.");
    }
    free(a->raw);
    a->raw = NULL;
    return values_keep(&shaped, a, e);
}
