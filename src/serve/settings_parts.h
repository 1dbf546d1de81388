/* settings_parts.h - what the files that read pare.yaml share; for them alone. */
#ifndef PARE_SERVE_SETTINGS_PARTS_H
#define PARE_SERVE_SETTINGS_PARTS_H

#include "serve/settings.h"

/* A copy of `rows` with a zeroed one behind them; NULL: out of memory. */
void *settings_more(settings *s, void *rows, int count, size_t size);
char *settings_keep(settings *s, const char *text); /* NULL gives NULL */
bool  settings_no_memory(err *e);
/* A text that outlives the configuration's tree; *out stays where the key is absent. */
bool  settings_string(settings *s, const config *c, const config_node *n, const char *key, const char **out, err *e);

typedef bool (*settings_read_entry)(settings *, const config *, const char *name, const config_node *, err *);
/* Each member of a mapping of names to mappings. */
bool settings_mapping(settings *s, const config *c, const config_node *root, const char *key, settings_read_entry read,
                      err *e);

/* settings_models.c */
setting_model *settings_model(settings *s, const char *name, err *e); /* found or added */
bool           settings_read_model(settings *s, const config *c, const char *name, const config_node *n, err *e);
bool           settings_check_model(settings *s, setting_model *m, err *e);

/* settings_backends.c */
bool settings_read_backend(settings *s, const config *c, const char *name, const config_node *n, err *e);
bool settings_has_backend(const settings *s, const char *name);

/* settings_targets.c: who answers for a remote model, and what happens when they fail */
extern const char *const settings_target_names[]; /* of a model's members; NULL at the end */
bool settings_read_targets(settings *s, const config *c, setting_model *m, const config_node *n, err *e);
bool settings_check_targets(const settings *s, const setting_model *m, err *e);

/* settings_serve.c: tls, cors, drain, drop_unsupported */
bool settings_read_serve(settings *s, const config *c, const config_node *root, err *e);

/* settings_log.c, settings_otlp.c */
bool settings_read_log(settings *s, const config *c, const config_node *n, err *e);
bool settings_read_telemetry(settings *s, const config *c, const config_node *n, err *e);

/* settings_prices.c, settings_keys.c */
bool settings_read_prices(settings *s, const config *c, const config_node *n, err *e);
bool settings_read_keys(settings *s, const config *c, const config_node *n, err *e);

/* settings_groups.c: what keys and groups may use, and with whom the limits are shared */
extern const char *const settings_rule_names[]; /* of a key's or a group's members; NULL at the end */
bool settings_read_rules(settings *s, const config *c, const config_node *n, limit_rules *out, err *e);
bool settings_read_group(settings *s, const config *c, const char *name, const config_node *n, err *e);
bool settings_read_shared(settings *s, const config *c, const config_node *n, err *e);

#endif
