/* eval.c - `pare eval`: how good a model file is, and how far one is from another. */
#include "cli/eval.h"

#include <string.h>

#include "cli/cli.h"

static int run(int argc, char **argv);

const command command_eval = {
    .name = "eval",
    .summary = "perplexity of a text, distance between two models",
    .run = run,
    .help =
        "Usage: pare eval perplexity --model FILE --text FILE [OPTIONS]\n"
        "       pare eval kld --model FILE --reference FILE --text FILE [OPTIONS]\n"
        "       pare eval diff A.gguf B.gguf --text FILE [--tolerance X]\n\n"
        "perplexity: exp of the mean of -ln p(token). The text is read in windows of --context tokens; the first "
        "scores all\n"
        "of its tokens, each further one begins --stride tokens later and scores those that none has scored, so that "
        "each\n"
        "token is scored once and, but for the first window, has at least context - stride tokens before it. BOS "
        "stands\n"
        "before each window where the model wants one; without it the very first token cannot be scored. The interval "
        "takes\n"
        "tokens as independent.\n\n"
        "kld: both models read the same windows; of each token's prediction the Kullback-Leibler divergence from the\n"
        "reference (usually the F16 file), whether the top token is the same, and how much the probability of the "
        "token\n"
        "that came differs. 0 is the same model.\n\n"
        "diff: the logits at every position of a text (which must fit into the context), from which one on they "
        "differ,\n"
        "and by how much. The exit code is 1 when a position differs by more than --tolerance.\n\n"
        "  --text FILE       UTF-8; - is standard input\n"
        "  --tokens FILE     instead: JSON, a list of ids or a list of lists, taken as they are (no BOS is added)\n"
        "  --context N       tokens in a window, default 512 or the model's context\n"
        "  --stride N        default half of the window; the window itself gives windows that do not overlap\n"
        "  --kv TYPE         how keys and values are kept: f16 (default), f32, q8_0, q4_0\n"
        "  --tolerance X     of diff, default 0: any bit\n"
        "  --threads N       default one a core\n"
        "  --json            one JSON object\n\n"
        "Examples:\n"
        "  pare eval perplexity --model llama-q4.gguf --text wiki.test.raw\n"
        "  pare eval kld --model llama-q4.gguf --reference llama-f16.gguf --text wiki.test.raw\n"
        "  pare eval diff old.gguf new.gguf --text story.txt --tolerance 0.001\n"};

typedef enum task { PERPLEXITY, KLD, DIFF } task;

static int check(task t, const eval_options *o, int n_words) {
    static const int words[] = {1, 1, 3};
    if (n_words != words[t]) {
        return cli_usage(&command_eval, t == DIFF ? "diff takes two files." : "Name the model with --model.");
    }
    if (!o->model || (t == KLD && !o->reference)) {
        return cli_usage(&command_eval, t == KLD ? "kld needs --model and --reference." : "--model is missing.");
    }
    if (!o->text == !o->tokens) {
        return cli_usage(&command_eval, "Either --text or --tokens is needed.");
    }
    if (o->tolerance < 0) {
        return cli_usage(&command_eval, "--tolerance must not be below 0.");
    }
    return EXIT_DONE;
}

static int carry_out(task t, const eval_options *o) {
    err  e = {0};
    bool differ = false;
    bool ok = t == PERPLEXITY ? eval_perplexity(o, &e) : t == KLD ? eval_kld(o, &e) : eval_diff(o, &differ, &e);
    return !ok ? cli_fail(&e) : differ ? EXIT_FAILED : EXIT_DONE;
}

static int run(int argc, char **argv) {
    static const char *const names[] = {"perplexity", "kld", "diff"};
    eval_options             o = {0};
    const char              *words[3], *kv = "f16";
    int64_t                  context = 0, stride = 0, threads = 0;
    bool                     helped;
    int                      n_words, t = 0;
    const option_row         rows[] = {{"--model", OPTION_TEXT, &o.model},
                                       {"--reference", OPTION_TEXT, &o.reference},
                                       {"--text", OPTION_TEXT, &o.text},
                                       {"--tokens", OPTION_TEXT, &o.tokens},
                                       {"--context", OPTION_INT, &context, 2, 1 << 24},
                                       {"--stride", OPTION_INT, &stride, 1, 1 << 24},
                                       {"--kv", OPTION_TEXT, &kv},
                                       {"--tolerance", OPTION_NUMBER, &o.tolerance},
                                       {"--threads", OPTION_INT, &threads, 0, 512},
                                       {"--json", OPTION_FLAG, &o.json},
                                       {0}};
    if (!cli_options(&command_eval, argc, argv, rows, words, 3, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    while (n_words > 0 && t < 3 && strcmp(words[0], names[t]) != 0) {
        t++;
    }
    if (n_words == 0 || t == 3) {
        return cli_usage(&command_eval, "Say what to do: perplexity, kld or diff.");
    }
    if (!kv_type_named(kv, &o.kv)) {
        return cli_usage(&command_eval, "--kv takes f16, f32, q8_0 or q4_0, not \"%s\".", kv);
    }
    o.context = (int)context;
    o.stride = (int)stride;
    o.threads = (int)threads;
    if (t == DIFF && n_words == 3) {
        o.reference = words[1];
        o.model = words[2];
    }
    int code = check((task)t, &o, n_words);
    return code == EXIT_DONE ? carry_out((task)t, &o) : code;
}
