/* GGUF, version 2 and 3, little-endian, read from a mapping: docs/formats.md, "GGUF". Private to src/model/gguf. */
#ifndef LOCKSTEP_MODEL_GGUF_GGUF_H
#define LOCKSTEP_MODEL_GGUF_GGUF_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"

#include <stdbool.h>

#define LK__GGUF_NAME 64 /* bytes of a tensor's name at most, with the zero that no file has */
#define LK__GGUF_DIMS 4

enum lk__gguf_kind {
    LK__GGUF_U8,
    LK__GGUF_I8,
    LK__GGUF_U16,
    LK__GGUF_I16,
    LK__GGUF_U32,
    LK__GGUF_I32,
    LK__GGUF_REAL32,
    LK__GGUF_BOOL,
    LK__GGUF_STRING,
    LK__GGUF_ARRAY,
    LK__GGUF_U64,
    LK__GGUF_I64,
    LK__GGUF_REAL64,
    LK__GGUF_KINDS
};
struct lk__gguf_value {
    char *key;
    enum lk__gguf_kind kind, of; /* of: the elements of an array */
    uint64_t count;              /* elements of an array, bytes of a string */
    const unsigned char *data;   /* in the file; of an array its first element */
};

/* The types that are read, with the file's numbers. Q8_0, Q4_0: as LK_Q8, LK_Q4. */
enum lk__gguf_type {
    LK__GGUF_F32 = 0,
    LK__GGUF_F16 = 1,
    LK__GGUF_Q4_0 = 2,
    LK__GGUF_Q8_0 = 8,
    LK__GGUF_Q6_K = 14,
    LK__GGUF_BF16 = 30
};
/* False: the number of none of these; *name: what the format calls it, NULL: not known here. */
bool lk__gguf_type_of(uint64_t number, enum lk__gguf_type *, const char **name);
const char *lk__gguf_type_name(enum lk__gguf_type);
/* Bytes of a row of k numbers; 0: it has no whole blocks. */
uint64_t lk__gguf_row_bytes(enum lk__gguf_type, uint64_t k);
/* Numbers of whole rows as float, exactly. False: one of them, or a block's scale, is infinite or NaN. */
bool lk__gguf_to_f32(enum lk__gguf_type, const unsigned char *data, size_t count, float *out);
/* False: a block's scale is infinite or NaN. Q8_0 and Q4_0. */
bool lk__gguf_finite(enum lk__gguf_type, const unsigned char *data, size_t bytes);

struct lk__gguf_tensor {
    char name[LK__GGUF_NAME];
    uint32_t dims;
    uint64_t shape[LK__GGUF_DIMS]; /* the numbers of a row first; 1 behind the last */
    enum lk__gguf_type type;
    const unsigned char *data;
    uint64_t bytes;
    bool used; /* the reader's mark, for the caller */
};

struct lk__gguf {
    uint32_t version;
    uint64_t alignment;
    struct lk__gguf_value *values, **keys; /* in the file's order; by key */
    struct lk__gguf_tensor *tensors, **names;
    size_t value_count, tensor_count;
};
/* data: a whole file, borrowed until release. LK_ECORRUPT names `name`, the key or tensor and what is wrong;
 * LK_EUNSUPPORTED: another version, byte order or type of tensor. */
int lk__gguf_read(const void *data, size_t size, const char *name, struct lk__gguf *out, struct lk_err *);
void lk__gguf_release(struct lk__gguf *);
/* NULL: none. */
const struct lk__gguf_value *lk__gguf_value(const struct lk__gguf *, const char *key);
struct lk__gguf_tensor *lk__gguf_tensor(const struct lk__gguf *, const char *name);

/* False: the value is of another kind. Whole numbers are not negative; a real number of 32 bits is the decimal with the
 * fewest digits that rounds to it, as who wrote 1e-5 meant it. */
bool lk__gguf_whole(const struct lk__gguf_value *, uint64_t *out);
bool lk__gguf_real(const struct lk__gguf_value *, double *out);
bool lk__gguf_truth(const struct lk__gguf_value *, bool *out);
bool lk__gguf_text(const struct lk__gguf_value *, struct lk_bytes *out);
double lk__gguf_decimal(float);
/* An array of strings, one after the other: *at begins as the value's data. */
struct lk_bytes lk__gguf_next_text(const unsigned char **at);

#endif
