/* Random operations on every engine beside a sorted array that does the same. */
#include "lockstep/base/progress.h"
#include "store/kv/layers.h"
#include "store/kv/testing.h"

#define POOL     160 /* keys that may be there */
#define CURSORS  3
#define NOT_HERE SIZE_MAX

/* Sorted, all different; a state says of each what it holds: 0 nothing, else a value that also gives its size. */
struct pool {
    unsigned char *data[POOL];
    size_t size[POOL];
};
struct state {
    uint32_t value[POOL];
};
struct place {
    struct lk_kv_cursor *cursor;
    struct lk_bytes from, to; /* copies */
    size_t at;                /* of the pool; NOT_HERE: nowhere */
};
struct test {
    struct pool pool;
    struct state now, draft, old;
    struct lk_kv_txn *writer, *reader; /* a reader sees old */
    struct place places[CURSORS];
    struct test_random r;
};

static struct lk_bytes pool_key(const struct test *t, size_t i) {
    return lk_bytes(t->pool.data[i], t->pool.size[i]);
}

/* Few letters, and lengths that like the borders between layers, so that keys begin alike and end at once. */
static struct lk_bytes random_key(struct test_random *r, size_t key_max, unsigned char out[LK_KV_KEY_MAX]) {
    static const unsigned char letters[] = {'a', 0xff, 0, 1};
    size_t each = key_max - 19, size;
    switch (test_random_below(r, 4)) {
    case 0:
        size = 1 + test_random_below(r, 4);
        break;
    case 1:
        size = 1 + test_random_below(r, (uint32_t)key_max + 3);
        break;
    default:
        size = key_max - 3 + test_random_below(r, 6) + each * test_random_below(r, 4);
    }
    if (size > LK_KV_KEY_MAX) size = LK_KV_KEY_MAX - test_random_below(r, 3);
    memset(out, 'a', size);
    for (uint32_t n = test_random_below(r, 3); n > 0; n--) { /* they differ near a border, at the end or anywhere */
        size_t at = test_random_below(r, 2) ? size - 1 : test_random_below(r, (uint32_t)size);
        out[at] = letters[test_random_below(r, at ? 4 : 2)];
    }
    if (out[0] == 0) out[0] = 1;
    return lk_bytes(out, size);
}

static void make_pool(struct test *t, size_t key_max) {
    unsigned char key[LK_KV_KEY_MAX];
    for (size_t n = 0; n < POOL;) {
        struct lk_bytes k = random_key(&t->r, key_max, key);
        size_t i = 0;
        while (i < n && lk__kv_compare(pool_key(t, i), k) < 0) i++;
        if (i < n && lk__kv_compare(pool_key(t, i), k) == 0) continue;
        memmove(&t->pool.data[i + 1], &t->pool.data[i], (n - i) * sizeof *t->pool.data);
        memmove(&t->pool.size[i + 1], &t->pool.size[i], (n - i) * sizeof *t->pool.size);
        t->pool.data[i] = lk_alloc(k.size);
        memcpy(t->pool.data[i], k.data, k.size);
        t->pool.size[i] = k.size;
        n++;
    }
}

static size_t value_size(uint32_t value) {
    return value % 40 == 7 ? 9000 : 4 + value % 100;
}
static void value_is(struct lk_bytes v, uint32_t want) {
    assert_int_equal(v.size, value_size(want));
    assert_memory_equal(v.data, &want, 4);
}

/* The first present key from i on, or back: the last one before i. */
static size_t present(const struct state *s, size_t i, bool back) {
    if (back) {
        while (i > 0)
            if (s->value[--i]) return i;
        return NOT_HERE;
    }
    for (; i < POOL; i++)
        if (s->value[i]) return i;
    return NOT_HERE;
}
static size_t lower(const struct test *t, struct lk_bytes key) {
    size_t i = 0;
    while (i < POOL && lk__kv_compare(pool_key(t, i), key) < 0) i++;
    return i;
}
/* A bound or a seek: a key of the pool, another one, or none. */
static struct lk_bytes some_key(struct test *t, size_t key_max, bool or_none, unsigned char out[LK_KV_KEY_MAX]) {
    uint32_t how = test_random_below(&t->r, or_none ? 3 : 2);
    if (how == 0) return pool_key(t, test_random_below(&t->r, POOL));
    return how == 1 ? random_key(&t->r, key_max, out) : lk_bytes("", 0);
}

/* --- cursors --------------------------------------------------------------------------------------------- */

static struct lk_bytes copy_of(struct lk_bytes b) {
    void *p = lk_alloc(b.size);
    if (b.size) memcpy(p, b.data, b.size);
    return lk_bytes(p, b.size);
}
static void close_place(struct place *p) {
    if (!p->cursor) return;
    lk_kv_cursor_close(p->cursor);
    lk_free((void *)(uintptr_t)p->from.data);
    lk_free((void *)(uintptr_t)p->to.data);
    *p = (struct place){NULL};
}
static void open_place(struct test *t, struct lk_kv_txn *txn, struct place *p, size_t key_max) {
    unsigned char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    p->from = copy_of(some_key(t, key_max, true, a));
    p->to = copy_of(some_key(t, key_max, true, b));
    p->at = NOT_HERE;
    OK(lk_kv_cursor_open(txn, p->from, p->to, &p->cursor, &test_err));
}

static void move_cursor(struct test *t, const struct state *s, struct place *p, size_t key_max) {
    unsigned char buffer[LK_KV_KEY_MAX];
    size_t low = lower(t, p->from), high = p->to.size ? lower(t, p->to) : POOL, want;
    struct lk_bytes key = some_key(t, key_max, false, buffer);
    size_t near = lower(t, key), behind = near < POOL && lk__kv_compare(pool_key(t, near), key) == 0 ? near + 1 : near;
    uint32_t move = test_random_below(&t->r, 10);
    int code;
    switch (move) {
    case 0:
        code = lk_kv_cursor_first(p->cursor, &test_err);
        want = present(s, low, false);
        break;
    case 1:
        code = lk_kv_cursor_last(p->cursor, &test_err);
        want = present(s, high, true);
        break;
    case 2:
        code = lk_kv_cursor_seek(p->cursor, key, &test_err);
        want = present(s, near > low ? near : low, false);
        break;
    case 3:
        code = lk_kv_cursor_seek_back(p->cursor, key, &test_err);
        want = present(s, behind < high ? behind : high, true);
        break;
    default: {
        bool back = move % 2;
        code = back ? lk_kv_cursor_previous(p->cursor, &test_err) : lk_kv_cursor_next(p->cursor, &test_err);
        want = p->at == NOT_HERE ? NOT_HERE : present(s, back ? p->at : p->at + 1, back);
    }
    }
    if (want != NOT_HERE && (want < low || want >= high)) want = NOT_HERE;
    if (code != (want == NOT_HERE ? LK_ENOTFOUND : 0))
        fail_msg("move %u: code %d (%s), row %zd, bounds %zu %zu, was at %zd", move, code, test_err.message, (ssize_t)want,
                 low, high, (ssize_t)p->at);
    p->at = want;
    if (want == NOT_HERE) return;
    assert_int_equal(lk__kv_compare(lk_kv_cursor_key(p->cursor), pool_key(t, want)), 0);
    value_is(lk_kv_cursor_value(p->cursor), s->value[want]);
}

struct scan {
    const struct test *t;
    const struct state *s;
    size_t at, high;
};
static int check_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct scan *s = arg;
    s->at = present(s->s, s->at, false);
    assert_true(s->at < s->high);
    assert_int_equal(lk__kv_compare(key, pool_key(s->t, s->at)), 0);
    value_is(value, s->s->value[s->at++]);
    return 0;
}
static void check_scan(struct test *t, struct lk_kv_txn *txn, const struct state *state, size_t key_max) {
    unsigned char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    struct lk_bytes from = some_key(t, key_max, true, a), to = some_key(t, key_max, true, b);
    struct scan s = {t, state, lower(t, from), to.size ? lower(t, to) : POOL};
    OK(lk_kv_scan(txn, from, to, check_row, &s, &test_err));
    size_t more = present(state, s.at, false);
    assert_true(more == NOT_HERE || more >= s.high || s.at >= s.high);
}

/* --- steps ----------------------------------------------------------------------------------------------- */

static void get_some(struct test *t, struct lk_kv_txn *txn, const struct state *s) {
    struct lk_bytes keys[5], values[5], v;
    size_t which[5];
    for (size_t i = 0; i < 5; i++) keys[i] = pool_key(t, which[i] = test_random_below(&t->r, POOL));
    OK(lk_kv_get_many(txn, keys, 5, values, &test_err));
    for (size_t i = 0; i < 5; i++) {
        uint32_t want = s->value[which[i]];
        if (want)
            value_is(values[i], want);
        else
            assert_null(values[i].data);
    }
    for (size_t i = 0; i < 5; i++) {
        int code = lk_kv_get(txn, keys[i], &v, &test_err);
        assert_int_equal(code, s->value[which[i]] ? 0 : LK_ENOTFOUND);
        if (code == 0) value_is(v, s->value[which[i]]);
    }
}

static void write_some(struct test *t, size_t key_max) {
    static char value[9000];
    unsigned char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    size_t i = test_random_below(&t->r, POOL);
    uint32_t how = test_random_below(&t->r, 100);
    if (how < 60) {
        uint32_t v = test_random_below(&t->r, UINT32_MAX - 1) + 1;
        memcpy(value, &v, 4);
        OK(lk_kv_put(t->writer, pool_key(t, i), lk_bytes(value, value_size(v)), &test_err));
        t->draft.value[i] = v;
    } else if (how < 97) {
        OK(lk_kv_delete(t->writer, pool_key(t, i), &test_err));
        t->draft.value[i] = 0;
    } else {
        struct lk_bytes from = some_key(t, key_max, true, a), to = some_key(t, key_max, true, b);
        OK(lk_kv_delete_range(t->writer, from, to, &test_err));
        for (i = lower(t, from); i < (to.size ? lower(t, to) : POOL); i++) t->draft.value[i] = 0;
    }
}

static void end_writer(struct test *t) {
    int64_t time;
    for (int i = 0; i < CURSORS; i++) close_place(&t->places[i]);
    uint32_t how = test_random_below(&t->r, 4);
    if (how == 0) {
        lk_kv_abort(t->writer);
        t->draft = t->now;
    } else
        OK(lk_kv_commit(t->writer, how == 1 ? LK_DURABLE : LK_LAZY, how == 2 ? &time : NULL, &test_err));
    t->now = t->draft;
    t->writer = NULL;
}
/* What is on a disk is there again. */
static void reopen(const struct test *t, struct world *w) {
    if (t->writer || t->reader || w->kv->ops == &lk__kv_memory) return;
    lk_kv_close(w->kv);
    w->kv = world_open(w);
}

static void one_step(struct test *t, struct world *w) {
    if (!t->writer) OK(lk_kv_begin(w->kv, true, &t->writer, &test_err));
    struct place *p = &t->places[test_random_below(&t->r, CURSORS)];
    uint32_t how = test_random_below(&t->r, 100);
    if (how < 40)
        write_some(t, w->key_max);
    else if (how < 80) {
        if (p->cursor && test_random_below(&t->r, 30) == 0) close_place(p);
        if (!p->cursor) open_place(t, t->writer, p, w->key_max);
        move_cursor(t, &t->draft, p, w->key_max);
    } else if (how < 88)
        get_some(t, t->writer, &t->draft);
    else if (how < 92)
        check_scan(t, t->writer, &t->draft, w->key_max);
    else if (how < 97) { /* an old snapshot stays as it was */
        if (!t->reader) {
            OK(lk_kv_begin(w->kv, false, &t->reader, &test_err));
            t->old = t->now;
        }
        check_scan(t, t->reader, &t->old, w->key_max);
        get_some(t, t->reader, &t->old);
        struct place q = {NULL};
        open_place(t, t->reader, &q, w->key_max);
        for (int i = 0; i < 10; i++) move_cursor(t, &t->old, &q, w->key_max);
        close_place(&q);
        if (test_random_below(&t->r, 5) == 0) {
            lk_kv_abort(t->reader);
            t->reader = NULL;
        }
    } else {
        end_writer(t);
        if (test_random_below(&t->r, 10) == 0) reopen(t, w);
    }
}

/* Nothing hidden is left where nothing is left. */
static void check_empty(struct world *w) {
    struct lk_kv_txn *t = begin(w->kv, false);
    assert_int_equal(lk__kv_layers_any(t, &test_err), LK_ENOTFOUND);
    lk_kv_abort(t);
}

static void equals_a_sorted_array(struct world *w) {
    struct test *t = lk_calloc(1, sizeof *t);
    const char *steps = getenv("LOCKSTEP_TEST_STEPS");
    t->r = test_random_open("equals_a_sorted_array");
    make_pool(t, w->key_max);
    for (long i = steps ? atol(steps) : 12000; i > 0; i--) one_step(t, w);
    if (t->writer) end_writer(t);
    lk_kv_abort(t->reader);
    OK(lk_kv_update(w->kv, erase_all, NULL, LK_LAZY, NULL, &test_err));
    check_empty(w);
    for (size_t i = 0; i < POOL; i++) lk_free(t->pool.data[i]);
    lk_free(t);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {WORLD_TEST(equals_a_sorted_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
