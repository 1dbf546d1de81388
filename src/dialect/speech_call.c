/* speech_call.c - reads one tool call byte by byte, in the shapes that families of models give it.
 *
 * A call is sure once its name is known and its arguments begin; it is told then, and its arguments from there on. Until
 * then its bytes are kept in `raw` by the speech, which makes them text when the call turns out to be none.            */
#include <string.h>

#include "dialect/speech_parts.h"

#define MAX_HEAD 512       /* bytes before the arguments of SHAPE_NAMED */
#define MAX_RAW  (1 << 20) /* bytes of a call that is not sure yet */

enum { MEMBER_OTHER, MEMBER_NAME, MEMBER_ID, MEMBER_ARGUMENTS };

void call_begin(speech *s, speech_shape shape) {
    speech_call *c = &s->call;
    str_clear(&c->key);
    str_clear(&c->value);
    str_clear(&c->name);
    str_clear(&c->id);
    c->sure = c->named = c->had_arguments = false;
    c->parameters = 0;
    c->walk = (json_walk){0};
    c->state = shape == SHAPE_JSON ? J_OPEN : shape == SHAPE_NAMED ? N_HEAD : P_BEFORE;
}

void call_free(speech_call *c) {
    str_free(&c->raw);
    str_free(&c->key);
    str_free(&c->value);
    str_free(&c->name);
    str_free(&c->id);
}

/* ---- telling ---- */

const cJSON *call_tool(const speech *s, const char *name) {
    const cJSON *tool;
    cJSON_ArrayForEach(tool, s->o.tools) {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
        const cJSON *its = cJSON_GetObjectItemCaseSensitive(function ? function : tool, "name");
        if (cJSON_IsString(its) && strcmp(its->valuestring, name) == 0) {
            return function ? function : tool;
        }
    }
    return NULL;
}

/* Letters and digits from splitmix64 (Steele, Lea, Flood 2014). */
static void make_id(const speech *s, str *out) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    uint64_t          state = s->o.salt + (uint64_t)s->n_calls * 0xd1342543de82ef95u;
    int               n = s->f.calls->short_ids ? 9 : 24;
    str_adds(out, s->f.calls->short_ids ? "" : "call_");
    for (int i = 0; i < n; i++) {
        uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        str_addc(out, letters[(z ^ z >> 31) % (sizeof(letters) - 1)]);
    }
}

/* JSON that begins without any mark is a call only when it names a tool: answers in JSON exist. */
bool call_tell(speech *s) {
    speech_call *c = &s->call;
    const char  *name = bytes_of(&c->name);
    if (!name[0] || s->n_calls >= SPEECH_MAX_CALLS || (s->unmarked && !call_tool(s, name))) {
        return false;
    }
    if (c->id.len == 0) {
        make_id(s, &c->id);
    }
    speech_flush(s);
    speech_delta d = {.kind = SPEECH_CALL, .index = s->n_calls, .id = bytes_of(&c->id), .name = name};
    s->failed = s->failed || c->id.failed || c->name.failed;
    if (!s->failed) {
        s->o.tell(s->o.ctx, &d);
    }
    s->n_calls++;
    c->sure = true;
    str_clear(&c->raw);
    return true;
}

void call_arguments(speech *s, const char *bytes, size_t n) {
    speech_out(s, SPEECH_ARGUMENTS, bytes, n);
}

/* A byte inside a JSON string; models write line ends as they are. */
static void add_escaped(str *out, char c) {
    if ((unsigned char)c >= 0x20) {
        str_addc(out, c);
    } else if (c == '\n' || c == '\t' || c == '\r') {
        str_addc(out, '\\');
        str_addc(out, c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
    } else {
        str_addf(out, "\\u%04x", (unsigned)c);
    }
}

void call_escape(speech *s, char c) {
    if ((unsigned char)c >= 0x20) {
        call_arguments(s, &c, 1);
        return;
    }
    str text = {0};
    add_escaped(&text, c);
    call_arguments(s, bytes_of(&text), text.len);
    s->failed = s->failed || text.failed;
    str_free(&text);
}

/* ---- SHAPE_JSON: {"name": ..., "arguments": {...}} ---- */

static int member_of(const str *key) {
    if (is(key, "\"name\"") || is(key, "\"tool_name\"")) {
        return MEMBER_NAME;
    }
    if (is(key, "\"id\"") || is(key, "\"tool_call_id\"")) {
        return MEMBER_ID;
    }
    return is(key, "\"arguments\"") || is(key, "\"parameters\"") ? MEMBER_ARGUMENTS : MEMBER_OTHER;
}

/* What begins without a mark is an answer in JSON as soon as it has a member that no call has. */
static bool may_be_call(const speech *s, const speech_call *c) {
    return !s->unmarked || c->member != MEMBER_OTHER || is(&c->key, "\"type\"");
}

/* Turns a literal into what it says; false: not a string, or not one that text can hold. */
static bool decode(str *literal) {
    cJSON *value = json_parse(bytes_of(literal), literal->len, 1, NULL);
    bool   ok = cJSON_IsString(value);
    str_clear(literal);
    ok = ok && str_adds(literal, value->valuestring);
    cJSON_Delete(value);
    return ok;
}

/* The first byte of the arguments: they are an object, or a string or null, which are looked at when they are whole. */
static bool begin_arguments(speech *s, char byte) {
    speech_call *c = &s->call;
    if (c->had_arguments || (byte != '{' && byte != '"' && byte != 'n')) {
        return false;
    }
    c->had_arguments = true;
    return byte != '{' || !c->named || call_tell(s);
}

static bool take_value_byte(speech *s, char byte, bool in_string) {
    speech_call *c = &s->call;
    if (c->member == MEMBER_NAME || c->member == MEMBER_ID) {
        str *to = c->member == MEMBER_NAME ? &c->name : &c->id;
        return str_addc(to, byte) && to->len <= CALL_MAX_NAME;
    }
    if (c->member == MEMBER_ARGUMENTS && c->sure) {
        if (in_string) {
            call_escape(s, byte);
        } else {
            call_arguments(s, &byte, 1);
        }
    } else if (c->member == MEMBER_ARGUMENTS) {
        if (in_string) {
            add_escaped(&c->value, byte);
        } else {
            str_addc(&c->value, byte);
        }
    }
    return true;
}

static bool end_value(speech_call *c) {
    if (c->member == MEMBER_NAME) {
        c->named = true;
        return decode(&c->name);
    }
    if (c->member == MEMBER_ID) {
        if (c->id.data && c->id.data[0] == '"') {
            return decode(&c->id);
        }
        if (c->id.data && !(c->id.data[0] >= '0' && c->id.data[0] <= '9')) {
            str_clear(&c->id); /* null, and what is no id */
        }
        return true;
    }
    if (c->member != MEMBER_ARGUMENTS || c->sure || c->value.data[0] == '{') {
        return true;
    }
    if (c->value.data[0] == 'n') {
        str_clear(&c->value);
        return str_adds(&c->value, "{}");
    }
    return decode(&c->value);
}

static call_step value_byte(speech *s, char byte) {
    speech_call *c = &s->call;
    bool         in_string = walk_in_string(&c->walk);
    bool         first = c->walk.state == 0 && c->walk.depth == 0;
    walk_step    step = walk_byte(&c->walk, byte);
    if (first && c->walk.state == 0 && c->walk.depth == 0) {
        return CALL_MORE; /* a blank before the value */
    }
    if (step == WALK_BAD || (first && c->member == MEMBER_ARGUMENTS && !begin_arguments(s, byte)) ||
        (step != WALK_OVER && !take_value_byte(s, byte, in_string))) {
        return CALL_BAD;
    }
    if (step == WALK_MORE) {
        return CALL_MORE;
    }
    c->state = J_NEXT;
    return !end_value(c) ? CALL_BAD : step == WALK_OVER ? call_byte(s, byte) : CALL_MORE;
}

static call_step end_object(speech *s) {
    speech_call *c = &s->call;
    if (!c->named) {
        return CALL_BAD;
    }
    if (!c->sure) {
        if (!call_tell(s)) {
            return CALL_BAD;
        }
        call_arguments(s, c->value.len ? c->value.data : "{}", c->value.len ? c->value.len : 2);
    }
    return CALL_DONE;
}

static call_step key_byte(speech *s, char byte) {
    speech_call *c = &s->call;
    walk_step    step = walk_byte(&c->walk, byte);
    if (step == WALK_BAD || step == WALK_OVER || c->key.len > CALL_MAX_NAME) {
        return CALL_BAD;
    }
    str_addc(&c->key, byte);
    if (step == WALK_DONE) {
        c->state = J_COLON;
        c->member = member_of(&c->key);
        bool twice = (c->member == MEMBER_NAME && c->named) || (c->member == MEMBER_ARGUMENTS && c->had_arguments) ||
                     (c->member == MEMBER_ID && c->id.len > 0 && !c->sure);
        return twice || !may_be_call(s, c) ? CALL_BAD : CALL_MORE;
    }
    return CALL_MORE;
}

/* Behind the arguments an id comes too late, as the call has been told: it is read as any other member. */
static call_step object_byte(speech *s, char byte) {
    speech_call *c = &s->call;
    if (c->state == J_VALUE) {
        return value_byte(s, byte);
    }
    if (c->state == J_IN_KEY) {
        return key_byte(s, byte);
    }
    if (is_blank(byte)) {
        return CALL_MORE;
    }
    if (c->state == J_OPEN && byte == '{') {
        c->state = J_FIRST;
    } else if ((c->state == J_FIRST || c->state == J_KEY) && byte == '"') {
        str_clear(&c->key);
        c->walk = (json_walk){0};
        c->state = J_IN_KEY;
        return key_byte(s, byte);
    } else if (c->state == J_COLON && byte == ':') {
        c->member = c->member == MEMBER_ID && c->sure ? MEMBER_OTHER : c->member;
        c->walk = (json_walk){0};
        c->state = J_VALUE;
    } else if (c->state == J_NEXT && byte == ',') {
        c->state = J_KEY;
    } else if ((c->state == J_NEXT || c->state == J_FIRST) && byte == '}') {
        return end_object(s);
    } else {
        return CALL_BAD;
    }
    return CALL_MORE;
}

/* ---- SHAPE_NAMED ---- */

bool call_name(str *to, const char *from, size_t n) {
    while (n > 0 && is_blank(*from)) {
        from++;
        n--;
    }
    while (n > 0 && is_blank(from[n - 1])) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        char c = from[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_-.:/", c);
        if (!fine || c == '\0') {
            return false;
        }
    }
    str_clear(to);
    return str_add(to, from, n) && n > 0 && n <= CALL_MAX_NAME;
}

static bool take_until(str *to, const char *from, const char *mark) {
    const char *end = strstr(from, mark);
    return end && call_name(to, from, (size_t)(end - from));
}

/* functions.name:0 */
static bool read_kimi(speech_call *c, const char *head, const char *mark) {
    if (!take_until(&c->id, head, mark)) {
        return false;
    }
    const char *name = c->id.data + (starts(c->id.data, "functions.") ? strlen("functions.") : 0);
    const char *colon = strrchr(name, ':');
    return call_name(&c->name, name, colon ? (size_t)(colon - name) : strlen(name));
}

static bool read_deepseek(speech_call *c, const char *head, const char *mark) {
    const char *right = strstr(head, mark);
    right = right ? right + strlen(mark) : "";
    while (is_blank(*right)) {
        right++;
    }
    size_t line = strcspn(right, "\n");
    return *right && !starts(right, "```") ? call_name(&c->name, right, line) : take_until(&c->name, head, mark);
}

static bool read_mistral(speech_call *c, const char *head) {
    const char *arguments = strstr(head, "[ARGS]"), *id = strstr(head, "[CALL_ID]");
    if (id) {
        const char *text = id + strlen("[CALL_ID]");
        size_t      n = arguments && arguments > text ? (size_t)(arguments - text) : strlen(text);
        if (!call_name(&c->id, text, n)) {
            return false;
        }
    }
    const char *end = id ? id : arguments ? arguments : head + strlen(head);
    return call_name(&c->name, head, (size_t)(end - head));
}

static bool read_head(speech *s) {
    speech_call *c = &s->call;
    const char  *head = bytes_of(&c->key), *mark = s->f.calls->inner[0];
    switch (s->f.calls->head) {
    case HEAD_PLAIN:
        return take_until(&c->name, head, ">");
    case HEAD_MISTRAL:
        return read_mistral(c, head);
    case HEAD_KIMI:
        return read_kimi(c, head, mark);
    case HEAD_DEEPSEEK:
        return read_deepseek(c, head, mark);
    }
    return false;
}

static call_step named_byte(speech *s, char byte) {
    speech_call *c = &s->call;
    if (c->state == N_HEAD && byte != '{') {
        str_addc(&c->key, byte);
        return byte == '\0' || c->key.len > MAX_HEAD ? CALL_BAD : CALL_MORE;
    }
    if (c->state == N_HEAD) {
        c->state = N_ARGUMENTS;
        if (!read_head(s) || !call_tell(s)) {
            return CALL_BAD;
        }
    }
    bool      in_string = walk_in_string(&c->walk);
    walk_step step = walk_byte(&c->walk, byte);
    if (step == WALK_BAD) {
        return CALL_BAD;
    }
    if (in_string) {
        call_escape(s, byte);
    } else {
        call_arguments(s, &byte, 1);
    }
    return step == WALK_DONE ? CALL_DONE : CALL_MORE;
}

call_step call_byte(speech *s, char c) {
    call_step    step = s->call.state >= P_BEFORE ? call_params(s, c)
                        : s->call.state >= N_HEAD ? named_byte(s, c)
                                                  : object_byte(s, c);
    speech_call *call = &s->call;
    s->failed = s->failed || call->key.failed || call->value.failed || call->name.failed || call->id.failed;
    return step == CALL_MORE && call->raw.len > MAX_RAW ? CALL_BAD : step;
}
