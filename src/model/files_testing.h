/* What the tests of folders and of GGUF files share: a store with a tokenizer and models of it. */
#ifndef LK_MODEL_FILES_TESTING_H
#define LK_MODEL_FILES_TESTING_H
#include "lockstep/base/json.h"
#include "lockstep/data/tokenizer.h"
#include "lockstep/model/models.h"
#include "model/testing.h"

struct world {
    char *dir;
    struct lk_store *store;
    struct lk_root tokenizer;
};

static inline int world_make(void **state) {
    static struct world w;
    struct lk_tokenizer *t;
    struct lk_bytes text = lk_bytes("in the beginning the earth was without form and void", 52);
    w.dir = test_dir_make();
    char *path = test_join(w.dir, "store");
    OK(lk_store_open(path, LK_CREATE, &w.store, &test_err));
    OK(lk_tokenizer_train(&text, 1, 263, NULL, NULL, NULL, &t, &test_err));
    OK(lk_tokenizer_save(w.store, t, &w.tokenizer, &test_err));
    lk_tokenizer_free(t);
    lk_free(path);
    *state = &w;
    return 0;
}
static inline int world_drop(void **state) {
    struct world *w = *state;
    lk_store_close(w->store);
    test_dir_remove(w->dir);
    return 0;
}

/* The world's tokenizer with the tokens of ChatML, 263 and 264. */
static inline struct lk_root world_chat_tokenizer(struct world *w) {
    static const char more[] = ",{\"id\":263,\"content\":\"<|im_start|>\",\"special\":true},"
                               "{\"id\":264,\"content\":\"<|im_end|>\",\"special\":true}";
    struct lk_buf out = LK_BUF_INIT, file = LK_BUF_INIT;
    struct lk_tokenizer *t;
    struct lk_root root;
    OK(lk_tokenizer_load(w->store, &w->tokenizer, &t, &test_err));
    OK(lk_tokenizer_export(t, &out, &test_err));
    lk_tokenizer_free(t);
    const char *end = strstr(out.data, "\n  ],"); /* of added_tokens */
    OK(lk_buf_printf(&file, "%.*s%s%s", (int)(end - out.data), out.data, more, end));
    OK(lk_tokenizer_import(file.data, file.size, "chat", &t, &test_err));
    OK(lk_tokenizer_save(w->store, t, &root, &test_err));
    lk_tokenizer_free(t);
    lk_buf_release(&out);
    lk_buf_release(&file);
    return root;
}

/* Weights of 16 bits each, times scale, so that every type of file can hold them. */
static inline struct lk_root world_weights(struct world *w, const struct lk_model_config *c, float scale) {
    struct lk_layout l;
    struct lk_root root;
    struct lk_blob_writer *writer;
    struct test_random r = {7, 0};
    OK(lk_layout_init(&l, c, &test_err));
    OK(lk_blob_create(w->store->blobs, &writer, &test_err));
    for (size_t i = 0; i < l.parameters; i++) {
        float x = scale * (float)((int)test_random_below(&r, 255) - 127) / 64;
        OK(lk_blob_write(writer, &x, sizeof x, &test_err));
    }
    OK(lk_blob_finish(writer, &root, &test_err));
    lk_layout_release(&l);
    return root;
}
static inline void world_model(struct world *w, const struct lk_model_config *c, float scale, struct lk_model *out) {
    struct lk_root weights = world_weights(w, c, scale);
    uint32_t stops[] = {262, 3};
    OK(lk_model_open(w->store,
                     lk_model_manifest(&(struct lk_model_parts){.config = c,
                                                                .weights = &weights,
                                                                .tokenizer = &w->tokenizer,
                                                                .stops = stops,
                                                                .stop_count = 2,
                                                                .begin = 262,
                                                                .text_begin = UINT32_MAX}),
                     true, out, &test_err));
}

/* Progress of something that is stopped at its third report. */
static inline int test_stop(void *arg, uint64_t done, uint64_t total) {
    assert_true(done <= total);
    return ++*(int *)arg == 3;
}

#endif
