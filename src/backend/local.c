/* local.c - a model of our own as a backend: opening, closing and telling how it is. */
#include "backend/local.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/thread.h"
#include "engine/pooling.h"

/* ---- fingerprint ---- */

#define WHOLE_BYTES  (64 << 20) /* files up to here are hashed whole */
#define HEADER_BYTES (16 << 20) /* of others, this much of the beginning: the metadata and the vocabulary */
#define SAMPLES      64         /* and so many pieces, evenly spread */
#define SAMPLE_BYTES 4096

typedef struct bytes_source { /* a file or memory */
    int         fd;
    const char *data;
    uint64_t    size;
} bytes_source;

static bool add_bytes(sha256_state *s, const bytes_source *from, uint64_t at, uint64_t n) {
    char buffer[16384];
    if (from->data) {
        sha256_add(s, from->data + at, n);
        return true;
    }
    while (n > 0) {
        size_t  want = n < sizeof(buffer) ? (size_t)n : sizeof(buffer);
        ssize_t got = pread(from->fd, buffer, want, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        sha256_add(s, buffer, (size_t)got);
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return true;
}

static bool hash_source(const bytes_source *from, char out[65], err *e) {
    sha256_state *s = sha256_begin();
    if (!s) {
        return err_set(e, ERR_MEMORY, "out of memory for a hash");
    }
    uint64_t size = from->size;
    sha256_add(s, &size, sizeof(size));
    bool ok = add_bytes(s, from, 0, size <= WHOLE_BYTES ? size : HEADER_BYTES);
    for (uint64_t i = 0; ok && size > WHOLE_BYTES && i < SAMPLES; i++) {
        ok = add_bytes(s, from, HEADER_BYTES + (size - HEADER_BYTES - SAMPLE_BYTES) / (SAMPLES - 1) * i, SAMPLE_BYTES);
    }
    sha256 sum = sha256_end(s);
    hex_encode(sum.bytes, sizeof(sum.bytes), out);
    return ok || err_set(e, ERR_IO, "the model's file cannot be read");
}

static bool hash_model(const char *path, const void *data, size_t n, char out[65], err *e) {
    bytes_source from = {.fd = -1, .data = data, .size = n};
    if (data) {
        return hash_source(&from, out, e);
    }
    struct stat st;
    from.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (from.fd < 0 || fstat(from.fd, &st) != 0) {
        err_set(e, ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
        if (from.fd >= 0) {
            close(from.fd);
        }
        return false;
    }
    from.size = (uint64_t)st.st_size;
    bool ok = hash_source(&from, out, e);
    close(from.fd);
    return ok || err_prefix(e, "%s", path);
}

/* The same file answers differently when its context or its cache is kept in another way; the usual way leaves the hash
 * of the file as it is. */
static bool add_settings(const local_options *o, int context, char hash[65], err *e) {
    str text = {0};
    if (o->kv != KV_F16) {
        str_addf(&text, " kv=%s", kv_type_name(o->kv));
    }
    if (o->slide) {
        str_addf(&text, " slide=%d", context);
    }
    if (o->pooling != POOLING_NONE) {
        str_addf(&text, " pooling=%s", pooling_name(o->pooling));
    }
    if (text.len > 0) {
        str_adds(&text, hash);
        sha256 sum = sha256_of(text.data, text.len);
        hex_encode(sum.bytes, sizeof(sum.bytes), hash);
    }
    bool ok = !text.failed || err_set(e, ERR_MEMORY, "out of memory for a hash");
    str_free(&text);
    return ok;
}

bool local_fingerprint(const char *path, const void *data, size_t n, const local_options *o, int context, char out[65],
                       err *e) {
    return hash_model(path, data, n, out, e) && add_settings(o, context, out, e);
}

engine_options local_engine_options(const local_options *o) {
    return (engine_options){.sequences = o->sequences,
                            .context = o->context,
                            .queue = o->queue,
                            .step_tokens = o->step_tokens,
                            .step_us = (int64_t)o->step_ms * 1000,
                            .kv = o->kv,
                            .kv_bytes = (size_t)o->kv_bytes,
                            .kv_disk = o->kv_disk,
                            .kv_disk_bytes = (size_t)o->kv_disk_bytes};
}

/* ---- the worker: makes prompts, which can take milliseconds, off the loops ---- */

static void *work(void *arg) {
    local_backend *b = arg;
    for (;;) {
        queue_item *item = queue_wait_all(b->work, -1);
        while (item) {
            queue_item *next = item->next;
            if (item == &b->last_work) {
                return NULL;
            }
            local_call_prepare(item);
            item = next;
        }
    }
}

static bool start_worker(local_backend *b, err *e) {
    b->work = queue_new(NULL, NULL);
    if (!b->work) {
        return err_set(e, ERR_MEMORY, "out of memory for a queue");
    }
    b->started = thread_start(&b->worker, work, b, "the thread of a local model", e);
    return b->started;
}

/* ---- opening and closing ---- */

static void close_local(backend *base) {
    local_backend *b = (local_backend *)base;
    if (b->started) {
        atomic_store(&b->closing, true); /* calls that still stand in line end as cancelled */
        queue_put(b->work, &b->last_work);
        pthread_join(b->worker, NULL);
    }
    local_embed_close(b->embeds);
    engine_close(b->engine);
    local_rules_free(b);
    queue_free(b->work);
    guard_close(b->guard);
    model_close(b->m);
    free((char *)b->base.name);
    free(b);
}

static backend_call *start(backend *base, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                           err *e) {
    local_backend *b = (local_backend *)base;
    if (r->kind == REQUEST_EMBEDDINGS || r->kind == REQUEST_RERANK) {
        return local_embed_start(b->embeds, base->name, l, r, fn, ctx, e);
    }
    if (!b->engine) {
        err_at(e, ERR_UNSUPPORTED, "model", "%s makes embeddings and writes no text; ask %s", base->name,
               b->m->shape.pooling == POOLING_RANK ? "/v1/rerank" : "/v1/embeddings");
        return NULL;
    }
    return local_call_start(base, l, r, model, fn, ctx, e);
}

static void cancel(backend_call *call) {
    if (local_embed_is(call)) {
        local_embed_cancel(call);
    } else {
        local_call_cancel(call);
    }
}

static const backend_ops local_ops = {.kind = "local",
                                      .start = start,
                                      .cancel = cancel,
                                      .metrics = local_metrics,
                                      .status = local_status,
                                      .healthy = local_healthy,
                                      .close = close_local};

/* Which of the marks that the template writes are control tokens. */
static void look_at_template(local_backend *b) {
    const tokenizer *t = b->m->tokens;
    const char      *marks[SPEECH_MAX_MARKS];
    int              n_thoughts;
    if (!b->m->chat) {
        return;
    }
    b->speech = speech_format_of(template_source(b->m->chat));
    b->manners = local_template_manners(b->m->chat);
    int n = speech_marks(&b->speech, marks, &n_thoughts);
    for (int i = 0; i < n; i++) {
        int32_t id = tokenizer_find(t, marks[i], strlen(marks[i]));
        if (id >= 0 && tokenizer_kind(t, id) == TOKEN_CONTROL) {
            b->shown[b->n_shown++] = id;
            b->n_shown_thoughts += i < n_thoughts;
        }
    }
}

static bool look_at_vocabulary(local_backend *b, err *e) {
    const tokenizer *t = b->m->tokens;
    if (!t) {
        return true;
    }
    b->longest_token = 1;
    for (int id = 0; id < tokenizer_vocab(t); id++) {
        const char *text = tokenizer_text(t, id);
        size_t      len = text ? strlen(text) : 0;
        b->longest_token = len > b->longest_token ? len : b->longest_token;
    }
    look_at_template(b);
    b->guard = guard_open(t, e);
    return b->guard != NULL;
}

static bool open_local(local_backend *b, const char *path, const void *data, size_t n, pool *p, const local_options *o,
                       err *e) {
    b->m = model_open_until(path, data, n, p, o->stop, e);
    if (!b->m || !hash_model(path, data, n, b->base.fingerprint, e) || !look_at_vocabulary(b, e)) {
        return false;
    }
    err why = {0};
    b->embeds = local_embed_open(b->base.name, b->m, p, o, &why);
    if (!b->embeds && why.code != ERR_NONE) {
        return err_set(e, why.code, "%s", why.text);
    }
    if (b->m->shape.headless) {
        return add_settings(o, 0, b->base.fingerprint, e);
    }
    engine_options options = local_engine_options(o);
    options.fingerprint = b->base.fingerprint;
    b->slide = o->slide;
    b->share_all = o->share_all;
    b->engine = engine_open(b->m, p, &options, e);
    return b->engine && add_settings(o, engine_context(b->engine), b->base.fingerprint, e) && start_worker(b, e);
}

backend *backend_local(const char *name, const char *path, const void *data, size_t n, struct pool *p,
                       const local_options *o, err *e) {
    local_backend *b = calloc(1, sizeof(*b));
    if (!b || !(b->base.name = strdup(name))) {
        free(b);
        err_set(e, ERR_MEMORY, "out of memory for the model %s", name);
        return NULL;
    }
    b->base.ops = &local_ops;
    static const local_options defaults;
    if (!open_local(b, path, data, n, p, o ? o : &defaults, e)) {
        close_local(&b->base);
        return NULL;
    }
    return &b->base;
}
