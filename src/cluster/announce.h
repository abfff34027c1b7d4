/* What the launcher and the ranks that it starts tell each other through a folder of files. */
#ifndef LOCKSTEP_CLUSTER_ANNOUNCE_H
#define LOCKSTEP_CLUSTER_ANNOUNCE_H
#include "lockstep/cluster/comm.h"
#include <sys/types.h>

/* In a rank: tells the launcher (if LOCKSTEP_LAUNCH names its folder) our process, and at an ordinary exit the status. */
int lk__launch_announce(int rank, struct lk_err *);
/* In the launcher: the process of a rank, 0 while it has not told it. */
pid_t lk__launch_process(const char *dir, int rank);
/* Whether the rank has left by an ordinary exit, and with which status. */
bool lk__launch_left(const char *dir, int rank, int *status);

#endif
