/* How a method of ours becomes one of the gRPC server's. */
#ifndef LK_BIGTABLE_CALL_H
#define LK_BIGTABLE_CALL_H
#include "store/bigtable/inside.h"

struct lk__bigtable_bound {
    struct lk_bigtable *b;
    const struct lk__bigtable_method *method;
};
int lk__bigtable_handle(void *bound, struct lk_grpc_call *, struct lk_err *);

#endif
