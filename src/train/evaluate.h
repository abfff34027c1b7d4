/* Held-out loss, by all ranks together. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_EVALUATE_H
#define LOCKSTEP_TRAIN_EVALUATE_H
#include "lockstep/train/train.h"

/* lk_evaluate with a decoder (for at_once sequences) that is there already, shared among ranks. Collective. */
struct lk__train_evaluation {
    struct lk_decoder *decoder;
    uint32_t at_once;
    const struct lk_layout *layout;
    struct lk_math *math;
    struct lk_comm *comm;
    const float *weights;
    const struct lk_dataset *dataset;
    uint32_t context;
    bool cross_documents;
    struct lk_buf *likeliest; /* of lk_evaluate, or NULL */
};
int lk__train_evaluate(const struct lk__train_evaluation *, uint32_t sequences, struct lk_eval_row *out, struct lk_err *);
/* Fails when all targets it would look at are masked: better known before the first step than after the last. */
int lk__train_evaluate_check(const struct lk_dataset *, uint32_t context, uint32_t sequences, struct lk_err *);

#endif
