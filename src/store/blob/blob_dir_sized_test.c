#include "lockstep/base/progress.h"
#include "store/blob/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MIB          LK_LEAF_BYTES
#define MOST         (5 * MIB + 3)
#define LEAVES(size) ((size_t)lk_leaf_count(size))

static unsigned char *pattern(size_t size, uint32_t seed) {
    unsigned char *data = lk_alloc(size + 1);
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) data[i] = (unsigned char)((i + seed) * 2654435761u >> 13);
    return data;
}
static struct lk_blob_writer *create(struct lk_blobs *b, uint64_t size, char *name) {
    struct lk_blob_writer *w;
    struct lk_err e;
    if (lk_blob_create_sized(b, size, &w, &e) != 0) fail_msg("%s", e.message);
    lk_blob_writer_name(w, name);
    return w;
}
static ino_t inode(struct lk_blobs *b, const struct lk_root *root) {
    char path[4096];
    struct stat st;
    assert_int_equal(stat(lk_blob_path(b, root, path), &st), 0);
    assert_int_equal(st.st_mode & 0222, 0); /* read-only */
    return st.st_ino;
}

/* One process from begin to end, a joiner included. */
static int use(struct lk_blobs *b, const void *data, size_t size, struct lk_root *out, struct lk_err *err) {
    struct lk_blob_writer *w, *joiner = NULL;
    char name[LK_BLOB_NAME_MAX];
    struct lk_root leaves[6];
    size_t half = size / 2, n = LEAVES(size);
    int code = lk_blob_create_sized(b, size, &w, err);
    if (code != 0) return code;
    lk_blob_writer_name(w, name);
    code = lk_blob_join(b, name, size, &joiner, err);
    if (code == 0) code = lk_blob_write_at(w, 0, data, half, err);
    if (code == 0) code = lk_blob_write_at(joiner, half, (const char *)data + half, size - half, err);
    if (code == 0) code = lk_blob_sync(w, err);
    if (code == 0) code = lk_blob_sync(joiner, err);
    if (code == 0) code = lk_blob_leaves(joiner, 0, n / 2, leaves, err);
    if (code == 0) code = lk_blob_leaves(w, n / 2, n - n / 2, leaves + n / 2, err);
    lk_blob_abort(joiner);
    if (code == 0) return lk_blob_finish_leaves(w, leaves, out, err);
    lk_blob_abort(w);
    return code;
}

/* --- several processes ------------------------------------------------------------------------------------- */

struct job {
    const char *dir, *name;
    const unsigned char *data;
    size_t size, piece;
    unsigned rank, ranks;
    bool hash;              /* its share of the leaves, else writes its ranges */
    struct lk_root *leaves; /* shared */
};
/* Piece i belongs to rank i mod ranks, and is written from the end. */
static int share(struct lk_blob_writer *w, const struct job *j) {
    int code = 0;
    if (j->hash) {
        size_t n = LEAVES(j->size), from = n * j->rank / j->ranks, to = n * (j->rank + 1) / j->ranks;
        return lk_blob_leaves(w, from, to - from, j->leaves + from, NULL);
    }
    for (size_t i = (j->size + j->piece - 1) / j->piece; code == 0 && i-- > 0;) {
        size_t at = i * j->piece, n = j->size - at < j->piece ? j->size - at : j->piece;
        if (i % j->ranks == j->rank) code = lk_blob_write_at(w, at, j->data + at, n, NULL);
    }
    return code == 0 ? lk_blob_sync(w, NULL) : code;
}
static void joiner_process(void *arg) {
    const struct job *j = arg;
    struct lk_blobs *b;
    struct lk_blob_writer *w;
    int code = lk_blobs_open(j->dir, LK_CREATE, &b, NULL);
    if (code == 0) code = lk_blob_join(b, j->name, j->size, &w, NULL);
    if (code == 0) {
        code = share(w, j);
        lk_blob_abort(w);
    }
    _exit(code == 0 ? 0 : 1);
}
static void all_ranks(struct lk_blob_writer *creator, struct job j) {
    pid_t pids[8];
    fflush(NULL);
    for (j.rank = 1; j.rank < j.ranks; j.rank++) {
        pids[j.rank] = fork();
        assert_true(pids[j.rank] >= 0);
        if (pids[j.rank] == 0) joiner_process(&j);
    }
    j.rank = 0;
    assert_int_equal(share(creator, &j), 0);
    for (unsigned i = 1; i < j.ranks; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}
static void any_processes_give_the_bytes_of_one(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct test_random r = test_random_open("sized");
    struct lk_blobs *b = open_at(*state);
    struct lk_root *leaves = mmap(NULL, 6 * sizeof *leaves, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(leaves != MAP_FAILED);
    size_t sizes[] = {0, 1, MIB - 1, MIB, MIB + 1, MOST, 0, 0};
    static const unsigned ranks[] = {1, 2, 3, 5};
    for (size_t k = 0; k < 8; k++) {
        size_t size = k < 6 ? sizes[k] : test_random_below(&r, MOST);
        unsigned char *data = pattern(size, (uint32_t)k);
        for (size_t p = 0; p < 4; p++) {
            char name[LK_BLOB_NAME_MAX];
            struct lk_root root, expected;
            struct lk_blob_writer *w = create(b, size, name);
            struct job j = {.dir = *state, .name = name, .data = data, .size = size, .ranks = ranks[p], .leaves = leaves};
            j.piece = 1 + test_random_below(&r, 700000);
            if (j.piece < size / 500) j.piece = size / 500;
            all_ranks(w, j);
            j.hash = true;
            all_ranks(w, j);
            assert_int_equal(lk_blob_finish_leaves(w, size ? leaves : NULL, &root, NULL), 0);
            lk_root_of(data, size, &expected);
            assert_true(lk_root_equal(&root, &expected));
            content_is(b, &root, data, size);
            ino_t first = inode(b, &root);
            expected = put(b, data, size); /* the same blob: kept */
            assert_true(lk_root_equal(&root, &expected));
            assert_true(inode(b, &root) == first);
            assert_int_equal(lk_blob_delete(b, &root, NULL), 0);
            assert_int_equal(temporaries(*state), 0);
        }
        lk_free(data);
    }
    munmap(leaves, 6 * sizeof *leaves);
    lk_blobs_close(b);
}

struct thread_job {
    struct lk_blob_writer *w;
    const unsigned char *data;
    size_t from;
    struct lk_root *leaf;
};
static void *write_part(void *arg) {
    struct thread_job *t = arg;
    for (size_t at = t->from; at < t->from + MIB; at += MIB / 8)
        if (lk_blob_write_at(t->w, at, t->data + at, MIB / 8, NULL) != 0) return t;
    return NULL;
}
static void *hash_part(void *arg) {
    struct thread_job *t = arg;
    return lk_blob_leaves(t->w, t->from / MIB, 1, t->leaf, NULL) == 0 ? NULL : t;
}
static void in_threads(void *(*fn)(void *), struct thread_job *jobs) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, fn, &jobs[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
}
static void threads_share_a_writer(void **state) {
    struct lk_blobs *b = open_at(*state);
    unsigned char *data = pattern(4 * MIB, 1);
    char name[LK_BLOB_NAME_MAX];
    struct lk_blob_writer *w = create(b, 4 * MIB, name);
    struct lk_root leaves[4], root;
    struct thread_job jobs[4];
    for (size_t i = 0; i < 4; i++) jobs[i] = (struct thread_job){w, data, i * MIB, &leaves[i]};
    in_threads(write_part, jobs);
    assert_int_equal(lk_blob_sync(w, NULL), 0);
    in_threads(hash_part, jobs);
    assert_int_equal(lk_blob_finish_leaves(w, leaves, &root, NULL), 0);
    content_is(b, &root, data, 4 * MIB);
    lk_free(data);
    lk_blobs_close(b);
}

/* --- arguments --------------------------------------------------------------------------------------------- */

static void ranges(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_err e;
    struct lk_root leaf, root;
    char name[LK_BLOB_NAME_MAX];
    struct lk_blob_writer *w = create(b, 6, name);
    assert_int_equal(lk_blob_write_at(w, 0, "aaaa", 4, &e), 0);
    assert_int_equal(lk_blob_write_at(w, 2, "bb", 2, &e), 0); /* the later one counts; bytes 4 and 5 stay zeros */
    assert_int_equal(lk_blob_write_at(w, 6, "", 0, &e), 0);
    static const struct {
        uint64_t offset;
        size_t size;
    } outside[] = {{6, 1}, {5, 2}, {7, 0}, {0, 7}, {UINT64_MAX, 1}, {1, SIZE_MAX}, {(uint64_t)1 << 63, 1}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(lk_blob_write_at(w, outside[i].offset, "xxxxxxx", outside[i].size, &e), LK_EINVAL);
        assert_non_null(strstr(e.message, "of 6 bytes"));
        assert_non_null(strstr(e.message, name));
    }
    assert_int_equal(lk_blob_sync(w, &e), 0);
    assert_int_equal(lk_blob_leaves(w, 0, 2, &leaf, &e), LK_EINVAL);
    assert_int_equal(lk_blob_leaves(w, 2, 0, &leaf, &e), LK_EINVAL);
    assert_int_equal(lk_blob_leaves(w, 1, SIZE_MAX, &leaf, &e), LK_EINVAL);
    assert_int_equal(lk_blob_leaves(w, 1, 0, &leaf, &e), 0);
    assert_int_equal(lk_blob_leaves(w, 0, 1, &leaf, &e), 0);
    assert_int_equal(lk_blob_finish_leaves(w, &leaf, &root, &e), 0);
    content_is(b, &root, "aabb\0", 6);
    assert_int_equal(lk_blob_create_sized(b, UINT64_MAX, &w, &e), LK_EINVAL);
    assert_null(w);
    assert_int_equal(temporaries(*state), 0);
    lk_blobs_close(b);
}

static void wrong_joiners(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_blob_writer *w, *other;
    struct lk_err e;
    char name[LK_BLOB_NAME_MAX], longest[LK_BLOB_NAME_MAX + 1];
    memset(longest, 'a', LK_BLOB_NAME_MAX);
    longest[LK_BLOB_NAME_MAX] = 0;
    w = create(b, 100, name);
    assert_null(strchr(name, '/'));
    const char *const bad[] = {"", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a b", "a\n", "\xc3\xa4", longest};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lk_blob_join(b, bad[i], 100, &other, &e), LK_EINVAL);
        assert_null(other);
    }
    assert_int_equal(lk_blob_join(b, "1.0.1", 100, &other, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, "1.0.1"));
    longest[LK_BLOB_NAME_MAX - 1] = 0;
    assert_int_equal(lk_blob_join(b, longest, 100, &other, &e), LK_ENOTFOUND);
    static const uint64_t sizes[] = {99, 101, 0, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) assert_int_equal(lk_blob_join(b, name, sizes[i], &other, &e), LK_EINVAL);
    assert_int_equal(lk_blob_join(b, name, 99, &other, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "100 bytes"));
    assert_non_null(strstr(e.message, "of 99"));
    /* Things nobody of ours puts there. */
    char *link = test_join(*state, "tmp/link"), *pipe = test_join(*state, "tmp/pipe"), *dir = test_join(*state, "tmp/dir");
    assert_int_equal(symlink(name, link), 0);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(lk_blob_join(b, "link", 100, &other, &e), LK_EIO);
    assert_int_equal(lk_blob_join(b, "pipe", 0, &other, &e), LK_EINVAL); /* and does not wait for a reader */
    assert_int_equal(lk_blob_join(b, "dir", 100, &other, &e), LK_EIO);
    assert_true(lk_file_exists(pipe)); /* a joiner removes nothing */
    assert_int_equal(unlink(link) + unlink(pipe) + rmdir(dir), 0);
    lk_free(link);
    lk_free(pipe);
    lk_free(dir);
    assert_int_equal(lk_blob_join(b, name, 100, &other, &e), 0);
    lk_blob_abort(other);
    assert_int_equal(temporaries(*state), 1); /* the joiner's abort leaves the file, the creator's takes it */
    lk_blob_abort(w);
    assert_int_equal(temporaries(*state), 0);
    lk_blobs_close(b);
}

struct misuse {
    const char *dir;
    int how;
};
static void do_misuse(void *arg) {
    struct misuse *m = arg;
    struct lk_blobs *b = open_at(m->dir);
    struct lk_blob_writer *streaming, *sized, *joiner;
    char name[LK_BLOB_NAME_MAX];
    struct lk_root root;
    lk_blob_create(b, &streaming, NULL);
    sized = create(b, 1, name);
    lk_blob_join(b, name, 1, &joiner, NULL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    fclose(stderr);
    if (m->how == 0) lk_blob_write(sized, "x", 1, NULL);
    if (m->how == 1) lk_blob_finish(sized, &root, NULL);
    if (m->how == 2) lk_blob_write_at(streaming, 0, "x", 0, NULL);
    if (m->how == 3) lk_blob_sync(streaming, NULL);
    if (m->how == 4) lk_blob_leaves(streaming, 0, 0, &root, NULL);
    if (m->how == 5) lk_blob_finish_leaves(streaming, &root, &root, NULL);
    if (m->how == 6) lk_blob_finish_leaves(joiner, &root, &root, NULL);
    if (m->how == 7) lk_blob_writer_name(streaming, name);
}
static void the_wrong_writer_is_an_assertion(void **state) {
    if (LK_TSAN) skip(); /* fork */
    for (int how = 0; how < 8; how++) {
        struct misuse m = {*state, how};
        int status = test_fork(do_misuse, &m);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}

/* --- what is there already --------------------------------------------------------------------------------- */

static void an_equal_blob_is_kept_a_damaged_one_replaced(void **state) {
    struct lk_blobs *b = open_at(*state);
    unsigned char *data = pattern(MIB + 10, 2);
    struct lk_root root = put(b, data, MIB + 10), again;
    ino_t first = inode(b, &root);
    char path[4096];
    struct stat st;
    const struct timespec past[2] = {{1, 0}, {1, 0}};
    assert_int_equal(utimensat(AT_FDCWD, lk_blob_path(b, &root, path), past, 0), 0);
    assert_int_equal(use(b, data, MIB + 10, &again, NULL), 0);
    assert_true(lk_root_equal(&root, &again));
    assert_true(inode(b, &root) == first);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtim.tv_sec > 1); /* young again */
    assert_int_equal(temporaries(*state), 0);
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\x77\x77", 2, MIB - 1), 2);
    close(fd);
    lk_log_quiet(true);
    assert_int_equal(use(b, data, MIB + 10, &again, NULL), 0);
    lk_log_quiet(false);
    assert_true(lk_root_equal(&root, &again));
    assert_true(inode(b, &root) != first);
    content_is(b, &root, data, MIB + 10);
    assert_int_equal(temporaries(*state), 0);
    lk_free(data);
    lk_blobs_close(b);
}

static void wrong_leaves_show_when_verified(void **state) {
    struct lk_blobs *b = open_at(*state);
    char name[LK_BLOB_NAME_MAX];
    struct lk_blob_writer *w = create(b, 3, name);
    struct lk_root leaf, root;
    struct lk_blob blob;
    lk_leaf_hash("abd", 3, &leaf);
    assert_int_equal(lk_blob_write_at(w, 0, "abc", 3, NULL), 0);
    assert_int_equal(lk_blob_finish_leaves(w, &leaf, &root, NULL), 0);
    assert_int_equal(lk_blob_open(b, &root, true, &blob, NULL), LK_ECORRUPT);
    lk_blobs_close(b);
}

/* --- failures ---------------------------------------------------------------------------------------------- */

static int open_fds(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

#define CALLS_AFTER_RENAME 3 /* the folder's open and sync, close */
static void fails_cleanly_at_every_call(void **state) {
    static const int numbers[] = {ENOSPC, EIO, EACCES};
    struct lk_blobs *b = open_at(*state);
    size_t size = 2 * MIB + 5;
    unsigned char *data = pattern(size, 3);
    struct lk_root root, expected = put(b, data, size); /* its folder is there from now on */
    for (size_t k = 0; k < 3; k++) {
        assert_int_equal(lk_blob_delete(b, &expected, NULL), 0);
        lk__file_fail_at(UINT64_MAX, 0);
        assert_int_equal(use(b, data, size, &root, NULL), 0);
        uint64_t calls = lk__file_call_count();
        /* create: open, fallocate; join: open; 2 writes, 2 syncs; leaves: 2 opens, 2 reads (of 1 leaf and of 2); finish:
         * chmod, sync, rename */
        assert_int_equal(calls, 14 + CALLS_AFTER_RENAME);
        int fds = open_fds();
        for (uint64_t nth = 1; nth <= calls; nth++) {
            struct lk_err e = {0};
            lk_blob_delete(b, &expected, NULL);
            lk__file_fail_at(nth, numbers[k]);
            int code = use(b, data, size, &root, &e);
            lk__file_fail_at(0, 0);
            assert_int_equal(code, LK_EIO);
            assert_non_null(strstr(e.message, strerror(numbers[k])));
            assert_non_null(strstr(e.message, *state));
            assert_int_equal(temporaries(*state), 0);
            assert_int_equal(open_fds(), fds);
            assert_int_equal(lk_blob_exists(b, &expected), nth > calls - CALLS_AFTER_RENAME);
            if (lk_blob_exists(b, &expected)) content_is(b, &expected, data, size);
        }
    }
    lk_free(data);
    lk_blobs_close(b);
}

static void a_failed_writer_stays_failed(void **state) {
    struct lk_blobs *b = open_at(*state);
    for (int at_sync = 0; at_sync < 2; at_sync++) {
        struct lk_err e;
        struct lk_root leaf = {{0}}, root;
        char name[LK_BLOB_NAME_MAX];
        struct lk_blob_writer *w = create(b, 3, name), *joiner;
        assert_int_equal(lk_blob_join(b, name, 3, &joiner, NULL), 0);
        lk__file_fail_at(1, EIO);
        int code = at_sync ? lk_blob_sync(w, &e) : lk_blob_write_at(w, 0, "abc", 3, &e);
        lk__file_fail_at(0, 0);
        assert_int_equal(code, LK_EIO);
        assert_int_equal(lk_blob_write_at(w, 0, "abc", 3, &e), LK_EIO);
        assert_int_equal(lk_blob_sync(w, &e), LK_EIO);
        assert_non_null(strstr(e.message, "failed before"));
        assert_int_equal(lk_blob_leaves(w, 0, 1, &leaf, &e), LK_EIO);
        assert_int_equal(lk_blob_sync(joiner, &e), 0);
        lk_blob_abort(joiner);
        assert_int_equal(lk_blob_finish_leaves(w, &leaf, &root, &e), LK_EIO);
        assert_int_equal(temporaries(*state), 0);
        assert_int_equal(count(b, -1), 0);
    }
    lk_blobs_close(b);
}

static void interruptions_and_no_reservation_do_no_harm(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_root leaf, root;
    struct lk_blob_writer *w;
    static const int without[] = {EOPNOTSUPP, ENOSYS};
    for (int i = 0; i < 2; i++) {
        lk__file_fail_at(2, without[i]); /* fallocate, as NFS 3 has it */
        assert_int_equal(lk_blob_create_sized(b, 5, &w, NULL), 0);
        lk__file_fail_at(1, EINTR);
        assert_int_equal(lk_blob_write_at(w, 0, "abc", 3, NULL), 0);
        assert_int_equal(lk__file_call_count(), 2);
        lk__file_fail_at(2, EINTR);
        assert_int_equal(lk_blob_leaves(w, 0, 1, &leaf, NULL), 0);
        assert_int_equal(lk__file_call_count(), 3);
        lk__file_fail_at(0, 0);
        assert_int_equal(lk_blob_finish_leaves(w, &leaf, &root, NULL), 0);
        content_is(b, &root, "abc\0", 5);
    }
    lk_blobs_close(b);
}

static void a_file_cut_short_is_an_error(void **state) {
    struct lk_blobs *b = open_at(*state);
    char name[LK_BLOB_NAME_MAX];
    struct lk_blob_writer *w = create(b, 5, name);
    struct lk_root leaf;
    char *tmp = test_join(*state, "tmp"), *path = test_join(tmp, name);
    assert_int_equal(truncate(path, 4), 0);
    assert_int_equal(lk_blob_leaves(w, 0, 1, &leaf, NULL), LK_EIO);
    lk_blob_abort(w);
    lk_free(tmp);
    lk_free(path);
    lk_blobs_close(b);
}

static void full_disk(void *dir) {
    struct rlimit limit = {500000, RLIM_INFINITY};
    struct lk_blobs *b = open_at(dir);
    struct lk_blob_writer *w, *full;
    struct lk_err e;
    char *data = lk_calloc(1, 1000000), name[LK_BLOB_NAME_MAX];
    signal(SIGXFSZ, SIG_IGN);
    w = create(b, 1000000, name);
    setrlimit(RLIMIT_FSIZE, &limit);
    bool ok = lk_blob_create_sized(b, 1000000, &full, &e) == LK_EIO && strstr(e.message, "make room") && !full;
    ok = ok && lk_blob_write_at(w, 0, data, 1000, &e) == 0;
    ok = ok && lk_blob_write_at(w, 0, data, 1000000, &e) == LK_EIO; /* a short write, then none */
    lk_blob_abort(w);
    lk_free(data);
    lk_blobs_close(b);
    _exit(ok ? 0 : 1);
}
static void a_full_disk_shows_at_creation(void **state) {
    if (LK_TSAN) skip(); /* fork */
    assert_int_equal(test_fork(full_disk, *state), 0);
    assert_int_equal(temporaries(*state), 0);
}

struct kill_case {
    const char *dir;
    uint64_t nth;
};
static void killed_use(void *arg) {
    struct kill_case *k = arg;
    struct lk_blobs *b = open_at(k->dir);
    struct lk_root root;
    lk__file_kill_at(k->nth);
    use(b, "content", 7, &root, NULL);
    lk_blobs_close(b);
}
static void killed_at_every_call(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_blobs *b = open_at(*state);
    struct lk_root expected;
    lk_root_of("content", 7, &expected);
    for (uint64_t nth = 1;; nth++) {
        struct kill_case k = {*state, nth};
        int status = test_fork(killed_use, &k);
        if (lk_blob_exists(b, &expected)) {
            content_is(b, &expected, "content", 7);
            lk_blob_delete(b, &expected, NULL);
        }
        assert_in_range(temporaries(*state), 0, 1);
        usleep(1500);
        assert_int_equal(count(b, 0), 0);
        assert_int_equal(temporaries(*state), 0);
        if (WIFEXITED(status)) break;
        assert_int_equal(WTERMSIG(status), SIGKILL);
    }
    lk_blobs_close(b);
}

static void joiners_of_a_dead_creator(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_blobs *b = open_at(*state);
    int ends[2], status;
    char name[LK_BLOB_NAME_MAX];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        create(b, 3, name);
        if (write(ends[1], name, sizeof name) != sizeof name) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(ends[0], name, sizeof name), sizeof name);
    struct lk_blob_writer *w, *late;
    struct lk_err e;
    struct lk_root leaf;
    assert_int_equal(lk_blob_join(b, name, 3, &w, NULL), 0);
    usleep(2000);
    assert_int_equal(count(b, 0), 0);
    assert_int_equal(temporaries(*state), 1); /* its creator lives */
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_int_equal(count(b, 0), 0);
    assert_int_equal(temporaries(*state), 0); /* a joiner's descriptor does not keep it */
    assert_int_equal(lk_blob_write_at(w, 0, "abc", 3, &e), 0);
    assert_int_equal(lk_blob_leaves(w, 0, 1, &leaf, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, name));
    assert_int_equal(lk_blob_join(b, name, 3, &late, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, "creator has ended"));
    lk_blob_abort(w);
    close(ends[0]);
    close(ends[1]);
    lk_blobs_close(b);
}

#define NOBODY 65534
static void use_as_nobody(void *dir) {
    struct lk_root root;
    struct lk_blobs *b;
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0 || chdir(dir) != 0) _exit(77);
    umask(077);
    int code = lk_blobs_open(".", LK_CREATE, &b, NULL);
    if (code == 0) code = use(b, "content", 7, &root, NULL);
    char path[4096];
    struct stat st;
    if (code == 0 && (stat(lk_blob_path(b, &root, path), &st) != 0 || (st.st_mode & 0777) != 0400)) code = 1;
    lk_blobs_close(b);
    _exit(code == 0 ? 0 : 1);
}
/* Root may write any file; who joins as an ordinary user may only if its mode says so. */
static void ordinary_users_can_join(void **state) {
    if (LK_TSAN || geteuid() != 0) skip(); /* fork; not root: every test here is this one */
    assert_int_equal(chown(*state, NOBODY, NOBODY), 0);
    int status = test_fork(use_as_nobody, *state);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip(); /* TMPDIR is closed to others */
    assert_int_equal(status, 0);
}

static int use_once(const char *dir, const void *data, size_t size) {
    struct lk_blobs *b;
    struct lk_root root;
    int code = lk_blobs_open(dir, LK_CREATE, &b, NULL);
    if (code != 0) return code;
    code = use(b, data, size, &root, NULL);
    lk_blobs_close(b);
    return code;
}
static void out_of_memory(void **state) {
    unsigned char *data = pattern(MIB + 1, 4);
    FAIL_EACH_ALLOCATION(use_once(*state, data, MIB + 1));
    assert_int_equal(temporaries(*state), 0);
    lk_free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(any_processes_give_the_bytes_of_one),
        TEST_IN_DIR(threads_share_a_writer),
        TEST_IN_DIR(ranges),
        TEST_IN_DIR(wrong_joiners),
        TEST_IN_DIR(the_wrong_writer_is_an_assertion),
        TEST_IN_DIR(an_equal_blob_is_kept_a_damaged_one_replaced),
        TEST_IN_DIR(wrong_leaves_show_when_verified),
        TEST_IN_DIR(fails_cleanly_at_every_call),
        TEST_IN_DIR(a_failed_writer_stays_failed),
        TEST_IN_DIR(interruptions_and_no_reservation_do_no_harm),
        TEST_IN_DIR(a_file_cut_short_is_an_error),
        TEST_IN_DIR(a_full_disk_shows_at_creation),
        TEST_IN_DIR(killed_at_every_call),
        TEST_IN_DIR(joiners_of_a_dead_creator),
        TEST_IN_DIR(ordinary_users_can_join),
        TEST_IN_DIR(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
