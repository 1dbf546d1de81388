/* queue.h - where threads meet: many putters, one taker, first in first out.
 *
 * The lock is held for a few instructions only. A taker either waits (queue_wait) or is woken by `wake`, which is
 * called without the lock when the queue was empty before a put.                                                     */
#ifndef PARE_BASE_QUEUE_H
#define PARE_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct queue_item { /* embed as the first member of what you put; the queue owns nothing */
    struct queue_item *next;
} queue_item;

typedef struct queue queue;

queue      *queue_new(void (*wake)(void *), void *wake_arg);
void        queue_free(queue *q); /* must be empty */
void        queue_put(queue *q, queue_item *item);
queue_item *queue_take(queue *q);                      /* NULL when empty */
queue_item *queue_take_all(queue *q);                  /* a chain by ->next, oldest first */
queue_item *queue_wait_all(queue *q, int64_t wait_us); /* waits up to wait_us (< 0: forever); NULL on time-out */
size_t      queue_count(queue *q);

#endif
