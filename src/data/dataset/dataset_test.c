#include "data/dataset/internal.h"
#include "data/source.h"
#include "data/testing.h"
#include "data/tokenizer/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

static char dir[64];
static struct lk_store *store;
static struct lk_root tokenizer;
static struct lk_tokenizer *tok;
static uint32_t end_id;

static const char bible[] = "In the beginning was the word, and the word was a word.\nA second line of words, and words.\n"
                            "The third line is the last line, and it is held out.\n";

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/lk-dataset-XXXXXX", temporary_root());
    assert_non_null(mkdtemp(dir));
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    struct lk_bytes b = lk_bytes(bible, sizeof bible - 1);
    OK(lk_tokenizer_train(&b, 1, 290, NULL, NULL, NULL, &tok, &test_err));
    OK(lk_tokenizer_save(store, tok, &tokenizer, &test_err));
    end_id = lk_tokenizer_end(tok);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lk_tokenizer_free(tok);
    lk_store_close(store);
    return lk_dir_remove(dir, &test_err);
}

static const char *file(const char *name, const void *data, size_t size) {
    static char paths[8][128];
    static int next;
    char *path = paths[next++ & 7];
    snprintf(path, 128, "%s/%s", dir, name);
    OK(lk_file_write_atomic(path, data, size, &test_err));
    return path;
}

static const char *gz_file(const char *name, const void *data, size_t size) {
    static char path[128];
    snprintf(path, 128, "%s/%s", dir, name);
    gzFile f = gzopen(path, "wb");
    assert_int_equal(gzwrite(f, data, (unsigned)size), (int)size);
    gzclose(f);
    return path;
}

static int build_many(const char *const *paths, size_t count, double holdout, struct lk_pool *pool, struct lk_root *out) {
    struct lk_dataset_source sources[8];
    struct lk_dataset_options o = {.holdout = holdout, .tokenizer_name = "T"};
    for (size_t i = 0; i < count; i++) sources[i].path = paths[i];
    return lk_dataset_build(store, sources, count, &tokenizer, &o, pool, out, &test_err);
}

static int build(const char *path, double holdout, struct lk_root *out) {
    return build_many(&path, 1, holdout, NULL, out);
}

static struct lk_dataset *open_built(const char *path, double holdout) {
    struct lk_root root;
    struct lk_dataset *d;
    OK(build(path, holdout, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    OK(lk_dataset_open(store, &root, false, &d, &test_err));
    assert_true(lk_root_equal(lk_dataset_root(d), &root));
    assert_true(lk_root_equal(lk_dataset_tokenizer(d), &tokenizer));
    assert_int_equal(lk_dataset_vocab(d), 290);
    return d;
}

/* All tokens of a split, through sequences of one context; the last train tokens that fill no sequence are missing. */
static uint64_t read_all(const struct lk_dataset *d, enum lk_split split, uint32_t context, uint32_t *ids,
                         uint32_t *target) {
    uint64_t n = lk_dataset_sequences(d, split, context), at = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t got = lk_dataset_sequence(d, split, i, context, ids + at, target + at, NULL);
        assert_true(got == context || (split == LK_HELD_OUT && i == n - 1));
        at += got;
    }
    return at;
}

static void a_plain_text_is_cut_after_a_line(void **state) {
    (void)state;
    const char *third = strstr(bible, "The third");
    struct lk_dataset *d = open_built(file("a.txt", bible, sizeof bible - 1), 0.4);
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), third - bible);
    assert_int_equal(lk_dataset_bytes(d, LK_HELD_OUT), strlen(third));
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 1);
    assert_int_equal(lk_dataset_documents(d, LK_HELD_OUT), 1);
    struct lk_tokens want = {0};
    OK(lk_tokenizer_encode(tok, third, strlen(third), NULL, &want, &test_err));
    for (uint32_t context = 1; context < 40; context += 6) {
        uint32_t ids[300], target[300];
        uint64_t n = read_all(d, LK_HELD_OUT, context, ids, target);
        assert_int_equal(n, lk_dataset_tokens(d, LK_HELD_OUT) - 1);
        assert_int_equal(n, want.count + 1);
        assert_int_equal(ids[0], end_id);
        assert_memory_equal(ids + 1, want.ids, want.count * 4);
        assert_memory_equal(target, want.ids, want.count * 4);
        assert_int_equal(target[n - 1], end_id);
        n = read_all(d, LK_TRAIN, context, ids, target);
        assert_int_equal(n, (lk_dataset_tokens(d, LK_TRAIN) - 1) / context * context);
    }
    struct lk_document doc;
    struct lk_root digest;
    OK(lk_dataset_document(d, LK_HELD_OUT, 0, &doc, &test_err));
    lk_sha256(third, strlen(third), &digest);
    assert_true(lk_root_equal(&doc.digest, &digest));
    assert_int_equal(doc.source_offset, third - bible);
    assert_string_equal(doc.source_path, "a.txt");
    assert_int_equal(doc.line, 0);
    FAILS(lk_dataset_document(d, LK_HELD_OUT, 1, &doc, &test_err), LK_EINVAL, "held_out split has 1");
    lk_tokens_release(&want);
    lk_dataset_close(d);
}

static void cuts_without_lines_spare_characters(void **state) {
    (void)state;
    struct lk_dataset *d =
        open_built(file("one.txt", "\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD", 12), 0.4); /* 12 - 4 = 8 */
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), 6);
    lk_dataset_close(d);
    d = open_built(file("raw.txt", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 10), 0.5);
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), 5);
    lk_dataset_close(d);
    d = open_built(file("early.txt", "a\nbcdefghij", 11), 0.1); /* no line ends behind the cut: after the last one before */
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), 2);
    lk_dataset_close(d);
    d = open_built(file("exact.txt", "abcd\nefgh\n", 10), 0.5); /* the cut is where a line ends */
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), 5);
    lk_dataset_close(d);
}

static void records_have_masks_lines_and_ranges(void **state) {
    (void)state;
    static const char lines[] =
        "{\"text\": \"the word\\nand \\u00e9\"}\n\n{\"prompt\": \"the line\", \"response\": \" was\"}\r\n"
        "{\"text\":\"\"}\n{\"other\": [1, {\"a\": null}], \"text\": \"last line\"}";
    struct lk_dataset *d = open_built(file("b.jsonl", lines, sizeof lines - 1), 0);
    struct lk_document doc;
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 3);
    assert_int_equal(lk_dataset_tokens(d, LK_HELD_OUT), 0);
    assert_int_equal(lk_dataset_sequences(d, LK_HELD_OUT, 4), 0);
    assert_int_equal(json_integer_value(json_object_get(lk_dataset_manifest(d), "empty_count")), 1);
    OK(lk_dataset_document(d, LK_TRAIN, 2, &doc, &test_err));
    assert_int_equal(doc.line, 5);
    assert_int_equal(doc.source_offset, strstr(lines, "{\"other") - lines);
    OK(lk_dataset_document(d, LK_TRAIN, 1, &doc, &test_err));
    assert_int_equal(doc.line, 3);
    assert_int_equal(doc.size_bytes, strlen("the line was"));
    uint32_t in[200], target[200], start[200], context = (uint32_t)lk_dataset_tokens(d, LK_TRAIN) - 1;
    assert_int_equal(lk_dataset_sequence(d, LK_TRAIN, 0, context, in, target, start), context);
    uint64_t b, e, last = 0;
    for (uint64_t at = doc.token_begin; at < doc.token_end; at++) {
        OK(lk_dataset_byte_range(d, LK_TRAIN, 1, at, at + 1, &b, &e, &test_err));
        assert_int_equal(b, last);
        assert_int_equal(e - b, lk_tokenizer_bytes(tok, in[at]).size);
        assert_memory_equal(&"the line was"[b], lk_tokenizer_bytes(tok, in[at]).data, e - b);
        assert_int_equal(target[at - 1] == UINT32_MAX, e <= strlen("the line"));
        assert_int_equal(start[at], doc.token_begin - 1);
        assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, at), 1);
        last = e;
    }
    assert_int_equal(last, doc.size_bytes);
    assert_int_equal(target[doc.token_end - 1], end_id); /* the end of a response counts */
    assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, 0), 0);
    assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, doc.token_end), 1);
    assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, doc.token_end + 1), 2);
    assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, context), 2);
    FAILS(lk_dataset_byte_range(d, LK_TRAIN, 1, 0, 2, &b, &e, &test_err), LK_EINVAL, "not in document 1");
    lk_dataset_close(d);
}

/* Lines of all sorts, some large, with their number in them. */
static size_t make_lines(struct lk_buf *out, size_t lines) {
    size_t documents = 0;
    for (size_t i = 0; i < lines; i++) {
        size_t kind = random_below(40), size = random_below(kind == 1 ? 200000 : 300);
        if (kind == 0) {
            OK(lk_buf_printf(out, "  \n"));
            continue;
        }
        OK(lk_buf_printf(out, kind < 20 ? "{\"prompt\":\"line %zu \\u4e2d\",\"response\":\"" : "{\"text\":\"line %zu ", i));
        for (size_t k = 0; k < size; k += 8) OK(lk_buf_printf(out, "w%zx ", random_below(90000)));
        OK(lk_buf_printf(out, "\"}\n"));
        documents++;
    }
    return documents;
}

static void any_pool_gives_the_same_root(void **state) {
    (void)state;
    random_begin("any_pool_gives_the_same_root");
    struct lk_buf lines = LK_BUF_INIT, text = LK_BUF_INIT;
    size_t documents = make_lines(&lines, LK_SANITIZED ? 500 : 1500);
    for (size_t i = 0; i < (LK_SANITIZED ? 60000 : 200000); i++)
        OK(lk_buf_printf(&text, "w%zx%c", random_below(9000), random_below(9) ? ' ' : '\n'));
    const char *paths[] = {file("m.jsonl", lines.data, lines.size), file("m.txt", text.data, text.size),
                           file("empty.txt", "", 0), gz_file("m2.jsonl.gz", lines.data, lines.size)};
    static const double holdouts[] = {0, 0.01, 0.3};
    for (int h = 0; h < 3; h++) {
        struct lk_root one, many;
        struct lk_dataset *d;
        OK(build_many(paths, 4, holdouts[h], NULL, &one));
        OK(lk_dataset_verify(store, &one, &test_err));
        for (int threads = 2; threads <= 8; threads += LK_SANITIZED ? 6 : 3) {
            struct lk_pool *pool;
            OK(lk_pool_open(threads, &pool, &test_err));
            OK(build_many(paths, 4, holdouts[h], pool, &many));
            assert_true(lk_root_equal(&one, &many));
            lk_pool_close(pool);
        }
        OK(lk_dataset_open(store, &one, true, &d, &test_err));
        assert_int_equal(lk_dataset_documents(d, LK_TRAIN) + lk_dataset_documents(d, LK_HELD_OUT), 2 * documents + 1);
        uint64_t total = 2 * lines.size + text.size, held = 0;
        for (uint64_t i = 0; i < lk_dataset_documents(d, LK_HELD_OUT); i++) {
            struct lk_document doc;
            OK(lk_dataset_document(d, LK_HELD_OUT, i, &doc, &test_err));
            assert_int_equal(doc.source, 3); /* the end is in the last file */
            if (!held) held = lines.size - doc.source_offset;
        }
        uint64_t want = (uint64_t)((double)total * holdouts[h]);
        assert_true(held <= want && want - held < 210000);
        lk_dataset_close(d);
    }
    lk_buf_release(&lines);
    lk_buf_release(&text);
}

/* Nothing but the content and the names enters: another directory, packing by pipe or file. */
static void the_root_knows_no_directory(void **state) {
    (void)state;
    struct lk_root a, b;
    char other[128], path[160];
    snprintf(other, sizeof other, "%s/other", dir);
    OK(lk_dir_make(other, &test_err));
    snprintf(path, sizeof path, "%s/a.txt", other);
    OK(lk_file_write_atomic(path, bible, sizeof bible - 1, &test_err));
    OK(build(path, 0.1, &a));
    OK(build(file("a.txt", bible, sizeof bible - 1), 0.1, &b));
    assert_true(lk_root_equal(&a, &b));
    OK(build(file("c.txt", bible, sizeof bible - 1), 0.1, &b));
    assert_false(lk_root_equal(&a, &b)); /* the name does */
    int saved = dup(0), fd = open(path, O_RDONLY);
    struct lk_dataset *d;
    assert_int_equal(dup2(fd, 0), 0);
    OK(build("-", 0.1, &b));
    dup2(saved, 0);
    close(saved);
    close(fd);
    OK(lk_dataset_open(store, &b, true, &d, &test_err));
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN) + lk_dataset_bytes(d, LK_HELD_OUT), sizeof bible - 1);
    lk_dataset_close(d);
}

/* Lines of all lengths, some longer than what a stream is unpacked in; the last one without an end. */
static void put_lines(struct lk_buf *out) {
    for (int i = 0; i < 6000; i++) {
        size_t words = i == 2500 ? 700000 : i % 1000 == 7 ? 40000 : random_below(60);
        OK(lk_buf_printf(out, i % 9 ? "{\"text\": \"" : "{\"prompt\": \"say %d\", \"response\": \"", i));
        for (size_t k = 0; k < words; k++) OK(lk_buf_printf(out, random_below(20) ? "word " : "\\u00e9\\n"));
        OK(lk_buf_printf(out, i == 5999 ? "\"}" : "\"}\n"));
    }
}

static void check_packed(const char *path, double holdout, struct lk_pool *pool, const json_t *splits) {
    struct lk_root root;
    struct lk_dataset *d;
    OK(build_many(&path, 1, holdout, pool, &root));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    if (!json_equal(json_object_get(lk_dataset_manifest(d), "splits"), splits)) fail_msg("%s: other tokens", path);
    lk_dataset_close(d);
}

static void packed_lines_are_those_of_the_file(void **state) {
    (void)state;
    random_begin("packed_lines_are_those_of_the_file");
    struct lk_buf text = LK_BUF_INIT;
    struct lk_pool *pool;
    put_lines(&text);
    OK(lk_pool_open(3, &pool, &test_err));
    const char *plain = file("lines.jsonl", text.data, text.size);
    size_t room = ZSTD_compressBound(text.size), cut = text.size / 3, packed;
    char *bytes = lk_alloc(room), several[128];
    packed = ZSTD_compress(bytes, room, text.data, text.size, 1);
    const char *zst = file("known.jsonl.zst", bytes, packed);
    ZSTD_CCtx *c = ZSTD_createCCtx(); /* frames that do not tell their size */
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    packed = ZSTD_compress2(c, bytes, room, text.data, text.size);
    ZSTD_freeCCtx(c);
    const char *untold = file("untold.jsonl.zst", bytes, packed);
    snprintf(several, sizeof several, "%s",
             gz_file("several.jsonl.gz", text.data, cut)); /* gzip's size is the last one's */
    gzFile f = gzopen(several, "ab");
    assert_int_equal(gzwrite(f, text.data + cut, (unsigned)(text.size - cut)), (int)(text.size - cut));
    gzclose(f);
    const char *one = gz_file("one.jsonl.gz", text.data, text.size);
    for (int i = 0; i < 2; i++) {
        double holdout = i ? 0.1 : 0;
        struct lk_dataset *d = open_built(plain, holdout);
        const json_t *splits = json_object_get(lk_dataset_manifest(d), "splits");
        const char *all[] = {zst, untold, several, one};
        for (int k = 0; k < 4; k++) {
            check_packed(all[k], holdout, NULL, splits);
            check_packed(all[k], holdout, pool, splits);
        }
        lk_dataset_close(d);
    }
    lk_pool_close(pool);
    lk_free(bytes);
    lk_buf_release(&text);
}

/* [0]: the last number of bytes, [1]: bytes in all, also those of an attempt that was given up. */
static int add_progress(void *arg, uint64_t done, uint64_t total) {
    uint64_t *sum = arg;
    (void)total;
    sum[1] += done >= sum[0] ? done - sum[0] : done;
    sum[0] = done;
    return 0;
}

/* What cannot be the text's size is no guess: the text is measured. Here a small last member, which is less than the file.
 */
static void a_refused_guess_is_measured(void **state) {
    (void)state;
    static const char line[] = "{\"text\": \"number %u, and some more of it\"}\n";
    struct lk_buf text = LK_BUF_INIT;
    char one[128], path[128];
    for (unsigned i = 0; i < 3000; i++) {
        int n = snprintf(one, sizeof one, line, i * 2654435761u);
        OK(lk_buf_append(&text, one, (size_t)n));
    }
    size_t last = (size_t)snprintf(one, sizeof one, line, 7u);
    snprintf(path, sizeof path, "%s", gz_file("refused.jsonl.gz", text.data, text.size));
    gzFile f = gzopen(path, "ab");
    assert_int_equal(gzwrite(f, one, (unsigned)last), (int)last);
    gzclose(f);
    uint64_t guess = 42;
    struct lk__data_source looked;
    OK(lk__data_source_look(path, dir, &(struct lk_source_options){0}, &looked, &test_err));
    assert_false(lk__data_source_guess(&looked, &guess));
    assert_int_equal(guess, 42);
    struct lk_root root, want;
    OK(build(path, 0.1, &root));
    OK(lk_buf_append(&text, one, last));
    OK(build(gz_file("refused.jsonl.gz", text.data, text.size), 0.1, &want));
    assert_true(lk_root_equal(&root, &want));
    lk_buf_release(&text);
}

static void a_wrong_guess_is_noticed_early(void **state) {
    (void)state;
    static const char line[] = "{\"text\": \"the same line, again and again, so that it packs well\"}\n";
    struct lk_buf text = LK_BUF_INIT;
    while (text.size < (size_t)8 << 20) OK(lk_buf_append(&text, line, sizeof line - 1));
    size_t last = (sizeof line - 1) * 2000;
    char path[128];
    snprintf(path, sizeof path, "%s", gz_file("early.jsonl.gz", text.data, text.size));
    gzFile f = gzopen(path, "ab");
    assert_int_equal(gzwrite(f, text.data, (unsigned)last), (int)last);
    gzclose(f);
    uint64_t guess, sum[2] = {0, 0};
    struct lk__data_source looked;
    OK(lk__data_source_look(path, dir, &(struct lk_source_options){0}, &looked, &test_err));
    assert_true(lk__data_source_guess(&looked, &guess)); /* gzip's size is the last one's */
    assert_int_equal(guess, last);
    struct lk_dataset_source source = {.path = path};
    struct lk_dataset_options o = {.holdout = 0.1, .tokenizer_name = "T", .progress = add_progress, .progress_arg = sum};
    struct lk_root root, want;
    OK(lk_dataset_build(store, &source, 1, &tokenizer, &o, NULL, &root, &test_err));
    assert_int_equal(sum[0], text.size + last);
    assert_in_range(sum[1], sum[0], sum[0] + ((uint64_t)2 << 20));
    while (text.size < sum[0]) OK(lk_buf_append(&text, line, sizeof line - 1));
    OK(build(gz_file("early.jsonl.gz", text.data, text.size), 0.1, &want));
    assert_true(lk_root_equal(&root, &want));
    lk_buf_release(&text);
}

static void large_vocabularies_take_four_bytes(void **state) {
    (void)state;
    uint32_t vocab = 70000;
    uint64_t *offset = lk_calloc(vocab + 1, sizeof *offset);
    struct lk_buf bytes = LK_BUF_INIT;
    uint8_t *special = lk_calloc(vocab, 1);
    for (uint32_t id = 0; id < vocab; id++) { /* bytes at the top, so that ids need the third byte */
        char byte = (char)(id - (vocab - 257));
        if (id + 257 >= vocab && id + 1 < vocab) OK(lk_buf_append(&bytes, &byte, 1));
        if (id + 1 == vocab) OK(lk_buf_append(&bytes, LK_TOKEN_END, strlen(LK_TOKEN_END)));
        offset[id + 1] = bytes.size;
    }
    special[vocab - 1] = 1;
    struct lk_tokenizer *t;
    struct lk__tokenizer_definition definition = {
        .vocab = vocab, .offset = offset, .bytes = (uint8_t *)bytes.data, .added = special};
    OK(lk__tokenizer_make(&definition, "large", &t, &test_err));
    struct lk_root root, built;
    struct lk_dataset *d;
    OK(lk_tokenizer_save(store, t, &root, &test_err));
    const char *path = file("l.txt", "abc", 3);
    struct lk_dataset_source s = {path};
    struct lk_dataset_options o = {0};
    OK(lk_dataset_build(store, &s, 1, &root, &o, NULL, &built, &test_err));
    OK(lk_dataset_verify(store, &built, &test_err));
    OK(lk_dataset_open(store, &built, true, &d, &test_err));
    uint32_t in[4];
    assert_int_equal(lk_dataset_sequence(d, LK_TRAIN, 0, 4, in, NULL, NULL), 4);
    assert_int_equal(in[0], vocab - 1);
    assert_int_equal(in[3], vocab - 257 + 'c');
    lk_dataset_close(d);
    lk_tokenizer_free(t);
    lk_free(offset);
    lk_free(special);
    lk_buf_release(&bytes);
}

static int stop(void *arg, uint64_t done, uint64_t total) {
    (void)arg;
    assert_true(done <= total);
    return 1;
}

static void bad_input_is_named(void **state) {
    (void)state;
    struct lk_root root;
    FAILS(build("/no/such.txt", 0, &root), LK_ENOTFOUND, "/no/such.txt");
    char empty[128];
    snprintf(empty, sizeof empty, "%s/empty", dir);
    OK(lk_dir_make(empty, &test_err));
    FAILS(build(empty, 0, &root), LK_EINVAL, "is a directory without a file to read");
    FAILS(build(file("e.txt", "", 0), 0, &root), LK_EINVAL, "there is no text in the 1 source");
    FAILS(build(file("e.jsonl", "\n \n{\"text\":\"\"}\n", 15), 0, &root), LK_EINVAL, "there is no text");
    FAILS(build(file("h.jsonl", "{\"text\":\"a\"}\n", 13), 0.5, &root), LK_EINVAL, "leaves no document held out");
    FAILS(build(file("h.txt", "\xE4\xB8\xAD", 3), 0.5, &root), LK_EINVAL, "leaves no document to train on");
    FAILS(build(file("h.txt", "abc", 3), 0.1, &root), LK_EINVAL, "leaves no document held out");
    FAILS(build(file("h.txt", "abc", 3), 0.6, &root), LK_EINVAL, "from 0 to 0.5");
    FAILS(build(file("h.txt", "abc", 3), -0.1, &root), LK_EINVAL, "from 0 to 0.5");
    FAILS(build(file("h.txt", "abc", 3), strtod("nan", NULL), &root), LK_EINVAL, "from 0 to 0.5");
    FAILS(build_many(NULL, 0, 0, NULL, &root), LK_EINVAL, "no source");
    const char *twice[] = {"-", "-"};
    FAILS(build_many(twice, 2, 0, NULL, &root), LK_EINVAL, "only once");
    static const char lines[] = "{\"text\":\"good\"}\n{\"text\":\"good\"}\n{\"text\":bad}\n";
    FAILS(build(file("bad.jsonl", lines, sizeof lines - 1), 0, &root), LK_EINVAL, "bad.jsonl:3: byte 40: \"text\" is not");
    const char *path = gz_file("cut.jsonl.gz", bible, sizeof bible - 1);
    assert_int_equal(truncate(path, 60), 0);
    FAILS(build(path, 0, &root), LK_EINVAL, "cut.jsonl.gz: the gzip data is damaged at byte 60");
    FAILS(build(path, 0.1, &root), LK_EINVAL, "cut.jsonl.gz: the gzip data is damaged at byte 60");
    FAILS(build(file("not.txt.zst", "plain", 5), 0, &root), LK_EINVAL, "not.txt.zst: the zstd data");
    /* a line far behind the first job has its true number */
    struct lk_buf many = LK_BUF_INIT;
    for (int i = 0; i < 40000; i++) OK(lk_buf_printf(&many, "{\"text\":\"a line of no interest, %d\"}\n", i));
    OK(lk_buf_printf(&many, "{\"txet\":\"\"}\n"));
    FAILS(build(file("far.jsonl", many.data, many.size), 0, &root), LK_EINVAL, "far.jsonl:40001: byte ");
    lk_buf_release(&many);
    path = file("a.txt", bible, sizeof bible - 1);
    struct lk_dataset_source s = {path};
    struct lk_dataset_options o = {.progress = stop};
    FAILS(lk_dataset_build(store, &s, 1, &tokenizer, &o, NULL, &root, &test_err), LK_ESTOPPED, "stopped");
    struct lk_root nothing = {{1}};
    o.progress = NULL;
    FAILS(lk_dataset_build(store, &s, 1, &nothing, &o, NULL, &root, &test_err), LK_ENOTFOUND, "");
}

static void flip(const struct lk_root *root, double where) {
    char path[4096];
    lk_blob_path(store->blobs, root, path);
    chmod(path, 0644);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    off_t at = (off_t)((double)(st.st_size - 1) * where);
    char c;
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void a_flipped_bit_is_found_and_named(void **state) {
    (void)state;
    static const char lines[] = "{\"prompt\": \"the line\", \"response\": \" was\"}\n{\"text\": \"and words\"}\n";
    struct lk_root root, part;
    struct lk_dataset *d;
    for (int i = 0; i < LK__PARTS; i++) {
        OK(build(file("f.jsonl", lines, sizeof lines - 1), 0, &root));
        OK(lk_dataset_open(store, &root, true, &d, &test_err));
        const json_t *split = json_object_get(json_object_get(lk_dataset_manifest(d), "splits"), "train");
        assert_true(lk_root_parse(json_string_value(json_object_get(split, lk__dataset_part_names[i])), &part));
        lk_dataset_close(d);
        flip(&part, 0.7);
        FAILS(lk_dataset_open(store, &root, true, &d, &test_err), LK_ECORRUPT, lk__dataset_part_names[i]);
        assert_non_null(strstr(test_err.message, dir)); /* and its file */
        FAILS(lk_dataset_verify(store, &root, &test_err), LK_ECORRUPT, lk__dataset_part_names[i]);
        OK(lk_blob_delete(store->blobs, &part, &test_err));
        FAILS(lk_dataset_open(store, &root, false, &d, &test_err), LK_ENOTFOUND, lk__dataset_part_names[i]);
    }
    OK(build(file("f.jsonl", lines, sizeof lines - 1), 0, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
}

/* Parts whose hashes are right but which do not fit together; or a manifest of lies. */
static void changed(const char *split, const char *key, json_t *value, int open_code, int verify_code, const char *says) {
    static const char lines[] = "{\"prompt\": \"the line\", \"response\": \" was\"}\n{\"text\": \"and words\"}\n";
    struct lk_root root, other;
    struct lk_dataset *d;
    json_t *m;
    OK(build(file("f.jsonl", lines, sizeof lines - 1), 0, &root));
    OK(lk_manifest_get(store, &root, "dataset", &m, &test_err));
    json_t *where = split ? json_object_get(json_object_get(m, "splits"), split) : m;
    assert_int_equal(value ? json_object_set_new(where, key, value) : json_object_del(where, key), 0);
    OK(lk_manifest_put(store, m, &other, &test_err));
    json_decref(m);
    if (open_code) {
        FAILS(lk_dataset_open(store, &other, false, &d, &test_err), open_code, says);
        assert_null(d);
    } else {
        OK(lk_dataset_open(store, &other, false, &d, &test_err));
        lk_dataset_close(d);
    }
    FAILS(lk_dataset_verify(store, &other, &test_err), verify_code, says);
}

/* A copy of a part with one byte changed, as its hex root. */
static json_t *edited_part(enum lk__dataset_part part, size_t at, uint8_t value) {
    static const char lines[] = "{\"prompt\": \"the line\", \"response\": \" was\"}\n{\"text\": \"and words\"}\n";
    struct lk_root root;
    struct lk_dataset *d;
    char hex[LK_ROOT_HEX];
    OK(build(file("f.jsonl", lines, sizeof lines - 1), 0, &root));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    const struct lk_blob *b = &d->splits[0].parts[part];
    uint8_t *copy = lk_alloc(b->size);
    memcpy(copy, b->data, b->size);
    assert_true(at < b->size);
    copy[at] = value;
    OK(lk_blob_put(store->blobs, copy, b->size, &root, &test_err));
    lk_free(copy);
    lk_dataset_close(d);
    return json_string(lk_root_hex(&root, hex));
}

static void parts_that_do_not_fit_are_found(void **state) {
    (void)state;
    changed(NULL, "format", json_string("lockstep-dataset-7"), LK_EUNSUPPORTED, LK_EUNSUPPORTED, "lockstep-dataset-7");
    changed(NULL, "vocab", json_integer(291), LK_ECORRUPT, LK_ECORRUPT, "vocabulary");
    changed(NULL, "token_bytes", json_integer(3), LK_ECORRUPT, LK_ECORRUPT, "token_bytes");
    changed(NULL, "index_every", json_integer(0), LK_ECORRUPT, LK_ECORRUPT, "index_every");
    changed(NULL, "tokenizer", json_string("x"), LK_ECORRUPT, LK_ECORRUPT, "no root");
    changed(NULL, "splits", NULL, LK_EINVAL, LK_EINVAL, "tokens_count");
    changed("train", "tokens_count", json_integer(5), LK_ECORRUPT, LK_ECORRUPT, "tokens");
    changed("train", "tokens_count", json_integer(INT64_MAX), LK_ECORRUPT, LK_ECORRUPT, "counts");
    changed("train", "documents_count", json_integer(0), LK_ECORRUPT, LK_ECORRUPT, "counts");
    changed("train", "documents_count", json_integer(1), LK_ECORRUPT, LK_ECORRUPT, "ends");
    changed("train", "masked_count", json_integer(0), 0, LK_ECORRUPT, "there is no mask");
    changed("train", "bytes_count", json_integer(1), 0, LK_ECORRUPT, "goes on behind");
    changed("train", "tokens", edited_part(LK__TOKENS, 0, 1), 0, LK_ECORRUPT, "does not begin with an end token");
    changed("train", "tokens", edited_part(LK__TOKENS, 2, 1), 0, LK_ECORRUPT, "do not give the text of its digest");
    changed("train", "tokens", edited_part(LK__TOKENS, 3, 0xFF), 0, LK_ECORRUPT, "an id beyond its vocabulary");
    changed("train", "ends", edited_part(LK__ENDS, 0, 1), 0, LK_ECORRUPT, "no end token");
    changed("train", "ends", edited_part(LK__ENDS, 7, 1), 0, LK_ECORRUPT, "out of place");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 8, 9), 0, LK_ECORRUPT, "digest");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 16, 9), 0, LK_ECORRUPT, "do not follow");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 32, 9), 0, LK_ECORRUPT, "no source");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 36, 1), 0, LK_ECORRUPT, "mask is not its prompt");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 36, 99), 0, LK_ECORRUPT, "prompt is longer");
    changed("train", "documents", edited_part(LK__DOCUMENTS, 50, 99), 0, LK_ECORRUPT, "digest");
    changed("train", "index", edited_part(LK__INDEX, 0, 1), 0, LK_ECORRUPT, "does not begin");
    changed("train", "mask", edited_part(LK__MASK, 0, 0), 0, LK_ECORRUPT, "mask is not its prompt");
}

static void long_documents_have_an_index(void **state) {
    (void)state;
    random_begin("long_documents_have_an_index");
    struct lk_buf text = LK_BUF_INIT;
    for (int i = 0; i < 40000; i++) OK(lk_buf_printf(&text, "w%zx%c", random_below(9000), random_below(9) ? ' ' : '\n'));
    struct lk_dataset *d = open_built(file("long.txt", text.data, text.size), 0.25);
    struct lk_document doc;
    OK(lk_dataset_document(d, LK_HELD_OUT, 0, &doc, &test_err));
    for (int i = 0; i < 300; i++) {
        uint64_t a = doc.token_begin + random_below((size_t)(doc.token_end - doc.token_begin)), b, e;
        uint64_t z = a + random_below((size_t)(doc.token_end - a) + 1);
        OK(lk_dataset_byte_range(d, LK_HELD_OUT, 0, a, z, &b, &e, &test_err));
        struct lk_buf out = LK_BUF_INIT;
        for (uint64_t at = a; at < z && at < a + 50; at++) {
            uint32_t id = lk__dataset_token_at(d, &d->splits[LK_HELD_OUT], at);
            OK(lk_tokenizer_decode(tok, &id, 1, &out, &test_err));
        }
        assert_true(out.size <= e - b);
        if (out.size) assert_memory_equal(out.data, text.data + doc.source_offset + b, out.size);
        lk_buf_release(&out);
    }
    uint64_t b, e;
    OK(lk_dataset_byte_range(d, LK_HELD_OUT, 0, doc.token_begin, doc.token_end, &b, &e, &test_err));
    assert_int_equal(b, 0);
    assert_int_equal(e, doc.size_bytes);
    lk_dataset_close(d);
    lk_buf_release(&text);
}

static void a_record_larger_than_memory_is_refused(void **state) {
    (void)state;
    size_t size = (size_t)4 << 20;
    char *line = lk_alloc(size);
    struct lk_root root;
    memset(line, 'a', size);
    memcpy(line, "{\"text\": \"", 10);
    memcpy(line + size - 3, "\"}\n", 3);
    const char *paths[] = {gz_file("large.jsonl.gz", line, size)};
    setenv("LOCKSTEP_MEMORY_BYTES", "1000000", 1);
    FAILS(build_many(paths, 1, 0, NULL, &root), LK_ENOMEM, "large.jsonl.gz: a record takes more than the 1.0 MB of memory");
    unsetenv("LOCKSTEP_MEMORY_BYTES");
    OK(build_many(paths, 1, 0, NULL, &root));
    lk_free(line);
}

static void every_fault_is_reported(void **state) {
    (void)state;
    static const char lines[] = "{\"prompt\": \"the line\", \"response\": \" was\"}\n{\"text\": \"and words\"}\n";
    const char *paths[] = {gz_file("q.jsonl.gz", lines, sizeof lines - 1), file("q.txt", bible, sizeof bible - 1)};
    struct lk_root root, again;
    struct lk_dataset *d;
    lk__alloc_fail_at(0);
    OK(build_many(paths, 2, 0.2, NULL, &root));
    uint64_t count = lk__alloc_count();
    for (uint64_t n = 1; n <= count; n++) {
        lk__alloc_fail_at(n);
        int code = build_many(paths, 2, 0.2, NULL, &again);
        lk__alloc_fail_at(0);
        if (!code && !lk_root_equal(&root, &again)) fail_msg("allocation %llu failed unseen", (unsigned long long)n);
    }
    lk__alloc_fail_at(0);
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    count = lk__alloc_count();
    lk_dataset_close(d);
    for (uint64_t n = 1; n <= count; n++) {
        lk__alloc_fail_at(n);
        assert_int_not_equal(lk_dataset_open(store, &root, true, &d, &test_err), 0);
        lk__alloc_fail_at(0);
        assert_null(d);
        lk__alloc_fail_at(n);
        assert_int_not_equal(lk_dataset_verify(store, &root, &test_err), 0);
        lk__alloc_fail_at(0);
    }
    for (uint64_t n = 1; n < 200; n++) {
        lk__file_fail_at(n, ENOSPC);
        int code = build_many(paths, 2, 0.2, NULL, &again);
        bool reached = lk__file_call_count() >= n;
        lk__file_fail_at(0, 0);
        if (!code) assert_true(lk_root_equal(&root, &again));
        if (!reached) break;
    }
    OK(build_many(paths, 2, 0.2, NULL, &again));
    OK(lk_dataset_verify(store, &again, &test_err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_text_is_cut_after_a_line),
        cmocka_unit_test(cuts_without_lines_spare_characters),
        cmocka_unit_test(records_have_masks_lines_and_ranges),
        cmocka_unit_test(any_pool_gives_the_same_root),
        cmocka_unit_test(the_root_knows_no_directory),
        cmocka_unit_test(packed_lines_are_those_of_the_file),
        cmocka_unit_test(a_wrong_guess_is_noticed_early),
        cmocka_unit_test(a_refused_guess_is_measured),
        cmocka_unit_test(large_vocabularies_take_four_bytes),
        cmocka_unit_test(bad_input_is_named),
        cmocka_unit_test(a_flipped_bit_is_found_and_named),
        cmocka_unit_test(parts_that_do_not_fit_are_found),
        cmocka_unit_test(long_documents_have_an_index),
        cmocka_unit_test(every_fault_is_reported),
        cmocka_unit_test(a_record_larger_than_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
