/* lockstep runs list */
#include "runs.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *dataset, *name;
    int status, sort; /* -1: not given */
} wanted = {.status = -1, .sort = -1};
enum { BY_LOSS, BY_DATE, BY_NAME };
#define STATES "running|stopped|killed|failed|finished"

struct row {
    char *name;
    json_t *record; /* NULL: it is not JSON */
    struct lk_run_facts facts;
    bool shown;
};
struct table {
    struct row *rows;
    size_t count, capacity;
};

static const char *text(const json_t *record, const char *key) {
    const char *s = json_string_value(json_object_get(record, key));
    return s ? s : "-";
}

/* --- Which, and in what order ---------------------------------------------------------------------------- */

static bool state_wanted(const char *state) {
    const char *p = STATES;
    for (int i = 0; i < wanted.status; i++) p = strchr(p, '|') + 1;
    size_t n = strcspn(p, "|");
    return wanted.status < 0 || (strlen(state) == n && strncmp(p, state, n) == 0);
}

static int keep_one(void *arg, const char *name, json_t *record) {
    struct table *t = arg;
    if ((wanted.name && fnmatch(wanted.name, name, 0)) || !state_wanted(text(record, "state")) ||
        (wanted.dataset && strcmp(wanted.dataset, runs_dataset(record))))
        return 0;
    if (t->count == t->capacity) {
        size_t more = t->capacity ? 2 * t->capacity : 32;
        struct row *rows = lk_realloc(t->rows, more * sizeof *rows);
        if (!rows) return LK_ENOMEM;
        t->rows = rows;
        t->capacity = more;
    }
    char *copy = lk_strdup(name);
    if (!copy) return LK_ENOMEM;
    t->rows[t->count++] = (struct row){.name = copy, .record = json_incref(record)};
    return 0;
}

static int by_loss(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    double a_loss = x->facts.eval.loss, b_loss = y->facts.eval.loss;
    bool a_last = !x->facts.evals || a_loss - a_loss != 0, b_last = !y->facts.evals || b_loss - b_loss != 0;
    if (a_last != b_last) return a_last ? 1 : -1;
    if (a_last) return strcmp(x->name, y->name);
    return a_loss < b_loss ? -1 : a_loss > b_loss ? 1 : strcmp(x->name, y->name);
}
static json_int_t created(const struct row *r) {
    return json_integer_value(json_object_get(r->record, "created_ms"));
}
static int by_date(const void *a, const void *b) {
    json_int_t x = created(a), y = created(b);
    return x < y ? 1 : x > y ? -1 : strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static int collect(struct lk_store *store, struct table *t, struct lk_err *err) {
    int code = lk_run_list(store, keep_one, t, err); /* by name; facts come behind it, since one reads at a time */
    if (code == LK_ENOMEM) return lk_fail(err, code, "no memory to list runs");
    for (size_t i = 0; i < t->count && !code; i++)
        code = lk_run_facts_read(store, t->rows[i].name, t->rows[i].record, &t->rows[i].facts, err);
    if (!code && t->count && (wanted.sort == BY_LOSS || wanted.sort == BY_DATE))
        qsort(t->rows, t->count, sizeof *t->rows, wanted.sort == BY_LOSS ? by_loss : by_date);
    return code;
}

/* --- On paper -------------------------------------------------------------------------------------------- */

static void print_row(const struct row *r, int depth) {
    const struct lk_run_facts *f = &r->facts;
    char date[32], loss[32] = "-", held_out[32] = "-", speed[32] = "-";
    int indent = depth > 8 ? 16 : 2 * depth, room = 24 - indent;
    if (f->has_loss) snprintf(loss, sizeof loss, "%.4f", f->loss);
    if (f->evals) snprintf(held_out, sizeof held_out, "%.4f", f->eval.loss);
    if (f->tokens_per_second > 0) snprintf(speed, sizeof speed, "%.0f", f->tokens_per_second);
    printf("%*s%s%-*s %-9s %8u/%-8u %10s %10s  %-16s %9s  %-16s  %.16s\n", indent ? indent - 2 : 0, "",
           indent ? "\xe2\x94\x94 " : "", room, r->name, text(r->record, "state"), f->step, f->steps, loss, held_out,
           runs_date(r->record, date), speed, runs_dataset(r->record), text(r->record, "weights_root"));
}

static bool is_child_of(const struct row *r, const char *parent) {
    const char *from = runs_parent(r->record);
    size_t n = strlen(parent);
    return from && strncmp(from, parent, n) == 0 && from[n] == '@' && strcmp(r->name, parent) != 0;
}
static void print_tree(struct table *t, size_t i, int depth) {
    t->rows[i].shown = true;
    print_row(&t->rows[i], depth);
    for (size_t j = 0; j < t->count; j++)
        if (!t->rows[j].shown && is_child_of(&t->rows[j], t->rows[i].name)) print_tree(t, j, depth + 1);
}
static bool has_parent(const struct table *t, size_t i) {
    for (size_t j = 0; j < t->count; j++)
        if (is_child_of(&t->rows[i], t->rows[j].name)) return true;
    return false;
}
static void print_all(struct table *t) {
    printf("%-24s %-9s %8s/%-8s %10s %10s  %-16s %9s  %-16s  %s\n", "run", "state", "step", "steps", "loss", "held out",
           "begun", "tokens/s", "dataset", "weights root");
    for (size_t i = 0; i < t->count; i++)
        if (wanted.sort >= 0)
            print_row(&t->rows[i], 0);
        else if (!has_parent(t, i))
            print_tree(t, i, 0);
    for (size_t i = 0; i < t->count && wanted.sort < 0; i++) /* names that were given anew can make a circle */
        if (!t->rows[i].shown) print_tree(t, i, 0);
}

static json_t *all_json(const struct table *t) {
    json_t *all = json_array();
    for (size_t i = 0; i < t->count; i++) {
        const struct row *r = &t->rows[i];
        json_t *record = r->record ? json_incref(r->record) : json_pack("{s:s}", "name", r->name);
        runs_readable(record);
        if (json_object_set_new(record, "live", lk_run_facts_json(&r->facts)) || json_array_append(all, record)) {
            json_decref(record);
            json_decref(all);
            return NULL;
        }
        json_decref(record);
    }
    return all;
}

static int list(struct cmd_context *c) {
    struct lk_err err = {0};
    struct table t = {0};
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int result = collect(c->store, &t, &err) ? cmd_fail(&err) : CMD_OK;
    if (!result && c->json)
        result = cmd_print_json(all_json(&t));
    else if (!result)
        print_all(&t);
    for (size_t i = 0; i < t.count && !result; i++)
        if (*t.rows[i].facts.damage) lk_log_warn("run %s: %s", t.rows[i].name, t.rows[i].facts.damage);
    if (!result && !t.count)
        fprintf(stderr, "no run %s\n",
                wanted.dataset || wanted.name || cmd_given(c, &wanted.status) ? "matches" : "is there yet");
    for (size_t i = 0; i < t.count; i++) {
        lk_free(t.rows[i].name);
        json_decref(t.rows[i].record);
    }
    lk_free(t.rows);
    return result;
}
const struct cmd cmd_runs_list = {
    "runs list",
    "",
    0,
    0,
    "List runs.",
    (const struct cmd_option[]){
        CMD_NAME("--dataset", "DATASET", &wanted.dataset, NULL, "runs of this dataset only"),
        CMD_CHOICE("--status", &wanted.status, STATES, NULL, "runs in this state only"),
        CMD_STRING("--name", "GLOB", &wanted.name, NULL, "runs of such names only: 'small-*'"),
        CMD_CHOICE("--sort", &wanted.sort, "loss|date|name", NULL, "least held-out loss first, newest first, or by name"),
        CMD_END},
    "Step and loss are those of the ledger, which is ahead of the last checkpoint while a run trains; tokens/s is that of\n"
    "the last 20 steps. A run is `running` while a process holds its lock; `killed`: its process died, and --resume goes "
    "on\n"
    "from the last checkpoint. Without --sort a run that went on from another stands below it.\n"
    "With --json a record a run, with what is not in it under \"live\".",
    list};
