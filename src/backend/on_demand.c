#include "backend/on_demand.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "backend/local.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/footprint.h"

/* Who waits for memory that others use without a break gets it after so long, and the more the longer it takes to load:
 * those others' new requests stand in line until it is there. */
#define PATIENCE_US    2000000
#define PATIENCE_LOADS 4

/* A model that could not be loaded is not tried again at once by each request. */
#define FIRST_PAUSE_US   5000000
#define LONGEST_PAUSE_US 300000000
#define LOOK_US          1000000 /* between two looks at its file, which ends the pause when it has changed */

typedef enum place { ABSENT, LOADING, READY, LEAVING } place;

typedef struct demanded demanded;

typedef struct stamp { /* of a file; all zeros: it is not there */
    int64_t         bytes;
    struct timespec modified;
} stamp;

/* A request: in line until its model is there, then a call of the model's own. On its loop, but for the links. */
typedef struct demand {
    loop_task        task; /* first */
    demanded        *m;
    loop            *l;
    const request   *r;
    const char      *model;
    backend_event_fn fn;
    void            *ctx;
    backend_call    *inner; /* NULL: in line */
    bool             cancelled;
    err              failed;          /* the model could not be loaded */
    char             retry_after[24]; /* and for so many seconds will not be tried again; empty: not known */
    struct demand   *next;            /* in line */
} demand;

struct demanded {          /* a model; guarded by the lock but for what never changes */
    backend          base; /* first */
    on_demand       *d;
    const char      *path; /* NULL: data, which outlives it */
    const void      *data;
    size_t           n;
    local_options    options;
    int64_t          bytes; /* that it will take */
    err              never; /* why it can not be loaded, if so */
    place            at;
    backend         *inner;                      /* READY */
    bool             held;                       /* READY, but its new requests stand in line */
    int              users;                      /* requests that are in line or answered, and readers of its state */
    int              lined;                      /* of these, in line */
    int64_t          used_us, since_us, load_us; /* since_us: of the line; load_us: what loading took, 0: not known */
    demand          *line, **line_end;
    err              failed;             /* why it was not loaded the last time; NONE: it was, or was not tried */
    int64_t          pause_us, retry_us; /* of that failure: how long it stands, and until when */
    stamp            failed_file;        /* as it was then; the thread's */
    struct demanded *next;
};

struct on_demand {
    pool           *p;
    int64_t         bytes, idle_us;
    pthread_mutex_t lock;
    pthread_cond_t  change; /* somebody asks, somebody has finished, closing */
    pthread_t       thread;
    bool            started;
    atomic_bool     closing; /* set under the lock; who loads looks without it */
    demanded       *models;
    int64_t         taken;     /* bytes of those that are not ABSENT */
    int64_t         loaded_us; /* when one was loaded last */
    int64_t         looked_us; /* when the files of those that failed were looked at last */
};

static void wait_us(on_demand *d, int64_t us) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += us / 1000000;
    until.tv_nsec += us % 1000000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&d->change, &d->lock, &until);
}

/* ---- the loop's side ---- */

/* Of who was counted in users. */
static void leave(demanded *m) {
    pthread_mutex_lock(&m->d->lock);
    if (--m->users == m->lined)
        pthread_cond_signal(&m->d->change);
    pthread_mutex_unlock(&m->d->lock);
}

/* A request is through. */
static void finish(demanded *m) {
    pthread_mutex_lock(&m->d->lock);
    m->used_us = clock_us();
    pthread_mutex_unlock(&m->d->lock);
    leave(m);
}

/* 503 and Retry-After where a model fails: it is not the request that is wrong. */
static void end(demand *x, const err *why) {
    char  after[sizeof x->retry_after];
    event ev = {.kind = EVENT_ERROR, .error = why};
    memcpy(after, x->retry_after, sizeof after);
    if (after[0]) {
        ev.status = 503;
        ev.retry_after = after;
    }
    backend_event_fn fn = x->fn;
    void            *ctx = x->ctx;
    demanded        *m = x->m;
    fn(ctx, &ev);
    free(x);
    finish(m);
}

static void pass_on(void *arg, const event *ev) {
    demand   *x = arg;
    demanded *m = x->m;
    bool      last = ev->kind == EVENT_DONE || ev->kind == EVENT_ERROR;
    x->fn(x->ctx, ev);
    if (last) {
        free(x);
        finish(m);
    }
}

/* The model is there, or will not be. */
static void on_loop(loop_task *task) {
    demand *x = (demand *)task;
    err     why = {0};
    if (x->cancelled) {
        x->retry_after[0] = '\0';
        err_set(&why, ERR_CANCELLED, "the request was cancelled");
        end(x, &why);
    } else if (x->failed.code != ERR_NONE) {
        end(x, &x->failed);
    } else if (!x->m->inner) {
        err_set(&why, ERR_CANCELLED, "%s is shutting down", x->m->base.name);
        end(x, &why);
    } else {
        backend *b = x->m->inner; /* stays while x is a user, but for the end of everything */
        x->inner = b->ops->start(b, x->l, x->r, x->model, pass_on, x, &why);
        if (!x->inner)
            end(x, &why);
    }
}

/* A new request of a model that failed a moment ago fails as well. With the lock held. */
static bool fails(const demanded *m) {
    return m->at == ABSENT && m->failed.code != ERR_NONE && clock_us() < m->retry_us;
}

static void fail(demand *x) {
    int64_t left = x->m->retry_us - clock_us();
    x->failed = x->m->failed;
    snprintf(x->retry_after, sizeof x->retry_after, "%" PRId64, left > 0 ? (left + 999999) / 1000000 : 1);
}

static void stand_in_line(demand *x) {
    demanded *m = x->m;
    m->since_us = m->line ? m->since_us : clock_us();
    m->lined++;
    *m->line_end = x;
    m->line_end = &x->next;
    pthread_cond_signal(&m->d->change);
}

static backend_call *start(backend *base, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                           err *e) {
    demanded *m = (demanded *)base;
    demand   *x = m->never.code == ERR_NONE ? calloc(1, sizeof *x) : NULL;
    if (!x) {
        if (m->never.code == ERR_NONE)
            err_set(e, ERR_MEMORY, "out of memory for a request");
        else if (e)
            *e = m->never;
        return NULL;
    }
    *x = (demand){.task.run = on_loop, .m = m, .l = l, .r = r, .model = model, .fn = fn, .ctx = ctx};
    pthread_mutex_lock(&m->d->lock);
    bool ready = m->at == READY && !m->held;
    m->users++;
    if (fails(m)) {
        fail(x);
        loop_post(l, &x->task);
    } else if (!ready) {
        stand_in_line(x);
    }
    pthread_mutex_unlock(&m->d->lock);
    if (ready) {
        x->inner = m->inner->ops->start(m->inner, l, r, model, pass_on, x, e);
        if (!x->inner) {
            free(x);
            finish(m);
            return NULL;
        }
    }
    return (backend_call *)x;
}

static void cancel(backend_call *call) {
    demand   *x = (demand *)call;
    demanded *m = x->m;
    x->cancelled = true;
    if (x->inner) {
        m->inner->ops->cancel(x->inner);
        return;
    }
    pthread_mutex_lock(&m->d->lock);
    demand **at = &m->line;
    while (*at && *at != x)
        at = &(*at)->next;
    if (*at) { /* else its task is on its way */
        *at = x->next;
        if (!*at)
            m->line_end = at;
        m->lined--;
        loop_post(x->l, &x->task);
    }
    pthread_mutex_unlock(&m->d->lock);
}

/* ---- telling ---- */

/* The inner backend, which stays until leave(); NULL when it is not loaded. */
static backend *visit(demanded *m) {
    pthread_mutex_lock(&m->d->lock);
    backend *b = m->at == READY ? m->inner : NULL;
    m->users += b != NULL;
    pthread_mutex_unlock(&m->d->lock);
    return b;
}

/* One that could not be loaded is well again when a request may try it. */
static bool healthy(backend *base, err *why) {
    demanded *m = (demanded *)base;
    backend  *b = visit(m);
    bool      well = true;
    if (b) {
        well = b->ops->healthy(b, why);
        leave(m);
        return well;
    }
    pthread_mutex_lock(&m->d->lock);
    if (fails(m)) {
        well = false;
        if (why)
            *why = m->failed;
    }
    pthread_mutex_unlock(&m->d->lock);
    return well;
}

/* What the local backend tells (local_tell.c), of one that is not loaded: who is in line waits. */
static bool tell_absent(demanded *m, str *out) {
    pthread_mutex_lock(&m->d->lock);
    int waiting = m->users;
    pthread_mutex_unlock(&m->d->lock);
    return str_adds(out, "{\"model\":") && str_jsons(out, m->base.name) &&
           str_addf(out, ",\"running\":0,\"waiting\":%d,\"loaded\":false,\"memory\":%lld}", waiting,
                    (long long)m->bytes);
}

static bool status(backend *base, str *out) {
    demanded *m = (demanded *)base;
    backend  *b = visit(m);
    if (!b)
        return tell_absent(m, out);
    bool ok = b->ops->status(b, out);
    leave(m);
    return ok;
}

static const backend_ops on_demand_ops;

static bool metrics(backend *const *all, int n, str *out) {
    backend  **loaded = calloc((size_t)n + 1, sizeof(backend *));
    demanded **visited = calloc((size_t)n + 1, sizeof(demanded *));
    int        count = 0;
    if (!loaded || !visited) {
        free(loaded);
        free(visited);
        return false;
    }
    str_adds(out, "# HELP pare_model_loaded Whether a local model that is loaded on demand is in memory.\n"
                  "# TYPE pare_model_loaded gauge\n");
    for (int i = 0; i < n; i++) {
        if (all[i]->ops != &on_demand_ops)
            continue;
        demanded *m = (demanded *)all[i];
        backend  *b = visit(m);
        str_adds(out, "pare_model_loaded{model=");
        str_label(out, m->base.name);
        str_addf(out, "} %d\n", b != NULL);
        if (b) {
            visited[count] = m;
            loaded[count++] = b;
        }
    }
    bool ok = count == 0 || loaded[0]->ops->metrics(loaded, count, out);
    for (int i = 0; i < count; i++)
        leave(visited[i]);
    free(loaded);
    free(visited);
    return ok;
}

/* ---- the thread ---- */

/* Those in line go to their loops. With the lock held. */
static void dismiss(demanded *m, const err *why) {
    demand *x = m->line;
    m->line = NULL;
    m->line_end = &m->line;
    m->lined = 0;
    while (x) {
        demand *next = x->next;
        if (why)
            x->failed = *why;
        loop_post(x->l, &x->task);
        x = next;
    }
}

/* Unloads; the lock is given up meanwhile. */
static void unload(on_demand *d, demanded *m) {
    backend *b = m->inner;
    m->at = LEAVING;
    m->held = false;
    m->inner = NULL;
    pthread_mutex_unlock(&d->lock);
    log_info("unloading %s", m->base.name);
    b->ops->close(b);
    pthread_mutex_lock(&d->lock);
    m->at = ABSENT;
    d->taken -= m->bytes;
}

static bool is_idle(const demanded *m) {
    return m->at == READY && m->users == m->lined;
}

/* The idle one that was used longest ago. */
static demanded *oldest(const on_demand *d) {
    demanded *best = NULL;
    for (demanded *m = d->models; m; m = m->next)
        if (is_idle(m) && (!best || m->used_us < best->used_us))
            best = m;
    return best;
}

static stamp stamp_of(const char *path) {
    struct stat at;
    return path && stat(path, &at) == 0 ? (stamp){.bytes = at.st_size, .modified = at.st_mtim} : (stamp){0};
}

static bool is_same(const stamp *a, const stamp *b) {
    return a->bytes == b->bytes && a->modified.tv_sec == b->modified.tv_sec &&
           a->modified.tv_nsec == b->modified.tv_nsec;
}

/* Each failure in a row stands twice as long. With the lock held. */
static void note_failure(demanded *m, const err *why, const stamp *file) {
    int64_t twice = 2 * m->pause_us;
    m->failed_file = *file;
    m->pause_us = twice < FIRST_PAUSE_US ? FIRST_PAUSE_US : twice < LONGEST_PAUSE_US ? twice : LONGEST_PAUSE_US;
    m->retry_us = clock_us() + m->pause_us;
    err_set(&m->failed, ERR_BUSY, "%s could not be loaded: %s", m->base.name, why->text);
    for (demand *x = m->line; x; x = x->next)
        fail(x);
    log_error("%s; it is not tried again for %lld s, unless the file changes", m->failed.text,
              (long long)(m->pause_us / 1000000));
}

static void forget_failure(demanded *m) {
    m->failed = (err){0};
    m->pause_us = m->retry_us = 0;
}

/* A model whose file has changed may be tried at once. The lock is given up while the disk is asked; true: it was. */
static bool look_at_files(on_demand *d, int64_t *wait) {
    int64_t left = d->looked_us + LOOK_US - clock_us();
    bool    looked = false;
    for (demanded *m = d->models; m && !d->closing; m = m->next) {
        if (!fails(m) || !m->path)
            continue;
        if (left > 0) {
            *wait = left < *wait ? left : *wait;
            return false;
        }
        looked = true;
        pthread_mutex_unlock(&d->lock);
        stamp now = stamp_of(m->path);
        pthread_mutex_lock(&d->lock);
        if (!is_same(&now, &m->failed_file)) {
            log_info("the file of %s has changed; it may be loaded again", m->base.name);
            forget_failure(m);
        }
    }
    if (looked)
        d->looked_us = clock_us();
    return looked;
}

/* The lock is given up while it loads. */
static void load(on_demand *d, demanded *m) {
    err     why = {0};
    int64_t begun = clock_us();
    m->at = LOADING;
    d->taken += m->bytes;
    pthread_mutex_unlock(&d->lock);
    log_info("loading %s (%lld MiB)", m->base.name, (long long)(m->bytes >> 20));
    stamp    file = stamp_of(m->path);
    backend *b = backend_local(m->base.name, m->path, m->data, m->n, d->p, &m->options, &why);
    if (b && strcmp(b->fingerprint, m->base.fingerprint) != 0) { /* stored answers would be another model's */
        b->ops->close(b);
        b = NULL;
        err_set(&why, ERR_INVALID, "%s: the file has changed since the server began; start the server again", m->path);
    }
    pthread_mutex_lock(&d->lock);
    m->inner = b;
    m->at = b ? READY : ABSENT;
    m->used_us = d->loaded_us = clock_us();
    m->load_us = m->used_us - begun;
    if (!b)
        d->taken -= m->bytes;
    if (b)
        forget_failure(m);
    else if (!d->closing) /* then it was given up */
        note_failure(m, &why, &file);
    dismiss(m, b || !d->closing ? NULL : &why);
}

static bool wanted(const demanded *m) {
    return m->at == ABSENT && m->line;
}

/* The one whose line is the oldest. */
static demanded *first_wanted(const on_demand *d) {
    demanded *best = NULL;
    for (demanded *m = d->models; m; m = m->next)
        if (wanted(m) && (!best || m->since_us < best->since_us))
            best = m;
    return best;
}

static bool fits(const on_demand *d, const demanded *m) {
    return !d->bytes || d->taken + m->bytes <= d->bytes;
}

/* Those whose memory `m` needs answer no more new requests; m NULL: all do. */
static void hold(on_demand *d, const demanded *m) {
    int64_t taken = d->taken;
    for (demanded *other = d->models; other; other = other->next) {
        bool held = m && other->at == READY && taken + m->bytes > d->bytes;
        taken -= held ? other->bytes : 0;
        if (other->held && !held && other->at == READY)
            dismiss(other, NULL);
        other->held = held;
    }
}

static bool is_overdue(const on_demand *d, const demanded *m) {
    int64_t from = m->since_us > d->loaded_us ? m->since_us : d->loaded_us;
    return clock_us() - from >= PATIENCE_US + PATIENCE_LOADS * m->load_us;
}

/* Does one thing for one model that is wanted; false when there is nothing to do now. */
static bool serve_line(on_demand *d) {
    demanded *first = first_wanted(d), *m = first;
    bool      blocked = first && !fits(d, first), overdue = blocked && is_overdue(d, first);
    hold(d, overdue ? first : NULL);
    demanded *other = oldest(d); /* who is held no more may have got requests */
    if (blocked && other) {
        unload(d, other);
        return true;
    }
    if (blocked) /* until somebody has finished; what is small may go before it for a while */
        for (m = overdue ? NULL : d->models; m && !(wanted(m) && fits(d, m));)
            m = m->next;
    if (m)
        load(d, m);
    return m != NULL;
}

/* Unloads one that nobody has asked for long; otherwise how long until there may be one. */
static bool clear_out(on_demand *d, int64_t *wait) {
    int64_t now = clock_us();
    *wait = first_wanted(d) ? PATIENCE_US / 4 : 60 * 1000000LL;
    for (demanded *m = d->models; d->idle_us && m; m = m->next) {
        int64_t left = m->used_us + d->idle_us - now;
        if (!is_idle(m))
            continue;
        if (left <= 0) {
            unload(d, m);
            return true;
        }
        *wait = left < *wait ? left : *wait;
    }
    return false;
}

static void *run(void *arg) {
    on_demand *d = arg;
    int64_t    wait;
    pthread_mutex_lock(&d->lock);
    while (!d->closing)
        if (!serve_line(d) && !clear_out(d, &wait) && !look_at_files(d, &wait))
            wait_us(d, wait);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static bool start_thread(on_demand *d, err *e) {
    d->started = thread_start(&d->thread, run, d, "the thread that loads models", e);
    return d->started;
}

on_demand *on_demand_new(pool *p, int64_t bytes, int64_t idle_us, err *e) {
    on_demand         *d = calloc(1, sizeof *d);
    pthread_condattr_t steady;
    if (!d) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    d->p = p;
    d->bytes = bytes;
    d->idle_us = idle_us;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&d->change, &steady);
    pthread_condattr_destroy(&steady);
    if (!start_thread(d, e)) {
        on_demand_free(d);
        return NULL;
    }
    return d;
}

/* The thread is stopped with the first backend that closes: nothing is loaded from then on. */
static void stop(on_demand *d) {
    if (!d->started)
        return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_signal(&d->change);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    d->started = false;
}

static void close_demanded(backend *base) {
    demanded *m = (demanded *)base;
    err       why = {0};
    stop(m->d);
    err_set(&why, ERR_CANCELLED, "%s is shutting down", base->name);
    pthread_mutex_lock(&m->d->lock);
    dismiss(m, &why);
    pthread_mutex_unlock(&m->d->lock);
    if (m->inner)
        m->inner->ops->close(m->inner);
    m->inner = NULL;
    m->at = ABSENT;
    /* Its requests may still be in the loops' mailboxes: the memory goes with on_demand_free. */
}

static void free_demanded(demanded *m) {
    free((char *)m->base.name);
    free((char *)m->path);
    free((char *)m->options.kv_disk);
    free(m);
}

void on_demand_free(on_demand *d) {
    if (!d)
        return;
    stop(d);
    for (demanded *m = d->models, *next; m; m = next) {
        next = m->next;
        free_demanded(m);
    }
    pthread_cond_destroy(&d->change);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static const backend_ops on_demand_ops = {.kind = "local",
                                          .start = start,
                                          .cancel = cancel,
                                          .metrics = metrics,
                                          .status = status,
                                          .healthy = healthy,
                                          .close = close_demanded};

/* What it will take, and whether that can ever be there. */
static bool measure(const on_demand *d, demanded *m, err *e) {
    engine_options o = local_engine_options(&m->options);
    footprint      f;
    gguf          *g = m->data ? gguf_open_memory(m->base.name, m->data, m->n, e) : gguf_open(m->path, e);
    bool           ok = g && footprint_of_engine(g, &o, &f, e);
    gguf_close(g);
    if (!ok || !local_fingerprint(m->path, m->data, m->n, &m->options, f.context, m->base.fingerprint, e))
        return false;
    m->bytes = (int64_t)footprint_sum(&f);
    if (!d->bytes || m->bytes <= d->bytes)
        return true;
    err_set(&m->never, ERR_MEMORY,
            "%s needs %lld MiB (%zu of weights, %zu of keys and values), the budget for all models is %lld MiB; "
            "give it less context, fewer sequences or kv q8_0, or raise --memory",
            m->base.name, (long long)(m->bytes >> 20), f.weights >> 20, f.kv >> 20, (long long)(d->bytes >> 20));
    log_warn("%s", m->never.text);
    return true;
}

backend *on_demand_add(on_demand *d, const char *name, const char *path, const void *data, size_t n,
                       const local_options *o, err *e) {
    demanded *m = calloc(1, sizeof *m);
    if (!m || !(m->base.name = strdup(name)) || (path && !(m->path = strdup(path)))) {
        if (m)
            free_demanded(m);
        err_set(e, ERR_MEMORY, "out of memory for the model %s", name);
        return NULL;
    }
    m->base.ops = &on_demand_ops;
    m->d = d;
    m->data = data;
    m->n = n;
    m->options = o ? *o : (local_options){0};
    m->options.stop = &d->closing;
    m->options.kv_disk = o && o->kv_disk ? strdup(o->kv_disk) : NULL; /* loaded long after the settings have gone */
    m->line_end = &m->line;
    if (o && o->kv_disk && !m->options.kv_disk) {
        free_demanded(m);
        err_set(e, ERR_MEMORY, "out of memory for the model %s", name);
        return NULL;
    }
    if (!measure(d, m, e)) {
        free_demanded(m);
        return NULL;
    }
    pthread_mutex_lock(&d->lock);
    m->next = d->models;
    d->models = m;
    pthread_mutex_unlock(&d->lock);
    return &m->base;
}
