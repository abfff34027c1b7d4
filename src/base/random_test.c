#include "base/testing.h"

/* The vectors of Random123's kat_vectors file. */
static void known_answers(void **state) {
    (void)state;
    static const uint32_t rows[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        lk_philox(rows[i], rows[i] + 4, out);
        assert_memory_equal(out, rows[i] + 6, 16);
    }
}

static void layout_of_key_and_counter(void **state) {
    (void)state;
    uint32_t a[4], b[4];
    lk_random(0x1122334455667788u, LK_PURPOSE_SAMPLE, 1, 2, 3, 4, a);
    lk_philox((uint32_t[]){4, 3, 2, 1}, (uint32_t[]){0x55667788, 0x11223344 ^ 3u << 24}, b);
    assert_memory_equal(a, b, 16);
}

static void is_a_permutation(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 1500; n = n < 70 ? n + 1 : n * 5 / 4) {
        char *seen = lk_calloc(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = lk_permute(n * 7919, 3, n, i);
            assert_true(j < n);
            assert_false(seen[j]);
            seen[j] = 1;
        }
        lk_free(seen);
    }
}

static void depends_on_seed_and_epoch(void **state) {
    (void)state;
    int same_seed = 0, same_epoch = 0, fixed = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t j = lk_permute(1, 0, 1000, i);
        same_seed += j == lk_permute(2, 0, 1000, i);
        same_epoch += j == lk_permute(1, 1, 1000, i);
        fixed += j == i;
    }
    assert_in_range(same_seed, 0, 10);
    assert_in_range(same_epoch, 0, 10);
    assert_in_range(fixed, 0, 10);
}

/* The definition in README.md, written a second time. */
static uint64_t feistel_again(uint64_t seed, uint32_t epoch, uint64_t n, uint64_t x) {
    unsigned bits = 2;
    while (bits < 64 && ((uint64_t)1 << bits) < n) bits += 2;
    unsigned half = bits / 2;
    do {
        uint64_t parts[2] = {x >> half, x % ((uint64_t)1 << half)};
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ 0x02000000u};
            uint32_t counter[4] = {(uint32_t)parts[1], 0, round, epoch}, word[4];
            lk_philox(counter, key, word);
            uint64_t f = word[0] % ((uint64_t)1 << half), left = parts[0];
            parts[0] = parts[1];
            parts[1] = left ^ f;
        }
        x = parts[0] * ((uint64_t)1 << half) + parts[1];
    } while (x >= n);
    return x;
}
static void equals_its_definition(void **state) {
    (void)state;
    static const uint64_t sizes[] = {
        1, 2, 3, 4, 5, 16, 17, 4096, 4097, 1000003, 0xFFFFFFFF, 0x100000001, (uint64_t)1 << 62};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (uint64_t i = 0; i < 50; i++) {
            uint64_t index = i * 0x9E3779B97F4A7C15u % sizes[k];
            assert_int_equal(lk_permute(~k, (uint32_t)k, sizes[k], index), feistel_again(~k, (uint32_t)k, sizes[k], index));
        }
    }
    assert_true(lk_permute(5, 0, UINT64_MAX, 1) < UINT64_MAX);
}

/* Frozen: these values are printed in docs/numerics.md. */
static void golden_values(void **state) {
    (void)state;
    static const uint64_t ten[10] = {6, 8, 9, 7, 0, 3, 1, 2, 4, 5};
    for (uint64_t i = 0; i < 10; i++) assert_int_equal(lk_permute(42, 0, 10, i), ten[i]);
    assert_int_equal(lk_permute(42, 1, 1000000, 123456), 392198);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),         cmocka_unit_test(layout_of_key_and_counter),
        cmocka_unit_test(is_a_permutation),      cmocka_unit_test(depends_on_seed_and_epoch),
        cmocka_unit_test(equals_its_definition), cmocka_unit_test(golden_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
