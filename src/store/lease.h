/* What tests of leases change. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_LEASE_H
#define LOCKSTEP_STORE_PRIVATE_LEASE_H
#include <stdatomic.h>
#include <stdint.h>

#define LK__LEASE_NAME 201 /* KIND/NAME and a zero: a record's name */

extern uint32_t lk__store_lease_ms;        /* how long a lease lasts, unless it is renewed */
extern atomic_bool lk__store_lease_renews; /* false: as of a holder that is stopped */

#endif
