/* Which rows a read is about: intervals of keys that do not overlap, in order. */
#ifndef LK_TABLE_RANGES_H
#define LK_TABLE_RANGES_H
#include "store/table/key.h"

struct lk__interval { /* of keys of LK__CELLS: from <= key < to */
    struct lk_bytes from, to;
};
struct lk__intervals {
    struct lk__interval *list;
    size_t count;
    struct lk_buf bytes;
};
/* prefix: all row keys begin with it (of no bytes: nothing known). LK_EINVAL: a key or bound is too long. */
int lk__intervals_make(const struct lk_table_read *, uint32_t table, struct lk_bytes prefix, struct lk__intervals *out,
                       struct lk_err *);
void lk__intervals_free(struct lk__intervals *);

#endif
