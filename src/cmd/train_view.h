/* What `train` shows. */
#ifndef LOCKSTEP_CMD_TRAIN_VIEW_H
#define LOCKSTEP_CMD_TRAIN_VIEW_H
#include "cmd.h"
#include "lockstep/cluster/comm.h"
#include "lockstep/train/train.h"

struct train_view {
    struct cmd_context *c;
    struct lk_comm *comm;
    struct lk_progress progress;
    double step_flops;
    struct lk_peaks peaks; /* of all ranks together */
    uint64_t batch_tokens;
    double recent_seconds; /* smoothed seconds a step */
    double mean_loss;      /* smoothed, over about the last MEAN_STEPS that had targets */
    uint32_t mean_steps;
    bool beaten; /* a step was faster than the peak, which so was measured beside other work */
    char name[LK_NAME_MAX + 1];
};
/* The hooks that show; `stop` and `peaks` are left to the caller. v: borrowed as long as the trainer. */
struct lk_train_hooks train_view_hooks(struct train_view *v);
/* Measures v->peaks; all ranks together. */
int train_view_measure(struct train_view *v, struct lk_err *);
/* --keys and --dry-run, on standard output. */
int train_show_keys(void);
int train_show_dry_run(const struct cmd_context *, const struct lk_comm *, const struct lk_run_config *,
                       const struct lk_plan *, double seconds);

#endif
