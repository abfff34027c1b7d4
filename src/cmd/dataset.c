/* lockstep dataset build|list|show|cat|verify */
#include "cmd.h"

#include "lockstep/data/dataset.h"
#include "lockstep/train/train.h"
#include <string.h>

static int open_dataset(struct cmd_context *c, const char *name, bool verify, struct lk_dataset **out) {
    struct lk_err err = {0};
    struct lk_root root;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_store_name_get(c->store, "dataset", name, &root, &err) || lk_dataset_open(c->store, &root, verify, out, &err))
        return cmd_fail(&err);
    return CMD_OK;
}

/* Of text: the end tokens stand for none. */
static double bytes_a_token(const struct lk_dataset *d, enum lk_split s) {
    uint64_t tokens = lk_dataset_tokens(d, s), ends = tokens ? lk_dataset_documents(d, s) + 1 : 0;
    return tokens > ends ? (double)lk_dataset_bytes(d, s) / (double)(tokens - ends) : 0;
}

static json_t *describe(const struct lk_dataset *d, const char *name) {
    char hex[LK_ROOT_HEX], tokenizer[LK_ROOT_HEX];
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:i}", "name", name, "root", lk_root_hex(lk_dataset_root(d), hex), "tokenizer_root",
                  lk_root_hex(lk_dataset_tokenizer(d), tokenizer), "vocab", (int)lk_dataset_vocab(d));
    static const char *const splits[] = {"train", "held_out"};
    for (int s = 0; s < 2 && all; s++)
        json_object_set_new(all, splits[s],
                            json_pack("{s:I, s:I, s:I, s:f}", "tokens", (json_int_t)lk_dataset_tokens(d, (enum lk_split)s),
                                      "documents", (json_int_t)lk_dataset_documents(d, (enum lk_split)s), "bytes",
                                      (json_int_t)lk_dataset_bytes(d, (enum lk_split)s), "bytes_a_token",
                                      bytes_a_token(d, (enum lk_split)s)));
    return all;
}

static void print(const struct lk_dataset *d, const char *name) {
    char hex[LK_ROOT_HEX];
    static const char *const splits[] = {"train", "held out"};
    printf("dataset %s\n", name);
    for (int s = 0; s < 2; s++) {
        uint64_t tokens = lk_dataset_tokens(d, (enum lk_split)s), bytes = lk_dataset_bytes(d, (enum lk_split)s);
        uint64_t documents = lk_dataset_documents(d, (enum lk_split)s);
        printf("  %-9s %12llu tokens  %10llu document%s %15llu bytes", splits[s], (unsigned long long)tokens,
               (unsigned long long)documents, documents == 1 ? " " : "s", (unsigned long long)bytes);
        if (documents) printf("  %.2f bytes a token", bytes_a_token(d, (enum lk_split)s));
        putchar('\n');
    }
    printf("  tokenizer %s\n", lk_root_hex(lk_dataset_tokenizer(d), hex));
    printf("  root      %s\n", lk_root_hex(lk_dataset_root(d), hex));
}

/* --- build ----------------------------------------------------------------------------------------------- */

static int show_progress(void *arg, uint64_t done, uint64_t total) {
    char a[32], b[32];
    if (total)
        lk_progress_show(arg, false, "dataset: %s of %s", lk_format_bytes(done, a), lk_format_bytes(total, b));
    else
        lk_progress_show(arg, false, "dataset: %s", lk_format_bytes(done, a));
    return cmd_interrupted();
}

/* --- what was held out ----------------------------------------------------------------------------------- */

struct share { /* of one source */
    uint64_t documents[2], bytes[2];
};

static int count_shares(const struct lk_dataset *d, struct share *all, struct lk_err *err) {
    for (int s = 0; s < 2; s++) {
        for (uint64_t i = 0; i < lk_dataset_documents(d, (enum lk_split)s); i++) {
            struct lk_document doc;
            int code = lk_dataset_document(d, (enum lk_split)s, i, &doc, err);
            if (code) return code;
            all[doc.source].documents[s]++;
            all[doc.source].bytes[s] += doc.size_bytes;
        }
    }
    return LK_OK;
}

#define SHARES_SHOWN 6
/* Of several sources: which ones the held-out text is from, and a warning where it is a poor picture of the whole. */
static int tell_held_out(const struct lk_dataset *d, struct lk_progress *p, struct lk_err *err) {
    const json_t *sources = json_object_get(lk_dataset_manifest(d), "sources");
    size_t n = json_array_size(sources), from = 0, only = 0, lost = n, shown = 0;
    uint64_t documents = lk_dataset_documents(d, LK_HELD_OUT), bytes = lk_dataset_bytes(d, LK_HELD_OUT);
    struct lk_buf list = LK_BUF_INIT;
    char size[32];
    if (n < 2 || !documents) return LK_OK;
    struct share *all = lk_calloc(n, sizeof *all);
    int code = all ? count_shares(d, all, err) : lk_fail(err, LK_ENOMEM, "no memory");
    for (size_t i = 0; !code && i < n; i++) {
        if (!all[i].documents[LK_HELD_OUT]) continue;
        from++;
        only = i;
        if (!all[i].documents[LK_TRAIN]) lost = i;
        if (shown++ < SHARES_SHOWN && lk_buf_printf(&list, "%s%s %s", shown == 1 ? "" : ", ",
                                                    json_string_value(json_object_get(json_array_get(sources, i), "name")),
                                                    lk_format_bytes(all[i].bytes[LK_HELD_OUT], size)))
            code = lk_fail(err, LK_ENOMEM, "no memory");
    }
    double share = (double)bytes / (double)(bytes + lk_dataset_bytes(d, LK_TRAIN));
    if (!code)
        lk_progress_line(p, "held out: %llu document%s, %s (%.2g%%), from %zu of %zu sources: %s%s",
                         (unsigned long long)documents, documents == 1 ? "" : "s", lk_format_bytes(bytes, size),
                         share * 100, from, n, list.data, shown > SHARES_SHOWN ? ", ..." : "");
    if (!code && from == 1)
        lk_log_warn("all held-out text is from one source of %zu, %s: evaluation measures that alone; give more or smaller "
                    "documents (--split-at), or a larger --holdout",
                    n, json_string_value(json_object_get(json_array_get(sources, only), "name")));
    else if (!code && lost < n)
        lk_log_warn("source %s is held out as a whole",
                    json_string_value(json_object_get(json_array_get(sources, lost), "name")));
    lk_buf_release(&list);
    lk_free(all);
    return code;
}

/* --- the name of a dataset ------------------------------------------------------------------------------- */

#define USERS_SHOWN 5
struct users { /* runs that learn from a dataset */
    const char *root;
    size_t count;
    struct lk_buf names;
};
static int take_user(void *arg, const char *name, json_t *record) {
    struct users *u = arg;
    const char *root = json_string_value(json_object_get(record, "dataset_root"));
    if (!root || strcmp(root, u->root) || u->count++ > USERS_SHOWN) return 0;
    if (u->count > USERS_SHOWN) return lk_buf_printf(&u->names, " and more");
    return lk_buf_printf(&u->names, "%s%s", u->names.size ? ", " : "", name);
}

/* A name that means another dataset already is not taken from it unawares. */
static int put_name(struct cmd_context *c, const char *name, const struct lk_root *root, bool replace, struct lk_err *err) {
    struct lk_root old;
    char hex[LK_ROOT_HEX], mine[LK_ROOT_HEX];
    bool taken = lk_store_name_get(c->store, "dataset", name, &old, NULL) == LK_OK && !lk_root_equal(&old, root);
    if (!taken || replace) return cmd_name_put(c, "dataset", name, root, err);
    struct users users = {.root = lk_root_hex(&old, hex)};
    int code = lk_run_list(c->store, take_user, &users, err);
    if (!code)
        code =
            lk_fail(err, LK_EEXISTS,
                    "dataset %s is another one, root %.12s%s%s; this build has root %.12s: take another name, or give it "
                    "this one with --replace",
                    name, hex, users.names.size ? "; it is used by " : "", users.names.size ? users.names.data : "",
                    lk_root_hex(root, mine));
    lk_buf_release(&users.names);
    return code;
}

static struct {
    const char *tokenizer;
    enum lk_chat chat;
    double holdout;
    int holdout_by, bos;
    uint64_t holdout_seed;
    bool replace;
} building;

static void read_options(struct lk_progress *progress, struct lk_dataset_options *o) {
    static const enum lk_bos bos[] = {LK_BOS_AUTO, LK_BOS_YES, LK_BOS_NO};
    static const enum lk_holdout by[] = {LK_HOLDOUT_DOCUMENT, LK_HOLDOUT_TAIL};
    *o = (struct lk_dataset_options){.holdout = building.holdout,
                                     .holdout_by = by[building.holdout_by],
                                     .holdout_seed = building.holdout_seed,
                                     .bos = bos[building.bos],
                                     .source = *cmd_reading_options(progress),
                                     .tokenizer_name = building.tokenizer,
                                     .chat = building.chat,
                                     .progress = show_progress,
                                     .progress_arg = progress};
}

static int build(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_progress progress;
    struct lk_dataset *d = NULL;
    struct lk_root tokenizer, root;
    struct lk_dataset_options options;
    const char *name = c->arguments[0];
    if (!lk_name_valid(name))
        return cmd_usage_error(c, "%s is not a name: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with . or -", name);
    int code = cmd_open_pool(c);
    if (!code) code = cmd_open_store(c, LK_WRITE);
    if (code) return code;
    size_t n = (size_t)c->argument_count - 1;
    struct lk_dataset_source *sources = lk_calloc(n, sizeof *sources);
    if (!sources) return cmd_fail((lk_fail(&err, LK_ENOMEM, "no memory"), &err));
    for (size_t i = 0; i < n; i++) sources[i].path = c->arguments[i + 1];
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns(); /* short work leaves no line in a log */
    read_options(&progress, &options);
    cmd_catch_signals();
    if (!building.replace && lk_store_name_get(c->store, "dataset", name, &root, NULL) == LK_OK)
        lk_progress_line(&progress,
                         "there is a dataset %s: if this build is another one, it needs another name or --replace", name);
    code = cmd_find_tokenizer(c, building.tokenizer, &tokenizer, &err);
    if (!code) code = lk_dataset_build(c->store, sources, n, &tokenizer, &options, c->pool, &root, &err);
    if (!code) code = put_name(c, name, &root, building.replace, &err);
    if (!code) code = lk_dataset_open(c->store, &root, false, &d, &err);
    if (!code) code = tell_held_out(d, &progress, &err);
    lk_progress_end(&progress);
    if (code)
        code = cmd_fail(&err);
    else if (c->json)
        code = cmd_print_json(describe(d, name));
    else
        print(d, name);
    lk_dataset_close(d);
    lk_free(sources);
    return code;
}
const struct cmd cmd_dataset_build = {
    "dataset build",
    "NAME FILE...",
    2,
    -1,
    "Make a dataset from texts, records (.jsonl) and folders of them, also packed; \"-\" is standard input.",
    (const struct cmd_option[]){
        CMD_STRING("--tokenizer", "T", &building.tokenizer, CMD_REQUIRED,
                   "name of a tokenizer, or model:M, run:RUN for that of a model or run"),
        CMD_CALL("--template", "NAME", &building.chat, cmd_take_template, NULL,
                 "how \"messages\" are written: " LK_CHAT_NAMES),
        CMD_F64("--holdout", "SHARE", &building.holdout, 0, 0.5, "0.01", "share that is held out for evaluation"),
        CMD_CHOICE("--holdout-by", &building.holdout_by, "document|tail", "document",
                   "documents of all sources, or the bytes at the end of the last"),
        CMD_U64("--holdout-seed", "N", &building.holdout_seed, 0, UINT64_MAX, "1", "which documents are held out"),
        CMD_CHOICE("--bos", &building.bos, "auto|yes|no", "auto",
                   "begin texts and prompts with the tokenizer's first token, as generate does; auto: if it has one"),
        CMD_READING,
        CMD_STRING("--messages-key", "K", &cmd_reading.messages_key, NULL,
                   "records: the key of the conversation, and no other"),
        CMD_FLAG("--replace", &building.replace, "the name may leave another dataset"), CMD_END},
    "A plain text is one document, or several with --split-at. A line of .jsonl (or an element of a list in a .json) is\n"
    "{\"text\": ...}, or {\"prompt\": ..., \"response\": ...} with the loss on the response only, or {\"messages\":\n"
    "[{\"role\": ..., \"content\": ...}, ...]} with the loss on what the assistant says, if --template tells how they are\n"
    "written. gzip, zstd, xz and bzip2 are recognised by their content. Held out are records and texts by a seed and "
    "their\n"
    "own text; a text whose share is 4,096 bytes or more gives its end, and so does a text alone. Equal input gives an "
    "equal\n"
    "root for any number of threads.",
    build};

/* --- list, show, verify ---------------------------------------------------------------------------------- */

static int list(struct cmd_context *c) {
    return cmd_list_names(c, "dataset");
}
const struct cmd cmd_dataset_list = {"dataset list", "", 0, 0, "List datasets and their roots.", NULL, NULL, list};

/* The begin of a document's text, whole characters only. */
#define SAMPLE_TOKENS 64
static int sample_text(const struct lk_dataset *d, const struct lk_tokenizer *t, enum lk_split split,
                       const struct lk_document *doc, struct lk_buf *text, struct lk_err *err) {
    uint32_t id = 0;
    for (uint64_t i = doc->token_begin; i < doc->token_end && i - doc->token_begin < SAMPLE_TOKENS; i++) {
        lk_dataset_sequence(d, split, i, 1, &id, NULL, NULL); /* context 1: sequence i is token i */
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (lk_buf_append(text, b.data, b.size)) return lk_fail(err, LK_ENOMEM, "no memory for a sample");
    }
    text->size = lk_utf8_complete(text->data, text->size);
    return LK_OK;
}

/* The sample's first lines that hold anything, cut at SAMPLE_WIDTH bytes. */
#define SAMPLE_LINES 3
#define SAMPLE_WIDTH 100
static void print_sample(const struct lk_document *doc, const struct lk_buf *text, const char *split) {
    size_t at = 0;
    printf("  %s document %llu, %s", split, (unsigned long long)doc->index, doc->source_path);
    if (doc->line) printf(" line %llu", (unsigned long long)doc->line);
    printf(", %llu tokens\n", (unsigned long long)(doc->token_end - doc->token_begin));
    for (int lines = 0; lines < SAMPLE_LINES && at < text->size;) {
        const char *line = text->data + at, *end = memchr(line, '\n', text->size - at);
        size_t size = end ? (size_t)(end - line) : text->size - at, shown = size;
        at += size + 1;
        if (shown > SAMPLE_WIDTH) shown = lk_utf8_complete(line, SAMPLE_WIDTH);
        if (!size) continue;
        printf("    | ");
        for (size_t i = 0; i < shown; i++) putchar((unsigned char)line[i] < 0x20 || line[i] == 0x7f ? ' ' : line[i]);
        printf("%s\n", shown < size ? "..." : "");
        lines++;
    }
}

/* Documents at equal distances, the first one among them: the same for everybody who asks for as many. */
static int samples(struct cmd_context *c, const struct lk_dataset *d, uint64_t wanted, json_t *all) {
    struct lk_err err = {0};
    struct lk_tokenizer *t = NULL;
    struct lk_document doc;
    struct lk_buf text = LK_BUF_INIT;
    static const char *const splits[] = {"train", "held out"}, *const keys[] = {"train", "held_out"};
    int code = lk_tokenizer_load(c->store, lk_dataset_tokenizer(d), &t, &err);
    for (int s = 0; s < 2; s++) {
        uint64_t documents = lk_dataset_documents(d, (enum lk_split)s), count = wanted < documents ? wanted : documents;
        for (uint64_t i = 0; i < count && !code; i++) {
            text.size = 0;
            code = lk_dataset_document(d, (enum lk_split)s, documents / count * i, &doc, &err);
            if (!code) code = sample_text(d, t, (enum lk_split)s, &doc, &text, &err);
            if (code || !all) {
                if (!code) print_sample(&doc, &text, splits[s]);
                continue;
            }
            json_array_append_new(all,
                                  json_pack("{s:s, s:I, s:s, s:I, s:I, s:o}", "split", keys[s], "document",
                                            (json_int_t)doc.index, "source", doc.source_path, "line", (json_int_t)doc.line,
                                            "tokens", (json_int_t)(doc.token_end - doc.token_begin), "begin",
                                            cmd_json_text(text.data, text.size, NULL)));
        }
    }
    lk_buf_release(&text);
    lk_tokenizer_free(t);
    return code ? cmd_fail(&err) : CMD_OK;
}

static uint64_t wanted_samples;

static int show(struct cmd_context *c) {
    struct lk_dataset *d = NULL;
    int code = open_dataset(c, c->arguments[0], false, &d);
    if (code) return code;
    json_t *list = c->json ? json_array() : NULL;
    if (!list) print(d, c->arguments[0]);
    code = samples(c, d, wanted_samples, list);
    if (list && !code) {
        json_t *all = describe(d, c->arguments[0]);
        json_object_set_new(all, "manifest", json_deep_copy(lk_dataset_manifest(d)));
        json_object_set(all, "samples", list);
        code = cmd_print_json(all);
    }
    json_decref(list);
    lk_dataset_close(d);
    return code;
}
const struct cmd cmd_dataset_show = {
    "dataset show",
    "DATASET",
    1,
    1,
    "Show a dataset: tokens, documents, bytes a token, roots, and how some documents begin.",
    (const struct cmd_option[]){
        CMD_U64("--samples", "N", &wanted_samples, 0, 1000000, "3", "so many documents a split, at equal distances"),
        CMD_END},
    NULL,
    show};

static int verify(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_root root;
    char hex[LK_ROOT_HEX];
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_store_name_get(c->store, "dataset", c->arguments[0], &root, &err) || lk_dataset_verify(c->store, &root, &err))
        return cmd_fail(&err);
    lk_root_hex(&root, hex);
    if (c->json) return cmd_print_json(json_pack("{s:s, s:s, s:b}", "name", c->arguments[0], "root", hex, "whole", 1));
    printf("dataset %s is whole: every byte hashes to root %s\n", c->arguments[0], hex);
    return CMD_OK;
}
const struct cmd cmd_dataset_verify = {"dataset verify",
                                       "DATASET",
                                       1,
                                       1,
                                       "Hash every byte of a dataset and check its parts against each other.",
                                       NULL,
                                       NULL,
                                       verify};

/* --- cat
 * ------------------------------------------------------------------------------------------------------------------------
 */

static int print_document(struct cmd_context *c, const struct lk_dataset *d, const struct lk_tokenizer *t,
                          enum lk_split split, uint64_t index) {
    struct lk_err err = {0};
    struct lk_document doc;
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_dataset_document(d, split, index, &doc, &err);
    uint32_t input = 0;
    for (uint64_t i = code ? UINT64_MAX : doc.token_begin; !code && i < doc.token_end; i++) {
        lk_dataset_sequence(d, split, i, 1, &input, NULL, NULL); /* context 1: sequence i is token i */
        struct lk_bytes b = lk_tokenizer_bytes(t, input);
        if (lk_buf_append(&text, b.data, b.size)) code = lk_fail(&err, LK_ENOMEM, "no memory for a document");
    }
    if (code)
        code = cmd_fail(&err);
    else if (c->json) {
        json_t *line = json_pack("{s:I, s:s, s:I, s:I, s:I}", "document", (json_int_t)index, "source", doc.source_path,
                                 "offset", (json_int_t)doc.source_offset, "line", (json_int_t)doc.line, "tokens",
                                 (json_int_t)(doc.token_end - doc.token_begin));
        json_t *bytes, *s = cmd_json_text(text.data, text.size, &bytes);
        json_object_set_new(line, "text", s);
        json_object_set_new(line, "bytes", bytes);
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(line);
    } else
        fwrite(text.data, 1, text.size, stdout);
    lk_buf_release(&text);
    return code;
}

static struct {
    uint64_t document;
    bool held_out;
} catted = {.document = UINT64_MAX};

static int cat(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_dataset *d = NULL;
    struct lk_tokenizer *t = NULL;
    enum lk_split split = catted.held_out ? LK_HELD_OUT : LK_TRAIN;
    uint64_t first = 0, only = catted.document;
    int code = open_dataset(c, c->arguments[0], true, &d);
    if (!code && lk_tokenizer_load(c->store, lk_dataset_tokenizer(d), &t, &err)) code = cmd_fail(&err);
    uint64_t count = code ? 0 : lk_dataset_documents(d, split);
    if (!code && only != UINT64_MAX) {
        if (only >= count)
            code = cmd_fail((lk_fail(&err, LK_ENOTFOUND, "document %llu: there are %llu", (unsigned long long)only,
                                     (unsigned long long)count),
                             &err));
        first = only;
        count = only + 1;
    }
    for (uint64_t i = first; i < count && !code; i++) code = print_document(c, d, t, split, i);
    lk_tokenizer_free(t);
    lk_dataset_close(d);
    return code;
}
const struct cmd cmd_dataset_cat = {
    "dataset cat",
    "DATASET",
    1,
    1,
    "Print the text behind the tokens, document after document.",
    (const struct cmd_option[]){CMD_U64("--document", "N", &catted.document, 0, UINT64_MAX - 1, NULL, "only this document"),
                                CMD_FLAG("--held-out", &catted.held_out, "the held-out split"), CMD_END},
    "Nothing is put between documents. With --json one object a line, with its source.",
    cat};
