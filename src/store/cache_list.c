/* cache_list.c - the answers at rest, for people: how many, and how the newest begin. */
#include <sqlite3.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/map.h"
#include "base/utf8.h"
#include "store/db.h"

#define SHOWN 200 /* bytes of an answer's text */

static bool failed(sqlite3 *db, err *e) {
    return err_set(e, ERR_IO, "The stored answers could not be read: %s.", sqlite3_errmsg(db));
}

/* The beginning of the first choice's text, from an answer in OpenAI's form; empty when it cannot be read. */
static void write_text(const char *body, size_t n, str *json) {
    err          ignored = {0};
    cJSON       *answer = body ? json_parse(body, n, JSON_MAX_DEPTH, &ignored) : NULL;
    const cJSON *choice = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(answer, "choices"), 0);
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(choice, "message");
    const cJSON *text = message ? cJSON_GetObjectItemCaseSensitive(message, "content")
                                : cJSON_GetObjectItemCaseSensitive(choice, "text");
    const char  *shown = cJSON_IsString(text) ? text->valuestring : "";
    size_t       length = strlen(shown);
    str_json(json, shown, length > SHOWN ? utf8_whole(shown, SHOWN) : length);
    cJSON_Delete(answer);
}

static void write_row(sqlite3_stmt *s, int64_t now_us, str *json) {
    char key[65];
    bool whole = sqlite3_column_bytes(s, 0) == 32;
    hex_encode(whole ? sqlite3_column_blob(s, 0) : (const void *)"", whole ? 32 : 0, key);
    str_addf(json, "{\"key\":\"%s\",\"model\":", key);
    str_jsons(json, (const char *)sqlite3_column_text(s, 1));
    str_adds(json, ",\"space\":");
    str_jsons(json, (const char *)sqlite3_column_text(s, 2));
    str_addf(json, ",\"age_s\":%lld,\"expires_s\":%lld,\"tokens\":%lld,\"bytes\":%d,\"text\":",
             (long long)((now_us - sqlite3_column_int64(s, 3)) / 1000000),
             (long long)((sqlite3_column_int64(s, 4) - now_us) / 1000000),
             (long long)(sqlite3_column_int64(s, 5) + sqlite3_column_int64(s, 6)), sqlite3_column_bytes(s, 7));
    write_text(sqlite3_column_blob(s, 7), (size_t)sqlite3_column_bytes(s, 7), json);
    str_addc(json, '}');
}

/* An answer that was stored again has an older row, which no longer counts. */
static bool newest_of_key(map *seen, sqlite3_stmt *s) {
    const void *key = sqlite3_column_blob(s, 0);
    size_t      n = (size_t)sqlite3_column_bytes(s, 0);
    int64_t     ignored;
    return n == 0 || (!map_get(seen, key, n, &ignored) && map_put(seen, key, n, 1));
}

bool db_cache_list(struct sqlite3 *db, int limit, str *json, err *e) {
    sqlite3_stmt *s = NULL;
    int64_t       now_us = clock_wall_us();
    if (sqlite3_prepare_v2(db,
                           "SELECT key, model, space, created_us, expires_us, prompt_tokens, completion_tokens, body "
                           "FROM cache WHERE expires_us > ?1 ORDER BY id DESC",
                           -1, &s, NULL) != SQLITE_OK) {
        return failed(db, e);
    }
    sqlite3_bind_int64(s, 1, now_us);
    int  code = SQLITE_DONE, n = 0;
    map *seen = map_new(64);
    str_addc(json, '[');
    while (seen && n < limit && (code = sqlite3_step(s)) == SQLITE_ROW) {
        if (newest_of_key(seen, s)) {
            str_adds(json, n++ ? "," : "");
            write_row(s, now_us, json);
        }
    }
    str_addc(json, ']');
    json->failed = json->failed || !seen;
    bool ok = code == SQLITE_DONE || code == SQLITE_ROW || failed(db, e);
    sqlite3_finalize(s);
    map_free(seen);
    return ok && (!json->failed || err_set(e, ERR_MEMORY, "Out of memory."));
}

/* Which rows count is found first: a grouping takes along all that it is asked for beside the key, which would be each
 * body. */
bool db_cache_totals(struct sqlite3 *db, str *json, err *e) {
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db,
                           "SELECT count(*), coalesce(sum(length(body)), 0) FROM cache WHERE id IN"
                           " (SELECT max(id) FROM cache WHERE expires_us > ?1 GROUP BY key)",
                           -1, &s, NULL) != SQLITE_OK) {
        return failed(db, e);
    }
    sqlite3_bind_int64(s, 1, clock_wall_us());
    bool ok = sqlite3_step(s) == SQLITE_ROW || failed(db, e);
    if (ok) {
        str_addf(json, "{\"entries\":%lld,\"bytes\":%lld}", (long long)sqlite3_column_int64(s, 0),
                 (long long)sqlite3_column_int64(s, 1));
    }
    sqlite3_finalize(s);
    return ok && (!json->failed || err_set(e, ERR_MEMORY, "Out of memory."));
}
