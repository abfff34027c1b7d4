/* Checkpoints: there and back, pruned, damaged; the memory plan. */
#include "lockstep/base/progress.h"
#include "train/saver.h"
#include "train/state.h"
#include "train/testing.h"
#include <sys/stat.h>

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

struct heard {
    uint32_t resumed, warnings;
    char warning[900];
};
static void on_resumed(void *arg, uint32_t step) {
    ((struct heard *)arg)->resumed = step;
}
static void on_warning(void *arg, const char *message) {
    struct heard *h = arg;
    if (h->warnings++ == 0) snprintf(h->warning, sizeof h->warning, "%s", message);
}

/* --- There and back -------------------------------------------------------------------------------------- */

static void loaded_is_saved(const char *keys, bool padded) {
    struct lk_run_config c = test_config("saved", keys);
    struct lk_trainer *t;
    OK(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err));
    OK(lk_trainer_run(t, &test_err));
    const struct lk_state *s = lk_trainer_state(t);
    assert_true((s->layout->floats != s->layout->parameters) == padded);
    struct lk_state back, weights_only;
    struct lk_checkpoint *list;
    struct lk_root w, root;
    size_t count;
    char hex[LK_ROOT_HEX];
    OK(lk_run_checkpoints(world.store, "saved", &list, &count, &test_err));
    assert_true(count == 2 && list[0].step == 2 && list[1].step == 4 && list[0].kept && list[1].kept);
    OK(lk_state_init(&back, s->layout, true, &test_err));
    OK(lk_checkpoint_load(world.store, &list[1].state, &back, &test_err));
    assert_memory_equal(back.weights, s->weights, s->layout->floats * 4);
    assert_memory_equal(back.moments1, s->moments1, s->layout->floats * 4);
    assert_memory_equal(back.moments2, s->moments2, s->layout->floats * 4);
    assert_true(back.updates == 4 && back.samples == 24);
    OK(lk_state_init(&weights_only, s->layout, false, &test_err));
    OK(lk_checkpoint_load(world.store, &list[1].state, &weights_only, &test_err));
    assert_memory_equal(weights_only.weights, s->weights, s->layout->floats * 4);
    OK(lk__train_state_roots(&back, &w, &root, &test_err));
    assert_true(lk_root_equal(&w, &list[1].weights) && lk_root_equal(&root, &list[1].state));
    assert_record(&world, "saved", "weights_root", lk_root_hex(&w, hex));
    assert_record(&world, "saved", "state_root", lk_root_hex(&root, hex));
    OK(lk_array_root(s->layout, s->weights, &root, &test_err));
    assert_true(lk_root_equal(&w, &root));
    struct lk_blob blob; /* the blob is the tensors, nothing else */
    OK(lk_blob_open(world.store->blobs, &w, true, &blob, &test_err));
    assert_int_equal(blob.size, s->layout->parameters * 4);
    lk_blob_close(&blob);
    struct lk_model_ref ref; /* seen as a model, packed as it lies */
    struct lk_model model;
    OK(lk_model_find(world.store, "saved", true, NULL, NULL, &ref, &model, &test_err));
    assert_true(ref.is_run && ref.step == list[1].step && lk_root_equal(&ref.state, &list[1].state));
    assert_true(lk_root_equal(&model.weights_root, &w) && model.layout.floats == s->layout->parameters);
    for (size_t i = 0; i < s->layout->tensor_count; i++) {
        const struct lk_tensor *wide = &s->layout->tensors[i];
        assert_memory_equal(model.weights + model.layout.tensors[i].offset, s->weights + wide->offset, wide->count * 4);
    }
    lk_model_close(&model);
    FAILS(lk_checkpoint_load(world.store, &w, &back, &test_err), LK_ECORRUPT, "");
    lk_state_release(&back);
    lk_state_release(&weights_only);
    lk_free(list);
    lk_trainer_free(t);
    OK(lk_run_remove(world.store, "saved", &test_err));
}
static void a_loaded_state_is_the_saved_one(void **state) {
    (void)state;
    loaded_is_saved("run.steps=4 model.width=16 model.ffn=32", false);
    loaded_is_saved("run.steps=4", true);
}

static int make_state(const struct lk_layout *l) {
    struct lk_state s;
    int code = lk_state_init(&s, l, true, &test_err);
    if (!code) lk_state_release(&s);
    return code;
}
static void only_as_many_are_kept(void **state) {
    (void)state;
    struct lk_run_config c = test_config("pruned", "run.steps=7 checkpoint.every=1 checkpoint.keep=3");
    lk_free(test_root_of(&world, &c));
    struct lk_checkpoint *list;
    size_t count;
    struct lk_run run;
    struct lk_state s;
    OK(lk_run_open(world.store, "pruned", &run, &test_err));
    FAIL_EACH_ALLOCATION(make_state(&run.layout));
    OK(lk_state_init(&s, &run.layout, true, &test_err));
    OK(lk_run_checkpoints(world.store, "pruned", &list, &count, &test_err));
    assert_int_equal(count, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(list[i].step, i + 1);
        assert_int_equal(list[i].kept, i >= 4);
        if (i >= 4)
            OK(lk_checkpoint_load(world.store, &list[i].state, &s, &test_err));
        else {
            assert_false(lk_blob_exists(world.store->blobs, &list[i].state));
            assert_false(lk_blob_exists(world.store->blobs, &list[i].weights));
        }
    }
    lk_free(list);
    lk_state_release(&s);
    lk_run_close(&run);
    /* blobs that another run keeps are not pruned: the same run under another name, its older checkpoints dropped */
    c = test_config("twin-a", "run.steps=4 checkpoint.every=2 checkpoint.keep=0");
    lk_free(test_root_of(&world, &c));
    c = test_config("twin-b", "run.steps=4 checkpoint.every=1 checkpoint.keep=1");
    lk_free(test_root_of(&world, &c));
    OK(lk_run_checkpoints(world.store, "twin-a", &list, &count, &test_err));
    for (size_t i = 0; i < count; i++) assert_true(list[i].kept && lk_blob_exists(world.store->blobs, &list[i].weights));
    lk_free(list);
}

/* --- The best ------------------------------------------------------------------------------------------- */

struct evaluated {
    uint32_t best, count;
    double least;
};
static int see_eval(void *arg, const struct lk_eval_row *row) {
    struct evaluated *e = arg;
    if (!e->count++ || row->loss < e->least) {
        e->least = row->loss;
        e->best = row->step;
    }
    return 0;
}
static int find_best(const char *text, struct lk_model_ref *ref) {
    struct lk_model model;
    int code = lk_model_find(world.store, text, true, NULL, NULL, ref, &model, &test_err);
    if (!code) lk_model_close(&model);
    return code;
}
/* A rate that is too high: the held-out loss falls and rises again. */
static void the_best_is_kept_too(void **state) {
    (void)state;
    static const char *const shape =
        "run.steps=8 eval.every=1 checkpoint.every=1 checkpoint.keep=2 optimizer.learning_rate=10 optimizer.warmup=0 "
        "optimizer.schedule=constant optimizer.clip=0";
    char more[400];
    struct lk_run_config c = test_config("best", shape);
    char *root = test_root_of(&world, &c);
    struct evaluated e = {0};
    struct lk_checkpoint *list, best;
    struct lk_model_ref ref;
    size_t count;
    OK(lk_eval_list(world.store, "best", see_eval, &e, &test_err));
    assert_true(e.count == 8 && e.best < 7); /* else the test shows nothing */
    OK(lk_run_checkpoints(world.store, "best", &list, &count, &test_err));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(list[i].kept, list[i].step > 6 || list[i].step == e.best);
        assert_int_equal(lk_blob_exists(world.store->blobs, &list[i].weights), list[i].kept);
    }
    lk_free(list);
    OK(lk_run_best(world.store, "best", &best, &test_err));
    assert_int_equal(best.step, e.best);
    OK(find_best("best@best", &ref));
    assert_true(ref.step == e.best && lk_root_equal(&ref.state, &best.state));
    OK(find_best("run:best", &ref));
    assert_int_equal(ref.step, 8);
    FAIL_EACH_ALLOCATION(find_best("best@best", &ref));
    FAILS(find_best("model:best@best", &ref), LK_EINVAL, "number of a step, or best");

    snprintf(more, sizeof more, "%s checkpoint.best=no", shape);
    c = test_config("not-best", more);
    char *same = test_root_of(&world, &c);
    assert_string_equal(root, same);
    OK(lk_run_checkpoints(world.store, "not-best", &list, &count, &test_err));
    for (size_t i = 0; i < count; i++) assert_int_equal(list[i].kept, list[i].step > 6);
    lk_free(list);
    c = test_config("never-evaluated", "");
    lk_free(test_root_of(&world, &c));
    FAILS(find_best("never-evaluated@best", &ref), LK_ENOTFOUND, "no checkpoint of a step that was evaluated");
    lk_free(root);
    lk_free(same);
}

/* --- Damage ---------------------------------------------------------------------------------------------- */

static bool stop_after(void *arg) {
    return (*(int *)arg)-- <= 0;
}

static void flip(const struct lk_root *root, bool truncated) {
    char path[4096];
    struct lk_buf data = LK_BUF_INIT;
    lk_blob_path(world.store->blobs, root, path);
    OK(lk_file_read(path, 1 << 20, &data, &test_err));
    data.data[data.size / 2] ^= 4;
    chmod(path, 0644);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(data.data, 1, truncated ? data.size - 1 : data.size, f);
    fclose(f);
    lk_buf_release(&data);
}
static struct lk_root part_of(const struct lk_root *state, const char *part) {
    json_t *manifest;
    struct lk_root root;
    OK(lk_manifest_get(world.store, state, "checkpoint", &manifest, &test_err));
    assert_true(lk_root_parse(json_string_value(json_object_get(manifest, part)), &root));
    json_decref(manifest);
    return root;
}

static void a_damaged_checkpoint_gives_way_to_the_one_before(void **state) {
    (void)state;
    struct lk_run_config c = test_config("sound", "run.steps=6 run.seed=77");
    char *root = test_root_of(&world, &c), name[40], hex[LK_ROOT_HEX];
    OK(lk_run_remove(world.store, "sound", &test_err));
    static const char *const parts[] = {"manifest", "weights", "moments1", "moments2", "weights", "missing", "all"};
    for (int i = 0; i < 7; i++) {
        snprintf(name, sizeof name, "damage%d", i);
        c = test_config(name, "run.steps=6 run.seed=77");
        int left = 5; /* checkpoints of steps 2, 4 and 5; two are kept */
        FAILS(test_create_and_run(&world, &c, &(struct lk_train_hooks){.arg = &left, .stop = stop_after}), LK_ESTOPPED, "");
        struct lk_checkpoint *list;
        size_t count;
        OK(lk_run_checkpoints(world.store, name, &list, &count, &test_err));
        assert_true(count == 3 && list[2].step == 5 && list[1].kept);
        struct lk_root victim = i == 0 || i == 5 ? list[2].state : part_of(&list[2].state, i == 6 ? "weights" : parts[i]);
        if (i == 5)
            OK(lk_blob_delete(world.store->blobs, &victim, &test_err));
        else
            flip(&victim, i == 4);
        if (i == 6) flip(&list[1].state, false);
        struct heard h = {0};
        OK(test_resume_and_run(&world, name,
                               &(struct lk_train_hooks){.arg = &h, .resumed = on_resumed, .warning = on_warning}));
        assert_int_equal(h.resumed, i == 6 ? 0 : 4);
        assert_int_equal(h.warnings, i == 6 ? 2 : 1);
        if (!strstr(h.warning, "checkpoint of step 5 can't be used: ") || !strstr(h.warning, lk_root_hex(&victim, hex)))
            fail_msg("%s: the warning is \"%s\"", parts[i], h.warning);
        assert_record(&world, name, "state_root", root);
        lk_free(list);
        OK(lk_run_checkpoints(world.store, name, &list, &count,
                              &test_err)); /* the damaged one did not push the good one out */
        for (size_t j = 0; j < count; j++) assert_int_equal(list[j].kept, list[j].step == 6 || list[j].step == 4);
        struct lk_verify_result v;
        OK(lk_verify(world.store, world.math, name, 4, 6, NULL, NULL, &v, &test_err));
        assert_true(v.equal);
        lk_free(list);
        OK(lk_run_remove(world.store, name, &test_err));
    }
    lk_free(root);
}

/* --- The plan -------------------------------------------------------------------------------------------- */

static void too_little_memory_is_refused_with_the_keys(void **state) {
    (void)state;
    struct lk_run_config c = test_config(
        "large", "model.width=256 model.layers=4 model.heads=4 model.ffn=512 model.context=64 batch.sequences=8 "
                 "batch.grains=4");
    struct lk_trainer *t;
    setenv("LOCKSTEP_MEMORY_BYTES", "1000000", 1);
    c.micro_batch = 2; /* with grains: two buffers at least */
    FAILS(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err), LK_ENOMEM, "this run needs ");
    for (const char *const *part = (const char *const[]){"memory.micro_batch", "memory.recompute = true", "batch.grains",
                                                         "model.width", "are free", NULL};
         *part; part++)
        if (!strstr(test_err.message, *part)) fail_msg("\"%s\" does not say %s", test_err.message, *part);
    c.micro_batch = 1;
    c.recompute = true;
    FAILS(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err), LK_ENOMEM, "this run needs ");
    assert_null(strstr(test_err.message, "memory.recompute"));
    assert_null(strstr(test_err.message, "micro_batch"));
    unsetenv("LOCKSTEP_MEMORY_BYTES");
    json_t *record;
    FAILS(lk_run_get(world.store, "large", &record, &test_err), LK_ENOTFOUND, "large"); /* nothing was made */
}

static void a_long_step_is_timed_on_a_shorter_one(void **state) {
    (void)state;
    struct lk_run_config c = test_config("long", "model.width=64 model.heads=2 model.context=1000 batch.sequences=8192 "
                                                 "batch.grains=8 memory.micro_batch=1");
    struct lk_plan plan;
    double seconds;
    uint64_t began = lk_clock_ns();
    OK(lk_train_dry_run(world.store, world.math, NULL, &c, NULL, &plan, &seconds, &test_err));
    double took = (double)(lk_clock_ns() - began) * 1e-9;
    assert_true(plan.units == 8192 && plan.gradient_buffers == 4);
    if (took > seconds / 4) fail_msg("the dry run took %.1f s for a step of %.1f s", took, seconds);
}

static double dry_seconds(const char *name, const char *more) {
    struct lk_run_config c = test_config(name, more);
    struct lk_plan plan;
    double seconds;
    OK(lk_train_dry_run(world.store, world.math, NULL, &c, NULL, &plan, &seconds, &test_err));
    return seconds;
}
/* 2,000,000 positions of width 64 are 2 GB of weights, gradient and moments; a dry run makes 67 MB of them. */
static void many_positions_are_timed_on_few(void **state) {
    (void)state;
#define FEW "model.family=gpt2 model.width=64 model.ffn=64 batch.context=8 batch.sequences=1 batch.grains=1 model.context="
    double few = dry_seconds("few", FEW "66000"); /* as many as are measured */
    uint64_t before = lk_memory_peak_bytes();
    double many = dry_seconds("many", FEW "2000000");
    if (!LK_SANITIZED) assert_in_range(lk_memory_peak_bytes(), before, before + ((uint64_t)300 << 20));
    if (many < 5 * few) fail_msg("a step of 30 times the parameters takes %.4f s, not %.4f s", many, few);
}

static void less_memory_makes_smaller_pieces(void **state) {
    (void)state;
    struct lk_run_config c =
        test_config("pieces", "model.width=128 model.layers=6 model.heads=4 model.ffn=512 model.context=64 "
                              "batch.sequences=32 batch.grains=8");
    struct lk_plan whole, part;
    double seconds;
    OK(lk_train_dry_run(world.store, world.math, NULL, &c, NULL, &whole, &seconds, &test_err));
    assert_true(whole.micro_batch == 32 && whole.units == 1 && whole.gradient_buffers == 1 && seconds > 0);
    struct lk_layout l;
    OK(lk_run_config_resolve(&c, 280, &test_err));
    struct lk_model_config m = lk_run_config_model(&c);
    OK(lk_layout_init(&l, &m, &test_err));
    for (int share = 9; share >= 5; share--) {
        char bytes[32];
        snprintf(bytes, sizeof bytes, "%llu",
                 (unsigned long long)((whole.total_bytes - whole.process_bytes) / 10 * (uint64_t)share));
        setenv("LOCKSTEP_MEMORY_BYTES", bytes, 1);
        OK(lk_plan_make(&c, &l, world.math, NULL, &part, &test_err));
        assert_true(part.total_bytes <= part.available_bytes);
        assert_true(part.micro_batch < 32 || part.total_bytes <= part.available_bytes / 10 * 8);
    }
    unsetenv("LOCKSTEP_MEMORY_BYTES");
    lk_layout_release(&l);
}

struct promise {
    char *dir;
    int fd;
};
static struct lk_plan promised;
static void on_plan(void *arg, const struct lk_run_config *c, const struct lk_layout *l, const struct lk_plan *p) {
    (void)arg, (void)c, (void)l;
    promised = *p;
}
static void train_and_measure(void *arg) {
    struct promise *p = arg;
    struct test_world w = {.dir = p->dir};
    struct lk_run_config c = test_config(
        "measured", "run.steps=2 checkpoint.every=1 eval.every=2 eval.sequences=4 model.width=256 model.layers=4 "
                    "model.heads=4 model.ffn=704 model.context=128 batch.sequences=12 batch.grains=4 "
                    "memory.micro_batch=3");
    test_world_open(&w);
    if (test_create_and_run(&w, &c, &(struct lk_train_hooks){.plan = on_plan})) _exit(1);
    uint64_t numbers[2] = {promised.total_bytes, lk_memory_peak_bytes()};
    _exit(write(p->fd, numbers, sizeof numbers) == sizeof numbers ? 0 : 2);
}
static void the_plan_is_kept_within_five_percent(void **state) {
    (void)state;
    int fds[2];
    uint64_t numbers[2];
    assert_int_equal(pipe(fds), 0);
    test_world_close(&world);
    int status = test_fork(train_and_measure, &(struct promise){world.dir, fds[1]});
    test_world_open(&world);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(fds[0], numbers, sizeof numbers), sizeof numbers);
    close(fds[0]);
    close(fds[1]);
    double ratio = (double)numbers[1] / (double)numbers[0];
    print_message("planned %.1f MB, peak %.1f MB: %.3f\n", (double)numbers[0] * 1e-6, (double)numbers[1] * 1e-6, ratio);
    if (!LK_SANITIZED && !(ratio > 0.95 && ratio < 1.05)) fail_msg("the plan is %.1f%% off", (ratio - 1) * 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loaded_state_is_the_saved_one),
        cmocka_unit_test(only_as_many_are_kept),
        cmocka_unit_test(the_best_is_kept_too),
        cmocka_unit_test(a_damaged_checkpoint_gives_way_to_the_one_before),
        cmocka_unit_test(too_little_memory_is_refused_with_the_keys),
        cmocka_unit_test(a_long_step_is_timed_on_a_shorter_one),
        cmocka_unit_test(less_memory_makes_smaller_pieces),
        cmocka_unit_test(the_plan_is_kept_within_five_percent),
        cmocka_unit_test(many_positions_are_timed_on_few), /* the last: what the heap keeps is no part of a plan */
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
