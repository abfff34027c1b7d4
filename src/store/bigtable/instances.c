/* The instance admin service: an instance of one cluster, which is this server. */
#include "google/bigtable/admin/v2/bigtable_instance_admin.pb-c.h"
#include "store/bigtable/inside.h"
#include <string.h>

#define CLUSTER "lockstep"

static int instance_message(struct lk__bigtable_call *c, const char *project, const char *id, ADMIN(Instance) * out,
                            struct lk_err *err) {
    size_t size = strlen(project) + strlen(id) + sizeof "projects//instances/";
    *out = (ADMIN(Instance))GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__INIT;
    if (!(out->name = lk__bigtable_take(c, size))) return lk__bigtable_no_memory(err);
    snprintf(out->name, size, "projects/%s/instances/%s", project, id);
    out->display_name = (char *)(uintptr_t)id;
    out->state = GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__STATE__READY;
    out->type = GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__TYPE__PRODUCTION;
    return 0;
}
static int get_instance(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(GetInstanceRequest) *q = message;
    struct lk__bigtable_name name;
    ADMIN(Instance) answer;
    int code = lk__bigtable_name_parse(c, q->name, NULL, &name, err);
    if (code == 0) code = instance_message(c, name.project, name.instance, &answer, err);
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}
/* Where any instance is there, none can be listed but one by the name of the server. */
static int list_instances(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(ListInstancesRequest) *q = message;
    ADMIN(ListInstancesResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__LIST_INSTANCES_RESPONSE__INIT;
    ADMIN(Instance) one, *list = &one;
    const char *project = !strncmp(q->parent, "projects/", 9) ? q->parent + 9 : "";
    if (!*project || strchr(project, '/'))
        return lk_fail(err, LK_EINVAL, "\"%.300s\" is no name of the form projects/PROJECT", q->parent);
    if (c->b->project && strcmp(project, c->b->project))
        return lk__bigtable_refuse(c, LK_GRPC_PERMISSION_DENIED, err, "this server serves the project %s, not %.100s",
                                   c->b->project, project);
    int code = instance_message(c, project, c->b->instance ? c->b->instance : "lockstep", &one, err);
    answer.n_instances = 1;
    answer.instances = &list;
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}

static int cluster_message(struct lk__bigtable_call *c, const struct lk__bigtable_name *n, const char *id,
                           ADMIN(Cluster) * out, struct lk_err *err) {
    size_t size = strlen(n->project) + strlen(n->instance) + strlen(id) + sizeof "projects//instances//clusters/";
    *out = (ADMIN(Cluster))GOOGLE__BIGTABLE__ADMIN__V2__CLUSTER__INIT;
    if (!(out->name = lk__bigtable_take(c, size))) return lk__bigtable_no_memory(err);
    snprintf(out->name, size, "projects/%s/instances/%s/clusters/%s", n->project, n->instance, id);
    out->state = GOOGLE__BIGTABLE__ADMIN__V2__CLUSTER__STATE__READY;
    out->serve_nodes = 1;
    return 0;
}
static int get_cluster(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(GetClusterRequest) *q = message;
    struct lk__bigtable_name name;
    ADMIN(Cluster) answer;
    int code = lk__bigtable_name_parse(c, q->name, "clusters", &name, err);
    if (code == 0 && strcmp(name.name, CLUSTER))
        code = lk_fail(err, LK_ENOTFOUND, "cluster \"%.300s\" not found; there is one, " CLUSTER, q->name);
    if (code == 0) code = cluster_message(c, &name, CLUSTER, &answer, err);
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}
static int list_clusters(struct lk__bigtable_call *c, const void *message, struct lk_err *err) {
    const ADMIN(ListClustersRequest) *q = message;
    ADMIN(ListClustersResponse) answer = GOOGLE__BIGTABLE__ADMIN__V2__LIST_CLUSTERS_RESPONSE__INIT;
    ADMIN(Cluster) one, *list = &one;
    struct lk__bigtable_name name;
    int code = lk__bigtable_name_parse(c, q->parent, NULL, &name, err);
    if (code == 0) code = cluster_message(c, &name, CLUSTER, &one, err);
    answer.n_clusters = 1;
    answer.clusters = &list;
    return code ? code : lk_grpc_send_message(c->grpc, &answer.base, err);
}

#define PATH "/google.bigtable.admin.v2.BigtableInstanceAdmin/"
#define METHOD(name, type, handle)                                                                                         \
    { PATH name, LK_GRPC_UNARY, &google__bigtable__admin__v2__##type##__descriptor, handle }
const struct lk__bigtable_method lk__bigtable_instances[] = {
    METHOD("GetInstance", get_instance_request, get_instance),
    METHOD("ListInstances", list_instances_request, list_instances),
    METHOD("GetCluster", get_cluster_request, get_cluster),
    METHOD("ListClusters", list_clusters_request, list_clusters),
};
const size_t lk__bigtable_instances_count = sizeof lk__bigtable_instances / sizeof *lk__bigtable_instances;
