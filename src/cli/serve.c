/* serve.c - `pare serve`: the gateway, until it is told to end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "serve/server.h"

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
        "Exit: 0 asked to end, 1 it failed, 2 wrong options or configuration\n"};

/* --model may come many times, which the option table does not do: those are read first and taken out. */
static int take_models(settings *s, int *argc, char **argv, err *e) {
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        const char *value = NULL;
        if (strncmp(argv[i], "--model=", 8) == 0) {
            value = argv[i] + 8;
        } else if (strcmp(argv[i], "--model") == 0 && i + 1 < *argc) {
            value = argv[++i];
        } else {
            argv[kept++] = argv[i];
            continue;
        }
        const char *equals = strchr(value, '=');
        if (!equals || equals == value || !equals[1]) {
            return cli_usage(&command_serve, "--model takes NAME=FILE, not \"%s\".", value);
        }
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(equals - value), value);
        if (!settings_add_model(s, name, equals + 1, e)) {
            return cli_fail(e);
        }
    }
    *argc = kept;
    return EXIT_DONE;
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

static int start(settings *s, bool quiet) {
    err     e = {0};
    int64_t began = clock_us();
    log_setup(quiet ? LOG_WARN : s->log_level, s->log_json);
    server_block_signals();
    house *h = house_open(s, say, &e);
    cli_progress_end();
    if (!h) {
        return cli_fail(&e);
    }
    server *v = server_open(h, s, &e);
    if (!v) {
        house_close(h);
        return cli_fail(&e);
    }
    bool v6 = strchr(s->address, ':') != NULL;
    log_info("ready in %.0f ms: %d model%s, %lld stored answers", (double)(clock_us() - began) / 1e3,
             h->gateway.n_models, h->gateway.n_models == 1 ? "" : "s", (long long)h->cached_loaded);
    log_info("listening; dashboard at http://%s%s%s:%d/", v6 ? "[" : "", s->address, v6 ? "]" : "", server_port(v));
    bool ok = server_run(v, &e);
    house_stop(h);
    server_close(v);
    house_close(h);
    return ok ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    err       e = {0};
    settings *s = settings_new(&e);
    if (!s) {
        return cli_fail(&e);
    }
    const char *config = NULL, *listen = NULL, *data = NULL, *stands_in = NULL, *memory = NULL, *idle = NULL;
    int64_t     loops = -1, threads = -1;
    bool        no_cache = false, quiet = false, helped;
    int         n_words;
    local_flags local = {0};
    option_row  rows[12 + SETTINGS_LOCAL] = {
         {"--config", OPTION_TEXT, &config},     {"--listen", OPTION_TEXT, &listen},
         {"--data", OPTION_TEXT, &data},         {"--stands-in-for", OPTION_TEXT, &stands_in},
         {"--loops", OPTION_INT, &loops, 0, 64}, {"--threads", OPTION_INT, &threads, 0, 512},
         {"--no-cache", OPTION_FLAG, &no_cache}, {"--quiet", OPTION_FLAG, &quiet},
         {"--memory", OPTION_TEXT, &memory},     {"--idle", OPTION_TEXT, &idle},
         {"--model", OPTION_TEXT, &config}}; /* taken out before; here for the nearest name */
    add_local_rows(&local, rows + 11);
    int code = take_models(s, &argc, argv, &e);
    if (code == EXIT_DONE && !cli_options(&command_serve, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        code = EXIT_USAGE;
    } else if (code == EXIT_DONE && !helped) {
        for (int i = 0; stands_in && i < s->n_models; i++) {
            s->models[i].stands_in_for = stands_in;
        }
        if (!take_local(s, &local, &e) || !read_all(s, config, listen, data, &e)) {
            code = cli_fail(&e);
        } else if (memory && (!parse_size(memory, &s->memory_bytes) || s->memory_bytes <= 0)) {
            code = cli_usage(&command_serve, "--memory must be a size like 8G, not \"%s\".", memory);
        } else if (idle && (!parse_duration(idle, &s->idle_us) || s->idle_us < 0)) {
            code = cli_usage(&command_serve, "--idle must be a time like 10m, not \"%s\".", idle);
        } else {
            s->loops = loops >= 0 ? (int)loops : s->loops;
            s->threads = threads >= 0 ? (int)threads : s->threads;
            s->cache = s->cache && !no_cache;
            code = start(s, quiet);
        }
    }
    settings_free(s);
    return code;
}
