/* The store's own kinds of rows, and finding the kind of a row. */
#include "lockstep/base/mem.h"
#include "lockstep/store/gc.h"
#include <string.h>

int lk_row_tell_hex(const char *text, size_t size, lk_row_tell_fn *tell, void *arg) {
    int code = LK_OK;
    for (size_t i = 0, n; i < size && !code; i += n ? n : 1) {
        for (n = 0;
             i + n < size && ((text[i + n] >= '0' && text[i + n] <= '9') || (text[i + n] >= 'a' && text[i + n] <= 'f'));)
            n++;
        if (n != 64) continue;
        char hex[LK_ROOT_HEX];
        struct lk_root root;
        memcpy(hex, text + i, 64);
        hex[64] = 0;
        if (lk_root_parse(hex, &root)) code = tell(arg, &root);
    }
    return code;
}

/* "n/KIND/NAME", "t/table/NAME" and the like as "KIND NAME". */
static int print_name(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out) {
    const char *k = key.data;
    (void)value;
    for (size_t i = 2; i < key.size; i++)
        if (lk_buf_append(out, k[i] == '/' ? " " : &k[i], 1)) return LK_ENOMEM;
    return LK_OK;
}
static int name_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *err) {
    struct lk_root root;
    if (value.size != sizeof root.bytes)
        return lk_fail(err, LK_ECORRUPT,
                       "the row of the name %.*s has %zu bytes, not 32; restore the store from a copy, or give the name "
                       "anew",
                       (int)(key.size - 2), (const char *)key.data + 2, value.size);
    memcpy(root.bytes, value.data, sizeof root.bytes);
    return tell(arg, &root);
}

static int pin_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *err) {
    struct lk_err why;
    json_t *record = lk_json_parse(value.data, value.size, "its record", &why);
    const char *token = json_string_value(json_object_get(record, "token"));
    struct lk_root root;
    bool whole = token && lk_root_parse(token, &root);
    json_decref(record);
    if (!record && why.code == LK_ENOMEM) return lk_fail(err, LK_ENOMEM, "%s", why.message);
    if (whole) return tell(arg, &root);
    int n = (int)(key.size - 6);
    const char *name = (const char *)key.data + 6;
    return lk_fail(
        err, LK_ECORRUPT,
        "the row of the pin %.*s is damaged; restore the store from a copy, or give it up: `lockstep pin release "
        "%.*s`",
        n, name, n, name);
}
static int print_pin(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out) {
    (void)value;
    return lk_buf_printf(out, "pin %.*s", (int)(key.size - 6), (const char *)key.data + 6);
}

static int upload_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *err) {
    char hex[LK_ROOT_HEX] = "";
    struct lk_root root;
    (void)value;
    if (key.size > 64) memcpy(hex, (const char *)key.data + key.size - 64, 64);
    if (lk_root_parse(hex, &root)) return tell(arg, &root);
    return lk_fail(err, LK_ECORRUPT, "the row %.*s of an upload names no root; remove it: `lockstep kv del --force`",
                   (int)(key.size < 100 ? key.size : 100), (const char *)key.data);
}
static int print_upload(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out) {
    (void)key;
    return lk_buf_printf(out, "being put by %.*s", (int)value.size, (const char *)value.data);
}

static const struct lk_row_kind own[] = {
    {.prefix = "format", .name = "format", .whole = true},
    {.prefix = "n/", .name = "names", .holds = name_holds, .print = print_name},
    {.prefix = "h/", .name = "what names pointed at"}, /* what a name once pointed at needs no content */
    {.prefix = "bench/", .name = "rows of a benchmark that runs or was killed"},
    {.prefix = "r/lease/", .name = "leases"},
    {.prefix = "r/sweep/", .name = "what is being removed"},
    {.prefix = "u/", .name = "blobs that are being put", .holds = upload_holds, .print = print_upload, .aside = true},
    {.prefix = "r/pin/", .name = "pins", .holds = pin_holds, .print = print_pin, .aside = true},
    {.prefix = "user/", .name = "users' own rows"}, /* rows of users' own: who wants to keep a blob gives it a name */
    {.prefix = "t/", .name = "tables and their pins", .print = print_name},
    {.prefix = "T", .name = "cells of tables"}, /* bytes, which name no blob */
    {0},
};

static const struct lk_row_kind *longest(const struct lk_row_kind *k, struct lk_bytes key, const struct lk_row_kind *best) {
    for (; k->prefix; k++) {
        size_t n = strlen(k->prefix);
        if (key.size < n || (k->whole && key.size != n) || memcmp(key.data, k->prefix, n) != 0) continue;
        if (!best || n > strlen(best->prefix)) best = k;
    }
    return best;
}
const struct lk_row_kind *lk_row_kind_of(lk_row_kinds tables, struct lk_bytes key) {
    const struct lk_row_kind *best = longest(own, key, NULL);
    for (; *tables; tables++) best = longest(*tables, key, best);
    return best;
}
