/* logits.c - `pare logits`: the logits of every position, or the last rows of a model that has none, for checking the
 * engine against others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "engine/pooling.h"

#define CHUNK 64

static int run(int argc, char **argv);

const command command_logits = {
    .name = "logits",
    .summary = "the logits of every position of given token ids",
    .run = run,
    .help =
        "Usage: pare logits --model FILE --tokens FILE.json --out FILE.f32 [--pool HOW] [--kv TYPE] [--threads N]\n\n"
        "The tokens are one list of ids or a list of lists; each list runs from an empty cache. The output is\n"
        "little-endian float32 [n_tokens, n_vocab], all positions of the first list, then of the second, and so on. A\n"
        "model for embeddings has no logits: its rows are those of the last layer, [n_tokens, dim].\n\n"
        "  --model FILE   a GGUF file\n"
        "  --tokens FILE  JSON; - is standard input\n"
        "  --out FILE     where the numbers go\n"
        "  --pool HOW     the rows of each list as one vector, not scaled: mean, cls or last; [n_lists, dim]\n"
        "  --kv TYPE      how keys and values are kept: f16 (default), f32 for exact comparison, q8_0, q4_0\n"
        "  --threads N    default one a core\n\n"
        "Example:\n"
        "  echo '[[1,2,3],[4,5]]' | pare logits --model m.gguf --tokens - --out logits.f32 --kv f32\n"};

typedef struct job {
    const model *m;
    forward     *f;
    int          room; /* tokens of f */
    pooling      pool; /* NONE: all rows */
    kv_type      type;
    pool        *p;
    FILE        *out;
} job;

static bool read_ids(const job *j, const cJSON *list, int number, int32_t *ids, err *e) {
    int          at = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (id < 0 || id >= j->m->shape.vocab || id != (double)(int32_t)id) {
            return err_set(e, ERR_INVALID, "Token %d of list %d is not an id from 0 to %d.", at, number,
                           j->m->shape.vocab - 1);
        }
        ids[at++] = (int32_t)id;
    }
    return true;
}

static bool put(job *j, const float *values, size_t n, err *e) {
    return fwrite(values, sizeof(float), n, j->out) == n ||
           err_set(e, ERR_IO, "The output could not be written; is the disk full?");
}

/* One row of `width` values a token; what looks both ways has all of a list in one pass. `rows`: where they are gathered
 * for pooling, [n][width], or NULL. */
static bool run_ids(job *j, kv_cache *kv, const int32_t *ids, int n, int width, forward_token *batch, float *rows,
                    err *e) {
    for (int at = 0, count; at < n; at += count) {
        count = n - at < j->room ? n - at : j->room;
        for (int i = 0; i < count; i++) {
            batch[i] = (forward_token){.id = ids[at + i], .position = at + i, .logits = true};
        }
        if (!kv_reserve(kv, 0, at + count)) {
            return err_set(e, ERR_INTERNAL, "The cache has no room for token %d of %d; this is a bug.", at, n);
        }
        size_t       values = (size_t)count * (size_t)width;
        const float *got = rows ? forward_rows(j->f, kv, batch, count) : forward_run(j->f, kv, batch, count);
        if (rows) {
            memcpy(rows + (size_t)at * (size_t)width, got, values * sizeof(float));
        } else if (!put(j, got, values, e)) {
            return false;
        }
        kv_commit(kv, 0, at + count);
    }
    return true;
}

static bool run_tokens(job *j, kv_cache *kv, const int32_t *ids, int n, err *e) {
    const model_shape *s = &j->m->shape;
    int                width = s->headless || j->pool ? s->dim : s->vocab;
    size_t             pooled = j->pool ? ((size_t)n + 1) * (size_t)width : 0; /* the rows, and their vector */
    forward_token     *batch = malloc((size_t)j->room * sizeof *batch);
    float             *rows = pooled ? malloc(pooled * sizeof *rows) : NULL;
    bool               ok = (batch && (rows || !pooled)) || err_set(e, ERR_MEMORY, "Out of memory for %d tokens.", n);
    ok = ok && run_ids(j, kv, ids, n, width, batch, rows, e);
    if (ok && rows) {
        float *vector = rows + (size_t)n * (size_t)width;
        pooling_rows(j->pool, rows, n, width, vector);
        ok = put(j, vector, (size_t)width, e);
    }
    free(rows);
    free(batch);
    return ok;
}

static bool run_list(job *j, const cJSON *list, int number, err *e) {
    int n = cJSON_GetArraySize(list);
    if (n == 0) {
        return err_set(e, ERR_INVALID, "List %d of the tokens is empty.", number);
    }
    if (n > j->m->shape.context) {
        return err_set(e, ERR_CONTEXT, "List %d has %d tokens; the context of %s holds %d.", number, n, j->m->name,
                       j->m->shape.context);
    }
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (!ids) {
        return err_set(e, ERR_MEMORY, "Out of memory for %d tokens.", n);
    }
    kv_options o = {.type = j->type, .sequences = 1, .context = n, .step_tokens = j->room};
    kv_cache  *kv = read_ids(j, list, number, ids, e) ? kv_open(&j->m->shape, &o, e) : NULL;
    bool       ok = kv != NULL;
    if (ok) {
        kv_begin(kv, 0, (kv_scope){0}, ids, n, false);
        ok = run_tokens(j, kv, ids, n, e);
        kv_release(kv, 0);
    }
    kv_close(kv);
    free(ids);
    return ok;
}

static bool run_all(job *j, const cJSON *tokens, err *e) {
    if (!cJSON_IsArray(tokens) || !tokens->child) {
        return err_set(e, ERR_INVALID, "The tokens must be a list of ids or a list of lists.");
    }
    if (!cJSON_IsArray(tokens->child)) {
        return run_list(j, tokens, 0, e);
    }
    int number = 0;
    for (const cJSON *list = tokens->child; list; list = list->next, number++) {
        if (!cJSON_IsArray(list)) {
            return err_set(e, ERR_INVALID, "Item %d of the tokens is not a list.", number);
        }
        if (!run_list(j, list, number, e)) {
            return false;
        }
    }
    return true;
}

static int longest(const cJSON *tokens) {
    int          most = 1;
    const cJSON *list;
    if (tokens && !cJSON_IsArray(tokens->child)) {
        return cJSON_GetArraySize(tokens);
    }
    cJSON_ArrayForEach(list, tokens) {
        int n = cJSON_GetArraySize(list);
        most = n > most ? n : most;
    }
    return most;
}

/* A pass for the longest list: in one piece where it must be, and as a model of two contexts (LongRoPE) takes it. */
static bool open_pass(job *j, const cJSON *tokens, err *e) {
    int most = longest(tokens);
    most = most < j->m->shape.context ? most : j->m->shape.context;
    most = most > 1 ? most : 1;
    j->room = j->m->shape.causal ? CHUNK : most;
    j->f = forward_new(j->m, j->p, j->room, j->m->shape.headless ? 1 : CHUNK, e);
    if (j->f) {
        forward_set_context(j->f, most);
    }
    return j->f != NULL;
}

static int compute(const char *path, const char *tokens_path, const char *out_path, kv_type type, pooling pool,
                   int threads) {
    err    e = {0};
    str    text = {0};
    job    j = {.type = type, .pool = pool};
    model *m = NULL;
    cJSON *tokens = NULL;
    bool   ok = cli_read_file(tokens_path, &text, &e);
    if (ok) {
        tokens = json_parse(text.data ? text.data : "", text.len, JSON_MAX_DEPTH, &e);
        ok = tokens || err_prefix(&e, "%s", tokens_path);
    }
    j.p = ok ? pool_new(threads, &e) : NULL;
    m = j.p ? model_open(path, NULL, 0, j.p, &e) : NULL;
    j.m = m;
    if (m && open_pass(&j, tokens, &e)) {
        j.out = fopen(out_path, "wb");
        ok = j.out ? run_all(&j, tokens, &e) : err_set(&e, ERR_IO, "%s cannot be written.", out_path);
        if (j.out && fclose(j.out) != 0 && ok) {
            ok = err_set(&e, ERR_IO, "%s could not be written; is the disk full?", out_path);
        }
    }
    ok = ok && j.f;
    forward_free(j.f);
    model_close(m);
    if (j.p) {
        pool_free(j.p);
    }
    cJSON_Delete(tokens);
    str_free(&text);
    return ok ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    const char      *path = NULL, *tokens = NULL, *out = NULL, *kv = "f16", *pool = NULL;
    int64_t          threads = 0;
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--model", OPTION_TEXT, &path},
                               {"--tokens", OPTION_TEXT, &tokens},
                               {"--out", OPTION_TEXT, &out},
                               {"--kv", OPTION_TEXT, &kv},
                               {"--pool", OPTION_TEXT, &pool},
                               {"--threads", OPTION_INT, &threads, 0, 512},
                               {0}};
    if (!cli_options(&command_logits, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (!path || !tokens || !out) {
        return cli_usage(&command_logits, "--model, --tokens and --out are needed.");
    }
    kv_type type;
    if (!kv_type_named(kv, &type)) {
        return cli_usage(&command_logits, "--kv takes f16, f32, q8_0 or q4_0, not \"%s\".", kv);
    }
    pooling how = POOLING_NONE;
    if (pool && !pooling_named(pool, &how)) {
        return cli_usage(&command_logits, "--pool takes mean, cls or last, not \"%s\".", pool);
    }
    return compute(path, tokens, out, type, how, (int)threads);
}
