/* Input files as one piece of memory each: plain files are mapped; .gz, .zst, pipes and standard input are first written,
 * uncompressed, to a nameless file in the store's directory. */
#ifndef LOCKSTEP_DATA_SOURCE_H
#define LOCKSTEP_DATA_SOURCE_H
#include "lockstep/file.h"
#include <stdint.h>

enum lk__text_kind { LK__PLAIN, LK__JSONL };
enum lk__packing { LK__UNPACKED, LK__GZIP, LK__ZSTD };

/* By the ending: .jsonl or anything else, each with .gz or .zst behind it. */
enum lk__text_kind lk__source_kind(const char *path);
enum lk__packing lk__source_packing(const char *path);
/* The last part of a path, which is what enters a dataset. */
const char *lk__source_name(const char *path);

/* Gets the uncompressed bytes in pieces; non-zero stops and is returned. */
typedef int lk__sink_fn(void *arg, const void *data, size_t size, struct lk_err *);
/* Reads path ("-": standard input) through its packing. Damage, truncation and trailing rubbish are LK_EINVAL that names
 * file and byte. Multi-member gzip and multi-frame zstd are one text. */
int lk__source_pour(const char *path, lk__sink_fn *sink, void *arg, struct lk_err *);
/* Unpacks memory instead of a file; for tests and fuzzing. chunk: bytes given to the library at a time. */
int lk__unpack(enum lk__packing, const void *data, size_t size, size_t chunk, const char *path, lk__sink_fn *sink,
               void *arg, struct lk_err *);

/* *again: the path can be read a second time, it is a regular file of *size bytes. An absent file is an error. */
int lk__source_check(const char *path, bool *again, uint64_t *size, struct lk_err *);

/* Makes all of a source readable at *out. dir: where an unpacked copy may be put. */
int lk__source_open(const char *path, const char *dir, struct lk_map *out, struct lk_err *);

#endif
