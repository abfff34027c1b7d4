#include "base/testing.h"
#include <errno.h>

static void fills_and_returns(void **state) {
    (void)state;
    struct lk_err e;
    assert_int_equal(lk_fail(&e, LK_EINVAL, "key %s in line %d", "a", 3), LK_EINVAL);
    assert_int_equal(e.code, LK_EINVAL);
    assert_string_equal(e.message, "key a in line 3");
    assert_int_equal(lk_fail(NULL, LK_EBUSY, "x"), LK_EBUSY);
}

static void stays_one_line_and_in_bounds(void **state) {
    (void)state;
    struct lk_err e;
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    lk_fail(&e, LK_EIO, "a\nb\x1b[31m%s", big);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    assert_null(strpbrk(e.message, "\n\x1b"));
    lk_fail_prefix(&e, LK_EIO, "%s", big);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
}

static void errno_becomes_a_code(void **state) {
    (void)state;
    struct lk_err e;
    errno = ENOENT;
    assert_int_equal(lk_fail_errno(&e, "cannot open %s", "f"), LK_ENOTFOUND);
    assert_string_equal(e.message, "cannot open f: No such file or directory");
    errno = ENOMEM;
    assert_int_equal(lk_fail_errno(&e, "x"), LK_ENOMEM);
    errno = ENOSPC;
    assert_int_equal(lk_fail_errno(NULL, "x"), LK_EIO);
}

static void prefix_goes_in_front(void **state) {
    (void)state;
    struct lk_err e;
    lk_fail(&e, LK_ENOTFOUND, "no row");
    assert_int_equal(lk_fail_prefix(&e, e.code, "dataset %d", 7), LK_ENOTFOUND);
    assert_string_equal(e.message, "dataset 7: no row");
    assert_int_equal(lk_fail_prefix(NULL, LK_EBUSY, "x"), LK_EBUSY);
}

static void every_code_has_a_text(void **state) {
    (void)state;
    for (int code = 0; code >= LK_ECONFLICT; code--) assert_string_not_equal(lk_code_text(code), "unknown error");
    assert_string_equal(lk_code_text(-12345), "unknown error");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_and_returns),     cmocka_unit_test(stays_one_line_and_in_bounds),
        cmocka_unit_test(errno_becomes_a_code),  cmocka_unit_test(prefix_goes_in_front),
        cmocka_unit_test(every_code_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
