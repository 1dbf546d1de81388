/* eval_windows.c - models opened, tokens read, windows run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "cli/eval.h"

enum { CHUNK = 64, USUAL_CONTEXT = 512 };

/* ---- tokens ---- */

static bool add_list(eval *v, int32_t *ids, size_t n, err *e) {
    eval_list *lists = n <= INT32_MAX ? realloc(v->lists, ((size_t)v->n_lists + 1) * sizeof *lists) : NULL;
    if (!lists) {
        free(ids);
        return err_set(e, ERR_MEMORY, "Out of memory for %zu tokens.", n);
    }
    v->lists = lists;
    lists[v->n_lists++] = (eval_list){ids, (int)n};
    return true;
}

static bool encode(const model *m, const str *text, token_ids *out, err *e) {
    if (!m->tokens) {
        return err_set(e, ERR_INVALID, "%s has no tokenizer; give it ids with --tokens.", m->name);
    }
    return tokenizer_encode(m->tokens, text->data ? text->data : "", text->len, (encode_options){0}, out, e);
}

/* Two models must read the same ids, or their predictions are about different things. */
static bool read_text(eval *v, err *e) {
    str       text = {0};
    token_ids ids = {0}, other = {0};
    bool      ok = cli_read_file(v->o->text, &text, e) && encode(v->sides[0].m, &text, &ids, e);
    if (ok && v->n_sides > 1 && v->sides[1].m->tokens) {
        ok = encode(v->sides[1].m, &text, &other, e);
        if (ok && (other.count != ids.count || memcmp(other.ids, ids.ids, ids.count * sizeof *ids.ids) != 0)) {
            ok = err_set(e, ERR_INVALID, "The two models' tokenizers give different tokens for %s.", v->o->text);
        }
    }
    const tokenizer *t = v->sides[0].m->tokens;
    v->bos = ok && tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    token_ids_free(&other);
    str_free(&text);
    if (!ok) {
        token_ids_free(&ids);
        return false;
    }
    return add_list(v, ids.ids, ids.count, e);
}

static bool read_ids(eval *v, const cJSON *list, err *e) {
    int      n = cJSON_GetArraySize(list), at = 0;
    int32_t *ids = malloc(((size_t)n + 1) * sizeof *ids);
    if (!ids) {
        return err_set(e, ERR_MEMORY, "Out of memory for %d tokens.", n);
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id < v->vocab && id == (double)(int32_t)id)) {
            free(ids);
            return err_set(e, ERR_INVALID, "%s: token %d of list %d is not an id from 0 to %d.", v->o->tokens, at,
                           v->n_lists, v->vocab - 1);
        }
        ids[at++] = (int32_t)id;
    }
    return add_list(v, ids, (size_t)n, e);
}

static bool read_tokens(eval *v, err *e) {
    str    text = {0};
    cJSON *tokens = NULL;
    v->bos = -1;
    if (cli_read_file(v->o->tokens, &text, e)) {
        tokens = json_parse(text.data ? text.data : "", text.len, JSON_MAX_DEPTH, e);
    }
    bool ok = tokens != NULL;
    if (ok && (!cJSON_IsArray(tokens) || !tokens->child)) {
        ok = err_set(e, ERR_INVALID, "%s must be a list of ids or a list of lists.", v->o->tokens);
    } else if (ok && !cJSON_IsArray(tokens->child)) {
        ok = read_ids(v, tokens, e);
    } else {
        for (const cJSON *list = ok ? tokens->child : NULL; ok && list; list = list->next) {
            ok = read_ids(v, list, e);
        }
    }
    cJSON_Delete(tokens);
    str_free(&text);
    return ok;
}

/* ---- opening ---- */

static bool open_side(eval *v, int i, const char *path, err *e) {
    eval_side *s = &v->sides[i];
    cli_progress("loading", -1);
    s->m = model_open(path, NULL, 0, v->p, e);
    cli_progress_end();
    if (!s->m) {
        return false;
    }
    v->n_sides = i + 1;
    if (s->m->output.rows == 0) {
        return err_set(e, ERR_UNSUPPORTED, "%s gives embeddings and predicts no tokens.", path);
    }
    if (i > 0 && s->m->shape.vocab != v->vocab) {
        return err_set(e, ERR_INVALID, "The vocabularies differ: %d tokens and %d.", v->vocab, s->m->shape.vocab);
    }
    v->vocab = s->m->shape.vocab;
    s->f = forward_new(s->m, v->p, CHUNK, CHUNK, e);
    return s->f != NULL;
}

static bool choose_window(eval *v, err *e) {
    int most = v->sides[0].m->shape.context;
    for (int i = 1; i < v->n_sides; i++) {
        most = v->sides[i].m->shape.context < most ? v->sides[i].m->shape.context : most;
    }
    v->context = v->o->context ? v->o->context : most < USUAL_CONTEXT ? most : USUAL_CONTEXT;
    if (v->context > most) {
        return err_set(e, ERR_INVALID, "--context %d is more than the %d tokens that the model was made for.",
                       v->context, most);
    }
    int body = v->context - (v->bos >= 0);
    v->stride = v->o->stride ? v->o->stride : (v->context + 1) / 2;
    if (body < 2 || v->stride > body) {
        return err_set(e, ERR_INVALID, "--stride %d does not fit into windows of %d tokens.", v->stride, v->context);
    }
    for (int i = 0; i < v->n_sides; i++) {
        forward_set_context(v->sides[i].f, v->context);
    }
    return true;
}

bool eval_open(eval *v, const eval_options *o, const char *const *paths, int n, err *e) {
    *v = (eval){.o = o, .bos = -1};
    v->p = pool_new(o->threads, e);
    bool ok = v->p != NULL;
    for (int i = 0; ok && i < n; i++) {
        ok = open_side(v, i, paths[i], e);
    }
    return ok && (o->text ? read_text(v, e) : read_tokens(v, e)) && choose_window(v, e);
}

void eval_close(eval *v) {
    for (int i = 0; i < 2; i++) {
        forward_free(v->sides[i].f);
        model_close(v->sides[i].m);
    }
    for (int i = 0; i < v->n_lists; i++) {
        free(v->lists[i].ids);
    }
    free(v->lists);
    if (v->p) {
        pool_free(v->p);
    }
}

/* ---- windows ---- */

typedef struct window {
    const int32_t *ids;            /* BOS included */
    int            n, from, to;    /* rows that are wanted */
    int            list, position; /* of ids[0] in its list; -1 of BOS */
    const int32_t *next;           /* [n] what came after each */
} window;

static bool run_chunk(eval *v, kv_cache *const *kv, const window *w, int at, int n, const float **logits, err *e) {
    forward_token batch[CHUNK];
    for (int i = 0; i < n; i++) {
        bool wanted = at + i >= w->from && at + i < w->to;
        batch[i] = (forward_token){.id = w->ids[at + i], .position = at + i, .logits = wanted};
    }
    for (int s = 0; s < v->n_sides; s++) {
        if (!kv_reserve(kv[s], 0, at + n)) {
            return err_set(e, ERR_INTERNAL, "The cache has no room for token %d; this is a bug.", at);
        }
        pool_take(v->p);
        logits[s] = forward_run(v->sides[s].f, kv[s], batch, n);
        pool_give(v->p);
        kv_commit(kv[s], 0, at + n);
    }
    return true;
}

static bool run_window(eval *v, const window *w, eval_take take, void *arg, err *e) {
    kv_cache *kv[2] = {0};
    bool      ok = true;
    for (int s = 0; ok && s < v->n_sides; s++) {
        kv_options o = {.type = v->o->kv, .sequences = 1, .context = w->n, .step_tokens = CHUNK};
        kv[s] = kv_open(&v->sides[s].m->shape, &o, e);
        ok = kv[s] != NULL;
        if (ok) {
            kv_begin(kv[s], 0, (kv_scope){0}, w->ids, w->n, false);
        }
    }
    for (int at = 0; ok && at < w->to;) {
        int       n = w->to - at < CHUNK ? w->to - at : CHUNK;
        int       first = at > w->from ? at : w->from;
        eval_rows rows = {
            .n = at + n - first, .list = w->list, .position = w->position + first, .next = w->next + first};
        ok = run_chunk(v, kv, w, at, n, rows.logits, e) && (rows.n <= 0 || take(arg, &rows, e));
        at += n;
        v->done += n;
    }
    for (int s = 0; s < 2; s++) {
        if (kv[s]) {
            kv_release(kv[s], 0);
        }
        kv_close(kv[s]);
    }
    return ok;
}

/* Calls run_window for each window of a list, or counts their tokens when `take` is NULL. */
static bool list_windows(eval *v, int number, int32_t *ids, int32_t *next, eval_take take, void *arg, err *e) {
    const eval_list *l = &v->lists[number];
    int              bos = v->bos >= 0, body = v->context - bos, scored = bos ? 0 : 1;
    for (int begin = 0; scored < l->n; begin += v->stride) {
        int    end = l->n - begin < body ? l->n : begin + body;
        window w = {.ids = ids, .next = next, .n = end - begin + bos, .list = number, .position = begin - bos};
        w.from = scored - begin + bos - 1; /* the row that predicts token `scored` */
        w.from = w.from < 0 ? 0 : w.from;  /* nothing stands before it: windows that do not overlap, without BOS */
        w.to = w.n - 1;
        if (!take) {
            v->tokens += w.to;
        } else {
            ids[0] = v->bos;
            memcpy(ids + bos, l->ids + begin, (size_t)(end - begin) * sizeof *ids);
            for (int i = 0; i < w.n; i++) {
                next[i] = i + 1 < w.n ? ids[i + 1] : -1;
            }
            if (!run_window(v, &w, take, arg, e)) {
                return false;
            }
        }
        scored = end;
    }
    return true;
}

bool eval_windows(eval *v, eval_take take, void *arg, err *e) {
    int32_t *ids = malloc((size_t)v->context * sizeof *ids), *next = malloc((size_t)v->context * sizeof *next);
    bool     ok = (ids && next) || err_set(e, ERR_MEMORY, "Out of memory.");
    v->tokens = v->done = 0;
    for (int i = 0; ok && i < v->n_lists; i++) {
        list_windows(v, i, ids, next, NULL, NULL, NULL);
    }
    if (ok && v->tokens == 0) {
        ok = err_set(e, ERR_INVALID, "%s has no token that could be predicted from one before it.",
                     v->o->text ? v->o->text : v->o->tokens);
    }
    for (int i = 0; ok && i < v->n_lists; i++) {
        ok = list_windows(v, i, ids, next, take, arg, e);
    }
    free(ids);
    free(next);
    return ok;
}

bool eval_whole(eval *v, eval_take take, void *arg, err *e) {
    bool ok = true;
    v->tokens = v->done = 0;
    for (int i = 0; i < v->n_lists; i++) {
        v->tokens += v->lists[i].n;
    }
    if (v->tokens == 0) {
        return err_set(e, ERR_INVALID, "There are no tokens in %s.", v->o->text ? v->o->text : v->o->tokens);
    }
    for (int i = 0; ok && i < v->n_lists; i++) {
        const eval_list *l = &v->lists[i];
        if (l->n > v->sides[0].m->shape.context || l->n > v->sides[v->n_sides - 1].m->shape.context) {
            return err_set(e, ERR_INVALID, "%d tokens do not fit into the model's context of %d; shorten the text.",
                           l->n, v->sides[0].m->shape.context);
        }
        int32_t *next = malloc(((size_t)l->n + 1) * sizeof *next);
        if (!next) {
            return err_set(e, ERR_MEMORY, "Out of memory.");
        }
        for (int k = 0; k < l->n; k++) {
            next[k] = k + 1 < l->n ? l->ids[k + 1] : -1;
        }
        window w = {.ids = l->ids, .next = next, .n = l->n, .to = l->n, .list = i};
        ok = l->n == 0 || run_window(v, &w, take, arg, e);
        free(next);
    }
    return ok;
}

void eval_each(const eval *v, int n, pool_fn fn, void *arg) {
    pool_take(v->p);
    pool_run(v->p, n, 1, fn, arg);
    pool_give(v->p);
}

size_t eval_token_bytes(const eval *v, int32_t id) {
    const char      *bytes;
    const tokenizer *t = v->sides[0].m->tokens;
    return t && id < tokenizer_vocab(t) ? tokenizer_piece(t, id, true, &bytes) : 0;
}
