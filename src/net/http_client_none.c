/* In place of the client in a build without libcurl. None can be opened, so that nothing else is ever called. */
#include "lockstep/net/http_client.h"

#define NONE LK_ASSERT(!"there is no client")

int lk_http_client_open(const struct lk_http_client_options *o, struct lk_http_client **out, struct lk_err *err) {
    (void)o;
    *out = NULL;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "this build has no HTTP client: install libcurl4-openssl-dev (Debian's name) and build again");
}
void lk_http_client_close(struct lk_http_client *c) {
    LK_ASSERT(!c);
}
int lk_http_call_start(struct lk_http_client *c, const struct lk_http_request *r, struct lk_http_call **out,
                       struct lk_err *err) {
    (void)c, (void)r, (void)out, (void)err;
    NONE;
    return LK_EUNSUPPORTED;
}
int lk_http_call_wait(struct lk_http_call *call, struct lk_err *err) {
    (void)call, (void)err;
    NONE;
    return LK_EUNSUPPORTED;
}
bool lk_http_call_over(struct lk_http_call *call) {
    (void)call;
    NONE;
    return true;
}
void lk_http_call_cancel(struct lk_http_call *call) {
    (void)call;
    NONE;
}
void lk_http_call_free(struct lk_http_call *call) {
    LK_ASSERT(!call);
}
int lk_http_call_status(const struct lk_http_call *call) {
    (void)call;
    NONE;
    return 0;
}
const char *lk_http_call_header(struct lk_http_call *call, const char *name) {
    (void)call, (void)name;
    NONE;
    return NULL;
}
struct lk_bytes lk_http_call_body(const struct lk_http_call *call) {
    (void)call;
    NONE;
    return lk_bytes("", 0);
}
uint64_t lk_http_call_received(const struct lk_http_call *call) {
    (void)call;
    NONE;
    return 0;
}
bool lk_http_call_temporary(const struct lk_http_call *call) {
    (void)call;
    NONE;
    return false;
}
