/* bench_print.c - the lines of `pare bench`: a table for people, one JSON object a line for programs. */
#include <stdio.h>

#include "base/str.h"
#include "cli/bench.h"

/* Bytes that `steps` passes read of the weights, and operations of `tokens` tokens, as shares of the two roofs. */
static double of_bandwidth(const bench *b, const bench_rate *r) {
    return b->step_bytes * r->steps / r->seconds / r->machine.read_bytes_s;
}

static double of_int8(const bench *b, const bench_rate *r) {
    return 2 * b->parameters * r->tokens / r->seconds / r->machine.int8_ops_s;
}

void bench_print_machine(const bench *b, const roofline *m, int readings) {
    if (b->json) {
        printf("{\"test\":\"machine\",\"read_gb_s\":%.2f,\"int8_tops\":%.3f,\"bf16_tflops\":%.3f,\"f32_tflops\":%.3f,"
               "\"threads\":%d,\"isa\":\"%s\",\"readings\":%d}\n",
               m->read_bytes_s / 1e9, m->int8_ops_s / 1e12, m->bf16_flops_s / 1e12, m->f32_flops_s / 1e12, m->threads,
               m->isa, readings);
    } else {
        printf("machine: %.1f GB/s read, %.2f TOPS int8, ", m->read_bytes_s / 1e9, m->int8_ops_s / 1e12);
        if (m->bf16_flops_s > 0) {
            printf("%.2f TFLOPS bf16, ", m->bf16_flops_s / 1e12);
        }
        printf("%.2f TFLOPS f32; %d threads, %s", m->f32_flops_s / 1e12, m->threads, m->isa);
        printf(readings > 1 ? " (medians of %d readings)\n" : "\n", readings);
    }
    fflush(stdout);
}

void bench_print_load(const bench *b, double load_s, double first_s) {
    const model *m = b->m;
    if (b->json) {
        str name = {0};
        str_jsons(&name, m->name);
        printf("{\"test\":\"load\",\"seconds\":%.6f,", load_s);
        if (first_s >= 0) {
            printf("\"first_token_seconds\":%.6f,", first_s);
        }
        printf("\"name\":%s,\"type\":\"%s\",\"parameters\":%.0f,\"weight_bytes\":%zu,\"threads\":%d,\"isa\":\"%s\"}\n",
               name.failed ? "null" : name.data, b->type, b->parameters, m->weight_bytes, pool_threads(b->p),
               b->readings[0].isa);
        str_free(&name);
    } else {
        printf("%s: %.1f million parameters, %.1f MB of weights, context %d\n", m->name, b->parameters / 1e6,
               (double)m->weight_bytes / 1e6, m->shape.context);
        if (b->tests & BENCH_LOAD) {
            printf("loaded in %.3f s", load_s);
            if (first_s >= 0) {
                printf(", first token after %.3f s", first_s);
            }
            puts("");
        }
    }
    fflush(stdout);
}

void bench_print_rate(bench *b, const bench_rate *r) {
    double rate = r->tokens / r->seconds;
    if (b->json) {
        printf("{\"test\":\"%s\",\"tokens\":%d,\"batch\":%d,\"context\":%d,\"tokens_per_s\":%.3f,\"of_bandwidth\":%.4f,"
               "\"of_int8\":%.4f,\"ms\":%.3f,\"steps\":%d,\"threads\":%d,\"type\":\"%s\",\"kv\":\"%s\","
               "\"read_gb_s\":%.2f,\"int8_tops\":%.3f",
               r->test, r->tokens, r->batch, r->context, rate, of_bandwidth(b, r), of_int8(b, r), r->seconds * 1e3,
               r->steps, pool_threads(b->p), b->type, kv_type_name(b->kv), r->machine.read_bytes_s / 1e9,
               r->machine.int8_ops_s / 1e12);
        if (r->blocks_apart) {
            printf(",\"blocks_held\":%lld,\"blocks_apart\":%lld", (long long)r->blocks_held,
                   (long long)r->blocks_apart);
        }
        puts("}");
    } else {
        if (!b->headed) {
            printf("\n%-8s %8s %10s %8s %11s %10s %13s %8s\n", "test", "tokens", "sequences", "context", "tokens/s",
                   "ms a step", "of bandwidth", "of int8");
            b->headed = true;
        }
        printf("%-8s %8d %10d %8d %11.1f %10.2f %11.0f %% %6.0f %%\n", r->test, r->tokens, r->batch, r->context, rate,
               r->seconds * 1e3 / r->steps, 100 * of_bandwidth(b, r), 100 * of_int8(b, r));
        if (r->blocks_apart) {
            printf("         %lld blocks of %d tokens held; %lld without sharing\n", (long long)r->blocks_held,
                   KV_TOKENS, (long long)r->blocks_apart);
        }
    }
    fflush(stdout);
}

void bench_print_texts(bench *b, const bench_texts *t) {
    double texts = t->texts / t->seconds, tokens = texts * t->length;
    double bandwidth = t->step_bytes * t->steps / t->seconds / t->machine.read_bytes_s;
    double int8 = 2 * t->multiplied * tokens / t->machine.int8_ops_s;
    if (b->json) {
        printf("{\"test\":\"embed\",\"texts\":%d,\"tokens\":%d,\"embeddings_per_s\":%.3f,\"tokens_per_s\":%.3f,"
               "\"of_bandwidth\":%.4f,\"of_int8\":%.4f,\"ms\":%.3f,\"steps\":%.1f,\"threads\":%d,\"type\":\"%s\","
               "\"read_gb_s\":%.2f,\"int8_tops\":%.3f}\n",
               t->texts, t->length, texts, tokens, bandwidth, int8, t->seconds * 1e3, t->steps, pool_threads(b->p),
               b->type, t->machine.read_bytes_s / 1e9, t->machine.int8_ops_s / 1e12);
    } else {
        if (!b->embed_headed) {
            printf("\n%-8s %8s %8s %13s %11s %10s %13s %8s\n", "test", "texts", "tokens", "embeddings/s", "tokens/s",
                   "ms", "of bandwidth", "of int8");
            b->embed_headed = true;
        }
        printf("%-8s %8d %8d %13.1f %11.1f %10.2f %11.0f %% %6.0f %%\n", "embed", t->texts, t->length, texts, tokens,
               t->seconds * 1e3, 100 * bandwidth, 100 * int8);
    }
    fflush(stdout);
}

void bench_print_wait(bench *b, const bench_wait *w) {
    if (b->json) {
        printf("{\"test\":\"first-token\",\"tokens\":%d,\"cold_ms\":%.3f,\"cached_ms\":%.3f,\"cached_tokens\":%d,"
               "\"ratio\":%.3f,\"again_ms\":%.3f,\"again_ratio\":%.3f,\"threads\":%d,\"type\":\"%s\",\"kv\":\"%s\"}\n",
               w->prompt, w->cold_s * 1e3, w->cached_s * 1e3, w->cached, w->cold_s / w->cached_s, w->again_s * 1e3,
               w->cold_s / w->again_s, pool_threads(b->p), b->type, kv_type_name(b->kv));
    } else {
        printf("\nfirst token of a prompt of %d: %.1f ms; with %d of them in the cache %.1f ms, %.1f times sooner; "
               "the same prompt again %.1f ms, %.1f times\n",
               w->prompt, w->cold_s * 1e3, w->cached, w->cached_s * 1e3, w->cold_s / w->cached_s, w->again_s * 1e3,
               w->cold_s / w->again_s);
    }
    fflush(stdout);
}

void bench_print_gaps(bench *b, const bench_gaps *g) {
    if (b->json) {
        printf("{\"test\":\"mixed\",\"streams\":%d,\"prompt\":%d,\"before_p50_ms\":%.3f,\"before_p99_ms\":%.3f,"
               "\"during_p50_ms\":%.3f,\"during_p99_ms\":%.3f,\"p50_ratio\":%.3f,\"p99_ratio\":%.3f,"
               "\"prompt_ms\":%.3f,\"before_gaps\":%d,\"during_gaps\":%d,\"threads\":%d,\"type\":\"%s\"}\n",
               g->streams, g->prompt, g->before_p50 * 1e3, g->before_p99 * 1e3, g->during_p50 * 1e3,
               g->during_p99 * 1e3, g->during_p50 / g->before_p50, g->during_p99 / g->before_p99, g->first_s * 1e3,
               g->before, g->during, pool_threads(b->p), b->type);
    } else {
        printf(
            "\nbetween tokens of %d streams: p50 %.2f ms, p99 %.2f ms; while a prompt of %d tokens is read (%.0f ms):"
            "\n  p50 %.2f ms (%.2f times), p99 %.2f ms (%.2f times)\n",
            g->streams, g->before_p50 * 1e3, g->before_p99 * 1e3, g->prompt, g->first_s * 1e3, g->during_p50 * 1e3,
            g->during_p50 / g->before_p50, g->during_p99 * 1e3, g->during_p99 / g->before_p99);
    }
    fflush(stdout);
}

void bench_print_memory(bench *b) {
    size_t  token = kv_bytes_of(&b->m->shape, b->kv, 1024) / 1024;
    int64_t peak = bench_peak(b);
    if (b->json) {
        printf("{\"test\":\"memory\",\"peak_rss_bytes\":%lld,\"weight_bytes\":%zu,\"kv_bytes\":%zu,"
               "\"kv_token_bytes\":%zu,\"kv\":\"%s\"}\n",
               (long long)peak, b->m->weight_bytes, b->kv_bytes, token, kv_type_name(b->kv));
    } else if (b->kv_bytes == 0) { /* an encoder has no cache */
        printf("\npeak memory %.1f MB: %.1f MB of weights\n", (double)peak / 1e6, (double)b->m->weight_bytes / 1e6);
    } else {
        printf("\npeak memory %.1f MB: %.1f MB of weights; the largest cache has %.1f MB, %.1f KB a token (%s)\n",
               (double)peak / 1e6, (double)b->m->weight_bytes / 1e6, (double)b->kv_bytes / 1e6, (double)token / 1e3,
               kv_type_name(b->kv));
    }
    fflush(stdout);
}
