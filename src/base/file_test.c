#include "base/syscalls.h"
#include "base/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void expect_content(const char *path, const char *text) {
    struct lk_buf b = LK_BUF_INIT;
    struct lk_err e;
    assert_int_equal(lk_file_read(path, 1 << 20, &b, &e), 0);
    assert_string_equal(b.data, text);
    lk_buf_release(&b);
}

static void read_whole(void **state) {
    char *path = test_join(*state, "f");
    struct lk_buf b = LK_BUF_INIT;
    struct lk_err e;
    assert_int_equal(lk_file_read(path, 10, &b, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, path));
    assert_int_equal(lk_file_write_atomic(path, "0123456789", 10, &e), 0);
    assert_int_equal(lk_file_read(path, 9, &b, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "limit of 9 bytes"));
    assert_int_equal(b.size, 0);
    assert_int_equal(lk_file_read(path, 10, &b, &e), 0);
    assert_string_equal(b.data, "0123456789");
    assert_int_equal(lk_file_read(path, 10, &b, &e), 0); /* appends */
    assert_int_equal(b.size, 20);
    lk_buf_release(&b);
    assert_int_equal(lk_file_read(*state, 10, &b, &e), LK_EIO);
    assert_non_null(strstr(e.message, "directory"));
    FAIL_EACH_ALLOCATION((lk_buf_release(&b), lk_file_read(path, 100, &b, &e)));
    lk_buf_release(&b);
    lk_free(path);
}

static void write_pipe(void *path) {
    int fd = open(path, O_WRONLY);
    char block[1000];
    memset(block, 'p', sizeof block);
    for (int i = 0; i < 200; i++)
        if (write(fd, block, sizeof block) < 0) _exit(0); /* the reader has had enough */
    close(fd);
}
static void read_pipe(void **state) {
    char *path = test_join(*state, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    for (int limited = 0; limited < 2; limited++) {
        struct lk_buf b = LK_BUF_INIT;
        struct lk_err e;
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGPIPE, SIG_IGN);
            write_pipe(path);
            _exit(0);
        }
        int code = lk_file_read(path, limited ? 150000 : 200000, &b, &e);
        assert_int_equal(code, limited ? LK_EINVAL : 0);
        assert_int_equal(b.size, limited ? 0 : 200000);
        lk_buf_release(&b);
        waitpid(pid, NULL, 0);
    }
    lk_free(path);
}

static void write_fails_at_every_point(void **state) {
    char *path = test_join(*state, "f");
    static const int numbers[] = {EIO, ENOSPC, EACCES};
    for (size_t k = 0; k < 3; k++) {
        for (uint64_t nth = 1;; nth++) {
            struct lk_err e = {0};
            assert_int_equal(lk_file_write_atomic(path, "old", 3, &e), 0);
            lk__file_fail_at(nth, numbers[k]);
            int code = lk_file_write_atomic(path, "new", 3, &e);
            uint64_t calls = lk__file_call_count();
            lk__file_fail_at(0, 0);
            assert_int_equal(test_dir_entries(*state), 1);
            if (calls < nth) {
                assert_int_equal(code, 0);
                expect_content(path, "new");
                assert_int_equal(nth, 8); /* open, write, fsync, close, rename; the folder's open, fsync */
                break;
            }
            assert_int_equal(code, LK_EIO);
            assert_non_null(strstr(e.message, strerror(numbers[k])));
            assert_non_null(strstr(e.message, *state));
            /* A folder that cannot be synced has the new file already; before that, all is as it was. */
            expect_content(path, nth <= 5 ? "old" : "new");
        }
    }
    struct lk_err e;
    FAIL_EACH_ALLOCATION(lk_file_write_atomic(path, "new", 3, &e));
    lk_free(path);
}

struct kill_case {
    const char *path;
    uint64_t nth;
};
static void killed_writer(void *arg) {
    struct kill_case *k = arg;
    lk__file_kill_at(k->nth);
    lk_file_write_atomic(k->path, "new", 3, NULL);
}
/* As root a rename would put a file in the place of /dev/null. */
static void what_is_no_file_is_written_to(void **state) {
    char *path = test_join(*state, "pipe"), text[8] = "";
    struct stat st;
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(lk_file_write_atomic(path, "abc", 3, NULL), 0);
    assert_int_equal(read(reader, text, sizeof text), 3);
    assert_memory_equal(text, "abc", 3);
    assert_true(stat(path, &st) == 0 && S_ISFIFO(st.st_mode));
    close(reader);
    lk_free(path);
}

static void killed_at_every_point(void **state) {
    if (LK_TSAN) skip(); /* fork */
    char *path = test_join(*state, "f");
    int alive = 0;
    for (uint64_t nth = 1; !alive; nth++) {
        assert_int_equal(lk_file_write_atomic(path, "old", 3, NULL), 0);
        struct kill_case k = {path, nth};
        int status = test_fork(killed_writer, &k);
        alive = WIFEXITED(status);
        if (!alive) assert_int_equal(WTERMSIG(status), SIGKILL);
        expect_content(path, nth <= 5 ? "old" : "new");
    }
    lk_free(path);
}

static void full_disk(void *path) {
    struct rlimit limit = {5000, 5000};
    struct lk_err e;
    char *big = lk_calloc(1, 100000);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    int code = lk_file_write_atomic(path, big, 100000, &e);
    lk_free(big);
    _exit(code == LK_EIO && strstr(e.message, "File too large") ? 0 : 1);
}
static void full_disk_leaves_the_old(void **state) {
    if (LK_TSAN) skip(); /* fork */
    char *path = test_join(*state, "f");
    assert_int_equal(lk_file_write_atomic(path, "old", 3, NULL), 0);
    assert_int_equal(test_fork(full_disk, path), 0);
    expect_content(path, "old");
    assert_int_equal(test_dir_entries(*state), 1);
    lk_free(path);
}

static void short_writes_go_on(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    char *big = lk_calloc(1, 1 << 20);
    errno = 0;
    assert_int_equal(lk__write_all(fds[1], big, 1 << 20), -1); /* the pipe fills up: a short write, then EAGAIN */
    assert_int_equal(errno, EAGAIN);
    lk_free(big);
    close(fds[0]);
    close(fds[1]);
}

static void directories(void **state) {
    struct lk_err e;
    char *deep = test_join(*state, "a//b/c/");
    assert_int_equal(lk_dir_make(deep, &e), 0);
    assert_int_equal(lk_dir_make(deep, &e), 0);
    assert_true(lk_file_exists(deep));
    char *file = test_join(*state, "a/b/c/file"), *below = test_join(*state, "a/b/c/file/d");
    assert_int_equal(lk_file_write_atomic(file, "", 0, &e), 0);
    assert_int_equal(lk_dir_make(file, &e), LK_EIO);
    assert_int_equal(lk_dir_make(below, &e), LK_EIO);
    assert_non_null(strstr(e.message, "Not a directory"));
    assert_int_equal(lk_dir_make("", &e), LK_EINVAL);
    char *top = test_join(*state, "a"), *link = test_join(*state, "a/link");
    assert_int_equal(symlink(*state, link), 0);
    assert_int_equal(lk_dir_remove(top, &e), 0); /* removes the link, not what it points at */
    assert_true(lk_file_exists(*state));
    assert_false(lk_file_exists(top));
    assert_int_equal(lk_dir_remove(top, &e), 0);
    FAIL_EACH_ALLOCATION((lk_dir_remove(top, NULL), lk_dir_make(deep, &e)));
    for (uint64_t nth = 1; nth <= 4; nth++) {
        lk_dir_remove(top, NULL);
        lk__file_fail_at(nth, EIO);
        assert_int_equal(lk_dir_make(deep, &e), LK_EIO);
        lk__file_fail_at(0, 0);
    }
    assert_int_equal(lk_dir_sync("/nonexistent-dir", &e), LK_ENOTFOUND);
    lk_free(deep);
    lk_free(file);
    lk_free(below);
    lk_free(top);
    lk_free(link);
}

static void maps(void **state) {
    char *path = test_join(*state, "m");
    struct lk_map m;
    struct lk_err e;
    assert_int_equal(lk_map_open(path, &m, &e), LK_ENOTFOUND);
    assert_int_equal(lk_map_open(*state, &m, &e), LK_EIO);
    assert_int_equal(lk_map_open("/dev/null", &m, &e), LK_EINVAL);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(lk_map_open(path, &m, &e), LK_EINVAL); /* and does not wait for a writer */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(lk_file_write_atomic(path, "", 0, &e), 0);
    assert_int_equal(lk_map_open(path, &m, &e), 0);
    assert_non_null(m.data);
    assert_int_equal(m.size, 0);
    lk_map_close(&m);
    assert_int_equal(lk_file_write_atomic(path, "abc", 3, &e), 0);
    assert_int_equal(lk_map_open(path, &m, &e), 0);
    assert_int_equal(m.size, 3);
    assert_memory_equal(m.data, "abc", 3);
    lk_map_close(&m);
    lk_map_close(&m);
    lk_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(read_whole),
        TEST_IN_DIR(read_pipe),
        TEST_IN_DIR(write_fails_at_every_point),
        TEST_IN_DIR(what_is_no_file_is_written_to),
        TEST_IN_DIR(killed_at_every_point),
        TEST_IN_DIR(full_disk_leaves_the_old),
        TEST_IN_DIR(short_writes_go_on),
        TEST_IN_DIR(directories),
        TEST_IN_DIR(maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
