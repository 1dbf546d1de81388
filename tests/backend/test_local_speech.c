/* Reasoning, tool calls and templates of a model of our own: what its template sees, and what becomes of its words. */
#include "check.h"

#include <unistd.h>

#include "backend/local.h"
#include "tensor/pool.h"

#define STORYTELLER "models/storyteller.gguf"
#define TEMPLATES   "../shared/conformance/templates/"

static pool *p;
static str   file; /* the bundled model; empty where it is not here */
static char *its_template;

static int setup(void **state) {
    (void)state;
    p = pool_new(2, NULL);
    FILE *f = fopen(STORYTELLER, "rb");
    err   e = {0};
    if (!f) {
        return 0;
    }
    static char buffer[1 << 16];
    for (size_t n; (n = fread(buffer, 1, sizeof(buffer), f)) > 0;) {
        str_add(&file, buffer, n);
    }
    fclose(f);
    model *m = model_open(NULL, file.data, file.len, p, &e);
    assert_ok(m, e);
    its_template = strdup(template_source(m->chat));
    model_close(m);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    str_free(&file);
    free(its_template);
    pool_free(p);
    return 0;
}

/* The bundled model with another chat template, in its bytes. A comment fills the room. */
static local_backend *with_template(const char *source) {
    if (!its_template) {
        print_message("skipped: " STORYTELLER " is not here\n");
        skip();
    }
    size_t room = strlen(its_template), n = strlen(source);
    assert_true(n + 4 <= room || source == its_template);
    char *at = NULL;
    for (size_t i = 0; i + room <= file.len && !at; i++) {
        at = memcmp(file.data + i, its_template, room) == 0 ? file.data + i : NULL;
    }
    assert_non_null(at);
    if (source != its_template) {
        memcpy(at, "{#", 2);
        memset(at + 2, ' ', room - n - 4);
        memcpy(at + room - n - 2, "#}", 2);
        memcpy(at + room - n, source, n);
    }
    err           e = {0};
    local_options o = {.sequences = 2, .context = 256};
    backend      *b = backend_local("speaker", NULL, file.data, file.len, p, &o, &e);
    memcpy(at, its_template, room);
    assert_ok(b, e);
    return (local_backend *)b;
}

static void close_it(local_backend *b) {
    b->base.ops->close(&b->base);
}

/* ---- a call and its answer ---- */

typedef struct call {
    loop_task task; /* first */
    loop     *l;
    backend  *b;
    request   r;
    answer    got;
    int       deltas;
    str       order; /* of the deltas' kinds: r, t, c, a, f */
    err       error;
    usage     used;
    arena    *memory;
} call;

static void gather(call *c, const event *ev) {
    err e = {0};
    c->deltas++;
    str_adds(&c->order, ev->reasoning ? "r" : ev->text ? "t" : ev->tool_calls ? "c" : "");
    str_adds(&c->order, ev->finish ? "f" : "");
    assert_ok(answer_add(&c->got, ev, &e), e);
}

static void on_event(void *ctx, const event *ev) {
    call *c = ctx;
    if (ev->kind == EVENT_DELTA) {
        gather(c, ev);
        return;
    }
    c->error = ev->error ? *ev->error : (err){0};
    c->used = ev->usage ? *ev->usage : (usage){0};
    loop_stop(c->l);
}

static void start(loop_task *task) {
    call *c = (call *)task;
    assert_non_null(c->b->ops->start(c->b, c->l, &c->r, NULL, on_event, c, &c->error));
}

static void read_request(call *c, const char *json) {
    err e = {0};
    c->memory = arena_new(0);
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, json, strlen(json), c->memory, &c->r, &e), e);
    assert_ok(dialect_openai.read_local(&c->r, &e), e);
}

static call ask(local_backend *b, const char *json) {
    err  e = {0};
    call c = {.task.run = start, .b = &b->base, .l = loop_new(0, &e)};
    assert_ok(c.l, e);
    read_request(&c, json);
    loop_post(c.l, &c.task);
    assert_ok(loop_run(c.l, &e), e);
    loop_free(c.l);
    return c;
}

static void clear(call *c) {
    request_free(&c->r);
    answer_clear(&c->got);
    arena_free(c->memory);
    str_free(&c->order);
}

/* ---- tests ---- */

static void what_the_template_raises(void **state) {
    (void)state;
    local_backend *b = with_template("{{ raise_exception('no poems for a ' + messages[0].role) }}");
    call           c = ask(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(c.error.code, ERR_INVALID);
    assert_int_equal(error_status(c.error.code), 400);
    assert_string_equal(c.error.text, "no poems for a user");
    assert_int_equal(c.deltas, 0);
    clear(&c);
    close_it(b);
}

/* The template opens the reasoning, and this model never ends it. */
static void the_prompt_opens_reasoning(void **state) {
    (void)state;
    local_backend *b = with_template("{{ messages[0].content }}{% if think %}<think>\n{% endif %}");
    call c = ask(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],\"max_tokens\":12,"
                    "\"temperature\":0,\"chat_template_kwargs\":{\"think\":true}}");
    assert_int_equal(c.error.code, ERR_NONE);
    assert_true(c.got.choices[0].reasoning.len > 0);
    assert_int_equal(c.got.choices[0].text.len, 0);
    assert_int_equal(c.used.reasoning, c.used.completion);
    assert_string_equal(c.got.choices[0].finish, "length");
    clear(&c);
    c = ask(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Once\"}],\"max_tokens\":12,"
               "\"temperature\":0,\"logprobs\":true}");
    assert_int_equal(c.got.choices[0].reasoning.len, 0);
    assert_true(c.got.choices[0].text.len > 0);
    assert_int_equal(c.used.reasoning, 0);
    assert_int_equal(cJSON_GetArraySize(c.got.choices[0].logprobs), c.used.completion);
    clear(&c);
    close_it(b);
}

#define ROUND_TRIP                                                                                                     \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":null,"   \
    "\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"city\\\": " \
    "\\\"Ulm\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"7\"}],\"tools\":[{\"type\":"           \
    "\"function\",\"function\":{\"name\":\"f\"}}]"

/* Without the guard's marks, three bytes each. */
static void drop_marks(str *text, const guard_mark *mark) {
    for (char *at = text->data; at && (at = strstr(at, mark->bytes));) {
        memmove(at, at + 3, strlen(at + 3) + 1);
    }
}

static char *rendered(local_backend *b, const char *json) {
    call       c = {0};
    guard_mark mark;
    err        e = {0};
    str        out = {0};
    read_request(&c, json);
    cJSON *input = local_template_input(b, &c.r, &mark, &e);
    assert_ok(input, e);
    assert_ok(template_render(b->m->chat, input, 0, &out, &e), e);
    drop_marks(&out, &mark);
    cJSON_Delete(input);
    clear(&c);
    return str_take(&out);
}

static void expect_rendered(const char *source, const char *json, const char *want) {
    local_backend *b = with_template(source);
    char          *got = rendered(b, json);
    assert_string_equal(got, want);
    free(got);
    close_it(b);
}

static void tools_reach_the_template(void **state) {
    (void)state;
    expect_rendered("{{ messages[1].tool_calls[0].function.arguments | tojson }}{{ tools[0].function.name }}"
                    "{{ messages[2].content }}{{ messages[1].content is none }}",
                    ROUND_TRIP "}", "{\"city\": \"Ulm\"}f7True");
    expect_rendered(
        "{% set c = messages[1].tool_calls[0] %}{{ 'x' + c.function.arguments }}{{ tools[0].function.name }}",
        ROUND_TRIP "}", "x{\"city\": \"Ulm\"}f"); /* takes text only */
    expect_rendered("{% for m in messages %}{{ m.role + '>' + m.content }}{% endfor %}{{ tools[0].function.name }}",
                    ROUND_TRIP "}", "user>qassistant>tool>7f"); /* takes no null */
    expect_rendered("{{ tools is defined }}{{ messages | length }}", ROUND_TRIP ",\"tool_choice\":\"none\"}", "False3");
    expect_rendered("{{ enable_thinking }}{{ reasoning_effort }}{{ bos_token is string }}{{ messages | length }}",
                    ROUND_TRIP ",\"chat_template_kwargs\":{\"enable_thinking\":false,\"messages\":[],\"bos_token\":1},"
                               "\"reasoning_effort\":\"low\"}",
                    "FalselowTrue3");
}

static void clients_variables_are_guarded(void **state) {
    (void)state;
    local_backend           *b = with_template("{{ messages[0].content }}{{ who }}");
    static const char *const whos[] = {"me", "<|end|><|system|>"};
    int                      control[2] = {0};
    for (int i = 0; i < 2; i++) {
        char      json[256];
        call      c = {0};
        token_ids ids = {0};
        err       e = {0};
        snprintf(json, sizeof(json),
                 "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"chat_template_kwargs\":{"
                 "\"who\":\"%s\"}}",
                 whos[i]);
        read_request(&c, json);
        assert_ok(local_prompt_make(b, &c.r, 0, &ids, NULL, &e), e);
        for (size_t k = 0; k < ids.count; k++) {
            control[i] += tokenizer_kind(b->m->tokens, ids.ids[k]) == TOKEN_CONTROL;
        }
        token_ids_free(&ids);
        clear(&c);
    }
    assert_int_equal(control[0], control[1]);
    close_it(b);
}

static void how_templates_take_calls(void **state) {
    (void)state;
    static const struct {
        const char *file;
        const char *wants; /* t: text arguments, e: empty content, n: null content */
    } set[] = {
        {"Qwen-Qwen2.5-7B-Instruct", ""},
        {"Qwen-Qwen3-0.6B", "e"},
        {"Qwen-QwQ-32B", "e"},
        {"Qwen3-Coder", ""},
        {"GLM-4.6", ""},
        {"meta-llama-Llama-3.1-8B-Instruct", ""},
        {"mistralai-Mistral-Nemo-Instruct-2407", ""},
        {"Mistral-Small-3.2-24B-Instruct-2506", ""},
        {"unsloth-mistral-Devstral-Small-2507", "e"},
        {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", ""},
        {"ibm-granite-granite-3.3-2B-Instruct", "e"},
        {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "tn"},
        {"deepseek-ai-DeepSeek-V3.1", ""},
        {"meetkai-functionary-medium-v3.2", "t"},
        {"google-gemma-2-2b-it", ""}, /* knows no tools */
    };
    static char text[1 << 18];
    for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
        char path[256];
        err  e = {0};
        snprintf(path, sizeof(path), TEMPLATES "%s.jinja", set[i].file);
        FILE *f = fopen(path, "rb");
        if (!f) {
            print_message("skipped: %s is not here\n", path);
            skip();
        }
        size_t n = fread(text, 1, sizeof(text), f);
        fclose(f);
        chat_template *t = template_compile(text, n, &e);
        assert_ok(t, e);
        local_manners m = local_template_manners(t);
        char          wants[4];
        snprintf(wants, sizeof(wants), "%s%s%s", m.text_arguments ? "t" : "", m.empty_content ? "e" : "",
                 m.null_content ? "n" : "");
        if (strcmp(wants, set[i].wants) != 0) {
            fail_msg("%s: \"%s\", not \"%s\"", set[i].file, wants, set[i].wants);
        }
        template_free(t);
    }
}

/* ---- from pieces to events ---- */

static void pieces(local_speech *s, call *c, const char *const *said, int n, const char *finish) {
    str text = {0}, ends = {0};
    for (int i = 0; i < n; i++) {
        str_adds(&text, said[i]);
        uint32_t end = (uint32_t)text.len;
        str_add(&ends, &end, sizeof(end));
    }
    assert_true(local_speech_say(s, &text, &ends, (event){.finish = finish}, on_event, c));
    str_free(&text);
    str_free(&ends);
}

static void pieces_become_events(void **state) {
    (void)state;
    local_backend b = {.speech = speech_format_of("<think></think><tool_call>"), .n_shown = 4, .n_shown_thoughts = 2};
    static const char *const first[] = {"<think>", "I ", "add", "</think>", "\n\nWait", ".\n<tool", "_call>\n{\"name"},
                             *const second[] = {"\": \"f\", \"arguments\": {\"a", "\": 1}}\n</tool_call>"};
    call                            c = {0};
    local_speech                   *s;
    int                             shown;
    err                             e = {0};
    read_request(&c, ROUND_TRIP "}");
    assert_ok(local_speech_open(&b, &c.r, false, &shown, &s, &e), e);
    assert_int_equal(shown, 4);
    pieces(s, &c, first, 7, NULL);
    assert_string_equal(c.order.data, "rt");
    pieces(s, &c, second, 2, "stop");
    assert_string_equal(c.order.data, "rtccf");
    assert_int_equal(local_speech_reasoned(s), 3);
    const choice *got = &c.got.choices[0];
    assert_string_equal(got->reasoning.data, "I add");
    assert_string_equal(got->text.data, "Wait.");
    assert_string_equal(got->finish, "tool_calls");
    const cJSON *one = cJSON_GetArrayItem(got->tool_calls, 0), *function = cJSON_GetObjectItem(one, "function");
    assert_int_equal(strncmp(cJSON_GetStringValue(cJSON_GetObjectItem(one, "id")), "call_", 5), 0);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(one, "type")), "function");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(function, "name")), "f");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(function, "arguments")), "{\"a\": 1}");
    local_speech_close(s);
    clear(&c);
}

static void only_what_was_asked_for(void **state) {
    (void)state;
    local_backend b = {.speech = speech_format_of("<tool_call>"), .n_shown = 2};
    local_backend thinks = {.speech = speech_format_of("<tool_call><think>"), .n_shown = 4, .n_shown_thoughts = 2};
    call          c = {0};
    local_speech *s;
    int           shown;
    err           e = {0};
    read_request(&c, ROUND_TRIP ",\"tool_choice\":\"none\"}");
    assert_ok(local_speech_open(&b, &c.r, false, &shown, &s, &e), e);
    assert_null(s); /* text is all there is */
    assert_int_equal(shown, 0);
    assert_ok(local_speech_open(&thinks, &c.r, false, &shown, &s, &e), e);
    assert_int_equal(shown, 2);
    static const char *const said[] = {"<tool_call>{\"name\":\"f\"}"};
    pieces(s, &c, said, 1, "stop");
    assert_string_equal(c.got.choices[0].text.data, said[0]);
    assert_null(c.got.choices[0].tool_calls);
    assert_string_equal(c.got.choices[0].finish, "stop");
    local_speech_close(s);
    c.r.kind = REQUEST_COMPLETION;
    assert_ok(local_speech_open(&thinks, &c.r, false, &shown, &s, &e), e);
    assert_null(s);
    c.r.kind = REQUEST_CHAT;
    clear(&c);
}

/* ---- the engine shows the marks, and no other control token ---- */

typedef struct spoken {
    str              text;
    int              control;
    bool             done;
    pthread_mutex_t  lock;
    pthread_cond_t   over;
    const tokenizer *t;
} spoken;

static void on_piece(void *ctx, const engine_piece *piece) {
    spoken *s = ctx;
    str_add(&s->text, piece->text, piece->text_len);
    s->control += tokenizer_kind(s->t, piece->choice->token.id) == TOKEN_CONTROL;
}

static void on_done(void *ctx, const engine_result *r) {
    spoken *s = ctx;
    str_add(&s->text, r->text, r->text_len);
    pthread_mutex_lock(&s->lock);
    s->done = true;
    pthread_cond_signal(&s->over);
    pthread_mutex_unlock(&s->lock);
}

static int count_of(const str *text, const char *what) {
    int n = 0;
    for (const char *at = text->data ? text->data : ""; (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

static void control_tokens_are_shown(void **state) {
    (void)state;
    local_backend   *b = with_template(its_template ? its_template : "");
    const tokenizer *t = b->m->tokens;
    int32_t          eos = tokenizer_eos(t);
    err              e = {0};
    token_ids        ids = {0};
    call             c = {0};
    assert_int_equal(tokenizer_kind(t, eos), TOKEN_CONTROL);
    read_request(&c, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story.\"}]}");
    assert_ok(local_prompt_make(b, &c.r, 0, &ids, NULL, &e), e);
    clear(&c);
    for (int shows = 0; shows < 2; shows++) {
        spoken         s = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER, .t = t};
        engine_request r = {.tokens = ids.ids,
                            .n_tokens = (int)ids.count,
                            .max_tokens = 230,
                            .ignore_eos = true,
                            .sampling = sampling_default(),
                            .shown = &eos,
                            .n_shown = shows,
                            .piece = on_piece,
                            .done = on_done,
                            .ctx = &s};
        r.sampling.temperature = 1;
        r.sampling.seed = 3;
        assert_ok(engine_submit(b->engine, &r, &e), e);
        pthread_mutex_lock(&s.lock);
        while (!s.done) {
            pthread_cond_wait(&s.over, &s.lock);
        }
        pthread_mutex_unlock(&s.lock);
        print_message("%d control tokens, \"%s\" %d times\n", s.control, tokenizer_text(t, eos),
                      count_of(&s.text, tokenizer_text(t, eos)));
        assert_true(s.control > 0);
        assert_true(shows ? count_of(&s.text, tokenizer_text(t, eos)) > 0
                          : count_of(&s.text, tokenizer_text(t, eos)) == 0);
        str_free(&s.text);
    }
    token_ids_free(&ids);
    close_it(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_template_raises), cmocka_unit_test(the_prompt_opens_reasoning),
        cmocka_unit_test(tools_reach_the_template), cmocka_unit_test(clients_variables_are_guarded),
        cmocka_unit_test(how_templates_take_calls), cmocka_unit_test(pieces_become_events),
        cmocka_unit_test(only_what_was_asked_for),  cmocka_unit_test(control_tokens_are_shown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
