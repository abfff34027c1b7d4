/* kv over PostgreSQL beside the same work in plain pipelined libpq, on one server: bench/postgres.sh starts it.
 *   postgres URL [ROWS] [SECONDS]   URL with a schema of its own, which is filled */
#include "lockstep/base/progress.h"
#include "lockstep/base/random.h"
#include "store/kv/kv_postgres.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_BYTES   16
#define VALUE_BYTES 100
#define BATCH       1000
#define COUNTERS    4

static const char *url;
static int rows = 200000;
static double seconds = 2;
static struct lk_err err;

static void must(int code, const char *what) {
    if (code == 0) return;
    fprintf(stderr, "postgres bench: %s: %s\n", what, err.message);
    exit(1);
}
static void key_at(unsigned char out[KEY_BYTES], uint32_t n) {
    char text[KEY_BYTES + 1];
    snprintf(text, sizeof text, "k%015u", n);
    memcpy(out, text, KEY_BYTES);
}
static uint32_t below(uint32_t step, uint32_t n) {
    uint32_t out[4];
    lk_random(7, LK_PURPOSE_VERIFY, step, 0, 0, 0, out);
    return (uint32_t)((uint64_t)out[0] * n >> 32);
}
static double now(void) {
    return (double)lk_clock_ns() * 1e-9;
}
static struct lk_kv *open_kv(void) {
    struct lk_kv *kv;
    must(lk_kv_open(url, LK_CREATE, &kv, &err), "open");
    return kv;
}

/* --- plain libpq --------------------------------------------------------------------------------------------------- */

#define PQ lk__kv_pq
static PGconn *connect_plain(const char *schema) {
    struct lk__kv_pg *kv;
    must(lk__kv_pg_open(url, LK_CREATE, &kv, &err), "open");
    const char *names[] = {"dbname", NULL}, *values[] = {kv->url, NULL};
    PGconn *c = PQ.connectStartParams(names, values, 1);
    for (PostgresPollingStatusType s = PGRES_POLLING_WRITING; s != PGRES_POLLING_OK && s != PGRES_POLLING_FAILED;) {
        usleep(100);
        s = PQ.connectPoll(c);
    }
    lk__kv_pg_close(kv);
    char text[128];
    snprintf(text, sizeof text, "SET search_path = %s", schema);
    PQ.enterPipelineMode(c);
    PQ.sendQueryParams(c, text, 0, NULL, NULL, NULL, NULL, 1);
    PQ.sendQueryParams(c, "SET plan_cache_mode = force_generic_plan", 0, NULL, NULL, NULL, NULL, 1);
    PQ.sendQueryParams(c, "SET enable_bitmapscan = off", 0, NULL, NULL, NULL, NULL, 1);
    PQ.sendPrepare(c, "get", "SELECT value FROM kv WHERE key = $1::bytea", 0, NULL);
    PQ.sendPrepare(c, "put",
                   "INSERT INTO plain (key, value) VALUES ($1::bytea, $2::bytea)"
                   " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                   0, NULL);
    PQ.sendPrepare(c, "done", "INSERT INTO plain_commits (id) VALUES (gen_random_uuid())", 0, NULL);
    PQ.sendPrepare(c, "lock", "SELECT value FROM plain WHERE key = $1::bytea FOR UPDATE", 0, NULL);
    PQ.sendPrepare(c, "tick", "UPDATE plain_clock SET time = time + 1 RETURNING time", 0, NULL);
    PQ.pipelineSync(c);
    return c;
}
/* Reads all answers up to the next sync; the number of rows. */
static long finish_plain(PGconn *c) {
    long n = 0;
    for (int nulls = 0; nulls < 3;) {
        PGresult *r = PQ.getResult(c);
        if (!r) {
            nulls++;
            continue;
        }
        nulls = 0;
        ExecStatusType s = PQ.resultStatus(r);
        if (s == PGRES_FATAL_ERROR) fprintf(stderr, "plain: %s", PQ.errorMessage(c)), exit(1);
        if (s == PGRES_TUPLES_OK) n += PQ.ntuples(r);
        PQ.clear(r);
        if (s == PGRES_PIPELINE_SYNC) break;
    }
    return n;
}
static void send_plain(PGconn *c, const char *name, const void *key, const void *value, int value_size) {
    const char *values[2] = {key, value};
    int sizes[2] = {KEY_BYTES, value_size}, binary[2] = {1, 1};
    PQ.sendQueryPrepared(c, name, !key ? 0 : value ? 2 : 1, values, sizes, binary, 1);
}
static void text_plain(PGconn *c, const char *sql) {
    PQ.sendQueryParams(c, sql, 0, NULL, NULL, NULL, NULL, 1);
}

/* --- reads ---------------------------------------------------------------------------------------------------------- */

static void fill(struct lk_kv *kv) {
    char value[VALUE_BYTES];
    memset(value, 'v', sizeof value);
    double began = now();
    for (int i = 0; i < rows; i += BATCH) {
        struct lk_kv_txn *t;
        must(lk_kv_begin(kv, true, &t, &err), "begin");
        for (int j = i; j < i + BATCH && j < rows; j++) {
            unsigned char key[KEY_BYTES];
            key_at(key, (uint32_t)j);
            must(lk_kv_put(t, lk_bytes(key, KEY_BYTES), lk_bytes(value, sizeof value), &err), "put");
        }
        must(lk_kv_commit(t, LK_DURABLE, NULL, &err), "commit");
    }
    printf("%-44s %10.0f rows/s\n", "puts, 1,000 in a commit", rows / (now() - began));
}

static double gets_ours(struct lk_kv *kv) {
    unsigned char keys[BATCH][KEY_BYTES];
    struct lk_bytes k[BATCH], v[BATCH];
    double began = now();
    long n = 0;
    for (uint32_t step = 0; now() - began < seconds;) {
        struct lk_kv_txn *t;
        must(lk_kv_begin(kv, false, &t, &err), "begin");
        for (int i = 0; i < BATCH; i++) key_at(keys[i], below(step++, (uint32_t)rows)), k[i] = lk_bytes(keys[i], KEY_BYTES);
        must(lk_kv_get_many(t, k, BATCH, v, &err), "get_many");
        for (int i = 0; i < BATCH; i++) n += v[i].size == VALUE_BYTES;
        lk_kv_abort(t);
    }
    return (double)n / (now() - began);
}
static double gets_plain(PGconn *c) {
    double began = now();
    long n = 0;
    for (uint32_t step = 0; now() - began < seconds;) {
        for (int i = 0; i < BATCH; i++) {
            unsigned char key[KEY_BYTES];
            key_at(key, below(step++, (uint32_t)rows));
            send_plain(c, "get", key, NULL, 0);
        }
        PQ.pipelineSync(c);
        n += finish_plain(c);
    }
    return (double)n / (now() - began);
}
static double single_gets_ours(struct lk_kv *kv) {
    struct lk_kv_txn *t;
    double began = now();
    long n = 0;
    must(lk_kv_begin(kv, false, &t, &err), "begin");
    for (uint32_t step = 0; now() - began < seconds; n++) {
        unsigned char key[KEY_BYTES];
        struct lk_bytes v;
        key_at(key, below(step++, (uint32_t)rows));
        must(lk_kv_get(t, lk_bytes(key, KEY_BYTES), &v, &err), "get");
    }
    lk_kv_abort(t);
    return (double)n / (now() - began);
}
static double single_gets_plain(PGconn *c) {
    double began = now();
    long n = 0;
    for (uint32_t step = 0; now() - began < seconds;) {
        unsigned char key[KEY_BYTES];
        key_at(key, below(step++, (uint32_t)rows));
        send_plain(c, "get", key, NULL, 0);
        PQ.pipelineSync(c);
        n += finish_plain(c);
    }
    return (double)n / (now() - began);
}
static int count_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key;
    *(long *)arg += value.size == VALUE_BYTES;
    return 0;
}
static double scan_ours(struct lk_kv *kv) {
    double began = now();
    long n = 0;
    while (now() - began < seconds) {
        struct lk_kv_txn *t;
        must(lk_kv_begin(kv, false, &t, &err), "begin");
        must(lk_kv_scan(t, lk_bytes("k", 1), lk_bytes("l", 1), count_row, &n, &err), "scan");
        lk_kv_abort(t);
    }
    return (double)n / (now() - began);
}
/* In windows of 1,000 rows, so that neither side holds all of it. */
static double scan_plain(PGconn *c) {
    double began = now();
    long n = 0;
    while (now() - began < seconds) {
        text_plain(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        text_plain(c, "DECLARE s CURSOR FOR SELECT key, value FROM kv WHERE key >= 'k' AND key < 'l' ORDER BY key");
        PQ.pipelineSync(c);
        finish_plain(c);
        for (long got = 1; got > 0; n += got) {
            text_plain(c, "FETCH 1000 FROM s");
            PQ.pipelineSync(c);
            got = finish_plain(c);
        }
        text_plain(c, "COMMIT");
        PQ.pipelineSync(c);
        finish_plain(c);
    }
    return (double)n / (now() - began);
}

/* In turn, three times; the best of each, as others may use the machine. */
static void compare(const char *name, double (*ours)(struct lk_kv *), double (*plain)(PGconn *), struct lk_kv *kv,
                    PGconn *c) {
    double best[2] = {0, 0};
    for (int i = 0; i < 3; i++) {
        double a = ours(kv), b = plain(c);
        if (a > best[0]) best[0] = a;
        if (b > best[1]) best[1] = b;
    }
    printf("%-44s %10.0f %10.0f %6.2fx\n", name, best[0], best[1], best[0] / best[1]);
}

/* --- commits -------------------------------------------------------------------------------------------------------- */

enum work { DISJOINT, STAMPED, CONTENDED };
struct shared {
    _Atomic long commits, runs;
    _Atomic int go;
};
static struct shared *shared;

static int add_one(struct lk_kv_txn *t, void *key, struct lk_err *e) {
    struct lk_bytes v;
    int64_t n = 0;
    shared->runs++;
    int code = lk_kv_get(t, lk_bytes(key, KEY_BYTES), &v, e);
    if (code == 0) memcpy(&n, v.data, 8);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    n++;
    return lk_kv_put(t, lk_bytes(key, KEY_BYTES), lk_bytes(&n, 8), e);
}
static int put_one(struct lk_kv_txn *t, void *key, struct lk_err *e) {
    static const char value[VALUE_BYTES];
    shared->runs++;
    return lk_kv_put(t, lk_bytes(key, KEY_BYTES), lk_bytes(value, VALUE_BYTES), e);
}
static void write_ours(struct lk_kv *kv, enum work work, int writer) {
    double began = now();
    for (uint32_t i = 0; now() - began < seconds; i++) {
        unsigned char key[KEY_BYTES];
        int64_t time;
        key_at(key, work == CONTENDED ? 900000000u + below(i * 64 + (uint32_t)writer, COUNTERS)
                                      : 500000000u + (uint32_t)writer * 100000 + i % 1000);
        must(lk_kv_update(kv, work == CONTENDED ? add_one : put_one, key, LK_DURABLE, work == STAMPED ? &time : NULL, &err),
             "update");
        shared->commits++;
    }
}
static void write_plain(PGconn *c, enum work work, int writer) {
    static const char value[VALUE_BYTES];
    double began = now();
    for (uint32_t i = 0; now() - began < seconds; i++) {
        unsigned char key[KEY_BYTES];
        key_at(key, work == CONTENDED ? 900000000u + below(i * 64 + (uint32_t)writer, COUNTERS)
                                      : 500000000u + (uint32_t)writer * 100000 + i % 1000);
        text_plain(c, "BEGIN");
        if (work == CONTENDED) {
            send_plain(c, "lock", key, NULL, 0);
            PQ.pipelineSync(c);
            finish_plain(c);
        }
        /* as any client needs that wants to know what became of a commit whose answer was lost */
        send_plain(c, "done", NULL, NULL, 0);
        if (work == STAMPED) send_plain(c, "tick", NULL, NULL, 0);
        send_plain(c, "put", key, value, work == CONTENDED ? 8 : VALUE_BYTES);
        text_plain(c, "COMMIT");
        PQ.pipelineSync(c);
        finish_plain(c);
        shared->commits++;
    }
}

struct thread {
    pthread_t thread;
    struct lk_kv *kv;
    enum work work;
    int number;
};
static void *run_thread(void *arg) {
    struct thread *t = arg;
    write_ours(t->kv, t->work, t->number);
    return NULL;
}
/* how: 0 ours, processes; 1 plain, processes; 2 ours, threads of one process. */
static double commits(int how, enum work work, int writers, double *aborts) {
    memset(shared, 0, sizeof *shared);
    int processes = how == 2 ? 1 : writers;
    fflush(NULL);
    for (int w = 0; w < processes; w++) {
        if (fork() != 0) continue;
        PGconn *c = how == 1 ? connect_plain("bench") : NULL;
        struct lk_kv *kv = how != 1 ? open_kv() : NULL;
        if (c) finish_plain(c);
        shared->go++;
        while (shared->go < processes) usleep(100);
        struct thread threads[64];
        for (int i = 0; how == 2 && i < writers; i++) {
            threads[i] = (struct thread){.kv = kv, .work = work, .number = i};
            pthread_create(&threads[i].thread, NULL, run_thread, &threads[i]);
        }
        for (int i = 0; how == 2 && i < writers; i++) pthread_join(threads[i].thread, NULL);
        if (how == 0) write_ours(kv, work, w);
        if (how == 1) write_plain(c, work, w);
        _exit(0);
    }
    for (int w = 0, status; w < processes; w++)
        if (wait(&status) < 0 || status != 0) exit(1);
    *aborts = how == 1 || !shared->runs ? 0 : 1 - (double)shared->commits / (double)shared->runs;
    return (double)shared->commits / seconds;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"disjoint rows", "disjoint rows, with a timestamp", "one of 4 counters"};
    if (argc < 2) return fprintf(stderr, "usage: postgres URL [ROWS] [SECONDS]\n"), 2;
    url = argv[1];
    if (argc > 2) rows = atoi(argv[2]);
    if (argc > 3) seconds = atof(argv[3]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct lk_kv *kv = open_kv();
    PGconn *c = connect_plain("bench");
    finish_plain(c);
    fill(kv);
    text_plain(c, "VACUUM ANALYZE kv");
    PQ.pipelineSync(c);
    finish_plain(c);
    printf("%-44s %10s %10s %7s\n", "reads a second", "ours", "libpq", "ratio");
    compare("gets, 1,000 at once", gets_ours, gets_plain, kv, c);
    compare("gets, one by one", single_gets_ours, single_gets_plain, kv, c);
    compare("rows of a scan", scan_ours, scan_plain, kv, c);
    lk_kv_close(kv);
    PQ.finish(c);
    for (int work = DISJOINT; work <= CONTENDED; work++) {
        printf("commits a second: %-26s %10s %10s %7s %10s %9s %9s\n", names[work], "ours", "libpq", "ratio", "threads",
               "aborts", "threads'");
        for (int writers = 1; writers <= 32; writers *= 2) {
            double aborts = 0, none, thread_aborts = 0, best[3] = {0, 0, 0};
            for (int how = 0; how < 9; how++) {
                double x = commits(how % 3, (enum work)work, writers,
                                   how % 3 == 0   ? &aborts
                                   : how % 3 == 1 ? &none
                                                  : &thread_aborts);
                if (x > best[how % 3]) best[how % 3] = x;
            }
            double ours = best[0], plain = best[1], threads = best[2];
            printf("  %2d writers %32s %10.0f %10.0f %6.2fx %10.0f %8.1f%% %8.1f%%\n", writers, "", ours, plain,
                   ours / plain, threads, 100 * aborts, 100 * thread_aborts);
            fflush(stdout);
        }
    }
    return 0;
}
