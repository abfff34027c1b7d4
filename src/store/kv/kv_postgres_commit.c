/* Commits: transactions of all threads that wait become one batch, which is sent, and sent again until its outcome is
 * known. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <string.h>

#define MOST_MEMBERS 64
#define MOST_BYTES   ((size_t)16 << 20)
#define FORGET_EVERY 1000                    /* batches of a process */
#define KEPT_MS      ((int64_t)86400 * 1000) /* outcomes */
#define ASKED_MS     ((int64_t)3600 * 1000)

struct lk__kv_pg_member {
    struct lk__kv_pg_txn *txn;
    enum lk_durability durability;
    bool stamped, all_slots;
    struct lk__kv_pg_member *next; /* in the queue */
    bool done;
    int code;
    int64_t time;
    struct lk_err err;
};

struct batch {
    struct lk__kv_pg *kv;
    struct lk__kv_pg_member *members[MOST_MEMBERS];
    int count;
    bool all_slots, lazy;
    bool plain; /* all members only put */
    unsigned char id[16];
    int64_t began_ms; /* CLOCK_BOOTTIME */
    bool unknown;     /* one was sent, and no answer came */
};

/* --- ids ---------------------------------------------------------------------------------------------------------- */

/* As UUIDs of version 7: milliseconds, then random bits. */
static void make_id(int64_t ms, unsigned char id[16]) {
    for (int i = 0; i < 6; i++) id[i] = (unsigned char)(ms >> (40 - 8 * i));
    id[6] = (unsigned char)(0x70 | (id[6] & 0x0f));
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3f));
}
static int64_t server_ms(struct lk__kv_pg *kv) {
    pthread_mutex_lock(&kv->lock);
    int64_t ahead = kv->clock_ahead_ms;
    pthread_mutex_unlock(&kv->lock);
    return lk__kv_pg_boot_ms() + ahead;
}

/* --- one attempt ---------------------------------------------------------------------------------------------------- */

/* The next key that members write, in order, and the last member's node of it; NULL: none. at: where each one is. */
static const struct lk__kv_pg_node *next_key(const struct batch *b, const struct lk__kv_pg_node **at, int *owner) {
    const struct lk__kv_pg_node *least = NULL;
    for (int i = 0; i < b->count; i++)
        if (at[i] && (!least || lk__kv_pg_compare(at[i]->key, least->key) <= 0)) least = at[i], *owner = i;
    for (int i = 0; i < b->count && least; i++)
        if (at[i] && lk__kv_pg_compare(at[i]->key, least->key) == 0) at[i] = at[i]->after[0];
    return least;
}
static void first_keys(const struct batch *b, const struct lk__kv_pg_node **at) {
    for (int i = 0; i < b->count; i++) at[i] = b->members[i]->txn->writes.first[0];
}

/* The rows that members write and that are there are locked in the order of their keys, so that nobody waits in a circle.
 * One member that only puts does it by putting. */
static bool lock_rows(struct lk__kv_pg_conn *c, const struct batch *b, int *sent) {
    const struct lk__kv_pg_node *at[MOST_MEMBERS], *n;
    struct lk__kv_pg_array keys = {0};
    int owner;
    if (b->all_slots || (b->count == 1 && !b->members[0]->txn->reads.count)) return true;
    lk__kv_pg_array_begin(&keys, PG_BYTEA);
    first_keys(b, at);
    while ((n = next_key(b, at, &owner))) lk__kv_pg_array_add(&keys, n->key);
    struct lk__kv_pg_param param = lk__kv_pg_array_end(&keys);
    if (param.data) lk__kv_pg_send(c, PG_LOCK, &param, 1), ++*sent;
    lk__kv_pg_array_release(&keys);
    return param.data != NULL;
}

/* Members that only put go in one statement: of a key, the last one's row. */
static bool send_plain(struct lk__kv_pg_conn *c, const struct batch *b, const struct lk__kv_pg_param *slot) {
    const struct lk__kv_pg_node *at[MOST_MEMBERS], *n;
    struct lk__kv_pg_array keys = {0}, versions = {0}, values = {0};
    int owner = 0;
    lk__kv_pg_array_begin(&keys, PG_BYTEA);
    lk__kv_pg_array_begin(&versions, PG_INT8);
    lk__kv_pg_array_begin(&values, PG_BYTEA);
    first_keys(b, at);
    while ((n = next_key(b, at, &owner))) {
        lk__kv_pg_array_add(&keys, n->key);
        lk__kv_pg_array_add_number(&versions, b->members[owner]->txn->version);
        lk__kv_pg_array_add(&values, n->value);
    }
    struct lk__kv_pg_param params[] = {
        {b->id, 16}, *slot, lk__kv_pg_array_end(&keys), lk__kv_pg_array_end(&versions), lk__kv_pg_array_end(&values)};
    bool whole = params[2].data && params[3].data && params[4].data;
    if (whole) lk__kv_pg_send(c, PG_PLAIN, params, 5);
    lk__kv_pg_array_release(&keys);
    lk__kv_pg_array_release(&versions);
    lk__kv_pg_array_release(&values);
    return whole;
}

/* before: answers that come before those of members. */
static bool send_batch(struct lk__kv_pg_conn *c, const struct batch *b, bool locked, int *before, int *statements) {
    unsigned char slot[4];
    struct lk__kv_pg_param param = {slot, 4};
    bool alone = b->plain && !b->lazy; /* a transaction of one statement, which the sync commits */
    *before = 0;
    if (!locked && !alone) lk__kv_pg_send_text(c, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", NULL, 0), ++*before;
    if (b->lazy) lk__kv_pg_send_text(c, "SET LOCAL synchronous_commit = off", NULL, 0), ++*before;
    lk__kv_pg_put32(slot, 1 + b->id[15] % (LK__KV_PG_SLOTS - 1u));
    if (b->plain) {
        if (!send_plain(c, b, &param)) return false;
        ++*before;
    } else {
        if (!locked) lk__kv_pg_send(c, b->all_slots ? PG_ALL_SLOTS : PG_SLOT, &param, b->all_slots ? 0 : 1), ++*before;
        if (!lock_rows(c, b, before)) return false;
    }
    for (int i = 0; i < b->count && !b->plain; i++) {
        const struct lk__kv_pg_member *m = b->members[i];
        bool failed;
        lk__kv_pg_send_member(c, m->txn, b->id, i, b->all_slots, m->stamped, &statements[i], &failed);
        if (failed) return false;
    }
    if (!alone) lk__kv_pg_send_text(c, "COMMIT", NULL, 0);
    lk__kv_pg_sync(c);
    return true;
}

static int skip(struct lk__kv_pg_conn *c, int answers, struct lk_err *err) {
    PGresult *res;
    int code = 0;
    for (int i = 0; i < answers && code == 0; i++)
        if ((code = lk__kv_pg_answer(c, &res, err)) == 0) lk__kv_pq.clear(res);
    return code;
}

static void note_outcome(struct lk__kv_pg_member *m, bool ok, bool timed, int64_t time) {
    m->code = 0;
    if (!ok)
        m->code = lk_fail(&m->err, LK_ECONFLICT, "another transaction changed what this one read; run it again");
    else if (timed)
        m->time = time;
}

static int read_member(struct lk__kv_pg_conn *c, struct lk__kv_pg_member *m, int statements, struct lk_err *err) {
    PGresult *res;
    int code = lk__kv_pg_answer(c, &res, err);
    if (code != 0) return code;
    bool timed = !lk__kv_pq.getisnull(res, 0, 1);
    note_outcome(m, lk__kv_pq.getvalue(res, 0, 0)[0] != 0, timed,
                 timed ? lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 1), 8) : 0);
    lk__kv_pq.clear(res);
    return skip(c, statements, err);
}

static int read_answers(struct lk__kv_pg_conn *c, struct batch *b, int before, const int *statements, struct lk_err *err) {
    PGresult *res = NULL;
    bool committed = true;
    c->warned = false;
    int code = skip(c, before, err);
    for (int i = 0; i < b->count && code == 0; i++) {
        if (b->plain)
            note_outcome(b->members[i], true, false, 0);
        else
            code = read_member(c, b->members[i], statements[i], err);
    }
    if (code == 0 && !(b->plain && !b->lazy)) {
        c->warned = false;
        code = lk__kv_pg_answer(c, &res, err);
        if (code == 0) committed = strcmp(lk__kv_pq.cmdStatus(res), "COMMIT") == 0;
        if (res) lk__kv_pq.clear(res);
    }
    if (code == 0) code = lk__kv_pg_synced(c, err);
    if (code != 0 || (committed && !c->warned)) return code;
    /* The server committed and says in a warning that something is not as it should: a wait for a standby was broken off.
     */
    c->lost = true, c->sqlstate[0] = 0;
    return lk_fail(err, LK_EIO, "%s did not confirm a commit", c->kv->shown);
}

/* The batch's id was there: an earlier attempt has committed. What it says counts once a commit of ours is behind it. */
static int find_outcome(struct lk__kv_pg_conn *c, struct batch *b, struct lk_err *err) {
    struct lk__kv_pg_param id = {b->id, 16};
    PGresult *res;
    c->warned = false;
    lk__kv_pg_send(c, PG_BARRIER, &id, 1);
    lk__kv_pg_send(c, PG_OUTCOME, &id, 1);
    lk__kv_pg_sync(c);
    int code = skip(c, 1, err);
    if (code == 0) code = lk__kv_pg_answer(c, &res, err);
    if (code != 0) return code;
    int rows = lk__kv_pq.ntuples(res);
    for (int i = 0; i < b->count && b->plain; i++) note_outcome(b->members[i], true, false, 0);
    for (int i = 0; i < rows && rows == b->count && !b->plain; i++) {
        bool timed = !lk__kv_pq.getisnull(res, i, 2);
        note_outcome(b->members[i], lk__kv_pq.getvalue(res, i, 1)[0] != 0, timed,
                     timed ? lk__kv_pg_number(lk__kv_pq.getvalue(res, i, 2), 8) : 0);
    }
    lk__kv_pq.clear(res);
    lk__kv_pg_drain(c);
    if (!c->lost && !c->warned && rows == (b->plain ? 1 : b->count)) return 0;
    c->lost = true, c->sqlstate[0] = 0;
    return lk_fail(err, LK_EIO, "%s did not confirm a commit", c->kv->shown);
}

/* held: a connection with BEGIN and all slots already, or NULL. 0: every member has its outcome. */
static int attempt(struct lk__kv_pg_conn *c, struct batch *b, bool held, struct lk_err *err) {
    int before, statements[MOST_MEMBERS], code;
    if (!send_batch(c, b, held, &before, statements)) {
        c->lost = true; /* half a batch */
        return lk_fail(err, LK_ENOMEM, "out of memory for a commit");
    }
    b->unknown = true;
    code = read_answers(c, b, before, statements, err);
    if (code == 0) {
        b->unknown = false;
        return 0;
    }
    if (!c->lost) lk__kv_pg_rollback(c);
    if (!c->lost && lk__kv_pg_state_is(c, "23505")) {
        code = find_outcome(c, b, err);
        if (code == 0) b->unknown = false;
    }
    return code;
}

/* --- until the outcome is known ------------------------------------------------------------------------------------- */

static int fail_unknown(const struct batch *b, int code, struct lk_err *err) {
    char why[400];
    if (!b->unknown || !err) return code;
    snprintf(why, sizeof why, "%.399s", err->message);
    return lk_fail(err, LK_EIO, "it is unknown whether this commit was done, look before you do it again: %s", why);
}

/* Every member has its outcome (0), or none of them was done, or nobody knows (the message says so). */
static int run(struct batch *b, struct lk__kv_pg_conn *held, struct lk_err *err) {
    uint64_t deadline = lk__kv_pg_deadline(b->kv);
    int turn = 0;
    for (;;) {
        struct lk__kv_pg_conn *c = held;
        bool earlier = b->unknown;
        int code = c ? 0 : lk__kv_pg_take(b->kv, deadline, &c, err);
        if (code != 0) return fail_unknown(b, code, err);
        code = attempt(c, b, held != NULL, err);
        bool definite = code != 0 && !c->lost; /* the server rolled this attempt back */
        bool again = code != 0 && (c->lost || earlier || lk__kv_pg_state_is(c, "40001 40P01"));
        if (code == LK_ENOMEM) again = false, definite = true;
        if (definite) b->unknown = earlier;
        lk__kv_pg_give(c);
        held = NULL;
        if (code == 0 || !again) return fail_unknown(b, code, err);
        if (lk__kv_pg_boot_ms() - b->began_ms > ASKED_MS || !lk__kv_pg_pause(&turn, deadline))
            return fail_unknown(b, code, err);
        b->kv->resent++; /* a count for people, by the thread that leads */
    }
}

static int prepare(struct batch *b, struct lk__kv_pg *kv, struct lk__kv_pg_member **members, int count,
                   struct lk_err *err) {
    memset(b, 0, sizeof *b);
    b->kv = kv;
    b->count = count;
    b->lazy = b->plain = true;
    for (int i = 0; i < count; i++) {
        b->members[i] = members[i];
        b->all_slots = b->all_slots || members[i]->all_slots;
        b->lazy = b->lazy && members[i]->durability == LK_LAZY;
        b->plain = b->plain && !members[i]->stamped && !members[i]->txn->held && lk__kv_pg_is_plain(members[i]->txn);
    }
    int code = lk__kv_pg_random(b->id, sizeof b->id, err);
    b->began_ms = lk__kv_pg_boot_ms();
    make_id(server_ms(kv), b->id);
    return code;
}

/* Gives each member its code. One that the server refuses must not fail the others: then each goes by itself. */
static void commit_members(struct lk__kv_pg *kv, struct lk__kv_pg_member **members, int count) {
    struct batch b;
    struct lk_err err;
    struct lk__kv_pg_conn *held = count == 1 ? members[0]->txn->held : NULL;
    int code = prepare(&b, kv, members, count, &err);
    if (count == 1) members[0]->txn->held = NULL;
    if (code == 0)
        code = run(&b, held, &err);
    else
        lk__kv_pg_drop(held);
    if (code == 0) return;
    for (int i = 0; i < count; i++) {
        if (count > 1 && !b.unknown)
            commit_members(kv, &members[i], 1);
        else
            members[i]->code = lk_fail(&members[i]->err, code, "%s", err.message), members[i]->txn->unknown = b.unknown;
    }
}

/* Outcomes that nobody asks for any more. What fails here fails the next time, too. */
static void forget(struct lk__kv_pg *kv) {
    unsigned char id[16] = {0};
    struct lk__kv_pg_param param = {id, 16};
    struct lk__kv_pg_conn *c;
    make_id(server_ms(kv) - KEPT_MS, id);
    if (lk__kv_pg_take(kv, 0, &c, NULL) != 0) return;
    lk__kv_pg_send(c, PG_FORGET, &param, 1);
    lk__kv_pg_sync(c);
    lk__kv_pg_drain(c);
    lk__kv_pg_give(c);
}

/* --- groups ---------------------------------------------------------------------------------------------------------- */

static size_t size_of(const struct lk__kv_pg_txn *txn) {
    return txn->writes.bytes + txn->reads.bytes;
}

/* Takes from the queue's front what goes in one batch. The lock is held. */
static int take_members(struct lk__kv_pg *kv, struct lk__kv_pg_member **members) {
    int count = 0;
    size_t bytes = 0;
    while (kv->queue && count < MOST_MEMBERS) {
        bytes += size_of(kv->queue->txn);
        if (count && bytes > MOST_BYTES) break;
        members[count++] = kv->queue;
        kv->queue = kv->queue->next;
    }
    if (!kv->queue) kv->queue_end = &kv->queue;
    return count;
}

static void lead(struct lk__kv_pg *kv) {
    struct lk__kv_pg_member *members[MOST_MEMBERS];
    int count = take_members(kv, members);
    bool clean = ++kv->batches % FORGET_EVERY == 0;
    kv->led = true;
    kv->members += (uint64_t)count;
    pthread_mutex_unlock(&kv->lock);
    commit_members(kv, members, count);
    if (clean) forget(kv);
    pthread_mutex_lock(&kv->lock);
    for (int i = 0; i < count; i++) {
        members[i]->done = true;
        kv->conflicts += members[i]->code == LK_ECONFLICT;
        if (members[i]->code == 0) kv->lazy = members[i]->durability == LK_LAZY;
    }
    kv->led = false;
    pthread_cond_broadcast(&kv->done);
}

static void join(struct lk__kv_pg *kv, struct lk__kv_pg_member *m) {
    pthread_mutex_lock(&kv->lock);
    *kv->queue_end = m;
    kv->queue_end = &m->next;
    while (!m->done) {
        if (kv->led)
            pthread_cond_wait(&kv->done, &kv->lock);
        else
            lead(kv);
    }
    pthread_mutex_unlock(&kv->lock);
}

static void release_held(struct lk__kv_pg_txn *txn) {
    if (!txn->held) return;
    lk__kv_pg_send_text(txn->held, "ROLLBACK", NULL, 0);
    lk__kv_pg_sync(txn->held);
    lk__kv_pg_give(txn->held);
    txn->held = NULL;
}

int lk__kv_pg_commit(struct lk__kv_pg_txn *txn, enum lk_durability durability, bool stamped, int64_t *timestamp_ms,
                     struct lk_err *err) {
    struct lk__kv_pg *kv = txn->kv;
    struct lk__kv_pg_member m = {.txn = txn, .durability = durability, .stamped = stamped || txn->time};
    if (txn->forgot) return lk_fail(err, LK_ENOMEM, "out of memory for what a transaction read");
    pthread_mutex_lock(&kv->lock);
    bool lazy = kv->lazy;
    pthread_mutex_unlock(&kv->lock);
    /* Reads alone have their place in the order of commits already. A durable commit makes lazy ones before it durable. */
    if (!txn->base.dirty && !m.stamped && !(durability == LK_DURABLE && lazy)) return 0;
    m.all_slots = lk__kv_pg_needs_all_slots(txn, m.stamped);
    if (txn->held && txn->held_all) m.all_slots = true;
    if (m.all_slots && !txn->held_all) release_held(txn); /* who has one slot must not wait for others */
    if (txn->held) {
        struct lk__kv_pg_member *alone = &m;
        commit_members(kv, &alone, 1);
    } else {
        join(kv, &m);
    }
    if (m.code != 0) return lk_fail(err, m.code, "%s", m.err.message);
    if (stamped) *timestamp_ms = m.time;
    return 0;
}

/* Others wait for what is held, so the server ends it when it idles. */
static int hold_once(struct lk__kv_pg_conn *c, struct lk__kv_pg_txn *txn, const struct lk__kv_pg_param *keys,
                     struct lk_err *err) {
    unsigned char slot[4];
    struct lk__kv_pg_param param = {slot, 4};
    PGresult *res;
    lk__kv_pg_put32(slot, 1 + (uint32_t)txn->version % (LK__KV_PG_SLOTS - 1u));
    lk__kv_pg_send_text(c, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", NULL, 0);
    lk__kv_pg_send_text(c, "SET LOCAL idle_in_transaction_session_timeout = 30000", NULL, 0);
    lk__kv_pg_send(c, keys ? PG_SLOT : PG_ALL_SLOTS, &param, keys ? 1 : 0);
    lk__kv_pg_send(c, keys ? PG_LOCK : PG_NEXT_TIME, keys, keys ? 1 : 0);
    lk__kv_pg_sync(c);
    int code = skip(c, 3, err);
    if (code == 0) code = lk__kv_pg_answer(c, &res, err);
    if (code != 0) {
        if (!c->lost) lk__kv_pg_rollback(c);
        return code;
    }
    if (!keys) txn->next_time = lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 0), 8);
    lk__kv_pq.clear(res);
    lk__kv_pg_drain(c);
    txn->held = c;
    txn->held_all = !keys;
    return 0;
}

int lk__kv_pg_hold(struct lk__kv_pg_txn *txn, const struct lk__kv_pg_param *keys, struct lk_err *err) {
    uint64_t deadline = lk__kv_pg_deadline(txn->kv);
    int turn = 0;
    release_held(txn);
    for (;;) {
        struct lk__kv_pg_conn *c;
        int code = lk__kv_pg_take(txn->kv, deadline, &c, err);
        if (code != 0) return code;
        code = hold_once(c, txn, keys, err);
        if (code == 0) return 0;
        bool again = c->lost || lk__kv_pg_state_is(c, "40001 40P01");
        lk__kv_pg_give(c);
        if (!again || !lk__kv_pg_pause(&turn, deadline)) return code;
    }
}
