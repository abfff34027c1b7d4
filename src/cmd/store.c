/* lockstep store show, move */
#include "cmd.h"

#include "lockstep/store/census.h"
#include "lockstep/store/move.h"
#include "lockstep/train/train.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- show ------------------------------------------------------------------------------------------------ */

struct showing {
    struct lk_census census;
    struct lk_kv_stats stats;
    json_t *leases, *names, *runs;
};

static int add_lease(void *arg, const char *kind, const char *name, const struct lk_lease_state *state) {
    json_t *lease = json_pack("{s:s, s:s, s:s}", "kind", kind, "name", name, "holder", state->holder);
    return json_array_append_new(arg, lease) ? LK_ENOMEM : 0;
}
/* "n/KIND/NAME" */
static int add_name(void *arg, struct lk_bytes key, struct lk_bytes value) {
    const char *kind = (const char *)key.data + 2, *slash = memchr(kind, '/', key.size - 2);
    char word[160];
    (void)value;
    if (!slash) return 0;
    snprintf(word, sizeof word, "%.*s", (int)(slash - kind), kind);
    json_t *list = json_object_get(arg, word);
    if (!list && (json_object_set_new(arg, word, json_array()) || !(list = json_object_get(arg, word)))) return LK_ENOMEM;
    size_t size = key.size - 3 - (size_t)(slash - kind);
    return json_array_append_new(list, json_stringn(slash + 1, size)) ? LK_ENOMEM : 0;
}
static int add_run(void *arg, const char *name, json_t *record) {
    const char *state = json_string_value(json_object_get(record, "state"));
    json_t *run = json_pack("{s:s, s:s, s:I, s:I}", "name", name, "state", state ? state : "damaged", "step",
                            json_integer_value(json_object_get(record, "step")), "steps",
                            json_integer_value(json_object_get(record, "steps")));
    return json_array_append_new(arg, run) ? LK_ENOMEM : 0;
}
static int look(struct lk_store *s, struct showing *w, struct lk_err *err) {
    struct lk_kv_txn *txn;
    w->leases = json_array(), w->names = json_object(), w->runs = json_array();
    int code = lk_store_census(s, lk_train_rows(), &w->census, err);
    if (!code) code = lk_kv_stats(s->kv, &w->stats, err);
    if (!code) code = lk_lease_list(s, add_lease, w->leases, err);
    if (code || (code = lk_kv_begin(s->kv, false, &txn, err))) return code;
    code = lk_kv_scan(txn, lk_bytes("n/", 2), lk_bytes("n0", 2), add_name, w->names, err);
    if (!code) code = lk_record_list(txn, "run", add_run, w->runs, err);
    lk_kv_abort(txn);
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory for what %s holds", s->url) : code;
}

static json_t *kinds_json(const struct lk_census *c) {
    json_t *list = json_array();
    for (size_t i = 0; i < c->kind_count; i++) {
        const struct lk_row_kind *k = c->kinds[i].kind;
        json_array_append_new(list, json_pack("{s:s?, s:s?, s:I, s:I}", "prefix", k ? k->prefix : NULL, "name",
                                              k ? k->name : NULL, "rows", (json_int_t)c->kinds[i].rows, "bytes",
                                              (json_int_t)c->kinds[i].bytes));
    }
    return list;
}
static int print_json(const struct lk_store *s, const struct showing *w) {
    const struct lk_census *c = &w->census;
    char root[LK_ROOT_HEX];
    json_t *reached = c->reach_known
                          ? json_pack("{s:I, s:I}", "blobs", (json_int_t)c->reached, "bytes", (json_int_t)c->reached_bytes)
                          : json_null();
    return cmd_print_json(json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:o, s:{s:I, s:I}, s:o, s:s?, s:O, s:O, s:O}", "store", s->url,
        "engine", w->stats.engine, "blobs_at", s->blobs_url, "format", "0", "rows", (json_int_t)c->rows, "row_bytes",
        (json_int_t)c->row_bytes, "disk_bytes", (json_int_t)w->stats.size_bytes, "rows_root",
        lk_root_hex(&c->rows_root, root), "timestamp_ms", (json_int_t)w->stats.timestamp_ms, "kinds", kinds_json(c),
        "blobs", "count", (json_int_t)c->blobs, "bytes", (json_int_t)c->blob_bytes, "reachable", reached, "unreachable_why",
        c->reach_known ? NULL : c->why.message, "leases", w->leases, "names", w->names, "runs", w->runs));
}

static void print_rows(const struct showing *w) {
    const struct lk_census *c = &w->census;
    char bytes[32], disk[32], root[LK_ROOT_HEX];
    printf("rows     %" PRIu64 ", %s; %s on the disk\nroot     %s\n", c->rows, lk_format_bytes(c->row_bytes, bytes),
           lk_format_bytes(w->stats.size_bytes, disk), lk_root_hex(&c->rows_root, root));
    for (size_t i = 0; i < c->kind_count; i++) {
        const struct lk_row_kind *k = c->kinds[i].kind;
        printf("         %9" PRIu64 "  %9s  %s\n", c->kinds[i].rows, lk_format_bytes(c->kinds[i].bytes, bytes),
               !k        ? "of no kind that this release knows"
               : k->name ? k->name
                         : k->prefix);
    }
}
static void print_blobs(const struct lk_store *s, const struct lk_census *c) {
    char bytes[32], reached[32], rest[32];
    printf("blobs    %" PRIu64 ", %s, at %s\n", c->blobs, lk_format_bytes(c->blob_bytes, bytes), s->blobs_url);
    if (!c->reach_known)
        printf("         which of them are needed is not known: %s\n", c->why.message);
    else if (c->reached < c->blobs)
        printf("         %" PRIu64 " (%s) are needed; `lockstep gc` may remove %" PRIu64 " (%s)\n", c->reached,
               lk_format_bytes(c->reached_bytes, reached), c->blobs - c->reached,
               lk_format_bytes(c->blob_bytes - c->reached_bytes, rest));
    else
        printf("         all are needed\n");
}
#define SHOWN 20 /* names of a kind, and runs */
static void print_names(json_t *names) {
    const char *kind;
    json_t *list, *name;
    size_t i;
    json_object_foreach(names, kind, list) {
        printf("%-8s %zu:", kind, json_array_size(list));
        json_array_foreach(list, i, name) if (i < SHOWN) printf(" %s", json_string_value(name));
        puts(json_array_size(list) > SHOWN ? " ..." : "");
    }
}
static void print_runs(json_t *runs) {
    json_t *run;
    size_t i;
    printf("runs     %zu%s", json_array_size(runs), json_array_size(runs) ? ":" : "");
    json_array_foreach(runs, i, run) if (i < SHOWN) printf(
        "%s %s (%s, step %lld of %lld)", i ? "," : "", json_string_value(json_object_get(run, "name")),
        json_string_value(json_object_get(run, "state")), (long long)json_integer_value(json_object_get(run, "step")),
        (long long)json_integer_value(json_object_get(run, "steps")));
    puts(json_array_size(runs) > SHOWN ? " ..." : "");
}
static int print_text(const struct lk_store *s, const struct showing *w) {
    json_t *lease;
    size_t i;
    printf("store    %s\nengine   %s, format 0\n", s->url, w->stats.engine);
    print_rows(w);
    print_blobs(s, &w->census);
    print_names(w->names);
    print_runs(w->runs);
    printf("leases   %s", json_array_size(w->leases) ? "" : "none is held\n");
    json_array_foreach(w->leases, i, lease)
        printf("%s%s/%s, held by %s\n", i ? "         " : "", json_string_value(json_object_get(lease, "kind")),
               json_string_value(json_object_get(lease, "name")), json_string_value(json_object_get(lease, "holder")));
    return CMD_OK;
}

static int show(struct cmd_context *c) {
    struct lk_err err = {0};
    struct showing w = {0};
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code = look(c->store, &w, &err) ? cmd_fail(&err) : c->json ? print_json(c->store, &w) : print_text(c->store, &w);
    json_decref(w.leases);
    json_decref(w.names);
    json_decref(w.runs);
    return code;
}
const struct cmd cmd_store_show = {
    "store show",
    "",
    0,
    0,
    "Show where a store is, and what it holds.",
    NULL,
    "All rows are read, and all blobs listed. The root is of all rows: equal roots are equal rows, on whatever engine.",
    show,
};

/* --- move ------------------------------------------------------------------------------------------------ */

static struct {
    const char *from_blobs, *to_blobs;
    uint32_t copies;
} moving;

static void tell(void *arg, const struct lk_move_status *s) {
    char done[32], left[32];
    if (s->blobs_left)
        lk_progress_show(arg, false, "%sblobs: %" PRIu64 " copied, %s; %" PRIu64 " left, %s", s->last ? "last " : "",
                         s->blobs, lk_format_bytes(s->bytes, done), s->blobs_left, lk_format_bytes(s->bytes_left, left));
    else
        lk_progress_show(arg, false, "%srows: %" PRIu64, s->last ? "last " : "", s->rows);
}
static bool stop(void *arg) {
    (void)arg;
    return cmd_interrupted();
}

static int print_moved(const struct cmd_context *c, const struct lk_move_place *to, const struct lk_move_result *r) {
    char root[LK_ROOT_HEX], all[32], copied[32], rows[32];
    char *shown = lk_kv_shown(to->url);
    lk_root_hex(&r->rows_root, root);
    if (c->json) {
        int code = cmd_print_json(
            json_pack("{s:s?, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f}", "store", shown, "resumed",
                      r->resumed, "blobs", (json_int_t)r->blobs, "blob_bytes", (json_int_t)r->blob_bytes, "copied_blobs",
                      (json_int_t)r->copied_blobs, "copied_bytes", (json_int_t)r->copied_bytes, "rows", (json_int_t)r->rows,
                      "row_bytes", (json_int_t)r->row_bytes, "put_rows", (json_int_t)r->put_rows, "deleted_rows",
                      (json_int_t)r->deleted_rows, "rows_root", root, "waited_seconds", r->waited_s));
        lk_free(shown);
        return code;
    }
    printf("%s has %" PRIu64 " blobs, %s, of which %" PRIu64 " (%s) were copied now\n", shown ? shown : "the new store",
           r->blobs, lk_format_bytes(r->blob_bytes, all), r->copied_blobs, lk_format_bytes(r->copied_bytes, copied));
    printf("and %" PRIu64
           " rows beside the format, %s, root %s, equal to the old one's; nobody could write there for %.2f s\n",
           r->rows, lk_format_bytes(r->row_bytes, rows), root, r->waited_s);
    printf("the old store is as it was: remove it when nothing writes to it any more\n");
    lk_free(shown);
    return CMD_OK;
}

static int store_move(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_move_result r;
    struct lk_progress progress;
    const char *environment = getenv("LOCKSTEP_BLOBS");
    struct lk_move_place from = {c->arguments[0], moving.from_blobs}, to = {c->arguments[1], moving.to_blobs};
    if (c->blobs_url && c->blobs_url != environment)
        return cmd_usage_error(c, "--blobs: of which of the two? Give --from-blobs, --to-blobs or both");
    if (cmd_hide_password(c, &from.url) || cmd_hide_password(c, &to.url)) return CMD_USAGE;
    lk_progress_init(&progress, stderr);
    cmd_catch_signals();
    struct lk_move_options o = {.threads = (int)moving.copies, .tell = tell, .stop = stop, .arg = &progress};
    int code = lk_store_move(&from, &to, &o, &r, &err);
    lk_progress_end(&progress);
    return code ? cmd_fail(&err) : print_moved(c, &to, &r);
}
const struct cmd cmd_store_move = {
    "store move",
    "FROM TO",
    2,
    2,
    "Copy a whole store, rows and blobs, to another place, and verify it.",
    (const struct cmd_option[]){
        CMD_STRING("--from-blobs", "URL", &moving.from_blobs, NULL, "where FROM has its blobs, if not in its folder"),
        CMD_STRING("--to-blobs", "URL", &moving.to_blobs, NULL, "where TO gets its blobs, if not in its folder"),
        CMD_U32("--copies", "N", &moving.copies, 1, 32, "4", "blobs that are copied at once, 16 MiB of memory each"),
        CMD_END},
    "FROM and TO are file:DIR or postgresql://...; blobs are in a folder or s3://BUCKET/PREFIX. TO is an empty place, or "
    "half of a move from FROM, which goes on where it was stopped or killed; until it is whole nothing else opens it.\n"
    "Others may go on writing to FROM; what they commit comes along, and at the end they wait for a moment. A run that is "
    "being trained there must end before. FROM stays as it was. --store, --blobs and LOCKSTEP_BLOBS are not for this "
    "command.",
    store_move,
};
