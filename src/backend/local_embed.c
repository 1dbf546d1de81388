/* local_embed.c - one request for embeddings or scores on its way through the embedder.
 *
 * A call visits its thread twice: before the computation (texts become tokens) and after it (vectors become JSON, which
 * for a long list takes longer than a loop may be busy). Loop, thread and embedder meet under the call's lock.        */
#include "backend/local_embed.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/queue.h"
#include "base/thread.h"
#include "engine/pooling.h"

struct local_embeds {
    const char  *name;
    const model *m;
    embedder    *embedder;
    size_t       longest_token; /* bytes */
    queue       *work;
    queue_item   last_work; /* tells the thread to end */
    pthread_t    thread;
    bool         started;
};

typedef struct embed_call {
    loop_task        task; /* first, as in every call of a local backend */
    queue_item       work;
    local_embeds    *of;
    loop            *l;
    backend_event_fn fn;
    void            *ctx;
    const request   *r; /* lives until the final event */

    pthread_mutex_t lock;
    embed_job      *job; /* while it may be cancelled */
    bool            cancelled, computed;

    /* Whoever has the call: thread, embedder, loop, in this order. */
    token_ids  *ids;
    embed_text *texts;
    float      *values;
    int         n; /* texts */
    answer      whole;
    err         failed;
    int64_t     queued_us;
} embed_call;

/* ---- the end, on the loop ---- */

static void free_call(embed_call *c) {
    for (int i = 0; c->ids && i < c->n; i++) {
        token_ids_free(&c->ids[i]);
    }
    free(c->ids);
    free(c->texts);
    free(c->values);
    answer_clear(&c->whole);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void on_loop(loop_task *task) {
    embed_call *c = (embed_call *)task;
    usage       used = c->whole.usage;
    event       last = {.kind = EVENT_DONE, .usage = &used, .queued_us = c->queued_us};
    if (c->cancelled) {
        err_set(&c->failed, ERR_CANCELLED, "the request was cancelled");
    }
    if (c->failed.code != ERR_NONE) {
        last.kind = EVENT_ERROR;
        last.error = &c->failed;
    } else {
        event whole = {.kind = EVENT_WHOLE, .whole = &c->whole};
        c->fn(c->ctx, &whole);
    }
    c->fn(c->ctx, &last);
    free_call(c);
}

/* ---- texts to tokens, on the thread ---- */

typedef struct place { /* in the request, for sentences */
    char text[32];
} place;

static place place_in(const request *r, int which) {
    place p = {"input"};
    if (r->kind == REQUEST_RERANK) {
        snprintf(p.text, sizeof p.text, "documents[%d]", which);
    } else if (r->n_prompts > 1) {
        snprintf(p.text, sizeof p.text, "input[%d]", which);
    }
    return p;
}

static bool too_long(const local_embeds *s, const char *where, const char *about, size_t tokens, err *e) {
    return err_at(e, ERR_CONTEXT, where, "%s has %s%zu tokens, the context of %s holds %d; shorten it or cut it up",
                  where, about, tokens, s->name, embed_context(s->embedder));
}

/* Vocabularies of encoders drop blanks and make one token of a word that they lack, so that more bytes than the longest
 * token's may go into one; a megabyte is through in some tens of milliseconds. */
#define SURELY_ENCODED (1 << 20)

static bool encode(const local_embeds *s, const char *text, const char *where, token_ids *out, err *e) {
    size_t n = strlen(text), least = n / s->longest_token;
    if (!s->m->tokens) {
        return err_at(e, ERR_INVALID, where, "%s has no tokenizer; send token ids", s->name);
    }
    if (n > SURELY_ENCODED && least > (size_t)embed_context(s->embedder)) { /* megabytes take seconds */
        return too_long(s, where, "more than ", least, e);
    }
    return tokenizer_encode(s->m->tokens, text, n, (encode_options){.add_special = true}, out, e);
}

static bool copy_ids(const local_embeds *s, const prompt *p, const char *where, token_ids *out, err *e) {
    for (int i = 0; i < p->n_ids; i++) {
        if (p->ids[i] >= s->m->shape.vocab) {
            return err_at(e, ERR_INVALID, where, "%s[%d] is %d; the token ids of %s go from 0 to %d", where, i,
                          (int)p->ids[i], s->name, s->m->shape.vocab - 1);
        }
        if (!token_ids_add(out, p->ids[i])) {
            return err_set(e, ERR_MEMORY, "out of memory for %d tokens", p->n_ids);
        }
    }
    return true;
}

/* A query and a document as one text: "[CLS] query [SEP] document [SEP]" with BERT's tokens, "<s> query </s></s> document
 * </s>" with RoBERTa's, whose documents begin with the end of what stands before. *second: where BERT's document begins,
 * which is of another type; RoBERTa's tokenizer makes all of one type whatever the model has. Source:
 * create_token_type_ids_from_sequences of both in Hugging Face's transformers. */
static bool join(const local_embeds *s, const token_ids *query, token_ids *document, int *second, err *e) {
    const tokenizer *t = s->m->tokens;
    token_ids        both = {0};
    bool             ok = true;
    size_t           skip = document->count > 0 && document->ids[0] == tokenizer_bos(t) ? 1 : 0;
    bool             roberta = tokenizer_find(t, "</s>", 4) == tokenizer_eos(t);
    for (size_t i = 0; ok && i < query->count; i++) {
        ok = token_ids_add(&both, query->ids[i]);
    }
    if (ok && roberta) {
        ok = token_ids_add(&both, tokenizer_eos(t));
    }
    for (size_t i = skip; ok && i < document->count; i++) {
        ok = token_ids_add(&both, document->ids[i]);
    }
    *second = roberta ? 0 : (int)query->count; /* a text that does not fit an int is refused by its length */
    token_ids_free(document);
    *document = both;
    return ok || err_set(e, ERR_MEMORY, "out of memory for a query and a document");
}

static bool fits(const local_embeds *s, const token_ids *ids, const char *where, err *e) {
    if (ids->count == 0) {
        return err_at(e, ERR_INVALID, where, "%s has no tokens", where);
    }
    return ids->count <= (size_t)embed_context(s->embedder) || too_long(s, where, "", ids->count, e);
}

static bool ranks(const local_embeds *s) {
    return s->m->shape.pooling == POOLING_RANK;
}

/* The inputs; of a rerank the documents, each with the query, or followed by the query as a text of its own. */
static bool make_texts(embed_call *c, err *e) {
    const local_embeds *s = c->of;
    const request      *r = c->r;
    token_ids           query = {0};
    bool                ok = !r->query || encode(s, r->query, "query", &query, e);
    for (int i = 0; ok && i < r->n_prompts; i++) {
        const prompt *p = &r->prompts[i];
        place         where = place_in(r, i);
        token_ids    *out = &c->ids[i];
        ok = p->text ? encode(s, p->text, where.text, out, e) : copy_ids(s, p, where.text, out, e);
        ok = ok && (!r->query || !ranks(s) || join(s, &query, out, &c->texts[i].second, e)) &&
             fits(s, out, where.text, e);
    }
    if (ok && c->n > r->n_prompts) {
        c->ids[r->n_prompts] = query;
        query = (token_ids){0};
        ok = fits(s, &c->ids[r->n_prompts], "query", e);
    }
    token_ids_free(&query);
    for (int i = 0; ok && i < c->n; i++) {
        c->texts[i].ids = c->ids[i].ids;
        c->texts[i].n = (int)c->ids[i].count;
        c->whole.usage.prompt += (int64_t)c->ids[i].count;
    }
    return ok;
}

static bool take_memory(embed_call *c, err *e) {
    size_t n = (size_t)c->n;
    c->ids = calloc(n, sizeof *c->ids);
    c->texts = calloc(n, sizeof *c->texts);
    c->values = malloc(n * (size_t)embed_width(c->of->embedder) * sizeof *c->values);
    return (c->ids && c->texts && c->values) || err_set(e, ERR_MEMORY, "out of memory for %d texts", c->n);
}

static void on_computed(void *ctx, const embed_result *r) {
    embed_call *c = ctx;
    pthread_mutex_lock(&c->lock);
    c->job = NULL;
    c->computed = true;
    pthread_mutex_unlock(&c->lock);
    c->queued_us = r->queued_us;
    if (r->error) {
        c->failed = *r->error;
    } else if (r->cancelled) {
        err_set(&c->failed, ERR_CANCELLED, "%s stopped before the answer was complete", c->of->name);
    }
    queue_put(c->of->work, &c->work);
}

static bool submit(embed_call *c, err *e) {
    embed_request ask = {.texts = c->texts, .n_texts = c->n, .out = c->values, .done = on_computed, .ctx = c};
    pthread_mutex_lock(&c->lock);
    bool       go_on = !c->cancelled;
    embed_job *job = go_on ? embed_submit(c->of->embedder, &ask, e) : NULL;
    c->job = job; /* its `done` waits for the lock */
    pthread_mutex_unlock(&c->lock);
    return job || (!go_on && err_set(e, ERR_CANCELLED, "the request was cancelled"));
}

/* ---- vectors to JSON, on the thread ---- */

static float dot(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return (float)sum;
}

/* Scores in place of the vectors: the cosine of each with the query's, or what the model's head said, as a probability. */
static void score(embed_call *c, int width) {
    const float *query = c->values + (size_t)c->r->n_prompts * (size_t)width;
    for (int i = 0; i < c->r->n_prompts; i++) {
        const float *v = c->values + (size_t)i * (size_t)width;
        c->values[i] = ranks(c->of) ? 1 / (1 + expf(-v[0])) : dot(v, query, width);
    }
}

/* Shorter vectors as models trained for that have them (Matryoshka, arXiv:2205.13147): the first values, length 1 again. */
static int shorten(embed_call *c, int width) {
    int kept = c->r->dimensions ? (int)c->r->dimensions : width;
    for (int i = 0; kept < width && i < c->n; i++) {
        float *to = c->values + (size_t)i * (size_t)kept;
        memmove(to, c->values + (size_t)i * (size_t)width, (size_t)kept * sizeof *to);
        pooling_unit(to, kept);
    }
    return kept;
}

static void name_answer(embed_call *c) {
    uint8_t number[12];
    char    hex[2 * sizeof number + 1];
    random_bytes(number, sizeof number);
    hex_encode(number, sizeof number, hex);
    snprintf(c->whole.id, sizeof c->whole.id, "rerank-%s", hex);
    snprintf(c->whole.model, sizeof c->whole.model, "%s", c->r->model ? c->r->model : c->of->name);
}

static bool write_answer(embed_call *c, err *e) {
    int width = embed_width(c->of->embedder);
    str text = {0};
    for (int i = 0; width > 1 && i < c->n; i++) {
        pooling_unit(c->values + (size_t)i * (size_t)width, width);
    }
    if (c->r->kind == REQUEST_RERANK) {
        score(c, width);
        width = 1;
    } else {
        width = shorten(c, width);
    }
    name_answer(c);
    c->whole.usage.known = true;
    bool ok = dialect_openai.write_values(c->r, &c->whole, c->values, width, &text);
    if (!ok) {
        err_set(e, text.failed ? ERR_MEMORY : ERR_INTERNAL,
                text.failed ? "out of memory for the text of an answer" : "a value of the answer is not a number");
    }
    c->whole.raw_len = text.len;
    c->whole.raw = ok ? str_take(&text) : NULL;
    c->whole.raw_dialect = &dialect_openai;
    str_free(&text);
    return ok;
}

/* ---- the thread ---- */

static void work_on(embed_call *c) {
    bool waits = false;
    if (c->failed.code != ERR_NONE) {
        c->computed = true;
    } else if (c->computed) {
        write_answer(c, &c->failed);
    } else {
        waits = take_memory(c, &c->failed) && make_texts(c, &c->failed) && submit(c, &c->failed);
    }
    if (!waits) {
        loop_post(c->l, &c->task); /* and the call may be gone */
    }
}

static void *work(void *arg) {
    local_embeds *s = arg;
    for (;;) {
        queue_item *item = queue_wait_all(s->work, -1);
        while (item) {
            queue_item *next = item->next;
            if (item == &s->last_work) {
                return NULL;
            }
            work_on((embed_call *)(void *)((char *)item - offsetof(embed_call, work)));
            item = next;
        }
    }
}

/* ---- opening and closing ---- */

static bool start_thread(local_embeds *s, err *e) {
    s->work = queue_new(NULL, NULL);
    if (!s->work) {
        return err_set(e, ERR_MEMORY, "out of memory for a queue");
    }
    s->started = thread_start(&s->thread, work, s, "the thread of a local model", e);
    return s->started;
}

static size_t longest_token(const tokenizer *t) {
    size_t longest = 1;
    for (int id = 0; t && id < tokenizer_vocab(t); id++) {
        const char *text = tokenizer_text(t, id);
        size_t      n = text ? strlen(text) : 0;
        longest = n > longest ? n : longest;
    }
    return longest;
}

local_embeds *local_embed_open(const char *name, const model *m, struct pool *p, const local_options *o, err *e) {
    if (!m->shape.headless && m->shape.pooling == POOLING_NONE && o->pooling == POOLING_NONE) {
        return NULL;
    }
    local_embeds *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, ERR_MEMORY, "out of memory for the model %s", name);
        return NULL;
    }
    *s = (local_embeds){.name = name, .m = m, .longest_token = longest_token(m->tokens)};
    s->embedder = embed_open(m, p, &(embed_options){.pooling = o->pooling, .context = o->context, .kv = KV_F32}, e);
    if (!s->embedder || !start_thread(s, e)) {
        local_embed_close(s);
        return NULL;
    }
    return s;
}

/* What is open comes back from the embedder first and passes through the thread, which ends behind it. */
void local_embed_close(local_embeds *s) {
    if (!s) {
        return;
    }
    embed_stop(s->embedder);
    if (s->started) {
        queue_put(s->work, &s->last_work);
        pthread_join(s->thread, NULL);
    }
    embed_close(s->embedder);
    queue_free(s->work);
    free(s);
}

const embedder *local_embedder(const local_embeds *s) {
    return s ? s->embedder : NULL;
}

/* ---- calls ---- */

static bool check(const local_embeds *s, const char *name, const request *r, err *e) {
    if (!s) {
        return err_at(
            e, ERR_UNSUPPORTED, "model",
            "%s writes text: its file names no pooling, so it was not made for embeddings. The operator can say "
            "how rows become one vector (pooling: mean, cls or last)",
            name);
    }
    if (r->kind == REQUEST_EMBEDDINGS && ranks(s)) {
        return err_at(e, ERR_UNSUPPORTED, "model", "%s scores documents and has no embeddings; ask /v1/rerank", name);
    }
    if (r->dimensions > s->m->shape.dim) {
        return err_at(e, ERR_INVALID, "dimensions", "dimensions is %lld, the vectors of %s have %d values",
                      (long long)r->dimensions, name, s->m->shape.dim);
    }
    return r->n_prompts > 0 || err_set(e, ERR_INVALID, "there is no text");
}

backend_call *local_embed_start(local_embeds *s, const char *name, loop *l, const request *r, backend_event_fn fn,
                                void *ctx, err *e) {
    embed_call *c = check(s, name, r, e) ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        if (s && e && e->code == ERR_NONE) {
            err_set(e, ERR_MEMORY, "out of memory for a request");
        }
        return NULL;
    }
    c->task.run = on_loop;
    c->of = s;
    c->l = l;
    c->fn = fn;
    c->ctx = ctx;
    c->r = r;
    c->n = r->n_prompts + (r->kind == REQUEST_RERANK && !ranks(s)); /* the query's vector is the last */
    pthread_mutex_init(&c->lock, NULL);
    queue_put(s->work, &c->work);
    return (backend_call *)(void *)c;
}

bool local_embed_is(const backend_call *call) {
    return ((const loop_task *)(const void *)call)->run == on_loop;
}

void local_embed_cancel(backend_call *call) {
    embed_call *c = (embed_call *)(void *)call;
    pthread_mutex_lock(&c->lock);
    c->cancelled = true;
    if (c->job) {
        embed_cancel(c->job);
    }
    pthread_mutex_unlock(&c->lock);
}
