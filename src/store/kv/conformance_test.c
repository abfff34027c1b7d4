/* Every promise of lockstep/store/kv.h, on every engine. */
#include "lockstep/base/progress.h"
#include "store/kv/layers.h"
#include "store/kv/testing.h"
#include <pthread.h>

#define NONE lk_bytes(NULL, 0)

static void key_is(struct lk_kv_cursor *c, const char *key) {
    struct lk_bytes k = lk_kv_cursor_key(c);
    if (k.size != strlen(key) || memcmp(k.data, key, k.size) != 0)
        fail_msg("the cursor is at \"%.*s\", not \"%s\"", (int)k.size, (const char *)k.data, key);
}
static struct lk_kv_cursor *cursor(struct lk_kv_txn *t, struct lk_bytes from, struct lk_bytes to) {
    struct lk_kv_cursor *c;
    OK(lk_kv_cursor_open(t, from, to, &c, &test_err));
    return c;
}
static void fill(struct lk_kv *kv, const char *keys) {
    struct lk_kv_txn *w = begin(kv, true);
    for (; *keys; keys++) OK(lk_kv_put(w, lk_bytes(keys, 1), lk_bytes(keys, 1), &test_err));
    commit(w);
}
/* The rows as text: keys of one byte, others as their first byte and their length. */
static int note(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct lk_buf *b = arg;
    (void)value;
    lk_buf_append(b, key.data, 1);
    if (key.size > 1) lk_buf_printf(b, "%zu ", key.size);
    return 0;
}
static void scan_is(struct lk_kv_txn *t, struct lk_bytes from, struct lk_bytes to, const char *want) {
    struct lk_buf b = LK_BUF_INIT;
    OK(lk_kv_scan(t, from, to, note, &b, &test_err));
    assert_string_equal(b.data ? b.data : "", want);
    lk_buf_release(&b);
}
/* The engine's own rows, but for its clock: nothing hidden is left behind. */
static size_t engine_rows(struct lk_kv *kv) {
    struct lk_kv_txn *t = begin(kv, false);
    struct lk_kv_cursor *c;
    size_t n = 0;
    OK(kv->ops->cursor_open(t, &c, &test_err));
    c->txn = t;
    int code = kv->ops->cursor_seek(c, NONE, false, &test_err);
    for (; code == 0; code = kv->ops->cursor_step(c, false, &test_err)) {
        const unsigned char *k = c->key.data;
        n += k[0] != LK__KV_RESERVED || k[1] == 'L';
    }
    assert_int_equal(code, LK_ENOTFOUND);
    kv->ops->cursor_close(c);
    lk_kv_abort(t);
    return n;
}

/* --- arguments ------------------------------------------------------------------------------------------- */

static void arguments(struct world *w) {
    struct lk_bytes v, keys[2] = {S("a"), NONE};
    struct lk_kv_cursor *c;
    unsigned char *big = lk_calloc(1, LK_KV_VALUE_MAX + 1);
    memset(big, 'k', LK_KV_KEY_MAX + 1);
    struct lk_bytes longer = lk_bytes(big, LK_KV_KEY_MAX + 1), reserved = lk_bytes("\0t", 2);
    struct lk_kv_txn *t = begin(w->kv, true);
    FAILS(lk_kv_put(t, longer, S("x"), &test_err), LK_EINVAL, "8193 bytes");
    FAILS(lk_kv_put(t, NONE, S("x"), &test_err), LK_EINVAL, "0 bytes");
    FAILS(lk_kv_put(t, reserved, S("x"), &test_err), LK_EINVAL, "reserved");
    FAILS(lk_kv_put(t, S("x"), lk_bytes(big, LK_KV_VALUE_MAX + 1), &test_err), LK_EINVAL, "blobs");
    FAILS(lk_kv_get(t, longer, &v, &test_err), LK_EINVAL, "8193 bytes");
    FAILS(lk_kv_get(t, NONE, &v, &test_err), LK_EINVAL, "0 bytes");
    FAILS(lk_kv_get(t, reserved, &v, &test_err), LK_EINVAL, "reserved");
    FAILS(lk_kv_get_many(t, keys, 2, &v, &test_err), LK_EINVAL, "0 bytes");
    FAILS(lk_kv_delete(t, longer, &test_err), LK_EINVAL, "8193 bytes");
    FAILS(lk_kv_delete(t, NONE, &test_err), LK_EINVAL, "0 bytes");
    FAILS(lk_kv_delete(t, reserved, &test_err), LK_EINVAL, "reserved");
    FAILS(lk_kv_delete_range(t, longer, NONE, &test_err), LK_EINVAL, "bound");
    FAILS(lk_kv_delete_range(t, NONE, longer, &test_err), LK_EINVAL, "bound");
    FAILS(lk_kv_cursor_open(t, longer, NONE, &c, &test_err), LK_EINVAL, "bound");
    FAILS(lk_kv_cursor_open(t, NONE, longer, &c, &test_err), LK_EINVAL, "bound");
    assert_null(c);
    lk_kv_cursor_close(NULL);
    put(t, "x", "still works"); /* a refused argument spoils nothing */
    commit(t);
    t = begin(w->kv, false);
    FAILS(lk_kv_put(t, S("a"), S("b"), &test_err), LK_EINVAL, "read transaction");
    FAILS(lk_kv_delete(t, S("a"), &test_err), LK_EINVAL, "read transaction");
    FAILS(lk_kv_delete_range(t, S("a"), NONE, &test_err), LK_EINVAL, "read transaction");
    FAILS(lk_kv_get(t, S("absent"), &v, &test_err), LK_ENOTFOUND, "no such row");
    OK(lk_kv_get_many(t, NULL, 0, NULL, &test_err));
    row_is(t, "x", "still works");
    lk_kv_abort(t);
    lk_free(big);
    struct lk_kv *absent;
    FAILS(lk_kv_open("memory:no such", LK_WRITE, &absent, &test_err), LK_ENOTFOUND, "no such");
}

static void values(struct world *w) {
    static const size_t sizes[] = {
        0, 1, 2000, 4095, 4096, 4097, 65536, ((size_t)1 << 20) - 1, (size_t)1 << 20, 3000001, LK_KV_VALUE_MAX};
    size_t count = sizeof sizes / sizeof *sizes;
    unsigned char *data = lk_alloc(LK_KV_VALUE_MAX);
    for (size_t i = 0; i < LK_KV_VALUE_MAX; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t i = 0; i < count; i++) {
        struct lk_kv_txn *t = begin(w->kv, true);
        OK(lk_kv_put(t, S("value"), lk_bytes(data + i % 2, sizes[i] - (sizes[i] ? i % 2 : 0)), &test_err));
        commit(t);
        t = begin(w->kv, false);
        struct lk_bytes v;
        OK(lk_kv_get(t, S("value"), &v, &test_err));
        assert_int_equal(v.size, sizes[i] - (sizes[i] ? i % 2 : 0));
        assert_true(v.size == 0 || memcmp(v.data, data + i % 2, v.size) == 0);
        lk_kv_abort(t);
    }
    lk_free(data);
}

/* --- order ----------------------------------------------------------------------------------------------- */

static void bounds(struct world *w) {
    static const struct {
        const char *from, *to, *want;
    } cases[] = {
        {"", "", "abdef"}, {"a", "", "abdef"}, {"b", "", "bdef"},  {"c", "", "def"},    {"g", "", ""},   {"", "a", ""},
        {"", "b", "a"},    {"", "c", "ab"},    {"", "z", "abdef"}, {"b", "e", "bd"},    {"c", "c", ""},  {"d", "d", ""},
        {"e", "b", ""},    {"b", "ba", "b"},   {"aa", "d", "b"},   {"d", "d\x01", "d"}, {"f", "g", "f"}, {"\x01", "b", "a"},
    };
    fill(w->kv, "abdef");
    struct lk_kv_txn *t = begin(w->kv, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_bytes from = S(cases[i].from), to = S(cases[i].to);
        const char *want = cases[i].want;
        size_t n = strlen(want), at = 0;
        scan_is(t, from, to, want);
        struct lk_kv_cursor *c = cursor(t, from, to);
        int code = lk_kv_cursor_first(c, &test_err);
        for (; code == 0; code = lk_kv_cursor_next(c, &test_err)) key_is(c, (char[]){want[at++], 0});
        assert_int_equal(code, LK_ENOTFOUND);
        assert_int_equal(at, n);
        for (code = lk_kv_cursor_last(c, &test_err); code == 0; code = lk_kv_cursor_previous(c, &test_err))
            key_is(c, (char[]){want[--at], 0});
        assert_int_equal(code, LK_ENOTFOUND);
        assert_int_equal(at, 0);
        /* seeks stay within the bounds */
        for (const char *k = "abcdefg"; *k; k++) {
            const char *first = want, *last = want + n;
            while (*first && *first < *k) first++;
            while (last > want && last[-1] > *k) last--;
            assert_int_equal(lk_kv_cursor_seek(c, lk_bytes(k, 1), &test_err), *first ? 0 : LK_ENOTFOUND);
            if (*first) key_is(c, (char[]){*first, 0});
            assert_int_equal(lk_kv_cursor_seek_back(c, lk_bytes(k, 1), &test_err), last > want ? 0 : LK_ENOTFOUND);
            if (last > want) key_is(c, (char[]){last[-1], 0});
        }
        lk_kv_cursor_close(c);
    }
    lk_kv_abort(t);
}

static void nowhere(struct world *w) {
    struct lk_kv_txn *t = begin(w->kv, false);
    struct lk_kv_cursor *c = cursor(t, NONE, NONE);
    FAILS(lk_kv_cursor_first(c, &test_err), LK_ENOTFOUND, "no row");
    FAILS(lk_kv_cursor_last(c, &test_err), LK_ENOTFOUND, "no row");
    FAILS(lk_kv_cursor_seek(c, S("a"), &test_err), LK_ENOTFOUND, "no row");
    FAILS(lk_kv_cursor_seek_back(c, S("a"), &test_err), LK_ENOTFOUND, "no row");
    lk_kv_cursor_close(c);
    lk_kv_abort(t);
    fill(w->kv, "ab");
    t = begin(w->kv, false);
    c = cursor(t, NONE, NONE);
    assert_int_equal(lk_kv_cursor_next(c, &test_err), LK_ENOTFOUND); /* not yet placed */
    assert_int_equal(lk_kv_cursor_previous(c, &test_err), LK_ENOTFOUND);
    assert_int_equal(lk_kv_cursor_key(c).size, 0);
    OK(lk_kv_cursor_last(c, &test_err));
    key_is(c, "b");
    assert_int_equal(lk_kv_cursor_next(c, &test_err), LK_ENOTFOUND);
    assert_null(lk_kv_cursor_key(c).data);
    assert_null(lk_kv_cursor_value(c).data);
    assert_int_equal(lk_kv_cursor_previous(c, &test_err), LK_ENOTFOUND); /* nowhere is nowhere */
    OK(lk_kv_cursor_first(c, &test_err));
    OK(lk_kv_cursor_seek(c, lk_kv_cursor_key(c), &test_err)); /* a key of its own */
    key_is(c, "a");
    lk_kv_cursor_close(c);
    lk_kv_abort(t);
}

/* A cursor keeps its place by key, whatever its transaction writes. */
static void cursors_across_writes(struct world *w) {
    fill(w->kv, "bdfh");
    struct lk_kv_txn *t = begin(w->kv, true);
    struct lk_kv_cursor *c = cursor(t, NONE, NONE), *other = cursor(t, S("c"), S("h"));
    OK(lk_kv_cursor_seek(c, S("d"), &test_err));
    OK(lk_kv_cursor_first(other, &test_err));
    put(t, "e", "new");
    OK(lk_kv_cursor_next(c, &test_err));
    key_is(c, "e");
    OK(lk_kv_delete(t, lk_kv_cursor_key(c), &test_err)); /* the row that it stands on */
    assert_int_equal(lk_kv_cursor_key(c).size, 0);
    OK(lk_kv_cursor_next(c, &test_err));
    key_is(c, "f");
    put(t, "e", "again");
    OK(lk_kv_cursor_previous(c, &test_err));
    key_is(c, "e");
    OK(lk_kv_delete(t, S("e"), &test_err));
    OK(lk_kv_cursor_previous(c, &test_err));
    key_is(c, "d");
    OK(lk_kv_delete_range(t, S("d"), S("g"), &test_err));
    OK(lk_kv_cursor_next(c, &test_err));
    key_is(c, "h");
    assert_int_equal(lk_kv_cursor_next(other, &test_err), LK_ENOTFOUND); /* it stood on d */
    put(t, "d", "once more");
    OK(lk_kv_cursor_first(other, &test_err));
    key_is(other, "d");
    assert_memory_equal(lk_kv_cursor_value(other).data, "once more", 9);
    lk_kv_cursor_close(c);
    lk_kv_cursor_close(other);
    /* many rows: the tree under the cursor is split and joined */
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "m%06d", i);
        put(t, key, "some value that fills a page sooner");
    }
    c = cursor(t, S("m"), S("n"));
    int seen = 0, code = lk_kv_cursor_first(c, &test_err);
    for (; code == 0; code = lk_kv_cursor_next(c, &test_err), seen++) {
        char key[16];
        snprintf(key, sizeof key, "m%06d", seen);
        key_is(c, key);
        OK(lk_kv_delete(t, lk_kv_cursor_key(c), &test_err));
    }
    assert_int_equal(seen, 2000);
    assert_int_equal(lk_kv_cursor_first(c, &test_err), LK_ENOTFOUND);
    lk_kv_cursor_close(c);
    scan_is(t, NONE, NONE, "bdh");
    commit(t);
}

static void ranges(struct world *w) {
    static const struct {
        const char *from, *to, *left;
    } cases[] = {
        {"", "", ""},        {"c", "", "ab"},      {"", "c", "cdef"},    {"b", "d", "adef"},
        {"bb", "e", "abef"}, {"d", "d", "abcdef"}, {"e", "b", "abcdef"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int with_long = 0; with_long < 2; with_long++) {
            unsigned char key[LK_KV_KEY_MAX];
            fill(w->kv, "abcdef");
            struct lk_kv_txn *t = begin(w->kv, true);
            if (with_long) OK(lk_kv_put(t, long_key(key, w->key_max + 5, 1), S("long"), &test_err)); /* begins with a */
            OK(lk_kv_delete_range(t, S(cases[i].from), S(cases[i].to), &test_err));
            if (with_long) OK(lk_kv_delete(t, long_key(key, w->key_max + 5, 1), &test_err));
            scan_is(t, NONE, NONE, cases[i].left);
            commit(t);
            t = begin(w->kv, false);
            scan_is(t, NONE, NONE, cases[i].left);
            lk_kv_abort(t);
            assert_int_equal(engine_rows(w->kv), strlen(cases[i].left));
        }
}

static void prefixes(struct world *w) {
    unsigned char end[4];
    size_t n;
    (void)w;
    assert_true(lk_kv_prefix_end(S("ab"), end, &n));
    assert_int_equal(n, 2);
    assert_memory_equal(end, "ac", 2);
    assert_true(lk_kv_prefix_end(S("a\xff\xff"), end, &n));
    assert_int_equal(n, 1);
    assert_memory_equal(end, "b", 1);
    assert_false(lk_kv_prefix_end(S("\xff\xff"), end, &n));
    assert_int_equal(n, 0);
    assert_false(lk_kv_prefix_end(NONE, end, &n));
    fill(w->kv, "a");
    put_one(w->kv, "\xff\xff", "last");
    struct lk_kv_txn *t = begin(w->kv, false);
    scan_is(t, S("\xff"), lk_bytes(end, n),
            "\xff"
            "2 ");
    lk_kv_abort(t);
}

/* --- long keys ------------------------------------------------------------------------------------------- */

/* Lengths around every border between layers, in order. */
static size_t border_lengths(size_t key_max, size_t out[4000]) {
    size_t n = 0;
    for (size_t border = key_max - 1; border + 3 <= LK_KV_KEY_MAX; border += key_max - 19)
        for (size_t size = border - 2; size <= border + 3 && n < 3900; size++)
            if (n == 0 || size > out[n - 1]) out[n++] = size;
    out[n++] = LK_KV_KEY_MAX;
    return n;
}

static void long_keys(struct world *w) {
    static unsigned char key[LK_KV_KEY_MAX];
    size_t *lengths = lk_alloc(4000 * sizeof *lengths), n = border_lengths(w->key_max, lengths);
    size_t step = n > 120 ? 7 : 1; /* of the engine with short rows, every seventh: all borders modulo its distance */
    struct lk_kv_txn *t = begin(w->kv, true);
    size_t put_count = 0;
    for (size_t i = 0; i < n; i += i < 24 || i + 8 > n ? 1 : step, put_count++)
        OK(lk_kv_put(t, long_key(key, lengths[i], 2), lk_bytes(&lengths[i], sizeof *lengths), &test_err));
    commit(t);
    t = begin(w->kv, false);
    for (size_t i = 0; i < n; i += i < 24 || i + 8 > n ? 1 : step) {
        struct lk_bytes v;
        OK(lk_kv_get(t, long_key(key, lengths[i], 2), &v, &test_err));
        assert_memory_equal(v.data, &lengths[i], sizeof *lengths);
        assert_int_equal(lk_kv_get(t, long_key(key, lengths[i], 3), &v, &test_err), LK_ENOTFOUND);
        assert_int_equal(lk_kv_get(t, lk_bytes(key, lengths[i] - 1), &v, &test_err), LK_ENOTFOUND);
    }
    /* both directions agree, and the order is that of memcmp: last bytes 2 come before the letters of longer ones */
    struct lk_kv_cursor *c = cursor(t, NONE, NONE);
    struct lk_buf before = LK_BUF_INIT;
    size_t seen = 0;
    int code = lk_kv_cursor_first(c, &test_err);
    for (; code == 0; code = lk_kv_cursor_next(c, &test_err), seen++) {
        struct lk_bytes k = lk_kv_cursor_key(c);
        if (seen) assert_true(lk__kv_compare(lk_bytes(before.data, before.size), k) < 0);
        before.size = 0;
        lk_buf_append(&before, k.data, k.size);
        size_t size;
        memcpy(&size, lk_kv_cursor_value(c).data, sizeof size);
        assert_int_equal(k.size, size);
        assert_memory_equal(k.data, long_key(key, size, 2).data, size);
    }
    assert_int_equal(code, LK_ENOTFOUND);
    assert_int_equal(seen, put_count);
    for (code = lk_kv_cursor_last(c, &test_err); code == 0; code = lk_kv_cursor_previous(c, &test_err), seen--) {
        struct lk_bytes k = lk_kv_cursor_key(c);
        if (seen < put_count) assert_true(lk__kv_compare(lk_bytes(before.data, before.size), k) > 0);
        before.size = 0;
        lk_buf_append(&before, k.data, k.size);
    }
    assert_int_equal(seen, 0);
    lk_kv_cursor_close(c);
    lk_buf_release(&before);
    lk_kv_abort(t);
    t = begin(w->kv, true); /* the deepest first, then the rest: links go with their layers */
    for (size_t i = 0; i < n; i += i < 24 || i + 8 > n ? 1 : step)
        if (i % 2 == 0) OK(lk_kv_delete(t, long_key(key, lengths[i], 2), &test_err));
    for (size_t i = 0; i < n; i += i < 24 || i + 8 > n ? 1 : step)
        if (i % 2) OK(lk_kv_delete(t, long_key(key, lengths[i], 2), &test_err));
    OK(lk_kv_delete(t, long_key(key, LK_KV_KEY_MAX, 77), &test_err)); /* absent */
    commit(t);
    assert_int_equal(engine_rows(w->kv), 0);
    lk_free(lengths);
}

/* Bytes that meet the links' own: zeros and 0xff just at the border. */
static void long_keys_of_zeros(struct world *w) {
    static unsigned char key[LK_KV_KEY_MAX];
    static const unsigned char fills[] = {0, 1, 0xff};
    size_t k = w->key_max, sizes[] = {k - 2, k - 1, k, k + 1, k + 2, 2 * k, 3 * k}, count = 0;
    struct lk_kv_txn *t = begin(w->kv, true);
    for (size_t f = 0; f < 3; f++)
        for (size_t s = 0; s < 7; s++, count++) {
            memset(key, fills[f], sizes[s]);
            key[0] = 'z';
            OK(lk_kv_put(t, lk_bytes(key, sizes[s]), lk_bytes(&sizes[s], sizeof *sizes), &test_err));
        }
    commit(t);
    t = begin(w->kv, true);
    struct lk_kv_cursor *c = cursor(t, S("z"), NONE);
    int code = lk_kv_cursor_first(c, &test_err);
    for (size_t f = 0; f < 3; f++)
        for (size_t s = 0; s < 7; s++, code = lk_kv_cursor_next(c, &test_err)) {
            assert_int_equal(code, 0);
            memset(key, fills[f], sizes[s]);
            key[0] = 'z';
            assert_int_equal(lk__kv_compare(lk_kv_cursor_key(c), lk_bytes(key, sizes[s])), 0);
        }
    assert_int_equal(code, LK_ENOTFOUND);
    for (size_t f = 0; f < 3; f++)
        for (size_t s = 0; s < 7; s++) { /* exact seeks, both ways */
            memset(key, fills[f], sizes[s]);
            key[0] = 'z';
            struct lk_bytes at = lk_bytes(key, sizes[s]);
            OK(lk_kv_cursor_seek(c, at, &test_err));
            assert_int_equal(lk__kv_compare(lk_kv_cursor_key(c), at), 0);
            OK(lk_kv_cursor_seek_back(c, at, &test_err));
            assert_int_equal(lk__kv_compare(lk_kv_cursor_key(c), at), 0);
        }
    lk_kv_cursor_close(c);
    OK(lk_kv_delete_range(t, S("z"), S("zz"), &test_err));
    struct lk_buf left = LK_BUF_INIT; /* those that go on with 0xff */
    for (size_t s = 0; s < 7; s++) lk_buf_printf(&left, "z%zu ", sizes[s]);
    scan_is(t, NONE, NONE, left.data);
    lk_buf_release(&left);
    OK(lk_kv_delete_range(t, NONE, NONE, &test_err));
    commit(t);
    assert_int_equal(engine_rows(w->kv), 0);
}

static void several_gets(struct world *w) {
    static unsigned char key[LK_KV_KEY_MAX];
    struct lk_bytes keys[] = {S("b"), S("absent"), long_key(key, LK_KV_KEY_MAX, 9), S("empty"), S("b")}, values[5];
    fill(w->kv, "ab");
    put_one(w->kv, "empty", "");
    struct lk_kv_txn *t = begin(w->kv, true);
    OK(lk_kv_put(t, keys[2], S("long"), &test_err));
    for (int i = 0; i < 2; i++) { /* own writes, then a reader */
        OK(lk_kv_get_many(t, keys, 5, values, &test_err));
        assert_true(values[0].size == 1 && memcmp(values[0].data, "b", 1) == 0);
        assert_null(values[1].data);
        assert_true(values[2].size == 4 && memcmp(values[2].data, "long", 4) == 0);
        assert_true(values[3].data && values[3].size == 0);
        assert_true(values[4].size == 1 && memcmp(values[4].data, "b", 1) == 0);
        commit(t);
        if (i == 0) t = begin(w->kv, false);
    }
}

/* --- transactions ---------------------------------------------------------------------------------------- */

static void snapshots(struct world *w) {
    fill(w->kv, "a");
    struct lk_kv_txn *old = begin(w->kv, false);
    row_is(old, "a", "a"); /* an engine may take its snapshot at the first read */
    struct lk_kv_txn *t = begin(w->kv, true);
    put(t, "a", "2");
    put(t, "b", "2");
    row_is(t, "a", "2");
    row_is(old, "a", "a");
    commit(t);
    row_is(old, "a", "a");
    row_is(old, "b", NULL);
    scan_is(old, NONE, NONE, "a");
    struct lk_kv_txn *now = begin(w->kv, false);
    row_is(now, "b", "2");
    lk_kv_abort(now);
    lk_kv_abort(old);
    t = begin(w->kv, true);
    OK(lk_kv_delete_range(t, NONE, NONE, &test_err));
    put(t, "c", "3");
    scan_is(t, NONE, NONE, "c");
    lk_kv_abort(t);
    struct lk_kv *second = world_open(w); /* another handle sees it at once */
    now = begin(second, false);
    scan_is(now, NONE, NONE, "ab");
    lk_kv_abort(now);
    lk_kv_close(second);
}

static void times(struct world *w) {
    int64_t last = 0, before = lk_clock_wall_ms();
    for (int i = 0; i < 100; i++) {
        struct lk_kv_txn *t = begin(w->kv, true);
        int64_t early = 0, again = 0, time;
        put(t, "k", "v");
        if (i % 2) OK(lk__kv_timestamp(t, &early, &test_err));
        if (i % 2) OK(lk__kv_timestamp(t, &again, &test_err));
        OK(lk_kv_commit(t, i % 3 ? LK_LAZY : LK_DURABLE, &time, &test_err));
        if (i % 2) assert_true(early == again && time == early);
        assert_true(time > last && time >= before);
        last = time;
    }
    struct lk_kv_txn *t = begin(w->kv, true); /* what is aborted takes no time */
    int64_t none, time;
    OK(lk__kv_timestamp(t, &none, &test_err));
    lk_kv_abort(t);
    t = begin(w->kv, false);
    OK(lk_kv_commit(t, LK_DURABLE, &time, &test_err));
    assert_int_equal(time, last);
    t = begin(w->kv, true); /* a time that is ahead of every clock, as a store that moves here may have it */
    put(t, "k", "v");
    OK(lk__kv_timestamp_from(t, before + 1000000, &test_err));
    OK(lk__kv_timestamp_from(t, before, &test_err)); /* does not go back */
    OK(lk__kv_holds(t, &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, &time, &test_err));
    assert_int_equal(time, before + 1000000);
    t = begin(w->kv, true);
    put(t, "k", "v");
    OK(lk_kv_commit(t, LK_DURABLE, &last, &test_err));
    assert_int_equal(last, time + 1);
}

struct closure {
    const char *key;
    int result, conflicts, runs;
};
static int write_and_return(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct closure *c = arg;
    c->runs++;
    int code = lk_kv_put(t, S(c->key), S("by update"), err);
    if (code) return code;
    if (c->conflicts-- > 0) return LK_ECONFLICT;
    return c->result ? lk_fail(err, c->result, "as told") : 0;
}
static void updates(struct world *w) {
    int64_t first, second;
    OK(lk_kv_update(w->kv, write_and_return, &(struct closure){"a", 0, 0, 0}, LK_DURABLE, &first, &test_err));
    struct closure again = {"b", 0, 3, 0};
    OK(lk_kv_update(w->kv, write_and_return, &again, LK_LAZY, &second, &test_err));
    assert_true(second > first);
    assert_int_equal(again.runs, 4);
    FAILS(lk_kv_update(w->kv, write_and_return, &(struct closure){"c", LK_EBUSY, 0, 0}, LK_DURABLE, NULL, &test_err),
          LK_EBUSY, "as told");
    assert_int_equal(lk_kv_update(w->kv, write_and_return, &(struct closure){"d", 17, 0, 0}, LK_LAZY, NULL, NULL), 17);
    struct lk_kv_txn *t = begin(w->kv, false);
    scan_is(t, NONE, NONE, "ab");
    lk_kv_abort(t);
}

/* Many threads count one row up; every third call fails after it wrote, and must leave nothing. */
#define COUNTERS 8
#define COUNTS   60
struct counter {
    struct lk_kv *kv;
    int number, turn, failures;
};
static int count_up(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct counter *c = arg;
    struct lk_bytes v;
    int32_t n = 0;
    char mine[32];
    int code = lk_kv_get(t, S("n"), &v, err);
    if (code == 0) memcpy(&n, v.data, 4);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    bool fails = (c->turn + c->number) % 3 == 0;
    snprintf(mine, sizeof mine, "%s/%d/%d", fails ? "failed" : "row", c->number, c->turn);
    if (fails && c->turn % 2) return 99; /* nothing written */
    n++;
    code = lk_kv_put(t, S("n"), lk_bytes(&n, 4), err);
    if (code == 0) code = lk_kv_put(t, S(mine), S("x"), err);
    return code ? code : fails ? 99 : 0;
}
static void *count(void *arg) {
    struct counter *c = arg;
    int64_t last = 0, now;
    for (c->turn = 0; c->turn < COUNTS; c->turn++) {
        int code = lk_kv_update(c->kv, count_up, c, c->turn % 4 ? LK_LAZY : LK_DURABLE, &now, NULL);
        if (code == 99) c->failures++;
        if (code != 0 && code != 99) return (void *)1;
        if (code == 0 && now <= last) return (void *)2;
        if (code == 0) last = now;
    }
    return NULL;
}
static void threads_share_commits(struct world *w) {
    pthread_t threads[COUNTERS];
    struct counter counters[COUNTERS];
    struct lk_kv *second = world_open(w);
    int failures = 0;
    for (int i = 0; i < COUNTERS; i++) {
        counters[i] = (struct counter){i % 2 ? w->kv : second, i, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, count, &counters[i]), 0);
    }
    for (int i = 0; i < COUNTERS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
        failures += counters[i].failures;
    }
    assert_int_equal(failures, COUNTERS * COUNTS / 3);
    struct lk_kv_txn *t = begin(w->kv, false);
    struct lk_bytes v;
    int32_t n;
    OK(lk_kv_get(t, S("n"), &v, &test_err));
    memcpy(&n, v.data, 4);
    assert_int_equal(n, COUNTERS * COUNTS - failures);
    struct lk_kv_cursor *c = cursor(t, S("failed/"), S("failed0"));
    assert_int_equal(lk_kv_cursor_first(c, &test_err), LK_ENOTFOUND);
    lk_kv_cursor_close(c);
    c = cursor(t, S("row/"), S("row0"));
    int rows = 0;
    for (int code = lk_kv_cursor_first(c, &test_err); code == 0; code = lk_kv_cursor_next(c, &test_err)) rows++;
    assert_int_equal(rows, n);
    lk_kv_cursor_close(c);
    lk_kv_abort(t);
    lk_kv_close(second);
}

static void statistics(struct world *w) {
    struct lk_kv_stats s;
    struct lk_kv_txn *t = begin(w->kv, true);
    int64_t time;
    put(t, "a", "1");
    OK(lk_kv_commit(t, LK_DURABLE, &time, &test_err));
    int code = lk_kv_stats(w->kv, &s, &test_err);
    if (code == LK_EUNSUPPORTED) return;
    OK(code);
    assert_non_null(s.engine);
    assert_true(s.rows >= 1);
    assert_true(s.size_bytes > 0);
    assert_int_equal(s.timestamp_ms, time);
}

/* Writes or removes a row beneath kv.c. */
static void tamper(struct lk_kv *kv, struct lk_bytes key, const char *value) {
    struct lk_kv_txn *t = begin(kv, true);
    if (value)
        OK(kv->ops->put(t, key, S(value), &test_err));
    else
        OK(kv->ops->remove(t, key, &test_err));
    t->dirty = true;
    commit(t);
}
static void checks(struct world *w) {
    static unsigned char key[LK_KV_KEY_MAX];
    struct lk_kv_check c;
    struct lk__kv_row_key row, link;
    struct lk__kv_layer root;
    OK(lk_kv_check(w->kv, &c, &test_err));
    assert_true(c.rows == 0 && c.layers == 0);
    fill(w->kv, "abc");
    struct lk_kv_txn *t = begin(w->kv, true);
    struct lk_bytes deep = long_key(key, 2 * w->key_max, 1);
    OK(lk_kv_put(t, deep, S("long"), &test_err));
    commit(t);
    OK(lk_kv_check(w->kv, &c, &test_err));
    assert_true(c.rows == 4 && c.key_bytes == 3 + deep.size && c.value_bytes == 3 + 4 && c.layers >= 2);
    struct lk_bytes leaf = lk__kv_layers_find(w->kv, deep, &row);
    lk__kv_layer_root(&root);
    lk__kv_layer_row(&root, w->key_max, deep, &link);
    struct lk_bytes first = lk_bytes(link.data, link.size);
    tamper(w->kv, leaf, NULL); /* a link into nothing */
    FAILS(lk_kv_check(w->kv, &c, &test_err), LK_ECORRUPT, "damaged");
    tamper(w->kv, leaf, "again");
    OK(lk_kv_check(w->kv, &c, &test_err));
    tamper(w->kv, first, "value"); /* an old release's row of that many bytes */
    FAILS(lk_kv_check(w->kv, &c, &test_err), LK_EUNSUPPORTED, "release 0.1");
    tamper(w->kv, first, NULL); /* rows that nothing leads to */
    FAILS(lk_kv_check(w->kv, &c, &test_err), LK_ECORRUPT, "nothing leads to");
    tamper(w->kv, first, "");
    t = begin(w->kv, true);
    OK(lk_kv_delete(t, deep, &test_err));
    commit(t);
    assert_int_equal(engine_rows(w->kv), 3);
}

/* A function that must wait for another thread's commit keeps nobody waiting, itself not either. */
static int put_flag(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_put(t, S("flag"), S("1"), err);
}
static int wait_for_flag(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct lk_bytes v;
    ++*(int *)arg;
    int code = lk_kv_get(t, S("flag"), &v, NULL);
    return code == LK_ENOTFOUND ? lk_fail(err, LK_ECONFLICT, "another one must come first") : code;
}
static void *set_flag(void *kv) {
    usleep(50000);
    lk_kv_update(kv, put_flag, NULL, LK_LAZY, NULL, NULL);
    return NULL;
}
static void a_call_that_is_run_again_lets_others_go_on(struct world *w) {
    struct lk_kv *kv = w->kv;
    int runs = 0;
    uint64_t began = lk_clock_ns();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_flag, kv), 0);
    OK(lk_kv_update(kv, wait_for_flag, &runs, LK_LAZY, NULL, &test_err));
    pthread_join(thread, NULL);
    assert_true(runs > 1 && lk_clock_ns() - began < 10000000000);
}

int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        WORLD_TEST(arguments),
        WORLD_TEST(values),
        WORLD_TEST(bounds),
        WORLD_TEST(nowhere),
        WORLD_TEST(ranges),
        WORLD_TEST(cursors_across_writes),
        WORLD_TEST(prefixes),
        WORLD_TEST(long_keys),
        WORLD_TEST(long_keys_of_zeros),
        WORLD_TEST(several_gets),
        WORLD_TEST(snapshots),
        WORLD_TEST(times),
        WORLD_TEST(updates),
        WORLD_TEST(statistics),
        WORLD_TEST(checks),
        WORLD_TEST(threads_share_commits),
        WORLD_TEST(a_call_that_is_run_again_lets_others_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
