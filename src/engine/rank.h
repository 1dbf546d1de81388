/* rank.h - the head of a model that scores a query and a document together (a cross-encoder). */
#ifndef PARE_ENGINE_RANK_H
#define PARE_ENGINE_RANK_H

#include "base/err.h"
#include "model/model.h"

typedef struct rank_head rank_head;

rank_head *rank_open(const model *m, err *e);
void       rank_close(rank_head *h); /* NULL is fine */

/* row [dim]: the last row of a text's first token. The score is any real number; a sigmoid makes it a probability. */
float rank_score(const rank_head *h, const float *row);

#endif
