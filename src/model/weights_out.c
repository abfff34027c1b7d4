/* A model's tensors into a file: safetensors, or llm.c's checkpoint. */
#include "weights_out.h"
#include "base/syscalls.h"
#include "huggingface.h"
#include "safetensors.h"

#include <fcntl.h>
#include <string.h>

#define PIECE_FLOATS ((size_t)1 << 18)

struct output {
    const struct lk_model *model;
    const struct lk_model_export *how;
    enum lk__model_stored_type type;
    uint64_t done;    /* bytes of values */
    const char *path; /* for messages */
    int fd;
    float *turned;
    unsigned char *bytes;
    struct lk_err *err;
};

static const enum lk__model_stored_type stored[] = {[LK_F32] = LK__F32, [LK_BF16] = LK__BF16, [LK_F16] = LK__F16};

/* --- Tensors --------------------------------------------------------------------------------------------- */

static int write_bytes(struct output *o, const void *data, size_t size) {
    return lk__write_all(o->fd, data, size) ? lk_fail_errno(o->err, "cannot write %s", o->path) : LK_OK;
}

/* Tells how far it is. */
static int show(const struct output *o) {
    uint64_t total = o->model->layout.parameters * lk__model_type_bytes(o->type);
    if (!o->how->progress || !o->how->progress(o->how->arg, o->done, total)) return LK_OK;
    return lk_fail(o->err, LK_ESTOPPED, "stopped; nothing was written");
}

static int write_values(struct output *o, const struct lk_tensor *t, const float *x, size_t count) {
    int code = LK_OK;
    for (size_t at = 0, n; at < count && !code; at += n) {
        n = count - at < PIECE_FLOATS ? count - at : PIECE_FLOATS;
        if (!lk__model_from_f32(o->type, x + at, n, o->bytes))
            return lk_fail(o->err, LK_EINVAL, "tensor %s has a value too large for %s: export it as f32%s", t->name,
                           lk__model_type_name(o->type), o->type == LK__F16 ? " or bf16" : "");
        code = write_bytes(o, o->bytes, n * lk__model_type_bytes(o->type));
        o->done += n * lk__model_type_bytes(o->type);
        if (!code) code = show(o);
    }
    return code;
}

static int write_tensor(struct output *o, const struct lk_tensor *t, bool turn) {
    const float *x = o->model->weights + t->offset;
    size_t rows = t->shape[1], columns = t->shape[0]; /* as they will be, when turned */
    if (!turn) return write_values(o, t, x, t->count);
    int code = LK_OK;
    size_t most = PIECE_FLOATS / columns > 0 ? PIECE_FLOATS / columns : 1;
    float *turned = columns > PIECE_FLOATS ? lk_realloc(o->turned, columns * sizeof *turned) : o->turned;
    if (!turned) return lk_fail(o->err, LK_ENOMEM, "no memory to turn tensor %s", t->name);
    o->turned = turned;
    for (size_t r = 0, n; r < rows && !code; r += n) {
        n = rows - r < most ? rows - r : most;
        for (size_t c = 0; c < columns; c++)
            for (size_t k = 0; k < n; k++) turned[k * columns + c] = x[c * rows + r + k];
        code = write_values(o, t, turned, n * columns);
    }
    return code;
}

static int open_output(struct output *o) {
    o->turned = lk_alloc(PIECE_FLOATS * sizeof *o->turned);
    o->bytes = lk_alloc(PIECE_FLOATS * sizeof(float));
    if (!o->turned || !o->bytes) return lk_fail(o->err, LK_ENOMEM, "no memory to write %s", o->path);
    o->fd = lk__open(o->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return o->fd < 0 ? lk_fail_errno(o->err, "cannot write %s", o->path) : LK_OK;
}

/* Also after a failure, whose code is kept. */
static int close_output(struct output *o, int code) {
    if (o->fd >= 0 && !code && lk__fsync(o->fd)) code = lk_fail_errno(o->err, "cannot write %s", o->path);
    if (o->fd >= 0 && lk__close(o->fd) && !code) code = lk_fail_errno(o->err, "cannot write %s", o->path);
    lk_free(o->turned);
    lk_free(o->bytes);
    return code;
}

/* --- safetensors ----------------------------------------------------------------------------------------- */

static int write_header(struct output *o) {
    const struct lk_layout *l = &o->model->layout;
    const char *prefix = l->config.family == LK_GPT2 ? "transformer." : "";
    struct lk_buf text = LK_BUF_INIT;
    uint64_t at = 0;
    int bad = lk_buf_printf(&text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < l->tensor_count && !bad; i++) {
        const struct lk_tensor *t = &l->tensors[i];
        uint64_t size = t->count * lk__model_type_bytes(o->type);
        bool turned = lk__model_hf_transposed(l, t);
        bad = lk_buf_printf(&text, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[%u", (int)i == l->head ? "" : prefix, t->name,
                            lk__model_type_name(o->type), t->shape[turned ? 1 : 0]);
        if (!bad && t->dims == 2) bad = lk_buf_printf(&text, ",%u", t->shape[turned ? 0 : 1]);
        if (!bad)
            bad = lk_buf_printf(&text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                                (unsigned long long)(at + size));
        at += size;
    }
    if (!bad) bad = lk_buf_append(&text, "}", 1);
    while (!bad && text.size % 8) bad = lk_buf_append(&text, " ", 1); /* so that the values are aligned */
    unsigned char size[8];
    for (int i = 0; i < 8; i++) size[i] = (unsigned char)((uint64_t)text.size >> (8 * i));
    int code = bad ? lk_fail(o->err, LK_ENOMEM, "no memory for the header of %s", o->path) : LK_OK;
    if (!code) code = write_bytes(o, size, 8);
    if (!code) code = write_bytes(o, text.data, text.size);
    lk_buf_release(&text);
    return code;
}

int lk__model_safetensors_write(const struct lk_model *m, const struct lk_model_export *how, const char *path,
                                struct lk_err *err) {
    struct output o = {.model = m, .how = how, .type = stored[how->dtype], .path = path, .fd = -1, .err = err};
    int code = open_output(&o);
    if (!code) code = write_header(&o);
    for (size_t i = 0; i < m->layout.tensor_count && !code; i++)
        code = write_tensor(&o, &m->layout.tensors[i], lk__model_hf_transposed(&m->layout, &m->layout.tensors[i]));
    return close_output(&o, code);
}

/* --- llm.c ----------------------------------------------------------------------------------------------- */

#define LLMC_HEADER 256 /* int32 */
#define LLMC_MAGIC  20240326
#define LLMC_ROWS   128 /* it pads the vocabulary to such multiples */

/* Its order: a kind of tensor, then the layers. */
static int write_kinds(struct output *o) {
    const struct lk_layout *l = &o->model->layout;
    const size_t kinds[] = {
        offsetof(struct lk_layer_tensors, norm1), offsetof(struct lk_layer_tensors, norm1_bias),
        offsetof(struct lk_layer_tensors, qkv),   offsetof(struct lk_layer_tensors, qkv_bias),
        offsetof(struct lk_layer_tensors, o),     offsetof(struct lk_layer_tensors, o_bias),
        offsetof(struct lk_layer_tensors, norm2), offsetof(struct lk_layer_tensors, norm2_bias),
        offsetof(struct lk_layer_tensors, up),    offsetof(struct lk_layer_tensors, up_bias),
        offsetof(struct lk_layer_tensors, down),  offsetof(struct lk_layer_tensors, down_bias),
    };
    int code = LK_OK;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (uint32_t i = 0; i < l->config.layers && !code; i++) {
            int index = *(const int *)(const void *)((const char *)&l->layers[i] + kinds[k]);
            code = write_tensor(o, &l->tensors[index], false);
        }
    return code;
}

static int write_llmc(struct output *o) {
    const struct lk_layout *l = &o->model->layout;
    const struct lk_model_config *c = &l->config;
    uint32_t padded = (c->vocab + LLMC_ROWS - 1) / LLMC_ROWS * LLMC_ROWS;
    const uint32_t values[] = {LLMC_MAGIC, o->type == LK__F32 ? 3 : 5, c->context, c->vocab, c->layers, c->heads, c->width,
                               padded};
    unsigned char header[4 * LLMC_HEADER] = {0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        for (int b = 0; b < 4; b++) header[4 * i + (size_t)b] = (unsigned char)(values[i] >> (8 * b));
    int code = write_bytes(o, header, sizeof header);
    if (!code) code = write_tensor(o, &l->tensors[l->embedding], false);
    memset(o->bytes, 0, PIECE_FLOATS * sizeof(float));
    for (size_t left = (size_t)(padded - c->vocab) * c->width * lk__model_type_bytes(o->type), n; left && !code;
         left -= n) {
        n = left < PIECE_FLOATS ? left : PIECE_FLOATS;
        code = write_bytes(o, o->bytes, n);
    }
    if (!code) code = write_tensor(o, &l->tensors[l->positions], false);
    if (!code) code = write_kinds(o);
    if (!code) code = write_tensor(o, &l->tensors[l->norm], false);
    return code ? code : write_tensor(o, &l->tensors[l->norm_bias], false);
}

int lk__model_llmc_write(const struct lk_model *m, const struct lk_model_export *how, const char *path,
                         struct lk_err *err) {
    struct output o = {.model = m, .how = how, .type = stored[how->dtype], .path = path, .fd = -1, .err = err};
    int code = open_output(&o);
    if (!code) code = write_llmc(&o);
    return close_output(&o, code);
}
