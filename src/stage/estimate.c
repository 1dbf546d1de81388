#include "stage/estimate.h"

#include <string.h>

/* Runs of one kind of byte, and what the next byte of each kind makes of them: a letter is the first to seventh of a word
 * (A1 to A7) or the first to fifth of a further five (B1 to B5), digits and bytes outside ASCII go in threes, a second blank
 * is a token and further ones are not. One step a byte without a branch: words of all lengths would mislead every one. */
enum { BLANK, LETTER, DIGIT, OTHER, HIGH, KINDS };

typedef enum state {
    START,
    A1,
    A2,
    A3,
    A4,
    A5,
    A6,
    A7,
    B1,
    B2,
    B3,
    B4,
    B5,
    D1,
    D2,
    D3,
    H1,
    H2,
    H3,
    O,
    S1,
    S2,
    S3,
    STATES
} state;

static const uint8_t next_state[STATES][8] = {
    [START] = {S1, A1, D1, O, H1}, [A1] = {S1, A2, D1, O, H1}, [A2] = {S1, A3, D1, O, H1}, [A3] = {S1, A4, D1, O, H1},
    [A4] = {S1, A5, D1, O, H1},    [A5] = {S1, A6, D1, O, H1}, [A6] = {S1, A7, D1, O, H1}, [A7] = {S1, B1, D1, O, H1},
    [B1] = {S1, B2, D1, O, H1},    [B2] = {S1, B3, D1, O, H1}, [B3] = {S1, B4, D1, O, H1}, [B4] = {S1, B5, D1, O, H1},
    [B5] = {S1, B1, D1, O, H1},    [D1] = {S1, A1, D2, O, H1}, [D2] = {S1, A1, D3, O, H1}, [D3] = {S1, A1, D1, O, H1},
    [H1] = {S1, A1, D1, O, H2},    [H2] = {S1, A1, D1, O, H3}, [H3] = {S1, A1, D1, O, H1}, [O] = {S1, A1, D1, O, H1},
    [S1] = {S2, A1, D1, O, H1},    [S2] = {S3, A1, D1, O, H1}, [S3] = {S3, A1, D1, O, H1},
};

/* The states in which a token begins. */
static const uint8_t begins[STATES] = {[A1] = 1, [B1] = 1, [D1] = 1, [H1] = 1, [O] = 1, [S2] = 1};

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
    size_t  at[LANES], end[LANES], least = n;
    uint8_t now[LANES] = {START, START, START, START};
    int64_t tokens = 0;
    for (int k = 0; k < LANES; k++) {
        at[k] = border(text, n / LANES * (size_t)k, n);
    }
    for (int k = 0; k < LANES; k++) {
        end[k] = k + 1 < LANES ? at[k + 1] : n;
        least = end[k] - at[k] < least ? end[k] - at[k] : least;
    }
    for (size_t i = 0; i < least; i++) {
        for (int k = 0; k < LANES; k++) {
            now[k] = next_state[now[k]][kind_of[text[at[k] + i]]];
            tokens += begins[now[k]];
        }
    }
    for (int k = 0; k < LANES; k++) {
        for (size_t i = at[k] + least; i < end[k]; i++) {
            now[k] = next_state[now[k]][kind_of[text[i]]];
            tokens += begins[now[k]];
        }
    }
    return tokens;
}

int64_t estimate_text(const char *text, size_t n) {
    const unsigned char *bytes = (const unsigned char *)text;
    uint8_t              now = START;
    int64_t              tokens = 0;
    if (n >= 1024) {
        return estimate_lanes(bytes, n);
    }
    for (size_t i = 0; i < n; i++) {
        now = next_state[now][kind_of[bytes[i]]];
        tokens += begins[now];
    }
    return tokens;
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
