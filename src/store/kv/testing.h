/* What the tests of the key-value engine share; tests only. */
#ifndef LK_STORE_KV_TESTING_H
#define LK_STORE_KV_TESTING_H
#include "base/testing.h"
#include "lockstep/store/kv.h"

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

#endif
