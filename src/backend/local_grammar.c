/* local_grammar.c - what a request lets the answer look like, as a grammar: a form of JSON, a schema, a grammar of the
 * client's, or a call of one of its tools in the model's own way of writing them.                                    */
#include <stdlib.h>
#include <string.h>

#include "backend/local.h"

#define MOST_CALLS 16 /* of one answer that must call */

typedef struct calls { /* all that grammar_from_calls wants, and the texts behind it */
    grammar_call *list;
    str          *texts; /* two a call */
    int           n;
} calls;

static void calls_free(calls *c) {
    for (int i = 0; c->texts && i < 2 * c->n; i++)
        str_free(&c->texts[i]);
    free(c->texts);
    free(c->list);
}

static bool wanted(const request *r, const char *name) {
    return r->choice != TOOLS_NAMED || strcmp(r->tool, name) == 0;
}

static bool add_call(const local_backend *b, const cJSON *tool, bool marked, calls *c, err *e) {
    const cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
    const char  *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function, "name"));
    str         *before = &c->texts[2 * c->n], *after = before + 1;
    if (!name)
        return err_at(e, ERR_INVALID, "tools", "a tool has no function.name");
    bool ok = speech_call_text(&b->speech, name, marked, before, after);
    c->list[c->n++] =
        (grammar_call){before->data, cJSON_GetObjectItemCaseSensitive(function, "parameters"), after->data};
    return ok || err_at(e, ERR_UNSUPPORTED, "tool_choice",
                        "%s writes its tool calls in a way (%s) that pare cannot hold it to; use tool_choice auto",
                        b->base.name, speech_calls_name(&b->speech));
}

/* The tools that must be called, or may be called where the answer has a schema of its own. */
static grammar *from_tools(const local_backend *b, const request *r, bool marked, const schema_options *o, err *e) {
    calls    c = {0};
    grammar *g = NULL;
    bool     must = r->choice == TOOLS_REQUIRED || r->choice == TOOLS_NAMED, ok = true;
    size_t   n = (size_t)cJSON_GetArraySize(r->tools) + 1;
    c.list = calloc(n, sizeof *c.list);
    c.texts = calloc(2 * n, sizeof *c.texts);
    if (!c.list || !c.texts)
        ok = err_set(e, ERR_MEMORY, "out of memory for the tools");
    const cJSON *tool;
    cJSON_ArrayForEach(tool, r->tools) {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
        const char  *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function, "name"));
        if (ok && (!name || wanted(r, name)))
            ok = add_call(b, tool, marked, &c, e);
    }
    bool many = must && marked && !r->one_tool && speech_calls_many(&b->speech);
    if (ok && !must)
        c.list[c.n] = (grammar_call){"", r->form == RESPONSE_SCHEMA ? r->schema : NULL, ""};
    if (ok)
        g = grammar_from_calls(c.list, c.n + !must, "\n", many ? MOST_CALLS : 1, o, e);
    calls_free(&c);
    return g;
}

/* A mark that is a control token is none that a grammar allows: it goes behind the prompt. */
static int32_t control_mark(const local_backend *b) {
    const char *mark = speech_call_mark(&b->speech);
    int32_t     id = mark && b->m->tokens ? tokenizer_find(b->m->tokens, mark, strlen(mark)) : -1;
    return id >= 0 && tokenizer_kind(b->m->tokens, id) == TOKEN_CONTROL ? id : -1;
}

static grammar *make(const local_backend *b, const request *r, local_rule *out, err *e) {
    const schema_options o = {.space = JSON_SPACE_OPTIONAL};
    bool                 must = r->choice == TOOLS_REQUIRED || r->choice == TOOLS_NAMED;
    bool                 may = local_tools(r) && b->speech.calls && !must;
    if (r->kind == REQUEST_CHAT && must) {
        int32_t mark = control_mark(b);
        if (mark >= 0) {
            out->prefix = mark;
            out->prefix_text = speech_call_mark(&b->speech);
        }
        return from_tools(b, r, mark < 0, &o, e);
    }
    if (r->grammar)
        return grammar_from_gbnf(r->grammar, strlen(r->grammar), e);
    if (r->kind == REQUEST_CHAT && r->form != RESPONSE_TEXT && may && control_mark(b) < 0) {
        err      ignored = {0};
        grammar *g = from_tools(b, r, true, &o, &ignored);
        if (g)
            return g;
    }
    return r->form == RESPONSE_SCHEMA ? grammar_from_schema(r->schema, &o, e) : grammar_json_object(&o, e);
}

bool local_rule_make(const local_backend *b, const request *r, bool thinks, local_rule *out, err *e) {
    *out = (local_rule){.prefix = -1};
    bool must = r->choice == TOOLS_REQUIRED || r->choice == TOOLS_NAMED;
    if (!r->grammar && r->form == RESPONSE_TEXT && !(must && r->kind == REQUEST_CHAT))
        return true;
    out->g = make(b, r, out, e);
    if (out->g && thinks) {
        out->trigger = b->speech.think_close;
        out->prefix = -1; /* it reasons first, and comes to the call by itself */
    }
    return out->g != NULL;
}
