/* A trainer, shared by its opening and its loop. Private to src/train/trainer*.c. */
#ifndef LOCKSTEP_TRAIN_TRAINER_H
#define LOCKSTEP_TRAIN_TRAINER_H
#include "engine.h"
#include "evaluate.h"
#include "initial.h"
#include "ledger.h"
#include "run.h"
#include "saver.h"

struct lk_trainer {
    struct lk_store *store;
    struct lk_math *math;
    struct lk_comm *comm, *own_comm; /* own_comm: opened by us, when there was none */
    int rank;
    struct lk_train_hooks hooks;
    struct lk_run run;
    struct lk_dataset *dataset;
    struct lk_state state;
    struct lk__train_engine engine;
    struct lk__train_ledger *ledger; /* rank 0 */
    struct lk__train_saver *saver;
    struct lk_plan plan;
    json_t *record;         /* as it is to be written with the next checkpoint; other ranks keep what they were given */
    struct lk_lease *lease; /* rank 0 */
    double seconds;         /* of the steps since it was opened, but the first, and their number: for the profile */
    uint32_t steps;
    bool warm; /* a step has been made */
};
static inline uint32_t lk__trainer_step(const struct lk_trainer *t) {
    return lk__train_state_step(&t->state, &t->run.config);
}
/* Steps of opening, for a dry run too. A trainer without a run; NULL: no memory, and the comm is broken. */
struct lk_trainer *lk__trainer_new(struct lk_store *, struct lk_math *, struct lk_comm *, const struct lk_train_hooks *,
                                   struct lk_err *);
/* Rank 0: names become roots, the configuration is completed and checked, the identity follows. Dry: nothing is stored. */
int lk__trainer_resolve(struct lk_trainer *, const struct lk_run_config *, bool dry, struct lk_err *);
/* Rank 0 has resolved the run and made its record, or failed with `code`; afterwards every rank has it, with its dataset.
 */
int lk__trainer_share(struct lk_trainer *, int code, struct lk_err *);
/* The state of step 0. */
int lk__trainer_from_the_beginning(struct lk_trainer *, struct lk_err *);
/* The record of a run that begins; NULL: no memory. */
json_t *lk__trainer_new_record(const struct lk_run *);
/* LK_EEXISTS with what to do; releases the old run's record. */
int lk__trainer_exists_already(const char *name, json_t *old, struct lk_err *);
/* A record in a transaction of its own; creating: the name must be free. Rank 0. */
int lk__trainer_put_record(struct lk_trainer *, bool creating, struct lk_err *);
/* 0 or, without memory, -1. */
int lk__trainer_set(struct lk_trainer *, const char *key, const char *value);

#endif
