/* mpirun for a job of the engine `local`: what it is given, its start, and its process. */
#ifndef LOCKSTEP_CLUSTER_LAUNCH_MPIRUN_H
#define LOCKSTEP_CLUSTER_LAUNCH_MPIRUN_H
#include "lockstep/cluster/launch.h"
#include <sys/types.h>

struct lk__launch_mpirun {
    char *path;
    char *dir;          /* private; LOCKSTEP_LAUNCH of the ranks */
    char **argv, **env; /* until it runs; what is ours of them is in `owned` */
    char *owned[16];
    int owned_count;
    pid_t process;
    int fd; /* pidfd, readable when it has ended; -1 when we have none */
};

/* Of a struct of zeros with fd -1. Also after a failure: lk__launch_mpirun_release. */
int lk__launch_mpirun_prepare(struct lk__launch_mpirun *, const struct lk_launch_spec *, struct lk_err *);
int lk__launch_mpirun_start(struct lk__launch_mpirun *, struct lk_err *);
/* Reaches it or nobody: by its pidfd, or by its number while nobody has waited for it. */
void lk__launch_mpirun_signal(const struct lk__launch_mpirun *, int number);
/* Whether a limit of ours is below what Open MPI was seen to need for so many ranks; says which. */
bool lk__launch_mpirun_limited(int ranks, struct lk_err *why);
/* Removes the folder. */
void lk__launch_mpirun_release(struct lk__launch_mpirun *);

#endif
