/* Tables and families: made, altered, dropped, listed; a table's handle. */
#include "store/table/schema.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include "store/table/drop.h"
#include "store/table/pin.h"
#include <string.h>

#define GENERATIONS 31

/* --- the row ---------------------------------------------------------------------------------------------- */

static void families_free(struct lk__table_family *f, size_t count) {
    for (size_t i = 0; i < count; i++) {
        lk_free(f[i].gc);
        lk_gc_rule_free(&f[i].rule);
    }
    lk_free(f);
}

static void schema_clear(struct lk__table_schema *s) {
    families_free(s->families, s->family_count);
    families_free(s->dropped, s->dropped_count);
    for (size_t i = 0; i < s->pin_count; i++) lk_free(s->pins[i].pin);
    lk_free(s->pins);
    lk_free(s->text);
}
void lk__table_schema_unref(struct lk__table_schema *s) {
    if (!s || atomic_fetch_sub(&s->references, 1) != 1) return;
    schema_clear(s);
    lk_free(s);
}

static bool word_valid(const char *s, size_t most, const char *others) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++) {
        bool plain = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9');
        if (!plain && !strchr(others, s[i])) return false;
    }
    return n >= 1 && n <= most;
}
int lk__table_name_check(const char *name, struct lk_err *err) {
    if (word_valid(name, LK_TABLE_NAME_MAX, "-_./")) return 0;
    return lk_fail(err, LK_EINVAL, "\"%.300s\" is no name of a table or a pin: 1 to %d of A-Z a-z 0-9 - _ . /", name,
                   LK_TABLE_NAME_MAX);
}

/* {"name": ..., "generation": n, "gc": "...", "zstd": true}; the last two may be missing. */
static int family_read(json_t *j, struct lk__table_family *f, struct lk_err *err) {
    static const char what[] = "a family of the table";
    const char *name, *gc = json_string_value(json_object_get(j, "gc"));
    uint64_t generation;
    int code = lk_json_get_string(j, "name", what, &name, err);
    if (code == 0) code = lk_json_get_u64(j, "generation", what, &generation, err);
    if (code == 0 && (!word_valid(name, LK_TABLE_FAMILY_MAX, "-_.") || generation < 1 || generation > GENERATIONS))
        code = lk_fail(err, LK_ECORRUPT, "a family of a name or generation that is none");
    if (code != 0) return code;
    snprintf(f->name, sizeof f->name, "%s", name);
    f->generation = (unsigned char)generation;
    f->zstd = json_is_true(json_object_get(j, "zstd"));
    f->gc = lk_strdup(gc ? gc : "never");
    return f->gc ? lk_gc_rule_parse(f->gc, &f->rule, err) : lk_fail(err, LK_ENOMEM, "out of memory for a table");
}
static int families_read(json_t *list, struct lk__table_family **out, size_t *count, struct lk_err *err) {
    size_t n = json_array_size(list);
    *out = lk_calloc(n ? n : 1, sizeof **out);
    int code = *out ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a table");
    for (size_t i = 0; i < n && code == 0; i++) {
        code = family_read(json_array_get(list, i), &(*out)[i], err);
        *count = i + 1;
    }
    return code;
}
static int pins_read(json_t *list, struct lk__table_schema *s, struct lk_err *err) {
    size_t n = json_array_size(list);
    s->pins = lk_calloc(n ? n : 1, sizeof *s->pins);
    int code = s->pins ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a table");
    for (size_t i = 0; i < n && code == 0; i++) {
        const char *pin;
        uint64_t at;
        code = lk_json_get_string(json_array_get(list, i), "pin", "a pin of the table", &pin, err);
        if (code == 0) code = lk_json_get_u64(json_array_get(list, i), "at", "a pin of the table", &at, err);
        if (code == 0 && (at < 1 || at > LK__TIME_MAX)) code = lk_fail(err, LK_ECORRUPT, "the time of a pin is none");
        if (code != 0) break;
        s->pins[i].pin = lk_strdup(pin);
        s->pins[i].at_ms = (int64_t)at;
        if (s->newest_pin_ms < (int64_t)at) s->newest_pin_ms = (int64_t)at;
        s->pin_count = i + 1;
        if (!s->pins[i].pin) code = lk_fail(err, LK_ENOMEM, "out of memory for a table");
    }
    return code;
}

static int schema_fill(json_t *j, struct lk__table_schema *s, struct lk_err *err) {
    uint64_t id, since;
    int code = lk_json_get_u64(j, "id", "the table's row", &id, err);
    if (code == 0) code = lk_json_get_u64(j, "since", "the table's row", &since, err);
    if (code == 0 && (id < 1 || id > UINT32_MAX)) code = lk_fail(err, LK_ECORRUPT, "the table's number is none");
    if (code == 0 && since > LK__TIME_MAX) code = lk_fail(err, LK_ECORRUPT, "\"since\" is no time");
    static const char *const lists[] = {"families", "dropped", "pins"};
    for (size_t i = 0; i < 3 && code == 0; i++)
        if (!json_is_array(json_object_get(j, lists[i]))) code = lk_fail(err, LK_ECORRUPT, "\"%s\" is no list", lists[i]);
    if (code != 0) return code;
    s->altered = json_integer_value(json_object_get(j, "altered"));
    s->id = (uint32_t)id;
    s->since_ms = (int64_t)since;
    s->protected = json_is_true(json_object_get(j, "protected"));
    code = families_read(json_object_get(j, "families"), &s->families, &s->family_count, err);
    for (size_t i = 1; i < s->family_count && code == 0; i++)
        if (strcmp(s->families[i - 1].name, s->families[i].name) >= 0)
            code = lk_fail(err, LK_ECORRUPT, "its families are not in order");
    if (code == 0) code = families_read(json_object_get(j, "dropped"), &s->dropped, &s->dropped_count, err);
    return code ? code : pins_read(json_object_get(j, "pins"), s, err);
}

int lk__table_schema_read(const char *table, struct lk_bytes row, struct lk__table_schema **out, struct lk_err *err) {
    char what[LK_TABLE_NAME_MAX + 64];
    snprintf(what, sizeof what, "the row of the table %s", table);
    *out = NULL;
    struct lk__table_schema *s = lk_calloc(1, sizeof *s);
    if (s) s->text = lk_alloc(row.size + 1);
    if (!s || !s->text) {
        lk_free(s);
        return lk_fail(err, LK_ENOMEM, "out of memory for a table");
    }
    s->references = 1;
    memcpy(s->text, row.data, row.size);
    s->text[row.size] = 0;
    s->text_size = row.size;
    json_t *j = lk_json_parse(row.data, row.size, what, err);
    int code = j ? schema_fill(j, s, err) : LK_ECORRUPT;
    json_decref(j);
    if (code == 0) {
        *out = s;
        return 0;
    }
    lk__table_schema_unref(s);
    return lk_fail_prefix(err, code == LK_ENOMEM ? LK_ENOMEM : LK_ECORRUPT, "%s", what);
}

int lk__table_row_of(struct lk_kv_txn *txn, const char *table, json_t **out, struct lk_err *err) {
    struct lk__table_schema s = {0};
    int code = lk__table_row_get(txn, "table", table, out, err);
    if (code != 0 || !*out) return code;
    code = schema_fill(*out, &s, err);
    schema_clear(&s);
    if (code == 0) return 0;
    json_decref(*out);
    *out = NULL;
    return lk_fail_prefix(err, code == LK_ENOMEM ? LK_ENOMEM : LK_ECORRUPT, "the row of the table %s", table);
}

const struct lk__table_family *lk__table_schema_family(const struct lk__table_schema *s, const char *name) {
    size_t low = 0, high = s->family_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strcmp(name, s->families[mid].name);
        if (c == 0) return &s->families[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const struct lk__table_family *lk__table_schema_family_of(const struct lk__table_schema *s, struct lk_bytes in_key) {
    const char *name = in_key.data;
    size_t size = in_key.size - 1;
    for (size_t i = 0; i < s->family_count; i++) {
        const struct lk__table_family *f = &s->families[i];
        if (f->generation == (unsigned char)name[size] && strncmp(f->name, name, size) == 0 && !f->name[size]) return f;
    }
    return NULL;
}

/* --- handles --------------------------------------------------------------------------------------------- */

static int missing(struct lk_kv_txn *txn, const char *name, struct lk_err *err);

/* Takes the table's current schema if the row is still that of `was`, else reads it. */
static int schema_of_row(const char *name, struct lk_bytes row, struct lk__table_schema *was, struct lk__table_schema **out,
                         struct lk_err *err) {
    if (was && was->text_size == row.size && memcmp(was->text, row.data, row.size) == 0) {
        atomic_fetch_add(&was->references, 1);
        *out = was;
        return 0;
    }
    return lk__table_schema_read(name, row, out, err);
}

int lk__table_schema(struct lk_table *t, struct lk_kv_txn *txn, struct lk__table_schema **out, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    uint64_t state = ops->state && !txn->write ? ops->state(txn) : 0;
    struct lk_bytes row;
    *out = NULL;
    pthread_mutex_lock(&t->lock);
    if (state && t->state == state) {
        *out = t->schema;
        atomic_fetch_add(&t->schema->references, 1);
    }
    pthread_mutex_unlock(&t->lock);
    if (*out) return 0;
    int code = lk_kv_get(txn, lk_bytes(t->key, strlen(t->key)), &row, err);
    if (code == LK_ENOTFOUND) return missing(txn, t->name, err);
    if (code != 0) return code;
    pthread_mutex_lock(&t->lock);
    code = schema_of_row(t->name, row, t->schema, out, err);
    if (code == 0 && *out != t->schema) {
        lk__table_schema_unref(t->schema);
        t->schema = *out;
        atomic_fetch_add(&t->schema->references, 1);
    }
    if (code == 0) t->state = state;
    pthread_mutex_unlock(&t->lock);
    return code;
}

static int read_pinned(struct lk_table *t, struct lk_kv_txn *txn, const char *pin, struct lk__table_schema **out,
                       struct lk_err *err) {
    json_t *row;
    struct lk_buf text = LK_BUF_INIT;
    int code = lk__table_row_get(txn, "pin", pin, &row, err);
    json_t *schema = json_object_get(json_object_get(row, "tables"), t->name);
    if (code == 0 && !schema) code = lk_fail(err, LK_ECORRUPT, "the pin %s does not hold the table %s", pin, t->name);
    if (code == 0) code = lk_json_canonical(schema, &text, err);
    if (code == 0) code = lk__table_schema_read(t->name, lk_bytes(text.data, text.size), out, err);
    lk_buf_release(&text);
    json_decref(row);
    return code;
}

int lk__table_schema_at(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, struct lk__table_schema **out,
                        struct lk_err *err) {
    struct lk__table_schema *now;
    int code = lk__table_schema(t, txn, &now, err);
    *out = now;
    if (code != 0 || pinned_ms == 0) return code;
    *out = NULL;
    const char *pin = NULL;
    for (size_t i = 0; i < now->pin_count && !pin; i++)
        if (now->pins[i].at_ms == pinned_ms) pin = now->pins[i].pin;
    if (!pin)
        code = lk_fail(err, LK_ENOTFOUND,
                       "no pin of the time %lld holds the table %s (any more); lockstep table pin lists them",
                       (long long)pinned_ms, t->name);
    pthread_mutex_lock(&t->lock);
    if (code == 0 && t->pinned_ms == pinned_ms && t->pinned->id == now->id) {
        *out = t->pinned;
        atomic_fetch_add(&t->pinned->references, 1);
    }
    pthread_mutex_unlock(&t->lock);
    if (code == 0 && !*out) {
        code = read_pinned(t, txn, pin, out, err);
        pthread_mutex_lock(&t->lock);
        if (code == 0) {
            lk__table_schema_unref(t->pinned);
            t->pinned = *out;
            t->pinned_ms = pinned_ms;
            atomic_fetch_add(&t->pinned->references, 1);
        }
        pthread_mutex_unlock(&t->lock);
    }
    lk__table_schema_unref(now);
    return code;
}

#define LARGE 65536 /* a buffer that grew past this is not kept */

int lk__table_buffers_take(struct lk_table *t, struct lk__table_buffers **out, struct lk_err *err) {
    pthread_mutex_lock(&t->lock);
    struct lk__table_buffers *b = t->spare;
    if (b) t->spare = b->next;
    pthread_mutex_unlock(&t->lock);
    if (!b) b = lk_calloc(1, sizeof *b);
    *out = b;
    return b ? 0 : lk_fail(err, LK_ENOMEM, "out of memory reading a table");
}
void lk__table_buffers_give(struct lk_table *t, struct lk__table_buffers *b) {
    if (!b) return;
    for (int i = 0; i < LK__BUFFERS; i++) {
        b->of[i].size = 0;
        if (b->of[i].capacity > LARGE) lk_buf_release(&b->of[i]);
    }
    pthread_mutex_lock(&t->lock);
    b->next = t->spare;
    t->spare = b;
    pthread_mutex_unlock(&t->lock);
}

int lk_table_open(struct lk_store *store, const char *name, struct lk_table **out, struct lk_err *err) {
    *out = NULL;
    int code = lk__table_name_check(name, err);
    if (code != 0) return code;
    struct lk_table *t = lk_calloc(1, sizeof *t);
    if (t) t->key = lk_asprintf("t/table/%s", name);
    if (!t || !t->key) {
        lk_free(t);
        return lk_fail(err, LK_ENOMEM, "out of memory for a table");
    }
    t->store = store;
    t->name = t->key + strlen("t/table/");
    pthread_mutex_init(&t->lock, NULL);
    struct lk_kv_txn *txn;
    struct lk__table_schema *s = NULL;
    code = lk_kv_begin(store->kv, false, &txn, err);
    if (code == 0) {
        code = lk__table_schema(t, txn, &s, err);
        lk_kv_abort(txn);
    }
    lk__table_schema_unref(s);
    if (code == 0)
        *out = t;
    else
        lk_table_close(t);
    return code;
}

void lk_table_close(struct lk_table *t) {
    if (!t) return;
    lk__table_schema_unref(t->schema);
    lk__table_schema_unref(t->pinned);
    for (struct lk__table_buffers *b = t->spare, *next; b; b = next) {
        next = b->next;
        for (int i = 0; i < LK__BUFFERS; i++) lk_buf_release(&b->of[i]);
        lk_free(b);
    }
    pthread_mutex_destroy(&t->lock);
    lk_free(t->key);
    lk_free(t);
}

const char *lk_table_name(const struct lk_table *t) {
    return t->name;
}

int lk_table_families_at(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, lk_table_family_fn *fn, void *arg,
                         struct lk_err *err) {
    struct lk__table_schema *s;
    int code = lk__table_schema_at(t, txn, pinned_ms, &s, err);
    for (size_t i = 0; code == 0 && i < s->family_count; i++)
        code = fn(arg, &(struct lk_table_family){s->families[i].name, s->families[i].gc, s->families[i].zstd});
    lk__table_schema_unref(s);
    return code;
}

int lk_table_protected(struct lk_table *t, struct lk_kv_txn *txn, bool *out, struct lk_err *err) {
    struct lk__table_schema *s;
    int code = lk__table_schema(t, txn, &s, err);
    *out = code == 0 && s->protected;
    lk__table_schema_unref(s);
    return code;
}
int lk_table_families(struct lk_table *t, struct lk_kv_txn *txn, lk_table_family_fn *fn, void *arg, struct lk_err *err) {
    return lk_table_families_at(t, txn, 0, fn, arg, err);
}

/* --- lists ----------------------------------------------------------------------------------------------- */

struct names {
    lk_table_list_fn *fn;
    void *arg;
};
static int tell_name(void *arg, const char *name, json_t *row) {
    const struct names *n = arg;
    (void)row;
    return n->fn(n->arg, name);
}
int lk_table_list(struct lk_store *store, lk_table_list_fn *fn, void *arg, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk__table_row_list(txn, "table", tell_name, &(struct names){fn, arg}, err);
    lk_kv_abort(txn);
    return code;
}

static int add_name(void *arg, const char *name, json_t *row) {
    struct lk_buf *b = arg;
    (void)row;
    return b->size > 300 ? 1 : lk_buf_printf(b, "%s%s", b->size ? ", " : "", name);
}
static int missing(struct lk_kv_txn *txn, const char *name, struct lk_err *err) {
    struct lk_buf b = LK_BUF_INIT;
    int code = lk__table_row_list(txn, "table", add_name, &b, err);
    if (code > 0) code = 0;
    if (code == 0)
        code = lk_fail(err, LK_ENOTFOUND, "no table \"%s\" in the store; %s%s", name,
                       b.size ? "there are: " : "there are none, lockstep table create makes one", b.size ? b.data : "");
    lk_buf_release(&b);
    return code;
}

/* --- changes --------------------------------------------------------------------------------------------- */

/* The JSON of one family in a list that is kept by name. */
static size_t place_of(json_t *list, const char *name, bool *there) {
    size_t i = 0;
    const char *at = NULL;
    for (; i < json_array_size(list); i++) {
        at = json_string_value(json_object_get(json_array_get(list, i), "name"));
        if (at && strcmp(at, name) >= 0) break;
    }
    *there = i < json_array_size(list) && at && strcmp(at, name) == 0;
    return i;
}

static int family_check(const struct lk_table_family *f, struct lk_err *err) {
    struct lk_gc_rule rule;
    if (!f->name || !word_valid(f->name, LK_TABLE_FAMILY_MAX, "-_."))
        return lk_fail(err, LK_EINVAL, "\"%.100s\" is no name of a family: 1 to %d of A-Z a-z 0-9 - _ .",
                       f->name ? f->name : "", LK_TABLE_FAMILY_MAX);
    int code = f->gc ? lk_gc_rule_parse(f->gc, &rule, err) : 0;
    if (code == 0 && f->gc) lk_gc_rule_free(&rule);
    return code ? lk_fail_prefix(err, code, "family %s", f->name) : 0;
}

/* The least generation of the name that no dropped family has; 0: all are taken. */
static unsigned char free_generation(json_t *dropped, const char *name) {
    uint32_t taken = 0;
    for (size_t i = 0; i < json_array_size(dropped); i++) {
        json_t *d = json_array_get(dropped, i);
        const char *at = json_string_value(json_object_get(d, "name"));
        if (at && strcmp(at, name) == 0) taken |= (uint32_t)1 << json_integer_value(json_object_get(d, "generation"));
    }
    for (unsigned char g = 1; g <= GENERATIONS; g++)
        if (!(taken >> g & 1)) return g;
    return 0;
}

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "out of memory for a table");
}

static json_t *family_json(const struct lk_table_family *f, unsigned char generation) {
    json_t *j = json_pack("{s:s, s:i}", "name", f->name, "generation", (int)generation);
    if (j && f->gc && json_object_set_new(j, "gc", json_string(f->gc)) != 0) return json_decref(j), NULL;
    if (j && f->zstd && json_object_set_new(j, "zstd", json_true()) != 0) return json_decref(j), NULL;
    return j;
}

static int protect(json_t *schema, bool yes, struct lk_err *err) {
    if (yes) return json_object_set_new(schema, "protected", json_true()) == 0 ? 0 : no_memory(err);
    json_object_del(schema, "protected");
    return 0;
}
static int check_unprotected(json_t *schema, struct lk_err *err) {
    if (!json_is_true(json_object_get(schema, "protected"))) return 0;
    return lk_fail(err, LK_EBUSY, "the table is protected from deletion; end its protection first");
}

/* Cells come or go by this, though no row is written; a difference that sees the count looks at all rows. */
static int count_alteration(json_t *schema, json_int_t *out, struct lk_err *err) {
    *out = json_integer_value(json_object_get(schema, "altered")) + 1;
    return json_object_set_new(schema, "altered", json_integer(*out)) == 0 ? 0 : no_memory(err);
}

/* Into the list of those whose cells are still there. The count tells one drop from the next of the same generation. */
static int drop_family(json_t *schema, json_t *list, size_t i, struct lk_err *err) {
    json_int_t altered;
    json_t *family = json_array_get(list, i);
    int code = count_alteration(schema, &altered, err);
    if (code != 0) return code;
    bool good = json_object_set_new(family, "altered", json_integer(altered)) == 0 &&
                json_array_append(json_object_get(schema, "dropped"), family) == 0 && json_array_remove(list, i) == 0;
    return good ? 0 : no_memory(err);
}

static int update_family(json_t *schema, json_t *list, size_t i, const struct lk_table_family *f, struct lk_err *err) {
    json_int_t generation = json_integer_value(json_object_get(json_array_get(list, i), "generation")), altered;
    const char *was = json_string_value(json_object_get(json_array_get(list, i), "gc"));
    bool other_rule = strcmp(was ? was : "never", f->gc ? f->gc : "never") != 0;
    json_t *j = family_json(f, (unsigned char)generation);
    if (!j || json_array_set_new(list, i, j) != 0) return no_memory(err);
    return other_rule ? count_alteration(schema, &altered, err) : 0;
}

static int change_one(json_t *schema, const struct lk_table_change *c, struct lk_err *err) {
    json_t *list = json_object_get(schema, "families"), *dropped = json_object_get(schema, "dropped");
    const char *name = c->family.name;
    bool there;
    if (c->kind == LK_TABLE_PROTECT || c->kind == LK_TABLE_UNPROTECT)
        return protect(schema, c->kind == LK_TABLE_PROTECT, err);
    int code = family_check(&c->family, err);
    if (code != 0) return code;
    size_t i = place_of(list, name, &there);
    if (c->kind == LK_TABLE_ADD_FAMILY && there) return lk_fail(err, LK_EEXISTS, "the family %s is there already", name);
    if (c->kind != LK_TABLE_ADD_FAMILY && !there) return lk_fail(err, LK_ENOTFOUND, "no family %s", name);
    if (c->kind == LK_TABLE_DROP_FAMILY)
        return check_unprotected(schema, err) != 0 ? LK_EBUSY : drop_family(schema, list, i, err);
    if (c->kind == LK_TABLE_UPDATE_FAMILY) return update_family(schema, list, i, &c->family, err);
    if (json_array_size(list) >= LK_TABLE_FAMILIES_MAX)
        return lk_fail(err, LK_EINVAL, "more than %d families in one table", LK_TABLE_FAMILIES_MAX);
    unsigned char generation = free_generation(dropped, name);
    if (!generation)
        return lk_fail(err, LK_EBUSY, "the family %s was dropped %d times; compact the table before it is made again", name,
                       GENERATIONS);
    json_t *j = family_json(&c->family, generation);
    return j && json_array_insert_new(list, i, j) == 0 ? 0 : no_memory(err);
}

struct change {
    const char *name;
    const struct lk_table_change *changes;
    const struct lk_table_family *families;
    size_t count;
};

/* Numbers are never given twice: what a killed drop has left cannot come back. */
static int next_id(struct lk_kv_txn *txn, json_int_t *out, struct lk_err *err) {
    json_t *row;
    int code = lk__table_row_get(txn, "next", "id", &row, err);
    if (code != 0) return code;
    *out = row ? json_integer_value(json_object_get(row, "id")) : 1; /* of a damaged one: 0 */
    json_decref(row);
    if (*out < 1 || *out >= UINT32_MAX)
        return lk_fail(err, LK_ECORRUPT, "the number of the next table is %lld", (long long)*out);
    row = json_pack("{s:I}", "id", *out + 1);
    code = row ? lk__table_row_put(txn, "next", "id", row, err) : no_memory(err);
    json_decref(row);
    return code;
}

static int create(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct change *c = arg;
    json_t *row;
    json_int_t id = 0;
    int64_t now = 0;
    int code = lk__table_row_get(txn, "table", c->name, &row, err);
    if (code == 0 && row) code = lk_fail(err, LK_EEXISTS, "there is a table \"%s\" already", c->name);
    json_decref(row);
    if (code == 0) code = next_id(txn, &id, err);
    if (code == 0) code = lk__kv_timestamp(txn, &now, err);
    if (code != 0) return code;
    row = json_pack("{s:I, s:I, s:[], s:[], s:[]}", "id", id, "since", (json_int_t)now, "families", "dropped", "pins");
    if (!row) return no_memory(err);
    for (size_t i = 0; i < c->count && code == 0; i++)
        code = change_one(row, &(struct lk_table_change){LK_TABLE_ADD_FAMILY, c->families[i]}, err);
    if (code == 0) code = lk__table_row_put(txn, "table", c->name, row, err);
    json_decref(row);
    return code;
}
int lk_table_create(struct lk_store *store, const char *name, const struct lk_table_family *families, size_t count,
                    struct lk_err *err) {
    struct change c = {name, NULL, families, count};
    int code = lk__table_name_check(name, err);
    return code ? code : lk_kv_update(store->kv, create, &c, LK_DURABLE, NULL, err);
}

static int alter(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct change *c = arg;
    json_t *row;
    int code = lk__table_row_of(txn, c->name, &row, err);
    if (code == 0 && !row) code = missing(txn, c->name, err);
    for (size_t i = 0; i < c->count && code == 0; i++) code = change_one(row, &c->changes[i], err);
    if (code == 0) code = lk__table_row_put(txn, "table", c->name, row, err);
    json_decref(row);
    return code;
}
int lk_table_alter(struct lk_store *store, const char *name, const struct lk_table_change *changes, size_t count,
                   struct lk_err *err) {
    struct change c = {name, changes, NULL, count};
    int code = lk__table_name_check(name, err);
    return code ? code : lk_kv_update(store->kv, alter, &c, LK_DURABLE, NULL, err);
}

/* The table's row goes, and "t/drop/ID" stands for its cells until these are gone. */
static int drop(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct change *c = arg;
    json_t *row;
    char id[16] = "";
    int code = lk__table_row_of(txn, c->name, &row, err);
    if (code == 0 && !row) code = missing(txn, c->name, err);
    if (code == 0) code = check_unprotected(row, err);
    json_t *pin = json_array_get(json_object_get(row, "pins"), 0);
    if (code == 0 && pin)
        code = lk_fail(err, LK_EBUSY, "the pin %s holds the table %s; release it first (lockstep table pin)",
                       json_string_value(json_object_get(pin, "pin")), c->name);
    if (code == 0) snprintf(id, sizeof id, "%lld", (long long)json_integer_value(json_object_get(row, "id")));
    json_decref(row);
    if (code == 0) code = lk__table_row_delete(txn, "table", c->name, err);
    if (code != 0) return code;
    row = json_object();
    code = row ? lk__table_row_put(txn, "drop", id, row, err) : no_memory(err);
    json_decref(row);
    return code;
}
int lk_table_drop(struct lk_store *store, const char *name, struct lk_err *err) {
    struct change c = {name, NULL, NULL, 0};
    uint64_t removed = 0;
    int code = lk__table_name_check(name, err);
    if (code == 0) code = lk__table_expire_pins(store, err);
    if (code == 0) code = lk_kv_update(store->kv, drop, &c, LK_DURABLE, NULL, err);
    return code ? code : lk__table_sweep_dropped(store, &removed, err);
}
