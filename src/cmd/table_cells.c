/* Cells of `lockstep table` as text, and options that say which ones. */
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- columns and cells in arguments ---------------------------------------------------------------------- */

/* A part of an argument, by kv_take. */
static int take_part(const struct cmd_context *c, const char *text, size_t size, struct lk_buf *out) {
    char *part = lk_strndup(text, size);
    int code = part ? kv_take(c, part, out) : cmd_usage_error(c, "out of memory");
    lk_free(part);
    return code;
}

/* "@123" at the end, whole digits. */
static const char *find_time(const char *text, int64_t *out) {
    const char *at = strrchr(text, '@');
    char *end;
    if (!at || at[1] < '0' || at[1] > '9') return NULL;
    errno = 0;
    long long v = strtoll(at + 1, &end, 10);
    if (*end || errno) return NULL;
    *out = v;
    return at;
}

int table_column_take(const struct cmd_context *c, const char *text, bool cell, struct table_column *out) {
    const char *colon = strchr(text, ':'), *equal = NULL, *end = text + strlen(text);
    *out = (struct table_column){.timestamp_us = LK_TABLE_SERVER_TIME};
    size_t family = colon ? (size_t)(colon - text) : strlen(text);
    if (cell && colon) equal = strchr(colon, '=');
    if ((cell && !equal) || family < 1)
        return cmd_usage_error(c,
                               cell ? "\"%s\" is no cell: FAMILY:QUALIFIER=VALUE or FAMILY:QUALIFIER=VALUE@TIMESTAMP"
                                    : "\"%s\" is no column: FAMILY or FAMILY:QUALIFIER",
                               text);
    if (family > LK_TABLE_FAMILY_MAX)
        return cmd_usage_error(c, "the family's name in \"%s\" has more than %d characters", text, LK_TABLE_FAMILY_MAX);
    memcpy(out->family, text, family);
    out->has_qualifier = colon != NULL;
    if (equal) {
        const char *at = find_time(equal, &out->timestamp_us);
        int code = take_part(c, equal + 1, (size_t)((at ? at : end) - equal - 1), &out->value);
        if (code) return code;
        end = equal;
    }
    return colon ? take_part(c, colon + 1, (size_t)(end - colon - 1), &out->qualifier) : CMD_OK;
}

void table_column_release(struct table_column *column) {
    lk_buf_release(&column->qualifier);
    lk_buf_release(&column->value);
}

/* --- which rows and cells -------------------------------------------------------------------------------- */

struct table_wanted table_wanted;

/* The options' filters, in arrays that all of them fit in. */
#define PARTS 256
struct tree {
    struct lk_filter nodes[PARTS];
    const struct lk_filter *lists[PARTS];
    char names[PARTS / 4][LK_TABLE_FAMILY_MAX + 1];
    size_t node_count, list_count, name_count;
};
static struct lk_filter *node(struct tree *t, enum lk_filter_kind kind) {
    if (t->node_count == PARTS) return NULL;
    struct lk_filter *f = &t->nodes[t->node_count++];
    *f = (struct lk_filter){.kind = kind};
    return f;
}
static struct lk_filter *pattern_node(struct tree *t, enum lk_filter_kind kind, const char *text, size_t size) {
    struct lk_filter *f = node(t, kind);
    if (f) f->pattern = lk_bytes(text, size);
    return f;
}
/* One of several: what is alone stands alone. */
static const struct lk_filter *joined(struct tree *t, enum lk_filter_kind kind, const struct lk_filter *const *list,
                                      size_t count) {
    if (count < 2) return count ? list[0] : NULL;
    struct lk_filter *f = node(t, kind);
    if (!f || t->list_count + count > PARTS) return NULL;
    f->parts = (const struct lk_filter *const *)memcpy(t->lists + t->list_count, list, count * sizeof *list);
    f->part_count = count;
    t->list_count += count;
    return f;
}

static bool is_plain(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (strchr("\\.+*?()|[]{}^$", text[i])) return false;
    return true;
}
/* "FAMILY:PATTERN": without signs of patterns the column itself, to which the reader goes at once. */
static const struct lk_filter *column_node(struct tree *t, const char *text, size_t size) {
    const char *colon = memchr(text, ':', size);
    size_t family = (size_t)(colon - text), rest = size - family - 1;
    if (t->name_count == PARTS / 4) return NULL;
    char *name = t->names[t->name_count++]; /* one that is too long is no family's, and so it stays without its end */
    struct lk_filter *f;
    snprintf(name, sizeof t->names[0], "%.*s", (int)family, text);
    if (is_plain(colon + 1, rest)) {
        if ((f = node(t, LK_FILTER_COLUMN_RANGE))) {
            f->family = name;
            f->range = (struct lk_table_range){lk_bytes(colon + 1, rest), lk_bytes(colon + 1, rest), false, true};
        }
        return f;
    }
    const struct lk_filter *chain[2] = {node(t, LK_FILTER_COLUMN_RANGE),
                                        pattern_node(t, LK_FILTER_COLUMN_REGEX, colon + 1, rest)};
    if (!chain[0] || !chain[1]) return NULL;
    ((struct lk_filter *)(uintptr_t)chain[0])->family = name;
    return joined(t, LK_FILTER_CHAIN, chain, 2);
}

/* "a,b" given once or several times: one of all these. */
static int list_node(const struct cmd_context *c, struct tree *t, const struct cmd_list *list, bool columns,
                     const struct lk_filter **out) {
    const struct lk_filter *any[PARTS];
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++)
        for (const char *p = list->items[i];; p++) {
            size_t size = strcspn(p, ",");
            if (!size || (columns && (!memchr(p, ':', size) || *p == ':')))
                return cmd_usage_error(c,
                                       columns ? "--columns %s: give FAMILY:PATTERN, several with commas"
                                               : "--families %s: give patterns, several with commas",
                                       list->items[i]);
            const struct lk_filter *f =
                columns ? column_node(t, p, size) : pattern_node(t, LK_FILTER_FAMILY_REGEX, p, size);
            if (!f || count == PARTS) return cmd_usage_error(c, "too many families and columns: %d at most", PARTS / 4);
            any[count++] = f;
            p += size;
            if (!*p) break;
        }
    *out = joined(t, LK_FILTER_INTERLEAVE, any, count);
    return *out || !count ? CMD_OK : cmd_usage_error(c, "too many families and columns: %d at most", PARTS / 4);
}

static int make_filter(const struct cmd_context *c, struct tree *t, struct table_query *q, bool rows_only) {
    const struct table_wanted *w = &table_wanted;
    const struct lk_filter *chain[8];
    struct lk_filter *parsed = NULL;
    struct lk_err err = {0};
    size_t n = 0;
    if (w->regex) chain[n++] = pattern_node(t, LK_FILTER_ROW_REGEX, w->regex, strlen(w->regex));
    int code = list_node(c, t, &w->families, false, &chain[n]);
    if (code) return code;
    n += chain[n] != NULL;
    code = list_node(c, t, &w->columns, true, &chain[n]);
    if (code) return code;
    n += chain[n] != NULL;
    if (w->latest) {
        struct lk_filter *latest = node(t, LK_FILTER_COLUMN_LIMIT);
        if (latest) latest->count = (int32_t)w->latest;
        chain[n++] = latest;
    }
    if (w->filter) {
        if (lk_filter_parse(w->filter, &parsed, &err)) return cmd_usage_error(c, "--filter: %s", err.message);
        chain[n++] = parsed;
    }
    if (rows_only) {
        struct lk_filter *one = node(t, LK_FILTER_ROW_LIMIT);
        if (one) one->count = 1;
        chain[n++] = one;
        chain[n++] = node(t, LK_FILTER_STRIP_VALUE);
    }
    for (size_t i = 0; i < n; i++)
        if (!chain[i]) code = cmd_usage_error(c, "too many families and columns: %d at most", PARTS / 4);
    const struct lk_filter *all = code ? NULL : joined(t, LK_FILTER_CHAIN, chain, n);
    if (all && lk_filter_compile(all, &q->filter, &err)) code = cmd_usage_error(c, "%s", err.message);
    lk_filter_tree_free(parsed);
    return code;
}

int table_query_make(const struct cmd_context *c, struct table_query *q, bool rows_only) {
    const struct table_wanted *w = &table_wanted;
    struct lk_err err = {0};
    *q = (struct table_query){.read.limit = (int64_t)w->limit, .read.reversed = w->reversed};
    if (w->prefix && (w->start || w->end)) return cmd_usage_error(c, "--prefix, or --start and --end");
    int code = w->prefix || w->start ? kv_take(c, w->prefix ? w->prefix : w->start, &q->from) : CMD_OK;
    if (!code && w->end) code = kv_take(c, w->end, &q->to);
    if (!code && w->prefix) {
        if (lk_buf_reserve(&q->to, q->from.size + 1)) return cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
        lk_kv_prefix_end(table_bytes(&q->from), (unsigned char *)q->to.data, &q->to.size);
    }
    if (code) return code;
    if (q->from.size) q->range.from = table_bytes(&q->from);
    if (q->to.size) q->range.to = table_bytes(&q->to);
    if (q->from.size || q->to.size) {
        q->read.ranges = &q->range;
        q->read.range_count = 1;
    }
    struct tree *t = lk_calloc(1, sizeof *t);
    if (!t) return cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    code = make_filter(c, t, q, rows_only);
    q->read.filter = q->filter;
    lk_free(t);
    return code;
}

void table_query_release(struct table_query *q) {
    lk_filter_free(q->filter);
    lk_buf_release(&q->from);
    lk_buf_release(&q->to);
}

/* --- printing -------------------------------------------------------------------------------------------- */

const char *table_time(int64_t us, char out[40]) {
    struct tm tm;
    time_t seconds = (time_t)(us / 1000000);
    if (!gmtime_r(&seconds, &tm)) return snprintf(out, 40, "%lld us", (long long)us), out;
    size_t n = strftime(out, 30, "%Y/%m/%d-%H:%M:%S", &tm);
    snprintf(out + n, 40 - n, ".%06d", (int)(us % 1000000));
    return out;
}

static int print_line(struct table_printer *p) {
    if (fwrite(p->line.data, 1, p->line.size, stdout) != p->line.size)
        return lk_fail_errno(p->err, "cannot write to standard output");
    p->line.size = 0;
    return 0;
}
static int no_memory(struct table_printer *p) {
    return lk_fail(p->err, LK_ENOMEM, "out of memory for a row");
}

/* cbt's way: "  FAMILY:QUALIFIER" in 42 columns, "@ TIME", and the value below. */
static int print_text(struct table_printer *p, const struct lk_cell *cell) {
    struct lk_buf *b = &p->line;
    char time[40];
    size_t at = b->size;
    int code = lk_buf_printf(b, "  %s:", cell->family);
    if (!code) code = kv_write(b, cell->qualifier);
    size_t wide = b->size - at;
    if (!code)
        code = lk_buf_printf(b, "%*s @ %s", wide < 42 ? (int)(42 - wide) : 0, "", table_time(cell->timestamp_us, time));
    if (!code && cell->label) code = lk_buf_printf(b, " [%s]", cell->label);
    if (!code) code = lk_buf_printf(b, kv_form.hex || kv_form.base64 ? "\n    " : "\n    \"");
    if (!code) code = kv_write(b, cell->value);
    return code ? code : lk_buf_printf(b, kv_form.hex || kv_form.base64 ? "\n" : "\"\n");
}

int table_print_cell(void *printer, const struct lk_cell *cell) {
    struct table_printer *p = printer;
    bool first = !p->open;
    int code = 0;
    if (!first && p->keys_only) return 0;
    if (first && p->json && p->keys_only) {
        code = kv_json_write(&p->line, cell->row, lk_bytes("", 0), true);
    } else if (first && p->json) {
        code = lk_table_json_begin(&p->line, cell->row);
    } else if (first) {
        if (!p->keys_only) code = lk_buf_printf(&p->line, "----------------------------------------\n");
        if (!code) code = kv_write(&p->line, cell->row);
        if (!code) code = lk_buf_append(&p->line, "\n", 1);
    }
    p->open = true;
    p->cells++;
    if (!code && !p->keys_only) code = p->json ? lk_table_json_cell(&p->line, cell, first) : print_text(p, cell);
    return code ? no_memory(p) : p->line.size > (1 << 16) ? print_line(p) : 0;
}

int table_print_row_end(void *printer, struct lk_bytes row, bool told) {
    struct table_printer *p = printer;
    int code = 0;
    (void)row;
    if (!told) return 0;
    if (p->json) code = p->keys_only ? lk_buf_append(&p->line, "\n", 1) : lk_table_json_end(&p->line);
    p->open = false;
    return code ? no_memory(p) : print_line(p);
}
