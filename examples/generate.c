/* generate.c - goes on with a text, with libpare alone.
 *
 *     cc generate.c $(pkg-config --cflags --libs pare) -o generate
 *     ./generate models/storyteller.gguf "Once upon a time"                                                          */
#include <pare.h>
#include <stdio.h>

static int print(void *user, const char *text, size_t length) {
    (void)user;
    fwrite(text, 1, length, stdout);
    return fflush(stdout); /* not zero stops: nobody reads any more */
}

int main(int argc, char **argv) {
    char error[512];
    if (argc < 3) {
        fprintf(stderr, "usage: generate MODEL.gguf TEXT\n");
        return 2;
    }
    pare_model *model = pare_open(argv[1], NULL, error, sizeof error);
    if (!model) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    pare_request request = {.max_tokens = 40, .temperature = 0.8f, .top_p = 0.95f, .seed = 7};
    pare_usage   usage = {0};
    int          ok = pare_generate(model, argv[2], &request, print, NULL, &usage, error, sizeof error);
    if (ok) {
        printf("\n[%d + %d tokens]\n", usage.prompt_tokens, usage.completion_tokens);
    } else {
        fprintf(stderr, "%s\n", error);
    }
    pare_close(model);
    return !ok;
}
