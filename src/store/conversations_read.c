/* conversations_read.c - kept conversations read back, on the database's reader thread. */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "store/conversations.h"

static bool failed(sqlite3 *c, err *e) {
    return err_set(e, ERR_IO, "The conversations could not be read: %s.", sqlite3_errmsg(c));
}

static bool damaged(err *e) {
    return err_set(e, ERR_IO, "A kept conversation is damaged: send the whole of it as input.");
}

static sqlite3_stmt *prepare(sqlite3 *c, err *e) {
    sqlite3_stmt *s = NULL;
    const char   *sql = "SELECT previous, bytes, input, response FROM conversations"
                        " WHERE id = ?1 AND owner = ?2 AND expires_us > ?3";
    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK) {
        failed(c, e);
        return NULL;
    }
    return s;
}

typedef enum found { FOUND, ABSENT, FAILED } found;

/* Its columns live until the next reset. */
static found find(sqlite3 *c, sqlite3_stmt *s, const conversation_name *name, const char *id, err *e) {
    sqlite3_reset(s);
    sqlite3_bind_text(s, 1, id, -1, SQLITE_TRANSIENT);
    sqlite3_bind_blob(s, 2, name->owner.bytes, sizeof name->owner.bytes, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, clock_wall_us());
    int code = sqlite3_step(s);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        failed(c, e);
        return FAILED;
    }
    return code == SQLITE_ROW ? FOUND : ABSENT;
}

/* A column's JSON as a tree that the caller owns. */
static cJSON *tree_of(sqlite3_stmt *s, int column, err *e) {
    const char *text = (const char *)sqlite3_column_text(s, column);
    int         n = sqlite3_column_bytes(s, column);
    cJSON      *tree = text ? json_parse(text, (size_t)n, JSON_MAX_DEPTH, NULL) : NULL;
    if (!tree) {
        damaged(e);
    }
    return tree;
}

static bool absent(const char *id, err *e) {
    return err_at(e, ERR_NOT_FOUND, "previous_response_id",
                  "There is no answer \"%.100s\" here. Answers are kept for %d days, and not with store: false.", id,
                  CONVERSATION_DAYS);
}

/* ---- a whole conversation ---- */

typedef struct chain {
    char (*ids)[CONVERSATION_ID_SIZE]; /* newest first */
    int n;
} chain;

/* The ids from the newest turn back to the first. */
static bool walk(sqlite3 *c, sqlite3_stmt *s, const conversation_name *name, chain *all, err *e) {
    size_t total = 0;
    char   id[CONVERSATION_ID_SIZE];
    memcpy(id, name->id, sizeof id);
    for (;;) {
        found was = find(c, s, name, id, e);
        if (was == FAILED) {
            return false;
        }
        if (was == ABSENT) {
            return all->n == 0 ? absent(id, e)
                               : err_at(e, ERR_NOT_FOUND, "previous_response_id",
                                        "An answer before \"%.100s\" has been deleted: send the whole conversation as "
                                        "input.",
                                        name->id);
        }
        if (all->n == CONVERSATION_MAX_TURNS) {
            return err_at(e, ERR_LIMIT, "previous_response_id",
                          "This conversation has more than %d turns: begin a new one with what matters of it as input.",
                          CONVERSATION_MAX_TURNS);
        }
        int64_t bytes = sqlite3_column_int64(s, 1);
        total += bytes > 0 ? (size_t)bytes : 0;
        if (total > CONVERSATION_MAX_BYTES) {
            return err_at(e, ERR_LIMIT, "previous_response_id",
                          "This conversation has more than %zu MiB: begin a new one with what matters of it as input.",
                          CONVERSATION_MAX_BYTES >> 20);
        }
        memcpy(all->ids[all->n++], id, sizeof id);
        const char *previous = (const char *)sqlite3_column_text(s, 0);
        if (!previous) {
            return true;
        }
        if (strlen(previous) >= sizeof id) {
            return damaged(e);
        }
        memcpy(id, previous, strlen(previous) + 1);
    }
}

static bool write_turn(sqlite3_stmt *s, str *json, err *e) {
    const char *input = (const char *)sqlite3_column_text(s, 2);
    int         n = sqlite3_column_bytes(s, 2);
    cJSON      *response = tree_of(s, 3, e);
    if (!response || !input) {
        cJSON_Delete(response);
        return damaged(e);
    }
    str_add(json, input, (size_t)n);
    str_addc(json, ',');
    const cJSON *output = cJSON_GetObjectItemCaseSensitive(response, "output");
    bool         good = cJSON_IsArray(output);
    if (good) {
        json_write(output, json);
    }
    cJSON_Delete(response);
    return good || damaged(e);
}

static bool write_chain(sqlite3 *c, sqlite3_stmt *s, const conversation_name *name, const chain *all, str *json,
                        err *e) {
    str_addc(json, '[');
    for (int i = all->n - 1; i >= 0; i--) {
        found was = find(c, s, name, all->ids[i], e);
        if (was != FOUND) { /* deleted since the walk */
            return was == FAILED ? false : absent(all->ids[i], e);
        }
        if (!write_turn(s, json, e)) {
            return false;
        }
        str_adds(json, i > 0 ? "," : "");
    }
    str_addc(json, ']');
    return !json->failed || err_set(e, ERR_MEMORY, "Out of memory while reading the conversation.");
}

bool conversation_history(struct sqlite3 *c, const void *arg, str *json, err *e) {
    const conversation_name *name = arg;
    sqlite3_stmt            *s = prepare(c, e);
    chain                    all = {.ids = s ? malloc(CONVERSATION_MAX_TURNS * sizeof *all.ids) : NULL};
    if (s && !all.ids) {
        err_set(e, ERR_MEMORY, "Out of memory while reading the conversation.");
    }
    bool good = all.ids && walk(c, s, name, &all, e) && write_chain(c, s, name, &all, json, e);
    sqlite3_finalize(s);
    free(all.ids);
    return good;
}

/* ---- one answer ---- */

static cJSON *column_of(sqlite3 *c, const conversation_name *name, int column, err *e) {
    sqlite3_stmt *s = prepare(c, e);
    cJSON        *tree = NULL;
    if (s) {
        found was = find(c, s, name, name->id, e);
        if (was == FOUND) {
            tree = tree_of(s, column, e);
        } else if (was == ABSENT) {
            absent(name->id, e);
            e->param[0] = '\0'; /* it stands in the path, not in a body */
        }
        sqlite3_finalize(s);
    }
    return tree;
}

bool conversation_response(struct sqlite3 *c, const void *name, str *json, err *e) {
    cJSON *tree = column_of(c, name, 3, e);
    if (!tree) {
        return false;
    }
    json_write(tree, json);
    cJSON_Delete(tree);
    return true;
}

static const char *id_of(const cJSON *item) {
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(item, "id");
    return cJSON_IsString(id) ? id->valuestring : "";
}

/* cJSON's list runs round only in `prev`: the first item's is the last. */
static const cJSON *next_of(const cJSON *array, const cJSON *item, bool oldest_first) {
    if (!item) {
        return !array->child ? NULL : oldest_first ? array->child : array->child->prev;
    }
    return oldest_first ? item->next : item == array->child ? NULL : item->prev;
}

static bool write_page(const cJSON *items, const conversation_page *page, str *json, err *e) {
    const cJSON *at = next_of(items, NULL, page->oldest_first), *first = NULL, *last = NULL;
    while (page->after[0] && at && strcmp(id_of(at), page->after) != 0) {
        at = next_of(items, at, page->oldest_first);
    }
    if (page->after[0] && !at) {
        return err_at(e, ERR_INVALID, "after", "There is no item \"%.100s\" in the input of this answer.", page->after);
    }
    if (page->after[0]) {
        at = next_of(items, at, page->oldest_first);
    }
    str_adds(json, "{\"object\":\"list\",\"data\":[");
    for (int n = 0; at && n < page->limit; n++, at = next_of(items, at, page->oldest_first)) {
        str_adds(json, n ? "," : "");
        json_write(at, json);
        first = first ? first : at;
        last = at;
    }
    str_adds(json, "],\"first_id\":");
    str_jsons(json, first ? id_of(first) : NULL);
    str_adds(json, ",\"last_id\":");
    str_jsons(json, last ? id_of(last) : NULL);
    return str_addf(json, ",\"has_more\":%s}", at ? "true" : "false");
}

bool conversation_items(struct sqlite3 *c, const void *arg, str *json, err *e) {
    const conversation_page *page = arg;
    cJSON                   *items = column_of(c, &page->name, 2, e);
    if (!items) {
        return false;
    }
    bool good = cJSON_IsArray(items) ? write_page(items, page, json, e) : damaged(e);
    cJSON_Delete(items);
    return good;
}
