/* The rows of runs, for whoever looks through a store. */
#include "ledger.h"
#include <string.h>

/* "X/RUN/" or "X/RUN/" and a step: the run's name. */
static int name_size(struct lk_bytes key, size_t begin, size_t end) {
    return key.size > begin + end ? (int)(key.size - begin - end) : 0;
}

static int run_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *err) {
    struct lk_err why;
    json_t *record = lk_json_parse(value.data, value.size, "its record", &why);
    bool whole = json_is_object(record);
    if (!record && why.code == LK_ENOMEM) return lk_fail(err, LK_ENOMEM, "%s", why.message);
    if (record && !whole) lk_fail(&why, LK_ECORRUPT, "its record is JSON, but no object");
    json_decref(record);
    if (whole) return lk_row_tell_hex(value.data, value.size, tell, arg);
    const char *name = (const char *)key.data + 6;
    int n = name_size(key, 6, 0);
    return lk_fail(err, LK_ECORRUPT,
                   "the row %.*s is damaged, %s; restore the store from a copy, or remove what is left of it: "
                   "`lockstep runs rm %.*s`",
                   (int)key.size, (const char *)key.data, why.message, n, name);
}
static int print_run(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out) {
    (void)value;
    return lk_buf_printf(out, "run %.*s", name_size(key, 6, 0), (const char *)key.data + 6);
}

/* A checkpoint's state counts while it is kept. */
static int checkpoint_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg,
                            struct lk_err *err) {
    struct lk_root root;
    const char *v = value.data, *name = (const char *)key.data + 2;
    int n = name_size(key, 2, 5);
    if (value.size != 65)
        return lk_fail(err, LK_ECORRUPT,
                       "the row of a checkpoint of run %.*s is damaged; restore the store from a copy, or remove the run: "
                       "`lockstep runs rm %.*s`",
                       n, name, n, name);
    memcpy(root.bytes, v, sizeof root.bytes);
    return v[64] == 1 ? tell(arg, &root) : LK_OK;
}
static int print_checkpoint(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out) {
    (void)value;
    return lk_buf_printf(out, "checkpoint of run %.*s at step %u", name_size(key, 2, 5), (const char *)key.data + 2,
                         key.size >= 4 ? lk__train_step_of_key(key) : 0);
}

static const struct lk_row_kind rows[] = {
    {.prefix = "r/run/", .name = "runs", .holds = run_holds, .print = print_run},
    {.prefix = "c/", .name = "checkpoints", .holds = checkpoint_holds, .print = print_checkpoint},
    {.prefix = "l/", .name = "steps"},
    {.prefix = "e/", .name = "evaluations"},
    {0},
};
lk_row_kinds lk_train_rows(void) {
    static const struct lk_row_kind *const kinds[] = {rows, NULL};
    return kinds;
}
