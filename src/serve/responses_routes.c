/* responses_routes.c - kept answers: /v1/responses/{id} and its input items, for the key that asked for them alone. */
#include <stdlib.h>
#include <string.h>

#include "serve/later.h"
#include "store/conversations.h"

typedef enum wish { WISH_RESPONSE, WISH_DELETE, WISH_ITEMS } wish;

typedef struct question {
    later            *reply;
    wish              wish;
    conversation_name name;
} question;

static int status_of(err_code code) {
    switch (code) {
    case ERR_NOT_FOUND:
        return 404;
    case ERR_INVALID:
        return 400;
    case ERR_BUSY:
    case ERR_TIMEOUT:
        return 503;
    default:
        return 500;
    }
}

static void answered(void *ctx, const str *json, const err *e) {
    question *q = ctx;
    str       deleted = {0};
    err       why = e ? *e : (err){0};
    if (e && e->code == ERR_TIMEOUT) {
        err_set(&why, ERR_TIMEOUT, "Reading the answer took too long; ask again.");
    }
    if (!e && q->wish == WISH_DELETE) { /* it is there, and theirs */
        db_conversation_delete(later_front(q->reply)->house->db, &q->name);
        str_adds(&deleted, "{\"id\":");
        str_jsons(&deleted, q->name.id);
        str_adds(&deleted, ",\"object\":\"response\",\"deleted\":true}");
        json = &deleted;
    }
    later_reply(q->reply, e ? status_of(e->code) : 200, json, e ? &why : NULL);
    str_free(&deleted);
    free(q);
}

static void ask(front *f, struct evhttp_request *r, wish w, const conversation_page *page) {
    question *q = calloc(1, sizeof *q);
    later    *l = q ? later_begin(f, r) : NULL;
    if (!l) {
        if (!q) {
            reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
        }
        free(q);
        return;
    }
    *q = (question){.reply = l, .wish = w, .name = page->name};
    /* The page begins with the name, which is all that the other question needs. */
    db_conversation_ask(f->house->db, f->loop, w == WISH_ITEMS ? conversation_items : conversation_response, page,
                        sizeof *page, answered, q);
}

/* False: it has been answered. */
static bool read_page(struct evhttp_request *r, conversation_page *page) {
    char        limit[16] = "20", order[16] = "desc";
    query_found by_limit = query_get(r, "limit", limit, sizeof limit),
                by_order = query_get(r, "order", order, sizeof order);
    char *end = NULL;
    long  n = strtol(limit, &end, 10);
    if (by_limit == QUERY_UNREADABLE || *end || end == limit || n < 1 || n > 100) {
        reply_error(r, 400, ERR_INVALID, "limit", "limit must be a number from 1 to 100.");
        return false;
    }
    page->limit = (int)n;
    page->oldest_first = strcmp(order, "asc") == 0;
    if (by_order == QUERY_UNREADABLE || (!page->oldest_first && strcmp(order, "desc") != 0)) {
        reply_error(r, 400, ERR_INVALID, "order", "order must be \"asc\" or \"desc\".");
        return false;
    }
    if (query_get(r, "after", page->after, sizeof page->after) == QUERY_UNREADABLE) {
        reply_error(r, 400, ERR_INVALID, "after", "after must be the id of an item.");
        return false;
    }
    return true;
}

/* Whose answers they are; false: it has been answered. */
static bool read_name(front *f, struct evhttp_request *r, const char *id, size_t n, conversation_name *out) {
    const gateway    *g = &f->now->gateway;
    const char       *bearer = bearer_of(r);
    const client_key *key = g->n_keys > 0 && bearer ? gateway_key(g, bearer) : NULL;
    char              copy[CONVERSATION_ID_SIZE] = "";
    if (g->n_keys > 0 && !key) {
        reply_error(r, 401, ERR_DENIED, "", "This needs an API key: Authorization: Bearer KEY.");
        return false;
    }
    if (n < sizeof copy) {
        memcpy(copy, id, n);
        copy[n] = '\0';
    }
    if (!g->db || !conversation_name_of(out, copy, key ? key->space : "", key ? key->name : "")) {
        reply_error(r, 404, ERR_NOT_FOUND, "", "There is no answer of that id here.");
        return false;
    }
    return true;
}

static bool allowed(struct evhttp_request *r, wish *w) {
    switch (evhttp_request_get_command(r)) {
    case EVHTTP_REQ_GET:
    case EVHTTP_REQ_HEAD:
        return true;
    case EVHTTP_REQ_DELETE:
        if (*w == WISH_RESPONSE) {
            *w = WISH_DELETE;
            return true;
        }
        break;
    default:
        break;
    }
    evhttp_add_header(evhttp_request_get_output_headers(r), "Allow",
                      *w == WISH_ITEMS ? "GET, HEAD" : "GET, HEAD, DELETE");
    reply_error(r, 405, ERR_UNSUPPORTED, "", "A kept answer can be read and deleted, its input items can be read.");
    return false;
}

void stored_response(front *f, struct evhttp_request *r, const char *id_and_rest) {
    size_t            n = strcspn(id_and_rest, "/");
    const char       *rest = id_and_rest + n;
    conversation_page page = {0};
    wish              w = WISH_RESPONSE;
    char              stream[8] = "";
    if (strcmp(rest, "/input_items") == 0) {
        w = WISH_ITEMS;
    } else if (*rest) {
        reply_error(r, 404, ERR_NOT_FOUND, "",
                    "There is nothing at /v1/responses/%.100s. Of an answer there are /v1/responses/{id} and "
                    "/v1/responses/{id}/input_items; background answers, which could be cancelled, are not supported.",
                    id_and_rest);
        return;
    }
    if (!allowed(r, &w) || (w == WISH_ITEMS && !read_page(r, &page))) {
        return;
    }
    if (query_get(r, "stream", stream, sizeof stream) == QUERY_FOUND && strcmp(stream, "true") == 0) {
        reply_error(r, 400, ERR_UNSUPPORTED, "stream",
                    "A kept answer is not told as a stream again: leave stream out.");
        return;
    }
    if (read_name(f, r, id_and_rest, n, &page.name)) {
        ask(f, r, w, &page);
    }
}
