/* The root of a store's rows, as census.c and move_rows.c make it. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_CENSUS_H
#define LOCKSTEP_STORE_PRIVATE_CENSUS_H
#include "lockstep/store/census.h"

/* Whether the row says what the store is, not what is in it. */
bool lk__store_is_format(struct lk_bytes key);
/* One row after the other, in order. */
void lk__store_digest_row(struct lk_digest *, struct lk_bytes key, struct lk_bytes value);

#endif
