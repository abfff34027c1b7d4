/* lockstep kv scan|export|import: many rows. */
#include "kv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct lk_bytes bytes_of(const struct lk_buf *b) {
    return lk_bytes(b->data ? b->data : "", b->size);
}

/* --- a range --------------------------------------------------------------------------------------------- */

static struct {
    const char *from, *to, *prefix;
    uint64_t limit;
    bool reverse, keys;
} wanted;
#define RANGE                                                                                                              \
    CMD_STRING("--from", "KEY", &wanted.from, NULL, "begin at this key"),                                                  \
        CMD_STRING("--to", "KEY", &wanted.to, NULL, "end before this key"),                                                \
        CMD_STRING("--prefix", "KEY", &wanted.prefix, NULL, "only keys that begin so")

struct range {
    struct lk_buf from, to;
};
static int take_range(const struct cmd_context *c, struct range *r) {
    *r = (struct range){LK_BUF_INIT, LK_BUF_INIT};
    if (wanted.prefix && (wanted.from || wanted.to)) return cmd_usage_error(c, "--prefix, or --from and --to");
    int code = wanted.from || wanted.prefix ? kv_take(c, wanted.from ? wanted.from : wanted.prefix, &r->from) : CMD_OK;
    if (!code && wanted.to) code = kv_take(c, wanted.to, &r->to);
    if (code || !wanted.prefix) return code;
    struct lk_err err;
    if (lk_buf_reserve(&r->to, r->from.size + 1)) return cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    lk_kv_prefix_end(bytes_of(&r->from), (unsigned char *)r->to.data, &r->to.size);
    return CMD_OK;
}
static void release_range(struct range *r) {
    lk_buf_release(&r->from);
    lk_buf_release(&r->to);
}

/* A line of text or JSON. */
static int print_row(struct lk_buf *line, struct lk_bytes key, struct lk_bytes value, bool json, struct lk_err *err) {
    line->size = 0;
    int code = json ? kv_json_write(line, key, value, wanted.keys) : kv_write(line, key);
    if (!code && !json && !wanted.keys) code = lk_buf_append(line, "\t", 1);
    if (!code && !json && !wanted.keys) code = kv_write(line, value);
    if (!code) code = lk_buf_append(line, "\n", 1);
    if (code) return lk_fail(err, LK_ENOMEM, "out of memory for a row of %zu bytes", key.size + value.size);
    if (fwrite(line->data, 1, line->size, stdout) == line->size) return 0;
    return lk_fail_errno(err, "cannot write to standard output");
}

static int print_range(struct cmd_context *c, bool json) {
    struct lk_err err = {0};
    struct lk_buf line = LK_BUF_INIT;
    struct lk_kv *kv = NULL;
    struct lk_kv_txn *t = NULL;
    struct lk_kv_cursor *cursor = NULL;
    struct range r;
    uint64_t left = wanted.limit ? wanted.limit : UINT64_MAX;
    int code = take_range(c, &r);
    if (!code) code = kv_open(c, LK_READ, &kv);
    if (code) return release_range(&r), code;
    int failed = lk_kv_begin(kv, false, &t, &err);
    if (!failed) failed = lk_kv_cursor_open(t, bytes_of(&r.from), bytes_of(&r.to), &cursor, &err);
    if (!failed) failed = wanted.reverse ? lk_kv_cursor_last(cursor, &err) : lk_kv_cursor_first(cursor, &err);
    while (!failed && left--) {
        failed = print_row(&line, lk_kv_cursor_key(cursor), lk_kv_cursor_value(cursor), json, &err);
        if (!failed && left)
            failed = wanted.reverse ? lk_kv_cursor_previous(cursor, &err) : lk_kv_cursor_next(cursor, &err);
    }
    lk_kv_cursor_close(cursor);
    lk_kv_abort(t);
    kv_close(c, kv);
    lk_buf_release(&line);
    release_range(&r);
    return failed && failed != LK_ENOTFOUND ? cmd_fail(&err) : CMD_OK;
}

static int scan(struct cmd_context *c) {
    return print_range(c, c->json);
}
const struct cmd cmd_kv_scan = {
    "kv scan",
    "",
    0,
    0,
    "Print rows in the order of their keys: the key, a tab, the value.",
    (const struct cmd_option[]){RANGE, CMD_FLAG("--reverse", &wanted.reverse, "from the last key to the first"),
                                CMD_FLAG("--keys", &wanted.keys, "keys only"),
                                CMD_U64("--limit", "N", &wanted.limit, 1, UINT64_MAX, NULL, "N rows at most"), KV_FORM,
                                CMD_END},
    "\\\\, \\t, \\n, \\r and \\xNN stand for bytes that would not be seen, here and in keys that are given. With --json a "
    "line "
    "for each row, as `lockstep kv export` writes it.",
    scan,
};

static int export(struct cmd_context *c) {
    return print_range(c, true);
}
const struct cmd cmd_kv_export = {
    "kv export",
    "",
    0,
    0,
    "Print rows as lines of JSON, for `lockstep kv import`.",
    (const struct cmd_option[]){RANGE, KV_FORM, CMD_END},
    "One snapshot, in the order of keys: {\"key\":TEXT,\"value\":TEXT}; what is not text has key_base64 or value_base64 "
    "instead. --hex and --base64 are for the keys of --from, --to and --prefix.",
    export,
};

/* --- import ---------------------------------------------------------------------------------------------- */

#define BATCH_ROWS  1000
#define BATCH_BYTES ((size_t)64 << 20)

struct row {
    size_t key, value, key_size, value_size; /* in bytes of the batch */
};
struct batch {
    struct row rows[BATCH_ROWS];
    size_t count;
    struct lk_buf bytes;
};

static int put_batch(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct batch *b = arg;
    int code = 0;
    for (size_t i = 0; i < b->count && !code; i++) {
        const struct row *r = &b->rows[i];
        code = lk_kv_put(t, lk_bytes(b->bytes.data + r->key, r->key_size),
                         lk_bytes(b->bytes.data + r->value, r->value_size), err);
    }
    return code;
}

/* A row of Lockstep's own may come in if it is there already, the same, as `kv export` prints the format. *skip: it is. */
static int check_ours(struct lk_kv *kv, struct lk_bytes key, struct lk_bytes value, bool *skip, struct lk_err *err) {
    struct lk_err unused;
    struct lk_kv_txn *t;
    struct lk_bytes old;
    int code = kv_check_ours(key, err);
    *skip = false;
    if (!code || lk_kv_begin(kv, false, &t, &unused)) return code;
    *skip = lk_kv_get(t, key, &old, &unused) == 0 && old.size == value.size &&
            (!old.size || memcmp(old.data, value.data, old.size) == 0);
    lk_kv_abort(t);
    return *skip ? 0 : code;
}

static int add_row(struct lk_kv *kv, struct batch *b, const struct lk_buf *key, const struct lk_buf *value,
                   struct lk_err *err) {
    struct row *r = &b->rows[b->count];
    if (key->size < 1 || key->size > LK_KV_KEY_MAX || !key->data[0])
        return lk_fail(err, LK_EINVAL, "a key of %zu bytes: keys have 1 to %d, the first is not zero", key->size,
                       LK_KV_KEY_MAX);
    if (value->size > LK_KV_VALUE_MAX)
        return lk_fail(err, LK_EINVAL, "a value of %zu bytes: values have %zu at most", value->size, LK_KV_VALUE_MAX);
    bool skip;
    int code = check_ours(kv, bytes_of(key), bytes_of(value), &skip, err);
    if (code || skip) return code;
    *r = (struct row){b->bytes.size, b->bytes.size + key->size, key->size, value->size};
    if (lk_buf_append(&b->bytes, key->data, key->size) ||
        lk_buf_append(&b->bytes, value->data ? value->data : "", value->size))
        return lk_fail(err, LK_ENOMEM, "out of memory for a row of %zu bytes", key->size + value->size);
    b->count++;
    return 0;
}

static int flush(struct lk_kv *kv, struct batch *b, bool last, uint64_t *rows, struct lk_err *err) {
    int code = lk_kv_update(kv, put_batch, b, last ? LK_DURABLE : LK_LAZY, NULL, err);
    if (code) return code;
    *rows += b->count;
    b->count = b->bytes.size = 0;
    return 0;
}

static int read_rows(struct lk_kv *kv, FILE *f, const char *name, uint64_t *rows, struct lk_err *err) {
    struct batch *b = lk_calloc(1, sizeof *b);
    struct lk_buf key = LK_BUF_INIT, value = LK_BUF_INIT;
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;
    int code = b ? 0 : lk_fail(err, LK_ENOMEM, "out of memory importing rows");
    while (!code && (size = getline(&line, &capacity, f)) >= 0) {
        number++;
        if (strspn(line, " \t\r\n") == (size_t)size) continue;
        const char *wrong = kv_json_read(line, (size_t)size, &key, &value);
        code = wrong ? lk_fail(err, LK_EINVAL, "%s", wrong) : add_row(kv, b, &key, &value, err);
        if (code)
            lk_fail_prefix(err, code, "%s:%zu", name, number);
        else if (b->count == BATCH_ROWS || b->bytes.size >= BATCH_BYTES)
            code = flush(kv, b, false, rows, err);
    }
    if (!code && ferror(f)) code = lk_fail_errno(err, "cannot read %s", name);
    if (!code) code = flush(kv, b, true, rows, err); /* makes those before durable, too */
    if (b) lk_buf_release(&b->bytes);
    lk_buf_release(&key);
    lk_buf_release(&value);
    lk_free(b);
    free(line);
    return code;
}

static int import(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv *kv = NULL;
    uint64_t rows = 0;
    const char *path = c->argument_count ? c->arguments[0] : "-";
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "re");
    if (!f) return cmd_fail((lk_fail_errno(&err, "cannot open %s", path), &err));
    int code = kv_open(c, LK_CREATE, &kv);
    if (!code && read_rows(kv, f, standard ? "standard input" : path, &rows, &err)) {
        code = cmd_fail(&err);
        if (rows) fprintf(stderr, "%" PRIu64 " rows before it are in the store; the same import again is safe\n", rows);
    }
    if (!standard) fclose(f);
    kv_close(c, kv);
    if (!code && c->json) return cmd_print_json(json_pack("{s:I}", "rows", (json_int_t)rows));
    if (!code) printf("imported %" PRIu64 " rows\n", rows);
    return code;
}
const struct cmd cmd_kv_import = {
    "kv import",
    "[FILE]",
    0,
    1,
    "Write the rows of lines of JSON (standard input without FILE), 1,000 in a transaction.",
    (const struct cmd_option[]){KV_FORCE, CMD_END},
    "A line is {\"key\":TEXT,\"value\":TEXT}, or has key_base64 or value_base64 instead. A row that is there is written "
    "over; rows of Lockstep's own pass if they are there already, the same. In a store of Lockstep's, keys of your own "
    "begin with user/: other keys stop `lockstep gc`.",
    import,
};
