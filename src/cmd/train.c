/* lockstep train */
#include "cmd.h"

#include "lockstep/generate.h"
#include "lockstep/train.h"
#include <string.h>
#include <unistd.h>

struct view {
    struct cmd_context *c;
    struct lk_progress progress;
    double step_flops, peak_flops;
    uint64_t batch_tokens;
    double recent_seconds; /* smoothed seconds a step */
    uint32_t first;
    double eval_loss;
    bool has_eval;
    const struct lk_run_config *config;
};

/* --- What is shown while it runs ------------------------------------------------------------------------- */

static void show_plan(void *arg, const struct lk_run_config *c, const struct lk_layout *layout, const struct lk_plan *p) {
    struct view *v = arg;
    char total[32], weights[32], moments[32], gradients[32], activations[32], rest[32], have[32];
    double flops = 3 * lk_model_flops(&layout->config, c->sequences, c->context);
    v->step_flops = flops;
    v->batch_tokens = (uint64_t)c->sequences * c->context;
    lk_progress_line(&v->progress, "model: %zu parameters, %s, %u layer%s of width %u, context %u, vocabulary %u",
                     layout->parameters, c->family == LK_LLAMA ? "llama" : "gpt2", c->layers, c->layers == 1 ? "" : "s",
                     c->width, c->context, c->vocab);
    lk_progress_line(
        &v->progress,
        "batch: %u sequences = %llu tokens in %u grains, %u at a time; %.2f GFLOP a step; %s kernels, %d threads",
        c->sequences, (unsigned long long)v->batch_tokens, c->grains, p->micro_batch, flops / 1e9, lk_math_isa(v->c->math),
        lk_pool_threads(v->c->pool));
    lk_progress_line(&v->progress, "memory: %s of %s: weights %s, moments %s, gradients %s, activations %s, rest %s",
                     lk_format_bytes(p->total_bytes, total), lk_format_bytes(p->available_bytes, have),
                     lk_format_bytes(p->weights_bytes, weights), lk_format_bytes(p->moments_bytes, moments),
                     lk_format_bytes(p->gradients_bytes, gradients), lk_format_bytes(p->activations_bytes, activations),
                     lk_format_bytes(p->embedding_bytes + p->batch_bytes + p->scratch_bytes + p->process_bytes, rest));
}

static void show_resumed(void *arg, uint32_t step) {
    struct view *v = arg;
    lk_progress_line(&v->progress, "resumed after step %u", step);
}

static void show_step(void *arg, const struct lk_ledger_row *row, uint32_t steps) {
    struct view *v = arg;
    char left[32];
    v->recent_seconds = v->recent_seconds ? 0.9 * v->recent_seconds + 0.1 * row->seconds : row->seconds;
    bool last = row->step == steps;
    lk_progress_show(&v->progress, last, "step %u/%u  loss %.4f  %.0f tokens/s  %.0f%% of peak%s%s%s", row->step, steps,
                     row->loss, (double)v->batch_tokens / v->recent_seconds,
                     v->peak_flops > 0 ? 100 * v->step_flops / v->recent_seconds / v->peak_flops : 0, last ? "" : "  ",
                     last ? "" : lk_format_duration((steps - row->step) * v->recent_seconds, left), last ? "" : " left");
}

static void show_eval(void *arg, const struct lk_eval_row *row) {
    struct view *v = arg;
    if (row->bytes)
        lk_progress_line(&v->progress, "step %u: held-out loss %.4f, %.4f bits a byte", row->step, row->loss,
                         lk_bits_per_byte(row));
    else
        lk_progress_line(&v->progress, "step %u: held-out loss %.4f", row->step, row->loss);
}

static void show_warning(void *arg, const char *message) {
    lk_progress_line(&((struct view *)arg)->progress, "warning: %s", message);
}
static bool stop(void *arg) {
    return (void)arg, cmd_interrupted();
}

struct sample_text {
    struct lk_buf text;
};
static int keep_text(void *arg, const char *data, size_t size) {
    return lk_buf_append(&((struct sample_text *)arg)->text, data, size);
}

static void show_sample(void *arg, struct lk_trainer *t, uint32_t step) {
    struct view *v = arg;
    const struct lk_run *run = lk_trainer_about(t);
    struct lk_tokenizer *tokenizer = NULL;
    struct sample_text s = {LK_BUF_INIT};
    struct lk_generation g;
    struct lk_generate_options o = {.sampling = {.temperature = 0.8, .top_p = 0.95, .seed = run->config.seed},
                                    .max_tokens = 64,
                                    .text = keep_text,
                                    .arg = &s};
    struct lk_err err = {0};
    int code = lk_tokenizer_load(v->c->store, &run->tokenizer, &tokenizer, &err);
    if (!code)
        code = lk_generate(v->c->math, &run->layout, lk_trainer_state(t)->weights, tokenizer, run->config.prompt,
                           strlen(run->config.prompt), &o, &g, &err);
    if (code)
        lk_progress_line(&v->progress, "warning: no sample at step %u: %s", step, err.message);
    else {
        for (size_t i = 0; i < s.text.size; i++)
            if ((unsigned char)s.text.data[i] < 0x20 || s.text.data[i] == 0x7f) s.text.data[i] = ' ';
        lk_progress_line(&v->progress, "step %u: %s%s", step, run->config.prompt, s.text.data ? s.text.data : "");
    }
    lk_buf_release(&s.text);
    lk_tokenizer_free(tokenizer);
}

/* --- The command ----------------------------------------------------------------------------------------- */

static int finish(struct cmd_context *c, struct view *v, struct lk_trainer *t, struct lk_err *err) {
    char name[LK_NAME_MAX + 1];
    snprintf(name, sizeof name, "%s", lk_trainer_about(t)->name);
    int code = lk_trainer_run(t, err);
    lk_progress_end(&v->progress);
    lk_trainer_free(t);
    if (code) return cmd_fail(err);
    return cmd_show_run(c, name);
}

static int read_config(struct cmd_context *c, struct lk_run_config *out, struct lk_err *err) {
    struct lk_ini ini = {0};
    int code = lk_ini_read(c->arguments[0], &ini, err);
    for (int i = 1; i < c->argument_count && !code; i++) code = lk_ini_override(&ini, c->arguments[i], err);
    if (!code) code = lk_run_config_read(&ini, out, err);
    lk_ini_release(&ini);
    return code;
}

/* What is impossible in the whole is no line's fault, but the file's. */
static int fail_config(struct cmd_context *c, int code, struct lk_err *err) {
    if (code == LK_EINVAL) lk_fail_prefix(err, code, "%s", c->arguments[0]);
    return cmd_fail(err);
}

static int dry_run(struct cmd_context *c, struct lk_run_config *config) {
    struct lk_err err = {0};
    struct lk_plan p;
    double seconds = 0;
    char memory[32], have[32], time[32], step[32];
    int code = lk_train_dry_run(c->store, c->math, config, &p, &seconds, &err);
    if (code) return fail_config(c, code, &err);
    if (cmd_json(c))
        return cmd_print_json(json_pack("{s:I, s:I, s:i, s:i, s:f, s:f}", "memory_bytes", (json_int_t)p.total_bytes,
                                        "available_bytes", (json_int_t)p.available_bytes, "micro_batch", (int)p.micro_batch,
                                        "gradient_buffers", (int)p.gradient_buffers, "seconds_a_step", seconds, "seconds",
                                        seconds * config->steps));
    printf("memory  %s of %s: %u sequence%s at a time, %u gradient buffer%s\n", lk_format_bytes(p.total_bytes, memory),
           lk_format_bytes(p.available_bytes, have), p.micro_batch, p.micro_batch == 1 ? "" : "s", p.gradient_buffers,
           p.gradient_buffers == 1 ? "" : "s");
    printf("time    %s for %u steps of %s, evaluations and checkpoints not counted\n",
           lk_format_duration(seconds * config->steps, time), config->steps, lk_format_duration(seconds, step));
    return CMD_OK;
}

static int print_keys(void) {
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    const char *section = "";
    for (size_t i = 0; i < count; i++) {
        if (strcmp(section, o[i].section)) printf("%s[%s]\n", i ? "\n" : "", section = o[i].section);
        printf("%-16s %-10s %s%s%s%s\n", o[i].key, *o[i].fallback ? o[i].fallback : "-", o[i].words ? "(" : "",
               o[i].words ? o[i].words : "", o[i].words ? ") " : "", o[i].help);
    }
    return CMD_OK;
}

static int train(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_run_config config;
    struct lk_trainer *t = NULL;
    struct lk_peaks peaks = {0};
    struct view v = {.c = c};
    const char *resume = cmd_value(c, "--resume");
    struct lk_train_hooks hooks = {.arg = &v,
                                   .plan = show_plan,
                                   .resumed = show_resumed,
                                   .step = show_step,
                                   .evaluated = show_eval,
                                   .sample = show_sample,
                                   .warning = show_warning,
                                   .stop = stop};
    if (cmd_flag(c, "--keys")) return print_keys();
    if (resume && c->argument_count)
        return cmd_usage_error(c, "--resume takes the run's configuration as it is; give no CONFIG.ini and no keys");
    if (!resume && !c->argument_count) return cmd_usage_error(c, "CONFIG.ini or --resume RUN is missing");
    if (!resume && read_config(c, &config, &err)) return cmd_fail(&err);
    int code = cmd_open_math(c);
    if (!code) code = cmd_open_store(c, false);
    if (code) return code;
    if (cmd_flag(c, "--dry-run"))
        return resume ? cmd_usage_error(c, "--dry-run goes with CONFIG.ini") : dry_run(c, &config);
    lk_progress_init(&v.progress, stderr);
    cmd_catch_signals();
    lk_math_measure(c->math, 0.2, &peaks);
    v.peak_flops = peaks.fma_flops_all;
    code = resume ? lk_trainer_resume(c->store, c->math, resume, &hooks, &t, &err)
                  : lk_trainer_create(c->store, c->math, &config, &hooks, &t, &err);
    if (code) {
        lk_progress_end(&v.progress);
        return resume ? cmd_fail(&err) : fail_config(c, code, &err);
    }
    return finish(c, &v, t, &err);
}
const struct cmd cmd_train = {
    "train",
    "CONFIG.ini [section.key=value]...",
    0,
    -1,
    "Train a model; the result depends on configuration, data and seed only.",
    (const struct cmd_option[]){{"--resume", "RUN", "go on with a stopped or killed run"},
                                {"--dry-run", NULL, "print memory and time, store nothing"},
                                {"--keys", NULL, "list all keys of CONFIG.ini with their defaults"},
                                {NULL, NULL, NULL}},
    "Ctrl-C saves and leaves; a second one leaves at once. Any number of threads, any instruction set\n"
    "(LOCKSTEP_ISA=ref|avx2|avx512|neon), any kill and resume give the same bits. LOCKSTEP_MEMORY_BYTES=N makes the\n"
    "memory plan use no more than that.",
    train};
