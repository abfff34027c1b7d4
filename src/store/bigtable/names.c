/* "projects/P/instances/I/tables/T": whose it is, who may touch it, which table of the store, its handle. */
#include "lockstep/base/mem.h"
#include "store/bigtable/inside.h"
#include <string.h>

/* --- names ----------------------------------------------------------------------------------------------- */

/* "WORD/NAME" at *at; NAME goes to *out. */
static bool part(struct lk__bigtable_call *c, const char **at, const char *word, const char **out) {
    size_t n = strlen(word);
    if (strncmp(*at, word, n) || (*at)[n] != '/') return false;
    const char *name = *at + n + 1;
    size_t size = strcspn(name, "/");
    if (size == 0 || size > 200) return false;
    *out = lk__bigtable_text(c, name, size);
    *at = name + size;
    return *out != NULL;
}

static bool name_read(struct lk__bigtable_call *c, const char *at, const char *what, struct lk__bigtable_name *out) {
    if (!part(c, &at, "projects", &out->project) || *at++ != '/' || !part(c, &at, "instances", &out->instance))
        return false;
    if (what && (*at++ != '/' || !part(c, &at, what, &out->name))) return false;
    return *at == 0;
}

int lk__bigtable_name_parse(struct lk__bigtable_call *c, const char *full, const char *what, struct lk__bigtable_name *out,
                            struct lk_err *err) {
    const struct lk_bigtable *b = c->b;
    *out = (struct lk__bigtable_name){0};
    if (!name_read(c, full, what, out))
        return lk_fail(err, LK_EINVAL, "\"%.300s\" is no name of the form projects/PROJECT/instances/INSTANCE%s%s%s", full,
                       what ? "/" : "", what ? what : "", what ? "/NAME" : "");
    if (b->project && strcmp(b->project, out->project))
        return lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this server serves the project %s, not %.100s",
                                   b->project, out->project);
    if (b->instance && strcmp(b->instance, out->instance))
        return lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this server serves the instance %s, not %.100s",
                                   b->instance, out->instance);
    return 0;
}

static char *prefix_of(struct lk__bigtable_call *c, const struct lk__bigtable_name *n, const char *name) {
    bool project = c->b->names == LK_BIGTABLE_BY_PROJECT, instance = c->b->names != LK_BIGTABLE_BY_TABLE;
    size_t size = strlen(n->project) + strlen(n->instance) + strlen(name) + 3;
    char *out = lk__bigtable_take(c, size);
    if (out)
        snprintf(out, size, "%s%s%s%s%s", project ? n->project : "", project ? "/" : "", instance ? n->instance : "",
                 instance ? "/" : "", name);
    return out;
}
char *lk__bigtable_store_name(struct lk__bigtable_call *c, const struct lk__bigtable_name *n) {
    return prefix_of(c, n, n->name);
}
const char *lk__bigtable_table_of(struct lk__bigtable_call *c, const struct lk__bigtable_name *n, const char *store_name) {
    const char *prefix = prefix_of(c, n, "");
    size_t size = prefix ? strlen(prefix) : 0;
    if (!prefix || strncmp(store_name, prefix, size) || strchr(store_name + size, '/')) return NULL;
    return store_name + size;
}

bool lk__bigtable_may(struct lk__bigtable_call *c, enum lk__bigtable_right right, const char *store_name) {
    static const char *const words[] = {"read", "write", "admin"};
    return !c->b->keys || lk_keys_may(c->b->keys, (uint32_t)lk_grpc_who(c->grpc), words[right], store_name);
}

int lk__bigtable_named(struct lk__bigtable_call *c, const char *full, enum lk__bigtable_right right, char **store_name,
                       struct lk_err *err) {
    static const char *const verbs[] = {"read", "write", "administer"};
    struct lk__bigtable_name name;
    int code = lk__bigtable_name_parse(c, full, "tables", &name, err);
    if (code != 0) return code;
    c->name = full;
    *store_name = lk__bigtable_store_name(c, &name);
    if (!*store_name) return lk__bigtable_no_memory(err);
    if (lk__bigtable_may(c, right, *store_name)) return 0;
    return lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this key may not %s %s", verbs[right], full);
}

/* --- handles --------------------------------------------------------------------------------------------- */

#define HANDLES_MOST 4096 /* beyond: those that no call uses are closed */

struct lk__bigtable_handle {
    struct lk__bigtable_handle *next;
    struct lk_table *table;
    unsigned references;
};

static struct lk__bigtable_handle **bucket(struct lk_bigtable *b, const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
    return &b->handles[(h ^ h >> 16) % (sizeof b->handles / sizeof *b->handles)];
}
static struct lk__bigtable_handle *known(struct lk_bigtable *b, const char *name) {
    struct lk__bigtable_handle *h = *bucket(b, name);
    while (h && strcmp(lk_table_name(h->table), name)) h = h->next;
    if (h) h->references++;
    return h;
}
static void close_unused(struct lk_bigtable *b) {
    for (size_t i = 0; i < sizeof b->handles / sizeof *b->handles; i++)
        for (struct lk__bigtable_handle **at = &b->handles[i], *h; (h = *at);) {
            if (h->references) {
                at = &h->next;
                continue;
            }
            *at = h->next;
            lk_table_close(h->table);
            lk_free(h);
            b->handle_count--;
        }
}
void lk__bigtable_handles_close(struct lk_bigtable *b) {
    close_unused(b);
}

static int open_handle(struct lk__bigtable_call *c, const char *name, struct lk_err *err) {
    struct lk_bigtable *b = c->b;
    struct lk__bigtable_handle *h = lk_calloc(1, sizeof *h), *other;
    if (!h) return lk__bigtable_no_memory(err);
    int code = lk_table_open(b->store, name, &h->table, err);
    if (code != 0) {
        lk_free(h);
        return code;
    }
    pthread_mutex_lock(&b->lock);
    if ((other = known(b, name))) {
        lk_table_close(h->table);
        lk_free(h);
        h = other;
    } else {
        if (b->handle_count >= HANDLES_MOST) close_unused(b);
        struct lk__bigtable_handle **at = bucket(b, name);
        h->references = 1;
        h->next = *at;
        *at = h;
        b->handle_count++;
    }
    pthread_mutex_unlock(&b->lock);
    c->handle = h;
    return 0;
}

int lk__bigtable_table(struct lk__bigtable_call *c, const char *full, enum lk__bigtable_right right, struct lk_err *err) {
    char *name;
    int code = lk__bigtable_named(c, full, right, &name, err);
    if (code != 0) return code;
    pthread_mutex_lock(&c->b->lock);
    c->handle = known(c->b, name);
    pthread_mutex_unlock(&c->b->lock);
    if (!c->handle) code = open_handle(c, name, err);
    if (code == 0) c->table = c->handle->table;
    return code;
}
void lk__bigtable_table_done(struct lk__bigtable_call *c) {
    if (!c->handle) return;
    pthread_mutex_lock(&c->b->lock);
    c->handle->references--;
    pthread_mutex_unlock(&c->b->lock);
    c->handle = NULL;
}
