/* Reading safetensors. Everything in the header is checked before it is believed. */
#include "safetensors.h"
#include "lockstep/base/file.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} types[] = {[LK__F32] = {"F32", 4}, [LK__BF16] = {"BF16", 2}, [LK__F16] = {"F16", 2}};
/* Known to the format, of no use here: their tensors may stand beside those that are read (GPT-2's masks). */
static const struct {
    const char *name;
    size_t bits;
} others[] = {{"F64", 64}, {"I64", 64}, {"U64", 64}, {"I32", 32},    {"U32", 32},    {"I16", 16},
              {"U16", 16}, {"I8", 8},   {"U8", 8},   {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"BOOL", 8}};

size_t lk__model_type_bytes(enum lk__model_stored_type type) {
    return types[type].bytes;
}
const char *lk__model_type_name(enum lk__model_stored_type type) {
    return type == LK__OTHER_TYPE ? "another type" : types[type].name;
}

/* --- The header ------------------------------------------------------------------------------------------ */

struct reading {
    const char *file;
    const unsigned char *data; /* behind the header */
    uint64_t size;
    struct lk_err *err;
};

static int bad(const struct reading *r, const char *tensor, const char *what) {
    return lk_fail(r->err, LK_ECORRUPT, "%s: tensor \"%.80s\" %s", r->file, tensor, what);
}

static size_t find_type(const char *name, enum lk__model_stored_type *type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) return *type = (enum lk__model_stored_type)i, 8 * types[i].bytes;
    *type = LK__OTHER_TYPE;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].name, name) == 0) return others[i].bits;
    return 0;
}

static bool natural(const json_t *v, uint64_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* Elements of the shape; UINT64_MAX when it is none or too large. */
static uint64_t read_shape(const json_t *shape, struct lk__model_stored_tensor *t) {
    uint64_t count = 1;
    if (!json_is_array(shape) || json_array_size(shape) > LK__TENSOR_DIMS) return UINT64_MAX;
    t->dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->dims; i++) {
        if (!natural(json_array_get(shape, i), &t->shape[i])) return UINT64_MAX;
        if (__builtin_mul_overflow(count, t->shape[i], &count) || count > (uint64_t)1 << 56) return UINT64_MAX;
    }
    return count;
}

static int read_tensor(const struct reading *r, const char *name, const json_t *about, struct lk__model_stored_tensor *t) {
    const char *type = json_string_value(json_object_get(about, "dtype"));
    const json_t *offsets = json_object_get(about, "data_offsets");
    uint64_t begin, end;
    *t = (struct lk__model_stored_tensor){.name = name};
    if (!json_is_object(about) || !type) return bad(r, name, "has no dtype");
    size_t bits = find_type(type, &t->type);
    if (!bits) return lk_fail(r->err, LK_EUNSUPPORTED, "%s: tensor \"%.80s\" has dtype %.20s", r->file, name, type);
    uint64_t count = read_shape(json_object_get(about, "shape"), t);
    if (count == UINT64_MAX) return bad(r, name, "has no shape of at most 8 sizes");
    if (json_array_size(offsets) != 2 || !natural(json_array_get(offsets, 0), &begin) ||
        !natural(json_array_get(offsets, 1), &end) || end < begin || end > r->size)
        return bad(r, name, "has data_offsets beyond the file");
    if (end - begin != count * bits / 8) return bad(r, name, "has another number of bytes than its shape asks for");
    t->data = r->data + begin;
    t->bytes = end - begin;
    return LK_OK;
}

static int by_place(const void *a, const void *b) {
    const struct lk__model_stored_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(struct lk__model_stored_tensor *const *)a)->name, (*(struct lk__model_stored_tensor *const *)b)->name);
}

/* No byte belongs to two tensors or to none, as the format wants. */
static int check_places(const struct reading *r, const struct lk__model_safetensors *s) {
    const unsigned char *at = r->data;
    for (size_t i = 0; i < s->count; i++) {
        if (s->tensors[i].data != at) return bad(r, s->tensors[i].name, "overlaps another one, or leaves a hole before it");
        at += s->tensors[i].bytes;
    }
    if (at != r->data + r->size)
        return lk_fail(r->err, LK_ECORRUPT, "%s: bytes behind the last tensor; was the file cut short or added to?",
                       r->file);
    return LK_OK;
}

int lk__model_safetensors_read(const void *data, size_t size, const char *name, struct lk__model_safetensors *out,
                               struct lk_err *err) {
    const unsigned char *p = data;
    struct reading r = {.file = name, .err = err};
    uint64_t header = 0;
    *out = (struct lk__model_safetensors){0};
    const char *instead = lk_file_instead(data, size);
    if (instead) return lk_fail(err, LK_EINVAL, "%s is %s", name, instead);
    for (size_t i = 0; i < 8 && i < size; i++) header |= (uint64_t)p[i] << (8 * i);
    if (size < 8 || header > size - 8 || header > LK__HEADER_BYTES)
        return lk_fail(err, LK_ECORRUPT, "%s: no safetensors file, or one that was cut short (%zu bytes)", name, size);
    out->header = lk_json_parse((const char *)p + 8, header, name, err);
    if (!out->header) return LK_ECORRUPT;
    if (!json_is_object(out->header)) {
        lk__model_safetensors_release(out);
        return lk_fail(err, LK_ECORRUPT, "%s: its header is no JSON object", name);
    }
    r.data = p + 8 + header;
    r.size = size - 8 - header;
    out->tensors = lk_calloc(json_object_size(out->header) + 1, sizeof *out->tensors);
    out->names = lk_calloc(json_object_size(out->header) + 1, sizeof *out->names);
    int code = out->tensors && out->names ? LK_OK : lk_fail(err, LK_ENOMEM, "%s: no memory for its table of tensors", name);
    const char *key;
    json_t *value;
    json_object_foreach(out->header, key, value) {
        if (code) break;
        if (strcmp(key, "__metadata__") != 0) code = read_tensor(&r, key, value, &out->tensors[out->count++]);
    }
    if (!code) qsort(out->tensors, out->count, sizeof *out->tensors, by_place);
    if (!code) code = check_places(&r, out);
    for (size_t i = 0; i < out->count && !code; i++) out->names[i] = &out->tensors[i];
    if (!code) qsort(out->names, out->count, sizeof *out->names, by_name);
    if (code) lk__model_safetensors_release(out);
    return code;
}

void lk__model_safetensors_release(struct lk__model_safetensors *s) {
    json_decref(s->header);
    lk_free(s->tensors);
    lk_free(s->names);
    *s = (struct lk__model_safetensors){0};
}

struct lk__model_stored_tensor *lk__model_safetensors_find(const struct lk__model_safetensors *s, const char *name) {
    struct lk__model_stored_tensor key = {.name = name}, *of = &key;
    struct lk__model_stored_tensor *const *found = bsearch(&of, s->names, s->count, sizeof *s->names, by_name);
    return found ? *found : NULL;
}

/* --- Values ---------------------------------------------------------------------------------------------- */

static uint32_t half_to_bits(uint32_t h) {
    uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ffu;
    if (exponent == 31) return sign | 0x7f800000u | mantissa << 13;
    if (exponent) return sign | (exponent + 112) << 23 | mantissa << 13;
    if (!mantissa) return sign;
    uint32_t up = (uint32_t)__builtin_clz(mantissa) - 21; /* places to its leading one */
    return sign | (113 - up) << 23 | (mantissa << (13 + up) & 0x7fffffu);
}

/* The magnitude of a float's bits, shifted right by n with ties to even. */
static uint32_t shift_even(uint32_t x, uint32_t n) {
    uint32_t half = (uint32_t)1 << (n - 1), rest = x & (2 * half - 1), y = x >> n;
    return y + (rest > half || (rest == half && (y & 1)));
}

static uint16_t bits_to_half(uint32_t x) {
    uint32_t sign = x >> 16 & 0x8000u, m = x & 0x7fffffffu;
    if (m > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (m >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);                         /* 65536 and more, infinity */
    if (m >= 0x38800000u) return (uint16_t)(sign | shift_even(m - 0x38000000u, 13)); /* may round up to infinity */
    if (m < 0x33000000u) return (uint16_t)sign;                                      /* at most half the least: to zero */
    uint32_t exponent = m >> 23, mantissa = (m & 0x7fffffu) | 0x800000u;
    return (uint16_t)(sign | shift_even(mantissa, 126 - exponent));
}

static uint16_t bits_to_bf16(uint32_t x) {
    if ((x & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(x >> 16 | 0x40u);
    return (uint16_t)(x >> 31 << 15 | shift_even(x & 0x7fffffffu, 16));
}

void lk__model_to_f32(enum lk__model_stored_type type, const unsigned char *data, size_t count, float *out) {
    if (type == LK__F32) {
        memcpy(out, data, count * sizeof *out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t h = (uint32_t)data[2 * i] | (uint32_t)data[2 * i + 1] << 8;
        uint32_t bits = type == LK__BF16 ? h << 16 : half_to_bits(h);
        memcpy(&out[i], &bits, sizeof bits);
    }
}

bool lk__model_from_f32(enum lk__model_stored_type type, const float *x, size_t count, unsigned char *out) {
    uint32_t grew = 0;
    if (type == LK__F32) {
        memcpy(out, x, count * sizeof *x);
        return true;
    }
    uint32_t infinite = type == LK__BF16 ? 0x7f80u : 0x7c00u;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        uint16_t h = type == LK__BF16 ? bits_to_bf16(bits) : bits_to_half(bits);
        grew |= (h & 0x7fffu) == infinite && (bits & 0x7fffffffu) != 0x7f800000u;
        out[2 * i] = (unsigned char)h;
        out[2 * i + 1] = (unsigned char)(h >> 8);
    }
    return !grew;
}
