/* mask.h - which tokens may come next.
 *
 * A matcher follows one answer through a grammar. Its mask has a bit a token, set when the token's bytes may come next:
 * tokens may begin and end anywhere, also within a character. Tokens that end an answer are allowed where the grammar
 * may end. Where a state lets few tokens pass, the tree of tokens is walked; where it lets many pass, as in a string, what
 * each rule decides alone is worked out once a grammar and vocabulary and shared by all matchers (after XGrammar's context
 * independent tokens, arXiv:2411.15100), and only tokens that go beyond the rule's end are walked.
 *
 * Grammar and tree are held. One thread at a time.                                                                   */
#ifndef PARE_ENGINE_MASK_H
#define PARE_ENGINE_MASK_H

#include <stdint.h>

#include "engine/grammar.h"
#include "engine/mask_vocab.h"

#define MASK_FORCED 64 /* tokens that matcher_forced gives at most */

typedef struct matcher matcher;

/* `trigger` NULL: the grammar holds from the first byte. Otherwise anything may come until the text holds `trigger`, which
 * must come, and the grammar holds from the byte after it. Works out what it can now, on the caller's thread. */
matcher *matcher_new(grammar *g, vocab_tree *v, const char *trigger, err *e);
void     matcher_free(matcher *m);

/* Fills `bits`, one for each id of the model, in words of 64. A mask without a bit: the grammar was too ambiguous to go
 * on. */
void matcher_mask(matcher *m, uint64_t *bits);

/* False, and nothing changes, when the grammar does not allow the token. */
bool matcher_accept(matcher *m, int32_t token);

/* Tokens that are bound to come, as the model's own tokenizer writes their bytes; those at the end that could be spelled
 * otherwise together with what follows are left out. Returns how many; does not accept them. */
int matcher_forced(matcher *m, int32_t *out, int room);

bool matcher_may_end(const matcher *m); /* the text so far is an answer */
bool matcher_done(const matcher *m);    /* and nothing can be added to it */

static inline size_t mask_words(int vocab) {
    return ((size_t)vocab + 63) / 64;
}

static inline bool mask_has(const uint64_t *bits, int32_t id) {
    return bits[id / 64] >> (id % 64) & 1;
}

#endif
