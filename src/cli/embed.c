/* embed.c - `pare embed`: texts in, one vector a line out. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "engine/embed.h"
#include "engine/pooling.h"

#define MOST_WORDS  64
#define GROUP_TEXTS 2048 /* computed together, then printed */

static int run(int argc, char **argv);

const command command_embed = {
    .name = "embed",
    .summary = "texts in, one vector a line out",
    .run = run,
    .help =
        "Usage: pare embed MODEL [TEXT...] [--pooling HOW] [--dimensions N] [--raw] [--threads N]\n\n"
        "Prints the embedding of each TEXT, or of each line of standard input, as a JSON array on a line of its own.\n"
        "Vectors have the length 1, so that the dot product of two is their cosine.\n\n"
        "  MODEL           a GGUF file for embeddings, or a pulled model by its name\n"
        "  --pooling HOW   mean, cls or last, where the file does not say\n"
        "  --dimensions N  the first N values, scaled to length 1 again\n"
        "  --raw           as the model has them: of any length\n"
        "  --threads N     default one a core\n\n"
        "Examples:\n"
        "  pare embed all-minilm-l6-v2.gguf \"a cat\" \"a dog\"\n"
        "  pare embed bge-small.gguf < sentences.txt > vectors.jsonl\n"};

typedef struct job {
    model    *m;
    embedder *e;
    int       width, dimensions; /* 0: all */
    bool      raw;

    pthread_mutex_t lock;
    pthread_cond_t  change;
    bool            done;
    err             failed;
} job;

static void on_done(void *ctx, const embed_result *r) {
    job *j = ctx;
    pthread_mutex_lock(&j->lock);
    j->done = true;
    if (r->error) {
        j->failed = *r->error;
    }
    pthread_cond_signal(&j->change);
    pthread_mutex_unlock(&j->lock);
}

static bool compute(job *j, const embed_text *texts, int n, float *out, err *e) {
    embed_request r = {.texts = texts, .n_texts = n, .out = out, .done = on_done, .ctx = j};
    j->done = false;
    if (!embed_submit(j->e, &r, e)) {
        return false;
    }
    pthread_mutex_lock(&j->lock);
    while (!j->done) {
        pthread_cond_wait(&j->change, &j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return j->failed.code == ERR_NONE || err_set(e, j->failed.code, "%s", j->failed.text);
}

static bool print(const job *j, float *v, str *line, err *e) {
    int n = j->dimensions ? j->dimensions : j->width;
    if (!j->raw) {
        pooling_unit(v, n);
    }
    str_clear(line);
    for (int i = 0; i < n; i++) {
        str_addf(line, "%s%.9g", i ? "," : "[", (double)v[i]);
    }
    str_adds(line, "]\n");
    return (!line->failed && fwrite(line->data, 1, line->len, stdout) == line->len) ||
           err_set(e, ERR_IO, "The output could not be written.");
}

typedef struct text {
    const char *from;
    size_t      n;
} text;

static bool make_tokens(const job *j, const text *t, int number, token_ids *out, err *e) {
    return (tokenizer_encode(j->m->tokens, t->from, t->n, (encode_options){.add_special = true}, out, e) &&
            (out->count <= (size_t)embed_context(j->e) ||
             err_set(e, ERR_CONTEXT, "it has %zu tokens, the context of %s holds %d", out->count, j->m->name,
                     embed_context(j->e)))) ||
           err_prefix(e, "text %d", number);
}

/* Texts first .. first + n - 1. */
static bool embed_group(job *j, const text *texts, int first, int n, err *e) {
    token_ids  *ids = calloc((size_t)n, sizeof *ids);
    embed_text *list = calloc((size_t)n, sizeof *list);
    float      *out = malloc((size_t)n * (size_t)j->width * sizeof *out);
    str         line = {0};
    bool        ok = (ids && list && out) || err_set(e, ERR_MEMORY, "Out of memory for %d texts.", n);
    for (int i = 0; ok && i < n; i++) {
        ok = make_tokens(j, &texts[i], first + i + 1, &ids[i], e);
        list[i] = (embed_text){ids[i].ids, (int)ids[i].count};
    }
    ok = ok && compute(j, list, n, out, e);
    for (int i = 0; ok && i < n; i++) {
        ok = print(j, out + (size_t)i * (size_t)j->width, &line, e);
    }
    for (int i = 0; ids && i < n; i++) {
        token_ids_free(&ids[i]);
    }
    free(ids);
    free(list);
    free(out);
    str_free(&line);
    return ok;
}

static bool embed_lines(job *j, const str *in, err *e) {
    text  *group = malloc(GROUP_TEXTS * sizeof *group);
    size_t at = 0;
    int    first = 0, n = 0;
    bool   ok = group || err_set(e, ERR_MEMORY, "Out of memory.");
    while (ok && at < in->len) {
        const char *end = memchr(in->data + at, '\n', in->len - at);
        size_t      next = end ? (size_t)(end - in->data) + 1 : in->len;
        group[n++] = (text){in->data + at, (end ? next - 1 : next) - at};
        at = next;
        if (n == GROUP_TEXTS || at >= in->len) {
            ok = embed_group(j, group, first, n, e);
            first += n;
            n = 0;
        }
    }
    free(group);
    return ok;
}

static bool embed_words(job *j, const char **words, int n, err *e) {
    text list[MOST_WORDS];
    for (int i = 0; i < n; i++) {
        list[i] = (text){words[i], strlen(words[i])};
    }
    return embed_group(j, list, 0, n, e);
}

static bool open_model(job *j, const char *path, pool *p, pooling how, err *e) {
    j->m = p ? model_open(path, NULL, 0, p, e) : NULL;
    if (!j->m) {
        return false;
    }
    if (!j->m->tokens) {
        return err_set(e, ERR_INVALID, "%s has no tokenizer.", j->m->name);
    }
    if (j->m->shape.pooling == POOLING_RANK) {
        return err_set(e, ERR_UNSUPPORTED, "%s scores documents and has no embeddings.", j->m->name);
    }
    j->e = embed_open(j->m, p, &(embed_options){.pooling = how, .kv = KV_F32}, e);
    j->width = j->e ? embed_width(j->e) : 0;
    return j->e && (j->dimensions <= j->width || err_set(e, ERR_INVALID, "The vectors of %s have %d values, not %d.",
                                                         j->m->name, j->width, j->dimensions));
}

static int embed(job *j, const char *path, const char **words, int n, pooling how, int threads) {
    err   e = {0};
    str   in = {0};
    pool *p = pool_new(threads, &e);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->change, NULL);
    bool ok = open_model(j, path, p, how, &e);
    if (ok && n > 0) {
        ok = embed_words(j, words, n, &e);
    } else if (ok) {
        ok = cli_read_file("-", &in, &e) && embed_lines(j, &in, &e);
    }
    embed_close(j->e);
    model_close(j->m);
    if (p) {
        pool_free(p);
    }
    str_free(&in);
    pthread_cond_destroy(&j->change);
    pthread_mutex_destroy(&j->lock);
    return ok ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    const char *words[MOST_WORDS + 1], *pool_name = NULL;
    char        path[4096];
    int         n_words;
    int64_t     threads = 0, dimensions = 0;
    bool        helped;
    err         e = {0};
    job         j = {0};
    pooling     how = POOLING_NONE;
    option_row  rows[] = {{"--pooling", OPTION_TEXT, &pool_name},
                          {"--dimensions", OPTION_INT, &dimensions, 1, 1 << 20},
                          {"--raw", OPTION_FLAG, &j.raw},
                          {"--threads", OPTION_INT, &threads, 0, 512},
                          {0}};
    if (!cli_options(&command_embed, argc, argv, rows, words, MOST_WORDS + 1, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words < 1) {
        return cli_usage(&command_embed, "Name a model.");
    }
    if (pool_name && !pooling_named(pool_name, &how)) {
        return cli_usage(&command_embed, "--pooling takes mean, cls or last, not \"%s\".", pool_name);
    }
    const char *model = cli_model(words[0], path, sizeof path, &e);
    j.dimensions = (int)dimensions;
    return model ? embed(&j, model, words + 1, n_words - 1, how, (int)threads) : cli_fail(&e);
}
