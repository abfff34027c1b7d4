/* Announcements: rows u/SESSION/ROOT, or in a store of one machine a file of the session, hold what a process puts, before
 * it is there. A session is a lease. */
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "store/blob/blob_engine.h"
#include "store/kv/kv_engine.h"
#include "store/marks.h"
#include "store/sweep.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LEASE     "upload"
#define ID_BYTES  17
#define KEY_BYTES (2 + ID_BYTES + LK_ROOT_HEX)

struct lk__store_uploads {
    struct lk_store *store;
    pthread_mutex_t mutex; /* of all below */
    struct lk_lease *lease;
    int fd; /* of the session's file, in a store of one machine; else -1 */
    char id[ID_BYTES];
    struct lk_buf roots; /* struct lk_root: announced, and named by nobody yet */
    size_t announcing;   /* others, that are being announced */
};

/* "u/ID/" and the root. */
static struct lk_bytes key_of(const char *id, const struct lk_root *root, char out[KEY_BYTES]) {
    char hex[LK_ROOT_HEX];
    int n = snprintf(out, KEY_BYTES, "u/%s/%s", id, lk_root_hex(root, hex));
    return lk_bytes(out, (size_t)n);
}
static const struct lk_root *list_of(const struct lk__store_uploads *u, size_t *count) {
    *count = u->roots.size / sizeof(struct lk_root);
    return (const struct lk_root *)(const void *)u->roots.data;
}

/* --- The session ----------------------------------------------------------------------------------------- */

/* Under the mutex. */
static int begin_session(struct lk__store_uploads *u, struct lk_err *err) {
    unsigned char random[8];
    if (u->lease) return LK_OK;
    if (getrandom(random, sizeof random, 0) != sizeof random) return lk_fail_errno(err, "no random number for an upload");
    for (int i = 0; i < 8; i++) snprintf(u->id + 2 * i, 3, "%02x", random[i]);
    int code = lk_lease_acquire(u->store, LEASE, u->id, &u->lease, err);
    if (code || lk__store_is_timed(u->store)) return code;
    char path[4096];
    u->fd = open(lk__store_note_path(u->store, LEASE, u->id, path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (u->fd >= 0) return LK_OK;
    code = lk_fail_errno(err, "cannot create %s", path);
    lk_lease_release(u->lease, true);
    u->lease = NULL;
    return code;
}
/* A record of a session's file: + or - and a root. Who reads half of one reads before it is there. Where a disk that is
 * full took half of one, that goes again: nobody would understand those behind it. */
static int note(struct lk__store_uploads *u, char sign, const struct lk_root *root, struct lk_err *err) {
    char record[33] = {sign};
    memcpy(record + 1, root->bytes, 32);
    off_t end = lseek(u->fd, 0, SEEK_END);
    ssize_t n = end < 0 ? -1 : lk__write(u->fd, record, sizeof record);
    if (n == (ssize_t)sizeof record) return LK_OK;
    if (n >= 0) errno = ENOSPC;
    int code = lk_fail_errno(err, "cannot write that a blob is being put, to %s/locks/upload", u->store->dir);
    if (n > 0 && ftruncate(u->fd, end)) close(u->fd), u->fd = -1; /* nothing more is said there */
    return code;
}
/* Rows of a session, and its lease's, which is lost with them. */
static int remove_session(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const char *id = arg;
    char from[32], to[32], lease[64];
    int n = snprintf(from, sizeof from, "u/%s/", id);
    snprintf(to, sizeof to, "u/%s0", id); /* behind the '/' */
    snprintf(lease, sizeof lease, LEASE "/%s", id);
    int code = lk_kv_delete_range(txn, lk_bytes(from, (size_t)n), lk_bytes(to, (size_t)n), err);
    if (code || !txn->kv->ops->now) return code;
    code = lk_record_delete(txn, "lease", lease, err);
    return code == LK_ENOTFOUND ? LK_OK : code;
}

/* --- Announcing ------------------------------------------------------------------------------------------ */

struct announcing {
    struct lk__store_uploads *uploads;
    const struct lk_root *root;
    bool hold; /* what is there already */
    bool doomed, noted;
};
static int announce_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct announcing *a = arg;
    struct lk__store_uploads *u = a->uploads;
    char key[KEY_BYTES], holder[100], host[64] = "";
    int code = lk_lease_check(u->lease, txn, err);
    if (code == LK_EBUSY)
        code = lk_fail(err, code, "this process was away for too long, and what it put may be gone: run it again");
    if (!code) code = lk__store_is_doomed(u->store, txn, a->root, 1, &a->doomed, err);
    if (code) return code;
    if (a->doomed && !a->hold) return LK_OK;
    if (a->hold && (code = lk_store_still_there(u->store, txn, a->root, 1, err))) return code;
    gethostname(host, sizeof host - 1);
    int n = snprintf(holder, sizeof holder, "process %ld on %s", (long)getpid(), *host ? host : "an unnamed host");
    return lk_kv_put(txn, key_of(u->id, a->root, key), lk_bytes(holder, (size_t)n), err);
}
/* Announces first and looks at what is doomed then; the collector dooms first and reads the announcements then. So one of
 * them knows of the other. */
static int announce_note(struct announcing *a, struct lk_err *err) {
    struct lk__store_uploads *u = a->uploads;
    pthread_mutex_lock(&u->mutex);
    int code = a->noted ? LK_OK : note(u, '+', a->root, err);
    pthread_mutex_unlock(&u->mutex);
    if (code) return code;
    if (!a->noted) lk__store_at("noted");
    a->noted = true;
    code = lk__store_is_doomed(u->store, NULL, a->root, 1, &a->doomed, err);
    if (code || !a->hold) return code;
    a->doomed |= !lk_blob_exists(u->store->blobs, a->root);
    return a->doomed ? lk_fail(err, LK_ENOTFOUND, "a blob that was there has been removed meanwhile") : LK_OK;
}
static int announce(struct lk__store_uploads *u, const struct lk_root *root, bool hold, struct lk_err *err) {
    struct announcing a = {u, root, hold, false, false};
    uint64_t began = 0;
    pthread_mutex_lock(&u->mutex);
    int code = begin_session(u, err);
    u->announcing++;
    pthread_mutex_unlock(&u->mutex);
    while (!code) {
        code = lk__store_is_timed(u->store) ? lk_kv_update(u->store->kv, announce_row, &a, LK_LAZY, NULL, err)
                                            : announce_note(&a, err);
        if (code || !a.doomed) break;
        code = lk__store_sweep_settle(u->store, err);
        if (!code && !lk__store_wait(&began))
            code =
                lk_fail(err, LK_EBUSY,
                        "the blob is being removed by a collector, and is not there yet to be put again; try again, at the "
                        "latest in a quarter of an hour");
    }
    /* Only now is it one that naming asks for, and what fails takes back no other announcement of the same blob. */
    pthread_mutex_lock(&u->mutex);
    u->announcing--;
    if (!code && lk_buf_append(&u->roots, root, sizeof *root)) code = lk_fail(err, LK_ENOMEM, "no memory to put a blob");
    if (code && a.noted) note(u, '-', root, NULL);
    pthread_mutex_unlock(&u->mutex);
    return code;
}
/* What blob engines call before they make a blob visible. */
static int before_put(void *arg, const struct lk_root *root, struct lk_err *err) {
    lk__store_at("announces");
    if (lk__store_is_planted(LK__STORE_NO_ANNOUNCING)) return LK_OK;
    int code = announce(((struct lk_store *)arg)->uploads, root, false, err);
    lk__store_at("announced");
    return code;
}
int lk_uploads_hold(struct lk_store *store, const struct lk_root *root, struct lk_err *err) {
    return store->uploads ? announce(store->uploads, root, true, err) : LK_OK;
}

/* The sessions that have files: IDs, each ended by a zero. */
static int find_files(struct lk_store *store, struct lk_buf *out, struct lk_err *err) {
    char path[4096];
    struct dirent *e;
    int code = LK_OK;
    snprintf(path, sizeof path, "%s/locks/" LEASE, store->dir);
    DIR *dir = opendir(path);
    if (!dir) return errno == ENOENT ? LK_OK : lk_fail_errno(err, "cannot list %s", path);
    while (!code && (errno = 0, e = readdir(dir)))
        if (strlen(e->d_name) == ID_BYTES - 1 + 6 && !strcmp(e->d_name + ID_BYTES - 1, ".roots") &&
            (lk_buf_append(out, e->d_name, ID_BYTES - 1) || lk_buf_append(out, "", 1)))
            code = lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
    if (!code && errno) code = lk_fail_errno(err, "cannot list %s", path);
    closedir(dir);
    return code;
}
/* What a session's file says: struct lk_root, each as often as it is announced and not taken back. */
static int read_notes(struct lk_store *store, const char *id, struct lk_buf *out, struct lk_err *err) {
    char path[4096];
    struct lk_buf text = LK_BUF_INIT;
    size_t from = out->size;
    int code = lk_file_read(lk__store_note_path(store, LEASE, id, path), SIZE_MAX / 2, &text, err);
    for (size_t i = 0; i + 33 <= text.size && !code; i += 33) {
        if (text.data[i] == '+' && lk_buf_append(out, text.data + i + 1, 32))
            code = lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
        for (size_t k = from; text.data[i] == '-' && k < out->size; k += 32)
            if (memcmp(out->data + k, text.data + i + 1, 32) == 0) {
                memmove(out->data + k, out->data + out->size - 32, 32);
                out->size -= 32;
                break;
            }
    }
    lk_buf_release(&text);
    return code == LK_ENOTFOUND ? LK_OK : code; /* closed meanwhile */
}
static bool is_noted(struct lk_store *store, const struct lk_root *root) {
    struct lk_buf ids = LK_BUF_INIT, roots = LK_BUF_INIT;
    int code = find_files(store, &ids, NULL);
    for (size_t i = 0; i < ids.size && !code; i += ID_BYTES) code = read_notes(store, ids.data + i, &roots, NULL);
    bool found = code != LK_OK;
    for (size_t i = 0; i < roots.size; i += 32) found |= memcmp(roots.data + i, root->bytes, 32) == 0;
    lk_buf_release(&ids);
    lk_buf_release(&roots);
    return found;
}
static bool is_among(const struct lk_buf *ids, const char *id) {
    for (size_t i = 0; i < ids->size; i += ID_BYTES)
        if (memcmp(ids->data + i, id, ID_BYTES) == 0) return true;
    return false;
}
int lk__store_uploads_mark(struct lk_store *store, struct lk__store_marks *m, const struct lk_buf *skip,
                           struct lk_err *err) {
    struct lk_buf ids = LK_BUF_INIT, roots = LK_BUF_INIT;
    struct lk_lease_state state;
    if (lk__store_is_timed(store) || lk__store_is_planted(LK__STORE_LEASE_IGNORED)) return LK_OK;
    int code = find_files(store, &ids, err);
    for (size_t i = 0; i < ids.size && !code; i += ID_BYTES) {
        if (skip && is_among(skip, ids.data + i)) continue;
        roots.size = 0;
        code = read_notes(store, ids.data + i, &roots, err);
        if (!code && m->explains && !(code = lk_lease_look(store, LEASE, ids.data + i, &state, err))) {
            m->row = (uint32_t)m->texts.size;
            code = lk_buf_printf(&m->texts, "being put by %s", *state.holder ? state.holder : "a process that is gone");
            if (!code) code = lk_buf_append(&m->texts, "", 1);
            if (code) lk_fail(err, code, "no memory to collect garbage");
        }
        for (size_t k = 0; k < roots.size && !code; k += 32) {
            struct lk_root root;
            memcpy(root.bytes, roots.data + k, 32);
            code = lk__store_marks_add(m, &root, err);
        }
    }
    lk_buf_release(&ids);
    lk_buf_release(&roots);
    return code;
}

/* An upload that is being aborted because it is old: whether a live process announced it. Looked at behind the list of
 * uploads, and an upload begins behind its announcement. */
struct finding {
    const struct lk_root *root;
};
static int is_it(void *arg, struct lk_bytes key, struct lk_bytes value) {
    char hex[LK_ROOT_HEX];
    lk_root_hex(((struct finding *)arg)->root, hex);
    (void)value;
    return key.size > 64 && memcmp((const char *)key.data + key.size - 64, hex, 64) == 0;
}
static bool is_announced(void *arg, const struct lk_root *root) {
    struct lk_store *store = arg;
    struct lk_kv_txn *txn;
    if (!lk__store_is_timed(store)) return is_noted(store, root);
    if (lk_kv_begin(store->kv, false, &txn, NULL)) return true;
    int code = lk_kv_scan(txn, lk_bytes("u/", 2), lk_bytes("u0", 2), is_it, &(struct finding){root}, NULL);
    lk_kv_abort(txn);
    return code != LK_OK;
}

/* --- Naming ---------------------------------------------------------------------------------------------- */

/* In a store of several machines a lease may have ended, and a server may have lost what was committed lazily. */
static int check_rows(struct lk__store_uploads *u, struct lk_kv_txn *txn, struct lk_err *err) {
    size_t count;
    const struct lk_root *list = list_of(u, &count);
    int code = lk_lease_check(u->lease, txn, err);
    bool whole = code != LK_EBUSY;
    for (size_t i = 0; i < count && !code && whole; i++) {
        char key[KEY_BYTES];
        struct lk_bytes value;
        code = lk_kv_get(txn, key_of(u->id, &list[i], key), &value, err);
        whole = code != LK_ENOTFOUND;
    }
    return whole ? code
                 : lk_fail(err, LK_ENOTFOUND,
                           "this process was away for too long, or the server lost what it had said, so what it put may be "
                           "gone: run it again");
}
int lk_uploads_check(struct lk_store *store, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk__store_uploads *u = store->uploads;
    if (!u || !txn->kv->ops->now || lk__store_is_planted(LK__STORE_NO_LEASE)) return LK_OK;
    pthread_mutex_lock(&u->mutex);
    int code = u->lease ? check_rows(u, txn, err) : LK_OK;
    pthread_mutex_unlock(&u->mutex);
    return code;
}
int lk_uploads_named(struct lk_store *store, struct lk_kv_txn *txn, const struct lk_root *roots, size_t count,
                     struct lk_err *err) {
    struct lk__store_uploads *u = store->uploads;
    int code = lk_uploads_check(store, txn, err);
    if (!u || !lk__store_is_timed(store)) return code; /* forget does it */
    pthread_mutex_lock(&u->mutex);
    for (size_t i = 0; i < count && !code && u->lease; i++) {
        char key[KEY_BYTES];
        code = lk_kv_delete(txn, key_of(u->id, &roots[i], key), err);
    }
    pthread_mutex_unlock(&u->mutex);
    return code;
}
void lk_uploads_forget(struct lk_store *store, const struct lk_root *roots, size_t count) {
    struct lk__store_uploads *u = store->uploads;
    if (!u) return;
    pthread_mutex_lock(&u->mutex);
    struct lk_root *list = (struct lk_root *)(void *)u->roots.data;
    size_t kept = 0, all = u->roots.size / sizeof *list;
    for (size_t i = 0; i < all; i++) {
        bool gone = false;
        for (size_t k = 0; k < count; k++) gone |= lk_root_equal(&list[i], &roots[k]);
        if (gone && u->fd >= 0) note(u, '-', &list[i], NULL); /* if not, it is held until the end */
        if (!gone) list[kept++] = list[i];
    }
    u->roots.size = kept * sizeof *list;
    if (!kept && !u->announcing && u->fd >= 0 && ftruncate(u->fd, 0)) { /* it is longer, and says the same */
    }
    pthread_mutex_unlock(&u->mutex);
}

int lk_store_still_there(struct lk_store *store, struct lk_kv_txn *txn, const struct lk_root *roots, size_t count,
                         struct lk_err *err) {
    bool doomed;
    int code = lk__store_is_doomed(store, txn, roots, count, &doomed, err);
    if (code) return code;
    for (size_t i = 0; i < count && !doomed; i++) doomed = !lk_blob_exists(store->blobs, &roots[i]);
    return doomed ? lk_fail(err, LK_ENOTFOUND, "a blob that was there has been removed meanwhile") : LK_OK;
}

/* --- Files ----------------------------------------------------------------------------------------------- */

static int remove_notes(struct lk_store *store, char *id, struct lk_err *err) {
    char path[4096];
    if (lk__store_is_timed(store)) return lk_kv_update(store->kv, remove_session, id, LK_LAZY, NULL, err);
    return unlink(lk__store_note_path(store, LEASE, id, path)) && errno != ENOENT
               ? lk_fail_errno(err, "cannot remove %s", path)
               : LK_OK;
}

/* --- Opening, closing, the dead -------------------------------------------------------------------------- */

int lk__store_uploads_open(struct lk_store *store, struct lk_err *err) {
    struct lk__store_uploads *u = lk_calloc(1, sizeof *u);
    if (!u) return lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    u->store = store, u->fd = -1;
    pthread_mutex_init(&u->mutex, NULL);
    store->uploads = u;
    store->blobs->before_put = before_put;
    store->blobs->is_announced = is_announced;
    store->blobs->store = store;
    return LK_OK;
}
void lk__store_uploads_close(struct lk_store *store) {
    struct lk__store_uploads *u = store->uploads;
    if (!u) return;
    if (u->lease) remove_notes(store, u->id, NULL); /* else the collector does */
    if (u->fd >= 0) close(u->fd);
    lk_lease_release(u->lease, true);
    pthread_mutex_destroy(&u->mutex);
    lk_buf_release(&u->roots);
    lk_free(u);
    store->uploads = NULL;
}

/* The sessions that have rows behind this prefix. */
static int find_rows(struct lk_kv_txn *txn, const char *prefix, struct lk_buf *out, struct lk_err *err) {
    struct lk_kv_cursor *c;
    unsigned char end[32];
    char next[64], id[ID_BYTES] = "";
    size_t size = strlen(prefix), end_size = size;
    LK_ASSERT(lk_kv_prefix_end(lk_bytes(prefix, size), end, &end_size));
    int code = lk_kv_cursor_open(txn, lk_bytes(prefix, size), lk_bytes(end, end_size), &c, err);
    if (code) return code;
    code = lk_kv_cursor_first(c, err);
    while (!code) {
        struct lk_bytes key = lk_kv_cursor_key(c);
        if (key.size < size + ID_BYTES - 1) {
            code = lk_kv_cursor_next(c, err); /* its kind says that it is damaged */
            continue;
        }
        memcpy(id, (const char *)key.data + size, ID_BYTES - 1);
        int n = snprintf(next, sizeof next, "%s%s0", prefix, id); /* behind a '/' */
        if (!is_among(out, id) && lk_buf_append(out, id, ID_BYTES))
            code = lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
        else
            code = lk_kv_cursor_seek(c, lk_bytes(next, (size_t)n), err);
    }
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND ? LK_OK : code;
}
/* The sessions that have announcements, or a lease and no more: IDs, each ended by a zero. */
static int find_sessions(struct lk_store *store, struct lk_buf *out, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code) return code;
    code = find_rows(txn, "u/", out, err);
    if (!code) code = find_rows(txn, "r/lease/" LEASE "/", out, err);
    lk_kv_abort(txn);
    return code;
}
/* Whoever gets the lease of a session has ended it: its process is gone, or will find another fence. */
static int end_session(struct lk_store *store, char *id, bool remove, bool *dead, struct lk_err *err) {
    struct lk_lease_state state;
    struct lk_lease *lease;
    *dead = false;
    if (!lk_name_valid(id)) return LK_OK;
    int code = lk_lease_look(store, LEASE, id, &state, err);
    if (code || (state.held && !lk__store_is_planted(LK__STORE_LEASE_IGNORED))) return code;
    *dead = true;
    if (!remove) return LK_OK;
    if (state.held) return remove_notes(store, id, err); /* planted */
    code = lk_lease_acquire(store, LEASE, id, &lease, err);
    *dead = !code;
    if (code) return code == LK_EBUSY ? LK_OK : code; /* back again, or another collector's */
    code = remove_notes(store, id, err);
    lk_lease_release(lease, true);
    return code;
}
int lk__store_uploads_end_dead(struct lk_store *store, bool remove, struct lk_buf *skip, struct lk_err *err) {
    struct lk_buf ids = LK_BUF_INIT;
    bool dead;
    int code = lk__store_is_timed(store) ? find_sessions(store, &ids, err) : find_files(store, &ids, err);
    for (size_t i = 0; i < ids.size && !code; i += ID_BYTES) {
        code = end_session(store, ids.data + i, remove, &dead, err);
        if (!code && dead && lk_buf_append(skip, ids.data + i, ID_BYTES))
            code = lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
    }
    lk_buf_release(&ids);
    return code;
}
