/* The line of a step: what it shows, and what it leaves out where it would not be true. */
#include "cmd.c"
#include "options.c"
#include "train_view.c"

#include "base/testing.h"

/* The line that is shown for a step of so many seconds. */
static char shown[512];
static const char *step_line(struct train_view *v, uint32_t step, double seconds, uint64_t tokens) {
    FILE *f = tmpfile();
    lk_progress_init(&v->progress, f);
    show_step(
        v, &(struct lk_ledger_row){.step = step, .loss = 2.5, .gradient_norm = 0.5, .tokens = tokens, .seconds = seconds},
        10);
    lk_progress_end(&v->progress);
    rewind(f);
    shown[fread(shown, 1, sizeof shown - 1, f)] = 0;
    fclose(f);
    return shown;
}

static void the_share_of_the_peak(void **state) {
    (void)state;
    struct train_view v = {.step_flops = 4e9, .batch_tokens = 1000, .peaks = {.fma_flops_all = 1e10}};
    assert_string_equal(step_line(&v, 1, 1, 1000),
                        "step 1/10  loss 2.5000  mean 2.5000  norm 0.5  1000 tokens/s  9.0 s left  40% of peak\n");
    assert_non_null(strstr(step_line(&v, 10, 1, 1000), "1000 tokens/s  40% of peak\n"));
    v.recent_seconds = 0;
    assert_null(strstr(step_line(&v, 3, 0.3, 1000), "peak")); /* 133%: the peak is wrong */
    v.recent_seconds = 0;
    assert_null(strstr(step_line(&v, 4, 1, 1000), "peak")); /* and stays so */
}

static void what_is_not_known_is_left_out(void **state) {
    (void)state;
    struct train_view v = {.step_flops = 4e9, .batch_tokens = 1000};
    assert_null(strstr(step_line(&v, 1, 1, 1000), "peak"));
    v = (struct train_view){.step_flops = 4e9, .batch_tokens = 1000, .peaks = {.fma_flops_all = 1e10}};
    step_line(&v, 1, 0, 1000); /* a clock that stands still */
    assert_null(strstr(shown, "inf"));
    assert_null(strstr(shown, "tokens/s"));
    assert_string_equal(step_line(&v, 2, 1, 0), "step 2/10  no targets: no update\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_share_of_the_peak),
        cmocka_unit_test(what_is_not_known_is_left_out),
    };
    return cmocka_run_group_tests_name("train_view", tests, NULL, NULL);
}
