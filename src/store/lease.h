/* What tests of leases change, and who is dead. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_LEASE_H
#define LOCKSTEP_STORE_PRIVATE_LEASE_H
#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LK__LEASE_NAME 201 /* KIND/NAME and a zero: a record's name */

extern uint32_t lk__store_lease_ms;        /* how long a lease lasts, unless it is renewed */
extern atomic_bool lk__store_lease_renews; /* false: as of a holder that is stopped */

/* This process as rows have it; NULL: no memory. Whether such a process is known to be dead: it was of this machine. */
json_t *lk__store_process_json(void);
bool lk__store_process_is_dead(const json_t *);

#endif
