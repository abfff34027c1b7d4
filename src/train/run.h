/* Leases of runs, and what a record says. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_RUN_H
#define LOCKSTEP_TRAIN_RUN_H
#include "lockstep/store/lease.h"
#include "lockstep/train/train.h"

/* For who trains a run or removes it. LK_EBUSY: another one does. */
int lk__train_run_lease(struct lk_store *, const char *name, struct lk_lease **out, struct lk_err *);
/* The run that a record describes; released by lk_run_close. */
int lk__train_run_from_record(const json_t *record, struct lk_run *out, struct lk_err *);

#endif
