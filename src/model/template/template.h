/* template.h - a chat template: the subset of Jinja that model files carry, rendered within bounds.
 *
 * Compiled once, rendered by any thread. Semantics are jinja2's in an immutable sandbox with trim_blocks and
 * lstrip_blocks, as Hugging Face transformers renders them. A hostile template can waste neither time nor memory: steps,
 * output bytes, depth and allocation are bounded.                                                                    */
#ifndef PARE_MODEL_TEMPLATE_TEMPLATE_H
#define PARE_MODEL_TEMPLATE_TEMPLATE_H

#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

typedef struct chat_template chat_template;

chat_template *template_compile(const char *source, size_t n, err *e); /* sentences carry the line */
void           template_free(chat_template *t);
const char    *template_source(const chat_template *t);

/* `input` is an object; every member is a variable (messages, tools, add_generation_prompt, bos_token ...). `now` is
 * what strftime_now prints, in seconds since 1970 UTC. raise_exception gives ERR_INVALID with the template's text. */
bool template_render(const chat_template *t, const cJSON *input, int64_t now, str *out, err *e);

#endif
