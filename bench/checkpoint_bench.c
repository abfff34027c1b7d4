/* Loading a run's newest checkpoint beside plain reading of the same files: checkpoint_bench STORE RUN [rounds]
 * cold: the files are dropped from the page cache before each; warm: they are in it. Both in turns, medians. */
#include "bench_machine.h"
#include "bench_median.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/train/train.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double seconds_now(void) {
    return 1e-9 * (double)lk_clock_ns();
}
static void stop(const char *what) {
    fprintf(stderr, "checkpoint_bench: %s\n", what);
    exit(1);
}
/* Bytes of the three blobs, read from one end to the other; or drops them from the page cache. -1: cannot be opened so. */
static double read_blobs(const char paths[3][4096], int flags, bool drop) {
    static char *buffer;
    double bytes = 0;
    if (!buffer && posix_memalign((void **)&buffer, 4096, 1 << 20)) stop("no memory");
    for (int i = 0; i < 3; i++) {
        int fd = open(paths[i], O_RDONLY | flags);
        ssize_t n;
        if (fd < 0) return -1;
        if (drop)
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        else
            while ((n = read(fd, buffer, 1 << 20)) > 0) bytes += (double)n;
        close(fd);
    }
    return bytes;
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_store *store;
    struct lk_run run;
    struct lk_checkpoint *list;
    struct lk_state state;
    json_t *manifest;
    size_t count;
    char paths[3][4096];
    int rounds = argc > 3 ? atoi(argv[3]) : 5;
    static const char *const keys[] = {"weights", "moments1", "moments2"};
    if (argc < 3) stop("STORE RUN [rounds]");
    if (lk_store_open(argv[1], LK_READ, &store, &err) || lk_run_open(store, argv[2], &run, &err) ||
        lk_run_checkpoints(store, argv[2], &list, &count, &err) || !count ||
        lk_state_init(&state, &run.layout, LK_CREATE, &err) ||
        lk_manifest_get(store, &list[count - 1].state, "checkpoint", &manifest, &err))
        stop(err.message);
    for (int i = 0; i < 3; i++) {
        struct lk_root root;
        if (!lk_root_parse(json_string_value(json_object_get(manifest, keys[i])), &root)) stop("no root");
        lk_blob_path(store->blobs, &root, paths[i]);
    }
    double t[5][64], bytes = 0;
    for (int i = 0; i < rounds && i < 64; i++)
        for (int kind = 0; kind < 5; kind++) { /* cold: read past the cache, read, load; then warm: load, read */
            if (kind < 3) read_blobs(paths, 0, true);
            t[kind][i] = seconds_now();
            if (kind == 0 || kind == 1 || kind == 4)
                bytes = read_blobs(paths, kind == 0 ? O_DIRECT : 0, false);
            else if (lk_checkpoint_load(store, &list[count - 1].state, &state, &err))
                stop(err.message);
            t[kind][i] = seconds_now() - t[kind][i];
        }
    double rate[5];
    for (int kind = 0; kind < 5; kind++) rate[kind] = bytes * 1e-9 / median(t[kind], (size_t)rounds);
    double disk = rate[0] > rate[1] ? rate[0] : rate[1];
    printf("load %.2f GB, hashes checked: cold %.2f GB/s; reading alone %.2f GB/s, past the page cache %.2f GB/s: %.0f%%\n",
           bytes * 1e-9, rate[2], rate[1], rate[0], 100 * rate[2] / disk);
    printf("in the page cache: load %.2f GB/s, reading alone %.2f GB/s\n", rate[3], rate[4]);
    json_decref(manifest);
    lk_free(list);
    lk_state_release(&state);
    lk_run_close(&run);
    lk_store_close(store);
    return machine_verdict(&began);
}
