/* settings.h - pare.yaml and the command line as one checked structure.
 *
 * Everything has a default. The names here are the names in the file. Strings live as long as the settings.         */
#ifndef PARE_SERVE_SETTINGS_H
#define PARE_SERVE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/group.h"
#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"
#include "base/log.h"
#include "serve/otlp.h"
#include "serve/tls.h"
#include "stage/gateway.h"

typedef struct setting_target { /* who may answer for a model */
    const char *backend;        /* a name under backends */
    const char *upstream;       /* the provider's name for it; NULL: the model's */
    const char *price_name;     /* NULL: the model's, then upstream */
    int         weight;
    bool        fallback;
} setting_target;

typedef struct setting_model {
    const char     *name;
    const char     *file;    /* local: a GGUF file, or "bundled" */
    const char     *backend; /* remote: a name under backends */
    setting_target *targets; /* remote: those of `targets` or the one of `backend`, and the fallbacks */
    int             n_targets;
    group_options   group;         /* retries below 0: not said */
    bool            alone;         /* retries: 0, and nothing else that needs a group */
    int64_t         max_output;    /* tokens of an answer, where the request names no limit; 0: not said */
    const char     *upstream;      /* remote: the provider's name for it; default: name */
    const char     *stands_in_for; /* a name in the price table */
    const char     *price_name;    /* another name in the price table; default: upstream, then name */
    local_options   local;
} setting_model;

typedef struct setting_backend { /* one a key: "up", or with several keys "up#1", "up#2", ... */
    const char    *name;
    const char    *of; /* its name in the file */
    int            weight;
    remote_options remote;
} setting_backend;

typedef struct setting_price {
    const char *name;
    price       price;
    int64_t     max_output;    /* tokens of an answer at most; 0: not said */
    const char *source, *date; /* where and when it was read ("2026-11-21"); NULL: not said */
} setting_price;

typedef struct setting_key { /* a client's key; those in pare.db join them when a generation is made */
    const char *name;
    sha256      hash;
    const char *space;
    const char *group; /* a name under groups, or in pare.db; "": none */
    bool        admin;
    limit_rules rules;
} setting_key;

typedef struct setting_group {
    const char *name;
    limit_rules rules;
} setting_group;

typedef struct setting_shared { /* limits that several nodes share */
    const char *redis;          /* redis://[:password@]host:port/db; NULL: this node is alone */
    double      share;          /* of the limits, while Redis is away; 0.25 */
} setting_shared;

#define SETTINGS_LOCAL 12 /* settings of a local model that can also be said on the command line */

typedef struct settings {
    arena         *memory;
    const char    *address;        /* 127.0.0.1 */
    int            port;           /* 7273 */
    const char    *data;           /* directory */
    int            loops, threads; /* 0: one a core */
    log_level      log_level;
    bool           log_json;
    bool           log_requests, log_prompts, log_addresses; /* a line an exchange, with what is said, with who asks */
    otlp_options   otlp;
    setting_model *models;
    int            n_models;
    setting_backend *backends;
    int              n_backends;
    setting_price   *prices;               /* built-in ones first; a later row of the same name wins */
    int              n_prices, n_built_in; /* the first n_built_in are the table that pare comes with */
    setting_key     *keys;
    int              n_keys;
    setting_group   *groups;
    int              n_groups;
    setting_shared   shared;
    tls_options      tls;
    const char     **origins; /* whose pages may ask (CORS); "*": all */
    int              n_origins;
    int64_t          drain_us; /* how long running answers may take when the server is asked to end; 30 s */
    bool             drop_unsupported;
    bool             cache;
    int64_t          cache_bytes, cache_ttl_us;
    int64_t          ledger_keep_us; /* older rows of the ledger are deleted; 0: never */
    int64_t          memory_bytes;   /* of local models, which are then loaded on demand; 0: all are loaded at start */
    int64_t          idle_us;        /* unloaded after; 0: only when others need the memory */
    const char      *local_flags[SETTINGS_LOCAL]; /* for all local models; they win over the file */
} settings;

/* Defaults alone, with the built-in price table. */
settings *settings_new(err *e);
void      settings_free(settings *s);

bool settings_read(settings *s, const char *path, err *e);           /* pare.yaml over the defaults */
bool settings_listen(settings *s, const char *address_port, err *e); /* "127.0.0.1:7273", "[::1]:7273", ":7273" */
bool settings_add_model(settings *s, const char *name, const char *file, err *e);
/* The last look, when all sources are read: references, default data directory and model, keys for open addresses. */
bool settings_check(settings *s, err *e);

/* ---- settings_local.c ---- */

/* "kv", "kv_memory", ...; i below SETTINGS_LOCAL. */
const char *settings_local_name(int i);
bool        settings_local_read(settings *s, const config *c, const config_node *n, local_options *o, err *e);
/* The value of a setting for all local models, as the command line says it. */
bool        settings_local_flag(settings *s, const char *name, const char *text, err *e);
/* settings_check's part: the flags go into the models. */
bool        settings_local_check(settings *s, err *e);

const setting_price *settings_price(const settings *s, const char *name);

#endif
