/* speech_params.c - tool calls whose parameters stand between tags: <parameter=key>value</parameter> of Qwen3-Coder and
 * its like, <arg_key>key</arg_key><arg_value>value</arg_value> of GLM. The arguments are told as the JSON they mean.    */
#include <string.h>

#include "dialect/speech_parts.h"

/* A parameter whose schema says "string" is text; of others the text says what they are. */
static bool is_text(const speech *s, const char *name, const char *key) {
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(call_tool(s, name), "parameters");
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(parameters, "properties");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(all, key), "type");
    return cJSON_IsString(type) && strcmp(type->valuestring, "string") == 0;
}

static void tell_string(speech *s, const char *bytes, size_t n) {
    str text = {0};
    str_json(&text, bytes, n);
    call_arguments(s, bytes_of(&text), text.len);
    s->failed = s->failed || text.failed;
    str_free(&text);
}

static call_step begin_parameter(speech *s) {
    speech_call *c = &s->call;
    if (!c->named || (!c->sure && !call_tell(s))) {
        return CALL_BAD;
    }
    call_arguments(s, c->parameters > 0 ? ", " : "{", c->parameters > 0 ? 2 : 1);
    c->parameters++;
    tell_string(s, bytes_of(&c->key), c->key.len);
    c->text_value = is_text(s, bytes_of(&c->name), bytes_of(&c->key));
    call_arguments(s, ": \"", c->text_value ? 3 : 2);
    str_clear(&c->value);
    c->begun = false;
    c->held = 0;
    str_clear(&c->id); /* told; from here on what may become the closing tag */
    c->state = P_VALUE;
    return CALL_MORE;
}

static call_step end_parameters(speech *s) {
    speech_call *c = &s->call;
    if (!c->named || (!c->sure && !call_tell(s))) {
        return CALL_BAD;
    }
    call_arguments(s, c->parameters > 0 ? "}" : "{}", c->parameters > 0 ? 1 : 2);
    return CALL_DONE;
}

static void put_value(speech *s, char byte) {
    if (!s->call.text_value) {
        str_addc(&s->call.value, byte);
    } else if (byte == '"' || byte == '\\') {
        char pair[2] = {'\\', byte};
        call_arguments(s, pair, 2);
    } else {
        call_escape(s, byte);
    }
}

/* <parameter=...> has its value on lines of its own: one line end at either side is not the value's. */
static void take_text(speech *s, char byte) {
    speech_call *c = &s->call;
    bool         lines = s->call.lines;
    if (lines && !c->begun && byte == '\n') {
        c->begun = true;
        return;
    }
    c->begun = true;
    if (c->held) {
        put_value(s, c->held);
        c->held = 0;
    }
    if (lines && byte == '\n') {
        c->held = byte;
    } else {
        put_value(s, byte);
    }
}

static void end_parameter(speech *s) {
    static const char *const python[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};
    speech_call             *c = &s->call;
    if (c->text_value) {
        call_arguments(s, "\"", 1);
        return;
    }
    const char *text = bytes_of(&c->value);
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, python[i][0]) == 0) {
            call_arguments(s, python[i][1], strlen(python[i][1]));
            return;
        }
    }
    cJSON *json = json_parse(text, c->value.len, JSON_MAX_DEPTH, NULL);
    if (json) {
        call_arguments(s, text, c->value.len);
    } else {
        tell_string(s, text, c->value.len);
    }
    cJSON_Delete(json);
}

/* The closing tag has its only '<' at its beginning, so a mismatch begins anew with this byte at most. */
static call_step parameter_byte(speech *s, char byte) {
    speech_call *c = &s->call;
    const char  *close = c->lines ? "</parameter>" : "</arg_value>";
    str         *seen = &c->id;
    if (byte == close[seen->len]) {
        str_addc(seen, byte);
        if (!close[seen->len]) {
            end_parameter(s);
            str_clear(seen);
            c->state = P_BEFORE;
        }
        return CALL_MORE;
    }
    for (size_t i = 0; i < seen->len; i++) {
        take_text(s, seen->data[i]);
    }
    str_clear(seen);
    if (byte == '<') {
        str_addc(seen, byte);
    } else {
        take_text(s, byte);
    }
    return CALL_MORE;
}

static call_step end_tag(speech *s) {
    speech_call *c = &s->call;
    const char  *tag = bytes_of(&c->key);
    c->state = P_BEFORE;
    if (starts(tag, "function=") && !c->named) {
        c->named = call_name(&c->name, tag + strlen("function="), c->key.len - strlen("function="));
        return c->named ? CALL_MORE : CALL_BAD;
    }
    if (starts(tag, "parameter=") && c->named) {
        size_t n = strlen("parameter=");
        memmove(c->key.data, c->key.data + n, c->key.len - n + 1);
        c->key.len -= n;
        c->lines = true;
        return c->key.len > 0 ? begin_parameter(s) : CALL_BAD;
    }
    if (is(&c->key, "arg_key")) {
        str_clear(&c->value);
        c->state = P_KEY;
        return CALL_MORE;
    }
    if (is(&c->key, "/arg_key")) {
        return CALL_MORE;
    }
    if (is(&c->key, "arg_value") && c->value.len > 0) {
        str_clear(&c->key);
        str_add(&c->key, c->value.data, c->value.len);
        c->lines = false;
        return begin_parameter(s);
    }
    const char *close = s->f.calls->close;
    bool        last = is(&c->key, "/function") ||
                (starts(tag, "/") && strncmp(close + 1, tag, c->key.len) == 0 && strlen(close) == c->key.len + 2);
    return last ? end_parameters(s) : CALL_BAD;
}

call_step call_params(speech *s, char byte) {
    speech_call *c = &s->call;
    switch (c->state) {
    case P_VALUE:
        return parameter_byte(s, byte);
    case P_TAG:
        if (byte == '>') {
            return end_tag(s);
        }
        str_addc(&c->key, byte);
        return byte == '\0' || byte == '<' || c->key.len > CALL_MAX_NAME ? CALL_BAD : CALL_MORE;
    case P_KEY: /* ends where </arg_key> begins */
        if (byte != '<') {
            str_addc(&c->value, byte);
            return byte == '\0' || c->value.len > CALL_MAX_NAME ? CALL_BAD : CALL_MORE;
        }
        break;
    case P_NAME:
        if (byte != '\n' && byte != '<') {
            str_addc(&c->name, byte);
            return byte == '\0' || c->name.len > CALL_MAX_NAME ? CALL_BAD : CALL_MORE;
        }
        str_clear(&c->key);
        str_add(&c->key, c->name.data, c->name.len);
        c->named = call_name(&c->name, bytes_of(&c->key), c->key.len);
        if (!c->named) {
            return CALL_BAD;
        }
        c->state = P_BEFORE;
        break;
    default:
        break;
    }
    if (byte == '<') {
        str_clear(&c->key);
        c->state = P_TAG;
        return CALL_MORE;
    }
    if (is_blank(byte)) {
        return CALL_MORE;
    }
    if (!c->named && s->f.calls->inner[0]) { /* with <arg_key> the name stands bare */
        c->state = P_NAME;
        str_addc(&c->name, byte);
        return CALL_MORE;
    }
    return CALL_BAD;
}
