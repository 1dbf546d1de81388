/* show_memory.c - what a model takes in memory, from its file alone.
 *
 * One chat (`pare run`, one sequence) that fills its context: what the engine takes (footprint.h) and the program itself.
 * Resident memory measured on x86-64 Linux is within 5 % of it (tests/e2e/show.sh). */
#include "cli/show.h"
#include "engine/footprint.h"

enum {
    STEP_TOKENS = 128,           /* rows of a step: engine.h's step_tokens */
    PROGRAM_BYTES = 14 * 1000000 /* code and libraries, threads and event loop (measured) */
};

bool show_memory(const shown_model *m, kv_type type, int64_t context, show_need *need) {
    footprint  f = {0};
    kv_options cache = {.type = type, .sequences = 1, .context = (int)context};
    int        rows = context < STEP_TOKENS ? (int)context : STEP_TOKENS;
    cache.step_tokens = m->shape.headless ? 0 : STEP_TOKENS;
    bool ok = context <= INT32_MAX && footprint_of(m->g, &m->shape, m->vocabulary, &cache, rows, 1, &f);
    *need = (show_need){.weights = f.weights, .kv = f.kv, .working = f.working + PROGRAM_BYTES};
    if (m->bundled)
        need->working += gguf_bytes(m->g);
    return ok;
}
