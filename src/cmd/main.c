/* The table of all commands, and the way from argv to one of them. */
#include "cmd.h"

#include "lockstep/base/ini.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

extern const struct cmd cmd_tokenizer_train, cmd_tokenizer_encode, cmd_tokenizer_decode, cmd_tokenizer_import,
    cmd_tokenizer_export, cmd_tokenizer_list, cmd_tokenizer_show, cmd_dataset_build, cmd_dataset_list, cmd_dataset_show,
    cmd_dataset_cat, cmd_dataset_export, cmd_dataset_verify, cmd_model_import, cmd_model_export, cmd_model_quantize,
    cmd_model_list, cmd_model_show, cmd_model_rm, cmd_model_pin, cmd_train, cmd_runs_list, cmd_runs_show, cmd_runs_log,
    cmd_runs_plot, cmd_runs_compare, cmd_runs_rm, cmd_verify, cmd_eval, cmd_generate, cmd_serve_key, cmd_serve_bench,
    cmd_serve, cmd_response_verify, cmd_kv_get, cmd_kv_put, cmd_kv_del, cmd_kv_scan, cmd_kv_import, cmd_kv_export,
    cmd_kv_stats, cmd_kv_check, cmd_kv_copy, cmd_kv_compact, cmd_pin_create, cmd_pin_list, cmd_pin_show, cmd_pin_renew,
    cmd_pin_release, cmd_store_show, cmd_store_move, cmd_kv_bench, cmd_table_create, cmd_table_drop, cmd_table_list,
    cmd_table_families, cmd_table_alter, cmd_table_gc_rule, cmd_table_set, cmd_table_delete, cmd_table_read,
    cmd_table_lookup, cmd_table_count, cmd_table_import, cmd_table_export, cmd_table_pin, cmd_table_diff, cmd_table_digest,
    cmd_table_copy, cmd_table_compact, cmd_table_sample_keys, cmd_table_serve, cmd_doctor, cmd_gc, cmd_version, cmd_help;

const struct cmd *const cmd_table[] = {
    &cmd_tokenizer_train,
    &cmd_tokenizer_encode,
    &cmd_tokenizer_decode,
    &cmd_tokenizer_import,
    &cmd_tokenizer_export,
    &cmd_tokenizer_list,
    &cmd_tokenizer_show,
    &cmd_dataset_build,
    &cmd_dataset_list,
    &cmd_dataset_show,
    &cmd_dataset_cat,
    &cmd_dataset_export,
    &cmd_dataset_verify,
    &cmd_model_import,
    &cmd_model_export,
    &cmd_model_quantize,
    &cmd_model_list,
    &cmd_model_show,
    &cmd_model_rm,
    &cmd_model_pin,
    &cmd_train,
    &cmd_runs_list,
    &cmd_runs_show,
    &cmd_runs_log,
    &cmd_runs_plot,
    &cmd_runs_compare,
    &cmd_runs_rm,
    &cmd_verify,
    &cmd_eval,
    &cmd_generate,
    &cmd_serve_key,
    &cmd_serve_bench,
    &cmd_serve,
    &cmd_response_verify,
    &cmd_kv_get,
    &cmd_kv_put,
    &cmd_kv_del,
    &cmd_kv_scan,
    &cmd_kv_import,
    &cmd_kv_export,
    &cmd_kv_stats,
    &cmd_kv_check,
    &cmd_kv_copy,
    &cmd_kv_compact,
    &cmd_kv_bench,
    &cmd_store_show,
    &cmd_store_move,
    &cmd_pin_create,
    &cmd_pin_list,
    &cmd_pin_show,
    &cmd_pin_renew,
    &cmd_pin_release,
    &cmd_table_create,
    &cmd_table_drop,
    &cmd_table_list,
    &cmd_table_families,
    &cmd_table_alter,
    &cmd_table_gc_rule,
    &cmd_table_set,
    &cmd_table_delete,
    &cmd_table_read,
    &cmd_table_lookup,
    &cmd_table_count,
    &cmd_table_import,
    &cmd_table_export,
    &cmd_table_pin,
    &cmd_table_diff,
    &cmd_table_digest,
    &cmd_table_copy,
    &cmd_table_compact,
    &cmd_table_sample_keys,
    &cmd_table_serve,
    &cmd_doctor,
    &cmd_gc,
    &cmd_version,
    &cmd_help,
    NULL,
};

static bool word_is(const char *word, const char *name, size_t n) {
    return strlen(word) == n && strncmp(word, name, n) == 0;
}

/* The command that argv begins with; *words is how many words it took. */
static const struct cmd *find_command(int argc, char **argv, int *words) {
    for (const struct cmd *const *c = cmd_table; argc > 0 && *c; c++) {
        const char *space = strchr((*c)->name, ' ');
        size_t first = space ? (size_t)(space - (*c)->name) : strlen((*c)->name);
        if (!word_is(argv[0], (*c)->name, first)) continue;
        if (!space) return *words = 1, *c;
        if (argc > 1 && strcmp(argv[1], space + 1) == 0) return *words = 2, *c;
    }
    return NULL;
}

static int no_command(int argc, char **argv) {
    const char *names[sizeof cmd_table / sizeof *cmd_table];
    size_t count = 0;
    char given[128];
    bool noun = false;
    snprintf(given, sizeof given, "%s%s%s", argv[0], argc > 1 && argv[1][0] != '-' ? " " : "",
             argc > 1 && argv[1][0] != '-' ? argv[1] : "");
    for (const struct cmd *const *c = cmd_table; *c; c++) {
        names[count++] = (*c)->name;
        size_t n = strlen(argv[0]);
        noun |= strncmp((*c)->name, argv[0], n) == 0 && (*c)->name[n] == ' ';
    }
    const char *near = lk_nearest(given, names, count);
    if (noun && (argc == 1 || argv[1][0] == '-')) { /* `lockstep runs`: show its verbs */
        for (const struct cmd *const *c = cmd_table; *c; c++)
            if (strncmp((*c)->name, argv[0], strlen(argv[0])) == 0)
                printf("  lockstep %s%s%s\n", (*c)->name, *(*c)->arguments ? " " : "", (*c)->arguments);
        return argc > 1 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) ? CMD_OK : CMD_USAGE;
    }
    fprintf(stderr, "lockstep: no command \"%s\"%s%s%s `lockstep help` lists them\n", given,
            near ? "; did you mean \"" : ";", near ? near : "", near ? "\"?" : "");
    return CMD_USAGE;
}

/* Whoever starts us with a closed standard stream must not get its number for a file of the store: a message would be
 * written into that. The stand-ins fail on use. */
static void guard_streams(void) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd) _Exit(CMD_FAILED);
}

/* Files of the store are mapped; one that somebody cut short, or a disk that cannot be read, shows only on touch. */
static void cut_short(int signal_number) {
    static const char message[] =
        "\nlockstep: a file of the store is shorter than it was written, or its disk cannot be read: "
        "`lockstep dataset verify` finds such a dataset; take the rest from a copy\n";
    (void)signal_number;
    ssize_t ignored = write(2, message, sizeof message - 1);
    (void)ignored;
    _exit(CMD_FAILED);
}

static int close_output(int code) {
    if (!fflush(stdout) && !ferror(stdout)) return code;
    fprintf(stderr, "lockstep: cannot write to standard output: %s\n", strerror(errno));
    return CMD_FAILED;
}

static int command(int argc, char **argv) {
    int words = 0;
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is an error to report, not a death */
    if (argc == 1 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        cmd_print_all(stdout);
        return argc == 1 ? CMD_USAGE : CMD_OK;
    }
    static char version[] = "version";
    if (strcmp(argv[1], "--version") == 0) argv[1] = version;
    if (strcmp(argv[1], "help") == 0 && argc == 2) {
        cmd_print_all(stdout);
        return CMD_OK;
    }
    if (strcmp(argv[1], "help") == 0 && strcmp(argv[2], "--markdown") != 0 && argv[2][0] != '-') { /* help COMMAND */
        const struct cmd *about = find_command(argc - 2, argv + 2, &words);
        if (!about) return no_command(argc - 2, argv + 2);
        cmd_print_help(about, stdout);
        return CMD_OK;
    }
    const struct cmd *cmd = find_command(argc - 1, argv + 1, &words);
    if (!cmd) return no_command(argc - 1, argv + 1);
    static struct cmd_context c;
    c.cmd = cmd;
    int code = cmd_parse(&c, argc - 1 - words, argv + 1 + words);
    if (code) return code;
    if (c.help) {
        cmd_print_help(cmd, stdout);
        return CMD_OK;
    }
    code = cmd->run(&c);
    lk_math_close(c.math);
    lk_pool_close(c.pool);
    lk_store_close(c.store);
    return code;
}

/* --- Enough stack ---------------------------------------------------------------------------------------- */

struct whole {
    int argc, code;
    char **argv;
    sigset_t signals;
};

static void *run_whole(void *arg) {
    struct whole *w = arg;
    pthread_sigmask(SIG_SETMASK, &w->signals, NULL);
    w->code = command(w->argc, w->argv);
    return NULL;
}

/* Where `ulimit -s` leaves the first thread less than commands need, it is raised as far as it may be, for mpirun too; else
 * another thread does the work and gets the signals. */
static int with_enough_stack(int argc, char **argv) {
    struct whole w = {.argc = argc, .argv = argv};
    struct rlimit stack;
    pthread_t thread;
    sigset_t all;
    if (getrlimit(RLIMIT_STACK, &stack) || stack.rlim_cur >= LK_STACK_BYTES) return command(argc, argv);
    struct rlimit raised = {.rlim_cur = stack.rlim_max < 4 * LK_STACK_BYTES ? stack.rlim_max : 4 * LK_STACK_BYTES,
                            .rlim_max = stack.rlim_max};
    if (raised.rlim_cur >= LK_STACK_BYTES && setrlimit(RLIMIT_STACK, &raised) == 0) return command(argc, argv);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &w.signals);
    int failed = lk_thread_start(&thread, run_whole, &w);
    if (failed) {
        fprintf(stderr,
                "lockstep: the stack of %llu bytes is too small (`ulimit -s`), and no thread with more can start: %s\n",
                (unsigned long long)stack.rlim_cur, strerror(failed));
        return CMD_FAILED;
    }
    pthread_join(thread, NULL);
    return w.code;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_DFL);
    signal(SIGBUS, cut_short);
    guard_streams();
    return close_output(with_enough_stack(argc, argv));
}
