/* server.h - N event loops, each with its own listening socket on the same port, until SIGTERM or SIGINT. */
#ifndef PARE_SERVE_SERVER_H
#define PARE_SERVE_SERVER_H

#include "serve/house.h"
#include "serve/keeper.h"

typedef struct server server;

/* Before any thread is started: SIGTERM and SIGINT are for server_run alone. */
void server_block_signals(void);

/* Binds at once, so that a port in use is known before anything else is said. The house outlives the server. `read` (may be
 * NULL) gets the settings from their sources again, on SIGHUP and POST /api/reload. */
server *server_open(house *h, settings_reader read, void *ctx, err *e);
int     server_port(const server *v);    /* the real one, when 0 was asked for */
bool    server_start(server *v, err *e); /* the loops' threads */
/* Takes no new connections, lets running exchanges end for up to drain_us, then cancels what is left and says so to its
 * clients, and ends the loops; below 0: ends the loops at once. Not from a loop. */
void    server_stop(server *v, int64_t drain_us);
/* server_start, then waits for a signal (SIGHUP: reads the settings again), then server_stop with the settings' drain. */
bool    server_run(server *v, err *e);
void    server_close(server *v);

/* For keeper.c: every loop takes the generation (whose reference it is given) for new requests; and waits until all loops
 * have done what they were asked before. */
void server_adopt(server *v, generation *g);
void server_flush(server *v);

#endif
