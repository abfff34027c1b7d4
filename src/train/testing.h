/* A store with a tokenizer and two datasets in a temporary directory, and small runs in it. For tests of train, serve and
 * lab. */
#ifndef LK_TRAIN_TESTING_H
#define LK_TRAIN_TESTING_H
#include "lockstep/train/train.h"
#include "model/testing.h"

struct test_world {
    char *dir;
    struct lk_store *store; /* NULL while closed */
    struct lk_pool *pool;
    struct lk_math *math;
};

static inline void test_world_open(struct test_world *w) {
    OK(lk_store_open(w->dir, LK_CREATE, &w->store, &test_err));
    OK(lk_pool_open(2, &w->pool, &test_err));
    OK(lk_math_open(w->pool, NULL, &w->math, &test_err));
}
/* Before a fork: neither threads nor LMDB go with it. */
static inline void test_world_close(struct test_world *w) {
    lk_math_close(w->math);
    lk_pool_close(w->pool);
    lk_store_close(w->store);
    w->store = NULL;
}

static inline void test_dataset(struct test_world *w, const char *name, const char *file, const struct lk_buf *text,
                                const struct lk_root *tokenizer) {
    char *path = test_join(w->dir, file);
    struct lk_root root;
    OK(lk_file_write_atomic(path, text->data, text->size, &test_err));
    OK(lk_dataset_build(w->store, &(struct lk_dataset_source){path}, 1, tokenizer,
                        &(struct lk_dataset_options){.holdout = 0.1, .tokenizer_name = "t"}, NULL, &root, &test_err));
    OK(lk_store_name_put(w->store, "dataset", name, &root, &test_err));
    lk_free(path);
}

/* Dataset "text": lines of words. Dataset "talk": prompts, most long, with short responses. */
static inline void test_world_make(struct test_world *w) {
    static const char *const words[] = {"the",    "beginning", "light", "was",   "and",  "upon",
                                        "waters", "darkness",  "day",   "earth", "said", "let"};
    struct test_random r = {20240229, 0};
    struct lk_buf text = LK_BUF_INIT, talk = LK_BUF_INIT;
    struct lk_tokenizer *tokenizer;
    struct lk_root root;
    for (int line = 0; line < 400; line++) {
        for (uint32_t i = 0, n = 3 + test_random_below(&r, 8); i < n; i++)
            OK(lk_buf_printf(&text, i ? " %s" : "%s", words[test_random_below(&r, 12)]));
        OK(lk_buf_printf(&text, ".\n"));
    }
    for (int line = 0; line < 60; line++) {
        OK(lk_buf_printf(&talk, "{\"prompt\": \""));
        for (uint32_t i = 0, n = line < 3 ? 2 : 30; i < n; i++)
            OK(lk_buf_printf(&talk, "%s ", words[test_random_below(&r, 12)]));
        OK(lk_buf_printf(&talk, "\", \"response\": \"%s\"}\n", words[test_random_below(&r, 12)]));
    }
    *w = (struct test_world){.dir = test_dir_make()};
    test_world_open(w);
    struct lk_bytes b = lk_bytes(text.data, text.size);
    OK(lk_tokenizer_train(&b, 1, 280, NULL, NULL, NULL, &tokenizer, &test_err));
    OK(lk_tokenizer_save(w->store, tokenizer, &root, &test_err));
    OK(lk_store_name_put(w->store, "tokenizer", "t", &root, &test_err));
    lk_tokenizer_free(tokenizer);
    test_dataset(w, "text", "text.txt", &text, &root);
    test_dataset(w, "talk", "talk.jsonl", &talk, &root);
    lk_buf_release(&text);
    lk_buf_release(&talk);
}
static inline void test_world_drop(struct test_world *w) {
    if (w->store) test_world_close(w);
    test_dir_remove(w->dir);
}

/* A run from an INI text; `more`: assignments "section.key=value" in one string, separated by spaces. */
static inline struct lk_run_config test_config_of(const char *base, const char *name, const char *more) {
    struct lk_run_config c;
    struct lk_ini ini;
    char *copy = lk_strdup(more), *rest = NULL;
    OK(lk_ini_parse(base, strlen(base), "test.ini", &ini, &test_err));
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        OK(lk_ini_override(&ini, word, &test_err));
    OK(lk_run_config_read(&ini, &c, &test_err));
    snprintf(c.name, sizeof c.name, "%s", name);
    lk_ini_release(&ini);
    lk_free(copy);
    return c;
}
/* A tiny one. */
static inline struct lk_run_config test_config(const char *name, const char *more) {
    return test_config_of(
        "[run]\nsteps=6\nseed=5\n[data]\ndataset=text\n[model]\nlayers=2\nwidth=12\nheads=2\nffn=17\ncontext=11\nvocab="
        "283\n"
        "init_std=0.1\n[batch]\nsequences=6\ngrains=3\n[optimizer]\nlearning_rate=0.01\n[eval]\nevery=0\n"
        "[checkpoint]\nevery=2\n",
        name, more);
}

/* A string of the run's record. */
static inline char *test_record_text(struct test_world *w, const char *run, const char *key) {
    json_t *record;
    OK(lk_run_get(w->store, run, &record, &test_err));
    const char *value = json_string_value(json_object_get(record, key));
    char *text = lk_strdup(value ? value : "");
    json_decref(record);
    return text;
}
static inline void assert_record(struct test_world *w, const char *run, const char *key, const char *expected) {
    char *text = test_record_text(w, run, key);
    assert_string_equal(text, expected);
    lk_free(text);
}

static inline int test_create_and_run(struct test_world *w, const struct lk_run_config *c,
                                      const struct lk_train_hooks *hooks) {
    struct lk_trainer *t;
    int code = lk_trainer_create(w->store, w->math, NULL, c, hooks, &t, &test_err);
    if (code) return code;
    code = lk_trainer_run(t, &test_err);
    lk_trainer_free(t);
    return code;
}
static inline int test_resume_and_run(struct test_world *w, const char *run, const struct lk_train_hooks *hooks) {
    struct lk_trainer *t;
    int code = lk_trainer_resume(w->store, w->math, NULL, run, hooks, &t, &test_err);
    if (code) return code;
    code = lk_trainer_run(t, &test_err);
    lk_trainer_free(t);
    return code;
}
/* Trains to the end and gives the state root (lk_free). */
static inline char *test_root_of(struct test_world *w, const struct lk_run_config *c) {
    OK(test_create_and_run(w, c, NULL));
    assert_record(w, c->name, "state", "finished");
    return test_record_text(w, c->name, "state_root");
}

#endif
