/* What the unit tests share. Not part of the library. */
#ifndef LK_TESTING_H
#define LK_TESTING_H
#include "lockstep/base/err.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/random.h"
#include <setjmp.h>
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

#if defined(__SANITIZE_THREAD__)
#define LK_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LK_TSAN 1
#endif
#endif
#ifndef LK_TSAN
#define LK_TSAN 0
#endif

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

/* Runs `call`, an expression whose value is 0 or an error code, with the 1st, 2nd, ... allocation failing until it works.
 * Each failure has to be reported; AddressSanitizer's build shows that nothing is lost on the way. */
#define FAIL_EACH_ALLOCATION(call)                                                                                         \
    do {                                                                                                                   \
        for (uint64_t nth = 1;; nth++) {                                                                                   \
            assert_in_range(nth, 1, 10000);                                                                                \
            lk_alloc_fail_at(nth);                                                                                         \
            int failing_rc = (call);                                                                                       \
            uint64_t made = lk_alloc_count();                                                                              \
            lk_alloc_fail_at(0);                                                                                           \
            if (made < nth) {                                                                                              \
                assert_int_equal(failing_rc, 0);                                                                           \
                break;                                                                                                     \
            }                                                                                                              \
            assert_int_equal(failing_rc, LK_ENOMEM);                                                                       \
        }                                                                                                                  \
    } while (0)

/* Random numbers of a test, from a seed that is printed and can be given again. */
struct test_random {
    uint64_t seed;
    uint32_t step;
};
static inline struct test_random test_random_open(const char *name) {
    const char *given = getenv("LOCKSTEP_TEST_SEED");
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t seed = given ? strtoull(given, NULL, 10) : ((uint64_t)t.tv_sec * 1000003u ^ (uint64_t)t.tv_nsec) & 0xFFFFFFFFu;
    printf("%s: LOCKSTEP_TEST_SEED=%llu\n", name, (unsigned long long)seed);
    fflush(stdout);
    return (struct test_random){seed, 0};
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
