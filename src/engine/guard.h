/* guard.h - what clients write never becomes a control token.
 *
 * A chat template writes its markup ("<|im_start|>") and the clients' words into one text, and a tokenizer cannot tell
 * the two apart. So, before rendering, a mark is put before each place of a client's string where a control token's
 * text begins - or could begin or go on together with what the template writes beside it. After rendering, control
 * tokens are recognised only where no mark stands at their beginning or inside them. The mark is a Unicode
 * noncharacter that the request does not use, and never reaches the tokenizer. Strings without such places are rendered
 * untouched, so the template sees what its author expected.
 *
 * User-defined tokens are recognised in any text by the tokenizer itself and are not guarded. Read-only after opening.  */
#ifndef PARE_ENGINE_GUARD_H
#define PARE_ENGINE_GUARD_H

#include "base/err.h"
#include "base/json.h"
#include "model/tokenizer/tokenizer.h"

typedef struct guard guard;

guard *guard_open(const tokenizer *t, err *e); /* the tokenizer outlives it */
void   guard_close(guard *g);

/* Two passes over the trees of one request: first guard_look at all of them, then guard_tree on each. */
typedef struct guard_mark {
    uint32_t used; /* bit i: the request holds U+FDD0 + i */
    char     bytes[4];
} guard_mark;

void guard_look(guard_mark *m, const cJSON *tree);
bool guard_choose(guard_mark *m, err *e); /* fails when a request uses all 32 noncharacters */
/* Puts marks into all strings and names below `tree`, which must be a tree of its own (cJSON_Duplicate). */
bool guard_tree(const guard *g, const guard_mark *m, cJSON *tree, err *e);

/* Tokens of a rendered text; special tokens are not added. */
bool guard_encode(const guard *g, const guard_mark *m, const char *text, size_t n, token_ids *out, err *e);

#endif
