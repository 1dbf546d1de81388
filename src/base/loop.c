#include "base/loop.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_struct.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/spare.h"

typedef struct ending {
    struct ending *next;
    void (*release)(void *);
    void *arg;
} ending;

struct loop {
    struct event_base *base;
    struct event      *mail;
    queue             *tasks;
    int                bell; /* an eventfd: a counter that select can wait for */
    int                index;
    atomic_bool        stop;
    void              *client;
    void (*release)(void *);
    ending *endings;
};

static void ring(void *arg) {
    loop    *l = arg;
    uint64_t one = 1;
    while (write(l->bell, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

/* Takes the tasks of this moment only: what they post in turn rings again, so that sockets get their share. */
static void run_tasks(loop *l) {
    queue_item *item = queue_take_all(l->tasks);
    while (item) {
        queue_item *next = item->next; /* the task may be gone once it has run */
        loop_task  *task = (loop_task *)item;
        task->run(task);
        item = next;
    }
}

static void on_bell(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    loop    *l = arg;
    uint64_t count;
    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
    run_tasks(l);
    if (atomic_load(&l->stop)) {
        event_base_loopbreak(l->base);
    }
}

static void use_spares(void) {
    event_set_mem_functions(spare_malloc, realloc, spare_free);
}

/* A socket is closed while the change "watch it no more" waits for the end of the turn. Its number may be another loop's new
 * socket by then; this loop's epoll does not know that one and says ENOENT, which libevent passes over. ThreadSanitizer
 * takes that for a race on the number. */
#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:epoll_ctl\n";
}
#endif

static struct event_base *new_base(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, use_spares);
    struct event_config *config = event_config_new();
    if (!config) {
        return NULL;
    }
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK); /* other threads come by the mailbox only */
    /* What changes about a socket within one turn is told to the system once, at its end. The flag's condition, that no
     * watched descriptor has been cloned by dup, holds: nothing here calls it. */
    event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

loop *loop_new(int index, err *e) {
    loop *l = calloc(1, sizeof(*l));
    if (!l) {
        err_set(e, ERR_MEMORY, "out of memory for an event loop");
        return NULL;
    }
    l->index = index;
    l->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->bell < 0) {
        err_set(e, ERR_IO, "cannot open an eventfd: %s (raise the limit of open files?)", strerror(errno));
        loop_free(l);
        return NULL;
    }
    l->tasks = queue_new(ring, l);
    l->base = new_base();
    if (l->base) {
        l->mail = event_new(l->base, l->bell, EV_READ | EV_PERSIST, on_bell, l);
    }
    if (!l->tasks || !l->mail || event_add(l->mail, NULL) != 0) {
        err_set(e, ERR_IO, "cannot set up an event loop (out of memory or open files)");
        loop_free(l);
        return NULL;
    }
    return l;
}

void loop_free(loop *l) {
    if (!l) {
        return;
    }
    if (l->tasks) { /* first: a task may be part of what is released, and nobody shall be put behind it any more */
        queue_take_all(l->tasks);
    }
    if (l->release && l->client) {
        l->release(l->client);
    }
    for (ending *at = l->endings, *next; at; at = next) {
        next = at->next;
        at->release(at->arg);
        free(at);
    }
    if (l->mail) {
        event_free(l->mail);
    }
    if (l->base) {
        event_base_free(l->base);
    }
    if (l->tasks) {
        queue_take_all(l->tasks);
        queue_free(l->tasks);
    }
    if (l->bell >= 0) {
        close(l->bell);
    }
    free(l);
}

struct event_base *loop_base(const loop *l) {
    return l->base;
}

int loop_index(const loop *l) {
    return l->index;
}

bool loop_run(loop *l, err *e) {
    int status = event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    while (queue_count(l->tasks)) {
        run_tasks(l);
    }
    atomic_store(&l->stop, false); /* a loop may run again */
    if (status < 0) {
        return err_set(e, ERR_IO, "the event loop broke: %s", strerror(errno));
    }
    return true;
}

void loop_stop(loop *l) {
    atomic_store(&l->stop, true);
    ring(l);
}

void loop_post(loop *l, loop_task *task) {
    queue_put(l->tasks, &task->item);
}

/* The event of its write callback, which makes no difference between an active event and a socket that is ready. Only while
 * there is something to write: the callback tells its owner that all has been written. */
void loop_write_soon(struct bufferevent *b) {
    if (evbuffer_get_length(bufferevent_get_output(b)) > 0) {
        event_active(&b->ev_write, EV_WRITE, 0);
    }
}

void loop_set_client(loop *l, void *client, void (*release)(void *)) {
    l->client = client;
    l->release = release;
}

void *loop_client(const loop *l) {
    return l->client;
}

bool loop_at_end(loop *l, void (*release)(void *), void *arg) {
    ending *at = malloc(sizeof(*at));
    if (at) {
        *at = (ending){.next = l->endings, .release = release, .arg = arg};
        l->endings = at;
    }
    return at != NULL;
}

void loop_not_at_end(loop *l, void (*release)(void *), void *arg) {
    for (ending **at = &l->endings; *at; at = &(*at)->next) {
        if ((*at)->release == release && (*at)->arg == arg) {
            ending *gone = *at;
            *at = gone->next;
            free(gone);
            return;
        }
    }
}
