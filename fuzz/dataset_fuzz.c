/* clang -fsanitize=fuzzer,address: a dataset whose manifest and parts are hostile, yet hash as they should (a store's blobs
 * are not trusted because they are whole). It is refused, or every way of reading it stays inside its parts.
 * The input: a byte of choices; then either the manifest itself, or changes to a dataset that is good: of bytes, sizes and
 * counts, until there are no more. */
#include "lockstep/base/progress.h"
#include "lockstep/data/dataset.h"
#include "store_help.h"

#define PARTS 5
static struct lk_store *store;
static json_t *good; /* its manifest */
static const char *const splits[] = {"train", "held_out"};
static const char *const parts[PARTS] = {"tokens", "ends", "documents", "index", "mask"};
static const char *const counts[] = {"tokens_count", "bytes_count", "documents_count", "masked_count"};
static const char *const keys[] = {"vocab", "end", "token_bytes", "index_every"};

static void begin(void) {
    static const char lines[] =
        "{\"text\": \"the word and the words\"}\n{\"prompt\": \"the sword\", \"response\": \" of\"}\n"
        "{\"text\": \"words\"}\n{\"prompt\": \"a\", \"response\": \" word of the words\"}\n";
    struct lk_bytes text = lk_bytes(lines, sizeof lines - 1);
    struct lk_dataset_options o = {.holdout = 0.5, .tokenizer_name = "t"};
    struct lk_dataset_source source;
    struct lk_tokenizer *t;
    struct lk_root tokenizer, root;
    char path[96];
    lk_log_quiet(true);
    store = fuzz_store();
    snprintf(path, sizeof path, "%s/in.jsonl", fuzz_dir);
    source.path = path;
    if (lk_tokenizer_train(&text, 1, 261, NULL, NULL, NULL, &t, NULL) || lk_tokenizer_save(store, t, &tokenizer, NULL))
        abort();
    if (lk_file_write_atomic(path, text.data, text.size, NULL)) abort();
    if (lk_dataset_build(store, &source, 1, &tokenizer, &o, NULL, &root, NULL) || lk_dataset_verify(store, &root, NULL))
        abort();
    if (lk_manifest_get(store, &root, "good", &good, NULL)) abort();
    lk_tokenizer_free(t);
}

/* A part of the good dataset, changed as the input says, under its new root. */
static void change_part(json_t *split, const char *name, struct fuzz_input *in, struct fuzz_blobs *made) {
    static uint8_t bytes[1 << 12];
    char hex[LK_ROOT_HEX];
    struct lk_root root;
    struct lk_blob blob;
    const char *old = json_string_value(json_object_get(split, name));
    size_t size = 0;
    memset(bytes, 0, sizeof bytes);
    if (old && lk_root_parse(old, &root) && lk_blob_open(store->blobs, &root, false, &blob, NULL) == 0) {
        size = blob.size < sizeof bytes - 256 ? blob.size : sizeof bytes - 256;
        memcpy(bytes, blob.data, size);
        lk_blob_close(&blob);
    }
    for (uint64_t changes = fuzz_number(in, 1); changes > 0 && in->size; changes--) {
        size_t at = (size_t)fuzz_number(in, 2) % (size + 1);
        bytes[at] = (uint8_t)fuzz_number(in, 1);
    }
    if (fuzz_number(in, 1) & 1) size = (size_t)fuzz_number(in, 2) % sizeof bytes; /* shorter or longer, by zeros */
    root = fuzz_put(store, bytes, size, made);
    json_object_set_new(split, name, json_string(lk_root_hex(&root, hex)));
}

static json_t *manifest(struct fuzz_input *in, struct fuzz_blobs *made) {
    json_t *m = json_deep_copy(good);
    while (in->size && made->count < 12) {
        uint64_t what = fuzz_number(in, 1);
        json_t *split = json_object_get(json_object_get(m, "splits"), splits[what & 1]);
        switch (what >> 1 & 3) {
        case 0:
        case 1:
            change_part(split, parts[(what >> 3) % PARTS], in, made);
            break;
        case 2:
            json_object_set_new(split, counts[what >> 3 & 3],
                                json_integer((json_int_t)fuzz_number(in, what & 128 ? 8 : 1)));
            break;
        default:
            json_object_set_new(m, keys[what >> 3 & 3], json_integer((json_int_t)fuzz_number(in, what & 128 ? 8 : 2)));
        }
    }
    return m;
}

static void read_split(const struct lk_dataset *d, enum lk_split s) {
    uint32_t inputs[8], targets[8], starts[8];
    uint64_t from, to, documents = lk_dataset_documents(d, s), tokens = lk_dataset_tokens(d, s);
    struct lk_document doc;
    for (uint64_t n = 0; n < lk_dataset_sequences(d, s, 8); n++) lk_dataset_sequence(d, s, n, 8, inputs, targets, starts);
    for (uint64_t i = 0; i < documents; i++)
        if (lk_dataset_document(d, s, i, &doc, NULL) == 0)
            lk_dataset_byte_range(d, s, i, doc.token_begin, doc.token_end, &from, &to, NULL);
    for (uint64_t i = 0; i < tokens; i += 7) lk_dataset_document_at(d, s, i);
}

static void read_dataset(const struct lk_root *root, bool verify, unsigned format) {
    struct lk_dataset *d;
    char out[80];
    struct lk_err err = {0};
    struct lk_dataset_export_options o = {.format = (enum lk_dataset_format)(format % 3), .without_masks = true};
    if (lk_dataset_open(store, root, verify, &d, &err)) {
        if (d || !err.message[0]) abort();
        return;
    }
    read_split(d, LK_TRAIN);
    read_split(d, LK_HELD_OUT);
    snprintf(out, sizeof out, "%s/out", fuzz_dir);
    if (verify) lk_dataset_export(d, out, "x", &o, &err);
    lk_dir_remove(out, NULL);
    lk_dataset_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {data, size};
    struct fuzz_blobs made = {.count = 0};
    struct lk_root root;
    struct lk_err err = {0};
    if (!store) begin();
    unsigned choices = (unsigned)fuzz_number(&in, 1);
    if (choices & 1)
        root = fuzz_put(store, in.data, in.size, &made);
    else {
        json_t *m = manifest(&in, &made);
        struct lk_buf text = LK_BUF_INIT;
        if (!m || lk_json_canonical(m, &text, &err)) abort(); /* (numbers and strings only) */
        root = fuzz_put(store, text.data, text.size, &made);
        lk_buf_release(&text);
        json_decref(m);
    }
    read_dataset(&root, choices & 4, choices >> 3);
    lk_dataset_verify(store, &root, &err);
    fuzz_delete(store, &made);
    return 0;
}
