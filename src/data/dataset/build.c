/* Files to a dataset: sources are measured, turned into tokens in rounds (rounds.c), and described in a manifest. */
#include "data/dataset/builder.h"
#include <string.h>

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "building a dataset: out of memory");
}

/* --- sizes ----------------------------------------------------------------------------------------------- */

static int count_bytes(void *arg, const void *data, size_t size, struct lk_err *err) {
    (void)data;
    (void)err;
    *(uint64_t *)arg += size;
    return 0;
}

/* The size of a packed source: what the file says, or, exactly, by unpacking it. */
static int measure_packed(struct lk__input *in, bool exact, struct lk_err *err) {
    in->size = 0;
    in->guessed = !exact && lk__source_guess(in->path, &in->size);
    return in->guessed ? 0 : lk__source_pour(in->path, count_bytes, &in->size, err);
}

/* Sizes of all inputs, as far as they are needed: a share of the whole wants the whole. */
static int measure(struct lk__builder *b, bool exact, struct lk_err *err) {
    b->total_known = true;
    b->total = 0;
    for (size_t i = 0; i < b->input_count; i++) {
        struct lk__input *in = &b->inputs[i];
        int code = in->map.data ? 0 : lk__source_check(in->path, &in->again, &in->size, err);
        if (code) return code;
        in->sized = true;
        in->guessed = false;
        if (!in->again) {
            if (!in->map.data && (code = lk__source_open(in->path, b->store->dir, &in->map, err))) return code;
            in->size = in->map.size;
        } else if (lk__source_packing(in->path) != LK__UNPACKED) {
            in->sized = b->options->holdout > 0;
            if (!in->sized) in->size = 0;
            if (in->sized && (code = measure_packed(in, exact, err))) return code;
            b->total_known &= in->sized;
        }
        if (in->size > (UINT64_MAX >> 12) - b->total) return lk_fail(err, LK_EINVAL, "%s: too large", lk__input_name(in));
        b->total += in->size;
    }
    /* Exact below 2^53 bytes; above it still the same everywhere. */
    b->cut = b->options->holdout > 0 ? b->total - (uint64_t)((double)b->total * b->options->holdout) : UINT64_MAX;
    return 0;
}

/* --- manifest -------------------------------------------------------------------------------------------- */

static int check_splits(const struct lk__builder *b, struct lk_err *err) {
    uint64_t train = lk__splitter_documents(b->splits[LK_TRAIN]), held_out = lk__splitter_documents(b->splits[LK_HELD_OUT]);
    if (!train && !held_out)
        return lk_fail(err, LK_EINVAL, "there is no text in the %zu source%s (%s%s)", b->input_count,
                       b->input_count == 1 ? "" : "s", lk__input_name(&b->inputs[0]), b->input_count > 1 ? ", ..." : "");
    if (!train || (b->options->holdout > 0 && !held_out))
        return lk_fail(
            err, LK_EINVAL,
            "a holdout of %g leaves no document %s (%llu in all, %llu bytes); give more text or change the holdout",
            b->options->holdout, train ? "held out" : "to train on", (unsigned long long)(train + held_out),
            (unsigned long long)b->total);
    return 0;
}

static json_t *describe_sources(const struct lk__builder *b) {
    json_t *list = json_array();
    for (size_t i = 0; i < b->input_count; i++) {
        char hex[LK_ROOT_HEX];
        json_t *o = json_object();
        bool bad = json_object_set_new(o, "name", json_string(lk__source_name(b->inputs[i].path))) != 0;
        bad |= json_object_set_new(o, "size", json_integer((json_int_t)b->inputs[i].size)) != 0;
        bad |= json_object_set_new(o, "root", json_string(lk_root_hex(&b->inputs[i].root, hex))) != 0;
        if (json_array_append_new(list, o) || bad) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static int write_manifest(struct lk__builder *b, const struct lk_root *tokenizer, struct lk_root *out, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *m = json_object(), *recipe = json_object(), *splits = json_object(), *part = NULL;
    bool bad = json_object_set_new(recipe, "holdout", lk_json_float(b->options->holdout)) != 0;
    bad |= json_object_set_new(recipe, "readers", json_integer(LK__READERS_RULES)) != 0;
    if (b->options->chat) bad |= json_object_set_new(recipe, "template", json_string(lk_chat_name(b->options->chat))) != 0;
    bad |= json_object_set_new(m, "recipe", recipe) != 0;
    bad |= json_object_set_new(m, "splits", splits) != 0;
    bad |= json_object_set_new(m, "format", json_string(LK__DATASET_FORMAT)) != 0;
    bad |= json_object_set_new(m, "tokenizer", json_string(lk_root_hex(tokenizer, hex))) != 0;
    bad |= json_object_set_new(m, "vocab", json_integer(lk_tokenizer_vocab(b->t))) != 0;
    bad |= json_object_set_new(m, "end", json_integer(lk_tokenizer_end(b->t))) != 0;
    bad |= json_object_set_new(m, "token_bytes", json_integer(lk_tokenizer_vocab(b->t) <= 65536 ? 2 : 4)) != 0;
    bad |= json_object_set_new(m, "index_every", json_integer(LK__INDEX_EVERY)) != 0;
    bad |= json_object_set_new(m, "empty_count", json_integer((json_int_t)b->empty)) != 0;
    bad |= json_object_set_new(m, "sources", describe_sources(b)) != 0;
    int code = bad ? no_memory(err) : 0;
    for (int i = 0; !code && i < 2; i++) {
        code = lk__splitter_finish(b->splits[i], &part, err);
        if (!code && json_object_set_new(splits, lk__split_names[i], part)) code = no_memory(err);
    }
    if (!code) code = lk_manifest_put(b->store, m, out, err);
    json_decref(m);
    return code;
}

/* --- the whole ------------------------------------------------------------------------------------------- */

static int check_arguments(struct lk__builder *b, struct lk_err *err) {
    double h = b->options->holdout;
    if (!(h >= 0 && h <= 0.5)) return lk_fail(err, LK_EINVAL, "a holdout of %g; it must be from 0 to 0.5", h);
    if (!b->input_count) return lk_fail(err, LK_EINVAL, "no source to build a dataset from");
    if (b->input_count >= UINT32_MAX) return lk_fail(err, LK_EINVAL, "%zu sources are too many", b->input_count);
    for (size_t i = 0, inputs = 0; i < b->input_count; i++) {
        inputs += !strcmp(b->inputs[i].path, "-");
        if (inputs > 1) return lk_fail(err, LK_EINVAL, "standard input (-) can be a source only once");
    }
    if (lk_tokenizer_end(b->t) == LK__NO_ID)
        return lk_fail(err, LK_EINVAL, "the tokenizer%s%s has no token %s, which stands between documents",
                       b->options->tokenizer_name ? " " : "", b->options->tokenizer_name ? b->options->tokenizer_name : "",
                       LK_TOKEN_END);
    return b->options->chat ? lk__chat_open(b->t, b->options->chat, &b->chat, err) : 0;
}

static void splits_free(struct lk__builder *b) {
    for (int i = 0; i < 2; i++) {
        lk__splitter_free(b->splits[i]);
        b->splits[i] = NULL;
    }
}

/* *wrong: not all were added, because a source's size is not what was guessed. */
static int add_inputs(struct lk__builder *b, bool exact, bool *wrong, struct lk_err *err) {
    uint64_t begin = 0;
    *wrong = false;
    b->done = b->empty = 0;
    int code = measure(b, exact, err);
    for (int i = 0; !code && i < 2; i++) code = lk__splitter_open(b->store, b->t, &b->splits[i], err);
    for (size_t i = 0; !code && !*wrong && i < b->input_count; i++) {
        code = lk__builder_add(b, i, begin, wrong, err);
        begin += b->inputs[i].size;
    }
    if (!b->total_known) b->total = begin;
    return code;
}

static int build(struct lk__builder *b, const struct lk_root *tokenizer, struct lk_root *out, struct lk_err *err) {
    bool wrong;
    b->threads = lk_calloc((size_t)lk_pool_threads(b->pool), sizeof *b->threads);
    if (!b->threads) return no_memory(err);
    int code = add_inputs(b, false, &wrong, err);
    if (!code && wrong) {
        lk__builder_release_source(b);
        splits_free(b);
        code = add_inputs(b, true, &wrong, err);
    }
    if (!code) code = check_splits(b, err);
    if (!code) code = write_manifest(b, tokenizer, out, err);
    return code;
}

int lk_dataset_build(struct lk_store *store, const struct lk_dataset_source *sources, size_t count,
                     const struct lk_root *tokenizer, const struct lk_dataset_options *options, struct lk_pool *pool,
                     struct lk_root *out, struct lk_err *err) {
    struct lk__builder *b = lk_calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    *b = (struct lk__builder){.store = store, .options = options, .pool = pool, .input_count = count};
    b->now = &b->windows[0];
    b->before = &b->windows[1];
    b->inputs = lk_calloc(count + 1, sizeof *b->inputs);
    int code = b->inputs ? lk_tokenizer_load(store, tokenizer, &b->t, err) : no_memory(err);
    for (size_t i = 0; b->inputs && i < count; i++) b->inputs[i].path = sources[i].path;
    if (!code) code = check_arguments(b, err);
    if (!code) code = build(b, tokenizer, out, err);
    if (b->inputs) lk__builder_release_source(b);
    for (size_t i = 0; i < 2 * LK__WINDOW; i++) lk__job_release(&b->windows[i / LK__WINDOW].jobs[i % LK__WINDOW]);
    for (int i = 0; b->threads && i < lk_pool_threads(pool); i++) lk__job_thread_release(&b->threads[i]);
    for (size_t i = 0; b->inputs && i < count; i++)
        if (b->inputs[i].map.data) lk_map_close(&b->inputs[i].map);
    splits_free(b);
    lk_buf_release(&b->text);
    lk_buf_release(&b->next);
    lk_tokenizer_free(b->t);
    lk_free(b->threads);
    lk_free(b->inputs);
    lk_free(b);
    return code;
}
