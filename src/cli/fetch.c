#include <curl/curl.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"

#define MAX_ANSWER ((size_t)256 << 20)

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    str *out = arg;
    return out->len + size * count <= MAX_ANSWER && str_add(out, bytes, size * count) ? size * count : 0;
}

bool cli_fetch(const char *method, const char *url, const char *key, str *out, long *status, err *e) {
    CURL              *easy = curl_easy_init();
    struct curl_slist *headers = NULL;
    str                line = {0};
    if (!easy) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    if (key) {
        str_addf(&line, "Authorization: Bearer %s", key);
        headers = curl_slist_append(NULL, line.data ? line.data : "");
    }
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, out);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 3000L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 60000L);
    CURLcode code = curl_easy_perform(easy);
    *status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
    str_free(&line);
    return code == CURLE_OK || err_set(e, ERR_IO, "%s cannot be reached (%s).", url, curl_easy_strerror(code));
}

void cli_server_error(const str *body, long status, err *e) {
    err          ignored = {0};
    cJSON       *json = json_parse(body->data ? body->data : "", body->len, JSON_MAX_DEPTH, &ignored);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message");
    err_set(e, ERR_INVALID, "The server answered %ld: %.300s", status,
            cJSON_IsString(message) ? message->valuestring
            : body->data            ? body->data
                                    : "(nothing)");
    cJSON_Delete(json);
}
