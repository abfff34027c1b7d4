/* A store: a kv and its blobs, and the rows that every floor uses: names (tokenizer, dataset, ...) that point at roots,
 * and JSON records.  Rows are laid out in docs/formats.md. */
#ifndef LOCKSTEP_STORE_H
#define LOCKSTEP_STORE_H
#include "lockstep/base/json.h"
#include "lockstep/store/blob.h"
#include "lockstep/store/kv.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk__store_uploads;
struct lk_store {
    struct lk_kv *kv; /* NULL: opened for its blobs only */
    struct lk_blobs *blobs;
    char *url, *blobs_url; /* without a password, for people */
    char *dir; /* a folder of this machine, for locks and temporary files: the store's own, that of its blobs, or the
                  cache's */
    struct lk__store_uploads *uploads; /* of a store that is opened to be changed; its own business */
};
/* url: "file:DIR" or just DIR; for lk_store_open_at also "postgresql://..." (include/lockstep/store/kv.h). blobs_url: a
 * folder, "file:DIR" or "s3://BUCKET/PREFIX" (lk_blobs_open) for the blobs; NULL: DIR/blobs, and LK_EINVAL where the rows
 * are in no folder. How: enum lk_access
 * in kv.h, with what is guaranteed where one may only read. LK_ENOTFOUND: absent, with the way to make one (not with
 * LK_CREATE). LK_EUNSUPPORTED: no engine for the URL, a network file system, or a store of an unknown format (row
 * "format"). LK_ECORRUPT: something else lies there. LK_EIO: no permission to read it or, with LK_WRITE and LK_CREATE, to
 * write it; or the disk failed. LK_EINVAL: the URL names no directory. LK_ENOMEM. */
int lk_store_open_at(const char *url, const char *blobs_url, enum lk_access, struct lk_store **out, struct lk_err *);
int lk_store_open(const char *url, enum lk_access, struct lk_store **out, struct lk_err *);
/* The store with its blobs only, for processes that must not open the database (ranks of a training job): blobs and
 * manifests work; kv is NULL, so names and records are an assertion. The database is not looked at, so its format is not
 * checked, and it may be on another machine: a store is there when DIR/blobs is, else LK_ENOTFOUND; nothing is made but
 * DIR/blobs/tmp. blobs_url: as for lk_store_open_at; on another machine, nothing is looked at. Errors: as lk_store_open
 * with LK_WRITE, without those of rows. */
int lk_store_open_blobs(const char *url, const char *blobs_url, struct lk_store **out, struct lk_err *);
void lk_store_close(struct lk_store *);

/* Names: 1 to 128 characters of [A-Za-z0-9._-], not starting with '.' or '-'; kind is such a word too. */
bool lk_name_valid(const char *name);
/* Errors of names and records, besides those said at each: LK_EINVAL for a name or kind that is not valid, and those of
 * lk_kv_get, lk_kv_put and lk_kv_scan. */
/* Points name at root in a transaction (the caller commits); the old target stays in the name's history. */
int lk_name_put(struct lk_kv_txn *, const char *kind, const char *name, const struct lk_root *, struct lk_err *);
/* Absent: LK_ENOTFOUND that lists the nearest existing names. Not a root in its row: LK_ECORRUPT. */
int lk_name_get(struct lk_kv_txn *, const char *kind, const char *name, struct lk_root *out, struct lk_err *);
int lk_name_delete(struct lk_kv_txn *, const char *kind, const char *name, struct lk_err *);
typedef int lk_name_fn(void *arg, const char *name, const struct lk_root *);
int lk_name_list(struct lk_kv_txn *, const char *kind, lk_name_fn *fn, void *arg, struct lk_err *);
/* One-transaction forms; also the errors of lk_kv_begin and lk_kv_commit. */
int lk_store_name_put(struct lk_store *, const char *kind, const char *name, const struct lk_root *, struct lk_err *);
int lk_store_name_get(struct lk_store *, const char *kind, const char *name, struct lk_root *out, struct lk_err *);

/* JSON rows: key = "r/KIND/NAME"; NAME: 1 to 200 printable ASCII characters without space (so RUN/000012 is possible).
 * *out is a new reference. Absent: LK_ENOTFOUND. A row that is not JSON: LK_ECORRUPT. A record over LK_KV_VALUE_MAX bytes
 * as canonical text, or with a real number: LK_EINVAL. */
int lk_record_put(struct lk_kv_txn *, const char *kind, const char *name, const json_t *, struct lk_err *);
int lk_record_get(struct lk_kv_txn *, const char *kind, const char *name, json_t **out, struct lk_err *);
int lk_record_delete(struct lk_kv_txn *, const char *kind, const char *name, struct lk_err *);
/* record is borrowed; NULL: the row is not JSON, and fn decides whether the list goes on without it. lk_record_get says
 * why. */
typedef int lk_record_fn(void *arg, const char *name, json_t *record);
int lk_record_list(struct lk_kv_txn *, const char *kind, lk_record_fn *fn, void *arg, struct lk_err *);

/* A JSON manifest as a blob: canonical text; its root names the composite. Errors: of lk_json_canonical and lk_blob_put; of
 * lk_blob_open with verify, and LK_ECORRUPT for a blob that is no JSON. `what` begins the message. */
int lk_manifest_put(struct lk_store *, const json_t *, struct lk_root *out, struct lk_err *);
int lk_manifest_root(const json_t *, struct lk_root *out, struct lk_err *); /* that root; nothing is stored */
int lk_manifest_get(struct lk_store *, const struct lk_root *, const char *what, json_t **out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
