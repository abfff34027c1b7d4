/* The seam of the launcher: which engine a place means, the defaults of its slots, and the whole way of one job. */
#include "cluster/launch.h"
#include "lockstep/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS 100 /* how often lk_launch_run asks its caller whether to stop */

static const struct lk_launch_ops *const engines[] = {&lk__launch_local};

struct lk_launcher {
    const struct lk_launch_ops *ops;
    void *where;
    int ranks;
};
struct lk_job {
    const struct lk_launch_ops *ops;
    void *job;
    char id[LK_JOB_ID];
    char *log_dir; /* NULL: no logs */
    int ranks;
};

/* --- Places ---------------------------------------------------------------------------------------------- */

int lk_launch_open_with(const struct lk_launch_ops *ops, const char *rest, struct lk_launcher **out, struct lk_err *err) {
    struct lk_launcher *l = lk_calloc(1, sizeof *l);
    LK_ASSERT(ops->name && ops->usage && ops->open && ops->submit && ops->poll && ops->stop && ops->release);
    if (!l) return lk_fail(err, LK_ENOMEM, "out of memory for a launcher");
    l->ops = ops;
    int code = ops->open(rest, &l->ranks, &l->where, err);
    if (code) {
        lk_free(l);
        return code == LK_EINVAL ? lk_fail(err, code, "%s:%s: what is supported is %s", ops->name, rest, ops->usage) : code;
    }
    *out = l;
    return LK_OK;
}

int lk_launch_open(const char *where, struct lk_launcher **out, struct lk_err *err) {
    char usages[512];
    size_t n = 0, count = sizeof engines / sizeof *engines;
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(engines[i]->name);
        if (strncmp(where, engines[i]->name, size) == 0 && where[size] == ':')
            return lk_launch_open_with(engines[i], where + size + 1, out, err);
        n += (size_t)snprintf(usages + n, sizeof usages - n, "%s%s", i ? "; " : "", engines[i]->usage);
        LK_ASSERT(n < sizeof usages);
    }
    return lk_fail(err, LK_EINVAL, "%s: what is supported is %s", where, usages);
}

void lk_launch_close(struct lk_launcher *l) {
    if (l && l->ops->close) l->ops->close(l->where);
    lk_free(l);
}

int lk_launch_ranks(const struct lk_launcher *l) {
    return l->ranks;
}

/* --- Jobs ------------------------------------------------------------------------------------------------ */

int lk_launch_submit(struct lk_launcher *l, const struct lk_launch_spec *spec, struct lk_job **out, struct lk_err *err) {
    LK_ASSERT(spec->ranks >= 1 && spec->argv && spec->argv[0]);
    struct lk_job *j = lk_calloc(1, sizeof *j);
    if (j && spec->log_dir && !(j->log_dir = lk_strdup(spec->log_dir))) lk_free(j), j = NULL;
    if (!j) return lk_fail(err, LK_ENOMEM, "out of memory for a job");
    j->ops = l->ops;
    j->ranks = spec->ranks;
    int code = l->ops->submit(l->where, spec, &j->job, j->id, err);
    if (!code) return *out = j, LK_OK;
    lk_free(j->log_dir);
    lk_free(j);
    return code;
}

const char *lk_job_id(const struct lk_job *j) {
    return j->id;
}

int lk_job_poll(struct lk_job *j, int timeout_ms, struct lk_job_state *out, struct lk_err *err) {
    memset(out, 0, sizeof *out);
    out->first_failed = -1;
    return j->ops->poll(j->job, timeout_ms, out, err);
}

int lk_job_signal(struct lk_job *j, struct lk_err *err) {
    if (j->ops->signal) return j->ops->signal(j->job, err);
    return lk_fail(err, LK_EUNSUPPORTED, "ranks of %s cannot be asked to stop; they can be ended", j->ops->name);
}

int lk_job_stop(struct lk_job *j, uint64_t grace_ms, struct lk_err *err) {
    return j->ops->stop(j->job, grace_ms, err);
}

static int read_log(const char *path, uint64_t offset, struct lk_buf *out, struct lk_err *err) {
    char piece[16384];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), code = LK_OK;
    if (fd < 0)
        return errno == ENOENT ? LK_OK : lk_fail_errno(err, "cannot read %s", path); /* it has written nothing yet */
    while (!code && (n = pread(fd, piece, sizeof piece, (off_t)offset)) > 0) {
        code = lk_buf_append(out, piece, (size_t)n) ? lk_fail(err, LK_ENOMEM, "no memory for the log %s", path) : LK_OK;
        offset += (uint64_t)n;
    }
    if (n < 0) code = lk_fail_errno(err, "cannot read %s", path);
    close(fd);
    return code;
}

int lk_job_log(struct lk_job *j, int rank, uint64_t offset, struct lk_buf *out, struct lk_err *err) {
    LK_ASSERT(rank >= 0 && rank < j->ranks);
    if (j->ops->log) return j->ops->log(j->job, rank, offset, out, err);
    if (!j->log_dir) return lk_fail(err, LK_EUNSUPPORTED, "job %s keeps no logs: it was started without a folder", j->id);
    char *path = lk_asprintf("%s/%d.log", j->log_dir, rank);
    if (!path) return lk_fail(err, LK_ENOMEM, "no memory for a path");
    int code = read_log(path, offset, out, err);
    lk_free(path);
    return code;
}

void lk_job_close(struct lk_job *j) {
    if (!j) return;
    j->ops->release(j->job);
    lk_free(j->log_dir);
    lk_free(j);
}

int lk_launch_run(struct lk_launcher *l, const struct lk_launch_spec *spec, bool (*stop)(void *), void *arg, int *status,
                  struct lk_err *err) {
    struct lk_job *job;
    struct lk_job_state state;
    bool asked = false;
    *status = -1;
    int code = lk_launch_submit(l, spec, &job, err);
    if (code) return code;
    do {
        code = lk_job_poll(job, LOOK_MS, &state, err);
        if (code || state.ended || asked || !stop || !stop(arg)) continue;
        code = lk_job_signal(job, err);
        asked = true;
    } while (!code && !state.ended);
    if (!code) {
        *status = state.status;
        code = state.cause.code ? lk_fail(err, state.cause.code, "%s", state.cause.message) : LK_OK;
    }
    lk_job_close(job);
    return code;
}
