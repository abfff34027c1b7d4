/* Random operations beside a model that is too simple to be wrong: keys, sorted, and which of them has which value. */
#include "store/leveldb/testing.h"

#define POOL      120 /* keys that may be there */
#define SNAPSHOTS 4
#define ITERATORS 4
#define KEY_MAX   8191
#define NOWHERE   POOL

/* Of each key: 0, or a value that gives its bytes too. */
struct state {
    uint32_t value[POOL];
};
struct snapshot {
    const leveldb_snapshot_t *snapshot;
    struct state state;
};
struct iterator {
    leveldb_iterator_t *iterator;
    struct state state;
    size_t at;
};
struct test {
    struct world *w;
    struct test_random r;
    unsigned char *key[POOL];
    size_t size[POOL];
    struct state now;
    struct snapshot snapshots[SNAPSHOTS];
    struct iterator iterators[ITERATORS];
};

static uint32_t below(struct test *t, uint32_t n) {
    return test_random_below(&t->r, n);
}

/* --- keys and values --------------------------------------------------------------------------------------- */

static int compare(const unsigned char *a, size_t an, const unsigned char *b, size_t bn) {
    int c = memcmp(a, b, an < bn ? an : bn);
    return c ? c : (an > bn) - (an < bn);
}
/* Few letters, so that keys begin alike; the empty one, zero bytes, the longest. */
static size_t random_key(struct test *t, unsigned char out[KEY_MAX]) {
    static const unsigned char letters[] = {0, 'a', 0xff, ':'};
    size_t size = below(t, 8) ? below(t, 5) : below(t, 6) ? 505 + below(t, 12) : KEY_MAX - below(t, 3);
    memset(out, 'a', size);
    for (uint32_t n = below(t, 4); n > 0 && size > 0; n--) out[below(t, (uint32_t)size)] = letters[below(t, 4)];
    return size;
}
static size_t lower(const struct test *t, size_t count, const unsigned char *key, size_t size) {
    size_t i = 0;
    while (i < count && compare(t->key[i], t->size[i], key, size) < 0) i++;
    return i;
}
static void make_pool(struct test *t) {
    unsigned char key[KEY_MAX];
    for (size_t n = 0; n < POOL;) {
        size_t size = n == 0 ? 0 : random_key(t, key), i = lower(t, n, key, size);
        if (i < n && compare(t->key[i], t->size[i], key, size) == 0) continue;
        memmove(&t->key[i + 1], &t->key[i], (n - i) * sizeof *t->key);
        memmove(&t->size[i + 1], &t->size[i], (n - i) * sizeof *t->size);
        t->key[i] = lk_alloc(size);
        memcpy(t->key[i], key, size);
        t->size[i] = size;
        n++;
    }
}
static uint32_t random_value(struct test *t) {
    return below(t, UINT32_MAX - 1) + 1;
}
static const char *bytes_of(uint32_t value, size_t *size) {
    static char bytes[70000];
    *size = value % 50 == 3 ? value % sizeof bytes : value % 7 == 1 ? 0 : value % 90;
    for (size_t i = 0; i < *size; i += sizeof value) memcpy(bytes + i, &value, sizeof value);
    return bytes;
}
static void value_is(const char *got, size_t got_size, uint32_t want) {
    size_t size;
    const char *bytes = bytes_of(want, &size);
    assert_int_equal(got_size, size);
    if (size) assert_memory_equal(got, bytes, size);
}

/* --- writes ------------------------------------------------------------------------------------------------ */

static void write_one(struct test *t) {
    size_t i = below(t, POOL), size;
    uint32_t value = below(t, 2) ? random_value(t) : 0;
    const char *bytes = bytes_of(value, &size);
    L.writeoptions_set_sync(t->w->write, below(t, 50) == 0);
    if (value)
        L.put(t->w->db, t->w->write, (char *)t->key[i], t->size[i], bytes, size, &error);
    else
        L.delete(t->w->db, t->w->write, (char *)t->key[i], t->size[i], &error);
    worked("a write");
    t->now.value[i] = value;
}

static void fill_batch(struct test *t, leveldb_writebatch_t *b, struct state *s) {
    for (uint32_t n = below(t, 12), i = below(t, POOL); n > 0; n--) {
        size_t size;
        uint32_t value = below(t, 2) ? random_value(t) : 0;
        const char *bytes = bytes_of(value, &size);
        if (below(t, 4)) i = below(t, POOL); /* else the same key once more */
        if (value)
            L.writebatch_put(b, (char *)t->key[i], t->size[i], bytes, size);
        else
            L.writebatch_delete(b, (char *)t->key[i], t->size[i]);
        s->value[i] = value;
    }
}
static void write_batch(struct test *t) {
    leveldb_writebatch_t *b = L.writebatch_create(), *more = L.writebatch_create();
    struct state ignored = t->now;
    if (below(t, 4) == 0) {
        fill_batch(t, b, &ignored);
        L.writebatch_clear(b);
    }
    fill_batch(t, b, &t->now);
    fill_batch(t, more, &t->now);
    L.writebatch_append(b, more);
    L.write(t->w->db, t->w->write, b, &error);
    worked("a batch");
    L.writebatch_destroy(b);
    L.writebatch_destroy(more);
}

/* --- reads ------------------------------------------------------------------------------------------------- */

static void take_snapshot(struct test *t, struct snapshot *s) {
    if (s->snapshot) L.release_snapshot(t->w->db, s->snapshot);
    *s = (struct snapshot){below(t, 4) ? L.create_snapshot(t->w->db) : NULL, t->now};
}
/* A snapshot that is there, or NULL and the state now. */
static struct snapshot some_state(struct test *t) {
    struct snapshot s = t->snapshots[below(t, SNAPSHOTS)];
    return s.snapshot && below(t, 2) ? s : (struct snapshot){NULL, t->now};
}
static void get_one(struct test *t) {
    struct snapshot s = some_state(t);
    size_t i = below(t, POOL), size;
    L.readoptions_set_snapshot(t->w->read, s.snapshot);
    char *got = L.get(t->w->db, t->w->read, (char *)t->key[i], t->size[i], &size, &error);
    L.readoptions_set_snapshot(t->w->read, NULL);
    worked("get");
    assert_int_equal(got != NULL, s.state.value[i] != 0);
    if (got) value_is(got, size, s.state.value[i]);
    L.free(got);
}

static size_t present(const struct state *s, size_t i) {
    while (i < POOL && !s->value[i]) i++;
    return i;
}
static size_t present_before(const struct state *s, size_t i) {
    while (i > 0)
        if (s->value[--i]) return i;
    return NOWHERE;
}

static void open_iterator(struct test *t, struct iterator *it) {
    struct snapshot s = some_state(t);
    if (it->iterator) L.iter_destroy(it->iterator);
    L.readoptions_set_snapshot(t->w->read, s.snapshot);
    *it = (struct iterator){L.create_iterator(t->w->db, t->w->read), s.state, NOWHERE};
    L.readoptions_set_snapshot(t->w->read, NULL);
}
static void seek(struct test *t, struct iterator *it) {
    unsigned char key[KEY_MAX];
    size_t size = random_key(t, key);
    L.iter_seek(it->iterator, (char *)key, size);
    it->at = present(&it->state, lower(t, POOL, key, size));
}
static void move(struct test *t, struct iterator *it) {
    uint32_t how = it->at == NOWHERE ? below(t, 3) : below(t, 20);
    if (how == 0) {
        L.iter_seek_to_first(it->iterator);
        it->at = present(&it->state, 0);
    } else if (how == 1) {
        L.iter_seek_to_last(it->iterator);
        it->at = present_before(&it->state, POOL);
    } else if (how < 5) {
        seek(t, it);
    } else if (how % 2) {
        L.iter_next(it->iterator);
        it->at = present(&it->state, it->at + 1);
    } else {
        L.iter_prev(it->iterator);
        it->at = present_before(&it->state, it->at);
    }
    size_t size;
    L.iter_get_error(it->iterator, &error);
    worked("a move");
    assert_int_equal(L.iter_valid(it->iterator), it->at != NOWHERE);
    if (it->at == NOWHERE) return;
    const char *got = L.iter_key(it->iterator, &size);
    assert_int_equal(size, t->size[it->at]);
    if (size) assert_memory_equal(got, t->key[it->at], size);
    got = L.iter_value(it->iterator, &size);
    value_is(got, size, it->state.value[it->at]);
}
static void walk(struct test *t) {
    struct iterator *it = &t->iterators[below(t, ITERATORS)];
    if (!it->iterator || below(t, 12) == 0) open_iterator(t, it);
    for (uint32_t n = below(t, 10); n > 0; n--) move(t, it);
}

/* --- all together -------------------------------------------------------------------------------------------- */

static void drop_all(struct test *t) {
    for (int i = 0; i < SNAPSHOTS; i++)
        if (t->snapshots[i].snapshot) L.release_snapshot(t->w->db, t->snapshots[i].snapshot);
    for (int i = 0; i < ITERATORS; i++)
        if (t->iterators[i].iterator) L.iter_destroy(t->iterators[i].iterator);
    memset(t->snapshots, 0, sizeof t->snapshots);
    memset(t->iterators, 0, sizeof t->iterators);
}
static void check_all(struct test *t) {
    struct iterator it = {NULL, t->now, NOWHERE};
    it.iterator = L.create_iterator(t->w->db, t->w->read);
    L.iter_seek_to_first(it.iterator);
    for (size_t i = present(&t->now, 0); i < POOL; i = present(&t->now, i + 1), L.iter_next(it.iterator)) {
        size_t size;
        assert_true(L.iter_valid(it.iterator));
        const char *key = L.iter_key(it.iterator, &size);
        assert_true(compare((const unsigned char *)key, size, t->key[i], t->size[i]) == 0);
    }
    assert_false(L.iter_valid(it.iterator));
    L.iter_destroy(it.iterator);
}
static void one_step(struct test *t) {
    uint32_t how = below(t, 1000);
    if (how < 350)
        write_one(t);
    else if (how < 450)
        write_batch(t);
    else if (how < 700)
        get_one(t);
    else if (how < 940)
        walk(t);
    else if (how < 980)
        take_snapshot(t, &t->snapshots[below(t, SNAPSHOTS)]);
    else if (how < 990)
        L.compact_range(t->w->db, NULL, 0, NULL, 0);
    else if (how < 995)
        check_all(t);
    else {
        drop_all(t);
        if (below(t, 2)) L.compact_range(t->w->db, NULL, 0, NULL, 0);
        reopen(t->w);
        check_all(t);
    }
}
static void equals_a_model(struct world *w) {
    const char *steps = getenv("LOCKSTEP_TEST_STEPS");
    struct test *t = lk_calloc(1, sizeof *t);
    t->w = w;
    t->r = test_random_open("equals_a_model");
    make_pool(t);
    for (long i = steps ? atol(steps) : 6000; i > 0; i--) one_step(t);
    drop_all(t);
    for (size_t i = 0; i < POOL; i++) lk_free(t->key[i]);
    lk_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {CASE(equals_a_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
