/* A model in fewer bits: its weights rounded tensor by tensor into a blob of their own, and a manifest that names where
 * they came from. */
#include "lockstep/model/models.h"

#include <string.h>

#define PIECE_NUMBERS ((size_t)4 << 20) /* rounded at once, by all threads */

struct rounding {
    struct lk_math *math;
    const struct lk_model *from;
    const struct lk_layout *to;
    struct lk_blob_writer *writer;
    uint8_t *piece;
    const struct lk_model_quantize *how;
    uint64_t done;
    struct lk_err *err;
};

static int tell(struct rounding *r, size_t numbers) {
    r->done += numbers * sizeof(float);
    if (!r->how->progress || !r->how->progress(r->how->arg, r->done, r->from->layout.parameters * sizeof(float)))
        return LK_OK;
    return lk_fail(r->err, LK_ESTOPPED, "stopped");
}

static int put_tensor(struct rounding *r, size_t i) {
    const struct lk_tensor *t = &r->to->tensors[i];
    const float *x = r->from->weights + r->from->layout.tensors[i].offset;
    size_t columns = t->dims == 2 ? t->shape[1] : t->count, rows = t->count / columns, at_once = PIECE_NUMBERS / columns;
    size_t row_bytes = lk_dtype_row_bytes(t->dtype, columns);
    static const char zeros[64];
    int code = LK_OK;
    if (!at_once) at_once = 1;
    for (size_t row = 0, n; row < rows && !code; row += n) {
        n = rows - row < at_once ? rows - row : at_once;
        code = lk_quantize(r->math, t->dtype, n, columns, x + row * columns, r->piece, r->err);
        if (code) return lk_fail_prefix(r->err, code, "tensor %s", t->name);
        code = lk_blob_write(r->writer, r->piece, n * row_bytes, r->err);
        if (!code) code = tell(r, n * columns);
    }
    size_t end = (i + 1 < r->to->tensor_count ? r->to->tensors[i + 1].offset : r->to->floats) * sizeof(float);
    size_t bytes = rows * row_bytes, padding = end - t->offset * sizeof(float) - bytes;
    return code || !padding ? code : lk_blob_write(r->writer, zeros, padding, r->err);
}

static size_t piece_bytes(const struct lk_layout *l) {
    size_t most = PIECE_NUMBERS;
    for (size_t i = 0; i < l->tensor_count; i++) {
        size_t columns = l->tensors[i].dims == 2 ? l->tensors[i].shape[1] : l->tensors[i].count;
        if (columns > most) most = columns;
    }
    return most * sizeof(float);
}

static int put_weights(struct rounding *r, struct lk_store *store, struct lk_root *out) {
    if (!(r->piece = lk_alloc(piece_bytes(r->to)))) return lk_fail(r->err, LK_ENOMEM, "no memory to round weights");
    int code = lk_blob_create(store->blobs, &r->writer, r->err);
    for (size_t i = 0; i < r->to->tensor_count && !code; i++) code = put_tensor(r, i);
    if (!code)
        code = lk_blob_finish(r->writer, out, r->err);
    else if (r->writer)
        lk_blob_abort(r->writer);
    lk_free(r->piece);
    return code;
}

int lk_model_quantize(struct lk_math *math, struct lk_store *store, const struct lk_model *m,
                      const struct lk_model_quantize *how, struct lk_root *out, struct lk_err *err) {
    struct lk_layout to;
    struct lk_root weights;
    LK_ASSERT(m->weights && lk_layout_can_narrow(how->matrices) && lk_layout_can_narrow(how->ends));
    if (m->layout.narrow)
        return lk_fail(err, LK_EINVAL, "the model's weights are %s already: quantize the model that it was made from",
                       lk_dtype_name(m->narrow_matrices));
    int code = lk_layout_init(&to, &m->layout.config, err);
    if (code) return code;
    lk_layout_narrow(&to, how->matrices, how->ends);
    struct rounding r = {.math = math, .from = m, .to = &to, .how = how, .err = err};
    code = put_weights(&r, store, &weights);
    json_t *manifest =
        code ? NULL : lk_model_narrow_manifest(m->manifest, how->matrices, how->ends, &m->weights_root, &weights);
    if (!code && !manifest) code = lk_fail(err, LK_ENOMEM, "no memory for a manifest");
    if (!code) code = lk_manifest_put(store, manifest, out, err);
    json_decref(manifest);
    lk_layout_release(&to);
    return code;
}
