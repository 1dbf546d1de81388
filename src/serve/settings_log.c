/* settings_log.c - what is logged, and how. */
#include <string.h>

#include "serve/settings_parts.h"

static bool read_level(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const levels[] = {"debug", "info", "warn", "error", "off", NULL};
    const char              *level = NULL;
    if (!config_string(c, n, "level", &level, e)) {
        return false;
    }
    for (int i = 0; level; i++) {
        if (!levels[i]) {
            return config_fail(c, n, e, "log.level is \"%s\"; it must be debug, info, warn, error or off", level);
        }
        if (strcmp(level, levels[i]) == 0) {
            s->log_level = (log_level)i;
            break;
        }
    }
    return true;
}

bool settings_read_log(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"level", "format", "requests", "prompts", "addresses", NULL};
    const char              *format = NULL;
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !read_level(s, c, n, e) || !config_string(c, n, "format", &format, e)) {
        return false;
    }
    if (format && strcmp(format, "json") != 0 && strcmp(format, "text") != 0) {
        return config_fail(c, n, e, "log.format is \"%s\"; it must be text or json", format);
    }
    s->log_json = format && strcmp(format, "json") == 0;
    s->log_requests = s->log_json; /* programs read every line, people do not */
    return config_bool(c, n, "requests", &s->log_requests, e) && config_bool(c, n, "prompts", &s->log_prompts, e) &&
           config_bool(c, n, "addresses", &s->log_addresses, e);
}
