/* find.c - a model as people name it: a file, or one that was pulled. */
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "store/models.h"

static bool is_file(const char *path) {
    struct stat at;
    return stat(path, &at) == 0 && !S_ISDIR(at.st_mode);
}

/* Looks meant as a path: then the sentence about the file that is not there says more than one about pulled models. */
static bool like_a_path(const char *model) {
    size_t n = strlen(model);
    bool   source = strncmp(model, "hf:", 3) == 0 || strncmp(model, "ollama:", 7) == 0;
    return !source && (strchr(model, '/') || (n > 5 && strcmp(model + n - 5, ".gguf") == 0));
}

const char *cli_model(const char *model, char *path, size_t size, err *e) {
    char data[4096];
    err  why = {0};
    if (is_file(model) || strcmp(model, "storyteller") == 0) {
        return model;
    }
    cli_data_dir(data, sizeof data);
    if (data[0] && models_find(data, model, path, size, &why)) {
        return path;
    }
    if (like_a_path(model) || !data[0]) {
        return model;
    }
    if (why.code == ERR_NOT_FOUND) {
        err_set(e, ERR_NOT_FOUND, "There is neither a file nor a pulled model \"%.150s\": %s", model, why.text);
    } else if (e) {
        *e = why;
    }
    return NULL;
}
