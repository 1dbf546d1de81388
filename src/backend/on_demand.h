/* on_demand.h - local models that are loaded when somebody asks for them, and share a budget of memory.
 *
 * A model that was not used for `idle_us` is unloaded; so is the one that was used longest ago when another needs the
 * memory. One that is answering stays: who needs its memory waits, and after some seconds so do new requests for it,
 * lest a model in steady use keep the others out. Requests for a model that can never fit are refused with both
 * numbers. One thread loads and unloads; a request costs an event loop a lock for some instructions.
 *
 * A model that could not be loaded is not tried again for 5 s, after each further failure for twice as long, up to 5
 * minutes. Meanwhile it is not healthy, and its requests end at once with the same sentence (503 and Retry-After); a
 * change of its file ends that. Closing gives up a load that is running.                                             */
#ifndef PARE_BACKEND_ON_DEMAND_H
#define PARE_BACKEND_ON_DEMAND_H

#include "backend/backend.h"
#include "tensor/pool.h"

typedef struct on_demand on_demand;

/* bytes 0: no limit; idle_us 0: models stay until memory is needed. The pool must outlive it. */
on_demand *on_demand_new(pool *p, int64_t bytes, int64_t idle_us, err *e);

/* Reads the header, to know what the model will take, and hashes the file; loads nothing. path NULL: data, the bundled
 * model. Data must outlive the backend, which is closed as any other, before on_demand_free. */
backend *on_demand_add(on_demand *d, const char *name, const char *path, const void *data, size_t n,
                       const local_options *o, err *e);

void on_demand_free(on_demand *d);

#endif
