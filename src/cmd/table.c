/* lockstep table create|drop|list|families|alter|gc-rule|compact|sample-keys|digest: tables as a whole. */
#include "table.h"

#include <inttypes.h>
#include <string.h>

/* --- open ------------------------------------------------------------------------------------------------ */

int table_open(struct cmd_context *c, const char *name, enum lk_access how, struct lk_table **out) {
    struct lk_err err = {0};
    *out = NULL;
    if (cmd_open_store(c, how)) return CMD_FAILED;
    return lk_table_open(c->store, name, out, &err) ? cmd_fail(&err) : CMD_OK;
}

struct find_pin {
    const char *name;
    int64_t at_ms;
    struct lk_buf others;
};
static int look_at_pin(void *arg, const struct lk_table_pin *pin) {
    struct find_pin *f = arg;
    if (strcmp(pin->name, f->name) == 0) f->at_ms = pin->pinned_ms;
    if (f->others.size < 300) lk_buf_printf(&f->others, "%s%s", f->others.size ? ", " : "", pin->name);
    return 0;
}
int table_pin_time(struct lk_store *store, const char *pin, int64_t *out_ms, struct lk_err *err) {
    struct find_pin f = {.name = pin};
    int code = lk_table_pins(store, look_at_pin, &f, err);
    if (!code && !f.at_ms)
        code = lk_fail(err, LK_ENOTFOUND, "no pin \"%s\" in the store, or its time is over; %s%s", pin,
                       f.others.size ? "there are: " : "there are none, `lockstep table pin create` makes one",
                       f.others.size ? f.others.data : "");
    *out_ms = f.at_ms;
    lk_buf_release(&f.others);
    return code;
}

int table_begin(struct cmd_context *c, const char *pin, struct lk_kv_txn **txn, int64_t *pinned_ms) {
    struct lk_err err = {0};
    *pinned_ms = 0;
    int code = pin ? table_pin_time(c->store, pin, pinned_ms, &err) : 0;
    if (!code) code = lk_kv_begin(c->store->kv, false, txn, &err);
    return code ? cmd_fail(&err) : CMD_OK;
}

void table_progress_begin(struct lk_progress *p) {
    lk_progress_init(p, stderr);
    p->last_ns = lk_clock_ns();
}

/* --- create, drop, list ---------------------------------------------------------------------------------- */

static struct { struct cmd_list zstd, plain, add, update, drop; } families;

/* "NAME" or "NAME:RULE"; names: room for the name alone. */
struct family_text {
    char name[LK_TABLE_FAMILY_MAX + 2];
    const char *rule;
};
static struct family_text split_family(const char *text) {
    struct family_text f;
    const char *colon = strchr(text, ':');
    snprintf(f.name, sizeof f.name, "%.*s", colon ? (int)(colon - text) : (int)strlen(text), text);
    f.rule = colon ? colon + 1 : NULL;
    return f;
}
static bool is_in(const struct cmd_list *list, const char *name) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], name) == 0) return true;
    return false;
}

static int create(struct cmd_context *c) {
    struct lk_err err = {0};
    struct family_text text[LK_TABLE_FAMILIES_MAX];
    struct lk_table_family list[LK_TABLE_FAMILIES_MAX];
    size_t n = (size_t)c->argument_count - 1;
    if (n > LK_TABLE_FAMILIES_MAX) return cmd_usage_error(c, "more than %d families", LK_TABLE_FAMILIES_MAX);
    for (size_t i = 0; i < n; i++) {
        text[i] = split_family(c->arguments[i + 1]);
        list[i] = (struct lk_table_family){text[i].name, text[i].rule, is_in(&families.zstd, text[i].name)};
    }
    for (size_t i = 0, k; i < families.zstd.count; i++) {
        for (k = 0; k < n && strcmp(list[k].name, families.zstd.items[i]) != 0;) k++;
        if (k == n) return cmd_usage_error(c, "--zstd %s is none of the families", families.zstd.items[i]);
    }
    if (cmd_open_store(c, LK_CREATE)) return CMD_FAILED;
    if (lk_table_create(c->store, c->arguments[0], list, n, &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s, s:I}", "name", c->arguments[0], "families", (json_int_t)n));
    printf("created the table %s with %zu %s\n", c->arguments[0], n, n == 1 ? "family" : "families");
    return CMD_OK;
}
#define RULES                                                                                                              \
    "RULE says which cells are garbage, which no read shows and `lockstep table compact` removes: never, maxversions=3, "  \
    "maxage=30d (ms, s, m, h, d), joined by `or` and `and` (\"maxversions=1 or maxage=7d\")."
const struct cmd cmd_table_create = {
    "table create",
    "TABLE FAMILY[:RULE]...",
    1,
    -1,
    "Make a table, and a store where there is none.",
    (const struct cmd_option[]){CMD_LIST("--zstd", "FAMILY", &families.zstd, "compress this family's values"), CMD_END},
    RULES,
    create,
};

static int drop(struct cmd_context *c) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_table_drop(c->store, c->arguments[0], &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s}", "dropped", c->arguments[0]));
    printf("dropped the table %s\n", c->arguments[0]);
    return CMD_OK;
}
const struct cmd cmd_table_drop = {
    "table drop", "TABLE", 1, 1, "Drop a table with all its cells.", NULL, "A table that a pin holds stays.", drop};

static int print_name(void *arg, const char *name) {
    json_t *list = arg;
    if (list) return json_array_append_new(list, json_pack("{s:s}", "name", name));
    printf("%s\n", name);
    return 0;
}
static int list(struct cmd_context *c) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    json_t *all = c->json ? json_array() : NULL;
    if (lk_table_list(c->store, print_name, all, &err)) {
        json_decref(all);
        return cmd_fail(&err);
    }
    return c->json ? cmd_print_json(all) : CMD_OK;
}
const struct cmd cmd_table_list = {"table list", "", 0, 0, "List the tables.", NULL, NULL, list};

/* --- families -------------------------------------------------------------------------------------------- */

static int print_family(void *arg, const struct lk_table_family *f) {
    json_t *all = arg;
    const char *rule = f->gc ? f->gc : "never";
    if (all) return json_array_append_new(all, json_pack("{s:s, s:s, s:b}", "name", f->name, "gc", rule, "zstd", f->zstd));
    printf("%-20s %s%s\n", f->name, rule, f->zstd ? ", zstd" : "");
    return 0;
}
static int show_families(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_kv_txn *txn;
    int64_t pinned_ms;
    int code = table_open(c, c->arguments[0], LK_READ, &t);
    if (!code) code = table_begin(c, table_wanted.pin, &txn, &pinned_ms);
    if (!code) {
        json_t *all = c->json ? json_array() : NULL;
        code = lk_table_families_at(t, txn, pinned_ms, print_family, all, &err);
        lk_kv_abort(txn);
        code = code ? cmd_fail(&err) : c->json ? cmd_print_json(json_incref(all)) : CMD_OK;
        json_decref(all);
    }
    lk_table_close(t);
    return code;
}
const struct cmd cmd_table_families = {
    "table families",
    "TABLE",
    1,
    1,
    "List a table's families, and which of their cells are garbage.",
    (const struct cmd_option[]){TABLE_PIN, CMD_END},
    NULL,
    show_families,
};

struct found_family {
    const char *name;
    bool there, zstd;
    char *gc;
};
static int find_family(void *arg, const struct lk_table_family *f) {
    struct found_family *found = arg;
    if (strcmp(f->name, found->name) != 0) return 0;
    found->there = true;
    found->zstd = f->zstd;
    found->gc = lk_strdup(f->gc ? f->gc : "never");
    return found->gc ? 0 : LK_ENOMEM;
}
/* What the family is now; of one that is not there nothing, about which lk_table_alter complains. gc is the caller's. */
static int family_now(struct cmd_context *c, const char *table, const char *name, struct found_family *out) {
    struct lk_err err = {0};
    struct lk_table *t;
    struct lk_kv_txn *txn;
    int64_t pinned_ms;
    *out = (struct found_family){.name = name};
    int code = table_open(c, table, LK_WRITE, &t);
    if (!code) code = table_begin(c, NULL, &txn, &pinned_ms);
    if (!code) {
        if (lk_table_families(t, txn, find_family, out, &err)) code = cmd_fail(&err);
        lk_kv_abort(txn);
    }
    lk_table_close(t);
    return code;
}

#define CHANGES (4 * CMD_MANY)
struct changes {
    struct lk_table_change list[CHANGES];
    struct family_text text[CHANGES];
    char *old[CHANGES];
    size_t count;
};
static int add_change(struct cmd_context *c, struct changes *all, enum lk_table_change_kind kind, const char *text) {
    struct found_family now;
    size_t i = all->count;
    all->text[i] = split_family(text);
    const char *name = all->text[i].name, *rule = all->text[i].rule;
    bool zstd = is_in(&families.zstd, name);
    all->count++;
    if (kind == LK_TABLE_DROP_FAMILY && rule) return cmd_usage_error(c, "--drop takes a family's name alone");
    if (kind == LK_TABLE_UPDATE_FAMILY) {
        int code = family_now(c, c->arguments[0], name, &now);
        if (code) return code;
        all->old[i] = now.gc;
        rule = rule ? rule : now.gc;
        zstd = (now.zstd || zstd) && !is_in(&families.plain, name);
    }
    all->list[i] = (struct lk_table_change){kind, {name, rule, zstd}};
    return CMD_OK;
}

/* A family that only --zstd or --no-zstd names is updated. */
static int add_compression(struct cmd_context *c, struct changes *all, const struct cmd_list *names) {
    for (size_t i = 0, k; i < names->count; i++) {
        for (k = 0; k < all->count && strcmp(all->list[k].family.name, names->items[i]) != 0;) k++;
        int code = k < all->count ? CMD_OK : add_change(c, all, LK_TABLE_UPDATE_FAMILY, names->items[i]);
        if (code) return code;
    }
    return CMD_OK;
}

static int run_changes(struct cmd_context *c, struct changes *all) {
    static const struct {
        enum lk_table_change_kind kind;
        const struct cmd_list *list;
    } kinds[] = {{LK_TABLE_DROP_FAMILY, &families.drop},
                 {LK_TABLE_ADD_FAMILY, &families.add},
                 {LK_TABLE_UPDATE_FAMILY, &families.update}};
    struct lk_err err = {0};
    int code = CMD_OK;
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < kinds[k].list->count && !code; i++)
            code = add_change(c, all, kinds[k].kind, kinds[k].list->items[i]);
    if (!code) code = add_compression(c, all, &families.zstd);
    if (!code) code = add_compression(c, all, &families.plain);
    if (code) return code;
    if (!all->count) return cmd_usage_error(c, "nothing to change: give --add, --update, --drop, --zstd or --no-zstd");
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_table_alter(c->store, c->arguments[0], all->list, all->count, &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:I}", "changed", (json_int_t)all->count));
    printf("changed %zu %s of %s\n", all->count, all->count == 1 ? "family" : "families", c->arguments[0]);
    return CMD_OK;
}
static int alter(struct cmd_context *c) {
    struct lk_err err = {0};
    struct changes *all = lk_calloc(1, sizeof *all);
    if (!all) return cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    int code = run_changes(c, all);
    for (size_t i = 0; i < all->count; i++) lk_free(all->old[i]);
    lk_free(all);
    return code;
}
const struct cmd cmd_table_alter = {
    "table alter",
    "TABLE",
    1,
    1,
    "Add, change and drop families, all at once or none.",
    (const struct cmd_option[]){
        CMD_LIST("--add", "FAMILY[:RULE]", &families.add, "add this family"),
        CMD_LIST("--update", "FAMILY:RULE", &families.update, "give this family another rule"),
        CMD_LIST("--drop", "FAMILY", &families.drop, "drop this family with its cells, before others are added"),
        CMD_LIST("--zstd", "FAMILY", &families.zstd, "compress this family's values that are written from now on"),
        CMD_LIST("--no-zstd", "FAMILY", &families.plain, "no longer compress them"), CMD_END},
    "Each may be given several times. " RULES,
    alter,
};

static int gc_rule(struct cmd_context *c) {
    const char *table = c->arguments[0], *name = c->arguments[1];
    struct lk_err err = {0};
    struct found_family now;
    int code = family_now(c, table, name, &now);
    if (!code && !now.there)
        code = cmd_fail((lk_fail(&err, LK_ENOTFOUND, "%s has no family \"%s\"; `lockstep table families %s` lists them",
                                 table, name, table),
                         &err));
    if (!code && c->argument_count == 3) {
        struct lk_table_change change = {LK_TABLE_UPDATE_FAMILY, {name, c->arguments[2], now.zstd}};
        if (lk_table_alter(c->store, table, &change, 1, &err)) code = cmd_fail(&err);
        lk_free(now.gc);
        if (!code) code = family_now(c, table, name, &now);
    }
    if (!code && c->json) {
        code = cmd_print_json(json_pack("{s:s, s:s}", "family", name, "gc", now.gc));
    } else if (!code) {
        printf("%s\n", now.gc);
    }
    lk_free(now.gc);
    return code;
}
const struct cmd cmd_table_gc_rule = {
    "table gc-rule", "TABLE FAMILY [RULE]", 2, 3, "Print a family's rule, or give it another one.", NULL, RULES, gc_rule,
};
