#include "model_run.h"

#include <string.h>

static void warn(void *arg, const char *message) {
    (void)arg;
    lk_log_warn("%s", message);
}

int cmd_model_open(struct cmd_context *c, const char *name, struct cmd_model *m) {
    struct lk_err err = {0};
    memset(m, 0, sizeof *m);
    int code = cmd_open_math(c);
    if (!code) code = cmd_open_store(c, false);
    if (code) return code;
    code = lk_model_find(c->store, name, true, warn, NULL, &m->ref, &m->model, &err);
    if (!code && m->ref.is_run) code = lk_run_open(c->store, m->ref.name, &m->run, &err);
    if (!code) return CMD_OK;
    cmd_model_close(m);
    return cmd_fail(&err);
}

void cmd_model_close(struct cmd_model *m) {
    lk_model_close(&m->model);
    lk_run_close(&m->run);
}
