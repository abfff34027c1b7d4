/* Loads nghttp2, once and for good. */
#include "net/grpc_h2.h"
#include "lockstep/base/library.h"
#include <pthread.h>

#define LIBRARY "libnghttp2.so.14"

struct lk__net_h2 lk__net_h2;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lk_library library;

static void load(void) {
    lk_library_open(&library, (const char *const[]){LIBRARY, NULL});
#define X(name) lk_library_find(&library, "nghttp2_" #name, &lk__net_h2.name);
    LK__NET_H2_FUNCTIONS(X)
#undef X
}

int lk__net_h2_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!library.problem[0]) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libnghttp2-14 (Debian's name)", LIBRARY,
                   library.problem);
}
