/* What `train` shows: the plan, a line a step, evaluations, samples; and what it would take (--dry-run, --keys). */
#include "train_view.h"

#include "lockstep/serve/generate.h"
#include <string.h>
#include <unistd.h>

/* --- While it runs --------------------------------------------------------------------------------------- */

static void show_plan(void *arg, const struct lk_run_config *c, const struct lk_layout *layout, const struct lk_plan *p) {
    struct train_view *v = arg;
    char total[32], weights[32], moments[32], gradients[32], activations[32], rest[32], have[32];
    double flops = 3 * lk_model_flops(&layout->config, c->sequences, lk_run_config_context(c));
    v->step_flops = flops;
    v->batch_tokens = (uint64_t)c->sequences * lk_run_config_context(c);
    lk_progress_line(&v->progress, "model: %zu parameters, %s, %u layer%s of width %u, context %u, vocabulary %u",
                     layout->parameters, c->family == LK_LLAMA ? "llama" : "gpt2", c->layers, c->layers == 1 ? "" : "s",
                     c->width, c->context, c->vocab);
    char where[96];
    int ranks = lk_comm_ranks(v->comm), threads = lk_pool_threads(v->c->pool);
    size_t n = 0;
    if (ranks > 1) n = (size_t)snprintf(where, sizeof where, "%d ranks of ", ranks);
    n += (size_t)snprintf(where + n, sizeof where - n, "%d thread%s", threads, threads == 1 ? "" : "s");
    if (ranks > 1) snprintf(where + n, sizeof where - n, " over %s", lk_comm_engine(v->comm));
    lk_progress_line(&v->progress,
                     "batch: %u sequence%s = %llu tokens in %u grain%s, %u at a time; %.2f GFLOP a step; %s kernels, %s",
                     c->sequences, c->sequences == 1 ? "" : "s", (unsigned long long)v->batch_tokens, c->grains,
                     c->grains == 1 ? "" : "s", p->micro_batch, flops / 1e9, lk_math_isa(v->c->math), where);
    lk_progress_line(&v->progress, "memory%s: %s of %s: weights %s, moments %s, gradients %s, activations %s, rest %s",
                     ranks > 1 ? " of rank 0" : "", lk_format_bytes(p->total_bytes, total),
                     lk_format_bytes(p->available_bytes, have), lk_format_bytes(p->weights_bytes, weights),
                     lk_format_bytes(p->moments_bytes, moments), lk_format_bytes(p->gradients_bytes, gradients),
                     lk_format_bytes(p->activations_bytes, activations),
                     lk_format_bytes(p->embedding_bytes + p->batch_bytes + p->scratch_bytes + p->process_bytes, rest));
}

static void show_resumed(void *arg, uint32_t step) {
    struct train_view *v = arg;
    lk_progress_line(&v->progress, "resumed after step %u", step);
}

/* A mean over all steps so far, then over about this many. */
#define MEAN_STEPS 50

/* "  38% of peak". The peak is measured in the fifth of a second before the run; steps that beat it say that others used
 * the machine then, so that no share of it is true. */
static const char *share_of_peak(struct train_view *v, char out[32]) {
    double peak = v->peaks.fma_flops_all, share = peak > 0 ? 100 * v->step_flops / v->recent_seconds / peak : 0;
    v->beaten = v->beaten || share > 100;
    if (!(share > 0) || v->beaten) return "";
    snprintf(out, 32, "  %.0f%% of peak", share);
    return out;
}

/* What a terminal cuts off at its edge comes last. */
static void show_step(void *arg, const struct lk_ledger_row *row, uint32_t steps) {
    struct train_view *v = arg;
    char left[32], share[32], speed[32] = "";
    bool last = row->step == steps;
    if (row->tokens == 0) {
        lk_progress_show(&v->progress, last, "step %u/%u  no targets: no update", row->step, steps);
        return;
    }
    if (v->mean_steps < MEAN_STEPS) v->mean_steps++;
    v->mean_loss += (row->loss - v->mean_loss) / v->mean_steps;
    v->recent_seconds = v->recent_seconds ? 0.9 * v->recent_seconds + 0.1 * row->seconds : row->seconds;
    if (v->recent_seconds > 0)
        snprintf(speed, sizeof speed, "  %.0f tokens/s", (double)v->batch_tokens / v->recent_seconds);
    lk_progress_show(&v->progress, last, "step %u/%u  loss %.4f  mean %.4f  norm %.3g%s%s%s%s%s", row->step, steps,
                     row->loss, v->mean_loss, row->gradient_norm, speed, last ? "" : "  ",
                     last ? "" : lk_format_duration((steps - row->step) * v->recent_seconds, left), last ? "" : " left",
                     v->recent_seconds > 0 ? share_of_peak(v, share) : "");
}

static void show_eval(void *arg, const struct lk_eval_row *row) {
    struct train_view *v = arg;
    if (row->bytes)
        lk_progress_line(&v->progress, "step %u: held-out loss %.4f, %.4f bits a byte", row->step, row->loss,
                         lk_bits_per_byte(row));
    else
        lk_progress_line(&v->progress, "step %u: held-out loss %.4f", row->step, row->loss);
}

static void show_warning(void *arg, const char *message) {
    lk_progress_line(&((struct train_view *)arg)->progress, "warning: %s", message);
}
static int keep_text(void *arg, const char *data, size_t size) {
    return lk_buf_append(arg, data, size);
}

static int sample(struct train_view *v, struct lk_trainer *t, struct lk_buf *text, struct lk_err *err) {
    const struct lk_run *run = lk_trainer_about(t);
    struct lk_tokenizer *tokenizer = NULL;
    struct lk_generation g;
    struct lk_generate_options o = {.sampling = {.temperature = 0.8, .top_p = 0.95, .seed = run->config.seed},
                                    .max_tokens = 64,
                                    .text = keep_text,
                                    .arg = text};
    int code = lk_tokenizer_load(v->c->store, &run->tokenizer, &tokenizer, err);
    if (!code)
        code = lk_generate(v->c->math, &run->layout, lk_trainer_state(t)->weights, tokenizer, run->config.prompt,
                           strlen(run->config.prompt), &o, &g, err);
    if (!code && g.finish == LK_FINISH_CALLER) code = lk_fail(err, LK_ENOMEM, "no memory for its text");
    lk_tokenizer_free(tokenizer);
    return code;
}

static void show_sample(void *arg, struct lk_trainer *t, uint32_t step) {
    struct train_view *v = arg;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_err err = {0};
    if (sample(v, t, &text, &err))
        lk_progress_line(&v->progress, "warning: no sample at step %u: %s", step, err.message);
    else {
        for (size_t i = 0; i < text.size; i++)
            if ((unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f) text.data[i] = ' ';
        lk_progress_line(&v->progress, "step %u: %s%s", step, lk_trainer_about(t)->config.prompt,
                         text.data ? text.data : "");
    }
    lk_buf_release(&text);
}

struct lk_train_hooks train_view_hooks(struct train_view *v) {
    return (struct lk_train_hooks){.arg = v,
                                   .plan = show_plan,
                                   .resumed = show_resumed,
                                   .step = show_step,
                                   .evaluated = show_eval,
                                   .sample = show_sample,
                                   .warning = show_warning};
}

int train_view_measure(struct train_view *v, struct lk_err *err) {
    int ranks = lk_comm_ranks(v->comm);
    struct lk_peaks *all = lk_calloc((size_t)ranks, sizeof *all);
    size_t *offsets = lk_calloc((size_t)ranks + 1, sizeof *offsets);
    int code = all && offsets ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory to start");
    if ((code = lk_comm_agree(v->comm, "measuring", code, err)) == LK_OK) {
        lk_math_measure(v->c->math, 0.2, &all[lk_comm_rank(v->comm)]);
        for (int k = 0; k <= ranks; k++) offsets[k] = (size_t)k * sizeof *all;
        code = lk_comm_gather_all(v->comm, "measuring", all, offsets, err);
    }
    /* Threads that share cores are measured in turns. */
    double busy = (double)lk_comm_ranks_here(v->comm) * lk_pool_threads(v->c->pool),
           cores = (double)sysconf(_SC_NPROCESSORS_ONLN), share = busy > cores ? cores / busy : 1;
    for (int k = 0; k < ranks && !code; k++) {
        v->peaks.fma_flops_all += all[k].fma_flops_all * share;
        v->peaks.read_bytes_all += all[k].read_bytes_all * share;
    }
    lk_free(all);
    lk_free(offsets);
    return code;
}

/* --- Instead of it --------------------------------------------------------------------------------------- */

int train_show_keys(void) {
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

int train_show_dry_run(const struct cmd_context *c, const struct lk_comm *comm, const struct lk_run_config *config,
                       const struct lk_plan *p, double seconds) {
    char memory[32], have[32], time[32], step[32];
    int ranks = lk_comm_ranks(comm);
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I, s:i, s:i, s:i, s:f, s:f}", "memory_bytes",
                                        (json_int_t)p->total_bytes, "available_bytes", (json_int_t)p->available_bytes,
                                        "moments_bytes", (json_int_t)p->moments_bytes, "ranks", ranks, "micro_batch",
                                        (int)p->micro_batch, "gradient_buffers", (int)p->gradient_buffers, "seconds_a_step",
                                        seconds, "seconds", seconds * config->steps));
    printf("memory  %s of %s%s: %u sequence%s at a time, %u gradient buffer%s\n", lk_format_bytes(p->total_bytes, memory),
           lk_format_bytes(p->available_bytes, have), ranks > 1 ? " in rank 0" : "", p->micro_batch,
           p->micro_batch == 1 ? "" : "s", p->gradient_buffers, p->gradient_buffers == 1 ? "" : "s");
    printf("time    %s for %u steps of %s, evaluations and checkpoints not counted\n",
           lk_format_duration(seconds * config->steps, time), config->steps, lk_format_duration(seconds, step));
    return CMD_OK;
}
