/* assets.h - files that travel inside the binary, put there by cmake/assets.cmake.
 *
 * Paths: "web/index.html" and whatever else web/ holds, "web/chart.js" (Chart.js as the system packages it), and
 * "models/storyteller.gguf" (page-aligned, as if it were mapped; absent in a build without it). Read-only, lives as long as
 * the program, any thread.                                                                                          */
#ifndef PARE_SERVE_ASSETS_H
#define PARE_SERVE_ASSETS_H

#include <stddef.h>

typedef struct asset { /* cmake/assets.cmake writes this layout in assembly: change both together */
    const char          *path;
    const char          *type; /* for Content-Type */
    const unsigned char *data; /* no NUL behind it */
    size_t               size; /* bytes */
} asset;

const asset *asset_find(const char *path); /* NULL when there is no such file */

#endif
