#include "lockstep/base/progress.h"
#include "store/blob/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void put_open_delete(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_root root = put(b, "hello", 5), again, expected, empty = put(b, "", 0);
    lk_root_of("hello", 5, &expected);
    assert_true(lk_root_equal(&root, &expected));
    content_is(b, &root, "hello", 5);
    content_is(b, &empty, "", 0);
    char path[4096];
    struct stat st;
    const struct timespec past[2] = {{1, 0}, {1, 0}};
    assert_int_equal(utimensat(AT_FDCWD, lk_blob_path(b, &root, path), past, 0), 0);
    again = put(b, "hello", 5);
    assert_true(lk_root_equal(&root, &again));
    assert_int_equal(count(b, -1), 2);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtim.tv_sec > 1);     /* young again, so that gc keeps it until it is named */
    assert_int_equal(st.st_mode & 0222, 0); /* read-only */
    assert_true(lk_blob_exists(b, &root));
    struct lk_err e;
    assert_int_equal(lk_blob_delete(b, &root, &e), 0);
    assert_false(lk_blob_exists(b, &root));
    assert_int_equal(lk_blob_delete(b, &root, &e), LK_ENOTFOUND);
    struct lk_blob blob;
    assert_int_equal(lk_blob_open(b, &root, false, &blob, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, "4d76842189e75ff7"));
    assert_non_null(strstr(e.message, *state));
    assert_int_equal(temporaries(*state), 0);
    lk_blobs_close(b);
    lk_blobs_close(NULL);
    lk_blob_abort(NULL);
    assert_int_equal(lk_blobs_open("gs://bucket/x", LK_CREATE, &b, &e), LK_EUNSUPPORTED);
    assert_int_equal(lk_blobs_open("", LK_CREATE, &b, &e), LK_EINVAL);
}

static void first_bytes(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_root root = put(b, "abc", 3), none = put(b, "", 0);
    char got[5] = "xxxx";
    size_t size;
    assert_int_equal(lk_blob_peek(b, &root, got, 2, &size, NULL), 0);
    assert_int_equal(size, 2);
    assert_string_equal(got, "abxx");
    assert_int_equal(lk_blob_peek(b, &root, got, 5, &size, NULL), 0);
    assert_int_equal(size, 3);
    assert_int_equal(lk_blob_peek(b, &none, got, 5, &size, NULL), 0);
    assert_int_equal(size, 0);
    root.bytes[0] ^= 1;
    assert_int_equal(lk_blob_peek(b, &root, got, 5, &size, NULL), LK_ENOTFOUND);
    lk_blobs_close(b);
}

static void any_pieces_give_one_root(void **state) {
    struct lk_blobs *b = open_at(*state);
    size_t size = 3000000;
    unsigned char *data = lk_alloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    struct lk_root expected, root;
    lk_root_of(data, size, &expected);
    static const size_t pieces[] = {997, 262143, 262144, 262145, 700000, 3000000};
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
        struct lk_blob_writer *w;
        assert_int_equal(lk_blob_create(b, &w, NULL), 0);
        for (size_t i = 0; i < size; i += pieces[k]) {
            size_t n = size - i < pieces[k] ? size - i : pieces[k];
            assert_int_equal(lk_blob_write(w, data + i, n, NULL), 0);
        }
        assert_int_equal(lk_blob_finish(w, &root, NULL), 0);
        assert_true(lk_root_equal(&root, &expected));
        content_is(b, &root, data, size);
        assert_int_equal(lk_blob_delete(b, &root, NULL), 0);
    }
    lk_free(data);
    lk_blobs_close(b);
}

/* In pieces, as a checkpoint is written. */
static int put_past_cache(struct lk_blobs *b, const char *data, size_t size, size_t piece, struct lk_root *root,
                          struct lk_err *e) {
    struct lk_blob_writer *w;
    int code = lk_blob_create(b, &w, e);
    if (code != 0) return code;
    lk_blob_past_cache(w);
    for (size_t i = 0; i < size; i += piece)
        if ((code = lk_blob_write(w, data + i, size - i < piece ? size - i : piece, e)) != 0) {
            lk_blob_abort(w);
            return code;
        }
    return lk_blob_finish(w, root, e);
}
static void fill(char *data, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i++) data[i] = (char)((i + seed) * 2654435761u >> 13);
}
static void past_the_cache_the_same_blob(void **state) {
    struct lk_blobs *b = open_at(*state);
    static const size_t sizes[] = {0, 1, 1 << 20, (1 << 20) + 1, 3000000, 9500000}, pieces[] = {1000003, 4096, 9500000};
    char *data = lk_alloc(9500000);
    fill(data, 9500000, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
            struct lk_root root, expected;
            lk_root_of(data, sizes[i], &expected);
            assert_int_equal(put_past_cache(b, data, sizes[i], pieces[k], &root, NULL), 0);
            assert_true(lk_root_equal(&root, &expected));
            content_is(b, &root, data, sizes[i]);
            assert_int_equal(lk_blob_delete(b, &root, NULL), 0);
        }
    lk_free(data);
    lk_blobs_close(b);
}
/* Asked for twice it is one wish; after the first write it is none, however large that was. */
static void past_the_cache_before_the_first_write(void **state) {
    struct lk_blobs *b = open_at(*state);
    size_t size = 3000001, first = 300001;
    char *data = lk_alloc(size);
    fill(data, size, 1);
    for (int late = 0; late < 2; late++) {
        struct lk_blob_writer *w;
        struct lk_root root;
        assert_int_equal(lk_blob_create(b, &w, NULL), 0);
        if (!late) lk_blob_past_cache(w), lk_blob_past_cache(w);
        assert_int_equal(lk_blob_write(w, data, first, NULL), 0);
        lk_blob_past_cache(w);
        assert_int_equal(lk_blob_write(w, data + first, size - first, NULL), 0);
        assert_int_equal(lk_blob_finish(w, &root, NULL), 0);
        content_is(b, &root, data, size);
    }
    lk_free(data);
    lk_blobs_close(b);
}
/* Some file systems refuse it when the flag is set; then nothing is written past the cache. */
static bool direct_is_accepted(const char *dir) {
    char *path = test_join(dir, "probe");
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    bool accepted = fcntl(fd, F_SETFL, O_DIRECT) == 0;
    close(fd);
    unlink(path);
    lk_free(path);
    return accepted;
}
/* EINVAL is what a file system says that has no such writes: then it goes through the cache. */
static void past_the_cache_it_fails_cleanly(void **state) {
    struct lk_blobs *b = open_at(*state);
    size_t size = 3500000;
    char *data = lk_alloc(size);
    static const int errors[] = {ENOSPC, EINVAL};
    for (int i = 0; i < 2; i++) {
        int held = 0;
        for (uint64_t nth = 1;; nth++) {
            struct lk_root root, expected;
            struct lk_err e = {0};
            fill(data, size, (unsigned)nth);
            lk_root_of(data, size, &expected);
            lk__file_fail_at(nth, errors[i]);
            int code = put_past_cache(b, data, size, 700000, &root, &e);
            uint64_t calls = lk__file_call_count();
            lk__file_fail_at(0, 0);
            assert_int_equal(temporaries(*state), 0);
            if (lk_blob_exists(b, &expected)) content_is(b, &expected, data, size);
            if (calls < nth) break;
            assert_true(code == LK_EIO || code == 0);
            if (code == 0) held++;
        }
        if (i == 0)
            assert_int_equal(held, 0);
        else if (direct_is_accepted(*state))
            assert_true(held >= 3); /* the writes of whole buffers */
        else
            print_message("no O_DIRECT here\n");
    }
    lk_free(data);
    lk_blobs_close(b);
}

/* Who may not write learns it at the opening, also where everything is there. */
#define NOBODY 65534
static void open_as_nobody(void *dir) {
    struct lk_blobs *b;
    struct lk_err e;
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) _exit(77);
    for (enum lk_access how = LK_WRITE; how <= LK_CREATE; how++)
        if (lk_blobs_open(dir, how, &b, &e) != LK_EIO || !strstr(e.message, "no permission to write")) _exit(1);
    if (lk_blobs_open(dir, LK_READ, &b, &e) != 0) _exit(2);
    lk_blobs_close(b);
    _exit(0);
}
static void no_permission_shows_at_once(void **state) {
    if (LK_TSAN || geteuid() != 0) skip(); /* fork; who else could write, when we may not? */
    lk_blobs_close(open_at(*state));
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(test_fork(open_as_nobody, *state), 0);
}

/* Hashed by several threads. */
static void damage_in_a_large_blob_is_found(void **state) {
    struct lk_blobs *b = open_at(*state);
    size_t size = ((size_t)9 << 20) + 12345;
    char *data = lk_alloc(size), path[4096];
    fill(data, size, 7);
    struct lk_root root = put(b, data, size);
    content_is(b, &root, data, size);
    static const size_t places[] = {0, (1 << 20) - 1, 5000000, ((size_t)9 << 20) + 12344};
    lk_blob_path(b, &root, path);
    assert_int_equal(chmod(path, 0600), 0);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct lk_blob blob;
        struct lk_err e;
        char flipped = data[places[i]] ^ 1;
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0 && pwrite(fd, &flipped, 1, (off_t)places[i]) == 1);
        assert_int_equal(lk_blob_open(b, &root, true, &blob, &e), LK_ECORRUPT);
        assert_true(pwrite(fd, data + places[i], 1, (off_t)places[i]) == 1);
        close(fd);
        lk_blobs_use_threads(b, (int)i); /* 0: the default */
        content_is(b, &root, data, size);
    }
    lk_free(data);
    lk_blobs_close(b);
}

static void damage_is_found_and_named(void **state) {
    struct lk_blobs *b = open_at(*state);
    size_t size = (1 << 20) + 1000;
    char *data = lk_calloc(1, size), path[4096], hex[LK_ROOT_HEX];
    struct lk_root root = put(b, data, size);
    lk_blob_path(b, &root, path);
    struct lk_blob blob;
    struct lk_err e;
    static const off_t places[] = {0, 1048575, 1048576, 1049575};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(chmod(path, 0600), 0);
        int fd = open(path, O_WRONLY);
        if (i < 4)
            assert_int_equal(pwrite(fd, "\x10", 1, places[i]), 1);
        else
            assert_int_equal(ftruncate(fd, (off_t)size - 1), 0);
        close(fd);
        assert_int_equal(lk_blob_open(b, &root, true, &blob, &e), LK_ECORRUPT);
        assert_null(blob.data);
        assert_non_null(strstr(e.message, lk_root_hex(&root, hex)));
        assert_non_null(strstr(e.message, path));
        assert_int_equal(lk_blob_open(b, &root, false, &blob, &e), 0); /* not looked at */
        lk_blob_close(&blob);
        /* Writing the same content again heals it. */
        lk_log_quiet(true);
        put(b, data, size);
        lk_log_quiet(false);
        content_is(b, &root, data, size);
    }
    lk_free(data);
    lk_blobs_close(b);
}

static int remember(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct lk_buf *seen = arg;
    assert_true(size < 100);
    assert_in_range(modified_ms, lk_clock_wall_ms() - 600000, lk_clock_wall_ms() + 5000);
    lk_buf_append(seen, root, sizeof *root);
    return seen->size == 70 * sizeof *root ? 5 : 0;
}
static void lists_in_order_of_root(void **state) {
    struct lk_blobs *b = open_at(*state);
    for (int i = 0; i < 80; i++) put(b, &i, sizeof i);
    char *foreign = test_join(*state, "00");
    assert_int_equal(lk_dir_make(foreign, NULL), 0);
    char *file = test_join(foreign, "README");
    assert_int_equal(lk_file_write_atomic(file, "x", 1, NULL), 0); /* not ours: passed over */
    struct lk_buf seen = LK_BUF_INIT;
    assert_int_equal(lk_blobs_list(b, -1, remember, &seen, NULL), 5); /* the callback's answer ends it */
    assert_int_equal(seen.size, 70 * 32);
    for (size_t i = 32; i < seen.size; i += 32) assert_true(memcmp(seen.data + i - 32, seen.data + i, 32) < 0);
    assert_int_equal(count(b, -1), 80);
    lk_buf_release(&seen);
    lk_free(foreign);
    lk_free(file);
    lk_blobs_close(b);
}

static void only_dead_temporaries_go(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_blob_writer *w, *aborted;
    struct lk_root root;
    assert_int_equal(lk_blob_create(b, &w, NULL), 0);
    assert_int_equal(lk_blob_create(b, &aborted, NULL), 0);
    lk_blob_abort(aborted);
    assert_int_equal(lk_blob_write(w, "abc", 3, NULL), 0);
    char *dead = test_join(*state, "tmp/99999.0.1");
    assert_int_equal(lk_file_write_atomic(dead, "x", 1, NULL), 0);
    assert_int_equal(temporaries(*state), 2);
    assert_int_equal(count(b, -1), 0);
    assert_int_equal(count(b, 3600000), 0);
    assert_int_equal(temporaries(*state), 2);
    usleep(2000);
    assert_int_equal(count(b, 0), 0);
    assert_int_equal(temporaries(*state), 1); /* w is alive */
    assert_false(lk_file_exists(dead));
    assert_int_equal(lk_blob_finish(w, &root, NULL), 0);
    content_is(b, &root, "abc", 3);
    lk_free(dead);
    lk_blobs_close(b);
}

static void fails_cleanly_at_every_call(void **state) {
    struct lk_blobs *b = open_at(*state);
    char *data = lk_calloc(1, 600000);
    for (uint64_t nth = 1;; nth++) {
        struct lk_root root, expected;
        struct lk_err e = {0};
        data[0] = (char)nth;
        lk_root_of(data, 600000, &expected);
        lk__file_fail_at(nth, ENOSPC);
        int code = lk_blob_put(b, data, 600000, &root, &e);
        uint64_t calls = lk__file_call_count();
        lk__file_fail_at(0, 0);
        assert_int_equal(temporaries(*state), 0);
        if (lk_blob_exists(b, &expected)) content_is(b, &expected, data, 600000); /* never half of one */
        if (calls < nth) {
            assert_int_equal(code, 0);
            break;
        }
        assert_int_equal(code, LK_EIO);
        assert_non_null(strstr(e.message, strerror(ENOSPC)));
    }
    lk_free(data);
    lk_blobs_close(b);
}

struct kill_case {
    const char *dir;
    uint64_t nth;
};
static void killed_put(void *arg) {
    struct kill_case *k = arg;
    struct lk_blobs *b = open_at(k->dir);
    struct lk_root root;
    lk__file_kill_at(k->nth);
    lk_blob_put(b, "content", 7, &root, NULL);
    lk_blobs_close(b);
}
static void killed_at_every_call(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_blobs *b = open_at(*state);
    struct lk_root expected;
    lk_root_of("content", 7, &expected);
    for (uint64_t nth = 1;; nth++) {
        struct kill_case k = {*state, nth};
        int status = test_fork(killed_put, &k);
        if (lk_blob_exists(b, &expected)) {
            content_is(b, &expected, "content", 7);
            lk_blob_delete(b, &expected, NULL);
        }
        usleep(1500);
        assert_int_equal(count(b, 0), 0);
        assert_int_equal(temporaries(*state), 0); /* the dead writer's was cleaned */
        if (WIFEXITED(status)) break;
        assert_int_equal(WTERMSIG(status), SIGKILL);
    }
    lk_blobs_close(b);
}

static void full_disk(void *dir) {
    struct rlimit limit = {2500000, 2500000};
    struct lk_blobs *b = open_at(dir);
    struct lk_err e;
    struct lk_root root;
    char *data = lk_calloc(1, 4000000);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    int code = lk_blob_put(b, data, 4000000, &root, &e);
    bool ok = code == LK_EIO && strstr(e.message, "File too large");
    code = put_past_cache(b, data, 4000000, 4000000, &root, &e);
    ok = ok && code == LK_EIO && strstr(e.message, "File too large") && lk_blob_put(b, data, 1000, &root, &e) == 0;
    lk_free(data);
    lk_blobs_close(b);
    _exit(ok ? 0 : 1);
}
static void a_full_disk(void **state) {
    if (LK_TSAN) skip(); /* fork */
    assert_int_equal(test_fork(full_disk, *state), 0);
    struct lk_blobs *b = open_at(*state);
    assert_int_equal(count(b, -1), 1);
    assert_int_equal(temporaries(*state), 0);
    lk_blobs_close(b);
}

static void a_failed_writer_stays_failed(void **state) {
    struct lk_blobs *b = open_at(*state);
    struct lk_blob_writer *w;
    struct lk_err e;
    struct lk_root root;
    char *data = lk_calloc(1, 1 << 20);
    assert_int_equal(lk_blob_create(b, &w, &e), 0);
    lk__file_fail_at(1, EIO);
    assert_int_equal(lk_blob_write(w, data, 1 << 20, &e), LK_EIO);
    lk__file_fail_at(0, 0);
    assert_int_equal(lk_blob_write(w, data, 1, &e), LK_EIO);
    assert_int_equal(lk_blob_finish(w, &root, &e), LK_EIO);
    assert_int_equal(temporaries(*state), 0);
    assert_int_equal(count(b, -1), 0);
    lk_free(data);
    lk_blobs_close(b);
}

static void *put_many(void *arg) {
    struct lk_blobs *b = arg;
    for (int i = 0; i < 25; i++) {
        char data[1000];
        struct lk_root root;
        memset(data, i, sizeof data); /* every thread the same ones, at the same time */
        if (lk_blob_put(b, data, sizeof data, &root, NULL) != 0) return (void *)1;
        if (!lk_blob_exists(b, &root)) return (void *)2;
    }
    return NULL;
}
static void writers_at_once(void **state) {
    struct lk_blobs *b = open_at(*state);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) assert_int_equal(pthread_create(&threads[i], NULL, put_many, b), 0);
    for (int i = 0; i < 6; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(count(b, 0), 25);
    assert_int_equal(temporaries(*state), 0);
    lk_blobs_close(b);
}

static int use(const char *dir) {
    struct lk_blobs *b;
    struct lk_root root;
    struct lk_blob blob;
    int n = 0, code = lk_blobs_open(dir, LK_CREATE, &b, NULL);
    if (code != 0) return code;
    code = lk_blob_put(b, "abc", 3, &root, NULL);
    if (code == 0) code = lk_blob_open(b, &root, true, &blob, NULL);
    if (code == 0) {
        lk_blob_close(&blob);
        code = lk_blobs_list(b, 0, add_one, &n, NULL);
    }
    if (code == 0) code = lk_blob_delete(b, &root, NULL);
    lk_blobs_close(b);
    return code;
}
static void out_of_memory(void **state) {
    FAIL_EACH_ALLOCATION(use(*state));
    assert_int_equal(temporaries(*state), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(put_open_delete),
        TEST_IN_DIR(first_bytes),
        TEST_IN_DIR(any_pieces_give_one_root),
        TEST_IN_DIR(past_the_cache_the_same_blob),
        TEST_IN_DIR(no_permission_shows_at_once),
        TEST_IN_DIR(past_the_cache_before_the_first_write),
        TEST_IN_DIR(past_the_cache_it_fails_cleanly),
        TEST_IN_DIR(damage_in_a_large_blob_is_found),
        TEST_IN_DIR(damage_is_found_and_named),
        TEST_IN_DIR(lists_in_order_of_root),
        TEST_IN_DIR(only_dead_temporaries_go),
        TEST_IN_DIR(fails_cleanly_at_every_call),
        TEST_IN_DIR(killed_at_every_call),
        TEST_IN_DIR(a_full_disk),
        TEST_IN_DIR(a_failed_writer_stays_failed),
        TEST_IN_DIR(writers_at_once),
        TEST_IN_DIR(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
