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
#define DB_BATCH   4096 /* wishes in one transaction, so that other processes get their turn */

/* Many rows by one statement: its start and its end cost as much as ten columns. */
#define LEDGER_ROWS 16
#define CACHE_ROWS  16

enum { ROW_TEXTS = 9, ROW_NUMBERS = 19, LEDGER_COLUMNS = 2 + ROW_TEXTS + ROW_NUMBERS, CACHE_COLUMNS = 8 };

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

/* A row of the ledger as it waits: its texts stand one behind the other in the op's text. */
typedef struct packed_row {
    int64_t id, time_us; /* id: given when it is written */
    int64_t numbers[ROW_NUMBERS];
    uint8_t lengths[ROW_TEXTS];
} packed_row;

typedef struct op {
    queue_item item;
    op_kind    kind;
    union {
        packed_row    row;
        const cached *put; /* one reference */
        sha256        remove;
        struct {
            bool any_model, any_space; /* text: the model and the namespace, each with its NUL */
        } purge;
        turn             *turn; /* owned */
        conversation_name forget;
        struct ask       *ask; /* owned; NULL: it did not want to wait any longer */
    };
    char text[];
} op;

enum {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_LEDGER,
    SQL_LEDGER_MANY,
    SQL_LEDGER_EXPIRE,
    SQL_CACHE_PUT,
    SQL_CACHE_PUT_MANY,
    SQL_CACHE_REMOVE,
    SQL_CACHE_PURGE,
    SQL_CACHE_CLEAR,
    SQL_CACHE_EXPIRE,
    SQL_CACHE_SHRINK,
    SQL_CACHE_BYTES,
    SQL_PART_ADD,
    SQL_PART_NEXT,
    SQL_PART_DUE,
    SQL_PART_FORGET,
    SQL_PART_COUNT,
    SQL_PART_CLEAR,
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
    sqlite3      *connection; /* the writer's */
    sqlite3_stmt *sql[SQL_COUNT];

    /* A writer that gathers sleeps on `kick`, which no single row touches. */
    pthread_mutex_t lock;
    pthread_cond_t  kick;
    bool            kicked; /* under the lock: enough waits, somebody wants an answer, or the end has come */
    atomic_llong    queued; /* wishes since the writer last took them */

    /* the writer's own */
    op     *first, *last; /* taken from the queue, not yet committed */
    int64_t n_pending;
    int64_t complained_us, next_sweep_us;
    int64_t cache_bytes; /* at rest, at most this much */

    /* of the batch that is being written */
    bool          many; /* rows by one statement; else each by itself */
    op           *rows[DB_BATCH];
    const op     *bound[LEDGER_ROWS]; /* whose values the places of SQL_LEDGER_MANY hold */
    const cached *puts[CACHE_ROWS];
    int           n_puts;
    struct {
        int64_t id, bytes, soonest_us; /* bytes 0: none */
    } part;                            /* of the cache: what was added to it and is not in its row yet */
    unsigned id_salt;                  /* where in a microsecond an id begins, lest two processes begin at the same */
    int64_t  last_id;                  /* given to a row of the ledger */

    atomic_llong ledger_keep_us, cache_limit, put_bytes; /* put_bytes: of bodies that wait to be written */
    atomic_llong turns_waiting;                          /* wishes about conversations that are not written yet */
    atomic_llong rows_written, rows_waiting, rows_dropped, commits, failures, cache_dropped;
};

/* "pare.db: cannot WHAT: SQLite's reason (what to do)". Returns false. */
bool db_fail(const char *path, sqlite3 *connection, const char *what, err *e);

/* The ledger's rows stand in order of their arrival: an id is 1024 times the microsecond, and a count in it. So a time is
 * found without an index. This is the least id of a time; clamped, for the time may come from anywhere. */
#define LEDGER_LAST_US ((int64_t)1 << 52) /* the year 2112 */
static inline int64_t ledger_id(int64_t time_us) {
    return (time_us < 0 ? 0 : time_us > LEDGER_LAST_US ? LEDGER_LAST_US : time_us) * 1024;
}

/* A row of the cache beside its body, about: for sums. */
#define CACHE_ROW_BYTES     256
#define CACHE_ROW_BYTES_SQL "256"

/* The cache's rows stand in order of their age, in parts of this many ids; of each part is known how large it is and when
 * its first row expires (table cache_part). */
#define CACHE_PART 256

/* db.c: `path`, or pare.db in it when it is a directory; the caller frees. NULL: out of memory. */
char *db_file_of(const char *path);

/* schema.c: a connection with the pragmas set; `write` makes the file and its tables when they are missing. */
sqlite3 *db_connect(const char *path, bool write, err *e);

/* Is it pare's, and of this version? For connections that only read, which cannot bring it there. */
bool db_check_read(const char *path, sqlite3 *c, err *e);

/* db.c: the writer writes now what waits. Any thread. */
void db_kick(db *d);

/* writer.c */
bool  writer_prepare(db *d, err *e);
void *writer_run(void *arg);
/* After a failed statement: this row will not be written tomorrow either, so it is dropped, counted and logged. */
bool  writer_drops(db *d, op_kind kind, int code);

/* ledger_write.c: on the writer's connection; SQLite's codes. */
void   ledger_pack(op *o, const ledger_row *r); /* o has ledger_text_bytes(r) of text */
size_t ledger_text_bytes(const ledger_row *r);
/* `rows` in the order of asking; adds to *written. Their memory stays until the batch is committed. */
int    ledger_write(db *d, op **rows, int n, int64_t *written);

/* cache_rows.c: on the writer's connection; SQLite's codes. Within a batch: begin, apply each, finish. */
void cache_rows_begin(db *d);
int  cache_rows_apply(db *d, const op *o); /* put, remove and purge */
int  cache_rows_finish(db *d);
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
