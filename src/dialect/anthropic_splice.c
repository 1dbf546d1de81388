/* anthropic_splice.c - the request of a client that speaks Anthropic's API itself: its own bytes, with the model's name
 * and, where the operator's budget allows less, the most tokens put in. cache_control and all that pare does not know
 * stay where they stand, so that the provider's prompt cache sees the same prefix every time.                       */
#include <inttypes.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"
#include "dialect/openai.h"

/* A budget for thinking must stay below max_tokens: it follows when that is lowered. */
static bool write_thinking(const cJSON *thinking, int64_t most, str *out) {
    int64_t fits = anthropic_fit_budget(neutral_count(thinking, "budget_tokens"), most);
    if (fits == 0) {
        return str_adds(out, "{\"type\":\"disabled\"}");
    }
    return str_addf(out, "{\"type\":\"enabled\",\"budget_tokens\":%" PRId64 "}", fits);
}

bool anthropic_splice(const request *r, const char *model, str *out) {
    const cJSON *thinking = neutral_get(r->client, "thinking");
    bool         lower = r->most_tokens > 0 && r->most_tokens < r->max_tokens;
    bool         refit = lower && neutral_count(thinking, "budget_tokens") >= r->most_tokens;
    size_t       at = 0;
    size_t       copied = 0; /* the raw bytes before this are in `out` */
    raw_member   m;
    str_reserve(out, r->raw_len + strlen(model) + 64);
    while (raw_next(r->raw, r->raw_len, &at, &m)) {
        bool is_model = raw_key_is(&m, "model");
        bool is_most = lower && raw_key_is(&m, "max_tokens");
        bool is_thinking = refit && raw_key_is(&m, "thinking");
        if (!is_model && !is_most && !is_thinking) {
            continue;
        }
        size_t value = (size_t)(m.value - r->raw);
        str_add(out, r->raw + copied, value - copied);
        copied = value + m.value_len;
        if (is_model) {
            str_jsons(out, model);
        } else if (is_most) {
            str_addf(out, "%" PRId64, r->most_tokens);
        } else {
            write_thinking(thinking, r->most_tokens, out);
        }
    }
    return str_add(out, r->raw + copied, r->raw_len - copied);
}
