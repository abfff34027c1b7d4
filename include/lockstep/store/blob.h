/* Immutable blobs named by their root. Engines stand behind struct lk_blobs_ops (src/store/blob/blob_engine.h). */
#ifndef LOCKSTEP_BLOB_H
#define LOCKSTEP_BLOB_H
#include "lockstep/base/err.h"
#include "lockstep/base/hash.h"
#include "lockstep/store/kv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_blobs;
struct lk_blob_writer;
struct lk_blob {
    const unsigned char *data;
    size_t size;
    struct lk_root root;
};

/* url: "file:DIR" or just DIR, a directory: DIR/ab/cd... (raw bytes, no header), temporaries in DIR/tmp; both are made with
 * LK_CREATE. Opened with LK_READ, it needs no permission to write until a blob is written.
 * Or "s3://BUCKET/PREFIX", objects PREFIX/ab/cd... of a bucket that is there, with a cache of files on this machine
 * (src/store/README.md). The server is asked with the first blob, not here; then every function below may fail with LK_EIO
 * (no answer, or a refusal), LK_ECORRUPT (an answer that is none), LK_EUNSUPPORTED (no libcurl), LK_ENOTFOUND (no bucket,
 * no keys), LK_EINVAL (keys or an endpoint of the wrong form). LK_EINVAL: no name, or a path that is too long.
 * LK_EUNSUPPORTED: no engine for it. LK_ENOTFOUND: absent (not with LK_CREATE). LK_EIO: no permission. LK_ENOMEM. */
int lk_blobs_open(const char *url, enum lk_access, struct lk_blobs **out, struct lk_err *);
void lk_blobs_close(struct lk_blobs *);
/* How many threads, the caller included, may verify a large blob that is opened; 0, as at the beginning:
 * lk_threads_default(). Not while another thread opens blobs. */
void lk_blobs_use_threads(struct lk_blobs *, int threads);

/* Streaming write; finish syncs, renames and gives the root; an existing equal blob is kept, a damaged one replaced. The
 * writer is freed by finish (also a failed one) and by abort, which removes the temporary (a joiner's only closes it).
 * Several writers may run at once, one thread each.
 * LK_EIO: no permission, a full disk, a limit on a file's size, a disk that failed. What failed once fails in every later
 * call and in finish, with the first message. LK_ENOMEM (create). */
int lk_blob_create(struct lk_blobs *, struct lk_blob_writer **out, struct lk_err *);
/* Before the first write, for much that nobody will read soon: the disk takes it from the writer's own memory (1 MiB more
 * until finish or abort), which saves filling and emptying the page cache. A wish: without that memory, on an engine or a
 * file system that has no such writes, or after a first write, it does nothing, and says so to nobody. Not for a sized
 * writer (an assertion). */
void lk_blob_past_cache(struct lk_blob_writer *);
int lk_blob_write(struct lk_blob_writer *, const void *data, size_t size, struct lk_err *);
int lk_blob_finish(struct lk_blob_writer *, struct lk_root *out, struct lk_err *);
void lk_blob_abort(struct lk_blob_writer *);
/* The three in one. */
int lk_blob_put(struct lk_blobs *, const void *data, size_t size, struct lk_root *out, struct lk_err *);

/* One blob of known size written by several processes that see the same store; bytes and root are those of lk_blob_put.
 *   1. One process, the creator, creates it and tells the others its name; they join.
 *   2. Each writes its ranges, in any order and from any threads, and syncs. Bytes nobody writes are zeros; where ranges
 *      overlap, the later write counts.
 *   3. When all have synced, any of them hashes leaves (1 MiB each, lk_leaf_count(size) of them) and gives them to the
 *      creator.
 *   4. The creator finishes: root, rename, sync. It trusts the leaves: wrong ones, or a write after step 2, show when the
 *      blob is opened with verify.
 * Joiners abort when the creator has finished, or earlier when they are done. A failed write or sync fails every later call
 * on that writer, as a sync tried again could lie. When the creator dies its temporary is an orphan: joiners' calls fail at
 * the latest when they hash, and lk_blobs_list removes the file. These writers do not take lk_blob_write and
 * lk_blob_finish, the streaming ones nothing of what follows (assertions). */
#define LK_BLOB_NAME_MAX 128
/* Errors of all below, besides those said at each: LK_EIO, LK_ENOMEM as of the streaming writer. */
/* Takes the disk space now, so that a full disk is an LK_EIO here and not in the middle of a write (where the file system
 * can reserve). LK_EUNSUPPORTED: the engine has no such blobs. LK_EINVAL: over 2^63 - 1 bytes. */
/* S3: the processes are of one machine and share its cache, else joining is LK_EUNSUPPORTED. */
int lk_blob_create_sized(struct lk_blobs *, uint64_t size, struct lk_blob_writer **out, struct lk_err *);
/* What lk_blob_join wants; text without '/' or space. */
void lk_blob_writer_name(const struct lk_blob_writer *, char name[LK_BLOB_NAME_MAX]);
/* LK_EINVAL: not such a name, or the blob has another size. LK_ENOTFOUND: not in this store (any more). */
int lk_blob_join(struct lk_blobs *, const char *name, uint64_t size, struct lk_blob_writer **out, struct lk_err *);
/* A range beyond the blob's size is LK_EINVAL, nothing of it is written. Threads: several may write with one writer. */
int lk_blob_write_at(struct lk_blob_writer *, uint64_t offset, const void *data, size_t size, struct lk_err *);
/* Makes durable what this writer wrote; after its last lk_blob_write_at returned. */
int lk_blob_sync(struct lk_blob_writer *, struct lk_err *);
/* Reads leaves first .. first + count - 1 back from the store and hashes them; leaves: (count). Beyond the last leaf:
 * LK_EINVAL. The creator has ended and its file is gone: LK_ENOTFOUND. Threads: several may hash with one writer. */
int lk_blob_leaves(struct lk_blob_writer *, size_t first, size_t count, struct lk_root *leaves, struct lk_err *);
/* The creator only. leaves: (lk_leaf_count(size)), may be NULL when size is 0. Frees the writer as lk_blob_finish does; an
 * existing equal blob is kept, a damaged one replaced. */
int lk_blob_finish_leaves(struct lk_blob_writer *, const struct lk_root *leaves, struct lk_root *out, struct lk_err *);

/* Maps a blob read-only. verify: hash all of it first; damage is LK_ECORRUPT that names the root, the file and the
 * directory. Absent: LK_ENOTFOUND. No permission, no descriptor or a disk that failed: LK_EIO. No address space for the
 * map: LK_ENOMEM. */
int lk_blob_open(struct lk_blobs *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
void lk_blob_close(struct lk_blob *);
/* The first bytes, at most `size`, without the rest and unchecked: what kind of thing it is. *got: how many there were.
 * Errors: as lk_blob_open without verify. */
int lk_blob_peek(struct lk_blobs *, const struct lk_root *, void *out, size_t size, size_t *got, struct lk_err *);
bool lk_blob_exists(struct lk_blobs *, const struct lk_root *);
/* When it was written, or found by a writer of the same bytes; Unix ms. LK_ENOTFOUND: absent. LK_EIO. */
int lk_blob_modified(struct lk_blobs *, const struct lk_root *, int64_t *out_ms, struct lk_err *);
/* LK_ENOTFOUND: absent. LK_EIO: not permitted, or the disk failed. */
int lk_blob_delete(struct lk_blobs *, const struct lk_root *, struct lk_err *);
/* The path of a blob's file for messages and tools; out has at least 4,096 bytes. */
char *lk_blob_path(struct lk_blobs *, const struct lk_root *, char *out);

typedef int lk_blob_list_fn(void *arg, const struct lk_root *, uint64_t size_bytes, int64_t modified_ms);
/* Order: by root. Files of dead writers in tmp/ older than keep_tmp_ms are removed when keep_tmp_ms >= 0 (S3: uploads that
 * were begun so long ago and not finished, whoever's they are; a writer whose upload that was begins it again). fn
 * returning non-zero ends the listing and is returned. LK_EIO: a folder that cannot be read. LK_ENOMEM. */
int lk_blobs_list(struct lk_blobs *, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
