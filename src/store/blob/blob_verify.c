/* The root of a blob that is on the disk, by several threads: leaves are independent, and reading and hashing go on side by
 * side. */
#include "lockstep/base/mem.h"
#include "lockstep/base/thread.h"
#include "store/blob/blob_dir.h"
#include <sys/mman.h>

#define TOGETHER_BYTES ((size_t)8 << 20) /* from here on several threads verify */
#define AHEAD_BYTES    ((size_t)16 << 20)
#define PAIR_BYTES     (2 * LK_LEAF_BYTES) /* two leaves are hashed at once */

struct verifying {
    const struct lk_map *map;
    struct lk_root *leaves;
};
static void verify_pair(void *arg, size_t pair, int thread) {
    const struct verifying *v = arg;
    const unsigned char *data = v->map->data;
    size_t at = pair * PAIR_BYTES, n = v->map->size - at < PAIR_BYTES ? v->map->size - at : PAIR_BYTES;
    (void)thread;
    if (v->map->size - at > AHEAD_BYTES + PAIR_BYTES) /* so that the disk reads while we hash */
        (void)posix_madvise((void *)(uintptr_t)(data + at + AHEAD_BYTES), PAIR_BYTES, POSIX_MADV_WILLNEED);
    lk_leaf_hashes(data + at, n, &v->leaves[2 * pair]);
}

/* A large blob is hashed by all threads that may, as well as there is memory for that. */
void lk__blob_root_of_map(const struct lk_map *map, int threads, struct lk_root *out) {
    size_t count = (size_t)lk_leaf_count(map->size);
    struct verifying v = {.map = map};
    struct lk_pool *pool = NULL;
    if (map->size >= TOGETHER_BYTES && (v.leaves = lk_alloc(count * sizeof *v.leaves)) &&
        lk_pool_open(threads ? threads : lk_threads_default(), &pool, NULL) == 0) {
        lk_pool_run(pool, (count + 1) / 2, verify_pair, &v);
        lk_root_of_leaves(v.leaves, count, map->size, out);
    } else
        lk_root_of(map->data, map->size, out);
    lk_pool_close(pool);
    lk_free(v.leaves);
}
