/* One connection: statements go out in pipelines, answers are read in their order. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <errno.h>
#include <poll.h>
#include <string.h>

#define IF_OK " (SELECT c.ok FROM kv_commits c WHERE c.id = $1::uuid AND c.member = $2::int)"
#define CHECK(keys, time)                                                                                                  \
    "INSERT INTO kv_commits (id, member, ok, time) SELECT $1::uuid, $2::int, o.ok, " time                                  \
    " FROM (SELECT (SELECT count(*) FROM " keys " JOIN unnest($3::bytea[], $4::bigint[]) AS e(key, version)"               \
    " ON k.key = e.key AND k.version = e.version) = cardinality($3::bytea[])"
#define CHECK_END " AS ok) AS o RETURNING ok, time"
#define NEXT      "SELECT greatest(c.time + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"

/* The parameters of CHECK: id, member, keys read, their versions, time (-1: none, 0: the next, else that one), absent keys,
 * of ranges: low, high, rows, sums; how many timestamps the member takes, of which the time is the last. */
static const char *const statements[PG_STATEMENTS] = {
    [PG_GET] = "SELECT version, parts, value FROM kv WHERE key = $1::bytea",
    [PG_GET_MANY] = "SELECT version, parts, value, key FROM kv WHERE key = ANY ($1::bytea[])",
    [PG_FORWARD] = "SELECT version, parts, value, key FROM kv WHERE key >= $1::bytea AND key < $2::bytea ORDER BY key"
                   " LIMIT $3::int",
    [PG_BACK] = "SELECT version, parts, value, key FROM kv WHERE key >= $1::bytea AND key < $2::bytea ORDER BY key DESC"
                " LIMIT $3::int",
    [PG_PARTS] = "SELECT data FROM kv_parts WHERE key = $1::bytea ORDER BY part",
    [PG_TIME] = "SELECT time FROM kv_clock WHERE slot = 0",
    [PG_NOW] = "SELECT greatest(c.time, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
               " FROM kv_clock c WHERE c.slot = 0",
    [PG_SLOT] = "SELECT slot FROM kv_clock WHERE slot = $1::int FOR UPDATE",
    [PG_ALL_SLOTS] = "SELECT slot FROM kv_clock ORDER BY slot FOR UPDATE",
    [PG_NEXT_TIME] = NEXT " FROM kv_clock c WHERE c.slot = 0",
    [PG_LOCK] = "SELECT count(*) FROM (SELECT key FROM kv WHERE key = ANY ($1::bytea[]) ORDER BY key FOR UPDATE) AS k",
    /* rows that nobody read: the slot is locked before the first one is put, and what is there is looked up then */
    [PG_PLAIN] = "WITH noted AS (INSERT INTO kv_commits (id, member, ok) VALUES ($1::uuid, 0, true)),"
                 " gone AS (DELETE FROM kv_parts WHERE key = ANY ($3::bytea[]))"
                 " INSERT INTO kv (key, version, parts, value) SELECT e.key, e.version, 0, e.value"
                 " FROM (SELECT slot FROM kv_clock WHERE slot = $2::int FOR UPDATE) AS s,"
                 " unnest($3::bytea[], $4::bigint[], $5::bytea[]) AS e(key, version, value)"
                 " ON CONFLICT (key) DO UPDATE SET version = excluded.version, parts = 0, value = excluded.value",
    [PG_CHECK_NOTHING] = "INSERT INTO kv_commits (id, member, ok) VALUES ($1::uuid, $2::int, true) RETURNING ok, time",
    [PG_CHECK_SHARED] =
        CHECK("(SELECT key, version FROM kv WHERE key = ANY ($3::bytea[]) FOR SHARE SKIP LOCKED) AS k", "NULL") CHECK_END,
    [PG_CHECK] = CHECK(
        "kv AS k",
        "CASE WHEN NOT o.ok OR $5::bigint < 0 THEN NULL WHEN $5::bigint > 0 THEN $5::bigint"
        " ELSE (" NEXT
        " + $11::bigint - 1 FROM kv_clock c WHERE c.slot = 0) END") " AND ($5::bigint <= 0 OR $5::bigint - $11::bigint + 1 "
                                                                    "> (SELECT c.time FROM kv_clock c WHERE c.slot = 0))"
                                                                    " AND NOT EXISTS (SELECT 1 FROM kv k WHERE k.key = ANY "
                                                                    "($6::bytea[]))"
                                                                    " AND NOT EXISTS (SELECT 1 FROM"
                                                                    " unnest($7::bytea[], $8::bytea[], $9::bigint[], "
                                                                    "$10::text[]) AS r(low, high, rows, sum)"
                                                                    " WHERE (SELECT count(*) = r.rows AND "
                                                                    "coalesce(sum(k.version), 0) = r.sum::numeric"
                                                                    " FROM kv k WHERE k.key >= r.low AND k.key < r.high) "
                                                                    "IS NOT TRUE)" CHECK_END,
    [PG_STAMP] = "UPDATE kv_clock SET time = c.time FROM kv_commits c WHERE kv_clock.slot = 0 AND c.id = $1::uuid"
                 " AND c.member = $2::int AND c.time IS NOT NULL",
    [PG_DELETE_RANGES] = "WITH parts AS (DELETE FROM kv_parts k USING unnest($3::bytea[], $4::bytea[]) AS r(low, high)"
                         " WHERE k.key >= r.low AND k.key < r.high AND" IF_OK ")"
                         " DELETE FROM kv k USING unnest($3::bytea[], $4::bytea[]) AS r(low, high)"
                         " WHERE k.key >= r.low AND k.key < r.high AND" IF_OK,
    [PG_DELETE] = "WITH parts AS (DELETE FROM kv_parts WHERE key = ANY ($3::bytea[]) AND" IF_OK ")"
                  " DELETE FROM kv WHERE key = ANY ($3::bytea[]) AND" IF_OK,
    [PG_PUT] =
        "WITH gone AS (DELETE FROM kv_parts WHERE key = ANY ($3::bytea[]) AND" IF_OK ")"
        " INSERT INTO kv (key, version, parts, value) SELECT e.key, $6::bigint, e.parts, e.value"
        " FROM unnest($3::bytea[], $4::int[], $5::bytea[]) AS e(key, parts, value) WHERE" IF_OK
        " ON CONFLICT (key) DO UPDATE SET version = excluded.version, parts = excluded.parts, value = excluded.value",
    [PG_PUT_PARTS] = "INSERT INTO kv_parts (key, part, data) SELECT $3::bytea, e.part, e.data"
                     " FROM unnest($4::int[], $5::bytea[]) AS e(part, data) WHERE" IF_OK,
    [PG_BARRIER] = "UPDATE kv_commits SET ok = ok WHERE id = $1::uuid",
    [PG_OUTCOME] = "SELECT member, ok, time FROM kv_commits WHERE id = $1::uuid ORDER BY member",
    [PG_STATS] =
        "SELECT (SELECT count(*) FROM kv), (SELECT time FROM kv_clock WHERE slot = 0),"
        " pg_total_relation_size('kv') + pg_total_relation_size('kv_parts') + pg_total_relation_size('kv_commits')",
    [PG_FORGET] = "DELETE FROM kv_commits WHERE (id, member) IN"
                  " (SELECT id, member FROM kv_commits WHERE id < $1::uuid ORDER BY id, member LIMIT 5000)",
};

/* --- arrays -------------------------------------------------------------------------------------------------- */

#define ARRAY_HEAD 20

void lk__kv_pg_array_begin(struct lk__kv_pg_array *a, uint32_t type) {
    static const char head[ARRAY_HEAD];
    a->bytes.size = 0;
    a->type = type, a->count = 0;
    a->failed = lk_buf_append(&a->bytes, head, sizeof head) != 0;
}
void lk__kv_pg_array_add(struct lk__kv_pg_array *a, struct lk_bytes item) {
    unsigned char size[4];
    lk__kv_pg_put32(size, (uint32_t)item.size);
    if (a->failed) return;
    a->failed = lk_buf_append(&a->bytes, size, 4) != 0 || lk_buf_append(&a->bytes, item.data, item.size) != 0;
    a->count++;
}
void lk__kv_pg_array_add_number(struct lk__kv_pg_array *a, int64_t x) {
    unsigned char bytes[8];
    lk__kv_pg_put64(bytes, (uint64_t)x);
    size_t size = a->type == PG_INT4 ? 4 : 8;
    lk__kv_pg_array_add(a, lk_bytes(bytes + 8 - size, size));
}
/* Dimensions, whether there are nulls, the type; then the size and the first index of the one dimension. */
struct lk__kv_pg_param lk__kv_pg_array_end(struct lk__kv_pg_array *a) {
    if (a->failed) return (struct lk__kv_pg_param){NULL, 0};
    char *head = a->bytes.data;
    lk__kv_pg_put32(head, a->count ? 1 : 0);
    lk__kv_pg_put32(head + 4, 0);
    lk__kv_pg_put32(head + 8, a->type);
    lk__kv_pg_put32(head + 12, a->count);
    lk__kv_pg_put32(head + 16, 1);
    return (struct lk__kv_pg_param){head, a->count ? a->bytes.size : 12};
}
void lk__kv_pg_array_release(struct lk__kv_pg_array *a) {
    lk_buf_release(&a->bytes);
}

/* --- sending -------------------------------------------------------------------------------------------------- */

#define SYNC     255
#define QUESTION 254
#define PARAMS   11

static void expect(struct lk__kv_pg_conn *c, bool sent, unsigned char what) {
    if (c->answered == c->expected.size) c->answered = c->expected.size = 0;
    if (!sent || lk_buf_append(&c->expected, &what, 1) != 0) c->lost = true, c->sqlstate[0] = 0;
}

static void send_with(struct lk__kv_pg_conn *c, const char *name, const char *sql, const struct lk__kv_pg_param *params,
                      int count) {
    const char *values[PARAMS];
    int sizes[PARAMS], binary[PARAMS];
    LK_ASSERT(count <= PARAMS);
    for (int i = 0; i < count; i++) {
        values[i] = params[i].data;
        sizes[i] = (int)params[i].size;
        binary[i] = 1;
    }
    int sent = sql ? lk__kv_pq.sendQueryParams(c->pq, sql, count, NULL, values, sizes, binary, 1)
                   : lk__kv_pq.sendQueryPrepared(c->pq, name, count, values, sizes, binary, 1);
    expect(c, sent == 1, QUESTION);
}

void lk__kv_pg_send(struct lk__kv_pg_conn *c, enum lk__kv_pg_statement s, const struct lk__kv_pg_param *params, int count) {
    if (c->lost) return;
    char name[8] = {'s', (char)('a' + s), 0};
    if (!c->prepared[s]) {
        c->prepared[s] = true; /* until the answer says otherwise */
        expect(c, lk__kv_pq.sendPrepare(c->pq, name, statements[s], 0, NULL) == 1, (unsigned char)s);
    }
    if (!c->lost) send_with(c, name, NULL, params, count);
}

void lk__kv_pg_send_text(struct lk__kv_pg_conn *c, const char *sql, const struct lk__kv_pg_param *params, int count) {
    if (!c->lost) send_with(c, NULL, sql, params, count);
}

void lk__kv_pg_sync(struct lk__kv_pg_conn *c) {
    if (!c->lost) expect(c, lk__kv_pq.pipelineSync(c->pq) == 1, SYNC);
}

/* --- answers --------------------------------------------------------------------------------------------------- */

static int lose(struct lk__kv_pg_conn *c, const char *why, struct lk_err *err) {
    int size = (int)strcspn(why, "\n");
    c->lost = true, c->sqlstate[0] = 0;
    return lk_fail(err, LK_EIO, "the connection to %s was lost: %.*s", c->kv->shown, size ? size : 22,
                   size ? why : "no reason is known for it");
}

/* Until libpq can give a result; a server that says nothing for longer than it may wait for a lock is lost. */
static int wait_for(struct lk__kv_pg_conn *c, struct lk_err *err) {
    int patience = (int)(c->kv->deadline_ms < 86400000 ? c->kv->deadline_ms + 3000 : 86400000);
    while (lk__kv_pq.isBusy(c->pq)) {
        int unsent = lk__kv_pq.flush(c->pq);
        if (unsent < 0 || lk__kv_pq.status(c->pq) == CONNECTION_BAD) break;
        struct pollfd p = {lk__kv_pq.socket(c->pq), (short)(POLLIN | (unsent ? POLLOUT : 0)), 0};
        int ready = poll(&p, 1, patience);
        if (ready == 0) return lose(c, "the server is silent", err);
        if (ready < 0 && errno != EINTR) return lose(c, strerror(errno), err);
        if (ready > 0 && p.revents != POLLOUT && !lk__kv_pq.consumeInput(c->pq)) break;
    }
    return lk__kv_pq.isBusy(c->pq) ? lose(c, lk__kv_pq.errorMessage(c->pq), err) : 0;
}

/* What a result says, as an error. libpq puts the server's message into results, never a password. */
static int problem(struct lk__kv_pg_conn *c, const PGresult *res, struct lk_err *err) {
    const char *state = lk__kv_pq.resultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = lk__kv_pq.resultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = lk__kv_pq.resultErrorField(res, PG_DIAG_MESSAGE_HINT);
    if (!state) return lose(c, lk__kv_pq.errorMessage(c->pq), err);
    memcpy(c->sqlstate, state, 5);
    if (lk__kv_pg_gone(c)) c->lost = true;
    int code = lk__kv_pg_state_is(c, "53200")         ? LK_ENOMEM
               : lk__kv_pg_state_is(c, "42P01 3F000") ? LK_ENOTFOUND
               : lk__kv_pg_state_is(c, "55P03")       ? LK_EBUSY
                                                      : LK_EIO;
    return lk_fail(err, code, "%s: %s (SQLSTATE %s)%s%s", c->kv->shown, text ? text : "no message", c->sqlstate,
                   detail ? "; " : "", detail ? detail : "");
}

/* The next thing that is expected: its result, and behind those of statements the NULL that ends them. */
static int next(struct lk__kv_pg_conn *c, unsigned char *what, PGresult **out, struct lk_err *err) {
    PGresult *res;
    *out = NULL;
    if (c->lost) return lose(c, lk__kv_pq.errorMessage(c->pq), err);
    LK_ASSERT(c->answered < c->expected.size);
    *what = (unsigned char)c->expected.data[c->answered];
    int code = wait_for(c, err);
    if (code != 0) return code;
    res = lk__kv_pq.getResult(c->pq);
    if (!res) return lose(c, lk__kv_pq.errorMessage(c->pq), err);
    c->answered++;
    if (*what == SYNC) {
        /* An error here is of the commit that a sync does; what follows is out of step. */
        if (lk__kv_pq.resultStatus(res) != PGRES_PIPELINE_SYNC) code = problem(c, res, err), c->lost = true;
        lk__kv_pq.clear(res);
        return code;
    }
    ExecStatusType status = lk__kv_pq.resultStatus(res);
    bool good = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    if (!good && status == PGRES_PIPELINE_ABORTED)
        code = lk_fail(err, LK_EIO, "an earlier statement failed"); /* sqlstate is its */
    else if (!good)
        code = problem(c, res, err);
    if (*what < PG_STATEMENTS) c->prepared[*what] = good;
    PGresult *end = NULL;
    if (!c->lost && wait_for(c, code == 0 ? err : NULL) == 0) end = lk__kv_pq.getResult(c->pq);
    if (end) lk__kv_pq.clear(end);
    if (c->lost && code == 0) code = LK_EIO;
    if (code == 0)
        *out = res;
    else
        lk__kv_pq.clear(res);
    return code;
}

int lk__kv_pg_answer(struct lk__kv_pg_conn *c, PGresult **out, struct lk_err *err) {
    unsigned char what;
    for (;;) {
        int code = next(c, &what, out, err);
        if (code != 0 || what == QUESTION) return code;
        if (*out) lk__kv_pq.clear(*out);
    }
}

int lk__kv_pg_synced(struct lk__kv_pg_conn *c, struct lk_err *err) {
    PGresult *none;
    unsigned char what = QUESTION;
    int code = next(c, &what, &none, err);
    LK_ASSERT(code != 0 || what == SYNC);
    return code;
}

void lk__kv_pg_drain(struct lk__kv_pg_conn *c) {
    PGresult *res;
    unsigned char what;
    char state[6];
    memcpy(state, c->sqlstate, sizeof state);
    while (!c->lost && c->answered < c->expected.size) {
        next(c, &what, &res, NULL);
        if (res) lk__kv_pq.clear(res);
    }
    if (!c->lost) memcpy(c->sqlstate, state, sizeof state);
}

void lk__kv_pg_rollback(struct lk__kv_pg_conn *c) {
    lk__kv_pg_drain(c);
    lk__kv_pg_send_text(c, "ROLLBACK", NULL, 0);
    lk__kv_pg_sync(c);
    lk__kv_pg_drain(c);
}

bool lk__kv_pg_state_is(const struct lk__kv_pg_conn *c, const char *sqlstates) {
    for (; c->sqlstate[0] && *sqlstates; sqlstates += sqlstates[5] ? 6 : 5)
        if (memcmp(c->sqlstate, sqlstates, 5) == 0) return true;
    return false;
}

/* 08: the connection; 57P: the server shuts down, crashes, starts; 53300: too many; 25006: it may only be read, since it
 * became a standby; 25P03: it idled for too long. */
bool lk__kv_pg_gone(const struct lk__kv_pg_conn *c) {
    return !c->sqlstate[0] || memcmp(c->sqlstate, "08", 2) == 0 || memcmp(c->sqlstate, "57P", 3) == 0 ||
           lk__kv_pg_state_is(c, "53300 25006 25P03");
}
