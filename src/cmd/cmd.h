/* Commands: one table of options makes the parse, -h, docs/commands.md, manual pages and completion. Only this floor
 * prints. */
#ifndef LOCKSTEP_CMD_H
#define LOCKSTEP_CMD_H
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/base/version.h"
#include "lockstep/data/chat.h"
#include "lockstep/data/source.h"
#include "lockstep/data/tokenizer.h"
#include "lockstep/math/math.h"
#include "lockstep/store/store.h"

enum { CMD_OK = 0, CMD_FAILED = 1, CMD_USAGE = 2 };

/* --- Options ----------------------------------------------------------------------------------------------
 * A command binds each option to a variable, usually of a static struct beside it. The parse checks types and ranges and
 * writes the variables, so that run() finds them set:
 *
 *     static struct { uint32_t vocab; const char *name; } training;
 *     static const struct cmd_option train_options[] = {
 *         CMD_U32("--vocab", "N", &training.vocab, 257, 4000000, "32768", "tokens in all"),
 *         CMD_NAME("--name", "T", &training.name, CMD_REQUIRED, "name to keep it under"),
 *         CMD_END};
 *
 * FALLBACK is the default, as a user would type it; -h names it. CMD_REQUIRED: the option must be given. NULL: the variable
 * keeps its value, and cmd_given tells. VALUE is the placeholder that -h shows and completion reads (completion.c). */
enum cmd_type {
    CMD_TYPE_FLAG,
    CMD_TYPE_STRING,
    CMD_TYPE_NAME,
    CMD_TYPE_LIST,
    CMD_TYPE_CHOICE,
    CMD_TYPE_U32,
    CMD_TYPE_U64,
    CMD_TYPE_F64,
    CMD_TYPE_CALL
};
#define CMD_MANY 64 /* values of one CMD_LIST */
struct cmd_list {
    const char *items[CMD_MANY]; /* borrowed from argv */
    size_t count;
};
struct cmd_context;
struct cmd_option;
/* CMD_CALL's own type: writes *o->any from text. CMD_OK, or CMD_USAGE by cmd_usage_error. */
typedef int cmd_take(const struct cmd_context *, const struct cmd_option *o, const char *text);

struct cmd_option {
    const char *name, *value; /* "--vocab", its placeholder; NULL: a flag */
    const char *fallback, *help;
    enum cmd_type type;
    union {
        bool *flag;
        const char **string;
        struct cmd_list *list;
        int *choice;
        uint32_t *u32;
        uint64_t *u64;
        double *f64;
        void *any;
    };
    uint64_t low, high;
    double low_f64, high_f64;
    cmd_take *take;
};
extern const char cmd_required[];
#define CMD_REQUIRED cmd_required
#define CMD_OPTION(NAME, VALUE, TYPE, FALLBACK, HELP)                                                                      \
    .name = (NAME), .value = (VALUE), .type = (TYPE), .fallback = (FALLBACK), .help = (HELP)
#define CMD_FLAG(NAME, OUT, HELP)                                                                                          \
    { CMD_OPTION(NAME, NULL, CMD_TYPE_FLAG, NULL, HELP), .flag = (OUT) }
#define CMD_STRING(NAME, VALUE, OUT, FALLBACK, HELP)                                                                       \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_STRING, FALLBACK, HELP), .string = (OUT) }
/* A string that lk_name_valid takes. */
#define CMD_NAME(NAME, VALUE, OUT, FALLBACK, HELP)                                                                         \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_NAME, FALLBACK, HELP), .string = (OUT) }
/* May be given up to CMD_MANY times; any other type keeps the last value. */
#define CMD_LIST(NAME, VALUE, OUT, HELP)                                                                                   \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_LIST, NULL, HELP), .list = (OUT) }
/* WORDS "text|jsonl" is the placeholder too; *OUT is the word's index. */
#define CMD_CHOICE(NAME, OUT, WORDS, FALLBACK, HELP)                                                                       \
    { CMD_OPTION(NAME, WORDS, CMD_TYPE_CHOICE, FALLBACK, HELP), .choice = (OUT) }
/* Whole numbers and reals, LOW and HIGH included. */
#define CMD_U32(NAME, VALUE, OUT, LOW, HIGH, FALLBACK, HELP)                                                               \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_U32, FALLBACK, HELP), .u32 = (OUT), .low = (LOW), .high = (HIGH) }
#define CMD_U64(NAME, VALUE, OUT, LOW, HIGH, FALLBACK, HELP)                                                               \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_U64, FALLBACK, HELP), .u64 = (OUT), .low = (LOW), .high = (HIGH) }
#define CMD_F64(NAME, VALUE, OUT, LOW, HIGH, FALLBACK, HELP)                                                               \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_F64, FALLBACK, HELP), .f64 = (OUT), .low_f64 = (LOW), .high_f64 = (HIGH) }
#define CMD_CALL(NAME, VALUE, OUT, FUNCTION, FALLBACK, HELP)                                                               \
    { CMD_OPTION(NAME, VALUE, CMD_TYPE_CALL, FALLBACK, HELP), .any = (OUT), .take = (FUNCTION) }
#define CMD_END                                                                                                            \
    { .name = NULL }
#define CMD_OPTIONS 64 /* of one command, the common ones too; the parse asserts it */

/* --- Commands -------------------------------------------------------------------------------------------- */

struct cmd;
struct cmd_context {
    const struct cmd *cmd;
    char **arguments; /* positional */
    int argument_count;
    /* the common options */
    const char *store_url, *blobs_url; /* the second one may be NULL */
    uint32_t threads;                  /* 0: --threads was not given */
    bool json, help;
    uint64_t given; /* bit i: the command's option i was */
    /* opened on demand, closed by main */
    struct lk_store *store;
    struct lk_pool *pool;
    struct lk_math *math;
};
struct cmd {
    const char *name;      /* "tokenizer train" */
    const char *arguments; /* "FILE..." */
    int least, most;       /* positional arguments; most -1: any number */
    const char *summary;
    const struct cmd_option *options; /* ends with CMD_END; NULL: only --store --threads --json -h, which are everyone's */
    const char *details;              /* further paragraphs of -h, or NULL */
    int (*run)(struct cmd_context *);
};
extern const struct cmd *const cmd_table[];          /* ends with NULL */
extern const struct cmd_option cmd_common_options[]; /* of every command; ends with CMD_END */

/* Fills the context and the command's variables from argv after the command's words; "--" ends the options, "-" is an
 * argument. CMD_USAGE with a message; c->help set: only help is wanted, nothing is checked for completeness. */
int cmd_parse(struct cmd_context *, int argc, char **argv);
/* Takes the password out of what `ps` shows of *url, a word of argv; *url is a copy then, which lives as long as the
 * command. CMD_USAGE: out of memory. */
int cmd_hide_password(const struct cmd_context *, const char **url);
/* Whether the option that writes this variable was given. */
bool cmd_given(const struct cmd_context *, const void *variable);
/* The option's help with its default: "tokens in all; 32768 by default". Returns out or o->help. */
const char *cmd_option_help(const struct cmd_option *o, char out[256]);

/* Open what the command needs; on failure the message is printed and CMD_FAILED returned. */
int cmd_open_store(struct cmd_context *, enum lk_access);
int cmd_open_pool(struct cmd_context *);
int cmd_open_math(struct cmd_context *);

/* How what was removed gives its room back; goes on from "X removed; ". */
#define CMD_GC_HINT "`lockstep gc` frees its space once it is an hour old, `lockstep gc --grace 0` at once"

/* "lockstep: MESSAGE" to stderr; returns CMD_FAILED or CMD_USAGE. */
int cmd_fail(const struct lk_err *);
int cmd_usage_error(const struct cmd_context *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints a value as pretty JSON on stdout; takes the reference. */
int cmd_print_json(json_t *);
/* A number, or null where JSON has none: NaN and infinities. */
json_t *cmd_json_number(double);
/* A text of the model's or a user's as JSON, with U+FFFD for what is not UTF-8; *bytes (may be NULL): then all of it in
 * hexadecimal, else null. New references; NULL without memory. */
json_t *cmd_json_text(const char *data, size_t size, json_t **bytes);
/* CMD_CALL's function for --template: writes an enum lk_chat. */
cmd_take cmd_take_template;
/* How files are read, for every command that reads texts. */
extern struct lk_source_options cmd_reading;
extern int cmd_reading_format; /* an enum lk_format */
cmd_take cmd_take_text;        /* writes a struct lk_bytes, with \n, \t, \r and \\ understood */
#define CMD_READING                                                                                                        \
    CMD_CHOICE("--format", &cmd_reading_format, "auto|text|jsonl", "auto",                                                 \
               "what the files are; auto goes by .jsonl, .ndjson and .json"),                                              \
        CMD_STRING("--text-key", "K", &cmd_reading.text_key, NULL, "records: the key of the text, and no other"),          \
        CMD_CALL("--split-at", "STRING", &cmd_reading.split_at, cmd_take_text, NULL,                                       \
                 "plain texts: what stands between documents, such as '\\n<|endoftext|>\\n'"),                             \
        CMD_U64("--skip-bad", "N", &cmd_reading.skip_bad, 0, UINT64_MAX, "0", "leave out up to N bad records")
/* The options above, with notes on stderr. progress: whose line they spare. */
const struct lk_source_options *cmd_reading_options(struct lk_progress *progress);
/* Pieces that several commands share. name_put says on stderr when a name leaves another root. */
int cmd_name_put(struct cmd_context *, const char *kind, const char *name, const struct lk_root *, struct lk_err *);
/* A tokenizer's name, or "model:M" or "run:RUN": that of a model or a run. */
int cmd_find_tokenizer(struct cmd_context *, const char *name, struct lk_root *out, struct lk_err *);
int cmd_list_names(struct cmd_context *, const char *kind);
int cmd_show_run(struct cmd_context *, const char *name);
int cmd_doctor_bench(struct cmd_context *);
void cmd_cpu_name(char *out, size_t size);                                 /* "unknown" where the system does not say */
int cmd_read_input(const char *path, struct lk_buf *out, struct lk_err *); /* "-" or NULL: standard input */

void cmd_print_all(FILE *);
void cmd_print_help(const struct cmd *, FILE *);
/* Set by SIGINT, SIGTERM, SIGHUP and SIGUSR1 once cmd_catch_signals was called; a second signal ends the process. Set by
 * SIGPIPE too once cmd_catch_closed_pipe was called, as often as it comes; for work that saves what it has done. Others die
 * of it, without a word, as every program in a pipe does. */
void cmd_catch_signals(void);
void cmd_catch_closed_pipe(void);
bool cmd_interrupted(void);

#endif
