/* lockstep model import|export|list|show|rm|pin */
#include "model_run.h"

#include "lockstep/base/file.h"
#include "lockstep/store/uploads.h"
#include <string.h>
#include <sys/stat.h>

static const char *type_of(const struct lk_model *m) {
    const char *type = json_string_value(json_object_get(m->manifest, "type"));
    return type ? type : m->layout.config.family == LK_GPT2 ? "gpt2" : "llama";
}

/* 850, 27.4K, 3.7M, 7.2B. */
static const char *count_of(size_t n, char out[16]) {
    static const char units[] = {'K', 'M', 'B'};
    double x = (double)n / 1e3;
    size_t i = 0;
    for (; x >= 999.95 && i + 1 < sizeof units; i++) x /= 1e3;
    if (n < 1000)
        snprintf(out, 16, "%zu", n);
    else
        snprintf(out, 16, "%.1f%c", x, units[i]);
    return out;
}

/* What a machine reads of a model; takes no reference. */
static json_t *describe(const struct lk_model *m, const char *name, const struct lk_root *root) {
    char weights[LK_ROOT_HEX], hex[LK_ROOT_HEX], tokenizer[LK_ROOT_HEX];
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s?, s:O, s:O, s:O}", "name", name, "root", lk_root_hex(root, hex), "type",
                     type_of(m), "parameters", (json_int_t)m->layout.parameters, "weights_root",
                     lk_root_hex(&m->weights_root, weights), "tokenizer_root",
                     m->has_tokenizer ? lk_root_hex(&m->tokenizer_root, tokenizer) : NULL, "config",
                     json_object_get(m->manifest, "config"), "stops", json_object_get(m->manifest, "stops"), "files",
                     json_object_get(m->manifest, "files"));
}

static int delete_name(struct lk_kv_txn *t, void *name, struct lk_err *err) {
    return lk_name_delete(t, "model", name, err);
}
static int remove_name(struct cmd_context *c, const char *name, struct lk_err *err) {
    return lk_kv_update(c->store->kv, delete_name, (void *)(uintptr_t)name, LK_DURABLE, NULL, err);
}

struct naming {
    struct lk_store *store;
    const char *name;
    const struct lk_root *root, *weights;
};
static int put_if_there(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct naming *n = arg;
    const struct lk_root both[] = {*n->weights, *n->root};
    int code = lk_store_still_there(n->store, t, both, 2, err);
    if (code == LK_ENOTFOUND)
        lk_fail(err, code, "the weights were removed meanwhile (its run prunes checkpoints): take another step");
    if (!code) code = lk_uploads_check(n->store, t, err);
    return code ? code : lk_name_put(t, "model", n->name, n->root, err);
}
static int put_name(struct cmd_context *c, const char *name, const struct lk_root *root, const struct lk_root *weights,
                    struct lk_err *err) {
    struct naming n = {c->store, name, root, weights};
    return lk_kv_update(c->store->kv, put_if_there, &n, LK_DURABLE, NULL, err);
}

/* Names a model's root and says what it is, and what had the name before. */
static int keep(struct cmd_context *c, const char *name, const struct lk_root *root) {
    struct lk_err err = {0};
    struct lk_model m;
    struct lk_root old;
    char hex[LK_ROOT_HEX], count[16];
    int code = lk_model_open_root(c->store, root, false, &m, &err);
    if (code) return cmd_fail(&err);
    bool moves = lk_store_name_get(c->store, "model", name, &old, NULL) == LK_OK && !lk_root_equal(&old, root);
    code = put_name(c, name, root, &m.weights_root, &err);
    if (!code && moves) fprintf(stderr, "model %s was root %s before\n", name, lk_root_hex(&old, hex));
    if (code)
        code = cmd_fail(&err);
    else if (c->json)
        code = cmd_print_json(describe(&m, name, root));
    else
        printf("model %s: %s, %s parameters%s%s, weights root %s\n", name, type_of(&m),
               count_of(m.layout.parameters, count), m.layout.narrow ? " in " : "",
               m.layout.narrow ? lk_dtype_name(m.narrow_matrices) : "", lk_root_hex(&m.weights_root, hex));
    lk_model_close(&m);
    return code;
}

/* --- import ---------------------------------------------------------------------------------------------- */

static void show_note(void *arg, const char *text) {
    (void)arg;
    fprintf(stderr, "note: %s\n", text);
}
static int show_progress(void *arg, uint64_t done, uint64_t total) {
    lk_progress_show(arg, false, "model: %.1f of %.1f GB", (double)done * 1e-9, (double)total * 1e-9);
    return cmd_interrupted();
}

static struct {
    const char *name, *tokenizer;
    struct cmd_list ignore;
} importing;

static bool is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static int import(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_progress progress;
    struct lk_root root, tokenizer;
    const char *other = importing.tokenizer;
    struct lk_model_import o = {.note = show_note, .progress = show_progress, .arg = &progress};
    int code;
    o.ignore = importing.ignore.items;
    o.ignore_count = importing.ignore.count;
    o.no_tokenizer = other && strcmp(other, "none") == 0;
    if (!lk_file_exists(c->arguments[0])) {
        lk_fail(&err, LK_ENOTFOUND, "there is no file or folder %s", c->arguments[0]);
        return cmd_fail(&err);
    }
    if ((code = cmd_open_store(c, LK_CREATE))) return code;
    if (other && !o.no_tokenizer) {
        if (lk_store_name_get(c->store, "tokenizer", other, &tokenizer, &err)) return cmd_fail(&err);
        o.tokenizer = &tokenizer;
    }
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns(); /* short work leaves no line in a log */
    cmd_catch_signals();
    code =
        (is_folder(c->arguments[0]) ? lk_model_import : lk_model_import_gguf)(c->store, c->arguments[0], &o, &root, &err);
    lk_progress_end(&progress);
    return code ? cmd_fail(&err) : keep(c, importing.name, &root);
}
const struct cmd cmd_model_import = {
    "model import",
    "DIR|FILE.gguf",
    1,
    1,
    "Bring in a Hugging Face folder or a GGUF file (GPT-2, Llama, Mistral, Qwen2, Qwen3).",
    (const struct cmd_option[]){
        CMD_NAME("--name", "M", &importing.name, CMD_REQUIRED, "name to keep it under"),
        CMD_STRING("--tokenizer", "T", &importing.tokenizer, NULL,
                   "this tokenizer of the store instead of its own; \"none\": leave it out"),
        CMD_LIST("--ignore", "KEY", &importing.ignore,
                 "pass over this key of config.json or the file, which is not known here; may be repeated"),
        CMD_END},
    "Reads config.json, model.safetensors or the files of model.safetensors.index.json (F32, BF16, F16), tokenizer.json\n"
    "and generation_config.json. What in config.json would change the result and is not computed here is an error that\n"
    "names the key. SmolLM2, TinyLlama and others of those types are read as well.\n"
    "Of a GGUF file tensors of F32, F16 and BF16 are read as floats, Q8_0 and Q4_0 of the layers' matrices as they are:\n"
    "the model is then one in 8 or 4 bits, as model quantize makes them.",
    import};

/* --- export ---------------------------------------------------------------------------------------------- */

static struct { int dtype, format; /* dtype: as enum lk_dtype */ } exporting;

static int export(struct cmd_context *c) {
    struct lk_err err = {0};
    struct cmd_model m;
    struct lk_progress progress;
    struct lk_model_export how = {(enum lk_dtype)exporting.dtype, show_progress, &progress};
    int code = cmd_model_open(c, c->arguments[0], &m);
    if (code) return code;
    const char *place = c->arguments[1];
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns(); /* short work leaves no line in a log */
    cmd_catch_signals();
    const struct lk_model_config *config = &m.model.layout.config;
    if (exporting.format == 1)
        code = lk_model_export_llmc(&m.model, &how, place, &err);
    else if (exporting.format == 2)
        code = lk_model_export_gguf(c->store, &m.model, &how, place, &err);
    else
        code = lk_model_export(c->store, &m.model, &how, place, &err);
    if (!code && exporting.format == 2 && config->window && config->window < config->context)
        fprintf(stderr, "note: llama.cpp knows no window for this family: behind %u positions it gives other answers\n",
                config->window);
    lk_progress_end(&progress);
    char hex[LK_ROOT_HEX], count[16];
    lk_root_hex(&m.model.weights_root, hex);
    if (code)
        code = cmd_fail(&err);
    else if (c->json)
        code = cmd_print_json(json_pack("{s:s, s:s}", "path", place, "weights_root", hex));
    else
        printf("%s: %s parameters, %sweights root %s\n", place, count_of(m.model.layout.parameters, count),
               how.dtype == LK_F32 ? "" : "rounded to 16 bits from ", hex);
    cmd_model_close(&m);
    return code;
}
const struct cmd cmd_model_export = {
    "model export",
    "MODEL|RUN[@STEP] DIR|FILE",
    2,
    2,
    "Write a folder that Hugging Face's transformers loads, a GGUF file, or llm.c's checkpoint.",
    (const struct cmd_option[]){CMD_CHOICE("--dtype", &exporting.dtype, "f32|bf16|f16", "f32",
                                           "f32 has the same bits, others are rounded to nearest"),
                                CMD_CHOICE("--format", &exporting.format, "huggingface|llmc|gguf", "huggingface",
                                           "llmc: a file for llm.c (GPT-2 only); gguf: one for llama.cpp"),
                                CMD_END},
    "DIR must not exist or be empty; it appears when it is whole. A model that came from a folder keeps its "
    "tokenizer.json,\n"
    "chat template and generation settings as they were.\n"
    "A model in 8 or 4 bits goes out as gguf alone, with its bytes as they are.",
    export};

/* --- quantize -------------------------------------------------------------------------------------------- */

static struct {
    int to;
    const char *name;
} quantizing;

static int quantize(struct cmd_context *c) {
    static const enum lk_dtype matrices[] = {LK_Q8, LK_Q4, LK_BF16},
                               ends[] = {LK_Q8, LK_Q8, LK_BF16}; /* as --to has them */
    struct lk_err err = {0};
    struct cmd_model m;
    struct lk_progress progress;
    struct lk_root root;
    struct lk_model_quantize how = {matrices[quantizing.to], ends[quantizing.to], show_progress, &progress};
    int code = cmd_open_store(c, LK_WRITE);
    if (!code) code = cmd_model_open(c, c->arguments[0], &m);
    if (code) return code;
    char *own = quantizing.name ? NULL : lk_asprintf("%s-%s", m.ref.name, lk_dtype_name(how.matrices));
    lk_progress_init(&progress, stderr);
    if (!progress.terminal) progress.last_ns = lk_clock_ns();
    cmd_catch_signals();
    code = lk_model_quantize(c->math, c->store, &m.model, &how, &root, &err);
    lk_progress_end(&progress);
    cmd_model_close(&m);
    code = code ? cmd_fail(&err) : keep(c, quantizing.name ? quantizing.name : own, &root);
    lk_free(own);
    return code;
}
const struct cmd cmd_model_quantize = {
    "model quantize",
    "MODEL|RUN[@STEP]",
    1,
    1,
    "Make a model whose weights have 16, 8 or 4 bits.",
    (const struct cmd_option[]){
        CMD_CHOICE(
            "--to", &quantizing.to, "q8|q4|bf16", "q8",
            "GGUF's Q8_0 or Q4_0, with q4 the embedding and the head are q8; or bf16, in which it computes as in 32"),
        CMD_NAME("--as", "NAME", &quantizing.name, NULL, "name to keep it under; NAME-q8 by default"), CMD_END},
    "generate, serve and eval take it; it cannot be trained. The same model gives the same root everywhere.",
    quantize};

/* --- list, show, rm, pin --------------------------------------------------------------------------------- */

static int list(struct cmd_context *c) {
    return cmd_list_names(c, "model");
}
const struct cmd cmd_model_list = {"model list", "", 0, 0, "List models and their roots.", NULL, NULL, list};

/* "model:M" is M here too. */
static const char *plain_name(const char *name) {
    return strncmp(name, "model:", 6) ? name : name + 6;
}

static int show(struct cmd_context *c) {
    struct lk_err err = {0};
    c->arguments[0] = (char *)(uintptr_t)plain_name(c->arguments[0]);
    struct lk_model m;
    struct lk_root root;
    char hex[LK_ROOT_HEX];
    const char *key;
    json_t *value;
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    if (lk_store_name_get(c->store, "model", c->arguments[0], &root, &err) ||
        lk_model_open_root(c->store, &root, false, &m, &err))
        return cmd_fail(&err);
    if (c->json) {
        int code = cmd_print_json(describe(&m, c->arguments[0], &root));
        lk_model_close(&m);
        return code;
    }
    printf("%-14s %s\n", "name", c->arguments[0]);
    printf("%-14s %s\n", "root", lk_root_hex(&root, hex));
    printf("%-14s %s\n", "weights root", lk_root_hex(&m.weights_root, hex));
    printf("%-14s %s\n", "tokenizer root", m.has_tokenizer ? lk_root_hex(&m.tokenizer_root, hex) : "-");
    printf("%-14s %s\n%-14s %zu\n", "type", type_of(&m), "parameters", m.layout.parameters);
    if (m.layout.narrow)
        printf("%-14s %s, embedding and head %s\n%-14s %s\n", "weights", lk_dtype_name(m.narrow_matrices),
               lk_dtype_name(m.narrow_ends), "made from", m.has_narrow_from ? lk_root_hex(&m.narrow_from, hex) : "-");
    json_object_foreach(json_object_get(m.manifest, "config"), key, value) {
        double real;
        if (json_is_integer(value))
            printf("%-14s %lld\n", key, (long long)json_integer_value(value));
        else if (json_is_boolean(value))
            printf("%-14s %s\n", key, json_is_true(value) ? "true" : "false");
        else if (lk_json_float_parse(value, &real) == LK_OK)
            printf("%-14s %.9g\n", key, real);
        else
            printf("%-14s %s\n", key, json_string_value(value));
    }
    json_object_foreach(json_object_get(m.manifest, "files"), key, value) printf("%-14s %s\n", "file", key);
    lk_model_close(&m);
    return CMD_OK;
}
const struct cmd cmd_model_show = {"model show", "MODEL", 1,   1, "Show a model's configuration and roots.",
                                   NULL,         NULL,    show};

static int rm(struct cmd_context *c) {
    struct lk_err err = {0};
    c->arguments[0] = (char *)(uintptr_t)plain_name(c->arguments[0]);
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (remove_name(c, c->arguments[0], &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s}", "removed", c->arguments[0]));
    printf("model %s removed; " CMD_GC_HINT ", where nothing else needs it\n", c->arguments[0]);
    return CMD_OK;
}
const struct cmd cmd_model_rm = {"model rm", "MODEL", 1, 1, "Remove a model's name.", NULL, NULL, rm};

static const char *pin_name;

static int pin(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_model_ref ref;
    struct lk_model m;
    struct lk_root root;
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    int code = lk_model_find(c->store, c->arguments[0], false, NULL, NULL, &ref, &m, &err);
    if (code) return cmd_fail(&err);
    code = lk_manifest_put(c->store, m.manifest, &root, &err);
    lk_model_close(&m);
    return code ? cmd_fail(&err) : keep(c, pin_name, &root);
}
const struct cmd cmd_model_pin = {
    "model pin",
    "RUN[@STEP]",
    1,
    1,
    "Keep a checkpoint's weights as a model, whatever becomes of its run.",
    (const struct cmd_option[]){CMD_NAME("--name", "M", &pin_name, CMD_REQUIRED, "name to keep it under"), CMD_END},
    "Takes no room: the model names the checkpoint's own blob, which then stays when the run prunes or is removed.",
    pin};
