#include "data/testing.h"
#include "data/tokenizer/pretoken.h"
#include "lockstep/base/hash.h"

/* --- the pattern, alternative by alternative, as it is written ------------------------------------------- */

struct unit {
    enum lk__tokenizer_class class;
    uint32_t c; /* UINT32_MAX: an invalid byte */
    size_t at;
};

static size_t decode_slowly(const uint8_t *p, size_t size, uint32_t *c) {
    for (size_t n = 1; n <= 4 && n <= size; n++) { /* encode every candidate and compare */
        static const uint32_t first[] = {0, 0, 0x80, 0x800, 0x10000}, last[] = {0, 0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
        static const uint8_t lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
        uint8_t again[4];
        uint32_t x = p[0] & lead_mask[n];
        for (size_t i = 1; i < n; i++) x = x << 6 | (p[i] & 0x3F);
        if (x < first[n] || x > last[n] || (x >= 0xD800 && x < 0xE000)) continue;
        if (put_utf8(x, again) == n && !memcmp(again, p, n)) return *c = x, n;
    }
    return 0;
}

static size_t make_units(const uint8_t *text, size_t size, struct unit *u) {
    size_t n = 0;
    for (size_t at = 0; at < size; n++) {
        uint32_t c;
        size_t length = decode_slowly(text + at, size - at, &c);
        u[n] = (struct unit){length ? lk__tokenizer_class_of(c) : LK__OTHER, length ? c : UINT32_MAX, at};
        at += length ? length : 1;
    }
    u[n] = (struct unit){LK__OTHER, UINT32_MAX, size};
    return n;
}

static size_t match_contraction(const struct unit *u, size_t i, size_t n) {
    static const char *const endings[] = {"s", "d", "m", "t", "ll", "ve", "re"};
    if (u[i].c != '\'') return 0;
    for (size_t k = 0; k < 7; k++) {
        size_t length = strlen(endings[k]), j = 0;
        while (j < length && i + 1 + j < n && u[i + 1 + j].c == (uint32_t)endings[k][j]) j++;
        if (j == length) return 1 + length;
    }
    return 0;
}

static size_t match_run(const struct unit *u, size_t i, size_t n, enum lk__tokenizer_class class) {
    size_t j = i + (u[i].c == ' ');
    size_t from = j;
    while (j < n && u[j].class == class) j++;
    return j > from ? j - i : 0;
}

static size_t match_space_not_before_text(const struct unit *u, size_t i, size_t n) {
    size_t most = 0;
    while (i + most < n && u[i + most].class == LK__SPACE) most++;
    for (size_t k = most; k > 0; k--)
        if (i + k == n || u[i + k].class == LK__SPACE) return k;
    return 0;
}

static size_t match(const struct unit *u, size_t i, size_t n) {
    size_t k = match_contraction(u, i, n);
    if (!k) k = match_run(u, i, n, LK__LETTER);
    if (!k) k = match_run(u, i, n, LK__NUMBER);
    if (!k) k = match_run(u, i, n, LK__OTHER);
    if (!k) k = match_space_not_before_text(u, i, n);
    if (!k) /* \s+ */
        while (i + k < n && u[i + k].class == LK__SPACE) k++;
    return k;
}

static void check_text(const uint8_t *text, size_t size) {
    struct unit u[600];
    size_t n = make_units(text, size, u), i = 0, at = 0;
    while (i < n) {
        i += match(u, i, n);
        size_t end = lk__tokenizer_word_end_gpt2(text, at, size);
        if (end != u[i].at) {
            for (size_t k = 0; k < size; k++) print_message("%02x ", text[k]);
            fail_msg("a word from byte %zu ends at %zu, not %zu", at, end, u[i].at);
        }
        at = end;
    }
    assert_int_equal(at, size);
}

/* --- tests ----------------------------------------------------------------------------------------------- */

/* The golden digest is of the classes that tokenizers and tiktoken show (tests/golden/tokenizer/make.py). */
static void classes_are_those_of_the_libraries(void **state) {
    (void)state;
    size_t size;
    char *golden = read_golden("tokenizer/classes.sha256", &size), hex[LK_ROOT_HEX];
    char *classes = lk_alloc(0x110000);
    struct lk_root root;
    for (uint32_t c = 0; c < 0x110000; c++)
        classes[c] = c >= 0xD800 && c < 0xE000 ? 'O' : "OLNS"[lk__tokenizer_class_of(c)];
    lk_sha256(classes, 0x110000, &root);
    assert_memory_equal(golden, lk_root_hex(&root, hex), 64);
    lk_free(classes);
    lk_free(golden);
}

static void every_code_point_in_every_neighbourhood(void **state) {
    (void)state;
    static const char pattern[] = "a@1 @!@@ '@s\n@  @\t@'@ @1@";
    for (uint32_t c = 0; c < 0x110000; c += LK_SANITIZED ? 11 : 1) {
        uint8_t text[200];
        size_t n = 0;
        if (c >= 0xD800 && c < 0xE000) continue;
        for (const char *p = pattern; *p; p++) n += put_utf8(*p == '@' ? c : (uint32_t)*p, text + n);
        check_text(text, n);
    }
}

static void random_texts_match_the_pattern(void **state) {
    (void)state;
    random_begin("random_texts_match_the_pattern");
    for (int i = 0; i < (LK_SANITIZED ? 20000 : 300000); i++) {
        uint8_t text[400];
        check_text(text, random_text(text, 1 + random_below(40)));
    }
    for (int i = 0; i < 20000; i++) { /* bytes of sequences, cut and mixed */
        static const uint8_t bytes[] = {0xC2, 0xA0, 0x85, 0xE2, 0x80, 0xA8, 0xED, 0x9F, 0xA0, 0xF0, 0x90,
                                        0xF4, 0x8F, 0xBF, 'a',  ' ',  0xE0, 0xC0, 0xC1, 0xF5, 0xFF, 0xE3};
        uint8_t text[24];
        size_t n = 1 + random_below(24);
        for (size_t k = 0; k < n; k++) text[k] = bytes[random_below(sizeof bytes)];
        check_text(text, n);
    }
}

static void well_formed_is_table_3_7(void **state) {
    (void)state;
    for (uint32_t x = 0; x < 0x1000000; x += LK_SANITIZED ? 37 : 1) { /* all of 3 bytes; the fourth continues */
        uint8_t p[4] = {(uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x, 0x80};
        uint32_t a = 0, b = 0;
        if (p[0] < 0xC0 && (x & 0xFFFF) != 0) continue;
        for (size_t n = 1; n <= 4; n++) {
            size_t got = lk__tokenizer_utf8_decode(p, n, &a), want = decode_slowly(p, n, &b);
            if (got != want || (got && a != b)) fail_msg("%06x, %zu bytes: %zu, not %zu", x, n, got, want);
        }
    }
}

static size_t words_of(const uint8_t *text, size_t begin, size_t end, size_t *ends) {
    size_t n = 0;
    for (size_t at = begin; at < end; n++)
        ends[n] = at = begin + lk__tokenizer_word_end_gpt2(text + begin, at - begin, end - begin);
    return n;
}

static void safe_cuts_change_no_word(void **state) {
    (void)state;
    size_t safe = 0, cuts = 0;
    random_begin("safe_cuts_change_no_word");
    for (int i = 0; i < (LK_SANITIZED ? 3000 : 40000); i++) {
        uint8_t text[400];
        size_t whole[400], parts[400], size = random_text(text, 2 + random_below(30));
        size_t n = words_of(text, 0, size, whole);
        for (size_t at = 1; at < size; at++, cuts++) {
            if (!lk__tokenizer_cut_is_safe(LK__GPT2, text, at, size)) continue;
            safe++;
            size_t k = words_of(text, 0, at, parts);
            k += words_of(text, at, size, parts + k);
            assert_int_equal(k, n);
            assert_memory_equal(parts, whole, n * sizeof *whole);
        }
    }
    assert_true(safe * 10 > cuts); /* they are not rare */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_those_of_the_libraries), cmocka_unit_test(every_code_point_in_every_neighbourhood),
        cmocka_unit_test(random_texts_match_the_pattern),     cmocka_unit_test(well_formed_is_table_3_7),
        cmocka_unit_test(safe_cuts_change_no_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
