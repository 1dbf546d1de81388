/* download_state.c - which bytes of an unfinished file are there, in memory and at rest. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "store/download_parts.h"

#define MAX_STATE (64 << 10)

void state_begin(download_state *s, int64_t size) {
    *s = (download_state){.size = size > 0 ? size : -1, .n = 1};
    s->segments[0].end = size > 0 ? size : INT64_MAX;
}

int64_t state_done(const download_state *s) {
    int64_t done = 0;
    for (int i = 0; i < s->n; i++) {
        done += s->segments[i].at - s->segments[i].begin;
    }
    return done;
}

bool state_complete(const download_state *s) {
    for (int i = 0; i < s->n; i++) {
        if (s->segments[i].at < s->segments[i].end) {
            return false;
        }
    }
    return true;
}

void state_split(download_state *s, int wanted, int64_t piece) {
    for (;;) {
        int unfinished = 0, largest = 0;
        for (int i = 0; i < s->n; i++) {
            const segment *g = &s->segments[i], *best = &s->segments[largest];
            unfinished += g->at < g->end;
            largest = g->end - g->at > best->end - best->at ? i : largest;
        }
        segment *g = &s->segments[largest];
        int64_t  left = g->end - g->at;
        if (s->n == DOWNLOAD_SEGMENTS || unfinished >= wanted || left / 2 < piece || left < 2) {
            return;
        }
        int64_t middle = g->end - left / 2;
        /* At the end of the table, so that the segments that transfers point at stay where they are; saving sorts. */
        s->segments[s->n++] = (segment){.begin = middle, .at = middle, .end = g->end};
        g->end = middle;
    }
}

/* ---- at rest ---- */

static int by_begin(const void *a, const void *b) {
    const segment *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static bool write_file(const char *path, const str *text) {
    char *fresh = NULL;
    if (asprintf(&fresh, "%s.new", path) < 0) {
        return false;
    }
    int    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool   ok = fd >= 0;
    size_t at = 0;
    while (ok && at < text->len) {
        ssize_t n = write(fd, text->data + at, text->len - at);
        ok = n > 0;
        at += ok ? (size_t)n : 0;
    }
    ok = ok && fdatasync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    ok = ok && rename(fresh, path) == 0;
    if (!ok) {
        unlink(fresh);
    }
    free(fresh);
    return ok;
}

bool state_save(const char *path, const char *source, const char *sha256, const download_state *s) {
    str            out = {0};
    download_state sorted = *s;
    qsort(sorted.segments, (size_t)sorted.n, sizeof *sorted.segments, by_begin);
    str_adds(&out, "{\"source\":");
    str_jsons(&out, source);
    str_adds(&out, ",\"sha256\":");
    str_jsons(&out, sha256);
    str_addf(&out, ",\"size\":%lld,\"etag\":", (long long)s->size);
    str_jsons(&out, s->etag);
    str_adds(&out, ",\"modified\":");
    str_jsons(&out, s->modified);
    str_adds(&out, ",\"segments\":[");
    for (int i = 0; i < sorted.n; i++) {
        const segment *g = &sorted.segments[i];
        str_addf(&out, "%s[%lld,%lld,%lld]", i ? "," : "", (long long)g->begin, (long long)g->at, (long long)g->end);
    }
    str_adds(&out, "]}\n");
    bool ok = !out.failed && write_file(path, &out);
    str_free(&out);
    return ok;
}

static bool read_segments(const cJSON *list, download_state *s) {
    int64_t      expected = 0;
    const cJSON *item;
    if (!cJSON_IsArray(list)) {
        return false;
    }
    cJSON_ArrayForEach(item, list) {
        const cJSON *b = cJSON_GetArrayItem(item, 0), *a = cJSON_GetArrayItem(item, 1),
                    *z = cJSON_GetArrayItem(item, 2);
        const cJSON *all[] = {b, a, z};
        for (int i = 0; i < 3; i++) {
            if (!cJSON_IsNumber(all[i]) || !(all[i]->valuedouble >= 0 && all[i]->valuedouble <= (double)s->size)) {
                return false;
            }
        }
        segment g = {(int64_t)b->valuedouble, (int64_t)a->valuedouble, (int64_t)z->valuedouble};
        if (s->n == DOWNLOAD_SEGMENTS || g.begin != expected || g.at < g.begin || g.end < g.at) {
            return false;
        }
        s->segments[s->n++] = g;
        expected = g.end;
    }
    return expected == s->size;
}

static bool copy_text(const cJSON *json, const char *key, char *out, size_t size) {
    const char *text = NULL;
    if (!json_get_string(json, "", key, &text, NULL) || !text || strlen(text) >= size) {
        return false;
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool read_state(const cJSON *json, const char *source, const char *sha256, download_state *s) {
    const char *from = NULL, *digest = NULL;
    int64_t     size = 0;
    if (!json_get_string(json, "", "source", &from, NULL) || !json_get_string(json, "", "sha256", &digest, NULL) ||
        !json_get_int(json, "", "size", 1, INT64_C(1) << 53, &size, NULL) || size == 0 || !from ||
        strcmp(from, source) != 0) {
        return false;
    }
    if (digest && sha256 ? strcasecmp(digest, sha256) != 0 : digest || sha256) {
        return false;
    }
    *s = (download_state){.size = size};
    return copy_text(json, "etag", s->etag, sizeof s->etag) &&
           copy_text(json, "modified", s->modified, sizeof s->modified) &&
           read_segments(cJSON_GetObjectItemCaseSensitive(json, "segments"), s);
}

bool state_load(const char *path, const char *source, const char *sha256, download_state *out) {
    FILE *f = fopen(path, "rbe");
    char *text = f ? malloc(MAX_STATE) : NULL;
    bool  ok = false;
    if (text) {
        size_t n = fread(text, 1, MAX_STATE, f);
        cJSON *json = n < MAX_STATE ? json_parse(text, n, 8, NULL) : NULL;
        ok = json && read_state(json, source, sha256, out);
        cJSON_Delete(json);
    }
    free(text);
    if (f) {
        fclose(f);
    }
    return ok;
}
