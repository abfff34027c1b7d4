/* The table of keys, shared by its readers. Private to src/train/config*.c. */
#ifndef LOCKSTEP_TRAIN_CONFIG_H
#define LOCKSTEP_TRAIN_CONFIG_H
#include "lockstep/train/train.h"

#define LK__TRAIN_OPTIONS 49
extern const struct lk_option lk__train_options[];
/* The field of one key from its text; where: file and line, for messages. */
int lk__train_option_set(struct lk_run_config *, const struct lk_option *, const char *value, const char *where,
                         struct lk_err *);

#endif
