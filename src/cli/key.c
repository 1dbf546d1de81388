/* key.c - `pare key`: client keys in pare.db, also beside a running server, which sees the change within a second. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/date.h"
#include "base/files.h"
#include "base/json.h"
#include "base/money.h"
#include "cli/cli.h"
#include "store/keys.h"

static int run(int argc, char **argv);

const command command_key = {
    .name = "key",
    .summary = "client keys: create, list, revoke, budget",
    .run = run,
    .help = "Usage: pare key create NAME [LIMITS] [--group G] [--space S] [--admin]\n"
            "       pare key list [--json]\n"
            "       pare key revoke NAME\n"
            "       pare key budget NAME|--group G LIMITS\n\n"
            "Keys in the database of --data; a running server takes changes over within a second. The secret of a new\n"
            "key is printed once and stored nowhere: only its SHA-256 is kept. While there is any key, also a revoked\n"
            "one, requests need one. Keys that stand in pare.yaml are changed there.\n\n"
            "Limits of a key, or of all keys of a group together:\n"
            "  --models A,B          names of models, * stands for any part; \"\" takes the limit away\n"
            "  --rpm N, --tpm N      requests and tokens a minute; 0 takes a limit away, here and below\n"
            "  --streams N           streams at once\n"
            "  --money-day USD       dollars a day (UTC); -1 takes the limit away, 0 forbids all that costs\n"
            "  --money-month USD     dollars a month\n"
            "  --expires DATE        2027-01-31 or 2027-01-31T18:00:00Z; \"never\" takes it away\n\n"
            "  --group G             create: the key's group; budget: limits of the group, which is made when new\n"
            "  --space S             create: keys of the same space share stored answers; default the key's name\n"
            "  --admin               create: may see the dashboard and everybody's requests, and make keys\n"
            "  --data DIR            as `pare serve`\n"
            "  --json                for scripts\n\n"
            "Examples:\n"
            "  pare key create ann --group team --money-month 20\n"
            "  pare key create ci --models 'gpt-4o-mini,llama*' --rpm 60 --expires 2027-01-31\n"
            "  pare key budget --group team --money-day 50\n"
            "  pare key revoke ann\n"};

typedef struct key_options {
    const char *verb, *name, *data, *group, *space, *models, *expires;
    int64_t     requests, tokens, streams; /* -1: not given */
    double      day, month;                /* -2: not given */
    bool        admin, json;
} key_options;

/* ---- limits ---- */

static bool take_money(double usd, const char *option, int64_t *nano, unsigned bit, unsigned *mask, err *e) {
    if (usd < -1.5) {
        return true;
    }
    *mask |= bit;
    *nano = usd < 0 ? -1 : llround(usd * MONEY_USD);
    return usd <= KEY_MOST_USD || err_set(e, ERR_INVALID, "%s takes at most %.0f dollars.", option, KEY_MOST_USD);
}

static void take_count(int64_t n, int64_t *out, unsigned bit, unsigned *mask) {
    if (n >= 0) {
        *out = n;
        *mask |= bit;
    }
}

static bool take_rules(const key_options *o, key_rules *r, unsigned *mask, err *e) {
    *r = rules_none();
    *mask = 0;
    take_count(o->requests, &r->requests_minute, RULE_REQUESTS, mask);
    take_count(o->tokens, &r->tokens_minute, RULE_TOKENS, mask);
    take_count(o->streams, &r->streams, RULE_STREAMS, mask);
    if (o->models) {
        if (strlen(o->models) >= sizeof r->models) {
            return err_set(e, ERR_INVALID, "--models takes at most %zu bytes.", sizeof r->models - 1);
        }
        memcpy(r->models, o->models, strlen(o->models) + 1);
        *mask |= RULE_MODELS;
    }
    if (o->expires) {
        *mask |= RULE_EXPIRES;
        if (strcmp(o->expires, "never") != 0 && !parse_date(o->expires, &r->expires_us)) {
            return err_set(e, ERR_INVALID,
                           "--expires takes a date like 2027-01-31 or 2027-01-31T18:00:00Z, not \"%.60s\".",
                           o->expires);
        }
    }
    return take_money(o->day, "--money-day", &r->nano_day, RULE_DAY, mask, e) &&
           take_money(o->month, "--money-month", &r->nano_month, RULE_MONTH, mask, e);
}

static void copy_name(char out[KEY_NAME], const char *name) {
    snprintf(out, KEY_NAME, "%s", name ? name : "");
}

/* ---- verbs ---- */

static bool create(struct sqlite3 *c, const key_options *o, err *e) {
    key_row  row = {.admin = o->admin, .created_us = clock_wall_us()};
    char     secret[KEY_SECRET];
    unsigned mask;
    if (!take_rules(o, &row.rules, &mask, e) || !key_name_good("key", o->name, e) ||
        (o->group && !key_name_good("group", o->group, e)) || (o->space && !key_name_good("space", o->space, e))) {
        return false;
    }
    copy_name(row.name, o->name);
    copy_name(row.group, o->group);
    copy_name(row.space, o->space);
    if (!key_make_secret(&row, secret, e) || !keys_create(c, &row, e)) {
        return false;
    }
    if (o->json) {
        str out = {0};
        str_adds(&out, "{\"name\":");
        str_jsons(&out, row.name);
        str_addf(&out, ",\"key\":\"%s\"}", secret);
        puts(out.data ? out.data : "");
        str_free(&out);
    } else {
        printf("%s\n", secret);
        fputs("This is the only time that the key is shown.\n", stderr);
    }
    return true;
}

static bool budget(struct sqlite3 *c, const key_options *o, err *e) {
    key_rules rules;
    unsigned  mask;
    if (!take_rules(o, &rules, &mask, e)) {
        return false;
    }
    if (mask == 0) {
        return err_set(e, ERR_INVALID, "No limit is named; see pare key --help.");
    }
    return o->name ? keys_limit(c, o->name, &rules, mask, e) : groups_limit(c, o->group, &rules, mask, e);
}

/* ---- the list ---- */

static const char *text_of(const cJSON *o, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(o, key));
    return text ? text : "";
}

static void limit_text(const cJSON *o, const char *key, const char *name, str *out) {
    const cJSON *n = cJSON_GetObjectItem(o, key);
    if (cJSON_IsNumber(n)) {
        str_addf(out, "%s%s %.15g", out->len ? ", " : "", name, n->valuedouble);
    }
}

/* "$20 a month, 60 requests a minute" would not fit: names as the options have them. */
static void print_row(const cJSON *o, const char *state) {
    str          limits = {0};
    const cJSON *day = cJSON_GetObjectItem(o, "spent_day"), *month = cJSON_GetObjectItem(o, "spent_month");
    limit_text(o, "money_day", "$/day", &limits);
    limit_text(o, "money_month", "$/month", &limits);
    limit_text(o, "requests_minute", "rpm", &limits);
    limit_text(o, "tokens_minute", "tpm", &limits);
    limit_text(o, "streams", "streams", &limits);
    const cJSON *models = cJSON_GetObjectItem(o, "models");
    for (const cJSON *m = models ? models->child : NULL; m; m = m->next) {
        str_addf(&limits, "%s%s", m == models->child ? (limits.len ? ", models " : "models ") : " ", m->valuestring);
    }
    if (*text_of(o, "expires")) {
        str_addf(&limits, "%sexpires %s", limits.len ? ", " : "", text_of(o, "expires"));
    }
    printf("%-20.60s %-12.60s %-8s %12.6f %12.6f  %s\n", text_of(o, "name"), text_of(o, "group"), state,
           day ? day->valuedouble : 0, month ? month->valuedouble : 0, limits.data ? limits.data : "");
    str_free(&limits);
}

static bool list(struct sqlite3 *c, const key_options *o, err *e) {
    str    json = {0};
    bool   good = keys_list_json(c, clock_wall_us(), &json, e);
    cJSON *root = good && !o->json ? cJSON_ParseWithLength(json.data, json.len) : NULL;
    if (good && (json.failed || (!o->json && !root))) {
        good = err_set(e, ERR_MEMORY, "Out of memory for the list.");
    } else if (good && o->json) {
        puts(json.data);
    } else if (good) {
        printf("%-20s %-12s %-8s %12s %12s  %s\n", "key", "group", "state", "$ today", "$ month", "limits");
        for (const cJSON *i = cJSON_GetObjectItem(root, "keys")->child; i; i = i->next) {
            print_row(i, text_of(i, "state"));
        }
        for (const cJSON *i = cJSON_GetObjectItem(root, "groups")->child; i; i = i->next) {
            print_row(i, "(group)");
        }
    }
    cJSON_Delete(root);
    str_free(&json);
    return good;
}

/* ---- the command ---- */

static bool do_verb(struct sqlite3 *c, const key_options *o, err *e) {
    if (strcmp(o->verb, "create") == 0) {
        return create(c, o, e);
    }
    if (strcmp(o->verb, "budget") == 0) {
        return budget(c, o, e);
    }
    return strcmp(o->verb, "revoke") == 0 ? keys_revoke(c, o->name, clock_wall_us(), e) : list(c, o, e);
}

/* Only who makes something makes a database; the others say that there is none. */
static int work(const key_options *o) {
    char directory[4096];
    err  e = {0};
    cli_data_dir(directory, sizeof directory);
    const char     *data = o->data ? o->data : directory;
    bool            makes = strcmp(o->verb, "create") == 0 || strcmp(o->verb, "budget") == 0;
    struct sqlite3 *c = NULL;
    if (makes ? directory_make(data, &e) : keys_there(data, &e)) {
        c = keys_connect(data, true, &e);
    }
    bool good = c && do_verb(c, o, &e);
    keys_disconnect(c);
    return good ? EXIT_DONE : cli_fail(&e);
}

static int check(const key_options *o, int n_words) {
    bool named = strcmp(o->verb, "create") == 0 || strcmp(o->verb, "revoke") == 0;
    bool limits = strcmp(o->verb, "budget") == 0;
    if (!named && !limits && strcmp(o->verb, "list") != 0) {
        return cli_usage(&command_key, "\"%s\" is neither create, list, revoke nor budget.", o->verb);
    }
    if (named && n_words < 2) {
        return cli_usage(&command_key, "%s needs the name of a key.", o->verb);
    }
    if (limits && (n_words < 2) == !o->group) {
        return cli_usage(&command_key, "budget needs either the name of a key or --group G.");
    }
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    key_options      o = {.requests = -1, .tokens = -1, .streams = -1, .day = -2, .month = -2};
    bool             helped;
    int              n_words;
    const char      *words[2] = {NULL, NULL};
    const int64_t    most = 1000000000000;
    const option_row rows[] = {{"--group", OPTION_TEXT, &o.group},
                               {"--space", OPTION_TEXT, &o.space},
                               {"--models", OPTION_TEXT, &o.models},
                               {"--rpm", OPTION_INT, &o.requests, 0, most},
                               {"--tpm", OPTION_INT, &o.tokens, 0, most},
                               {"--streams", OPTION_INT, &o.streams, 0, most},
                               {"--money-day", OPTION_NUMBER, &o.day},
                               {"--money-month", OPTION_NUMBER, &o.month},
                               {"--expires", OPTION_TEXT, &o.expires},
                               {"--admin", OPTION_FLAG, &o.admin},
                               {"--data", OPTION_TEXT, &o.data},
                               {"--json", OPTION_FLAG, &o.json},
                               {0}};
    if (!cli_options(&command_key, argc, argv, rows, words, 2, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    o.verb = n_words ? words[0] : "list";
    o.name = words[1];
    int code = check(&o, n_words);
    if (code != EXIT_DONE) {
        return code;
    }
    return work(&o);
}
