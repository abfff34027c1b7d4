/* Garbage collection keeps what is reachable and nothing else; the loss curve is a picture of the ledger. */
#include "lockstep/lab/lab.h"
#include "train/testing.h"
#include <math.h>

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

/* By a handle that is closed again: what an open one has put stays. */
static void put_orphan(const char *text, struct lk_root *root) {
    struct lk_store *s;
    OK(lk_store_open(world.dir, LK_WRITE, &s, &test_err));
    OK(lk_blob_put(s->blobs, text, strlen(text), root, &test_err));
    lk_store_close(s);
}
static void only_unreachable_blobs_go(void **state) {
    (void)state;
    struct lk_run_config c = test_config("kept", "run.steps=4 checkpoint.keep=0"),
                         gone = test_config("gone", "run.steps=4 run.seed=8");
    struct lk_gc_result first, dry, swept, again;
    char *root = test_root_of(&world, &c);
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &first,
                   &test_err));
    lk_free(test_root_of(&world, &gone));
    struct lk_root orphan;
    put_orphan("nobody names me", &orphan);
    OK(lk_run_remove(world.store, "gone", &test_err));
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 3600000, .dry_run = false}, &swept,
                   &test_err)); /* all is younger than an hour */
    assert_int_equal(swept.blobs, 0);
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = true}, &dry, &test_err));
    assert_true(dry.blobs == 2 * 4 + 1 && lk_blob_exists(world.store->blobs, &orphan)); /* two checkpoints and the orphan */
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &swept,
                   &test_err));
    assert_true(swept.blobs == dry.blobs && swept.bytes == dry.bytes && swept.kept == first.kept &&
                swept.kept_bytes == first.kept_bytes);
    assert_false(lk_blob_exists(world.store->blobs, &orphan));
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &again,
                   &test_err));
    assert_int_equal(again.blobs, 0);
    struct lk_verify_result v; /* every kept checkpoint and the dataset are whole */
    OK(lk_verify(world.store, world.math, "kept", 2, 4, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.from == 2 && v.roots_compared);
    assert_record(&world, "kept", "state_root", root);
    lk_free(root);
}

/* Puts a row, or takes it away again. */
static void put_row(const char *key, size_t key_size, const void *value, size_t size) {
    struct lk_kv_txn *t;
    OK(lk_kv_begin(world.store->kv, true, &t, &test_err));
    if (value)
        OK(lk_kv_put(t, lk_bytes(key, key_size), lk_bytes(value, size), &test_err));
    else
        OK(lk_kv_delete(t, lk_bytes(key, key_size), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
}
struct seen {
    size_t runs;
    bool damaged;
    struct lk_run_facts facts;
};
static int see_run(void *arg, const char *name, json_t *record) {
    struct seen *s = arg;
    s->runs++;
    s->damaged |= !record && strcmp(name, "torn") == 0;
    return 0;
}

/* What a damaged row named is not known: the list has the others, and nothing is collected. */
static void a_damaged_row_stops_the_collector_alone(void **state) {
    (void)state;
    struct seen s = {0};
    struct lk_gc_result r;
    struct lk_root orphan;
    json_t *record = NULL;
    struct lk_run_config c = test_config("whole", "run.steps=2"), again = test_config("torn", "run.steps=2");
    OK(test_create_and_run(&world, &c, NULL));
    OK(lk_run_list(world.store, see_run, &s, &test_err));
    size_t runs = s.runs;
    put_orphan("nobody names me either", &orphan);
    static const struct {
        const char *key;
        size_t size;
        const char *value, *answer;
    } rows[] = {{"r/run/torn", 10, "{\"name\":\"torn\",\"init", "the row r/run/torn is damaged, its record"},
                {"r/run/torn", 10, "", "`lockstep runs rm torn`"},
                {"r/run/torn", 10, "[\"torn\"]", "the row r/run/torn is damaged, its record is JSON, but no object"},
                {"c/torn/\0\0\0\1", 11, "short", "a checkpoint of run torn is damaged"},
                {"n/model/torn", 12, "short", "the name model/torn has 5 bytes, not 32"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_row(rows[i].key, rows[i].size, rows[i].value, strlen(rows[i].value));
        FAILS(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &r,
                          &test_err),
              LK_ECORRUPT, "nothing was removed");
        assert_non_null(strstr(test_err.message, rows[i].answer));
        assert_true(lk_blob_exists(world.store->blobs, &orphan));
        if (i > 0) put_row(rows[i].key, rows[i].size, NULL, 0);
    }
    put_row(rows[0].key, rows[0].size, rows[0].value, strlen(rows[0].value));
    s = (struct seen){0};
    OK(lk_run_list(world.store, see_run, &s, &test_err));
    assert_true(s.damaged && s.runs == runs + 1);
    OK(lk_run_facts_read(world.store, "torn", NULL, &s.facts, &test_err));
    assert_non_null(strstr(s.facts.damage, "the record of run torn"));
    FAILS(lk_run_get(world.store, "torn", &record, &test_err), LK_ECORRUPT, "`lockstep runs rm torn`");
    FAILS(test_create_and_run(&world, &again, NULL), LK_ECORRUPT, "the record of run torn");
    OK(lk_run_remove(world.store, "torn", &test_err));
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &r, &test_err));
    assert_false(lk_blob_exists(world.store->blobs, &orphan));
    OK(lk_run_facts_read(world.store, "torn", NULL, &s.facts, &test_err)); /* gone since it was listed */
    assert_string_equal(s.facts.damage, "");
    OK(test_create_and_run(&world, &again, NULL));
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

/* Every tag closes in its order, every value is quoted, nothing is left open. */
static void assert_well_formed(const char *p) {
    char open[16][16];
    int depth = 0;
    while ((p = strchr(p, '<'))) {
        bool closing = p[1] == '/';
        char name[16];
        assert_int_equal(sscanf(p + 1 + closing, "%15[a-z]", name), 1);
        const char *end = p;
        char quote = 0;
        for (; *end && (quote || *end != '>'); end++) {
            assert_true(end == p || quote || *end != '<');
            if (*end == '\'') quote = quote ? 0 : '\'';
        }
        assert_true(*end == '>' && !quote);
        if (closing)
            assert_true(depth > 0 && strcmp(open[--depth], name) == 0);
        else if (end[-1] != '/')
            strcpy(open[depth++], name);
        p = end;
    }
    assert_int_equal(depth, 0);
}

static void several_runs_are_one_picture(void **state) {
    (void)state;
    static const char *const runs[] = {"plotted", "other-rate", "talking"};
    struct lk_run_config c = test_config("other-rate", "run.steps=30 eval.every=10 optimizer.learning_rate=0.002"),
                         talk = test_config("talking", "data.dataset=talk run.steps=4");
    OK(test_create_and_run(&world, &c, NULL));
    OK(test_create_and_run(&world, &talk, NULL));
    for (int by = LK_PLOT_STEP; by <= LK_PLOT_SECONDS; by++)
        for (size_t n = 1; n <= 3; n++) {
            struct lk_buf svg = LK_BUF_INIT;
            OK(lk_plot_runs(world.store, runs, n, (enum lk_plot_by)by, NULL, &svg, &test_err));
            assert_well_formed(svg.data);
            assert_int_equal(count(svg.data, "<polyline "), n);
            for (size_t i = 0; i < n; i++) assert_non_null(strstr(svg.data, runs[i]));
            assert_int_equal(count(svg.data, "<circle class='e'"), 1 + 3); /* the legend's, and three evaluations */
            assert_int_equal(count(svg.data, "<rect class='e'"), n > 1 ? 1 + 3 : 0);
            assert_non_null(strstr(svg.data, n < 3 ? ", bits a byte<" : ", nats a token<")); /* prompts are not learned */
            assert_non_null(strstr(svg.data, by == LK_PLOT_STEP     ? ">step<"
                                             : by == LK_PLOT_TOKENS ? ">tokens"
                                                                    : ">seconds"));
            assert_null(strstr(svg.data, "nan"));
            lk_buf_release(&svg);
        }
    struct lk_buf svg = LK_BUF_INIT;
    FAILS(lk_plot_runs(world.store, (const char *const[]){"plotted", "none"}, 2, LK_PLOT_STEP, NULL, &svg, &test_err),
          LK_ENOTFOUND, "none");
    FAILS(lk_plot_runs(world.store, runs, 0, LK_PLOT_STEP, NULL, &svg, &test_err), LK_EINVAL, "1 to 28 runs");
    lk_buf_release(&svg);
}

static void a_run_without_steps_is_left_out(void **state) {
    (void)state;
    static const char *const runs[] = {"unbegun", "plotted", "unbegun", "other-rate"};
    struct lk_run_config c = test_config("unbegun", "");
    struct lk_trainer *t;
    struct lk_buf svg = LK_BUF_INIT;
    bool left_out[4];
    OK(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err));
    lk_trainer_free(t);
    OK(lk_plot_runs(world.store, runs, 4, LK_PLOT_STEP, left_out, &svg, &test_err));
    assert_true(left_out[0] && !left_out[1] && left_out[2] && !left_out[3]);
    assert_int_equal(count(svg.data, "<polyline "), 2);
    assert_null(strstr(svg.data, "unbegun"));
    assert_well_formed(svg.data);
    lk_buf_release(&svg);
    FAILS(lk_plot_runs(world.store, runs, 1, LK_PLOT_STEP, NULL, &svg, &test_err), LK_ENOTFOUND,
          "run unbegun has no steps");
    FAILS(lk_plot_runs(world.store, (const char *const[]){"unbegun", "unbegun"}, 2, LK_PLOT_STEP, NULL, &svg, &test_err),
          LK_ENOTFOUND, "none of the 2 runs");
    FAILS(lk_plot_runs(world.store, (const char *const[]){"plotted", "none"}, 2, LK_PLOT_STEP, NULL, &svg, &test_err),
          LK_ENOTFOUND, "none");
    lk_buf_release(&svg);
}

/* Its row is still there, with what is known. */
static void damage_is_noted(void **state) {
    (void)state;
    json_t *record;
    struct lk_run_facts f;
    OK(lk_run_get(world.store, "other-rate", &record, &test_err));
    json_t *model = json_object_get(json_object_get(record, "config"), "model");
    json_object_set_new(model, "width", json_string("wide"));
    OK(lk_run_facts_read(world.store, "other-rate", record, &f, &test_err));
    assert_non_null(strstr(f.damage, "model.width"));
    assert_true(f.step == 30 && f.steps == 30 && f.has_loss && f.evals == 3 && f.tokens_per_second == 0);
    json_t *out = lk_run_facts_json(&f);
    assert_string_equal(json_string_value(json_object_get(out, "damage")), f.damage);
    json_decref(out);
    json_decref(record);
}

static void facts_are_those_of_the_ledger(void **state) {
    (void)state;
    json_t *record;
    struct lk_run_facts f;
    OK(lk_run_get(world.store, "other-rate", &record, &test_err));
    OK(lk_run_facts_read(world.store, "other-rate", record, &f, &test_err));
    assert_true(f.step == 30 && f.steps == 30 && f.has_loss && f.loss > 0 && f.evals == 3 && f.process == 0);
    assert_true(!*f.damage);
    assert_true(f.tokens_per_second > 0 && f.eval.step == 30 && f.best.loss <= f.eval.loss && f.best.bytes > 0);
    json_object_set_new(record, "step", json_integer(10)); /* a checkpoint of long ago */
    OK(lk_run_facts_read(world.store, "other-rate", record, &f, &test_err));
    assert_int_equal(f.step, 30);
    json_decref(record);
}

static json_t *compare(const char *a, const char *b) {
    json_t *out;
    OK(lk_compare_runs(world.store, a, b, &out, &test_err));
    return out;
}
static json_int_t whole(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}
static void runs_are_compared(void **state) {
    (void)state;
    struct lk_run_config c = test_config("twin", "run.steps=9 eval.every=3 memory.recompute=true");
    OK(test_create_and_run(&world, &c, NULL));
    json_t *out = compare("plotted", "twin"), *d = json_object_get(out, "differences");
    assert_true(json_is_true(json_object_get(out, "identity_equal")) &&
                json_is_null(json_object_get(out, "first_difference")));
    assert_int_equal(whole(out, "common_steps"), 9);
    assert_int_equal(json_array_size(d), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(d, 0), "key")), "memory.recompute");
    assert_true(json_is_false(json_object_get(json_array_get(d, 0), "identity")));
    assert_true(json_equal(json_object_get(json_object_get(out, "a"), "state_root"),
                           json_object_get(json_object_get(out, "b"), "state_root")));
    json_decref(out);
    out = compare("plotted", "other-rate");
    assert_true(json_is_false(json_object_get(out, "identity_equal")));
    json_t *first = json_object_get(out, "first_difference");
    assert_int_equal(whole(first, "step"), 1); /* the loss of the same weights, another rate */
    assert_string_equal(json_string_value(json_object_get(first, "column")), "learning_rate");
    assert_int_equal(json_array_size(json_object_get(out, "losses")), 9);
    assert_int_equal(json_array_size(json_object_get(out, "held_out")), 0);
    json_decref(out);
    out = compare("plotted", "talking"); /* another dataset */
    bool found = false;
    size_t i;
    json_array_foreach(json_object_get(out, "differences"), i, d) found |=
        strcmp(json_string_value(json_object_get(d, "key")), "dataset_root") == 0;
    assert_true(found);
    json_decref(out);
    FAILS(lk_compare_runs(world.store, "plotted", "none", &out, &test_err), LK_ENOTFOUND, "none");
}

/* Two names of one start are no difference; two starts are one, whatever they are called. */
static void starts_are_compared_by_their_roots(void **state) {
    (void)state;
    struct lk_run_config parent = test_config("parent", "run.steps=4 checkpoint.keep=0"),
                         same = test_config("same", "run.steps=4 checkpoint.keep=0"),
                         a = test_config("child-a", "run.steps=2"), b = test_config("child-b", "run.steps=2"),
                         c = test_config("child-c", "run.steps=2");
    OK(test_create_and_run(&world, &parent, NULL));
    OK(test_create_and_run(&world, &same, NULL));
    strcpy(a.from, "parent@4");
    strcpy(b.from, "same@4");
    strcpy(c.from, "parent@2");
    OK(test_create_and_run(&world, &a, NULL));
    OK(test_create_and_run(&world, &b, NULL));
    OK(test_create_and_run(&world, &c, NULL));
    json_t *out = compare("child-a", "child-b");
    assert_true(json_is_true(json_object_get(out, "identity_equal")));
    assert_int_equal(json_array_size(json_object_get(out, "differences")), 0);
    json_decref(out);
    out = compare("child-a", "child-c");
    json_t *d = json_object_get(out, "differences");
    assert_int_equal(json_array_size(d), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(d, 0), "key")), "model.from");
    assert_string_equal(json_string_value(json_object_get(json_array_get(d, 1), "key")), "initial");
    json_decref(out);
}

static int compare_something(void) {
    json_t *out = NULL;
    int code = lk_compare_runs(world.store, "plotted", "other-rate", &out, &test_err);
    if (code) return code;
    assert_int_equal(json_array_size(json_object_get(out, "losses")), 9); /* all or an error */
    json_decref(out);
    return code;
}
static int plot_several(void) {
    static const char *const runs[] = {"plotted", "other-rate"};
    struct lk_buf svg = LK_BUF_INIT;
    int code = lk_plot_runs(world.store, runs, 2, LK_PLOT_STEP, NULL, &svg, &test_err);
    lk_buf_release(&svg);
    return code;
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
    FAIL_EACH_ALLOCATION(compare_something());
    json_set_alloc_funcs(lk_alloc, lk_free);
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) { /* JSON's memory too: the whole comparison or an error */
        lk__alloc_fail_at(nth);
        int code = compare_something();
        made = lk__alloc_count();
        lk__alloc_fail_at(0);
        assert_true(!code || made >= nth);
    }
    json_set_alloc_funcs(malloc, free);
    FAIL_EACH_ALLOCATION(plot_several());
    for (uint64_t nth = 1;; nth++) { /* without memory nothing reachable may go */
        lk__alloc_fail_at(nth);
        lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &result,
                    &test_err);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        if (made < nth) break;
    }
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, "kept", 2, 4, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.from == 2 && v.roots_compared);
}

static void losses_that_are_not_finite_are_null(void **state) {
    (void)state;
    struct lk_run_facts f = {.evals = 1, .has_loss = true, .loss = INFINITY};
    f.eval = f.best = (struct lk_eval_row){.step = 3, .loss = NAN, .targets = 9, .bytes = 20};
    json_t *out = lk_run_facts_json(&f), *held_out = json_object_get(out, "held_out");
    assert_non_null(out);
    assert_true(json_is_null(json_object_get(out, "loss")));
    assert_true(json_is_null(json_object_get(held_out, "loss")) &&
                json_is_null(json_object_get(held_out, "bits_per_byte")));
    json_decref(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_unreachable_blobs_go),
        cmocka_unit_test(a_damaged_row_stops_the_collector_alone),
        cmocka_unit_test(the_plot_shows_the_ledger),
        cmocka_unit_test(several_runs_are_one_picture),
        cmocka_unit_test(facts_are_those_of_the_ledger),
        cmocka_unit_test(a_run_without_steps_is_left_out),
        cmocka_unit_test(damage_is_noted),
        cmocka_unit_test(losses_that_are_not_finite_are_null),
        cmocka_unit_test(runs_are_compared),
        cmocka_unit_test(starts_are_compared_by_their_roots),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
