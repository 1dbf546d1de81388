/* cli.h - what the commands share: options, output, progress.
 *
 * Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong.                                 */
#ifndef PARE_CLI_CLI_H
#define PARE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct command {
    const char *name;
    const char *summary;               /* one line for `pare --help` */
    const char *help;                  /* usage, options and examples */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
} command;

extern const command command_serve, command_run, command_replay, command_cache, command_tokenize, command_logits,
    command_embed, command_render, command_synth, command_bench, command_quantize, command_show, command_eval,
    command_pull, command_list, command_rm, command_import, command_prices, command_report, command_key;

/* An option's description; one table a command. */
typedef enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_INT, OPTION_NUMBER, OPTION_LIST } option_kind;

typedef struct option_list { /* OPTION_LIST: an option that may be repeated */
    const char *texts[64];
    int         n;
} option_list;

typedef struct option_row {
    const char *name; /* "--model" */
    option_kind kind;
    void       *out;      /* bool *, const char **, int64_t *, double *, option_list * */
    int64_t     min, max; /* OPTION_INT */
} option_row;

/* Reads options; what is not an option is left in words (at most max_words). Prints a sentence and returns false when
 * something is wrong; --help prints the help and sets *helped. "--" ends the options. */
bool cli_options(const command *c, int argc, char **argv, const option_row *rows, const char **words, int max_words,
                 int *n_words, bool *helped);

int cli_fail(const err *e); /* prints "pare: sentence"; EXIT_FAILED or EXIT_USAGE */
int cli_usage(const command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool cli_read_file(const char *path, str *out, err *e); /* "-" is standard input; at most 1 GiB */
bool cli_terminal(void);                                /* standard error is one: progress may be shown */
void cli_progress(const char *what, double share);      /* one line on stderr, rewritten; share < 0: no bar */
void cli_progress_end(void);

/* One HTTP exchange. False when the server could not be reached; an answer with any status is true. `key` may be NULL. */
bool cli_fetch(const char *method, const char *url, const char *key, str *out, long *status, err *e);
/* The sentence inside an error answer of pare's, or the body itself. */
void cli_server_error(const str *body, long status, err *e);

/* A model's file: `model` itself where it is one (or "storyteller"), else that of a pulled model in the default data
 * directory. NULL with a sentence when it is neither and does not look like a path. */
const char *cli_model(const char *model, char *path, size_t size, err *e);

/* The default data directory, as `pare serve` chooses it. Empty when there is none. */
void cli_data_dir(char *out, size_t size);

#endif
