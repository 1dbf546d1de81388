#include "model/import/import.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/arch.h"
#include "model/import/folder.h"
#include "model/import/internal.h"
#include "model/tokenizer/tokenizer.h"

/* ---- what the files of import/ share ---- */

void import_note(importer *m, const char *format, ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    str_adds(&m->r->notes, text);
    str_addc(&m->r->notes, '\n');
}

void import_tell_no_memory(importer *m) {
    err_set(m->e, ERR_MEMORY, "out of memory while importing %.200s", m->o->dir);
}

/* The list has room for all that the readers keep; a full one is a bug and told when it is written. */
static kept_key *keep(importer *m, const char *suffix, gguf_kind kind) {
    static kept_key spare;
    kept_key       *k = m->kept_count < MAX_KEPT ? &m->kept[m->kept_count] : &spare;
    m->kept_count++;
    *k = (kept_key){.key = arena_printf(m->memory, "%s.%s", m->arch->gguf, suffix), .kind = kind};
    return k;
}

void import_put_int(importer *m, const char *suffix, int64_t value) {
    keep(m, suffix, GGUF_U32)->whole = value;
}

void import_put_float(importer *m, const char *suffix, double value) {
    keep(m, suffix, GGUF_F32)->number = value;
}

void import_put_bool(importer *m, const char *suffix, bool value) {
    keep(m, suffix, GGUF_BOOL)->whole = value;
}

void import_put_text(importer *m, const char *suffix, const char *value) {
    keep(m, suffix, GGUF_STRING)->text = value;
}

bool import_write_keys(importer *m) {
    if (m->kept_count > MAX_KEPT)
        return err_set(m->e, ERR_INTERNAL, "more than %d keys were kept", MAX_KEPT);
    for (int i = 0; i < m->kept_count; i++) {
        const kept_key *k = &m->kept[i];
        if (!k->key)
            return import_no_memory(m);
        if (k->kind == GGUF_U32)
            gguf_write_int(m->w, k->key, GGUF_U32, k->whole);
        else if (k->kind == GGUF_F32)
            gguf_write_float(m->w, k->key, GGUF_F32, k->number);
        else if (k->kind == GGUF_BOOL)
            gguf_write_bool(m->w, k->key, k->whole != 0);
        else
            gguf_write_text(m->w, k->key, k->text);
    }
    return true;
}

/* ---- which class it is ---- */

static bool unknown_arch(importer *m, const char *name) {
    char   known[420] = "";
    size_t n = 0;
    for (int i = 0; import_arch_name(i) && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", import_arch_name(i));
    return err_set(m->e, ERR_UNSUPPORTED, "%.100s: \"%.40s\" is not a model that pare imports (%s)", m->config.where,
                   name, known);
}

static bool choose_arch(importer *m) {
    const tree *list = tree_value(m->config.root, "architectures"), *first = tree_first(list);
    const char *type = NULL, *name = first ? tree_text(m->memory, first) : NULL;
    if (list && !tree_is(list, TREE_ARRAY))
        return config_refuse(&m->config, "architectures", "must be a list of names");
    if (!config_text(&m->config, "model_type", &type))
        return false;
    if (first) {
        if (!name)
            return config_refuse(&m->config, "architectures", "must be a list of names");
        m->arch = import_arch_named(name);
        return m->arch || unknown_arch(m, name);
    }
    const char *outer = tree_text(m->memory, tree_value(m->config.root, "model_type"));
    type = outer ? outer : type;
    if (!type)
        return config_refuse(&m->config, "architectures", "is missing, and so is model_type: which model is it?");
    m->arch = import_arch_typed(type);
    return m->arch || unknown_arch(m, type);
}

/* ---- names ---- */

/* The last part of the folder's path, as a model's name. */
static const char *folder_name(importer *m) {
    char  path[PATH_MAX];
    char *real = realpath(m->o->dir, path);
    char *slash = real ? strrchr(real, '/') : NULL;
    return arena_strdup(m->memory, slash && slash[1] ? slash + 1 : "model");
}

/* Phi-3's tokens that take the space after them along are known to GGUF's readers by the model's name only. */
static const char *phi3_name(importer *m, const char *name) {
    if (strcmp(m->arch->gguf, "phi3") != 0 || strcasestr(name, "phi-3") || strcasestr(name, "phi3") ||
        !folder_has(m->o->dir, "tokenizer.model"))
        return name;
    return arena_printf(m->memory, "%s (Phi-3)", name);
}

static bool out_path(importer *m, const char *name) {
    if (m->o->out) {
        str_adds(&m->r->path, m->o->out);
    } else {
        for (const char *p = name; *p; p++)
            str_addc(&m->r->path, (unsigned char)*p <= 0x20 || strchr("/\\:*?\"<>|()", *p) ? '-' : *p);
        str_addc(&m->r->path, '-');
        for (const char *p = m->format->name; *p; p++)
            str_addc(&m->r->path, *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p);
        str_adds(&m->r->path, ".gguf");
    }
    return !m->r->path.failed || import_no_memory(m);
}

/* ---- the file ---- */

static int file_type(const block_format *f) {
    return f->type == BLOCK_F32 ? 0 : f->type == BLOCK_F16 ? 1 : f->type == BLOCK_Q8_0 ? 7 : 32;
}

static bool read_folder(importer *m) {
    struct stat st;
    if (stat(m->o->dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(m->e, ERR_NOT_FOUND, "%.300s: is not a folder", m->o->dir);
    m->weights = NULL;
    if (!config_open(&m->config, m->memory, m->o->dir, m->e) || !choose_arch(m) || !hyper_read(m) || !rope_read(m) ||
        !window_read(m) || !(m->arch->traits & ARCH_ENCODER ? pooling_read(m) : true) ||
        !config_all_known(&m->config, m->o->ignore, m->o->ignore_count))
        return false;
    m->weights = shards_open(m->o->dir, m->e);
    return m->weights && tensors_plan(m);
}

static bool write_header(importer *m, const char *name) {
    gguf_write_text(m->w, "general.architecture", m->arch->gguf);
    gguf_write_text(m->w, "general.type", "model");
    gguf_write_text(m->w, "general.name", name);
    gguf_write_int(m->w, "general.file_type", GGUF_U32, file_type(m->format));
    gguf_write_int(m->w, "general.quantization_version", GGUF_U32, 2);
    if (m->arch->traits & ARCH_LLAMA_KEYS)
        import_put_int(m, "vocab_size", m->rows);
    return import_write_keys(m) && tokenizer_import(m) && tensors_declare(m);
}

static bool write_file(importer *m) {
    const char *name = m->o->name ? m->o->name : folder_name(m);
    name = name ? phi3_name(m, name) : NULL;
    if (!name)
        return import_no_memory(m);
    if (!out_path(m, name))
        return false;
    str scratch = {0};
    m->w = m->o->dry_run ? gguf_write_open_memory(&scratch, m->e) : gguf_write_open(m->r->path.data, m->e);
    bool ok = m->w && write_header(m, name);
    if (ok && !m->o->dry_run) {
        ok = tensors_stream(m);
        if (ok) {
            ok = gguf_write_finish(m->w, m->e);
            m->w = NULL;
        }
    }
    gguf_write_abandon(m->w);
    m->w = NULL;
    str_free(&scratch);
    return ok;
}

/* Whether pare itself takes the file; told, not demanded: the file may be for another program. */
static void try_file(importer *m) {
    model_shape shape;
    err         e = {0};
    gguf       *g = gguf_open(m->r->path.data, &e);
    tokenizer  *t = g && model_shape_read(g, &shape, &e) && !m->o->no_tokenizer ? tokenizer_open(g, &e) : NULL;
    m->r->runs = g && e.code == ERR_NONE;
    if (!m->r->runs)
        snprintf(m->r->why_not, sizeof m->r->why_not, "%s", e.text);
    tokenizer_close(t);
    gguf_close(g);
}

static bool run(importer *m) {
    if (!read_folder(m) || !write_file(m))
        return false;
    snprintf(m->r->arch, sizeof m->r->arch, "%s", m->arch->gguf);
    snprintf(m->r->type, sizeof m->r->type, "%s", m->format->name);
    m->r->layers = m->h.layers;
    m->r->context = m->h.context;
    if (m->o->dry_run)
        return true;
    if (!tensors_verify(m, m->r->path.data)) {
        unlink(m->r->path.data); /* never leave a file that is known to be wrong */
        return false;
    }
    try_file(m);
    return true;
}

bool import_folder(const import_options *o, import_report *r, err *e) {
    err      local = {0};
    importer m = {.o = o, .r = r, .e = e ? e : &local};
    *r = (import_report){0};
    m.memory = arena_new(1 << 20);
    bool ok = m.memory ? run(&m) : import_no_memory(&m);
    config_close(&m.config);
    shards_close(m.weights);
    map_free(m.names);
    free(m.tensors);
    arena_free(m.memory);
    return ok;
}

void import_report_free(import_report *r) {
    str_free(&r->path);
    str_free(&r->notes);
}
