/* Rules of garbage, inside the table floor. */
#ifndef LK_TABLE_GC_RULE_H
#define LK_TABLE_GC_RULE_H
#include "lockstep/store/table.h"

/* Whether the cell is garbage that is the n-th newest of its column (from 0) and that old. Once one is, all older ones of
 * the column are. */
bool lk__table_gc_garbage(const struct lk_gc_rule *, int64_t nth, int64_t age_us);

#endif
