#include "model/template/lex.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/template/text.h"

typedef struct lexer {
    const char *source;
    size_t      n;
    size_t      at;
    int         line;
    size_t      line_at; /* how far `line` is counted */
    token      *tokens;
    size_t      count;
    size_t      cap;
    err        *e;
} lexer;

size_t jinja_normalise(const char *source, size_t n, char *out) {
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            out[w++] = '\n';
            i += i + 1 < n && source[i + 1] == '\n';
        } else {
            out[w++] = source[i];
        }
    }
    return w > 0 && out[w - 1] == '\n' ? w - 1 : w;
}

static int line_of(lexer *x, size_t at) {
    for (; x->line_at < at; x->line_at++) {
        x->line += x->source[x->line_at] == '\n';
    }
    return x->line;
}

static bool wrong(lexer *x, size_t at, const char *what) {
    return err_set(x->e, ERR_INVALID, "chat template, line %d: %s", line_of(x, at), what);
}

static bool push(lexer *x, token_kind kind, size_t at, size_t n) {
    if (x->count == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 256;
        token *grown = cap > SIZE_MAX / sizeof(token) ? NULL : realloc(x->tokens, cap * sizeof(token));
        if (!grown) {
            return err_set(x->e, ERR_MEMORY, "out of memory while reading the chat template");
        }
        x->tokens = grown;
        x->cap = cap;
    }
    x->tokens[x->count++] = (token){.kind = (uint8_t)kind, .line = line_of(x, at), .at = x->source + at, .n = n};
    return true;
}

static bool here(const lexer *x, size_t at, const char *text) {
    size_t n = strlen(text);
    return at <= x->n && x->n - at >= n && memcmp(x->source + at, text, n) == 0;
}

static size_t skip_space(const lexer *x, size_t at) {
    for (size_t n; at < x->n && (n = jinja_space(x->source + at, x->n - at)) > 0;) {
        at += n;
    }
    return at;
}

static bool one_of(const char *set, char c) {
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) || (unsigned char)c >= 0x80;
}

/* The data before a tag, without the blanks that the tag takes: all of them with "-", those that begin its line with
 * lstrip_blocks (which "+" and variables turn off). */
static bool push_data(lexer *x, size_t from, size_t to, char sign, bool variable) {
    if (sign == '-') {
        for (size_t n; to > from && (n = jinja_space_before(x->source + from, to - from)) > 0;) {
            to -= n;
        }
    } else if (sign != '+' && !variable) {
        size_t line = to;
        while (line > from && x->source[line - 1] != '\n') {
            line--;
        }
        bool begins_line = line > from || from == 0 || x->source[from - 1] == '\n';
        if (begins_line && skip_space(x, line) >= to) {
            to = line;
        }
    }
    return to == from || push(x, T_DATA, from, to - from);
}

/* After "%}", "#}" and their like: eats the newline of trim_blocks, or all blanks after "-". */
static void end_tag(lexer *x, size_t at, char sign) {
    x->at = at + 2;
    if (sign == '-') {
        x->at = skip_space(x, x->at);
    } else if (sign != '+' && here(x, x->at, "\n")) {
        x->at++;
    }
}

static bool comment(lexer *x, size_t open) {
    size_t at = x->at;
    while (!here(x, at, "#}")) {
        if (at >= x->n) {
            return wrong(x, open, "this comment has no end (#})");
        }
        at++;
    }
    end_tag(x, at, at > x->at ? x->source[at - 1] : 0);
    return true;
}

/* "{% raw %}" at `open`? Leaves x->at behind it. */
static bool begins_raw(lexer *x, size_t open) {
    size_t at = open + 2;
    at += here(x, at, "-") || here(x, at, "+");
    at = skip_space(x, at);
    if (!here(x, at, "raw")) {
        return false;
    }
    at = skip_space(x, at + 3);
    if (here(x, at, "-%}")) {
        x->at = skip_space(x, at + 3);
        return true;
    }
    if (here(x, at, "%}")) {
        x->at = at + 2;
        return true;
    }
    return false;
}

static bool raw(lexer *x, size_t open) {
    size_t from = x->at;
    for (size_t end = from; end < x->n; end++) {
        if (!here(x, end, "{%")) {
            continue;
        }
        char   sign = end + 2 < x->n ? x->source[end + 2] : 0;
        bool   signed_ = sign == '-' || sign == '+';
        size_t at = skip_space(x, end + 2 + signed_);
        if (!here(x, at, "endraw")) {
            continue;
        }
        at = skip_space(x, at + 6);
        char close = here(x, at, "-%}") ? '-' : here(x, at, "+%}") ? '+' : 0;
        at += close != 0;
        if (here(x, at, "%}")) {
            if (!push_data(x, from, end, signed_ ? sign : 0, false)) {
                return false;
            }
            end_tag(x, at, close);
            return true;
        }
    }
    return wrong(x, open, "{% raw %} has no {% endraw %}");
}

static bool string(lexer *x) {
    char quote = x->source[x->at];
    for (size_t i = x->at + 1; i < x->n; i++) {
        if (x->source[i] == '\\') {
            i++;
        } else if (x->source[i] == quote) {
            size_t from = x->at;
            x->at = i + 1;
            return push(x, T_STRING, from, i + 1 - from);
        }
    }
    return wrong(x, x->at, "this string has no closing quote");
}

static size_t digits(const lexer *x, size_t at) {
    while (at < x->n &&
           (is_digit(x->source[at]) || (x->source[at] == '_' && at + 1 < x->n && is_digit(x->source[at + 1])))) {
        at++;
    }
    return at;
}

static bool number(lexer *x) {
    size_t     from = x->at;
    token_kind kind = T_INTEGER;
    size_t     at;
    if (x->source[from] == '0' && from + 1 < x->n && one_of("xXoObB", x->source[from + 1])) {
        for (at = from + 2; at < x->n && is_name(x->source[at]); at++) {
        }
    } else {
        at = digits(x, from);
        if (from == 0 || x->source[from - 1] != '.') { /* a.1.2 is two items, not a float */
            if (here(x, at, ".") && at + 1 < x->n && is_digit(x->source[at + 1])) {
                at = digits(x, at + 1);
                kind = T_FLOAT;
            }
            if (here(x, at, "e") || here(x, at, "E")) {
                size_t power = at + 1;
                power += here(x, power, "+") || here(x, power, "-");
                if (power < x->n && is_digit(x->source[power])) {
                    at = digits(x, power);
                    kind = T_FLOAT;
                }
            }
        }
    }
    x->at = at;
    return push(x, kind, from, at - from);
}

static bool operator_token(lexer *x, char *open, int *depth, int max_depth) {
    static const char two[][3] = {"==", "!=", ">=", "<=", "//", "**"};
    char              c = x->source[x->at];
    if (!one_of("+-*/%~[](){}><=.:|,;", c) && !here(x, x->at, "!=")) {
        return wrong(x, x->at, "a character that no expression takes (a stray quote or brace?)");
    }
    if (c == '(' || c == '[' || c == '{') {
        if (*depth == max_depth) {
            return wrong(x, x->at, "brackets nest too deep");
        }
        open[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (*depth == 0 || open[--*depth] != c) {
            return wrong(x, x->at, "a closing bracket without its opening one");
        }
    }
    size_t n = 1;
    for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++) {
        n = here(x, x->at, two[i]) ? 2 : n;
    }
    if (!push(x, T_OPERATOR, x->at, n)) {
        return false;
    }
    memcpy(x->tokens[x->count - 1].op, x->source + x->at, n);
    x->at += n;
    return true;
}

/* The tokens between "{%" or "{{" and its end. An end mark inside brackets is none: {{ {'a': {}} }}. */
static bool expression(lexer *x, size_t begin, bool variable) {
    const char *end = variable ? "}}" : "%}";
    char        open[256];
    int         depth = 0;
    int         line = line_of(x, begin);
    while (x->at < x->n) {
        size_t space = jinja_space(x->source + x->at, x->n - x->at);
        char   c = x->source[x->at];
        if (space) {
            x->at += space;
            continue;
        }
        if (depth == 0) {
            bool   with_sign = (c == '-' || (c == '+' && !variable)) && here(x, x->at + 1, end);
            size_t at = x->at + with_sign;
            if (here(x, at, end)) {
                char sign = with_sign ? c : variable ? '+' : 0; /* variables do not trim a newline */
                if (!push(x, variable ? T_VARIABLE_END : T_BLOCK_END, at, 2)) {
                    return false;
                }
                end_tag(x, at, sign);
                return true;
            }
        }
        bool ok;
        if (is_digit(c)) {
            ok = number(x);
        } else if (is_name(c)) {
            size_t from = x->at;
            while (x->at < x->n && is_name(x->source[x->at]) && !jinja_space(x->source + x->at, x->n - x->at)) {
                x->at++;
            }
            ok = push(x, T_NAME, from, x->at - from);
        } else if (c == '\'' || c == '"') {
            ok = string(x);
        } else {
            ok = operator_token(x, open, &depth, (int)sizeof(open));
        }
        if (!ok) {
            return false;
        }
    }
    return err_set(x->e, ERR_INVALID, "chat template, line %d: this %s has no %s", line, variable ? "{{" : "{%", end);
}

static bool tag(lexer *x, size_t from, size_t open) {
    char kind = x->source[open + 1];
    char sign = open + 2 < x->n ? x->source[open + 2] : 0;
    if (sign != '-' && sign != '+') {
        sign = 0;
    }
    if (!push_data(x, from, open, sign, kind == '{')) {
        return false;
    }
    if (kind == '%' && begins_raw(x, open)) {
        return raw(x, open);
    }
    x->at = open + 2 + (sign != 0);
    if (kind == '#') {
        return comment(x, open);
    }
    return push(x, kind == '{' ? T_VARIABLE_BEGIN : T_BLOCK_BEGIN, open, 2) && expression(x, open, kind == '{');
}

bool jinja_lex(const char *source, size_t n, token **tokens, err *e) {
    lexer x = {.source = source, .n = n, .line = 1, .e = e};
    bool  ok = true;
    while (ok && x.at < n) {
        size_t from = x.at;
        size_t open = from;
        while (open < n && !(source[open] == '{' && open + 1 < n && one_of("{%#", source[open + 1]))) {
            open++;
        }
        if (open == n) {
            ok = push(&x, T_DATA, from, n - from);
            break;
        }
        ok = tag(&x, from, open);
    }
    if (!ok || !push(&x, T_EOF, n, 0)) {
        free(x.tokens);
        return false;
    }
    *tokens = x.tokens;
    return true;
}
