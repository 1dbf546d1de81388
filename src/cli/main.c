#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/json.h"
#include "cli/cli.h"

static const command *const commands[] = {&command_serve,    &command_run,      &command_pull,
                                          &command_list,     &command_rm,       &command_replay,
                                          &command_cache,    &command_key,      &command_prices,
                                          &command_report,   &command_bench,    &command_show,
                                          &command_quantize, &command_import,   &command_eval,
                                          &command_synth,    &command_tokenize, &command_logits,
                                          &command_embed,    &command_render,   NULL};

static void help(FILE *out) {
    fputs("pare - makes language models cheap and fast to use\n\nUsage: pare COMMAND [OPTIONS]\n\nCommands:\n", out);
    for (int i = 0; commands[i]; i++) {
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\n`pare COMMAND --help` shows a command's options with examples; `pare --version` the version.\n\n"
          "Examples:\n"
          "  pare serve                                  answer on http://127.0.0.1:7273 with the bundled model\n"
          "  pare serve --model llama=llama-1b.gguf      answer with a model of yours\n"
          "  pare run llama-1b.gguf \"Tell me a story\"    one answer, here in the terminal\n",
          out);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("pare " PARE_VERSION);
        return EXIT_DONE;
    }
    const char *names[32];
    int         n = 0;
    json_use_spare();
    for (; commands[n]; n++) {
        if (strcmp(argv[1], commands[n]->name) == 0) {
            int code = commands[n]->run(argc - 1, argv + 1);
            if (fflush(stdout) != 0 && code == EXIT_DONE) {
                fputs("pare: the output could not be written (disk full, or the reader went away)\n", stderr);
                return EXIT_FAILED;
            }
            return code;
        }
        names[n] = commands[n]->name;
    }
    names[n] = NULL;
    const char *near = nearest_name(argv[1], names);
    fprintf(stderr, "pare: there is no command \"%s\"%s%s%s; see pare --help\n", argv[1], near ? "; did you mean " : "",
            near ? near : "", near ? "?" : "");
    return EXIT_USAGE;
}
