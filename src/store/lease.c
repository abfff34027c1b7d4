/* Leases: a lock of the kernel where the store is of one machine, which no row knows of; else a row r/lease/KIND/NAME with
 * an end that a thread moves on. Either counts the takings, which is the fence: docs/formats.md. */
#include "lockstep/store/lease.h"
#include "lockstep/base/file.h"
#include "store/kv/kv_engine.h"
#include "store/lease.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint32_t lk__store_lease_ms = 20000;
atomic_bool lk__store_lease_renews = true;

struct lk_lease {
    struct lk_store *store;
    char kind[LK__LEASE_NAME], name[LK__LEASE_NAME]; /* name: KIND/NAME, as the row has it */
    uint64_t fence;
    int fd;        /* the lock's, of one machine's store; else -1 */
    bool renewing; /* there is a thread */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t end;
    bool ending;
    bool lost; /* of the renewing thread: another one has it */
};

static bool timed(const struct lk_store *s) {
    return s->kv->ops->now != NULL;
}

/* --- Who has it ------------------------------------------------------------------------------------------ */

/* A process cannot be taken for another one that got its number: when it began is told in ticks since the boot. */
struct process {
    char boot[40];
    uint64_t names, started; /* the namespace of process numbers; ticks */
    long pid;
};
static uint64_t started(long pid) {
    char path[40], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *field = strrchr(text, ')'); /* the 2nd; its text may hold anything */
    for (int i = 2; field && i < 22; i++) field = strchr(field + 1, ' ');
    return field ? strtoull(field, NULL, 10) : 0;
}
static struct process this_process(void) {
    struct process p = {.pid = (long)getpid()};
    struct stat st;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, p.boot, sizeof p.boot - 1);
    if (fd >= 0) close(fd);
    p.boot[n > 0 ? n : 0] = 0;
    p.boot[strcspn(p.boot, "\n")] = 0;
    if (!stat("/proc/self/ns/pid", &st)) p.names = st.st_ino;
    p.started = started(p.pid);
    return p;
}
static bool same_place(const struct process *a, const struct process *b) {
    return *a->boot && a->names && !strcmp(a->boot, b->boot) && a->names == b->names;
}
/* Where /proc shows nothing of others, a process that is there may be the one. */
static bool is_dead(const struct process *p, const struct process *here) {
    if (!same_place(p, here) || !p->started || p->pid <= 0) return false;
    uint64_t now = started(p->pid);
    return now ? now != p->started : kill((pid_t)p->pid, 0) != 0 && errno == ESRCH;
}

/* What a row says. */
struct row {
    uint64_t fence;
    int64_t until_ms;
    char holder[160]; /* empty: nobody */
    struct process process;
};
static void copy(char *to, size_t size, const json_t *from) {
    const char *text = json_string_value(from);
    snprintf(to, size, "%s", text ? text : "");
}
static json_t *process_json(const struct process *p) {
    return json_pack("{s:s, s:I, s:I, s:I}", "boot", p->boot, "names", (json_int_t)p->names, "started",
                     (json_int_t)p->started, "pid", (json_int_t)p->pid);
}
static void read_process(const json_t *from, struct process *out) {
    copy(out->boot, sizeof out->boot, json_object_get(from, "boot"));
    out->names = (uint64_t)json_integer_value(json_object_get(from, "names"));
    out->started = (uint64_t)json_integer_value(json_object_get(from, "started"));
    out->pid = (long)json_integer_value(json_object_get(from, "pid"));
}
json_t *lk__store_process_json(void) {
    struct process here = this_process();
    return process_json(&here);
}
bool lk__store_process_is_dead(const json_t *json) {
    struct process p = {.pid = 0}, here = this_process();
    read_process(json, &p);
    return is_dead(&p, &here);
}
static int read_row(struct lk_kv_txn *txn, const char *name, struct row *out, struct lk_err *err) {
    struct lk_err why;
    json_t *record = NULL;
    *out = (struct row){0};
    int code = lk_record_get(txn, "lease", name, &record, &why);
    if (code == LK_ENOTFOUND) return LK_OK;
    if (code) return lk_fail(err, code, "%s", why.message);
    out->fence = (uint64_t)json_integer_value(json_object_get(record, "fence"));
    out->until_ms = json_integer_value(json_object_get(record, "until_ms"));
    copy(out->holder, sizeof out->holder, json_object_get(record, "holder"));
    read_process(json_object_get(record, "process"), &out->process);
    json_decref(record);
    return LK_OK;
}
static int write_row(struct lk_kv_txn *txn, const char *name, const struct row *row, struct lk_err *err) {
    json_t *record = json_pack("{s:I}", "fence", (json_int_t)row->fence);
    if (record && *row->holder)
        json_object_update_new(record, json_pack("{s:s, s:I, s:o}", "holder", row->holder, "until_ms",
                                                 (json_int_t)row->until_ms, "process", process_json(&row->process)));
    bool whole = record && (!*row->holder || json_object_get(record, "process"));
    int code = whole ? lk_record_put(txn, "lease", name, record, err)
                     : lk_fail(err, LK_ENOMEM, "no memory for the lease %s", name);
    json_decref(record);
    return code;
}

static int now_of(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    return txn->kv->ops->now(txn, out, err);
}

/* --- Locks of the kernel --------------------------------------------------------------------------------- */

/* Those of runs lie where releases before leases had them, so that these and we know of one another. */
static int lock_path(const struct lk_store *s, const char *kind, const char *name, bool create, char path[4096],
                     struct lk_err *err) {
    bool run = !strcmp(kind, "run");
    int code = LK_OK;
    snprintf(path, 4096, "%s/locks", s->dir);
    if (create) code = lk_dir_make(path, err);
    snprintf(path, 4096, "%s/locks/%s", s->dir, run ? "" : kind);
    if (create && !run && !code) code = lk_dir_make(path, err);
    snprintf(path, 4096, "%s/locks/%s%s%s.lock", s->dir, run ? "" : kind, run ? "" : "/", name);
    return code;
}
static int open_lock(const struct lk_store *s, const char *kind, const char *name, bool create, int *fd,
                     struct lk_err *err) {
    char path[4096];
    int code = lock_path(s, kind, name, create, path, err);
    if (code) return code;
    *fd = open(path, O_CLOEXEC | (create ? O_RDWR | O_CREAT : O_RDONLY), 0666); /* readers may have no more */
    return *fd < 0 ? lk_fail_errno(err, "cannot open the lock %s", path) : LK_OK;
}
static bool removed(const struct lk_store *s, const char *kind, const char *name, int fd) {
    char path[4096];
    struct stat mine, now;
    lock_path(s, kind, name, false, path, NULL);
    return fstat(fd, &mine) || stat(path, &now) || mine.st_ino != now.st_ino;
}
static bool lock_held(int fd) {
    return flock(fd, LOCK_SH | LOCK_NB) != 0;
}
/* What a lock's last holder wrote into it: "PID FENCE\n"; zeros: nothing. */
static void read_lock(int fd, long *pid, uint64_t *fence) {
    char text[64] = "", *end;
    if (pread(fd, text, sizeof text - 1, 0) < 0) *text = 0;
    *pid = strtol(text, &end, 10);
    *fence = strtoull(end, NULL, 10);
}
static int busy(const char *kind, const char *name, const char *holder, struct lk_err *err) {
    return lk_fail(err, LK_EBUSY, "the lease %s/%s is held by %s", kind, name, holder);
}

static int take_lock(struct lk_lease *l, const char *name, struct lk_err *err) {
    char text[64];
    long pid;
    int code;
    do { /* one that is removed between our open and our lock is not the lock any more */
        if (l->fd >= 0) close(l->fd);
        l->fd = -1;
        if ((code = open_lock(l->store, l->kind, name, true, &l->fd, err))) return code;
        int tries = 10; /* whoever looks at a lease holds its lock for a moment */
        while (flock(l->fd, LOCK_EX | LOCK_NB) && --tries > 0) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        read_lock(l->fd, &pid, &l->fence);
        if (!tries) {
            snprintf(text, sizeof text, pid ? "process %ld" : "a process that is not known", pid);
            return busy(l->kind, name, text, err);
        }
    } while (removed(l->store, l->kind, name, l->fd));
    int n = snprintf(text, sizeof text, "%ld %llu\n", (long)getpid(), (unsigned long long)++l->fence);
    if (ftruncate(l->fd, 0) || pwrite(l->fd, text, (size_t)n, 0) != n) { /* the numbers are for messages only */
    }
    return LK_OK;
}

/* --- Taking, renewing, giving back ----------------------------------------------------------------------- */

static int take_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk_lease *l = arg;
    struct process here = this_process();
    struct row row;
    int64_t now;
    char host[64] = "";
    int code = read_row(txn, l->name, &row, err);
    if (!code) code = now_of(txn, &now, err);
    if (code) return code;
    if (*row.holder && row.until_ms > now && !is_dead(&row.process, &here))
        return lk_fail(err, LK_EBUSY, "the lease %s is held by %s for another %.1f s, unless it renews it", l->name,
                       row.holder, (double)(row.until_ms - now) / 1000);
    gethostname(host, sizeof host - 1);
    row.fence++, row.until_ms = now + lk__store_lease_ms, row.process = here;
    snprintf(row.holder, sizeof row.holder, "process %ld on %s", here.pid, *host ? host : "an unnamed host");
    l->fence = row.fence;
    return write_row(txn, l->name, &row, err);
}
static int not_ours(const struct lk_lease *l, const struct row *row, struct lk_err *err) {
    return lk_fail(
        err, LK_EBUSY,
        "the lease %s is not this process's any more: taken by %s since (fence %llu, this one had %llu); it must "
        "end here",
        l->name, *row->holder ? row->holder : "another one, which has ended", (unsigned long long)row->fence,
        (unsigned long long)l->fence);
}
static int renew_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk_lease *l = arg;
    struct row row;
    int64_t now;
    int code = read_row(txn, l->name, &row, err);
    l->lost = !code && row.fence != l->fence;
    if (l->lost) code = not_ours(l, &row, err);
    if (!code) code = now_of(txn, &now, err);
    if (code) return code;
    row.until_ms = now + lk__store_lease_ms;
    return write_row(txn, l->name, &row, err);
}
static int give_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct lk_lease *l = arg;
    struct row row;
    int code = read_row(txn, l->name, &row, err);
    if (code || row.fence != l->fence) return code;
    *row.holder = 0;
    return write_row(txn, l->name, &row, err);
}

/* Until release. What fails is tried again: whether the lease is still ours is for lk_lease_check to say. */
static void *renew(void *arg) {
    struct lk_lease *l = arg;
    pthread_mutex_lock(&l->mutex);
    while (!l->ending) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        uint64_t ns = (uint64_t)at.tv_nsec + (uint64_t)lk__store_lease_ms * 250000;
        at.tv_sec += (time_t)(ns / 1000000000), at.tv_nsec = (long)(ns % 1000000000);
        if (pthread_cond_timedwait(&l->end, &l->mutex, &at) != ETIMEDOUT) continue;
        pthread_mutex_unlock(&l->mutex);
        if (lk__store_lease_renews) lk_kv_update(l->store->kv, renew_row, l, LK_LAZY, NULL, NULL);
        pthread_mutex_lock(&l->mutex);
        if (l->lost) break;
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}
static int start_renewing(struct lk_lease *l, struct lk_err *err) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the others */
    int error = pthread_create(&l->thread, NULL, renew, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    l->renewing = error == 0;
    return error ? lk_fail(err, LK_ENOMEM, "cannot start the thread that renews the lease %s: %s", l->name, strerror(error))
                 : LK_OK;
}

static void free_lease(struct lk_lease *l) {
    if (l->fd >= 0) close(l->fd);
    pthread_cond_destroy(&l->end);
    pthread_mutex_destroy(&l->mutex);
    lk_free(l);
}

int lk_lease_acquire(struct lk_store *store, const char *kind, const char *name, struct lk_lease **out,
                     struct lk_err *err) {
    *out = NULL;
    if (!lk_name_valid(kind) || !lk_name_valid(name) || strlen(kind) + strlen(name) + 2 > LK__LEASE_NAME)
        return lk_fail(err, LK_EINVAL, "\"%.60s/%.130s\" is not a valid name of a lease", kind, name);
    struct lk_lease *l = lk_calloc(1, sizeof *l);
    if (!l) return lk_fail(err, LK_ENOMEM, "no memory for a lease");
    l->store = store, l->fd = -1;
    snprintf(l->kind, sizeof l->kind, "%s", kind);
    snprintf(l->name, sizeof l->name, "%s/%s", kind, name);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->end, &attr);
    pthread_condattr_destroy(&attr);
    int code = timed(store) ? lk_kv_update(store->kv, take_row, l, LK_DURABLE, NULL, err) : take_lock(l, name, err);
    if (!code && timed(store) && (code = start_renewing(l, err))) lk_kv_update(store->kv, give_row, l, LK_LAZY, NULL, NULL);
    if (code)
        free_lease(l);
    else
        *out = l;
    return code;
}

void lk_lease_release(struct lk_lease *l, bool gone) {
    char path[4096];
    if (!l) return;
    pthread_mutex_lock(&l->mutex);
    l->ending = true;
    pthread_cond_signal(&l->end);
    pthread_mutex_unlock(&l->mutex);
    if (l->renewing) pthread_join(l->thread, NULL);
    if (l->fd < 0) lk_kv_update(l->store->kv, give_row, l, LK_LAZY, NULL, NULL); /* if not, the end comes by itself */
    if (l->fd >= 0 && gone) {
        lock_path(l->store, l->kind, l->name + strlen(l->kind) + 1, false, path, NULL);
        unlink(path);
    }
    free_lease(l);
}

uint64_t lk_lease_fence(const struct lk_lease *l) {
    return l->fence;
}
int lk_lease_check(const struct lk_lease *l, struct lk_kv_txn *txn, struct lk_err *err) {
    struct row row;
    int code = l->fd < 0 ? read_row(txn, l->name, &row, err) : LK_OK;
    return code || l->fd >= 0 || row.fence == l->fence ? code : not_ours(l, &row, err);
}

/* --- Looking --------------------------------------------------------------------------------------------- */

static int look_at_row(struct lk_store *store, const char *full, struct lk_lease_state *out, struct lk_err *err) {
    struct process here = this_process();
    struct lk_kv_txn *txn;
    struct row row;
    int64_t now = 0;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code) return code;
    code = read_row(txn, full, &row, err);
    if (!code) code = now_of(txn, &now, err);
    lk_kv_abort(txn);
    if (code) return code;
    out->fence = row.fence;
    out->held = *row.holder && row.until_ms > now && !is_dead(&row.process, &here);
    out->here = out->held && same_place(&row.process, &here);
    out->process = out->held ? row.process.pid : 0;
    if (out->held) memcpy(out->holder, row.holder, sizeof out->holder);
    return LK_OK;
}

int lk_lease_look(struct lk_store *store, const char *kind, const char *name, struct lk_lease_state *out,
                  struct lk_err *err) {
    char full[LK__LEASE_NAME];
    int fd = -1;
    *out = (struct lk_lease_state){0};
    snprintf(full, sizeof full, "%s/%s", kind, name);
    if (timed(store)) return look_at_row(store, full, out, err);
    int code = open_lock(store, kind, name, false, &fd, err);
    if (code) return code == LK_ENOTFOUND ? LK_OK : code;
    out->held = out->here = lock_held(fd);
    read_lock(fd, &out->process, &out->fence);
    close(fd);
    if (!out->held)
        out->process = 0;
    else if (out->process)
        snprintf(out->holder, sizeof out->holder, "process %ld", out->process);
    else
        snprintf(out->holder, sizeof out->holder, "a process that is not known");
    return LK_OK;
}
