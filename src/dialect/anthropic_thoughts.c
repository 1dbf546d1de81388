/* anthropic_thoughts.c - several pieces of signed thinking in the one text and the one signature of the neutral form.
 *
 * Anthropic's API wants every thinking block of a turn back as it was, each with its signature, while OpenAI's form has one
 * reasoning text and clients add up what a stream brings. So a signature that begins a further block says where in the text
 * it begins: "SIG1 120:SIG2 340!DATA" is the text's bytes 0 to 119 with SIG1, 120 to 339 with SIG2, and a redacted block.
 * Signatures and redacted data are base64 and have no blanks. One block alone has its signature as it is.             */
#include <string.h>

#include "dialect/anthropic.h"

#define MAX_DIGITS 9

bool anthropic_mark_thought(size_t at, bool redacted, const char *signature, str *out) {
    return str_addf(out, " %zu%c", at, redacted ? '!' : ':') && str_adds(out, signature ? signature : "");
}

/* " 120:" at p; NULL: something else stands there. */
static const char *read_mark(const char *p, const char *end, size_t *at, bool *redacted) {
    const char *digits = ++p; /* behind the blank */
    *at = 0;
    while (p < end && *p >= '0' && *p <= '9' && p - digits < MAX_DIGITS) {
        *at = 10 * *at + (size_t)(*p++ - '0');
    }
    if (p == digits || p == end || (*p != ':' && *p != '!')) {
        return NULL;
    }
    *redacted = *p == '!';
    return p + 1;
}

static bool splits_a_character(const char *text, size_t n, size_t at) {
    return at < n && ((unsigned char)text[at] & 0xC0) == 0x80;
}

/* What begins with these marks: a part of a longer whole (an item of OpenAI's responses) counts from its own first one. */
int anthropic_thoughts(const char *text, size_t n, const char *signature, size_t m, anthropic_thought *out) {
    const char *end = signature + m, *p = m ? memchr(signature, ' ', m) : NULL;
    size_t      from = 0, base = 0;
    int         count = 0;
    if (!p || p > signature) {
        out[count++] = (anthropic_thought){text, n, signature, p ? (size_t)(p - signature) : m, false};
    }
    while (p) {
        size_t      at;
        bool        redacted;
        const char *value = read_mark(p, end, &at, &redacted);
        if (!value) { /* another provider's signature */
            out[0] = (anthropic_thought){text, n, signature, m, false};
            return 1;
        }
        p = memchr(value, ' ', (size_t)(end - value));
        base = count == 0 ? at : base;
        if (at < base || at - base < from || at - base > n || splits_a_character(text, n, at - base) ||
            count == ANTHROPIC_MAX_THOUGHTS) {
            return -1; /* it is not the text that was signed */
        }
        if (count > 0 && !out[count - 1].redacted) {
            out[count - 1].text_len = at - base - from;
        } else if (at - base != from) {
            return -1;
        }
        from = at - base;
        out[count++] =
            (anthropic_thought){text + from, redacted ? 0 : n - from, value, (size_t)((p ? p : end) - value), redacted};
    }
    return count > 0 && out[count - 1].redacted && from != n ? -1 : count;
}

void anthropic_write_thought(const anthropic_thought *t, str *out) {
    if (t->redacted) {
        str_adds(out, "{\"type\":\"redacted_thinking\",\"data\":");
    } else {
        str_adds(out, "{\"type\":\"thinking\",\"thinking\":");
        str_json(out, t->text ? t->text : "", t->text_len);
        str_adds(out, ",\"signature\":");
    }
    str_json(out, t->signature ? t->signature : "", t->signature_len);
    str_addc(out, '}');
}
