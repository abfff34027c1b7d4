/* TLS by OpenSSL, loaded with the first server that wants it: TLS 1.2 and 1.3, ALPN "h2" only. */
#include "lockstep/base/file.h"
#include "lockstep/base/library.h"
#include "net/grpc_inside.h"
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <string.h>

#define LIBRARY "libssl.so.3"
/* HTTP/2 forbids the other suites of TLS 1.2. */
#define SUITES "ECDHE+AESGCM:ECDHE+CHACHA20"

#define FUNCTIONS(X)                                                                                                       \
    X(TLS_server_method)                                                                                                   \
    X(SSL_CTX_new)                                                                                                         \
    X(SSL_CTX_free)                                                                                                        \
    X(SSL_CTX_ctrl)                                                                                                        \
    X(SSL_CTX_set_options)                                                                                                 \
    X(SSL_CTX_set_cipher_list)                                                                                             \
    X(SSL_CTX_set_alpn_select_cb)                                                                                          \
    X(SSL_CTX_use_certificate_chain_file)                                                                                  \
    X(SSL_CTX_use_PrivateKey_file)                                                                                         \
    X(SSL_CTX_check_private_key)                                                                                           \
    X(SSL_new)                                                                                                             \
    X(SSL_free)                                                                                                            \
    X(SSL_set_fd)                                                                                                          \
    X(SSL_accept)                                                                                                          \
    X(SSL_read)                                                                                                            \
    X(SSL_write)                                                                                                           \
    X(SSL_pending)                                                                                                         \
    X(SSL_shutdown)                                                                                                        \
    X(SSL_get_error)                                                                                                       \
    X(SSL_get0_alpn_selected)

static struct {
#define X(name) __typeof__(name) *name;
    FUNCTIONS(X)
#undef X
} ssl;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct lk_library library;

static void load(void) {
    lk_library_open(&library, (const char *const[]){LIBRARY, NULL});
#define X(name) lk_library_find(&library, #name, &ssl.name);
    FUNCTIONS(X)
#undef X
}

static int choose(SSL *s, const unsigned char **out, unsigned char *size, const unsigned char *in, unsigned in_size,
                  void *unused) {
    (void)s, (void)unused;
    for (unsigned i = 0; i < in_size && i + in[i] < in_size; i += in[i] + 1u)
        if (in[i] == 2 && !memcmp(in + i + 1, "h2", 2)) return *out = in + i + 1, *size = 2, SSL_TLSEXT_ERR_OK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int fail(struct lk_err *err, const char *what, const char *path) {
    char text[256] = "no reason given";
    unsigned long e = ERR_peek_last_error();
    if (e) ERR_error_string_n(e, text, sizeof text);
    ERR_clear_error();
    return lk_fail(err, LK_EIO, "%s %s: %s", what, path, text);
}

static int configure(SSL_CTX *c, const char *certificate, const char *key, struct lk_err *err) {
    if (!ssl.SSL_CTX_ctrl(c, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) ||
        !ssl.SSL_CTX_set_cipher_list(c, SUITES))
        return fail(err, "cannot set up TLS for", certificate);
    ssl.SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    ssl.SSL_CTX_ctrl(c, SSL_CTRL_MODE,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS, NULL);
    ssl.SSL_CTX_set_alpn_select_cb(c, choose, NULL);
    if (ssl.SSL_CTX_use_certificate_chain_file(c, certificate) != 1)
        return fail(err, "cannot use the certificate", certificate);
    if (ssl.SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) != 1) return fail(err, "cannot use the key", key);
    if (ssl.SSL_CTX_check_private_key(c) != 1)
        return lk_fail(err, LK_EIO, "the key %s does not fit the certificate %s", key, certificate);
    return LK_OK;
}

int lk__grpc_tls_open(const char *certificate, const char *key, SSL_CTX **out, struct lk_err *err) {
    if (!certificate || !key)
        return lk_fail(err, LK_EINVAL, "TLS needs a certificate and a key: one of the two PEM files is not given");
    for (int i = 0; i < 2; i++)
        if (!lk_file_exists(i ? key : certificate))
            return lk_fail(err, LK_ENOTFOUND, "%s: there is no such file", i ? key : certificate);
    pthread_once(&once, load);
    if (library.problem[0])
        return lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install libssl3 (Debian's name)", LIBRARY,
                       library.problem);
    SSL_CTX *c = ssl.SSL_CTX_new(ssl.TLS_server_method());
    if (!c) return lk_fail(err, LK_ENOMEM, "no memory for TLS");
    int code = configure(c, certificate, key, err);
    if (code)
        ssl.SSL_CTX_free(c);
    else
        *out = c;
    return code;
}
void lk__grpc_tls_close(SSL_CTX *c) {
    if (c) ssl.SSL_CTX_free(c);
}

SSL *lk__grpc_tls_new(SSL_CTX *c, int fd) {
    SSL *s = ssl.SSL_new(c);
    if (s && ssl.SSL_set_fd(s, fd) == 1) return s;
    if (s) ssl.SSL_free(s);
    return NULL;
}
void lk__grpc_tls_free(SSL *s) {
    if (!s) return;
    ERR_clear_error();
    (void)ssl.SSL_shutdown(s);
    ERR_clear_error();
    ssl.SSL_free(s);
}

int lk__grpc_tls_handshake(SSL *s, bool *wants_write) {
    const unsigned char *alpn;
    unsigned size;
    ERR_clear_error();
    int did = ssl.SSL_accept(s), why = did == 1 ? SSL_ERROR_NONE : ssl.SSL_get_error(s, did);
    *wants_write = why == SSL_ERROR_WANT_WRITE;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return LK__GRPC_AGAIN;
    if (why) return LK__GRPC_BROKEN;
    ssl.SSL_get0_alpn_selected(s, &alpn, &size);
    return size == 2 && !memcmp(alpn, "h2", 2) ? 0 : LK__GRPC_BROKEN;
}
static ssize_t moved(SSL *s, int did) {
    if (did > 0) return did;
    int why = ssl.SSL_get_error(s, did);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return LK__GRPC_AGAIN;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : LK__GRPC_BROKEN;
}
ssize_t lk__grpc_tls_read(SSL *s, void *data, size_t size) {
    ERR_clear_error();
    return moved(s, ssl.SSL_read(s, data, size > INT_MAX ? INT_MAX : (int)size));
}
ssize_t lk__grpc_tls_write(SSL *s, const void *data, size_t size) {
    ERR_clear_error();
    return moved(s, ssl.SSL_write(s, data, size > INT_MAX ? INT_MAX : (int)size));
}
bool lk__grpc_tls_pending(const SSL *s) {
    return ssl.SSL_pending(s) > 0;
}
