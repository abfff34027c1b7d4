/* In place of the server in a build without nghttp2 and protobuf-c. None can be opened, so that nothing else is ever
 * called. */
#include "lockstep/net/grpc_server.h"

#define NONE LK_ASSERT(!"there is no server")

int lk_grpc_server_open(const struct lk_grpc_options *o, struct lk_grpc_server **out, struct lk_err *err) {
    (void)o, (void)out;
    return lk_fail(
        err, LK_EUNSUPPORTED,
        "this build has no gRPC server: install libnghttp2-dev, libprotobuf-c-dev, protobuf-c-compiler and libssl-dev "
        "(Debian's names) and build again");
}
const char *lk_grpc_server_address(const struct lk_grpc_server *s) {
    (void)s;
    NONE;
    return NULL;
}
void lk_grpc_server_drain(struct lk_grpc_server *s) {
    (void)s;
    NONE;
}
void lk_grpc_server_close(struct lk_grpc_server *s, uint32_t grace_ms) {
    (void)grace_ms;
    LK_ASSERT(!s);
}
