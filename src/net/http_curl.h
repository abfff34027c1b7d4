/* libcurl's functions, loaded with the first call: it brings thirty libraries (TLS, Kerberos, LDAP), which no other command
 * should have to load. Private to src/net. */
#ifndef LOCKSTEP_NET_HTTP_CURL_H
#define LOCKSTEP_NET_HTTP_CURL_H
#include "lockstep/base/err.h"
#include <curl/curl.h>

#define LK__NET_CURL_FUNCTIONS(X)                                                                                          \
    X(global_init)                                                                                                         \
    X(easy_init)                                                                                                           \
    X(easy_setopt)                                                                                                         \
    X(easy_getinfo)                                                                                                        \
    X(easy_cleanup)                                                                                                        \
    X(easy_strerror)                                                                                                       \
    X(slist_append)                                                                                                        \
    X(slist_free_all)                                                                                                      \
    X(multi_init)                                                                                                          \
    X(multi_setopt)                                                                                                        \
    X(multi_add_handle)                                                                                                    \
    X(multi_remove_handle)                                                                                                 \
    X(multi_perform)                                                                                                       \
    X(multi_poll)                                                                                                          \
    X(multi_wakeup)                                                                                                        \
    X(multi_info_read)                                                                                                     \
    X(multi_cleanup)

struct lk__net_curl {
#define X(name) __typeof__(curl_##name) *name;
    LK__NET_CURL_FUNCTIONS(X)
#undef X
};
extern struct lk__net_curl lk__net_curl; /* filled by lk__net_curl_load */
/* LK_EUNSUPPORTED: it is not on this machine. Threads: any. */
int lk__net_curl_load(struct lk_err *);

#endif
