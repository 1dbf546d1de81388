/* config.h - config.json, read so that nothing in it goes unnoticed: a member that nobody asked for and that is not
 * known to be harmless is refused by name.
 *
 * A multimodal model keeps the text model's members in "text_config"; they go before those of the root.              */
#ifndef PARE_MODEL_IMPORT_CONFIG_H
#define PARE_MODEL_IMPORT_CONFIG_H

#include "base/map.h"
#include "base/str.h"
#include "model/import/tree.h"

typedef struct config {
    arena      *memory;
    const char *where; /* "DIR/config.json" */
    const tree *root, *text;
    map        *asked;
    err        *e;
} config;

bool config_open(config *c, arena *memory, const char *dir, err *e);
void config_close(config *c);

/* The first of "a|b|c" that is there and not null; all of them count as asked for. *name is the one that was found. */
const tree *config_find(config *c, const char *keys, const char **name);

/* A missing member leaves *out alone and returns true; a wrong one fails. */
bool hf_int(config *c, const char *keys, int64_t min, int64_t max, int64_t *out);
bool hf_number(config *c, const char *keys, double min, double max, double *out);
bool hf_bool(config *c, const char *keys, bool *out);
bool config_text(config *c, const char *keys, const char **out);

/* The same for a member of an object inside config.json. */
bool config_member_number(config *c, const tree *object, const char *key, double min, double max, double *out);

bool config_refuse(config *c, const char *key, const char *why); /* "DIR/config.json: KEY WHY"; false */

/* After everything was read. `ignore`: names that the caller vouches for. */
bool config_all_known(config *c, const char *const *ignore, int ignore_count);

#endif
