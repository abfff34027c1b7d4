/* Input files: what they are, and their text, as one piece of memory or as a stream. Pipes and standard input are first
 * written, as they come, to a nameless file, so that everything can be read twice. */
#ifndef LOCKSTEP_DATA_SOURCE_PRIVATE_H
#define LOCKSTEP_DATA_SOURCE_PRIVATE_H
#include "data/unpack.h"
#include "lockstep/base/file.h"
#include "lockstep/data/source.h"

enum lk__data_text_kind { LK__PLAIN, LK__JSONL };
/* How records lie in the text. LIST: one JSON array of them; VALUES: records written over several lines. A stream gives
 * both as lines, byte by byte at the same places: what stands between records becomes a line end, a line end in a record a
 * space. */
enum lk__data_shape { LK__LINES, LK__LIST, LK__VALUES };

struct lk__data_source {
    const char *path; /* borrowed */
    int fd;           /* of the nameless file, or -1 */
    uint64_t packed_size;
    enum lk__data_packing packing;
    enum lk__data_text_kind kind;
    enum lk__data_shape shape;
    size_t skip;    /* bytes of a byte order mark */
    bool as_before; /* the first rules, by the name alone, read this file in the same way */
};
/* "standard input" for "-". */
const char *lk__data_source_shown(const char *path);
/* By the name: records, or anything else. */
enum lk__data_text_kind lk__data_source_kind(const char *path);

/* Looks at a file: an absent one, a folder, a packing that is not what the name says, binary data are errors. dir: where a
 * pipe's bytes are kept; NULL: in memory. */
int lk__data_source_look(const char *path, const char *dir, const struct lk_source_options *, struct lk__data_source *out,
                         struct lk_err *);
void lk__data_source_close(struct lk__data_source *); /* a zeroed struct is fine */
/* To read its bytes by pread: its own, which stays open, or a new one, which the caller closes. */
int lk__data_source_fd(const struct lk__data_source *, int *fd, struct lk_err *);

/* Its text as a stream, unpacked as far as it is asked for. */
struct lk__data_stream;
int lk__data_stream_open(const struct lk__data_source *, struct lk__data_stream **out, struct lk_err *);
/* Appends to *out until it has `size` bytes or the text ends. Damage, truncation and trailing rubbish are LK_EINVAL that
 * names file and byte. Members, frames and streams behind one another are one text. */
int lk__data_stream_fill(struct lk__data_stream *, size_t size, struct lk_buf *out, struct lk_err *);
bool lk__data_stream_ended(const struct lk__data_stream *);
uint64_t lk__data_stream_offset(const struct lk__data_stream *); /* how far the file was read */
void lk__data_stream_close(struct lk__data_stream *);            /* NULL is fine */
/* The same from memory, given to the library in pieces of `chunk` bytes; for tests and fuzzing. */
int lk__data_stream_memory(enum lk__data_packing, enum lk__data_shape, const void *data, size_t size, size_t chunk,
                           const char *name, struct lk__data_stream **out, struct lk_err *);

/* Gets the text in pieces; non-zero stops and is returned. */
typedef int lk__data_sink_fn(void *arg, const void *data, size_t size, struct lk_err *);
int lk__data_source_pour(const struct lk__data_source *, lk__data_sink_fn *sink, void *arg, struct lk_err *);

/* What a packed file says about the size of its text, at no cost; false: nothing, and size is as it was. It may be wrong
 * (gzip's is that of the last member, mod 2^32): who uses it looks again when the text has ended. */
bool lk__data_source_guess(const struct lk__data_source *, uint64_t *size);

/* All of a text as one piece of memory: a map of the file where it is one already. */
struct lk__data_text {
    const uint8_t *data;
    size_t size;
    struct lk_map map;
};
/* dir: where an unpacked copy is put; NULL: in memory. */
int lk__data_text_open(const struct lk__data_source *, const char *dir, struct lk__data_text *out, struct lk_err *);
void lk__data_text_close(struct lk__data_text *);

/* --- several files ----------------------------------------------------------------------------------------- */

struct lk__data_found {
    char *path;
    const char *name; /* what enters a dataset: the last name of a path that was given, the path below a folder */
};
struct lk__data_found_list {
    struct lk__data_found *list;
    size_t count, capacity;
};
/* Files as they are given, folders as the files below them. */
int lk__data_sources_find(const char *const *paths, size_t count, const struct lk_source_options *,
                          struct lk__data_found_list *out, struct lk_err *);
void lk__data_found_release(struct lk__data_found_list *);

void lk__data_source_note(const struct lk_source_options *, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
