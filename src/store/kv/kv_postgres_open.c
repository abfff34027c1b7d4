/* What a URL says, and the tables. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define FORMAT      "1"
#define DEADLINE_MS 30000

int lk__kv_pg_random(void *out, size_t size, struct lk_err *err) {
    for (size_t done = 0; done < size;) {
        ssize_t n = getrandom((char *)out + done, size - done, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lk_fail_errno(err, "cannot get random numbers");
        done += (size_t)n;
    }
    return 0;
}

/* --- the URL -------------------------------------------------------------------------------------------------- */

static int check_schema(const char *name, struct lk_err *err) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    size_t size = strlen(name);
    if (size >= 1 && size <= 63 && strspn(name, letters) == size && !strchr("0123456789", *name) &&
        strncmp(name, "pg_", 3) != 0)
        return 0;
    return lk_fail(
        err, LK_EINVAL,
        "schema=%.80s is no name of a schema: 1 to 63 of a-z, 0-9 and _, beginning with a letter or _, not with pg_", name);
}

static int take_option(struct lk__kv_pg *kv, const char *text, size_t size, bool *ours, struct lk_err *err) {
    char value[96];
    const char *equals = memchr(text, '=', size);
    size_t name = equals ? (size_t)(equals - text) : size;
    *ours = (name == 6 && strncmp(text, "schema", 6) == 0) || (name == 11 && strncmp(text, "deadline_ms", 11) == 0);
    if (!*ours) return 0;
    snprintf(value, sizeof value, "%.*s", equals ? (int)(size - name - 1) : 0, text + name + 1);
    if (name == 6) {
        lk_free(kv->schema);
        kv->schema = lk_strdup(value);
        return kv->schema ? check_schema(value, err) : lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    }
    char *end;
    errno = 0;
    long long ms = strtoll(value, &end, 10);
    if (errno || *end || end == value || ms < 100 || ms > 86400000)
        return lk_fail(err, LK_EINVAL, "deadline_ms=%s: 100 to 86400000 milliseconds are possible", value);
    kv->deadline_ms = ms;
    return 0;
}

/* Takes out what is ours; the rest is libpq's. */
static int take_url(struct lk__kv_pg *kv, const char *url, struct lk_err *err) {
    struct lk_buf rest = LK_BUF_INIT;
    size_t head = strcspn(url, "?");
    int code = lk_buf_append(&rest, url, head);
    char mark = '?';
    for (const char *at = url[head] ? url + head + 1 : url + head; code == 0 && *at;) {
        size_t size = strcspn(at, "&");
        bool ours;
        code = take_option(kv, at, size, &ours, err);
        if (code == 0 && !ours && size) code = lk_buf_append(&rest, &mark, 1) ? LK_ENOMEM : lk_buf_append(&rest, at, size);
        if (!ours && size) mark = '&';
        at += size + (at[size] == '&');
    }
    if (code == 0 && !kv->schema) kv->schema = lk_strdup("lockstep");
    kv->url = rest.data;
    kv->shown = lk_kv_shown(url);
    if (code != 0) return code;
    if (!kv->schema || !kv->shown) return lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    char *why = NULL;
    PQconninfoOption *options = lk__kv_pq.conninfoParse(kv->url, &why);
    if (why) lk__kv_pq.freemem(why); /* it may quote a password */
    if (!options)
        return lk_fail(
            err, LK_EINVAL,
            "\"%s\" is no URL as libpq reads them: postgresql://USER@HOST:PORT/DATABASE?OPTION=VALUE&..., with %%XX "
            "for what is not a letter or digit",
            kv->shown);
    lk__kv_pq.conninfoFree(options);
    return 0;
}

/* --- tables --------------------------------------------------------------------------------------------------- */

static const char *const tables[] = {
    "CREATE TABLE IF NOT EXISTS kv_format (name text PRIMARY KEY, value text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS kv (key bytea PRIMARY KEY, version bigint NOT NULL, parts int NOT NULL, value bytea NOT "
    "NULL)",
    "CREATE TABLE IF NOT EXISTS kv_parts (key bytea NOT NULL, part int NOT NULL, data bytea NOT NULL, PRIMARY KEY (key, "
    "part))",
    "CREATE TABLE IF NOT EXISTS kv_clock (slot int PRIMARY KEY, time bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS kv_commits (id uuid NOT NULL, member int NOT NULL, ok boolean NOT NULL, time bigint,"
    " PRIMARY KEY (id, member))",
    "INSERT INTO kv_clock (slot, time) SELECT s, 0 FROM generate_series(0, 31) AS s ON CONFLICT (slot) DO NOTHING",
    "INSERT INTO kv_format (name, value) VALUES ('format', '" FORMAT "') ON CONFLICT (name) DO NOTHING",
};

/* All that was sent, in one transaction; the first error counts. */
static int finish(struct lk__kv_pg_conn *c, int answers, struct lk_err *err) {
    int code = 0;
    PGresult *res;
    for (int i = 0; i < answers && code == 0; i++) {
        code = lk__kv_pg_answer(c, &res, err);
        if (res) lk__kv_pq.clear(res);
    }
    if (code != 0)
        lk__kv_pg_rollback(c);
    else
        lk__kv_pg_drain(c);
    return code;
}

static int create(struct lk__kv_pg_conn *c, struct lk_err *err) {
    char schema[128];
    PGresult *res;
    int sent = 2, code;
    struct lk__kv_pg_param name = {c->kv->schema, strlen(c->kv->schema)};
    /* CREATE SCHEMA IF NOT EXISTS needs the right to create one even where it is there. */
    lk__kv_pg_send_text(c, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1::text", &name, 1);
    lk__kv_pg_sync(c);
    code = lk__kv_pg_answer(c, &res, err);
    if (code != 0) return code;
    bool there = lk__kv_pq.ntuples(res) > 0;
    lk__kv_pq.clear(res);
    lk__kv_pg_drain(c);
    snprintf(schema, sizeof schema, "CREATE SCHEMA IF NOT EXISTS \"%s\"", c->kv->schema);
    lk__kv_pg_send_text(c, "BEGIN", NULL, 0);
    if (!there) lk__kv_pg_send_text(c, schema, NULL, 0), sent++;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) lk__kv_pg_send_text(c, tables[i], NULL, 0), sent++;
    lk__kv_pg_send_text(c, "COMMIT", NULL, 0);
    lk__kv_pg_sync(c);
    return finish(c, sent, err);
}

static int check_format(struct lk__kv_pg_conn *c, struct lk_err *err) {
    PGresult *res;
    lk__kv_pg_send_text(c, "SELECT value FROM kv_format WHERE name = 'format'", NULL, 0);
    lk__kv_pg_sync(c);
    int code = lk__kv_pg_answer(c, &res, err);
    lk__kv_pg_drain(c);
    if (code == LK_ENOTFOUND)
        return lk_fail(err, code,
                       "there is no store in schema %s of %s; create one, or name another by ?schema=", c->kv->schema,
                       c->kv->shown);
    if (code != 0) return code;
    if (lk__kv_pq.ntuples(res) != 1)
        code = lk_fail(err, LK_ECORRUPT, "schema %s of %s has a table kv_format without a format", c->kv->schema,
                       c->kv->shown);
    else if (strcmp(lk__kv_pq.getvalue(res, 0, 0), FORMAT) != 0)
        code = lk_fail(err, LK_EUNSUPPORTED,
                       "the tables in schema %s of %s have format \"%.40s\", this program knows " FORMAT
                       " only; use the release that made them",
                       c->kv->schema, c->kv->shown, lk__kv_pq.getvalue(res, 0, 0));
    lk__kv_pq.clear(res);
    return code;
}

/* What an opener who wants to write should know at once. */
static int check_rights(struct lk__kv_pg_conn *c, struct lk_err *err) {
    PGresult *res = NULL;
    lk__kv_pg_send_text(c,
                        "SELECT has_table_privilege('kv', 'INSERT') AND has_table_privilege('kv', 'UPDATE') AND"
                        " has_table_privilege('kv', 'DELETE') AND has_table_privilege('kv_clock', 'UPDATE') AND"
                        " has_table_privilege('kv_commits', 'INSERT')",
                        NULL, 0);
    lk__kv_pg_sync(c);
    lk__kv_pg_send_text(c, "SHOW fsync", NULL, 0);
    lk__kv_pg_sync(c);
    bool refused = lk__kv_pg_answer(c, &res, NULL) == 0 && lk__kv_pq.getvalue(res, 0, 0)[0] == 0;
    if (res) lk__kv_pq.clear(res);
    bool unsafe = !c->lost && lk__kv_pg_answer(c, &res, NULL) == 0 && strcmp(lk__kv_pq.getvalue(res, 0, 0), "off") == 0;
    if (res) lk__kv_pq.clear(res);
    lk__kv_pg_drain(c);
    if (c->lost) return lk_fail(err, LK_EIO, "the connection to %s was lost while it was opened", c->kv->shown);
    if (unsafe) lk_log_warn("%s runs with fsync = off: a crash of its machine loses what was committed", c->kv->shown);
    return refused ? lk_fail(err, LK_EIO, "this user has no permission to write in schema %s of %s; its owner can GRANT it",
                             c->kv->schema, c->kv->shown)
                   : 0;
}

static int open_tables(struct lk__kv_pg *kv, struct lk_err *err) {
    struct lk__kv_pg_conn *c;
    uint64_t deadline = lk__kv_pg_deadline(kv);
    int turn = 0, code;
    do {
        code = lk__kv_pg_take(kv, deadline, &c, err);
        if (code != 0) return code;
        code = check_format(c, err);
        if (code == LK_ENOTFOUND && kv->access == LK_CREATE) {
            code = create(c, err);
            /* Another one made the same: it is there now, or soon. */
            bool again = code != 0 && (lk__kv_pg_state_is(c, "23505 42P06 42P07 42710 40001 XX000") || c->lost);
            if (code == 0) code = check_format(c, err);
            if (again) code = LK_EBUSY;
        }
        if (code == 0 && kv->access != LK_READ) code = check_rights(c, err);
        lk__kv_pg_give(c);
    } while (code == LK_EBUSY && lk__kv_pg_pause(&turn, deadline));
    return code;
}

int lk__kv_pg_open(const char *url, enum lk_access access, struct lk__kv_pg **out, struct lk_err *err) {
    int code = lk__kv_pq_load(err);
    if (code != 0) return code;
    struct lk__kv_pg *kv = lk_calloc(1, sizeof *kv);
    if (!kv) return lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    pthread_mutex_init(&kv->lock, NULL);
    pthread_cond_init(&kv->done, NULL);
    kv->queue_end = &kv->queue;
    kv->calls_end = &kv->calls;
    kv->access = access;
    kv->deadline_ms = DEADLINE_MS;
    kv->pid = getpid();
    memset(kv->end, 0xff, sizeof kv->end);
    code = take_url(kv, url, err);
    if (code == 0) code = open_tables(kv, err);
    if (code != 0) {
        lk__kv_pg_close(kv);
        return code;
    }
    kv->opened = true;
    *out = kv;
    return 0;
}

void lk__kv_pg_close(struct lk__kv_pg *kv) {
    for (struct lk__kv_pg_conn *c = kv->idle, *next; c; c = next) {
        next = c->next;
        lk__kv_pg_drop(c);
    }
    pthread_mutex_destroy(&kv->lock);
    pthread_cond_destroy(&kv->done);
    lk_free(kv->url);
    lk_free(kv->shown);
    lk_free(kv->schema);
    lk_free(kv);
}
