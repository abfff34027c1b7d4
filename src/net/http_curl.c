/* Loads libcurl, once and for good: its TLS library does not survive that it is unloaded. */
#include "net/http_curl.h"
#include "lockstep/base/library.h"
#include <pthread.h>
#include <stdio.h>

struct lk__net_curl lk__net_curl;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lk_library library;

static void load(void) {
    lk_library_open(&library, (const char *const[]){"libcurl.so.4", "libcurl-gnutls.so.4", NULL});
#define X(name) lk_library_find(&library, "curl_" #name, &lk__net_curl.name);
    LK__NET_CURL_FUNCTIONS(X)
#undef X
    if (!library.problem[0] && lk__net_curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        snprintf(library.problem, sizeof library.problem, "its start failed");
}

int lk__net_curl_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!library.problem[0]) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load libcurl.so.4: %s; install libcurl4 (Debian's name)", library.problem);
}
