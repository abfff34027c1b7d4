/* Names of filters, in texts and in messages. */
#ifndef LK_TABLE_FILTER_TEXT_H
#define LK_TABLE_FILTER_TEXT_H
#include "lockstep/store/table.h"

/* "?" where there is no such kind. */
const char *lk__table_filter_name(enum lk_filter_kind);

#endif
