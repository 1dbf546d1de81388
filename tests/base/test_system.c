/* What base asks of the system: threads that no signal interrupts, and directories. */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/thread.h"

static void *look_at_mask(void *arg) {
    pthread_sigmask(SIG_SETMASK, NULL, arg);
    return arg;
}

static void a_thread_blocks_all_signals(void **state) {
    (void)state;
    err       e = {0};
    pthread_t thread;
    sigset_t  before, inside, after;
    sigemptyset(&inside);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_ok(thread_start(&thread, look_at_mask, &inside, "a thread of the test", &e), e);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    pthread_join(thread, NULL);
    static const int some[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGXFSZ, SIGUSR1, SIGALRM};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        assert_true(sigismember(&inside, some[i]));
        assert_int_equal(sigismember(&before, some[i]), sigismember(&after, some[i]));
        assert_false(sigismember(&after, some[i]));
    }
}

/* ---- directories ---- */

static char root[64];

static const char *below(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s%s", root, name);
    return path;
}

static void is_private(const char *name) {
    struct stat at;
    assert_int_equal(stat(below(name), &at), 0);
    assert_true(S_ISDIR(at.st_mode));
    assert_int_equal(at.st_mode & 0777, 0700);
}

static void directories_are_made_with_their_parents(void **state) {
    (void)state;
    err e = {0};
    assert_ok(directory_make(below("/a/b/c"), &e), e);
    assert_ok(directory_make(below("/a/b/c"), &e), e);
    assert_ok(directory_make(below("/a//b/./d/"), &e), e);
    is_private("/a");
    is_private("/a/b/c");
    is_private("/a/b/d");
    assert_int_equal(chmod(below("/a"), 0755), 0);
    assert_ok(directory_make(below("/a/e"), &e), e);
    struct stat at;
    assert_int_equal(stat(below("/a"), &at), 0);
    assert_int_equal(at.st_mode & 0777, 0755); /* what was there stays as it was */
    assert_ok(directory_make("/", &e), e);
    assert_int_equal(chdir(root), 0);
    assert_ok(directory_make("here/too", &e), e);
    is_private("/here/too");
    assert_int_equal(symlink("a", below("/link")), 0);
    assert_ok(directory_make(below("/link/f"), &e), e);
    is_private("/a/f");
}

static void what_cannot_be_made_is_told(void **state) {
    (void)state;
    err e = {0};
    int fd = open(below("/file"), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_false(directory_make(below("/file"), &e));
    assert_says(e, "/file cannot be made: it is not a directory");
    assert_false(directory_make(below("/file/under"), &e));
    assert_says(e, "/file cannot be made");
    assert_false(directory_make("", &e));
    assert_int_equal(e.code, ERR_INVALID);
    char name[400];
    memset(name, 'x', sizeof name - 1);
    name[0] = '/';
    name[sizeof name - 1] = '\0';
    assert_false(directory_make(below(name), &e));
    assert_int_equal(e.code, ERR_IO);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_blocks_all_signals),
        cmocka_unit_test(directories_are_made_with_their_parents),
        cmocka_unit_test(what_cannot_be_made_is_told),
    };
    snprintf(root, sizeof root, "/tmp/pare-system-XXXXXX");
    if (!mkdtemp(root)) {
        return 1;
    }
    int  failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command) != 0 || failed;
}
