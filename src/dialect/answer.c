/* answer.c - the neutral types' verbs: an answer grows from deltas, and both it and a request are given back.
 *
 * cJSON leaves `valueint` of strings, arrays and objects alone. While an answer grows we keep there what would cost a
 * walk to find again: of an arguments string its length, of a tool call its index, of the logprobs their nodes.      */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/dialect.h"

#define MAX_CHOICES       128
#define MAX_TOOL_CALLS    256
#define MAX_TEXT          ((size_t)64 << 20)
#define MAX_LOGPROB_NODES (4 << 20) /* about 350 MB: a node takes 64 bytes and its strings */

void request_free(request *r) {
    cJSON_Delete(r->body);
    cJSON_Delete(r->client);
    r->body = r->client = NULL;
}

static void choice_clear(choice *c) {
    str_free(&c->text);
    str_free(&c->reasoning);
    str_free(&c->refusal);
    str_free(&c->signature);
    cJSON_Delete(c->tool_calls);
    cJSON_Delete(c->logprobs);
}

void answer_clear(answer *a) {
    for (int i = 0; i < a->n_choices; i++) {
        choice_clear(&a->choices[i]);
    }
    free(a->choices);
    free(a->raw);
    *a = (answer){0};
}

bool answer_keep_raw(answer *a, const char *body, size_t n, const struct dialect *of, err *e) {
    a->raw = malloc(n + 1);
    if (!a->raw) {
        return err_set(e, ERR_MEMORY, "Out of memory while reading an answer.");
    }
    memcpy(a->raw, body, n);
    a->raw[n] = '\0';
    a->raw_len = n;
    a->raw_dialect = of;
    return true;
}

bool answer_complete(const answer *a) {
    for (int i = 0; i < a->n_choices; i++) {
        if (!a->choices[i].finish[0]) {
            return false;
        }
    }
    return a->n_choices > 0;
}

static bool out_of_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while keeping an answer.");
}

static void copy_name(char *to, size_t size, const char *from) {
    size_t n = strlen(from);
    n = n < size ? n : size - 1;
    memcpy(to, from, n);
    to[n] = '\0';
}

static choice *choice_at(answer *a, int index, err *e) {
    if (index < 0 || index >= MAX_CHOICES) {
        err_set(e, ERR_LIMIT, "The answer has a choice with the number %d; pare keeps 0 to %d.", index,
                MAX_CHOICES - 1);
        return NULL;
    }
    if (index >= a->n_choices) {
        size_t  count = (size_t)index + 1;
        choice *more = realloc(a->choices, count * sizeof *more);
        if (!more) {
            out_of_memory(e);
            return NULL;
        }
        memset(more + a->n_choices, 0, (count - (size_t)a->n_choices) * sizeof *more);
        a->choices = more;
        a->n_choices = (int)count;
    }
    return &a->choices[index];
}

/* ---- tool calls ---- */

static cJSON *arguments_of(const cJSON *call) {
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(call, "function"), "arguments");
}

static size_t text_bytes(const answer *a) {
    size_t total = 0;
    for (int i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        total += c->text.len + c->reasoning.len + c->refusal.len + c->signature.len;
        const cJSON *call;
        cJSON_ArrayForEach(call, c->tool_calls) {
            const cJSON *arguments = arguments_of(call);
            total += arguments ? (size_t)arguments->valueint : 0;
        }
    }
    return total;
}

static bool too_long(err *e) {
    return err_set(e, ERR_LIMIT, "The answer is longer than %zu MiB.", MAX_TEXT >> 20);
}

/* Room doubles, so that arguments which come a character at a time cost a linear sum of copies. */
static bool grow_string(cJSON *node, const char *more, size_t add, err *e) {
    size_t have = (size_t)node->valueint;
    size_t room = 64;
    while (room < have + 1) {
        room *= 2;
    }
    if (have == 0 || have + add + 1 > room) {
        while (room < have + add + 1) {
            room *= 2;
        }
        char *bigger = cJSON_malloc(room);
        if (!bigger) {
            return out_of_memory(e);
        }
        memcpy(bigger, node->valuestring, have);
        cJSON_free(node->valuestring);
        node->valuestring = bigger;
    }
    memcpy(node->valuestring + have, more, add);
    node->valuestring[have + add] = '\0';
    node->valueint = (int)(have + add);
    return true;
}

static bool add_arguments(const answer *a, cJSON *call, const cJSON *more, err *e) {
    if (!cJSON_IsString(more) && !cJSON_IsObject(more)) {
        return true;
    }
    str         written = {0};
    const char *text = more->valuestring;
    if (!cJSON_IsString(more)) { /* an object: against the rules, but some servers send it */
        json_write(more, &written);
        text = written.failed ? "" : written.data;
    }
    size_t n = strlen(text);
    bool   fits = n <= MAX_TEXT && text_bytes(a) <= MAX_TEXT - n;
    bool   good = fits ? grow_string(arguments_of(call), text, n, e) : too_long(e);
    str_free(&written);
    return good;
}

static bool set_string_once(cJSON *node, const cJSON *value) {
    if (!cJSON_IsString(value) || !node || node->valuestring[0] || !value->valuestring[0]) {
        return true;
    }
    size_t size = strlen(value->valuestring) + 1;
    char  *copy = cJSON_malloc(size);
    if (!copy) {
        return false;
    }
    memcpy(copy, value->valuestring, size);
    cJSON_free(node->valuestring);
    node->valuestring = copy;
    return true;
}

static cJSON *new_call(cJSON *calls, int index) {
    cJSON *call = cJSON_CreateObject();
    cJSON_AddStringToObject(call, "id", "");
    cJSON_AddStringToObject(call, "type", "function");
    cJSON *function = cJSON_AddObjectToObject(call, "function");
    cJSON_AddStringToObject(function, "name", "");
    if (!cJSON_AddStringToObject(function, "arguments", "") || !cJSON_AddItemToArray(calls, call)) {
        cJSON_Delete(call);
        return NULL;
    }
    call->valueint = index;
    return call;
}

/* The call that a delta belongs to: by its index; without one (some providers leave it out), a new id begins a new call
 * and the rest goes to the last. */
static cJSON *call_for(cJSON *calls, const cJSON *delta, err *e) {
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(delta, "index");
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(delta, "id");
    bool         numbered = cJSON_IsNumber(number);
    int          count = 0;
    cJSON       *call;
    cJSON       *last = NULL;
    cJSON_ArrayForEach(call, calls) {
        if (numbered && call->valueint == number->valueint) {
            return call;
        }
        last = call;
        count++;
    }
    bool new_id = cJSON_IsString(id) && id->valuestring[0];
    if (!numbered && last && !new_id) {
        return last;
    }
    if (count >= MAX_TOOL_CALLS) {
        err_set(e, ERR_LIMIT, "The answer calls more than %d tools.", MAX_TOOL_CALLS);
        return NULL;
    }
    call = new_call(calls, numbered ? number->valueint : count);
    if (!call) {
        out_of_memory(e);
    }
    return call;
}

static bool add_call(const answer *a, cJSON *calls, const cJSON *delta, err *e) {
    if (!cJSON_IsObject(delta)) {
        return true;
    }
    cJSON *call = call_for(calls, delta, e);
    if (!call) {
        return false;
    }
    cJSON       *function = cJSON_GetObjectItemCaseSensitive(call, "function");
    const cJSON *said = cJSON_GetObjectItemCaseSensitive(delta, "function");
    if (!set_string_once(cJSON_GetObjectItemCaseSensitive(call, "id"), cJSON_GetObjectItemCaseSensitive(delta, "id")) ||
        !set_string_once(cJSON_GetObjectItemCaseSensitive(function, "name"),
                         cJSON_GetObjectItemCaseSensitive(said, "name"))) {
        return out_of_memory(e);
    }
    return add_arguments(a, call, cJSON_GetObjectItemCaseSensitive(said, "arguments"), e);
}

static bool add_calls(const answer *a, choice *c, const cJSON *deltas, err *e) {
    if (!c->tool_calls) {
        c->tool_calls = cJSON_CreateArray();
    }
    if (!c->tool_calls) {
        return out_of_memory(e);
    }
    const cJSON *delta;
    cJSON_ArrayForEach(delta, deltas) {
        if (!add_call(a, c->tool_calls, delta, e)) {
            return false;
        }
    }
    return true;
}

/* ---- logprobs ---- */

static int count_nodes(const cJSON *value) {
    int          count = 1;
    const cJSON *child;
    cJSON_ArrayForEach(child, value) {
        count += count_nodes(child);
    }
    return count;
}

static bool add_logprobs(choice *c, const cJSON *more, err *e) {
    if (!c->logprobs) {
        c->logprobs = cJSON_CreateArray();
        if (!c->logprobs) {
            return out_of_memory(e);
        }
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, more) {
        int nodes = count_nodes(item);
        if (c->logprobs->valueint > MAX_LOGPROB_NODES - nodes) {
            return err_set(e, ERR_LIMIT, "The answer has more log probabilities than pare keeps.");
        }
        cJSON *copy = cJSON_Duplicate(item, true);
        if (!copy || !cJSON_AddItemToArray(c->logprobs, copy)) {
            cJSON_Delete(copy);
            return out_of_memory(e);
        }
        c->logprobs->valueint += nodes;
    }
    return true;
}

/* ---- one delta ---- */

static bool add_texts(const answer *a, choice *c, const event *ev, err *e) {
    size_t parts[] = {text_bytes(a), ev->text_len, ev->reasoning_len, ev->refusal_len, ev->signature_len};
    size_t room = MAX_TEXT;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i] > room) {
            return too_long(e);
        }
        room -= parts[i];
    }
    bool good = (!ev->text || str_add(&c->text, ev->text, ev->text_len)) &&
                (!ev->reasoning || str_add(&c->reasoning, ev->reasoning, ev->reasoning_len)) &&
                (!ev->refusal || str_add(&c->refusal, ev->refusal, ev->refusal_len)) &&
                (!ev->signature || str_add(&c->signature, ev->signature, ev->signature_len));
    return good || out_of_memory(e);
}

static void add_head(answer *a, const event *ev) {
    if (ev->id && ev->id[0] && !a->id[0]) {
        copy_name(a->id, sizeof a->id, ev->id);
    }
    if (ev->model && ev->model[0] && !a->model[0]) {
        copy_name(a->model, sizeof a->model, ev->model);
    }
    if (ev->created && !a->created) {
        a->created = ev->created;
    }
    if (ev->usage && ev->usage->known) {
        a->usage = *ev->usage;
    }
    a->narrowed = a->narrowed || ev->narrowed;
}

bool answer_add(answer *a, const event *ev, err *e) {
    if (ev->kind == EVENT_WHOLE || ev->kind == EVENT_ERROR) {
        return true;
    }
    add_head(a, ev);
    bool says =
        ev->text || ev->reasoning || ev->refusal || ev->signature || ev->tool_calls || ev->logprobs || ev->finish;
    if (ev->kind != EVENT_DELTA || !says) {
        return true; /* usage, or a frame without words */
    }
    choice *c = choice_at(a, ev->choice, e);
    if (!c || !add_texts(a, c, ev, e)) {
        return false;
    }
    if (ev->tool_calls && ev->tool_calls->child && !add_calls(a, c, ev->tool_calls, e)) {
        return false;
    }
    if (ev->logprobs && !add_logprobs(c, ev->logprobs, e)) {
        return false;
    }
    if (ev->finish && ev->finish[0]) {
        copy_name(c->finish, sizeof c->finish, ev->finish);
    }
    return true;
}
