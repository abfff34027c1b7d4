#include "weights_in.h"

#include <stdio.h>
#include <string.h>

#define INDEX_BYTES  ((size_t)64 << 20)
#define PIECE_FLOATS ((size_t)1 << 18) /* converted at a time */
#define STRIP        64                /* columns of a transposed matrix that are read together */

/* --- Files ----------------------------------------------------------------------------------------------- */

static int add_shard(const char *dir, const char *name, struct lk__model_weights_in *w, struct lk_err *err) {
    for (size_t i = 0; i < w->count; i++)
        if (strcmp(w->shards[i].name, name) == 0) return LK_OK;
    if (!*name || strchr(name, '/') || name[0] == '.')
        return lk_fail(err, LK_EINVAL, "%s/model.safetensors.index.json: \"%.80s\" is no name of a file beside it", dir,
                       name);
    struct lk__model_shard *more = lk_realloc(w->shards, (w->count + 1) * sizeof *more);
    if (!more) return lk_fail(err, LK_ENOMEM, "no memory for the list of %s's files", dir);
    w->shards = more;
    struct lk__model_shard *s = &w->shards[w->count++];
    *s = (struct lk__model_shard){.name = lk_strdup(name)};
    char *path = lk_asprintf("%s/%s", dir, name);
    int code = s->name && path ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory to open %s", name);
    if (!code) code = lk_map_open(path, &s->map, err);
    if (!code) code = lk__model_safetensors_read(s->map.data, s->map.size, path, &s->content, err);
    lk_free(path);
    return code;
}

static int open_index(const char *dir, const char *path, struct lk__model_weights_in *w, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    const char *tensor;
    json_t *index = NULL, *file;
    int code = lk_file_read(path, INDEX_BYTES, &text, err);
    if (!code && !(index = lk_json_parse(text.data ? text.data : "", text.size, path, err))) code = LK_EINVAL;
    json_t *map = json_object_get(index, "weight_map");
    if (!code && !json_object_size(map)) code = lk_fail(err, LK_EINVAL, "%s: it has no weight_map", path);
    json_object_foreach(map, tensor, file) {
        if (code) break;
        if (!json_is_string(file))
            code = lk_fail(err, LK_EINVAL, "%s: weight_map.%.80s is no file's name", path, tensor);
        else
            code = add_shard(dir, json_string_value(file), w, err);
    }
    json_decref(index);
    lk_buf_release(&text);
    return code;
}

int lk__model_weights_in_open(const char *dir, struct lk__model_weights_in *w, struct lk_err *err) {
    char *one = lk_asprintf("%s/model.safetensors", dir), *index = lk_asprintf("%s/model.safetensors.index.json", dir);
    bool whole = false, parts = false;
    *w = (struct lk__model_weights_in){0};
    int code = one && index ? lk__model_hf_file(one, &whole, err) : lk_fail(err, LK_ENOMEM, "no memory to open %s", dir);
    if (!code) code = lk__model_hf_file(index, &parts, err);
    if (code) {
        lk_free(one);
        lk_free(index);
        return code;
    }
    if (whole) /* where both are, transformers takes this one */
        code = add_shard(dir, "model.safetensors", w, err);
    else if (parts)
        code = open_index(dir, index, w, err);
    else
        code = lk_fail(err, LK_ENOTFOUND,
                       "%s has neither model.safetensors nor model.safetensors.index.json; weights in other formats "
                       "(pytorch_model.bin) are not read: save the model once with transformers' save_pretrained",
                       dir);
    lk_free(one);
    lk_free(index);
    if (code) lk__model_weights_in_close(w);
    return code;
}

void lk__model_weights_in_close(struct lk__model_weights_in *w) {
    for (size_t i = 0; i < w->count; i++) {
        lk__model_safetensors_release(&w->shards[i].content);
        lk_map_close(&w->shards[i].map);
        lk_free(w->shards[i].name);
    }
    lk_free(w->shards);
    *w = (struct lk__model_weights_in){0};
}

/* --- Tensors --------------------------------------------------------------------------------------------- */

static struct lk__model_stored_tensor *find_full(const struct lk__model_weights_in *w, const char *name) {
    struct lk__model_stored_tensor *t = NULL;
    for (size_t i = 0; i < w->count && !t; i++) t = lk__model_safetensors_find(&w->shards[i].content, name);
    return t;
}

/* Under its name, or for GPT-2 under that within the whole model. */
static struct lk__model_stored_tensor *find_tensor(const struct lk__model_weights_in *w, const struct lk_layout *l,
                                                   const char *name) {
    char full[96];
    struct lk__model_stored_tensor *t = NULL;
    snprintf(full, sizeof full, "transformer.%s", name);
    if (l->config.family == LK_GPT2) t = find_full(w, full);
    return t ? t : find_full(w, name);
}

static void show_shape(const struct lk__model_stored_tensor *t, char out[96]) {
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < t->dims && n < 80; i++)
        n += (size_t)snprintf(out + n, 96 - n, "%s%llu", i ? ", " : "", (unsigned long long)t->shape[i]);
}

static int check_tensor(const struct lk_layout *l, const struct lk_tensor *want, const struct lk__model_stored_tensor *t,
                        struct lk_err *err) {
    bool turned = lk__model_hf_transposed(l, want);
    uint64_t rows = want->shape[turned ? 1 : 0], columns = want->shape[turned ? 0 : 1];
    char shape[96];
    if (!t) return lk_fail(err, LK_EINVAL, "tensor %s is missing", want->name);
    if (t->type == LK__OTHER_TYPE)
        return lk_fail(err, LK_EUNSUPPORTED, "tensor %s: only the types F32, BF16 and F16 are read", t->name);
    if (t->dims == want->dims && t->shape[0] == rows && (t->dims == 1 || t->shape[1] == columns)) return LK_OK;
    show_shape(t, shape);
    if (want->dims == 1)
        return lk_fail(err, LK_EINVAL, "tensor %s has the shape (%s), config.json wants (%llu)", t->name, shape,
                       (unsigned long long)rows);
    return lk_fail(err, LK_EINVAL, "tensor %s has the shape (%s), config.json wants (%llu, %llu)", t->name, shape,
                   (unsigned long long)rows, (unsigned long long)columns);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The file from which a tensor of that name is taken; NULL: none is. */
static const char *used_in(const struct lk__model_weights_in *w, const char *name) {
    for (size_t i = 0; i < w->count; i++) {
        const struct lk__model_stored_tensor *t = lk__model_safetensors_find(&w->shards[i].content, name);
        if (t && t->used) return w->shards[i].name;
    }
    return NULL;
}

/* What no weight is: masks and frequencies that older files hold. A head beside tied weights must be the same table. */
static int check_left_over(const struct lk__model_weights_in *w, const struct lk_layout *l, struct lk_err *err) {
    const struct lk__model_stored_tensor *table = find_tensor(w, l, l->tensors[l->embedding].name);
    for (size_t i = 0; i < w->count; i++)
        for (size_t j = 0; j < w->shards[i].content.count; j++) {
            const struct lk__model_stored_tensor *t = &w->shards[i].content.tensors[j];
            bool gpt2 = l->config.family == LK_GPT2;
            if (t->used || ends_with(t->name, gpt2 ? ".attn.masked_bias" : ".rotary_emb.inv_freq")) continue;
            if (gpt2 && ends_with(t->name, ".attn.bias")) continue;
            bool head = l->config.tied && strcmp(t->name, "lm_head.weight") == 0;
            if (head && t->type == table->type && t->bytes == table->bytes && !memcmp(t->data, table->data, t->bytes))
                continue;
            if (head)
                return lk_fail(err, LK_EINVAL, "%s: lm_head.weight is not the embedding, but config.json ties them",
                               w->shards[i].name);
            const char *other = used_in(w, t->name);
            if (other)
                return lk_fail(
                    err, LK_EINVAL,
                    "tensor %.80s stands in two files, %s and %s: leave it in the one that model.safetensors.index.json "
                    "names",
                    t->name, other, w->shards[i].name);
            return lk_fail(err, LK_EUNSUPPORTED, "%s: tensor %.80s is no part of the model that config.json describes",
                           w->shards[i].name, t->name);
        }
    return LK_OK;
}

/* --- Values ---------------------------------------------------------------------------------------------- */

struct putting {
    struct lk_blob_writer *writer;
    float *piece, *strip;
    const char *name;
    struct lk_err *err;
};

static int put_piece(struct putting *p, size_t count) {
    uint32_t worst = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &p->piece[i], sizeof bits);
        bits &= 0x7f800000u;
        worst = bits > worst ? bits : worst;
    }
    if (worst == 0x7f800000u)
        return lk_fail(p->err, LK_EINVAL, "tensor %s has an infinite value or NaN: the folder's weights are broken",
                       p->name);
    return lk_blob_write(p->writer, p->piece, count * sizeof *p->piece, p->err);
}

static int put_straight(struct putting *p, const struct lk__model_stored_tensor *t) {
    size_t each = lk__model_type_bytes(t->type), count = t->bytes / each;
    int code = LK_OK;
    for (size_t at = 0, n; at < count && !code; at += n) {
        n = count - at < PIECE_FLOATS ? count - at : PIECE_FLOATS;
        lk__model_to_f32(t->type, t->data + at * each, n, p->piece);
        code = put_piece(p, n);
    }
    return code;
}

/* Stored (in, out), wanted (out, in); `in` fits into a piece at least once. */
static int put_turned(struct putting *p, const struct lk__model_stored_tensor *t) {
    size_t each = lk__model_type_bytes(t->type), in = t->shape[0], out = t->shape[1];
    size_t most = PIECE_FLOATS / in < STRIP ? PIECE_FLOATS / in : STRIP;
    int code = LK_OK;
    for (size_t o = 0, n; o < out && !code; o += n) {
        n = out - o < most ? out - o : most;
        for (size_t i = 0; i < in; i++) {
            lk__model_to_f32(t->type, t->data + (i * out + o) * each, n, p->strip);
            for (size_t k = 0; k < n; k++) p->piece[k * in + i] = p->strip[k];
        }
        code = put_piece(p, n * in);
    }
    return code;
}

static int put_all(struct putting *p, const struct lk__model_weights_in *w, const struct lk_layout *l,
                   int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg) {
    uint64_t done = 0;
    int code = LK_OK;
    for (size_t i = 0; i < l->tensor_count && !code; i++) {
        const struct lk__model_stored_tensor *t = find_tensor(w, l, l->tensors[i].name);
        p->name = t->name;
        code = lk__model_hf_transposed(l, &l->tensors[i]) ? put_turned(p, t) : put_straight(p, t);
        done += l->tensors[i].count * sizeof(float);
        if (!code && progress && progress(arg, done, l->parameters * sizeof(float)))
            code = lk_fail(p->err, LK_ESTOPPED, "stopped; nothing was kept");
    }
    return code;
}

int lk__model_weights_in_put(struct lk__model_weights_in *w, const struct lk_layout *l, struct lk_store *store,
                             int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg, struct lk_root *out,
                             struct lk_err *err) {
    struct putting p = {.err = err};
    int code = LK_OK;
    for (size_t i = 0; i < l->tensor_count && !code; i++) {
        struct lk__model_stored_tensor *t = find_tensor(w, l, l->tensors[i].name);
        code = check_tensor(l, &l->tensors[i], t, err);
        if (!code && lk__model_hf_transposed(l, &l->tensors[i]) && t->shape[0] > PIECE_FLOATS)
            code = lk_fail(err, LK_EUNSUPPORTED, "tensor %s has more than %zu rows", t->name, PIECE_FLOATS);
        if (!code) t->used = true;
    }
    if (!code) code = check_left_over(w, l, err);
    if (code) return code;
    p.piece = lk_alloc(PIECE_FLOATS * sizeof *p.piece);
    p.strip = lk_alloc(STRIP * sizeof *p.strip);
    if (!p.piece || !p.strip) code = lk_fail(err, LK_ENOMEM, "no memory to convert weights");
    if (!code) code = lk_blob_create(store->blobs, &p.writer, err);
    if (!code) code = put_all(&p, w, l, progress, arg);
    if (code && p.writer)
        lk_blob_abort(p.writer);
    else if (!code)
        code = lk_blob_finish(p.writer, out, err);
    lk_free(p.piece);
    lk_free(p.strip);
    return code;
}
