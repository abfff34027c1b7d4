/* lockstep dataset build */
#include "dataset.h"

#include "lockstep/train/train.h"
#include <string.h>

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
struct held_out { /* what is held out, by source */
    const json_t *sources;
    size_t from, one, whole, whole_one; /* how many give some, and one of them; how many give all, and one of them */
    struct lk_buf list;
};
static const char *source_name(const struct held_out *h, size_t i) {
    return json_string_value(json_object_get(json_array_get(h->sources, i), "name"));
}

static int sum_up(struct held_out *h, const struct share *all, struct lk_err *err) {
    char size[32];
    for (size_t i = 0; i < json_array_size(h->sources); i++) {
        if (!all[i].documents[LK_HELD_OUT]) continue;
        h->one = i;
        if (!all[i].documents[LK_TRAIN]) h->whole++, h->whole_one = i;
        if (h->from++ < SHARES_SHOWN && lk_buf_printf(&h->list, "%s%s %s", h->list.size ? ", " : "", source_name(h, i),
                                                      lk_format_bytes(all[i].bytes[LK_HELD_OUT], size)))
            return lk_fail(err, LK_ENOMEM, "no memory to say what is held out");
    }
    return LK_OK;
}

static void show_held_out(const struct held_out *h, const struct lk_dataset *d, struct lk_progress *p) {
    uint64_t documents = lk_dataset_documents(d, LK_HELD_OUT), bytes = lk_dataset_bytes(d, LK_HELD_OUT);
    uint64_t of = bytes + lk_dataset_bytes(d, LK_TRAIN);
    size_t n = json_array_size(h->sources);
    char size[32];
    lk_progress_line(p, "held out: %llu document%s, %s (%.2g%%), from %zu of %zu sources: %s%s",
                     (unsigned long long)documents, documents == 1 ? "" : "s", lk_format_bytes(bytes, size),
                     of ? 100.0 * (double)bytes / (double)of : 0, h->from, n, h->list.data,
                     h->from > SHARES_SHOWN ? ", ..." : "");
    if (h->from == 1)
        lk_log_warn("all held-out text is from one source of %zu, %s: evaluation measures that alone; give more or smaller "
                    "documents (--split-at), or a larger --holdout",
                    n, source_name(h, h->one));
    else if (h->whole == 1)
        lk_log_warn("source %s is held out as a whole: nothing is learned from it", source_name(h, h->whole_one));
    else if (h->whole)
        lk_log_warn("%zu sources are held out as a whole, %s among them: nothing is learned from them", h->whole,
                    source_name(h, h->whole_one));
}

/* Of several sources: which ones the held-out text is from, and a warning where it is a poor picture of the whole. */
static int tell_held_out(const struct lk_dataset *d, struct lk_progress *p, struct lk_err *err) {
    struct held_out h = {.sources = json_object_get(lk_dataset_manifest(d), "sources")};
    size_t n = json_array_size(h.sources);
    if (n < 2 || !lk_dataset_documents(d, LK_HELD_OUT)) return LK_OK;
    struct share *all = lk_calloc(n, sizeof *all);
    int code = all ? count_shares(d, all, err) : lk_fail(err, LK_ENOMEM, "no memory to say what is held out");
    if (!code) code = sum_up(&h, all, err);
    if (!code) show_held_out(&h, d, p);
    lk_buf_release(&h.list);
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

/* A name that means another dataset already is not taken from it unawares; nor is one whose row can't be read. */
static int put_name(struct cmd_context *c, const char *name, const struct lk_root *root, bool replace, struct lk_err *err) {
    struct lk_root old;
    char hex[LK_ROOT_HEX], mine[LK_ROOT_HEX];
    int code = replace ? LK_ENOTFOUND : lk_store_name_get(c->store, "dataset", name, &old, err);
    if (code == LK_ENOTFOUND || (!code && lk_root_equal(&old, root))) return cmd_name_put(c, "dataset", name, root, err);
    if (code) return code;
    struct users users = {.root = lk_root_hex(&old, hex)};
    code = lk_run_list(c->store, take_user, &users, err);
    if (code == LK_ENOMEM) lk_fail(err, code, "no memory to list the runs that use dataset %s", name);
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

/* Makes it and names it. */
static int make(struct cmd_context *c, const struct lk_dataset_source *sources, size_t count, struct lk_progress *progress,
                struct lk_dataset **out, struct lk_err *err) {
    const char *name = c->arguments[0];
    struct lk_dataset_options options;
    struct lk_root tokenizer, root;
    read_options(progress, &options);
    if (!building.replace && lk_store_name_get(c->store, "dataset", name, &root, NULL) == LK_OK)
        lk_progress_line(progress,
                         "there is a dataset %s: if this build is another one, it needs another name or --replace", name);
    int code = cmd_find_tokenizer(c, building.tokenizer, &tokenizer, err);
    if (!code) code = lk_dataset_build(c->store, sources, count, &tokenizer, &options, c->pool, &root, err);
    if (!code) code = put_name(c, name, &root, building.replace, err);
    if (!code) code = lk_dataset_open(c->store, &root, false, out, err);
    return code ? code : tell_held_out(*out, progress, err);
}

static int build(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_progress progress;
    struct lk_dataset *d = NULL;
    const char *name = c->arguments[0];
    if (!lk_name_valid(name))
        return cmd_usage_error(c, "%s is not a name: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with . or -", name);
    int code = cmd_open_pool(c);
    if (!code) code = cmd_open_store(c, LK_WRITE);
    if (code) return code;
    size_t n = (size_t)c->argument_count - 1;
    struct lk_dataset_source *sources = lk_calloc(n, sizeof *sources);
    if (!sources) return cmd_fail((lk_fail(&err, LK_ENOMEM, "no memory for the names of %zu files", n), &err));
    for (size_t i = 0; i < n; i++) sources[i].path = c->arguments[i + 1];
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns(); /* short work leaves no line in a log */
    cmd_catch_signals();
    code = make(c, sources, n, &progress, &d, &err);
    lk_progress_end(&progress);
    if (code)
        code = cmd_fail(&err);
    else if (c->json)
        code = cmd_print_json(dataset_json(d, name));
    else
        dataset_print(d, name);
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
