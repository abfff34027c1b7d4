/* Locks of runs, and what a record says. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_RUN_H
#define LOCKSTEP_TRAIN_RUN_H
#include "lockstep/train/train.h"

/* The lock file of a run: held (flock) by the process that trains it. */
int lk__train_run_lock(struct lk_store *, const char *name, int *fd, struct lk_err *);
void lk__train_run_lock_remove(struct lk_store *, const char *name); /* by its holder, when there is no run (any more) */
void lk__train_run_unlock(int fd);
bool lk__train_run_locked(struct lk_store *, const char *name);
/* The run that a record describes; released by lk_run_close. */
int lk__train_run_from_record(const json_t *record, struct lk_run *out, struct lk_err *);

#endif
