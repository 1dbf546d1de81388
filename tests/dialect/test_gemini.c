/* Requests for Gemini: conversations, tools, sampling and thinking, and what cannot be carried. The wanted forms follow the
 * API's reference (generateContent, v1beta). */
#include "foreign.h"

#include <time.h>

#define OLD "gemini-2.5-flash"
#define NEW "gemini-3-pro-preview"

static void chat(const char *model, const char *body, const char *wanted) {
    assert_carried(&dialect_gemini, REQUEST_CHAT, model, body, wanted);
}

static void dropped(const char *body, const char *name, const char *wanted) {
    assert_dropped(&dialect_gemini, REQUEST_CHAT, OLD, body, name, wanted);
}

static void refused(const char *body, const char *param, const char *says) {
    carried c;
    if (carry(&c, &dialect_gemini, REQUEST_CHAT, OLD, body, true)) {
        fail_msg("carried: %s", c.out.data);
    }
    assert_string_equal(c.e.param, param);
    assert_says(c.e, says);
    carried_free(&c);
}

#define HI   "'messages':[{'role':'user','content':'hi'}]"
#define SAID "'contents':[{'role':'user','parts':[{'text':'hi'}]}]"

static void conversations(void **state) {
    (void)state;
    chat(OLD, "{'model':'m'," HI ",'stream':true,'stream_options':{'include_usage':true}}", "{" SAID "}");
    chat(OLD,
         "{'model':'m','messages':[{'role':'system','content':'be kind'},{'role':'user','content':'hi'},"
         "{'role':'assistant','content':'ho','refusal':null,'annotations':[]},"
         "{'role':'developer','content':[{'type':'text','text':'be short'}]},"
         "{'role':'user','content':[{'type':'text','text':'a'},{'type':'text','text':'b'}]}]}",
         "{'systemInstruction':{'parts':[{'text':'be kind'},{'text':'be short'}]},'contents':["
         "{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'ho'}]},"
         "{'role':'user','parts':[{'text':'a'},{'text':'b'}]}]}");
    /* Instructions alone are said by the user; a turn without words is none. */
    chat(OLD, "{'model':'m','messages':[{'role':'system','content':'sing'}]}",
         "{'contents':[{'role':'user','parts':[{'text':'sing'}]}]}");
    chat(OLD, "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','content':''}]}",
         "{" SAID "}");
    chat(OLD, "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','refusal':'no'}]}",
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'no'}]}]}");
}

static void bytes_and_addresses(void **state) {
    (void)state;
    chat(OLD,
         "{'model':'m','messages':[{'role':'user','content':["
         "{'type':'image_url','image_url':{'url':'data:image/png;base64,iVBORw0=','detail':'low'}},"
         "{'type':'image_url','image_url':{'url':'https://a.example/b.JPG?x=1#y','detail':'auto'}},"
         "{'type':'image_url','image_url':{'url':'gs://bucket/name'}},"
         "{'type':'input_audio','input_audio':{'data':'UklGRg==','format':'wav'}},"
         "{'type':'file','file':{'filename':'a.pdf','file_data':'data:application/pdf;base64,JVBERi0='}},"
         "{'type':'file','file':{'filename':'a.csv','file_data':'YSxi'}},"
         "{'type':'file','file':{'file_id':'https://generativelanguage.googleapis.com/v1beta/files/abc'}},"
         "{'type':'image_url','image_url':{'url':'data:text/plain;charset=utf-8;base64,YQ=='}}]}]}",
         "{'contents':[{'role':'user','parts':["
         "{'inlineData':{'mimeType':'image/png','data':'iVBORw0='}},"
         "{'fileData':{'mimeType':'image/jpeg','fileUri':'https://a.example/b.JPG?x=1#y'}},"
         "{'fileData':{'fileUri':'gs://bucket/name'}},"
         "{'inlineData':{'mimeType':'audio/wav','data':'UklGRg=='}},"
         "{'inlineData':{'mimeType':'application/pdf','data':'JVBERi0='}},"
         "{'inlineData':{'mimeType':'text/csv','data':'YSxi'}},"
         "{'fileData':{'fileUri':'https://generativelanguage.googleapis.com/v1beta/files/abc'}},"
         "{'inlineData':{'mimeType':'text/plain','data':'YQ=='}}]}],"
         "'generationConfig':{'mediaResolution':'MEDIA_RESOLUTION_LOW'}}");
    refused("{'model':'m','messages':[{'role':'user','content':[{'type':'image_url','image_url':{'url':'file:///etc/"
            "x'}}]}]}",
            "messages[0].content[0].image_url.url", "data: URL");
    refused("{'model':'m','messages':[{'role':'user','content':[{'type':'input_audio','input_audio':{'data':'AA'}}]}]}",
            "messages[0].content[0].input_audio.format", "missing");
    dropped("{'model':'m','messages':[{'role':'user','content':[{'type':'text','text':'hi'},"
            "{'type':'file','file':{'file_id':'file-123'}}]}]}",
            "messages[0].content[1].file.file_id", "{" SAID "}");
    dropped("{'model':'m','messages':[{'role':'user','content':[{'type':'text','text':'hi'},"
            "{'type':'video_url','video_url':{'url':'https://x'}}]}]}",
            "messages[0].content[1]", "{" SAID "}");
    dropped(
        "{'model':'m','messages':[{'role':'user','content':["
        "{'type':'image_url','image_url':{'url':'gs://a','detail':'low'}},"
        "{'type':'image_url','image_url':{'url':'gs://b','detail':'high'}}]}]}",
        "messages[0].content[1].image_url.detail",
        "{'contents':[{'role':'user','parts':[{'fileData':{'fileUri':'gs://a'}},{'fileData':{'fileUri':'gs://b'}}]}],"
        "'generationConfig':{'mediaResolution':'MEDIA_RESOLUTION_LOW'}}");
}

/* In full quotes: the arguments hold some of their own. */
static void calls_and_results(void **state) {
    (void)state;
    static const char body[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
        "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"n\\\":"
        "12345678901234567890}\"}},"
        "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"{\\\"ok\\\":true}\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":[{\"type\":\"text\",\"text\":\"seven\"}]},"
        "{\"role\":\"user\",\"content\":\"and?\"}]}";
    carried c;
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, OLD, body, false), c.e);
    assert_non_null(strstr(c.out.data, "\"args\":{\"n\":12345678901234567890}")); /* no digit is lost */
    assert_json(c.out.data, "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':["
                            "{'functionCall':{'id':'c1','name':'f','args':{'n':12345678901234567890}}},"
                            "{'functionCall':{'id':'c2','name':'g','args':{}}}]},{'role':'user','parts':["
                            "{'functionResponse':{'id':'c2','name':'g','response':{'ok':true}}},"
                            "{'functionResponse':{'id':'c1','name':'f','response':{'output':'seven'}}}]},"
                            "{'role':'user','parts':[{'text':'and?'}]}]}");
    carried_free(&c);

    chat(OLD,
         "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','tool_calls':["
         "{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}}]},"
         "{'role':'tool','tool_call_id':'c1','content':'[1]','is_error':true}]}",
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':["
         "{'functionCall':{'id':'c1','name':'f','args':{}}}]},{'role':'user','parts':["
         "{'functionResponse':{'id':'c1','name':'f','response':{'error':'[1]'}}}]}]}");
    refused(
        "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'tool','tool_call_id':'no','content':'x'}]}",
        "messages[1].tool_call_id", "no call before it");
    refused("{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'tool','content':'x'}]}",
            "messages[1].tool_call_id", "missing");
    refused(
        "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','tool_calls':[{'id':'c','type':"
        "'function','function':{'name':'f','arguments':'[]'}}]}]}",
        "messages[1].tool_calls[0].function.arguments", "JSON object");
    dropped("{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','content':'a','tool_calls':["
            "{'id':'c','type':'custom','custom':{'name':'f','input':'x'}}]}]}",
            "messages[1].tool_calls[0]",
            "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'a'}]}]}");
}

static void pictures_in_results(void **state) {
    (void)state;
    static const char body[] =
        "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','tool_calls':["
        "{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}}]},"
        "{'role':'tool','tool_call_id':'c1','content':[{'type':'text','text':'see'},"
        "{'type':'image_url','image_url':{'url':'data:image/png;base64,AAAA'}},"
        "{'type':'image_url','image_url':{'url':'https://x/y.png'}}]}]}";
    chat(OLD, body,
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':["
         "{'functionCall':{'id':'c1','name':'f','args':{}}}]},{'role':'user','parts':["
         "{'functionResponse':{'id':'c1','name':'f','response':{'output':'see'}}},"
         "{'inlineData':{'mimeType':'image/png','data':'AAAA'}},"
         "{'fileData':{'mimeType':'image/png','fileUri':'https://x/y.png'}}]}]}");
    chat(NEW, body,
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':["
         "{'functionCall':{'id':'c1','name':'f','args':{}},'thoughtSignature':'skip_thought_signature_validator'}]},"
         "{'role':'user','parts':[{'functionResponse':{'id':'c1','name':'f','response':{'output':'see'},"
         "'parts':[{'inlineData':{'mimeType':'image/png','data':'AAAA'}}]}},"
         "{'fileData':{'mimeType':'image/png','fileUri':'https://x/y.png'}}]}]}");
}

static void thoughts_go_back(void **state) {
    (void)state;
    chat(NEW,
         "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','content':'ho',"
         "'reasoning_content':'hm','reasoning_signature':'c2ln'}]}",
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'hm','thought':true},"
         "{'text':'ho','thoughtSignature':'c2ln'}]}]}");
    chat(NEW,
         "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','reasoning_signature':'c2ln',"
         "'content':[{'type':'text','text':'a'},{'type':'text','text':'b'}]}]}",
         "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'a'},{'text':'b'},"
         "{'text':'','thoughtSignature':'c2ln'}]}]}");
    static const char calls[] = "'tool_calls':[{'id':'a','type':'function','function':{'name':'f','arguments':'{}'}},"
                                "{'id':'b','type':'function','function':{'name':'g','arguments':'{}'}%s}]";
    struct {
        const char *model, *message, *extra, *first, *second;
    } cases[] = {
        {NEW, "'reasoning_signature':'c2ln',", "", ",'thoughtSignature':'c2ln'", ""},
        {OLD, "'reasoning_signature':'c2ln',", "", ",'thoughtSignature':'c2ln'", ""},
        {NEW, "", "", ",'thoughtSignature':'skip_thought_signature_validator'", ""},
        {"gemini-flash-latest", "", "", ",'thoughtSignature':'skip_thought_signature_validator'", ""},
        {OLD, "", "", "", ""},
        {"gemma-3-27b-it", "", "", "", ""},
        {NEW, "'reasoning_signature':'c2ln',", ",'extra_content':{'google':{'thought_signature':'b3du'}}",
         ",'thoughtSignature':'c2ln'", ",'thoughtSignature':'b3du'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char tool[512], body[1024], wanted[1024];
        snprintf(tool, sizeof tool, calls, cases[i].extra);
        snprintf(body, sizeof body,
                 "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant',%s%s}]}",
                 cases[i].message, tool);
        snprintf(
            wanted, sizeof wanted,
            "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':["
            "{'functionCall':{'id':'a','name':'f','args':{}}%s},{'functionCall':{'id':'b','name':'g','args':{}}%s}]}]}",
            cases[i].first, cases[i].second);
        chat(cases[i].model, body, wanted);
    }
}

#define TOOL                                                                                                           \
    "'tools':[{'type':'function','function':{'name':'f','description':'d','parameters':{'type':'object',"              \
    "'properties':{'b':{'$ref':'#/$defs/x'},'a':{'type':['string','null']}},'$defs':{'x':{'const':1}}}%s}}]"
#define DECLARED                                                                                                       \
    "'tools':[{'functionDeclarations':[{'name':'f','description':'d','parametersJsonSchema':{'type':'object',"         \
    "'properties':{'b':{'$ref':'#/$defs/x'},'a':{'type':['string','null']}},'$defs':{'x':{'const':1}}}}]}]"

static void tools_and_choices(void **state) {
    (void)state;
    static const struct {
        const char *strict, *choice, *config;
    } cases[] = {
        {"", "", ""},
        {"", ",'tool_choice':'auto'", ",'toolConfig':{'functionCallingConfig':{'mode':'AUTO'}}"},
        {"", ",'tool_choice':'none'", ",'toolConfig':{'functionCallingConfig':{'mode':'NONE'}}"},
        {"", ",'tool_choice':'required'", ",'toolConfig':{'functionCallingConfig':{'mode':'ANY'}}"},
        {"", ",'tool_choice':{'type':'function','function':{'name':'f'}}",
         ",'toolConfig':{'functionCallingConfig':{'mode':'ANY','allowedFunctionNames':['f']}}"},
        {"",
         ",'tool_choice':{'type':'allowed_tools','allowed_tools':{'mode':'required','tools':[{'type':'function','name':"
         "'f'}]}}",
         ",'toolConfig':{'functionCallingConfig':{'mode':'ANY','allowedFunctionNames':['f']}}"},
        {",'strict':true", "", ",'toolConfig':{'functionCallingConfig':{'mode':'VALIDATED'}}"},
        {",'strict':true", ",'tool_choice':'required'", ",'toolConfig':{'functionCallingConfig':{'mode':'ANY'}}"},
        {",'strict':false", ",'parallel_tool_calls':true", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char tool[512], body[1024], wanted[1024];
        snprintf(tool, sizeof tool, TOOL, cases[i].strict);
        snprintf(body, sizeof body, "{'model':'m'," HI ",%s%s}", tool, cases[i].choice);
        snprintf(wanted, sizeof wanted, "{" SAID "," DECLARED "%s}", cases[i].config);
        chat(OLD, body, wanted);
    }
    /* The order of a schema's members is kept: an answer's come in it. */
    carried c;
    char    tool[512], body[1024];
    snprintf(tool, sizeof tool, TOOL, "");
    snprintf(body, sizeof body, "{'model':'m'," HI ",%s}", tool);
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, OLD, body, false), c.e);
    assert_true(strstr(c.out.data, "\"b\":{") < strstr(c.out.data, "\"a\":{"));
    carried_free(&c);
    dropped("{'model':'m'," HI ",'parallel_tool_calls':false}", "parallel_tool_calls", "{" SAID "}");
    dropped("{'model':'m'," HI ",'tool_choice':'required'}", "tool_choice", "{" SAID "}");
    dropped("{'model':'m'," HI ",'tools':[{'type':'custom','custom':{'name':'x'}}]}", "tools[0]", "{" SAID "}");
    dropped("{'model':'m'," HI ",'tools':[{'type':'function','function':{'name':'f','returns':{'a':1}}}]}",
            "tools[0].function.returns", "{" SAID ",'tools':[{'functionDeclarations':[{'name':'f'}]}]}");
}

static void sampling(void **state) {
    (void)state;
    chat(OLD,
         "{'model':'m'," HI
         ",'temperature':0.25,'top_p':0.5,'top_k':7,'max_completion_tokens':99,'stop':['a','b'],'seed':-5,"
         "'presence_penalty':0.5,'frequency_penalty':-0.5,'logprobs':true,'top_logprobs':4,'n':2,'user':'u'}",
         "{" SAID ",'generationConfig':{'temperature':0.25,'topP':0.5,'topK':7,'maxOutputTokens':99,'candidateCount':2,"
         "'presencePenalty':0.5,'frequencyPenalty':-0.5,'seed':-5,'responseLogprobs':true,'logprobs':4,"
         "'stopSequences':['a','b']}}");
    chat(OLD, "{'model':'m'," HI ",'logprobs':true,'stop':'x','logit_bias':{},'modalities':['text'],'top_k':-1}",
         "{" SAID ",'generationConfig':{'responseLogprobs':true,'stopSequences':['x']}}");
    chat(OLD, "{'model':'m'," HI ",'service_tier':'flex'}", "{" SAID ",'service_tier':'flex'}");
    chat(OLD, "{'model':'m'," HI ",'service_tier':'auto'}", "{" SAID "}");
    dropped("{'model':'m'," HI ",'stop':['1','2','3','4','5','6']}", "stop[5]",
            "{" SAID ",'generationConfig':{'stopSequences':['1','2','3','4','5']}}");
    dropped("{'model':'m'," HI ",'seed':4294967296}", "seed", "{" SAID "}");
    dropped("{'model':'m'," HI ",'logit_bias':{'5':1}}", "logit_bias", "{" SAID "}");
    dropped("{'model':'m'," HI ",'min_p':0.5}", "min_p", "{" SAID "}");
    dropped("{'model':'m'," HI ",'modalities':['text','audio']}", "modalities", "{" SAID "}");
    dropped("{'model':'m'," HI ",'service_tier':'scale'}", "service_tier", "{" SAID "}");
    dropped("{'model':'m','messages':[{'role':'user','content':'hi','name':'Ann'}]}", "messages[0].name", "{" SAID "}");
    carried c; /* the budget's limit goes to the provider where it is the smaller one */
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, OLD, "{'model':'m'," HI ",'max_tokens':50}", false), c.e);
    str_clear(&c.out);
    c.r.most_tokens = 20;
    assert_ok(dialect_gemini.write_request(&c.r, OLD, false, &c.out, &c.e), c.e);
    assert_json(c.out.data, "{" SAID ",'generationConfig':{'maxOutputTokens':20}}");
    carried_free(&c);
}

static void forms(void **state) {
    (void)state;
    chat(OLD, "{'model':'m'," HI ",'response_format':{'type':'text'}}", "{" SAID "}");
    chat(OLD, "{'model':'m'," HI ",'response_format':{'type':'json_object'}}",
         "{" SAID ",'generationConfig':{'responseMimeType':'application/json'}}");
    chat(OLD,
         "{'model':'m'," HI ",'response_format':{'type':'json_schema','json_schema':{'name':'x','strict':true,'schema':"
         "{'type':'object','properties':{'z':{'anyOf':[{'type':'null'},{'$ref':'#'}]}}}}}}",
         "{" SAID ",'generationConfig':{'responseMimeType':'application/json','responseJsonSchema':"
         "{'type':'object','properties':{'z':{'anyOf':[{'type':'null'},{'$ref':'#'}]}}}}}");
    refused("{'model':'m'," HI ",'response_format':{'type':'json_schema','json_schema':{'name':'x'}}}",
            "response_format.json_schema.schema", "missing");
    chat(OLD, "{'model':'m'," HI ",'response_format':{'type':'json_object','schema':{'type':'array'}}}",
         "{" SAID ",'generationConfig':{'responseMimeType':'application/json','responseJsonSchema':{'type':'array'}}}");
    dropped("{'model':'m'," HI ",'response_format':{'type':'json_schema','json_schema':{'name':'x','description':'d',"
            "'schema':{}}}}",
            "response_format.json_schema.description",
            "{" SAID ",'generationConfig':{'responseMimeType':'application/json','responseJsonSchema':{}}}");
    dropped("{'model':'m'," HI ",'response_format':{'type':'grammar'}}", "response_format", "{" SAID "}");
}

static void thinking(void **state) {
    (void)state;
    static const struct {
        const char *model, *said, *config;
    } cases[] = {
        {OLD, "'reasoning_effort':'low'", "'includeThoughts':true,'thinkingBudget':1024"},
        {OLD, "'reasoning_effort':'medium'", "'includeThoughts':true,'thinkingBudget':8192"},
        {OLD, "'reasoning_effort':'high'", "'includeThoughts':true,'thinkingBudget':24576"},
        {OLD, "'reasoning_effort':'none'", "'includeThoughts':false,'thinkingBudget':0"},
        {NEW, "'reasoning_effort':'low'", "'includeThoughts':true,'thinkingLevel':'low'"},
        {NEW, "'reasoning_effort':'xhigh'", "'includeThoughts':true,'thinkingLevel':'high'"},
        {NEW, "'reasoning_effort':'minimal'", "'includeThoughts':true,'thinkingLevel':'low'"},
        {"gemini-3-flash", "'reasoning_effort':'minimal'", "'includeThoughts':true,'thinkingLevel':'minimal'"},
        {"gemini-10-flash", "'thinking':{'type':'disabled'}", "'includeThoughts':false,'thinkingLevel':'minimal'"},
        {OLD, "'thinking':{'type':'disabled'}", "'includeThoughts':false,'thinkingBudget':0"},
        {OLD, "'thinking':{'type':'enabled','budget_tokens':5000}", "'includeThoughts':true,'thinkingBudget':5000"},
        {NEW, "'thinking':{'type':'enabled','budget_tokens':5000}", "'includeThoughts':true,'thinkingBudget':5000"},
        {OLD, "'thinking':{'type':'adaptive'}", "'includeThoughts':true"},
        {NEW, "'thinking':{'type':'adaptive'},'reasoning_effort':'medium'",
         "'includeThoughts':true,'thinkingLevel':'medium'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[512], wanted[512];
        snprintf(body, sizeof body, "{'model':'m'," HI ",%s}", cases[i].said);
        snprintf(wanted, sizeof wanted, "{" SAID ",'generationConfig':{'thinkingConfig':{%s}}}", cases[i].config);
        chat(cases[i].model, body, wanted);
    }
    dropped("{'model':'m'," HI ",'reasoning_effort':'heroic'}", "reasoning_effort", "{" SAID "}");
}

/* Hints are left out whether or not anything may be dropped, and listed. */
static void hints(void **state) {
    (void)state;
    carried c;
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, OLD,
                    "{'model':'m','messages':[{'role':'user','content':[{'type':'text','text':'hi','cache_control':"
                    "{'type':'ephemeral'}}]}],'metadata':{'a':'b'},'store':true,'tools':[{'type':'function',"
                    "'cache_control':{'type':'ephemeral'},'function':{'name':'f'}}]}",
                    false),
              c.e);
    assert_json(c.out.data, "{" SAID ",'tools':[{'functionDeclarations':[{'name':'f'}]}]}");
    assert_non_null(strstr(c.dropped.names, "cache_control"));
    assert_non_null(strstr(c.dropped.names, "metadata"));
    carried_free(&c);
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, NEW,
                    "{'model':'m','messages':[{'role':'user','content':'hi'},{'role':'assistant','content':'ho',"
                    "'reasoning_content':'another model thought this','reasoning_redacted':'x'}]}",
                    false),
              c.e);
    assert_json(c.out.data,
                "{'contents':[{'role':'user','parts':[{'text':'hi'}]},{'role':'model','parts':[{'text':'ho'}]}]}");
    assert_non_null(strstr(c.dropped.names, "reasoning_content"));
    assert_non_null(strstr(c.dropped.names, "reasoning_redacted"));
    carried_free(&c);
}

static void embeddings_are_written(void **state) {
    (void)state;
    assert_carried(
        &dialect_gemini, REQUEST_EMBEDDINGS, "gemini-embedding-001",
        "{'model':'m','input':['a','b'],'dimensions':256,'encoding_format':'base64'}",
        "{'requests':[{'model':'models/gemini-embedding-001','content':{'parts':[{'text':'a'}]},"
        "'outputDimensionality':256},{'model':'models/gemini-embedding-001','content':{'parts':[{'text':'b'}]},"
        "'outputDimensionality':256}]}");
    assert_carried(&dialect_gemini, REQUEST_EMBEDDINGS, "models/x", "{'model':'m','input':'a'}",
                   "{'requests':[{'model':'models/x','content':{'parts':[{'text':'a'}]}}]}");
    carried c;
    assert_false(carry(&c, &dialect_gemini, REQUEST_EMBEDDINGS, "m", "{'model':'m','input':[[1,2]]}", true));
    assert_string_equal(c.e.param, "input");
    carried_free(&c);
    assert_false(carry(&c, &dialect_gemini, REQUEST_COMPLETION, "m", "{'model':'m','prompt':'x'}", true));
    assert_int_equal(c.e.code, ERR_UNSUPPORTED);
    carried_free(&c);
}

/* Thousands of calls and results are looked up, not searched: the time grows with the size of the request. */
static void many_results_take_no_time(void **state) {
    (void)state;
    enum { CALLS_IN_ALL = 20000 };
    str body = {0};
    str_adds(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[");
    for (int i = 0; i < CALLS_IN_ALL; i++) {
        str_addf(&body, "%s{\"id\":\"c%d\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}",
                 i ? "," : "", i);
    }
    str_adds(&body, "]}");
    for (int i = CALLS_IN_ALL - 1; i >= 0; i--) {
        str_addf(&body, ",{\"role\":\"tool\",\"tool_call_id\":\"c%d\",\"content\":\"x\"}", i);
    }
    str_adds(&body, "]}");
    carried c;
    clock_t begun = clock();
    assert_ok(carry(&c, &dialect_gemini, REQUEST_CHAT, OLD, body.data, false), c.e);
    assert_true((double)(clock() - begun) / CLOCKS_PER_SEC < 5); /* a search through all would take minutes */
    carried_free(&c);
    str_free(&body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations),
        cmocka_unit_test(bytes_and_addresses),
        cmocka_unit_test(calls_and_results),
        cmocka_unit_test(pictures_in_results),
        cmocka_unit_test(thoughts_go_back),
        cmocka_unit_test(tools_and_choices),
        cmocka_unit_test(sampling),
        cmocka_unit_test(forms),
        cmocka_unit_test(thinking),
        cmocka_unit_test(hints),
        cmocka_unit_test(embeddings_are_written),
        cmocka_unit_test(many_results_take_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
