/* err.h - why something failed, in a sentence for the person who can mend it.
 *
 * A function that can fail takes an `err *` last and returns false or NULL. The sentence names the thing, says what is
 * wrong with it and, where that helps, what to do. `param` is the offending place in a request ("messages[2].content")
 * or is empty. An err is plain memory: zero it, copy it, no cleanup. Passing NULL throws the reason away.            */
#ifndef PARE_BASE_ERR_H
#define PARE_BASE_ERR_H

#include <stdbool.h>

typedef enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,     /* the input is wrong: file, request, configuration */
    ERR_NOT_FOUND,   /* the named thing does not exist */
    ERR_DENIED,      /* no or wrong key, or not allowed */
    ERR_LIMIT,       /* too large, too deep, too many */
    ERR_CONTEXT,     /* a prompt is longer than the model's context */
    ERR_UNSUPPORTED, /* valid, but pare does not do it */
    ERR_IO,          /* the operating system said no */
    ERR_MEMORY,      /* out of memory */
    ERR_BUSY,        /* try again later */
    ERR_UPSTREAM,    /* a provider failed or answered with an error */
    ERR_TIMEOUT,     /* somebody took too long */
    ERR_CANCELLED,   /* the client went away */
    ERR_INTERNAL     /* a bug in pare */
} err_code;

typedef struct err {
    err_code code;
    char     text[496];
    char     param[112];
} err;

/* Fills `e` (when not NULL) and returns false, so that callers can write `return err_set(e, code, "format", ...)`. They are
 * macros so that the compiler sees the false, and does not warn of values that are unset only after a failure. */
#define err_set(...) (err_write(__VA_ARGS__), err_false())

/* The same, naming the place in the request: err_at(e, code, param, format, ...). */
#define err_at(...) (err_write_at(__VA_ARGS__), err_false())

/* Puts "prefix: " before the sentence already there, for a caller that knows the file or the key. Returns false. */
#define err_prefix(...) (err_write_prefix(__VA_ARGS__), err_false())

void err_write(err *e, err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void err_write_at(err *e, err_code code, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void err_write_prefix(err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool err_false(void) {
    return false;
}

/* A stable lower-case word for the code ("invalid", "not_found"), for logs and JSON. */
const char *err_word(err_code code);

#endif
