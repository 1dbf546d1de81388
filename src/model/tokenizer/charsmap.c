#include "model/tokenizer/charsmap.h"

#include <stdlib.h>
#include <string.h>

static const char key[] = "tokenizer.ggml.precompiled_charsmap";

enum {
    MAP_MAX = 1 << 26,     /* bytes of the blob; those in use have about 300 thousand */
    MATCH_MAX = 64,        /* bytes of a match: the trie's walk must end even if its units lead in a circle */
    REPLACEMENT_MAX = 1024 /* bytes; Unicode's longest has 33 */
};

/* One unit, as Darts-clone packs it: the label in bits 0-7 and 31, "a value hangs below" in bit 8, the offset to the
 * children in bits 10-30, times 256 with bit 9. A value is a unit's low 31 bits. */
static uint32_t unit_label(uint32_t unit) {
    return unit & (0x80000000u | 0xFF);
}

static bool unit_has_leaf(uint32_t unit) {
    return unit >> 8 & 1;
}

static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* From the children's base `at` along `byte`; false: nothing there. *at becomes the base of the children below. */
static bool follow(const charsmap *m, uint32_t *at, uint8_t byte, uint32_t *unit) {
    const uint32_t child = *at ^ byte;
    if (child >= m->count || unit_label(m->units[child]) != byte) {
        return false;
    }
    *unit = m->units[child];
    *at = child ^ unit_offset(*unit);
    return true;
}

size_t charsmap_match(const charsmap *m, const char *text, size_t n, const char **out, size_t *len) {
    if (m->count == 0) {
        return 0;
    }
    size_t   longest = 0;
    uint32_t value = 0;
    uint32_t unit;
    uint32_t at = unit_offset(m->units[0]);
    for (size_t i = 0; i < n && i < MATCH_MAX && text[i] && follow(m, &at, (uint8_t)text[i], &unit); i++) {
        if (unit_has_leaf(unit) && at < m->count) {
            longest = i + 1;
            value = m->units[at] & 0x7FFFFFFFu;
        }
    }
    if (longest == 0 || value >= m->bytes) {
        return 0;
    }
    *out = m->texts + value;
    *len = strlen(*out); /* the last byte is a NUL: checked when the map was opened */
    return longest;
}

static void find_beginnings(charsmap *m) {
    const uint32_t root = unit_offset(m->units[0]);
    for (uint32_t first = 1; first < 256; first++) {
        uint32_t at = root;
        uint32_t unit;
        if (!follow(m, &at, (uint8_t)first, &unit)) {
            continue;
        }
        const bool alone = unit_has_leaf(unit);
        for (uint32_t second = 0; second < 256; second++) {
            uint32_t below = at;
            if (alone || (second > 0 && follow(m, &below, (uint8_t)second, &unit))) {
                const uint32_t bit = first << 8 | second;
                m->begins[bit / 64] |= (uint64_t)1 << bit % 64;
            }
        }
    }
}

static bool check_texts(const charsmap *m, const char *name, err *e) {
    if (m->bytes == 0 || m->texts[m->bytes - 1] != 0) {
        return err_set(e, ERR_INVALID, "%s: the replacements of %s do not end with a NUL", name, key);
    }
    for (size_t at = 0, n; at < m->bytes; at += n + 1) {
        n = strlen(m->texts + at);
        if (n > REPLACEMENT_MAX) {
            return err_set(e, ERR_LIMIT, "%s: a replacement of %s has %zu bytes; at most %d are supported", name, key,
                           n, REPLACEMENT_MAX);
        }
    }
    return true;
}

static bool read_blob(charsmap *m, const uint8_t *blob, size_t n, const char *name, err *e) {
    const uint32_t trie =
        n < 4 ? 0 : blob[0] | (uint32_t)blob[1] << 8 | (uint32_t)blob[2] << 16 | (uint32_t)blob[3] << 24;
    if (n < 4 || trie < 4 || trie % 4 != 0 || trie > n - 4) {
        return err_set(e, ERR_INVALID, "%s: %s has %zu bytes and says that %u of them are its trie", name, key, n,
                       trie);
    }
    m->count = trie / 4;
    m->bytes = n - 4 - trie;
    m->units = malloc(trie);
    m->texts = malloc(m->bytes + 1);
    if (!m->units || !m->texts) {
        return err_set(e, ERR_MEMORY, "out of memory for %s", key);
    }
    for (uint32_t i = 0; i < m->count; i++) {
        const uint8_t *unit = blob + 4 + 4 * (size_t)i;
        m->units[i] = unit[0] | (uint32_t)unit[1] << 8 | (uint32_t)unit[2] << 16 | (uint32_t)unit[3] << 24;
    }
    memcpy(m->texts, blob + 4 + trie, m->bytes);
    if (!check_texts(m, name, e)) {
        return false;
    }
    find_beginnings(m);
    return true;
}

bool charsmap_open(charsmap *m, const gguf *g, err *e) {
    gguf_kind kind;
    size_t    n;
    if (!gguf_has(g, key)) {
        return true;
    }
    if (!gguf_array(g, key, &kind, &n, e)) {
        return false;
    }
    if ((kind != GGUF_U8 && kind != GGUF_I8) || n > MAP_MAX) {
        return err_set(e, ERR_INVALID, "%s: %s must be an array of at most %d bytes", gguf_name(g), key, MAP_MAX);
    }
    if (n == 0) {
        return true;
    }
    int32_t *wide = malloc(n * sizeof(*wide));
    uint8_t *blob = malloc(n);
    bool     ok = wide && blob;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for %s", key);
    } else if ((ok = gguf_array_ints(g, key, wide, n, e))) {
        for (size_t i = 0; i < n; i++) {
            blob[i] = (uint8_t)wide[i];
        }
        ok = read_blob(m, blob, n, gguf_name(g), e);
    }
    free(wide);
    free(blob);
    return ok;
}

void charsmap_close(charsmap *m) {
    free(m->units);
    free(m->texts);
    memset(m, 0, sizeof(*m));
}
