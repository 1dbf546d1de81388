/* settings.h - pare.yaml and the command line as one checked structure.
 *
 * Everything has a default. The names here are the names in the file. Strings live as long as the settings.         */
#ifndef PARE_SERVE_SETTINGS_H
#define PARE_SERVE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/config.h"
#include "base/err.h"
#include "base/log.h"
#include "stage/gateway.h"

typedef struct setting_model {
    const char   *name;
    const char   *file;          /* local: a GGUF file, or "bundled" */
    const char   *backend;       /* remote: a name under backends */
    const char   *upstream;      /* remote: the provider's name for it; default: name */
    const char   *stands_in_for; /* a name in the price table */
    const char   *price_name;    /* another name in the price table; default: upstream, then name */
    local_options local;
} setting_model;

typedef struct setting_backend {
    const char    *name;
    remote_options remote;
} setting_backend;

typedef struct setting_price {
    const char *name;
    price       price;
} setting_price;

#define SETTINGS_LOCAL 12 /* settings of a local model that can also be said on the command line */

typedef struct settings {
    arena           *memory;
    const char      *address;        /* 127.0.0.1 */
    int              port;           /* 7273 */
    const char      *data;           /* directory */
    int              loops, threads; /* 0: one a core */
    log_level        log_level;
    bool             log_json;
    setting_model   *models;
    int              n_models;
    setting_backend *backends;
    int              n_backends;
    setting_price   *prices; /* built-in ones first; a later row of the same name wins */
    int              n_prices;
    client_key      *keys;
    int              n_keys;
    bool             cache;
    int64_t          cache_bytes, cache_ttl_us;
    int64_t          memory_bytes; /* of local models, which are then loaded on demand; 0: all are loaded at start */
    int64_t          idle_us;      /* unloaded after; 0: only when others need the memory */
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
