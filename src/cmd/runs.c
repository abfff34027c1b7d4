/* lockstep runs show|log|plot|rm */
#include "runs.h"

#include "lockstep/base/file.h"
#include <string.h>
#include <time.h>

/* Floats are kept as exact hexadecimal strings; people and scripts get numbers. */
static void show_float(json_t *record, const char *key) {
    double v;
    json_t *old = json_object_get(record, key);
    if (json_is_string(old) && lk_json_float_parse(old, &v) == LK_OK) json_object_set_new(record, key, cmd_json_number(v));
}
void runs_readable(json_t *record) {
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

const char *runs_date(const json_t *record, char out[32]) {
    time_t seconds = (time_t)(json_integer_value(json_object_get(record, "created_ms")) / 1000);
    struct tm t;
    if (!seconds || !localtime_r(&seconds, &t) || !strftime(out, 32, "%Y-%m-%d %H:%M", &t)) return "-";
    return out;
}
const char *runs_parent(const json_t *record) {
    return json_string_value(json_object_get(record, "parent"));
}
const char *runs_dataset(const json_t *record) {
    const char *name =
        json_string_value(json_object_get(json_object_get(json_object_get(record, "config"), "data"), "dataset"));
    return name ? name : "-";
}

/* --- show ------------------------------------------------------------------------------------------------ */

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

/* a / b as "12.3%", or "-" where there is no b to divide by. */
static const char *share(double a, double b, int decimals, const char *unit, char out[32]) {
    if (!(b > 0)) return "-";
    snprintf(out, 32, "%.*f%s", decimals, a / b, unit);
    return out;
}

struct profile {
    double steps, seconds, threads, peak_flops, peak_bytes; /* of all kernels and what lies between them */
};

static void print_kernel(const struct profile *p, const json_t *k) {
    char calls[32], part[32], flops[32], bytes[32], roof[32], idle[32];
    double s = real(k, "ns") * 1e-9, compute = p->peak_flops > 0 ? real(k, "operations") / p->peak_flops : 0,
           memory = p->peak_bytes > 0 ? real(k, "bytes") / p->peak_bytes : 0, least = compute > memory ? compute : memory;
    printf("%-26s %9lld %10s %7s %9s %8s %9s %7s\n", json_string_value(json_object_get(k, "name")),
           (long long)json_integer_value(json_object_get(k, "calls")), share(1e3 * s, p->steps, 3, "", calls),
           share(100 * s, p->seconds, 1, "%", part), share(real(k, "operations") / 1e9, s, 1, "", flops),
           share(real(k, "bytes") / 1e9, s, 1, "", bytes), least > 0 ? share(100 * least, s, 0, "%", roof) : "-",
           share(100e-9 * real(k, "idle_ns"), s * p->threads, 1, "%", idle));
}

static void print_profile(const json_t *profile) {
    struct profile p = {real(profile, "steps"), real(profile, "ns") * 1e-9, real(profile, "threads"),
                        real(profile, "peak_flops"), real(profile, "peak_bytes")};
    double rest = p.seconds, idle = 0;
    bool ranks = json_integer_value(json_object_get(profile, "ranks")) > 1;
    char step[32], part[32];
    size_t i;
    json_t *k;
    printf("\nprofile of %.0f step%s%s (the first is left out): %s a step; peaks %.0f GFLOP/s, %.1f GB/s read\n", p.steps,
           p.steps == 1 ? "" : "s", ranks ? " of rank 0" : "", share(p.seconds, p.steps, 4, " s", step), p.peak_flops / 1e9,
           p.peak_bytes / 1e9);
    printf("%-26s %9s %10s %7s %9s %8s %9s %7s\n", "kernel", "calls", "ms a step", "share", "GFLOP/s", "GB/s", "roofline",
           "idle");
    json_array_foreach(json_object_get(profile, "kernels"), i, k) {
        rest -= real(k, "ns") * 1e-9;
        idle += real(k, "idle_ns") * 1e-9;
        print_kernel(&p, k);
    }
    printf("%-26s %9s %10s %7s%s\n", "elsewhere", "", share(1e3 * rest, p.steps, 3, "", step),
           share(100 * rest, p.seconds, 1, "%", part),
           ranks ? "   (the batch, touched rows, waiting for other ranks)" : "   (the batch, touched rows)");
    printf("roofline: the least time that operations or bytes allow at these peaks; what lies in caches or is only written "
           "can exceed "
           "100%%\n");
    printf("idle threads inside kernels: %s of all threads' time\n",
           share(100 * idle, p.seconds * p.threads, 1, "%", part));
}

/* What the record does not say, and what it says elsewhere. */
static void print_facts(const json_t *record, const struct lk_run_facts *f) {
    char date[32];
    const char *parent = runs_parent(record);
    if (f->step != (uint32_t)json_integer_value(json_object_get(record, "step")))
        printf("%-14s %u, by the ledger%s\n", "live step", f->step, f->process ? "" : "; --resume begins at step");
    if (f->process) printf("%-14s %ld\n", "process", f->process);
    printf("%-14s %s\n%-14s %s\n", "begun", runs_date(record, date), "dataset", runs_dataset(record));
    if (parent) printf("%-14s %s\n", "parent", parent);
    if (f->tokens_per_second > 0) printf("%-14s %.0f\n", "tokens/s", f->tokens_per_second);
    if (f->evals && f->best.bytes)
        printf("%-14s %.6g at step %u, %.4f bits a byte\n", "best eval_loss", f->best.loss, f->best.step,
               lk_bits_per_byte(&f->best));
    else if (f->evals)
        printf("%-14s %.6g at step %u\n", "best eval_loss", f->best.loss, f->best.step);
    if (*f->damage) printf("%-14s %s\n", "damaged", f->damage);
}

int cmd_show_run(struct cmd_context *c, const char *name) {
    struct lk_err err = {0};
    json_t *record;
    static const char *const keys[] = {"name",      "identity",     "state",      "step",         "steps", "train_loss",
                                       "eval_loss", "weights_root", "state_root", "dataset_root", "seed",  "numerics"};
    struct lk_run_facts facts;
    if (lk_run_get(c->store, name, &record, &err)) return cmd_fail(&err);
    if (lk_run_facts_read(c->store, name, record, &facts, &err)) return json_decref(record), cmd_fail(&err);
    runs_readable(record);
    if (c->json && json_object_set_new(record, "live", lk_run_facts_json(&facts))) json_decref(record), record = NULL;
    if (c->json) return cmd_print_json(record);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) print_value(keys[i], json_object_get(record, keys[i]));
    print_facts(record, &facts);
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
    runs_readable(record);
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

/* --- log ------------------------------------------------------------------------------------------------- */

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

/* --- plot, rm -------------------------------------------------------------------------------------------- */

static struct {
    const char *out;
    int by;
} plotted;

static int plot(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_buf svg = LK_BUF_INIT;
    char file[2 * LK_NAME_MAX + 16];
    const char *out = plotted.out, *const *runs = (const char *const *)c->arguments;
    bool one = c->argument_count == 1 && plotted.by == LK_PLOT_STEP, left_out[LK_PLOT_RUNS] = {false};
    if (c->argument_count == 1)
        snprintf(file, sizeof file, "%s.svg", runs[0]);
    else
        snprintf(file, sizeof file, "%s-and-%d.svg", runs[0], c->argument_count - 1);
    if (!out) out = file;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code =
        one ? lk_plot_run(c->store, runs[0], &svg, &err)
            : lk_plot_runs(c->store, runs, (size_t)c->argument_count, (enum lk_plot_by)plotted.by, left_out, &svg, &err);
    for (int i = 0; i < c->argument_count && !code; i++)
        if (left_out[i]) lk_log_warn("run %s has no steps to plot yet: it is left out", runs[i]);
    if (!code && strcmp(out, "-") == 0)
        fwrite(svg.data, 1, svg.size, stdout);
    else if (!code)
        code = lk_file_write_atomic(out, svg.data, svg.size, &err);
    lk_buf_release(&svg);
    if (code) return cmd_fail(&err);
    if (strcmp(out, "-") == 0) return CMD_OK; /* the picture is the output */
    if (c->json) return cmd_print_json(json_pack("{s:s}", "file", out));
    printf("%s\n", out);
    return CMD_OK;
}
const struct cmd cmd_runs_plot = {
    "runs plot",
    "RUN...",
    1,
    LK_PLOT_RUNS,
    "Draw the loss curves of one or several runs as an SVG picture.",
    (const struct cmd_option[]){
        CMD_STRING("--out", "FILE", &plotted.out, NULL,
                   "RUN.svg by default, RUN-and-N.svg of N more runs; \"-\" is standard output"),
        CMD_CHOICE("--by", &plotted.by, "step|tokens|seconds", "step", "what the picture's width shows"), CMD_END},
    "Of one run every step is drawn, and a smoothed line; of several the smoothed lines, with held-out losses as points, "
    "in\n"
    "bits a byte where the bytes of all datasets are known, so that runs with several tokenizers compare. "
    "A\n"
    "run among several that has no steps yet is left out.",
    plot};

static int rm(struct cmd_context *c) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    for (int i = 0; i < c->argument_count; i++) { /* a misspelt name removes nothing */
        json_t *record = NULL;
        int code = lk_run_get(c->store, c->arguments[i], &record, &err);
        json_decref(record);
        if (code && code != LK_ECORRUPT) return cmd_fail(&err);
    }
    for (int i = 0; i < c->argument_count; i++) {
        if (lk_run_remove(c->store, c->arguments[i], &err)) return cmd_fail(&err);
        if (!c->json) printf("removed %s; " CMD_GC_HINT "\n", c->arguments[i]);
    }
    return c->json ? cmd_print_json(json_pack("{s:i}", "removed", c->argument_count)) : CMD_OK;
}
const struct cmd cmd_runs_rm = {"runs rm", "RUN...", 1, -1, "Remove runs.", NULL, NULL, rm};
