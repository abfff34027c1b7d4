/* Loads libpq, once and for good: no other command should have to load it and what it brings (TLS, Kerberos, LDAP). */
#include "store/kv/kv_postgres.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libpq.so.5"

struct lk__kv_pq lk__kv_pq;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[256];

static void fetch(void *library, const char *name, void *to) {
    void *symbol = library ? dlsym(library, name) : NULL;
    if (symbol) {
        memcpy(to, &symbol, sizeof symbol); /* ISO C has no cast between the two */
    } else if (!problem[0]) {
        const char *why = dlerror();
        snprintf(problem, sizeof problem, "%s", why ? why : name);
    }
}
static void load(void) {
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    const char *why = library ? NULL : dlerror();
    if (why) snprintf(problem, sizeof problem, "%s", why);
#define X(name) fetch(library, "PQ" #name, &lk__kv_pq.name);
    LK__KV_PG_FUNCTIONS(X)
#undef X
}

int lk__kv_pq_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!problem[0]) return 0;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libpq5 (Debian's name), 14 or later", LIBRARY,
                   problem);
}
