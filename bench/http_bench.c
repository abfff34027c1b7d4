/* The HTTP server under load: http_bench [seconds [streams [connections]]]
 * Requests of 64 clients that keep their connections, whole; streams of 20 events a second each, written by one thread; and
 * what a connection costs that only waits. Server and clients are two processes of this machine. */
#include "bench_machine.h"
#include "bench_median.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/net/http_server.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 64
#define MOST    20000
#define ROUNDS  100      /* events of a stream */
#define EVERY   50000000 /* ns from one to the next */
#define EVENT   200      /* bytes of one */

static void stop(const char *what) {
    fprintf(stderr, "http_bench: %s\n", what);
    exit(1);
}

/* --- The server's process ------------------------------------------------------------------------------------------ */

static struct lk_http_exchange *streams[MOST];
static atomic_int stream_count;
static int wanted;

static void handle(void *arg, struct lk_http_exchange *x) {
    (void)arg;
    if (lk_http_path(x)[1] == 's' && stream_count < MOST)
        streams[stream_count++] = x;
    else
        lk_http_respond(x, 200, "text/plain", NULL, 0, "ok", 2);
}

static void serve(int ready, int streams_wanted, uint32_t connections) {
    struct lk_http_server *s;
    struct lk_err err;
    struct lk_http_options o = {.listen = "127.0.0.1:0",
                                .limits = {.connections = connections, .connections_per_client = connections},
                                .handle = handle};
    wanted = streams_wanted;
    if (lk_http_server_open(&o, &s, &err)) stop(err.message);
    if (write(ready, lk_http_server_address(s), 64) != 64) exit(1);
    while (stream_count < wanted) usleep(1000);
    char event[EVENT + 1];
    double times[ROUNDS];
    for (int i = 0; i < wanted; i++) lk_http_begin(streams[i], 200, "text/event-stream", NULL, 0);
    uint64_t next = lk_clock_ns();
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t began = lk_clock_ns();
        int n = snprintf(event, sizeof event, "data: %020llu ", (unsigned long long)began);
        memset(event + n, 'x', sizeof event - (size_t)n);
        memcpy(event + EVENT - 2, "\n\n", 2);
        for (int i = 0; i < wanted; i++) lk_http_write(streams[i], event, EVENT);
        times[r] = (double)(lk_clock_ns() - began) / wanted * 1e-3;
        next += EVERY;
        while (lk_clock_ns() < next) usleep(500);
    }
    for (int i = 0; i < wanted; i++) lk_http_end(streams[i]);
    printf("lk_http_write, one of %d streams: %.2f us\n", wanted, median(times, ROUNDS));
    fflush(stdout);
    pause();
}

/* --- The clients' -------------------------------------------------------------------------------------------------- */

static struct sockaddr_in server_at;
static int come(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server_at, sizeof server_at)) stop("cannot connect");
    return fd;
}
static void ask(int fd, const char *path) {
    char text[256];
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: http_bench\r\n\r\n", path);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) stop("a request is not taken");
}
static double field_kib(pid_t pid, const char *field) {
    char path[64], line[256];
    double value = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, strlen(field))) value = strtod(line + strlen(field), NULL);
    if (f) fclose(f);
    return value;
}
static double cpu_seconds(pid_t pid) {
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fgets(text, sizeof text, f) && strrchr(text, ')'))
        sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    if (f) fclose(f);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void requests(pid_t server, double seconds) {
    int all = epoll_create1(0), fds[CLIENTS];
    struct epoll_event events[CLIENTS];
    char text[4096];
    for (int i = 0; i < CLIENTS; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fds[i] = come()};
        if (epoll_ctl(all, EPOLL_CTL_ADD, fds[i], &e)) stop("epoll");
        ask(fds[i], "/ok");
    }
    uint64_t began = lk_clock_ns(), count = 0;
    double cpu = cpu_seconds(server);
    while (1e-9 * (double)(lk_clock_ns() - began) < seconds) {
        int n = epoll_wait(all, events, CLIENTS, 1000);
        for (int i = 0; i < n; i++) {
            if (recv(events[i].data.fd, text, sizeof text, 0) <= 0) stop("no answer"); /* one segment */
            count++;
            ask(events[i].data.fd, "/ok");
        }
    }
    double took = 1e-9 * (double)(lk_clock_ns() - began);
    printf("requests, %d connections: %.0f a second, %.1f us of the server's CPU time each\n", CLIENTS,
           (double)count / took, (cpu_seconds(server) - cpu) / (double)count * 1e6);
    for (int i = 0; i < CLIENTS; i++) close(fds[i]);
    close(all);
}

static void stream(pid_t server, int count) {
    int all = epoll_create1(0);
    struct epoll_event events[256];
    static char text[1 << 16];
    double *late = calloc((size_t)count * ROUNDS, sizeof *late), cpu = cpu_seconds(server);
    int *fds = calloc((size_t)count, sizeof *fds), open = count;
    size_t n_late = 0;
    if (!late || !fds) stop("no memory");
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fds[i] = come()};
        ask(fds[i], "/stream");
        if (epoll_ctl(all, EPOLL_CTL_ADD, fds[i], &e)) stop("epoll");
    }
    while (open) {
        int n = epoll_wait(all, events, 256, 10000);
        if (n <= 0) stop("a stream does not end");
        for (int i = 0; i < n; i++) {
            ssize_t got = recv(events[i].data.fd, text, sizeof text - 1, 0);
            double now = (double)lk_clock_ns();
            if (got <= 0) stop("a stream breaks off");
            text[got] = 0;
            for (char *p = text; (p = strstr(p, "data: ")); p += 6)
                if (n_late < (size_t)count * ROUNDS) late[n_late++] = (now - strtod(p + 6, NULL)) * 1e-6;
            if (got >= 5 && !memcmp(text + got - 5, "0\r\n\r\n", 5)) open--; /* the last chunk */
        }
    }
    double middle = median(late, n_late); /* sorted now */
    printf("%d streams, %d events a second: %zu of %d heard, written to read %.2f ms (median), %.2f ms (99%%), "
           "%.1f us of the server's CPU time each\n",
           count, (int)(count * (1e9 / EVERY)), n_late, count * ROUNDS, middle, late[n_late * 99 / 100],
           (cpu_seconds(server) - cpu) / (double)n_late * 1e6);
    for (int i = 0; i < count; i++) close(fds[i]);
    free(late), free(fds);
    close(all);
}

static void waiting(pid_t server, int count) {
    char text[4096];
    int *fds = calloc((size_t)count, sizeof *fds);
    if (!fds) stop("no memory");
    double before = field_kib(server, "RssAnon:");
    for (int i = 0; i < count; i++) fds[i] = come();
    for (int i = 0; i < count; i++) ask(fds[i], "/ok");
    for (int i = 0; i < count; i++)
        if (recv(fds[i], text, sizeof text, 0) <= 0) stop("no answer");
    printf("%d connections that wait for their next request: %.1f KiB each\n", count,
           (field_kib(server, "RssAnon:") - before) / count);
    for (int i = 0; i < count; i++) ask(fds[i], "/still");
    usleep(500000);
    printf("and with a request that waits for its answer: %.1f KiB each\n",
           (field_kib(server, "RssAnon:") - before) / count);
    for (int i = 0; i < count; i++) close(fds[i]);
    free(fds);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    int count = argc > 2 ? atoi(argv[2]) : 1000, connections = argc > 3 ? atoi(argv[3]) : 9000, ready[2];
    struct machine began = machine_now();
    struct rlimit files;
    char address[64] = "";
    if (seconds <= 0 || count < 1 || count > MOST / 2 || connections < 1 || connections > MOST / 2 || pipe(ready)) {
        fputs("usage: http_bench [seconds [streams [connections]]]    (streams, connections: at most 10000)\n", stderr);
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    pid_t server = fork();
    if (server < 0) stop("cannot fork");
    if (server == 0) serve(ready[1], count, (uint32_t)(connections + count + CLIENTS + 16));
    if (read(ready[0], address, sizeof address) != sizeof address) return 1;
    server_at = (struct sockaddr_in){.sin_family = AF_INET,
                                     .sin_port = htons((unsigned short)atoi(strrchr(address, ':') + 1)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    requests(server, seconds);
    fflush(stdout);
    stream(server, count);
    waiting(server, connections);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return machine_verdict(&began);
}
