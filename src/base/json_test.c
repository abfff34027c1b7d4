#include "base/testing.h"
#include "lockstep/base/json.h"
#include <float.h>
#include <math.h>

static json_t *parse(const char *text, struct lk_err *err) {
    return lk_json_parse(text, strlen(text), "f.json", err);
}

static void refuses(const char *text, size_t size, const char *message) {
    struct lk_err e;
    assert_null(lk_json_parse(text, size, "f.json", &e));
    assert_int_equal(e.code, LK_EINVAL);
    if (!strstr(e.message, message)) fail_msg("\"%s\" is not in \"%s\"", message, e.message);
}
#define REFUSES(text, message) refuses(text, strlen(text), message)

static void hostile_input(void **state) {
    (void)state;
    REFUSES("", "f.json:1:0: not valid JSON at byte 0");
    REFUSES("{\"a\": 1,\n \"a\": 2}", "f.json:2:");
    REFUSES("{\"a\": 1} x", "end of file expected");
    REFUSES("[1, 2", "f.json:1:5");
    REFUSES("[1e999]", "real number overflow");
    REFUSES("[99999999999999999999]", "too big integer");
    REFUSES("\"\xff\"", "unable to decode byte 0xff");
    REFUSES("\"\\ud800\"", "\\uD800");
    REFUSES("\"\\u0000\"", "\\u0000");
    REFUSES("[nan]", "invalid token");
    REFUSES("[01]", "f.json:1:");
    refuses("[1]\0", 4, "f.json:1:");
    struct lk_buf deep = LK_BUF_INIT;
    for (int i = 0; i < 100000; i++) lk_buf_append(&deep, "[", 1);
    refuses(deep.data, deep.size, "maximum parsing depth");
    lk_buf_release(&deep);
}

static void expect_canonical(const char *in, const char *out) {
    struct lk_err e;
    struct lk_buf b = LK_BUF_INIT;
    json_t *j = parse(in, &e);
    assert_non_null(j);
    lk_buf_append(&b, ">", 1);
    assert_int_equal(lk_json_canonical(j, &b, &e), 0);
    assert_string_equal(b.data + 1, out);
    json_decref(j);
    lk_buf_release(&b);
}

static void canonical_text(void **state) {
    (void)state;
    expect_canonical("{ \"b\" : [1, -2 , true, null],\n\"a\":\"x\\u00e4\\n\\/\", \"B\": {}, \"\\u00e4\": 0, \"z\": 1}",
                     "{\"B\":{},\"a\":\"x\xc3\xa4\\n/\",\"b\":[1,-2,true,null],\"z\":1,\"\xc3\xa4\":0}");
    expect_canonical("9223372036854775807", "9223372036854775807");
    expect_canonical("\"x\"", "\"x\"");
    struct lk_err e;
    struct lk_buf b = LK_BUF_INIT;
    lk_buf_append(&b, "keep", 4);
    json_t *j = parse("{\"a\": [1.5]}", &e);
    assert_int_equal(lk_json_canonical(j, &b, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "1.5"));
    assert_string_equal(b.data, "keep");
    json_decref(j);
    lk_buf_release(&b);
}

static void expect_float(double value, const char *text) {
    json_t *j = lk_json_float(value);
    assert_string_equal(json_string_value(j), text);
    double again;
    int code = lk_json_float_parse(j, &again);
    if (isfinite(value)) {
        assert_int_equal(code, 0);
        assert_memory_equal(&value, &again, sizeof value);
    } else {
        assert_int_equal(code, LK_EINVAL);
    }
    json_decref(j);
}

static void floats(void **state) {
    (void)state;
    expect_float(0, "0x0p+0");
    expect_float(-0.0, "-0x0p+0");
    expect_float(1, "0x1p+0");
    expect_float(-1.5, "-0x1.8p+0");
    expect_float(0.1, "0x1.999999999999ap-4");
    expect_float(1024, "0x1p+10");
    expect_float(DBL_MAX, "0x1.fffffffffffffp+1023");
    expect_float(DBL_MIN, "0x1p-1022");
    expect_float(4.9406564584124654e-324, "0x1p-1074");
    expect_float(DBL_MIN - 4.9406564584124654e-324, "0x1.ffffffffffffep-1023");
    expect_float(INFINITY, "inf");
    expect_float(-INFINITY, "-inf");
    expect_float(NAN, "nan");
    expect_float(-NAN, "nan");
    static const char *const bad[] = {"",
                                      "1",
                                      "0x1",
                                      "0x1p",
                                      "0x1p+",
                                      "0x1.p+0",
                                      "0x1.80p+0",
                                      "0x2p+0",
                                      "0X1p+0",
                                      "0x1p+00",
                                      "0x1p+1024",
                                      "0x1p-1075",
                                      "0x1p-0",
                                      "0x1.8P+0",
                                      "0x1.8p+0 ",
                                      " 0x1.8p+0",
                                      "+0x1p+0",
                                      "0x1.gp+0",
                                      "0x1p+99999",
                                      "0x0p+1",
                                      "-0x0p-0",
                                      "0x1.00000000000001p+0",
                                      "0x1.8p-1074",
                                      "0x1p+1a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *j = json_string(bad[i]);
        double x;
        if (lk_json_float_parse(j, &x) == 0) fail_msg("\"%s\" was taken", bad[i]);
        json_decref(j);
    }
    double x;
    assert_int_equal(lk_json_float_parse(NULL, &x), LK_EINVAL);
    struct test_random r = test_random_open("floats");
    for (int i = 0; i < 20000; i++) { /* and libc's reader agrees */
        uint64_t bits = (uint64_t)test_random_below(&r, UINT32_MAX) << 32 | test_random_below(&r, UINT32_MAX);
        if (i % 4 == 0) bits &= 0x800FFFFFFFFFFFFFull; /* subnormal */
        if (i % 3 == 0) bits &= ~(uint64_t)0 << i % 52;
        double value;
        memcpy(&value, &bits, 8);
        if (!isfinite(value)) continue;
        json_t *j = lk_json_float(value);
        double libc = strtod(json_string_value(j), NULL);
        assert_int_equal(lk_json_float_parse(j, &x), 0);
        assert_memory_equal(&x, &value, 8);
        assert_memory_equal(&libc, &value, 8);
        json_decref(j);
    }
}

static void getters(void **state) {
    (void)state;
    struct lk_err e;
    json_t *j = parse("{\"s\":\"x\",\"n\":7,\"neg\":-1,\"t\":true,\"r\":1.5,\"null\":null}", &e);
    const char *s;
    uint64_t n;
    assert_int_equal(lk_json_get_string(j, "s", "w", &s, &e), 0);
    assert_string_equal(s, "x");
    assert_int_equal(lk_json_get_u64(j, "n", "w", &n, &e), 0);
    assert_int_equal(n, 7);
    assert_int_equal(lk_json_get_u64(j, "neg", "manifest m", &n, &e), LK_EINVAL);
    assert_string_equal(e.message, "manifest m: \"neg\" is -1, it must not be negative");
    assert_int_equal(lk_json_get_string(j, "q", "manifest m", &s, &e), LK_EINVAL);
    assert_string_equal(e.message, "manifest m: \"q\" is missing");
    assert_int_equal(lk_json_get_u64(j, "r", "m", &n, &e), LK_EINVAL);
    assert_string_equal(e.message, "m: \"r\" must be a whole number, not a real number");
    assert_int_equal(lk_json_get_u64(j, "null", "m", &n, &e), LK_EINVAL);
    assert_int_equal(lk_json_get_u64(json_object_get(j, "s"), "x", "m", &n, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "object is needed"));
    assert_int_equal(lk_json_get_u64(NULL, "x", "m", &n, &e), LK_EINVAL);
    json_decref(j);
}

static int round_trip(void) {
    struct lk_err e = {0};
    json_t *j = parse("{\"a\": [1, \"two\", {\"b\": true}], \"c\": \"0x1p+0\"}", &e);
    /* jansson blames the text when it cannot store a string. */
    if (!j) return e.code == LK_EINVAL ? LK_ENOMEM : e.code;
    struct lk_buf b = LK_BUF_INIT;
    int code = lk_json_canonical(j, &b, &e);
    json_decref(j);
    lk_buf_release(&b);
    return code;
}
static int make_float(void) {
    json_t *j = lk_json_float(1.5);
    json_decref(j);
    return j ? 0 : LK_ENOMEM;
}
static void out_of_memory(void **state) {
    (void)state;
    json_set_alloc_funcs(lk_alloc, lk_free);
    FAIL_EACH_ALLOCATION(round_trip());
    FAIL_EACH_ALLOCATION(make_float());
    json_set_alloc_funcs(malloc, free);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_input), cmocka_unit_test(canonical_text), cmocka_unit_test(floats),
        cmocka_unit_test(getters),       cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
