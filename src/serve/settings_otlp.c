/* settings_otlp.c - telemetry in pare.yaml, with the environment's OTEL_... as defaults once it is asked for.
 *
 * Source: OpenTelemetry's "OTLP Exporter Configuration"; OTEL_EXPORTER_OTLP_HEADERS is key=value, with commas between and
 * values percent-encoded.                                                                                             */
#include <stdlib.h>
#include <string.h>

#include "serve/settings_parts.h"

#define DEFAULT_ENDPOINT "http://localhost:4318" /* the specification's */
#define LEAST_INTERVAL   100000                  /* us */

/* A header's name is a token, and its value has no control characters (RFC 9110, 5.6.2 and 5.5). */
static bool header_fits(const char *name, const char *value) {
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    if (!*name || name[strspn(name, token)]) {
        return false;
    }
    for (const char *p = value; *p; p++) {
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7F) {
            return false;
        }
    }
    return true;
}

static bool add_header(settings *s, const char *name, const char *value, err *e) {
    otlp_options *o = &s->otlp;
    o->headers = settings_more(s, (void *)o->headers, o->n_headers, sizeof *o->headers);
    char *line = o->headers ? arena_printf(s->memory, "%s: %s", name, value) : NULL;
    if (!line) {
        return settings_no_memory(e);
    }
    o->headers[o->n_headers++] = line;
    return true;
}

static bool read_headers(settings *s, const config *c, const config_node *n, err *e) {
    if (n && config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "telemetry.headers must be a mapping of names to values");
    }
    for (size_t i = 0; n && i < config_count(n); i++) {
        const char *name = config_key(n, i), *value = config_scalar(config_item(n, i));
        if (!value || !header_fits(name, value)) { /* the value may be a secret: it is not repeated */
            return config_fail(c, config_item(n, i), e, "the header \"%s\" needs a value on one line", name);
        }
        if (!add_header(s, name, value, e)) {
            return false;
        }
    }
    return true;
}

/* In place. */
static void percent_decode(char *text) {
    char *to = text;
    for (const char *p = text; *p; p++) {
        char digits[3] = {p[0] == '%' ? p[1] : '\0', '\0', '\0'};
        if (digits[0] && p[2]) {
            char *end;
            digits[1] = p[2];
            long byte = strtol(digits, &end, 16);
            if (end == digits + 2 && byte > 0) {
                *to++ = (char)byte;
                p += 2;
                continue;
            }
        }
        *to++ = *p;
    }
    *to = '\0';
}

static char *trim(char *text) {
    text += strspn(text, " \t");
    size_t n = strlen(text);
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) {
        text[--n] = '\0';
    }
    return text;
}

static bool headers_from_environment(settings *s, const char *list, err *e) {
    char *copy = settings_keep(s, list), *rest = NULL;
    if (!copy) {
        return settings_no_memory(e);
    }
    for (char *pair = strtok_r(copy, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(pair, '=');
        if (!*trim(pair)) {
            continue;
        }
        if (value) {
            *value++ = '\0';
            value = trim(value);
            percent_decode(value);
        }
        char *name = trim(pair);
        if (!value || !header_fits(name, value)) {
            return err_set(
                e, ERR_INVALID,
                "OTEL_EXPORTER_OTLP_HEADERS must be a list like name=value,name=value; its part \"%.40s\" is not.",
                name);
        }
        if (!add_header(s, name, value, e)) {
            return false;
        }
    }
    return true;
}

static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool take_defaults(settings *s, bool own_headers, err *e) {
    otlp_options *o = &s->otlp;
    const char   *endpoint = environment("OTEL_EXPORTER_OTLP_ENDPOINT"), *service = environment("OTEL_SERVICE_NAME");
    const char   *headers = environment("OTEL_EXPORTER_OTLP_HEADERS");
    if (!o->endpoint) {
        o->endpoint = settings_keep(s, endpoint ? endpoint : DEFAULT_ENDPOINT);
    }
    if (!o->service_name) {
        o->service_name = settings_keep(s, service ? service : "pare");
    }
    if (!o->endpoint || !o->service_name) {
        return settings_no_memory(e);
    }
    return own_headers || !headers || headers_from_environment(s, headers, e);
}

static bool endpoint_fits(const char *url) {
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        return false;
    }
    for (const char *p = url; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7F || *p == '?' || *p == '#') {
            return false;
        }
    }
    return true;
}

bool settings_read_telemetry(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"endpoint", "headers",      "traces",  "metrics",   "interval",
                                        "sample",   "service_name", "ca_file", "propagate", NULL};
    otlp_options            *o = &s->otlp;
    if (!n) {
        return true;
    }
    *o = (otlp_options){.traces = true, .metrics = true, .propagate = true, .interval_us = 60000000, .sample = 1};
    if (!config_known(c, n, known, e) || !settings_string(s, c, n, "endpoint", &o->endpoint, e) ||
        !settings_string(s, c, n, "service_name", &o->service_name, e) ||
        !settings_string(s, c, n, "ca_file", &o->ca_file, e) || !config_bool(c, n, "traces", &o->traces, e) ||
        !config_bool(c, n, "metrics", &o->metrics, e) || !config_bool(c, n, "propagate", &o->propagate, e) ||
        !config_duration(c, n, "interval", &o->interval_us, e) || !config_number(c, n, "sample", 0, 1, &o->sample, e) ||
        !read_headers(s, c, config_get(n, "headers"), e)) {
        return false;
    }
    if (!take_defaults(s, config_get(n, "headers") != NULL, e)) {
        return false;
    }
    if (o->interval_us < LEAST_INTERVAL) {
        return config_fail(c, n, e, "telemetry.interval must be at least 100ms");
    }
    if (!endpoint_fits(o->endpoint)) { /* it may hold a password: it is not repeated */
        return config_fail(c, n, e,
                           "telemetry.endpoint (or OTEL_EXPORTER_OTLP_ENDPOINT) must be like http://collector:4318, "
                           "without blanks, '?' or '#'");
    }
    if (!o->traces && !o->metrics) {
        o->endpoint = NULL; /* nothing to send */
    }
    return true;
}

/* Hosts that the conventions have a name for. Source: gen-ai-spans.md, well-known values of gen_ai.provider.name. */
const char *otlp_provider(const char *dialect, const char *base_url) {
    static const char *const hosts[][2] = {{"api.deepseek.com", "deepseek"},
                                           {"api.groq.com", "groq"},
                                           {"api.mistral.ai", "mistral_ai"},
                                           {"api.perplexity.ai", "perplexity"},
                                           {"api.x.ai", "x_ai"},
                                           {"generativelanguage.googleapis.com", "gcp.gemini"},
                                           {"aiplatform.googleapis.com", "gcp.vertex_ai"}};
    static const char *const dialects[][2] = {
        {"anthropic", "anthropic"}, {"gemini", "gcp.gemini"}, {"cohere", "cohere"}, {"azure", "azure.ai.openai"}};
    for (size_t i = 0; base_url && i < sizeof hosts / sizeof hosts[0]; i++) {
        const char *at = strstr(base_url, hosts[i][0]);
        const char *slash = strstr(base_url, "://");
        if (at && slash && at < slash + 3 + strcspn(slash + 3, "/")) {
            return hosts[i][1];
        }
    }
    for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++) {
        if (strcmp(dialect, dialects[i][0]) == 0) {
            return dialects[i][1];
        }
    }
    return "openai"; /* the dialect is the format's flavour, whoever hosts the model */
}
