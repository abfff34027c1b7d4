/* Reading GGUF. Everything is checked before it is believed: lengths against what is left of the file, every product for
 * overflow, names for doubles, places of tensors for overlaps. */
#include "lockstep/base/file.h"
#include "model/gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MOST      65535
#define VALUE_LEAST   13 /* bytes: an empty key, a kind and a byte */
#define TENSOR_LEAST  24 /* an empty name, no sizes, a type and a place */
#define ELEMENTS_MOST ((uint64_t)1 << 56)

static const unsigned char kind_bytes[LK__GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* --- The file ---------------------------------------------------------------------------------------------- */

struct reading {
    const char *file;
    const unsigned char *at, *end;
    struct lk_err *err;
};

static uint64_t number(const unsigned char *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* NULL, with a message: the file ends before. */
static const unsigned char *take(struct reading *r, uint64_t bytes, const char *what) {
    const unsigned char *p = r->at;
    if (bytes > (uint64_t)(r->end - r->at)) {
        lk_fail(r->err, LK_ECORRUPT, "%s: it ends within %s; was it cut short?", r->file, what);
        return NULL;
    }
    r->at += bytes;
    return p;
}

static bool take_number(struct reading *r, size_t bytes, const char *what, uint64_t *out) {
    const unsigned char *p = take(r, bytes, what);
    if (p) *out = number(p, bytes);
    return p != NULL;
}

static bool take_text(struct reading *r, const char *what, struct lk_bytes *out) {
    uint64_t size;
    if (!take_number(r, 8, what, &size)) return false;
    *out = lk_bytes(take(r, size, what), (size_t)size);
    return out->data != NULL;
}

/* What a key or a tensor may be called: text of one line. */
static bool is_name(const struct lk_bytes *b, size_t most) {
    const unsigned char *p = b->data;
    bool good = b->size > 0 && b->size <= most;
    for (size_t i = 0; good && i < b->size; i++) good = p[i] >= 0x20 && p[i] != 0x7f;
    return good;
}

static int read_array(struct reading *r, struct lk__gguf_value *v) {
    uint64_t of, bytes;
    struct lk_bytes text;
    if (!take_number(r, 4, v->key, &of) || !take_number(r, 8, v->key, &v->count)) return LK_ECORRUPT;
    if (of >= LK__GGUF_KINDS)
        return lk_fail(r->err, LK_ECORRUPT, "%s: key %s is an array of kind %llu, which is none", r->file, v->key,
                       (unsigned long long)of);
    if (of == LK__GGUF_ARRAY)
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: key %s is an array of arrays, which is not read", r->file, v->key);
    v->of = (enum lk__gguf_kind)of;
    v->data = r->at;
    if (of != LK__GGUF_STRING) {
        if (__builtin_mul_overflow(v->count, kind_bytes[of], &bytes)) bytes = UINT64_MAX;
        return take(r, bytes, v->key) ? LK_OK : LK_ECORRUPT;
    }
    for (uint64_t i = 0; i < v->count; i++)
        if (!take_text(r, v->key, &text)) return LK_ECORRUPT;
    return LK_OK;
}

static int read_value(struct reading *r, struct lk__gguf_value *v) {
    uint64_t kind;
    struct lk_bytes text;
    if (!take_text(r, "a key", &text)) return LK_ECORRUPT;
    if (!is_name(&text, KEY_MOST))
        return lk_fail(r->err, LK_ECORRUPT, "%s: a key of %zu bytes is no name", r->file, text.size);
    if (!(v->key = lk_strndup(text.data, text.size))) return lk_fail(r->err, LK_ENOMEM, "%s: no memory for a key", r->file);
    if (!take_number(r, 4, v->key, &kind)) return LK_ECORRUPT;
    if (kind >= LK__GGUF_KINDS)
        return lk_fail(r->err, LK_ECORRUPT, "%s: key %s has kind %llu, which is none", r->file, v->key,
                       (unsigned long long)kind);
    v->kind = (enum lk__gguf_kind)kind;
    if (kind == LK__GGUF_ARRAY) return read_array(r, v);
    if (kind == LK__GGUF_STRING) {
        if (!take_text(r, v->key, &text)) return LK_ECORRUPT;
        v->data = text.data;
        v->count = text.size;
        return LK_OK;
    }
    v->data = take(r, kind_bytes[kind], v->key);
    return v->data ? LK_OK : LK_ECORRUPT;
}

static int bad_tensor(const struct reading *r, const struct lk__gguf_tensor *t, const char *what) {
    return lk_fail(r->err, LK_ECORRUPT, "%s: tensor %s %s", r->file, t->name, what);
}

static int read_type(const struct reading *r, struct lk__gguf_tensor *t, uint64_t type) {
    const char *name;
    if (lk__gguf_type_of(type, &t->type, &name)) return LK_OK;
    if (name)
        return lk_fail(r->err, LK_EUNSUPPORTED,
                       "%s: tensor %s has type %s; F32, F16, BF16, Q8_0, Q4_0 and, in the embedding and the output, Q6_K "
                       "are read",
                       r->file, t->name, name);
    return lk_fail(r->err, LK_EUNSUPPORTED, "%s: tensor %s has the type %llu, which is not known here", r->file, t->name,
                   (unsigned long long)type);
}

/* *place: of its first byte, from where the tensors begin. */
static int read_tensor(struct reading *r, struct lk__gguf_tensor *t, uint64_t *place) {
    uint64_t dims, type, count = 1;
    struct lk_bytes text;
    if (!take_text(r, "a tensor's name", &text)) return LK_ECORRUPT;
    if (!is_name(&text, LK__GGUF_NAME - 1))
        return lk_fail(r->err, LK_ECORRUPT, "%s: a tensor's name of %zu bytes is none", r->file, text.size);
    memcpy(t->name, text.data, text.size);
    if (!take_number(r, 4, t->name, &dims)) return LK_ECORRUPT;
    if (!dims || dims > LK__GGUF_DIMS) return bad_tensor(r, t, "has not 1 to 4 dimensions");
    t->dims = (uint32_t)dims;
    for (size_t i = 0; i < LK__GGUF_DIMS; i++) {
        t->shape[i] = 1;
        if (i < dims && !take_number(r, 8, t->name, &t->shape[i])) return LK_ECORRUPT;
        if (__builtin_mul_overflow(count, t->shape[i], &count) || count > ELEMENTS_MOST || !count)
            return bad_tensor(r, t, "has sizes that no tensor has");
    }
    if (!take_number(r, 4, t->name, &type) || !take_number(r, 8, t->name, place)) return LK_ECORRUPT;
    int code = read_type(r, t, type);
    if (code) return code;
    uint64_t row = lk__gguf_row_bytes(t->type, t->shape[0]);
    if (!row) return bad_tensor(r, t, "has rows of no whole blocks");
    t->bytes = count / t->shape[0] * row; /* at most 4 bytes an element: no overflow */
    return LK_OK;
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(struct lk__gguf_value *const *)a)->key, (*(struct lk__gguf_value *const *)b)->key);
}
static int by_name(const void *a, const void *b) {
    return strcmp((*(struct lk__gguf_tensor *const *)a)->name, (*(struct lk__gguf_tensor *const *)b)->name);
}
static int by_place(const void *a, const void *b) {
    const struct lk__gguf_tensor *x = *(struct lk__gguf_tensor *const *)a, *y = *(struct lk__gguf_tensor *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

static int read_values(struct reading *r, struct lk__gguf *g, uint64_t count) {
    if (count > (uint64_t)(r->end - r->at) / VALUE_LEAST)
        return lk_fail(r->err, LK_ECORRUPT, "%s: it claims %llu keys, more than it has room for", r->file,
                       (unsigned long long)count);
    g->values = lk_calloc(count + 1, sizeof *g->values);
    g->keys = lk_calloc(count + 1, sizeof *g->keys);
    if (!g->values || !g->keys) return lk_fail(r->err, LK_ENOMEM, "%s: no memory for its keys", r->file);
    for (; g->value_count < count; g->value_count++) {
        int code = read_value(r, &g->values[g->value_count]);
        g->keys[g->value_count] = &g->values[g->value_count];
        if (code) {
            lk_free(g->values[g->value_count].key);
            return code;
        }
    }
    qsort(g->keys, g->value_count, sizeof *g->keys, by_key);
    for (size_t i = 1; i < g->value_count; i++)
        if (strcmp(g->keys[i - 1]->key, g->keys[i]->key) == 0)
            return lk_fail(r->err, LK_ECORRUPT, "%s: the key %s stands twice", r->file, g->keys[i]->key);
    return LK_OK;
}

static int read_alignment(struct reading *r, struct lk__gguf *g) {
    const struct lk__gguf_value *v = lk__gguf_value(g, "general.alignment");
    g->alignment = 32;
    if (!v) return LK_OK;
    if (!lk__gguf_whole(v, &g->alignment) || !g->alignment || g->alignment > 1 << 20 || g->alignment & (g->alignment - 1))
        return lk_fail(r->err, LK_ECORRUPT, "%s: general.alignment is no power of two up to 1048576", r->file);
    return LK_OK;
}

/* begin: of the file. */
static int read_tensors(struct reading *r, struct lk__gguf *g, uint64_t count, const unsigned char *begin) {
    uint64_t *places = NULL;
    if (count > (uint64_t)(r->end - r->at) / TENSOR_LEAST)
        return lk_fail(r->err, LK_ECORRUPT, "%s: it claims %llu tensors, more than it has room for", r->file,
                       (unsigned long long)count);
    g->tensors = lk_calloc(count + 1, sizeof *g->tensors);
    g->names = lk_calloc(count + 1, sizeof *g->names);
    places = lk_calloc(count + 1, sizeof *places);
    int code =
        g->tensors && g->names && places ? LK_OK : lk_fail(r->err, LK_ENOMEM, "%s: no memory for its tensors", r->file);
    for (; !code && g->tensor_count < count; g->tensor_count++)
        code = read_tensor(r, &g->tensors[g->tensor_count], &places[g->tensor_count]);
    uint64_t head = ((uint64_t)(r->at - begin) + g->alignment - 1) / g->alignment * g->alignment,
             size = (uint64_t)(r->end - begin), room = head < size ? size - head : 0;
    for (size_t i = 0; !code && i < count; i++) {
        struct lk__gguf_tensor *t = g->names[i] = &g->tensors[i];
        if (places[i] % g->alignment) code = bad_tensor(r, t, "lies at no multiple of general.alignment");
        if (!code && (places[i] > room || t->bytes > room - places[i]))
            code = bad_tensor(r, t, "lies beyond the file's end; was the file cut short?");
        if (!code) t->data = begin + head + places[i];
    }
    lk_free(places);
    if (code) return code;
    qsort(g->names, count, sizeof *g->names, by_place);
    for (size_t i = 1; i < count; i++)
        if (g->names[i - 1]->data + g->names[i - 1]->bytes > g->names[i]->data)
            return bad_tensor(r, g->names[i], "overlaps another one");
    qsort(g->names, count, sizeof *g->names, by_name);
    for (size_t i = 1; i < count; i++)
        if (strcmp(g->names[i - 1]->name, g->names[i]->name) == 0) return bad_tensor(r, g->names[i], "stands twice");
    return LK_OK;
}

static int read_all(struct reading *r, struct lk__gguf *g) {
    const unsigned char *begin = r->at;
    uint64_t size = (uint64_t)(r->end - r->at), version, tensors, values;
    const char *instead = lk_file_instead(r->at, size);
    if (instead) return lk_fail(r->err, LK_EINVAL, "%s is %s", r->file, instead);
    if (size < 4 || memcmp(r->at, "GGUF", 4))
        return lk_fail(r->err, LK_EINVAL, "%s is no GGUF file: it does not begin with \"GGUF\"", r->file);
    r->at += 4;
    if (!take_number(r, 4, "its header", &version)) return LK_ECORRUPT;
    g->version = (uint32_t)version;
    if (version && !(version & 0xffff))
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: its numbers are big-endian, which is not read", r->file);
    if (version != 2 && version != 3)
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: GGUF version %llu; 2 and 3 are read", r->file,
                       (unsigned long long)version);
    if (!take_number(r, 8, "its header", &tensors) || !take_number(r, 8, "its header", &values)) return LK_ECORRUPT;
    int code = read_values(r, g, values);
    if (!code) code = read_alignment(r, g);
    return code ? code : read_tensors(r, g, tensors, begin);
}

int lk__gguf_read(const void *data, size_t size, const char *name, struct lk__gguf *out, struct lk_err *err) {
    struct reading r = {.file = name, .at = data, .end = (const unsigned char *)data + size, .err = err};
    *out = (struct lk__gguf){0};
    int code = read_all(&r, out);
    if (code) lk__gguf_release(out);
    return code;
}

void lk__gguf_release(struct lk__gguf *g) {
    for (size_t i = 0; i < g->value_count; i++) lk_free(g->values[i].key);
    lk_free(g->values);
    lk_free(g->keys);
    lk_free(g->tensors);
    lk_free(g->names);
    *g = (struct lk__gguf){0};
}

const struct lk__gguf_value *lk__gguf_value(const struct lk__gguf *g, const char *key) {
    struct lk__gguf_value wanted = {.key = (char *)(uintptr_t)key}, *of = &wanted;
    struct lk__gguf_value *const *found = bsearch(&of, g->keys, g->value_count, sizeof *g->keys, by_key);
    return found ? *found : NULL;
}

struct lk__gguf_tensor *lk__gguf_tensor(const struct lk__gguf *g, const char *name) {
    struct lk__gguf_tensor wanted, *of = &wanted;
    snprintf(wanted.name, sizeof wanted.name, "%s", name);
    struct lk__gguf_tensor *const *found = bsearch(&of, g->names, g->tensor_count, sizeof *g->names, by_name);
    return found ? *found : NULL;
}

/* --- Values ---------------------------------------------------------------------------------------------- */

bool lk__gguf_whole(const struct lk__gguf_value *v, uint64_t *out) {
    size_t bytes = kind_bytes[v->kind];
    bool has_sign = v->kind == LK__GGUF_I8 || v->kind == LK__GGUF_I16 || v->kind == LK__GGUF_I32 || v->kind == LK__GGUF_I64;
    bool whole =
        has_sign || v->kind == LK__GGUF_U8 || v->kind == LK__GGUF_U16 || v->kind == LK__GGUF_U32 || v->kind == LK__GGUF_U64;
    if (!whole || (has_sign && v->data[bytes - 1] & 0x80)) return false;
    *out = number(v->data, bytes);
    return true;
}

double lk__gguf_decimal(float x) {
    char text[32];
    for (int digits = 1; digits < 10; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, (double)x);
        double d = strtod(text, NULL);
        if ((float)d == x) return d;
    }
    return x;
}

bool lk__gguf_real(const struct lk__gguf_value *v, double *out) {
    uint64_t whole = v->kind == LK__GGUF_REAL32 || v->kind == LK__GGUF_REAL64 ? number(v->data, kind_bytes[v->kind]) : 0;
    uint32_t bits = (uint32_t)whole;
    float x;
    if (v->kind == LK__GGUF_REAL32) {
        memcpy(&x, &bits, sizeof x);
        *out = lk__gguf_decimal(x);
    } else if (v->kind == LK__GGUF_REAL64)
        memcpy(out, &whole, sizeof *out);
    else if (lk__gguf_whole(v, &whole))
        *out = (double)whole;
    else
        return false;
    return true;
}

bool lk__gguf_truth(const struct lk__gguf_value *v, bool *out) {
    if (v->kind != LK__GGUF_BOOL || *v->data > 1) return false;
    *out = *v->data == 1;
    return true;
}

bool lk__gguf_text(const struct lk__gguf_value *v, struct lk_bytes *out) {
    if (v->kind != LK__GGUF_STRING) return false;
    *out = lk_bytes(v->data, (size_t)v->count);
    return true;
}

struct lk_bytes lk__gguf_next_text(const unsigned char **at) {
    struct lk_bytes b = lk_bytes(*at + 8, (size_t)number(*at, 8));
    *at += 8 + b.size;
    return b;
}
