/* embed.c - which texts are alike: embeddings, with libpare alone.
 *
 *     cc embed.c $(pkg-config --cflags --libs pare) -o embed
 *     ./embed MODEL.gguf "a cat" "a kitten" "a tractor"        or one text a line on the standard input
 *     POOLING=mean ./embed models/storyteller.gguf ...         a model whose file does not say how to pool           */
#include <pare.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 1000

static char  lines[MOST][1024];
static char *texts[MOST];

static int read_lines(void) {
    int n = 0;
    while (n < MOST && fgets(lines[n], sizeof lines[n], stdin)) {
        lines[n][strcspn(lines[n], "\n")] = 0;
        texts[n] = lines[n];
        n += lines[n][0] != 0;
    }
    return n;
}

/* Vectors have length 1, so the cosine of the angle between two is their product. */
static float cosine(const float *a, const float *b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

int main(int argc, char **argv) {
    char         error[512] = "usage: embed MODEL.gguf [TEXT ...]";
    pare_options options = {.pooling = getenv("POOLING")};
    pare_info    info = {0};
    for (int i = 2; i < argc && i < MOST + 2; i++)
        texts[i - 2] = argv[i];
    int         n = argc > MOST + 2 ? MOST : argc > 2 ? argc - 2 : argc > 1 ? read_lines() : 0;
    pare_model *model = argc > 1 ? pare_open(argv[1], &options, error, sizeof error) : NULL;
    int         ok = model && pare_describe(model, &info, error, sizeof error);
    float      *vectors = ok ? calloc((size_t)n * (size_t)info.dimension + 1, sizeof *vectors) : NULL;
    ok = vectors && pare_embed(model, (const char *const *)texts, n, NULL, vectors, NULL, error, sizeof error);
    for (int i = 0; ok && i < n; i++) {
        for (int j = 0; j < n; j++)
            printf("%6.3f ", cosine(vectors + i * info.dimension, vectors + j * info.dimension, info.dimension));
        printf(" %s\n", texts[i]);
    }
    if (!ok)
        fprintf(stderr, "%s\n", error);
    free(vectors);
    pare_close(model);
    return !ok;
}
