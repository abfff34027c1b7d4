/* Datasets: tokens with documents, sources and loss masks behind one root. Byte tables: docs/formats.md.
 *
 * A dataset has two splits, train and held-out. Each is one stream of tokens: the end token E, then each document's tokens
 * followed by E:  E d1 E d2 E ... dn E.  With context T, sequence n of a stream of S tokens has inputs stream[nT .. nT+T)
 * and targets stream[nT+1 .. nT+T]. The training split uses the floor((S-1)/T) whole sequences; evaluation uses
 * ceil((S-1)/T), the last one short, so that every token but the first is predicted once. */
#ifndef LOCKSTEP_DATASET_H
#define LOCKSTEP_DATASET_H
#include "lockstep/data/chat.h"
#include "lockstep/data/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lk_split { LK_TRAIN = 0, LK_HELD_OUT = 1 };

struct lk_dataset_source {
    const char *path; /* as given; "-" is standard input */
};
/* What is held out. TAIL: the bytes at the end of all sources; a plain text is cut after a newline (else between UTF-8
 * characters), jsonl between records. DOCUMENT: records and texts from all sources, each by the seed and its own text, so
 * that no other document changes that and equal ones go the same way; a text of which the share is 1,024 bytes or more
 * gives its own end, and one text alone always does, as with TAIL. */
enum lk_holdout { LK_HOLDOUT_TAIL, LK_HOLDOUT_DOCUMENT };
/* Whether the tokenizer's first token (lk_tokenizer_begin) stands before each text and each prompt, as generation puts it,
 * and is no target. AUTO: if there is one. Conversations begin as their template says. */
enum lk_bos { LK_BOS_NO, LK_BOS_AUTO, LK_BOS_YES };

struct lk_dataset_options {
    double holdout; /* share of the bytes, or of the documents; 0 <= holdout <= 0.5 */
    enum lk_holdout holdout_by;
    uint64_t holdout_seed;
    enum lk_bos bos;
    struct lk_source_options source; /* how files are read */
    const char *tokenizer_name;      /* for messages */
    enum lk_chat chat;               /* how "messages" of .jsonl records are written; LK_CHAT_NONE: they are an error */
    int (*progress)(void *arg, uint64_t bytes_done, uint64_t bytes_total /* 0: unknown */);
    void *progress_arg;
};
/* Reads what lockstep/data/source.h names: plain texts (one document a file, or split) and records ({"text": ...} or
 * {"prompt": ..., "response": ...} or {"messages": [{"role": ..., "content": ...}, ...]}). Options of zeros are those of
 * the first release. Puts blobs and manifest, returns the root; names nothing. Equal input gives an equal root for any
 * number of threads. Errors name file, line and byte. */
int lk_dataset_build(struct lk_store *, const struct lk_dataset_source *sources, size_t count,
                     const struct lk_root *tokenizer, const struct lk_dataset_options *, struct lk_pool *,
                     struct lk_root *out, struct lk_err *);

struct lk_dataset;
/* verify: hash every blob first (LK_ECORRUPT names the part and the file). Opening without it checks sizes only. */
int lk_dataset_open(struct lk_store *, const struct lk_root *, bool verify, struct lk_dataset **out, struct lk_err *);
void lk_dataset_close(struct lk_dataset *);
const struct lk_root *lk_dataset_root(const struct lk_dataset *);
const struct lk_root *lk_dataset_tokenizer(const struct lk_dataset *);
const json_t *lk_dataset_manifest(const struct lk_dataset *); /* borrowed */
uint32_t lk_dataset_vocab(const struct lk_dataset *);

uint64_t lk_dataset_tokens(const struct lk_dataset *, enum lk_split); /* S above */
uint64_t lk_dataset_bytes(const struct lk_dataset *, enum lk_split);  /* text bytes behind the split */
uint64_t lk_dataset_documents(const struct lk_dataset *, enum lk_split);
uint64_t lk_dataset_sequences(const struct lk_dataset *, enum lk_split, uint32_t context);

/* Sequence n in O(1): writes up to context inputs, targets (UINT32_MAX where the loss is masked: prompts of jsonl
 * records, and in conversations all but what the assistant says), and document_start[t] = position in this sequence where
 * t's document began (0 when it began before the sequence; a document begins with the E before it). Any output may be NULL.
 * Returns the number of positions (< context only in the last held-out sequence). Thread-safe. */
uint32_t lk_dataset_sequence(const struct lk_dataset *, enum lk_split, uint64_t n, uint32_t context, uint32_t *inputs,
                             uint32_t *targets, uint32_t *document_start);

/* Sequences whose targets are all masked: nothing is learned from them. Looks at the first `looked_at` sequences, those of
 * at most `most_tokens` tokens: a bit a token. */
struct lk_untargeted {
    uint64_t looked_at, count, first; /* first: the first such sequence, when count is above 0 */
};
struct lk_untargeted lk_dataset_untargeted(const struct lk_dataset *, enum lk_split, uint32_t context,
                                           uint64_t most_tokens);

struct lk_document {
    uint64_t index, token_begin, token_end; /* [begin, end) in the stream, without the end tokens */
    uint32_t source;                        /* index of the source file */
    const char *source_path;                /* borrowed; the file's base name (below a folder that was
                                               given, its path there); other directories do not enter a dataset */
    uint64_t source_offset, size_bytes;     /* where its text (jsonl: its line) begins in the uncompressed source; length of
                                               its text */
    uint64_t line;                          /* jsonl: 1-based line; else 0 */
    struct lk_root digest; /* SHA-256 of its text; that and size_bytes as its tokens give the text back, which
                              is another form where the tokenizer normalizes */
};
int lk_dataset_document(const struct lk_dataset *, enum lk_split, uint64_t index, struct lk_document *out, struct lk_err *);
/* The document that token position `token` of the stream lies in (its end token counts to it; position 0 to the first). */
uint64_t lk_dataset_document_at(const struct lk_dataset *, enum lk_split, uint64_t token);
/* The byte range in the document's text of the tokens [begin, end) of one document. */
int lk_dataset_byte_range(const struct lk_dataset *, enum lk_split, uint64_t document, uint64_t begin, uint64_t end,
                          uint64_t *byte_begin, uint64_t *byte_end, struct lk_err *);
/* The same tokens for other trainers: files of llm.c, of Megatron-LM, of numpy (docs/formats.md, "Exported datasets"). */
enum lk_dataset_format { LK_DATASET_LLMC, LK_DATASET_MEGATRON, LK_DATASET_NPY };
struct lk_dataset_export_options {
    enum lk_dataset_format format;
    bool splits[2];        /* by enum lk_split: which ones; both false: both, without those that are empty */
    bool without_masks;    /* llm.c's and Megatron's files hold no loss masks: leave them out instead of failing */
    uint64_t shard_tokens; /* llm.c: at most this many tokens a file; 0: 100,000,000; at most 2^31 - 1 */
    int (*progress)(void *arg, uint64_t tokens_done, uint64_t tokens_total); /* non-zero stops: LK_ESTOPPED */
    void (*file)(void *arg, const char *path, uint64_t size_bytes);          /* each file, once all are there */
    void *arg;                                                               /* (either function may be NULL) */
};
/* Writes dir/NAME_train..., dir/NAME_val..., dir made if absent. The files get their names when all are written and synced,
 * all or none; one that exists is LK_EEXISTS. Open the dataset with verify. */
int lk_dataset_export(const struct lk_dataset *, const char *dir, const char *name,
                      const struct lk_dataset_export_options *, struct lk_err *);

/* Checks every blob's hash and the invariants between parts (document ends ascending, ids below the vocabulary, ...). */
int lk_dataset_verify(struct lk_store *, const struct lk_root *, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
