/* lockstep runs list|show|log|plot|rm */
#include "cmd.h"

#include "lockstep/base/file.h"
#include "lockstep/lab/lab.h"
#include <string.h>

/* Floats are kept as exact hexadecimal strings; people and scripts get numbers. */
static void show_float(json_t *record, const char *key) {
    double v;
    json_t *old = json_object_get(record, key);
    if (json_is_string(old) && lk_json_float_parse(old, &v) == LK_OK) json_object_set_new(record, key, cmd_json_number(v));
}
static void readable(json_t *record) {
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    show_float(record, "train_loss");
    show_float(record, "eval_loss");
    json_t *config = json_object_get(record, "config");
    for (size_t i = 0; i < count; i++)
        if (o[i].type == LK_O_F64) show_float(json_object_get(config, o[i].section), o[i].key);
    json_t *profile = json_object_get(record, "profile"), *kernel;
    show_float(profile, "peak_flops");
    show_float(profile, "peak_bytes");
    json_array_foreach(json_object_get(profile, "kernels"), count, kernel) {
        show_float(kernel, "operations");
        show_float(kernel, "bytes");
    }
}

/* --- list
 * -------------------------------------------------------------------------------------------------------------------------
 */

static const char *text(const json_t *record, const char *key) {
    const char *s = json_string_value(json_object_get(record, key));
    return s ? s : "-";
}
static void number(const json_t *record, const char *key, char *out, size_t size) {
    json_t *v = json_object_get(record, key);
    if (json_is_real(v))
        snprintf(out, size, "%.4f", json_real_value(v));
    else
        snprintf(out, size, "-");
}

static int list_one(void *arg, const char *name, json_t *record) {
    json_t *all = arg;
    char train[32], eval[32];
    if (all) {
        readable(record);
        return json_array_append(all, record);
    }
    show_float(record, "train_loss");
    show_float(record, "eval_loss");
    number(record, "train_loss", train, sizeof train);
    number(record, "eval_loss", eval, sizeof eval);
    printf("%-24s %-9s %8lld/%-8lld %10s %10s  %.16s\n", name, text(record, "state"),
           (long long)json_integer_value(json_object_get(record, "step")),
           (long long)json_integer_value(json_object_get(record, "steps")), train, eval, text(record, "weights_root"));
    return 0;
}
static int list(struct cmd_context *c) {
    struct lk_err err = {0};
    json_t *all = c->json ? json_array() : NULL;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (!all)
        printf("%-24s %-9s %8s/%-8s %10s %10s  %s\n", "run", "state", "step", "steps", "loss", "held out", "weights root");
    if (lk_run_list(c->store, list_one, all, &err)) return cmd_fail(&err);
    return all ? cmd_print_json(all) : CMD_OK;
}
const struct cmd cmd_runs_list = {"runs list", "", 0, 0, "List runs.", NULL, NULL, list};

/* --- show
 * -------------------------------------------------------------------------------------------------------------------------
 */

static void print_value(const char *key, const json_t *value) {
    if (json_is_string(value))
        printf("%-14s %s\n", key, json_string_value(value));
    else if (json_is_real(value))
        printf("%-14s %.6g\n", key, json_real_value(value));
    else if (json_is_boolean(value))
        printf("%-14s %s\n", key, json_is_true(value) ? "true" : "false");
    else if (json_is_null(value))
        printf("%-14s -\n", key);
    else
        printf("%-14s %lld\n", key, (long long)json_integer_value(value));
}

static double real(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/* A kernel's share of the roofline: the least time that its operations and its bytes allow, over the time it took. */
static double roofline(const json_t *kernel, double peak_flops, double peak_bytes) {
    double compute = real(kernel, "operations") / peak_flops, memory = real(kernel, "bytes") / peak_bytes;
    return (compute > memory ? compute : memory) / (real(kernel, "ns") * 1e-9);
}

static void print_profile(const json_t *profile) {
    double steps = real(profile, "steps"), all = real(profile, "ns") * 1e-9, rest = all, threads = real(profile, "threads"),
           flops = real(profile, "peak_flops"), bytes = real(profile, "peak_bytes"), idle_all = 0;
    long long ranks = json_integer_value(json_object_get(profile, "ranks"));
    size_t i;
    json_t *k;
    printf("\nprofile of %.0f step%s%s (the first is left out): %.4f s a step; peaks %.0f GFLOP/s, %.1f GB/s read\n", steps,
           steps == 1 ? "" : "s", ranks > 1 ? " of rank 0" : "", all / steps, flops / 1e9, bytes / 1e9);
    printf("%-26s %9s %10s %7s %9s %8s %9s %7s\n", "kernel", "calls", "ms a step", "share", "GFLOP/s", "GB/s", "roofline",
           "idle");
    json_array_foreach(json_object_get(profile, "kernels"), i, k) {
        double s = real(k, "ns") * 1e-9, idle = real(k, "idle_ns") * 1e-9;
        rest -= s;
        idle_all += idle;
        printf("%-26s %9lld %10.3f %6.1f%% %9.1f %8.1f %8.0f%% %6.1f%%\n", json_string_value(json_object_get(k, "name")),
               (long long)json_integer_value(json_object_get(k, "calls")), 1e3 * s / steps, 100 * s / all,
               real(k, "operations") / s / 1e9, real(k, "bytes") / s / 1e9, 100 * roofline(k, flops, bytes),
               100 * idle / (s * threads));
    }
    printf("%-26s %9s %10.3f %6.1f%%%s\n", "elsewhere", "", 1e3 * rest / steps, 100 * rest / all,
           ranks > 1 ? "   (the batch, touched rows, waiting for other ranks)" : "   (the batch, touched rows)");
    printf("roofline: the least time that operations or bytes allow at these peaks; what lies in caches or is only written "
           "can exceed "
           "100%%\n");
    printf("idle threads inside kernels: %.1f%% of all threads' time\n", 100 * idle_all / (all * threads));
}

int cmd_show_run(struct cmd_context *c, const char *name) {
    struct lk_err err = {0};
    json_t *record;
    static const char *const keys[] = {"name",      "identity",     "state",      "step",         "steps", "train_loss",
                                       "eval_loss", "weights_root", "state_root", "dataset_root", "seed",  "numerics"};
    if (lk_run_get(c->store, name, &record, &err)) return cmd_fail(&err);
    readable(record);
    if (c->json) return cmd_print_json(record);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) print_value(keys[i], json_object_get(record, keys[i]));
    if (json_object_get(record, "error")) print_value("error", json_object_get(record, "error"));
    if (json_object_get(record, "profile")) print_profile(json_object_get(record, "profile"));
    json_decref(record);
    return CMD_OK;
}
static int show(struct cmd_context *c) {
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code = cmd_show_run(c, c->arguments[0]);
    struct lk_err err = {0};
    json_t *record;
    if (code || c->json || lk_run_get(c->store, c->arguments[0], &record, &err)) return code;
    readable(record);
    const char *section;
    json_t *keys, *value;
    json_object_foreach(json_object_get(record, "config"), section, keys) {
        const char *key;
        printf("\n[%s]\n", section);
        json_object_foreach(keys, key, value) print_value(key, value);
    }
    json_decref(record);
    return CMD_OK;
}
const struct cmd cmd_runs_show = {"runs show", "RUN", 1,   1, "Show a run: state, losses, roots, configuration.",
                                  NULL,        NULL,  show};

/* --- log
 * --------------------------------------------------------------------------------------------------------------------------
 */

/* A step without targets made no update: it has neither loss nor norm. */
static int log_row(void *arg, const struct lk_ledger_row *r) {
    if (*(bool *)arg && r->tokens == 0)
        printf("{\"step\":%u,\"loss\":null,\"gradient_norm\":null,\"learning_rate\":%.17g,\"tokens\":0,\"seconds\":%.6f}\n",
               r->step, r->learning_rate, r->seconds);
    else if (r->tokens == 0)
        printf("%8u  %10s  %10s  %12.6g  %8u  %8.3f\n", r->step, "-", "-", r->learning_rate, 0u, r->seconds);
    else if (*(bool *)arg)
        printf("{\"step\":%u,\"loss\":%.17g,\"gradient_norm\":%.17g,\"learning_rate\":%.17g,\"tokens\":%llu,\"seconds\":%."
               "6f}\n",
               r->step, r->loss, r->gradient_norm, r->learning_rate, (unsigned long long)r->tokens, r->seconds);
    else
        printf("%8u  %10.6f  %10.6f  %12.6g  %8llu  %8.3f\n", r->step, r->loss, r->gradient_norm, r->learning_rate,
               (unsigned long long)r->tokens, r->seconds);
    return 0;
}
static struct { uint32_t from, to; } logged = {.to = UINT32_MAX};

static int log_run(struct cmd_context *c) {
    struct lk_err err = {0};
    json_t *record;
    bool json = c->json;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_run_get(c->store, c->arguments[0], &record, &err)) return cmd_fail(&err);
    json_decref(record);
    if (!json) printf("%8s  %10s  %10s  %12s  %8s  %8s\n", "step", "loss", "norm", "rate", "tokens", "seconds");
    return lk_ledger_list(c->store, c->arguments[0], logged.from, logged.to, log_row, &json, &err) ? cmd_fail(&err)
                                                                                                   : CMD_OK;
}
const struct cmd cmd_runs_log = {
    "runs log",
    "RUN",
    1,
    1,
    "Print the ledger: a line a step.",
    (const struct cmd_option[]){CMD_U32("--from", "STEP", &logged.from, 0, UINT32_MAX, NULL, "first step"),
                                CMD_U32("--to", "STEP", &logged.to, 0, UINT32_MAX, NULL, "last step"), CMD_END},
    "With --json one object a step: step, loss, gradient_norm, learning_rate, tokens, seconds. A step without targets made "
    "no update and has null for loss and norm.",
    log_run};

/* --- plot, rm
 * -----------------------------------------------------------------------------------------------------------------------
 */

static const char *plot_out;

static int plot(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_buf svg = LK_BUF_INIT;
    char file[LK_NAME_MAX + 8];
    const char *out = plot_out;
    snprintf(file, sizeof file, "%s.svg", c->arguments[0]);
    if (!out) out = file;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code = lk_plot_run(c->store, c->arguments[0], &svg, &err);
    if (!code && strcmp(out, "-") == 0)
        fwrite(svg.data, 1, svg.size, stdout);
    else if (!code)
        code = lk_file_write_atomic(out, svg.data, svg.size, &err);
    lk_buf_release(&svg);
    if (code) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s}", "file", out));
    if (strcmp(out, "-")) printf("%s\n", out);
    return CMD_OK;
}
const struct cmd cmd_runs_plot = {
    "runs plot",
    "RUN",
    1,
    1,
    "Draw the loss curve as an SVG picture.",
    (const struct cmd_option[]){
        CMD_STRING("--out", "FILE", &plot_out, NULL, "RUN.svg by default; \"-\" is standard output"), CMD_END},
    NULL,
    plot};

static int rm(struct cmd_context *c) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    for (int i = 0; i < c->argument_count; i++) { /* a misspelt name removes nothing */
        json_t *record;
        if (lk_run_get(c->store, c->arguments[i], &record, &err)) return cmd_fail(&err);
        json_decref(record);
    }
    for (int i = 0; i < c->argument_count; i++) {
        if (lk_run_remove(c->store, c->arguments[i], &err)) return cmd_fail(&err);
        if (!c->json) printf("removed %s; " CMD_GC_HINT "\n", c->arguments[i]);
    }
    return c->json ? cmd_print_json(json_pack("{s:i}", "removed", c->argument_count)) : CMD_OK;
}
const struct cmd cmd_runs_rm = {"runs rm", "RUN...", 1, -1, "Remove runs.", NULL, NULL, rm};
