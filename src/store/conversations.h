/* conversations.h - conversations that pare keeps for its clients (OpenAI's responses with store: true).
 *
 * A row is one turn: what the client said, and the answer, each in the dialect's own JSON; it names the turn before it.
 * A turn belongs to who asked, and nobody else finds it. Turns live 30 days after the last use of a conversation that
 * goes through them, and altogether they take 4 GiB at most: the longest unused go first. Written by the database's
 * writer, read by its reader (db.h).                                                                                 */
#ifndef PARE_STORE_CONVERSATIONS_H
#define PARE_STORE_CONVERSATIONS_H

#include "base/hash.h"
#include "store/db.h"

#define CONVERSATION_MAX_BYTES ((size_t)32 << 20)
#define CONVERSATION_MAX_TURNS 1000
#define CONVERSATION_DAYS      30
#define CONVERSATION_ID_SIZE   96

typedef struct conversation_name {
    char   id[CONVERSATION_ID_SIZE];
    sha256 owner; /* of namespace and key's name: whoever has both asks for his own */
} conversation_name;

/* False: the id is empty or too long, so nothing has it. key: the client key's name; "" without keys. */
bool conversation_name_of(conversation_name *out, const char *id, const char *space, const char *key);

typedef struct conversation_turn {
    conversation_name name;
    const char       *previous; /* NULL: the first */
    const char       *input;    /* JSON: an array of items */
    const char       *response; /* JSON: an object whose "output" is an array of items */
    size_t            input_len, response_len;
} conversation_turn;

/* Copies; never blocks. False: too long, or too much waits for the disk. */
bool db_conversation_put(db *d, const conversation_turn *t, err *e);
void db_conversation_delete(db *d, const conversation_name *name);

/* db_ask, answered only when all turns that have been put by now are written. */
void db_conversation_ask(db *d, loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done,
                         void *ctx);

/* Questions for it. arg: a conversation_name.
 * history: the conversation up to and with this turn, oldest first: [input, output, input, output, ...].
 * response: the response object. */
bool conversation_history(struct sqlite3 *read_only, const void *name, str *json, err *e);
bool conversation_response(struct sqlite3 *read_only, const void *name, str *json, err *e);

typedef struct conversation_page {
    conversation_name name;
    int               limit;
    bool              oldest_first;
    char              after[CONVERSATION_ID_SIZE]; /* behind the item of this id; "": from the beginning */
} conversation_page;
/* arg: a conversation_page. The turn's input as a list of the API: {"object":"list","data":[...],...}. */
bool conversation_items(struct sqlite3 *read_only, const void *page, str *json, err *e);

#endif
