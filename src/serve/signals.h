/* signals.h - SIGTERM and SIGINT while pare is being opened and nobody else waits for them: models may load for minutes.
 *
 * server_block_signals has been called. The first one sets *closing, which ends loading within some milliseconds; a second
 * one ends the process at once.                                                                                        */
#ifndef PARE_SERVE_SIGNALS_H
#define PARE_SERVE_SIGNALS_H

#include <stdatomic.h>

#include "base/err.h"

typedef struct signal_watch signal_watch;

signal_watch *signals_watch(atomic_bool *closing, err *e);
int signals_end(signal_watch *w); /* the signal that has come; 0: none, and one that comes now is server_run's */

#endif
