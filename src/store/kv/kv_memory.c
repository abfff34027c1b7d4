/* Rows in memory: a treap (Seidel and Aragon, 1996) whose nodes are never changed once another transaction can see them, so
 * that a snapshot is a root and costs nothing. One writer at a time; it copies the nodes on its way down. A node's priority
 * is a hash of its key: the tree's shape follows from its rows. Rows take little (40 bytes a key) so that tests and short
 * jobs meet the layers of long keys. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define KEY_MAX 40

/* A row's bytes, shared by the copies of its node. */
struct row {
    atomic_uint references;
    size_t key_size, value_size;
    unsigned char data[]; /* key, value */
};
struct node {
    atomic_uint references; /* of parents and roots; a writer changes those that have one */
    uint32_t priority;
    struct row *row;
    struct node *side[2]; /* smaller keys, larger keys */
};

struct database {
    struct database *next;
    char *name; /* "": only this handle's */
    int handles;
    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t free;
    bool writing;
    pthread_t writer;
    struct node *root;
    uint64_t rows, bytes;
    int64_t last_ms, now_ms; /* of the last commit that had a time; that was told last */
    uint32_t readers;
};
struct kv {
    struct lk_kv base;
    struct database *db;
};
struct txn {
    struct lk_kv_txn base;
    struct database *db;
    struct node *root;
    uint64_t rows, bytes;
    int64_t timestamp_ms;
};
struct cursor {
    struct lk_kv_cursor base;
};

static struct database *databases;
static pthread_mutex_t databases_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- the tree -------------------------------------------------------------------------------------------- */

static struct lk_bytes key_of(const struct node *n) {
    return lk_bytes(n->row->data, n->row->key_size);
}

static struct node *take(struct node *n) {
    if (n) atomic_fetch_add_explicit(&n->references, 1, memory_order_relaxed);
    return n;
}
static void drop_row(struct row *r) {
    if (r && atomic_fetch_sub(&r->references, 1) == 1) lk_free(r);
}
static void drop(struct node *n) {
    if (!n || atomic_fetch_sub(&n->references, 1) != 1) return;
    drop(n->side[0]);
    drop(n->side[1]);
    drop_row(n->row);
    lk_free(n);
}

/* The node at *link as one that only this writer has; NULL: out of memory. */
static struct node *own(struct node **link) {
    struct node *old = *link;
    if (atomic_load(&old->references) == 1) return old;
    struct node *n = lk_alloc(sizeof *n);
    if (!n) return NULL;
    *n = (struct node){.priority = old->priority, .row = old->row, .side = {take(old->side[0]), take(old->side[1])}};
    atomic_init(&n->references, 1);
    atomic_fetch_add(&n->row->references, 1);
    drop(old);
    return *link = n;
}

static uint32_t priority_of(struct lk_bytes key) {
    const unsigned char *p = key.data;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < key.size; i++) h = (h ^ p[i]) * 0x100000001B3u;
    h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

/* The child on one side becomes the parent; both are the writer's own. */
static void rotate(struct node **link, int side) {
    struct node *parent = *link, *child = parent->side[side];
    parent->side[side] = child->side[!side];
    child->side[!side] = parent;
    *link = child;
}

/* Puts the row, which the tree takes over, where *link is; *old: what was there. False: out of memory, and nothing below
 * has lost anything. */
static bool insert(struct node **link, struct row *row, struct row **old) {
    struct lk_bytes key = lk_bytes(row->data, row->key_size);
    if (!*link) {
        struct node *n = lk_calloc(1, sizeof *n);
        if (!n) return false;
        atomic_init(&n->references, 1);
        n->priority = priority_of(key);
        n->row = row;
        *link = n;
        return true;
    }
    struct node *n = own(link);
    if (!n) return false;
    int c = lk__kv_compare(key, key_of(n));
    if (c == 0) {
        *old = n->row;
        n->row = row;
        return true;
    }
    if (!insert(&n->side[c > 0], row, old)) return false;
    if (n->side[c > 0]->priority > n->priority) rotate(link, c > 0);
    return true;
}

/* Takes the node at *link out: turns it down until it has one child at most. */
static bool take_out(struct node **link) {
    for (;;) {
        struct node *n = *link;
        if (!n->side[0] || !n->side[1]) {
            *link = n->side[0] ? n->side[0] : n->side[1];
            n->side[0] = n->side[1] = NULL;
            drop(n);
            return true;
        }
        int up = n->side[1]->priority > n->side[0]->priority;
        if (!own(&n->side[up])) return false;
        rotate(link, up);
        link = &(*link)->side[!up];
    }
}

static const struct node *find(const struct node *n, struct lk_bytes key) {
    for (int c; n && (c = lk__kv_compare(key, key_of(n))) != 0;) n = n->side[c > 0];
    return n;
}

/* The first row at key or behind it (over: only behind it), or back: the last one before it. */
static const struct node *nearest(const struct node *n, struct lk_bytes key, bool back, bool over) {
    const struct node *best = NULL;
    while (n) {
        int c = lk__kv_compare(key_of(n), key);
        bool right = back ? c < 0 : over ? c <= 0 : c < 0; /* go on to larger keys */
        if (right == back) best = n;
        n = n->side[right];
    }
    return best;
}
static const struct node *outermost(const struct node *n, int side) {
    while (n && n->side[side]) n = n->side[side];
    return n;
}

/* --- open ------------------------------------------------------------------------------------------------ */

static struct database *create(const char *name, struct lk_err *err) {
    struct database *db = lk_calloc(1, sizeof *db);
    char *copy = lk_strdup(name);
    if (!db || !copy) {
        lk_free(db);
        lk_free(copy);
        lk_fail(err, LK_ENOMEM, "out of memory opening a store in memory");
        return NULL;
    }
    db->name = copy;
    pthread_mutex_init(&db->lock, NULL);
    pthread_cond_init(&db->free, NULL);
    db->next = databases;
    return databases = db;
}

static int memory_open(const char *url, enum lk_access how, struct lk_kv **out, struct lk_err *err) {
    const char *name = url + strlen(lk__kv_memory.scheme);
    struct kv *kv = lk_calloc(1, sizeof *kv);
    if (!kv) return lk_fail(err, LK_ENOMEM, "out of memory opening %s", url);
    int code = 0;
    pthread_mutex_lock(&databases_lock);
    for (kv->db = databases; kv->db && (!*name || strcmp(kv->db->name, name) != 0);) kv->db = kv->db->next;
    if (!kv->db && how != LK_CREATE)
        code = lk_fail(err, LK_ENOTFOUND, "there is no store \"%s\" in the memory of this process", url);
    else if (!kv->db && !(kv->db = create(name, err)))
        code = LK_ENOMEM;
    if (code == 0) kv->db->handles++;
    pthread_mutex_unlock(&databases_lock);
    if (code == 0)
        *out = &kv->base;
    else
        lk_free(kv);
    return code;
}

static void memory_close(struct lk_kv *base) {
    struct database *db = ((struct kv *)base)->db;
    pthread_mutex_lock(&databases_lock);
    if (--db->handles == 0) {
        struct database **link = &databases;
        while (*link != db) link = &(*link)->next;
        *link = db->next;
        LK_ASSERT(!db->writing && !db->readers); /* close before commit or abort */
        drop(db->root);
        pthread_cond_destroy(&db->free);
        pthread_mutex_destroy(&db->lock);
        lk_free(db->name);
        lk_free(db);
    }
    pthread_mutex_unlock(&databases_lock);
    lk_free(base);
}

/* --- transactions ---------------------------------------------------------------------------------------- */

static int memory_begin(struct lk_kv *base, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    struct database *db = ((struct kv *)base)->db;
    struct txn *txn = lk_calloc(1, sizeof *txn);
    if (!txn) return lk_fail(err, LK_ENOMEM, "out of memory for a transaction");
    pthread_mutex_lock(&db->lock);
    bool mine = write && db->writing && pthread_equal(db->writer, pthread_self());
    while (write && !mine && db->writing) pthread_cond_wait(&db->free, &db->lock);
    if (mine) {
        pthread_mutex_unlock(&db->lock);
        lk_free(txn);
        return lk_fail(err, LK_EBUSY, "this thread has a write transaction open already; it would wait for itself");
    }
    if (write) {
        db->writing = true;
        db->writer = pthread_self();
    } else
        db->readers++;
    txn->root = take(db->root);
    txn->rows = db->rows;
    txn->bytes = db->bytes;
    txn->timestamp_ms = write ? 0 : db->last_ms;
    pthread_mutex_unlock(&db->lock);
    txn->db = db;
    *out = &txn->base;
    return 0;
}

static void end(struct txn *txn, bool commit) {
    struct database *db = txn->db;
    struct node *old = txn->root;
    pthread_mutex_lock(&db->lock);
    if (commit) {
        old = db->root;
        db->root = txn->root;
        db->rows = txn->rows;
        db->bytes = txn->bytes;
        if (txn->timestamp_ms) db->last_ms = txn->timestamp_ms;
    }
    if (txn->base.write) {
        db->writing = false;
        pthread_cond_signal(&db->free);
    } else
        db->readers--;
    pthread_mutex_unlock(&db->lock);
    drop(old);
    lk_free(txn);
}

static void memory_abort(struct lk_kv_txn *base) {
    end((struct txn *)base, false);
}

static int memory_timestamp(struct lk_kv_txn *base, int64_t *out_ms, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    (void)err;
    if (base->write && !txn->timestamp_ms) {
        int64_t now = lk_clock_wall_ms(), last;
        pthread_mutex_lock(&txn->db->lock);
        last = txn->db->last_ms;
        pthread_mutex_unlock(&txn->db->lock);
        txn->timestamp_ms = now > last ? now : last + 1;
    }
    *out_ms = txn->timestamp_ms;
    return 0;
}

static int memory_raise(struct lk_kv_txn *base, int64_t least_ms, struct lk_err *err) {
    (void)err;
    ((struct txn *)base)->timestamp_ms = least_ms;
    return 0;
}

static int memory_commit(struct lk_kv_txn *base, enum lk_durability durability, bool stamped, int64_t *timestamp_ms,
                         struct lk_err *err) {
    (void)durability;
    if (stamped) memory_timestamp(base, timestamp_ms, err);
    end((struct txn *)base, base->write);
    return 0;
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static int memory_get(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    const struct node *n = find(((struct txn *)base)->root, key);
    (void)err;
    if (!n) return LK_ENOTFOUND;
    *value = lk_bytes(n->row->data + n->row->key_size, n->row->value_size);
    return 0;
}

static size_t size_of(const struct row *r) {
    return sizeof *r + r->key_size + r->value_size + sizeof(struct node);
}

static int memory_put(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    struct row *row = lk_alloc(sizeof *row + key.size + value.size), *old = NULL;
    if (!row) return lk_fail(err, LK_ENOMEM, "out of memory for a row of %zu bytes", key.size + value.size);
    atomic_init(&row->references, 1);
    row->key_size = key.size;
    row->value_size = value.size;
    memcpy(row->data, key.data, key.size);
    if (value.size) memcpy(row->data + key.size, value.data, value.size);
    if (!insert(&txn->root, row, &old)) {
        drop_row(row);
        return lk_fail(err, LK_ENOMEM, "out of memory for a row of %zu bytes", key.size + value.size);
    }
    txn->rows += !old;
    txn->bytes += size_of(row) - (old ? size_of(old) : 0);
    drop_row(old);
    return 0;
}

static int memory_remove(struct lk_kv_txn *base, struct lk_bytes key, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    struct node **link = &txn->root;
    const struct node *there = find(txn->root, key);
    if (!there) return 0;
    size_t size = size_of(there->row);
    for (;;) {
        struct node *n = own(link);
        if (!n) return lk_fail(err, LK_ENOMEM, "out of memory to remove a row");
        int c = lk__kv_compare(key, key_of(n));
        if (c == 0) break;
        link = &n->side[c > 0];
    }
    if (!take_out(link)) return lk_fail(err, LK_ENOMEM, "out of memory to remove a row");
    txn->rows--;
    txn->bytes -= size;
    return 0;
}

/* --- cursors: a key, looked up at each move ---------------------------------------------------------------- */

static int memory_cursor_open(struct lk_kv_txn *txn, struct lk_kv_cursor **out, struct lk_err *err) {
    struct cursor *c = lk_calloc(1, sizeof *c);
    (void)txn;
    if (!c) return lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
    *out = &c->base;
    return 0;
}
static void memory_cursor_close(struct lk_kv_cursor *c) {
    lk_free(c);
}

static int arrive(struct lk_kv_cursor *c, const struct node *n) {
    if (!n) return LK_ENOTFOUND;
    c->key = key_of(n);
    c->value = lk_bytes(n->row->data + n->row->key_size, n->row->value_size);
    return 0;
}
static int memory_cursor_seek(struct lk_kv_cursor *c, struct lk_bytes key, bool back, struct lk_err *err) {
    const struct node *root = ((struct txn *)c->txn)->root;
    (void)err;
    return arrive(c, key.size ? nearest(root, key, back, false) : outermost(root, back));
}
static int memory_cursor_step(struct lk_kv_cursor *c, bool back, struct lk_err *err) {
    (void)err;
    return arrive(c, nearest(((struct txn *)c->txn)->root, c->key, back, true));
}

static int memory_stats(struct lk_kv *base, struct lk_kv_stats *out, struct lk_err *err) {
    struct database *db = ((struct kv *)base)->db;
    (void)err;
    pthread_mutex_lock(&db->lock);
    out->rows = db->rows;
    out->size_bytes = db->bytes;
    out->readers = db->readers;
    out->timestamp_ms = db->last_ms;
    pthread_mutex_unlock(&db->lock);
    return 0;
}

static int memory_now(struct lk_kv_txn *base, int64_t *out_ms, struct lk_err *err) {
    struct database *db = ((struct txn *)base)->db;
    (void)err;
    *out_ms = lk_clock_wall_ms();
    pthread_mutex_lock(&db->lock);
    if (*out_ms < db->now_ms) *out_ms = db->now_ms;
    db->now_ms = *out_ms;
    pthread_mutex_unlock(&db->lock);
    return 0;
}

const struct lk_kv_ops lk__kv_memory = {
    .name = "memory",
    .scheme = "memory:",
    .key_max = KEY_MAX,
    .open = memory_open,
    .close = memory_close,
    .begin = memory_begin,
    .commit = memory_commit,
    .abort = memory_abort,
    .now = memory_now,
    .timestamp = memory_timestamp,
    .raise = memory_raise,
    .get = memory_get,
    .put = memory_put,
    .remove = memory_remove,
    .cursor_open = memory_cursor_open,
    .cursor_close = memory_cursor_close,
    .cursor_seek = memory_cursor_seek,
    .cursor_step = memory_cursor_step,
    .stats = memory_stats,
};
