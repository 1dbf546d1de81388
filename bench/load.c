/* load.c - load that wrk does not make: requests at a constant rate, and many slow streams at once; and the upstream of those
 * streams. Built and used by bench/gateway.sh.
 *
 *   load rate PORT PATH BODY_FILE REQUESTS_PER_S SECONDS CONNECTIONS
 *       open loop: a request is due when it is due, whatever became of those before; its latency counts from then
 *   load serve PORT CHUNKS_PER_S SECONDS
 *       an upstream: each request is answered by a stream of chunks that carry the time at which they were written
 *   load streams PORT PATH BODY_FILE STREAMS SECONDS
 *       so many streams at once; how late each chunk comes (the clock is the machine's, the same on both sides)        */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *take(size_t n, size_t size) {
    void *p = calloc(n, size);
    if (!p) {
        die("memory");
    }
    return p;
}

static struct sockaddr_in local(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)port);
    return a;
}

static int open_connection(int port) {
    struct sockaddr_in a = local(port);
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        die("connect");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

static char *request_of(const char *path, const char *file, size_t *n) {
    FILE *f = fopen(file, "rb");
    if (!f) {
        die(file);
    }
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    rewind(f);
    char *text = take(1, size + 512);
    int   head = snprintf(text, 512,
                          "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench-secret\r\n"
                            "Content-Type: application/json\r\nCache-Control: no-cache\r\n"
                            "Content-Length: %zu\r\n\r\n",
                          path, size);
    if (fread(text + head, 1, size, f) != size) {
        die(file);
    }
    fclose(f);
    *n = (size_t)head + size;
    return text;
}

/* ---- figures ---- */

static double *values;
static size_t  n_values, room;

static void note(double ms) {
    if (n_values == room) {
        room = room ? room * 2 : 1 << 16;
        values = realloc(values, room * sizeof *values);
        if (!values) {
            die("memory");
        }
    }
    values[n_values++] = ms;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(double share) {
    size_t i = (size_t)(share * (double)(n_values - 1));
    return n_values ? values[i] : 0;
}

static void print_figures(const char *what, int errors) {
    qsort(values, n_values, sizeof *values, by_size);
    printf("%s count %zu p50 %.3f p99 %.3f p999 %.3f max %.3f errors %d\n", what, n_values, at(0.5), at(0.99),
           at(0.999), at(1), errors);
}

/* ---- a constant rate ---- */

typedef struct connection {
    int     fd;
    int64_t due; /* 0: free */
    size_t  sent, got, length, head;
    char    in[4096];
} connection;

/* A reply is whole when its Content-Length has come; its beginning is kept. */
static bool read_reply(connection *c, bool *bad) {
    char    bytes[65536];
    ssize_t n;
    while ((n = recv(c->fd, bytes, sizeof bytes, 0)) > 0) {
        if (c->got < sizeof c->in - 1) {
            size_t part = sizeof c->in - 1 - c->got < (size_t)n ? sizeof c->in - 1 - c->got : (size_t)n;
            memcpy(c->in + c->got, bytes, part);
            c->in[c->got + part] = '\0';
        }
        c->got += (size_t)n;
        char *end = c->head ? NULL : strstr(c->in, "\r\n\r\n");
        if (end) {
            char *length = strcasestr(c->in, "content-length:");
            c->head = (size_t)(end - c->in) + 4;
            c->length = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
            *bad = strncmp(c->in, "HTTP/1.1 200", 12) != 0;
        }
        if (c->head && c->got >= c->head + c->length) {
            return true;
        }
    }
    if (n == 0) {
        *bad = true;
        return true;
    }
    return false;
}

static void push(connection *c, const char *text, size_t n) {
    while (c->sent < n) {
        ssize_t k = send(c->fd, text + c->sent, n - c->sent, MSG_NOSIGNAL);
        if (k <= 0) {
            return; /* the rest when it is writable */
        }
        c->sent += (size_t)k;
    }
}

static int run_rate(char **w) {
    int         port = atoi(w[0]), rate = atoi(w[3]), seconds = atoi(w[4]), count = atoi(w[5]), errors = 0, late = 0;
    size_t      n;
    char       *text = request_of(w[1], w[2], &n);
    connection *all = take((size_t)count, sizeof *all);
    int        *unused = take((size_t)count, sizeof *unused), n_unused = 0, epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        all[i].fd = open_connection(port);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd,
                  &(struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i]});
        unused[n_unused++] = i;
    }
    int64_t step = 1000000000 / rate, next = now_ns() + 100000000, warm = next + 1000000000;
    int64_t stop = warm + (int64_t)seconds * 1000000000;
    while (next < stop || n_unused < count) {
        int64_t now = now_ns();
        while (next <= now && next < stop) {
            if (n_unused == 0) {
                late++; /* it waits for a connection, and its latency with it */
                break;
            }
            connection *c = &all[unused[--n_unused]];
            *c = (connection){.fd = c->fd, .due = next};
            push(c, text, n);
            next += step;
        }
        struct epoll_event events[EVENTS];
        int64_t            left = next < stop ? next - now_ns() : 1000000000;
        int                ready = epoll_wait(epoll, events, EVENTS, left > 1000000 ? (int)(left / 1000000) : 0);
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            bool        bad = false;
            if (c->due && c->sent < n) {
                push(c, text, n);
            }
            if (c->due && read_reply(c, &bad)) {
                if (c->due >= warm) {
                    note((double)(now_ns() - c->due) / 1e6);
                    errors += bad;
                }
                c->due = 0;
                unused[n_unused++] = (int)(c - all);
            }
        }
        if (now_ns() > stop + 5000000000) {
            break;
        }
    }
    print_figures("rate", errors);
    free(text);
    free(all);
    free(unused);
    return 0;
}

/* ---- the upstream of streams ---- */

typedef struct spout {
    int     fd;
    bool    running;
    int64_t next, end;
    size_t  got;
    char    in[8192];
} spout;

static void say(int fd, const char *text, size_t n) {
    while (n > 0) {
        ssize_t k = send(fd, text, n, MSG_NOSIGNAL);
        if (k <= 0) {
            return; /* a reader that is this slow has lost already */
        }
        text += k;
        n -= (size_t)k;
    }
}

static void say_chunk(int fd, const char *json) {
    char text[1024];
    int  n = snprintf(text, sizeof text, "%zx\r\ndata: %s\n\n\r\n", strlen(json) + 8, json);
    say(fd, text, (size_t)n);
}

static void begin(spout *s, int64_t step, int64_t length) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    char *end = strstr(s->in, "\r\n\r\n");
    char *size = end ? strcasestr(s->in, "content-length:") : NULL;
    if (s->running || !size || s->got < (size_t)(end - s->in) + 4 + strtoul(size + 15, NULL, 10)) {
        return;
    }
    s->running = true;
    s->got = 0;
    s->next = now_ns() + (int64_t)(rand() % 1000) * step / 1000; /* not all at once */
    s->end = s->next + length;
    say(s->fd, head, sizeof head - 1);
}

static void pour(spout *s, int64_t step) {
    char json[512];
    if (s->next < s->end) {
        snprintf(json, sizeof json,
                 "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up\",\"choices\":[{"
                 "\"index\":0,"
                 "\"delta\":{\"content\":\"t%lld \"},\"finish_reason\":null}]}",
                 (long long)now_ns());
        say_chunk(s->fd, json);
        s->next += step;
        return;
    }
    say_chunk(
        s->fd,
        "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up\",\"choices\":[{\"index\":0,"
        "\"delta\":{},\"finish_reason\":\"stop\"}]}");
    say_chunk(s->fd, "[DONE]");
    say(s->fd, "0\r\n\r\n", 5);
    s->running = false;
}

#define MAX_SPOUTS 8192

static int run_serve(char **w) {
    int64_t            step = 1000000000 / atoi(w[1]), length = (int64_t)atoi(w[2]) * 1000000000;
    struct sockaddr_in a = local(atoi(w[0]));
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, count = 0;
    int                epoll = epoll_create1(EPOLL_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0) {
        die("listen");
    }
    spout **all = take(MAX_SPOUTS, sizeof *all);
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN});
    for (;;) {
        struct epoll_event events[EVENTS];
        int                ready = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < ready; i++) {
            spout *s = events[i].data.ptr;
            if (!s) {
                int c;
                while (count < MAX_SPOUTS && (c = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    all[count] = take(1, sizeof **all);
                    all[count]->fd = c;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, c,
                              &(struct epoll_event){.events = EPOLLIN, .data.ptr = all[count]});
                    count++;
                }
                continue;
            }
            ssize_t n = recv(s->fd, s->in + s->got, sizeof s->in - 1 - s->got, 0);
            if (n <= 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, s->fd, NULL);
                s->running = false;
                continue;
            }
            s->got += (size_t)n;
            s->in[s->got] = '\0';
            begin(s, step, length);
        }
        int64_t now = now_ns();
        for (int i = 0; i < count; i++) {
            if (all[i]->running && all[i]->next <= now) {
                pour(all[i], step);
            }
        }
    }
    return 0; /* it is killed */
}

/* ---- many streams ---- */

static int run_streams(char **w) {
    int         port = atoi(w[0]), count = atoi(w[3]), seconds = atoi(w[4]), errors = 0, open = count;
    size_t      n;
    char       *text = request_of(w[1], w[2], &n);
    connection *all = take((size_t)count, sizeof *all);
    int         epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < count; i++) {
        all[i].fd = open_connection(port);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &all[i]});
        push(&all[i], text, n);
    }
    int64_t begun = now_ns(), warm = begun + 2000000000, stop = begun + (int64_t)seconds * 1000000000;
    while (open > 0 && now_ns() < stop) {
        struct epoll_event events[EVENTS];
        int                ready = epoll_wait(epoll, events, EVENTS, 100);
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            char        bytes[16384];
            ssize_t     k = recv(c->fd, bytes, sizeof bytes - 1, 0);
            int64_t     now = now_ns();
            if (k <= 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
                errors++;
                open--;
                continue;
            }
            bytes[k] = '\0';
            for (char *at_time = bytes; (at_time = strstr(at_time, "\"content\":\"t")) != NULL; at_time++) {
                int64_t sent = strtoll(at_time + 12, NULL, 10);
                if (sent > begun && now > warm) {
                    note((double)(now - sent) / 1e6);
                }
            }
            if (strstr(bytes, "[DONE]")) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
                open--;
            }
            errors += strstr(bytes, "\"error\"") != NULL;
        }
    }
    print_figures("streams", errors);
    free(text);
    free(all);
    return 0;
}

int main(int argc, char **argv) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    if (argc == 8 && strcmp(argv[1], "rate") == 0) {
        return run_rate(argv + 2);
    }
    if (argc == 5 && strcmp(argv[1], "serve") == 0) {
        return run_serve(argv + 2);
    }
    if (argc == 7 && strcmp(argv[1], "streams") == 0) {
        return run_streams(argv + 2);
    }
    fprintf(stderr, "usage: load rate PORT PATH BODY RATE SECONDS CONNECTIONS | serve PORT RATE SECONDS |\n"
                    "       streams PORT PATH BODY STREAMS SECONDS\n");
    return 2;
}
