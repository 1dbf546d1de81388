/* models.h - the folder of models at rest: DATA/models, a GGUF file a model.
 *
 * NAME.gguf is a model that is whole; NAME.json beside it says where it came from; NAME.gguf.part is an unfinished
 * download. A file that somebody put there by hand is a model like any other, without a source.                      */
#ifndef PARE_STORE_MODELS_H
#define PARE_STORE_MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/download.h"

#define MODEL_NAME 200 /* bytes at most, with the NUL */

typedef struct model_file {
    char    name[MODEL_NAME];
    char    source[512]; /* "hf:OWNER/REPO:FILE", "ollama:NAME:TAG", a URL, or empty */
    char    sha256[65];  /* empty: not known */
    char    etag[200];
    int64_t size; /* bytes; of a partial file those that are there */
    int64_t modified_us;
    bool    partial;
} model_file;

typedef struct model_list {
    model_file *items; /* by name */
    size_t      n;
} model_list;

/* A folder that does not exist is an empty list. */
bool models_list(const char *data_dir, model_list *out, err *e);
void models_list_free(model_list *l);

/* A whole model by its name, or by its source ("hf:OWNER/REPO" suffices where only one came from there; "ollama:" may
 * be left out). The sentence names the nearest one. */
bool models_get(const char *data_dir, const char *name, model_file *out, err *e);
bool models_find(const char *data_dir, const char *name, char *path, size_t size, err *e);

/* Removes the model, or an unfinished download of that name. */
bool models_remove(const char *data_dir, const char *name, model_file *removed, err *e);

/* Makes the folder, and the path of NAME.gguf in it. */
bool models_path(const char *data_dir, const char *name, char *path, size_t size, err *e);
/* Writes NAME.json. */
bool models_note(const char *data_dir, const model_file *m, err *e);

/* Letters, digits and ._+- of ASCII, not first a dot or a minus: no name leaves the folder or looks like an option. */
bool models_name_ok(const char *name);
/* A name from what a stranger calls its file: the last part of the path, without .gguf. False when no letter is left. */
bool models_name_from(const char *remote, char *out, size_t size);

/* ---- models_source.c: where a model comes from ---- */

typedef struct model_source {
    char           name[MODEL_NAME]; /* empty: what the server calls it makes no name */
    char           source[512];      /* as models_get finds it again */
    char          *url;              /* malloc'd */
    int64_t        size;             /* 0: not known */
    char           sha256[65];       /* empty: not known */
    const char    *denied;
    download_token token; /* points into `endpoint` and the environment */
    char           endpoint[256];
} model_source;

/* Finds "hf:OWNER/REPO[@REVISION][:FILE or TYPE]", "ollama:NAME[:TAG]" or a URL; the first two ask the server which file
 * that is. HF_ENDPOINT and OLLAMA_REGISTRY name other servers; HF_TOKEN opens private repositories. */
bool model_source_find(const char *what, model_source *out, err *e);
void model_source_free(model_source *s);

/* The type a file's name speaks of ("Q4_K_M"), upper case, or "". */
void model_type_of(const char *file_name, char *out, size_t size);

#endif
