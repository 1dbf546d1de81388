/* schedule.c - the engine's thread and its step.
 *
 * A step takes one token of every decoding sequence and then chunks of prompts, as many as its time allows (pace.h).
 * What a job computes never depends on who shares its steps: rows of the forward pass have the same bits in any batch,
 * and a sampler knows its seed and the tokens it drew. So chunks, preemption and found prefixes change when a token
 * comes, not which.                                                                                                  */
#include "engine/schedule.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/slide.h"

#define NAP_NS      500000 /* between looks when all that runs waits for the disk */
#define FINISH_BIAS 512    /* a prompt that was begun goes before others until its client had so many tokens more */
#define LATE_SHARE  8      /* others wait this part of the forward pass's time for masks that are late, */
#define LATE_US     200    /* and at least so long; */
#define ALONE_US    5000   /* where nobody else would wait, at least so long */

/* ---- the end of a job ---- */

void job_free(engine_job *j) {
    mask_next_free(j->mask);
    text_free(&j->text);
    arena_free(j->memory); /* and with it j */
}

static void finish(engine_job *j, engine_finish how, const char *stop_text, const err *why) {
    int64_t       now = clock_us();
    text_span     rest = text_end(&j->text);
    engine_result r = {.finish = how,
                       .stop_text = stop_text,
                       .prompt_tokens = j->ask.n_tokens,
                       .completion_tokens = j->generated,
                       .cached_tokens = j->cached,
                       .miss = j->miss,
                       .preempted = j->preempted,
                       .slid = j->slid,
                       .queued_us = (j->started_us ? j->started_us : now) - j->submitted_us,
                       .first_us = j->first_us ? j->first_us - j->submitted_us : 0,
                       .total_us = now - j->submitted_us,
                       .text = rest.text,
                       .text_len = rest.len,
                       .error = why};
    if (how == FINISH_CANCELLED) {
        told_add(&j->g->told.cancelled, 1);
    }
    j->ask.done(j->ask.ctx, &r);
    job_free(j);
}

static void finish_line(engine *g, fair_ticket *gone) {
    while (gone) {
        engine_job *j = (engine_job *)(void *)gone;
        gone = gone->next;
        told_add(&g->told.line_tokens, -j->n);
        atomic_fetch_sub(&g->told.waiting, 1);
        finish(j, FINISH_CANCELLED, NULL, NULL);
    }
}

/* Gives slot and memory back; the job stays in jobs[] as NULL until close_gaps. */
static void leave(engine *g, int index, engine_finish how, const char *stop_text, const err *why) {
    engine_job *j = g->jobs[index];
    g->jobs[index] = NULL;
    admission_release(g, j);
    g->free_slots[g->n_free++] = j->slot;
    pthread_mutex_lock(&g->lock);
    fair_charge(g->line, &j->place, j->unpaid);
    fair_leave(g->line, &j->place);
    pthread_mutex_unlock(&g->lock);
    finish(j, how, stop_text, why);
}

/* Goes on with what was drawn last, and what the grammar forced after it. */
static bool decodes(const engine_job *j) {
    return j->generated > 0 && j->n - j->position <= 1 + j->forced;
}

/* Closes the gaps of those who left, and tells how things stand. */
static void close_gaps(engine *g) {
    int     kept = 0, decoding = 0;
    int64_t to_come = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        if (j) {
            g->jobs[kept++] = j;
            bool writes = j->state == JOB_RUNNING && decodes(j);
            decoding += writes;
            to_come += writes ? 0 : j->n - j->position;
        }
    }
    g->n_jobs = kept;
    told_set(&g->told.begun_tokens, to_come);
    atomic_store_explicit(&g->told.decoding, decoding, memory_order_relaxed);
    atomic_store_explicit(&g->told.running, kept, memory_order_relaxed);
}

/* ---- between steps ---- */

static bool is_cancelled(const fair_ticket *t) {
    return atomic_load(&((const engine_job *)(const void *)t)->cancelled);
}

static void nap(engine *g) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += NAP_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&g->work, &g->lock, &until);
    g->stuck = false;
}

/* Waits for work; sends those away who were cancelled. False when the engine closes. */
static bool gather(engine *g) {
    fair_ticket *gone = NULL;
    pthread_mutex_lock(&g->lock);
    while (!g->closing && g->n_jobs == 0 && !fair_next(g->line)) {
        pthread_cond_wait(&g->work, &g->lock);
    }
    if (!g->closing && g->stuck) {
        nap(g);
    }
    bool open = !g->closing;
    if (open && atomic_exchange(&g->cancel_seen, false)) {
        gone = fair_pick(g->line, is_cancelled);
    }
    for (int i = 0; i < g->n_jobs; i++) {
        fair_charge(g->line, &g->jobs[i]->place, g->jobs[i]->unpaid);
        g->jobs[i]->unpaid = 0;
    }
    for (int i = 0; i < g->n_jobs; i++) {
        g->jobs[i]->standing = fair_had(g->line, &g->jobs[i]->place);
    }
    pthread_mutex_unlock(&g->lock);
    finish_line(g, gone);
    return open;
}

static void drop_cancelled(engine *g) {
    for (int i = 0; i < g->n_jobs; i++) {
        if (atomic_load(&g->jobs[i]->cancelled)) {
            leave(g, i, FINISH_CANCELLED, NULL, NULL);
        }
    }
    close_gaps(g);
}

/* ---- planning: who takes how many tokens ---- */

static bool goes_before(const engine_job *a, const engine_job *b) {
    if (a->place.priority != b->place.priority) {
        return a->place.priority < b->place.priority;
    }
    int64_t had_a = a->standing - (a->started_us ? FINISH_BIAS : 0);
    int64_t had_b = b->standing - (b->started_us ? FINISH_BIAS : 0);
    return had_a != had_b ? had_a < had_b : a->rank < b->rank;
}

static engine_job *next_prefill(const engine *g) {
    engine_job *best = NULL;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        if (j->state == JOB_RUNNING && !j->planned && (!best || goes_before(j, best))) {
            best = j;
        }
    }
    return best;
}

/* Takes over what others have computed meanwhile. False: somebody is about to compute what comes next. */
static bool share(engine *g, engine_job *j, bool wait) {
    if (j->ask.no_reuse || j->position % KV_TOKENS != 0) {
        return true;
    }
    int at = kv_advance(g->kv, j->slot, j->position);
    if (at > j->position && j->generated == 0 && j->preempted == 0) {
        j->cached += at - j->position;
    }
    j->position = at;
    j->reserved = at > j->reserved ? at : j->reserved;
    /* A block that goes beyond the known tokens cannot be another's. */
    return !wait || j->n - at < KV_TOKENS || !kv_awaits(g->kv, j->slot, at);
}

/* Chunks that end before the prompt does end with a block, so that the next one can begin with a shared block. */
static void plan_chunk(engine *g, engine_job *j, int most, bool wait) {
    if (!share(g, j, wait)) {
        return;
    }
    int left = j->n - j->position;
    j->want = left < most ? left : most;
    int end = (j->position + j->want) / KV_TOKENS * KV_TOKENS;
    if (j->want < left && end > j->position) {
        j->want = end - j->position;
    }
}

/* Forced tokens come along in one step as far as others leave room, which all have one token and a prompt a few. */
static int plan_forced(engine *g, int decoding) {
    int left = g->step_tokens - decoding - PACE_LEAST, planned = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        int         more = j->planned ? j->n - j->position - 1 : 0;
        if (more > 0 && more <= left - planned) {
            j->want += more;
            planned += more;
        }
    }
    return planned;
}

static void plan(engine *g, bool wait) {
    int decoding = 0, others = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        bool        runs = j->state == JOB_RUNNING;
        j->planned = runs && decodes(j);
        j->want = j->planned ? 1 : 0;
        decoding += j->planned;
        others += runs && !j->planned;
    }
    int forced = plan_forced(g, decoding);
    int left = others ? pace_prefill(g->pace, decoding, others, g->step_tokens - decoding - forced) : 0;
    while (left > 0) {
        engine_job *j = next_prefill(g);
        if (!j) {
            break;
        }
        j->planned = true;
        plan_chunk(g, j, left, wait);
        left -= j->want;
    }
    for (int i = 0; i < g->n_jobs; i++) { /* by rank: only those who come later can lose what they planned */
        if (g->jobs[i]->want > 0) {
            admission_secure(g, i);
        }
    }
}

/* ---- a step ---- */

static void put_tokens(engine *g, int index) {
    engine_job *j = g->jobs[index];
    for (int i = 0; i < j->want; i++) {
        int at = j->position + i;
        g->batch[g->n_batch++] =
            (forward_token){.id = j->tokens[at], .sequence = j->slot, .position = at, .logits = at + 1 == j->n};
    }
    if (j->position + j->want == j->n) {
        wanted *row = &g->rows[g->n_rows++];
        row->index = index;
        row->slot = j->slot;
    }
    if (!j->started_us) {
        j->started_us = clock_us();
        histogram_time(&g->told.queued, j->started_us - j->submitted_us);
    }
}

static void build_batch(engine *g) {
    mask_asks asks = {0};
    g->n_batch = g->n_rows = g->n_decoding = g->n_forced = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        if (g->jobs[i]->want > 0) {
            bool goes_on = decodes(g->jobs[i]);
            g->n_decoding += goes_on;
            g->n_forced += goes_on ? g->jobs[i]->want - 1 : 0;
            put_tokens(g, i);
            if (g->jobs[i]->mask) {
                mask_next_ask(g->jobs[i]->mask, &asks);
            }
        }
    }
    mask_asks_send(&asks);
}

/* Marks those whose masks are not there yet. They are waited for as long as that costs the others little, and where there
 * are no others about as long as it takes to compute the step again. */
static void collect_masks(engine *g, int64_t forward_us) {
    int64_t begun = clock_us(), patience = forward_us > ALONE_US ? forward_us : ALONE_US;
    int     late = 0;
    for (int i = 0; i < g->n_rows; i++) {
        engine_job *j = g->jobs[g->rows[i].index];
        j->late = j->mask && !mask_next_ready(j->mask, 0);
        late += j->late;
    }
    if (late == 0) {
        return;
    }
    if (late < g->n_rows || g->n_batch - g->n_decoding - g->n_forced > 0) {
        patience = forward_us / LATE_SHARE > LATE_US ? forward_us / LATE_SHARE : LATE_US;
    }
    for (int i = 0; i < g->n_rows; i++) {
        engine_job *j = g->jobs[g->rows[i].index];
        j->late = j->late && !mask_next_ready(j->mask, begun + patience);
        told_add(&g->told.masks_late, j->late);
        told_add(&g->told.prompt_tokens, j->late && !decodes(j) ? -1 : 0); /* it is counted when it is computed again */
    }
    told_add(&g->told.mask_wait_us, clock_us() - begun);
}

static void sample_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    engine *g = arg;
    for (int i = begin; i < end; i++) {
        wanted           *row = &g->rows[i];
        const float      *logits = g->logits + (size_t)i * (size_t)g->m->shape.vocab;
        const engine_job *j = g->jobs[row->index];
        if (!j->late) {
            sampler_next_of(g->samplers[row->slot], logits, j->mask ? mask_next_bits(j->mask) : NULL, &row->choice);
        }
    }
}

static void compute(engine *g) {
    pool_take(g->p); /* other engines' time is not this step's */
    int64_t begun = clock_us();
    g->logits = forward_run(g->pass, g->kv, g->batch, g->n_batch);
    collect_masks(g, clock_us() - begun);
    pool_run(g->p, g->n_rows, 1, sample_rows, g);
    int64_t us = clock_us() - begun;
    pool_give(g->p);
    pace_note(g->pace, g->n_decoding, g->n_batch - g->n_decoding, us);
    told_set(&g->told.token_ns, (int64_t)(pace_token_us(g->pace) * 1000));
    told_add(&g->told.prompt_tokens, g->n_batch - g->n_decoding - g->n_forced);
    histogram_time(&g->told.step, us);
    histogram_batch(&g->told.batch, g->n_batch);
}

/* The cache learns what was computed, the client is charged for what was computed the first time. */
static void commit(engine *g) {
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        if (j->want == 0) {
            continue;
        }
        bool decoded = decodes(j);
        int  from = j->position > j->charged_to ? j->position : j->charged_to;
        j->position += j->want - j->late;
        kv_commit(g->kv, j->slot, j->position);
        j->unpaid += !decoded && j->position > from ? j->position - from : 0;
        j->charged_to = j->position > j->charged_to ? j->position : j->charged_to;
    }
}

/* The context is full: drops the middle; admission begins it again. */
static void slide(engine *g, engine_job *j) {
    int keep = slide_keep(j->ask.slide_keep, g->context);
    admission_release(g, j);
    slide_tokens(j->tokens, j->tokens, j->n, keep, g->context);
    int left = slide_left(keep, g->context);
    j->slid += j->n - left;
    j->n = left;
    j->forced = 0;
    j->charged_to = 0; /* asked for, and new work */
}

static void note_token(engine *g, engine_job *j) {
    int64_t now = clock_us();
    if (!j->first_us) {
        j->first_us = now;
        histogram_time(&g->told.first_token, now - j->submitted_us);
    } else {
        histogram_time(&g->told.inter_token, now - j->newest_us);
    }
    j->newest_us = now;
    j->generated++;
    j->unpaid += FAIR_GENERATED;
}

static bool ends(const engine *g, const engine_job *j, int32_t id) {
    return g->m->tokens && !j->ask.ignore_eos && tokenizer_ends(g->m->tokens, id);
}

static bool is_shown(const engine_job *j, int32_t id) {
    for (int i = 0; i < j->ask.n_shown; i++) {
        if (j->ask.shown[i] == id) {
            return true;
        }
    }
    return false;
}

static void fail_grammar(engine *g, int index) {
    err why = {0};
    err_set(&why, ERR_UNSUPPORTED,
            "the grammar is too ambiguous, or its trigger came within a token, and no token goes on from "
            "here; make it simpler");
    leave(g, index, FINISH_ERROR, NULL, &why);
}

/* Hands a new token of jobs[index] on and looks whether it was the last one. */
static void give_token(engine *g, int index, const sampled *choice) {
    engine_job *j = g->jobs[index];
    int32_t     id = choice->token.id;
    j->tokens[j->n++] = id;
    note_token(g, j);
    if (ends(g, j, id)) {
        leave(g, index, FINISH_STOP, NULL, NULL);
        return;
    }
    const char *bytes = "";
    size_t      n = g->m->tokens ? tokenizer_piece(g->m->tokens, id, is_shown(j, id), &bytes) : 0;
    text_span   shown;
    int         stop = text_add(&j->text, bytes, n, &shown);
    j->ask.piece(j->ask.ctx, &(engine_piece){.text = shown.text, .text_len = shown.len, .choice = choice});
    if (text_failed(&j->text)) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "out of memory for the text of an answer");
        leave(g, index, FINISH_ERROR, NULL, &why);
    } else if (stop >= 0) {
        leave(g, index, FINISH_STOP, j->text.stop[stop].bytes, NULL);
    } else if (j->mask && matcher_done(mask_next_matcher(j->mask))) {
        leave(g, index, FINISH_STOP, NULL, NULL);
    } else if (j->generated == j->ask.max_tokens || (j->n >= g->context && !j->ask.slide)) {
        leave(g, index, FINISH_LENGTH, NULL, NULL);
    } else if (j->n >= g->context) {
        slide(g, j);
    }
}

/* The tokens that the grammar forces after the one that was drawn. The job may be gone after each. */
static void take_forced(engine *g, int index) {
    engine_job *j = g->jobs[index];
    matcher    *m = mask_next_matcher(j->mask);
    int32_t     forced[MASK_FORCED];
    int         slid = j->slid, n = matcher_forced(m, forced, MASK_FORCED);
    for (int i = 0; i < n && g->jobs[index] == j && j->slid == slid && matcher_accept(m, forced[i]); i++) {
        sampler_note(g->samplers[j->slot], forced[i]);
        j->forced++;
        told_add(&g->told.completion_tokens, 1);
        give_token(g, index, &(sampled){.token = {.id = forced[i]}});
    }
}

/* The token that was drawn, and what it forces. The job may be gone after it. The matcher is this thread's until the next
 * step's batch is built. */
static void take_token(engine *g, int index, const sampled *choice) {
    engine_job *j = g->jobs[index];
    int32_t     id = choice->token.id;
    j->forced = 0;
    if (j->mask && (id < 0 || !matcher_accept(mask_next_matcher(j->mask), id))) {
        fail_grammar(g, index);
        return;
    }
    int slid = j->slid;
    give_token(g, index, choice);
    if (g->jobs[index] == j && j->mask && j->slid == slid && j->ask.sampling.top_logprobs < 0) {
        take_forced(g, index);
    }
}

static bool somebody_loads(const engine *g) {
    for (int i = 0; i < g->n_jobs; i++) {
        if (g->jobs[i]->state == JOB_LOADING) {
            return true;
        }
    }
    return false;
}

static void step(engine *g) {
    plan(g, true);
    build_batch(g);
    if (g->n_batch == 0 && !somebody_loads(g)) {
        plan(g, false); /* whatever each waits for, it is better that one gets on */
        build_batch(g);
    }
    g->stuck = g->n_batch == 0;
    if (g->stuck) {
        return;
    }
    compute(g);
    commit(g);
    int64_t now = clock_us();
    told_add(&g->told.steps, 1);
    told_set(&g->told.last_step_us, now);
    for (int row = 0; row < g->n_rows; row++) {
        engine_job *j = g->jobs[g->rows[row].index];
        if (j->late) {
            j->late = false;
            continue;
        }
        told_add(&g->told.completion_tokens, 1);
        told_set(&g->told.last_token_us, now);
        take_token(g, g->rows[row].index, &g->rows[row].choice);
    }
    close_gaps(g);
}

static bool is_any(const fair_ticket *t) {
    (void)t;
    return true;
}

void *schedule_thread(void *arg) {
    engine *g = arg;
    while (gather(g)) {
        drop_cancelled(g);
        admission_run(g);
        if (g->n_jobs > 0) {
            step(g);
        }
    }
    for (int i = 0; i < g->n_jobs; i++) {
        leave(g, i, FINISH_CANCELLED, NULL, NULL);
    }
    close_gaps(g);
    pthread_mutex_lock(&g->lock);
    fair_ticket *rest = fair_pick(g->line, is_any);
    pthread_mutex_unlock(&g->lock);
    finish_line(g, rest);
    return NULL;
}
