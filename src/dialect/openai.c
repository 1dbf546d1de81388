/* openai.c - the OpenAI API (chat completions, completions, embeddings; and rerank) as a dialect; the work is in
 * openai_*.c. */
#include <string.h>

#include "dialect/openai.h"

static const char *const paths[] = {[REQUEST_CHAT] = "/chat/completions",
                                    [REQUEST_COMPLETION] = "/completions",
                                    [REQUEST_EMBEDDINGS] = "/embeddings",
                                    [REQUEST_RERANK] = "/rerank"};

static bool write_url(const place_of *p, str *out) {
    str_adds(out, p->base);
    return str_adds(out, paths[p->kind]);
}

const dialect dialect_openai = {
    .name = "openai",
    .read_request = openai_read_request,
    .read_local = openai_read_local,
    .canonical = openai_canonical,
    .write_answer = openai_write_answer,
    .write_values = openai_write_values,
    .write_error = openai_write_error,
    .writing = sizeof(openai_writing),
    .write_event = openai_write_event,
    .write_raw = openai_write_raw,
    .write_end = openai_write_end,
    .write_break = openai_write_break,
    .write_url = write_url,
    .key_header = "Authorization: Bearer ",
    .write_request = openai_write_request,
    .read_answer = openai_read_answer,
    .read_chunk = openai_read_chunk,
};

const dialect dialect_openai_own = {
    .name = "openai",
    .as = &dialect_openai,
    .write_url = write_url,
    .key_header = "Authorization: Bearer ",
    .write_request = openai_write_own,
    .read_answer = openai_read_answer,
    .read_chunk = openai_read_chunk,
};

const dialect *dialect_own(const dialect *d) {
    return !d || d == &dialect_openai ? &dialect_openai_own : d == &dialect_azure ? &dialect_azure_own : NULL;
}

static const dialect *body_of(const dialect *d) {
    return !d ? &dialect_openai : d->as ? d->as : d;
}

bool dialect_same(const dialect *a, const dialect *b) {
    return body_of(a) == body_of(b);
}

const dialect *dialect_named(const char *name) {
    static const dialect *const all[] = {&dialect_openai, &dialect_azure, &dialect_anthropic, &dialect_gemini,
                                         &dialect_cohere};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}
