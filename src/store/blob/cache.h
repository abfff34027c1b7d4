/* Blobs of another place, kept in a folder of this machine for readers to map: a directory of blobs (blob_dir.c) for each
 * place, and one limit for all. Several processes of one user share it. Nothing in it is believed: a process checks a file
 * against its root when it opens it for the first time, and one that does not fit is removed. */
#ifndef LK_BLOB_CACHE_H
#define LK_BLOB_CACHE_H
#include "store/blob/blob_engine.h"

struct lk__blob_cache;

/* Of the place that this text names, so that a blob of one place is not found at another; below LOCKSTEP_CACHE,
 * $XDG_CACHE_HOME/lockstep/blobs or ~/.cache/lockstep/blobs; made, for this user only. LOCKSTEP_CACHE_LIMIT: bytes, with K,
 * M, G or T; 32G by default. LK_EINVAL: no such number, no place. LK_EIO: another user's, no permission. */
int lk__blob_cache_open(const char *place, struct lk__blob_cache **out, struct lk_err *);
/* The folder of all places, which may not be there yet; "": none is known. NULL: out of memory. The caller frees it. */
char *lk__blob_cache_place(void);
void lk__blob_cache_close(struct lk__blob_cache *);
/* The directory itself, for writers: what they finish is in the cache. Call lk__blob_cache_added then; fits: it is known to
 * fit its root. */
struct lk_blobs *lk__blob_cache_dir(struct lk__blob_cache *);
void lk__blob_cache_added(struct lk__blob_cache *, const struct lk_root *, bool fits);

/* A blob that is there, checked. LK_ENOTFOUND: not there, or it was damaged and is removed. threads: as lk_blobs'. */
int lk__blob_cache_get(struct lk__blob_cache *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
void lk__blob_cache_remove(struct lk__blob_cache *, const struct lk_root *);

/* One process at a time fetches a blob; the others wait for it. */
struct lk__blob_fetch {
    struct lk_root root;
    int fd; /* to write the blob to, empty at first; -1: another process has fetched it meanwhile */
    char *path;
};
int lk__blob_cache_fetch(struct lk__blob_cache *, const struct lk_root *, struct lk__blob_fetch *out, struct lk_err *);
/* Takes the disk's room for it; makes room where the disk is full. */
int lk__blob_cache_reserve(struct lk__blob_cache *, struct lk__blob_fetch *, uint64_t size, struct lk_err *);
/* whole: the caller has checked it against its root; else it is thrown away. Frees what the fetch holds. */
int lk__blob_cache_fetched(struct lk__blob_cache *, struct lk__blob_fetch *, bool whole, struct lk_err *);

/* Removes what was used longest ago, but nothing of the last minute, until all places fit; by itself after each 1/32 of the
 * limit.
 */
void lk__blob_cache_shrink(struct lk__blob_cache *, uint64_t limit_bytes);

#endif
