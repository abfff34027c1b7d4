/* What all commands share: opening, failing, names, signals. */
#include "cmd.h"

#include "lockstep/base/file.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cmd_fail(const struct lk_err *err) {
    fprintf(stderr, "lockstep: %s\n", err->message);
    return CMD_FAILED;
}

int cmd_open_store(struct cmd_context *c, enum lk_access how) {
    struct lk_err err = {0};
    if (c->store) return CMD_OK;
    if (lk_store_open(c->store_url, how, &c->store, &err)) return cmd_fail(&err);
    lk_blobs_use_threads(c->store->blobs, (int)c->threads);
    return CMD_OK;
}

int cmd_open_pool(struct cmd_context *c) {
    struct lk_err err = {0};
    if (c->pool) return CMD_OK;
    int threads = c->threads ? (int)c->threads : lk_threads_default();
    return lk_pool_open(threads, &c->pool, &err) ? cmd_fail(&err) : CMD_OK;
}

int cmd_open_math(struct cmd_context *c) {
    struct lk_err err = {0};
    int code = cmd_open_pool(c);
    if (code || c->math) return code;
    return lk_math_open(c->pool, NULL, &c->math, &err) ? cmd_fail(&err) : CMD_OK;
}

int cmd_take_template(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    *(enum lk_chat *)o->any = lk_chat_named(text);
    return lk_chat_named(text) ? CMD_OK : cmd_usage_error(c, "%s %s is none of " LK_CHAT_NAMES, o->name, text);
}

struct lk_source_options cmd_reading;
int cmd_reading_format;

static void show_note(void *arg, const char *text) {
    lk_progress_line(arg, "%s", text);
}
const struct lk_source_options *cmd_reading_options(struct lk_progress *progress) {
    cmd_reading.format = (enum lk_format)cmd_reading_format;
    cmd_reading.note = show_note;
    cmd_reading.note_arg = progress;
    return &cmd_reading;
}

int cmd_take_text(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    static const char names[] = "ntr\\", means[] = "\n\t\r\\";
    char *out = lk_strdup(text); /* lives as long as the command */
    size_t size = 0;
    if (!out) return cmd_usage_error(c, "%s: out of memory", o->name);
    if (!*text) return lk_free(out), cmd_usage_error(c, "%s must not be empty", o->name);
    for (const char *p = text; *p; p++) {
        const char *name = p[0] == '\\' && p[1] ? strchr(names, p[1]) : NULL;
        out[size++] = name ? means[name - names] : *p;
        p += name != NULL;
    }
    *(struct lk_bytes *)o->any = lk_bytes(out, size);
    return CMD_OK;
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
