#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"

#define MAX_FILE ((size_t)1 << 30)

static const option_row *find(const option_row *rows, const char *name, size_t n) {
    for (; rows->name; rows++) {
        if (strlen(rows->name) == n && strncmp(rows->name, name, n) == 0) {
            return rows;
        }
    }
    return NULL;
}

static int unknown_option(const command *c, const option_row *rows, const char *word) {
    const char *names[64];
    int         n = 0;
    for (const option_row *r = rows; r->name && n < 62; r++) {
        names[n++] = r->name;
    }
    names[n++] = "--help";
    names[n] = NULL;
    const char *near = nearest_name(word, names);
    if (near) {
        return cli_usage(c, "There is no option %s; did you mean %s?", word, near);
    }
    return cli_usage(c, "There is no option %s.", word);
}

static bool store(const command *c, const option_row *r, const char *text) {
    char *end = NULL;
    errno = 0;
    switch (r->kind) {
    case OPTION_FLAG:
        *(bool *)r->out = true;
        return true;
    case OPTION_TEXT:
        *(const char **)r->out = text;
        return true;
    case OPTION_LIST: {
        option_list *list = r->out;
        if (list->n == (int)(sizeof list->texts / sizeof *list->texts)) {
            cli_usage(c, "%s stands more than %d times.", r->name, list->n);
            return false;
        }
        list->texts[list->n++] = text;
        return true;
    }
    case OPTION_INT: {
        long long value = strtoll(text, &end, 10);
        if (errno || end == text || *end || value < r->min || value > r->max) {
            cli_usage(c, "%s takes a whole number from %lld to %lld, not \"%s\".", r->name, (long long)r->min,
                      (long long)r->max, text);
            return false;
        }
        *(int64_t *)r->out = value;
        return true;
    }
    case OPTION_NUMBER: {
        double value = strtod(text, &end);
        if (errno || end == text || *end || !isfinite(value)) {
            cli_usage(c, "%s takes a number, not \"%s\".", r->name, text);
            return false;
        }
        *(double *)r->out = value;
        return true;
    }
    }
    return false;
}

bool cli_options(const command *c, int argc, char **argv, const option_row *rows, const char **words, int max_words,
                 int *n_words, bool *helped) {
    bool ended = false;
    *n_words = 0;
    *helped = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (ended || word[0] != '-' || !word[1]) {
            if (*n_words == max_words) {
                cli_usage(c, "\"%s\" is one word too many.", word);
                return false;
            }
            words[(*n_words)++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            ended = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(c->help, stdout);
            *helped = true;
            return true;
        }
        if (strcmp(word, "-o") == 0) {
            word = "--out";
        }
        const char       *equals = strchr(word, '=');
        const option_row *r = find(rows, word, equals ? (size_t)(equals - word) : strlen(word));
        if (!r) {
            unknown_option(c, rows, word);
            return false;
        }
        const char *text = equals ? equals + 1 : NULL;
        if (r->kind != OPTION_FLAG && !text) {
            if (i + 1 == argc) {
                cli_usage(c, "%s needs a value.", r->name);
                return false;
            }
            text = argv[++i];
        }
        if (!store(c, r, text)) {
            return false;
        }
    }
    return true;
}

int cli_fail(const err *e) {
    if (cli_terminal()) {
        cli_progress_end();
    }
    fprintf(stderr, "pare: %s\n", e->text[0] ? e->text : "it failed");
    return e->code == ERR_INVALID || e->code == ERR_NOT_FOUND ? EXIT_USAGE : EXIT_FAILED;
}

int cli_usage(const command *c, const char *format, ...) {
    va_list args;
    fprintf(stderr, "pare %s: ", c->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " See: pare %s --help\n", c->name);
    return EXIT_USAGE;
}

bool cli_read_file(const char *path, str *out, err *e) {
    bool  in = strcmp(path, "-") == 0;
    FILE *f = in ? stdin : fopen(path, "rb");
    if (!f) {
        return err_set(e, ERR_NOT_FOUND, "%s: %s.", path, strerror(errno));
    }
    bool ok = true;
    for (;;) {
        if (!str_reserve(out, 1 << 16)) {
            ok = err_set(e, ERR_MEMORY, "%s: out of memory.", path);
            break;
        }
        size_t n = fread(out->data + out->len, 1, out->cap - out->len - 1, f);
        out->len += n;
        if (out->len > MAX_FILE) {
            ok = err_set(e, ERR_LIMIT, "%s is larger than 1 GiB.", path);
            break;
        }
        if (n == 0) {
            ok = !ferror(f) || err_set(e, ERR_IO, "%s: %s.", path, strerror(errno));
            break;
        }
    }
    if (ok) {
        out->data[out->len] = '\0';
    }
    if (!in) {
        fclose(f);
    }
    return ok;
}

bool cli_terminal(void) {
    return isatty(STDERR_FILENO);
}

static bool shown;

void cli_progress(const char *what, double share) {
    if (!cli_terminal()) {
        return;
    }
    shown = true;
    if (share < 0) {
        fprintf(stderr, "\r\033[K%s ...", what);
        return;
    }
    int full = (int)(share * 30);
    fprintf(stderr, "\r\033[K%s [%.*s%.*s] %3d %%", what, full, "##############################", 30 - full,
            "..............................", (int)(share * 100));
}

void cli_progress_end(void) {
    if (shown) {
        fputs("\r\033[K", stderr);
        shown = false;
    }
}

void cli_data_dir(char *out, size_t size) {
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    out[0] = '\0';
    if (xdg && xdg[0] == '/') {
        snprintf(out, size, "%s/pare", xdg);
    } else if (home && home[0] == '/') {
        snprintf(out, size, "%s/.local/share/pare", home);
    }
}
