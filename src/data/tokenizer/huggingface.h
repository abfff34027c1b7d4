/* What reads tokenizer.json: huggingface.c the model, pipeline.c what stands around it. */
#ifndef LOCKSTEP_DATA_HUGGINGFACE_H
#define LOCKSTEP_DATA_HUGGINGFACE_H
#include "data/tokenizer/internal.h"
#include "lockstep/base/json.h"

struct lk__tokenizer_import {
    const char *name;
    struct lk__tokenizer_traits traits;
    bool fallback; /* byte_fallback: SentencePiece's BPE */
    uint32_t vocab, text_begin;
    uint64_t *offset;
    struct lk_buf bytes;
    uint8_t *added;
    const char **texts; /* by id, as in the file; NULL for a hole */
    json_t *vocab_map;  /* borrowed */
    struct lk__tokenizer_merge *merges;
    size_t merge_count;
};

int lk__tokenizer_import_refuse(const struct lk__tokenizer_import *, struct lk_err *, const char *what);
const json_t *lk__tokenizer_import_get(const json_t *object,
                                       const char *key); /* absent and null are the same in these files */
int lk__tokenizer_import_check_keys(const struct lk__tokenizer_import *, const json_t *object, const char *where,
                                    const char *const *known, struct lk_err *);
/* normalizer, pre_tokenizer, decoder, and what must be absent; sets traits. */
int lk__tokenizer_read_pipeline(struct lk__tokenizer_import *, const json_t *root, struct lk_err *);
/* The tokens around a text; ids are known by then. */
int lk__tokenizer_read_template(struct lk__tokenizer_import *, const json_t *post_processor, struct lk_err *);

/* The value of a tokenizer.json. end: as in lk_tokenizer_import_end. */
int lk__tokenizer_import_value(const json_t *root, const char *name, const char *end, struct lk_tokenizer **out,
                               struct lk_err *);
/* Whether some token that is a word is not what the merges make of its bytes. */
int lk__tokenizer_whole_words_matter(const struct lk_tokenizer *, const char *name, bool *matter, struct lk_err *);

#endif
