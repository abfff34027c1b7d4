/* lockstep train */
#include "train_view.h"

#include "lockstep/cluster/comm.h"
#include "lockstep/cluster/launch.h"
#include "lockstep/train/train.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *resume, *from, *on;
    bool dry, profile, keys;
} wanted;

/* Whoever read our messages may be gone (`train 2>&1 | head`): that is a stop like Ctrl-C. mpirun, which would be the first
 * to write and die of it, is so asked to stop before. */
static bool stop(void *arg) {
    struct pollfd messages = {.fd = STDERR_FILENO};
    (void)arg;
    return cmd_interrupted() || (poll(&messages, 1, 0) > 0 && messages.revents & POLLERR);
}

/* --- Several ranks --------------------------------------------------------------------------------------- */

/* The command of every rank: this one without --on. argv has room for all that can be added. */
struct rank_command {
    char **argv, path[4096], threads[16], name[LK_NAME_MAX + 16];
    int count;
};
#define FIXED_WORDS 20
static void add(struct rank_command *r, const char *word) {
    r->argv[r->count++] = (char *)(uintptr_t)word; /* exec changes none */
}
static int rank_command(const struct cmd_context *c, const char *name, int threads, struct rank_command *r,
                        struct lk_err *err) {
    ssize_t n = readlink("/proc/self/exe", r->path, sizeof r->path - 1);
    if (n <= 0) return lk_fail_errno(err, "cannot find this program's own file through /proc/self/exe");
    r->argv = lk_calloc((size_t)c->argument_count + FIXED_WORDS, sizeof *r->argv);
    if (!r->argv) return lk_fail(err, LK_ENOMEM, "no memory to start ranks");
    /* A password goes to ranks by their environment, which only their user can read. */
    char *shown = lk_kv_shown(c->store_url);
    bool hidden = !shown || strcmp(shown, c->store_url) != 0;
    lk_free(shown);
    if (hidden && setenv("LOCKSTEP_STORE", c->store_url, 1)) return lk_fail_errno(err, "cannot set LOCKSTEP_STORE");
    snprintf(r->threads, sizeof r->threads, "%d", threads);
    const char *const words[] = {r->path,
                                 "train",
                                 "--threads",
                                 r->threads,
                                 hidden ? NULL : "--store",
                                 hidden ? NULL : c->store_url,
                                 c->blobs_url ? "--blobs" : NULL,
                                 c->blobs_url,
                                 wanted.resume ? "--resume" : NULL,
                                 wanted.resume,
                                 wanted.from ? "--from" : NULL,
                                 wanted.from,
                                 c->json ? "--json" : NULL,
                                 wanted.dry ? "--dry-run" : NULL,
                                 wanted.profile ? "--profile" : NULL,
                                 "--"};
    _Static_assert(sizeof words / sizeof *words < FIXED_WORDS, "argv has room");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i]) add(r, words[i]);
    for (int i = 0; i < c->argument_count; i++) add(r, c->arguments[i]);
    if (wanted.from) { /* a name that was chosen is chosen once */
        snprintf(r->name, sizeof r->name, "run.name=%s", name);
        add(r, r->name);
    }
    return LK_OK;
}

/* mpirun does not say when it cannot write; so what ranks print goes to a file, and from there we print it. */
struct detour {
    FILE *file;
    int out; /* standard output meanwhile; -1: no detour */
};
static int detour_begin(struct detour *d, struct lk_err *err) {
    fflush(stdout);
    d->out = -1;
    if (!(d->file = tmpfile())) return lk_fail_errno(err, "cannot make a temporary file");
    if ((d->out = dup(STDOUT_FILENO)) >= 0 && dup2(fileno(d->file), STDOUT_FILENO) >= 0) return LK_OK;
    return lk_fail_errno(err, "cannot redirect standard output");
}
static void detour_end(struct detour *d) {
    char piece[4096];
    size_t n;
    if (d->out >= 0) dup2(d->out, STDOUT_FILENO);
    if (d->out >= 0) close(d->out);
    if (!d->file) return;
    rewind(d->file);
    while ((n = fread(piece, 1, sizeof piece, d->file))) fwrite(piece, 1, n, stdout);
    fclose(d->file);
}

/* Whether there is a run to go on with: ranks may die before they make its record. */
static bool has_begun(const struct cmd_context *c, const char *name) {
    struct lk_store *store = NULL;
    json_t *record = NULL;
    bool found =
        !lk_store_open_at(c->store_url, c->blobs_url, LK_READ, &store, NULL) && !lk_run_get(store, name, &record, NULL);
    json_decref(record);
    lk_store_close(store);
    return found;
}

/* Starts the ranks, waits, shows the run. */
static int launch(struct cmd_context *c, struct lk_launcher *place, const char *name) {
    struct rank_command r = {.argv = NULL};
    struct lk_err err = {0};
    int ranks = lk_launch_ranks(place), share = lk_threads_default() / ranks, status = -1;
    int threads = c->threads ? (int)c->threads : share ? share : 1;
    int code = rank_command(c, name, threads, &r, &err);
    struct lk_launch_spec spec = {.name = name, .argv = r.argv, .ranks = ranks, .threads = threads};
    cmd_catch_signals();
    cmd_catch_closed_pipe();
    struct detour d = {.out = -1};
    if (!code && wanted.dry) code = detour_begin(&d, &err);
    if (!code) code = lk_launch_run(place, &spec, stop, NULL, &status, &err);
    detour_end(&d);
    lk_free(r.argv);
    if (!code) {
        if (status || wanted.dry) return status ? CMD_FAILED : CMD_OK;
        return cmd_open_store(c, LK_READ) ? CMD_FAILED : cmd_show_run(c, name);
    }
    if (status < 0 || wanted.dry || !has_begun(c, name)) return cmd_fail(&err); /* nothing that could go on */
    fprintf(stderr, "lockstep: %s; go on with `lockstep train --resume %s --on local:N`, any N\n", err.message, name);
    return CMD_FAILED;
}

/* --- The command ----------------------------------------------------------------------------------------- */

/* How many arguments are no keys. */
static int files(void) {
    return wanted.from ? 0 : 1;
}

/* The parent's record is in the store; c->store stays as it was, since the ranks that we may start open their own. */
static int read_child(struct cmd_context *c, const struct lk_ini *keys, struct lk_run_config *out, bool *changed,
                      struct lk_err *err) {
    struct lk_store *store = c->store;
    int code = store ? LK_OK : lk_store_open_at(c->store_url, c->blobs_url, LK_READ, &store, err);
    if (!code) code = lk_run_config_child(store, wanted.from, keys, out, changed, err);
    if (store != c->store) lk_store_close(store);
    return code;
}
/* changed: whether a child has a key that differs from its parent's. */
static int read_config(struct cmd_context *c, struct lk_run_config *out, bool *changed, struct lk_err *err) {
    struct lk_ini ini = {0};
    int code = wanted.from ? LK_OK : lk_ini_read(c->arguments[0], &ini, err);
    for (int i = files(); i < c->argument_count && !code; i++) code = lk_ini_override(&ini, c->arguments[i], err);
    if (!code) code = wanted.from ? read_child(c, &ini, out, changed, err) : lk_run_config_read(&ini, out, err);
    lk_ini_release(&ini);
    return code;
}

/* Perhaps a key was forgotten. */
static void note_same(struct train_view *v, const struct lk_run_config *config) {
    const char *at = strchr(config->from, '@');
    bool anew = !config->from[0] || (at && strcmp(at, "@0") == 0);
    lk_progress_line(&v->progress, "note: no key differs from those of run %s: %s %s", config->parent, config->name,
                     anew ? "repeats it" : "goes on from it for as many steps, by the same schedule");
}

/* What is impossible in the whole is no line's fault: it is that of a key of the command line which the message names, else
 * of the file, or of both together. [run] says nothing that could be impossible with something else unless it is named. */
static void name_config(struct cmd_context *c, int code, struct lk_err *err) {
    bool named = false, both = false;
    if (code != LK_EINVAL || wanted.resume) return;
    for (int i = files(); i < c->argument_count; i++) {
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(c->arguments[i], "="), c->arguments[i]);
        const char *at = strstr(err->message, key);
        char behind = at ? at[strlen(key)] : '_';
        named |= behind != '_' && (behind < 'a' || behind > 'z');
        both |= strncmp(key, "run.", 4) != 0;
    }
    if (named)
        lk_fail_prefix(err, code, "on the command line");
    else
        lk_fail_prefix(err, code, "%s%s%s", wanted.from ? "--from " : "", wanted.from ? wanted.from : c->arguments[0],
                       both ? " and the command line" : "");
}

/* What every rank opens. Others than rank 0 leave the database alone. */
static int open_rank(struct cmd_context *c, struct lk_comm *comm, struct lk_err *err) {
    int code = lk_pool_open(c->threads ? (int)c->threads : lk_threads_default(), &c->pool, err);
    if (!code) code = lk_math_open(c->pool, NULL, &c->math, err);
    if (!code && wanted.profile) code = lk_math_profile(c->math, err);
    if (code) return code;
    code = lk_comm_rank(comm) == 0
               ? lk_store_open_at(c->store_url, c->blobs_url, wanted.dry ? LK_READ : LK_WRITE, &c->store, err)
               : lk_store_open_blobs(c->store_url, c->blobs_url, &c->store, err);
    if (!code) lk_blobs_use_threads(c->store->blobs, lk_pool_threads(c->pool));
    return code;
}

static int train_rank(struct train_view *v, const struct lk_run_config *config, struct lk_err *err) {
    struct cmd_context *c = v->c;
    struct lk_trainer *t = NULL;
    struct lk_train_hooks hooks = train_view_hooks(v);
    hooks.stop = stop;
    int code = train_view_measure(v, err);
    if (code) return code;
    hooks.peaks = v->peaks;
    if (lk_comm_rank(v->comm) > 0)
        code = lk_trainer_join(c->store, c->math, v->comm, &hooks, &t, err);
    else if (wanted.resume)
        code = lk_trainer_resume(c->store, c->math, v->comm, wanted.resume, &hooks, &t, err);
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
static int run_rank(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_run_config config;
    struct lk_plan p;
    struct train_view v = {.c = c};
    struct lk_train_hooks hooks = train_view_hooks(&v);
    double seconds = 0;
    lk_progress_init(&v.progress, stderr);
    cmd_catch_signals(); /* whoever started several ranks may ask them to stop as soon as the comm is open */
    cmd_catch_closed_pipe();
    int rank = 0, code = lk_comm_open(&v.comm, &err);
    if (code) return cmd_fail(&err); /* perhaps only this rank knows */
    rank = lk_comm_rank(v.comm);
    bool dry = wanted.dry;
    bool changed = true;
    if (rank == 0 && !wanted.resume) code = read_config(c, &config, &changed, &err);
    if (!code && !changed) note_same(&v, &config);
    if (!code) code = open_rank(c, v.comm, &err);
    code = lk_comm_agree(v.comm, "starting", code, &err);
    if (!code && dry) {
        code = lk_train_dry_run(c->store, c->math, v.comm, rank == 0 ? &config : NULL, &hooks, &p, &seconds, &err);
        name_config(c, code, &err);
    } else if (!code)
        code = train_rank(&v, &config, &err);
    if (code && (rank == 0 || lk_comm_broken())) cmd_fail(&err); /* of a broken comm only this rank knows */
    int result = code ? CMD_FAILED : CMD_OK;
    bool told = getenv("LOCKSTEP_LAUNCH") != NULL; /* by who started us: mpirun would not tell that it cannot write */
    if (!code && rank == 0 && (dry || !told))
        result = dry ? train_show_dry_run(c, v.comm, &config, &p, seconds) : cmd_show_run(c, v.name);
    fflush(NULL);
    lk_comm_close(v.comm);
    return result;
}

/* Keys beside --resume: what was meant is a run of its own. */
static int with_resume(struct cmd_context *c) {
    if (strchr(c->arguments[0], '='))
        return cmd_usage_error(
            c,
            "--resume goes on with a run as it is and takes no keys: `lockstep train --from %s %.200s%s` "
            "makes a new run that goes on with other keys",
            wanted.resume, c->arguments[0], c->argument_count > 1 ? " ..." : "");
    return cmd_usage_error(c, "--resume takes the run's configuration as it is; give no CONFIG.ini and no keys");
}

static int train(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_run_config config;
    struct lk_launcher *place = NULL;
    const char *resume = wanted.resume;
    if (wanted.keys) return train_show_keys();
    if (resume && wanted.from) return cmd_usage_error(c, "--resume goes on with a run, --from makes another: give one");
    if (resume && c->argument_count) return with_resume(c);
    if (wanted.from && c->argument_count && !strchr(c->arguments[0], '='))
        return cmd_usage_error(c, "--from %s takes the configuration of that run: give section.key=value, not %.200s",
                               wanted.from, c->arguments[0]);
    if (!resume && !wanted.from && !c->argument_count)
        return cmd_usage_error(c, "CONFIG.ini, --resume RUN or --from RUN is missing");
    if (resume && wanted.dry) return cmd_usage_error(c, "--dry-run goes with CONFIG.ini or --from RUN");
    if (wanted.on && lk_comm_launched(NULL, NULL))
        return cmd_usage_error(c, "--on starts ranks by itself: give it without mpirun, or mpirun without it");
    if (wanted.on && lk_launch_open(wanted.on, &place, &err)) return cmd_usage_error(c, "--on %s", err.message);
    int code;
    if (!place || lk_launch_ranks(place) == 1)
        code = run_rank(c);                                  /* needs nobody to start it */
    else if (!resume && read_config(c, &config, NULL, &err)) /* before anything is started */
        code = cmd_fail(&err);
    else
        code = launch(c, place, resume ? resume : config.name);
    lk_launch_close(place);
    return code;
}
const struct cmd cmd_train = {
    "train",
    "CONFIG.ini [section.key=value]...",
    0,
    -1,
    "Train a model; the result depends on configuration, data and seed only.",
    (const struct cmd_option[]){
        CMD_STRING("--resume", "RUN", &wanted.resume, NULL, "go on with a stopped or killed run"),
        CMD_STRING("--from", "RUN[@STEP]", &wanted.from, NULL, "a new run with that one's configuration and state"),
        CMD_STRING("--on", "local:N", &wanted.on, NULL, "as N ranks (processes) on this machine; --threads is a rank's"),
        CMD_FLAG("--dry-run", &wanted.dry, "print memory and time, store nothing"),
        CMD_FLAG("--profile", &wanted.profile, "show where the time goes, by kernel; `runs show` has it afterwards"),
        CMD_FLAG("--keys", &wanted.keys, "list all keys of CONFIG.ini with their defaults"), CMD_END},
    "Ctrl-C saves and leaves; a second one leaves at once. Any number of threads and ranks, any instruction set\n"
    "(LOCKSTEP_ISA=ref|blocked|avx2|avx512|neon), any kill and resume give the same bits.\n"
    "\n"
    "`train --from RUN[@STEP] section.key=value...` needs no file: a child of RUN has its configuration with the keys "
    "that\n"
    "you give, and begins with its newest checkpoint (or that of STEP; RUN@best: the best one) with moments and order of\n"
    "samples, or without them by model.optimizer=fresh. run.steps counts from the child's beginning and is the parent's "
    "by\n"
    "default; warmup, decay and intervals that were defaults follow it. RUN@0 begins anew, as RUN began. Without run.name\n"
    "the child is called RUN-2, RUN-3, ...\n"
    "\n"
    "LOCKSTEP_MEMORY_BYTES=N makes the memory plan use no more than that.\n"
    "\n"
    "`mpirun -n N lockstep train ...` works as well, on several machines too if they see the same store; with\n"
    "LOCKSTEP_SHARED_MEMORY=no ranks of one machine exchange messages as if they were on several.",
    train};
