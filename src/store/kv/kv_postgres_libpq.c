/* Loads libpq, once and for good: no other command should have to load it and what it brings (TLS, Kerberos, LDAP). */
#include "lockstep/base/library.h"
#include "store/kv/kv_postgres.h"

#define LIBRARY "libpq.so.5"

struct lk__kv_pq lk__kv_pq;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lk_library library;

static void load(void) {
    lk_library_open(&library, (const char *const[]){LIBRARY, NULL});
#define X(name) lk_library_find(&library, "PQ" #name, &lk__kv_pq.name);
    LK__KV_PG_FUNCTIONS(X)
#undef X
}

int lk__kv_pq_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!library.problem[0]) return 0;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libpq5 (Debian's name), 14 or later", LIBRARY,
                   library.problem);
}
