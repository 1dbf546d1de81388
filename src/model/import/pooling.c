/* pooling.c - sentence-transformers' modules.json: how the rows of a text become one vector. */
#include <stdio.h>
#include <string.h>

#include "model/import/folder.h"
#include "model/import/internal.h"

enum { POOL_MEAN = 1, POOL_CLS = 2, POOL_LAST = 3 }; /* GGUF's pooling_type */

static bool ends(const tree *t, const char *end) {
    size_t n = strlen(end);
    return tree_is(t, TREE_STRING) && t->count >= n && memcmp(t->u.text + t->count - n, end, n) == 0;
}

static bool yes(const tree *object, const char *key) {
    const tree *f = tree_value(object, key);
    return tree_is(f, TREE_BOOL) && f->yes;
}

static bool read_mode(importer *m, const char *file) {
    const tree *root = NULL;
    if (!folder_json(m->memory, m->o->dir, file, &root, m->e))
        return false;
    const tree *mode = tree_value(root, "pooling_mode");
    int         type = yes(root, "pooling_mode_mean_tokens") ? POOL_MEAN
                       : yes(root, "pooling_mode_cls_token") ? POOL_CLS
                       : yes(root, "pooling_mode_lasttoken") ? POOL_LAST
                       : tree_text_is(mode, "mean")          ? POOL_MEAN
                       : tree_text_is(mode, "cls")           ? POOL_CLS
                       : tree_text_is(mode, "lasttoken")     ? POOL_LAST
                                                             : 0;
    if (!type)
        return err_set(m->e, ERR_UNSUPPORTED,
                       "%.200s/%.100s: pools in a way that GGUF cannot say (mean, cls, last token)", m->o->dir, file);
    import_put_int(m, "pooling_type", type);
    return true;
}

bool pooling_read(importer *m) {
    const tree *modules = NULL;
    if (!folder_json(m->memory, m->o->dir, "modules.json", &modules, m->e))
        return false;
    for (const tree *module = tree_first(modules); module; module = module->next) {
        const tree *type = tree_value(module, "type"), *path = tree_value(module, "path");
        if (ends(type, ".Dense"))
            return err_set(m->e, ERR_UNSUPPORTED,
                           "%.200s/modules.json: a dense layer after pooling, which GGUF's %s does "
                           "not have",
                           m->o->dir, m->arch->gguf);
        if (!ends(type, "Pooling"))
            continue;
        if (!tree_is(path, TREE_STRING) || !folder_name_ok(path->u.text, path->count))
            return err_set(m->e, ERR_INVALID, "%.200s/modules.json: the pooling's path is no plain name", m->o->dir);
        const char *file = arena_printf(m->memory, "%.*s/config.json", (int)path->count, path->u.text);
        return file ? read_mode(m, file) : import_no_memory(m);
    }
    return true;
}
