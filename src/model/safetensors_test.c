/* Conversions on every 16-bit value and on all edges between them; headers that lie. */
#include "safetensors.h"

#include "testing.h"
#include <math.h>

static uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}
static float widen(enum lk__model_stored_type type, uint16_t h) {
    unsigned char raw[2] = {(unsigned char)h, (unsigned char)(h >> 8)};
    float x;
    lk__model_to_f32(type, raw, 1, &x);
    return x;
}
static uint16_t narrow(enum lk__model_stored_type type, float x, bool *fits) {
    unsigned char raw[2];
    *fits = lk__model_from_f32(type, &x, 1, raw);
    return (uint16_t)(raw[0] | raw[1] << 8);
}

/* By the definition of the formats, in double. */
static double value_of(int exponent_bits, uint16_t h) {
    int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = h >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = h & ((1 << mantissa_bits) - 1);
    double x = exponent ? ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
                        : ldexp(mantissa, 1 - bias - mantissa_bits);
    return h & 0x8000 ? -x : x;
}

static void check_type(enum lk__model_stored_type type, int exponent_bits) {
    uint16_t infinity = (uint16_t)(((1 << exponent_bits) - 1) << (15 - exponent_bits));
    bool fits;
    for (uint32_t h = 0; h < infinity;
         h++) { /* positive and finite; its negative, and the places between it and the next */
        float x = widen(type, (uint16_t)h);
        assert_true((double)x == value_of(exponent_bits, (uint16_t)h));
        assert_int_equal(bits_of(widen(type, (uint16_t)(h | 0x8000))), bits_of(x) | 0x80000000u);
        assert_int_equal(narrow(type, x, &fits), h);
        assert_true(fits);
        double next = h + 1u < infinity ? value_of(exponent_bits, (uint16_t)(h + 1))
                                        : 2 * value_of(exponent_bits, (uint16_t)h) -
                                              value_of(exponent_bits, (uint16_t)(h - 1)); /* what would come next */
        float middle = (float)(((double)x + next) / 2);                                   /* exact: one bit more */
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        if ((double)middle == ((double)x + next) / 2) {
            assert_int_equal(narrow(type, middle, &fits), even);
            assert_int_equal(fits, even != infinity);
            assert_int_equal(narrow(type, -middle, &fits), even | 0x8000);
            assert_int_equal(narrow(type, nextafterf(middle, 0), &fits), h);
            assert_true(fits);
            if (isfinite(middle)) {
                assert_int_equal(narrow(type, nextafterf(middle, INFINITY), &fits), h + 1);
                assert_int_equal(fits, h + 1 != infinity || !isfinite(nextafterf(middle, INFINITY)));
            }
        }
    }
    assert_int_equal(narrow(type, INFINITY, &fits), infinity);
    assert_true(fits);
    assert_true(isnan(widen(type, (uint16_t)(infinity + 1))));
    uint16_t nan = narrow(type, NAN, &fits);
    assert_true(fits && isnan(widen(type, nan)));
}
static void sixteen_bits_are_exact_and_round_to_even(void **state) {
    (void)state;
    check_type(LK__F16, 5);
    check_type(LK__BF16, 8);
}

/* --- Headers --------------------------------------------------------------------------------------------- */

/* A file of this header and `extra` bytes of data, in its own memory, so that reading beyond it is found. */
static int read_text(const char *header, size_t extra, struct lk__model_safetensors *out, unsigned char **keep) {
    size_t n = strlen(header), size = 8 + n + extra;
    unsigned char *file = malloc(size);
    assert_non_null(file);
    memset(file, 1, size);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, n);
    int code = lk__model_safetensors_read(file, size, "x.safetensors", out, &test_err);
    if (keep)
        *keep = file;
    else
        free(file);
    return code;
}

static void good_files_are_read(void **state) {
    struct lk__model_safetensors s;
    unsigned char *file;
    (void)state;
    OK(read_text(
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"none\":{\"dtype\":\"I64\",\"shape\":[0,7],"
        "\"data_offsets\":[16,16]}}  ",
        16, &s, &file));
    assert_int_equal(s.count, 3);
    assert_string_equal(s.tensors[0].name, "a");
    const struct lk__model_stored_tensor *b = lk__model_safetensors_find(&s, "b");
    assert_true(b && b->type == LK__F16 && b->dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->bytes == 12);
    assert_true(lk__model_safetensors_find(&s, "none")->type == LK__OTHER_TYPE);
    assert_null(lk__model_safetensors_find(&s, "__metadata__"));
    assert_null(lk__model_safetensors_find(&s, "c"));
    lk__model_safetensors_release(&s);
    free(file);
}

static void lies_are_found(void **state) {
    static const struct {
        const char *header, *says;
        size_t extra;
        int code;
    } bad[] = {
        {"", "x.safetensors", 0, LK_ECORRUPT},
        {"[]", "no JSON object", 0, LK_ECORRUPT},
        {"{\"a\":3}", "\"a\" has no dtype", 0, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F12\",\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype F12", 4, LK_EUNSUPPORTED},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "shape", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", "shape", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", "shape", 0, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", "beyond the file", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "beyond the file", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "beyond the file", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "number of bytes", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "hole", 8, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F16\",\"shape\":[1],"
         "\"data_offsets\":[2,4]}}",
         "overlaps", 4, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "behind the last tensor", 5, LK_ECORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{}}", "", 4, LK_ECORRUPT},
    };
    (void)state;
    struct lk__model_safetensors s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(read_text(bad[i].header, bad[i].extra, &s, NULL), bad[i].code, bad[i].says);
    unsigned char file[] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    for (size_t n = 0; n <= sizeof file; n++)
        FAILS(lk__model_safetensors_read(file, n, "short", &s, &test_err), LK_ECORRUPT, "cut short");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bits_are_exact_and_round_to_even),
        cmocka_unit_test(good_files_are_read),
        cmocka_unit_test(lies_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
