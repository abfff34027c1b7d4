/* Keys: files good and bad, who is found, limits by a clock of the test's own. */
#include "base/testing.h"
#include "lockstep/base/file.h"
#include "lockstep/net/keys.h"
#include <sys/stat.h>

static char *dir;
static char path[300];
static const char *write_keys(const char *text) {
    snprintf(path, sizeof path, "%s/keys", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(path, 0600);
    return path;
}

static void keys_are_made_and_found(void **state) {
    (void)state;
    char keys[3][LK_KEY_TEXT], lines[3][256], text[2000], bearer[100];
    struct lk_keys *k;
    uint32_t which, again;
    for (int i = 0; i < 3; i++) OK(lk_key_make(i == 0 ? "a" : i == 1 ? "b-2" : "c@x.y", keys[i], lines[i], &test_err));
    assert_int_equal(strlen(keys[0]), 46);
    assert_string_not_equal(keys[0], keys[1]);
    snprintf(text, sizeof text, "# who may\n\n%s requests=3  # a comment\n  %s\tstreams=2 tokens=600\r\n", lines[0],
             lines[1]);
    OK(lk_keys_open(write_keys(text), &k, &test_err));
    assert_int_equal(lk_keys_count(k), 2);
    snprintf(bearer, sizeof bearer, "Bearer %s", keys[1]);
    OK(lk_keys_find(k, bearer, &which));
    OK(lk_keys_find(k, keys[1], &again));
    assert_int_equal(which, again);
    OK(lk_keys_find(k, keys[0], &again));
    assert_int_not_equal(which, again);
    assert_int_equal(lk_keys_find(k, keys[2], &again), LK_ENOTFOUND);
    assert_int_equal(lk_keys_find(k, "", &again), LK_ENOTFOUND);
    assert_int_equal(lk_keys_find(k, NULL, &again), LK_ENOTFOUND);
    bearer[20] ^= 1;
    assert_int_equal(lk_keys_find(k, bearer, &again), LK_ENOTFOUND);
    /* b keeps its account and its number; a goes, c comes */
    uint32_t wait, c;
    OK(lk_keys_begin(k, which, 1000, &wait, &test_err));
    snprintf(text, sizeof text, "%s\n%s streams=1\n", lines[2], lines[1]);
    write_keys(text);
    OK(lk_keys_reload(k, &test_err));
    OK(lk_keys_find(k, keys[1], &again));
    assert_int_equal(which, again);
    FAILS(lk_keys_begin(k, which, 1000, &wait, &test_err), LK_EBUSY, "key b-2 has 1 requests running, its limit");
    assert_int_equal(lk_keys_find(k, keys[0], &again), LK_ENOTFOUND);
    OK(lk_keys_find(k, keys[2], &c));
    OK(lk_keys_begin(k, c, 1000, &wait, &test_err));
    write_keys("what\n"); /* a bad file changes nothing */
    FAILS(lk_keys_reload(k, &test_err), LK_EINVAL, "line 1: behind the name");
    OK(lk_keys_find(k, keys[1], &again));
    lk_keys_end(k, which, 5);
    lk_keys_end(k, c, 5);
    lk_keys_close(k);
}

static void limits_of_a_minute(void **state) {
    (void)state;
    char key[LK_KEY_TEXT], line[256], text[400];
    struct lk_keys *k;
    uint32_t which, wait;
    uint64_t now = 7000000000, second = 1000000000;
    OK(lk_key_make("a", key, line, &test_err));
    snprintf(text, sizeof text, "%s requests=3 tokens=600", line);
    OK(lk_keys_open(write_keys(text), &k, &test_err));
    OK(lk_keys_find(k, key, &which));
    for (int i = 0; i < 3; i++) {
        OK(lk_keys_begin(k, which, now, &wait, &test_err));
        lk_keys_end(k, which, 100);
    }
    FAILS(lk_keys_begin(k, which, now, &wait, &test_err), LK_EBUSY,
          "key a has asked 3 times in a minute, its limit: try again in 21 s");
    assert_int_equal(wait, 21);
    FAILS(lk_keys_begin(k, which, now + 19 * second, &wait, &test_err), LK_EBUSY, "try again in 2 s");
    OK(lk_keys_begin(k, which, now + 21 * second, &wait, &test_err)); /* 300 and 200 tokens are left */
    lk_keys_end(k, which, 1000);
    FAILS(lk_keys_begin(k, which, now + 60 * second, &wait, &test_err), LK_EBUSY, "key a has had 600 tokens in a minute");
    OK(lk_keys_begin(k, which, now + 100 * second, &wait, &test_err));
    lk_keys_end(k, which, 0);
    for (int i = 0; i < 3; i++)
        OK(lk_keys_begin(k, which, now + 10000 * second, &wait, &test_err)); /* no more than a minute's is saved up */
    FAILS(lk_keys_begin(k, which, now + 10000 * second, &wait, &test_err), LK_EBUSY, "asked 3 times");
    lk_keys_close(k);
}

static void bad_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"a", "line 1: behind the name stands sha256:"},
        {"a sha256:12", "behind the name"},
        {"\n# x\na/b sha256:0000000000000000000000000000000000000000000000000000000000000000", "line 3: a name has"},
        {"a sha256:0000000000000000000000000000000000000000000000000000000000000000 lots=3", "\"lots=3\" is no limit"},
        {"a sha256:0000000000000000000000000000000000000000000000000000000000000000 tokens=0", "\"tokens=0\" is no limit"},
        {"a sha256:0000000000000000000000000000000000000000000000000000000000000000 tokens=3x", "is no limit"},
        {"a sha256:0000000000000000000000000000000000000000000000000000000000000000\n"
         "a sha256:0000000000000000000000000000000000000000000000000000000000000001",
         "line 2: a stands there twice"},
    };
    struct lk_keys *k;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(lk_keys_open(write_keys(bad[i].text), &k, &test_err), LK_EINVAL, bad[i].says);
    write_keys("");
    OK(lk_keys_open(path, &k, &test_err));
    assert_int_equal(lk_keys_count(k), 0);
    lk_keys_close(k);
    chmod(path, 0644);
    FAILS(lk_keys_open(path, &k, &test_err), LK_EINVAL, "others may read or change it: chmod 600");
    FAILS(lk_keys_open("/nowhere/keys", &k, &test_err), LK_ENOTFOUND, "/nowhere/keys");
    char key[LK_KEY_TEXT], line[256];
    FAILS(lk_key_make("a b", key, line, &test_err), LK_EINVAL, "is no name of a key");
}

static int open_and_close(void) {
    struct lk_keys *k;
    int code = lk_keys_open(path, &k, &test_err);
    if (!code) lk_keys_close(k);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    char key[LK_KEY_TEXT], line[256];
    OK(lk_key_make("a", key, line, &test_err));
    write_keys(line);
    FAIL_EACH_ALLOCATION(open_and_close());
}

static int setup(void **state) {
    (void)state;
    dir = test_dir_make();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_dir_remove(dir);
    return 0;
}
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_made_and_found),
        cmocka_unit_test(limits_of_a_minute),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
