/* What the fuzzers of stored things share: a store of blobs in memory, and bytes taken from the input. */
#ifndef LOCKSTEP_FUZZ_STORE_HELP_H
#define LOCKSTEP_FUZZ_STORE_HELP_H
#include "lockstep/base/file.h"
#include "lockstep/store/store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static char fuzz_dir[64];
static void fuzz_remove(void) {
    lk_dir_remove(fuzz_dir, NULL);
}
static inline struct lk_store *fuzz_store(void) {
    struct lk_store *store = NULL;
    snprintf(fuzz_dir, sizeof fuzz_dir, "%s/lockstep-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(fuzz_dir) || lk_store_open(fuzz_dir, LK_CREATE, &store, NULL)) abort();
    atexit(fuzz_remove);
    return store;
}

/* The front of the input. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};
static inline uint64_t fuzz_number(struct fuzz_input *in, size_t bytes) {
    uint64_t v = 0;
    for (; bytes && in->size; bytes--, in->data++, in->size--) v = v << 8 | in->data[0];
    return v;
}

/* Blobs of one input, to be deleted after it: deleting one that is there before would take it from the next. */
struct fuzz_blobs {
    struct lk_root roots[16];
    size_t count;
};
static inline struct lk_root fuzz_put(struct lk_store *store, const void *data, size_t size, struct fuzz_blobs *made) {
    struct lk_root root;
    lk_root_of(data, size, &root);
    if (lk_blob_exists(store->blobs, &root)) return root;
    if (lk_blob_put(store->blobs, data, size, &root, NULL)) abort();
    if (made->count < 16) made->roots[made->count++] = root;
    return root;
}
static inline void fuzz_delete(struct lk_store *store, struct fuzz_blobs *made) {
    for (size_t i = 0; i < made->count; i++) lk_blob_delete(store->blobs, &made->roots[i], NULL);
    made->count = 0;
}

#endif
