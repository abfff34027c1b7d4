/* A state's roots, and its way from blobs: whole, or one rank's slices. */
#include "state.h"

#include <stdio.h>
#include <string.h>

int lk_array_root(const struct lk_layout *layout, const float *array, struct lk_root *out, struct lk_err *err) {
    struct lk_hasher *h = lk_hasher_create();
    if (!h) return lk_fail(err, LK_ENOMEM, "no memory to hash the weights");
    for (size_t i = 0; i < layout->tensor_count; i++)
        lk_hasher_update(h, array + layout->tensors[i].offset, layout->tensors[i].count * sizeof(float));
    lk_hasher_final(h, out);
    lk_hasher_free(h);
    return LK_OK;
}

struct loading {
    const struct lk_state *state;
    const struct lk__train_region *region;
    const unsigned char *data; /* all tensors, packed */
    float *array;
    bool local; /* array holds this rank's slices only */
};
static void load_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    const struct loading *l = arg;
    const struct lk__train_shards *s = l->state->shards;
    size_t packed = lk__train_shards_packed(l->state->layout, tensor, offset);
    (void)block;
    size_t to = l->local ? l->region->local + (offset - l->region->cuts[s->rank]) : offset;
    memcpy(l->array + to, l->data + packed * sizeof(float), count * sizeof(float));
}

/* The packed tensors into an array: all of them, or this rank's slices. */
static void unpack(const struct lk_state *s, const unsigned char *data, bool slices, bool local, float *array) {
    struct loading l = {.state = s, .data = data, .array = array, .local = local};
    if (!slices) {
        lk__train_shards_pieces(s->layout, 0, s->layout->floats, load_piece, &l);
        return;
    }
    for (uint32_t i = 0; i < s->shards->region_count; i++) {
        l.region = &s->shards->regions[i];
        lk__train_shards_pieces(s->layout, l.region->cuts[s->shards->rank], l.region->cuts[s->shards->rank + 1], load_piece,
                                &l);
    }
}

/* One array, whole and of the right size, from its blob. what: for messages. */
static int load_blob(struct lk_store *store, const struct lk_root *root, const char *what, const struct lk_state *s,
                     float *array, struct lk_err *err) {
    struct lk_blob blob;
    int code = lk_blob_open(store->blobs, root, true, &blob, err);
    if (code) return lk_fail_prefix(err, code, "%s", what);
    size_t found = blob.size, wanted = s->layout->parameters * sizeof(float);
    if (found != wanted) {
        lk_blob_close(&blob);
        return lk_fail(err, LK_ECORRUPT, "%s: %zu bytes, the model wants %zu", what, found, wanted);
    }
    bool moments = array != s->weights;
    unpack(s, blob.data, s->shards && (moments || s->weights_shared), s->shards && moments, array);
    lk_blob_close(&blob);
    return LK_OK;
}

static int load_array(struct lk_store *store, const json_t *manifest, const char *key, const struct lk_state *s,
                      float *array, struct lk_err *err) {
    const char *hex;
    struct lk_root root;
    char what[64];
    int code = lk_json_get_string(manifest, key, "the checkpoint's manifest", &hex, err);
    if (code) return code;
    if (!lk_root_parse(hex, &root)) return lk_fail(err, LK_ECORRUPT, "the checkpoint's manifest: %s is not a root", key);
    snprintf(what, sizeof what, "the checkpoint's %s", key);
    return load_blob(store, &root, what, s, array, err);
}

int lk__train_weights_load(struct lk_store *store, const struct lk_root *root, const struct lk_state *s,
                           struct lk_err *err) {
    return load_blob(store, root, "the weights that the run begins with", s, s->weights, err);
}

int lk_checkpoint_load(struct lk_store *store, const struct lk_root *root, struct lk_state *s, struct lk_err *err) {
    json_t *manifest = NULL;
    int code = lk_manifest_get(store, root, "checkpoint", &manifest, err);
    if (!code) code = lk_json_get_u64(manifest, "updates", "the checkpoint's manifest", &s->updates, err);
    if (!code) code = lk_json_get_u64(manifest, "samples", "the checkpoint's manifest", &s->samples, err);
    if (!code) code = load_array(store, manifest, "weights", s, s->weights, err);
    if (!code && s->moments1) code = load_array(store, manifest, "moments1", s, s->moments1, err);
    if (!code && s->moments2) code = load_array(store, manifest, "moments2", s, s->moments2, err);
    json_decref(manifest);
    return code;
}

json_t *lk__train_state_manifest(const struct lk_state *s, const struct lk_root *weights, const struct lk_root *moments1,
                                 const struct lk_root *moments2) {
    char w[LK_ROOT_HEX], m1[LK_ROOT_HEX], m2[LK_ROOT_HEX];
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "format", "checkpoint-0", "weights", lk_root_hex(weights, w),
                     "moments1", lk_root_hex(moments1, m1), "moments2", lk_root_hex(moments2, m2), "updates",
                     (json_int_t)s->updates, "samples", (json_int_t)s->samples);
}

int lk__train_state_roots(const struct lk_state *s, struct lk_root *weights, struct lk_root *state, struct lk_err *err) {
    LK_ASSERT(!s->shards || s->shards->ranks == 1); /* then its slices are the whole, in the layout's order */
    struct lk_root m1, m2;
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_array_root(s->layout, s->weights, weights, err);
    if (!code) code = lk_array_root(s->layout, s->moments1, &m1, err);
    if (!code) code = lk_array_root(s->layout, s->moments2, &m2, err);
    if (code) return code;
    json_t *manifest = lk__train_state_manifest(s, weights, &m1, &m2);
    code = manifest ? lk_json_canonical(manifest, &text, err) : lk_fail(err, LK_ENOMEM, "no memory for a manifest");
    if (!code) lk_root_of(text.data, text.size, state);
    json_decref(manifest);
    lk_buf_release(&text);
    return code;
}
