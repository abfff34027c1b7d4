/* What the files of the S3 engine share. Object names: PREFIX/ab/cd..., as in a directory of blobs. */
#ifndef LK_BLOB_S3_H
#define LK_BLOB_S3_H
#include "lockstep/net/http_client.h"
#include "lockstep/net/sigv4.h"
#include "store/blob/blob_engine.h"
#include "store/blob/cache.h"
#include <pthread.h>

#define LK__BLOB_S3_PART_BYTES ((size_t)8 << 20) /* of an upload's parts, at least, and of ranges that are read */
#define LK__BLOB_S3_TOGETHER   4                 /* requests of one upload or download under way */
#define LK__BLOB_S3_PARTS_MOST 10000             /* S3's own limit */
#define LK__BLOB_S3_SIZE_MOST  ((uint64_t)48 << 40)
#define LK__BLOB_S3_KEY_BYTES  700 /* the prefix and a root */

struct lk__blob_s3 {
    struct lk_blobs base;
    char *url;             /* "s3://bucket/prefix", for messages */
    char *bucket, *prefix; /* prefix: "" or with a / at its end */
    struct lk__blob_cache *cache;
    uint32_t patience_ms; /* how long a request that fails is tried again */
    bool any_etag;        /* LOCKSTEP_S3_ETAG=any: the server's ETags are no MD5 */

    pthread_mutex_t mutex; /* what follows, until it is there; keys also then */
    bool ready;
    struct lk_aws aws;   /* its keys change: sign under the mutex */
    uint64_t keys;       /* how often they did */
    uint64_t renewed_ns; /* when they were last looked for */
    struct lk_http_client *client;
    char *server, *host;         /* "https://host:port"; host: with the port, as it is signed */
    bool bucket_in_host;         /* virtual-host style */
    _Atomic(bool) unconditional; /* the server refuses If-None-Match */
};

/* A request as the engine has it. Nothing is copied: it stays until its try is over. */
struct lk__blob_s3_ask {
    const char *method, *key; /* key: "ab/cd..." below the prefix; NULL: the bucket */
    struct lk_sigv4_pair query[8];
    size_t query_count;
    const char *headers[8]; /* NULL at the end */
    const void *body;
    size_t body_size;
    const struct lk_root *payload; /* SHA-256 of the body, or NULL: computed */
    size_t answer_limit;
    lk_http_take_fn *take;
    void *arg;
    void (*again)(void *arg); /* before each try, or NULL */
    const char *(*problem)(void *arg,
                           struct lk_http_call *call); /* of an answer of 200 to 299: NULL, or what does not fit */
};
/* One request, tried again while that may help. */
struct lk__blob_s3_try {
    struct lk__blob_s3 *s3;
    const struct lk__blob_s3_ask *ask;
    struct lk_http_call *call; /* the last one; NULL: none could be started */
    uint64_t began_ns;
    int tries, misfits, renewals;
    bool old_keys; /* the last answer refuses the keys */
    uint64_t keys; /* of the engine, that the last try was signed with */
    int code;      /* of a start that failed; wait gives it */
    struct lk_err err;
};
/* Starts; never fails itself. */
void lk__blob_s3_start(struct lk__blob_s3_try *, struct lk__blob_s3 *, const struct lk__blob_s3_ask *);
/* Until there is an answer that another try would not change. *status: its status; the answer is that of t->call. LK_EIO:
 * none within the engine's patience. LK_ECORRUPT: answers did not fit. LK_EUNSUPPORTED, LK_EINVAL, LK_ENOTFOUND (no keys),
 * LK_ENOMEM. */
int lk__blob_s3_wait(struct lk__blob_s3_try *, int *status, struct lk_err *);
void lk__blob_s3_end(struct lk__blob_s3_try *);
/* Start and wait. */
int lk__blob_s3_do(struct lk__blob_s3_try *, struct lk__blob_s3 *, const struct lk__blob_s3_ask *, int *status,
                   struct lk_err *);
/* What an answer means that nobody expected. Says the server's code, and nothing else that it sent. */
int lk__blob_s3_unexpected(struct lk__blob_s3_try *, int status, struct lk_err *);

/* "ab/cd..." */
#define LK__BLOB_S3_NAME_BYTES 66
char *lk__blob_s3_name(const struct lk_root *, char out[LK__BLOB_S3_NAME_BYTES]);
bool lk__blob_s3_parse_name(const char *name, size_t size, struct lk_root *out);
/* "2024-05-24T01:02:03.000Z", as lists have it, and "Fri, 24 May 2024 01:02:03 GMT", as headers do; Unix ms, -1: neither.
 */
int64_t lk__blob_s3_time(const char *text);

/* HEAD. LK_ENOTFOUND: not there. etag (40 bytes) may be NULL. */
struct lk__blob_s3_object {
    uint64_t size;
    int64_t modified_ms;
    char etag[80];
};
int lk__blob_s3_look(struct lk__blob_s3 *, const struct lk_root *, struct lk__blob_s3_object *out, struct lk_err *);
int lk__blob_s3_open(struct lk_blobs *, const struct lk_root *, bool verify, struct lk_blob *out, struct lk_err *);
int lk__blob_s3_peek(struct lk_blobs *, const struct lk_root *, void *out, size_t size, size_t *got, struct lk_err *);
int lk__blob_s3_modified(struct lk_blobs *, const struct lk_root *, int64_t *out_ms, struct lk_err *);
bool lk__blob_s3_exists(struct lk_blobs *, const struct lk_root *);
int lk__blob_s3_remove(struct lk_blobs *, const struct lk_root *, struct lk_err *);
int lk__blob_s3_list(struct lk_blobs *, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *);
/* Puts what a blob holds into the bucket, if it is not there. */
int lk__blob_s3_upload(struct lk__blob_s3 *, const struct lk_blob *, struct lk_err *);

#endif
