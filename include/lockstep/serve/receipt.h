/* Receipts of answers: with one, anybody who has the model can make the answer again and see that it is the same. */
#ifndef LOCKSTEP_RECEIPT_H
#define LOCKSTEP_RECEIPT_H
#include "lockstep/base/json.h"
#include "lockstep/serve/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_receipt_result {
    bool equal, failed;
    uint32_t tokens;      /* that were made again */
    uint32_t first_token; /* that differs, when not equal; counted from 0 */
    bool token_differs;   /* it is another token; else only its logits are others */
};
/* The format of the keys and values that it was made with. LK_EINVAL: none that is known here. */
int lk_receipt_cache(const json_t *receipt, enum lk_dtype *out, struct lk_err *);
/* Makes the answer of a receipt (docs/formats.md, "Receipts") again in this batch, whose model has this root, in
 * hexadecimal, this tokenizer, and keys and values in the receipt's format. LK_EINVAL: not a receipt, one of another model,
 * or one whose request was changed; LK_EUNSUPPORTED: of other numerics; the errors of lk_batch_submit. */
int lk_receipt_verify(struct lk_batch *, const struct lk_tokenizer *, const json_t *receipt, const char *model_root,
                      struct lk_receipt_result *, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
