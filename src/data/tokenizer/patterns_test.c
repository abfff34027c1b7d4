/* Every pattern against a slow transcription of its expression: a small backtracking matcher whose parts are the
 * expression's own, alternative by alternative; and the cut points of every pattern. */
#include "data/testing.h"
#include "data/tokenizer/starts.h"

/* --- units ------------------------------------------------------------------------------------------------ */

struct unit {
    enum lk__tokenizer_class class;
    unsigned cased; /* lk__tokenizer_case_of */
    uint32_t c;     /* UINT32_MAX: an invalid byte */
    size_t at;
};

static size_t make_units(const uint8_t *text, size_t size, struct unit *u) {
    size_t n = 0;
    for (size_t at = 0; at < size; n++) {
        uint32_t c;
        size_t length = lk__tokenizer_utf8_decode(text + at, size - at, &c);
        u[n] = (struct unit){length ? lk__tokenizer_class_of(c) : LK__OTHER, length ? lk__tokenizer_case_of(c) : 0,
                             length ? c : UINT32_MAX, at};
        at += length ? length : 1;
    }
    u[n].at = size;
    return n;
}

/* --- expressions ------------------------------------------------------------------------------------------ */

/* A set of units, named by a letter: L N S (the classes), B [\r\n], P [^\r\n\p{L}\p{N}], O [^\s\p{L}\p{N}], U and W the
 * two sets of o200k, / [\r\n/] and ' ' itself. */
static bool in_set(const struct unit *u, char set) {
    bool line = u->c == '\r' || u->c == '\n';
    switch (set) {
    case 'L':
        return u->class == LK__LETTER;
    case 'N':
        return u->class == LK__NUMBER;
    case 'S':
        return u->class == LK__SPACE;
    case 'O':
        return u->class == LK__OTHER;
    case ' ':
        return u->c == ' ';
    case 'B':
        return line;
    case 'P':
        return !line && u->class != LK__LETTER && u->class != LK__NUMBER;
    case 'U':
        return u->cased & 1;
    case 'W':
        return u->cased & 2;
    case '/':
        return line || u->c == '/';
    }
    return false;
}

/* One alternative: pieces (set, least, most) matched greedily with every way back, possessive pieces (p) with none; then a
 * condition: '$' the end of the text, '!' (?!\S), 'N' (?=\p{N}), '?' an optional contraction, 0 none. */
struct piece {
    char set;
    int least, most;
    bool possessive;
};
struct alternative {
    struct piece pieces[4];
    char then;
};
#define MANY 1000000

static size_t contraction(const struct unit *u, size_t i, size_t n, bool any_case) {
    static const char *const endings[] = {"s", "d", "m", "t", "ll", "ve", "re"};
    if (i >= n || u[i].c != '\'') return 0;
    for (size_t k = 0; k < 7; k++) {
        size_t j = 0;
        for (; endings[k][j] && i + 1 + j < n; j++) {
            uint32_t c = u[i + 1 + j].c, want = (uint32_t)endings[k][j];
            if (c != want && !(any_case && (c == want - 32 || (want == 's' && c == 0x17F)))) break;
        }
        if (!endings[k][j]) return 1 + j;
    }
    return 0;
}

static bool ends_well(const struct unit *u, size_t i, size_t n, char then, size_t *end) {
    *end = i;
    if (then == '$') return i == n;
    if (then == '!') return i == n || u[i].class == LK__SPACE;
    if (then == 'N') return i < n && u[i].class == LK__NUMBER;
    if (then == '?') *end = i + contraction(u, i, n, true);
    return true;
}

static bool match(const struct unit *u, size_t i, size_t n, const struct piece *p, char then, size_t *end) {
    if (!p->set) return ends_well(u, i, n, then, end);
    int count = 0;
    while (count < p->most && i + (size_t)count < n && in_set(&u[i + (size_t)count], p->set)) count++;
    for (; count >= p->least; count--) {
        if (match(u, i + (size_t)count, n, p + 1, then, end)) return true;
        if (p->possessive) return false;
    }
    return false;
}

/* clang-format off */
#define SPACES {{{'S', 0, MANY, 0}, {'B', 1, MANY, 0}}, 0}, {{{'S', 1, MANY, 0}}, '!'}, {{{'S', 1, MANY, 0}}, 0}
#define LLAMA(digits) \
    {{{'P', 0, 1, 0}, {'L', 1, MANY, 0}}, 0}, {{{'N', 1, digits, 0}}, 0}, \
    {{{' ', 0, 1, 0}, {'O', 1, MANY, 0}, {'B', 0, MANY, 0}}, 0}, SPACES
static const struct alternative expressions[LK__PATTERN_COUNT][9] = {
    [LK__GPT2] = {{{{' ', 0, 1, 0}, {'L', 1, MANY, 0}}, 0}, {{{' ', 0, 1, 0}, {'N', 1, MANY, 0}}, 0},
                  {{{' ', 0, 1, 0}, {'O', 1, MANY, 0}}, 0}, {{{'S', 1, MANY, 0}}, '!'}, {{{'S', 1, MANY, 0}}, 0}},
    [LK__CL100K] = {{{{'P', 0, 1, 1}, {'L', 1, MANY, 1}}, 0}, {{{'N', 1, 3, 1}}, 0},
                    {{{' ', 0, 1, 0}, {'O', 1, MANY, 1}, {'B', 0, MANY, 1}}, 0}, {{{'S', 1, MANY, 1}}, '$'},
                    {{{'S', 0, MANY, 0}, {'B', 1, 1, 0}}, 0}, {{{'S', 1, MANY, 0}}, '!'}, {{{'S', 1, 1, 0}}, 0}},
    [LK__O200K] = {{{{'P', 0, 1, 0}, {'U', 0, MANY, 0}, {'W', 1, MANY, 0}}, '?'},
                   {{{'P', 0, 1, 0}, {'U', 1, MANY, 0}, {'W', 0, MANY, 0}}, '?'}, {{{'N', 1, 3, 0}}, 0},
                   {{{' ', 0, 1, 0}, {'O', 1, MANY, 0}, {'/', 0, MANY, 0}}, 0}, SPACES},
    [LK__LLAMA3] = {LLAMA(3)},
    [LK__QWEN2] = {LLAMA(1)},
    [LK__SMOLLM] = {{{{'N', 1, 1, 0}}, 0}, {{{' ', 0, 1, 0}, {'L', 1, MANY, 0}}, 0},
                    {{{' ', 0, 1, 0}, {'O', 1, MANY, 0}}, 0}, {{{'S', 1, MANY, 0}}, 'N'}, {{{'S', 1, MANY, 0}}, '!'},
                    {{{'S', 1, MANY, 0}}, 0}},
};
/* clang-format on */

static size_t next_word(enum lk__tokenizer_pattern pattern, const struct unit *u, size_t i, size_t n) {
    bool small = pattern == LK__GPT2 || pattern == LK__SMOLLM;
    size_t end = i + (pattern == LK__O200K ? 0 : contraction(u, i, n, !small));
    for (const struct alternative *a = expressions[pattern]; end == i && a->pieces[0].set; a++)
        if (!match(u, i, n, a->pieces, a->then, &end)) end = i;
    return end;
}

static void show(const uint8_t *text, size_t size) {
    for (size_t k = 0; k < size; k++) print_message("%02x ", text[k]);
}

static void check_text(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t size) {
    struct unit u[700];
    size_t n = make_units(text, size, u), i = 0, at = 0;
    while (i < n) {
        i = next_word(pattern, u, i, n);
        size_t end = lk__tokenizer_word_end(pattern, text, at, size);
        if (end != u[i].at) {
            show(text, size);
            fail_msg("%s: a word from byte %zu ends at %zu, not %zu", lk__tokenizer_pattern_names[pattern], at, end,
                     u[i].at);
        }
        at = end;
    }
    assert_int_equal(at, size);
}

/* --- tests ------------------------------------------------------------------------------------------------ */

/* One of each class that any pattern tells apart. */
static const uint32_t kinds[] = {'a', 'S',  0x17F, 0x4E2D, 0x1C5, 0x301, 0x903, '1',   0xBD,
                                 '!', '\'', '/',   ' ',    '\n',  '\r',  '\t',  0x3000};
#define KINDS (sizeof kinds / sizeof *kinds)

static void every_code_point_between_every_two_kinds(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3100 ? 1 : LK_SANITIZED ? 97 : 3) {
        if (c >= 0xD800 && c < 0xE000) continue;
        for (size_t a = 0; a < KINDS; a++) { /* before, behind each kind: all pairs of them */
            uint8_t text[400];
            size_t n = 0;
            for (size_t b = 0; b < KINDS; b++) {
                n += put_utf8(kinds[a], text + n);
                n += put_utf8(c, text + n);
                n += put_utf8(kinds[b], text + n);
            }
            for (int p = 0; p < LK__PATTERN_COUNT; p++) check_text((enum lk__tokenizer_pattern)p, text, n);
            if (c >= 0x3100) a += 4 + c % 5;
        }
    }
}

static size_t text_of_kinds(uint8_t *text, size_t units) {
    size_t n = 0;
    for (size_t i = 0; i < units; i++) {
        static const char letters[] = "sdmtlvreSDMTLVRE''' ";
        size_t what = random_below(20), repeat = random_below(8) ? 1 : 1 + random_below(5);
        uint32_t c = what < 6 ? (uint32_t)letters[random_below(sizeof letters - 1)] : kinds[random_below(KINDS)];
        for (size_t k = 0; k < repeat; k++) {
            if (what == 19)
                text[n++] = (uint8_t)(0x80 | random_u64());
            else
                n += put_utf8(c, text + n);
        }
    }
    return n;
}

static void random_texts_match_the_expressions(void **state) {
    (void)state;
    random_begin("random_texts_match_the_expressions");
    for (int i = 0; i < (LK_SANITIZED ? 20000 : 300000); i++) {
        uint8_t text[600];
        size_t n = i & 1 ? text_of_kinds(text, 1 + random_below(24)) : random_text(text, 1 + random_below(40));
        check_text((enum lk__tokenizer_pattern)(i % LK__PATTERN_COUNT), text, n);
    }
}

static size_t words_of(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t begin, size_t end, size_t *ends) {
    size_t n = 0;
    for (size_t at = begin; at < end; n++)
        ends[n] = at = begin + lk__tokenizer_word_end(pattern, text + begin, at - begin, end - begin);
    return n;
}

static void safe_cuts_change_no_word(void **state) {
    (void)state;
    size_t safe[LK__PATTERN_COUNT] = {0}, cuts = 0;
    random_begin("safe_cuts_change_no_word");
    for (int i = 0; i < (LK_SANITIZED ? 6000 : 120000); i++) {
        enum lk__tokenizer_pattern pattern = (enum lk__tokenizer_pattern)(i % LK__PATTERN_COUNT);
        uint8_t text[600];
        size_t whole[600], parts[600];
        size_t size = i & 1 ? text_of_kinds(text, 2 + random_below(20)) : random_text(text, 2 + random_below(30));
        size_t n = words_of(pattern, text, 0, size, whole);
        for (size_t at = 1; at < size; at++, cuts++) {
            if (!lk__tokenizer_cut_is_safe(pattern, text, at, size)) continue;
            safe[pattern]++;
            size_t k = words_of(pattern, text, 0, at, parts);
            k += words_of(pattern, text, at, size, parts + k);
            if (k == n && !memcmp(parts, whole, n * sizeof *whole)) continue;
            show(text, size);
            fail_msg("%s: a cut at %zu changes words", lk__tokenizer_pattern_names[pattern], at);
        }
    }
    for (int p = 0; p < LK__PATTERN_COUNT; p++) assert_true(safe[p] * LK__PATTERN_COUNT * 20 > cuts); /* not rare */
}

/* Words found in a stream of rooms, and line by line as training does. */
static void begins_are_those_of_the_words(void **state) {
    (void)state;
    random_begin("begins_are_those_of_the_words");
    for (int i = 0; i < (LK_SANITIZED ? 2000 : 30000); i++) {
        enum lk__tokenizer_pattern pattern = (enum lk__tokenizer_pattern)(i % LK__PATTERN_COUNT);
        struct lk__tokenizer_starts s;
        uint8_t text[4000];
        size_t size = text_of_kinds(text, random_below(120)), want = 0, have[4000 + LK__STARTS_MORE], n = 0, found;
        bool lines = i & 8;
        if (i & 16) { /* long runs over the edges of blocks */
            size = 0;
            while (size < 1000) {
                static const char *const some[] = {" ", "a",  "\xC3\xA9", "\xE4\xB8\xAD", " \n",
                                                   "1", "'s", ".",        "\xCC\x81",     "\xE3\x80\x80"};
                const char *unit = some[random_below(10)];
                for (size_t k = random_below(4) ? 1 : random_below(90); k; k--, size += strlen(unit))
                    memcpy(text + size, unit, strlen(unit));
            }
        }
        size_t room = 1 + random_below(9);
        lk__tokenizer_starts_begin(&s, pattern, text, size, lines);
        do n += found = lk__tokenizer_starts_next(&s, have + n, room);
        while (found >= room);
        for (size_t at = 0, end, line = 0; at < size; at = end, want++) {
            const uint8_t *newline = lines ? memchr(text + at, '\n', size - at) : NULL;
            size_t limit = newline ? (size_t)(newline - text) + 1 : size;
            line = at && text[at - 1] == '\n' && lines ? at : line;
            end = line + lk__tokenizer_word_end(pattern, text + line, at - line, limit - line);
            assert_int_equal(have[want], at);
        }
        assert_int_equal(n, want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_between_every_two_kinds),
        cmocka_unit_test(random_texts_match_the_expressions),
        cmocka_unit_test(safe_cuts_change_no_word),
        cmocka_unit_test(begins_are_those_of_the_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
