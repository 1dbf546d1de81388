/* replay_report.c - what the replayed requests cost, saved and took, by who answered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/replay.h"

typedef struct group {
    char     name[80];
    int      count;
    int64_t  prompt, completion, cost, saved;
    int64_t *times;
} group;

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_ms(const group *g, double share) {
    if (g->count == 0) {
        return 0;
    }
    int at = (int)(share * g->count);
    return (double)g->times[at < g->count ? at : g->count - 1] / 1e3;
}

static void add(group *g, const replay_result *r) {
    g->times[g->count++] = r->total_us;
    g->prompt += r->prompt_tokens;
    g->completion += r->completion_tokens;
    g->cost += r->cost_micro;
    g->saved += r->saved_micro;
}

static group *find(group *groups, int *n, const replay_result *r) {
    const char *name = !r->ok ? "failed" : r->answered_by[0] ? r->answered_by : "server";
    for (int i = 0; i < *n; i++) {
        if (strcmp(groups[i].name, name) == 0) {
            return &groups[i];
        }
    }
    if (*n == REPLAY_ANSWERERS) {
        return &groups[REPLAY_ANSWERERS - 1];
    }
    snprintf(groups[*n].name, sizeof groups[*n].name, "%s", name);
    return &groups[(*n)++];
}

static void print_group(const group *g, int total) {
    printf("  %-24s %5d %5.1f %%  %9lld %9lld  $%.6f  $%.6f  %9.2f %9.2f %9.2f\n", g->name, g->count,
           100.0 * g->count / total, (long long)g->prompt, (long long)g->completion, (double)g->cost / 1e6,
           (double)g->saved / 1e6, percentile_ms(g, 0.5), percentile_ms(g, 0.9), percentile_ms(g, 0.99));
}

static void print_text(const group *all, const group *groups, int n, const replay_run *r, const char *error) {
    double wall = (double)r->wall_us / 1e6;
    printf("\n%d requests in %.2f s, %.1f a second, %d at once\n\n", all->count, wall, wall > 0 ? all->count / wall : 0,
           r->concurrency);
    printf("  %-24s %5s %7s  %9s %9s  %9s  %9s  %9s %9s %9s\n", "answered by", "count", "share", "prompt", "completion",
           "cost", "saved", "p50 ms", "p90 ms", "p99 ms");
    for (int i = 0; i < n; i++) {
        print_group(&groups[i], all->count);
    }
    print_group(all, all->count);
    int64_t whole = all->cost + all->saved;
    if (whole > 0) {
        printf("\nWithout pare: $%.6f   with pare: $%.6f   saved: $%.6f (%.1f %%)\n", (double)whole / 1e6,
               (double)all->cost / 1e6, (double)all->saved / 1e6, 100.0 * (double)all->saved / (double)whole);
    }
    if (error) {
        printf("\nFirst failure: %s\n", error);
    }
}

static void json_group(str *out, const group *g) {
    str_adds(out, "{\"answered_by\":");
    str_jsons(out, g->name);
    str_addf(out, ",\"count\":%d,\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"cost_usd\":", g->count,
             (long long)g->prompt, (long long)g->completion);
    str_usd(out, g->cost);
    str_adds(out, ",\"saved_usd\":");
    str_usd(out, g->saved);
    str_addf(out, ",\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f}", percentile_ms(g, 0.5), percentile_ms(g, 0.9),
             percentile_ms(g, 0.99));
}

static void print_json(const group *all, const group *groups, int n, const replay_run *r, const char *error) {
    str    out = {0};
    double wall = (double)r->wall_us / 1e6;
    str_addf(&out, "{\"requests\":%d,\"wall_s\":%.6f,\"per_second\":%.3f,\"concurrency\":%d,\"all\":", all->count, wall,
             wall > 0 ? all->count / wall : 0, r->concurrency);
    json_group(&out, all);
    str_adds(&out, ",\"by\":[");
    for (int i = 0; i < n; i++) {
        str_adds(&out, i ? "," : "");
        json_group(&out, &groups[i]);
    }
    str_adds(&out, "],\"first_failure\":");
    str_jsons(&out, error);
    str_adds(&out, "}\n");
    fwrite(out.data, 1, out.len, stdout);
    str_free(&out);
}

void replay_report(const replay_plan *p, const replay_run *r, bool json) {
    group       groups[REPLAY_ANSWERERS] = {0}, all = {.name = "all"};
    int         n = 0;
    const char *error = NULL;
    size_t      room = (size_t)p->count * sizeof(int64_t);
    bool        ok = (all.times = malloc(room)) != NULL;
    for (int i = 0; i < REPLAY_ANSWERERS && ok; i++) {
        ok = (groups[i].times = malloc(room)) != NULL;
    }
    for (int i = 0; i < p->count && ok; i++) {
        add(find(groups, &n, &r->results[i]), &r->results[i]);
        add(&all, &r->results[i]);
        if (!error && r->results[i].error[0]) {
            error = r->results[i].error;
        }
    }
    if (ok) {
        qsort(all.times, (size_t)all.count, sizeof *all.times, by_size);
        for (int i = 0; i < n; i++) {
            qsort(groups[i].times, (size_t)groups[i].count, sizeof *groups[i].times, by_size);
        }
        (json ? print_json : print_text)(&all, groups, n, r, error);
    }
    free(all.times);
    for (int i = 0; i < REPLAY_ANSWERERS; i++) {
        free(groups[i].times);
    }
}
