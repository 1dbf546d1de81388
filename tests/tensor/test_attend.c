/* Attention in each instruction set this machine has, against double precision and against itself. */
#include "check.h"

#include <math.h>

#include "tensor/attend_parts.h"
#include "tensor/kernels.h"

static const char *const names[] = {"scalar", "neon", "dotprod", "avx2", "avx512"};
static const kv_type     types[] = {KV_F16, KV_F32, KV_Q8_0, KV_Q4_0};

#define EACH(k)                                                                                                        \
    for (size_t isa = 0; isa < sizeof names / sizeof *names; isa++)                                                    \
        for (const kernels *k = kernels_named(names[isa]); k; k = NULL)
#define EACH_TYPE(t) for (size_t t = 0; t < sizeof types / sizeof *types; t++)

static uint64_t seed = 5;

static float uniform(void) {
    return (float)((double)(test_random(&seed) >> 40) / (1 << 23) - 1.0);
}

static bool quantised(kv_type type) {
    return type == KV_Q8_0 || type == KV_Q4_0;
}

/* Positions in blocks that lie in mixed order. What is not written holds NaN, and the table ends in numbers of blocks
 * that are nowhere. */
typedef struct history {
    kv_layout l;
    size_t    block_bytes;
    char     *blocks;
    int32_t  *table;
    int       n;
    float    *k, *v;           /* [n][dim] as they were put */
    float    *k_held, *v_held; /* as the blocks hold them */
} history;

static void history_put(history *h, int t) {
    size_t at = (size_t)t * (size_t)h->l.dim;
    char  *block = h->blocks + (size_t)h->table[t / KV_TOKENS] * h->block_bytes;
    for (int d = 0; d < h->l.dim; d++) {
        h->k[at + (size_t)d] = uniform();
        h->v[at + (size_t)d] = uniform() * 4;
    }
    kv_put_key(&h->l, block, t % KV_TOKENS, h->k + at);
    kv_put_value(&h->l, block + h->l.key_bytes, t % KV_TOKENS, h->v + at);
    kv_get_key(&h->l, block, t % KV_TOKENS, h->k_held + at);
    kv_get_value(&h->l, block + h->l.key_bytes, t % KV_TOKENS, h->v_held + at);
}

static history history_make(kv_type type, int dim, int n) {
    history h = {.n = n};
    err     e = {0};
    int     blocks = (n + KV_TOKENS - 1) / KV_TOKENS;
    size_t  values = (size_t)n * (size_t)dim;
    assert_ok(kv_layout_of(type, dim, &h.l, &e), e);
    h.block_bytes = h.l.key_bytes + h.l.value_bytes;
    h.blocks = aligned_alloc(64, (size_t)blocks * h.block_bytes);
    memset(h.blocks, 0xff, (size_t)blocks * h.block_bytes);
    h.table = malloc((size_t)(blocks + 8) * sizeof *h.table);
    for (int i = 0; i < blocks; i++)
        h.table[i] = blocks - 1 - i;
    for (int i = blocks; i < blocks + 8; i++)
        h.table[i] = 1 << 29;
    h.k = malloc(values * sizeof(float));
    h.v = malloc(values * sizeof(float));
    h.k_held = malloc(values * sizeof(float));
    h.v_held = malloc(values * sizeof(float));
    for (int t = 0; t < n; t++)
        history_put(&h, t);
    return h;
}

static void history_free(history *h) {
    free(h->blocks);
    free(h->table);
    free(h->k);
    free(h->v);
    free(h->k_held);
    free(h->v_held);
}

/* Query rows and what becomes of them. */
typedef struct batch {
    int    rows, dim;
    float *q, *peak, *sum, *acc;
    int   *limit;
    int   *low; /* NULL: all 0 */
    float  cap;
} batch;

static void batch_clear(batch *b) {
    for (int r = 0; r < b->rows; r++) {
        b->peak[r] = -INFINITY;
        b->sum[r] = 0;
    }
    memset(b->acc, 0, (size_t)b->rows * (size_t)b->dim * sizeof *b->acc);
}

/* Limits 1 .. n in no order; the last row sees all. `size` is about what scores come to. */
static batch batch_make(int rows, int dim, int n, float size) {
    size_t r = (size_t)rows, values = r * (size_t)dim;
    batch  b = {.rows = rows, .dim = dim};
    b.q = malloc(values * sizeof(float));
    b.acc = malloc(values * sizeof(float));
    b.peak = malloc(r * sizeof(float));
    b.sum = malloc(r * sizeof(float));
    b.limit = malloc(r * sizeof(int));
    for (size_t i = 0; i < values; i++)
        b.q[i] = uniform() * size * 3 / sqrtf((float)dim);
    for (int i = 0; i < rows; i++)
        b.limit[i] = i == rows - 1 ? n : 1 + (int)(test_random(&seed) % (uint64_t)n);
    batch_clear(&b);
    return b;
}

static void batch_free(batch *b) {
    free(b->q);
    free(b->acc);
    free(b->peak);
    free(b->sum);
    free(b->limit);
    free(b->low);
}

/* Rows [row, row + rows) over the positions [from, to), with scratch of exactly the size that is asked for. */
static void attend_part(const kernels *k, const history *h, batch *b, int row, int rows, int from, int to) {
    void       *scratch = aligned_alloc(64, attend_scratch(rows, b->dim));
    attend_span s = {.layout = &h->l,
                     .blocks = h->blocks,
                     .block_bytes = h->block_bytes,
                     .values_at = h->l.key_bytes,
                     .table = h->table,
                     .from = from,
                     .to = to,
                     .rows = rows,
                     .q = b->q + (size_t)row * (size_t)b->dim,
                     .limit = b->limit + row,
                     .low = b->low ? b->low + row : NULL,
                     .cap = b->cap,
                     .peak = b->peak + row,
                     .sum = b->sum + row,
                     .acc = b->acc + (size_t)row * (size_t)b->dim,
                     .scratch = scratch};
    memset(scratch, 0xff, attend_scratch(rows, b->dim));
    k->attend(&s);
    free(scratch);
}

static void attend_all(const kernels *k, const history *h, batch *b) {
    batch_clear(b);
    attend_part(k, h, b, 0, b->rows, 0, h->n);
}

/* What int8 leaves of a query, in groups of 32. */
static void rounded_query(const float *q, int dim, float *out) {
    for (int d = 0; d < dim; d += 32) {
        float peak = 0;
        for (int i = d; i < d + 32; i++)
            peak = fabsf(q[i]) > peak ? fabsf(q[i]) : peak;
        for (int i = d; i < d + 32; i++)
            out[i] = peak > 0 ? rintf(q[i] * (127.0f / peak)) * (peak / 127.0f) : 0;
    }
}

/* softmax(q k^T) v over the positions [low, n) in double precision; size: the same of the values' magnitudes. */
static void reference(const float *q, const float *keys, const float *values, int low, int n, int dim, double cap,
                      double *out, double *size) {
    double *p = calloc((size_t)n, sizeof *p), peak = -INFINITY, sum = 0;
    for (int t = low; t < n; t++) {
        for (int d = 0; d < dim; d++)
            p[t] += (double)q[d] * (double)keys[(size_t)t * (size_t)dim + (size_t)d];
        if (cap > 0)
            p[t] = cap * tanh(p[t] / cap);
        peak = fmax(peak, p[t]);
    }
    for (int t = low; t < n; t++)
        sum += p[t] = exp(p[t] - peak);
    memset(out, 0, (size_t)dim * sizeof *out);
    memset(size, 0, (size_t)dim * sizeof *size);
    for (int t = 0; t < n; t++)
        for (int d = 0; d < dim; d++) {
            double v = (double)values[(size_t)t * (size_t)dim + (size_t)d];
            out[d] += p[t] / sum * v;
            size[d] += p[t] / sum * fabs(v);
        }
    free(p);
}

/* The error is relative to what was added up, not to the sum: that may be near zero.
 * exact: against what the blocks hold and the kernel makes of the query; otherwise against what was put. */
static void check_rows(const char *isa, const history *h, const batch *b, bool exact, double bound) {
    static float  q[4096];
    static double expected[4096], size[4096];
    int           dim = b->dim;
    for (int r = 0; r < b->rows; r++) {
        size_t at = (size_t)r * (size_t)dim;
        double wrong = 0, all = 1e-300;
        memcpy(q, b->q + at, (size_t)dim * sizeof *q);
        if (exact && quantised(h->l.type))
            rounded_query(b->q + at, dim, q);
        reference(q, exact ? h->k_held : h->k, exact ? h->v_held : h->v, b->low ? b->low[r] : 0, b->limit[r], dim,
                  (double)b->cap, expected, size);
        for (int d = 0; d < dim; d++) {
            double diff = (double)b->acc[at + (size_t)d] / (double)b->sum[r] - expected[d];
            wrong += diff * diff;
            all += size[d] * size[d];
        }
        if (!(sqrt(wrong / all) <= bound))
            fail_msg("%s %s, heads of %d, row %d of %d, %d of %d positions: relative error %g", isa,
                     kv_type_name(h->l.type), dim, r, b->rows, b->limit[r], h->n, sqrt(wrong / all));
    }
}

static void same_bits(const char *what, const batch *a, const batch *b) {
    for (int r = 0; r < a->rows; r++) {
        size_t at = (size_t)r * (size_t)a->dim, bytes = (size_t)a->dim * sizeof(float);
        if (memcmp(a->acc + at, b->acc + at, bytes) != 0 || memcmp(a->peak + r, b->peak + r, sizeof(float)) != 0 ||
            memcmp(a->sum + r, b->sum + r, sizeof(float)) != 0)
            fail_msg("%s: row %d of %d (limit %d) has other bits", what, r, a->rows, a->limit[r]);
    }
}

static batch batch_copy(const batch *b) {
    batch copy = batch_make(b->rows, b->dim, 1, 1);
    memcpy(copy.q, b->q, (size_t)b->rows * (size_t)b->dim * sizeof *b->q);
    memcpy(copy.limit, b->limit, (size_t)b->rows * sizeof *b->limit);
    return copy;
}

static const int dims[] = {1, 7, 16, 20, 32, 64, 80, 96, 128, 256};
#define DIMS (sizeof dims / sizeof *dims)

/* The float arithmetic is float32's; what quantising costs is in another test. */
static void it_is_softmax_of_scores_times_values(void **state) {
    (void)state;
    static const int lengths[] = {1, 15, 16, 17, 63, 64, 65, 100, 300}, rows[] = {1, 2, 3, 7, 8, 9, 29};
    EACH(k) EACH_TYPE(t) for (size_t s = 0; s < DIMS; s++) {
        if (quantised(types[t]) && dims[s] % 32)
            continue;
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                history h = history_make(types[t], dims[s], lengths[l]);
                batch   b = batch_make(rows[r], dims[s], h.n, 1);
                attend_all(k, &h, &b);
                check_rows(k->name, &h, &b, true, 3e-6);
                batch_free(&b);
                history_free(&h);
            }
    }
}

/* Windows that begin anywhere, in the group of the limit or long before it, and a cap that bends most scores. */
static void windows_and_caps(void **state) {
    (void)state;
    static const int lengths[] = {1, 17, 64, 65, 100, 300};
    EACH(k)
    EACH_TYPE(t)
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (int rows = 1; rows <= 29; rows += 14) {
            history h = history_make(types[t], 64, lengths[l]);
            batch   b = batch_make(rows, 64, h.n, 4);
            b.low = calloc((size_t)rows, sizeof *b.low);
            b.cap = rows > 1 ? 3 : 0;
            for (int r = 0; r < rows; r++)
                b.low[r] = (int)(test_random(&seed) % (uint64_t)b.limit[r]);
            attend_all(k, &h, &b);
            check_rows(k->name, &h, &b, true, 1e-5);
            batch_free(&b);
            history_free(&h);
        }
}

/* Scores far apart: all weight on few positions, exponentials that underflow, peaks that jump from group to group. */
static void it_holds_for_large_scores(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) {
        history h = history_make(types[t], 64, 777);
        batch   b = batch_make(19, 64, h.n, 300);
        attend_all(k, &h, &b);
        check_rows(k->name, &h, &b, true, 2e-4); /* a score of 500 is itself only known to 3e-5 */
        batch_free(&b);
        history_free(&h);
    }
}

/* Over a few thousand positions the running sums stay as exact. */
static void it_holds_for_long_histories(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) {
        history h = history_make(types[t], 64, 5000);
        batch   b = batch_make(5, 64, h.n, 1);
        attend_all(k, &h, &b);
        check_rows(k->name, &h, &b, true, 3e-6);
        batch_free(&b);
        history_free(&h);
    }
}

/* Relative error of the answer against unrounded keys, values and queries. 4 bits keep a value to a sixteenth of the
 * largest of its group; averages over positions are smaller than the values, and their errors are not. */
static void what_quantising_costs(void **state) {
    (void)state;
    static const double bounds[] = {[KV_F16] = 1e-3, [KV_F32] = 3e-6, [KV_Q8_0] = 0.012, [KV_Q4_0] = 0.2};
    EACH(k) EACH_TYPE(t) {
        history h = history_make(types[t], 128, 400);
        batch   b = batch_make(33, 128, h.n, 2);
        attend_all(k, &h, &b);
        check_rows(k->name, &h, &b, false, bounds[types[t]]);
        batch_free(&b);
        history_free(&h);
    }
}

static void vectors_and_scalars_agree(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) for (int dim = 32; dim <= 128; dim += 32) {
        history h = history_make(types[t], dim, 333);
        batch   b = batch_make(21, dim, h.n, 2), plain = batch_copy(&b);
        attend_all(k, &h, &b);
        attend_all(&kernels_scalar, &h, &plain);
        for (int r = 0; r < b.rows; r++) {
            assert_true(fabsf(b.peak[r] - plain.peak[r]) <= 2e-5f);
            assert_true(fabsf(b.sum[r] / plain.sum[r] - 1) <= 2e-5f);
            for (int d = 0; d < dim; d++)
                assert_true(fabsf(b.acc[r * dim + d] / b.sum[r] - plain.acc[r * dim + d] / plain.sum[r]) <= 2e-5f);
        }
        batch_free(&b);
        batch_free(&plain);
        history_free(&h);
    }
}

/* All together in one span, then in parts: rows in bunches of `bunch`, positions in two spans that meet at `meet`. */
static void check_parts(const kernels *k, const history *h, batch *whole, batch *parts, int bunch, int meet) {
    char what[96];
    batch_clear(parts);
    for (int row = 0; row < whole->rows; row += bunch) {
        int rows = whole->rows - row < bunch ? whole->rows - row : bunch;
        if (meet > 0)
            attend_part(k, h, parts, row, rows, 0, meet);
        attend_part(k, h, parts, row, rows, meet, h->n);
    }
    snprintf(what, sizeof what, "%s %s, heads of %d, %d rows at a time, spans meet at %d", k->name,
             kv_type_name(h->l.type), h->l.dim, bunch, meet);
    same_bits(what, whole, parts);
}

static void bits_do_not_depend_on_company(void **state) {
    (void)state;
    static const int bunches[] = {1, 2, 3, 7, 8, 9, 16, 21, 64};
    EACH(k) EACH_TYPE(t) for (size_t s = 0; s < DIMS; s++) {
        if (quantised(types[t]) && dims[s] % 32)
            continue;
        history h = history_make(types[t], dims[s], 270);
        batch   whole = batch_make(45, dims[s], h.n, 2), parts = batch_copy(&whole);
        attend_all(k, &h, &whole);
        for (size_t i = 0; i < sizeof bunches / sizeof *bunches; i++)
            for (int meet = 0; meet < h.n; meet += ATTEND_GROUP)
                check_parts(k, &h, &whole, &parts, bunches[i], meet);
        batch_free(&whole);
        batch_free(&parts);
        history_free(&h);
    }
}

/* A shared beginning for rows of two histories, then each its own: as if each had been alone. */
static void rows_of_two_histories_share_a_span(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) {
        history h = history_make(types[t], 64, 128), two[2];
        batch   together = batch_make(24, 64, 1, 2), alone = batch_copy(&together);
        for (int i = 0; i < 2; i++) {
            two[i] = history_make(types[t], 64, 190 + i);
            for (int b = 0; b < 128 / KV_TOKENS; b++)
                memcpy(two[i].blocks + (size_t)two[i].table[b] * h.block_bytes,
                       h.blocks + (size_t)h.table[b] * h.block_bytes, h.block_bytes);
        }
        for (int r = 0; r < 24; r++)
            together.limit[r] = alone.limit[r] = two[r / 12].n - r % 5;
        attend_part(k, &h, &together, 0, 24, 0, 128);
        for (int i = 0; i < 2; i++) {
            attend_part(k, &two[i], &together, 12 * i, 12, 128, two[i].n);
            attend_part(k, &two[i], &alone, 12 * i, 12, 0, two[i].n);
            history_free(&two[i]);
        }
        same_bits(k->name, &together, &alone);
        batch_free(&together);
        batch_free(&alone);
        history_free(&h);
    }
}

static void rows_that_see_nothing_stay_as_they_were(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) for (int rows = 1; rows < 20; rows += 3) {
        history h = history_make(types[t], 32, 200);
        batch   b = batch_make(rows, 32, h.n, 1), before = batch_copy(&b);
        for (int r = 0; r < rows; r++) {
            b.limit[r] = before.limit[r] = r % 2 ? 64 : r % 3 ? 0 : 200;
            b.sum[r] = before.sum[r] = 3;
            b.peak[r] = before.peak[r] = 1;
            for (int d = 0; d < 32; d++)
                b.acc[r * 32 + d] = before.acc[r * 32 + d] = -0.0f;
        }
        attend_part(k, &h, &b, 0, rows, 64, 200);
        for (int r = 0; r < rows; r++) {
            bool same = memcmp(b.acc + 32 * r, before.acc + 32 * r, 32 * sizeof(float)) == 0;
            assert_int_equal(same, b.limit[r] < 200);
            assert_int_equal(b.sum[r] == 3, b.limit[r] < 200);
            assert_true(b.limit[r] == 200 || b.peak[r] == 1);
        }
        batch_free(&b);
        batch_free(&before);
        history_free(&h);
    }
}

static void a_query_that_is_not_a_number_spoils_only_itself(void **state) {
    (void)state;
    EACH(k) EACH_TYPE(t) {
        history h = history_make(types[t], 64, 100);
        batch   b = batch_make(19, 64, h.n, 1), clean = batch_copy(&b);
        attend_all(k, &h, &clean);
        b.q[4 * 64 + 7] = NAN;
        attend_all(k, &h, &b);
        assert_true(isnan(b.acc[4 * 64] / b.sum[4]));
        memcpy(b.acc + 4 * 64, clean.acc + 4 * 64, 64 * sizeof(float));
        b.peak[4] = clean.peak[4];
        b.sum[4] = clean.sum[4];
        same_bits(k->name, &b, &clean);
        batch_free(&b);
        batch_free(&clean);
        history_free(&h);
    }
}

/* 32 values by hand: ties to even, the sum, and groups that have no scale. */
static void queries_round_to_int8(void **state) {
    (void)state;
    float   x[4 * 32] = {0}, scale[4];
    int8_t  q[4 * 32];
    int32_t sum[4];
    x[0] = -127, x[1] = 2.5f, x[2] = 3.5f, x[3] = -0.4f, x[4] = 126.6f;
    x[32] = 1e-35f;
    x[64] = INFINITY;
    x[100] = NAN, x[101] = 1;
    attend_round(x, 4 * 32, q, scale, sum);
    assert_true(scale[0] == 1 && q[0] == -127 && q[1] == 2 && q[2] == 4 && q[3] == 0 && q[4] == 127 && sum[0] == 6);
    assert_true(scale[1] == 0 && q[32] == 0 && sum[1] == 0);
    assert_true(isnan(scale[2]) && isnan(scale[3]) && q[64] == 0 && q[101] == 0 && sum[3] == 0);
}

int main(void) {
    EACH(k) print_message("has %s\n", k->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_softmax_of_scores_times_values),
        cmocka_unit_test(windows_and_caps),
        cmocka_unit_test(it_holds_for_large_scores),
        cmocka_unit_test(it_holds_for_long_histories),
        cmocka_unit_test(what_quantising_costs),
        cmocka_unit_test(vectors_and_scalars_agree),
        cmocka_unit_test(bits_do_not_depend_on_company),
        cmocka_unit_test(rows_of_two_histories_share_a_span),
        cmocka_unit_test(rows_that_see_nothing_stay_as_they_were),
        cmocka_unit_test(a_query_that_is_not_a_number_spoils_only_itself),
        cmocka_unit_test(queries_round_to_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
