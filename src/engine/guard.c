#include "engine/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "base/utf8.h"

#define MARK_BYTES 3 /* U+FDD0 .. U+FDEF: EF B7 90 .. EF B7 AF */

typedef struct control { /* the text of a control token */
    const char *text;
    size_t      len;
} control;

struct guard {
    const tokenizer *t;
    control         *controls; /* by first byte, the longest first */
    int              first[257];
    int              count;
    size_t           longest;
    bool             inside[256][256]; /* these two bytes follow each other in some text, not at its beginning */
};

static int by_first_byte(const void *a, const void *b) {
    const control *x = a, *y = b;
    int            order = (int)(unsigned char)x->text[0] - (int)(unsigned char)y->text[0];
    return order ? order : (x->len < y->len) - (x->len > y->len);
}

static bool is_control(const tokenizer *t, int id) {
    token_kind  kind = tokenizer_kind(t, id);
    const char *text = tokenizer_text(t, id);
    return (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN) && text && *text;
}

static void index_controls(guard *g) {
    qsort(g->controls, (size_t)g->count, sizeof(*g->controls), by_first_byte);
    int at = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (at < g->count && (unsigned char)g->controls[at].text[0] < byte) {
            at++;
        }
        g->first[byte] = at;
    }
    for (int i = 0; i < g->count; i++) {
        const control *c = &g->controls[i];
        g->longest = c->len > g->longest ? c->len : g->longest;
        for (size_t k = 1; k < c->len; k++) {
            unsigned char one = (unsigned char)c->text[k];
            unsigned char two = (unsigned char)c->text[k + 1]; /* the NUL: only the last byte is shared */
            g->inside[one][two] = true;
        }
    }
}

guard *guard_open(const tokenizer *t, err *e) {
    guard *g = calloc(1, sizeof(*g));
    int    vocab = tokenizer_vocab(t), count = 0;
    for (int id = 0; id < vocab; id++) {
        count += is_control(t, id);
    }
    control *controls = g ? calloc((size_t)count + 1, sizeof(*controls)) : NULL;
    if (!controls) {
        free(g);
        err_set(e, ERR_MEMORY, "out of memory for a model's control tokens");
        return NULL;
    }
    g->t = t;
    g->controls = controls;
    for (int id = 0; id < vocab; id++) {
        if (is_control(t, id)) {
            const char *text = tokenizer_text(t, id);
            controls[g->count++] = (control){text, strlen(text)};
        }
    }
    index_controls(g);
    return g;
}

void guard_close(guard *g) {
    if (g) {
        free(g->controls);
        free(g);
    }
}

/* ---- where a mark is due ---- */

/* The length of the longest control text that begins at s; 0: none. */
static size_t match(const guard *g, const char *s, size_t n) {
    unsigned char byte = (unsigned char)s[0];
    for (int i = g->first[byte]; i < g->first[byte + 1]; i++) {
        if (g->controls[i].len <= n && memcmp(g->controls[i].text, s, g->controls[i].len) == 0) {
            return g->controls[i].len;
        }
    }
    return 0;
}

/* Whether all of s is the beginning of a longer control text, which the template might complete. */
static bool may_go_on(const guard *g, const char *s, size_t n) {
    unsigned char byte = (unsigned char)s[0];
    for (int i = g->first[byte]; n < g->longest && i < g->first[byte + 1]; i++) {
        if (g->controls[i].len > n && memcmp(g->controls[i].text, s, n) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether the beginning of s could be the end or the middle of a control text that the template has begun. */
static bool may_come_after(const guard *g, const char *s, size_t n) {
    unsigned char one = (unsigned char)s[0];
    if (!g->inside[one][0] && !(n > 1 && g->inside[one][(unsigned char)s[1]]) && n > 1) {
        return false;
    }
    for (int i = 0; i < g->count; i++) {
        const control *c = &g->controls[i];
        for (size_t k = 1; k < c->len; k++) {
            size_t shared = c->len - k < n ? c->len - k : n;
            if (memcmp(c->text + k, s, shared) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* A client's string, and what is left of it when a template trims it. */
typedef struct client_text {
    const char *bytes;
    size_t      n, first, last; /* trimmed: [first, last) */
    bool        edges;          /* other text may stand right beside it */
} client_text;

static client_text client_text_of(const char *bytes, bool edges) {
    client_text s = {.bytes = bytes, .n = strlen(bytes), .edges = edges};
    s.first = strspn(bytes, " \t\r\n\f\v");
    s.last = s.n;
    while (s.last > s.first && strchr(" \t\r\n\f\v", bytes[s.last - 1])) {
        s.last--;
    }
    return s;
}

static bool due(const guard *g, const client_text *s, size_t at) {
    const char *from = s->bytes + at;
    size_t      n = s->n - at;
    if ((*from & 0xC0) == 0x80) {
        return false; /* inside a character */
    }
    if (match(g, from, n)) {
        return true;
    }
    size_t trimmed = at < s->last ? s->last - at : n;
    return s->edges && (may_go_on(g, from, n) || may_go_on(g, from, trimmed) ||
                        ((at == 0 || at == s->first) && may_come_after(g, from, trimmed)));
}

/* A marked copy in *out; false when nothing is due (then *out is empty). */
static bool put_marks(const guard *g, const guard_mark *m, const client_text *s, str *out) {
    size_t copied = 0;
    bool   any = false;
    for (size_t at = 0; at < s->n; at++) {
        if (due(g, s, at)) {
            str_add(out, s->bytes + copied, at - copied);
            str_add(out, m->bytes, MARK_BYTES);
            copied = at;
            any = true;
        }
    }
    if (any) {
        str_add(out, s->bytes + copied, s->n - copied);
    }
    return any;
}

/* ---- trees ---- */

static void look(guard_mark *m, const char *s) {
    while (s && (s = strstr(s, "\xef\xb7"))) {
        unsigned char last = (unsigned char)s[2];
        if (last >= 0x90 && last <= 0xAF) {
            m->used |= 1u << (last - 0x90);
        }
        s += 2;
    }
}

void guard_look(guard_mark *m, const cJSON *tree) {
    for (const cJSON *child = tree ? tree->child : NULL; child; child = child->next) {
        look(m, child->string);
        look(m, child->valuestring);
        guard_look(m, child);
    }
}

bool guard_choose(guard_mark *m, err *e) {
    for (int i = 0; i < 32; i++) {
        if (!(m->used & 1u << i)) {
            m->bytes[0] = '\xef';
            m->bytes[1] = '\xb7';
            m->bytes[2] = (char)(0x90 + i);
            m->bytes[3] = 0;
            return true;
        }
    }
    return err_set(e, ERR_INVALID,
                   "the messages hold all of the noncharacters U+FDD0 to U+FDEF; leave one of them out");
}

/* `constant`: the old text is not the tree's to free. */
static bool guard_string(const guard *g, const guard_mark *m, char **slot, bool constant, bool edges, err *e) {
    str marked = {0};
    if (!*slot) {
        return true;
    }
    client_text s = client_text_of(*slot, edges);
    if (!put_marks(g, m, &s, &marked)) {
        return true;
    }
    char *copy = marked.failed ? NULL : cJSON_malloc(marked.len + 1); /* the tree's memory is cJSON's */
    if (copy) {
        memcpy(copy, marked.data, marked.len + 1);
        if (!constant) {
            cJSON_free(*slot);
        }
        *slot = copy;
    }
    str_free(&marked);
    return copy || err_set(e, ERR_MEMORY, "out of memory for the messages");
}

/* Templates compare these, so only whole control texts are broken up in them. */
static bool is_keyword(const cJSON *member) {
    return member->string && (strcmp(member->string, "role") == 0 || strcmp(member->string, "type") == 0);
}

/* A key that json_parse did not copy becomes one of the tree's own. */
static bool guard_key(const guard *g, const guard_mark *m, cJSON *member, err *e) {
    const char *was = member->string;
    bool        constant = member->type & cJSON_StringIsConst;
    bool        good = guard_string(g, m, &member->string, constant, false, e);
    if (constant && member->string != was) {
        member->type &= ~cJSON_StringIsConst;
    }
    return good;
}

bool guard_tree(const guard *g, const guard_mark *m, cJSON *tree, err *e) {
    for (cJSON *child = tree ? tree->child : NULL; child; child = child->next) {
        bool edges = !is_keyword(child);
        if (!guard_string(g, m, &child->valuestring, false, edges, e) || !guard_key(g, m, child, e) ||
            !guard_tree(g, m, child, e)) {
            return false;
        }
    }
    return true;
}

/* ---- after rendering ---- */

typedef struct scan {
    const guard      *g;
    const guard_mark *m;
    const char       *text;
    size_t            trusted; /* where the part begins that the tokenizer may read with control tokens */
    size_t            run;     /* where the text since the last control token begins */
    bool              marked;  /* that text holds marks */
    token_ids        *out;
} scan;

static bool encode(const scan *s, const char *text, size_t n, bool control_tokens, err *e) {
    encode_options o = {.parse_special = control_tokens};
    return n == 0 || tokenizer_encode(s->g->t, text, n, o, s->out, e);
}

/* One character of a control token's text as ordinary tokens: its own, or those of its bytes. */
static bool add_character(const scan *s, const char *c, size_t n, token_ids *out) {
    int32_t id = tokenizer_find(s->g->t, c, n);
    if (id >= 0 && tokenizer_kind(s->g->t, id) == TOKEN_NORMAL) {
        return token_ids_add(out, id);
    }
    for (size_t i = 0; i < n; i++) {
        char name[8];
        int  len = snprintf(name, sizeof(name), "<0x%02X>", (unsigned char)c[i]);
        id = tokenizer_find(s->g->t, name, (size_t)len);
        if (id < 0 || tokenizer_kind(s->g->t, id) != TOKEN_BYTE || !token_ids_add(out, id)) {
            return false;
        }
    }
    return true;
}

/* Merges know nothing of kinds: "</" and "s>" can meet in EOS (SPM) though no special tokens were asked for. Such a
 * token is taken apart into its characters. `from`: where the ids of the run begin in *s->out. */
static bool take_control_tokens_apart(const scan *s, size_t from, err *e) {
    token_ids *out = s->out, apart = {0};
    size_t     i = from;
    while (i < out->count && tokenizer_kind(s->g->t, out->ids[i]) != TOKEN_CONTROL) {
        i++;
    }
    if (i == out->count) {
        return true;
    }
    bool ok = true;
    for (i = from; ok && i < out->count; i++) {
        if (tokenizer_kind(s->g->t, out->ids[i]) != TOKEN_CONTROL) {
            ok = token_ids_add(&apart, out->ids[i]);
            continue;
        }
        const char *text = tokenizer_text(s->g->t, out->ids[i]);
        for (size_t n; ok && *text; text += n) {
            uint32_t cp;
            n = utf8_decode(text, strlen(text), &cp);
            ok = add_character(s, text, n, &apart);
        }
    }
    out->count = from;
    for (i = 0; ok && i < apart.count; i++) {
        ok = token_ids_add(out, apart.ids[i]);
    }
    token_ids_free(&apart);
    return ok || err_set(e, ERR_INVALID,
                         "the messages hold the text of a control token that this model cannot read as "
                         "plain text; leave it out");
}

/* Ends a run at `at`. Only a run with marks is encoded apart, so that a prompt without any goes through the tokenizer
 * in one piece. */
static bool end_run(scan *s, size_t at, err *e) {
    if (!s->marked) {
        return true;
    }
    if (!encode(s, s->text + s->trusted, s->run - s->trusted, true, e)) {
        return false;
    }
    str         plain = {0};
    const char *from = s->text + s->run, *end = s->text + at;
    while (from < end) {
        const char *mark = memmem(from, (size_t)(end - from), s->m->bytes, MARK_BYTES);
        str_add(&plain, from, (size_t)((mark ? mark : end) - from));
        from = mark ? mark + MARK_BYTES : end;
    }
    size_t before = s->out->count;
    bool   ok = plain.failed ? err_set(e, ERR_MEMORY, "out of memory for a prompt")
                             : encode(s, plain.data, plain.len, false, e) && take_control_tokens_apart(s, before, e);
    str_free(&plain);
    s->trusted = at;
    s->marked = false;
    return ok;
}

bool guard_encode(const guard *g, const guard_mark *m, const char *text, size_t n, token_ids *out, err *e) {
    scan s = {.g = g, .m = m, .text = text, .out = out};
    for (size_t at = 0; at < n;) {
        if (n - at > MARK_BYTES && memcmp(text + at, m->bytes, MARK_BYTES) == 0) {
            s.marked = true;
            at += MARK_BYTES + 1; /* what follows the mark begins no control token */
            continue;
        }
        size_t len = match(g, text + at, n - at);
        if (len == 0) {
            at++;
            continue;
        }
        if (!end_run(&s, at, e)) {
            return false;
        }
        at += len;
        s.run = at;
    }
    return end_run(&s, n, e) && encode(&s, text + s.trusted, n - s.trusted, true, e);
}
