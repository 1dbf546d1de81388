/* gemini_embed.c - embeddings: batchEmbedContents, one request of it for each text. */
#include "dialect/gemini.h"

#include <inttypes.h>
#include <string.h>

#include "dialect/values.h"

bool gemini_write_embed(gemini_writer *w) {
    static const char *const carried[] = {"model", "input", "encoding_format", "dimensions", NULL};
    const request           *r = w->r;
    const char              *collection = strchr(w->model, '/') ? "" : "models/";
    if (!neutral_carried(r, carried, GEMINI_TARGET, w->e)) {
        return false;
    }
    str name = {0};
    str_addf(&name, "%s%s", collection, w->model);
    w->out->failed = w->out->failed || name.failed;
    str_adds(w->out, "{\"requests\":[");
    for (int i = 0; i < r->n_prompts; i++) {
        if (!r->prompts[i].text) {
            str_free(&name);
            return err_at(w->e, ERR_UNSUPPORTED, "input",
                          "input holds token ids, which " GEMINI_TARGET " does not take: send texts.");
        }
        str_adds(w->out, i ? ",{\"model\":" : "{\"model\":");
        str_json(w->out, name.data ? name.data : "", name.len);
        str_adds(w->out, ",\"content\":{\"parts\":[{\"text\":");
        str_jsons(w->out, r->prompts[i].text);
        str_adds(w->out, "}]}");
        if (r->dimensions > 0) {
            str_addf(w->out, ",\"outputDimensionality\":%" PRId64, r->dimensions);
        }
        str_addc(w->out, '}');
    }
    str_free(&name);
    return str_adds(w->out, "]}");
}

static bool no_answer(const char *body, size_t n, err *e) {
    cJSON      *error = values_tree(body, n, "error");
    const char *text = neutral_text(error, "message");
    if (text) {
        err_set(e, ERR_UPSTREAM, "The provider reported an error: %.400s", text);
    } else {
        err_set(e, ERR_UPSTREAM, "There is no list of embeddings in it: it is not an answer of " GEMINI_TARGET ".");
    }
    cJSON_Delete(error);
    return false;
}

/* Not every model counts; who does not say is counted by pare. */
static usage read_usage(const char *body, size_t n) {
    cJSON *told = values_tree(body, n, "usageMetadata");
    usage  u = {.prompt = neutral_count(told, "promptTokenCount")};
    u.known = u.prompt > 0;
    cJSON_Delete(told);
    return u;
}

/* {"values": [...]}. Vectors that were cut (outputDimensionality) do not have length 1 again, which OpenAI's have. */
static bool read_embedding(values_reader *v, int index, str *out) {
    const char *key;
    size_t      n;
    bool        found = false, good = values_enter(v, '{');
    while (good && values_member(v, &key, &n)) {
        if (!found && values_key(key, n, "values")) {
            found = good = values_vector(v, index, true, out);
        } else {
            good = values_skip(v);
        }
    }
    return good && found && !v->bad;
}

bool gemini_read_embed(const char *body, size_t n, answer *out, err *e) {
    size_t      length;
    const char *list = values_find(body, n, "embeddings", &length);
    str         text = {0};
    int         count = 0;
    if (!list) {
        return no_answer(body, n, e);
    }
    values_reader v = {.at = list, .end = list + length};
    bool          good = values_enter(&v, '[');
    out->usage = read_usage(body, n);
    values_begin(&text);
    while (good && values_item(&v)) {
        good = read_embedding(&v, count++, &text);
    }
    values_end(&out->usage, &text);
    if (good && !v.bad) {
        return values_keep(&text, out, e);
    }
    str_free(&text);
    return no_answer(body, n, e);
}
