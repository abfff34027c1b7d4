/* What the tests of the key-value engine share; tests only. */
#ifndef LK_STORE_KV_TESTING_H
#define LK_STORE_KV_TESTING_H
#include "base/testing.h"
#include "store/kv/kv_engine.h"

#define S(text) lk_bytes(text, strlen(text))

static inline struct lk_kv *open_at(const char *dir) {
    char *url = lk_asprintf("file:%s", dir);
    struct lk_kv *kv;
    struct lk_err e;
    int code = lk_kv_open(url, LK_CREATE, &kv, &e);
    if (code != 0) fail_msg("%s", e.message);
    lk_free(url);
    return kv;
}
static inline struct lk_kv_txn *begin(struct lk_kv *kv, bool write) {
    struct lk_kv_txn *txn;
    struct lk_err e;
    int code = lk_kv_begin(kv, write, &txn, &e);
    if (code != 0) fail_msg("%s", e.message);
    return txn;
}
static inline void put(struct lk_kv_txn *txn, const char *key, const char *value) {
    assert_int_equal(lk_kv_put(txn, S(key), S(value), NULL), 0);
}
static inline void commit(struct lk_kv_txn *txn) {
    assert_int_equal(lk_kv_commit(txn, LK_DURABLE, NULL, NULL), 0);
}
static inline void put_one(struct lk_kv *kv, const char *key, const char *value) {
    struct lk_kv_txn *w = begin(kv, true);
    put(w, key, value);
    commit(w);
}
static inline void row_is(struct lk_kv_txn *txn, const char *key, const char *value) {
    struct lk_bytes v;
    int code = lk_kv_get(txn, S(key), &v, NULL);
    if (!value) {
        assert_int_equal(code, LK_ENOTFOUND);
        return;
    }
    assert_int_equal(code, 0);
    assert_int_equal(v.size, strlen(value));
    assert_memory_equal(v.data, value, v.size);
}

/* --- the same tests on every engine ------------------------------------------------------------------------ */

/* An engine's store, empty, and open. */
struct world {
    char url[4096];
    char *dir;
    struct lk_kv *kv;
    size_t key_max; /* the engine's: longer keys have layers */
};
typedef void world_fn(struct world *);
struct world_case {
    const char *name;
    world_fn *run;
};
#define WORLD_CASE(f)                                                                                                      \
    { #f, f }

static inline struct lk_kv *world_open(const struct world *w) {
    struct lk_kv *kv = NULL;
    OK(lk_kv_open(w->url, LK_CREATE, &kv, &test_err));
    return kv;
}
static inline int erase_all(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_delete_range(t, lk_bytes(NULL, 0), lk_bytes(NULL, 0), err);
}
/* On LMDB, in memory, and on the store that LOCKSTEP_TEST_KV names, whose rows it deletes. */
static inline void run_on_every_engine(const struct world_case *c) {
    const char *given = getenv("LOCKSTEP_TEST_KV");
    for (int i = 0; i < (given && *given ? 3 : 2); i++) {
        struct world w = {.dir = test_dir_make()};
        if (i == 2)
            snprintf(w.url, sizeof w.url, "%s", given);
        else
            snprintf(w.url, sizeof w.url, "%s:%s", i ? "memory" : "file", w.dir);
        w.kv = world_open(&w);
        w.key_max = w.kv->ops->key_max;
        print_message("  %s\n", w.kv->ops->name);
        OK(lk_kv_update(w.kv, erase_all, NULL, LK_LAZY, NULL, &test_err));
        c->run(&w);
        lk_kv_close(w.kv);
        test_dir_remove(w.dir);
    }
}
static void run_world_case(void **state) __attribute__((unused));
static void run_world_case(void **state) {
    run_on_every_engine(*state);
}
#define WORLD_TEST(f)                                                                                                      \
    { #f, run_world_case, NULL, NULL, &(struct world_case)WORLD_CASE(f) }

/* A key of that many bytes; the same ones begin alike. */
static inline struct lk_bytes long_key(unsigned char *out, size_t size, unsigned char last) {
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)('a' + i % 23);
    out[size - 1] = last;
    return lk_bytes(out, size);
}

#endif
