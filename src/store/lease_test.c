/* Leases: one holder at a time, fences that grow, holders that die, stop, or come back too late; with locks of the kernel
 * and with rows that have an end. */
#include "base/testing.h"
#include "lockstep/store/lease.h"
#include "store/kv/kv_engine.h"
#include "store/lease.h"

struct world {
    char *dir;
    struct lk_store *file, memory;
};
static int setup(void **state) {
    static struct world w;
    w.dir = test_dir_make();
    OK(lk_store_open(w.dir, LK_CREATE, &w.file, &test_err));
    w.memory = (struct lk_store){.dir = w.dir};
    OK(lk_kv_open("memory:", LK_CREATE, &w.memory.kv, &test_err));
    *state = &w;
    return 0;
}
static int teardown(void **state) {
    struct world *w = *state;
    lk_kv_close(w->memory.kv);
    lk_store_close(w->file);
    test_dir_remove(w->dir);
    return 0;
}
static struct lk_store *store_of(struct world *w, int i) {
    return i ? &w->memory : w->file;
}

static int put_note(struct lk_kv_txn *txn, void *lease, struct lk_err *err) {
    int code = lk_lease_check(lease, txn, err);
    return code ? code : lk_kv_put(txn, lk_bytes("note", 4), lk_bytes("x", 1), err);
}

static void one_has_it(void **state) {
    for (int i = 0; i < 2; i++) {
        struct lk_store *s = store_of(*state, i);
        struct lk_lease *a, *b;
        struct lk_lease_state look;
        char me[40];
        snprintf(me, sizeof me, i ? "process %ld on " : "process %ld", (long)getpid());
        OK(lk_lease_look(s, "run", "demo", &look, &test_err));
        assert_true(!look.held && !look.process && !look.fence && !*look.holder);
        OK(lk_lease_acquire(s, "run", "demo", &a, &test_err));
        assert_int_equal(lk_lease_fence(a), 1);
        OK(lk_lease_look(s, "run", "demo", &look, &test_err));
        assert_true(look.held && look.here && look.process == getpid() && look.fence == 1);
        assert_memory_equal(look.holder, me, strlen(me));
        FAILS(lk_lease_acquire(s, "run", "demo", &b, &test_err), LK_EBUSY, "the lease run/demo is held by process");
        assert_null(b);
        OK(lk_lease_acquire(s, "run", "other", &b, &test_err)); /* names do not know each other */
        OK(lk_kv_update(s->kv, put_note, a, LK_DURABLE, NULL, &test_err));
        lk_lease_release(a, false), lk_lease_release(b, true);
        OK(lk_lease_look(s, "run", "demo", &look, &test_err));
        assert_true(!look.held && look.fence == 1 && !*look.holder);
        OK(lk_lease_acquire(s, "run", "demo", &a, &test_err));
        assert_int_equal(lk_lease_fence(a), 2);
        lk_lease_release(a, true);
        OK(lk_lease_acquire(s, "run", "demo", &a, &test_err)); /* where holders may come back, it does not begin again */
        assert_int_equal(lk_lease_fence(a), i ? 3 : 1);
        lk_lease_release(a, false);
        FAILS(lk_lease_acquire(s, "run", "../x", &a, &test_err), LK_EINVAL, "no");
        OK(lk_lease_acquire(s, "a.b", "c", &a, &test_err)); /* no two share a lock */
        OK(lk_lease_acquire(s, "a", "b.c", &b, &test_err));
        lk_lease_release(a, true), lk_lease_release(b, true);
        char longest[129]; /* of both together: 200 */
        memset(longest, 'x', 128), longest[128] = 0;
        OK(lk_lease_acquire(s, longest + 57, longest, &a, &test_err));
        lk_lease_release(a, true);
        FAILS(lk_lease_acquire(s, longest + 56, longest, &a, &test_err), LK_EINVAL, "is not a valid name");
    }
}

static void a_killed_holder_has_nothing(void **state) {
    struct world *w = *state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        struct lk_store *own;
        struct lk_lease *a;
        _exit(lk_store_open(w->dir, LK_WRITE, &own, NULL) || lk_lease_acquire(own, "run", "killed", &a, NULL) ||
              write(ready[1], "x", 1) != 1 || pause());
    }
    char c;
    struct lk_lease *a;
    struct lk_lease_state look;
    assert_int_equal(read(ready[0], &c, 1), 1);
    OK(lk_lease_look(w->file, "run", "killed", &look, &test_err));
    assert_true(look.held && look.here && look.process == child);
    FAILS(lk_lease_acquire(w->file, "run", "killed", &a, &test_err), LK_EBUSY, "is held by process");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    OK(lk_lease_look(w->file, "run", "killed", &look, &test_err));
    assert_false(look.held);
    OK(lk_lease_acquire(w->file, "run", "killed", &a, &test_err));
    assert_int_equal(lk_lease_fence(a), 2);
    lk_lease_release(a, false);
    close(ready[0]), close(ready[1]);
}

/* A row of a process of this machine that began at another time than the one that has its number now. */
static int make_dead(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    json_t *record;
    (void)arg;
    int code = lk_record_get(txn, "lease", "run/dead", &record, err);
    if (code) return code;
    json_t *p = json_object_get(record, "process");
    json_object_set_new(p, "started", json_integer(json_integer_value(json_object_get(p, "started")) + 1));
    code = lk_record_put(txn, "lease", "run/dead", record, err);
    json_decref(record);
    return code;
}
static void rows_have_an_end(void **state) {
    struct lk_store *s = &((struct world *)*state)->memory;
    struct lk_lease *a, *b;
    uint32_t before = lk__store_lease_ms;
    lk__store_lease_ms = 200;
    OK(lk_lease_acquire(s, "run", "timed", &a, &test_err)); /* renewed, it lasts */
    for (int i = 0; i < 5; i++) {
        usleep(100000);
        FAILS(lk_lease_acquire(s, "run", "timed", &b, &test_err), LK_EBUSY, "unless it renews it");
    }
    lk__store_lease_renews = false; /* its holder is stopped */
    usleep(300000);
    OK(lk_lease_acquire(s, "run", "timed", &b, &test_err));
    assert_int_equal(lk_lease_fence(b), 2);
    lk__store_lease_renews = true; /* and goes on, too late */
    FAILS(lk_kv_update(s->kv, put_note, a, LK_DURABLE, NULL, &test_err), LK_EBUSY, "fence 2, this one had 1");
    OK(lk_kv_update(s->kv, put_note, b, LK_DURABLE, NULL, &test_err));
    lk_lease_release(a, false); /* gives back nothing that is another's */
    OK(lk_kv_update(s->kv, put_note, b, LK_DURABLE, NULL, &test_err));
    FAILS(lk_lease_acquire(s, "run", "timed", &a, &test_err), LK_EBUSY, "is held by");
    lk_lease_release(b, false);
    lk__store_lease_ms = before;
    OK(lk_lease_acquire(s, "run", "dead", &a, &test_err));
    FAILS(lk_lease_acquire(s, "run", "dead", &b, &test_err), LK_EBUSY, "for another 20.0 s");
    OK(lk_kv_update(s->kv, make_dead, NULL, LK_DURABLE, NULL, &test_err));
    OK(lk_lease_acquire(s, "run", "dead", &b, &test_err)); /* at once */
    lk_lease_release(a, false), lk_lease_release(b, false);
}

static void failures_leave_nothing_taken(void **state) {
    for (int i = 0; i < 2; i++) {
        struct lk_store *s = store_of(*state, i);
        for (uint64_t nth = 1, made = 1; made >= nth; nth++) {
            struct lk_lease *a;
            lk__alloc_fail_at(nth);
            int code = lk_lease_acquire(s, "run", "memory", &a, &test_err);
            made = lk__alloc_count();
            lk__alloc_fail_at(0);
            if (!code) lk_lease_release(a, true);
            assert_true(code == LK_OK ? a != NULL : code == LK_ENOMEM && !a);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_has_it),
        cmocka_unit_test(a_killed_holder_has_nothing),
        cmocka_unit_test(rows_have_an_end),
        cmocka_unit_test(failures_leave_nothing_taken),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
