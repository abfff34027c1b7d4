#include "data/testing.h"
#include "data/tokenizer/pretoken.h"
#include "data/tokenizer/starts.h"

#define MOST 4000

/* All begins, asked for `room` at a time. */
static size_t starts_of(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t size, bool lines, size_t room,
                        size_t *out) {
    struct lk__tokenizer_starts s;
    size_t n = 0, found;
    lk__tokenizer_starts_begin(&s, pattern, text, size, lines);
    do {
        found = lk__tokenizer_starts_next(&s, out + n, room);
        assert_true(found < room + LK__STARTS_MORE + 1);
        n += found;
    } while (found >= room);
    return n;
}

static size_t words_of(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t begin, size_t end, size_t *out) {
    size_t n = 0;
    for (size_t at = begin; at < end; at = begin + lk__tokenizer_word_end(pattern, text + begin, at - begin, end - begin))
        out[n++] = at;
    return n;
}

static size_t words_of_lines(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t size, size_t *out) {
    size_t n = 0;
    for (size_t at = 0, end; at < size; at = end) {
        const uint8_t *newline = memchr(text + at, '\n', size - at);
        end = newline ? (size_t)(newline - text) + 1 : size;
        n += words_of(pattern, text, at, end, out + n);
    }
    return n;
}

static void check_pattern(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t size, bool lines) {
    size_t want[MOST], have[MOST + LK__STARTS_MORE + 1];
    size_t n = lines ? words_of_lines(pattern, text, size, want) : words_of(pattern, text, 0, size, want);
    size_t k = starts_of(pattern, text, size, lines, 1 + random_below(200), have);
    for (size_t i = 0; i < n || i < k; i++) {
        if (i < n && i < k && have[i] == want[i]) continue;
        for (size_t b = 0; b < size; b++) print_message("%02x ", text[b]);
        fail_msg("%s, %s: word %zu begins at %zu, not %zu", lk__tokenizer_pattern_names[pattern], lines ? "lines" : "text",
                 i, i < k ? have[i] : size, i < n ? want[i] : size);
    }
}

/* The text lies at the end of its memory, so that a read behind it is seen by the sanitizer. */
static void check_text(const uint8_t *from, size_t size) {
    uint8_t *text = malloc(size ? size : 1);
    memcpy(text, from, size);
    for (int p = 0; p < LK__PATTERN_COUNT; p++)
        for (int lines = 0; lines < 2; lines++) check_pattern((enum lk__tokenizer_pattern)p, text, size, lines);
    free(text);
}

static void random_texts_have_the_same_words(void **state) {
    (void)state;
    random_begin("random_texts_have_the_same_words");
    for (int i = 0; i < (LK_SANITIZED ? 2000 : 30000); i++) {
        uint8_t text[4 * 400];
        size_t plain = random_below(150), n = plain;
        memset(text, 'a', plain); /* moves the rest over the edges of blocks */
        n += random_text(text + n, random_below(200));
        check_text(text, n);
    }
}

/* Pieces that some pattern takes in an odd way, first those of ASCII. */
/* clang-format off */
static const char *const pieces[] = {
    " ", "  ", "    ", "\n", "\n\n", "\r\n", "\r", "\n    ", "\t", "word", "Word", "WORD", "aB", "'s", "'LL", "'Re", "'",
    "''", "don't", "1", "23", "4567", ".", "...", "/", "//", ";\n", "*/\n// ", "\n/\n", "-x", "\"A", "_", "(", ")\n",
    "x'd", "x'rE", "B'vE",
    "\xC3\xA9", "\xC3\x89", "\xE4\xB8\xAD", "e\xCC\x81", "\xCC\x81", "'\xC5\xBF", "\xC2\xA0", "\xE3\x80\x80", "\xC2\x85",
    "\xE2\x80\x9C", "\xD9\xA1", "\xF0\x9D\x9F\x98", "\xFF", "\xC7\x85"};
/* clang-format on */
#define PIECES (sizeof pieces / sizeof *pieces)
#define ASCII  37

static size_t put_piece(uint8_t *text, size_t n, const char *piece) {
    memcpy(text + n, piece, strlen(piece));
    return n + strlen(piece);
}

static void texts_of_pieces_have_the_same_words(void **state) {
    (void)state;
    random_begin("texts_of_pieces_have_the_same_words");
    for (int i = 0; i < (LK_SANITIZED ? 4000 : 60000); i++) {
        uint8_t text[1400];
        size_t n = 0, wide = random_below(3), count = random_below(150);
        for (size_t k = 0; k < count; k++) { /* wide pieces nowhere, seldom, often */
            size_t which = wide && !random_below(wide == 1 ? 16 : 1) ? random_below(PIECES) : random_below(ASCII);
            size_t repeat = random_below(30) ? 1 : random_below(20);
            while (repeat-- && n < sizeof text - 16) n = put_piece(text, n, pieces[which]);
        }
        check_text(text, n);
    }
}

/* Every two pieces, also between words and runs, over every edge: the block's begin moves through them byte by byte. */
static void every_two_pieces_have_the_same_words_at_every_edge(void **state) {
    (void)state;
    static const char *const before[] = {"a", "-", " ", "1", "B", "\n"};
    random_begin("every_two_pieces_have_the_same_words_at_every_edge");
    for (size_t a = 0; a < PIECES; a++)
        for (size_t b = 0; b < PIECES; b++)
            for (size_t from = 50; from < 66; from += LK_SANITIZED ? 5 : 1) {
                uint8_t text[300];
                size_t n = 0;
                const char *fill = before[(a + b + from) % 6];
                while (n < from + 64 * (from & 1)) n = put_piece(text, n, fill);
                n = put_piece(text, put_piece(text, n, pieces[a]), pieces[b]);
                size_t c = random_below(PIECES);
                check_text(text, n);
                check_text(text, put_piece(text, put_piece(text, n, pieces[c]), "Zx 12"));
            }
}

static void runs_of_one_unit_have_the_same_words(void **state) {
    (void)state;
    random_begin("runs_of_one_unit_have_the_same_words");
    for (size_t u = 0; u < PIECES; u++)
        for (size_t before = 0; before < 70; before += LK_SANITIZED ? 7 : 1)
            for (size_t count = 0; count < 140; count += 1 + random_below(90)) {
                uint8_t text[1400];
                size_t n = before;
                memset(text, before & 1 ? 'b' : '-', before);
                if (before & 2) n = put_piece(text, n, "\n");
                for (size_t i = 0; i < count; i++) n = put_piece(text, n, pieces[u]);
                if (count & 1) text[n++] = count & 2 ? 'z' : '\n';
                check_text(text, n);
            }
}

static void random_bytes_have_the_same_words(void **state) {
    (void)state;
    random_begin("random_bytes_have_the_same_words");
    for (int i = 0; i < (LK_SANITIZED ? 1000 : 20000); i++) {
        uint8_t text[400];
        size_t n = random_below(sizeof text);
        for (size_t k = 0; k < n; k++) text[k] = (uint8_t)random_u64();
        check_text(text, n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_texts_have_the_same_words),
        cmocka_unit_test(texts_of_pieces_have_the_same_words),
        cmocka_unit_test(every_two_pieces_have_the_same_words_at_every_edge),
        cmocka_unit_test(runs_of_one_unit_have_the_same_words),
        cmocka_unit_test(random_bytes_have_the_same_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
