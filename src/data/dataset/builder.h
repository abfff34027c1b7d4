/* A build in progress: build.c measures sources and writes the manifest, rounds.c turns sources into tokens. */
#ifndef LOCKSTEP_DATA_BUILDER_H
#define LOCKSTEP_DATA_BUILDER_H
#include "data/dataset/job.h"
#include "data/source.h"
#include <string.h>

#define LK__WINDOW 32 /* jobs that run together */

struct lk__dataset_input {
    const char *path, *name; /* name: what enters the dataset */
    struct lk__data_source source;
    bool looked;               /* at the source */
    bool sized;                /* size is known, or guessed */
    bool guessed;              /* size is what the packed file claims, and may be wrong */
    uint64_t size;             /* uncompressed bytes */
    struct lk__data_text text; /* mapped, while it is read */
    struct lk_root root;
};

struct lk__dataset_window {
    struct lk__dataset_job jobs[LK__WINDOW];
    size_t count;
};

struct lk__dataset_builder {
    struct lk_store *store;
    struct lk_tokenizer *t;
    struct lk__data_chat chat;
    struct lk__dataset_job_rules rules;
    uint32_t begin; /* the token before each text and record, or UINT32_MAX */
    const struct lk_dataset_options *options;
    struct lk_pool *pool;
    struct lk__dataset_input *inputs;
    size_t input_count;
    struct lk__data_found_list found;
    uint64_t total, cut, done; /* bytes of all inputs; held out from `cut` on; progress */
    bool total_known;
    struct lk__dataset_splitter *splits[2];
    struct lk__dataset_job_thread *threads;
    /* of the present source */
    struct lk__dataset_window windows[2], *now, *before; /* jobs to run; jobs that have run and are to be written */
    size_t input;
    struct lk_hasher *hasher;
    struct lk__data_stream *stream; /* NULL: it is mapped */
    struct lk_buf text, next;       /* of a stream: for the jobs of this round, and of the next one */
    size_t fill;                    /* bytes that `next` shall have */
    struct lk_root digest;          /* of the plain document that is being written */
    uint64_t lines, empty;          /* lines of the present source; documents without a byte */
    char first_bad[512];
    uint64_t bad_noted;       /* bad records that were told so far, over restarts of the build */
    struct lk_buf notes;      /* messages of this round, each with a zero byte behind it */
    uint64_t bad, tools;      /* records left out; conversations with "tools" beside them */
    uint64_t least, greatest; /* of the documents for which their number decides */
    /* how the tiles WRITE and FILL of a round ended */
    int write_code, fill_code;
    struct lk_err write_err, fill_err;
};

static inline const char *lk__dataset_input_name(const struct lk__dataset_input *in) {
    return lk__data_source_shown(in->path);
}

/* Adds one source to the splits; begin: bytes of the inputs before it. *wrong: a guessed size was not true, so the cut may
 * not be either, and the build has to begin anew. */
int lk__dataset_builder_add(struct lk__dataset_builder *, size_t input, uint64_t begin, bool *wrong, struct lk_err *);
void lk__dataset_builder_release_source(struct lk__dataset_builder *); /* frees what it took, after a failure too */

#endif
