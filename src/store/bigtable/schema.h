/* Tables and families as the admin API's messages. */
#ifndef LK_BIGTABLE_SCHEMA_H
#define LK_BIGTABLE_SCHEMA_H
#include "google/bigtable/admin/v2/bigtable_table_admin.pb-c.h"
#include "store/bigtable/inside.h"

/* A family as it is asked for: the rule as text, which lives as long as the call. */
int lk__bigtable_family(struct lk__bigtable_call *, const char *id, const ADMIN(ColumnFamily) *,
                        struct lk_table_family *out, struct lk_err *);
/* NOT_FOUND: the call's table was dropped meanwhile. */
int lk__bigtable_there(struct lk__bigtable_call *, struct lk_err *);
/* A table as it is, as far as the view shows it; NULL with NAME_ONLY: one that is known to be there. full: its name in the
 * API. Lives as long as the call. */
int lk__bigtable_table_message(struct lk__bigtable_call *, struct lk_table *, const char *full, ADMIN(Table__View) view,
                               ADMIN(Table) * *out, struct lk_err *);

#endif
