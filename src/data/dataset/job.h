/* One piece of work of a build, done by any thread: a function of the source's bytes alone. */
#ifndef LOCKSTEP_DATA_JOB_H
#define LOCKSTEP_DATA_JOB_H
#include "data/chat.h"
#include "data/dataset/internal.h"
#include "data/jsonl.h"
#include "data/tokenizer/internal.h"

#define LK__JOB_BYTES ((size_t)256 << 10)

enum lk__dataset_job_kind {
    LK__JOB_DIGEST, /* the digest of a plain document */
    LK__JOB_PIECE,  /* a piece of a plain document, cut where words surely end */
    LK__JOB_LINES,  /* whole lines of a .jsonl */
    LK__JOB_TEXTS   /* whole documents of a plain text, with what stands between them */
};
struct lk__dataset_job_document {
    struct lk__dataset_row row; /* row.line counts from 1 at the job's first line */
    size_t tokens, masked;
    enum lk_split split;
    size_t spans; /* of a conversation: how many of the job's spans are its; else 0, and the first `masked` tokens are no
                    targets */
};
struct lk__dataset_job_span { /* tokens of a conversation that are all targets, or none is */
    uint32_t tokens;
    bool target;
};
/* Which documents are held out when it goes by documents: those whose number is at most `most`
 * (lk__dataset_holdout_number). */
struct lk__dataset_holdout {
    bool by_document;
    uint64_t seed, most;
    bool none; /* `most` does not count: no number is low enough, not even 0 */
};
/* SHA-256 of "lockstep holdout", the seed and the text's SHA-256: its first eight bytes. */
uint64_t lk__dataset_holdout_number(uint64_t seed, const struct lk_root *text);
static inline enum lk_split lk__dataset_holdout_split(const struct lk__dataset_holdout *h, uint64_t number) {
    return !h->none && number <= h->most ? LK_HELD_OUT : LK_TRAIN;
}

struct lk__dataset_job_rules {        /* how a build reads; the same for all jobs */
    const struct lk__data_chat *chat; /* the template of conversations, or NULL */
    struct lk__data_record_keys keys;
    struct lk_bytes split_at;
    struct lk__dataset_holdout holdout;
    uint64_t skip_bad;
};
#define LK__BAD_NOTED 8 /* bad records of a job, and of a build, that are told one by one */
struct lk__dataset_bad {
    uint64_t line, byte; /* 1-based in the job; in the source */
    char why[200];
};
struct lk__dataset_job {
    enum lk__dataset_job_kind kind;
    const uint8_t *text;
    size_t size;
    uint64_t offset;            /* of text in its source */
    size_t held_out;            /* documents from this byte of text on are held out, unless it goes by documents */
    bool first, last;           /* the first, the last piece of its document */
    bool by_number;             /* a plain document: its number decides, not `split` */
    enum lk_split split;        /* of a plain document */
    struct lk__dataset_row row; /* the last piece: its document */
    const struct lk__dataset_job_rules *rules;
    /* results */
    struct lk_root digest;
    struct lk_tokens tokens;
    struct lk_buf spans; /* struct lk__dataset_job_span */
    struct lk__dataset_job_document *documents;
    size_t document_count, document_capacity;
    uint64_t lines, empty, bad, tools; /* bad: records left out; tools: conversations with a "tools" beside them */
    uint64_t least, greatest;          /* numbers of its documents, where it goes by documents */
    struct lk__dataset_bad first_bad[LK__BAD_NOTED];
    int code;
    struct lk_err err;
    uint64_t err_line, err_byte; /* 1-based in the job; in the source */
};
struct lk__dataset_job_thread { /* one thread's memory */
    struct lk__tokenizer_encoder *encoder;
    struct lk_buf text, rendered, messages, spans;
};
void lk__dataset_job_run(struct lk__dataset_job *, const struct lk_tokenizer *, struct lk__dataset_job_thread *);
void lk__dataset_job_begin(struct lk__dataset_job *,
                           const struct lk__dataset_job *what); /* keeps the memory of the job before */
void lk__dataset_job_release(struct lk__dataset_job *);
void lk__dataset_job_thread_release(struct lk__dataset_job_thread *);

#endif
