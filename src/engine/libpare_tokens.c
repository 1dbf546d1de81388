/* libpare_tokens.c - texts and ids. */
#include <limits.h>
#include <string.h>

#include "engine/libpare_parts.h"

static bool check(const pare_model *m, const void *from, int count, const void *to, int room, err *e) {
    if (!m->weights->tokens) {
        return err_set(e, ERR_UNSUPPORTED, "%s has no vocabulary", m->weights->name);
    }
    return (from && count >= 0 && room >= 0 && (to || room == 0)) ||
           err_set(e, ERR_INVALID, "there is no text, no ids, or no room for %d where %d were promised", count, room);
}

int pare_tokenize(pare_model *m, const char *text, int flags, int32_t *out, int room, char *error, size_t error_size) {
    err            e = {0};
    token_ids      ids = {0};
    encode_options o = {.add_special = flags & PARE_TOKENS_SPECIAL, .parse_special = flags & PARE_TOKENS_CONTROL};
    bool           ok = check(m, text, 0, out, room, &e) &&
              tokenizer_encode(m->weights->tokens, text, strlen(text), o, &ids, &e) &&
              (ids.count <= INT_MAX || err_set(&e, ERR_LIMIT, "the text has %zu tokens", ids.count));
    int count = ok ? (int)ids.count : -1;
    for (int i = 0; i < count && i < room; i++) {
        out[i] = ids.ids[i];
    }
    token_ids_free(&ids);
    if (!ok) {
        libpare_tell(&e, error, error_size);
    }
    return count;
}

/* Adds to *out. A tokenizer that puts a space before every text has put it here, too. */
static bool decode(const pare_model *m, const int32_t *ids, int count, bool control, str *out, err *e) {
    const tokenizer *t = m->weights->tokens;
    for (int i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer_vocab(t)) {
            return err_set(e, ERR_INVALID, "id %d is %d; those of %s go from 0 to %d", i, ids[i], m->weights->name,
                           tokenizer_vocab(t) - 1);
        }
        const char *bytes;
        size_t      n = tokenizer_piece(t, ids[i], control, &bytes);
        bool        drop = out->len == 0 && n > 0 && *bytes == ' ' && tokenizer_strips_first_space(t);
        if (!str_add(out, bytes + drop, n - drop)) {
            return err_set(e, ERR_MEMORY, "out of memory for a text of %d tokens", count);
        }
    }
    return out->len < INT_MAX || err_set(e, ERR_LIMIT, "the text has %zu bytes", out->len);
}

int pare_detokenize(pare_model *m, const int32_t *ids, int count, int flags, char *text, int room, char *error,
                    size_t error_size) {
    err  e = {0};
    str  all = {0};
    bool ok = check(m, ids, count, text, room, &e) && decode(m, ids, count, flags & PARE_TOKENS_CONTROL, &all, &e);
    int  length = ok ? (int)all.len : -1;
    if (ok && room > 0) {
        int n = length < room ? length : room - 1;
        if (n > 0) {
            memcpy(text, all.data, (size_t)n);
        }
        text[n] = 0;
    }
    str_free(&all);
    if (!ok) {
        libpare_tell(&e, error, error_size);
    }
    return length;
}
