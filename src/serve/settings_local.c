/* settings_local.c - how models of our own run: the members of models.NAME, and the flags of `pare serve` that say the
 * same for all of them. One table; both ways read through it.                                                        */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pooling.h"
#include "serve/settings.h"

typedef enum row_kind { ROW_INT, ROW_BYTES, ROW_DIRECTORY, ROW_KV, ROW_SLIDE, ROW_SHARE, ROW_POOLING } row_kind;

typedef struct row {
    const char *name;
    row_kind    kind;
    size_t      at;       /* in local_options */
    int64_t     min, max; /* ROW_INT, ROW_BYTES */
} row;

#define AT(member) offsetof(local_options, member)

static const row rows[] = {
    {"sequences", ROW_INT, AT(sequences), 1, 1024},
    {"context", ROW_INT, AT(context), 16, 1 << 24},
    {"queue", ROW_INT, AT(queue), 1, 1 << 20},
    {"step_tokens", ROW_INT, AT(step_tokens), 1, 1 << 16},
    {"step_ms", ROW_INT, AT(step_ms), 1, 60000},
    {"kv", ROW_KV, AT(kv), 0, 0},
    {"kv_memory", ROW_BYTES, AT(kv_bytes), 1 << 20, INT64_C(1) << 46},
    {"kv_disk", ROW_DIRECTORY, AT(kv_disk), 0, 0},
    {"kv_disk_size", ROW_BYTES, AT(kv_disk_bytes), 1 << 20, INT64_C(1) << 46},
    {"overflow", ROW_SLIDE, AT(slide), 0, 0},
    {"share_prefixes", ROW_SHARE, AT(share_all), 0, 0},
    {"pooling", ROW_POOLING, AT(pooling), 0, 0},
};

#define N_ROWS (sizeof rows / sizeof *rows)

_Static_assert(N_ROWS == SETTINGS_LOCAL, "settings.h says how many there are");

const char *settings_local_name(int i) {
    return rows[i].name;
}

static const row *find(const char *name) {
    for (size_t i = 0; i < N_ROWS; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

/* ---- values ---- */

/* The sentences go behind the setting's name: "kv: ...". */
static bool not_among(const char *text, const char *const *choices, err *e) {
    char        list[128] = "";
    const char *near = nearest_name(text, choices);
    for (int i = 0; choices[i]; i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i == 0 ? "" : choices[i + 1] ? ", " : " or ", choices[i]);
    }
    if (near) {
        return err_set(e, ERR_INVALID, "must be %s, not \"%.80s\"; did you mean %s?", list, text, near);
    }
    return err_set(e, ERR_INVALID, "must be %s, not \"%.80s\"", list, text);
}

static bool choose(const char *text, const char *const *choices, int *out, err *e) {
    for (int i = 0; choices[i]; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return not_among(text, choices, e);
}

static bool set_kv(const char *text, kv_type *out, err *e) {
    static const char *const choices[] = {"f16", "f32", "q8_0", "q4_0", NULL};
    return kv_type_named(text, out) || not_among(text, choices, e);
}

static bool set_pooling(const char *text, pooling *out, err *e) {
    static const char *const choices[] = {"mean", "cls", "last", NULL};
    return pooling_named(text, out) || not_among(text, choices, e);
}

static bool set_flag(const char *text, const char *usual, const char *other, bool *out, err *e) {
    const char *const choices[] = {usual, other, NULL};
    int               which = 0;
    if (!choose(text, choices, &which, e)) {
        return false;
    }
    *out = which == 1;
    return true;
}

static bool set_int(const row *r, const char *text, int *out, err *e) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || strchr(" \t", text[0]) || value < r->min || value > r->max) {
        return err_set(e, ERR_INVALID, "must be a whole number from %lld to %lld, not \"%.80s\"", (long long)r->min,
                       (long long)r->max, text);
    }
    *out = (int)value;
    return true;
}

static bool set_bytes(const row *r, const char *text, int64_t *out, err *e) {
    int64_t bytes = 0;
    if (!parse_size(text, &bytes)) {
        return err_set(e, ERR_INVALID, "must be a size like 512MiB or 2G, not \"%.80s\"", text);
    }
    if (bytes < r->min || bytes > r->max) {
        return err_set(e, ERR_INVALID, "must be at least 1MiB and at most 64TiB, not \"%.80s\"", text);
    }
    *out = bytes;
    return true;
}

static bool set_directory(settings *s, const char *text, const char **out, err *e) {
    if (!text[0]) {
        return err_set(e, ERR_INVALID, "must be a directory, not an empty text");
    }
    *out = arena_strdup(s->memory, text);
    return *out || err_set(e, ERR_MEMORY, "out of memory");
}

static bool set(settings *s, const row *r, const char *text, local_options *o, err *e) {
    void *at = (char *)o + r->at;
    switch (r->kind) {
    case ROW_INT:
        return set_int(r, text, at, e);
    case ROW_BYTES:
        return set_bytes(r, text, at, e);
    case ROW_DIRECTORY:
        return set_directory(s, text, at, e);
    case ROW_KV:
        return set_kv(text, at, e);
    case ROW_SLIDE:
        return set_flag(text, "error", "slide", at, e);
    case ROW_SHARE:
        return set_flag(text, "key", "all", at, e);
    case ROW_POOLING:
        return set_pooling(text, at, e);
    }
    return false;
}

/* ---- from the file ---- */

bool settings_local_read(settings *s, const config *c, const config_node *n, local_options *o, err *e) {
    *o = (local_options){0};
    for (size_t i = 0; i < N_ROWS; i++) {
        const char *text = NULL;
        err         why = {0};
        if (!config_string(c, n, rows[i].name, &text, e)) {
            return false;
        }
        if (text && !set(s, &rows[i], text, o, &why)) {
            return config_fail(c, config_get(n, rows[i].name), e, "%s %s", rows[i].name, why.text);
        }
    }
    return true;
}

/* ---- from the command line ---- */

bool settings_local_flag(settings *s, const char *name, const char *text, err *e) {
    const row    *r = find(name);
    local_options tried = {0};
    if (!r) {
        return err_set(e, ERR_INTERNAL, "There is no setting %s; this is a bug.", name);
    }
    if (!set(s, r, text, &tried, e)) {
        return false;
    }
    s->local_flags[r - rows] = arena_strdup(s->memory, text);
    return s->local_flags[r - rows] || err_set(e, ERR_MEMORY, "Out of memory while reading the options.");
}

bool settings_local_check(settings *s, err *e) {
    for (int m = 0; m < s->n_models; m++) {
        setting_model *model = &s->models[m];
        for (size_t i = 0; model->file && i < N_ROWS; i++) {
            if (s->local_flags[i] && !set(s, &rows[i], s->local_flags[i], &model->local, e)) {
                return false;
            }
        }
        if (model->local.kv_disk_bytes && !model->local.kv_disk) {
            return err_set(e, ERR_INVALID, "The model %s has a kv_disk_size but no kv_disk: name a directory.",
                           model->name);
        }
    }
    return true;
}
