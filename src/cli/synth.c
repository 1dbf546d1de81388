/* synth.c - `pare synth`: a model file with a real model's shape and random weights. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "model/synth.h"

static int run(int argc, char **argv);

const command command_synth = {
    .name = "synth",
    .summary = "a model file with random weights, for benchmarks",
    .run = run,
    .help = "Usage: pare synth --shape NAME --type TYPE -o FILE [--seed N]\n\n"
            "  --shape NAME  llama-1b and others; `--shape list` names them\n"
            "  --type TYPE   of all matrices: f16, q8_0, q4_0 and others; q4_k_m and q5_k_m have\n"
            "                the most sensitive matrices in q6_k; `--type list` names them all\n"
            "  -o, --out F   the file to write; it appears when it is whole\n"
            "  --seed N      the same seed gives the same bytes (default 1)\n\n"
            "Example:\n"
            "  pare synth --shape llama-1b --type q4_0 -o llama-1b-q4_0.gguf\n"};

static void progress(void *arg, int64_t done, int64_t total) {
    (void)arg;
    cli_progress("writing", total > 0 ? (double)done / (double)total : 0);
}

static int list(bool shapes) {
    for (int i = 0; shapes && synth_shape_name(i); i++) {
        printf("%-12s %s\n", synth_shape_name(i), synth_shape_about(i));
    }
    for (int i = 0; !shapes && synth_type_name(i); i++) {
        printf("%s\n", synth_type_name(i));
    }
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    const char      *shape = NULL, *type = NULL, *out = NULL;
    int64_t          seed = 1;
    bool             helped;
    int              n_words;
    const option_row rows[] = {{"--shape", OPTION_TEXT, &shape},
                               {"--type", OPTION_TEXT, &type},
                               {"--out", OPTION_TEXT, &out},
                               {"--seed", OPTION_INT, &seed, 0, INT64_MAX},
                               {0}};
    if (!cli_options(&command_synth, argc, argv, rows, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    bool shapes = shape && strcmp(shape, "list") == 0;
    if (shapes || (type && strcmp(type, "list") == 0)) {
        return list(shapes);
    }
    if (!shape || !type || !out) {
        return cli_usage(&command_synth, "--shape, --type and -o are needed.");
    }
    err  e = {0};
    bool ok = synth_write(shape, type, (uint64_t)seed, out, progress, NULL, &e);
    cli_progress_end();
    return ok ? EXIT_DONE : cli_fail(&e);
}
