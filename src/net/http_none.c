/* In place of the server in a build without libmicrohttpd. */
#include "lockstep/net/http_server.h"

int lk_http_server_open(const struct lk_http_options *o, struct lk_http_server **out, struct lk_err *err) {
    (void)o, (void)out;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "this build has no HTTP server: install libmicrohttpd-dev (Debian's name) and build again");
}
