/* pare.h - language models in your own program: load one, generate text.
 *
 *     char error[512];
 *     pare_model *m = pare_open("model.gguf", NULL, error, sizeof error);
 *     if (!m) { fprintf(stderr, "%s\n", error); return 1; }
 *     pare_generate(m, "Once upon a time", NULL, print_piece, NULL, NULL, error, sizeof error);
 *     pare_close(m);
 *
 * Threads: one model may be used from any number of threads at once; their requests run in one batch. Ownership: what
 * pare_open returns is the caller's until pare_close; nothing else is handed out. Functions return 0 or NULL on failure
 * and write a sentence into `error` (which may be NULL).                                                             */
#ifndef PARE_H
#define PARE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pare_model pare_model;

typedef struct pare_options { /* zero means the default */
    int threads;              /* compute threads; default one a core */
    int context;              /* tokens a sequence can hold; default the model's, at most 8192 */
    int sequences;            /* requests that run at once; default 16 */
} pare_options;

typedef struct pare_request { /* zero means the default */
    int      max_tokens;      /* default: until the model ends, or the context is full */
    float    temperature;     /* default 0: always the most likely token */
    float    top_p;           /* default 1 */
    int      top_k;           /* default: all */
    uint64_t seed;            /* the same seed, the same text */
} pare_request;

typedef struct pare_usage {
    int prompt_tokens, completion_tokens;
} pare_usage;

/* A piece of the text as it is generated: whole UTF-8 characters. Called on a thread of pare's while pare_generate
 * waits. Return 0 to go on, anything else to stop. */
typedef int (*pare_piece)(void *user, const char *text, size_t length);

const char *pare_version(void);

pare_model *pare_open(const char *path, const pare_options *options, char *error, size_t error_size);
void        pare_close(pare_model *model); /* NULL is fine; no call may be running */

/* Goes on with `prompt`. Blocks until the text is complete. 1 when it is, 0 on failure. `usage` may be NULL. */
int pare_generate(pare_model *model, const char *prompt, const pare_request *request, pare_piece piece, void *user,
                  pare_usage *usage, char *error, size_t error_size);

/* The ids of a text; returns how many there are (-1 on failure) and writes at most `room` of them. */
int pare_tokenize(pare_model *model, const char *text, int32_t *ids, int room, char *error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
