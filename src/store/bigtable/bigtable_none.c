/* A build without gRPC. */
#include "lockstep/store/bigtable.h"

int lk_bigtable_open(const struct lk_bigtable_options *o, struct lk_bigtable **out, struct lk_err *err) {
    (void)o;
    *out = NULL;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "this build serves no tables: install libnghttp2-dev, libprotobuf-c-dev, protobuf-c-compiler and "
                   "libssl-dev, then build without GRPC=no");
}
const char *lk_bigtable_address(const struct lk_bigtable *b) {
    (void)b;
    return "";
}
void lk_bigtable_drain(struct lk_bigtable *b) {
    (void)b;
}
void lk_bigtable_count(struct lk_bigtable *b, struct lk_grpc_counts *out) {
    (void)b;
    *out = (struct lk_grpc_counts){0};
}
void lk_bigtable_close(struct lk_bigtable *b, uint32_t grace_ms) {
    (void)b, (void)grace_ms;
}
