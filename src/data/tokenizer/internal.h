/* What the files of this folder share; src/data/dataset uses the encoder at the end. */
#ifndef LOCKSTEP_DATA_TOKENIZER_INTERNAL_H
#define LOCKSTEP_DATA_TOKENIZER_INTERNAL_H
#include "lockstep/tokenizer.h"
#include <stdatomic.h>

#define LK__NO_ID     UINT32_MAX
#define LK__VOCAB_MAX ((uint32_t)1 << 24)   /* ids stay far from the sign bit and from LK__NO_ID */
#define LK__TOKEN_MAX ((size_t)1 << 16)     /* bytes of one token */
#define LK__WORD_MAX  ((size_t)0xFFFFFFF0u) /* bytes of one word: positions are 32 bits */
#define LK__KEPT      64

struct lk__merge {
    uint32_t left, right, id; /* the rank is the index */
};

/* Pair of ids -> rank; open addressing, at most half full, power of two slots. The tag is a part of the pair's hash, the
 * pair itself stands in the merge. An empty slot has rank LK__NO_ID. */
struct lk__pair_slot {
    uint32_t tag, rank;
};

struct lk_tokenizer {
    uint32_t vocab, end;   /* end: LK__NO_ID if there is none */
    uint32_t byte_id[256]; /* id of each byte */
    uint64_t *offset;      /* vocab + 1: bytes of id i are bytes[offset[i] .. offset[i+1]); none for a hole */
    uint8_t *bytes;
    uint8_t *special; /* a flag an id */
    size_t special_count;
    struct lk__merge *merges;
    uint32_t merge_count;
    struct lk__pair_slot *slots;
    uint64_t slot_mask;
    uint32_t *byte_ranks; /* the same for two bytes: [first << 8 | second] */
    struct lk__kept *kept;
    bool ordered; /* every merge's parts are bytes or come from earlier merges: long words use buckets */
};

/* Takes copies. offset has vocab + 1 entries; special may be NULL. Checks everything: ids of bytes, parts of merges, their
 * text. what: for messages. A pair that stands twice keeps its last rank, as in Hugging Face's library. */
struct lk__parts {
    uint32_t vocab;
    const uint64_t *offset;
    const uint8_t *bytes;
    const uint8_t *special;
    const struct lk__merge *merges;
    size_t merge_count;
};
int lk__tokenizer_make(const struct lk__parts *, const char *what, struct lk_tokenizer **out, struct lk_err *);

static inline uint64_t lk__pair_hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    return key ^ key >> 29;
}

/* The rank of (left, right), or LK__NO_ID. */
static inline uint32_t lk__pair_rank(const struct lk_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t at = lk__pair_hash((uint64_t)left << 32 | right);
    for (uint32_t tag = (uint32_t)(at >> 32);; at++) {
        const struct lk__pair_slot *slot = &t->slots[at & t->slot_mask];
        if (slot->rank == LK__NO_ID) return LK__NO_ID;
        if (slot->tag == tag && t->merges[slot->rank].left == left && t->merges[slot->rank].right == right)
            return slot->rank;
    }
}

/* Scratch memory of bpe.c; zero it to begin. */
struct lk__scratch {
    void *memory;
    size_t size_bytes;
};
#define LK__SHORT_WORD 48
/* Merges a word into ids, at most `size` of them; ids has room for size. Returns their number, or LK_ENOMEM.
 * 1 <= size <= LK__WORD_MAX. */
int64_t lk__bpe(const struct lk_tokenizer *, struct lk__scratch *, const uint8_t *word, size_t size, uint32_t *ids);

/* The same for a word of few runs of equal bytes and ordered merges, without memory; 0: it is no such word. */
size_t lk__merge_runs(const struct lk_tokenizer *, const uint8_t *word, size_t size, uint32_t *ids);

/* One thread's state for encoding: scratch and a cache of words. Changes no result. */
struct lk__encoder;
struct lk__encoder *lk__encoder_create(const struct lk_tokenizer *);
void lk__encoder_free(struct lk__encoder *);
/* Encoders that a tokenizer keeps from one call to the next, with their caches: one a thread that was at work at a time. */
struct lk__kept {
    _Atomic(struct lk__encoder *) encoders[LK__KEPT];
};
/* Ids of its own, kept like the cache: room for a part of a longer work. Empty when the encoder is taken. */
struct lk_tokens *lk__encoder_tokens(struct lk__encoder *);
struct lk__encoder *lk__encoder_take(const struct lk_tokenizer *); /* a kept one or a new one; NULL: out of memory */
void lk__encoder_give(struct lk__encoder *);                       /* back to its tokenizer; NULL is fine */
/* Appends the ids of a text, taken alone. On an error out holds what it held and, behind that, ids of a part of the text:
 * who goes on with it sets its count back. */
int lk__encoder_run(struct lk__encoder *, const void *text, size_t size, struct lk_tokens *out, struct lk_err *);

int lk__tokens_reserve(struct lk_tokens *, size_t extra); /* 0 or LK_ENOMEM */

/* The characters by which byte-level vocabularies write bytes (GPT-2's table): 188 stand for themselves, the others are
 * U+0100 onwards. */
uint32_t lk__byte_to_char(uint8_t byte);
int lk__char_to_byte(uint32_t c); /* -1: no such character */
/* Bytes in ascending order of their character: the ids of the alphabet after training. */
void lk__byte_order(uint8_t order[256]);

#endif
