/* A run opened for reading its newest weights: what eval and generate share. */
#ifndef LOCKSTEP_CMD_MODEL_RUN_H
#define LOCKSTEP_CMD_MODEL_RUN_H
#include "cmd.h"
#include "lockstep/train.h"

struct cmd_model {
    struct lk_run run;
    const float *weights;  /* (run.layout.floats) */
    struct lk_blob blob;   /* where they lie, or */
    struct lk_state state; /* where they were copied to, if the model pads them */
    uint32_t step;
};
/* Opens store and math, loads the newest good checkpoint's weights; a damaged one is named on stderr. Prints errors. */
int cmd_model_open(struct cmd_context *, const char *run, struct cmd_model *out);
void cmd_model_close(struct cmd_model *);

#endif
