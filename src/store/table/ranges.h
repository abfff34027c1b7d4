/* Which rows a read is about: intervals of keys that do not overlap, in order. */
#ifndef LK_TABLE_RANGES_H
#define LK_TABLE_RANGES_H
#include "store/table/key.h"

struct lk__table_interval { /* of keys of LK__CELLS: from <= key < to */
    struct lk_bytes from, to;
};
#define LK__FEW 4
struct lk__table_intervals {
    struct lk__table_interval *list;
    struct lk__table_interval few[LK__FEW]; /* list: these, where they suffice */
    size_t count;
    struct lk_buf *bytes, *key; /* the caller's, set before they are made */
};
/* prefix: all row keys begin with it (of no bytes: nothing known). LK_EINVAL: a key or bound is too long. */
int lk__table_intervals_make(const struct lk_table_read *, uint32_t table, struct lk_bytes prefix,
                             struct lk__table_intervals *out, struct lk_err *);
void lk__table_intervals_free(struct lk__table_intervals *);

#endif
