/* reader.c - the thread that answers questions, on a connection that can only read. A question has five seconds; the
 * answer goes to the loop that asked.                                                                               */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/db_parts.h"

#define ANSWER_US   5000000
#define CHECK_STEPS 10000 /* of SQLite's virtual machine between two looks at the clock: well under a millisecond */

typedef struct ask {
    loop_task    task; /* its queue item serves on the way here and on the way back */
    loop        *loop;
    db_query_fn  query;
    db_answer_fn done;
    void        *ctx;
    str          json;
    err          why;
    bool         good;
    _Alignas(max_align_t) char arg[];
} ask;

typedef struct watch {
    db     *d;
    int64_t until_us;
    bool    late;
} watch;

static int look_at_clock(void *arg) {
    watch *w = arg;
    w->late = clock_us() > w->until_us;
    return w->late || atomic_load(&w->d->closing);
}

static void answer_on_loop(loop_task *task) {
    ask *a = (ask *)task;
    a->done(a->ctx, &a->json, a->good ? NULL : &a->why);
    str_free(&a->json);
    free(a);
}

static void answer_one(db *d, sqlite3 **c, ask *a) {
    watch w = {.d = d, .until_us = clock_us() + ANSWER_US};
    if (!*c) {
        *c = db_connect(d->path, false, &a->why);
    }
    if (atomic_load(&d->closing)) {
        a->good = err_set(&a->why, ERR_BUSY, "pare is closing.");
    } else if (*c) {
        sqlite3_progress_handler(*c, CHECK_STEPS, look_at_clock, &w);
        a->good = a->query(*c, a->arg, &a->json, &a->why);
        sqlite3_progress_handler(*c, 0, NULL, NULL);
        if (a->good && a->json.failed) {
            a->good = err_set(&a->why, ERR_MEMORY, "Out of memory for the answer.");
        } else if (!a->good && w.late) {
            err_set(&a->why, ERR_TIMEOUT, "The ledger took longer than %d seconds: ask for a shorter window.",
                    ANSWER_US / 1000000);
        }
    }
    a->task.run = answer_on_loop;
    loop_post(a->loop, &a->task);
}

void *reader_run(void *arg) {
    db      *d = arg;
    sqlite3 *c = NULL; /* opened at the first question */
    for (bool stop = false; !stop;) {
        queue_item *item = queue_wait_all(d->asks, -1);
        while (item) {
            queue_item *next = item->next; /* an answered question is gone */
            if (item == &d->last_ask) {
                stop = true;
            } else {
                answer_one(d, &c, (ask *)item);
            }
            item = next;
        }
    }
    sqlite3_close(c);
    return NULL;
}

struct ask *ask_new(loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done, void *ctx) {
    ask *a = arg_bytes < SIZE_MAX - sizeof *a ? calloc(1, sizeof *a + arg_bytes) : NULL;
    if (!a) {
        return NULL;
    }
    a->loop = l;
    a->query = query;
    a->done = done;
    a->ctx = ctx;
    if (arg_bytes) {
        memcpy(a->arg, arg, arg_bytes);
    }
    return a;
}

void ask_put(db *d, struct ask *a) {
    queue_put(d->asks, &a->task.item);
}

void ask_refuse_all(db *d) {
    for (queue_item *item = queue_take_all(d->asks), *next; item; item = next) {
        next = item->next;
        if (item == &d->last_ask) {
            continue;
        }
        ask *a = (ask *)item;
        a->good = err_set(&a->why, ERR_BUSY, "pare is closing.");
        a->task.run = answer_on_loop;
        loop_post(a->loop, &a->task);
    }
}

void db_ask(db *d, loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done, void *ctx) {
    ask *a = ask_new(l, query, arg, arg_bytes, done, ctx);
    if (!a) {
        err why;
        err_set(&why, ERR_MEMORY, "Out of memory for a question to the database.");
        done(ctx, &(str){0}, &why);
        return;
    }
    ask_put(d, a);
}
