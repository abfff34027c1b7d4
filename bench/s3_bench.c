/* One blob up or down, with the time and the most anonymous memory: s3_bench up URL FILE; s3_bench down URL ROOT [FILE to
 * compare with]. bench/s3.sh sets it beside curl. */
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/blob.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void stop(const char *what) {
    fprintf(stderr, "s3_bench: %s\n", what);
    exit(1);
}

static atomic_bool over;
static long anonymous_kib(void) {
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}
static void *watch(void *arg) {
    long *most = arg;
    for (; !over; usleep(5000)) {
        long now = anonymous_kib();
        if (now > *most) *most = now;
    }
    return NULL;
}

/* As a program writes it: piece by piece. */
static void up(struct lk_blobs *b, const char *path, struct lk_root *root, size_t *size) {
    struct lk_err err = {0};
    struct lk_blob_writer *w;
    char *piece = malloc(1 << 20);
    FILE *f = fopen(path, "rb");
    if (!f || !piece) stop("cannot read the file");
    setvbuf(f, NULL, _IONBF, 0);
    int code = lk_blob_create(b, &w, &err);
    if (code) stop(err.message);
    for (size_t n; (n = fread(piece, 1, 1 << 20, f)) && !code; *size += n) code = lk_blob_write(w, piece, n, &err);
    if (code || lk_blob_finish(w, root, &err)) stop(err.message);
    fclose(f);
    free(piece);
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_blobs *b;
    struct lk_root root;
    struct lk_blob blob = {0};
    char hex[LK_ROOT_HEX];
    long most = 0;
    size_t size = 0;
    pthread_t watcher;
    if (argc < 4 || (strcmp(argv[1], "up") && strcmp(argv[1], "down"))) stop("up URL FILE, or down URL ROOT [FILE]");
    bool is_up = strcmp(argv[1], "up") == 0;
    if (!is_up && !lk_root_parse(argv[3], &root)) stop("that is no root");
    if (lk_blobs_open(argv[2], LK_CREATE, &b, &err) || pthread_create(&watcher, NULL, watch, &most)) stop(err.message);
    uint64_t began = lk_clock_ns();
    if (is_up)
        up(b, argv[3], &root, &size);
    else if (lk_blob_open(b, &root, true, &blob, &err))
        stop(err.message);
    double seconds = (double)(lk_clock_ns() - began) * 1e-9;
    over = true;
    pthread_join(watcher, NULL);
    if (!is_up) size = blob.size;
    if (!is_up && argc > 4) {
        struct lk_map file;
        if (lk_map_open(argv[4], &file, &err)) stop(err.message);
        if (file.size != blob.size || memcmp(file.data, blob.data, file.size) != 0) stop("other bytes came back");
        lk_map_close(&file);
    }
    lk_blob_close(&blob);
    lk_blobs_close(b);
    printf("%s %.3f s %.0f MB/s %ld KiB %s\n", argv[1], seconds, (double)size * 1e-6 / seconds, most,
           lk_root_hex(&root, hex));
    return 0;
}
