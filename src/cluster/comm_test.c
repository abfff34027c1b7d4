/* One process alone; then every scene with real ranks, over shared memory and over messages. */
#include "cluster/testing_ranks.h"
#include "lockstep/base/progress.h"
#include <pthread.h>

static struct lk_comm *comm; /* of a rank */
static int rank, ranks;

static bool with_sharing(void) {
    const char *asked = getenv("LOCKSTEP_SHARED_MEMORY");
    return !(asked && strcmp(asked, "no") == 0);
}

static void join(void) {
    struct lk_err err = {0};
    if (lk_comm_open(&comm, &err)) fprintf(stderr, "%s\n", err.message);
    CHECK(comm);
    int said_rank, said_ranks;
    CHECK(lk_comm_launched(&said_rank, &said_ranks));
    rank = lk_comm_rank(comm);
    ranks = lk_comm_ranks(comm);
    CHECK(rank == said_rank && ranks == said_ranks);
    const char *expected = ranks == 1 ? "self" : with_sharing() ? "shared memory" : "MPI";
    CHECK(strcmp(lk_comm_engine(comm), expected) == 0);
    CHECK(lk_comm_shares(comm) == (ranks == 1 || with_sharing()));
}
static int part(void) {
    lk_comm_close(comm);
    return 0;
}

static unsigned char content(int of, size_t i) {
    return (unsigned char)((size_t)of * 101 + i * 7 + (i >> 8) * 13 + 1);
}
static void fill(unsigned char *p, int of, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = content(of, i);
}
static bool holds(const unsigned char *p, int of, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != content(of, i)) return false;
    return true;
}

/* --- scenes ---------------------------------------------------------------------------------------------- */

/* Parts of size(rank) bytes, checked with a byte behind that must stay. */
static void gather(struct lk_comm *c, const char *name, size_t (*size)(int)) {
    size_t *offsets = lk_calloc((size_t)ranks + 1, sizeof *offsets);
    CHECK(offsets);
    for (int r = 0; r < ranks; r++) offsets[r + 1] = offsets[r] + size(r);
    unsigned char *data = lk_calloc(1, offsets[ranks] + 1);
    CHECK(data);
    fill(data + offsets[rank], rank, size(rank));
    data[offsets[ranks]] = 77;
    CHECK(lk_comm_gather_all(c, name, data, offsets, NULL) == 0);
    for (int r = 0; r < ranks; r++) CHECK(holds(data + offsets[r], r, size(r)));
    CHECK(data[offsets[ranks]] == 77);
    lk_free(data);
    lk_free(offsets);
}
static size_t size_none(int r) {
    return (void)r, 0;
}
static size_t size_equal(int r) {
    return (void)r, 1000;
}
static size_t size_unequal(int r) {
    return (size_t)(r * r) * 333;
} /* rank 0: none */
static size_t size_first(int r) {
    return r ? 0 : 5;
}
static size_t size_large(int r) {
    return ((size_t)3 << 20) / (size_t)(r + 1) + (size_t)r;
}

static int scene_gather(void) {
    join();
    for (int i = 0; i < 20; i++) { /* many, so that the halves of the scratch take turns */
        gather(comm, "none", size_none);
        gather(comm, "equal", size_equal);
        gather(comm, "unequal", size_unequal);
        gather(comm, "first", size_first);
        CHECK(lk_comm_barrier(comm, "between", NULL) == 0);
    }
    gather(comm, "large", size_large);
    unsigned char *data = lk_calloc(1, 5 << 20);
    CHECK(data);
    for (size_t n = 1; n <= (size_t)5 << 20; n = n * 11 + 3) {
        if (rank == 0) fill(data, 9, n);
        CHECK(lk_comm_broadcast(comm, "broadcast", data, n, NULL) == 0);
        CHECK(holds(data, 9, n));
        memset(data, 0, n);
    }
    CHECK(lk_comm_broadcast(comm, "nothing", NULL, 0, NULL) == 0);
    lk_free(data);
    return part();
}

static void agree_about(unsigned failing) {
    struct lk_err err = {0};
    int code = LK_OK, first = 0;
    if (failing >> rank & 1) code = lk_fail(&err, rank == 0 ? LK_EINVAL : LK_ENAN, "I am %d", rank);
    while (first < ranks && !(failing >> first & 1)) first++;
    int got = lk_comm_agree(comm, "agreeing", code, &err);
    if (first == ranks) {
        CHECK(got == LK_OK);
        return;
    }
    char expected[64];
    snprintf(expected, sizeof expected, first && ranks > 1 ? "rank %d: I am %d" : "I am %d", first, first);
    CHECK(got == (first ? LK_ENAN : LK_EINVAL) && err.code == got);
    CHECK(strcmp(err.message, expected) == 0);
}
static int scene_agree(void) {
    join();
    for (unsigned failing = 0; failing < 1u << ranks; failing++) agree_about(failing);
    CHECK(lk_comm_agree(comm, "agreeing", LK_OK, NULL) == LK_OK);
    return part();
}

/* Every pair, both directions, several at once; the sizes differ, so that an order that is not kept shows. */
static int scene_transfers(void) {
    static const size_t sizes[] = {1, 0, 3000001, 17, (size_t)5 << 20, 65536, 2};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    join();
    for (int turn = 0; turn < 2; turn++) {
        struct lk_transfer *t[2][4][COUNT] = {{{0}}};
        unsigned char *in[4][COUNT], *out[COUNT];
        for (int i = 0; i < COUNT; i++) CHECK((out[i] = lk_alloc(sizes[i])));
        for (int i = 0; i < COUNT; i++) fill(out[i], rank * 10 + i, sizes[i]);
        for (int p = 0; p < ranks; p++) {
            for (int i = 0; p != rank && i < COUNT; i++) {
                CHECK((in[p][i] = lk_calloc(1, sizes[i] + 1)));
                CHECK(lk_comm_send(comm, "out", p, out[i], sizes[i], &t[0][p][i], NULL) == 0);
                CHECK(lk_comm_receive(comm, "in", p, in[p][i], sizes[i], &t[1][p][i], NULL) == 0);
            }
        }
        /* A gather in between must not wait for a transfer, nor one for it. */
        if (turn) CHECK(lk_comm_barrier(comm, "in between", NULL) == 0);
        for (int p = ranks - 1; p >= 0; p--) {
            for (int i = COUNT - 1; p != rank && i >= 0; i--) {
                if (i % 2)
                    while (t[1][p][i]) CHECK(lk_comm_test(comm, &t[1][p][i], false, NULL) == 0);
                CHECK(lk_comm_test(comm, &t[1][p][i], true, NULL) == 0 && !t[1][p][i]);
                CHECK(holds(in[p][i], p * 10 + i, sizes[i]));
                lk_free(in[p][i]);
            }
            for (int i = 0; p != rank && i < COUNT; i++)
                CHECK(lk_comm_test(comm, &t[0][p][i], true, NULL) == 0 && !t[0][p][i]);
        }
        for (int i = 0; i < COUNT; i++) lk_free(out[i]);
    }
    return part();
}

/* Rank 0 has its large message taken while rank 1 waits for a mark that comes only after it. */
static int scene_help(void) {
    join();
    size_t n = (size_t)8 << 20;
    unsigned char *data = lk_calloc(1, n);
    struct lk_transfer *t = NULL;
    CHECK(data);
    if (rank == 0) {
        fill(data, 3, n);
        CHECK(lk_comm_send(comm, "large", 1, data, n, &t, NULL) == 0);
        CHECK(lk_comm_test(comm, &t, true, NULL) == 0);
        if (with_sharing()) lk_comm_mark(comm, 5);
    } else if (rank == 1) {
        CHECK(lk_comm_receive(comm, "large", 0, data, n, &t, NULL) == 0);
        if (with_sharing()) CHECK(lk_comm_wait_mark(comm, "mark", 0, 5, NULL) == 0);
        CHECK(lk_comm_test(comm, &t, true, NULL) == 0 && holds(data, 3, n));
    }
    lk_free(data);
    return part();
}

/* A message longer than what waits for it: an error, not a write behind the end. */
/* After a failure that only rank 1 knows of it waits for nobody: nothing can be agreed on, and its end ends the others. */
static int broken_now(void) {
    struct lk_err err = {0};
    struct lk_comm *more = NULL;
    size_t offsets[9] = {0};
    CHECK(lk_comm_broken());
    CHECK(lk_comm_barrier(comm, "barrier", &err) == LK_EIO && strstr(err.message, "lost each other"));
    CHECK(lk_comm_gather_all(comm, "gather", &err, offsets, &err) == LK_EIO);
    CHECK(lk_comm_dup(comm, &more, &err) == LK_EIO && !more);
    CHECK(lk_comm_agree(comm, "agree", LK_OK, &err) == LK_EIO);
    CHECK(lk_comm_agree(comm, "agree", LK_ENOMEM, &err) == LK_ENOMEM); /* its own failure says more */
    lk_comm_close(comm);
    return 7;
}
static int scene_mismatch(void) {
    struct lk_err err = {0};
    struct lk_transfer *t = NULL;
    unsigned char data[101] = {0};
    join();
    CHECK((rank ? lk_comm_receive(comm, "short", 0, data, 100, &t, &err)
                : lk_comm_send(comm, "short", 1, data, 50, &t, &err)) == 0);
    int code = lk_comm_test(comm, &t, true, &err);
    CHECK(rank == 0 ? code == 0 : code == LK_EIO && strstr(err.message, "50 bytes where 100 were expected") && !t);
    if (rank == 1) return broken_now();
    lk_comm_barrier(comm, "never", NULL);
    return 5;
}
static int scene_broken(void) {
    join();
    CHECK(!lk_comm_broken());
    if (rank == 1) {
        lk_comm_break(comm);
        return broken_now();
    }
    lk_comm_barrier(comm, "never", NULL);
    return 5;
}

static int scene_share(void) {
    join();
    struct lk_shared s[2] = {{0}};
    struct lk_err err = {0};
    if (ranks > 1 && !with_sharing()) {
        CHECK(lk_comm_share(comm, "weights", 10, &s[0], &err) == LK_EUNSUPPORTED && strstr(err.message, "weights"));
        CHECK(!s[0].mine && !s[0].engine);
        lk_comm_unshare(comm, &s[0]);
        return part();
    }
    for (int k = 0; k < 2; k++) {
        size_t bytes = k ? size_large(rank) : (size_t)rank * 5000 + 1;
        CHECK(lk_comm_share(comm, "weights", bytes, &s[k], &err) == 0);
        CHECK(s[k].bytes == bytes && s[k].all[rank] == s[k].mine && (uintptr_t)s[k].mine % 4096 == 0);
        for (size_t i = 0; i < bytes; i++) CHECK(((unsigned char *)s[k].mine)[i] == 0);
        fill(s[k].mine, rank + k, bytes);
    }
    CHECK(lk_comm_barrier(comm, "written", NULL) == 0);
    for (int r = 0; r < ranks; r++) {
        CHECK(holds(s[0].all[r], r, (size_t)r * 5000 + 1));
        CHECK(holds(s[1].all[r], r + 1, size_large(r)));
    }
    /* Too much is refused by all before anybody takes it. */
    if (ranks > 1) {
        struct lk_shared huge;
        CHECK(lk_comm_share(comm, "huge", rank == ranks - 1 ? (size_t)1 << 44 : 10, &huge, &err) == LK_ENOMEM);
        CHECK(strstr(err.message, "huge") && !huge.mine);
    }
    lk_comm_unshare(comm, &s[0]);
    CHECK(!s[0].mine);
    CHECK(holds(s[1].all[0], 1, size_large(0))); /* the other is its own */
    lk_comm_unshare(comm, &s[1]);
    return part();
}

/* A ring: each writes when the one before it has marked, then marks itself; what was written before a mark is there after
 * it. */
static int scene_marks(void) {
    enum { TURNS = 2000 };
    join();
    struct lk_shared s = {0};
    if (ranks > 1 && !with_sharing()) return part();
    CHECK(lk_comm_share(comm, "ring", sizeof(uint64_t), &s, NULL) == 0);
    int before = (rank + ranks - 1) % ranks;
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        if (rank > 0) CHECK(lk_comm_wait_mark(comm, "before", before, turn, NULL) == 0);
        if (rank == 0 && turn > 1) CHECK(lk_comm_wait_mark(comm, "round", before, turn - 1, NULL) == 0);
        if (rank > 0) CHECK(*(uint64_t *)s.all[before] == turn * 3 + (uint64_t)before);
        *(uint64_t *)s.mine = turn * 3 + (uint64_t)rank;
        lk_comm_mark(comm, turn);
        CHECK(lk_comm_marked(comm, rank) == turn);
        if (turn == TURNS / 2 && rank == 0) usleep(250000); /* the others fall asleep, longer than one timeout */
    }
    for (int r = 0; r < ranks; r++) {
        CHECK(lk_comm_wait_mark(comm, "end", r, TURNS, NULL) == 0);
        CHECK(lk_comm_marked(comm, r) == TURNS);
    }
    lk_comm_unshare(comm, &s);
    return part();
}

static void *second_thread(void *arg) {
    struct lk_comm *c = arg;
    for (int i = 0; i < 300; i++) gather(c, "second", i % 2 ? size_equal : size_unequal);
    unsigned char *data = lk_calloc(1, 1 << 20);
    CHECK(data);
    if (rank == 0) fill(data, 5, 1 << 20);
    CHECK(lk_comm_broadcast(c, "second", data, 1 << 20, NULL) == 0);
    CHECK(holds(data, 5, 1 << 20));
    lk_free(data);
    return NULL;
}
static int scene_dup(void) {
    struct lk_comm *second = NULL;
    pthread_t thread;
    join();
    CHECK(lk_comm_dup(comm, &second, NULL) == 0);
    CHECK(lk_comm_rank(second) == rank && lk_comm_ranks(second) == ranks);
    CHECK(strcmp(lk_comm_engine(second), lk_comm_engine(comm)) == 0);
    CHECK(pthread_create(&thread, NULL, second_thread, second) == 0);
    for (int i = 0; i < 300; i++) {
        gather(comm, "first", i % 3 ? size_unequal : size_equal);
        agree_about((unsigned)i % (1u << ranks));
    }
    pthread_join(thread, NULL);
    if (ranks == 1 || with_sharing()) { /* marks of one are not those of the other */
        lk_comm_mark(comm, 7);
        lk_comm_mark(second, 3);
        CHECK(lk_comm_barrier(comm, "marked", NULL) == 0);
        for (int r = 0; r < ranks; r++) CHECK(lk_comm_marked(comm, r) == 7 && lk_comm_marked(second, r) == 3);
    }
    lk_comm_close(second);
    gather(comm, "after", size_equal);
    return part();
}

/* One rank finds no memory for what is to be shared: all of them use messages then. */
static int scene_fallback(void) {
    lk_comm_launched(&rank, NULL);
    if (rank == 1) setenv("LOCKSTEP_MEMORY_BYTES", "1000", 1);
    CHECK(lk_comm_open(&comm, NULL) == 0);
    ranks = lk_comm_ranks(comm);
    CHECK(strcmp(lk_comm_engine(comm), "MPI") == 0);
    gather(comm, "unequal", size_unequal);
    return part();
}

/* Not a test: `comm_test scene bench` under mpirun prints what a barrier costs. */
static int scene_bench(void) {
    join();
    for (int round = 0; round < 3; round++) {
        enum { N = 20000 };
        uint64_t a = lk_clock_ns();
        for (int i = 0; i < N; i++) CHECK(lk_comm_barrier(comm, "b", NULL) == 0);
        uint64_t b = lk_clock_ns();
        gather(comm, "large", size_large);
        uint64_t c = lk_clock_ns();
        size_t mb = 64, offsets[65];
        for (int r = 0; r <= ranks; r++) offsets[r] = (size_t)r * (mb << 20) / (size_t)ranks;
        unsigned char *data = lk_calloc(1, mb << 20);
        uint64_t d = lk_clock_ns();
        CHECK(data && lk_comm_gather_all(comm, "64 MB", data, offsets, NULL) == 0);
        uint64_t e = lk_clock_ns();
        lk_free(data);
        if (rank == 0)
            printf("%s, %d ranks: barrier %.2f us, 64 MiB gather %.1f ms (checked large %.1f ms)\n", lk_comm_engine(comm),
                   ranks, (double)(b - a) / N / 1e3, (double)(e - d) / 1e6, (double)(c - b) / 1e6);
    }
    return part();
}

static const struct scene scenes[] = {{"gather", scene_gather},     {"agree", scene_agree}, {"transfers", scene_transfers},
                                      {"help", scene_help},         {"share", scene_share}, {"mismatch", scene_mismatch},
                                      {"broken", scene_broken},     {"marks", scene_marks}, {"dup", scene_dup},
                                      {"fallback", scene_fallback}, {"bench", scene_bench}, {NULL, NULL}};

/* --- tests ----------------------------------------------------------------------------------------------- */

static void alone(void **state) {
    (void)state;
    struct lk_comm *c = NULL, *second = NULL;
    struct lk_shared s;
    struct lk_err err = {0};
    int data = 5;
    size_t offsets[] = {0, sizeof data};
    assert_int_equal(lk_comm_open_self(&c, NULL), 0);
    assert_int_equal(lk_comm_rank(c), 0);
    assert_int_equal(lk_comm_ranks(c), 1);
    assert_string_equal(lk_comm_engine(c), "self");
    assert_int_equal(lk_comm_gather_all(c, "x", &data, offsets, NULL), 0);
    assert_int_equal(lk_comm_broadcast(c, "x", &data, sizeof data, NULL), 0);
    assert_int_equal(lk_comm_barrier(c, "x", NULL), 0);
    assert_int_equal(data, 5);
    assert_int_equal(lk_comm_agree(c, "x", LK_OK, NULL), 0);
    lk_fail(&err, LK_ENAN, "not a number");
    assert_int_equal(lk_comm_agree(c, "x", LK_ENAN, &err), LK_ENAN);
    assert_string_equal(err.message, "not a number");
    assert_int_equal(lk_comm_share(c, "memory", 5000000, &s, NULL), 0);
    assert_ptr_equal(s.all[0], s.mine);
    assert_int_equal(s.bytes, 5000000);
    assert_int_equal((uintptr_t)s.mine % 4096, 0);
    for (size_t i = 0; i < s.bytes; i++) assert_int_equal(((unsigned char *)s.mine)[i], 0);
    memset(s.mine, 1, s.bytes);
    assert_int_equal(lk_comm_dup(c, &second, NULL), 0);
    lk_comm_mark(c, 12);
    assert_int_equal(lk_comm_marked(c, 0), 12);
    assert_int_equal(lk_comm_marked(second, 0), 0);
    assert_int_equal(lk_comm_wait_mark(c, "x", 0, 12, NULL), 0);
    lk_comm_unshare(c, &s);
    assert_null(s.mine);
    assert_int_equal(lk_comm_share(c, "memory", (size_t)1 << 60, &s, &err), LK_ENOMEM);
    assert_non_null(strstr(err.message, "memory: "));
    lk_comm_close(second);
    lk_comm_close(c);
    lk_comm_close(NULL);
}

static int open_dup_share(void) {
    struct lk_comm *c = NULL, *second = NULL;
    struct lk_shared s = {0};
    int code = lk_comm_open_self(&c, NULL);
    if (!code) code = lk_comm_dup(c, &second, NULL);
    if (!code) code = lk_comm_share(c, "x", 100, &s, NULL);
    if (c) lk_comm_unshare(c, &s);
    lk_comm_close(second);
    lk_comm_close(c);
    return code;
}
static void alone_without_memory(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(open_dup_share());
}

static void who_was_launched(void **state) {
    (void)state;
    int r = 5, n = 5;
    struct lk_comm *c = NULL;
    assert_false(lk_comm_launched(&r, &n));
    assert_int_equal(r, 0);
    assert_int_equal(n, 1);
    setenv("SLURM_PROCID", "0", 1); /* a shell inside an allocation is nobody's rank */
    setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    assert_false(lk_comm_launched(NULL, NULL));
    assert_int_equal(lk_comm_open(&c, NULL), 0);
    assert_string_equal(lk_comm_engine(c), "self");
    lk_comm_close(c);
    setenv("PMIX_RANK", "3", 1);
    assert_true(lk_comm_launched(&r, &n));
    assert_int_equal(r, 3);
    assert_int_equal(n, 4);
    setenv("PMIX_RANK", "4", 1); /* there is no such rank */
    assert_false(lk_comm_launched(NULL, NULL));
    unsetenv("PMIX_RANK"), unsetenv("SLURM_PROCID"), unsetenv("SLURM_STEP_NUM_TASKS");
    setenv("OMPI_COMM_WORLD_RANK", "1x", 1);
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_false(lk_comm_launched(NULL, NULL));
    setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    assert_true(lk_comm_launched(&r, &n));
    assert_int_equal(r * 10 + n, 12);
    struct lk_err err = {0};
    setenv("LOCKSTEP_MPI", "/nowhere/lockstep-mpi.so", 1);
    assert_int_equal(lk_comm_open(&c, &err), LK_EUNSUPPORTED);
    assert_null(c);
    assert_non_null(strstr(err.message, "/nowhere/lockstep-mpi.so"));
    unsetenv("LOCKSTEP_MPI"), unsetenv("OMPI_COMM_WORLD_RANK"), unsetenv("OMPI_COMM_WORLD_SIZE");
}

static void play(const char *scene, int least, int most) {
    for (int n = least; n <= most; n++) {
        int status = -1;
        struct lk_err err = {0};
        int code = launch_scene(scene, n, NULL, NULL, &status, &err);
        if (code || status) fail_msg("scene %s with %d ranks: code %d, status %d: %s", scene, n, code, status, err.message);
    }
}
/* Rank 1 ends with 7 while rank 0 waits for it. */
static void play_broken(const char *scene) {
    int status = -1;
    struct lk_err err = {0};
    uint64_t start = lk_clock_ns();
    int code = launch_scene(scene, 2, NULL, NULL, &status, &err);
    if (code || status != 7) fail_msg("scene %s: code %d, status %d: %s", scene, code, status, err.message);
    assert_true(lk_clock_ns() - start < 8000000000u);
}
static void play_all(void) {
    play("gather", 1, 4);
    play("agree", 1, 4);
    play("transfers", 2, 4);
    play("help", 2, 3);
    play_broken("mismatch");
    play_broken("broken");
    play("share", 1, 4);
    play("marks", 1, 4);
    play("dup", 1, 3);
}
static void ranks_with_shared_memory(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    play_all();
    play("fallback", 2, 3);
}
static void ranks_with_messages(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    setenv("LOCKSTEP_SHARED_MEMORY", "no", 1);
    play_all();
    setenv("LOCKSTEP_MPI_CHUNK", "1000", 1); /* as if these were parts of many GB */
    play("gather", 2, 3);
    play("transfers", 2, 2);
    unsetenv("LOCKSTEP_MPI_CHUNK");
    unsetenv("LOCKSTEP_SHARED_MEMORY");
}

int main(int argc, char **argv) {
    int status;
    if (play_scene(argc, argv, scenes, &status)) return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(alone_without_memory),
        cmocka_unit_test(who_was_launched),
        cmocka_unit_test(ranks_with_shared_memory),
        cmocka_unit_test(ranks_with_messages),
    };
    return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}
