#include "base/syscalls.h"
#include "data/source.h"
#include "data/testing.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

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

static const struct lk_source_options plain;

/* Notes of the reader, one after the other. */
static char notes[4096];
static void take_note(void *arg, const char *text) {
    (void)arg;
    size_t n = strlen(notes);
    snprintf(notes + n, sizeof notes - n, "%s\n", text);
}

static const char *put_file(const char *name, const void *data, size_t size) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    OK(lk_file_write_atomic(path, data, size, &test_err));
    return path;
}

static void names_tell_records_from_texts(void **state) {
    (void)state;
    static const char *const records[] = {"x/a.jsonl", "a.jsonl.gz",  "a.jsonl.zst", "a.jsonl.bz2",
                                          "a.JSONL",   "a.ndjson.XZ", "a.json",      "c4-train.00000-of-01024.json.gz"};
    static const char *const texts[] = {"a.txt", "a", "-", ".jsonl", "a.jsonl.txt", "jsonl", "a.csv.gz"};
    for (size_t i = 0; i < sizeof records / sizeof *records; i++)
        if (lk__data_source_kind(records[i]) != LK__JSONL) fail_msg("%s", records[i]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (lk__data_source_kind(texts[i]) != LK__PLAIN) fail_msg("%s", texts[i]);
}

static void pack_gzip(const void *data, size_t size, struct lk_buf *out) {
    z_stream z = {0};
    unsigned char piece[4096];
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)data;
    z.avail_in = (unsigned)size;
    int status;
    do {
        z.next_out = piece;
        z.avail_out = sizeof piece;
        status = deflate(&z, Z_FINISH);
        OK(lk_buf_append(out, piece, sizeof piece - z.avail_out));
    } while (status == Z_OK);
    assert_int_equal(status, Z_STREAM_END);
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

static void pack_xz(const void *data, size_t size, struct lk_buf *out) {
    size_t room = lzma_stream_buffer_bound(size), used = 0;
    uint8_t *to = lk_alloc(room);
    assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, data, size, to, &used, room), LZMA_OK);
    OK(lk_buf_append(out, to, used));
    lk_free(to);
}

static void pack_bzip2(const void *data, size_t size, struct lk_buf *out) {
    unsigned used = (unsigned)(size + size / 100 + 700);
    char *to = lk_alloc(used);
    assert_int_equal(BZ2_bzBuffToBuffCompress(to, &used, (char *)(uintptr_t)data, (unsigned)size, 1, 0, 0), BZ_OK);
    OK(lk_buf_append(out, to, used));
    lk_free(to);
}

static void pack(enum lk__data_packing packing, const void *data, size_t size, struct lk_buf *out) {
    static void (*const all[])(const void *, size_t, struct lk_buf *) = {NULL, pack_gzip, pack_zstd, pack_xz, pack_bzip2};
    all[packing](data, size, out);
}

static int unpack(enum lk__data_packing packing, const struct lk_buf *packed, size_t size, size_t chunk,
                  struct lk_buf *out) {
    struct lk__data_stream *s;
    int code = lk__data_stream_memory(packing, LK__LINES, packed->data, size, chunk, "some.file", &s, &test_err);
    while (!code && !lk__data_stream_ended(s)) code = lk__data_stream_fill(s, out->size + 50000, out, &test_err);
    if (!code) assert_int_equal(lk__data_packing_of(packed->data, size), packing);
    lk__data_stream_close(s);
    return code;
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
    for (int packing = LK__GZIP; packing < LK__PACKINGS; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__data_packing)packing, text, 300000, &packed);
        pack((enum lk__data_packing)packing, text, 0, &packed); /* an empty one between */
        if (packing == LK__XZ) OK(lk_buf_append(&packed, "\0\0\0\0\0\0\0", 8));
        pack((enum lk__data_packing)packing, text + 300000, size - 300000, &packed);
        static const size_t chunks[] = {1, 2, 7, 4096, 1 << 20};
        for (int i = LK_SANITIZED ? 2 : 0; i < 5; i++) {
            struct lk_buf out = LK_BUF_INIT;
            OK(unpack((enum lk__data_packing)packing, &packed, packed.size, chunks[i], &out));
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
    for (int packing = LK__GZIP; packing < LK__PACKINGS; packing++) {
        struct lk_buf packed = LK_BUF_INIT, out = LK_BUF_INIT;
        pack((enum lk__data_packing)packing, text, size, &packed);
        for (size_t n = 0; n < packed.size; n += n < 40 || n + 40 > packed.size ? 1 : 101) {
            out.size = 0;
            FAILS(unpack((enum lk__data_packing)packing, &packed, n, 4096, &out), LK_EINVAL, "some.file: the ");
            assert_non_null(strstr(test_err.message, n ? "it ends too early" : "the file is empty"));
        }
        for (int i = 0; i < (LK_SANITIZED ? 200 : 1000); i++) {
            size_t at = 10 + random_below(packed.size - 10); /* behind what tells the packing */
            char old = packed.data[at];
            packed.data[at] = (char)(old ^ 1 << random_below(8));
            out.size = 0;
            int code = unpack((enum lk__data_packing)packing, &packed, packed.size, 1000, &out);
            if (code) assert_true(code == LK_EINVAL || code == LK_ENOMEM || code == LK_EUNSUPPORTED);
            if (!code) assert_int_equal(out.size, size);
            if (!code) assert_memory_equal(out.data, text, size);
            packed.data[at] = old;
        }
        OK(lk_buf_append(&packed, "rubbish", 7));
        out.size = 0;
        FAILS(unpack((enum lk__data_packing)packing, &packed, packed.size, 4096, &out), LK_EINVAL, "is damaged at byte");
        lk_buf_release(&out);
        lk_buf_release(&packed);
    }
    lk_free(text);
}

/* zstd --long=31 asks for a window of 2 GiB; of a small text little of it is touched. */
static void a_zstd_window_of_2_gib_is_read(void **state) {
    (void)state;
    static const unsigned char frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x29, 0x00, 0x00, 'h', 'e', 'l', 'l', 'o'};
    struct lk_buf packed = LK_BUF_INIT, out = LK_BUF_INIT;
    OK(lk_buf_append(&packed, frame, sizeof frame));
    int code = unpack(LK__ZSTD, &packed, packed.size, 1 << 20, &out);
    if (code == LK_ENOMEM) assert_non_null(strstr(test_err.message, "window"));
    if (!code) assert_int_equal(out.size, 5);
    assert_true(!code || code == LK_ENOMEM);
    packed.data[5] = (char)0xB8; /* 8 GiB */
    FAILS(unpack(LK__ZSTD, &packed, packed.size, 1 << 20, &out), LK_EUNSUPPORTED, "a window above 2 GiB");
    lk_buf_release(&packed);
    lk_buf_release(&out);
}

static int refuse(void *arg, const void *data, size_t size, struct lk_err *e) {
    (void)arg;
    (void)data;
    return lk_fail(e, LK_EBUSY, "%zu bytes are too many", size);
}

/* The text of a file, opened as one piece of memory. */
static int read_source(const char *path, const char *spool, const struct lk_source_options *o,
                       struct lk__data_source *source, struct lk__data_text *text) {
    int code = lk__data_source_look(path, spool, o, source, &test_err);
    if (code) return code;
    code = lk__data_text_open(source, spool, text, &test_err);
    if (code) lk__data_source_close(source);
    return code;
}

static int read_texts(const char *const *paths, struct lk_texts *texts) {
    int code = lk_texts_read(paths, 1, &plain, texts, &test_err);
    if (!code) {
        assert_int_equal(texts->count, 6);
        assert_memory_equal(texts->list[4].data, "six", 3);
    }
    lk_texts_release(texts);
    return code;
}

static void check_text(const char *path, const char *spool, const void *want, size_t size) {
    struct lk__data_source source;
    struct lk__data_text text;
    OK(read_source(path, spool, &plain, &source, &text));
    assert_int_equal(text.size, size);
    assert_memory_equal(text.data, want, size);
    lk__data_text_close(&text);
    FAILS(lk__data_source_pour(&source, refuse, NULL, &test_err), LK_EBUSY, "too many");
    lk__data_source_close(&source);
}

/* The content tells the packing, whatever the name. */
static void all_kinds_open_as_one_map(void **state) {
    (void)state;
    random_begin("all_kinds_open_as_one_map");
    size_t size = 400000;
    char *text = make_text(size), path[128];
    struct lk__data_source source;
    check_text(put_file("a.txt", text, size), dir, text, size);
    for (int packing = LK__GZIP; packing < LK__PACKINGS; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__data_packing)packing, text, size, &packed);
        check_text(put_file("b.txt", packed.data, packed.size), dir, text, size);
        check_text(put_file("b.gz", packed.data, packed.size), NULL, text, size);
        struct lk__data_text unused;
        FAILS(read_source(put_file("b", packed.data, packed.size), "/nowhere/at/all", &plain, &source, &unused),
              LK_ENOTFOUND, "/nowhere/at/all");
        lk_buf_release(&packed);
    }
    struct lk_buf packed = LK_BUF_INIT; /* a packed pipe */
    pack_gzip(text, size, &packed);
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY);
        _exit(lk__write_all(fd, packed.data, packed.size) ? 1 : 0);
    }
    check_text(path, dir, text, size);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    FAILS(lk__data_source_look(dir, dir, &plain, &source, &test_err), LK_EINVAL, "is a directory");
    FAILS(lk__data_source_look("/no/such.txt", dir, &plain, &source, &test_err), LK_ENOTFOUND, "/no/such.txt");
    FAILS(lk__data_source_look(put_file("none.xz", "plain", 5), dir, &plain, &source, &test_err), LK_EINVAL,
          "take the ending");
    lk_buf_release(&packed);
    lk_free(text);
}

static void what_is_no_text_is_refused_by_name(void **state) {
    (void)state;
    char tar[512] = "name";
    memcpy(tar + 257, "ustar", 5);
    static const struct {
        const char *bytes, *says;
        size_t size;
    } cases[] = {{"PAR1\x15\0", "a Parquet file", 6},
                 {"PK\3\4abc", "a zip archive", 7},
                 {"GGUF\3\0\0\0", "a GGUF model", 8},
                 {"GIF89a\1\0\1\0", "a GIF picture", 10},
                 {"Rar!\x1A\7\1\0", "a RAR archive", 8},
                 {"MZ\x90\0", "a Windows program", 4},
                 {"SQLite format 3\0", "an SQLite database", 16},
                 {"%PDF-1.7\n", "a PDF document", 9},
                 {"ARROW1\0\0", "an Arrow file", 8},
                 {"\x7F"
                  "ELF\2\1",
                  "a program (ELF)", 6},
                 {"\x80\x04\x95\x10\0", "a Python pickle", 5},
                 {"\x10\0\0\0\0\0\0\0{\"a\":1}", "a safetensors model", 15},
                 {"\xFF\xFEh\0i\0", "UTF-16 text", 6},
                 {"\xFE\xFF\0h\0i", "iconv -f UTF-16 -t UTF-8", 6},
                 {"h\0e\0l\0l\0o\0 \0y\0o\0u\0\n\0", "UTF-16 text", 20},
                 {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull", 43},
                 {"some\0thing", "binary data (it has zero bytes)", 10}};
    struct lk__data_source source;
    struct lk_source_options force = {.format = LK_FORMAT_TEXT};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = put_file("what.txt", cases[i].bytes, cases[i].size);
        FAILS(lk__data_source_look(path, dir, &plain, &source, &test_err), LK_EUNSUPPORTED, cases[i].says);
        assert_non_null(strstr(test_err.message, "--format text"));
        OK(lk__data_source_look(path, dir, &force, &source, &test_err));
        lk__data_source_close(&source);
    }
    struct lk_buf packed = LK_BUF_INIT;
    pack_gzip(tar, sizeof tar, &packed);
    FAILS(lk__data_source_look(put_file("x.tgz", packed.data, packed.size), dir, &plain, &source, &test_err),
          LK_EUNSUPPORTED, "is a tar archive inside gzip; unpack it");
    lk_buf_release(&packed);
}

/* Letters alone are a text, whatever else begins with them. */
static void texts_about_formats_are_texts(void **state) {
    (void)state;
    static const char *const texts[] = {
        "GGUF is a format of models.\n", "PAR1 begins a Parquet file.\n", "MZ was a man.\n",
        "Rar! the lion said.\n",         "GIF89a came in 1989.\n",        "ARROW1, ARROW2\n",
        "SQLite format 3 is old.\n"};
    char padded[512];
    memset(padded, 'x', sizeof padded);
    memcpy(padded + 257, "ustar", 5);
    struct lk__data_source source;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        OK(lk__data_source_look(put_file("about.txt", texts[i], strlen(texts[i])), dir, &plain, &source, &test_err));
        lk__data_source_close(&source);
    }
    OK(lk__data_source_look(put_file("about.txt", padded, sizeof padded), dir, &plain, &source, &test_err));
    lk__data_source_close(&source);
}

static void check_read(const char *name, const char *bytes, const struct lk_source_options *o, const char *want) {
    struct lk__data_source source;
    struct lk__data_text text;
    OK(read_source(put_file(name, bytes, strlen(bytes)), dir, o, &source, &text));
    if (text.size != strlen(want) || memcmp(text.data, want, text.size))
        fail_msg("%s: \"%.*s\", not \"%s\"", name, (int)text.size, (const char *)text.data, want);
    lk__data_text_close(&text);
    lk__data_source_close(&source);
}

static void marks_and_lists_are_taken_apart(void **state) {
    (void)state;
    struct lk_source_options o = {.note = take_note}, jsonl = {.format = LK_FORMAT_JSONL};
    struct lk__data_source source;
    struct lk__data_text text;
    notes[0] = 0;
    check_read("m.txt", "\xEF\xBB\xBFtext", &o, "text");
    assert_non_null(strstr(notes, "m.txt: the byte order mark at its begin is dropped"));
    check_read("m.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\n", &o, "{\"text\":\"a\"}\n");
    check_read("l.json", "[{\"a\":[1,\n2]},\n {\"b\":\"],\\\"\"} ]\n", &plain, " {\"a\":[1, 2]}\n  {\"b\":\"],\\\"\"}   ");
    check_read("l.json", " \n[ ]", &plain, "     ");
    check_read("o.json", "{\n \"text\":\n\"a\"}\n", &plain, "{  \"text\": \"a\"}\n");
    check_read("o.jsonl", "{\n \"text\":\n\"a\"}\n", &plain, "{\n \"text\":\n\"a\"}\n"); /* broken lines */
    check_read("l.jsonl", "{\"a\":1}\n{\"b\":2}\n", &plain, "{\"a\":1}\n{\"b\":2}\n");
    check_read("l.txt", "[1]", &plain, "[1]");
    check_read("l.txt", "[1]", &jsonl, " 1 ");
    static const char *const bad[][2] = {{"[{},,{}]", "a record is missing before the comma"},
                                         {"[{},]", "a record is missing behind the last comma"},
                                         {"[{},{}", "does not end"},
                                         {"[{}] x", "something stands behind the list"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(read_source(put_file("bad.json", bad[i][0], strlen(bad[i][0])), dir, &plain, &source, &text), LK_EINVAL,
              bad[i][1]);
    notes[0] = 0;
    check_read("mark.txt", "\xEF\xBB\xBF", &o, "");
    check_read("mark.txt", "\xEF\xBB\xBF{", &o, "{");
    assert_null(strstr(notes, "--format jsonl"));
    check_read("short.txt", "{\"", &o, "{\"");
    assert_non_null(strstr(notes, "--format jsonl"));
    notes[0] = 0;
    check_read("looks.txt", "{\"text\":\"a\"}", &o, "{\"text\":\"a\"}");
    assert_non_null(strstr(notes, "--format jsonl"));
}

static void folders_are_their_files_in_order(void **state) {
    (void)state;
    char path[128], sub[160];
    snprintf(path, sizeof path, "%s/folder", dir);
    snprintf(sub, sizeof sub, "%s/b/c", path);
    OK(lk_dir_make(sub, &test_err));
    put_file("folder/b/c/z.txt", "z", 1);
    put_file("folder/b.txt", "b", 1);
    static const char lines[] = "{\"text\":\"one\"}\n{\"prompt\":\"two\",\"response\":\"three\"}\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"four\"}]}\n{\"text\":\"\"}\n";
    put_file("folder/a.jsonl", lines, sizeof lines - 1);
    put_file("folder/.hidden", "h", 1);
    char odd[192], inside[1024];
    snprintf(odd, sizeof odd, "%s/loop", sub);
    assert_int_equal(symlink(path, odd), 0);
    snprintf(odd, sizeof odd, "%s/pipe", path);
    assert_int_equal(mkfifo(odd, 0600), 0);
    put_file("folder/x.parquet", "PAR1\x15\0cd", 8);
    struct lk_source_options o = {.note = take_note};
    struct lk_texts texts;
    const char *paths[] = {path};
    notes[0] = 0;
    OK(lk_texts_read(paths, 1, &o, &texts, &test_err));
    static const char *const want[] = {"one", "two", "three", "four", "b", "z"};
    assert_int_equal(texts.count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(texts.list[i].size, strlen(want[i]));
        assert_memory_equal(texts.list[i].data, want[i], strlen(want[i]));
    }
    assert_non_null(strstr(notes, "3 files"));
    assert_non_null(strstr(notes, "1 hidden file or folder left out"));
    assert_non_null(strstr(notes, "x.parquet is a Parquet file"));
    assert_non_null(strstr(notes, "2 of its entries left out that are links to folders, pipes or devices"));
    lk_texts_release(&texts);
    struct lk_source_options split = {.split_at = lk_bytes("--", 2)};
    paths[0] = put_file("pieces.txt", "a--b----c--", 11);
    OK(lk_texts_read(paths, 1, &split, &texts, &test_err));
    assert_int_equal(texts.count, 3);
    assert_memory_equal(texts.list[2].data, "c", 1);
    lk_texts_release(&texts);
    paths[0] = put_file("bad.jsonl", "{\"text\":\"a\"}\n{\n{\"text\":null}\n", 29);
    FAILS(lk_texts_read(paths, 1, &plain, &texts, &test_err), LK_EINVAL,
          "bad.jsonl:2: a key in quotes is missing (--skip-bad");
    struct lk_source_options skip = {.skip_bad = 1, .note = take_note};
    FAILS(lk_texts_read(paths, 1, &skip, &texts, &test_err), LK_EINVAL, "bad.jsonl:3: it has neither");
    skip.skip_bad = 2;
    notes[0] = 0;
    OK(lk_texts_read(paths, 1, &skip, &texts, &test_err));
    assert_int_equal(texts.count, 1);
    assert_non_null(strstr(notes, "2 bad records left out"));
    lk_texts_release(&texts);
    int at = snprintf(inside, sizeof inside, "%s/nested", dir);
    paths[0] = lk_strdup(inside);
    for (int i = 0; i < 65; i++) at += snprintf(inside + at, sizeof inside - (size_t)at, "/%d", i);
    OK(lk_dir_make(inside, &test_err));
    FAILS(lk_texts_read(paths, 1, &plain, &texts, &test_err), LK_EINVAL, "folders are nested too deeply");
    lk_free((char *)(uintptr_t)paths[0]);
}

/* A small file may hold more text than there is memory. */
static void a_text_that_does_not_fit_in_memory_is_refused(void **state) {
    (void)state;
    size_t size = (size_t)4 << 20;
    char *text = lk_calloc(size, 1), path[128];
    memset(text, 'a', size);
    struct lk_buf packed = LK_BUF_INIT;
    struct lk__data_source source;
    struct lk__data_text out;
    pack_gzip(text, size, &packed);
    snprintf(path, sizeof path, "%s", put_file("bomb.gz", packed.data, packed.size));
    setenv("LOCKSTEP_MEMORY_BYTES", "1000000", 1);
    FAILS(read_source(path, NULL, &plain, &source, &out), LK_ENOMEM,
          "bomb.gz: its text takes more than the 1.0 MB of memory");
    OK(read_source(path, dir, &plain, &source, &out)); /* on the disk there is room */
    assert_int_equal(out.size, size);
    lk__data_text_close(&out);
    lk__data_source_close(&source);
    FAILS(lk__data_source_look("/dev/zero", NULL, &plain, &source, &test_err), LK_ENOMEM, "/dev/zero: its text takes more");
    unsetenv("LOCKSTEP_MEMORY_BYTES");
    lk_buf_release(&packed);
    lk_free(text);
}

/* All of what reads several files: a folder, records of each kind, packed ones. */
static void reading_many_reports_each_allocation(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/many/deep", dir);
    OK(lk_dir_make(path, &test_err));
    snprintf(path, sizeof path, "%s/many", dir);
    static const char lines[] = "{\"text\":\"one\"}\n{\"prompt\":\"two\",\"response\":\"three\"}\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"four\"}]}\n";
    struct lk_buf packed = LK_BUF_INIT;
    pack_gzip(lines, sizeof lines - 1, &packed);
    put_file("many/a.jsonl.gz", packed.data, packed.size);
    put_file("many/deep/b.json", "[{\"text\":\"five\"}]", 17);
    put_file("many/c.txt", "six", 3);
    lk_buf_release(&packed);
    const char *paths[] = {path};
    struct lk_texts texts;
    FAIL_EACH_ALLOCATION(read_texts(paths, &texts));
    FAILS(lk_texts_read((const char *[]){"-", "-"}, 2, &plain, &texts, &test_err), LK_EINVAL, "only once");
}

/* zlib counts room in 32 bits. */
static void more_than_4_gib_may_be_asked_for(void **state) {
    (void)state;
    char path[128];
    struct lk_buf packed = LK_BUF_INIT, out = LK_BUF_INIT;
    struct lk__data_stream *s;
    size_t size = ((size_t)1 << 32) + 5;
    if (lk_buf_reserve(&out, size)) skip(); /* address space; little of it is touched */
    pack_gzip("some text of a line\n", 20, &packed);
    snprintf(path, sizeof path, "%s/small.jsonl.gz", dir);
    OK(lk_file_write_atomic(path, packed.data, packed.size, &test_err));
    struct lk__data_source source;
    OK(lk__data_source_look(path, dir, &plain, &source, &test_err));
    OK(lk__data_stream_open(&source, &s, &test_err));
    OK(lk__data_stream_fill(s, size, &out, &test_err));
    assert_true(lk__data_stream_ended(s));
    assert_int_equal(out.size, 20);
    assert_memory_equal(out.data, "some text of a line\n", 20);
    lk__data_stream_close(s);
    lk_buf_release(&out);
    lk_buf_release(&packed);
}

static void every_fault_is_reported(void **state) {
    (void)state;
    struct lk__data_source source;
    struct lk__data_text text;
    for (int packing = LK__GZIP; packing < LK__PACKINGS; packing++) {
        struct lk_buf packed = LK_BUF_INIT;
        pack((enum lk__data_packing)packing, "some text", 9, &packed);
        const char *path = put_file("f", packed.data, packed.size);
        lk_buf_release(&packed);
        for (int files = 0; files < 2; files++) {
            for (uint64_t n = 1;; n++) {
                if (files)
                    lk__file_fail_at(n, ENOSPC);
                else
                    lk__alloc_fail_at(n);
                int code = read_source(path, dir, &plain, &source, &text);
                bool reached = (files ? lk__file_call_count() : lk__alloc_count()) >= n;
                lk__alloc_fail_at(0);
                lk__file_fail_at(0, 0);
                if (!files) assert_int_equal(code, reached ? LK_ENOMEM : 0);
                if (!code) lk__data_text_close(&text), lk__data_source_close(&source);
                if (!reached) break;
            }
        }
    }
}

/* Line by line: lines of many sizes over the pieces that are read, packed or not, with or without a last end. */
static void a_file_line_by_line(void **state) {
    struct lk_buf text = LK_BUF_INIT, packed = LK_BUF_INIT;
    (void)state;
    OK(lk_buf_append(&text, "\xef\xbb\xbf", 3));
    for (int i = 0; i < 2000; i++) OK(lk_buf_printf(&text, "%d %0*d\n", i, i % 7 ? i % 300 : i == 700 ? 900000 : 1, 7));
    OK(lk_buf_append(&text, "last", 4));
    pack_gzip(text.data, text.size, &packed);
    for (int packing = 0; packing < 2; packing++) {
        const struct lk_buf *b = packing ? &packed : &text;
        const char *path = put_file(packing ? "lines.gz" : "lines", b->data, b->size);
        struct lk_lines *l;
        struct lk_bytes line;
        size_t at = 3;
        uint64_t done, size;
        int code;
        OK(lk_lines_open(path, dir, &plain, &l, &test_err));
        while ((code = lk_lines_next(l, &line, &test_err)) == 0) {
            assert_true(at + line.size <= text.size);
            assert_memory_equal(line.data, text.data + at, line.size);
            assert_true(memchr(line.data, '\n', line.size) == (const char *)line.data + line.size - 1 ||
                        at + line.size == text.size);
            at += line.size;
        }
        assert_int_equal(code, LK_ENOTFOUND);
        assert_int_equal(at, text.size);
        lk_lines_progress(l, &done, &size);
        assert_true(done == size && size == b->size);
        lk_lines_close(l);
    }
    FAILS(lk_lines_open("none", dir, &plain, &(struct lk_lines *){NULL}, &test_err), LK_ENOTFOUND, "none");
    put_file("short.gz", packed.data, packed.size / 2);
    struct lk_lines *l;
    struct lk_bytes line;
    char path[256];
    snprintf(path, sizeof path, "%s/short.gz", dir);
    OK(lk_lines_open(path, dir, &plain, &l, &test_err));
    int code;
    while ((code = lk_lines_next(l, &line, &test_err)) == 0) continue;
    assert_int_equal(code, LK_EINVAL);
    lk_lines_close(l);
    lk_buf_release(&text);
    lk_buf_release(&packed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_tell_records_from_texts),
        cmocka_unit_test(members_and_frames_join),
        cmocka_unit_test(damage_is_an_error),
        cmocka_unit_test(a_zstd_window_of_2_gib_is_read),
        cmocka_unit_test(all_kinds_open_as_one_map),
        cmocka_unit_test(what_is_no_text_is_refused_by_name),
        cmocka_unit_test(texts_about_formats_are_texts),
        cmocka_unit_test(marks_and_lists_are_taken_apart),
        cmocka_unit_test(folders_are_their_files_in_order),
        cmocka_unit_test(every_fault_is_reported),
        cmocka_unit_test(a_text_that_does_not_fit_in_memory_is_refused),
        cmocka_unit_test(reading_many_reports_each_allocation),
        cmocka_unit_test(more_than_4_gib_may_be_asked_for),
        cmocka_unit_test(a_file_line_by_line),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
