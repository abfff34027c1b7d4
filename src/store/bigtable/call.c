/* A call: its memory, its message, its end. */
#include "store/bigtable/call.h"
#include "lockstep/base/mem.h"
#include "store/bigtable/inside.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages nest as deep as they like, and protobuf-c follows by recursion. */
#define STACK_MOST ((size_t)128 << 10)
#define CHUNK      ((size_t)16 << 10)

struct lk__bigtable_chunk {
    struct lk__bigtable_chunk *next;
    _Alignas(16) char bytes[];
};

void *lk__bigtable_take(struct lk__bigtable_call *c, size_t size) {
    size_t n = (size + 15) & ~(size_t)15;
    if (n < size) return NULL;
    if (n > (size_t)(c->end - c->at)) {
        size_t room = n > CHUNK / 4 ? n : CHUNK;
        struct lk__bigtable_chunk *chunk = lk_alloc(sizeof *chunk + room);
        if (!chunk) return NULL;
        chunk->next = c->chunks;
        c->chunks = chunk;
        if (room == n) return chunk->bytes;
        c->at = chunk->bytes;
        c->end = chunk->bytes + room;
    }
    void *p = c->at;
    c->at += n;
    return p;
}
char *lk__bigtable_text(struct lk__bigtable_call *c, const char *text, size_t size) {
    char *p = lk__bigtable_take(c, size + 1);
    if (!p) return NULL;
    memcpy(p, text, size);
    p[size] = 0;
    return p;
}
static void *take(void *arg, size_t size) {
    struct lk__bigtable_call *c = arg;
    const char *here = __builtin_frame_address(0);
    size_t used = here < c->stack ? (size_t)(c->stack - here) : (size_t)(here - c->stack);
    if (used > STACK_MOST) {
        c->too_deep = true;
        return NULL;
    }
    return lk__bigtable_take(c, size);
}
static void leave(void *arg, void *p) {
    (void)arg, (void)p;
}

int lk__bigtable_no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "the server has no memory left for this call");
}
int lk__bigtable_refuse(struct lk__bigtable_call *c, enum lk_grpc_status status, struct lk_err *err, const char *format,
                        ...) {
    char text[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->status = status;
    return lk_fail(err, LK_EINVAL, "%s", text);
}

static int unpack(struct lk__bigtable_call *c, const ProtobufCMessageDescriptor *type, const void **out,
                  struct lk_err *err) {
    struct lk_bytes message;
    *out = NULL;
    int code = lk_grpc_receive(c->grpc, &message, err);
    if (code == LK_ENOTFOUND) return lk_fail(err, LK_EINVAL, "the call came without its message");
    if (code != 0 || !type) return code;
    c->stack = __builtin_frame_address(0);
    *out = protobuf_c_message_unpack(type, &c->memory, message.size, message.data);
    if (*out) return 0;
    if (c->too_deep) return lk_fail(err, LK_EINVAL, "the %s is nested too deeply", type->short_name);
    return lk_fail(err, LK_EINVAL, "the message is no %s", type->name);
}

int lk__bigtable_handle(void *arg, struct lk_grpc_call *grpc, struct lk_err *err) {
    const struct lk__bigtable_bound *bound = arg;
    struct lk__bigtable_call c;
    const void *request;
    memset(&c, 0, offsetof(struct lk__bigtable_call, first));
    c.b = bound->b;
    c.grpc = grpc;
    c.memory = (ProtobufCAllocator){take, leave, &c};
    c.at = c.first;
    c.end = c.first + sizeof c.first;
    int code = unpack(&c, bound->method->request, &request, err);
    if (code == 0) code = bound->method->handle(&c, request, err);
    /* The store's words tell of its other tables, which are nobody's business. */
    if (code == LK_ENOTFOUND && c.name && !strncmp(err->message, "no table ", 9))
        lk_fail(err, code, "table \"%.600s\" not found", c.name);
    if (code == LK_ESTOPPED && !lk_grpc_cancelled(grpc) && !c.status) c.status = LK_GRPC_UNAVAILABLE;
    if (code != 0 && c.status) lk_grpc_finish(grpc, c.status, err->message, lk_bytes(NULL, 0));
    lk__bigtable_table_done(&c);
    while (c.chunks) {
        struct lk__bigtable_chunk *next = c.chunks->next;
        lk_free(c.chunks);
        c.chunks = next;
    }
    return code;
}
