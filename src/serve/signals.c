#include "serve/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/thread.h"

struct signal_watch {
    pthread_t    thread;
    atomic_bool *closing;
    int          told;
};

/* All signals are blocked here (thread.h); SIGUSR1 is sent to this thread alone, to end it. */
static void *run(void *arg) {
    signal_watch *w = arg;
    sigset_t      ends, all;
    int           which = 0;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    all = ends;
    sigaddset(&all, SIGUSR1);
    while (which != SIGUSR1) {
        if (sigwait(&all, &which) == 0 && which != SIGUSR1) {
            w->told = which;
            atomic_store(w->closing, true);
            pthread_sigmask(SIG_UNBLOCK, &ends, NULL); /* the next one does what it does by default */
        }
    }
    return NULL;
}

signal_watch *signals_watch(atomic_bool *closing, err *e) {
    signal_watch *w = calloc(1, sizeof *w);
    if (!w) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    w->closing = closing;
    if (!thread_start(&w->thread, run, w, "the thread that waits for signals", e)) {
        free(w);
        return NULL;
    }
    return w;
}

int signals_end(signal_watch *w) {
    int told = 0;
    if (w) {
        pthread_kill(w->thread, SIGUSR1);
        pthread_join(w->thread, NULL);
        told = w->told;
        free(w);
    }
    return told;
}
