/* The values that people write by hand: sizes, durations and misspelt names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

typedef struct unit {
    const char *name;
    int64_t     factor;
} unit;

/* A whole number and a unit. *out is touched only on success. */
static bool parse_with_unit(const char *text, const unit *units, size_t n_units, int64_t *out) {
    if (*text < '0' || *text > '9') {
        return false;
    }
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == ERANGE) {
        return false;
    }
    for (size_t i = 0; i < n_units; i++) {
        if (strcmp(end, units[i].name) == 0) {
            if (value > INT64_MAX / units[i].factor) {
                return false;
            }
            *out = value * units[i].factor;
            return true;
        }
    }
    return false;
}

bool parse_size(const char *text, int64_t *bytes) {
    static const unit units[] = {
        {"", 1},
        {"B", 1},
        {"K", 1LL << 10},
        {"KiB", 1LL << 10},
        {"KB", 1000},
        {"M", 1LL << 20},
        {"MiB", 1LL << 20},
        {"MB", 1000000},
        {"G", 1LL << 30},
        {"GiB", 1LL << 30},
        {"GB", 1000000000},
        {"T", 1LL << 40},
        {"TiB", 1LL << 40},
        {"TB", 1000000000000},
    };
    return parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), bytes);
}

bool parse_duration(const char *text, int64_t *us) {
    static const unit units[] = {
        {"us", 1}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000}, {"d", 86400000000},
    };
    if (strcmp(text, "0") == 0) { /* the one number that needs no unit */
        *us = 0;
        return true;
    }
    return parse_with_unit(text, units, sizeof(units) / sizeof(units[0]), us);
}

#define LONGEST_NAME 63

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Edit distance with swaps of neighbours: insertions, deletions, replacements and transpositions all cost 1. Source:
 * optimal string alignment, after Damerau (1964). Lengths are at most LONGEST_NAME. */
static int distance(const char *a, const char *b) {
    int before[LONGEST_NAME + 1];
    int above[LONGEST_NAME + 1];
    int row[LONGEST_NAME + 1];
    int n = (int)strlen(b);
    for (int j = 0; j <= n; j++) {
        before[j] = j;
        above[j] = j;
    }
    for (int i = 1; a[i - 1]; i++) {
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int cost = a[i - 1] != b[j - 1];
            row[j] = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = least(row[j], before[j - 2] + 1);
            }
        }
        memcpy(before, above, sizeof(before));
        memcpy(above, row, sizeof(above));
    }
    return above[n];
}

const char *nearest_name(const char *name, const char *const *known) {
    size_t length = strlen(name);
    if (length > LONGEST_NAME) {
        return NULL;
    }
    const char *nearest = NULL;
    int         nearest_distance = length < 4 ? 2 : (int)length / 3 + 2; /* must be below this */
    for (; *known; known++) {
        if (strlen(*known) <= LONGEST_NAME) {
            int d = distance(name, *known);
            if (d < nearest_distance) {
                nearest_distance = d;
                nearest = *known;
            }
        }
    }
    return nearest;
}
