/* pull.c - `pare pull`: a model from the Hugging Face hub, ollama's registry or an address into DATA/models. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/hash.h"
#include "cli/cli.h"
#include "model/gguf.h"
#include "store/models.h"

static int run(int argc, char **argv);

const command command_pull = {
    .name = "pull",
    .summary = "fetch a model to keep it here",
    .run = run,
    .help =
        "Usage: pare pull hf:OWNER/REPO[@REVISION][:TYPE or FILE] [OPTIONS]\n"
        "       pare pull ollama:NAME[:TAG] [OPTIONS]\n"
        "       pare pull URL [OPTIONS]\n\n"
        "Fetches a GGUF file into DATA/models, where `pare run NAME` and `pare serve --model x=NAME` find it. A pull\n"
        "that broke off, or was killed, goes on where it stopped when the same command is given again. The file gets\n"
        "its name only when it is whole and its checksum is right.\n\n"
        "  TYPE              a quantisation, as Q4_K_M (the default where there is one) or Q8_0\n"
        "  --name NAME       keep it under this name; default: the file's, without .gguf\n"
        "  --sha256 HEX      the checksum it must have (the hub and the registry give theirs)\n"
        "  --parts N         connections for a large file; default 4\n"
        "  --data DIR        default $XDG_DATA_HOME/pare, as `pare serve`\n"
        "  --quiet           say nothing but errors\n"
        "  --json            the result as one JSON object\n\n"
        "Environment: HF_TOKEN opens private repositories (it is sent to the hub only); HF_ENDPOINT and\n"
        "OLLAMA_REGISTRY name other servers; https_proxy and no_proxy as usual.\n\n"
        "Examples:\n"
        "  pare pull hf:bartowski/Llama-3.2-1B-Instruct-GGUF\n"
        "  pare pull hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0 --name llama-1b\n"
        "  pare pull ollama:llama3.2:1b\n"
        "  pare pull https://example.com/model.gguf --sha256 9f86d081...\n\n"
        "Exit: 0 it is here, 1 it failed, 2 wrong options, or there is no such model\n"};

typedef struct pull_options {
    const char *what, *name, *digest, *data;
    int64_t     parts;
    bool        quiet, json;
} pull_options;

/* ---- progress ---- */

typedef struct meter {
    char    name[48];
    bool    quiet;
    int     told; /* tenths that were written as lines */
    int64_t last_us, last_done;
    double  speed; /* bytes/s, smoothed over some seconds */
} meter;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void measure(meter *m, int64_t done) {
    int64_t now = clock_us();
    double  s = (double)(now - m->last_us) / 1e6;
    if (m->last_us == 0 || done < m->last_done) {
        m->last_us = now;
        m->last_done = done;
    } else if (s >= 0.5) {
        double speed = (double)(done - m->last_done) / s;
        m->speed = m->speed > 0 ? 0.7 * m->speed + 0.3 * speed : speed;
        m->last_us = now;
        m->last_done = done;
    }
}

static void write_eta(const meter *m, int64_t left, char *out, size_t size) {
    int64_t s = m->speed > 1 ? (int64_t)((double)left / m->speed) : -1;
    out[0] = '\0';
    if (s >= 0 && s < 360000) {
        if (s >= 3600) {
            snprintf(out, size, ", %lld:%02lld:%02lld left", (long long)s / 3600, (long long)s / 60 % 60,
                     (long long)s % 60);
        } else {
            snprintf(out, size, ", %lld:%02lld left", (long long)s / 60, (long long)s % 60);
        }
    }
}

static void show(meter *m, const download_progress *p, const char *figures) {
    double share = p->total > 0 ? (double)p->done / (double)p->total : -1;
    char   line[256];
    if (cli_terminal()) {
        char eta[32] = "";
        if (p->total > 0) {
            write_eta(m, p->total - p->done, eta, sizeof eta);
        }
        snprintf(line, sizeof line, "%s%s %s%s", p->verifying ? "checking " : "", m->name, figures, eta);
        cli_progress(line, share);
        return;
    }
    int tenth = (int)(share * 10);
    if (!p->verifying && share >= 0 && tenth > m->told) {
        m->told = tenth;
        fprintf(stderr, "%s: %d %%, %s\n", m->name, tenth * 10, figures);
    }
}

static bool on_progress(void *ctx, const download_progress *p) {
    meter *m = ctx;
    char   figures[96];
    if (interrupted) {
        return false;
    }
    if (m->quiet) {
        return true;
    }
    measure(m, p->done);
    int n = snprintf(figures, sizeof figures, "%.1f", (double)p->done / 1e6);
    if (p->total > 0) {
        n += snprintf(figures + n, sizeof figures - (size_t)n, " of %.1f", (double)p->total / 1e6);
    }
    snprintf(figures + n, sizeof figures - (size_t)n, m->speed > 0 ? " MB, %.1f MB/s" : " MB", m->speed / 1e6);
    show(m, p, figures);
    return true;
}

/* Without a checksum a file that was cut short shows only in its own tables. */
static bool on_check(void *ctx, const char *path, bool verified, err *e) {
    (void)ctx;
    if (verified) {
        return true;
    }
    gguf *g = gguf_open(path, e);
    if (!g) {
        return err_prefix(e, "What came is not a whole model, and was thrown away");
    }
    gguf_close(g);
    return true;
}

/* ---- the pull ---- */

static bool digest_of(const char *path, char hex[65]) {
    FILE         *f = fopen(path, "rbe");
    sha256_state *hash = f ? sha256_begin() : NULL;
    char          bytes[1 << 16];
    size_t        n;
    while (hash && !interrupted && (n = fread(bytes, 1, sizeof bytes, f)) > 0) {
        sha256_add(hash, bytes, n);
    }
    bool ok = hash && !ferror(f) && !interrupted;
    if (hash) {
        sha256 digest = sha256_end(hash);
        hex_encode(digest.bytes, sizeof digest.bytes, hex);
    }
    if (f) {
        fclose(f);
    }
    return ok;
}

/* The model of that name as it is. False when it is somebody else's, which a pull must not replace. One without a source
 * is this one when its checksum is: put there by hand, or by a pull that was killed in its last moment. */
static bool look_first(const pull_options *o, const model_source *s, const char *digest, const char *path,
                       model_file *old, err *e) {
    struct stat at;
    if (stat(path, &at) != 0) {
        return true;
    }
    if (!models_get(o->data, s->name, old, e)) {
        return false;
    }
    if (strcmp(old->source, s->source) == 0) {
        return true;
    }
    if (!old->source[0] && digest && (s->size == 0 || old->size == s->size) && digest_of(path, old->sha256) &&
        strcasecmp(old->sha256, digest) == 0) {
        snprintf(old->source, sizeof old->source, "%s", s->source);
        return models_note(o->data, old, e);
    }
    return err_set(
        e, ERR_INVALID,
        "There is a model %s already, %s%.150s. Keep this one under another name with --name, or remove that "
        "with `pare rm %s`.",
        s->name, old->source[0] ? "from " : "put there by hand", old->source, s->name);
}

static void print_result(const pull_options *o, const model_source *s, const char *path, const download_result *r,
                         double seconds) {
    if (!o->json) {
        if (r->unchanged) {
            printf("%s is here already: %s (%.1f MB)\n", s->name, path, (double)r->size / 1e6);
        } else {
            printf("%s: %s (%.1f MB; %.1f MB fetched in %.1f s)\n", s->name, path, (double)r->size / 1e6,
                   (double)r->fetched / 1e6, seconds);
        }
        return;
    }
    str out = {0};
    str_adds(&out, "{\"name\":");
    str_jsons(&out, s->name);
    str_adds(&out, ",\"path\":");
    str_jsons(&out, path);
    str_adds(&out, ",\"source\":");
    str_jsons(&out, s->source);
    str_adds(&out, ",\"sha256\":");
    str_jsons(&out, r->sha256[0] ? r->sha256 : NULL);
    str_addf(&out, ",\"size\":%lld,\"fetched\":%lld,\"resumed\":%lld,\"unchanged\":%s,\"seconds\":%.3f}\n",
             (long long)r->size, (long long)r->fetched, (long long)r->resumed, r->unchanged ? "true" : "false",
             seconds);
    fwrite(out.data, 1, out.len, stdout);
    str_free(&out);
}

static bool fetch(const pull_options *o, model_source *s, const char *path, download_result *r, err *e) {
    model_file  old = {0};
    meter       m = {.quiet = o->quiet};
    const char *digest = o->digest ? o->digest : s->sha256[0] ? s->sha256 : NULL;
    if (!look_first(o, s, digest, path, &old, e)) {
        return false;
    }
    if (digest && strcasecmp(digest, old.sha256) == 0) {
        *r = (download_result){.size = old.size, .unchanged = true};
        snprintf(r->sha256, sizeof r->sha256, "%s", old.sha256);
        return true;
    }
    snprintf(m.name, sizeof m.name, "%.40s", s->name);
    download_options d = {.url = s->url,
                          .path = path,
                          .source = s->source,
                          .denied = s->denied,
                          .token = s->token,
                          .size = s->size,
                          .sha256 = digest,
                          .magic = "GGUF",
                          .have_etag = digest ? NULL : old.etag,
                          .have_size = old.size,
                          .parts = (int)o->parts,
                          .progress = on_progress,
                          .check = on_check,
                          .ctx = &m};
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigaction(SIGINT, &action, &before);
    bool ok = download_file(&d, r, e);
    sigaction(SIGINT, &before, NULL);
    cli_progress_end();
    if (!ok || r->unchanged) {
        if (!ok && e->code == ERR_CANCELLED) {
            err_set(e, ERR_CANCELLED, "Stopped; the same command goes on from here.");
        }
        return ok;
    }
    model_file note = {.size = r->size};
    snprintf(note.name, sizeof note.name, "%s", s->name);
    snprintf(note.source, sizeof note.source, "%s", s->source);
    memcpy(note.sha256, r->sha256, sizeof note.sha256);
    memcpy(note.etag, r->etag, sizeof note.etag);
    return models_note(o->data, &note, e);
}

static int pull(const pull_options *o) {
    err             e = {0};
    model_source    s;
    download_result r = {0};
    char            path[4096];
    int64_t         began = clock_us();
    if (!model_source_find(o->what, &s, &e)) {
        return cli_fail(&e);
    }
    if (o->name) {
        snprintf(s.name, sizeof s.name, "%s", o->name);
    }
    bool ok = s.name[0] || err_set(&e, ERR_INVALID, "%s ends in no file name; give one with --name.", s.source);
    if (ok && o->digest && s.sha256[0] && strcasecmp(o->digest, s.sha256) != 0) {
        ok = err_set(&e, ERR_INVALID, "--sha256 says %.64s, but %.150s is %s there.", o->digest, s.source, s.sha256);
    }
    ok = ok && models_path(o->data, s.name, path, sizeof path, &e) && fetch(o, &s, path, &r, &e);
    if (ok && (!o->quiet || o->json)) {
        print_result(o, &s, path, &r, (double)(clock_us() - began) / 1e6);
    }
    model_source_free(&s);
    return ok ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    pull_options     o = {0};
    char             data[4096];
    const char      *words[1];
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--name", OPTION_TEXT, &o.name},
                               {"--sha256", OPTION_TEXT, &o.digest},
                               {"--data", OPTION_TEXT, &o.data},
                               {"--parts", OPTION_INT, &o.parts, 1, DOWNLOAD_MAX_PARTS},
                               {"--quiet", OPTION_FLAG, &o.quiet},
                               {"--json", OPTION_FLAG, &o.json},
                               {0}};
    if (!cli_options(&command_pull, argc, argv, rows, words, 1, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words == 0) {
        return cli_usage(&command_pull, "Say where the model is: hf:OWNER/REPO, ollama:NAME or a URL.");
    }
    if (o.name && !models_name_ok(o.name)) {
        return cli_usage(&command_pull, "--name takes letters, digits and . _ + - (not first . or -), not \"%s\".",
                         o.name);
    }
    o.what = words[0];
    cli_data_dir(data, sizeof data);
    o.data = o.data ? o.data : data;
    return pull(&o);
}
