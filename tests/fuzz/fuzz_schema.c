/* fuzz_schema.c - any JSON as a schema, and random texts under it.
 *
 *   build/fuzz/fuzz_schema -max_len=4000 -timeout=20 CORPUS_DIR                                                      */
#include <stdint.h>

#include "base/json.h"
#include "engine/mask_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    err    e = {0};
    cJSON *schema = json_parse((const char *)data, n, JSON_MAX_DEPTH, &e);
    if (!schema) {
        return 0;
    }
    schema_options o = {.space = (json_space)(n % 3), .open = n % 2};
    machine        m;
    grammar       *g = grammar_from_schema(schema, &o, &e);
    if (g && machine_init(&m, g, &e)) {
        int state = machine_begin(&m);
        for (size_t k = 0; k < 300 && state != STATE_DEAD; k++) {
            int to = STATE_DEAD;
            for (int cl = 0; to == STATE_DEAD && cl < g->n_classes; cl++) {
                to = machine_step(&m, state, (int)((size_t)cl + data[k % n]) % g->n_classes);
            }
            state = machine_tidy(&m, to);
        }
        machine_free(&m);
    }
    grammar_free(g);
    cJSON_Delete(schema);
    return 0;
}
