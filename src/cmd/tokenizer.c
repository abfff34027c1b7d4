/* lockstep tokenizer train|encode|decode|import|export|list|show */
#include "cmd.h"

#include "lockstep/base/file.h"
#include <stdlib.h>
#include <string.h>

static int load(struct cmd_context *c, const char *name, struct lk_tokenizer **out, struct lk_root *root) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_store_name_get(c->store, "tokenizer", name, root, &err) || lk_tokenizer_load(c->store, root, out, &err))
        return cmd_fail(&err);
    return CMD_OK;
}

/* Saves, names and reports. */
static int keep(struct cmd_context *c, const struct lk_tokenizer *t, const char *name) {
    struct lk_err err = {0};
    struct lk_root root;
    char hex[LK_ROOT_HEX];
    if (lk_tokenizer_save(c->store, t, &root, &err) || cmd_name_put(c, "tokenizer", name, &root, &err))
        return cmd_fail(&err);
    lk_root_hex(&root, hex);
    if (c->json)
        return cmd_print_json(json_pack("{s:s, s:i, s:s}", "name", name, "vocab", (int)lk_tokenizer_vocab(t), "root", hex));
    printf("tokenizer %s: %u tokens, root %s\n", name, lk_tokenizer_vocab(t), hex);
    return CMD_OK;
}

/* --- train ----------------------------------------------------------------------------------------------- */

static int show_progress(void *arg, uint32_t done, uint32_t total) {
    lk_progress_show(arg, false, "tokenizer: %u of %u merges", done, total);
    return cmd_interrupted();
}

static struct {
    const char *name, *pattern;
    uint32_t vocab;
} training;

static int train(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_progress progress;
    struct lk_tokenizer *t = NULL;
    int code = cmd_open_pool(c);
    if (code) return code;
    size_t n = (size_t)c->argument_count;
    struct lk_buf *files = lk_calloc(n, sizeof *files);
    struct lk_bytes *texts = lk_calloc(n, sizeof *texts);
    if (!files || !texts) code = lk_fail(&err, LK_ENOMEM, "no memory");
    for (size_t i = 0; i < n && !code; i++) {
        code = cmd_read_input(c->arguments[i], &files[i], &err);
        texts[i] = lk_bytes(files[i].data, files[i].size);
    }
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns(); /* short work leaves no line in a log */
    cmd_catch_signals();
    if (code) code = cmd_fail(&err);
    if (!code) code = cmd_open_store(c, LK_CREATE); /* after the inputs: a wrong path makes no store */
    if (!code &&
        lk_tokenizer_train_pattern(texts, n, training.vocab, training.pattern, c->pool, show_progress, &progress, &t, &err))
        code = cmd_fail(&err);
    lk_progress_end(&progress);
    if (!code) code = keep(c, t, training.name);
    for (size_t i = 0; files && i < n; i++) lk_buf_release(&files[i]);
    lk_free(files);
    lk_free(texts);
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_train = {
    "tokenizer train",
    "FILE...",
    1,
    -1,
    "Learn a byte-level BPE from texts (\"-\": standard input).",
    (const struct cmd_option[]){
        CMD_U32("--vocab", "N", &training.vocab, 257, 4000000, "32768", "tokens: 256 bytes, merges, and the end of text"),
        CMD_STRING("--pattern", "P", &training.pattern, "gpt2", "how words are cut: " LK_PATTERNS),
        CMD_NAME("--name", "T", &training.name, CMD_REQUIRED, "name to keep it under"), CMD_END},
    "The merges are those of Hugging Face's BpeTrainer with that pattern on the same files.",
    train};

/* --- encode, decode -------------------------------------------------------------------------------------- */

/* Digits without printf, which would take longer than the encoding. */
static int print_ids(const struct cmd_context *c, const struct lk_tokens *ids) {
    bool json = c->json;
    char buffer[4096], separator = json ? ',' : ' ';
    size_t used = 0;
    if (json) putchar('[');
    for (size_t i = 0; i < ids->count; i++) {
        char digits[10];
        size_t n = 0;
        uint32_t id = ids->ids[i];
        do digits[n++] = (char)('0' + id % 10);
        while (id /= 10);
        if (i) buffer[used++] = separator;
        while (n) buffer[used++] = digits[--n];
        if (used < sizeof buffer - 16) continue;
        fwrite(buffer, 1, used, stdout);
        used = 0;
    }
    fwrite(buffer, 1, used, stdout);
    puts(json ? "]" : "");
    return CMD_OK;
}

/* A line a token: id, first byte, the byte behind the last. */
static int print_offsets(const struct cmd_context *c, const struct lk_tokens *ids, const uint64_t *offsets) {
    bool json = c->json;
    for (size_t i = 0; i < ids->count; i++)
        printf(json ? "%s[%u, %llu, %llu]" : "%s%u %llu %llu\n", json ? (i ? ",\n " : "[") : "", ids->ids[i],
               (unsigned long long)offsets[i], (unsigned long long)offsets[i + 1]);
    if (json) puts(ids->count ? "]" : "[]");
    return CMD_OK;
}

static struct { bool special, around, offsets; } encoding;

static int encode(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_tokenizer *t = NULL;
    struct lk_root root;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_tokens ids = {0};
    uint64_t *offsets = NULL;
    struct lk_encode_options options = {
        .special = encoding.special, .around = encoding.around, .offsets = encoding.offsets ? &offsets : NULL};
    int code = load(c, c->arguments[0], &t, &root);
    if (!code) code = cmd_open_pool(c);
    if (!code && cmd_read_input(c->argument_count > 1 ? c->arguments[1] : NULL, &text, &err)) code = cmd_fail(&err);
    bool plain = !options.special && !options.around && !options.offsets;
    if (!code && (plain ? lk_tokenizer_encode(t, text.data, text.size, c->pool, &ids, &err)
                        : lk_tokenizer_encode_with(t, text.data, text.size, &options, c->pool, &ids, &err)))
        code = cmd_fail(&err);
    if (!code) code = offsets ? print_offsets(c, &ids, offsets) : print_ids(c, &ids);
    lk_free(offsets);
    lk_tokens_release(&ids);
    lk_buf_release(&text);
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_encode = {
    "tokenizer encode",
    "T [FILE]",
    1,
    2,
    "Print the ids of a text (standard input without FILE), one line.",
    (const struct cmd_option[]){
        CMD_FLAG("--special", &encoding.special, "take special tokens in the text as such"),
        CMD_FLAG("--around", &encoding.around, "add the tokens that the file puts around a text"),
        CMD_FLAG("--offsets", &encoding.offsets, "a line a token: id, its first byte, the byte behind it"), CMD_END},
    NULL,
    encode};

/* Whole numbers between white space, commas or brackets. */
static int parse_ids(const struct lk_buf *text, struct lk_tokens *out, struct lk_err *err) {
    for (size_t i = 0; i < text->size;) {
        char ch = text->data[i];
        if (strchr(" \t\r\n,[]", ch) && ch) {
            i++;
            continue;
        }
        uint64_t v = 0;
        size_t from = i;
        for (; i < text->size && text->data[i] >= '0' && text->data[i] <= '9' && v <= UINT32_MAX; i++)
            v = v * 10 + (uint64_t)(text->data[i] - '0');
        if (i == from || v > UINT32_MAX)
            return lk_fail(err, LK_EINVAL, "byte %zu of the input is no token id: give whole numbers", from);
        if (out->count == out->capacity) {
            size_t more = out->capacity ? out->capacity * 2 : 1024;
            uint32_t *ids = lk_realloc(out->ids, more * sizeof *ids);
            if (!ids) return lk_fail(err, LK_ENOMEM, "no memory for ids");
            out->ids = ids;
            out->capacity = more;
        }
        out->ids[out->count++] = (uint32_t)v;
    }
    return LK_OK;
}

static int decode(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_tokenizer *t = NULL;
    struct lk_root root;
    struct lk_buf input = LK_BUF_INIT, text = LK_BUF_INIT;
    struct lk_tokens ids = {0};
    int code = load(c, c->arguments[0], &t, &root);
    if (!code && (cmd_read_input(c->argument_count > 1 ? c->arguments[1] : NULL, &input, &err) ||
                  parse_ids(&input, &ids, &err) || lk_tokenizer_decode(t, ids.ids, ids.count, &text, &err)))
        code = cmd_fail(&err);
    if (!code && c->json) { /* JSON holds text only: other bytes are an error with a way out */
        json_t *s = json_stringn(text.data ? text.data : "", text.size);
        code = s ? cmd_print_json(s)
                 : cmd_fail((lk_fail(&err, LK_EINVAL, "the text is not UTF-8; leave out --json to get its bytes"), &err));
    } else if (!code)
        fwrite(text.data, 1, text.size, stdout);
    lk_tokens_release(&ids);
    lk_buf_release(&input);
    lk_buf_release(&text);
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_decode = {
    "tokenizer decode", "T [FILE]", 1, 2, "Print the text of ids (standard input without FILE).", NULL, NULL, decode};

/* --- import, export -------------------------------------------------------------------------------------- */

static struct {
    const char *name, *end, *pattern;
    struct {
        struct lk_special items[CMD_MANY];
        size_t count;
    } specials;
} importing;

/* TEXT=ID, the last = counts. */
static int take_special(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    const char *equal = strrchr(text, '=');
    char *end = NULL;
    unsigned long long id = equal && equal[1] >= '0' && equal[1] <= '9' ? strtoull(equal + 1, &end, 10) : 0;
    if (!end || *end || equal == text || id > UINT32_MAX)
        return cmd_usage_error(c, "%s %s: give TEXT=ID, such as '<|endoftext|>=100257'", o->name, text);
    if (importing.specials.count == CMD_MANY)
        return cmd_usage_error(c, "%s is given more than %d times", o->name, CMD_MANY);
    importing.specials.items[importing.specials.count++] =
        (struct lk_special){lk_bytes(text, (size_t)(equal - text)), (uint32_t)id};
    return CMD_OK;
}

static int import(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_tokenizer *t = NULL;
    struct lk_buf file = LK_BUF_INIT;
    size_t length = strlen(c->arguments[0]), special_count = importing.specials.count;
    const char *pattern = importing.pattern, *end = importing.end;
    bool ranks = pattern || (length > 9 && !strcmp(c->arguments[0] + length - 9, ".tiktoken"));
    int code = CMD_OK;
    if (ranks && !pattern)
        code = cmd_usage_error(c, "a rank file does not say its pattern: give --pattern, one of %s", LK_PATTERNS);
    if (!code && !ranks && special_count) code = cmd_usage_error(c, "--special is for rank files, with --pattern");
    if (code) return code;
    if (cmd_read_input(c->arguments[0], &file, &err) ||
        (ranks ? lk_tokenizer_import_ranks(file.data, file.size, c->arguments[0], pattern, importing.specials.items,
                                           special_count, end, &t, &err)
               : lk_tokenizer_import_end(file.data, file.size, c->arguments[0], end, &t, &err)))
        code = cmd_fail(&err);
    if (!code) code = cmd_open_store(c, LK_CREATE);
    if (!code) code = keep(c, t, importing.name);
    lk_buf_release(&file);
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_import = {
    "tokenizer import",
    "FILE",
    1,
    1,
    "Bring in a Hugging Face tokenizer.json (BPE) or a tiktoken rank file.",
    (const struct cmd_option[]){
        CMD_NAME("--name", "T", &importing.name, CMD_REQUIRED, "name to keep it under"),
        CMD_STRING("--end", "TEXT", &importing.end, NULL,
                   "the token between documents; else <|endoftext|>, <|end_of_text|> or </s>"),
        CMD_STRING("--pattern", "P", &importing.pattern, NULL, "it is a rank file, whose words are cut so: " LK_PATTERNS),
        CMD_CALL("--special", "TEXT=ID", &importing.specials, take_special, NULL,
                 "a special token of a rank file; may be given often"),
        CMD_END},
    "What a tokenizer.json may hold: src/data/tokenizer/README.md. Anything else is refused by its name.",
    import};

static int export(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_tokenizer *t = NULL;
    struct lk_root root;
    struct lk_buf json = LK_BUF_INIT;
    int code = load(c, c->arguments[0], &t, &root);
    bool print = strcmp(c->arguments[1], "-") == 0;
    if (!code && lk_tokenizer_export(t, &json, &err)) code = cmd_fail(&err);
    if (!code && print)
        fwrite(json.data, 1, json.size, stdout);
    else if (!code && lk_file_write_atomic(c->arguments[1], json.data, json.size, &err))
        code = cmd_fail(&err);
    if (!code && !print && c->json)
        code = cmd_print_json(json_pack("{s:s, s:I}", "file", c->arguments[1], "bytes", (json_int_t)json.size));
    lk_buf_release(&json);
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_export = {"tokenizer export",
                                         "T FILE",
                                         2,
                                         2,
                                         "Write a Hugging Face tokenizer.json (\"-\": standard output).",
                                         NULL,
                                         NULL,
                                         export};

/* --- list, show ------------------------------------------------------------------------------------------ */

static int list_one(void *arg, const char *name, const struct lk_root *root) {
    char hex[LK_ROOT_HEX];
    json_t *all = arg;
    if (all) return json_array_append_new(all, json_pack("{s:s, s:s}", "name", name, "root", lk_root_hex(root, hex)));
    printf("%-32s %s\n", name, lk_root_hex(root, hex));
    return 0;
}
int cmd_list_names(struct cmd_context *c, const char *kind) {
    struct lk_err err = {0};
    struct lk_kv_txn *t;
    json_t *all = c->json ? json_array() : NULL;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code = lk_kv_begin(c->store->kv, false, &t, &err);
    if (code) return cmd_fail(&err);
    code = lk_name_list(t, kind, list_one, all, &err);
    lk_kv_abort(t);
    if (code) return cmd_fail(&err);
    return all ? cmd_print_json(all) : CMD_OK;
}
static int list(struct cmd_context *c) {
    return cmd_list_names(c, "tokenizer");
}
const struct cmd cmd_tokenizer_list = {"tokenizer list", "", 0, 0, "List tokenizers and their roots.", NULL, NULL, list};

static int show(struct cmd_context *c) {
    struct lk_tokenizer *t = NULL;
    struct lk_root root;
    char hex[LK_ROOT_HEX];
    size_t longest = 0;
    int code = load(c, c->arguments[0], &t, &root);
    if (code) return code;
    uint32_t end = lk_tokenizer_end(t);
    for (uint32_t i = 0; i < lk_tokenizer_vocab(t); i++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, i);
        if (i != end && b.size > longest) longest = b.size;
    }
    lk_root_hex(&root, hex);
    if (c->json)
        code =
            cmd_print_json(json_pack("{s:s, s:s, s:i, s:o, s:i, s:s}", "name", c->arguments[0], "root", hex, "vocab",
                                     (int)lk_tokenizer_vocab(t), "end", end == UINT32_MAX ? json_null() : json_integer(end),
                                     "longest", (int)longest, "pattern", lk_tokenizer_pattern(t)));
    else {
        printf("name     %s\nroot     %s\npattern  %s\nvocab    %u\n", c->arguments[0], hex, lk_tokenizer_pattern(t),
               lk_tokenizer_vocab(t));
        printf(end == UINT32_MAX ? "end      none\n" : "end      %u\n", end);
        printf("longest  %zu bytes\n", longest);
    }
    lk_tokenizer_free(t);
    return code;
}
const struct cmd cmd_tokenizer_show = {"tokenizer show", "T", 1, 1, "Show a tokenizer's size and root.", NULL, NULL, show};
