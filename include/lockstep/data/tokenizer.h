/* Byte-pair encoding on bytes, with the patterns of the families in use, and on characters (SentencePiece). Algorithms and
 * the rule for invalid UTF-8: src/data/tokenizer/README.md. A tokenizer is immutable and may be used by any number of
 * threads; it keeps the memory of its encoding threads (words seen and their ids, up to 36 MB a thread) for the next call,
 * until it is freed. */
#ifndef LOCKSTEP_TOKENIZER_H
#define LOCKSTEP_TOKENIZER_H
#include "lockstep/base/thread.h"
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_TOKEN_END "<|endoftext|>" /* the one special token that training adds, always the last id */
#define LK_PATTERNS  "gpt2, cl100k, o200k, llama3, qwen2, smollm" /* how a text is cut into words */

struct lk_tokenizer;

/* Learns vocab - 257 merges from texts (the 256 bytes and LK_TOKEN_END are given), merges equal to Hugging Face's
 * BpeTrainer with ByteLevel(add_prefix_space=False) on the same files. Fewer pairs than asked for: LK_EINVAL that says how
 * many there are. texts[i] = (data, size), whole files. progress may be NULL: called with merges done and to do; non-zero
 * stops. */
int lk_tokenizer_train(const struct lk_bytes *texts, size_t count, uint32_t vocab, struct lk_pool *,
                       int (*progress)(void *arg, uint32_t done, uint32_t total), void *arg, struct lk_tokenizer **out,
                       struct lk_err *);
/* The same with another pattern, by its name; LK_EINVAL if there is none of that name. */
int lk_tokenizer_train_pattern(const struct lk_bytes *texts, size_t count, uint32_t vocab, const char *pattern,
                               struct lk_pool *, int (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
                               struct lk_tokenizer **out, struct lk_err *);
void lk_tokenizer_free(struct lk_tokenizer *);

uint32_t lk_tokenizer_vocab(const struct lk_tokenizer *);      /* ids are 0 .. vocab-1 */
const char *lk_tokenizer_pattern(const struct lk_tokenizer *); /* its name; "none": SentencePiece's */
/* The token between documents: the one named at import, else LK_TOKEN_END, "<|end_of_text|>" or "</s>", the first of these
 * that is a special token; UINT32_MAX if there is none. */
uint32_t lk_tokenizer_end(const struct lk_tokenizer *);
/* The token that a tokenizer.json puts in front of every text (its post_processor), or UINT32_MAX. */
uint32_t lk_tokenizer_begin(const struct lk_tokenizer *);
/* The token that begins a text in the folder of a model trained here, by the tokenizer.json just imported, or UINT32_MAX.
 * It is of that model, not of the tokenizer, and is not stored with it. */
uint32_t lk_tokenizer_text_begin(const struct lk_tokenizer *);
/* The id of a special or other added token by its text, or UINT32_MAX. */
uint32_t lk_tokenizer_find(const struct lk_tokenizer *, const void *text, size_t size);
bool lk_tokenizer_is_special(const struct lk_tokenizer *, uint32_t id);
bool lk_tokenizer_is_added(const struct lk_tokenizer *, uint32_t id); /* special or not: the encoder looks for its text */
/* The bytes of an id, borrowed; size 0 for an id out of range. */
struct lk_bytes lk_tokenizer_bytes(const struct lk_tokenizer *, uint32_t id);

/* Appends ids to *tokens (grown with lk_realloc; *count, *capacity in tokens). Special tokens in the text are plain
 * text; added tokens that are not special are found, as Hugging Face's library does with encode_special_tokens. pool may be
 * NULL; the result does not depend on it. */
struct lk_tokens {
    uint32_t *ids;
    size_t count, capacity;
};
int lk_tokenizer_encode(const struct lk_tokenizer *, const void *text, size_t size, struct lk_pool *, struct lk_tokens *out,
                        struct lk_err *);
void lk_tokens_release(struct lk_tokens *);

struct lk_encode_options {
    bool special; /* special tokens in the text are taken as such: for prompts and chat templates, not for foreign text */
    bool around;  /* also the tokens that the tokenizer.json's post_processor puts before and behind a text */
    /* Unless NULL: set to an array of n + 1 places in the text, n the tokens appended, for lk_free. Token i of these stands
     * for the bytes [offsets[i], offsets[i + 1]); together they cover the text. */
    uint64_t **offsets;
};
int lk_tokenizer_encode_with(const struct lk_tokenizer *, const void *text, size_t size, const struct lk_encode_options *,
                             struct lk_pool *, struct lk_tokens *out, struct lk_err *);
/* Appends the bytes of ids (special tokens by their text), without the one space at the begin that a SentencePiece
 * tokenizer puts in front of a text, where its file says so; an id out of range: LK_EINVAL that names its position. */
int lk_tokenizer_decode(const struct lk_tokenizer *, const uint32_t *ids, size_t count, struct lk_buf *out,
                        struct lk_err *);

/* Length of the longest prefix that does not end inside a so far well-formed UTF-8 sequence: what a stream may print before
 * its next bytes come. Invalid bytes are not waited for, so at most 3 bytes are held back. */
size_t lk_utf8_complete(const void *data, size_t size);

/* Hugging Face tokenizer.json (BPE with a pipeline that can be computed exactly; anything else is refused by name). name:
 * for messages. end: text of the end token, NULL for the rule of lk_tokenizer_end; one that is not there: LK_EINVAL. */
int lk_tokenizer_import(const void *json, size_t size, const char *name, struct lk_tokenizer **out, struct lk_err *);
int lk_tokenizer_import_end(const void *json, size_t size, const char *name, const char *end, struct lk_tokenizer **out,
                            struct lk_err *);
/* LK_EUNSUPPORTED that names the token: Hugging Face's library, which goes by the order of added_tokens and the size of the
 * vocab, gives an added token another id than this tokenizer.json says and lk_tokenizer_import takes. */
int lk_tokenizer_check_ids(const void *json, size_t size, const char *name, struct lk_err *);
/* A tiktoken rank file: a line a token, base64 and rank. specials[i]: text and id of a special token. */
struct lk_special {
    struct lk_bytes text;
    uint32_t id;
};
int lk_tokenizer_import_ranks(const void *file, size_t size, const char *name, const char *pattern,
                              const struct lk_special *specials, size_t special_count, const char *end,
                              struct lk_tokenizer **out, struct lk_err *);
/* A tokenizer.json with which Hugging Face's library gives the same ids. LK_EUNSUPPORTED: it cannot (see README.md). */
int lk_tokenizer_export(const struct lk_tokenizer *, struct lk_buf *out, struct lk_err *);
/* The same, with a template that puts `begin` in front of a text, for the folder of a model whose texts begin so though its
 * tokenizer puts nothing there. UINT32_MAX, or a tokenizer that has a template: as lk_tokenizer_export. */
int lk_tokenizer_export_begin(const struct lk_tokenizer *, uint32_t begin, struct lk_buf *out, struct lk_err *);

/* A tokenizer as the lists of a GGUF file have it (docs/formats.md, "GGUF"): byte-level BPE as its model "gpt2",
 * SentencePiece's as "llama". Ids that stand for no token are UINT32_MAX. */
enum { LK_LIST_NORMAL = 1, LK_LIST_UNKNOWN, LK_LIST_CONTROL, LK_LIST_USER, LK_LIST_UNUSED, LK_LIST_BYTE };
struct lk_tokenizer_lists {
    const char *model, *pattern; /* tokenizer.ggml.model and pre */
    size_t count, merge_count;
    struct lk_bytes *tokens, *merges; /* a merge: "left right" */
    int32_t *types;                   /* of each token, as above */
    float *scores;                    /* "llama" only */
    uint32_t before, after, end;      /* tokens put around a text; the one between documents */
    bool space_prefix;                /* "llama" only: a space is put in front of a text */
    bool inexact;                     /* of an export: the lists do not say all that the tokenizer does */
    struct lk_buf memory;             /* of an export: where the texts lie */
};
/* LK_EUNSUPPORTED names the model, the pattern or the token that is not computed here; LK_EINVAL what is damaged. end may
 * be UINT32_MAX: the rule of lk_tokenizer_end. */
int lk_tokenizer_import_lists(const struct lk_tokenizer_lists *, const char *name, struct lk_tokenizer **out,
                              struct lk_err *);
/* The lists for a model with so many rows; ids that are no tokens are unused ones. LK_EUNSUPPORTED: no such file gives
 * these ids. */
int lk_tokenizer_export_lists(const struct lk_tokenizer *, uint32_t rows, struct lk_tokenizer_lists *out, struct lk_err *);
void lk_tokenizer_lists_release(struct lk_tokenizer_lists *); /* of an export */

/* Stored as a manifest of blobs (docs/formats.md); the root covers pattern, Unicode version, tokens, merges. */
int lk_tokenizer_save(struct lk_store *, const struct lk_tokenizer *, struct lk_root *out, struct lk_err *);
int lk_tokenizer_load(struct lk_store *, const struct lk_root *, struct lk_tokenizer **out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
