/* lockstep eval */
#include "model_run.h"

#include <string.h>

static struct {
    const char *dataset;
    uint32_t sequences, context;
} evaluated;

/* Tells why a loss may be no finite number, and the way on. */
static void warn_not_finite(const struct cmd_context *c, const struct cmd_model *m, double loss) {
    const struct lk_layout *l = &m->model.layout;
    const char *bad = NULL;
    for (size_t i = 0; i < l->tensor_count && !bad; i++) {
        if (l->tensors[i].dtype != LK_F32) continue; /* rounding refused what is not finite */
        const float *w = m->model.weights + l->tensors[i].offset;
        for (size_t k = 0; k < l->tensors[i].count && !bad; k++)
            if (w[k] - w[k] != 0) bad = l->tensors[i].name; /* infinities and NaN */
    }
    const char *way = m->ref.is_run
                          ? "evaluate an earlier checkpoint, RUN@STEP (`lockstep runs show RUN` lists them), and go "
                            "on from it with a lower optimizer.learning_rate or optimizer.clip"
                          : "import the model again from files that are whole, and look how it was trained";
    if (bad)
        lk_log_warn("%s: the loss is %s, because the weights hold numbers that are not finite, first in %s: %s",
                    c->arguments[0], loss != loss ? "nan" : "inf", bad, way);
    else
        lk_log_warn(
            "%s: the loss is %s, although all weights are finite: they are so large that a sum overflows float32; %s",
            c->arguments[0], loss != loss ? "nan" : "inf", way);
}

static int eval(struct cmd_context *c) {
    struct lk_err err = {0};
    struct cmd_model m;
    struct lk_dataset *d = NULL;
    struct lk_root root;
    struct lk_eval_row row = {0};
    const char *name = evaluated.dataset;
    uint32_t context = evaluated.context;
    int code = cmd_model_open(c, c->arguments[0], &m);
    if (code) return code;
    if (!name && !m.ref.is_run) {
        cmd_model_close(&m);
        return cmd_usage_error(c, "%s is a model: say which --dataset it is evaluated on", c->arguments[0]);
    }
    if (name)
        code = lk_store_name_get(c->store, "dataset", name, &root, &err);
    else
        root = m.run.dataset;
    if (!code) code = lk_dataset_open(c->store, &root, true, &d, &err);
    if (!code && m.model.has_tokenizer && !lk_root_equal(lk_dataset_tokenizer(d), &m.model.tokenizer_root))
        code = lk_fail(&err, LK_EINVAL, "dataset %s was made with another tokenizer than the one that %s learned with",
                       name ? name : m.run.config.dataset, m.ref.name);
    if (!code && !context) context = m.ref.is_run ? lk_run_config_context(&m.run.config) : m.model.layout.config.context;
    if (!code && context > m.model.layout.config.context)
        code = lk_fail(&err, LK_EINVAL, "--context %u is more than the model's %u", context, m.model.layout.config.context);
    if (!code)
        code = lk_evaluate(c->math, &m.model.layout, m.model.weights, d, context,
                           !m.ref.is_run || m.run.config.cross_documents, evaluated.sequences, &row, &err);
    row.step = m.ref.step;
    bool is_run = m.ref.is_run;
    if (!code && row.loss - row.loss != 0) warn_not_finite(c, &m, row.loss);
    lk_dataset_close(d);
    cmd_model_close(&m);
    if (code) return cmd_fail(&err);
    if (c->json)
        return cmd_print_json(json_pack("{s:s, s:I, s:o, s:I, s:I, s:o}", "run", c->arguments[0], "step",
                                        (json_int_t)row.step, "loss", cmd_json_number(row.loss), "targets",
                                        (json_int_t)row.targets, "bytes", (json_int_t)row.bytes, "bits_per_byte",
                                        row.bytes ? cmd_json_number(lk_bits_per_byte(&row)) : json_null()));
    printf("%s", c->arguments[0]);
    if (is_run) printf(" at step %u", row.step);
    printf(": held-out loss %.6f nats a token over %llu tokens", row.loss, (unsigned long long)row.targets);
    if (row.bytes) printf(", %.4f bits a byte over %llu bytes", lk_bits_per_byte(&row), (unsigned long long)row.bytes);
    putchar('\n');
    return CMD_OK;
}
const struct cmd cmd_eval = {
    "eval",
    "MODEL|RUN[@STEP]",
    1,
    1,
    "Loss and bits per byte on a dataset's held-out split.",
    (const struct cmd_option[]){
        CMD_STRING("--dataset", "DATASET", &evaluated.dataset, NULL, "the run's own by default"),
        CMD_U32("--sequences", "N", &evaluated.sequences, 0, UINT32_MAX, NULL, "only the first N sequences"),
        CMD_U32("--context", "N", &evaluated.context, 1, UINT32_MAX, NULL,
                "positions in a sequence; as in training, or the model's"),
        CMD_END},
    NULL,
    eval};
