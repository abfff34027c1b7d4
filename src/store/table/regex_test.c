/* Patterns beside RE2 (its answers are in tests/golden/regex_golden.h), by hand, and hostile ones. */
#include "../../../tests/golden/regex_golden.h"
#include "base/testing.h"
#include "store/table/regex.h"
#include <time.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))
static struct lk_bytes text_of(const char *s) {
    return lk_bytes(s, strlen(s));
}
static int match(struct lk__table_regex *re, size_t cache_bytes, struct lk_bytes text) {
    struct lk__table_regex_run *run;
    int code = lk__table_regex_compare(re, text);
    bool yes;
    if (code >= 0) return code;
    OK(lk__table_regex_run_open(re, cache_bytes, &run, &test_err));
    code = lk__table_regex_match(run, text, &yes, &test_err);
    lk__table_regex_run_close(run);
    return code ? code : yes;
}
static int matches(const char *pattern, const char *text) {
    struct lk__table_regex *re;
    OK(lk__table_regex_compile(text_of(pattern), &re, &test_err));
    int yes = match(re, 1 << 14, text_of(text));
    lk__table_regex_free(re);
    return yes;
}
static size_t from_hex(const char *hex, const char *end, char *out) {
    size_t n = 0;
    for (; hex < end; hex += 2, n++) {
        char two[3] = {hex[0], hex[1], 0};
        out[n] = (char)strtoul(two, NULL, 16);
    }
    return n;
}
static void golden_of_re2(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(regex_golden); i++) {
        const char *hex = regex_golden[i][0], *c = regex_golden[i][1];
        char pattern[400], text[40];
        struct lk__table_regex *re;
        size_t size = from_hex(hex, hex + strlen(hex), pattern);
        int code = lk__table_regex_compile(lk_bytes(pattern, size), &re, &test_err);
        if (!c) {
            if (code != LK_EINVAL) fail_msg("%.*s: RE2 refuses it", (int)size, pattern);
            assert_non_null(strstr(test_err.message, "at byte "));
            continue;
        }
        if (code) fail_msg("%.*s: %s", (int)size, pattern, test_err.message);
        for (const char *equals; (equals = strchr(c, '=')); c = equals + 2 + (equals[2] == ' ')) {
            struct lk_bytes t = lk_bytes(text, from_hex(c, equals, text));
            for (size_t cache = 64; cache <= 1 << 16; cache <<= 10)
                if (match(re, cache, t) != equals[1] - '0') fail_msg("%.*s on %s", (int)size, pattern, c);
        }
        lk__table_regex_free(re);
    }
}
static void by_hand(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        int yes;
    } cases[] = {
        {"", "", 1},
        {"", "a", 0},
        {"abc", "abc", 1},
        {"b", "abc", 0},
        {"^abc$", "abc", 1},
        {"a.c", "a\nc", 0},
        {"a\\Cc", "a\nc", 1},
        {"(?s)a.c", "a\nc", 1},
        {".", "\xff", 1},
        {".", "\xc3\xa9", 0},
        {"\xc3\xa9", "\xc3\xa9", 1},
        {"\\C+", "\xff\n", 1},
        {"a$\n?", "a\n", 0},
        {"(?m)a$\n?", "a\n", 1},
        {"(?m)^a\n^b", "a\nb", 1},
        {"a\\b.b", "a b", 1},
        {"a\\b.b", "acb", 0},
        {"(?i)K", "k", 1},
        {"(?i)\xe9", "\xc9", 0},
        {"a{2,3}", "aaaa", 0},
        {"(a|ab)(c|bcd)", "abcd", 1},
        {"(?:)*", "", 1},
        {"x*y+z?", "yy", 1},
        {"ab.*", "ab", 1},
        {"ab.*", "abc\n", 0},
        {"ab.+cd", "abcd", 0},
        {"ab.+cd", "abxcd", 1},
        {"a\\C{3,}b", "a12b", 0},
        {"a\\C{3,}b", "a123b", 1},
        {"aba.*aba", "aba", 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (matches(cases[i].pattern, cases[i].text) != cases[i].yes) fail_msg("%s on %s", cases[i].pattern, cases[i].text);
}
static void refusals_say_where(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a(b", "at byte 1: `(` has no end `)`"},
        {"ab)", "at byte 2: `)` closes no group"},
        {"a[b", "at byte 1: `[` has no end"},
        {"a(?=b)", "at byte 1: look-ahead (`(?=`): RE2's syntax has none"},
        {"(?<!b)", "look-behind"},
        {"(?>a)", "an atomic group"},
        {"(a)\\1", "at byte 3: `\\1`: RE2's syntax has no back-references"},
        {"(?P<n>a)(?P=n)", "at byte 8: a back-reference"},
        {"\\k<n>", "at byte 0: `\\k` is no escape"},
        {"a(?R)", "recursion"},
        {"(?C1)", "a callout"},
        {"(?#x)", "a comment"},
        {"a*+", "at byte 2: a repeat of a repeat"},
        {"a**", "at byte 2: a repeat of a repeat"},
        {"*a", "at byte 0: nothing before `*`"},
        {"a|+", "at byte 2: nothing before `+`"},
        {"a{1001}", "at byte 1: a repeat is {least,most} of at most 1000"},
        {"(a{40}){30}", "at byte 7: repeats within each other make more than 1000 copies"},
        {"[z-a]", "at byte 1: a range of characters ends before it begins"},
        {"[[:foo:]]", "at byte 1: no class of this name"},
        {"\\pX", "at byte 0: RE2 knows no class"},
        {"\\x{100}", "`\\x` takes two"},
        {"a\\", "at byte 1: a backslash at the end"},
        {"(?P<a b>c)", "a group's name has letters"},
        {"(?z)", "after `(?` come flags"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lk__table_regex *re;
        FAILS(lk__table_regex_compile(text_of(cases[i][0]), &re, &test_err), LK_EINVAL, cases[i][1]);
    }
}
static void heads(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *head;
        bool whole, automaton;
    } cases[] = {
        {"abc", "abc", true, false},       {"^(ab)c$", "abc", true, false},
        {"\\Qa.b\\E", "a.b", true, false}, {"abc.*", "abc", false, false},
        {"ab(c.*)", "abc", false, false},  {".*abc", "", false, false},
        {"ab\\C*cd", "ab", false, false},  {"ab?c", "a", false, true},
        {"a|b", "", false, true},          {"(?i)abc", "", false, true},
        {"ab[cd]", "ab", false, true},     {"a{3}", "", false, true},
        {"ab(?i)c", "ab", false, true},    {"", "", true, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lk__table_regex *re;
        bool whole;
        OK(lk__table_regex_compile(text_of(cases[i].pattern), &re, &test_err));
        struct lk_bytes head = lk__table_regex_head(re, &whole);
        if (head.size != strlen(cases[i].head) || (head.size && memcmp(head.data, cases[i].head, head.size) != 0) ||
            whole != cases[i].whole || (lk__table_regex_states(re) > 0) != cases[i].automaton)
            fail_msg("%s: head %.*s", cases[i].pattern, (int)head.size, head.data ? (const char *)head.data : "");
        lk__table_regex_free(re);
    }
}
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
/* 20 KiB of one piece. */
static struct lk_bytes many(char *out, const char *piece) {
    size_t size = 0, step = strlen(piece);
    for (; size + step <= 20000; size += step) memcpy(out + size, piece, step);
    return lk_bytes(out, size);
}
static void no_pattern_is_slow(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "(a*)*", "(a|a)*", "a?", "(a|b)?", ".{1,1000}", "(a{1,30}){1,30}", "(a*)*b", "((((a*)*)*)*)*", "[ab]*",
        "(|a)+", "(a|",    "(",  "a|",     "()",        "(?:a|ab|abc)*",   "\\b\\B", "(?m)^$",         "x*"};
    static const char *const whole[] = {"(a*)*b",
                                        "(a|a)*b",
                                        "((a*)*)*b",
                                        "(.{1,1000}){1,1000}",
                                        ".*a.{900}b",
                                        "(a?){1000}a{1000}",
                                        "(.*.*.*.*)*b",
                                        "(?:\\b|a)*",
                                        "(?:(?:a|b)*a(?:a|b){15})*",
                                        "(a*a*a*a*a*)*x"};
    size_t size = (size_t)1 << 18;
    char *text = lk_alloc(size), *pattern = lk_alloc(20001);
    double worst = 0;
    for (size_t i = 0; i < size; i++) text[i] = "ab"[(i * i ^ i >> 3) % 7 == 0];
    for (size_t i = 0; i < COUNT(pieces) + COUNT(whole); i++) {
        struct lk_bytes p = i < COUNT(pieces) ? many(pattern, pieces[i]) : text_of(whole[i - COUNT(pieces)]);
        struct lk__table_regex *re;
        double begin = seconds();
        int code = lk__table_regex_compile(p, &re, &test_err);
        if (!code) {
            code = match(re, 1 << 16, lk_bytes(text, size));
            lk__table_regex_free(re);
        }
        if (code < 0) assert_int_equal(code, LK_EINVAL);
        if (seconds() - begin > worst) worst = seconds() - begin;
        if (seconds() - begin > (LK_SANITIZED ? 60 : 5)) fail_msg("%.20s: %g s", (const char *)p.data, seconds() - begin);
    }
    printf("the slowest took %.3f s on 256 KiB\n", worst);
    lk_free(text);
    lk_free(pattern);
}
static void a_limit_is_an_error(void **state) {
    (void)state;
    struct lk__table_regex *re;
    struct lk__table_regex_run *run;
    bool yes;
    size_t size = (size_t)1 << 18;
    char *text = lk_alloc(size);
    uint32_t r = 1;
    FAILS(lk__table_regex_compile(many(text, ".{1000}"), &re, &test_err), LK_EINVAL, "needs more than 65535 states");
    for (size_t i = 0; i < size; i++) text[i] = "ab"[(r = r * 1664525 + 1013904223) >> 31];
    OK(lk__table_regex_compile(text_of(".*a.{900}c"), &re, &test_err));
    OK(lk__table_regex_run_open(re, 1 << 16, &run, &test_err));
    FAILS(lk__table_regex_match(run, lk_bytes(text, size), &yes, &test_err), LK_EINVAL,
          "takes more than 67108864 steps on 262144");
    OK(lk__table_regex_match(run, lk_bytes(text, 5000), &yes, &test_err)); /* the next text begins anew */
    assert_false(yes);
    lk__table_regex_run_close(run);
    lk__table_regex_free(re);
    lk_free(text);
}
static void memory_may_fail(void **state) {
    (void)state;
    for (int fails = 1, done = 0; !done; fails++) {
        struct lk__table_regex *re = NULL;
        struct lk__table_regex_run *run = NULL;
        lk__alloc_fail_at((uint64_t)fails);
        int code = lk__table_regex_compile(text_of("head(a|[bc]d){3,40}[^x]\\w"), &re, &test_err);
        if (!code) code = lk__table_regex_run_open(re, 100, &run, &test_err);
        lk__alloc_fail_at(0);
        done = !code;
        if (code) assert_int_equal(code, LK_ENOMEM);
        lk__table_regex_run_close(run);
        lk__table_regex_free(re);
        assert_true(fails < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),         cmocka_unit_test(golden_of_re2),      cmocka_unit_test(refusals_say_where),
        cmocka_unit_test(heads),           cmocka_unit_test(no_pattern_is_slow), cmocka_unit_test(a_limit_is_an_error),
        cmocka_unit_test(memory_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
