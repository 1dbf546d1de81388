/* otlp_json.c - words of OTLP's JSON encoding: 64-bit integers are strings, ids are hexadecimal, kinds are numbers. */
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "serve/otlp_parts.h"

void otlp_text(str *out, const char *text) {
    size_t n = text ? strlen(text) : 0;
    if (utf8_valid(text ? text : "", n, NULL)) {
        str_json(out, text ? text : "", n);
        return;
    }
    str whole = {0};
    for (size_t at = 0; at < n;) { /* a name that was cut in the middle of a character */
        uint32_t c;
        char     bytes[4];
        at += utf8_decode(text + at, n - at, &c);
        str_add(&whole, bytes, utf8_encode(c, bytes));
    }
    out->failed = out->failed || whole.failed;
    if (!whole.failed) {
        str_json(out, whole.data, whole.len);
    }
    str_free(&whole);
}

static void key_of(str *out, const char *key) {
    if (out->len > 0 && out->data[out->len - 1] != '[') {
        str_addc(out, ',');
    }
    str_addf(out, "{\"key\":\"%s\",\"value\":", key);
}

void otlp_attribute(str *out, const char *key, const char *text) {
    if (text && *text) {
        key_of(out, key);
        str_adds(out, "{\"stringValue\":");
        otlp_text(out, text);
        str_adds(out, "}}");
    }
}

void otlp_attribute_int(str *out, const char *key, int64_t value) {
    key_of(out, key);
    str_addf(out, "{\"intValue\":\"%lld\"}}", (long long)value);
}

void otlp_attribute_double(str *out, const char *key, double value) {
    key_of(out, key);
    str_addf(out, "{\"doubleValue\":%.12g}}", value);
}

void otlp_attribute_bool(str *out, const char *key, bool value) {
    key_of(out, key);
    str_addf(out, "{\"boolValue\":%s}}", value ? "true" : "false");
}

void otlp_resource(str *out, const char *service, const char *instance) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    str_adds(out, "\"resource\":{\"attributes\":[");
    otlp_attribute(out, "service.name", service);
    otlp_attribute(out, "service.version", PARE_VERSION);
    otlp_attribute(out, "service.instance.id", instance);
    otlp_attribute(out, "host.name", host);
    otlp_attribute_int(out, "process.pid", getpid());
    str_adds(out, "]}");
}

void otlp_scope(str *out) {
    str_adds(out, "\"scope\":{\"name\":\"pare\",\"version\":\"" PARE_VERSION "\"}");
}
