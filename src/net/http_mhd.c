/* Loads libmicrohttpd, once and for good: GnuTLS does not survive that it is unloaded. */
#include "net/http_mhd.h"
#include "lockstep/base/library.h"
#include <pthread.h>

#define LIBRARY "libmicrohttpd.so.12"

struct lk__net_mhd lk__net_mhd;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lk_library library;

static void load(void) {
    lk_library_open(&library, (const char *const[]){LIBRARY, NULL});
#define X(name) lk_library_find(&library, "MHD_" #name, &lk__net_mhd.name);
    LK__NET_MHD_FUNCTIONS(X)
#undef X
}

int lk__net_mhd_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!library.problem[0]) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libmicrohttpd12 (Debian's name)", LIBRARY,
                   library.problem);
}
