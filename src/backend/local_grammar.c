/* local_grammar.c - what a request lets the answer look like, as a grammar: a form of JSON, a schema, a grammar of the
 * client's, or calls of its tools in the model's own way of writing them. Grammars of late requests are kept: clients
 * ask for the same form again and again, and what was worked out for the masks goes with the grammar.               */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/local.h"

#define MOST_CALLS 16 /* of one answer that must call */

typedef enum rule_kind { RULE_NONE, RULE_GBNF, RULE_JSON, RULE_SCHEMA, RULE_CALLS, RULE_CALLS_OR_FORM } rule_kind;

typedef struct manner { /* how an answer that is held to calls is written */
    speech_format f;
    const char   *mark;   /* that opens a call; NULL: none */
    int32_t       id;     /* of the mark, when it is a control token, which no grammar allows; else -1 */
    bool          marked; /* the grammar writes the marks */
} manner;

static manner manner_of(const local_backend *b) {
    manner      m = {.f = speech_format_held(&b->speech), .id = -1};
    const char *mark = m.mark = speech_call_mark(&m.f);
    bool        unmarked = speech_calls_unmarked(&m.f);
    int32_t     id = mark && !unmarked && b->m->tokens ? tokenizer_find(b->m->tokens, mark, strlen(mark)) : -1;
    if (id >= 0 && tokenizer_kind(b->m->tokens, id) == TOKEN_CONTROL) {
        m.id = id;
    }
    m.marked = !unmarked && m.id < 0;
    return m;
}

static rule_kind kind_of(const manner *m, const request *r) {
    if (local_must_call(r)) {
        return RULE_CALLS;
    }
    if (r->grammar) {
        return RULE_GBNF;
    }
    if (r->form == RESPONSE_TEXT) {
        return RULE_NONE;
    }
    if (r->kind == REQUEST_CHAT && local_tools(r) && m->marked) {
        return RULE_CALLS_OR_FORM; /* a mark that no grammar allows leaves the form alone */
    }
    return r->form == RESPONSE_SCHEMA ? RULE_SCHEMA : RULE_JSON;
}

/* Families write their calls, and most models their JSON, with one space behind commas and colons: nothing is left to
 * choose there, so more of the answer is forced. In JSON of any kind little is forced anyway. */
static schema_options options_of(rule_kind kind) {
    return (schema_options){.space = kind == RULE_JSON ? JSON_SPACE_OPTIONAL : JSON_SPACE_ONE};
}

/* ---- calls ---- */

typedef struct calls { /* all that grammar_from_calls wants, and the texts behind it */
    grammar_call *list;
    str          *texts; /* two a call */
    int           n;
} calls;

static void calls_free(calls *c) {
    for (int i = 0; c->texts && i < 2 * c->n; i++) {
        str_free(&c->texts[i]);
    }
    free(c->texts);
    free(c->list);
}

static const cJSON *function_of(const cJSON *tool) {
    return cJSON_GetObjectItemCaseSensitive(tool, "function");
}

/* A function without parameters takes none, says OpenAI's reference. */
static const cJSON no_parameters = {
    .type = cJSON_Object,
    .child = &(cJSON){.type = cJSON_Object, .string = "properties"},
};

static const cJSON *parameters_of(const cJSON *tool) {
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(function_of(tool), "parameters");
    return cJSON_IsObject(schema) ? schema : &no_parameters;
}

static const char *name_of(const cJSON *tool) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function_of(tool), "name"));
}

static bool is_wanted(const request *r, const char *name) {
    return r->choice != TOOLS_NAMED || strcmp(r->tool, name) == 0;
}

static bool add_call(const manner *m, const cJSON *tool, const char *name, calls *c, err *e) {
    str *before = &c->texts[2 * c->n], *after = before + 1;
    bool ok = speech_call_text(&m->f, name, m->marked, before, after);
    c->list[c->n++] =
        (grammar_call){before->data ? before->data : "", parameters_of(tool), after->data ? after->data : ""};
    return ok || err_set(e, ERR_MEMORY, "out of memory for the tools");
}

static bool add_calls(const manner *m, const request *r, calls *c, err *e) {
    size_t n = (size_t)cJSON_GetArraySize(r->tools) + 1;
    c->list = calloc(n, sizeof(*c->list));
    c->texts = calloc(2 * n, sizeof(*c->texts));
    if (!c->list || !c->texts) {
        return err_set(e, ERR_MEMORY, "out of memory for the tools");
    }
    const cJSON *tool;
    cJSON_ArrayForEach(tool, r->tools) { /* each has a name: the request was checked */
        const char *name = name_of(tool);
        if (is_wanted(r, name) && !add_call(m, tool, name, c, e)) {
            return false;
        }
    }
    return true;
}

/* The place in a schema becomes a place in the request. */
static void place_error(err *e, const char *schema) {
    char within[sizeof(e->param)];
    memcpy(within, e->param, sizeof(within));
    int n = snprintf(e->param, sizeof(e->param), "%.80s", schema);
    if (within[0]) {
        snprintf(e->param + n, sizeof(e->param) - (size_t)n, ".%.100s", within);
    }
}

/* One tool's schema cannot be used, or only all of them together cannot. */
static void blame_tool(const request *r, const schema_options *o, err *e) {
    const cJSON *tool;
    int          i = 0;
    cJSON_ArrayForEach(tool, r->tools) {
        err      why = {0};
        grammar *g = is_wanted(r, name_of(tool)) ? grammar_from_schema(parameters_of(tool), o, &why) : NULL;
        grammar_free(g);
        if (why.code != ERR_NONE) {
            char place[64];
            snprintf(place, sizeof(place), "tools[%d].function.parameters", i);
            place_error(&why, place);
            *e = why;
            return;
        }
        i++;
    }
    snprintf(e->param, sizeof(e->param), "tools");
}

/* The tools that must be called, or may be called where the answer has a form of its own. */
static grammar *from_tools(const manner *m, const request *r, const schema_options *o, err *e) {
    calls    c = {0};
    grammar *g = NULL;
    err      why = {0};
    bool     must = local_must_call(r), many = must && m->marked && !r->one_tool && speech_calls_many(&m->f);
    if (add_calls(m, r, &c, &why)) {
        if (!must) {
            c.list[c.n] = (grammar_call){"", r->form == RESPONSE_SCHEMA ? r->schema : NULL, ""};
        }
        g = grammar_from_calls(c.list, c.n + !must, "\n", many ? MOST_CALLS : 1, o, &why);
        if (!g) {
            blame_tool(r, o, &why);
        }
    }
    if (!g && e) {
        *e = why;
    }
    calls_free(&c);
    return g;
}

/* ---- all kinds ---- */

static grammar *from_form(const request *r, const schema_options *o, err *e) {
    if (r->form != RESPONSE_SCHEMA) {
        return grammar_json_object(o, e);
    }
    grammar *g = grammar_from_schema(r->schema, o, e);
    if (!g) {
        place_error(e, r->schema_place ? r->schema_place : "response_format");
    }
    return g;
}

static grammar *make(const manner *m, const request *r, rule_kind kind, err *e) {
    schema_options o = options_of(kind);
    err            why = {0};
    grammar       *g = NULL;
    switch (kind) {
    case RULE_NONE:
        return NULL;
    case RULE_GBNF:
        g = grammar_from_gbnf(r->grammar, strlen(r->grammar), &why);
        if (!g) {
            err_at(e, why.code, "grammar", "%s", why.text);
        }
        return g;
    case RULE_CALLS:
        return from_tools(m, r, &o, e);
    case RULE_CALLS_OR_FORM: /* tools that cannot be held to are left out: none of them must be called */
        g = from_tools(m, r, &o, NULL);
        return g ? g : from_form(r, &o, e);
    case RULE_JSON:
    case RULE_SCHEMA:
        break;
    }
    return from_form(r, &o, e);
}

/* ---- grammars that are kept ---- */

/* All that the grammar is made of; a model's way of writing calls never changes. */
static bool key_of(const request *r, rule_kind kind, sha256 *out) {
    str  text = {0};
    bool calls = kind == RULE_CALLS || kind == RULE_CALLS_OR_FORM;
    str_addf(&text, "%d %d %d ", (int)kind, (int)r->form, calls && r->one_tool);
    str_jsons(&text, calls && r->choice == TOOLS_NAMED ? r->tool : "");
    bool ok = kind != RULE_GBNF || str_adds(&text, r->grammar);
    ok = ok && (!calls || json_write(r->tools, &text));
    ok = ok && (kind == RULE_GBNF || r->form != RESPONSE_SCHEMA || json_write(r->schema, &text));
    ok = ok && !text.failed;
    if (ok) {
        *out = sha256_of(text.data, text.len);
    }
    str_free(&text);
    return ok;
}

/* Holds it for the caller. On the worker's thread only. */
static grammar *get(local_backend *b, const manner *m, const request *r, rule_kind kind, err *e) {
    sha256      key;
    bool        keyed = key_of(r, kind, &key);
    local_kept *oldest = &b->kept[0];
    b->kept_clock++;
    for (int i = 0; keyed && i < LOCAL_KEPT; i++) {
        local_kept *k = &b->kept[i];
        if (k->g && memcmp(&k->key, &key, sizeof(key)) == 0) {
            k->used = b->kept_clock;
            return grammar_hold(k->g);
        }
        oldest = k->used < oldest->used ? k : oldest;
    }
    grammar *g = make(m, r, kind, e);
    if (g && keyed) {
        grammar_free(oldest->g);
        *oldest = (local_kept){key, grammar_hold(g), b->kept_clock};
    }
    return g;
}

void local_rules_free(local_backend *b) {
    for (int i = 0; i < LOCAL_KEPT; i++) {
        grammar_free(b->kept[i].g);
    }
}

bool local_rule_make(local_backend *b, const request *r, bool thinks, local_rule *out, err *e) {
    manner    m = manner_of(b);
    rule_kind kind = kind_of(&m, r);
    *out = (local_rule){.prefix = -1};
    if (kind == RULE_NONE) {
        return true;
    }
    if (kind == RULE_CALLS && b->manners.no_tools) {
        return err_at(e, ERR_UNSUPPORTED, "tool_choice",
                      "the chat template of %s has no place for tools, so it cannot know them; ask another model",
                      b->base.name);
    }
    out->g = get(b, &m, r, kind, e);
    if (kind == RULE_CALLS && !m.marked) {
        out->mark = m.mark;
        out->prefix = thinks ? -1 : m.id;
    }
    out->trigger = thinks ? b->speech.think_close : NULL; /* and it must come: the answer has a form, or is a call */
    if (!out->g && e && e->code == ERR_LIMIT) {
        e->code = ERR_INVALID; /* it is the grammar that is too large and not the request: 400 and not 413 */
    }
    return out->g != NULL;
}
