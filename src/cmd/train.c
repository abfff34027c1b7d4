/* lockstep train */
#include "cmd.h"

#include "lockstep/cluster/comm.h"
#include "lockstep/math/measure.h"
#include "lockstep/serve/generate.h"
#include "lockstep/train/train.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *resume;
    int ranks; /* of --on; 0: not given */
    bool dry, profile, keys;
} wanted;

struct view {
    struct cmd_context *c;
    struct lk_comm *comm;
    struct lk_progress progress;
    double step_flops;
    struct lk_peaks peaks; /* of all ranks together */
    uint64_t batch_tokens;
    double recent_seconds; /* smoothed seconds a step */
    uint32_t first;
    double eval_loss;
    bool has_eval;
    char name[LK_NAME_MAX + 1];
};

/* --- What is shown while it runs ------------------------------------------------------------------------- */

static void show_plan(void *arg, const struct lk_run_config *c, const struct lk_layout *layout, const struct lk_plan *p) {
    struct view *v = arg;
    char total[32], weights[32], moments[32], gradients[32], activations[32], rest[32], have[32];
    double flops = 3 * lk_model_flops(&layout->config, c->sequences, lk_run_config_context(c));
    v->step_flops = flops;
    v->batch_tokens = (uint64_t)c->sequences * lk_run_config_context(c);
    lk_progress_line(&v->progress, "model: %zu parameters, %s, %u layer%s of width %u, context %u, vocabulary %u",
                     layout->parameters, c->family == LK_LLAMA ? "llama" : "gpt2", c->layers, c->layers == 1 ? "" : "s",
                     c->width, c->context, c->vocab);
    char where[96];
    int ranks = lk_comm_ranks(v->comm), threads = lk_pool_threads(v->c->pool);
    snprintf(where, sizeof where, "%d thread%s", threads, threads == 1 ? "" : "s");
    if (ranks > 1)
        snprintf(where, sizeof where, "%d ranks of %d thread%s over %s", ranks, threads, threads == 1 ? "" : "s",
                 lk_comm_engine(v->comm));
    lk_progress_line(&v->progress,
                     "batch: %u sequences = %llu tokens in %u grains, %u at a time; %.2f GFLOP a step; %s kernels, %s",
                     c->sequences, (unsigned long long)v->batch_tokens, c->grains, p->micro_batch, flops / 1e9,
                     lk_math_isa(v->c->math), where);
    lk_progress_line(&v->progress, "memory%s: %s of %s: weights %s, moments %s, gradients %s, activations %s, rest %s",
                     ranks > 1 ? " of rank 0" : "", lk_format_bytes(p->total_bytes, total),
                     lk_format_bytes(p->available_bytes, have), lk_format_bytes(p->weights_bytes, weights),
                     lk_format_bytes(p->moments_bytes, moments), lk_format_bytes(p->gradients_bytes, gradients),
                     lk_format_bytes(p->activations_bytes, activations),
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
                     v->peaks.fma_flops_all > 0 ? 100 * v->step_flops / v->recent_seconds / v->peaks.fma_flops_all : 0,
                     last ? "" : "  ", last ? "" : lk_format_duration((steps - row->step) * v->recent_seconds, left),
                     last ? "" : " left");
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

/* --- Ranks on this machine ------------------------------------------------------------------------------- */

/* "local:N" */
static int take_on(const struct cmd_context *c, const struct cmd_option *o, const char *on) {
    char *end;
    long n = strncmp(on, "local:", 6) == 0 ? strtol(on + 6, &end, 10) : 0;
    if (n < 1 || n > LK_RANKS_MAX || on[6] < '0' || on[6] > '9' || *end)
        return cmd_usage_error(c, "--on %s: what is supported is local:N, N ranks on this machine, 1 to %d", on,
                               LK_RANKS_MAX);
    *(int *)o->any = (int)n;
    return CMD_OK;
}

/* The command of every rank: this one without --on. strings: what is freed afterwards. */
struct rank_command {
    char *argv[64 + CMD_MANY], threads[16], path[4096];
    int count;
};
static void add(struct rank_command *r, const char *word) {
    LK_ASSERT(r->count + 1 < (int)(sizeof r->argv / sizeof *r->argv));
    r->argv[r->count++] = (char *)word;
}
static int rank_command(struct cmd_context *c, int ranks, struct rank_command *r) {
    int threads = (int)c->threads;
    ssize_t n = readlink("/proc/self/exe", r->path, sizeof r->path - 1);
    if (!threads) threads = lk_threads_default() / ranks;
    if (!threads) threads = 1;
    if (c->argument_count > CMD_MANY) return cmd_usage_error(c, "--on takes at most %d arguments", CMD_MANY);
    if (n <= 0) {
        fprintf(stderr, "lockstep: cannot find this program's own file through /proc/self/exe\n");
        return CMD_FAILED;
    }
    r->path[n] = 0;
    snprintf(r->threads, sizeof r->threads, "%d", threads);
    add(r, r->path);
    add(r, "train");
    add(r, "--threads");
    add(r, r->threads);
    add(r, "--store");
    add(r, c->store_url);
    if (wanted.resume) {
        add(r, "--resume");
        add(r, wanted.resume);
    }
    if (c->json) add(r, "--json");
    if (wanted.dry) add(r, "--dry-run");
    if (wanted.profile) add(r, "--profile");
    add(r, "--");
    for (int i = 0; i < c->argument_count; i++) add(r, c->arguments[i]);
    r->argv[r->count] = NULL;
    return CMD_OK;
}

/* Starts the ranks, waits, shows the run. */
static int launch(struct cmd_context *c, int ranks, const char *name) {
    struct rank_command r = {.count = 0};
    struct lk_err err = {0};
    int status = 0, code = rank_command(c, ranks, &r);
    if (code) return code;
    cmd_catch_signals();
    struct lk_launch l = {.ranks = ranks, .argv = r.argv, .stop = stop};
    if ((code = lk_launch_local(&l, &status, &err)) == LK_OK) {
        if (status || wanted.dry) return status ? CMD_FAILED : CMD_OK;
        return cmd_open_store(c, LK_READ) ? CMD_FAILED : cmd_show_run(c, name);
    }
    if (status < 0 || wanted.dry) return cmd_fail(&err); /* nothing ran, or nothing that could go on */
    fprintf(stderr, "lockstep: %s; go on with `lockstep train --resume %s --on local:N`, any N\n", err.message, name);
    return CMD_FAILED;
}

/* --- The command ----------------------------------------------------------------------------------------- */

static int read_config(struct cmd_context *c, struct lk_run_config *out, struct lk_err *err) {
    struct lk_ini ini = {0};
    int code = lk_ini_read(c->arguments[0], &ini, err);
    for (int i = 1; i < c->argument_count && !code; i++) code = lk_ini_override(&ini, c->arguments[i], err);
    if (!code) code = lk_run_config_read(&ini, out, err);
    lk_ini_release(&ini);
    return code;
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

static int print_dry_run(struct cmd_context *c, struct lk_comm *comm, const struct lk_run_config *config,
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

/* What is impossible in the whole is no line's fault, but the file's. */
static void name_config(struct cmd_context *c, int code, struct lk_err *err) {
    if (code == LK_EINVAL && c->argument_count) lk_fail_prefix(err, code, "%s", c->arguments[0]);
}

/* What every rank opens. Others than rank 0 leave the database alone. */
static int open_rank(struct cmd_context *c, struct lk_comm *comm, struct lk_err *err) {
    int code = lk_pool_open(c->threads ? (int)c->threads : lk_threads_default(), &c->pool, err);
    if (!code) code = lk_math_open(c->pool, NULL, &c->math, err);
    if (!code && wanted.profile) code = lk_math_profile(c->math, err);
    if (code) return code;
    code = lk_comm_rank(comm) == 0 ? lk_store_open(c->store_url, wanted.dry ? LK_READ : LK_WRITE, &c->store, err)
                                   : lk_store_open_blobs(c->store_url, &c->store, err);
    if (!code) lk_blobs_use_threads(c->store->blobs, lk_pool_threads(c->pool));
    return code;
}

/* The peaks of all ranks at once. */
static int measure_peaks(struct view *v, struct lk_err *err) {
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

static int train_rank(struct view *v, const char *resume, const struct lk_run_config *config, struct lk_err *err) {
    struct cmd_context *c = v->c;
    struct lk_trainer *t = NULL;
    struct lk_train_hooks hooks = {.arg = v,
                                   .plan = show_plan,
                                   .resumed = show_resumed,
                                   .step = show_step,
                                   .evaluated = show_eval,
                                   .sample = show_sample,
                                   .warning = show_warning,
                                   .stop = stop};
    int code = measure_peaks(v, err);
    if (code) return code;
    hooks.peaks = v->peaks;
    if (lk_comm_rank(v->comm) > 0)
        code = lk_trainer_join(c->store, c->math, v->comm, &hooks, &t, err);
    else if (resume)
        code = lk_trainer_resume(c->store, c->math, v->comm, resume, &hooks, &t, err);
    else
        code = lk_trainer_create(c->store, c->math, v->comm, config, &hooks, &t, err);
    if (code) {
        name_config(c, code, err);
        return code;
    }
    snprintf(v->name, sizeof v->name, "%s", lk_trainer_about(t)->name);
    code = lk_trainer_run(t, err);
    lk_progress_end(&v->progress);
    lk_trainer_free(t);
    return code;
}

/* This process's part, alone or as one of several ranks: rank 0 speaks for all. */
static int run_rank(struct cmd_context *c, const char *resume) {
    struct lk_err err = {0};
    struct lk_run_config config;
    struct lk_plan p;
    struct view v = {.c = c};
    struct lk_train_hooks hooks = {.arg = &v, .warning = show_warning};
    double seconds = 0;
    lk_progress_init(&v.progress, stderr);
    cmd_catch_signals(); /* whoever started several ranks may ask them to stop as soon as the comm is open */
    int rank = 0, code = lk_comm_open(&v.comm, &err);
    if (code) return cmd_fail(&err); /* perhaps only this rank knows */
    rank = lk_comm_rank(v.comm);
    bool dry = wanted.dry;
    if (rank == 0 && !resume) code = read_config(c, &config, &err);
    if (!code) code = open_rank(c, v.comm, &err);
    code = lk_comm_agree(v.comm, "starting", code, &err);
    if (!code && dry) {
        code = lk_train_dry_run(c->store, c->math, v.comm, rank == 0 ? &config : NULL, &hooks, &p, &seconds, &err);
        name_config(c, code, &err);
    } else if (!code)
        code = train_rank(&v, resume, &config, &err);
    if (code && (rank == 0 || lk_comm_broken())) cmd_fail(&err); /* of a broken comm only this rank knows */
    int result = code ? CMD_FAILED : CMD_OK;
    bool told = getenv("LOCKSTEP_LAUNCH") != NULL; /* by who started us: mpirun would not tell that it cannot write */
    if (!code && rank == 0 && (dry || !told))
        result = dry ? print_dry_run(c, v.comm, &config, &p, seconds) : cmd_show_run(c, v.name);
    fflush(NULL);
    lk_comm_close(v.comm);
    return result;
}

static int train(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_run_config config;
    const char *resume = wanted.resume;
    int ranks = wanted.ranks;
    if (wanted.keys) return print_keys();
    if (resume && c->argument_count)
        return cmd_usage_error(c, "--resume takes the run's configuration as it is; give no CONFIG.ini and no keys");
    if (!resume && !c->argument_count) return cmd_usage_error(c, "CONFIG.ini or --resume RUN is missing");
    if (resume && wanted.dry) return cmd_usage_error(c, "--dry-run goes with CONFIG.ini");
    if (ranks && lk_comm_launched(NULL, NULL))
        return cmd_usage_error(c, "--on starts ranks by itself: give it without mpirun, or mpirun without it");
    if (ranks <= 1) return run_rank(c, resume);                          /* one rank needs no mpirun */
    if (!resume && read_config(c, &config, &err)) return cmd_fail(&err); /* before anything is started */
    return launch(c, ranks, resume ? resume : config.name);
}
const struct cmd cmd_train = {
    "train",
    "CONFIG.ini [section.key=value]...",
    0,
    -1,
    "Train a model; the result depends on configuration, data and seed only.",
    (const struct cmd_option[]){
        CMD_STRING("--resume", "RUN", &wanted.resume, NULL, "go on with a stopped or killed run"),
        CMD_CALL("--on", "local:N", &wanted.ranks, take_on, NULL,
                 "as N ranks (processes) on this machine; --threads is a rank's"),
        CMD_FLAG("--dry-run", &wanted.dry, "print memory and time, store nothing"),
        CMD_FLAG("--profile", &wanted.profile, "show where the time goes, by kernel; `runs show` has it afterwards"),
        CMD_FLAG("--keys", &wanted.keys, "list all keys of CONFIG.ini with their defaults"), CMD_END},
    "Ctrl-C saves and leaves; a second one leaves at once. Any number of threads and ranks, any instruction set\n"
    "(LOCKSTEP_ISA=ref|blocked|avx2|avx512|neon), any kill and resume give the same bits. LOCKSTEP_MEMORY_BYTES=N makes the\n"
    "memory plan use no more than that.\n"
    "\n"
    "`mpirun -n N lockstep train ...` works as well, on several machines too if they see the same store; with\n"
    "LOCKSTEP_SHARED_MEMORY=no ranks of one machine exchange messages as if they were on several.",
    train};
