/* models.c - what lies in the folder of models, found by name. */
#include "store/models.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/files.h"
#include "base/json.h"

#define MAX_MODELS   4096
#define MAX_MANIFEST 16384

/* ---- names ---- */

static bool name_byte(char c) {
    return isalnum((unsigned char)c) || (c && strchr("._+-", c));
}

bool models_name_ok(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n >= MODEL_NAME || name[0] == '.' || name[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!name_byte(name[i])) {
            return false;
        }
    }
    return true;
}

bool models_name_from(const char *remote, char *out, size_t size) {
    const char *slash = strrchr(remote, '/');
    const char *base = slash ? slash + 1 : remote;
    size_t      n = strlen(base), used = 0;
    if (n >= 5 && strcasecmp(base + n - 5, ".gguf") == 0) {
        n -= 5;
    }
    bool any = false;
    for (size_t i = 0; i < n && used + 1 < size && used + 1 < MODEL_NAME; i++) {
        bool first = used == 0 && (base[i] == '.' || base[i] == '-');
        out[used++] = name_byte(base[i]) && !first ? base[i] : '_';
        any |= isalnum((unsigned char)out[used - 1]) != 0;
    }
    out[used] = '\0';
    return any && models_name_ok(out);
}

/* ---- paths ---- */

static bool join(char *path, size_t size, const char *data_dir, const char *name, const char *end, err *e) {
    int n = snprintf(path, size, "%s/models/%s%s", data_dir, name, end);
    return (n > 0 && (size_t)n < size) || err_set(e, ERR_LIMIT, "The path of the model %s is too long.", name);
}

static bool make_folder(const char *data_dir, err *e) {
    char path[4096];
    int  n = snprintf(path, sizeof path, "%s/models", data_dir);
    if (!data_dir[0] || n <= 0 || (size_t)n >= sizeof path) {
        return err_set(e, ERR_INVALID, "There is no data directory to keep models in; name one with --data DIR.");
    }
    err why = {0};
    return directory_make(path, &why) ||
           err_set(e, why.code, "The folder of models: %s. Name another with --data DIR.", why.text);
}

bool models_path(const char *data_dir, const char *name, char *path, size_t size, err *e) {
    if (!models_name_ok(name)) {
        return err_set(e, ERR_INVALID,
                       "\"%.100s\" cannot be a model's name: it takes letters, digits and . _ + - (not first . or -).",
                       name);
    }
    return make_folder(data_dir, e) && join(path, size, data_dir, name, ".gguf", e);
}

/* ---- the manifest ---- */

static void take_text(const cJSON *json, const char *key, char *out, size_t size) {
    const char *text = NULL;
    if (json_get_string(json, "", key, &text, NULL) && text && strlen(text) < size) {
        snprintf(out, size, "%s", text);
    }
}

/* A manifest that cannot be read, or that speaks of another size, is none: the model is then without a source. */
static void read_manifest(const char *data_dir, model_file *m) {
    char  path[4096], text[MAX_MANIFEST];
    FILE *f = join(path, sizeof path, data_dir, m->name, ".json", NULL) ? fopen(path, "rbe") : NULL;
    if (!f) {
        return;
    }
    size_t  n = fread(text, 1, sizeof text, f);
    cJSON  *json = n < sizeof text ? json_parse(text, n, 8, NULL) : NULL;
    int64_t size = -1;
    fclose(f);
    if (json && json_get_int(json, "", "size", 0, INT64_C(1) << 53, &size, NULL) && size == m->size) {
        take_text(json, "source", m->source, sizeof m->source);
        take_text(json, "sha256", m->sha256, sizeof m->sha256);
        take_text(json, "etag", m->etag, sizeof m->etag);
    }
    cJSON_Delete(json);
}

static bool write_all(int fd, const str *text) {
    for (size_t at = 0; at < text->len;) {
        ssize_t n = write(fd, text->data + at, text->len - at);
        if (n <= 0) {
            return false;
        }
        at += (size_t)n;
    }
    return fsync(fd) == 0;
}

bool models_note(const char *data_dir, const model_file *m, err *e) {
    char path[4096], fresh[4096];
    if (!join(path, sizeof path, data_dir, m->name, ".json", e) ||
        !join(fresh, sizeof fresh, data_dir, m->name, ".json.new", e)) {
        return false;
    }
    str out = {0};
    str_adds(&out, "{\"name\":");
    str_jsons(&out, m->name);
    str_adds(&out, ",\"source\":");
    str_jsons(&out, m->source);
    str_addf(&out, ",\"size\":%lld,\"sha256\":", (long long)m->size);
    str_jsons(&out, m->sha256);
    str_adds(&out, ",\"etag\":");
    str_jsons(&out, m->etag);
    str_adds(&out, "}\n");
    int  fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    bool ok = fd >= 0 && !out.failed && write_all(fd, &out);
    if (fd >= 0) {
        close(fd);
    }
    ok = ok && rename(fresh, path) == 0;
    str_free(&out);
    if (!ok) {
        err_set(e, ERR_IO, "%s cannot be written: %s.", path, strerror(errno));
        unlink(fresh);
    }
    return ok;
}

/* ---- the list ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n > k && strcmp(text + n - k, end) == 0;
}

/* 1: a model, 0: something else. */
static bool look_at(const char *data_dir, const char *file, model_file *m) {
    struct stat at;
    char        path[4096];
    *m = (model_file){.partial = ends_with(file, ".gguf.part")};
    size_t n = strlen(file);
    if (!m->partial && !ends_with(file, ".gguf")) {
        return false;
    }
    n -= m->partial ? 10 : 5;
    if (n >= sizeof m->name || !join(path, sizeof path, data_dir, file, "", NULL) || stat(path, &at) != 0 ||
        !S_ISREG(at.st_mode)) {
        return false;
    }
    memcpy(m->name, file, n);
    m->name[n] = '\0';
    m->size = m->partial ? (int64_t)at.st_blocks * 512 : (int64_t)at.st_size;
    m->modified_us = (int64_t)at.st_mtim.tv_sec * 1000000 + at.st_mtim.tv_nsec / 1000;
    if (!models_name_ok(m->name)) {
        return false;
    }
    if (!m->partial) {
        read_manifest(data_dir, m);
    }
    return true;
}

static int by_name(const void *a, const void *b) {
    const model_file *x = a, *y = b;
    int               order = strcmp(x->name, y->name);
    return order ? order : (int)x->partial - (int)y->partial;
}

static bool add(model_list *l, size_t *cap, const model_file *m, err *e) {
    if (l->n == *cap) {
        size_t      more = *cap ? *cap * 2 : 16;
        model_file *items = more <= MAX_MODELS ? realloc(l->items, more * sizeof *items) : NULL;
        if (!items) {
            return err_set(e, ERR_LIMIT, "There are too many models in the folder (more than %d).", MAX_MODELS);
        }
        l->items = items;
        *cap = more;
    }
    l->items[l->n++] = *m;
    return true;
}

bool models_list(const char *data_dir, model_list *out, err *e) {
    char   path[4096];
    size_t cap = 0;
    bool   ok = true;
    *out = (model_list){0};
    if (!join(path, sizeof path, data_dir, "", "", e)) {
        return false;
    }
    DIR *folder = opendir(path);
    if (!folder) {
        return errno == ENOENT || err_set(e, ERR_IO, "%s cannot be read: %s.", path, strerror(errno));
    }
    for (struct dirent *i; ok && (i = readdir(folder));) {
        model_file m;
        ok = !look_at(data_dir, i->d_name, &m) || add(out, &cap, &m, e);
    }
    closedir(folder);
    if (out->n > 1) {
        qsort(out->items, out->n, sizeof *out->items, by_name);
    }
    if (!ok) {
        models_list_free(out);
    }
    return ok;
}

void models_list_free(model_list *l) {
    free(l->items);
    *l = (model_list){0};
}

/* ---- one of them ---- */

static bool same_source(const char *source, const char *name) {
    char latest[MODEL_NAME + 16];
    if (strcmp(source, name) == 0) {
        return true;
    }
    if (strncmp(source, "ollama:", 7) != 0) {
        return false;
    }
    const char *bare = strncmp(name, "ollama:", 7) == 0 ? name + 7 : name;
    snprintf(latest, sizeof latest, "%.*s:latest", MODEL_NAME, bare);
    return strcmp(source + 7, bare) == 0 || (!strchr(bare, ':') && strcmp(source + 7, latest) == 0);
}

/* "hf:OWNER/REPO:Q4_K_M" for a source "hf:OWNER/REPO:model.Q4_K_M.gguf", and without a type any of the repository. */
static bool from_repository(const char *source, const char *name) {
    char        type[32];
    const char *colon = strncmp(name, "hf:", 3) == 0 ? strchr(name + 3, ':') : NULL;
    size_t      n = colon ? (size_t)(colon - name) : strlen(name);
    if (strncmp(name, "hf:", 3) != 0 || strncasecmp(source, name, n) != 0 || source[n] != ':') {
        return false;
    }
    model_type_of(source + n + 1, type, sizeof type);
    return !colon || strcasecmp(colon + 1, type) == 0;
}

static const model_file *pick(const model_list *l, const char *name, bool partial) {
    const model_file *found = NULL;
    size_t            n = strlen(name);
    if (n > 5 && strcasecmp(name + n - 5, ".gguf") == 0) {
        n -= 5;
    }
    for (size_t i = 0; i < l->n; i++) {
        const model_file *m = &l->items[i];
        if ((!m->partial || partial) && strlen(m->name) == n && strncmp(m->name, name, n) == 0) {
            return m;
        }
    }
    int matches = 0;
    for (size_t i = 0; i < l->n; i++) {
        const model_file *m = &l->items[i];
        if (!m->partial && m->source[0] && same_source(m->source, name)) {
            return m;
        }
        if (!m->partial && from_repository(m->source, name)) {
            found = m;
            matches++;
        }
    }
    return matches == 1 ? found : NULL;
}

static bool unknown(const model_list *l, const char *name, bool partial, err *e) {
    const char **names = calloc(l->n + 1, sizeof *names);
    size_t       n = 0;
    for (size_t i = 0; names && i < l->n; i++) {
        if (!l->items[i].partial || partial) {
            names[n++] = l->items[i].name;
        }
    }
    const char *near = names ? nearest_name(name, names) : NULL;
    if (near) {
        err_set(e, ERR_NOT_FOUND, "There is no model \"%.200s\"; did you mean %s?", name, near);
    } else if (n > 0) {
        err_set(e, ERR_NOT_FOUND, "There is no model \"%.200s\"; `pare list` shows those that are there.", name);
    } else {
        err_set(e, ERR_NOT_FOUND, "There is no model \"%.200s\", and none was pulled yet: see `pare pull --help`.",
                name);
    }
    free(names);
    return false;
}

static bool get(const char *data_dir, const char *name, bool partial, model_file *out, err *e) {
    model_list l;
    if (!models_list(data_dir, &l, e)) {
        return false;
    }
    const model_file *m = pick(&l, name, partial);
    if (m) {
        *out = *m;
    } else {
        unknown(&l, name, partial, e);
    }
    models_list_free(&l);
    return m != NULL;
}

bool models_get(const char *data_dir, const char *name, model_file *out, err *e) {
    return get(data_dir, name, false, out, e);
}

bool models_find(const char *data_dir, const char *name, char *path, size_t size, err *e) {
    model_file m;
    return get(data_dir, name, false, &m, e) && join(path, size, data_dir, m.name, ".gguf", e);
}

bool models_remove(const char *data_dir, const char *name, model_file *removed, err *e) {
    char path[4096], manifest[4096];
    if (!get(data_dir, name, true, removed, e) || !join(path, sizeof path, data_dir, removed->name, ".gguf", e) ||
        !join(manifest, sizeof manifest, data_dir, removed->name, ".json", e)) {
        return false;
    }
    if (!removed->partial && unlink(path) != 0 && errno != ENOENT) {
        return err_set(e, ERR_IO, "%s cannot be removed: %s.", path, strerror(errno));
    }
    if (!removed->partial) {
        unlink(manifest);
    }
    download_forget(path);
    return true;
}
