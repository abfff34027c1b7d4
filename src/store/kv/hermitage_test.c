/* The anomalies of Hermitage (Martin Kleppmann's list, after Adya), by name, each with the interleaving that shows it where
 * an engine allows it. On every engine what was committed is as if done one after the other; on a store without
 * transactions each script shows its anomaly, so each can. */
#include "lockstep/base/progress.h"
#include "store/kv/testing.h"
#include <pthread.h>

#define TXNS  3
#define STEPS 24
#define ROWS  9 /* keys 1 to 9 */

/* Rows at the beginning: 1 = 10, 2 = 20. A step is a transaction's number and
 *   r K  reads a row          w K V  writes it        + K V  adds to it
 *   m M  reads all rows whose value is a multiple of M           e V  all whose value is V
 *   d V  deletes all whose value is V                            u V  adds to all
 *   c    commits              a      gives up */
static const struct {
    const char *name, *script;
} cases[] = {
    {"G0: write cycles", "1 w 1 11; 2 w 1 12; 2 w 2 22; 1 w 2 21; 1 c; 2 c; 3 r 1; 3 r 2; 3 c"},
    {"G1a: aborted reads", "1 w 1 101; 2 r 1; 2 r 2; 1 a; 2 r 1; 2 r 2; 2 c"},
    {"G1b: intermediate reads", "1 w 1 101; 2 r 1; 2 r 2; 1 w 1 11; 1 c; 2 r 1; 2 r 2; 2 c"},
    {"G1c: circular information flow", "1 w 1 11; 2 w 2 22; 1 r 2; 2 r 1; 1 c; 2 c"},
    {"OTV: observed transaction vanishes",
     "1 w 1 11; 1 w 2 19; 2 w 1 12; 1 c; 3 r 1; 3 r 2; 2 w 2 18; 2 c; 3 r 2; 3 r 1; 3 c"},
    {"PMP: predicate-many-preceders, read", "1 e 30; 2 w 3 30; 2 c; 1 m 3; 1 c"},
    {"PMP: predicate-many-preceders, write", "2 e 20; 1 u 10; 2 d 20; 1 c; 2 e 20; 2 r 1; 2 r 2; 2 c"},
    {"P4: lost update", "1 r 1; 2 r 1; 1 w 1 11; 2 w 1 12; 1 c; 2 c"},
    {"P4: lost update, a counter", "1 r 1; 2 r 1; 1 + 1 1; 2 + 1 1; 1 c; 2 c"},
    {"G-single: read skew", "1 r 1; 2 r 1; 2 r 2; 2 w 1 12; 2 w 2 18; 2 c; 1 r 2; 1 c"},
    {"G-single: read skew, predicates", "1 m 5; 2 w 1 12; 2 c; 1 m 3; 1 c"},
    {"G-single: read skew, write predicate", "1 r 1; 2 r 1; 2 r 2; 2 w 1 12; 2 w 2 18; 2 c; 1 d 20; 1 m 1; 1 c"},
    {"G-single: read skew, interleaved write predicate", "1 r 1; 2 m 1; 2 w 1 12; 1 d 20; 2 w 2 18; 1 c; 2 c"},
    {"G2-item: write skew", "1 r 1; 1 r 2; 2 r 1; 2 r 2; 1 w 1 11; 2 w 2 21; 1 c; 2 c"},
    {"G2: anti-dependency cycles", "1 m 3; 2 m 3; 1 w 3 30; 2 w 4 42; 1 c; 2 c"},
    {"G2: two anti-dependencies, a reader sees them", "1 m 1; 2 + 2 5; 2 c; 3 m 1; 3 c; 1 w 1 0; 1 c"},
};
struct step {
    int txn, key, value;
    char op;
};
static int parse(const char *script, struct step *out) {
    int n = 0;
    for (const char *p = script; p; p = strchr(p, ';') ? strchr(p, ';') + 1 : NULL) {
        struct step s = {0};
        int got = sscanf(p, "%d %c %d %d", &s.txn, &s.op, &s.key, &s.value);
        assert_true(got >= 2 && n < STEPS && s.txn >= 1 && s.txn <= TXNS);
        s.txn--;
        out[n++] = s;
    }
    return n;
}
static bool writes(char op) {
    return strchr("w+du", op) != NULL;
}

/* --- the same steps on anything that has rows ------------------------------------------------------------------------ */

struct rows {
    int (*get)(void *, int key, int *value, struct lk_err *); /* value 0: absent */
    int (*put)(void *, int key, int value, struct lk_err *);
    int (*all)(void *, int values[ROWS + 1], struct lk_err *);
    void *arg;
};
/* *saw: what it read, one number. */
static int do_step(const struct rows *r, const struct step *s, int64_t *saw, struct lk_err *err) {
    int values[ROWS + 1] = {0}, value = 0, code = 0;
    *saw = 0;
    if (s->op == 'w') return r->put(r->arg, s->key, s->value, err);
    if (s->op == 'r' || s->op == '+') {
        code = r->get(r->arg, s->key, &value, err);
        *saw = value;
        return code == 0 && s->op == '+' ? r->put(r->arg, s->key, value + s->value, err) : code;
    }
    if (strchr("medu", s->op)) code = r->all(r->arg, values, err);
    for (int k = 1; k <= ROWS && code == 0; k++) {
        if (!values[k]) continue;
        if (s->op == 'm' ? values[k] % s->key == 0 : s->op == 'e' && values[k] == s->key)
            *saw = *saw * 1000 + k * 100 + values[k];
        if (s->op == 'd' && values[k] == s->key) code = r->put(r->arg, k, 0, err);
        if (s->op == 'u') code = r->put(r->arg, k, values[k] + s->key, err);
    }
    return code;
}
static int array_get(void *arg, int key, int *value, struct lk_err *err) {
    (void)err;
    *value = ((int *)arg)[key];
    return 0;
}
static int array_put(void *arg, int key, int value, struct lk_err *err) {
    (void)err;
    ((int *)arg)[key] = value;
    return 0;
}
static int array_all(void *arg, int values[ROWS + 1], struct lk_err *err) {
    (void)err;
    memcpy(values, arg, (ROWS + 1) * sizeof(int));
    return 0;
}

static struct lk_bytes key_of(int key, char out[8]) {
    snprintf(out, 8, "k%d", key);
    return S(out);
}
static int kv_get(void *arg, int key, int *value, struct lk_err *err) {
    char name[8];
    struct lk_bytes v;
    int code = lk_kv_get(arg, key_of(key, name), &v, err);
    *value = 0;
    if (code == 0) memcpy(value, v.data, sizeof *value);
    return code == LK_ENOTFOUND ? 0 : code;
}
static int kv_put(void *arg, int key, int value, struct lk_err *err) {
    char name[8];
    return value ? lk_kv_put(arg, key_of(key, name), lk_bytes(&value, sizeof value), err)
                 : lk_kv_delete(arg, key_of(key, name), err);
}
static int take_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    int k = ((const char *)key.data)[1] - '0';
    memcpy((int *)arg + k, value.data, sizeof(int));
    return 0;
}
static int kv_all(void *arg, int values[ROWS + 1], struct lk_err *err) {
    return lk_kv_scan(arg, S("k"), S("l"), take_row, values, err);
}

/* --- what came of it -------------------------------------------------------------------------------------------------- */

struct outcome {
    bool there[TXNS], committed[TXNS];
    uint64_t began[TXNS], ended[TXNS];
    int64_t stamp[TXNS]; /* of one that wrote; 0: none */
    int64_t saw[STEPS];
    int final[ROWS + 1];
};
/* Whether doing them in this order gives what they saw, and the rows. */
static bool explains(const struct step *steps, int count, const struct outcome *o, const int *order, int n) {
    int rows[ROWS + 1] = {[1] = 10, [2] = 20};
    struct rows r = {array_get, array_put, array_all, rows};
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            int a = order[i], b = order[j];
            if (o->ended[b] < o->began[a] || (o->stamp[a] && o->stamp[b] && o->stamp[b] <= o->stamp[a])) return false;
        }
    for (int i = 0; i < n; i++)
        for (int s = 0; s < count; s++) {
            int64_t saw;
            if (steps[s].txn != order[i]) continue;
            do_step(&r, &steps[s], &saw, NULL);
            if (saw != o->saw[s]) return false;
        }
    return memcmp(rows, o->final, sizeof rows) == 0;
}
static bool serial(const struct step *steps, int count, const struct outcome *o) {
    static const int orders[6][TXNS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i++) {
        int order[TXNS], n = 0;
        for (int j = 0; j < TXNS; j++)
            if (o->committed[orders[i][j]]) order[n++] = orders[i][j];
        if (explains(steps, count, o, order, n)) return true;
    }
    return false;
}

/* --- a store without transactions --------------------------------------------------------------------------------------
 */

static void each_script_shows_its_anomaly(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct step steps[STEPS];
        struct outcome o = {.final = {[1] = 10, [2] = 20}};
        int count = parse(cases[c].script, steps), before[ROWS + 1];
        struct rows r = {array_get, array_put, array_all, o.final};
        memcpy(before, o.final, sizeof before);
        for (int i = 0; i < count; i++) {
            int t = steps[i].txn;
            if (!o.there[t]) o.there[t] = true, o.began[t] = (uint64_t)i;
            do_step(&r, &steps[i], &o.saw[i], NULL);
            if (steps[i].op == 'a') memcpy(o.final, before, sizeof before); /* of the first one */
            if (steps[i].op == 'c') o.committed[t] = true, o.ended[t] = (uint64_t)i;
        }
        if (serial(steps, count, &o)) fail_msg("%s cannot be seen", cases[c].name);
    }
}

/* --- on an engine: a thread for each transaction -----------------------------------------------------------------------
 */

struct player {
    struct lk_kv *kv;
    const struct step *steps;
    struct outcome *o;
    int number, count;
    bool writes, stamped;
    pthread_t thread;
    pthread_mutex_t *mutex;
    pthread_cond_t *moved;
    int allowed, done; /* steps of the script that it may do; has done or passed over */
};
static int play_step(struct player *p, struct lk_kv_txn **t, const struct step *s, int64_t *saw) {
    struct lk_err e;
    int t_number = p->number, code = 0;
    if (!p->o->there[t_number]) {
        p->o->there[t_number] = true, p->o->began[t_number] = lk_clock_ns();
        code = lk_kv_begin(p->kv, p->writes, t, &e);
        if (code != 0) fail_msg("%s", e.message);
    }
    if (!*t) return 0; /* it has met another one */
    if (s->op == 'c') {
        code = lk_kv_commit(*t, LK_LAZY, p->stamped ? &p->o->stamp[t_number] : NULL, &e);
        *t = NULL;
        p->o->ended[t_number] = lk_clock_ns();
        p->o->committed[t_number] = code == 0;
    } else if (s->op == 'a') {
        lk_kv_abort(*t);
        *t = NULL;
    } else {
        struct rows r = {kv_get, kv_put, kv_all, *t};
        code = do_step(&r, s, saw, &e);
        if (code != 0) lk_kv_abort(*t), *t = NULL;
    }
    return code == 0 || code == LK_ECONFLICT ? 0 : code;
}
static void *play(void *arg) {
    struct player *p = arg;
    struct lk_kv_txn *t = NULL;
    pthread_mutex_lock(p->mutex);
    while (p->done < p->count) {
        while (p->done >= p->allowed) pthread_cond_wait(p->moved, p->mutex);
        const struct step *s = &p->steps[p->done];
        pthread_mutex_unlock(p->mutex);
        int64_t saw = 0;
        int code = s->txn == p->number ? play_step(p, &t, s, &saw) : 0;
        if (code != 0) return (void *)(intptr_t)code;
        pthread_mutex_lock(p->mutex);
        if (s->txn == p->number) p->o->saw[p->done] = saw;
        p->done++;
        pthread_cond_broadcast(p->moved);
    }
    pthread_mutex_unlock(p->mutex);
    return NULL;
}

/* Step by step; one that waits for another transaction's end is left behind. */
static void conduct(struct player *players, const struct step *steps, int count) {
    pthread_mutex_t *mutex = players->mutex;
    bool late[TXNS] = {false};
    pthread_mutex_lock(mutex);
    for (int i = 0; i < count; i++) {
        struct timespec until;
        struct player *p = &players[steps[i].txn];
        for (int j = 0; j < TXNS; j++) players[j].allowed = i + 1;
        pthread_cond_broadcast(p->moved);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += late[steps[i].txn] ? 500000 : 20000000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        while (p->done <= i && pthread_cond_timedwait(p->moved, mutex, &until) == 0) {}
        late[steps[i].txn] = p->done <= i;
    }
    pthread_mutex_unlock(mutex);
}
static int put_first_rows(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    int code = lk_kv_delete_range(t, S("k"), S("l"), err);
    if (code == 0) code = kv_put(t, 1, 10, err);
    return code == 0 ? kv_put(t, 2, 20, err) : code;
}
/* stamped: commits ask for the time; as_writers: also those that only read. */
static bool run_case(struct lk_kv *kv, size_t c, bool stamped, bool as_writers, int *aborted) {
    struct step steps[STEPS];
    struct outcome o = {{false}};
    struct player players[TXNS];
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
    int count = parse(cases[c].script, steps);
    OK(lk_kv_update(kv, put_first_rows, NULL, LK_LAZY, NULL, &test_err));
    for (int i = 0; i < TXNS; i++) {
        bool any = as_writers;
        for (int s = 0; s < count; s++) any |= steps[s].txn == i && writes(steps[s].op);
        players[i] = (struct player){kv, steps, &o, i, count, any, stamped && any, .mutex = &mutex, .moved = &moved};
        assert_int_equal(pthread_create(&players[i].thread, NULL, play, &players[i]), 0);
    }
    conduct(players, steps, count);
    for (int i = 0; i < TXNS; i++) {
        void *result;
        pthread_join(players[i].thread, &result);
        assert_null(result);
        *aborted += o.there[i] && !o.committed[i];
    }
    struct lk_kv_txn *t = begin(kv, false);
    OK(kv_all(t, o.final, &test_err));
    lk_kv_abort(t);
    return serial(steps, count, &o);
}
static void no_engine_shows_one(struct world *w) {
    int aborted = 0;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int how = 0; how < 4; how++)
            if (!run_case(w->kv, c, how & 1, how & 2, &aborted)) fail_msg("%s", cases[c].name);
    print_message("    %zu anomalies, none seen; %d transactions ended\n", sizeof cases / sizeof *cases, aborted);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_script_shows_its_anomaly),
        WORLD_TEST(no_engine_shows_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
