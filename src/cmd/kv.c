/* lockstep kv get|put|del|stats|check|copy|compact */
#include "kv.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static struct lk_bytes bytes_of(const struct lk_buf *b) {
    return lk_bytes(b->data ? b->data : "", b->size);
}

/* --- open ------------------------------------------------------------------------------------------------ */

int kv_open(struct cmd_context *c, enum lk_access how, struct lk_kv **out) {
    struct lk_err err = {0};
    bool scheme = strstr(c->store_url, "://") || strncmp(c->store_url, "file:", 5) == 0;
    char *url = lk_asprintf("%s%s", scheme ? "" : "file:", c->store_url);
    *out = NULL;
    int code =
        url ? lk_kv_open(url, how == LK_CREATE ? LK_WRITE : how, out, &err) : lk_fail(&err, LK_ENOMEM, "out of memory");
    lk_free(url);
    if (code == LK_ENOTFOUND && how == LK_CREATE) {
        if (cmd_open_store(c, how)) return CMD_FAILED;
        *out = c->store->kv;
        return CMD_OK;
    }
    if (code == LK_ENOTFOUND)
        lk_fail(&err, code,
                "there is no store at %s; `lockstep kv put` makes one, --store or LOCKSTEP_STORE names another place",
                c->store_url);
    return code ? cmd_fail(&err) : CMD_OK;
}
void kv_close(const struct cmd_context *c, struct lk_kv *kv) {
    if (!c->store) lk_kv_close(kv);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static int print_row(const struct cmd_context *c, struct lk_bytes key, struct lk_bytes value) {
    struct lk_buf out = LK_BUF_INIT;
    bool coded = kv_form.hex || kv_form.base64;
    int code = c->json ? kv_json_write(&out, key, value, false) : coded ? kv_write(&out, value) : 0;
    if (code) return lk_buf_release(&out), CMD_FAILED;
    if (c->json || coded)
        printf("%s\n", out.data ? out.data : "");
    else
        fwrite(value.data, 1, value.size, stdout); /* as it is */
    lk_buf_release(&out);
    return CMD_OK;
}

static int get(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_buf key = LK_BUF_INIT;
    struct lk_kv *kv;
    struct lk_kv_txn *t = NULL;
    struct lk_bytes value;
    char shown[200];
    int code = kv_take(c, c->arguments[0], &key);
    if (!code) code = kv_open(c, LK_READ, &kv);
    if (code) return lk_buf_release(&key), code;
    int failed = lk_kv_begin(kv, false, &t, &err);
    if (!failed) failed = lk_kv_get(t, bytes_of(&key), &value, &err);
    if (failed == LK_ENOTFOUND)
        lk_fail(&err, failed, "there is no row with the key \"%s\"; `lockstep kv scan --keys` lists them",
                kv_shown(bytes_of(&key), shown, sizeof shown));
    code = failed ? cmd_fail(&err) : print_row(c, bytes_of(&key), value);
    lk_kv_abort(t);
    kv_close(c, kv);
    lk_buf_release(&key);
    return code;
}
const struct cmd cmd_kv_get = {
    "kv get",
    "KEY",
    1,
    1,
    "Print the value of a row.",
    (const struct cmd_option[]){KV_FORM, CMD_END},
    "Without --hex, --base64 and --json the value is printed as it is, byte by byte.\n"
    "In a key \\\\, \\t, \\n, \\r and \\xNN stand for bytes.",
    get,
};

struct row {
    struct lk_buf key, value;
};
static int put_row(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct row *r = arg;
    return lk_kv_put(t, bytes_of(&r->key), bytes_of(&r->value), err);
}
static int put(struct cmd_context *c) {
    struct lk_err err = {0};
    struct row r = {LK_BUF_INIT, LK_BUF_INIT};
    struct lk_kv *kv = NULL;
    bool given = c->argument_count > 1;
    int code = kv_take(c, c->arguments[0], &r.key);
    if (!code && given) code = kv_take(c, c->arguments[1], &r.value);
    if (!code && (kv_check_ours(bytes_of(&r.key), &err) || (!given && cmd_read_input(NULL, &r.value, &err))))
        code = cmd_fail(&err);
    if (!code) code = kv_open(c, LK_CREATE, &kv);
    if (!code && lk_kv_update(kv, put_row, &r, LK_DURABLE, NULL, &err)) code = cmd_fail(&err);
    kv_close(c, kv);
    lk_buf_release(&r.key);
    lk_buf_release(&r.value);
    return code;
}
const struct cmd cmd_kv_put = {
    "kv put",
    "KEY [VALUE]",
    1,
    2,
    "Write a row; without VALUE, standard input as it is.",
    (const struct cmd_option[]){KV_FORM, KV_FORCE, CMD_END},
    "In arguments \\\\, \\t, \\n, \\r and \\xNN stand for bytes. Keys have 1 to 8,192 bytes and do not begin with a zero "
    "byte; values up to 100 MiB. In a store of Lockstep's, keys of your own begin with user/: others stop `lockstep gc`.",
    put,
};

static bool by_prefix;
struct deleting {
    struct row *rows; /* their keys */
    size_t count;
    uint64_t deleted;
};
static int delete_prefix(struct lk_kv_txn *t, struct lk_bytes prefix, uint64_t *deleted, struct lk_err *err) {
    unsigned char end[LK_KV_KEY_MAX];
    struct lk_kv_cursor *cursor;
    size_t size = 0;
    if (prefix.size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_EINVAL, "a prefix of %zu bytes; keys have %d at most", prefix.size, LK_KV_KEY_MAX);
    lk_kv_prefix_end(prefix, end, &size);
    int code = lk_kv_cursor_open(t, prefix, lk_bytes(end, size), &cursor, err);
    if (code) return code;
    for (code = lk_kv_cursor_first(cursor, err); !code; code = lk_kv_cursor_next(cursor, err)) ++*deleted;
    lk_kv_cursor_close(cursor);
    return code == LK_ENOTFOUND ? lk_kv_delete_range(t, prefix, lk_bytes(end, size), err) : code;
}
static int delete_rows(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct deleting *d = arg;
    int code = 0;
    d->deleted = 0;
    for (size_t i = 0; i < d->count && !code; i++) {
        struct lk_bytes key = bytes_of(&d->rows[i].key), value;
        if (by_prefix) {
            code = delete_prefix(t, key, &d->deleted, err);
            continue;
        }
        code = lk_kv_get(t, key, &value, err);
        if (!code) d->deleted++, code = lk_kv_delete(t, key, err);
        if (code == LK_ENOTFOUND) code = 0;
    }
    return code;
}
static int del(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv *kv = NULL;
    struct deleting d = {.rows = lk_calloc((size_t)c->argument_count, sizeof *d.rows), .count = (size_t)c->argument_count};
    int code = d.rows ? CMD_OK : cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    for (size_t i = 0; i < d.count && !code; i++) {
        code = kv_take(c, c->arguments[i], &d.rows[i].key);
        struct lk_bytes key = bytes_of(&d.rows[i].key);
        if (!code && (by_prefix ? kv_check_ours_prefix(key, &err) : kv_check_ours(key, &err))) code = cmd_fail(&err);
    }
    if (!code) code = kv_open(c, LK_WRITE, &kv);
    if (!code && lk_kv_update(kv, delete_rows, &d, LK_DURABLE, NULL, &err)) code = cmd_fail(&err);
    kv_close(c, kv);
    if (!code && c->json)
        code = cmd_print_json(json_pack("{s:I}", "deleted", (json_int_t)d.deleted));
    else if (!code)
        printf("deleted %" PRIu64 " row%s\n", d.deleted, d.deleted == 1 ? "" : "s");
    for (size_t i = 0; d.rows && i < d.count; i++) lk_buf_release(&d.rows[i].key);
    lk_free(d.rows);
    return code;
}
const struct cmd cmd_kv_del = {
    "kv del",
    "KEY...",
    1,
    -1,
    "Delete rows, all of them or none; absent ones are no error.",
    (const struct cmd_option[]){CMD_FLAG("--prefix", &by_prefix, "all rows whose keys begin with a KEY"), KV_FORM, KV_FORCE,
                                CMD_END},
    NULL,
    del,
};

/* --- the whole ------------------------------------------------------------------------------------------- */

static int stats(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv_stats s;
    struct lk_kv *kv;
    char size[32], unused[32], limit[32];
    if (kv_open(c, LK_READ, &kv)) return CMD_FAILED;
    int code = lk_kv_stats(kv, &s, &err);
    kv_close(c, kv);
    if (code) return cmd_fail(&err);
    if (c->json)
        return cmd_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "engine", s.engine, "rows",
                                        (json_int_t)s.rows, "size_bytes", (json_int_t)s.size_bytes, "free_bytes",
                                        (json_int_t)s.free_bytes, "limit_bytes", (json_int_t)s.limit_bytes, "depth",
                                        (json_int_t)s.depth, "readers", (json_int_t)s.readers, "readers_dead",
                                        (json_int_t)s.readers_dead, "timestamp_ms", (json_int_t)s.timestamp_ms));
    printf("engine   %s\nrows     %" PRIu64 "\nsize     %s, of which %s are free for later rows\n", s.engine, s.rows,
           lk_format_bytes(s.size_bytes, size), lk_format_bytes(s.free_bytes, unused));
    if (s.limit_bytes) printf("limit    %s\n", lk_format_bytes(s.limit_bytes, limit));
    if (s.depth) printf("depth    %u\n", s.depth);
    printf("readers  %u", s.readers);
    if (s.readers_dead) printf("; the slots of %u dead ones were cleared", s.readers_dead);
    printf("\ntime     %lld ms, of the last commit that asked for one\n", (long long)s.timestamp_ms);
    return CMD_OK;
}
const struct cmd cmd_kv_stats = {"kv stats", "",   0,    0, "Show how many rows the store has and how much room they take.",
                                 NULL,       NULL, stats};

static int check(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv_check r;
    struct lk_kv *kv;
    char keys[32], values[32];
    if (kv_open(c, LK_READ, &kv)) return CMD_FAILED;
    int code = lk_kv_check(kv, &r, &err);
    kv_close(c, kv);
    if (code) return cmd_fail(&err);
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I, s:I}", "rows", (json_int_t)r.rows, "key_bytes",
                                        (json_int_t)r.key_bytes, "value_bytes", (json_int_t)r.value_bytes, "layers",
                                        (json_int_t)r.layers));
    printf("%" PRIu64 " rows are there and in order: %s of keys, %s of values\n", r.rows,
           lk_format_bytes(r.key_bytes, keys), lk_format_bytes(r.value_bytes, values));
    return CMD_OK;
}
const struct cmd cmd_kv_check = {
    "kv check",
    "",
    0,
    0,
    "Read every row, forwards and backwards, and say whether all is in order.",
    NULL,
    "What rows mean is not looked at: `lockstep verify` and `lockstep dataset verify` do that.",
    check};

static bool compactly;
/* A store's rows begin with its format; then the copy is opened once, so that it is a store without blobs. */
static int make_store(struct lk_kv *kv, const char *dir, struct lk_err *err) {
    struct lk_store *store = NULL;
    struct lk_kv_txn *t;
    struct lk_bytes format;
    int code = lk_kv_begin(kv, false, &t, err);
    if (code) return code;
    code = lk_kv_get(t, lk_bytes("format", 6), &format, err);
    lk_kv_abort(t);
    if (code) return code == LK_ENOTFOUND ? 0 : code;
    code = lk_store_open(dir, LK_CREATE, &store, err);
    lk_store_close(store);
    return code;
}
static int copy(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv *kv;
    const char *dir = c->arguments[0];
    if (kv_open(c, LK_READ, &kv)) return CMD_FAILED;
    int code = lk_kv_copy(kv, dir, compactly, &err);
    if (!code) code = make_store(kv, dir, &err);
    kv_close(c, kv);
    if (code) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s}", "copy", dir));
    printf("%s is a store with the same rows; blobs are not copied\n", dir);
    return CMD_OK;
}
const struct cmd cmd_kv_copy = {
    "kv copy",
    "DIR",
    1,
    1,
    "Copy all rows to the store DIR, while others go on reading and writing.",
    (const struct cmd_option[]){
        CMD_FLAG("--compact", &compactly, "without free pages and in the order of keys; takes longer"), CMD_END},
    "A snapshot: rows only. Blobs are files that never change, so copy them after the rows: `cp -a`, rsync.",
    copy,
};

static int compact(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv_stats before, after;
    struct lk_kv *kv;
    char was[32], is[32];
    if (kv_open(c, LK_WRITE, &kv)) return CMD_FAILED;
    int code = lk_kv_stats(kv, &before, &err);
    if (!code) code = lk_kv_compact(kv, &err);
    if (!code) code = lk_kv_stats(kv, &after, &err);
    kv_close(c, kv);
    if (code) return cmd_fail(&err);
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I}", "before_bytes", (json_int_t)before.size_bytes, "after_bytes",
                                        (json_int_t)after.size_bytes));
    printf("%s before, %s now\n", lk_format_bytes(before.size_bytes, was), lk_format_bytes(after.size_bytes, is));
    return CMD_OK;
}
const struct cmd cmd_kv_compact = {
    "kv compact",
    "",
    0,
    0,
    "Give the room of deleted rows back to the disk.",
    NULL,
    "No other process may have the store open; for a while the disk holds the new file beside the old one.",
    compact,
};
