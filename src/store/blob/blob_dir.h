/* What the two kinds of writers into a directory share: a temporary file that becomes a blob. */
#ifndef LK_BLOB_DIR_H
#define LK_BLOB_DIR_H
#include "lockstep/base/file.h"
#include "store/blob/blob_engine.h"
#include <stdatomic.h>
#include <sys/types.h>

#define LK__BLOB_PATH_BYTES 4096

struct lk__blob_dir {
    struct lk_blobs base;
    char *path;                        /* short enough for a blob's path to fit in LK__BLOB_PATH_BYTES */
    bool unsynced;                     /* a cache: what power loss takes from it is found when it is read */
    atomic_bool settled, folders[256]; /* names of path and of its folders that are synced, as far as we know */
};
/* The first member of the writers. */
struct lk__blob_file {
    struct lk_blob_writer base;
    struct lk__blob_dir *dir;
    char *path; /* DIR/tmp/... */
    int fd;     /* -1: none */
};

/* Makes and locks a new temporary; path and fd are NULL and -1 before. Also after a failure: lk__blob_file_release. */
int lk__blob_file_create(struct lk__blob_file *, mode_t mode, struct lk_err *);
/* Syncs it and renames it to the blob `root`; an equal blob that is there is kept. Closes the file when it succeeds. */
int lk__blob_file_publish(struct lk__blob_file *, const struct lk_root *root, struct lk_err *);
/* Closes what is open, and removes it before if asked to; frees the path. */
void lk__blob_file_release(struct lk__blob_file *, bool remove_file);

/* lk_root_of of what a file holds. threads: at most, 0: lk_threads_default(). */
void lk__blob_root_of_map(const struct lk_map *, int threads, struct lk_root *out);

extern const struct lk_sized_ops lk__blobs_dir_sized;

#endif
