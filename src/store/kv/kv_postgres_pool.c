/* Connections: made with what sessions need set, kept between transactions, made anew while a server is away. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_MS 10000

int64_t lk__kv_pg_boot_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

uint64_t lk__kv_pg_deadline(const struct lk__kv_pg *kv) {
    return lk_clock_ns() + (uint64_t)kv->deadline_ms * 1000000u;
}

bool lk__kv_pg_pause(int *turn, uint64_t deadline_ns) {
    uint64_t now = lk_clock_ns();
    if (now >= deadline_ns) return false;
    uint64_t us = (uint64_t)5000 << (*turn < 6 ? (*turn)++ : 6); /* 5 ms to 320 ms */
    us = us / 2 + (now >> 4) % (us / 2);
    if (us * 1000 > deadline_ns - now) us = (deadline_ns - now) / 1000 + 1;
    usleep((useconds_t)us);
    return true;
}

static void hear(void *conn, const PGresult *res) {
    const char *severity = lk__kv_pq.resultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity && strcmp(severity, "WARNING") == 0) ((struct lk__kv_pg_conn *)conn)->warned = true;
}

void lk__kv_pg_drop(struct lk__kv_pg_conn *c) {
    if (!c) return;
    lk__kv_pq.finish(c->pq);
    lk_buf_release(&c->expected);
    lk_free(c);
}

/* Each by itself: who does not know one of them does without. */
static void set_up(struct lk__kv_pg_conn *c) {
    static const char *const settings[] = {
        /* scans by the index only: a plan that reads all of a table for a few rows is never right here */
        "SET enable_seqscan = off",
        "SET enable_bitmapscan = off",
        "SET jit = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET statement_timeout = 0",
        "SET idle_in_transaction_session_timeout = 0",
        "SET client_min_messages = warning",
        "SET bytea_output = hex",
        /* a client whose machine is gone holds its locks for 30 s */
        "SET tcp_keepalives_idle = 10",
        "SET tcp_keepalives_interval = 5",
        "SET tcp_keepalives_count = 4",
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', "
        "'local')",
    };
    char text[64];
    snprintf(text, sizeof text, "SET lock_timeout = %lld", (long long)c->kv->deadline_ms);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        lk__kv_pg_send_text(c, settings[i], NULL, 0);
        lk__kv_pg_sync(c);
    }
    lk__kv_pg_send_text(c, text, NULL, 0);
    lk__kv_pg_sync(c);
}

static int first_words(struct lk__kv_pg_conn *c, struct lk_err *err) {
    struct lk__kv_pg *kv = c->kv;
    char path[80];
    PGresult *res = NULL;
    snprintf(path, sizeof path, "\"%s\"", kv->schema);
    struct lk__kv_pg_param schema = {path, strlen(path)};
    lk__kv_pg_send_text(c, "SELECT set_config('search_path', $1::text, false)", &schema, 1);
    lk__kv_pg_send_text(c, "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint", NULL, 0);
    lk__kv_pg_sync(c);
    int64_t before = lk__kv_pg_boot_ms();
    int code = lk__kv_pg_answer(c, &res, err);
    if (code == 0) lk__kv_pq.clear(res);
    if (code == 0) code = lk__kv_pg_answer(c, &res, err);
    if (code != 0) return code;
    int64_t now = lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 0), 8);
    lk__kv_pq.clear(res);
    pthread_mutex_lock(&kv->lock);
    kv->clock_ahead_ms = now - before;
    pthread_mutex_unlock(&kv->lock);
    set_up(c);
    lk__kv_pg_drain(c);
    c->warned = false;
    return c->lost ? lk_fail(err, LK_EIO, "the connection to %s was lost while it was set up", kv->shown) : 0;
}

static PGconn *start(struct lk__kv_pg *kv) {
    /* Later ones win: what is before dbname are defaults, what is behind it is ours. */
    const char *names[] = {"fallback_application_name", "keepalives_idle", "keepalives_interval",  "keepalives_count",
                           "tcp_user_timeout",          "dbname",          "target_session_attrs", NULL};
    const char *values[] = {"lockstep", "10", "5", "4", "30000", kv->url, kv->access == LK_READ ? "primary" : "read-write",
                            NULL};
    return lk__kv_pq.connectStartParams(names, values, 1);
}

static int reach(struct lk__kv_pg *kv, uint64_t until_ns, PGconn **out, struct lk_err *err) {
    PGconn *pq = start(kv);
    *out = NULL;
    if (!pq) return lk_fail(err, LK_ENOMEM, "out of memory connecting to %s", kv->shown);
    PostgresPollingStatusType state = lk__kv_pq.status(pq) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (state == PGRES_POLLING_READING || state == PGRES_POLLING_WRITING) {
        uint64_t now = lk_clock_ns();
        struct pollfd p = {lk__kv_pq.socket(pq), state == PGRES_POLLING_READING ? POLLIN : POLLOUT, 0};
        int ready = now >= until_ns ? 0 : poll(&p, 1, (int)((until_ns - now) / 1000000u) + 1);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) {
            lk__kv_pq.finish(pq);
            return lk_fail(err, LK_EIO, "cannot connect to %s: no answer in time", kv->shown);
        }
        state = lk__kv_pq.connectPoll(pq);
    }
    if (state == PGRES_POLLING_OK && lk__kv_pq.setnonblocking(pq, 1) == 0 && lk__kv_pq.enterPipelineMode(pq) == 1) {
        *out = pq;
        return 0;
    }
    /* The last line is of the last address that was tried, after a tab goes on what the line before says; none of them
     * ever holds a password. */
    const char *text = lk__kv_pq.errorMessage(pq);
    size_t size = strlen(text);
    while (size && text[size - 1] == '\n') size--;
    size_t end = size, from;
    for (;;) {
        for (from = end; from && text[from - 1] != '\n';) from--;
        if (!from || text[from] != '\t') break;
        size = end = from - 1;
    }
    lk_fail(err, LK_EIO, "cannot connect to %s: %.*s", kv->shown, (int)(size - from), text + from);
    lk__kv_pq.finish(pq);
    return LK_EIO;
}

static int connect_once(struct lk__kv_pg *kv, uint64_t until_ns, struct lk__kv_pg_conn **out, struct lk_err *err) {
    struct lk__kv_pg_conn *c = lk_calloc(1, sizeof *c);
    if (!c) return lk_fail(err, LK_ENOMEM, "out of memory connecting to %s", kv->shown);
    c->kv = kv;
    /* Room for what most batches expect, so that no memory fails in the middle of one. */
    int code = lk_buf_reserve(&c->expected, 2048) == 0
                   ? reach(kv, until_ns, &c->pq, err)
                   : lk_fail(err, LK_ENOMEM, "out of memory connecting to %s", kv->shown);
    if (code != 0) {
        lk_buf_release(&c->expected);
        lk_free(c);
        return code;
    }
    lk__kv_pq.setNoticeReceiver(c->pq, hear, c);
    code = first_words(c, err);
    if (code == 0)
        *out = c;
    else
        lk__kv_pg_drop(c);
    return code;
}

/* Whether a refusal may pass: the server starts, stops, is away or full. */
static bool may_pass(const struct lk__kv_pg *kv, const char *message) {
    static const char *const ever[] = {"starting up", "shutting down", "recovery", "too many"};
    static const char *const never[] = {"authentication failed", "does not exist",    "pg_hba.conf",
                                        "no password supplied",  "permission denied", "not permitted to log in"};
    for (size_t i = 0; i < sizeof ever / sizeof *ever; i++)
        if (strstr(message, ever[i])) return true;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strstr(message, never[i])) return false;
    return kv->opened;
}

static struct lk__kv_pg_conn *from_pool(struct lk__kv_pg *kv) {
    for (;;) {
        pthread_mutex_lock(&kv->lock);
        struct lk__kv_pg_conn *c = kv->idle;
        if (c) kv->idle = c->next;
        pthread_mutex_unlock(&kv->lock);
        if (!c) return NULL;
        lk__kv_pg_drain(c);
        /* A server that is gone has closed it, or said something before that. */
        struct pollfd p = {lk__kv_pq.socket(c->pq), POLLIN, 0};
        if (!c->lost && poll(&p, 1, 0) == 0) return c;
        lk__kv_pg_drop(c);
    }
}

int lk__kv_pg_take(struct lk__kv_pg *kv, uint64_t deadline_ns, struct lk__kv_pg_conn **out, struct lk_err *err) {
    struct lk_err local;
    LK_ASSERT(kv->pid == getpid()); /* a store opened before fork() cannot be used after it */
    if ((*out = from_pool(kv))) {
        (*out)->warned = false;
        return 0;
    }
    for (int turn = 0;;) {
        uint64_t until = lk_clock_ns() + CONNECT_MS * 1000000ull;
        if (kv->opened && deadline_ns < until) until = deadline_ns;
        int code = connect_once(kv, until, out, &local);
        if (code == 0) return 0;
        if (code == LK_ENOMEM || !may_pass(kv, local.message) || !lk__kv_pg_pause(&turn, deadline_ns))
            return lk_fail(err, code, "%s", local.message);
    }
}

void lk__kv_pg_give(struct lk__kv_pg_conn *c) {
    if (!c) return;
    if (c->lost || lk__kv_pq.flush(c->pq) < 0) {
        lk__kv_pg_drop(c);
        return;
    }
    pthread_mutex_lock(&c->kv->lock);
    c->next = c->kv->idle;
    c->kv->idle = c;
    pthread_mutex_unlock(&c->kv->lock);
}
