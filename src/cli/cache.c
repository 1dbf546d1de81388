/* cache.c - `pare cache`: what is remembered, and forgetting it.
 *
 * Asks the running server, whose memory holds the answers too; when none answers, works on the database itself.     */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "store/db.h"
#include "store/ledger.h"

static int run(int argc, char **argv);

const command command_cache = {
    .name = "cache",
    .summary = "stored answers: stats, list, purge",
    .run = run,
    .help = "Usage: pare cache stats|list|purge [OPTIONS]\n\n"
            "Asks the running server; when none answers, works on the database in --data.\n\n"
            "  stats          how many answers, how large, how often they were used\n"
            "  list           the newest answers\n"
            "  purge          forgets all answers, or those of a model, a namespace or one key\n\n"
            "  --to URL       the server; default http://127.0.0.1:7273\n"
            "  --key KEY      an admin key of the server; default $PARE_KEY\n"
            "  --data DIR     the database's directory when no server answers; default as `pare serve`\n"
            "  --offline      do not ask a server\n"
            "  --limit N      list: at most so many (default 50)\n"
            "  --model NAME   purge: only answers of this model\n"
            "  --space NAME   purge: only answers of this client namespace\n"
            "  --hash HEX     purge: only this answer (the key that list shows)\n"
            "  --json         for scripts\n\n"
            "Examples:\n"
            "  pare cache stats\n"
            "  pare cache list --limit 5\n"
            "  pare cache purge --model storyteller\n"};

typedef struct cache_options {
    const char *verb, *to, *key, *data, *model, *space, *hash;
    int64_t     limit;
    bool        offline, json;
} cache_options;

static void add_query(str *url, const char *name, const char *value) {
    if (!value) {
        return;
    }
    str_addf(url, "%s%s=", strchr(url->data, '?') ? "&" : "?", name);
    for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
        str_addf(url, "%%%02X", *p);
    }
}

/* 1: done, 0: no server there, -1: it failed. */
static int from_server(const cache_options *o, str *json, err *e) {
    str  url = {0};
    long status = 0;
    char limit[24];
    str_addf(&url, "%s/api/cache", o->to);
    bool purge = strcmp(o->verb, "purge") == 0;
    if (strcmp(o->verb, "list") == 0) {
        snprintf(limit, sizeof limit, "%lld", (long long)o->limit);
        add_query(&url, "list", limit);
    }
    if (purge) {
        add_query(&url, "model", o->model);
        add_query(&url, "space", o->space);
        add_query(&url, "key", o->hash);
    }
    bool reached = cli_fetch(purge ? "DELETE" : "GET", url.data, o->key, json, &status, e);
    str_free(&url);
    if (!reached) {
        return 0;
    }
    if (status != 200) {
        cli_server_error(json, status, e);
        return -1;
    }
    return 1;
}

static bool purge_file(const cache_options *o, const char *path, str *json, err *e) {
    db *d = db_open(path, e);
    if (!d) {
        return false;
    }
    sha256 hash;
    bool   ok = !o->hash || (strlen(o->hash) == 64 && hex_decode(o->hash, hash.bytes, sizeof hash.bytes)) ||
              err_set(e, ERR_INVALID, "--hash takes 64 hex digits.");
    if (ok && o->hash) {
        db_cache_remove(d, &hash);
    } else if (ok) {
        db_cache_purge(d, o->model, o->space);
    }
    db_close(d);
    if (ok) {
        str_adds(json, "{\"purged\":null}");
    }
    return ok;
}

static bool from_file(const cache_options *o, str *json, err *e) {
    char directory[4096];
    cli_data_dir(directory, sizeof directory);
    str path = {0};
    str_addf(&path, "%s/pare.db", o->data ? o->data : directory);
    struct sqlite3 *db = ledger_open(path.data, e); /* one file holds both */
    bool            ok = db || err_prefix(e, "No server answers at %s", o->to);
    if (ok && strcmp(o->verb, "list") == 0) {
        ok = db_cache_list(db, (int)o->limit, json, e);
    } else if (ok && strcmp(o->verb, "stats") == 0) {
        ok = db_cache_totals(db, json, e);
    }
    sqlite3_close(db);
    if (ok && strcmp(o->verb, "purge") == 0) {
        ok = purge_file(o, path.data, json, e);
    }
    str_free(&path);
    return ok;
}

static void print_list(const cJSON *list) {
    printf("%-16s  %-20s %-12s %10s %8s  %s\n", "key", "model", "space", "age", "tokens", "answer");
    for (const cJSON *i = list->child; i; i = i->next) {
        const char  *key = cJSON_GetStringValue(cJSON_GetObjectItem(i, "key"));
        const char  *model = cJSON_GetStringValue(cJSON_GetObjectItem(i, "model"));
        const char  *space = cJSON_GetStringValue(cJSON_GetObjectItem(i, "space"));
        const char  *text = cJSON_GetStringValue(cJSON_GetObjectItem(i, "text"));
        const cJSON *age = cJSON_GetObjectItem(i, "age_s"), *tokens = cJSON_GetObjectItem(i, "tokens");
        printf("%-16.16s  %-20.20s %-12.12s %8.0f s %8.0f  %.60s\n", key ? key : "", model ? model : "",
               space && *space ? space : "-", age ? age->valuedouble : 0, tokens ? tokens->valuedouble : 0,
               text ? text : "");
    }
}

static void print_members(const cJSON *object) {
    for (const cJSON *i = object->child; i; i = i->next) {
        if (cJSON_IsNumber(i)) {
            printf("%-10s %.0f\n", i->string, i->valuedouble);
        }
    }
}

static void print(const cache_options *o, const str *json) {
    err    ignored = {0};
    cJSON *value = o->json ? NULL : json_parse(json->data, json->len, JSON_MAX_DEPTH, &ignored);
    if (!value) {
        printf("%s\n", json->data);
    } else if (strcmp(o->verb, "list") == 0) {
        print_list(value);
    } else if (strcmp(o->verb, "purge") == 0) {
        const cJSON *n = cJSON_GetObjectItem(value, "purged");
        if (cJSON_IsNumber(n)) {
            printf("%.0f answers forgotten\n", n->valuedouble);
        } else {
            puts("forgotten");
        }
    } else {
        print_members(value);
    }
    cJSON_Delete(value);
}

static int run(int argc, char **argv) {
    cache_options    o = {.to = "http://127.0.0.1:7273", .key = getenv("PARE_KEY"), .limit = 50};
    bool             helped;
    int              n_words;
    const char      *words[1];
    const option_row rows[] = {{"--to", OPTION_TEXT, &o.to},
                               {"--key", OPTION_TEXT, &o.key},
                               {"--data", OPTION_TEXT, &o.data},
                               {"--offline", OPTION_FLAG, &o.offline},
                               {"--limit", OPTION_INT, &o.limit, 1, 10000},
                               {"--model", OPTION_TEXT, &o.model},
                               {"--space", OPTION_TEXT, &o.space},
                               {"--hash", OPTION_TEXT, &o.hash},
                               {"--json", OPTION_FLAG, &o.json},
                               {0}};
    if (!cli_options(&command_cache, argc, argv, rows, words, 1, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    o.verb = n_words ? words[0] : "stats";
    if (strcmp(o.verb, "stats") != 0 && strcmp(o.verb, "list") != 0 && strcmp(o.verb, "purge") != 0) {
        return cli_usage(&command_cache, "\"%s\" is neither stats, list nor purge.", o.verb);
    }
    err e = {0};
    str json = {0};
    int got = o.offline ? 0 : from_server(&o, &json, &e);
    if (got == 0) {
        str_clear(&json);
        e = (err){0};
        got = from_file(&o, &json, &e) ? 1 : -1;
    }
    if (got > 0) {
        print(&o, &json);
    }
    str_free(&json);
    return got > 0 ? EXIT_DONE : cli_fail(&e);
}
