#include "stage/estimate.h"

#include <ctype.h>
#include <string.h>

static int class_of(unsigned char c) {
    if (isalpha(c)) {
        return 1;
    }
    if (isdigit(c)) {
        return 2;
    }
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
        return 0;
    }
    return c >= 0x80 ? 4 : 3;
}

int64_t estimate_text(const char *text, size_t n) {
    int64_t tokens = 0;
    for (size_t i = 0; i < n;) {
        int    kind = class_of((unsigned char)text[i]);
        size_t begin = i;
        while (i < n && class_of((unsigned char)text[i]) == kind) {
            i++;
        }
        int64_t run = (int64_t)(i - begin);
        switch (kind) {
        case 0: /* one blank belongs to the next word; more are a token of their own */
            tokens += run > 1;
            break;
        case 1:
            tokens += run <= 7 ? 1 : 1 + (run - 7 + 4) / 5;
            break;
        case 2:
            tokens += (run + 2) / 3;
            break;
        case 3:
            tokens += run;
            break;
        default: /* two to four bytes a character outside ASCII, about a token each */
            tokens += (run + 2) / 3;
        }
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
