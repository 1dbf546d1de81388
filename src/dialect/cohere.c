/* cohere.c - Cohere's rerank and embed (v2), for providers alone.
 *
 * Sources: Cohere's API reference, "Rerank (v2)" and "Embed (v2)". Clients speak Cohere's form of rerank to pare as they do
 * OpenAI's form of embeddings, so an answer to rerank passes on nearly as it stands.                                   */
#include <inttypes.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/url.h"
#include "dialect/values.h"

#define TARGET "Cohere's API"

static bool write_url(const place_of *p, str *out) {
    if (p->kind != REQUEST_RERANK && p->kind != REQUEST_EMBEDDINGS) {
        return false;
    }
    str_adds(out, p->base);
    str_adds(out, url_ends(p->base, "/v2") ? "" : "/v2");
    return str_adds(out, p->kind == REQUEST_RERANK ? "/rerank" : "/embed");
}

static void write_texts(const request *r, const char *name, str *out) {
    str_addf(out, ",\"%s\":[", name);
    for (int i = 0; i < r->n_prompts; i++) {
        str_adds(out, i ? "," : "");
        str_jsons(out, r->prompts[i].text);
    }
    str_addc(out, ']');
}

/* The client's documents' texts are put beside their scores by values_adapt: this API no longer does that. */
static bool write_rerank(const request *r, str *out, err *e) {
    static const char *const carried[] = {
        "model", "query", "documents", "top_n", "return_documents", "max_tokens_per_doc", NULL};
    const cJSON *most = neutral_get(r->body, "max_tokens_per_doc");
    if (!neutral_carried(r, carried, TARGET, e)) {
        return false;
    }
    str_adds(out, ",\"query\":");
    str_jsons(out, r->query);
    write_texts(r, "documents", out);
    if (r->top_n > 0) {
        str_addf(out, ",\"top_n\":%" PRId64, r->top_n);
    }
    if (most) {
        str_adds(out, ",\"max_tokens_per_doc\":");
        json_write(most, out);
    }
    return true;
}

/* What a text is for must be said, and OpenAI's API has no word for it: "search_document" is what goes into an index, and
 * a client that searches says "input_type": "search_query" beside its input. */
static bool write_embed(const request *r, str *out, err *e) {
    static const char *const carried[] = {"model", "input", "encoding_format", "dimensions", "input_type", NULL};
    const char              *type = "search_document";
    if (!neutral_carried(r, carried, TARGET, e) || !json_get_string(r->body, "", "input_type", &type, e)) {
        return false;
    }
    for (int i = 0; i < r->n_prompts; i++) {
        if (!r->prompts[i].text) {
            return err_at(e, ERR_UNSUPPORTED, "input",
                          "input holds token ids, which " TARGET " does not take: send texts.");
        }
    }
    write_texts(r, "texts", out);
    str_adds(out, ",\"input_type\":");
    str_jsons(out, type);
    str_adds(out, ",\"embedding_types\":[\"float\"]");
    if (r->dimensions > 0) {
        str_addf(out, ",\"output_dimension\":%" PRId64, r->dimensions);
    }
    return true;
}

static bool write_request(const request *r, const char *model, bool ask_usage, str *out, err *e) {
    (void)ask_usage; /* it is always told */
    if (r->kind != REQUEST_RERANK && r->kind != REQUEST_EMBEDDINGS) {
        return err_set(e, ERR_UNSUPPORTED, TARGET " is spoken for rerank and embeddings alone.");
    }
    str_adds(out, "{\"model\":");
    str_jsons(out, model);
    if (!(r->kind == REQUEST_RERANK ? write_rerank(r, out, e) : write_embed(r, out, e))) {
        return false;
    }
    return str_addc(out, '}') || err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
}

/* ---- answers ---- */

static usage read_usage(const char *body, size_t n) {
    cJSON       *meta = values_tree(body, n, "meta");
    const cJSON *billed = neutral_get(meta, "billed_units"), *tokens = neutral_get(meta, "tokens");
    usage u = {.searches = neutral_count(billed, "search_units"), .image_in = neutral_count(billed, "image_tokens")};
    u.prompt = neutral_count(billed, "input_tokens") + u.image_in;
    if (u.prompt == 0) {
        u.prompt = neutral_count(tokens, "input_tokens");
    }
    u.known = u.prompt > 0 || u.searches > 0;
    cJSON_Delete(meta);
    return u;
}

static bool no_answer(const char *body, size_t n, const char *lacking, err *e) {
    cJSON      *message = values_tree(body, n, "message");
    const char *text = cJSON_IsString(message) ? message->valuestring : NULL;
    if (text) {
        err_set(e, ERR_UPSTREAM, "The provider reported an error: %.400s", text);
    } else {
        err_set(e, ERR_UPSTREAM, "There is no %s in it: it is not an answer of " TARGET ".", lacking);
    }
    cJSON_Delete(message);
    return false;
}

static bool read_rerank(const char *body, size_t n, answer *out, err *e) {
    size_t      length, meta_length;
    const char *results = values_find(body, n, "results", &length);
    const char *meta = values_find(body, n, "meta", &meta_length);
    cJSON      *id = values_tree(body, n, "id");
    cJSON      *checked = results ? json_parse(results, length, 8, NULL) : NULL; /* some thousand scores at most */
    cJSON      *told = meta ? json_parse(meta, meta_length, 16, NULL) : NULL;
    str         text = {0};
    bool        good = cJSON_IsArray(checked);
    if (good) {
        str_adds(&text, "{\"id\":");
        str_jsons(&text, cJSON_IsString(id) ? id->valuestring : "");
        str_adds(&text, ",\"object\":\"list\",\"model\":\"\",\"results\":");
        str_add(&text, results, length);
        if (told) {
            str_adds(&text, ",\"meta\":");
            str_add(&text, meta, meta_length);
        }
        str_addf(&text, ",\"usage\":{\"prompt_tokens\":%" PRId64 ",\"total_tokens\":%" PRId64 "}}", out->usage.prompt,
                 out->usage.prompt);
    }
    cJSON_Delete(id);
    cJSON_Delete(checked);
    cJSON_Delete(told);
    return good ? values_keep(&text, out, e) : no_answer(body, n, "list of results", e);
}

static bool read_embed(const char *body, size_t n, answer *out, err *e) {
    size_t      length, inner_length;
    const char *all = values_find(body, n, "embeddings", &length);
    const char *list = all ? values_find(all, length, "float", &inner_length) : NULL;
    str         text = {0};
    int         count = 0;
    if (!list) {
        return no_answer(body, n, "list of embeddings", e);
    }
    values_reader v = {.at = list, .end = list + inner_length};
    bool          good = values_enter(&v, '[');
    values_begin(&text);
    while (good && values_item(&v)) {
        good = values_vector(&v, count++, false, &text);
    }
    values_end(&out->usage, &text);
    if (good && !v.bad) {
        return values_keep(&text, out, e);
    }
    str_free(&text);
    return no_answer(body, n, "list of embeddings", e);
}

static bool read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e) {
    *out = (answer){.usage = read_usage(body, n)};
    return kind == REQUEST_RERANK ? read_rerank(body, n, out, e) : read_embed(body, n, out, e);
}

/* Neither of the two is ever a stream. */
static bool read_chunk(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e) {
    (void)kind, (void)state, (void)data, (void)n, (void)emit, (void)ctx;
    *done = false;
    return err_set(e, ERR_UPSTREAM, TARGET " sent a stream, which was not asked for.");
}

const dialect dialect_cohere = {
    .name = "cohere",
    .write_url = write_url,
    .key_header = "Authorization: Bearer ",
    .write_request = write_request,
    .read_answer = read_answer,
    .read_chunk = read_chunk,
};
