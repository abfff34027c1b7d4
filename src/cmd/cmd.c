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
    if (lk_store_open_at(c->store_url, c->blobs_url, how, &c->store, &err)) return cmd_fail(&err);
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

json_t *cmd_json_number(double x) {
    return x - x == 0 ? json_real(x) : json_null();
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

/* How many bytes at p are one character of UTF-8; 0: none is there. */
static size_t character(const unsigned char *p, size_t size) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    if (n < 2 || n > size) return n > size ? 0 : n;
    uint32_t code = *p & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2) return 0;
        code = code << 6 | (p[i] & 63);
    }
    return code < least[n] || code > 0x10ffff || code >> 11 == 0x1b ? 0 : n;
}

json_t *cmd_json_text(const char *data, size_t size, json_t **bytes) {
    struct lk_buf text = LK_BUF_INIT, hex = LK_BUF_INIT;
    bool whole = true;
    int code = 0;
    for (size_t i = 0, n; i < size && !code; i += n ? n : 1) {
        n = character((const unsigned char *)data + i, size - i);
        whole = whole && n;
        code = lk_buf_append(&text, n ? data + i : "\xef\xbf\xbd", n ? n : 3);
    }
    for (size_t i = 0; i < size && !whole && bytes && !code; i++)
        code = lk_buf_printf(&hex, "%02x", (unsigned char)data[i]);
    json_t *out = code ? NULL : json_stringn(text.size ? text.data : "", text.size);
    if (bytes) *bytes = whole || code ? json_null() : json_stringn(hex.data, hex.size);
    lk_buf_release(&text);
    lk_buf_release(&hex);
    return out;
}

int cmd_read_input(const char *path, struct lk_buf *out, struct lk_err *err) {
    return lk_file_read(!path || strcmp(path, "-") == 0 ? "/dev/stdin" : path, SIZE_MAX / 2, out, err);
}

static volatile sig_atomic_t interrupted;
static void on_signal(int signal_number) {
    if (interrupted) _exit(128 + signal_number);
    interrupted = 1;
}
/* A reader of our output is gone: work that can be resumed ends in good order. Every further write brings another. */
static void on_closed_pipe(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}
void cmd_catch_signals(void) {
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);  /* the terminal or the connection is gone */
    sigaction(SIGUSR1, &a, NULL); /* from whoever started several ranks: the one that mpirun passes on to them */
}
void cmd_catch_closed_pipe(void) {
    struct sigaction a = {.sa_handler = on_closed_pipe};
    sigaction(SIGPIPE, &a, NULL);
}
bool cmd_interrupted(void) {
    return interrupted;
}
