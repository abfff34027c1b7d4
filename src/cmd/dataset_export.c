/* lockstep dataset export */
#include "cmd.h"

#include "lockstep/data/dataset.h"
#include <string.h>

struct exported {
    struct lk_progress progress;
    json_t *files;
    bool json, incomplete; /* no memory for one of the files' names */
};

static int show_progress(void *arg, uint64_t done, uint64_t total) {
    struct exported *x = arg;
    lk_progress_show(&x->progress, false, "dataset: %llu of %llu tokens", (unsigned long long)done,
                     (unsigned long long)total);
    return cmd_interrupted();
}
static void take_file(void *arg, const char *path, uint64_t size_bytes) {
    struct exported *x = arg;
    if (json_array_append_new(x->files, json_pack("{s:s, s:I}", "file", path, "bytes", (json_int_t)size_bytes)))
        x->incomplete = true;
}

static struct {
    int format, split;
    uint64_t shard_tokens;
    bool without_masks;
} exporting = {.split = -1};

static int read_options(struct cmd_context *c, struct lk_dataset_export_options *o) {
    o->format = (enum lk_dataset_format)exporting.format;
    if (exporting.split >= 0) o->splits[exporting.split] = true;
    o->without_masks = exporting.without_masks;
    o->shard_tokens = exporting.shard_tokens;
    if (cmd_given(c, &exporting.shard_tokens) && o->format != LK_DATASET_LLMC)
        return cmd_usage_error(c, "--shard-tokens goes with --format llmc");
    return CMD_OK;
}

static int print_files(const struct exported *x, const char *name, const char *dir) {
    size_t i;
    json_t *file;
    char size[32];
    json_array_foreach(x->files, i, file)
        printf("%s  %s\n", json_string_value(json_object_get(file, "file")),
               lk_format_bytes((uint64_t)json_integer_value(json_object_get(file, "bytes")), size));
    printf("dataset %s: %zu file%s in %s\n", name, json_array_size(x->files), json_array_size(x->files) == 1 ? "" : "s",
           dir);
    return CMD_OK;
}

static int export(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_root root;
    struct lk_dataset *d = NULL;
    static const char *const formats[] = {"llmc", "megatron", "npy"};
    struct exported x = {.json = c->json};
    struct lk_dataset_export_options o = {.progress = show_progress, .file = take_file, .arg = &x};
    const char *name = c->arguments[0], *dir = c->arguments[1];
    int code = read_options(c, &o);
    if (code) return code;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (!(x.files = json_array())) return cmd_fail((lk_fail(&err, LK_ENOMEM, "no memory to list files"), &err));
    lk_progress_init(&x.progress, stderr);
    cmd_catch_signals();
    code = lk_store_name_get(c->store, "dataset", name, &root, &err);
    if (!code) code = lk_dataset_open(c->store, &root, true, &d, &err);
    if (!code) code = lk_dataset_export(d, dir, name, &o, &err);
    lk_progress_end(&x.progress);
    if (!code && x.incomplete)
        code = lk_fail(&err, LK_ENOMEM, "the files are written, but there is no memory to list them");
    if (code)
        code = cmd_fail(&err);
    else if (x.json)
        code = cmd_print_json(json_pack("{s:s, s:s, s:O}", "name", name, "format", formats[o.format], "files", x.files));
    else
        code = print_files(&x, name, dir);
    json_decref(x.files);
    lk_dataset_close(d);
    return code;
}
const struct cmd cmd_dataset_export = {
    "dataset export",
    "DATASET DIR",
    2,
    2,
    "Write a dataset's tokens for other trainers: llm.c, Megatron-LM, numpy.",
    (const struct cmd_option[]){
        CMD_CHOICE("--format", &exporting.format, "llmc|megatron|npy", CMD_REQUIRED, "which one"),
        CMD_CHOICE("--split", &exporting.split, "train|held-out", NULL, "only this split; both by default"),
        CMD_U64("--shard-tokens", "N", &exporting.shard_tokens, 1, INT32_MAX, "100000000", "llmc: tokens a file"),
        CMD_FLAG("--without-masks", &exporting.without_masks,
                 "llmc, megatron: leave loss masks out, which these cannot hold, instead of failing"),
        CMD_END},
    "Files are DIR/DATASET_train... and DIR/DATASET_val...; they get their names when all of them are on the disk, all or "
    "none,\n"
    "and nothing is written over. docs/formats.md says what they hold and where end tokens stand.",
    export};
