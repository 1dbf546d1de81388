/* OpenAI's responses from anybody: never a crash, what is read can be written, kept and read again, and a kept
 * conversation that is put before it changes nothing else. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/responses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void must_be_json(const str *text) {
    err    e = {0};
    cJSON *tree = json_parse(text->data, text->len, JSON_MAX_DEPTH + 8, &e);
    must(tree != NULL);
    cJSON_Delete(tree);
}

/* The data as an answer that comes in pieces: what the stream ends with is an answer. */
static void check_answer(const request *r, const uint8_t *data, size_t n) {
    answer a = {.created = 1};
    void  *state = calloc(1, dialect_responses.writing);
    str    out = {0}, whole = {0};
    err    e = {0};
    must(state != NULL);
    for (size_t i = 0; i < n && i < 400; i++) {
        char  c = (char)('a' + data[i] % 26);
        event ev = {.kind = EVENT_DELTA};
        switch (data[i] % 4) {
        case 0:
            ev.text = &c, ev.text_len = 1;
            break;
        case 1:
            ev.reasoning = &c, ev.reasoning_len = 1;
            break;
        case 2:
            ev.refusal = &c, ev.refusal_len = 1;
            break;
        default:
            ev.signature = &c, ev.signature_len = 1;
        }
        must(answer_add(&a, &ev, &e) && dialect_responses.write_event(r, state, &a, &ev, &out));
    }
    must(dialect_responses.write_end(r, state, &a, false, "", &out));
    must(dialect_responses.write_answer(r, &a, &whole));
    must_be_json(&whole);
    answer_clear(&a);
    str_free(&out);
    str_free(&whole);
    free(state);
}

static void check_join(request *r, arena *memory) {
    str input = {0}, turns = {0};
    int before = r->n_messages;
    err e = {0};
    must(responses_input(r, &input));
    must_be_json(&input);
    str_addf(&turns, "[[],%s]", input.data);
    if (responses_join(r, turns.data, turns.len, memory, &e)) {
        must(r->n_messages >= before);
    } else {
        must(e.text[0] != '\0');
    }
    str_free(&input);
    str_free(&turns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    arena  *memory = arena_new(1024);
    request r;
    err     e = {0};
    str     text = {0};
    must(memory != NULL);
    if (dialect_responses.read_request(REQUEST_CHAT, (const char *)data, n, memory, &r, &e)) {
        must(dialect_responses.canonical(&r, &text));
        err ignored = {0};
        dialect_responses.read_local(&r, &ignored);
        check_answer(&r, data, n);
        check_join(&r, memory);
    } else {
        must(e.text[0] != '\0' && r.body == NULL && r.client == NULL && dialect_responses.write_error(&e, 0, &text));
        must_be_json(&text);
    }
    str_free(&text);
    request_free(&r);
    /* And as what stands in a damaged database. */
    const char *plain = "{\"model\":\"m\",\"input\":\"hi\"}";
    must(dialect_responses.read_request(REQUEST_CHAT, plain, strlen(plain), memory, &r, &e));
    e = (err){0};
    responses_join(&r, (const char *)data, n, memory, &e);
    request_free(&r);
    arena_free(memory);
    return 0;
}
