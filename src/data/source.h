/* Input files. As one piece of memory: plain files are mapped; .gz, .zst, pipes and standard input are first written,
 * uncompressed, to a nameless file in the store's directory. Or, packed ones, as a stream: a dataset takes .jsonl.gz and
 * .jsonl.zst so, without a copy on the disk. */
#ifndef LOCKSTEP_DATA_SOURCE_H
#define LOCKSTEP_DATA_SOURCE_H
#include "lockstep/base/file.h"
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

/* A packed file, unpacked as far as it is asked for. */
struct lk__stream;
int lk__stream_open(const char *path, struct lk__stream **out, struct lk_err *);
/* Appends to *out until it has `size` bytes or the text ends; damage as in lk__source_pour. */
int lk__stream_fill(struct lk__stream *, size_t size, struct lk_buf *out, struct lk_err *);
bool lk__stream_ended(const struct lk__stream *);
void lk__stream_close(struct lk__stream *); /* NULL is fine */

/* What a packed file says about the size of its text, at no cost; false: nothing, and size is as it was. It may be wrong
 * (gzip's is that of the last member, mod 2^32): who uses it looks again when the text has ended. */
bool lk__source_guess(const char *path, uint64_t *size);

/* Makes all of a source readable at *out. dir: where an unpacked copy may be put. */
int lk__source_open(const char *path, const char *dir, struct lk_map *out, struct lk_err *);

#endif
