/* A GGUF file's keys as a model's configuration, and back; how its tensors are called and lie. Private to src/model/gguf.
 */
#ifndef LOCKSTEP_MODEL_GGUF_KEYS_H
#define LOCKSTEP_MODEL_GGUF_KEYS_H
#include "lockstep/model/models.h"
#include "model/gguf/gguf.h"

struct lk__gguf_config {
    struct lk_model_config model;
    const char *architecture; /* static: "llama" */
    uint32_t stops[LK_MODEL_STOPS];
    size_t stop_count;
    uint32_t begin, text_begin, end; /* UINT32_MAX: none. end: the tokenizer's, where our own export says it */
};
/* Every key is read, known to change nothing, or among those that the import passes over; else LK_EUNSUPPORTED that names
 * all that are not. Keys of a tokenizer that is not taken are passed over. */
int lk__gguf_config_read(const struct lk__gguf *, const char *file, const struct lk_model_import *,
                         struct lk__gguf_config *out, struct lk_err *);

/* The architecture that computes this configuration, NULL: there is none (biases and norms of heads together). */
const char *lk__gguf_architecture(const struct lk_model_config *);
/* What our tensor is called in a GGUF file. */
void lk__gguf_tensor_name(const char *ours, char out[LK__GGUF_NAME]);
/* Where our row of a tensor lies in the file: llama's Q and K have the two rows of a rotary pair beside each other. */
size_t lk__gguf_row(const struct lk_layout *, const struct lk_tensor *, size_t row);

/* rope_freqs.weight: what each frequency is divided by, (head_dim / 2). */
#define LK__GGUF_ROPE "rope_freqs.weight"
void lk__gguf_rope_factors(const struct lk_model_config *, float *factors);
/* The scaling of Llama 3.1 that gives these factors: the one in c, else one that is found. LK_EUNSUPPORTED: none does. */
int lk__gguf_rope_find(const float *factors, const char *file, struct lk_model_config *c, struct lk_err *);

/* Numbers of the configuration that 32 bits do not say, under keys of our own. */
#define LK__GGUF_OWN 6
extern const struct lk__gguf_own {
    const char *key;
    size_t at; /* of a double in lk_model_config */
} lk__gguf_own[LK__GGUF_OWN];

#endif
