/* libpare_structs.c - structs that cross the library's border, in any version of them.
 *
 * The scheme is that of Linux's extensible system calls (copy_struct_from_user): the caller's size says how much there
 * is; what the caller lacks is zero, and what the library lacks must be zero.                                        */
#include <stdio.h>
#include <string.h>

#include "engine/libpare_parts.h"

#define MOST_BYTES 4096 /* more is memory that nobody has set */

#define UP_TO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* The second number never changes: members that are added later do not count in a struct that names no size. */
const struct_kind libpare_options = {"pare_options", sizeof(pare_options), UP_TO(pare_options, pooling)};
const struct_kind libpare_info = {"pare_info", sizeof(pare_info), UP_TO(pare_info, weight_bytes)};
const struct_kind libpare_request = {"pare_request", sizeof(pare_request), UP_TO(pare_request, canceller)};
const struct_kind libpare_usage = {"pare_usage", sizeof(pare_usage), UP_TO(pare_usage, total_us)};
const struct_kind libpare_embedding = {"pare_embedding", sizeof(pare_embedding), UP_TO(pare_embedding, canceller)};

static bool size_of(const struct_kind *kind, const void *theirs, size_t *out, err *e) {
    memcpy(out, theirs, sizeof(*out));
    *out = *out ? *out : kind->first;
    return (*out >= kind->first && *out <= MOST_BYTES) ||
           err_set(e, ERR_INVALID, "the size of a %s is %zu; set the struct to zero and its size to 0 or sizeof(%s)",
                   kind->name, *out, kind->name);
}

bool libpare_read(const struct_kind *kind, const void *from, void *out, err *e) {
    size_t n = 0;
    memset(out, 0, kind->now);
    if (!from) {
        return true;
    }
    if (!size_of(kind, from, &n, e)) {
        return false;
    }
    for (size_t i = kind->now; i < n; i++) {
        if (((const unsigned char *)from)[i] != 0) {
            return err_set(e, ERR_UNSUPPORTED,
                           "byte %zu of a %s is set; libpare %s knows %zu bytes of it: the program needs a newer one",
                           i, kind->name, PARE_VERSION, kind->now);
        }
    }
    memcpy(out, from, n < kind->now ? n : kind->now);
    return true;
}

bool libpare_may_write(const struct_kind *kind, const void *to, err *e) {
    size_t n;
    return !to || size_of(kind, to, &n, e);
}

void libpare_write(const struct_kind *kind, void *to, const void *from) {
    size_t n, size = sizeof(size_t);
    if (!to || !size_of(kind, to, &n, NULL)) {
        return;
    }
    size_t both = n < kind->now ? n : kind->now;
    memcpy((char *)to + size, (const char *)from + size, both - size);
    memset((char *)to + both, 0, n - both);
}
