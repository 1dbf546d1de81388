#include "serve/keeper.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/queue.h"
#include "base/thread.h"
#include "serve/server.h"
#include "store/keys.h"

#define WATCH_US    1000000
#define COMPLAIN_US 60000000

typedef enum wish { WISH_RELOAD, WISH_RETIRE, WISH_KEYS, WISH_END } wish;

typedef struct errand {
    queue_item  item;
    wish        wish;
    generation *old;
    keeper_done done;
    void       *ctx;

    keys_changer change;
    keys_changed changed;
    char         arg[]; /* the change's */
} errand;

struct keeper {
    struct server  *server;
    house          *house;
    settings_reader read;
    void           *read_ctx;
    queue          *errands;
    pthread_t       thread;
    struct sqlite3 *keys; /* a connection that may write; opened when it is first needed */
    int64_t         complained_us;
    errand         *end; /* there from the beginning, so that ending needs no memory */
};

static bool reload(keeper *k, err *e) {
    settings   *s = k->read ? k->read(k->read_ctx, e) : NULL;
    generation *g = s ? house_renew(k->house, s, e) : NULL;
    if (!k->read) {
        return err_set(e, ERR_UNSUPPORTED,
                       "This server was started without a file of settings: there is nothing to read.");
    }
    if (g) {
        server_adopt(k->server, g);
    }
    return g != NULL;
}

static void run_reload(keeper *k, const errand *d) {
    err  why = {0};
    bool good = reload(k, &why);
    if (good) {
        log_info("the settings were read again");
    } else {
        log_error("the settings were not taken over, all goes on as before: %s", why.text);
    }
    if (d->done) {
        d->done(d->ctx, good ? NULL : &why);
    }
}

/* ---- keys ---- */

static struct sqlite3 *connection(keeper *k, err *e) {
    if (!k->keys) {
        k->keys = keys_connect(k->house->now->settings->data, true, e); /* only this thread changes `now` */
    }
    return k->keys;
}

static bool rekey(keeper *k, err *e) {
    generation *g = house_rekey(k->house, e);
    if (g) {
        server_adopt(k->server, g);
        log_info("client keys taken over: %d", g->gateway.n_keys);
    }
    return g != NULL;
}

static void run_change(keeper *k, const errand *d) {
    err             why = {0};
    str             json = {0};
    struct sqlite3 *c = connection(k, &why);
    bool            good = c && d->change(c, d->arg, &json, &why) && rekey(k, &why);
    d->changed(d->ctx, &json, good ? NULL : &why);
    str_free(&json);
}

/* What cannot be read now is looked at again in a second; the log says so once a minute. */
static void watch_keys(keeper *k) {
    err             why = {0};
    struct sqlite3 *c = connection(k, &why);
    int64_t         n = c ? keys_change(c) : -1, now = clock_us();
    if (n == k->house->now->keys_change || (n >= 0 && rekey(k, &why))) {
        return;
    }
    if (k->complained_us == 0 || now - k->complained_us >= COMPLAIN_US) {
        k->complained_us = now;
        log_error("changed client keys cannot be taken over: %s", why.text[0] ? why.text : "the database is busy");
    }
}

/* ---- the thread ---- */

static void run_errand(keeper *k, errand *d) {
    switch (d->wish) {
    case WISH_RELOAD:
        run_reload(k, d);
        break;
    case WISH_RETIRE:
        while (d->old) {
            server_flush(k->server); /* the last words of cancelled calls, which nobody waits for */
            d->old = generation_end(d->old);
        }
        break;
    case WISH_KEYS:
        run_change(k, d);
        break;
    case WISH_END:
        break;
    }
}

static void *run(void *arg) {
    keeper *k = arg;
    int64_t next_us = clock_us() + WATCH_US;
    for (;;) {
        int64_t     left = next_us - clock_us();
        queue_item *item = queue_wait_all(k->errands, left > 0 ? left : 0);
        for (queue_item *next; item; item = next) {
            next = item->next;
            errand *d = (errand *)item;
            if (d == k->end) {
                return NULL;
            }
            run_errand(k, d);
            free(d);
        }
        if (clock_us() >= next_us) {
            watch_keys(k);
            next_us = clock_us() + WATCH_US;
        }
    }
}

static void release(keeper *k) {
    if (k) {
        queue_free(k->errands);
        keys_disconnect(k->keys);
        free(k->end);
        free(k);
    }
}

keeper *keeper_start(struct server *v, house *h, settings_reader read, void *ctx, err *e) {
    keeper *k = calloc(1, sizeof *k);
    if (!k || !(k->errands = queue_new(NULL, NULL)) || !(k->end = calloc(1, sizeof *k->end))) {
        release(k);
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    k->server = v;
    k->house = h;
    k->read = read;
    k->read_ctx = ctx;
    k->end->wish = WISH_END;
    if (!thread_start(&k->thread, run, k, "the keeper's thread", e)) {
        release(k);
        return NULL;
    }
    return k;
}

void keeper_stop(keeper *k) {
    if (!k) {
        return;
    }
    queue_put(k->errands, &k->end->item);
    pthread_join(k->thread, NULL);
    release(k);
}

/* `arg` may be NULL. */
static bool ask(keeper *k, const errand *what, const void *arg, size_t n) {
    errand *d = malloc(sizeof *d + n);
    if (d) {
        *d = *what;
        memcpy(d->arg, arg ? arg : "", n);
        queue_put(k->errands, &d->item);
    }
    return d != NULL;
}

bool keeper_reload(keeper *k, keeper_done done, void *ctx) {
    return ask(k, &(errand){.wish = WISH_RELOAD, .done = done, .ctx = ctx}, NULL, 0);
}

void keeper_retire(keeper *k, generation *g) {
    ask(k, &(errand){.wish = WISH_RETIRE, .old = g}, NULL,
        0); /* without memory it is not freed, and nothing else happens */
}

bool keeper_change_keys(keeper *k, keys_changer change, const void *arg, size_t n, keys_changed done, void *ctx) {
    return ask(k, &(errand){.wish = WISH_KEYS, .change = change, .changed = done, .ctx = ctx}, arg, n);
}
