/* speech_json.c - JSON followed byte by byte, without a tree: where a value ends, and whether it is one. RFC 8259. */
#include <string.h>

#include "dialect/speech_parts.h"

enum {
    W_VALUE,
    W_FIRST_ITEM, /* or the end of the array */
    W_FIRST_KEY,  /* or the end of the object */
    W_KEY,
    W_COLON,
    W_NEXT, /* a comma, or the end */
    W_STRING,
    W_ESCAPE,
    W_HEX,
    W_WORD,
    W_MINUS,
    W_ZERO,
    W_INTEGER,
    W_POINT,
    W_FRACTION,
    W_E,
    W_E_SIGN,
    W_EXPONENT
};

bool walk_in_string(const json_walk *w) {
    return w->state == W_STRING || w->state == W_ESCAPE || w->state == W_HEX;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static walk_step go(json_walk *w, int state) {
    w->state = (uint8_t)state;
    return WALK_MORE;
}

static walk_step ended(json_walk *w) {
    w->state = W_NEXT;
    return w->depth == 0 ? WALK_DONE : WALK_MORE;
}

static bool in_object(const json_walk *w) {
    int at = w->depth - 1;
    return w->objects[at / 64] >> (at % 64) & 1;
}

static walk_step open_bracket(json_walk *w, bool object) {
    if (w->depth >= WALK_DEPTH) {
        return WALK_BAD;
    }
    uint64_t  bit = (uint64_t)1 << (w->depth % 64);
    uint64_t *word = &w->objects[w->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    w->depth++;
    return go(w, object ? W_FIRST_KEY : W_FIRST_ITEM);
}

static walk_step close_bracket(json_walk *w, char c) {
    if (w->depth == 0 || (c == '}') != in_object(w)) {
        return WALK_BAD;
    }
    w->depth--;
    return ended(w);
}

static walk_step begin_value(json_walk *w, char c) {
    static const char *const words[] = {"true", "false", "null"};
    if (is_blank(c)) {
        return WALK_MORE;
    }
    if (c == '{' || c == '[') {
        return open_bracket(w, c == '{');
    }
    if (c == '"') {
        w->key = false;
        return go(w, W_STRING);
    }
    if (c == '-' || is_digit(c)) {
        return go(w, c == '-' ? W_MINUS : c == '0' ? W_ZERO : W_INTEGER);
    }
    for (int i = 0; i < 3; i++) {
        if (c == words[i][0]) {
            w->word = words[i] + 1;
            return go(w, W_WORD);
        }
    }
    return WALK_BAD;
}

static walk_step begin_key(json_walk *w, char c) {
    if (is_blank(c)) {
        return WALK_MORE;
    }
    w->key = true;
    return c == '"' ? go(w, W_STRING) : WALK_BAD;
}

static walk_step in_string(json_walk *w, char c) {
    if (c == '\\') {
        return go(w, W_ESCAPE);
    }
    if (c != '"') {
        return WALK_MORE;
    }
    return w->key ? go(w, W_COLON) : ended(w);
}

static walk_step in_escape(json_walk *w, char c) {
    if (w->state == W_ESCAPE) {
        w->hex = 4;
        return c == 'u' ? go(w, W_HEX) : c && strchr("\"\\/bfnrt", c) ? go(w, W_STRING) : WALK_BAD;
    }
    bool hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!hex) {
        return WALK_BAD;
    }
    return --w->hex == 0 ? go(w, W_STRING) : WALK_MORE;
}

/* Where a number goes with this byte; 0: it is over, or was none. */
static int number_state(int state, char c) {
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (state) {
    case W_MINUS:
        return c == '0' ? W_ZERO : digit ? W_INTEGER : 0;
    case W_ZERO:
        return c == '.' ? W_POINT : e ? W_E : 0;
    case W_INTEGER:
        return digit ? W_INTEGER : c == '.' ? W_POINT : e ? W_E : 0;
    case W_POINT:
    case W_FRACTION:
        return digit ? W_FRACTION : e && state == W_FRACTION ? W_E : 0;
    case W_E:
        return digit ? W_EXPONENT : c == '+' || c == '-' ? W_E_SIGN : 0;
    default:
        return digit ? W_EXPONENT : 0;
    }
}

static walk_step in_number(json_walk *w, char c) {
    int next = number_state(w->state, c);
    if (next) {
        return go(w, next);
    }
    if (w->state != W_ZERO && w->state != W_INTEGER && w->state != W_FRACTION && w->state != W_EXPONENT) {
        return WALK_BAD;
    }
    w->state = W_NEXT;
    return w->depth == 0 ? WALK_OVER : walk_byte(w, c);
}

walk_step walk_byte(json_walk *w, char c) {
    switch (w->state) {
    case W_FIRST_ITEM:
        return c == ']' ? close_bracket(w, c) : begin_value(w, c);
    case W_VALUE:
        return begin_value(w, c);
    case W_FIRST_KEY:
        return c == '}' ? close_bracket(w, c) : begin_key(w, c);
    case W_KEY:
        return begin_key(w, c);
    case W_COLON:
        return c == ':' ? go(w, W_VALUE) : is_blank(c) ? WALK_MORE : WALK_BAD;
    case W_NEXT:
        if (c == ',' && w->depth > 0) {
            return go(w, in_object(w) ? W_KEY : W_VALUE);
        }
        return is_blank(c) ? WALK_MORE : c == '}' || c == ']' ? close_bracket(w, c) : WALK_BAD;
    case W_STRING:
        return in_string(w, c);
    case W_ESCAPE:
    case W_HEX:
        return in_escape(w, c);
    case W_WORD:
        if (c != *w->word) {
            return WALK_BAD;
        }
        return *++w->word ? WALK_MORE : ended(w);
    default:
        return in_number(w, c);
    }
}
