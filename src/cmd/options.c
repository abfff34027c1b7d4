/* From argv and a command's table of options to its variables: types, ranges, defaults and messages in one place. */
#include "cmd.h"

#include "lockstep/base/ini.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 256

const char cmd_required[] = "";
static struct {
    const char *store_url, *blobs_url;
    uint32_t threads;
    bool json, help;
} common;
const struct cmd_option cmd_common_options[] = {
    CMD_STRING("--store", "URL", &common.store_url, NULL,
               "where everything is kept; LOCKSTEP_STORE or ./lockstep.d by default"),
    CMD_STRING(
        "--blobs", "URL", &common.blobs_url, NULL,
        "where the store keeps what is large: a folder or s3://BUCKET/PREFIX; LOCKSTEP_BLOBS or in the store by default"),
    CMD_U32("--threads", "N", &common.threads, 1, THREADS_MAX, NULL,
            "threads to compute with; by default the cores this process may use"),
    CMD_FLAG("--json", &common.json, "print JSON for machines"),
    CMD_FLAG("-h", &common.help, "this help"),
    CMD_END,
};

int cmd_usage_error(const struct cmd_context *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "lockstep %s: ", c->cmd->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nusage: lockstep %s%s%s [options]; `lockstep %s -h` explains them\n", c->cmd->name,
            *c->cmd->arguments ? " " : "", c->cmd->arguments, c->cmd->name);
    va_end(args);
    return CMD_USAGE;
}

const char *cmd_option_help(const struct cmd_option *o, char out[256]) {
    if (!o->fallback) return o->help;
    if (o->fallback == cmd_required)
        snprintf(out, 256, "%s (required)", o->help);
    else
        snprintf(out, 256, "%s; %s by default", o->help, o->fallback);
    return out;
}

/* --- Values ---------------------------------------------------------------------------------------------- */

static int take_whole(const struct cmd_context *c, const struct cmd_option *o, const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        return cmd_usage_error(c, "%s %s is not a whole number", o->name, text);
    if (v < o->low || v > o->high)
        return cmd_usage_error(c, "%s %s is out of range: %llu .. %llu", o->name, text, (unsigned long long)o->low,
                               (unsigned long long)o->high);
    *out = v;
    return CMD_OK;
}

static int take_real(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || v != v) return cmd_usage_error(c, "%s %s is not a number", o->name, text);
    if (v < o->low_f64 || v > o->high_f64)
        return cmd_usage_error(c, "%s %s is out of range: %g .. %g", o->name, text, o->low_f64, o->high_f64);
    *o->f64 = v;
    return CMD_OK;
}

/* "llmc|megatron|npy" as "llmc, megatron or npy" */
static const char *join_words(const char *words, char out[256]) {
    size_t n = 0;
    for (;; words++) {
        size_t size = strcspn(words, "|");
        const char *between = !n ? "" : words[size] ? ", " : " or ";
        n += (size_t)snprintf(out + n, 256 - n, "%s%.*s", between, (int)size, words);
        LK_ASSERT(n < 256);
        words += size;
        if (!*words) return out;
    }
}

static int take_choice(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    char words[256];
    int index = 0;
    for (const char *w = o->value;; index++) {
        size_t size = strcspn(w, "|");
        if (strlen(text) == size && strncmp(w, text, size) == 0) return *o->choice = index, CMD_OK;
        if (!w[size]) return cmd_usage_error(c, "%s %s: give %s", o->name, text, join_words(o->value, words));
        w += size + 1;
    }
}

static int take(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    uint64_t whole = 0;
    int code = CMD_OK;
    switch (o->type) {
    case CMD_TYPE_FLAG:
        *o->flag = true;
        break;
    case CMD_TYPE_STRING:
        *o->string = text;
        break;
    case CMD_TYPE_NAME:
        *o->string = text;
        if (!lk_name_valid(text))
            code = cmd_usage_error(c, "%s %s: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with . or -", o->name, text);
        break;
    case CMD_TYPE_LIST:
        if (o->list->count == CMD_MANY) return cmd_usage_error(c, "%s is given more than %d times", o->name, CMD_MANY);
        o->list->items[o->list->count++] = text;
        break;
    case CMD_TYPE_CHOICE:
        code = take_choice(c, o, text);
        break;
    case CMD_TYPE_U32:
        LK_ASSERT(o->high <= UINT32_MAX);
        if ((code = take_whole(c, o, text, &whole)) == CMD_OK) *o->u32 = (uint32_t)whole;
        break;
    case CMD_TYPE_U64:
        code = take_whole(c, o, text, o->u64);
        break;
    case CMD_TYPE_F64:
        code = take_real(c, o, text);
        break;
    case CMD_TYPE_CALL:
        code = o->take(c, o, text);
        break;
    }
    return code;
}

/* --- The command line ------------------------------------------------------------------------------------ */

static bool is_named(const struct cmd_option *o, const char *name, size_t n) {
    return strlen(o->name) == n && strncmp(o->name, name, n) == 0;
}
/* *index: of the command's own options; -1 for a common one. */
static const struct cmd_option *find_option(const struct cmd *cmd, const char *name, size_t n, int *index) {
    *index = -1;
    for (const struct cmd_option *o = cmd_common_options; o->name; o++)
        if (is_named(o, name, n)) return o;
    for (const struct cmd_option *o = cmd->options; o && o->name; o++)
        if (is_named(o, name, n)) return *index = (int)(o - cmd->options), o;
    return NULL;
}

bool cmd_given(const struct cmd_context *c, const void *variable) {
    const struct cmd_option *o = c->cmd->options;
    while (o->name && o->any != variable) o++;
    LK_ASSERT(o->name);
    return c->given >> (o - c->cmd->options) & 1;
}

static int unknown_option(const struct cmd_context *c, const char *given, size_t n) {
    const char *names[CMD_OPTIONS];
    size_t count = 0;
    char word[64];
    for (const struct cmd_option *o = cmd_common_options; o->name; o++) names[count++] = o->name;
    for (const struct cmd_option *o = c->cmd->options; o && o->name; o++) names[count++] = o->name;
    snprintf(word, sizeof word, "%.*s", (int)(n > 60 ? 60 : n), given);
    const char *near = lk_nearest(word, names, count);
    return near ? cmd_usage_error(c, "unknown option %s; did you mean %s?", word, near)
                : cmd_usage_error(c, "unknown option %s", word);
}

/* Writes the defaults, which must be right themselves; too large a table fails the first time that its command runs. */
static void set_fallbacks(const struct cmd_context *c) {
    size_t count = sizeof cmd_common_options / sizeof *cmd_common_options - 1;
    for (const struct cmd_option *o = c->cmd->options; o && o->name; o++) {
        LK_ASSERT(++count <= CMD_OPTIONS && o->any);
        if (o->fallback && o->fallback != cmd_required) LK_ASSERT(take(c, o, o->fallback) == CMD_OK);
    }
}

static int check_required(const struct cmd_context *c) {
    char words[256];
    for (const struct cmd_option *o = c->cmd->options; o && o->name; o++) {
        if (o->fallback != cmd_required || c->given >> (o - c->cmd->options) & 1) continue;
        if (o->type != CMD_TYPE_CHOICE) return cmd_usage_error(c, "%s is missing", o->name);
        return cmd_usage_error(c, "%s is missing: %s", o->name, join_words(o->value, words));
    }
    return CMD_OK;
}

/* The placeholder of a positional argument: "NAME" and then "FILE..." of "NAME FILE..."; the last one repeats. */
static const char *placeholder(const struct cmd *cmd, int index, int *size) {
    const char *p = cmd->arguments;
    for (const char *space; index-- > 0 && (space = strchr(p, ' ')); p = space + 1) continue;
    *size = (int)strcspn(p, " ");
    return p;
}

static int check_arguments(const struct cmd_context *c) {
    int size;
    const char *p = placeholder(c->cmd, c->argument_count, &size);
    if (c->argument_count < c->cmd->least) return cmd_usage_error(c, "%.*s is missing", size, p);
    if (c->cmd->most >= 0 && c->argument_count > c->cmd->most)
        return cmd_usage_error(c, "unexpected argument \"%s\"", c->arguments[c->cmd->most]);
    for (int i = 0; i < c->argument_count; i++) { /* no name has an @ */
        const char *at = strchr(c->arguments[i], '@');
        p = placeholder(c->cmd, i, &size);
        if (at && (size == 3 || size == 6) && strncmp(p, "RUN...", (size_t)size) == 0)
            return cmd_usage_error(c, "%s: this takes a RUN as a whole, without @STEP: give %.*s", c->arguments[i],
                                   (int)(at - c->arguments[i]), c->arguments[i]);
    }
    return CMD_OK;
}

/* Options to their variables; positional arguments to the front of argv. */
static int read_words(struct cmd_context *c, int argc, char **argv) {
    bool options = true;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (options && strcmp(a, "--") == 0) {
            options = false;
            continue;
        }
        if (!options || a[0] != '-' || !a[1]) {
            argv[c->argument_count++] = argv[i];
            continue;
        }
        if (strcmp(a, "--help") == 0) a = "-h";
        const char *equals = strchr(a, '=');
        size_t length = equals ? (size_t)(equals - a) : strlen(a);
        int index, code;
        const struct cmd_option *o = find_option(c->cmd, a, length, &index);
        if (!o) return unknown_option(c, a, length);
        if (!o->value && equals) return cmd_usage_error(c, "%s takes no value", o->name);
        if (o->value && !equals && i + 1 == argc)
            return cmd_usage_error(c, "%s needs a value: %s %s", o->name, o->name, o->value);
        if ((code = take(c, o, !o->value ? "" : equals ? equals + 1 : argv[++i]))) return code;
        if (index >= 0) c->given |= (uint64_t)1 << index;
    }
    return CMD_OK;
}

int cmd_hide_password(const struct cmd_context *c, const char **url) {
    char *shown = lk_kv_shown(*url), *copy = lk_strdup(*url), *word = (char *)(uintptr_t)*url;
    if (!shown || !copy) return cmd_usage_error(c, "out of memory");
    if (strcmp(shown, copy) != 0) {
        size_t size = strlen(word), kept = strlen(shown) < size ? strlen(shown) : size;
        memset(word, 0, size);
        memcpy(word, shown, kept);
        *url = copy;
        copy = NULL;
    }
    lk_free(shown);
    lk_free(copy);
    return CMD_OK;
}

int cmd_parse(struct cmd_context *c, int argc, char **argv) {
    c->arguments = argv;
    set_fallbacks(c);
    int code = read_words(c, argc, argv);
    if (code) return code;
    if (common.store_url && !*common.store_url)
        return cmd_usage_error(c, "--store is empty: give a folder, or leave it out");
    if (common.store_url && (code = cmd_hide_password(c, &common.store_url))) return code;
    if (!common.store_url) common.store_url = getenv("LOCKSTEP_STORE");
    if (!common.blobs_url) common.blobs_url = getenv("LOCKSTEP_BLOBS");
    c->blobs_url = common.blobs_url && *common.blobs_url ? common.blobs_url : NULL;
    c->store_url = common.store_url && *common.store_url ? common.store_url : "./lockstep.d";
    c->threads = common.threads;
    c->json = common.json;
    c->help = common.help;
    if (c->help) return CMD_OK;
    return (code = check_arguments(c)) ? code : check_required(c);
}
