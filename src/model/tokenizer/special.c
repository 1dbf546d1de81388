#include "model/tokenizer/special.h"

#include <string.h>

static bool is_special(uint8_t kind) {
    return kind == TOKEN_CONTROL || kind == TOKEN_USER_DEFINED || kind == TOKEN_UNKNOWN;
}

static bool begins(const uint64_t *set, uint8_t first, uint8_t second) {
    uint32_t bit = (uint32_t)first << 8 | second;
    return set[bit / 64] >> bit % 64 & 1;
}

/* A token of one byte begins with that and any second one. */
static void add_beginning(uint64_t *set, const char *text, size_t n) {
    for (uint32_t second = 0; second < 256; second++) {
        if (n == 1 || second == (uint8_t)text[1]) {
            uint32_t bit = (uint32_t)(uint8_t)text[0] << 8 | second;
            set[bit / 64] |= (uint64_t)1 << bit % 64;
        }
    }
}

static void add(special_index *s, const vocab *v, uint32_t id) {
    size_t      n;
    const char *text = vocab_text(v, id, &n);
    if (n == 0 || vocab_find(v, text, n) != (int32_t)id) {
        return; /* the same text again later: that one counts */
    }
    trie_add(&s->tokens, text, n, (int32_t)id);
    add_beginning(s->begins[1], text, n);
    s->empty[1] = false;
    if (v->kinds[id] == TOKEN_USER_DEFINED) {
        add_beginning(s->begins[0], text, n);
        s->empty[0] = false;
    }
}

bool special_open(special_index *s, const vocab *v, err *e) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        size_t n;
        vocab_text(v, i, &n);
        if (is_special(v->kinds[i]) && n > SPECIAL_LONGEST) {
            return err_set(e, ERR_LIMIT, "token %u is a special token of %zu bytes; at most %d are supported", i, n,
                           SPECIAL_LONGEST);
        }
        bytes += is_special(v->kinds[i]) ? n : 0;
    }
    if (bytes >= TRIE_MAX) {
        return err_set(e, ERR_LIMIT, "the special tokens take %zu bytes; less than %d are supported", bytes, TRIE_MAX);
    }
    if (!trie_open(&s->tokens, bytes)) {
        return err_set(e, ERR_MEMORY, "out of memory for special tokens of %zu bytes", bytes);
    }
    s->kinds = v->kinds;
    s->empty[0] = s->empty[1] = true;
    for (uint32_t i = 0; i < v->count; i++) {
        if (is_special(v->kinds[i])) {
            add(s, v, i);
        }
    }
    return true;
}

void special_close(special_index *s) {
    trie_close(&s->tokens);
    memset(s, 0, sizeof(*s));
}

bool special_next(const special_index *s, const char *text, size_t n, size_t from, bool with_control,
                  special_match *match) {
    if (s->empty[with_control]) {
        return false;
    }
    const uint64_t *set = s->begins[with_control];
    for (size_t at = from; at < n; at++) {
        if (at + 1 < n && !begins(set, (uint8_t)text[at], (uint8_t)text[at + 1])) {
            continue;
        }
        uint32_t node = 0;
        match->id = -1;
        for (size_t i = at; i < n && (node = trie_step(&s->tokens, node, (uint8_t)text[i])) != 0; i++) {
            const int32_t id = s->tokens.value[node];
            if (id >= 0 && (with_control || s->kinds[id] == TOKEN_USER_DEFINED)) {
                *match = (special_match){at, i + 1 - at, id};
            }
        }
        if (match->id >= 0) {
            return true;
        }
    }
    return false;
}
