#include "base/testing.h"
#include "lockstep/base/ini.h"

static int parse(const char *text, struct lk_ini *out, struct lk_err *err) {
    return lk_ini_parse(text, strlen(text), "f.ini", out, err);
}

static void entry_is(const struct lk_ini *ini, const char *section, const char *key, const char *value, int line) {
    const struct lk_ini_entry *e = lk_ini_find(ini, section, key);
    assert_non_null(e);
    assert_string_equal(e->value, value);
    assert_int_equal(e->line, line);
}

static void reads_what_is_allowed(void **state) {
    (void)state;
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(parse("\xef\xbb\xbf# a comment\r\n"
                           "; another\n\n"
                           "[run] ; the run\r\n"
                           "  name = my run ; its #1 name \r\n"
                           "\tsteps:300\n"
                           "empty =\n"
                           "url = a;b#c=d:e\n"
                           "[b.c-d]# x\n"
                           "name = \xc3\xa4\xe2\x82\xac\n"
                           "last=1",
                           &ini, &e),
                     0);
    assert_int_equal(ini.count, 6);
    entry_is(&ini, "run", "name", "my run ; its #1 name", 5); /* no comment: nothing is cut */
    entry_is(&ini, "run", "steps", "300", 6);
    entry_is(&ini, "run", "empty", "", 7);
    entry_is(&ini, "run", "url", "a;b#c=d:e", 8);
    entry_is(&ini, "b.c-d", "name", "\xc3\xa4\xe2\x82\xac", 10);
    entry_is(&ini, "b.c-d", "last", "1", 11);
    assert_string_equal(lk_ini_find(&ini, "b.c-d", "last")->where, "f.ini:11");
    assert_string_equal(ini.name, "f.ini");
    assert_null(lk_ini_find(&ini, "run", "last"));
    lk_ini_release(&ini);
    assert_int_equal(parse("", &ini, &e), 0);
    assert_int_equal(ini.count, 0);
    lk_ini_release(&ini);
}

static void an_indented_line_is_not_the_rest_of_a_value(void **state) {
    (void)state;
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(parse("[a]\nb = 1\n    c = 2\n", &ini, &e), 0);
    entry_is(&ini, "a", "b", "1", 2);
    entry_is(&ini, "a", "c", "2", 3);
    lk_ini_release(&ini);
    assert_int_equal(parse("[a]\nb = 1\n    more\n", &ini, &e), LK_EINVAL);
}

static void refuses(const char *text, const char *message) {
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(parse(text, &ini, &e), LK_EINVAL);
    if (!strstr(e.message, message)) fail_msg("\"%s\" is not in \"%s\"", message, e.message);
    assert_int_equal(ini.count, 0);
}

static void refuses_with_file_and_line(void **state) {
    (void)state;
    refuses("[a]\nnothing here\n", "f.ini:2: not a [section], a key = value or a comment: \"nothing here\"");
    refuses("a = 1\n", "f.ini:1: a key needs a [section] before it: \"a = 1\"");
    refuses("[a]\n= 1\n", "f.ini:2: the key before '=' is empty");
    refuses("[a\nb = 1\n", "f.ini:1: a section needs a closing ']'");
    refuses("[]\n", "f.ini:1: the name of a section is empty");
    refuses("[ a ]\n", "f.ini:1: no space");
    refuses("[a] b = 1\n", "f.ini:1: only a comment may follow");
    refuses("[a]\nb=1\nc=2\nb=3\n", "f.ini:4: a.b is given twice, first in line 2");
    refuses("[a]\nb=1\n[c]\n[a]\nb=1\n", "f.ini:5: a.b is given twice, first in line 2");
    refuses("[a]\nb\rc=1\n", "f.ini:2: control character 0x0d at byte 2");
    refuses("[abcdefghijabcdefghijabcdefghijabcdefghijabcdefghi]\n", "f.ini:1: the name of a section is longer than 48");
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(lk_ini_parse("[a]\nb=\0\n", 8, "f.ini", &ini, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "f.ini:2: zero byte at byte 3"));
}

static void long_lines(void **state) {
    (void)state;
    char text[4200];
    for (int extra = 0; extra < 2; extra++) {
        size_t n = 4096 + (size_t)extra;
        memcpy(text, "[a]\nb=", 6);
        memset(text + 6, 'v', n - 2);
        strcpy(text + 4 + n, "\nc=1\n");
        if (extra) {
            refuses(text, "f.ini:2: the line is longer than 4,096 bytes: \"b=vvv");
        } else {
            struct lk_ini ini;
            struct lk_err e;
            assert_int_equal(parse(text, &ini, &e), 0);
            assert_int_equal(strlen(lk_ini_find(&ini, "a", "b")->value), 4094);
            entry_is(&ini, "a", "c", "1", 3);
            lk_ini_release(&ini);
        }
    }
    memset(text, 'k', 3000); /* a long key is not cut either */
    memcpy(text, "[a]\n", 4);
    strcpy(text + 3000, "=1\n");
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(parse(text, &ini, &e), 0);
    assert_int_equal(strlen(ini.entries[0].key), 2996);
    lk_ini_release(&ini);
}

static void too_many_keys(void **state) {
    (void)state;
    struct lk_buf b = LK_BUF_INIT;
    lk_buf_printf(&b, "[a]\n");
    for (int i = 0; i < 4097; i++) lk_buf_printf(&b, "k%d=1\n", i);
    refuses(b.data, "f.ini:4098: more than 4,096 keys");
    lk_buf_release(&b);
}

static void overrides(void **state) {
    (void)state;
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(parse("[a]\nb=1\n", &ini, &e), 0);
    assert_int_equal(lk_ini_override(&ini, "a.b=x=y", &e), 0);
    assert_int_equal(lk_ini_override(&ini, "c.d=", &e), 0);
    entry_is(&ini, "a", "b", "x=y", 0);
    entry_is(&ini, "c", "d", "", 0);
    assert_string_equal(lk_ini_find(&ini, "c", "d")->where, "on the command line");
    assert_int_equal(ini.count, 2);
    assert_int_equal(lk_ini_override(&ini, "ab=c.d", &e), 0); /* no section: the reader of keys says which was meant */
    entry_is(&ini, "", "ab", "c.d", 0);
    static const char *const bad[] = {"", "=", "=1", "a.=1", ".b=1", "a.b", "ab"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lk_ini_override(&ini, bad[i], &e), LK_EINVAL);
        assert_non_null(strstr(e.message, "section.key=value"));
    }
    FAIL_EACH_ALLOCATION(lk_ini_override(&ini, "a.b=2", &e));
    FAIL_EACH_ALLOCATION(lk_ini_override(&ini, "n.m=2", &e));
    assert_int_equal(ini.count, 4);
    lk_ini_release(&ini);
}

static void files(void **state) {
    (void)state;
    char *dir = test_dir_make(), *path = test_join(dir, "x.ini");
    struct lk_ini ini;
    struct lk_err e;
    assert_int_equal(lk_ini_read(path, &ini, &e), LK_ENOTFOUND);
    lk_ini_release(&ini);
    assert_int_equal(lk_file_write_atomic(path, "[a]\nb=1\nc=2\n", 12, &e), 0);
    FAIL_EACH_ALLOCATION((lk_ini_release(&ini), lk_ini_read(path, &ini, &e)));
    assert_int_equal(ini.count, 2);
    lk_ini_release(&ini);
    assert_int_equal(lk_file_write_atomic(path, "", 0, &e), 0);
    assert_int_equal(lk_ini_read(path, &ini, &e), 0);
    lk_ini_release(&ini);
    lk_free(path);
    test_dir_remove(dir);
}

/* Whatever the bytes, it ends, and either fails with a place or gives entries. */
static void random_bytes(void **state) {
    (void)state;
    struct test_random r = test_random_open("random_bytes");
    static const char alphabet[] = "[]=:;# \t\r\nab.\xef\xbb\xbf\"\\\0";
    for (int i = 0; i < 20000; i++) {
        char text[64];
        size_t n = test_random_below(&r, sizeof text);
        for (size_t j = 0; j < n; j++) text[j] = alphabet[test_random_below(&r, sizeof alphabet)];
        struct lk_ini ini;
        struct lk_err e;
        if (lk_ini_parse(text, n, "f", &ini, &e) == 0)
            lk_ini_release(&ini);
        else
            assert_memory_equal(e.message, "f:", 2);
    }
}

static void nearest(void **state) {
    (void)state;
    static const char *const keys[] = {"learning_rate", "warmup", "decay", "beta1", "beta2", "clip", "a"};
    struct {
        const char *word, *wanted;
    } rows[] = {{"learning_rat", "learning_rate"},
                {"lerning_rate", "learning_rate"},
                {"wramup", "warmup"},
                {"beta3", "beta1"},
                {"clpi", "clip"},
                {"zzz", NULL},
                {"", NULL},
                {"b", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *found = lk_nearest(rows[i].word, keys, 7);
        if (rows[i].wanted)
            assert_string_equal(found ? found : "none", rows[i].wanted);
        else
            assert_null(found);
    }
    assert_null(lk_nearest("x", NULL, 0));
    char big[1000];
    memset(big, 'x', 999);
    big[999] = 0;
    assert_null(lk_nearest(big, keys, 7));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_allowed),
        cmocka_unit_test(an_indented_line_is_not_the_rest_of_a_value),
        cmocka_unit_test(refuses_with_file_and_line),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(too_many_keys),
        cmocka_unit_test(overrides),
        cmocka_unit_test(files),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
