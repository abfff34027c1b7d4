/* One piece of work of a build, done by any thread: a function of the source's bytes alone. */
#ifndef LOCKSTEP_DATA_JOB_H
#define LOCKSTEP_DATA_JOB_H
#include "data/chat.h"
#include "data/dataset/internal.h"
#include "data/tokenizer/internal.h"

#define LK__JOB_BYTES ((size_t)256 << 10)

enum lk__job_kind {
    LK__JOB_DIGEST, /* the digest of a plain document */
    LK__JOB_PIECE,  /* a piece of a plain document, cut where words surely end */
    LK__JOB_LINES   /* whole lines of a .jsonl */
};
struct lk__job_document {
    struct lk__row row; /* line counts from 1 at the job's first line */
    size_t tokens, masked;
    size_t runs; /* of a conversation: how many of the job's runs are its; else 0, and the first `masked` tokens are no
                    targets */
};
struct lk__job_run { /* tokens of a conversation that are all targets, or none is */
    uint32_t tokens;
    bool target;
};
struct lk__job {
    enum lk__job_kind kind;
    const uint8_t *text;
    size_t size;
    uint64_t offset;             /* of text in its source */
    size_t held_out;             /* lines from this byte of text on are held out */
    bool last;                   /* the last piece of its document */
    enum lk_split split;         /* of a plain document */
    struct lk__row row;          /* the last piece: its document */
    const struct lk__chat *chat; /* lines: the template of conversations, or NULL */
    /* results */
    struct lk_root digest;
    struct lk_tokens tokens;
    struct lk_buf runs; /* struct lk__job_run */
    struct lk__job_document *documents;
    size_t document_count, document_capacity;
    size_t first_held_out; /* index of the first held-out document */
    uint64_t lines, empty;
    int code;
    struct lk_err err;
    uint64_t err_line, err_byte; /* 1-based in the job; in the source */
};
struct lk__job_thread { /* one thread's memory */
    struct lk__encoder *encoder;
    struct lk_buf text, rendered, messages, parts;
};
void lk__job_run(struct lk__job *, const struct lk_tokenizer *, struct lk__job_thread *);
void lk__job_begin(struct lk__job *, const struct lk__job *what); /* keeps the memory of the job before */
void lk__job_release(struct lk__job *);
void lk__job_thread_release(struct lk__job_thread *);

#endif
