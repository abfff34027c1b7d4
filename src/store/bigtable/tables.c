/* The table admin service: tables, families, ranges of rows, consistency. */
#include "lockstep/base/mem.h"
#include "store/bigtable/schema.h"
#include <string.h>
#include <time.h>

static int answer_empty(struct lk__bigtable_call *c, struct lk_err *err) {
    return lk_grpc_send(c->grpc, "", 0, err); /* google.protobuf.Empty */
}
/* What a pin or a protection forbids is no matter of trying again. */
static int refused(struct lk__bigtable_call *c, int code) {
    if (code == LK_EBUSY) c->status = LK_GRPC_FAILED_PRECONDITION;
    return code;
}
static int answer_table(struct lk__bigtable_call *c, const char *full, ADMIN(Table__View) view, struct lk_err *err) {
    ADMIN(Table) * t;
    lk__bigtable_table_done(c);
    int code = lk__bigtable_table(c, full, LK__BIGTABLE_READ, err);
    if (code == 0) code = lk__bigtable_table_message(c, c->table, full, view, &t, err);
    return code ? code : lk_grpc_send_message(c->grpc, &t->base, err);
}

/* --- making and removing --------------------------------------------------------------------------------- */

static bool id_valid(const char *id) {
    size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.");
    return n && !id[n] && *id != '-' && *id != '.';
}
static int check_new(struct lk__bigtable_call *c, const ADMIN(CreateTableRequest) * q, struct lk_err *err) {
    const ADMIN(Table) *t = q->table;
    if (!id_valid(q->table_id))
        return lk_fail(err, LK_EINVAL, "table_id \"%.100s\": letters, digits and _ - . are possible, and no - or . first",
                       q->table_id);
    if (!t) return 0;
    if (t->granularity > GOOGLE__BIGTABLE__ADMIN__V2__TABLE__TIMESTAMP_GRANULARITY__MICROS || (int)t->granularity < 0)
        return lk_fail(err, LK_EINVAL, "granularity %d is not known", (int)t->granularity);
    if (t->granularity == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__TIMESTAMP_GRANULARITY__MICROS)
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "timestamps are in whole milliseconds here, not MICROS");
    if (t->change_stream_config)
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "change streams are not supported here");
    if (t->row_key_schema)
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "row_key_schema is not supported here");
    return 0;
}
static int create_table(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(CreateTableRequest) *q = message;
    size_t count = q->table ? q->table->n_column_families : 0;
    struct lk_table_family *families = lk__bigtable_take(c, (count + 1) * sizeof *families);
    struct lk_buf full = LK_BUF_INIT;
    char *name, *shown = NULL;
    int code = families ? check_new(c, q, err) : lk__bigtable_no_memory(err);
    for (size_t i = 0; i < count && code == 0; i++)
        code = lk__bigtable_family(c, q->table->column_families[i]->key, q->table->column_families[i]->value, &families[i],
                                   err);
    if (code == 0 && lk_buf_printf(&full, "%s/tables/%s", q->parent, q->table_id)) code = lk__bigtable_no_memory(err);
    if (code == 0 && !(shown = lk__bigtable_text(c, full.data, full.size))) code = lk__bigtable_no_memory(err);
    lk_buf_release(&full);
    if (code == 0) code = lk__bigtable_named(c, shown, LK__BIGTABLE_ADMIN, &name, err);
    if (code == 0) code = lk_table_create(c->b->store, name, families, count, err);
    if (code == LK_EEXISTS) return lk_fail(err, code, "table \"%.500s\" already exists", shown);
    if (code == 0 && q->table && q->table->deletion_protection)
        code = lk_table_alter(c->b->store, name, &(struct lk_table_change){.kind = LK_TABLE_PROTECT}, 1, err);
    return code ? code : answer_table(c, shown, GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW, err);
}

static int delete_table(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(DeleteTableRequest) *q = message;
    char *name;
    int code = lk__bigtable_named(c, q->name, LK__BIGTABLE_ADMIN, &name, err);
    if (code == 0) code = refused(c, lk_table_drop(c->b->store, name, err));
    return code ? code : answer_empty(c, err);
}

/* --- looking --------------------------------------------------------------------------------------------- */

static int get_table(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(GetTableRequest) *q = message;
    return answer_table(c, q->name, q->view, err);
}

struct listing {
    struct lk__bigtable_call *c;
    struct lk__bigtable_name parent;
    const char *after; /* a table's id */
    char **names;      /* ids */
    size_t count, capacity, most;
    bool more;
};
static int note_table(void *arg, const char *store_name) {
    struct listing *l = arg;
    const char *id = lk__bigtable_table_of(l->c, &l->parent, store_name);
    if (!id || !lk__bigtable_may(l->c, LK__BIGTABLE_READ, store_name) || strcmp(id, l->after) <= 0) return 0;
    if (l->count == l->most) return l->more = true, 1;
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        char **names = lk__bigtable_take(l->c, capacity * sizeof *names);
        if (!names) return LK_ENOMEM;
        if (l->count) memcpy(names, l->names, l->count * sizeof *names);
        l->names = names;
        l->capacity = capacity;
    }
    l->names[l->count] = lk__bigtable_text(l->c, id, strlen(id));
    return l->names[l->count++] ? 0 : LK_ENOMEM;
}

static int list_one(struct lk__bigtable_call *c, const char *parent, const char *id, ADMIN(Table__View) view,
                    ADMIN(Table) * *out, struct lk_err *err) {
    size_t size = strlen(parent) + strlen(id) + sizeof "/tables/";
    char *full = lk__bigtable_take(c, size);
    if (!full) return lk__bigtable_no_memory(err);
    snprintf(full, size, "%s/tables/%s", parent, id);
    lk__bigtable_table_done(c);
    c->table = NULL;
    lk__bigtable_table_done(c);
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__VIEW_UNSPECIFIED)
        view = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__NAME_ONLY;
    int code = view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__NAME_ONLY
                   ? 0
                   : lk__bigtable_table(c, full, LK__BIGTABLE_READ, err);
    return code ? code : lk__bigtable_table_message(c, c->table, full, view, out, err);
}

static int list_tables(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(ListTablesRequest) *q = message;
    ADMIN(ListTablesResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__LIST_TABLES_RESPONSE__INIT;
    struct listing l = {.c = c, .after = q->page_token, .most = q->page_size > 0 ? (size_t)q->page_size : SIZE_MAX};
    if (q->page_size < 0) return lk_fail(err, LK_EINVAL, "page_size is %d", q->page_size);
    int code = lk__bigtable_name_parse(c, q->parent, NULL, &l.parent, err);
    if (code == 0) code = lk_table_list(c->b->store, note_table, &l, err);
    if (code == LK_ENOMEM) return lk__bigtable_no_memory(err);
    if (code < 0) return code;
    answer.tables = lk__bigtable_take(c, (l.count + 1) * sizeof *answer.tables);
    if (!answer.tables) return lk__bigtable_no_memory(err);
    for (size_t i = 0; i < l.count; i++) {
        code = list_one(c, q->parent, l.names[i], q->view, &answer.tables[answer.n_tables], err);
        if (code == LK_ENOTFOUND) continue; /* dropped meanwhile */
        if (code != 0) return code;
        answer.n_tables++;
    }
    if (l.more && l.count) answer.next_page_token = l.names[l.count - 1];
    return lk_grpc_send_message(c->grpc, &answer.base, err);
}

/* --- altering -------------------------------------------------------------------------------------------- */

static int pack_any(struct lk__bigtable_call *c, const ProtobufCMessage *m, const char *url, Google__Protobuf__Any *out,
                    struct lk_err *err) {
    size_t size = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = lk__bigtable_take(c, size + 1);
    if (!packed) return lk__bigtable_no_memory(err);
    *out = (Google__Protobuf__Any)GOOGLE__PROTOBUF__ANY__INIT;
    out->type_url = (char *)(uintptr_t)url;
    out->value = (ProtobufCBinaryData){protobuf_c_message_pack(m, packed), packed};
    return 0;
}
/* An operation that is over, with a table or a snapshot as its result. */
static int answer_done(struct lk__bigtable_call *c, const char *name, const ProtobufCMessage *result,
                       const char *result_url, const ProtobufCMessage *metadata, const char *metadata_url,
                       struct lk_err *err) {
    Google__Longrunning__Operation op = GOOGLE__LONGRUNNING__OPERATION__INIT;
    Google__Protobuf__Any response, about;
    size_t size = strlen(name) + sizeof "operations/";
    op.name = lk__bigtable_take(c, size);
    if (!op.name) return lk__bigtable_no_memory(err);
    snprintf(op.name, size, "operations/%s", name);
    int code = pack_any(c, result, result_url, &response, err);
    if (code == 0) code = pack_any(c, metadata, metadata_url, &about, err);
    if (code != 0) return code;
    op.metadata = &about;
    op.done = true;
    op.result_case = GOOGLE__LONGRUNNING__OPERATION__RESULT_RESPONSE;
    op.response = &response;
    return lk_grpc_send_message(c->grpc, &op.base, err);
}
static Google__Protobuf__Timestamp moment(int64_t ms) {
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    t.seconds = ms / 1000;
    t.nanos = (int32_t)(ms % 1000 * 1000000);
    return t;
}
static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int update_table(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(UpdateTableRequest) *q = message;
    ADMIN(UpdateTableMetadata) metadata = GOOGLE__BIGTABLE__ADMIN__V2__UPDATE_TABLE_METADATA__INIT;
    Google__Protobuf__Timestamp now = moment(now_ms());
    ADMIN(Table) * table;
    char *name;
    if (!q->table) return lk_fail(err, LK_EINVAL, "no table to update");
    if (!q->update_mask || q->update_mask->n_paths == 0)
        return lk_fail(err, LK_EINVAL, "update_mask says nothing; name what to update, as deletion_protection");
    for (size_t i = 0; i < q->update_mask->n_paths; i++)
        if (strcmp(q->update_mask->paths[i], "deletion_protection"))
            return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err,
                                       "update_mask \"%.100s\": only deletion_protection can be updated here",
                                       q->update_mask->paths[i]);
    struct lk_table_change change = {.kind = q->table->deletion_protection ? LK_TABLE_PROTECT : LK_TABLE_UNPROTECT};
    int code = lk__bigtable_named(c, q->table->name, LK__BIGTABLE_ADMIN, &name, err);
    if (code == 0) code = lk_table_alter(c->b->store, name, &change, 1, err);
    if (code == 0) code = lk__bigtable_table(c, q->table->name, LK__BIGTABLE_ADMIN, err);
    if (code == 0)
        code = lk__bigtable_table_message(c, c->table, q->table->name,
                                          GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW, &table, err);
    if (code != 0) return code;
    metadata.name = q->table->name;
    metadata.start_time = metadata.end_time = &now;
    return answer_done(c, q->table->name, &table->base, "type.googleapis.com/google.bigtable.admin.v2.Table",
                       &metadata.base, "type.googleapis.com/google.bigtable.admin.v2.UpdateTableMetadata", err);
}

/* What the family is now, so that an update keeps what it does not speak of. */
struct seeking {
    const char *name;
    bool zstd;
};
static int seek_family(void *arg, const struct lk_table_family *f) {
    struct seeking *s = arg;
    if (!strcmp(f->name, s->name)) s->zstd = f->zstd;
    return 0;
}
static int modification(struct lk__bigtable_call *c, const ADMIN(ModifyColumnFamiliesRequest__Modification) * from,
                        struct lk_table_change *to, struct lk_err *err) {
    struct seeking s = {from->id, false};
    struct lk_kv_txn *txn;
    int code;
    switch (from->mod_case) {
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_CREATE:
        to->kind = LK_TABLE_ADD_FAMILY;
        return lk__bigtable_family(c, from->id, from->create, &to->family, err);
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_DROP:
        to->kind = LK_TABLE_DROP_FAMILY;
        to->family = (struct lk_table_family){.name = from->id};
        return from->drop ? 0 : lk_fail(err, LK_EINVAL, "family %.100s: drop is false", from->id);
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_UPDATE:
        for (size_t i = 0; from->update_mask && i < from->update_mask->n_paths; i++)
            if (strcmp(from->update_mask->paths[i], "gc_rule"))
                return lk_fail(err, LK_EINVAL, "family %.100s: update_mask \"%.100s\": only gc_rule can be updated here",
                               from->id, from->update_mask->paths[i]);
        to->kind = LK_TABLE_UPDATE_FAMILY;
        code = lk__bigtable_family(c, from->id, from->update, &to->family, err);
        if (code == 0) code = lk_kv_begin(c->b->store->kv, false, &txn, err);
        if (code != 0) return code;
        code = lk_table_families(c->table, txn, seek_family, &s, err);
        lk_kv_abort(txn);
        to->family.zstd = s.zstd;
        return code;
    default:
        return lk_fail(err, LK_EINVAL, "family %.100s: neither create nor update nor drop", from->id);
    }
}
static int modify_column_families(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(ModifyColumnFamiliesRequest) *q = message;
    struct lk_table_change *changes = lk__bigtable_take(c, (q->n_modifications + 1) * sizeof *changes);
    int code = changes ? lk__bigtable_table(c, q->name, LK__BIGTABLE_ADMIN, err) : lk__bigtable_no_memory(err);
    if (code == 0 && q->n_modifications == 0) code = lk_fail(err, LK_EINVAL, "no modifications");
    for (size_t i = 0; i < q->n_modifications && code == 0; i++)
        code = modification(c, q->modifications[i], &changes[i], err);
    if (code == 0)
        code = refused(c, lk_table_alter(c->b->store, lk_table_name(c->table), changes, q->n_modifications, err));
    return code ? code : answer_table(c, q->name, GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW, err);
}

static int drop_row_range(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(DropRowRangeRequest) *q = message;
    struct lk_table_range range = {0};
    unsigned char end[LK_TABLE_ROW_MAX];
    size_t size = 0;
    int code = lk__bigtable_table(c, q->name, LK__BIGTABLE_ADMIN, err);
    if (code != 0) return code;
    if (q->target_case == GOOGLE__BIGTABLE__ADMIN__V2__DROP_ROW_RANGE_REQUEST__TARGET_ROW_KEY_PREFIX) {
        if (q->row_key_prefix.len == 0 || q->row_key_prefix.len > sizeof end)
            return lk_fail(err, LK_EINVAL, "row_key_prefix of %zu bytes; 1 to %zu are possible", q->row_key_prefix.len,
                           sizeof end);
        range.from = lk__bigtable_bytes(q->row_key_prefix);
        if (lk_kv_prefix_end(range.from, end, &size)) range.to = lk_bytes(end, size);
    } else if (!q->delete_all_data_from_table)
        return lk_fail(err, LK_EINVAL, "neither row_key_prefix nor delete_all_data_from_table says what to drop");
    code = lk_table_delete_rows(c->table, &range, NULL, err);
    return code ? code : answer_empty(c, err);
}

/* --- consistency ----------------------------------------------------------------------------------------- */

/* There is one store: what was written when the token was made is there. */
#define TOKEN "lockstep:"
static int generate_token(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(GenerateConsistencyTokenRequest) *q = message;
    ADMIN(GenerateConsistencyTokenResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__GENERATE_CONSISTENCY_TOKEN_RESPONSE__INIT;
    int code = lk__bigtable_table(c, q->name, LK__BIGTABLE_READ, err);
    if (code == 0) code = lk__bigtable_there(c, err);
    size_t size = strlen(q->name) + sizeof TOKEN;
    if (code != 0) return code;
    if (!(answer.consistency_token = lk__bigtable_take(c, size))) return lk__bigtable_no_memory(err);
    snprintf(answer.consistency_token, size, TOKEN "%s", q->name);
    return lk_grpc_send_message(c->grpc, &answer.base, err);
}
static int check_consistency(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(CheckConsistencyRequest) *q = message;
    ADMIN(CheckConsistencyResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__CHECK_CONSISTENCY_RESPONSE__INIT;
    int code = lk__bigtable_table(c, q->name, LK__BIGTABLE_READ, err);
    if (code == 0) code = lk__bigtable_there(c, err);
    if (code != 0) return code;
    if (strncmp(q->consistency_token, TOKEN, sizeof TOKEN - 1) || strcmp(q->consistency_token + sizeof TOKEN - 1, q->name))
        return lk_fail(err, LK_EINVAL, "consistency_token \"%.100s\" is not one of this table", q->consistency_token);
    answer.consistent = true;
    return lk_grpc_send_message(c->grpc, &answer.base, err);
}

/* --- snapshots: pins of one table ------------------------------------------------------------------------ */

#define WEEK_MS 604800000LL

/* "projects/P/instances/I/clusters/C/snapshots/S": the pin's name. */
static int snapshot_named(struct lk__bigtable_call *c, const char *full, bool all, struct lk__bigtable_name *name,
                          char **pin, struct lk_err *err) {
    const char *cluster = strstr(full, "/clusters/"), *rest = cluster ? cluster + strlen("/clusters/") : NULL;
    size_t n = rest ? strcspn(rest, "/") : 0;
    char *instance = cluster ? lk__bigtable_text(c, full, (size_t)(cluster - full)) : NULL;
    bool good = n && (all ? !rest[n] : !strncmp(rest + n, "/snapshots/", 11) && id_valid(rest + n + 11));
    if (!good || !instance)
        return lk_fail(err, LK_EINVAL, "\"%.300s\" is no name of the form projects/P/instances/I/clusters/C%s", full,
                       all ? "" : "/snapshots/NAME");
    int code = lk__bigtable_name_parse(c, instance, NULL, name, err);
    if (code != 0 || all) return code;
    name->name = rest + n + 11;
    *pin = lk__bigtable_store_name(c, name);
    return *pin ? 0 : lk__bigtable_no_memory(err);
}

struct finding {
    struct lk__bigtable_call *c;
    struct lk__bigtable_name parent;
    const char *pin, *cluster; /* pin NULL: all */
    ADMIN(Snapshot) * *list;
    size_t count, capacity;
    bool forbidden;
};
static ADMIN(Snapshot) * snapshot_message(struct finding *f, const char *id, const struct lk_table_pin *p) {
    struct lk__bigtable_call *c = f->c;
    ADMIN(Snapshot) *s = lk__bigtable_take(c, sizeof *s);
    ADMIN(Table) *t = lk__bigtable_take(c, sizeof *t);
    Google__Protobuf__Timestamp *times = lk__bigtable_take(c, 2 * sizeof *times);
    const char *table = lk__bigtable_table_of(c, &f->parent, p->tables[0]);
    struct lk_buf text = LK_BUF_INIT;
    if (!s || !t || !times || !table) return NULL;
    *s = (ADMIN(Snapshot))GOOGLE__BIGTABLE__ADMIN__V2__SNAPSHOT__INIT;
    *t = (ADMIN(Table))GOOGLE__BIGTABLE__ADMIN__V2__TABLE__INIT;
    if (!lk_buf_printf(&text, "%s/snapshots/%s", f->cluster, id)) s->name = lk__bigtable_text(c, text.data, text.size);
    text.size = 0;
    if (!lk_buf_printf(&text, "projects/%s/instances/%s/tables/%s", f->parent.project, f->parent.instance, table))
        t->name = lk__bigtable_text(c, text.data, text.size);
    lk_buf_release(&text);
    times[0] = moment(p->pinned_ms);
    times[1] = moment(p->expires_ms);
    s->source_table = t;
    s->create_time = &times[0];
    s->delete_time = p->expires_ms ? &times[1] : NULL;
    s->state = GOOGLE__BIGTABLE__ADMIN__V2__SNAPSHOT__STATE__READY;
    return s->name && t->name ? s : NULL;
}
static int find_pin(void *arg, const struct lk_table_pin *p) {
    struct finding *f = arg;
    const char *id = lk__bigtable_table_of(f->c, &f->parent, p->name);
    if (!id || p->table_count != 1 || (f->pin && strcmp(f->pin, p->name))) return 0;
    if (!lk__bigtable_table_of(f->c, &f->parent, p->tables[0])) return 0;
    if (!lk__bigtable_may(f->c, f->pin ? LK__BIGTABLE_ADMIN : LK__BIGTABLE_READ, p->tables[0])) {
        f->forbidden = true;
        return 0;
    }
    if (f->count == f->capacity) {
        size_t capacity = f->capacity ? 2 * f->capacity : 16;
        ADMIN(Snapshot) **list = lk__bigtable_take(f->c, capacity * sizeof *list);
        if (!list) return LK_ENOMEM;
        if (f->count) memcpy(list, f->list, f->count * sizeof *list);
        f->list = list;
        f->capacity = capacity;
    }
    f->list[f->count] = snapshot_message(f, id, p);
    return f->list[f->count++] ? 0 : LK_ENOMEM;
}
static int find_snapshot(struct lk__bigtable_call *c, const char *full, struct finding *f, struct lk_err *err) {
    char *pin;
    *f = (struct finding){.c = c};
    int code = snapshot_named(c, full, false, &f->parent, &pin, err);
    if (code != 0) return code;
    f->pin = pin;
    f->cluster = lk__bigtable_text(c, full, (size_t)(strstr(full, "/snapshots/") - full));
    if (!f->cluster) return lk__bigtable_no_memory(err);
    code = lk_table_pins(c->b->store, find_pin, f, err);
    if (code == LK_ENOMEM) return lk__bigtable_no_memory(err);
    if (code != 0) return code;
    if (f->forbidden)
        return lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this key may not administer the table of %s", full);
    return f->count ? 0 : lk_fail(err, LK_ENOTFOUND, "snapshot \"%.500s\" not found", full);
}

static int snapshot_table(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(SnapshotTableRequest) *q = message;
    ADMIN(SnapshotTableMetadata) metadata = GOOGLE__BIGTABLE__ADMIN__V2__SNAPSHOT_TABLE_METADATA__INIT;
    Google__Protobuf__Timestamp now = moment(now_ms());
    struct lk__bigtable_name name;
    struct finding f;
    struct lk_buf text = LK_BUF_INIT;
    char *pin, *full = NULL;
    const char *table;
    int64_t pinned, lease = q->ttl ? q->ttl->seconds * 1000 : WEEK_MS;
    int code = lk__bigtable_table(c, q->name, LK__BIGTABLE_ADMIN, err);
    if (code == 0 && (lease <= 0 || (q->ttl && q->ttl->seconds > INT32_MAX)))
        code = lk_fail(err, LK_EINVAL, "ttl is out of range");
    if (code == 0 && lk_buf_printf(&text, "%s/snapshots/%s", q->cluster, q->snapshot_id))
        code = lk__bigtable_no_memory(err);
    if (code == 0 && !(full = lk__bigtable_text(c, text.data, text.size))) code = lk__bigtable_no_memory(err);
    lk_buf_release(&text);
    if (code == 0) code = snapshot_named(c, full, false, &name, &pin, err);
    if (code != 0) return code;
    table = lk_table_name(c->table);
    code = lk_table_pin(c->b->store, pin, &table, 1, lease, &pinned, err);
    if (code == 0) code = find_snapshot(c, full, &f, err);
    if (code != 0) return code;
    metadata.original_request = (ADMIN(SnapshotTableRequest) *)(uintptr_t)q;
    metadata.request_time = metadata.finish_time = &now;
    return answer_done(c, full, &f.list[0]->base, "type.googleapis.com/google.bigtable.admin.v2.Snapshot", &metadata.base,
                       "type.googleapis.com/google.bigtable.admin.v2.SnapshotTableMetadata", err);
}
static int get_snapshot(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(GetSnapshotRequest) *q = message;
    struct finding f;
    int code = find_snapshot(c, q->name, &f, err);
    return code ? code : lk_grpc_send_message(c->grpc, &f.list[0]->base, err);
}
static int delete_snapshot(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(DeleteSnapshotRequest) *q = message;
    struct finding f;
    int code = find_snapshot(c, q->name, &f, err);
    if (code == 0) code = lk_table_pin_release(c->b->store, f.pin, err);
    return code ? code : answer_empty(c, err);
}
static int list_snapshots(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(ListSnapshotsRequest) *q = message;
    ADMIN(ListSnapshotsResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__LIST_SNAPSHOTS_RESPONSE__INIT;
    struct finding f = {.c = c, .cluster = q->parent};
    int code = snapshot_named(c, q->parent, true, &f.parent, NULL, err);
    if (code == 0) code = lk_table_pins(c->b->store, find_pin, &f, err);
    if (code == LK_ENOMEM) return lk__bigtable_no_memory(err);
    answer.n_snapshots = f.count;
    answer.snapshots = f.list;
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}

static int no_copies(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    (void)message;
    return lk__bigtable_refuse(
        c, LK_GRPC_UNIMPLEMENTED, err,
        "tables are not restored over this API; `lockstep table copy` copies one, also as a pin sees it");
}
static int no_views(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    (void)message;
    return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "authorized views are not supported here");
}

#define PATH "/google.bigtable.admin.v2.BigtableTableAdmin/"
#define METHOD(name, type, handle)                                                                                         \
    { PATH name, LK_GRPC_UNARY, &google__bigtable__admin__v2__##type##__descriptor, handle }
#define REFUSED(name, handle)                                                                                              \
    { PATH name, LK_GRPC_UNARY, NULL, handle }
const struct lk__bigtable_method lk__bigtable_tables[] = {
    METHOD("CreateTable", create_table_request, create_table),
    METHOD("ListTables", list_tables_request, list_tables),
    METHOD("GetTable", get_table_request, get_table),
    METHOD("UpdateTable", update_table_request, update_table),
    METHOD("DeleteTable", delete_table_request, delete_table),
    METHOD("ModifyColumnFamilies", modify_column_families_request, modify_column_families),
    METHOD("DropRowRange", drop_row_range_request, drop_row_range),
    METHOD("GenerateConsistencyToken", generate_consistency_token_request, generate_token),
    METHOD("CheckConsistency", check_consistency_request, check_consistency),
    METHOD("SnapshotTable", snapshot_table_request, snapshot_table),
    METHOD("GetSnapshot", get_snapshot_request, get_snapshot),
    METHOD("ListSnapshots", list_snapshots_request, list_snapshots),
    METHOD("DeleteSnapshot", delete_snapshot_request, delete_snapshot),
    REFUSED("CreateTableFromSnapshot", no_copies),
    REFUSED("RestoreTable", no_copies),
    REFUSED("UndeleteTable", no_copies),
    REFUSED("CreateBackup", no_copies),
    REFUSED("CreateAuthorizedView", no_views),
    REFUSED("GetAuthorizedView", no_views),
    REFUSED("ListAuthorizedViews", no_views),
    REFUSED("UpdateAuthorizedView", no_views),
    REFUSED("DeleteAuthorizedView", no_views),
};
const size_t lk__bigtable_tables_count = sizeof lk__bigtable_tables / sizeof *lk__bigtable_tables;
