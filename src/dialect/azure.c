/* azure.c - OpenAI's models as Azure serves them: the same bodies at other addresses, with the key in another header.
 *
 * Two forms of address: the older one names a deployment in the path and a version in the query
 * (NAME.openai.azure.com/openai/deployments/MODEL/chat/completions?api-version=...); the newer one, whose base ends in
 * /openai/v1, has OpenAI's own paths, the model in the body and needs no version. Source: Azure OpenAI REST API reference
 * and its page on API versions.                                                                                       */
#include "dialect/openai.h"
#include "dialect/url.h"

#define VERSION "2024-10-21" /* the last version of the older form that is not a preview */

/* NULL: Azure has no rerank here. */
static const char *const paths[] = {[REQUEST_CHAT] = "/chat/completions",
                                    [REQUEST_COMPLETION] = "/completions",
                                    [REQUEST_EMBEDDINGS] = "/embeddings",
                                    [REQUEST_RERANK] = NULL};

static bool write_url(const place_of *p, str *out) {
    bool        newer = url_ends(p->base, "/openai/v1");
    const char *version = p->api_version && p->api_version[0] ? p->api_version : newer ? NULL : VERSION;
    if (!paths[p->kind]) {
        return false;
    }
    str_adds(out, p->base);
    if (!newer) {
        str_adds(out, url_ends(p->base, "/openai") ? "/deployments/" : "/openai/deployments/");
        url_segment(out, p->model);
    }
    str_adds(out, paths[p->kind]);
    if (version) {
        str_adds(out, "?api-version=");
        url_segment(out, version);
    }
    return !out->failed;
}

const dialect dialect_azure = {
    .name = "azure",
    .as = &dialect_openai,
    .write_url = write_url,
    .key_header = "api-key: ",
    .write_request = openai_write_request,
    .read_answer = openai_read_answer,
    .read_chunk = openai_read_chunk,
};

const dialect dialect_azure_own = {
    .name = "azure",
    .as = &dialect_openai,
    .write_url = write_url,
    .key_header = "api-key: ",
    .write_request = openai_write_own,
    .read_answer = openai_read_answer,
    .read_chunk = openai_read_chunk,
};
