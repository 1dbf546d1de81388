/* keys.h - client keys and groups of keys in pare.db: made, changed and revoked by `pare key` and the admin API.
 *
 * Of a key only the SHA-256 is kept. Rows are never deleted: the ledger speaks of them, and while any row is there, keys
 * are in use, so that revoking the last one locks the server instead of opening it. Every change raises a counter, by
 * which a running server sees that it has to read again.
 *
 * All functions work at once on a connection of the caller's and may wait for the disk: never on an event loop.       */
#ifndef PARE_STORE_KEYS_H
#define PARE_STORE_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

struct sqlite3;

#define KEY_NAME     64 /* bytes of a name with its NUL */
#define KEY_MODELS   2048
#define KEY_SECRET   72  /* "pare-", 64 hex digits of 32 random bytes, NUL */
#define KEY_MOST_USD 1e6 /* a day or a month */

typedef struct key_rules {      /* 0 and "": no limit, but for money, where -1 is none */
    char    models[KEY_MODELS]; /* names or patterns with *, with commas between */
    int64_t requests_minute, tokens_minute, streams;
    int64_t nano_day, nano_month;
    int64_t expires_us;
} key_rules;

/* Which of the rules a change is about. */
enum {
    RULE_MODELS = 1,
    RULE_REQUESTS = 2,
    RULE_TOKENS = 4,
    RULE_STREAMS = 8,
    RULE_DAY = 16,
    RULE_MONTH = 32,
    RULE_EXPIRES = 64
};

typedef struct key_row {
    char      name[KEY_NAME], group[KEY_NAME], space[KEY_NAME];
    sha256    hash;
    bool      admin;
    key_rules rules;
    int64_t   created_us, revoked_us; /* 0: not revoked */
} key_row;

typedef struct group_row {
    char      name[KEY_NAME];
    key_rules rules;
} group_row;

typedef struct key_list {
    key_row   *keys;
    int        n_keys;
    group_row *groups;
    int        n_groups;
    int64_t    change; /* the counter when this was read */
} key_list;

/* `path` as for db_open. `write` makes the file and its tables when they are missing. The caller closes with
 * keys_disconnect. */
struct sqlite3 *keys_connect(const char *path, bool write, err *e);
void            keys_disconnect(struct sqlite3 *c);

bool    keys_read(struct sqlite3 *c, key_list *out, err *e); /* all, by name; key_list_free */
void    key_list_free(key_list *l);
/* The counter of changes; -1: it cannot be read now. */
int64_t keys_change(struct sqlite3 *c);
/* Is there a database? With the sentence when there is none. */
bool    keys_there(const char *path, err *e);
/* Is there any key in this database? False also where there is none. */
bool    keys_any(const char *path);
/* What this database calls itself among those that share limits: 16 hex digits, the same for its life. */
bool    keys_node(struct sqlite3 *c, char out[20], err *e);

key_rules rules_none(void);
/* ERR_INVALID with the sentence: a name of 1 to 60 bytes without blanks, commas and control characters. */
bool      key_name_good(const char *what, const char *name, err *e);
/* Puts the secret into `secret`, its hash into row->hash. */
bool      key_make_secret(key_row *row, char secret[KEY_SECRET], err *e);

bool keys_create(struct sqlite3 *c, const key_row *row, err *e); /* ERR_INVALID when the name is taken */
bool keys_revoke(struct sqlite3 *c, const char *name, int64_t now_us, err *e);
/* Replaces the rules that `mask` names. ERR_NOT_FOUND for a key; a group is made when it is new. */
bool keys_limit(struct sqlite3 *c, const char *name, const key_rules *rules, unsigned mask, err *e);
bool groups_limit(struct sqlite3 *c, const char *name, const key_rules *rules, unsigned mask, err *e);

/* ---- keys_text.c: rules and lists as JSON ---- */

struct cJSON;
/* Reads the members of `object` that are rules (models, requests_minute, tokens_minute, streams, money_day, money_month,
 * expires); null takes a limit away. Others are the caller's. */
bool rules_from_json(const struct cJSON *object, key_rules *out, unsigned *mask, err *e);
/* ,"models":[...],"requests_minute":...; only what is limited. */
void rules_to_json(const key_rules *r, str *out);
/* {"keys":[...],"groups":[...]} with what was spent today and this month. */
bool keys_list_json(struct sqlite3 *read_only, int64_t now_us, str *json, err *e);

#endif
