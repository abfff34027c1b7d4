/* nghttp2's functions, loaded with the first server. Private to src/net. */
#ifndef LOCKSTEP_NET_GRPC_H2_H
#define LOCKSTEP_NET_GRPC_H2_H
#include "lockstep/base/err.h"
#include <nghttp2/nghttp2.h>

#define LK__NET_H2_FUNCTIONS(X)                                                                                            \
    X(session_callbacks_new)                                                                                               \
    X(session_callbacks_del)                                                                                               \
    X(session_callbacks_set_on_begin_headers_callback)                                                                     \
    X(session_callbacks_set_on_header_callback)                                                                            \
    X(session_callbacks_set_on_frame_recv_callback)                                                                        \
    X(session_callbacks_set_on_invalid_frame_recv_callback)                                                                \
    X(session_callbacks_set_on_frame_send_callback)                                                                        \
    X(session_callbacks_set_on_data_chunk_recv_callback)                                                                   \
    X(session_callbacks_set_on_stream_close_callback)                                                                      \
    X(option_new)                                                                                                          \
    X(option_del)                                                                                                          \
    X(option_set_no_auto_window_update)                                                                                    \
    X(session_server_new3)                                                                                                 \
    X(session_del)                                                                                                         \
    X(session_mem_recv)                                                                                                    \
    X(session_mem_send)                                                                                                    \
    X(session_want_read)                                                                                                   \
    X(session_want_write)                                                                                                  \
    X(session_resume_data)                                                                                                 \
    X(session_consume_connection)                                                                                          \
    X(session_consume_stream)                                                                                              \
    X(session_set_local_window_size)                                                                                       \
    X(session_get_stream_user_data)                                                                                        \
    X(session_set_stream_user_data)                                                                                        \
    X(session_get_last_proc_stream_id)                                                                                     \
    X(submit_settings)                                                                                                     \
    X(submit_response)                                                                                                     \
    X(submit_trailer)                                                                                                      \
    X(submit_rst_stream)                                                                                                   \
    X(submit_goaway)                                                                                                       \
    X(submit_shutdown_notice)                                                                                              \
    X(submit_ping)

struct lk__net_h2 {
#define X(name) __typeof__(nghttp2_##name) *name;
    LK__NET_H2_FUNCTIONS(X)
#undef X
};
extern struct lk__net_h2 lk__net_h2; /* filled by lk__net_h2_load */
/* LK_EUNSUPPORTED: it is not on this machine. Threads: any. */
int lk__net_h2_load(struct lk_err *);

#endif
