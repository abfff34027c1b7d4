/* What the files of this folder share: the layout of a dataset (README.md, "Formats"). */
#ifndef LOCKSTEP_DATA_DATASET_INTERNAL_H
#define LOCKSTEP_DATA_DATASET_INTERNAL_H
#include "lockstep/data/dataset.h"

#define LK__DATASET_FORMAT "lockstep-dataset-0"
/* The rules by which a file becomes documents. 1: its name says what it is (.jsonl, .gz, .zst). 2: its content does too; an
 * order mark is dropped; lists are records. Where both rules read all files of a dataset alike its manifest says 1, which
 * keeps the root that it had before there were rules 2. */
enum { LK__READERS_BY_NAME = 1, LK__READERS_BY_CONTENT = 2 };
#define LK__DOCUMENT_BYTES 72   /* one row of the document table */
#define LK__INDEX_EVERY    1024 /* tokens between entries of the byte index */

enum lk__dataset_part { LK__TOKENS, LK__ENDS, LK__DOCUMENTS, LK__INDEX, LK__MASK, LK__PARTS };
extern const char *const lk__dataset_part_names[LK__PARTS];
extern const char *const lk__dataset_split_names[2];

#define LK__CONVERSATION UINT32_MAX /* prompt_tokens of a conversation: its mask has no simple form */

struct lk__dataset_row { /* a row of the document table */
    uint64_t source_offset, size_bytes, byte_begin, line;
    uint32_t source, prompt_tokens;
    uint8_t digest[32];
};
void lk__dataset_row_put(const struct lk__dataset_row *, uint8_t out[LK__DOCUMENT_BYTES]);
void lk__dataset_row_get(const uint8_t in[LK__DOCUMENT_BYTES], struct lk__dataset_row *out);

static inline void lk__dataset_put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline uint64_t lk__dataset_get_u64(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* --- writing --------------------------------------------------------------------------------------------- */

/* The five parts of one split, written as the documents come. */
struct lk__dataset_splitter;
/* from_tokens: sizes and digests of documents are those of what their tokens give. */
int lk__dataset_splitter_open(struct lk_store *, const struct lk_tokenizer *, bool from_tokens,
                              struct lk__dataset_splitter **out, struct lk_err *);
/* Adds tokens to the document that is being written; the first `masked` of them are no targets. */
int lk__dataset_splitter_tokens(struct lk__dataset_splitter *, const uint32_t *ids, size_t count, size_t masked,
                                struct lk_err *);
/* Ends the document; row->byte_begin is filled in here. */
int lk__dataset_splitter_document(struct lk__dataset_splitter *, struct lk__dataset_row *row, struct lk_err *);
/* Finishes the blobs and describes them as JSON (a new reference). */
int lk__dataset_splitter_finish(struct lk__dataset_splitter *, json_t **out, struct lk_err *);
void lk__dataset_splitter_free(struct lk__dataset_splitter *); /* NULL is fine; blobs not finished are dropped */
uint64_t lk__dataset_splitter_documents(const struct lk__dataset_splitter *);

/* --- reading --------------------------------------------------------------------------------------------- */

struct lk__dataset_split {
    uint64_t tokens, bytes, documents;
    struct lk_blob parts[LK__PARTS]; /* data NULL: absent */
};
struct lk_dataset {
    struct lk_root root, tokenizer_root;
    json_t *manifest;
    struct lk_tokenizer *tokenizer;
    uint32_t vocab, end, token_bytes, source_count;
    struct lk__dataset_split splits[2];
};

static inline uint32_t lk__dataset_token_at(const struct lk_dataset *d, const struct lk__dataset_split *s, uint64_t at) {
    const unsigned char *p = s->parts[LK__TOKENS].data + at * d->token_bytes;
    uint32_t low = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    return d->token_bytes == 2 ? low : low | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
/* Stream position of the end token behind document `index`. */
static inline uint64_t lk__dataset_end_of(const struct lk__dataset_split *s, uint64_t index) {
    return lk__dataset_get_u64(s->parts[LK__ENDS].data + 8 * index);
}
static inline bool lk__dataset_is_masked(const struct lk__dataset_split *s, uint64_t at) {
    const unsigned char *mask = s->parts[LK__MASK].data;
    return mask && (mask[at >> 3] >> (at & 7) & 1);
}
void lk__dataset_split_row(const struct lk__dataset_split *, uint64_t index, struct lk__dataset_row *out);
/* Text bytes of the split before stream position `at`. */
uint64_t lk__dataset_bytes_before(const struct lk_dataset *, const struct lk__dataset_split *, uint64_t at);

#endif
