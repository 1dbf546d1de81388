/* spare.h - malloc with a larger store of freed blocks for each thread.
 *
 * For a library that takes and frees many small blocks for every request (libevent's evhttp: some fifty). glibc keeps seven
 * blocks of a size for a thread; what goes past them takes ten times as long. The blocks are malloc's own: spare_free takes
 * one that came from malloc, and free takes one of these.                                                              */
#ifndef PARE_BASE_SPARE_H
#define PARE_BASE_SPARE_H

#include <stddef.h>

void *spare_malloc(size_t n);
void  spare_free(void *block); /* NULL is fine */

#endif
