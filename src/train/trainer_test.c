/* Whole runs: one root however they are cut; failures name what failed and keep the state; locks; verification; evaluation.
 */
#include "train/evaluate.h"
#include "train/ledger.h"
#include "train/testing.h"
#include <signal.h>

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

static void micro_batches_and_recomputing_change_no_root(void **state) {
    (void)state;
    struct lk_run_config c = test_config("straight", "");
    char *root = test_root_of(&world, &c), more[200], name[40];
    for (int i = 1; i <= 7; i++)
        for (int recompute = 0; recompute < 2; recompute++) {
            snprintf(more, sizeof more, "memory.micro_batch=%d memory.recompute=%s", i, recompute ? "true" : "false");
            snprintf(name, sizeof name, "micro%d-%d", i, recompute);
            c = test_config(name, more);
            char *other = test_root_of(&world, &c);
            assert_string_equal(other, root);
            lk_free(other);
        }
    /* negative controls: what is identity does change it */
    static const char *const others[] = {"run.seed=6", "batch.grains=2", "optimizer.clip=0.01", "model.rope_theta=100"};
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "control%d", i);
        c = test_config(name, others[i]);
        char *other = test_root_of(&world, &c);
        assert_string_not_equal(other, root);
        lk_free(other);
    }
    lk_free(root);
}

static bool stop_after(void *arg) {
    return (*(int *)arg)-- <= 0;
}

static void a_stopped_run_goes_on_to_the_same_root(void **state) {
    (void)state;
    struct lk_run_config c = test_config("whole", "model.family=gpt2");
    char *root = test_root_of(&world, &c);
    c = test_config("cut", "model.family=gpt2 memory.micro_batch=1");
    int left = 1;
    struct lk_train_hooks hooks = {.arg = &left, .stop = stop_after};
    FAILS(test_create_and_run(&world, &c, &hooks), LK_ESTOPPED, "stopped after step 1");
    assert_record(&world, "cut", "state", "stopped");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EEXISTS, "--resume cut");
    left = 2;
    FAILS(test_resume_and_run(&world, "cut", &hooks), LK_ESTOPPED, "stopped after step 3");
    left = 0;
    FAILS(test_resume_and_run(&world, "cut", &hooks), LK_ESTOPPED, "stopped after step 3");
    OK(test_resume_and_run(&world, "cut", NULL));
    assert_record(&world, "cut", "state_root", root);
    FAILS(test_resume_and_run(&world, "cut", NULL), LK_EEXISTS, "finished");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EEXISTS, "is finished: give this one another run.name");
    FAILS(test_resume_and_run(&world, "nobody", NULL), LK_ENOTFOUND, "nobody");
    lk_free(root);
}

/* --- Locks ----------------------------------------------------------------------------------------------- */

static void die_in_mid_run(void *arg) {
    struct test_world w = {.dir = arg};
    struct lk_run_config c = test_config("killed", "run.steps=50");
    struct lk_trainer *t;
    test_world_open(&w);
    if (lk_trainer_create(w.store, w.math, NULL, &c, NULL, &t, &test_err)) _exit(1);
    kill(getpid(), SIGKILL);
}
static void one_trainer_a_run_and_the_dead_do_not_count(void **state) {
    (void)state;
    struct lk_run_config c = test_config("busy", "");
    struct lk_trainer *t, *second;
    char pid[40];
    OK(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err));
    snprintf(pid, sizeof pid, "by process %ld", (long)getpid());
    FAILS(lk_trainer_resume(world.store, world.math, NULL, "busy", NULL, &second, &test_err), LK_EBUSY, pid);
    FAILS(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &second, &test_err), LK_EEXISTS,
          "run busy exists already");
    FAILS(lk_run_remove(world.store, "busy", &test_err), LK_EBUSY, "busy");
    assert_record(&world, "busy", "state", "running");
    lk_trainer_free(t);
    assert_record(&world, "busy", "state", "killed"); /* its process left it without a word */
    OK(lk_run_remove(world.store, "busy", &test_err));
    FAILS(lk_trainer_resume(world.store, world.math, NULL, "busy", NULL, &second, &test_err), LK_ENOTFOUND, "busy");
    test_world_close(&world);
    int status = test_fork(die_in_mid_run, world.dir);
    test_world_open(&world);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_record(&world, "killed", "state", "killed");
    OK(lk_trainer_resume(world.store, world.math, NULL, "killed", NULL, &t, &test_err));
    assert_record(&world, "killed", "state", "running");
    lk_trainer_free(t);
}

/* --- Numbers that are not -------------------------------------------------------------------------------- */

struct poison {
    struct lk_trainer *trainer;
    uint32_t step;
    float value;
};
static void poison_embedding(void *arg, const struct lk_ledger_row *row, uint32_t steps) {
    struct poison *p = arg;
    (void)steps;
    if (row->step != p->step) return;
    const struct lk_state *s = lk_trainer_state(p->trainer);
    for (uint32_t i = 0; i < s->layout->config.width; i++)
        s->weights[s->layout->tensors[s->layout->embedding].offset + 'w' * 12 + i] = p->value;
}

static void infinite_weights_are_named(void **state) {
    (void)state;
    struct lk_run_config c = test_config("poisoned", "run.steps=9");
    struct poison p = {.step = 4, .value = __builtin_inff()};
    struct lk_train_hooks hooks = {.arg = &p, .step = poison_embedding};
    OK(lk_trainer_create(world.store, world.math, NULL, &c, &hooks, &p.trainer, &test_err));
    FAILS(lk_trainer_run(p.trainer, &test_err), LK_ENAN, "step 5: the loss is not finite");
    assert_non_null(strstr(test_err.message, "model.embed_tokens.weight"));
    assert_non_null(strstr(test_err.message, "document 0 (text.txt"));
    assert_int_equal(lk_trainer_state(p.trainer)->updates, 4); /* the step was not taken */
    lk_trainer_free(p.trainer);
    assert_record(&world, "poisoned", "state", "failed");
    char *message = test_record_text(&world, "poisoned", "error");
    assert_non_null(strstr(message, "step 5: the loss is not finite"));
    lk_free(message);
}

static void a_huge_rate_stops_the_run(void **state) {
    (void)state;
    struct lk_run_config c = test_config(
        "exploded", "run.steps=400 model.init_std=10 optimizer.learning_rate=1000 optimizer.clip=0 "
                    "optimizer.schedule=constant optimizer.warmup=0 checkpoint.every=0 optimizer.weight_decay=1000");
    struct lk_trainer *t;
    OK(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err));
    FAILS(lk_trainer_run(t, &test_err), LK_ENAN, "is not finite (first bad gradient: ");
    unsigned step = 0;
    assert_int_equal(sscanf(test_err.message, "step %u", &step), 1);
    assert_int_equal(lk_trainer_state(t)->updates, step - 1);
    assert_non_null(strstr(test_err.message, "lower optimizer.learning_rate"));
    struct lk_state kept;
    struct lk_checkpoint *list;
    size_t count;
    OK(lk_run_checkpoints(world.store, "exploded", &list, &count,
                          &test_err)); /* the state before the step is in the store */
    assert_true(count == 1 && list[0].step == step - 1 && list[0].kept);
    OK(lk_state_init(&kept, &lk_trainer_about(t)->layout, true, &test_err));
    OK(lk_checkpoint_load(world.store, &list[0].state, &kept, &test_err));
    assert_memory_equal(kept.weights, lk_trainer_state(t)->weights, kept.layout->floats * 4);
    lk_state_release(&kept);
    lk_free(list);
    lk_trainer_free(t);
    assert_record(&world, "exploded", "state", "failed");
    FAILS(test_resume_and_run(&world, "exploded", NULL), LK_ENAN, "is not finite"); /* and again, as it is deterministic */
    /* The state before the step may be rotten: it pushes no older checkpoint out, and a new run begins at one. */
    assert_true(step > 3);
    char more[500];
    snprintf(more, sizeof more,
             "run.steps=400 model.init_std=10 optimizer.learning_rate=1000 optimizer.clip=0 optimizer.schedule=constant "
             "optimizer.warmup=0 optimizer.weight_decay=1000 checkpoint.keep=1 checkpoint.every=%u",
             step - 2);
    c = test_config("exploded-late", more);
    FAILS(test_create_and_run(&world, &c, NULL), LK_ENAN, "lockstep train --from exploded-late@STEP");
    OK(lk_run_checkpoints(world.store, "exploded-late", &list, &count, &test_err));
    assert_true(count == 2 && list[0].kept && list[0].step == step - 2 && list[1].kept && list[1].step == step - 1);
    lk_free(list);
    snprintf(more, sizeof more, "model.from=exploded-late@%u", step - 2);
    c = test_config_of("[run]\nsteps=1\n[data]\ndataset=text\n[eval]\nevery=0\n[optimizer]\nwarmup=0\n"
                       "learning_rate=1e-9\n",
                       "exploded-on", more);
    OK(test_create_and_run(&world, &c, NULL));
}

static void what_cannot_be_trained_is_refused(void **state) {
    (void)state;
    struct lk_run_config c = test_config("too-long", "model.context=100000");
    FAILS(test_create_and_run(&world, &c, NULL), LK_EINVAL, "too few for one sequence of 100000 positions");
    c = test_config("no-data", "data.dataset=texd");
    FAILS(test_create_and_run(&world, &c, NULL), LK_ENOTFOUND, "text");
}

/* --- Verification ---------------------------------------------------------------------------------------- */

static void change_row(const char *run, char letter, uint32_t step, size_t byte) {
    char key[LK_KV_KEY_MAX], copy[128];
    struct lk_bytes value, k = lk_bytes(key, lk__train_step_key(key, letter, run, step));
    struct lk_kv_txn *t;
    OK(lk_kv_begin(world.store->kv, true, &t, &test_err));
    OK(lk_kv_get(t, k, &value, &test_err));
    assert_true(value.size <= sizeof copy && byte < value.size);
    memcpy(copy, value.data, value.size);
    copy[byte] ^= 1;
    OK(lk_kv_put(t, k, lk_bytes(copy, value.size), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
}
static struct lk_verify_result verify(const char *run, uint32_t from, uint32_t to) {
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, run, from, to, NULL, NULL, &v, &test_err));
    return v;
}
struct steps_seen {
    uint32_t steps, empty;
    char warning[900];
};
static void see_step(void *arg, const struct lk_ledger_row *row, uint32_t steps) {
    struct steps_seen *s = arg;
    static const double none;
    (void)steps;
    assert_int_equal(row->step, s->steps + 1);
    assert_true(row->tokens || (!memcmp(&row->loss, &none, 8) && !memcmp(&row->gradient_norm, &none, 8)));
    s->steps++;
    s->empty += row->tokens == 0;
}
static void see_warning(void *arg, const char *message) {
    snprintf(((struct steps_seen *)arg)->warning, sizeof((struct steps_seen *)0)->warning, "%s", message);
}
static bool stop_at_seven(void *arg) {
    return ((struct steps_seen *)arg)->steps == 7;
}

/* Most batches are prompts only. Such steps make no update, count no update and take their samples; a run is killed in
 * their midst, resumed, verified and gone on from. */
static void a_step_without_targets_makes_no_update(void **state) {
    (void)state;
    static const char *const shape =
        "data.dataset=talk batch.sequences=2 batch.grains=2 model.context=8 run.steps=20 checkpoint.keep=0";
    char more[300];
    struct steps_seen s = {0};
    struct lk_train_hooks h = {.arg = &s, .step = see_step, .warning = see_warning};
    struct lk_run_config c = test_config("masked", shape);
    OK(test_create_and_run(&world, &c, &h));
    assert_true(s.steps == 20 && s.empty >= 5 && s.empty <= 15);
    assert_non_null(strstr(s.warning, "training sequences of 8 positions all targets are masked, first in document"));
    assert_non_null(strstr(s.warning, "talk.jsonl line"));
    char *root = test_record_text(&world, "masked", "state_root");
    struct lk_verify_result v = verify("masked", 0, 20);
    assert_true(v.equal && v.steps == 20 && v.roots_compared);
    v = verify("masked", 5, 9); /* begins at the checkpoint of step 4, whose updates are fewer than its steps */
    assert_true(v.equal && v.from == 4);

    struct lk_checkpoint *list;
    size_t count;
    struct lk_run run;
    struct lk_state back;
    OK(lk_run_open(world.store, "masked", &run, &test_err));
    OK(lk_run_checkpoints(world.store, "masked", &list, &count, &test_err));
    OK(lk_state_init(&back, &run.layout, true, &test_err));
    OK(lk_checkpoint_load(world.store, &list[count - 1].state, &back, &test_err));
    assert_true(back.updates == 20 - s.empty && back.samples == 40);
    lk_state_release(&back);
    lk_free(list);
    lk_run_close(&run);

    struct steps_seen again = {0};
    h = (struct lk_train_hooks){.arg = &again, .step = see_step, .stop = stop_at_seven};
    snprintf(more, sizeof more, "%s memory.micro_batch=1", shape);
    c = test_config("masked-stopped", more);
    FAILS(test_create_and_run(&world, &c, &h), LK_ESTOPPED, "stopped after step 7");
    h.stop = NULL;
    OK(test_resume_and_run(&world, "masked-stopped", &h));
    assert_record(&world, "masked-stopped", "state_root", root);
    lk_free(root);

    /* Gone on from with its optimizer: the new run counts its own steps. */
    c = test_config_of("[run]\nsteps=4\n[data]\ndataset=talk\n[model]\nfrom=masked\noptimizer=keep\n[batch]\nsequences=3\n"
                       "grains=1\n[eval]\nevery=0\n[checkpoint]\nevery=2\n",
                       "masked-on", "");
    again = (struct steps_seen){0};
    h = (struct lk_train_hooks){.arg = &again, .step = see_step};
    OK(test_create_and_run(&world, &c, &h));
    v = verify("masked-on", 0, 4);
    assert_true(again.steps == 4 && v.equal && v.roots_compared);
}

static void verification_finds_a_changed_bit(void **state) {
    (void)state;
    struct lk_run_config c = test_config("verified", "run.steps=8 checkpoint.keep=0");
    lk_free(test_root_of(&world, &c));
    struct lk_verify_result v = verify("verified", 0, 8);
    assert_true(v.equal && v.from == 0 && v.steps == 8 && v.roots_compared);
    v = verify("verified", 5, 7); /* begins at the checkpoint of step 4 */
    assert_true(v.equal && v.from == 4 && v.steps == 3 && v.roots_compared);
    v = verify("verified", 6, 7);
    assert_true(v.equal && v.from == 6 && v.steps == 1 && !v.roots_compared);
    FAILS(lk_verify(world.store, world.math, "verified", 3, 9, NULL, NULL, &v, &test_err), LK_EINVAL, "0..8");
    FAILS(lk_verify(world.store, world.math, "verified", 3, 3, NULL, NULL, &v, &test_err), LK_EINVAL, "3..3");
    static const struct {
        char letter;
        uint32_t step;
        size_t byte;
        const char *what;
    } changes[] = {{'l', 5, 8, "loss"},    {'l', 3, 16, "gradient norm"}, {'l', 7, 24, "learning rate"},
                   {'l', 2, 32, "tokens"}, {'c', 6, 40, "weights root"},  {'c', 4, 3, "state root"}};
    for (size_t i = 0; i < 6; i++) {
        change_row("verified", changes[i].letter, changes[i].step, changes[i].byte);
        v = verify("verified", 0, 8);
        assert_false(v.equal);
        assert_int_equal(v.first_difference, changes[i].step);
        assert_int_equal(v.steps, changes[i].step - 1);
        if (!strstr(v.what, changes[i].what)) fail_msg("\"%s\" does not say \"%s\"", v.what, changes[i].what);
        change_row("verified", changes[i].letter, changes[i].step, changes[i].byte);
    }
    assert_true(verify("verified", 0, 8).equal);
    c = test_config("short", "run.steps=8");
    int left = 3;
    struct lk_train_hooks hooks = {.arg = &left, .stop = stop_after};
    FAILS(test_create_and_run(&world, &c, &hooks), LK_ESTOPPED, "");
    FAILS(lk_verify(world.store, world.math, "short", 0, 5, NULL, NULL, &v, &test_err), LK_ENOTFOUND,
          "no ledger row of step 4");
}

/* A resumed run whose ledger disagrees stops and says so. */
static void a_step_that_differs_stops_the_run(void **state) {
    (void)state;
    struct lk_run_config c = test_config("diverged", "run.steps=8 checkpoint.every=0");
    int left = 5;
    struct lk_train_hooks hooks = {.arg = &left, .stop = stop_after};
    FAILS(test_create_and_run(&world, &c, &hooks), LK_ESTOPPED, "");
    struct lk_kv_txn *t; /* the checkpoint goes: steps 1 to 5 have to be done again */
    char key[LK_KV_KEY_MAX];
    OK(lk_kv_begin(world.store->kv, true, &t, &test_err));
    OK(lk_kv_delete(t, lk_bytes(key, lk__train_step_key(key, 'c', "diverged", 5)), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    change_row("diverged", 'l', 3, 8);
    FAILS(test_resume_and_run(&world, "diverged", NULL), LK_EDIVERGED,
          "step 3 executed again differs from its ledger: loss");
    assert_record(&world, "diverged", "state", "failed");
    change_row("diverged", 'l', 3, 8);
    OK(test_resume_and_run(&world, "diverged", NULL));
}

/* --- Evaluation ------------------------------------------------------------------------------------------ */

static void evaluation_does_not_see_its_batch(void **state) {
    (void)state;
    struct lk_run_config c = test_config("evaluated", "eval.every=3");
    lk_free(test_root_of(&world, &c));
    struct lk_run run;
    struct lk_state s;
    struct lk_dataset *d;
    struct lk_checkpoint *list;
    size_t count;
    OK(lk_run_open(world.store, "evaluated", &run, &test_err));
    OK(lk_dataset_open(world.store, &run.dataset, false, &d, &test_err));
    OK(lk_state_init(&s, &run.layout, false, &test_err));
    OK(lk_run_checkpoints(world.store, "evaluated", &list, &count, &test_err));
    OK(lk_checkpoint_load(world.store, &list[count - 1].state, &s, &test_err));
    struct lk_eval_row whole, row;
    OK(lk_evaluate(world.math, &run.layout, s.weights, d, 11, true, 0, LK_F32, &whole, NULL, &test_err));
    assert_int_equal(whole.targets, lk_dataset_tokens(d, LK_HELD_OUT) - 1); /* every token but the first, once */
    assert_int_equal(whole.bytes, lk_dataset_bytes(d, LK_HELD_OUT));
    for (uint32_t at_once = 1; at_once <= 9; at_once += 2) {
        struct lk__train_evaluation e = {.at_once = at_once,
                                         .layout = &run.layout,
                                         .math = world.math,
                                         .weights = s.weights,
                                         .dataset = d,
                                         .context = 11,
                                         .cross_documents = true};
        OK(lk_comm_open_self(&e.comm, &test_err));
        OK(lk_decoder_create(&run.layout, world.math, at_once, 11, LK_TRAINING, &e.decoder, &test_err));
        OK(lk__train_evaluate(&e, 0, &row, &test_err));
        assert_true(row.loss == whole.loss && row.targets == whole.targets && row.bytes == whole.bytes);
        lk_decoder_free(e.decoder);
        lk_comm_close(e.comm);
    }
    OK(lk_evaluate(world.math, &run.layout, s.weights, d, 11, true, 2, LK_F32, &row, NULL, &test_err));
    assert_true(row.targets == 22 && row.bytes > 0 && row.bytes < whole.bytes && row.loss != whole.loss);
    char text[64];
    char *recorded = test_record_text(&world, "evaluated", "eval_loss");
    json_t *j = lk_json_float(whole.loss);
    snprintf(text, sizeof text, "%s", json_string_value(j));
    assert_string_equal(recorded, text);
    json_decref(j);
    lk_free(recorded);
    lk_free(list);
    lk_state_release(&s);
    lk_dataset_close(d);
    lk_run_close(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(micro_batches_and_recomputing_change_no_root),
        cmocka_unit_test(a_stopped_run_goes_on_to_the_same_root),
        cmocka_unit_test(one_trainer_a_run_and_the_dead_do_not_count),
        cmocka_unit_test(infinite_weights_are_named),
        cmocka_unit_test(a_huge_rate_stops_the_run),
        cmocka_unit_test(a_step_without_targets_makes_no_update),
        cmocka_unit_test(what_cannot_be_trained_is_refused),
        cmocka_unit_test(verification_finds_a_changed_bit),
        cmocka_unit_test(a_step_that_differs_stops_the_run),
        cmocka_unit_test(evaluation_does_not_see_its_batch),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
