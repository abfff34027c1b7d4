/* Whose a database is, what is refused, what happens when something fails. */
#include "lockstep/base/progress.h"
#include "lockstep/store/kv.h"
#include "store/leveldb/testing.h"
#include <sys/resource.h>
#include <sys/stat.h>

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}
static void close_db(struct world *w) {
    L.close(w->db);
    w->db = NULL;
}
static void cannot_open(struct world *w, const char *part) {
    assert_null(L.open(w->options, w->path, &error));
    failed(part);
}
static void destroy(struct world *w) {
    L.destroy_db(w->options, w->path, &error);
    worked("destroy");
}

/* --- opening ----------------------------------------------------------------------------------------------- */

static void options_of_opening(struct world *w) {
    close_db(w);
    destroy(w);
    L.options_set_create_if_missing(w->options, 0);
    cannot_open(w, "does not exist");
    L.options_set_create_if_missing(w->options, 1);
    L.options_set_error_if_exists(w->options, 1);
    open_db(w);
    put(w, "pear", "1");
    close_db(w);
    cannot_open(w, "exists");
    L.options_set_create_if_missing(w->options, 0);
    cannot_open(w, "exists");
    L.options_set_error_if_exists(w->options, 0);
    open_db(w);
    is(w, "pear", "1");
}

static void removing(struct world *w) {
    L.destroy_db(w->options, w->path, &error);
    failed(w->ours ? "is open already" : "lock");
    put(w, "pear", "1");
    close_db(w);
    destroy(w);
    assert_false(exists(w->path));
    destroy(w); /* absent */
    assert_int_equal(mkdir(w->path, 0755), 0);
    destroy(w); /* empty */
    assert_false(exists(w->path));
    open_db(w);
    is(w, "pear", NULL);
    close_db(w);
    char *other = test_join(w->path, "notes.txt");
    OK(lk_file_write_atomic(other, "mine", 4, &test_err));
    destroy(w);
    assert_true(exists(other)); /* and nothing else */
    assert_int_equal(test_dir_entries(w->path), 1);
    lk_free(other);
}

static void open_elsewhere(void *arg) {
    struct world *w = arg;
    char *failure = NULL;
    leveldb_t *db = L.open(w->options, w->path, &failure);
    _exit(db ? 0 : failure ? 7 : 8);
}
static int opened_elsewhere(struct world *w) {
    return WEXITSTATUS(test_fork(open_elsewhere, w));
}
static void one_opener(struct world *w) {
    cannot_open(w, w->ours ? "is open already" : "lock");
    assert_int_equal(opened_elsewhere(w), 7);
    put(w, "pear", "1");
    close_db(w);
    assert_int_equal(opened_elsewhere(w), 0);
    open_db(w);
    is(w, "pear", "1");
}

/* A child has the parent's descriptors: it neither keeps the database nor gives it away. */
static void close_here(void *arg) {
    L.close(((struct world *)arg)->db);
}
static void children_do_not_matter(struct world *w) {
    assert_int_equal(test_fork(close_here, w), 0);
    assert_int_equal(opened_elsewhere(w), 7);
    fflush(NULL);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char c;
        close(pipes[1]);
        _exit(read(pipes[0], &c, 1) != 0);
    }
    close(pipes[0]);
    reopen(w); /* while the child has its copy of the lock's descriptor */
    put(w, "pear", "1");
    close(pipes[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void what_is_read_keeps_it_open(struct world *w) {
    put(w, "a", "1");
    const leveldb_snapshot_t *s = L.create_snapshot(w->db);
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    close_db(w);
    L.iter_seek_to_first(it);
    stands_on(it, "a=1");
    L.release_snapshot(w->db, s);
    cannot_open(w, "is open already");
    L.iter_destroy(it);
    open_db(w);
    is(w, "a", "1");
}

/* --- others' folders ----------------------------------------------------------------------------------------- */

static int put_row(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_put(t, lk_bytes("row", 3), lk_bytes("theirs", 6), err);
}
static void rows_of_others_are_refused(struct world *w) {
    char *dir = test_join(w->dir, "rows"), *url = lk_asprintf("file:%s", dir);
    struct lk_kv *kv;
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    OK(lk_kv_update(kv, put_row, NULL, LK_DURABLE, NULL, &test_err));
    lk_kv_close(kv);
    close_db(w);
    lk_free(w->path);
    w->path = dir;
    cannot_open(w, "holds rows that no program wrote through this interface");
    L.destroy_db(w->options, dir, &error);
    failed("nothing was removed");
    L.repair_db(w->options, dir, &error);
    failed("holds rows that no program wrote");
    OK(lk_kv_open(url, LK_READ, &kv, &test_err));
    struct lk_kv_check check;
    OK(lk_kv_check(kv, &check, &test_err));
    assert_int_equal(check.rows, 1);
    lk_kv_close(kv);
    lk_free(url);
}
static void leveldbs_own_files_are_refused(struct world *w) {
    char *current = test_join(w->dir, "CURRENT"), *ours = w->path;
    close_db(w);
    OK(lk_file_write_atomic(current, "MANIFEST-000002\n", 16, &test_err));
    w->path = w->dir;
    cannot_open(w, "holds LevelDB's own files");
    L.destroy_db(w->options, w->dir, &error);
    failed("holds LevelDB's own files");
    assert_true(exists(current) && exists(ours));
    w->path = ours;
    lk_free(current);
}
/* Killed between making the file and saying what it is. */
static void a_half_made_one_is_made(struct world *w) {
    close_db(w);
    destroy(w);
    char *url = lk_asprintf("file:%s", w->path);
    struct lk_kv *kv;
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    lk_kv_close(kv);
    lk_free(url);
    L.options_set_create_if_missing(w->options, 0);
    cannot_open(w, "does not exist");
    L.options_set_create_if_missing(w->options, 1);
    L.options_set_error_if_exists(w->options, 1);
    open_db(w);
}
static void damage_is_told(struct world *w) {
    char *data = lk_asprintf("%s/kv/data.mdb", w->path);
    put(w, "a", "1");
    close_db(w);
    FILE *f = fopen(data, "r+b");
    assert_non_null(f);
    for (int i = 0; i < 8192; i++) fputc('x', f);
    fclose(f);
    cannot_open(w, "Corruption: ");
    L.repair_db(w->options, w->path, &error);
    failed("Corruption: ");
    L.destroy_db(w->options, w->path, &error);
    failed("nothing was removed");
    assert_true(exists(data));
    assert_int_equal(unlink(data), 0);
    L.options_set_create_if_missing(w->options, 0);
    cannot_open(w, "does not exist");
    destroy(w);
    lk_free(data);
}
static void repairing(struct world *w) {
    put(w, "a", "1");
    if (w->ours) { /* LevelDB lets this happen */
        L.repair_db(w->options, w->path, &error);
        failed("is open already");
    }
    close_db(w);
    L.repair_db(w->options, w->path, &error);
    worked("repair");
    open_db(w);
    is(w, "a", "1");
}

/* --- orders ------------------------------------------------------------------------------------------------ */

static int by_bytes(void *state, const char *a, size_t an, const char *b, size_t bn) {
    (void)state;
    int c = memcmp(a, b, an < bn ? an : bn);
    return c ? c : (an > bn) - (an < bn);
}
static int backwards(void *state, const char *a, size_t an, const char *b, size_t bn) {
    return by_bytes(state, b, bn, a, an);
}
/* Numbers by what they are worth, in any notation. */
static int by_number(void *state, const char *a, size_t an, const char *b, size_t bn) {
    char one[32], other[32];
    (void)state;
    snprintf(one, sizeof one, "%.*s", (int)an, a);
    snprintf(other, sizeof other, "%.*s", (int)bn, b);
    long x = strtol(one, NULL, 0), y = strtol(other, NULL, 0);
    return (x > y) - (x < y);
}
static const char *its_name(void *state) {
    return state;
}
static void forget(void *state) {
    (void)state;
}
static leveldb_comparator_t *order(const char *name, int (*compare)(void *, const char *, size_t, const char *, size_t)) {
    return L.comparator_create((void *)(uintptr_t)name, forget, compare, its_name);
}
static void with_order(struct world *w, leveldb_comparator_t *c) {
    if (w->db) close_db(w);
    destroy(w);
    L.options_set_comparator(w->options, c);
    open_db(w);
}

static void orders_are_known_by_name(struct world *w) {
    leveldb_comparator_t *mine = order("my.order", by_bytes), *builtin = order("leveldb.BytewiseComparator", by_bytes);
    close_db(w);
    L.options_set_comparator(w->options, mine);
    cannot_open(w, "comparator");
    L.options_set_comparator(w->options, builtin);
    open_db(w);
    with_order(w, mine);
    static const char *const keys[] = {"b", "", "a", "\xff", "ab", "a"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) put(w, keys[i], "1");
    del(w, "ab");
    del(w, "nothing");
    is(w, "ab", NULL);
    is(w, "a", "1");
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    L.iter_seek(it, "aa", 2);
    stands_on(it, "b=1");
    L.iter_destroy(it);
    reopen(w);
    is(w, "b", "1");
    close_db(w);
    L.options_destroy(w->options); /* LevelDB does not survive a NULL in place of the comparator */
    w->options = L.options_create();
    cannot_open(w, "comparator");
    L.comparator_destroy(mine);
    L.comparator_destroy(builtin);
}

/* Never silently wrong: all that is not as bytes sort is refused. */
static void other_orders_are_refused(struct world *w) {
    leveldb_comparator_t *back = order("back", backwards), *numbers = order("numbers", by_number);
    size_t size;
    with_order(w, back);
    put(w, "a", "1");
    L.put(w->db, w->write, "b", 1, "2", 1, &error);
    failed("Not implemented: the comparator back does not have \"a\" before \"b\"");
    L.put(w->db, w->write, "", 0, "2", 1, &error);
    failed("does not have \"\" before \"a\"");
    put(w, "a", "3");
    is(w, "a", "3");
    with_order(w, numbers);
    put(w, "10", "ten");
    put(w, "20", "twenty");
    is(w, "15", NULL);
    assert_null(L.get(w->db, w->read, "0xa", 3, &size, &error)); /* ten too, there */
    failed("does not have \"0xa\" before \"10\"");
    L.delete(w->db, w->write, "0xa", 3, &error);
    failed("does not have");
    leveldb_writebatch_t *b = L.writebatch_create();
    L.writebatch_put(b, "30", 2, "thirty", 6);
    L.writebatch_put(b, "100", 3, "hundred", 7);
    L.write(w->db, w->write, b, &error);
    failed("does not have \"100\" before \"20\"");
    L.writebatch_destroy(b);
    is(w, "30", NULL);
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    L.iter_seek(it, "9", 1);
    assert_false(L.iter_valid(it));
    L.iter_get_error(it, &error);
    failed("does not have \"20\" before \"9\"");
    L.iter_seek(it, "15", 2);
    stands_on(it, "20=twenty");
    L.iter_destroy(it);
    close_db(w);
    L.comparator_destroy(back);
    L.comparator_destroy(numbers);
}

/* --- limits ------------------------------------------------------------------------------------------------ */

static void keys_that_are_too_long(struct world *w) {
    char key[8300];
    memset(key, 'k', sizeof key);
    put_bytes(w, key, 8191, "longest", 7);
    worked("put");
    is_bytes(w, key, 8191, "longest", 7);
    put_bytes(w, key, 8192, "1", 1);
    failed("Invalid argument: a key of 8192 bytes; at most 8191 are possible here");
    is_bytes(w, key, 8192, NULL, 0);
    L.delete(w->db, w->write, key, 8300, &error);
    worked("delete");
    leveldb_writebatch_t *b = L.writebatch_create();
    L.writebatch_put(b, "a", 1, "1", 1);
    L.writebatch_put(b, key, 8300, "2", 1);
    L.write(w->db, w->write, b, &error);
    failed("a key of 8300 bytes");
    is(w, "a", NULL); /* nothing of it */
    L.writebatch_destroy(b);
    put(w, "z", "1");
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    L.iter_seek(it, key, 8300);
    stands_on(it, "z=1");
    L.iter_seek(it, key, 8191);
    assert_true(L.iter_valid(it));
    L.iter_destroy(it);
    char *large = lk_calloc(1, LK_KV_VALUE_MAX + 1);
    put_bytes(w, "large", 5, large, LK_KV_VALUE_MAX + 1);
    failed("a value of 104857601 bytes");
    lk_free(large);
    /* orders and sizes take such keys too */
    const char *start = "", *limit = key;
    uint64_t size;
    L.approximate_sizes(w->db, 1, &start, &(size_t){0}, &limit, &(size_t){8300}, &size);
    assert_int_equal(size, 0);
    leveldb_comparator_t *c = order("mine", by_bytes);
    with_order(w, c);
    is_bytes(w, key, 8300, NULL, 0);
    put_bytes(w, key, 8191, "1", 1);
    is_bytes(w, key, 8300, NULL, 0);
    close_db(w);
    L.comparator_destroy(c);
}

static void more_readers_than_there_are(struct world *w) {
    static const leveldb_snapshot_t *snapshots[1100];
    put(w, "a", "1");
    for (int i = 0; i < 1100; i++) snapshots[i] = L.create_snapshot(w->db);
    size_t size;
    L.readoptions_set_snapshot(w->read, snapshots[1099]);
    assert_null(L.get(w->db, w->read, "a", 1, &size, &error));
    failed("1024 readers are at work");
    leveldb_iterator_t *it = L.create_iterator(w->db, w->read);
    L.iter_seek_to_first(it);
    assert_false(L.iter_valid(it));
    L.iter_get_error(it, &error);
    failed("1024 readers are at work");
    L.iter_destroy(it);
    is_then(w, snapshots[0], "a", "1");
    L.readoptions_set_snapshot(w->read, NULL);
    it = L.create_iterator(w->db, w->read);
    L.iter_seek(it, "a", 1);
    L.iter_next(it);
    L.iter_prev(it);
    assert_null(L.iter_key(it, &size));
    assert_int_equal(size, 0);
    L.iter_get_error(it, &error);
    failed("1024 readers are at work");
    L.iter_destroy(it);
    for (int i = 0; i < 1100; i++) L.release_snapshot(w->db, snapshots[i]);
    is(w, "a", "1");
}

static void at_a_full_disk(void *arg) {
    struct world *w = arg;
    struct rlimit limit = {8 << 20, RLIM_INFINITY};
    char key[16], *value = lk_calloc(1, 100000), *failure = NULL;
    signal(SIGXFSZ, SIG_IGN);
    open_db(w);
    setrlimit(RLIMIT_FSIZE, &limit);
    int i = 0;
    for (; i < 1000 && !failure; i++) {
        snprintf(key, sizeof key, "%04d", i);
        L.put(w->db, w->write, key, 4, value, 100000, &failure);
    }
    if (i < 20 || !failure || !strstr(failure, "IO error: ")) _exit(1);
    for (int k = 0; k < i; k++) { /* what was written is there, what failed is not */
        size_t size;
        char *error_of_get = NULL;
        snprintf(key, sizeof key, "%04d", k);
        char *v = L.get(w->db, w->read, key, 4, &size, &error_of_get);
        if (error_of_get || (v != NULL) != (k < i - 1)) _exit(2);
        L.free(v);
    }
    L.free(failure);
    failure = NULL;
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    leveldb_writeoptions_t *sync = L.writeoptions_create();
    L.writeoptions_set_sync(sync, 1);
    L.put(w->db, sync, "0000", 4, "again", 5, &failure);
    _exit(failure ? 3 : 0);
}
static void a_full_disk(struct world *w) {
    close_db(w);
    assert_int_equal(test_fork(at_a_full_disk, w), 0);
    open_db(w);
    is(w, "0000", "again");
}

/* Overwritten and deleted rows leave no room behind, once it is asked back. */
static void room_comes_back(struct world *w) {
    char *data = lk_asprintf("%s/kv/data.mdb", w->path), *value = lk_calloc(1, 1000000);
    struct stat st;
    const leveldb_snapshot_t *s = NULL;
    for (int i = 0; i < 40; i++) {
        put_bytes(w, "key", 3, value, 1000000);
        worked("put");
        if (i == 5) s = L.create_snapshot(w->db);
        if (i == 30) L.release_snapshot(w->db, s);
    }
    assert_true(stat(data, &st) == 0 && st.st_size > 20000000); /* what the snapshot held back */
    L.compact_range(w->db, "a", 1, "z", 1);
    L.compact_range(w->db, NULL, 0, NULL, 0);
    assert_true(stat(data, &st) == 0 && st.st_size < 2000000);
    del(w, "key");
    L.compact_range(w->db, NULL, 0, NULL, 0);
    assert_true(stat(data, &st) == 0 && st.st_size < 100000);
    assert_in_range(test_dir_entries(w->path), 1, 1);
    lk_free(data);
    lk_free(value);
}

static void properties(struct world *w) {
    static const struct {
        const char *name, *begins; /* NULL: there is none */
    } known[] = {{"leveldb.stats", "engine LMDB\nrows "},
                 {"leveldb.num-files-at-level0", "1"},
                 {"leveldb.num-files-at-level6", "0"},
                 {"leveldb.num-files-at-level7", NULL},
                 {"leveldb.num-files-at-level", NULL},
                 {"leveldb.num-files-at-level00", NULL},
                 {"leveldb.statsx", NULL},
                 {"leveldb.sstables", "/"},
                 {"nothing", NULL},
                 {"", NULL}};
    put(w, "a", "1");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char *text = L.property_value(w->db, known[i].name);
        assert_int_equal(text != NULL, known[i].begins != NULL);
        if (text) assert_memory_equal(text, known[i].begins, strlen(known[i].begins));
        L.free(text);
    }
    char *text = L.property_value(w->db, "leveldb.approximate-memory-usage");
    assert_in_range(atol(text), 1, 5 << 20);
    L.free(text);
}

/* --- memory ------------------------------------------------------------------------------------------------ */

/* Everything once; the first error ends it. */
static char *a_bit_of_everything(struct world *w) {
    char *e = NULL, *v = NULL;
    size_t size;
    leveldb_writebatch_t *b = NULL;
    leveldb_t *db = L.open(w->options, w->path, &e);
    if (!db) return e;
    L.put(db, w->write, "a", 1, "1", 1, &e);
    if (!e) {
        const leveldb_snapshot_t *s = L.create_snapshot(db);
        L.readoptions_set_snapshot(w->read, s);
        v = L.get(db, w->read, "a", 1, &size, &e);
        leveldb_iterator_t *it = L.create_iterator(db, w->read);
        L.readoptions_set_snapshot(w->read, NULL);
        L.release_snapshot(db, s);
        L.iter_seek(it, "a", 1);
        if (!e) L.iter_get_error(it, &e);
        assert_true(e || (v && L.iter_valid(it)));
        L.iter_destroy(it);
    }
    if (!e && (b = L.writebatch_create())) {
        L.writebatch_put(b, "b", 1, "2", 1);
        L.writebatch_delete(b, "a", 1);
        L.write(db, w->write, b, &e);
        L.writebatch_destroy(b);
    } else if (!e)
        e = strdup("out of memory");
    L.free(v);
    L.close(db);
    return e;
}
static void out_of_memory(struct world *w) {
    close_db(w);
    for (uint64_t nth = 1;; nth++) {
        assert_in_range(nth, 1, 1000);
        destroy(w);
        lk__alloc_fail_at(nth);
        char *e = a_bit_of_everything(w);
        bool met = lk__alloc_count() >= nth;
        lk__alloc_fail_at(0);
        if (met && !e) continue; /* what may be had or not: a file's reserve */
        if (!met) assert_null(e);
        if (e && !strstr(e, "out of memory") && !strstr(e, "memory was out")) fail_msg("%s", e);
        L.free(e);
        if (!met) break;
    }
    open_db(w);
    is(w, "a", NULL);
    is(w, "b", "2");
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        CASE(options_of_opening),
        CASE(removing),
        CASE(one_opener),
        OUR_CASE(children_do_not_matter),
        OUR_CASE(what_is_read_keeps_it_open),
        OUR_CASE(rows_of_others_are_refused),
        OUR_CASE(leveldbs_own_files_are_refused),
        OUR_CASE(a_half_made_one_is_made),
        OUR_CASE(damage_is_told),
        CASE(repairing),
        CASE(orders_are_known_by_name),
        OUR_CASE(other_orders_are_refused),
        OUR_CASE(keys_that_are_too_long),
        OUR_CASE(more_readers_than_there_are),
        OUR_CASE(a_full_disk),
        OUR_CASE(room_comes_back),
        OUR_CASE(properties),
        OUR_CASE(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
