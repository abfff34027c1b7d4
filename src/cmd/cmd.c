/* Parsing of options, and what all commands share. */
#include "cmd.h"

#include "lockstep/base/file.h"
#include "lockstep/base/ini.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cmd_option cmd_common_options[] = {
    {"--store", "URL", "where everything is kept; LOCKSTEP_STORE or ./lockstep.d by default"},
    {"--threads", "N", "threads to compute with; by default the cores this process may use"},
    {"--json", NULL, "print JSON for machines"},
    {"-h", NULL, "this help"},
    {NULL, NULL, NULL},
};

/* --- Options --------------------------------------------------------------------------------------------- */

static const struct cmd_option *find_option(const struct cmd *cmd, const char *name, size_t n, int *index) {
    int i = 0;
    for (const struct cmd_option *o = cmd_common_options; o->name; o++, i++)
        if (strlen(o->name) == n && strncmp(o->name, name, n) == 0) return *index = i, o;
    for (const struct cmd_option *o = cmd->options; o && o->name; o++, i++)
        if (strlen(o->name) == n && strncmp(o->name, name, n) == 0) return *index = i, o;
    return NULL;
}

static int option_index(const struct cmd_context *c, const char *name) {
    int index = -1;
    const struct cmd_option *o = find_option(c->cmd, name, strlen(name), &index);
    LK_ASSERT(o);
    return index;
}

const char *cmd_value(const struct cmd_context *c, const char *name) {
    int i = option_index(c, name);
    return c->counts[i] ? c->values[i][c->counts[i] - 1] : NULL;
}
bool cmd_flag(const struct cmd_context *c, const char *name) {
    return c->counts[option_index(c, name)] > 0;
}
int cmd_values(const struct cmd_context *c, const char *name, const char *const **out) {
    int i = option_index(c, name);
    *out = c->values[i];
    return c->counts[i];
}
bool cmd_json(const struct cmd_context *c) {
    return cmd_flag(c, "--json");
}

int cmd_usage_error(const struct cmd_context *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "lockstep %s: ", c->cmd->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nusage: lockstep %s %s [options]; `lockstep %s -h` explains them\n", c->cmd->name, c->cmd->arguments,
            c->cmd->name);
    va_end(args);
    return CMD_USAGE;
}

int cmd_u64(const struct cmd_context *c, const char *name, uint64_t low, uint64_t high, uint64_t *out) {
    const char *text = cmd_value(c, name);
    char *end;
    if (!text) return CMD_OK;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno) return cmd_usage_error(c, "%s %s is not a whole number", name, text);
    if (v < low || v > high)
        return cmd_usage_error(c, "%s %s is out of range: %llu .. %llu", name, text, (unsigned long long)low,
                               (unsigned long long)high);
    *out = v;
    return CMD_OK;
}

int cmd_f64(const struct cmd_context *c, const char *name, double low, double high, double *out) {
    const char *text = cmd_value(c, name);
    char *end;
    if (!text) return CMD_OK;
    double v = strtod(text, &end);
    if (end == text || *end || v != v) return cmd_usage_error(c, "%s %s is not a number", name, text);
    if (v < low || v > high) return cmd_usage_error(c, "%s %s is out of range: %g .. %g", name, text, low, high);
    *out = v;
    return CMD_OK;
}

static int unknown_option(const struct cmd_context *c, const char *given, size_t n) {
    const char *names[32];
    size_t count = 0;
    char word[64];
    for (const struct cmd_option *o = cmd_common_options; o->name; o++) names[count++] = o->name;
    for (const struct cmd_option *o = c->cmd->options; o && o->name; o++) names[count++] = o->name;
    snprintf(word, sizeof word, "%.*s", (int)(n > 60 ? 60 : n), given);
    const char *near = lk_nearest(word, names, count);
    return near ? cmd_usage_error(c, "unknown option %s; did you mean %s?", word, near)
                : cmd_usage_error(c, "unknown option %s", word);
}

int cmd_parse(struct cmd_context *c, int argc, char **argv) {
    int n = 0;
    bool options = true;
    static char help[] = "-h";
    for (int i = 0; i < argc; i++) {
        char *a = argv[i];
        if (options && strcmp(a, "--") == 0) {
            options = false;
            continue;
        }
        if (!options || a[0] != '-' || !a[1]) {
            argv[n++] = a; /* positional arguments move to the front */
            continue;
        }
        if (strcmp(a, "--help") == 0) a = argv[i] = help;
        const char *equals = strchr(a, '=');
        size_t length = equals ? (size_t)(equals - a) : strlen(a);
        int index;
        const struct cmd_option *o = find_option(c->cmd, a, length, &index);
        if (!o) return unknown_option(c, a, length);
        if (!o->value && equals) return cmd_usage_error(c, "%s takes no value", o->name);
        if (o->value && !equals && i + 1 == argc)
            return cmd_usage_error(c, "%s needs a value: %s %s", o->name, o->name, o->value);
        if (c->counts[index] == CMD_MANY) return cmd_usage_error(c, "%s is given more than %d times", o->name, CMD_MANY);
        c->values[index][c->counts[index]++] = !o->value ? "" : equals ? equals + 1 : argv[++i];
    }
    c->arguments = argv;
    c->argument_count = n;
    return CMD_OK;
}

/* --- Shared ---------------------------------------------------------------------------------------------- */

int cmd_fail(const struct lk_err *err) {
    fprintf(stderr, "lockstep: %s\n", err->message);
    return CMD_FAILED;
}

const char *cmd_store_url(const struct cmd_context *c) {
    const char *url = cmd_value(c, "--store");
    if (!url) url = getenv("LOCKSTEP_STORE");
    return url && *url ? url : "./lockstep.d";
}

int cmd_open_store(struct cmd_context *c, bool create) {
    struct lk_err err = {0};
    uint64_t threads = 0;
    if (c->store) return CMD_OK;
    if (cmd_u64(c, "--threads", 1, 256, &threads)) return CMD_USAGE;
    if (lk_store_open(cmd_store_url(c), create, &c->store, &err)) return cmd_fail(&err);
    lk_blobs_use_threads(c->store->blobs, (int)threads);
    return CMD_OK;
}

int cmd_open_pool(struct cmd_context *c) {
    struct lk_err err = {0};
    uint64_t threads = 0;
    if (c->pool) return CMD_OK;
    if (cmd_u64(c, "--threads", 1, 256, &threads)) return CMD_USAGE;
    if (!threads) threads = (uint64_t)lk_threads_default();
    return lk_pool_open((int)threads, &c->pool, &err) ? cmd_fail(&err) : CMD_OK;
}

int cmd_open_math(struct cmd_context *c) {
    struct lk_err err = {0};
    int code = cmd_open_pool(c);
    if (code || c->math) return code;
    return lk_math_open(c->pool, NULL, &c->math, &err) ? cmd_fail(&err) : CMD_OK;
}

int cmd_check_name(const struct cmd_context *c, const char *name) {
    if (!name) return cmd_usage_error(c, "--name is missing");
    return lk_name_valid(name)
               ? CMD_OK
               : cmd_usage_error(c, "--name %s: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with . or -", name);
}

int cmd_name_put(struct cmd_context *c, const char *kind, const char *name, const struct lk_root *root,
                 struct lk_err *err) {
    struct lk_root old;
    char hex[LK_ROOT_HEX];
    bool moves = lk_store_name_get(c->store, kind, name, &old, NULL) == LK_OK && !lk_root_equal(&old, root);
    int code = lk_store_name_put(c->store, kind, name, root, err);
    if (!code && moves) fprintf(stderr, "%s %s was root %s before\n", kind, name, lk_root_hex(&old, hex));
    return code;
}

int cmd_print_json(json_t *value) {
    if (!value) {
        fprintf(stderr,
                "lockstep: cannot print the result as JSON: it holds text that is not UTF-8, or memory is out; leave "
                "out --json\n");
        return CMD_FAILED;
    }
    int failed = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) || putchar('\n') == EOF;
    json_decref(value);
    return failed ? CMD_FAILED : CMD_OK;
}

int cmd_read_input(const char *path, struct lk_buf *out, struct lk_err *err) {
    return lk_file_read(!path || strcmp(path, "-") == 0 ? "/dev/stdin" : path, SIZE_MAX / 2, out, err);
}

static volatile sig_atomic_t interrupted;
static void on_signal(int signal_number) {
    if (interrupted) _exit(128 + signal_number);
    interrupted = 1;
}
void cmd_catch_signals(void) {
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);  /* the terminal or the connection is gone */
    sigaction(SIGUSR1, &a, NULL); /* from whoever started several ranks: the one that mpirun passes on to them */
}
bool cmd_interrupted(void) {
    return interrupted;
}
