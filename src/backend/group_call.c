/* group_call.c - one request through a group: who is asked, again, or twice at once.
 *
 * A try is one call of a member. There are two at the same time at most, the first and its hedge; the one that says
 * something first speaks from then on, and its words pass straight on. What says nothing yet (a role, an id) is held back
 * until then, since nothing can be tried again once the caller has got any of it. The final event comes when no try runs
 * any more: until then the members need the request. All on the call's loop.                                          */
#include <event2/event.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/group_parts.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/spare.h"

#define MAX_HELD       16 /* events of a try, and their bytes, that are held back; then they pass on */
#define MAX_HELD_BYTES (64u << 10)
#define HEDGE_UNITS    100
#define HEDGE_SAVED    (10 * HEDGE_UNITS) /* no more hedges than this in a burst */

static void on_event(void *ctx, const event *ev);

static int index_of(const group *g, const member *m) {
    return (int)(m - g->members);
}

static group_try *other(group_call *c, const group_try *t) {
    return t == &c->tries[0] ? &c->tries[1] : &c->tries[0];
}

/* ---- beginning a try ---- */

static bool begin(group_call *c, group_try *t, int i, circuit_entry how, int64_t now_us, err *e) {
    member *m = &c->g->members[i];
    drops  *d = c->request->drops;
    *t = (group_try){.of = c, .m = m, .how = how, .begun_us = now_us, .hedge = t->hedge};
    t->held_end = &t->held;
    if (d) {
        d->names[0] = '\0';
    }
    t->call = m->backend->ops->start(m->backend, c->home, c->request, m->model, on_event, t, e);
    if (!t->call) {
        circuit_leave(&m->state->circuit, how, t->begun_us);
        return false;
    }
    if (d && d->names[0]) {
        t->dropped = memcpy(c->dropped[t - c->tries], d->names, sizeof d->names);
    }
    atomic_fetch_add(&m->state->in_flight, 1);
    atomic_fetch_add(&m->state->calls, 1);
    c->bills++;
    return true;
}

static void book(group_call *c, const attempt *a);

/* Begins a try at the best member that can take it. False: there is none; e->code is set where members said why. */
static bool launch(group_call *c, err *e) {
    circuit_entry how;
    int64_t       now = clock_us();
    int           i;
    for (;;) {
        group_choice q = group_choice_of(c);
        i = group_pick(c->g, &q, now, &how);
        if (i < 0) {
            return false;
        }
        c->tried |= (uint64_t)1 << i;
        c->tries[0].hedge = false;
        if (begin(c, &c->tries[0], i, how, now, e)) {
            break;
        }
        if (e->code != ERR_UNSUPPORTED && e->code != ERR_BUSY) {
            return false;
        }
        if (e->code == ERR_UNSUPPORTED) { /* its dialect cannot carry the request: perhaps another's can */
            c->never |= (uint64_t)1 << i;
        }
    }
    if (c->begun++ > 0) {
        c->left--;
        atomic_fetch_add(&c->tries[0].m->state->retries, 1);
    }
    if (c->owed.backend) {
        c->owed.why = c->tries[0].m->fallback ? "fallback" : "retry";
        book(c, &c->owed);
        c->owed.backend = NULL;
    }
    return true;
}

/* ---- the end ---- */

static void free_held(group_try *t) {
    for (group_held *h = t->held, *next; h; h = next) {
        next = h->next;
        free(h);
    }
    t->held = NULL;
}

static void put_away(group_call *c) {
    group_call **first = group_running(c->g, loop_index(c->home));
    if (c->prev) {
        c->prev->next = c->next;
    } else if (*first == c) {
        *first = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->timer) {
        event_free(c->timer);
    }
    free_held(&c->tries[0]);
    free_held(&c->tries[1]);
    group_kept_free(c->last);
    free(c->attempts);
    spare_free(c);
}

static void sign(const group_try *t, event *ev) {
    if (t && t->m && !ev->by) { /* a member that is a group has signed already */
        ev->by = t->m->backend->name;
        ev->by_kind = t->m->backend->ops->kind;
        ev->by_model = t->m->model;
    }
}

static void finish(group_call *c, const event *ev) {
    event last = *ev;
    err   gone = {0};
    if (c->cancelled && last.kind == EVENT_ERROR) {
        err_set(&gone, ERR_CANCELLED, "The client went away.");
        last.error = &gone;
        last.status = 499;
        last.body = last.retry_after = NULL;
    }
    last.attempts = c->attempts;
    last.n_attempts = c->n_attempts;
    backend_event_fn fn = c->fn;
    void            *ctx = c->ctx;
    fn(ctx, &last);
    put_away(c);
}

/* Nothing runs that could end the call. */
static void finish_kept(group_call *c) {
    err   why = {0};
    event ev = {.kind = EVENT_ERROR, .error = &why};
    if (c->last) {
        ev = c->last->ev;
    } else {
        err_set(&why, c->cancelled ? ERR_CANCELLED : ERR_MEMORY, "%s: out of memory.", c->g->name);
    }
    finish(c, &ev);
}

static void keep(group_call *c, const group_try *t, const event *ev) {
    event signed_ = *ev;
    sign(t, &signed_);
    group_kept *k = group_keep(&signed_);
    if (k) {
        group_kept_free(c->last);
        c->last = k;
    }
}

/* A try that was not the answer and that its provider may bill. As account.c has it: status 200 where an answer had begun,
 * so that at least the prompt was read. */
static attempt bill_of(const group_try *t, bool answered) {
    return (attempt){.backend = t->m->backend->name,
                     .model = t->m->model,
                     .usage = t->usage,
                     .status = answered ? 200 : 0,
                     .why = "hedge"};
}

static void book(group_call *c, const attempt *a) {
    if (c->n_attempts == c->room) {
        int      room = c->room ? 2 * c->room : 4;
        attempt *more = realloc(c->attempts, (size_t)room * sizeof *more);
        if (!more) {
            return; /* the answer is worth more than a line of the bill */
        }
        c->attempts = more;
        c->room = room;
    }
    c->attempts[c->n_attempts++] = *a;
}

static void stop_timer(group_call *c) {
    c->pausing = false;
    if (c->timer) {
        evtimer_del(c->timer);
    }
}

/* The final event: now, or when the other has ended too. */
static void end(group_call *c, const group_try *t, const event *ev) {
    stop_timer(c);
    if (c->tries[0].call || c->tries[1].call || c->asking) {
        c->over = true;
        keep(c, t, ev);
        return;
    }
    event last = *ev;
    sign(t, &last);
    finish(c, &last);
}

/* ---- what members say ---- */

static void lose(group_try *t) {
    if (t->call && !t->lost) {
        t->lost = true;
        t->m->backend->ops->cancel(t->call);
    }
}

/* The other was slower than this, which is all that is known of it; that must not make it look quicker than it is. */
static void note_slower(const group_try *t, int64_t now_us) {
    if (t->call && (double)(now_us - t->begun_us) > latency_now(&t->m->state->latency, now_us)) {
        latency_note(&t->m->state->latency, now_us - t->begun_us, now_us);
    }
}

/* The first words: from here on nothing else is tried. */
static void speak(group_call *c, group_try *t) {
    int64_t now = clock_us();
    c->speaks = t;
    stop_timer(c);
    latency_note(&t->m->state->latency, now - t->begun_us, now);
    note_slower(other(c, t), now);
    if (c->g->o.hedge) {
        latency_spread_note(&c->g->pace->first[c->request->stream], now - c->tries[0].begun_us);
    }
    if (t->how == CIRCUIT_PROBE) { /* a long answer need not be complete before others are let in */
        circuit_well(&t->m->state->circuit, t->how);
        t->how = CIRCUIT_NORMAL;
        log_info("%s answers again (%s, %s)", t->m->backend->name, c->g->name, t->m->model);
    }
    if (t->hedge) {
        atomic_fetch_add(&t->m->state->hedges_won, 1);
    }
    if (t->dropped) {
        memcpy(c->request->drops->names, t->dropped, sizeof c->request->drops->names);
    } else if (c->request->drops) {
        c->request->drops->names[0] = '\0';
    }
    lose(other(c, t));
    for (group_held *h = t->held; h && !c->cancelled; h = h->next) {
        sign(t, &h->ev);
        c->fn(c->ctx, &h->ev);
    }
    free_held(t);
}

static bool hold(group_try *t, const event *ev) {
    size_t bytes = t->held_bytes + ev->raw_len;
    if (t->n_held >= MAX_HELD || bytes > MAX_HELD_BYTES || !(*t->held_end = group_hold(ev))) {
        return false;
    }
    t->held_end = &(*t->held_end)->next;
    t->held_bytes = bytes;
    t->n_held++;
    return true;
}

static void heard(group_call *c, group_try *t, const event *ev) {
    const usage *told = ev->kind == EVENT_WHOLE ? &ev->whole->usage : ev->usage;
    if (told && told->known) {
        t->usage = *told;
    }
    if (c->cancelled || t->lost) {
        return;
    }
    if (c->speaks != t) {
        if (!group_says(ev) && hold(t, ev)) {
            return;
        }
        speak(c, t);
        if (c->cancelled) { /* by the receiver of what was held */
            return;
        }
    }
    event signed_ = *ev;
    sign(t, &signed_);
    c->fn(c->ctx, &signed_);
}

/* ---- failures ---- */

static bool wait_for(group_call *c, int64_t us);
static void on_leave(void *of, bool granted);

/* Whether one more try may be made: one that cost nothing has left its leave to the next. */
static try_verdict ask_leave(group_call *c) {
    const try_leave *l = c->request->leave;
    if (!l || c->bills < c->granted) {
        return TRY_YES;
    }
    try_verdict said = l->ask(l->ctx, on_leave, c);
    c->asking = said == TRY_LATER;
    c->granted += said == TRY_YES;
    return said;
}

/* How the try before failed, and why there is no other. */
static void finish_unpaid(group_call *c) {
    if (c->last && c->last->ev.error) {
        size_t n = strlen(c->last->error.text);
        snprintf(c->last->error.text + n, sizeof c->last->error.text - n,
                 " It was not tried again: what is left of the budget does not cover one more try.");
    }
    finish_kept(c);
}

static void launch_or_finish(group_call *c) {
    err why = {0};
    if (!launch(c, &why)) {
        finish_kept(c);
    }
}

static void try_again(group_call *c) {
    try_verdict said = c->asking ? TRY_LATER : ask_leave(c);
    if (said == TRY_LATER) {
        c->awaiting = true;
    } else if (said == TRY_YES) {
        launch_or_finish(c);
    } else {
        finish_unpaid(c);
    }
}

/* The next try, now or after a pause; `c->last` is how the one before failed. */
static void go_on(group_call *c, const member *failed, verdict v) {
    int64_t wait = group_plan(c, failed, v);
    if (wait > 0 && wait_for(c, wait)) {
        c->pausing = true;
    } else if (wait != 0 && c->asking) {
        c->over = true; /* leave for a hedge is still to come: on_leave ends the call */
    } else if (wait != 0) {
        finish_kept(c);
    } else {
        try_again(c);
    }
}

/* A try that has said nothing to the caller has failed. */
static void failed(group_call *c, group_try *t, const event *ev) {
    verdict v = group_judge(ev);
    attempt bill = bill_of(t, true);
    bool    costs = ev->begun || t->n_held > 0 || t->usage.known;
    c->bills -= !costs;
    group_learn(c, t, ev, v);
    free_held(t);
    if (v == ELSEWHERE) {
        c->never |= (uint64_t)1 << index_of(c->g, t->m);
    }
    if (v == THE_ANSWER) {
        lose(other(c, t));
        end(c, t, ev);
        return;
    }
    keep(c, t, ev);
    if (other(c, t)->call) { /* then that is the next group_try */
        if (costs) {
            book(c, &bill);
        }
        return;
    }
    stop_timer(c);
    log_debug("%s: try %d failed: %s", c->g->name, c->begun, ev->error ? ev->error->text : "");
    if (costs) {
        c->owed = bill;
    }
    go_on(c, t->m, v);
}

/* ---- how a try ends ---- */

/* The one that lost, or one of a call that was cancelled while the other still runs. */
static void ended_in_vain(group_call *c, group_try *t, const event *ev) {
    if (ev->kind == EVENT_DONE) {
        circuit_well(&t->m->state->circuit, t->how);
    } else if (group_judge(ev) == FAULT) { /* it failed before it heard that it had lost */
        group_learn(c, t, ev, FAULT);
    } else {
        circuit_leave(&t->m->state->circuit, t->how, clock_us());
    }
    attempt bill = bill_of(t, false);
    book(c, &bill);
    if (c->over && !other(c, t)->call && !c->asking) {
        finish_kept(c);
    }
}

static void ended(group_call *c, group_try *t, const event *ev) {
    t->call = NULL;
    atomic_fetch_sub(&t->m->state->in_flight, 1);
    if (ev->usage && ev->usage->known) {
        t->usage = *ev->usage;
    }
    if (t->lost || (c->cancelled && c->speaks != t && other(c, t)->call)) {
        ended_in_vain(c, t, ev);
        return;
    }
    if (ev->kind == EVENT_DONE) {
        if (c->speaks != t) { /* complete without a word */
            c->ending = true;
            speak(c, t);
        }
        circuit_well(&t->m->state->circuit, t->how);
        end(c, t, ev);
    } else if (c->speaks == t || c->cancelled) {
        group_learn(c, t, ev, group_judge(ev));
        end(c, t, ev);
    } else {
        failed(c, t, ev);
    }
}

static void on_event(void *ctx, const event *ev) {
    group_try *t = ctx;
    if (ev->kind == EVENT_DONE || ev->kind == EVENT_ERROR) {
        ended(t->of, t, ev);
    } else {
        heard(t->of, t, ev);
    }
}

/* ---- pauses and hedges ---- */

/* From the budget, which every call fills by its share of a hedge. */
static bool take_hedge(group *g) {
    int seen = atomic_load(&g->pace->budget);
    while (seen >= HEDGE_UNITS) {
        if (atomic_compare_exchange_weak(&g->pace->budget, &seen, seen - HEDGE_UNITS)) {
            return true;
        }
    }
    return false;
}

static void earn_hedge(group *g) {
    int seen = atomic_load(&g->pace->budget), to;
    do {
        to = seen + g->o.hedge_percent < HEDGE_SAVED ? seen + g->o.hedge_percent : HEDGE_SAVED;
    } while (seen != to && !atomic_compare_exchange_weak(&g->pace->budget, &seen, to));
}

static void return_hedge(group *g) {
    atomic_fetch_add(&g->pace->budget, HEDGE_UNITS);
}

static void begin_hedge(group_call *c) {
    group        *g = c->g;
    group_try    *first = &c->tries[0], *second = &c->tries[1];
    circuit_entry how;
    err           why = {0};
    int64_t       now = clock_us();
    int           i = group_pick_hedge(g, index_of(g, first->m), c->tried | c->never, now, &how);
    second->hedge = true;
    if (i < 0 || !begin(c, second, i, how, now, &why)) {
        return_hedge(g);
        return;
    }
    c->tried |= (uint64_t)1 << i;
    atomic_fetch_add(&second->m->state->hedges, 1);
}

static void hedge(group_call *c) {
    if (!c->tries[0].call || c->speaks || c->asking || !take_hedge(c->g)) {
        return;
    }
    try_verdict said = ask_leave(c);
    c->of_hedge = said == TRY_LATER;
    if (said == TRY_YES) {
        begin_hedge(c);
    } else if (said == TRY_NO) {
        return_hedge(c->g);
    }
}

/* What has happened while somebody was asked decides what the leave is good for. */
static void on_leave(void *of, bool granted) {
    group_call *c = of;
    bool        next = c->awaiting, runs = c->tries[0].call || c->tries[1].call;
    c->asking = c->awaiting = false;
    c->granted += granted;
    if (c->of_hedge) {
        c->of_hedge = false;
        if (granted && c->tries[0].call && !c->tries[1].call && !c->speaks && !c->cancelled && !c->over) {
            begin_hedge(c);
            return;
        }
        return_hedge(c->g);
    }
    if ((c->cancelled || c->over) && !runs) {
        finish_kept(c);
    } else if (next && (granted || c->bills < c->granted)) { /* the first try failed for free: its hold is left */
        launch_or_finish(c);
    } else if (next) {
        finish_unpaid(c);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    group_call *c = arg;
    if (c->cancelled) {
        return;
    }
    if (!c->pausing) {
        hedge(c);
        return;
    }
    c->pausing = false;
    try_again(c);
}

static bool wait_for(group_call *c, int64_t us) {
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    c->timer = c->timer ? c->timer : evtimer_new(loop_base(c->home), on_timer, c);
    return c->timer && evtimer_add(c->timer, &tv) == 0;
}

static void watch_for_hedge(group_call *c) {
    group  *g = c->g;
    int64_t after = g->o.hedge_after_us > 0 ? g->o.hedge_after_us : latency_p95(&g->pace->first[c->request->stream]);
    earn_hedge(g);
    if (after > 0) {
        wait_for(c, after);
    }
}

/* ---- start, cancel ---- */

static void on_task(loop_task *task) {
    finish_kept((group_call *)task);
}

static void post(group_call *c) {
    if (!c->posted) {
        c->posted = true;
        c->task.run = on_task;
        loop_post(c->home, &c->task);
    }
}

/* Nobody can be asked: the final event says for how long. */
static void refuse(group_call *c) {
    err     why = {0};
    int64_t wait = group_wait(c->g, c->never, clock_us());
    char    seconds[24];
    event   ev = {.kind = EVENT_ERROR, .error = &why, .status = 503, .retry_after = seconds};
    snprintf(seconds, sizeof seconds, "%lld", (long long)((wait + 999999) / 1000000));
    err_set(&why, ERR_BUSY, "All who can answer for %s keep failing and are left alone for now; try again in %s s.",
            c->g->name, seconds);
    keep(c, NULL, &ev);
    post(c);
}

backend_call *group_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                          err *e) {
    (void)model; /* each member has its own name for it */
    group      *g = (group *)b;
    err         why;
    group_call *c = loop_index(l) < GROUP_MAX_LOOPS ? spare_malloc(sizeof *c) : NULL;
    if (!c) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        return NULL;
    }
    memset(c, 0, offsetof(group_call, dropped));
    c->g = g;
    c->home = l;
    c->request = r;
    c->fn = fn;
    c->ctx = ctx;
    c->left = g->o.retries;
    c->granted = 1;
    why.code = ERR_NONE;
    bool begun = launch(c, &why);
    if (!begun && why.code != ERR_NONE) {
        if (e) {
            *e = why;
        }
        spare_free(c);
        return NULL;
    }
    group_call **running = group_running(g, loop_index(l));
    c->next = *running;
    if (c->next) {
        c->next->prev = c;
    }
    *running = c;
    if (!begun) {
        refuse(c);
    } else if (g->o.hedge) {
        watch_for_hedge(c);
    }
    return (backend_call *)c;
}

void group_cancel(backend_call *call) {
    group_call *c = (group_call *)call;
    bool        runs = c->tries[0].call || c->tries[1].call;
    if (c->cancelled) {
        return;
    }
    c->cancelled = true;
    stop_timer(c);
    if (!runs) {
        if (!c->ending && !c->asking) {
            post(c);
        }
        return;
    }
    for (int i = 0; i < 2; i++) {
        group_try *t = &c->tries[i];
        if (t->call && !t->lost) {
            t->m->backend->ops->cancel(t->call);
        }
    }
}

void group_abandon(group *g) {
    for (int i = 0; i < GROUP_MAX_LOOPS; i++) {
        for (group_call *c = g->running[i], *next; c; c = next) {
            next = c->next;
            put_away(c);
        }
    }
}
