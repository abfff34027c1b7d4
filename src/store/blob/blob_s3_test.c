/* Blobs in a bucket, with a server that does as it should and one that does not; and the cache. The signatures are those of
 * a real server's test, tests/e2e/s3.sh. */
#include "base/faults.h"
#include "store/blob/s3.h"
#include "store/blob/s3_mock.h"
#include "store/blob/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define MIB ((size_t)1 << 20)

static struct lk_blobs *open_bucket(const char *url) {
    struct lk_blobs *b;
    OK(lk_blobs_open(url, LK_CREATE, &b, &test_err));
    return b;
}
static int setup(void **state) {
    *state = test_dir_make();
    setenv("LOCKSTEP_CACHE", *state, 1);
    setenv("LOCKSTEP_S3_PATIENCE", "1.5", 1);
    unsetenv("LOCKSTEP_CACHE_LIMIT");
    unsetenv("LOCKSTEP_S3_ETAG");
    mock_reset();
    return 0;
}
static int teardown(void **state) {
    lk_log_quiet(false);
    test_dir_remove(*state);
    return 0;
}
/* The folder of the one place that a test uses. */
static void place_of(const char *dir, char path[4096]) {
    DIR *d = opendir(dir);
    snprintf(path, 4096, "%s/none", dir);
    for (struct dirent *e; (e = readdir(d));)
        if (strlen(e->d_name) == 16) snprintf(path, 4096, "%s/%s", dir, e->d_name);
    closedir(d);
}
static int in_the_works(const char *dir) {
    char place[4096];
    place_of(dir, place);
    return temporaries(place);
}
static void forget_cache(const char *dir) {
    char place[4096];
    place_of(dir, place);
    for (int i = 0; i < 256; i++) {
        char path[4100];
        snprintf(path, sizeof path, "%s/%02x", place, (unsigned)i);
        OK(lk_dir_remove(path, &test_err));
    }
}
static char *some(size_t size, unsigned seed) {
    char *data = lk_alloc(size + 1);
    uint64_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < size; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        data[i] = (char)(x >> 56);
    }
    return data;
}
static struct mock_object *object_of(const struct lk_root *root, const char *prefix) {
    char key[300], name[LK__BLOB_S3_NAME_BYTES];
    snprintf(key, sizeof key, "%s%s", prefix, lk__blob_s3_name(root, name));
    pthread_mutex_lock(&mock.mutex);
    struct mock_object *o = mock_find(mock.objects, key);
    pthread_mutex_unlock(&mock.mutex);
    return o;
}

/* --- as it should be ---------------------------------------------------------------------------------------------- */

static void there_and_back(void **state) {
    static const size_t sizes[] = {0, 1, 1000, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 19 * MIB + 5, 56 * MIB};
    struct lk_blobs *b = open_bucket("s3://bucket/some/place/");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *data = some(sizes[i], (unsigned)i), path[4096];
        struct lk_root root = put(b, data, sizes[i]), same;
        lk_root_of(data, sizes[i], &same);
        assert_true(lk_root_equal(&root, &same));
        assert_non_null(object_of(&root, "some/place/"));
        assert_int_equal(object_of(&root, "some/place/")->size, sizes[i]);
        assert_memory_equal(object_of(&root, "some/place/")->data, data, sizes[i]);
        int gets = mock.gets;
        content_is(b, &root, data, sizes[i]); /* from the cache */
        assert_int_equal(mock.gets, gets);
        forget_cache(*state);
        content_is(b, &root, data, sizes[i]);
        assert_true(mock.gets > gets);
        assert_true(lk_blob_exists(b, &root));
        assert_int_equal(strncmp(lk_blob_path(b, &root, path), "s3://bucket/some/place/", 23), 0);
        lk_free(data);
    }
    assert_null(mock.uploads);
    assert_int_equal(count(b, -1), 8);
    lk_blobs_close(b);
    assert_int_equal(in_the_works(*state), 0);
}

static void first_bytes(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    static const size_t sizes[] = {0, 3, 9 * MIB};
    for (int i = 0; i < 6; i++) {
        char *data = some(sizes[i / 2], 40u + (unsigned)i), got[5];
        struct lk_root root = put(b, data, sizes[i / 2]);
        size_t n = sizes[i / 2] < 5 ? sizes[i / 2] : 5, size;
        if (i % 2) forget_cache(*state);
        OK(lk_blob_peek(b, &root, got, 5, &size, &test_err));
        assert_int_equal(size, n);
        assert_memory_equal(got, data, n);
        lk_free(data);
    }
    struct lk_root none = {{9}};
    size_t size;
    FAILS(lk_blob_peek(b, &none, &size, 1, &size, &test_err), LK_ENOTFOUND, "is not in s3://bucket/p");
    lk_blobs_close(b);
}

static void deleted_and_absent(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket");
    struct lk_blob blob;
    struct lk_root root = put(b, "abc", 3);
    (void)state;
    assert_non_null(object_of(&root, ""));
    OK(lk_blob_delete(b, &root, &test_err));
    assert_false(lk_blob_exists(b, &root));
    FAILS(lk_blob_delete(b, &root, &test_err), LK_ENOTFOUND, "is not in s3://bucket");
    FAILS(lk_blob_open(b, &root, true, &blob, &test_err), LK_ENOTFOUND, "there is no object ");
    lk_blobs_close(b);
}

struct roots {
    int n;
    struct lk_root last;
};
static int ascending(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct roots *r = arg;
    assert_true(!r->n++ || memcmp(&r->last, root, sizeof *root) < 0);
    assert_true(size <= 8 && modified_ms > lk_clock_wall_ms() - 100000 && modified_ms <= lk_clock_wall_ms());
    r->last = *root;
    return r->n == 100 ? 5 : 0;
}
static void a_list_in_pages(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    struct roots r = {0};
    (void)state;
    for (uint64_t i = 0; i < 40; i++) put(b, &i, sizeof i);
    mock_keep(&mock.objects, "p/readme.txt", "x", 1);
    mock_keep(&mock.objects, "elsewhere/x", "x", 1);
    for (int i = 0; i < 2; i++) {
        r.n = 0, mock.page_of_one = i;
        OK(lk_blobs_list(b, -1, ascending, &r, &test_err));
        assert_int_equal(r.n, 40);
    }
    r.n = 90; /* the function ends it */
    memset(&r.last, 0, sizeof r.last);
    assert_int_equal(lk_blobs_list(b, -1, ascending, &r, &test_err), 5);
    mock.page_of_one = false, mock.stale = true; /* names what is not there, and what is no name */
    r.n = 0;
    OK(lk_blobs_list(b, -1, ascending, &r, &test_err));
    assert_int_equal(r.n, 41);
    struct lk_blob blob;
    struct lk_root none = {{0}};
    FAILS(lk_blob_open(b, &none, false, &blob, &test_err), LK_ENOTFOUND, "there is no object");
    lk_blobs_close(b);
}

/* What was put before is not sent again, and made young when it is old. */
static void put_twice(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    static const size_t sizes[] = {5, 17 * MIB};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *data = some(sizes[i], 3);
        struct lk_root root = put(b, data, sizes[i]);
        struct mock_object *o = object_of(&root, "p/");
        char *before = o->data;
        put(b, data, sizes[i]);
        assert_ptr_equal(object_of(&root, "p/")->data, before);
        o->modified_s -= 100000;
        put(b, data, sizes[i]);
        assert_ptr_equal(object_of(&root, "p/")->data, before); /* by a copy onto itself */
        assert_true(o->modified_s > time(NULL) - 1000);
        mock.copies = false;
        o->modified_s -= 100000;
        put(b, data, sizes[i]);
        assert_true(object_of(&root, "p/")->modified_s > time(NULL) - 1000); /* by sending it */
        lk_log_quiet(true);
        mock_flip(object_of(&root, "p/")->data, sizes[i]); /* damaged on the server, who knows it by its ETag */
        mock_md5("else", 4, object_of(&root, "p/")->etag + 1);
        put(b, data, sizes[i]);
        assert_memory_equal(object_of(&root, "p/")->data, data, sizes[i]);
        lk_log_quiet(false);
        mock.copies = true;
        lk_free(data);
    }
    lk_blobs_close(b);
}

static void a_server_without_conditions(void **state) {
    static const size_t sizes[] = {5, 9 * MIB};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct lk_blobs *b = open_bucket("s3://bucket/p");
        char *data = some(sizes[i], 5);
        mock_go_wrong(MOCK_501, i ? "POST /bucket/p" : "PUT ", i, 1000);
        struct lk_root root = put(b, data, sizes[i]);
        assert_non_null(object_of(&root, "p/"));
        mock_go_wrong(MOCK_FINE, "", 0, 0);
        put(b, data, sizes[i]);
        lk_free(data);
        lk_blobs_close(b);
    }
}

/* --- as it should not be -------------------------------------------------------------------------------------------- */

/* It passes: the blob gets there, and back. */
static void passing_faults(void **state) {
    static const struct {
        enum mock_fault fault;
        const char *on;
        int from, times;
    } cases[] = {
        {MOCK_500, "PUT ", 0, 2},
        {MOCK_SLOWDOWN, "PUT ", 1, 3},
        {MOCK_RESET, "PUT ", 0, 2},
        {MOCK_ETAG, "PUT ", 1, 1},
        {MOCK_BYTES, "PUT ", 1, 1},
        {MOCK_500, "uploads=", 0, 2},
        {MOCK_LOST, "POST /bucket/p", 1, 1},
        {MOCK_FAILED200, "POST /bucket/p", 1, 2},
        {MOCK_GONE, "partNumber=2&", 0, 1},
        {MOCK_GONE, "POST /bucket/p", 1, 1},
        {MOCK_500, "GET ", 0, 3},
        {MOCK_SLOWDOWN, "GET ", 1, 2},
        {MOCK_RESET, "GET ", 0, 2},
        {MOCK_TRUNCATED, "GET ", 0, 2},
        {MOCK_TRUNCATED, "GET ", 2, 1},
        {MOCK_RANGE, "GET ", 1, 2},
    };
    char *data = some(20 * MIB, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_blobs *b = open_bucket("s3://bucket/p");
        mock_reset();
        forget_cache(*state);
        mock_go_wrong(cases[i].fault, cases[i].on, cases[i].from, cases[i].times);
        struct lk_root root;
        if (lk_blob_put(b, data, 20 * MIB, &root, &test_err) != 0) fail_msg("case %zu: %s", i, test_err.message);
        assert_non_null(object_of(&root, "p/"));
        assert_memory_equal(object_of(&root, "p/")->data, data, 20 * MIB);
        forget_cache(*state);
        content_is(b, &root, data, 20 * MIB);
        assert_int_equal(mock.faults, cases[i].times);
        assert_null(mock.uploads);
        lk_blobs_close(b);
    }
    lk_free(data);
}

static void lasting_faults_of_reading(void **state) {
    static const struct {
        enum mock_fault fault;
        int code;
        const char *part;
    } cases[] = {
        {MOCK_500, LK_EIO, "status 500, InternalError"},
        {MOCK_SLOWDOWN, LK_EIO, "SlowDown"},
        {MOCK_RESET, LK_EIO, "no whole answer"},
        {MOCK_TRUNCATED, LK_EIO, "no whole answer"},
        {MOCK_DRIP, LK_EIO, ""},
        {MOCK_HEADERS, LK_EIO, "headers are too long"},
        {MOCK_LONGER, LK_EIO, "refused"},
        {MOCK_DENIED, LK_EIO, "403 AccessDenied; the key may not do that"},
        {MOCK_BYTES, LK_ECORRUPT, "is damaged"},
        {MOCK_RANGE, LK_ECORRUPT, "another range"},
        {MOCK_HUGE, LK_ECORRUPT, "claims a size"},
    };
    setenv("LOCKSTEP_S3_PATIENCE", "0.35", 1);
    char *data = some(20 * MIB, 2);
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    struct lk_root root = put(b, data, 20 * MIB);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct lk_blob blob;
        size_t at = i / 2;
        forget_cache(*state);
        mock_go_wrong(cases[at].fault, "GET ", i % 2 ? 1 : 0, 1000);
        if (cases[at].fault == MOCK_LONGER && i % 2) mock_go_wrong(MOCK_LONGER, "GET ", 2, 1000);
        if (cases[at].fault == MOCK_HUGE && i % 2) continue;
        FAILS(lk_blob_open(b, &root, false, &blob, &test_err), cases[at].code, cases[at].part);
        assert_null(strstr(test_err.message, "HUSH"));
        assert_null(strstr(test_err.message, "TESTKEY"));
        assert_int_equal(in_the_works(*state), 0);
        assert_true(mock.faults > 0);
    }
    mock_go_wrong(MOCK_FINE, "", 0, 0);
    content_is(b, &root, data, 20 * MIB);
    lk_free(data);
    lk_blobs_close(b);
}

static void lasting_faults_of_writing(void **state) {
    static const struct {
        enum mock_fault fault;
        int code;
        const char *part;
    } cases[] = {
        {MOCK_500, LK_EIO, "status 500"},
        {MOCK_RESET, LK_EIO, "no whole answer"},
        {MOCK_ETAG, LK_ECORRUPT, "ETag is not the MD5"},
        {MOCK_BYTES, LK_ECORRUPT, "the MD5"},
        {MOCK_DENIED, LK_EIO, "AccessDenied"},
        {MOCK_HEADERS, LK_EIO, "too long"},
        {MOCK_RUBBISH, LK_ECORRUPT, ""},
    };
    static const size_t sizes[] = {1000, 9 * MIB};
    (void)state;
    mock.conditional = false; /* else the second try finds the first one's object, and that it is right */
    setenv("LOCKSTEP_S3_PATIENCE", "0.35", 1);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct lk_blobs *b = open_bucket("s3://bucket/p");
        char *data = some(sizes[i % 2], (unsigned)i);
        struct lk_root root;
        size_t at = i / 2;
        if (cases[at].fault == MOCK_RUBBISH && i % 2 == 0) goto next; /* an answer to a PUT is not read */
        mock_go_wrong(cases[at].fault, cases[at].fault == MOCK_RUBBISH ? "POST " : "PUT ", 0, 1000);
        FAILS(lk_blob_put(b, data, sizes[i % 2], &root, &test_err), cases[at].code, cases[at].part);
        assert_null(strstr(test_err.message, "HUSH"));
        assert_null(strstr(test_err.message, "TESTKEY"));
        mock_go_wrong(MOCK_FINE, "", 0, 0);
        root = put(b, data, sizes[i % 2]); /* and then it goes on */
        assert_memory_equal(object_of(&root, "p/")->data, data, sizes[i % 2]);
    next:
        lk_free(data);
        lk_blobs_close(b);
    }
}

static void bad_lists(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    int n = 0;
    (void)state;
    put(b, "a", 1);
    mock_go_wrong(MOCK_RUBBISH, "GET ", 0, 1000);
    FAILS(lk_blobs_list(b, -1, add_one, &n, &test_err), LK_ECORRUPT, "the list of s3://bucket/p is not the XML");
    mock_go_wrong(MOCK_HEADERS, "GET ", 0, 1000);
    FAILS(lk_blobs_list(b, -1, add_one, &n, &test_err), LK_EIO, "too long");
    mock_go_wrong(MOCK_500, "GET ", 0, 2);
    OK(lk_blobs_list(b, -1, add_one, &n, &test_err));
    assert_int_equal(n, 1);
    lk_blobs_close(b);
}

static void uploads_that_nobody_ends(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    struct lk_root root = {{7}};
    char key[256], name[LK__BLOB_S3_NAME_BYTES];
    (void)state;
    snprintf(key, sizeof key, "p/%s", lk__blob_s3_name(&root, name));
    static const char *const keys[] = {NULL, NULL, "p/other", "q/x"};
    for (int i = 0; i < 4; i++) {
        struct mock_upload *u = calloc(1, sizeof *u);
        strcpy(u->key, keys[i] ? keys[i] : key);
        snprintf(u->id, sizeof u->id, "x&%d", i);
        u->begun_s = time(NULL) - (i == 1 ? 10 : 10000);
        u->next = mock.uploads, mock.uploads = u;
    }
    assert_int_equal(count(b, -1), 0);
    struct mock_upload *u = mock.uploads;
    for (int i = 3; i >= 0; i--, u = u->next) snprintf(u->id, sizeof u->id, "x%d", i);
    assert_int_equal(count(b, 3600000), 0);
    int left = 0;
    for (u = mock.uploads; u; u = u->next) left++, assert_string_not_equal(u->id, "x0");
    assert_int_equal(left, 3); /* the young one and those that are not ours */
    lk_blobs_close(b);
}

static void wrong_places_and_keys(void **state) {
    static const char *const bad[] = {
        "s3://",           "s3://b",          "s3://Bucket/x",    "s3://bucket//x", "s3://bucket/a/../b",
        "s3://bucket/a b", "s3://bucket/a?b", "s3://bucket/x%2f", "s3://-bucket/x", "s3://bucket/\xc3\xa9",
        "s3://bucket/./a"};
    struct lk_blobs *b;
    struct lk_blob blob;
    struct lk_root root = {{1}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(lk_blobs_open(bad[i], LK_READ, &b, &test_err), LK_EINVAL, "names no place for blobs");
    FAILS(lk_blobs_open("s3://id:HUSH@bucket/x", LK_READ, &b, &test_err), LK_EINVAL, "names no place");
    assert_null(strstr(test_err.message, "HUSH"));
    FAILS(lk_blobs_open("gs://bucket", LK_READ, &b, &test_err), LK_EUNSUPPORTED, "no engine of this build");
    b = open_bucket("s3://other/x");
    FAILS(lk_blob_open(b, &root, false, &blob, &test_err), LK_ENOTFOUND, "no such bucket");
    lk_blobs_close(b);
    unsetenv("AWS_SECRET_ACCESS_KEY");
    b = open_bucket("s3://bucket/x");
    FAILS(lk_blob_open(b, &root, false, &blob, &test_err), LK_EINVAL, "AWS_SECRET_ACCESS_KEY is not");
    setenv("AWS_SECRET_ACCESS_KEY", "HUSHHUSH", 1); /* without being opened again */
    FAILS(lk_blob_open(b, &root, false, &blob, &test_err), LK_ENOTFOUND, "there is no object");
    lk_blobs_close(b);
    setenv("LOCKSTEP_S3_PATIENCE", "long", 1);
    FAILS(lk_blobs_open("s3://bucket", LK_READ, &b, &test_err), LK_EINVAL, "LOCKSTEP_S3_PATIENCE");
}

/* --- the cache -------------------------------------------------------------------------------------------------------- */

static void cache_file(struct lk_blobs *b, const char *dir, const struct lk_root *root, char path[4096]) {
    char place[4096];
    (void)b;
    place_of(dir, place);
    size_t n = strlen(place);
    memcpy(path, place, n);
    path[n] = '/';
    lk__blob_s3_name(root, path + n + 1);
}

static void a_damaged_cache_is_not_believed(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    char *data = some(3 * MIB, 9), path[4096];
    struct lk_root root = put(b, data, 3 * MIB);
    struct lk_blob blob;
    lk_blobs_close(b);
    lk_log_quiet(true);
    for (int i = 0; i < 4; i++) {
        b = open_bucket("s3://bucket/p");
        cache_file(b, *state, &root, path);
        if (i == 3) content_is(b, &root, data, 3 * MIB); /* seen before: found by those who verify */
        assert_int_equal(chmod(path, 0600), 0);
        int fd = open(path, O_RDWR);
        if (i == 0) assert_int_equal(ftruncate(fd, 1000), 0);
        if (i == 1) assert_int_equal(ftruncate(fd, 0), 0);
        if (i >= 2) assert_int_equal(pwrite(fd, "?", 1, 2000000), 1);
        close(fd);
        OK(lk_blob_open(b, &root, i == 3, &blob, &test_err));
        assert_int_equal(blob.size, 3 * MIB);
        assert_memory_equal(blob.data, data, 3 * MIB);
        lk_blob_close(&blob);
        lk_blobs_close(b);
    }
    lk_free(data);
}

static void age(const char *path, int seconds) {
    struct timespec t[2] = {{.tv_sec = time(NULL) - seconds}, {.tv_sec = time(NULL) - seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}
static void the_oldest_go(void **state) {
    setenv("LOCKSTEP_CACHE_LIMIT", "10M", 1);
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    struct lk_root roots[12];
    struct lk_blob mapped;
    char path[4096];
    for (int i = 0; i < 12; i++) {
        char *data = some(MIB, 50u + (unsigned)i);
        roots[i] = put(b, data, MIB);
        cache_file(b, *state, &roots[i], path);
        age(path, 1000 - i);
        lk_free(data);
    }
    OK(lk_blob_open(b, &roots[0], false, &mapped, &test_err)); /* used now */
    cache_file(b, *state, &roots[1], path);
    lk__blob_cache_shrink(((struct lk__blob_s3 *)b)->cache, 5 * MIB);
    int left = 0;
    for (int i = 0; i < 12; i++) {
        cache_file(b, *state, &roots[i], path);
        left += lk_file_exists(path);
        assert_int_equal(lk_file_exists(path), i == 0 || i > 8);
    }
    assert_int_equal(left, 4);
    lk__blob_cache_shrink(((struct lk__blob_s3 *)b)->cache, 0); /* nothing of the last minute */
    cache_file(b, *state, &roots[0], path);
    assert_true(lk_file_exists(path));
    age(path, 1000);
    lk__blob_cache_shrink(((struct lk__blob_s3 *)b)->cache, 0);
    assert_false(lk_file_exists(path));
    char *first = some(MIB, 50);
    assert_memory_equal(mapped.data, first, MIB); /* still there for who has it mapped */
    lk_free(first);
    lk_blob_close(&mapped);
    lk_blobs_close(b);
    static const char *const bad[] = {"x", "10X", "-1", "99999999999999T", "1MB"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("LOCKSTEP_CACHE_LIMIT", bad[i], 1);
        FAILS(lk_blobs_open("s3://bucket", LK_READ, &b, &test_err), LK_EINVAL, "LOCKSTEP_CACHE_LIMIT");
    }
}

static void only_for_its_user(void **state) {
    struct stat st;
    char *path = test_join(*state, "in/it");
    setenv("LOCKSTEP_CACHE", path, 1);
    lk_blobs_close(open_bucket("s3://bucket"));
    assert_true(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700);
    assert_int_equal(chmod(path, 0777), 0);
    lk_blobs_close(open_bucket("s3://bucket"));
    assert_true(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700);
    if (geteuid() == 0) {
        struct lk_blobs *b;
        assert_int_equal(chown(path, 65534, 65534), 0);
        FAILS(lk_blobs_open("s3://bucket", LK_READ, &b, &test_err), LK_EIO, "belongs to user 65534");
    }
    lk_free(path);
}

/* What one bucket's cache holds is not in another bucket. */
static void a_cache_for_each_place(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p"), *other = open_bucket("s3://bucket/q");
    struct lk_root root = put(b, "abc", 3);
    struct lk_blob blob;
    (void)state;
    FAILS(lk_blob_open(other, &root, false, &blob, &test_err), LK_ENOTFOUND, "is not in s3://bucket/q");
    lk_blobs_close(b);
    lk_blobs_close(other);
}

/* Many readers of one blob: it is fetched once. */
struct reading {
    struct lk_root root;
    const char *data;
};
static void *read_it(void *arg) {
    struct reading *r = arg;
    struct lk_blobs *b;
    struct lk_blob blob;
    if (lk_blobs_open("s3://bucket/p", LK_READ, &b, NULL) != 0 || lk_blob_open(b, &r->root, true, &blob, NULL) != 0)
        abort();
    if (blob.size != 9 * MIB || memcmp(blob.data, r->data, blob.size) != 0) abort();
    lk_blob_close(&blob);
    lk_blobs_close(b);
    return NULL;
}
static void fetched_once(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    char *data = some(9 * MIB, 21);
    struct reading r = {put(b, data, 9 * MIB), data};
    pthread_t threads[6];
    forget_cache(*state);
    mock.gets = 0;
    for (int i = 0; i < 6; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_it, &r), 0);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    assert_int_equal(mock.gets, 2);
    assert_int_equal(in_the_works(*state), 0);
    lk_free(data);
    lk_blobs_close(b);
}

/* Killed between any two calls, a reader leaves nothing that another would believe. */
static void fetch_and_die(void *arg) {
    struct reading *r = arg;
    struct lk_blobs *b;
    struct lk_blob blob;
    if (lk_blobs_open("s3://bucket/p", LK_READ, &b, NULL) != 0) _exit(2);
    lk__file_kill_at((uint64_t)r->data[0]);
    _exit(lk_blob_open(b, &r->root, false, &blob, NULL) != 0);
}
static void killed_while_fetching(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    char *data = some(2 * MIB, 22);
    struct lk_root root = put(b, data, 2 * MIB);
    lk_blobs_close(b);
    for (int i = 1;; i++) {
        char nth = (char)i;
        struct reading r = {root, &nth};
        forget_cache(*state);
        int status = test_fork(fetch_and_die, &r);
        b = open_bucket("s3://bucket/p");
        content_is(b, &root, data, 2 * MIB);
        lk_blobs_close(b);
        assert_int_equal(in_the_works(*state), 0);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            assert_true(i > 4);
            break;
        }
    }
    lk_free(data);
}

static void no_room(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p");
    char *data = some(9 * MIB, 23);
    struct lk_root root = put(b, data, 9 * MIB);
    (void)state;
    for (uint64_t nth = 1;; nth += nth < 8 ? 1 : 29) {
        struct lk_blob blob;
        forget_cache(*state);
        lk__file_fail_at(nth, ENOSPC);
        int code = lk_blob_open(b, &root, false, &blob, &test_err);
        uint64_t calls = lk__file_call_count();
        lk__file_fail_at(0, 0);
        if (code == 0) lk_blob_close(&blob);
        if (calls < nth) break;
        if (code != 0) {
            assert_int_equal(code, LK_EIO);
            assert_non_null(strstr(test_err.message, "No space left"));
        }
    }
    lk_free(data);
    lk_blobs_close(b);
}

/* --- several processes, one blob
 * ------------------------------------------------------------------------------------------ */

static void written_by_several(void **state) {
    struct lk_blobs *b = open_bucket("s3://bucket/p"), *other = open_bucket("s3://bucket/p");
    struct lk_blob_writer *w, *joined;
    char name[LK_BLOB_NAME_MAX], *data = some(10 * MIB, 31), *elsewhere = test_dir_make();
    struct lk_root leaves[10], root, same;
    OK(lk_blob_create_sized(b, 10 * MIB, &w, &test_err));
    lk_blob_writer_name(w, name);
    OK(lk_blob_join(other, name, 10 * MIB, &joined, &test_err));
    OK(lk_blob_write_at(w, 0, data, 4 * MIB, &test_err));
    OK(lk_blob_write_at(joined, 4 * MIB, data + 4 * MIB, 6 * MIB, &test_err));
    OK(lk_blob_sync(w, &test_err));
    OK(lk_blob_sync(joined, &test_err));
    OK(lk_blob_leaves(w, 0, 5, leaves, &test_err));
    OK(lk_blob_leaves(joined, 5, 5, leaves + 5, &test_err));
    lk_blob_abort(joined);
    OK(lk_blob_finish_leaves(w, leaves, &root, &test_err));
    lk_root_of(data, 10 * MIB, &same);
    assert_true(lk_root_equal(&root, &same));
    assert_memory_equal(object_of(&root, "p/")->data, data, 10 * MIB);
    lk_blobs_close(other);
    setenv("LOCKSTEP_CACHE", elsewhere, 1); /* as if on another machine */
    other = open_bucket("s3://bucket/p");
    OK(lk_blob_create_sized(b, 100, &w, &test_err));
    lk_blob_writer_name(w, name);
    FAILS(lk_blob_join(other, name, 100, &joined, &test_err), LK_EUNSUPPORTED, "must be of one machine");
    lk_blob_abort(w);
    lk_blobs_close(other);
    lk_blobs_close(b);
    assert_int_equal(in_the_works(*state), 0);
    test_dir_remove(elsewhere);
    lk_free(data);
}

static int put_small(struct lk_blobs *b, struct lk_root *root) {
    return lk_blob_put(b, "something", 9, root, &test_err);
}
static int open_small(struct lk_blobs *b, const struct lk_root *root, const char *dir) {
    struct lk_blob blob;
    forget_cache(dir);
    int code = lk_blob_open(b, root, false, &blob, &test_err);
    if (code == 0) lk_blob_close(&blob);
    return code;
}
/* What is only remembered to be faster may be forgotten. */
#define EACH_ALLOCATION(call)                                                                                              \
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) {                                                                 \
        lk__alloc_fail_at(nth);                                                                                            \
        int code = (call);                                                                                                 \
        made = lk__alloc_count();                                                                                          \
        lk__alloc_fail_at(0);                                                                                              \
        if (code != 0) assert_int_equal(code, LK_ENOMEM);                                                                  \
        if (made < nth) assert_int_equal(code, 0);                                                                         \
    }
static void no_memory(void **state) {
    struct lk_blobs *b;
    struct lk_root root;
    FAIL_EACH_ALLOCATION(lk_blobs_open("s3://bucket/p", LK_READ, &b, &test_err));
    EACH_ALLOCATION(put_small(b, &root));
    EACH_ALLOCATION(open_small(b, &root, *state));
    EACH_ALLOCATION(lk_blobs_list(b, 0, add_one, &(int){0}, &test_err));
    lk_blobs_close(b);
}

/* --- keys that end ------------------------------------------------------------------------------------------------ */

static void write_keys(const char *path, const char *id, const char *more) {
    char text[512];
    int n =
        snprintf(text, sizeof text, "[default]\naws_access_key_id = %s\naws_secret_access_key = HUSHHUSH\n%s", id, more);
    OK(lk_file_write_atomic(path, text, (size_t)n, &test_err));
}
static void accept_only(const char *id, int refusal) {
    pthread_mutex_lock(&mock.mutex);
    mock.key_id = id, mock.refusal = refusal, mock.refused = 0;
    pthread_mutex_unlock(&mock.mutex);
}
static void keys_that_end(void **state) {
    char *path = test_join(*state, "credentials"), *large = some(19 * MIB, 3);
    static const int refusals[] = {400, 403, 0};
    struct lk_root root;
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    write_keys(path, "FIRST", "");
    accept_only("FIRST", 0);
    struct lk_blobs *b = open_bucket("s3://bucket/ends");
    put(b, "one", 3);
    for (int i = 0; i < 3; i++) { /* refused while they are old, and taken once the file has others, also in the middle */
        char id[16], text[16];
        snprintf(id, sizeof id, "KEY%d", i);
        accept_only(id, refusals[i]);
        int n = snprintf(text, sizeof text, "text %d", i);
        assert_int_equal(lk_blob_put(b, text, (size_t)n, &root, &test_err), LK_EIO);
        assert_non_null(strstr(test_err.message, refusals[i] ? "has expired" : "may not do that"));
        assert_null(strstr(test_err.message, "HUSH"));
        assert_int_equal(mock.refused, 1); /* the same keys are not tried again */
        write_keys(path, id, "");
        put(b, text, (size_t)n);
        assert_int_equal(mock.refused, 2);
    }
    accept_only("LARGE", 400); /* many requests at once */
    write_keys(path, "LARGE", "");
    large[0]++;
    root = put(b, large, 19 * MIB);
    forget_cache(*state);
    accept_only("AGAIN", 400);
    write_keys(path, "AGAIN", "");
    content_is(b, &root, large, 19 * MIB);
    assert_true(lk_blob_exists(b, &root));
    lk_blobs_close(b);
    /* before their end, so that no request is refused */
    char ends[64], more[128];
    time_t soon = time(NULL) + 60;
    struct tm t;
    strftime(ends, sizeof ends, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&soon, &t));
    snprintf(more, sizeof more, "aws_expiration = %s\n", ends);
    write_keys(path, "SHORT", more);
    accept_only("LONG", 400);
    b = open_bucket("s3://bucket/ends");
    assert_int_equal(lk_blob_put(b, "x", 1, &root, NULL), LK_EIO); /* loads the keys */
    lk_blobs_close(b);
    accept_only("SHORT", 400);
    b = open_bucket("s3://bucket/ends");
    put(b, "before", 6);
    ((struct lk__blob_s3 *)b)->renewed_ns = 0; /* half a minute later */
    accept_only("LONG", 400);
    write_keys(path, "LONG", "");
    put(b, "behind", 6);
    assert_int_equal(mock.refused, 0);
    lk_blobs_close(b);
    lk_free(path);
    lk_free(large);
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    setenv("AWS_ACCESS_KEY_ID", "TESTKEY", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "HUSHHUSH", 1);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction f;
    } list[] = {
#define T(f) {#f, f}
        T(there_and_back),
        T(deleted_and_absent),
        T(first_bytes),
        T(a_list_in_pages),
        T(put_twice),
        T(a_server_without_conditions),
        T(passing_faults),
        T(lasting_faults_of_reading),
        T(lasting_faults_of_writing),
        T(bad_lists),
        T(uploads_that_nobody_ends),
        T(wrong_places_and_keys),
        T(keys_that_end),
        T(a_damaged_cache_is_not_believed),
        T(the_oldest_go),
        T(only_for_its_user),
        T(fetched_once),
        T(killed_while_fetching),
        T(a_cache_for_each_place),
        T(no_room),
        T(written_by_several),
        T(no_memory),
    };
    struct CMUnitTest tests[sizeof list / sizeof *list];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        tests[i] = (struct CMUnitTest){list[i].name, list[i].f, setup, teardown, NULL};
    mock_open();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mock_close();
    return failed;
}
