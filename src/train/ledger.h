/* A row a step. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_LEDGER_H
#define LOCKSTEP_TRAIN_LEDGER_H
#include "lockstep/store/lease.h"
#include "lockstep/train/train.h"

struct lk__train_ledger;
/* Rows are buffered and committed lazily a few times a second; the saver makes them durable. Thread-safe. */
/* lease: the run's, borrowed; every write looks whether it is still held (LK_EBUSY). NULL: nobody else can write. */
int lk__train_ledger_open(struct lk_store *, const char *run, const struct lk_lease *, struct lk__train_ledger **out,
                          struct lk_err *);
void lk__train_ledger_close(struct lk__train_ledger *); /* what is buffered is dropped: flush first */
/* Room for one row, so that the next append keeps it whatever happens: called before the state changes. */
int lk__train_ledger_reserve(struct lk__train_ledger *, struct lk_err *);
/* A step executed again must equal its old row: LK_EDIVERGED otherwise. The row stays buffered when writing it fails. */
int lk__train_ledger_append(struct lk__train_ledger *, const struct lk_ledger_row *, struct lk_err *);
int lk__train_ledger_append_eval(struct lk__train_ledger *, const struct lk_eval_row *, struct lk_err *);
int lk__train_ledger_flush(struct lk__train_ledger *, struct lk_err *);
/* The evaluation at a step; LK_ENOTFOUND. */
int lk__train_ledger_eval(struct lk_kv_txn *, const char *run, uint32_t step, struct lk_eval_row *out, struct lk_err *);
/* Puts the buffered rows into an open write transaction. */
int lk__train_ledger_write(struct lk__train_ledger *, struct lk_kv_txn *, struct lk_err *);
/* "" when equal in the deterministic columns, else which column differs and both values. */
void lk__train_ledger_compare(const struct lk_ledger_row *old, const struct lk_ledger_row *new_row, char *what,
                              size_t size);

/* Keys of per-run rows: "<letter>/NAME/" and the step as 4 bytes big-endian. */
size_t lk__train_step_key(char *key, char letter, const char *run, uint32_t step);
uint32_t lk__train_step_of_key(struct lk_bytes key);

#endif
