/* lockstep dataset build|list|show|cat|verify */
#include "cmd.h"

#include "lockstep/data/dataset.h"
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
        printf("  %-9s %12llu tokens  %10llu document%s %15llu bytes  %.2f bytes a token\n", splits[s],
               (unsigned long long)tokens, (unsigned long long)documents, documents == 1 ? " " : "s",
               (unsigned long long)bytes, bytes_a_token(d, (enum lk_split)s));
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

static struct {
    const char *tokenizer;
    enum lk_chat chat;
    double holdout;
} building;

static int build(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_progress progress;
    struct lk_dataset *d = NULL;
    struct lk_root tokenizer, root;
    const char *name = c->arguments[0];
    struct lk_dataset_options options = {.holdout = building.holdout,
                                         .tokenizer_name = building.tokenizer,
                                         .chat = building.chat,
                                         .progress = show_progress,
                                         .progress_arg = &progress};
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
    cmd_catch_signals();
    code = cmd_find_tokenizer(c, building.tokenizer, &tokenizer, &err);
    if (!code) code = lk_dataset_build(c->store, sources, n, &tokenizer, &options, c->pool, &root, &err);
    if (!code) code = cmd_name_put(c, "dataset", name, &root, &err);
    if (!code) code = lk_dataset_open(c->store, &root, false, &d, &err);
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
    "Make a dataset from .txt and .jsonl files, also .gz and .zst; \"-\" is plain text.",
    (const struct cmd_option[]){CMD_STRING("--tokenizer", "T", &building.tokenizer, CMD_REQUIRED,
                                           "name of a tokenizer, or model:M for that of a model"),
                                CMD_CALL("--template", "NAME", &building.chat, cmd_take_template, NULL,
                                         "how \"messages\" are written: " LK_CHAT_NAMES),
                                CMD_F64("--holdout", "SHARE", &building.holdout, 0, 0.5, "0.01",
                                        "share of the bytes at the end that is held out for evaluation"),
                                CMD_END},
    "A .txt file is one document. A line of .jsonl is {\"text\": ...}, or {\"prompt\": ..., \"response\": ...} with the\n"
    "loss on the response only, or {\"messages\": [{\"role\": ..., \"content\": ...}, ...]} with the loss on what the\n"
    "assistant says, if --template tells how they are written. Equal input gives an equal root for any number of threads.",
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
