/* Byte-level byte-pair encoding with the GPT-2 pattern. Algorithms and the rule for invalid UTF-8:
 * src/data/tokenizer/README.md. A tokenizer is immutable and may be used by any number of threads; it keeps the memory of
 * its encoding threads (words seen and their ids, up to 36 MB a thread) for the next call, until it is freed. */
#ifndef LOCKSTEP_TOKENIZER_H
#define LOCKSTEP_TOKENIZER_H
#include "lockstep/store.h"
#include "lockstep/thread.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_TOKEN_END "<|endoftext|>" /* the one special token that training adds, always the last id */

struct lk_tokenizer;

/* Learns vocab - 257 merges from texts (the 256 bytes and LK_TOKEN_END are given), merges equal to Hugging Face's
 * BpeTrainer with ByteLevel(add_prefix_space=False) on the same files. Fewer pairs than asked for: LK_EINVAL that says how
 * many there are. texts[i] = (data, size), whole files. progress may be NULL: called with merges done and to do; non-zero
 * stops. */
int lk_tokenizer_train(const struct lk_bytes *texts, size_t count, uint32_t vocab, struct lk_pool *,
                       int (*progress)(void *arg, uint32_t done, uint32_t total), void *arg, struct lk_tokenizer **out,
                       struct lk_err *);
void lk_tokenizer_free(struct lk_tokenizer *);

uint32_t lk_tokenizer_vocab(const struct lk_tokenizer *); /* ids are 0 .. vocab-1 */
uint32_t lk_tokenizer_end(const struct lk_tokenizer *);   /* id of LK_TOKEN_END, or UINT32_MAX if there is none */
/* The bytes of an id, borrowed; size 0 for an id out of range. */
struct lk_bytes lk_tokenizer_bytes(const struct lk_tokenizer *, uint32_t id);

/* Appends ids to *tokens (grown with lk_realloc; *count, *capacity in tokens). Special tokens in the text are plain text.
 * pool may be NULL; the result does not depend on it. */
struct lk_tokens {
    uint32_t *ids;
    size_t count, capacity;
};
int lk_tokenizer_encode(const struct lk_tokenizer *, const void *text, size_t size, struct lk_pool *, struct lk_tokens *out,
                        struct lk_err *);
void lk_tokens_release(struct lk_tokens *);
/* Appends the bytes of ids (special tokens by their text); an id out of range: LK_EINVAL that names its position. */
int lk_tokenizer_decode(const struct lk_tokenizer *, const uint32_t *ids, size_t count, struct lk_buf *out,
                        struct lk_err *);

/* Length of the longest prefix that does not end inside a so far well-formed UTF-8 sequence: what a stream may print before
 * its next bytes come. Invalid bytes are not waited for, so at most 3 bytes are held back. */
size_t lk_utf8_complete(const void *data, size_t size);

/* Hugging Face tokenizer.json (BPE with ByteLevel pre-tokenizer; anything else is refused by name). */
int lk_tokenizer_import(const void *json, size_t size, const char *name, struct lk_tokenizer **out, struct lk_err *);
int lk_tokenizer_export(const struct lk_tokenizer *, struct lk_buf *out, struct lk_err *);

/* Stored as a manifest of blobs (docs/formats.md); the root covers pattern, Unicode version, tokens, merges. */
int lk_tokenizer_save(struct lk_store *, const struct lk_tokenizer *, struct lk_root *out, struct lk_err *);
int lk_tokenizer_load(struct lk_store *, const struct lk_root *, struct lk_tokenizer **out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
