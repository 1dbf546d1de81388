/* render.c - `pare render`: a chat template with its input, for checking it against jinja2. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "cli/cli.h"
#include "model/gguf.h"
#include "model/template/template.h"

static int run(int argc, char **argv);

const command command_render = {
    .name = "render",
    .summary = "a chat template with its input",
    .run = run,
    .help = "Usage: pare render (--template FILE | --model FILE) < input.json\n\n"
            "Every member of the input object is a variable of the template: messages, tools, add_generation_prompt,\n"
            "bos_token and so on. \"now\" sets the clock of strftime_now (2026-11-20T21:52:25).\n\n"
            "  --template FILE  a Jinja file\n"
            "  --model FILE     the template inside a GGUF file\n\n"
            "Example:\n"
            "  echo '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"add_generation_prompt\":true}' |\n"
            "    pare render --model storyteller.gguf\n"};

static bool read_now(cJSON *input, int64_t *now, err *e) {
    cJSON *member = cJSON_DetachItemFromObjectCaseSensitive(input, "now");
    *now = (int64_t)time(NULL);
    if (!member) {
        return true;
    }
    struct tm   t = {0};
    const char *end = cJSON_IsString(member) ? strptime(member->valuestring, "%Y-%m-%dT%H:%M:%S", &t) : NULL;
    bool        ok = cJSON_IsNumber(member) || (end && !*end);
    if (ok) {
        *now = cJSON_IsNumber(member) ? (int64_t)member->valuedouble : (int64_t)timegm(&t);
    }
    cJSON_Delete(member);
    return ok || err_set(e, ERR_INVALID, "\"now\" must be a time like 2026-11-20T21:52:25 or seconds since 1970.");
}

static bool read_template(const char *path, const char *model, str *source, err *e) {
    if (path) {
        return cli_read_file(path, source, e);
    }
    gguf    *g = gguf_open(model, e);
    gguf_str text;
    bool     ok = g && gguf_string(g, "tokenizer.chat_template", &text, e) && str_add(source, text.data, text.len);
    gguf_close(g);
    return ok;
}

static int run(int argc, char **argv) {
    const char      *path = NULL, *model = NULL;
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--template", OPTION_TEXT, &path}, {"--model", OPTION_TEXT, &model}, {0}};
    if (!cli_options(&command_render, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (!path == !model) {
        return cli_usage(&command_render, "Name either --template or --model.");
    }
    err            e = {0};
    str            source = {0}, in = {0}, out = {0};
    int64_t        now = 0;
    cJSON         *input = NULL;
    chat_template *t = NULL;
    bool           ok = read_template(path, model, &source, &e) && cli_read_file("-", &in, &e);
    if (ok) {
        input = json_parse(in.data ? in.data : "", in.len, JSON_MAX_DEPTH, &e);
        ok = input && (cJSON_IsObject(input) || err_set(&e, ERR_INVALID, "The input must be a JSON object.")) &&
             read_now(input, &now, &e);
    }
    if (ok) {
        t = template_compile(source.data ? source.data : "", source.len, &e);
        ok = t && template_render(t, input, now, &out, &e);
    }
    if (ok && out.len > 0) {
        fwrite(out.data, 1, out.len, stdout);
    }
    template_free(t);
    cJSON_Delete(input);
    str_free(&source);
    str_free(&in);
    str_free(&out);
    return ok ? EXIT_DONE : cli_fail(&e);
}
