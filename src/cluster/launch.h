/* The engines of the launcher. */
#ifndef LOCKSTEP_CLUSTER_LAUNCH_H
#define LOCKSTEP_CLUSTER_LAUNCH_H
#include "lockstep/cluster/launch.h"

extern const struct lk_launch_ops lk__launch_local;

#endif
