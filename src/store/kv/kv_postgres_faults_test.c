/* The PostgreSQL engine where things break: cut connections, a killed server, a full disk. */
#include "store/kv/kv_engine.h"
#include "store/kv/postgres_proxy.h"
#include "store/kv/postgres_testing.h"
#include "store/kv/postgres_writers.h"
#include <sys/mount.h>

/* --- cut at every message of a commit ---------------------------------------------------------------------------- */

struct cutting {
    struct lk_kv *direct;
    int turn;
    atomic_bool wrote;
};
/* Another client writes before the cut one comes back: what is done twice, or done later than it says, shows. */
static void write_between(void *arg) {
    struct cutting *c = arg;
    struct lk_kv_txn *t = begin(c->direct, true);
    OK(lk_kv_put(t, S("n"), lk_bytes(&(int){-c->turn}, sizeof(int)), &test_err));
    commit(t);
    atomic_store(&c->wrote, true);
}
/* Reads n, writes n and mark; blind: without reading. */
static int one_commit(struct lk_kv *kv, struct proxy *p, int messages, int turn, int how, int64_t *time) {
    struct lk_bytes v;
    struct lk_kv_txn *t = begin(kv, true);
    bool blind = how & 1, stamped = how & 2, early = (how & 6) == 6;
    int64_t promised;
    if (!blind) OK(lk_kv_get(t, S("n"), &v, &test_err));
    OK(lk_kv_put(t, S("n"), lk_bytes(&turn, sizeof turn), &test_err));
    OK(lk_kv_put(t, S("mark"), lk_bytes(&turn, sizeof turn), &test_err));
    if (early) OK(lk__kv_timestamp(t, &promised, &test_err));
    *time = 0;
    atomic_store(&p->half, messages % 2);
    atomic_store(&p->left, messages);
    int code = lk_kv_commit(t, LK_DURABLE, stamped ? time : NULL, &test_err);
    if (code == 0 && early) assert_int_equal(*time, promised);
    return code;
}
static void cut_at_every_message(void **state) {
    struct proxy proxy;
    int conflicts = 0, done = 0, positions = 0;
    int64_t last = 0, time;
    NEEDS_SERVER();
    proxy_open(&proxy, *state, server_dir);
    char *url = lk_asprintf("postgresql://postgres@/postgres?host=%s&schema=cut", (char *)*state);
    struct cutting cutting = {open_with("schema=cut"), 1, false};
    write_between(&cutting);
    proxy.between = write_between, proxy.arg = &cutting;
    for (int how = 0; how < 8; how++) {
        if (how == 4 || how == 5) continue; /* early, without a time */
        for (int direction = 0; direction < 2; direction++) {
            bool was_cut = true;
            for (int messages = 0; was_cut; messages++, positions++) {
                struct lk_kv *kv;
                cutting.turn++;
                atomic_store(&proxy.left, -1);
                OK(lk_kv_open(url, LK_WRITE, &kv, &test_err));
                int before = int_at(kv, "mark"); /* a connection is open now */
                atomic_store(&proxy.direction, direction);
                atomic_store(&cutting.wrote, false);
                int code = one_commit(kv, &proxy, messages, cutting.turn, how, &time);
                int n = int_at(cutting.direct, "n"), mark = int_at(cutting.direct, "mark");
                was_cut = atomic_load(&proxy.left) < 0;
                bool wrote = atomic_load(&cutting.wrote), blind = how & 1;
                if (code != 0 && (code != LK_ECONFLICT || !wrote)) fail_msg("%d, %s", code, test_err.message);
                assert_int_equal(mark, code == 0 ? cutting.turn : before);
                /* it was done before the other one wrote, or, where it read nothing, perhaps after */
                if (!wrote) assert_int_equal(n, cutting.turn);
                if (wrote && !(blind && n == cutting.turn)) assert_int_equal(n, -cutting.turn);
                if (time) assert_true(time > last);
                if (time) last = time;
                done += code == 0, conflicts += code == LK_ECONFLICT;
                lk_kv_close(kv);
                if (messages > 400) fail_msg("no end of messages");
            }
        }
    }
    print_message("%d positions: %d commits done, %d conflicts\n", positions, done, conflicts);
    assert_true(done > 50 && conflicts > 50);
    proxy_close(&proxy);
    lk_free(url);
    lk_kv_close(cutting.direct);
}

/* --- a server that says nothing any more ---------------------------------------------------------------------------- */

static void a_silent_server(void **state) {
    struct proxy proxy;
    struct lk_kv *kv, *other;
    NEEDS_SERVER();
    proxy_open(&proxy, *state, server_dir);
    char *url = lk_asprintf("postgresql://postgres@/postgres?host=%s&schema=silent&deadline_ms=300", (char *)*state);
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    OK(lk_kv_open(url, LK_WRITE, &other, &test_err));
    put_one(kv, "a", "1");
    put_one(other, "a", "1"); /* its connection is at rest, with nothing outstanding */
    struct lk_kv_txn *t = begin(other, true), *u = begin(kv, false);
    row_is(u, "a", "1");
    put(t, "b", "2");
    atomic_store(&proxy.silent, 1);
    uint64_t began = lk_clock_ns();
    struct lk_bytes v;
    FAILS(lk_kv_get(u, S("b"), &v, &test_err), LK_EBUSY, "begin again");
    FAILS(lk_kv_commit(t, LK_DURABLE, NULL, &test_err), LK_EIO, "unknown whether this commit was done");
    assert_in_range((lk_clock_ns() - began) / 1000000, 3000, 20000);
    lk_kv_abort(u);
    atomic_store(&proxy.silent, 0);
    t = begin(kv, true);
    row_is(t, "a", "1");
    put(t, "c", "3");
    commit(t);
    lk_kv_close(kv);
    lk_kv_close(other);
    proxy_close(&proxy);
    lk_free(url);
}

/* --- killed -------------------------------------------------------------------------------------------------------- */

static void a_killed_server(void **state) {
    (void)state;
    if (LK_TSAN) skip(); /* fork */
    NEEDS_SERVER();
    struct test_random r = test_random_open("a_killed_server");
    const char *seconds = getenv("LOCKSTEP_TEST_SECONDS");
    uint64_t until = lk_clock_ns() + (uint64_t)(seconds ? atoi(seconds) : 5) * 1000000000u;
    pid_t writers[WRITERS];
    struct lk_kv *kv = open_with("schema=killed");
    struct score *score = start_writers(server_url, "schema=killed", writers);
    int kills = 0;
    while (lk_clock_ns() < until) {
        usleep(100000 + test_random_below(&r, 500000));
        assert_int_equal(server_do("kill", NULL), 0);
        assert_int_equal(server_do("start", NULL), 0);
        kills++;
    }
    usleep(300000);
    stop_writers(score, writers, kv);
    print_message("%d kills\n", kills);
    munmap(score, sizeof *score * WRITERS);
    lk_kv_close(kv);
}

/* --- a full disk --------------------------------------------------------------------------------------------------- */

/* A transaction that keeps others waiting knows when it does so no more. */
static void what_is_held_is_lost(void **state) {
    struct lk_kv *kv;
    int64_t time;
    (void)state;
    NEEDS_SERVER();
    kv = open_with("schema=held");
    put_one(kv, "a", "1");
    struct lk_kv_txn *t = begin(kv, true);
    OK(lk__kv_timestamp(t, &time, &test_err));
    for (int i = 0; i < 3; i++) OK(lk__kv_holds(t, &test_err));
    assert_int_equal(server_do("kill", NULL), 0);
    assert_int_equal(server_do("start", NULL), 0);
    FAILS(lk__kv_holds(t, &test_err), LK_ECONFLICT, "was lost");
    FAILS(lk__kv_holds(t, &test_err), LK_ECONFLICT, "run it again");
    lk_kv_abort(t);
    put_one(kv, "a", "2");
    lk_kv_close(kv);
}

static void a_full_disk(void **state) {
    if (LK_TSAN || geteuid() != 0) skip(); /* who else may mount? */
    NEEDS_SERVER();
    char *old_dir = server_dir, *old_url = server_url, *dir = test_join(*state, "small"),
         *ballast = test_join(dir, "ballast");
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=150m") != 0) skip();
    server_dir = dir, server_url = NULL;
    assert_int_equal(server_do("start", "max_wal_size=40MB min_wal_size=32MB"), 0);
    struct lk_kv *kv = open_with("schema=full&deadline_ms=5000");
    struct lk_err e;
    char *value = lk_calloc(1, 1 << 20), key[16];
    struct test_random r = test_random_open("a_full_disk");
    FILE *f = fopen(ballast, "w");
    for (int i = 0; i < 30; i++) fwrite(value, 1, 1 << 20, f);
    fclose(f);
    int code = 0, done = 0;
    for (; code == 0 && done < 400; done += code == 0) {
        for (int i = 0; i < 1 << 20; i += 8) memcpy(value + i, &(uint64_t){test_random_u64(&r)}, 8);
        struct lk_kv_txn *t = begin(kv, true);
        snprintf(key, sizeof key, "%03d", done);
        OK(lk_kv_put(t, S(key), lk_bytes(value, 1 << 20), &e));
        code = lk_kv_commit(t, LK_DURABLE, NULL, &e);
    }
    print_message("full after %d MiB: %s\n", done, e.message);
    assert_int_equal(code, LK_EIO);
    assert_true(done > 5);
    assert_int_equal(unlink(ballast), 0);
    server_do("start", NULL); /* where its log had no room it has ended itself */
    for (int i = 0; i < done; i++) {
        struct lk_kv_txn *t = begin(kv, false);
        struct lk_bytes v;
        snprintf(key, sizeof key, "%03d", i);
        OK(lk_kv_get(t, S(key), &v, &test_err));
        assert_int_equal(v.size, 1 << 20);
        lk_kv_abort(t);
    }
    put_one(kv, "after", "1");
    lk_kv_close(kv);
    lk_free(value);
    server_do("stop", NULL);
    assert_int_equal(umount(dir), 0);
    lk_free(server_url), lk_free(ballast), lk_free(dir);
    server_dir = old_dir, server_url = old_url;
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(cut_at_every_message),      TEST_IN_DIR(a_silent_server), cmocka_unit_test(a_killed_server),
        cmocka_unit_test(what_is_held_is_lost), TEST_IN_DIR(a_full_disk),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
