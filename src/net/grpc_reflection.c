/* Server reflection, v1 and v1alpha, whose bytes are the same. It reads the descriptor sets as bytes, since protobuf-c has
 * no descriptors of its own kind: a FileDescriptorProto is handed out as the compiler wrote it. */
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "net/grpc_inside.h"
#include <stdio.h>
#include <string.h>

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

/* --- fields of a message --- */

struct field {
    uint32_t number;
    uint64_t value;        /* of a varint */
    struct lk_bytes bytes; /* of what has a length */
};
static bool varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t b = *(*at)++;
        *out |= (uint64_t)(b & 127) << shift;
        if (b < 128) return true;
    }
    return false;
}
/* Takes the next field off m; false at the end, and of what is damaged. */
static bool next(struct lk_bytes *m, struct field *f) {
    const uint8_t *at = m->data, *end = at + m->size;
    uint64_t tag, size = 0;
    *f = (struct field){0};
    if (!m->size || !varint(&at, end, &tag)) return false;
    f->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        if (!varint(&at, end, &f->value)) return false;
        break;
    case 1:
        size = 8;
        break;
    case 2:
        if (!varint(&at, end, &size)) return false;
        break;
    case 5:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > (uint64_t)(end - at)) return false;
    f->bytes = lk_bytes(at, (size_t)size);
    *m = lk_bytes(at + size, (size_t)(end - at) - (size_t)size);
    return true;
}
static struct lk_bytes get(struct lk_bytes m, uint32_t number) {
    for (struct field f; next(&m, &f);)
        if (f.number == number) return f.bytes;
    return lk_bytes("", 0);
}
static bool same(struct lk_bytes a, struct lk_bytes b) {
    return a.size == b.size && (!a.size || !memcmp(a.data, b.data, a.size));
}

/* --- files --- */

enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE, FILE_DEPENDENCY, FILE_MESSAGE, FILE_ENUM, FILE_SERVICE, FILE_EXTENSION };
enum { MESSAGE_NAME = 1, MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM, MESSAGE_EXTENSION = 6 };
enum { ENUM_VALUE = 2, SERVICE_METHOD = 2, FIELD_EXTENDEE = 2, FIELD_NUMBER = 3 };

/* Calls with each file of the server, the same name once or more, until it says true. */
static bool each_file(const struct lk_grpc_server *s, bool (*see)(void *, struct lk_bytes file), void *arg) {
    for (size_t i = 0; i < s->descriptor_count; i++) {
        struct lk_bytes set = s->descriptors[i];
        for (struct field f; next(&set, &f);)
            if (f.number == SET_FILE && see(arg, f.bytes)) return true;
    }
    return false;
}

struct search {
    struct lk_bytes name;  /* of a file, a symbol, or a type that is extended */
    int64_t number;        /* of an extension; -1: any */
    struct lk_bytes file;  /* found */
    int32_t numbers[1000]; /* of extensions */
    size_t number_count;
};
static bool is_file(void *search, struct lk_bytes file) {
    struct search *q = search;
    if (!same(get(file, FILE_NAME), q->name)) return false;
    return q->file = file, true;
}

/* Takes "name" or "name." off the front of a dotted path. */
static bool step(struct lk_bytes *path, struct lk_bytes name) {
    if (!name.size) return true;
    const char *p = path->data;
    if (path->size < name.size || memcmp(p, name.data, name.size) != 0) return false;
    if (path->size == name.size) return *path = lk_bytes(p + name.size, 0), true;
    if (p[name.size] != '.') return false;
    return *path = lk_bytes(p + name.size + 1, path->size - name.size - 1), true;
}
#define DEEP 32 /* messages in messages */
static bool has(struct lk_bytes m, uint32_t kind, struct lk_bytes path, int depth);
/* Is there such a child, or a child of it? Of messages: fields, messages, enums, extensions. */
static bool inside(struct lk_bytes m, uint32_t kind, struct lk_bytes path, int depth) {
    if (!path.size) return true;
    if (kind == FILE_SERVICE) return has(m, SERVICE_METHOD << 8, path, depth);
    if (kind == FILE_ENUM) return has(m, ENUM_VALUE << 8, path, depth);
    if (kind != FILE_MESSAGE || depth > DEEP) return false;
    return has(m, MESSAGE_FIELD << 8, path, depth) || has(m, MESSAGE_EXTENSION << 8, path, depth) ||
           has(m, MESSAGE_NESTED << 8 | FILE_MESSAGE, path, depth + 1) ||
           has(m, MESSAGE_ENUM << 8 | FILE_ENUM, path, depth);
}
/* kind: the field's number << 8 | what such a child is. */
static bool has(struct lk_bytes m, uint32_t kind, struct lk_bytes path, int depth) {
    for (struct field f; next(&m, &f);) {
        struct lk_bytes rest = path;
        if (f.number == kind >> 8 && step(&rest, get(f.bytes, MESSAGE_NAME)) && rest.size < path.size &&
            inside(f.bytes, kind & 255, rest, depth))
            return true;
    }
    return false;
}
static bool has_symbol(void *search, struct lk_bytes file) {
    struct search *q = search;
    struct lk_bytes path = q->name;
    if (!step(&path, get(file, FILE_PACKAGE)) || !path.size) return false;
    for (uint32_t kind = FILE_MESSAGE; kind <= FILE_EXTENSION; kind++)
        if (has(file, kind << 8 | kind, path, 0)) return q->file = file, true;
    return false;
}

static bool extends(struct search *q, struct lk_bytes field) {
    struct lk_bytes type = get(field, FIELD_EXTENDEE);
    uint64_t number = 0;
    if (type.size && *(const char *)type.data == '.') type = lk_bytes((const char *)type.data + 1, type.size - 1);
    if (!same(type, q->name)) return false;
    for (struct field f; next(&field, &f);)
        if (f.number == FIELD_NUMBER) number = f.value;
    if (q->number >= 0) return number == (uint64_t)q->number;
    bool there = q->number_count == sizeof q->numbers / sizeof *q->numbers;
    for (size_t i = 0; i < q->number_count; i++) there |= (uint64_t)q->numbers[i] == number;
    if (!there) q->numbers[q->number_count++] = (int32_t)number;
    return false;
}
static bool message_extends(struct search *q, struct lk_bytes m, int depth) {
    for (struct field f; next(&m, &f);)
        if (f.number == MESSAGE_EXTENSION
                ? extends(q, f.bytes)
                : f.number == MESSAGE_NESTED && depth < DEEP && message_extends(q, f.bytes, depth + 1))
            return true;
    return false;
}
static bool has_extension(void *search, struct lk_bytes file) {
    struct search *q = search;
    for (struct lk_bytes rest = file; rest.size;) {
        struct field f;
        if (!next(&rest, &f)) break;
        if (f.number == FILE_EXTENSION ? extends(q, f.bytes) : f.number == FILE_MESSAGE && message_extends(q, f.bytes, 0))
            return q->file = file, true;
    }
    return false;
}

/* --- answers --- */

#define FILES 256 /* one needs, with all it imports */
struct closure {
    struct lk_bytes files[FILES];
    size_t count;
};
static void add_file(const struct lk_grpc_server *s, struct closure *c, struct lk_bytes file) {
    struct lk_bytes name = get(file, FILE_NAME), rest = file;
    for (size_t i = 0; i < c->count; i++)
        if (same(get(c->files[i], FILE_NAME), name)) return;
    if (c->count == FILES) return;
    c->files[c->count++] = file;
    for (struct field f; next(&rest, &f);) {
        struct search q = {.name = f.bytes};
        if (f.number == FILE_DEPENDENCY && each_file(s, is_file, &q)) add_file(s, c, q.file);
    }
}
static int send_files(const struct lk_grpc_server *s, struct lk_grpc_call *call, Response *r, struct lk_bytes file,
                      struct lk_err *err) {
    struct closure c = {.count = 0};
    Grpc__Reflection__V1__FileDescriptorResponse all = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData data[FILES];
    add_file(s, &c, file);
    for (size_t i = 0; i < c.count; i++)
        data[i] = (ProtobufCBinaryData){c.files[i].size, (uint8_t *)(uintptr_t)c.files[i].data};
    all.n_file_descriptor_proto = c.count;
    all.file_descriptor_proto = data;
    r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    r->file_descriptor_response = &all;
    return lk_grpc_send_message(call, &r->base, err);
}
static int send_error(struct lk_grpc_call *call, Response *r, enum lk_grpc_status status, const char *text,
                      struct lk_err *err) {
    Grpc__Reflection__V1__ErrorResponse e = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    e.error_code = (int32_t)status;
    e.error_message = (char *)(uintptr_t)text;
    r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    r->error_response = &e;
    return lk_grpc_send_message(call, &r->base, err);
}
static int send_numbers(struct lk_grpc_call *call, Response *r, struct search *q, const char *type, struct lk_err *err) {
    Grpc__Reflection__V1__ExtensionNumberResponse n = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    n.base_type_name = (char *)(uintptr_t)type;
    n.n_extension_number = q->number_count;
    n.extension_number = q->numbers;
    r->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    r->all_extension_numbers_response = &n;
    return lk_grpc_send_message(call, &r->base, err);
}

/* The services that have a method here, in order, once each: methods are sorted by path. */
static int send_services(const struct lk_grpc_server *s, struct lk_grpc_call *call, Response *r, struct lk_err *err) {
    Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse *each = lk_calloc(s->method_count, sizeof *each);
    Grpc__Reflection__V1__ServiceResponse **all = lk_calloc(s->method_count, sizeof(void *));
    size_t n = 0;
    int code = each && all ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for a list of services");
    for (size_t i = 0; i < s->method_count && !code; i++) {
        const char *path = s->methods[i].m.path + 1;
        size_t size = strcspn(path, "/");
        if (n && strlen(each[n - 1].name) == size && !memcmp(each[n - 1].name, path, size)) continue;
        grpc__reflection__v1__service_response__init(&each[n]);
        if (!(each[n].name = lk_strndup(path, size))) code = lk_fail(err, LK_ENOMEM, "no memory for a list of services");
        all[n] = &each[n];
        n++;
    }
    list.n_service = n, list.service = all;
    r->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    r->list_services_response = &list;
    if (!code) code = lk_grpc_send_message(call, &r->base, err);
    for (size_t i = 0; i < n; i++) lk_free(each[i].name);
    lk_free(all);
    lk_free(each);
    return code;
}

static int answer(const struct lk_grpc_server *s, struct lk_grpc_call *call, Request *q, struct lk_err *err) {
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    struct search f = {.number = -1};
    bool found = false;
    r.valid_host = q->host;
    r.original_request = q;
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        f.name = lk_bytes(q->file_by_filename, strlen(q->file_by_filename));
        found = each_file(s, is_file, &f);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        f.name = lk_bytes(q->file_containing_symbol, strlen(q->file_containing_symbol));
        found = each_file(s, has_symbol, &f);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        f.name =
            lk_bytes(q->file_containing_extension->containing_type, strlen(q->file_containing_extension->containing_type));
        f.number = q->file_containing_extension->extension_number;
        found = f.number >= 0 && each_file(s, has_extension, &f);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        f.name = lk_bytes(q->all_extension_numbers_of_type, strlen(q->all_extension_numbers_of_type));
        if (!each_file(s, has_symbol, &f)) break;
        (void)each_file(s, has_extension, &f);
        return send_numbers(call, &r, &f, q->all_extension_numbers_of_type, err);
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return send_services(s, call, &r, err);
    default:
        return send_error(call, &r, LK_GRPC_INVALID_ARGUMENT, "the request asks for nothing that this server knows", err);
    }
    if (found) return send_files(s, call, &r, f.file, err);
    return send_error(call, &r, LK_GRPC_NOT_FOUND, "this server has no such file, symbol or extension", err);
}

static int info(void *server, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    int code;
    while (!(code = lk_grpc_receive(call, &m, err))) {
        Request *q = grpc__reflection__v1__server_reflection_request__unpack(NULL, m.size, m.data);
        if (!q) return lk_fail(err, LK_EINVAL, "the request is no ServerReflectionRequest of grpc.reflection");
        code = answer(server, call, q, err);
        grpc__reflection__v1__server_reflection_request__free_unpacked(q, NULL);
        if (code) return code;
    }
    return code == LK_ENOTFOUND ? LK_OK : code;
}

const struct lk_grpc_method lk__grpc_reflection_methods[2] = {
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", LK_GRPC_BIDI, info, NULL},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", LK_GRPC_BIDI, info, NULL},
};
