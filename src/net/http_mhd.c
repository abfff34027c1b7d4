/* Loads libmicrohttpd, once and for good: GnuTLS does not survive that it is unloaded. */
#include "net/http_mhd.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LIBRARY "libmicrohttpd.so.12"

struct lk__net_mhd lk__net_mhd;
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
#define X(name) fetch(library, "MHD_" #name, &lk__net_mhd.name);
    LK__NET_MHD_FUNCTIONS(X)
#undef X
}

int lk__net_mhd_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!problem[0]) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libmicrohttpd12 (Debian's name)", LIBRARY, problem);
}
