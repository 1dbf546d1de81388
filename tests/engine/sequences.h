/* sequences.h - the token lists of a model of the conformance set. */
#ifndef PARE_TESTS_SEQUENCES_H
#define PARE_TESTS_SEQUENCES_H

#include "check.h"

#include "base/json.h"

#define FOLDER "../shared/conformance/logits/"
#define MOST   256 /* tokens of a sequence */

typedef struct sequences {
    int     count, length[8];
    int32_t ids[8][MOST];
} sequences;

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    data[*n] = 0;
    fclose(f);
    return data;
}

static void read_sequences(const char *name, sequences *out) {
    char path[256];
    snprintf(path, sizeof(path), FOLDER "%s/tokens.json", name);
    size_t n;
    char  *text = slurp(path, &n);
    cJSON *lists = cJSON_ParseWithLength(text, n), *list, *id;
    memset(out, 0, sizeof(*out));
    cJSON_ArrayForEach(list, lists) {
        int s = out->count++;
        assert_true(s < 8);
        cJSON_ArrayForEach(id, list) {
            assert_true(out->length[s] < MOST);
            out->ids[s][out->length[s]++] = (int32_t)id->valuedouble;
        }
    }
    cJSON_Delete(lists);
    free(text);
}

#endif
