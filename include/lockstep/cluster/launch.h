/* Starting the ranks of a job, watching them and ending them: one seam, an engine a kind of place.
 *
 *     lk_launch_open("local:4", &launcher, &err);      where: the engine and how many ranks it offers
 *     lk_launch_submit(launcher, &spec, &job, &err);   what: the job runs from here on
 *     lk_job_poll(job, 100, &state, &err);             again and again until state.ended
 *     lk_job_close(job); lk_launch_close(launcher);
 *
 * lk_launch_run does all of that for who only waits. Engines: `local` (mpirun on this machine).
 *
 * Threads: a launcher or a job is used by one thread at a time. Submit from a thread that lives as long as the job: `local`
 * ends its ranks with the thread that started them. */
#ifndef LOCKSTEP_LAUNCH_H
#define LOCKSTEP_LAUNCH_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What runs. Borrowed until submit has returned; what is left zero is the engine's choice. */
struct lk_launch_spec {
    const char *name;       /* for places that list their jobs; NULL: "lockstep". `local` has no such list */
    char *const *argv;      /* of every rank: argv[0] the path of the program, NULL at the end */
    int ranks;              /* 1 or more */
    int threads;            /* of a rank: cores that an engine reserves. `local` reserves none; argv says what is started */
    uint64_t memory_bytes;  /* of a rank: LOCKSTEP_MEMORY_BYTES in its environment */
    const char *const *env; /* "NAME=value", added to this process's environment or in place of its own; NULL at the end */
    const char *log_dir;    /* an existing folder: rank N's stdout and stderr go to the end of N.log there; NULL: to ours */
};

enum lk_rank_phase { LK_RANK_PENDING, LK_RANK_RUNNING, LK_RANK_EXITED, LK_RANK_DIED };
struct lk_rank_state {
    enum lk_rank_phase phase; /* RUNNING: from lk_comm_open on; EXITED: by exit; DIED: by a signal or without a word */
    int status;               /* EXITED: the exit status */
    int64_t process;          /* on its machine; 0: not known */
};
struct lk_job_state {
    const struct lk_rank_state *ranks; /* (spec.ranks), borrowed until the next call on the job */
    int first_failed;                  /* the first rank that exited with a failure or died; -1: none, or not known */
    bool ended;                        /* nothing of the job runs any more; what follows is valid only then */
    int status;                        /* 0: every rank succeeded; else of the first that failed; -1: no rank ever ran */
    struct lk_err cause;               /* code LK_OK: the ranks ended by themselves. Else why they did not: LK_EIO a death,
                                          which the message names, LK_ESTOPPED lk_job_stop */
};

struct lk_launcher; /* a place, opened */
struct lk_job;      /* what was submitted there */

/* where: "ENGINE:REST", such as "local:4". Starts nothing. LK_EINVAL: no such engine, or REST is wrong; the message says
 * what is there. *out is the caller's to close. */
int lk_launch_open(const char *where, struct lk_launcher **out, struct lk_err *);
void lk_launch_close(struct lk_launcher *); /* after its jobs; NULL is allowed */
/* How many ranks the place was opened for. */
int lk_launch_ranks(const struct lk_launcher *);

/* Starts the ranks and returns at once. A failure here means that nothing runs: LK_EUNSUPPORTED (what to install),
 * LK_ENOTFOUND (no such program), LK_EIO, LK_ENOMEM. *out is the caller's to close. */
int lk_launch_submit(struct lk_launcher *, const struct lk_launch_spec *, struct lk_job **out, struct lk_err *);
/* What the place calls the job: a process, a number of its queue. Valid as long as the job. */
const char *lk_job_id(const struct lk_job *);
/* Waits until something changes, at most timeout_ms, does what is due (passes signals on, ends what a dead rank left
 * behind) and tells the state. Must go on being called, several times a second, until state.ended. A job that failed is no
 * failure of poll; LK_EIO means that the engine has lost sight of the job. */
int lk_job_poll(struct lk_job *, int timeout_ms, struct lk_job_state *out, struct lk_err *);
/* Asks every rank to save and leave: SIGUSR1, once all run. Returns at once, later polls deliver; more than once is once.
 * LK_EUNSUPPORTED: the place cannot. */
int lk_job_signal(struct lk_job *, struct lk_err *);
/* As lk_job_signal where the place can, and what still runs grace_ms later is killed; 0: at once. Later polls do it, and
 * the last tells LK_ESTOPPED if anything had to be killed. */
int lk_job_stop(struct lk_job *, uint64_t grace_ms, struct lk_err *);
/* Appends to *out what a rank has written from byte `offset` on, nothing when there is no more yet. LK_EUNSUPPORTED: the
 * job keeps no logs (spec.log_dir was NULL). */
int lk_job_log(struct lk_job *, int rank, uint64_t offset, struct lk_buf *out, struct lk_err *);
/* Forgets the job. One that has not ended is killed first by engines whose jobs cannot outlive us (`local`). NULL is
 * allowed. */
void lk_job_close(struct lk_job *);

/* Submits, polls until the end and asks `stop` (may be NULL) between polls; true: lk_job_signal, once. The ranks' own
 * result is LK_OK and *status (0: all succeeded; else of the first that failed). A rank that dies without leaving (killed,
 * crashed): the others are ended within seconds, and LK_EIO names rank, process and signal where they are known. *status is
 * -1 when no rank ever ran. */
int lk_launch_run(struct lk_launcher *, const struct lk_launch_spec *, bool (*stop)(void *), void *arg, int *status,
                  struct lk_err *);

/* --- Engines --------------------------------------------------------------------------------------------- */

/* Meaning, errors and threads of each slot are those of the function of its name. A slot that may be NULL says its default;
 * the others must be there. `where` is what open made, `job` what submit made; both are the engine's own. */
struct lk_launch_ops {
    const char *name;  /* "local" of "local:4" */
    const char *usage; /* one line: "local:N, N ranks on this machine, 1 to 64" */
    /* rest: behind the colon. Writes *ranks, and *where if the engine keeps anything. The message of LK_EINVAL is not
     * shown, `usage` is. */
    int (*open)(const char *rest, int *ranks, void **where, struct lk_err *);
    void (*close)(void *where); /* NULL: nothing to do */
    /* id: at most LK_JOB_ID bytes with the terminator */
    int (*submit)(void *where, const struct lk_launch_spec *, void **job, char *id, struct lk_err *);
    int (*poll)(void *job, int timeout_ms, struct lk_job_state *out, struct lk_err *);
    int (*signal)(void *job, struct lk_err *); /* NULL: LK_EUNSUPPORTED */
    int (*stop)(void *job, uint64_t grace_ms, struct lk_err *);
    /* NULL: the file spec.log_dir/RANK.log, which this machine then must see */
    int (*log)(void *job, int rank, uint64_t offset, struct lk_buf *out, struct lk_err *);
    void (*release)(void *job);
};
#define LK_JOB_ID 64
/* The same as lk_launch_open for an engine of your own. ops: borrowed until the launcher is closed. */
int lk_launch_open_with(const struct lk_launch_ops *ops, const char *rest, struct lk_launcher **out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
