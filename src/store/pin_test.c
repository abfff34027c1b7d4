/* Pins: what they hold, their tokens, their ends; on LMDB, in memory, and on the store that LOCKSTEP_TEST_KV names, whose
 * rows it deletes. */
#include "base/testing.h"
#include "lockstep/store/pin.h"
#include "store/blob/blob_engine.h"
#include "store/kv/kv_engine.h"
#include "store/pin.h"
#include <pthread.h>

static const struct lk_row_kind *const kinds[] = {NULL};

struct world {
    char *dir;
    struct lk_store *store;
    struct lk_store memory;
};
static int erase(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_delete_range(t, lk_bytes(NULL, 0), lk_bytes(NULL, 0), err);
}
static struct lk_store *store_on(const char *url, const char *dir) {
    struct lk_store *s;
    struct lk_kv *kv;
    char *blobs = test_join(dir, "blobs");
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    OK(lk_kv_update(kv, erase, NULL, LK_DURABLE, NULL, &test_err));
    lk_kv_close(kv);
    OK(lk_store_open_at(url, blobs, LK_CREATE, &s, &test_err));
    lk_free(blobs);
    return s;
}
/* engine: 0 LMDB, 1 memory, 2 the one that is given. */
static bool open_world(struct world *w, int engine) {
    const char *given = getenv("LOCKSTEP_TEST_KV");
    if (engine == 2 && (!given || !*given)) return false;
    *w = (struct world){.dir = test_dir_make()};
    if (engine == 1) {
        char *blobs = test_join(w->dir, "blobs");
        OK(lk_kv_open("memory:", LK_CREATE, &w->memory.kv, &test_err));
        OK(lk_blobs_open(blobs, LK_CREATE, &w->memory.blobs, &test_err));
        w->memory.dir = w->dir, w->store = &w->memory;
        lk_free(blobs);
    } else
        w->store = engine ? store_on(given, w->dir) : NULL;
    if (!engine) OK(lk_store_open(w->dir, LK_CREATE, &w->store, &test_err));
    return true;
}
static void close_world(struct world *w) {
    if (w->store == &w->memory)
        lk_kv_close(w->memory.kv), lk_blobs_close(w->memory.blobs);
    else
        lk_store_close(w->store);
    test_dir_remove(w->dir);
}
static void on_each(void (*test)(struct world *)) {
    struct world w;
    for (int i = 0; i < 3; i++)
        if (open_world(&w, i)) {
            print_message("  %s\n", w.store->kv->ops->name);
            test(&w);
            close_world(&w);
        }
}

/* By one who announces nothing: a process that has ended since. */
static struct lk_root blob(struct lk_store *s, const char *text) {
    struct lk_root root;
    int (*announces)(void *, const struct lk_root *, struct lk_err *) = s->blobs->before_put;
    s->blobs->before_put = NULL;
    OK(lk_blob_put(s->blobs, text, strlen(text), &root, &test_err));
    s->blobs->before_put = announces;
    return root;
}
static struct lk_root named(struct lk_store *s, const char *name, const char *text) {
    struct lk_root root = blob(s, text);
    OK(lk_store_name_put(s, "thing", name, &root, &test_err));
    return root;
}
static int delete_name(struct lk_kv_txn *t, void *name, struct lk_err *err) {
    return lk_name_delete(t, "thing", name, err);
}
static void unname(struct lk_store *s, const char *name) {
    OK(lk_kv_update(s->kv, delete_name, (void *)(uintptr_t)name, LK_DURABLE, NULL, &test_err));
}
static uint64_t collect(struct lk_store *s) {
    struct lk_gc_result r;
    OK(lk_store_gc(s, kinds, &(struct lk_gc_options){.grace_ms = 0}, &r, &test_err));
    return r.blobs;
}
static struct lk_kv_txn *reader(struct lk_store *s) {
    struct lk_kv_txn *t;
    OK(lk_kv_begin(s->kv, false, &t, &test_err));
    return t;
}
static int64_t watermark(struct lk_store *s) {
    struct lk_kv_txn *t = reader(s);
    int64_t out;
    OK(lk_pin_watermark(t, &out, &test_err));
    lk_kv_abort(t);
    return out;
}
/* Its time is over now. */
static int end_now(struct lk_kv_txn *t, void *name, struct lk_err *err) {
    json_t *record;
    int code = lk_record_get(t, "pin", name, &record, err);
    if (code) return code;
    json_object_set_new(record, "until_ms", json_integer(1));
    code = lk_record_put(t, "pin", name, record, err);
    json_decref(record);
    return code;
}
static void end_of_time(struct lk_store *s, const char *name) {
    OK(lk_kv_update(s->kv, end_now, (void *)(uintptr_t)name, LK_DURABLE, NULL, &test_err));
}

static void holds(struct world *w) {
    struct lk_store *s = w->store;
    struct lk_pin pin;
    struct lk_root *roots, leaf = blob(s, "a leaf"), plain = named(s, "plain", "plain"), manifest;
    size_t count;
    char hex[LK_ROOT_HEX], text[200];
    snprintf(text, sizeof text, "{\"leaf\": \"%s\"}", lk_root_hex(&leaf, hex));
    manifest = named(s, "manifest", text);
    assert_true(watermark(s) == INT64_MAX);
    OK(lk_pin_take(s, kinds, "p", 0, "a test", &pin, &test_err));
    assert_true(watermark(s) == pin.at_ms && !pin.until_ms);
    assert_string_equal(pin.holder, "a test");
    unname(s, "plain"), unname(s, "manifest");
    struct lk_root later = named(s, "later", "not in the pin");
    assert_int_equal(collect(s), 0);
    OK(lk_pin_roots(s, &pin.token, &roots, &count, &test_err));
    assert_int_equal(count, 2);
    assert_true(memcmp(&roots[0], &roots[1], sizeof *roots) < 0);
    lk_free(roots);
    unname(s, "later");
    assert_int_equal(collect(s), 1);
    assert_true(lk_blob_exists(s->blobs, &leaf) && lk_blob_exists(s->blobs, &plain) && !lk_blob_exists(s->blobs, &later));
    OK(lk_pin_release(s, "p", pin.at_ms, &test_err));
    assert_int_equal(collect(s), 4); /* with the pin's own */
    assert_false(lk_blob_exists(s->blobs, &leaf) || lk_blob_exists(s->blobs, &manifest));
    assert_true(watermark(s) == INT64_MAX);
    FAILS(lk_pin_release(s, "p", 0, &test_err), LK_ENOTFOUND, "there is no pin named \"p\"");
    FAILS(lk_pin_take(s, kinds, "../p", 0, NULL, &pin, &test_err), LK_EINVAL, "is not a valid name for a pin");
    FAILS(lk_pin_take(s, kinds, "p", -1, NULL, &pin, &test_err), LK_EINVAL, "a pin is held for 0");
    FAILS(lk_pin_take(s, kinds, "p", 0, "\xff", &pin, &test_err), LK_EINVAL, "UTF-8");
    FAILS(lk_pin_roots(s, &plain, &roots, &count, &test_err), LK_ENOTFOUND, "what a pin holds");
}
static void a_pin_holds_what_rows_reach(void **state) {
    (void)state;
    on_each(holds);
}

/* Another order, another history, other blobs, pins and unnamed things beside: the same rows, the same token. */
static void tokens_are_equal(void **state) {
    struct lk_root first = {{0}}, now, empty;
    struct lk_pin pin;
    struct world w;
    json_t *none = json_pack("{s:s, s:[]}", "format", "pin-0", "roots");
    (void)state;
    OK(lk_manifest_root(none, &empty, &test_err));
    json_decref(none);
    for (int i = 0; i < 3; i++) {
        if (!open_world(&w, i)) continue;
        OK(lk_pin_take(w.store, kinds, "none", 0, NULL, &pin, &test_err));
        assert_true(lk_root_equal(&pin.token, &empty));
        if (i) named(w.store, "one", "of another time"), blob(w.store, "an orphan"), named(w.store, "gone", "gone");
        named(w.store, i ? "two" : "one", i ? "2" : "1");
        named(w.store, i ? "one" : "two", i ? "1" : "2");
        if (i) unname(w.store, "gone");
        OK(lk_pin_token(w.store, kinds, &now, &test_err));
        OK(lk_pin_take(w.store, kinds, "some", 1000, NULL, &pin, &test_err));
        assert_true(lk_root_equal(&pin.token, &now));
        if (!i) first = now;
        assert_true(lk_root_equal(&first, &now) && !lk_root_equal(&now, &empty));
        OK(lk_pin_token(w.store, kinds, &now, &test_err)); /* pins are no part of it */
        assert_true(lk_root_equal(&first, &now));
        close_world(&w);
    }
}

static int note(void *arg, const struct lk_pin *p) {
    char *text = arg;
    snprintf(text + strlen(text), 200 - strlen(text), "%s%s;", p->name, p->over ? " over" : "");
    return 0;
}
static void ends(struct world *w) {
    struct lk_store *s = w->store;
    struct lk_root root = named(s, "n", "held"), second;
    struct lk_pin a, b;
    char text[200] = "";
    OK(lk_pin_take(s, kinds, "a", 3600000, "first", &a, &test_err));
    assert_true(a.until_ms == a.at_ms + 3600000);
    FAILS(lk_pin_take(s, kinds, "a", 0, NULL, &b, &test_err), LK_EEXISTS, "the pin a is held by first");
    OK(lk_pin_take(s, kinds, "b", 0, NULL, &b, &test_err));
    assert_true(b.at_ms > a.at_ms && lk_root_equal(&a.token, &b.token) && watermark(s) == a.at_ms);
    OK(lk_pin_renew(s, "a", a.at_ms, 7200000, &a, &test_err));
    assert_true(a.until_ms >= a.at_ms + 7200000 && a.at_ms < b.at_ms);
    OK(lk_pin_release(s, "b", 0, &test_err));
    unname(s, "n");
    /* its time is over: the row holds it still, and a renewal in time saves it */
    end_of_time(s, "a");
    struct lk_kv_txn *t = reader(s);
    OK(lk_pin_list(t, note, text, &test_err));
    OK(lk_pin_get(t, "a", &b, &test_err));
    lk_kv_abort(t);
    assert_string_equal(text, "a over;");
    assert_true(b.over && watermark(s) == a.at_ms);
    OK(lk_pin_renew(s, "a", a.at_ms, 0, &a, &test_err));
    assert_true(!a.until_ms && collect(s) == 0 && lk_blob_exists(s->blobs, &root));
    /* else the collector ends it, or whoever takes the name, and the one before can do nothing any more */
    end_of_time(s, "a");
    struct lk_gc_result dry;
    OK(lk_store_gc(s, kinds, &(struct lk_gc_options){.dry_run = true}, &dry, &test_err));
    assert_int_equal(dry.blobs, 2);
    second = named(s, "m", "of the second");
    OK(lk_pin_take(s, kinds, "a", 0, "second", &b, &test_err));
    FAILS(lk_pin_renew(s, "a", a.at_ms, 0, NULL, &test_err), LK_EBUSY, "second took the name since");
    FAILS(lk_pin_release(s, "a", a.at_ms, &test_err), LK_EBUSY, "is not the one that was taken");
    assert_int_equal(collect(s), 2);
    assert_true(!lk_blob_exists(s->blobs, &root) && lk_blob_exists(s->blobs, &second));
    end_of_time(s, "a");
    assert_int_equal(collect(s), 1); /* its list */
    FAILS(lk_pin_renew(s, "a", b.at_ms, 0, NULL, &test_err), LK_ENOTFOUND, "there is no pin");
    assert_true(watermark(s) == INT64_MAX);
}
static void pins_end(void **state) {
    (void)state;
    on_each(ends);
}

/* What another process puts, until it closes its store, names it, or is gone; the lease of a killed one ends at once. */
static void uploads(struct world *w) {
    const char *given = getenv("LOCKSTEP_TEST_KV");
    char *dir = test_join(w->dir, "blobs"), c;
    const char *url = w->store->kv->ops->now ? given : w->dir;
    struct lk_store *other;
    struct lk_root one, two;
    int ready[2];
    if (w->store == &w->memory) return lk_free(dir);
    blob(w->store, "one"); /* an orphan that is found */
    OK(lk_store_open_at(url, dir, LK_WRITE, &other, &test_err));
    OK(lk_blob_put(other->blobs, "one", 3, &one, &test_err));
    OK(lk_blob_put(other->blobs, "two", 3, &two, &test_err));
    assert_int_equal(collect(w->store), 0);
    OK(lk_store_name_put(other, "thing", "one", &one, &test_err));
    lk_store_close(other);
    assert_int_equal(collect(w->store), 1);
    assert_true(lk_blob_exists(w->store->blobs, &one) && !lk_blob_exists(w->store->blobs, &two));
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child)
        _exit(lk_store_open_at(url, dir, LK_WRITE, &other, NULL) || lk_blob_put(other->blobs, "x", 1, &two, NULL) ||
              write(ready[1], "x", 1) != 1 || pause());
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(collect(w->store), 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(collect(w->store), 1);
    close(ready[0]), close(ready[1]);
    lk_free(dir);
}
static void what_others_put_stays(void **state) {
    (void)state;
    on_each(uploads);
}

static int put_raw(struct lk_kv_txn *t, void *value, struct lk_err *err) {
    return lk_kv_put(t, lk_bytes("r/pin/bad", 9), lk_bytes(value, strlen(value)), err);
}
static void damage(struct world *w) {
    static const char *const rows[] = {"no json", "{}", "[]",
                                       "{\"token\":\"00\",\"at_ms\":1,\"until_ms\":0,\"holder\":\"\"}"};
    struct lk_store *s = w->store;
    struct lk_pin pin;
    struct lk_root orphan = blob(s, "an orphan");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct lk_gc_result r;
        OK(lk_kv_update(s->kv, put_raw, (void *)(uintptr_t)rows[i], LK_LAZY, NULL, &test_err));
        FAILS(lk_store_gc(s, kinds, &(struct lk_gc_options){.grace_ms = 0}, &r, &test_err), LK_ECORRUPT,
              "nothing was removed");
        struct lk_kv_txn *t = reader(s);
        FAILS(lk_pin_get(t, "bad", &pin, &test_err), LK_ECORRUPT, "lockstep pin release bad");
        int64_t oldest;
        FAILS(lk_pin_watermark(t, &oldest, &test_err), LK_ECORRUPT, "the row of the pin bad");
        lk_kv_abort(t);
        assert_true(lk_blob_exists(s->blobs, &orphan));
        OK(lk_pin_release(s, "bad", 0, &test_err)); /* as it says */
    }
    assert_int_equal(collect(s), 1);
}
static void damaged_rows_stop_the_collector(void **state) {
    (void)state;
    on_each(damage);
}

/* Names come and go while pins are taken: each one is the state of one moment. Both names move together, so a pin never has
 * one without the other. */
static struct {
    struct lk_store *store;
    struct lk_root roots[2][2];
    bool stop;
} moving;
static int move_both(struct lk_kv_txn *t, void *which, struct lk_err *err) {
    const struct lk_root *r = moving.roots[*(int *)which];
    int code = lk_name_put(t, "thing", "x", &r[0], err);
    return code ? code : lk_name_put(t, "thing", "y", &r[1], err);
}
static void *move(void *arg) {
    (void)arg;
    for (int i = 0; !__atomic_load_n(&moving.stop, __ATOMIC_RELAXED); i ^= 1) {
        lk_kv_update(moving.store->kv, move_both, &i, LK_LAZY, NULL, NULL);
        usleep(20000);
    }
    return NULL;
}
static void moments(struct world *w) {
    static const char *const texts[2][2] = {{"x0", "y0"}, {"x1", "y1"}};
    struct lk_pin pin;
    pthread_t thread;
    int64_t before = 0;
    moving.store = w->store, moving.stop = false;
    for (int i = 0; i < 4; i++) moving.roots[i / 2][i % 2] = blob(w->store, texts[i / 2][i % 2]);
    OK(lk_kv_update(w->store->kv, move_both, &(int){1}, LK_LAZY, NULL, &test_err));
    assert_int_equal(pthread_create(&thread, NULL, move, NULL), 0);
    for (int i = 0; i < 10; i++) {
        struct lk_root *roots;
        size_t count;
        OK(lk_pin_take(w->store, kinds, "moment", 0, NULL, &pin, &test_err));
        OK(lk_pin_roots(w->store, &pin.token, &roots, &count, &test_err));
        bool zero =
            count == 2 && (lk_root_equal(&roots[0], &moving.roots[0][0]) || lk_root_equal(&roots[1], &moving.roots[0][0]));
        const struct lk_root *want = moving.roots[!zero];
        assert_true(count == 2 && pin.at_ms > before);
        assert_true((lk_root_equal(&roots[0], &want[0]) && lk_root_equal(&roots[1], &want[1])) ||
                    (lk_root_equal(&roots[0], &want[1]) && lk_root_equal(&roots[1], &want[0])));
        before = pin.at_ms;
        lk_free(roots);
        OK(lk_pin_release(w->store, "moment", pin.at_ms, &test_err));
    }
    __atomic_store_n(&moving.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}
static void a_pin_is_one_moment(void **state) {
    (void)state;
    on_each(moments);
}

static int put_user(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_put(t, lk_bytes("user/x", 6), lk_bytes("y", 1), err);
}
static void a_killed_taker_leaves_a_pin_or_none(void **state) {
    struct world w;
    struct lk_kv_txn *t;
    struct lk_pin pin;
    (void)state;
    open_world(&w, 0);
    struct lk_root root = named(w.store, "n", "held");
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) {
            struct lk_store *own;
            if (lk_store_open(w.dir, LK_WRITE, &own, NULL)) _exit(1);
            for (;;) {
                if (lk_pin_take(own, kinds, "k", 0, NULL, &pin, NULL)) _exit(2);
                if (lk_pin_release(own, "k", pin.at_ms, NULL)) _exit(3);
            }
        }
        int status;
        usleep((useconds_t)(5000 + i * 1500));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        OK(lk_kv_update(w.store->kv, put_user, NULL, LK_LAZY, NULL,
                        &test_err)); /* after it, a commit in flight is decided */
        t = reader(w.store);
        int code = lk_pin_get(t, "k", &pin, NULL);
        lk_kv_abort(t);
        assert_true(code == LK_OK || code == LK_ENOTFOUND);
        if (code) continue;
        struct lk_root *roots;
        size_t count;
        collect(w.store);
        OK(lk_pin_roots(w.store, &pin.token, &roots, &count, &test_err)); /* its list was there before it */
        assert_true(count == 1 && lk_root_equal(roots, &root));
        lk_free(roots);
        OK(lk_pin_release(w.store, "k", pin.at_ms, &test_err));
    }
    close_world(&w);
}

static void memory_that_fails(void **state) {
    struct world w;
    struct lk_pin pin;
    (void)state;
    open_world(&w, 0);
    named(w.store, "n", "held");
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) {
        lk__alloc_fail_at(nth);
        int code = lk_pin_take(w.store, kinds, "m", 0, NULL, &pin, &test_err);
        made = lk__alloc_count();
        lk__alloc_fail_at(0);
        assert_true(code == LK_OK || code == LK_ENOMEM);
        if (!code) OK(lk_pin_release(w.store, "m", pin.at_ms, &test_err));
    }
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pin_holds_what_rows_reach),
        cmocka_unit_test(tokens_are_equal),
        cmocka_unit_test(pins_end),
        cmocka_unit_test(damaged_rows_stop_the_collector),
        cmocka_unit_test(a_pin_is_one_moment),
        cmocka_unit_test(a_killed_taker_leaves_a_pin_or_none),
        cmocka_unit_test(memory_that_fails),
        cmocka_unit_test(what_others_put_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
