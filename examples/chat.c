/* chat.c - a conversation in the terminal, with libpare alone. Ctrl-C ends an answer, Ctrl-D the conversation.
 *
 *     cc chat.c $(pkg-config --cflags --libs pare) -o chat
 *     ./chat models/storyteller.gguf "You tell stories."                                                             */
#include <pare.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static int print(void *user, const char *text, size_t length) {
    (void)user;
    fwrite(text, 1, length, stdout);
    return fflush(stdout) != 0 || interrupted;
}

/* One turn. A conversation that fills half of the context goes on without its oldest question and answer. */
static int turn(pare_chat *chat, const char *line, int first, int room, char *error, size_t size) {
    pare_request request = {.temperature = 0.8f, .top_p = 0.95f, .max_tokens = room, .seed = 7};
    pare_usage   usage = {0};
    if (!pare_chat_add(chat, "user", line, NULL, error, size))
        return 0;
    while (pare_chat_tokens(chat, NULL, 0) >= room && pare_chat_drop(chat, first, 2)) {
    }
    interrupted = 0;
    if (!pare_chat_answer(chat, &request, print, NULL, &usage, error, size))
        return 0;
    printf("\n[%d + %d tokens, %d of them from the cache]\n", usage.prompt_tokens, usage.completion_tokens,
           usage.cached_tokens);
    return 1;
}

int main(int argc, char **argv) {
    char        error[512] = "", line[8192];
    pare_model *model = argc > 1 ? pare_open(argv[1], NULL, error, sizeof error) : NULL;
    pare_chat  *chat = model ? pare_chat_new(model, error, sizeof error) : NULL;
    pare_info   info = {0};
    int         ok = chat && pare_describe(model, &info, error, sizeof error) &&
             (argc < 3 || pare_chat_add(chat, "system", argv[2], NULL, error, sizeof error));
    if (argc < 2)
        snprintf(error, sizeof error, "usage: chat MODEL.gguf [SYSTEM PROMPT]");
    signal(SIGINT, interrupt);
    while (ok && printf("> ") > 0 && fflush(stdout) == 0 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        ok = turn(chat, line, argc > 2, info.context / 2, error, sizeof error);
    }
    if (!ok)
        fprintf(stderr, "%s\n", error);
    pare_chat_free(chat);
    pare_close(model);
    return !ok;
}
