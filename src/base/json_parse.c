/* The reader of json.h: text to cJSON's tree in one pass over checked UTF-8 (RFC 8259).
 *
 * The tree is as cJSON would build it, so that everything else of cJSON works on it: each node, each string and each key
 * is memory of cJSON_malloc, the first child's prev is the last child, and a key of the table below is marked as
 * constant. cJSON_Duplicate copies the pointer of a constant key, so only keys that live as long as the program may be
 * marked.                                                                                                             */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/map.h"
#include "base/utf8.h"

typedef struct reader {
    const char *text;
    const char *at;
    const char *end;
    int         depth;
    int         max_depth;
    size_t      values; /* at least as many as the tree has nodes */
    err        *e;
} reader;

static size_t offset(const reader *r, const char *at) {
    return (size_t)(at - r->text);
}

static size_t left(const reader *r) {
    return (size_t)(r->end - r->at);
}

static bool out_of_memory(err *e) {
    return err_set(e, ERR_MEMORY, "out of memory while reading JSON");
}

/* r->at is where something else had to be. */
static bool unexpected(const reader *r) {
    size_t at = offset(r, r->at);
    if (r->at == r->end) {
        return err_set(r->e, ERR_INVALID, "not JSON: the text ends too early, at byte %zu", at);
    }
    unsigned char c = (unsigned char)*r->at;
    if (c > ' ' && c < 0x7F) {
        return err_set(r->e, ERR_INVALID, "not JSON: unexpected %c at byte %zu", c, at);
    }
    return err_set(r->e, ERR_INVALID, "not JSON: unexpected byte 0x%02x at byte %zu", c, at);
}

static void skip_blanks(reader *r) {
    if (r->at < r->end && (unsigned char)*r->at > ' ') {
        return; /* most often */
    }
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
        r->at++;
    }
}

/* ---- Strings ---- */

/* A string as it stands in the text, without its quotes. */
typedef struct literal {
    const char *from;
    size_t      raw; /* bytes in the text */
    size_t      len; /* bytes when its escapes are read; as many as raw means that it has none */
} literal;

/* The four hex digits after \u, -1 when they are not there. */
static int32_t hex4(const char *at, const char *end) {
    int32_t value = 0;
    if (end - at < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int  low = c | 0x20; /* the letter's lower case */
        if (c >= '0' && c <= '9') {
            value = value << 4 | (c - '0');
        } else if (low >= 'a' && low <= 'f') {
            value = value << 4 | (low - 'a' + 10);
        } else {
            return -1;
        }
    }
    return value;
}

static bool bad_unicode(const reader *r, const char *at, int32_t code) {
    if (code < 0) {
        return err_set(r->e, ERR_INVALID, "not JSON: \\u needs four hex digits at byte %zu", offset(r, at));
    }
    if (code == 0) {
        return err_set(r->e, ERR_INVALID, "the text holds a NUL character (\\u0000) at byte %zu, which pare refuses",
                       offset(r, at));
    }
    return err_set(r->e, ERR_INVALID, "not JSON: half a surrogate pair at byte %zu", offset(r, at));
}

/* The character of the \u that begins at `at`; *used bytes of the text. 0 when it is none, which bad_unicode explains. */
static uint32_t read_unicode(const reader *r, const char *at, size_t *used) {
    int32_t high = hex4(at + 2, r->end);
    *used = 6;
    if (high <= 0 || (high >= 0xDC00 && high <= 0xDFFF)) {
        bad_unicode(r, at, high);
        return 0;
    }
    if (high < 0xD800 || high > 0xDFFF) {
        return (uint32_t)high;
    }
    if (r->end - at < 12 || at[6] != '\\' || at[7] != 'u') {
        bad_unicode(r, at, high);
        return 0;
    }
    int32_t low = hex4(at + 8, r->end);
    *used = 12;
    if (low < 0xDC00 || low > 0xDFFF) {
        bad_unicode(r, at + 6, low);
        return 0;
    }
    return 0x10000 + ((uint32_t)(high & 0x3FF) << 10 | (uint32_t)(low & 0x3FF));
}

static char simple_escape(char c) {
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}

/* Reads the escape whose backslash is at `at` and is not the text's last byte. Returns its bytes in the text, 0 when it
 * is wrong. */
static size_t read_escape(const reader *r, const char *at, char out[4], size_t *len) {
    size_t used = 2;
    if (at[1] == 'u') {
        uint32_t cp = read_unicode(r, at, &used);
        *len = utf8_encode(cp, out);
        return cp ? used : 0;
    }
    *len = 1;
    out[0] = simple_escape(at[1]);
    if (!out[0]) {
        err_set(r->e, ERR_INVALID, "not JSON: unknown escape at byte %zu", offset(r, at));
        return 0;
    }
    return used;
}

/* r->at is behind the opening quote; moves behind the closing one. */
static bool find_string(reader *r, literal *out) {
    size_t saved = 0; /* bytes that the escapes are longer than what they stand for */
    out->from = r->at;
    for (;;) {
        r->at += str_json_plain(r->at, left(r));
        if (left(r) == 0 || (left(r) == 1 && *r->at == '\\')) {
            return err_set(r->e, ERR_INVALID, "not JSON: the string that begins at byte %zu has no end",
                           offset(r, out->from) - 1);
        }
        if (*r->at == '"') {
            out->raw = (size_t)(r->at - out->from);
            out->len = out->raw - saved;
            r->at++;
            return true;
        }
        if (*r->at != '\\') {
            return err_set(r->e, ERR_INVALID, "not JSON: unescaped control character at byte %zu", offset(r, r->at));
        }
        char   bytes[4];
        size_t len;
        size_t used = read_escape(r, r->at, bytes, &len);
        if (!used) {
            return false;
        }
        saved += used - len;
        r->at += used;
    }
}

/* The string's bytes and a NUL; NULL when out of memory. */
static char *copy_string(const reader *r, const literal *s) {
    char *text = cJSON_malloc(s->len + 1);
    if (!text) {
        out_of_memory(r->e);
        return NULL;
    }
    char       *to = text;
    const char *from = s->from;
    const char *end = s->from + s->raw;
    while (s->raw != s->len && from < end) {
        const char *escape = memchr(from, '\\', (size_t)(end - from));
        size_t      plain = (size_t)((escape ? escape : end) - from);
        memcpy(to, from, plain);
        to += plain;
        from += plain;
        if (escape) {
            char   bytes[4];
            size_t len;
            from += read_escape(r, from, bytes, &len);
            memcpy(to, bytes, len);
            to += len;
        }
    }
    memcpy(to, from, (size_t)(end - from));
    text[s->len] = '\0';
    return text;
}

/* ---- Keys ---- */

/* The keys that requests and answers of the known interfaces are full of, by their length: they need no memory. */
#define LONGEST_KNOWN 25
static const char *const known_keys[LONGEST_KNOWN + 1][12] = {
    [2] = {"id", "to"},
    [3] = {"url"},
    [4] = {"role", "type", "text", "name", "user", "stop", "seed", "data", "code", "mode"},
    [5] = {"model", "index", "delta", "usage", "tools", "top_p", "error", "input", "param", "store", "bytes"},
    [6] = {"object", "stream", "tokens", "detail", "format", "strict", "prompt", "output", "schema", "system", "logit"},
    [7] = {"content", "message", "choices", "created", "refusal", "summary"},
    [8] = {"messages", "function", "logprobs", "metadata", "required"},
    [9] = {"arguments", "image_url", "embedding", "reasoning"},
    [10] = {"max_tokens", "tool_calls", "parameters", "properties", "logit_bias"},
    [11] = {"temperature", "tool_choice", "description", "annotations", "stop_reason"},
    [12] = {"total_tokens", "service_tier", "tool_call_id", "top_logprobs", "input_tokens", "audio_tokens"},
    [13] = {"finish_reason", "prompt_tokens", "cached_tokens", "output_tokens", "stop_sequence", "include_usage"},
    [14] = {"stream_options", "stop_sequences"},
    [15] = {"response_format"},
    [16] = {"presence_penalty", "reasoning_tokens", "reasoning_effort"},
    [17] = {"completion_tokens", "frequency_penalty", "reasoning_content"},
    [18] = {"system_fingerprint"},
    [19] = {"parallel_tool_calls"},
    [21] = {"prompt_tokens_details", "max_completion_tokens"},
    [25] = {"completion_tokens_details"},
};

/* Where the table has this key; NULL when it has not. */
static const char *const *known_key(const char *key, size_t n) {
    const char *const *known = known_keys[n <= LONGEST_KNOWN ? n : 0];
    while (*known && (**known != *key || memcmp(*known, key, n) != 0)) {
        known++;
    }
    return *known ? known : NULL;
}

static uint64_t hash_of(const char *key, size_t n) {
    uint64_t hash = n;
    for (size_t i = 0; i < n && i < 16; i++) {
        hash = hash * 31 + (unsigned char)key[i];
    }
    return hash ^ hash >> 6;
}

/* Equal keys get equal *hash, and its low six bits differ for most others. */
static bool read_key(reader *r, cJSON *member, uint64_t *hash) {
    if (r->at == r->end || *r->at != '"') {
        return unexpected(r);
    }
    r->at++;
    literal s;
    if (!find_string(r, &s)) {
        return false;
    }
    const char *const *known = s.len == s.raw ? known_key(s.from, s.len) : NULL;
    if (!known) {
        member->string = copy_string(r, &s);
        if (!member->string) {
            return false;
        }
        known = s.len != s.raw ? known_key(member->string, s.len) : NULL; /* once its escapes are read */
        *hash = hash_of(member->string, s.len);
        if (known) {
            cJSON_free(member->string);
        }
    }
    if (known) {
        member->string = (char *)(uintptr_t)*known; /* cJSON does not change it; its field only lacks the const */
        member->type = cJSON_StringIsConst;
        *hash = (uint64_t)(known - known_keys[0]);
    }
    return true;
}

/* The keys that an object has so far. */
typedef struct key_set {
    uint64_t seen; /* a bit for each, so that most new keys are known to be new at once */
    size_t   count;
    map     *many; /* from MANY_KEYS on: comparing each with each would be a gift to an attacker */
} key_set;

#define MANY_KEYS 16

static bool is_new(const cJSON *object, const cJSON *member, err *e) {
    for (const cJSON *other = object->child; other != member; other = other->next) {
        if (strcmp(other->string, member->string) == 0) {
            return err_set(e, ERR_INVALID, "the key \"%.80s\" stands twice in one JSON object", member->string);
        }
    }
    return true;
}

/* From the first of the keys on when `set` has no map yet. */
static bool put_keys(key_set *set, const cJSON *object, const cJSON *member, err *e) {
    const cJSON *key = set->many ? member : object->child;
    if (!set->many) {
        set->many = map_new(4 * MANY_KEYS);
    }
    if (!set->many) {
        return out_of_memory(e);
    }
    for (; key; key = key->next) {
        size_t n = strlen(key->string);
        if (map_get(set->many, key->string, n, NULL)) {
            return is_new(object, key, e);
        }
        if (!map_put(set->many, key->string, n, 1)) {
            return out_of_memory(e);
        }
    }
    return true;
}

/* `member` is the object's last. Two readers of one body could each believe another of two equal keys; refusing them is
 * the only safe reading. */
static bool add_key(key_set *set, const cJSON *object, const cJSON *member, uint64_t hash, err *e) {
    if (set->count++ >= MANY_KEYS) {
        return put_keys(set, object, member, e);
    }
    uint64_t bit = UINT64_C(1) << (hash & 63);
    bool     fresh = !(set->seen & bit);
    set->seen |= bit;
    return fresh || is_new(object, member, e);
}

/* ---- Numbers ---- */

/* Digits from which on an integer may not be a double. */
#define LONG_INTEGER   16
#define LONGEST_NUMBER 60 /* bytes; a double has no use for more */

/* Reads digits behind those of *value, which wraps around when there are more than 19. */
static const char *read_digits(const char *at, const char *end, uint64_t *value) {
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        *value = *value * 10 + (uint64_t)(*at - '0');
    }
    return at;
}

/* Behind an exponent at `at`, if there is one; NULL when it has no digits. */
static const char *skip_exponent(const char *at, const char *end) {
    if (at == end || (*at != 'e' && *at != 'E')) {
        return at;
    }
    at++;
    at += at < end && (*at == '+' || *at == '-');
    uint64_t    ignored = 0;
    const char *behind = read_digits(at, end, &ignored);
    return behind > at ? behind : NULL;
}

/* The double that is nearest to digits / 10^fraction, when one rounding gives it: up to 2^53 and 10^22 both are doubles,
 * so that their quotient is rounded once (Clinger, How to read floating point numbers accurately, 1990), and so is an
 * integer of 64 bits. */
static bool exact_number(uint64_t digits, size_t count, size_t fraction, double *out) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (FLT_EVAL_METHOD != 0 || count > 19 || (fraction && digits > UINT64_C(1) << 53)) {
        return false;
    }
    *out = fraction ? (double)digits / tens[fraction] : (double)digits;
    return true;
}

static double any_number(const char *from, size_t n) {
    char text[LONGEST_NUMBER + 1];
    memcpy(text, from, n);
    text[n] = '\0';
    return strtod(text, NULL);
}

/* cJSON leaves a number's valuestring alone, and frees and copies it as it does a string's: there stand the digits of an
 * integer that the double has lost some of. */
static bool keep_digits(const reader *r, cJSON *out, const char *from, size_t n) {
    out->valuestring = cJSON_malloc(n + 1);
    if (!out->valuestring) {
        return out_of_memory(r->e);
    }
    memcpy(out->valuestring, from, n);
    out->valuestring[n] = '\0';
    return true;
}

static bool read_number(reader *r, cJSON *out) {
    const char *start = r->at;
    const char *whole = start + (*start == '-');
    uint64_t    value = 0;
    const char *point = read_digits(whole, r->end, &value);
    bool        good = point > whole && !(*whole == '0' && point - whole > 1);
    const char *last = point;
    if (good && point < r->end && *point == '.') {
        last = read_digits(point + 1, r->end, &value);
        good = last > point + 1;
    }
    const char *behind = good ? skip_exponent(last, r->end) : NULL;
    if (!behind || behind - start > LONGEST_NUMBER) {
        return err_set(r->e, ERR_INVALID, "not JSON: bad number at byte %zu", offset(r, start));
    }
    size_t fraction = last > point ? (size_t)(last - point) - 1 : 0;
    size_t count = (size_t)(point - whole) + fraction;
    double d;
    if (behind == last && exact_number(value, count, fraction, &d)) {
        d = *start == '-' ? -d : d;
    } else {
        d = any_number(start, (size_t)(behind - start));
    }
    if (!isfinite(d)) {
        return err_set(r->e, ERR_INVALID, "the JSON holds a number too large for a double");
    }
    out->type |= cJSON_Number;
    out->valuedouble = d;
    out->valueint = d >= INT_MAX ? INT_MAX : d <= INT_MIN ? INT_MIN : (int)d; /* as cJSON has it */
    r->at = behind;
    bool lost = behind == point && behind - start >= LONG_INTEGER && fabs(d) >= 0x1p53;
    return !lost || keep_digits(r, out, start, (size_t)(behind - start));
}

/* ---- Values ---- */

static bool read_value(reader *r, cJSON *out);

static cJSON *new_node(err *e) {
    cJSON *node = cJSON_malloc(sizeof(*node));
    if (!node) {
        out_of_memory(e);
        return NULL;
    }
    memset(node, 0, sizeof(*node));
    return node;
}

static cJSON *append_node(cJSON *parent, err *e) {
    cJSON *node = new_node(e);
    if (node && parent->child) {
        cJSON *last = parent->child->prev;
        last->next = node;
        node->prev = last;
        parent->child->prev = node;
    } else if (node) {
        parent->child = node;
        node->prev = node;
    }
    return node;
}

/* r->at is at the bracket that opens an array or an object. */
static bool enter(reader *r) {
    r->values++;
    if (++r->depth > r->max_depth) {
        return err_set(r->e, ERR_LIMIT, "JSON nested deeper than %d levels at byte %zu", r->max_depth,
                       offset(r, r->at));
    }
    r->at++;
    skip_blanks(r);
    return true;
}

/* Behind a value in an array or an object; *more is set when a comma follows, and r->at is then behind it. */
static bool next_or_close(reader *r, char close, bool *more) {
    skip_blanks(r);
    if (r->at == r->end || (*r->at != ',' && *r->at != close)) {
        return unexpected(r);
    }
    *more = *r->at == ',';
    r->at++;
    if (!*more) {
        r->depth--;
        return true;
    }
    if (++r->values > JSON_MAX_VALUES) {
        return err_set(r->e, ERR_LIMIT, "JSON with more than %d values", JSON_MAX_VALUES);
    }
    skip_blanks(r);
    return true;
}

static bool is_empty(reader *r, char close) {
    if (r->at == r->end || *r->at != close) {
        return false;
    }
    r->at++;
    r->depth--;
    return true;
}

static bool read_array(reader *r, cJSON *array) {
    array->type |= cJSON_Array;
    if (!enter(r)) {
        return false;
    }
    bool more = !is_empty(r, ']');
    while (more) {
        cJSON *item = append_node(array, r->e);
        if (!item || !read_value(r, item) || !next_or_close(r, ']', &more)) {
            return false;
        }
    }
    return true;
}

static bool read_members(reader *r, cJSON *object, key_set *keys) {
    bool more = !is_empty(r, '}');
    while (more) {
        cJSON   *member = append_node(object, r->e);
        uint64_t hash = 0;
        if (!member || !read_key(r, member, &hash) || !add_key(keys, object, member, hash, r->e)) {
            return false;
        }
        skip_blanks(r);
        if (r->at == r->end || *r->at != ':') {
            return unexpected(r);
        }
        r->at++;
        skip_blanks(r);
        if (!read_value(r, member) || !next_or_close(r, '}', &more)) {
            return false;
        }
    }
    return true;
}

static bool read_object(reader *r, cJSON *object) {
    key_set keys = {0};
    object->type |= cJSON_Object;
    bool good = enter(r) && read_members(r, object, &keys);
    map_free(keys.many);
    return good;
}

static bool read_string(reader *r, cJSON *out) {
    literal s;
    r->at++;
    if (!find_string(r, &s)) {
        return false;
    }
    out->type |= cJSON_String;
    out->valuestring = copy_string(r, &s);
    return out->valuestring != NULL;
}

static bool read_word(reader *r, const char *word, int type, cJSON *out) {
    size_t n = strlen(word);
    if (left(r) < n || memcmp(r->at, word, n) != 0) {
        return unexpected(r);
    }
    r->at += n;
    out->type |= type;
    out->valueint = type == cJSON_True;
    return true;
}

/* `out` is zero but for its key. Recursion is bounded by max_depth. */
static bool read_value(reader *r, cJSON *out) {
    if (r->at == r->end) {
        return unexpected(r);
    }
    switch (*r->at) {
    case '"':
        return read_string(r, out);
    case '{':
        return read_object(r, out);
    case '[':
        return read_array(r, out);
    case 't':
        return read_word(r, "true", cJSON_True, out);
    case 'f':
        return read_word(r, "false", cJSON_False, out);
    case 'n':
        return read_word(r, "null", cJSON_NULL, out);
    default:
        return *r->at == '-' || (*r->at >= '0' && *r->at <= '9') ? read_number(r, out) : unexpected(r);
    }
}

cJSON *json_parse(const char *text, size_t n, int max_depth, err *e) {
    size_t bad;
    if (n == 0) {
        err_set(e, ERR_INVALID, "not JSON: the text is empty");
        return NULL;
    }
    if (!utf8_valid(text, n, &bad)) {
        err_set(e, ERR_INVALID, "not JSON: byte %zu is not UTF-8", bad);
        return NULL;
    }
    reader r = {.text = text, .at = text, .end = text + n, .max_depth = max_depth, .e = e};
    cJSON *root = new_node(e);
    if (!root) {
        return NULL;
    }
    skip_blanks(&r);
    bool good = read_value(&r, root);
    skip_blanks(&r);
    if (!good || (r.at < r.end && !unexpected(&r))) {
        cJSON_Delete(root);
        return NULL;
    }
    return root;
}
