/* In place of the engine in a build without libpq. */
#include "store/kv/kv_engine.h"

static int none(const char *url, enum lk_access access, struct lk_kv **out, struct lk_err *err) {
    (void)url, (void)access, (void)out;
    return lk_fail(err, LK_EUNSUPPORTED, "this build has no PostgreSQL: install libpq-dev (Debian's name) and build again");
}
const struct lk_kv_ops lk__kv_postgres = {.name = "PostgreSQL", .scheme = "postgresql:", .key_max = 2600, .open = none};
const struct lk_kv_ops lk__kv_postgres_short = {.name = "PostgreSQL", .scheme = "postgres:", .key_max = 2600, .open = none};
