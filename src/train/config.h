/* The table of keys, shared by its readers. Private to src/train/config*.c. */
#ifndef LOCKSTEP_TRAIN_CONFIG_H
#define LOCKSTEP_TRAIN_CONFIG_H
#include "lockstep/train/train.h"

#define LK__TRAIN_OPTIONS 50
extern const struct lk_option lk__train_options[];
/* The field of one key from its text; where: file and line, for messages. */
int lk__train_option_set(struct lk_run_config *, const struct lk_option *, const char *value, const char *where,
                         struct lk_err *);
/* All of an INI's keys into their fields; what is not among them is left as it was. */
int lk__train_config_set(struct lk_run_config *, const struct lk_ini *, struct lk_err *);
/* LK_EINVAL that answers a key that is none of ours: what it is called here, or the nearest. */
int lk__train_unknown_key(const struct lk_ini_entry *, struct lk_err *);
/* What keys are by default that follow from others. */
uint32_t lk__train_grains(uint32_t sequences);
uint32_t lk__train_ffn(const struct lk_run_config *);
uint32_t lk__train_heads(const struct lk_run_config *);
uint32_t lk__train_tenth(const struct lk_run_config *); /* of eval.every and checkpoint.every */
uint32_t lk__train_cooldown(const struct lk_run_config *);

#endif
