/* gemini_parts.c - one part of a content: text, or bytes (images, sounds, documents) inline or by address. */
#include "dialect/gemini.h"

#include <string.h>
#include <strings.h>

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

bool gemini_write_text(gemini_writer *w, const char *text, bool thought, const char *signature, const char **comma) {
    str_addf(w->out, "%s{\"text\":", *comma);
    str_jsons(w->out, text);
    str_adds(w->out, thought ? ",\"thought\":true" : "");
    if (signature) {
        str_adds(w->out, ",\"thoughtSignature\":");
        str_jsons(w->out, signature);
    }
    *comma = ",";
    return str_addc(w->out, '}');
}

/* ---- bytes ---- */

/* What an address or a name ends in. The API asks for the type of most files by address, and who sends one in OpenAI's form
 * cannot say it. */
static const char *type_by_name(const char *name) {
    static const struct {
        const char *ending, *type;
    } types[] = {
        {".png", "image/png"},         {".jpg", "image/jpeg"},     {".jpeg", "image/jpeg"}, {".webp", "image/webp"},
        {".gif", "image/gif"},         {".heic", "image/heic"},    {".heif", "image/heif"}, {".pdf", "application/pdf"},
        {".txt", "text/plain"},        {".md", "text/markdown"},   {".html", "text/html"},  {".csv", "text/csv"},
        {".json", "application/json"}, {".xml", "text/xml"},       {".mp3", "audio/mp3"},   {".wav", "audio/wav"},
        {".flac", "audio/flac"},       {".ogg", "audio/ogg"},      {".aac", "audio/aac"},   {".mp4", "video/mp4"},
        {".webm", "video/webm"},       {".mov", "video/quicktime"}};
    size_t n = strcspn(name, "?#");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        size_t m = strlen(types[i].ending);
        if (n > m && strncasecmp(name + n - m, types[i].ending, m) == 0) {
            return types[i].type;
        }
    }
    return NULL;
}

/* Of "text/plain;charset=utf-8" the API takes the type alone. */
static size_t bare_type(const char *type, size_t n) {
    const char *end = memchr(type, ';', n);
    return end ? (size_t)(end - type) : n;
}

static bool write_inline(gemini_writer *w, const char *type, size_t type_n, const char *base64, size_t n,
                         const char **comma) {
    str_addf(w->out, "%s{\"inlineData\":{\"mimeType\":", *comma);
    str_json(w->out, type, type_n);
    str_adds(w->out, ",\"data\":");
    str_json(w->out, base64, n);
    *comma = ",";
    return str_adds(w->out, "}}");
}

static bool has_scheme(const char *url) {
    static const char *const schemes[] = {"https://", "http://", "gs://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* The address is handed on: the provider fetches it, pare does not. */
static bool write_address(gemini_writer *w, const char *url, const char **comma) {
    const char *type = type_by_name(url);
    str_addf(w->out, "%s{\"fileData\":{", *comma);
    if (type) {
        str_addf(w->out, "\"mimeType\":\"%s\",", type);
    }
    str_adds(w->out, "\"fileUri\":");
    str_jsons(w->out, url);
    *comma = ",";
    return str_adds(w->out, "}}");
}

/* `otherwise`: the type of a data: URL that does not say it. */
static bool write_url(gemini_writer *w, const char *url, const char *otherwise, const gemini_place *place,
                      const char *member, const char **comma) {
    data_url data;
    if (neutral_data_url(url, &data)) {
        size_t n = bare_type(data.media, data.media_len);
        return write_inline(w, n ? data.media : otherwise, n ? n : strlen(otherwise), data.base64, data.base64_len,
                            comma);
    }
    if (has_scheme(url)) {
        return write_address(w, url, comma);
    }
    gemini_place p = gemini_at("%.60s.%s", place->text, member);
    return err_at(w->e, ERR_INVALID, p.text, "%s must be a URL (https:, gs:) or a data: URL with base64 in it.",
                  p.text);
}

static bool missing(gemini_writer *w, const gemini_place *place, const char *member) {
    gemini_place p = gemini_at("%.60s.%s", place->text, member);
    return err_at(w->e, ERR_INVALID, p.text, "%s is missing: it must be a string.", p.text);
}

/* The API has one resolution for all images of a request, so details that differ cannot be carried. */
static bool keep_detail(gemini_writer *w, const char *detail, const gemini_place *place) {
    if (!detail || is(detail, "auto") || is(w->detail, detail)) {
        return true;
    }
    if (!w->detail && (is(detail, "low") || is(detail, "high"))) {
        w->detail = detail;
        return true;
    }
    return gemini_drop(w, gemini_at("%.60s.image_url.detail", place->text).text);
}

static bool write_image(gemini_writer *w, const cJSON *part, const gemini_place *place, const char **comma) {
    const cJSON *image = neutral_get(part, "image_url");
    const char  *url = cJSON_IsString(image) ? image->valuestring : neutral_text(image, "url");
    return url ? keep_detail(w, neutral_text(image, "detail"), place) &&
                     write_url(w, url, "image/png", place, "image_url.url", comma)
               : missing(w, place, "image_url.url");
}

static bool write_sound(gemini_writer *w, const cJSON *part, const gemini_place *place, const char **comma) {
    const cJSON *sound = neutral_get(part, "input_audio");
    const char  *data = neutral_text(sound, "data"), *format = neutral_text(sound, "format");
    if (!data || !format) {
        return missing(w, place, data ? "input_audio.format" : "input_audio.data");
    }
    gemini_place type = gemini_at("audio/%.40s", format);
    return write_inline(w, type.text, strlen(type.text), data, strlen(data), comma);
}

/* file_data is a data: URL or plain base64; file_id may be the address of a file that the provider keeps. */
static bool write_file(gemini_writer *w, const cJSON *part, const gemini_place *place, const char **comma) {
    const cJSON *file = neutral_get(part, "file");
    const char  *data = neutral_text(file, "file_data"), *id = neutral_text(file, "file_id");
    const char  *name = neutral_text(file, "filename");
    const char  *type = name ? type_by_name(name) : NULL;
    type = type ? type : "application/pdf"; /* the only kind that OpenAI's API takes without a name */
    if (data) {
        return strncmp(data, "data:", 5) == 0 || has_scheme(data)
                   ? write_url(w, data, type, place, "file.file_data", comma)
                   : write_inline(w, type, strlen(type), data, strlen(data), comma);
    }
    if (id) {
        return has_scheme(id) ? write_address(w, id, comma)
                              : gemini_drop(w, gemini_at("%.60s.file.file_id", place->text).text);
    }
    return missing(w, place, "file.file_data");
}

/* ---- any part ---- */

bool gemini_is_text(const cJSON *part) {
    const char *type = neutral_text(part, "type");
    return (is(type, "text") && neutral_text(part, "text")) || (is(type, "refusal") && neutral_text(part, "refusal"));
}

bool gemini_is_bytes(const cJSON *part) {
    const cJSON *image = neutral_get(part, "image_url");
    const char  *url = cJSON_IsString(image) ? image->valuestring : neutral_text(image, "url");
    url = url ? url : neutral_text(neutral_get(part, "file"), "file_data");
    return neutral_get(part, "input_audio") || (url && !has_scheme(url));
}

/* Members of a part beside its type and what the type names. */
static bool check_members(gemini_writer *w, const cJSON *part, const char *type, const gemini_place *place) {
    const cJSON *m;
    cJSON_ArrayForEach(m, part) {
        if (cJSON_IsNull(m) || is(m->string, "type") || is(m->string, type)) {
            continue;
        }
        if (is(m->string, "cache_control")) {
            drop_hint(w->r->drops, "cache_control");
        } else if ((!cJSON_IsArray(m) && !cJSON_IsObject(m)) || m->child) {
            if (!gemini_drop(w, gemini_at("%.60s.%.40s", place->text, m->string).text)) {
                return false;
            }
        }
    }
    return true;
}

bool gemini_write_part(gemini_writer *w, const cJSON *part, const gemini_place *place, const char **comma) {
    const char *type = neutral_text(part, "type");
    if (gemini_is_text(part)) {
        const char *text = neutral_text(part, type);
        return check_members(w, part, type, place) && (!text[0] || gemini_write_text(w, text, false, NULL, comma));
    }
    if (is(type, "image_url")) {
        return check_members(w, part, type, place) && write_image(w, part, place, comma);
    }
    if (is(type, "input_audio")) {
        return check_members(w, part, type, place) && write_sound(w, part, place, comma);
    }
    if (is(type, "file")) {
        return check_members(w, part, type, place) && write_file(w, part, place, comma);
    }
    return gemini_drop(w, place->text);
}
