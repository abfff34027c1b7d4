/* lockstep table digest|compact|sample-keys: what takes a whole table. */
#include "table.h"

#include <inttypes.h>

/* --- digest ---------------------------------------------------------------------------------------------- */

static int digest(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_kv_txn *txn;
    struct lk_root root;
    struct lk_table_read_stats stats;
    char hex[LK_ROOT_HEX];
    int64_t pinned_ms;
    int code = table_open(c, c->arguments[0], LK_READ, &t);
    if (!code) code = table_begin(c, table_wanted.pin, &txn, &pinned_ms);
    if (!code) {
        if (lk_table_digest(t, txn, pinned_ms, &root, &stats, &err)) code = cmd_fail(&err);
        lk_kv_abort(txn);
    }
    lk_table_close(t);
    if (code) return code;
    lk_root_hex(&root, hex);
    if (c->json)
        return cmd_print_json(
            json_pack("{s:s, s:I, s:I}", "digest", hex, "rows", (json_int_t)stats.rows, "cells", (json_int_t)stats.cells));
    printf("%s  %" PRIu64 " rows, %" PRIu64 " cells\n", hex, stats.rows, stats.cells);
    return CMD_OK;
}
const struct cmd cmd_table_digest = {
    "table digest",
    "TABLE",
    1,
    1,
    "Print the root of a table's cells: equal for equal cells, whatever their history and engine.",
    (const struct cmd_option[]){TABLE_PIN, CMD_END},
    NULL,
    digest,
};

/* --- compact --------------------------------------------------------------------------------------------- */

static int show_compaction(void *arg, const struct lk_table_compact_result *r) {
    lk_progress_show(arg, false, "%" PRIu64 " cells looked at, %" PRIu64 " removed", r->visited, r->removed);
    return cmd_interrupted() ? LK_ESTOPPED : 0;
}
static int compact(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_table_compact_result r = {0};
    struct lk_progress progress;
    int code = table_open(c, c->arguments[0], LK_WRITE, &t);
    if (code) return code;
    table_progress_begin(&progress);
    cmd_catch_signals();
    int failed = lk_table_compact(t, show_compaction, &progress, &r, &err);
    if (progress.line_open) lk_progress_end(&progress);
    lk_table_close(t);
    if (failed && cmd_interrupted()) {
        fprintf(stderr, "lockstep: stopped; the same command goes on from here\n");
        return CMD_FAILED;
    }
    if (failed) return cmd_fail(&err);
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I}", "visited", (json_int_t)r.visited, "removed",
                                        (json_int_t)r.removed, "history", (json_int_t)r.history));
    printf("removed %" PRIu64 " of %" PRIu64 " cells, and %" PRIu64 " rows of history\n", r.removed, r.visited, r.history);
    return CMD_OK;
}
const struct cmd cmd_table_compact = {
    "table compact",
    "TABLE",
    1,
    1,
    "Remove garbage: cells by the families' rules, dropped families and tables, what ended pins held.",
    NULL,
    "Others go on reading and writing. Stopped or killed, it goes on where it was when it is started again.",
    compact,
};

/* --- sample-keys ----------------------------------------------------------------------------------------- */

static uint32_t cuts;

struct samples {
    json_t *list;
    struct lk_buf line;
};
static int print_sample(void *arg, struct lk_bytes row, uint64_t offset) {
    struct samples *s = arg;
    s->line.size = 0;
    if (s->list) {
        json_t *bytes = NULL, *key = cmd_json_text(row.data, row.size, &bytes);
        return json_array_append_new(
            s->list, json_pack("{s:o, s:o, s:I}", "key", key, "key_hex", bytes, "offset", (json_int_t)offset));
    }
    if (kv_write(&s->line, row)) return LK_ENOMEM;
    printf("%s\t%" PRIu64 "\n", s->line.size ? s->line.data : "", offset);
    return 0;
}
static int sample_keys(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_kv_txn *txn;
    struct samples s = {0};
    int64_t pinned_ms;
    int code = table_open(c, c->arguments[0], LK_READ, &t);
    if (!code) code = table_begin(c, table_wanted.pin, &txn, &pinned_ms);
    if (!code) {
        s.list = c->json ? json_array() : NULL;
        int failed = cuts ? lk_table_cuts(t, txn, pinned_ms, cuts, print_sample, &s, &err)
                          : lk_table_samples(t, txn, pinned_ms, print_sample, &s, &err);
        lk_kv_abort(txn);
        code = failed ? cmd_fail(&err) : c->json ? cmd_print_json(json_incref(s.list)) : CMD_OK;
    }
    json_decref(s.list);
    lk_buf_release(&s.line);
    lk_table_close(t);
    return code;
}
const struct cmd cmd_table_sample_keys = {
    "table sample-keys",
    "TABLE",
    1,
    1,
    "Print row keys that cut a table in pieces of about equally many rows, and how many bytes are before each.",
    (const struct cmd_option[]){
        CMD_U32("--cuts", "N", &cuts, 1, 1000000, NULL, "N pieces at most; by default one of 1,024 rows"), TABLE_PIN,
        KV_FORM, CMD_END},
    "The last key, of no bytes, is the table's end. Nothing is scanned.",
    sample_keys,
};
