/* A store to another place: rounds over blobs and rows while others write, then a last one while they wait. README.md. */
#include "lockstep/store/move.h"
#include "lockstep/base/progress.h"
#include "store/census.h"
#include "store/kv/kv_engine.h"
#include "store/move.h"
#include "store/opening.h"
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ROUNDS      8    /* before others must wait, at most */
#define FEW_ROWS    1000 /* that changed in a round: the last one may begin */
#define FEW_BYTES   ((uint64_t)64 << 20)
#define LAST_ROUNDS 4 /* of the last ones; the second one finds nothing to do, unless a disk is damaged */
#define LAST_TRIES  3 /* where the server ends our transaction */
#define TELL_NS     200000000u

/* --- half a store ---------------------------------------------------------------------------------------- */

bool lk__store_is_moving(struct lk_bytes format) {
    const size_t n = sizeof LK__STORE_MOVING - 1;
    return format.size > n && memcmp(format.data, LK__STORE_MOVING, n) == 0;
}
/* NULL: not as a move writes it. */
static json_t *parse_marker(struct lk_bytes format) {
    const size_t n = sizeof LK__STORE_MOVING - 1;
    return lk_json_parse((const char *)format.data + n, format.size - n, "the row format", NULL);
}
static const char *word(const json_t *marker, const char *key) {
    const char *text = json_string_value(json_object_get(marker, key));
    return text ? text : "?";
}
int lk__store_fail_moving(const struct lk_store *s, struct lk_bytes format, struct lk_err *err) {
    json_t *marker = parse_marker(format);
    int code = lk_fail(err, LK_EBUSY,
                       "the store %s is not whole yet, it is being moved from %s (blobs %s); if that was stopped, the same "
                       "`lockstep store move` goes on with it",
                       s->url, word(marker, "from"), word(marker, "blobs"));
    json_decref(marker);
    return code;
}

/* A folder as all name it, another place as its URL says; the caller frees it. */
static char *whole_name(const char *url) {
    const char *dir = strncmp(url, "file:", 5) == 0 ? url + 5 : url;
    char *path = strstr(url, "://") ? NULL : realpath(dir, NULL);
    char *out = path ? lk_asprintf("file:%s", path) : lk_strdup(url);
    free(path);
    return out;
}

/* The row "format" that this call writes: no other call has the same one. */
static int make_marker(struct lk__store_move *m, struct lk_err *err) {
    uint64_t attempt = 0;
    char hex[17];
    char *from = whole_name(m->from->url), *blobs = whole_name(m->from->blobs_url);
    int code = getrandom(&attempt, sizeof attempt, 0) == sizeof attempt ? 0 : lk_fail_errno(err, "no random numbers");
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)attempt);
    json_t *json = from && blobs ? json_pack("{s:s, s:s, s:s}", "attempt", hex, "blobs", blobs, "from", from) : NULL;
    if (!code && (!json || lk_buf_append(&m->marker, LK__STORE_MOVING, sizeof LK__STORE_MOVING - 1)))
        code = lk_fail(err, LK_ENOMEM, "no memory to move %s", m->from->url);
    if (!code) code = lk_json_canonical(json, &m->marker, err);
    json_decref(json);
    lk_free(from);
    lk_free(blobs);
    return code;
}

static struct lk_bytes format_key(void) {
    return lk_bytes(LK__STORE_FORMAT_KEY, sizeof LK__STORE_FORMAT_KEY - 1);
}
static struct lk_bytes marker_of(const struct lk__store_move *m) {
    return lk_bytes(m->marker.data, m->marker.size);
}
int lk__store_move_check(const struct lk__store_move *m, struct lk_kv_txn *to, struct lk_err *err) {
    struct lk_bytes format;
    int code = lk_kv_get(to, format_key(), &format, err);
    if (code && code != LK_ENOTFOUND) return code;
    if (!code && format.size == m->marker.size && memcmp(format.data, m->marker.data, format.size) == 0) return 0;
    return lk_fail(err, LK_EBUSY, "another `lockstep store move` fills %s now, so this one ends", m->to->url);
}

/* --- the beginning --------------------------------------------------------------------------------------- */

static int is_there(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)arg, (void)key, (void)value;
    return 1;
}
static int check_empty(struct lk__store_move *m, struct lk_kv_txn *txn, struct lk_err *err) {
    int code = lk_kv_scan(txn, lk_bytes("", 0), lk_bytes("", 0), is_there, NULL, err);
    if (code != 1) return code;
    return lk_fail(err, LK_EEXISTS, "%s holds rows that are no store's: a move needs an empty place", m->to->url);
}
static int check_same(struct lk__store_move *m, struct lk_bytes format, struct lk_err *err) {
    json_t *theirs = parse_marker(format), *ours = parse_marker(marker_of(m));
    bool same = theirs && ours && strcmp(word(theirs, "from"), word(ours, "from")) == 0 &&
                strcmp(word(theirs, "blobs"), word(ours, "blobs")) == 0;
    int code =
        same ? 0
             : lk_fail(err, LK_EEXISTS,
                       "%s is half of a move from %s (blobs %s), not from %s (blobs %s): finish that one, or name an "
                       "empty place",
                       m->to->url, word(theirs, "from"), word(theirs, "blobs"), word(ours, "from"), word(ours, "blobs"));
    json_decref(theirs);
    json_decref(ours);
    return code;
}
/* Makes `to` ours to fill: it is empty, or half of what this is. */
static int take_over(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk__store_move *m = arg;
    struct lk_bytes format;
    int code = lk_kv_get(txn, format_key(), &format, err);
    m->result->resumed = code == 0;
    if (code == LK_ENOTFOUND)
        code = check_empty(m, txn, err);
    else if (!code && lk__store_is_moving(format))
        code = check_same(m, format, err);
    else if (!code)
        code = lk_fail(err, LK_EEXISTS, "there is a store at %s already: a move needs an empty place", m->to->url);
    return code ? code : lk_kv_put(txn, format_key(), marker_of(m), err);
}

static int check_blobs(struct lk__store_move *m, struct lk_err *err) {
    char *from = whole_name(m->from->blobs_url), *to = whole_name(m->to->blobs_url), hex[LK_ROOT_HEX];
    struct lk_root one;
    uint64_t strange = 0;
    int code = from && to ? 0 : lk_fail(err, LK_ENOMEM, "no memory to move %s", m->from->url);
    if (!code && strcmp(from, to) == 0)
        code = lk_fail(err, LK_EINVAL,
                       "both stores would have their blobs at %s, where the garbage collection of one knows nothing of the "
                       "other: name another place",
                       m->to->blobs_url);
    if (!code && !m->result->resumed) code = lk__store_move_strange_blobs(m, &strange, &one, err);
    if (!code && strange)
        code =
            lk_fail(err, LK_EEXISTS, "%s holds %llu blobs that are not of %s, such as %s: a move needs a place of its own",
                    m->to->blobs_url, (unsigned long long)strange, m->from->url, lk_root_hex(&one, hex));
    lk_free(from);
    lk_free(to);
    return code;
}
static int look_at_format(struct lk_kv *kv, bool *there, struct lk_err *err) {
    struct lk_kv_txn *txn;
    struct lk_bytes format;
    int code = lk_kv_begin(kv, false, &txn, err);
    if (code) return code;
    code = lk_kv_get(txn, format_key(), &format, err);
    lk_kv_abort(txn);
    *there = code == 0;
    return code == LK_ENOTFOUND ? 0 : code;
}

struct holder {
    const struct lk__store_move *move;
    struct lk_err *err;
};
static int refuse_lease(void *arg, const char *kind, const char *name, const struct lk_lease_state *state) {
    const struct holder *h = arg;
    if (strcmp(kind, "upload") == 0) return 0; /* what is being put has no name yet */
    return lk_fail(
        h->err, LK_EBUSY,
        "%s: %s holds %s/%s, as training or the collector do; wait for it or stop it, then run the same move again",
        h->move->from->url, state->holder, kind, name);
}
static int check_leases(const struct lk__store_move *m, struct lk_err *err) {
    return lk_lease_list(m->from, refuse_lease, &(struct holder){m, err}, err);
}

static int prepare(struct lk__store_move *m, struct lk_err *err) {
    int code = check_leases(m, err);
    if (!code) code = make_marker(m, err);
    if (!code) code = look_at_format(m->to->kv, &m->result->resumed, err);
    if (!code) code = check_blobs(m, err);
    return code ? code : lk_kv_update(m->to->kv, take_over, m, LK_DURABLE, NULL, err);
}

/* --- rounds ---------------------------------------------------------------------------------------------- */

int lk__store_move_tick(struct lk__store_move *m, struct lk_err *err) {
    uint64_t now = lk_clock_ns();
    if (m->options->stop && m->options->stop(m->options->arg))
        return lk_fail(err, LK_ESTOPPED, "stopped; %s is half a store, and the same move goes on with it", m->to->url);
    if (m->options->tell && now - m->told_ns >= TELL_NS) {
        m->told_ns = now;
        m->options->tell(m->options->arg, &m->status);
    }
    return m->last ? lk__kv_holds(m->last, err) : 0;
}

/* While others go on writing, until little is left. */
static int most(struct lk__store_move *m, struct lk_err *err) {
    int code = 0;
    for (int i = 0; i < ROUNDS && !code; i++) {
        uint64_t changes, bytes = m->result->copied_bytes;
        code = lk__store_move_blobs(m, err);
        if (!code) code = lk__store_move_rows(m, &changes, err);
        if (!code && changes < FEW_ROWS && m->result->copied_bytes - bytes < FEW_BYTES) break;
    }
    return code;
}

struct finishing {
    struct lk__store_move *move;
    int64_t time; /* that `from` has got to */
};
static int finish(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct finishing *f = arg;
    int code = lk__store_move_check(f->move, txn, err);
    if (!code) code = lk__kv_timestamp_from(txn, f->time, err);
    return code ? code : lk_kv_put(txn, format_key(), lk_bytes(LK__STORE_FORMAT, sizeof LK__STORE_FORMAT - 1), err);
}

/* Nobody commits to `from` now: what is there is what `to` gets. */
static int bring_last(struct lk__store_move *m, struct finishing *f, struct lk_err *err) {
    uint64_t changes = 1;
    int code = check_leases(m, err);
    if (!code) code = lk__store_move_blobs(m, err);
    for (int i = 0; i < LAST_ROUNDS && !code && changes; i++) code = lk__store_move_rows(m, &changes, err);
    if (!code && changes)
        code = lk_fail(err, LK_ECORRUPT, "%s does not give back the rows that it was given, or somebody else writes there",
                       m->to->url);
    if (!code) code = lk__kv_holds(m->last, err);
    return code ? code : lk__kv_update_alone(m->to->kv, finish, f, LK_DURABLE, &m->result->timestamp_ms, err);
}
static int last_once(struct lk__store_move *m, struct lk_err *err) {
    struct finishing f = {.move = m};
    uint64_t began = lk_clock_ns();
    int code = lk_kv_begin(m->from->kv, true, &m->last, err);
    if (code) return code;
    code = lk__kv_timestamp(m->last, &f.time, err);
    m->status.last = true;
    if (!code) code = bring_last(m, &f, err);
    lk_kv_abort(m->last); /* nothing is changed there, its clock neither */
    m->last = NULL;
    m->status.last = false;
    m->result->waited_s += (double)(lk_clock_ns() - began) / 1e9;
    return code;
}

static int move(struct lk__store_move *m, struct lk_err *err) {
    int code = prepare(m, err);
    for (int i = 0; i < LAST_TRIES && !code; i++) {
        code = most(m, err);
        if (!code && (code = last_once(m, err)) != LK_ECONFLICT) break;
        if (code == LK_ECONFLICT && i + 1 < LAST_TRIES) code = 0;
    }
    return code;
}

int lk_store_move(const struct lk_move_place *from, const struct lk_move_place *to, const struct lk_move_options *options,
                  struct lk_move_result *out, struct lk_err *err) {
    struct lk__store_move m = {.options = options, .result = out, .marker = LK_BUF_INIT};
    *out = (struct lk_move_result){0};
    int code = lk_store_open_at(from->url, from->blobs_url, LK_WRITE, &m.from, err);
    if (!code) code = lk__store_open_to_fill(to->url, to->blobs_url, &m.to, err);
    if (!code) code = move(&m, err);
    if (!code && options->tell) options->tell(options->arg, &m.status);
    lk_buf_release(&m.marker);
    lk_store_close(m.to);
    lk_store_close(m.from);
    return code;
}
