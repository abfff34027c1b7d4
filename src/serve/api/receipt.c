/* Receipts: what an answer is a function of, and a mark for each token that its logits leave; and doing it again. */
#include "lockstep/serve/receipt.h"
#include "inside.h"

#include <stdio.h>
#include <string.h>

/* chain = SHA-256(chain || id, 4 bytes || SHA-256 of the logits); docs/formats.md, "Receipts". */
static void go_on(struct lk_root *chain, uint32_t id, const struct lk_root *logits) {
    unsigned char bytes[32 + 4 + 32];
    memcpy(bytes, chain->bytes, 32);
    for (int i = 0; i < 4; i++) bytes[32 + i] = (unsigned char)(id >> 8 * i);
    memcpy(bytes + 36, logits->bytes, 32);
    lk_sha256(bytes, sizeof bytes, chain);
}

int lk__api_receipt_add(struct lk__api_choice *c, const struct lk_drawn_token *t) {
    struct lk__api_mark m = {.id = t->token.id};
    go_on(&c->chain, t->token.id, &t->logits);
    memcpy(m.mark, c->chain.bytes, sizeof m.mark);
    return lk_buf_append(&c->marks, &m, sizeof m);
}

/* --- The request as a value ------------------------------------------------------------------------------------------- */

static void put(json_t *o, const char *key, json_t *v) {
    json_object_set_new(o, key, v); /* a value that is missing makes the digest fail */
}

static const char *const forms[] = {"text", "json_object", "json_schema", "gbnf", "tools"};
static json_t *request_of(const struct lk__api_ask *a, uint32_t prompt, uint32_t choice, uint32_t max_tokens) {
    enum lk_dtype cache = lk_batch_cache(a->model->batch);
    const struct lk_request *r = &a->r;
    const struct lk_tokens *ids = &a->prompts[prompt].t;
    json_t *o = json_object(), *list = json_array(), *stops = json_array(), *ends = json_array(), *biases = json_array();
    for (size_t i = 0; i < ids->count; i++) json_array_append_new(list, json_integer(ids->ids[i]));
    for (size_t i = 0; i < r->stop_count; i++) json_array_append_new(stops, json_string(r->stops[i]));
    for (size_t i = 0; i < r->end_count; i++) json_array_append_new(ends, json_integer(r->ends[i]));
    for (size_t i = 0; i < r->penalties.bias_count; i++)
        json_array_append_new(
            biases, json_pack("[I, o]", (json_int_t)r->penalties.bias[i].id, lk_json_float(r->penalties.bias[i].bias)));
    put(o, "prompt", list);
    put(o, "stops", stops);
    put(o, "ends", ends);
    put(o, "ignore_end", json_boolean(r->ignore_end));
    put(o, "biases", biases);
    put(o, "max_tokens", json_integer(max_tokens));
    put(o, "seed", json_integer((json_int_t)r->sampling.seed));
    put(o, "choice", json_integer(choice));
    put(o, "temperature", lk_json_float(r->sampling.temperature));
    put(o, "top_k", json_integer(r->sampling.top_k));
    put(o, "top_p", lk_json_float(r->sampling.top_p));
    put(o, "min_p", lk_json_float(r->sampling.min_p));
    put(o, "repetition_penalty", lk_json_float(r->penalties.repetition));
    put(o, "presence_penalty", lk_json_float(r->penalties.presence));
    put(o, "frequency_penalty", lk_json_float(r->penalties.frequency));
    if (cache != LK_F32) put(o, "cache", json_string(lk_dtype_name(cache)));
    if (a->form) put(o, "form", json_string(forms[a->form]));
    if (a->form_text) put(o, "form_text", json_string(a->form_text));
    return o;
}
static int digest_of(const json_t *request, struct lk_root *out) {
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_json_canonical(request, &text, NULL);
    if (!code) lk_sha256(text.data, text.size, out);
    lk_buf_release(&text);
    return code;
}

static void put_hex(struct lk_json_out *o, const uint8_t *bytes, size_t n) {
    char hex[2 * 32 + 1];
    for (size_t i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    lk_put_text(o, hex);
}

void lk__api_receipt_write(struct lk_json_out *o, const struct lk__api_choice *c) {
    const struct lk__api_ask *a = &c->job->ask;
    const struct lk__api_mark *marks = (const struct lk__api_mark *)(const void *)c->marks.data;
    size_t count = c->marks.size / sizeof *marks;
    struct lk_root digest;
    struct lk_buf text = LK_BUF_INIT;
    json_t *request = request_of(a, c->index / a->n, c->index % a->n, c->max_tokens);
    o->failed |= digest_of(request, &digest) || lk_json_canonical(request, &text, NULL);
    lk_put_open(o, '{');
    lk_put_key(o, "model_root"), lk_put_text(o, c->job->root);
    lk_put_key(o, "numerics"), lk_put_text(o, "fp32-1");
    lk_put_key(o, "request"), lk_put_raw(o, text.data ? text.data : "null", text.data ? text.size : 4);
    lk_put_key(o, "request_digest"), put_hex(o, digest.bytes, 32);
    lk_put_key(o, "tokens"), lk_put_open(o, '[');
    for (size_t i = 0; i < count; i++) lk_put_unsigned(o, marks[i].id);
    lk_put_close(o, ']');
    lk_put_key(o, "marks"), lk_put_open(o, '[');
    for (size_t i = 0; i < count; i++) put_hex(o, marks[i].mark, sizeof marks[i].mark);
    lk_put_close(o, ']');
    lk_put_key(o, "root"), put_hex(o, c->chain.bytes, 32);
    lk_put_close(o, '}');
    json_decref(request);
    lk_buf_release(&text);
}

/* --- Doing it again -------------------------------------------------------------------------------------- */

struct again {
    const json_t *tokens, *marks;
    struct lk_root chain;
    uint32_t count;
    struct lk_receipt_result *out;
    bool done;
};
static int compare_token(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct again *a = arg;
    char mark[2 * LK__API_MARK + 1];
    (void)prompt;
    go_on(&a->chain, t->token.id, &t->logits);
    for (int i = 0; i < LK__API_MARK; i++) snprintf(mark + 2 * i, 3, "%02x", a->chain.bytes[i]);
    const json_t *id = json_array_get(a->tokens, a->count);
    const char *said = json_string_value(json_array_get(a->marks, a->count));
    bool token = json_is_integer(id) && json_integer_value(id) == t->token.id, same = token && said && !strcmp(said, mark);
    if (!same) a->out->equal = false, a->out->first_token = a->count, a->out->token_differs = !token;
    a->count++;
    return !same;
}
static void over(void *arg, const struct lk_request_result *r) {
    struct again *a = arg;
    a->done = true;
    a->out->tokens = a->count;
    a->out->failed = r->end == LK_REQUEST_FAILED;
}

struct reading {
    struct lk_request r;
    struct lk_tokens prompt;
    uint32_t ends[64];
    const char *stops[LK__API_STOPS];
    struct lk_logit_bias biases[LK_LOGIT_BIASES_MOST];
};
static bool unsigned_at(const json_t *o, const char *key, uint64_t most, uint64_t *out) {
    const json_t *v = json_object_get(o, key);
    *out = (uint64_t)json_integer_value(v);
    return json_is_integer(v) && (most == UINT64_MAX || *out <= most);
}
static bool real_at(const json_t *o, const char *key, double *out) {
    return !lk_json_float_parse(json_object_get(o, key), out);
}

/* The request of a receipt, back from its value; false: it is none. */
static bool read_request(const json_t *o, struct reading *g) {
    struct lk_request *r = &g->r;
    const json_t *ids = json_object_get(o, "prompt"), *stops = json_object_get(o, "stops"),
                 *ends = json_object_get(o, "ends"), *biases = json_object_get(o, "biases");
    uint64_t max, choice, top_k;
    double bias;
    bool ok = json_is_array(ids) && json_array_size(stops) <= LK__API_STOPS && json_array_size(ends) <= 64 &&
              json_array_size(biases) <= LK_LOGIT_BIASES_MOST;
    ok = ok && unsigned_at(o, "max_tokens", UINT32_MAX, &max) && unsigned_at(o, "choice", UINT32_MAX, &choice) &&
         unsigned_at(o, "top_k", UINT32_MAX, &top_k) && unsigned_at(o, "seed", UINT64_MAX, &r->sampling.seed);
    ok = ok && real_at(o, "temperature", &r->sampling.temperature) && real_at(o, "top_p", &r->sampling.top_p) &&
         real_at(o, "min_p", &r->sampling.min_p) && real_at(o, "repetition_penalty", &r->penalties.repetition) &&
         real_at(o, "presence_penalty", &r->penalties.presence) && real_at(o, "frequency_penalty", &r->penalties.frequency);
    if (!ok || !(g->prompt.ids = lk_alloc((json_array_size(ids) + 1) * sizeof(uint32_t)))) return false;
    for (size_t i = 0; i < json_array_size(ids) && ok; i++) {
        const json_t *v = json_array_get(ids, i);
        ok = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= UINT32_MAX;
        g->prompt.ids[g->prompt.count++] = (uint32_t)json_integer_value(v);
    }
    for (size_t i = 0; i < json_array_size(stops) && ok; i++)
        ok = (g->stops[r->stop_count++] = json_string_value(json_array_get(stops, i))) != NULL;
    for (size_t i = 0; i < json_array_size(ends) && ok; i++)
        g->ends[r->end_count++] = (uint32_t)json_integer_value(json_array_get(ends, i));
    for (size_t i = 0; i < json_array_size(biases) && ok; i++) {
        const json_t *pair = json_array_get(biases, i);
        ok = json_is_integer(json_array_get(pair, 0)) && !lk_json_float_parse(json_array_get(pair, 1), &bias);
        if (ok)
            g->biases[r->penalties.bias_count++] =
                (struct lk_logit_bias){(uint32_t)json_integer_value(json_array_get(pair, 0)), (float)bias};
    }
    r->prompt = g->prompt.ids, r->prompt_count = g->prompt.count, r->max_tokens = (uint32_t)max;
    r->sampling.choice = (uint32_t)choice, r->sampling.top_k = (uint32_t)top_k;
    r->stops = g->stops, r->ends = g->ends, r->penalties.bias = g->biases;
    r->ignore_end = json_is_true(json_object_get(o, "ignore_end"));
    return ok;
}

/* The grammar of a receipt's request, if it has one. */
static int read_form(const json_t *o, const struct lk_tokenizer *t, const struct reading *g, struct lk_grammar **grammar,
                     struct lk_vocabulary **vocabulary, struct lk_matcher **matcher, struct lk_err *err) {
    const char *name = json_string_value(json_object_get(o, "form")),
               *text = json_string_value(json_object_get(o, "form_text"));
    enum lk__api_form form = LK__API_OBJECT;
    if (!name) return LK_OK;
    while (form <= LK__API_TOOLS && strcmp(forms[form], name)) form++;
    if (form > LK__API_TOOLS || (form != LK__API_OBJECT && !text))
        return lk_fail(err, LK_EINVAL, "the receipt's form %.40s is none that is known here", name);
    const struct lk_chat_calls *calls = NULL;
    int code = lk__api_compile(form, text, &calls, grammar, err);
    if (!code) code = lk_vocabulary_create(t, g->ends, g->r.end_count, calls ? calls->marks : NULL, vocabulary, err);
    return code ? code : lk_matcher_create(*grammar, *vocabulary, matcher, err);
}

int lk_receipt_cache(const json_t *receipt, enum lk_dtype *out, struct lk_err *err) {
    const json_t *name = json_object_get(json_object_get(receipt, "request"), "cache");
    *out = LK_F32;
    if (!name || (json_is_string(name) && lk_dtype_named(json_string_value(name), out))) return LK_OK;
    return lk_fail(err, LK_EINVAL, "the receipt's keys and values are in no format that is known here");
}

int lk_receipt_verify(struct lk_batch *batch, const struct lk_tokenizer *tokenizer, const json_t *receipt,
                      const char *model_root, struct lk_receipt_result *out, struct lk_err *err) {
    const json_t *request = json_object_get(receipt, "request");
    const char *root = json_string_value(json_object_get(receipt, "model_root")),
               *numerics = json_string_value(json_object_get(receipt, "numerics"));
    const char *digest = json_string_value(json_object_get(receipt, "request_digest")),
               *end = json_string_value(json_object_get(receipt, "root"));
    struct lk_root is;
    char hex[LK_ROOT_HEX];
    *out = (struct lk_receipt_result){.equal = true};
    if (!root || !numerics || !digest || !end || !json_is_object(request))
        return lk_fail(err, LK_EINVAL,
                       "this is no receipt: model_root, numerics, request, request_digest or root is missing");
    if (strcmp(numerics, "fp32-1"))
        return lk_fail(err, LK_EUNSUPPORTED, "the receipt is of numerics %.40s; this program computes fp32-1", numerics);
    if (strcmp(root, model_root))
        return lk_fail(err, LK_EINVAL, "the receipt is of the model %.64s, and this is %s", root, model_root);
    enum lk_dtype cache;
    int said = lk_receipt_cache(receipt, &cache, err);
    if (said) return said;
    if (cache != lk_batch_cache(batch))
        return lk_fail(err, LK_EINVAL, "the receipt is of keys and values in %s, and these are in %s", lk_dtype_name(cache),
                       lk_dtype_name(lk_batch_cache(batch)));
    if (digest_of(request, &is) || strcmp(digest, lk_root_hex(&is, hex)))
        return lk_fail(err, LK_EINVAL, "the receipt's request is not the one of its digest: somebody has changed it");
    struct reading *g = lk_calloc(1, sizeof *g);
    if (!g) return lk_fail(err, LK_ENOMEM, "no memory for a receipt");
    struct again a = {.tokens = json_object_get(receipt, "tokens"), .marks = json_object_get(receipt, "marks"), .out = out};
    int code =
        read_request(request, g) ? LK_OK : lk_fail(err, LK_EINVAL, "the receipt's request is not one that can be read");
    struct lk_grammar *grammar = NULL;
    struct lk_vocabulary *vocabulary = NULL;
    if (!code) code = read_form(request, tokenizer, g, &grammar, &vocabulary, &g->r.matcher, err);
    g->r.receipt = true, g->r.token = compare_token, g->r.done = over, g->r.arg = &a;
    if (!code) code = lk_batch_submit(batch, &g->r, NULL, err);
    while (!code && !a.done) lk_batch_step(batch);
    if (!code && out->failed) code = lk_fail(err, LK_ENOMEM, "no memory for the text");
    if (!code && out->equal && (a.count != json_array_size(a.tokens) || strcmp(end, lk_root_hex(&a.chain, hex))))
        out->equal = false, out->first_token = a.count, out->token_differs = true;
    lk_matcher_free(g->r.matcher);
    lk_vocabulary_free(vocabulary);
    lk_grammar_free(grammar);
    lk_free(g->prompt.ids);
    lk_free(g);
    return code;
}
