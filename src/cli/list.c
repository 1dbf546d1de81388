/* list.c - `pare list`: the models in DATA/models. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "model/gguf.h"
#include "store/models.h"

static int run(int argc, char **argv);

const command command_list = {.name = "list",
                              .summary = "the models that were pulled",
                              .run = run,
                              .help =
                                  "Usage: pare list [OPTIONS]\n\n"
                                  "Shows the models in DATA/models: name, size, type, age and where each came from.\n\n"
                                  "  --data DIR   default $XDG_DATA_HOME/pare, as `pare serve`\n"
                                  "  --json       for scripts\n\n"
                                  "Examples:\n"
                                  "  pare list\n"
                                  "  pare list --json | jq -r '.[].name'\n"};

/* The type from the file's name; from its tensors (the format with the most bytes) when the name is silent. */
static void type_of(const char *data, const model_file *m, char *out, size_t size) {
    char path[4096];
    err  ignored = {0};
    model_type_of(m->source, out, size);
    if (!out[0]) {
        model_type_of(m->name, out, size);
    }
    if (out[0] || m->partial || !models_find(data, m->name, path, sizeof path, &ignored)) {
        return;
    }
    gguf *g = gguf_open(path, &ignored);
    if (!g) {
        return;
    }
    size_t most = 0, bytes[64] = {0};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->format && t->type >= 0 && t->type < 64 && (bytes[t->type] += t->bytes) > most) {
            most = bytes[t->type];
            snprintf(out, size, "%s", t->format->name);
        }
    }
    gguf_close(g);
    for (char *p = out; *p; p++) {
        *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
    }
}

static void age_of(int64_t us, char *out, size_t size) {
    int64_t s = (clock_wall_us() - us) / 1000000;
    s = s > 0 ? s : 0;
    if (s < 120) {
        snprintf(out, size, "%lld s", (long long)s);
    } else if (s < 7200) {
        snprintf(out, size, "%lld min", (long long)s / 60);
    } else if (s < 172800) {
        snprintf(out, size, "%lld h", (long long)s / 3600);
    } else {
        snprintf(out, size, "%lld d", (long long)s / 86400);
    }
}

static void add_json(str *out, const model_file *m, const char *type) {
    str_addf(out, "%s{\"name\":", out->len > 1 ? "," : "");
    str_jsons(out, m->name);
    str_addf(out, ",\"size\":%lld,\"type\":", (long long)m->size);
    str_jsons(out, type[0] ? type : NULL);
    str_adds(out, ",\"source\":");
    str_jsons(out, m->source[0] ? m->source : NULL);
    str_adds(out, ",\"sha256\":");
    str_jsons(out, m->sha256[0] ? m->sha256 : NULL);
    str_addf(out, ",\"modified\":%lld,\"partial\":%s}", (long long)m->modified_us / 1000000,
             m->partial ? "true" : "false");
}

static void add_row(str *out, const model_file *m, const char *type) {
    char age[32];
    age_of(m->modified_us, age, sizeof age);
    str_addf(out, "%-40s %9.1f MB  %-8s %8s  %s\n", m->name, (double)m->size / 1e6, type[0] ? type : "-", age,
             m->partial     ? "(unfinished: pull it again to go on)"
             : m->source[0] ? m->source
                            : "-");
}

static int list(const char *data, bool json) {
    err        e = {0};
    model_list l;
    str        out = {0};
    if (!models_list(data, &l, &e)) {
        return cli_fail(&e);
    }
    if (json) {
        str_addc(&out, '[');
    } else if (l.n > 0) {
        str_addf(&out, "%-40s %12s  %-8s %8s  %s\n", "name", "size", "type", "age", "source");
    } else {
        fputs("No model was pulled yet; see pare pull --help.\n", stderr);
    }
    for (size_t i = 0; i < l.n; i++) {
        char type[32] = "";
        type_of(data, &l.items[i], type, sizeof type);
        (json ? add_json : add_row)(&out, &l.items[i], type);
    }
    if (json) {
        str_adds(&out, "]\n");
    }
    if (out.data) {
        fwrite(out.data, 1, out.len, stdout);
    }
    str_free(&out);
    models_list_free(&l);
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    const char      *data = NULL;
    char             usual[4096];
    bool             json = false, helped;
    int              n_words;
    const option_row rows[] = {{"--data", OPTION_TEXT, &data}, {"--json", OPTION_FLAG, &json}, {0}};
    if (!cli_options(&command_list, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    cli_data_dir(usual, sizeof usual);
    return list(data ? data : usual, json);
}
