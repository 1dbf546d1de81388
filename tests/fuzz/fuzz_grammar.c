/* fuzz_grammar.c - any GBNF, and any text under it.
 *
 *   build/fuzz/fuzz_grammar -max_len=4000 -timeout=20 CORPUS_DIR
 *
 * The first two bytes, little-endian, say how long the grammar is; the rest is fed to it, a byte at a time.          */
#include <stdint.h>
#include <stdlib.h>

#include "engine/mask_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    size_t length = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    n -= 2;
    length = length < n ? length : n;
    err      e = {0};
    machine  m;
    grammar *g = grammar_from_gbnf((const char *)data, length, &e);
    if (!g) {
        return 0;
    }
    if (machine_init(&m, g, &e)) {
        int state = machine_begin(&m);
        for (size_t i = length, k = 0; k < 2000 && state != STATE_DEAD; i++, k++) {
            int to = i < n ? machine_step(&m, state, g->class_of[data[i]]) : STATE_DEAD;
            for (int cl = 0; to == STATE_DEAD && cl < g->n_classes; cl++) {
                to = machine_step(&m, state, (int)((size_t)cl + k) % g->n_classes);
            }
            if (to == STATE_DEAD && !(machine_flags(&m, state) & STATE_ENDS) && m.sets.n < 30000 && !m.failed) {
                abort(); /* a place that can be reached can be left, or is an end */
            }
            state = machine_tidy(&m, to);
        }
        machine_free(&m);
    }
    grammar_free(g);
    return 0;
}
