#include "data/testing.h"
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>

static struct lk_tokenizer *golden;

static int setup(void **state) {
    (void)state;
    size_t size;
    char *json = read_golden("tokenizer/trained.json", &size);
    OK(lk_tokenizer_import(json, size, "trained.json", &golden, &test_err));
    lk_free(json);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lk_tokenizer_free(golden);
    return 0;
}

static struct lk_tokens encode(const void *text, size_t size, struct lk_pool *pool) {
    struct lk_tokens ids = {0};
    OK(lk_tokenizer_encode(golden, text, size, pool, &ids, &test_err));
    return ids;
}

static void assert_ids(const struct lk_tokens *have, const uint32_t *want, size_t count) {
    assert_int_equal(have->count, count);
    for (size_t i = 0; i < count; i++)
        if (have->ids[i] != want[i]) fail_msg("token %zu is %u, not %u", i, have->ids[i], want[i]);
}

static void check_golden(const char *name) {
    char path[64];
    size_t size, ids_size, count = 0;
    snprintf(path, sizeof path, "tokenizer/%s.txt", name);
    char *text = read_golden(path, &size);
    snprintf(path, sizeof path, "tokenizer/%s.ids", name);
    char *ids = read_golden(path, &ids_size), *p = ids;
    uint32_t *want = lk_alloc(ids_size * sizeof *want);
    while (*p && *p != '\n') want[count++] = (uint32_t)strtoul(p, &p, 10);
    struct lk_tokens have = encode(text, size, NULL);
    assert_ids(&have, want, count);
    lk_tokens_release(&have);
    lk_free(want);
    lk_free(ids);
    lk_free(text);
}

static void ids_are_those_of_the_libraries(void **state) {
    (void)state;
    check_golden("sample");
    check_golden("corpus");
}

static void check_round_trip(const uint8_t *text, size_t size) {
    struct lk_tokens ids = encode(text, size, NULL);
    struct lk_buf back = LK_BUF_INIT;
    OK(lk_tokenizer_decode(golden, ids.ids, ids.count, &back, &test_err));
    assert_int_equal(back.size, size);
    if (size) assert_memory_equal(back.data, text, size);
    lk_buf_release(&back);
    lk_tokens_release(&ids);
}

static void all_bytes_come_back(void **state) {
    (void)state;
    random_begin("all_bytes_come_back");
    uint8_t text[4096];
    check_round_trip(text, 0);
    for (int i = 0; i < 2000; i++) {
        size_t size = random_below(sizeof text / 16);
        for (size_t k = 0; k < size; k++) text[k] = (uint8_t)random_u64();
        check_round_trip(text, size);
        check_round_trip(text, random_text(text, random_below(300)));
    }
    static const char special[] = "<|endoftext|> is text";
    struct lk_tokens ids = encode(special, strlen(special), NULL);
    for (size_t i = 0; i < ids.count; i++) assert_int_not_equal(ids.ids[i], lk_tokenizer_end(golden));
    lk_tokens_release(&ids);
}

/* Word by word, each through the merges: no masks, no cache. */
static struct lk_tokens encode_plainly(const uint8_t *text, size_t size) {
    struct lk_tokens ids = {0};
    struct lk__tokenizer_scratch scratch = {0};
    for (size_t at = 0, end; at < size; at = end) {
        end = lk__tokenizer_word_end_gpt2(text, at, size);
        OK(lk__tokenizer_tokens_reserve(&ids, end - at));
        ids.count += (size_t)lk__tokenizer_bpe(golden, &scratch, text + at, end - at, ids.ids + ids.count);
    }
    lk_free(scratch.memory);
    return ids;
}

static void the_cache_changes_nothing(void **state) {
    (void)state;
    random_begin("the_cache_changes_nothing");
    size_t size = 0;
    uint8_t *text = lk_alloc(400000);
    while (size < 300000) size += put_random_unit(text + size);
    struct lk_tokens whole = encode_plainly(text, size), bare = {0};
    struct lk__tokenizer_encoder *e = lk__tokenizer_encoder_create(golden);
    OK(lk__tokenizer_encoder_run(e, text, size, false, &bare, &test_err));
    OK(lk__tokenizer_encoder_run(e, text, size, false, &bare, &test_err)); /* warm */
    assert_int_equal(bare.count, 2 * whole.count);
    assert_memory_equal(bare.ids, whole.ids, whole.count * 4);
    assert_memory_equal(bare.ids + whole.count, whole.ids, whole.count * 4);
    for (size_t at = 0; at < size;) { /* line by line: a new cache against a warm one */
        size_t end = at + 1;
        while (end < size && end - at < 4000 && text[end] != '\n') end++;
        struct lk_tokens line = encode(text + at, end - at, NULL), again = {0};
        OK(lk__tokenizer_encoder_run(e, text + at, end - at, false, &again, &test_err));
        assert_ids(&again, line.ids, line.count);
        lk_tokens_release(&line);
        lk_tokens_release(&again);
        at = end;
    }
    lk__tokenizer_encoder_free(e);
    lk_tokens_release(&whole);
    lk_tokens_release(&bare);
    lk_free(text);
}

/* More different words than the cache has room for, each several times, short and long ones. */
static void a_full_cache_changes_nothing(void **state) {
    (void)state;
    random_begin("a_full_cache_changes_nothing");
    size_t size = 0, different = LK_SANITIZED ? 60000 : 800000, most = different * 64;
    uint8_t *text = lk_alloc(most);
    for (size_t i = 0; i < different; i++) {
        size += (size_t)sprintf((char *)text + size, " w%zu", i);
        for (int k = 0; k < 3; k++) size += (size_t)sprintf((char *)text + size, " w%zu", random_below(i + 1));
        if (i % 64 == 0) size += (size_t)sprintf((char *)text + size, "-longer-than-the-cache-%zu", random_below(3000));
    }
    for (size_t i = 0; i < size; i++) /* letters only: otherwise the digits would be words */
        if (text[i] >= '0' && text[i] <= '9') text[i] = (uint8_t)(text[i] - '0' + 'a');
    struct lk_tokens want = encode_plainly(text, size), have = encode(text, size, NULL);
    assert_ids(&have, want.ids, want.count);
    lk_tokens_release(&want);
    lk_tokens_release(&have);
    lk_free(text);
}

static void any_pool_gives_the_same(void **state) {
    (void)state;
    random_begin("any_pool_gives_the_same");
    size_t size = 0, most = (size_t)(LK_SANITIZED ? 1200 : 12288) << 10; /* more than a round of one thread */
    uint8_t *text = lk_alloc(most + 200);
    while (size < most) {
        if (size / 300000 == 2) /* a stretch without a cut */
            text[size++] = 'a';
        else if (random_below(5) == 0)
            size += put_random_unit(text + size);
        else
            size += (size_t)sprintf((char *)text + size, "%s%zx", random_below(3) ? " " : "", random_below(70000));
    }
    const size_t sizes[] = {1, 1 << 19, (1 << 20) + 1, (1 << 20) + 77777, most / 2, most};
    struct lk_tokens want[6];
    for (int i = 0; i < 6; i++) want[i] = encode(text, sizes[i], NULL);
    for (int threads = 1; threads <= 8; threads += LK_SANITIZED ? 4 : 1) {
        struct lk_pool *pool;
        OK(lk_pool_open(threads, &pool, &test_err));
        for (int i = 0; i < 6; i++) {
            struct lk_tokens have = {0};
            OK(lk_tokenizer_encode(golden, "x", 1, pool, &have, &test_err)); /* it appends */
            OK(lk_tokenizer_encode(golden, text, sizes[i], pool, &have, &test_err));
            assert_int_equal(have.count, want[i].count + 1);
            assert_memory_equal(have.ids + 1, want[i].ids, want[i].count * 4);
            lk_tokens_release(&have);
        }
        lk_pool_close(pool);
    }
    for (int i = 0; i < 6; i++) lk_tokens_release(&want[i]);
    lk_free(text);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Time a byte of `large` bytes against `small` ones of them; 1 if that is too short to tell. */
static double slowdown(const uint8_t *text, size_t small, size_t large) {
    double begin = seconds();
    struct lk_tokens a = encode(text, small, NULL);
    double middle = seconds();
    struct lk_tokens b = encode(text, large, NULL);
    double end = seconds();
    lk_tokens_release(&a);
    lk_tokens_release(&b);
    return end - middle > 0.2 ? (end - middle) / (double)large / ((middle - begin + 0.003) / (double)small) : 1;
}

/* Quadratic work would show a factor of 8; a busy machine may show it once, not each time. */
static void trouble_takes_linear_time(void **state) {
    (void)state;
    static const char *const units[] = {"a",    " ", "\n", "ab",  "-=",      "aaab", "\xE4\xB8\xAD",
                                        "\xFF", "'", "1",  " \n", "\xF0\x9F"};
    size_t small = (size_t)1 << (LK_SANITIZED ? 14 : 18), large = small * 8;
    uint8_t *text = lk_alloc(large);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = strlen(units[i]);
        for (size_t at = 0; at < large; at++) text[at] = (uint8_t)units[i][at % n];
        double least = slowdown(text, small, large);
        for (int again = 0; again < 4 && least > 6; again++) {
            double other = slowdown(text, small, large);
            if (other < least) least = other;
        }
        if (least > 6) fail_msg("unit %zu: a byte takes %.1f times as long in 8 times as many", i, least);
    }
    lk_free(text);
}

static void decoding_names_a_wrong_id(void **state) {
    (void)state;
    uint32_t ids[] = {1, 2, 1000};
    struct lk_buf out = LK_BUF_INIT;
    FAILS(lk_tokenizer_decode(golden, ids, 3, &out, &test_err), LK_EINVAL, "token 2 is 1000");
    lk_buf_release(&out);
    assert_int_equal(lk_tokenizer_bytes(golden, 1000).size, 0);
    assert_int_equal(lk_tokenizer_bytes(golden, UINT32_MAX).size, 0);
}

static void streams_never_end_inside_a_character(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t complete;
    } cases[] = {{"", 0},
                 {"a", 1},
                 {"\xC3", 0},
                 {"\xC3\xA9", 2},
                 {"a\xE2\x82", 1},
                 {"a\xE2\x82\xAC", 4},
                 {"\xF0\x9F\x98", 0},
                 {"\xF0\x9F\x98\x80", 4},
                 {"\xF0", 0},
                 {"\xE0", 0},
                 {"\xE0\x80", 2},
                 {"\xED\xA0", 2},
                 {"\xED\x9F", 0},
                 {"\xF4\x90", 2},
                 {"\xF4\x8F", 0},
                 {"\xF5", 1},
                 {"\xC0", 1},
                 {"\x80\x80\x80\x80", 4},
                 {"\xFF", 1},
                 {"\xE2\x82\xAC\x82", 4},
                 {"\xF0\x80", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(lk_utf8_complete(cases[i].bytes, strlen(cases[i].bytes)), cases[i].complete);
    random_begin("streams_never_end_inside_a_character");
    for (int round = 0; round < 20000; round++) { /* whatever is given up on never becomes a character later */
        uint8_t text[80];
        size_t size = random_text(text, 1 + random_below(16));
        for (size_t n = 1; n <= size; n++) {
            size_t complete = lk_utf8_complete(text, n);
            assert_true(complete <= n && n - complete <= 3);
            if (complete == n) continue;
            for (size_t back = complete; back < n; back++) assert_true(back == complete || (text[back] & 0xC0) == 0x80);
        }
    }
}

static void encoding_survives_failing_allocations(void **state) {
    (void)state;
    size_t size = (size_t)1100 << 10; /* three pieces */
    uint8_t *text = lk_alloc(size);
    for (size_t i = 0; i < size; i++) text[i] = (uint8_t)("word 12, "[i % 9]);
    memset(text + 4000, 'q', 20000);
    struct lk_pool *pool;
    OK(lk_pool_open(2, &pool, &test_err));
    for (int parallel = 0; parallel < 2; parallel++) {
        size_t n = parallel ? size : 60000;
        struct lk_tokens ids = {0};
        for (uint64_t at = 1; at < 100; at++) {
            lk__alloc_fail_at(at);
            ids.count = 0;
            int code = lk_tokenizer_encode(golden, text, n, parallel ? pool : NULL, &ids, &test_err);
            bool reached = lk__alloc_count() >= at;
            lk__alloc_fail_at(0);
            if (code) assert_int_equal(code, LK_ENOMEM);
            if (reached) assert_int_equal(code, LK_ENOMEM);
            if (code) assert_int_equal(ids.count, 0);
            lk_tokens_release(&ids);
            if (!reached) break;
        }
        lk_tokens_release(&ids);
    }
    lk_pool_close(pool);
    lk_free(text);
}

/* Words " aaa" to " zzz": no cache has room for all at first, and none has more than four ids. */
static void a_cache_that_cannot_grow_is_kept(void **state) {
    (void)state;
    static uint8_t text[26 * 26 * 26 * 4];
    size_t size = 0, part = 100 * 4;
    for (int i = 0; i < 26 * 26 * 26; i++) {
        const uint8_t word[4] = {' ', (uint8_t)('a' + i / 676), (uint8_t)('a' + i / 26 % 26), (uint8_t)('a' + i % 26)};
        memcpy(text + size, word, 4);
        size += 4;
    }
    struct lk_tokens want = encode_plainly(text, size), have = {0};
    for (uint64_t nth = 1; nth <= 2; nth++) { /* the slots, or the long lists */
        struct lk__tokenizer_encoder *e = lk__tokenizer_encoder_create(golden);
        size_t failed = 0;
        OK(lk__tokenizer_tokens_reserve(&have, size * 2));
        for (size_t at = 0; at + part <= size; at += part) {
            have.count = 0;
            lk__alloc_fail_at(at ? nth : 1);
            int code = lk__tokenizer_encoder_run(e, text + at, part, false, &have, &test_err);
            lk__alloc_fail_at(0);
            if (!at) OK(code); /* a new cache takes a batch */
            if (code) assert_int_equal(code, LK_ENOMEM);
            failed += code != 0;
        }
        assert_true(failed > 100);
        have.count = 0;
        OK(lk__tokenizer_encoder_run(e, text, size, false, &have, &test_err));
        assert_ids(&have, want.ids, want.count);
        lk__tokenizer_encoder_free(e);
    }
    lk_tokens_release(&want);
    lk_tokens_release(&have);
}

/* Pieces of one word each that have no memory: the message is that of the first, not of the last its thread had. */
static int first_failure_is_told(void) {
    enum { PIECES = 16, SIZE = 2000000 };
    size_t at = 0;
    struct lk_pool *pool;
    struct lk_tokens ids = {0};
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 16);
    uint8_t *text = lk_alloc((SIZE + 1000) * PIECES);
    for (size_t i = 0; i < PIECES; i++) {
        memset(text + at, 'a', SIZE + i * 10);
        at += SIZE + i * 10;
        text[at++] = '\n';
    }
    if (lk_pool_open(2, &pool, &test_err)) return 2;
    malloc_trim(0);
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long long pages = 0;
    if (!f || fscanf(f, "%llu", &pages) != 1) return 2;
    fclose(f);
    rlim_t most = (rlim_t)(pages * (unsigned long long)sysconf(_SC_PAGESIZE) + ((size_t)1 << 20));
    if (setrlimit(RLIMIT_AS, &(struct rlimit){most, most})) return 2;
    for (int i = 0; i < 20; i++) {
        if (lk_tokenizer_encode(golden, text, at, pool, &ids, &test_err) != LK_ENOMEM) return 3;
        if (!strstr(test_err.message, " 2000000 ") && !strstr(test_err.message, " 2000001 ")) {
            fprintf(stderr, "%s\n", test_err.message);
            return 1;
        }
    }
    return 0;
}

static void the_first_failing_piece_is_told(void **state) {
    (void)state;
    if (LK_SANITIZED) skip(); /* sanitizers take address space of their own */
    pid_t child = fork();
    if (child == 0) _exit(first_failure_is_told());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("status %#x", status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_failing_piece_is_told), /* first: little is in malloc's hands */
        cmocka_unit_test(a_cache_that_cannot_grow_is_kept),
        cmocka_unit_test(ids_are_those_of_the_libraries),
        cmocka_unit_test(all_bytes_come_back),
        cmocka_unit_test(the_cache_changes_nothing),
        cmocka_unit_test(a_full_cache_changes_nothing),
        cmocka_unit_test(any_pool_gives_the_same),
        cmocka_unit_test(trouble_takes_linear_time),
        cmocka_unit_test(decoding_names_a_wrong_id),
        cmocka_unit_test(streams_never_end_inside_a_character),
        cmocka_unit_test(encoding_survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
