#include "base/syscalls.h"
#include "data/source.h"
#include "data/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

static char dir[64];

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/lk-source-XXXXXX", temporary_root());
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return lk_dir_remove(dir, &test_err);
}

static void endings_decide(void **state) {
    (void)state;
    assert_int_equal(lk__source_kind("a.txt"), LK__PLAIN);
    assert_int_equal(lk__source_kind("a"), LK__PLAIN);
    assert_int_equal(lk__source_kind("-"), LK__PLAIN);
    assert_int_equal(lk__source_kind("x/a.jsonl"), LK__JSONL);
    assert_int_equal(lk__source_kind("a.jsonl.gz"), LK__JSONL);
    assert_int_equal(lk__source_kind("a.jsonl.zst"), LK__JSONL);
    assert_int_equal(lk__source_kind("a.jsonl.bz2"), LK__PLAIN);
    assert_int_equal(lk__source_packing("a.txt.gz"), LK__GZIP);
    assert_int_equal(lk__source_packing("a.zst"), LK__ZSTD);
    assert_int_equal(lk__source_packing(".gz"), LK__UNPACKED);
    assert_string_equal(lk__source_name("/x/y.txt"), "y.txt");
    assert_string_equal(lk__source_name("y.txt"), "y.txt");
    assert_string_equal(lk__source_name("-"), "-");
}

static void pack_gzip(const void *data, size_t size, struct lk_buf *out) {
    z_stream z = {0};
    unsigned char piece[4096];
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)data;
    z.avail_in = (unsigned)size;
    int rc;
    do {
        z.next_out = piece;
        z.avail_out = sizeof piece;
        rc = deflate(&z, Z_FINISH);
        OK(lk_buf_append(out, piece, sizeof piece - z.avail_out));
    } while (rc == Z_OK);
    assert_int_equal(rc, Z_STREAM_END);
    deflateEnd(&z);
}

static void pack_zstd(const void *data, size_t size, struct lk_buf *out) {
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    size_t room = ZSTD_compressBound(size);
    OK(lk_buf_reserve(out, room));
    char *to = lk_alloc(room);
    size_t n = ZSTD_compress2(c, to, room, data, size);
    assert_false(ZSTD_isError(n));
    OK(lk_buf_append(out, to, n));
    lk_free(to);
    ZSTD_freeCCtx(c);
}

static void pack(enum lk__packing packing, const void *data, size_t size, struct lk_buf *out) {
    if (packing == LK__GZIP)
        pack_gzip(data, size, out);
    else
        pack_zstd(data, size, out);
}

static int collect(void *arg, const void *data, size_t size, struct lk_err *e) {
    return lk_buf_append(arg, data, size) ? lk_fail(e, LK_ENOMEM, "out of memory") : 0;
}

static char *make_text(size_t size) {
    char *text = lk_alloc(size + 32);
    for (size_t n = 0; n < size;) n += (size_t)sprintf(text + n, "line %llu\n", (unsigned long long)random_below(100000));
    return text;
}

static void members_and_frames_join(void **state) {
    (void)state;
    random_begin("members_and_frames_join");
    size_t size = 700000;
    char *text = make_text(size);
    for (int packing = LK__GZIP; packing <= LK__ZSTD; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__packing)packing, text, 300000, &packed);
        pack((enum lk__packing)packing, text, 0, &packed); /* an empty one between */
        pack((enum lk__packing)packing, text + 300000, size - 300000, &packed);
        static const size_t chunks[] = {1, 2, 7, 4096, 1 << 20};
        for (int i = LK_SANITIZED ? 2 : 0; i < 5; i++) {
            struct lk_buf out = LK_BUF_INIT;
            OK(lk__unpack((enum lk__packing)packing, packed.data, packed.size, chunks[i], "x", collect, &out, &test_err));
            assert_int_equal(out.size, size);
            assert_memory_equal(out.data, text, size);
            lk_buf_release(&out);
        }
        lk_buf_release(&packed);
    }
    lk_free(text);
}

/* However it is cut or changed: an error, or the text as it was (a header's bytes may not matter). */
static void damage_is_an_error(void **state) {
    (void)state;
    random_begin("damage_is_an_error");
    size_t size = 20000;
    char *text = make_text(size);
    for (int packing = LK__GZIP; packing <= LK__ZSTD; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__packing)packing, text, size, &packed);
        for (size_t n = 0; n < packed.size; n += n < 40 || n + 40 > packed.size ? 1 : 101) {
            struct lk_buf out = LK_BUF_INIT;
            FAILS(lk__unpack((enum lk__packing)packing, packed.data, n, 4096, "some.gz", collect, &out, &test_err),
                  LK_EINVAL, "some.gz: the ");
            assert_non_null(strstr(test_err.message, n ? "it ends too early" : "the file is empty"));
            lk_buf_release(&out);
        }
        for (int i = 0; i < (LK_SANITIZED ? 300 : 3000); i++) {
            struct lk_buf out = LK_BUF_INIT;
            size_t at = random_below(packed.size);
            char old = packed.data[at];
            packed.data[at] = (char)(old ^ 1 << random_below(8));
            int code = lk__unpack((enum lk__packing)packing, packed.data, packed.size, 1000, "x", collect, &out, &test_err);
            if (code) assert_true(code == LK_EINVAL || code == LK_ENOMEM);
            if (!code) assert_int_equal(out.size, size);
            if (!code) assert_memory_equal(out.data, text, size);
            packed.data[at] = old;
            lk_buf_release(&out);
        }
        OK(lk_buf_append(&packed, "rubbish", 7));
        struct lk_buf out = LK_BUF_INIT;
        FAILS(lk__unpack((enum lk__packing)packing, packed.data, packed.size, 4096, "x", collect, &out, &test_err),
              LK_EINVAL, "is damaged at byte");
        lk_buf_release(&out);
        lk_buf_release(&packed);
    }
    lk_free(text);
}

static int refuse(void *arg, const void *data, size_t size, struct lk_err *e) {
    (void)arg;
    (void)data;
    return lk_fail(e, LK_EBUSY, "%zu bytes are too many", size);
}

static void all_kinds_open_as_one_map(void **state) {
    (void)state;
    random_begin("all_kinds_open_as_one_map");
    size_t size = 400000;
    char *text = make_text(size), path[128];
    struct lk_buf gz = LK_BUF_INIT, zst = LK_BUF_INIT;
    struct lk_map map;
    pack_gzip(text, size, &gz);
    pack_zstd(text, size, &zst);
    const struct {
        const char *name;
        const void *data;
        size_t size;
    } files[] = {{"a.txt", text, size}, {"a.txt.gz", gz.data, gz.size}, {"a.zst", zst.data, zst.size}};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        OK(lk_file_write_atomic(path, files[i].data, files[i].size, &test_err));
        OK(lk__source_open(path, dir, &map, &test_err));
        assert_int_equal(map.size, size);
        assert_memory_equal(map.data, text, size);
        lk_map_close(&map);
        FAILS(lk__source_pour(path, refuse, NULL, &test_err), LK_EBUSY, "too many");
        if (i) FAILS(lk__source_open(path, "/nowhere/at/all", &map, &test_err), LK_ENOTFOUND, "/nowhere/at/all");
    }
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY);
        _exit(lk__write_all(fd, text, size) ? 1 : 0);
    }
    OK(lk__source_open(path, dir, &map, &test_err));
    assert_int_equal(map.size, size);
    assert_memory_equal(map.data, text, size);
    lk_map_close(&map);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    FAILS(lk__source_open(dir, dir, &map, &test_err), LK_EINVAL, "is a directory");
    FAILS(lk__source_open("/no/such.txt", dir, &map, &test_err), LK_ENOTFOUND, "/no/such.txt");
    lk_buf_release(&gz);
    lk_buf_release(&zst);
    lk_free(text);
}

/* zlib counts room in 32 bits. */
static void more_than_4_gib_may_be_asked_for(void **state) {
    (void)state;
    char path[128];
    struct lk_buf packed = LK_BUF_INIT, out = LK_BUF_INIT;
    struct lk__stream *s;
    size_t size = ((size_t)1 << 32) + 5;
    if (lk_buf_reserve(&out, size)) skip(); /* address space; little of it is touched */
    pack_gzip("some text of a line\n", 20, &packed);
    snprintf(path, sizeof path, "%s/small.jsonl.gz", dir);
    OK(lk_file_write_atomic(path, packed.data, packed.size, &test_err));
    OK(lk__stream_open(path, &s, &test_err));
    OK(lk__stream_fill(s, size, &out, &test_err));
    assert_true(lk__stream_ended(s));
    assert_int_equal(out.size, 20);
    assert_memory_equal(out.data, "some text of a line\n", 20);
    lk__stream_close(s);
    lk_buf_release(&out);
    lk_buf_release(&packed);
}

static void every_fault_is_reported(void **state) {
    (void)state;
    char path[128];
    struct lk_map map;
    for (int packing = LK__GZIP; packing <= LK__ZSTD; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__packing)packing, "some text", 9, &packed);
        snprintf(path, sizeof path, "%s/f.%s", dir, packing == LK__GZIP ? "gz" : "zst");
        OK(lk_file_write_atomic(path, packed.data, packed.size, &test_err));
        lk_buf_release(&packed);
        for (uint64_t n = 1;; n++) {
            lk__alloc_fail_at(n);
            int code = lk__source_open(path, dir, &map, &test_err);
            bool reached = lk__alloc_count() >= n;
            lk__alloc_fail_at(0);
            assert_int_equal(code, reached ? LK_ENOMEM : 0);
            if (!code) lk_map_close(&map);
            if (!reached) break;
        }
        for (uint64_t n = 1;; n++) {
            lk__file_fail_at(n, ENOSPC);
            int code = lk__source_open(path, dir, &map, &test_err);
            bool reached = lk__file_call_count() >= n;
            lk__file_fail_at(0, 0);
            if (!code) lk_map_close(&map);
            if (!reached) break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endings_decide),          cmocka_unit_test(members_and_frames_join),
        cmocka_unit_test(damage_is_an_error),      cmocka_unit_test(all_kinds_open_as_one_map),
        cmocka_unit_test(every_fault_is_reported), cmocka_unit_test(more_than_4_gib_may_be_asked_for),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
