/* A GGUF file becomes a model of the store. */
#include "lockstep/base/file.h"
#include "lockstep/base/json.h"
#include "model/gguf/tokens.h"
#include "model/huggingface.h"

#include <stdio.h>
#include <string.h>

#define PIECE_FLOATS ((size_t)1 << 18) /* converted at a time, and at least a row */

struct importing {
    struct lk_store *store;
    const char *path;
    const struct lk_model_import *options;
    struct lk_map map;
    struct lk__gguf file;
    struct lk__gguf_config config;
    struct lk_layout layout;
    enum lk_dtype matrices, ends; /* of a narrow layout */
    struct lk_root weights, tokenizer;
    bool has_tokenizer;
    enum lk_chat chat;
    json_t *files;
    /* while weights are put */
    struct lk_blob_writer *writer;
    void *piece;
    uint64_t done;
    struct lk_err *err;
};

/* --- Which tensors ---------------------------------------------------------------------------------------- */

static struct lk__gguf_tensor *find(const struct importing *in, size_t i) {
    char name[LK__GGUF_NAME];
    lk__gguf_tensor_name(in->layout.tensors[i].name, name);
    return lk__gguf_tensor(&in->file, name);
}

static bool is_float(enum lk__gguf_type type) {
    return type == LK__GGUF_F32 || type == LK__GGUF_F16 || type == LK__GGUF_BF16;
}
/* LK_F32: the model has no such format. */
static enum lk_dtype dtype_of(enum lk__gguf_type type) {
    return type == LK__GGUF_Q8_0 ? LK_Q8 : type == LK__GGUF_Q4_0 ? LK_Q4 : LK_F32;
}
static bool is_end(const struct lk_layout *l, size_t i) {
    return (int)i == l->embedding || (int)i == l->head;
}
/* A matrix of the layers, which a narrow layout may have in fewer bits. */
static bool is_matrix(const struct lk_layout *l, size_t i) {
    return l->tensors[i].dims == 2 && !is_end(l, i) && (int)i != l->positions;
}

static int check_shape(const struct importing *in, size_t i, struct lk__gguf_tensor *t) {
    const struct lk_tensor *want = &in->layout.tensors[i];
    uint64_t row = want->dims == 2 ? want->shape[1] : want->shape[0], rows = want->dims == 2 ? want->shape[0] : 1;
    char name[LK__GGUF_NAME];
    lk__gguf_tensor_name(want->name, name);
    if (!t) return lk_fail(in->err, LK_EINVAL, "%s: tensor %s is missing", in->path, name);
    t->used = true;
    if (t->shape[0] == row && t->shape[1] == rows && t->shape[2] == 1 && t->shape[3] == 1) return LK_OK;
    return lk_fail(in->err, LK_EINVAL, "%s: tensor %s has the shape (%llu, %llu, %llu, %llu), its keys want (%llu, %llu)",
                   in->path, name, (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
                   (unsigned long long)t->shape[2], (unsigned long long)t->shape[3], (unsigned long long)row,
                   (unsigned long long)rows);
}

static int check_type(const struct importing *in, size_t i, const struct lk__gguf_tensor *t) {
    bool matrix = is_matrix(&in->layout, i);
    bool blocks = matrix && in->matrices != LK_F32 && lk_dtype_row_bytes(in->matrices, t->shape[0]);
    if (is_end(&in->layout, i) || (blocks ? dtype_of(t->type) == in->matrices : is_float(t->type))) return LK_OK;
    if (!blocks)
        return lk_fail(in->err, LK_EUNSUPPORTED, "%s: tensor %s has type %s, which is not read there", in->path, t->name,
                       lk__gguf_type_name(t->type));
    return lk_fail(in->err, LK_EUNSUPPORTED,
                   "%s: tensor %s has type %s, other matrices of the layers %s; a model has one format for all of them",
                   in->path, t->name, lk__gguf_type_name(t->type), in->matrices == LK_Q8 ? "Q8_0" : "Q4_0");
}

/* What no weight is. */
static int check_left_over(const struct importing *in) {
    for (size_t i = 0; i < in->file.tensor_count; i++) {
        const struct lk__gguf_tensor *t = &in->file.tensors[i];
        bool twice = in->config.model.tied && strcmp(t->name, "output.weight") == 0; /* the table once more */
        if (!t->used && !twice)
            return lk_fail(in->err, LK_EUNSUPPORTED, "%s: tensor %s is no part of the model that the file's keys describe",
                           in->path, t->name);
    }
    return LK_OK;
}

/* Formats of all tensors. Embedding and head keep their blocks where both have the same; else they become floats. */
static int read_types(struct importing *in) {
    struct lk_layout *l = &in->layout;
    int code = LK_OK;
    for (size_t i = 0; i < l->tensor_count && !code; i++) {
        struct lk__gguf_tensor *t = find(in, i);
        code = check_shape(in, i, t);
        if (!code && is_matrix(l, i) && in->matrices == LK_F32) in->matrices = dtype_of(t->type);
    }
    for (size_t i = 0; i < l->tensor_count && !code; i++) code = check_type(in, i, find(in, i));
    if (!code) code = check_left_over(in);
    if (code || in->matrices == LK_F32) return code;
    in->ends = dtype_of(find(in, (size_t)l->embedding)->type);
    if (l->head >= 0 && dtype_of(find(in, (size_t)l->head)->type) != in->ends) in->ends = LK_F32;
    lk_layout_narrow(l, in->matrices, in->ends);
    return LK_OK;
}

/* --- Values ---------------------------------------------------------------------------------------------- */

static int broken(const struct importing *in, const struct lk__gguf_tensor *t) {
    return lk_fail(in->err, LK_EINVAL, "%s: tensor %s has an infinite value or NaN: the file's weights are broken",
                   in->path, t->name);
}

static int put_piece(struct importing *in, size_t bytes, size_t numbers) {
    const struct lk_model_import *o = in->options;
    int code = lk_blob_write(in->writer, in->piece, bytes, in->err);
    in->done += numbers * sizeof(float);
    if (!code && o->progress && o->progress(o->arg, in->done, in->layout.parameters * sizeof(float)))
        return lk_fail(in->err, LK_ESTOPPED, "stopped; nothing was kept");
    return code;
}

static int put_tensor(struct importing *in, const struct lk_tensor *want, const struct lk__gguf_tensor *t) {
    size_t columns = t->shape[0], rows = want->count / columns, most = PIECE_FLOATS / columns ? PIECE_FLOATS / columns : 1;
    size_t from_bytes = lk__gguf_row_bytes(t->type, columns), to_bytes = lk_dtype_row_bytes(want->dtype, columns);
    bool same = want->dtype != LK_F32;
    int code = LK_OK;
    for (size_t row = 0, n; row < rows && !code; row += n) {
        n = rows - row < most ? rows - row : most;
        for (size_t k = 0; k < n && !code; k++) {
            const unsigned char *from = t->data + lk__gguf_row(&in->layout, want, row + k) * from_bytes;
            unsigned char *to = (unsigned char *)in->piece + k * to_bytes;
            if (same) memcpy(to, from, to_bytes);
            bool good = same ? lk__gguf_finite(t->type, from, from_bytes)
                             : lk__gguf_to_f32(t->type, from, columns, (float *)(void *)to);
            if (!good) code = broken(in, t);
        }
        if (!code) code = put_piece(in, n * to_bytes, n * columns);
    }
    return code;
}

/* In a narrow layout tensors have places; elsewhere one follows the other. */
static int put_all(struct importing *in) {
    static const char zeros[64];
    const struct lk_layout *l = &in->layout;
    int code = LK_OK;
    for (size_t i = 0; i < l->tensor_count && !code; i++) {
        const struct lk_tensor *t = &l->tensors[i];
        code = put_tensor(in, t, find(in, i));
        if (code || !l->narrow) continue;
        size_t columns = t->dims == 2 ? t->shape[1] : t->count;
        size_t end = (i + 1 < l->tensor_count ? l->tensors[i + 1].offset : l->floats) * sizeof(float);
        size_t padding = end - t->offset * sizeof(float) - t->count / columns * lk_dtype_row_bytes(t->dtype, columns);
        if (padding) code = lk_blob_write(in->writer, zeros, padding, in->err);
    }
    return code;
}

static int read_weights(struct importing *in) {
    size_t most = PIECE_FLOATS;
    for (size_t i = 0; i < in->layout.tensor_count; i++) {
        const struct lk_tensor *t = &in->layout.tensors[i];
        size_t columns = t->dims == 2 ? t->shape[1] : t->count;
        if (columns > most) most = columns;
    }
    if (!(in->piece = lk_alloc(most * sizeof(float))))
        return lk_fail(in->err, LK_ENOMEM, "%s: no memory to convert weights", in->path);
    int code = lk_blob_create(in->store->blobs, &in->writer, in->err);
    if (!code && (code = put_all(in)))
        lk_blob_abort(in->writer);
    else if (!code)
        code = lk_blob_finish(in->writer, &in->weights, in->err);
    lk_free(in->piece);
    return code;
}

/* --- The tokenizer ---------------------------------------------------------------------------------------- */

/* Kept for whoever exports the model again; a template that is known here is the model's own. */
static int keep_template(struct importing *in, const struct lk_tokenizer *t) {
    const struct lk__gguf_value *v = lk__gguf_value(&in->file, "tokenizer.chat_template");
    const struct lk_model_import *o = in->options;
    struct lk_bytes text;
    struct lk_root root;
    char hex[LK_ROOT_HEX], note[160] = "its chat template is none that is known here: conversations need --template";
    uint32_t stop;
    if (!v) return LK_OK;
    if (!lk__gguf_text(v, &text)) return lk_fail(in->err, LK_EINVAL, "%s: tokenizer.chat_template is no text", in->path);
    in->chat = lk_chat_recognise(text.data, text.size);
    if (in->chat && lk_chat_stop(t, in->chat, &stop, NULL)) {
        snprintf(note, sizeof note, "its tokenizer lacks tokens of its chat template, %s: conversations need --template",
                 lk_chat_name(in->chat));
        in->chat = LK_CHAT_NONE;
    } else if (in->chat)
        snprintf(note, sizeof note, "conversations are written as %s", lk_chat_name(in->chat));
    if (o->note) o->note(o->arg, note);
    int code = lk_blob_put(in->store->blobs, text.data, text.size, &root, in->err);
    if (!code && json_object_set_new(in->files, "chat_template.jinja", json_string(lk_root_hex(&root, hex))))
        code = lk_fail(in->err, LK_ENOMEM, "no memory for a list of files");
    return code;
}

static int read_tokenizer(struct importing *in) {
    struct lk_tokenizer *t = NULL;
    int code;
    if (in->options->no_tokenizer) return LK_OK;
    if (in->options->tokenizer) {
        in->tokenizer = *in->options->tokenizer;
        code = lk_tokenizer_load(in->store, &in->tokenizer, &t, in->err);
    } else {
        code = lk__gguf_tokens_read(&in->file, in->path, &in->config, &t, in->err);
        if (!code) code = lk_tokenizer_save(in->store, t, &in->tokenizer, in->err);
        if (!code) code = keep_template(in, t);
    }
    if (!code && lk_tokenizer_vocab(t) > in->config.model.vocab)
        code =
            lk_fail(in->err, LK_EINVAL,
                    "%s: the tokenizer has ids up to %u, the model only %u rows; import with --tokenizer none, or another "
                    "one",
                    in->path, lk_tokenizer_vocab(t) - 1, in->config.model.vocab);
    in->has_tokenizer = !code;
    lk_tokenizer_free(t);
    return code;
}

/* --- All ------------------------------------------------------------------------------------------------- */

static int put_manifest(struct importing *in, struct lk_root *out) {
    const struct lk__gguf_config *c = &in->config;
    json_t *m = lk_model_manifest(&(struct lk_model_parts){.config = &c->model,
                                                           .type = lk__model_hf_type(&c->model, c->architecture),
                                                           .weights = &in->weights,
                                                           .tokenizer = in->has_tokenizer ? &in->tokenizer : NULL,
                                                           .stops = c->stops,
                                                           .stop_count = c->stop_count,
                                                           .begin = c->begin,
                                                           .text_begin = c->text_begin,
                                                           .chat = in->chat,
                                                           .files = in->files});
    json_t *narrow =
        m && in->layout.narrow ? lk_model_narrow_manifest(m, in->matrices, in->ends, NULL, &in->weights) : NULL;
    json_t *put = in->layout.narrow ? narrow : m;
    int code = put ? lk_manifest_put(in->store, put, out, in->err)
                   : lk_fail(in->err, LK_ENOMEM, "no memory for a model's manifest");
    json_decref(m);
    json_decref(narrow);
    return code;
}

int lk_model_import_gguf(struct lk_store *store, const char *path, const struct lk_model_import *options,
                         struct lk_root *out, struct lk_err *err) {
    struct importing in = {.store = store, .path = path, .options = options, .err = err};
    bool there;
    int code = lk__model_hf_file(path, &there, err);
    if (!code) code = there ? lk_map_open(path, &in.map, err) : lk_fail(err, LK_ENOTFOUND, "there is no file %s", path);
    if (!code) code = lk__gguf_read(in.map.data, in.map.size, path, &in.file, err);
    if (!code) code = lk__gguf_config_read(&in.file, path, options, &in.config, err);
    if (!code) code = lk_layout_init(&in.layout, &in.config.model, err);
    if (!code && !(in.files = json_object())) code = lk_fail(err, LK_ENOMEM, "no memory for a list of files");
    if (!code) code = read_types(&in);
    if (!code) code = read_tokenizer(&in);
    if (!code) code = read_weights(&in);
    if (!code) code = put_manifest(&in, out);
    json_decref(in.files);
    lk_layout_release(&in.layout);
    lk__gguf_release(&in.file);
    lk_map_close(&in.map);
    return code;
}
