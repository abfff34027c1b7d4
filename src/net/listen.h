/* Sockets that listen. Private to src/net. */
#ifndef LOCKSTEP_NET_LISTEN_H
#define LOCKSTEP_NET_LISTEN_H
#include "lockstep/base/err.h"
#include <stdint.h>

struct lk__net_listener {
    int fd;                       /* -1: none */
    char address[128], path[108]; /* path: of a Unix socket, to be removed */
};
/* HOST:PORT, [IPv6]:PORT, unix:PATH; fd must be -1 before. On failure: lk__net_listener_close, as else. */
int lk__net_listen(struct lk__net_listener *, const char *listen, struct lk_err *);
void lk__net_listener_close(struct lk__net_listener *);
/* Raises this process's limit of open files to what so many connections need, as far as it may. */
void lk__net_raise_files(uint32_t connections);

#endif
