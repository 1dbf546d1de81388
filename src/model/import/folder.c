#include "model/import/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_JSON = 256 << 20 }; /* the largest tokenizer.json in use has 34 MB */

bool folder_name_ok(const char *name, size_t n) {
    if (n == 0 || n > 200 || name[0] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] <= 0x20 || name[i] == '/' || name[i] == '\\' || name[i] == 0x7f)
            return false;
    return true;
}

bool folder_path(arena *memory, const char *dir, const char *name, const char **path, err *e) {
    *path = arena_printf(memory, "%s/%s", dir, name);
    return *path || err_set(e, ERR_MEMORY, "out of memory");
}

bool folder_has(const char *dir, const char *name) {
    char        path[4096];
    struct stat st;
    int         n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n > 0 && n < (int)sizeof path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool read_all(int fd, char *out, size_t n, const char *path, err *e) {
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(fd, out + at, n - at, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(e, ERR_IO, "%.300s: cannot be read: %s", path,
                           got < 0 ? strerror(errno) : "the file has become shorter");
        at += (size_t)got;
    }
    return true;
}

bool folder_read(arena *memory, const char *dir, const char *name, size_t most, const char **text, size_t *n, err *e) {
    const char *path;
    struct stat st;
    if (!folder_path(memory, dir, name, &path, e))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        err_set(e, fd < 0 && errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%.300s: %s", path,
                fd < 0 ? strerror(errno) : "is not a file");
        if (fd >= 0)
            close(fd);
        return false;
    }
    bool  ok = (uint64_t)st.st_size <= most;
    char *data = ok ? arena_alloc(memory, (size_t)st.st_size + 1) : NULL;
    if (!ok)
        err_set(e, ERR_LIMIT, "%.300s: has %lld bytes, more than the %zu that pare takes", path, (long long)st.st_size,
                most);
    else if (!(ok = data != NULL))
        err_set(e, ERR_MEMORY, "%.300s: out of memory", path);
    ok = ok && read_all(fd, data, (size_t)st.st_size, path, e);
    close(fd);
    if (ok) {
        data[st.st_size] = '\0';
        *text = data;
        *n = (size_t)st.st_size;
    }
    return ok;
}

bool folder_json(arena *memory, const char *dir, const char *name, const tree **out, err *e) {
    const char *text;
    size_t      n;
    *out = NULL;
    if (!folder_has(dir, name))
        return true;
    if (!folder_read(memory, dir, name, MAX_JSON, &text, &n, e))
        return false;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark, which some editors leave */
        text += 3;
        n -= 3;
    }
    *out = tree_parse(memory, text, n, e);
    return *out || err_prefix(e, "%.200s/%s", dir, name);
}
