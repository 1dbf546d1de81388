#include "dialect/url.h"

#include <string.h>

static bool unreserved(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

bool url_segment(str *out, const char *text) {
    /* "." and ".." are unreserved and would still be taken out of the path by who normalises it; no model has that name. */
    bool dots = strcmp(text, ".") == 0 || strcmp(text, "..") == 0;
    for (; *text; text++) {
        if (unreserved(*text) && !dots) {
            str_addc(out, *text);
        } else {
            str_addf(out, "%%%02X", (unsigned)(unsigned char)*text);
        }
    }
    return !out->failed;
}

bool url_ends(const char *base, const char *path) {
    size_t n = strlen(base), m = strlen(path);
    return n >= m && strcmp(base + n - m, path) == 0;
}
