#include "lockstep/store/store.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "store/blob/cache.h"
#include "store/opening.h"
#include "store/sweep.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format_key[] = LK__STORE_FORMAT_KEY;

/* Where the parts of a store are; all are owned. */
struct places {
    char *kv, *blobs;
    char *file; /* LMDB's, by which a store in a folder is known; NULL: the engine knows by itself */
};

/* "file:DIR" and "DIR" are folders, all else has "://". */
static bool folder_of(const char *url, const char **dir) {
    bool file = strncmp(url, "file:", 5) == 0;
    *dir = file ? url + 5 : url;
    return file || !strstr(url, "://");
}

/* The one place that knows which URLs of rows go with which of blobs. */
static int find_places(struct lk_store *s, const char *url, const char *blobs_url, struct places *p, struct lk_err *err) {
    const char *dir, *blobs = NULL;
    bool in_folder = folder_of(url, &dir),
         server = strncmp(url, "postgresql:", 11) == 0 || strncmp(url, "postgres:", 9) == 0;
    s->url = lk_kv_shown(url);
    if (!s->url) return lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    if (!in_folder && !server)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "the store \"%.200s\" needs an engine that is not built in; this build has file:DIR (LMDB and a "
                       "directory of blobs) and postgresql://... with --blobs DIR or s3://...",
                       s->url);
    if (in_folder && !*dir)
        return lk_fail(err, LK_EINVAL, "the store's URL \"%s\" names no directory: give file:DIR", s->url);
    if (!in_folder && !blobs_url)
        return lk_fail(err, LK_EINVAL,
                       "a store in PostgreSQL keeps its blobs elsewhere: say where, --blobs DIR or s3://BUCKET/PREFIX, or "
                       "LOCKSTEP_BLOBS");
    bool bucket = blobs_url && !folder_of(blobs_url, &blobs); /* lk_blobs_open says which there are */
    if (blobs_url && !*blobs)
        return lk_fail(err, LK_EINVAL, "--blobs or LOCKSTEP_BLOBS names no folder: give one, or a URL");
    s->dir = in_folder ? lk_strdup(dir) : bucket ? lk__blob_cache_place() : lk_strdup(blobs);
    p->kv = in_folder ? lk_asprintf("file:%s", dir) : lk_strdup(url);
    p->blobs = blobs ? lk_strdup(blobs) : lk_asprintf("%s/blobs", dir);
    p->file = in_folder ? lk_asprintf("%s/kv/data.mdb", dir) : NULL;
    s->blobs_url = p->blobs ? lk_kv_shown(p->blobs) : NULL;
    if (!s->dir || !p->kv || !s->blobs_url || (in_folder && !p->file))
        return lk_fail(err, LK_ENOMEM, "out of memory opening %s", s->url);
    return 0;
}

static int stop_at_first(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)arg, (void)key, (void)value;
    return 1;
}

/* Checks the row "format" of a store. LK_ENOTFOUND: it is empty. */
static int look_at_format(struct lk_kv_txn *txn, const struct lk_store *s, struct lk_err *err) {
    struct lk_bytes value;
    int code = lk_kv_get(txn, lk_bytes(format_key, sizeof format_key - 1), &value, err);
    if (code == 0 && lk__store_is_moving(value)) {
        code = lk__store_fail_moving(s, value, err);
    } else if (code == 0 && (value.size != 1 || memcmp(value.data, LK__STORE_FORMAT, 1) != 0)) {
        int shown = value.size < 40 ? (int)value.size : 40;
        code = lk_fail(err, LK_EUNSUPPORTED,
                       "the store %s has format \"%.*s\", this program knows format " LK__STORE_FORMAT
                       " only; use the release that made it",
                       s->url, shown, (const char *)value.data);
    } else if (code == LK_ENOTFOUND) {
        code = lk_kv_scan(txn, lk_bytes(NULL, 0), lk_bytes(NULL, 0), stop_at_first, NULL, err);
        if (code == 1)
            code = lk_fail(err, LK_ECORRUPT,
                           "%s holds rows but no row \"format\"; it is not a store of Lockstep, though `lockstep kv` reads "
                           "and writes it",
                           s->url);
        else if (code == 0)
            code = lk_fail(err, LK_ENOTFOUND, "the store %s is empty", s->url);
    }
    return code;
}
static int check_format(const struct lk_store *s, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(s->kv, false, &txn, err);
    if (code != 0) return code;
    code = look_at_format(txn, s, err);
    lk_kv_abort(txn);
    return code;
}
/* In a new store; another process may have been faster. */
static int write_format(struct lk_kv_txn *txn, void *s, struct lk_err *err) {
    int code = look_at_format(txn, s, err);
    if (code != LK_ENOTFOUND) return code;
    return lk_kv_put(txn, lk_bytes(format_key, sizeof format_key - 1), lk_bytes(LK__STORE_FORMAT, 1), err);
}

static int absent(const struct lk_store *s, struct lk_err *err) {
    return lk_fail(err, LK_ENOTFOUND,
                   "there is no store at %s; `lockstep tokenizer train` and `lockstep dataset build` make "
                   "one, --store or LOCKSTEP_STORE names another place",
                   s->dir);
}

/* Whether `file`, by which a store is known, is there and ours to see. */
static int look(const struct lk_store *s, const char *file, struct lk_err *err) {
    if (access(file, R_OK) == 0) return 0;
    if (errno == ENOENT || errno == ENOTDIR) return absent(s, err);
    struct stat st;
    if (errno == EACCES && stat(s->dir, &st) == 0)
        return lk_fail(err, LK_EIO, "no permission to read the store %s: it belongs to user %ld, this is user %ld", s->dir,
                       (long)st.st_uid, (long)geteuid());
    if (errno == EACCES) return lk_fail(err, LK_EIO, "no permission to read the store %s", s->dir);
    return lk_fail_errno(err, "cannot open the store %s", s->dir);
}

static int open_parts(struct lk_store *s, const struct places *p, enum lk_access how, struct lk_err *err) {
    int code = p->file && how != LK_CREATE ? look(s, p->file, err) : 0;
    if (code == 0) code = lk_kv_open(p->kv, how, &s->kv, err);
    if (code == 0) {
        /* A store that is there is only read, so that opening it never waits for a writer. */
        code = check_format(s, err);
        if (code == LK_ENOTFOUND && how == LK_CREATE) code = lk_kv_update(s->kv, write_format, s, LK_DURABLE, NULL, err);
    }
    if (code == 0) {
        code = lk_blobs_open(p->blobs, how, &s->blobs, err);
        if (code && p->file && how != LK_CREATE && access(p->blobs, F_OK) != 0 && errno == ENOENT)
            lk_fail(
                err, code,
                "the store %s has no folder %s; if its blobs are elsewhere, say where: --blobs or LOCKSTEP_BLOBS, for a "
                "move --from-blobs",
                s->url, p->blobs);
    }
    return code == 0 && how != LK_READ ? lk__store_uploads_open(s, err) : code;
}

static int open_blobs(struct lk_store *s, const struct places *p, struct lk_err *err) {
    const char *folder;
    int code = folder_of(p->blobs, &folder) ? look(s, folder, err) : 0; /* a bucket is looked for with the first blob */
    return code == 0 ? lk_blobs_open(p->blobs, LK_CREATE, &s->blobs, err) : code;
}

/* What a store is opened for. */
enum opening { ALL, BLOBS_ONLY, MOVE_TO };

/* A place that a move fills: whatever its row "format" says. */
static int open_to_fill(struct lk_store *s, const struct places *p, struct lk_err *err) {
    int code = lk_kv_open(p->kv, LK_CREATE, &s->kv, err);
    return code == 0 ? lk_blobs_open(p->blobs, LK_CREATE, &s->blobs, err) : code;
}

static int open_store(const char *url, const char *blobs_url, enum opening what, enum lk_access how, struct lk_store **out,
                      struct lk_err *err) {
    struct places p = {0};
    *out = NULL;
    struct lk_store *s = lk_calloc(1, sizeof *s);
    int code = s ? find_places(s, url, blobs_url, &p, err) : lk_fail(err, LK_ENOMEM, "out of memory opening a store");
    if (code == 0)
        code = what == ALL          ? open_parts(s, &p, how, err)
               : what == BLOBS_ONLY ? open_blobs(s, &p, err)
                                    : open_to_fill(s, &p, err);
    lk_free(p.kv);
    lk_free(p.blobs);
    lk_free(p.file);
    if (code == 0)
        *out = s;
    else
        lk_store_close(s);
    return code;
}

int lk_store_open_at(const char *url, const char *blobs_url, enum lk_access how, struct lk_store **out,
                     struct lk_err *err) {
    return open_store(url, blobs_url, ALL, how, out, err);
}
int lk_store_open(const char *url, enum lk_access how, struct lk_store **out, struct lk_err *err) {
    return open_store(url, NULL, ALL, how, out, err);
}
int lk_store_open_blobs(const char *url, const char *blobs_url, struct lk_store **out, struct lk_err *err) {
    return open_store(url, blobs_url, BLOBS_ONLY, LK_WRITE, out, err);
}

int lk__store_open_to_fill(const char *url, const char *blobs_url, struct lk_store **out, struct lk_err *err) {
    return open_store(url, blobs_url, MOVE_TO, LK_CREATE, out, err);
}

void lk_store_close(struct lk_store *s) {
    if (!s) return;
    lk__store_uploads_close(s);
    lk_blobs_close(s->blobs);
    lk_kv_close(s->kv);
    lk_free(s->url);
    lk_free(s->blobs_url);
    lk_free(s->dir);
    lk_free(s);
}

/* --- manifests ------------------------------------------------------------------------------------------- */

int lk_manifest_put(struct lk_store *s, const json_t *manifest, struct lk_root *out, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_json_canonical(manifest, &text, err);
    if (code == 0) code = lk_blob_put(s->blobs, text.data, text.size, out, err);
    lk_buf_release(&text);
    return code;
}

int lk_manifest_root(const json_t *manifest, struct lk_root *out, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_json_canonical(manifest, &text, err);
    if (code == 0) lk_root_of(text.data, text.size, out);
    lk_buf_release(&text);
    return code;
}

int lk_manifest_get(struct lk_store *s, const struct lk_root *root, const char *what, json_t **out, struct lk_err *err) {
    struct lk_blob blob;
    *out = NULL;
    int code = lk_blob_open(s->blobs, root, true, &blob, err);
    if (code != 0) return lk_fail_prefix(err, code, "%s", what);
    struct lk_err local;
    *out = lk_json_parse((const char *)blob.data, blob.size, what, &local);
    if (!*out) {
        char path[4096];
        /* The bytes are those that were written: it is the root that does not name a manifest. */
        code = local.code == LK_ENOMEM ? local.code : LK_ECORRUPT;
        lk_fail(err, code, "%s (the blob %.200s is no manifest)", local.message, lk_blob_path(s->blobs, root, path));
    }
    lk_blob_close(&blob);
    return code;
}
