#include "dialect/neutral.h"

#include <stdio.h>
#include <string.h>

#include "dialect/openai.h"

/* ---- reading trees ---- */

const cJSON *neutral_get(const cJSON *object, const char *key) {
    const cJSON *value = json_member(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

const char *neutral_text(const cJSON *object, const char *key) {
    const cJSON *value = json_member(object, key);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

int64_t neutral_count(const cJSON *object, const char *key) {
    const cJSON *value = json_member(object, key);
    bool         sane = cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < 0x1p53;
    return sane ? (int64_t)value->valuedouble : 0;
}

const cJSON *neutral_function(const cJSON *tool) {
    const char  *type = neutral_text(tool, "type");
    const cJSON *function = neutral_get(tool, "function");
    return type && strcmp(type, "function") == 0 && cJSON_IsObject(function) && neutral_text(function, "name")
               ? function
               : NULL;
}

const char *neutral_error(const cJSON *root) {
    const cJSON *error = neutral_get(root, "error");
    if (!error) {
        return NULL;
    }
    const char *sentence = cJSON_IsString(error) ? error->valuestring : neutral_text(error, "message");
    return sentence && sentence[0] ? sentence : "it did not say which.";
}

const char *dialect_error_text(const cJSON *root) {
    return neutral_get(root, "error") ? neutral_error(root) : neutral_text(root, "message");
}

cJSON *neutral_parse(const char *body, size_t n, const char *what, err *e) {
    cJSON *root = json_parse(body, n, JSON_MAX_DEPTH, e);
    if (root && !cJSON_IsObject(root)) {
        err_set(e, ERR_UPSTREAM, "%s is %s, not a JSON object.", what, json_kind(root));
        cJSON_Delete(root);
        return NULL;
    }
    if (!root) {
        err_prefix(e, "%s cannot be read", what);
        if (e && e->code != ERR_MEMORY) {
            e->code = ERR_UPSTREAM; /* not the client's fault */
        }
    }
    return root;
}

cJSON *neutral_arguments(const char *text) {
    if (!text || !text[0]) {
        return cJSON_CreateObject();
    }
    cJSON *tree = json_parse(text, strlen(text), JSON_MAX_DEPTH, NULL);
    if (tree && !cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return NULL;
    }
    return tree;
}

bool neutral_data_url(const char *url, data_url *out) {
    static const char scheme[] = "data:", mark[] = ";base64,";
    if (!url || strncmp(url, scheme, sizeof scheme - 1) != 0) {
        return false;
    }
    out->media = url + sizeof scheme - 1;
    const char *at = strstr(out->media, mark);
    const char *comma = strchr(out->media, ',');
    if (!at || comma < at) { /* a comma before the mark: the mark is part of the data */
        return false;
    }
    out->media_len = (size_t)(at - out->media);
    out->base64 = at + sizeof mark - 1;
    out->base64_len = strlen(out->base64);
    return true;
}

/* ---- the neutral form of a request ---- */

void neutral_begin(request_kind kind, const char *raw, size_t n, const dialect *from, request *out) {
    *out = (request){.kind = kind,
                     .raw = raw,
                     .raw_len = n,
                     .from = from,
                     .max_tokens = -1,
                     .n = 1,
                     .temperature = 1,
                     .top_p = 1,
                     .repeat_penalty = 1};
}

bool neutral_read(request *out, arena *memory, err *e) {
    return openai_read_fields(out, memory, e);
}

void neutral_fail(request *out, const char *model, arena *memory, err *e) {
    openai_end_sentence(e);
    request failed = {.kind = out->kind,
                      .raw = out->raw,
                      .raw_len = out->raw_len,
                      .from = out->from,
                      .model = arena_strdup(memory, model)};
    request_free(out);
    *out = failed;
}

/* ---- what a dialect cannot carry ---- */

/* Names are the client's bytes, and the list goes into a header. */
static bool is_plain(const char *name, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (name[i] <= ' ' || name[i] > '~' || name[i] == ',') {
            return false;
        }
    }
    return n > 0 && n <= 64;
}

static void remember(drops *d, const char *name) {
    size_t used = strlen(d->names), n = strlen(name);
    if (!is_plain(name, n)) {
        name = "?";
        n = 1;
    }
    for (const char *at = d->names; (at = strstr(at, name)); at += n) { /* each name once */
        if ((at == d->names || at[-1] == ' ') && (at[n] == ',' || at[n] == '\0')) {
            return;
        }
    }
    bool ended = used > 3 && strcmp(d->names + used - 3, "...") == 0;
    if (used + n + 3 + sizeof ", ..." <= sizeof d->names) {
        snprintf(d->names + used, sizeof d->names - used, "%s%s", used ? ", " : "", name);
    } else if (!ended) { /* more than the list has room for: it says so */
        snprintf(d->names + used, sizeof d->names - used, ", ...");
    }
}

/* Without it the request says something else: a thread of Anthropic's API is the conversation that came before. */
static bool is_vital(const char *name) {
    return strcmp(name, "thread") == 0;
}

bool drop_member(drops *d, const char *name, const char *target, err *e) {
    if (d && d->allowed && !is_vital(name)) {
        remember(d, name);
        return true;
    }
    return err_at(e, ERR_UNSUPPORTED, name,
                  "%s cannot be carried to %s: leave it out, or let the operator set drop_unsupported: true.", name,
                  target);
}

void drop_hint(drops *d, const char *name) {
    if (d) {
        remember(d, name);
    }
}

static bool listed(const char *const *names, const char *name) {
    for (; *names; names++) {
        if (strcmp(*names, name) == 0) {
            return true;
        }
    }
    return false;
}

/* They say who asks, or how the provider files it. */
static const char *const hints[] = {
    "metadata", "user",         "store",         "prompt_cache_key",  "prompt_cache_retention",
    "priority", "cache_prompt", "cache_control", "safety_identifier", NULL};

bool neutral_carried(const request *r, const char *const *carried, const char *target, err *e) {
    const cJSON *m;
    cJSON_ArrayForEach(m, r->body) {
        if (listed(carried, m->string) || openai_is_default(m)) {
            continue;
        }
        if (listed(hints, m->string)) {
            drop_hint(r->drops, m->string);
        } else if (!drop_member(r->drops, m->string, target, e)) {
            return false;
        }
    }
    return true;
}
