/* Runs that begin with weights of models and of other runs: the same bits as going on, resumed, verified, kept from
 * pruning, and inherited. */
#include "testing.h"

static struct test_world world;

/* [model] is to be given by `from`; the rest as in test_config. */
static struct lk_run_config config(const char *name, const char *more) {
    return test_config_of("[run]\nsteps=3\nseed=5\n[data]\ndataset=text\n[batch]\nsequences=6\ngrains=3\n[optimizer]\n"
                          "learning_rate=0.01\nschedule=constant\nwarmup=0\n[eval]\nevery=0\n[checkpoint]\nevery=1\n",
                          name, more);
}
static struct lk_run_config parent(const char *name, const char *more) {
    char *all = lk_asprintf("optimizer.schedule=constant optimizer.warmup=0 checkpoint.keep=0 checkpoint.every=1 %s", more);
    struct lk_run_config c = test_config(name, all);
    lk_free(all);
    return c;
}

static void keep_goes_on_with_the_same_bits(void **state) {
    (void)state;
    static const char *const families[] = {"model.family=llama", "model.family=gpt2"};
    for (int i = 0; i < 2; i++) {
        char name[2][16];
        snprintf(name[0], 16, "whole%d", i);
        snprintf(name[1], 16, "rest%d", i);
        struct lk_run_config whole = parent(name[0], families[i]);
        char *more = lk_asprintf("model.from=%s@3 model.optimizer=keep batch.context=11", name[0]);
        struct lk_run_config rest = config(name[1], more);
        char *a = test_root_of(&world, &whole), *b = test_root_of(&world, &rest);
        assert_string_equal(a, b); /* weights, moments, counts: steps 4 to 6 are steps 1 to 3 of the other */
        assert_record(&world, name[1], "state", "finished");
        struct lk_verify_result v;
        OK(lk_verify(world.store, world.math, name[1], 0, 3, NULL, NULL, &v, &test_err));
        assert_true(v.equal && v.steps == 3 && v.roots_compared);
        lk_free(a);
        lk_free(b);
        lk_free(more);
    }
}

static void fresh_begins_with_the_weights_alone(void **state) {
    (void)state;
    struct lk_run_config whole = parent("source", ""), plain = config("plain", "model.from=source@2"),
                         other = config("other", "model.from=run:source");
    char *ignored = test_root_of(&world, &whole), *a = test_root_of(&world, &plain), *b = test_root_of(&world, &other);
    assert_string_not_equal(a, b);
    char *x = test_record_text(&world, "plain", "identity"), *y = test_record_text(&world, "other", "identity");
    assert_string_not_equal(x, y); /* the initial root enters it; the name does not */
    struct lk_run_config again = config("again", "model.from=source@2");
    char *c = test_root_of(&world, &again), *z = test_record_text(&world, "again", "identity");
    assert_string_equal(a, c);
    assert_string_equal(x, z);
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, "plain", 0, 3, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.steps == 3);
    struct lk_run run;
    OK(lk_run_open(world.store, "plain", &run, &test_err));
    assert_true(run.from == LK_FROM_WEIGHTS && run.config.width == 12 && run.config.context == 11 &&
                run.updates_before == 0);
    lk_run_close(&run);
    lk_free(ignored), lk_free(a), lk_free(b), lk_free(c), lk_free(x), lk_free(y), lk_free(z);
}

static bool stop_now(void *arg) {
    int *left = arg;
    return (*left)-- <= 0;
}
static void a_stopped_one_is_resumed(void **state) {
    (void)state;
    struct lk_run_config whole = parent("source2", "");
    lk_free(test_root_of(&world, &whole));
    struct lk_run_config one = config("straight", "model.from=source2@4 model.optimizer=keep"),
                         two = config("halting", "model.from=source2@4 model.optimizer=keep");
    char *a = test_root_of(&world, &one);
    for (int stops = 0; stops < 3; stops++) {
        int left = 1;
        struct lk_train_hooks hooks = {.arg = &left, .stop = stop_now};
        int code = stops ? test_resume_and_run(&world, "halting", &hooks) : test_create_and_run(&world, &two, &hooks);
        if (code != LK_ESTOPPED) OK(code);
    }
    char *b = test_record_text(&world, "halting", "state_root"), *run_state = test_record_text(&world, "halting", "state");
    if (strcmp(run_state, "finished")) {
        OK(test_resume_and_run(&world, "halting", NULL));
        lk_free(b);
        b = test_record_text(&world, "halting", "state_root");
    }
    assert_string_equal(a, b);
    lk_free(a), lk_free(b), lk_free(run_state);
}

static void what_is_begun_with_stays(void **state) {
    (void)state;
    struct lk_run_config whole = parent("pruned", "checkpoint.keep=1"), child = config("child", "model.from=pruned@2");
    int left = 2;
    struct lk_train_hooks hooks = {.arg = &left, .stop = stop_now};
    assert_int_equal(test_create_and_run(&world, &whole, &hooks), LK_ESTOPPED);
    left = 1;
    assert_int_equal(test_create_and_run(&world, &child, &hooks), LK_ESTOPPED); /* it needs step 2 until it has its own */
    struct lk_model_ref ref;
    struct lk_model m;
    struct lk_root root, weights;
    OK(lk_model_find(world.store, "pruned@2", true, NULL, NULL, &ref, &m, &test_err));
    weights = m.weights_root;
    OK(lk_manifest_put(world.store, m.manifest, &root, &test_err));
    OK(lk_store_name_put(world.store, "model", "pinned", &root, &test_err));
    lk_model_close(&m);
    OK(test_resume_and_run(&world, "pruned", NULL)); /* prunes step 2 */
    FAILS(lk_model_find(world.store, "pruned@2", false, NULL, NULL, &ref, &m, &test_err), LK_ENOTFOUND,
          "run pruned keeps no checkpoint of step 2; it has those of 6");
    OK(lk_model_find(world.store, "pinned", true, NULL, NULL, &ref, &m, &test_err));
    assert_true(!ref.is_run && lk_root_equal(&m.weights_root, &weights));
    lk_model_close(&m);
    OK(lk_run_remove(world.store, "pruned", &test_err));
    struct lk_verify_result v;
    OK(test_resume_and_run(&world, "child", NULL));
    OK(lk_verify(world.store, world.math, "child", 0, 3, NULL, NULL, &v, &test_err));
    assert_true(v.equal);
}

static void names_say_what_they_name(void **state) {
    (void)state;
    struct lk_model_ref ref;
    struct lk_model m;
    struct lk_root root;
    struct lk_run_config whole = parent("both", "");
    lk_free(test_root_of(&world, &whole));
    OK(lk_model_find(world.store, "both@5", false, NULL, NULL, &ref, &m, &test_err));
    assert_true(ref.is_run && ref.step == 5 && !m.weights);
    OK(lk_manifest_put(world.store, m.manifest, &root, &test_err));
    lk_model_close(&m);
    OK(lk_store_name_put(world.store, "model", "both", &root, &test_err));
    FAILS(lk_model_find(world.store, "both", false, NULL, NULL, &ref, &m, &test_err), LK_EINVAL, "run:both or model:both");
    OK(lk_model_find(world.store, "model:both", false, NULL, NULL, &ref, &m, &test_err));
    assert_false(ref.is_run);
    lk_model_close(&m);
    OK(lk_model_find(world.store, "run:both", false, NULL, NULL, &ref, &m, &test_err));
    assert_true(ref.is_run && ref.step == 6);
    lk_model_close(&m);
    FAILS(lk_model_find(world.store, "bot", false, NULL, NULL, &ref, &m, &test_err), LK_ENOTFOUND, "no run named");
    FAILS(lk_model_find(world.store, "both@", false, NULL, NULL, &ref, &m, &test_err), LK_EINVAL, "number of a step");
    FAILS(lk_model_find(world.store, "both@-1", false, NULL, NULL, &ref, &m, &test_err), LK_EINVAL, "number of a step");
    FAILS(lk_model_find(world.store, "model:both@1", false, NULL, NULL, &ref, &m, &test_err), LK_EINVAL,
          "number of a step");
    FAILS(lk_model_find(world.store, "both@7", false, NULL, NULL, &ref, &m, &test_err), LK_ENOTFOUND, "6, 5, 4");
    FAILS(lk_model_find(world.store, "../both", false, NULL, NULL, &ref, &m, &test_err), LK_EINVAL, "no name");
}

static void what_cannot_be_is_said(void **state) {
    (void)state;
    struct lk_ini ini;
    struct lk_run_config c;
    static const char text[] = "[run]\nname=x\n[data]\ndataset=text\n[model]\nfrom=source\nlayers=2\n";
    OK(lk_ini_parse(text, sizeof text - 1, "x.ini", &ini, &test_err));
    FAILS(lk_run_config_read(&ini, &c, &test_err), LK_EINVAL, "x.ini:7: model.layers is given by model.from");
    lk_ini_release(&ini);
    c = config("y", "model.from=model:both model.optimizer=keep");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EINVAL, "only runs have an optimizer's state");
    c = config("y", "model.from=source batch.context=12");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EINVAL, "batch.context = 12 is more than the model's context of 11");
    c = config("y", "model.from=nobody");
    FAILS(test_create_and_run(&world, &c, NULL), LK_ENOTFOUND, "model.from: ");
    c = test_config("y", "model.optimizer=keep");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EINVAL, "wants model.from");
}

static void shorter_sequences_are_a_batch_of_their_own(void **state) {
    (void)state;
    struct lk_run_config a = test_config("short", "batch.context=7"), b = test_config("long", "");
    char *x = test_root_of(&world, &a), *y = test_root_of(&world, &b);
    assert_string_not_equal(x, y);
    struct lk_run_config g = test_config("short2", "batch.context=7 model.family=gpt2");
    char *z = test_root_of(&world, &g); /* rows of positions beyond the seventh keep decaying, no more */
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, "short2", 0, 6, NULL, NULL, &v, &test_err));
    assert_true(v.equal);
    lk_free(x), lk_free(y), lk_free(z);
}

static int make(void **state) {
    (void)state;
    test_world_make(&world);
    return 0;
}
static int drop(void **state) {
    (void)state;
    test_world_drop(&world);
    return 0;
}
static struct lk_run_config child(const char *from, const char *more) {
    struct lk_ini ini = {0};
    struct lk_run_config c;
    char *copy = lk_strdup(more), *rest = NULL;
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        OK(lk_ini_override(&ini, word, &test_err));
    OK(lk_run_config_child(world.store, from, &ini, &c, NULL, &test_err));
    lk_ini_release(&ini);
    lk_free(copy);
    return c;
}
static int refused_child(const char *from, const char *key) {
    struct lk_ini ini = {0};
    struct lk_run_config c;
    if (*key) OK(lk_ini_override(&ini, key, &test_err));
    int code = lk_run_config_child(world.store, from, &ini, &c, NULL, &test_err);
    lk_ini_release(&ini);
    return code;
}
static bool changed_child(const char *from, const char *key) {
    struct lk_ini ini = {0};
    struct lk_run_config c;
    bool changed;
    OK(lk_ini_override(&ini, "run.name=other", &test_err)); /* a name changes nothing */
    if (*key) OK(lk_ini_override(&ini, key, &test_err));
    OK(lk_run_config_child(world.store, from, &ini, &c, &changed, &test_err));
    lk_ini_release(&ini);
    return changed;
}

/* Six steps at once, or four and a child's two: the same bits, and the identity of an INI with model.from. */
static void a_child_goes_on_to_the_same_root(void **state) {
    (void)state;
    json_t *record;
    struct lk_run_config whole = test_config("parent", "checkpoint.keep=0 optimizer.schedule=constant optimizer.warmup=0");
    char *root = test_root_of(&world, &whole);
    struct lk_run_config c = child("parent@4", "run.steps=2");
    assert_string_equal(c.name, "parent-2");
    assert_true(c.optimizer_from == LK_OPTIMIZER_KEEP && strcmp(c.from, "parent@4") == 0 && c.checkpoint_every == 2);
    char *mine = test_root_of(&world, &c);
    assert_string_equal(mine, root);
    OK(lk_run_get(world.store, "parent-2", &record, &test_err));
    assert_string_equal(json_string_value(json_object_get(record, "parent")), "parent@4");
    struct lk_run_config by_hand = test_config_of(
        "[run]\nsteps=2\nseed=5\n[data]\ndataset=text\n[model]\nfrom=parent@4\noptimizer=keep\n[batch]\nsequences=6\n"
        "grains=3\n[optimizer]\nlearning_rate=0.01\nschedule=constant\nwarmup=0\n",
        "by-hand", "");
    lk_free(test_root_of(&world, &by_hand));
    assert_record(&world, "by-hand", "identity", json_string_value(json_object_get(record, "identity")));
    json_decref(record);
    lk_free(mine);
    lk_free(root);
}

static void put_record(const char *run, const json_t *record) {
    struct lk_kv_txn *t;
    OK(lk_kv_begin(world.store->kv, true, &t, &test_err));
    OK(lk_record_put(t, "run", run, record, &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
}
/* A good value in place of another is no less damage: the run would go on as another one. */
static void a_record_that_changed_is_damaged(void **state) {
    (void)state;
    static const struct {
        const char *section, *key;
        json_int_t value;
    } changes[] = {{"optimizer", "warmup", 2}, {"run", "seed", 6}, {"batch", "grains", 6}};
    struct lk_run_config c = test_config("changed", "");
    struct lk_run run;
    lk_free(test_root_of(&world, &c));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        json_t *good, *bad;
        OK(lk_run_get(world.store, "changed", &good, &test_err));
        bad = json_deep_copy(good);
        json_object_set_new(json_object_get(json_object_get(bad, "config"), changes[i].section), changes[i].key,
                            json_integer(changes[i].value));
        put_record("changed", bad);
        FAILS(lk_run_open(world.store, "changed", &run, &test_err), LK_ECORRUPT,
              "run changed: the run's record has another");
        assert_int_equal(test_resume_and_run(&world, "changed", NULL), LK_ECORRUPT);
        put_record("changed", good);
        OK(lk_run_open(world.store, "changed", &run, &test_err));
        lk_run_close(&run);
        json_decref(bad);
        json_decref(good);
    }
}

static void a_child_follows_its_keys(void **state) {
    (void)state;
    struct lk_run_config c = child("parent-2", "run.steps=40 batch.sequences=8 optimizer.learning_rate=0.5");
    assert_string_equal(c.name, "parent-3"); /* not parent-2-2 */
    assert_string_equal(c.from, "run:parent-2");
    assert_true(c.learning_rate == 0.5 && c.steps == 40 && c.sequences == 8 && c.decay == UINT32_MAX);
    c = child("parent@0", "run.name=wsd optimizer.schedule=wsd");
    lk_free(test_root_of(&world, &c));
    json_t *record;
    OK(lk_run_get(world.store, "wsd", &record, &test_err));
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(json_object_get(record, "config"), "optimizer"), "cooldown")),
        1);
    json_decref(record);
    c = child("wsd", "run.steps=50");
    assert_true(c.cooldown == 0 && c.decay == UINT32_MAX); /* as by default: to be filled in */
    c = child("wsd@0", "run.name=wsd-3 optimizer.cooldown=3");
    lk_free(test_root_of(&world, &c));
    assert_int_equal(child("wsd-3", "run.steps=50").cooldown, 3);
    assert_int_equal(child("wsd-3", "optimizer.schedule=linear").cooldown, 0); /* the parent's goes with its schedule */
    assert_int_equal(child("wsd-3", "optimizer.schedule=linear optimizer.cooldown=2").cooldown, 2); /* resolve refuses it */
    c = child("parent@0", "model.width=16 model.optimizer=fresh run.name=anew");
    assert_true(!c.from[0] && c.width == 16 && c.layers == 2 && strcmp(c.name, "anew") == 0);
    lk_free(test_root_of(&world, &c));
    c = child("parent@best", "model.optimizer=fresh");
    assert_int_equal(c.optimizer_from, LK_OPTIMIZER_FRESH);
    FAILS(refused_child("parent", "model.layers=3"), LK_EINVAL,
          "on the command line: model.layers is given by the weights");
    FAILS(refused_child("parent", "model.from=x"), LK_EINVAL, "model.from is what --from parent says");
    FAILS(refused_child("parent", "optimizer.lr=1"), LK_EINVAL, "is called optimizer.learning_rate here");
    FAILS(refused_child("parnt", ""), LK_ENOTFOUND, "--from: ");
    FAILS(refused_child("a/b", ""), LK_EINVAL, "neither RUN nor RUN@STEP");
    static const char *const same[] = {"", "run.steps=6", "optimizer.decay=6", "optimizer.learning_rate=1e-2",
                                       "data.dataset=text"};
    static const char *const other[] = {"run.steps=7", "optimizer.decay=5", "model.optimizer=fresh", "data.dataset=talk",
                                        "eval.every=1"};
    for (int i = 0; i < 5; i++) {
        assert_false(changed_child("parent", same[i]));
        assert_false(changed_child("parent@0", same[i]));
        assert_true(changed_child("parent@4", other[i]));
    }
    c = child("parent@3", "");
    FAILS(test_create_and_run(&world, &c, NULL), LK_ENOTFOUND, "keeps no checkpoint of step 3");
}

/* CHILD@0 needs nothing of the parent but what the child keeps. */
static void a_child_begins_anew_without_its_parent(void **state) {
    (void)state;
    struct lk_run_config first = test_config("gone", "checkpoint.keep=0"), c, again;
    struct lk_model_ref ref;
    struct lk_model m;
    lk_free(test_root_of(&world, &first));
    static const char *const keys[] = {"run.name=kept run.steps=2", "run.name=fresh run.steps=2 model.optimizer=fresh"};
    for (int i = 0; i < 2; i++) {
        c = child("gone@4", keys[i]);
        lk_free(test_root_of(&world, &c));
    }
    OK(lk_run_remove(world.store, "gone", &test_err));
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "fresh" : "kept", *next = i ? "fresh-2" : "kept-2", *from = i ? "fresh@0" : "kept@0";
        again = child(from, "");
        char *root = test_record_text(&world, name, "state_root"), *mine = test_root_of(&world, &again);
        char *identity = test_record_text(&world, name, "identity");
        assert_string_equal(mine, root);
        assert_record(&world, next, "identity", identity);
        assert_record(&world, next, "parent", from);
        OK(lk_model_find(world.store, from, true, NULL, NULL, &ref, &m, &test_err)); /* a name like any other */
        assert_true(ref.is_run && ref.step == 0);
        lk_model_close(&m);
        lk_free(identity);
        lk_free(mine);
        lk_free(root);
    }
    again = child("kept-2@0", "run.name=third"); /* and so on */
    lk_free(test_root_of(&world, &again));
    again = child("fresh@0", "model.optimizer=keep run.name=fourth");
    FAILS(test_create_and_run(&world, &again, NULL), LK_EINVAL, "began with weights and no optimizer's state");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_goes_on_with_the_same_bits),
        cmocka_unit_test(fresh_begins_with_the_weights_alone),
        cmocka_unit_test(a_stopped_one_is_resumed),
        cmocka_unit_test(what_is_begun_with_stays),
        cmocka_unit_test(names_say_what_they_name),
        cmocka_unit_test(what_cannot_be_is_said),
        cmocka_unit_test(shorter_sequences_are_a_batch_of_their_own),
        cmocka_unit_test(a_child_goes_on_to_the_same_root),
        cmocka_unit_test(a_record_that_changed_is_damaged),
        cmocka_unit_test(a_child_follows_its_keys),
        cmocka_unit_test(a_child_begins_anew_without_its_parent),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
