/* A proxy between libpq and a PostgreSQL's socket that cuts the connection at a message; tests only. */
#ifndef LK_STORE_KV_POSTGRES_PROXY_H
#define LK_STORE_KV_POSTGRES_PROXY_H
#include "base/testing.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { TO_SERVER, TO_CLIENT };
struct proxy {
    char server[108];
    int listener;
    pthread_t thread;
    /* Set before the cut: in that direction so many messages pass, then (half: after a part of one more) all is closed. */
    atomic_int left, direction, half;
    atomic_int cut, silent;  /* done; silent: nothing passes any more, and nothing is closed */
    void (*between)(void *); /* called before the next connection is let through */
    void *arg;
};

static inline int proxy_socket(const char *path, bool server) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (server) {
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(listen(fd, 16), 0);
    } else if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

struct proxy_pair {
    struct proxy *proxy;
    int fd[2]; /* client, server */
};

static inline bool proxy_write(int fd, const char *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, data + done, size - done, MSG_NOSIGNAL);
        if (n <= 0) return false;
        done += (size_t)n;
    }
    return true;
}

/* Passes on the whole messages of *buf. False: the connection ends here. */
static inline bool proxy_pass(struct proxy *p, struct lk_buf *buf, bool *started, int direction, int to) {
    size_t at = 0;
    bool alive = true;
    while (alive) {
        size_t head = direction == TO_SERVER && !*started ? 0 : 1; /* the first one of a client has no type */
        if (buf->size - at < head + 4) break;
        const unsigned char *length = (const unsigned char *)buf->data + at + head;
        size_t size = head + ((size_t)length[0] << 24 | (size_t)length[1] << 16 | (size_t)length[2] << 8 | length[3]);
        if (buf->size - at < size) break;
        *started = true;
        if (atomic_load(&p->left) >= 0 && atomic_load(&p->direction) == direction && atomic_fetch_sub(&p->left, 1) == 0) {
            if (atomic_load(&p->half)) proxy_write(to, buf->data + at, size / 2);
            atomic_store(&p->cut, 1);
            alive = false;
        } else {
            alive = proxy_write(to, buf->data + at, size);
        }
        at += size;
    }
    memmove(buf->data, buf->data + at, buf->size - at);
    buf->size -= at;
    return alive;
}

static inline void *proxy_serve(void *arg) {
    struct proxy_pair *pair = arg;
    struct lk_buf buf[2] = {LK_BUF_INIT, LK_BUF_INIT};
    bool started[2] = {false, true}, alive = true;
    while (alive) {
        struct pollfd p[2] = {{pair->fd[0], POLLIN, 0}, {pair->fd[1], POLLIN, 0}};
        poll(p, 2, 100);
        for (int d = 0; d < 2 && alive; d++) {
            char bytes[65536];
            if (!p[d].revents || atomic_load(&pair->proxy->silent)) continue;
            ssize_t n = read(pair->fd[d], bytes, sizeof bytes);
            alive = n > 0 && lk_buf_append(&buf[d], bytes, (size_t)n) == 0 &&
                    proxy_pass(pair->proxy, &buf[d], &started[d], d, pair->fd[!d]);
        }
    }
    for (int d = 0; d < 2; d++) close(pair->fd[d]), lk_buf_release(&buf[d]);
    free(pair);
    return NULL;
}

static inline void *proxy_listen(void *arg) {
    struct proxy *p = arg;
    for (int client; (client = accept(p->listener, NULL, NULL)) >= 0;) {
        pthread_t thread;
        if (atomic_exchange(&p->cut, 0) && p->between) p->between(p->arg);
        int server = proxy_socket(p->server, false);
        if (server < 0) {
            close(client);
            continue;
        }
        struct proxy_pair *pair = malloc(sizeof *pair);
        *pair = (struct proxy_pair){p, {client, server}};
        pthread_create(&thread, NULL, proxy_serve, pair);
        pthread_detach(thread);
    }
    return NULL;
}

/* Listens in `dir` as a server does. */
static inline void proxy_open(struct proxy *p, const char *dir, const char *server_dir) {
    char path[108];
    memset(p, 0, sizeof *p);
    p->left = -1;
    snprintf(p->server, sizeof p->server, "%.80s/.s.PGSQL.5432", server_dir);
    snprintf(path, sizeof path, "%.80s/.s.PGSQL.5432", dir);
    p->listener = proxy_socket(path, true);
    assert_int_equal(pthread_create(&p->thread, NULL, proxy_listen, p), 0);
}
static inline void proxy_close(struct proxy *p) {
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
}

#endif
