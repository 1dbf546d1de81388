/* tokenize.c - `pare tokenize`: text to ids with a model's tokenizer, for checking it against others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "cli/cli.h"
#include "model/tokenizer/tokenizer.h"

static int run(int argc, char **argv);

const command command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids, with a model file's tokenizer",
    .run = run,
    .help = "Usage: pare tokenize --model FILE [--special] [--bos] [--jsonl] [--decode] < text\n\n"
            "Prints the ids of the whole input on one line, separated by blanks.\n\n"
            "  --model FILE  a GGUF file with a vocabulary\n"
            "  --special     the text of control tokens becomes the token (else it is ordinary text)\n"
            "  --bos         add the BOS and EOS tokens that the file asks for\n"
            "  --jsonl       one {\"text\":...} a line in, one {\"ids\":[...]} a line out\n"
            "  --decode      the other way: ids (blanks, commas and brackets between them) in, text out\n\n"
            "Examples:\n"
            "  echo -n 'Once upon a time' | pare tokenize --model storyteller.gguf\n"
            "  pare tokenize --model llama.gguf --jsonl < cases.jsonl > ids.jsonl\n"
            "  echo 262 417 | pare tokenize --model storyteller.gguf --decode\n"};

static bool print_ids(const tokenizer *t, const char *text, size_t n, encode_options o, bool json, err *e) {
    token_ids ids = {0};
    bool      ok = tokenizer_encode(t, text, n, o, &ids, e);
    if (ok) {
        fputs(json ? "{\"ids\":[" : "", stdout);
        for (size_t i = 0; i < ids.count; i++) {
            printf("%s%d", i ? (json ? "," : " ") : "", (int)ids.ids[i]);
        }
        fputs(json ? "]}\n" : "\n", stdout);
    }
    token_ids_free(&ids);
    return ok;
}

static bool print_line(const tokenizer *t, const char *line, size_t n, encode_options o, err *e) {
    cJSON *object = json_parse(line, n, JSON_MAX_DEPTH, e);
    if (!object) {
        return false;
    }
    const char *text = NULL;
    bool        ok = json_get_string(object, "", "text", &text, e);
    if (ok && !text) {
        ok = err_set(e, ERR_INVALID, "the object has no \"text\"");
    }
    ok = ok && print_ids(t, text, strlen(text), o, true, e);
    cJSON_Delete(object);
    return ok;
}

static bool print_lines(const tokenizer *t, const str *in, encode_options o, err *e) {
    size_t line = 1;
    for (size_t at = 0; in->data && at < in->len; line++) {
        const char *end = memchr(in->data + at, '\n', in->len - at);
        size_t      n = end ? (size_t)(end - (in->data + at)) : in->len - at;
        if (n > 0 && !print_line(t, in->data + at, n, o, e)) {
            return err_prefix(e, "line %zu", line);
        }
        at += n + 1;
    }
    return true;
}

static bool decode(const tokenizer *t, const str *in, err *e) {
    const char *p = in->data ? in->data : "";
    bool        first = tokenizer_strips_first_space(t);
    while (*p) {
        char *end;
        long  id = strtol(p, &end, 10);
        if (end == p) {
            p++;
            continue;
        }
        if (id < 0 || id >= tokenizer_vocab(t)) {
            return err_set(e, ERR_INVALID, "The id %ld is not in the vocabulary (0 to %d).", id,
                           tokenizer_vocab(t) - 1);
        }
        const char *bytes;
        size_t      n = tokenizer_piece(t, (int32_t)id, true, &bytes);
        size_t      skip = first && n > 0 && bytes[0] == ' ';
        fwrite(bytes + skip, 1, n - skip, stdout);
        first = first && n == 0;
        p = end;
    }
    return true;
}

static int run(int argc, char **argv) {
    const char      *model = NULL;
    bool             special = false, bos = false, jsonl = false, back = false, helped;
    int              n_words;
    const option_row rows[] = {{"--model", OPTION_TEXT, &model}, {"--special", OPTION_FLAG, &special},
                               {"--bos", OPTION_FLAG, &bos},     {"--jsonl", OPTION_FLAG, &jsonl},
                               {"--decode", OPTION_FLAG, &back}, {0}};
    if (!cli_options(&command_tokenize, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (!model) {
        return cli_usage(&command_tokenize, "--model is missing.");
    }
    err        e = {0};
    str        in = {0};
    gguf      *g = gguf_open(model, &e);
    tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
    bool       ok = t && cli_read_file("-", &in, &e);
    if (ok) {
        encode_options o = {.add_special = bos, .parse_special = special};
        const char    *text = in.data ? in.data : "";
        ok = back ? decode(t, &in, &e) : jsonl ? print_lines(t, &in, o, &e) : print_ids(t, text, in.len, o, false, &e);
    }
    str_free(&in);
    tokenizer_close(t);
    gguf_close(g);
    return ok ? EXIT_DONE : cli_fail(&e);
}
