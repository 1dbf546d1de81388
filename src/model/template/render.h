/* render.h - the state of one rendering and its budgets.
 *
 * Text is built at the end of `out`: what is not output after all (a macro's result, a joined list) is taken off again
 * with jinja_take. Every function here returns false after it has filled r->e.                                        */
#ifndef PARE_MODEL_TEMPLATE_RENDER_H
#define PARE_MODEL_TEMPLATE_RENDER_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "model/template/ast.h"
#include "model/template/value.h"

#define TEMPLATE_MAX_STEPS  (10 * 1000 * 1000)
#define TEMPLATE_MAX_OUTPUT ((size_t)64 << 20)
#define TEMPLATE_MAX_MEMORY ((size_t)128 << 20) /* beside the output; the strings of the input are not copied */
#define TEMPLATE_MAX_DEPTH  1000                /* of evaluation; a level takes about 400 bytes of stack */
#define TEMPLATE_MAX_NEST   100                 /* of a value that is printed, compared or converted */
#define TEMPLATE_MAX_RANGE  100000              /* as jinja2's sandbox */

typedef struct binding {
    int   name;
    value bound;
} binding;

/* What `set`, `for`, `with` and macro parameters fill. A scope sees those it stands in, as the template is written. */
typedef struct scope {
    struct scope *parent;
    value        *slots; /* of the outermost scope only: one per name of the template */
    binding      *bindings;
    int           n;
    int           cap;
} scope;

typedef struct macro {
    const node   *node;
    struct scope *scope; /* where it was defined */
} macro;

typedef struct loop_state {
    list          items;
    size_t        at;
    args         *seen; /* loop.changed: the arguments of the last call */
    const node   *node;
    struct scope *scope; /* where the loop stands */
    int           depth; /* 1, and one more in each loop(items) */
} loop_state;

typedef struct render {
    const ast *tree;
    arena     *memory;
    size_t     taken;
    uint64_t   steps;
    str       *out;
    size_t     base; /* where this rendering began in out */
    scope     *scope;
    int        depth;
    int        line; /* of what is being evaluated, for sentences */
    int64_t    now;
    err       *e;
} render;

/* A macro, as err_set is, so that the compiler sees the false. */
#define jinja_fail(...) (jinja_complain(__VA_ARGS__), err_false())
void  jinja_complain(render *r, err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool  jinja_spend(render *r, size_t work); /* one step, and one more for every 64 items or bytes of work */
void *jinja_alloc(render *r, size_t count, size_t size);

bool jinja_emit(render *r, const char *bytes, size_t n);
bool jinja_take(render *r, size_t mark, value *out); /* what was emitted since out->len was `mark` */

/* print.c: adds to out what Python's str() and repr() and json.dumps() say */
typedef struct json_style {
    const text *indent; /* NULL: on one line */
    const text *item_separator;
    const text *key_separator;
    bool        ascii;
    bool        sort_keys;
} json_style;

bool jinja_print(render *r, value v);
bool jinja_repr(render *r, value v);
bool jinja_json(render *r, value v, const json_style *style);
bool jinja_string(render *r, value v, value *out); /* str(v); a string stays as it is */

/* eval.c, call.c, run.c */
bool jinja_eval(render *r, const node *n, value *out);
bool jinja_call(render *r, value callee, const args *a, value *out);
bool jinja_call_macro(render *r, const macro *m, const args *a, value *out);
bool jinja_call_loop(render *r, const loop_state *loop, value items, value *out); /* loop(items) */
bool jinja_eval_args(render *r, const call_args *given, args *out);
bool jinja_attribute(render *r, value of, const text *name, value *out); /* of.name */
bool jinja_item(render *r, value of, value key, value *out);             /* of[key] */
bool jinja_bind(render *r, int name, value v);
bool jinja_add(render *r, value a, value b, value *out);
bool jinja_binary(render *r, operator_kind op, value a, value b, value *out);
bool jinja_slice(render *r, value of, const value bounds[3], value *out);
bool jinja_format_percent(render *r, value format, value with, value *out);

/* The outermost scope's body, a macro's or a block's. */
typedef enum run_result { RUN_DONE, RUN_FAILED, RUN_BREAK, RUN_CONTINUE } run_result;
run_result jinja_run(render *r, const node *body);

/* Arguments of builtins, by place or by name. */
bool jinja_arg(const args *a, int place, const char *name, value *out); /* was it given? */
bool jinja_arg_int(render *r, const args *a, int place, const char *name, int64_t *out);
bool jinja_arg_text(render *r, const args *a, int place, const char *name, const text **out);
bool jinja_arg_truth(const args *a, int place, const char *name, bool otherwise);

/* The tables. NULL when there is no such name. */
const builtin *jinja_filter(const char *name, size_t n);
const builtin *jinja_text_filter(const char *name, size_t n);
const builtin *jinja_test(const char *name, size_t n);
const builtin *jinja_global(const char *name, size_t n);
const builtin *jinja_string_method(const char *name, size_t n);
const builtin *jinja_split_method(const char *name, size_t n);
const builtin *jinja_method(value self, const text *name); /* of any type */
bool           jinja_forbidden(value self, const text *name);
const builtin *jinja_find(const builtin *table, size_t count, const char *name, size_t n);

#endif
