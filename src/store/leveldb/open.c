/* Opening, closing and removing a database; whose it is. */
#include "lockstep/base/file.h"
#include "store/leveldb/db.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format_row[] = "#leveldb", format[] = "1 ", bytewise[] = "leveldb.BytewiseComparator";

/* --- errors ---------------------------------------------------------------------------------------------- */

void lk__leveldb_fail(char **errptr, const struct lk_err *err) {
    static const struct {
        int code;
        const char *kind;
    } kinds[] = {{LK_EINVAL, "Invalid argument"},
                 {LK_ENOTFOUND, "Invalid argument"},
                 {LK_ECORRUPT, "Corruption"},
                 {LK_EUNSUPPORTED, "Not implemented"}};
    const char *kind = "IO error";
    if (!errptr) return;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].code == err->code) kind = kinds[i].kind;
    size_t size = strlen(kind) + strlen(err->message) + 3;
    char *text = malloc(size);
    LK_ASSERT(text); /* no error would mean success */
    snprintf(text, size, "%s: %s", kind, err->message);
    free(*errptr);
    *errptr = text;
}

/* --- the folder ------------------------------------------------------------------------------------------ */

static bool holds(const char *dir, const char *file) {
    char *path = lk_asprintf("%s/%s", dir, file);
    bool yes = path && lk_file_exists(path);
    lk_free(path);
    return yes;
}
static int refuse_leveldb(const char *dir, struct lk_err *err) {
    if (!holds(dir, "CURRENT")) return 0;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "%s holds LevelDB's own files, which are not read here: take another folder and bring the rows over "
                   "(docs/kv.md, \"From LevelDB\")",
                   dir);
}

static int open_folder(const char *dir, int *out, struct lk_err *err) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), locked;
    if (fd < 0) return lk_fail_errno(err, "cannot open %s", dir);
    while ((locked = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) {}
    int code = 0;
    if (locked != 0 && errno == EWOULDBLOCK)
        code = lk_fail(err, LK_EBUSY, "%s is open already, here or in another process; one at a time may have it", dir);
    else if (locked != 0)
        code = lk_fail_errno(err, "cannot lock %s", dir);
    if (code != 0) close(fd);
    *out = fd;
    return code;
}
/* Who had the lock before may have removed the folder. */
static int lock_folder(const char *dir, int *out, struct lk_err *err) {
    for (;;) {
        struct stat mine, there;
        int code = open_folder(dir, out, err);
        if (code != 0) return code;
        if (fstat(*out, &mine) == 0 && stat(dir, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
            return 0;
        close(*out);
    }
}

/* --- what is in it --------------------------------------------------------------------------------------- */

enum content { NOTHING, OURS, OTHERS };
/* name: (size) the comparator's, of OURS; cut where it is longer. */
static int read_format(struct lk_kv *kv, enum content *out, char *name, size_t size, struct lk_err *err) {
    struct lk_kv_txn *txn;
    struct lk_kv_cursor *c;
    struct lk_bytes value;
    int code = lk_kv_begin(kv, false, &txn, err);
    if (code != 0) return code;
    code = lk_kv_get(txn, lk_bytes(format_row, sizeof format_row - 1), &value, err);
    size_t mark = sizeof format - 1;
    *out = OTHERS;
    if (code == 0 && value.size > mark && memcmp(value.data, format, mark) == 0) {
        *out = OURS;
        snprintf(name, size, "%.*s", (int)(value.size - mark), (const char *)value.data + mark);
    } else if (code == LK_ENOTFOUND &&
               (code = lk_kv_cursor_open(txn, lk_bytes(NULL, 0), lk_bytes(NULL, 0), &c, err)) == 0) {
        code = lk_kv_cursor_first(c, err);
        if (code == LK_ENOTFOUND) *out = NOTHING, code = 0;
        lk_kv_cursor_close(c);
    }
    lk_kv_abort(txn);
    return code;
}

static int put_format(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    char *text = lk_asprintf("%s%s", format, (const char *)arg);
    int code = text ? 0 : lk_fail(err, LK_ENOMEM, "out of memory making a database");
    if (code == 0) code = lk_kv_put(txn, lk_bytes(format_row, sizeof format_row - 1), lk_bytes(text, strlen(text)), err);
    lk_free(text);
    return code;
}

static int refuse_others(const char *dir, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s holds rows that no program wrote through this interface; take another folder", dir);
}
static const char *name_of(const leveldb_comparator_t *order) {
    return order ? order->name(order->state) : bytewise;
}

/* --- open and close -------------------------------------------------------------------------------------- */

static int open_rows(leveldb_t *db, const leveldb_options_t *o, struct lk_err *err) {
    char *url = lk_asprintf("file:%s", db->dir), name[256];
    if (!url) return lk_fail(err, LK_ENOMEM, "out of memory opening %s", db->dir);
    enum content content = NOTHING;
    int code = lk_kv_open(url, LK_WRITE, &db->kv, err);
    if (code == LK_ENOTFOUND && o->create_if_missing) code = lk_kv_open(url, LK_CREATE, &db->kv, err);
    lk_free(url);
    if (code == 0) code = read_format(db->kv, &content, name, sizeof name, err);
    if (code == LK_ENOTFOUND || (code == 0 && content == NOTHING && !o->create_if_missing))
        return lk_fail(err, LK_EINVAL, "%s does not exist (create_if_missing is false)", db->dir);
    if (code != 0) return code;
    if (content == OTHERS) return refuse_others(db->dir, err);
    if (content == OURS && o->error_if_exists)
        return lk_fail(err, LK_EINVAL, "%s exists (error_if_exists is true)", db->dir);
    if (content == OURS && strncmp(name, name_of(db->order), sizeof name - 1) != 0)
        return lk_fail(err, LK_EINVAL, "%s was made with the comparator %s, not %s; open it with that one", db->dir, name,
                       name_of(db->order));
    if (content == OURS) return 0;
    return lk_kv_update(db->kv, put_format, (void *)(uintptr_t)name_of(db->order), LK_DURABLE, NULL, err);
}

static int open_database(leveldb_t *db, const leveldb_options_t *o, const char *dir, struct lk_err *err) {
    db->lock = -1;
    if (!(db->dir = lk_strdup(dir))) return lk_fail(err, LK_ENOMEM, "out of memory opening %s", dir);
    db->order = o->comparator;
    db->pid = getpid();
    db->references = 1;
    if (o->create_if_missing && mkdir(dir, 0777) != 0 && errno != EEXIST)
        return lk_fail_errno(err, "cannot make the folder %s", dir);
    int code = refuse_leveldb(dir, err);
    if (code == 0) code = lock_folder(dir, &db->lock, err);
    if (code != 0) db->lock = -1;
    if (code == LK_ENOTFOUND) return lk_fail(err, LK_EINVAL, "%s does not exist (create_if_missing is false)", dir);
    return code == 0 ? open_rows(db, o, err) : code;
}

void lk__leveldb_release(leveldb_t *db) {
    if (!db || atomic_fetch_sub(&db->references, 1) > 1) return;
    lk_kv_close(db->kv);
    /* Not by closing alone: a forked child may have the descriptor too. */
    if (db->lock >= 0 && db->pid == getpid()) flock(db->lock, LOCK_UN);
    if (db->lock >= 0) close(db->lock);
    lk_free(db->dir);
    lk_free(db);
}
void leveldb_close(leveldb_t *db) {
    lk__leveldb_release(db);
}

leveldb_t *leveldb_open(const leveldb_options_t *o, const char *dir, char **errptr) {
    struct lk_err err;
    leveldb_t *db = lk_calloc(1, sizeof *db);
    if ((db ? open_database(db, o, dir, &err) : lk_fail(&err, LK_ENOMEM, "out of memory opening %s", dir)) == 0) return db;
    lk__leveldb_release(db);
    lk__leveldb_fail(errptr, &err);
    return NULL;
}

/* --- removing and checking --------------------------------------------------------------------------------- */

static int check_ours(const char *dir, struct lk_err *err) {
    char *url = lk_asprintf("file:%s", dir), name[256];
    struct lk_kv *kv = NULL;
    enum content content = NOTHING;
    int code = url ? lk_kv_open(url, LK_WRITE, &kv, err) : lk_fail(err, LK_ENOMEM, "out of memory");
    lk_free(url);
    if (code == LK_ENOTFOUND) return 0;
    if (code == 0) code = read_format(kv, &content, name, sizeof name, err);
    lk_kv_close(kv);
    if (code == 0 && content == OTHERS) code = refuse_others(dir, err);
    return code == 0 ? 0 : lk_fail_prefix(err, code, "nothing was removed");
}

static int destroy(const char *dir, struct lk_err *err) {
    int lock, code = refuse_leveldb(dir, err);
    char *rows = lk_asprintf("%s/kv", dir);
    if (code == 0 && !rows) code = lk_fail(err, LK_ENOMEM, "out of memory removing %s", dir);
    if (code == 0 && (code = lock_folder(dir, &lock, err)) == 0) {
        code = check_ours(dir, err);
        if (code == 0) code = lk_dir_remove(rows, err);
        if (code == 0) rmdir(dir); /* where it holds other files it stays */
        flock(lock, LOCK_UN);
        close(lock);
    }
    lk_free(rows);
    return code == LK_ENOTFOUND ? 0 : code;
}
void leveldb_destroy_db(const leveldb_options_t *o, const char *dir, char **errptr) {
    struct lk_err err;
    (void)o;
    if (destroy(dir, &err) != 0) lk__leveldb_fail(errptr, &err);
}

void leveldb_repair_db(const leveldb_options_t *o, const char *dir, char **errptr) {
    leveldb_options_t as_it_is = {.comparator = o->comparator};
    struct lk_kv_check check;
    struct lk_err err;
    char *text = NULL;
    leveldb_t *db = leveldb_open(&as_it_is, dir, &text);
    if (!db) {
        if (errptr) free(*errptr), *errptr = text;
        return;
    }
    int code = lk_kv_check(db->kv, &check, &err);
    if (code == LK_ECORRUPT) lk_fail_prefix(&err, code, "cannot be repaired, put a copy in its place (lockstep kv copy)");
    if (code != 0) lk__leveldb_fail(errptr, &err);
    leveldb_close(db);
}
