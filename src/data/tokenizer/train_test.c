#include "data/testing.h"
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include "data/tokenizer/words.h"

static struct lk_tokenizer *train(const void *text, size_t size, uint32_t vocab, struct lk_pool *pool) {
    struct lk_tokenizer *t;
    struct lk_bytes b = lk_bytes(text, size);
    OK(lk_tokenizer_train(&b, 1, vocab, pool, NULL, NULL, &t, &test_err));
    return t;
}

static void assert_same(const struct lk_tokenizer *a, const struct lk_tokenizer *b) {
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->traits.end, b->traits.end);
    assert_int_equal(a->merge_count, b->merge_count);
    assert_memory_equal(a->merges, b->merges, a->merge_count * sizeof *a->merges);
    assert_memory_equal(a->offset, b->offset, (a->vocab + 1) * sizeof *a->offset);
    assert_memory_equal(a->bytes, b->bytes, (size_t)a->offset[a->vocab]);
}

static void merges_are_hugging_faces(void **state) {
    (void)state;
    size_t size, json_size;
    char *corpus = read_golden("tokenizer/corpus.txt", &size), *json = read_golden("tokenizer/trained.json", &json_size);
    struct lk_tokenizer *ours = train(corpus, size, 1000, NULL), *theirs;
    OK(lk_tokenizer_import(json, json_size, "trained.json", &theirs, &test_err));
    assert_same(ours, theirs);
    assert_int_equal(lk_tokenizer_end(ours), 999);
    lk_tokenizer_free(ours);
    lk_tokenizer_free(theirs);
    lk_free(corpus);
    lk_free(json);
}

/* The definition: count all pairs anew for each merge; highest count, then smallest ids. */
static size_t train_by_definition(const uint8_t *text, size_t size, size_t merges, struct lk__tokenizer_merge *out) {
    uint32_t(*words)[64] = lk_calloc(size, sizeof *words), next = 256, byte_id[256];
    size_t *lengths = lk_calloc(size, sizeof *lengths), count = 0, made = 0;
    uint8_t order[256];
    lk__tokenizer_byte_order(order);
    for (unsigned i = 0; i < 256; i++) byte_id[order[i]] = i;
    for (size_t line = 0, end; line < size; line = end) {
        const uint8_t *newline = memchr(text + line, '\n', size - line);
        end = newline ? (size_t)(newline - text) + 1 : size;
        for (size_t at = line, to; at < end; at = to) {
            to = lk__tokenizer_word_end_gpt2(text, at, end);
            assert_true(to - at <= 64);
            for (size_t i = at; i < to; i++) words[count][lengths[count]++] = byte_id[text[i]];
            count++;
        }
    }
    for (; made < merges; made++, next++) {
        static uint32_t table[400][400];
        uint32_t best = 0, a = 0, b = 0;
        memset(table, 0, sizeof table);
        for (size_t w = 0; w < count; w++)
            for (size_t i = 0; i + 1 < lengths[w]; i++) table[words[w][i]][words[w][i + 1]]++;
        for (uint32_t x = 0; x < next; x++)
            for (uint32_t y = 0; y < next; y++)
                if (table[x][y] > best) best = table[x][y], a = x, b = y;
        if (!best) break;
        out[made] = (struct lk__tokenizer_merge){a, b, next};
        for (size_t w = 0; w < count; w++) {
            size_t to = 0;
            for (size_t i = 0; i < lengths[w]; i++) {
                bool pair = words[w][i] == a && i + 1 < lengths[w] && words[w][i + 1] == b;
                words[w][to++] = pair ? next : words[w][i];
                i += pair;
            }
            lengths[w] = to;
        }
    }
    lk_free(words);
    lk_free(lengths);
    return made;
}

static void incremental_counts_agree_with_the_definition(void **state) {
    (void)state;
    random_begin("incremental_counts_agree_with_the_definition");
    for (int round = 0; round < (LK_SANITIZED ? 5 : 40); round++) {
        uint8_t text[2000];
        size_t size = 0, words = 20 + random_below(150);
        for (size_t w = 0; w < words; w++) {
            for (size_t i = random_below(7); i-- > 0;) text[size++] = (uint8_t)('a' + random_below(4));
            text[size++] = " \n"[random_below(8) == 0];
        }
        struct lk__tokenizer_merge want[60];
        size_t n = train_by_definition(text, size, 1 + random_below(50), want);
        if (!n) continue;
        struct lk_tokenizer *t = train(text, size, (uint32_t)(257 + n), NULL);
        assert_int_equal(t->merge_count, n);
        assert_memory_equal(t->merges, want, n * sizeof *want);
        lk_tokenizer_free(t);
    }
}

static void words_are_counted_equally_by_any_pool(void **state) {
    (void)state;
    random_begin("words_are_counted_equally_by_any_pool");
    size_t size = 0, most = (size_t)9 << 20;
    uint8_t *text = lk_alloc(most + 64);
    while (size < most) {
        if (random_below(10) == 0)
            size += put_random_unit(text + size);
        else
            size += (size_t)sprintf((char *)text + size, " w%zu%s", random_below(20000), random_below(9) ? "" : "\n");
    }
    struct lk_bytes parts[2] = {lk_bytes(text, size / 3), lk_bytes(text + size / 3, size - size / 3)};
    struct lk__tokenizer_words one, many;
    OK(lk__tokenizer_words_count(LK__GPT2, parts, 2, NULL, &one, &test_err));
    for (int threads = 2; threads <= 5; threads += 3) {
        struct lk_pool *pool;
        OK(lk_pool_open(threads, &pool, &test_err));
        OK(lk__tokenizer_words_count(LK__GPT2, parts, 2, pool, &many, &test_err));
        assert_int_equal(one.count, many.count);
        assert_memory_equal(one.words, many.words, one.count * sizeof *one.words);
        assert_int_equal(one.bytes.size, many.bytes.size);
        assert_memory_equal(one.bytes.data, many.bytes.data, one.bytes.size);
        lk__tokenizer_words_release(&many);
        lk_pool_close(pool);
    }
    lk__tokenizer_words_release(&one);
    lk_free(text);
}

static int stop_at_20(void *arg, uint32_t done, uint32_t total) {
    (void)arg;
    assert_true(done <= total);
    return done >= 20;
}

static void impossible_requests_are_refused(void **state) {
    (void)state;
    struct lk_tokenizer *t;
    struct lk_bytes b = lk_bytes("abcabc abc", 10);
    FAILS(lk_tokenizer_train(&b, 1, 256, NULL, NULL, NULL, &t, &test_err), LK_EINVAL, "must have 257");
    FAILS(lk_tokenizer_train(&b, 1, 300, NULL, NULL, NULL, &t, &test_err), LK_EINVAL,
          "ask for a vocabulary of 261 or less");
    assert_null(t);
    FAILS(lk_tokenizer_train(NULL, 0, 300, NULL, NULL, NULL, &t, &test_err), LK_EINVAL, "only 0 pairs");
    t = train("", 0, 257, NULL); /* bytes and the end token need no text */
    assert_int_equal(lk_tokenizer_vocab(t), 257);
    lk_tokenizer_free(t);
    size_t size;
    char *corpus = read_golden("tokenizer/corpus.txt", &size);
    b = lk_bytes(corpus, size);
    FAILS(lk_tokenizer_train(&b, 1, 400, NULL, stop_at_20, NULL, &t, &test_err), LK_ESTOPPED, "stopped");
    lk_free(corpus);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    struct lk_bytes b = lk_bytes("the cat and the hat and the bat\nthat sat\n", 41);
    struct lk_tokenizer *t;
    lk__alloc_fail_at(0);
    OK(lk_tokenizer_train(&b, 1, 270, NULL, NULL, NULL, &t, &test_err));
    uint64_t count = lk__alloc_count();
    lk_tokenizer_free(t);
    assert_true(count > 20);
    for (uint64_t n = 1; n <= count; n++) {
        lk__alloc_fail_at(n);
        FAILS(lk_tokenizer_train(&b, 1, 270, NULL, NULL, NULL, &t, &test_err), LK_ENOMEM, "out of memory");
    }
    lk__alloc_fail_at(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_hugging_faces),
        cmocka_unit_test(incremental_counts_agree_with_the_definition),
        cmocka_unit_test(words_are_counted_equally_by_any_pool),
        cmocka_unit_test(impossible_requests_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
