/* What must not happen to tables: damaged rows that are read as others, tables that are dropped and made again beneath a
 * compaction, allocations and calls of the kv that fail one after the other. */
#include "base/faults.h"
#include "lockstep/base/hash.h"
#include "store/table/key.h"
#include "store/table/testing.h"

static void apply(struct lk_table *t, const char *row, struct lk_mutation m) {
    OK(lk_table_apply(t, S(row), &m, 1, LK_LAZY, &test_err));
}
static void alter(struct lk_store *s, enum lk_table_change_kind kind, const char *family, const char *gc) {
    struct lk_table_change c = {kind, {family, gc, false}};
    OK(lk_table_alter(s, "t", &c, 1, &test_err));
}
static void compact(struct lk_table *t) {
    struct lk_table_compact_result r;
    OK(lk_table_compact(t, NULL, NULL, &r, &test_err));
}
static int64_t pin(struct lk_store *s, const char *name) {
    int64_t ms = 0;
    OK(lk_table_pin(s, name, (const char *const[]){"t"}, 1, 0, &ms, &test_err));
    return ms;
}

/* --- differences ------------------------------------------------------------------------------------------ */

static int diff_text(void *arg, const struct lk_cell *before, const struct lk_cell *after) {
    OK(lk_buf_printf(arg, "%s", before ? "-" : ""));
    if (before) text_cell(arg, before);
    OK(lk_buf_printf(arg, "%s", after ? "+" : ""));
    if (after) text_cell(arg, after);
    return 0;
}
static void differs(struct world *w, struct lk_table *t, int64_t from, int64_t to, const char *expected) {
    struct lk_buf b = LK_BUF_INIT;
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_buf_append(&b, "", 0));
    OK(lk_table_diff(t, txn, from, to, diff_text, &b, &test_err));
    assert_string_equal(b.size ? b.data : "", expected);
    lk_buf_release(&b);
    lk_kv_abort(txn);
}
static int ends(void *arg, const struct lk_cell *before, const struct lk_cell *after) {
    (void)arg, (void)before, (void)after;
    return LK_ENOTFOUND;
}

/* What a rule took between two pins is a difference, though no row was written and the rule is as it was. */
static void altered_and_back(struct world *w) {
    struct lk_store s = store_of(w->kv);
    make_table(&s, "t", (const char *const[]){"f", NULL, "g", NULL, NULL, NULL});
    struct lk_table *t = table_of(&s, "t");
    apply(t, "r", set_cell("f", "q", 1000, "old"));
    apply(t, "r", set_cell("f", "q", 2000, "new"));
    apply(t, "r", set_cell("g", "q", 1000, "g"));
    int64_t a = pin(&s, "a");
    alter(&s, LK_TABLE_UPDATE_FAMILY, "f", "maxversions=1");
    compact(t);
    alter(&s, LK_TABLE_UPDATE_FAMILY, "f", NULL);
    int64_t b = pin(&s, "b");
    differs(w, t, a, b, "-r f:q@1000=old;");
    alter(&s, LK_TABLE_DROP_FAMILY, "g", NULL);
    compact(t);
    alter(&s, LK_TABLE_ADD_FAMILY, "g", NULL);
    differs(w, t, b, 0, "-r g:q@1000=g;");
    struct lk_kv_txn *txn = begin(w->kv, false);
    assert_int_equal(lk_table_diff(t, txn, a, b + 1, diff_text, NULL, &test_err), LK_ENOTFOUND); /* no such pin */
    assert_int_equal(lk_table_diff(t, txn, a, b, ends, NULL, &test_err), LK_ENOTFOUND);          /* what fn says */
    lk_kv_abort(txn);
    lk_table_close(t);
}

static void leases(struct world *w) {
    struct lk_store s = store_of(w->kv);
    int64_t ms;
    make_table(&s, "t", (const char *const[]){"f", NULL, NULL});
    assert_int_equal(lk_table_pin(&s, "p", (const char *const[]){"t"}, 1, INT64_MAX, &ms, &test_err), LK_EINVAL);
    pin(&s, "p");
    assert_int_equal(lk_table_pin_renew(&s, "p", -1, &test_err), LK_EINVAL);
    assert_int_equal(lk_table_pin_renew(&s, "p", INT64_MAX, &test_err), LK_EINVAL);
    OK(lk_table_pin_renew(&s, "p", LK__TIME_MAX, &test_err));
}

/* --- dropped beneath a compaction -------------------------------------------------------------------------- */

struct remake {
    struct lk_store *store;
    int at, calls;
};
static int remake(void *arg, const struct lk_table_compact_result *r) {
    struct remake *m = arg;
    (void)r;
    if (m->calls++ != m->at) return 0;
    OK(lk_table_drop(m->store, "t", &test_err));
    make_table(m->store, "t", (const char *const[]){"f", "maxversions=1", NULL, NULL});
    return 0;
}
/* The table's number is another one then, and the tables between the two keep all that they have. */
static void made_again_beneath(struct world *w) {
    struct lk_store s = store_of(w->kv);
    for (int at = 0; at < 2; at++) {
        OK(lk_kv_update(w->kv, erase_all, NULL, LK_LAZY, NULL, &test_err));
        make_table(&s, "t", (const char *const[]){"f", "maxversions=1", NULL, NULL});
        make_table(&s, "other", (const char *const[]){"x", NULL, NULL, NULL});
        struct lk_table *t = table_of(&s, "t"), *other = table_of(&s, "other");
        struct lk_mutation m[5000];
        static char names[5000][16];
        for (int i = 0; i < 5000; i++) {
            snprintf(names[i], sizeof names[i], "q%05d", i);
            m[i] = set_cell("f", names[i], 1000, "v");
        }
        int64_t ms;
        OK(lk_table_apply(t, S("r"), m, 5000, LK_LAZY, &test_err));
        if (at == 1) { /* a long past, that is forgotten in several transactions */
            OK(lk_table_pin(&s, "p", (const char *const[]){"t"}, 1, 0, &ms, &test_err));
            OK(lk_table_apply(t, S("r"), &(struct lk_mutation){.kind = LK_DELETE_FROM_ROW}, 1, LK_LAZY, &test_err));
            OK(lk_table_pin_release(&s, "p", &test_err));
        } else
            for (int i = 0; i < 5000; i++) m[i].timestamp_us = 2000;
        if (at == 0) OK(lk_table_apply(t, S("r"), m, 5000, LK_LAZY, &test_err));
        apply(other, "o", set_cell("x", "q", 1000, "kept"));
        struct lk_table_compact_result r;
        struct remake again = {&s, at, 0};
        lk_table_compact(t, remake, &again, &r, &test_err);
        assert_true(again.calls > at);
        reads(other, w->kv, &(struct lk_table_read){0}, "o x:q@1000=kept;");
        lk_table_close(t);
        lk_table_close(other);
    }
}

/* --- a long column ------------------------------------------------------------------------------------------ */

static void many_versions_are_kept(struct world *w) {
    struct lk_store s = store_of(w->kv);
    make_table(&s, "t", (const char *const[]){"f", NULL, NULL, NULL});
    struct lk_table *t = table_of(&s, "t");
    static struct lk_mutation m[7000];
    for (int i = 0; i < 7000; i++) m[i] = set_cell("f", "q", 1000 * i, "v");
    OK(lk_table_apply(t, S("r"), m, 7000, LK_LAZY, &test_err));
    alter(&s, LK_TABLE_UPDATE_FAMILY, "f", "maxversions=5000");
    struct lk_table_compact_result r;
    OK(lk_table_compact(t, NULL, NULL, &r, &test_err));
    assert_int_equal(r.removed, 2000);
    assert_in_range(r.visited, 7000, 100000); /* once for 500 that go, not once for each */
    lk_table_close(t);
}

/* --- damage ------------------------------------------------------------------------------------------------- */

struct row {
    struct lk_bytes key, value;
};
static int put_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct row *r = arg;
    return lk_kv_put(txn, r->key, r->value, err);
}
static int none(void *arg, const struct lk_cell *c) {
    (void)arg, (void)c;
    return 0;
}
static int no_sample(void *arg, struct lk_bytes row, uint64_t offset) {
    (void)arg, (void)row, (void)offset;
    return 0;
}
static int no_diff(void *arg, const struct lk_cell *a, const struct lk_cell *b) {
    (void)arg, (void)a, (void)b;
    return 0;
}
static int no_pin(void *arg, const struct lk_table_pin *p) {
    (void)arg, (void)p;
    return 0;
}
static int no_name(void *arg, const char *name) {
    (void)arg, (void)name;
    return 0;
}

/* Everything that reads, then everything that writes; each may fail. Returns whether one has told of damage. */
static bool use_all(struct lk_store *s, int64_t at) {
    struct lk_table *t;
    struct lk_kv_txn *txn = NULL;
    struct lk_root root;
    struct lk_table_sink sink = {none, NULL, NULL};
    struct lk_table_compact_result r;
    int64_t ms;
    int codes[32] = {0}, n = 0;
    codes[n++] = lk_table_list(s, no_name, NULL, NULL);
    codes[n++] = lk_table_pins(s, no_pin, NULL, NULL);
    codes[n++] = lk_table_open(s, "t", &t, NULL);
    if (codes[n - 1] == 0) {
        txn = begin(s->kv, false);
        for (int64_t p = 0; p <= at; p += at) {
            codes[n++] = lk_table_read(t, txn, &(struct lk_table_read){.pinned_ms = p}, &sink, NULL, NULL);
            codes[n++] =
                lk_table_read(t, txn, &(struct lk_table_read){.pinned_ms = p, .reversed = true}, &sink, NULL, NULL);
            codes[n++] = lk_table_digest(t, txn, p, &root, NULL, NULL);
            codes[n++] = lk_table_samples(t, txn, p, no_sample, NULL, NULL);
            codes[n++] = lk_table_cuts(t, txn, p, 3, no_sample, NULL, NULL);
        }
        codes[n++] = lk_table_diff(t, txn, at, 0, no_diff, NULL, NULL);
        lk_kv_abort(txn);
        struct lk_mutation m[] = {set_cell("f", "q", 1000, "w"), {.kind = LK_DELETE_FROM_ROW}};
        codes[n++] = lk_table_apply(t, S("r"), m, 2, LK_LAZY, NULL);
        codes[n++] = lk_table_compact(t, NULL, NULL, &r, NULL);
        lk_table_close(t);
    }
    struct lk_table_change c[] = {{LK_TABLE_ADD_FAMILY, {"n", NULL, false}}, {LK_TABLE_DROP_FAMILY, {"n", NULL, false}}};
    codes[n++] = lk_table_alter(s, "t", c, 2, NULL);
    codes[n++] = lk_table_pin(s, "more", (const char *const[]){"t"}, 1, 1, &ms, NULL);
    codes[n++] = lk_table_pin_release(s, "more", NULL);
    codes[n++] = lk_table_pin_release(s, "p", NULL);
    codes[n++] = lk_table_create(s, "fresh", NULL, 0, NULL);
    codes[n++] = lk_table_drop(s, "t", NULL);
    bool told = false;
    for (int i = 0; i < n; i++) told |= codes[i] == LK_ECORRUPT;
    return told;
}

static void world_of_damage(struct lk_store *s, int64_t *at) {
    OK(lk_kv_update(s->kv, erase_all, NULL, LK_LAZY, NULL, &test_err));
    make_table(s, "t", (const char *const[]){"f", "maxage=1d", "g", NULL, NULL, NULL});
    struct lk_table *t = table_of(s, "t");
    apply(t, "a", set_cell("g", "q", 1000, "v"));
    apply(t, "r", set_cell("g", "q", 1000, "v"));
    *at = pin(s, "p");
    apply(t, "r", set_cell("g", "q", 1000, "w"));
    lk_table_close(t);
}
#define B(text)                                                                                                            \
    { text, sizeof(text) - 1 }
#define T1 "T\0\0\0\1"
#define V  B("\0\0\0\0\0\0\0v")

/* Keys and rows that nothing here writes. Times begin with a bit of 0; many of one kind, since a few are stepped over. */
static void damaged_rows(struct world *w) {
    static const struct row rows[] = {
        {B(T1 "c"), V},
        {B(T1 "cr"), V},
        {B(T1 "c\0f\1q\0\0\0\0\0\0\0\0\0"), V},      /* no row */
        {B(T1 "cr\0"), V},                           /* no family */
        {B(T1 "cr\0g\1q\0\0"), V},                   /* no time */
        {B(T1 "cr\0g\1\0x\0\0\0\0\0\0\0\0\0"), V},   /* a zero byte that is none */
        {B(T1 "cr\0g\1q\0\x90\0\0\0\0\0\0\0"), V},   /* a negative time */
        {B(T1 "cr\0\xf0\1q\0\0\0\0\0\0\0\0\0"), V},  /* a family of no letters */
        {B(T1 "cr\0g\1q\0\0\0\0\0\0\0\0\0"), B("")}, /* values */
        {B(T1 "cr\0g\1q\0\0\0\0\0\0\0\0\0"), B("\7\0\0\0\0\0\0v")},
        {B(T1 "cr\0g\1q\0\0\0\0\0\0\0\0\0"), B("\1\0\0\0\0\0\0v")},
        {B(T1 "h"), V},
        {B(T1 "hr\0g\1q\0"), V},
        {B(T1 "s"), V},
        {B(T1 "sr"), V},
        {B(T1 "s\0"), V},
        {B(T1 "sr\0x"), V},
        {B(T1 "l"), B("")},
        {B("t/table/t"), B("{}")},
        {B("t/table/t"), B("no")},
        {B("t/table/t"), B("")},
        {B("t/table/t"), B("{\"id\":1,\"since\":-1,\"families\":[],\"dropped\":[],\"pins\":[]}")},
        {B("t/table/t"), B("{\"id\":1,\"since\":9223372036854775807,\"families\":[],\"dropped\":[],\"pins\":[]}")},
        {B("t/table/t"), B("{\"id\":0,\"since\":1,\"families\":[],\"dropped\":[],\"pins\":[]}")},
        {B("t/table/t"), B("{\"id\":1,\"since\":1,\"families\":7,\"dropped\":[],\"pins\":[]}")},
        {B("t/table/t"), B("{\"id\":1,\"since\":1,\"families\":[],\"dropped\":[],\"pins\":{}}")},
        {B("t/table/t"),
         B("{\"id\":1,\"since\":1,\"families\":[],\"dropped\":[{\"name\":\"n\",\"generation\":99}],\"pins\":[]}")},
        {B("t/table/t"), B("{\"id\":1,\"since\":1,\"families\":[],\"dropped\":[],\"pins\":[{\"pin\":\"p\",\"at\":9e3}]}")},
        {B("t/table/t"),
         B("{\"id\":1,\"since\":1,\"families\":[],\"dropped\":[],\"pins\":[{\"pin\":\"p\",\"at\":9223372036854775807}]}")},
        {B("t/table/t"), B("{\"id\":1,\"since\":1,\"families\":[{\"name\":\"g\",\"generation\":1},{\"name\":\"f\","
                           "\"generation\":1}],\"dropped\":[],\"pins\":[]}")},
        {B("t/pin/p"), B("[")},
        {B("t/pin/p"), B("{}")},
        {B("t/pin/p\0q"), B("{}")},
        {B("t/drop/"), B("{}")},
        {B("t/drop/1x"), B("{}")},
        {B("t/drop/1\0"), B("{}")},
        {B("t/drop/12345678901234567890"), B("{}")},
        {B("t/compact/1"), B("{\"at\":\"54\"}")},
        {B("t/compact/1"), B("{\"at\":\"zz\"}")},
        {B("t/compact/1"), B("[")},
        {B("t/next/id"), B("{\"id\":-4}")},
        {B("t/next/id"), B("[]")},
    };
    struct lk_store s = store_of(w->kv);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t at;
        world_of_damage(&s, &at);
        OK(lk_kv_update(w->kv, put_row, (void *)(uintptr_t)&rows[i], LK_LAZY, NULL, &test_err));
        if (!use_all(&s, at)) fail_msg("row %zu: no LK_ECORRUPT", i);
    }
    /* Many of what a reader seeks past: it goes on or says so, and does not come back to the same one. */
    static const char *const many[] = {"cr\0g\1q\0\x90", "cr\0f\1q\0\x90", "cr\0\xf0\1q\0\x10"};
    for (size_t i = 0; i < 3; i++) {
        int64_t at;
        world_of_damage(&s, &at);
        for (unsigned char k = 0; k < 20; k++) {
            char key[5 + 8 + 7] = T1;
            memcpy(key + 5, many[i], 8);
            key[12 + 6] = (char)k;
            struct row row = {lk_bytes(key, sizeof key), lk_bytes("\0\0\0\0\0\0\0v", 8)};
            OK(lk_kv_update(w->kv, put_row, &row, LK_LAZY, NULL, &test_err));
        }
        assert_true(use_all(&s, at));
    }
}

/* Any bytes at all, by chance, in rows that are there and beside them: no crash, no loop. */
static void random_damage(struct world *w) {
    struct lk_store s = store_of(w->kv);
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (int round = 0; round < 150; round++) {
        int64_t at;
        world_of_damage(&s, &at);
        for (int k = 0; k < 8; k++) {
            char key[40] = T1, value[24] = "";
            static const char spaces[] = "chsSln";
            static const char some[] = "rgfq\0\0\0\1\1\xff\x80z";
            size_t n = 0, v = 0;
            for (x = x * 6364136223846793005u + 1; n < (x >> 33) % 30; n++) {
                x = x * 6364136223846793005u + 1;
                key[6 + n] = some[(x >> 40) % (sizeof some - 1)];
            }
            key[5] = spaces[(x >> 50) % 6];
            for (; v < (x >> 45) % 20; v++) value[v] = v == 0 ? (char)(x >> 60 & 1) : v < 7 ? 0 : (char)(x >> v);
            struct row row = {lk_bytes(key, 6 + n), lk_bytes(value, v)};
            OK(lk_kv_update(w->kv, put_row, &row, LK_LAZY, NULL, &test_err));
        }
        use_all(&s, at);
    }
}

/* --- faults ------------------------------------------------------------------------------------------------- */

/* The calls go to the engine below, but one. */
static struct {
    const struct lk_kv_ops *below;
    long calls, fail_at; /* 0: none */
} fault;

static bool due(struct lk_err *err) {
    if (++fault.calls != fault.fail_at) return false;
    lk_fail(err, LK_EIO, "a planted fault");
    return true;
}
static int begin_(struct lk_kv *kv, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->begin(kv, write, out, err);
}
static int commit_(struct lk_kv_txn *t, enum lk_durability d, bool stamped, int64_t *ms, struct lk_err *err) {
    if (!due(err)) return fault.below->commit(t, d, stamped, ms, err);
    fault.below->abort(t);
    return LK_EIO;
}
static int timestamp_(struct lk_kv_txn *t, int64_t *ms, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->timestamp(t, ms, err);
}
static int get_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->get(t, key, value, err);
}
static int put_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->put(t, key, value, err);
}
static int remove_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->remove(t, key, err);
}
static int remove_range_(struct lk_kv_txn *t, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->remove_range(t, from, to, err);
}
static int cursor_open_(struct lk_kv_txn *t, struct lk_kv_cursor **out, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->cursor_open(t, out, err);
}
static int cursor_seek_(struct lk_kv_cursor *c, struct lk_bytes key, bool back, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->cursor_seek(c, key, back, err);
}
static int cursor_step_(struct lk_kv_cursor *c, bool back, struct lk_err *err) {
    return due(err) ? LK_EIO : fault.below->cursor_step(c, back, err);
}
static struct lk_kv_ops faulty;
static void plant(struct lk_kv *kv) {
    fault.below = kv->ops;
    faulty = *kv->ops;
    faulty.begin = begin_, faulty.commit = commit_, faulty.timestamp = timestamp_;
    faulty.get = get_, faulty.get_many = NULL, faulty.put = put_, faulty.remove = remove_;
    faulty.remove_range = faulty.remove_range ? remove_range_ : NULL;
    faulty.cursor_open = cursor_open_, faulty.cursor_seek = cursor_seek_, faulty.cursor_step = cursor_step_;
    faulty.update = NULL;
    kv->ops = &faulty;
}

/* The first call that fails ends it; each call says what failed. */
static int script(struct lk_store *s, struct lk_err *err) {
    struct lk_table_family f[] = {{"f", "maxversions=1", false}, {"g", NULL, true}};
    struct lk_table_change c[] = {{LK_TABLE_ADD_FAMILY, {"h", "maxage=1d or maxversions=2", false}},
                                  {LK_TABLE_DROP_FAMILY, {"g", NULL, false}}};
    struct lk_mutation m[] = {set_cell("f", "q", 1000, "1"), set_cell("f", "q", 2000, "2"), set_cell("g", "q", 1000, "3")};
    struct lk_mutation gone = {.kind = LK_DELETE_FROM_ROW};
    struct lk_table_sink sink = {none, NULL, NULL};
    struct lk_table *t = NULL;
    struct lk_kv_txn *txn = NULL;
    struct lk_table_compact_result r;
    struct lk_root root;
    int64_t ms = 0;
    int code = lk_table_create(s, "n", f, 2, err);
    if (code == 0) code = lk_table_open(s, "n", &t, err);
    if (code == 0) code = lk_table_apply(t, S("r"), m, 3, LK_LAZY, err);
    if (code == 0) code = lk_table_pin(s, "q", (const char *const[]){"n", "t"}, 2, 0, &ms, err);
    if (code == 0) code = lk_table_alter(s, "n", c, 2, err);
    if (code == 0) code = lk_table_apply(t, S("r2"), m, 1, LK_LAZY, err);
    if (code == 0) code = lk_table_apply(t, S("r"), &gone, 1, LK_LAZY, err);
    if (code == 0) code = lk_kv_begin(s->kv, true, &txn, err);
    if (code == 0) {
        struct lk_table_rule rule = {.family = "f", .qualifier = S("q"), .append = S("more")};
        code = lk_table_read_modify_write(t, txn, S("r2"), &rule, 1, none, NULL, err);
        if (code == 0) code = lk_table_check_and_mutate(t, txn, S("r2"), NULL, m, 2, &gone, 1, NULL, err);
        if (code == 0) code = lk_table_note_put(t, txn, "note", S("text"), err);
        if (code == 0)
            code = lk_kv_commit(txn, LK_LAZY, NULL, err);
        else
            lk_kv_abort(txn);
    }
    if (code == 0) code = lk_table_compact(t, NULL, NULL, &r, err);
    if (code == 0) code = lk_kv_begin(s->kv, false, &txn, err);
    if (code == 0) {
        struct lk_table_read read = {.pinned_ms = ms, .reversed = true};
        code = lk_table_read(t, txn, &read, &sink, NULL, err);
        if (code == 0) code = lk_table_digest(t, txn, ms, &root, NULL, err);
        if (code == 0) code = lk_table_diff(t, txn, ms, 0, no_diff, NULL, err);
        if (code == 0) code = lk_table_cuts(t, txn, ms, 2, no_sample, NULL, err);
        lk_kv_abort(txn);
    }
    if (code == 0) code = lk_table_pin_release(s, "q", err);
    if (code == 0) code = lk_table_drop(s, "n", err);
    lk_table_close(t);
    return code;
}

/* After a fault: the table that was there has what it had; the script's is whole or not there, and the script can be run.
 */
static void still_whole(struct world *w, struct lk_store *s, struct lk_table *t, const struct lk_root *was, int64_t at) {
    struct lk_root now;
    struct lk_err err;
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_table_digest(t, txn, at, &now, NULL, &test_err));
    assert_true(lk_root_equal(&now, was));
    lk_kv_abort(txn);
    reads(t, w->kv, &(struct lk_table_read){0}, "a g:q@1000=v;r g:q@1000=w;");
    int code = lk_table_pin_release(s, "q", &err);
    if (code != 0) assert_int_equal(code, LK_ENOTFOUND);
    code = lk_table_drop(s, "n", &err);
    if (code != 0) assert_int_equal(code, LK_ENOTFOUND);
}

static void with_faults(struct world *w, bool of_memory) {
    struct lk_store s = store_of(w->kv);
    struct lk_root was;
    int64_t at;
    world_of_damage(&s, &at);
    struct lk_table *t = table_of(&s, "t");
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_table_digest(t, txn, at, &was, NULL, &test_err));
    lk_kv_abort(txn);
    const struct lk_kv_ops *ops = w->kv->ops;
    if (!of_memory) plant(w->kv);
    int code = 1;
    for (long nth = 1; code != 0 && nth < 20000; nth++) {
        struct lk_err err = {0};
        fault.calls = 0;
        if (of_memory)
            lk__alloc_fail_at((uint64_t)nth);
        else
            fault.fail_at = nth;
        code = script(&s, &err);
        lk__alloc_fail_at(0);
        fault.fail_at = 0;
        if (code != 0 && (!err.message[0] || code != (of_memory ? LK_ENOMEM : LK_EIO)))
            fail_msg("fault %ld: code %d, \"%s\"", nth, code, err.message);
        still_whole(w, &s, t, &was, at);
    }
    assert_int_equal(code, 0);
    w->kv->ops = ops;
    lk_table_close(t);
}
static void calls_that_fail(struct world *w) {
    with_faults(w, false);
}
static void memory_that_fails(struct world *w) {
    with_faults(w, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WORLD_TEST(altered_and_back),   WORLD_TEST(leases),
        WORLD_TEST(made_again_beneath), WORLD_TEST(many_versions_are_kept),
        WORLD_TEST(damaged_rows),       WORLD_TEST(random_damage),
        WORLD_TEST(calls_that_fail),    WORLD_TEST(memory_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
