/* New files that get their names together, or not at all. */
#ifndef LOCKSTEP_DATA_DATASET_EXPORT_FILES_H
#define LOCKSTEP_DATA_DATASET_EXPORT_FILES_H
#include "lockstep/base/err.h"
#include <stddef.h>
#include <stdint.h>

struct lk__dataset_files;
/* dir is made if absent. */
int lk__dataset_files_open(const char *dir, struct lk__dataset_files **out, struct lk_err *);
/* Begins dir/NAME, which must not exist (LK_EEXISTS); what is written goes there until the next begin. */
int lk__dataset_files_begin(struct lk__dataset_files *, const char *name, struct lk_err *);
int lk__dataset_files_write(struct lk__dataset_files *, const void *data, size_t size, struct lk_err *);
int lk__dataset_files_write_le(struct lk__dataset_files *, uint64_t value, int bytes,
                               struct lk_err *); /* little-endian, 1 to 8 bytes */
/* Names the files, in the order of their begins; on failure none has its name. file (may be NULL) is told of each. */
int lk__dataset_files_name(struct lk__dataset_files *, void (*file)(void *arg, const char *path, uint64_t size_bytes),
                           void *arg, struct lk_err *);
/* Drops what has no name yet. NULL is fine. */
void lk__dataset_files_close(struct lk__dataset_files *);

#endif
