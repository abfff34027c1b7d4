/* lockstep dataset list|show|cat|verify */
#include "dataset.h"

#include <stdlib.h>
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

static json_t *split_json(const struct lk_dataset *d, enum lk_split s) {
    return json_pack("{s:I, s:I, s:I, s:f}", "tokens", (json_int_t)lk_dataset_tokens(d, s), "documents",
                     (json_int_t)lk_dataset_documents(d, s), "bytes", (json_int_t)lk_dataset_bytes(d, s), "bytes_a_token",
                     bytes_a_token(d, s));
}
json_t *dataset_json(const struct lk_dataset *d, const char *name) {
    char root[LK_ROOT_HEX], tokenizer[LK_ROOT_HEX];
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:o}", "name", name, "root", lk_root_hex(lk_dataset_root(d), root),
                     "tokenizer_root", lk_root_hex(lk_dataset_tokenizer(d), tokenizer), "vocab",
                     (json_int_t)lk_dataset_vocab(d), "train", split_json(d, LK_TRAIN), "held_out",
                     split_json(d, LK_HELD_OUT));
}

void dataset_print(const struct lk_dataset *d, const char *name) {
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

/* --- list, show, verify ---------------------------------------------------------------------------------- */

static int list(struct cmd_context *c) {
    return cmd_list_names(c, "dataset");
}
const struct cmd cmd_dataset_list = {"dataset list", "", 0, 0, "List datasets and their roots.", NULL, NULL, list};

/* A document's text, or the beginning of at most so many tokens. */
static int document_text(const struct lk_dataset *d, const struct lk_tokenizer *t, enum lk_split split,
                         const struct lk_document *doc, uint64_t most, struct lk_buf *text, struct lk_err *err) {
    uint32_t id = 0;
    text->size = 0;
    for (uint64_t i = doc->token_begin; i < doc->token_end && i - doc->token_begin < most; i++) {
        lk_dataset_sequence(d, split, i, 1, &id, NULL, NULL); /* context 1: sequence i is token i */
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (lk_buf_append(text, b.data, b.size))
            return lk_fail(err, LK_ENOMEM, "no memory for document %llu", (unsigned long long)doc->index);
    }
    return LK_OK;
}

/* The sample's first lines that hold anything, cut at SAMPLE_WIDTH bytes. */
#define SAMPLE_TOKENS 64
#define SAMPLE_LINES  3
#define SAMPLE_WIDTH  100
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

static json_t *sample_json(const struct lk_document *doc, const struct lk_buf *text, const char *split) {
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:o}", "split", split, "document", (json_int_t)doc->index, "source",
                     doc->source_path, "line", (json_int_t)doc->line, "tokens",
                     (json_int_t)(doc->token_end - doc->token_begin), "begin", cmd_json_text(text->data, text->size, NULL));
}

/* Documents at equal distances, the first one among them: the same for everybody who asks for as many. Into all, or on
 * paper where that is NULL. */
static int samples(const struct lk_dataset *d, const struct lk_tokenizer *t, uint64_t wanted, json_t *all,
                   struct lk_err *err) {
    static const char *const splits[] = {"train", "held out"}, *const keys[] = {"train", "held_out"};
    struct lk_document doc;
    struct lk_buf text = LK_BUF_INIT;
    int code = LK_OK;
    for (int s = 0; s < 2; s++) {
        uint64_t documents = lk_dataset_documents(d, (enum lk_split)s), count = wanted < documents ? wanted : documents;
        for (uint64_t i = 0; i < count && !code; i++) {
            code = lk_dataset_document(d, (enum lk_split)s, documents / count * i, &doc, err);
            if (!code) code = document_text(d, t, (enum lk_split)s, &doc, SAMPLE_TOKENS, &text, err);
            text.size = lk_utf8_complete(text.data, text.size);
            if (!code && !all)
                print_sample(&doc, &text, splits[s]);
            else if (!code && json_array_append_new(all, sample_json(&doc, &text, keys[s])))
                code = lk_fail(err, LK_ENOMEM, "no memory for samples");
        }
    }
    lk_buf_release(&text);
    return code;
}

static uint64_t wanted_samples;

static int show(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_dataset *d = NULL;
    struct lk_tokenizer *t = NULL;
    int code = open_dataset(c, c->arguments[0], false, &d);
    if (code) return code;
    json_t *list = c->json ? json_array() : NULL;
    if (c->json && !list) code = lk_fail(&err, LK_ENOMEM, "no memory for samples");
    if (!c->json) dataset_print(d, c->arguments[0]);
    if (!code) code = lk_tokenizer_load(c->store, lk_dataset_tokenizer(d), &t, &err);
    if (!code) code = samples(d, t, wanted_samples, list, &err);
    if (code)
        code = cmd_fail(&err);
    else if (list) {
        json_t *all = dataset_json(d, c->arguments[0]);
        if (json_object_set_new(all, "manifest", json_deep_copy(lk_dataset_manifest(d))) ||
            json_object_set(all, "samples", list))
            json_decref(all), all = NULL;
        code = cmd_print_json(all);
    }
    json_decref(list);
    lk_tokenizer_free(t);
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

/* --- cat ------------------------------------------------------------------------------------------------- */

/* One object a line. */
static int print_line(const struct lk_document *doc, const struct lk_buf *text, struct lk_err *err) {
    json_t *bytes = NULL, *s = cmd_json_text(text->data, text->size, &bytes);
    json_t *line = json_pack("{s:I, s:s, s:I, s:I, s:I, s:o, s:o}", "document", (json_int_t)doc->index, "source",
                             doc->source_path, "offset", (json_int_t)doc->source_offset, "line", (json_int_t)doc->line,
                             "tokens", (json_int_t)(doc->token_end - doc->token_begin), "text", s, "bytes", bytes);
    char *words = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!words) return lk_fail(err, LK_ENOMEM, "no memory for document %llu", (unsigned long long)doc->index);
    puts(words);
    free(words);
    return LK_OK;
}

/* Stops where nothing can be written any more; main says so. */
static int cat_documents(const struct cmd_context *c, const struct lk_dataset *d, const struct lk_tokenizer *t,
                         enum lk_split split, uint64_t first, uint64_t end, struct lk_err *err) {
    struct lk_document doc;
    struct lk_buf text = LK_BUF_INIT;
    int code = LK_OK;
    for (uint64_t i = first; i < end && !code && !ferror(stdout); i++) {
        code = lk_dataset_document(d, split, i, &doc, err);
        if (!code) code = document_text(d, t, split, &doc, UINT64_MAX, &text, err);
        if (!code && c->json)
            code = print_line(&doc, &text, err);
        else if (!code && text.size)
            fwrite(text.data, 1, text.size, stdout);
    }
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
    bool one = catted.document != UINT64_MAX;
    uint64_t only = catted.document;
    if (open_dataset(c, c->arguments[0], true, &d)) return CMD_FAILED;
    uint64_t count = lk_dataset_documents(d, split);
    int code = lk_tokenizer_load(c->store, lk_dataset_tokenizer(d), &t, &err);
    if (!code && one && only >= count)
        code = lk_fail(&err, LK_ENOTFOUND,
                       "dataset %s has %llu document%s in its %s split, counted from 0: there is no document %llu",
                       c->arguments[0], (unsigned long long)count, count == 1 ? "" : "s",
                       catted.held_out ? "held-out" : "training", (unsigned long long)only);
    if (!code) code = cat_documents(c, d, t, split, one ? only : 0, one ? only + 1 : count, &err);
    lk_tokenizer_free(t);
    lk_dataset_close(d);
    return code ? cmd_fail(&err) : CMD_OK;
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
