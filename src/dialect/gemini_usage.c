/* gemini_usage.c - what an answer cost, and its log probabilities. */
#include "dialect/gemini.h"

#include <string.h>

/* [{"modality": "AUDIO", "tokenCount": 7}, ...] */
static int64_t of_modality(const cJSON *usage, const char *list, const char *modality) {
    int64_t      sum = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, neutral_get(usage, list)) {
        const char *its = neutral_text(item, "modality");
        sum += its && strcmp(its, modality) == 0 ? neutral_count(item, "tokenCount") : 0;
    }
    return sum;
}

static usage_tier tier_of(const char *name) {
    return !name                      ? TIER_STANDARD
           : strstr(name, "flex")     ? TIER_FLEX
           : strstr(name, "FLEX")     ? TIER_FLEX
           : strstr(name, "priority") ? TIER_PRIORITY
           : strstr(name, "PRIORITY") ? TIER_PRIORITY
                                      : TIER_STANDARD;
}

/* The prompt's count has the cached tokens in it but not those of the provider's own tools; the candidates' count has no
 * thoughts in it. */
bool gemini_read_usage(const cJSON *root, usage *out) {
    const cJSON *u = neutral_get(root, "usageMetadata");
    if (!cJSON_IsObject(u)) {
        return false;
    }
    *out = (usage){
        .prompt = neutral_count(u, "promptTokenCount") + neutral_count(u, "toolUsePromptTokenCount"),
        .completion = neutral_count(u, "candidatesTokenCount") + neutral_count(u, "thoughtsTokenCount"),
        .cached = neutral_count(u, "cachedContentTokenCount"),
        .reasoning = neutral_count(u, "thoughtsTokenCount"),
        .audio_in =
            of_modality(u, "promptTokensDetails", "AUDIO") + of_modality(u, "toolUsePromptTokensDetails", "AUDIO"),
        .image_in =
            of_modality(u, "promptTokensDetails", "IMAGE") + of_modality(u, "toolUsePromptTokensDetails", "IMAGE"),
        .audio_cached = of_modality(u, "cacheTokensDetails", "AUDIO"),
        .audio_out = of_modality(u, "candidatesTokensDetails", "AUDIO"),
        .tier = tier_of(neutral_text(u, "serviceTier")),
    };
    out->known = out->prompt > 0 || out->completion > 0;
    return true;
}

/* ---- log probabilities ---- */

static cJSON *entry_of(const cJSON *candidate) {
    const char  *token = neutral_text(candidate, "token");
    const cJSON *logprob = neutral_get(candidate, "logProbability");
    cJSON       *entry = cJSON_CreateObject();
    token = token ? token : "";
    cJSON_AddStringToObject(entry, "token", token);
    cJSON_AddNumberToObject(entry, "logprob", cJSON_IsNumber(logprob) ? logprob->valuedouble : 0); /* 0 is left out */
    cJSON *bytes = cJSON_AddArrayToObject(entry, "bytes");
    for (const unsigned char *p = (const unsigned char *)token; *p; p++) {
        cJSON_AddItemToArray(bytes, cJSON_CreateNumber(*p));
    }
    return entry;
}

/* {"chosenCandidates": [{"token", "logProbability"}], "topCandidates": [{"candidates": [the same]}]}: two lists that walk
 * side by side. */
cJSON *gemini_read_logprobs(const cJSON *candidate) {
    const cJSON *result = neutral_get(candidate, "logprobsResult"), *chosen = neutral_get(result, "chosenCandidates");
    const cJSON *tops = neutral_get(result, "topCandidates"), *top = cJSON_IsArray(tops) ? tops->child : NULL;
    const cJSON *token, *other;
    if (!cJSON_IsArray(chosen) || !chosen->child) {
        return NULL;
    }
    cJSON *out = cJSON_CreateArray();
    cJSON_ArrayForEach(token, chosen) {
        cJSON *entry = entry_of(token), *list = cJSON_AddArrayToObject(entry, "top_logprobs");
        cJSON_ArrayForEach(other, neutral_get(top, "candidates")) {
            cJSON_AddItemToArray(list, entry_of(other));
        }
        if (!cJSON_AddItemToArray(out, entry)) {
            cJSON_Delete(entry);
        }
        top = top ? top->next : NULL;
    }
    return out;
}
