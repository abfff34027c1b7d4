/* A dataset as `dataset build` and `dataset show` describe it. Private to src/cmd/dataset*.c. */
#ifndef LOCKSTEP_CMD_DATASET_H
#define LOCKSTEP_CMD_DATASET_H
#include "cmd.h"
#include "lockstep/data/dataset.h"

/* New reference; NULL: no memory. */
json_t *dataset_json(const struct lk_dataset *, const char *name);
void dataset_print(const struct lk_dataset *, const char *name);

#endif
