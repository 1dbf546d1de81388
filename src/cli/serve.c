/* serve.c - `pare serve`: the gateway, until it is told to end. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "serve/server.h"
#include "serve/signals.h"

static int run(int argc, char **argv);

const command command_serve = {
    .name = "serve",
    .summary = "answer requests over HTTP (OpenAI's API)",
    .run = run,
    .help =
        "Usage: pare serve [--config FILE] [--listen ADDR:PORT] [--data DIR] [--model NAME=FILE]...\n\n"
        "Answers OpenAI-style requests from its cache, from local models and from remote providers, and books what\n"
        "each one cost and saved. The dashboard is at /.\n\n"
        "  --config FILE        settings (YAML); everything has a default\n"
        "  --listen ADDR:PORT   default 127.0.0.1:7273; any other address needs client keys in the configuration\n"
        "  --data DIR           where pare.db lives; default $XDG_DATA_HOME/pare\n"
        "  --model NAME=FILE    serve a GGUF file, or a pulled model by its name, under this name; may be repeated\n"
        "                       (default: the bundled model)\n"
        "  --stands-in-for NAME the priced model that the ones named with --model save the cost of\n"
        "  --loops N            event loops; default one a core\n"
        "  --threads N          compute threads; default one a core\n"
        "  --memory SIZE        of all local models together, as 8G: each is loaded when it is first asked for, and\n"
        "                       unloaded when another needs the memory (default: all are loaded at start)\n"
        "  --idle TIME          with --memory: a model that nobody has asked for this long is unloaded; default 10m\n"
        "  --no-cache           recall nothing\n"
        "  --quiet              log warnings only\n\n"
        "For all local models (in the file: models.NAME.kv, .kv_memory and so on):\n"
        "  --context N          tokens of a prompt and its answer; default the model's, at most 8192\n"
        "  --sequences N        prompts that run at once; default 16\n"
        "  --queue N            prompts that may wait; default 1024\n"
        "  --step-tokens N      tokens of one pass at most; default 128\n"
        "  --step-ms N          a pass that serves running answers takes no more prompt than fits in this time\n"
        "  --kv TYPE            how keys and values are kept: f16 (default), f32, q8_0, q4_0\n"
        "  --kv-memory SIZE     memory for them, as 2G; default room for all sequences, at most 1 GiB\n"
        "  --kv-disk DIR        prefixes of prompts rest here too and survive a restart\n"
        "  --kv-disk-size SIZE  room there; default 4 GiB\n"
        "  --overflow HOW       a full context: error (default), or slide: its middle is dropped\n"
        "  --share-prefixes WHO whose prompts may share stored prefixes: those of one key (key, the default), or "
        "all\n"
        "  --pooling HOW        embeddings of a model whose file does not say how: mean, cls or last\n\n"
        "Examples:\n"
        "  pare serve\n"
        "  pare serve --model tiny=tinyllama-1.1b.Q4_0.gguf --stands-in-for gpt-4o-mini\n"
        "  pare serve --memory 8G --model small=qwen3-0.6b --model large=llama-8b.gguf\n"
        "  pare serve --kv q8_0 --kv-disk /var/cache/pare --kv-disk-size 8G\n"
        "  OPENAI_API_KEY=... pare serve --config pare.yaml\n\n"
        "SIGHUP reads the configuration again and takes it over as a whole or not at all; what runs is not touched.\n\n"
        "Exit: 0 asked to end, 1 it failed, 2 wrong options or configuration\n"};

static bool take_models(settings *s, int n, char **words, err *e) {
    for (int i = 0; i < n; i++) {
        const char *equals = words[i] ? strchr(words[i], '=') : NULL;
        char        name[128];
        if (!equals || equals == words[i] || !equals[1]) {
            return err_set(e, ERR_INVALID, "--model takes NAME=FILE, not \"%s\".", words[i] ? words[i] : "");
        }
        snprintf(name, sizeof name, "%.*s", (int)(equals - words[i]), words[i]);
        if (!settings_add_model(s, name, equals + 1, e)) {
            return false;
        }
    }
    return true;
}

static bool read_all(settings *s, const char *config, const char *listen, const char *data, err *e) {
    int    named = s->n_models; /* the command line's models win over the file's of the same name */
    char **files = calloc((size_t)named + 1, sizeof *files);
    bool   ok = files != NULL;
    for (int i = 0; ok && i < named; i++) {
        files[i] = (char *)s->models[i].file;
    }
    ok = ok && (!config || settings_read(s, config, e)) && (!listen || settings_listen(s, listen, e));
    for (int i = 0; ok && i < named; i++) {
        s->models[i].file = files[i];
        s->models[i].backend = NULL;
    }
    free(files);
    if (ok && data) {
        s->data = data;
    }
    return ok && settings_check(s, e);
}

/* The options of local models, by the names that the file has for them. */
typedef struct local_flags {
    char        names[SETTINGS_LOCAL][24]; /* "--kv-memory" */
    const char *values[SETTINGS_LOCAL];
} local_flags;

static void add_local_rows(local_flags *f, option_row *rows) {
    for (int i = 0; i < SETTINGS_LOCAL; i++) {
        snprintf(f->names[i], sizeof f->names[i], "--%s", settings_local_name(i));
        for (char *p = f->names[i]; *p; p++) {
            *p = *p == '_' ? '-' : *p;
        }
        rows[i] = (option_row){f->names[i], OPTION_TEXT, &f->values[i]};
    }
}

static bool take_local(settings *s, const local_flags *f, err *e) {
    for (int i = 0; i < SETTINGS_LOCAL; i++) {
        if (f->values[i] && !settings_local_flag(s, settings_local_name(i), f->values[i], e)) {
            char sentence[sizeof e->text];
            memcpy(sentence, e->text, sizeof sentence);
            return err_set(e, ERR_INVALID, "%s %s", f->names[i], sentence);
        }
    }
    return true;
}

static void say(const char *line) {
    cli_progress(line, -1);
}

/* What the command line says; it wins over the file, each time that is read. */
typedef struct flags {
    int         argc; /* of take_models: --model comes many times */
    char      **argv;
    const char *config, *listen, *data, *stands_in, *memory, *idle;
    int64_t     loops, threads;
    bool        no_cache, quiet;
    local_flags local;
} flags;

static bool take_size(const char *text, int64_t *bytes, err *e) {
    return !text || (parse_size(text, bytes) && *bytes > 0) ||
           err_set(e, ERR_INVALID, "--memory must be a size like 8G, not \"%s\".", text);
}

static bool take_time(const char *text, int64_t *us, err *e) {
    return !text || (parse_duration(text, us) && *us >= 0) ||
           err_set(e, ERR_INVALID, "--idle must be a time like 10m, not \"%s\".", text);
}

static bool take_flags(settings *s, const flags *f, err *e) {
    if (!take_models(s, f->argc, f->argv, e)) {
        return false;
    }
    for (int i = 0; f->stands_in && i < s->n_models; i++) {
        s->models[i].stands_in_for = f->stands_in;
    }
    if (!take_local(s, &f->local, e) || !read_all(s, f->config, f->listen, f->data, e) ||
        !take_size(f->memory, &s->memory_bytes, e) || !take_time(f->idle, &s->idle_us, e)) {
        return false;
    }
    s->loops = f->loops >= 0 ? (int)f->loops : s->loops;
    s->threads = f->threads >= 0 ? (int)f->threads : s->threads;
    s->cache = s->cache && !f->no_cache;
    s->log_level = f->quiet ? LOG_WARN : s->log_level;
    return true;
}

static settings *read_settings(void *ctx, err *e) {
    settings *s = settings_new(e);
    if (s && !take_flags(s, ctx, e)) {
        settings_free(s);
        return NULL;
    }
    return s;
}

/* *told: NULL because a signal has said so, and all is closed again. */
static house *open_house(settings *s, bool *told, err *e) {
    house        *h = house_new(e);
    signal_watch *w = h ? signals_watch(&h->closing, e) : NULL;
    bool          good = w && house_fill(h, s, say, e);
    int           which = signals_end(w);
    cli_progress_end();
    *told = which != 0;
    if (*told) {
        log_info("%s before it was ready: ending", which == SIGINT ? "interrupted" : "asked to end");
    }
    if (!good || *told) {
        house_close(h);
        return NULL;
    }
    return h;
}

static int open_and_run(settings *s, flags *f) {
    err     e = {0};
    int64_t began = clock_us();
    bool    told;
    house  *h = open_house(s, &told, &e);
    if (!h) {
        return told ? EXIT_DONE : cli_fail(&e);
    }
    server *v = server_open(h, read_settings, f, &e);
    if (!v) {
        house_close(h);
        return cli_fail(&e);
    }
    bool v6 = strchr(s->address, ':') != NULL;
    log_info("ready in %.0f ms: %d model%s, %lld stored answers", (double)(clock_us() - began) / 1e3,
             h->now->gateway.n_models, h->now->gateway.n_models == 1 ? "" : "s", (long long)h->cached_loaded);
    log_info("listening; dashboard at http%s://%s%s%s:%d/", s->tls.certificate ? "s" : "", v6 ? "[" : "", s->address,
             v6 ? "]" : "", server_port(v));
    bool ok = server_run(v, &e);
    house_stop(h);
    server_close(v);
    house_close(h);
    return ok ? EXIT_DONE : cli_fail(&e);
}

#define LOG_END_US 1000000 /* for lines that wait for a slow stderr */

static int start(settings *s, flags *f) {
    err e = {0};
    log_setup(s->log_level, s->log_json);
    server_block_signals();
    if (!log_start(&e)) { /* then who logs writes himself */
        log_warn("%s", e.text);
    }
    int code = open_and_run(s, f);
    log_stop(LOG_END_US);
    return code;
}

/* The words of --model apart from the others, which the option table reads. */
static bool part_models(int *argc, char **argv, flags *f) {
    int kept = 1;
    f->argv = calloc((size_t)*argc + 1, sizeof *f->argv);
    for (int i = 1; f->argv && i < *argc; i++) {
        if (strncmp(argv[i], "--model=", 8) == 0) {
            f->argv[f->argc++] = argv[i] + 8;
        } else if (strcmp(argv[i], "--model") == 0 && i + 1 < *argc) {
            f->argv[f->argc++] = argv[++i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = f->argv ? kept : *argc;
    return f->argv != NULL;
}

static int run(int argc, char **argv) {
    err        e = {0};
    flags      f = {.loops = -1, .threads = -1};
    bool       helped;
    int        n_words, code = EXIT_DONE;
    option_row rows[12 + SETTINGS_LOCAL] = {
        {"--config", OPTION_TEXT, &f.config},     {"--listen", OPTION_TEXT, &f.listen},
        {"--data", OPTION_TEXT, &f.data},         {"--stands-in-for", OPTION_TEXT, &f.stands_in},
        {"--loops", OPTION_INT, &f.loops, 0, 64}, {"--threads", OPTION_INT, &f.threads, 0, 512},
        {"--no-cache", OPTION_FLAG, &f.no_cache}, {"--quiet", OPTION_FLAG, &f.quiet},
        {"--memory", OPTION_TEXT, &f.memory},     {"--idle", OPTION_TEXT, &f.idle},
        {"--model", OPTION_TEXT, &f.config}}; /* taken out before; here for the nearest name */
    add_local_rows(&f.local, rows + 11);
    if (!part_models(&argc, argv, &f)) {
        err_set(&e, ERR_MEMORY, "Out of memory.");
        code = cli_fail(&e);
    } else if (!cli_options(&command_serve, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        code = EXIT_USAGE;
    } else if (!helped) {
        settings *s = read_settings(&f, &e);
        code = s ? start(s, &f) : cli_fail(&e);
        settings_free(s);
    }
    free(f.argv);
    return code;
}
