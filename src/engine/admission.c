/* admission.c - who has memory.
 *
 * A job may run when the blocks that its tokens need, beyond those found in the cache, are spare, with one more for
 * each job that runs already. When a running job finds none for its next token, the youngest gives up all it has and
 * is begun again later; its tokens, its sampler and its text stay, so the answer is the same. The oldest never waits:
 * the cache holds one full context at least. So there is always one that gets on, and every job becomes the oldest. */
#include "engine/schedule.h"

#define RANK_STEP ((int64_t)1 << 40) /* more jobs than ever come */
#define TRY_STEPS 64 /* after so many steps a job that found no room looks again, for a prefix that came meanwhile */

static int64_t blocks_of(int tokens) {
    return (tokens + KV_TOKENS - 1) / KV_TOKENS;
}

static int64_t spare_blocks(const engine *g) {
    kv_usage u = kv_usage_read(g->kv);
    return u.blocks - u.held;
}

/* How many blocks are missing before the job can run; 0 or less: none. What others that run will need for the rest of
 * their prompts is theirs. A job that lost its memory before asks for more room, so that it is not lost at once. */
static int64_t missing_blocks(const engine *g, const engine_job *j) {
    int64_t promised = 0, others = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        const engine_job *other = g->jobs[i];
        if (other != j && other->state == JOB_RUNNING) {
            others++;
            promised += blocks_of(other->n) - blocks_of(other->reserved < other->n ? other->reserved : other->n);
        }
    }
    if (others == 0) {
        return 0;
    }
    int64_t slack = others * (1 + (j->preempted < 3 ? j->preempted : 3));
    return blocks_of(j->n) - blocks_of(j->reserved) + promised + slack - spare_blocks(g);
}

static bool nobody_runs(const engine *g) {
    for (int i = 0; i < g->n_jobs; i++) {
        if (g->jobs[i]->state == JOB_RUNNING) {
            return false;
        }
    }
    return true;
}

/* Looking into the cache costs time and changes its statistics: not when the answer is known. */
static bool worth_trying(const engine *g, const engine_job *j) {
    return j->try_at == 0 || spare_blocks(g) >= j->try_at || atomic_load(&g->told.steps) >= j->try_step ||
           nobody_runs(g);
}

void admission_release(engine *g, engine_job *j) {
    if (j->state != JOB_PAUSED) {
        kv_release(g->kv, j->slot);
    }
    j->state = JOB_PAUSED;
    j->position = j->reserved = j->want = 0;
}

/* The cache has said what it holds: run, or give it back and wait. */
static bool settle(engine *g, engine_job *j) {
    kv_match found = kv_found(g->kv, j->slot);
    j->position = j->reserved = found.tokens;
    int64_t missing = missing_blocks(g, j);
    if (missing > 0) {
        admission_release(g, j);
        j->try_at = spare_blocks(g) + missing;
        j->try_step = atomic_load(&g->told.steps) + TRY_STEPS;
        return false;
    }
    j->state = JOB_RUNNING;
    j->try_at = 0;
    if (!j->started_us) {
        j->cached = found.tokens;
        j->miss = found.miss;
    }
    return true;
}

/* False: there is no room now. True: it runs, or its blocks are on their way. */
static bool begin(engine *g, engine_job *j) {
    kv_begin(g->kv, j->slot, j->ask.scope, j->tokens, j->n, !j->ask.no_reuse);
    kv_rank(g->kv, j->slot, j->rank);
    j->state = JOB_LOADING;
    return kv_loading(g->kv, j->slot) || settle(g, j);
}

/* Returns the priority of the first that still waits for room in its slot: nobody of that priority or a
 * larger value may be let in before it. INT64_MAX: none. */
static int64_t resume(engine *g) {
    const engine_job *first = NULL;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        if (j->state == JOB_LOADING && !kv_loading(g->kv, j->slot)) {
            settle(g, j);
        } else if (j->state == JOB_PAUSED && !first && worth_trying(g, j)) {
            begin(g, j);
        }
        if (j->state == JOB_PAUSED && !first) {
            first = j;
        }
    }
    return first ? first->place.priority : INT64_MAX;
}

static void enter(engine *g, engine_job *j) {
    pthread_mutex_lock(&g->lock);
    fair_take(g->line, &j->place);
    j->standing = fair_had(g->line, &j->place);
    pthread_mutex_unlock(&g->lock);
    told_add(&g->told.line_tokens, -j->n);
    g->n_free--;
    g->admitted++;
    int at = g->n_jobs++;
    while (at > 0 && g->jobs[at - 1]->rank > j->rank) {
        g->jobs[at] = g->jobs[at - 1];
        at--;
    }
    g->jobs[at] = j;
    atomic_store_explicit(&g->told.running, g->n_jobs, memory_order_relaxed);
    atomic_fetch_sub(&g->told.waiting, 1); /* after it runs: an idle engine is one that has neither */
    sampler_begin(g->samplers[j->slot], &j->ask.sampling, j->tokens, j->n);
}

void admission_run(engine *g) {
    int64_t before = resume(g);
    while (g->n_free > 0) {
        pthread_mutex_lock(&g->lock);
        engine_job *j = (engine_job *)(void *)fair_next(g->line); /* stays: only this thread takes jobs out */
        pthread_mutex_unlock(&g->lock);
        if (!j || j->place.priority >= before || !worth_trying(g, j)) {
            return;
        }
        j->slot = g->free_slots[g->n_free - 1];
        j->rank = j->place.priority * RANK_STEP + g->admitted;
        if (!begin(g, j)) {
            return; /* it stays the first in line, so that large ones are not overtaken for ever */
        }
        enter(g, j);
    }
}

/* ---- when memory is short ---- */

static engine_job *youngest_after(const engine *g, int index) {
    for (int i = g->n_jobs - 1; i > index; i--) {
        if (g->jobs[i]->state != JOB_PAUSED) {
            return g->jobs[i];
        }
    }
    return NULL;
}

static void preempt(engine *g, engine_job *j) {
    if (j->state == JOB_RUNNING) { /* one that loads loses nothing it has computed */
        j->preempted++;
        told_add(&g->told.preempted, 1);
    }
    admission_release(g, j);
}

void admission_secure(engine *g, int index) {
    engine_job *j = g->jobs[index];
    int         asked = j->want;
    while (j->want > 0 && !kv_reserve(g->kv, j->slot, j->position + j->want)) {
        j->want /= 2; /* fewer may fit into the block that it has */
        if (j->want > 0) {
            continue;
        }
        engine_job *victim = youngest_after(g, index);
        if (!victim) {
            return; /* older ones have it all: keep what there is and wait for them */
        }
        preempt(g, victim);
        j->want = asked;
    }
    if (j->position + j->want > j->reserved) {
        j->reserved = j->position + j->want;
    }
}
