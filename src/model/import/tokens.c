#include "model/import/tokens.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/import/folder.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, MAX_TEMPLATE = 4 << 20 };

static const char *const special_names[SPECIALS] = {"bos", "eos", "unk", "sep", "pad", "cls", "mask"};
/* GGUF's names, with the specification's own spelling of the separator. */
static const char *const special_keys[SPECIALS] = {"bos", "eos", "unknown", "seperator", "padding", "cls", "mask"};

bool tokens_set(tokens *t, int64_t id, const char *text, size_t n, float score, int type, bool added) {
    if (id < 0 || (uint64_t)id >= t->count) {
        if (added && id >= 0) {
            import_note(t->m, "the added token \"%.*s\" has the id %lld, past the %zu rows of the embedding: left out",
                        (int)(n < 60 ? n : 60), text, (long long)id, t->count);
            return true;
        }
        return err_set(t->m->e, ERR_INVALID,
                       "%.200s: the token \"%.*s\" has the id %lld, but the embedding has %zu rows", t->dir,
                       (int)(n < 60 ? n : 60), text, (long long)id, t->count);
    }
    if (!added && t->texts[id].data)
        return err_set(t->m->e, ERR_INVALID, "%.200s: two tokens have the id %lld", t->dir, (long long)id);
    t->known += !t->texts[id].data;
    t->texts[id] = (gguf_str){text, n};
    t->scores[id] = score;
    t->types[id] = type;
    return map_put(t->ids, text, n, id) || import_no_memory(t->m);
}

/* ---- added tokens ---- */

/* Names that some files forget to mark as special. Source: converters' rule. */
static bool looks_special(const char *s, size_t n) {
    static const char *const names[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    static const char        bar[] = "\xef\xbd\x9c"; /* U+FF5C */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0)
            return true;
    return (n >= 4 && memcmp(s, "<|", 2) == 0 && memcmp(s + n - 2, "|>", 2) == 0) ||
           (n >= 8 && s[0] == '<' && memcmp(s + 1, bar, 3) == 0 && memcmp(s + n - 4, bar, 3) == 0 && s[n - 1] == '>') ||
           (n >= 8 && memcmp(s, "<unused", 7) == 0 && s[n - 1] == '>');
}

/* User-defined tokens are looked for in the text itself, so the space mark becomes a space. */
static bool spaces_for_marks(tokens *t, const char **text, size_t *n) {
    char *out = arena_alloc(t->m->memory, *n + 1);
    if (!out)
        return import_no_memory(t->m);
    size_t len = 0;
    for (size_t i = 0; i < *n;) {
        bool mark = *n - i >= 3 && memcmp(*text + i, SPACE_MARK, 3) == 0;
        out[len++] = mark ? ' ' : (*text)[i];
        i += mark ? 3 : 1;
    }
    *text = out;
    *n = len;
    return true;
}

static bool add_token(tokens *t, int64_t id, const tree *content, bool special) {
    if (!tree_is(content, TREE_STRING))
        return err_set(t->m->e, ERR_INVALID, "%.200s: the added token %lld has no text", t->dir, (long long)id);
    const char *text = content->u.text;
    size_t      n = content->count;
    special = special || looks_special(text, n);
    if (!special && !spaces_for_marks(t, &text, &n))
        return false;
    if (!map_put(t->ids, content->u.text, content->count, id))
        return import_no_memory(t->m);
    return tokens_set(t, id, text, n, -1000, special ? TYPE_CONTROL : TYPE_USER, true);
}

static bool flag_of(const tree *object, const char *key) {
    const tree *f = tree_value(object, key);
    return tree_is(f, TREE_BOOL) && f->yes;
}

/* {"text": id} */
static bool added_by_text(tokens *t) {
    for (const tree *m = tree_first(t->added_json); m; m = m->next) {
        tree text = {.kind = TREE_STRING, .count = m->key_len, .u.text = m->key};
        if (!tree_is(m, TREE_NUMBER) || !m->integer)
            return err_set(t->m->e, ERR_INVALID, "%.200s/added_tokens.json: an id is no whole number", t->dir);
        if (!add_token(t, m->whole, &text, false))
            return false;
    }
    return true;
}

/* {"id": {"content": .., "special": ..}} */
static bool added_by_id(tokens *t) {
    for (const tree *m = tree_first(tree_value(t->settings, "added_tokens_decoder")); m; m = m->next) {
        char digits[16], *end;
        int  n = snprintf(digits, sizeof digits, "%.*s", (int)(m->key_len < 12 ? m->key_len : 12), m->key);
        long id = strtol(digits, &end, 10);
        if (n <= 0 || *end || !isdigit((unsigned char)digits[0]))
            return err_set(t->m->e, ERR_INVALID,
                           "%.200s/tokenizer_config.json: added_tokens_decoder: \"%.20s\" is no id", t->dir, digits);
        t->eats_space = t->eats_space || flag_of(m, "rstrip");
        if (!add_token(t, id, tree_value(m, "content"), flag_of(m, "special")))
            return false;
    }
    return true;
}

bool tokens_added(tokens *t) {
    if (!added_by_text(t) || !added_by_id(t))
        return false;
    for (const tree *m = tree_first(tree_value(t->json, "added_tokens")); m; m = m->next) {
        const tree *id = tree_value(m, "id");
        if (!tree_is(id, TREE_NUMBER) || !id->integer)
            return err_set(t->m->e, ERR_INVALID, "%.200s/tokenizer.json: added_tokens: an id is no whole number",
                           t->dir);
        t->eats_space = t->eats_space || flag_of(m, "rstrip");
        if (!add_token(t, id->whole, tree_value(m, "content"), flag_of(m, "special")))
            return false;
    }
    return true;
}

/* ---- special ids ---- */

/* "<s>" or {"content": "<s>"}: its id; -1. */
static int64_t id_of(const tokens *t, const tree *entry) {
    int64_t id;
    if (tree_is(entry, TREE_OBJECT))
        entry = tree_value(entry, "content");
    return tree_is(entry, TREE_STRING) && map_get(t->ids, entry->u.text, entry->count, &id) && id >= 0 &&
                   (uint64_t)id < t->count
               ? id
               : -1;
}

static int64_t id_in_config(tokens *t, const char *name) {
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", name);
    const tree *v = config_find(&t->m->config, key, NULL);
    if (tree_is(v, TREE_ARRAY))
        v = tree_first(v); /* several ends: the first is the token, the rest are told by generation_config */
    return tree_is(v, TREE_NUMBER) && v->integer && v->whole >= 0 && (uint64_t)v->whole < t->count ? v->whole : -1;
}

static void find_specials(tokens *t) {
    for (int i = 0; i < SPECIALS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_token", special_names[i]);
        t->special[i] = id_of(t, tree_value(t->settings, key));
        if (t->special[i] < 0)
            t->special[i] = id_of(t, tree_value(t->special_map, key));
    }
    for (int i = 0; i < SPECIALS; i++)
        if (t->special[i] < 0 && !((i == BOS && t->special[CLS] >= 0) || (i == EOS && t->special[SEP] >= 0)))
            t->special[i] = id_in_config(t, special_names[i]);
    t->special[BOS] = t->special[BOS] < 0 ? t->special[CLS] : t->special[BOS];
    t->special[EOS] = t->special[EOS] < 0 ? t->special[SEP] : t->special[EOS];
}

/* The template's element: the id of its special token; -1 for the text itself. */
static int64_t template_id(const tokens *t, const tree *element) {
    return id_of(t, tree_value(tree_value(element, "SpecialToken"), "id"));
}

static void read_processor(tokens *t, const tree *p) {
    if (tree_text_is(tree_value(p, "type"), "RobertaProcessing") ||
        tree_text_is(tree_value(p, "type"), "BertProcessing"))
        t->add_bos = t->add_eos = 1;
    const tree *single = tree_value(p, "single"), *last = tree_first(single);
    if (!tree_text_is(tree_value(p, "type"), "TemplateProcessing") || !tree_is(single, TREE_ARRAY) || single->count < 2)
        return;
    while (last->next)
        last = last->next;
    int64_t first_id = template_id(t, tree_first(single)), last_id = template_id(t, last);
    if (first_id >= 0)
        t->add_bos = first_id == t->special[BOS] || first_id == t->special[CLS];
    if (last_id >= 0)
        t->add_eos = last_id == t->special[EOS] || last_id == t->special[SEP];
}

bool tokens_special(tokens *t) {
    find_specials(t);
    const tree *post = tree_value(t->json, "post_processor"), *list = tree_value(post, "processors");
    if (list)
        for (const tree *p = tree_first(list); p; p = p->next)
            read_processor(t, p);
    else if (post)
        read_processor(t, post);
    const tree *bos = tree_value(t->settings, "add_bos_token"), *eos = tree_value(t->settings, "add_eos_token");
    if (tree_is(bos, TREE_BOOL))
        t->add_bos = bos->yes;
    if (tree_is(eos, TREE_BOOL))
        t->add_eos = eos->yes;
    return true;
}

/* ---- keys ---- */

static void write_flag(gguf_writer *w, const char *key, int value) {
    if (value >= 0)
        gguf_write_bool(w, key, value != 0);
}

/* generation_config's further ends, which the keys of end of turn and end of message hold. */
static void write_ends(tokens *t) {
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    const tree              *root = NULL;
    size_t                   at = 0;
    err                      e = {0};
    if (!folder_json(t->m->memory, t->dir, "generation_config.json", &root, &e)) {
        import_note(t->m, "%s", e.text);
        return;
    }
    const tree *ends = tree_value(root, "eos_token_id");
    if (!tree_is(ends, TREE_ARRAY))
        ends = config_find(&t->m->config, "eos_token_id", NULL);
    for (const tree *id = tree_is(ends, TREE_ARRAY) ? tree_first(ends) : NULL; id; id = id->next) {
        if (!tree_is(id, TREE_NUMBER) || !id->integer || id->whole < 0 || (uint64_t)id->whole >= t->count ||
            id->whole == t->special[EOS])
            continue;
        if (at < sizeof keys / sizeof *keys)
            gguf_write_int(t->m->w, keys[at++], GGUF_U32, id->whole);
        else
            import_note(t->m, "the token %lld ends an answer, too, but GGUF has no key left for it",
                        (long long)id->whole);
    }
}

void tokens_write(tokens *t) {
    gguf_writer *w = t->m->w;
    char         key[64];
    gguf_write_text(w, "tokenizer.ggml.model", t->model);
    gguf_write_text(w, "tokenizer.ggml.pre", t->pre);
    gguf_write_strings(w, "tokenizer.ggml.tokens", t->texts, t->count);
    if (t->with_scores)
        gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, t->scores, t->count);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, t->types, t->count);
    if (t->merge_count)
        gguf_write_strings(w, "tokenizer.ggml.merges", t->merges, t->merge_count);
    for (int i = 0; i < SPECIALS; i++)
        if (t->special[i] >= 0) {
            snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", special_keys[i]);
            gguf_write_int(w, key, GGUF_U32, t->special[i]);
        }
    write_ends(t);
    write_flag(w, "tokenizer.ggml.add_bos_token", t->add_bos);
    write_flag(w, "tokenizer.ggml.add_eos_token", t->add_eos);
    write_flag(w, "tokenizer.ggml.add_space_prefix", t->space_prefix);
    write_flag(w, "tokenizer.ggml.remove_extra_whitespaces", t->remove_spaces);
    write_flag(w, "tokenizer.ggml.normalizer.lowercase", t->lowercase);
    write_flag(w, "tokenizer.ggml.normalizer.strip_accents", t->strip_accents);
    if (t->charsmap_len)
        gguf_write_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, t->charsmap, t->charsmap_len);
}

/* ---- chat templates ---- */

static bool put_template(tokens *t, const char *key, const char *text, size_t n) {
    gguf_write_string(t->m->w, key, text, n);
    return true;
}

/* [{"name": .., "template": ..}]: "default" is the template, the others go beside it. */
static bool put_templates(tokens *t, const tree *list) {
    gguf_str *names = arena_zero(t->m->memory, (size_t)list->count + 1, sizeof *names);
    size_t    count = 0;
    if (!names)
        return import_no_memory(t->m);
    for (const tree *c = tree_first(list); c; c = c->next) {
        const tree *name = tree_value(c, "name"), *text = tree_value(c, "template");
        if (!tree_is(name, TREE_STRING) || !tree_is(text, TREE_STRING) || name->count == 0)
            continue;
        char *plain = arena_memdup(t->m->memory, name->u.text, name->count);
        if (!plain)
            return import_no_memory(t->m);
        for (char *p = plain; *p; p++)
            *p = isalnum((unsigned char)*p) ? *p : '_';
        if (strcmp(plain, "default") == 0) {
            put_template(t, "tokenizer.chat_template", text->u.text, text->count);
            continue;
        }
        const char *key = arena_printf(t->m->memory, "tokenizer.chat_template.%s", plain);
        for (size_t i = 0; key && i < count; i++)
            if (names[i].len == strlen(plain) && memcmp(names[i].data, plain, names[i].len) == 0)
                return err_set(t->m->e, ERR_INVALID, "%.200s/tokenizer_config.json: two chat templates are named %.60s",
                               t->dir, plain);
        if (!key)
            return import_no_memory(t->m);
        put_template(t, key, text->u.text, text->count);
        names[count++] = (gguf_str){plain, strlen(plain)};
    }
    if (count)
        gguf_write_strings(t->m->w, "tokenizer.chat_templates", names, count);
    return true;
}

bool tokens_template(tokens *t) {
    const tree *value = tree_value(t->settings, "chat_template"), *root = NULL;
    const char *text;
    size_t      n;
    if (folder_has(t->dir, "chat_template.jinja")) /* goes before the one in tokenizer_config, as in transformers */
        return folder_read(t->m->memory, t->dir, "chat_template.jinja", MAX_TEMPLATE, &text, &n, t->m->e) &&
               put_template(t, "tokenizer.chat_template", text, n);
    if (!value) {
        if (!folder_json(t->m->memory, t->dir, "chat_template.json", &root, t->m->e))
            return false;
        value = tree_value(root, "chat_template");
    }
    if (!value)
        return true;
    if (tree_is(value, TREE_STRING))
        return put_template(t, "tokenizer.chat_template", value->u.text, value->count);
    if (tree_is(value, TREE_ARRAY))
        return put_templates(t, value);
    return err_set(t->m->e, ERR_INVALID,
                   "%.200s/tokenizer_config.json: chat_template is %s, must be a string or a list", t->dir,
                   tree_kind_name(value));
}
