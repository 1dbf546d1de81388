/* group_parts.h - the rooms of a group, for its own files only.
 *
 * group.c opens, closes and tells; group_pick.c chooses a member; group_call.c carries one request; group_judge.c says
 * what a failure means and what comes next; group_keep.c keeps events for later.                                      */
#ifndef PARE_BACKEND_GROUP_PARTS_H
#define PARE_BACKEND_GROUP_PARTS_H

#include "backend/circuit.h"
#include "backend/group.h"
#include "backend/latency.h"

#define GROUP_MAX_TARGETS 64 /* a call keeps sets of them in one word */
#define GROUP_MAX_LOOPS   256

typedef struct member_state { /* shared by all loops, and by the group that takes this one's place (group_inherit) */
    _Atomic int     groups;
    circuit         circuit;
    latency         latency;
    _Atomic int     in_flight;
    _Atomic int64_t calls, failures, retries, hedges,
        hedges_won; /* retries, hedges: those of the calls that were one */
} member_state;

typedef struct member {
    backend      *backend;
    char         *model;
    int           weight;
    bool          fallback;
    member_state *state;
} member;

typedef struct group_call group_call;

typedef struct group_pace { /* shared as member_state is */
    _Atomic int      groups;
    _Atomic uint64_t turn;     /* of the weighted choice */
    _Atomic int      budget;   /* for hedges: hundredths of one */
    latency_spread   first[2]; /* time to the first words, by request.stream */
} group_pace;

typedef struct group {
    backend            base; /* first */
    char              *name;
    group_options      o;
    circuit_limits     limits;
    int                n, n_row; /* members; those of the first row come first */
    member            *members;
    group_pace        *pace;
    struct group_call *running[GROUP_MAX_LOOPS]; /* by loop: group_running */
} group;

/* Neighbouring loops' lists are a cache line (64 bytes) apart: each writes its own with every call. */
static inline struct group_call **group_running(group *g, int loop) {
    const int line = 64 / (int)sizeof g->running[0], lines = GROUP_MAX_LOOPS / line;
    return &g->running[loop % lines * line + loop / lines];
}

extern const backend_ops group_ops;

/* ---- group_pick.c ---- */

typedef struct group_choice {
    uint64_t without;  /* bits of members that are out of the question */
    bool     row_last; /* no more tries than fallbacks are left: those come first */
} group_choice;

/* The best member now, whose circuit has let the call in; -1: none can be asked now. One that wants to be left alone (429)
 * is asked when no other can be. */
int     group_pick(group *g, const group_choice *q, int64_t now_us, circuit_entry *how);
/* The same without entering, among those who do not want to be left alone. */
int     group_peek(group *g, const group_choice *q, int64_t now_us);
/* For a second request at the same time: another one of the row, or the same; -1: none. */
int     group_pick_hedge(group *g, int first, uint64_t without, int64_t now_us, circuit_entry *how);
/* When the first of them all can be asked. */
int64_t group_wait(const group *g, uint64_t without, int64_t now_us);

/* 0..1 with 1 left out. */
double group_random(group *g);

/* ---- group_keep.c ---- */

/* A delta that says nothing yet (a role, an id), for when somebody says more. */
typedef struct group_held {
    event              ev;
    usage              usage;
    struct group_held *next;
    char               bytes[]; /* its texts */
} group_held;

bool        group_says(const event *ev); /* something of an answer */
group_held *group_hold(const event *ev); /* NULL: out of memory */

/* A final event that others have to wait for. */
typedef struct group_kept {
    event     ev;
    err       error;
    usage     usage;
    kv_report kv;
    char     *body;
    char      type[96], retry_after[64];
} group_kept;

group_kept *group_keep(const event *ev); /* NULL: out of memory */
void        group_kept_free(group_kept *k);

/* ---- group_call.c ---- */

typedef struct group_try {
    group_call   *of;
    member       *m;
    backend_call *call; /* NULL: it does not run */
    circuit_entry how;
    int64_t       begun_us;
    bool          hedge, lost; /* lost: cancelled, since the other speaks */
    group_held   *held, **held_end;
    int           n_held;
    size_t        held_bytes;
    usage         usage;   /* as far as told */
    char         *dropped; /* request.drops of this group_try, in of->dropped; NULL: none */
} group_try;

struct group_call {
    loop_task        task; /* first */
    group_call      *next, *prev;
    group           *g;
    loop            *home;
    const request   *request;
    backend_event_fn fn;
    void            *ctx;
    struct event    *timer; /* NULL until something waits */
    bool             pausing, cancelled, posted;
    bool             asking;   /* for leave to make one more try: TRY_LATER */
    bool             of_hedge; /* the leave is for a hedge, which has been taken from the group's budget */
    bool             awaiting; /* the next try waits for it */
    int              bills;    /* tries that may be billed, those that run included */
    int              granted;  /* tries for which there is leave; the first needs none */
    bool             over;     /* `last` is the final event, and waits until no try runs */
    bool             ending;   /* inside the final event of the only group_try */
    bool             wrapped;  /* all have been tried, and are tried again */
    group_try        tries[2];
    group_try       *speaks;       /* NULL: nobody has said anything */
    uint64_t         tried, never; /* members; never: nothing is to be had of them for this request */
    int              begun, left;  /* tries so far, but hedges; further ones that may be made */
    group_kept      *last;         /* how the last try failed, or the final event */
    attempt          owed;         /* that try, to be booked when another follows; backend NULL: it costs nothing */
    attempt         *attempts;
    int              n_attempts, room;
    char             dropped[2][sizeof(((drops *)0)->names)]; /* of the tries. Last: not zeroed */
};

backend_call *group_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                          err *e);
void          group_cancel(backend_call *call);
void          group_abandon(group *g); /* at the end of everything: what still runs ends without a word */

/* ---- group_judge.c ---- */

typedef enum verdict {
    THE_ANSWER, /* of the request itself: it would fail anywhere */
    ELSEWHERE,  /* of the member's key or dialect: another may do */
    AGAIN,      /* 408, 409: no fault of the member */
    BUSY,       /* 429 */
    FAULT
} verdict;

verdict group_judge(const event *ev); /* of an EVENT_ERROR */
/* What the circuit, the estimate and the counters learn of it. */
void    group_learn(group_call *c, group_try *t, const event *ev, verdict v);
/* How long to wait for the next try, when that of `failed` was the last; -1: there is none. */
int64_t group_plan(group_call *c, const member *failed, verdict v);

group_choice group_choice_of(const group_call *c); /* for the next group_try */

#endif
