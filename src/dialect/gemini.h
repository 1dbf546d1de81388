/* gemini.h - what the files of the Gemini dialect share; not for other rooms.
 *
 * Sources: the reference of the Gemini API (generativelanguage.googleapis.com, v1beta): models.generateContent,
 * models.streamGenerateContent, models.batchEmbedContents, "Content", "GenerationConfig", "Schema"; its guides on function
 * calling, thinking, thought signatures, structured output and inference tiers.                                        */
#ifndef PARE_DIALECT_GEMINI_H
#define PARE_DIALECT_GEMINI_H

#include "base/map.h"
#include "dialect/dialect.h"
#include "dialect/neutral.h"

#define GEMINI_TARGET "Gemini's API"

/* ---- a request ---- */

typedef struct gemini_place { /* "messages[2].content[0]" */
    char text[112];
} gemini_place;

gemini_place gemini_at(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef struct gemini_writer {
    const request *r;
    const char    *model;
    bool           modern; /* Gemini 3 and later: thinking by levels, signatures that must come back */
    map           *names;  /* ids of the calls so far -> name of the function (const char * as a number) */
    const char    *detail; /* of the images: "low", "high"; NULL: none said */
    str           *out;
    err           *e;
} gemini_writer;

bool gemini_drop(gemini_writer *w, const char *name); /* see drop_member */

/* gemini_contents.c: ,"systemInstruction":{...},"contents":[...] without the first comma. */
bool gemini_write_contents(gemini_writer *w);

/* gemini_parts.c. `comma`: what stands in front of the next part; set to "," by one that was written. */
bool gemini_write_part(gemini_writer *w, const cJSON *part, const gemini_place *place, const char **comma);
bool gemini_write_text(gemini_writer *w, const char *text, bool thought, const char *signature, const char **comma);
bool gemini_is_text(const cJSON *part);  /* of type "text" or "refusal", with a text */
bool gemini_is_bytes(const cJSON *part); /* an image, sound or file in a data: URL */

/* gemini_config.c: ,"tools":...,"toolConfig":...,"generationConfig":... */
bool gemini_write_tools(gemini_writer *w);
bool gemini_write_config(gemini_writer *w);

/* gemini_embed.c */
bool gemini_write_embed(gemini_writer *w);
bool gemini_read_embed(const char *body, size_t n, answer *out, err *e);

/* ---- an answer ---- */

#define GEMINI_MAX_CANDIDATES 128

typedef struct gemini_reading { /* by candidate */
    uint16_t calls[GEMINI_MAX_CANDIDATES];
    bool     finished[GEMINI_MAX_CANDIDATES], has_signature[GEMINI_MAX_CANDIDATES];
} gemini_reading;

/* gemini_read.c */
bool gemini_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e);
bool gemini_read_chunk(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e);

/* gemini_usage.c */
bool   gemini_read_usage(const cJSON *root, usage *out);
cJSON *gemini_read_logprobs(const cJSON *candidate); /* the caller owns it; NULL: none */

#endif
