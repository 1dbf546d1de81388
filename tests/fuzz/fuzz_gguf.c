/* fuzz_gguf.c - any bytes as a GGUF file and, when it opens, as a model.
 *
 *   cmake -B build/fuzz -DPARE_FUZZ=ON -DCMAKE_C_COMPILER=clang && ninja -C build/fuzz fuzz_gguf
 *   build/fuzz/fuzz_gguf -max_len=65536 -rss_limit_mb=1024 CORPUS_DIR
 *
 * A good first corpus is what `pare synth --shape llama-tiny` writes. Memory is bounded by the input: a weight must be in
 * the file before room is made for it.                                                                               */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/log.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Touches everything that the file hands out. */
static void read_keys(const gguf *g) {
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        gguf_kind   kind;
        size_t      count;
        int64_t     n;
        double      d;
        bool        b;
        gguf_str    s;
        err         e;
        const char *key = gguf_key_at(g, i, &kind);
        if (!gguf_int(g, key, INT64_MIN, INT64_MAX, &n, &e) && !gguf_float(g, key, &d, &e) &&
            !gguf_bool(g, key, &b, &e))
            gguf_string(g, key, &s, &e);
        if (!gguf_array(g, key, &kind, &count, &e))
            continue;
        for (size_t k = 0; k < count; k++) {
            volatile char last;
            s = gguf_array_string(g, key, k);
            if (s.len)
                last = s.data[s.len - 1];
            (void)last;
            gguf_array_number(g, key, k);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    log_setup(LOG_OFF, false); /* warnings about every input would drown the fuzzer's own lines */
    err   e = {0};
    gguf *g = gguf_open_memory("fuzz", data, size, &e);
    if (!g) {
        if (!e.text[0])
            abort(); /* a refusal without a sentence is a bug too */
        return 0;
    }
    read_keys(g);
    gguf_close(g);
    e = (err){0};
    model *m = model_open(NULL, data, size, NULL, &e);
    if (!m && !e.text[0])
        abort();
    model_close(m);
    return 0;
}
