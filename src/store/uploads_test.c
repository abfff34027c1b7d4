/* Announcements and sentences where something fails: disks that are full, collectors that were killed, threads of one
 * process. Their orders are model_test.c's. */
#include "base/testing.h"
#include "lockstep/base/file.h"
#include "lockstep/store/gc.h"
#include "lockstep/store/lease.h"
#include "store/kv/kv_engine.h"
#include "store/lease.h"
#include "store/sweep.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct lk_row_kind *const kinds[] = {NULL};

/* The store of one machine, and one of several: rows in memory, with leases. Two handles, as of two processes. */
struct world {
    char *dir;
    struct lk_store *store, *other;
    struct lk_store rows;
};
static int setup(void **state) {
    static struct world w;
    w = (struct world){.dir = test_dir_make()};
    char *blobs = test_join(w.dir, "blobs");
    OK(lk_store_open(w.dir, LK_CREATE, &w.store, &test_err));
    OK(lk_store_open(w.dir, LK_WRITE, &w.other, &test_err));
    OK(lk_kv_open("memory:", LK_CREATE, &w.rows.kv, &test_err));
    OK(lk_blobs_open(blobs, LK_WRITE, &w.rows.blobs, &test_err));
    w.rows.dir = w.dir;
    OK(lk__store_uploads_open(&w.rows, &test_err));
    lk_free(blobs);
    *state = &w;
    return 0;
}
static int teardown(void **state) {
    struct world *w = *state;
    lk__store_step = NULL, lk__store_patience_ms = 30000;
    lk__store_uploads_close(&w->rows);
    lk_kv_close(w->rows.kv);
    lk_blobs_close(w->rows.blobs);
    lk_store_close(w->store), lk_store_close(w->other);
    test_dir_remove(w->dir);
    return 0;
}

static int put(struct lk_store *s, const char *text, struct lk_root *out) {
    return lk_blob_put(s->blobs, text, strlen(text), out, &test_err);
}
static uint64_t collect(struct lk_store *s) {
    struct lk_gc_result r;
    OK(lk_store_gc(s, kinds, &(struct lk_gc_options){.grace_ms = 0}, &r, &test_err));
    return r.blobs;
}
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}
/* As a collector has it that has doomed this. */
static void write_doomed(const struct world *w, const struct lk_root *root) {
    char path[4096], *folder = test_join(w->dir, "locks/sweep");
    OK(lk_dir_make(folder, &test_err));
    lk_free(folder);
    int fd = open(lk__store_note_path(w->store, "sweep", "blobs", path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    assert_int_equal(write(fd, root, sizeof *root), sizeof *root);
    close(fd);
}

/* A disk that is full in the middle of a record: what is announced behind it is understood. */
static void half_a_record_is_taken_back(void **state) {
    struct world *w = *state;
    struct lk_root one, two, three;
    signal(SIGXFSZ, SIG_IGN);
    OK(put(w->other, "one", &one));
    limit_files(40);
    assert_int_not_equal(put(w->other, "two", &two), 0);
    limit_files(RLIM_INFINITY);
    OK(put(w->other, "three", &three));
    assert_int_equal(collect(w->store), 0);
    assert_true(lk_blob_exists(w->store->blobs, &one) && lk_blob_exists(w->store->blobs, &three));
}

/* What fails to be put again is held as before. */
static void a_failure_takes_nothing_else_back(void **state) {
    struct world *w = *state;
    struct lk_lease *collector;
    struct lk_root root;
    OK(put(w->other, "twice", &root));
    OK(lk_lease_acquire(w->store, "sweep", "blobs", &collector, &test_err));
    write_doomed(w, &root);
    lk__store_patience_ms = 0;
    FAILS(put(w->other, "twice", &root), LK_EBUSY, "is being removed by a collector");
    lk__store_patience_ms = 30000;
    lk_lease_release(collector, false);
    assert_int_equal(collect(w->store), 0);
    assert_true(lk_blob_exists(w->store->blobs, &root));
}

/* One thread is announcing while another one forgets all that there was. */
static struct lk_store *forgetting;
static struct lk_root forgotten;
static void forget(const char *what) {
    if (strcmp(what, "noted") == 0) lk_uploads_forget(forgetting, &forgotten, 1);
}
static void forgetting_leaves_what_is_being_announced(void **state) {
    struct world *w = *state;
    struct lk_root root;
    OK(put(w->other, "one", &forgotten));
    forgetting = w->other;
    lk__store_step = forget;
    OK(put(w->other, "two", &root));
    lk__store_step = NULL;
    assert_int_equal(collect(w->store), 1);
    assert_true(lk_blob_exists(w->store->blobs, &root));
}

/* One thread waits to announce while another one names what is there. */
static int put_sentence(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    int64_t now;
    OK(txn->kv->ops->now(txn, &now, err));
    json_t *row = json_pack("{s:i, s:[s], s:I, s:o}", "number", 7, "roots", lk_root_hex(arg, hex), "since_ms",
                            (json_int_t)now, "process", lk__store_process_json());
    int code = lk_record_put(txn, "sweep", "blobs", row, err);
    json_decref(row);
    return code;
}
static int end_sentence(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_record_delete(txn, "sweep", "blobs", err);
}
static struct lk_store *naming;
static int waited;
static void name_meanwhile(const char *what) {
    struct lk_root root;
    if (strcmp(what, "waits") != 0 || waited++) return;
    lk_root_of("named", 5, &root);
    OK(lk_store_name_put(naming, "thing", "named", &root, &test_err));
    OK(lk_kv_update(naming->kv, end_sentence, NULL, LK_DURABLE, NULL, &test_err));
}
static void naming_does_not_ask_for_what_is_being_announced(void **state) {
    struct world *w = *state;
    struct lk_root named, going;
    OK(put(&w->rows, "named", &named));
    lk_root_of("going", 5, &going);
    OK(lk_kv_update(w->rows.kv, put_sentence, &going, LK_DURABLE, NULL, &test_err));
    naming = &w->rows, waited = 0;
    lk__store_step = name_meanwhile;
    OK(put(&w->rows, "going", &going));
    lk__store_step = NULL;
    assert_true(waited > 0);
    assert_int_equal(collect(&w->rows), 0);
}

/* A collector that died between its sentence and its end: the next one goes on, so does a writer of such a blob, and so
 * does who names it. */
static int still_there(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct world *w = *(struct world **)arg;
    struct lk_store *s = txn->kv->ops->now ? &w->rows : w->store;
    struct lk_root root;
    lk_root_of("going", 5, &root);
    return lk_store_still_there(s, txn, &root, 1, err);
}
static int make_late(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    json_t *row;
    int code = put_sentence(txn, arg, err);
    if (!code) code = lk_record_get(txn, "sweep", "blobs", &row, err);
    if (code) return code;
    json_object_del(row, "process"), json_object_set_new(row, "since_ms", json_integer(1));
    code = lk_record_put(txn, "sweep", "blobs", row, err);
    json_decref(row);
    return code;
}
static void a_killed_collector_stops_nobody(void **state) {
    struct world *w = *state;
    struct lk_lease *collector;
    struct lk_root root;
    OK(put(w->other, "going", &root));
    OK(lk_lease_acquire(w->store, "sweep", "blobs", &collector, &test_err));
    write_doomed(w, &root);
    FAILS(lk_kv_update(w->store->kv, still_there, state, LK_LAZY, NULL, &test_err), LK_ENOTFOUND, "removed meanwhile");
    lk_lease_release(collector, false);
    OK(lk_kv_update(w->store->kv, still_there, state, LK_LAZY, NULL, &test_err));
    OK(put(w->store, "going", &root));
    assert_int_equal(collect(w->store), 0);

    OK(lk_kv_update(w->rows.kv, put_sentence, &root, LK_LAZY, NULL, &test_err));
    FAILS(lk_kv_update(w->rows.kv, still_there, state, LK_LAZY, NULL, &test_err), LK_ENOTFOUND, "removed meanwhile");
    OK(lk_kv_update(w->rows.kv, make_late, &root, LK_LAZY, NULL, &test_err));
    OK(lk_kv_update(w->rows.kv, still_there, state, LK_LAZY, NULL, &test_err));
    OK(put(&w->rows, "going", &root));
    OK(lk_kv_update(w->rows.kv, make_late, &root, LK_LAZY, NULL, &test_err));
    assert_int_equal(collect(&w->rows), 0);
}

/* A server that loses a lazy commit goes on with the removal. */
static struct lk_kv_ops told_ops;
static int told_durable;
static int tell_commit(struct lk_kv_txn *txn, enum lk_durability durability, bool stamped, int64_t *time,
                       struct lk_err *err) {
    struct lk_bytes value;
    if (txn->write && lk_kv_get(txn, lk_bytes("r/sweep/blobs", 13), &value, NULL) == 0 && durability == LK_DURABLE)
        told_durable++;
    return lk__kv_memory.commit(txn, durability, stamped, time, err);
}
static void sentences_in_rows_are_durable(void **state) {
    struct world *w = *state;
    struct lk_root root;
    OK(put(w->other, "dropped", &root));
    told_ops = lk__kv_memory, told_ops.commit = tell_commit;
    w->rows.kv->ops = &told_ops, told_durable = 0;
    OK(lk_store_gc_dropped(&w->rows, kinds, &root, 1, &test_err));
    w->rows.kv->ops = &lk__kv_memory;
    assert_int_equal(told_durable, 1);
    assert_false(lk_blob_exists(w->store->blobs, &root));
}

/* A process that was killed when all that it had announced was named. */
static int put_lease(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    json_t *row = json_pack("{s:i, s:i, s:s}", "fence", 1, "until_ms", 1, "holder", "a process that is gone");
    (void)arg;
    int code = lk_record_put(txn, "lease", "upload/0123456789abcdef", row, err);
    json_decref(row);
    return code;
}
static int is_lease(void *arg, const char *name, json_t *record) {
    (void)record;
    return strncmp(name, "upload/", 7) == 0 && ++*(int *)arg > 100;
}
static void leases_of_the_dead_go(void **state) {
    struct world *w = *state;
    struct lk_root root;
    struct lk_kv_txn *txn;
    int count = 0;
    OK(put(&w->rows, "alive", &root));
    OK(lk_kv_update(w->rows.kv, put_lease, NULL, LK_LAZY, NULL, &test_err));
    assert_int_equal(collect(&w->rows), 0);
    OK(lk_kv_begin(w->rows.kv, false, &txn, &test_err));
    OK(lk_record_list(txn, "lease", is_lease, &count, &test_err));
    lk_kv_abort(txn);
    assert_int_equal(count, 1); /* of who is alive */
}

int main(void) {
#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_STORE(half_a_record_is_taken_back),
        WITH_STORE(a_failure_takes_nothing_else_back),
        WITH_STORE(forgetting_leaves_what_is_being_announced),
        WITH_STORE(naming_does_not_ask_for_what_is_being_announced),
        WITH_STORE(a_killed_collector_stops_nobody),
        WITH_STORE(sentences_in_rows_are_durable),
        WITH_STORE(leases_of_the_dead_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
