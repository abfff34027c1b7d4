/* A manifest that is read back before its root is given out: jansson 2.14 drops the error of its writer where that happens
 * in a key, so that a lack of memory could lose the key unseen. */
#ifndef LOCKSTEP_DATA_MANIFEST_H
#define LOCKSTEP_DATA_MANIFEST_H
#include "lockstep/store.h"

int lk__manifest_put(struct lk_store *, const json_t *, const char *what, struct lk_root *out, struct lk_err *);

#endif
