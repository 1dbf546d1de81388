/* local_tell.c - how a local model is: Prometheus text, a JSON object for the dashboard, and whether it gets on. */
#include <math.h>
#include <stdlib.h>

#include "backend/local.h"
#include "base/clock.h"

/* ---- health ---- */

#define STUCK_US (60 * 1000000LL) /* work waits and no step has ended and no token come for so long */

bool local_gets_on(const char *name, const engine_stats *s, int64_t now_us, err *why) {
    int64_t last = s->last_token_us > s->last_step_us ? s->last_token_us : s->last_step_us;
    int64_t quiet = now_us - last;
    if (s->running + s->waiting > 0 && quiet > STUCK_US) {
        return err_set(why, ERR_TIMEOUT,
                       "%s has %d requests running and %d waiting, and has made no step and no token for %lld s", name,
                       s->running, s->waiting, (long long)(quiet / 1000000));
    }
    return true;
}

static bool embeds_get_on(const char *name, const embedder *m, int64_t now_us, err *why) {
    embed_stats s;
    embed_stats_read(m, &s);
    int64_t quiet = now_us - s.last_step_us;
    return s.waiting == 0 || quiet <= STUCK_US ||
           err_set(why, ERR_TIMEOUT, "%s has %lld texts waiting, and has made no step for %lld s", name,
                   (long long)s.waiting, (long long)(quiet / 1000000));
}

bool local_healthy(backend *base, err *why) {
    const local_backend *b = (const local_backend *)base;
    engine_stats         s;
    if (local_embedder(b->embeds) && !embeds_get_on(base->name, local_embedder(b->embeds), clock_us(), why)) {
        return false;
    }
    if (!b->engine) {
        return true;
    }
    engine_stats_read(b->engine, &s);
    return local_gets_on(base->name, &s, clock_us(), why);
}

/* ---- Prometheus ---- */

typedef struct told { /* one model */
    const char  *name;
    engine_stats s;
} told;

static void head(str *out, const char *name, const char *type, const char *help) {
    str_addf(out, "# HELP pare_engine_%s %s\n# TYPE pare_engine_%s %s\n", name, help, name, type);
}

static void sample_name(str *out, const char *name, const char *suffix, const told *t) {
    str_addf(out, "pare_engine_%s%s{model=", name, suffix);
    str_label(out, t->name);
}

typedef struct number {
    const char *name, *type, *help;
    double (*of)(const engine_stats *s);
} number;

/* One function a number, so that the table below reads as the list of what is told. */
#define NUMBER(function, expression)                                                                                   \
    static double function(const engine_stats *s) {                                                                    \
        return (double)(expression);                                                                                   \
    }
NUMBER(steps, s->steps)
NUMBER(prompt_tokens, s->prompt_tokens)
NUMBER(completion_tokens, s->completion_tokens)
NUMBER(jobs, s->jobs)
NUMBER(cancelled, s->cancelled)
NUMBER(preempted, s->preempted)
NUMBER(sequences, s->sequences)
NUMBER(running, s->running)
NUMBER(decoding, s->decoding)
NUMBER(waiting, s->waiting)
NUMBER(backlog_tokens, s->backlog_tokens)
NUMBER(backlog_seconds, s->backlog_s)
NUMBER(kv_bytes, s->kv.bytes)
NUMBER(kv_tokens, s->kv.blocks * s->kv.block_tokens)
NUMBER(kv_used_tokens, s->kv.held * s->kv.block_tokens)
NUMBER(kv_blocks, s->kv.blocks)
NUMBER(kv_held, s->kv.held)
NUMBER(kv_cached, s->kv.cached)
NUMBER(kv_shared, s->kv.shared)
NUMBER(kv_lookup, s->kv.lookup_tokens)
NUMBER(kv_hit, s->kv.hit_tokens)
NUMBER(kv_disk_hit, s->kv.disk_hit_tokens)
NUMBER(kv_evicted, s->kv.evicted)
NUMBER(kv_copied, s->kv.copied)
NUMBER(kv_disk_bytes, s->kv.disk_bytes)
NUMBER(kv_disk_written, s->kv.disk_written)
NUMBER(kv_disk_read, s->kv.disk_read)
NUMBER(kv_disk_bad, s->kv.disk_bad)
#undef NUMBER

static const number numbers[] = {
    {"steps_total", "counter", "Passes of the model over a batch of tokens.", steps},
    {"prompt_tokens_total", "counter", "Prompt tokens computed.", prompt_tokens},
    {"completion_tokens_total", "counter", "Tokens generated.", completion_tokens},
    {"jobs_total", "counter", "Prompts taken in.", jobs},
    {"cancelled_total", "counter", "Prompts whose client left before the answer was complete.", cancelled},
    {"preempted_total", "counter", "Times that a running prompt gave its memory to an older one.", preempted},
    {"sequences", "gauge", "Prompts that can run at once.", sequences},
    {"running", "gauge", "Prompts that run now.", running},
    {"decoding", "gauge", "Of the running ones, those that generate tokens.", decoding},
    {"waiting", "gauge", "Prompts that wait to run.", waiting},
    {"backlog_tokens", "gauge", "Prompt tokens that wait to be computed.", backlog_tokens},
    {"backlog_seconds", "gauge", "Time that the waiting prompt tokens take at the measured rate.", backlog_seconds},
    {"kv_bytes", "gauge", "Memory of all blocks of keys and values.", kv_bytes},
    {"kv_tokens", "gauge", "Tokens that all blocks hold.", kv_tokens},
    {"kv_used_tokens", "gauge", "Tokens that the blocks of running prompts hold.", kv_used_tokens},
    {"kv_blocks", "gauge", "Blocks of keys and values.", kv_blocks},
    {"kv_held_blocks", "gauge", "Blocks in use by running prompts.", kv_held},
    {"kv_cached_blocks", "gauge", "Blocks kept for prefixes and used by nobody now.", kv_cached},
    {"kv_shared_blocks", "gauge", "Blocks in use by more than one prompt.", kv_shared},
    {"kv_lookup_tokens_total", "counter", "Prompt tokens looked for among the stored prefixes.", kv_lookup},
    {"kv_hit_tokens_total", "counter", "Of these, tokens that were found.", kv_hit},
    {"kv_disk_hit_tokens_total", "counter", "Of these, tokens that came from disk.", kv_disk_hit},
    {"kv_evicted_blocks_total", "counter", "Blocks of stored prefixes that made room for others.", kv_evicted},
    {"kv_copied_blocks_total", "counter", "Blocks copied because a prompt went on differently.", kv_copied},
    {"kv_disk_bytes", "gauge", "Size of the blocks at rest on disk.", kv_disk_bytes},
    {"kv_disk_written_blocks_total", "counter", "Blocks written to disk.", kv_disk_written},
    {"kv_disk_read_blocks_total", "counter", "Blocks read from disk.", kv_disk_read},
    {"kv_disk_bad_blocks_total", "counter", "Blocks on disk whose checksum was wrong.", kv_disk_bad},
};

static void add_histogram(str *out, const char *name, const double *bounds, const engine_histogram *h, const told *t) {
    for (int i = 0; i < ENGINE_BUCKETS; i++) {
        sample_name(out, name, "_bucket", t);
        if (isinf(bounds[i])) {
            str_adds(out, ",le=\"+Inf\"");
        } else {
            str_addf(out, ",le=\"%g\"", bounds[i]);
        }
        str_addf(out, "} %lld\n", (long long)h->count[i]);
    }
    sample_name(out, name, "_sum", t);
    str_addf(out, "} %.15g\n", h->sum);
    sample_name(out, name, "_count", t);
    str_addf(out, "} %lld\n", (long long)h->count[ENGINE_BUCKETS - 1]);
}

static const struct {
    const char   *name, *help;
    const double *bounds;
    size_t        at; /* in engine_stats */
} histograms[] = {
    {"first_token_seconds", "Arrival at the engine to the first token.", engine_time_bounds,
     offsetof(engine_stats, first_token)},
    {"inter_token_seconds", "One token of an answer to the next.", engine_time_bounds,
     offsetof(engine_stats, inter_token)},
    {"queue_seconds", "Arrival at the engine to the first computation.", engine_time_bounds,
     offsetof(engine_stats, queued)},
    {"step_seconds", "One pass of the model.", engine_time_bounds, offsetof(engine_stats, step)},
    {"batch_tokens", "Tokens of one pass.", engine_batch_bounds, offsetof(engine_stats, batch)},
};

/* Those that make embeddings. */
static void write_embeds(backend *const *all, int n, str *out) {
    static const struct {
        const char *name, *type, *help;
        size_t      at; /* in embed_stats */
    } rows[] = {
        {"jobs_total", "counter", "Requests for embeddings or scores.", offsetof(embed_stats, jobs)},
        {"texts_total", "counter", "Texts computed.", offsetof(embed_stats, texts)},
        {"tokens_total", "counter", "Tokens computed.", offsetof(embed_stats, tokens)},
        {"steps_total", "counter", "Passes of the model.", offsetof(embed_stats, steps)},
        {"cancelled_total", "counter", "Requests whose client left.", offsetof(embed_stats, cancelled)},
        {"waiting", "gauge", "Texts that wait.", offsetof(embed_stats, waiting)},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        bool first = true;
        for (int k = 0; k < n; k++) {
            const embedder *m =
                all[k]->ops->metrics == local_metrics ? local_embedder(((local_backend *)all[k])->embeds) : NULL;
            embed_stats s;
            if (!m) {
                continue;
            }
            if (first) {
                str_addf(out, "# HELP pare_embed_%s %s\n# TYPE pare_embed_%s %s\n", rows[i].name, rows[i].help,
                         rows[i].name, rows[i].type);
            }
            first = false;
            embed_stats_read(m, &s);
            str_addf(out, "pare_embed_%s{model=", rows[i].name);
            str_label(out, all[k]->name);
            str_addf(out, "} %lld\n", (long long)*(const int64_t *)(const void *)((const char *)&s + rows[i].at));
        }
    }
}

static void write_metrics(const told *all, int n, str *out) {
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        head(out, numbers[i].name, numbers[i].type, numbers[i].help);
        for (int k = 0; k < n; k++) {
            sample_name(out, numbers[i].name, "", &all[k]);
            str_addf(out, "} %.15g\n", numbers[i].of(&all[k].s));
        }
    }
    for (size_t i = 0; i < sizeof(histograms) / sizeof(*histograms); i++) {
        head(out, histograms[i].name, "histogram", histograms[i].help);
        for (int k = 0; k < n; k++) {
            const void *h = (const char *)&all[k].s + histograms[i].at;
            add_histogram(out, histograms[i].name, histograms[i].bounds, h, &all[k]);
        }
    }
}

bool local_metrics(backend *const *all, int n, str *out) {
    told *t = calloc((size_t)n + 1, sizeof(*t));
    int   count = 0;
    for (int i = 0; t && i < n; i++) {
        if (all[i]->ops->metrics == local_metrics && ((local_backend *)all[i])->engine) {
            t[count].name = all[i]->name;
            engine_stats_read(((local_backend *)all[i])->engine, &t[count++].s);
        }
    }
    if (t && count > 0) {
        write_metrics(t, count, out);
    }
    write_embeds(all, n, out);
    out->failed = out->failed || !t;
    free(t);
    return !out->failed;
}

/* ---- the dashboard ---- */

bool local_status(backend *base, str *out) {
    const local_backend *b = (const local_backend *)base;
    engine_stats         s = {0};
    embed_stats          m = {0};
    if (b->engine) {
        engine_stats_read(b->engine, &s);
    } else {
        embed_stats_read(local_embedder(b->embeds), &m);
        s.waiting = (int)m.waiting;
    }
    str_adds(out, "{\"model\":");
    str_jsons(out, base->name);
    str_addf(out,
             ",\"running\":%d,\"waiting\":%d,\"sequences\":%d,\"backlog_s\":%.6g,\"kv_blocks\":%lld,\"kv_held\":%lld,"
             "\"kv_cached\":%lld,\"lookup_tokens\":%lld,\"hit_tokens\":%lld}",
             s.running, s.waiting, s.sequences, s.backlog_s, (long long)s.kv.blocks, (long long)s.kv.held,
             (long long)s.kv.cached, (long long)s.kv.lookup_tokens, (long long)s.kv.hit_tokens);
    return !out->failed;
}
