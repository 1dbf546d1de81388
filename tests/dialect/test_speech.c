/* What models say, told apart: every family's form of calls and reasoning, cut at every byte, broken, and hostile. */
#include "check.h"

#include "base/clock.h"
#include "dialect/speech.h"

#define TEMPLATES "../shared/conformance/templates/"

#define HERMES      "<tool_call>"
#define QWEN3       "<tool_call><think>"
#define LLAMA       "<|python_tag|>"
#define MISTRAL     "[TOOL_CALLS]"
#define MAGISTRAL   "[TOOL_CALLS][THINK]"
#define CODER       "<tool_call><function=<parameter="
#define GLM         "<tool_call><arg_key><arg_value><think>"
#define KIMI        "<|tool_call_begin|><|tool_call_argument_begin|>"
#define R1          "</think><｜tool▁call▁begin｜><｜tool▁sep｜>"
#define COHERE      "<|START_ACTION|><|START_THINKING|>"
#define SEED        "<seed:tool_call><function=</seed:think>"
#define FUNCTIONARY "<function="

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{"
    "\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"},\"flags\":{\"type\":\"array\"},"
    "\"on\":{\"type\":\"boolean\"},\"code\":{\"type\":\"string\"}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"add\"}}]";

/* The deltas as one text: [reasoning] text {index name: arguments}; a call's own id behind its name as @id. */
typedef struct heard {
    str  text;
    int  last; /* kind, -1 at first */
    int  deltas;
    char ids[4][64];
    bool ids_shown;
} heard;

static void end_last(heard *h) {
    str_adds(&h->text, h->last == SPEECH_REASONING ? "]" : h->last >= SPEECH_CALL ? "}" : "");
}

static void hear(void *ctx, const speech_delta *d) {
    heard *h = ctx;
    h->deltas++;
    bool goes_on = (int)d->kind == h->last || (d->kind == SPEECH_ARGUMENTS && h->last == SPEECH_CALL);
    if (d->kind == SPEECH_CALL || !goes_on) {
        end_last(h);
        str_adds(&h->text, d->kind == SPEECH_REASONING ? "[" : "");
    }
    if (d->kind == SPEECH_CALL) {
        assert_null(d->text);
        str_addf(&h->text, "{%d %s", d->index, d->name);
        if (d->index < 4) {
            snprintf(h->ids[d->index], sizeof(h->ids[0]), "%s", d->id);
        }
        if (h->ids_shown) {
            str_addf(&h->text, "@%s", d->id);
        }
        str_adds(&h->text, ": ");
    } else {
        assert_true(d->len > 0);
        assert_true(d->kind != SPEECH_ARGUMENTS || h->last >= SPEECH_CALL);
        str_add(&h->text, d->text, d->len);
    }
    h->last = (int)d->kind;
}

typedef struct talk {
    const char *form;
    bool        tools, thinks, ids;
} talk;

/* Pieces of `step` bytes after a first one of `first`. */
static str listen(const talk *t, const char *said, size_t n, size_t first, size_t step) {
    heard          h = {.last = -1, .ids_shown = t->ids};
    speech_format  f = speech_format_of(t->form);
    cJSON         *tools = t->tools ? cJSON_Parse(tools_text) : NULL;
    speech_options o = {.tools = tools, .thinks = t->thinks, .salt = 7, .tell = hear, .ctx = &h};
    speech        *s = speech_new(&f, &o);
    assert_non_null(s);
    for (size_t at = 0; at < n;) {
        size_t piece = at == 0 ? first : step;
        piece = piece < n - at ? piece : n - at;
        assert_true(speech_add(s, said + at, piece));
        speech_flush(s);
        at += piece;
    }
    assert_true(speech_end(s));
    end_last(&h);
    if (!h.text.data) {
        str_adds(&h.text, "");
    }
    speech_free(s);
    cJSON_Delete(tools);
    return h.text;
}

static void expect(const talk *t, const char *said, const char *want) {
    size_t n = strlen(said);
    for (size_t first = 1; first <= n + 1; first++) {
        for (int way = 0; way < 2; way++) { /* two pieces; the rest a byte at a time */
            str got = listen(t, said, n, first, way ? 1 : n);
            if (strcmp(got.data, want) != 0) {
                fail_msg("%s\nfirst piece %zu, said: %s\nheard: %s\nnot:   %s", t->form, first, said, got.data, want);
            }
            str_free(&got);
        }
    }
}

#define WITH(form_, said, want)   expect(&(talk){.form = form_, .tools = true}, said, want)
#define IDS(form_, said, want)    expect(&(talk){.form = form_, .tools = true, .ids = true}, said, want)
#define PLAIN(form_, said, want)  expect(&(talk){.form = form_}, said, want)
#define INSIDE(form_, said, want) expect(&(talk){.form = form_, .tools = true, .thinks = true}, said, want)

static void hermes(void **state) {
    (void)state;
    WITH(HERMES, "Hello, wörld! \n", "Hello, wörld! \n");
    WITH(HERMES, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>",
         "{0 get_weather: {\"city\": \"Köln\"}}");
    WITH(HERMES,
         "I look.\n\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
         "{\"arguments\": {\"x\": [1, {\"y\": \"} ] \\\" </tool_call>\"}]}, \"name\": \"b\"}\n</tool_call>\n",
         "I look.{0 a: {}}{1 b: {\"x\": [1, {\"y\": \"} ] \\\" </tool_call>\"}]}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{\"k\":-1.5e3}}</tool_call>\n\nDone.",
         "{0 a: {\"k\":-1.5e3}}Done.");
    WITH(HERMES, "<tool_call>[{\"name\":\"a\",\"arguments\":{}}, {\"name\":\"b\",\"arguments\":{}}]</tool_call>",
         "{0 a: {}}{1 b: {}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":\"{\\\"k\\\": \\\"v\\\"}\"}</tool_call>",
         "{0 a: {\"k\": \"v\"}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\"}</tool_call><tool_call>{\"name\":\"a\",\"arguments\":null}</tool_call>",
         "{0 a: {}}{1 a: {}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{\"t\":\"two\nlines\tand \\u00e9\"}}</tool_call>",
         "{0 a: {\"t\":\"two\\nlines\\tand \\u00e9\"}}");
    IDS(HERMES, "<tool_call>{\"id\":\"call_9\",\"name\":\"a\",\"arguments\":{}}</tool_call>", "{0 a@call_9: {}}");
    PLAIN(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>",
          "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>");
}

static void broken_calls_stay_text(void **state) {
    (void)state;
    static const char *const same[] = {
        "<tool_call>\nnot json\n</tool_call>",
        "a <tool_call",
        "a < b <tool <tool_calls> </tool_call>",
        "x \n<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"arguments\"",
        "<tool_call>{\"name\": \"a\", \"name\": \"b\"}</tool_call>",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
        "<tool_call>[1]</tool_call>",
        "<tool_call>",
        "<tool_call>  \n",
        "<tool_call>{\"name\": tru}",
    };
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        WITH(HERMES, same[i], same[i]);
    }
    /* a good one behind a broken one; and one that breaks when it has been told: the rest is text */
    WITH(HERMES, "<tool_call>{oops <tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>",
         "<tool_call>{oops{0 a: {}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{\"k\": oops}}", "{0 a: {\"k\": }oops}}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{\"k\": \"cut", "{0 a: {\"k\": \"cut}");
    WITH(HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call> and text <b>", "{0 a: {}}and text <b>");
}

static void llama3(void **state) {
    (void)state;
    WITH(LLAMA, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Köln\"}}",
         "{0 get_weather: {\"city\": \"Köln\"}}");
    WITH(LLAMA, "<|python_tag|>{\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": {\"b\": \"}\"}}}",
         "{0 add: {\"a\": {\"b\": \"}\"}}}");
    WITH(LLAMA, "{\"name\":\"add\",\"parameters\":{}}; {\"name\":\"add\",\"parameters\":{\"a\":1}}",
         "{0 add: {}}{1 add: {\"a\":1}}");
    WITH(LLAMA, " \n{\"name\":\"add\",\"parameters\":{}}\n{\"name\":\"get_weather\",\"parameters\":{}}\n",
         "{0 add: {}}{1 get_weather: {}}");
    static const char *const same[] = {
        "{\"name\": \"Bob\", \"parameters\": {}}", /* no tool of this name */
        "{\"answer\": {\"name\": \"add\"}}",
        "The call is {\"name\": \"add\", \"parameters\": {}}",
        "{\"name\": \"add\", \"age\": 7}",
        "<|python_tag|>print(1)",
        "{",
        "{}",
    };
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        WITH(LLAMA, same[i], same[i]);
    }
    PLAIN(LLAMA, "{\"name\": \"add\", \"parameters\": {}}", "{\"name\": \"add\", \"parameters\": {}}");
}

static void mistral(void **state) {
    (void)state;
    WITH(MISTRAL, "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"x\": 1}, \"id\": \"abcdefghi\"}]",
         "{0 a: {\"x\": 1}}");
    IDS(MISTRAL,
        "[TOOL_CALLS][{\"id\": \"123456789\", \"name\": \"a\", \"arguments\": {}}, {\"name\": \"b\", \"id\": "
        "\"987654321\", "
        "\"arguments\": {\"c\": [[]]}}]",
        "{0 a@123456789: {}}{1 b@987654321: {\"c\": [[]]}}");
    WITH(MISTRAL, "[TOOL_CALLS]a[ARGS]{\"x\": \"[TOOL_CALLS]\"}[TOOL_CALLS]b[ARGS]{}",
         "{0 a: {\"x\": \"[TOOL_CALLS]\"}}{1 b: {}}");
    IDS(MISTRAL, "Well. [TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{\"city\": \"Köln\"}",
        "Well.{0 get_weather@abc123def: {\"city\": \"Köln\"}}");
    WITH(MISTRAL, "[TOOL_CALLS]a{\"x\":1}", "{0 a: {\"x\":1}}");
    static const char *const same[] = {"[TOOL_CALLS]", "[TOOL_CALLS]no call at all", "[TOOL_CALLS][ARGS]{}",
                                       "[TOOL_CALLS] what is {} this?", "[a](b) [TOOL"};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        WITH(MISTRAL, same[i], same[i]);
    }
    WITH(MAGISTRAL, "[THINK]Hm, [x].[/THINK]Yes. [TOOL_CALLS]a[ARGS]{}", "[Hm, [x].]Yes.{0 a: {}}");
}

static void parameters(void **state) {
    (void)state;
    WITH(
        CODER,
        "Let me see.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln \"am\" \\ Rhein\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=flags>\n[\"a\", {\"b\": null}]\n</parameter>\n<parameter=on>\n"
        "True\n</parameter>\n</function>\n</tool_call>",
        "Let me see.{0 get_weather: {\"city\": \"Köln \\\"am\\\" \\\\ Rhein\", \"days\": 3, \"flags\": [\"a\", {\"b\": "
        "null}], \"on\": true}}");
    WITH(CODER,
         "<tool_call>\n<function=get_weather>\n<parameter=code>\n\nif a < b:\n\t</param\n\n</parameter>\n"
         "<parameter=days>\nfew\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=add>\n</function>\n"
         "</tool_call>",
         "{0 get_weather: {\"code\": \"\\nif a < b:\\n\\t</param\\n\", \"days\": \"few\"}}{1 add: {}}");
    WITH(CODER, "<function=get_weather>\n<parameter=city>\n5\n</parameter>\n</function>\n</tool_call> ok",
         "{0 get_weather: {\"city\": \"5\"}}ok");
    WITH(CODER, "<tool_call>\n<function=get_weather>\n<parameter=city>\nKö", "{0 get_weather: {\"city\": \"Kö}");
    WITH(SEED,
         "<seed:think>\nok\n</seed:think>\n<seed:tool_call>\n<function=get_weather>\n<parameter=city>Köln</parameter>\n"
         "</function>\n</seed:tool_call>",
         "[ok]{0 get_weather: {\"city\": \"Köln\"}}");
    WITH(GLM,
         "<think>so</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>\nKöln</arg_value>\n"
         "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>add\n</tool_call>",
         "[so]{0 get_weather: {\"city\": \"\\nKöln\", \"days\": 2}}{1 add: {}}");
    static const char *const same[] = {"<tool_call>\n<b>x</b>\n</tool_call>", "<tool_call>\n<function=>\n",
                                       "<tool_call>\n<function=a b>", "<function=add", "<tool_call>\ntext"};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        WITH(CODER, same[i], same[i]);
    }
}

static void names_before_arguments(void **state) {
    (void)state;
    IDS(KIMI,
        "On it. <|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        "{\"city\": \"x\"}<|tool_call_end|><|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>{}"
        "<|tool_call_end|><|tool_calls_section_end|>",
        "On it.{0 get_weather@functions.get_weather:0: {\"city\": \"x\"}}{1 add@functions.add:1: {}}");
    INSIDE(
        R1,
        "Thinking.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": "
        "1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{}\n```<"
        "｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        "[Thinking.]{0 add: {\"a\": 1}}{1 add: {}}");
    WITH(R1,
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": "
         "\"｜\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         "{0 add: {\"a\": \"｜\"}}");
    WITH(COHERE,
         "<|START_THINKING|>I will.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": "
         "\"add\", \"parameters\": {\"a\": 1}}\n]<|END_ACTION|>",
         "[I will.]{0 add: {\"a\": 1}}");
    WITH(FUNCTIONARY, "<function=add>{\"a\": 1}</function><function=add>{}</function> ok",
         "{0 add: {\"a\": 1}}{1 add: {}}ok");
}

static void reasoning(void **state) {
    (void)state;
    PLAIN(QWEN3, "<think>\nFirst,\n\nsecond.\n</think>\n\nThe answer.", "[First,\n\nsecond.]The answer.");
    PLAIN(QWEN3, "\n<think>\n\n</think>\n\nQuick.", "Quick.");
    PLAIN(QWEN3, "The tags <think> and </think> are text here.", "The tags <think> and </think> are text here.");
    PLAIN(QWEN3, "<think>never ends </thi", "[never ends </thi]");
    PLAIN(HERMES, "<think>a</think>b", "<think>a</think>b");
    INSIDE(QWEN3, "So…\n</think>\nYes", "[So…]Yes");
    INSIDE(QWEN3, "\n\n</think>\n\nYes", "Yes");
    INSIDE(QWEN3, "no end", "[no end]");
    WITH(QWEN3, "<think>\nuse <tool_call>?\n</think>\n\n<tool_call>\n{\"name\":\"add\",\"arguments\":{}}\n</tool_call>",
         "[use <tool_call>?]{0 add: {}}");
    speech_format f = speech_format_of(QWEN3), none = speech_format_of("{{ messages }}");
    assert_true(speech_prompt_thinks(&f, "...<think>\n", 11));
    assert_true(speech_prompt_thinks(&f, "<think>", 7));
    assert_false(speech_prompt_thinks(&f, "<think>\n\n</think>\n\n", 19));
    assert_false(speech_prompt_thinks(&f, "think>", 6));
    assert_false(speech_prompt_thinks(&f, "", 0));
    assert_false(speech_prompt_thinks(&none, "<think>", 7));
}

static void ids_and_counts(void **state) {
    (void)state;
    static const struct {
        const char *form, *said, *prefix;
        size_t      len;
    } all[] = {
        {HERMES, "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"a\"}", "call_", 29},
        {MISTRAL, "[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]a[ARGS]{}", "", 9},
    };
    for (int i = 0; i < 2; i++) {
        heard          h = {.last = -1};
        cJSON         *tools = cJSON_Parse(tools_text);
        speech_format  f = speech_format_of(all[i].form);
        speech_options o = {.tools = tools, .salt = 99, .tell = hear, .ctx = &h};
        speech        *s = speech_new(&f, &o);
        assert_true(speech_add(s, all[i].said, strlen(all[i].said)) && speech_end(s));
        assert_int_equal(speech_count(s), 2);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(strlen(h.ids[k]), all[i].len);
            assert_memory_equal(h.ids[k], all[i].prefix, strlen(all[i].prefix));
            assert_int_equal(strspn(h.ids[k] + strlen(all[i].prefix),
                                    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
                             all[i].len - strlen(all[i].prefix));
        }
        assert_string_not_equal(h.ids[0], h.ids[1]);
        speech_free(s);
        cJSON_Delete(tools);
        str_free(&h.text);
    }
}

/* Arguments and text go out with the piece they came in, but for what may be a mark. */
static void nothing_waits(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "Hi",  " there.", "\n<tool",       "_call>\n{\"name\": \"add\", ", "\"arguments\": {\"a\"",
        ": 1", "2}}",     "\n</tool_call>"};
    static const char *const want[] = {"Hi",
                                       "Hi there.",
                                       "Hi there.",
                                       "Hi there.",
                                       "Hi there.{0 add: {\"a\"",
                                       "Hi there.{0 add: {\"a\": 1",
                                       "Hi there.{0 add: {\"a\": 12}",
                                       "Hi there.{0 add: {\"a\": 12}"};
    heard                    h = {.last = -1};
    cJSON                   *tools = cJSON_Parse(tools_text);
    speech_format            f = speech_format_of(HERMES);
    speech_options           o = {.tools = tools, .tell = hear, .ctx = &h};
    speech                  *s = speech_new(&f, &o);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        assert_true(speech_add(s, pieces[i], strlen(pieces[i])));
        speech_flush(s);
        assert_string_equal(h.text.data, want[i]);
    }
    assert_true(speech_end(s));
    speech_free(s);
    cJSON_Delete(tools);
    str_free(&h.text);
}

/* ---- hostile ---- */

static const char *const forms[] = {HERMES, QWEN3, LLAMA,  MISTRAL, MAGISTRAL,   CODER,           GLM,
                                    KIMI,   R1,    COHERE, SEED,    FUNCTIONARY, "<|tool_call|>", "functools["};

static double seconds(const talk *t, const char *unit, size_t bytes) {
    size_t n = strlen(unit), count = bytes / n;
    char  *said = malloc(count * n + 1);
    for (size_t i = 0; i < count; i++) {
        memcpy(said + i * n, unit, n);
    }
    int64_t begin = clock_us();
    str     got = listen(t, said, count * n, 1, 7);
    int64_t took = clock_us() - begin;
    str_free(&got);
    free(said);
    return (double)took / 1e6;
}

static void a_megabyte_is_linear(void **state) {
    (void)state;
    static const char *const units[] = {
        "<tool_call>",
        "<",
        " ",
        "\n",
        "<tool_call>{\"x\":\"",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][",
        "{",
        "{\"name\":\"add\",",
        "<think>",
        "</think",
        "<tool_call>\n<function=a>",
        "<parameter=a>",
        "</parameter",
        "[[[[",
        "a",
        "<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>",
        "<|tool_call_begin|>a",
        "\"",
        "\\",
        "<tool_call>{\"name\":\"a\",\"arguments\":{\"a\":[",
        "<｜tool▁call▁begin｜>",
    };
    double worst = 0;
    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            double took = seconds(&(talk){.form = forms[f], .tools = true}, units[u], 100000);
            worst = took > worst ? took : worst;
            if (took > 1) { /* a tenth of a megabyte; quadratic would be far above */
                fail_msg("%s with %s: %.2f s", forms[f], units[u], took);
            }
        }
    }
    static const char *const some[] = {"<tool_call>{\"x\":\"", "<tool_call>", " ", "<parameter=a>"};
    for (size_t u = 0; u < 4; u++) {
        double took = seconds(&(talk){.form = CODER, .tools = true}, some[u], 1 << 20);
        print_message("1 MiB of %s: %.3f s\n", some[u], took);
        assert_true(took < 5);
    }
    print_message("the worst of 100 kB: %.3f s\n", worst);
}

/* Random sequences of marks and JSON: cuts never matter, and without tools every byte of the text comes back. */
static void random_talk(void **state) {
    (void)state;
    static const char *const words[] = {
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"name\": \"add\"",
        "\"arguments\": {",
        "\\",
        "\n",
        " ",
        "text",
        "[TOOL_CALLS]",
        "[ARGS]",
        "add",
        "<function=add>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "<think>",
        "</think>",
        "1",
        "null",
        ";",
        "<|python_tag|>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "{\"name\": \"add\", \"parameters\": {\"a\": \"b\"}}",
        "é",
        "<",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "[THINK]",
    };
    uint64_t random = 5;
    for (int round = 0; round < 4000; round++) {
        str  said = {0};
        talk t = {.form = forms[test_random(&random) % (sizeof(forms) / sizeof(forms[0]))],
                  .tools = test_random(&random) % 8 > 0,
                  .thinks = test_random(&random) % 4 == 0};
        int  n = 1 + (int)(test_random(&random) % 24);
        for (int i = 0; i < n; i++) {
            str_adds(&said, words[test_random(&random) % (sizeof(words) / sizeof(words[0]))]);
        }
        str whole = listen(&t, said.data, said.len, said.len, 1);
        str bytes = listen(&t, said.data, said.len, 1, 1);
        str some = listen(&t, said.data, said.len, 1 + test_random(&random) % said.len, 3);
        if (strcmp(whole.data, bytes.data) != 0 || strcmp(whole.data, some.data) != 0) {
            fail_msg("%s\nsaid: %s\nwhole: %s\nbytes: %s", t.form, said.data, whole.data, bytes.data);
        }
        if (!t.tools && !speech_format_of(t.form).think_open) {
            assert_string_equal(whole.data, said.data);
        }
        str_free(&whole);
        str_free(&bytes);
        str_free(&some);
        str_free(&said);
    }
}

static void many_calls(void **state) {
    (void)state;
    str said = {0};
    for (int i = 0; i < SPEECH_MAX_CALLS + 2; i++) {
        str_adds(&said, "<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>");
    }
    str got = listen(&(talk){.form = HERMES, .tools = true}, said.data, said.len, 5, 100);
    assert_non_null(
        strstr(got.data, "{127 add: {}}<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call><tool_call>"));
    str_free(&got);
    str_free(&said);
}

/* ---- the templates of the set ---- */

static const struct {
    const char *file, *calls, *think;
} set[] = {
    {"meta-llama-Llama-3.1-8B-Instruct", "llama3", NULL},
    {"meta-llama-Llama-3.2-3B-Instruct", "llama3", NULL},
    {"Qwen-Qwen2.5-7B-Instruct", "hermes", NULL},
    {"Qwen-Qwen3-0.6B", "hermes", "<think>"},
    {"Qwen-QwQ-32B", "hermes", "<think>"},
    {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes", NULL},
    {"mistralai-Mistral-Nemo-Instruct-2407", "mistral", NULL},
    {"Mistral-Small-3.2-24B-Instruct-2506", "mistral", NULL},
    {"unsloth-mistral-Devstral-Small-2507", "mistral", NULL},
    {"mistralai-Ministral-3-14B-Reasoning-2512", "mistral", "[THINK]"},
    {"Qwen3-Coder", "qwen3-coder", NULL},
    {"Qwen3.5-4B", "qwen3-coder", "<think>"},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "qwen3-coder", "<think>"},
    {"ByteDance-Seed-OSS", "seed", "<seed:think>"},
    {"GLM-4.6", "glm", "<think>"},
    {"Kimi-K2-Thinking", "kimi", "<think>"},
    {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek", "<think>"},
    {"deepseek-ai-DeepSeek-V3.1", "deepseek", "<think>"},
    {"CohereForAI-c4ai-command-r7b-12-2024-tool_use", "cohere", "<|START_THINKING|>"},
    {"ibm-granite-granite-3.3-2B-Instruct", "granite", "<think>"},
    {"unsloth-Apriel-1.5", "apriel", NULL},
    {"fireworks-ai-llama-3-firefunction-v2", "firefunction", NULL},
    {"meetkai-functionary-medium-v3.1", "functionary", NULL},
    {"microsoft-Phi-3.5-mini-instruct", "none", NULL},
    {"google-gemma-2-2b-it", "none", NULL},
};

static void templates_name_their_form(void **state) {
    (void)state;
    static char text[1 << 18];
    for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
        char path[256];
        snprintf(path, sizeof(path), TEMPLATES "%s.jinja", set[i].file);
        FILE *file = fopen(path, "rb");
        if (!file) {
            print_message("skipped: %s is not here\n", path);
            skip();
        }
        text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
        fclose(file);
        speech_format f = speech_format_of(text);
        if (strcmp(speech_calls_name(&f), set[i].calls) != 0 ||
            strcmp(f.think_open ? f.think_open : "", set[i].think ? set[i].think : "") != 0) {
            fail_msg("%s: %s, %s", set[i].file, speech_calls_name(&f), f.think_open ? f.think_open : "no reasoning");
        }
        const char *marks[SPEECH_MAX_MARKS];
        int         n_think, n = speech_marks(&f, marks, &n_think);
        assert_in_range(n, n_think, SPEECH_MAX_MARKS);
        assert_int_equal(n_think, f.think_open ? 2 : 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hermes),
        cmocka_unit_test(broken_calls_stay_text),
        cmocka_unit_test(llama3),
        cmocka_unit_test(mistral),
        cmocka_unit_test(parameters),
        cmocka_unit_test(names_before_arguments),
        cmocka_unit_test(reasoning),
        cmocka_unit_test(ids_and_counts),
        cmocka_unit_test(nothing_waits),
        cmocka_unit_test(a_megabyte_is_linear),
        cmocka_unit_test(random_talk),
        cmocka_unit_test(many_calls),
        cmocka_unit_test(templates_name_their_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
