/* replay.c - `pare replay`: a file of requests against a server, with a report of what it cost and saved. */
#include "cli/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"

static int run(int argc, char **argv);

const command command_replay = {
    .name = "replay",
    .summary = "send a file of requests to a server and report",
    .run = run,
    .help = "Usage: pare replay FILE --to URL [OPTIONS]\n\n"
            "FILE has one request body a line: chat requests (with messages) or completions (with prompt).\n\n"
            "  --to URL         the server; default http://127.0.0.1:7273\n"
            "  --concurrency N  requests under way at once (default 4)\n"
            "  --rate R         requests a second at most (default: as fast as they are answered)\n"
            "  --limit N        only the first N requests\n"
            "  --model NAME     ask for this model instead of the one in the file\n"
            "  --key KEY        client key; default $PARE_KEY\n"
            "  --json           the report as one JSON object\n\n"
            "Examples:\n"
            "  pare replay examples/requests.jsonl\n"
            "  pare replay yesterday.jsonl --to http://127.0.0.1:8080 --concurrency 16 --rate 50 --json\n\n"
            "Exit: 0 every request was answered, 1 some were not\n"};

static bool read_line(const char *line, size_t n, const char *model, replay_request *out, err *e) {
    cJSON *object = json_parse(line, n, JSON_MAX_DEPTH, e);
    bool   ok = object && (cJSON_IsObject(object) || err_set(e, ERR_INVALID, "it is not a JSON object"));
    if (ok && model) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, "model");
        cJSON_AddStringToObject(object, "model", model);
    }
    if (ok) {
        str text = {0};
        ok = (json_write(object, &text) && !text.failed) || err_set(e, ERR_MEMORY, "out of memory");
        out->completion = cJSON_GetObjectItemCaseSensitive(object, "prompt") != NULL;
        out->stream = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "stream"));
        out->body = str_take(&text);
    }
    cJSON_Delete(object);
    return ok;
}

static bool read_lines(const str *text, const char *model, replay_plan *out, err *e) {
    int cap = 0;
    for (size_t at = 0, line = 1; at < text->len; line++) {
        const char *end = memchr(text->data + at, '\n', text->len - at);
        size_t      n = end ? (size_t)(end - (text->data + at)) : text->len - at;
        if (strspn(text->data + at, " \t\r") < n) {
            if (out->count == cap) {
                cap = cap ? cap * 2 : 256;
                replay_request *more = realloc(out->requests, (size_t)cap * sizeof *more);
                if (!more) {
                    return err_set(e, ERR_MEMORY, "Out of memory.");
                }
                out->requests = more;
            }
            replay_request *r = &out->requests[out->count];
            *r = (replay_request){0};
            if (!read_line(text->data + at, n, model, r, e)) {
                return err_prefix(e, "line %zu", line);
            }
            out->count++;
        }
        at += n + 1;
    }
    return out->count > 0 || err_set(e, ERR_INVALID, "there are no requests in it");
}

bool replay_read(const char *path, const char *model, replay_plan *out, err *e) {
    str  text = {0};
    bool ok = cli_read_file(path, &text, e) && (read_lines(&text, model, out, e) || err_prefix(e, "%s", path));
    str_free(&text);
    return ok;
}

void replay_free(replay_plan *p) {
    for (int i = 0; i < p->count; i++) {
        free(p->requests[i].body);
    }
    free(p->requests);
}

static int run(int argc, char **argv) {
    replay_run       r = {.url = "http://127.0.0.1:7273", .key = getenv("PARE_KEY"), .rate = 0};
    const char      *model = NULL, *words[1];
    int64_t          limit = 0, concurrency = 4;
    bool             helped, json = false;
    int              n_words;
    const option_row rows[] = {{"--to", OPTION_TEXT, &r.url},      {"--concurrency", OPTION_INT, &concurrency, 1, 4096},
                               {"--rate", OPTION_NUMBER, &r.rate}, {"--limit", OPTION_INT, &limit, 1, INT32_MAX},
                               {"--model", OPTION_TEXT, &model},   {"--key", OPTION_TEXT, &r.key},
                               {"--json", OPTION_FLAG, &json},     {0}};
    if (!cli_options(&command_replay, argc, argv, rows, words, 1, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words == 0) {
        return cli_usage(&command_replay, "Name a file of requests.");
    }
    err         e = {0};
    replay_plan plan = {0};
    int         failed = 0;
    r.concurrency = (int)concurrency;
    bool ok = replay_read(words[0], model, &plan, &e);
    if (ok && limit > 0 && limit < plan.count) {
        for (int i = (int)limit; i < plan.count; i++) {
            free(plan.requests[i].body);
        }
        plan.count = (int)limit;
    }
    r.results = ok ? calloc((size_t)plan.count, sizeof *r.results) : NULL;
    ok = ok && (r.results || err_set(&e, ERR_MEMORY, "Out of memory.")) && replay_go(&plan, &r, &e);
    if (ok) {
        replay_report(&plan, &r, json);
        for (int i = 0; i < plan.count; i++) {
            failed += !r.results[i].ok;
        }
    }
    free(r.results);
    replay_free(&plan);
    return !ok ? cli_fail(&e) : failed ? EXIT_FAILED : EXIT_DONE;
}
