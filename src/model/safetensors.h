/* The safetensors format, read (from a mapping) and its header written. https://github.com/huggingface/safetensors:
 * 8 bytes little-endian size of a JSON header, the header, then the tensors' bytes without holes. */
#ifndef LOCKSTEP_MODEL_SAFETENSORS_H
#define LOCKSTEP_MODEL_SAFETENSORS_H
#include "lockstep/base/json.h"

#define LK__TENSOR_DIMS  8
#define LK__HEADER_BYTES ((size_t)100 << 20) /* the format's own limit */

struct lk__model_stored_tensor {
    const char *name; /* the header's */
    enum lk__model_stored_type { LK__F32, LK__BF16, LK__F16, LK__OTHER_TYPE } type;
    uint32_t dims;
    uint64_t shape[LK__TENSOR_DIMS];
    const unsigned char *data;
    uint64_t bytes;
    bool used; /* the reader's mark, for the caller */
};
struct lk__model_safetensors {
    json_t *header;
    struct lk__model_stored_tensor *tensors; /* by place in the file */
    struct lk__model_stored_tensor **names;  /* the same by name */
    size_t count;
};
/* data: a whole file, borrowed until release. LK_ECORRUPT names `name`, the tensor and what is wrong. */
int lk__model_safetensors_read(const void *data, size_t size, const char *name, struct lk__model_safetensors *out,
                               struct lk_err *);
void lk__model_safetensors_release(struct lk__model_safetensors *);
/* NULL: none. */
struct lk__model_stored_tensor *lk__model_safetensors_find(const struct lk__model_safetensors *, const char *name);

/* To float32, exactly; `count` values from data, which need no alignment. Not for LK__OTHER_TYPE. */
void lk__model_to_f32(enum lk__model_stored_type, const unsigned char *data, size_t count, float *out);
/* Rounded to nearest even. Returns false when a finite value became infinite. */
bool lk__model_from_f32(enum lk__model_stored_type, const float *x, size_t count, unsigned char *out);
size_t lk__model_type_bytes(enum lk__model_stored_type);
const char *lk__model_type_name(enum lk__model_stored_type); /* "F32" */

#endif
