/* A model of the store becomes a Hugging Face folder, or llm.c's checkpoint. The folder is written beside its place and
 * renamed there when it is whole and durable. */
#include "base/syscalls.h"
#include "huggingface.h"
#include "lockstep/base/file.h"
#include "lockstep/data/tokenizer.h"
#include "safetensors.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_FLOATS ((size_t)1 << 18)

struct output {
    const struct lk_model *model;
    enum lk__stored_type type;
    const char *path; /* for messages */
    int fd;
    float *turned;
    unsigned char *bytes;
    struct lk_err *err;
};

static const enum lk__stored_type stored[] = {[LK_F32] = LK__F32, [LK_BF16] = LK__BF16, [LK_F16] = LK__F16};

/* --- Tensors --------------------------------------------------------------------------------------------- */

static int write_bytes(struct output *o, const void *data, size_t size) {
    return lk__write_all(o->fd, data, size) ? lk_fail_errno(o->err, "cannot write %s", o->path) : LK_OK;
}

static int write_values(struct output *o, const struct lk_tensor *t, const float *x, size_t count) {
    int code = LK_OK;
    for (size_t at = 0, n; at < count && !code; at += n) {
        n = count - at < PIECE_FLOATS ? count - at : PIECE_FLOATS;
        if (!lk__from_f32(o->type, x + at, n, o->bytes))
            return lk_fail(o->err, LK_EINVAL, "tensor %s has a value too large for %s: export it as f32%s", t->name,
                           lk__type_name(o->type), o->type == LK__F16 ? " or bf16" : "");
        code = write_bytes(o, o->bytes, n * lk__type_bytes(o->type));
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
        uint64_t size = t->count * lk__type_bytes(o->type);
        bool turned = lk__hf_transposed(l, t);
        bad = lk_buf_printf(&text, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[%u", (int)i == l->head ? "" : prefix, t->name,
                            lk__type_name(o->type), t->shape[turned ? 1 : 0]);
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

static int write_safetensors(const struct lk_model *m, enum lk_dtype dtype, const char *path, struct lk_err *err) {
    struct output o = {.model = m, .type = stored[dtype], .path = path, .fd = -1, .err = err};
    int code = open_output(&o);
    if (!code) code = write_header(&o);
    for (size_t i = 0; i < m->layout.tensor_count && !code; i++)
        code = write_tensor(&o, &m->layout.tensors[i], lk__hf_transposed(&m->layout, &m->layout.tensors[i]));
    return close_output(&o, code);
}

/* --- The other files ------------------------------------------------------------------------------------- */

/* Floating-point numbers with as few digits as give them back. NULL: no memory. */
static char *dump(const json_t *v) {
    for (size_t digits = 6; digits <= 17; digits++) {
        char *text = json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(back, v);
        json_decref(back);
        if (same) return text;
        free(text);
    }
    return NULL;
}

/* Takes the value's reference. */
static int put_json(const char *dir, const char *name, json_t *v, struct lk_err *err) {
    char *text = v ? dump(v) : NULL, *path = lk_asprintf("%s/%s", dir, name);
    int code = text && path ? lk_file_write_atomic(path, text, strlen(text), err)
                            : lk_fail(err, LK_ENOMEM, "no memory to write %s", name);
    json_decref(v);
    free(text);
    lk_free(path);
    return code;
}

static int put_kept(struct lk_store *store, const char *dir, const char *name, const json_t *hex, struct lk_err *err) {
    struct lk_root root;
    struct lk_blob blob;
    if (!json_is_string(hex) || !lk_root_parse(json_string_value(hex), &root) || strchr(name, '/') || name[0] == '.')
        return lk_fail(err, LK_ECORRUPT, "the model's manifest: files.%.60s is no root of a file", name);
    int code = lk_blob_open(store->blobs, &root, true, &blob, err);
    if (code) return lk_fail_prefix(err, code, "the model's %s", name);
    char *path = lk_asprintf("%s/%s", dir, name);
    code = path ? lk_file_write_atomic(path, blob.data, blob.size, err)
                : lk_fail(err, LK_ENOMEM, "no memory to write %s", name);
    lk_free(path);
    lk_blob_close(&blob);
    return code;
}

/* tokenizer.json and tokenizer_config.json of a tokenizer that came from no folder. */
static int put_tokenizer(struct lk_store *store, const struct lk_model *m, const char *dir, struct lk_err *err) {
    struct lk_tokenizer *t = NULL;
    struct lk_buf text = LK_BUF_INIT;
    char *path = lk_asprintf("%s/tokenizer.json", dir);
    int code = path ? lk_tokenizer_load(store, &m->tokenizer_root, &t, err)
                    : lk_fail(err, LK_ENOMEM, "no memory to write %s", dir);
    if (!code) code = lk_tokenizer_export(t, &text, err);
    if (!code) code = lk_file_write_atomic(path, text.data, text.size, err);
    if (!code) {
        struct lk_bytes end = lk_tokenizer_bytes(t, lk_tokenizer_end(t));
        json_t *c = json_pack("{s:s, s:b, s:i}", "tokenizer_class", "PreTrainedTokenizerFast",
                              "clean_up_tokenization_spaces", 0, "model_max_length", (int)m->layout.config.context);
        bool said = end.size && lk_tokenizer_is_special(t, lk_tokenizer_end(t));
        if (c && said &&
            (json_object_set_new(c, "eos_token", json_stringn(end.data, end.size)) ||
             json_object_set_new(c, "bos_token", json_stringn(end.data, end.size)))) {
            json_decref(c);
            c = NULL;
        }
        code = put_json(dir, "tokenizer_config.json", c, err);
    }
    lk_tokenizer_free(t);
    lk_buf_release(&text);
    lk_free(path);
    return code;
}

/* A run of our own has no ids from a folder: its texts begin and end with the tokenizer's end token. */
static int add_ids(struct lk_store *store, const struct lk_model *from, struct lk_model *out, struct lk_err *err) {
    struct lk_tokenizer *t = NULL;
    *out = *from;
    if (from->stop_count || !from->has_tokenizer) return LK_OK;
    int code = lk_tokenizer_load(store, &from->tokenizer_root, &t, err);
    if (!code && lk_tokenizer_end(t) != UINT32_MAX) {
        out->stops[out->stop_count++] = lk_tokenizer_end(t);
        if (out->begin == UINT32_MAX && !json_is_string(json_object_get(from->manifest, "type")))
            out->begin = out->stops[0];
    }
    lk_tokenizer_free(t);
    return code;
}

static int put_all(struct lk_store *store, const struct lk_model *model, enum lk_dtype dtype, const char *dir,
                   struct lk_err *err) {
    struct lk_model with_ids, *m = &with_ids; /* its parts stay the model's */
    int code = add_ids(store, model, &with_ids, err);
    if (code) return code;
    const char *type = lk__hf_type(&m->layout.config, json_string_value(json_object_get(m->manifest, "type"))), *name;
    json_t *files = json_object_get(m->manifest, "files"), *hex;
    if (!type)
        return lk_fail(
            err, LK_EUNSUPPORTED,
            "no model of transformers computes this configuration: Qwen2 has qkv_bias, Qwen3 qk_norm, none both");
    code = put_json(dir, "config.json", lk__hf_config_write(m, type, dtype), err);
    json_object_foreach(files, name, hex) {
        if (!code) code = put_kept(store, dir, name, hex, err);
    }
    if (!code && !json_object_get(files, "generation_config.json")) {
        json_t *stops = json_array(), *c = stops ? json_pack("{s:o}", "eos_token_id", stops) : NULL;
        for (size_t i = 0; i < m->stop_count && c; i++)
            if (json_array_append_new(stops, json_integer(m->stops[i]))) {
                json_decref(c);
                c = NULL;
            }
        if (c && !m->stop_count) json_object_clear(c);
        code = put_json(dir, "generation_config.json", c, err);
    }
    if (!code && m->has_tokenizer && !json_object_get(files, "tokenizer.json")) code = put_tokenizer(store, m, dir, err);
    char *path = lk_asprintf("%s/model.safetensors", dir);
    if (!code) code = path ? write_safetensors(m, dtype, path, err) : lk_fail(err, LK_ENOMEM, "no memory to write %s", dir);
    lk_free(path);
    return code ? code : lk_dir_sync(dir, err);
}

/* Without slashes at its end. */
static char *plain_path(const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return n ? lk_strndup(dir, n) : NULL;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == path ? lk_strdup("/") : slash ? lk_strndup(path, (size_t)(slash - path)) : lk_strdup(".");
}

/* Gives what was built its name, durably; on failure what was built is removed. code: of the building. */
static int finish(const char *building, const char *place, int code, struct lk_err *err) {
    char *parent = parent_of(place);
    if (!code && !parent) code = lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    if (!code && lk__rename(building, place)) code = lk_fail_errno(err, "cannot rename %s to %s", building, place);
    if (code)
        lk_dir_remove(building, NULL);
    else
        code = lk_dir_sync(parent, err);
    lk_free(parent);
    return code;
}

static bool is_empty_folder(const char *path) {
    DIR *d = opendir(path);
    int entries = 0;
    while (d && readdir(d)) entries++;
    if (d) closedir(d);
    return d && entries == 2; /* . and .. */
}

/* mkdtemp makes a folder for its owner alone; others may read an export as the umask says. */
static int open_to_all(const char *path) {
    mode_t mask = umask(0);
    umask(mask);
    return chmod(path, 0777 & ~mask);
}

/* A new folder beside the place, nobody else's; NULL on failure. */
static char *make_building(const char *place, struct lk_err *err) {
    char *parent = parent_of(place), *building = NULL;
    if (!parent) lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    if (parent && lk_dir_make(parent, err) == LK_OK && !(building = lk_asprintf("%s.tmp.XXXXXX", place)))
        lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    lk_free(parent);
    if (!building || (mkdtemp(building) && !open_to_all(building))) return building;
    lk_fail_errno(err, "cannot make the folder %s", building);
    lk_free(building);
    return NULL;
}

int lk_model_export(struct lk_store *store, const struct lk_model *m, enum lk_dtype dtype, const char *dir,
                    struct lk_err *err) {
    struct lk_err own;
    LK_ASSERT(m->weights);
    if (!err) err = &own;
    char *place = plain_path(dir);
    const char *last = place ? strrchr(place, '/') : NULL;
    last = last ? last + 1 : place;
    if (!place || !*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        lk_free(place);
        return lk_fail(err, LK_EINVAL, "\"%s\" is no name of a new folder: say what it shall be called", dir);
    }
    int code = LK_OK;
    char *building = NULL;
    if (lk_file_exists(place) && !is_empty_folder(place))
        code = lk_fail(err, LK_EEXISTS, "%s exists and is no empty folder: remove it, or export to another one", place);
    else if (!(building = make_building(place, err)))
        code = err->code;
    if (building) code = finish(building, place, put_all(store, m, dtype, building, err), err);
    lk_free(place);
    lk_free(building);
    return code;
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
    for (size_t left = (size_t)(padded - c->vocab) * c->width * lk__type_bytes(o->type), n; left && !code; left -= n) {
        n = left < PIECE_FLOATS ? left : PIECE_FLOATS;
        code = write_bytes(o, o->bytes, n);
    }
    if (!code) code = write_tensor(o, &l->tensors[l->positions], false);
    if (!code) code = write_kinds(o);
    if (!code) code = write_tensor(o, &l->tensors[l->norm], false);
    return code ? code : write_tensor(o, &l->tensors[l->norm_bias], false);
}

int lk_model_export_llmc(const struct lk_model *m, enum lk_dtype dtype, const char *path, struct lk_err *err) {
    const struct lk_model_config *c = &m->layout.config;
    LK_ASSERT(m->weights);
    if (c->family != LK_GPT2 || !c->tied || c->ffn != 4 * c->width)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "llm.c's checkpoint holds GPT-2 only, with tied weights and an inner width of 4 times the width");
    if (dtype == LK_F16) return lk_fail(err, LK_EUNSUPPORTED, "llm.c's checkpoint holds f32 or bf16, no f16");
    if (lk_file_exists(path)) return lk_fail(err, LK_EEXISTS, "%s exists: remove it, or export to another file", path);
    char *building = lk_asprintf("%s.tmp.%ld", path, (long)getpid());
    struct output o = {.model = m, .type = stored[dtype], .path = building, .fd = -1, .err = err};
    if (!building) return lk_fail(err, LK_ENOMEM, "no memory to write %s", path);
    int code = open_output(&o);
    if (!code) code = write_llmc(&o);
    code = close_output(&o, code);
    code = finish(building, path, code, err);
    lk_free(building);
    return code;
}
