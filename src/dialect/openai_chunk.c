/* openai_chunk.c - the ordinary chunk of a chat stream, read where it lies and without a tree.
 *
 * Most chunks carry a few letters of one answer. Their JSON is walked once, as strictly as json_parse does, and what the
 * neutral event needs is taken on the way. Whatever is more than that (tools, log probabilities, usage, several answers,
 * an error, an escape by number, or what is no JSON) is left to the reader with the tree, which must say the same of all
 * that is read here; tests/dialect/test_chunk.c compares the two.                                                      */
#include <string.h>

#include "base/utf8.h"
#include "dialect/openai.h"

#define MAX_BYTES   16384
#define MAX_DEPTH   8
#define MAX_MEMBERS 16 /* of one object: each key is compared with those before it */
#define MAX_DIGITS  15 /* a number of so many is exact as a double */
#define MAX_NAME    127
#define MAX_TEXT    1024 /* of texts with escapes, in all */

typedef struct piece { /* of the payload */
    const char *at;
    size_t      n;
} piece;

typedef struct walk {
    const char *at, *end;
    int         depth;
    event       ev;
    char        id[MAX_NAME + 1], model[MAX_NAME + 1], finish[24];
    char        text[MAX_TEXT]; /* without their escapes */
    size_t      text_n;
} walk;

typedef struct members { /* of the object that is being walked */
    piece keys[MAX_MEMBERS];
    int   n;
} members;

typedef enum step { ODD, MEMBER, END } step;

static void skip_blanks(walk *w) {
    while (w->at < w->end && *w->at == ' ') {
        w->at++;
    }
}

static bool take(walk *w, char c) {
    bool there = w->at < w->end && *w->at == c;
    w->at += there;
    return there;
}

static bool next_is(const walk *w, char c) {
    return w->at < w->end && *w->at == c;
}

static bool is(const piece *p, const char *name) {
    return p->n == strlen(name) && memcmp(p->at, name, p->n) == 0;
}

/* ---- values ---- */

static bool take_word(walk *w, const char *word) {
    size_t n = strlen(word);
    bool   there = (size_t)(w->end - w->at) >= n && memcmp(w->at, word, n) == 0;
    w->at += there ? n : 0;
    return there;
}

/* A string without escapes; keys and names have none. */
static bool take_plain(walk *w, piece *out) {
    if (!take(w, '"')) {
        return false;
    }
    *out = (piece){w->at, str_json_plain(w->at, (size_t)(w->end - w->at))};
    w->at += out->n;
    return take(w, '"');
}

/* What a backslash and this letter stand for; 0: not read here. */
static char escaped(char c) {
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    default:
        return 0;
    }
}

/* A string with the escapes of one letter: in place where it has none, else as it reads, in w->text. */
static bool take_text(walk *w, piece *out) {
    if (!take(w, '"')) {
        return false;
    }
    *out = (piece){w->at, str_json_plain(w->at, (size_t)(w->end - w->at))};
    w->at += out->n;
    if (take(w, '"')) {
        return true;
    }
    char *from = w->text + w->text_n, *to = from, *full = w->text + sizeof w->text;
    for (piece part = *out;;) {
        if (part.n >= (size_t)(full - to) || w->end - w->at < 2) {
            return false;
        }
        memcpy(to, part.at, part.n);
        to += part.n;
        if (take(w, '"')) {
            break;
        }
        char c = *w->at == '\\' ? escaped(w->at[1]) : 0;
        if (!c) {
            return false;
        }
        *to++ = c;
        w->at += 2;
        part = (piece){w->at, str_json_plain(w->at, (size_t)(w->end - w->at))};
        w->at += part.n;
    }
    w->text_n = (size_t)(to - w->text);
    *out = (piece){from, (size_t)(to - from)};
    return true;
}

static size_t take_digits(walk *w) {
    const char *from = w->at;
    while (w->at < w->end && *w->at >= '0' && *w->at <= '9') {
        w->at++;
    }
    return (size_t)(w->at - from);
}

/* A whole number that is not negative. */
static bool take_count(walk *w, int64_t *out) {
    const char *from = w->at;
    size_t      n = take_digits(w);
    *out = 0;
    for (size_t i = 0; i < n && n <= MAX_DIGITS; i++) {
        *out = *out * 10 + (from[i] - '0');
    }
    return n > 0 && n <= MAX_DIGITS && (n == 1 || *from != '0') && !next_is(w, '.') && !next_is(w, 'e') &&
           !next_is(w, 'E');
}

static bool skip_number(walk *w) {
    take(w, '-');
    const char *from = w->at;
    size_t      n = take_digits(w);
    bool        good = n > 0 && n <= MAX_DIGITS && (n == 1 || *from != '0');
    if (good && take(w, '.')) {
        n = take_digits(w);
        good = n > 0 && n <= MAX_DIGITS;
    }
    return good && !next_is(w, 'e') && !next_is(w, 'E');
}

/* ---- objects ---- */

/* Goes to the value of the next member. w->at is behind the brace or behind the value before. */
static step next_member(walk *w, members *m, piece *key) {
    skip_blanks(w);
    if (take(w, '}')) {
        return END;
    }
    if (m->n > 0) {
        if (!take(w, ',')) {
            return ODD;
        }
        skip_blanks(w);
    }
    if (m->n == MAX_MEMBERS || !take_plain(w, key)) {
        return ODD;
    }
    for (int i = 0; i < m->n; i++) {
        if (m->keys[i].n == key->n && memcmp(m->keys[i].at, key->at, key->n) == 0) {
            return ODD;
        }
    }
    m->keys[m->n++] = *key;
    skip_blanks(w);
    if (!take(w, ':')) {
        return ODD;
    }
    skip_blanks(w);
    return MEMBER;
}

static bool skip_value(walk *w);

static bool skip_object(walk *w) {
    members m;
    piece   key;
    step    s;
    m.n = 0;
    while ((s = next_member(w, &m, &key)) == MEMBER) {
        if (!skip_value(w)) {
            return false;
        }
    }
    return s == END;
}

static bool skip_array(walk *w) {
    skip_blanks(w);
    if (take(w, ']')) {
        return true;
    }
    do {
        skip_blanks(w);
        if (!skip_value(w)) {
            return false;
        }
        skip_blanks(w);
    } while (take(w, ','));
    return take(w, ']');
}

static bool skip_value(walk *w) {
    piece text;
    bool  good;
    switch (w->at < w->end ? *w->at : '\0') {
    case '"':
        return take_plain(w, &text);
    case 'n':
        return take_word(w, "null");
    case 't':
        return take_word(w, "true");
    case 'f':
        return take_word(w, "false");
    case '{':
    case '[':
        if (w->depth == MAX_DEPTH) {
            return false;
        }
        w->depth++;
        good = *w->at++ == '{' ? skip_object(w) : skip_array(w);
        w->depth--;
        return good;
    default:
        return skip_number(w);
    }
}

/* ---- what an event needs ---- */

/* A string as a C string, or null. */
static bool take_name(walk *w, char *room, size_t size, const char **out) {
    piece p;
    if (!next_is(w, '"')) {
        return take_word(w, "null");
    }
    if (!take_plain(w, &p) || p.n >= size) {
        return false;
    }
    memcpy(room, p.at, p.n);
    room[p.n] = '\0';
    *out = room;
    return true;
}

/* A string, or null. */
static bool take_words(walk *w, const char **out, size_t *n) {
    piece p;
    if (!next_is(w, '"')) {
        return take_word(w, "null");
    }
    if (!take_text(w, &p)) {
        return false;
    }
    *out = p.at;
    *n = p.n;
    return true;
}

static bool read_delta(walk *w) {
    members     m;
    piece       key;
    step        s;
    event      *ev = &w->ev;
    const char *otherwise = NULL; /* "reasoning", where there is no "reasoning_content" */
    size_t      otherwise_n = 0;
    m.n = 0;
    while ((s = next_member(w, &m, &key)) == MEMBER) {
        bool good = is(&key, "content")               ? take_words(w, &ev->text, &ev->text_len)
                    : is(&key, "reasoning_content")   ? take_words(w, &ev->reasoning, &ev->reasoning_len)
                    : is(&key, "reasoning")           ? take_words(w, &otherwise, &otherwise_n)
                    : is(&key, "refusal")             ? take_words(w, &ev->refusal, &ev->refusal_len)
                    : is(&key, "tool_calls")          ? take_word(w, "null")
                    : is(&key, "reasoning_signature") ? take_word(w, "null")
                                                      : skip_value(w);
        if (!good) {
            return false;
        }
    }
    if (!ev->reasoning) {
        ev->reasoning = otherwise;
        ev->reasoning_len = otherwise_n;
    }
    return s == END;
}

static bool read_index(walk *w) {
    int64_t index;
    bool    good = take_count(w, &index) && index < OPENAI_MAX_CHOICES;
    w->ev.choice = good ? (int)index : 0;
    return good;
}

static bool read_choice(walk *w) {
    members m;
    piece   key;
    step    s;
    m.n = 0;
    while ((s = next_member(w, &m, &key)) == MEMBER) {
        bool good = is(&key, "index")           ? read_index(w)
                    : is(&key, "delta")         ? take(w, '{') && read_delta(w)
                    : is(&key, "finish_reason") ? take_name(w, w->finish, sizeof w->finish, &w->ev.finish)
                    : is(&key, "logprobs")      ? take_word(w, "null")
                                                : skip_value(w);
        if (!good) {
            return false;
        }
    }
    if (w->ev.finish && !w->ev.finish[0]) {
        w->ev.finish = NULL;
    }
    return s == END;
}

/* One choice. Where there is none the payload has its meaning elsewhere. */
static bool read_choices(walk *w) {
    if (!take(w, '[')) {
        return false;
    }
    skip_blanks(w);
    if (!take(w, '{') || !read_choice(w)) {
        return false;
    }
    skip_blanks(w);
    return take(w, ']');
}

static bool read_root(walk *w) {
    members m;
    piece   key;
    step    s;
    bool    has_choices = false;
    m.n = 0;
    while ((s = next_member(w, &m, &key)) == MEMBER) {
        bool choices = is(&key, "choices");
        bool good = choices               ? read_choices(w)
                    : is(&key, "id")      ? take_name(w, w->id, sizeof w->id, &w->ev.id)
                    : is(&key, "model")   ? take_name(w, w->model, sizeof w->model, &w->ev.model)
                    : is(&key, "created") ? take_count(w, &w->ev.created)
                    : is(&key, "usage")   ? take_word(w, "null")
                    : is(&key, "error")   ? take_word(w, "null")
                                          : skip_value(w);
        if (!good) {
            return false;
        }
        has_choices = has_choices || choices;
    }
    return s == END && has_choices;
}

bool openai_read_ordinary(const char *data, size_t n, void (*emit)(void *, const event *), void *ctx) {
    walk w; /* its rooms are large and are written before they are read */
    if (n > MAX_BYTES || !utf8_valid(data, n, NULL)) {
        return false;
    }
    w.at = data;
    w.end = data + n;
    w.depth = 0;
    w.text_n = 0;
    w.ev = (event){.kind = EVENT_DELTA, .raw = data, .raw_len = n, .raw_dialect = &dialect_openai};
    if (!take(&w, '{') || !read_root(&w)) {
        return false;
    }
    skip_blanks(&w);
    if (w.at < w.end) {
        return false;
    }
    emit(ctx, &w.ev);
    return true;
}
