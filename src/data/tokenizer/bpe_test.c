#include "data/testing.h"
#include "data/tokenizer/internal.h"

/* A random vocabulary: bytes in a random order, then merges of random earlier tokens; shuffled merges are not `ordered`. */
static struct lk_tokenizer *random_tokenizer(size_t merges, unsigned letters, bool shuffled) {
    size_t most = 256 + merges;
    uint64_t *offset = lk_calloc(most + 1, sizeof *offset);
    struct lk__tokenizer_merge *list = lk_calloc(merges, sizeof *list);
    struct lk_buf bytes = LK_BUF_INIT;
    uint32_t count = 256;
    for (unsigned i = 0; i < 256; i++) {
        char byte = (char)(i ^ 0x55);
        OK(lk_buf_append(&bytes, &byte, 1));
        offset[i + 1] = bytes.size;
    }
    size_t made = 0;
    for (size_t tries = 0; made < merges && tries < merges * 20; tries++) {
        uint32_t pair[2];
        for (int k = 0; k < 2; k++) {
            size_t choice = random_below(letters + (count - 256));
            pair[k] = choice < letters ? (uint32_t)(('a' + choice) ^ 0x55) : (uint32_t)(256 + choice - letters);
        }
        size_t a = (size_t)(offset[pair[0] + 1] - offset[pair[0]]), b = (size_t)(offset[pair[1] + 1] - offset[pair[1]]);
        bool known = a + b > 40;
        char text[80];
        memcpy(text, bytes.data + offset[pair[0]], a < 40 ? a : 40);
        if (!known) memcpy(text + a, bytes.data + offset[pair[1]], b);
        for (uint32_t id = 256; !known && id < count; id++)
            known = offset[id + 1] - offset[id] == a + b && !memcmp(bytes.data + offset[id], text, a + b);
        if (known) continue;
        OK(lk_buf_append(&bytes, text, a + b));
        list[made++] = (struct lk__tokenizer_merge){pair[0], pair[1], count};
        offset[++count] = bytes.size;
    }
    for (size_t i = made; shuffled && i > 1; i--) {
        size_t j = random_below(i);
        struct lk__tokenizer_merge m = list[j];
        list[j] = list[i - 1];
        list[i - 1] = m;
    }
    struct lk__tokenizer_definition definition = {
        .vocab = count, .offset = offset, .bytes = (uint8_t *)bytes.data, .merges = list, .merge_count = made};
    struct lk_tokenizer *t;
    OK(lk__tokenizer_make(&definition, "random", &t, &test_err));
    if (!shuffled) assert_true(t->ordered);
    lk_free(offset);
    lk_free(list);
    lk_buf_release(&bytes);
    return t;
}

/* The definition: while some pair merges, merge the leftmost of lowest rank. */
static size_t merge_by_definition(const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids) {
    for (size_t i = 0; i < size; i++) ids[i] = t->byte_id[word[i]];
    for (;;) {
        size_t best = size, rank = t->merge_count;
        for (size_t i = 0; i + 1 < size; i++)
            for (size_t r = 0; r < rank; r++)
                if (t->merges[r].left == ids[i] && t->merges[r].right == ids[i + 1]) rank = r, best = i;
        if (best == size) return size;
        ids[best] = t->merges[rank].id;
        memmove(ids + best + 1, ids + best + 2, (size - best - 2) * sizeof *ids);
        size--;
    }
}

static size_t random_word(uint8_t *word, size_t most, unsigned letters) {
    size_t n = 0, size = 1 + random_below(most);
    while (n < size) {
        size_t run = random_below(4) ? 1 : 1 + random_below(9);
        uint8_t c = (uint8_t)('a' + random_below(letters));
        while (run-- && n < size) word[n++] = c;
    }
    return size;
}

static void three_ways_and_the_definition_agree(void **state) {
    (void)state;
    random_begin("three_ways_and_the_definition_agree");
    struct lk__tokenizer_scratch s = {0};
    for (int round = 0; round < (LK_SANITIZED ? 12 : 120); round++) {
        unsigned letters = 1 + (unsigned)random_below(4);
        struct lk_tokenizer *t = random_tokenizer(1 + random_below(60), letters, round & 1);
        for (int i = 0; i < 60; i++) {
            uint8_t word[200];
            uint32_t want[200], have[200];
            size_t size = random_word(word, i < 30 ? LK__SHORT_WORD : 200, letters);
            size_t n = merge_by_definition(t, word, size, want);
            if (size <= LK__SHORT_WORD) {
                assert_int_equal(lk__tokenizer_merge_short(t, word, size, have), n);
                assert_memory_equal(have, want, n * sizeof *want);
            }
            assert_int_equal(lk__tokenizer_merge_heap(t, &s, word, size, have), n);
            assert_memory_equal(have, want, n * sizeof *want);
            if (!t->ordered) continue;
            assert_int_equal(lk__tokenizer_merge_buckets(t, &s, word, size, have), n);
            assert_memory_equal(have, want, n * sizeof *want);
        }
        lk_tokenizer_free(t);
    }
    lk_free(s.memory);
}

/* Words of few runs, of up to 4 letters. */
static void runs_agree_with_the_heap(void **state) {
    (void)state;
    random_begin("runs_agree_with_the_heap");
    struct lk__tokenizer_scratch s = {0};
    size_t most = 3000, merged = 0, tries = 0;
    uint8_t *word = lk_alloc(most);
    uint32_t *want = lk_alloc(most * sizeof *want), *have = lk_alloc(most * sizeof *have);
    for (int round = 0; round < (LK_SANITIZED ? 40 : 400); round++) {
        unsigned letters = 1 + (unsigned)random_below(4);
        struct lk_tokenizer *t = random_tokenizer(1 + random_below(80), letters, round % 8 == 7);
        for (int i = 0; i < 20; i++) {
            size_t size = 0, run = 1 + random_below(200), end = 1 + random_below(most);
            while (size < end) {
                uint8_t c = (uint8_t)('a' + random_below(letters));
                for (size_t k = 1 + random_below(run * 2); k && size < end; k--) word[size++] = c;
            }
            size_t n = lk__tokenizer_merge_runs(t, word, size, have);
            tries++;
            if (!n) continue;
            assert_true(t->ordered);
            merged++;
            assert_int_equal(lk__tokenizer_merge_heap(t, &s, word, size, want), n);
            assert_memory_equal(have, want, n * sizeof *want);
        }
        lk_tokenizer_free(t);
    }
    assert_true(merged * 4 > tries);
    lk_free(word);
    lk_free(want);
    lk_free(have);
    lk_free(s.memory);
}

static void long_words_agree(void **state) {
    (void)state;
    random_begin("long_words_agree");
    struct lk__tokenizer_scratch s = {0};
    size_t most = 50000;
    uint8_t *word = lk_alloc(most);
    uint32_t *a = lk_alloc(most * sizeof *a), *b = lk_alloc(most * sizeof *b);
    for (int round = 0; round < (LK_SANITIZED ? 4 : 20); round++) {
        unsigned letters = 1 + (unsigned)random_below(3);
        struct lk_tokenizer *t = random_tokenizer(300, letters, false);
        size_t size = random_word(word, most, letters);
        if (round % 5 == 0) memset(word, 'a', size); /* one run */
        int64_t n = lk__tokenizer_merge_heap(t, &s, word, size, a);
        assert_int_equal(lk__tokenizer_merge_buckets(t, &s, word, size, b), n);
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
        lk_tokenizer_free(t);
    }
    lk_free(word);
    lk_free(a);
    lk_free(b);
    lk_free(s.memory);
}

static void parts_are_checked(void **state) {
    (void)state;
    uint64_t offset[260];
    uint8_t bytes[300], special[259] = {0};
    for (unsigned i = 0; i < 256; i++) offset[i] = i, bytes[i] = (uint8_t)i;
    memcpy(bytes + 256, "ababc", 5);
    offset[256] = 256, offset[257] = 258, offset[258] = 261; /* "ab", "abc" */
    struct lk__tokenizer_merge merges[] = {{'a', 'b', 256}, {256, 'c', 257}, {'a', 'b', 256}};
    struct lk__tokenizer_definition p = {
        .vocab = 258, .offset = offset, .bytes = bytes, .added = special, .merges = merges, .merge_count = 3};
    struct lk_tokenizer *t;
    OK(lk__tokenizer_make(&p, "x", &t, &test_err)); /* a pair that stands twice keeps its last rank */
    assert_int_equal(t->merge_count, 2);
    assert_int_equal(t->merges[0].id, 257);
    assert_int_equal(t->merges[1].id, 256);
    assert_false(t->ordered);
    lk_tokenizer_free(t);
    p.merge_count = 2;
    OK(lk__tokenizer_make(&p, "x", &t, &test_err));
    assert_true(t->ordered);
    assert_int_equal(lk_tokenizer_end(t), UINT32_MAX);
    lk_tokenizer_free(t);
    merges[1].id = 256;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "merge 1: token 256 is not token 256 followed by");
    merges[1].id = 999;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "merge 1 names an id outside");
    merges[1].id = 257;
    special[257] = 1;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "merge 1 uses a special token");
    special[257] = 0;
    bytes[7] = 8;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "ids 7 and 8 both stand for byte 0x08");
    bytes[7] = 7;
    special[9] = 1;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "no token for byte 0x09");
    p.vocab = 255;
    FAILS(lk__tokenizer_make(&p, "x", &t, &test_err), LK_EINVAL, "a vocabulary of 255 ids");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_ways_and_the_definition_agree),
        cmocka_unit_test(runs_agree_with_the_heap),
        cmocka_unit_test(long_words_agree),
        cmocka_unit_test(parts_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
