/* In place of the server in a build without libmicrohttpd. None can be opened, so that nothing else is ever called. */
#include "lockstep/net/http_server.h"

#define NONE LK_ASSERT(!"there is no server")

int lk_http_server_open(const struct lk_http_options *o, struct lk_http_server **out, struct lk_err *err) {
    (void)o, (void)out;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "this build has no HTTP server: install libmicrohttpd-dev (Debian's name) and build again");
}
const char *lk_http_server_address(const struct lk_http_server *s) {
    (void)s;
    NONE;
    return NULL;
}
void lk_http_server_drain(struct lk_http_server *s) {
    (void)s;
    NONE;
}
void lk_http_server_close(struct lk_http_server *s) {
    LK_ASSERT(!s);
}
void lk_http_server_count(struct lk_http_server *s, struct lk_http_counts *out) {
    (void)s, (void)out;
    NONE;
}
uint32_t lk_http_server_connections(const struct lk_http_server *s) {
    (void)s;
    NONE;
    return 0;
}
const char *lk_http_method(const struct lk_http_exchange *x) {
    (void)x;
    NONE;
    return NULL;
}
const char *lk_http_path(const struct lk_http_exchange *x) {
    (void)x;
    NONE;
    return NULL;
}
const char *lk_http_header(const struct lk_http_exchange *x, const char *name) {
    (void)x, (void)name;
    NONE;
    return NULL;
}
const char *lk_http_query(const struct lk_http_exchange *x, const char *name) {
    (void)x, (void)name;
    NONE;
    return NULL;
}
struct lk_bytes lk_http_body(const struct lk_http_exchange *x) {
    (void)x;
    NONE;
    return lk_bytes("", 0);
}
void lk_http_on_gone(struct lk_http_exchange *x, void (*gone)(void *), void *arg) {
    (void)x, (void)gone, (void)arg;
    NONE;
}
int lk_http_respond(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count,
                    const void *body, size_t size) {
    (void)x, (void)status, (void)type, (void)f, (void)count, (void)body, (void)size;
    NONE;
    return LK_EUNSUPPORTED;
}
int lk_http_begin(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count) {
    (void)x, (void)status, (void)type, (void)f, (void)count;
    NONE;
    return LK_EUNSUPPORTED;
}
int lk_http_write(struct lk_http_exchange *x, const void *data, size_t size) {
    (void)x, (void)data, (void)size;
    NONE;
    return LK_EUNSUPPORTED;
}
void lk_http_end(struct lk_http_exchange *x) {
    (void)x;
    NONE;
}
