/* models.c - GET /v1/models: which names may be asked for, as OpenAI's clients read it, and as Anthropic's do.
 *
 * Anthropic's clients send an anthropic-version header, and get pages: limit, after_id, before_id. Source: the API's
 * reference at docs.claude.com, "List Models".                                                                       */
#include <stdlib.h>
#include <string.h>

#include "serve/front.h"

#define PAGE      20 /* the API's own default */
#define MOST_PAGE 1000

bool may_ask(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    const char    *bearer = bearer_of(r);
    if (g->n_keys == 0 || (bearer && gateway_key(g, bearer))) {
        return true;
    }
    reply_error(r, 401, ERR_DENIED, "", "This needs an API key: Authorization: Bearer KEY.");
    return false;
}

/* ---- OpenAI's form ---- */

static void write_openai(str *out, const model_entry *m) {
    str_adds(out, "{\"id\":");
    str_jsons(out, m->name);
    str_addf(out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"%s:", m->backend->ops->kind);
    str quoted = {0};
    str_jsons(&quoted, m->backend->name);
    if (quoted.len >= 2) {
        str_add(out, quoted.data + 1, quoted.len - 2);
    }
    str_free(&quoted);
    str_adds(out, "\"}");
}

static void list_openai(const gateway *g, str *out) {
    str_adds(out, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < g->n_models; i++) {
        str_adds(out, i ? "," : "");
        write_openai(out, &g->models[i]);
    }
    str_adds(out, "]}");
}

/* ---- Anthropic's form ---- */

/* When a model was released is not known here; the API's own models of unknown age have this date. */
static void write_anthropic(str *out, const model_entry *m) {
    str_adds(out, "{\"type\":\"model\",\"id\":");
    str_jsons(out, m->name);
    str_adds(out, ",\"display_name\":");
    str_jsons(out, m->name);
    str_adds(out, ",\"created_at\":\"1970-01-01T00:00:00Z\"}");
}

/* The model's place in the list; -1: none of that name. */
static int place_of_model(const gateway *g, const char *name) {
    for (int i = 0; i < g->n_models; i++) {
        if (strcmp(g->models[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* A cursor of the query string: `otherwise` when it is not given; -2: it has been answered with 400. */
static int read_cursor(const gateway *g, struct evhttp_request *r, const char *key, int otherwise) {
    char        name[256] = "";
    query_found found = query_get(r, key, name, sizeof name);
    int         place = found == QUERY_FOUND ? place_of_model(g, name) : -1;
    if (found == QUERY_ABSENT) {
        return otherwise;
    }
    if (place < 0) {
        reply_error(r, 400, ERR_INVALID, key, "%s must be the id of a model in the list.", key);
        return -2;
    }
    return place;
}

/* False: it has been answered. */
static bool list_anthropic(const gateway *g, struct evhttp_request *r, str *out) {
    char        text[16] = "20", *end = NULL;
    query_found found = query_get(r, "limit", text, sizeof text);
    long        limit = found == QUERY_ABSENT ? PAGE : strtol(text, &end, 10);
    if (found == QUERY_UNREADABLE || (end && (*end || end == text)) || limit < 1 || limit > MOST_PAGE) {
        reply_error(r, 400, ERR_INVALID, "limit", "limit must be a number from 1 to %d.", MOST_PAGE);
        return false;
    }
    int after = read_cursor(g, r, "after_id", -1);
    int before = after == -2 ? -2 : read_cursor(g, r, "before_id", g->n_models);
    if (before == -2) {
        return false;
    }
    int  from = after + 1, to = before, most = (int)limit;
    bool backwards = before < g->n_models && after < 0; /* the page that ends before it */
    bool more = to - from > most;
    from = more && backwards ? to - most : from;
    to = more && !backwards ? from + most : to;
    str_adds(out, "{\"data\":[");
    for (int i = from; i < to; i++) {
        str_adds(out, i > from ? "," : "");
        write_anthropic(out, &g->models[i]);
    }
    str_addf(out, "],\"has_more\":%s,\"first_id\":", more ? "true" : "false");
    str_jsons(out, from < to ? g->models[from].name : NULL);
    str_adds(out, ",\"last_id\":");
    str_jsons(out, from < to ? g->models[to - 1].name : NULL);
    return str_adds(out, "}");
}

/* ---- both ---- */

/* The gateway as this client may see it: with the models that its key may use. The caller frees view->models. */
static bool view_of(const gateway *g, const client_key *key, gateway *view) {
    *view = *g;
    view->models = calloc((size_t)g->n_models + 1, sizeof *view->models);
    view->n_models = 0;
    for (int i = 0; view->models && i < g->n_models; i++) {
        if (client_key_allows(key, g->models[i].name)) {
            view->models[view->n_models++] = g->models[i];
        }
    }
    return view->models != NULL;
}

static void answer_of(const gateway *g, struct evhttp_request *r, const char *name) {
    bool anthropic = dialect_of(r) == &dialect_anthropic;
    str  out = {0};
    if (name) {
        char              *plain = evhttp_uridecode(name, 0, NULL); /* "meta/llama" comes as meta%2Fllama */
        const model_entry *m = gateway_model(g, plain ? plain : name);
        if (m && anthropic) {
            write_anthropic(&out, m);
        } else if (m) {
            write_openai(&out, m);
        } else {
            reply_error(r, 404, ERR_NOT_FOUND, "model", "The model \"%.100s\" does not exist here.",
                        plain ? plain : name);
        }
        free(plain);
        if (!m) {
            return;
        }
    } else if (!anthropic) {
        list_openai(g, &out);
    } else if (!list_anthropic(g, r, &out)) {
        str_free(&out);
        return;
    }
    if (out.failed) {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
    } else {
        reply_json(r, 200, out.data, out.len);
    }
    str_free(&out);
}

void models_answer(front *f, struct evhttp_request *r, const char *name) {
    const gateway *all = &f->now->gateway;
    gateway        mine;
    if (!may_ask(f, r)) {
        return;
    }
    const client_key *key = all->n_keys > 0 ? gateway_key(all, bearer_of(r)) : NULL;
    if (!key || (!key->account && !key->group_account)) {
        answer_of(all, r, name);
    } else if (view_of(all, key, &mine)) {
        answer_of(&mine, r, name);
        free(mine.models);
    } else {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
    }
}
