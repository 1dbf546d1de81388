/* windows.c - layers that see only the nearest positions, and layers that do not turn.
 *
 * Where GGUF has no key for a window, texts no longer than the window come out the same without it: then the file may
 * say so much context and no more, and only when the person asks for it. */
#include <stdio.h>
#include <string.h>

#include "model/import/internal.h"

/* Layer i is windowed? */
static bool windowed(window_rule rule, int64_t i) {
    return rule == WINDOW_SECOND ? i % 2 == 0 : rule == WINDOW_SIXTH ? (i + 1) % 6 != 0 : rule == WINDOW_KEY;
}

/* layer_types, where it is said: every layer must be what the architecture makes of it. */
static bool check_types(importer *m, window_rule rule) {
    const tree *list = config_find(&m->config, "layer_types", NULL);
    int64_t     i = 0;
    if (!list)
        return true;
    if (!tree_is(list, TREE_ARRAY) || list->count < m->h.layers)
        return config_refuse(&m->config, "layer_types", "must be a list with one word for each layer");
    for (const tree *t = tree_first(list); t && i < m->h.layers; t = t->next, i++)
        if (!tree_text_is(t, windowed(rule, i) ? "sliding_attention" : "full_attention")) {
            char why[160];
            snprintf(why, sizeof why, "makes layer %lld another kind of layer than GGUF's %s has there", (long long)i,
                     m->arch->gguf);
            return config_refuse(&m->config, "layer_types", why);
        }
    return true;
}

/* A window that GGUF cannot say. */
static bool only_within(importer *m, int64_t window) {
    if (window <= 0 || window >= m->h.context)
        return true;
    if (m->o->context > 0 && m->o->context <= window)
        return true;
    char why[320];
    snprintf(
        why, sizeof why,
        "is %lld, a window that GGUF's %s does not have; for texts of up to %lld tokens it makes no difference: say "
        "--context %lld to import the model for those",
        (long long)window, m->arch->gguf, (long long)window, (long long)window);
    return config_refuse(&m->config, "sliding_window", why);
}

/* Which layers the window is on makes no difference within it. */
static bool windows_unsaid(importer *m, int64_t window) {
    config_find(&m->config, "layer_types", NULL);
    return only_within(m, window);
}

/* Qwen: layers from max_window_layers on are windowed, if at all. */
static bool switched(importer *m, int64_t window) {
    bool    used = false;
    int64_t from = 0;
    if (!hf_bool(&m->config, "use_sliding_window", &used) ||
        !hf_int(&m->config, "max_window_layers", 0, 1 << 20, &from))
        return false;
    if (!used || from >= m->h.layers)
        return check_types(m, WINDOW_NONE);
    return windows_unsaid(m, window);
}

static bool alternating(importer *m, int64_t window) {
    int64_t pattern = 6;
    if (m->arch->window == WINDOW_SIXTH &&
        !hf_int(&m->config, "sliding_window_pattern|_sliding_window_pattern", 1, 1 << 20, &pattern))
        return false;
    if (pattern == 1) /* Gemma 3 without windows */
        return check_types(m, WINDOW_NONE);
    if (pattern != 6)
        return config_refuse(&m->config, "sliding_window_pattern", "is not 6, the one that GGUF's gemma3 has");
    import_put_int(m, "attention.sliding_window", window ? window : m->arch->window == WINDOW_SECOND ? 4096 : 1024);
    return check_types(m, m->arch->window);
}

/* SmolLM3: every fourth layer does not turn; GGUF's readers know that by themselves. */
static bool check_turning(importer *m) {
    int64_t     every = 4, i = 0;
    const tree *list = config_find(&m->config, "no_rope_layers", NULL);
    if (!hf_int(&m->config, "no_rope_layer_interval", 1, 1 << 20, &every))
        return false;
    if (list && (!tree_is(list, TREE_ARRAY) || list->count != m->h.layers))
        return config_refuse(&m->config, "no_rope_layers", "must be a list with one number for each layer");
    if (!list && every != 4)
        return config_refuse(&m->config, "no_rope_layer_interval", "is not 4, the one that GGUF's smollm3 has");
    for (const tree *t = tree_first(list); t; t = t->next, i++)
        if (!tree_is(t, TREE_NUMBER) || (t->u.number != 0) != ((i + 1) % 4 != 0))
            return config_refuse(&m->config, "no_rope_layers", "is not each fourth layer, as in GGUF's smollm3");
    return true;
}

bool window_read(importer *m) {
    int64_t window = 0;
    if (!hf_int(&m->config, "sliding_window", 0, 1 << 24, &window))
        return false;
    if (strcmp(m->arch->gguf, "smollm3") == 0 && !check_turning(m))
        return false;
    bool ok = true;
    switch (m->arch->window) {
    case WINDOW_NONE:
        ok = window > 0 ? windows_unsaid(m, window) : check_types(m, WINDOW_NONE);
        break;
    case WINDOW_SWITCHED:
        ok = switched(m, window);
        break;
    case WINDOW_KEY:
        import_put_int(m, "attention.sliding_window", window);
        break;
    case WINDOW_SECOND:
    case WINDOW_SIXTH:
        ok = alternating(m, window);
        break;
    }
    if (ok && m->o->context > m->h.context)
        return err_set(m->e, ERR_INVALID, "--context %lld is more than the model's own %lld", (long long)m->o->context,
                       (long long)m->h.context);
    if (ok && m->o->context > 0)
        m->h.context = m->o->context;
    if (ok)
        import_put_int(m, "context_length", m->h.context);
    return ok;
}
