/* Amazon's Signature Version 4, in the Authorization header, and where its keys are found. */
#ifndef LOCKSTEP_SIGV4_H
#define LOCKSTEP_SIGV4_H
#include "lockstep/base/err.h"
#include "lockstep/base/hash.h"
#include "lockstep/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_sigv4_pair {
    const char *name, *value; /* as text; both are percent-encoded here */
};
struct lk_sigv4_keys {
    const char *key_id, *secret, *session; /* session: a temporary key's token, or NULL */
    const char *region, *service;          /* "us-east-1", "s3" */
};
struct lk_sigv4_request {
    const char *method, *host; /* host: as in the header Host, with a port that is not the scheme's own */
    const char *path;          /* as text, with a / in front; percent-encoded here, once, but for the / */
    const struct lk_sigv4_pair *query;
    size_t query_count;
    const char *const
        *headers;           /* "Name: value", NULL at the end: all that is to be signed besides those made here; or NULL */
    struct lk_root payload; /* SHA-256 of the body */
    int64_t time_s;         /* Unix time */
};
#define LK_SIGV4_HEADERS 32 /* of a request at most, those made here included */
/* What to send. Release it with lk_sigv4_release, which wipes it. */
struct lk_sigv4_signed {
    struct lk_buf target;                      /* "/path?query", encoded */
    const char *headers[LK_SIGV4_HEADERS + 1]; /* the request's and x-amz-date, x-amz-content-sha256 (for the service s3),
                                                * x-amz-security-token, Authorization; NULL at the end */
    struct lk_buf text, authorization;         /* of those made here */
};
/* A body is always signed by its hash: UNSIGNED-PAYLOAD is never sent. LK_EINVAL: too many headers. LK_ENOMEM. */
int lk_sigv4_sign(const struct lk_sigv4_keys *, const struct lk_sigv4_request *, struct lk_sigv4_signed *out,
                  struct lk_err *);
void lk_sigv4_release(struct lk_sigv4_signed *);

/* Where a request goes and who asks, as the AWS tools have it in the environment and in a file of keys. */
struct lk_aws {
    char *key_id, *secret, *session; /* session: NULL without */
    char *region;                    /* "us-east-1" where nobody says */
    char *endpoint;                  /* "https://host[:port]", or NULL: Amazon's own */
    char *ca_file;                   /* PEM, or NULL: the system's authorities */
    int64_t expires_ms;              /* when the keys end, Unix time; 0: nobody says */
};
/* Keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with AWS_SESSION_TOKEN; else the section AWS_PROFILE ("default") of
 * AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials); else that profile's SSO session (`aws sso login`); else, where no
 * profile is named, the role of the container (AWS_CONTAINER_CREDENTIALS_...) or of the EC2 instance, by its metadata
 * service (unless AWS_EC2_METADATA_DISABLED=true; a second is waited for it). Region: AWS_REGION, AWS_DEFAULT_REGION, that
 * section's. Endpoint: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, that section's endpoint_url. Authorities: AWS_CA_BUNDLE.
 * LK_EINVAL, LK_ENOTFOUND: no keys, or not of the right form; no message holds a value. LK_EIO: the file cannot be read.
 * LK_ENOMEM. Nothing is kept after a failure. */
int lk_aws_load(struct lk_aws *out, struct lk_err *);
/* Looks for the keys anew, in the same places; all else stays as it is. *changed: they are others. A failure changes
 * nothing; errors as above. */
int lk_aws_renew(struct lk_aws *, bool *changed, struct lk_err *);
/* The keys of a file's section alone. `name` is its name for messages. */
int lk_aws_parse(const char *text, size_t size, const char *name, const char *profile, struct lk_aws *out, struct lk_err *);
void lk_aws_release(struct lk_aws *); /* wipes the keys */

#ifdef __cplusplus
}
#endif
#endif
