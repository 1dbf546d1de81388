#include "base/queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t  filled;
    queue_item     *first;
    queue_item     *last;
    size_t          count;
    void (*wake)(void *);
    void *wake_arg;
};

queue *queue_new(void (*wake)(void *), void *wake_arg) {
    queue *q = calloc(1, sizeof(*q));
    if (!q) {
        return NULL;
    }
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* setting the date does not stretch a wait */
    pthread_cond_init(&q->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&q->lock, NULL);
    q->wake = wake;
    q->wake_arg = wake_arg;
    return q;
}

void queue_free(queue *q) {
    if (q) {
        pthread_cond_destroy(&q->filled);
        pthread_mutex_destroy(&q->lock);
        free(q);
    }
}

void queue_put(queue *q, queue_item *item) {
    item->next = NULL;
    pthread_mutex_lock(&q->lock);
    bool was_empty = !q->first;
    if (was_empty) {
        q->first = item;
        pthread_cond_signal(&q->filled);
    } else {
        q->last->next = item;
    }
    q->last = item;
    q->count++;
    /* Read under the lock: once it is released, the taker may have seen the item and ended the queue's life. */
    void (*wake)(void *) = was_empty ? q->wake : NULL;
    void *wake_arg = q->wake_arg;
    pthread_mutex_unlock(&q->lock);
    if (wake) {
        wake(wake_arg);
    }
}

queue_item *queue_take(queue *q) {
    pthread_mutex_lock(&q->lock);
    queue_item *item = q->first;
    if (item) {
        q->first = item->next;
        q->count--;
        item->next = NULL;
    }
    pthread_mutex_unlock(&q->lock);
    return item;
}

static queue_item *detach(queue *q) {
    queue_item *items = q->first;
    q->first = NULL;
    q->last = NULL;
    q->count = 0;
    return items;
}

queue_item *queue_take_all(queue *q) {
    pthread_mutex_lock(&q->lock);
    queue_item *items = detach(q);
    pthread_mutex_unlock(&q->lock);
    return items;
}

queue_item *queue_wait_all(queue *q, int64_t wait_us) {
    struct timespec until = {0};
    if (wait_us > 0) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)(wait_us / 1000000);
        until.tv_nsec += (long)(wait_us % 1000000) * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
    }
    pthread_mutex_lock(&q->lock);
    int status = 0;
    while (!q->first && wait_us != 0 && status == 0) {
        status = wait_us < 0 ? pthread_cond_wait(&q->filled, &q->lock)
                             : pthread_cond_timedwait(&q->filled, &q->lock, &until);
    }
    queue_item *items = detach(q);
    pthread_mutex_unlock(&q->lock);
    return items;
}

size_t queue_count(queue *q) {
    pthread_mutex_lock(&q->lock);
    size_t count = q->count;
    pthread_mutex_unlock(&q->lock);
    return count;
}
