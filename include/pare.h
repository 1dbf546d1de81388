/* pare.h - language models in your own program: load one; generate text, chat, embed.
 *
 *     char error[512];
 *     pare_model *m = pare_open("model.gguf", NULL, error, sizeof error);
 *     if (!m) { fprintf(stderr, "%s\n", error); return 1; }
 *     pare_generate(m, "Once upon a time", NULL, print_piece, NULL, NULL, error, sizeof error);
 *     pare_close(m);
 *
 * FAILURE. A function that can fail takes `error` and `error_size` last. It returns 0, NULL or, where it counts, -1, and
 * writes a sentence that ends with NUL (cut when the room is short). `error` may be NULL. On success `error` is left
 * alone. Nothing is ever printed, and the process is never ended.
 *
 * THREADS. A pare_model and a pare_canceller may be used from any number of threads at once; requests to one model run
 * together in one batch. A pare_chat belongs to one thread at a time; several chats of one model are independent.
 * Callbacks run on the thread that made the call, while it waits: they may take their time, hold up nobody else, and may
 * call pare, but must neither close the model nor touch the chat that is being answered. pare starts threads of its own
 * (all signals blocked in them), so a process that forks must do so before pare_open or call exec in the child.
 * No function is safe in a signal handler: let the handler set a flag that the callback reads.
 *
 * OWNERSHIP. pare_X_new or pare_open gives an object, and it is yours until pare_X_free or pare_close. A char * that is
 * not const is yours: pare_free. A const char * is pare's, and lives as long as the object that it was asked of, unless
 * said otherwise. What you pass in is copied or used before the function returns: nothing has to outlive the call, but
 * for the model, which outlives its chats and all calls, and cancellers, which outlive the calls that were given them.
 *
 * TEXT is UTF-8 and ends with NUL.
 *
 * STRUCTS grow at the end, and their first member says how far yours goes. Set all to zero ({0}, memset), then what you
 * want; zero always means the default. `size` is sizeof the struct, or 0: the members without a "since". So a program
 * that was compiled with an older pare.h runs with a newer library of the same major version, and a newer program runs
 * with an older library until it sets a member that the library does not have: that call then fails with a sentence. */
#ifndef PARE_H
#define PARE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pare_model     pare_model;
typedef struct pare_chat      pare_chat;
typedef struct pare_canceller pare_canceller;

/* The version of the library that runs, as "0.1.0". Any thread; the text is constant. */
const char *pare_version(void);

/* Gives back a text that a function of pare's handed over. Any thread. NULL is fine. */
void pare_free(void *memory);

/* ---- models ---- */

typedef struct pare_options {
    size_t      size;
    int         threads;   /* compute threads of this model; default: one a core */
    int         context;   /* tokens a request can hold, its answer included; default: the model's, at most 8192 */
    int         sequences; /* requests that run at once, further ones wait; default: 16 */
    const char *kv;        /* how keys and values are kept: "f16" (default), "f32", "q8_0", "q4_0" */
    size_t      kv_bytes;  /* memory for them; default: for all sequences at full length, at most 1 GiB */
    const char *pooling;   /* of embeddings: "mean", "cls", "last"; default: what the file says */
} pare_options;

/* Loads a model file (GGUF). `options` may be NULL. Close what it returns with pare_close. Any thread. */
pare_model *pare_open(const char *path, const pare_options *options, char *error, size_t error_size);

/* The same from the bytes of a file. They are not needed any more when it returns. */
pare_model *pare_open_memory(const void *data, size_t data_size, const pare_options *options, char *error,
                             size_t error_size);

/* Frees the model. NULL is fine. No call with it may be running, and its chats must be freed before. */
void pare_close(pare_model *model);

typedef struct pare_info {
    size_t      size;
    const char *name;          /* what the file calls itself; this and the texts below live until pare_close */
    const char *architecture;  /* "llama", "bert" ... */
    const char *pooling;       /* "mean", "cls", "last", "rank" (scores pairs, no embeddings); NULL: none */
    const char *chat_problem;  /* why there is no chat though it generates; NULL otherwise */
    int         context;       /* tokens a request can hold in this process */
    int         model_context; /* tokens that the model was made for */
    int         vocabulary;    /* ids go from 0 to this - 1 */
    int         dimension;     /* numbers of an embedding */
    int         layers;
    int         can_generate; /* 1: pare_generate works; otherwise 0; the same below */
    int         can_chat;
    int         can_embed;
    int         can_tokenize;
    uint64_t    weight_bytes; /* memory that the weights take */
} pare_info;

/* Writes facts about the model into *info. 1, or 0 when info->size is wrong. Any thread. */
int pare_describe(const pare_model *model, pare_info *info, char *error, size_t error_size);

/* ---- requests ---- */

typedef struct pare_request {
    size_t             size;
    int                max_tokens;        /* default: until the model ends, or the context is full */
    float              temperature;       /* 0 .. 2; default 0: always the most likely token */
    float              top_p;             /* 0 .. 1; the likeliest tokens with this probability together; default 1 */
    int                top_k;             /* so many of the likeliest tokens; default: all */
    uint64_t           seed;              /* the same seed, the same text */
    float              min_p;             /* 0 .. 1; tokens at least this likely, the likeliest being 1; default 0 */
    float              repeat_penalty;    /* above 0; of tokens in the prompt or the answer; default 1: none */
    float              presence_penalty;  /* -2 .. 2; of tokens in the answer; default 0: none */
    float              frequency_penalty; /* -2 .. 2; of each time they are in the answer; default 0: none */
    int                stop_count;
    const char *const *stop;          /* the answer ends before the first of these; at most 16 */
    const char        *grammar;       /* what an answer may look like, in GBNF; the rule "root" is the answer */
    const char        *json_schema;   /* the answer is JSON that is valid under this schema; {} is any. Not both */
    const char        *grammar_after; /* either begins after this text, such as "</think>"; default: at once */
    int                control_text;  /* 1: the text of control tokens, "<|tool|>", belongs to the answer */
    int             control_prompt; /* 1: it is the token in the prompt of pare_generate; never with strangers' text */
    int             priority;       /* smaller goes first among those that wait */
    pare_canceller *canceller;      /* NULL: only the callback stops it */
} pare_request;

/* How an answer ended. */
enum {
    PARE_FINISH_STOP = 0,     /* the model ended it, or a stop text or a grammar did */
    PARE_FINISH_LENGTH = 1,   /* max_tokens, or the context is full: JSON and what follows a grammar are cut off */
    PARE_FINISH_CANCELLED = 2 /* the callback or a canceller: what came before is all there is */
};

typedef struct pare_usage {
    size_t  size;
    int     prompt_tokens;
    int     cached_tokens; /* of these, found in the cache and not computed */
    int     completion_tokens;
    int     finish;   /* PARE_FINISH_STOP ...; embeddings: 0 or PARE_FINISH_CANCELLED */
    int     stop;     /* which of request.stop ended it; -1: none */
    int64_t first_us; /* microseconds to the first token, waiting included; 0: there was none */
    int64_t total_us;
} pare_usage;

/* A piece of an answer as it is generated: whole characters, not ended by NUL (`text` has `length` bytes, and lives until
 * the callback returns). Runs on the thread of the call. Return 0 to go on, anything else to stop. */
typedef int (*pare_piece)(void *user, const char *text, size_t length);

/* Goes on with `prompt`, and returns when the text is complete: 1, also when it was cancelled, or 0. `request`, `piece`
 * and `usage` may be NULL. Any thread. */
int pare_generate(pare_model *model, const char *prompt, const pare_request *request, pare_piece piece, void *user,
                  pare_usage *usage, char *error, size_t error_size);

/* The same, with the text as a whole. It is yours: pare_free. NULL on failure. Any thread. */
char *pare_generate_text(pare_model *model, const char *prompt, const pare_request *request, pare_usage *usage,
                         char *error, size_t error_size);

/* ---- cancelling ---- */

/* Ends calls from other threads. NULL when memory is short. */
pare_canceller *pare_canceller_new(void);

/* All calls that have it end soon with PARE_FINISH_CANCELLED, and so does each further one until pare_canceller_reset. Any
 * thread, callbacks included. */
void pare_cancel(pare_canceller *canceller);
void pare_canceller_reset(pare_canceller *canceller); /* any thread */
void pare_canceller_free(pare_canceller *canceller);  /* no call may have it any more; NULL is fine */

/* ---- conversations ---- */

/* A list of messages, written as the model knows it by the chat template in its file. What is in a message is never read
 * as markup: a user who writes "<|end|>" has written seven characters. The beginning that two requests share is computed
 * once, so a further turn costs what is new in it. All of these: one thread at a time for each chat. */
pare_chat *pare_chat_new(pare_model *model, char *error, size_t error_size);
void       pare_chat_free(pare_chat *chat); /* NULL is fine; before pare_close */

/* Adds a message: "system", "user", "assistant", "tool" ... are roles. `content` may be NULL where `more` says the rest:
 * further members of the message as a JSON object, for templates that read some ({"tool_calls": [...]}); or NULL. */
int pare_chat_add(pare_chat *chat, const char *role, const char *content, const char *more, char *error,
                  size_t error_size);

/* Further variables of the template as a JSON object, for instance {"enable_thinking": false} or {"tools": [...]}; they
 * replace those of an earlier call. NULL: none. */
int pare_chat_variables(pare_chat *chat, const char *json, char *error, size_t error_size);

/* The model's answer to the messages so far, as pare_generate; it is then the last message ("assistant"), also when it
 * was cut off or cancelled. On failure the messages stay as they were. */
int pare_chat_answer(pare_chat *chat, const pare_request *request, pare_piece piece, void *user, pare_usage *usage,
                     char *error, size_t error_size);

/* Tokens of the prompt that pare_chat_answer would send now; -1 on failure. */
int pare_chat_tokens(const pare_chat *chat, char *error, size_t error_size);

/* Message `index` from 0; NULL past the last, and where it has no content. The text lives until the chat is changed. */
int         pare_chat_count(const pare_chat *chat);
const char *pare_chat_role(const pare_chat *chat, int index);
const char *pare_chat_content(const pare_chat *chat, int index);

/* Drops `count` messages from `first` on, to make room or to ask again. 1, or 0 where there are not so many. */
int pare_chat_drop(pare_chat *chat, int first, int count);

/* ---- tokens ---- */

enum {
    PARE_TOKENS_SPECIAL = 1, /* with what the model wants around a text (BOS, EOS, [CLS]) */
    PARE_TOKENS_CONTROL = 2  /* the text of a control token stands for the token: never with strangers' text */
};

/* The ids of a text: writes at most `room` of them and returns how many there are; -1 on failure. `flags`: 0 or both of the
 * above added. Any thread. */
int pare_tokenize(pare_model *model, const char *text, int flags, int32_t *ids, int room, char *error,
                  size_t error_size);

/* The text of ids: writes at most `room` bytes, the NUL included, and returns how many bytes it has without; -1 on failure.
 * An id may be a part of a character: then the text begins or ends inside one. `flags`: 0 or PARE_TOKENS_CONTROL. Any
 * thread. */
int pare_detokenize(pare_model *model, const int32_t *ids, int count, int flags, char *text, int room, char *error,
                    size_t error_size);

/* ---- embeddings ---- */

typedef struct pare_embedding {
    size_t          size;
    int             raw;      /* 1: as the model gives them; default: of length 1, so that a dot product is a cosine */
    int             truncate; /* 1: texts that are too long are cut at their end; default: they are refused */
    pare_canceller *canceller;
} pare_embedding;

/* The vectors of `count` texts, computed together: vectors[count][pare_info.dimension]. 1, or 0. When usage->finish is
 * PARE_FINISH_CANCELLED, the vectors are not all there. `how` and `usage` may be NULL. Any thread. */
int pare_embed(pare_model *model, const char *const *texts, int count, const pare_embedding *how, float *vectors,
               pare_usage *usage, char *error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
