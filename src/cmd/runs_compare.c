/* lockstep runs compare */
#include "runs.h"

#include <string.h>

static bool exit_status;

static json_t *get(const json_t *object, const char *key) {
    return json_object_get(object, key);
}

static const char *value(const json_t *v, char out[80]) {
    if (json_is_string(v))
        snprintf(out, 80, "%.64s", *json_string_value(v) ? json_string_value(v) : "\"\"");
    else if (json_is_real(v))
        snprintf(out, 80, "%.6g", json_real_value(v));
    else if (json_is_integer(v))
        snprintf(out, 80, "%lld", (long long)json_integer_value(v));
    else
        snprintf(out, 80, "%s", json_is_boolean(v) ? json_is_true(v) ? "true" : "false" : "-");
    return out;
}
static const char *loss(const json_t *v, char out[80]) {
    if (!json_is_number(v)) return "-";
    snprintf(out, 80, "%.4f", json_number_value(v));
    return out;
}

static void line(const char *what, const char *a, const char *b) {
    printf("%-26s %-24s %s\n", what, a, b);
}

static void print_differences(const json_t *out) {
    size_t i;
    json_t *d;
    char a[80], b[80], key[80];
    bool local = false;
    json_array_foreach(get(out, "differences"), i, d) {
        local |= !json_is_true(get(d, "identity"));
        snprintf(key, sizeof key, "%s%s", json_string_value(get(d, "key")), json_is_true(get(d, "identity")) ? "" : " *");
        line(key, value(get(d, "a"), a), value(get(d, "b"), b));
    }
    if (local) printf("(* decides no bit)\n");
    printf("identity: %s\n\n", json_is_true(get(out, "identity_equal")) ? "equal" : "different");
}

static void print_result(const json_t *a, const json_t *b) {
    static const char *const plain[] = {"state", "step", "tokens"}, *const roots[] = {"weights_root", "state_root"};
    char x[80], y[80];
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        line(plain[i], value(get(a, plain[i]), x), value(get(b, plain[i]), y));
    line("seconds of steps", loss(get(a, "seconds"), x), loss(get(b, "seconds"), y));
    line("tokens/s", value(get(a, "tokens_per_second"), x), value(get(b, "tokens_per_second"), y));
    line("last loss", loss(get(a, "loss"), x), loss(get(b, "loss"), y));
    for (const char *const *at = (const char *const[]){"held_out", "best", NULL}; *at; at++) {
        json_t *p = get(a, *at), *q = get(b, *at);
        const char *name = strcmp(*at, "best") ? "held-out loss" : "best held-out loss";
        line(name, loss(get(p, "loss"), x), loss(get(q, "loss"), y));
        line("  bits a byte", loss(get(p, "bits_per_byte"), x), loss(get(q, "bits_per_byte"), y));
        line("  at step", value(get(p, "step"), x), value(get(q, "step"), y));
    }
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        value(get(a, roots[i]), x), value(get(b, roots[i]), y);
        x[x[0] == '-' ? 1 : 16] = y[y[0] == '-' ? 1 : 16] = 0;
        line(roots[i], x, y);
    }
}

static void print_steps(const json_t *out) {
    size_t i;
    json_t *p, *first = get(out, "first_difference");
    char a[80], b[80], d[80];
    long long common = (long long)json_integer_value(get(out, "common_steps"));
    if (json_is_object(first))
        printf("\nledgers differ first at step %lld, in %s", (long long)json_integer_value(get(first, "step")),
               json_string_value(get(first, "column")));
    else
        printf("\nledgers are equal to the bit in");
    printf(json_is_object(first) ? "; %lld common steps\n" : " %lld common steps\n", common);
    if (!json_is_object(first)) return;
    json_array_foreach(get(out, "differences"), i, p) if (!strcmp(json_string_value(get(p, "key")), "tokenizer_root"))
        printf("losses are nats a token of two tokenizers: only bits a byte can be compared\n");
    printf("%-26s %-12s %-12s %s\n", "mean loss of steps", "A", "B", "B - A");
    json_array_foreach(get(out, "losses"), i, p) {
        char steps[80];
        snprintf(steps, sizeof steps, "%lld..%lld", (long long)json_integer_value(get(p, "from")),
                 (long long)json_integer_value(get(p, "to")));
        printf("%-26s %-12s %-12s %s\n", steps, loss(get(p, "a"), a), loss(get(p, "b"), b), loss(get(p, "difference"), d));
    }
    if (json_array_size(get(out, "held_out"))) printf("held-out loss at step\n");
    json_array_foreach(get(out, "held_out"), i, p)
        printf("%-26lld %-12s %-12s %s\n", (long long)json_integer_value(get(p, "step")), loss(get(p, "a"), a),
               loss(get(p, "b"), b), loss(get(p, "difference"), d));
}

static bool same(const json_t *out) {
    return json_is_true(get(out, "identity_equal")) && json_is_null(get(out, "first_difference")) &&
           json_equal(get(get(out, "a"), "state_root"), get(get(out, "b"), "state_root"));
}

static int compare(struct cmd_context *c) {
    struct lk_err err = {0};
    json_t *out = NULL;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_compare_runs(c->store, c->arguments[0], c->arguments[1], &out, &err)) return cmd_fail(&err);
    int result = exit_status && !same(out) ? CMD_FAILED : CMD_OK;
    if (c->json) return cmd_print_json(out) ? CMD_FAILED : result;
    line("", c->arguments[0], c->arguments[1]);
    print_differences(out);
    print_result(get(out, "a"), get(out, "b"));
    print_steps(out);
    json_decref(out);
    return result;
}
const struct cmd cmd_runs_compare = {
    "runs compare",
    "RUN RUN",
    2,
    2,
    "Compare two runs: keys, ledgers, losses, speed, roots.",
    (const struct cmd_option[]){
        CMD_FLAG("--exit-status", &exit_status, "exit 1 unless identity, common ledger rows and state roots are equal"),
        CMD_END},
    "Runs of one identity must have equal ledgers to the bit; of others the mean training losses of ten parts of the\n"
    "common steps are shown, and held-out losses where both were evaluated. The exit status is 0 when both could be read,\n"
    "whatever they hold, unless --exit-status is given.",
    compare};
