/* lockstep gc, version */
#include "cmd.h"

#include "lockstep/train/train.h"

static struct {
    uint64_t grace_seconds;
    bool dry;
} collecting;

/* Of a dry run: each blob, and why it stays. */
static void tell(void *arg, const struct lk_gc_blob *b) {
    json_t *list = arg;
    char root[LK_ROOT_HEX], size[32];
    lk_root_hex(&b->root, root);
    const char *why = b->holder ? b->holder : b->goes ? "nothing needs it" : "nothing needs it yet, it is young";
    if (list)
        json_array_append_new(list, json_pack("{s:s, s:I, s:f, s:b, s:s}", "root", root, "bytes", (json_int_t)b->size_bytes,
                                              "age_seconds", (double)b->age_ms / 1000, "goes", b->goes, "why", why));
    else
        printf("%s  %s  %9s  %s\n", b->goes ? "goes " : "stays", root, lk_format_bytes(b->size_bytes, size), why);
}

static int gc(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_gc_result r;
    char freed[32], kept[32];
    bool dry = collecting.dry;
    json_t *list = dry && c->json ? json_array() : NULL;
    struct lk_gc_options o = {(int64_t)collecting.grace_seconds * 1000, dry, tell, list};
    if (cmd_open_store(c, dry ? LK_READ : LK_WRITE)) return CMD_FAILED;
    if (lk_store_gc(c->store, lk_train_rows(), &o, &r, &err)) {
        json_decref(list);
        return cmd_fail(&err);
    }
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I, s:I, s:b, s:o*}", "removed", (json_int_t)r.blobs, "removed_bytes",
                                        (json_int_t)r.bytes, "kept", (json_int_t)r.kept, "kept_bytes",
                                        (json_int_t)r.kept_bytes, "dry_run", dry, "blobs", list));
    printf("%s %llu blobs, %s; kept %llu, %s", dry ? "would remove" : "removed", (unsigned long long)r.blobs,
           lk_format_bytes(r.bytes, freed), (unsigned long long)r.kept, lk_format_bytes(r.kept_bytes, kept));
    if (collecting.grace_seconds)
        printf("; what is younger than %llu s stays, --grace 0 takes it too", (unsigned long long)collecting.grace_seconds);
    putchar('\n');
    return CMD_OK;
}
const struct cmd cmd_gc = {
    "gc",
    "",
    0,
    0,
    "Remove what no name, run or kept checkpoint needs any more.",
    (const struct cmd_option[]){
        CMD_U64("--grace", "SECONDS", &collecting.grace_seconds, 0, 1000000000, "3600", "keep anything younger"),
        CMD_FLAG("--dry-run", &collecting.dry, "only say what would go, and why the rest stays"), CMD_END},
    "What another command is just making stays, whatever its age; only of release 0.1, which does not say what it makes, "
    "make sure with --grace 0 that nothing writes to the store.",
    gc};

static int version(struct cmd_context *c) {
    if (c->json) return cmd_print_json(json_pack("{s:s, s:s}", "version", lk_version(), "numerics", "fp32-1"));
    printf("lockstep %s (numerics fp32-1)\n", lk_version());
    return CMD_OK;
}
const struct cmd cmd_version = {"version", "", 0, 0, "Print the version.", NULL, NULL, version};
