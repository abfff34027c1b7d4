/* What the collector asks of pins. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_PIN_H
#define LOCKSTEP_STORE_PRIVATE_PIN_H
#include "lockstep/store/pin.h"

/* The time that pins end by: a write transaction's own; to a reader that of the last commit, or what the clock says if that
 * is later. */
int lk__store_pin_time(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);
/* Whether a row is that of a pin which is over. */
bool lk__store_pin_row_is_over(struct lk_bytes key, struct lk_bytes value, int64_t now_ms);

#endif
