#include "base/sha256.h"
#include "base/testing.h"
#include "lockstep/base/hash.h"
#include <openssl/evp.h>
#include <signal.h>
#include <sys/resource.h>

static void expect_hex(const struct lk_root *root, const char *hex) {
    char text[LK_ROOT_HEX];
    assert_string_equal(lk_root_hex(root, text), hex);
}

/* Each test of bits runs with libcrypto (and plain C) and, where the processor has them, with its instructions. */
static int with_libcrypto(void **state) {
    (void)state;
    lk__sha256_allow_fast(false);
    return 0;
}
static int with_instructions(void **state) {
    (void)state;
    lk__sha256_allow_fast(true);
    return 0;
}
#define both_ways(test)                                                                                                    \
    cmocka_unit_test_setup_teardown(test, with_libcrypto, with_instructions),                                              \
        cmocka_unit_test_setup(test, with_instructions)

static void by_libcrypto(const void *data, size_t size, struct lk_root *out) {
    assert_int_equal(EVP_Digest(data, size, out->bytes, NULL, EVP_sha256(), NULL), 1);
}

/* FIPS 180-4 examples, through hash.h and by sha256.c. */
static void sha256(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char *million = lk_alloc(1000000);
    memset(million, 'a', 1000000);
    for (size_t i = 0; i < 5; i++) {
        struct lk_root root;
        struct lk__sha256 own;
        const char *text = i < 4 ? rows[i][0] : million;
        const char *hex = i < 4 ? rows[i][1] : "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        size_t size = i < 4 ? strlen(text) : 1000000;
        lk_sha256(text, size, &root);
        expect_hex(&root, hex);
        lk__sha256_init(&own);
        lk__sha256_update(&own, text, size);
        lk__sha256_final(&own, root.bytes);
        expect_hex(&root, hex);
    }
    lk_free(million);
}

static void pieces_equal_libcrypto(void **state) {
    (void)state;
    unsigned char data[300];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37);
    struct lk_digest *pieces = lk_digest_create();
    assert_non_null(pieces);
    for (size_t n = 0; n <= sizeof data; n++) {
        for (size_t piece = 1; piece <= 150; piece += piece < 7 ? 6 : 13) {
            struct lk_root a, b;
            struct lk__sha256 own;
            by_libcrypto(data, n, &a);
            lk__sha256_init(&own);
            for (size_t at = 0; at < n; at += piece) lk__sha256_update(&own, data + at, n - at < piece ? n - at : piece);
            lk__sha256_final(&own, b.bytes);
            assert_true(lk_root_equal(&a, &b));
            for (size_t at = 0; at < n; at += piece) lk_digest_update(pieces, data + at, n - at < piece ? n - at : piece);
            lk_digest_final(pieces, &b);
            assert_true(lk_root_equal(&a, &b));
        }
    }
    lk_digest_free(pieces);
}

/* Any lengths, cuts and alignments of the two; what one of them has may be part of a block. */
static void pairs_equal_libcrypto(void **state) {
    (void)state;
    struct test_random r = test_random_open("pairs");
    unsigned char data[2][4096];
    for (size_t i = 0; i < sizeof data; i++) data[i / 4096][i % 4096] = (unsigned char)test_random_below(&r, 256);
    for (int round = 0; round < 3000; round++) {
        struct lk__sha256 own[2];
        size_t from[2], at[2];
        for (int i = 0; i < 2; i++) { /* some of it alone first */
            from[i] = test_random_below(&r, 100);
            at[i] = from[i] + test_random_below(&r, 200);
            lk__sha256_init(&own[i]);
            lk__sha256_update(&own[i], data[i] + from[i], at[i] - from[i]);
        }
        for (uint32_t pieces = 1 + test_random_below(&r, 4); pieces > 0; pieces--) {
            size_t n = test_random_below(&r, pieces % 2 ? 900 : 70);
            lk__sha256_update_pair(&own[0], data[0] + at[0], &own[1], data[1] + at[1], n);
            at[0] += n, at[1] += n;
        }
        for (int i = 0; i < 2; i++) {
            struct lk_root a, b;
            by_libcrypto(data[i] + from[i], at[i] - from[i], &a);
            lk__sha256_final(&own[i], b.bytes);
            assert_true(lk_root_equal(&a, &b));
        }
    }
}

/* The tree of RFC 6962 section 2.1, as the recursion it is defined by. */
static void mth(const unsigned char *data, size_t size, struct lk_root *out) {
    size_t leaves = (size + LK_LEAF_BYTES - 1) / LK_LEAF_BYTES;
    unsigned char *text = lk_alloc(LK_LEAF_BYTES + 65);
    if (leaves == 0) {
        by_libcrypto("", 0, out);
    } else if (leaves == 1) {
        text[0] = 0;
        memcpy(text + 1, data, size);
        by_libcrypto(text, size + 1, out);
    } else {
        size_t k = 1;
        while (2 * k < leaves) k *= 2;
        struct lk_root left, right;
        mth(data, k * LK_LEAF_BYTES, &left);
        mth(data + k * LK_LEAF_BYTES, size - k * LK_LEAF_BYTES, &right);
        text[0] = 1;
        memcpy(text + 1, left.bytes, 32);
        memcpy(text + 33, right.bytes, 32);
        by_libcrypto(text, 65, out);
    }
    lk_free(text);
}
static void root_by_definition(const unsigned char *data, size_t size, struct lk_root *out) {
    unsigned char head[41] = {2};
    struct lk_root tree;
    mth(data, size, &tree);
    for (int i = 0; i < 8; i++) head[1 + i] = (unsigned char)(size >> 8 * i);
    memcpy(head + 9, tree.bytes, 32);
    by_libcrypto(head, 41, out);
}

static void equals_the_definition_at_leaf_edges(void **state) {
    (void)state;
    const size_t leaf = LK_LEAF_BYTES, most = 9 * leaf;
    unsigned char *data = lk_alloc(most);
    for (size_t i = 0; i < most; i++) data[i] = (unsigned char)(i ^ i >> 9 ^ i >> 17);
    struct lk_hasher *h = lk_hasher_create();
    assert_non_null(h);
    for (size_t leaves = 0; leaves <= 8; leaves++) {
        for (int d = leaves ? -1 : 0; d <= 1; d++) {
            size_t size = leaves * leaf + (size_t)d;
            struct lk_root once, streamed, defined;
            root_by_definition(data, size, &defined);
            lk_root_of(data, size, &once);
            assert_true(lk_root_equal(&once, &defined));
            size_t at = 0;
            for (size_t piece = 1; at < size; piece = piece * 3 + 1) {
                size_t n = size - at < piece ? size - at : piece;
                lk_hasher_update(h, data + at, n);
                at += n;
            }
            lk_hasher_update(h, NULL, 0);
            lk_hasher_final(h, &streamed); /* and is as new again */
            assert_true(lk_root_equal(&streamed, &defined));
        }
    }
    lk_hasher_free(h);
    lk_free(data);
}

/* Pieces that end anywhere, also small ones among large ones; a hasher that was begun the one way goes on the other. */
static void any_pieces_give_the_root(void **state) {
    (void)state;
    struct test_random r = test_random_open("pieces");
    const size_t most = 7 * LK_LEAF_BYTES;
    unsigned char *data = lk_alloc(most);
    for (size_t i = 0; i < most; i++) data[i] = (unsigned char)(i * 2654435761u >> 11);
    struct lk_hasher *h = lk_hasher_create();
    assert_non_null(h);
    for (int round = 0; round < 40; round++) {
        size_t from = test_random_below(&r, 64), size = test_random_below(&r, (uint32_t)(most - from) + 1);
        struct lk_root streamed, defined;
        for (size_t at = 0, n; at < size; at += n) {
            static const uint32_t scale[] = {1, 65, 4096, LK_LEAF_BYTES, LK_LEAF_BYTES + 1, 3 * LK_LEAF_BYTES};
            n = 1 + test_random_below(&r, scale[test_random_below(&r, 6)]);
            if (n < 4096) n = test_random_below(&r, 4) ? 65536 + n : n;
            if (n > size - at) n = size - at;
            if (round % 4 == 3) lk__sha256_allow_fast(test_random_below(&r, 2));
            lk_hasher_update(h, data + from + at, n);
        }
        lk_hasher_final(h, &streamed);
        root_by_definition(data + from, size, &defined);
        assert_true(lk_root_equal(&streamed, &defined));
    }
    lk_hasher_free(h);
    lk_free(data);
}

static void leaves_give_the_root_of_the_whole(void **state) {
    (void)state;
    struct test_random r = test_random_open("leaves");
    const size_t leaf = LK_LEAF_BYTES, most = 5 * leaf + 3;
    size_t sizes[] = {0, 1, leaf - 1, leaf, leaf + 1, 2 * leaf, 3 * leaf, 4 * leaf + 1, most, 0, 0, 0};
    unsigned char *data = lk_alloc(most);
    for (size_t i = 0; i < most; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t size = k < 9 ? sizes[k] : test_random_below(&r, (uint32_t)most);
        size_t count = (size_t)lk_leaf_count(size);
        assert_int_equal(count, (size + leaf - 1) / leaf);
        struct lk_root leaves[6], whole, joined;
        for (size_t i = count; i-- > 0;)
            lk_leaf_hash(data + i * leaf, size - i * leaf < leaf ? size - i * leaf : leaf, &leaves[i]);
        struct lk_root together[6];
        lk_leaf_hashes(data, size, together);
        assert_memory_equal(together, leaves, count * sizeof *leaves);
        lk_root_of(data, size, &whole);
        lk_root_of_leaves(count ? leaves : NULL, count, size, &joined);
        assert_true(lk_root_equal(&whole, &joined));
    }
    /* RFC 6962's leaf of nothing, which no root has. */
    struct lk_root empty;
    lk_leaf_hash("", 0, &empty);
    expect_hex(&empty, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_true(lk_leaf_count(UINT64_MAX) == (uint64_t)1 << 44);
    lk_free(data);
}

static void make_wrong_count(void *unused) {
    (void)unused;
    struct lk_root leaves[2] = {{{0}}}, root;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    fclose(stderr);
    lk_root_of_leaves(leaves, 2, LK_LEAF_BYTES, &root);
}
static void a_wrong_number_of_leaves_is_an_assertion(void **state) {
    (void)state;
    if (LK_TSAN) skip(); /* fork */
    int status = test_fork(make_wrong_count, NULL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Frozen; printed in docs/formats.md. */
static void golden_roots(void **state) {
    (void)state;
    struct lk_root root;
    lk_root_of("", 0, &root);
    expect_hex(&root, "f0c1e0b4cd1983b9c92909f8145cc102993e4c797489c0ba98639fd93056b82f");
    lk_root_of("abc", 3, &root);
    expect_hex(&root, "ebedf307ad0108d7e6df6bed827cce8d529df2cbe7f3afce32594c1a0bf1a305");
}

static void a_zero_more_is_another_root(void **state) {
    (void)state;
    struct lk_root a, b;
    lk_root_of("a", 1, &a);
    lk_root_of("a", 2, &b);
    assert_false(lk_root_equal(&a, &b));
}

static void hexadecimal(void **state) {
    (void)state;
    struct lk_root root, again;
    char hex[LK_ROOT_HEX];
    lk_sha256("x", 1, &root);
    lk_root_hex(&root, hex);
    assert_true(lk_root_parse(hex, &again));
    assert_true(lk_root_equal(&root, &again));
    assert_false(lk_root_parse("", &again));
    assert_false(lk_root_parse("00", &again));
    char longer[LK_ROOT_HEX + 1];
    snprintf(longer, sizeof longer, "%s0", hex);
    assert_false(lk_root_parse(longer, &again));
    hex[63] = 'g';
    assert_false(lk_root_parse(hex, &again));
}

static int create(void) {
    struct lk_hasher *h = lk_hasher_create();
    lk_hasher_free(h);
    return h ? 0 : LK_ENOMEM;
}
static void out_of_memory(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(create());
    lk_hasher_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        both_ways(sha256),
        both_ways(pieces_equal_libcrypto),
        both_ways(pairs_equal_libcrypto),
        both_ways(equals_the_definition_at_leaf_edges),
        both_ways(any_pieces_give_the_root),
        both_ways(leaves_give_the_root_of_the_whole),
        cmocka_unit_test(a_wrong_number_of_leaves_is_an_assertion),
        cmocka_unit_test(golden_roots),
        cmocka_unit_test(a_zero_more_is_another_root),
        cmocka_unit_test(hexadecimal),
        both_ways(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
