#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "base/utf8.h"

#define PIECE   4096   /* PIPE_BUF: a pipe that poll says is writable takes as much without blocking (Linux) */
#define LOOK_MS 100    /* how often a writer that cannot write looks whether it shall end */
#define GRACE   500000 /* us for the writer to end once it has been told to leave the rest */

static atomic_int  least_level = LOG_INFO;
static atomic_bool as_json;

void log_setup(log_level least, bool json) {
    atomic_store(&least_level, (int)least);
    atomic_store(&as_json, json);
}

bool log_wants(log_level level) {
    return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed) && level < LOG_OFF;
}

bool log_as_json(void) {
    return atomic_load_explicit(&as_json, memory_order_relaxed);
}

/* ---- writing ---- */

typedef struct waiting {
    struct waiting *next;
    size_t          n;
    char            bytes[];
} waiting;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t  changed; /* made by log_start */
    pthread_t       thread;
    waiting        *first, *last;
    size_t          bytes;
    int64_t         untold; /* dropped lines that no line has told of */
    bool            stopping, ended;
    bool            stuck; /* an earlier writer still waits for stderr: there is no second one */
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_bool     running; /* changes under the lock */
static atomic_bool     give_up; /* the writer leaves what it has not written */
static _Atomic int64_t dropped;

/* Who cannot write a line at once waits for stderr. */
static void write_all(const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t k = write(STDERR_FILENO, bytes, n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k < 0 && errno == EAGAIN) { /* somebody has made the terminal non-blocking */
            struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
            poll(&p, 1, LOOK_MS);
            continue;
        }
        if (k <= 0) {
            return; /* there is nobody to tell */
        }
        bytes += k;
        n -= (size_t)k;
    }
}

/* The writer's way: false when it shall leave the rest. */
static bool write_piece(const char *bytes, size_t n) {
    while (n > 0) {
        struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
        int           ready = poll(&p, 1, LOOK_MS);
        if (atomic_load(&give_up)) {
            return false;
        }
        if (ready <= 0) {
            continue;
        }
        ssize_t k = write(STDERR_FILENO, bytes, n);
        if (k < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (k <= 0) {
            return true;
        }
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

/* Whole lines are joined to pieces, so that many small ones cost few calls. */
static void write_chain(const waiting *w) {
    char   piece[PIECE];
    size_t n = 0;
    bool   good = true;
    for (; w; w = w->next) {
        if (!good) {
            atomic_fetch_add(&dropped, 1);
            continue;
        }
        if (n + w->n > sizeof piece && n > 0) {
            good = write_piece(piece, n);
            n = 0;
        }
        for (size_t at = 0; good && at < w->n;) {
            size_t part = w->n - at < sizeof piece - n ? w->n - at : sizeof piece - n;
            memcpy(piece + n, w->bytes + at, part);
            at += part;
            n += part;
            if (at < w->n) {
                good = write_piece(piece, n);
                n = 0;
            }
        }
    }
    if (good && n > 0) {
        write_piece(piece, n);
    }
}

static void free_chain(waiting *w) {
    for (waiting *next; w; w = next) {
        next = w->next;
        free(w);
    }
}

static void tell_dropped(int64_t lines) {
    str  line = {0};
    char text[96];
    snprintf(text, sizeof text, "%lld lines of the log were dropped: stderr is read too slowly", (long long)lines);
    log_head(LOG_WARN, text, &line);
    str_adds(&line, line.data && line.data[0] == '{' ? "}\n" : "\n");
    if (!line.failed) {
        write_piece(line.data, line.len);
    }
    str_free(&line);
}

static void *run(void *arg) {
    (void)arg;
    pthread_mutex_lock(&writer.lock);
    for (;;) {
        while (!writer.first && writer.untold == 0 && !writer.stopping) {
            pthread_cond_wait(&writer.changed, &writer.lock);
        }
        if (!writer.first && writer.untold == 0) {
            break;
        }
        waiting *chain = writer.first;
        int64_t  untold = writer.untold;
        writer.first = writer.last = NULL;
        writer.bytes = 0;
        writer.untold = 0;
        pthread_mutex_unlock(&writer.lock);
        write_chain(chain);
        free_chain(chain);
        if (untold > 0 && !atomic_load(&give_up)) {
            tell_dropped(untold);
        }
        pthread_mutex_lock(&writer.lock);
    }
    writer.ended = true;
    pthread_cond_broadcast(&writer.changed);
    pthread_mutex_unlock(&writer.lock);
    return NULL;
}

/* False: there is no writer any more. */
static bool hand_over(const str *line) {
    waiting *w = malloc(sizeof *w + line->len);
    if (w) {
        w->next = NULL;
        w->n = line->len;
        memcpy(w->bytes, line->data, line->len);
    }
    pthread_mutex_lock(&writer.lock);
    bool taken = atomic_load(&running), room = w && writer.bytes + line->len <= LOG_WAITING;
    if (taken && room) {
        bool was_empty = !writer.first;
        *(was_empty ? &writer.first : &writer.last->next) = w;
        writer.last = w;
        writer.bytes += line->len;
        if (was_empty) {
            pthread_cond_signal(&writer.changed);
        }
    } else if (taken) {
        writer.untold++;
        atomic_fetch_add(&dropped, 1);
    }
    pthread_mutex_unlock(&writer.lock);
    if (!taken || !room) {
        free(w);
    }
    return taken;
}

void log_put(const str *line) {
    if (!line->failed && line->len > 0 && (!atomic_load(&running) || !hand_over(line))) {
        write_all(line->data, line->len); /* in one call as a rule, so that lines of several threads do not mix */
    }
}

int64_t log_dropped(void) {
    return atomic_load(&dropped);
}

bool log_start(err *e) {
    pthread_mutex_lock(&writer.lock);
    bool free_to = !atomic_load(&running) && !writer.stuck;
    pthread_mutex_unlock(&writer.lock);
    if (!free_to) {
        return err_set(e, ERR_BUSY, "The log has a writer already.");
    }
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&writer.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    writer.stopping = writer.ended = false;
    atomic_store(&give_up, false);
    if (!thread_start(&writer.thread, run, NULL, "the log's writer", e)) {
        pthread_cond_destroy(&writer.changed);
        return false;
    }
    pthread_mutex_lock(&writer.lock);
    atomic_store(&running, true);
    pthread_mutex_unlock(&writer.lock);
    return true;
}

/* With the lock held. */
static void wait_for_end(int64_t us) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + us % 1000000 * 1000;
    until.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (!writer.ended && pthread_cond_timedwait(&writer.changed, &writer.lock, &until) == 0) {
    }
}

void log_stop(int64_t wait_us) {
    if (!atomic_load(&running)) {
        return;
    }
    pthread_mutex_lock(&writer.lock);
    writer.stopping = true;
    pthread_cond_broadcast(&writer.changed);
    wait_for_end(wait_us > 0 ? wait_us : 0);
    if (!writer.ended) {
        atomic_store(&give_up, true);
        wait_for_end(GRACE);
    }
    writer.stuck = !writer.ended; /* inside a write that does not return: it ends with the process */
    atomic_store(&running, false);
    waiting *rest = writer.stuck ? writer.first : NULL;
    for (const waiting *w = rest; w; w = w->next) {
        atomic_fetch_add(&dropped, 1);
    }
    if (writer.stuck) {
        writer.first = writer.last = NULL;
    }
    pthread_mutex_unlock(&writer.lock);
    free_chain(rest);
    if (writer.stuck) {
        pthread_detach(writer.thread);
    } else {
        pthread_join(writer.thread, NULL);
        pthread_cond_destroy(&writer.changed);
    }
}

/* ---- lines ---- */

bool log_hides(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029 || (c >= 0x202A && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x200E || c == 0x200F || c == 0x061C;
}

/* One event is one line: whatever a stranger put into a name cannot begin a second one or move the cursor. */
static void make_plain(char *text) {
    size_t bad, n = strlen(text), used;
    while (!utf8_valid(text, n, &bad)) {
        text[bad] = '?';
    }
    for (size_t at = 0; at < n; at += used) {
        uint32_t c;
        used = utf8_decode(text + at, n - at, &c);
        if (log_hides(c)) {
            memset(text + at, ' ', used);
        }
    }
}

static const char *word(log_level level) {
    switch (level) {
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warn";
    default:
        return "error";
    }
}

void log_head(log_level level, const char *message, str *line) {
    int64_t   now = clock_wall_us();
    time_t    seconds = (time_t)(now / 1000000);
    struct tm utc;
    char      when[32] = "";
    gmtime_r(&seconds, &utc);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
    int ms = (int)(now / 1000 % 1000);
    if (log_as_json()) {
        str_addf(line, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"message\":", when, ms, word(level));
        str_jsons(line, message);
    } else {
        str_addf(line, "%s.%03dZ %-5s %s", when, ms, word(level), message);
    }
}

void log_write(log_level level, const char *format, ...) {
    if (!log_wants(level)) {
        return;
    }
    char    text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    text[utf8_whole(text, strlen(text))] = '\0';
    make_plain(text);
    str line = {0};
    log_head(level, text, &line);
    str_adds(&line, line.data && line.data[0] == '{' ? "}\n" : "\n");
    log_put(&line);
    str_free(&line);
}
