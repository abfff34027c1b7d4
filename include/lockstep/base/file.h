/* Files: whole reads, atomic durable writes, read-only maps. */
#ifndef LOCKSTEP_FILE_H
#define LOCKSTEP_FILE_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a whole regular file (or pipe) into *out, at most limit_bytes (more: LK_EINVAL that names the limit). */
int lk_file_read(const char *path, size_t limit_bytes, struct lk_buf *out, struct lk_err *);
/* Bytes of a UTF-8 byte order mark at the front of a text: 3, or 0 where there is none. Every reader of a text begins
 * behind it: Windows programs put it there, and it is no part of what was written. */
size_t lk_skip_bom(const void *data, size_t size);
/* What a file is that a download left in the place of another: "a Git LFS pointer, ..." or "an HTML page, ...", with what
 * to do about it; NULL for anything else. Static. */
const char *lk_file_instead(const void *data, size_t size);
/* Writes path.tmp.PID.N, fsyncs, renames over path, fsyncs the folder. On failure path is as it was and no temporary stays;
 * only when the last step, the folder's fsync, fails, the new content is in place already, perhaps not durably.
 * A device or a pipe at path is written to and stays what it is. */
int lk_file_write_atomic(const char *path, const void *data, size_t size, struct lk_err *);
/* mkdir -p. */
int lk_dir_make(const char *path, struct lk_err *);
/* Removes a tree, no error if it is not there. */
int lk_dir_remove(const char *path, struct lk_err *);
int lk_dir_sync(const char *path, struct lk_err *);
bool lk_file_exists(const char *path);

struct lk_map {
    const unsigned char *data;
    size_t size;
};
/* Maps a whole file read-only; an empty file gives size 0 and data non-NULL. */
int lk_map_open(const char *path, struct lk_map *out, struct lk_err *);
void lk_map_close(struct lk_map *);

#ifdef __cplusplus
}
#endif
#endif
