/* Tables, families and rules of garbage: to and from the admin API's messages. */
#include "store/bigtable/schema.h"
#include "lockstep/base/mem.h"
#include <string.h>

#define RULE(name) GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_##name

/* --- from messages --------------------------------------------------------------------------------------- */

static int age_of(const Google__Protobuf__Duration *d, int64_t *us, struct lk_err *err) {
    if (d->seconds < 0 || d->nanos < 0 || d->nanos > 999999999 || d->seconds > INT64_MAX / 1000000 - 1)
        return lk_fail(err, LK_EINVAL, "max_age of %lld s and %d ns", (long long)d->seconds, d->nanos);
    *us = (d->seconds * 1000 + (d->nanos + 999999) / 1000000) * 1000; /* whole milliseconds, not less than asked for */
    return *us ? 0 : lk_fail(err, LK_EINVAL, "max_age is 0; it has at least a millisecond");
}

static int rule_of(struct lk__bigtable_call *c, const ADMIN(GcRule) * from, unsigned depth, struct lk_gc_rule *to,
                   struct lk_err *err) {
    ADMIN(GcRule) *const *parts = NULL;
    size_t count = 0;
    int code = 0;
    *to = (struct lk_gc_rule){.kind = LK_GC_NEVER};
    switch (from->rule_case) {
    case RULE(MAX_NUM_VERSIONS):
        *to = (struct lk_gc_rule){.kind = LK_GC_MAX_VERSIONS, .count = from->max_num_versions};
        if (to->count < 1) return lk_fail(err, LK_EINVAL, "max_num_versions is %d; it is at least 1", to->count);
        return 0;
    case RULE(MAX_AGE):
        to->kind = LK_GC_MAX_AGE;
        return age_of(from->max_age, &to->age_us, err);
    case RULE(INTERSECTION):
        to->kind = LK_GC_INTERSECTION;
        parts = from->intersection->rules, count = from->intersection->n_rules;
        break;
    case RULE(UNION):
        to->kind = LK_GC_UNION;
        parts = from->union_->rules, count = from->union_->n_rules;
        break;
    default:
        return 0;
    }
    if (depth > 8) return lk_fail(err, LK_EINVAL, "a gc_rule in a gc_rule, more than 8 deep");
    if (count == 0 || count > LK_GC_PARTS_MAX)
        return lk_fail(err, LK_EINVAL, "a union or intersection of %zu rules; 1 to %d are possible", count,
                       LK_GC_PARTS_MAX);
    to->parts = lk__bigtable_take(c, count * sizeof *to->parts);
    if (!to->parts) return lk__bigtable_no_memory(err);
    for (; to->part_count < count && code == 0; to->part_count++)
        code = rule_of(c, parts[to->part_count], depth + 1, &to->parts[to->part_count], err);
    return code;
}

/* Of a family whose values are plain bytes; what aggregates, or is typed, is not kept here. */
static bool plain_bytes(const ADMIN(Type) * t) {
    return !t || t->kind_case == GOOGLE__BIGTABLE__ADMIN__V2__TYPE__KIND__NOT_SET ||
           t->kind_case == GOOGLE__BIGTABLE__ADMIN__V2__TYPE__KIND_BYTES_TYPE;
}

int lk__bigtable_family(struct lk__bigtable_call *c, const char *id, const ADMIN(ColumnFamily) * from,
                        struct lk_table_family *out, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    struct lk_gc_rule rule;
    *out = (struct lk_table_family){.name = id};
    if (!from) return 0;
    if (!plain_bytes(from->value_type))
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err,
                                   "family %.100s: value_type is not supported here but for bytes", id);
    if (!from->gc_rule || from->gc_rule->rule_case == RULE(_NOT_SET)) return 0;
    int code = rule_of(c, from->gc_rule, 0, &rule, err);
    if (code == 0 && lk_gc_rule_print(&rule, &text)) code = lk__bigtable_no_memory(err);
    if (code == 0 && !(out->gc = lk__bigtable_text(c, text.data, text.size))) code = lk__bigtable_no_memory(err);
    lk_buf_release(&text);
    return code == LK_EINVAL ? lk_fail_prefix(err, code, "family %.100s", id) : code;
}

/* --- to messages ----------------------------------------------------------------------------------------- */

static ADMIN(GcRule) * rule_message(struct lk__bigtable_call *c, const struct lk_gc_rule *from);

static ADMIN(GcRule) * *rule_messages(struct lk__bigtable_call *c, const struct lk_gc_rule *from) {
    ADMIN(GcRule) **list = lk__bigtable_take(c, from->part_count * sizeof *list);
    for (size_t i = 0; list && i < from->part_count; i++)
        if (!(list[i] = rule_message(c, &from->parts[i]))) return NULL;
    return list;
}

static ADMIN(GcRule) * rule_message(struct lk__bigtable_call *c, const struct lk_gc_rule *from) {
    ADMIN(GcRule) *m = lk__bigtable_take(c, sizeof *m);
    if (!m) return NULL;
    *m = (ADMIN(GcRule))GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__INIT;
    if (from->kind == LK_GC_MAX_VERSIONS) {
        m->rule_case = RULE(MAX_NUM_VERSIONS);
        m->max_num_versions = from->count;
    } else if (from->kind == LK_GC_MAX_AGE) {
        m->rule_case = RULE(MAX_AGE);
        if (!(m->max_age = lk__bigtable_take(c, sizeof *m->max_age))) return NULL;
        *m->max_age = (Google__Protobuf__Duration)GOOGLE__PROTOBUF__DURATION__INIT;
        m->max_age->seconds = from->age_us / 1000000;
        m->max_age->nanos = (int32_t)(from->age_us % 1000000 * 1000);
    } else if (from->kind == LK_GC_UNION) {
        m->rule_case = RULE(UNION);
        if (!(m->union_ = lk__bigtable_take(c, sizeof *m->union_))) return NULL;
        *m->union_ = (ADMIN(GcRule__Union))GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__UNION__INIT;
        m->union_->n_rules = from->part_count;
        if (!(m->union_->rules = rule_messages(c, from))) return NULL;
    } else if (from->kind == LK_GC_INTERSECTION) {
        m->rule_case = RULE(INTERSECTION);
        if (!(m->intersection = lk__bigtable_take(c, sizeof *m->intersection))) return NULL;
        *m->intersection = (ADMIN(GcRule__Intersection))GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__INTERSECTION__INIT;
        m->intersection->n_rules = from->part_count;
        if (!(m->intersection->rules = rule_messages(c, from))) return NULL;
    }
    return m;
}

struct telling {
    struct lk__bigtable_call *c;
    ADMIN(Table) * table;
    struct lk_err *err;
};
static int add_family(void *arg, const struct lk_table_family *f) {
    struct telling *t = arg;
    struct lk__bigtable_call *c = t->c;
    struct lk_gc_rule rule;
    ADMIN(Table__ColumnFamiliesEntry) *e = lk__bigtable_take(c, sizeof *e);
    ADMIN(ColumnFamily) *m = lk__bigtable_take(c, sizeof *m);
    if (!e || !m) return lk__bigtable_no_memory(t->err);
    *e = (ADMIN(Table__ColumnFamiliesEntry))GOOGLE__BIGTABLE__ADMIN__V2__TABLE__COLUMN_FAMILIES_ENTRY__INIT;
    *m = (ADMIN(ColumnFamily))GOOGLE__BIGTABLE__ADMIN__V2__COLUMN_FAMILY__INIT;
    int code = lk_gc_rule_parse(f->gc ? f->gc : "never", &rule, t->err);
    if (code != 0) return code;
    m->gc_rule = rule_message(c, &rule);
    lk_gc_rule_free(&rule);
    e->key = lk__bigtable_text(c, f->name, strlen(f->name));
    e->value = m;
    if (!m->gc_rule || !e->key) return lk__bigtable_no_memory(t->err);
    t->table->column_families[t->table->n_column_families++] = e;
    return 0;
}

/* One cluster, which is ready. */
static int add_cluster(struct lk__bigtable_call *c, ADMIN(Table) * t, struct lk_err *err) {
    ADMIN(Table__ClusterStatesEntry) *e = lk__bigtable_take(c, sizeof *e), **list = lk__bigtable_take(c, sizeof *list);
    ADMIN(Table__ClusterState) *s = lk__bigtable_take(c, sizeof *s);
    if (!e || !list || !s) return lk__bigtable_no_memory(err);
    *e = (ADMIN(Table__ClusterStatesEntry))GOOGLE__BIGTABLE__ADMIN__V2__TABLE__CLUSTER_STATES_ENTRY__INIT;
    *s = (ADMIN(Table__ClusterState))GOOGLE__BIGTABLE__ADMIN__V2__TABLE__CLUSTER_STATE__INIT;
    s->replication_state = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__CLUSTER_STATE__REPLICATION_STATE__READY;
    e->key = (char *)(uintptr_t) "lockstep";
    e->value = s;
    list[0] = e;
    t->cluster_states = list;
    t->n_cluster_states = 1;
    return 0;
}

int lk__bigtable_there(struct lk__bigtable_call *c, struct lk_err *err) {
    struct lk_kv_txn *txn;
    bool protected;
    int code = lk_kv_begin(c->b->store->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk_table_protected(c->table, txn, &protected, err);
    lk_kv_abort(txn);
    return code;
}

int lk__bigtable_table_message(struct lk__bigtable_call *c, struct lk_table *table, const char *full,
                               ADMIN(Table__View) view, ADMIN(Table) * *out, struct lk_err *err) {
    ADMIN(Table) *t = lk__bigtable_take(c, sizeof *t);
    struct telling telling = {c, t, err};
    struct lk_kv_txn *txn;
    bool protected = false;
    *out = t;
    if (!t) return lk__bigtable_no_memory(err);
    *t = (ADMIN(Table))GOOGLE__BIGTABLE__ADMIN__V2__TABLE__INIT;
    t->name = (char *)(uintptr_t)full;
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__NAME_ONLY) return table ? lk__bigtable_there(c, err) : 0;
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__REPLICATION_VIEW ||
        view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__FULL) {
        if (add_cluster(c, t, err)) return LK_ENOMEM;
        if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__REPLICATION_VIEW) return lk__bigtable_there(c, err);
    }
    t->granularity = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__TIMESTAMP_GRANULARITY__MILLIS;
    t->column_families = lk__bigtable_take(c, LK_TABLE_FAMILIES_MAX * sizeof *t->column_families);
    if (!t->column_families) return lk__bigtable_no_memory(err);
    int code = lk_kv_begin(c->b->store->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk_table_families(table, txn, add_family, &telling, err);
    if (code == 0) code = lk_table_protected(table, txn, &protected, err);
    lk_kv_abort(txn);
    t->deletion_protection = protected;
    return code;
}
