/* speech.c - text, reasoning and calls, told apart byte by byte.
 *
 * Every byte goes through one step of a small machine, so pieces may be cut anywhere.                                                                           */
#include "dialect/speech.h"

#include <stdlib.h>
#include <string.h>

#include "dialect/speech_parts.h"

static void feed(speech *s, char c);

/* ---- what is told ---- */

void speech_flush(speech *s) {
    if (s->out.len > 0 && !s->out.failed) {
        speech_delta d = {.kind = s->out_kind, .text = s->out.data, .len = s->out.len, .index = s->n_calls - 1};
        s->o.tell(s->o.ctx, &d);
    }
    s->failed = s->failed || s->out.failed;
    str_clear(&s->out);
}

void speech_out(speech *s, speech_kind kind, const char *bytes, size_t n) {
    if (s->out_kind != kind) {
        speech_flush(s);
        s->out_kind = kind;
    }
    str_add(&s->out, bytes, n);
}

static void tell_blank(speech *s, speech_kind kind) {
    if (s->blank.len > 0) {
        speech_out(s, kind, s->blank.data, s->blank.len);
        str_clear(&s->blank);
    }
}

/* Blanks wait: at the end of reasoning, and before a call, they are dropped. */
static void say(speech *s, speech_kind kind, char c) {
    if (is_blank(c)) {
        if (!s->skip) {
            str_addc(&s->blank, c);
        }
        return;
    }
    tell_blank(s, kind);
    speech_out(s, kind, &c, 1);
    s->skip = false;
    s->after_call = false;
    s->said = s->said || kind == SPEECH_TEXT;
}

/* ---- calls ---- */

static void open_call(speech *s, const char *mark, bool unmarked) {
    speech_call *c = &s->call;
    str_clear(&c->raw);
    str_add(&c->raw, s->blank.data ? s->blank.data : "", s->blank.len);
    str_adds(&c->raw, mark);
    str_clear(&s->blank);
    s->unmarked = unmarked;
    s->state = IN_OPENING;
    if (s->f.calls->shape == SHAPE_NAMED || s->f.calls->shape == SHAPE_PARAMS) {
        call_begin(s, s->f.calls->shape);
        s->state = IN_CALL;
        /* <function=name> without <tool_call> around it */
        for (const char *at = mark; s->f.calls->shape == SHAPE_PARAMS && mark == s->f.calls->open[1] && *at; at++) {
            call_byte(s, *at);
        }
    }
}

/* It was no call: what was held of it is text, and so is what follows. */
static void give_up(speech *s, const char *now, size_t n) {
    speech_call *c = &s->call;
    if (c->raw.len > 0) {
        speech_out(s, SPEECH_TEXT, c->raw.data, c->raw.len);
        s->said = true;
    }
    str_clear(&c->raw);
    s->state = IN_TEXT;
    s->after_call = s->skip = false;
    for (size_t i = 0; i < n; i++) {
        feed(s, now[i]);
    }
}

static void step_call(speech *s, char c) {
    call_step step = call_byte(s, c);
    if (step == CALL_BAD) {
        give_up(s, &c, 1);
        return;
    }
    if (!s->call.sure) {
        str_addc(&s->call.raw, c);
    }
    if (step == CALL_DONE) {
        str_clear(&s->call.raw);
        s->after_call = s->skip = true;
        s->state = s->in_array ? IN_LIST : s->f.calls->close ? IN_CLOSING : IN_TEXT;
    }
}

static void begin_item(speech *s, speech_shape shape, char c) {
    call_begin(s, shape);
    s->state = IN_CALL;
    step_call(s, c);
}

/* Behind an opening mark: one call, or an array of calls. */
static void step_opening(speech *s, char c) {
    if (is_blank(c)) {
        str_addc(&s->call.raw, c);
    } else if (c == '[') {
        str_addc(&s->call.raw, c);
        s->in_array = true;
        s->state = IN_ITEMS;
    } else if (c == '{') {
        s->in_array = false;
        begin_item(s, SHAPE_JSON, c);
    } else if (s->f.calls->shape == SHAPE_EITHER) {
        s->in_array = false;
        begin_item(s, SHAPE_NAMED, c);
    } else {
        give_up(s, &c, 1);
    }
}

static void step_items(speech *s, char c) {
    if (is_blank(c)) {
        str_addc(&s->call.raw, c);
    } else if (c == '{') {
        begin_item(s, SHAPE_JSON, c);
    } else {
        give_up(s, &c, 1);
    }
}

static void step_list(speech *s, char c) {
    if (c == ',') {
        str_clear(&s->call.raw);
        str_addc(&s->call.raw, c);
        s->state = IN_ITEMS;
    } else if (c == ']') {
        s->in_array = false;
        s->state = s->f.calls->close ? IN_CLOSING : IN_TEXT;
    } else if (!is_blank(c)) {
        give_up(s, &c, 1);
    }
}

/* ---- marks ---- */

static void on_mark(speech *s, const speech_mark *m) {
    switch (m->what) {
    case MARK_THINK:
        str_clear(&s->blank);
        s->state = IN_THOUGHT;
        s->skip = true;
        break;
    case MARK_THOUGHT:
        str_clear(&s->blank);
        s->state = IN_TEXT;
        s->skip = true;
        break;
    case MARK_CALL:
        open_call(s, m->text, false);
        break;
    case MARK_CLOSE:
        s->state = IN_TEXT;
        break;
    case MARK_AROUND:
        if (!s->after_call) {
            str_clear(&s->blank);
        }
        break;
    }
}

/* A byte that belongs to no mark. */
static void plain(speech *s, char c) {
    if (s->state == IN_THOUGHT) {
        say(s, SPEECH_REASONING, c);
        return;
    }
    if (s->state == IN_CLOSING) { /* DeepSeek's arguments stand in a fence of backticks */
        if (!is_blank(c) && c != '`') {
            s->state = IN_TEXT;
            feed(s, c);
        }
        return;
    }
    bool bare = s->o.tools && s->f.calls && s->f.calls->bare;
    if (bare && c == '{' && (!s->said || s->after_call)) {
        open_call(s, "", true);
        step_opening(s, c);
    } else if (!bare || !s->after_call || c != ';') { /* between bare calls */
        say(s, SPEECH_TEXT, c);
    }
}

/* Reasoning comes before the answer: behind text its mark is text, too. */
static bool applies(const speech *s, const speech_mark *m) {
    return m->what != MARK_THINK || !s->said;
}

/* The mark that begins with what is held; *whole: it is all of it. */
static const speech_mark *candidate(const speech *s, bool *whole) {
    const speech_mark *marks = s->state == IN_THOUGHT ? &s->thought : s->state == IN_CLOSING ? &s->close : s->marks;
    int                n = s->state == IN_THOUGHT || s->state == IN_CLOSING ? 1 : s->n_marks;
    for (int i = 0; i < n; i++) {
        const speech_mark *m = &marks[i];
        if (m->len >= s->n_held && memcmp(m->text, s->held, s->n_held) == 0 && applies(s, m)) {
            *whole = m->len == s->n_held;
            return m;
        }
    }
    return NULL;
}

static void step_marks(speech *s, char c) {
    bool whole;
    s->held[s->n_held++] = c;
    const speech_mark *m = candidate(s, &whole);
    if (m && whole) {
        s->n_held = 0;
        on_mark(s, m);
    } else if (!m) { /* the first byte is none of a mark; the others may still be */
        char   rest[sizeof(s->held)] = {0};
        size_t n = s->n_held;
        memcpy(rest, s->held, n);
        s->n_held = 0;
        plain(s, rest[0]);
        for (size_t i = 1; i < n; i++) {
            feed(s, rest[i]);
        }
    }
}

static void feed(speech *s, char c) {
    switch (s->state) {
    case IN_OPENING:
        step_opening(s, c);
        break;
    case IN_ITEMS:
        step_items(s, c);
        break;
    case IN_LIST:
        step_list(s, c);
        break;
    case IN_CALL:
        step_call(s, c);
        break;
    default:
        step_marks(s, c);
    }
}

/* ---- the speech as others see it ---- */

static void add_mark(speech *s, const char *text, int what) {
    size_t len = text ? strlen(text) : 0;
    if (len > 0 && len < sizeof(s->held) && s->n_marks < SPEECH_MAX_MARKS) {
        s->marks[s->n_marks++] = (speech_mark){text, len, what};
    }
}

speech *speech_new(const speech_format *f, const speech_options *o) {
    speech *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->f = *f;
    s->o = *o;
    s->state = o->thinks && f->think_close ? IN_THOUGHT : IN_TEXT;
    s->skip = s->state == IN_THOUGHT;
    if (f->think_open && f->think_close) {
        add_mark(s, f->think_open, MARK_THINK);
        s->thought = (speech_mark){f->think_close, strlen(f->think_close), MARK_THOUGHT};
    }
    if (o->tools && f->calls) {
        for (int i = 0; i < 2; i++) {
            add_mark(s, f->calls->open[i], MARK_CALL);
            add_mark(s, f->calls->around[i], MARK_AROUND);
        }
        if (f->calls->close) {
            s->close = (speech_mark){f->calls->close, strlen(f->calls->close), MARK_CLOSE};
        }
    }
    return s;
}

bool speech_add(speech *s, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        feed(s, bytes[i]);
    }
    s->failed = s->failed || s->blank.failed || s->call.raw.failed;
    return !s->failed;
}

bool speech_end(speech *s) {
    char   rest[sizeof(s->held)];
    size_t n = s->n_held;
    memcpy(rest, s->held, n);
    s->n_held = 0;
    if (s->state == IN_OPENING || s->state == IN_ITEMS || s->state == IN_LIST || s->state == IN_CALL) {
        give_up(s, "", 0);
    }
    speech_kind kind = s->state == IN_THOUGHT ? SPEECH_REASONING : SPEECH_TEXT;
    if (n > 0 || (kind == SPEECH_TEXT && !s->after_call)) {
        tell_blank(s, kind);
    }
    speech_out(s, kind, rest, n);
    speech_flush(s);
    return !s->failed;
}

int speech_count(const speech *s) {
    return s->n_calls;
}

bool speech_thinking(const speech *s) {
    return s->state == IN_THOUGHT;
}

void speech_free(speech *s) {
    if (s) {
        call_free(&s->call);
        str_free(&s->blank);
        str_free(&s->out);
        free(s);
    }
}
