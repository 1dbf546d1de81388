#include "model/import/shards.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "model/import/folder.h"

#define INDEX  "model.safetensors.index.json"
#define SINGLE "model.safetensors"

enum { MAX_FILES = 1024 };

struct shards {
    arena        *memory;
    safetensors **files;
    size_t        file_count;
    shard_tensor *tensors;
    size_t        count;
};

static bool open_file(shards *s, const char *dir, const char *name, err *e) {
    const char *path;
    if (!folder_path(s->memory, dir, name, &path, e))
        return false;
    s->files[s->file_count] = safetensors_open(path, e);
    if (!s->files[s->file_count])
        return false;
    s->count += safetensors_count(s->files[s->file_count++]);
    return true;
}

/* Opens each file that the index names, once. */
static bool open_named(shards *s, const char *dir, const tree *weights, map *names, err *e) {
    for (const tree *m = tree_first(weights); m; m = m->next) {
        int64_t known;
        if (!tree_is(m, TREE_STRING) || !folder_name_ok(m->u.text, m->count))
            return err_set(e, ERR_INVALID,
                           "%.200s/" INDEX ": \"%.*s\" is said to lie in a file whose name is no plain file name", dir,
                           (int)(m->key_len < 80 ? m->key_len : 80), m->key);
        if (map_get(names, m->u.text, m->count, &known))
            continue;
        if (s->file_count == MAX_FILES)
            return err_set(e, ERR_LIMIT, "%.200s/" INDEX ": names more than %d files", dir, MAX_FILES);
        const char *name = tree_text(s->memory, m);
        if (!name || !map_put(names, m->u.text, m->count, (int64_t)s->file_count))
            return err_set(e, ERR_MEMORY, "out of memory");
        if (!open_file(s, dir, name, e))
            return false;
    }
    return s->file_count || err_set(e, ERR_INVALID, "%.200s/" INDEX ": weight_map names no files", dir);
}

/* The index and the files must say the same. */
static bool check_index(const shards *s, const char *dir, const tree *weights, const map *names, err *e) {
    for (const tree *m = tree_first(weights); m; m = m->next) {
        int64_t     file = 0;
        const char *name = arena_memdup(s->memory, m->key, m->key_len);
        if (!name || !map_get(names, m->u.text, m->count, &file))
            return err_set(e, ERR_MEMORY, "out of memory");
        if (!safetensors_named(s->files[file], name))
            return err_set(e, ERR_INVALID, "%.200s/" INDEX ": tensor %.120s is not in %.*s, where it should be", dir,
                           name, (int)(m->count < 80 ? m->count : 80), m->u.text);
    }
    if (weights->count != s->count)
        return err_set(e, ERR_INVALID, "%.200s/" INDEX ": names %u tensors, but the files hold %zu", dir,
                       weights->count, s->count);
    return true;
}

static bool open_index(shards *s, const char *dir, err *e) {
    const tree *root;
    if (!folder_json(s->memory, dir, INDEX, &root, e))
        return false;
    const tree *weights = tree_member(root, "weight_map");
    if (!tree_is(weights, TREE_OBJECT))
        return err_set(e, ERR_INVALID, "%.200s/" INDEX ": weight_map is %s, must be an object", dir,
                       tree_kind_name(weights));
    map *names = map_new(64);
    bool ok = names ? open_named(s, dir, weights, names, e) && check_index(s, dir, weights, names, e)
                    : err_set(e, ERR_MEMORY, "out of memory");
    map_free(names);
    return ok;
}

/* No weights: says what there is instead. */
static bool nothing_there(const char *dir, err *e) {
    DIR        *d = opendir(dir);
    const char *other = NULL;
    for (struct dirent *f = d ? readdir(d) : NULL; f; f = readdir(d)) {
        size_t n = strlen(f->d_name);
        if (n > 4 && (strcmp(f->d_name + n - 4, ".bin") == 0 || strcmp(f->d_name + n - 4, ".pth") == 0))
            other =
                "; its pickled weights (*.bin, *.pth) can run code when they are read, so pare does not: look for a "
                "safetensors version of the model";
    }
    if (d)
        closedir(d);
    return err_set(e, ERR_NOT_FOUND, "%.200s: holds neither " SINGLE " nor " INDEX "%s", dir, other ? other : "");
}

static bool gather(shards *s, err *e) {
    s->tensors = calloc(s->count + 1, sizeof *s->tensors);
    if (!s->tensors)
        return err_set(e, ERR_MEMORY, "out of memory for %zu tensors", s->count);
    size_t at = 0;
    for (size_t f = 0; f < s->file_count; f++)
        for (size_t i = 0; i < safetensors_count(s->files[f]); i++)
            s->tensors[at++] = (shard_tensor){s->files[f], safetensors_at(s->files[f], i), false};
    return true;
}

shards *shards_open(const char *dir, err *e) {
    shards *s = calloc(1, sizeof *s);
    bool    ok = s && (s->memory = arena_new(4096)) && (s->files = calloc(MAX_FILES, sizeof(safetensors *)));
    if (!ok)
        err_set(e, ERR_MEMORY, "out of memory");
    ok = ok && (folder_has(dir, INDEX)    ? open_index(s, dir, e)
                : folder_has(dir, SINGLE) ? open_file(s, dir, SINGLE, e)
                                          : nothing_there(dir, e));
    if (ok && gather(s, e))
        return s;
    shards_close(s);
    return NULL;
}

void shards_close(shards *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->file_count; i++)
        safetensors_close(s->files[i]);
    free(s->files);
    free(s->tensors);
    arena_free(s->memory);
    free(s);
}

size_t shards_count(const shards *s) {
    return s->count;
}

shard_tensor *shards_at(const shards *s, size_t i) {
    return i < s->count ? &s->tensors[i] : NULL;
}
