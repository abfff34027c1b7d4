/* Pins: rows r/pin/NAME that hold a manifest of roots. docs/formats.md has the bytes. */
#include "store/pin.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include "store/marks.h"
#include "store/sweep.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIND     "pin"
#define FORMAT   "pin-0"
#define ATTEMPTS 100
#define LONGEST  ((int64_t)100 * 366 * 86400 * 1000)

/* --- Rows ------------------------------------------------------------------------------------------------ */

static int damaged(const char *name, struct lk_err *err) {
    return lk_fail(err, LK_ECORRUPT,
                   "the row of the pin %s is damaged; restore the store from a copy, or give it up: `lockstep pin release "
                   "%s`",
                   name, name);
}
static int parse(const char *name, const json_t *record, struct lk_pin *out, struct lk_err *err) {
    const char *token = json_string_value(json_object_get(record, "token"));
    const char *holder = json_string_value(json_object_get(record, "holder"));
    const json_t *at = json_object_get(record, "at_ms"), *until = json_object_get(record, "until_ms");
    *out = (struct lk_pin){.at_ms = json_integer_value(at), .until_ms = json_integer_value(until)};
    snprintf(out->name, sizeof out->name, "%s", name);
    snprintf(out->holder, sizeof out->holder, "%s", holder ? holder : "");
    if (!token || !holder || !lk_root_parse(token, &out->token) || out->at_ms <= 0 || !json_is_integer(until) ||
        out->until_ms < 0)
        return damaged(name, err);
    return LK_OK;
}
static int read_pin(struct lk_kv_txn *txn, const char *name, struct lk_pin *out, struct lk_err *err) {
    json_t *record;
    int code = lk_record_get(txn, KIND, name, &record, err);
    if (code == LK_ECORRUPT) return damaged(name, err);
    if (!code) code = parse(name, record, out, err);
    json_decref(record);
    return code;
}
static int write_pin(struct lk_kv_txn *txn, const struct lk_pin *p, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *record = json_pack("{s:s, s:I, s:I, s:s}", "token", lk_root_hex(&p->token, hex), "at_ms", (json_int_t)p->at_ms,
                               "until_ms", (json_int_t)p->until_ms, "holder", p->holder);
    int code = record ? lk_record_put(txn, KIND, p->name, record, err)
                      : lk_fail(err, LK_ENOMEM, "no memory for the pin %s", p->name);
    json_decref(record);
    return code;
}

int lk__store_pin_time(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    int code = lk__kv_timestamp(txn, out, err);
    if (code || txn->write) return code;
    int64_t now = lk_clock_wall_ms();
    if (txn->kv->ops->now) code = txn->kv->ops->now(txn, &now, err);
    if (now > *out) *out = now;
    return code;
}
static bool is_over(const struct lk_pin *p, int64_t now_ms) {
    return p->until_ms && p->until_ms <= now_ms;
}

bool lk__store_pin_row_is_over(struct lk_bytes key, struct lk_bytes value, int64_t now_ms) {
    static const char prefix[] = "r/" KIND "/";
    struct lk_pin pin;
    if (key.size < sizeof prefix || memcmp(key.data, prefix, sizeof prefix - 1) != 0) return false;
    json_t *record = lk_json_parse(value.data, value.size, "a pin", NULL);
    bool over = record && !parse("", record, &pin, NULL) && is_over(&pin, now_ms);
    json_decref(record);
    return over;
}

int lk_pin_get(struct lk_kv_txn *txn, const char *name, struct lk_pin *out, struct lk_err *err) {
    int64_t now;
    int code = read_pin(txn, name, out, err);
    if (!code) code = lk__store_pin_time(txn, &now, err);
    if (!code) out->over = is_over(out, now);
    return code;
}

struct listing {
    int64_t now_ms;
    lk_pin_fn *fn;
    void *arg;
    struct lk_err *err;
};
static int on_record(void *arg, const char *name, json_t *record) {
    struct listing *l = arg;
    struct lk_pin pin;
    int code = record ? parse(name, record, &pin, l->err) : damaged(name, l->err);
    if (code) return code;
    pin.over = is_over(&pin, l->now_ms);
    return l->fn(l->arg, &pin);
}
int lk_pin_list(struct lk_kv_txn *txn, lk_pin_fn *fn, void *arg, struct lk_err *err) {
    struct listing l = {0, fn, arg, err};
    int code = lk__store_pin_time(txn, &l.now_ms, err);
    return code ? code : lk_record_list(txn, KIND, on_record, &l, err);
}

static int oldest(void *arg, const struct lk_pin *p) {
    int64_t *out = arg;
    if (p->at_ms < *out) *out = p->at_ms;
    return 0;
}
/* Does without the time, which would make others wait on engines that share commits. */
int lk_pin_watermark(struct lk_kv_txn *txn, int64_t *out_ms, struct lk_err *err) {
    struct listing l = {0, oldest, out_ms, err};
    *out_ms = INT64_MAX;
    return lk_record_list(txn, KIND, on_record, &l, err);
}

struct names {
    struct lk_buf text; /* each ended by a zero */
};
static int note_over(void *arg, const struct lk_pin *p) {
    struct names *n = arg;
    return p->over ? lk_buf_append(&n->text, p->name, strlen(p->name) + 1) : 0;
}
int lk_pin_expire(struct lk_kv_txn *txn, struct lk_err *err) {
    struct names n = {LK_BUF_INIT};
    int code = lk_pin_list(txn, note_over, &n, err);
    if (code == LK_ENOMEM) lk_fail(err, code, "no memory for the list of pins");
    for (size_t i = 0; i < n.text.size && !code; i += strlen(n.text.data + i) + 1)
        code = lk_record_delete(txn, KIND, n.text.data + i, err);
    lk_buf_release(&n.text);
    return code;
}

/* --- The manifest ---------------------------------------------------------------------------------------- */

static int by_root(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct lk_root));
}
/* {"format":"pin-0","roots":[...]}: a function of the set of roots alone. */
static int make_manifest(struct lk__store_marks *m, json_t **out, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *roots = json_array();
    if (m->count) qsort(m->list, m->count, sizeof *m->list, by_root); /* only to be read from now on */
    bool whole = roots != NULL;
    for (size_t i = 0; i < m->count && whole; i++)
        whole = json_array_append_new(roots, json_string(lk_root_hex(&m->list[i], hex))) == 0;
    *out = whole ? json_pack("{s:s, s:O}", "format", FORMAT, "roots", roots) : NULL;
    json_decref(roots);
    return *out ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for the list of what a pin holds");
}
/* txn NULL: of a snapshot of now. */
static int manifest_of(struct lk_store *store, lk_row_kinds kinds, struct lk_kv_txn *txn, json_t **out,
                       struct lk_err *err) {
    struct lk__store_marks m = {.store = store,
                                .kinds = kinds,
                                .content = true,
                                .failed = "no pin, since what it has to hold is not known",
                                .texts = LK_BUF_INIT,
                                .absent = LK_BUF_INIT};
    *out = NULL;
    int code = txn ? lk__store_marks_rows(&m, txn, err) : lk__store_marks_snapshot(&m, err);
    if (!code) code = make_manifest(&m, out, err);
    lk__store_marks_release(&m);
    return code;
}
int lk_pin_token(struct lk_store *store, lk_row_kinds kinds, struct lk_root *out, struct lk_err *err) {
    json_t *manifest;
    int code = manifest_of(store, kinds, NULL, &manifest, err);
    if (!code) code = lk_manifest_root(manifest, out, err);
    json_decref(manifest);
    return code;
}

int lk_pin_roots(struct lk_store *store, const struct lk_root *token, struct lk_root **roots, size_t *count,
                 struct lk_err *err) {
    json_t *manifest;
    *roots = NULL, *count = 0;
    int code = lk_manifest_get(store, token, "what a pin holds", &manifest, err);
    if (code) return code;
    const json_t *list = json_object_get(manifest, "roots");
    const char *format = json_string_value(json_object_get(manifest, "format"));
    size_t n = json_array_size(list);
    bool whole = format && !strcmp(format, FORMAT) && json_is_array(list);
    *roots = lk_alloc((n + 1) * sizeof **roots);
    for (size_t i = 0; i < n && whole && *roots; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        whole = text && lk_root_parse(text, &(*roots)[i]);
    }
    if (!*roots)
        code = lk_fail(err, LK_ENOMEM, "no memory for what a pin holds");
    else if (!whole)
        code = lk_fail(err, LK_ECORRUPT, "what a pin's token names is no list of roots in the format " FORMAT);
    json_decref(manifest);
    if (code) lk_free(*roots), *roots = NULL;
    *count = code ? 0 : n;
    return code;
}

/* --- Taking, renewing, releasing ------------------------------------------------------------------------- */

struct taking {
    struct lk_store *store;
    lk_row_kinds kinds;
    int64_t for_ms;
    struct lk_pin pin;
    bool changed; /* the roots are others than those of pin.token */
};
static int take(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct taking *t = arg;
    struct lk_pin old;
    struct lk_err why;
    struct lk_root now;
    json_t *manifest;
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err);
    if (code) return code;
    code = lk_pin_get(txn, t->pin.name, &old, NULL); /* nobody wants to know the names that are nearest */
    if (code && code != LK_ENOTFOUND) code = lk_pin_get(txn, t->pin.name, &old, &why);
    if (!code && !old.over)
        return lk_fail(err, LK_EEXISTS, "the pin %s is held by %s; renew or release it, or take another name", old.name,
                       old.holder);
    if (code && code != LK_ENOTFOUND) return lk_fail(err, code, "%s", why.message);
    code = manifest_of(t->store, t->kinds, txn, &manifest, err);
    if (!code) code = lk_manifest_root(manifest, &now, err);
    json_decref(manifest);
    if (code) return code;
    t->changed = !lk_root_equal(&now, &t->pin.token);
    if (t->changed) return LK_OK;
    if ((code = lk_uploads_named(t->store, txn, &t->pin.token, 1, err))) return code; /* the row holds it */
    t->pin.at_ms = time;
    t->pin.until_ms = t->for_ms ? time + t->for_ms : 0;
    return write_pin(txn, &t->pin, err);
}

static int check(const char *name, int64_t for_ms, struct lk_err *err) {
    if (!lk_name_valid(name))
        return lk_fail(err, LK_EINVAL,
                       "\"%.140s\" is not a valid name for a pin: 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with . or -",
                       name);
    return for_ms < 0 || for_ms > LONGEST ? lk_fail(err, LK_EINVAL, "a pin is held for 0 (no end) to %lld ms, not %lld",
                                                    (long long)LONGEST, (long long)for_ms)
                                          : LK_OK;
}
static int set_holder(struct lk_pin *p, const char *holder, struct lk_err *err) {
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    if (!holder)
        snprintf(p->holder, sizeof p->holder, "process %ld on %s", (long)getpid(), *host ? host : "an unnamed host");
    else if (strlen(holder) >= sizeof p->holder)
        return lk_fail(err, LK_EINVAL, "who holds a pin is told in at most %zu bytes", sizeof p->holder - 1);
    else
        strcpy(p->holder, holder);
    json_t *text = json_string(p->holder); /* NULL: it is not UTF-8 */
    json_decref(text);
    return text ? LK_OK : lk_fail(err, LK_EINVAL, "who holds a pin is told in UTF-8");
}

/* The manifest is a blob, which no transaction waits for: it is put as a snapshot has it, and the transaction looks whether
 * its own rows give the same. */
int lk_pin_take(struct lk_store *store, lk_row_kinds kinds, const char *name, int64_t for_ms, const char *holder,
                struct lk_pin *out, struct lk_err *err) {
    struct taking t = {.store = store, .kinds = kinds, .for_ms = for_ms, .changed = true};
    int code = check(name, for_ms, err);
    if (!code) code = set_holder(&t.pin, holder, err);
    if (code) return code;
    strcpy(t.pin.name, name);
    for (int i = 0; i < ATTEMPTS && !code && t.changed; i++) {
        json_t *manifest;
        code = manifest_of(store, kinds, NULL, &manifest, err);
        if (!code) code = lk_manifest_put(store, manifest, &t.pin.token, err);
        json_decref(manifest);
        lk__store_at("takes");
        if (!code) code = lk_kv_update(store->kv, take, &t, LK_DURABLE, NULL, err);
        if (!code) lk_uploads_forget(store, &t.pin.token, 1);
    }
    if (!code && t.changed)
        code = lk_fail(err, LK_EBUSY, "the rows of the store change faster than a pin can list what they hold; try again");
    if (!code && out) *out = t.pin;
    return code;
}

struct changing {
    const char *name;
    int64_t at_ms, for_ms;
    bool release;
    struct lk_pin pin;
};
static int change(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct changing *c = arg;
    int64_t time;
    int code = read_pin(txn, c->name, &c->pin, err);
    if (code == LK_ECORRUPT && c->release && !c->at_ms) return lk_record_delete(txn, KIND, c->name, err);
    if (code) return code;
    if (c->at_ms && c->at_ms != c->pin.at_ms)
        return lk_fail(err, LK_EBUSY, "the pin %s is not the one that was taken: %s took the name since", c->name,
                       c->pin.holder);
    if (c->release) return lk_record_delete(txn, KIND, c->name, err);
    code = lk__kv_timestamp(txn, &time, err);
    c->pin.until_ms = c->for_ms ? time + c->for_ms : 0;
    return code ? code : write_pin(txn, &c->pin, err);
}
int lk_pin_renew(struct lk_store *store, const char *name, int64_t at_ms, int64_t for_ms, struct lk_pin *out,
                 struct lk_err *err) {
    struct changing c = {.name = name, .at_ms = at_ms, .for_ms = for_ms};
    int code = check(name, for_ms, err);
    if (!code) code = lk_kv_update(store->kv, change, &c, LK_DURABLE, NULL, err);
    if (!code && out) *out = c.pin;
    return code;
}
int lk_pin_release(struct lk_store *store, const char *name, int64_t at_ms, struct lk_err *err) {
    struct changing c = {.name = name, .at_ms = at_ms, .release = true};
    int code = check(name, 0, err);
    return code ? code : lk_kv_update(store->kv, change, &c, LK_DURABLE, NULL, err);
}
