/* openai_values.c - writes the answers to embeddings and rerank, and reads what providers answered to them.
 *
 * A list of vectors has a million numbers in no time: they are written in a fixed nine significant digits, which is what
 * a float32 needs to be read back the same, without printf.                                                          */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/openai.h"

/* ---- numbers ---- */

/* x in [1e-6, 10): the digits of x 10^places as an integer of nine digits. */
static size_t write_fixed(double x, char *out) {
    static const double powers[] = {1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14};
    int                 more = 0;
    char               *p = out, digits[20];
    while (x * powers[more] < 1e8) {
        more++;
    }
    uint64_t n = (uint64_t)(x * powers[more] + 0.5);
    int      places = 8 + more, length = 0;
    for (; n > 0 || length <= places; n /= 10) { /* at least one digit before the point */
        digits[length++] = (char)('0' + n % 10);
    }
    while (length > places) {
        *p++ = digits[--length];
    }
    int zeros = 0;
    while (zeros < places && digits[zeros] == '0') {
        zeros++;
    }
    if (zeros < places) {
        *p++ = '.';
    }
    while (length > zeros) {
        *p++ = digits[--length];
    }
    return (size_t)(p - out);
}

/* False: not a number that JSON has. */
static bool write_number(float value, str *out) {
    double x = fabs((double)value);
    if (!isfinite(value)) {
        return false;
    }
    if (x >= 1e-6 && x < 10) {
        char text[32];
        text[0] = '-';
        size_t n = 1 + write_fixed(x, text + 1);
        str_add(out, value < 0 ? text : text + 1, value < 0 ? n : n - 1);
    } else {
        str_addf(out, "%.9g", (double)value);
    }
    return true;
}

static bool write_base64(const float *values, int n, str *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t          held = 0; /* bits that have come and have no letter yet */
    int               bits = 0, written = 0;
    char              text[8];
    str_addc(out, '"');
    for (int i = 0; i < n; i++) {
        uint32_t word;
        size_t   length = 0;
        if (!isfinite(values[i])) {
            return false;
        }
        memcpy(&word, &values[i], sizeof word);
        for (int byte = 0; byte < 4; byte++) {
            held = held << 8 | (word >> 8 * byte & 255);
            for (bits += 8; bits >= 6; bits -= 6) {
                text[length++] = letters[held >> (bits - 6) & 63];
            }
        }
        str_add(out, text, length);
        written += (int)length % 4;
    }
    if (bits > 0) {
        str_addc(out, letters[held << (6 - bits) & 63]);
        written++;
    }
    for (; written % 4; written++) {
        str_addc(out, '=');
    }
    str_addc(out, '"');
    return true;
}

static bool write_vector(const float *values, int n, str *out) {
    str_addc(out, '[');
    for (int i = 0; i < n; i++) {
        if (i > 0) {
            str_addc(out, ',');
        }
        if (!write_number(values[i], out)) {
            return false;
        }
    }
    return str_addc(out, ']');
}

/* ---- embeddings ---- */

static bool write_embeddings(const request *r, const answer *head, const float *values, int width, str *out) {
    str_reserve(out, (size_t)r->n_prompts * ((size_t)width * (r->base64 ? 6 : 13) + 64) + 256);
    str_adds(out, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < r->n_prompts; i++) {
        const float *vector = values + (size_t)i * (size_t)width;
        str_addf(out, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":", i ? "," : "", i);
        if (!r->base64 && !write_vector(vector, width, out)) {
            return false;
        }
        if (r->base64 && !write_base64(vector, width, out)) {
            return false;
        }
        str_addc(out, '}');
    }
    str_adds(out, "],\"model\":");
    str_jsons(out, head->model);
    return str_addf(out, ",\"usage\":{\"prompt_tokens\":%" PRId64 ",\"total_tokens\":%" PRId64 "}}", head->usage.prompt,
                    head->usage.prompt);
}

/* ---- rerank ---- */

typedef struct scored {
    int   index;
    float score;
} scored;

static int best_first(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->index - y->index;
}

static bool write_scores(const request *r, const answer *head, const scored *best, int64_t count, str *out) {
    str_adds(out, "{\"id\":");
    str_jsons(out, head->id);
    str_adds(out, ",\"object\":\"list\",\"model\":");
    str_jsons(out, head->model);
    str_adds(out, ",\"results\":[");
    for (int64_t i = 0; i < count; i++) {
        str_addf(out, "%s{\"index\":%d,\"relevance_score\":", i ? "," : "", best[i].index);
        if (!write_number(best[i].score, out)) {
            return false;
        }
        if (r->return_documents) {
            str_adds(out, ",\"document\":{\"text\":");
            str_jsons(out, r->prompts[best[i].index].text);
            str_addc(out, '}');
        }
        str_addc(out, '}');
    }
    return str_addf(out,
                    "],\"meta\":{\"billed_units\":{\"search_units\":1}},\"usage\":{\"prompt_tokens\":%" PRId64
                    ",\"total_tokens\":%" PRId64 "}}",
                    head->usage.prompt, head->usage.prompt);
}

static bool write_ranks(const request *r, const answer *head, const float *scores, str *out) {
    scored *best = malloc((size_t)r->n_prompts * sizeof *best);
    if (!best) {
        out->failed = true;
        return false;
    }
    for (int i = 0; i < r->n_prompts; i++) {
        best[i] = (scored){i, isnan(scores[i]) ? -INFINITY : scores[i]};
    }
    qsort(best, (size_t)r->n_prompts, sizeof *best, best_first);
    bool ok = write_scores(r, head, best, r->top_n && r->top_n < r->n_prompts ? r->top_n : r->n_prompts, out);
    free(best);
    return ok;
}

bool openai_write_values(const request *r, const answer *head, const float *values, int width, str *out) {
    bool ok =
        r->kind == REQUEST_RERANK ? write_ranks(r, head, values, out) : write_embeddings(r, head, values, width, out);
    return ok && !out->failed;
}

/* ---- a provider's answer ---- */

/* The value of a member of the top level, or NULL. The bytes are a provider's: nothing is taken for granted, and no tree
 * is built of a million numbers. */
static const char *find_member(const char *body, size_t n, const char *name, size_t *length) {
    size_t size = strlen(name), from = 0, key = 0, key_size = 0;
    int    depth = 0;
    bool   found = false;
    for (size_t i = 0; i < n; i++) {
        char c = body[i];
        if (c == '"') {
            size_t begin = i + 1;
            for (i++; i < n && body[i] != '"'; i++) {
                i += body[i] == '\\';
            }
            if (depth == 1 && !found) {
                key = begin;
                key_size = i < n ? i - begin : 0;
            }
        } else if (c == ':' && depth == 1 && !found) {
            found = key_size == size && memcmp(body + key, name, size) == 0;
            from = i + 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']' || c == ',') {
            if (depth == 1 && found) {
                *length = i - from;
                return body + from;
            }
            depth -= c != ',';
        }
    }
    return NULL;
}

static int64_t number_of(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < 1e15 ? (int64_t)value->valuedouble
                                                                                         : 0;
}

bool openai_read_values(const char *body, size_t n, answer *out, err *e) {
    size_t      length = 0;
    const char *error = find_member(body, n, "error", &length);
    *out = (answer){0};
    if (n == 0 || body[0] != '{' || error ||
        (!find_member(body, n, "data", &length) && !find_member(body, n, "results", &length))) {
        return err_set(e, ERR_UPSTREAM, "there is no list of data or results in it.");
    }
    const char *counted = find_member(body, n, "usage", &length);
    cJSON      *usage = counted ? json_parse(counted, length, 8, NULL) : NULL;
    out->usage.prompt = number_of(usage, "prompt_tokens");
    out->usage.prompt = out->usage.prompt ? out->usage.prompt : number_of(usage, "total_tokens");
    out->usage.known = out->usage.prompt > 0;
    cJSON_Delete(usage);
    return answer_keep_raw(out, body, n, &dialect_openai, e);
}
