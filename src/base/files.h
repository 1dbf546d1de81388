/* files.h - the file system, where more than one room needs the same of it. */
#ifndef PARE_BASE_FILES_H
#define PARE_BASE_FILES_H

#include <stdbool.h>

#include "base/err.h"

/* Makes the directory and its parents, for their owner only (0700); one that is there is fine as it is. Any thread. */
bool directory_make(const char *path, err *e);

#endif
