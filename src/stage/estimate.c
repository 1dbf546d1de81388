#include "stage/estimate.h"

#include <string.h>

/* Runs of one kind of byte, and what the next byte of each kind makes of them: a letter is the first to seventh of a word
 * (A1 to A7) or the first to fifth of a further five (B1 to B5), digits and bytes outside ASCII go in threes, a second blank
 * is a token and further ones are not. One step a byte without a branch: words of all lengths would mislead every one. */
enum { BLANK, LETTER, DIGIT, OTHER, HIGH, KINDS };

enum { START, A1, A2, A3, A4, A5, A6, A7, B1, B2, B3, B4, B5, D1, D2, D3, H1, H2, H3, O, S1, S2, S3, STATES };

/* States that point to each other: what the next step waits for is one load. */
typedef struct state {
    const struct state *next[KINDS];
    int64_t             begins; /* 1: a token begins here */
} state;

#define ROW(from, begins, blank, letter, digit, other, high)                                                           \
    [from] = {{&states[blank], &states[letter], &states[digit], &states[other], &states[high]}, begins}

static const state states[STATES];
/* clang-format off */
static const state states[STATES] = {
    ROW(START, 0, S1, A1, D1, O, H1),
    ROW(A1, 1, S1, A2, D1, O, H1),
    ROW(A2, 0, S1, A3, D1, O, H1),
    ROW(A3, 0, S1, A4, D1, O, H1),
    ROW(A4, 0, S1, A5, D1, O, H1),
    ROW(A5, 0, S1, A6, D1, O, H1),
    ROW(A6, 0, S1, A7, D1, O, H1),
    ROW(A7, 0, S1, B1, D1, O, H1),
    ROW(B1, 1, S1, B2, D1, O, H1),
    ROW(B2, 0, S1, B3, D1, O, H1),
    ROW(B3, 0, S1, B4, D1, O, H1),
    ROW(B4, 0, S1, B5, D1, O, H1),
    ROW(B5, 0, S1, B1, D1, O, H1),
    ROW(D1, 1, S1, A1, D2, O, H1),
    ROW(D2, 0, S1, A1, D3, O, H1),
    ROW(D3, 0, S1, A1, D1, O, H1),
    ROW(H1, 1, S1, A1, D1, O, H2),
    ROW(H2, 0, S1, A1, D1, O, H3),
    ROW(H3, 0, S1, A1, D1, O, H1),
    ROW(O, 1, S1, A1, D1, O, H1),
    ROW(S1, 0, S2, A1, D1, O, H1),
    ROW(S2, 1, S3, A1, D1, O, H1),
    ROW(S3, 0, S3, A1, D1, O, H1),
};
/* clang-format on */

/* By byte, as ASCII has them. */
static const uint8_t kind_of[256] = {
    3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 3, 3, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 3, 3, 3, 3,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
    4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
    4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
    4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
};

/* The tokens that begin in the text behind the state `now`. */
static int64_t walk(const state *now, const unsigned char *text, size_t n) {
    int64_t tokens = 0;
    for (size_t i = 0; i < n; i++) {
        now = now->next[kind_of[text[i]]];
        tokens += now->begins;
    }
    return tokens;
}

#define LANES 4

/* A place near `at` where a run ends. */
static size_t border(const unsigned char *text, size_t at, size_t n) {
    while (at < n && at > 0 && kind_of[text[at]] == kind_of[text[at - 1]]) {
        at++;
    }
    return at;
}

/* A step waits for the one before it; stretches that begin at borders do not wait for each other. */
static int64_t estimate_lanes(const unsigned char *text, size_t n) {
    size_t       at[LANES], end[LANES], least = n;
    int64_t      tokens = 0;
    const state *now[LANES] = {states, states, states, states};
    for (int k = 0; k < LANES; k++) {
        at[k] = border(text, n / LANES * (size_t)k, n);
    }
    for (int k = 0; k < LANES; k++) {
        end[k] = k + 1 < LANES ? at[k + 1] : n;
        least = end[k] - at[k] < least ? end[k] - at[k] : least;
    }
    for (size_t i = 0; i < least; i++) {
        for (int k = 0; k < LANES; k++) {
            now[k] = now[k]->next[kind_of[text[at[k] + i]]];
            tokens += now[k]->begins;
        }
    }
    for (int k = 0; k < LANES; k++) {
        tokens += walk(now[k], text + at[k] + least, end[k] - at[k] - least);
    }
    return tokens;
}

int64_t estimate_text(const char *text, size_t n) {
    const unsigned char *bytes = (const unsigned char *)text;
    return n >= 1024 ? estimate_lanes(bytes, n) : walk(states, bytes, n);
}

int64_t estimate_prompt(const request *r) {
    int64_t tokens = 0;
    for (int i = 0; i < r->n_messages; i++) {
        tokens += 4; /* the template's own words around a message */
        if (r->messages[i].content) {
            tokens += estimate_text(r->messages[i].content, strlen(r->messages[i].content));
        }
    }
    if (r->query) {
        tokens += estimate_text(r->query, strlen(r->query));
    }
    for (int i = 0; i < r->n_prompts; i++) {
        const prompt *p = &r->prompts[i];
        tokens += p->text ? estimate_text(p->text, strlen(p->text)) : p->n_ids;
    }
    return tokens;
}

int64_t estimate_answer(const answer *a) {
    int64_t tokens = 0;
    for (int i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        tokens += estimate_text(c->text.data, c->text.len) + estimate_text(c->reasoning.data, c->reasoning.len);
        if (c->tool_calls) {
            str calls = {0};
            if (json_write(c->tool_calls, &calls)) {
                tokens += estimate_text(calls.data, calls.len);
            }
            str_free(&calls);
        }
    }
    return tokens;
}
