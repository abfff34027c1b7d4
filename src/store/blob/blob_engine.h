/* The blob seam: what an engine does. blob.c hashes nothing and keeps no state; an engine gives roots. */
#ifndef LK_BLOB_ENGINE_H
#define LK_BLOB_ENGINE_H
#include "lockstep/blob.h"

struct lk_blobs_ops {
    const char *name;
    void (*close)(struct lk_blobs *);
    int (*create)(struct lk_blobs *, struct lk_blob_writer **out, struct lk_err *);
    int (*write)(struct lk_blob_writer *, const void *data, size_t size, struct lk_err *);
    int (*finish)(struct lk_blob_writer *, struct lk_root *out, struct lk_err *);
    void (*abort)(struct lk_blob_writer *);
    int (*open)(struct lk_blobs *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
    bool (*exists)(struct lk_blobs *, const struct lk_root *);
    int (*remove)(struct lk_blobs *, const struct lk_root *, struct lk_err *);
    char *(*path)(struct lk_blobs *, const struct lk_root *, char *out);
    int (*list)(struct lk_blobs *, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *);
};

/* The first member of an engine's own structs. */
struct lk_blobs {
    const struct lk_blobs_ops *ops;
};
struct lk_blob_writer {
    struct lk_blobs *blobs;
};

extern const struct lk_blobs_ops lk__blobs_dir;
int lk__blobs_dir_open(const char *dir, struct lk_blobs **out, struct lk_err *);

#endif
