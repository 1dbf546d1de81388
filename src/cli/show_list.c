/* show_list.c - `pare show --metadata` and `--tensors`, and one tensor's values. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/show.h"

enum { TEXT_BYTES = 80, TEXT_ITEMS = 6, JSON_ITEMS = 16, PIECE_VALUES = 1 << 16 };

static const char *const kind_names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};

/* ---- metadata ---- */

static void add_float(str *out, double x, int digits, bool json) {
    if (isfinite(x)) {
        str_addf(out, "%.*g", digits, x);
    } else {
        str_adds(out, json ? "null" : isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
    }
}

/* The i-th number at `bytes`, which need not be aligned. */
static void add_number(str *out, gguf_kind kind, const void *bytes, size_t i, bool json) {
    static const size_t width[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t            u = 0;
    const char         *p = (const char *)bytes + i * width[kind];
    memcpy(&u, p, width[kind]); /* little-endian: the low bytes come first */
    if (kind == GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        add_float(out, (double)f, 9, json);
    } else if (kind == GGUF_F64) {
        double f;
        memcpy(&f, p, sizeof f);
        add_float(out, f, 17, json);
    } else if (kind == GGUF_BOOL) {
        str_adds(out, u ? "true" : "false");
    } else if (kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64) {
        int shift = 64 - 8 * (int)width[kind];
        str_addf(out, "%" PRId64, (int64_t)(u << shift) >> shift); /* gcc and clang extend the sign */
    } else {
        str_addf(out, "%" PRIu64, u);
    }
}

static void add_string(str *out, gguf_str s, bool json) {
    if (json) {
        show_json_text(out, s);
    } else {
        show_text(out, s, TEXT_BYTES);
    }
}

static void add_array(str *out, const gguf_value *v, bool json) {
    size_t most = json ? JSON_ITEMS : TEXT_ITEMS, n = v->count < most ? v->count : most;
    str_addc(out, '[');
    for (size_t i = 0; i < n; i++) {
        str_adds(out, i ? (json ? "," : ", ") : "");
        if (v->element == GGUF_STRING) {
            if (!json) {
                str_addc(out, '"');
            }
            add_string(out, v->strings[i], json);
            if (!json) {
                str_addc(out, '"');
            }
        } else {
            add_number(out, v->element, v->bytes, i, json);
        }
    }
    str_adds(out, n < v->count && !json ? ", ...]" : "]");
}

static void add_value(str *out, const gguf_value *v, bool json) {
    if (v->kind == GGUF_ARRAY) {
        add_array(out, v, json);
    } else if (v->kind == GGUF_STRING) {
        add_string(out, (gguf_str){v->bytes, v->count}, json);
    } else {
        add_number(out, v->kind, v->bytes, 0, json);
    }
}

void show_metadata(const gguf *g, bool json, str *out) {
    str_adds(out, json ? ",\"metadata\":[" : "");
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        gguf_value  v;
        const char *key = gguf_key_at(g, i, NULL);
        if (!gguf_value_at(g, i, &v)) {
            continue;
        }
        bool array = v.kind == GGUF_ARRAY;
        if (json) {
            str_addf(out, "%s{\"key\":", i ? "," : "");
            str_jsons(out, key);
            str_addf(out, ",\"kind\":\"%s\"", kind_names[v.kind]);
            if (array) {
                str_addf(out, ",\"element\":\"%s\",\"count\":%zu", kind_names[v.element], v.count);
            }
            str_adds(out, array ? ",\"first\":" : ",\"value\":");
            add_value(out, &v, true);
            str_addc(out, '}');
        } else {
            str_addf(out, "  %-44s ", key);
            str_addf(out, array ? "%s[%zu] " : "%s ", kind_names[array ? v.element : v.kind], v.count);
            add_value(out, &v, false);
            str_addc(out, '\n');
        }
    }
    str_adds(out, json ? "]" : "");
}

/* ---- tensors ---- */

void show_tensors(const gguf *g, bool json, str *out) {
    size_t wide = 8;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        size_t n = strlen(gguf_tensor_at(g, i)->name);
        wide = n > wide ? n : wide;
    }
    str_adds(out, json ? ",\"tensors\":[" : "");
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char               unknown[24], shape[100];
        size_t             n = 0;
        for (int d = 0; d < t->dims && n < sizeof shape; d++) {
            n +=
                (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRId64, d ? (json ? "," : " x ") : "", t->shape[d]);
        }
        snprintf(unknown, sizeof unknown, "type %d", t->type);
        const char *type = t->format ? t->format->name : unknown;
        if (json) {
            str_addf(out, "%s{\"name\":", i ? "," : "");
            str_jsons(out, t->name);
            str_addf(out, ",\"type\":\"%s\",\"shape\":[%s],\"bytes\":%zu}", type, shape, t->bytes);
        } else {
            str_addf(out, "  %-*s  %-8s %-24s %14zu bytes\n", (int)wide, t->name, type, shape, t->bytes);
        }
    }
    str_adds(out, json ? "]" : "");
}

/* ---- one tensor's values ---- */

static bool write_values(const gguf *g, const gguf_tensor *t, uint8_t *raw, float *values, FILE *out, err *e) {
    int64_t total = t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
    for (int64_t at = 0; at < total;) { /* pieces begin and end between blocks, which divide the rows */
        int64_t n = total - at < PIECE_VALUES ? total - at : PIECE_VALUES;
        size_t  each = (size_t)t->format->bytes, block = (size_t)t->format->values;
        if (!gguf_read(g, t, (size_t)at / block * each, raw, (size_t)n / block * each, e)) {
            return false;
        }
        block_to_f32(t->format->type, raw, values, n);
        if (fwrite(values, sizeof *values, (size_t)n, out) != (size_t)n) {
            return err_set(e, ERR_IO, "The values could not be written; is the disk full?");
        }
        at += n;
    }
    return true;
}

bool show_write_values(const gguf *g, const char *tensor, const char *out, err *e) {
    const gguf_tensor *t = gguf_tensor_named(g, tensor);
    if (!t) {
        return err_set(e, ERR_NOT_FOUND, "%.200s has no tensor %.100s; --tensors lists what there is.", gguf_name(g),
                       tensor);
    }
    if (!t->format) {
        return err_set(e, ERR_UNSUPPORTED, "Tensor %.100s is of the GGUF type %d, which pare does not know.", tensor,
                       t->type);
    }
    bool     standard = strcmp(out, "-") == 0;
    FILE    *f = standard ? stdout : fopen(out, "wb");
    uint8_t *raw = malloc((size_t)PIECE_VALUES * 4); /* of the widest type */
    float   *values = malloc((size_t)PIECE_VALUES * sizeof(float));
    bool     ok = f && raw && values;
    if (!f) {
        err_set(e, ERR_IO, "%s cannot be written: %s.", out, strerror(errno));
    } else if (!ok) {
        err_set(e, ERR_MEMORY, "Out of memory.");
    }
    ok = ok && write_values(g, t, raw, values, f, e);
    if (f && (standard ? fflush(f) : fclose(f)) != 0 && ok) {
        ok = err_set(e, ERR_IO, "%s could not be written; is the disk full?", out);
    }
    free(raw);
    free(values);
    return ok;
}
