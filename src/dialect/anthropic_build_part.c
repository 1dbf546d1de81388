/* anthropic_build_part.c - one part of a neutral content as a content block. */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

static bool is_web(const char *url) {
    return strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0;
}

static bool write_base64(const data_url *url, str *out) {
    str_adds(out, ",\"source\":{\"type\":\"base64\",\"media_type\":");
    str_json(out, url->media, url->media_len);
    str_adds(out, ",\"data\":");
    str_json(out, url->base64, url->base64_len);
    return str_addc(out, '}');
}

static bool write_image(const cJSON *part, const char *where, drops *d, str *out, err *e) {
    const cJSON    *image = neutral_get(part, "image_url");
    const char     *url = neutral_text(image, "url"), *detail = neutral_text(image, "detail");
    anthropic_place p = anthropic_at("%s.image_url.url", where);
    data_url        data;
    if (!url) {
        return anthropic_wrong(p.text, "an https: or data: URL", neutral_get(image, "url"), e);
    }
    if (detail && strcmp(detail, "auto") != 0) {
        drop_hint(d, "image_url.detail"); /* the size decides there */
    }
    if (neutral_data_url(url, &data)) {
        str_adds(out, "{\"type\":\"image\"");
        return write_base64(&data, out);
    }
    if (!is_web(url)) {
        return err_at(e, ERR_INVALID, p.text, "%s must be an https: URL, or a data: URL in base64.", p.text);
    }
    str_adds(out, "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":");
    str_jsons(out, url);
    return str_addc(out, '}');
}

/* A file that came along as bytes. Ids name files in another provider's store. */
static bool write_file(const cJSON *part, const char *where, drops *d, str *out, err *e) {
    static const char pdf[] = "application/pdf";
    const cJSON      *file = neutral_get(part, "file");
    const char       *name = neutral_text(file, "filename");
    anthropic_place   p = anthropic_at("%s.file.%s", where, neutral_get(file, "file_data") ? "file_data" : "file_id");
    data_url          data;
    if (!neutral_data_url(neutral_text(file, "file_data"), &data) || data.media_len != sizeof pdf - 1 ||
        memcmp(data.media, pdf, sizeof pdf - 1) != 0) {
        return drop_member(d, p.text, ANTHROPIC_TARGET, e);
    }
    str_adds(out, "{\"type\":\"document\"");
    if (name) {
        str_adds(out, ",\"title\":");
        str_jsons(out, name);
    }
    return write_base64(&data, out);
}

static bool write_words(const cJSON *part, const char *key, const char *where, str *out, err *e) {
    const cJSON    *words = neutral_get(part, key);
    anthropic_place p = anthropic_at("%s.%s", where, key);
    if (!cJSON_IsString(words)) {
        return anthropic_wrong(p.text, "a string", words, e);
    }
    if (!words->valuestring[0]) {
        return true; /* the API refuses empty text blocks */
    }
    str_adds(out, "{\"type\":\"text\",\"text\":");
    return str_jsons(out, words->valuestring);
}

/* Adds nothing where the part is dropped, or holds no words. */
bool anthropic_build_part(const cJSON *part, const char *where, drops *d, str *out, err *e) {
    const char  *type = neutral_text(part, "type");
    const cJSON *mark = neutral_get(part, "cache_control");
    size_t       before = out->len;
    bool         good;
    if (!type) {
        anthropic_place p = anthropic_at("%s.type", where);
        return anthropic_wrong(p.text, "a string", neutral_get(part, "type"), e);
    }
    const char *const carried[] = {"type", type, "cache_control", NULL};
    bool              known = strcmp(type, "text") == 0 || strcmp(type, "refusal") == 0 || strcmp(type, "file") == 0 ||
                 strcmp(type, "image_url") == 0;
    if (known && !anthropic_rest(part, carried, where, d, e)) {
        return false;
    }
    if (strcmp(type, "text") == 0 || strcmp(type, "refusal") == 0) {
        good = write_words(part, type, where, out, e);
    } else if (strcmp(type, "image_url") == 0) {
        good = write_image(part, where, d, out, e);
    } else if (strcmp(type, "file") == 0) {
        good = write_file(part, where, d, out, e);
    } else {
        anthropic_place p = anthropic_at("%s.type", where);
        return drop_member(d, p.text, ANTHROPIC_TARGET, e);
    }
    if (!good || out->len == before) {
        return good;
    }
    if (mark) {
        str_adds(out, ",\"cache_control\":");
        json_write(mark, out);
    }
    return str_addc(out, '}') || err_set(e, ERR_MEMORY, "Out of memory while writing a request.");
}
