/* JSON as Python's json.dumps writes it. */
#include "base/testing.h"
#include "lockstep/base/json.h"

static void gives(const char *text, unsigned indent, const char *wanted) {
    struct lk_err err;
    struct lk_buf out = LK_BUF_INIT;
    json_t *v = lk_json_parse_zeros(text, strlen(text), "test", &err);
    assert_non_null(v);
    assert_int_equal(lk_json_python(v, indent, &out), 0);
    assert_int_equal(lk_buf_append(&out, "", 1), 0);
    assert_string_equal(out.data, wanted);
    lk_buf_release(&out);
    json_decref(v);
}

static void values(void **state) {
    (void)state;
    gives("{\"b\":[1,true,null,{}],\"a\":\"x\"}", 0, "{\"b\": [1, true, null, {}], \"a\": \"x\"}");
    gives("[]", 4, "[]");
    gives("{\"b\":[1,[]],\"a\":{\"c\":false}}", 2,
          "{\n  \"b\": [\n    1,\n    []\n  ],\n  \"a\": {\n    \"c\": false\n  }\n}");
    gives("-9223372036854775808", 0, "-9223372036854775808");
}

static void strings(void **state) {
    (void)state;
    gives("\"a\\\"b\\\\c\\/d\\n\\r\\t\\b\\f\\u001f\\u0000\\u007f\\u00e9\\u2028\"", 0,
          "\"a\\\"b\\\\c/d\\n\\r\\t\\b\\f\\u001f\\u0000\x7f\xc3\xa9\xe2\x80\xa8\"");
}

/* What repr says of them. */
static void reals(void **state) {
    (void)state;
    static const char *const same[] = {"1.0",
                                       "-0.0",
                                       "0.1",
                                       "1.5",
                                       "100.0",
                                       "0.0001",
                                       "1e-05",
                                       "1.5e-07",
                                       "9999999999999998.0",
                                       "1e+16",
                                       "1.2345678901234568e+17",
                                       "123456.789",
                                       "0.30000000000000004",
                                       "5.960464477539063e-08",
                                       "5.684341886080802e-14",
                                       "6.617444900424222e-24",
                                       "5e-324",
                                       "2.2250738585072014e-308",
                                       "1.7976931348623157e+308"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) gives(same[i], 0, same[i]);
    gives("1E2", 0, "100.0");
    gives("6.1897001964269014e+26", 0, "6.189700196426902e+26");
}

static int dump(void) {
    struct lk_buf out = LK_BUF_INIT;
    json_t *v = json_pack("{s:[f,i],s:s}", "a", 0.1, 2, "b", "text");
    assert_non_null(v);
    int code = lk_json_python(v, 4, &out);
    lk_buf_release(&out);
    json_decref(v);
    return code;
}
static void out_of_memory(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(dump());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(strings),
        cmocka_unit_test(reals),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
