/* The blob seam: what an engine does. blob.c checks arguments, hashes nothing and keeps no state; an engine gives
 * roots. */
#ifndef LK_BLOB_ENGINE_H
#define LK_BLOB_ENGINE_H
#include "lockstep/store/blob.h"

/* Blobs of known size that several processes write. blob.c has checked kinds and ranges. */
struct lk_sized_ops {
    int (*create)(struct lk_blobs *, uint64_t size, struct lk_blob_writer **out, struct lk_err *);
    int (*join)(struct lk_blobs *, const char *name, uint64_t size, struct lk_blob_writer **out, struct lk_err *);
    const char *(*name)(const struct lk_blob_writer *); /* shorter than LK_BLOB_NAME_MAX */
    int (*write_at)(struct lk_blob_writer *, uint64_t offset, const void *data, size_t size, struct lk_err *);
    int (*sync)(struct lk_blob_writer *, struct lk_err *);
    int (*leaves)(struct lk_blob_writer *, size_t first, size_t count, struct lk_root *leaves, struct lk_err *);
    int (*finish)(struct lk_blob_writer *, const struct lk_root *leaves, struct lk_root *out, struct lk_err *);
    void (*abort)(struct lk_blob_writer *);
};

struct lk_blobs_ops {
    const char *name;
    void (*close)(struct lk_blobs *);
    int (*create)(struct lk_blobs *, struct lk_blob_writer **out, struct lk_err *);
    void (*past_cache)(struct lk_blob_writer *); /* may be NULL */
    int (*write)(struct lk_blob_writer *, const void *data, size_t size, struct lk_err *);
    int (*finish)(struct lk_blob_writer *, struct lk_root *out, struct lk_err *);
    void (*abort)(struct lk_blob_writer *);
    int (*open)(struct lk_blobs *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
    int (*peek)(struct lk_blobs *, const struct lk_root *, void *out, size_t size, size_t *got, struct lk_err *);
    bool (*exists)(struct lk_blobs *, const struct lk_root *);
    int (*modified)(struct lk_blobs *, const struct lk_root *, int64_t *out_ms, struct lk_err *);
    int (*remove)(struct lk_blobs *, const struct lk_root *, struct lk_err *);
    char *(*path)(struct lk_blobs *, const struct lk_root *, char *out);
    int (*list)(struct lk_blobs *, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *);
    const struct lk_sized_ops *sized; /* NULL: the engine has none */
};

/* The first member of an engine's own structs. */
struct lk_blobs {
    const struct lk_blobs_ops *ops;
    int threads; /* that verify; 0: lk_threads_default() */
    /* Of a store with rows (uploads.c), else NULL: an engine tells it of a blob before it makes it visible or finds it
     * there, and asks it before it ends an upload that somebody began. */
    int (*before_put)(void *store, const struct lk_root *, struct lk_err *);
    bool (*is_announced)(void *store, const struct lk_root *);
    void *store;
};
static inline int lk__blob_before_put(const struct lk_blobs *b, const struct lk_root *root, struct lk_err *err) {
    return b->before_put ? b->before_put(b->store, root, err) : LK_OK;
}
struct lk_blob_writer {
    struct lk_blobs *blobs;
    bool sized, creator; /* creator: of a sized one */
    uint64_t size;       /* of a sized one */
};

extern const struct lk_blobs_ops lk__blobs_dir, lk__blobs_s3;
int lk__blobs_dir_open(const char *dir, enum lk_access, struct lk_blobs **out, struct lk_err *);
int lk__blobs_s3_open(const char *url, enum lk_access, struct lk_blobs **out, struct lk_err *);

#endif
