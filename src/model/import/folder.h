/* folder.h - the files of a model folder, read whole, by names that cannot lead out of it. */
#ifndef PARE_MODEL_IMPORT_FOLDER_H
#define PARE_MODEL_IMPORT_FOLDER_H

#include "model/import/tree.h"

/* One file name: no slash, not "." or "..", nothing that a terminal would act on. */
bool folder_name_ok(const char *name, size_t n);

bool folder_path(arena *memory, const char *dir, const char *name, const char **path, err *e);
bool folder_has(const char *dir, const char *name); /* a file; links are followed (the hub's cache is made of them) */

/* The bytes live in the arena, NUL-terminated. At most `most` bytes. */
bool folder_read(arena *memory, const char *dir, const char *name, size_t most, const char **text, size_t *n, err *e);

/* *out stays NULL when there is no such file; false only for a file that is there and wrong. */
bool folder_json(arena *memory, const char *dir, const char *name, const tree **out, err *e);

#endif
