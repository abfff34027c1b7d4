/* GBNF: what is read, texts of it, and every mistake by line and column. */
#include "serve/grammar/testing.h"

/* texts: each begins with how it stands, as in test_text; a NULL ends them. */
static const struct {
    const char *grammar, *texts[12];
} cases[] = {
    {"root ::= \"abc\"", {"pab", "yabc", "nabcd", "nb", "p"}},
    {"root ::= \"a\" | \"ab\" |", {"y", "ya", "yab", "nb"}},
    {"# comment\nroot ::= # more\n  \"a\" b # tail\n\nb ::= \"b\"", {"yab", "pa", "nb"}},
    {"root ::= (\"a\" |\n \"b\"\n)+ \"c\"", {"yac", "yabbac", "nc", "pab"}},
    {"root ::= \"a\" |\n \"b\"\nx ::= \"c\"", {"ya", "yb", "nc"}},
    {"root ::= [a-cx]? [^a-cx]", {"yad", "yd", "nab", "pa", "y\xc3\xa9", "p\xc3", "ya\xe2\x82\xac", "na\xe2\x28"}},
    {"root ::= [\xc3\xa0-\xc3\xa9]*", {"y", "y\xc3\xa0\xc3\xa9", "n\xc3\xaa", "p\xc3"}},
    {"root ::= .", {"ya", "y\n", "y\xf0\x9f\x98\x80", "p\xf0\x9f", "n\xff", "n\xed\xa0", "n\xc0"}},
    {"root ::= [\\U0001F600-\\U0001F64F]",
     {"y\xf0\x9f\x98\x80", "n\xf0\x9f\x97", "y\xf0\x9f\x99\x8f", "n\xf0\x9f\x99\x90"}},
    {"root ::= [\\x41\\u00e9\\n\\]\\\\-]", {"yA", "y\xc3\xa9", "y\n", "y]", "y\\", "y-", "nB"}},
    {"root ::= \"\\x41\\u00E9\\t\\\"\\\\\"", {"yA\xc3\xa9\t\"\\"}},
    {"root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} \"d\" { 1 , 2 }",
     {"yaabd", "yaabbbccdd", "naaabd", "naad", "paab", "naabcccd", "naabddd"}},
    {"root ::= \"a\"{0} \"b\"", {"yb", "na"}},
    {"root ::= (\"a\"?)* \"b\"", {"yb", "yaaab"}},
    {"root ::= (\"a\"*)+", {"y", "yaa", "nb"}},
    {"root ::= root \"a\" | \"b\"", {"yb", "ybaaa", "na", "nbb"}}, /* left recursion */
    {"root ::= x\nx ::= y \"a\" | \"c\"\ny ::= x | e x \"d\"\ne ::= \"\" | \"f\"", {"yc", "yca", "ycda", "pfcd", "yfcda"}},
    {"root ::= root root | \"a\" | \"\"", {"y", "ya", "yaaaaaa", "nb"}}, /* ambiguous without end */
    {"root ::= \"(\" root \")\" root |", {"y", "y()", "y(())()", "p((", "n)"}},
    {"root ::= e\ne ::= e \"+\" t | t\nt ::= t \"*\" f | f\nf ::= \"(\" e \")\" | [0-9]+",
     {"y1", "y1+2*(3+4)*5", "p1+", "n1+)", "p(1"}},
    {"root ::= l\nl ::= \"a\" | \"a\" \",\" l", {"ya", "ya,a,a", "pa,"}}, /* right recursion */
    /* callers of a that come to it at the same place, one later than a's own calls */
    {"root ::= x \"1\" | w \"2\"\nx ::= \"q\" x | a\nw ::= \"q\" w | y\ny ::= \"q\" y \"s\" | a\na ::= \"(\" a \")\" | b\n"
     "b ::= \"b\" b \"c\" | \"z\"",
     {"yz1", "yz2", "y(z)2", "yqzs2", "yqqzs2", "y((bbzcc))1", "nqzs1", "pqz"}},
    {"root ::= a | b\na ::= \"x\" a\nb ::= \"xy\"", {"yxy", "nxx"}}, /* a never ends */
    {"root ::= a-b a_2\na-b ::= \"1\"\r\na_2 ::= \"2\"\r\n", {"y12"}},
    {"root ::= [^]", {"ya", "y]"}},
    {"root ::= \"a\"+?", {"y", "yaa"}}, /* one operator after another */
};
static void grammars_have_their_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_grammar *g;
        OK(lk_grammar_from_gbnf(cases[i].grammar, strlen(cases[i].grammar), &g, &test_err));
        for (const char *const *t = cases[i].texts; *t; t++) {
            char is = test_text(g, *t + 1, strlen(*t) - 1);
            if (is != **t) fail_msg("%s: \"%s\" is '%c', not '%c'", cases[i].grammar, *t + 1, is, **t);
        }
        lk_grammar_free(g);
    }
}

static const struct {
    const char *grammar;
    int code;
    const char *message;
} mistakes[] = {
    {"", LK_EINVAL, "no rule root: add root ::= "},
    {"a ::= \"b\"", LK_EINVAL, "no rule root"},
    {"root ::= x", LK_EINVAL, "line 1, column 10: the rule x is nowhere: add x ::="},
    {"root ::= \"a\"\n  y", LK_EINVAL, "line 2, column 4: ::= must stand here, behind the name of the rule y"},
    {"root ::= \"\xc3\xa9\" }", LK_EINVAL, "line 1, column 14: this can't stand here"},
    {"root ::= \"a\"\nroot ::= \"b\"", LK_EINVAL, "line 2, column 1: the rule root is there twice"},
    {"root ::= \"a", LK_EINVAL, "line 1, column 10: this text has no end"},
    {"root ::= \"a\n\"", LK_EINVAL, "this text has no end"},
    {"root ::= [a", LK_EINVAL, "line 1, column 10: this class has no end"},
    {"root ::= []", LK_EINVAL, "this class is empty"},
    {"root ::= [z-a]", LK_EINVAL, "line 1, column 11: this range goes backwards"},
    {"root ::= (\"a\"", LK_EINVAL, "line 1, column 10: this group has no end"},
    {"root ::= \"a\")", LK_EINVAL, "line 1, column 13: there is no group to close"},
    {"root ::= * \"a\"", LK_EINVAL, "line 1, column 10: there is nothing before * to repeat"},
    {"root ::= \"a\"{3,2}", LK_EINVAL, "line 1, column 13: {3,2} goes backwards"},
    {"root ::= \"a\"{x}", LK_EINVAL, "line 1, column 14: a number of repetition"},
    {"root ::= \"a\"{3", LK_EINVAL, "} must stand here"},
    {"root ::= \"a\"{100001}", LK_EINVAL, "at most 100000"},
    {"root ::= \"a\"{99999999999999999999}", LK_EINVAL, "at most 100000"},
    {"root ::= ((\"a\"{1000}){1000}){1000}", LK_EINVAL, "too large"},
    {"root ::= [ab]* \"a\" [ab]{30}", LK_EINVAL, "too large"},
    {"root ::= \"\\q\"", LK_EINVAL, "line 1, column 11: unknown escape"},
    {"root ::= \"\\xg0\"", LK_EINVAL, "needs 2 hexadecimal digits"},
    {"root ::= \"\\ud800\"", LK_EINVAL, "U+D800 is no character"},
    {"root ::= \"\\U00110000\"", LK_EINVAL, "U+110000 is no character"},
    {"root ::= \"\xff\"", LK_EINVAL, "line 1, column 11: the grammar is not UTF-8"},
    {"root ::= <[1000]>", LK_EUNSUPPORTED, "line 1, column 10: tokens as terminals"},
    {"root ::= root", LK_EINVAL, "has no text"},
    {"root ::= \"a\" root", LK_EINVAL, "has no text"},
    {"::= \"a\"", LK_EINVAL, "line 1, column 1: a rule must begin here"},
};
static void mistakes_are_said_with_their_place(void **state) {
    (void)state;
    struct lk_grammar *g;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        FAILS(lk_grammar_from_gbnf(mistakes[i].grammar, strlen(mistakes[i].grammar), &g, &test_err), mistakes[i].code,
              mistakes[i].message);
        assert_null(g);
    }
    struct lk_buf deep = LK_BUF_INIT;
    OK(lk_buf_printf(&deep, "root ::= "));
    for (int i = 0; i < 100000; i++) OK(lk_buf_append(&deep, "(", 1));
    FAILS(lk_grammar_from_gbnf(deep.data, deep.size, &g, &test_err), LK_EINVAL, "nested deeper than 256");
    for (int i = 0; i < 1000000; i++) OK(lk_buf_append(&deep, " ", 1));
    FAILS(lk_grammar_from_gbnf(deep.data, deep.size, &g, &test_err), LK_EINVAL, "more than 1048576");
    lk_buf_release(&deep);
}

static int compile(void) {
    static const char text[] =
        "root ::= (x | \"b\"{2,5} | [a-\xe2\x82\xac] root)*\nx ::= root y \"c\"\ny ::= [^a] y | [0-9]{20}";
    struct lk_grammar *g;
    int code = lk_grammar_from_gbnf(text, sizeof text - 1, &g, &test_err);
    lk_grammar_free(g);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(compile());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammars_have_their_texts),
        cmocka_unit_test(mistakes_are_said_with_their_place),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, test_bytes_setup, test_bytes_teardown);
}
