/* keeper.h - a thread for what may take long and concerns the whole server: reading the settings again, client keys that
 * come and go, and retiring what an older generation leaves behind.
 *
 * Once a second it asks the database whether its keys have changed (`pare key` beside this server) and takes them over.  */
#ifndef PARE_SERVE_KEEPER_H
#define PARE_SERVE_KEEPER_H

#include "serve/house.h"

typedef struct keeper keeper;
struct server;

/* The settings from their sources again; the caller owns them. On the keeper's thread. */
typedef settings *(*settings_reader)(void *ctx, err *e);

keeper *keeper_start(struct server *v, house *h, settings_reader read, void *ctx, err *e);
void    keeper_stop(keeper *k); /* does what is asked of it so far, then ends; the loops have ended. NULL is fine */

/* Reads the settings and makes them the newest generation; `done` comes on the keeper's thread, with NULL when all went
 * well. Any thread. */
typedef void (*keeper_done)(void *ctx, const err *e);
bool keeper_reload(keeper *k, keeper_done done, void *ctx);

/* Runs `change` on the keeper's thread, with a connection that may write and a copy of the n bytes at `arg`; takes the keys
 * over at once; then `done`, on that thread too. Any thread; false: out of memory, and nothing comes. */
struct sqlite3;
typedef bool (*keys_changer)(struct sqlite3 *c, const void *arg, str *json, err *e);
typedef void (*keys_changed)(void *ctx, const str *json, const err *e);
bool keeper_change_keys(keeper *k, keys_changer change, const void *arg, size_t n, keys_changed done, void *ctx);

void keeper_retire(keeper *k, generation *g); /* nobody holds it any more; any thread */

#endif
