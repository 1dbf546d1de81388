/* import.h - a Hugging Face folder (config.json, tokenizer, *.safetensors) becomes a GGUF file.
 *
 * Key and tensor names are those of llama.cpp's convert_hf_to_gguf, so that both programs take the file. What the
 * folder asks for and GGUF cannot say for its architecture is refused by name, never dropped. The file appears when it
 * is whole and is read back and compared afterwards.                                                                 */
#ifndef PARE_MODEL_IMPORT_IMPORT_H
#define PARE_MODEL_IMPORT_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Called now and then; `what` is "writing" or "verifying". */
typedef void (*import_progress)(void *arg, const char *what, int64_t done_bytes, int64_t total_bytes);

typedef struct import_options {
    const char        *dir;
    const char        *out;     /* NULL: NAME-TYPE.gguf in the working directory */
    const char        *type;    /* f32, f16, bf16, q8_0; "auto" or NULL: as the folder's first matrix is stored */
    const char        *name;    /* general.name; NULL: the folder's own */
    int64_t            context; /* > 0: a smaller context_length than config.json's */
    const char *const *ignore;  /* members of config.json that pare does not know and that change nothing */
    int                ignore_count;
    bool               no_tokenizer; /* write the model without vocabulary */
    bool               dry_run;      /* check everything, write nothing */
    import_progress    progress;     /* may be NULL */
    void              *arg;
} import_options;

typedef struct import_report {
    str     path;     /* of the file that was or would be written */
    char    arch[32]; /* general.architecture */
    char    type[8];  /* of the matrices */
    char    tokenizer[16], pre[32];
    int64_t tensors, parameters, bytes, tokens, layers, context;
    bool    runs;         /* pare itself opens the file's shape and its tokenizer */
    char    why_not[496]; /* otherwise; an err's text */
    str     notes;        /* lines that a person should read, each with its newline */
} import_report;

bool import_folder(const import_options *o, import_report *r, err *e);
void import_report_free(import_report *r);

#endif
