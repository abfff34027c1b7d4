/* A whole store, rows and blobs, in another place: from a folder to PostgreSQL and a bucket, back, or from any to any.
 * src/store/README.md, "Moving", says how. */
#ifndef LOCKSTEP_STORE_MOVE_H
#define LOCKSTEP_STORE_MOVE_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As lk_store_open_at takes them. */
struct lk_move_place {
    const char *url, *blobs_url;
};
/* Where a move is; bytes are those of blobs. */
struct lk_move_status {
    bool last;             /* writers of the old store wait now */
    uint64_t blobs, bytes; /* copied by this call */
    uint64_t blobs_left, bytes_left;
    uint64_t rows; /* looked at, in the pass that runs */
};
#define LK_MOVE_THREAD_BYTES                                                                                               \
    ((size_t)16 << 20) /* of memory that a thread which copies blobs takes, files in maps aside                            \
                        */
struct lk_move_options {
    int threads;                                            /* that copy blobs; 0: 4 */
    void (*tell)(void *arg, const struct lk_move_status *); /* about five times a second, on the caller's thread; or NULL */
    bool (*stop)(void *arg);                                /* true: LK_ESTOPPED soon, to be gone on with later; or NULL */
    void *arg;
};
struct lk_move_result {
    bool resumed;                        /* half of it was there from an earlier call */
    uint64_t blobs, blob_bytes;          /* that the new store has now */
    uint64_t copied_blobs, copied_bytes; /* by this call */
    uint64_t rows, row_bytes;            /* likewise; without the row "format" */
    uint64_t put_rows, deleted_rows;
    struct lk_root rows_root; /* of all rows, equal in both: docs/formats.md */
    double waited_s;          /* for so long nobody could write to the old store */
    int64_t timestamp_ms;     /* of the new store's first commit, behind all of the old one's */
};
/* Copies what the new place lacks: blobs, each checked against its root as it is read, then rows, in transactions of 16
 * MiB or one row; and in the end, while nobody can commit to the old store, what was committed there meanwhile. Rows of
 * both are compared byte by byte before the new store opens for anybody. The old store stays as it was.
 * A call that fails, is stopped or killed leaves half a store, which nothing else opens (LK_EBUSY); the same call goes on
 * with it, and one that still runs then ends by itself. `to` is that or an empty place.
 * LK_EBUSY: a lease of the old store is held, as by training; the message says by whom. LK_EEXISTS: `to` holds something
 * else. LK_EINVAL: both have the same blobs. LK_ECORRUPT: a blob or row of `from` is damaged, or `to` does not give back
 * what it was given. LK_ECONFLICT: others came between for long, or the servers of both are lost in turn; try again.
 * LK_ESTOPPED. Else as lk_store_open_at with LK_WRITE (from) and LK_CREATE (to), lk_blob_put, lk_kv_update. */
int lk_store_move(const struct lk_move_place *from, const struct lk_move_place *to, const struct lk_move_options *,
                  struct lk_move_result *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
