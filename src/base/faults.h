/* Faults on request, for the tests of every floor; it is not installed. */
#ifndef LOCKSTEP_BASE_FAULTS_H
#define LOCKSTEP_BASE_FAULTS_H
#include <stdint.h>

/* The nth allocation from now (1 = the next) fails, once; 0 switches the hook off. Process-wide, thread-safe. */
void lk__alloc_fail_at(uint64_t nth);
/* Number of allocations since the last lk__alloc_fail_at call. */
uint64_t lk__alloc_count(void);

/* The nth call of base/syscalls.h from now fails with error_number, once; nth = 0 switches it off. */
void lk__file_fail_at(uint64_t nth, int error_number);
/* The same, but instead of failing the process is killed by SIGKILL just before the call. */
void lk__file_kill_at(uint64_t nth);
uint64_t lk__file_call_count(void); /* since the last of the two calls above */

#endif
