/* Loads libcurl, once and for good: its TLS library does not survive that it is unloaded. */
#include "net/http_curl.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct lk__net_curl lk__net_curl;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[256];

static void fetch(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    if (symbol) {
        memcpy(to, &symbol, sizeof symbol); /* ISO C has no cast between the two */
    } else if (!problem[0]) {
        const char *why = dlerror();
        snprintf(problem, sizeof problem, "%s", why ? why : name);
    }
}
static void load(void) {
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        const char *why = library || i ? NULL : dlerror();
        if (why) snprintf(problem, sizeof problem, "%s", why);
    }
    if (!library) return;
    problem[0] = 0;
#define X(name) fetch(library, "curl_" #name, &lk__net_curl.name);
    LK__NET_CURL_FUNCTIONS(X)
#undef X
    if (!problem[0] && lk__net_curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        snprintf(problem, sizeof problem, "its start failed");
}

int lk__net_curl_load(struct lk_err *err) {
    pthread_once(&once, load);
    if (!problem[0]) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED, "cannot load libcurl.so.4: %s; install libcurl4 (Debian's name)", problem);
}
