/* GGUF's headers that lie, each by what the message says; the numbers of its types. */
#include "lockstep/base/file.h"
#include "lockstep/math/quant.h"
#include "model/gguf/gguf.h"

#include "model/testing.h"
#include <math.h>

static void put(struct lk_buf *b, uint64_t v, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) OK(lk_buf_append(b, &(char){(char)(v >> (8 * i))}, 1));
}
static void put_text(struct lk_buf *b, const char *text) {
    put(b, strlen(text), 8);
    OK(lk_buf_append(b, text, strlen(text)));
}

/* A file of some keys and two tensors; each part can be another one. */
struct parts {
    const char *magic;
    uint64_t version, tensors, keys, kind, of, count, string, dims, columns, type, place;
    const char *key, *name;
    size_t key_size;
};
static const struct parts good = {"GGUF", 3,        2,   4, LK__GGUF_U32, LK__GGUF_U16, 3, 5, 2, 32, LK__GGUF_Q8_0,
                                  64,     "a.size", "w", 6};

static struct lk_buf file_of(const struct parts *p) {
    struct lk_buf b = LK_BUF_INIT;
    OK(lk_buf_append(&b, p->magic, 4));
    put(&b, p->version, 4);
    put(&b, p->tensors, 8);
    put(&b, p->keys, 8);
    put(&b, p->key_size, 8);
    OK(lk_buf_append(&b, p->key, strlen(p->key)));
    put(&b, p->kind, 4);
    put(&b, 7, 4);
    put_text(&b, "a.list");
    put(&b, LK__GGUF_ARRAY, 4);
    put(&b, p->of, 4);
    put(&b, p->count, 8);
    put(&b, 0x000300020001, 6);
    put_text(&b, "a.text");
    put(&b, LK__GGUF_STRING, 4);
    put(&b, p->string, 8);
    OK(lk_buf_append(&b, "hello", 5));
    put_text(&b, "a.words");
    put(&b, LK__GGUF_ARRAY, 4);
    put(&b, LK__GGUF_STRING, 4);
    put(&b, 2, 8);
    put_text(&b, "one");
    put_text(&b, "two");
    put_text(&b, "v");
    put(&b, 1, 4);
    put(&b, 9, 8);
    put(&b, LK__GGUF_F32, 4);
    put(&b, 0, 8);
    put_text(&b, p->name);
    put(&b, p->dims, 4);
    put(&b, p->columns, 8);
    put(&b, 2, 8);
    put(&b, p->type, 4);
    put(&b, p->place, 8);
    while (b.size % 32) put(&b, 0, 1);
    for (size_t i = 0; i < 64 + 68; i++) put(&b, i & 15, 1); /* 36 bytes of v, then w */
    return b;
}

static void refused(struct parts p, int code, const char *says) {
    struct lk_buf b = file_of(&p);
    struct lk__gguf g;
    FAILS(lk__gguf_read(b.data, b.size, "x.gguf", &g, &test_err), code, says);
    assert_non_null(strstr(test_err.message, "x.gguf"));
    assert_null(g.values);
    lk_buf_release(&b);
}
#define REFUSED(code, says, ...)                                                                                           \
    do {                                                                                                                   \
        struct parts p = good;                                                                                             \
        __VA_ARGS__;                                                                                                       \
        refused(p, code, says);                                                                                            \
    } while (0)

static void a_good_file_is_read(void **state) {
    (void)state;
    for (uint64_t version = 2; version <= 3; version++) {
        struct parts p = good;
        struct lk__gguf g;
        struct lk_bytes text;
        uint64_t whole;
        double real;
        bool truth;
        p.version = version;
        struct lk_buf b = file_of(&p);
        OK(lk__gguf_read(b.data, b.size, "x.gguf", &g, &test_err));
        assert_int_equal(g.value_count, 4);
        assert_true(lk__gguf_whole(lk__gguf_value(&g, "a.size"), &whole) && whole == 7);
        assert_true(lk__gguf_real(lk__gguf_value(&g, "a.size"), &real) && real == 7);
        assert_false(lk__gguf_truth(lk__gguf_value(&g, "a.size"), &truth));
        assert_true(lk__gguf_text(lk__gguf_value(&g, "a.text"), &text) && text.size == 5 && !memcmp(text.data, "hello", 5));
        assert_null(lk__gguf_value(&g, "a.tex"));
        const struct lk__gguf_value *words = lk__gguf_value(&g, "a.words");
        const unsigned char *at = words->data;
        assert_true(words->count == 2 && words->of == LK__GGUF_STRING);
        text = lk__gguf_next_text(&at);
        text = lk__gguf_next_text(&at);
        assert_true(text.size == 3 && !memcmp(text.data, "two", 3));
        const struct lk__gguf_tensor *t = lk__gguf_tensor(&g, "w");
        assert_true(t->dims == 2 && t->shape[0] == 32 && t->shape[1] == 2 && t->bytes == 68);
        assert_ptr_equal(t->data, b.data + b.size - 68);
        assert_null(lk__gguf_tensor(&g, "u"));
        lk__gguf_release(&g);
        /* every shorter one is refused, and said to be one */
        for (size_t n = 0; n < b.size; n++) {
            FAILS(lk__gguf_read(b.data, n, "x.gguf", &g, &test_err), n < 4 ? LK_EINVAL : LK_ECORRUPT, "x.gguf");
            if (n >= 24) assert_true(strstr(test_err.message, "cut short") || strstr(test_err.message, "room for"));
        }
        FAIL_EACH_ALLOCATION(lk__gguf_read(b.data, b.size, "x.gguf", &g, &test_err));
        lk__gguf_release(&g);
        lk_buf_release(&b);
    }
}

static void headers_that_lie_are_refused(void **state) {
    (void)state;
    REFUSED(LK_EINVAL, "no GGUF file", p.magic = "GGUT");
    REFUSED(LK_EUNSUPPORTED, "version 1;", p.version = 1);
    REFUSED(LK_EUNSUPPORTED, "version 4;", p.version = 4);
    REFUSED(LK_EUNSUPPORTED, "big-endian", p.version = 0x03000000);
    REFUSED(LK_ECORRUPT, "18446744073709551615 keys", p.keys = UINT64_MAX);
    REFUSED(LK_ECORRUPT, "tensors, more than it has room for", p.tensors = (uint64_t)1 << 40);
    REFUSED(LK_ECORRUPT, "ends within a key", p.key_size = UINT64_MAX);
    REFUSED(LK_ECORRUPT, "is no name", p.key_size = 0);
    REFUSED(LK_ECORRUPT, "is no name", p.key = "a.\nize");
    REFUSED(LK_ECORRUPT, "a.size has kind 13", p.kind = 13);
    REFUSED(LK_ECORRUPT, "a.list is an array of kind 4294967295", p.of = UINT32_MAX);
    REFUSED(LK_EUNSUPPORTED, "a.list is an array of arrays", p.of = LK__GGUF_ARRAY);
    REFUSED(LK_ECORRUPT, "ends within a.list", p.count = (uint64_t)1 << 63);
    REFUSED(LK_ECORRUPT, "ends within a.list", (p.of = LK__GGUF_REAL64, p.count = ((uint64_t)1 << 61) + 1));
    REFUSED(LK_ECORRUPT, "ends within a.list", (p.of = LK__GGUF_STRING, p.count = UINT64_MAX));
    REFUSED(LK_ECORRUPT, "ends within a.text", p.string = UINT64_MAX - 3);
    REFUSED(LK_ECORRUPT, "the key a.text stands twice", p.key = "a.text");
    REFUSED(LK_ECORRUPT, "general.alignment is no power of two", (p.key = "general.alignment", p.key_size = 17));
    REFUSED(LK_ECORRUPT, "a tensor's name of 0 bytes", p.name = "");
    REFUSED(LK_ECORRUPT, "a tensor's name of 64 bytes",
            p.name = "0123456789012345678901234567890123456789012345678901234567890123");
    REFUSED(LK_ECORRUPT, "tensor v stands twice", p.name = "v");
    REFUSED(LK_ECORRUPT, "w has not 1 to 4 dimensions", p.dims = 0);
    REFUSED(LK_ECORRUPT, "w has not 1 to 4 dimensions", p.dims = 5);
    REFUSED(LK_ECORRUPT, "w has sizes that no tensor has", p.columns = 0);
    REFUSED(LK_ECORRUPT, "w has sizes that no tensor has", p.columns = (uint64_t)1 << 63);
    REFUSED(LK_ECORRUPT, "w has sizes that no tensor has", p.columns = (uint64_t)1 << 56);
    REFUSED(LK_ECORRUPT, "w has rows of no whole blocks", p.columns = 33);
    REFUSED(LK_EUNSUPPORTED, "w has type Q4_K", p.type = 12);
    REFUSED(LK_EUNSUPPORTED, "w has the type 4294967295", p.type = UINT32_MAX);
    REFUSED(LK_ECORRUPT, "w lies at no multiple", p.place = 68);
    REFUSED(LK_ECORRUPT, "w overlaps another one", p.place = 32);
    REFUSED(LK_ECORRUPT, "w lies beyond the file's end", p.place = 96);
    REFUSED(LK_ECORRUPT, "w lies beyond the file's end", p.place = UINT64_MAX - 31);
    REFUSED(LK_ECORRUPT, "w lies beyond the file's end", p.columns = 64);
    struct lk__gguf g;
    FAILS(lk__gguf_read("version https://git-lfs.github.com/spec/v1\n", 43, "x.gguf", &g, &test_err), LK_EINVAL, "Git LFS");
}

static void numbers_are_the_decimals_that_were_meant(void **state) {
    (void)state;
    static const double some[] = {1e-5, 1e-6, 10000, 500000, 1e6, 0.1, 1e-30, 3.4028235e38, 0};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) assert_true(lk__gguf_decimal((float)some[i]) == some[i]);
    struct test_random r = test_random_open("decimals");
    for (int i = 0; i < 10000; i++) {
        uint32_t bits = (uint32_t)test_random_u64(&r);
        float x;
        memcpy(&x, &bits, 4);
        if (isfinite(x)) assert_true((float)lk__gguf_decimal(x) == x);
    }
}

/* --- Types ----------------------------------------------------------------------------------------------- */

static float half_of(const uint8_t *p) {
    float x;
    assert_true(lk__gguf_to_f32(LK__GGUF_F16, p, 1, &x));
    return x;
}

/* Q6_K as ggml's page draws it: 16 sub-blocks of 16, in two halves of 128. */
static void q6_reference(const uint8_t *b, float *y) {
    const uint8_t *ql = b, *qh = b + 128;
    const int8_t *sc = (const int8_t *)b + 192;
    float d = half_of(b + 208);
    for (int n = 0; n < 2; n++, ql += 64, qh += 32, sc += 8, y += 128)
        for (int l = 0; l < 32; l++) {
            const int q[4] = {(ql[l] & 15) | (qh[l] & 3) << 4, (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4,
                              ql[l] >> 4 | (qh[l] >> 4 & 3) << 4, ql[l + 32] >> 4 | qh[l] >> 6 << 4};
            for (int k = 0; k < 4; k++) y[l + 32 * k] = d * (float)sc[l / 16 + 2 * k] * (float)(q[k] - 32);
        }
}

static void blocks_are_the_numbers_that_they_stand_for(void **state) {
    (void)state;
    static const struct {
        enum lk__gguf_type type;
        size_t scale;
    } types[] = {{LK__GGUF_Q8_0, 0}, {LK__GGUF_Q4_0, 0}, {LK__GGUF_Q6_K, 208}};
    struct test_random r = test_random_open("blocks");
    struct test_math math = test_math_open("ref", 1);
    uint8_t block[8 * 34];
    float mine[256], want[256];
    for (int i = 0; i < 3000; i++) {
        size_t k = (size_t)i % 3, bytes = lk__gguf_row_bytes(types[k].type, 256);
        for (size_t j = 0; j < bytes; j++) block[j] = (uint8_t)test_random_u64(&r);
        bool finite = k == 2 ? (block[209] & 0x7c) != 0x7c : lk__gguf_finite(types[k].type, block, bytes);
        assert_int_equal(lk__gguf_to_f32(types[k].type, block, 256, mine), finite);
        if (!finite) continue;
        if (k == 2)
            q6_reference(block, want);
        else
            lk_dequantize(math.math, k ? LK_Q4 : LK_Q8, 1, 256, block, want);
        for (size_t j = 0; j < 256; j++) assert_true(mine[j] == want[j]);
    }
    memset(block, 0, sizeof block);
    block[34 * 3 + 1] = 0x7c;
    assert_false(lk__gguf_finite(LK__GGUF_Q8_0, block, sizeof block));
    static const float bad[2] = {1, NAN};
    assert_false(lk__gguf_to_f32(LK__GGUF_F32, (const unsigned char *)(const void *)bad, 2, mine));
    test_math_close(&math);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_read),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(numbers_are_the_decimals_that_were_meant),
        cmocka_unit_test(blocks_are_the_numbers_that_they_stand_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
