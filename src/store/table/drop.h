/* What dropped tables have left. */
#ifndef LK_TABLE_DROP_H
#define LK_TABLE_DROP_H
#include "lockstep/store/table.h"

/* Removes the cells of all dropped tables, in short transactions; adds their number. */
int lk__table_sweep_dropped(struct lk_store *, uint64_t *removed, struct lk_err *);

#endif
