/* The rank's side of a launch: its process number in DIR/RANK at the start, its exit status in DIR/RANK.left at an ordinary
 * end. Who ends without the second was killed or crashed. */
#include "cluster/announce.h"
#include "lockstep/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pid_t process;
    char left[4096]; /* DIR/RANK.left */
} announced;

/* Appears whole or not at all. No sync: it is news, not a record. */
static int write_number(const char *path, long number) {
    char temporary[4200], text[32];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    snprintf(text, sizeof text, "%ld\n", number);
    FILE *f = fopen(temporary, "we");
    if (!f) return -1;
    int failed = fputs(text, f) < 0;
    failed |= fclose(f) != 0;
    return failed ? -1 : rename(temporary, path);
}

static bool read_number(const char *path, long *out) {
    FILE *f = fopen(path, "re");
    bool ok = f && fscanf(f, "%ld", out) == 1;
    if (f) fclose(f);
    return ok;
}

static void leave(int status, void *unused) {
    (void)unused;
    if (getpid() == announced.process) (void)write_number(announced.left, status & 255); /* not a fork of ours */
}

int lk__launch_announce(int rank, struct lk_err *err) {
    const char *dir = getenv("LOCKSTEP_LAUNCH");
    char path[sizeof announced.left];
    if (!dir || !*dir || announced.process == getpid()) return LK_OK;
    if (snprintf(path, sizeof path, "%s/%d", dir, rank) >= (int)sizeof path - 8)
        return lk_fail(err, LK_EINVAL, "LOCKSTEP_LAUNCH is too long");
    snprintf(announced.left, sizeof announced.left, "%s/%d.left", dir, rank);
    announced.process = getpid();
    if (on_exit(leave, NULL)) return lk_fail(err, LK_ENOMEM, "out of memory");
    if (write_number(path, (long)getpid()))
        return lk_fail_errno(err, "cannot tell the launcher that rank %d runs: %s", rank, path);
    return LK_OK;
}

pid_t lk__launch_process(const char *dir, int rank) {
    char path[4200];
    long n = 0;
    snprintf(path, sizeof path, "%s/%d", dir, rank);
    return read_number(path, &n) && n > 0 ? (pid_t)n : 0;
}

bool lk__launch_left(const char *dir, int rank, int *status) {
    char path[4200];
    long n = 0;
    snprintf(path, sizeof path, "%s/%d.left", dir, rank);
    if (!read_number(path, &n)) return false;
    *status = (int)n;
    return true;
}
