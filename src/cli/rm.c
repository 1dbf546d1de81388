/* rm.c - `pare rm`: a model out of DATA/models. */
#include <stdio.h>

#include "cli/cli.h"
#include "store/models.h"

static int run(int argc, char **argv);

const command command_rm = {.name = "rm",
                            .summary = "remove a model that was pulled",
                            .run = run,
                            .help =
                                "Usage: pare rm NAME... [OPTIONS]\n\n"
                                "Removes models from DATA/models, and unfinished downloads of these names, without\n"
                                "asking. `pare list` shows the names. A server that has the model open keeps it\n"
                                "until it ends.\n\n"
                                "  --data DIR   default $XDG_DATA_HOME/pare, as `pare serve`\n"
                                "  --quiet      say nothing but errors\n\n"
                                "Examples:\n"
                                "  pare rm llama-1b\n"
                                "  pare rm ollama:llama3.2:1b\n"};

static int run(int argc, char **argv) {
    const char      *data = NULL, *words[64];
    char             usual[4096];
    bool             quiet = false, helped;
    int              n_words, code = EXIT_DONE;
    const option_row rows[] = {{"--data", OPTION_TEXT, &data}, {"--quiet", OPTION_FLAG, &quiet}, {0}};
    if (!cli_options(&command_rm, argc, argv, rows, words, 64, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (n_words == 0) {
        return cli_usage(&command_rm, "Name a model; `pare list` shows them.");
    }
    cli_data_dir(usual, sizeof usual);
    for (int i = 0; i < n_words; i++) {
        err        e = {0};
        model_file removed;
        if (!models_remove(data ? data : usual, words[i], &removed, &e)) {
            code = cli_fail(&e);
        } else if (!quiet) {
            printf("%s is removed (%.1f MB)\n", removed.name, (double)removed.size / 1e6);
        }
    }
    return code;
}
