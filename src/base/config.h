/* config.h - a YAML file as a tree with line numbers, and sentences for what is wrong with it.
 *
 * Reads mappings, sequences and scalars; refuses anchors, tags and more than one document. `${NAME}` in a scalar is
 * the environment's value (an unset name is an error; `$$` is a dollar sign, and so is a `$` before anything else).
 * Readers name each key they know; what is left unknown is an error with the nearest known key. Bounds: 1 MiB, 32
 * levels, 100000 values. A config is read-only once parsed: any number of threads may read it.                      */
#ifndef PARE_BASE_CONFIG_H
#define PARE_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct config      config;      /* the file; owns all nodes */
typedef struct config_node config_node; /* a mapping, a sequence or a scalar */

config            *config_load(const char *path, err *e);
config            *config_parse(const char *name, const char *text, size_t n, err *e);
void               config_free(config *c);
const config_node *config_root(const config *c); /* NULL for an empty file */

typedef enum config_kind { CONFIG_SCALAR, CONFIG_MAPPING, CONFIG_SEQUENCE } config_kind;

config_kind        config_kind_of(const config_node *n);
int                config_line(const config_node *n);                 /* of its key, where it has one; from 1 */
size_t             config_count(const config_node *n);                /* members or items; 0 for a scalar */
const config_node *config_item(const config_node *n, size_t i);       /* i-th item, or value of the i-th member */
const char        *config_key(const config_node *n, size_t i);        /* name of the i-th member */
const config_node *config_get(const config_node *n, const char *key); /* NULL when absent or n is NULL */
const char        *config_scalar(const config_node *n);               /* of a scalar; else NULL */

/* All members of mapping `n` must be among `known` (NULL-terminated): else a sentence with file, line and nearest. */
bool config_known(const config *c, const config_node *n, const char *const *known, err *e);

/* A key that is missing or has an empty value leaves *out alone and is fine. A text lives as long as the config. Sizes
 * take 64KiB, 256MiB, 8G (powers of 1024; KB, MB, GB: of 1000); durations 500ms, 30s, 10m, 24h, 7d. */
bool config_string(const config *c, const config_node *n, const char *key, const char **out, err *e);
bool config_int(const config *c, const config_node *n, const char *key, int64_t min, int64_t max, int64_t *out, err *e);
bool config_number(const config *c, const config_node *n, const char *key, double min, double max, double *out, err *e);
bool config_bool(const config *c, const config_node *n, const char *key, bool *out, err *e);
bool config_size(const config *c, const config_node *n, const char *key, int64_t *bytes, err *e);
bool config_duration(const config *c, const config_node *n, const char *key, int64_t *us, err *e);

/* A sentence about node `n`: "pare.yaml:12: ...". Returns false. */
bool config_fail(const config *c, const config_node *n, err *e, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

bool        parse_size(const char *text, int64_t *bytes);
bool        parse_duration(const char *text, int64_t *us);
/* The name among `known` that is nearest to `name` by edit distance, or NULL when none is near. */
const char *nearest_name(const char *name, const char *const *known);

#endif
