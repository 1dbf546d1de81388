/* Chat templates: each feature against what jinja2 says, hostile templates, and the conformance set.
 *
 * The expectations of `cases` are jinja2's own answers (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks).  */
#include "check.h"

#include <dirent.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "model/template/template.h"

#define CONFORMANCE "../shared/conformance/templates/"
#define TEMPLATES   38         /* with cases there; all of them are expected to be green */
#define CASES       260        /* of those templates */
#define NOW         1795211545 /* 2026-11-20T21:52:25, what the set's strftime_now prints */

static const char input_text[] =
    "{\"x\": 3, \"y\": -7, \"f\": 2.5, \"s\": \"Hello, Wörld\", \"e\": \"\", \"l\": [3, 1, 2, 1], \"d\": {\"b\": 1, "
    "\"A\": 2, \"items\": 5, \"c\": null, \"_p\": 1}, \"n\": null, \"t\": true, \"ls\": [\"b\", \"A\", \"c\", \"a\"], "
    "\"ds\": [{\"n\": \"x\", \"v\": 2, \"q\": {\"w\": 1}}, {\"n\": \"Y\", \"v\": 1}, {\"n\": \"z\", \"v\": 3}], "
    "\"nested\": {\"a\": [1, {\"b\": \"é\\n\\\"'\"}, [], {}], \"k\": true, \"z\": 1.5, \"big\": 12345678901}, \"u\": "
    "\"日本語テキスト\", \"nl\": \"a\\n\\n  b\\r\\nc\\n\"}";

static const struct {
    const char *source;
    const char *expected;
} cases[] = {
    {"{{ x + y }}", "-4"},
    {"{{ y // 2 }}", "-4"},
    {"{{ y % 3 }}", "2"},
    {"{{ 7.5 % -2 }}", "-0.5"},
    {"{{ 2 ** 10 }}", "1024"},
    {"{{ -2 ** 2 }}", "4"},
    {"{{ 1 == 1.0 == true }}", "True"},
    {"{{ 1 < 3 < 2 }}", "False"},
    {"{{ [1,2] < [1,3] }}", "True"},
    {"{{ u | length }}", "7"},
    {"{{ u[1] ~ u[-1] ~ u[1:3] ~ u[::-1] ~ u[5:1:-2] }}", "本ト本語トスキテ語本日ステ"},
    {"{{ l[-2:] + l[::-1] }}", "[2, 1, 1, 2, 1, 3]"},
    {"{{ d.b ~ d[\"A\"] ~ d.get(\"zz\", 4) ~ d.get(\"zz\") }}", "124None"},
    {"{{ d.items is callable }}", "True"},
    {"{{ d | dictsort }}", "[('_p', 1), ('A', 2), ('b', 1), ('c', None), ('items', 5)]"},
    {"{{ nested | tojson }}",
     "{\"a\": [1, {\"b\": \"é\\n\\\"'\"}, [], {}], \"k\": true, \"z\": 1.5, \"big\": 12345678901}"},
    {"{{ nested | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"é\\n\\\"'\"\n    },\n    [],\n   "
                                        " {}\n  ],\n  \"k\": true,\n  \"z\": 1.5,\n  \"big\": 12345678901\n}"},
    {"{{ nested | tojson(separators=(\",\", \":\"), sort_keys=true) }}",
     "{\"a\":[1,{\"b\":\"é\\n\\\"'\"},[],{}],\"big\":12345678901,\"k\":true,\"z\":1.5}"},
    {"{{ \"é\\n\\u2028\" | tojson(ensure_ascii=true) }}", "\"\\u00e9\\n\\u2028\""},
    {"{{ nested }}", "{'a': [1, {'b': 'é\\n\"\\''}, [], {}], 'k': True, 'z': 1.5, 'big': 12345678901}"},
    {"{{ [1, 2.0, \"a\", none, true, (1,), (), {}] }}", "[1, 2.0, 'a', None, True, (1,), (), {}]"},
    {"{{ (\"it's\", 'say \"x\"', \"both ' and \\\"\", \"\\n\\t\\\\\") }}",
     "(\"it's\", 'say \"x\"', 'both \\' and \"', '\\n\\t\\\\')"},
    {"{{ [1e16, 1e15, 0.0001, 0.00001, 1/3, 0.1+0.2, -0.0, 1e22] }}",
     "[1e+16, 1000000000000000.0, 0.0001, 1e-05, 0.3333333333333333, 0.30000000000000004, -0.0, 1e+22]"},
    {"{{ \"%s-%d-%05.2f|%5s|%-5s|\" % (\"a\", 3, 2.5, \"ab\", \"cd\") }}", "a-3-02.50|   ab|cd   |"},
    {"{{ \"{0} {1} {0} {a} {{}}\".format(1, 2, a=5) }}", "1 2 1 5 {}"},
    {"{{ \"a,b,,c\".split(\",\", 1) + \"a,b,,c\".rsplit(\",\", 1) + \"  a b  c \".split() + \"  a b  c \".split(none, "
     "1) }}",
     "['a', 'b,,c', 'a,b,', 'c', 'a', 'b', 'c', 'a', 'b  c ']"},
    {"{{ \"a\\nb\\r\\nc\\n\".splitlines() }}", "['a', 'b', 'c']"},
    {"{{ \"xxaxx\".strip(\"x\") ~ \"xxaxx\".lstrip(\"x\") ~ \"xxaxx\".rstrip(\"x\") }}", "aaxxxxa"},
    {"{{ \"abc\".replace(\"\",\"-\") ~ \"abcabc\".replace(\"a\",\"zz\",1) }}", "-a-b-c-zzbcabc"},
    {"{{ \"hello world-foo (bar it's\" | title }}", "Hello World-Foo (Bar It's"},
    {"{{ \"straße\".upper() ~ \"ÉCOLE\".lower() ~ \"hELLO\" | capitalize }}", "STRASSEécoleHello"},
    {"{{ \"héllo\".find(\"l\") ~ \"abcabc\".rfind(\"c\") ~ \"abc\".count(\"\") }}", "254"},
    {"{{ ls | sort | join(\", \") }}", "A, a, b, c"},
    {"{{ ls | sort(case_sensitive=true, reverse=true) }}", "['c', 'b', 'a', 'A']"},
    {"{{ ds | sort(attribute=\"v\") | map(attribute=\"n\") | list }}", "['Y', 'x', 'z']"},
    {"{{ [\"a\",\"A\",\"b\"] | unique | list }}", "['a', 'b']"},
    {"{{ ds | map(attribute=\"q.w\", default=0) | list }}", "[1, 0, 0]"},
    {"{{ ds | selectattr(\"v\", \"gt\", 1) | map(attribute=\"n\") | list }}", "['x', 'z']"},
    {"{{ ds | rejectattr(\"n\", \"in\", [\"x\"]) | list | length }}", "2"},
    {"{{ n | selectattr(\"a\") | list }}", "[]"},
    {"{{ [l | min, l | max, l | sum, ds | sum(attribute=\"v\")] }}", "[1, 3, 7, 6]"},
    {"{{ [\"12\" | int, \"12.7\" | int, \"x\" | int(5), \"1f\" | int(base=16), none | int, \"1e3\" | float] }}",
     "[12, 12, 5, 31, 0, 1000.0]"},
    {"{{ [2.5 | round, 2.567 | round(2), 2.1 | round(method=\"ceil\"), 1234 | round(-2), -2.5 | abs] }}",
     "[2.0, 2.57, 3.0, 1200, 2.5]"},
    {"{{ \"a<b>&\" | escape }}", "a&lt;b&gt;&amp;"},
    {"{{ (\"<a>\" | safe) + \"<b>\" }}", "<a>&lt;b&gt;"},
    {"{{ nl | indent(2, true) }}", "  a\n\n    b\n  c\n"},
    {"{{ l | batch(3, \"z\") | list }}", "[[3, 1, 2], [1, 'z', 'z']]"},
    {"{{ range(2, 10, 3) | list }}", "[2, 5, 8]"},
    {"{{ undefinedx ~ \"a\" ~ (undefinedx | default(\"k\")) ~ (e | default(\"k\", true)) ~ (undefinedx is defined) }}",
     "akkFalse"},
    {"{{ (x if not t) is defined }}", "False"},
    {"{{ x is odd and x is divisibleby 3 and d is mapping and l is sequence and s is string and n is none }}", "True"},
    {"{{ d is sequence and d.items() is not sequence and range is callable and t is boolean and 1 is not true }}",
     "True"},
    {"{{ \"a\" if x == 3 else \"b\" }}", "a"},
    {"{{ l | length > 3 and \"ell\" in s and 9 not in l }}", "True"},
    {"{{ \"a=b=c\".partition(\"=\") + \"a=b=c\".rpartition(\"=\") }}", "('a', '=', 'b=c', 'a=b', '=', 'c')"},
    {"{{ strftime_now(\"%d %b %Y %H:%M\") }}", "20 Nov 2026 21:52"},
    {"{{ d[\"_p\"] ~ d.__class__ }}", "1"},
    {"{{ {1: 2, 1.0: 3, true: 4} }}", "{1: 4}"},
    {"{{ \"a\" \"b\" 'c' ~ '\\x41\\u00e9\\101' }}", "abcAéA"},
    {"{% for a in l %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ "
     "loop.nextitem }} {% endfor %}",
     "13TrueFalse1 22FalseFalse32 31FalseFalse11 40FalseTrue2 "},
    {"{% for a in undefinedx %}x{% else %}none{% endfor %}", "none"},
    {"{% for a in l if a > 1 %}{{ loop.index }}/{{ loop.length }}:{{ a }} {% endfor %}", "1/2:3 2/2:2 "},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c "
     "}}{% endfor %}",
     "b=1;A=2;items=5;c=None;_p=1;123"},
    {"{% for a in l %}{% if a == 1 %}{% continue %}{% endif %}{{ a }}{% if a == 2 %}{% break %}{% endif %}{% endfor %}",
     "32"},
    {"{% set z = 1 %}{% for a in l %}{{ z }}{% set z = a %}{{ z }}{% endfor %}{{ z }}", "131112111"},
    {"{% set ns = namespace(z=1) %}{% for a in l %}{% set ns.z = ns.z + a %}{% endfor %}{{ ns.z }}", "8"},
    {"{% set a | upper | replace(\"X\", \"q\") %}x{{ x }}y{% endset %}{{ a }}{% set b, c = 1, 2 %}{{ b }}{{ c }}",
     "q3Y12"},
    {"{% macro m(a, b=2, c=a) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(c=5, a=4) }}{{ m() }}",
     "[121][131][425][2]"},
    {"{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}", "1(2, 3){'k': 4}"},
    {"{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "54321"},
    {"{% set z = 1 %}{% macro m() %}{{ z }}{% set z = 9 %}{{ z }}{% endmacro %}{{ m() }}{{ z }}", "191"},
    {"{% macro outer() %}<{{ caller(1, 2) }}>{% endmacro %}{% call(a, b) outer() %}hi {{ a }}{{ b }}{% endcall %}",
     "<hi 12>"},
    {"{% filter upper | replace(\"A\", \"z\") %}abc{{ s }}{% endfilter %}", "zBCHELLO, WÖRLD"},
    {"{% with a = 1 %}{{ a }}{% endwith %}{{ a }}{% generation %}g{% set q = 2 %}{% endgeneration %}{{ q }}", "1g"},
    {"{% raw %}{{ x }}{% if %}{% endraw %}{# comment #} {#- c -#} b", "{{ x }}{% if %}b"},
    {"{% for a in [1,[2,[3]],4] recursive %}{{ loop.depth }}{% if a is number %}{{ a }}{% else %}({{ loop(a) }}){% "
     "endif %}{% endfor %}",
     "111(222(33))14"},
    {"{% for i in [1,1,2,2] %}{{ loop.changed(i) }}{{ loop.cycle(\"a\", \"b\") }}{% endfor %}",
     "TrueaFalsebTrueaFalseb"},
    {"a\n   {% if true %}\n  x\n   {% endif %}\ny", "a\n  x\ny"},
    {"   {%+ if true %}\n  x\n   {%- endif +%}\ny", "     x\ny"},
    {"a   {%- if true -%}   x   {%- endif -%}   b", "axb"},
    {"  {{ x }}\n  {{- x -}}\n  b\n\n", "  33b\n"},
    {"a {# c #}\nx\r\ny", "a x\ny"},
    {"{{ {'a': {'b': 1}}}}", "{'a': {'b': 1}}"},
};

/* Compiles and renders once; the caller frees *out. */
static bool render(const char *source, const char *input, str *out, err *e) {
    chat_template *t = template_compile(source, strlen(source), e);
    if (!t) {
        return false;
    }
    cJSON *json = json_parse(input, strlen(input), JSON_MAX_DEPTH, e);
    bool   ok = json && template_render(t, json, NOW, out, e);
    cJSON_Delete(json);
    template_free(t);
    return ok;
}

static void test_features(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err e = {0};
        str out = {0};
        if (!render(cases[i].source, input_text, &out, &e)) {
            fail_msg("%s: %s", cases[i].source, e.text);
        }
        if (strcmp(out.data ? out.data : "", cases[i].expected) != 0) {
            fail_msg("%s\n gave %s\n not  %s", cases[i].source, out.data ? out.data : "", cases[i].expected);
        }
        str_free(&out);
    }
}

/* ---- the templates that must work whatever else does ---- */

static const char chatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}";
static const char llama3[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

static const char talk[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
                           "{\"role\":\"user\",\"content\":\" Hi \"}],"
                           "\"add_generation_prompt\":true,\"bos_token\":\"<s>\"}";

static void test_well_known(void **state) {
    (void)state;
    err e = {0};
    str out = {0};
    assert_ok(render(chatml, talk, &out, &e), e);
    assert_string_equal(out.data, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
                                  "<|im_start|>assistant\n");
    str_clear(&out);
    assert_ok(render(llama3, talk, &out, &e), e);
    assert_string_equal(out.data, "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
                                  "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                                  "<|start_header_id|>assistant<|end_header_id|>\n\n");
    str_free(&out);
}

/* A rendering adds to what is there, and takes back what it added when it fails. */
static void test_output_is_appended(void **state) {
    (void)state;
    err e = {0};
    str out = {0};
    str_adds(&out, "before ");
    assert_ok(render("{{ 1 + 1 }}", "{}", &out, &e), e);
    assert_string_equal(out.data, "before 2");
    assert_false(render("abc{{ 1 // 0 }}", "{}", &out, &e));
    assert_string_equal(out.data, "before 2");
    assert_int_equal(out.len, 8);
    assert_false(render("abc", "[]", &out, &e));
    assert_says(e, "object");
    str_free(&out);
}

/* ---- sentences ---- */

/* A name that goes on behind a NUL is another name, and is not looked for behind the end of the known one. */
static void test_names_with_nul(void **state) {
    (void)state;
    static const char tail[] =
        "{{ [{'a': 1}] | selectattr('a', 'eq\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0', 1) "
        "| list }}";
    err            e = {0};
    str            out = {0};
    cJSON         *input = json_parse("{}", 2, JSON_MAX_DEPTH, &e);
    chat_template *t = template_compile(tail, sizeof(tail) - 1, &e);
    assert_ok(t && input, e);
    assert_false(template_render(t, input, NOW, &out, &e));
    assert_says(e, "no test 'eq");
    str_free(&out);
    cJSON_Delete(input);
    template_free(t);
}

static void test_sentences(void **state) {
    (void)state;
    static const struct {
        const char *source;
        const char *says;
        err_code    code;
    } wrong[] = {
        {"a\n{% if x %}", "line 2: this block has no {% endif %}", ERR_INVALID},
        {"a\nb\n{{ x", "line 3: this {{ has no }}", ERR_INVALID},
        {"{{ 'abc }}", "line 1: this string has no closing quote", ERR_INVALID},
        {"{# abc", "comment has no end", ERR_INVALID},
        {"{% raw %}abc", "{% raw %} has no {% endraw %}", ERR_INVALID},
        {"\n{{ 1 2 }}", "line 2: expected '}}', found '2'", ERR_INVALID},
        {"{{ [1, 2 }}", "line 1", ERR_INVALID},
        {"{{ x | }}", "name of a filter", ERR_INVALID},
        {"{% endif %}", "expected a statement", ERR_INVALID},
        {"{% frobnicate %}", "expected a statement", ERR_INVALID},
        {"{% set 1 = 2 %}", "expected a name", ERR_INVALID},
        {"{% break %}", "belong in a loop", ERR_INVALID},
        {"{{ }}", "expected an expression", ERR_INVALID},
        {"{{ 9223372036854775808 }}", "below 2^63", ERR_INVALID},
        {"\xff", "byte 0 is not UTF-8", ERR_INVALID},
        {"\n\n{{ foo.bar }}", "line 3: 'foo' is undefined", ERR_INVALID},
        {"{{ foo() }}", "'foo' is undefined", ERR_INVALID},
        {"{{ l | frobnicate }}", "no filter 'frobnicate'", ERR_UNSUPPORTED},
        {"{{ 1 is frobnicate }}", "no test 'frobnicate'", ERR_UNSUPPORTED},
        {"{{ 1 + 'a' }}", "'+' does not work between 'int' and 'str'", ERR_INVALID},
        {"{{ 1 < 'a' }}", "no order", ERR_INVALID},
        {"{{ 1 % 0 }}", "division by zero", ERR_INVALID},
        {"{% for x in 5 %}{% endfor %}", "'int' object is not iterable", ERR_INVALID},
        {"{{ [].append(1) }}", "sandbox", ERR_INVALID},
        {"{{ {}.update({}) }}", "sandbox", ERR_INVALID},
        {"{% set a = {} %}{% set a.b = 1 %}", "only a namespace", ERR_INVALID},
        {"{{ {[]: 1} }}", "cannot be the key", ERR_INVALID},
        {"{{ range | tojson }}", "not JSON serializable", ERR_INVALID},
        {"{% for a, b in [(1, 2, 3)] %}{% endfor %}", "3 values do not unpack into 2 names", ERR_INVALID},
        {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "'m' takes no more than 1", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err e = {0};
        str out = {0};
        if (render(wrong[i].source, "{\"l\":[]}", &out, &e)) {
            fail_msg("%s should fail", wrong[i].source);
        }
        assert_says(e, wrong[i].says);
        assert_int_equal(e.code, wrong[i].code);
        str_free(&out);
    }
}

static void test_raise_exception(void **state) {
    (void)state;
    err e = {0};
    str out = {0};
    assert_false(render("x{{ raise_exception('roles must ' + 'alternate: é') }}", "{}", &out, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.text, "roles must alternate: é");
    assert_int_equal(out.len, 0);
    str_free(&out);
}

/* ---- hostile templates: a sentence, soon, and no memory to speak of ---- */

static void test_hostile(void **state) {
    (void)state;
    static const struct {
        const char *source;
        const char *says;
    } wrong[] = {
        {"{{ 'a' * 10 ** 12 }}", "repetition"},
        {"{{ [1] * 10 ** 18 }}", "repetition"},
        {"{{ 'abcdefgh' * 9223372036854775807 }}", "repetition"},
        {"{{ range(10 ** 9) }}", "range"},
        {"{{ range(-9223372036854775807, 9223372036854775807) }}", "range"},
        {"{{ 9223372036854775807 + 1 }}", "64 bits"},
        {"{{ -9223372036854775807 - 2 }}", "64 bits"},
        {"{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"},
        {"{{ 10 ** 100 }}", "64 bits"},
        {"{{ '%999999999d' % 1 }}", "format"},
        {"{{ 'a'.center(10 ** 12) }}", "steps"},
        {"{{ 'a'.zfill(10 ** 12) }}", "steps"},
        {"{{ strftime_now('%999999999d') }}", "strftime_now"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "endless recursion"},
        {"{% macro m(x) %}{{ x }}{{ m([m(x)]) }}{% endmacro %}{{ m(1) }}", "endless recursion"},
        {"{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "endless recursion"},
        {"{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}", "steps"},
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"},
        {"{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}", "MiB"},
        {"{% set n = namespace(x=[]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == n.x }}",
         "steps"},
        {"{% set n = namespace(x=[]) %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}", ""},
        {"{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}", "deeper"},
        {"{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
         "deeper"},
        {"{% set n = namespace() %}{% set n.n = n %}{{ n }}", "deeper"},
        {"{% set s = 'ab' * 5000000 %}{% for a in range(99999) %}{{ 'c' in s }}{% endfor %}", "steps"},
        {"{% set s = 'a' * 5000000 %}{% for a in range(99999) %}{% set q = s.rfind('ab') %}{% endfor %}", "steps"},
        {"{% set s = 'a' * 1000000 %}{% for a in range(999) %}{{ s | replace('a', s) }}{% endfor %}", "MiB"},
        {"{% set s = 'é' * 1000000 %}{% for a in range(99999) %}{% set q = s[::-1] %}{% endfor %}", ""},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err     e = {0};
        str     out = {0};
        int64_t begin = clock_us();
        if (render(wrong[i].source, "{}", &out, &e)) {
            fail_msg("%s should fail", wrong[i].source);
        }
        assert_says(e, wrong[i].says);
        int64_t took = clock_us() - begin;
        if (took > 30 * 1000 * 1000) { /* well below a second, but a sanitizer and a busy machine are slow */
            fail_msg("%s took %lld ms", wrong[i].source, (long long)took / 1000);
        }
        str_free(&out);
    }
}

/* `unit` many times over, as a template. */
static void check_deep(const char *before, const char *unit, int times, const char *after, const char *says) {
    str s = {0};
    err e = {0};
    str out = {0};
    str_adds(&s, before);
    for (int i = 0; i < times; i++) {
        str_adds(&s, unit);
    }
    str_adds(&s, after);
    assert_false(s.failed);
    bool ok = render(s.data, "{}", &out, &e);
    if (says) {
        assert_false(ok);
        assert_says(e, says);
    } else {
        assert_ok(ok, e);
    }
    str_free(&s);
    str_free(&out);
}

static void test_deep(void **state) {
    (void)state;
    check_deep("{{ ", "(", 10000, "", "too deep");
    char close[210] = "1";
    memset(close + 1, ')', 200);
    memcpy(close + 201, " }}", 4);
    check_deep("{{ ", "(", 200, close, "deeper");
    check_deep("{{ ", "-", 10000, "1 }}", "deeper");
    check_deep("{{ ", "not ", 10000, "1 }}", "deeper");
    check_deep("{{ ", "1 if 1 else ", 10000, "1 }}", "deeper");
    check_deep("", "{% if 1 %}", 10000, "", "deeper");
    check_deep("", "{% for a in [1] %}", 10000, "", "deeper");
    check_deep("{{ 'a'", "|trim", 10000, " }}", "nests deeper");
    check_deep("{{ 'a'", "[0]", 10000, " }}", "nests deeper");
    check_deep("{{ 1", " - 1", 10000, " }}", "nests deeper");
    check_deep("{{ 1", " + 1", 10000, " }}", NULL); /* a chain is one node */
    check_deep("{{ ''", " ~ 1", 10000, " }}", NULL);
    check_deep("{{ 1", " and 1", 10000, " }}", NULL);
    check_deep("{{ 1", " == 1", 10000, " }}", NULL);
    check_deep("{% if 0 %}", "{% elif 0 %}", 10000, "{% endif %}", NULL);
    check_deep("{% filter trim", "|trim", 2000, " %}a{% endfilter %}", NULL);
    check_deep("{% set a = [", "1,", 10000, "] %}{{ a | length }}", NULL);
}

/* ---- the conformance set ---- */

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    str   s = {0};
    char  piece[4096];
    if (!f) {
        return NULL;
    }
    for (size_t got; (got = fread(piece, 1, sizeof(piece), f)) > 0;) {
        str_add(&s, piece, got);
    }
    fclose(f);
    *n = s.len;
    return str_take(&s);
}

static bool check_case(const chat_template *t, const char *line, size_t n) {
    err    e = {0};
    str    out = {0};
    cJSON *c = json_parse(line, n, JSON_MAX_DEPTH, &e);
    if (!c) {
        print_message("  %s\n", e.text);
        return false;
    }
    const cJSON *expected = cJSON_GetObjectItemCaseSensitive(c, "expected");
    const cJSON *kind = cJSON_GetObjectItemCaseSensitive(c, "error_kind");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(c, "error");
    bool         ok = template_render(t, cJSON_GetObjectItemCaseSensitive(c, "input"), NOW, &out, &e);
    bool         right;
    if (expected) {
        right = ok && strcmp(out.data ? out.data : "", expected->valuestring) == 0;
    } else if (strcmp(kind->valuestring, "raise_exception") == 0) {
        right = !ok && strcmp(e.text, error->valuestring) == 0;
    } else {
        right = true; /* jinja2 itself fails here: anything goes */
    }
    if (!right) {
        print_message("  %s: %s\n", cJSON_GetObjectItemCaseSensitive(c, "label")->valuestring,
                      ok ? "another text" : e.text);
    }
    str_free(&out);
    cJSON_Delete(c);
    return right;
}

/* Runs the cases of one template, if it has any there. */
static void check_template(const char *name, int *templates, int *passed, int *total) {
    char   path[512];
    size_t n = 0;
    err    e = {0};
    snprintf(path, sizeof(path), CONFORMANCE "%s", name);
    char *source = slurp(path, &n);
    assert_non_null(source);
    chat_template *t = template_compile(source, n, &e);
    if (!t) {
        fail_msg("%s: %s", name, e.text);
    }
    assert_string_equal(template_source(t), source);
    snprintf(path, sizeof(path), CONFORMANCE "%.*s.jsonl", (int)(strlen(name) - 6), name);
    char *lines = slurp(path, &n);
    if (lines) {
        int good = 0;
        int all = 0;
        for (char *line = lines; *line;) {
            size_t length = strcspn(line, "\n");
            good += check_case(t, line, length);
            all++;
            line += length + (line[length] != '\0');
        }
        print_message("%d of %d: %s\n", good, all, name);
        (*templates)++;
        *passed += good;
        *total += all;
    }
    free(lines);
    free(source);
    template_free(t);
}

static void test_conformance(void **state) {
    (void)state;
    DIR *d = opendir(CONFORMANCE);
    if (!d) {
        print_message("skipped: " CONFORMANCE " is not there\n");
        skip();
    }
    int templates = 0;
    int passed = 0;
    int total = 0;
    for (struct dirent *entry; (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n > 6 && strcmp(entry->d_name + n - 6, ".jinja") == 0) { /* those without cases must compile, at least */
            check_template(entry->d_name, &templates, &passed, &total);
        }
    }
    closedir(d);
    print_message("%d of %d cases of %d templates\n", passed, total, templates);
    assert_true(templates >= TEMPLATES);
    assert_true(total >= CASES);
    assert_int_equal(passed, total);
}

/* ---- speed: printed, and far from the mark only when something is badly wrong ---- */

static void test_speed(void **state) {
    (void)state;
    err    e = {0};
    cJSON *input = cJSON_CreateObject();
    cJSON *messages = cJSON_AddArrayToObject(input, "messages");
    cJSON_AddBoolToObject(input, "add_generation_prompt", true);
    cJSON_AddStringToObject(input, "bos_token", "<s>");
    for (int i = 0; i < 20; i++) {
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "role", i % 2 ? "assistant" : "user");
        cJSON_AddStringToObject(m, "content", "How long does the delivery of a parcel to the islands take at Easter?");
        cJSON_AddItemToArray(messages, m);
    }
    const char *sources[] = {chatml, llama3};
    for (int i = 0; i < 2; i++) {
        chat_template *t = template_compile(sources[i], strlen(sources[i]), &e);
        str            out = {0};
        assert_ok(t, e);
        int64_t best = INT64_MAX;
        for (int k = 0; k < 50; k++) {
            str_clear(&out);
            int64_t begin = clock_us();
            assert_ok(template_render(t, input, NOW, &out, &e), e);
            int64_t took = clock_us() - begin;
            best = took < best ? took : best;
        }
        print_message("%s, 20 messages: %lld us\n", i ? "Llama 3" : "ChatML", (long long)best);
        assert_true(best < 5000);
        str_free(&out);
        template_free(t);
    }
    cJSON_Delete(input);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_well_known),
        cmocka_unit_test(test_output_is_appended),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_names_with_nul),
        cmocka_unit_test(test_raise_exception),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_conformance),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
