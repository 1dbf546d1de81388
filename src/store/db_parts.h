/* db_parts.h - what the files behind db.h share; not for other rooms. */
#ifndef PARE_STORE_DB_PARTS_H
#define PARE_STORE_DB_PARTS_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "base/queue.h"
#include "store/db.h"

#define DB_BUSY_MS 5000 /* how long one statement waits for another process's write */

/* One wish to the writer, in the order of asking. */
typedef enum op_kind { OP_LEDGER, OP_CACHE_PUT, OP_CACHE_REMOVE, OP_CACHE_PURGE } op_kind;

typedef struct op {
    queue_item item;
    op_kind    kind;
    union {
        ledger_row    row;
        const cached *put; /* one reference */
        sha256        remove;
        struct {
            bool any_model, any_space;
            char model[sizeof(((cached *)0)->model)], space[sizeof(((cached *)0)->space)];
        } purge;
    };
} op;

enum {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_LEDGER,
    SQL_CACHE_PUT,
    SQL_CACHE_REMOVE,
    SQL_CACHE_PURGE,
    SQL_CACHE_CLEAR,
    SQL_CACHE_EXPIRE,
    SQL_CACHE_BYTES,
    SQL_CACHE_OLDEST,
    SQL_COUNT
};

struct db {
    char         *path;
    queue        *ops, *asks;
    pthread_t     writer, reader;
    bool          writing, reading;  /* the thread runs */
    queue_item    last_op, last_ask; /* put behind all others by db_close: a close needs no memory */
    atomic_bool   closing;
    sqlite3      *connection; /* the writer's */
    sqlite3_stmt *sql[SQL_COUNT];

    /* the writer's own */
    op     *first, *last; /* taken from the queue, not yet committed */
    int64_t n_pending;
    int64_t complained_us, next_sweep_us;
    int64_t cache_bytes; /* at rest, at most this much */

    atomic_llong cache_limit, put_bytes; /* put_bytes: of bodies that wait to be written */
    atomic_llong rows_written, rows_waiting, rows_dropped, commits, failures, cache_dropped;
};

/* "pare.db: cannot WHAT: SQLite's reason (what to do)". Returns false. */
bool db_fail(const char *path, sqlite3 *connection, const char *what, err *e);

/* schema.c: a connection with the pragmas set; `write` makes the file and its tables when they are missing. */
sqlite3 *db_connect(const char *path, bool write, err *e);

/* writer.c */
bool  writer_prepare(db *d, err *e);
void *writer_run(void *arg);

/* cache_rows.c: on the writer's connection; SQLite's codes. */
int  cache_rows_put(db *d, const cached *e);
int  cache_rows_apply(db *d, const op *o); /* remove and purge */
/* A small portion of what has expired or is too much; true when there is more to do. */
bool cache_rows_sweep(db *d, int64_t now_us);

/* reader.c */
void *reader_run(void *arg);

#endif
