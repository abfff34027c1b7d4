/* Commands: a table of options makes parsing, -h and docs/commands.md. Only this floor prints. */
#ifndef LOCKSTEP_CMD_H
#define LOCKSTEP_CMD_H
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/data/tokenizer.h"
#include "lockstep/math/kernels.h"
#include "lockstep/store/store.h"

enum { CMD_OK = 0, CMD_FAILED = 1, CMD_USAGE = 2 };

struct cmd_option {
    const char *name;  /* "--vocab" */
    const char *value; /* placeholder, or NULL for a flag */
    const char *help;
};
#define CMD_MANY 64 /* repeats of one option, positional arguments beyond are limited by argv only */

struct cmd;
struct cmd_context {
    const struct cmd *cmd;
    const char *values[16][CMD_MANY]; /* by option index */
    int counts[16];
    char **arguments; /* positional */
    int argument_count;
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
    const struct cmd_option *options; /* ends with a NULL name; --store --threads --json -h are everyone's */
    const char *details;              /* further paragraphs of -h, or NULL */
    int (*run)(struct cmd_context *);
};
extern const struct cmd *const cmd_table[];          /* ends with NULL */
extern const struct cmd_option cmd_common_options[]; /* of every command; ends with a NULL name */

/* Options by name ("--vocab"); the name must be in the command's table or a common one. */
const char *cmd_value(const struct cmd_context *, const char *name);
bool cmd_flag(const struct cmd_context *, const char *name);
int cmd_values(const struct cmd_context *, const char *name, const char *const **out);
/* Numbers: CMD_USAGE with a message when the text is none or out of [low, high]; *out keeps its value when absent. */
int cmd_u64(const struct cmd_context *, const char *name, uint64_t low, uint64_t high, uint64_t *out);
int cmd_f64(const struct cmd_context *, const char *name, double low, double high, double *out);
bool cmd_json(const struct cmd_context *);

const char *cmd_store_url(const struct cmd_context *);
/* Open what the command needs; on failure the message is printed and CMD_FAILED returned. */
int cmd_open_store(struct cmd_context *, bool create);
int cmd_open_pool(struct cmd_context *);
int cmd_open_math(struct cmd_context *);

/* "lockstep: MESSAGE" to stderr; returns CMD_FAILED or CMD_USAGE. */
int cmd_fail(const struct lk_err *);
int cmd_usage_error(const struct cmd_context *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints a value as pretty JSON on stdout; takes the reference. */
int cmd_print_json(json_t *);
/* The value of --name, which must be there and a name. */
int cmd_check_name(const struct cmd_context *, const char *name);
/* Pieces that several commands share. name_put says on stderr when a name leaves another root. */
int cmd_name_put(struct cmd_context *, const char *kind, const char *name, const struct lk_root *, struct lk_err *);
/* A tokenizer's name, or "model:M": that of a model or a run. */
int cmd_find_tokenizer(struct cmd_context *, const char *name, struct lk_root *out, struct lk_err *);
int cmd_list_names(struct cmd_context *, const char *kind);
int cmd_show_run(struct cmd_context *, const char *name);
int cmd_doctor_bench(struct cmd_context *);
int cmd_read_input(const char *path, struct lk_buf *out, struct lk_err *); /* "-" or NULL: standard input */

/* Fills the context from argv after the command's words; "--" ends the options, "-" is an argument. */
int cmd_parse(struct cmd_context *, int argc, char **argv);
void cmd_print_all(FILE *);
void cmd_print_help(const struct cmd *, FILE *);
/* Set by SIGINT, SIGTERM, SIGHUP and SIGUSR1 once cmd_catch_signals was called; a second signal ends the process. */
void cmd_catch_signals(void);
bool cmd_interrupted(void);

#endif
