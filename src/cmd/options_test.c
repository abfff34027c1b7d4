/* The table of options: what each type takes, defaults, what is missing, and the limits of the tables themselves. */
#include "options.c"

#include "base/testing.h"
#include <fcntl.h>

static struct {
    bool flag;
    const char *string, *name;
    struct cmd_list list;
    int choice, number, calls;
    uint32_t u32;
    uint64_t u64;
    double f64;
} o;

static int take_number(const struct cmd_context *c, const struct cmd_option *option, const char *text) {
    o.calls++;
    if (strcmp(text, "one")) return cmd_usage_error(c, "%s %s: one is there", option->name, text);
    *(int *)option->any = 1;
    return CMD_OK;
}
static const struct cmd_option options[] = {
    CMD_FLAG("--flag", &o.flag, "f"),
    CMD_STRING("--string", "S", &o.string, "some", "s"),
    CMD_NAME("--name", "N", &o.name, CMD_REQUIRED, "n"),
    CMD_LIST("--list", "L", &o.list, "l"),
    CMD_CHOICE("--choice", &o.choice, "red|green|dark-blue", "green", "c"),
    CMD_CALL("--call", "one", &o.number, take_number, NULL, "call"),
    CMD_U32("--u32", "N", &o.u32, 1, UINT32_MAX, "7", "u"),
    CMD_U64("--u64", "N", &o.u64, 0, UINT64_MAX, NULL, "u"),
    CMD_F64("--f64", "X", &o.f64, -1, 0.5, "0.25", "x"),
    CMD_END,
};
static const struct cmd command = {"test", "[A] [B]", 0, 2, "Test.", options, NULL, NULL};

/* Parses words; what stderr got is in `said`. */
static struct cmd_context context;
static char said[512];
static int parse_of(const struct cmd *cmd, const char *const *words) {
    char *argv[CMD_MANY * 2 + 8];
    int argc = 0, saved = dup(2);
    FILE *f = tmpfile();
    memset(&o, 0, sizeof o);
    memset(&common, 0, sizeof common);
    context = (struct cmd_context){.cmd = cmd};
    while (words[argc]) argv[argc] = (char *)(uintptr_t)words[argc], argc++;
    dup2(fileno(f), 2);
    int code = cmd_parse(&context, argc, argv);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    fclose(f);
    return code;
}
#define PARSE(...) parse_of(&command, (const char *const[]){__VA_ARGS__, NULL})
#define REFUSED(MESSAGE, ...)                                                                                              \
    do {                                                                                                                   \
        assert_int_equal(PARSE(__VA_ARGS__), CMD_USAGE);                                                                   \
        assert_non_null(strstr(said, MESSAGE));                                                                            \
    } while (0)

static void values_and_defaults(void **state) {
    (void)state;
    assert_int_equal(PARSE("--name", "x"), CMD_OK);
    assert_string_equal(o.string, "some");
    assert_int_equal(o.choice, 1);
    assert_int_equal(o.u32, 7);
    assert_true(o.f64 == 0.25 && !o.flag && !o.list.count && !o.calls && !context.threads && !context.json);
    assert_false(cmd_given(&context, &o.string)); /* a default is not given */
    assert_true(cmd_given(&context, &o.name));

    assert_int_equal(PARSE("a", "--name=x", "--flag", "--string", "--flag", "--list", "1", "--list=", "--choice",
                           "dark-blue", "--call", "one", "--u32", "4294967295", "--u64=18446744073709551615", "--f64", "-1",
                           "--threads", "3", "--json", "--", "-b"),
                     CMD_OK);
    assert_string_equal(o.string, "--flag");
    assert_int_equal(o.list.count, 2);
    assert_string_equal(o.list.items[1], "");
    assert_int_equal(o.choice, 2);
    assert_int_equal(o.number, 1);
    assert_true(o.flag && o.u32 == UINT32_MAX && o.u64 == UINT64_MAX && o.f64 == -1);
    assert_true(context.threads == 3 && context.json && context.argument_count == 2);
    assert_string_equal(context.arguments[0], "a");
    assert_string_equal(context.arguments[1], "-b");

    assert_int_equal(PARSE("--name", "x", "--u32", "8", "--u32", "9"), CMD_OK);
    assert_int_equal(o.u32, 9); /* the last one */
}

static void refusals(void **state) {
    (void)state;
    REFUSED("--name is missing", "a");
    REFUSED("--name .x: 1 to 128 of", "--name", ".x");
    REFUSED("--u32 0 is out of range: 1 .. 4294967295", "--u32", "0");
    REFUSED("--u32 4294967296 is out of range", "--u32", "4294967296");
    REFUSED("--u64 18446744073709551616 is not a whole number", "--u64", "18446744073709551616");
    REFUSED("--u64 -1 is not a whole number", "--u64", "-1");
    REFUSED("--u64 1x is not a whole number", "--u64", "1x");
    REFUSED("--f64 0.51 is out of range: -1 .. 0.5", "--f64", "0.51");
    REFUSED("--f64 nan is not a number", "--f64", "nan");
    REFUSED("--choice gr: give red, green or dark-blue", "--choice", "gr");
    REFUSED("--call two: one is there", "--call", "two");
    REFUSED("--flag takes no value", "--flag=1");
    REFUSED("--list needs a value: --list L", "--list");
    REFUSED("unknown option --u33; did you mean --u32?", "--u33", "1");
    REFUSED("unexpected argument \"c\"", "a", "b", "c");
    REFUSED("--threads 257 is out of range: 1 .. 256", "--threads", "257");
    const char *many[2 * (CMD_MANY + 1) + 1] = {NULL};
    for (int i = 0; i < 2 * (CMD_MANY + 1); i += 2) many[i] = "--list", many[i + 1] = "x";
    assert_int_equal(parse_of(&command, many), CMD_USAGE);
    assert_non_null(strstr(said, "--list is given more than 64 times"));
}

/* Messages name the argument that is wrong or missing, not all of them. */
static void arguments_are_checked(void **state) {
    (void)state;
    const struct cmd build = {"build", "NAME FILE...", 2, -1, "", NULL, NULL, NULL},
                     runs = {"compare", "RUN RUN", 2, 2, "", NULL, NULL, NULL},
                     rm = {"rm", "RUN...", 1, -1, "", NULL, NULL, NULL},
                     generate = {"generate", "MODEL|RUN[@STEP] [PROMPT]", 1, 2, "", NULL, NULL, NULL};
    const struct {
        const struct cmd *cmd;
        const char *words[4], *said;
    } cases[] = {
        {&build, {"d"}, "build: FILE... is missing"},
        {&build, {NULL}, "build: NAME is missing"},
        {&build, {"d", "mail@home"}, NULL},
        {&runs, {"a"}, "compare: RUN is missing"},
        {&runs, {"a", "b@3"}, "b@3: this takes a RUN as a whole, without @STEP: give b\n"},
        {&rm, {"a", "b", "c@best"}, "give c\n"},
        {&generate, {"a@3", "a@b"}, NULL},
        {&rm, {"a", "--store", ""}, "--store is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parse_of(cases[i].cmd, cases[i].words), cases[i].said ? CMD_USAGE : CMD_OK);
        if (cases[i].said) assert_non_null(strstr(said, cases[i].said));
    }
}

static void help_asks_for_nothing(void **state) {
    char text[256];
    (void)state;
    assert_int_equal(PARSE("-h"), CMD_OK);
    assert_true(context.help);
    assert_int_equal(PARSE("a", "b", "c", "--help"), CMD_OK);
    assert_true(context.help);
    assert_string_equal(cmd_option_help(&options[1], text), "s; some by default");
    assert_string_equal(cmd_option_help(&options[2], text), "n (required)");
    assert_string_equal(cmd_option_help(&options[0], text), "f");
}

/* How a parse with this table of `count` flags ends, in a process of its own. */
static int fate_of(const struct cmd_option *table) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct cmd cmd = {"test", "", 0, 0, "Test.", table, NULL, NULL};
        dup2(open("/dev/null", O_WRONLY), 2);
        signal(SIGABRT, SIG_DFL);
        _exit(parse_of(&cmd, (const char *const[]){NULL}));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
static void wrong_tables_are_found(void **state) {
    static struct cmd_option table[CMD_OPTIONS + 1];
    size_t most = CMD_OPTIONS - 5; /* beside the common ones */
    (void)state;
    for (size_t i = 0; i < most; i++) table[i] = (struct cmd_option)CMD_FLAG("--flag", &o.flag, "f");
    assert_int_equal(fate_of(table), CMD_OK);
    table[most] = table[0];
    assert_int_equal(fate_of(table), -SIGABRT);
    table[1] = (struct cmd_option)CMD_END;
    table[0] = (struct cmd_option)CMD_U32("--u32", "N", &o.u32, 1, 5, "6", "its default is out of its range");
    assert_int_equal(fate_of(table), -SIGABRT);
    table[0] = (struct cmd_option)CMD_FLAG("--flag", NULL, "binds nothing");
    assert_int_equal(fate_of(table), -SIGABRT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults),    cmocka_unit_test(refusals),
        cmocka_unit_test(arguments_are_checked),  cmocka_unit_test(help_asks_for_nothing),
        cmocka_unit_test(wrong_tables_are_found),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
