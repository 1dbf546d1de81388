/* anthropic_thinking.c - how a wish for reasoning is spelled for a model, and how many tokens go with it.
 *
 * Models before Claude 4.6 think with a budget of tokens, which must stay below max_tokens; from 4.6 on they are told an
 * effort and choose themselves, and from 4.7 on a budget is an error. Names that are not Claude's belong to compatible
 * servers, which know the budget. Source: the API's guides on extended thinking, adaptive thinking and effort.      */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

#define DEFAULT_MAX_TOKENS 8192 /* the API wants a number; a size that every model since Claude 3.5 can make */

/* The version in "claude-opus-4-6-20260205", "claude-3-7-sonnet-latest", "anthropic/claude-sonnet-4.6": 406, 307, 406.
 * The first number of a name, and the one behind it if it is no date. 0: not one of Claude's names. */
static int version_of(const char *model) {
    const char *p = strstr(model, "claude");
    while (p && *p && !isdigit((unsigned char)*p)) {
        p++;
    }
    if (!p || !*p) {
        return p ? 999 : 0; /* a name of Claude's without a number is of the newest kind */
    }
    char *end;
    long  major = strtol(p, &end, 10);
    long  minor = 0;
    if (major > 99) {
        return 999;
    }
    if ((*end == '-' || *end == '.') && isdigit((unsigned char)end[1])) {
        minor = strtol(end + 1, &end, 10);
    }
    return (int)major * 100 + (minor > 99 ? 0 : (int)minor);
}

int64_t anthropic_fit_budget(int64_t budget, int64_t max_tokens) {
    int64_t most = max_tokens / 4 * 3; /* a quarter at least is for the answer itself */
    int64_t fits = budget < most ? budget : most;
    return fits >= ANTHROPIC_MIN_BUDGET ? fits : 0;
}

/* OpenAI's efforts, and Anthropic's, as tokens. */
static const struct {
    const char *name;
    int64_t     budget;
} efforts[] = {{"none", 0},     {"minimal", 1024}, {"low", 2048}, {"medium", 8192},
               {"high", 16384}, {"xhigh", 24576},  {"max", 32000}};

static int64_t budget_of(const char *effort) {
    for (size_t i = 0; i < sizeof efforts / sizeof efforts[0]; i++) {
        if (strcmp(efforts[i].name, effort) == 0) {
            return efforts[i].budget;
        }
    }
    return -1;
}

/* Within a round of tool calls the API wants the turn's own thinking back before it thinks on. A client that does not
 * keep it gets the round finished without thinking. Source: "Preserving thinking blocks" in the extended thinking guide. */
static bool thinking_was_lost(const request *r) {
    for (int i = r->n_messages - 1; i >= 0; i--) {
        const message *m = &r->messages[i];
        if (strcmp(m->role, "assistant") == 0) {
            const cJSON *calls = neutral_get(m->json, "tool_calls");
            return calls && calls->child && i < r->n_messages - 1 && !neutral_text(m->json, "reasoning_signature") &&
                   !neutral_text(m->json, "reasoning_redacted");
        }
        if (strcmp(m->role, "user") == 0) {
            return false;
        }
    }
    return false;
}

static bool no_room(const request *r, const char *name, err *e) {
    if (r->drops && r->drops->allowed) {
        return drop_member(r->drops, name, ANTHROPIC_TARGET, e);
    }
    return err_at(e, ERR_UNSUPPORTED, name,
                  "%s cannot be carried to " ANTHROPIC_TARGET
                  ": thinking takes %d tokens at least, and max_tokens leaves no room for them. Raise max_tokens.",
                  name, ANTHROPIC_MIN_BUDGET);
}

/* max_tokens where nobody gave one: the answer's room beside the budget. */
static int64_t open_limit(const request *r, int64_t budget) {
    int64_t wanted = DEFAULT_MAX_TOKENS + budget;
    return r->most_tokens > 0 && r->most_tokens < wanted ? r->most_tokens : wanted;
}

static bool plan_budget(const request *r, int64_t budget, const char *name, anthropic_thinking *out, err *e) {
    out->max_tokens = r->max_tokens < 0 ? open_limit(r, budget) : request_most(r);
    int64_t fits = anthropic_fit_budget(budget, out->max_tokens);
    if (budget < out->max_tokens && budget >= ANTHROPIC_MIN_BUDGET && strcmp(name, "thinking") == 0) {
        fits = budget; /* the client's own number, which is allowed */
    }
    if (fits == 0) {
        bool capped = request_most(r) == r->most_tokens; /* the operator's budget, not the client's number */
        if (capped) {
            drop_hint(r->drops, name);
        }
        return capped || no_room(r, name, e);
    }
    out->type = "enabled";
    out->budget = fits;
    return true;
}

static bool plan_effort(const request *r, const char *effort, int version, anthropic_thinking *out, err *e) {
    int64_t budget = budget_of(effort);
    if (budget < 0) {
        return drop_member(r->drops, "reasoning_effort", ANTHROPIC_TARGET, e);
    }
    if (budget == 0) {
        return true; /* without a word it does not think, or as little as it can */
    }
    if (version >= 406) {
        out->type = "adaptive";
        out->effort = strcmp(effort, "minimal") == 0                  ? "low"
                      : strcmp(effort, "xhigh") == 0 && version < 407 ? "high"
                                                                      : effort;
        return true;
    }
    if (thinking_was_lost(r)) {
        drop_hint(r->drops, "reasoning_effort");
        return true;
    }
    return plan_budget(r, budget, "reasoning_effort", out, e);
}

bool anthropic_plan_thinking(const request *r, const char *model, anthropic_thinking *out, err *e) {
    const cJSON *thinking = neutral_get(r->body, "thinking");
    const char  *type = neutral_text(thinking, "type"), *effort = neutral_text(r->body, "reasoning_effort");
    int          version = version_of(model);
    int64_t      given = neutral_count(thinking, "budget_tokens");
    *out = (anthropic_thinking){.max_tokens = r->max_tokens < 0 ? open_limit(r, 0) : request_most(r)};
    if (!type) {
        return thinking ? drop_member(r->drops, "thinking", ANTHROPIC_TARGET, e)
                        : !effort || plan_effort(r, effort, version, out, e);
    }
    if (strcmp(type, "disabled") == 0) {
        out->type = "disabled";
        return true;
    }
    if (strcmp(type, "enabled") == 0 && given > 0 && version < 407) {
        return plan_budget(r, given, "thinking", out, e);
    }
    if (version >= 406) { /* a budget for a model that takes none: it chooses */
        out->type = "adaptive";
        out->effort = effort;
        return true;
    }
    return plan_effort(r, effort ? effort : "medium", version, out, e);
}
