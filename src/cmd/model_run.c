#include "model_run.h"

#include <string.h>

static int load(struct cmd_context *c, const struct lk_root *root, struct cmd_model *m, struct lk_err *err) {
    if (m->run.layout.floats == m->run.layout.parameters)
        return lk_checkpoint_map(c->store, root, &m->run.layout, &m->blob, &m->weights, err);
    int code = m->state.weights ? LK_OK : lk_state_init(&m->state, &m->run.layout, false, err);
    m->weights = m->state.weights;
    return code ? code : lk_checkpoint_load(c->store, root, &m->state, err);
}

/* The weights of the newest checkpoint that is whole. A run in training may prune a checkpoint while it is read. */
static int load_newest(struct cmd_context *c, const char *name, struct cmd_model *m, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    size_t count = 0;
    int code = lk_run_checkpoints(c->store, name, &list, &count, err);
    if (code) return code;
    code = lk_fail(err, LK_ENOTFOUND,
                   "run %s has no checkpoint yet: it is written every checkpoint.every steps and at the end", name);
    for (size_t i = count; i-- > 0 && code;) {
        if (!list[i].kept) continue;
        m->step = list[i].step;
        code = load(c, &list[i].state, m, err);
        if (code == LK_ECORRUPT)
            lk_log_warn("checkpoint of step %u: %s; trying the one before", list[i].step, err->message);
    }
    lk_free(list);
    return code;
}

int cmd_model_open(struct cmd_context *c, const char *name, struct cmd_model *m) {
    struct lk_err err = {0};
    memset(m, 0, sizeof *m);
    int code = cmd_open_math(c);
    if (!code) code = cmd_open_store(c, false);
    if (code) return code;
    code = lk_run_open(c->store, name, &m->run, &err);
    if (!code) code = load_newest(c, name, m, &err);
    if (code == LK_ENOTFOUND && m->step) code = load_newest(c, name, m, &err); /* pruned meanwhile: there is a newer one */
    if (!code) return CMD_OK;
    cmd_model_close(m);
    return cmd_fail(&err);
}

void cmd_model_close(struct cmd_model *m) {
    lk_blob_close(&m->blob);
    lk_state_release(&m->state);
    lk_run_close(&m->run);
}
