/* Processes that write to a store in PostgreSQL while a test breaks something, and count what they were told; tests only.
 */
#ifndef LK_STORE_KV_POSTGRES_WRITERS_H
#define LK_STORE_KV_POSTGRES_WRITERS_H
#include "store/kv/testing.h"
#include <stdatomic.h>
#include <sys/mman.h>

#define WRITERS 4
struct score {
    atomic_int acknowledged; /* durable ones: a lazy one may go with the server */
    atomic_int unknown, refused, stop;
};

static int int_at(struct lk_kv *kv, const char *key) {
    struct lk_bytes v;
    int n = 0;
    struct lk_kv_txn *t = begin(kv, false);
    if (lk_kv_get(t, S(key), &v, NULL) == 0) memcpy(&n, v.data, sizeof n);
    lk_kv_abort(t);
    return n;
}
/* Adds one to left, right and the writer's own row. */
static inline int add_pair(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    static const char *const shared[] = {"left", "right"};
    const char *keys[] = {shared[0], shared[1], arg};
    for (int i = 0; i < 3; i++) {
        struct lk_bytes v;
        int n = 0, code = lk_kv_get(txn, S(keys[i]), &v, err);
        if (code == 0) memcpy(&n, v.data, sizeof n);
        if (code == LK_ENOTFOUND) code = 0;
        n++;
        if (code == 0) code = lk_kv_put(txn, S(keys[i]), lk_bytes(&n, sizeof n), err);
        if (code != 0) return code;
    }
    return 0;
}
static inline void write_pairs(const char *url, struct score *score, int number) {
    char own[16];
    struct lk_kv *kv;
    struct lk_err e;
    snprintf(own, sizeof own, "own%d", number);
    if (lk_kv_open(url, LK_WRITE, &kv, &e) != 0) print_error("writer %d: %s\n", number, e.message), _exit(1);
    for (int i = 0; !atomic_load(&score->stop); i++) {
        int64_t time;
        int code = lk_kv_update(kv, add_pair, own, i % 2 ? LK_DURABLE : LK_LAZY, i % 3 ? NULL : &time, &e);
        if (code == 0 && i % 2) atomic_fetch_add(&score[number].acknowledged, 1);
        if (code == 0) continue;
        bool unknown = strstr(e.message, "unknown");
        atomic_fetch_add(unknown ? &score[number].unknown : &score[number].refused, 1);
        if (!unknown && code != LK_EIO && code != LK_EBUSY) print_error("writer %d: %s\n", number, e.message), _exit(2);
        if (!unknown) usleep(10000);
    }
    lk_kv_close(kv);
    _exit(0);
}
/* options: "schema=a&deadline_ms=1000". */
static inline struct score *start_writers(const char *server, const char *options, pid_t writers[WRITERS]) {
    struct score *score = mmap(NULL, sizeof *score * WRITERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *url = lk_asprintf("%s&%s", server, options);
    assert_ptr_not_equal(score, MAP_FAILED);
    fflush(NULL);
    for (int i = 0; i < WRITERS; i++)
        if ((writers[i] = fork()) == 0) write_pairs(url, score, i);
    lk_free(url);
    return score;
}
static inline int writers_told(struct score *score) {
    int n = 0;
    for (int i = 0; i < WRITERS; i++) n += atomic_load(&score[i].acknowledged);
    return n;
}
/* Nothing that was acknowledged is lost, and no transaction is there half. */
static inline void stop_writers(struct score *score, const pid_t writers[WRITERS], struct lk_kv *kv) {
    int sum = 0, unknown = 0, refused = 0;
    atomic_store(&score->stop, 1);
    for (int i = 0; i < WRITERS; i++) {
        char own[16];
        int status, n;
        assert_int_equal(waitpid(writers[i], &status, 0), writers[i]);
        assert_int_equal(status, 0);
        snprintf(own, sizeof own, "own%d", i);
        n = int_at(kv, own);
        if (n < score[i].acknowledged) fail_msg("writer %d: %d of %d acknowledged commits", i, n, score[i].acknowledged);
        sum += n, unknown += score[i].unknown, refused += score[i].refused;
    }
    print_message("%d commits, %d of them durable and acknowledged, %d unknown, %d refused\n", sum, writers_told(score),
                  unknown, refused);
    assert_int_equal(int_at(kv, "left"), sum);
    assert_int_equal(int_at(kv, "right"), sum);
    assert_true(sum > 20);
}

#endif
