/* Addresses to listen to. */
#include "net/listen.h"
#include "lockstep/net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG     4096
#define OTHER_FILES 64 /* of this process */
#define UNIX        "unix:"

/* "HOST:PORT" or "[HOST]:PORT" */
static int split_address(const char *listen, char *host, size_t size, const char **port, struct lk_err *err) {
    const char *colon = strrchr(listen, ':'), *begin = listen, *end = colon;
    if (colon && *listen == '[' && colon > listen && colon[-1] == ']') begin++, end--;
    bool bare = colon && *listen != '[' && memchr(listen, ':', (size_t)(colon - listen));
    if (!colon || bare || begin == end || !colon[1] || (size_t)(end - begin) >= size)
        return lk_fail(err, LK_EINVAL,
                       "%s is no address to listen to: write HOST:PORT, as 127.0.0.1:8080 or [::1]:8080, or unix:PATH",
                       listen);
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = 0;
    *port = colon + 1;
    return LK_OK;
}

static int resolve(const char *listen, struct addrinfo **out, struct lk_err *err) {
    char host[256];
    const char *port = "", *digit;
    int code = split_address(listen, host, sizeof host, &port, err);
    if (code) return code;
    for (digit = port; *digit >= '0' && *digit <= '9';) digit++;
    if (*digit || digit - port > 5 || atoi(port) > 65535)
        return lk_fail(err, LK_EINVAL, "%s: the port is not a number from 0 to 65535", listen);
    struct addrinfo wanted = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    int failed = getaddrinfo(host, port, &wanted, out);
    return failed ? lk_fail(err, LK_EINVAL, "%s: no such host (%s)", listen, gai_strerror(failed)) : LK_OK;
}

static bool loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}
bool lk_http_is_loopback(const char *listen) {
    struct addrinfo *all;
    if (!strncmp(listen, UNIX, strlen(UNIX))) return true;
    if (resolve(listen, &all, NULL)) return false;
    bool is = true;
    for (struct addrinfo *a = all; a; a = a->ai_next) is &= loopback(a->ai_addr);
    freeaddrinfo(all);
    return is;
}

/* A socket's file that nobody listens to is a killed server's. */
static void remove_left_over(const struct sockaddr_un *a) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    if (connect(fd, (const struct sockaddr *)a, sizeof *a) && errno == ECONNREFUSED) (void)unlink(a->sun_path);
    close(fd);
}
static int listen_unix(struct lk__net_listener *s, const char *path, struct lk_err *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof a.sun_path)
        return lk_fail(err, LK_EINVAL, "unix:%s: a path of 1 to %zu bytes is needed", path, sizeof a.sun_path - 1);
    strcpy(a.sun_path, path);
    remove_left_over(&a);
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, sizeof a))
        return lk_fail_errno(err, "cannot listen to unix:%s", path);
    strcpy(s->path, path);
    if (listen(s->fd, BACKLOG)) return lk_fail_errno(err, "cannot listen to unix:%s", path);
    snprintf(s->address, sizeof s->address, UNIX "%s", path);
    return LK_OK;
}

int lk__net_listen(struct lk__net_listener *s, const char *listen_to, struct lk_err *err) {
    struct addrinfo *all;
    if (!strncmp(listen_to, UNIX, strlen(UNIX))) return listen_unix(s, listen_to + strlen(UNIX), err);
    int code = resolve(listen_to, &all, err), one = 1;
    if (code) return code;
    s->fd = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd >= 0) (void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (s->fd < 0 || bind(s->fd, all->ai_addr, all->ai_addrlen) || listen(s->fd, BACKLOG))
        code = lk_fail_errno(err, "cannot listen to %s", listen_to);
    freeaddrinfo(all);
    if (code) return code;
    struct sockaddr_storage is;
    socklen_t size = sizeof is;
    char host[INET6_ADDRSTRLEN], port[8];
    if (getsockname(s->fd, (struct sockaddr *)&is, &size) ||
        getnameinfo((struct sockaddr *)&is, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return lk_fail_errno(err, "cannot tell the address of %s", listen_to);
    snprintf(s->address, sizeof s->address, is.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return LK_OK;
}

void lk__net_listener_close(struct lk__net_listener *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
    if (s->path[0]) (void)unlink(s->path);
    s->path[0] = 0;
}

void lk__net_raise_files(uint32_t connections) {
    struct rlimit files;
    rlim_t wanted = (rlim_t)connections + OTHER_FILES;
    if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur >= wanted) return;
    files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files); /* a server waits where there are too few */
}
