/* keys.c - rows of keys and groups. */
#include "store/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/db_parts.h"

#define MAX_ROWS 1000000
#define RULES    "models, requests_minute, tokens_minute, streams, nano_day, nano_month, expires_us"

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS client_keys(name TEXT PRIMARY KEY NOT NULL, sha256 BLOB NOT NULL UNIQUE,"
    " key_group TEXT NOT NULL, space TEXT NOT NULL, admin INTEGER NOT NULL, models TEXT NOT NULL,"
    " requests_minute INTEGER NOT NULL, tokens_minute INTEGER NOT NULL, streams INTEGER NOT NULL,"
    " nano_day INTEGER NOT NULL, nano_month INTEGER NOT NULL, expires_us INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL, revoked_us INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS client_groups(name TEXT PRIMARY KEY NOT NULL, models TEXT NOT NULL,"
    " requests_minute INTEGER NOT NULL, tokens_minute INTEGER NOT NULL, streams INTEGER NOT NULL,"
    " nano_day INTEGER NOT NULL, nano_month INTEGER NOT NULL, expires_us INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS client_changes(id INTEGER PRIMARY KEY CHECK(id = 1), n INTEGER NOT NULL,"
    " node TEXT NOT NULL);"
    "INSERT OR IGNORE INTO client_changes(id, n, node) VALUES(1, 1, lower(hex(randomblob(8))));";

/* Asked first, because the statements above take the lock for writing. */
bool keys_prepare(const char *path, sqlite3 *c, err *e) {
    return keys_change(c) >= 0 || sqlite3_exec(c, schema, NULL, NULL, NULL) == SQLITE_OK ||
           db_fail(path, c, "make its keys", e);
}

bool keys_there(const char *path, err *e) {
    char *file = db_file_of(path);
    bool  there = file && access(file, R_OK) == 0;
    if (!there) {
        err_set(e, file ? ERR_NOT_FOUND : ERR_MEMORY, "There is no database %s; name its directory with --data.",
                file ? file : "");
    }
    free(file);
    return there;
}

sqlite3 *keys_connect(const char *path, bool write, err *e) {
    char    *file = write || keys_there(path, e) ? db_file_of(path) : NULL;
    sqlite3 *c = file ? db_connect(file, write, e) : NULL;
    if (c && !write && !db_check_read(file, c, e)) {
        sqlite3_close(c);
        c = NULL;
    }
    free(file);
    return c;
}

void keys_disconnect(sqlite3 *c) {
    sqlite3_close(c);
}

static bool failed(sqlite3 *c, const char *what, err *e) {
    const char *path = sqlite3_db_filename(c, "main");
    return db_fail(path && *path ? path : "pare.db", c, what, e);
}

/* ---- reading ---- */

/* A text that is too long is cut: only pare writes here, and it checks before. */
static void take_text(sqlite3_stmt *s, int i, char *out, size_t size) {
    const char *text = (const char *)sqlite3_column_text(s, i);
    size_t      n = text ? strlen(text) : 0;
    n = n < size ? n : size - 1;
    memcpy(out, n ? text : "", n);
    out[n] = '\0';
}

static void take_rules(sqlite3_stmt *s, int at, key_rules *r) {
    take_text(s, at, r->models, sizeof r->models);
    int64_t *numbers[] = {&r->requests_minute, &r->tokens_minute, &r->streams,
                          &r->nano_day,        &r->nano_month,    &r->expires_us};
    for (int i = 0; i < 6; i++) {
        *numbers[i] = sqlite3_column_int64(s, at + 1 + i);
    }
}

static bool take_key(sqlite3_stmt *s, key_row *k) {
    *k = (key_row){.admin = sqlite3_column_int(s, 4) != 0,
                   .created_us = sqlite3_column_int64(s, 12),
                   .revoked_us = sqlite3_column_int64(s, 13)};
    take_text(s, 0, k->name, sizeof k->name);
    take_text(s, 2, k->group, sizeof k->group);
    take_text(s, 3, k->space, sizeof k->space);
    take_rules(s, 5, &k->rules);
    const void *hash = sqlite3_column_blob(s, 1);
    bool        whole = hash && sqlite3_column_bytes(s, 1) == (int)sizeof k->hash.bytes;
    if (whole) {
        memcpy(k->hash.bytes, hash, sizeof k->hash.bytes);
    }
    return whole;
}

/* Room for one more; NULL: out of memory. */
static void *more(void *rows, int count, size_t size) {
    bool full = (count & (count - 1)) == 0; /* doubled at powers of two */
    return full ? realloc(rows, (size_t)(count ? 2 * count : 1) * size) : rows;
}

static bool add_key(sqlite3_stmt *s, key_list *l) {
    void *grown = l->n_keys < MAX_ROWS ? more(l->keys, l->n_keys, sizeof *l->keys) : NULL;
    if (grown) {
        l->keys = grown;
        l->n_keys += take_key(s, &l->keys[l->n_keys]);
    }
    return grown != NULL;
}

static bool add_group(sqlite3_stmt *s, key_list *l) {
    void *grown = l->n_groups < MAX_ROWS ? more(l->groups, l->n_groups, sizeof *l->groups) : NULL;
    if (grown) {
        l->groups = grown;
        group_row *g = &l->groups[l->n_groups++];
        *g = (group_row){0};
        take_text(s, 0, g->name, sizeof g->name);
        take_rules(s, 1, &g->rules);
    }
    return grown != NULL;
}

static bool read_rows(sqlite3 *c, const char *sql, bool (*add)(sqlite3_stmt *, key_list *), key_list *out, err *e) {
    sqlite3_stmt *s = NULL;
    bool          room = true;
    int           code = sqlite3_prepare_v2(c, sql, -1, &s, NULL);
    while (code == SQLITE_OK && room && (code = sqlite3_step(s)) == SQLITE_ROW) {
        room = add(s, out);
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return room ? code == SQLITE_DONE || failed(c, "read its keys", e)
                : err_set(e, ERR_MEMORY, "Out of memory for the client keys.");
}

bool keys_read(sqlite3 *c, key_list *out, err *e) {
    static const char keys_sql[] = "SELECT name, sha256, key_group, space, admin, " RULES
                                   ", created_us, revoked_us FROM client_keys ORDER BY name";
    static const char groups_sql[] = "SELECT name, " RULES " FROM client_groups ORDER BY name";
    *out = (key_list){0};
    if (sqlite3_exec(c, "BEGIN", NULL, NULL, NULL) != SQLITE_OK) { /* all of one moment */
        return failed(c, "read its keys", e);
    }
    out->change = keys_change(c);
    bool good = out->change >= 0
                    ? read_rows(c, keys_sql, add_key, out, e) && read_rows(c, groups_sql, add_group, out, e)
                    : failed(c, "read its keys", e);
    sqlite3_exec(c, "COMMIT", NULL, NULL, NULL);
    if (!good) {
        key_list_free(out);
    }
    return good;
}

void key_list_free(key_list *l) {
    free(l->keys);
    free(l->groups);
    *l = (key_list){0};
}

static int64_t number(sqlite3 *c, const char *sql) {
    sqlite3_stmt *s = NULL;
    bool          good = sqlite3_prepare_v2(c, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    int64_t       n = good ? sqlite3_column_int64(s, 0) : -1;
    sqlite3_finalize(s);
    return n;
}

int64_t keys_change(sqlite3 *c) {
    return number(c, "SELECT n FROM client_changes WHERE id = 1");
}

bool keys_any(const char *path) {
    err      ignored = {0};
    sqlite3 *c = keys_connect(path, false, &ignored);
    bool     any = c && number(c, "SELECT EXISTS(SELECT 1 FROM client_keys)") == 1;
    keys_disconnect(c);
    return any;
}

bool keys_node(sqlite3 *c, char out[20], err *e) {
    sqlite3_stmt *s = NULL;
    out[0] = '\0';
    if (sqlite3_prepare_v2(c, "SELECT node FROM client_changes WHERE id = 1", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW) {
        take_text(s, 0, out, 20);
    }
    sqlite3_finalize(s);
    return out[0] || failed(c, "read its name", e);
}

/* ---- making ---- */

key_rules rules_none(void) {
    return (key_rules){.nano_day = -1, .nano_month = -1};
}

bool key_name_good(const char *what, const char *name, err *e) {
    size_t n = strlen(name);
    bool   good = n > 0 && n <= 60;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)name[i];
        good = good && byte > ' ' && byte != 0x7F && byte != ',' && byte != '/' && byte != '"';
    }
    return good || err_set(e, ERR_INVALID,
                           "The name of a %s has 1 to 60 bytes without blanks, commas, slashes and quotes; \"%.80s\" "
                           "has not.",
                           what, name);
}

bool key_make_secret(key_row *row, char secret[KEY_SECRET], err *e) {
    uint8_t bytes[32];
    if (!random_bytes(bytes, sizeof bytes)) {
        return err_set(e, ERR_IO, "The system has no random bytes for a key.");
    }
    char hex[65];
    hex_encode(bytes, sizeof bytes, hex);
    snprintf(secret, KEY_SECRET, "pare-%s", hex);
    row->hash = sha256_of(secret, strlen(secret));
    return true;
}

static int bind_rules(sqlite3_stmt *s, int at, const key_rules *r) {
    const int64_t numbers[] = {r->requests_minute, r->tokens_minute, r->streams,
                               r->nano_day,        r->nano_month,    r->expires_us};
    sqlite3_bind_text(s, at++, r->models, -1, SQLITE_STATIC);
    for (int i = 0; i < 6; i++) {
        sqlite3_bind_int64(s, at++, numbers[i]);
    }
    return at;
}

static int step(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_finalize(s);
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

/* One change and its number, together or not at all. */
static bool begin(sqlite3 *c, err *e) {
    return sqlite3_exec(c, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK || failed(c, "change its keys", e);
}

static bool end(sqlite3 *c, bool good, err *e) {
    if (good && sqlite3_exec(c, "UPDATE client_changes SET n = n + 1; COMMIT", NULL, NULL, NULL) == SQLITE_OK) {
        return true;
    }
    if (good) {
        failed(c, "change its keys", e);
    }
    sqlite3_exec(c, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

static sqlite3_stmt *prepared(sqlite3 *c, const char *sql, err *e) {
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK) {
        failed(c, "change its keys", e);
    }
    return s;
}

static bool insert_key(sqlite3 *c, const key_row *k, err *e) {
    sqlite3_stmt *s = prepared(c,
                               "INSERT INTO client_keys(name, sha256, key_group, space, admin, " RULES
                               ", created_us, revoked_us) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                               e);
    if (!s) {
        return false;
    }
    sqlite3_bind_text(s, 1, k->name, -1, SQLITE_STATIC);
    sqlite3_bind_blob(s, 2, k->hash.bytes, sizeof k->hash.bytes, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, k->group, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, k->space[0] ? k->space : k->name, -1, SQLITE_STATIC);
    sqlite3_bind_int(s, 5, k->admin);
    sqlite3_bind_int64(s, bind_rules(s, 6, &k->rules), k->created_us);
    int code = step(s);
    return code == SQLITE_OK ||
           ((code & 0xFF) == SQLITE_CONSTRAINT
                ? err_set(e, ERR_INVALID, "There is a key %s already (a revoked one keeps its name, for the ledger).",
                          k->name)
                : failed(c, "change its keys", e));
}

/* A key may name a group that is not there yet: it has no limits then. */
static bool ensure_group(sqlite3 *c, const char *name, err *e) {
    if (!name[0]) {
        return true;
    }
    sqlite3_stmt *s =
        prepared(c, "INSERT OR IGNORE INTO client_groups(name, " RULES ") VALUES(?, '', 0, 0, 0, -1, -1, 0)", e);
    if (!s) {
        return false;
    }
    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    return step(s) == SQLITE_OK || failed(c, "change its keys", e);
}

bool keys_create(sqlite3 *c, const key_row *row, err *e) {
    return key_name_good("key", row->name, e) && (!row->group[0] || key_name_good("group", row->group, e)) &&
           begin(c, e) && end(c, ensure_group(c, row->group, e) && insert_key(c, row, e), e);
}

static bool no_such(const char *what, const char *name, err *e) {
    return err_set(e, ERR_NOT_FOUND, "There is no %s \"%.80s\" in the database.", what, name);
}

bool keys_revoke(sqlite3 *c, const char *name, int64_t now_us, err *e) {
    sqlite3_stmt *s;
    if (!begin(c, e)) {
        return false;
    }
    s = prepared(
        c, "UPDATE client_keys SET revoked_us = CASE revoked_us WHEN 0 THEN ? ELSE revoked_us END WHERE name = ?", e);
    if (!s) {
        return end(c, false, e);
    }
    sqlite3_bind_int64(s, 1, now_us);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
    bool good = step(s) == SQLITE_OK || failed(c, "change its keys", e);
    return end(c, good && (sqlite3_changes(c) == 1 || no_such("key", name, e)), e);
}

/* ?9 is the mask: where a bit is not set the old value stays. */
#define KEEP_OR_SET                                                                                                    \
    " SET models = CASE WHEN ?9 & 1 THEN ?2 ELSE models END,"                                                          \
    " requests_minute = CASE WHEN ?9 & 2 THEN ?3 ELSE requests_minute END,"                                            \
    " tokens_minute = CASE WHEN ?9 & 4 THEN ?4 ELSE tokens_minute END,"                                                \
    " streams = CASE WHEN ?9 & 8 THEN ?5 ELSE streams END,"                                                            \
    " nano_day = CASE WHEN ?9 & 16 THEN ?6 ELSE nano_day END,"                                                         \
    " nano_month = CASE WHEN ?9 & 32 THEN ?7 ELSE nano_month END,"                                                     \
    " expires_us = CASE WHEN ?9 & 64 THEN ?8 ELSE expires_us END WHERE name = ?1"

static bool set_rules(sqlite3 *c, const char *sql, const char *name, const key_rules *r, unsigned mask, err *e) {
    sqlite3_stmt *s = prepared(c, sql, e);
    if (!s) {
        return false;
    }
    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, bind_rules(s, 2, r), mask);
    return step(s) == SQLITE_OK || failed(c, "change its keys", e);
}

bool keys_limit(sqlite3 *c, const char *name, const key_rules *rules, unsigned mask, err *e) {
    if (!begin(c, e)) {
        return false;
    }
    bool good = set_rules(c, "UPDATE client_keys" KEEP_OR_SET, name, rules, mask, e);
    return end(c, good && (sqlite3_changes(c) == 1 || no_such("key", name, e)), e);
}

bool groups_limit(sqlite3 *c, const char *name, const key_rules *rules, unsigned mask, err *e) {
    return key_name_good("group", name, e) && begin(c, e) &&
           end(c, ensure_group(c, name, e) && set_rules(c, "UPDATE client_groups" KEEP_OR_SET, name, rules, mask, e),
               e);
}
