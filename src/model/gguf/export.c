/* A model as a GGUF file: keys, the table of tensors, and the tensors in canonical order, each at a multiple of 32 bytes.
 */
#include "base/syscalls.h"
#include "model/gguf/tokens.h"
#include "model/safetensors.h"
#include "model/weights_out.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define ALIGN        32
#define PIECE_FLOATS ((size_t)1 << 18)

struct writing {
    const struct lk_model *model;
    const struct lk_model_export *how;
    const char *path; /* for messages */
    int fd;
    unsigned char *bytes;
    uint64_t done, total;
    struct lk_err *err;
};

/* --- Keys ------------------------------------------------------------------------------------------------ */

static void append(struct lk__gguf_out *o, const void *data, size_t size) {
    if (size && lk_buf_append(&o->bytes, data, size)) o->bad = true;
}
static void append_number(struct lk__gguf_out *o, uint64_t v, size_t bytes) {
    unsigned char le[8];
    for (size_t i = 0; i < bytes; i++) le[i] = (unsigned char)(v >> (8 * i));
    append(o, le, bytes);
}
static void append_text(struct lk__gguf_out *o, const void *text, size_t size) {
    append_number(o, size, 8);
    append(o, text, size);
}
static void begin_key(struct lk__gguf_out *o, const char *key, enum lk__gguf_kind kind) {
    o->count++;
    append_text(o, key, strlen(key));
    append_number(o, kind, 4);
}

void lk__gguf_put_number(struct lk__gguf_out *o, const char *key, enum lk__gguf_kind kind, uint64_t bits) {
    begin_key(o, key, kind);
    append_number(o, bits, kind == LK__GGUF_BOOL ? 1 : kind == LK__GGUF_REAL64 ? 8 : 4);
}
void lk__gguf_put_u32(struct lk__gguf_out *o, const char *key, uint32_t v) {
    lk__gguf_put_number(o, key, LK__GGUF_U32, v);
}
void lk__gguf_put_f32(struct lk__gguf_out *o, const char *key, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    lk__gguf_put_number(o, key, LK__GGUF_REAL32, bits);
}
void lk__gguf_put_f64(struct lk__gguf_out *o, const char *key, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    lk__gguf_put_number(o, key, LK__GGUF_REAL64, bits);
}
void lk__gguf_put_truth(struct lk__gguf_out *o, const char *key, bool v) {
    lk__gguf_put_number(o, key, LK__GGUF_BOOL, v);
}
void lk__gguf_put_text(struct lk__gguf_out *o, const char *key, const void *text, size_t size) {
    begin_key(o, key, LK__GGUF_STRING);
    append_text(o, text, size);
}
void lk__gguf_put_texts(struct lk__gguf_out *o, const char *key, const struct lk_bytes *texts, size_t count) {
    begin_key(o, key, LK__GGUF_ARRAY);
    append_number(o, LK__GGUF_STRING, 4);
    append_number(o, count, 8);
    for (size_t i = 0; i < count; i++) append_text(o, texts[i].data, texts[i].size);
}
void lk__gguf_put_array(struct lk__gguf_out *o, const char *key, enum lk__gguf_kind of, const void *data, size_t count) {
    begin_key(o, key, LK__GGUF_ARRAY);
    append_number(o, of, 4);
    append_number(o, count, 8);
    append(o, data, count * 4);
}

static enum lk__gguf_type type_of(const struct writing *w, size_t i) {
    static const enum lk__gguf_type types[] = {LK__GGUF_F32, LK__GGUF_BF16, LK__GGUF_F16, LK__GGUF_Q8_0, LK__GGUF_Q4_0};
    const struct lk_layout *l = &w->model->layout;
    if (l->narrow) return types[l->tensors[i].dtype];
    return l->tensors[i].dims == 1 || (int)i == l->positions ? LK__GGUF_F32 : types[w->how->dtype];
}

/* What llama.cpp calls the file as a whole. */
static uint32_t file_type(const struct writing *w) {
    static const uint32_t types[] = {[LK_F32] = 0, [LK_BF16] = 32, [LK_F16] = 1, [LK_Q8] = 7, [LK_Q4] = 2};
    return types[w->model->layout.narrow ? w->model->narrow_matrices : w->how->dtype];
}

static void put_own(struct lk__gguf_out *o, const struct lk_model_config *c) {
    for (size_t i = 0; i < LK__GGUF_OWN; i++) {
        double x = *(const double *)(const void *)((const char *)c + lk__gguf_own[i].at);
        bool wanted = i == 2 ? x != 0.02 : i > 2 ? c->rope_factor > 0 : lk__gguf_decimal((float)x) != x;
        if (i == 1 && c->family == LK_GPT2) continue;
        if (wanted) lk__gguf_put_f64(o, lk__gguf_own[i].key, x);
    }
    if (c->rope_factor > 0) lk__gguf_put_u32(o, "lockstep.rope_original", c->rope_original);
}

static void put_config(const struct writing *w, const char *architecture, struct lk__gguf_out *o) {
    const struct lk_model_config *c = &w->model->layout.config;
    const struct {
        const char *name;
        uint32_t value;
        bool wanted;
    } sizes[] = {{"context_length", c->context, true},
                 {"embedding_length", c->width, true},
                 {"block_count", c->layers, true},
                 {"feed_forward_length", c->ffn, true},
                 {"vocab_size", c->vocab, true},
                 {"attention.head_count", c->heads, true},
                 {"attention.head_count_kv", c->kv_heads, c->family == LK_LLAMA},
                 {"attention.key_length", c->head_dim, c->family == LK_LLAMA},
                 {"attention.value_length", c->head_dim, c->family == LK_LLAMA},
                 {"attention.sliding_window", c->window, c->window > 0},
                 {"rope.dimension_count", c->head_dim, c->family == LK_LLAMA}};
    char hex[LK_ROOT_HEX], name[64];
    lk__gguf_put_text(o, "general.architecture", architecture, strlen(architecture));
    lk__gguf_put_text(o, "general.type", "model", 5);
    int n = snprintf(name, sizeof name, "%s-%.12s", architecture, lk_root_hex(&w->model->weights_root, hex));
    lk__gguf_put_text(o, "general.name", name, (size_t)n);
    lk__gguf_put_u32(o, "general.file_type", file_type(w));
    lk__gguf_put_u32(o, "general.quantization_version", 2);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(name, sizeof name, "%s.%s", architecture, sizes[i].name);
        if (sizes[i].wanted) lk__gguf_put_u32(o, name, sizes[i].value);
    }
    snprintf(name, sizeof name, "%s.attention.layer_norm_%sepsilon", architecture, c->family == LK_LLAMA ? "rms_" : "");
    lk__gguf_put_f32(o, name, (float)c->norm_epsilon);
    snprintf(name, sizeof name, "%s.rope.freq_base", architecture);
    if (c->family == LK_LLAMA) lk__gguf_put_f32(o, name, (float)c->rope_theta);
    put_own(o, c);
}

/* --- The table of tensors ------------------------------------------------------------------------------------ */

static uint64_t aligned(uint64_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}
static size_t columns_of(const struct lk_tensor *t) {
    return t->dims == 2 ? t->shape[1] : t->count;
}
static uint64_t bytes_of(const struct writing *w, size_t i) {
    const struct lk_tensor *t = &w->model->layout.tensors[i];
    return t->count / columns_of(t) * lk__gguf_row_bytes(type_of(w, i), columns_of(t));
}

static void put_entry(struct lk__gguf_out *o, const char *name, uint32_t dims, uint64_t columns, uint64_t rows,
                      enum lk__gguf_type type, uint64_t place) {
    append_text(o, name, strlen(name));
    append_number(o, dims, 4);
    append_number(o, columns, 8);
    if (dims == 2) append_number(o, rows, 8);
    append_number(o, type, 4);
    append_number(o, place, 8);
}

static void put_table(struct writing *w, struct lk__gguf_out *o) {
    const struct lk_layout *l = &w->model->layout;
    char name[LK__GGUF_NAME];
    for (size_t i = 0; i < l->tensor_count; i++) {
        const struct lk_tensor *t = &l->tensors[i];
        lk__gguf_tensor_name(t->name, name);
        put_entry(o, name, t->dims, columns_of(t), t->shape[0], type_of(w, i), w->total);
        w->total += aligned(bytes_of(w, i));
    }
    if (!(l->config.rope_factor > 0)) return;
    put_entry(o, LK__GGUF_ROPE, 1, l->config.head_dim / 2, 1, LK__GGUF_F32, w->total);
    w->total += aligned(l->config.head_dim / 2 * sizeof(float));
}

static int write_bytes(struct writing *w, const void *data, size_t size) {
    return lk__write_all(w->fd, data, size) ? lk_fail_errno(w->err, "cannot write %s", w->path) : LK_OK;
}

static int write_head(struct lk_store *store, struct writing *w) {
    const char *architecture = lk__gguf_architecture(&w->model->layout.config);
    struct lk__gguf_out keys = {0}, head = {0};
    if (!architecture)
        return lk_fail(
            w->err, LK_EUNSUPPORTED,
            "no architecture of GGUF files computes this configuration: qwen2 has qkv_bias, qwen3 qk_norm, none both");
    put_config(w, architecture, &keys);
    int code = lk__gguf_tokens_write(store, w->model, &keys, w->err);
    append(&head, "GGUF", 4);
    append_number(&head, 3, 4);
    append_number(&head, w->model->layout.tensor_count + (w->model->layout.config.rope_factor > 0), 8);
    append_number(&head, keys.count, 8);
    append(&head, keys.bytes.data, keys.bytes.size);
    put_table(w, &head);
    while (!head.bad && head.bytes.size % ALIGN) append(&head, "", 1);
    if (!code && (keys.bad || head.bad)) code = lk_fail(w->err, LK_ENOMEM, "no memory to write %s", w->path);
    if (!code) code = write_bytes(w, head.bytes.data, head.bytes.size);
    lk_buf_release(&keys.bytes);
    lk_buf_release(&head.bytes);
    return code;
}

/* --- Tensors --------------------------------------------------------------------------------------------- */

static int write_piece(struct writing *w, const void *data, size_t size) {
    int code = write_bytes(w, data, size);
    w->done += size;
    if (code || !w->how->progress || !w->how->progress(w->how->arg, w->done, w->total)) return code;
    return lk_fail(w->err, LK_ESTOPPED, "stopped; nothing was written");
}

static int pad(struct writing *w, uint64_t size) {
    static const char zeros[ALIGN];
    uint64_t n = aligned(size) - size;
    return n ? write_piece(w, zeros, n) : LK_OK;
}

/* Rounds a row of floats, or copies one that is in that type; false: a value is too large for it. */
static bool convert(enum lk_dtype has, enum lk__gguf_type type, const unsigned char *from, size_t columns,
                    unsigned char *to) {
    if (has == LK_F32 && type != LK__GGUF_F32)
        return lk__model_from_f32(type == LK__GGUF_F16 ? LK__F16 : LK__BF16, (const float *)(const void *)from, columns,
                                  to);
    memcpy(to, from, lk__gguf_row_bytes(type, columns));
    return true;
}

static int write_tensor(struct writing *w, size_t i) {
    const struct lk_layout *l = &w->model->layout;
    const struct lk_tensor *t = &l->tensors[i];
    enum lk__gguf_type type = type_of(w, i);
    size_t columns = columns_of(t), rows = t->count / columns, most = PIECE_FLOATS / columns ? PIECE_FLOATS / columns : 1;
    size_t from_bytes = lk_dtype_row_bytes(t->dtype, columns), to_bytes = lk__gguf_row_bytes(type, columns);
    const unsigned char *from = (const unsigned char *)(w->model->weights + t->offset);
    size_t head = l->config.head_dim;
    bool turned = t->dims == 2 && lk__gguf_row(l, t, 1) != 1;
    int code = LK_OK;
    if (turned) most = most / head ? most / head * head : head; /* whole heads */
    for (size_t row = 0, n; row < rows && !code; row += n) {
        n = rows - row < most ? rows - row : most;
        for (size_t k = 0; k < n; k++) {
            size_t to = lk__gguf_row(l, t, row + k) - row;
            if (!convert(t->dtype, type, from + (row + k) * from_bytes, columns, w->bytes + to * to_bytes))
                return lk_fail(w->err, LK_EINVAL, "tensor %s has a value too large for %s: export it as f32%s", t->name,
                               lk__gguf_type_name(type), type == LK__GGUF_F16 ? " or bf16" : "");
        }
        code = write_piece(w, w->bytes, n * to_bytes);
    }
    return code ? code : pad(w, bytes_of(w, i));
}

static int write_tensors(struct writing *w) {
    const struct lk_layout *l = &w->model->layout;
    size_t half = l->config.head_dim / 2;
    float factors[512];
    int code = LK_OK;
    for (size_t i = 0; i < l->tensor_count && !code; i++) code = write_tensor(w, i);
    if (code || !(l->config.rope_factor > 0)) return code;
    lk__gguf_rope_factors(&l->config, factors);
    code = write_piece(w, factors, half * sizeof *factors);
    return code ? code : pad(w, half * sizeof *factors);
}

/* Room for a piece, and for all rows of a head. */
static size_t piece_bytes(const struct lk_layout *l) {
    size_t most = PIECE_FLOATS;
    for (size_t i = 0; i < l->tensor_count; i++) {
        size_t columns = columns_of(&l->tensors[i]);
        size_t rows = l->config.family == LK_LLAMA && columns == l->config.width ? l->config.head_dim : 1;
        if (columns * rows > most) most = columns * rows;
    }
    return most * sizeof(float);
}

int lk__model_gguf_write(struct lk_store *store, const struct lk_model *m, const struct lk_model_export *how,
                         const char *path, struct lk_err *err) {
    struct writing w = {.model = m, .how = how, .path = path, .fd = -1, .err = err};
    if (!(w.bytes = lk_alloc(piece_bytes(&m->layout)))) return lk_fail(err, LK_ENOMEM, "no memory to write %s", path);
    w.fd = lk__open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int code = w.fd < 0 ? lk_fail_errno(err, "cannot write %s", path) : write_head(store, &w);
    if (!code) code = write_tensors(&w);
    if (w.fd >= 0 && !code && lk__fsync(w.fd)) code = lk_fail_errno(err, "cannot write %s", path);
    if (w.fd >= 0 && lk__close(w.fd) && !code) code = lk_fail_errno(err, "cannot write %s", path);
    lk_free(w.bytes);
    return code;
}
