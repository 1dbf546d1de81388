/* attention.c - the plan of a step, and its two rounds: common parts first, then each one's own. */
#include "engine/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/kernels.h"

#define CHUNK_ROWS   128 /* of a chunk of prefill: enough that keys are read once for many queries */
#define SHARED_ROWS  512 /* of sequences with a common beginning */
#define GROUP_BLOCKS (ATTEND_GROUP / KV_TOKENS)

/* Tokens [first, first + n) of the plan's order, which read the same blocks up to `shared`. */
typedef struct attend_set {
    int first, n;
    int shared; /* positions that all of them share and that are read in the first round; 0: none */
} attend_set;

/* A piece of work of one K/V head: tokens [first, first + n) of the order, positions [from, to). */
typedef struct attend_item {
    int  set, head, first, n;
    int  from, to;
    bool begins, ends; /* the rows' state is empty before it; the answer is complete after it */
} attend_item;

typedef struct item_list {
    attend_item *items; /* of both rounds */
    int          n_first, n;
} item_list;

struct attention {
    const model_shape *shape;
    pool              *p;
    const kernels     *k;
    int                group, max_tokens;

    /* The plan. */
    const kv_cache *kv;
    int             n;
    int            *order;    /* [n] rows, set by set */
    int            *position; /* [n] of order[i] */
    int            *until;    /* [n] it sees the positions before */
    int            *sequence; /* [n] */
    attend_set     *sets;
    int             n_sets;
    item_list       whole;    /* the work of a layer that sees the whole history */
    item_list       windowed; /* and of one that sees a window */

    /* The rows of a set lie as [kv head][token][group], so that those of an item lie together; [max_tokens * heads]. */
    float *q, *acc;
    float *peak, *sum;
    int   *limit, *low;
    char  *scratch;
    size_t scratch_bytes; /* of a thread */

    /* The layer at hand. */
    int              layer, window; /* 0: none */
    const item_list *list;
    const float     *q_in;
    float           *out;
};

/* ---- memory ---- */

static void *room(size_t n, size_t size, bool *ok) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 64) {
        *ok = false;
        return NULL;
    }
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);
    *ok &= p != NULL;
    return p;
}

static int most_rows(const attention *a) {
    return a->group > SHARED_ROWS ? a->group : SHARED_ROWS;
}

attention *attention_new(const model_shape *shape, pool *p, int max_tokens, err *e) {
    attention *a = calloc(1, sizeof *a);
    if (!a) {
        err_set(e, ERR_MEMORY, "out of memory for attention");
        return NULL;
    }
    *a = (attention){
        .shape = shape, .p = p, .k = kernels_get(), .group = shape->heads / shape->kv_heads, .max_tokens = max_tokens};
    bool   ok = true;
    size_t tokens = (size_t)max_tokens, rows = tokens * (size_t)shape->heads;
    a->order = room(tokens, sizeof *a->order, &ok);
    a->position = room(tokens, sizeof *a->position, &ok);
    a->sequence = room(tokens, sizeof *a->sequence, &ok);
    a->sets = room(tokens, sizeof *a->sets, &ok);
    a->until = room(tokens, sizeof *a->until, &ok);
    a->whole.items = room(2 * tokens * (size_t)shape->kv_heads, sizeof *a->whole.items, &ok);
    if (shape->window)
        a->windowed.items = room(tokens * (size_t)shape->kv_heads, sizeof *a->windowed.items, &ok);
    a->q = room(rows, (size_t)shape->head_dim * sizeof *a->q, &ok);
    a->acc = room(rows, (size_t)shape->head_dim * sizeof *a->acc, &ok);
    a->peak = room(rows, sizeof *a->peak, &ok);
    a->sum = room(rows, sizeof *a->sum, &ok);
    a->limit = room(rows, sizeof *a->limit, &ok);
    a->low = room(rows, sizeof *a->low, &ok);
    a->scratch_bytes = (attend_scratch(most_rows(a), shape->head_dim) + tokens + 63) / 64 * 64;
    a->scratch = room((size_t)pool_threads(p), a->scratch_bytes, &ok);
    if (!ok) {
        attention_free(a);
        err_set(e, ERR_MEMORY, "out of memory for the attention of %d tokens a step; lower the tokens of a step",
                max_tokens);
        return NULL;
    }
    return a;
}

void attention_free(attention *a) {
    if (!a)
        return;
    free(a->order);
    free(a->position);
    free(a->sequence);
    free(a->until);
    free(a->sets);
    free(a->whole.items);
    free(a->windowed.items);
    free(a->q);
    free(a->acc);
    free(a->peak);
    free(a->sum);
    free(a->limit);
    free(a->low);
    free(a->scratch);
    free(a);
}

/* ---- the plan ---- */

/* Leading positions that two tokens' histories share, in whole groups before either token. */
static int common(const attention *a, int i, int j) {
    const int32_t *x = kv_table(a->kv, a->sequence[i]), *y = kv_table(a->kv, a->sequence[j]);
    int            most = (a->position[i] < a->position[j] ? a->position[i] : a->position[j]) / ATTEND_GROUP;
    int            groups = 0;
    while (groups < most && memcmp(x + groups * GROUP_BLOCKS, y + groups * GROUP_BLOCKS, GROUP_BLOCKS * sizeof *x) == 0)
        groups++;
    return groups * ATTEND_GROUP;
}

/* `until` of a row whose run of its sequence ends with the token `last`. */
static void put(attention *a, const forward_token *tokens, const int *rows, int row, int last) {
    a->order[a->n] = row;
    a->position[a->n] = tokens[rows[row]].position;
    a->until[a->n] = tokens[a->shape->causal ? rows[row] : last].position + 1;
    a->sequence[a->n++] = tokens[rows[row]].sequence;
}

/* Tokens of one sequence that lie together, as many as make a tile. Returns the row after them. */
static int take_chunk(attention *a, const forward_token *tokens, const int *rows, int row, int n) {
    int         most = CHUNK_ROWS / a->group > 1 ? CHUNK_ROWS / a->group : 1;
    attend_set *set = &a->sets[a->n_sets++];
    *set = (attend_set){.first = a->n};
    int sequence = tokens[rows[row]].sequence, end = row;
    while (end < n && tokens[rows[end]].sequence == sequence)
        end++;
    while (row < end && set->n < most) {
        put(a, tokens, rows, row++, rows[end - 1]);
        set->n++;
    }
    return row;
}

static bool alone(const forward_token *tokens, const int *rows, int row, int n) {
    int sequence = tokens[rows[row]].sequence;
    return (row == 0 || tokens[rows[row - 1]].sequence != sequence) &&
           (row + 1 == n || tokens[rows[row + 1]].sequence != sequence);
}

/* Joins the single tokens after `row` that share its beginning. Those that are in a set already have order >= 0. */
static void gather_sharers(attention *a, const forward_token *tokens, const int *rows, int row, int n, char *taken) {
    int         most = SHARED_ROWS / a->group > 1 ? SHARED_ROWS / a->group : 1;
    int         at = a->n;
    attend_set *set = &a->sets[a->n_sets++];
    *set = (attend_set){.first = at, .n = 1};
    put(a, tokens, rows, row, rows[row]);
    taken[row] = 1;
    for (int other = row + 1; other < n && set->n < most; other++) {
        if (taken[other] || !alone(tokens, rows, other, n))
            continue;
        put(a, tokens, rows, other, rows[other]);
        int shared = common(a, at, a->n - 1);
        /* who shares less than half of what the others do stays alone: the common part is that of all */
        if (shared == 0 || (set->shared && shared * 2 < set->shared)) {
            a->n--;
            continue;
        }
        set->shared = set->shared && set->shared < shared ? set->shared : shared;
        set->n++;
        taken[other] = 1;
    }
}

static void add_item(const attention *a, item_list *list, attend_item item) {
    for (item.head = 0; item.head < a->shape->kv_heads; item.head++)
        list->items[list->n++] = item;
}

/* The common parts, then what is left of each. */
static void list_whole(attention *a) {
    item_list *list = &a->whole;
    list->n = 0;
    for (int s = 0; s < a->n_sets; s++) {
        const attend_set *set = &a->sets[s];
        if (set->shared)
            add_item(a, list,
                     (attend_item){.set = s, .first = set->first, .n = set->n, .to = set->shared, .begins = true});
    }
    list->n_first = list->n;
    for (int s = 0; s < a->n_sets; s++) {
        const attend_set *set = &a->sets[s];
        attend_item       item = {
                  .set = s, .first = set->first, .n = 1, .from = set->shared, .begins = !set->shared, .ends = true};
        if (!set->shared)
            item.n = set->n;
        for (; item.first < set->first + set->n; item.first += item.n) {
            item.to = a->until[item.first + item.n - 1];
            add_item(a, list, item);
        }
    }
}

/* Windows are short: each set's tokens read their own, or that of the chunk, in one round. */
static void list_windowed(attention *a) {
    item_list *list = &a->windowed;
    list->n = list->n_first = 0;
    for (int s = 0; s < a->n_sets; s++) {
        const attend_set *set = &a->sets[s];
        attend_item       item = {.set = s, .first = set->first, .n = 1, .begins = true, .ends = true};
        if (!set->shared)
            item.n = set->n;
        for (; item.first < set->first + set->n; item.first += item.n) {
            int low = a->position[item.first] + 1 - a->shape->window;
            item.from = low > 0 ? low / ATTEND_GROUP * ATTEND_GROUP : 0;
            item.to = a->until[item.first + item.n - 1];
            add_item(a, list, item);
        }
    }
}

void attention_plan(attention *a, const kv_cache *kv, const forward_token *tokens, const int *rows, int n) {
    char *taken = a->scratch; /* nobody computes now */
    a->kv = kv;
    a->n = a->n_sets = 0;
    memset(taken, 0, (size_t)n);
    for (int row = 0; row < n;) {
        if (alone(tokens, rows, row, n)) {
            if (!taken[row])
                gather_sharers(a, tokens, rows, row, n, taken);
            row++;
        } else {
            row = take_chunk(a, tokens, rows, row, n);
        }
    }
    list_whole(a);
    if (a->shape->window)
        list_windowed(a);
}

void attention_shared(const attention *a, int *tokens, int64_t *positions) {
    *tokens = 0;
    *positions = 0;
    for (int s = 0; s < a->n_sets; s++)
        if (a->sets[s].shared) {
            *tokens += a->sets[s].n;
            *positions += (int64_t)(a->sets[s].n - 1) * a->sets[s].shared;
        }
}

/* ---- a layer ---- */

/* Where the rows of token `i` of the order and a K/V head begin. */
static size_t row_at(const attention *a, const attend_item *item, int i) {
    const attend_set *set = &a->sets[item->set];
    return (size_t)set->first * (size_t)a->shape->heads +
           ((size_t)item->head * (size_t)set->n + (size_t)(i - set->first)) * (size_t)a->group;
}

/* Queries come in scaled; the running state is empty. */
static void begin_rows(attention *a, const attend_item *item, size_t at) {
    int   dim = a->shape->head_dim;
    float scale = a->shape->attn_scale;
    for (int i = item->first; i < item->first + item->n; i++) {
        const float *from =
            a->q_in +
            ((size_t)a->order[i] * (size_t)a->shape->heads + (size_t)item->head * (size_t)a->group) * (size_t)dim;
        for (int g = 0; g < a->group; g++, at++) {
            float *to = a->q + at * (size_t)dim;
            for (int d = 0; d < dim; d++)
                to[d] = *from++ * scale;
            a->limit[at] = a->until[i];
            a->low[at] = a->window && a->position[i] >= a->window ? a->position[i] + 1 - a->window : 0;
            a->peak[at] = -INFINITY;
            a->sum[at] = 0;
        }
    }
}

static void end_rows(attention *a, const attend_item *item, size_t at) {
    int dim = a->shape->head_dim;
    for (int i = item->first; i < item->first + item->n; i++) {
        float *to = a->out + ((size_t)a->order[i] * (size_t)a->shape->heads + (size_t)item->head * (size_t)a->group) *
                                 (size_t)dim;
        for (int g = 0; g < a->group; g++, at++) {
            const float *acc = a->acc + at * (size_t)dim;
            float        inverse = 1.0f / a->sum[at];
            for (int d = 0; d < dim; d++)
                *to++ = acc[d] * inverse;
        }
    }
}

static void do_item(attention *a, const attend_item *item, int thread) {
    size_t      dim = (size_t)a->shape->head_dim, at = row_at(a, item, item->first);
    int         rows = item->n * a->group;
    kv_view     view = kv_head(a->kv, a->layer, item->head);
    attend_span span = {.layout = view.layout,
                        .blocks = view.blocks,
                        .block_bytes = view.block_bytes,
                        .values_at = view.values_at,
                        .table = kv_layer_table(a->kv, a->layer, a->sequence[item->first]),
                        .from = item->from,
                        .to = item->to,
                        .rows = rows,
                        .q = a->q + at * dim,
                        .limit = a->limit + at,
                        .low = a->window ? a->low + at : NULL,
                        .cap = a->shape->attn_cap,
                        .peak = a->peak + at,
                        .sum = a->sum + at,
                        .acc = a->acc + at * dim,
                        .scratch = a->scratch + (size_t)thread * a->scratch_bytes};
    if (item->begins) {
        begin_rows(a, item, at);
        memset(span.acc, 0, (size_t)rows * dim * sizeof *span.acc);
    }
    a->k->attend(&span);
    if (item->ends)
        end_rows(a, item, at);
}

static void first_round(void *arg, int begin, int end, int thread) {
    attention *a = arg;
    for (int i = begin; i < end; i++)
        do_item(a, &a->list->items[i], thread);
}

static void second_round(void *arg, int begin, int end, int thread) {
    attention *a = arg;
    for (int i = begin; i < end; i++)
        do_item(a, &a->list->items[a->list->n_first + i], thread);
}

void attention_run(attention *a, const kv_cache *kv, int layer, const float *q, float *out) {
    a->kv = kv;
    a->layer = layer;
    a->window = model_window(a->shape, layer);
    a->list = a->window ? &a->windowed : &a->whole;
    a->q_in = q;
    a->out = out;
    pool_run(a->p, a->list->n_first, 1, first_round, a);
    pool_run(a->p, a->list->n - a->list->n_first, 1, second_round, a);
}
