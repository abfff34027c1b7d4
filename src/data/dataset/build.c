/* Files to a dataset: sources are cut into jobs by their bytes alone, windows of jobs run on the pool, results are written
 * in order. README.md says how memory stays bounded. */
#include "data/dataset/job.h"
#include "data/source.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

#define WINDOW 64 /* jobs in memory at a time */

struct input {
    const char *path;
    bool again;    /* can be opened when its turn comes; else it is open from the start */
    bool sized;    /* size is known */
    uint64_t size; /* uncompressed bytes */
    struct lk_map map;
    struct lk_root root;
};

struct builder {
    struct lk_store *store;
    struct lk_tokenizer *t;
    const struct lk_dataset_options *options;
    struct lk_pool *pool;
    struct input *inputs;
    size_t input_count;
    uint64_t total, cut, done; /* bytes of all inputs; held out from `cut` on; progress */
    bool total_known;
    struct lk__splitter *splits[2];
    struct lk__job jobs[WINDOW];
    size_t job_count;
    struct lk__job_thread *threads;
    struct lk_root digest; /* of the plain document that is being written */
    uint64_t lines, empty; /* lines of the present source; documents without a byte */
};

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "building a dataset: out of memory");
}

static const char *shown(const struct input *in) {
    return strcmp(in->path, "-") ? in->path : "standard input";
}

/* --- sizes ----------------------------------------------------------------------------------------------- */

static int count_bytes(void *arg, const void *data, size_t size, struct lk_err *err) {
    (void)data;
    (void)err;
    *(uint64_t *)arg += size;
    return 0;
}

/* Sizes of all inputs, as far as they are needed: a share of the whole wants the whole. */
static int measure(struct builder *b, struct lk_err *err) {
    b->total_known = true;
    for (size_t i = 0; i < b->input_count; i++) {
        struct input *in = &b->inputs[i];
        int code = lk__source_check(in->path, &in->again, &in->size, err);
        if (code) return code;
        in->sized = true;
        if (!in->again) {
            if ((code = lk__source_open(in->path, b->store->dir, &in->map, err))) return code;
            in->size = in->map.size;
        } else if (lk__source_packing(in->path) != LK__UNPACKED) {
            in->size = 0;
            in->sized = b->options->holdout > 0;
            if (in->sized && (code = lk__source_pour(in->path, count_bytes, &in->size, err))) return code;
            b->total_known &= in->sized;
        }
        if (in->size > (UINT64_MAX >> 12) - b->total) return lk_fail(err, LK_EINVAL, "%s: too large", shown(in));
        b->total += in->size;
    }
    /* Exact below 2^53 bytes; above it still the same everywhere. */
    b->cut = b->options->holdout > 0 ? b->total - (uint64_t)((double)b->total * b->options->holdout) : UINT64_MAX;
    return 0;
}

/* Where a plain text is cut when byte `at` (0 < at < size) is to be the first held out: after the line that holds it, else
 * after the line before, else between characters. */
static size_t cut_text(const uint8_t *text, size_t at, size_t size) {
    const uint8_t *newline = memchr(text + at - 1, '\n', size - at);
    if (newline) return (size_t)(newline - text) + 1;
    newline = memrchr(text, '\n', at - 1);
    if (newline) return (size_t)(newline - text) + 1;
    for (size_t back = 1; back <= 3 && back <= at; back++) { /* inside a well-formed sequence? */
        uint32_t c;
        if (lk__utf8_decode(text + at - back, size - at + back, &c) > back) return at - back;
    }
    return at;
}

/* --- jobs ------------------------------------------------------------------------------------------------ */

static void run_tile(void *arg, size_t tile, int thread) {
    struct builder *b = arg;
    lk__job_run(&b->jobs[tile], b->t, &b->threads[thread]);
}

static int job_failed(struct builder *b, const struct input *in, struct lk__job *j, struct lk_err *err) {
    if (j->kind != LK__JOB_LINES)
        return lk_fail(err, j->code, "%s: byte %llu: %s", shown(in), (unsigned long long)j->err_byte, j->err.message);
    return lk_fail(err, j->code, "%s:%llu: byte %llu: %s", shown(in), (unsigned long long)(b->lines + j->err_line),
                   (unsigned long long)j->err_byte, j->err.message);
}

static int write_piece(struct builder *b, uint32_t source, struct lk__job *j, struct lk_err *err) {
    struct lk__splitter *s = b->splits[j->split];
    int code = lk__splitter_tokens(s, j->tokens.ids, j->tokens.count, 0, err);
    if (code || !j->last) return code;
    j->row.source = source;
    memcpy(j->row.digest, b->digest.bytes, sizeof j->row.digest);
    return lk__splitter_document(s, &j->row, err);
}

static int write_lines(struct builder *b, uint32_t source, struct lk__job *j, struct lk_err *err) {
    const uint32_t *ids = j->tokens.ids;
    for (size_t i = 0; i < j->document_count; i++) {
        struct lk__job_document *d = &j->documents[i];
        struct lk__splitter *s = b->splits[i < j->first_held_out ? LK_TRAIN : LK_HELD_OUT];
        d->row.source = source;
        d->row.line += b->lines;
        int code = lk__splitter_tokens(s, ids, d->tokens, d->masked, err);
        if (!code) code = lk__splitter_document(s, &d->row, err);
        if (code) return code;
        ids += d->tokens;
    }
    b->lines += j->lines;
    b->empty += j->empty;
    return 0;
}

/* Runs the jobs at hand and writes what they made. */
static int run_window(struct builder *b, size_t input, struct lk_err *err) {
    struct input *in = &b->inputs[input];
    int code = 0;
    lk_pool_run(b->pool, b->job_count, run_tile, b);
    for (size_t i = 0; i < b->job_count; i++) {
        struct lk__job *j = &b->jobs[i];
        if (code) {
            ; /* only releases */
        } else if (j->code) {
            code = job_failed(b, in, j, err);
        } else if (j->kind == LK__JOB_ROOT) {
            in->root = j->root;
        } else if (j->kind == LK__JOB_DIGEST) {
            b->digest = j->root;
        } else {
            b->done += j->size;
            code = j->kind == LK__JOB_PIECE ? write_piece(b, (uint32_t)input, j, err)
                                            : write_lines(b, (uint32_t)input, j, err);
        }
        lk__job_release(j);
    }
    b->job_count = 0;
    if (!code && b->options->progress &&
        b->options->progress(b->options->progress_arg, b->done, b->total_known ? b->total : 0))
        code = lk_fail(err, LK_ESTOPPED, "building a dataset: stopped on request");
    return code;
}

static int add_job(struct builder *b, size_t input, const struct lk__job *j, struct lk_err *err) {
    b->jobs[b->job_count++] = *j;
    return b->job_count == WINDOW ? run_window(b, input, err) : 0;
}

static int add_document(struct builder *b, size_t input, size_t begin, size_t end, enum lk_split split,
                        struct lk_err *err) {
    const uint8_t *text = b->inputs[input].map.data;
    if (begin == end) return 0;
    struct lk__job digest = {.kind = LK__JOB_DIGEST, .text = text + begin, .size = end - begin, .offset = begin};
    int code = add_job(b, input, &digest, err);
    for (size_t at = begin, next; !code && at < end; at = next) {
        next = end - at <= LK__JOB_BYTES ? end : at + lk__next_cut(text + at, LK__JOB_BYTES - 1, end - at);
        struct lk__job j = {
            .kind = LK__JOB_PIECE, .text = text + at, .size = next - at, .offset = at, .split = split, .last = next == end};
        j.row.source_offset = begin;
        j.row.size_bytes = end - begin;
        code = add_job(b, input, &j, err);
    }
    return code;
}

static int add_plain(struct builder *b, size_t input, uint64_t held_out, struct lk_err *err) {
    size_t size = b->inputs[input].map.size, cut = size;
    if (!size) b->empty++;
    if (held_out == 0)
        cut = 0;
    else if (held_out < size)
        cut = cut_text(b->inputs[input].map.data, (size_t)held_out, size);
    int code = add_document(b, input, 0, cut, LK_TRAIN, err);
    return code ? code : add_document(b, input, cut, size, LK_HELD_OUT, err);
}

static int add_lines(struct builder *b, size_t input, uint64_t held_out, struct lk_err *err) {
    const uint8_t *text = b->inputs[input].map.data;
    size_t size = b->inputs[input].map.size;
    int code = 0;
    for (size_t at = 0, next; !code && at < size; at = next) {
        next = size;
        if (size - at > LK__JOB_BYTES) {
            const uint8_t *newline = memchr(text + at + LK__JOB_BYTES, '\n', size - at - LK__JOB_BYTES);
            if (newline) next = (size_t)(newline - text) + 1;
        }
        struct lk__job j = {.kind = LK__JOB_LINES, .text = text + at, .size = next - at, .offset = at};
        j.held_out = held_out <= at ? 0 : held_out - at > j.size ? j.size : (size_t)(held_out - at);
        code = add_job(b, input, &j, err);
    }
    return code;
}

/* begin: bytes of the inputs before this one. */
static int add_input(struct builder *b, size_t input, uint64_t begin, struct lk_err *err) {
    struct input *in = &b->inputs[input];
    int code = in->again ? lk__source_open(in->path, b->store->dir, &in->map, err) : 0;
    if (code) return code;
    if (in->sized && in->map.size != in->size)
        return lk_fail(err, LK_EIO, "%s changed while it was read (%llu bytes, then %zu)", shown(in),
                       (unsigned long long)in->size, in->map.size);
    in->size = in->map.size;
    uint64_t held_out = b->cut <= begin ? 0 : b->cut - begin;
    b->lines = 0;
    struct lk__job root = {.kind = LK__JOB_ROOT, .text = in->map.data, .size = in->map.size};
    code = add_job(b, input, &root, err);
    if (!code)
        code = lk__source_kind(in->path) == LK__JSONL ? add_lines(b, input, held_out, err)
                                                      : add_plain(b, input, held_out, err);
    if (!code) code = run_window(b, input, err);
    if (in->map.data) lk_map_close(&in->map);
    return code;
}

/* --- manifest -------------------------------------------------------------------------------------------- */

static int check_splits(const struct builder *b, struct lk_err *err) {
    uint64_t train = lk__splitter_documents(b->splits[LK_TRAIN]), held_out = lk__splitter_documents(b->splits[LK_HELD_OUT]);
    if (!train && !held_out)
        return lk_fail(err, LK_EINVAL, "there is no text in the %zu source%s (%s%s)", b->input_count,
                       b->input_count == 1 ? "" : "s", shown(&b->inputs[0]), b->input_count > 1 ? ", ..." : "");
    if (!train || (b->options->holdout > 0 && !held_out))
        return lk_fail(
            err, LK_EINVAL,
            "a holdout of %g leaves no document %s (%llu in all, %llu bytes); give more text or change the holdout",
            b->options->holdout, train ? "held out" : "to train on", (unsigned long long)(train + held_out),
            (unsigned long long)b->total);
    return 0;
}

static json_t *describe_sources(const struct builder *b) {
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

static int write_manifest(struct builder *b, const struct lk_root *tokenizer, struct lk_root *out, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    json_t *m = json_object(), *recipe = json_object(), *splits = json_object(), *part = NULL;
    bool bad = json_object_set_new(recipe, "holdout", lk_json_float(b->options->holdout)) != 0;
    bad |= json_object_set_new(recipe, "readers", json_integer(LK__READERS_RULES)) != 0;
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

static int check_arguments(const struct builder *b, struct lk_err *err) {
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
    return 0;
}

static int build(struct builder *b, const struct lk_root *tokenizer, struct lk_root *out, struct lk_err *err) {
    int threads = b->pool ? lk_pool_threads(b->pool) : 1;
    b->threads = lk_calloc((size_t)threads, sizeof *b->threads);
    if (!b->threads) return no_memory(err);
    int code = measure(b, err);
    for (int i = 0; !code && i < 2; i++) code = lk__splitter_open(b->store, b->t, &b->splits[i], err);
    uint64_t begin = 0;
    for (size_t i = 0; !code && i < b->input_count; i++) {
        code = add_input(b, i, begin, err);
        begin += b->inputs[i].size;
    }
    if (!b->total_known) b->total = begin;
    if (!code) code = check_splits(b, err);
    if (!code) code = write_manifest(b, tokenizer, out, err);
    return code;
}

int lk_dataset_build(struct lk_store *store, const struct lk_dataset_source *sources, size_t count,
                     const struct lk_root *tokenizer, const struct lk_dataset_options *options, struct lk_pool *pool,
                     struct lk_root *out, struct lk_err *err) {
    struct builder *b = lk_calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    *b = (struct builder){.store = store, .options = options, .pool = pool, .input_count = count};
    b->inputs = lk_calloc(count + 1, sizeof *b->inputs);
    int code = b->inputs ? lk_tokenizer_load(store, tokenizer, &b->t, err) : no_memory(err);
    for (size_t i = 0; b->inputs && i < count; i++) b->inputs[i].path = sources[i].path;
    if (!code) code = check_arguments(b, err);
    if (!code) code = build(b, tokenizer, out, err);
    for (size_t i = 0; i < b->job_count; i++) lk__job_release(&b->jobs[i]);
    for (int i = 0; b->threads && i < (pool ? lk_pool_threads(pool) : 1); i++) lk__job_thread_release(&b->threads[i]);
    for (size_t i = 0; b->inputs && i < count; i++)
        if (b->inputs[i].map.data) lk_map_close(&b->inputs[i].map);
    for (int i = 0; i < 2; i++) lk__splitter_free(b->splits[i]);
    lk_tokenizer_free(b->t);
    lk_free(b->threads);
    lk_free(b->inputs);
    lk_free(b);
    return code;
}
