#include "base/testing.h"
#include "lockstep/base/base64.h"

/* RFC 4648, section 10. */
static void vectors(void **state) {
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct lk_buf text = LK_BUF_INIT, back = LK_BUF_INIT;
        OK(lk_base64_write(&text, lk_bytes(pairs[i][0], strlen(pairs[i][0]))));
        assert_string_equal(text.data, pairs[i][1]);
        assert_true(lk_base64_read(text.data, text.size, &back));
        assert_int_equal(back.size, strlen(pairs[i][0]));
        assert_memory_equal(back.data ? back.data : "", pairs[i][0], back.size);
        lk_buf_release(&text);
        lk_buf_release(&back);
    }
}

static void what_is_none(void **state) {
    static const char *const bad[] = {"Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm9v\n"};
    struct lk_buf out = LK_BUF_INIT;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (lk_base64_read(bad[i], strlen(bad[i]), &out)) fail_msg("%s", bad[i]);
    lk_buf_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors), cmocka_unit_test(what_is_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
