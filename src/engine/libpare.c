/* libpare.c - include/pare.h over the engine: opening a model, and telling what it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "engine/libpare_parts.h"
#include "engine/pooling.h"

bool libpare_tell(const err *e, char *error, size_t size) {
    if (error && size > 0) {
        int n = snprintf(error, size, "%s", e->text);
        if (n > 0 && (size_t)n >= size) {
            error[utf8_whole(error, size - 1)] = 0; /* cut between characters */
        }
    }
    return false;
}

const char *pare_version(void) {
    return PARE_VERSION;
}

void pare_free(void *memory) {
    free(memory);
}

/* ---- opening ---- */

static bool read_options(pare_model *m, const pare_options *o, err *e) {
    m->options = (engine_options){
        .sequences = o->sequences, .context = o->context, .kv = KV_F16, .kv_bytes = o->kv_bytes, .queue = INT32_MAX};
    if (o->threads < 0 || o->context < 0 || o->sequences < 0) {
        return err_set(e, ERR_INVALID, "threads, context and sequences must not be negative; 0 is the default");
    }
    if (o->kv && !kv_type_named(o->kv, &m->options.kv)) {
        return err_set(e, ERR_INVALID, "%.40s is no way to keep keys and values; f16, f32, q8_0 and q4_0 are", o->kv);
    }
    if (o->pooling && !pooling_named(o->pooling, &m->pooling)) {
        return err_set(e, ERR_INVALID, "%.40s is no pooling; mean, cls and last are", o->pooling);
    }
    return true;
}

static bool list_controls(pare_model *m, err *e) {
    const tokenizer *t = m->weights->tokens;
    int              n = 0, vocab = t ? tokenizer_vocab(t) : 0;
    for (int id = 0; id < vocab; id++) {
        n += tokenizer_kind(t, id) == TOKEN_CONTROL;
    }
    m->controls = calloc((size_t)n + 1, sizeof(*m->controls));
    if (!m->controls) {
        return err_set(e, ERR_MEMORY, "out of memory for a model's control tokens");
    }
    for (int id = 0; id < vocab; id++) {
        if (tokenizer_kind(t, id) == TOKEN_CONTROL) {
            m->controls[m->n_controls++] = id;
        }
    }
    return true;
}

/* Options that do not suit the model are refused now, though the engine is opened later. */
static bool look_at(pare_model *m, err *e) {
    const model *w = m->weights;
    engine_size  size = {.context = m->options.context > 0 ? m->options.context : w->shape.context};
    if (!w->shape.headless && !engine_size_of(&w->shape, w->name, &m->options, &size, e)) {
        return false;
    }
    if (size.context > w->shape.context) {
        return err_set(e, ERR_INVALID, "a context of %d tokens is more than the %d that %s was made for", size.context,
                       w->shape.context, w->name);
    }
    m->context = size.context;
    m->pooling = w->shape.pooling == POOLING_RANK || m->pooling == POOLING_NONE ? w->shape.pooling : m->pooling;
    bool chats = w->tokens && w->chat && !w->shape.headless;
    m->guard = chats ? guard_open(w->tokens, e) : NULL;
    return (m->guard || !chats) && list_controls(m, e);
}

static pare_model *open_model(const char *path, const void *data, size_t n, const pare_options *options, char *error,
                              size_t error_size) {
    err          e = {0};
    pare_options o;
    pare_model  *m = calloc(1, sizeof(*m));
    log_setup(LOG_OFF, false); /* stderr is the program's */
    if (!m) {
        err_set(&e, ERR_MEMORY, "out of memory for a model");
        libpare_tell(&e, error, error_size);
        return NULL;
    }
    pthread_mutex_init(&m->opening, NULL);
    bool ok = libpare_read(&libpare_options, options, &o, &e) && read_options(m, &o, &e);
    m->compute = ok ? pool_new(o.threads, &e) : NULL;
    m->weights = m->compute ? model_open(path, data, n, m->compute, &e) : NULL;
    if (!m->weights || !look_at(m, &e)) {
        libpare_tell(&e, error, error_size);
        pare_close(m);
        return NULL;
    }
    return m;
}

pare_model *pare_open(const char *path, const pare_options *options, char *error, size_t error_size) {
    if (!path) {
        err e = {0};
        err_set(&e, ERR_INVALID, "there is no path of a model");
        libpare_tell(&e, error, error_size);
        return NULL;
    }
    return open_model(path, NULL, 0, options, error, error_size);
}

pare_model *pare_open_memory(const void *data, size_t n, const pare_options *options, char *error, size_t error_size) {
    if (!data || n == 0) {
        err e = {0};
        err_set(&e, ERR_INVALID, "there are no bytes of a model");
        libpare_tell(&e, error, error_size);
        return NULL;
    }
    return open_model("the model in memory", data, n, options, error, error_size);
}

void pare_close(pare_model *m) {
    if (!m) {
        return;
    }
    engine_close(m->engine);
    embed_close(m->embedder);
    guard_close(m->guard);
    free(m->controls);
    model_close(m->weights);
    if (m->compute) {
        pool_free(m->compute);
    }
    pthread_mutex_destroy(&m->opening);
    free(m);
}

/* ---- what runs it ---- */

engine *libpare_engine(pare_model *m, err *e) {
    if (m->weights->shape.headless) {
        err_set(e, ERR_UNSUPPORTED, "%s has no output layer: it embeds, and does not generate", m->weights->name);
        return NULL;
    }
    pthread_mutex_lock(&m->opening);
    if (!m->engine) {
        m->engine = engine_open(m->weights, m->compute, &m->options, e);
    }
    engine *g = m->engine;
    pthread_mutex_unlock(&m->opening);
    return g;
}

embedder *libpare_embedder(pare_model *m, err *e) {
    if (m->pooling == POOLING_RANK) {
        err_set(e, ERR_UNSUPPORTED, "%s scores pairs of texts, and gives no embeddings", m->weights->name);
        return NULL;
    }
    embed_options o = {.pooling = m->pooling, .context = m->context, .queue = INT32_MAX, .kv = m->options.kv};
    pthread_mutex_lock(&m->opening);
    if (!m->embedder) {
        m->embedder = embed_open(m->weights, m->compute, &o, e);
    }
    embedder *b = m->embedder;
    pthread_mutex_unlock(&m->opening);
    return b;
}

/* ---- telling ---- */

int pare_describe(const pare_model *m, pare_info *info, char *error, size_t error_size) {
    const model       *w = m->weights;
    const model_shape *s = &w->shape;
    err                e = {0};
    bool               ok = info || err_set(&e, ERR_INVALID, "there is no pare_info to write to");
    if (!ok || !libpare_may_write(&libpare_info, info, &e)) {
        return libpare_tell(&e, error, error_size);
    }
    bool      generates = !s->headless && w->tokens;
    pare_info told = {.name = w->name,
                      .architecture = s->arch->name,
                      .pooling = m->pooling == POOLING_NONE ? NULL : pooling_name(m->pooling),
                      .context = m->context,
                      .model_context = s->context,
                      .vocabulary = s->vocab,
                      .dimension = s->dim,
                      .layers = s->layers,
                      .can_generate = generates,
                      .can_chat = m->guard != NULL,
                      .can_embed = w->tokens && m->pooling != POOLING_NONE && m->pooling != POOLING_RANK,
                      .can_tokenize = w->tokens != NULL,
                      .weight_bytes = w->weight_bytes};
    if (generates && !m->guard) {
        told.chat_problem = w->chat_error[0] ? w->chat_error : "the file has no chat template";
    }
    libpare_write(&libpare_info, info, &told);
    return 1;
}
