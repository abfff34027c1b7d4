/* Cloud Bigtable's API v2 over tables: the server. */
#include "lockstep/base/mem.h"
#include "store/bigtable/call.h"
#include <string.h>

LK_GRPC_DESCRIPTORS(google_bigtable_v2_bigtable);
LK_GRPC_DESCRIPTORS(google_bigtable_admin_v2_bigtable_table_admin);
LK_GRPC_DESCRIPTORS(google_bigtable_admin_v2_bigtable_instance_admin);

static enum lk_grpc_status authorize(void *arg, struct lk_grpc_call *call, uint64_t *who, struct lk_err *err) {
    struct lk_bigtable *b = arg;
    uint32_t key;
    if (lk_keys_find(b->keys, lk_grpc_metadata(call, "authorization", 0), &key)) {
        lk_fail(err, LK_EINVAL, "this server wants a key: send the metadata \"authorization: Bearer KEY\"");
        return LK_GRPC_UNAUTHENTICATED;
    }
    *who = key;
    return LK_GRPC_OK;
}

static void bind(struct lk_bigtable *b, const struct lk__bigtable_method *from, size_t count, struct lk_grpc_method *to,
                 size_t *at) {
    for (size_t i = 0; i < count; i++, ++*at) {
        b->bound[*at] = (struct lk__bigtable_bound){b, &from[i]};
        to[*at] = (struct lk_grpc_method){from[i].path, from[i].kind, lk__bigtable_handle, &b->bound[*at]};
    }
}

static int serve(struct lk_bigtable *b, const struct lk_bigtable_options *o, struct lk_err *err) {
    struct lk_bytes descriptors[] = {
        {lk__proto_google_bigtable_v2_bigtable, lk__proto_google_bigtable_v2_bigtable_size},
        {lk__proto_google_bigtable_admin_v2_bigtable_table_admin,
         lk__proto_google_bigtable_admin_v2_bigtable_table_admin_size},
        {lk__proto_google_bigtable_admin_v2_bigtable_instance_admin,
         lk__proto_google_bigtable_admin_v2_bigtable_instance_admin_size},
    };
    size_t count = lk__bigtable_data_count + lk__bigtable_tables_count + lk__bigtable_instances_count, at = 0;
    struct lk_grpc_method *methods = lk_calloc(count, sizeof *methods);
    b->bound = lk_calloc(count, sizeof *b->bound);
    if (!methods || !b->bound) {
        lk_free(methods);
        return lk_fail(err, LK_ENOMEM, "out of memory for a server of tables");
    }
    bind(b, lk__bigtable_data, lk__bigtable_data_count, methods, &at);
    bind(b, lk__bigtable_tables, lk__bigtable_tables_count, methods, &at);
    bind(b, lk__bigtable_instances, lk__bigtable_instances_count, methods, &at);
    struct lk_grpc_options options = {.listen = o->listen,
                                      .limits = o->limits,
                                      .tls_certificate = o->tls_certificate,
                                      .tls_key = o->tls_key,
                                      .methods = methods,
                                      .method_count = count,
                                      .descriptors = descriptors,
                                      .descriptor_count = sizeof descriptors / sizeof *descriptors,
                                      .authorize = o->keys ? authorize : NULL,
                                      .arg = b,
                                      .metrics = o->metrics};
    int code = lk_grpc_server_open(&options, &b->server, err);
    lk_free(methods);
    return code;
}

int lk_bigtable_open(const struct lk_bigtable_options *o, struct lk_bigtable **out, struct lk_err *err) {
    struct lk_bigtable *b = lk_calloc(1, sizeof *b);
    *out = NULL;
    if (!b) return lk_fail(err, LK_ENOMEM, "out of memory for a server of tables");
    pthread_mutex_init(&b->lock, NULL);
    b->store = o->store;
    b->keys = o->keys;
    b->names = o->names;
    b->snapshot_ms = o->snapshot_ms ? o->snapshot_ms : 10000;
    int code = 0;
    if ((o->project && !(b->project = lk_strdup(o->project))) || (o->instance && !(b->instance = lk_strdup(o->instance))))
        code = lk_fail(err, LK_ENOMEM, "out of memory for a server of tables");
    if (code == 0) code = serve(b, o, err);
    if (code == 0)
        *out = b;
    else
        lk_bigtable_close(b, 0);
    return code;
}

const char *lk_bigtable_address(const struct lk_bigtable *b) {
    return lk_grpc_server_address(b->server);
}
void lk_bigtable_drain(struct lk_bigtable *b) {
    lk_grpc_server_drain(b->server);
}
void lk_bigtable_count(struct lk_bigtable *b, struct lk_grpc_counts *out) {
    lk_grpc_server_count(b->server, out);
}
void lk_bigtable_close(struct lk_bigtable *b, uint32_t grace_ms) {
    if (!b) return;
    lk_grpc_server_close(b->server, grace_ms);
    lk__bigtable_handles_close(b);
    pthread_mutex_destroy(&b->lock);
    lk_free(b->bound);
    lk_free(b->project);
    lk_free(b->instance);
    lk_free(b);
}
