/* bench_machine.c - the machine beside each test.
 *
 * A shared machine is another one from minute to minute, so a share of its roof is taken against readings made around
 * the very test, not against one made at the start.                                                                  */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/cli.h"

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- memory ---- */

static int64_t high_water(void) {
    static const char key[] = "VmHWM:"; /* in kB */
    char              line[256];
    long long         kb = 0;
    FILE             *f = fopen("/proc/self/status", "r");
    struct rusage     usage;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, sizeof key - 1) == 0) {
            kb = strtoll(line + sizeof key - 1, NULL, 10);
        }
    }
    if (f) {
        fclose(f);
    }
    if (kb == 0 && getrusage(RUSAGE_SELF, &usage) == 0) {
        kb = usage.ru_maxrss;
    }
    return kb * 1024;
}

/* Readings of the machine take memory of their own, which must not count as the model's: "5" resets the high-water mark
 * (proc(5)). Where that is refused, the peak may be the readings'. */
static void forget_high_water(void) {
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t written = write(fd, "5", 1);
        (void)written;
        close(fd);
    }
}

int64_t bench_peak(bench *b) {
    int64_t now = high_water();
    b->peak_bytes = now > b->peak_bytes ? now : b->peak_bytes;
    return b->peak_bytes;
}

/* ---- readings ---- */

bool bench_reading(bench *b, err *e) {
    if (b->n_readings == BENCH_MAX_READINGS) {
        return err_set(e, ERR_INTERNAL, "The machine was measured too often.");
    }
    bench_peak(b);
    if (!roofline_measure(b->p, &b->readings[b->n_readings], e)) {
        return false;
    }
    b->n_readings++;
    forget_high_water();
    return true;
}

static double middle(const bench *b, int at, size_t member) {
    double values[BENCH_MAX_READINGS];
    for (int i = at; i < b->n_readings; i++) {
        memcpy(&values[i - at], (const char *)&b->readings[i] + member, sizeof(double));
    }
    return bench_median(values, b->n_readings - at);
}

roofline bench_machine_since(const bench *b, int at) {
    roofline r = b->readings[b->n_readings - 1];
    r.read_bytes_s = middle(b, at, offsetof(roofline, read_bytes_s));
    r.int8_ops_s = middle(b, at, offsetof(roofline, int8_ops_s));
    r.bf16_flops_s = middle(b, at, offsetof(roofline, bf16_flops_s));
    r.f32_flops_s = middle(b, at, offsetof(roofline, f32_flops_s));
    return r;
}

bool bench_repeat(bench *b, const char *what, bench_run run, void *arg, double *seconds, roofline *machine, err *e) {
    double times[BENCH_MAX_RUNS];
    int    before = b->n_readings - 1; /* the one after the last test */
    for (int r = -1; r < b->runs; r++) {
        double ignored;
        cli_progress(what, (double)(r + 1) / (b->runs + 1));
        if (r > 0 && r == b->runs / 2 && !bench_reading(b, e)) {
            return false;
        }
        if (!run(arg, r < 0 ? &ignored : &times[r], e)) {
            return false;
        }
    }
    cli_progress_end();
    *seconds = bench_median(times, b->runs);
    if (!bench_reading(b, e)) {
        return false;
    }
    *machine = bench_machine_since(b, before);
    return true;
}
