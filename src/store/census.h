/* The root of a store's rows, as census.c and move_rows.c make it. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_CENSUS_H
#define LOCKSTEP_STORE_PRIVATE_CENSUS_H
#include "lockstep/store/census.h"

/* Whether the row is about the store, or what processes do there now (leases, what is being put or removed), not what is in
 * it: no part of the root, and a move leaves both stores theirs. */
bool lk__store_is_of_place(struct lk_bytes key);
/* One row after the other, in order. */
void lk__store_digest_row(struct lk_digest *, struct lk_bytes key, struct lk_bytes value);

#endif
