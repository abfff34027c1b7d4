/* lockstep response verify */
#include "model_run.h"

#include "lockstep/serve/receipt.h"
#include <string.h>

static const char *model_name;

/* The receipts of a saved answer: the whole one, or the last pieces of a stream ("data: ..." or not). */
static int add_receipts(const char *text, size_t size, const char *name, json_t *all, char **model, struct lk_err *err) {
    json_t *answer = lk_json_parse_zeros(text, size, name, err);
    if (!answer) return err->code;
    const json_t *list = json_object_get(json_object_get(answer, "lockstep"), "receipts");
    for (size_t i = 0; i < json_array_size(list); i++) json_array_append(all, json_array_get(list, i));
    const char *said = json_string_value(json_object_get(answer, "model"));
    if (said && !*model) *model = lk_strdup(said);
    json_decref(answer);
    return LK_OK;
}
static int read_file(const char *path, json_t *all, char **model, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    int code = cmd_read_input(path, &text, err);
    bool stream = !code && text.size > 5 && !memcmp(text.data, "data:", 5);
    if (!code && !stream) code = add_receipts(text.data ? text.data : "", text.size, path, all, model, err);
    for (char *line = text.data; !code && stream && line;) {
        char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) : strlen(line);
        if (n > 6 && !memcmp(line, "data: ", 6) && line[6] == '{')
            code = add_receipts(line + 6, n - 6, path, all, model, err);
        line = end ? end + 1 : NULL;
    }
    lk_buf_release(&text);
    return code;
}

static int verify_all(struct cmd_context *c, const struct cmd_model *m, const json_t *all, struct lk_err *err) {
    struct lk_tokenizer *t = NULL;
    struct lk_batch *b = NULL;
    char root[LK_ROOT_HEX];
    uint32_t context = m->model.layout.config.context;
    struct lk_batch_options o = {.slots = 1, .pages = (context + 31) / 32 + 1, .queue = 1};
    struct lk_batch_weights w = {&m->model.layout, m->model.weights, NULL, NULL};
    int code = lk_receipt_cache(json_array_get(all, 0), &o.cache, err);
    if (code) return code;
    code = m->model.has_tokenizer ? lk_tokenizer_load(c->store, &m->model.tokenizer_root, &t, err)
                                  : lk_fail(err, LK_EINVAL, "model %s has no tokenizer", m->ref.name);
    if (!code) code = lk_batch_open(c->math, t, &w, &o, &b, err);
    lk_root_hex(&m->model.weights_root, root);
    for (size_t i = 0; !code && i < json_array_size(all); i++) {
        struct lk_receipt_result r;
        code = lk_receipt_verify(b, t, json_array_get(all, i), root, &r, err);
        if (!code && !r.equal)
            code = lk_fail(err, LK_EDIVERGED, "receipt %zu: token %u differs%s", i, r.first_token,
                           r.token_differs ? "" : " in its logits alone");
        if (!code && !c->json) printf("receipt %zu: %u tokens and their logits are equal\n", i, r.tokens);
    }
    lk_batch_close(b);
    lk_tokenizer_free(t);
    return code;
}

static int response_verify(struct cmd_context *c) {
    struct lk_err err = {0};
    struct cmd_model m;
    const char *model;
    char *said = NULL; /* the model's name in the answer */
    json_t *all = json_array();
    int code = read_file(c->arguments[0], all, &said, &err);
    model = model_name ? model_name : said;
    if (!code && !json_array_size(all))
        code = lk_fail(&err, LK_EINVAL, "%s has no receipt: ask with \"lockstep\": {\"receipt\": true}", c->arguments[0]);
    if (!code && !model) code = lk_fail(&err, LK_EINVAL, "%s names no model: give --model", c->arguments[0]);
    if (!code) {
        code = cmd_model_open(c, model, &m);
        if (!code) {
            code = verify_all(c, &m, all, &err) ? cmd_fail(&err) : CMD_OK;
            cmd_model_close(&m);
        }
    } else
        code = cmd_fail(&err);
    if (!code && c->json)
        code = cmd_print_json(json_pack("{s:b, s:I}", "equal", 1, "receipts", (json_int_t)json_array_size(all)));
    json_decref(all);
    lk_free(said);
    return code;
}
const struct cmd cmd_response_verify = {
    "response verify",
    "FILE",
    1,
    1,
    "Make an answer of a server again, from its receipt.",
    (const struct cmd_option[]){
        CMD_STRING("--model", "MODEL|RUN[@STEP]", &model_name, NULL, "with this model; as the answer says, unless given"),
        CMD_END},
    "FILE (\"-\": standard input) is an answer that was asked for with \"lockstep\": {\"receipt\": true}, whole or as a "
    "stream.\n"
    "Says which token differs, if one does.",
    response_verify};
