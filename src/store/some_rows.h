/* A random write of a writer's own rows, d/WRITER/...: short and long keys, values of many sizes, deletes, ranges; tests
 * only. The same numbers give the same write, so that a model can do it again. */
#ifndef LK_STORE_SOME_ROWS_H
#define LK_STORE_SOME_ROWS_H
#include "store/kv/testing.h"

/* large: bytes of one value in sixteen; 0: none. */
static inline int some_row(struct lk_kv_txn *t, struct test_random *r, int writer, size_t large, struct lk_err *err) {
    static const size_t sizes[] = {0, 20, 100, 700, 1500, 9000};
    unsigned char key[1600];
    int size = snprintf((char *)key, sizeof key, "d/%d/%u", writer, test_random_below(r, 24));
    uint32_t what = test_random_below(r, 12);
    if (what == 0) { /* a long key: layers */
        memset(key + size, 'k', sizeof key - (size_t)size);
        size = 600 + (int)test_random_below(r, 1000);
    }
    struct lk_bytes k = lk_bytes(key, (size_t)size);
    if (what == 1) {
        char from[32], to[32];
        uint32_t first = test_random_below(r, 24);
        snprintf(from, sizeof from, "d/%d/%u", writer, first);
        snprintf(to, sizeof to, "d/%d/%u", writer, first + 3);
        return strcmp(from, to) < 0 ? lk_kv_delete_range(t, S(from), S(to), err) : 0;
    }
    if (what < 4) return lk_kv_delete(t, k, err);
    size_t n = large && test_random_below(r, 16) == 0 ? large : sizes[test_random_below(r, 6)];
    char *value = lk_alloc(n + 1);
    if (!value) return lk_fail(err, LK_ENOMEM, "out of memory for a value");
    memset(value, (int)('a' + test_random_below(r, 26)), n);
    int code = lk_kv_put(t, k, lk_bytes(value, n), err);
    lk_free(value);
    return code;
}

#endif
