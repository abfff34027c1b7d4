#include "data/testing.h"
#include "data/tokenizer/pretoken.h"
#include "data/tokenizer/starts.h"

#define MOST 4000

/* All begins, asked for `room` at a time. */
static size_t starts_of(const uint8_t *text, size_t size, bool lines, size_t room, size_t *out) {
    struct lk__tokenizer_starts s;
    size_t n = 0, found;
    lk__tokenizer_starts_begin(&s, LK__GPT2, text, size, lines);
    do {
        found = lk__tokenizer_starts_next(&s, out + n, room);
        assert_true(found < room + LK__STARTS_MORE + 1);
        n += found;
    } while (found >= room);
    return n;
}

static size_t words_of(const uint8_t *text, size_t begin, size_t end, size_t *out) {
    size_t n = 0;
    for (size_t at = begin; at < end; at = begin + lk__tokenizer_word_end_gpt2(text + begin, at - begin, end - begin))
        out[n++] = at;
    return n;
}

static size_t words_of_lines(const uint8_t *text, size_t size, size_t *out) {
    size_t n = 0;
    for (size_t at = 0, end; at < size; at = end) {
        const uint8_t *newline = memchr(text + at, '\n', size - at);
        end = newline ? (size_t)(newline - text) + 1 : size;
        n += words_of(text, at, end, out + n);
    }
    return n;
}

/* The text lies at the end of its memory, so that a read behind it is seen by the sanitizer. */
static void check_text(const uint8_t *from, size_t size) {
    size_t want[MOST], have[MOST + LK__STARTS_MORE + 1];
    uint8_t *text = malloc(size ? size : 1);
    memcpy(text, from, size);
    for (int lines = 0; lines < 2; lines++) {
        size_t n = lines ? words_of_lines(text, size, want) : words_of(text, 0, size, want);
        size_t k = starts_of(text, size, lines, 1 + random_below(200), have);
        for (size_t i = 0; i < n && i < k; i++)
            if (have[i] != want[i]) {
                for (size_t b = 0; b < size; b++) print_message("%02x ", text[b]);
                fail_msg("%s: word %zu begins at %zu, not %zu", lines ? "lines" : "text", i, have[i], want[i]);
            }
        assert_int_equal(k, n);
    }
    free(text);
}

static void random_texts_have_the_same_words(void **state) {
    (void)state;
    random_begin("random_texts_have_the_same_words");
    for (int i = 0; i < (LK_SANITIZED ? 10000 : 150000); i++) {
        uint8_t text[4 * 400];
        size_t plain = random_below(150), n = plain;
        memset(text, 'a', plain); /* moves the rest over the edges of blocks */
        n += random_text(text + n, random_below(200));
        check_text(text, n);
    }
}

static void runs_of_one_unit_have_the_same_words(void **state) {
    (void)state;
    static const char *const units[] = {
        " ",  "\n", "\t",           "\xC2\xA0",         "\xE3\x80\x80", " \xE2\x80\x83", "'s",  "'ll",
        "''", "x'", "\xE4\xB8\xAD", "\xF0\x9D\x9F\x98", "\xFF",         "\r\n",          " \n", "\n ",
        "1",  ".",  "\xC3\xA9"};
    random_begin("runs_of_one_unit_have_the_same_words");
    for (size_t u = 0; u < sizeof units / sizeof *units; u++)
        for (size_t before = 0; before < 70; before++)
            for (size_t count = 0; count < 140; count += 1 + random_below(40)) {
                uint8_t text[1000];
                size_t n = before, length = strlen(units[u]);
                memset(text, before & 1 ? 'b' : '-', before);
                for (size_t i = 0; i < count; i++, n += length) memcpy(text + n, units[u], length);
                if (count & 1) text[n++] = 'z';
                check_text(text, n);
            }
}

static void random_bytes_have_the_same_words(void **state) {
    (void)state;
    random_begin("random_bytes_have_the_same_words");
    for (int i = 0; i < (LK_SANITIZED ? 5000 : 100000); i++) {
        uint8_t text[400];
        size_t n = random_below(sizeof text);
        for (size_t k = 0; k < n; k++) text[k] = (uint8_t)random_u64();
        check_text(text, n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_texts_have_the_same_words),
        cmocka_unit_test(runs_of_one_unit_have_the_same_words),
        cmocka_unit_test(random_bytes_have_the_same_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
