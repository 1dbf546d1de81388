/* pool.h - the compute threads of the process, which the loaded models' engines take in turns.
 *
 * pool_run splits `count` items into chunks that threads claim, each from a stretch of its own and then from others', so a
 * busy neighbour slows one chunk and not the whole job. The calling thread works too: `threads` counts it. A thread that
 * waits spins for a few microseconds and then sleeps on a futex.                                                     */
#ifndef PARE_TENSOR_POOL_H
#define PARE_TENSOR_POOL_H

#include "base/err.h"

typedef struct pool pool;

/* Called with [begin, end) and the number of the thread (0 .. threads-1), for scratch memory. */
typedef void (*pool_fn)(void *arg, int begin, int end, int thread);

pool *pool_new(int threads, err *e); /* threads <= 0: the cores this process may use */
void  pool_free(pool *p);
int   pool_threads(const pool *p);

/* Runs fn over [0, count) in chunks of at least `grain`; returns when all is done. One pool_run at a time. */
void pool_run(pool *p, int count, int grain, pool_fn fn, void *arg);

/* Turns between engines: a step of a model runs between these two. Fair: first come, first served. */
void pool_take(pool *p);
void pool_give(pool *p);

#endif
