/* What every command reads texts with. A file is recognised by its content: gzip, zstd, xz and bzip2 by their first bytes,
 * records by the name (.jsonl, .ndjson, .json, in any case, also before .gz and its like) or by `format`. A byte order mark
 * is dropped; UTF-16, archives and binary data are refused by name, unless LK_FORMAT_TEXT takes them as they are. A folder
 * stands for all files below it, in the order of their paths' bytes, without hidden ones. How it works: src/data/README.md.
 */
#ifndef LOCKSTEP_SOURCE_H
#define LOCKSTEP_SOURCE_H
#include "lockstep/base/err.h"
#include "lockstep/data/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lk_format { LK_FORMAT_AUTO, LK_FORMAT_TEXT, LK_FORMAT_JSONL };

struct lk_source_options {
    enum lk_format format;
    const char *text_key; /* records: the one key that is read, instead of "text", "prompt" and "response", "messages" */
    const char *messages_key; /* or the one key whose conversation is read; NULL: neither was chosen */
    struct lk_bytes split_at; /* plain texts: what stands between documents and belongs to none; size 0: a file is one */
    uint64_t skip_bad;        /* so many bad records are left out instead of ending the work; all of them are noted */
    /* Remarks worth a line: a byte order mark, hidden files, bad records. NULL: none. Called by the caller's thread. */
    void (*note)(void *arg, const char *text);
    void *note_arg;
};

/* The texts of files, for what learns from all of them at once: a plain text (or each piece of it), the text of a record,
 * its prompt and its response, the contents of its messages; empty ones are left out. Lives until lk_texts_release. */
struct lk_texts {
    struct lk_bytes *list;
    size_t count;
    struct lk_texts_memory *memory;
};
/* paths: files, folders, "-" for standard input. LK_EINVAL: what cannot be read as text, or a bad record (file, line,
 * byte); LK_ENOTFOUND, LK_EIO, LK_ENOMEM. *out is empty then. */
int lk_texts_read(const char *const *paths, size_t count, const struct lk_source_options *, struct lk_texts *out,
                  struct lk_err *);
void lk_texts_release(struct lk_texts *);

/* A file line by line, for what reads it once: unpacked, without a byte order mark. Of records (.jsonl, .json) each line is
 * one, also where the file is a list of them. One thread. */
struct lk_lines;
/* path: a file, or "-" for standard input, which is kept in a nameless file of the folder dir (NULL: in memory). Errors as
 * of lk_texts_read. */
int lk_lines_open(const char *path, const char *dir, const struct lk_source_options *, struct lk_lines **out,
                  struct lk_err *);
/* The next line with its end, which only the last one may lack; until the next call. LK_ENOTFOUND: there is none. Else
 * LK_EINVAL (damaged packing), LK_EIO, LK_ENOMEM. */
int lk_lines_next(struct lk_lines *, struct lk_bytes *line, struct lk_err *);
/* Packed bytes of the file, and how many of them were read at least: for progress. 0: not known. */
void lk_lines_progress(const struct lk_lines *, uint64_t *done, uint64_t *size);
void lk_lines_close(struct lk_lines *); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
