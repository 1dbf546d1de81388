/* responses_stream.h - what a stream of OpenAI's responses remembers between two events. */
#ifndef PARE_DIALECT_RESPONSES_STREAM_H
#define PARE_DIALECT_RESPONSES_STREAM_H

#include "dialect/responses.h"

typedef struct responses_writing {
    bool        begun;
    uint64_t    sequence;
    char        id[RESPONSES_ID_SIZE];
    int64_t     created;
    output_item items[RESPONSES_MAX_ITEMS]; /* in the order of their output_index */
    int         n_items, n_stretches;
    size_t      said[ITEM_CALL];  /* bytes of reasoning, text and refusal that are out */
    size_t      signed_to, probs; /* of the signature, and entries of the logprobs, that belong to items already */
} responses_writing;

#endif
