/* What gRPC writes into headers: percent-encoded messages, base64, times; and lists of metadata. */
#include "net/grpc_inside.h"
#include <string.h>

static const char hex[] = "0123456789ABCDEF";
static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int lk__grpc_percent(const char *text, char **out) {
    size_t size = strlen(text), at = 0;
    char *to = *out = lk_alloc(3 * size + 1);
    if (!to) return LK_ENOMEM;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c >= 0x20 && c <= 0x7E && c != '%')
            to[at++] = (char)c;
        else
            to[at++] = '%', to[at++] = hex[c >> 4], to[at++] = hex[c & 15];
    }
    to[at] = 0;
    return LK_OK;
}

int lk__grpc_base64(const void *data, size_t size, struct lk_buf *out) {
    const uint8_t *d = data;
    if (lk_buf_reserve(out, (size + 2) / 3 * 4 + 1)) return LK_ENOMEM;
    char *to = out->data + out->size;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t n = (uint32_t)d[i] << 16 | (i + 1 < size ? (uint32_t)d[i + 1] << 8 : 0) | (i + 2 < size ? d[i + 2] : 0);
        *to++ = letters[n >> 18], *to++ = letters[n >> 12 & 63];
        if (i + 1 < size) *to++ = letters[n >> 6 & 63];
        if (i + 2 < size) *to++ = letters[n & 63];
    }
    *to = 0;
    out->size = (size_t)(to - out->data);
    return LK_OK;
}

static int digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}
int lk__grpc_unbase64(const char *text, size_t size, struct lk_buf *out) {
    uint32_t n = 0, bits = 0;
    if (size && size % 4 == 0) /* with padding */
        for (int pads = 0; pads < 2 && text[size - 1] == '='; pads++) size--;
    if (size % 4 == 1) return LK_EINVAL;
    if (lk_buf_reserve(out, size / 4 * 3 + 3)) return LK_ENOMEM;
    size_t old = out->size;
    for (size_t i = 0; i < size; i++) {
        int d = digit(text[i]);
        if (d < 0) return out->size = old, LK_EINVAL;
        n = n << 6 | (uint32_t)d, bits += 6;
        if (bits >= 8) bits -= 8, out->data[out->size++] = (char)(n >> bits & 0xFF);
    }
    out->data[out->size] = 0;
    return LK_OK;
}

/* One to eight digits and a unit. */
bool lk__grpc_timeout(const char *text, uint64_t *ns) {
    static const struct {
        char name;
        uint64_t ns;
    } units[] = {{'H', 3600000000000}, {'M', 60000000000}, {'S', 1000000000}, {'m', 1000000}, {'u', 1000}, {'n', 1}};
    uint64_t n = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 9; digits++) n = n * 10 + (uint64_t)(text[digits] - '0');
    if (digits < 1 || digits > 8 || !text[digits] || text[digits + 1]) return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].name == text[digits]) return *ns = n * units[i].ns, true;
    return false;
}

int lk__grpc_field_add(struct lk__grpc_fields *f, const char *name, size_t name_size, const void *value, size_t size) {
    if (lk_buf_reserve(&f->text, name_size + size + 2)) return LK_ENOMEM;
    char *to = f->text.data + f->text.size;
    memcpy(to, name, name_size), to[name_size] = 0;
    memcpy(to + name_size + 1, value, size), to[name_size + 1 + size] = 0;
    f->text.size += name_size + size + 2;
    f->count++;
    return LK_OK;
}
bool lk__grpc_field_next(const struct lk__grpc_fields *f, size_t *at, const char **name, const char **value) {
    if (*at >= f->text.size) return false;
    *name = f->text.data + *at;
    *value = *name + strlen(*name) + 1;
    *at = (size_t)(*value + strlen(*value) + 1 - f->text.data);
    return true;
}
const char *lk__grpc_field_find(const struct lk__grpc_fields *f, const char *wanted, uint32_t nth) {
    const char *name, *value;
    for (size_t at = 0; lk__grpc_field_next(f, &at, &name, &value);)
        if (!strcmp(name, wanted) && !nth--) return value;
    return NULL;
}

const char *lk_grpc_status_name(int status) {
    switch (status) {
#define X(name, value)                                                                                                     \
    case value:                                                                                                            \
        return #name;
        LK_GRPC_STATUSES(X)
#undef X
    }
    return "?";
}
enum lk_grpc_status lk_grpc_status_of(int code) {
    switch (code) {
    case LK_OK:
        return LK_GRPC_OK;
    case LK_ENOMEM:
        return LK_GRPC_RESOURCE_EXHAUSTED;
    case LK_EINVAL:
        return LK_GRPC_INVALID_ARGUMENT;
    case LK_ENOTFOUND:
        return LK_GRPC_NOT_FOUND;
    case LK_EEXISTS:
        return LK_GRPC_ALREADY_EXISTS;
    case LK_ECORRUPT:
        return LK_GRPC_DATA_LOSS;
    case LK_EBUSY:
    case LK_EIO:
        return LK_GRPC_UNAVAILABLE;
    case LK_ESTOPPED:
        return LK_GRPC_CANCELLED;
    case LK_EUNSUPPORTED:
        return LK_GRPC_UNIMPLEMENTED;
    case LK_ECONFLICT:
        return LK_GRPC_ABORTED;
    }
    return LK_GRPC_INTERNAL;
}
