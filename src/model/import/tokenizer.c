/* tokenizer.c - which of the folder's files holds the vocabulary, and the keys it becomes. */
#include <stdio.h>
#include <string.h>

#include "model/import/folder.h"
#include "model/import/tokens.h"

enum { MAX_TOKENS = 1 << 22 };

static bool open_files(tokens *t) {
    arena *a = t->m->memory;
    return folder_json(a, t->dir, "tokenizer.json", &t->json, t->m->e) &&
           folder_json(a, t->dir, "tokenizer_config.json", &t->settings, t->m->e) &&
           folder_json(a, t->dir, "special_tokens_map.json", &t->special_map, t->m->e) &&
           folder_json(a, t->dir, "added_tokens.json", &t->added_json, t->m->e);
}

static bool make_room(tokens *t) {
    importer *m = t->m;
    if (m->rows > MAX_TOKENS)
        return err_set(m->e, ERR_LIMIT, "%.200s: the embedding has %lld rows, more tokens than pare takes (%d)", t->dir,
                       (long long)m->rows, MAX_TOKENS);
    t->count = (size_t)m->rows;
    t->texts = arena_zero(m->memory, t->count, sizeof *t->texts);
    t->scores = arena_zero(m->memory, t->count, sizeof *t->scores);
    t->types = arena_zero(m->memory, t->count, sizeof *t->types);
    t->ids = map_new(t->count);
    return (t->texts && t->scores && t->types && t->ids) || import_no_memory(m);
}

static bool read_vocabulary(tokens *t) {
    bool found;
    if (folder_has(t->dir, "tokenizer.model") && !(t->m->arch->traits & ARCH_ENCODER))
        return sentencepiece_read(t);
    if (t->json)
        return vocabulary_json(t);
    if (!vocabulary_files(t, &found))
        return false;
    return found || err_set(t->m->e, ERR_NOT_FOUND,
                            "%.200s: holds no tokenizer (tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
                            "vocab.txt); say --no-tokenizer to import the model without one",
                            t->dir);
}

/* Rows that no token has: converters' name for them. */
static bool fill_gaps(tokens *t) {
    for (size_t i = 0; i < t->count; i++) {
        if (t->texts[i].data)
            continue;
        const char *name = arena_printf(t->m->memory, "[PAD%zu]", i);
        if (!name)
            return import_no_memory(t->m);
        t->texts[i] = (gguf_str){name, strlen(name)};
        t->scores[i] = -10000;
        t->types[i] = TYPE_UNUSED;
    }
    return true;
}

static bool read_all(tokens *t) {
    importer *m = t->m;
    if (!open_files(t) || !make_room(t) || !read_vocabulary(t) || !fill_gaps(t) || !tokens_special(t))
        return false;
    tokens_write(t);
    if (m->arch->traits & ARCH_ENCODER) {
        int64_t kinds = 1;
        if (!hf_int(&m->config, "type_vocab_size", 0, 1 << 20, &kinds))
            return false;
        gguf_write_int(m->w, "tokenizer.ggml.token_type_count", GGUF_U32, kinds);
    }
    m->r->tokens = (int64_t)t->known;
    snprintf(m->r->tokenizer, sizeof m->r->tokenizer, "%s", t->model);
    snprintf(m->r->pre, sizeof m->r->pre, "%s", t->pre);
    return tokens_template(t);
}

bool tokenizer_import(importer *m) {
    tokens t = {.m = m,
                .dir = m->o->dir,
                .space_prefix = -1,
                .remove_spaces = -1,
                .add_bos = -1,
                .add_eos = -1,
                .lowercase = -1,
                .strip_accents = -1};
    for (int i = 0; i < SPECIALS; i++)
        t.special[i] = -1;
    if (m->o->no_tokenizer) {
        gguf_write_text(m->w, "tokenizer.ggml.model", "no_vocab");
        return true;
    }
    bool ok = read_all(&t);
    map_free(t.ids);
    return ok;
}
