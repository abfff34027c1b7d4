/* What the unit tests share: cmocka, OK and FAILS, directories, faults, random numbers with a printed seed. Not part of the
 * library. */
#ifndef LK_TESTING_H
#define LK_TESTING_H
#include "base/faults.h"
#include "base/sanitizers.h"
#include "lockstep/base/err.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/random.h"
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What the calls inside OK and FAILS fill. */
static struct lk_err test_err __attribute__((unused));

/* x, a call that fills test_err, works. */
#define OK(x)                                                                                                              \
    do {                                                                                                                   \
        int ok_code = (x);                                                                                                 \
        if (ok_code) fail_msg("%s: %d, %s", #x, ok_code, test_err.message);                                                \
    } while (0)
/* x fails with the code `want` and a message that contains `part`. */
#define FAILS(x, want, part)                                                                                               \
    do {                                                                                                                   \
        test_err.message[0] = 0;                                                                                           \
        int fails_code = (x);                                                                                              \
        if (fails_code != (want)) fail_msg("%s: code %d (%s), not %s", #x, fails_code, test_err.message, #want);           \
        if (!strstr(test_err.message, part)) fail_msg("%s: \"%s\" does not say \"%s\"", #x, test_err.message, part);       \
    } while (0)

/* A new empty directory; the caller removes it with test_dir_remove. */
static inline char *test_dir_make(void) {
    const char *top = getenv("TMPDIR");
    char *path = lk_asprintf("%s/lockstep-test-XXXXXX", top && *top ? top : "/tmp");
    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}
static inline void test_dir_remove(char *path) {
    assert_int_equal(lk_dir_remove(path, NULL), 0);
    lk_free(path);
}
static inline char *test_join(const char *dir, const char *name) {
    char *path = lk_asprintf("%s/%s", dir, name);
    assert_non_null(path);
    return path;
}

/* Names in a directory, hidden ones too. */
static inline int test_dir_entries(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* A test whose *state is such a directory of its own. */
#define TEST_IN_DIR(f) cmocka_unit_test_setup_teardown(f, test_dir_setup, test_dir_teardown)
static inline int test_dir_setup(void **state) {
    *state = test_dir_make();
    return 0;
}
static inline int test_dir_teardown(void **state) {
    test_dir_remove(*state);
    return 0;
}

/* Makes `path`, in the empty folder `top`, again and again: with each allocation failing, then each write. What fails
 * leaves nothing; what works is checked and removed. */
struct test_failing {
    const char *top, *path;
    int (*make)(void *arg);
    void (*check)(void *arg); /* that path is whole */
    int (*remove)(const char *path);
    void *arg;
};
static inline void test_each_failure(const struct test_failing *f) {
    for (int error = 0; error < 2; error++)
        for (uint64_t nth = 1, last = 0; !last; nth++) {
            assert_in_range(nth, 1, 5000);
            if (error)
                lk__file_fail_at(nth, ENOSPC);
            else
                lk__alloc_fail_at(nth);
            int code = f->make(f->arg);
            last = (error ? lk__file_call_count() : lk__alloc_count()) < nth;
            lk__file_fail_at(0, 0);
            lk__alloc_fail_at(0);
            if (last) OK(code);
            if (!code) f->check(f->arg);
            if (!code || lk_file_exists(f->path)) /* of a failure: only the fsync of top comes after the rename */
                assert_true((!code || error) && f->remove(f->path) == 0);
            assert_int_equal(test_dir_entries(f->top), 0);
        }
}

/* Runs `call`, an expression whose value is 0 or an error code, with the 1st, 2nd, ... allocation failing until it works.
 * Each failure has to be reported; AddressSanitizer's build shows that nothing is lost on the way. */
#define FAIL_EACH_ALLOCATION(call)                                                                                         \
    do {                                                                                                                   \
        for (uint64_t nth = 1;; nth++) {                                                                                   \
            assert_in_range(nth, 1, 10000);                                                                                \
            lk__alloc_fail_at(nth);                                                                                        \
            int failing_code = (call);                                                                                     \
            uint64_t made = lk__alloc_count();                                                                             \
            lk__alloc_fail_at(0);                                                                                          \
            if (made < nth) {                                                                                              \
                assert_int_equal(failing_code, 0);                                                                         \
                break;                                                                                                     \
            }                                                                                                              \
            assert_int_equal(failing_code, LK_ENOMEM);                                                                     \
        }                                                                                                                  \
    } while (0)

/* --- random numbers, from a seed that is printed and can be given again ----------------------------------- */

/* The line to repeat this program's random cases; printed when it fails or aborts, by itself and not by a child of it. */
static char test_repeat[256];
static pid_t test_process;
static inline void test_at_exit(int status, void *unused) {
    (void)unused;
    if (status && getpid() == test_process) fputs(test_repeat, stdout);
}
static inline void test_at_abort(int number) {
    if (getpid() == test_process && write(STDERR_FILENO, test_repeat, strlen(test_repeat)) < 0) _exit(1);
    signal(number, SIG_DFL);
    raise(number);
}
static inline uint64_t test_seed(const char *name) {
    static uint64_t seed;
    if (!test_process) {
        const char *given = getenv("LOCKSTEP_TEST_SEED"), *file = __BASE_FILE__;
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        seed = given && *given ? strtoull(given, NULL, 0)
                               : ((uint64_t)t.tv_sec * 1000003u ^ (uint64_t)t.tv_nsec) & 0xFFFFFFFFu;
        snprintf(test_repeat, sizeof test_repeat, "repeat: LOCKSTEP_TEST_SEED=%llu make%s unit ONLY=%.*s\n",
                 (unsigned long long)seed,
                 LK_ASAN   ? " SAN=address,undefined"
                 : LK_TSAN ? " SAN=thread"
                           : "",
                 (int)strcspn(file, "."), file);
        test_process = getpid();
        on_exit(test_at_exit, NULL);
        signal(SIGABRT, test_at_abort);
    }
    printf("%s: LOCKSTEP_TEST_SEED=%llu\n", name, (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

struct test_random {
    uint64_t seed;
    uint32_t step;
};
static inline struct test_random test_random_open(const char *name) {
    return (struct test_random){test_seed(name), 0};
}
static inline uint64_t test_random_u64(struct test_random *r) {
    uint32_t out[4];
    lk_random(r->seed, LK_PURPOSE_VERIFY, r->step++, 0, 0, 0, out);
    return (uint64_t)out[1] << 32 | out[0];
}
static inline uint32_t test_random_below(struct test_random *r, uint32_t n) {
    uint32_t out[4];
    lk_random(r->seed, LK_PURPOSE_VERIFY, r->step++, 0, 0, 0, out);
    return (uint32_t)((uint64_t)out[0] * n >> 32);
}

/* Runs fn in a forked child and returns its wait status. */
static inline int test_fork(void (*fn)(void *), void *arg) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

#endif
