/* thread.h - starting a thread that no signal interrupts.
 *
 * All signals are blocked in it: they belong to the threads that expect them, and at a limit for files (SIGXFSZ) a write
 * just fails. Threads get no names: every system spells that differently (pthread_setname_np).
 *
 * It stands in the header because the room tensor is built with only some files of base (PARE_TENSOR_ONLY).          */
#ifndef PARE_BASE_THREAD_H
#define PARE_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"

/* `what` is for the sentence: "cannot start the thread of an engine: ...". */
static inline bool thread_start(pthread_t *out, void *(*run)(void *), void *arg, const char *what, err *e) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(out, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 || err_set(e, ERR_IO, "cannot start %s: %s", what, strerror(rc));
}

#endif
