/* As much of cmocka as the math floor's tests use, for the NEON binaries: no library has to be there for the other machine.
 */
#ifndef LOCKSTEP_TESTS_ARM64_CMOCKA_H
#define LOCKSTEP_TESTS_ARM64_CMOCKA_H
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **);
    int (*setup)(void **), (*teardown)(void **);
    void *initial_state;
};
static jmp_buf cmocka_skip;
#define cmocka_unit_test(f)                                                                                                \
    { #f, f, NULL, NULL, NULL }
#define cmocka_run_group_tests(tests, setup, teardown)            run_tests(tests, sizeof(tests) / sizeof *(tests), setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) cmocka_run_group_tests(tests, setup, teardown)
#define skip()                                                    longjmp(cmocka_skip, 1)
#define print_message                                             printf
#define fail_msg(...)                                                                                                      \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))
#define assert_true(x)               ((x) ? (void)0 : (void)fail_msg("%s", #x))
#define assert_false(x)              assert_true(!(x))
#define assert_null(x)               assert_true((x) == NULL)
#define assert_non_null(x)           assert_true((x) != NULL)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_int_not_equal(a, b)   assert_true((a) != (b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_string_equal(a, b)                                                                                          \
    (strcmp(a, b) == 0 ? (void)0 : (void)fail_msg("\"%s\" is not \"%s\"", (const char *)(a), (const char *)(b)))

static inline int run_tests(const struct CMUnitTest *tests, size_t count, int (*setup)(void **), int (*teardown)(void **)) {
    void *group = NULL;
    if (setup && setup(&group)) return 1;
    for (volatile size_t i = 0; i < count; i++) { /* longjmp */
        void *state = tests[i].initial_state ? tests[i].initial_state : group;
        if (setjmp(cmocka_skip)) {
            printf("  %s skipped\n", tests[i].name);
            continue;
        }
        tests[i].test(&state);
        printf("  %s ok\n", tests[i].name);
        fflush(stdout);
    }
    return teardown ? teardown(&group) : 0;
}

#endif
