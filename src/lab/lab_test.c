/* Garbage collection keeps what is reachable and nothing else; the loss curve is a picture of the ledger. */
#include "lockstep/lab/lab.h"
#include "train/testing.h"

static struct test_world world;

static int setup(void **state) {
    (void)state;
    test_world_make(&world);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_world_drop(&world);
    return 0;
}

static void only_unreachable_blobs_go(void **state) {
    (void)state;
    struct lk_run_config c = test_config("kept", "run.steps=4 checkpoint.keep=0"),
                         gone = test_config("gone", "run.steps=4 run.seed=8");
    struct lk_gc_result first, dry, swept, again;
    char *root = test_root_of(&world, &c);
    OK(lk_gc(world.store, 0, false, &first, &test_err));
    lk_free(test_root_of(&world, &gone));
    struct lk_root orphan;
    OK(lk_blob_put(world.store->blobs, "nobody names me", 15, &orphan, &test_err));
    OK(lk_run_remove(world.store, "gone", &test_err));
    OK(lk_gc(world.store, 3600000, false, &swept, &test_err)); /* all is younger than an hour */
    assert_int_equal(swept.blobs, 0);
    OK(lk_gc(world.store, 0, true, &dry, &test_err));
    assert_true(dry.blobs == 2 * 4 + 1 && lk_blob_exists(world.store->blobs, &orphan)); /* two checkpoints and the orphan */
    OK(lk_gc(world.store, 0, false, &swept, &test_err));
    assert_true(swept.blobs == dry.blobs && swept.bytes == dry.bytes && swept.kept == first.kept &&
                swept.kept_bytes == first.kept_bytes);
    assert_false(lk_blob_exists(world.store->blobs, &orphan));
    OK(lk_gc(world.store, 0, false, &again, &test_err));
    assert_int_equal(again.blobs, 0);
    struct lk_verify_result v; /* every kept checkpoint and the dataset are whole */
    OK(lk_verify(world.store, world.math, "kept", 2, 4, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.from == 2 && v.roots_compared);
    assert_record(&world, "kept", "state_root", root);
    lk_free(root);
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    while ((text = strstr(text, what))) n++, text++;
    return n;
}
static void the_plot_shows_the_ledger(void **state) {
    (void)state;
    struct lk_buf svg = LK_BUF_INIT;
    struct lk_run_config c = test_config("plotted", "run.steps=9 eval.every=3");
    FAILS(lk_plot_run(world.store, "plotted", &svg, &test_err), LK_ENOTFOUND, "plotted");
    OK(test_create_and_run(&world, &c, NULL));
    OK(lk_plot_run(world.store, "plotted", &svg, &test_err));
    assert_true(strncmp(svg.data, "<svg ", 5) == 0 && strcmp(svg.data + svg.size - 7, "</svg>\n") == 0);
    assert_int_equal(count(svg.data, "<circle"), 3);
    assert_int_equal(count(svg.data, "<path"), 2);
    assert_non_null(strstr(svg.data, "plotted: step 9 of 9, loss "));
    assert_null(strstr(svg.data, "nan"));
    assert_null(strstr(svg.data, "href"));
    lk_buf_release(&svg);
}

static int plot_something(void) {
    struct lk_buf svg = LK_BUF_INIT;
    int code = lk_plot_run(world.store, "plotted", &svg, &test_err);
    lk_buf_release(&svg);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    struct lk_gc_result result;
    FAIL_EACH_ALLOCATION(plot_something());
    for (uint64_t nth = 1;; nth++) { /* without memory nothing reachable may go */
        lk__alloc_fail_at(nth);
        lk_gc(world.store, 0, false, &result, &test_err);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        if (made < nth) break;
    }
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, "kept", 2, 4, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.from == 2 && v.roots_compared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_unreachable_blobs_go),
        cmocka_unit_test(the_plot_shows_the_ledger),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
