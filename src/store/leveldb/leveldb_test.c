/* What programs of LevelDB's rely on: rows, snapshots, iterators, batches, threads. README.md says which of LevelDB's own
 * cases each of these holds. */
#include "store/leveldb/testing.h"
#include <pthread.h>
#include <stdatomic.h>

static void compact(struct world *w) {
    L.compact_range(w->db, NULL, 0, NULL, 0);
}
/* A value of that size that no compressor makes smaller. */
static char *noise(size_t size, uint32_t seed) {
    char *bytes = lk_alloc(size + 16);
    for (size_t i = 0; i < size; i += 16) {
        uint32_t out[4];
        lk_random(seed, LK_PURPOSE_VERIFY, (uint32_t)(i / 16), 0, 0, 0, out);
        memcpy(bytes + i, out, 16);
    }
    return bytes;
}

/* --- rows ------------------------------------------------------------------------------------------------- */

static void rows_are_what_was_written_last(struct world *w) {
    is(w, "pear", NULL);
    put(w, "pear", "1");
    put(w, "plum", "2");
    is(w, "pear", "1");
    put(w, "pear", "3");
    is(w, "pear", "3");
    is(w, "plum", "2");
    del(w, "pear");
    del(w, "pear");
    is(w, "pear", NULL);
    put(w, "pear", "4");
    for (int i = 0; i < 3; i++) { /* also when they have moved, and are read again and again */
        compact(w);
        is(w, "pear", "4");
        put(w, "plum", i ? "6" : "5");
        is(w, "plum", i ? "6" : "5");
        is(w, "quince", NULL);
    }
}

static void keys_and_values_of_any_bytes(struct world *w) {
    static const struct {
        const char *bytes;
        size_t size;
    } keys[] = {{"", 0}, {"\0", 1}, {"\0\0", 2}, {"\0L", 2}, {"\0t", 2}, {":", 1}, {"leveldb", 7}, {"\xff\xff", 2}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        put_bytes(w, keys[i].bytes, keys[i].size, "x\0y", 3);
        is_bytes(w, keys[i].bytes, keys[i].size, "x\0y", 3);
        put_bytes(w, keys[i].bytes, keys[i].size, "", 0);
        is_bytes(w, keys[i].bytes, keys[i].size, "", 0);
    }
    reopen(w);
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    size_t size, at = 0;
    for (L.iter_seek_to_first(it); L.iter_valid(it); L.iter_next(it), at++) {
        const char *key = L.iter_key(it, &size);
        assert_int_equal(size, keys[at].size);
        assert_memory_equal(key, keys[at].bytes, size);
    }
    assert_int_equal(at, sizeof keys / sizeof *keys);
    L.iter_destroy(it);
}

static void large_values(struct world *w) {
    char *large = noise(10000000, 1), *middle = noise(100000, 2);
    put(w, "a", "small");
    put_bytes(w, "b", 1, large, 10000000);
    put_bytes(w, "c", 1, middle, 100000);
    put(w, "d", "small");
    for (int i = 0; i < 2; i++) {
        is(w, "a", "small");
        is_bytes(w, "b", 1, large, 10000000);
        is_bytes(w, "c", 1, middle, 100000);
        is(w, "d", "small");
        reopen(w);
    }
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    size_t sizes[] = {5, 10000000, 100000, 5}, size, at = 0;
    for (L.iter_seek_to_first(it); L.iter_valid(it); L.iter_next(it)) {
        L.iter_value(it, &size);
        assert_int_equal(size, sizes[at++]);
    }
    for (L.iter_seek_to_last(it); L.iter_valid(it); L.iter_prev(it)) {
        L.iter_value(it, &size);
        assert_int_equal(size, sizes[--at]);
    }
    assert_int_equal(at, 0);
    L.iter_destroy(it);
    lk_free(large);
    lk_free(middle);
}

/* Deleted and written over again between openings; no state before comes back. */
static void rows_survive_openings(struct world *w) {
    char key[16], value[1100];
    memset(value, 'v', sizeof value);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "key%06d", i);
        put_bytes(w, key, 9, value, 1000 + (size_t)i % 100);
    }
    put(w, "b", "1");
    reopen(w);
    del(w, "b");
    del(w, "a");
    reopen(w);
    put(w, "", "");
    put(w, "c", "3");
    reopen(w);
    reopen(w);
    del(w, "a");
    put(w, "", "");
    put(w, "c", "4");
    reopen(w);
    for (int i = 0; i < 2; i++) {
        is(w, "a", NULL);
        is(w, "b", NULL);
        is(w, "c", "4");
        is(w, "", "");
        compact(w);
    }
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "key%06d", i);
        is_bytes(w, key, 9, value, 1000 + (size_t)i % 100);
    }
}

/* --- snapshots --------------------------------------------------------------------------------------------- */

static void snapshots_stay_as_they_were(struct world *w) {
    char longer[201] = {0};
    memset(longer, 'x', 200);
    for (int i = 0; i < 2; i++) {
        const char *key = i ? longer : "pear";
        put(w, key, "1");
        const leveldb_snapshot_t *first = L.create_snapshot(w->db), *same = L.create_snapshot(w->db);
        put(w, key, "2");
        const leveldb_snapshot_t *second = L.create_snapshot(w->db);
        del(w, key);
        const leveldb_snapshot_t *third = L.create_snapshot(w->db);
        put(w, key, "4");
        for (int turn = 0; turn < 2; turn++) {
            is_then(w, first, key, "1");
            is_then(w, same, key, "1");
            is_then(w, second, key, "2");
            is_then(w, third, key, NULL);
            is(w, key, "4");
            compact(w);
        }
        L.release_snapshot(w->db, third);
        L.release_snapshot(w->db, first);
        is_then(w, same, key, "1");
        is_then(w, second, key, "2");
        L.release_snapshot(w->db, same);
        is_then(w, second, key, "2");
        L.release_snapshot(w->db, second);
        is(w, key, "4");
    }
}

static void a_snapshot_of_nothing_holds_nothing(struct world *w) {
    const leveldb_snapshot_t *s = L.create_snapshot(w->db);
    L.readoptions_set_snapshot(w->read, s);
    put(w, "pear", "1");
    for (int i = 0; i < 2; i++) {
        leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
        L.iter_seek_to_first(it);
        stands_on(it, "");
        L.iter_seek_to_last(it);
        stands_on(it, "");
        L.iter_destroy(it);
        put(w, "pear", "2");
        compact(w);
    }
    L.readoptions_set_snapshot(w->read, NULL);
    L.release_snapshot(w->db, s);
    is(w, "pear", "2");
}

/* The iterator goes on when its snapshot is released. */
static void iterators_outlive_snapshots(struct world *w) {
    put(w, "a", "1");
    put(w, "b", "2");
    const leveldb_snapshot_t *s = L.create_snapshot(w->db);
    L.readoptions_set_snapshot(w->read, s);
    leveldb_iterator_t *one = L.create_iterator(w->db, w->read), *two = L.create_iterator(w->db, w->read);
    L.readoptions_set_snapshot(w->read, NULL);
    L.release_snapshot(w->db, s);
    del(w, "a");
    put(w, "b", "3");
    L.iter_seek_to_first(one);
    stands_on(one, "a=1");
    L.iter_destroy(two);
    L.iter_next(one);
    stands_on(one, "b=2");
    L.iter_destroy(one);
    is(w, "a", NULL);
}

/* --- iterators --------------------------------------------------------------------------------------------- */

static void walk(leveldb_iterator_t *it, const char *const *rows, size_t count) {
    L.iter_seek_to_first(it);
    for (size_t i = 0; i < count; i++, L.iter_next(it)) stands_on(it, rows[i]);
    stands_on(it, "");
    L.iter_seek_to_last(it);
    for (size_t i = count; i > 0; L.iter_prev(it)) stands_on(it, rows[--i]);
    stands_on(it, "");
}

static void iterators_at_the_ends(struct world *w) {
    static const char *const one[] = {"b=1"};
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    stands_on(it, "");
    walk(it, NULL, 0);
    L.iter_seek(it, "b", 1);
    stands_on(it, "");
    L.iter_destroy(it);
    put(w, "b", "1");
    it = L.create_iterator(w->db, w->read);
    stands_on(it, "");
    walk(it, one, 1);
    L.iter_seek_to_first(it);
    L.iter_prev(it);
    stands_on(it, "");
    L.iter_seek_to_last(it);
    L.iter_next(it);
    stands_on(it, "");
    static const char *const before[] = {"", "a", "b"};
    for (int i = 0; i < 3; i++) {
        L.iter_seek(it, before[i], strlen(before[i]));
        stands_on(it, "b=1");
        L.iter_next(it);
        stands_on(it, "");
    }
    L.iter_seek(it, "ba", 2);
    stands_on(it, "");
    L.iter_destroy(it);
}

static void iterators_walk_turn_and_keep_their_state(struct world *w) {
    static const char *const rows[] = {"a=1", "b=2", "c=3"};
    put(w, "b", "2");
    put(w, "c", "3");
    put(w, "a", "1");
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    walk(it, rows, 3);
    L.iter_seek(it, "", 0);
    stands_on(it, "a=1");
    L.iter_seek(it, "aa", 2);
    stands_on(it, "b=2");
    L.iter_next(it);
    L.iter_prev(it);
    stands_on(it, "b=2");
    L.iter_prev(it);
    L.iter_next(it);
    stands_on(it, "b=2");
    L.iter_seek(it, "d", 1);
    stands_on(it, "");
    /* what comes later is not seen, however much it is */
    char *large = noise(100000, 3), key[16];
    put(w, "a", "other");
    put(w, "aa", "more");
    del(w, "b");
    for (int i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "b%d", i);
        put_bytes(w, key, strlen(key), large, 100000);
    }
    compact(w);
    walk(it, rows, 3);
    L.iter_destroy(it);
    lk_free(large);
}

static void iterators_pass_over_deleted_rows(struct world *w) {
    static const char *const rows[] = {"a=1", "c=3"};
    put(w, "a", "1");
    put(w, "b", "2");
    put(w, "c", "3");
    for (int i = 0; i < 2; i++) {
        if (i) compact(w);
        del(w, "b");
        leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
        walk(it, rows, 2);
        L.iter_seek(it, "b", 1);
        stands_on(it, "c=3");
        L.iter_prev(it);
        stands_on(it, "a=1");
        L.iter_destroy(it);
        put(w, "b", "2");
    }
}

/* From the row behind many that were written over: back to the one before them. */
static void iterators_turn_over_rewritten_rows(struct world *w) {
    for (int i = 0; i < 4; i++) {
        put(w, "1", "b");
        put(w, "2", "c");
        put(w, "3", "d");
        put(w, "4", "e");
        put(w, "5", i ? "g" : "f");
    }
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    L.iter_seek(it, "5", 1);
    stands_on(it, "5=g");
    L.iter_prev(it);
    stands_on(it, "4=e");
    L.iter_prev(it);
    stands_on(it, "3=d");
    L.iter_next(it);
    stands_on(it, "4=e");
    L.iter_next(it);
    stands_on(it, "5=g");
    L.iter_next(it);
    stands_on(it, "");
    L.iter_destroy(it);
}

/* --- batches ----------------------------------------------------------------------------------------------- */

static void collect_put(void *text, const char *k, size_t klen, const char *v, size_t vlen) {
    char *end = strchr(text, 0);
    sprintf(end, "%.*s=%.*s ", (int)klen, k, (int)vlen, v);
}
static void collect_delete(void *text, const char *k, size_t klen) {
    char *end = strchr(text, 0);
    sprintf(end, "-%.*s ", (int)klen, k);
}
static void batch_is(const leveldb_writebatch_t *b, const char *want) {
    char text[200] = "";
    L.writebatch_iterate(b, text, collect_put, collect_delete);
    assert_string_equal(text, want);
}
static void batches_are_done_in_order(struct world *w) {
    leveldb_writebatch_t *b = L.writebatch_create(), *more = L.writebatch_create();
    batch_is(b, "");
    L.write(w->db, w->write, b, &error);
    worked("an empty batch");
    L.writebatch_put(b, "gone", 4, "x", 1);
    L.writebatch_clear(b);
    L.writebatch_put(b, "a", 1, "1", 1);
    L.writebatch_put(b, "b", 1, "2", 1);
    L.writebatch_delete(b, "a", 1);
    L.writebatch_append(b, more);
    L.writebatch_put(more, "b", 1, "3", 1);
    L.writebatch_put(more, "", 0, "", 0);
    L.writebatch_append(b, more);
    batch_is(b, "a=1 b=2 -a b=3 = ");
    batch_is(more, "b=3 = ");
    put(w, "a", "old");
    L.write(w->db, w->write, b, &error);
    worked("a batch");
    is(w, "a", NULL);
    is(w, "b", "3");
    is(w, "", "");
    is(w, "gone", NULL);
    L.writebatch_destroy(b);
    L.writebatch_destroy(more);
}

/* --- sizes ------------------------------------------------------------------------------------------------- */

static uint64_t size_of(struct world *w, const char *start, const char *limit) {
    uint64_t size = 77;
    L.approximate_sizes(w->db, 1, &start, &(size_t){strlen(start)}, &limit, &(size_t){strlen(limit)}, &size);
    return size;
}
static void size_is(struct world *w, const char *start, const char *limit, uint64_t least, uint64_t most) {
    uint64_t size = size_of(w, start, limit);
    if (size < least || size > most)
        fail_msg("%s to %s: %llu bytes, not %llu to %llu", start, limit, (unsigned long long)size,
                 (unsigned long long)least, (unsigned long long)most);
}
static void sizes_of_ranges(struct world *w) {
    static const uint64_t sizes[] = {10000, 10000, 100000, 10000, 100000, 10000, 300000, 10000};
    char key[16], limit[16];
    size_is(w, "", "xyz", 0, 0);
    for (uint32_t i = 0; i < 8; i++) {
        char *value = noise(sizes[i], i);
        snprintf(key, sizeof key, "key%u", i);
        put_bytes(w, key, 4, value, sizes[i]);
        lk_free(value);
    }
    for (int turn = 0; turn < 2; turn++) {
        reopen(w);
        compact(w);
        for (int from = 0; from < 8; from++)
            for (int to = from; to <= 8; to++) {
                uint64_t sum = 0;
                for (int i = from; i < to; i++) sum += sizes[i];
                snprintf(key, sizeof key, "key%d", from);
                snprintf(limit, sizeof limit, "key%d", to);
                size_is(w, key, limit, sum, sum + sum / 50 + 2000); /* what LevelDB adds to a file */
            }
        size_is(w, "key2", "key2.and-more", 100000, 102000);
    }
    size_is(w, "key5", "key2", 0, 0);
}

/* --- threads ------------------------------------------------------------------------------------------------ */

#define THREADS 4
#define KEYS    40
struct load {
    struct world *w;
    atomic_int *counters; /* of each thread: how far it is */
    int id;
    atomic_bool *stop;
};
/* A value names its key, its writer and how far that one was, which must not be before the writer was. */
static void *write_and_read(void *arg) {
    struct load *l = arg;
    struct test_random r = {(uint64_t)l->id, 0};
    char *failure = NULL, key[20], value[1100];
    leveldb_readoptions_t *read = L.readoptions_create();
    for (int i = 0; !atomic_load(l->stop); i++) {
        atomic_store(&l->counters[l->id], i);
        uint32_t number = test_random_below(&r, KEYS);
        size_t size = (size_t)snprintf(key, sizeof key, "%016u", number), got;
        if (test_random_below(&r, 2)) {
            size_t n = (size_t)snprintf(value, sizeof value, "%u.%d.%-1000d", number, l->id, i);
            L.put(l->w->db, l->w->write, key, size, value, n, &failure);
            assert_null(failure);
            continue;
        }
        char *v = L.get(l->w->db, read, key, size, &got, &failure);
        unsigned k;
        int who, when;
        assert_null(failure);
        if (!v) continue;
        assert_int_equal(sscanf(v, "%u.%d.%d", &k, &who, &when), 3);
        assert_int_equal(k, number);
        assert_in_range(who, 0, THREADS - 1);
        assert_true(when <= atomic_load(&l->counters[who]));
        L.free(v);
    }
    L.readoptions_destroy(read);
    return NULL;
}
static void many_threads(struct world *w) {
    pthread_t threads[THREADS];
    struct load loads[THREADS];
    atomic_int counters[THREADS] = {0};
    atomic_bool stop = false;
    for (int i = 0; i < THREADS; i++) {
        loads[i] = (struct load){w, counters, i, &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &loads[i]), 0);
    }
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* A snapshot that several threads read at once. */
struct reading {
    struct world *w;
    const leveldb_snapshot_t *snapshot;
};
static void *read_snapshot(void *arg) {
    const struct reading *r = arg;
    leveldb_readoptions_t *read = L.readoptions_create();
    L.readoptions_set_snapshot(read, r->snapshot);
    for (int turn = 0; turn < 20; turn++) {
        leveldb_iterator_t *it = L.create_iterator(r->w->db, read);
        int rows = 0;
        for (L.iter_seek_to_first(it); L.iter_valid(it); L.iter_next(it), rows++) {
            char *failure = NULL;
            size_t key_size, value_size, size;
            const char *key = L.iter_key(it, &key_size), *value = L.iter_value(it, &value_size);
            char *again = L.get(r->w->db, read, key, key_size, &size, &failure);
            assert_non_null(again);
            assert_int_equal(size, value_size);
            assert_memory_equal(again, value, size);
            L.free(again);
        }
        assert_int_equal(rows, 100);
        L.iter_destroy(it);
    }
    L.readoptions_destroy(read);
    return NULL;
}
static void threads_share_a_snapshot(struct world *w) {
    pthread_t threads[THREADS];
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(w, key, key);
    }
    struct reading r = {w, L.create_snapshot(w->db)};
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_snapshot, &r), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(w, key, "later");
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    L.release_snapshot(w->db, r.snapshot);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(rows_are_what_was_written_last),
        CASE(keys_and_values_of_any_bytes),
        CASE(large_values),
        CASE(rows_survive_openings),
        CASE(snapshots_stay_as_they_were),
        CASE(a_snapshot_of_nothing_holds_nothing),
        CASE(iterators_outlive_snapshots),
        CASE(iterators_at_the_ends),
        CASE(iterators_walk_turn_and_keep_their_state),
        CASE(iterators_pass_over_deleted_rows),
        CASE(iterators_turn_over_rewritten_rows),
        CASE(batches_are_done_in_order),
        CASE(sizes_of_ranges),
        CASE(many_threads),
        CASE(threads_share_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
