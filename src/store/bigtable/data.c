/* The data service but for ReadRows: samples, mutations of a row and of many, conditional ones. */
#include "lockstep/base/mem.h"
#include "store/bigtable/inside.h"
#include <string.h>

static int no_views(struct lk__bigtable_call *c, const char *view, struct lk_err *err) {
    return *view ? lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "views are not supported here; name a table") : 0;
}

/* --- SampleRowKeys --------------------------------------------------------------------------------------- */

struct sampling {
    struct lk__bigtable_call *c;
    struct lk_kv_txn *txn;
    size_t sent;
    uint64_t offset;
    struct lk_err *err;
};
static int send_one(struct sampling *s, struct lk_bytes row, uint64_t offset) {
    V2(SampleRowKeysResponse) m = GOOGLE__BIGTABLE__V2__SAMPLE_ROW_KEYS_RESPONSE__INIT;
    m.row_key = (ProtobufCBinaryData){row.size, (uint8_t *)(uintptr_t)row.data};
    m.offset_bytes = (int64_t)offset;
    s->sent++;
    return lk_grpc_send_message(s->c->grpc, &m.base, s->err);
}
static int skip_cell(void *arg, const struct lk_cell *cell) {
    (void)arg, (void)cell;
    return 0;
}
static int last_row(void *arg, struct lk_bytes row, bool told) {
    return told ? send_one(arg, row, ((struct sampling *)arg)->offset) : 0;
}
/* A table that is too small for samples has its last row as one. */
static int send_sample(void *arg, struct lk_bytes row, uint64_t offset) {
    struct sampling *s = arg;
    struct lk_table_read last = {.limit = 1, .reversed = true};
    struct lk_table_sink sink = {skip_cell, last_row, s};
    s->offset = offset;
    int code = row.size || s->sent ? 0 : lk_table_read(s->c->table, s->txn, &last, &sink, NULL, s->err);
    return code ? code : send_one(s, row, offset);
}
static int sample_row_keys(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(SampleRowKeysRequest) *q = message;
    struct lk_kv_txn *txn;
    int code = no_views(c, q->authorized_view_name, err);
    if (code == 0) code = no_views(c, q->materialized_view_name, err);
    if (code == 0 && q->row_range)
        code = lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "row_range is not supported here: ask for all samples");
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_READ, err);
    if (code == 0) code = lk_kv_begin(c->b->store->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk_table_samples(c->table, txn, 0, send_sample, &(struct sampling){c, txn, 0, 0, err}, err);
    lk_kv_abort(txn);
    return code;
}

/* --- mutations ------------------------------------------------------------------------------------------- */

static int mutate_row(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(MutateRowRequest) *q = message;
    V2(MutateRowResponse) answer = GOOGLE__BIGTABLE__V2__MUTATE_ROW_RESPONSE__INIT;
    struct lk_mutation *mutations;
    int code = no_views(c, q->authorized_view_name, err);
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_WRITE, err);
    if (code == 0) code = lk__bigtable_mutations(c, q->mutations, q->n_mutations, &mutations, err);
    if (code == 0)
        code = lk_table_apply(c->table, lk__bigtable_bytes(q->row_key), mutations, q->n_mutations, LK_DURABLE, err);
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}

#define ENTRIES_AT_ONCE 1000

/* What became of entries[0, count), whose first one is the request's `first`. */
static int send_entries(struct lk__bigtable_call *c, const struct lk_table_entry *entries,
                        const enum lk_grpc_status *status, size_t first, size_t count, struct lk_err *err) {
    V2(MutateRowsResponse) answer = GOOGLE__BIGTABLE__V2__MUTATE_ROWS_RESPONSE__INIT;
    V2(MutateRowsResponse__Entry) *all = lk_alloc(count * sizeof *all), **list = lk_alloc(count * sizeof *list);
    Google__Rpc__Status *statuses = lk_alloc(count * sizeof *statuses);
    int code = all && list && statuses ? 0 : lk__bigtable_no_memory(err);
    for (size_t i = 0; i < count && code == 0; i++) {
        statuses[i] = (Google__Rpc__Status)GOOGLE__RPC__STATUS__INIT;
        statuses[i].code = status[i] ? (int)status[i] : (int)lk_grpc_status_of(entries[i].code);
        if (entries[i].code) statuses[i].message = (char *)(uintptr_t)entries[i].err.message;
        all[i] = (V2(MutateRowsResponse__Entry))GOOGLE__BIGTABLE__V2__MUTATE_ROWS_RESPONSE__ENTRY__INIT;
        all[i].index = (int64_t)(first + i);
        all[i].status = &statuses[i];
        list[i] = &all[i];
    }
    answer.n_entries = count;
    answer.entries = list;
    if (code == 0) code = lk_grpc_send_message(c->grpc, &answer.base, err);
    lk_free(all);
    lk_free(list);
    lk_free(statuses);
    return code;
}

/* Entries that can't be converted are not given to the table. */
static int apply_entries(struct lk__bigtable_call *c, V2(MutateRowsRequest__Entry) *const *from, size_t first, size_t count,
                         struct lk_table_entry *entries, struct lk_err *err) {
    enum lk_grpc_status status[ENTRIES_AT_ONCE] = {0};
    size_t place[ENTRIES_AT_ONCE], good = 0;
    struct lk_table_entry *wanted = entries + ENTRIES_AT_ONCE;
    for (size_t i = 0; i < count; i++) {
        struct lk_table_entry *e = &entries[i];
        struct lk_mutation *mutations;
        *e = (struct lk_table_entry){.row = lk__bigtable_bytes(from[i]->row_key), .count = from[i]->n_mutations};
        e->code = lk__bigtable_mutations(c, from[i]->mutations, from[i]->n_mutations, &mutations, &e->err);
        e->mutations = mutations;
        status[i] = c->status;
        c->status = 0;
        if (e->code) continue;
        place[good] = i;
        wanted[good++] = *e;
    }
    int code = good ? lk_table_apply_many(c->table, wanted, good, LK_DURABLE, err) : 0;
    for (size_t i = 0; i < good; i++) entries[place[i]] = wanted[i];
    /* A table that is gone ends the call; what else ends a transaction is said of each of its entries. */
    if (code == LK_ENOTFOUND) return code;
    return send_entries(c, entries, status, first, count, err);
}

static int mutate_rows(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(MutateRowsRequest) *q = message;
    size_t mutations = 0;
    for (size_t i = 0; i < q->n_entries; i++) mutations += q->entries[i]->n_mutations;
    int code = no_views(c, q->authorized_view_name, err);
    if (code == 0 && mutations == 0) code = lk_fail(err, LK_EINVAL, "no mutations");
    if (code == 0 && mutations > LK_TABLE_MUTATIONS_MAX)
        code = lk_fail(err, LK_EINVAL, "%zu mutations in one call; at most %d are possible", mutations,
                       LK_TABLE_MUTATIONS_MAX);
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_WRITE, err);
    if (code != 0) return code;
    struct lk_table_entry *entries = lk_alloc(2 * ENTRIES_AT_ONCE * sizeof *entries);
    if (!entries) return lk__bigtable_no_memory(err);
    for (size_t i = 0, n; i < q->n_entries && code == 0; i += n) {
        n = q->n_entries - i < ENTRIES_AT_ONCE ? q->n_entries - i : ENTRIES_AT_ONCE;
        code = apply_entries(c, q->entries + i, i, n, entries, err);
    }
    lk_free(entries);
    return code;
}

/* --- what depends on the row ----------------------------------------------------------------------------- */

struct check {
    struct lk_table *table;
    struct lk_bytes row;
    struct lk_filter_program *predicate;
    struct lk_mutation *yes, *no;
    size_t yes_count, no_count;
    bool matched;
};
static int check_in(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct check *k = arg;
    return lk_table_check_and_mutate(k->table, txn, k->row, k->predicate, k->yes, k->yes_count, k->no, k->no_count,
                                     &k->matched, err);
}
static int check_and_mutate_row(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(CheckAndMutateRowRequest) *q = message;
    V2(CheckAndMutateRowResponse) answer = GOOGLE__BIGTABLE__V2__CHECK_AND_MUTATE_ROW_RESPONSE__INIT;
    struct check k = {
        .row = lk__bigtable_bytes(q->row_key), .yes_count = q->n_true_mutations, .no_count = q->n_false_mutations};
    int code = no_views(c, q->authorized_view_name, err);
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_WRITE, err);
    /* Whether it matched tells what is there. */
    if (code == 0 && !lk__bigtable_may(c, LK__BIGTABLE_READ, lk_table_name(c->table)))
        code = lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this key may not read %s", q->table_name);
    k.table = c->table;
    if (code == 0) code = lk__bigtable_mutations(c, q->true_mutations, k.yes_count, &k.yes, err);
    if (code == 0) code = lk__bigtable_mutations(c, q->false_mutations, k.no_count, &k.no, err);
    if (code == 0) code = lk__bigtable_filter(c, q->predicate_filter, &k.predicate, err);
    if (code == 0) code = lk_kv_update(c->b->store->kv, check_in, &k, LK_DURABLE, NULL, err);
    lk_filter_free(k.predicate);
    if (code != 0) return code;
    answer.predicate_matched = k.matched;
    return lk_grpc_send_message(c->grpc, &answer.base, err);
}

/* The cells come by family and qualifier, each column once. */
struct change {
    struct lk__bigtable_call *c;
    struct lk_bytes row;
    struct lk_table_rule *rules;
    size_t rule_count, cell_count;
    struct lk_cell *cells; /* (rule_count) */
};
static int keep_cell(void *arg, const struct lk_cell *cell) {
    struct change *m = arg;
    struct lk_cell *to = &m->cells[m->cell_count];
    *to = *cell;
    to->family = lk__bigtable_text(m->c, cell->family, strlen(cell->family));
    to->qualifier.data = lk__bigtable_text(m->c, cell->qualifier.data, cell->qualifier.size);
    to->value.data = lk__bigtable_text(m->c, cell->value.data, cell->value.size);
    if (!to->family || !to->qualifier.data || !to->value.data) return LK_ENOMEM;
    m->cell_count++;
    return 0;
}
static int change_in(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct change *m = arg;
    m->cell_count = 0;
    return lk_table_read_modify_write(m->c->table, txn, m->row, m->rules, m->rule_count, keep_cell, m, err);
}

static int rules_of(struct lk__bigtable_call *c, const V2(ReadModifyWriteRowRequest) * q, struct change *m,
                    struct lk_err *err) {
    m->rule_count = q->n_rules;
    m->rules = lk__bigtable_take(c, (q->n_rules + 1) * sizeof *m->rules);
    m->cells = lk__bigtable_take(c, (q->n_rules + 1) * sizeof *m->cells);
    if (!m->rules || !m->cells) return lk__bigtable_no_memory(err);
    for (size_t i = 0; i < q->n_rules; i++) {
        const V2(ReadModifyWriteRule) *from = q->rules[i];
        m->rules[i] =
            (struct lk_table_rule){.family = from->family_name, .qualifier = lk__bigtable_bytes(from->column_qualifier)};
        if (from->rule_case == GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__RULE_APPEND_VALUE)
            m->rules[i].append = lk__bigtable_bytes(from->append_value);
        else if (from->rule_case == GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__RULE_INCREMENT_AMOUNT)
            m->rules[i].increments = true, m->rules[i].amount = from->increment_amount;
        else
            return lk_fail(err, LK_EINVAL, "rule %zu says neither append_value nor increment_amount", i + 1);
    }
    return 0;
}

static int send_row(struct change *m, struct lk_err *err) {
    struct lk__bigtable_call *c = m->c;
    size_t n = m->cell_count, families = 0;
    V2(ReadModifyWriteRowResponse) answer = GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_ROW_RESPONSE__INIT;
    V2(Row) row = GOOGLE__BIGTABLE__V2__ROW__INIT;
    V2(Family) *f = lk__bigtable_take(c, (n + 1) * sizeof *f), **f_list = lk__bigtable_take(c, (n + 1) * sizeof *f_list);
    V2(Column) *q = lk__bigtable_take(c, (n + 1) * sizeof *q), **q_list = lk__bigtable_take(c, (n + 1) * sizeof *q_list);
    V2(Cell) *v = lk__bigtable_take(c, (n + 1) * sizeof *v), **v_list = lk__bigtable_take(c, (n + 1) * sizeof *v_list);
    if (!f || !f_list || !q || !q_list || !v || !v_list) return lk__bigtable_no_memory(err);
    for (size_t i = 0; i < n; i++) {
        const struct lk_cell *cell = &m->cells[i];
        v[i] = (V2(Cell))GOOGLE__BIGTABLE__V2__CELL__INIT;
        v[i].timestamp_micros = cell->timestamp_us;
        v[i].value = (ProtobufCBinaryData){cell->value.size, (uint8_t *)(uintptr_t)cell->value.data};
        v_list[i] = &v[i];
        q[i] = (V2(Column))GOOGLE__BIGTABLE__V2__COLUMN__INIT;
        q[i].qualifier = (ProtobufCBinaryData){cell->qualifier.size, (uint8_t *)(uintptr_t)cell->qualifier.data};
        q[i].n_cells = 1;
        q[i].cells = &v_list[i];
        q_list[i] = &q[i];
        if (families == 0 || strcmp(f[families - 1].name, cell->family) != 0) {
            f[families] = (V2(Family))GOOGLE__BIGTABLE__V2__FAMILY__INIT;
            f[families].name = (char *)(uintptr_t)cell->family;
            f[families].columns = &q_list[i];
            f_list[families] = &f[families];
            families++;
        }
        f[families - 1].n_columns++;
    }
    row.key = (ProtobufCBinaryData){m->row.size, (uint8_t *)(uintptr_t)m->row.data};
    row.n_families = families;
    row.families = f_list;
    answer.row = &row;
    return lk_grpc_send_message(c->grpc, &answer.base, err);
}

static int read_modify_write_row(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(ReadModifyWriteRowRequest) *q = message;
    struct change m = {.c = c, .row = lk__bigtable_bytes(q->row_key)};
    int code = no_views(c, q->authorized_view_name, err);
    if (code == 0) code = lk__bigtable_table(c, q->table_name, LK__BIGTABLE_WRITE, err);
    if (code == 0 && !lk__bigtable_may(c, LK__BIGTABLE_READ, lk_table_name(c->table)))
        code = lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this key may not read %s", q->table_name);
    if (code == 0) code = rules_of(c, q, &m, err);
    if (code == 0) code = lk_kv_update(c->b->store->kv, change_in, &m, LK_DURABLE, NULL, err);
    return code ? code : send_row(&m, err);
}

/* --- the rest -------------------------------------------------------------------------------------------- */

static int ping_and_warm(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const V2(PingAndWarmRequest) *q = message;
    V2(PingAndWarmResponse) answer = GOOGLE__BIGTABLE__V2__PING_AND_WARM_RESPONSE__INIT;
    struct lk__bigtable_name name;
    int code = lk__bigtable_name_parse(c, q->name, NULL, &name, err);
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}
static int no_streams(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    (void)message;
    return lk__bigtable_refuse(
        c, LK_GRPC_UNIMPLEMENTED, err,
        "change streams are not supported here; `lockstep table diff` tells what changed between pins");
}
static int no_sql(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    (void)message;
    return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "queries in SQL are not supported here");
}

#define METHOD(name, kind, type, handle)                                                                                   \
    { "/google.bigtable.v2.Bigtable/" name, kind, &google__bigtable__v2__##type##__descriptor, handle }
const struct lk__bigtable_method lk__bigtable_data[] = {
    METHOD("ReadRows", LK_GRPC_SERVER_STREAM, read_rows_request, lk__bigtable_read_rows),
    METHOD("SampleRowKeys", LK_GRPC_SERVER_STREAM, sample_row_keys_request, sample_row_keys),
    METHOD("MutateRow", LK_GRPC_UNARY, mutate_row_request, mutate_row),
    METHOD("MutateRows", LK_GRPC_SERVER_STREAM, mutate_rows_request, mutate_rows),
    METHOD("CheckAndMutateRow", LK_GRPC_UNARY, check_and_mutate_row_request, check_and_mutate_row),
    METHOD("ReadModifyWriteRow", LK_GRPC_UNARY, read_modify_write_row_request, read_modify_write_row),
    METHOD("PingAndWarm", LK_GRPC_UNARY, ping_and_warm_request, ping_and_warm),
    {"/google.bigtable.v2.Bigtable/ReadChangeStream", LK_GRPC_SERVER_STREAM, NULL, no_streams},
    {"/google.bigtable.v2.Bigtable/GenerateInitialChangeStreamPartitions", LK_GRPC_SERVER_STREAM, NULL, no_streams},
    {"/google.bigtable.v2.Bigtable/ExecuteQuery", LK_GRPC_SERVER_STREAM, NULL, no_sql},
    {"/google.bigtable.v2.Bigtable/PrepareQuery", LK_GRPC_UNARY, NULL, no_sql},
};
const size_t lk__bigtable_data_count = sizeof lk__bigtable_data / sizeof *lk__bigtable_data;
