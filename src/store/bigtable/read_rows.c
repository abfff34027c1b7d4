/* ReadRows: cells as chunks, written straight into the message. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/bigtable/inside.h"
#include <string.h>

#define MESSAGE_BYTES ((size_t)64 << 10) /* a message goes out when it is as large */
/* A row that is larger is split between messages. Google's Go client takes no row that is, so it gets larger messages. */
#define ROW_BYTES    ((size_t)1 << 20)
#define ROW_BYTES_GO ((size_t)64 << 20)
#define KEPT_BYTES   ((size_t)1 << 20)   /* of the buffer, from one message to the next */
#define PART_BYTES   ((size_t)256 << 10) /* of a value that takes several chunks */
#define ROWS_UNTOLD  1000                /* that a filter hides, until the client hears how far the scan is */
#define ROW_TIMES    6                   /* snapshot_ms that one row may take more */
#define STOP_NEWER   1                   /* from the sink: go on in a newer snapshot */

struct reading {
    struct lk__bigtable_call *c;
    struct lk_buf out; /* chunks of the message that is being made */
    size_t chunk;      /* where the last one begins, which may become its row's last */
    bool in_row, tells_scanned;
    size_t row_bytes;
    char family[LK_TABLE_FAMILY_MAX + 1]; /* of the last cell; as its qualifier: */
    struct lk_buf qualifier;
    struct lk_buf last; /* the row that was looked at last */
    uint64_t untold, rows, rows_seen;
    struct lk_table_read_stats stats;
    uint64_t until_ns, row_until_ns;
    struct lk_err *err;
};

/* --- the wire -------------------------------------------------------------------------------------------- */

static size_t varint_size(uint64_t n) {
    return (size_t)(64 - __builtin_clzll(n | 1) + 6) / 7;
}
static char *put_varint(char *to, uint64_t n) {
    for (; n >= 128; n >>= 7) *to++ = (char)(n | 128);
    *to++ = (char)n;
    return to;
}
static char *put_bytes(char *to, int tag, const void *data, size_t size) {
    *to++ = (char)tag;
    to = put_varint(to, size);
    if (size) memcpy(to, data, size);
    return to + size;
}
static size_t bytes_size(size_t size) {
    return 1 + varint_size(size) + size;
}
/* A message that holds one string as its field 1, which is left out when it is empty. */
static size_t wrapped_size(size_t size) {
    return bytes_size(size ? bytes_size(size) : 0);
}
static char *put_wrapped(char *to, int tag, const void *data, size_t size) {
    *to++ = (char)tag;
    to = put_varint(to, size ? bytes_size(size) : 0);
    return size ? put_bytes(to, 0x0a, data, size) : to;
}

enum { ROW_KEY = 0x0a, FAMILY = 0x12, QUALIFIER = 0x1a, TIMESTAMP = 0x20, LABEL = 0x2a, VALUE = 0x32, VALUE_SIZE = 0x38 };
enum { CHUNK = 0x0a, LAST_SCANNED = 0x12 };
static const char commit_row[] = {0x48, 1};

/* --- messages -------------------------------------------------------------------------------------------- */

static int no_memory(struct reading *r) {
    return lk__bigtable_no_memory(r->err);
}

static int flush(struct reading *r) {
    if (r->out.size == 0) return 0;
    int code = lk_grpc_send(r->c->grpc, r->out.data, r->out.size, r->err);
    r->out.size = 0;
    if (r->out.capacity > KEPT_BYTES) lk_buf_release(&r->out);
    if (code == 0 && r->in_row && lk_clock_ns() > r->row_until_ns)
        return lk__bigtable_refuse(r->c, LK_GRPC_UNAVAILABLE, r->err,
                                   "the row took too long to be read; the call may be made again behind the row before it");
    return code;
}

/* The chunk of a cell, or a part of one: first says whether what names the cell belongs into it. */
static int add_chunk(struct reading *r, const struct lk_cell *cell, bool first, struct lk_bytes value, size_t value_size) {
    bool new_row = first && !r->in_row;
    size_t family = strlen(cell->family), label = cell->label ? strlen(cell->label) : 0;
    bool new_family = first && (new_row || strcmp(cell->family, r->family) != 0);
    bool new_column = first && (new_family || cell->qualifier.size != r->qualifier.size ||
                                memcmp(cell->qualifier.data, r->qualifier.data, cell->qualifier.size) != 0);
    bool time = first && cell->timestamp_us;
    size_t size = (new_row ? bytes_size(cell->row.size) : 0) + (new_family ? wrapped_size(family) : 0) +
                  (new_column ? wrapped_size(cell->qualifier.size) : 0) +
                  (time ? 1 + varint_size((uint64_t)cell->timestamp_us) : 0) + (first && label ? bytes_size(label) : 0) +
                  (value.size ? bytes_size(value.size) : 0) + (value_size ? 1 + varint_size(value_size) : 0);
    if (r->out.capacity - r->out.size < size + 16 && lk_buf_reserve(&r->out, size + 16)) return no_memory(r);
    r->chunk = r->out.size;
    char *to = r->out.data + r->out.size;
    *to++ = CHUNK;
    to = put_varint(to, size);
    if (new_row) to = put_bytes(to, ROW_KEY, cell->row.data, cell->row.size);
    if (new_family) to = put_wrapped(to, FAMILY, cell->family, family);
    if (new_column) to = put_wrapped(to, QUALIFIER, cell->qualifier.data, cell->qualifier.size);
    if (time) *to++ = TIMESTAMP, to = put_varint(to, (uint64_t)cell->timestamp_us);
    if (first && label) to = put_bytes(to, LABEL, cell->label, label);
    if (value.size) to = put_bytes(to, VALUE, value.data, value.size);
    if (value_size) *to++ = VALUE_SIZE, to = put_varint(to, value_size);
    r->out.size = (size_t)(to - r->out.data);
    if (new_family) memcpy(r->family, cell->family, family + 1);
    if (new_column) {
        r->qualifier.size = 0;
        if (lk_buf_append(&r->qualifier, cell->qualifier.data, cell->qualifier.size)) return no_memory(r);
    }
    r->in_row = true;
    return 0;
}

/* The last chunk becomes the row's last: two bytes more, and its length may need one more. */
static int commit(struct reading *r) {
    char *at = r->out.data + r->chunk + 1;
    size_t size = 0, old = 0;
    do size |= (size_t)(at[old] & 127) << 7 * old;
    while (at[old++] & 128);
    size_t now = varint_size(size + sizeof commit_row);
    if (lk_buf_reserve(&r->out, now - old + sizeof commit_row)) return no_memory(r);
    at = r->out.data + r->chunk + 1;
    memmove(at + now, at + old, size);
    put_varint(at, size + sizeof commit_row);
    memcpy(at + now + size, commit_row, sizeof commit_row);
    r->out.size += now - old + sizeof commit_row;
    return 0;
}

/* --- the sink -------------------------------------------------------------------------------------------- */

static int tell_cell(void *arg, const struct lk_cell *cell) {
    struct reading *r = arg;
    size_t all = cell->value.size, at = 0;
    int code = r->out.size >= r->row_bytes ? flush(r) : 0;
    while (code == 0 && all - at > PART_BYTES) {
        code = add_chunk(r, cell, at == 0, lk_bytes((const char *)cell->value.data + at, PART_BYTES), all);
        if (code == 0 && r->out.size >= r->row_bytes) code = flush(r);
        at += PART_BYTES;
    }
    return code ? code : add_chunk(r, cell, at == 0, lk_bytes((const char *)cell->value.data + at, all - at), 0);
}

static int tell_scanned(struct reading *r, struct lk_bytes row) {
    int code = flush(r);
    r->untold = 0;
    if (code != 0 || !r->tells_scanned) return code;
    if (lk_buf_reserve(&r->out, row.size + 16)) return no_memory(r);
    r->out.size = (size_t)(put_bytes(r->out.data, LAST_SCANNED, row.data, row.size) - r->out.data);
    return flush(r);
}

static int tell_end(void *arg, struct lk_bytes row, bool told) {
    struct reading *r = arg;
    int code = 0;
    r->rows_seen++;
    if (told) {
        code = commit(r);
        r->in_row = false;
        r->untold = 0;
        r->rows++;
        if (code == 0 && r->out.size >= MESSAGE_BYTES) code = flush(r);
    } else if (++r->untold >= ROWS_UNTOLD) {
        code = lk_grpc_cancelled(r->c->grpc) ? LK_ESTOPPED : tell_scanned(r, row);
    }
    if (code != 0 || lk_clock_ns() < r->until_ns) return code;
    r->last.size = 0;
    return lk_buf_append(&r->last, row.data, row.size) ? no_memory(r) : STOP_NEWER;
}

/* --- the call -------------------------------------------------------------------------------------------- */

/* Field 4 of the client's FeatureFlags, last_scanned_row_responses. A client that says nothing is an old one. */
static bool takes_last_scanned(struct lk_grpc_call *call) {
    struct lk_buf flags = LK_BUF_INIT;
    bool yes = false;
    const char *text = lk_grpc_metadata(call, "bigtable-features", 0);
    unsigned bits = 0, held = 0;
    for (; text && *text && *text != '='; text++) { /* base64, of files or of web addresses */
        char c = *text;
        int v = c >= 'A' && c <= 'Z'   ? c - 'A'
                : c >= 'a' && c <= 'z' ? c - 'a' + 26
                : c >= '0' && c <= '9' ? c - '0' + 52
                : c == '-' || c == '+' ? 62
                : c == '_' || c == '/' ? 63
                                       : -1;
        if (v < 0) break;
        bits = bits << 6 | (unsigned)v;
        if ((held += 6) < 8) continue;
        char byte = (char)(bits >> (held -= 8));
        if (lk_buf_append(&flags, &byte, 1)) break;
    }
    for (size_t i = 0; i + 1 < flags.size; i += 2) { /* they are all true or not there: a tag and a 1 */
        if (flags.data[i] & 7) break;
        if (flags.data[i] == 0x20 && flags.data[i + 1] == 1) yes = true;
    }
    lk_buf_release(&flags);
    return yes;
}

static size_t row_bytes(struct lk_grpc_call *call) {
    const char *agent = lk_grpc_metadata(call, "user-agent", 0);
    return agent && strstr(agent, "grpc-go/") ? ROW_BYTES_GO : ROW_BYTES;
}

/* One snapshot. *more: it became too old, and what is left of `read` is to be read in another one. */
static int read_once(struct reading *r, struct lk_table_read *read, bool *more) {
    struct lk_bigtable *b = r->c->b;
    struct lk_table_sink sink = {tell_cell, tell_end, r};
    struct lk_kv_txn *txn;
    uint64_t rows = r->rows;
    *more = false;
    r->until_ns = lk_clock_ns() + (uint64_t)b->snapshot_ms * 1000000;
    r->row_until_ns = r->until_ns + (uint64_t)b->snapshot_ms * 1000000 * ROW_TIMES;
    int code = lk_kv_begin(b->store->kv, false, &txn, r->err);
    if (code != 0) return code;
    struct lk_table_read_stats stats = {0};
    code = lk_table_read(r->c->table, txn, read, &sink, &stats, r->err);
    r->stats.cells += stats.cells;
    r->stats.visited += stats.visited;
    lk_kv_abort(txn);
    if (code != STOP_NEWER) return code;
    if (read->limit && (int64_t)(r->rows - rows) >= read->limit) return 0;
    if (read->limit) read->limit -= (int64_t)(r->rows - rows);
    bool done;
    code = lk__bigtable_rows_behind(r->c, read, lk_bytes(r->last.data, r->last.size), &done, r->err);
    *more = code == 0 && !done;
    return code;
}

static int send_stats(struct reading *r, uint64_t began_ns) {
    V2(ReadRowsResponse) answer = GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__INIT;
    V2(RequestStats) all = GOOGLE__BIGTABLE__V2__REQUEST_STATS__INIT;
    V2(FullReadStatsView) full = GOOGLE__BIGTABLE__V2__FULL_READ_STATS_VIEW__INIT;
    V2(ReadIterationStats) rows = GOOGLE__BIGTABLE__V2__READ_ITERATION_STATS__INIT;
    V2(RequestLatencyStats) time = GOOGLE__BIGTABLE__V2__REQUEST_LATENCY_STATS__INIT;
    Google__Protobuf__Duration took = GOOGLE__PROTOBUF__DURATION__INIT;
    uint64_t ns = lk_clock_ns() - began_ns;
    took.seconds = (int64_t)(ns / 1000000000);
    took.nanos = (int32_t)(ns % 1000000000);
    time.frontend_server_latency = &took;
    rows.rows_seen_count = (int64_t)r->rows_seen;
    rows.rows_returned_count = (int64_t)r->rows;
    rows.cells_returned_count = (int64_t)r->stats.cells;
    rows.cells_seen_count = (int64_t)(r->stats.visited > r->stats.cells ? r->stats.visited : r->stats.cells);
    full.read_iteration_stats = &rows;
    full.request_latency_stats = &time;
    all.stats_view_case = GOOGLE__BIGTABLE__V2__REQUEST_STATS__STATS_VIEW_FULL_READ_STATS_VIEW;
    all.full_read_stats_view = &full;
    answer.request_stats = &all;
    return lk_grpc_send_message(r->c->grpc, &answer.base, r->err);
}

int lk__bigtable_read_rows(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(ReadRowsRequest) *q = message;
    struct reading r = {.c = c, .err = err, .tells_scanned = takes_last_scanned(c->grpc), .row_bytes = row_bytes(c->grpc)};
    struct lk_filter_program *filter = NULL;
    struct lk_table_read read = {.limit = q->rows_limit, .reversed = q->reversed};
    uint64_t began_ns = lk_clock_ns();
    bool more = true;
    int code = 0;
    if (*q->authorized_view_name || *q->materialized_view_name)
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "views are not supported here; name a table");
    if (q->rows_limit < 0) code = lk_fail(err, LK_EINVAL, "rows_limit is %lld", (long long)q->rows_limit);
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_READ, err);
    if (code == 0) code = lk__bigtable_rows(c, q->rows, &read, err);
    if (code == 0) code = lk__bigtable_filter(c, q->filter, &filter, err);
    read.filter = filter;
    while (code == 0 && more) code = read_once(&r, &read, &more);
    if (code == 0) code = flush(&r);
    if (code == 0 &&
        q->request_stats_view == GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__REQUEST_STATS_VIEW__REQUEST_STATS_FULL)
        code = send_stats(&r, began_ns);
    lk_filter_free(filter);
    lk_buf_release(&r.out);
    lk_buf_release(&r.qualifier);
    lk_buf_release(&r.last);
    return code;
}
