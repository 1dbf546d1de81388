/* models_source.c - from what a person writes to one file on one server: its address, size and checksum.
 *
 * Sources: the Hugging Face hub's API (GET /api/models/OWNER/REPO/revision/REV?blobs=true lists `siblings` with
 * rfilename, size and, for large files, lfs.sha256; /OWNER/REPO/resolve/REV/FILE is the file), and the registry that
 * ollama uses (the Docker registry's HTTP API, version 2: a manifest's layers by media type and digest).               */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "store/download_parts.h"
#include "store/models.h"

#define MODEL_LAYER   "application/vnd.ollama.image.model"
#define MANIFEST_TYPE "application/vnd.docker.distribution.manifest.v2+json"

/* Among the types of a repository: small and good first, then what is left. */
static const char *const preferred[] = {"Q4_K_M", "Q4_0",   "Q8_0", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q6_K",
                                        "Q4_1",   "IQ4_NL", "Q5_0", "Q5_1",   "IQ4_XS", "Q3_K_M", "Q3_K_L",
                                        "Q3_K_S", "Q2_K",   "BF16", "F16",    "F32",    NULL};

static const char *const types[] = {
    "Q4_K_M",  "Q4_K_S", "Q4_K_L", "Q4_K_XL", "Q5_K_M",  "Q5_K_S", "Q5_K_L", "Q5_K_XL", "Q6_K_L", "Q6_K_XL",
    "Q6_K",    "Q3_K_M", "Q3_K_S", "Q3_K_L",  "Q3_K_XL", "Q2_K_S", "Q2_K_L", "Q2_K_XL", "Q2_K",   "Q8_K_XL",
    "Q4_K",    "Q5_K",   "Q3_K",   "Q8_0",    "Q4_0",    "Q4_1",   "Q5_0",   "Q5_1",    "IQ4_NL", "IQ4_XS",
    "IQ3_XXS", "IQ3_XS", "IQ3_S",  "IQ3_M",   "IQ2_XXS", "IQ2_XS", "IQ2_S",  "IQ2_M",   "IQ1_S",  "IQ1_M",
    "TQ1_0",   "TQ2_0",  "MXFP4",  "BF16",    "FP16",    "F16",    "FP32",   "F32",     NULL};

/* ---- names of files ---- */

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool word_byte(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* "Q4_K" is in "m-q4_k.gguf", not in "m-Q4_K_M.gguf". */
static bool names_type(const char *file, const char *type) {
    const char *base = base_of(file);
    size_t      n = strlen(type);
    for (const char *p = base; n && *p; p++) {
        if (strncasecmp(p, type, n) == 0 && !word_byte(p[n]) && (p == base || !isalnum((unsigned char)p[-1]))) {
            return true;
        }
    }
    return false;
}

void model_type_of(const char *file_name, char *out, size_t size) {
    out[0] = '\0';
    for (int i = 0; types[i]; i++) {
        if (names_type(file_name, types[i])) {
            snprintf(out, size, "%s", types[i]);
            return;
        }
    }
}

/* "-00001-of-00003.gguf": a part of a model in several files. One of one is whole. */
static bool is_split(const char *file) {
    static const char pattern[] = "-ddddd-of-ddddd.gguf";
    size_t            n = strlen(file), k = sizeof pattern - 1;
    if (n < k) {
        return false;
    }
    const char *end = file + n - k;
    for (size_t i = 0; i < k; i++) {
        if (pattern[i] == 'd' ? !isdigit((unsigned char)end[i]) : tolower((unsigned char)end[i]) != pattern[i]) {
            return false;
        }
    }
    return strtol(end + sizeof "-ddddd-of-" - 1, NULL, 10) > 1;
}

static bool is_gguf(const char *file) {
    size_t n = strlen(file);
    return n > 5 && strcasecmp(file + n - 5, ".gguf") == 0;
}

/* Projectors and importance matrices lie beside models; nobody means them who does not name them. */
static bool is_model(const char *file) {
    return is_gguf(file) && !strcasestr(base_of(file), "mmproj") && !strcasestr(base_of(file), "imatrix");
}

/* ---- texts ---- */

static void escape(str *out, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (isalnum(*p) || strchr("-._~/", *p)) {
            str_addc(out, (char)*p);
        } else {
            str_addf(out, "%%%02X", *p);
        }
    }
}

/* `slashes` parts with one slash between each, of the characters that both registries allow. */
static bool plain_words(const char *text, int slashes_min, int slashes_max) {
    int  slashes = 0;
    char before = '/';
    for (const char *p = text; *p; before = *p++) {
        bool word = isalnum((unsigned char)*p) || strchr("._-", *p);
        if (!word && !(*p == '/' && before != '/')) {
            return false;
        }
        if (*p == '.' && before == '/') {
            return false;
        }
        slashes += *p == '/';
    }
    return before != '/' && slashes >= slashes_min && slashes <= slashes_max;
}

static bool endpoint_of(const char *variable, const char *usual, char *out, size_t size, err *e) {
    const char *set = getenv(variable);
    int         n = snprintf(out, size, "%s", set && *set ? set : usual);
    while (n > 0 && (size_t)n < size && out[n - 1] == '/') {
        out[--n] = '\0';
    }
    return (n > 0 && (size_t)n < size && url_plain_or_tls(out)) ||
           err_set(e, ERR_INVALID, "%s must be an http or https address, not \"%.100s\".", variable, set ? set : "");
}

static bool set_digest(const char *hex, char *out, err *e) {
    uint8_t bytes[32];
    if (!hex_decode(hex, bytes, sizeof bytes)) {
        return err_set(e, ERR_UPSTREAM, "The server gives \"%.80s\" as a SHA-256, which it is not.", hex);
    }
    hex_encode(bytes, sizeof bytes, out);
    return true;
}

/* ---- the Hugging Face hub ---- */

typedef struct hub_name {
    char repository[200], revision[100], wanted[256]; /* wanted: FILE, TYPE or empty */
} hub_name;

static bool read_hub_name(const char *text, hub_name *out, err *e) {
    const char *at = strchr(text, '@'), *colon = strchr(text, ':');
    at = at && colon && at > colon ? NULL : at;
    size_t repository = strcspn(text, "@:");
    size_t revision = at ? strcspn(at + 1, ":") : 0;
    *out = (hub_name){.revision = "main"};
    bool fits = repository < sizeof out->repository && revision < sizeof out->revision &&
                (!colon || strlen(colon + 1) < sizeof out->wanted);
    if (fits) {
        memcpy(out->repository, text, repository);
        snprintf(out->wanted, sizeof out->wanted, "%s", colon ? colon + 1 : "");
    }
    if (fits && at) {
        memcpy(out->revision, at + 1, revision);
        out->revision[revision] = '\0';
    }
    return (fits && plain_words(out->repository, 1, 1) && plain_words(out->revision, 0, 4)) ||
           err_set(e, ERR_INVALID,
                   "\"hf:%.150s\" is not a repository; write hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M or "
                   "hf:OWNER/REPO:FILE.gguf.",
                   text);
}

typedef struct choice {
    const cJSON *file; /* the first that fits */
    int          whole, split;
    str          names; /* of those that fit, for the sentence */
} choice;

static const char *file_name(const cJSON *file) {
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file, "rfilename"));
    return name ? name : "";
}

static void add_choice(choice *c, const cJSON *file) {
    const char *name = file_name(file);
    bool        split = is_split(name);
    if (!split && c->whole++ == 0) {
        c->file = file;
    }
    c->split += split;
    if (c->names.len < 240 && !split) {
        str_addf(&c->names, "%s", c->names.len ? ", " : "");
        for (const char *p = name; *p && c->names.len < 300; p++) {
            str_addc(&c->names, *p >= 0x20 && *p < 0x7f ? *p : '?');
        }
    }
}

static void gather(const cJSON *files, const char *type, choice *c) {
    const cJSON *file;
    cJSON_ArrayForEach(file, files) {
        if (is_model(file_name(file)) && (!type || names_type(file_name(file), type))) {
            add_choice(c, file);
        }
    }
}

static const cJSON *exact_file(const cJSON *files, const char *wanted) {
    const cJSON *file, *found = NULL;
    cJSON_ArrayForEach(file, files) {
        if (strcmp(file_name(file), wanted) == 0) {
            return file;
        }
        if (strcmp(base_of(file_name(file)), wanted) == 0) {
            found = file;
        }
    }
    return found;
}

static bool no_split(const char *repository, err *e) {
    return err_set(e, ERR_UNSUPPORTED,
                   "%s has this model in several files only (-00001-of-0000N.gguf), which pare cannot open; choose a "
                   "type that is one file, or join them with llama-gguf-split --merge.",
                   repository);
}

/* With a type or without: the one whole file, or a sentence with those there are. */
static const cJSON *choose_among(const cJSON *files, const hub_name *n, err *e) {
    choice all = {0}, c = {0};
    gather(files, NULL, &all);
    if (n->wanted[0]) {
        gather(files, n->wanted, &c);
    } else if (all.whole == 1) {
        gather(files, NULL, &c);
    }
    for (int i = 0; !n->wanted[0] && c.whole == 0 && preferred[i]; i++) {
        str_free(&c.names);
        c = (choice){0};
        gather(files, preferred[i], &c);
    }
    const cJSON *found = NULL;
    if (c.whole == 1) {
        found = c.file;
    } else if (c.whole > 1) {
        err_set(e, ERR_INVALID, "%s has several files that fit; name one behind a colon: %.300s.", n->repository,
                c.names.data);
    } else if (c.split > 0 || (all.whole == 0 && all.split > 0)) {
        no_split(n->repository, e);
    } else if (all.whole == 0) {
        err_set(e, ERR_NOT_FOUND,
                "%s has no GGUF file. Look for a repository of the same model whose name ends in -GGUF.",
                n->repository);
    } else {
        err_set(e, ERR_NOT_FOUND, "%s has no %s; there is: %.300s.", n->repository,
                n->wanted[0] ? n->wanted : "file of a usual type, name one behind a colon", all.names.data);
    }
    str_free(&all.names);
    str_free(&c.names);
    return found;
}

static const cJSON *choose(const cJSON *files, const hub_name *n, err *e) {
    const cJSON *exact = n->wanted[0] ? exact_file(files, n->wanted) : NULL;
    if (exact && is_split(file_name(exact))) {
        no_split(n->repository, e);
        return NULL;
    }
    if (exact && !is_gguf(file_name(exact))) {
        err_set(e, ERR_INVALID, "%.150s is not a GGUF file; pare opens no other.", n->wanted);
        return NULL;
    }
    return exact ? exact : choose_among(files, n, e);
}

static bool take_hub_file(const cJSON *json, const cJSON *file, const hub_name *n, model_source *out, err *e) {
    const cJSON *lfs = cJSON_GetObjectItemCaseSensitive(file, "lfs");
    const char  *digest = NULL, *commit = NULL, *name = file_name(file);
    uint8_t      bytes[20];
    if (!json_get_int(file, "", "size", 0, INT64_C(1) << 50, &out->size, e) ||
        !json_get_string(json, "", "sha", &commit, e) ||
        (cJSON_IsObject(lfs) && !json_get_string(lfs, "", "sha256", &digest, e)) ||
        (digest && !set_digest(digest, out->sha256, e))) {
        return false;
    }
    if (!models_name_from(name, out->name, sizeof out->name)) {
        out->name[0] = '\0';
    }
    /* The commit that was listed, so that a push meanwhile does not change the file under our hands. */
    str url = {0};
    str_addf(&url, "%s/%s/resolve/", out->endpoint, n->repository);
    escape(&url, commit && hex_decode(commit, bytes, sizeof bytes) ? commit : n->revision);
    str_addc(&url, '/');
    escape(&url, name);
    out->url = str_take(&url);
    snprintf(out->source, sizeof out->source, "hf:%s:%s", n->repository, name);
    for (char *p = out->source; *p; p++) {
        *p = *p >= 0x20 && *p < 0x7f ? *p : '?';
    }
    return out->url || err_set(e, ERR_MEMORY, "Out of memory.");
}

static bool find_on_hub(const char *text, model_source *out, err *e) {
    hub_name n;
    if (!read_hub_name(text, &n, e) ||
        !endpoint_of("HF_ENDPOINT", "https://huggingface.co", out->endpoint, sizeof out->endpoint, e)) {
        return false;
    }
    const char *token = getenv("HF_TOKEN");
    out->token = (download_token){.token = token && *token ? token : NULL, .origin = out->endpoint};
    out->denied = out->token.token
                      ? "HF_TOKEN does not open it: it may need a token that reads this repository, or its "
                        "terms accepted on its page."
                      : "If the repository is private or asks to accept terms, set HF_TOKEN to a token that "
                        "may read it; else look at the spelling.";
    str url = {0}, body = {0};
    str_addf(&url, "%s/api/models/%s/revision/", out->endpoint, n.repository);
    for (const char *p = n.revision; *p; p++) {
        str_adds(&url, *p == '/' ? "%2F" : (char[]){*p, '\0'});
    }
    str_adds(&url, "?blobs=true");
    bool   ok = !url.failed && download_text(url.data, "application/json", &out->token, out->denied, &body, e);
    cJSON *json = ok ? json_parse(body.data ? body.data : "", body.len, JSON_MAX_DEPTH, e) : NULL;
    if (ok && !json) {
        err_prefix(e, "The listing of %s cannot be read", n.repository);
    }
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(json, "siblings");
    const cJSON *file = json ? choose(files, &n, e) : NULL;
    ok = file && take_hub_file(json, file, &n, out, e);
    cJSON_Delete(json);
    str_free(&url);
    str_free(&body);
    return ok;
}

/* ---- ollama's registry ---- */

static bool take_layer(const cJSON *json, const char *shown, const char *path, model_source *out, err *e) {
    const cJSON *layer, *found = NULL;
    const char  *digest = NULL;
    cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(json, "layers")) {
        const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "mediaType"));
        if (type && strcmp(type, MODEL_LAYER) == 0) {
            if (found) {
                return err_set(e, ERR_UNSUPPORTED, "%s has its model in several files, which pare cannot open.", shown);
            }
            found = layer;
        }
    }
    if (!found) {
        return err_set(e, ERR_UNSUPPORTED, "%s has no GGUF file (no layer of type " MODEL_LAYER ").", shown);
    }
    if (!json_get_string(found, "", "digest", &digest, e) ||
        !json_get_int(found, "", "size", 1, INT64_C(1) << 50, &out->size, e)) {
        return false;
    }
    if (!digest || strncmp(digest, "sha256:", 7) != 0) {
        return err_set(e, ERR_UPSTREAM, "%s: the registry gives no SHA-256 of the model.", shown);
    }
    str url = {0};
    if (!set_digest(digest + 7, out->sha256, e)) {
        return false;
    }
    str_addf(&url, "%s/v2/%s/blobs/sha256:%s", out->endpoint, path, out->sha256);
    out->url = str_take(&url);
    return out->url || err_set(e, ERR_MEMORY, "Out of memory.");
}

static bool find_on_registry(const char *text, model_source *out, err *e) {
    char   name[150], tag[100] = "latest", path[200];
    size_t n = strcspn(text, ":");
    bool   fits = n < sizeof name && (!text[n] || strlen(text + n + 1) < sizeof tag);
    if (fits) {
        memcpy(name, text, n);
        name[n] = '\0';
        snprintf(tag, sizeof tag, "%s", text[n] ? text + n + 1 : "latest");
    }
    if (!fits || !plain_words(name, 0, 1) || !plain_words(tag, 0, 0)) {
        return err_set(e, ERR_INVALID,
                       "\"ollama:%.150s\" is not a model; write ollama:NAME, ollama:NAME:TAG or "
                       "ollama:USER/NAME:TAG.",
                       text);
    }
    if (!endpoint_of("OLLAMA_REGISTRY", "https://registry.ollama.ai", out->endpoint, sizeof out->endpoint, e)) {
        return false;
    }
    snprintf(path, sizeof path, "%s%s", strchr(name, '/') ? "" : "library/", name);
    snprintf(out->source, sizeof out->source, "ollama:%s:%s", name, tag);
    snprintf(out->name, sizeof out->name, "%s%s%s", base_of(name), strcmp(tag, "latest") == 0 ? "" : "-",
             strcmp(tag, "latest") == 0 ? "" : tag);
    str url = {0}, body = {0};
    str_addf(&url, "%s/v2/%s/manifests/%s", out->endpoint, path, tag);
    bool   ok = !url.failed && download_text(url.data, MANIFEST_TYPE, NULL, NULL, &body, e);
    cJSON *json = ok ? json_parse(body.data ? body.data : "", body.len, JSON_MAX_DEPTH, e) : NULL;
    if (ok && !json) {
        err_prefix(e, "The manifest of %s cannot be read", out->source);
    }
    ok = json && take_layer(json, out->source, path, out, e);
    cJSON_Delete(json);
    str_free(&url);
    str_free(&body);
    return ok;
}

/* ---- a URL ---- */

static bool find_by_url(const char *text, model_source *out, err *e) {
    char path[1024];
    url_shown(text, out->source, sizeof out->source);
    snprintf(path, sizeof path, "%s", out->source);
    out->url = strdup(text);
    if (!out->url) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    /* No name in the path ("https://host/"): --name gives one, and pull says so. */
    const char *host = strstr(path, "://");
    const char *slash = host ? strchr(host + 3, '/') : NULL;
    if (!slash || !models_name_from(slash, out->name, sizeof out->name)) {
        out->name[0] = '\0';
    }
    return true;
}

bool model_source_find(const char *what, model_source *out, err *e) {
    bool ok;
    *out = (model_source){0};
    if (strncmp(what, "hf:", 3) == 0) {
        ok = find_on_hub(what + 3, out, e);
    } else if (strncmp(what, "ollama:", 7) == 0) {
        ok = find_on_registry(what + 7, out, e);
    } else if (url_plain_or_tls(what) && strstr(what, "://")) {
        ok = find_by_url(what, out, e);
    } else {
        ok = err_set(e, ERR_INVALID,
                     "\"%.150s\" does not say where the model is: write hf:OWNER/REPO[:TYPE], ollama:NAME[:TAG] or an "
                     "http(s) address.",
                     what);
    }
    if (!ok) {
        model_source_free(out);
    }
    return ok;
}

void model_source_free(model_source *s) {
    free(s->url);
    s->url = NULL;
}
