/* A model of the store or a run's checkpoint, opened for reading: what eval, generate and `model` share. */
#ifndef LOCKSTEP_CMD_MODEL_RUN_H
#define LOCKSTEP_CMD_MODEL_RUN_H
#include "cmd.h"
#include "lockstep/train/train.h"

struct cmd_model {
    struct lk_model_ref ref;
    struct lk_model model; /* with its weights */
    struct lk_run run;     /* when ref.is_run */
};
/* Opens store and math, and what MODEL, RUN or RUN@STEP names; a damaged checkpoint is named on stderr. Prints errors. */
int cmd_model_open(struct cmd_context *, const char *name, struct cmd_model *out);
void cmd_model_close(struct cmd_model *);

/* How keys and values are kept: an option, and what its choice means. */
#define CMD_CACHE(NAME, OUT) CMD_CHOICE(NAME, OUT, "f32|q8", "f32", "keys and values in 32 bits, or in 8: other answers")
static inline enum lk_dtype cmd_cache(int choice) {
    return choice ? LK_Q8 : LK_F32;
}

#endif
