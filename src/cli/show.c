/* show.c - `pare show`: what is in a model file, and what it needs to run. */
#include "cli/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "serve/assets.h"

static int run(int argc, char **argv);

const command command_show = {
    .name = "show",
    .summary = "what is in a model file, and the memory it needs",
    .run = run,
    .help =
        "Usage: pare show MODEL [--tensors] [--metadata] [--json]\n"
        "       pare show MODEL --tensor NAME --out FILE\n\n"
        "MODEL is a GGUF file of any architecture, the name of a model that `pare pull` has fetched, or\n"
        "\"storyteller\", the bundled one.\n\n"
        "  --tensors      every tensor with its type and shape (the row length first)\n"
        "  --metadata     every key with its value; long lists and texts are shortened\n"
        "  --json         one JSON object\n"
        "  --tensor NAME  writes this tensor's exact values as little-endian float32, rows as they lie in the file\n"
        "  -o, --out F    where they go; - is standard output\n\n"
        "The memory table is what one chat takes in all (weights, keys and values, working memory) when it fills the\n"
        "context, for each way to keep keys and values; a server's further chats add keys and values each.\n\n"
        "Examples:\n"
        "  pare show llama-1b.gguf\n"
        "  pare show storyteller --tensors --metadata\n"
        "  pare show llama-1b.gguf --tensor blk.0.attn_q.weight --out q.f32\n"};

enum { KV_TYPES = 3, MOST_CONTEXTS = 4 };
static const kv_type kv_types[KV_TYPES] = {KV_F16, KV_Q8_0, KV_Q4_0};

/* 2k, 8k, 32k and the model's own; none longer than that. */
static int choose_contexts(const shown_model *m, int64_t *out) {
    static const int64_t usual[] = {2048, 8192, 32768};
    int                  n = 0;
    for (int i = 0; i < 3; i++) {
        if (usual[i] < m->shape.context) {
            out[n++] = usual[i];
        }
    }
    out[n++] = m->shape.context;
    return n;
}

/* ---- for people ---- */

static void add_line(str *s, const char *what, gguf_str text) {
    if (text.data && text.len) {
        str_addf(s, "%-16s", what);
        show_text(s, text, 200);
        str_addc(s, '\n');
    }
}

static void add_count(str *s, const char *what, int64_t n) {
    if (n) {
        str_addf(s, "%-16s%" PRId64 "\n", what, n);
    }
}

static void add_parameters(const shown_model *m, str *s) {
    double n = (double)m->parameters;
    str_addf(s, "%-16s%" PRId64, "parameters", m->parameters);
    if (n >= 1e6) {
        str_addf(s, " (%.3g %s)", n >= 1e9 ? n / 1e9 : n / 1e6, n >= 1e9 ? "billion" : "million");
    }
    str_addf(s, "\n%-16s%zu bytes, weights %zu", "size", gguf_bytes(m->g), m->tensor_bytes);
    if (m->parameters) {
        str_addf(s, " (%.2f bits a weight)", 8.0 * (double)m->tensor_bytes / n);
    }
    str_addf(s, "\n%-16s", "types");
    for (int i = 0; i < m->n_types; i++) {
        const shown_type *t = &m->types[i];
        str_adds(s, i ? ", " : "");
        if (t->name) {
            str_addf(s, "%s %zu (%.1f %%)", t->name, t->tensors,
                     m->tensor_bytes ? 100.0 * (double)t->bytes / (double)m->tensor_bytes : 0);
        } else {
            str_addf(s, "unknown type %d %zu", t->number, t->tensors);
        }
    }
    str_adds(s, m->n_types ? " of the bytes\n" : "none: a vocabulary only\n");
}

static void add_tokenizer(const shown_model *m, str *s) {
    if (m->tokenizer.data) {
        str_addf(s, "%-16s", "tokenizer");
        show_text(s, m->tokenizer, 40);
        if (m->pre.data) {
            str_adds(s, ", ");
            show_text(s, m->pre, 40);
        }
        str_addf(s, ", %zu tokens", m->vocabulary);
        str_addf(s, m->tokenizer_works ? "%s\n" : "; pare cannot use it: %s\n", m->tokenizer_why);
    }
    str_addf(s, "%-16s", "chat template");
    str_addf(s,
             !m->chat_template ? "none%s\n"
             : m->chat_works   ? "yes%s\n"
                               : "yes; pare cannot use it: %s\n",
             m->chat_why);
}

static void add_memory(const shown_model *m, str *s) {
    int64_t contexts[MOST_CONTEXTS];
    int     n = choose_contexts(m, contexts);
    str_addf(s, "\nmemory for one chat, MB\n%12s %10s %10s", "context", "weights", "working");
    for (int k = 0; k < KV_TYPES; k++) {
        str_addf(s, "     kv %-4s (in all)", kv_type_name(kv_types[k]));
    }
    str_addc(s, '\n');
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < KV_TYPES; k++) {
            show_need need;
            bool      fits = show_memory(m, kv_types[k], contexts[i], &need);
            if (k == 0) {
                str_addf(s, "%12" PRId64 " %10.1f %10.1f", contexts[i], (double)need.weights / 1e6,
                         (double)need.working / 1e6);
            }
            if (fits) {
                str_addf(s, " %10.1f (%8.1f)", (double)need.kv / 1e6,
                         (double)(need.weights + need.kv + need.working) / 1e6);
            } else {
                str_addf(s, " %21s", "-");
            }
        }
        str_addc(s, '\n');
    }
}

static void add_people(const shown_model *m, bool tensors, bool metadata, str *s) {
    add_line(s, "name", m->name);
    add_line(s, "architecture", m->architecture);
    add_line(s, "size label", m->size_label);
    add_line(s, "license", m->license);
    add_parameters(m, s);
    add_count(s, "context", m->context);
    add_count(s, "layers", m->layers);
    add_count(s, "embedding", m->dim);
    if (m->heads) {
        str_addf(s, "%-16s%" PRId64 ", %" PRId64 " for keys and values\n", "heads", m->heads, m->kv_heads);
    }
    add_count(s, "feed forward", m->ffn);
    if (m->experts) {
        str_addf(s, "%-16s%" PRId64 ", %" PRId64 " at a time\n", "experts", m->experts, m->experts_used);
    }
    add_tokenizer(m, s);
    str_addf(s, m->runs ? "%-16syes%s\n" : "%-16sno: %s\n", "pare runs it", m->why_not);
    if (m->runs) {
        add_memory(m, s);
    }
    if (metadata) {
        str_addf(s, "\nmetadata, %zu keys\n", gguf_key_count(m->g));
        show_metadata(m->g, false, s);
    }
    if (tensors) {
        str_addf(s, "\ntensors, %zu\n", gguf_tensor_count(m->g));
        show_tensors(m->g, false, s);
    }
}

/* ---- as JSON ---- */

static void json_text(str *s, const char *key, gguf_str text) {
    str_addf(s, ",\"%s\":", key);
    if (text.data) {
        show_json_text(s, text);
    } else {
        str_adds(s, "null");
    }
}

static void json_sentence(str *s, const char *key, const char *text) {
    if (text[0]) {
        json_text(s, key, (gguf_str){text, strlen(text)});
    }
}

static void json_types(const shown_model *m, str *s) {
    str_adds(s, ",\"types\":[");
    for (int i = 0; i < m->n_types; i++) {
        const shown_type *t = &m->types[i];
        str_addf(s, "%s{\"type\":", i ? "," : "");
        str_jsons(s, t->name);
        str_addf(s, ",\"number\":%d,\"tensors\":%zu,\"parameters\":%" PRId64 ",\"bytes\":%zu}", t->number, t->tensors,
                 t->values, t->bytes);
    }
    str_adds(s, "]");
}

static void json_memory(const shown_model *m, str *s) {
    int64_t contexts[MOST_CONTEXTS];
    int     n = choose_contexts(m, contexts);
    bool    first = true;
    str_adds(s, ",\"memory\":[");
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < KV_TYPES; k++) {
            show_need need;
            if (show_memory(m, kv_types[k], contexts[i], &need)) {
                str_addf(s,
                         "%s{\"context\":%" PRId64
                         ",\"kv\":\"%s\",\"weights\":%zu,\"kv_bytes\":%zu,\"working\":%zu,\"total\":%zu}",
                         first ? "" : ",", contexts[i], kv_type_name(kv_types[k]), need.weights, need.kv, need.working,
                         need.weights + need.kv + need.working);
                first = false;
            }
        }
    }
    str_adds(s, "]");
}

static void add_json(const shown_model *m, bool tensors, bool metadata, str *s) {
    str_adds(s, "{\"file\":");
    show_json_text(s, (gguf_str){m->path, strlen(m->path)});
    json_text(s, "name", m->name);
    json_text(s, "architecture", m->architecture);
    json_text(s, "size_label", m->size_label);
    json_text(s, "license", m->license);
    str_addf(s, ",\"runs\":%s", m->runs ? "true" : "false");
    json_sentence(s, "why_not", m->why_not);
    str_addf(s, ",\"parameters\":%" PRId64 ",\"file_bytes\":%zu,\"weight_bytes\":%zu,\"bits_per_weight\":%.4f",
             m->parameters, gguf_bytes(m->g), m->tensor_bytes,
             m->parameters ? 8.0 * (double)m->tensor_bytes / (double)m->parameters : 0);
    json_types(m, s);
    str_addf(s,
             ",\"context\":%" PRId64 ",\"layers\":%" PRId64 ",\"embedding\":%" PRId64 ",\"heads\":%" PRId64
             ",\"kv_heads\":%" PRId64 ",\"feed_forward\":%" PRId64 ",\"experts\":%" PRId64 ",\"experts_used\":%" PRId64,
             m->context, m->layers, m->dim, m->heads, m->kv_heads, m->ffn, m->experts, m->experts_used);
    str_addf(s, ",\"vocabulary\":%zu", m->vocabulary);
    json_text(s, "tokenizer", m->tokenizer);
    json_text(s, "pre_tokenizer", m->pre);
    str_addf(s, ",\"tokenizer_works\":%s", m->tokenizer_works ? "true" : "false");
    json_sentence(s, "tokenizer_why_not", m->tokenizer_why);
    str_addf(s, ",\"chat_template\":%s,\"chat_template_works\":%s", m->chat_template ? "true" : "false",
             m->chat_works ? "true" : "false");
    json_sentence(s, "chat_template_why_not", m->chat_why);
    if (m->runs) {
        json_memory(m, s);
    }
    if (metadata) {
        show_metadata(m->g, true, s);
    }
    if (tensors) {
        show_tensors(m->g, true, s);
    }
    str_adds(s, "}\n");
}

/* ---- options ---- */

typedef struct choices {
    const char *model, *tensor, *out;
    bool        tensors, metadata, json;
} choices;

static gguf *open_file(const char *name, bool *bundled, err *e) {
    char         path[4096];
    const asset *a =
        strcmp(name, "storyteller") == 0 && access(name, F_OK) != 0 ? asset_find("models/storyteller.gguf") : NULL;
    if (a) {
        *bundled = true;
        return gguf_open_memory(name, a->data, a->size, e);
    }
    const char *file = cli_model(name, path, sizeof path, e);
    return file ? gguf_open(file, e) : NULL;
}

static bool show(const choices *c, err *e) {
    static shown_model m;
    bool               bundled = false;
    gguf              *g = open_file(c->model, &bundled, e);
    if (!g) {
        return false;
    }
    bool ok;
    if (c->tensor) {
        ok = show_write_values(g, c->tensor, c->out, e);
    } else {
        str s = {0};
        show_read(g, c->model, &m);
        m.bundled = bundled;
        (c->json ? add_json : add_people)(&m, c->tensors, c->metadata, &s);
        ok = !s.failed || err_set(e, ERR_MEMORY, "Out of memory.");
        if (ok) {
            fwrite(s.data, 1, s.len, stdout);
        }
        str_free(&s);
    }
    gguf_close(g);
    return ok;
}

static int run(int argc, char **argv) {
    choices          c = {0};
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--tensors", OPTION_FLAG, &c.tensors}, {"--metadata", OPTION_FLAG, &c.metadata},
                               {"--json", OPTION_FLAG, &c.json},       {"--tensor", OPTION_TEXT, &c.tensor},
                               {"--out", OPTION_TEXT, &c.out},         {0}};
    if (!cli_options(&command_show, argc, argv, rows, &c.model, 1, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words == 0) {
        return cli_usage(&command_show, "Name a model: a GGUF file, or storyteller.");
    }
    if (!c.tensor != !c.out) {
        return cli_usage(&command_show, "--tensor and --out go together.");
    }
    err e = {0};
    return show(&c, &e) ? EXIT_DONE : cli_fail(&e);
}
