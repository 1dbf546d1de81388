/* settings_models.c - models. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "serve/settings_parts.h"

#include "store/models.h"

static setting_model *find_model(settings *s, const char *name) {
    for (int i = 0; i < s->n_models; i++) {
        if (strcmp(s->models[i].name, name) == 0) {
            return &s->models[i];
        }
    }
    return NULL;
}

setting_model *settings_model(settings *s, const char *name, err *e) {
    setting_model *m = find_model(s, name);
    if (m) {
        return m; /* the command line wins over the file */
    }
    s->models = settings_more(s, s->models, s->n_models, sizeof *s->models);
    const char *copy = settings_keep(s, name);
    if (!s->models || !copy) {
        settings_no_memory(e);
        return NULL;
    }
    m = &s->models[s->n_models++];
    m->name = copy;
    return m;
}

/* A model with a file has the settings of local ones, another those of targets, and neither the other's. */
static bool check_kind(const config *c, const setting_model *m, const config_node *n, err *e) {
    const char *const *foreign = settings_target_names;
    const char        *local[SETTINGS_LOCAL + 1] = {0};
    int                kinds = !!m->file + !!m->backend + !!config_get(n, "targets");
    if (kinds != 1) {
        return config_fail(c, n, e,
                           "the model %s needs either file (a local GGUF) or backend (a remote one) or targets "
                           "(several of those)",
                           m->name);
    }
    for (int i = 0; i < SETTINGS_LOCAL; i++) {
        local[i] = settings_local_name(i);
    }
    foreign = m->file ? foreign : local;
    for (int i = 0; foreign[i]; i++) {
        const config_node *at = config_get(n, foreign[i]);
        if (at && m->file) {
            return config_fail(c, at, e, "%s is for models that a backend answers; %s has a file", foreign[i], m->name);
        }
        if (at) {
            return config_fail(c, at, e, "%s is for models with a file; %s is answered by the backend %s", foreign[i],
                               m->name, m->backend ? m->backend : "of each target");
        }
    }
    return true;
}

#define OWN_NAMES 6 /* of a model's members, besides those of local ones and of targets */

static bool check_names(const config *c, const config_node *n, err *e) {
    const char *known[OWN_NAMES + SETTINGS_LOCAL + 32] = {"file",  "backend",       "model",
                                                          "price", "stands_in_for", "max_output"};
    int         count = OWN_NAMES;
    for (int i = 0; i < SETTINGS_LOCAL; i++) {
        known[count++] = settings_local_name(i);
    }
    for (int i = 0; settings_target_names[i]; i++) {
        known[count++] = settings_target_names[i];
    }
    return config_known(c, n, known, e);
}

bool settings_read_model(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    if (!check_names(c, n, e)) {
        return false;
    }
    if (strlen(name) > 100) {
        return config_fail(c, n, e, "the model name is longer than 100 bytes");
    }
    setting_model *m = settings_model(s, name, e);
    if (m) {
        m->file = m->backend = NULL;
        m->n_targets = 0;
    }
    return m && settings_string(s, c, n, "file", &m->file, e) && settings_string(s, c, n, "backend", &m->backend, e) &&
           settings_string(s, c, n, "model", &m->upstream, e) && settings_string(s, c, n, "price", &m->price_name, e) &&
           settings_string(s, c, n, "stands_in_for", &m->stands_in_for, e) &&
           config_int(c, n, "max_output", 1, INT32_MAX, &m->max_output, e) &&
           settings_local_read(s, c, n, &m->local, e) && check_kind(c, m, n, e) &&
           (m->file || settings_read_targets(s, c, m, n, e));
}

static bool check_references(const settings *s, const setting_model *m, err *e) {
    if (m->stands_in_for && !settings_price(s, m->stands_in_for)) {
        return err_set(e, ERR_INVALID, "The model %s stands in for %s, which has no price; add it under prices.",
                       m->name, m->stands_in_for);
    }
    if (m->price_name && !settings_price(s, m->price_name)) {
        return err_set(e, ERR_INVALID, "The model %s asks for the price of %s, which is not under prices.", m->name,
                       m->price_name);
    }
    return m->file || settings_check_targets(s, m, e);
}

/* A model's file may be the name of one that was pulled. One that is neither is told when it is opened. */
static bool find_pulled(settings *s, setting_model *m, err *e) {
    char path[4096];
    if (!m->file || strcmp(m->file, "bundled") == 0 || access(m->file, F_OK) == 0 ||
        !models_find(s->data, m->file, path, sizeof path, NULL)) {
        return true;
    }
    m->file = settings_keep(s, path);
    return m->file || settings_no_memory(e);
}

bool settings_check_model(settings *s, setting_model *m, err *e) {
    return check_references(s, m, e) && find_pulled(s, m, e);
}
