/* anthropic_blocks.c - content blocks of a client's request as parts of the neutral form.
 *
 * Text, images and documents that come with the request have a neutral form. All others (files of the provider's own
 * store, search results, results of its server tools, documents to cite from) mean something to Anthropic alone: they
 * stay as they are, and a target that cannot carry them names them.                                                  */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

bool anthropic_check_block(const cJSON *block, const char *where, err *e) {
    if (!cJSON_IsObject(block)) {
        return anthropic_wrong(where, "an object with a type", block, e);
    }
    const cJSON *type = neutral_get(block, "type");
    if (!cJSON_IsString(type)) {
        anthropic_place p = anthropic_at("%s.type", where);
        return anthropic_wrong(p.text, "a string", type, e);
    }
    return true;
}

/* The string member `key` of `object`, which stands at `where`. */
static const char *need_text(const cJSON *object, const char *where, const char *key, err *e) {
    const cJSON *value = neutral_get(object, key);
    if (!cJSON_IsString(value)) {
        anthropic_place p = anthropic_at("%s.%s", where, key);
        anthropic_wrong(p.text, "a string", value, e);
        return NULL;
    }
    return value->valuestring;
}

static bool put_text(cJSON *object, const char *key, const char *text, err *e) {
    return anthropic_put(object, key, cJSON_CreateString(text), e);
}

/* ---- parts ---- */

static bool fill_text(const cJSON *block, const char *where, cJSON *part, err *e) {
    const char *text = need_text(block, where, "text", e);
    return text && put_text(part, "type", "text", e) && put_text(part, "text", text, e);
}

/* A media type goes into a data URL, whose own marks it must not hold. */
static const char *need_media(const cJSON *source, const char *where, const char *begins, err *e) {
    const char *media = need_text(source, where, "media_type", e);
    if (media && (strncmp(media, begins, strlen(begins)) != 0 || strpbrk(media, ",; \t\r\n"))) {
        anthropic_place p = anthropic_at("%s.media_type", where);
        err_at(e, ERR_INVALID, p.text, "%s must be a media type that begins with %s, not \"%.40s\".", p.text, begins,
               media);
        return NULL;
    }
    return media;
}

static bool put_data_url(cJSON *object, const char *key, const char *media, const char *data, err *e) {
    str url = {0};
    str_reserve(&url, strlen(data) + strlen(media) + 16);
    str_adds(&url, "data:");
    str_adds(&url, media);
    str_adds(&url, ";base64,");
    str_adds(&url, data);
    bool good = anthropic_put(object, key, url.failed ? NULL : cJSON_CreateString(url.data), e);
    str_free(&url);
    return good;
}

static bool put_source(cJSON *object, const char *key, const cJSON *source, const char *where, const char *begins,
                       err *e) {
    const char *media = need_media(source, where, begins, e);
    const char *data = media ? need_text(source, where, "data", e) : NULL;
    return data && put_data_url(object, key, media, data, e);
}

static bool fill_image(const cJSON *block, const char *where, cJSON *part, err *e) {
    const cJSON    *source = neutral_get(block, "source");
    const char     *type = neutral_text(source, "type");
    anthropic_place p = anthropic_at("%s.source", where);
    cJSON          *image = cJSON_CreateObject();
    if (!put_text(part, "type", "image_url", e) || !anthropic_put(part, "image_url", image, e)) {
        return false;
    }
    if (strcmp(type, "url") == 0) {
        const char *url = need_text(source, p.text, "url", e);
        return url && put_text(image, "url", url, e);
    }
    return put_source(image, "url", source, p.text, "image/", e);
}

/* A document of plain text is text, under its title and context: what every model reads. */
static bool fill_plain_document(const cJSON *block, const char *where, cJSON *part, err *e) {
    anthropic_place p = anthropic_at("%s.source", where);
    const char     *data = need_text(neutral_get(block, "source"), p.text, "data", e);
    const char     *above[] = {neutral_text(block, "title"), neutral_text(block, "context")};
    str             text = {0};
    if (!data) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (above[i] && above[i][0]) {
            str_adds(&text, above[i]);
            str_adds(&text, "\n\n");
        }
    }
    str_adds(&text, data);
    bool good = put_text(part, "type", "text", e) &&
                anthropic_put(part, "text", text.failed ? NULL : cJSON_CreateString(text.data ? text.data : ""), e);
    str_free(&text);
    return good;
}

static bool fill_document(const cJSON *block, const char *where, cJSON *part, err *e) {
    const char *title = neutral_text(block, "title");
    cJSON      *file = cJSON_CreateObject();
    if (strcmp(neutral_text(neutral_get(block, "source"), "type"), "text") == 0) {
        cJSON_Delete(file);
        return fill_plain_document(block, where, part, e);
    }
    anthropic_place p = anthropic_at("%s.source", where);
    return anthropic_put(part, "file", file, e) && put_text(part, "type", "file", e) &&
           put_text(file, "filename", title && title[0] ? title : "document.pdf", e) &&
           put_source(file, "file_data", neutral_get(block, "source"), p.text, "application/", e);
}

static bool source_is(const cJSON *block, const char *one, const char *other) {
    const char *type = neutral_text(neutral_get(block, "source"), "type");
    return type && (strcmp(type, one) == 0 || strcmp(type, other) == 0);
}

/* Citations are an answer's form that no other API has; a PDF's context has no place beside OpenAI's file. */
static bool plain_document(const cJSON *block) {
    bool cited = cJSON_IsTrue(neutral_get(neutral_get(block, "citations"), "enabled"));
    bool titled = source_is(block, "text", "text") || !neutral_get(block, "context");
    return source_is(block, "base64", "text") && !cited && titled;
}

static bool check_source(const cJSON *block, const char *where, err *e) {
    const cJSON    *source = neutral_get(block, "source");
    anthropic_place p = anthropic_at("%s.source", where);
    if (!cJSON_IsObject(source)) {
        return anthropic_wrong(p.text, "an object with a type", source, e);
    }
    return need_text(source, p.text, "type", e) != NULL;
}

cJSON *anthropic_read_block(const cJSON *block, const char *where, err *e) {
    if (!anthropic_check_block(block, where, e)) {
        return NULL;
    }
    const char *type = neutral_text(block, "type");
    bool (*fill)(const cJSON *, const char *, cJSON *, err *) = NULL;
    if (strcmp(type, "text") == 0) {
        fill = fill_text;
    } else if (strcmp(type, "image") == 0 || strcmp(type, "document") == 0) {
        if (!check_source(block, where, e)) {
            return NULL;
        }
        if (type[0] == 'i' && source_is(block, "base64", "url")) {
            fill = fill_image;
        } else if (type[0] == 'd' && plain_document(block)) {
            fill = fill_document;
        }
    }
    cJSON *part = fill ? cJSON_CreateObject() : cJSON_Duplicate(block, true);
    if (!part) {
        err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
        return NULL;
    }
    if (fill && !(fill(block, where, part, e) &&
                  anthropic_copy(part, "cache_control", neutral_get(block, "cache_control"), e))) {
        cJSON_Delete(part);
        return NULL;
    }
    return part;
}

cJSON *anthropic_read_blocks(const cJSON *blocks, const char *where, err *e) {
    cJSON       *parts = cJSON_CreateArray();
    int          i = 0;
    const cJSON *block;
    cJSON_ArrayForEach(block, blocks) {
        anthropic_place p = anthropic_at("%s[%d]", where, i++);
        cJSON          *part = anthropic_read_block(block, p.text, e);
        if (!part || !anthropic_append(parts, part, e)) {
            cJSON_Delete(parts);
            return NULL;
        }
    }
    if (!parts) {
        err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
    }
    return parts;
}

/* The string is a shorthand for the part, and the form in which a cache key and templates know it. */
cJSON *anthropic_fold(cJSON *parts) {
    cJSON      *only = parts ? parts->child : NULL;
    const char *type = only && !only->next ? neutral_text(only, "type") : NULL;
    if (!type || strcmp(type, "text") != 0 || cJSON_GetArraySize(only) != 2 || !neutral_text(only, "text")) {
        return parts;
    }
    cJSON *text = cJSON_DetachItemFromObjectCaseSensitive(only, "text");
    cJSON_Delete(parts);
    return text;
}
