/* schema.c - opening pare.db and making its tables. PRAGMA user_version is the schema's number. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/db_parts.h"

#define APPLICATION_ID 0x70617265 /* "pare" */

/* `bytes` stands in the index of ages so that the cache's size is summed up without touching the bodies. */
static const char schema_1[] =
    "CREATE TABLE ledger(id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,"
    " model TEXT NOT NULL, stage TEXT NOT NULL, backend TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, counted INTEGER NOT NULL,"
    " cost_micro INTEGER NOT NULL, saved_micro INTEGER NOT NULL, queue_us INTEGER NOT NULL, first_us INTEGER NOT NULL,"
    " total_us INTEGER NOT NULL, stream INTEGER NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL);"
    "CREATE INDEX ledger_time ON ledger(time_us);"
    "CREATE TABLE cache(key BLOB PRIMARY KEY NOT NULL, space TEXT NOT NULL, model TEXT NOT NULL,"
    " created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE INDEX cache_age ON cache(created_us, expires_us, bytes);"
    "CREATE INDEX cache_expiry ON cache(expires_us);"
    "PRAGMA application_id = 1885434469;" /* APPLICATION_ID */
    "PRAGMA user_version = 1;";

/* Money in nano-dollars, every kind of token that has a price of its own, and the rows of tries that were not the answer.
 * A ledger of version 1 keeps its rows. Budgets ask for what one key has spent since a time. */
static const char schema_2[] = "ALTER TABLE ledger RENAME COLUMN cost_micro TO cost_nano;"
                               "ALTER TABLE ledger RENAME COLUMN saved_micro TO saved_nano;"
                               "UPDATE ledger SET cost_nano = cost_nano * 1000, saved_nano = saved_nano * 1000"
                               " WHERE cost_nano <> 0 OR saved_nano <> 0;"
                               "ALTER TABLE ledger ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN write_5m INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN write_1h INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN audio_in INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN audio_out INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN image_in INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN searches INTEGER NOT NULL DEFAULT 0;"
                               "ALTER TABLE ledger ADD COLUMN tier TEXT NOT NULL DEFAULT '';"
                               "ALTER TABLE ledger ADD COLUMN key_group TEXT NOT NULL DEFAULT '';"
                               "ALTER TABLE ledger ADD COLUMN upstream_model TEXT NOT NULL DEFAULT '';"
                               "ALTER TABLE ledger ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;"
                               "CREATE INDEX ledger_key ON ledger(key, time_us);"
                               "PRAGMA user_version = 2;";

/* No index but the tables themselves, so that a row dirties no page but the last: the ledger's rows stand in order of
 * their time (ledger_id), the cache's in order of their age, in parts of 256 (CACHE_PART). The ledger's columns are not
 * declared NOT NULL, for the writer gives a value to each, and looking at 29 of them is a fifteenth of a row's cost. The
 * rows of the cache keep the order in which they were written, their rowid. */
#define LEDGER_3                                                                                                       \
    "time_us, request_id, key, key_group, model, stage, backend, upstream_model, tier, outcome, prompt_tokens,"        \
    " completion_tokens, cached_tokens, reasoning_tokens, write_5m, write_1h, audio_in, audio_out, image_in, "         \
    "searches,"                                                                                                        \
    " counted, attempt, cost_nano, saved_nano, queue_us, first_us, total_us, stream, status"
static const char schema_3[] =
    "ALTER TABLE ledger RENAME TO ledger_2;"
    "CREATE TABLE ledger(id INTEGER PRIMARY KEY, time_us INTEGER, request_id TEXT, key TEXT, key_group TEXT, model "
    "TEXT,"
    " stage TEXT, backend TEXT, upstream_model TEXT, tier TEXT, outcome TEXT, prompt_tokens INTEGER,"
    " completion_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, write_5m INTEGER, write_1h INTEGER,"
    " audio_in INTEGER, audio_out INTEGER, image_in INTEGER, searches INTEGER, counted INTEGER, attempt INTEGER,"
    " cost_nano INTEGER, saved_nano INTEGER, queue_us INTEGER, first_us INTEGER, total_us INTEGER, stream INTEGER,"
    " status INTEGER);"
    "ALTER TABLE cache RENAME TO cache_2;"
    "CREATE TABLE cache(id INTEGER PRIMARY KEY, key BLOB NOT NULL, space TEXT NOT NULL, model TEXT NOT NULL,"
    " created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, body BLOB NOT NULL);"
    "INSERT INTO cache SELECT rowid, key, space, model, created_us, expires_us, prompt_tokens, completion_tokens, body"
    " FROM cache_2 ORDER BY rowid;"
    "DROP TABLE cache_2;"
    "CREATE TABLE cache_part(id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, soonest_us INTEGER NOT NULL);"
    "INSERT INTO cache_part SELECT id / 256, sum(length(body) + " CACHE_ROW_BYTES_SQL "), min(expires_us) FROM cache"
    " GROUP BY 1;"
    "PRAGMA user_version = 3;";

/* The rows of a ledger of version 2, in order of their time: the index of times leads, so nothing is sorted. */
static bool move_ledger(sqlite3 *c) {
    sqlite3_stmt *rows = NULL, *move = NULL;
    int           code = SQLITE_ERROR;
    if (sqlite3_prepare_v2(c, "SELECT id, time_us FROM ledger_2 ORDER BY time_us, id", -1, &rows, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(c, "INSERT INTO ledger SELECT ?1, " LEDGER_3 " FROM ledger_2 WHERE id = ?2", -1, &move,
                           NULL) == SQLITE_OK) {
        int64_t last = 0;
        while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
            int64_t at = sqlite3_column_int64(rows, 1);
            int64_t id = ledger_id(at < LEDGER_LAST_US ? at : LEDGER_LAST_US - 1);
            last = id > last ? id : last + 1;
            sqlite3_bind_int64(move, 1, last);
            sqlite3_bind_int64(move, 2, sqlite3_column_int64(rows, 0));
            code = sqlite3_step(move);
            if (sqlite3_reset(move) != SQLITE_OK) {
                break;
            }
        }
    }
    sqlite3_finalize(rows);
    sqlite3_finalize(move);
    return code == SQLITE_DONE && sqlite3_exec(c, "DROP TABLE ledger_2", NULL, NULL, NULL) == SQLITE_OK;
}

/* The i-th makes version i + 1 of version i; an empty file is version 0. */
static const struct {
    const char *sql;
    bool (*then)(sqlite3 *c);
} steps[] = {{schema_1, NULL}, {schema_2, NULL}, {schema_3, move_ledger}};
#define SCHEMA_VERSION ((int64_t)(sizeof steps / sizeof steps[0]))

bool db_fail(const char *path, sqlite3 *connection, const char *what, err *e) {
    int         code = connection ? sqlite3_errcode(connection) : SQLITE_NOMEM;
    const char *reason = connection ? sqlite3_errmsg(connection) : "out of memory";
    const char *advice = "";
    err_code    kind = ERR_IO;
    switch (code & 0xFF) {
    case SQLITE_NOTADB:
        advice = " (another kind of file? move it away and start again)";
        kind = ERR_INVALID;
        break;
    case SQLITE_CORRUPT:
        advice = " (the file is damaged: move it away and start again, or restore a copy)";
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        advice = " (another program holds it)";
        kind = ERR_BUSY;
        break;
    case SQLITE_FULL:
        advice = " (make room on the disk)";
        break;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
        advice = " (does the directory exist, and may this user write there?)";
        break;
    case SQLITE_NOMEM:
        kind = ERR_MEMORY;
        break;
    default:
        break;
    }
    return err_set(e, kind, "%s: cannot %s: %s%s.", path, what, reason, advice);
}

static bool ask_int(sqlite3 *c, const char *sql, int64_t *out) {
    sqlite3_stmt *s = NULL;
    bool          good = sqlite3_prepare_v2(c, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    if (good) {
        *out = sqlite3_column_int64(s, 0);
    }
    sqlite3_finalize(s);
    return good;
}

static bool foreign(const char *path, int64_t application, err *e) {
    return application != APPLICATION_ID &&
           !err_set(e, ERR_INVALID, "%s is the database of another program: name another place with --data.", path);
}

static bool too_new(const char *path, int64_t version, err *e) {
    return version > SCHEMA_VERSION &&
           !err_set(e, ERR_UNSUPPORTED,
                    "%s was written by a newer pare (schema %lld, this one knows %d): update pare, or name another "
                    "place with --data.",
                    path, (long long)version, (int)SCHEMA_VERSION);
}

bool db_check_read(const char *path, sqlite3 *c, err *e) {
    int64_t version = 0, application = 0;
    if (!ask_int(c, "PRAGMA user_version", &version) || !ask_int(c, "PRAGMA application_id", &application)) {
        return db_fail(path, c, "read it", e);
    }
    if (foreign(path, application, e) || too_new(path, version, e)) {
        return false;
    }
    return version == SCHEMA_VERSION ||
           err_set(e, ERR_UNSUPPORTED,
                   "%s is as an older pare left it (schema %lld, this one reads %d): start `pare serve` once, which "
                   "brings it up to date and keeps its rows.",
                   path, (long long)version, (int)SCHEMA_VERSION);
}

/* Inside BEGIN IMMEDIATE: two processes that start at once make the tables once. */
static bool make_tables(const char *path, sqlite3 *c, err *e) {
    int64_t version = 0;
    int64_t application = 0;
    int64_t tables = 0;
    if (!ask_int(c, "PRAGMA user_version", &version) || !ask_int(c, "PRAGMA application_id", &application) ||
        !ask_int(c, "SELECT count(*) FROM sqlite_master", &tables)) {
        return db_fail(path, c, "read it", e);
    }
    bool empty = application == 0 && version == 0 && tables == 0;
    if ((!empty && foreign(path, application, e)) || too_new(path, version, e)) {
        return false;
    }
    if (version < 0) {
        return err_set(e, ERR_INVALID, "%s has a schema number below 0: the file is damaged.", path);
    }
    if (version > 0 && version < SCHEMA_VERSION) {
        log_info("%s: brought from schema %lld to %d", path, (long long)version, (int)SCHEMA_VERSION);
    }
    for (; version < SCHEMA_VERSION; version++) {
        if (sqlite3_exec(c, steps[version].sql, NULL, NULL, NULL) != SQLITE_OK ||
            (steps[version].then && !steps[version].then(c))) {
            return db_fail(path, c, "make its tables", e);
        }
    }
    return true;
}

static bool check_schema(const char *path, sqlite3 *c, err *e) {
    int64_t version = 0;
    if (ask_int(c, "PRAGMA user_version", &version) && version == SCHEMA_VERSION) {
        int64_t application = 0;
        if (ask_int(c, "PRAGMA application_id", &application) && application == APPLICATION_ID) {
            return true; /* the usual case takes no lock */
        }
    }
    if (sqlite3_exec(c, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) {
        return db_fail(path, c, "open it", e);
    }
    if (!make_tables(path, c, e)) {
        sqlite3_exec(c, "ROLLBACK", NULL, NULL, NULL);
        return false;
    }
    return sqlite3_exec(c, "COMMIT", NULL, NULL, NULL) == SQLITE_OK || db_fail(path, c, "make its tables", e);
}

/* The change to WAL does not wait by SQLite's busy handler, so two processes that start at once wait here. */
static bool use_wal(const char *path, sqlite3 *c, err *e) {
    int64_t until = clock_us() + DB_BUSY_MS * 1000LL;
    int     code;
    while ((code = sqlite3_exec(c, "PRAGMA journal_mode = WAL", NULL, NULL, NULL)) == SQLITE_BUSY &&
           clock_us() < until) {
        usleep(20000);
    }
    return code == SQLITE_OK || db_fail(path, c, "open it", e);
}

/* The file holds people's questions: nobody else may read it. SQLite gives its helpers (-wal, -shm) the same mode. A
 * file that is there is left alone: opening and closing it here would drop the locks this process has on it. */
static bool make_private(const char *path, err *e) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0 || errno == EEXIST || err_set(e, ERR_IO, "%s: cannot make the database: %s.", path, strerror(errno));
}

/* SQLite counts each of its allocations under a lock that all connections share, and nobody reads the counts. Without
 * effect where SQLite is in use already. */
static void configure(void) {
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

sqlite3 *db_connect(const char *path, bool write, err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
    sqlite3 *c = NULL;
    int      flags = (write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_NOMUTEX;
    if (write && !make_private(path, e)) {
        return NULL;
    }
    bool good = sqlite3_open_v2(path, &c, flags, NULL) == SQLITE_OK || db_fail(path, c, "open it", e);
    if (good) {
        sqlite3_busy_timeout(c, DB_BUSY_MS);
        /* NORMAL: a commit is in the file system's hands at once and on the disk at the next checkpoint, so a killed
         * process loses nothing that was committed and a power cut loses the last rows, never the file. The cache holds
         * the pages of one batch; rows are read in order, which needs none. Pages (of a new file) are larger than
         * usual: rows come one behind the other, and each page is two writes to the journal and one to the file. */
        good = sqlite3_exec(c,
                            "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA page_size = 8192;"
                            "PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -2048;",
                            NULL, NULL, NULL) == SQLITE_OK ||
               db_fail(path, c, "set it up", e);
    }
    if (good && write) { /* first make sure that the file is ours, then change its journal */
        good = check_schema(path, c, e) && use_wal(path, c, e) && conversations_prepare(path, c, e) &&
               keys_prepare(path, c, e);
    }
    if (!good) {
        sqlite3_close(c);
        return NULL;
    }
    return c;
}
