/* libpare_bed.h - the bundled model through libpare, and what tests of it share. */
#ifndef TESTS_ENGINE_LIBPARE_BED_H
#define TESTS_ENGINE_LIBPARE_BED_H

#include "check.h"

#include <unistd.h>

#include "engine/libpare_parts.h"

#define STORYTELLER "models/storyteller.gguf"

/* The sentence, which every failure must leave. */
typedef struct told {
    char text[512];
} told;

#define TELL(t) (t).text, sizeof((t).text)

#define assert_done(expression, t)                                                                                     \
    do {                                                                                                               \
        if (!(expression)) {                                                                                           \
            fail_msg("%s: %s", #expression, (t).text);                                                                 \
        }                                                                                                              \
    } while (0)

static inline pare_model *open_storyteller(const pare_options *o) {
    told        why = {""};
    pare_model *m = pare_open(STORYTELLER, o, TELL(why));
    assert_done(m, why);
    return m;
}

/* The bundled file's bytes, with one text in it replaced by another of the same length. Free them. */
static inline unsigned char *changed_storyteller(const char *from, const char *to, size_t *n) {
    FILE *f = fopen(STORYTELLER, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *bytes = malloc(*n);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n, f), *n);
    fclose(f);
    assert_int_equal(strlen(from), strlen(to));
    unsigned char *at = memmem(bytes, *n, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    return bytes;
}

typedef struct heard { /* what a callback was told */
    str text;
    int pieces, stop_after; /* 0: never */
} heard;

static inline int hear(void *user, const char *text, size_t length) {
    heard *h = user;
    assert_true(length > 0);
    str_add(&h->text, text, length);
    return ++h->pieces == h->stop_after;
}

#endif
