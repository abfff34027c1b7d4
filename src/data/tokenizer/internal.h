/* What the files of this folder share, in the order of README.md's drawing, from the bottom up. src/data/dataset uses the
 * encoder and lk__tokenizer_cut. */
#ifndef LOCKSTEP_DATA_TOKENIZER_INTERNAL_H
#define LOCKSTEP_DATA_TOKENIZER_INTERNAL_H
#include "data/tokenizer/pretoken.h"
#include "lockstep/data/tokenizer.h"
#include <stdatomic.h>

#define LK__NO_ID     UINT32_MAX
#define LK__VOCAB_MAX ((uint32_t)1 << 24)   /* ids stay far from the sign bit and from LK__NO_ID */
#define LK__TOKEN_MAX ((size_t)1 << 16)     /* bytes of one token */
#define LK__WORD_MAX  ((size_t)0xFFFFFFF0u) /* bytes of one word: positions are 32 bits */
#define LK__KEPT      64

struct lk__tokenizer_merge {
    uint32_t left, right, id; /* the rank is the index */
};

/* Pair of ids -> rank; open addressing, at most half full, power of two slots. The tag is the upper half of the pair's
 * hash, the pair itself stands in the merge. An empty slot has rank LK__NO_ID. */
struct lk__tokenizer_pair_slot {
    uint32_t tag, rank;
};

/* Flags of an id in lk_tokenizer.added. 0: merges make the token. Any flag: the encoder looks for the token's own text. */
enum { LK__SPECIAL = 1, LK__ADDED = 2, LK__LSTRIP = 4, LK__RSTRIP = 8, LK__NORMALIZED = 16 };

/* Where the encoder puts a space in front of the text between two added tokens: nowhere; where that text begins with none;
 * the same, but only at the begin of the whole text; everywhere. */
enum lk__tokenizer_prefix { LK__PREFIX_NONE, LK__PREFIX_UNLESS, LK__PREFIX_FIRST, LK__PREFIX_EACH };

/* SentencePiece's BPE (characters.c): words begin with characters instead of bytes, and U+2581 is a space. The encoder
 * turns one into the other before it looks for normalized tokens (LK__NORMALIZER), or in plain stretches only
 * (LK__METASPACE).
 */
enum lk__tokenizer_characters { LK__BYTES, LK__NORMALIZER, LK__METASPACE };

/* How ids come about, besides tokens and merges. Ids: LK__NO_ID if there is none. */
struct lk__tokenizer_traits {
    enum lk__tokenizer_pattern pattern; /* of bytes; characters have none */
    enum lk__tokenizer_characters characters;
    uint32_t first_byte; /* with characters: the token of byte 0; the others follow it */
    bool strip;          /* decoding leaves out one space at the begin of a text */
    bool whole_words;    /* a word that is a token is that token, whatever merges make of it */
    enum lk__tokenizer_prefix prefix_space;
    bool nfc;               /* the encoder brings the text into normal form C first */
    uint32_t end;           /* between documents */
    uint32_t before, after; /* around a text: the post_processor's template */
};
extern const struct lk__tokenizer_traits lk__tokenizer_default_traits;

/* The tokens that the encoder looks for in a text, in the order of their bytes. */
struct lk__tokenizer_added {
    const uint8_t *text;
    size_t size;
    uint32_t id;
};
struct lk__tokenizer_added_set {
    struct lk__tokenizer_added *tokens;
    size_t count, longest; /* longest: bytes */
    bool plain;            /* one of them is not special, so the encoder looks for it in every text */
    bool first[256];       /* begins of these tokens */
};

struct lk_tokenizer {
    struct lk__tokenizer_traits traits;
    uint32_t vocab;
    uint32_t byte_id[256]; /* id of each byte */
    uint64_t *offset;      /* vocab + 1: bytes of id i are bytes[offset[i] .. offset[i+1]); none for a hole */
    uint8_t *bytes;
    uint8_t *added; /* flags (LK__SPECIAL, ...) of each id */
    size_t added_count;
    struct lk__tokenizer_added_set sets[2]; /* in the text as it is; in the normalized text */
    uint8_t *normal_added;                  /* the texts of the second set where they are not the tokens' own */
    uint32_t *words; /* ids of tokens by hash of their bytes, for whole_words, those of one character for `characters`;
                      * LK__NO_ID: empty */
    uint64_t word_mask;
    struct lk__tokenizer_merge *merges;
    uint32_t merge_count;
    struct lk__tokenizer_pair_slot *slots;
    uint64_t slot_mask;
    uint32_t *byte_ranks; /* ranks of the pairs of two bytes: [first << 8 | second] */
    uint64_t *joins;      /* with characters: bit [first << 8 | second] of two bytes that stand side by side in a merge */
    struct lk__tokenizer_kept *kept;
    bool cuttable;       /* see lk__tokenizer_cuts_allowed */
    uint32_t text_begin; /* see lk_tokenizer_text_begin; not stored */
    bool ordered;        /* both sides of every merge are bytes or come from earlier merges: long words use buckets */
};

/* True: the tokens of a text always give it back. False: they may give another form of it, and a dataset holds that form.
 */
static inline bool lk__tokenizer_exact(const struct lk_tokenizer *t) {
    return !t->traits.nfc && !t->traits.characters && !t->traits.prefix_space;
}

static inline uint64_t lk__tokenizer_pair_hash(uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    return key ^ key >> 29;
}

/* The rank of (left, right), or LK__NO_ID. */
static inline uint32_t lk__tokenizer_pair_rank(const struct lk_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t at = lk__tokenizer_pair_hash((uint64_t)left << 32 | right);
    for (uint32_t tag = (uint32_t)(at >> 32);; at++) {
        const struct lk__tokenizer_pair_slot *slot = &t->slots[at & t->slot_mask];
        if (slot->rank == LK__NO_ID) return LK__NO_ID;
        if (slot->tag == tag && t->merges[slot->rank].left == left && t->merges[slot->rank].right == right)
            return slot->rank;
    }
}

/* --- vocabulary.c --------------------------------------------------------------------------------------------- */

/* The token whose bytes these are, LK__NO_ID if there is none or the tokenizer has no need to know. */
uint32_t lk__tokenizer_token_of(const struct lk_tokenizer *, const uint8_t *bytes, size_t size);

/* What a token stands for in the normalized text, in bytes: with it an added token's space in front. */
static inline size_t lk__tokenizer_normal_size(const struct lk_tokenizer *t, uint32_t id) {
    return lk_tokenizer_bytes(t, id).size + (t->added[id] & LK__NORMALIZED && t->traits.prefix_space == LK__PREFIX_EACH);
}

/* The characters by which byte-level vocabularies write bytes (GPT-2's table): 188 stand for themselves, the others are
 * U+0100 onwards. */
uint32_t lk__tokenizer_byte_to_char(uint8_t byte);
int lk__tokenizer_char_to_byte(uint32_t c); /* -1: no such character */
/* Bytes in ascending order of their character: the ids of the alphabet after training. */
void lk__tokenizer_byte_order(uint8_t order[256]);

/* The id that Hugging Face's library gives the next added token of a tokenizer.json, whatever number the file says: that of
 * the vocab, else one more than the greatest so far, but at least the vocab's number of entries. */
struct lk__tokenizer_library {
    uint64_t entries;  /* of the vocab */
    uint64_t greatest; /* 1 + the greatest id of an added token so far; 0: there is none */
};
static inline uint64_t lk__tokenizer_library_id(struct lk__tokenizer_library *l, bool in_vocab, uint32_t id) {
    uint64_t got = in_vocab ? id : l->greatest > l->entries ? l->greatest : l->entries;
    if (got + 1 > l->greatest) l->greatest = got + 1;
    return got;
}
/* The name that an exported template gives the token that begins a text though the tokenizer itself puts none there. */
#define LK__TEXT_BEGIN "lockstep:begin"

/* --- tokens.c, trace.c ---------------------------------------------------------------------------------------- */

int lk__tokenizer_tokens_reserve(struct lk_tokens *, size_t extra); /* 0 or LK_ENOMEM */

/* Where normalized bytes come from: each span is normal_size bytes made of text_size bytes, the same ones if both are equal
 * and `same` is set. */
struct lk__tokenizer_span {
    uint64_t normal_size, text_size;
    bool same;
};
struct lk__tokenizer_trace {
    struct lk__tokenizer_span *spans;
    size_t count, capacity;
};
int lk__tokenizer_trace_add(struct lk__tokenizer_trace *, uint64_t normal_size, uint64_t text_size,
                            bool same); /* a NULL trace is fine */

/* --- nfc.c: normal form C --------------------------------------------------------------------------------------- */

extern const char lk__tokenizer_nfc_version[];
bool lk__tokenizer_nfc_is_normal(const uint8_t *text, size_t size); /* false: it may be normal or not */
/* True: NFC leaves the characters on both sides of text[at] as they are, and the normal forms of text[0..at) and
 * text[at..size), joined, are that of the whole. May say false though it is so. 0 < at < size, not inside a character. */
bool lk__tokenizer_nfc_stays(const uint8_t *text, size_t at, size_t size);
/* Appends the normal form; invalid bytes stand as they are. LK_ENOMEM or 0. */
int lk__tokenizer_nfc(const uint8_t *text, size_t size, struct lk_buf *out, struct lk__tokenizer_trace *);

/* --- characters.c: SentencePiece's characters ------------------------------------------------------------------ */

/* Checks tokens, makes byte_id, the table of characters and, once merges are there, joins. */
int lk__tokenizer_characters_tokens(struct lk_tokenizer *, const char *what, struct lk_err *err);
int lk__tokenizer_characters_joins(struct lk_tokenizer *, const char *what, struct lk_err *err);
/* The ids of the unit at text[0..size), size >= 1: its token or those of its bytes. Their number; *length: the unit's
 * bytes. */
size_t lk__tokenizer_unit_ids(const struct lk_tokenizer *, const uint8_t *text, size_t size, uint32_t ids[4],
                              size_t *length);
size_t lk__tokenizer_character_cut(const struct lk_tokenizer *, const uint8_t *text, size_t from,
                                   size_t size); /* see lk__tokenizer_plain_cut */
/* Whether a text that still has U+2581 may be cut so at 0 < at < size. */
bool lk__tokenizer_character_cut_at(const struct lk_tokenizer *, const uint8_t *text, size_t at, size_t size);
size_t lk__tokenizer_next_mark(const uint8_t *text, size_t from, size_t size); /* the first U+2581 from there on, or size */
/* Appends the text, one space in front if `prefix`, one for every U+2581 if `marks`. LK_ENOMEM or 0. */
int lk__tokenizer_spaces(const uint8_t *text, size_t size, bool prefix, bool marks, struct lk_buf *out,
                         struct lk__tokenizer_trace *);
#define LK__MARK "\xE2\x96\x81" /* U+2581, of 3 bytes */

/* --- bpe.c, byte_runs.c: merging one word ----------------------------------------------------------------------- */

/* Scratch memory; zero it to begin. */
struct lk__tokenizer_scratch {
    void *memory;
    size_t size_bytes;
};
#define LK__SHORT_WORD 48
/* Merges a word into ids, at most `size` of them; ids has room for size. Returns their number, or LK_ENOMEM.
 * 1 <= size <= LK__WORD_MAX. */
int64_t lk__tokenizer_bpe(const struct lk_tokenizer *, struct lk__tokenizer_scratch *, const uint8_t *word, size_t size,
                          uint32_t *ids);
/* A word's ids, at most size: itself as a token where whole_words says so, else lk__tokenizer_bpe. */
int64_t lk__tokenizer_word_ids(const struct lk_tokenizer *, struct lk__tokenizer_scratch *, const uint8_t *word,
                               size_t size, uint32_t *ids);

/* The ways of lk__tokenizer_bpe; README.md says why they agree. Short: at most LK__SHORT_WORD bytes. Buckets: only where
 * the merges are ordered. Runs: without memory; 0: the word is not one of few runs of equal bytes, or the merges are not
 * ordered. */
size_t lk__tokenizer_merge_short(const struct lk_tokenizer *, const uint8_t *word, size_t size, uint32_t *ids);
int64_t lk__tokenizer_merge_heap(const struct lk_tokenizer *, struct lk__tokenizer_scratch *, const uint8_t *word,
                                 size_t size, uint32_t *ids);
int64_t lk__tokenizer_merge_buckets(const struct lk_tokenizer *, struct lk__tokenizer_scratch *, const uint8_t *word,
                                    size_t size, uint32_t *ids);
size_t lk__tokenizer_merge_runs(const struct lk_tokenizer *, const uint8_t *word, size_t size, uint32_t *ids);

/* --- encoder.c: the words of a plain stretch ----------------------------------------------------------------------- */

/* One thread's state for encoding: scratch and a cache of words. Changes no result. */
struct lk__tokenizer_encoder;
struct lk__tokenizer_encoder *lk__tokenizer_encoder_create(const struct lk_tokenizer *);
void lk__tokenizer_encoder_free(struct lk__tokenizer_encoder *);
/* Encoders that a tokenizer keeps from one call to the next, with their caches: one a thread that was at work at a time. */
struct lk__tokenizer_kept {
    _Atomic(struct lk__tokenizer_encoder *) encoders[LK__KEPT];
};
struct lk__tokenizer_encoder *
lk__tokenizer_encoder_take(const struct lk_tokenizer *);         /* a kept one or a new one; NULL: out of memory */
void lk__tokenizer_encoder_give(struct lk__tokenizer_encoder *); /* back to its tokenizer; NULL is fine */
const struct lk_tokenizer *lk__tokenizer_encoder_tokenizer(const struct lk__tokenizer_encoder *);
/* A list of ids that the encoder owns and keeps with its cache, for one piece of a longer text. Empty when the encoder is
 * taken. */
struct lk_tokens *lk__tokenizer_encoder_tokens(struct lk__tokenizer_encoder *);
struct lk_buf *
lk__tokenizer_encoder_normal(struct lk__tokenizer_encoder *); /* memory for normalized text, kept like the cache */
/* Appends the ids of a plain stretch of a text. Errors: as lk__tokenizer_encoder_run. */
int lk__tokenizer_encoder_words(struct lk__tokenizer_encoder *, const void *text, size_t size, struct lk_tokens *out,
                                struct lk_err *err);

/* --- cuts.c ------------------------------------------------------------------------------------------------------- */

/* False: the whole text is one plain stretch as it is. special: also special tokens are taken as such. */
bool lk__tokenizer_walk_needed(const struct lk_tokenizer *, bool special);
/* False: lk__tokenizer_cut finds no place, because of the added tokens that the encoder looks for in every text. */
bool lk__tokenizer_cuts_allowed(const struct lk_tokenizer *);
/* The first place in (from, size) where a plain stretch of a text may be cut; or size. */
size_t lk__tokenizer_plain_cut(const struct lk_tokenizer *, const uint8_t *text, size_t from, size_t size);
/* The first place in (from, size) where a text may be cut so that its pieces give the ids of the whole, if those behind a
 * cut are encoded as `later` ones; or size. */
size_t lk__tokenizer_cut(const struct lk_tokenizer *, const uint8_t *text, size_t from, size_t size);

/* --- added.c: sets of added tokens ---------------------------------------------------------------------------------- */

int lk__tokenizer_added_make(struct lk_tokenizer *, const char *what, struct lk_err *err);
void lk__tokenizer_added_release(struct lk_tokenizer *);
/* The first place from `at` on where a token of the set stands, the longest one there in *out; size and NULL: none does. */
size_t lk__tokenizer_added_find(const struct lk__tokenizer_added_set *, const uint8_t *text, size_t at, size_t size,
                                const struct lk__tokenizer_added **out);
/* Where the white space begins that ends at `at`, no further back than `least`; where that ends which begins at `at`. */
size_t lk__tokenizer_spaces_before(const uint8_t *text, size_t at, size_t least);
size_t lk__tokenizer_spaces_behind(const uint8_t *text, size_t at, size_t size);

/* --- tokenizer.c: from a definition that is checked
 * ---------------------------------------------------------------------------------- */

/* Takes copies. offset has vocab + 1 entries; added and traits may be NULL. Checks everything: ids of bytes, sides of
 * merges, their text. what: for messages. A pair that stands twice keeps its last rank, as in Hugging Face's library. */
struct lk__tokenizer_definition {
    uint32_t vocab;
    const uint64_t *offset;
    const uint8_t *bytes;
    const uint8_t *added;
    const struct lk__tokenizer_traits *traits;
    const struct lk__tokenizer_merge *merges;
    size_t merge_count;
};
int lk__tokenizer_make(const struct lk__tokenizer_definition *, const char *what, struct lk_tokenizer **out,
                       struct lk_err *);

/* --- walk.c: from a text to its plain stretches
 * --------------------------------------------------------------------------- */

/* Encodes one plain stretch; arg: as in the walk. */
typedef int lk__tokenizer_plain_fn(void *arg, const uint8_t *text, size_t size, struct lk_tokens *out, struct lk_err *err);
struct lk__tokenizer_walk {
    const struct lk_tokenizer *t;
    bool special;
    bool later;          /* the text goes on behind a cut: no space is put in front of it */
    const uint8_t *text; /* the whole of it; lk__tokenizer_walk_text sets it */
    struct lk_buf *normal;
    struct lk__tokenizer_trace *trace; /* may be NULL */
    lk__tokenizer_plain_fn *plain;
    void *arg;
    struct lk_tokens *out;
};
/* Appends the ids of a text: those of added tokens, and what `plain` makes of the stretches between them. */
int lk__tokenizer_walk_text(const struct lk__tokenizer_walk *, const uint8_t *text, size_t size, struct lk_err *err);

/* --- encode.c --------------------------------------------------------------------------------------------------------- */

/* Appends the ids of a text, taken alone, or with `later` of one that goes on behind a cut (lk__tokenizer_cut). Special
 * tokens in it are plain text. On an error out holds what it held and, behind that, ids of the text's begin: who goes on
 * with it sets its count back. */
int lk__tokenizer_encoder_run(struct lk__tokenizer_encoder *, const void *text, size_t size, bool later,
                              struct lk_tokens *out, struct lk_err *);

#endif
