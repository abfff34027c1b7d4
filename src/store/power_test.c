/* Power loss: each state that a disk may be in then is made from a log of all writes and syncs, and opened. What was
 * acknowledged is there, nothing is there half; and a sync that is left out is found.
 * LOCKSTEP_TEST_STATES: states that are drawn at each point where they are too many for all (2); LOCKSTEP_TEST_ROUNDS:
 * workloads of other seeds (1). */
#include "lockstep/base/hash.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/blob.h"
#include "store/kv/testing.h"
#include "store/power.h"
#include "store/some_rows.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

/* --- what the program says about itself --------------------------------------------------------------------------- */

enum { COMMITTED, COPY_BEGUN, COPIED, WRITTEN };
struct mark {
    int what, seq, durable, copy;
    struct lk_root root;
};
static void say(struct mark m) {
    static power_mark_fn *mark;
    if (!mark) mark = (power_mark_fn *)dlsym(RTLD_DEFAULT, "power_mark");
    if (!mark) fprintf(stderr, "the recorder is not loaded\n"), _exit(3);
    mark(&m, sizeof m);
}
#define MUST(x)                                                                                                            \
    do {                                                                                                                   \
        if ((x) != 0) fprintf(stderr, "%s: %s\n", #x, test_err.message), _exit(2);                                         \
    } while (0)

/* --- rows --------------------------------------------------------------------------------------------------------- */

/* Transaction `seq` of a store, whoever made it: its number, who it was, and some rows by that. */
struct step {
    int thread, number, seq; /* seq: filled */
    uint64_t seed;
};
static int take_step(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct step *s = arg;
    struct lk_bytes v;
    struct test_random r = {s->seed + (uint64_t)(s->thread * 1000 + s->number), 0};
    char name[32];
    int code = lk_kv_get(t, S("seq"), &v, err), who[2] = {s->thread, s->number};
    s->seq = 1;
    if (code == 0) memcpy(&s->seq, v.data, sizeof s->seq), s->seq++;
    if (code != 0 && code != LK_ENOTFOUND) return code;
    snprintf(name, sizeof name, "h/%06d", s->seq);
    code = lk_kv_put(t, S("seq"), lk_bytes(&s->seq, sizeof s->seq), err);
    if (code == 0) code = lk_kv_put(t, S(name), lk_bytes(who, sizeof who), err);
    for (uint32_t i = 1 + test_random_below(&r, 4); code == 0 && i > 0; i--) code = some_row(t, &r, s->thread, 0, err);
    return code;
}
static int add_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    uint64_t sizes[2] = {key.size, value.size};
    lk_hasher_update(arg, sizes, sizeof sizes);
    lk_hasher_update(arg, key.data, key.size);
    lk_hasher_update(arg, value.data, value.size);
    return 0;
}
/* The root of all rows, and how many transactions they are. */
static int look(struct lk_kv *kv, struct lk_root *root, int *seq, struct lk_err *err) {
    struct lk_kv_txn *t;
    struct lk_bytes v;
    int code = lk_kv_begin(kv, false, &t, err);
    if (code != 0) return code;
    struct lk_hasher *h = lk_hasher_create();
    *seq = 0;
    code = lk_kv_get(t, S("seq"), &v, err);
    if (code == 0 && v.size == sizeof *seq) memcpy(seq, v.data, sizeof *seq);
    if (code == LK_ENOTFOUND) code = 0;
    if (code == 0) code = lk_kv_scan(t, lk_bytes("", 0), lk_bytes("", 0), add_row, h, err);
    lk_hasher_final(h, root);
    lk_hasher_free(h);
    lk_kv_abort(t);
    return code;
}

/* --- workloads, in a process of their own under the recorder -------------------------------------------------------- */

static struct lk_kv *open_store(const char *dir) {
    char url[4096];
    struct lk_kv *kv;
    snprintf(url, sizeof url, "file:%s/store", dir);
    MUST(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    return kv;
}
static void one_step(struct lk_kv *kv, struct step *s, bool durable) {
    MUST(lk_kv_update(kv, take_step, s, durable ? LK_DURABLE : LK_LAZY, NULL, &test_err));
    say((struct mark){.what = COMMITTED, .seq = s->seq, .durable = durable});
}
/* lazy: 0 never, 1 nearly always, 2 now and then. */
static void steps(struct lk_kv *kv, uint64_t seed, int from, int to, int lazy) {
    struct test_random r = {seed ^ 77, 0};
    for (int i = from; i < to; i++) {
        struct step s = {.number = i, .seed = seed};
        one_step(kv, &s, lazy == 0 || test_random_below(&r, lazy == 1 ? 9 : 2) == 0);
        if (lazy && i % 6 == 5) { /* a durable commit of nothing makes the lazy ones durable */
            struct lk_kv_txn *t;
            MUST(lk_kv_begin(kv, true, &t, &test_err));
            MUST(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
            say((struct mark){.what = COMMITTED, .seq = s.seq, .durable = true});
        }
    }
}
static void work_durable(const char *dir, uint64_t seed) {
    struct lk_kv *kv = open_store(dir);
    steps(kv, seed, 0, 14, 0);
    lk_kv_close(kv);
    kv = open_store(dir);
    steps(kv, seed, 14, 17, 0);
    lk_kv_close(kv);
}
static void work_lazy(const char *dir, uint64_t seed) {
    struct lk_kv *kv = open_store(dir);
    steps(kv, seed, 0, 12, 1);
    steps(kv, seed, 12, 22, 2);
    lk_kv_close(kv);
}
struct sharer {
    struct lk_kv *kv;
    struct step s;
};
static void *share(void *arg) {
    struct sharer *w = arg;
    for (w->s.number = 0; w->s.number < 7; w->s.number++) one_step(w->kv, &w->s, w->s.number % 3 == 0);
    return NULL;
}
static void work_shared(const char *dir, uint64_t seed) {
    pthread_t threads[3];
    struct sharer w[3];
    struct lk_kv *kv = open_store(dir);
    for (int i = 0; i < 3; i++) {
        w[i] = (struct sharer){kv, {.thread = i, .seed = seed}};
        pthread_create(&threads[i], NULL, share, &w[i]);
    }
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    lk_kv_close(kv);
}
static void work_compact(const char *dir, uint64_t seed) {
    struct lk_kv *kv = open_store(dir);
    for (int round = 0; round < 3; round++) {
        steps(kv, seed, round * 5, round * 5 + 5, round == 1);
        MUST(lk_kv_compact(kv, &test_err));
    }
    steps(kv, seed, 15, 18, 2);
    lk_kv_close(kv);
}
static void copy_to(struct lk_kv *kv, const char *dir, int copy) {
    char to[4096];
    snprintf(to, sizeof to, "%s/copy%d", dir, copy);
    say((struct mark){.what = COPY_BEGUN, .copy = copy});
    MUST(lk_kv_copy(kv, to, copy, &test_err));
    say((struct mark){.what = COPIED, .copy = copy});
}
static void work_copies(const char *dir, uint64_t seed) {
    pthread_t thread;
    struct lk_kv *kv = open_store(dir);
    steps(kv, seed, 0, 6, 2);
    struct sharer w = {kv, {.thread = 1, .seed = seed}};
    pthread_create(&thread, NULL, share, &w);
    copy_to(kv, dir, 0);
    copy_to(kv, dir, 1);
    pthread_join(thread, NULL);
    lk_kv_close(kv);
}
static void forget_folders(void) {
    power_forget_folders_fn *forget = (power_forget_folders_fn *)dlsym(RTLD_DEFAULT, "power_forget_folders");
    if (!forget) _exit(3);
    forget();
}
/* A process is killed behind the rename of a compaction and before the sync of the folder; another one goes on. */
static void work_killed(const char *dir, uint64_t seed) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct lk_kv *kv = open_store(dir);
        steps(kv, seed, 0, 6, 0);
        forget_folders();
        MUST(lk_kv_compact(kv, &test_err));
        _exit(0);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0) _exit(4);
    struct lk_kv *kv = open_store(dir);
    steps(kv, seed, 6, 12, 2);
    lk_kv_close(kv);
}

/* --- blobs */

static void fill(unsigned char *out, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i++)
        out[i] = (unsigned char)(seed = seed * 6364136223846793005u + 1442695040888963407u, seed >> 56);
}
struct putter {
    struct lk_blobs *blobs;
    uint64_t seed;
    int number; /* -1: those of 0, and nothing is told */
};
static void *put_blobs(void *arg) {
    static const size_t sizes[] = {1, 3000, 20000, 0, 70000, 5, 9000};
    const struct putter *w = arg;
    unsigned char *bytes = malloc(70000);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct lk_root root;
        fill(bytes, sizes[i],
             w->seed + (i % 3 ? (uint64_t)(w->number > 0) * 100 : 0) + i); /* some are the same in all threads */
        MUST(lk_blob_put(w->blobs, bytes, sizes[i], &root, &test_err));
        if (w->number >= 0) say((struct mark){.what = WRITTEN, .root = root});
    }
    free(bytes);
    return NULL;
}
static void put_past_cache(struct lk_blobs *b, uint64_t seed) {
    size_t size = ((size_t)2 << 20) + 4321;
    unsigned char *bytes = malloc(size);
    struct lk_blob_writer *w;
    struct lk_root root;
    fill(bytes, size, seed);
    MUST(lk_blob_create(b, &w, &test_err));
    lk_blob_past_cache(w);
    MUST(lk_blob_write(w, bytes, size, &test_err));
    MUST(lk_blob_finish(w, &root, &test_err));
    say((struct mark){.what = WRITTEN, .root = root});
    free(bytes);
}
/* One blob by two processes. */
static void put_together(struct lk_blobs *b, const char *url, uint64_t seed) {
    size_t size = 200000, half = 90000;
    unsigned char *bytes = malloc(size);
    char name[LK_BLOB_NAME_MAX];
    struct lk_blob_writer *w;
    struct lk_root leaf, root;
    fill(bytes, size, seed);
    MUST(lk_blob_create_sized(b, size, &w, &test_err));
    lk_blob_writer_name(w, name);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct lk_blobs *own;
        struct lk_blob_writer *joined;
        MUST(lk_blobs_open(url, LK_WRITE, &own, &test_err));
        MUST(lk_blob_join(own, name, size, &joined, &test_err));
        MUST(lk_blob_write_at(joined, half, bytes + half, size - half, &test_err));
        MUST(lk_blob_sync(joined, &test_err));
        _exit(0);
    }
    int status;
    MUST(lk_blob_write_at(w, 0, bytes, half, &test_err));
    MUST(lk_blob_sync(w, &test_err));
    if (waitpid(pid, &status, 0) != pid || status != 0) _exit(4);
    MUST(lk_blob_leaves(w, 0, 1, &leaf, &test_err));
    MUST(lk_blob_finish_leaves(w, &leaf, &root, &test_err));
    say((struct mark){.what = WRITTEN, .root = root});
    free(bytes);
}
static void work_blobs(const char *dir, uint64_t seed) {
    char url[4096];
    pthread_t threads[2];
    struct putter w[2];
    struct lk_blobs *b;
    snprintf(url, sizeof url, "file:%s/store/blobs", dir);
    MUST(lk_blobs_open(url, LK_CREATE, &b, &test_err));
    for (int i = 0; i < 2; i++) {
        w[i] = (struct putter){b, seed, i};
        pthread_create(&threads[i], NULL, put_blobs, &w[i]);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    put_together(b, url, seed + 7777);
    put_past_cache(b, seed + 8888);
    lk_blobs_close(b);
}
/* Another process finds a blob's folder, or the blob, that a killed one has made and not synced. */
static void work_blobs_killed(const char *dir, uint64_t seed) {
    for (int i = 0; i < 2; i++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            char url[4096];
            struct lk_blobs *b;
            snprintf(url, sizeof url, "file:%s/store/blobs", dir);
            MUST(lk_blobs_open(url, LK_CREATE, &b, &test_err));
            if (i == 0) forget_folders();
            put_blobs(&(struct putter){b, seed, i == 0 ? -1 : 0});
            _exit(0);
        }
        int status;
        if (waitpid(pid, &status, 0) != pid || status != 0) _exit(4);
    }
}

/* --- what must be there -------------------------------------------------------------------------------------------- */

#define MOST_STEPS 200
#define MOST_BLOBS 64
struct needs {
    int durable, lazy, copy_least[2];
    bool copied[2];
    struct lk_root blobs[MOST_BLOBS];
    int blob_count;
};
struct expected { /* what the rows are after so many transactions */
    struct lk_root after[MOST_STEPS + 1];
    int count;
};
struct report {                     /* shared with the child that looks */
    char problem[2048], about[512]; /* about: the state that is looked at */
    size_t states;
};
struct scenario {
    const char *name;
    void (*work)(const char *dir, uint64_t seed);
    bool blobs, one_lost; /* one_lost: of lazy commits that returned at most the last is lost */
};
static const struct scenario scenarios[] = {
    {"durable", work_durable, false, true}, {"lazy", work_lazy, false, true},
    {"shared", work_shared, false, false},  {"compact", work_compact, false, true},
    {"copies", work_copies, false, false},  {"killed", work_killed, false, true},
    {"blobs", work_blobs, true, false},     {"blobs-killed", work_blobs_killed, true, false},
};

static void note(struct needs *n, const struct mark *m) {
    switch (m->what) {
    case COMMITTED:
        if (m->seq > n->lazy) n->lazy = m->seq;
        if (m->durable && m->seq > n->durable) n->durable = m->seq;
        break;
    case COPY_BEGUN:
        n->copy_least[m->copy] = n->lazy;
        break;
    case COPIED:
        n->copied[m->copy] = true;
        break;
    case WRITTEN:
        if (n->blob_count < MOST_BLOBS) n->blobs[n->blob_count++] = m->root;
        break;
    }
}

static bool problem_is(struct report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool problem_is(struct report *r, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(r->problem, sizeof r->problem, format, list);
    va_end(list);
    return false;
}
#define problem_is(r, ...) problem_is(r, __VA_ARGS__)

/* The rows at a URL are those after `least` transactions or more, and it can be written (not with LK_READ). */
static bool rows_are(const char *url, enum lk_access how, int least, const struct expected *x, struct report *r) {
    struct lk_kv *kv;
    struct lk_err e;
    struct lk_root root;
    struct lk_kv_check check;
    int seq = 0;
    if (lk_kv_open(url, how, &kv, &e) != 0) return problem_is(r, "it does not open: %s", e.message);
    if (look(kv, &root, &seq, &e) != 0) return problem_is(r, "it cannot be read: %s", e.message);
    if (seq < least) return problem_is(r, "it has %d transactions, and %d were acknowledged", seq, least);
    if (seq > x->count) return problem_is(r, "it has %d transactions, and there were %d", seq, x->count);
    if (!lk_root_equal(&root, &x->after[seq])) return problem_is(r, "its rows are not those after %d transactions", seq);
    if (lk_kv_check(kv, &check, &e) != 0) return problem_is(r, "check: %s", e.message);
    struct step s = {.thread = 9, .number = seq, .seed = 1};
    if (how != LK_READ && lk_kv_update(kv, take_step, &s, LK_LAZY, NULL, &e) != 0)
        return problem_is(r, "it cannot be written: %s", e.message);
    if (how != LK_READ && lk_kv_check(kv, &check, &e) != 0) return problem_is(r, "check after a write: %s", e.message);
    lk_kv_close(kv);
    return true;
}
static bool store_is(const char *dir, const struct scenario *c, const struct needs *n, const struct expected *x,
                     struct report *r) {
    char url[4096], path[4096];
    int least = c->one_lost && n->lazy - 1 > n->durable ? n->lazy - 1 : n->durable;
    snprintf(url, sizeof url, "file:%s/store", dir);
    snprintf(path, sizeof path, "%s/store/kv/data.mdb", dir);
    bool reads = r->states % 3 != 0 && lk_file_exists(path); /* which is faster */
    if (!rows_are(url, reads ? LK_READ : LK_CREATE, least, x, r)) return false;
    for (int i = 0; i < 2; i++) {
        snprintf(url, sizeof url, "file:%s/copy%d", dir, i);
        snprintf(path, sizeof path, "%s/copy%d/kv/data.mdb", dir, i);
        if (lk_file_exists(path) ? !rows_are(url, reads ? LK_READ : LK_WRITE, n->copy_least[i], x, r) : n->copied[i])
            return *r->problem ? false : problem_is(r, "copy %d is gone", i);
    }
    return true;
}
struct listing {
    struct lk_blobs *b;
    struct report *r;
};
static int verify(void *arg, const struct lk_root *root, uint64_t size, int64_t modified) {
    struct listing *l = arg;
    struct lk_blob blob;
    struct lk_err e;
    (void)size, (void)modified;
    int code = lk_blob_open(l->b, root, true, &blob, &e);
    if (code != 0) problem_is(l->r, "half a blob has a name: %s", e.message);
    lk_blob_close(&blob);
    return code;
}
/* As lk_blobs_list does, but for the folders that are not there. */
static bool walk(struct listing *l, const char *dir) {
    char path[4096], hex[LK_ROOT_HEX];
    struct lk_root root;
    snprintf(path, sizeof path, "%s/store/blobs", dir);
    DIR *top = opendir(path);
    bool good = true;
    for (struct dirent *d, *e; top && good && (d = readdir(top));) {
        snprintf(path, sizeof path, "%s/store/blobs/%.2s", dir, d->d_name);
        DIR *folder = strlen(d->d_name) == 2 && d->d_name[0] != '.' ? opendir(path) : NULL;
        while (folder && good && (e = readdir(folder))) {
            snprintf(hex, sizeof hex, "%.2s%.62s", d->d_name, e->d_name);
            good = !lk_root_parse(hex, &root) || verify(l, &root, 0, 0) == 0;
        }
        if (folder) closedir(folder);
    }
    if (top) closedir(top);
    return good;
}
static bool blobs_are(const char *dir, const struct needs *n, struct report *r) {
    char url[4096], hex[LK_ROOT_HEX];
    struct listing l = {.r = r};
    struct lk_err e;
    snprintf(url, sizeof url, "file:%s/store/blobs", dir);
    if (lk_blobs_open(url, LK_CREATE, &l.b, &e) != 0) return problem_is(r, "blobs do not open: %s", e.message);
    lk_blobs_use_threads(l.b, 1);
    if (r->states % 8 == 0 && lk_blobs_list(l.b, 0, verify, &l, &e) != 0)
        return *r->problem ? false : problem_is(r, "listing: %s", e.message);
    if (r->states % 8 != 0 && !walk(&l, dir)) return false;
    for (int i = 0; i < n->blob_count; i++)
        if (!lk_blob_exists(l.b, &n->blobs[i]))
            return problem_is(r, "an acknowledged blob is gone: %s", lk_root_hex(&n->blobs[i], hex));
    lk_blobs_close(l.b);
    return true;
}

/* What the recorder leaves out: LMDB's locks of the last life, or rubbish, and room for deleting. */
static void add_leftovers(const char *dir, const struct test_random *from) {
    static const unsigned char rubbish[20000] = {1};
    struct test_random r = *from;
    char path[4096];
    snprintf(path, sizeof path, "%s/store/kv/lock.mdb", dir);
    int fd = test_random_below(&r, 2) ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0 && write(fd, rubbish, test_random_below(&r, 2) ? sizeof rubbish : 100) < 0) _exit(5);
    if (fd >= 0) close(fd);
    snprintf(path, sizeof path, "%s/store/kv/reserve", dir);
    fd = test_random_below(&r, 4) ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && ftruncate(fd, 512 << 10) != 0) _exit(5);
    if (fd >= 0) close(fd);
}

/* --- all states of one workload --------------------------------------------------------------------------------------- */

static size_t number_of(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}
/* On a file system in memory, as thousands of states are written. */
static char *scratch(void) {
    char *dir = lk_strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm/lockstep-power-XXXXXX" : "/tmp/lockstep-power-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}
static char self_path[4096];

static void record_work(const struct scenario *c, const char *swallow, uint64_t seed, const char *root, const char *log) {
    char library[4200], number[32];
    snprintf(library, sizeof library, "%s", self_path);
    for (int i = 0; i < 3; i++) *strrchr(library, '/') = 0; /* BUILD/src/store/power_test */
    strcat(library, "/tests/power/recorder.so");
    snprintf(number, sizeof number, "%llu", (unsigned long long)seed);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("LD_PRELOAD", library, 1);
        setenv("POWER_LOG", log, 1);
        setenv("POWER_ROOT", root, 1);
        if (swallow) setenv("POWER_SWALLOW", swallow, 1);
        execl(self_path, self_path, "work", c->name, root, number, (char *)NULL);
        _exit(6);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) fail_msg("the workload %s ended with status %x", c->name, (unsigned)status);
}

/* What the rows were after each transaction: made again in memory, in the order that the store itself tells. */
static void expect(const char *root, uint64_t seed, struct expected *x) {
    struct lk_kv *model, *kv;
    struct lk_kv_txn *t;
    struct lk_bytes v;
    char *url = lk_asprintf("file:%s/store", root), name[32];
    int seq;
    OK(lk_kv_open("memory:", LK_CREATE, &model, &test_err));
    OK(look(model, &x->after[0], &seq, &test_err));
    OK(lk_kv_open(url, LK_READ, &kv, &test_err));
    t = begin(kv, false);
    for (x->count = 0;; x->count++) {
        struct step s = {.seed = seed};
        int who[2];
        snprintf(name, sizeof name, "h/%06d", x->count + 1);
        if (lk_kv_get(t, S(name), &v, NULL) != 0) break;
        assert_in_range(x->count, 0, MOST_STEPS - 1);
        memcpy(who, v.data, sizeof who);
        s.thread = who[0], s.number = who[1];
        OK(lk_kv_update(model, take_step, &s, LK_LAZY, NULL, &test_err));
        OK(look(model, &x->after[x->count + 1], &seq, &test_err));
        assert_int_equal(seq, x->count + 1);
    }
    lk_kv_abort(t);
    struct lk_root root_now;
    OK(look(kv, &root_now, &seq, &test_err));
    assert_int_equal(seq, x->count);
    assert_true(lk_root_equal(&root_now, &x->after[seq]));
    lk_kv_close(kv), lk_kv_close(model);
    lk_free(url);
}

struct looking {
    const struct scenario *c;
    struct power *p;
    const struct expected *x;
    struct report *r;
    const char *dir;
    uint64_t seed;
    size_t most;
};
static bool look_at_states(const struct looking *l, const struct needs *n) {
    struct power_state s;
    for (size_t i = 0; power_nth(l->p, i, l->most, l->seed, &s); i++) {
        power_describe(l->p, &s, l->r->about, sizeof l->r->about);
        if (lk_dir_make(l->dir, &test_err) != 0) _exit(7);
        power_build(l->p, s, l->dir);
        add_leftovers(l->dir, &s.random);
        if (!(l->c->blobs ? blobs_are(l->dir, n, l->r) : store_is(l->dir, l->c, n, l->x, l->r))) return false;
        if (lk_dir_remove(l->dir, &test_err) != 0) _exit(7);
        l->r->states++;
    }
    return true;
}
/* In a child: who opens a torn file may die of it. */
static void look_at_all(void *arg) {
    const struct looking *l = arg;
    static const int deaths[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    static struct needs n;
    const struct power_event *e;
    const unsigned char *bytes;
    bool good = true;
    lk_log_quiet(true);
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) signal(deaths[i], SIG_DFL); /* cmocka's would go on here */
    while (good && (e = power_next(l->p, &bytes))) {
        if (e->kind == POWER_MARK) note(&n, (const struct mark *)(const void *)bytes);
        bool fewer = e->kind == POWER_SYNC_BEGIN || e->kind == POWER_SYNC_END || e->kind == POWER_WRITTEN;
        if (!fewer) good = look_at_states(l, &n); /* after a sync there are fewer states than before it */
    }
    if (l->p->bad) good = problem_is(l->r, "the log cannot tell all: %s", l->p->bad);
    _exit(good ? 0 : 1);
}

/* The first thing that is wrong, or "". */
static void try_scenario(const struct scenario *c, const char *swallow, uint64_t seed, size_t most, struct report *r) {
    char *dir = scratch(), *root = test_join(dir, "work"), *log = test_join(dir, "log"), *state = test_join(dir, "state");
    static struct expected x;
    struct power p;
    struct stat st;
    memset(r, 0, sizeof *r);
    OK(lk_dir_make(root, &test_err));
    assert_int_equal(stat(root, &st), 0);
    record_work(c, swallow, seed, root, log);
    if (!c->blobs) expect(root, seed, &x);
    power_open(&p, log, st.st_ino);
    if (swallow) assert_true(p.log->swallowed > 0);
    struct looking l = {c, &p, &x, r, state, seed, most};
    int status = test_fork(look_at_all, &l);
    if (WIFSIGNALED(status)) problem_is(r, "who opens it dies by signal %d", WTERMSIG(status));
    if (status != 0 && !*r->problem) fail_msg("the child that looks ended with status %x", (unsigned)status);
    power_close(&p);
    OK(lk_dir_remove(dir, &test_err));
    lk_free(dir), lk_free(root), lk_free(log), lk_free(state);
}

static const struct scenario *scenario_of(const char *name) {
    const struct scenario *c = scenarios;
    while (strcmp(c->name, name) != 0) c++;
    return c;
}
static struct report *shared_report(void) {
    struct report *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(r, MAP_FAILED);
    return r;
}

static void nothing_is_lost(void **state) {
    if (LK_SANITIZED) skip(); /* the recorder comes before them */
    struct report *r = shared_report();
    uint64_t seed = test_seed("nothing_is_lost");
    for (size_t round = 0; round < number_of("LOCKSTEP_TEST_ROUNDS", 1); round++)
        for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
            uint64_t began = lk_clock_ns();
            try_scenario(&scenarios[i], NULL, seed + round, number_of("LOCKSTEP_TEST_STATES", 2), r);
            if (*r->problem)
                fail_msg("%s, seed %llu: %s (%s)", scenarios[i].name, (unsigned long long)(seed + round), r->problem,
                         r->about);
            print_message("  %s: %zu states, %.2f s\n", scenarios[i].name, r->states,
                          (double)(lk_clock_ns() - began) * 1e-9);
        }
    munmap(r, sizeof *r);
    (void)state;
}

/* Each sync that is left out is found. */
static void a_missing_sync_is_found(void **state) {
    /* In a store that is made, fsync 1 is of the empty file, folders 1 to 4 of what leads to it. */
    static const char *const planted[][2] = {
        {"durable", "fdatasync:5"}, {"durable", "fdatasync:1+"},   {"durable", "dsync:1+"},     {"durable", "fsync:1"},
        {"durable", "folder:1+"},   {"durable", "folder:3"},       {"lazy", "fdatasync:5"},     {"lazy", "fdatasync:1+"},
        {"shared", "fdatasync:3"},  {"compact", "fsync:2"},        {"killed", "folder:6"},      {"copies", "fsync:2"},
        {"copies", "fsync:3"},      {"copies", "folder:7"},        {"blobs-killed", "fsync:2"}, {"blobs", "fsync:1+"},
        {"blobs", "folder:1+"},     {"blobs-killed", "folder:4+"},
    };
    (void)state;
    if (LK_SANITIZED) skip();
    struct report *r = shared_report();
    uint64_t seed = test_seed("a_missing_sync_is_found");
    for (size_t i = 0; i < sizeof planted / sizeof *planted; i++) {
        try_scenario(scenario_of(planted[i][0]), planted[i][1], seed, 8, r);
        if (!*r->problem) fail_msg("%s without %s: nobody sees it in %zu states", planted[i][0], planted[i][1], r->states);
        print_message("  %s without %s: %s (%s)\n", planted[i][0], planted[i][1], r->problem, r->about);
    }
    munmap(r, sizeof *r);
}

int main(int argc, char **argv) {
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
    if (n < 0) return 1;
    self_path[n] = 0;
    lk_log_quiet(true);
    if (argc == 5 && strcmp(argv[1], "work") == 0) {
        scenario_of(argv[2])->work(argv[3], strtoull(argv[4], NULL, 10));
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost), cmocka_unit_test(a_missing_sync_is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
