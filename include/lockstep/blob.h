/* Immutable blobs named by their root. Engines stand behind struct lk_blobs_ops (src/store/blob/blob_engine.h). */
#ifndef LOCKSTEP_BLOB_H
#define LOCKSTEP_BLOB_H
#include "lockstep/err.h"
#include "lockstep/hash.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lk_blobs;
struct lk_blob_writer;
struct lk_blob {
    const unsigned char *data;
    size_t size;
    struct lk_root root;
};

/* A directory DIR, made if absent: DIR/ab/cd... (raw bytes, no header), temporaries in DIR/tmp. */
int lk_blobs_open(const char *dir, struct lk_blobs **out, struct lk_err *);
void lk_blobs_close(struct lk_blobs *);

/* Streaming write; finish syncs, renames and gives the root; an existing equal blob is kept, a damaged one replaced. The
 * writer is freed by finish (also a failed one) and by abort. Several writers may run at once, one thread each. */
int lk_blob_create(struct lk_blobs *, struct lk_blob_writer **out, struct lk_err *);
int lk_blob_write(struct lk_blob_writer *, const void *data, size_t size, struct lk_err *);
int lk_blob_finish(struct lk_blob_writer *, struct lk_root *out, struct lk_err *);
void lk_blob_abort(struct lk_blob_writer *);
int lk_blob_put(struct lk_blobs *, const void *data, size_t size, struct lk_root *out, struct lk_err *);

/* Maps a blob read-only. verify: hash all of it first; damage is LK_ECORRUPT that names the root, the file and the
 * directory. Absent: LK_ENOTFOUND. */
int lk_blob_open(struct lk_blobs *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
void lk_blob_close(struct lk_blob *);
bool lk_blob_exists(struct lk_blobs *, const struct lk_root *);
int lk_blob_delete(struct lk_blobs *, const struct lk_root *, struct lk_err *);
/* The path of a blob's file for messages and tools; out has at least 4,096 bytes. */
char *lk_blob_path(struct lk_blobs *, const struct lk_root *, char *out);

typedef int lk_blob_list_fn(void *arg, const struct lk_root *, uint64_t size_bytes, int64_t modified_ms);
/* Order: by root. Files of dead writers in tmp/ older than keep_tmp_ms are removed when keep_tmp_ms >= 0. */
int lk_blobs_list(struct lk_blobs *, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *);

#endif
