/* What is being removed: the row r/sweep/blobs, or a file, lists it, so that nobody names it meanwhile. */
#include "store/sweep.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include "store/lease.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KIND "sweep"
#define NAME "blobs"
#define ROW  "r/" KIND "/" NAME

/* S3 refuses a request that was signed 15 minutes ago, so one that is under way for longer does nothing. A remover stops at
 * a third of it. */
uint32_t lk__store_late_ms = 900000;
uint32_t lk__store_patience_ms = 30000;
unsigned lk__store_planted;
int64_t lk__store_skipped_ms;
void (*lk__store_step)(const char *what);

/* Also while the machine sleeps. */
static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec + (uint64_t)lk__store_skipped_ms * 1000000;
}
bool lk__store_wait(uint64_t *began_ns) {
    uint64_t now = lk_clock_ns();
    if (!*began_ns) *began_ns = now;
    if (now - *began_ns >= (uint64_t)lk__store_patience_ms * 1000000) return false;
    if (lk__store_step)
        lk__store_step("waits");
    else
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return true;
}

char *lk__store_note_path(const struct lk_store *s, const char *kind, const char *name, char *out) {
    snprintf(out, 4096, "%s/locks/%s/%s.roots", s->dir, kind, name);
    return out;
}
static bool timed(const struct lk_store *s) {
    return lk__store_is_timed(s);
}
static int now_of(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    int code = txn->kv->ops->now(txn, out, err);
    if (!code) *out += lk__store_skipped_ms;
    return code;
}

/* --- The row --------------------------------------------------------------------------------------------- */

/* {"number":N}, and while blobs are removed "roots", "since_ms", "process". *out: NULL, there is none. */
static int read_row(struct lk_kv_txn *txn, json_t **out, struct lk_err *err) {
    struct lk_bytes value;
    *out = NULL;
    int code = lk_kv_get(txn, lk_bytes(ROW, sizeof ROW - 1), &value, err);
    if (code) return code == LK_ENOTFOUND ? LK_OK : code;
    code = lk_record_get(txn, KIND, NAME, out, err);
    if (code == LK_ECORRUPT)
        return lk_fail(err, code,
                       "the row " ROW " is damaged; when no `lockstep gc` runs, remove it: `lockstep kv del " ROW
                       " --force`");
    return code;
}
static int write_row(struct lk_kv_txn *txn, uint64_t number, json_t *rest, struct lk_err *err) {
    json_t *row = rest ? rest : json_object();
    bool whole = row && json_object_set_new(row, "number", json_integer((json_int_t)number)) == 0;
    int code = whole ? lk_record_put(txn, KIND, NAME, row, err) : lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
    json_decref(row);
    return code;
}
static uint64_t number_of(const json_t *row) {
    return (uint64_t)json_integer_value(json_object_get(row, "number"));
}
static bool is_busy(const json_t *row) {
    return json_array_size(json_object_get(row, "roots")) > 0;
}
/* A remover that can remove nothing more. That of a store of one machine is known by its lock. */
static int is_over(struct lk_kv_txn *txn, const json_t *row, bool *out, struct lk_err *err) {
    int64_t now, since = json_integer_value(json_object_get(row, "since_ms"));
    int code = now_of(txn, &now, err);
    *out = !code && (lk__store_process_is_dead(json_object_get(row, "process")) || now - since >= lk__store_late_ms);
    return code;
}

/* --- The file of a store of one machine ------------------------------------------------------------------ */

/* 32 bytes a root; it is there while what it lists is removed, and who holds the lock writes it. The dooming transaction
 * does, while no other writes, so others see it in theirs. */
static int read_file(const struct lk_store *s, struct lk_buf *out, struct lk_err *err) {
    char path[4096];
    if (!lk_file_exists(lk__store_note_path(s, KIND, NAME, path))) return LK_OK;
    int code = lk_file_read(path, (size_t)LK__STORE_BATCH * 32, out, err);
    return code == LK_ENOTFOUND ? LK_OK : code;
}
static int write_file(const struct lk_store *s, const struct lk_root *roots, size_t count, struct lk_err *err) {
    char path[4096], draft[4104];
    size_t size = count * sizeof *roots;
    snprintf(draft, sizeof draft, "%s.new", lk__store_note_path(s, KIND, NAME, path));
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool whole = fd >= 0 && write(fd, roots, size) == (ssize_t)size;
    if (fd >= 0 && close(fd)) whole = false;
    if (whole && rename(draft, path) == 0) return LK_OK;
    int code = lk_fail_errno(err, "cannot write %s", path);
    unlink(draft);
    return code;
}
/* Gives a store of one machine, until the transaction's end, the room on the disk that is kept for deleting: what a
 * collector writes has to fit on a disk that is full. */
static int open_reserve(struct lk_kv_txn *txn, struct lk_err *err) {
    return lk_kv_delete(txn, lk_bytes(ROW, sizeof ROW - 1), err); /* there is none */
}
static int make_folder(struct lk_kv_txn *txn, void *path, struct lk_err *err) {
    int code = open_reserve(txn, err);
    return code ? code : lk_dir_make(path, err);
}
static void remove_file(const struct lk_store *s) {
    char path[4096];
    unlink(lk__store_note_path(s, KIND, NAME, path));
}
static int is_in_file(struct lk_store *s, const struct lk_root *roots, size_t count, bool *out, struct lk_err *err) {
    struct lk_buf list = LK_BUF_INIT;
    struct lk_lease_state state;
    int code = read_file(s, &list, err);
    for (size_t i = 0; i + 32 <= list.size; i += 32)
        for (size_t k = 0; k < count; k++) *out |= memcmp(list.data + i, roots[k].bytes, 32) == 0;
    lk_buf_release(&list);
    if (code || !*out) return code;
    code = lk_lease_look(s, KIND, NAME, &state, err); /* a file that a dead remover left says nothing */
    *out = state.held;
    return code;
}

static int is_in_row(struct lk_kv_txn *txn, const struct lk_root *roots, size_t count, bool *out, struct lk_err *err) {
    json_t *row, *hex;
    size_t i;
    int code = read_row(txn, &row, err);
    json_array_foreach(json_object_get(row, "roots"), i, hex) {
        struct lk_root root;
        if (!lk_root_parse(json_string_value(hex) ? json_string_value(hex) : "", &root)) continue;
        for (size_t k = 0; k < count; k++) *out |= lk_root_equal(&root, &roots[k]);
    }
    bool over = false;
    if (!code && *out) code = is_over(txn, row, &over, err);
    *out = *out && !over;
    json_decref(row);
    return code;
}
int lk__store_is_doomed(struct lk_store *s, struct lk_kv_txn *txn, const struct lk_root *roots, size_t count, bool *out,
                        struct lk_err *err) {
    *out = false;
    if (lk__store_is_planted(LK__STORE_NO_DOOM)) return LK_OK;
    return timed(s) ? is_in_row(txn, roots, count, out, err) : is_in_file(s, roots, count, out, err);
}

/* --- Removing -------------------------------------------------------------------------------------------- */

/* Without the moment that an acquisition waits for those who only look. */
static int lock(struct lk_store *store, struct lk_lease **out, struct lk_err *err) {
    struct lk_lease_state state;
    int code = lk_lease_look(store, KIND, NAME, &state, err);
    if (!code && state.held)
        code = lk_fail(err, LK_EBUSY, "a collector removes blobs of this store (%s); try again when it has ended",
                       state.holder);
    return code ? code : lk_lease_acquire(store, KIND, NAME, out, err);
}
int lk__store_sweep_open(struct lk_store *store, struct lk__store_sweep *s, struct lk_err *err) {
    uint64_t began = 0;
    int code = LK_OK;
    char folder[4096];
    *s = (struct lk__store_sweep){.store = store};
    if (timed(store)) return LK_OK;
    snprintf(folder, sizeof folder, "%s/locks/" KIND, store->dir);
    if (!lk_file_exists(folder)) code = lk_kv_update(store->kv, make_folder, folder, LK_LAZY, NULL, err);
    if (code) return code;
    do code = lock(store, &s->lock, err);
    while (code == LK_EBUSY && lk__store_wait(&began));
    return code;
}
void lk__store_sweep_close(struct lk__store_sweep *s) {
    if (s->lock) remove_file(s->store);
    lk_lease_release(s->lock, false);
    s->lock = NULL;
}

void lk__store_sweep_begins(struct lk__store_sweep *s) {
    s->began_ns = clock_ns();
}
int lk__store_sweep_doom(struct lk__store_sweep *s, struct lk_kv_txn *txn, const struct lk_root *roots, size_t count,
                         struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *row, *list = NULL;
    bool over = true;
    int64_t now = 0;
    int code = timed(s->store) ? LK_OK : open_reserve(txn, err);
    if (code || !timed(s->store)) return code ? code : write_file(s->store, roots, count, err);
    code = read_row(txn, &row, err);
    if (!code && is_busy(row)) code = is_over(txn, row, &over, err);
    if (!code && !over) code = lk_fail(err, LK_EBUSY, "another collector is removing blobs; try again when it has ended");
    if (!code) code = now_of(txn, &now, err);
    s->number = number_of(row) + 1;
    json_decref(row);
    if (code) return code;
    list = json_array();
    bool whole = list != NULL;
    for (size_t i = 0; i < count && whole; i++)
        whole = json_array_append_new(list, json_string(lk_root_hex(&roots[i], hex))) == 0;
    row = whole ? json_pack("{s:O, s:I, s:o}", "roots", list, "since_ms", (json_int_t)now, "process",
                            lk__store_process_json())
                : NULL;
    json_decref(list);
    return row ? write_row(txn, s->number, row, err) : lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
}
bool lk__store_sweep_in_time(const struct lk__store_sweep *s) {
    return clock_ns() - s->began_ns < (uint64_t)lk__store_late_ms * 1000000 / 3 || lk__store_is_planted(LK__STORE_NO_BOUND);
}

static int clear(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct lk__store_sweep *s = arg;
    json_t *row;
    int code = read_row(txn, &row, err);
    bool mine = !code && is_busy(row) && number_of(row) == s->number;
    json_decref(row);
    return mine ? write_row(txn, s->number, NULL, err) : code;
}
int lk__store_sweep_done(struct lk__store_sweep *s, struct lk_err *err) {
    if (!timed(s->store)) return remove_file(s->store), LK_OK;
    return lk_kv_update(s->store->kv, clear, s, LK_LAZY, NULL, err);
}

static int settle(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    json_t *row;
    bool over = true;
    (void)arg;
    int code = read_row(txn, &row, err);
    if (!code && is_busy(row)) code = is_over(txn, row, &over, err);
    bool ends = !code && is_busy(row) && over;
    uint64_t number = number_of(row);
    json_decref(row);
    return ends ? write_row(txn, number + 1, NULL, err) : code;
}
int lk__store_sweep_settle(struct lk_store *store, struct lk_err *err) {
    struct lk__store_sweep s = {.store = store};
    if (timed(store)) return lk_kv_update(store->kv, settle, NULL, LK_LAZY, NULL, err);
    int code = lock(store, &s.lock, err);
    if (code) return code == LK_EBUSY ? LK_OK : code; /* it is at work */
    lk__store_sweep_close(&s);
    return LK_OK;
}
