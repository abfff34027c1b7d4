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
    if (!code) code = cmd_open_store(c, LK_READ);
    if (code) return code;
    code = lk_model_find(c->store, name, true, warn, NULL, &m->ref, &m->model, &err);
    if (!code && m->ref.is_run) code = lk_run_open(c->store, m->ref.name, &m->run, &err);
    if (!code) return CMD_OK;
    cmd_model_close(m);
    return cmd_fail(&err);
}

int cmd_find_tokenizer(struct cmd_context *c, const char *name, struct lk_root *out, struct lk_err *err) {
    struct lk_model_ref ref;
    struct lk_model m;
    bool model = strncmp(name, "model:", 6) == 0;
    if (!model && strncmp(name, "run:", 4)) return lk_store_name_get(c->store, "tokenizer", name, out, err);
    int code = lk_model_find(c->store, name, false, warn, NULL, &ref, &m, err);
    if (code) return code;
    *out = m.tokenizer_root;
    if (!m.has_tokenizer) code = lk_fail(err, LK_EINVAL, "model %s has no tokenizer", ref.name);
    lk_model_close(&m);
    return code;
}

void cmd_model_close(struct cmd_model *m) {
    lk_model_close(&m->model);
    lk_run_close(&m->run);
}
