/* The safetensors files of a Hugging Face folder, and the way of their tensors into one blob. Private to src/model. */
#ifndef LOCKSTEP_MODEL_WEIGHTS_IN_H
#define LOCKSTEP_MODEL_WEIGHTS_IN_H
#include "huggingface.h"
#include "lockstep/base/file.h"
#include "safetensors.h"

struct lk__model_shard {
    char *name;
    struct lk_map map;
    struct lk__model_safetensors content;
};
struct lk__model_weights_in {
    struct lk__model_shard *shards;
    size_t count;
};
/* model.safetensors, or the files of model.safetensors.index.json. */
int lk__model_weights_in_open(const char *dir, struct lk__model_weights_in *, struct lk_err *);
void lk__model_weights_in_close(struct lk__model_weights_in *);
/* All tensors of the layout, in its order and as it wants them, into a blob. Every tensor of the files is used, or known to
 * be none of the model's weights. */
int lk__model_weights_in_put(struct lk__model_weights_in *, const struct lk_layout *, struct lk_store *,
                             int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct lk_root *out,
                             struct lk_err *);

#endif
