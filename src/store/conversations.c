/* conversations.c - turns of conversations: put, deleted, forgotten in time. Reading them is in conversations_read.c. */
#include "store/conversations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/db_parts.h"

#define ROW_BYTES   512 /* of a row beside its texts, about */
#define MAX_WAITING (64 << 20)
#define MAX_BYTES   (4LL << 30)
#define PORTIONS    16 /* deletions of one sweep */
#define DAY_US      (86400LL * 1000000)
#define LIFE_US     (CONVERSATION_DAYS * DAY_US)

/* `bytes` stands in the index so that their sum is found without touching the texts. */
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS conversations(id TEXT PRIMARY KEY NOT NULL, owner BLOB NOT NULL, previous TEXT,"
    " created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL, bytes INTEGER NOT NULL, input TEXT NOT NULL,"
    " response TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS conversations_age ON conversations(expires_us, bytes);";

bool conversations_prepare(const char *path, sqlite3 *c, err *e) {
    return sqlite3_exec(c, schema, NULL, NULL, NULL) == SQLITE_OK || db_fail(path, c, "make its conversations", e);
}

bool conversation_name_of(conversation_name *out, const char *id, const char *space, const char *key) {
    str  both = {0};
    bool good = id && id[0] && strlen(id) < sizeof out->id;
    *out = (conversation_name){0};
    if (good) {
        memcpy(out->id, id, strlen(id) + 1);
        str_add(&both, space, strlen(space) + 1); /* with its NUL, which no name contains */
        str_adds(&both, key);
        out->owner = sha256_of(both.data, both.len);
        good = !both.failed;
    }
    str_free(&both);
    return good;
}

/* ---- wishes ---- */

bool db_conversation_put(db *d, const conversation_turn *t, err *e) {
    size_t previous = t->previous ? strlen(t->previous) : 0, room = CONVERSATION_MAX_BYTES;
    if (t->input_len > room || t->response_len > room - t->input_len || previous >= CONVERSATION_ID_SIZE) {
        return err_set(e, ERR_LIMIT, "A turn of more than %zu MiB is not kept.", room >> 20);
    }
    size_t n = t->input_len + t->response_len;
    if (atomic_load(&d->put_bytes) + (long long)n > MAX_WAITING) {
        return err_set(e, ERR_BUSY, "Too much waits to be written: this turn is not kept.");
    }
    op   *o = malloc(sizeof *o);
    turn *copy = malloc(sizeof *copy + n + 1);
    if (!o || !copy) {
        free(o);
        free(copy);
        return err_set(e, ERR_MEMORY, "Out of memory: this turn is not kept.");
    }
    *copy = (turn){.name = t->name, .input_len = t->input_len, .response_len = t->response_len};
    copy->created_us = clock_wall_us();
    memcpy(copy->previous, t->previous ? t->previous : "", previous + 1);
    memcpy(copy->text, t->input, t->input_len);
    memcpy(copy->text + t->input_len, t->response, t->response_len);
    *o = (op){.kind = OP_TURN_PUT, .turn = copy};
    atomic_fetch_add(&d->put_bytes, (long long)n);
    atomic_fetch_add(&d->turns_waiting, 1);
    queue_put(d->ops, &o->item);
    return true;
}

void db_conversation_delete(db *d, const conversation_name *name) {
    op *o = malloc(sizeof *o);
    if (!o) {
        log_error("out of memory for a wish to the database; a turn of a conversation is not deleted");
        return;
    }
    *o = (op){.kind = OP_TURN_DELETE};
    o->forget = *name;
    atomic_fetch_add(&d->turns_waiting, 1);
    queue_put(d->ops, &o->item);
}

/* A question that must see what was written before it takes the writer's queue first. */
void db_conversation_ask(db *d, loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done,
                         void *ctx) {
    if (atomic_load(&d->turns_waiting) == 0) {
        db_ask(d, l, query, arg, arg_bytes, done, ctx);
        return;
    }
    op         *o = malloc(sizeof *o);
    struct ask *a = o ? ask_new(l, query, arg, arg_bytes, done, ctx) : NULL;
    if (!a) {
        free(o);
        err why;
        err_set(&why, ERR_MEMORY, "Out of memory for a question to the database.");
        done(ctx, &(str){0}, &why);
        return;
    }
    *o = (op){.kind = OP_ASK, .ask = a};
    queue_put(d->ops, &o->item);
    db_kick(d);
}

void turn_free_op(db *d, op *o) {
    if (o->kind == OP_ASK) {
        if (o->ask) {
            ask_put(d, o->ask);
        }
        return;
    }
    if (o->kind == OP_TURN_PUT) {
        atomic_fetch_sub(&d->put_bytes, (long long)(o->turn->input_len + o->turn->response_len));
        free(o->turn);
    }
    atomic_fetch_sub(&d->turns_waiting, 1);
}

/* While the disk fails nobody waits for it: the questions are asked of what there is. */
void turn_release_asks(db *d) {
    for (op *o = d->first; o; o = (op *)o->item.next) {
        if (o->kind == OP_ASK && o->ask) {
            ask_put(d, o->ask);
            o->ask = NULL;
        }
    }
}

/* ---- rows ---- */

static int run(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s); /* they point into memory that may go now */
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

static void bind_name(sqlite3_stmt *s, int id, int owner, const conversation_name *name) {
    sqlite3_bind_text(s, id, name->id, -1, SQLITE_STATIC);
    sqlite3_bind_blob(s, owner, name->owner.bytes, sizeof name->owner.bytes, SQLITE_STATIC);
}

/* The turns before it live on with it. Those that were prolonged within the last day end the walk: whatever comes before
 * them was prolonged with them, so a conversation's turns are touched once a day. */
static int prolong(db *d, const turn *t, int64_t until_us) {
    sqlite3_stmt     *s = d->sql[SQL_TURN_PROLONG];
    conversation_name previous = t->name;
    memcpy(previous.id, t->previous, sizeof previous.id);
    bind_name(s, 1, 2, &previous);
    sqlite3_bind_int64(s, 3, until_us);
    sqlite3_bind_int64(s, 4, until_us - DAY_US);
    sqlite3_bind_int(s, 5, CONVERSATION_MAX_TURNS);
    return run(s);
}

static int put(db *d, const turn *t) {
    sqlite3_stmt *s = d->sql[SQL_TURN_PUT];
    size_t        bytes = t->input_len + t->response_len + ROW_BYTES;
    bind_name(s, 1, 2, &t->name);
    if (t->previous[0]) {
        sqlite3_bind_text(s, 3, t->previous, -1, SQLITE_STATIC);
    }
    sqlite3_bind_int64(s, 4, t->created_us);
    sqlite3_bind_int64(s, 5, t->created_us + LIFE_US);
    sqlite3_bind_int64(s, 6, (int64_t)bytes);
    sqlite3_bind_text64(s, 7, t->text, t->input_len, SQLITE_STATIC, SQLITE_UTF8);
    sqlite3_bind_text64(s, 8, t->text + t->input_len, t->response_len, SQLITE_STATIC, SQLITE_UTF8);
    int code = run(s);
    return code == SQLITE_OK && t->previous[0] ? prolong(d, t, t->created_us + LIFE_US) : code;
}

int turn_rows_apply(db *d, const op *o) {
    switch (o->kind) {
    case OP_TURN_PUT:
        return put(d, o->turn);
    case OP_TURN_DELETE:
        bind_name(d->sql[SQL_TURN_DELETE], 1, 2, &o->forget);
        return run(d->sql[SQL_TURN_DELETE]);
    default:
        return SQLITE_OK;
    }
}

static int64_t bytes_at_rest(db *d) {
    sqlite3_stmt *s = d->sql[SQL_TURN_BYTES];
    int64_t       bytes = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return bytes;
}

/* Whatever fails here is tried again at the next sweep. */
bool turn_rows_sweep(db *d, int64_t now_us) {
    for (int i = 0; i < PORTIONS; i++) {
        /* Beyond the limit even what has not expired goes, the longest unused first. */
        bool full = bytes_at_rest(d) > MAX_BYTES;
        sqlite3_bind_int64(d->sql[SQL_TURN_EXPIRE], 1, full ? INT64_MAX : now_us);
        if (run(d->sql[SQL_TURN_EXPIRE]) != SQLITE_OK || sqlite3_changes(d->connection) == 0) {
            return false;
        }
    }
    return true;
}
