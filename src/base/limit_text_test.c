/* Limits in messages, each in a child that has it. */
#include "base/syscalls.h"
#include "base/testing.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#define SAYS(call, part) ((call) != 0 && strstr(test_err.message, part) ? (void)0 : (puts(test_err.message), _exit(1)))
static void limit(int which, rlim_t most) {
    if (setrlimit(which, &(struct rlimit){most, most}) != 0) _exit(77);
}
static void little_space(void *dir) {
    char *path = test_join(dir, "large");
    struct lk_map map;
    struct lk_pool *pool;
    if (truncate(path, (off_t)1 << 30) != 0) _exit(77);
    limit(RLIMIT_AS, (rlim_t)500 << 20);
    SAYS(lk_map_open(path, &map, &test_err), "address space is limited to 500 MiB (ulimit -v)");
    SAYS(lk_pool_open(256, &pool, &test_err), "address space is limited to 500 MiB (ulimit -v)");
    SAYS(lk_alloc((size_t)1 << 40) ? 0 : lk_fail(&test_err, LK_ENOMEM, "no memory"),
         "no memory; address space is limited to 500 MiB (ulimit -v)");
    char once[sizeof test_err.message];
    snprintf(once, sizeof once, "%s", test_err.message);
    lk_fail(&test_err, LK_ENOMEM, "%s", once); /* handed on, it is not said twice */
    if (strcmp(once, test_err.message) != 0) _exit(2);
}
static void few_files(void *dir) {
    char *path = test_join(dir, "large");
    struct lk_buf b = LK_BUF_INIT;
    limit(RLIMIT_NOFILE, 3);
    SAYS(lk_file_read(path, 10, &b, &test_err), "this process may have 3 files open (ulimit -n)");
}
static void short_files(void *dir) {
    char *path = test_join(dir, "new");
    signal(SIGXFSZ, SIG_IGN);
    limit(RLIMIT_FSIZE, 4096);
    SAYS(lk_file_write_atomic(path, "", 0, &test_err) ? 0 : -1, "");
    SAYS(lk_file_write_atomic(path, lk_calloc(1, 5000), 5000, &test_err), "a file may have at most 4 KiB (ulimit -f)");
}
static void few_processes(void *unused) {
    (void)unused;
    struct lk_pool *pool;
    if (geteuid() == 0 && setuid(65534) != 0) _exit(77); /* root may have as many as it wants */
    limit(RLIMIT_NPROC, 0);
    SAYS(lk_pool_open(2, &pool, &test_err), "this user may have 0 processes and threads (ulimit -u)");
}
static void limits_are_named(void **state) {
    if (LK_SANITIZED) skip(); /* they take terabytes of address space */
    char *path = test_join(*state, "large");
    OK(lk_file_write_atomic(path, "x", 1, &test_err));
    lk_free(path);
    assert_int_equal(test_fork(little_space, *state), 0);
    assert_int_equal(test_fork(few_files, *state), 0);
    assert_int_equal(test_fork(short_files, *state), 0);
    assert_int_equal(test_fork(few_processes, *state), 0);
}
static void full_disks_are_named(void **state) {
    char *path = test_join(*state, "new");
    lk__file_fail_at(2, ENOSPC);
    FAILS(lk_file_write_atomic(path, "x", 1, &test_err), LK_EIO, " free");
    lk__file_fail_at(1, ENOSPC);
    FAILS(lk_file_write_atomic(path, "x", 1, &test_err), LK_EIO, " free");
    lk__file_fail_at(0, 0);
    errno = ENOSPC; /* what was said once is not said of another disk */
    lk_fail_errno(&test_err, "x");
    assert_string_equal(test_err.message, "x: No space left on device");
    lk_free(path);
}
/* A failure for want of disk space that nobody tells. */
static void fail_silently(int fd) {
    lk__file_fail_at(1, ENOSPC);
    assert_int_equal(lk__write(fd, "x", 1), -1);
    lk__file_fail_at(0, 0);
}
static void another_failure(const char *message) {
    errno = ENOSPC;
    lk_fail_errno(&test_err, "x");
    assert_string_equal(test_err.message, message);
}
static void a_note_belongs_to_its_failure(void **state) {
    char *path = test_join(*state, "new");
    int fd = lk__open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    fail_silently(fd); /* the next call works, so that the failure after it is another */
    assert_int_equal(lk__write(fd, "x", 1), 1);
    another_failure("x: No space left on device");
    fail_silently(fd); /* its message went to nobody */
    errno = ENOSPC;
    lk_fail_errno(NULL, "x");
    another_failure("x: No space left on device");
    fail_silently(fd); /* its message was made without errno */
    lk_fail(&test_err, LK_EIO, "the disk is full");
    another_failure("x: No space left on device");
    fail_silently(fd); /* the next message is of something else */
    errno = EACCES;
    lk_fail_errno(&test_err, "x");
    another_failure("x: No space left on device");
    lk__file_fail_at(1, ENOSPC); /* a folder may want room for a name */
    assert_int_equal(lk__rename(path, path), -1);
    lk__file_fail_at(0, 0);
    FAILS(lk_fail_errno(&test_err, "x"), LK_EIO, " free");
    lk__close(fd);
    lk_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST_IN_DIR(limits_are_named), TEST_IN_DIR(full_disks_are_named),
                                       TEST_IN_DIR(a_note_belongs_to_its_failure)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
