/* What the tests of the shim share; tests only. Each case runs on ours and, where LOCKSTEP_TEST_LEVELDB names LevelDB's own
 * library, on that too: so what a case expects is what LevelDB does. */
#ifndef LK_LEVELDB_TESTING_H
#define LK_LEVELDB_TESTING_H
#include "base/testing.h"
#include "lockstep/leveldb.h"
#include <dlfcn.h>

#define API(X)                                                                                                             \
    X(open)                                                                                                                \
    X(close)                                                                                                               \
    X(put)                                                                                                                 \
    X(delete)                                                                                                              \
    X(write)                                                                                                               \
    X(get)                                                                                                                 \
    X(create_snapshot)                                                                                                     \
    X(release_snapshot)                                                                                                    \
    X(property_value)                                                                                                      \
    X(compact_range)                                                                                                       \
    X(approximate_sizes)                                                                                                   \
    X(destroy_db)                                                                                                          \
    X(repair_db)                                                                                                           \
    X(create_iterator)                                                                                                     \
    X(iter_destroy)                                                                                                        \
    X(iter_valid)                                                                                                          \
    X(iter_seek_to_first)                                                                                                  \
    X(iter_seek_to_last)                                                                                                   \
    X(iter_seek)                                                                                                           \
    X(iter_next)                                                                                                           \
    X(iter_prev)                                                                                                           \
    X(iter_key)                                                                                                            \
    X(iter_value)                                                                                                          \
    X(iter_get_error)                                                                                                      \
    X(writebatch_create)                                                                                                   \
    X(writebatch_destroy)                                                                                                  \
    X(writebatch_clear)                                                                                                    \
    X(writebatch_put)                                                                                                      \
    X(writebatch_delete)                                                                                                   \
    X(writebatch_iterate)                                                                                                  \
    X(writebatch_append)                                                                                                   \
    X(options_create)                                                                                                      \
    X(options_destroy)                                                                                                     \
    X(options_set_comparator)                                                                                              \
    X(options_set_create_if_missing)                                                                                       \
    X(options_set_error_if_exists)                                                                                         \
    X(comparator_create)                                                                                                   \
    X(comparator_destroy)                                                                                                  \
    X(readoptions_create)                                                                                                  \
    X(readoptions_destroy)                                                                                                 \
    X(readoptions_set_snapshot)                                                                                            \
    X(writeoptions_create)                                                                                                 \
    X(writeoptions_destroy)                                                                                                \
    X(writeoptions_set_sync)                                                                                               \
    X(free)

/* The functions that a case calls, L.put(...). */
struct api {
#define X(name) __typeof__(leveldb_##name) *name;
    API(X)
#undef X
};
static struct api L;

static inline void use_ours(void) {
#define X(name) L.name = leveldb_##name;
    API(X)
#undef X
}
static inline void use_theirs(void *library) {
#define X(name)                                                                                                            \
    L.name = (__typeof__(leveldb_##name) *)dlsym(library, "leveldb_" #name);                                               \
    if (!L.name) fail_msg("LevelDB has no leveldb_%s", #name);
    API(X)
#undef X
}

/* --- a database ------------------------------------------------------------------------------------------ */

struct world {
    char *dir, *path; /* a folder of the test's; the database in it */
    bool ours;
    leveldb_options_t *options; /* create_if_missing */
    leveldb_readoptions_t *read;
    leveldb_writeoptions_t *write;
    leveldb_t *db;
};
static char *error; /* of the last call; NULL: it worked */

static inline void worked(const char *what) {
    if (error) fail_msg("%s: %s", what, error);
}
static inline void failed(const char *part) {
    if (!error) fail_msg("it worked, and should say \"%s\"", part);
    if (!strstr(error, part)) fail_msg("\"%s\" does not say \"%s\"", error, part);
    L.free(error);
    error = NULL;
}

static inline void open_db(struct world *w) {
    w->db = L.open(w->options, w->path, &error);
    worked("open");
}
static inline void reopen(struct world *w) {
    L.close(w->db);
    open_db(w);
}
static inline void put_bytes(struct world *w, const char *key, size_t size, const char *value, size_t value_size) {
    L.put(w->db, w->write, key, size, value, value_size, &error);
}
static inline void put(struct world *w, const char *key, const char *value) {
    put_bytes(w, key, strlen(key), value, strlen(value));
    worked("put");
}
static inline void del(struct world *w, const char *key) {
    L.delete(w->db, w->write, key, strlen(key), &error);
    worked("delete");
}
/* The row is this, or NULL: absent. */
static inline void is_bytes(struct world *w, const char *key, size_t size, const char *value, size_t value_size) {
    size_t got = 77;
    char *v = L.get(w->db, w->read, key, size, &got, &error);
    worked("get");
    if (!value) {
        assert_null(v);
        return;
    }
    assert_non_null(v);
    assert_int_equal(got, value_size);
    assert_memory_equal(v, value, value_size);
    L.free(v);
}
static inline void is(struct world *w, const char *key, const char *value) {
    is_bytes(w, key, strlen(key), value, value ? strlen(value) : 0);
}
static inline void is_then(struct world *w, const leveldb_snapshot_t *snapshot, const char *key, const char *value) {
    L.readoptions_set_snapshot(w->read, snapshot);
    is(w, key, value);
    L.readoptions_set_snapshot(w->read, NULL);
}
/* Where an iterator stands: "key=value", or "" for nowhere. */
static inline void stands_on(leveldb_iterator_t *it, const char *where) {
    size_t key_size, value_size;
    L.iter_get_error(it, &error);
    worked("iterator");
    if (!*where) {
        assert_false(L.iter_valid(it));
        return;
    }
    assert_true(L.iter_valid(it));
    const char *key = L.iter_key(it, &key_size), *value = L.iter_value(it, &value_size), *sign = strchr(where, '=');
    assert_int_equal(key_size, sign - where);
    assert_memory_equal(key, where, key_size);
    assert_int_equal(value_size, strlen(sign + 1));
    assert_memory_equal(value, sign + 1, value_size);
}

/* --- cases ----------------------------------------------------------------------------------------------- */

typedef void world_fn(struct world *);
struct world_case {
    world_fn *run;
    bool only_ours;
};
static inline void run_one(const struct world_case *c, bool ours) {
    struct world w = {.dir = test_dir_make(), .ours = ours};
    print_message("  %s\n", ours ? "Lockstep" : "LevelDB");
    w.path = test_join(w.dir, "db");
    w.options = L.options_create();
    w.read = L.readoptions_create();
    w.write = L.writeoptions_create();
    L.options_set_create_if_missing(w.options, 1);
    open_db(&w);
    c->run(&w);
    if (w.db) L.close(w.db);
    L.options_destroy(w.options);
    L.readoptions_destroy(w.read);
    L.writeoptions_destroy(w.write);
    lk_free(w.path);
    test_dir_remove(w.dir);
}
static void run_case(void **state) __attribute__((unused));
static void run_case(void **state) {
    const struct world_case *c = *state;
    const char *theirs = getenv("LOCKSTEP_TEST_LEVELDB");
    use_ours();
    run_one(c, true);
    if (c->only_ours || !theirs || !*theirs) return;
    void *library = dlopen(theirs, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
    use_theirs(library);
    run_one(c, false);
}
#define CASE(f)                                                                                                            \
    {                                                                                                                      \
#f, run_case, NULL, NULL, &(struct world_case) {                                                                   \
            f, false                                                                                                       \
        }                                                                                                                  \
    }
#define OUR_CASE(f)                                                                                                        \
    {                                                                                                                      \
#f, run_case, NULL, NULL, &(struct world_case) {                                                                   \
            f, true                                                                                                        \
        }                                                                                                                  \
    }

#endif
