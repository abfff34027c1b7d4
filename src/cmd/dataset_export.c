/* lockstep dataset export */
#include "cmd.h"

#include "lockstep/data/dataset.h"
#include <string.h>

struct exported {
    struct lk_progress progress;
    json_t *files;
    bool json;
};

static int show_progress(void *arg, uint64_t done, uint64_t total) {
    struct exported *x = arg;
    lk_progress_show(&x->progress, false, "dataset: %llu of %llu tokens", (unsigned long long)done,
                     (unsigned long long)total);
    return cmd_interrupted();
}
static void take_file(void *arg, const char *path, uint64_t size_bytes) {
    struct exported *x = arg;
    json_array_append_new(x->files, json_pack("{s:s, s:I}", "file", path, "bytes", (json_int_t)size_bytes));
}

static int read_options(struct cmd_context *c, struct lk_dataset_export_options *o) {
    static const char *const formats[] = {"llmc", "megatron", "npy"}, *const splits[] = {"train", "held-out"};
    const char *format = cmd_value(c, "--format"), *split = cmd_value(c, "--split");
    int found = -1;
    if (!format) return cmd_usage_error(c, "--format is missing: llmc, megatron or npy");
    for (int i = 0; i < 3; i++)
        if (strcmp(format, formats[i]) == 0) found = i;
    if (found < 0) return cmd_usage_error(c, "--format %s: llmc, megatron and npy are there", format);
    o->format = (enum lk_dataset_format)found;
    for (int i = 0; i < 2; i++) o->splits[i] = split && strcmp(split, splits[i]) == 0;
    if (split && !o->splits[0] && !o->splits[1])
        return cmd_usage_error(c, "--split %s: train and held-out are there", split);
    o->without_masks = cmd_flag(c, "--without-masks");
    if (cmd_value(c, "--shard-tokens") && o->format != LK_DATASET_LLMC)
        return cmd_usage_error(c, "--shard-tokens goes with --format llmc");
    return cmd_u64(c, "--shard-tokens", 1, INT32_MAX, &o->shard_tokens);
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
    struct exported x = {.json = cmd_json(c)};
    struct lk_dataset_export_options o = {.progress = show_progress, .file = take_file, .arg = &x};
    const char *name = c->arguments[0], *dir = c->arguments[1];
    int code = read_options(c, &o);
    if (code) return code;
    if (cmd_open_store(c, false)) return CMD_FAILED;
    if (!(x.files = json_array())) return cmd_fail((lk_fail(&err, LK_ENOMEM, "no memory"), &err));
    lk_progress_init(&x.progress, stderr);
    cmd_catch_signals();
    code = lk_store_name_get(c->store, "dataset", name, &root, &err);
    if (!code) code = lk_dataset_open(c->store, &root, true, &d, &err);
    if (!code) code = lk_dataset_export(d, dir, name, &o, &err);
    lk_progress_end(&x.progress);
    if (code)
        code = cmd_fail(&err);
    else if (x.json)
        code = cmd_print_json(
            json_pack("{s:s, s:s, s:O}", "name", name, "format", cmd_value(c, "--format"), "files", x.files));
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
        {"--format", "llmc|megatron|npy", "which one (required)"},
        {"--split", "train|held-out", "only this split; both by default"},
        {"--shard-tokens", "N", "llmc: tokens a file; 100000000"},
        {"--without-masks", NULL, "llmc, megatron: leave loss masks out, which these cannot hold, instead of failing"},
        {NULL, NULL, NULL}},
    "Files are DIR/DATASET_train... and DIR/DATASET_val...; they get their names when all of them are on the disk, all or "
    "none,\n"
    "and nothing is written over. docs/formats.md says what they hold and where end tokens stand.",
    export};
