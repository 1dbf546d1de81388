/* eval_diff.c - where two files' logits part. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/eval.h"
#include "learn/statistics.h"

typedef struct place { /* of one row */
    int       list, position;
    int32_t   id; /* the token there */
    deviation d;
    float     a, b;             /* logits at d.first */
    float     worst_a, worst_b; /* and at d.at */
    bool      same_top;
} place;

typedef struct sum {
    eval            *v;
    const eval_rows *rows;
    place           *places;
    size_t           n, cap;
} sum;

static bool same_top(const float *a, const float *b, int n) {
    int x = 0, y = 0;
    for (int i = 1; i < n; i++) {
        x = a[i] > a[x] ? i : x;
        y = b[i] > b[y] ? i : y;
    }
    return x == y;
}

static void compare(void *arg, int begin, int end, int thread) {
    sum *s = arg;
    (void)thread;
    size_t vocab = (size_t)s->v->vocab;
    for (int i = begin; i < end; i++) {
        const float *a = s->rows->logits[0] + (size_t)i * vocab, *b = s->rows->logits[1] + (size_t)i * vocab;
        place       *x = &s->places[s->n + (size_t)i];
        *x = (place){.list = s->rows->list, .position = s->rows->position + i, .d = deviation_of(a, b, (int)vocab)};
        x->id = s->v->lists[x->list].ids[x->position];
        x->same_top = same_top(a, b, (int)vocab);
        x->worst_a = a[x->d.at];
        x->worst_b = b[x->d.at];
        x->a = x->d.first < 0 ? 0 : a[x->d.first];
        x->b = x->d.first < 0 ? 0 : b[x->d.first];
    }
}

static bool take(void *arg, const eval_rows *rows, err *e) {
    sum *s = arg;
    s->rows = rows;
    if (s->n + (size_t)rows->n > s->cap) {
        size_t cap = 2 * s->cap + (size_t)rows->n;
        place *places = realloc(s->places, cap * sizeof *places);
        if (!places) {
            return err_set(e, ERR_MEMORY, "Out of memory.");
        }
        s->places = places;
        s->cap = cap;
    }
    eval_each(s->v, rows->n, compare, s);
    s->n += (size_t)rows->n;
    cli_progress("comparing", (double)s->v->done / (double)s->v->tokens);
    return true;
}

/* ---- telling ---- */

typedef struct findings {
    const place *first, *beyond, *worst; /* first that differs at all; first beyond the tolerance */
    size_t       differing, over;
} findings;

static bool beyond(const place *x, double tolerance) {
    return !(x->d.largest <= tolerance); /* so written that a NaN is beyond */
}

static findings find(const sum *s, double tolerance) {
    findings f = {0};
    for (size_t i = 0; i < s->n; i++) {
        const place *x = &s->places[i];
        bool         over = beyond(x, tolerance);
        f.differing += x->d.first >= 0;
        f.over += over;
        f.first = f.first ? f.first : x->d.first >= 0 ? x : NULL;
        f.beyond = f.beyond ? f.beyond : over ? x : NULL;
        f.worst = !f.worst || x->d.largest > f.worst->d.largest ? x : f.worst;
    }
    return f;
}

static void add_number(str *s, const char *name, double x) {
    if (isfinite(x)) {
        str_addf(s, ",\"%s\":%.9g", name, x);
    } else {
        str_addf(s, ",\"%s\":null", name);
    }
}

static void add_token(str *s, const sum *sum, int32_t id) {
    const tokenizer *t = sum->v->sides[0].m->tokens;
    const char      *text = t ? tokenizer_text(t, id) : NULL;
    str_jsons(s, text);
}

static void add_place(str *s, const sum *sum, const place *x) {
    str_addf(s, "{\"list\":%d,\"position\":%d,\"token\":%d", x->list, x->position, (int)x->id);
    add_number(s, "max", x->d.largest);
    add_number(s, "rms", x->d.rms);
    str_addf(s, ",\"same_top\":%s,\"largest_at\":%d", x->same_top ? "true" : "false", x->d.at);
    if (x->d.first >= 0) {
        str_addf(s, ",\"first_logit\":%d,\"first_token\":", x->d.first);
        add_token(s, sum, x->d.first);
        add_number(s, "a", (double)x->a);
        add_number(s, "b", (double)x->b);
    }
    str_addc(s, '}');
}

static void print_json(const sum *s, const findings *f, double tolerance) {
    str                out = {0};
    const place *const marks[] = {f->first, f->beyond, f->worst};
    const char *const  names[] = {"first", "beyond", "worst"};
    str_addf(&out, "{\"positions\":%zu,\"differing\":%zu,\"beyond_tolerance\":%zu", s->n, f->differing, f->over);
    add_number(&out, "tolerance", tolerance);
    for (int i = 0; i < 3; i++) {
        str_addf(&out, ",\"%s\":", names[i]);
        if (marks[i]) {
            add_place(&out, s, marks[i]);
        } else {
            str_adds(&out, "null");
        }
    }
    str_adds(&out, ",\"rows\":[");
    for (size_t i = 0; i < s->n; i++) {
        str_adds(&out, i ? "," : "");
        add_place(&out, s, &s->places[i]);
    }
    str_adds(&out, "]}\n");
    fwrite(out.data ? out.data : "", 1, out.len, stdout);
    str_free(&out);
}

static void print_people(const sum *s, const findings *f, double tolerance) {
    printf("%6s %8s %8s %14s %14s  %s\n", "list", "position", "token", "max", "rms", "top");
    for (size_t i = 0; i < s->n; i++) {
        const place *x = &s->places[i];
        printf("%6d %8d %8d %14.6g %14.6g  %s%s\n", x->list, x->position, (int)x->id, x->d.largest, x->d.rms,
               x->same_top ? "same" : "differs", beyond(x, tolerance) ? "  beyond" : "");
    }
    if (!f->first) {
        printf("all %zu positions are the same, bit for bit\n", s->n);
        return;
    }
    printf("first difference: list %d, position %d (token %d), logit %d: %.9g and %.9g\n", f->first->list,
           f->first->position, (int)f->first->id, f->first->d.first, (double)f->first->a, (double)f->first->b);
    printf("largest: list %d, position %d, logit %d: %.9g and %.9g\n", f->worst->list, f->worst->position,
           f->worst->d.at, (double)f->worst->worst_a, (double)f->worst->worst_b);
    if (f->beyond) {
        printf("beyond %g: %zu of %zu positions, first list %d, position %d\n", tolerance, f->over, s->n,
               f->beyond->list, f->beyond->position);
    } else {
        printf("all %zu positions are within %g\n", s->n, tolerance);
    }
}

bool eval_diff(const eval_options *o, bool *differ, err *e) {
    eval              v;
    sum               s = {.v = &v};
    const char *const paths[2] = {o->reference, o->model};
    bool              ok = eval_open(&v, o, paths, 2, e) && eval_whole(&v, take, &s, e);
    cli_progress_end();
    if (ok) {
        findings f = find(&s, o->tolerance);
        *differ = f.beyond != NULL;
        (o->json ? print_json : print_people)(&s, &f, o->tolerance);
    }
    free(s.places);
    eval_close(&v);
    return ok;
}
