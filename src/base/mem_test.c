#include "base/testing.h"

static void check_aligned(void *p) {
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
}

static void every_pointer_is_aligned(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 1 << 20, (4 << 20) + 5, 64 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = lk_alloc(sizes[i]);
        check_aligned(p);
        memset(p, 1, sizes[i]);
        char *q = lk_realloc(p, 2 * sizes[i] + 1);
        check_aligned(q);
        for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(q[j], 1);
        q = lk_realloc(q, 10);
        check_aligned(q);
        lk_free(q);
    }
    char *z = lk_calloc(1000, 1001);
    check_aligned(z);
    for (size_t i = 0; i < 1001000; i++) assert_int_equal(z[i], 0);
    lk_free(z);
    lk_free(NULL);
}

static void impossible_sizes_give_null(void **state) {
    (void)state;
    volatile size_t most = SIZE_MAX;
    assert_null(lk_alloc(most));
    assert_null(lk_alloc(most / 2));
    assert_null(lk_calloc(most / 2, 3));
    void *p = lk_alloc(8);
    assert_null(lk_realloc(p, most));
    lk_free(p);
    struct lk_arena a;
    assert_int_equal(lk_arena_init(&a, most), LK_ENOMEM);
    assert_null(a.base);
}

static void the_nth_allocation_fails_once(void **state) {
    (void)state;
    lk__alloc_fail_at(2);
    void *a = lk_alloc(1), *b = lk_alloc(1), *c = lk_alloc(1);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_int_equal(lk__alloc_count(), 3);
    lk__alloc_fail_at(0);
    lk_free(a);
    lk_free(c);
    struct lk_arena arena;
    lk__alloc_fail_at(1);
    assert_int_equal(lk_arena_init(&arena, 1), LK_ENOMEM);
    lk__alloc_fail_at(0);
}

static void strings(void **state) {
    (void)state;
    char *a = lk_strdup("abc"), *b = lk_strndup("abcdef", 3), *c = lk_asprintf("%s-%d", "x", 42);
    assert_string_equal(a, "abc");
    assert_string_equal(b, "abc");
    assert_string_equal(c, "x-42");
    lk_free(a);
    lk_free(b);
    lk_free(c);
}

static void arena(void **state) {
    (void)state;
    struct lk_arena a;
    assert_int_equal(lk_arena_init(&a, 8 << 20), 0);
    char *p = lk_arena_take(&a, 100), *q = lk_arena_take(&a, 1);
    check_aligned(p);
    check_aligned(q);
    assert_ptr_equal(q, p + 128);
    assert_int_equal(p[99], 0);
    assert_null(lk_arena_take(&a, a.size_bytes));
    assert_non_null(lk_arena_take(&a, a.size_bytes - a.used_bytes));
    assert_null(lk_arena_take(&a, 1));
    assert_null(lk_arena_take(&a, SIZE_MAX));
    assert_non_null(lk_arena_take(&a, 0));
    lk_arena_release(&a);
    assert_null(a.base);
}

static int fill(struct lk_buf *b) {
    for (int i = 0; i < 100; i++) {
        int code = i % 2 ? lk_buf_append(b, "0123456789", 10) : lk_buf_printf(b, "%s", "0123456789");
        if (code != 0) return code;
    }
    return 0;
}
static int fill_new(void) {
    struct lk_buf b = LK_BUF_INIT;
    int code = fill(&b);
    if (code == 0) {
        assert_int_equal(b.size, 1000);
        assert_int_equal(b.data[1000], 0);
        assert_memory_equal(b.data + 990, "0123456789", 10);
    }
    lk_buf_release(&b);
    return code;
}
static void buffer(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(fill_new());
    struct lk_buf b = LK_BUF_INIT;
    assert_int_equal(lk_buf_append(&b, "", 0), 0);
    assert_string_equal(b.data, "");
    assert_int_equal(lk_buf_reserve(&b, SIZE_MAX), LK_ENOMEM);
    lk_buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pointer_is_aligned),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(the_nth_allocation_fails_once),
        cmocka_unit_test(strings),
        cmocka_unit_test(arena),
        cmocka_unit_test(buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
