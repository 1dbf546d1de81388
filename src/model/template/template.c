#include "model/template/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/template/lex.h"
#include "model/template/render.h"
#include "model/template/text.h"

struct chat_template {
    char *source;     /* as given, NUL-terminated */
    char *normalised; /* what the tree's data points into */
    ast   tree;
};

/* ---- budgets ---- */

void jinja_complain(render *r, err_code code, const char *format, ...) {
    char    text[sizeof(r->e->text)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err_set(r->e, code, "chat template, line %d: %s", r->line, text);
}

bool jinja_spend(render *r, size_t work) {
    r->steps += 1 + work / 64;
    if (r->steps > TEMPLATE_MAX_STEPS) {
        return jinja_fail(r, ERR_LIMIT, "gave up after %d steps (an endless loop?)", TEMPLATE_MAX_STEPS);
    }
    return true;
}

void *jinja_alloc(render *r, size_t count, size_t size) {
    size_t n; /* the builtin is gcc's and clang's: C17 has no checked multiplication */
    if (__builtin_mul_overflow(count, size, &n) || n > TEMPLATE_MAX_MEMORY - r->taken) {
        jinja_fail(r, ERR_LIMIT, "needs more than %zu MiB of memory", TEMPLATE_MAX_MEMORY >> 20);
        return NULL;
    }
    r->taken += n < 16 ? 16 : n;
    if (r->taken > TEMPLATE_MAX_MEMORY) {
        r->taken = TEMPLATE_MAX_MEMORY;
    }
    void *p = arena_alloc(r->memory, n);
    if (!p) {
        jinja_fail(r, ERR_MEMORY, "out of memory");
    }
    return p;
}

bool jinja_emit(render *r, const char *bytes, size_t n) {
    if (n > TEMPLATE_MAX_OUTPUT - (r->out->len - r->base)) {
        return jinja_fail(r, ERR_LIMIT, "writes more than %zu MiB", TEMPLATE_MAX_OUTPUT >> 20);
    }
    if (!str_add(r->out, bytes, n)) {
        return jinja_fail(r, ERR_MEMORY, "out of memory");
    }
    return jinja_spend(r, n);
}

bool jinja_take(render *r, size_t mark, value *out) {
    if (!jinja_text(r, r->out->data ? r->out->data + mark : "", r->out->len - mark, out)) {
        return false;
    }
    r->out->len = mark;
    return true;
}

/* ---- the contract ---- */

chat_template *template_compile(const char *source, size_t n, err *e) {
    size_t bad;
    if (n > TEMPLATE_MAX_SOURCE) {
        err_set(e, ERR_LIMIT, "chat template of %zu bytes: more than %zu are not read", n, TEMPLATE_MAX_SOURCE);
        return NULL;
    }
    if (!utf8_valid(source, n, &bad)) {
        err_set(e, ERR_INVALID, "chat template: byte %zu is not UTF-8", bad);
        return NULL;
    }
    chat_template *t = calloc(1, sizeof(*t));
    if (t) {
        t->source = malloc(n + 1);
        t->normalised = malloc(n + 1);
    }
    if (!t || !t->source || !t->normalised) {
        template_free(t);
        err_set(e, ERR_MEMORY, "out of memory while reading the chat template");
        return NULL;
    }
    if (n) {
        memcpy(t->source, source, n);
    }
    t->source[n] = '\0';
    if (!jinja_parse(&t->tree, t->normalised, jinja_normalise(source, n, t->normalised), e)) {
        template_free(t);
        return NULL;
    }
    return t;
}

void template_free(chat_template *t) {
    if (t) {
        jinja_ast_free(&t->tree);
        free(t->source);
        free(t->normalised);
        free(t);
    }
}

const char *template_source(const chat_template *t) {
    return t->source;
}

/* The outermost scope: the global functions, and over them the members of `input` that the template names at all. */
static bool fill_slots(render *r, scope *outermost, const cJSON *input) {
    const ast *tree = r->tree;
    outermost->slots = jinja_alloc(r, (size_t)tree->n_names, sizeof(value));
    if (!outermost->slots) {
        return false;
    }
    for (int i = 0; i < tree->n_names; i++) {
        outermost->slots[i] = tree->globals[i] ? (value){.kind = V_FUNCTION, .as.function = tree->globals[i]}
                                               : value_undefined(tree->names[i]);
    }
    for (const cJSON *member = input->child; member; member = member->next) {
        int64_t number;
        if (member->string && map_get(tree->numbers, member->string, strlen(member->string), &number) &&
            !jinja_from_json(r, member, &outermost->slots[number])) {
            return false;
        }
    }
    return true;
}

bool template_render(const chat_template *t, const cJSON *input, int64_t now, str *out, err *e) {
    if (!cJSON_IsObject(input)) {
        return err_set(e, ERR_INVALID, "the input of a chat template must be an object");
    }
    scope  outermost = {0};
    render r = {.tree = &t->tree,
                .memory = arena_new(16384),
                .out = out,
                .base = out->len,
                .scope = &outermost,
                .line = 1,
                .now = now,
                .e = e};
    bool   ok = r.memory ? fill_slots(&r, &outermost, input) && jinja_run(&r, t->tree.body) == RUN_DONE
                         : err_set(e, ERR_MEMORY, "out of memory");
    arena_free(r.memory);
    if (!ok) {
        out->len = r.base;
    }
    if (out->data) { /* text that was built and taken away stands behind len */
        out->data[out->len] = '\0';
    }
    return ok;
}
