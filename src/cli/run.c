/* run.c - `pare run`: a model in the terminal, through the same backend that the gateway uses. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "serve/assets.h"
#include "tensor/pool.h"

static int run(int argc, char **argv);

const command command_run = {
    .name = "run",
    .summary = "chat with a model in the terminal",
    .run = run,
    .help =
        "Usage: pare run MODEL [PROMPT] [OPTIONS]\n\n"
        "MODEL is a GGUF file, the name of a pulled model (pare list), or \"storyteller\", the bundled one. With a\n"
        "PROMPT (or with text piped in) it answers once; without one it chats: a line is a message, an empty line or\n"
        "Ctrl-D ends.\n\n"
        "  --max-tokens N    at most so many tokens an answer\n"
        "  --temperature T   0 is always the most likely token; default 0.6\n"
        "  --top-p P         default 0.95\n"
        "  --seed N          the same seed gives the same answer\n"
        "  --system TEXT     a system message\n"
        "  --raw             no chat template: the model goes on with the text itself\n"
        "  --context N       tokens that fit; default the model's, at most 8192\n"
        "  --kv TYPE         how keys and values are kept: f16 (default), f32, q8_0, q4_0\n"
        "  --threads N       compute threads; default one a core\n"
        "  --stats           prints tokens and tokens/s after each answer\n"
        "  --json            the answer as one JSON object (with a PROMPT only)\n\n"
        "Examples:\n"
        "  pare run storyteller \"Tell me a story about a rabbit\"\n"
        "  pare run llama-1b.gguf --stats\n"
        "  cat letter.txt | pare run llama-1b.gguf --system \"Summarise the letter.\"\n"};

typedef struct run_options {
    const char *model, *prompt, *system;
    int64_t     max_tokens, seed, context, threads;
    double      temperature, top_p;
    bool        raw, stats, json;
    kv_type     kv;
} run_options;

typedef struct chat {
    const run_options *o;
    loop              *loop;
    backend           *backend;
    str                messages; /* JSON objects with commas between, without the brackets */
    str                answer;
    usage              usage;
    err                failed;
    char               finish[24];
    int64_t            begun_us, first_us, done_us;
} chat;

static void on_event(void *ctx, const event *ev) {
    chat *c = ctx;
    if (ev->kind == EVENT_DELTA) {
        if (c->first_us == 0) {
            c->first_us = clock_us();
        }
        if (ev->text && ev->text_len > 0) {
            str_add(&c->answer, ev->text, ev->text_len);
            if (!c->o->json) {
                fwrite(ev->text, 1, ev->text_len, stdout);
                fflush(stdout);
            }
        }
        if (ev->finish) {
            snprintf(c->finish, sizeof c->finish, "%s", ev->finish);
        }
        return;
    }
    if (ev->usage) {
        c->usage = *ev->usage;
    }
    if (ev->kind == EVENT_ERROR) {
        c->failed = *ev->error;
    }
    c->done_us = clock_us();
    loop_stop(c->loop);
}

static void write_body(const chat *c, const char *text, str *body) {
    const run_options *o = c->o;
    str_adds(body, "{\"model\":\"m\",\"stream\":true");
    str_addf(body, ",\"temperature\":%.6g,\"top_p\":%.6g", o->temperature, o->top_p);
    if (o->max_tokens > 0) {
        str_addf(body, ",\"max_tokens\":%lld", (long long)o->max_tokens);
    }
    if (o->seed >= 0) {
        str_addf(body, ",\"seed\":%lld", (long long)o->seed);
    }
    if (o->raw) {
        str_adds(body, ",\"prompt\":");
        str_jsons(body, text);
    } else {
        str_adds(body, ",\"messages\":[");
        str_add(body, c->messages.data ? c->messages.data : "", c->messages.len);
        str_adds(body, "]");
    }
    str_adds(body, "}");
}

static void add_message(chat *c, const char *role, const char *text) {
    str_addf(&c->messages, "%s{\"role\":\"%s\",\"content\":", c->messages.len ? "," : "", role);
    str_jsons(&c->messages, text);
    str_adds(&c->messages, "}");
}

static bool ask(chat *c, const char *text, err *e) {
    str          body = {0};
    request      q = {0};
    arena       *memory = arena_new(4096);
    request_kind kind = c->o->raw ? REQUEST_COMPLETION : REQUEST_CHAT;
    write_body(c, text, &body);
    str_clear(&c->answer);
    c->failed = (err){0};
    c->first_us = c->done_us = 0;
    c->begun_us = clock_us();
    bool ok = memory && !body.failed && dialect_openai.read_request(kind, body.data, body.len, memory, &q, e) &&
              c->backend->ops->start(c->backend, c->loop, &q, "m", on_event, c, e) && loop_run(c->loop, e);
    if (ok && c->failed.code != ERR_NONE) {
        *e = c->failed;
        ok = false;
    }
    request_free(&q);
    arena_free(memory);
    str_free(&body);
    return ok;
}

static void print_stats(const chat *c) {
    double first = (double)(c->first_us - c->begun_us) / 1e6, rest = (double)(c->done_us - c->first_us) / 1e6;
    fprintf(stderr, "[prompt %lld tokens in %.3f s, %.1f tokens/s; answer %lld tokens, %.1f tokens/s; finish %s]\n",
            (long long)c->usage.prompt, first, first > 0 ? (double)c->usage.prompt / first : 0,
            (long long)c->usage.completion, rest > 0 ? (double)(c->usage.completion - 1) / rest : 0, c->finish);
}

static void print_json(const chat *c) {
    str out = {0};
    str_adds(&out, "{\"text\":");
    str_json(&out, c->answer.data ? c->answer.data : "", c->answer.len);
    str_addf(&out,
             ",\"finish\":\"%s\",\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"first_token_s\":%.6f,\"total_s\":%"
             ".6f}\n",
             c->finish, (long long)c->usage.prompt, (long long)c->usage.completion,
             (double)(c->first_us - c->begun_us) / 1e6, (double)(c->done_us - c->begun_us) / 1e6);
    fwrite(out.data, 1, out.len, stdout);
    str_free(&out);
}

static bool once(chat *c, const char *text, err *e) {
    if (!c->o->raw) {
        add_message(c, "user", text);
    }
    if (!ask(c, text, e)) {
        return false;
    }
    if (c->o->json) {
        print_json(c);
    } else {
        putchar('\n');
    }
    if (c->o->stats) {
        fflush(stdout);
        print_stats(c);
    }
    return true;
}

static bool talk(chat *c, err *e) {
    char  *line = NULL;
    size_t cap = 0;
    bool   ok = true;
    fputs("A line is a message; an empty line or Ctrl-D ends.\n", stderr);
    while (ok) {
        fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) {
            line[--n] = '\0';
        }
        if (n <= 0) {
            break;
        }
        ok = once(c, line, e);
        if (ok && !c->o->raw) {
            add_message(c, "assistant", c->answer.data ? c->answer.data : "");
        }
    }
    free(line);
    return ok;
}

static backend *open_model(const run_options *o, pool *p, err *e) {
    local_options local = {.sequences = 1, .context = (int)o->context, .kv = o->kv};
    char          path[4096];
    const char   *file = cli_model(o->model, path, sizeof path, e);
    if (!file) {
        return NULL;
    }
    cli_progress("loading", -1);
    const asset *a = strcmp(o->model, "storyteller") == 0 ? asset_find("models/storyteller.gguf") : NULL;
    backend     *b = a ? backend_local(o->model, NULL, a->data, a->size, p, &local, e)
                       : backend_local(o->model, file, NULL, 0, p, &local, e);
    cli_progress_end();
    return b;
}

static int chat_with(const run_options *o) {
    err   e = {0};
    chat  c = {.o = o};
    pool *p = pool_new((int)o->threads, &e);
    bool  ok = p != NULL;
    c.backend = ok ? open_model(o, p, &e) : NULL;
    c.loop = c.backend ? loop_new(0, &e) : NULL;
    ok = c.loop != NULL;
    if (ok && o->system) {
        add_message(&c, "system", o->system);
    }
    if (ok && o->prompt) {
        ok = once(&c, o->prompt, &e);
    } else if (ok && !isatty(STDIN_FILENO)) {
        str in = {0};
        ok = cli_read_file("-", &in, &e) && once(&c, in.data ? in.data : "", &e);
        str_free(&in);
    } else if (ok) {
        ok = talk(&c, &e);
    }
    if (c.backend) {
        c.backend->ops->close(c.backend);
    }
    if (c.loop) {
        loop_free(c.loop);
    }
    if (p) {
        pool_free(p);
    }
    str_free(&c.messages);
    str_free(&c.answer);
    return ok ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    run_options      o = {.seed = -1, .temperature = 0.6, .top_p = 0.95};
    const char      *words[2], *kv = "f16";
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--max-tokens", OPTION_INT, &o.max_tokens, 1, 1 << 24},
                               {"--temperature", OPTION_NUMBER, &o.temperature},
                               {"--top-p", OPTION_NUMBER, &o.top_p},
                               {"--seed", OPTION_INT, &o.seed, 0, INT64_C(1) << 53},
                               {"--system", OPTION_TEXT, &o.system},
                               {"--raw", OPTION_FLAG, &o.raw},
                               {"--context", OPTION_INT, &o.context, 16, 1 << 24},
                               {"--kv", OPTION_TEXT, &kv},
                               {"--threads", OPTION_INT, &o.threads, 0, 512},
                               {"--stats", OPTION_FLAG, &o.stats},
                               {"--json", OPTION_FLAG, &o.json},
                               {0}};
    if (!cli_options(&command_run, argc, argv, rows, words, 2, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words == 0) {
        return cli_usage(&command_run, "Name a model: a GGUF file, a pulled one, or storyteller.");
    }
    if (!kv_type_named(kv, &o.kv)) {
        return cli_usage(&command_run, "--kv takes f16, f32, q8_0 or q4_0, not \"%s\".", kv);
    }
    o.model = words[0];
    o.prompt = n_words > 1 ? words[1] : NULL;
    return chat_with(&o);
}
