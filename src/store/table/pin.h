/* Pins, inside the table floor. */
#ifndef LK_TABLE_PIN_H
#define LK_TABLE_PIN_H
#include "store/table/schema.h"

/* Releases the pins whose time is over. */
int lk__table_expire_pins(struct lk_store *, struct lk_err *);

#endif
