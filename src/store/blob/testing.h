/* What the tests of blobs share. */
#ifndef LK_BLOB_TESTING_H
#define LK_BLOB_TESTING_H
#include "base/testing.h"
#include "lockstep/store/blob.h"

static inline struct lk_blobs *open_at(const char *dir) {
    struct lk_blobs *b;
    struct lk_err e;
    if (lk_blobs_open(dir, LK_CREATE, &b, &e) != 0) fail_msg("%s", e.message);
    return b;
}
static inline struct lk_root put(struct lk_blobs *b, const void *data, size_t size) {
    struct lk_root root;
    struct lk_err e;
    if (lk_blob_put(b, data, size, &root, &e) != 0) fail_msg("%s", e.message);
    return root;
}
static inline void content_is(struct lk_blobs *b, const struct lk_root *root, const void *data, size_t size) {
    struct lk_blob blob;
    struct lk_err e;
    if (lk_blob_open(b, root, true, &blob, &e) != 0) fail_msg("%s", e.message);
    assert_int_equal(blob.size, size);
    assert_memory_equal(blob.data, data, size);
    assert_true(lk_root_equal(&blob.root, root));
    lk_blob_close(&blob);
}
static inline int temporaries(const char *dir) {
    char *tmp = test_join(dir, "tmp");
    int n = test_dir_entries(tmp);
    lk_free(tmp);
    return n;
}
static inline int add_one(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    (void)root, (void)size, (void)modified_ms;
    ++*(int *)arg;
    return 0;
}
static inline int count(struct lk_blobs *b, int64_t keep_tmp_ms) {
    int n = 0;
    assert_int_equal(lk_blobs_list(b, keep_tmp_ms, add_one, &n, NULL), 0);
    return n;
}

#endif
