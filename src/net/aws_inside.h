/* What the files that look for Amazon's keys share. Private to src/net. */
#ifndef LK_NET_AWS_INSIDE_H
#define LK_NET_AWS_INSIDE_H
#include "lockstep/net/sigv4.h"

#define LK__NET_AWS_VALUE 8192 /* session tokens are the longest; they may grow */

const char *lk__net_aws_environment(const char *name); /* NULL: not set, or empty */
bool lk__net_aws_plain(const char *text);              /* printable and without space: it stands in a header */
/* value: NULL leaves *to as it is. The old one is wiped. */
int lk__net_aws_set(char **to, const char *value, struct lk_err *err);
/* "2026-11-29T12:00:00Z", also with a fraction or +00:00; Unix ms, 0: not so. */
int64_t lk__net_aws_time(const char *text);

/* Keys of others than a file (aws_roles.c): an SSO session in the cache of the AWS tools, the container's or the machine's
 * role. Fill the keys and when they end; region too where it is not known. LK_ENOTFOUND without a message: no such thing
 * here. LK_EIO, LK_ECORRUPT: there is, but. */
int lk__net_aws_sso(const char *profile, struct lk_aws *, struct lk_err *);
int lk__net_aws_container(struct lk_aws *, struct lk_err *);
int lk__net_aws_instance(struct lk_aws *, struct lk_err *);

#endif
