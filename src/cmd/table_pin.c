/* lockstep table pin, diff */
#include "table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- pins ------------------------------------------------------------------------------------------------ */

static int64_t lease_ms;

/* "90s", "30m", "12h", "7d", or "none". */
static int take_lease(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (strcmp(text, "none") == 0) return *(int64_t *)o->any = 0, CMD_OK;
    for (size_t i = 0; i < 5 && *text >= '0' && *text <= '9' && n && n < 1000000000; i++)
        if (strcmp(end, units[i].unit) == 0) return *(int64_t *)o->any = (int64_t)n * units[i].ms, CMD_OK;
    return cmd_usage_error(c, "%s %s: give a time as 90s, 30m, 12h or 7d, or none", o->name, text);
}

static int show_pin(void *arg, const struct lk_table_pin *pin) {
    json_t *list = arg;
    char at[40], end[40] = "none";
    if (list) {
        json_t *tables = json_array();
        for (size_t i = 0; i < pin->table_count; i++) json_array_append_new(tables, json_string(pin->tables[i]));
        return json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:o}", "name", pin->name, "pinned_ms",
                                                     (json_int_t)pin->pinned_ms, "expires_ms", (json_int_t)pin->expires_ms,
                                                     "tables", tables));
    }
    table_time(pin->pinned_ms * 1000, at);
    if (pin->expires_ms) table_time(pin->expires_ms * 1000, end);
    printf("%-20s at %.23s  until %.23s ", pin->name, at, end);
    for (size_t i = 0; i < pin->table_count; i++) printf(" %s", pin->tables[i]);
    putchar('\n');
    return 0;
}

static int create_pin(struct cmd_context *c, struct lk_err *err) {
    const char *name = c->arguments[1];
    int64_t at = 0;
    if (c->argument_count < 3) return cmd_usage_error(c, "TABLE is missing: which tables does the pin hold?");
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_table_pin(c->store, name, (const char *const *)c->arguments + 2, (size_t)c->argument_count - 2, lease_ms, &at,
                     err))
        return cmd_fail(err);
    if (c->json) return cmd_print_json(json_pack("{s:s, s:I}", "name", name, "pinned_ms", (json_int_t)at));
    printf("pinned %s at %" PRId64 "\n", name, at);
    return CMD_OK;
}
static int list_pins(struct cmd_context *c, struct lk_err *err) {
    if (c->argument_count > 1) return cmd_usage_error(c, "unexpected argument \"%s\"", c->arguments[1]);
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    json_t *list = c->json ? json_array() : NULL;
    if (lk_table_pins(c->store, show_pin, list, err)) {
        json_decref(list);
        return cmd_fail(err);
    }
    return c->json ? cmd_print_json(list) : CMD_OK;
}
static int renew_pin(struct cmd_context *c, struct lk_err *err) {
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    return lk_table_pin_renew(c->store, c->arguments[1], lease_ms, err) ? cmd_fail(err) : CMD_OK;
}
static int release_pin(struct cmd_context *c, struct lk_err *err) {
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    return lk_table_pin_release(c->store, c->arguments[1], err) ? cmd_fail(err) : CMD_OK;
}

static int pin(struct cmd_context *c) {
    static const struct {
        const char *name;
        int (*run)(struct cmd_context *, struct lk_err *);
        bool named, alone;
    } verbs[] = {{"create", create_pin, true, false},
                 {"list", list_pins, false, true},
                 {"renew", renew_pin, true, true},
                 {"release", release_pin, true, true}};
    struct lk_err err = {0};
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(c->arguments[0], verbs[i].name) != 0) continue;
        if (verbs[i].named && c->argument_count < 2) return cmd_usage_error(c, "PIN is missing");
        if (verbs[i].alone && c->argument_count > 2)
            return cmd_usage_error(c, "unexpected argument \"%s\"", c->arguments[2]);
        return verbs[i].run(c, &err);
    }
    return cmd_usage_error(c, "%s: give create, list, renew or release", c->arguments[0]);
}
const struct cmd cmd_table_pin = {
    "table pin",
    "create|list|renew|release [PIN] [TABLE]...",
    1,
    -1,
    "Keep a state of one or more tables readable, list such pins, renew and release them.",
    (const struct cmd_option[]){
        CMD_CALL("--lease", "TIME", &lease_ms, take_lease, "none",
                 "create, renew: the pin goes by itself after this time from now (90s, 30m, 12h, 7d)"),
        CMD_END},
    "`create PIN TABLE...` takes all these tables at one moment. What is written, deleted, altered or compacted afterwards "
    "changes nothing for --pin of read, lookup, count, export, digest, copy and for diff. Without --lease a pin stays "
    "until "
    "it is released, and what it needs takes room as long.",
    pin,
};

/* --- diff ------------------------------------------------------------------------------------------------ */

struct differ {
    bool json;
    uint64_t added, removed, changed;
    struct lk_buf line;
    struct lk_err *err;
};
static int write_json(struct differ *d, const char *what, const struct lk_cell *before, const struct lk_cell *after) {
    struct lk_buf *b = &d->line;
    int code = lk_buf_printf(b, "{\"change\":\"%s\"", what);
    for (int i = 0; i < 2 && !code; i++) {
        const struct lk_cell *cell = i ? after : before;
        if (!cell) continue;
        code = lk_buf_printf(b, ",\"%s\":", i ? "after" : "before");
        if (!code) code = lk_table_json_begin(b, cell->row);
        if (!code) code = lk_table_json_cell(b, cell, true);
        if (!code) code = lk_table_json_end(b);
        if (!code) b->size--; /* without the line's end */
    }
    return code ? code : lk_buf_printf(b, "}\n");
}
static int write_text(struct differ *d, char sign, const struct lk_cell *before, const struct lk_cell *after) {
    const struct lk_cell *cell = after ? after : before;
    struct lk_buf *b = &d->line;
    int code = lk_buf_printf(b, "%c ", sign);
    if (!code) code = kv_write(b, cell->row);
    if (!code) code = lk_buf_printf(b, "\t%s:", cell->family);
    if (!code) code = kv_write(b, cell->qualifier);
    if (!code) code = lk_buf_printf(b, "@%" PRId64 "\t", cell->timestamp_us);
    if (!code) code = kv_write(b, (before ? before : after)->value);
    if (!code && before && after) code = lk_buf_printf(b, "\t");
    if (!code && before && after) code = kv_write(b, after->value);
    return code ? code : lk_buf_append(b, "\n", 1);
}
static int tell_change(void *arg, const struct lk_cell *before, const struct lk_cell *after) {
    struct differ *d = arg;
    d->added += !before;
    d->removed += !after;
    d->changed += before && after;
    d->line.size = 0;
    int code = d->json ? write_json(d,
                                    !before  ? "added"
                                    : !after ? "removed"
                                             : "changed",
                                    before, after)
                       : write_text(d,
                                    !before  ? '+'
                                    : !after ? '-'
                                             : '~',
                                    before, after);
    if (code) return lk_fail(d->err, LK_ENOMEM, "out of memory for a cell");
    if (fwrite(d->line.data, 1, d->line.size, stdout) == d->line.size) return 0;
    return lk_fail_errno(d->err, "cannot write to standard output");
}

static int diff(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_kv_txn *txn;
    int64_t from = 0, to = 0;
    struct differ d = {.json = c->json, .err = &err};
    const char *second = c->argument_count == 3 && strcmp(c->arguments[2], "now") != 0 ? c->arguments[2] : NULL;
    int code = table_open(c, c->arguments[0], LK_READ, &t);
    if (!code && second && table_pin_time(c->store, second, &to, &err)) code = cmd_fail(&err);
    if (!code) code = table_begin(c, c->arguments[1], &txn, &from);
    if (!code) {
        if (lk_table_diff(t, txn, from, to, tell_change, &d, &err)) code = cmd_fail(&err);
        lk_kv_abort(txn);
    }
    if (!code && !c->json) {
        fflush(stdout);
        fprintf(stderr, "cells: %" PRIu64 " added, %" PRIu64 " removed, %" PRIu64 " changed\n", d.added, d.removed,
                d.changed);
    }
    lk_buf_release(&d.line);
    lk_table_close(t);
    return code;
}
const struct cmd cmd_table_diff = {
    "table diff",
    "TABLE PIN [PIN|now]",
    2,
    3,
    "Print what changed in a table from a pin to a later one, or to now.",
    (const struct cmd_option[]){KV_FORM, CMD_END},
    "A line for each cell: + added, - removed, ~ with another value; the row, a tab, FAMILY:QUALIFIER@TIMESTAMP, a tab, "
    "the "
    "value (of ~ the old one, a tab, the new one). With --json a line of JSON with the cell before and after. Only rows "
    "that "
    "were written in between are looked at, unless a rule counts ages.",
    diff,
};
