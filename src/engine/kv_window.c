#include "engine/kv_window.h"

#include "tensor/attend.h"

#define GROUP (ATTEND_GROUP / KV_TOKENS)
#define SLACK 2 /* entries kept below the window: the next turn of a chat often differs in the last few tokens */

int kv_window_low(int window, int entry) {
    int64_t low = (int64_t)entry * KV_TOKENS + 1 - window;
    return low > 0 ? (int)(low / ATTEND_GROUP) * GROUP : 0;
}

/* From the lowest place of a group to the end of a block that is begun. */
int kv_window_most(int window) {
    return (int)(((int64_t)window + ATTEND_GROUP - 1 + KV_TOKENS - 1) / KV_TOKENS) + 1 + SLACK;
}

int kv_window_usable(const kv_panes *p, int window, const int32_t *nodes, int low, int from, int to) {
    int usable = from, begin = low; /* of the run of panes that reaches up to the entry at hand */
    for (int i = from; i < to; i++) {
        begin = kv_panes_of(p, nodes[i]) == KV_NONE ? i + 1 : begin;
        usable = begin <= kv_window_low(window, i + 1) ? i + 1 : usable;
    }
    return usable;
}

void kv_window_begin(kv_window *w, bool shared) {
    w->low = w->high = w->wanted[0] = w->wanted[1] = 0;
    w->shared = shared;
}

/* Whether somebody may come back to a place that looks at this entry, or may copy its beginning. */
static bool is_wanted(const kv_window *w, int window, int entry) {
    for (int i = 0; i < 2; i++) {
        if (w->wanted[i] && entry <= w->wanted[i] && entry >= kv_window_low(window, w->wanted[i])) {
            return true;
        }
    }
    return false;
}

static void let_go(kv_window *w, kv_panes *p, int entry, kv_rest rest) {
    kv_panes_drop(p, w->table[entry], rest);
    w->table[entry] = KV_NONE;
}

void kv_window_cut(kv_window *w, kv_panes *p, int entry, int whole) {
    while (w->high > entry && w->high > w->low) {
        w->high--;
        let_go(w, p, w->high, w->shared && w->high < whole ? KV_REST_WANTED : KV_REST_FREE);
    }
    if (w->low >= w->high) {
        w->low = w->high = entry < w->low ? entry : w->low;
    }
}

static void drop_below(kv_window *w, kv_panes *p, int window, int low) {
    for (; w->low < low && w->low < w->high; w->low++) {
        let_go(w, p, w->low,
               !w->shared                     ? KV_REST_FREE
               : is_wanted(w, window, w->low) ? KV_REST_WANTED
                                              : KV_REST_PASSED);
    }
}

void kv_window_enter(kv_window *w, kv_panes *p, int window, const int32_t *nodes, int to) {
    int low = kv_window_low(window, to);
    int from = w->high > low ? w->high : low;
    for (int i = from; i < to; i++) { /* before others are let go, which might be the same */
        w->table[i] = kv_panes_of(p, nodes[i]);
        kv_panes_hold(p, w->table[i]);
    }
    drop_below(w, p, window, low);
    w->low = w->low < w->high ? w->low : from;
    w->high = to;
}

bool kv_window_grow(kv_window *w, kv_panes *p, const int32_t *blocks, int to) {
    while (w->high < to) {
        int pane = kv_panes_take(p, blocks[w->high]);
        if (pane == KV_NONE) {
            return false;
        }
        w->table[w->high++] = pane;
    }
    return true;
}

void kv_window_replace(kv_window *w, kv_panes *p, int entry, int own, int same) {
    int here = kv_panes_of(p, own), there = kv_panes_of(p, same);
    if (there == KV_NONE) { /* it was let go, and is here again */
        kv_panes_move(p, here, same);
        return;
    }
    kv_panes_hold(p, there);
    kv_panes_drop(p, here, KV_REST_FREE);
    w->table[entry] = there;
}

void kv_window_pass(kv_window *w, kv_panes *p, int window, int whole) {
    drop_below(w, p, window, kv_window_low(window, whole > SLACK ? whole - SLACK : 0));
}
