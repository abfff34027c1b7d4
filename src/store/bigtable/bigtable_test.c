/* The server by a client of our own, over sockets: what the table's tests can't see. Messages and their limits, chunks and
 * last_scanned_row_key, snapshots that end, names, rights, errors by their statuses. Google's own clients:
 * tests/clients/table. */
#include "google/bigtable/admin/v2/bigtable_table_admin.pb-c.h"
#include "google/bigtable/v2/bigtable.pb-c.h"
#include "lockstep/base/file.h"
#include "lockstep/store/bigtable.h"
#include "net/grpc_client.h"
#include "store/table/testing.h"
#include <stdlib.h>
#include <sys/stat.h>

#define V2(name)    Google__Bigtable__V2__##name
#define ADMIN(name) Google__Bigtable__Admin__V2__##name
#define DATA        "/google.bigtable.v2.Bigtable/"
#define TABLES      "/google.bigtable.admin.v2.BigtableTableAdmin/"
#define T           "projects/p/instances/i/tables/t"
#define BIN(text)   ((ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)(text)})

static struct lk_kv *kv;
static struct lk_store store;
static struct lk_bigtable *server;
static struct client client;
static const char *features = "AA==", *key = "";

static void start(struct lk_bigtable_options o) {
    o.store = &store;
    o.listen = "127.0.0.1:0";
    OK(lk_bigtable_open(&o, &server, &test_err));
    client = c_open((unsigned short)atoi(strrchr(lk_bigtable_address(server), ':') + 1));
    c_sync(&client); /* its settings are the server's now */
}
static void stop(void) {
    c_close(&client);
    lk_bigtable_close(server, 1000);
}
static int setup(void **state) {
    static const char *const families[] = {"f", "maxversions=3", "g", NULL, NULL, NULL};
    (void)state;
    OK(lk_kv_open("memory:", LK_CREATE, &kv, &test_err));
    store = (struct lk_store){.kv = kv};
    make_table(&store, "t", families);
    start((struct lk_bigtable_options){0});
    return 0;
}
static int teardown(void **state) {
    (void)state;
    stop();
    lk_kv_close(kv);
    return 0;
}

/* --- calls ----------------------------------------------------------------------------------------------- */

static struct answer *call_bytes(const char *path, const void *data, size_t size) {
    uint32_t stream = c_begin(&client, path, "bigtable-features", features, "authorization", key);
    c_message(&client, stream, data, size, 0, true);
    return c_wait(&client, stream);
}
static struct answer *call(const char *path, const void *message) {
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = lk_alloc(size + 1);
    assert_non_null(packed);
    protobuf_c_message_pack(message, packed);
    struct answer *a = call_bytes(path, packed, size);
    lk_free(packed);
    return a;
}
static void is(const struct answer *a, int status, const char *words) {
    if (a->status != status || !strstr(a->message, words))
        fail_msg("status %d, \"%s\", reset %d, goaway %d \"%s\"", a->status, a->message, (int)a->reset, (int)client.goaway,
                 client.goaway_text);
}
static void set(const char *row, const char *family, const char *qualifier, int64_t us, struct lk_bytes value, int status,
                const char *words) {
    V2(MutateRowRequest) q = GOOGLE__BIGTABLE__V2__MUTATE_ROW_REQUEST__INIT;
    V2(Mutation) m = GOOGLE__BIGTABLE__V2__MUTATION__INIT, *list = &m;
    V2(Mutation__SetCell) s = GOOGLE__BIGTABLE__V2__MUTATION__SET_CELL__INIT;
    s.family_name = (char *)(uintptr_t)family;
    s.column_qualifier = BIN(qualifier);
    s.timestamp_micros = us;
    s.value = (ProtobufCBinaryData){value.size, (uint8_t *)(uintptr_t)value.data};
    m.mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL;
    m.set_cell = &s;
    m.timestamp_origin = us % 1000 == 7 ? GOOGLE__BIGTABLE__V2__MUTATION__TIMESTAMP_ORIGIN__CLIENT_AUTO_GENERATED : 0;
    q.table_name = (char *)(uintptr_t)T;
    q.row_key = BIN(row);
    q.n_mutations = 1;
    q.mutations = &list;
    is(call(DATA "MutateRow", &q), status, words);
}

/* What a stream of messages says, as text: chunks "row family:qualifier@us=SIZE/value_size!", what is unchanged left out;
 * "|" between messages, "~row" for last_scanned_row_key. */
static char *said(const struct answer *a) {
    struct lk_buf b = LK_BUF_INIT;
    OK(lk_buf_append(&b, "", 0));
    for (size_t at = 0; at < a->body.size;) {
        size_t size = get32((const uint8_t *)a->body.data + at + 1);
        V2(ReadRowsResponse) *m = (void *)protobuf_c_message_unpack(&google__bigtable__v2__read_rows_response__descriptor,
                                                                    NULL, size, (const uint8_t *)a->body.data + at + 5);
        assert_non_null(m);
        if (at) OK(lk_buf_printf(&b, "|"));
        for (size_t i = 0; i < m->n_chunks; i++) {
            const V2(ReadRowsResponse__CellChunk) *c = m->chunks[i];
            OK(lk_buf_printf(&b, "%.*s", (int)c->row_key.len, (const char *)c->row_key.data));
            if (c->family_name) OK(lk_buf_printf(&b, " %s", c->family_name->value));
            if (c->qualifier)
                OK(lk_buf_printf(&b, ":%.*s", (int)c->qualifier->value.len, (const char *)c->qualifier->value.data));
            OK(lk_buf_printf(&b, "@%lld=%zu", (long long)c->timestamp_micros, c->value.len));
            if (c->value_size) OK(lk_buf_printf(&b, "/%d", c->value_size));
            OK(lk_buf_printf(&b, "%s", c->commit_row ? "!" : ","));
        }
        if (m->last_scanned_row_key.len)
            OK(lk_buf_printf(&b, "~%.*s", (int)m->last_scanned_row_key.len, (const char *)m->last_scanned_row_key.data));
        protobuf_c_message_free_unpacked(&m->base, NULL);
        at += 5 + size;
    }
    return b.data ? b.data : lk_strdup("");
}
static V2(ReadRowsRequest) read_of_t(void) {
    V2(ReadRowsRequest) q = GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__INIT;
    q.table_name = (char *)(uintptr_t)T;
    return q;
}
static void read_says(const V2(ReadRowsRequest) * q, const char *expected) {
    struct answer *a = call(DATA "ReadRows", q);
    is(a, 0, "");
    char *text = said(a);
    assert_string_equal(text, expected);
    lk_free(text);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static void chunks(void **state) {
    (void)state;
    V2(ReadRowsRequest) q = read_of_t();
    size_t size = 921601; /* the client heeds no window, and a stream's is 1 MiB */
    char *big = lk_calloc(size, 1);
    assert_non_null(big);
    read_says(&q, "");
    set("a", "f", "q", 2000, S("xx"), 0, "");
    set("a", "f", "q", 1000, S("x"), 0, "");
    set("a", "f", "r", 0, S(""), 0, "");
    set("a", "g", "r", 0, S("x"), 0, "");
    set("a", "g", "", 0, S("x"), 0, "");
    set("b", "g", "r", 3000007, S("x"), 0, ""); /* a time that nobody chose is rounded */
    read_says(&q, "a f:q@2000=2,@1000=1,:r@0=0, g:@0=1,:r@0=1!b g:r@3000000=1!");
    set("big", "f", "q", 1000, lk_bytes(big, size), 0, "");
    set("big", "f", "r", 1000, lk_bytes(big, 200000), 0, "");
    set("big", "f", "z", 1000, S("after"), 0, "");
    V2(RowSet) rows = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    ProtobufCBinaryData one = BIN("big");
    rows.n_row_keys = 1;
    rows.row_keys = &one;
    q.rows = &rows;
    struct answer *a = call(DATA "ReadRows", &q);
    is(a, 0, "");
    char *text = said(a);
    assert_string_equal(
        text, "big f:q@1000=262144/921601,@0=262144/921601,@0=262144/921601,@0=135169,:r@1000=200000,|:z@1000=5!");
    lk_free(text);
    lk_free(big);
    /* Lengths around where the length of a chunk takes another byte, with the two bytes of a commit. */
    for (size_t n = 90; n < 140; n++) {
        char value[200], row[200], expected[300];
        memset(value, 'v', n);
        snprintf(row, sizeof row, "row%03zu", n);
        one = BIN(row);
        set(row, "f", "q", 1000, lk_bytes(value, n), 0, "");
        snprintf(expected, sizeof expected, "%s f:q@1000=%zu!", row, n);
        read_says(&q, expected);
    }
}

static void fill(int count) {
    for (int at = 0; at < count; at += 500) {
        V2(MutateRowsRequest) q = GOOGLE__BIGTABLE__V2__MUTATE_ROWS_REQUEST__INIT;
        static V2(MutateRowsRequest__Entry) e[500], *list[500];
        static char rows[500][16];
        V2(Mutation) m = GOOGLE__BIGTABLE__V2__MUTATION__INIT, *one = &m;
        V2(Mutation__SetCell) s = GOOGLE__BIGTABLE__V2__MUTATION__SET_CELL__INIT;
        s.family_name = (char *)(uintptr_t) "f";
        s.value = BIN("v");
        m.mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL;
        m.set_cell = &s;
        for (int i = 0; i < 500; i++) {
            e[i] = (V2(MutateRowsRequest__Entry))GOOGLE__BIGTABLE__V2__MUTATE_ROWS_REQUEST__ENTRY__INIT;
            snprintf(rows[i], sizeof rows[i], "r%05d", at + i);
            e[i].row_key = BIN(rows[i]);
            e[i].n_mutations = 1;
            e[i].mutations = &one;
            list[i] = &e[i];
        }
        q.table_name = (char *)(uintptr_t)T;
        q.n_entries = 500;
        q.entries = list;
        is(call(DATA "MutateRows", &q), 0, "");
    }
}
static size_t rows_of(const V2(ReadRowsRequest) * q, const char *first, const char *last) {
    struct answer *a = call(DATA "ReadRows", q);
    is(a, 0, "");
    char *text = said(a);
    size_t n = 0;
    for (const char *c = text; *c; c++) n += *c == '!';
    if (n) {
        assert_ptr_equal(strstr(text, first), text);
        char *end = strrchr(text, ' ');
        assert_non_null(end);
        assert_memory_equal(end - strlen(last), last, strlen(last));
    }
    lk_free(text);
    return n;
}

/* A snapshot of a millisecond: each of these reads goes on in many. */
static void snapshots_end(void **state) {
    (void)state;
    fill(20000);
    stop();
    start((struct lk_bigtable_options){.snapshot_ms = 1});
    V2(ReadRowsRequest) q = read_of_t();
    V2(RowSet) rows = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    V2(RowRange) r[2], *list[2] = {&r[0], &r[1]};
    for (int i = 0; i < 2; i++) google__bigtable__v2__row_range__init(&r[i]);
    ProtobufCBinaryData keys[] = {BIN("r00003"), BIN("r19998")};
    assert_int_equal(rows_of(&q, "r00000", "r19999"), 20000);
    q.reversed = true;
    assert_int_equal(rows_of(&q, "r19999", "r00000"), 20000);
    q.rows_limit = 15000;
    assert_int_equal(rows_of(&q, "r19999", "r05000"), 15000);
    r[0].start_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_OPEN;
    r[0].start_key_open = BIN("r00100");
    r[0].end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED;
    r[0].end_key_closed = BIN("r09000");
    r[1].start_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED;
    r[1].start_key_closed = BIN("r10000");
    r[1].end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN;
    r[1].end_key_open = BIN("r19000");
    rows.n_row_ranges = 2;
    rows.row_ranges = list;
    rows.n_row_keys = 2;
    rows.row_keys = keys;
    q.rows = &rows;
    q.rows_limit = 0;
    assert_int_equal(rows_of(&q, "r19998", "r00003"), 17902);
    q.reversed = false;
    assert_int_equal(rows_of(&q, "r00003", "r19998"), 17902);
}

static void hidden_rows(void **state) {
    (void)state;
    V2(ReadRowsRequest) q = read_of_t();
    V2(RowFilter) f = GOOGLE__BIGTABLE__V2__ROW_FILTER__INIT;
    f.filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_VALUE_REGEX_FILTER;
    f.value_regex_filter = BIN("nothing");
    q.filter = &f;
    fill(2500);
    read_says(&q, ""); /* a client that does not say that it takes last_scanned_row_key */
    features = "IAE="; /* field 4: true */
    read_says(&q, "~r00999|~r01999");
    features = "AA==";
}

/* --- what is refused ------------------------------------------------------------------------------------- */

static void refused(void **state) {
    (void)state;
    set("r", "nix", "q", 1000, S("v"), 5, "nix");
    set("r", "f", "q", 1001, S("v"), 3, "milliseconds");
    set("", "f", "q", 1000, S("v"), 3, "key");
    V2(ReadRowsRequest) q = read_of_t();
    V2(RowFilter) f = GOOGLE__BIGTABLE__V2__ROW_FILTER__INIT;
    q.filter = &f;
    f.filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_ROW_KEY_REGEX_FILTER;
    is(call(DATA "ReadRows", &q), 3, "row_key_regex_filter is empty");
    f.filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_PASS_ALL_FILTER;
    f.pass_all_filter = false;
    is(call(DATA "ReadRows", &q), 3, "pass_all_filter is false");
    q.filter = NULL;
    q.authorized_view_name = (char *)(uintptr_t)T "/authorizedViews/v";
    is(call(DATA "ReadRows", &q), 12, "views");
    q = read_of_t();
    q.rows_limit = -1;
    is(call(DATA "ReadRows", &q), 3, "rows_limit");
    q = read_of_t();
    q.table_name = (char *)(uintptr_t) "projects/p/instances/i/tables/none";
    struct answer *a = call(DATA "ReadRows", &q);
    is(a, 5, "\"projects/p/instances/i/tables/none\" not found");
    assert_null(strstr(a->message, "there are")); /* other tables' names */
    q.table_name = (char *)(uintptr_t) "tables/t";
    is(call(DATA "ReadRows", &q), 3, "projects/PROJECT/instances/INSTANCE/tables/NAME");
    V2(RowSet) rows = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    V2(RowRange) r, *list = &r;
    google__bigtable__v2__row_range__init(&r);
    r.start_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED;
    r.start_key_closed = BIN("b");
    r.end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN;
    r.end_key_open = BIN("a");
    rows.n_row_ranges = 1;
    rows.row_ranges = &list;
    q = read_of_t();
    q.rows = &rows;
    is(call(DATA "ReadRows", &q), 3, "behind its end key");
    is(call_bytes(DATA "ReadRows", "\x0a\xff", 2), 3, "no google.bigtable.v2.ReadRowsRequest");
    is(call_bytes(DATA "ReadChangeStream", "", 0), 12, "change streams");
    is(call_bytes(DATA "PrepareQuery", "", 0), 12, "SQL");
    is(call_bytes(TABLES "CreateAuthorizedView", "", 0), 12, "authorized views");
}

static void refused_families(void **state) {
    (void)state;
    ADMIN(ModifyColumnFamiliesRequest) q = GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__INIT;
    ADMIN(ModifyColumnFamiliesRequest__Modification)
    m = GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__INIT, *list = &m;
    ADMIN(ColumnFamily) family = GOOGLE__BIGTABLE__ADMIN__V2__COLUMN_FAMILY__INIT;
    ADMIN(Type) type = GOOGLE__BIGTABLE__ADMIN__V2__TYPE__INIT;
    ADMIN(Type__Aggregate) sum = GOOGLE__BIGTABLE__ADMIN__V2__TYPE__AGGREGATE__INIT;
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    char *paths[] = {(char *)(uintptr_t) "value_type"};
    type.kind_case = GOOGLE__BIGTABLE__ADMIN__V2__TYPE__KIND_AGGREGATE_TYPE;
    type.aggregate_type = &sum;
    family.value_type = &type;
    m.id = (char *)(uintptr_t) "sum";
    m.mod_case = GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_CREATE;
    m.create = &family;
    q.name = (char *)(uintptr_t)T;
    q.n_modifications = 1;
    q.modifications = &list;
    is(call(TABLES "ModifyColumnFamilies", &q), 12, "value_type");
    family.value_type = NULL;
    m.id = (char *)(uintptr_t) "f";
    is(call(TABLES "ModifyColumnFamilies", &q), 6, "f");
    m.mod_case = GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_UPDATE;
    m.update = &family;
    mask.n_paths = 1;
    mask.paths = paths;
    m.update_mask = &mask;
    is(call(TABLES "ModifyColumnFamilies", &q), 3, "update_mask");
    ADMIN(CreateTableRequest) c = GOOGLE__BIGTABLE__ADMIN__V2__CREATE_TABLE_REQUEST__INIT;
    ADMIN(Table) table = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__INIT;
    table.granularity = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__TIMESTAMP_GRANULARITY__MICROS;
    c.parent = (char *)(uintptr_t) "projects/p/instances/i";
    c.table_id = (char *)(uintptr_t) "u";
    c.table = &table;
    is(call(TABLES "CreateTable", &c), 12, "MICROS");
    table.granularity = 7;
    is(call(TABLES "CreateTable", &c), 3, "granularity 7");
    table.granularity = 0;
    c.table_id = (char *)(uintptr_t) "a/b";
    is(call(TABLES "CreateTable", &c), 3, "table_id");
}

/* Filters in filters, a million deep: a few bytes each, and no stack would do. */
static void deep(void **state) {
    (void)state;
    struct lk_buf b = LK_BUF_INIT;
    const int depth = 60000;
    size_t size = 0, at;
    /* From the inside: lengths first, then written backwards. */
    unsigned char *out = lk_alloc((size_t)depth * 12);
    assert_non_null(out);
    at = (size_t)depth * 12;
    for (int i = 0; i < depth; i++)
        for (int k = 0; k < 2; k++) { /* RowFilter.chain = 1, Chain.filters = 1 */
            unsigned char v[6];
            int n = 0;
            for (size_t s = size; n == 0 || s; s >>= 7) v[n++] = (unsigned char)(s & 127) | (s >> 7 ? 128 : 0);
            if ((size_t)n + 1 > at) break;
            at -= (size_t)n;
            memcpy(out + at, v, (size_t)n);
            out[--at] = 0x0a;
            size += (size_t)n + 1;
        }
    OK(lk_buf_append(&b, "\x1a", 1)); /* ReadRowsRequest.filter = 3 */
    for (size_t s = size; s || b.size == 1; s >>= 7)
        OK(lk_buf_append(&b, &(char){(char)((s & 127) | (s >> 7 ? 128 : 0))}, 1));
    OK(lk_buf_append(&b, out + at, size));
    is(call_bytes(DATA "ReadRows", b.data, b.size), 3, "nested too deeply");
    lk_free(out);
    lk_buf_release(&b);
}

/* --- names and rights ------------------------------------------------------------------------------------ */

static void names(void **state) {
    (void)state;
    V2(ReadRowsRequest) q = read_of_t();
    stop();
    start((struct lk_bigtable_options){.names = LK_BIGTABLE_BY_INSTANCE, .project = "p"});
    is(call(DATA "ReadRows", &q), 5, "not found");
    OK(lk_table_create(&store, "i/t", NULL, 0, &test_err));
    read_says(&q, "");
    q.table_name = (char *)(uintptr_t) "projects/other/instances/i/tables/t";
    is(call(DATA "ReadRows", &q), 7, "serves the project p");
    ADMIN(ListTablesRequest) l = GOOGLE__BIGTABLE__ADMIN__V2__LIST_TABLES_REQUEST__INIT;
    l.parent = (char *)(uintptr_t) "projects/p/instances/i";
    struct answer *a = call(TABLES "ListTables", &l);
    is(a, 0, "");
    assert_non_null(memmem(a->body.data, a->body.size, T, strlen(T)));
    l.parent = (char *)(uintptr_t) "projects/p/instances/j";
    a = call(TABLES "ListTables", &l);
    assert_null(memmem(a->body.data, a->body.size, "tables/", 7));
}

static void pages(void **state) {
    (void)state;
    ADMIN(ListTablesRequest) l = GOOGLE__BIGTABLE__ADMIN__V2__LIST_TABLES_REQUEST__INIT;
    char token[64] = "", all[200] = "";
    for (int i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        OK(lk_table_create(&store, name, NULL, 0, &test_err));
    }
    l.parent = (char *)(uintptr_t) "projects/p/instances/i";
    l.page_size = 2;
    int calls = 0;
    do {
        l.page_token = token;
        struct answer *a = call(TABLES "ListTables", &l);
        is(a, 0, "");
        ADMIN(ListTablesResponse) *m =
            (void *)protobuf_c_message_unpack(&google__bigtable__admin__v2__list_tables_response__descriptor, NULL,
                                              a->body.size - 5, (uint8_t *)a->body.data + 5);
        assert_non_null(m);
        assert_in_range(m->n_tables, 1, 2);
        for (size_t i = 0; i < m->n_tables; i++) strcat(strcat(all, strrchr(m->tables[i]->name, '/') + 1), " ");
        snprintf(token, sizeof token, "%s", m->next_page_token);
        protobuf_c_message_free_unpacked(&m->base, NULL);
        calls++;
    } while (*token);
    assert_string_equal(all, "n0 n1 n2 n3 n4 t ");
    assert_int_equal(calls, 3);
}

static void rights(void **state) {
    (void)state;
    char line[3][256], text[3][LK_KEY_TEXT], bearer[3][160], *dir = test_dir_make(), path[4200];
    static const char *const grants[] = {"read=t", "read=* write=other", "read=t write=t admin=t"};
    struct lk_buf file = LK_BUF_INIT;
    struct lk_keys *keys;
    for (int i = 0; i < 3; i++) {
        OK(lk_key_make((const char *const[]){"reads", "elsewhere", "all"}[i], text[i], line[i], &test_err));
        OK(lk_buf_printf(&file, "%s %s\n", line[i], grants[i]));
        snprintf(bearer[i], sizeof bearer[i], "Bearer %s", text[i]);
    }
    snprintf(path, sizeof path, "%s/keys", dir);
    OK(lk_file_write_atomic(path, file.data, file.size, &test_err));
    assert_int_equal(chmod(path, 0600), 0);
    OK(lk_keys_open(path, &keys, &test_err));
    stop();
    start((struct lk_bigtable_options){.keys = keys});
    V2(ReadRowsRequest) q = read_of_t();
    ADMIN(DeleteTableRequest) d = GOOGLE__BIGTABLE__ADMIN__V2__DELETE_TABLE_REQUEST__INIT;
    d.name = (char *)(uintptr_t)T;
    key = "";
    is(call(DATA "ReadRows", &q), 16, "Bearer");
    key = "Bearer lk-nobody";
    is(call(DATA "ReadRows", &q), 16, "Bearer");
    key = bearer[0];
    is(call(DATA "ReadRows", &q), 0, "");
    set("r", "f", "q", 0, S("v"), 7, "may not write");
    key = bearer[1];
    is(call(DATA "ReadRows", &q), 0, "");
    set("r", "f", "q", 0, S("v"), 7, "may not write");
    is(call(TABLES "DeleteTable", &d), 7, "may not administer");
    key = bearer[2];
    set("r", "f", "q", 0, S("v"), 0, "");
    is(call(TABLES "DeleteTable", &d), 0, "");
    key = "";
    stop();
    start((struct lk_bigtable_options){0});
    lk_keys_close(keys);
    lk_buf_release(&file);
    test_dir_remove(dir);
}

#define CASE(f)                                                                                                            \
    { #f, f, setup, teardown, NULL }
int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(chunks), CASE(snapshots_end), CASE(hidden_rows), CASE(refused), CASE(refused_families),
        CASE(deep),   CASE(names),         CASE(pages),       CASE(rights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
