#include "base/testing.h"
#include "lockstep/base/progress.h"

static void plain_lines_elsewhere(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = tmpfile();
    struct lk_progress p;
    lk_progress_init(&p, out);
    assert_false(p.terminal);
    for (int i = 0; i < 100; i++) lk_progress_show(&p, false, "step %d", i); /* the first only: 5 s have not passed */
    lk_progress_show(&p, true, "step %d", 100);
    lk_progress_line(&p, "saved");
    lk_progress_end(&p);
    size = (size_t)ftell(out);
    rewind(out);
    text = lk_calloc(1, size + 1);
    assert_int_equal(fread(text, 1, size, out), size);
    assert_string_equal(text, "step 0\nstep 100\nsaved\n");
    lk_free(text);
    fclose(out);
}

/* As a rank finds it: its launcher writes to a terminal. Other files stay plain. */
static void a_live_line_when_the_launcher_says_so(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct lk_progress p;
    setenv("LOCKSTEP_PROGRESS", "bar", 1);
    lk_progress_init(&p, stderr);
    assert_true(p.terminal);
    lk_progress_init(&p, out);
    assert_false(p.terminal);
    setenv("LOCKSTEP_PROGRESS", "plain", 1);
    lk_progress_init(&p, stderr);
    assert_int_equal(p.terminal, isatty(fileno(stderr)) == 1);
    unsetenv("LOCKSTEP_PROGRESS");
    fclose(out);
}

static void a_live_line_on_a_terminal(void **state) {
    (void)state;
    FILE *out = tmpfile();
    struct lk_progress p;
    lk_progress_init(&p, out);
    p.terminal = true;
    char wide[300];
    for (int i = 0; i < 298; i += 2) memcpy(wide + i, "\xc3\xa4", 3);
    lk_progress_show(&p, true, "%s", wide);
    lk_progress_line(&p, "a line");
    lk_progress_show(&p, true, "again");
    lk_progress_end(&p);
    char text[1000] = "";
    rewind(out);
    assert_true(fread(text, 1, sizeof text - 1, out) > 0);
    char expected[1000] = "\r";
    for (int i = 0; i < 79; i++) strcat(expected, "\xc3\xa4"); /* cut at 79 characters, not in one's middle */
    strcat(expected, "\033[K\r\033[Ka line\n\ragain\033[K\n");
    assert_string_equal(text, expected);
    fclose(out);
}

static void formats(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(lk_format_bytes(0, out), "0 bytes");
    assert_string_equal(lk_format_bytes(1, out), "1 byte");
    assert_string_equal(lk_format_bytes(999, out), "999 bytes");
    assert_string_equal(lk_format_bytes(1000, out), "1.0 kB");
    assert_string_equal(lk_format_bytes(345000, out), "345 kB");
    assert_string_equal(lk_format_bytes(999999, out), "1.0 MB");
    assert_string_equal(lk_format_bytes(1234567890, out), "1.2 GB");
    assert_string_equal(lk_format_bytes(UINT64_MAX, out), "18.4 EB");
    assert_string_equal(lk_format_duration(0.0123, out), "12 ms");
    assert_string_equal(lk_format_duration(1.25, out), "1.2 s");
    assert_string_equal(lk_format_duration(59.6, out), "1 min 0 s");
    assert_string_equal(lk_format_duration(200, out), "3 min 20 s");
    assert_string_equal(lk_format_duration(7260, out), "2 h 1 min");
    assert_string_equal(lk_format_duration(90000, out), "1 d 1 h");
    assert_string_equal(lk_format_duration(-1, out), "unknown");
    assert_string_equal(lk_format_duration(1e300, out), "unknown");
    double nan = strtod("nan", NULL);
    assert_string_equal(lk_format_duration(nan, out), "unknown");
}

static void clocks(void **state) {
    (void)state;
    uint64_t a = lk_clock_ns(), b = lk_clock_ns();
    assert_true(b >= a);
    assert_true(lk_clock_wall_ms() > 1600000000000);
    lk_log_quiet(true);
    lk_log_warn("not seen");
    lk_log_quiet(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_lines_elsewhere),
        cmocka_unit_test(a_live_line_on_a_terminal),
        cmocka_unit_test(a_live_line_when_the_launcher_says_so),
        cmocka_unit_test(formats),
        cmocka_unit_test(clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
