/* Two runs beside each other: what was asked for differently, where the ledgers part, what came out. */
#include "lockstep/lab/lab.h"

#include <string.h>

#define PARTS 10 /* into which common steps are divided to compare losses */

struct rows {
    struct lk_ledger_row *list;
    size_t count, capacity;
    double seconds;
    uint64_t tokens;
};
struct side {
    const char *name;
    json_t *record;
    struct lk_run run;
    struct lk_run_facts facts;
    struct rows rows;
    struct lk_eval_row *evals;
    size_t eval_count, eval_capacity;
};

static int add_row(void *arg, const struct lk_ledger_row *row) {
    struct rows *r = arg;
    if (r->count == r->capacity) {
        size_t more = r->capacity ? 2 * r->capacity : 1024;
        struct lk_ledger_row *list = lk_realloc(r->list, more * sizeof *list);
        if (!list) return LK_ENOMEM;
        r->list = list;
        r->capacity = more;
    }
    r->list[r->count++] = *row;
    r->seconds += row->seconds;
    r->tokens += row->tokens;
    return 0;
}
static int add_eval(void *arg, const struct lk_eval_row *row) {
    struct side *s = arg;
    if (s->eval_count == s->eval_capacity) {
        size_t more = s->eval_capacity ? 2 * s->eval_capacity : 64;
        struct lk_eval_row *list = lk_realloc(s->evals, more * sizeof *list);
        if (!list) return LK_ENOMEM;
        s->evals = list;
        s->eval_capacity = more;
    }
    s->evals[s->eval_count++] = *row;
    return 0;
}

static int side_read(struct side *s, struct lk_store *store, struct lk_err *err) {
    int code = lk_run_get(store, s->name, &s->record, err);
    if (!code) code = lk_run_open(store, s->name, &s->run, err);
    if (!code) code = lk_run_facts_read(store, s->name, s->record, &s->facts, err);
    if (!code) code = lk_ledger_list(store, s->name, 0, UINT32_MAX, add_row, &s->rows, err);
    if (!code) code = lk_eval_list(store, s->name, add_eval, s, err);
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory to compare runs") : code;
}
static void side_release(struct side *s) {
    json_decref(s->record);
    lk_run_close(&s->run);
    lk_free(s->rows.list);
    lk_free(s->evals);
}

/* out, or NULL where it is incomplete. */
static json_t *whole(json_t *out, int bad) {
    if (!bad) return out;
    json_decref(out);
    return NULL;
}

/* --- What was asked for ---------------------------------------------------------------------------------- */

/* A record's value for people: exact hexadecimal floats become numbers. */
static json_t *plain(json_t *v, enum lk_option_type type) {
    double number;
    if (type == LK_O_F64 && lk_json_float_parse(v, &number) == LK_OK) return json_real(number);
    return v ? json_incref(v) : json_null();
}
static int add_difference(json_t *out, const char *key, json_t *a, json_t *b, bool identity) {
    return json_array_append_new(out, json_pack("{s:s, s:o, s:o, s:b}", "key", key, "a", a, "b", b, "identity", identity));
}
static int differing_root(json_t *out, const char *key, const json_t *a, const json_t *b) {
    json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    if (json_equal(x ? x : json_null(), y ? y : json_null())) return 0;
    return add_difference(out, key, plain(x, LK_O_TEXT), plain(y, LK_O_TEXT), true);
}

/* What a run began with, as its identity has it: the state's root or the weights'; NULL: the seed says. */
static const struct lk_root *initial(const struct lk_run *run) {
    return run->from == LK_FROM_STATE ? &run->initial_state : run->from == LK_FROM_WEIGHTS ? &run->initial_weights : NULL;
}
static bool equal_start(const struct lk_run *a, const struct lk_run *b) {
    const struct lk_root *x = initial(a), *y = initial(b);
    return x && y ? lk_root_equal(x, y) : x == y;
}
static json_t *initial_json(const struct lk_run *run) {
    char hex[LK_ROOT_HEX];
    return initial(run) ? json_string(lk_root_hex(initial(run), hex)) : json_null();
}

/* Names that do not count: the run's own, and model.from where both mean the same bits (a model and a copy of it, a run and
 * its child that began alike). */
static bool is_name(const struct lk_option *o, bool equal_starts) {
    return strcmp(o->key, "name") == 0 || (equal_starts && strcmp(o->section, "model") == 0 && strcmp(o->key, "from") == 0);
}

static json_t *differences(const struct side *a, const struct side *b) {
    json_t *out = json_array(), *x = lk_run_config_json(&a->run.config), *y = lk_run_config_json(&b->run.config);
    size_t count;
    const struct lk_option *o = lk_run_options(&count);
    bool equal = equal_start(&a->run, &b->run);
    int bad = !out || !x || !y;
    for (size_t i = 0; i < count && !bad; i++) {
        json_t *v = json_object_get(json_object_get(x, o[i].section), o[i].key);
        json_t *w = json_object_get(json_object_get(y, o[i].section), o[i].key);
        char key[64];
        if (json_equal(v, w) || is_name(&o[i], equal)) continue;
        snprintf(key, sizeof key, "%s.%s", o[i].section, o[i].key);
        bad = add_difference(out, key, plain(v, o[i].type), plain(w, o[i].type), o[i].flags & LK_O_IDENTITY);
    }
    bad = bad || differing_root(out, "dataset_root", a->record, b->record) ||
          differing_root(out, "tokenizer_root", a->record, b->record) ||
          differing_root(out, "numerics", a->record, b->record);
    if (!bad && !equal) bad = add_difference(out, "initial", initial_json(&a->run), initial_json(&b->run), true);
    json_decref(x);
    json_decref(y);
    return whole(out, bad);
}

/* --- Where they part ------------------------------------------------------------------------------------- */

static uint64_t bits_of(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
static json_t *number(double v) {
    return v - v == 0 ? json_real(v) : json_null();
}

/* The first common step whose rows differ in what must be deterministic; null: none does. */
static json_t *first_difference(const struct rows *a, const struct rows *b, size_t common) {
    for (size_t i = 0; i < common; i++) {
        const struct lk_ledger_row *x = &a->list[i], *y = &b->list[i];
        const char *column = bits_of(x->loss) != bits_of(y->loss)                     ? "loss"
                             : bits_of(x->gradient_norm) != bits_of(y->gradient_norm) ? "gradient_norm"
                             : bits_of(x->learning_rate) != bits_of(y->learning_rate) ? "learning_rate"
                             : x->tokens != y->tokens                                 ? "tokens"
                                                                                      : NULL;
        if (column) return json_pack("{s:I, s:s}", "step", (json_int_t)x->step, "column", column);
    }
    return json_null();
}

static double mean(const struct rows *r, size_t from, size_t to) {
    double sum = 0;
    size_t n = 0;
    for (size_t i = from; i < to; i++)
        if (r->list[i].tokens && r->list[i].loss - r->list[i].loss == 0) sum += r->list[i].loss, n++;
    return n ? sum / (double)n : 0.0 / 0.0;
}

/* Mean training losses of the tenths of the common steps: one step says little, since batches differ. */
static json_t *losses(const struct rows *a, const struct rows *b, size_t common) {
    json_t *out = json_array();
    size_t parts = common < PARTS ? common : PARTS;
    int bad = !out;
    for (size_t k = 0; k < parts && !bad; k++) {
        size_t from = common * k / parts, to = common * (k + 1) / parts;
        double x = mean(a, from, to), y = mean(b, from, to);
        bad = json_array_append_new(out, json_pack("{s:I, s:I, s:o, s:o, s:o}", "from", (json_int_t)a->list[from].step,
                                                   "to", (json_int_t)a->list[to - 1].step, "a", number(x), "b", number(y),
                                                   "difference", number(y - x)));
    }
    return whole(out, bad);
}

static json_t *held_out(const struct side *a, const struct side *b) {
    json_t *out = json_array();
    int bad = !out;
    for (size_t i = 0, j = 0; i < a->eval_count && j < b->eval_count && !bad;) {
        const struct lk_eval_row *x = &a->evals[i], *y = &b->evals[j];
        if (x->step == y->step)
            bad = json_array_append_new(out,
                                        json_pack("{s:I, s:o, s:o, s:o}", "step", (json_int_t)x->step, "a", number(x->loss),
                                                  "b", number(y->loss), "difference", number(y->loss - x->loss)));
        i += x->step <= y->step;
        j += y->step <= x->step;
    }
    return whole(out, bad);
}

/* --- The whole ------------------------------------------------------------------------------------------- */

static json_t *about(const struct side *s) {
    json_t *out = lk_run_facts_json(&s->facts);
    int bad = !out || json_object_set_new(out, "name", json_string(s->name)) ||
              json_object_set_new(out, "tokens", json_integer((json_int_t)s->rows.tokens)) ||
              json_object_set_new(out, "seconds", json_real(s->rows.seconds));
    for (const char *const *key =
             (const char *const[]){"identity", "state", "dataset_root", "weights_root", "state_root", NULL};
         *key && !bad; key++) {
        json_t *v = json_object_get(s->record, *key);
        bad = json_object_set_new(out, *key, v ? json_incref(v) : json_null());
    }
    return whole(out, bad);
}

static json_t *compared(const struct side *a, const struct side *b) {
    size_t common = 0, least = a->rows.count < b->rows.count ? a->rows.count : b->rows.count;
    while (common < least && a->rows.list[common].step == b->rows.list[common].step) common++;
    bool identity = lk_root_equal(&a->run.identity, &b->run.identity);
    return json_pack("{s:o, s:o, s:b, s:o, s:I, s:o, s:o, s:o}", "a", about(a), "b", about(b), "identity_equal", identity,
                     "differences", differences(a, b), "common_steps", (json_int_t)common, "first_difference",
                     first_difference(&a->rows, &b->rows, common), "losses", losses(&a->rows, &b->rows, common), "held_out",
                     held_out(a, b));
}

int lk_compare_runs(struct lk_store *store, const char *a, const char *b, json_t **out, struct lk_err *err) {
    struct side x = {.name = a}, y = {.name = b};
    int code = side_read(&x, store, err);
    if (!code) code = side_read(&y, store, err);
    if (!code && !(*out = compared(&x, &y))) code = lk_fail(err, LK_ENOMEM, "no memory to compare runs");
    side_release(&x);
    side_release(&y);
    return code;
}
