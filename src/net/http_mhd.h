/* libmicrohttpd's functions, loaded with the first server: it brings twelve libraries (TLS), which no other command should
 * have to load. Private to src/net. */
#ifndef LOCKSTEP_NET_HTTP_MHD_H
#define LOCKSTEP_NET_HTTP_MHD_H
#include "lockstep/base/err.h"
#include <microhttpd.h>

#define LK__NET_MHD_FUNCTIONS(X)                                                                                           \
    X(start_daemon)                                                                                                        \
    X(stop_daemon)                                                                                                         \
    X(quiesce_daemon)                                                                                                      \
    X(add_connection)                                                                                                      \
    X(is_feature_supported)                                                                                                \
    X(get_connection_info)                                                                                                 \
    X(get_connection_values)                                                                                               \
    X(suspend_connection)                                                                                                  \
    X(resume_connection)                                                                                                   \
    X(queue_response)                                                                                                      \
    X(create_response_from_buffer)                                                                                         \
    X(create_response_from_callback)                                                                                       \
    X(add_response_header)                                                                                                 \
    X(destroy_response)

struct lk__net_mhd {
#define X(name) __typeof__(MHD_##name) *name;
    LK__NET_MHD_FUNCTIONS(X)
#undef X
};
extern struct lk__net_mhd lk__net_mhd; /* filled by lk__net_mhd_load */
/* LK_EUNSUPPORTED: it is not on this machine. Threads: any. */
int lk__net_mhd_load(struct lk_err *);

#endif
