/* import.c - `pare import`: a Hugging Face folder becomes a GGUF file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "model/import/import.h"

static int run(int argc, char **argv);

const command command_import = {
    .name = "import",
    .summary = "a GGUF file from a Hugging Face model folder",
    .run = run,
    .help = "Usage: pare import DIR [--out FILE.gguf] [--type TYPE] [--name NAME] [OPTIONS]\n\n"
            "DIR holds config.json, the tokenizer (tokenizer.json or tokenizer.model) and *.safetensors.\n\n"
            "  -o, --out F     the file to write; it appears when it is whole and is read back afterwards\n"
            "                  (default: NAME-TYPE.gguf here)\n"
            "  --type TYPE     f32, f16, bf16 or q8_0 for all matrices; auto: as they are stored (default)\n"
            "  --name NAME     the model's name in the file (default: the folder's)\n"
            "  --context N     say a shorter context than config.json's\n"
            "  --ignore KEYS   members of config.json, with commas, that pare does not know and that change nothing\n"
            "  --no-tokenizer  leave the vocabulary out\n"
            "  --dry-run       check everything, write nothing\n"
            "  --json          what was done as JSON\n\n"
            "Examples:\n"
            "  pare import Qwen3-0.6B\n"
            "  pare import Qwen3-0.6B --type q8_0 -o qwen3-0.6b-q8_0.gguf\n"};

static void progress(void *arg, const char *what, int64_t done, int64_t total) {
    (void)arg;
    cli_progress(what, total > 0 ? (double)done / (double)total : 0);
}

static void print_json(const import_report *r, bool dry_run) {
    str out = {0};
    str_adds(&out, "{\"file\":");
    str_jsons(&out, r->path.data);
    str_addf(&out, ",\"written\":%s,\"architecture\":", dry_run ? "false" : "true");
    str_jsons(&out, r->arch);
    str_adds(&out, ",\"type\":");
    str_jsons(&out, r->type);
    str_addf(&out,
             ",\"layers\":%" PRId64 ",\"context\":%" PRId64 ",\"tensors\":%" PRId64 ",\"parameters\":%" PRId64
             ",\"tensor_bytes\":%" PRId64 ",\"tokens\":%" PRId64 ",\"tokenizer\":",
             r->layers, r->context, r->tensors, r->parameters, r->bytes, r->tokens);
    str_jsons(&out, r->tokenizer[0] ? r->tokenizer : NULL);
    str_adds(&out, ",\"pre\":");
    str_jsons(&out, r->pre[0] ? r->pre : NULL);
    if (!dry_run) {
        str_addf(&out, ",\"runs\":%s", r->runs ? "true" : "false");
        if (!r->runs) {
            str_adds(&out, ",\"why_not\":");
            str_jsons(&out, r->why_not);
        }
    }
    str_adds(&out, ",\"notes\":[");
    const char *line = r->notes.data;
    for (bool first = true; line && *line; first = false) {
        size_t n = strcspn(line, "\n");
        if (!first)
            str_addc(&out, ',');
        str_json(&out, line, n);
        line += n + (line[n] == '\n');
    }
    str_adds(&out, "]}");
    if (!out.failed)
        puts(out.data);
    str_free(&out);
}

static void print_text(const import_report *r, bool dry_run) {
    printf("%s %s: %s, %" PRId64 " layers, %" PRId64 " tensors, %.2f billion parameters, %s, %.1f MB\n",
           dry_run ? "would write" : "wrote", r->path.data, r->arch, r->layers, r->tensors, (double)r->parameters / 1e9,
           r->type, (double)r->bytes / 1e6);
    if (r->tokenizer[0])
        printf("vocabulary: %" PRId64 " tokens, %s (%s)\n", r->tokens, r->tokenizer, r->pre);
    if (r->notes.data)
        fprintf(stderr, "%s", r->notes.data);
    if (!dry_run && !r->runs)
        fprintf(stderr, "pare itself does not run this file yet: %s\n", r->why_not);
}

enum { MAX_IGNORED = 32 };

/* "a,b" as names; cuts the copy up. */
static int split_names(char *list, const char **names) {
    int count = 0;
    for (char *save = NULL, *p = strtok_r(list, ",", &save); p && count < MAX_IGNORED; p = strtok_r(NULL, ",", &save))
        names[count++] = p;
    return count;
}

static int run(int argc, char **argv) {
    import_options   o = {.progress = progress};
    const char      *words[1], *ignored[MAX_IGNORED], *ignore = NULL;
    bool             json = false, helped;
    int              n_words = 0;
    const option_row rows[] = {{"--out", OPTION_TEXT, &o.out},
                               {"--type", OPTION_TEXT, &o.type},
                               {"--name", OPTION_TEXT, &o.name},
                               {"--context", OPTION_INT, &o.context, 1, 1 << 24},
                               {"--ignore", OPTION_TEXT, &ignore},
                               {"--no-tokenizer", OPTION_FLAG, &o.no_tokenizer},
                               {"--dry-run", OPTION_FLAG, &o.dry_run},
                               {"--json", OPTION_FLAG, &json},
                               {0}};
    if (!cli_options(&command_import, argc, argv, rows, words, 1, &n_words, &helped))
        return EXIT_USAGE;
    if (helped)
        return EXIT_DONE;
    if (n_words != 1)
        return cli_usage(&command_import, "a model folder is needed.");
    char *copy = ignore ? strdup(ignore) : NULL;
    o.dir = words[0];
    o.ignore = ignored;
    o.ignore_count = copy ? split_names(copy, ignored) : 0;
    import_report r;
    err           e = {0};
    bool          ok = import_folder(&o, &r, &e);
    cli_progress_end();
    if (ok && json)
        print_json(&r, o.dry_run);
    else if (ok)
        print_text(&r, o.dry_run);
    import_report_free(&r);
    free(copy);
    return ok ? EXIT_DONE : cli_fail(&e);
}
