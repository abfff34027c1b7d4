/* The writer beside jansson: what it wrote is read back as what was meant. */
#include "base/testing.h"
#include "lockstep/base/json.h"
#include "lockstep/base/json_out.h"
#include <math.h>

/* A random value, written by us and built by jansson. */
static json_t *any(struct test_random *r, struct lk_json_out *o, int depth) {
    static const double numbers[] = {0, -0.0, 0.1, 1e300, 5e-324, -1.7976931348623157e308, 123456789.123456789, 1e15, 1e21};
    switch (test_random_below(r, depth < 4 ? 9 : 7)) {
    case 0:
        return lk_put_null(o), json_null();
    case 1:
        return lk_put_bool(o, true), json_true();
    case 2: {
        long long x = (long long)((uint64_t)test_random_below(r, UINT32_MAX) << 32 | test_random_below(r, UINT32_MAX));
        return lk_put_integer(o, x), json_integer(x);
    }
    case 3: {
        double x =
            test_random_below(r, 2) ? numbers[test_random_below(r, 9)] : (test_random_below(r, 1u << 30) - 5e8) / 7e4 + 0.1;
        return lk_put_double(o, x), json_real(x);
    }
    case 4: {
        float x = (float)(test_random_below(r, 1u << 30) - 5e8) / 7e4f;
        lk_put_float(o, x);
        char text[40];
        snprintf(text, sizeof text, "%.9g", (double)x);
        return json_real((double)x);
    }
    case 5:
    case 6: { /* all characters but surrogates */
        char text[64];
        size_t n = 0;
        for (uint32_t left = test_random_below(r, 14); left; left--) {
            uint32_t c = test_random_below(r, 3) ? test_random_below(r, 0x80) : test_random_below(r, 0x110000);
            if (c >= 0xD800 && c < 0xE000) c = '"';
            if (c < 0x80)
                text[n++] = (char)c;
            else if (c < 0x800)
                text[n++] = (char)(0xC0 | c >> 6), text[n++] = (char)(0x80 | (c & 63));
            else if (c < 0x10000)
                text[n++] = (char)(0xE0 | c >> 12), text[n++] = (char)(0x80 | (c >> 6 & 63)),
                text[n++] = (char)(0x80 | (c & 63));
            else
                text[n++] = (char)(0xF0 | c >> 18), text[n++] = (char)(0x80 | (c >> 12 & 63)),
                text[n++] = (char)(0x80 | (c >> 6 & 63)), text[n++] = (char)(0x80 | (c & 63));
        }
        return lk_put_string(o, text, n), json_stringn(text, n);
    }
    case 7: {
        json_t *array = json_array();
        lk_put_open(o, '[');
        for (uint32_t n = test_random_below(r, 4); n; n--) json_array_append_new(array, any(r, o, depth + 1));
        return lk_put_close(o, ']'), array;
    }
    default: {
        json_t *object = json_object();
        lk_put_open(o, '{');
        for (uint32_t n = test_random_below(r, 4); n; n--) {
            char key[4] = {(char)('a' + n), n % 2 ? '"' : 0, 0, 0};
            lk_put_key(o, key);
            json_object_set_new(object, key, any(r, o, depth + 1));
        }
        return lk_put_close(o, '}'), object;
    }
    }
}

/* jansson's reals are doubles; a float that was written shortly is equal as a float. */
static bool same(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b) && (json_is_real(a) || json_is_real(b))) {
        double x = json_number_value(a), y = json_number_value(b);
        return x == y || (float)x == (float)y;
    }
    if (json_typeof(a) != json_typeof(b)) return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b)) return false;
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!same(json_array_get(a, i), json_array_get(b, i))) return false;
        return true;
    }
    if (!json_is_object(a)) return json_equal(a, b);
    const char *key;
    json_t *value;
    if (json_object_size(a) != json_object_size(b)) return false;
    json_object_foreach((json_t *)a, key,
                        value) if (!json_object_get(b, key) || !same(value, json_object_get(b, key))) return false;
    return true;
}

static void jansson_reads_it_back(void **state) {
    (void)state;
    struct test_random r = test_random_open("json");
    for (int n = 0; n < 20000; n++) {
        struct lk_buf text = LK_BUF_INIT;
        struct lk_json_out o = lk_json_out(&text);
        json_t *meant = any(&r, &o, 0);
        json_error_t why;
        json_t *read = json_loadb(text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        if (!read || !same(meant, read)) fail_msg("%s: %.*s", read ? "another value" : why.text, (int)text.size, text.data);
        assert_false(o.failed);
        json_decref(meant);
        json_decref(read);
        lk_buf_release(&text);
    }
}

static void exact_texts(void **state) {
    (void)state;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_json_out o = lk_json_out(&text);
    lk_put_open(&o, '[');
    lk_put_string(&o, "a\"\\\b\f\n\r\t\x01\x7f/\0", 12);
    lk_put_string(&o, "\x80\xC3\xE2\x82\xF0\x9F\x98\xE2\x82\xAC\xED\xA0\x80\xC0\xAF", 15);
    lk_put_double(&o, NAN), lk_put_double(&o, -INFINITY), lk_put_double(&o, 0.1), lk_put_float(&o, 0.1f);
    lk_put_float(&o, -INFINITY), lk_put_double(&o, 1e22), lk_put_unsigned(&o, UINT64_MAX), lk_put_integer(&o, INT64_MIN);
    lk_put_text(&o, NULL), lk_put_text(&o, "");
    lk_put_open(&o, '{'), lk_put_close(&o, '}'), lk_put_open(&o, '[');
    lk_put_close(&o, ']'), lk_put_raw(&o, "{\"x\":1}", 7), lk_put_bool(&o, false);
    lk_put_close(&o, ']');
    assert_string_equal(
        text.data,
        "[\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f/\\u0000\",\"\uFFFD\uFFFD\uFFFD\uFFFD\u20AC\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\","
        "null,null,0.1,0.1,null,1e+22,18446744073709551615,-9223372036854775808,null,\"\",{},[],{\"x\":1},false]");
    lk_buf_release(&text);
}

static int write_one(void) {
    struct lk_buf text = LK_BUF_INIT;
    struct lk_json_out o = lk_json_out(&text);
    lk_put_open(&o, '[');
    for (int i = 0; i < 100; i++) lk_put_text(&o, "some text");
    lk_put_close(&o, ']');
    lk_buf_release(&text);
    return o.failed ? LK_ENOMEM : LK_OK;
}
static void no_memory_is_remembered(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(write_one());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jansson_reads_it_back),
        cmocka_unit_test(exact_texts),
        cmocka_unit_test(no_memory_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
