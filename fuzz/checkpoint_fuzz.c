/* clang -fsanitize=fuzzer,address: a checkpoint whose manifest is hostile, with arrays of right and wrong sizes. It is
 * refused with a message, or loads; what loads has the weights that its manifest names.
 * The input: a byte of choices; then the manifest itself, or pieces of one that looks right. */
#include "lockstep/train/train.h"
#include "store_help.h"

static struct lk_store *store;
static struct lk_layout layout;

static void begin(void) {
    struct lk_model_config c = {.family = LK_LLAMA,
                                .layers = 1,
                                .width = 4,
                                .heads = 1,
                                .kv_heads = 1,
                                .head_dim = 4,
                                .ffn = 4,
                                .context = 4,
                                .vocab = 4,
                                .tied = true,
                                .norm_epsilon = 1e-5,
                                .rope_theta = 1e4,
                                .init_std = 0.02};
    struct lk_err err = {0};
    store = fuzz_store();
    if (lk_layout_init(&layout, &c, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

/* An array: from the input, repeated to the right size, or of a size that the input says. */
static json_t *array(struct fuzz_input *in, struct fuzz_blobs *made) {
    static uint8_t bytes[1 << 16];
    char hex[LK_ROOT_HEX];
    uint64_t kind = fuzz_number(in, 1), size = layout.parameters * sizeof(float);
    if (kind == 0) return json_null();
    if (kind == 1) return json_integer((json_int_t)fuzz_number(in, 8));
    if (kind == 2) { /* a root of nothing */
        struct lk_root root = {{(uint8_t)fuzz_number(in, 1)}};
        return json_string(lk_root_hex(&root, hex));
    }
    if (kind == 3)
        return json_stringn((const char *)in->data, strnlen((const char *)in->data, in->size < 70 ? in->size : 70));
    if (kind & 1) size = fuzz_number(in, 2);
    uint8_t value = (uint8_t)fuzz_number(in, 1);
    memset(bytes, value, size);
    struct lk_root root = fuzz_put(store, bytes, size, made);
    return json_string(lk_root_hex(&root, hex));
}

static json_t *manifest(struct fuzz_input *in, struct fuzz_blobs *made) {
    static const char *const keys[] = {"weights", "moments1", "moments2"};
    json_t *m = json_pack("{s:s, s:I, s:I}", "format", "checkpoint-0", "updates", (json_int_t)fuzz_number(in, 8), "samples",
                          (json_int_t)fuzz_number(in, 8));
    for (int i = 0; i < 3; i++) json_object_set_new(m, keys[i], array(in, made));
    return m;
}

static void load(const struct lk_root *root, bool moments) {
    struct lk_state state;
    struct lk_root weights;
    struct lk_err err = {0};
    if (lk_state_init(&state, &layout, moments, &err)) abort();
    if (lk_checkpoint_load(store, root, &state, &err)) {
        if (!err.message[0]) abort();
    } else {
        json_t *m;
        char hex[LK_ROOT_HEX];
        if (lk_array_root(&layout, state.weights, &weights, &err) || lk_manifest_get(store, root, "fuzz", &m, &err))
            abort();
        if (strcasecmp(json_string_value(json_object_get(m, "weights")), lk_root_hex(&weights, hex)) != 0) abort();
        json_decref(m);
    }
    lk_state_release(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {data, size};
    struct fuzz_blobs made = {.count = 0};
    struct lk_root root;
    struct lk_err err = {0};
    struct lk_model model;
    if (!store) begin();
    unsigned choices = (unsigned)fuzz_number(&in, 1);
    struct lk_buf text = LK_BUF_INIT;
    json_t *m = choices & 1 ? NULL : manifest(&in, &made);
    if (m && lk_json_canonical(m, &text, &err) == 0)
        root = fuzz_put(store, text.data, text.size, &made);
    else
        root = fuzz_put(store, in.data, in.size, &made);
    json_decref(m);
    lk_buf_release(&text);
    load(&root, choices & 2);
    if (lk_model_open_root(store, &root, true, &model, &err) == 0) lk_model_close(&model); /* or take it for a model */
    fuzz_delete(store, &made);
    return 0;
}
