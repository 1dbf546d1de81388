#include "base/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_directory(const char *path) {
    struct stat at;
    return stat(path, &at) == 0 && S_ISDIR(at.st_mode);
}

/* What exists is seen first: some file systems answer mkdir with "read-only" or "denied" rather than "exists". */
static bool make_one(const char *path, err *e) {
    if (is_directory(path) || mkdir(path, 0700) == 0) {
        return true;
    }
    int why = errno;
    if (why == EEXIST && is_directory(path)) { /* somebody else has just made it */
        return true;
    }
    return err_set(e, ERR_IO, "%s cannot be made: %s", path, why == EEXIST ? "it is not a directory" : strerror(why));
}

bool directory_make(const char *path, err *e) {
    if (!path[0]) {
        return err_set(e, ERR_INVALID, "the name of a directory is empty");
    }
    char *part = strdup(path);
    if (!part) {
        return err_set(e, ERR_MEMORY, "out of memory for the path of a directory");
    }
    bool ok = true;
    for (size_t i = 1, n = strlen(path); ok && i <= n; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            part[i] = '\0';
            ok = make_one(part, e);
            part[i] = path[i];
        }
    }
    free(part);
    return ok;
}
