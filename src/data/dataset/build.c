/* Files to a dataset: sources are measured, turned into tokens in rounds (rounds.c), and described in a manifest. */
#include "data/dataset/builder.h"
#include "data/tokenizer/pretoken.h"
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
static int measure_packed(struct lk__dataset_input *in, bool exact, struct lk_err *err) {
    in->size = 0;
    in->guessed = !exact && lk__data_source_guess(&in->source, &in->size);
    return in->guessed ? 0 : lk__data_source_pour(&in->source, count_bytes, &in->size, err);
}

/* Looks at all sources before any work begins. */
static int look(struct lk__dataset_builder *b, struct lk_err *err) {
    for (size_t i = 0; i < b->input_count; i++) {
        struct lk__dataset_input *in = &b->inputs[i];
        int code = lk__data_source_look(in->path, b->store->dir, &b->options->source, &in->source, err);
        if (code) return code;
        in->looked = true;
    }
    return 0;
}

/* Sizes of all inputs, as far as they are needed: a share of the whole wants the whole. */
static int measure(struct lk__dataset_builder *b, bool exact, struct lk_err *err) {
    bool tail = b->options->holdout > 0 && !b->rules.holdout.by_document;
    b->total_known = true;
    b->total = 0;
    for (size_t i = 0; i < b->input_count; i++) {
        struct lk__dataset_input *in = &b->inputs[i];
        int code = 0;
        in->sized = in->source.packing == LK__UNPACKED || tail;
        in->guessed = false;
        in->size = 0;
        if (in->source.packing == LK__UNPACKED)
            in->size = in->source.packed_size < in->source.skip ? 0 : in->source.packed_size - in->source.skip;
        else if (tail)
            code = measure_packed(in, exact, err);
        if (code) return code;
        b->total_known &= in->sized;
        if (in->size > (UINT64_MAX >> 12) - b->total)
            return lk_fail(err, LK_EINVAL, "%s: too large", lk__dataset_input_name(in));
        b->total += in->size;
    }
    /* Exact below 2^53 bytes; above it rounded, in the same way on every machine. */
    b->cut = tail ? b->total - (uint64_t)((double)b->total * b->options->holdout) : UINT64_MAX;
    return 0;
}

/* --- held-out documents ------------------------------------------------------------------------------------ */

/* One text alone gives its end under either rule: there is no other document to choose. */
static void choose_holdout(struct lk__dataset_builder *b) {
    const struct lk_dataset_options *o = b->options;
    bool alone = b->input_count == 1 && b->inputs[0].source.kind == LK__PLAIN && !o->source.split_at.size;
    double share = o->holdout * 18446744073709551616.0;
    b->rules.holdout =
        (struct lk__dataset_holdout){.by_document = o->holdout_by == LK_HOLDOUT_DOCUMENT && o->holdout > 0 && !alone,
                                     .seed = o->holdout_seed,
                                     .none = share < 1,
                                     .most = share < 1 ? 0 : (uint64_t)share - 1};
}

/* Few documents: if none was held out, the one of the least number is; if all were, the one of the greatest is not. Returns
 * whether that changes anything. */
static bool mend_holdout(struct lk__dataset_builder *b) {
    struct lk__dataset_holdout *h = &b->rules.holdout;
    uint64_t train = lk__dataset_splitter_documents(b->splits[LK_TRAIN]),
             held_out = lk__dataset_splitter_documents(b->splits[LK_HELD_OUT]);
    if (!h->by_document || train + held_out < 2 || (train && held_out) || b->least == b->greatest) return false;
    h->none = false;
    h->most = train ? b->least : b->greatest - 1;
    return true;
}

/* --- manifest -------------------------------------------------------------------------------------------- */

static int check_splits(const struct lk__dataset_builder *b, struct lk_err *err) {
    uint64_t train = lk__dataset_splitter_documents(b->splits[LK_TRAIN]),
             held_out = lk__dataset_splitter_documents(b->splits[LK_HELD_OUT]);
    if (!train && !held_out)
        return lk_fail(err, LK_EINVAL, "there is no text in the %zu source%s (%s%s)", b->input_count,
                       b->input_count == 1 ? "" : "s", lk__dataset_input_name(&b->inputs[0]),
                       b->input_count > 1 ? ", ..." : "");
    if (train && (held_out || b->options->holdout == 0)) return 0;
    const char *why = "";
    if (b->rules.holdout.by_document && train + held_out > 1) why = ", all equal, and equal ones stay together";
    if (b->rules.split_at.size && train + held_out == 1)
        why = ": the string of --split-at does not stand between two texts";
    return lk_fail(
        err, LK_EINVAL,
        "a holdout of %g leaves no document %s (%llu in all, %llu bytes%s); give more text or change the holdout",
        b->options->holdout, train ? "held out" : "to train on", (unsigned long long)(train + held_out),
        (unsigned long long)b->total, why);
}

static json_t *describe_sources(const struct lk__dataset_builder *b) {
    json_t *list = json_array();
    for (size_t i = 0; i < b->input_count; i++) {
        char hex[LK_ROOT_HEX];
        json_t *o = json_object();
        bool bad = json_object_set_new(o, "name", json_string(b->inputs[i].name)) != 0;
        bad |= json_object_set_new(o, "size", json_integer((json_int_t)b->inputs[i].size)) != 0;
        bad |= json_object_set_new(o, "root", json_string(lk_root_hex(&b->inputs[i].root, hex))) != 0;
        if (json_array_append_new(list, o) || bad) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* Keys that came after the first release are there only where they say something new: older roots stay. */
static json_t *describe_recipe(const struct lk__dataset_builder *b) {
    const struct lk_dataset_options *o = b->options;
    const struct lk_source_options *s = &o->source;
    int readers = LK__READERS_BY_NAME;
    for (size_t i = 0; i < b->input_count; i++)
        if (!b->inputs[i].source.as_before) readers = LK__READERS_BY_CONTENT;
    json_t *r = json_object();
    bool bad = json_object_set_new(r, "holdout", lk_json_float(o->holdout)) != 0;
    bad |= json_object_set_new(r, "readers", json_integer(readers)) != 0;
    if (o->chat) bad |= json_object_set_new(r, "template", json_string(lk_chat_name(o->chat))) != 0;
    if (b->rules.holdout.by_document) {
        bad |= json_object_set_new(r, "holdout_by", json_string("document")) != 0;
        bad |= json_object_set_new(r, "holdout_seed", json_sprintf("%llu", (unsigned long long)o->holdout_seed)) != 0;
    }
    if (b->begin != UINT32_MAX) bad |= json_object_set_new(r, "bos", json_integer(b->begin)) != 0;
    if (s->format && readers == LK__READERS_BY_CONTENT)
        bad |= json_object_set_new(r, "format", json_string(s->format == LK_FORMAT_TEXT ? "text" : "jsonl")) != 0;
    if (s->text_key) bad |= json_object_set_new(r, "text_key", json_string(s->text_key)) != 0;
    if (s->messages_key) bad |= json_object_set_new(r, "messages_key", json_string(s->messages_key)) != 0;
    if (s->split_at.size)
        bad |= json_object_set_new(r, "split_at", json_stringn((const char *)s->split_at.data, s->split_at.size)) != 0;
    if (b->bad) bad |= json_object_set_new(r, "skip_bad", json_sprintf("%llu", (unsigned long long)s->skip_bad)) != 0;
    if (!bad) return r;
    json_decref(r);
    return NULL;
}

static int write_manifest(struct lk__dataset_builder *b, const struct lk_root *tokenizer, struct lk_root *out,
                          struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *m = json_object(), *splits = json_object(), *part = NULL;
    bool bad = json_object_set_new(m, "recipe", describe_recipe(b)) != 0;
    bad |= json_object_set_new(m, "splits", splits) != 0;
    bad |= json_object_set_new(m, "format", json_string(LK__DATASET_FORMAT)) != 0;
    bad |= json_object_set_new(m, "tokenizer", json_string(lk_root_hex(tokenizer, hex))) != 0;
    bad |= json_object_set_new(m, "vocab", json_integer(lk_tokenizer_vocab(b->t))) != 0;
    bad |= json_object_set_new(m, "end", json_integer(lk_tokenizer_end(b->t))) != 0;
    bad |= json_object_set_new(m, "token_bytes", json_integer(lk_tokenizer_vocab(b->t) <= 65536 ? 2 : 4)) != 0;
    bad |= json_object_set_new(m, "index_every", json_integer(LK__INDEX_EVERY)) != 0;
    bad |= json_object_set_new(m, "empty_count", json_integer((json_int_t)b->empty)) != 0;
    if (b->bad) bad |= json_object_set_new(m, "bad_count", json_integer((json_int_t)b->bad)) != 0;
    bad |= json_object_set_new(m, "sources", describe_sources(b)) != 0;
    int code = bad ? no_memory(err) : 0;
    for (int i = 0; !code && i < 2; i++) {
        code = lk__dataset_splitter_finish(b->splits[i], &part, err);
        if (!code && json_object_set_new(splits, lk__dataset_split_names[i], part)) code = no_memory(err);
    }
    if (!code) code = lk_manifest_put(b->store, m, out, err);
    json_decref(m);
    return code;
}

/* --- the whole ------------------------------------------------------------------------------------------- */

/* The token that texts begin with, as in generation; none if it is the end token, because that stands in front of every
 * document. */
static int choose_begin(struct lk__dataset_builder *b, struct lk_err *err) {
    uint32_t begin = lk_tokenizer_begin(b->t);
    b->begin = UINT32_MAX;
    if (b->options->bos == LK_BOS_NO) return 0;
    if (begin == UINT32_MAX && b->options->bos == LK_BOS_YES)
        return lk_fail(err, LK_EINVAL, "the tokenizer has no token that begins a text (--bos yes): leave --bos out");
    if (begin != lk_tokenizer_end(b->t)) b->begin = begin;
    return 0;
}

/* What enters the manifest, which is JSON. */
static int check_utf8(const struct lk__dataset_builder *b, struct lk_err *err) {
    const struct lk_source_options *s = &b->options->source;
    const struct {
        const char *option;
        struct lk_bytes value;
    } all[] = {{"--text-key", lk_bytes(s->text_key, s->text_key ? strlen(s->text_key) : 0)},
               {"--messages-key", lk_bytes(s->messages_key, s->messages_key ? strlen(s->messages_key) : 0)},
               {"--split-at", s->split_at}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!lk__tokenizer_is_utf8(all[i].value.data, all[i].value.size))
            return lk_fail(err, LK_EINVAL, "%s is not UTF-8", all[i].option);
    for (size_t i = 0; i < b->input_count; i++)
        if (!lk__tokenizer_is_utf8(b->inputs[i].name, strlen(b->inputs[i].name)))
            return lk_fail(err, LK_EINVAL, "the name %s is not UTF-8, as a dataset keeps it: rename the file",
                           b->inputs[i].path);
    return 0;
}

static int check_arguments(struct lk__dataset_builder *b, struct lk_err *err) {
    const struct lk_source_options *s = &b->options->source;
    double h = b->options->holdout;
    if (!(h >= 0 && h <= 0.5)) return lk_fail(err, LK_EINVAL, "a holdout of %g; it must be from 0 to 0.5", h);
    if (!b->input_count) return lk_fail(err, LK_EINVAL, "no source to build a dataset from");
    if (b->input_count >= UINT32_MAX) return lk_fail(err, LK_EINVAL, "%zu sources are too many", b->input_count);
    if (lk_tokenizer_end(b->t) == LK__NO_ID)
        return lk_fail(err, LK_EINVAL, "the tokenizer%s%s has no token %s, which stands between documents",
                       b->options->tokenizer_name ? " " : "", b->options->tokenizer_name ? b->options->tokenizer_name : "",
                       LK_TOKEN_END);
    if (s->text_key && s->messages_key)
        return lk_fail(err, LK_EINVAL, "--text-key and --messages-key choose one key each: give one of them");
    int code = check_utf8(b, err);
    if (code) return code;
    code = b->options->chat ? lk__data_chat_open(b->t, b->options->chat, true, &b->chat, err) : 0;
    b->rules = (struct lk__dataset_job_rules){.chat = b->options->chat ? &b->chat : NULL,
                                              .keys = {s->text_key, s->messages_key, b->options->chat != LK_CHAT_NONE},
                                              .split_at = s->split_at,
                                              .skip_bad = s->skip_bad};
    return code ? code : choose_begin(b, err);
}

static int find_inputs(struct lk__dataset_builder *b, const struct lk_dataset_source *sources, size_t count,
                       struct lk_err *err) {
    const char **paths = lk_calloc(count + 1, sizeof *paths);
    for (size_t i = 0; paths && i < count; i++) paths[i] = sources[i].path;
    int code = paths ? lk__data_sources_find(paths, count, &b->options->source, &b->found, err) : no_memory(err);
    lk_free(paths);
    if (code) return code;
    b->input_count = b->found.count;
    b->inputs = lk_calloc(b->input_count + 1, sizeof *b->inputs);
    if (!b->inputs) return no_memory(err);
    for (size_t i = 0; i < b->input_count; i++) {
        b->inputs[i].path = b->found.list[i].path;
        b->inputs[i].name = b->found.list[i].name;
    }
    return 0;
}

static void splits_free(struct lk__dataset_builder *b) {
    for (int i = 0; i < 2; i++) {
        lk__dataset_splitter_free(b->splits[i]);
        b->splits[i] = NULL;
    }
}

/* *wrong: not all were added, because a source's size is not what was guessed. */
static int add_inputs(struct lk__dataset_builder *b, bool exact, bool *wrong, struct lk_err *err) {
    uint64_t begin = 0;
    *wrong = false;
    lk__dataset_builder_release_source(b);
    splits_free(b);
    b->done = b->empty = b->bad = b->tools = b->greatest = 0;
    b->least = UINT64_MAX;
    int code = measure(b, exact, err);
    for (int i = 0; !code && i < 2; i++)
        code = lk__dataset_splitter_open(b->store, b->t, b->begin != UINT32_MAX, &b->splits[i], err);
    for (size_t i = 0; !code && !*wrong && i < b->input_count; i++) {
        code = lk__dataset_builder_add(b, i, begin, wrong, err);
        begin += b->inputs[i].size;
    }
    if (!b->total_known) b->total = begin;
    return code;
}

static int build(struct lk__dataset_builder *b, const struct lk_root *tokenizer, struct lk_root *out, struct lk_err *err) {
    const struct lk_source_options *notes = &b->options->source;
    bool wrong = false;
    b->threads = lk_calloc((size_t)lk_pool_threads(b->pool), sizeof *b->threads);
    if (!b->threads) return no_memory(err);
    int code = look(b, err);
    choose_holdout(b);
    if (!code) code = add_inputs(b, false, &wrong, err);
    if (!code && (wrong || mend_holdout(b))) code = add_inputs(b, true, &wrong, err);
    if (!code) code = check_splits(b, err);
    if (!code) code = write_manifest(b, tokenizer, out, err);
    if (code) return code;
    if (b->bad)
        lk__data_source_note(notes, "%llu bad record%s left out", (unsigned long long)b->bad, b->bad == 1 ? "" : "s");
    if (b->empty)
        lk__data_source_note(notes, "%llu empty document%s left out", (unsigned long long)b->empty,
                             b->empty == 1 ? "" : "s");
    if (b->tools)
        lk__data_source_note(
            notes, "%llu conversation%s with \"tools\" beside the messages: the template does not show them to the model",
            (unsigned long long)b->tools, b->tools == 1 ? "" : "s");
    return 0;
}

static void builder_free(struct lk__dataset_builder *b) {
    if (b->inputs) lk__dataset_builder_release_source(b);
    for (size_t i = 0; i < 2 * LK__WINDOW; i++) lk__dataset_job_release(&b->windows[i / LK__WINDOW].jobs[i % LK__WINDOW]);
    for (int i = 0; b->threads && i < lk_pool_threads(b->pool); i++) lk__dataset_job_thread_release(&b->threads[i]);
    for (size_t i = 0; b->inputs && i < b->input_count; i++)
        if (b->inputs[i].looked) lk__data_source_close(&b->inputs[i].source);
    splits_free(b);
    lk_buf_release(&b->text);
    lk_buf_release(&b->next);
    lk_buf_release(&b->notes);
    lk_tokenizer_free(b->t);
    lk__data_found_release(&b->found);
    lk_free(b->threads);
    lk_free(b->inputs);
    lk_free(b);
}

int lk_dataset_build(struct lk_store *store, const struct lk_dataset_source *sources, size_t count,
                     const struct lk_root *tokenizer, const struct lk_dataset_options *options, struct lk_pool *pool,
                     struct lk_root *out, struct lk_err *err) {
    struct lk__dataset_builder *b = lk_calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    *b = (struct lk__dataset_builder){.store = store, .options = options, .pool = pool};
    b->now = &b->windows[0];
    b->before = &b->windows[1];
    int code = lk_tokenizer_load(store, tokenizer, &b->t, err);
    if (!code) code = find_inputs(b, sources, count, err);
    if (!code) code = check_arguments(b, err);
    if (!code) code = build(b, tokenizer, out, err);
    builder_free(b);
    return code;
}
