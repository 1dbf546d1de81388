/* db_parts.h - what the files behind db.h share; not for other rooms. */
#ifndef PARE_STORE_DB_PARTS_H
#define PARE_STORE_DB_PARTS_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "base/queue.h"
#include "store/conversations.h"
#include "store/db.h"

#define DB_BUSY_MS 5000 /* how long one statement waits for another process's write */

/* One wish to the writer, in the order of asking. */
typedef enum op_kind {
    OP_LEDGER,
    OP_CACHE_PUT,
    OP_CACHE_REMOVE,
    OP_CACHE_PURGE,
    OP_TURN_PUT,
    OP_TURN_DELETE,
    OP_ASK /* a question that waits for the wishes before it */
} op_kind;

typedef struct turn { /* of a conversation */
    conversation_name name;
    char              previous[CONVERSATION_ID_SIZE]; /* "": none */
    int64_t           created_us;
    size_t            input_len, response_len;
    char              text[]; /* input, then response */
} turn;

struct ask; /* reader.c */

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
        turn             *turn; /* owned */
        conversation_name forget;
        struct ask       *ask; /* owned; NULL: it did not want to wait any longer */
    };
} op;

enum {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_LEDGER,
    SQL_LEDGER_EXPIRE,
    SQL_CACHE_PUT,
    SQL_CACHE_REMOVE,
    SQL_CACHE_PURGE,
    SQL_CACHE_CLEAR,
    SQL_CACHE_EXPIRE,
    SQL_CACHE_BYTES,
    SQL_CACHE_OLDEST,
    SQL_TURN_PUT,
    SQL_TURN_PROLONG,
    SQL_TURN_DELETE,
    SQL_TURN_EXPIRE,
    SQL_TURN_BYTES,
    SQL_COUNT
};

struct db {
    char         *path;
    queue        *ops, *asks;
    pthread_t     writer, reader;
    bool          writing, reading;  /* the thread runs */
    queue_item    last_op, last_ask; /* put behind all others by db_close: a close needs no memory */
    atomic_bool   closing;
    atomic_bool   hurry;      /* a question waits for the writer */
    sqlite3      *connection; /* the writer's */
    sqlite3_stmt *sql[SQL_COUNT];

    /* the writer's own */
    op     *first, *last; /* taken from the queue, not yet committed */
    int64_t n_pending;
    int64_t complained_us, next_sweep_us;
    int64_t cache_bytes; /* at rest, at most this much */

    atomic_llong ledger_keep_us, cache_limit, put_bytes; /* put_bytes: of bodies that wait to be written */
    atomic_llong turns_waiting;                          /* wishes about conversations that are not written yet */
    atomic_llong rows_written, rows_waiting, rows_dropped, commits, failures, cache_dropped;
};

/* "pare.db: cannot WHAT: SQLite's reason (what to do)". Returns false. */
bool db_fail(const char *path, sqlite3 *connection, const char *what, err *e);

/* db.c: `path`, or pare.db in it when it is a directory; the caller frees. NULL: out of memory. */
char *db_file_of(const char *path);

/* schema.c: a connection with the pragmas set; `write` makes the file and its tables when they are missing. */
sqlite3 *db_connect(const char *path, bool write, err *e);

/* Is it pare's, and of this version? For connections that only read, which cannot bring it there. */
bool db_check_read(const char *path, sqlite3 *c, err *e);

/* writer.c */
bool  writer_prepare(db *d, err *e);
void *writer_run(void *arg);

/* cache_rows.c: on the writer's connection; SQLite's codes. */
int  cache_rows_put(db *d, const cached *e);
int  cache_rows_apply(db *d, const op *o); /* remove and purge */
/* A small portion of what has expired or is too much; true when there is more to do. */
bool cache_rows_sweep(db *d, int64_t now_us);

/* keys.c: the tables. */
bool keys_prepare(const char *path, sqlite3 *c, err *e);

/* conversations.c: the table, and as above for the wishes about turns. */
bool conversations_prepare(const char *path, sqlite3 *c, err *e);
int  turn_rows_apply(db *d, const op *o);
bool turn_rows_sweep(db *d, int64_t now_us);
void turn_free_op(db *d, op *o); /* what it holds; a question goes on to the reader */
void turn_release_asks(db *d);   /* from what is pending */

/* reader.c */
void       *reader_run(void *arg);
struct ask *ask_new(loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done, void *ctx);
void        ask_put(db *d, struct ask *a); /* takes it over */
void        ask_refuse_all(db *d);         /* the reader has ended: those that it has not seen */

#endif
