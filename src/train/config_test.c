/* Keys of a run: defaults, ranges, suggestions, JSON there and back, what enters the identity, the schedule. */
#include "lockstep/train/train.h"
#include "model/testing.h"
#include <math.h>

static int read_text(const char *text, struct lk_run_config *out) {
    struct lk_ini ini;
    OK(lk_ini_parse(text, strlen(text), "examples/some.ini", &ini, &test_err));
    int code = lk_run_config_read(&ini, out, &test_err);
    lk_ini_release(&ini);
    return code;
}
static struct lk_run_config good(void) {
    struct lk_run_config c;
    OK(read_text("[data]\ndataset = d\n", &c));
    return c;
}
/* Reads "[section] key = value" beside the required dataset. */
static int read_one(const char *section, const char *key, const char *value, struct lk_run_config *out) {
    char text[2048];
    bool data = strcmp(section, "data") == 0;
    snprintf(text, sizeof text, "[data]\n%s%s = %s\n[%s]\n%s", data ? key : "dataset", "", data ? value : "d",
             data ? "run" : section, data ? "" : key);
    if (!data) snprintf(text + strlen(text), sizeof text - strlen(text), " = %s\n", value);
    return read_text(text, out);
}

static void each_default_is_what_the_table_says(void **state) {
    (void)state;
    struct lk_run_config c = good();
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    for (size_t i = 0; i < count; i++) {
        const char *field = (const char *)&c + o[i].offset;
        if (!*o[i].fallback) continue;
        switch (o[i].type) {
        case LK_O_U32:
            assert_true(*(const uint32_t *)field == strtod(o[i].fallback, NULL));
            break;
        case LK_O_U64:
            assert_true(*(const uint64_t *)field == strtod(o[i].fallback, NULL));
            break;
        case LK_O_F64:
            assert_true(*(const double *)field == strtod(o[i].fallback, NULL));
            break;
        case LK_O_BOOL:
            assert_true(*(const bool *)field == (strcmp(o[i].fallback, "true") == 0));
            break;
        case LK_O_ENUM:
            assert_int_equal(*(const uint32_t *)field, 0);
            break;
        default:
            assert_string_equal(field, o[i].fallback);
        }
        assert_true(strlen(o[i].help) > 5);
    }
    assert_string_equal(c.name, "some"); /* the file's name */
}

static void derived_defaults_are_filled_in(void **state) {
    (void)state;
    struct lk_run_config c = good();
    OK(lk_run_config_resolve(&c, 4096, &test_err));
    assert_true(c.heads == 6 && c.kv_heads == 6 && c.head_dim == 64 && c.ffn == 1024 && c.vocab == 4096);
    assert_true(c.grains == 8 && c.warmup == 50 && c.decay == 1000 && c.eval_every == 100 && c.checkpoint_every == 100);
    c = good();
    c.family = LK_GPT2, c.width = 96, c.sequences = 12, c.steps = 7;
    OK(lk_run_config_resolve(&c, 300, &test_err));
    assert_true(c.heads == 1 && c.ffn == 384 && c.grains == 4 && c.warmup == 0 && c.eval_every == 7 &&
                c.checkpoint_every == 7);
    c = good();
    c.grains = 5;
    FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, "batch.grains = 5 must divide batch.sequences = 16");
    c = good();
    c.sequences = 16777216, c.context = 256;
    FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, "more than 4294967295 tokens");
    c = good();
    c.warmup = c.steps + 1;
    FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, "would never reach optimizer.learning_rate");
    c = good();
    c.warmup = c.steps; /* reaches it in the last step */
    OK(lk_run_config_resolve(&c, 300, &test_err));
    c = good();
    c.vocab = 299;
    FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, "model.vocab = 299 is smaller than the tokenizer's 300");
    c = good();
    c.heads = 7;
    FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, "heads");
    c = good();
    OK(read_text("[data]\ndataset=d\n[eval]\nevery=0\n[checkpoint]\nevery=0\n[optimizer]\nwarmup=0\ndecay=400\n", &c));
    OK(lk_run_config_resolve(&c, 300, &test_err));
    assert_true(c.eval_every == 0 && c.checkpoint_every == 0 && c.warmup == 0 && c.decay == 400);
}

static void a_cooldown_belongs_to_wsd(void **state) {
    (void)state;
    struct lk_run_config c;
    static const struct {
        const char *keys;
        uint32_t cooldown;
    } given[] = {
        {"schedule=wsd\n", 200},
        {"schedule=wsd\ndecay=109\n", 21},
        {"schedule=wsd\nwarmup=0\ndecay=9\n", 1},
        {"schedule=wsd\nwarmup=0\ndecay=1\n", 1},
        {"schedule=wsd\ncooldown=0\n", 200},
        {"schedule=wsd\ncooldown=950\n", 950},
        {"schedule=wsd\nwarmup=0\ncooldown=1000\n", 1000},
        {"schedule=cosine\n", 0},
        {"schedule=linear\ncooldown=0\n", 0},
        {"schedule=constant\n", 0},
    };
    static const struct {
        const char *keys, *answer;
    } refused[] = {
        {"schedule=wsd\ncooldown=951\n", "optimizer.warmup = 50 and optimizer.cooldown = 951 are more than the 1000 steps"},
        {"schedule=wsd\nwarmup=1000\n", "optimizer.cooldown = 200 are more"},
        {"schedule=wsd\nwarmup=10\ndecay=10\n", "give a shorter warmup or cooldown, or a later decay"},
        {"schedule=wsd\nwarmup=1\ncooldown=2147483647\n", "optimizer.cooldown = 2147483647 are more"},
        {"schedule=linear\ncooldown=7\n", "optimizer.cooldown = 7 is a key of optimizer.schedule = wsd alone"},
        {"cooldown=7\n", "choose that schedule, or leave the cooldown out"},
    };
    for (size_t i = 0; i < sizeof given / sizeof *given + sizeof refused / sizeof *refused; i++) {
        bool good_one = i < sizeof given / sizeof *given;
        size_t j = good_one ? i : i - sizeof given / sizeof *given;
        char text[128];
        snprintf(text, sizeof text, "[data]\ndataset=d\n[optimizer]\n%s", good_one ? given[j].keys : refused[j].keys);
        OK(read_text(text, &c));
        if (!good_one) FAILS(lk_run_config_resolve(&c, 300, &test_err), LK_EINVAL, refused[j].answer);
        if (!good_one) continue;
        OK(lk_run_config_resolve(&c, 300, &test_err));
        assert_int_equal(c.cooldown, given[j].cooldown);
    }
}

static void values_out_of_range_name_the_key(void **state) {
    (void)state;
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    struct lk_run_config c;
    for (size_t i = 0; i < count; i++) {
        char name[64], value[64];
        snprintf(name, sizeof name, "%s.%s", o[i].section, o[i].key);
        if (o[i].type <= LK_O_F64) {
            snprintf(value, sizeof value, "%.17g", o[i].high * 2 + 1);
            FAILS(read_one(o[i].section, o[i].key, value, &c), LK_EINVAL, name);
            snprintf(value, sizeof value, "%.17g", o[i].low - 1);
            FAILS(read_one(o[i].section, o[i].key, value, &c), LK_EINVAL, name);
            FAILS(read_one(o[i].section, o[i].key, "12x", &c), LK_EINVAL, "is not a number");
            FAILS(read_one(o[i].section, o[i].key, "nan", &c), LK_EINVAL, name);
            FAILS(read_one(o[i].section, o[i].key, "", &c), LK_EINVAL, name);
            if (o[i].type != LK_O_F64) FAILS(read_one(o[i].section, o[i].key, "2.5", &c), LK_EINVAL, "whole number");
            snprintf(value, sizeof value, o[i].type == LK_O_F64 ? "%.17g" : "%.0f", o[i].high);
            OK(read_one(o[i].section, o[i].key, value, &c));
        } else if (o[i].type == LK_O_BOOL)
            FAILS(read_one(o[i].section, o[i].key, "maybe", &c), LK_EINVAL, "must be true or false");
        else if (o[i].type == LK_O_ENUM)
            FAILS(read_one(o[i].section, o[i].key, "sideways", &c), LK_EINVAL, " or ");
        else if (o[i].type == LK_O_NAME)
            FAILS(read_one(o[i].section, o[i].key, "../up", &c), LK_EINVAL, "is not a name");
        assert_non_null(strstr(test_err.message, "examples/some.ini:"));
    }
    FAILS(read_text("[model]\nlayers=2\n", &c), LK_EINVAL, "data.dataset is missing");
}

static void unknown_keys_get_the_nearest(void **state) {
    (void)state;
    struct lk_run_config c;
    FAILS(read_one("optimizer", "lerning_rate", "1", &c), LK_EINVAL, "did you mean \"optimizer.learning_rate\"?");
    assert_non_null(strstr(test_err.message, "examples/some.ini:4: unknown key \"optimizer.lerning_rate\""));
    FAILS(read_one("model", "learning_rate", "1", &c), LK_EINVAL, "did you mean \"optimizer.learning_rate\"?");
    FAILS(read_one("batch", "grain", "1", &c), LK_EINVAL, "did you mean \"batch.grains\"?");
    FAILS(read_one("modle", "width", "1", &c), LK_EINVAL, "unknown section or key");
    FAILS(read_one("model", "qqqqqqqqqqqq", "1", &c), LK_EINVAL, "--keys");
    assert_null(strstr(test_err.message, "did you mean"));
}

static void other_tools_keys_are_answered(void **state) {
    (void)state;
    static const struct {
        const char *section, *key, *answer;
    } cases[] = {
        {"optimizer", "lr", "\"optimizer.lr\" is called optimizer.learning_rate here"},
        {"training", "LR", "is called optimizer.learning_rate here"},
        {"run", "max-iters", "is called run.steps here"},
        {"batch", "batch_size", "is called batch.sequences here; all of a step's"},
        {"model", "n_layer", "is called model.layers here"},
        {"model", "num_attention_heads", "is called model.heads here"},
        {"model", "d_model", "is called model.width here"},
        {"model", "block_size", "is called model.context here"},
        {"model", "vocab_size", "is called model.vocab here"},
        {"train", "gradient_accumulation_steps", "batch.sequences"},
        {"optimizer", "eps", "is called optimizer.epsilon here; that of the norms is model.norm_epsilon"},
        {"optimizer", "num_decay_steps", "is called optimizer.cooldown here"},
        {"optimizer", "warmdown_ratio", "is called optimizer.cooldown here; it is a number of steps"},
        {"optimizer", "num_stable_steps", "what optimizer.warmup and optimizer.cooldown leave"},
        {"model", "dropout", "there is no \"model.dropout\": models here have no dropout"},
        {"run", "device", "--threads"},
        {"run", "dtype", "float32"},
        {"run", "weight_decay", "did you mean \"optimizer.weight_decay\"?"},
        {"optimizer", "seed", "did you mean \"run.seed\"?"},
        {"model", "beta1", "did you mean \"optimizer.beta1\"?"},
        {"evl", "every", "did you mean \"eval.every\"?"},
        {"run", "every", "did you mean \"eval.every\", \"checkpoint.every\" or \"sample.every\"?"},
    };
    struct lk_run_config c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FAILS(read_one(cases[i].section, cases[i].key, "1", &c), LK_EINVAL, cases[i].answer);
        assert_non_null(strstr(test_err.message, "examples/some.ini:4: "));
    }
}

/* What a synonym names is a key, and no key of ours is taken for another tool's. */
static void answers_name_keys_that_exist(void **state) {
    (void)state;
    static const char *const theirs[] = {"lr",
                                         "min_lr",
                                         "wd",
                                         "betas",
                                         "grad_clip",
                                         "lr_scheduler_type",
                                         "warmup_ratio",
                                         "lr_decay_iters",
                                         "lr_wsd_decay_iters",
                                         "epochs",
                                         "random_seed",
                                         "run_name",
                                         "micro_batch_size",
                                         "gradient_checkpointing",
                                         "n_kv_heads",
                                         "d_head",
                                         "d_ff",
                                         "tie_word_embeddings",
                                         "rms_norm_eps",
                                         "rope_base",
                                         "initializer_range",
                                         "sliding_window",
                                         "attention_bias",
                                         "arch",
                                         "init_from",
                                         "eval_steps",
                                         "eval_iters",
                                         "save_steps",
                                         "save_total_limit",
                                         "load_best_model_at_end",
                                         "sample_interval",
                                         "data_dir"};
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    struct lk_run_config c;
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) {
        char ours[64] = "", full[64];
        bool found = false;
        FAILS(read_one("x", theirs[i], "1", &c), LK_EINVAL, "is called ");
        sscanf(strstr(test_err.message, "is called "), "is called %63s here", ours);
        for (size_t j = 0; j < count; j++) {
            snprintf(full, sizeof full, "%s.%s", o[j].section, o[j].key);
            found |= strcmp(full, ours) == 0;
        }
        if (!found) fail_msg("%s is answered with %s, which is no key", theirs[i], ours);
    }
}

static void keys_beside_from_name_the_way(void **state) {
    (void)state;
    struct lk_run_config c;
    FAILS(read_text("[data]\ndataset=d\n[model]\nfamily=llama\nfrom=old@7\n", &c), LK_EINVAL,
          "examples/some.ini:4: model.family is given by model.from (examples/some.ini:5)");
    assert_non_null(strstr(test_err.message, "`lockstep train --from old@7 key=value`"));
}

/* Gives an option's field another valid value. */
static void change(struct lk_run_config *c, const struct lk_option *o) {
    char *field = (char *)c + o->offset;
    switch (o->type) {
    case LK_O_U32:
        *(uint32_t *)field += 1;
        break;
    case LK_O_U64:
        *(uint64_t *)field += 1;
        break;
    case LK_O_F64:
        *(double *)field = *(double *)field * 0.75 + 0.001;
        break;
    case LK_O_BOOL:
        *(bool *)field = !*(bool *)field;
        break;
    case LK_O_ENUM:
        *(uint32_t *)field = 1;
        break;
    default:
        strcpy(field, "another");
    }
}

static void json_goes_there_and_back(void **state) {
    (void)state;
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    struct lk_run_config c = good(), d;
    OK(lk_run_config_resolve(&c, 300, &test_err));
    c.seed = 999999999999999u;
    strcpy(c.prompt, "In the \"beginning\"\n\xc3\xa9");
    for (size_t i = 0; i < count; i++) {
        if (i) change(&c, &o[i - 1]);
        c.seed = i % 2 ? 999999999999999u : 3;
        json_t *all = lk_run_config_json(&c);
        OK(lk_run_config_from_json(all, &d, &test_err));
        for (size_t j = 0; j < count; j++) {
            const char *a = (const char *)&c + o[j].offset, *b = (const char *)&d + o[j].offset;
            assert_true(o[j].type >= LK_O_NAME ? strcmp(a, b) == 0 : memcmp(a, b, o[j].size) == 0);
        }
        json_object_del(json_object_get(all, o[i].section), o[i].key);
        if (o[i].flags & LK_O_LATER) { /* a record of the first release: as if the key were not given */
            struct lk_run_config fresh = good();
            OK(lk_run_config_from_json(all, &d, &test_err));
            assert_memory_equal((char *)&d + o[i].offset, (char *)&fresh + o[i].offset, o[i].size);
        } else
            FAILS(lk_run_config_from_json(all, &d, &test_err), LK_ECORRUPT, o[i].key);
        json_decref(all);
    }
}

static void the_identity_holds_what_decides_the_bits(void **state) {
    (void)state;
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    const struct lk_root dataset = {{1, 2, 3}}, other = {{1, 2, 4}};
    struct lk_root a, b;
    struct lk_run_config c = good();
    OK(lk_run_config_resolve(&c, 300, &test_err));
    OK(lk_run_identity(&c, &dataset, NULL, &a, &test_err));
    OK(lk_run_identity(&c, &other, NULL, &b, &test_err));
    assert_false(lk_root_equal(&a, &b));
    static const char *const outside[] = {"run.name",       "data.dataset",   "memory.micro_batch", "memory.recompute",
                                          "eval.every",     "eval.sequences", "checkpoint.every",   "checkpoint.keep",
                                          "sample.every",   "sample.prompt",  "checkpoint.best",    "model.from",
                                          "model.optimizer"};
    for (size_t i = 0; i < count; i++) {
        struct lk_run_config d = c;
        char name[64];
        bool free = false;
        snprintf(name, sizeof name, "%s.%s", o[i].section, o[i].key);
        for (size_t j = 0; j < sizeof outside / sizeof *outside; j++) free |= strcmp(name, outside[j]) == 0;
        change(&d, &o[i]);
        OK(lk_run_identity(&d, &dataset, NULL, &b, &test_err));
        if (lk_root_equal(&a, &b) != free) fail_msg("%s %s the identity", name, free ? "changes" : "does not change");
    }
}

static double expected_rate(const struct lk_run_config *c, double s) {
    const double pi = 3.14159265358979323846, w = c->warmup, q = c->min_ratio;
    if (s < w) return c->learning_rate * (s + 1) / w;
    double p = (s - w) / (c->decay > c->warmup ? c->decay - w : 1);
    if (p > 1) p = 1;
    if (c->schedule == LK_CONSTANT) return c->learning_rate;
    return c->learning_rate * (q + (1 - q) * (c->schedule == LK_LINEAR ? 1 - p : (1 + cos(pi * p)) / 2));
}
static void schedules_go_up_and_down(void **state) {
    (void)state;
    struct lk_run_config c = good();
    OK(lk_run_config_resolve(&c, 300, &test_err));
    static const uint32_t shapes[][2] = {{50, 1000}, {0, 1000}, {50, 400}, {0, 1}, {1, 1}, {1000, 1000}, {20, 10}, {3, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (c.schedule = LK_COSINE; c.schedule <= LK_CONSTANT; c.schedule++)
            for (uint32_t s = 0; s < c.steps; s++) {
                c.warmup = shapes[i][0], c.decay = shapes[i][1];
                double rate = lk_learning_rate(&c, s);
                assert_true(fabs(rate - expected_rate(&c, s)) <= 4e-16 * c.learning_rate);
            }
    c.schedule = LK_COSINE, c.warmup = 50, c.decay = 1000;
    assert_true(lk_learning_rate(&c, 0) == 1e-3 * (1.0 / 50) && lk_learning_rate(&c, 49) == 1e-3 &&
                lk_learning_rate(&c, 50) == 1e-3);
    assert_true(fabs(lk_learning_rate(&c, 1000) - 1e-4) < 1e-19 && fabs(lk_learning_rate(&c, 525) - 0.55e-3) < 1e-18);
}

/* wsd is linear with its fall put off: the same bits as a linear schedule whose warmup ends where the fall begins. */
static void wsd_stays_and_then_falls(void **state) {
    (void)state;
    struct lk_run_config c = good(), linear;
    OK(lk_run_config_resolve(&c, 300, &test_err));
    c.schedule = LK_WSD;
    static const uint32_t shapes[][3] = {/* warmup, cooldown, decay */
                                         {50, 200, 1000}, {0, 200, 1000}, {50, 950, 1000}, {0, 1000, 1000},
                                         {0, 1, 1000},    {3, 7, 400},    {0, 1, 1},       {1, 1, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        c.warmup = shapes[i][0], c.cooldown = shapes[i][1], c.decay = shapes[i][2];
        uint32_t peak = c.decay - c.cooldown;
        linear = c, linear.schedule = LK_LINEAR, linear.warmup = peak;
        for (uint32_t s = 0; s < c.steps + 5; s++) {
            double rate = lk_learning_rate(&c, s);
            if (s >= c.warmup && s <= peak) assert_true(rate == c.learning_rate);
            if (s > peak) assert_true(rate == lk_learning_rate(&linear, s) && rate < c.learning_rate);
            if (s < c.warmup) assert_true(rate == c.learning_rate * ((s + 1.0) / c.warmup));
        }
        assert_true(fabs(lk_learning_rate(&c, c.decay) - 1e-4) < 1e-19);
    }
    c.warmup = 0, c.cooldown = 200, c.decay = 1000;
    assert_true(fabs(lk_learning_rate(&c, 900) - 0.55e-3) < 1e-18 && lk_learning_rate(&c, 800) == 1e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_default_is_what_the_table_says),
        cmocka_unit_test(derived_defaults_are_filled_in),
        cmocka_unit_test(a_cooldown_belongs_to_wsd),
        cmocka_unit_test(values_out_of_range_name_the_key),
        cmocka_unit_test(unknown_keys_get_the_nearest),
        cmocka_unit_test(other_tools_keys_are_answered),
        cmocka_unit_test(answers_name_keys_that_exist),
        cmocka_unit_test(keys_beside_from_name_the_way),
        cmocka_unit_test(json_goes_there_and_back),
        cmocka_unit_test(the_identity_holds_what_decides_the_bits),
        cmocka_unit_test(schedules_go_up_and_down),
        cmocka_unit_test(wsd_stays_and_then_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
