/* lockstep eval */
#include "model_run.h"

#include <string.h>

static struct {
    const char *dataset, *beside;
    uint32_t sequences, context;
    int cache, beside_cache;
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

/* What is evaluated, and on what. */
struct evaluation {
    struct lk_dataset *dataset;
    uint32_t context;
    bool cross_documents;
};

static int open_dataset(struct cmd_context *c, const struct cmd_model *m, struct evaluation *e, struct lk_err *err) {
    struct lk_root root = m->run.dataset;
    const char *name = evaluated.dataset;
    int code = name ? lk_store_name_get(c->store, "dataset", name, &root, err) : LK_OK;
    if (!code) code = lk_dataset_open(c->store, &root, true, &e->dataset, err);
    e->context = evaluated.context;
    if (!e->context) e->context = m->ref.is_run ? lk_run_config_context(&m->run.config) : m->model.layout.config.context;
    e->cross_documents = !m->ref.is_run || m->run.config.cross_documents;
    return code;
}

static int evaluate(struct cmd_context *c, const struct cmd_model *m, const struct evaluation *e, struct lk_eval_row *row,
                    enum lk_dtype cache, struct lk_buf *likeliest, struct lk_err *err) {
    if (m->model.has_tokenizer && !lk_root_equal(lk_dataset_tokenizer(e->dataset), &m->model.tokenizer_root))
        return lk_fail(err, LK_EINVAL, "dataset %s was made with another tokenizer than the one that %s learned with",
                       evaluated.dataset ? evaluated.dataset : m->run.config.dataset, m->ref.name);
    if (e->context > m->model.layout.config.context)
        return lk_fail(err, LK_EINVAL, "--context %u is more than the %u of %s", e->context, m->model.layout.config.context,
                       m->ref.name);
    int code = lk_evaluate(c->math, &m->model.layout, m->model.weights, e->dataset, e->context, e->cross_documents,
                           evaluated.sequences, cache, row, likeliest, err);
    row->step = m->ref.step;
    if (!code && row->loss - row->loss != 0) warn_not_finite(c, m, row->loss);
    return code;
}

static json_t *row_json(const char *name, const struct lk_eval_row *row) {
    return json_pack("{s:s, s:I, s:o, s:I, s:I, s:o}", "run", name, "step", (json_int_t)row->step, "loss",
                     cmd_json_number(row->loss), "targets", (json_int_t)row->targets, "bytes", (json_int_t)row->bytes,
                     "bits_per_byte", row->bytes ? cmd_json_number(lk_bits_per_byte(row)) : json_null());
}
static void print_row(const char *name, bool is_run, const struct lk_eval_row *row) {
    printf("%s", name);
    if (is_run) printf(" at step %u", row->step);
    printf(": held-out loss %.6f nats a token over %llu tokens", row->loss, (unsigned long long)row->targets);
    if (row->bytes) printf(", %.4f bits a byte over %llu bytes", lk_bits_per_byte(row), (unsigned long long)row->bytes);
    putchar('\n');
}
/* Targets before which both models have the same likeliest token, of all. */
static double agreement(const struct lk_buf *a, const struct lk_buf *b) {
    const uint32_t *x = (const uint32_t *)(const void *)a->data, *y = (const uint32_t *)(const void *)b->data;
    size_t count = a->size / sizeof *x, same = 0;
    for (size_t i = 0; i < count; i++) same += x[i] == y[i];
    return count ? (double)same / (double)count : 0;
}

static int eval(struct cmd_context *c) {
    const char *names[2] = {c->arguments[0], evaluated.beside};
    struct lk_err err = {0};
    struct evaluation e = {0};
    struct cmd_model m;
    struct lk_eval_row rows[2] = {{0}};
    struct lk_buf likeliest[2] = {LK_BUF_INIT, LK_BUF_INIT};
    bool is_run[2] = {false}, both = evaluated.beside;
    int code = LK_OK;
    for (int i = 0; i < 1 + both && !code; i++) {
        if ((code = cmd_model_open(c, names[i], &m))) break;
        is_run[i] = m.ref.is_run;
        if (i == 0 && !evaluated.dataset && !m.ref.is_run) {
            cmd_model_close(&m);
            return cmd_usage_error(c, "%s is a model: say which --dataset it is evaluated on", names[0]);
        }
        if (i == 0) code = open_dataset(c, &m, &e, &err);
        if (!code)
            code = evaluate(c, &m, &e, &rows[i], cmd_cache(i ? evaluated.beside_cache : evaluated.cache),
                            both ? &likeliest[i] : NULL, &err);
        if (code) code = cmd_fail(&err);
        cmd_model_close(&m);
    }
    lk_dataset_close(e.dataset);
    double same = agreement(&likeliest[0], &likeliest[1]);
    lk_buf_release(&likeliest[0]), lk_buf_release(&likeliest[1]);
    if (code) return code;
    if (c->json) {
        json_t *all = row_json(names[0], &rows[0]);
        if (both) json_object_set_new(all, "beside", row_json(names[1], &rows[1]));
        if (both) json_object_set_new(all, "agreement", cmd_json_number(same));
        return cmd_print_json(all);
    }
    for (int i = 0; i < 1 + both; i++) print_row(names[i], is_run[i], &rows[i]);
    if (both) printf("the same likeliest token before %.2f%% of them\n", 100 * same);
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
        CMD_STRING("--beside", "MODEL", &evaluated.beside, NULL,
                   "another model on the same: its loss, and how often both have the same likeliest token"),
        CMD_CACHE("--cache", &evaluated.cache), CMD_CACHE("--beside-cache", &evaluated.beside_cache),
        CMD_U32("--sequences", "N", &evaluated.sequences, 0, UINT32_MAX, NULL, "only the first N sequences"),
        CMD_U32("--context", "N", &evaluated.context, 1, UINT32_MAX, NULL,
                "positions in a sequence; as in training, or the model's"),
        CMD_END},
    NULL,
    eval};
